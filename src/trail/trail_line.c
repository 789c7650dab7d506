#include "keytrail/crc32c.h"
#include "trail_internal.h"

static const struct slice opening = SLICE_INIT(",\"trail\":{\"at\":\"");
static const struct slice sum_key = SLICE_INIT(",\"sum\":\"");

#define SUM_DIGITS 8

/* Drop `prefix` from the front of *s, or say that it is not there. */
static bool
eat(struct slice *s, struct slice prefix)
{
	if (!slice_has_prefix(*s, prefix))
		return false;
	*s = slice_sub(*s, prefix.n, s->n);
	return true;
}

/* Up to the next quote, which is dropped. */
static bool
eat_string(struct slice *s, struct slice *out)
{
	const char *quote = memchr(s->p, '"', s->n);

	if (quote == NULL)
		return false;
	*out = slice_sub(*s, 0, (size_t)(quote - s->p));
	*s = slice_sub(*s, out->n + 1, s->n);
	return true;
}

static bool
eat_number(struct slice *s, uint64_t *out)
{
	size_t n = 0;

	while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9')
		n++;
	if (n == 0 || s->p[0] == '0' || slice_to_u64(slice_sub(*s, 0, n), out) == -1)
		return false;
	*s = slice_sub(*s, n, s->n);
	return true;
}

static bool
parse_sum(struct slice s, uint32_t *out)
{
	uint32_t v = 0;

	for (size_t i = 0; i < SUM_DIGITS; i++) {
		char c = s.p[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint32_t)(c - 'a' + 10);
		else
			return false;
	}
	*out = v;
	return true;
}

/* The last place where the member may begin; a string cannot hold it, its quotes would be escaped. */
static bool
find_member(struct slice line, size_t *at)
{
	size_t from = line.n > TRAIL_MEMBER_MAX ? line.n - TRAIL_MEMBER_MAX : 0;
	const char *comma = line.p + line.n;

	while ((comma = memrchr(line.p + from, ',', (size_t)(comma - line.p) - from)) != NULL) {
		*at = (size_t)(comma - line.p);
		if (slice_has_prefix(slice_sub(line, *at, line.n), opening))
			return true;
	}
	return false;
}

int
trail_parse_line(struct slice line, struct trail_member *out)
{
	struct slice rest;
	uint32_t sum;

	if (line.n + 1 > TRAIL_LINE_MAX || line.n == 0 || line.p[0] != '{' ||
	    !find_member(line, &out->event_len))
		return -1;
	rest = slice_sub(line, out->event_len, line.n);
	if (!eat(&rest, opening) || !eat_string(&rest, &out->at) ||
	    !eat(&rest, SLICE(",\"boot\":\"")) || !eat_string(&rest, &out->boot) ||
	    !eat(&rest, SLICE(",\"log\":\"")) || !eat_string(&rest, &out->log) ||
	    !eat(&rest, SLICE(",\"seq\":")) || !eat_number(&rest, &out->seq))
		return -1;
	if (rest.n != sum_key.n + SUM_DIGITS + 3 || !eat(&rest, sum_key) ||
	    !parse_sum(rest, &sum) || memcmp(rest.p + SUM_DIGITS, "\"}}", 3) != 0)
		return -1;
	if (out->seq >= TRAIL_SEQ_END ||
	    sum != crc32c(0, line.p, line.n - sum_key.n - SUM_DIGITS - 3))
		return -1;
	return 0;
}

enum leaf_kind
trail_line_kind(struct slice line)
{
	return slice_has_prefix(line, TRAIL_EXPIRE_START)	? LEAF_EXPIRE
	       : slice_has_prefix(line, TRAIL_KEEP_START)	? LEAF_EXPIRE
	       : slice_has_prefix(line, TRAIL_CHECKPOINT_START) ? LEAF_CHECKPOINT
								: LEAF_EVENT;
}

bool
trail_owns(const struct trail_log *log, const struct trail_member *m)
{
	return log == NULL || m->seq <= log->base || slice_equal(m->log, slice_of(log->id));
}

/* ---- top-level members of canonical JSON ---- */

struct member {
	size_t at; /* of the key's opening quote */
	struct slice key, value;
};

/* A quote that ends a string has an even number of backslashes before it. */
static bool
is_escaped(const char *p, size_t quote)
{
	size_t n = 0;

	while (p[quote - n - 1] == '\\')
		n++;
	return n % 2 == 1;
}

/* The offset after the string that begins at i, or the end. */
static size_t
skip_string(struct slice s, size_t i)
{
	const char *quote;

	while ((quote = memchr(s.p + i + 1, '"', s.n - i - 1)) != NULL) {
		i = (size_t)(quote - s.p);
		if (!is_escaped(s.p, i))
			return i + 1;
	}
	return s.n;
}

/* The offset of the ',' or '}' that ends the value at i, or the end. */
static size_t
skip_value(struct slice s, size_t i)
{
	unsigned depth = 0;

	while (i < s.n) {
		char c = s.p[i];

		if (c == '"') {
			i = skip_string(s, i);
			continue;
		}
		if (depth == 0 && (c == ',' || c == '}'))
			return i;
		if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && depth > 0)
			depth--;
		i++;
	}
	return s.n;
}

/* The member after *pos, which begins at 0. */
static bool
next_member(struct slice line, size_t *pos, struct member *out)
{
	size_t at = *pos + 1, after, end;

	if (at >= line.n || line.p[at] != '"' || (*pos > 0 && line.p[*pos] != ','))
		return false;
	after = skip_string(line, at);
	if (after >= line.n || line.p[after] != ':')
		return false;
	end = skip_value(line, after + 1);
	out->at = at;
	out->key = slice_sub(line, at + 1, after - 1);
	out->value = slice_sub(line, after + 1, end);
	*pos = end;
	return true;
}

struct slice
trail_line_value(struct slice line, struct slice key)
{
	struct member m;
	size_t pos = 0;

	while (next_member(line, &pos, &m))
		if (slice_equal(m.key, key))
			return m.value;
	return SLICE_EMPTY;
}

struct slice
trail_line_string(struct slice line, struct slice key)
{
	struct slice value = trail_line_value(line, key);

	return value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"'
		   ? slice_sub(value, 1, value.n - 1)
		   : SLICE_EMPTY;
}

size_t
trail_line_place(struct slice line, struct slice key)
{
	struct member m;
	size_t pos = 0;

	while (next_member(line, &pos, &m))
		if (slice_compare(m.key, key) >= 0)
			return m.at;
	return pos;
}

bool
trail_line_range(struct slice line, struct slice start, struct trail_range *out)
{
	struct slice details;

	if (!slice_has_prefix(line, start))
		return false;
	details = trail_line_value(line, SLICE("details"));
	return slice_to_u64(trail_line_value(details, SLICE("first")), &out->first) == 0 &&
	       slice_to_u64(trail_line_value(details, SLICE("last")), &out->last) == 0;
}

size_t
trail_line_recovered(struct slice line, char *out)
{
	static const struct slice key = SLICE_INIT("recovered");
	static const struct slice text = SLICE_INIT(",\"recovered\":true");
	struct member m;
	size_t pos = 0;
	bool before = false;

	while (!before && next_member(line, &pos, &m)) {
		int c = slice_compare(m.key, key);

		if (c == 0) {
			memcpy(out, line.p, line.n);
			return line.n;
		}
		before = c > 0;
	}
	if (!before) {
		memcpy(out, line.p, line.n);
		memcpy(out + line.n, text.p, text.n);
		return line.n + text.n;
	}
	memcpy(out, line.p, m.at);
	memcpy(out + m.at, text.p + 1, text.n - 1);
	out[m.at + text.n - 1] = ',';
	memcpy(out + m.at + text.n, line.p + m.at, line.n - m.at);
	return line.n + text.n;
}

/* What a member's value becomes in the closing event of an intent; empty: it goes. */
static struct slice
closing_value(const struct member *m)
{
	static const struct {
		struct slice key, from, to;
	} rows[] = {
		{ SLICE_INIT("kind"), SLICE_INIT("\"intent\""), SLICE_INIT("") },
		{ SLICE_INIT("outcome"), SLICE_INIT("\"pending\""), SLICE_INIT("\"unknown\"") },
		{ SLICE_INIT("reason"), SLICE_INIT("{\"reasonType\":\"pending\"}"),
		    SLICE_INIT("{\"reasonType\":\"restart\"}") },
		{ SLICE_INIT("severity"), SLICE_INIT("\"normal\""), SLICE_INIT("\"warning\"") },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (slice_equal(m->key, rows[i].key) && slice_equal(m->value, rows[i].from))
			return rows[i].to;
	return m->value;
}

static size_t
put_slice(char *out, struct slice s)
{
	memcpy(out, s.p, s.n);
	return s.n;
}

size_t
trail_line_closing(struct slice intent, char *out)
{
	struct member m;
	size_t pos = 0, n = 0;

	out[n++] = '{';
	while (next_member(intent, &pos, &m)) {
		struct slice value = closing_value(&m);

		if (value.n == 0)
			continue;
		if (n > 1)
			out[n++] = ',';
		out[n++] = '"';
		n += put_slice(out + n, m.key);
		out[n++] = '"';
		out[n++] = ':';
		n += put_slice(out + n, value);
	}
	return n;
}
