#include "keytrail/join.h"

#include "keytrail/trail.h"

#include <stdlib.h>
#include <sys/queue.h>

struct node {
	TAILQ_ENTRY(node) all;
	TAILQ_ENTRY(node) open; /* only while it waits */
	uint64_t seq;
	bool waits;
	struct slice id; /* in text */
	size_t n;
	char text[];
};

TAILQ_HEAD(nodes, node);

struct join {
	struct nodes all, open;
	size_t rows, waiting, bytes;
	struct node *handed; /* borrowed by the caller */
};

struct join *
join_new(struct err *err)
{
	struct join *j = calloc(1, sizeof(*j));

	if (j == NULL) {
		err_set_errno(err, "join");
		return NULL;
	}
	TAILQ_INIT(&j->all);
	TAILQ_INIT(&j->open);
	return j;
}

static void
stop_waiting(struct join *j, struct node *n)
{
	TAILQ_REMOVE(&j->open, n, open);
	n->waits = false;
	j->waiting--;
}

static void
take_out(struct join *j, struct node *n)
{
	TAILQ_REMOVE(&j->all, n, all);
	j->rows--;
	j->bytes -= n->n;
}

void
join_free(struct join *j)
{
	struct node *n, *next;

	if (j == NULL)
		return;
	for (n = TAILQ_FIRST(&j->all); n != NULL; n = next) {
		next = TAILQ_NEXT(n, all);
		free(n);
	}
	free(j->handed);
	free(j);
}

static void
close_intent(struct join *j, struct slice id)
{
	struct node *n = TAILQ_FIRST(&j->open);

	while (n != NULL && !slice_equal(n->id, id))
		n = TAILQ_NEXT(n, open);
	if (n == NULL)
		return;
	stop_waiting(j, n);
	take_out(j, n);
	free(n);
}

int
join_add(struct join *j, struct slice line, uint64_t seq, bool wanted, struct err *err)
{
	struct slice id = trail_line_string(line, SLICE("id"));
	bool intent = slice_equal(trail_line_string(line, SLICE("kind")), SLICE("intent"));
	struct node *n;

	if (!intent)
		close_intent(j, id);
	if (!wanted)
		return 0;
	if ((n = malloc(sizeof(*n) + line.n)) == NULL)
		return err_set_errno(err, "join");
	*n = (struct node){ .seq = seq, .waits = intent, .n = line.n };
	memcpy(n->text, line.p, line.n);
	n->id = id.n > 0 ? (struct slice){ n->text + (id.p - line.p), id.n } : SLICE_EMPTY;
	TAILQ_INSERT_TAIL(&j->all, n, all);
	if (intent) {
		TAILQ_INSERT_TAIL(&j->open, n, open);
		j->waiting++;
	}
	j->rows++;
	j->bytes += line.n;
	return 0;
}

void
join_settle(struct join *j)
{
	struct node *n;

	while ((n = TAILQ_FIRST(&j->open)) != NULL)
		stop_waiting(j, n);
}

static bool
hand_out(struct join *j, struct node *n, struct join_row *out)
{
	free(j->handed);
	j->handed = NULL;
	if (n == NULL || n->waits)
		return false;
	take_out(j, n);
	j->handed = n;
	*out = (struct join_row){ n->seq, { n->text, n->n } };
	return true;
}

bool
join_next(struct join *j, struct join_row *out)
{
	return hand_out(j, TAILQ_FIRST(&j->all), out);
}

bool
join_next_closed(struct join *j, struct join_row *out)
{
	struct node *n = TAILQ_FIRST(&j->all);

	while (n != NULL && n->waits)
		n = TAILQ_NEXT(n, all);
	return hand_out(j, n, out);
}

size_t
join_rows(const struct join *j)
{
	return j->rows;
}

size_t
join_waiting(const struct join *j)
{
	return j->waiting;
}

size_t
join_bytes(const struct join *j)
{
	return j->bytes;
}

uint64_t
join_first(const struct join *j)
{
	const struct node *n = TAILQ_FIRST(&j->all);

	return n != NULL ? n->seq : 0;
}
