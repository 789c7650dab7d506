#include "cli/cli_sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of a label, or nothing. */
static struct slice
label(struct slice line, const char *name)
{
	char open[32];
	int n = snprintf(open, sizeof(open), "%s=\"", name);
	const char *at = memmem(line.p, line.n, open, (size_t)n), *end;

	if (at == NULL)
		return SLICE_EMPTY;
	at += n;
	end = memchr(at, '"', (size_t)(line.p + line.n - at));
	return end != NULL ? (struct slice){ at, (size_t)(end - at) } : SLICE_EMPTY;
}

static double
number(struct slice s)
{
	char text[40];

	snprintf(text, sizeof(text), "%.*s", SLICE_ARG(s));
	return strtod(text, NULL);
}

static double
value(struct slice line)
{
	const char *at = memrchr(line.p, ' ', line.n);

	return at != NULL ? number(slice_sub(line, (size_t)(at - line.p) + 1, line.n)) : 0;
}

/* ---- actions ---- */

static size_t
place_of(const struct sample *s, const char *name)
{
	size_t i = 0;

	while (i < s->nactions && strcmp(s->actions[i].name, name) < 0)
		i++;
	return i;
}

static bool
is_at(const struct sample *s, size_t i, const char *name)
{
	return i < s->nactions && strcmp(s->actions[i].name, name) == 0;
}

static void
add_calls(struct sample *s, struct slice line)
{
	struct slice action = label(line, "action"), outcome = label(line, "outcome");
	char name[EVENT_ACTION_MAX + 1];
	struct sample_action *a;
	double calls = value(line);
	size_t i;

	snprintf(name, sizeof(name), "%.*s", SLICE_ARG(action));
	i = place_of(s, name);
	if (!is_at(s, i, name)) {
		if (s->nactions == SAMPLE_ACTIONS_MAX)
			return;
		memmove(&s->actions[i + 1], &s->actions[i],
		    (s->nactions++ - i) * sizeof(s->actions[0]));
		s->actions[i] = (struct sample_action){ .calls = 0 };
		memcpy(s->actions[i].name, name, sizeof(name));
	}
	a = &s->actions[i];
	a->calls += calls;
	if (slice_equal(outcome, SLICE("failure")))
		a->failed += calls;
	else if (slice_equal(outcome, SLICE("unknown")))
		a->unknown += calls;
}

struct sample_action
sample_before(const struct sample *before, const char *name)
{
	size_t i = place_of(before, name);

	return is_at(before, i, name) ? before->actions[i] : (struct sample_action){ .calls = 0 };
}

/* ---- latency ---- */

static void
add_bucket(struct sample_latency *l, struct slice line)
{
	if (l->n == SAMPLE_BUCKETS_MAX)
		return;
	l->bound[l->n] = number(label(line, "le")); /* "+Inf", too */
	l->count[l->n++] = value(line);
}

double
sample_quantile(const struct sample_latency *now, const struct sample_latency *before, double q)
{
	bool alike = before->n == now->n;
	double all;

	if (now->n == 0)
		return -1;
	all = now->count[now->n - 1] - (alike ? before->count[now->n - 1] : 0);
	if (all <= 0)
		return -1;
	for (size_t i = 0; i < now->n; i++)
		if (now->count[i] - (alike ? before->count[i] : 0) >= q * all)
			return now->bound[i];
	return now->bound[now->n - 1];
}

/* ---- the whole ---- */

static void
read_line(struct sample *s, struct slice line)
{
	if (slice_has_prefix(line, SLICE("keytrail_requests_total{")))
		add_calls(s, line);
	else if (slice_has_prefix(line, SLICE("keytrail_added_seconds_bucket{")))
		add_bucket(&s->added, line);
	else if (slice_has_prefix(line, SLICE("keytrail_request_duration_seconds_bucket{")))
		add_bucket(&s->all, line);
	else if (slice_has_prefix(line, SLICE("keytrail_events_lost_total{")))
		s->lost += value(line);
	else if (slice_has_prefix(line, SLICE("keytrail_connections_open ")))
		s->clients = value(line);
}

void
sample_read(struct sample *s, struct slice metrics)
{
	memset(s, 0, sizeof(*s));
	while (metrics.n > 0) {
		const char *end = memchr(metrics.p, '\n', metrics.n);
		size_t n = end != NULL ? (size_t)(end - metrics.p) : metrics.n;

		read_line(s, slice_sub(metrics, 0, n));
		metrics = slice_sub(metrics, end != NULL ? n + 1 : n, metrics.n);
	}
}
