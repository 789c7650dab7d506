#include "keytrail/query.h"

#include "keytrail/event.h"
#include "keytrail/trail.h"

#include <stdio.h>

static const char *const names[QUERY_PARAMETERS] = {
	[QUERY_ACTION] = "action",
	[QUERY_CORRELATION] = "correlationId",
	[QUERY_INITIATOR] = "initiator",
	[QUERY_OUTCOME] = "outcome",
	[QUERY_SEVERITY] = "severity",
	[QUERY_CURSOR] = "cursor",
	[QUERY_LIMIT] = "limit",
	[QUERY_SINCE] = "since",
	[QUERY_UNTIL] = "until",
};

void
query_init(struct query *q)
{
	*q = (struct query){ .limit = QUERY_ROWS_DEFAULT };
}

/* ---- values ---- */

static bool
is_outcome(const char *value)
{
	for (int i = EVENT_SUCCESS; i <= EVENT_PENDING; i++)
		if (strcmp(value, event_outcome_name((enum event_outcome)i)) == 0)
			return true;
	return false;
}

static bool
is_severity(const char *value)
{
	for (int i = SEVERITY_NORMAL; i <= SEVERITY_CRITICAL; i++)
		if (strcmp(value, severity_name((enum severity)i)) == 0)
			return true;
	return false;
}

static int
set_string(struct query *q, enum query_parameter i, const char *value, struct err *err)
{
	long n;

	if (i == QUERY_OUTCOME && !is_outcome(value))
		return err_set(err, "outcome: success, failure, unknown or pending is wanted");
	if (i == QUERY_SEVERITY && !is_severity(value))
		return err_set(err, "severity: normal, warning or critical is wanted");
	if (value[0] == '\0' || strlen(value) > QUERY_VALUE_MAX)
		return err_set(err, "%s: 1 to %d bytes are wanted", names[i], QUERY_VALUE_MAX);
	n = event_json_string(slice_of(value), q->want[i], sizeof(q->want[i]) - 1);
	if (n == -1)
		return err_set(err, "%s: the value is too long", names[i]);
	q->want[i][n] = '\0';
	return 0;
}

static int
set_number(
    const char *name, uint64_t min, uint64_t max, const char *value, uint64_t *out, struct err *err)
{
	if (slice_to_u64(slice_of(value), out) == -1 || *out < min || *out > max)
		return err_set(err, "%s: a number from %llu to %llu is wanted", name,
		    (unsigned long long)min, (unsigned long long)max);
	return 0;
}

/* The text of the pattern's shape: 0 stands for a digit. */
static bool
has_shape(struct slice s, const char *pattern)
{
	if (s.n != strlen(pattern))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (pattern[i] == '0' ? s.p[i] < '0' || s.p[i] > '9' : s.p[i] != pattern[i])
			return false;
	return true;
}

/* In the format of trail.at, of which the first 19 bytes are those of RFC 3339. */
static bool
parse_time(struct slice s, char out[CLOCK_EVENT_TIME_SIZE])
{
	char hundredths[3] = "00";

	if (has_shape(s, "0000-00-00T00:00:00.0Z"))
		hundredths[0] = s.p[20];
	else if (has_shape(s, "0000-00-00T00:00:00.00Z") ||
		 has_shape(s, "0000-00-00T00:00:00.00+0000"))
		memcpy(hundredths, s.p + 20, 2);
	else if (!has_shape(s, "0000-00-00T00:00:00Z"))
		return false;
	snprintf(out, CLOCK_EVENT_TIME_SIZE, "%.19s.%s+0000", s.p, hundredths);
	return true;
}

static int
set_place(const char *name, const char *value, struct query_place *out, struct err *err)
{
	if (slice_to_u64(slice_of(value), &out->seq) == 0 || parse_time(slice_of(value), out->at))
		return 0;
	return err_set(err, "%s: a number or a time like 2026-01-31T23:59:59Z is wanted", name);
}

static int
set_value(struct query *q, enum query_parameter i, const char *value, struct err *err)
{
	uint64_t n = 0;

	switch (i) {
	case QUERY_CURSOR:
		return set_number(names[i], 1, INT64_MAX, value, &q->cursor, err);
	case QUERY_LIMIT:
		if (set_number(names[i], 1, QUERY_ROWS_MAX, value, &n, err) == -1)
			return -1;
		q->limit = (unsigned)n;
		return 0;
	case QUERY_SINCE:
		return set_place(names[i], value, &q->since, err);
	case QUERY_UNTIL:
		return set_place(names[i], value, &q->until, err);
	default:
		return set_string(q, i, value, err);
	}
}

int
query_set(struct query *q, const char *name, const char *value, struct err *err)
{
	for (unsigned i = 0; i < QUERY_PARAMETERS; i++) {
		if (strcmp(name, names[i]) != 0)
			continue;
		if (q->given & 1U << i)
			return err_set(err, "%s: given more than once", names[i]);
		q->given |= 1U << i;
		return set_value(q, (enum query_parameter)i, value, err);
	}
	return err_set(err,
	    "unknown parameter; there are action, correlationId, cursor, initiator, "
	    "limit, outcome, severity, since and until");
}

void
query_shape(const struct query *q, char *out, size_t n)
{
	size_t used = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < QUERY_PARAMETERS; i++) {
		if ((q->given & 1U << i) == 0 || used + strlen(names[i]) + 3 > n)
			continue;
		used +=
		    (size_t)snprintf(out + used, n - used, "%s%s", used > 0 ? ", " : "", names[i]);
	}
}

/* ---- lines ---- */

/* Whether the line is before the place. */
static bool
is_before(struct slice line, uint64_t seq, const struct query_place *place)
{
	struct slice at;

	if (place->at[0] == '\0')
		return seq < place->seq;
	at = trail_line_string(trail_line_value(line, SLICE("trail")), SLICE("at"));
	return slice_compare(at, slice_of(place->at)) < 0;
}

struct trail_index_query
query_of_index(const struct query *q)
{
	struct trail_index_query out = { .since = slice_of(q->since.at),
		.until = slice_of(q->until.at),
		.before = q->until.seq };

	for (unsigned i = 0; i < QUERY_STRINGS; i++)
		if (q->given & 1U << i)
			out.want[i] = slice_of(q->want[i]);
	return out;
}

bool
query_matches(const struct query *q, struct slice line, uint64_t seq)
{
	for (unsigned i = 0; i < QUERY_STRINGS; i++)
		if (q->given & 1U << i &&
		    !slice_equal(
			trail_index_value(line, (enum trail_index_field)i), slice_of(q->want[i])))
			return false;
	return (q->given & 1U << QUERY_SINCE) == 0 || !is_before(line, seq, &q->since);
}

bool
query_ends(const struct query *q, struct slice line, uint64_t seq)
{
	return q->given & 1U << QUERY_UNTIL && !is_before(line, seq, &q->until);
}
