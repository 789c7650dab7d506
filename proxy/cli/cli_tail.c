/* keytrail tail: the last durable events of a trail, as a table or as they are. */
#include "cli/cli.h"
#include "cli/cli_term.h"
#include "keytrail/clock.h"
#include "keytrail/join.h"
#include "keytrail/query.h"
#include "keytrail/slice.h"
#include "keytrail/trail.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LAST_DEFAULT 20
#define LAST_MAX     1000000
#define SCRATCH	     40	  /* bytes of a cell that is made */
#define ROWS_APART   1024 /* held beyond the last, before the others go */
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
	bool follow, json, local, colour;
	struct query query;
	bool filtered;
	struct trail_reader *reader;
	struct join *join;
	uint64_t corrupt; /* pieces told of */
	char **rows;	  /* lines that were read and not printed yet */
	size_t nrows;
	bool titled, ended; /* the title stands; --until is reached */
	int width[COLUMNS];
};

/* ---- arguments ---- */

static const struct {
	const char *row, *parameter;
} filters[] = {
	{ "--action", "action" },
	{ "--outcome", "outcome" },
	{ "--severity", "severity" },
	{ "--initiator", "initiator" },
	{ "--correlation-id", "correlationId" },
	{ "--since", "since" },
	{ "--until", "until" },
};

static int
read_filters(struct tail *t, const struct cli_args *a)
{
	struct err err;

	query_init(&t->query);
	for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
		const char *value = cli_value(a, filters[i].row);

		if (value == NULL)
			continue;
		if (query_set(&t->query, filters[i].parameter, value, &err) == -1)
			return cli_usage(a, "%s", err.msg);
		t->filtered = true;
	}
	return CLI_OK;
}

static int
read_arguments(struct tail *t, const struct cli_args *a)
{
	const char *last = cli_value(a, "--lines");
	int rc;

	*t = (struct tail){
		.dir = cli_value(a, "DIR"),
		.last = LAST_DEFAULT,
		.follow = cli_value(a, "--follow") != NULL,
		.json = cli_value(a, "--json") != NULL,
		.local = cli_value(a, "--local") != NULL,
	};
	if (last != NULL && (slice_to_u64(slice_of(last), &t->last) == -1 || t->last > LAST_MAX))
		return cli_usage(a, "-n wants a number from 0 to %d", LAST_MAX);
	for (size_t i = 0; i < COLUMNS; i++)
		t->width[i] = columns[i].width;
	t->titled = t->json;
	if ((rc = cli_term_colour(a, &t->colour)) != CLI_OK)
		return rc;
	return read_filters(t, a);
}

/* ---- the table ---- */

static const char *
text_at(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s != NULL ? s : "";
}

/* As it is, or in this machine's time zone. */
static const char *
time_text(const struct tail *t, const char *text, char scratch[SCRATCH])
{
	char zone[8];
	int64_t ns;
	time_t at;
	struct tm tm;

	if (!t->local || clock_parse_event_time(slice_of(text), &ns) == -1)
		return text;
	at = ns / CLOCK_NS_PER_S;
	if (localtime_r(&at, &tm) == NULL ||
	    strftime(scratch, SCRATCH, "%Y-%m-%dT%H:%M:%S", &tm) == 0 ||
	    strftime(zone, sizeof(zone), "%z", &tm) == 0)
		return text;
	snprintf(scratch + 19, SCRATCH - 19, "%.3s%s", text + 19, zone);
	return scratch;
}

/* The text of a cell, in `scratch` where it is made. */
static const char *
cell(const struct tail *t, const json_t *row, enum column c, char scratch[SCRATCH])
{
	const json_t *initiator = json_object_get(row, "initiator");
	const json_t *code;

	switch (c) {
	case TIME:
		return time_text(t, text_at(row, "eventTime"), scratch);
	case ACTION:
		return text_at(row, "action");
	case OUTCOME:
		return text_at(row, "outcome");
	case STATUS:
		code = json_object_get(json_object_get(row, "reason"), "reasonCode");
		if (!json_is_integer(code))
			return "";
		snprintf(scratch, SCRATCH, "%lld", (long long)json_integer_value(code));
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

static enum cli_style
style(const struct tail *t, const json_t *row, enum column c)
{
	const char *outcome = text_at(row, "outcome"), *severity = text_at(row, "severity");

	if (!t->colour)
		return CLI_PLAIN;
	if (row == NULL)
		return CLI_BOLD;
	if (c == ACTION && strcmp(severity, "critical") == 0)
		return CLI_BAD;
	if (c == ACTION && strcmp(severity, "warning") == 0)
		return CLI_WARN;
	if (c != OUTCOME)
		return CLI_PLAIN;
	if (strcmp(outcome, "success") == 0)
		return CLI_GOOD;
	return strcmp(outcome, "failure") == 0 ? CLI_BAD : CLI_WARN;
}

/* row NULL: the title. */
static void
print_row(struct tail *t, const json_t *row)
{
	char scratch[SCRATCH];

	for (enum column c = TIME; c < COLUMNS; c++) {
		const char *s = row != NULL ? cell(t, row, c, scratch) : columns[c].title;

		cli_term_put(
		    s[0] != '\0' ? s : "-", c + 1 < COLUMNS ? t->width[c] : 0, 0, style(t, row, c));
		fputs(c + 1 < COLUMNS ? "  " : "\n", stdout);
	}
}

static void
widen_columns(struct tail *t, const json_t *row)
{
	char scratch[SCRATCH];

	for (enum column c = TIME; c < COLUMNS; c++) {
		int n = cli_term_width(cell(t, row, c, scratch));

		if (n > t->width[c])
			t->width[c] = n;
	}
}

static int
each_row(struct tail *t, void (*with)(struct tail *, const json_t *), struct err *err)
{
	for (size_t i = 0; i < t->nrows; i++) {
		json_error_t why;
		json_t *row = json_loads(t->rows[i], 0, &why);

		if (row == NULL)
			return err_set(err, "%s: a line is no JSON: %s", t->dir, why.text);
		with(t, row);
		json_decref(row);
	}
	return 0;
}

static int
print_table(struct tail *t, struct err *err)
{
	if (each_row(t, widen_columns, err) == -1)
		return -1;
	if (!t->titled && (t->nrows > 0 || t->follow)) {
		print_row(t, NULL);
		t->titled = true;
	}
	return each_row(t, print_row, err);
}

/* ---- rows ---- */

static void
drop_rows(struct tail *t, size_t n)
{
	if (n == 0)
		return;
	for (size_t i = 0; i < n; i++)
		free(t->rows[i]);
	t->nrows -= n;
	memmove(t->rows, t->rows + n, t->nrows * sizeof(*t->rows));
}

static void
keep_last(struct tail *t)
{
	if (t->nrows > t->last)
		drop_rows(t, t->nrows - t->last);
}

static int
add_row(struct tail *t, struct slice line, struct err *err)
{
	char **more;

	if ((t->nrows & (t->nrows - 1)) == 0) { /* grows at every power of two */
		more = realloc(t->rows, (t->nrows == 0 ? 1 : t->nrows * 2) * sizeof(*more));
		if (more == NULL)
			return err_set_errno(err, "tail");
		t->rows = more;
	}
	if ((t->rows[t->nrows] = strndup(line.p, line.n)) == NULL)
		return err_set_errno(err, "tail");
	t->nrows++;
	return 0;
}

static int
print_rows(struct tail *t, struct err *err)
{
	int rc = 0;

	if (t->json)
		for (size_t i = 0; i < t->nrows; i++)
			puts(t->rows[i]);
	else
		rc = print_table(t, err);
	drop_rows(t, t->nrows);
	return rc;
}

/* ---- reading ---- */

static int
add_rows(struct tail *t, struct err *err)
{
	struct join_row row;

	while (t->follow && !t->ended ? join_next_closed(t->join, &row) : join_next(t->join, &row))
		if (add_row(t, row.line, err) == -1)
			return -1;
	return 0;
}

static int
take_line(struct tail *t, struct slice line, uint64_t seq, struct err *err)
{
	bool wanted;

	t->ended |= query_ends(&t->query, line, seq);
	wanted = !t->ended && query_matches(&t->query, line, seq);
	if (!t->json)
		return join_add(t->join, line, seq, wanted, err);
	if (wanted && t->filtered)
		return add_row(t, line, err);
	if (wanted)
		printf("%.*s\n", SLICE_ARG(line));
	return 0;
}

/* Past its end too, for what closes the calls within. */
static bool
is_complete(const struct tail *t)
{
	return t->ended && join_waiting(t->join) == 0;
}

/* All that is durable now. */
static int
read_new(struct tail *t, bool first, struct err *err)
{
	struct slice line;
	uint64_t seq;
	int rc = 0;

	while (!is_complete(t) && (rc = trail_reader_next(t->reader, &line, &seq, err)) == 1) {
		if (take_line(t, line, seq, err) == -1 || (!t->json && add_rows(t, err) == -1))
			return -1;
		if (first && t->filtered && t->nrows >= 2 * t->last + ROWS_APART)
			keep_last(t);
	}
	if (!t->follow || t->ended)
		join_settle(t->join);
	if (rc == -1 || add_rows(t, err) == -1)
		return -1;
	if (first && t->filtered)
		keep_last(t);
	if (trail_reader_corrupt(t->reader) != t->corrupt) {
		t->corrupt = trail_reader_corrupt(t->reader);
		fprintf(stderr, "keytrail: %s: %llu corrupt lines were left out\n", t->dir,
		    (unsigned long long)t->corrupt);
	}
	return 0;
}

static int
print_tail(struct tail *t, struct err *err)
{
	const struct timespec pause = { 0, POLL_NS };

	for (bool first = true;; first = false) {
		if (read_new(t, first, err) == -1 || print_rows(t, err) == -1)
			return -1;
		if (fflush(stdout) == EOF)
			return err_set_errno(err, "standard output");
		if (!t->follow || t->ended)
			return 0;
		nanosleep(&pause, NULL);
	}
}

/* The number to begin with: of the last lines, or where what is filtered may begin. */
static int
find_start(struct tail *t, uint64_t *seq, struct err *err)
{
	uint64_t durable;
	int fd, rc;

	if (trail_reader_open(t->dir, 0, &t->reader, err) == -1)
		return -1;
	durable = trail_reader_durable(t->reader);
	trail_reader_close(t->reader);
	t->reader = NULL;
	*seq = durable > t->last ? durable - t->last + 1 : 1;
	if (t->filtered)
		*seq = t->query.since.seq > 0 ? t->query.since.seq : 1;
	if (t->query.since.at[0] == '\0')
		return 0;
	if ((fd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: open", t->dir);
	rc = trail_find_time(fd, t->query.since.at, seq, err);
	close(fd);
	return rc;
}

static int
open_tail(struct tail *t, struct err *err)
{
	uint64_t start;

	if ((t->join = join_new(err)) == NULL || find_start(t, &start, err) == -1 ||
	    trail_reader_open(t->dir, start, &t->reader, err) == -1)
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
	drop_rows(&t, t.nrows);
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
		{ "--lines", "-n", "N",
		    "so many lines of the trail, or rows that fit the filters (20)", CLI_MAY, 0 },
		{ "--action", NULL, "ACTION", "only these: kms.secrets.unwrap", CLI_MAY, 0 },
		{ "--outcome", NULL, "OUTCOME", "`success`, `failure`, `unknown` or `pending`",
		    CLI_MAY, 0 },
		{ "--severity", NULL, "SEVERITY", "`normal`, `warning` or `critical`", CLI_MAY, 0 },
		{ "--initiator", NULL, "ID", "whose `initiator.id` this is", CLI_MAY, 0 },
		{ "--correlation-id", NULL, "ID", "of this call", CLI_MAY, 0 },
		{ "--since", NULL, "SEQ|TIME",
		    "from this event, or time (2026-01-31T23:59:59Z), on", CLI_MAY, 0 },
		{ "--until", NULL, "SEQ|TIME", "up to this one, which is left out", CLI_MAY, 0 },
		{ "--json", .help = "the lines as they are", .flags = CLI_MAY },
		{ "--local", .help = "times of this machine's zone, not UTC", .flags = CLI_MAY },
		CLI_COLOR,
		{ 0 },
	    },
	.run = tail,
};
