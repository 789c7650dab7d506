#include "admin/history.h"

#include "keytrail/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define STEP_NS	  (HISTORY_STEP_S * CLOCK_NS_PER_S)
#define TREND_MIN 60 /* steps that a trend is made of at least: a burst is none */
#define NO_SERIES UINT8_MAX
_Static_assert(HISTORY_SERIES < NO_SERIES, "a series' number is a byte");

struct series {
	const char *action; /* the metrics' */
	uint64_t before[METRIC_OUTCOMES];
	uint32_t values[METRIC_OUTCOMES][HISTORY_STEPS];
};

struct times {
	const char *name;
	enum metric_id id;
	uint64_t before[METRICS_BUCKETS_MAX];
	double p50[HISTORY_STEPS], p99[HISTORY_STEPS]; /* NAN: there was none */
};

struct history {
	const struct metrics *metrics;
	int64_t last_ns; /* monotonic */
	int64_t end_s;	 /* of the last step, since 1970 */
	unsigned at;	 /* its place in the rings below */
	bool known[HISTORY_STEPS];
	uint64_t lost_before;
	uint32_t lost[HISTORY_STEPS];
	double trail_free[HISTORY_STEPS];
	struct times times[2];
	uint8_t series_of[METRICS_ACTIONS_MAX + 1];
	unsigned nseries;
	struct series series[HISTORY_SERIES];
};

/* ---- a step ---- */

static void
turn(struct history *h, bool known)
{
	h->at = (h->at + 1) % HISTORY_STEPS;
	h->known[h->at] = known;
}

static unsigned
series_for(struct history *h, unsigned action)
{
	if (h->series_of[action] == NO_SERIES) {
		bool last = h->nseries >= HISTORY_SERIES - 1;

		h->series_of[action] = (uint8_t)(last ? HISTORY_SERIES - 1 : h->nseries);
		h->nseries = h->series_of[action] + 1u;
		h->series[h->series_of[action]].action =
		    last ? "other" : metrics_action_name(h->metrics, action);
	}
	return h->series_of[action];
}

static void
count_calls(struct history *h)
{
	uint64_t sums[HISTORY_SERIES][METRIC_OUTCOMES] = { { 0 } };

	for (unsigned action = 0; action <= METRICS_ACTIONS_MAX; action++)
		for (unsigned o = 0; o < METRIC_OUTCOMES; o++) {
			uint64_t n = metrics_requests(h->metrics, action, o);

			if (n > 0)
				sums[series_for(h, action)][o] += n;
		}
	for (unsigned i = 0; i < h->nseries; i++)
		for (unsigned o = 0; o < METRIC_OUTCOMES; o++) {
			struct series *s = &h->series[i];

			s->values[o][h->at] = (uint32_t)(sums[i][o] - s->before[o]);
			s->before[o] = sums[i][o];
		}
}

/* As Prometheus' histogram_quantile: evenly spread within a bucket. */
static double
quantile(double q, const double *bounds, const uint64_t *counts, unsigned n, uint64_t all)
{
	double wanted = q * (double)all, below = 0;

	for (unsigned i = 0; i < n; i++) {
		double from = i > 0 ? bounds[i - 1] : 0, in = (double)counts[i];

		if (below + in >= wanted && in > 0)
			return from + (bounds[i] - from) * (wanted - below) / in;
		below += in;
	}
	return bounds[n - 1];
}

static void
observe(const struct history *h, struct times *t)
{
	uint64_t counts[METRICS_BUCKETS_MAX], all = 0;
	const double *bounds;
	unsigned n = metrics_buckets(h->metrics, t->id, &bounds, counts);

	for (unsigned i = 0; i <= n; i++) {
		uint64_t now = counts[i];

		counts[i] -= t->before[i];
		t->before[i] = now;
		all += counts[i];
	}
	t->p50[h->at] = all > 0 ? quantile(0.5, bounds, counts, n, all) : (double)NAN;
	t->p99[h->at] = all > 0 ? quantile(0.99, bounds, counts, n, all) : (double)NAN;
}

void
history_step(struct history *h, int64_t mono_ns, int64_t wall_ns)
{
	int64_t passed = (mono_ns - h->last_ns + STEP_NS / 2) / STEP_NS;
	uint64_t lost = 0;

	for (; passed > 1; passed = passed > HISTORY_STEPS ? HISTORY_STEPS : passed - 1)
		turn(h, false);
	turn(h, true);
	h->last_ns = mono_ns;
	h->end_s = wall_ns / CLOCK_NS_PER_S;
	for (unsigned i = 0; i < METRIC_LOSSES; i++)
		lost += (uint64_t)metrics_value(h->metrics, METRIC_EVENTS_LOST, i);
	h->lost[h->at] = (uint32_t)(lost - h->lost_before);
	h->lost_before = lost;
	h->trail_free[h->at] = metrics_value(h->metrics, METRIC_TRAIL_FREE_BYTES, 0);
	count_calls(h);
	observe(h, &h->times[0]);
	observe(h, &h->times[1]);
}

struct history *
history_new(const struct metrics *m, int64_t mono_ns)
{
	struct history *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return NULL;
	h->metrics = m;
	h->last_ns = mono_ns;
	h->times[0].name = "added";
	h->times[0].id = METRIC_ADDED_SECONDS;
	h->times[1].name = "total";
	h->times[1].id = METRIC_REQUEST_SECONDS;
	memset(h->series_of, NO_SERIES, sizeof(h->series_of));
	return h;
}

void
history_free(struct history *h)
{
	free(h);
}

/* ---- what is known ---- */

/* The place of the step so many before the last one. */
static unsigned
ago(const struct history *h, unsigned steps)
{
	return (h->at + HISTORY_STEPS - steps) % HISTORY_STEPS;
}

double
history_seconds_to_full(const struct history *h)
{
	unsigned first = 0;
	double now = h->trail_free[h->at], rate;

	for (unsigned i = 1; i < HISTORY_STEPS; i++)
		if (h->known[ago(h, i)])
			first = i;
	if (!h->known[h->at] || first < TREND_MIN)
		return (double)INFINITY;
	rate = (h->trail_free[ago(h, first)] - now) / (first * (double)HISTORY_STEP_S);
	return rate > 0 ? now / rate : (double)INFINITY;
}

static int
put_counts(const struct history *h, const uint32_t *values, unsigned steps, struct buf *out)
{
	for (unsigned i = steps; i-- > 0;) {
		const char *comma = i > 0 ? "," : "]";
		unsigned at = ago(h, i);

		if (h->known[at] ? buf_printf(out, "%" PRIu32 "%s", values[at], comma) == -1
				 : buf_printf(out, "null%s", comma) == -1)
			return -1;
	}
	return 0;
}

static int
put_reals(
    const struct history *h, const double *values, int digits, unsigned steps, struct buf *out)
{
	char text[32];

	for (unsigned i = steps; i-- > 0;) {
		unsigned at = ago(h, i);
		bool known = h->known[at] && !isnan(values[at]);

		snprintf(text, sizeof(text), "%.*f", digits, values[at]);
		if (buf_printf(out, "%s%s", known ? text : "null", i > 0 ? "," : "]") == -1)
			return -1;
	}
	return 0;
}

static bool
occurred(const struct history *h, const uint32_t *values, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++)
		if (h->known[ago(h, i)] && values[ago(h, i)] > 0)
			return true;
	return false;
}

static int
put_calls(const struct history *h, unsigned steps, struct buf *out)
{
	const char *comma = "";

	for (unsigned i = 0; i < h->nseries; i++)
		for (unsigned o = 0; o < METRIC_OUTCOMES; o++) {
			const struct series *s = &h->series[i];

			if (s->action == NULL || !occurred(h, s->values[o], steps))
				continue;
			if (buf_printf(out, "%s{\"action\":\"%s\",\"outcome\":\"%s\",\"values\":[",
				comma, s->action, metrics_outcome_word(o)) == -1 ||
			    put_counts(h, s->values[o], steps, out) == -1 ||
			    buf_append(out, "}", 1) == -1)
				return -1;
			comma = ",";
		}
	return 0;
}

static int
put_times(const struct history *h, const struct times *t, unsigned steps, struct buf *out)
{
	if (buf_printf(out, ",\"%s\":{\"p50\":[", t->name) == -1 ||
	    put_reals(h, t->p50, 6, steps, out) == -1 || buf_printf(out, ",\"p99\":[") == -1 ||
	    put_reals(h, t->p99, 6, steps, out) == -1)
		return -1;
	return buf_append(out, "}", 1);
}

int
history_render(const struct history *h, unsigned minutes, struct buf *out)
{
	unsigned steps = minutes * 60 / HISTORY_STEP_S;

	if (buf_printf(out, "{\"step\":%d,\"end\":%" PRId64 ",\"calls\":[", HISTORY_STEP_S,
		h->end_s) == -1 ||
	    put_calls(h, steps, out) == -1 || buf_append(out, "]", 1) == -1 ||
	    put_times(h, &h->times[0], steps, out) == -1 ||
	    put_times(h, &h->times[1], steps, out) == -1 || buf_printf(out, ",\"lost\":[") == -1 ||
	    put_counts(h, h->lost, steps, out) == -1 || buf_printf(out, ",\"trailFree\":[") == -1 ||
	    put_reals(h, h->trail_free, 0, steps, out) == -1)
		return -1;
	return buf_append(out, "}\n", 2);
}
