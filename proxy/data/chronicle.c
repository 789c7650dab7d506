#include "data/chronicle.h"

#include "keytrail/clock.h"

#include <sys/random.h>

#define ENTRY_MAX (EVENT_HARD_MAX - EVENT_TRAIL_MAX)

void
chronicle_record(struct chronicle *c, const struct chronicle_entry *e)
{
	struct event_self ev = { .action = e->action,
		.severity = e->severity,
		.outcome = e->outcome,
		.message = e->message,
		.time_ns = clock_wall_ns(),
		.details = e->details,
		.ndetails = e->ndetails };
	unsigned char random[10];
	size_t n;

	if (!ring_claim(c->ring, ENTRY_MAX)) {
		metrics_add(c->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_RING_FULL, 1);
		return;
	}
	while (getrandom(random, sizeof(random), 0) != sizeof(random))
		continue;
	clock_uuid7(ev.time_ns, random, ev.id);
	n = event_render_self(c->observer, &ev, ring_line(c->ring, ENTRY_MAX));
	ring_commit(c->ring, ENTRY_MAX, n, RING_DURABLE | RING_SELF);
	metrics_add(c->metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	journal_kick(c->journal);
}
