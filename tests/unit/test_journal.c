#include "keytrail/journal.h"

#include "keytrail/clock.h"
#include "tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "count_lines.h"

#define RINGS	  2
#define RING_SIZE 65536
#define WAIT_NS	  (20 * CLOCK_NS_PER_S) /* for what must happen; never waited for in full */

/* A disk whose syncs can be held up, counted and made to fail. */
struct disk {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool held; /* syncs wait */
	unsigned syncs, waiting;
	unsigned fail_syncs, fail_creates, fail_allocates;
	off_t limit; /* of what can be allocated; 0: none */
};

struct fixture {
	char dir[TEMPDIR_SIZE];
	struct disk disk;
	struct trail_io io;
	struct trail *t;
	struct trail_recovery rec;
	struct ring *rings[RINGS];
	struct journal *j;
	struct metrics *metrics;
	struct log *log;
	_Atomic unsigned notified[RINGS];
	_Atomic uint64_t durable, keep, covered;
	atomic_bool removed;
	struct err err;
};

/* ---- the disk ---- */

static bool
fails(struct disk *d, unsigned *count)
{
	bool fail;

	pthread_mutex_lock(&d->lock);
	fail = *count > 0;
	if (fail)
		--*count;
	pthread_mutex_unlock(&d->lock);
	errno = EIO;
	return fail;
}

static int
disk_create(void *arg, int dirfd, const char *name)
{
	struct disk *d = arg;

	if (fails(d, &d->fail_creates))
		return -1;
	return openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
}

static int
disk_allocate(void *arg, int fd, off_t at, off_t n)
{
	struct disk *d = arg;

	if (fails(d, &d->fail_allocates) || (d->limit > 0 && at + n > d->limit)) {
		errno = ENOSPC;
		return -1;
	}
	return fallocate(fd, FALLOC_FL_KEEP_SIZE, at, n);
}

static int
disk_sync(void *arg, int fd)
{
	struct disk *d = arg;

	pthread_mutex_lock(&d->lock);
	d->waiting++;
	pthread_cond_broadcast(&d->changed);
	while (d->held)
		pthread_cond_wait(&d->changed, &d->lock);
	d->waiting--;
	d->syncs++;
	pthread_mutex_unlock(&d->lock);
	return fails(d, &d->fail_syncs) ? -1 : fdatasync(fd);
}

static _Atomic unsigned page_syncs, fail_page_syncs;

/* In place of the C library's. */
int
msync(void *p, size_t n, int flags)
{
	atomic_fetch_add(&page_syncs, 1);
	if (atomic_load(&fail_page_syncs) > 0) {
		atomic_fetch_sub(&fail_page_syncs, 1);
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_msync, p, n, flags);
}

static void
hold_syncs(struct disk *d, bool held)
{
	pthread_mutex_lock(&d->lock);
	d->held = held;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
}

static void
wait_for_held_sync(struct disk *d)
{
	pthread_mutex_lock(&d->lock);
	while (d->waiting == 0)
		pthread_cond_wait(&d->changed, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

static void
set_faults(struct disk *d, unsigned syncs, unsigned creates, unsigned allocates)
{
	pthread_mutex_lock(&d->lock);
	d->fail_syncs = syncs;
	d->fail_creates = creates;
	d->fail_allocates = allocates;
	pthread_mutex_unlock(&d->lock);
}

static unsigned
syncs_done(struct disk *d)
{
	unsigned n;

	pthread_mutex_lock(&d->lock);
	n = d->syncs;
	pthread_mutex_unlock(&d->lock);
	return n;
}

/* ---- the fixture ---- */

static void
on_notify(void *arg)
{
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static void
on_durable(void *arg, uint64_t seq)
{
	atomic_store(&((struct fixture *)arg)->durable, seq);
}

static uint64_t
on_keep(void *arg)
{
	return atomic_load(&((struct fixture *)arg)->keep);
}

static uint64_t
on_covered(void *arg)
{
	return atomic_load(&((struct fixture *)arg)->covered);
}

static void
check(struct fixture *f, int rc)
{
	if (rc == -1)
		fail_msg("%s", f->err.msg);
}

static void
open_all(struct fixture *f)
{
	struct trail_opts opts = { .dir = f->dir,
		.create = true,
		.segment_size = 16384,
		.room = (uint64_t)RINGS * RING_SIZE,
		.hashed = true,
		.io = &f->io };

	check(f, trail_open(&opts, &f->t, &f->rec, &f->err));
	for (unsigned i = 0; i < RINGS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "ring.%u", i);
		check(f, ring_open(trail_dirfd(f->t), name,
			     &(struct ring_opts){ .size = RING_SIZE, .slots = 2, .slot_size = 64 },
			     &f->rings[i], &f->err));
	}
}

static struct journal_opts
plain_opts(struct fixture *f)
{
	return (struct journal_opts){
		.trail = f->t,
		.log = f->log,
		.metrics = metrics_shard_new(f->metrics),
		.flush_interval_ms = 5,
		.spacing_min_us = 200,
		.spacing_max_us = 3000,
		.retention_s = 400 * 86400,
		.keep_seq = on_keep,
		.keep_arg = f,
		.durable = on_durable,
		.durable_arg = f,
	};
}

static void
start(struct fixture *f, const struct journal_opts *opts)
{
	f->j = journal_new(opts, &f->err);
	assert_non_null(f->j);
	for (unsigned i = 0; i < RINGS; i++)
		check(f, journal_add_ring(f->j, f->rings[i], on_notify, &f->notified[i], &f->err));
	check(f, journal_start(f->j, &f->err));
}

static int
stop(struct fixture *f)
{
	int rc = journal_stop(f->j, &f->err);

	journal_free(f->j);
	f->j = NULL;
	return rc;
}

static void
close_all(struct fixture *f, bool clean)
{
	for (unsigned i = 0; i < RINGS; i++) {
		ring_close(f->rings[i]);
		f->rings[i] = NULL;
	}
	if (f->t != NULL)
		trail_close(f->t, clean);
	f->t = NULL;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	pthread_mutex_init(&f->disk.lock, NULL);
	pthread_cond_init(&f->disk.changed, NULL);
	f->io = trail_disk;
	f->io.create = disk_create;
	f->io.allocate = disk_allocate;
	f->io.sync = disk_sync;
	f->io.arg = &f->disk;
	f->log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	f->metrics = metrics_new();
	atomic_store(&f->keep, UINT64_MAX);
	open_all(f);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	hold_syncs(&f->disk, false);
	if (f->j != NULL)
		stop(f);
	close_all(f, false);
	metrics_free(f->metrics);
	log_free(f->log);
	pthread_mutex_destroy(&f->disk.lock);
	pthread_cond_destroy(&f->disk.changed);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static uint64_t
commit(struct fixture *f, unsigned ring, const char *id, unsigned flags)
{
	char text[128];
	int n = snprintf(text, sizeof(text), "{\"action\":\"test\",\"id\":\"%s\"", id);
	uint64_t pos;

	assert_true(ring_claim(f->rings[ring], sizeof(text)));
	memcpy(ring_line(f->rings[ring], sizeof(text)), text, (size_t)n);
	pos = ring_commit(f->rings[ring], sizeof(text), (size_t)n, flags);
	if (flags & RING_DURABLE)
		journal_kick(f->j);
	else
		journal_kick_async(f->j);
	return pos;
}

static void
pause_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * CLOCK_NS_PER_MS };

	nanosleep(&ts, NULL);
}

#define WAIT_UNTIL(condition)                                                                      \
	do {                                                                                       \
		int64_t end_ = clock_mono_ns() + WAIT_NS;                                          \
		while (!(condition)) {                                                             \
			assert_true(clock_mono_ns() < end_);                                       \
			pause_ms(1);                                                               \
		}                                                                                  \
	} while (0)

static void
commit_and_wait(struct fixture *f, unsigned ring, const char *id)
{
	uint64_t pos = commit(f, ring, id, RING_DURABLE);

	WAIT_UNTIL(ring_durable(f->rings[ring]) == pos);
}

/* ---- what is durable when ---- */

static void
a_waiter_is_released_only_after_the_sync(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	uint64_t pos;

	start(f, &opts);
	hold_syncs(&f->disk, true);
	pos = commit(f, 0, "a", RING_DURABLE);
	wait_for_held_sync(&f->disk);
	assert_true(ring_durable(f->rings[0]) < pos);
	assert_int_equal(atomic_load(&f->notified[0]), 0);
	assert_int_equal(atomic_load(&f->durable), 0);
	assert_int_equal(count_lines(f->dir, "\"id\":"), 0);
	hold_syncs(&f->disk, false);
	WAIT_UNTIL(atomic_load(&f->durable) == 1);
	assert_int_equal(ring_durable(f->rings[0]), pos);
	assert_int_equal(atomic_load(&f->notified[0]), 1);
	assert_int_equal(atomic_load(&f->notified[1]), 0);
	assert_int_equal(count_lines(f->dir, "\"id\":\"a\""), 1);
}

static void
all_that_wait_share_one_sync_and_one_notice_a_ring(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	uint64_t last = 0;
	unsigned before;

	start(f, &opts);
	hold_syncs(&f->disk, true);
	commit(f, 0, "first", RING_DURABLE);
	wait_for_held_sync(&f->disk);
	before = syncs_done(&f->disk);
	for (unsigned i = 0; i < 100; i++)
		last = commit(f, i % 2, "later", RING_DURABLE);
	hold_syncs(&f->disk, false);
	WAIT_UNTIL(ring_durable(f->rings[1]) == last);
	WAIT_UNTIL(atomic_load(&f->durable) == 101);
	assert_int_equal(syncs_done(&f->disk), before + 2);
	assert_int_equal(atomic_load(&f->notified[0]), 2);
	assert_int_equal(atomic_load(&f->notified[1]), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_DURABLE, 0), 101);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_RECORDED, 0), 101);
	assert_int_equal(metrics_value(f->metrics, METRIC_COMMIT_EVENTS, 0), 2);
	assert_int_equal(metrics_value(f->metrics, METRIC_FSYNC_SECONDS, 0), 2);
	commit_and_wait(f, 1, "last");
	WAIT_UNTIL(atomic_load(&f->durable) == 102);
	assert_int_equal(atomic_load(&f->notified[0]), 2);
}

static void
a_lone_waiter_is_synced_at_once(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	opts.flush_interval_ms = opts.spacing_min_us = opts.spacing_max_us = 600 * 1000 * 1000;
	start(f, &opts);
	for (unsigned i = 0; i < 20; i++) {
		commit_and_wait(f, 0, "lone");
	}
	assert_int_equal(syncs_done(&f->disk), 20);
}

/* Waiters that come while one is being synced. */
static void
commit_during_a_sync(struct fixture *f, unsigned n)
{
	hold_syncs(&f->disk, true);
	commit(f, 0, "first", RING_DURABLE);
	wait_for_held_sync(&f->disk);
	for (unsigned i = 0; i < n; i++)
		commit(f, i % RINGS, "more", RING_DURABLE);
	hold_syncs(&f->disk, false);
	WAIT_UNTIL(atomic_load(&f->durable) > 0);
}

static void
syncs_are_spaced_under_load(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	int64_t begin = clock_mono_ns();

	opts.spacing_min_us = opts.spacing_max_us = 100000;
	start(f, &opts);
	commit_during_a_sync(f, 16);
	WAIT_UNTIL(atomic_load(&f->durable) == 17);
	assert_true(clock_mono_ns() - begin >= 100 * CLOCK_NS_PER_MS);
	assert_int_equal(syncs_done(&f->disk), 2);
}

/* Callers who wait for their answers: each round is one sync, which waits for the last of them alone. */
static void
who_is_expected_is_waited_for_and_nobody_else(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	opts.flush_interval_ms = opts.spacing_min_us = opts.spacing_max_us = 600 * 1000 * 1000;
	start(f, &opts);
	commit_during_a_sync(f, 16);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = round == 0 ? 16 : 0; i < 17; i++)
			commit(f, i % RINGS, "back", RING_DURABLE);
		WAIT_UNTIL(atomic_load(&f->durable) == 1 + 17 * (round + 1));
		assert_int_equal(syncs_done(&f->disk), 2 + round);
	}
	commit(f, 0, "the only one", RING_DURABLE);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "the only one"), 1);
}

static void
async_lines_are_durable_after_the_flush_interval(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	uint64_t pos;
	int64_t begin;

	opts.flush_interval_ms = 100;
	start(f, &opts);
	begin = clock_mono_ns();
	pos = commit(f, 0, "a", 0);
	WAIT_UNTIL(ring_durable(f->rings[0]) == pos);
	assert_true(clock_mono_ns() - begin >= 100 * CLOCK_NS_PER_MS);
	assert_int_equal(syncs_done(&f->disk), 1);
	assert_int_equal(atomic_load(&f->notified[0]), 0); /* nobody waited */
}

/* Each second it looks by itself.  Lines are hashed, in batches, when they are numbered. */
static void
async_lines_are_numbered_as_they_come(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	int64_t end = clock_mono_ns() + WAIT_NS;
	uint64_t n = 0;

	opts.flush_interval_ms = 600000;
	start(f, &opts);
	for (int round = 0; round < 24; round++) {
		for (unsigned i = 0; i < 5 * MERKLE_BATCH; i++, n++)
			commit(f, n % RINGS, "late", 0);
		WAIT_UNTIL(leaves_have(trail_leaves(f->t), n - 4 * MERKLE_BATCH));
	}
	assert_true(clock_mono_ns() < end);
	assert_int_equal(atomic_load(&f->durable), 0);
}

static void
a_waiter_does_not_wait_for_the_flush_interval_of_others(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	uint64_t pos;

	opts.flush_interval_ms = 3600 * 1000;
	start(f, &opts);
	commit(f, 0, "async", 0);
	pause_ms(20); /* it dozes now, or will soon: both must do */
	pos = commit(f, 1, "durable", RING_DURABLE);
	WAIT_UNTIL(ring_durable(f->rings[1]) == pos);
	assert_int_equal(count_lines(f->dir, "\"id\":\"async\""), 1);
}

static void
who_found_the_ring_full_hears_of_room(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	start(f, &opts);
	hold_syncs(&f->disk, true);
	commit(f, 0, "a", 0);
	wait_for_held_sync(&f->disk);
	while (ring_claim(f->rings[0], 128)) {
		memcpy(ring_line(f->rings[0], 128), "{\"a\":1", 6);
		ring_commit(f->rings[0], 128, 6, 0);
	}
	assert_int_equal(atomic_load(&f->notified[0]), 0);
	hold_syncs(&f->disk, false);
	WAIT_UNTIL(atomic_load(&f->notified[0]) > 0);
	assert_true(ring_claim(f->rings[0], 128));
	assert_int_equal(atomic_load(&f->notified[1]), 0);
}

static void
an_idle_journal_sleeps(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct rusage before, after;

	start(f, &opts);
	commit_and_wait(f, 0, "a");
	pause_ms(50);
	getrusage(RUSAGE_SELF, &before);
	pause_ms(300);
	getrusage(RUSAGE_SELF, &after);
	/* Our own pause is one; a poll every 20 ms would be 15. */
	assert_true(after.ru_nvcsw - before.ru_nvcsw < 8);
}

static void
stopping_makes_all_durable(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	opts.flush_interval_ms = 3600 * 1000;
	start(f, &opts);
	for (unsigned i = 0; i < 300; i++)
		commit(f, i % 2, "x", 0);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "\"id\":\"x\""), 300);
	close_all(f, true);
	open_all(f);
	assert_true(f->rec.clean);
	assert_int_equal(f->rec.from_rings, 0);
}

/* ---- a disk that fails ---- */

static void
one_failed_sync_is_noticed_by_nobody(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	uint64_t a, b;

	start(f, &opts);
	commit_and_wait(f, 0, "before");
	set_faults(&f->disk, 1, 0, 0);
	a = commit(f, 0, "after", RING_DURABLE);
	b = commit(f, 1, "after", 0);
	WAIT_UNTIL(ring_durable(f->rings[0]) == a && ring_durable(f->rings[1]) == b);
	assert_int_equal(ring_state(f->rings[0]), RING_OK);
	assert_int_equal(metrics_value(f->metrics, METRIC_TRAIL_FAILURES, METRIC_TRAIL_SYNC), 1);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "\"id\":\"after\""), 2);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_RECORDED, 0), 3);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_DURABLE, 0), 3);
}

static void
a_broken_disk_closes_the_rings_until_it_works_again(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	char why[ERR_MSG_MAX];
	uint64_t pos;

	start(f, &opts);
	set_faults(&f->disk, 1000000, 0, 0);
	pos = commit(f, 0, "held", RING_DURABLE);
	WAIT_UNTIL(ring_state(f->rings[0]) == RING_FAILED);
	WAIT_UNTIL(ring_state(f->rings[1]) == RING_FAILED);
	WAIT_UNTIL(atomic_load(&f->notified[0]) > 0 && atomic_load(&f->notified[1]) > 0);
	journal_health(f->j, why, sizeof(why));
	assert_non_null(strstr(why, "Input/output error"));
	assert_false(ring_claim(f->rings[0], 10));
	assert_true(ring_durable(f->rings[0]) < pos);
	set_faults(&f->disk, 0, 0, 0);
	WAIT_UNTIL(ring_state(f->rings[0]) == RING_OK);
	WAIT_UNTIL(ring_state(f->rings[1]) == RING_OK);
	assert_int_equal(ring_durable(f->rings[0]), pos);
	journal_health(f->j, why, sizeof(why));
	assert_string_equal(why, "");
	commit_and_wait(f, 1, "next");
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "\"id\":\"held\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"next\""), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_DURABLE, 0), 2);
}

static void
a_start_without_room_lets_the_first_ring_go_first(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	char why[ERR_MSG_MAX];

	set_faults(&f->disk, 0, 0, 1000000);
	start(f, &opts);
	WAIT_UNTIL(ring_state(f->rings[0]) == RING_NO_ROOM);
	journal_health(f->j, why, sizeof(why));
	assert_non_null(strstr(why, "No space left"));
	assert_int_equal(ring_state(f->rings[1]), RING_NO_ROOM);
	set_faults(&f->disk, 0, 0, 0);
	WAIT_UNTIL(ring_state(f->rings[0]) == RING_OK);
	usleep(150000); /* a look for room later */
	assert_int_equal(ring_state(f->rings[1]), RING_NO_ROOM);
	commit_and_wait(f, 0, "a");
	WAIT_UNTIL(ring_state(f->rings[1]) == RING_OK);
}

static void
what_waits_in_slots_for_room_is_synced(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	unsigned before;

	set_faults(&f->disk, 0, 0, 1000000);
	start(f, &opts);
	WAIT_UNTIL(ring_state(f->rings[0]) == RING_NO_ROOM);
	before = atomic_load(&page_syncs);
	WAIT_UNTIL(atomic_load(&page_syncs) > before + 2 * RINGS); /* header and slots of each */
	set_faults(&f->disk, 0, 0, 0);
}

/* What the ring says when its room was given back. */
struct told {
	struct ring *ring;
	_Atomic bool released, open;
};

static void
on_release(void *arg)
{
	struct told *told = arg;

	if (ring_durable(told->ring) == 0)
		return;
	if (ring_state(told->ring) == RING_OK)
		atomic_store(&told->open, true);
	atomic_store(&told->released, true);
}

static void
a_ring_is_closed_before_its_room_is_given_back(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct told told = { .ring = f->rings[0] };

	f->disk.limit = (off_t)RINGS * RING_SIZE * 3 / 2; /* as much as an empty trail reserves */
	f->j = journal_new(&opts, &f->err);
	assert_non_null(f->j);
	check(f, journal_add_ring(f->j, f->rings[0], on_release, &told, &f->err));
	check(f, journal_start(f->j, &f->err));
	commit(f, 0, "a", RING_DURABLE);
	WAIT_UNTIL(atomic_load(&told.released));
	assert_false(atomic_load(&told.open));
	stop(f);
}

static void
what_could_not_be_written_is_recovered_from_the_rings(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	start(f, &opts);
	commit_and_wait(f, 0, "durable");
	set_faults(&f->disk, 1000000, 1000000, 0);
	commit(f, 0, "held", 0);
	commit(f, 1, "held", 0);
	assert_int_equal(stop(f), -1);
	assert_non_null(strstr(f->err.msg, "left in the rings"));
	close_all(f, false);
	set_faults(&f->disk, 0, 0, 0);
	open_all(f);
	assert_int_equal(count_lines(f->dir, "\"id\":\"durable\""), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"held\""), 2);
}

/* ---- own events ---- */

static void
a_recovery_is_recorded(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct trail_recovery rec = { .torn_bytes = 17,
		.from_rings = 3,
		.corrupt_lines = 1,
		.corrupt_first = 5,
		.corrupt_last = 6,
		.missing_first = 8,
		.missing_last = 9 };

	strcpy(rec.previous_boot, "00112233445566778899aabbccddeeff");
	opts.recovery = &rec;
	start(f, &opts);
	WAIT_UNTIL(atomic_load(&f->durable) == 3);
	assert_int_equal(count_lines(f->dir, "\"keytrail.recover\""), 1);
	assert_int_equal(count_lines(f->dir, "\"tornBytes\":17"), 1);
	assert_int_equal(count_lines(f->dir, "\"keytrail.corrupt\""), 1);
	assert_int_equal(count_lines(f->dir, "\"first\":5,\"last\":6"), 1);
	assert_int_equal(count_lines(f->dir, "\"keytrail.tamper\""), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_ACCEPTED, 0), 3);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_DURABLE, 0), 3);
}

static void
a_clean_start_records_no_recovery(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct trail_recovery rec = { .clean = true };

	opts.recovery = &rec;
	start(f, &opts);
	commit_and_wait(f, 0, "a");
	assert_int_equal(count_lines(f->dir, "keytrail."), 0);
}

/* Its first start was not durable yet, so it is new still; but lines that it signed are gone. */
static void
what_is_torn_in_a_new_log_is_recorded(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct trail_recovery rec = { .new_log = true, .torn_first = 3, .torn_last = 10 };

	opts.recovery = &rec;
	start(f, &opts);
	WAIT_UNTIL(atomic_load(&f->durable) == 1);
	assert_int_equal(count_lines(f->dir, "\"keytrail.recover\""), 1);
	assert_int_equal(count_lines(f->dir, "\"tornFirst\":3,\"tornLast\":10"), 1);
}

static void
own_events_survive_a_failed_sync(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	set_faults(&f->disk, 1, 0, 0);
	start(f, &opts);
	journal_report_corrupt(f->j, 7, 9);
	journal_report_corrupt(f->j, 3, 4);
	WAIT_UNTIL(count_lines(f->dir, "\"keytrail.corrupt\"") == 2);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "\"first\":3,\"last\":4"), 1);
	assert_int_equal(count_lines(f->dir, "\"first\":7,\"last\":9"), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_ACCEPTED, 0),
	    metrics_value(f->metrics, METRIC_EVENTS_DURABLE, 0));
}

static void
damage_that_several_readers_meet_is_recorded_once(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	start(f, &opts);
	for (unsigned i = 0; i < 5; i++) {
		journal_report_corrupt(f->j, 7, 9);
		WAIT_UNTIL(count_lines(f->dir, "\"first\":7,\"last\":9") == 1);
	}
	journal_report_corrupt(f->j, 7, 8);
	journal_report_corrupt(f->j, 7, 10);
	WAIT_UNTIL(count_lines(f->dir, "\"first\":7,\"last\":10") == 1);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "keytrail.corrupt"), 2);
}

/* Nor by any run that comes later. */
static void
damage_that_was_recorded_is_not_by_the_next_run(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	start(f, &opts);
	journal_report_corrupt(f->j, 7, 9);
	WAIT_UNTIL(count_lines(f->dir, "\"first\":7,\"last\":9") == 1);
	assert_int_equal(stop(f), 0);
	close_all(f, true);
	open_all(f);
	opts = plain_opts(f);
	start(f, &opts);
	journal_report_corrupt(f->j, 8, 9);
	journal_report_corrupt(f->j, 11, 11);
	WAIT_UNTIL(count_lines(f->dir, "\"first\":11,\"last\":11") == 1);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "keytrail.corrupt"), 2);
}

/* But for those that are too many to wait. */
static void
each_damage_is_recorded_with_its_own_numbers(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	char text[64];

	f->j = journal_new(&opts, &f->err);
	assert_non_null(f->j);
	for (unsigned i = 1; i <= 70; i++)
		journal_report_corrupt(f->j, 10 * i, 10 * i + 1);
	check(f, journal_add_ring(f->j, f->rings[0], on_notify, &f->notified[0], &f->err));
	check(f, journal_start(f->j, &f->err));
	WAIT_UNTIL(count_lines(f->dir, "keytrail.corrupt") == 64);
	assert_int_equal(stop(f), 0);
	for (unsigned i = 1; i < 64; i++) {
		snprintf(text, sizeof(text), "\"first\":%u,\"last\":%u}", 10 * i, 10 * i + 1);
		assert_int_equal(count_lines(f->dir, text), 1);
	}
	assert_int_equal(count_lines(f->dir, "\"first\":640,\"last\":701}"), 1);
}

/* Long ago: the starts since have found nothing. */
static void
what_an_earlier_start_told_of_is_not_told_again(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts;

	trail_told(f->t, 3, 5);
	for (int i = 0; i < 2; i++) {
		trail_recovery_recorded(f->t, &f->err);
		close_all(f, true);
		open_all(f);
	}
	opts = plain_opts(f);
	start(f, &opts);
	journal_report_corrupt(f->j, 3, 5);
	journal_report_corrupt(f->j, 4, 4);
	journal_report_corrupt(f->j, 5, 6);
	WAIT_UNTIL(count_lines(f->dir, "keytrail.corrupt") > 0);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "keytrail.corrupt"), 1);
	assert_int_equal(count_lines(f->dir, "\"first\":5,\"last\":6"), 1);
}

/* Else a power cut would have it told once more. */
static void
that_all_is_told_is_said_again_where_the_page_was_not_synced(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	unsigned before = atomic_load(&page_syncs);

	atomic_store(&fail_page_syncs, 2);
	start(f, &opts);
	commit_and_wait(f, 0, "a");
	WAIT_UNTIL(atomic_load(&page_syncs) == before + 3);
	assert_int_equal(atomic_load(&fail_page_syncs), 0);
	assert_int_equal(stop(f), 0);
}

static void
expired_segments_are_recorded_and_go(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct trail_stats stats;

	start(f, &opts);
	for (unsigned i = 0; i < 400; i++) {
		uint64_t pos = commit(f, 0, "x", RING_DURABLE);

		WAIT_UNTIL(ring_durable(f->rings[0]) == pos);
	}
	trail_stats(f->t, &stats);
	assert_true(stats.segments > 4);
	atomic_store(&f->keep, 1);
	journal_set_retention(f->j, 400 * 86400, 40000);
	pause_ms(50);
	assert_int_equal(count_lines(f->dir, "\"id\":\"x\""), 400); /* not acknowledged */
	atomic_store(&f->keep, 401);
	journal_set_retention(f->j, 400 * 86400, 40000);
	WAIT_UNTIL((trail_stats(f->t, &stats), stats.bytes < 45000)); /* and what comes after */
	assert_int_equal(stop(f), 0);
	assert_true(count_lines(f->dir, "\"keytrail.expire\"") >= 1);
	assert_true(count_lines(f->dir, "\"id\":\"x\"") < 400);
}

static void
commit_durable(struct fixture *f, unsigned n)
{
	while (n-- > 0) {
		uint64_t pos = commit(f, 0, "x", RING_DURABLE);

		WAIT_UNTIL(ring_durable(f->rings[0]) == pos);
	}
}

/* Of 405 lines some are to go, as is recorded, and not signed. */
static void
make_expiry(struct fixture *f, struct journal_opts *opts)
{
	opts->covered = on_covered;
	start(f, opts);
	commit_durable(f, 400);
	atomic_store(&f->keep, 401);
	journal_set_retention(f->j, 400 * 86400, 40000);
	WAIT_UNTIL(count_lines(f->dir, "\"keytrail.expire\"") == 1);
	commit_durable(f, 5);
	assert_int_equal(count_lines(f->dir, "\"id\":\"x\""), 405);
}

static void
what_expires_goes_when_the_line_that_tells_is_signed(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct trail_stats stats;

	make_expiry(f, &opts);
	assert_int_equal(count_lines(f->dir, "\"keytrail.expire\""), 1);
	atomic_store(&f->covered, 1000);
	WAIT_UNTIL((trail_stats(f->t, &stats), stats.bytes < 45000));
	assert_int_equal(stop(f), 0);
}

static void
on_removed(void *arg)
{
	struct fixture *f = arg;

	atomic_store(&f->removed, true);
}

static void
hold_the_first(struct fixture *f)
{
	const struct trail_hold hold = { "case", 1, 2 };

	check(f, trail_hold_add(f->t, &hold, &f->err));
}

static void
keep_more(struct fixture *f)
{
	journal_set_retention(f->j, 400 * 86400, 0);
}

static void
stop_before_it_goes(struct fixture *f)
{
	check(f, stop(f));
}

/* Who would take it away later could say that it expired. */
static void
an_expiry_that_is_not_made_is_taken_back(void **state)
{
	static void (*const reasons[])(
	    struct fixture *) = { hold_the_first, keep_more, stop_before_it_goes };

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		struct fixture *f;
		struct journal_opts opts;
		uint64_t first, last;

		assert_int_equal(setup(state), 0);
		f = *state;
		opts = plain_opts(f);
		make_expiry(f, &opts);
		assert_true(trail_expiry_left(f->t, &first, &last));
		reasons[i](f);
		atomic_store(&f->covered, 1000);
		WAIT_UNTIL(count_lines(f->dir, "\"keytrail.keep\"") == 1);
		assert_int_equal(count_lines(f->dir, "\"id\":\"x\""), 405);
		if (reasons[i] != stop_before_it_goes)
			check(f, stop(f));
		assert_false(trail_expiry_left(f->t, &first, &last));
		assert_int_equal(count_lines(f->dir, "\"keytrail.keep\""), 1);
		assert_int_equal(count_lines(f->dir, "\"details\":{\"first\":1,"), 2);
		teardown(state);
	}
}

/* Nothing can be signed there before something goes. */
static void
on_a_full_disk_what_expires_goes_at_once(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	opts.removed = on_removed;
	make_expiry(f, &opts);
	set_faults(&f->disk, 0, 0, 1000000);
	while (ring_state(f->rings[0]) == RING_OK)
		commit_durable(f, 1);
	WAIT_UNTIL(faccessat(trail_dirfd(f->t), "00000000000000000001.jsonl", F_OK, 0) == -1);
	set_faults(&f->disk, 0, 0, 0);
	assert_int_equal(stop(f), 0);
}

/* Without its lines a start would record it again. */
static void
what_a_call_in_flight_needs_does_not_expire(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct trail_stats stats;
	unsigned slot;

	atomic_store(&f->keep, UINT64_MAX);
	start(f, &opts);
	slot = ring_slot_take(f->rings[1]);
	memcpy(ring_slot_line(f->rings[1], slot), "{}", 2);
	ring_slot_publish(f->rings[1], slot, 2);
	for (unsigned i = 0; i < 400; i++) {
		uint64_t pos = commit(f, 0, "x", RING_DURABLE);

		WAIT_UNTIL(ring_durable(f->rings[0]) == pos);
		if (i == 397) /* before the last is durable, it is looked at */
			journal_set_retention(f->j, 400 * 86400, 40000);
	}
	assert_int_equal(count_lines(f->dir, "\"id\":\"x\""), 400);
	ring_slot_close(f->rings[1], slot);
	journal_set_retention(f->j, 400 * 86400, 40000);
	WAIT_UNTIL((trail_stats(f->t, &stats), stats.bytes < 45000));
	assert_int_equal(stop(f), 0);
}

/* One that was found at the start, and the first that is signed. */
static void
checkpoints_that_come_at_once_are_all_recorded(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);

	f->j = journal_new(&opts, &f->err);
	assert_non_null(f->j);
	journal_report_checkpoint(f->j, 7, SLICE("one"));
	for (unsigned i = 0; i < 8; i++)
		journal_report_checkpoint(f->j, 8, SLICE("between"));
	journal_report_checkpoint(f->j, 9, SLICE("two"));
	check(f, journal_start(f->j, &f->err));
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "\"events\":7,\"note\":\"b25l\""), 1);
	assert_int_equal(count_lines(f->dir, "\"events\":8,"), 8);
	assert_int_equal(count_lines(f->dir, "\"events\":9,\"note\":\"dHdv\""), 1);
}

/* The trail's last line is two hours old: is it the sidecar that was down, or the clock that is
 * ahead? */
static void
a_clock_that_is_not_trusted_expires_nothing(void **state)
{
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	struct trail_stats stats;

	opts.retention_s = 0;
	opts.last_line_ns = clock_wall_ns() - 2 * 3600 * CLOCK_NS_PER_S;
	atomic_store(&f->keep, UINT64_MAX);
	start(f, &opts);
	for (unsigned i = 0; i < 400; i++) {
		uint64_t pos = commit(f, 0, "x", RING_DURABLE);

		WAIT_UNTIL(ring_durable(f->rings[0]) == pos);
	}
	assert_int_equal(count_lines(f->dir, "\"keytrail.expire\""), 0);
	/* Size does not ask the clock. */
	journal_set_retention(f->j, 0, 40000);
	WAIT_UNTIL((trail_stats(f->t, &stats), stats.bytes < 45000));
	assert_int_equal(stop(f), 0);
}

/* ---- a segment that goes, a line that cannot be written ---- */

static const char first_name[] = "00000000000000000001.jsonl";

static void
take_segment_away(struct fixture *f, const char *how)
{
	int dir = trail_dirfd(f->t), fd;

	if (strcmp(how, "deleted") == 0)
		assert_int_equal(unlinkat(dir, first_name, 0), 0);
	else
		assert_int_equal(renameat(dir, first_name, dir, "elsewhere"), 0);
	if (strcmp(how, "replaced") == 0) {
		fd = openat(dir, first_name, O_WRONLY | O_CREAT | O_EXCL, 0640);
		assert_int_equal(write(fd, "not ours\n", 9), 9);
		close(fd);
	}
}

static void
a_segment_that_goes_is_noticed_and_what_was_not_durable_written_again(void **state)
{
	static const char *const ways[] = { "deleted", "renamed", "replaced" };
	struct fixture *f;
	struct journal_opts opts;

	for (size_t i = 0; i < 2 * 3; i++) {
		bool durable = i >= 3; /* something was, before */

		teardown(state);
		setup(state);
		f = *state;
		opts = plain_opts(f);
		start(f, &opts);
		if (durable)
			commit_and_wait(f, 0, "before");
		take_segment_away(f, ways[i % 3]);
		commit_and_wait(f, 0, "after");
		WAIT_UNTIL(count_lines(f->dir, "keytrail.tamper") == 1);
		assert_int_equal(count_lines(f->dir, "\"id\":\"after\""), 1);
		assert_int_equal(
		    count_lines(f->dir, durable ? "\"first\":1,\"last\":1,\"segment\":1"
						: "\"first\":0,\"last\":0,\"segment\":1"),
		    1);
		commit_and_wait(f, 0, "later");
		assert_int_equal(stop(f), 0);
		assert_int_equal(count_lines(f->dir, "keytrail.tamper"), 1);
		assert_int_equal(
		    faccessat(trail_dirfd(f->t), "00000000000000000001.jsonl.replaced", F_OK, 0),
		    i % 3 == 2 ? 0 : -1);
		assert_int_equal(
		    faccessat(trail_dirfd(f->t), "00000000000000000002.jsonl", F_OK, 0),
		    durable ? 0 : -1);
	}
}

static void
a_line_that_is_too_long_is_counted_once_and_recorded(void **state)
{
	static const char start_of_line[] = "{\"action\":\"kms.secrets.wrap\",\"initiator\":{"
					    "\"id\":\"iam-7\",\"name\":\"n\"},\"z\":\"";
	struct fixture *f = *state;
	struct journal_opts opts = plain_opts(f);
	uint64_t pos;
	char *text;

	start(f, &opts);
	hold_syncs(&f->disk, true);
	set_faults(&f->disk, 1, 0, 0); /* and drained again, after a failure */
	assert_true(ring_claim(f->rings[0], TRAIL_LINE_MAX));
	text = ring_line(f->rings[0], TRAIL_LINE_MAX);
	memset(text, 'x', TRAIL_LINE_MAX);
	memcpy(text, start_of_line, strlen(start_of_line));
	text[TRAIL_LINE_MAX - 1] = '"';
	ring_commit(f->rings[0], TRAIL_LINE_MAX, TRAIL_LINE_MAX, 0);
	pos = commit(f, 0, "next", RING_DURABLE);
	wait_for_held_sync(&f->disk);
	hold_syncs(&f->disk, false);
	WAIT_UNTIL(ring_durable(f->rings[0]) == pos);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count_lines(f->dir, "\"action\":\"keytrail.loss\""), 1);
	assert_int_equal(
	    count_lines(f->dir, "\"details\":{\"actions\":\"kms.secrets.wrap 1\",\"count\":1,"), 1);
	assert_int_equal(count_lines(f->dir, "\"initiators\":\"iam-7\""), 1);
	assert_int_equal(count_lines(f->dir, "\"reason\":\"too_large\""), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_TOO_LARGE), 1);
	assert_int_equal(count_lines(f->dir, "\"id\":\"next\""), 1);
}

/* ---- killed at any instruction ---- */

#define ROUNDS	  200
#define PRODUCERS 2
#define LINES_MAX 4096

struct producer {
	struct fixture *f;
	unsigned number, round;
	int tell;
	pthread_t thread;
};

/* Commits lines as fast as the ring takes them and tells which ones it has committed. */
static void *
produce(void *arg)
{
	struct producer *p = arg;

	for (unsigned i = 0; i < LINES_MAX; i++) {
		struct ring *r = p->f->rings[p->number];
		unsigned told = p->number << 16 | i;
		char text[700];
		int n = snprintf(text, sizeof(text),
		    "{\"action\":\"test\",\"id\":\"%u-%u-%u\",\"pad\":\"%0*d\"", p->round,
		    p->number, i, 1 + (int)(i * 7 % 600), 0);

		while (!ring_claim(r, sizeof(text)))
			sched_yield();
		memcpy(ring_line(r, sizeof(text)), text, (size_t)n);
		ring_commit(r, sizeof(text), (size_t)n, i % 3 == 0 ? RING_DURABLE : 0);
		journal_kick(p->f->j);
		if (write(p->tell, &told, sizeof(told)) != sizeof(told))
			_exit(1);
	}
	return NULL;
}

static void
live_until_killed(struct fixture *f, unsigned round, int tell)
{
	struct producer producers[PRODUCERS];
	struct journal_opts opts;

	open_all(f);
	opts = plain_opts(f);
	opts.recovery = &f->rec;
	start(f, &opts);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		producers[i] =
		    (struct producer){ .f = f, .number = i, .round = round, .tell = tell };
		if (pthread_create(&producers[i].thread, NULL, produce, &producers[i]) != 0)
			_exit(1);
	}
	for (;;)
		pause();
}

/* Every line of this round that was committed is there, and none is there twice. */
static void
check_round(struct fixture *f, unsigned round, uint64_t from, const bool *told)
{
	static unsigned char seen[PRODUCERS][LINES_MAX];
	struct trail_reader *r;
	struct slice line;
	uint64_t seq, expect = from;
	int rc;

	memset(seen, 0, sizeof(seen));
	check(f, trail_reader_open(f->dir, from, &r, &f->err));
	while ((rc = trail_reader_next(r, &line, &seq, &f->err)) == 1) {
		struct slice id = trail_line_string(line, SLICE("id"));
		unsigned in, number, i;
		char text[64];

		assert_int_equal(seq, expect++);
		snprintf(text, sizeof(text), "%.*s", SLICE_ARG(id));
		if (sscanf(text, "%u-%u-%u", &in, &number, &i) != 3 || id.n > 20)
			continue; /* keytrail.recover */
		assert_true(in == round && number < PRODUCERS && i < LINES_MAX);
		assert_int_equal(seen[number][i]++, 0);
	}
	check(f, rc);
	assert_int_equal(trail_reader_corrupt(r), 0);
	trail_reader_close(r);
	for (unsigned n = 0; n < PRODUCERS; n++)
		for (unsigned i = 0; i < LINES_MAX; i++)
			if (told[n * LINES_MAX + i])
				assert_int_equal(seen[n][i], 1);
}

struct words {
	bool told[PRODUCERS * LINES_MAX];
	uint64_t n;
};

/* Read at most `max` words of what was committed. */
static void
read_words(struct words *w, int fd, uint64_t max)
{
	unsigned word;

	for (uint64_t i = 0; i < max && read(fd, &word, sizeof(word)) == sizeof(word); i++) {
		w->told[(word >> 16) * LINES_MAX + (word & 0xffff)] = true;
		w->n++;
	}
}

static void
kill_one_round(struct fixture *f, unsigned round, unsigned delay_us, uint64_t *total)
{
	static struct words words;
	uint64_t from = trail_durable_seq(f->t) + 1;
	int pipefd[2], status;
	pid_t pid;

	words = (struct words){ 0 };
	close_all(f, false);
	assert_int_equal(pipe(pipefd), 0);
	assert_true(fcntl(pipefd[1], F_SETPIPE_SZ, 1 << 20) > 0);
	if ((pid = fork()) == 0)
		live_until_killed(f, round, pipefd[1]);
	close(pipefd[1]);
	/* Every other round dies early, in the midst of recovery perhaps. */
	if (round % 2 == 0)
		read_words(&words, pipefd[0], 1);
	usleep(delay_us);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	read_words(&words, pipefd[0], UINT64_MAX);
	*total += words.n;
	close(pipefd[0]);
	open_all(f);
	assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last, 0);
	check_round(f, round, from, words.told);
}

static void
every_committed_line_is_there_once_however_the_process_is_killed(void **state)
{
	struct fixture *f = *state;
	uint32_t random = 2463534242;
	uint64_t total = 0;

	for (unsigned round = 0; round < ROUNDS; round++) {
		random = random * 1664525 + 1013904223;
		kill_one_round(f, round, (random >> 12) % (round % 2 == 0 ? 10000 : 25000), &total);
	}
	print_message("    %d kills, %" PRIu64 " committed lines\n", ROUNDS, total);
	assert_true(total > ROUNDS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_waiter_is_released_only_after_the_sync),
		TEST(all_that_wait_share_one_sync_and_one_notice_a_ring),
		TEST(a_lone_waiter_is_synced_at_once),
		TEST(syncs_are_spaced_under_load),
		TEST(who_is_expected_is_waited_for_and_nobody_else),
		TEST(async_lines_are_durable_after_the_flush_interval),
		TEST(async_lines_are_numbered_as_they_come),
		TEST(a_waiter_does_not_wait_for_the_flush_interval_of_others),
		TEST(who_found_the_ring_full_hears_of_room),
		TEST(an_idle_journal_sleeps),
		TEST(stopping_makes_all_durable),
		TEST(one_failed_sync_is_noticed_by_nobody),
		TEST(a_broken_disk_closes_the_rings_until_it_works_again),
		TEST(a_start_without_room_lets_the_first_ring_go_first),
		TEST(what_waits_in_slots_for_room_is_synced),
		TEST(a_ring_is_closed_before_its_room_is_given_back),
		TEST(what_could_not_be_written_is_recovered_from_the_rings),
		TEST(a_recovery_is_recorded),
		TEST(a_clean_start_records_no_recovery),
		TEST(what_is_torn_in_a_new_log_is_recorded),
		TEST(own_events_survive_a_failed_sync),
		TEST(damage_that_several_readers_meet_is_recorded_once),
		TEST(damage_that_was_recorded_is_not_by_the_next_run),
		TEST(each_damage_is_recorded_with_its_own_numbers),
		TEST(what_an_earlier_start_told_of_is_not_told_again),
		TEST(that_all_is_told_is_said_again_where_the_page_was_not_synced),
		TEST(expired_segments_are_recorded_and_go),
		TEST(what_expires_goes_when_the_line_that_tells_is_signed),
		cmocka_unit_test(an_expiry_that_is_not_made_is_taken_back),
		TEST(on_a_full_disk_what_expires_goes_at_once),
		TEST(what_a_call_in_flight_needs_does_not_expire),
		TEST(checkpoints_that_come_at_once_are_all_recorded),
		TEST(a_clock_that_is_not_trusted_expires_nothing),
		TEST(a_segment_that_goes_is_noticed_and_what_was_not_durable_written_again),
		TEST(a_line_that_is_too_long_is_counted_once_and_recorded),
		TEST(every_committed_line_is_there_once_however_the_process_is_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
