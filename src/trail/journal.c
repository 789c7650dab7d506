#include "keytrail/journal.h"

#include "journal_internal.h"
#include "keytrail/clock.h"
#include "keytrail/fault.h"
#include "keytrail/thread.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RETRY_NS     (100 * CLOCK_NS_PER_MS) /* while the trail cannot be written */
#define RETENTION_NS (60 * CLOCK_NS_PER_S)
#define SIGNED_NS    CLOCK_NS_PER_S
#define WATCH_NS     CLOCK_NS_PER_S
#define CPU_PERCENT  6	/* of the time between two syncs that a sync may cost */
#define BATCH	     64 /* lines that are worth a look though nobody waits: they are in the cache */

/* ---- the commit ---- */

static int64_t
thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec;
}

void
journal_tell(const struct member *m)
{
	if (m->notify != NULL)
		m->notify(m->arg);
}

static void
set_health(struct journal *j, const char *text)
{
	pthread_mutex_lock(&j->lock);
	snprintf(j->health, sizeof(j->health), "%s", text);
	pthread_mutex_unlock(&j->lock);
}

/* Producers see the state in their rings; those that wait for room or for an answer are woken.  After
 * a start without room the first ring has it first: its start stands before all else in the trail. */
static void
hand_down(struct journal *j)
{
	bool first_only = j->state == RING_OK && (j->unrecorded || j->untold);

	for (size_t i = 0; i < (first_only ? 1 : j->nmembers); i++) {
		struct member *m = &j->members[i];

		if (ring_state(m->ring) == j->state)
			continue;
		ring_set_state(m->ring, j->state);
		if (j->running)
			journal_tell(m);
	}
}

static void
set_state(struct journal *j, enum ring_state state, const char *why)
{
	set_health(j, why);
	if (state == j->state)
		return;
	if (state == RING_OK)
		log_info(j->opts.log, "trail_writable", "the trail can be written again");
	else
		log_error(j->opts.log, "trail_not_writable", "%s", why);
	j->state = state;
	hand_down(j);
}

/* Nothing since the last good sync counts; it is all still in the rings, or in j->own. */
static void
fail(struct journal *j, enum metric_trail_op op, const struct err *err)
{
	metrics_add(j->opts.metrics, METRIC_TRAIL_FAILURES, op, 1);
	log_error(j->opts.log, "trail_failed", "%s", err->msg);
	j->failures++;
	/* The first time a new segment is tried at once, and nobody need notice. */
	j->retry_ns = clock_mono_ns() + (j->failures > 1 ? RETRY_NS : 0);
	if (j->failures > 1)
		set_state(j, RING_FAILED, err->msg);
}

/* So many syncs that they take CPU_PERCENT of a processor, by what the last ones cost. */
static void
adapt_spacing(struct journal *j, int64_t cost_ns)
{
	int64_t min = j->opts.spacing_min_us * CLOCK_NS_PER_US;
	int64_t max = j->opts.spacing_max_us * CLOCK_NS_PER_US;
	int64_t want;

	j->sync_cost_ns += (cost_ns - j->sync_cost_ns) / 8;
	want = j->sync_cost_ns * 100 / CPU_PERCENT;
	j->spacing_ns = want < min ? min : want > max ? max : want;
}

/* Asked before the rings' room is given back: what is then claimed there has room on the disk. */
static void
check_room(struct journal *j, int64_t now)
{
	struct err err;

	if (j->failures > 0)
		return;
	if (trail_reserve(j->opts.trail, &err) == 0) {
		if (j->state != RING_OK)
			set_state(j, RING_OK, "");
		return;
	}
	set_state(j, RING_NO_ROOM, err.msg);
	j->room_ns = now + RETRY_NS;
}

static void
release(struct journal *j)
{
	uint64_t segment, offset;

	trail_durable_mark(j->opts.trail, &segment, &offset);
	for (size_t i = 0; i < j->nmembers; i++)
		ring_release(j->members[i].ring, j->members[i].pos, segment, offset);
	FAULT_POINT("journal.after_release");
	for (size_t i = 0; i < j->nmembers; i++) {
		struct member *m = &j->members[i];

		bool starved = ring_was_starved(m->ring);

		if (m->waits || starved)
			journal_tell(m);
		m->waits = false;
		m->taken_durable = m->taken;
	}
	if (segment != j->segment)
		j->retention_ns = 0; /* a segment was sealed: max_size may be passed */
	j->segment = segment;
	if (j->opts.durable != NULL)
		j->opts.durable(j->opts.durable_arg, trail_durable_seq(j->opts.trail));
}

static void
count_recorded(struct journal *j)
{
	if (j->pending > j->recorded) {
		metrics_add(j->opts.metrics, METRIC_EVENTS_RECORDED, 0,
		    (int64_t)(j->pending - j->recorded));
		j->recorded = j->pending;
	}
}

static uint64_t
waiting_in_rings(const struct journal *j)
{
	uint64_t n = 0;

	for (size_t i = 0; i < j->nmembers; i++)
		n += ring_count(j->members[i].ring, j->members[i].pos, RING_DURABLE);
	return n;
}

/* What was found is told of.  While the page cannot say so, a start after a power cut would tell of it
 * again. */
static void
settle(struct journal *j)
{
	struct err err;

	j->unsettled = trail_recovery_recorded(j->opts.trail, &err) == -1;
	if (j->unsettled)
		log_error(j->opts.log, "state_not_synced", "%s", err.msg);
}

int
journal_commit(struct journal *j)
{
	struct err err;
	int64_t start = clock_mono_ns(), written, cpu;

	if (trail_write(j->opts.trail, &err) == -1) {
		fail(j, METRIC_TRAIL_WRITE, &err);
		return -1;
	}
	count_recorded(j);
	written = clock_mono_ns();
	cpu = thread_cpu_ns();
	if (trail_sync(j->opts.trail, &err) == -1) {
		fail(j, METRIC_TRAIL_SYNC, &err);
		return -1;
	}
	if (trail_could_not_roll(j->opts.trail, &err)) {
		metrics_add(j->opts.metrics, METRIC_TRAIL_FAILURES, METRIC_TRAIL_OPEN, 1);
		log_error(j->opts.log, "segment_grows_on", "%s", err.msg);
	}
	adapt_spacing(j, thread_cpu_ns() - cpu);
	metrics_observe(j->opts.metrics, METRIC_FSYNC_SECONDS,
	    (double)(clock_mono_ns() - written) / (double)CLOCK_NS_PER_S);
	metrics_observe(j->opts.metrics, METRIC_COMMIT_EVENTS, (double)j->pending);
	metrics_add(j->opts.metrics, METRIC_EVENTS_DURABLE, 0, (int64_t)j->pending);
	j->last_sync_ns = start;
	j->expected = j->waiting + waiting_in_rings(j);
	j->pending = j->recorded = j->waiting = 0;
	j->failures = 0;
	buf_consume(&j->own, buf_size(&j->own));
	atomic_store(&j->reports_durable, j->reports_recorded);
	if (j->untold) {
		j->untold = false;
		settle(j);
		hand_down(j);
	}
	check_room(j, clock_mono_ns());
	FAULT_POINT("journal.before_release");
	release(j);
	return 0;
}

/* ---- draining ---- */

int
journal_append(struct journal *j, struct slice line)
{
	struct err err;
	uint64_t seq;

	if (trail_append(j->opts.trail, line, clock_wall_ns(), &seq, &err) == -1) {
		fail(j, METRIC_TRAIL_WRITE, &err);
		return -1;
	}
	if (j->pending++ == 0)
		j->pending_since_ns = clock_mono_ns();
	return 0;
}

static int
lose(struct journal *j, struct member *m, uint64_t pos, struct slice line)
{
	if (pos <= m->lost)
		return 0;
	m->lost = pos;
	log_error(j->opts.log, "event_too_large", "an event of %zu bytes was not recorded", line.n);
	return journal_record_loss(j, METRIC_LOSS_TOO_LARGE, 1, line);
}

/* Committed, and not there when their turn came: somebody has cut the ring's file. */
static int
lose_vanished(struct journal *j, struct member *m, uint64_t n)
{
	m->vanished += n;
	m->waits = true;
	log_error(
	    j->opts.log, "ring_cut", "%llu events were gone from a ring", (unsigned long long)n);
	return journal_record_loss(j, METRIC_LOSS_RING_CUT, n, SLICE_EMPTY);
}

static int
drain_ring(struct journal *j, struct member *m)
{
	uint64_t pos = m->pos;
	uint64_t committed = ring_committed(m->ring); /* before they are looked for */
	struct slice line;
	unsigned flags;

	while (ring_next(m->ring, &pos, &line, &flags)) {
		bool fits = line.n >= 2 && line.n + TRAIL_MEMBER_MAX <= TRAIL_LINE_MAX;

		if ((fits ? journal_append(j, line) : lose(j, m, pos, line)) == -1)
			return -1;
		m->pos = pos;
		m->taken++;
		if (m->adopted)
			metrics_add(j->opts.metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
		if (flags & RING_DURABLE) {
			m->waits = true;
			j->waiting++;
		}
	}
	m->pos = pos;
	if (m->taken + m->vanished >= committed)
		return 0;
	return lose_vanished(j, m, committed - m->taken - m->vanished);
}

static bool
rings_hold_more(const struct journal *j)
{
	for (size_t i = 0; i < j->nmembers; i++)
		if (ring_has_more(j->members[i].ring, j->members[i].pos))
			return true;
	return false;
}

int
journal_drain(struct journal *j)
{
	if (j->unrecorded && rings_hold_more(j))
		journal_record_recovery(j);
	for (size_t i = 0; i < j->nmembers; i++)
		if (drain_ring(j, &j->members[i]) == -1)
			return -1;
	return 0;
}

/* After a failure: a new segment, and all that is not durable once more. */
static int
repair(struct journal *j)
{
	struct err err;

	if (trail_reopen(j->opts.trail, &err) == -1) {
		fail(j, METRIC_TRAIL_OPEN, &err);
		return -1;
	}
	j->pending = j->waiting = 0;
	for (size_t i = 0; i < j->nmembers; i++) {
		j->members[i].pos = ring_tail(j->members[i].ring);
		j->members[i].waits = false;
		j->members[i].taken = j->members[i].taken_durable;
	}
	if (journal_append_own(j) == -1)
		return -1;
	journal_record_tampering(j);
	if (journal_drain(j) == -1 || journal_commit(j) == -1)
		return -1;
	j->failures = 0;
	return 0;
}

/* ---- what is due ---- */

/* When what is pending must be synced.  Spacing gathers those who come by themselves.  Once as many
 * wait as can be expected, waiting on would gather nobody: callers who wait for their answers send
 * nothing meanwhile.  So a lone one never waits, and many share each sync without losing time. */
static int64_t
sync_due_ns(const struct journal *j)
{
	if (j->waiting == 0)
		return j->pending_since_ns + j->opts.flush_interval_ms * CLOCK_NS_PER_MS;
	if (j->waiting >= j->expected)
		return 0;
	return j->last_sync_ns + j->spacing_ns;
}

static void
apply_retention(struct journal *j, int64_t now)
{
	j->retention_ns = now + RETENTION_NS;
	journal_record_gaps(j);
	switch (j->failures > 0 ? -1 : journal_expire(j)) {
	case -1:
		j->retention_ns = now + RETRY_NS;
		break;
	case 1:
		j->retention_ns = now + SIGNED_NS;
		break;
	}
}

/* What is counted as lost stands in slots until there is room for the event. */
static void
sync_rings(struct journal *j)
{
	struct err err;

	for (size_t i = 0; i < j->nmembers; i++)
		if (ring_settle(j->members[i].ring, &err) == -1)
			log_error(j->opts.log, "ring_not_synced", "%s", err.msg);
}

/* What is to be told is durable first: a page made anew says that it was told. */
static void
watch(struct journal *j, int64_t now)
{
	struct err err;

	if (now < j->watch_ns)
		return;
	j->watch_ns = now + WATCH_NS;
	if (j->state == RING_NO_ROOM)
		sync_rings(j);
	if (j->untold)
		return;
	if (j->unsettled)
		settle(j);
	journal_record_harm(j);
	if (trail_check(j->opts.trail, &err) == -1)
		fail(j, METRIC_TRAIL_OPEN, &err);
}

/* Everything that is due now. */
static void
work(struct journal *j)
{
	int64_t now = clock_mono_ns();

	if (j->failures > 0) {
		if (now >= j->retry_ns && repair(j) == -1)
			return;
	} else {
		journal_record_reports(j);
		if (j->failures == 0 && journal_drain(j) == 0 && j->pending > 0 &&
		    now >= sync_due_ns(j) && journal_commit(j) == 0)
			journal_record_cuts(j); /* what it met: nobody may wake us for it */
	}
	if (j->failures == 0 && (j->state != RING_NO_ROOM || now >= j->room_ns))
		check_room(j, now);
	if (j->failures > 0)
		return;
	if (atomic_exchange(&j->retention_changed, false) || now >= j->retention_ns ||
	    (!j->expiry_failed && journal_may_remove(j)))
		apply_retention(j, now);
	if (j->failures == 0 && atomic_load(&j->orphaned))
		journal_end_adoption(j);
	if (j->failures > 0)
		return;
	journal_record_cuts(j); /* met by now, if it stood in the way */
	watch(j, now);
}

/* ---- sleeping ---- */

static void
sleep_until(int64_t when)
{
	struct timespec ts = { .tv_sec = when / CLOCK_NS_PER_S, .tv_nsec = when % CLOCK_NS_PER_S };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static long
futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static bool
called(struct journal *j)
{
	return atomic_load(&j->stop) || atomic_load(&j->retention_changed) ||
	       (atomic_load(&j->reported) && !j->unrecorded) || rings_hold_more(j);
}

static int64_t
earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Until a kick, at most until `when`.  The order matters: say that we sleep, then look once more;
 * producers commit, then look whether we sleep. */
static void
sleep_until_kicked(struct journal *j, enum sleep how, int64_t when)
{
	int64_t left = when - clock_mono_ns();
	struct timespec ts;

	if (left <= 0)
		return;
	if (j->nadopted > 0)
		left = earlier(left, JOURNAL_LOOK_NS);
	ts = (struct timespec){ left / CLOCK_NS_PER_S, left % CLOCK_NS_PER_S };
	atomic_store(&j->awaited, how == GATHERING ? (int64_t)(j->expected - j->waiting) : BATCH);
	atomic_store(&j->sleeping, how);
	if (!called(j))
		futex(&j->sleeping, FUTEX_WAIT_PRIVATE, how, &ts);
	atomic_store(&j->sleeping, AWAKE);
}

static void
rest(struct journal *j)
{
	int64_t when = earlier(j->retention_ns, j->watch_ns);

	if (j->state == RING_NO_ROOM)
		when = earlier(when, j->room_ns);
	if (j->failures > 0)
		sleep_until(j->retry_ns);
	else if (j->waiting > 0)
		sleep_until_kicked(j, GATHERING, sync_due_ns(j));
	else if (j->pending > 0)
		sleep_until_kicked(j, DOZING, earlier(when, sync_due_ns(j)));
	else
		sleep_until_kicked(j, ASLEEP, when);
}

/* At the end nothing is spaced; a trail that fails is tried once more.  What comes meanwhile is the next
 * process's, where there is one. */
static int
finish(struct journal *j)
{
	for (int tries = 0; tries < 3; tries++) {
		if (j->failures > 0
			? repair(j) == -1
			: (journal_drain(j) == -1 || (j->pending > 0 && journal_commit(j) == -1)))
			continue;
		if (j->give || !rings_hold_more(j))
			return 0;
	}
	return -1;
}

static void *
run(void *arg)
{
	struct journal *j = arg;

	if (j->unrecorded && j->state != RING_NO_ROOM)
		journal_record_recovery(j);
	while (!atomic_load(&j->stop)) {
		work(j);
		rest(j);
	}
	if (j->failures == 0)
		journal_record_reports(j);
	if (j->failures == 0)
		journal_retract(j);
	j->result = finish(j);
	return NULL;
}

/* ---- the callers' side ---- */

/* Of a trail that was just opened. */
static void
begin(struct journal *j, const struct journal_opts *opts)
{
	struct err err;

	j->opts = *opts;
	j->unrecorded = true;
	if (opts->recovery != NULL)
		j->recovery = *opts->recovery;
	j->opts.recovery = opts->recovery != NULL ? &j->recovery : NULL;
	j->nknown = trail_told_ranges(opts->trail, j->known);
	j->spacing_ns = opts->spacing_min_us * CLOCK_NS_PER_US;
	if (opts->last_line_ns > 0 && clock_wall_ns() - opts->last_line_ns > JOURNAL_TRUST_NS)
		j->trusted_ns = clock_boot_ns() + JOURNAL_TRUST_NS;
	if (opts->last_line_ns > clock_wall_ns()) /* it was put back meanwhile */
		j->clock = (struct clock_watch){ opts->last_line_ns, clock_boot_ns() };
	atomic_store(&j->retention_s, opts->retention_s);
	atomic_store(&j->max_size, opts->max_size);
	if (trail_reserve(j->opts.trail, &err) == -1)
		set_state(j, RING_NO_ROOM, err.msg);
}

struct journal *
journal_new(const struct journal_opts *opts, struct err *err)
{
	struct journal *j;

	assert(opts->trail != NULL && opts->spacing_min_us <= opts->spacing_max_us);
	if ((j = calloc(1, sizeof(*j))) == NULL) {
		err_set_errno(err, "journal");
		return NULL;
	}
	pthread_mutex_init(&j->lock, NULL);
	begin(j, opts);
	return j;
}

static void
join(struct journal *j, struct ring *r, journal_notify_fn notify, void *arg, struct member *m)
{
	uint64_t segment, offset;

	*m = (struct member){ .ring = r,
		.notify = notify,
		.arg = arg,
		.pos = ring_tail(r),
		.taken = ring_committed(r),
		.taken_durable = ring_committed(r) };
	ring_set_state(r, j->state);
	/* Recovery need not look for this ring's lines before here. */
	trail_durable_mark(j->opts.trail, &segment, &offset);
	ring_release(r, ring_tail(r), segment, offset);
}

int
journal_add_ring(
    struct journal *j, struct ring *r, journal_notify_fn notify, void *arg, struct err *err)
{
	struct member *more;

	assert(!j->running);
	if ((more = realloc(j->members, (j->nmembers + 1) * sizeof(*more))) == NULL)
		return err_set_errno(err, "journal");
	j->members = more;
	join(j, r, notify, arg, &j->members[j->nmembers++]);
	return 0;
}

/* Another journal has made these durable; they were made here. */
static void
count_others(struct journal *j, const struct member *m)
{
	uint64_t made = ring_committed(m->ring), left = ring_count(m->ring, ring_tail(m->ring), 0);
	int64_t others = (int64_t)(made - left - m->taken_durable - m->vanished);

	if (others <= 0)
		return;
	metrics_add(j->opts.metrics, METRIC_EVENTS_RECORDED, 0, others);
	metrics_add(j->opts.metrics, METRIC_EVENTS_DURABLE, 0, others);
}

/* What was in j->own are lines of the trail that was closed. */
void
journal_resume(struct journal *j, const struct journal_opts *opts)
{
	struct journal_opts next = *opts;

	assert(!j->running && !j->relaying && j->nadopted == 0);
	next.metrics = j->opts.metrics;
	buf_consume(&j->own, buf_size(&j->own));
	set_state(j, RING_OK, "");
	j->untold = j->unsettled = j->expiry_failed = false;
	j->failures = 0;
	j->pending = j->recorded = j->waiting = j->expected = 0;
	j->segment = j->expiry = j->expiry_last = 0;
	begin(j, &next);
	for (size_t i = 0; i < j->nmembers; i++) {
		struct member *m = &j->members[i];

		count_others(j, m);
		join(j, m->ring, m->notify, m->arg, m);
		journal_tell(m);
	}
}

int
journal_start(struct journal *j, struct err *err)
{
	if (trail_cannot_reserve(j->opts.trail))
		log_warn(j->opts.log, "trail_cannot_reserve",
		    "the trail's file system cannot reserve room: free space is watched instead");
	j->running = true;
	if (thread_start(&j->thread, "journal", run, j, err) == -1) {
		j->running = false;
		return -1;
	}
	return 0;
}

void
journal_wake(struct journal *j)
{
	if (atomic_exchange(&j->sleeping, AWAKE) != AWAKE)
		futex(&j->sleeping, FUTEX_WAKE_PRIVATE, 1, NULL);
}

/* The count decides only when to look: who was seen in the ring before he came here wakes too early. */
static bool
completes_what_is_awaited(struct journal *j)
{
	return atomic_fetch_sub(&j->awaited, 1) <= 1;
}

void
journal_kick(struct journal *j)
{
	uint32_t how = atomic_load(&j->sleeping);

	if (how != AWAKE && (how != GATHERING || completes_what_is_awaited(j)))
		journal_wake(j);
}

void
journal_kick_async(struct journal *j)
{
	uint32_t how = atomic_load(&j->sleeping);

	if (how == ASLEEP || (how == DOZING && completes_what_is_awaited(j)))
		journal_wake(j);
}

int
journal_end_thread(struct journal *j, struct err *err)
{
	char why[sizeof(j->health)];

	atomic_store(&j->stop, true);
	journal_wake(j);
	pthread_join(j->thread, NULL);
	atomic_store(&j->stop, false);
	j->running = false;
	if (j->result == 0)
		return 0;
	journal_health(j, why, sizeof(why));
	return err_set(err, "events are left in the rings: %s", why);
}

int
journal_stop(struct journal *j, struct err *err)
{
	journal_end_relay(j);
	return j->running ? journal_end_thread(j, err) : 0;
}

void
journal_free(struct journal *j)
{
	if (j == NULL)
		return;
	assert(!j->running && !j->relaying);
	for (size_t i = 0; i < j->nmembers; i++)
		if (j->members[i].adopted)
			ring_close(j->members[i].ring);
	buf_fini(&j->own);
	free(j->notes);
	free(j->rejects);
	free(j->members);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

void
journal_health(const struct journal *j, char *out, size_t n)
{
	struct journal *own = (struct journal *)(uintptr_t)j; /* the lock alone is changed */

	pthread_mutex_lock(&own->lock);
	snprintf(out, n, "%s", j->health);
	pthread_mutex_unlock(&own->lock);
}

void
journal_set_retention(struct journal *j, uint64_t retention_s, uint64_t max_size)
{
	atomic_store_explicit(&j->retention_s, retention_s, memory_order_relaxed);
	atomic_store_explicit(&j->max_size, max_size, memory_order_relaxed);
	atomic_store(&j->retention_changed, true);
	journal_wake(j);
}
