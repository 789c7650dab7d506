/* What is told of sinks: in the status, in the metrics. */

#include "publisher_impl.h"

#include "keytrail/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the sink's thread ---- */

void
publisher_note_attempt(struct place *s, enum sink_result result, size_t n, size_t done)
{
	static const enum metric_attempt attempts[] = { [SINK_OK] = METRIC_ATTEMPT_OK,
		[SINK_RETRY] = METRIC_ATTEMPT_RETRY,
		[SINK_REJECT] = METRIC_ATTEMPT_REJECT };
	const struct sink_event *events = s->batch.events + s->batch.first;
	int64_t bytes = 0, took_ns;

	for (size_t i = 0; i < done; i++)
		bytes += (int64_t)events[i].text.n;
	metrics_add(s->shard, METRIC_SINK_BYTES, s->metric, bytes);
	if (result == SINK_BUSY)
		return;
	took_ns = clock_mono_ns() - s->attempt_ns;
	s->attempt_ns = 0;
	metrics_add(
	    s->shard, METRIC_SINK_ATTEMPTS, metrics_attempt(s->metric, attempts[result]), 1);
	metrics_observe_at(s->shard, METRIC_SINK_BATCH_EVENTS, s->metric, (double)n);
	metrics_observe_at(s->shard, METRIC_SINK_DELIVERY_SECONDS, s->metric,
	    (double)took_ns / (double)CLOCK_NS_PER_S);
}

struct figures {
	struct publisher_figure all[METRICS_FIGURES_MAX];
	size_t n;
};

static void
add_figure(void *arg, const char *name, double value)
{
	struct figures *f = arg;

	if (f->n == METRICS_FIGURES_MAX || !isfinite(value))
		return;
	snprintf(f->all[f->n].name, sizeof(f->all[0].name), "%s", name);
	f->all[f->n++].value = value;
}

void
publisher_note_figures(struct place *s)
{
	struct figures f = { .n = 0 };

	if (s->state == NULL || s->ops->figures == NULL)
		return;
	s->ops->figures(s->state, add_figure, &f);
	pthread_mutex_lock(&s->lock);
	memcpy(s->figures, f.all, sizeof(f.all));
	s->nfigures = f.n;
	pthread_mutex_unlock(&s->lock);
}

/* ---- main ---- */

static uint64_t
shown(const struct place *s, enum metric_id id)
{
	return (uint64_t)metrics_value(s->p->metrics, id, s->metric);
}

void
publisher_note_before(struct place *s)
{
	s->before = (struct publisher_counts){ .delivered = shown(s, METRIC_SINK_DELIVERED),
		.rejected = shown(s, METRIC_SINK_REJECTED),
		.filtered = shown(s, METRIC_SINK_FILTERED),
		.missing = shown(s, METRIC_SINK_MISSING) };
}

void
publisher_fill_status(struct place *s, struct publisher_sink_status *out)
{
	int64_t oldest = atomic_load(&s->oldest_ns), now = clock_wall_ns();
	uint64_t durable = atomic_load(&s->p->durable);

	*out = (struct publisher_sink_status){ .up = atomic_load(&s->up) };
	pthread_mutex_lock(&s->lock);
	/* A sink may be ahead of what the journal told. */
	if (durable < s->counted)
		durable = s->counted;
	out->counts = s->counts;
	out->due = durable - s->begin;
	out->waiting = durable - s->counted;
	out->position = s->counted;
	out->type = s->type;
	out->required = s->required;
	out->nfigures = s->nfigures;
	memcpy(out->figures, s->figures, sizeof(out->figures));
	snprintf(out->last_error, sizeof(out->last_error), "%s", s->last_error);
	pthread_mutex_unlock(&s->lock);
	if (out->waiting > 0 && oldest > 0 && now > oldest)
		out->oldest_seconds = (double)(now - oldest) / (double)CLOCK_NS_PER_S;
	snprintf(out->name, sizeof(out->name), "%s", s->name);
}

/* In the metrics; of a sink that was removed, what it counted. */
void
publisher_show(struct place *s)
{
	struct metrics_shard *shard = s->p->shard;
	const struct publisher_counts *old = &s->before;
	uint64_t done = old->delivered + old->rejected + old->filtered + old->missing;
	struct publisher_sink_status now;

	publisher_fill_status(s, &now);
	metrics_set(shard, METRIC_SINK_DELIVERED, s->metric,
	    (double)(old->delivered + now.counts.delivered));
	metrics_set(
	    shard, METRIC_SINK_REJECTED, s->metric, (double)(old->rejected + now.counts.rejected));
	metrics_set(
	    shard, METRIC_SINK_FILTERED, s->metric, (double)(old->filtered + now.counts.filtered));
	metrics_set(
	    shard, METRIC_SINK_MISSING, s->metric, (double)(old->missing + now.counts.missing));
	metrics_set(
	    shard, METRIC_SINK_DUE, s->metric, s->used ? (double)(done + now.due) : (double)NAN);
	metrics_set(
	    shard, METRIC_SINK_LAG_EVENTS, s->metric, s->used ? (double)now.waiting : (double)NAN);
	metrics_set(
	    shard, METRIC_SINK_LAG_SECONDS, s->metric, s->used ? now.oldest_seconds : (double)NAN);
	metrics_set(shard, METRIC_SINK_UP, s->metric, s->used ? now.up : (double)NAN);
	for (size_t i = 0; i < now.nfigures; i++)
		metrics_set(shard, METRIC_SINK_FIGURE,
		    metrics_figure(s->p->metrics, s->metric, now.figures[i].name),
		    s->used ? now.figures[i].value : (double)NAN);
}

size_t
publisher_status(struct publisher *p, struct publisher_sink_status *out, size_t n)
{
	size_t found = 0;

	for (unsigned i = 0; i < PLACES; i++) {
		if (!p->places[i].used)
			continue;
		if (found < n)
			publisher_fill_status(&p->places[i], &out[found]);
		found++;
	}
	return found;
}

void
publisher_set_gauges(struct publisher *p)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (p->places[i].used)
			publisher_show(&p->places[i]);
}
