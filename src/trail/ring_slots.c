/* Calls in flight: one complete line each, there as long as nothing better is committed. */
#include "keytrail/crc32c.h"
#include "keytrail/fault.h"
#include "ring_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

uint64_t
ring_states_bytes(unsigned slots)
{
	uint64_t page = ring_page();

	return (slots * sizeof(uint64_t) + page - 1) / page * page;
}

uint64_t
ring_slots_bytes(unsigned slots, size_t slot_size)
{
	return slots * ring_slot_bytes(slot_size);
}

/* What a slot's state is while it is open.  Else 0, or something of an earlier epoch. */
uint64_t
ring_slot_open_word(uint32_t epoch)
{
	return (uint64_t)epoch << 32 | 1;
}

uint32_t
ring_slot_crc(const struct ring_slot *s, uint64_t index)
{
	uint32_t crc = crc32c(0, &index, sizeof(index));

	crc = crc32c(crc, s, offsetof(struct ring_slot, crc));
	return crc32c(crc, &s->length, sizeof(*s) - offsetof(struct ring_slot, length) + s->length);
}

static struct ring_slot *
slot_at(const struct ring_slots *t, unsigned slot)
{
	assert(slot < t->n);
	return (struct ring_slot *)(void *)(t->slots + slot * ring_slot_bytes(t->slot_size));
}

int
ring_slots_map(
    struct ring *r, int fd, const struct ring_opts *opts, const char *name, struct err *err)
{
	struct ring_slots *t = &r->slots;
	size_t states = ring_states_bytes(opts->slots);
	void *base;

	if (opts->slots == 0)
		return 0;
	t->slot_size = opts->slot_size;
	t->mapped = states + ring_slots_bytes(opts->slots, opts->slot_size);
	base = mmap(NULL, t->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
	    (off_t)(ring_page() + r->size));
	if (base == MAP_FAILED)
		return err_set_errno(err, "map %s", name);
	t->n = opts->slots;
	t->states = base;
	t->slots = (char *)base + states;
	return 0;
}

int
ring_slots_init(struct ring *r, const char *name, struct err *err)
{
	struct ring_slots *t = &r->slots;

	if (t->n == 0)
		return 0;
	if ((t->unused = malloc(t->n * sizeof(*t->unused))) == NULL ||
	    (t->generations = calloc(t->n, 1)) == NULL)
		return err_set_errno(err, "%s", name);
	for (unsigned i = t->n; i > 0; i--)
		t->unused[t->nunused++] = i - 1;
	return 0;
}

void
ring_slots_fini(struct ring *r)
{
	if (r->slots.states != NULL)
		munmap(r->slots.states, r->slots.mapped);
	free(r->slots.unused);
	free(r->slots.generations);
}

unsigned
ring_slots(const struct ring *r)
{
	return r->slots.n;
}

unsigned
ring_slot_take(struct ring *r)
{
	struct ring_slots *t = &r->slots;
	unsigned slot;

	if (t->nunused == 0)
		return RING_NO_SLOT;
	slot = t->unused[--t->nunused];
	memset(slot_at(t, slot)->instead_of, 0, sizeof(slot_at(t, slot)->instead_of));
	return slot;
}

void
ring_slot_instead_of(struct ring *r, unsigned slot, unsigned other)
{
	uint64_t *serials = slot_at(&r->slots, slot)->instead_of;

	serials[serials[0] != 0] = slot_at(&r->slots, other)->serial;
}

char *
ring_slot_line(struct ring *r, unsigned slot)
{
	return slot_at(&r->slots, slot)->line;
}

/* The segment is read first and written last: at worst the offset is of a later mark in a later
 * segment, and then nothing that counts is left in this one. */
static struct ring_mark
durable_mark(const struct ring *r)
{
	struct ring_mark m;

	m.segment = atomic_load_explicit(&r->h->segment, memory_order_acquire);
	m.offset = atomic_load_explicit(&r->h->offset, memory_order_acquire);
	return m;
}

static void
set_horizon(struct ring *r, struct ring_mark m)
{
	atomic_store_explicit(&r->horizon_offset, m.offset, memory_order_release);
	atomic_store_explicit(&r->horizon_segment, m.segment, memory_order_release);
	ring_put_horizon(r);
}

/* Also by the consumer, who at worst puts back an older one. */
void
ring_put_horizon(struct ring *r)
{
	uint64_t segment = atomic_load_explicit(&r->horizon_segment, memory_order_acquire);

	atomic_store_explicit(&r->h->horizon_offset,
	    atomic_load_explicit(&r->horizon_offset, memory_order_acquire), memory_order_release);
	atomic_store_explicit(&r->h->horizon_segment, segment, memory_order_release);
}

/* A power cut takes what is committed and not durable: until then the calls count as in flight. */
static bool
generation_done(const struct ring *r, unsigned generation)
{
	return r->slots.open[generation] == 0 && ring_durable(r) >= r->slots.closed_at[generation];
}

/* One more open slot, from this mark on. */
static void
join_generation(struct ring *r, unsigned slot, struct ring_mark m)
{
	struct ring_slots *t = &r->slots;

	if (generation_done(r, 0) && generation_done(r, 1)) {
		t->began[t->generation] = m;
		set_horizon(r, m);
	} else if (generation_done(r, !t->generation)) {
		set_horizon(r, t->began[t->generation]);
		t->generation = !t->generation;
		t->began[t->generation] = m;
	}
	t->generations[slot] = (unsigned char)t->generation;
	t->open[t->generation]++;
}

void
ring_slot_publish(struct ring *r, unsigned slot, size_t n)
{
	struct ring_slot *s = slot_at(&r->slots, slot);
	struct ring_mark m = durable_mark(r);

	assert(n <= r->slots.slot_size);
	join_generation(r, slot, m);
	s->segment = m.segment;
	s->offset = m.offset;
	s->serial = ++r->slots.serial;
	s->length = (uint32_t)n;
	s->epoch = r->epoch;
	s->reserved = 0;
	s->crc = ring_slot_crc(s, slot);
	FAULT_POINT("ring.before_slot");
	atomic_store_explicit(
	    &r->slots.states[slot], ring_slot_open_word(r->epoch), memory_order_release);
}

bool
ring_slots_open(const struct ring *r)
{
	for (unsigned i = 0; i < r->slots.n; i++)
		if (atomic_load_explicit(&r->slots.states[i], memory_order_acquire) ==
		    ring_slot_open_word(r->epoch))
			return true;
	return false;
}

/* The line goes too: a power cut may leave it with the state of the slot's next call. */
void
ring_slot_close(struct ring *r, unsigned slot)
{
	struct ring_slots *t = &r->slots;

	assert(slot < t->n && t->open[t->generations[slot]] > 0);
	slot_at(t, slot)->length = RING_SLOT_EMPTY;
	/* Not before the line that took the slot's place: a kill must find one of them. */
	atomic_store_explicit(&t->states[slot], 0, memory_order_release);
	t->open[t->generations[slot]]--;
	t->closed_at[t->generations[slot]] = r->head;
	t->unused[t->nunused++] = slot;
}
