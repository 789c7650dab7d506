#include "journal_internal.h"
#include "keytrail/clock.h"
#include "keytrail/fault.h"

#include <time.h>

#define CPU_PERCENT 6 /* of the time between two syncs that a sync may cost */

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

void
journal_set_state(struct journal *j, enum ring_state state, const char *why)
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

void
journal_fail(struct journal *j, enum metric_trail_op op, const struct err *err)
{
	metrics_add(j->opts.metrics, METRIC_TRAIL_FAILURES, op, 1);
	log_error(j->opts.log, "trail_failed", "%s", err->msg);
	j->failures++;
	/* The first time a new segment is tried at once, and nobody need notice. */
	j->retry_ns = clock_mono_ns() + (j->failures > 1 ? JOURNAL_RETRY_NS : 0);
	if (j->failures > 1)
		journal_set_state(j, RING_FAILED, err->msg);
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

void
journal_check_room(struct journal *j, int64_t now)
{
	struct err err;

	if (j->failures > 0)
		return;
	if (trail_reserve(j->opts.trail, &err) == 0) {
		if (j->state != RING_OK)
			journal_set_state(j, RING_OK, "");
		return;
	}
	journal_set_state(j, RING_NO_ROOM, err.msg);
	j->room_ns = now + JOURNAL_RETRY_NS;
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

/* While the page cannot say so, a start after a power cut would tell of it again. */
void
journal_settle(struct journal *j)
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
		journal_fail(j, METRIC_TRAIL_WRITE, &err);
		return -1;
	}
	count_recorded(j);
	written = clock_mono_ns();
	cpu = thread_cpu_ns();
	if (trail_sync(j->opts.trail, &err) == -1) {
		journal_fail(j, METRIC_TRAIL_SYNC, &err);
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
		journal_settle(j);
		hand_down(j);
	}
	journal_check_room(j, clock_mono_ns());
	FAULT_POINT("journal.before_release");
	release(j);
	return 0;
}
