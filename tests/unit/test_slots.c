/* Calls in flight: the slots of a ring, and what recovery makes of slots, rings, trail and intents. */
#include "keytrail/clock.h"
#include "keytrail/journal.h"
#include "keytrail/mapguard.h"
#include "keytrail/ring.h"
#include "keytrail/trail.h"
#include "tempdir.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SIZE	  65536
#define SLOTS	  8
#define SLOT_SIZE 512

struct fixture {
	char dir[TEMPDIR_SIZE];
	struct trail *t;
	struct trail_recovery rec;
	struct ring *ring;
	struct err err;
};

static void
check(struct fixture *f, int rc)
{
	if (rc == -1)
		fail_msg("%s", f->err.msg);
}

static void
open_trail(struct fixture *f)
{
	struct trail_opts opts = { .dir = f->dir, .create = true, .segment_size = 1 << 20 };

	check(f, trail_open(&opts, &f->t, &f->rec, &f->err));
	trail_recovery_recorded(f->t, &f->err);
}

static void
open_ring(struct fixture *f)
{
	struct ring_opts opts = { .size = SIZE, .slots = SLOTS, .slot_size = SLOT_SIZE };

	check(f, ring_open(trail_dirfd(f->t), "ring.0", &opts, &f->ring, &f->err));
}

static void
die(struct fixture *f)
{
	ring_close(f->ring);
	f->ring = NULL;
	trail_close(f->t, false);
	f->t = NULL;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	open_trail(f);
	open_ring(f);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	ring_close(f->ring);
	if (f->t != NULL)
		trail_close(f->t, false);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static const char *
ring_path(const struct fixture *f)
{
	static char path[TEMPDIR_SIZE + 16];

	snprintf(path, sizeof(path), "%s/ring.0", f->dir);
	return path;
}

static unsigned
publish(struct ring *r, const char *text)
{
	unsigned slot = ring_slot_take(r);

	assert_int_not_equal(slot, RING_NO_SLOT);
	memcpy(ring_slot_line(r, slot), text, strlen(text));
	ring_slot_publish(r, slot, strlen(text));
	return slot;
}

static void
commit(struct ring *r, const char *text)
{
	size_t n = strlen(text);

	assert_true(ring_claim(r, n));
	memcpy(ring_line(r, n), text, n);
	ring_commit(r, n, n, RING_DURABLE);
}

struct found {
	unsigned n, slots;
	char text[16][SLOT_SIZE];
	uint64_t segment, offset;
};

static int
collect(void *arg, struct slice line, unsigned flags, uint64_t segment, uint64_t offset,
    struct err *err)
{
	struct found *found = arg;

	(void)err;
	assert_true(found->n < 16);
	memcpy(found->text[found->n], line.p, line.n);
	found->text[found->n++][line.n] = '\0';
	found->slots += (flags & RING_SLOT) != 0;
	found->segment = segment;
	found->offset = offset;
	return 0;
}

static struct found
recover(struct fixture *f)
{
	struct found found = { 0 };

	check(f, ring_recover(trail_dirfd(f->t), "ring.0", collect, &found, &f->err));
	return found;
}

/* ---- slots ---- */

static void
an_open_slot_is_found_and_a_closed_one_is_not(void **state)
{
	struct fixture *f = *state;
	unsigned a = publish(f->ring, "first"), b = publish(f->ring, "second");
	struct found found;

	commit(f->ring, "committed");
	found = recover(f);
	assert_int_equal(found.n, 3);
	assert_int_equal(found.slots, 2);
	assert_string_equal(found.text[0], "committed");
	assert_string_equal(found.text[1], "first");
	assert_string_equal(found.text[2], "second");
	ring_slot_close(f->ring, a);
	found = recover(f);
	assert_int_equal(found.slots, 1);
	assert_string_equal(found.text[1], "second");
	ring_slot_close(f->ring, b);
	assert_int_equal(recover(f).slots, 0);
}

static void
slots_are_found_in_the_order_of_publishing(void **state)
{
	struct fixture *f = *state;
	unsigned first = publish(f->ring, "first");
	struct found found;

	publish(f->ring, "second");
	ring_slot_close(f->ring, first);
	assert_int_equal(publish(f->ring, "third"), first);
	found = recover(f);
	assert_int_equal(found.n, 2);
	assert_string_equal(found.text[0], "second");
	assert_string_equal(found.text[1], "third");
}

static void
a_slot_that_is_only_taken_is_not_found(void **state)
{
	struct fixture *f = *state;
	unsigned slot = publish(f->ring, "before");

	ring_slot_close(f->ring, slot);
	slot = ring_slot_take(f->ring);
	memcpy(ring_slot_line(f->ring, slot), "after!", 6);
	assert_int_equal(recover(f).slots, 0);
}

/* The pages of the state and of the line are not written at once. */
static void
a_slots_next_state_is_not_its_last_line(void **state)
{
	struct fixture *f = *state;
	off_t at = sysconf(_SC_PAGESIZE) + SIZE;
	int fd = openat(trail_dirfd(f->t), "ring.0", O_RDWR);
	unsigned slot = publish(f->ring, "a call that is recorded");
	uint64_t open;

	assert_int_equal(pread(fd, &open, sizeof(open), at), sizeof(open));
	ring_slot_close(f->ring, slot);
	assert_int_equal(pwrite(fd, &open, sizeof(open), at), sizeof(open));
	assert_int_equal(recover(f).slots, 0);
	close(fd);
}

static void
slots_are_as_many_as_asked_for(void **state)
{
	struct fixture *f = *state;
	unsigned last = 0;

	assert_int_equal(ring_slots(f->ring), SLOTS);
	for (unsigned i = 0; i < SLOTS; i++)
		last = publish(f->ring, "call");
	assert_int_equal(ring_slot_take(f->ring), RING_NO_SLOT);
	ring_slot_close(f->ring, last);
	assert_int_equal(ring_slot_take(f->ring), last);
}

static void
clearing_forgets_the_slots_too(void **state)
{
	struct fixture *f = *state;

	publish(f->ring, "call");
	check(f, ring_clear(trail_dirfd(f->t), "ring.0", &f->err));
	assert_int_equal(recover(f).n, 0);
	ring_close(f->ring);
	open_ring(f);
	assert_int_equal(recover(f).n, 0);
	publish(f->ring, "next");
	assert_int_equal(recover(f).slots, 1);
}

static void
a_table_of_another_size_forgets_nothing_before_it_is_cleared(void **state)
{
	static const struct ring_opts opts[] = {
		{ .size = SIZE, .slots = 3, .slot_size = 1024 },
		{ .size = SIZE / 2, .slots = 700, .slot_size = 64 },
		{ .size = SIZE, .slots = 0, .slot_size = 0 },
		{ .size = SIZE, .slots = SLOTS, .slot_size = SLOT_SIZE },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++) {
		if (ring_slots(f->ring) > 0) {
			publish(f->ring, "call");
			assert_int_equal(recover(f).slots, 1);
		}
		ring_close(f->ring);
		check(f, ring_open(trail_dirfd(f->t), "ring.0", &opts[i], &f->ring, &f->err));
		assert_int_equal(recover(f).n, 0);
		assert_int_equal(ring_slots(f->ring), opts[i].slots);
	}
}

/* A page that a power cut tore, or an older version of it. */
static void
a_damaged_slot_does_not_count(void **state)
{
	struct fixture *f = *state;
	off_t at = sysconf(_SC_PAGESIZE) * 2 + SIZE;
	int fd = openat(trail_dirfd(f->t), "ring.0", O_RDWR);

	publish(f->ring, "a call in flight");
	for (off_t i = 0; i < 56 + 16; i++) {
		char byte, flipped;

		assert_int_equal(pread(fd, &byte, 1, at + i), 1);
		flipped = (char)(byte ^ 0x10);
		assert_int_equal(pwrite(fd, &flipped, 1, at + i), 1);
		assert_int_equal(recover(f).slots, 0);
		assert_int_equal(pwrite(fd, &byte, 1, at + i), 1);
	}
	assert_int_equal(recover(f).slots, 1);
	assert_int_equal(ftruncate(fd, at + 60), 0);
	assert_int_equal(recover(f).slots, 0);
	close(fd);
}

static void
tables_that_cannot_be_are_errors(void **state)
{
	static const struct ring_opts opts[] = {
		{ .size = SIZE, .slots = RING_SLOTS_MAX + 1, .slot_size = 64 },
		{ .size = SIZE, .slots = 1, .slot_size = RING_SLOT_SIZE_MAX + 8 },
		{ .size = SIZE, .slots = 1, .slot_size = 63 },
	};
	struct fixture *f = *state;
	struct ring *r;

	for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++)
		assert_int_equal(ring_open(trail_dirfd(f->t), "ring.x", &opts[i], &r, &f->err), -1);
}

/* ---- marks and the horizon ---- */

static void
release_at(struct fixture *f, uint64_t segment, uint64_t offset)
{
	ring_release(f->ring, ring_tail(f->ring), segment, offset);
}

static void
expect_horizon(struct fixture *f, uint64_t segment, uint64_t offset)
{
	uint64_t s, o;

	check(f, ring_horizon(trail_dirfd(f->t), "ring.0", &s, &o, &f->err));
	assert_int_equal(s, segment);
	assert_int_equal(o, offset);
}

static void
a_slot_names_the_mark_at_its_publishing(void **state)
{
	struct fixture *f = *state;
	struct found found;

	release_at(f, 7, 100);
	publish(f->ring, "call");
	release_at(f, 7, 900);
	found = recover(f);
	assert_int_equal(found.segment, 7);
	assert_int_equal(found.offset, 100);
}

static void
the_horizon_never_passes_an_open_slot_and_follows_the_closed(void **state)
{
	struct fixture *f = *state;
	unsigned a, b, c, d;

	expect_horizon(f, 0, 0);
	release_at(f, 1, 10);
	expect_horizon(f, 1, 10);
	a = publish(f->ring, "a");
	release_at(f, 1, 20);
	b = publish(f->ring, "b");
	release_at(f, 1, 30);
	expect_horizon(f, 1, 10);
	c = publish(f->ring, "c");
	ring_slot_close(f->ring, a);
	release_at(f, 2, 0);
	d = publish(f->ring, "d");
	expect_horizon(f, 1, 20);
	ring_slot_close(f->ring, b);
	ring_slot_close(f->ring, c);
	release_at(f, 3, 5);
	a = publish(f->ring, "e");
	expect_horizon(f, 2, 0);
	ring_slot_close(f->ring, d);
	ring_slot_close(f->ring, a);
	release_at(f, 3, 9);
	expect_horizon(f, 2, 0);
	publish(f->ring, "f");
	expect_horizon(f, 3, 9); /* none was open */
}

static void
the_horizon_waits_for_what_took_a_slots_place_to_be_durable(void **state)
{
	struct fixture *f = *state;
	unsigned a, b, flags;
	struct slice line;
	uint64_t head = 0;

	release_at(f, 1, 10);
	a = publish(f->ring, "a");
	release_at(f, 1, 20);
	commit(f->ring, "a's answer");
	ring_slot_close(f->ring, a);
	expect_horizon(f, 1, 10);
	b = publish(f->ring, "b");
	expect_horizon(f, 1, 10);
	ring_slot_close(f->ring, b);
	assert_true(ring_next(f->ring, &head, &line, &flags));
	ring_release(f->ring, head, 1, 30);
	publish(f->ring, "c");
	expect_horizon(f, 1, 30);
}

static void
a_ring_needs_the_lines_of_its_calls_until_they_are_durable(void **state)
{
	struct fixture *f = *state;
	struct slice line;
	unsigned a, b, flags;
	uint64_t pos = 0;

	release_at(f, 3, 10);
	assert_int_equal(ring_needs_from(f->ring), UINT64_MAX);
	a = publish(f->ring, "a");
	release_at(f, 4, 0);
	b = publish(f->ring, "b");
	ring_slot_close(f->ring, b);
	assert_int_equal(ring_needs_from(f->ring), 3);
	commit(f->ring, "a's answer");
	ring_slot_close(f->ring, a);
	assert_int_equal(ring_needs_from(f->ring), 3);
	assert_true(ring_next(f->ring, &pos, &line, &flags));
	ring_release(f->ring, pos, 5, 0);
	assert_int_equal(ring_needs_from(f->ring), UINT64_MAX);
}

/* As a power cut may leave it, when nothing but the opening was synced. */
static void
a_new_header_has_the_mark_already(void **state)
{
	struct fixture *f = *state;
	struct ring_opts opts = { .size = SIZE, .segment = 5, .offset = 70 };

	ring_close(f->ring);
	check(f, ring_open(trail_dirfd(f->t), "ring.0", &opts, &f->ring, &f->err));
	expect_horizon(f, 5, 70);
}

/* ---- a file that somebody cut ---- */

static void
a_ring_that_was_cut_is_noticed_and_gives_what_it_has(void **state)
{
	struct fixture *f = *state;
	uint64_t whole = (uint64_t)sysconf(_SC_PAGESIZE) * 2 + SIZE;

	for (unsigned i = 0; i < 3; i++) {
		char text[32];

		snprintf(text, sizeof(text), "{\"id\":\"in flight %u\"", i);
		publish(f->ring, text);
		snprintf(text, sizeof(text), "{\"id\":\"committed %u\"", i);
		commit(f->ring, text);
		if (i > 0)
			assert_int_equal(truncate(ring_path(f), i == 1 ? (off_t)whole : 5000), 0);
		die(f);
		open_trail(f);
		assert_int_equal(f->rec.rings_cut, i > 0);
		assert_int_equal(f->rec.from_slots, i == 0);
		assert_int_equal(f->rec.from_rings, 1);
		open_ring(f);
	}
	die(f);
	open_trail(f);
	assert_int_equal(f->rec.rings_cut, 0);
}

/* Under the process: what it put back leads to the calls in flight, whatever is released later. */
static void
a_ring_that_is_mended_has_its_horizon(void **state)
{
	struct fixture *f = *state;

	check(f, mapguard_install(&f->err));
	release_at(f, 1, 10);
	publish(f->ring, "in flight");
	assert_int_equal(truncate(ring_path(f), 0), 0);
	commit(f->ring, "text");
	assert_true(ring_was_cut(f->ring));
	release_at(f, 1, 900);
	expect_horizon(f, 1, 10);
}

/* ---- the closing event of an intent ---- */

static void
an_intent_becomes_its_closing_event(void **state)
{
	static const struct {
		const char *intent, *want;
	} cases[] = {
		{ "{\"action\":\"a\",\"id\":\"x\",\"kind\":\"intent\",\"outcome\":\"pending\","
		  "\"reason\":{\"reasonType\":\"pending\"},\"severity\":\"normal\"",
		    "{\"action\":\"a\",\"id\":\"x\",\"outcome\":\"unknown\","
		    "\"reason\":{\"reasonType\":\"restart\"},\"severity\":\"warning\"" },
		{ "{\"kind\":\"intent\",\"outcome\":\"pending\",\"severity\":\"critical\"",
		    "{\"outcome\":\"unknown\",\"severity\":\"critical\"" },
		{ "{\"id\":\"x\",\"kind\":\"intent\",\"requestData\":{\"kind\":\"intent\"}",
		    "{\"id\":\"x\",\"requestData\":{\"kind\":\"intent\"}" },
		{ "{\"message\":\"\\\"kind\\\":\\\"intent\\\",\",\"severity\":\"warning\"",
		    "{\"message\":\"\\\"kind\\\":\\\"intent\\\",\",\"severity\":\"warning\"" },
	};
	char out[512];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		out[trail_line_closing(slice_of(cases[i].intent), out)] = '\0';
		assert_string_equal(out, cases[i].want);
	}
}

/* ---- every combination of what a kill can leave ---- */

#define ID     "\"id\":\"01a20487-3a8b-7d8a-890b-be8996bb2eb7\""
#define INTENT "{\"action\":\"kms.x\"," ID ",\"kind\":\"intent\",\"outcome\":\"pending\""
#define DONE   "{\"action\":\"kms.x\"," ID ",\"outcome\":\"success\""
#define FLIGHT "{\"action\":\"kms.x\"," ID ",\"outcome\":\"unknown\""

static void
append(struct fixture *f, const char *text)
{
	uint64_t seq;

	check(f, trail_append(f->t, slice_of(text), clock_wall_ns(), &seq, &f->err));
	check(f, trail_write(f->t, &f->err));
	check(f, trail_sync(f->t, &f->err));
}

enum left {
	TRAIL_INTENT = 1,
	RING_INTENT = 2,
	TRAIL_DONE = 4,
	RING_DONE = 8,
	OPEN_SLOT = 16,
	RELEASED = 32, /* the ring's own mark is behind all of it */
	COMBINATIONS = 64
};

static void
leave(struct fixture *f, unsigned left)
{
	uint64_t segment, offset;

	append(f, "{\"action\":\"other\",\"id\":\"before\"");
	trail_durable_mark(f->t, &segment, &offset);
	release_at(f, segment, offset);
	publish(f->ring, FLIGHT);
	if (left & TRAIL_INTENT)
		append(f, INTENT);
	if (left & TRAIL_DONE)
		append(f, DONE);
	if (left & RELEASED) {
		trail_durable_mark(f->t, &segment, &offset);
		release_at(f, segment, offset);
	}
	if (left & RING_INTENT)
		commit(f->ring, INTENT);
	if (left & RING_DONE)
		commit(f->ring, DONE);
}

/* The table of calls in flight as a power cut may leave it: never written. */
static void
lose_slots(struct fixture *f)
{
	char zeros[4096] = { 0 };
	int fd = openat(trail_dirfd(f->t), "ring.0", O_WRONLY);

	assert_int_equal(
	    pwrite(fd, zeros, sizeof(zeros), sysconf(_SC_PAGESIZE) + SIZE), sizeof(zeros));
	close(fd);
}

static void
expect_lines(struct fixture *f, unsigned left)
{
	bool done = left & (TRAIL_DONE | RING_DONE);
	/* Behind the closing event that a power cut or expiry has left, it says nothing. */
	bool intent = left & TRAIL_INTENT || (left & RING_INTENT && !(left & TRAIL_DONE));
	unsigned intents = 0, closings = 0;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;

	check(f, trail_reader_open(f->dir, 0, &r, &f->err));
	while (trail_reader_next(r, &line, &seq, &f->err) == 1) {
		struct slice outcome = trail_line_string(line, SLICE("outcome"));
		bool recovered = memmem(line.p, line.n, "\"recovered\":true", 16) != NULL;

		if (slice_equal(trail_line_string(line, SLICE("id")), SLICE("before")))
			continue;
		if (slice_equal(trail_line_string(line, SLICE("kind")), SLICE("intent"))) {
			intents++;
			assert_int_equal(recovered, !(left & TRAIL_INTENT));
			assert_int_equal(closings, 0);
			continue;
		}
		closings++;
		assert_int_equal(recovered, !(left & TRAIL_DONE));
		assert_true(slice_equal(outcome, done ? SLICE("success") : SLICE("unknown")));
	}
	trail_reader_close(r);
	if (intents != intent || closings != (intent || done || left & OPEN_SLOT))
		fail_msg("left %#x: %u intents, %u closing events", left, intents, closings);
}

static void
whatever_is_left_becomes_one_record(void **state)
{
	struct fixture *f = *state;

	for (unsigned left = 0; left < COMBINATIONS; left++) {
		/* No ring gives back a line before it is released. */
		if (left & RELEASED && left & (RING_INTENT | RING_DONE) &&
		    left & (TRAIL_INTENT | TRAIL_DONE))
			continue;
		teardown(state);
		setup(state);
		f = *state;
		leave(f, left);
		if (!(left & OPEN_SLOT))
			lose_slots(f);
		die(f);
		for (unsigned again = 0; again < 2; again++) {
			open_trail(f);
			expect_lines(f, left);
			if (again > 0)
				assert_int_equal(
				    f->rec.from_slots + f->rec.from_rings + f->rec.intents_closed,
				    0);
			trail_close(f->t, false);
			f->t = NULL;
		}
	}
}

/* Somebody wrote it there. */
static void
what_would_be_two_lines_is_none(void **state)
{
	struct fixture *f = *state;

	commit(f->ring, "{\"id\":\"a\nb\"");
	publish(f->ring, "{\"id\":\"c\n\"");
	commit(f->ring, "{\"id\":\"d\"");
	die(f);
	open_trail(f);
	assert_int_equal(f->rec.from_rings + f->rec.from_slots, 1);
	open_ring(f);
	die(f);
	open_trail(f);
	assert_int_equal(f->rec.torn_bytes + f->rec.corrupt_lines, 0);
	assert_int_equal(trail_last_seq(f->t), 1);
}

static void
intents_are_closed_in_their_order_and_others_left_alone(void **state)
{
	static const char *const events[] = {
		"{\"id\":\"a\",\"kind\":\"intent\"",
		"{\"id\":\"b\",\"kind\":\"intent\"",
		"{\"id\":\"c\",\"kind\":\"intent\"",
		"{\"id\":\"b\"",
		"{\"id\":\"d\",\"kind\":\"intent\"",
	};
	static const char want[] = "acd";
	struct fixture *f = *state;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;

	append(f, "{\"id\":\"x\"");
	release_at(f, 1, 0);
	publish(f->ring, "{\"id\":\"z\"");
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		append(f, events[i]);
	lose_slots(f);
	die(f);
	open_trail(f);
	assert_int_equal(f->rec.intents_closed, 3);
	check(f, trail_reader_open(f->dir, 7, &r, &f->err));
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
		assert_int_equal(trail_line_string(line, SLICE("id")).p[0], want[i]);
		assert_int_equal(trail_line_string(line, SLICE("kind")).n, 0);
	}
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 0);
	trail_reader_close(r);
}

/* ---- killed at any instruction ---- */

#define ROUNDS	  150
#define CALLS_MIN 4
#define CALLS_MAX 20000

/* What the world saw of a call, in memory that outlives the child. */
struct world {
	_Atomic unsigned char forwarded[CALLS_MAX], answered[CALLS_MAX];
	_Atomic unsigned calls;
};

static void
put_line(struct ring *r, const char *text, size_t n, unsigned flags, bool wait, struct journal *j)
{
	uint64_t pos;

	while (!ring_claim(r, SLOT_SIZE))
		sched_yield();
	memcpy(ring_line(r, SLOT_SIZE), text, n);
	pos = ring_commit(r, SLOT_SIZE, n, flags);
	journal_kick(j);
	while (wait && ring_durable(r) < pos)
		sched_yield();
}

static void
one_call(struct fixture *f, struct journal *j, struct world *w, unsigned round, unsigned i)
{
	bool intent = i % 3 == 0;
	char text[128];
	unsigned slot = ring_slot_take(f->ring);
	int n = snprintf(text, sizeof(text), "{\"id\":\"%u-%u\",\"outcome\":\"unknown\"", round, i);

	memcpy(ring_slot_line(f->ring, slot), text, (size_t)n);
	ring_slot_publish(f->ring, slot, (size_t)n);
	if (intent) {
		n = snprintf(text, sizeof(text),
		    "{\"id\":\"%u-%u\",\"kind\":\"intent\",\"outcome\":\"pending\"", round, i);
		put_line(f->ring, text, (size_t)n, RING_DURABLE, true, j);
	}
	atomic_store(&w->forwarded[i], 1);
	n = snprintf(text, sizeof(text), "{\"id\":\"%u-%u\",\"outcome\":\"success\"", round, i);
	put_line(f->ring, text, (size_t)n, i % 2 ? RING_DURABLE : 0, false, j);
	atomic_store(&w->answered[i], 1);
	ring_slot_close(f->ring, slot);
	atomic_store(&w->calls, i + 1);
}

static void
live_until_killed(struct fixture *f, struct world *w, unsigned round)
{
	struct metrics *metrics = metrics_new();
	struct journal_opts opts = { .flush_interval_ms = 1,
		.spacing_min_us = 50,
		.spacing_max_us = 500,
		.retention_s = 86400 };
	struct journal *j;

	open_trail(f);
	open_ring(f);
	opts.trail = f->t;
	opts.log = log_new(open("/dev/null", O_WRONLY), LOG_LEVEL_ERROR);
	opts.metrics = metrics_shard_new(metrics);
	if ((j = journal_new(&opts, &f->err)) == NULL ||
	    journal_add_ring(j, f->ring, NULL, NULL, &f->err) == -1 ||
	    journal_start(j, &f->err) == -1)
		_exit(1);
	for (unsigned i = 0; i < CALLS_MAX; i++)
		one_call(f, j, w, round, i);
	for (;;)
		pause();
}

static void
check_round(struct fixture *f, const struct world *w, unsigned round)
{
	static unsigned char intents[CALLS_MAX], closings[CALLS_MAX], known[CALLS_MAX];
	struct trail_reader *r;
	struct slice line;
	uint64_t seq, last = 0;

	memset(intents, 0, sizeof(intents));
	memset(closings, 0, sizeof(closings));
	memset(known, 0, sizeof(known));
	check(f, trail_reader_open(f->dir, 0, &r, &f->err));
	while (trail_reader_next(r, &line, &seq, &f->err) == 1) {
		struct slice id = trail_line_string(line, SLICE("id"));
		unsigned in, i;
		char text[64];

		assert_int_equal(seq, ++last);
		snprintf(text, sizeof(text), "%.*s", SLICE_ARG(id));
		if (sscanf(text, "%u-%u", &in, &i) != 2 || in != round)
			continue;
		if (trail_line_string(line, SLICE("kind")).n > 0) {
			intents[i]++;
			continue;
		}
		closings[i]++;
		known[i] = slice_equal(trail_line_string(line, SLICE("outcome")), SLICE("success"));
	}
	trail_reader_close(r);
	for (unsigned i = 0; i < CALLS_MAX; i++) {
		assert_true(intents[i] <= 1 && closings[i] <= 1);
		assert_true(closings[i] == 1 || (!w->forwarded[i] && intents[i] == 0));
		assert_true(known[i] || !w->answered[i]);
		assert_true(intents[i] == 1 || i % 3 != 0 || !w->forwarded[i]);
	}
}

static void
every_forwarded_call_has_one_record_however_the_process_is_killed(void **state)
{
	struct fixture *f = *state;
	uint32_t random = 2463534242;
	uint64_t calls = 0, unknown = 0;
	struct world *w =
	    mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(w != MAP_FAILED);
	for (unsigned round = 0; round < ROUNDS; round++) {
		int status;
		pid_t pid;

		die(f);
		memset(w, 0, sizeof(*w));
		if ((pid = fork()) == 0)
			live_until_killed(f, w, round);
		random = random * 1664525 + 1013904223;
		/* In its start, or in its calls. */
		while (round % 2 == 0 && atomic_load(&w->calls) < CALLS_MIN)
			sched_yield();
		usleep((random >> 12) % 8000);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		open_trail(f);
		open_ring(f);
		calls += atomic_load(&w->calls);
		unknown += f->rec.from_slots;
		check_round(f, w, round);
	}
	print_message("    %d kills, %" PRIu64 " calls, %" PRIu64 " recovered from their slots\n",
	    ROUNDS, calls, unknown);
	assert_true(calls > ROUNDS && unknown > 0);
	munmap(w, sizeof(*w));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_open_slot_is_found_and_a_closed_one_is_not),
		TEST(slots_are_found_in_the_order_of_publishing),
		TEST(a_slot_that_is_only_taken_is_not_found),
		TEST(a_slots_next_state_is_not_its_last_line),
		TEST(slots_are_as_many_as_asked_for),
		TEST(clearing_forgets_the_slots_too),
		TEST(a_table_of_another_size_forgets_nothing_before_it_is_cleared),
		TEST(a_damaged_slot_does_not_count),
		TEST(tables_that_cannot_be_are_errors),
		TEST(a_slot_names_the_mark_at_its_publishing),
		TEST(the_horizon_never_passes_an_open_slot_and_follows_the_closed),
		TEST(the_horizon_waits_for_what_took_a_slots_place_to_be_durable),
		TEST(a_ring_needs_the_lines_of_its_calls_until_they_are_durable),
		TEST(a_new_header_has_the_mark_already),
		TEST(a_ring_that_was_cut_is_noticed_and_gives_what_it_has),
		TEST(a_ring_that_is_mended_has_its_horizon),
		TEST(an_intent_becomes_its_closing_event),
		TEST(whatever_is_left_becomes_one_record),
		TEST(what_would_be_two_lines_is_none),
		TEST(intents_are_closed_in_their_order_and_others_left_alone),
		TEST(every_forwarded_call_has_one_record_however_the_process_is_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
