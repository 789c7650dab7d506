#include "data/chronicle.h"

#include "keytrail/clock.h"

#include <sys/random.h>
#include <time.h>

#define ENTRY_MAX (EVENT_HARD_MAX - EVENT_TRAIL_MAX)

_Static_assert(EVENT_HARD_MAX == TRAIL_LINE_MAX && EVENT_TRAIL_MAX == TRAIL_MEMBER_MAX,
    "what the renderer leaves room for is what the trail adds");

uint64_t
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
	uint64_t position;
	size_t n;

	metrics_add(c->metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	if (!ring_claim(c->ring, ENTRY_MAX)) {
		metrics_add(c->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_RING_FULL, 1);
		return 0;
	}
	while (getrandom(random, sizeof(random), 0) != sizeof(random))
		continue;
	clock_uuid7(ev.time_ns, random, ev.id);
	n = event_render_self(c->observer, &ev, ring_line(c->ring, ENTRY_MAX));
	position = ring_commit(c->ring, ENTRY_MAX, n, RING_DURABLE | RING_SELF);
	journal_kick(c->journal);
	return position;
}

bool
chronicle_wait(const struct chronicle *c, uint64_t position, unsigned ms)
{
	int64_t deadline = clock_mono_ns() + ms * CLOCK_NS_PER_MS;
	struct timespec pause = { 0, 200 * CLOCK_NS_PER_US };

	while (ring_durable(c->ring) < position) {
		if (clock_mono_ns() > deadline)
			return false;
		nanosleep(&pause, NULL);
	}
	return position > 0;
}
