/*
 * query: a question to the trail, and its answer as JSON.
 *
 * The parameters:
 *
 *   action, outcome, severity, correlationId   equal to that member
 *   initiator                                  equal to initiator.id
 *   since, until    a time (2026-01-31T23:59:59Z, up to hundredths) of trail.at, or a number; the
 *                   first is part of the answer, the second is not
 *   cursor          the first number to look at: `next` of the page before
 *   limit           rows, 1 to QUERY_ROWS_MAX, default QUERY_ROWS_DEFAULT
 *
 * The answer: {"events":[...],"next":"<number>","more":<boolean>}.  The events are lines of the trail
 * byte for byte, one row a call (join.h): an intent is a row only where no closing event is durable.
 * A page ends at its limit, at QUERY_BYTES_MAX, when its time is over, or where the trail or
 * `until` does; only then is `more` false, and `next` is where later events will begin.
 * "damaged":<n> is a member where pieces of the trail were stepped over that are no lines, or that
 * the disk did not give.  Where the clock was put back (keytrail.clock), times are not in order:
 * `since` and `until` may then pass lines over, numbers never do.
 */
#ifndef KEYTRAIL_QUERY_H
#define KEYTRAIL_QUERY_H

#include "keytrail/clock.h"
#include "keytrail/err.h"
#include "keytrail/slice.h"
#include "keytrail/trail.h"
#include "keytrail/trail_index.h"

#define QUERY_ROWS_DEFAULT 100
#define QUERY_ROWS_MAX	   1000
#define QUERY_BYTES_MAX	   (1024 * 1024) /* of the rows of a page; the last one may pass it */
#define QUERY_VALUE_MAX	   128		 /* bytes of a parameter's value */

enum query_parameter {
	QUERY_ACTION = TRAIL_INDEX_ACTION,
	QUERY_CORRELATION = TRAIL_INDEX_CORRELATION,
	QUERY_INITIATOR = TRAIL_INDEX_INITIATOR,
	QUERY_OUTCOME = TRAIL_INDEX_OUTCOME,
	QUERY_SEVERITY = TRAIL_INDEX_SEVERITY,
	QUERY_STRINGS = TRAIL_INDEX_FIELDS, /* those above are compared */
	QUERY_CURSOR = QUERY_STRINGS,
	QUERY_LIMIT,
	QUERY_SINCE,
	QUERY_UNTIL,
	QUERY_PARAMETERS
};

/* A place in the trail: a time when `at` is not empty, else a number. */
struct query_place {
	char at[CLOCK_EVENT_TIME_SIZE];
	uint64_t seq;
};

struct query {
	unsigned given;					   /* bit per parameter */
	char want[QUERY_STRINGS][6 * QUERY_VALUE_MAX + 2]; /* JSON strings */
	struct query_place since, until;
	uint64_t cursor;
	unsigned limit;
};

void query_init(struct query *q);

/* Set a parameter, decoded.  Errors name what is wanted and hold no byte of the value. */
int query_set(struct query *q, const char *name, const char *value, struct err *err);

/* The names that were given, with ", " between them; cut where they do not fit. */
void query_shape(const struct query *q, char *out, size_t n);

/* What of it an index knows; borrowed from it. */
struct trail_index_query query_of_index(const struct query *q);
/* Whether a line fits the strings and is not before `since`. */
bool query_matches(const struct query *q, struct slice line, uint64_t seq);
/* Whether `until` is reached: no line from here on is part of the answer. */
bool query_ends(const struct query *q, struct slice line, uint64_t seq);

struct query_run {
	int dirfd; /* of the trail */
	const struct query *query;
	struct trail_index *index;    /* of it; or NULL: all is read */
	int64_t deadline_ns;	      /* monotonic */
	int64_t (*now_ns)(void *arg); /* the monotonic clock */
	bool (*cancelled)(void *arg); /* asked often */
	/* A piece of the answer. -1: stop, nobody wants more. */
	int (*write)(void *arg, struct slice piece);
	void *arg;
	trail_corrupt_fn corrupt; /* or NULL */
	void *corrupt_arg;
};

/* Read, and write the whole answer in pieces of about 64 KiB: 0; 1 when it was cancelled; -1 on an
 * error: what was written by then, if anything, ends with an `error` member, which says no more than
 * that.  Blocks on the disk. */
int query_run(const struct query_run *run, struct err *err);

#endif
