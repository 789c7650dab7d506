/* What a sink's thread reads: the trail, from its cursor on. */

#include "publisher_impl.h"

#include <inttypes.h>
#include <string.h>

#define READ_TRIES 10

void
publisher_copy_id(char out[TRAIL_ID_SIZE], struct slice id)
{
	size_t n = id.n < TRAIL_ID_SIZE ? id.n : TRAIL_ID_SIZE - 1;

	memcpy(out, id.p, n);
	out[n] = '\0';
}

/* ---- the cursor's line ---- */

/* The first line at or after `seq`: 1, 0 when there is none, -1. */
int
publisher_look(int dirfd, uint64_t seq, bool step_over, struct line_id *out, struct err *err)
{
	const struct trail_member *member;
	struct trail_reader *r;
	struct slice line;
	int rc;

	if (trail_reader_open_at(dirfd, seq, &r, err) == -1)
		return -1;
	trail_reader_step_over(r, step_over);
	rc = trail_reader_next(r, &line, &out->seq, err);
	if (rc == 1) {
		member = trail_reader_member(r);
		out->delivered = 0;
		publisher_copy_id(out->log, member->log);
		publisher_copy_id(out->boot, member->boot);
	}
	trail_reader_close(r);
	return rc;
}

/* A disk may recover; what it has not given in so many tries, with the pauses between them most of a
 * minute, is lost: the sink must not wait for it for ever. */
static bool
gives_up(const struct place *s)
{
	return s->unread >= READ_TRIES;
}

static int
look(struct place *s, uint64_t seq, struct line_id *out, struct err *err)
{
	int rc = publisher_look(s->p->dirfd, seq, gives_up(s), out, err);

	s->unread = rc == -1 ? s->unread + 1 : 0;
	return rc;
}

void
publisher_begin_at(struct place *s, uint64_t seq)
{
	pthread_mutex_lock(&s->lock);
	s->begin = s->counted = seq;
	pthread_mutex_unlock(&s->lock);
}

static void
start_at(struct place *s, uint64_t seq)
{
	s->pos.seq = seq;
	s->pos.delivered = 0;
	s->dirty = true;
	publisher_begin_at(s, seq);
	atomic_store(&s->keep, seq + 1);
}

static void
start_over(struct place *s)
{
	log_error(s->p->log, "cursor_foreign",
	    "sink %s: %s is of another trail; all that this one holds is delivered", s->name,
	    s->cursor_name);
	s->pos.log[0] = s->pos.boot[0] = '\0';
	start_at(s, 0);
}

/* The trail ends below the cursor: it was put back to an earlier state.  What it holds of the same
 * log was delivered before; another log is a new one. */
static int
settle_rolled_back(struct place *s, uint64_t durable, struct err *err)
{
	struct line_id id;
	int rc = durable == 0 ? 0 : look(s, durable, &id, err);

	if (rc == -1)
		return -1;
	if (rc == 0 || strcmp(id.log, s->pos.log) != 0) {
		start_over(s);
		return 0;
	}
	log_error(s->p->log, "trail_rolled_back",
	    "sink %s: the trail ends at event %" PRIu64 ", the cursor was at %" PRIu64, s->name,
	    id.seq, s->pos.seq);
	s->pos = id;
	start_at(s, id.seq);
	return 0;
}

/* log, boot and number together are a line's identity: is the one that the cursor names there? */
static int
verify_cursor(struct place *s, struct err *err)
{
	uint64_t durable = atomic_load(&s->p->durable);
	struct line_id id;
	int rc;

	if (s->pos.seq == 0)
		return 0;
	if (s->pos.seq > durable)
		return settle_rolled_back(s, durable, err);
	if ((rc = look(s, s->pos.seq, &id, err)) == -1)
		return -1;
	/* A line that has expired since cannot be compared. */
	if (rc == 1 && id.seq == s->pos.seq &&
	    (strcmp(id.log, s->pos.log) != 0 || strcmp(id.boot, s->pos.boot) != 0))
		start_over(s);
	return 0;
}

int
publisher_open_reader(struct place *s, struct err *err)
{
	if (s->verify && verify_cursor(s, err) == -1)
		return -1;
	s->verify = false;
	if (trail_reader_open_at(
		s->p->dirfd, s->pos.seq == 0 ? 0 : s->pos.seq + 1, &s->reader, err) == -1)
		return -1;
	trail_reader_on_corrupt(s->reader, s->p->corrupt, s->p->arg);
	return 0;
}

void
publisher_close_reader(struct place *s)
{
	trail_reader_close(s->reader);
	s->reader = NULL;
}

int
publisher_fill(struct place *s, struct err *err)
{
	struct batch *b = &s->batch;
	struct slice line;
	uint64_t seq;
	int got = 1;

	publisher_clear(s);
	trail_reader_step_over(s->reader, gives_up(s));
	s->seen = atomic_load(&s->p->durable);
	while (got == 1 && !publisher_batch_full(b))
		if ((got = trail_reader_next(s->reader, &line, &seq, err)) == 1)
			got = publisher_add_line(s, line, seq, err) == -1 ? -1 : 1;
	s->unread = got == -1 ? s->unread + 1 : 0;
	if (got != -1)
		return 0;
	/* The line that failed was taken from the reader: it is read again, after what came before
	 * it is done with. */
	publisher_close_reader(s);
	return b->nread > 0 ? 0 : -1;
}
