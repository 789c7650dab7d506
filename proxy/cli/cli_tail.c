/* keytrail tail: the last durable events of a trail, as a table or as they are. */
#include "cli/cli.h"
#include "keytrail/clock.h"
#include "keytrail/join.h"
#include "keytrail/slice.h"
#include "keytrail/trail.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LAST_DEFAULT 20
#define LAST_MAX     1000000
#define POLL_NS	     (100 * CLOCK_NS_PER_MS)

enum column { TIME, ACTION, OUTCOME, STATUS, INITIATOR, CORRELATION, COLUMNS };

static const struct {
	const char *title;
	int width; /* at least: rows that follow later should fit too */
} columns[COLUMNS] = {
	[TIME] = { "TIME", 27 },
	[ACTION] = { "ACTION", 20 },
	[OUTCOME] = { "OUTCOME", 7 },
	[STATUS] = { "STATUS", 6 },
	[INITIATOR] = { "INITIATOR", 15 },
	[CORRELATION] = { "CORRELATION ID", 0 },
};

struct tail {
	const char *dir;
	uint64_t last;
	bool follow, json;
	struct trail_reader *reader;
	struct join *join;
	uint64_t corrupt; /* pieces told of */
	json_t **rows;	  /* read, not printed yet */
	size_t nrows;
	int width[COLUMNS];
};

/* ---- arguments ---- */

static int
read_arguments(struct tail *t, const struct cli_args *a)
{
	const char *last = cli_value(a, "--lines");

	*t = (struct tail){
		.dir = cli_value(a, "DIR"),
		.last = LAST_DEFAULT,
		.follow = cli_value(a, "--follow") != NULL,
		.json = cli_value(a, "--json") != NULL,
	};
	if (last != NULL && (slice_to_u64(slice_of(last), &t->last) == -1 || t->last > LAST_MAX))
		return cli_usage(a, "-n wants a number from 0 to %d", LAST_MAX);
	for (size_t i = 0; i < COLUMNS; i++)
		t->width[i] = columns[i].width;
	return CLI_OK;
}

/* ---- the table ---- */

static const char *
text_at(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s != NULL ? s : "";
}

/* The text of a cell, in `scratch` where it is made. */
static const char *
cell(const json_t *row, enum column c, char scratch[24])
{
	const json_t *initiator = json_object_get(row, "initiator");
	const json_t *code;

	switch (c) {
	case TIME:
		return text_at(row, "eventTime");
	case ACTION:
		return text_at(row, "action");
	case OUTCOME:
		return text_at(row, "outcome");
	case STATUS:
		code = json_object_get(json_object_get(row, "reason"), "reasonCode");
		if (!json_is_integer(code))
			return "";
		snprintf(scratch, 24, "%lld", (long long)json_integer_value(code));
		return scratch;
	case INITIATOR:
		return text_at(initiator, text_at(initiator, "id")[0] != '\0' ? "id" : "name");
	case CORRELATION:
		return text_at(row, "correlationId");
	case COLUMNS:
		break;
	}
	return "";
}

/* U+0080 to U+009F: U+009B begins a command as ESC [ does. */
static bool
is_c1(const char *s)
{
	return *s == '\xc2' && (s[1] & 0xe0) == 0x80;
}

/* No byte of a trail that somebody edited reaches the terminal as a command. */
static void
print_cell(const char *s, int width)
{
	int n = 0;

	if (s[0] == '\0')
		s = "-";
	for (; *s != '\0'; s++, n++) {
		bool c1 = is_c1(s);

		putchar(c1 || (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
		s += c1;
	}
	for (; n < width; n++)
		putchar(' ');
}

static void
print_row(struct tail *t, const json_t *row)
{
	char scratch[24];

	for (enum column c = TIME; c < COLUMNS; c++) {
		print_cell(row != NULL ? cell(row, c, scratch) : columns[c].title,
		    c + 1 < COLUMNS ? t->width[c] : 0);
		fputs(c + 1 < COLUMNS ? "  " : "\n", stdout);
	}
}

static void
widen_columns(struct tail *t, const json_t *row)
{
	char scratch[24];

	for (enum column c = TIME; c < COLUMNS; c++) {
		int n = (int)strlen(cell(row, c, scratch));

		if (n > t->width[c])
			t->width[c] = n;
	}
}

static void
print_rows(struct tail *t)
{
	for (size_t i = 0; i < t->nrows; i++) {
		print_row(t, t->rows[i]);
		json_decref(t->rows[i]);
	}
	t->nrows = 0;
}

/* ---- reading ---- */

static int
add_row(struct tail *t, struct slice line, struct err *err)
{
	json_error_t why;
	json_t **more, *row;

	if ((t->nrows & (t->nrows - 1)) == 0) { /* grows at every power of two */
		more = realloc(t->rows, (t->nrows == 0 ? 1 : t->nrows * 2) * sizeof(json_t *));
		if (more == NULL)
			return err_set_errno(err, "tail");
		t->rows = more;
	}
	if ((row = json_loadb(line.p, line.n, 0, &why)) == NULL)
		return err_set(err, "%s: a line is no JSON: %s", t->dir, why.text);
	widen_columns(t, row);
	t->rows[t->nrows++] = row;
	return 0;
}

static int
add_rows(struct tail *t, struct err *err)
{
	struct join_row row;

	if (!t->follow)
		join_settle(t->join);
	while (t->follow ? join_next_closed(t->join, &row) : join_next(t->join, &row))
		if (add_row(t, row.line, err) == -1)
			return -1;
	return 0;
}

/* All that is durable now. */
static int
read_new(struct tail *t, struct err *err)
{
	struct slice line;
	uint64_t seq;
	int rc;

	while ((rc = trail_reader_next(t->reader, &line, &seq, err)) == 1) {
		if (t->json)
			printf("%.*s\n", SLICE_ARG(line));
		else if (join_add(t->join, line, seq, true, err) == -1)
			return -1;
	}
	if (add_rows(t, err) == -1)
		return -1;
	if (trail_reader_corrupt(t->reader) != t->corrupt) {
		t->corrupt = trail_reader_corrupt(t->reader);
		fprintf(stderr, "keytrail: %s: %llu corrupt lines were left out\n", t->dir,
		    (unsigned long long)t->corrupt);
	}
	return rc;
}

static int
print_tail(struct tail *t, struct err *err)
{
	const struct timespec pause = { 0, POLL_NS };
	bool titled = t->json;

	for (;;) {
		if (read_new(t, err) == -1)
			return -1;
		if (!titled && (t->nrows > 0 || t->follow)) {
			print_row(t, NULL);
			titled = true;
		}
		print_rows(t);
		if (fflush(stdout) == EOF)
			return err_set_errno(err, "standard output");
		if (!t->follow)
			return 0;
		nanosleep(&pause, NULL);
	}
}

static int
open_tail(struct tail *t, struct err *err)
{
	uint64_t durable;

	if ((t->join = join_new(err)) == NULL ||
	    trail_reader_open(t->dir, 0, &t->reader, err) == -1)
		return -1;
	durable = trail_reader_durable(t->reader);
	trail_reader_close(t->reader);
	t->reader = NULL;
	if (trail_reader_open(
		t->dir, durable > t->last ? durable - t->last + 1 : 1, &t->reader, err) == -1)
		return -1;
	trail_reader_step_over(t->reader, true);
	return 0;
}

static int
tail(const struct cli_args *a)
{
	struct tail t;
	struct err err;
	int rc = read_arguments(&t, a);

	if (rc != CLI_OK)
		return rc;
	if (open_tail(&t, &err) == -1 || print_tail(&t, &err) == -1)
		rc = cli_fail(CLI_FAILED, &err);
	for (size_t i = 0; i < t.nrows; i++)
		json_decref(t.rows[i]);
	free(t.rows);
	join_free(t.join);
	trail_reader_close(t.reader);
	return rc;
}

const struct cli_command cli_tail = {
	.name = "tail",
	.help = "print the last events of a trail as a table, or as they are",
	.rows =
	    (const struct cli_row[]){
		{ "DIR", .help = "the trail's directory" },
		{ "--follow", "-f", NULL, "go on with those that come", CLI_MAY, 0 },
		{ "--lines", "-n", "N", "so many lines of the trail (20)", CLI_MAY, 0 },
		{ "--json", .help = "the lines as they are", .flags = CLI_MAY },
		{ 0 },
	    },
	.run = tail,
};
