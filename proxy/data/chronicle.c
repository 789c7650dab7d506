#include "data/chronicle.h"

#include "keytrail/clock.h"

#include <assert.h>
#include <sys/random.h>
#include <time.h>

#define ENTRY_MAX (EVENT_HARD_MAX - EVENT_TRAIL_MAX)

_Static_assert(EVENT_HARD_MAX == TRAIL_LINE_MAX && EVENT_TRAIL_MAX == TRAIL_MEMBER_MAX,
    "what the renderer leaves room for is what the trail adds");

void
chronicle_init(struct chronicle *c, const char *observer, struct ring *ring,
    struct journal *journal, struct metrics_shard *metrics)
{
	*c = (struct chronicle){ .observer = observer, .foretold = RING_NO_SLOT };
	tally_init(&c->losses, &tally_losses, ring, journal, metrics);
}

/* The position at its end, or 0: there is no room. */
static uint64_t
commit(struct chronicle *c, struct slice line)
{
	struct ring *ring = c->losses.ring;

	if (!ring_claim(ring, line.n))
		return 0;
	memcpy(ring_line(ring, line.n), line.p, line.n);
	c->last = ring_commit(ring, line.n, line.n, RING_DURABLE | RING_SELF);
	journal_kick(c->losses.journal);
	return c->last;
}

static bool
set_aside(struct chronicle *c, struct slice line)
{
	struct ring *ring = c->losses.ring;
	unsigned slot;

	if (c->nwaiting == CHRONICLE_WAITING || line.n > EVENT_LINE_MAX ||
	    (slot = ring_slot_take(ring)) == RING_NO_SLOT)
		return false;
	memcpy(ring_slot_line(ring, slot), line.p, line.n);
	ring_slot_publish(ring, slot, line.n);
	c->waiting[c->nwaiting].slot = slot;
	c->waiting[c->nwaiting++].n = line.n;
	return true;
}

bool
chronicle_flush(struct chronicle *c)
{
	struct ring *ring = c->losses.ring;

	while (c->nwaiting > 0) {
		unsigned slot = c->waiting[0].slot;

		if (commit(c, (struct slice){ ring_slot_line(ring, slot), c->waiting[0].n }) == 0)
			return false;
		ring_slot_close(ring, slot);
		memmove(c->waiting, c->waiting + 1, --c->nwaiting * sizeof(c->waiting[0]));
	}
	return tally_flush(&c->losses, c->observer);
}

static struct slice
render(const struct chronicle *c, const struct chronicle_entry *e, int64_t now, const char *id,
    char text[ENTRY_MAX])
{
	struct event_self ev = { .action = e->action,
		.severity = e->severity,
		.outcome = e->outcome,
		.message = e->message,
		.time_ns = now,
		.details = e->details,
		.ndetails = e->ndetails };

	memcpy(ev.id, id, sizeof(ev.id));
	return (struct slice){ text, event_render_self(c->observer, &ev, text) };
}

static void
make_id(int64_t now, char id[CLOCK_UUID_SIZE])
{
	unsigned char random[10];

	while (getrandom(random, sizeof(random), 0) != sizeof(random))
		continue;
	clock_uuid7(now, random, id);
}

void
chronicle_foretell(struct chronicle *c, const struct chronicle_entry *e)
{
	struct ring *ring = c->losses.ring;
	unsigned old = c->foretold, slot = ring_slot_take(ring);
	int64_t now = clock_wall_ns();
	char text[ENTRY_MAX];
	struct slice line;

	assert(slot != RING_NO_SLOT);
	if (old == RING_NO_SLOT)
		make_id(now, c->foretold_id);
	line = render(c, e, now, c->foretold_id, text);
	assert(line.n <= EVENT_LINE_MAX);
	memcpy(ring_slot_line(ring, slot), line.p, line.n);
	ring_slot_publish(ring, slot, line.n);
	if (old != RING_NO_SLOT)
		ring_slot_close(ring, old);
	c->foretold = slot;
}

uint64_t
chronicle_record(struct chronicle *c, const struct chronicle_entry *e)
{
	bool foretold = e->foretold && c->foretold != RING_NO_SLOT;
	int64_t now = clock_wall_ns();
	char text[ENTRY_MAX], id[CLOCK_UUID_SIZE];
	struct slice line;
	uint64_t position = 0;

	make_id(now, id);
	line = render(c, e, now, foretold ? c->foretold_id : id, text);
	metrics_add(c->losses.metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	if (chronicle_flush(c))
		position = commit(c, line);
	c->lost = position == 0 && !set_aside(c, line);
	if (c->lost)
		tally_add(&c->losses, c->observer,
		    &(struct tally_item){ e->action, "", now, RING_NO_SLOT });
	if (foretold) {
		ring_slot_close(c->losses.ring, c->foretold);
		c->foretold = RING_NO_SLOT;
	}
	return position;
}

bool
chronicle_wait(const struct chronicle *c, uint64_t position, unsigned ms)
{
	int64_t deadline = clock_mono_ns() + ms * CLOCK_NS_PER_MS;
	struct timespec pause = { 0, 200 * CLOCK_NS_PER_US };

	while (ring_durable(c->losses.ring) < position) {
		if (clock_mono_ns() > deadline || ring_state(c->losses.ring) != RING_OK)
			return false;
		nanosleep(&pause, NULL);
	}
	return position > 0;
}

bool
chronicle_assure(struct chronicle *c, const struct chronicle_entry *e, unsigned ms)
{
	uint64_t position = chronicle_record(c, e);
	struct err err;

	if (position > 0)
		return chronicle_wait(c, position, ms);
	return !c->lost && ring_settle(c->losses.ring, &err) == 0;
}
