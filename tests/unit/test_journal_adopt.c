/* One process gives its trail and its rings to another; here both are one. */
#include "keytrail/clock.h"
#include "keytrail/journal.h"
#include "tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "count_lines.h"

#define RING_SIZE 65536
#define SLOTS	  4
#define SLOT_SIZE 128
#define WAIT_NS	  (20 * CLOCK_NS_PER_S) /* for what must happen; never waited for in full */

struct process {
	struct trail *t;
	struct trail_recovery rec;
	struct ring *ring;
	struct journal *j;
	struct metrics *metrics;
	struct metrics_shard *shard;
	_Atomic unsigned notified;
};

struct fixture {
	char dir[TEMPDIR_SIZE];
	struct log *log;
	struct trail_io io;
	atomic_bool fail_syncs;
	struct process old, next;
	struct err err;
};

static void
check(struct fixture *f, int rc)
{
	if (rc == -1)
		fail_msg("%s", f->err.msg);
}

static int
disk_sync(void *arg, int fd)
{
	struct fixture *f = arg;

	errno = EIO;
	return atomic_load(&f->fail_syncs) ? -1 : fdatasync(fd);
}

static void
on_notify(void *arg)
{
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

/* Up to its rings; they are ring.main's kind, one a process. */
static int
open_trail(struct fixture *f, struct process *p, const int *lock)
{
	struct trail_opts opts = { .dir = f->dir,
		.create = true,
		.segment_size = 65536,
		.room = 2 * RING_SIZE,
		.lock = lock,
		.io = &f->io };

	return trail_open(&opts, &p->t, &p->rec, &f->err);
}

static void
make_journal(struct fixture *f, struct process *p)
{
	struct ring_opts room = { .size = RING_SIZE, .slots = SLOTS, .slot_size = SLOT_SIZE };
	struct journal_opts opts = { .trail = p->t,
		.log = f->log,
		.flush_interval_ms = 5,
		.spacing_min_us = 200,
		.spacing_max_us = 3000,
		.retention_s = 400 * 86400,
		.recovery = &p->rec };

	p->metrics = metrics_new();
	opts.metrics = p->shard = metrics_shard_new(p->metrics);
	trail_durable_mark(p->t, &room.segment, &room.offset);
	check(f, ring_open(trail_dirfd(p->t), "ring.main", &room, &p->ring, &f->err));
	check(f, trail_expect_rings(p->t, 1, &f->err));
	assert_non_null(p->j = journal_new(&opts, &f->err));
	check(f, journal_add_ring(p->j, p->ring, on_notify, &p->notified, &f->err));
}

static void
close_process(struct fixture *f, struct process *p, bool clean)
{
	if (p->j != NULL && journal_stop(p->j, &f->err) == -1)
		clean = false;
	journal_free(p->j);
	ring_close(p->ring);
	if (p->t != NULL)
		trail_close(p->t, clean);
	metrics_free(p->metrics);
	*p = (struct process){ 0 };
}

#define WAIT_UNTIL(condition)                                                                      \
	do {                                                                                       \
		int64_t end_ = clock_mono_ns() + WAIT_NS;                                          \
		while (!(condition)) {                                                             \
			assert_true(clock_mono_ns() < end_);                                       \
			nanosleep(&(struct timespec){ 0, CLOCK_NS_PER_MS }, NULL);                 \
		}                                                                                  \
	} while (0)

static uint64_t
commit(struct process *p, const char *text, unsigned flags)
{
	size_t n = strlen(text);
	uint64_t pos;

	assert_true(ring_claim(p->ring, n));
	memcpy(ring_line(p->ring, n), text, n);
	pos = ring_commit(p->ring, n, n, flags);
	journal_kick(p->j);
	return pos;
}

static void
commit_and_wait(struct process *p, const char *text)
{
	uint64_t pos = commit(p, text, RING_DURABLE);

	WAIT_UNTIL(ring_durable(p->ring) == pos);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	f->log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	f->io = trail_disk;
	f->io.sync = disk_sync;
	f->io.arg = f;
	check(f, open_trail(f, &f->old, NULL));
	make_journal(f, &f->old);
	check(f, journal_start(f->old.j, &f->err));
	commit_and_wait(&f->old, "{\"id\":\"start\"");
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	close_process(f, &f->next, true);
	close_process(f, &f->old, false);
	log_free(f->log);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static unsigned
publish(struct process *p, const char *text)
{
	unsigned slot = ring_slot_take(p->ring);

	memcpy(ring_slot_line(p->ring, slot), text, strlen(text));
	ring_slot_publish(p->ring, slot, strlen(text));
	return slot;
}

static void
give_signed(struct fixture *f, bool whole)
{
	char name[TRAIL_RING_NAME_SIZE];

	trail_given_ring_name(0, name);
	check(f, journal_give(f->old.j, &f->err));
	check(f, ring_rename(f->old.ring, trail_dirfd(f->old.t), name, &f->err));
	check(f, trail_give(f->old.t, whole, &f->err));
}

static void
give(struct fixture *f)
{
	give_signed(f, true);
}

static void
take(struct fixture *f)
{
	const int lock = trail_dirfd(f->old.t);
	char name[TRAIL_RING_NAME_SIZE];
	struct ring *given;

	check(f, open_trail(f, &f->next, &lock));
	make_journal(f, &f->next);
	trail_given_ring_name(0, name);
	check(f, ring_adopt(lock, name, &given, &f->err));
	check(f, journal_adopt_ring(f->next.j, given, &f->err));
	check(f, journal_start(f->next.j, &f->err));
}

static bool
has_given_ring(struct fixture *f)
{
	char name[TRAIL_RING_NAME_SIZE];

	trail_given_ring_name(0, name);
	return faccessat(trail_dirfd(f->next.t), name, F_OK, 0) == 0;
}

static void
end_old(struct fixture *f)
{
	close_process(f, &f->old, false);
	journal_orphan(f->next.j);
	WAIT_UNTIL(journal_adopted(f->next.j) == 0);
}

/* ---- tests ---- */

static void
what_is_committed_meanwhile_is_recorded_once(void **state)
{
	struct fixture *f = *state;
	unsigned before;
	uint64_t pos;

	commit_and_wait(&f->old, "{\"id\":\"before\"");
	give(f);
	before = atomic_load(&f->old.notified);
	pos = commit(&f->old, "{\"id\":\"between\"", RING_DURABLE);
	take(f);
	assert_true(f->next.rec.clean);
	WAIT_UNTIL(ring_durable(f->old.ring) == pos);
	WAIT_UNTIL(atomic_load(&f->old.notified) > before);
	commit_and_wait(&f->next, "{\"id\":\"of the next\"");
	commit_and_wait(&f->old, "{\"id\":\"after\"");
	commit(&f->old, "{\"id\":\"last\"", 0);
	assert_int_equal(journal_adopted(f->next.j), 1);
	assert_int_equal(metrics_value(f->next.metrics, METRIC_ADOPTED_RINGS, 0), 1);
	end_old(f);
	assert_int_equal(metrics_value(f->next.metrics, METRIC_ADOPTED_RINGS, 0), 0);
	assert_false(has_given_ring(f));
	assert_int_equal(count_lines(f->dir, "\"id\":\"before\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"between\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"after\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"last\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"of the next\""), 1);
	assert_int_equal(count_lines(f->dir, "keytrail.recover"), 0);
	/* Three that it took over, and its own one. */
	assert_int_equal(metrics_value(f->next.metrics, METRIC_EVENTS_DURABLE, 0), 4);
	assert_int_equal(metrics_value(f->next.metrics, METRIC_EVENTS_ACCEPTED, 0), 3);
}

static void
a_call_in_flight_of_who_was_killed_is_recorded(void **state)
{
	struct fixture *f = *state;
	unsigned slot;

	slot = publish(&f->old, "{\"id\":\"recorded\",\"outcome\":\"unknown\"");
	publish(&f->old, "{\"id\":\"open\",\"outcome\":\"unknown\"");
	commit_and_wait(&f->old, "{\"id\":\"recorded\",\"outcome\":\"success\"");
	give(f);
	take(f);
	/* Killed before it closed the slot of what is recorded. */
	(void)slot;
	assert_int_equal(count_lines(f->dir, "\"id\":\"open\""), 0);
	end_old(f);
	assert_int_equal(count_lines(f->dir, "\"id\":\"recorded\""), 1);
	assert_int_equal(
	    count_lines(f->dir, "\"id\":\"open\",\"outcome\":\"unknown\",\"recovered\":true"), 1);
	assert_int_equal(count_lines(f->dir, "\"fromSlots\":1"), 1);
	assert_false(has_given_ring(f));
}

static void
the_intent_of_a_call_that_goes_on_stays_open(void **state)
{
	struct fixture *f = *state;
	unsigned slot;

	publish(&f->old, "{\"id\":\"a\",\"outcome\":\"unknown\"");
	slot = publish(&f->old, "{\"id\":\"b\",\"outcome\":\"unknown\"");
	commit_and_wait(&f->old, "{\"id\":\"b\",\"kind\":\"intent\"");
	give(f);
	take(f);
	commit_and_wait(&f->next, "{\"id\":\"c\",\"kind\":\"intent\"");
	commit_and_wait(&f->old, "{\"id\":\"b\",\"outcome\":\"success\"");
	ring_slot_close(f->old.ring, slot);
	end_old(f);
	assert_int_equal(count_lines(f->dir, "\"id\":\"a\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"b\""), 2);
	assert_int_equal(count_lines(f->dir, "\"id\":\"c\""), 1);
}

/* It is read again by the next start. */
static void
what_was_durable_is_not_read_again(void **state)
{
	struct fixture *f = *state;
	char path[TEMPDIR_SIZE + 64];
	int fd;

	commit_and_wait(&f->old, "{\"id\":\"damaged\"");
	commit_and_wait(&f->old, "{\"id\":\"last\"");
	give(f);
	snprintf(path, sizeof(path), "%s/00000000000000000001.jsonl", f->dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "X", 1, 20), 1);
	close(fd);
	take(f);
	assert_int_equal(f->next.rec.corrupt_lines, 0);
	commit_and_wait(&f->old, "{\"id\":\"after\"");
	end_old(f);
	close_process(f, &f->next, true);
	check(f, open_trail(f, &f->next, NULL));
	assert_int_equal(f->next.rec.corrupt_lines, 1);
}

/* The lock stays, though the one who took it has closed its descriptors. */
static void
nobody_else_can_open_the_trail(void **state)
{
	struct fixture *f = *state;
	struct process third = { 0 };

	give(f);
	take(f);
	assert_int_equal(open_trail(f, &third, NULL), -1);
	assert_non_null(strstr(f->err.msg, "locked by process"));
	end_old(f);
	assert_int_equal(open_trail(f, &third, NULL), -1);
}

static void
a_start_finds_what_both_have_left(void **state)
{
	struct fixture *f = *state;

	give(f);
	take(f);
	commit_and_wait(&f->old, "{\"id\":\"durable\"");
	check(f, journal_stop(f->next.j, &f->err));
	commit(&f->old, "{\"id\":\"of the old\"", 0);
	commit(&f->next, "{\"id\":\"of the next\"", 0);
	publish(&f->old, "{\"id\":\"in flight\"");
	close_process(f, &f->next, false);
	close_process(f, &f->old, false);
	check(f, open_trail(f, &f->next, NULL));
	assert_int_equal(f->next.rec.from_rings, 2);
	assert_int_equal(f->next.rec.from_slots, 1);
	assert_int_equal(f->next.rec.rings_cut, 0);
	assert_int_equal(count_lines(f->dir, "\"id\":\"durable\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"of the old\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"of the next\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"in flight\""), 1);
}

static void
a_start_finds_what_was_given_to_nobody(void **state)
{
	struct fixture *f = *state;

	commit_and_wait(&f->old, "{\"id\":\"durable\"");
	give_signed(f, false);
	commit(&f->old, "{\"id\":\"between\"", 0);
	close_process(f, &f->old, false);
	check(f, open_trail(f, &f->next, NULL));
	assert_int_equal(f->next.rec.from_rings, 1);
	assert_int_equal(f->next.rec.rings_cut, 0);
	assert_false(f->next.rec.clean);
	assert_int_equal(count_lines(f->dir, "\"id\":\"between\""), 1);
}

/* Up to an instant at which its successor is killed. */
static void
resume(struct fixture *f)
{
	struct journal_opts opts = { .log = f->log,
		.flush_interval_ms = 5,
		.spacing_min_us = 200,
		.spacing_max_us = 3000,
		.retention_s = 400 * 86400,
		.recovery = &f->old.rec };
	int lock = fcntl(trail_dirfd(f->old.t), F_DUPFD_CLOEXEC, 0);

	check(f, journal_stop(f->old.j, &f->err));
	trail_close(f->old.t, false);
	f->old.t = NULL;
	check(f, open_trail(f, &f->old, &lock));
	close(lock);
	opts.trail = f->old.t;
	check(f, trail_skip_recorded(f->old.t, f->old.ring, &f->err));
	check(f, ring_rename(f->old.ring, trail_dirfd(f->old.t), "ring.main", &f->err));
	check(f, trail_expect_rings(f->old.t, 1, &f->err));
	journal_resume(f->old.j, &opts);
	check(f, journal_start(f->old.j, &f->err));
}

static void
who_has_given_in_vain_goes_on(void **state)
{
	struct fixture *f = *state;
	unsigned slot = publish(&f->old, "{\"id\":\"in flight\",\"outcome\":\"unknown\"");

	commit_and_wait(&f->old, "{\"id\":\"in flight\",\"kind\":\"intent\"");
	give(f);
	commit(&f->old, "{\"id\":\"between\"", 0);
	resume(f);
	commit_and_wait(&f->old, "{\"id\":\"after\"");
	commit_and_wait(&f->old, "{\"id\":\"in flight\",\"outcome\":\"success\"");
	ring_slot_close(f->old.ring, slot);
	assert_int_equal(count_lines(f->dir, "\"id\":\"between\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"after\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"in flight\""), 2);
	give(f);
	take(f);
	commit_and_wait(&f->old, "{\"id\":\"at last\"");
	end_old(f);
}

/* It had numbered some, and taken calls of its own. */
static void
what_a_killed_successor_did_is_recovered(void **state)
{
	struct fixture *f = *state;
	unsigned slot;

	give(f);
	take(f);
	commit_and_wait(&f->old, "{\"id\":\"numbered\"");
	publish(&f->next, "{\"id\":\"of the next\",\"outcome\":\"unknown\"");
	slot = publish(&f->old, "{\"id\":\"in flight\",\"outcome\":\"unknown\"");
	commit_and_wait(&f->old, "{\"id\":\"in flight\",\"kind\":\"intent\"");
	check(f, journal_stop(f->next.j, &f->err));
	commit(&f->next, "{\"id\":\"left\"", 0);
	commit(&f->old, "{\"id\":\"not numbered\"", 0);
	close_process(f, &f->next, false);
	resume(f);
	assert_int_equal(f->old.rec.from_rings, 1);
	assert_int_equal(f->old.rec.from_slots, 1);
	assert_int_equal(f->old.rec.intents_closed, 0);
	commit_and_wait(&f->old, "{\"id\":\"in flight\",\"outcome\":\"success\"");
	ring_slot_close(f->old.ring, slot);
	assert_int_equal(count_lines(f->dir, "\"id\":\"numbered\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"not numbered\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"left\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"of the next\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"in flight\""), 2);
}

/* Killed between the sync and the release. */
static void
what_it_recorded_and_did_not_release_is_skipped(void **state)
{
	const struct slice first = SLICE("{\"id\":\"first\""), second = SLICE("{\"id\":\"second\"");
	struct fixture *f = *state;
	uint64_t seq;
	int lock;

	give(f);
	commit(&f->old, first.p, 0);
	commit(&f->old, second.p, RING_DURABLE);
	publish(&f->old, "{\"id\":\"in flight\"");
	commit(&f->old, "{\"id\":\"third\"", 0);
	lock = trail_dirfd(f->old.t);
	check(f, open_trail(f, &f->next, &lock));
	check(f, trail_append(f->next.t, first, clock_wall_ns(), &seq, &f->err));
	check(f, trail_append(f->next.t, second, clock_wall_ns(), &seq, &f->err));
	check(f, trail_write(f->next.t, &f->err));
	check(f, trail_sync(f->next.t, &f->err));
	close_process(f, &f->next, false);
	resume(f);
	commit_and_wait(&f->old, "{\"id\":\"after\"");
	assert_int_equal(count_lines(f->dir, "\"id\":\"first\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"second\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"third\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"in flight\""), 0);
	WAIT_UNTIL(metrics_value(f->old.metrics, METRIC_EVENTS_DURABLE, 0) ==
		   metrics_value(f->old.metrics, METRIC_EVENTS_RECORDED, 0));
	/* "start" and these four. */
	assert_int_equal(metrics_value(f->old.metrics, METRIC_EVENTS_DURABLE, 0), 5);
}

static void
who_cannot_give_goes_on(void **state)
{
	struct fixture *f = *state;

	commit_and_wait(&f->old, "{\"id\":\"before\"");
	atomic_store(&f->fail_syncs, true);
	commit(&f->old, "{\"id\":\"waits\"", RING_DURABLE);
	assert_int_equal(journal_give(f->old.j, &f->err), -1);
	atomic_store(&f->fail_syncs, false);
	WAIT_UNTIL(ring_state(f->old.ring) == RING_OK);
	commit_and_wait(&f->old, "{\"id\":\"after\"");
	assert_int_equal(count_lines(f->dir, "\"id\":\"waits\""), 1);
	give(f);
}

static void
another_trail_is_not_taken_for_the_one_given(void **state)
{
	struct fixture *f = *state;
	char elsewhere[TEMPDIR_SIZE];
	int lock;

	tempdir_make(elsewhere);
	lock = open(elsewhere, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	give(f);
	assert_int_equal(open_trail(f, &f->next, &lock), -1);
	assert_non_null(strstr(f->err.msg, "another trail"));
	close(lock);
	tempdir_remove(elsewhere);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_committed_meanwhile_is_recorded_once),
		TEST(a_call_in_flight_of_who_was_killed_is_recorded),
		TEST(the_intent_of_a_call_that_goes_on_stays_open),
		TEST(what_was_durable_is_not_read_again),
		TEST(nobody_else_can_open_the_trail),
		TEST(a_start_finds_what_both_have_left),
		TEST(a_start_finds_what_was_given_to_nobody),
		TEST(who_has_given_in_vain_goes_on),
		TEST(what_a_killed_successor_did_is_recovered),
		TEST(what_it_recorded_and_did_not_release_is_skipped),
		TEST(who_cannot_give_goes_on),
		TEST(another_trail_is_not_taken_for_the_one_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
