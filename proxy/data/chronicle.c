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
	struct ring *ring = c->loss.ring;
	unsigned char random[10];
	uint64_t position;
	size_t n;

	loss_flush(&c->loss, c->observer);
	metrics_add(c->loss.metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	if (!ring_claim(ring, ENTRY_MAX)) {
		loss_add(&c->loss, c->observer, e->action, "", ev.time_ns);
		return 0;
	}
	while (getrandom(random, sizeof(random), 0) != sizeof(random))
		continue;
	clock_uuid7(ev.time_ns, random, ev.id);
	n = event_render_self(c->observer, &ev, ring_line(ring, ENTRY_MAX));
	position = ring_commit(ring, ENTRY_MAX, n, RING_DURABLE | RING_SELF);
	journal_kick(c->loss.journal);
	return position;
}

bool
chronicle_wait(const struct chronicle *c, uint64_t position, unsigned ms)
{
	int64_t deadline = clock_mono_ns() + ms * CLOCK_NS_PER_MS;
	struct timespec pause = { 0, 200 * CLOCK_NS_PER_US };

	while (ring_durable(c->loss.ring) < position) {
		if (clock_mono_ns() > deadline)
			return false;
		nanosleep(&pause, NULL);
	}
	return position > 0;
}
