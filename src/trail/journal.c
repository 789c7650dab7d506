#include "keytrail/journal.h"

#include "journal_internal.h"
#include "keytrail/clock.h"
#include "keytrail/thread.h"

#include <assert.h>
#include <stdlib.h>

#define RETENTION_NS (60 * CLOCK_NS_PER_S)
#define SIGNED_NS    CLOCK_NS_PER_S
#define WATCH_NS     CLOCK_NS_PER_S

/* ---- draining ---- */

int
journal_append(struct journal *j, struct slice line)
{
	struct err err;
	uint64_t seq;

	if (trail_append(j->opts.trail, line, clock_wall_ns(), &seq, &err) == -1) {
		journal_fail(j, METRIC_TRAIL_WRITE, &err);
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

bool
journal_rings_hold_more(const struct journal *j)
{
	for (size_t i = 0; i < j->nmembers; i++)
		if (ring_has_more(j->members[i].ring, j->members[i].pos))
			return true;
	return false;
}

int
journal_drain(struct journal *j)
{
	if (j->unrecorded && journal_rings_hold_more(j))
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
		journal_fail(j, METRIC_TRAIL_OPEN, &err);
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

static void
apply_retention(struct journal *j, int64_t now)
{
	j->retention_ns = now + RETENTION_NS;
	journal_record_gaps(j);
	switch (j->failures > 0 ? -1 : journal_expire(j)) {
	case -1:
		j->retention_ns = now + JOURNAL_RETRY_NS;
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
		journal_settle(j);
	journal_record_harm(j);
	if (trail_check(j->opts.trail, &err) == -1)
		journal_fail(j, METRIC_TRAIL_OPEN, &err);
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
		    now >= journal_sync_due_ns(j) && journal_commit(j) == 0)
			journal_record_cuts(j); /* what it met: nobody may wake us for it */
	}
	if (j->failures == 0 && (j->state != RING_NO_ROOM || now >= j->room_ns))
		journal_check_room(j, now);
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
		if (j->give || !journal_rings_hold_more(j))
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
		journal_rest(j);
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
		journal_set_state(j, RING_NO_ROOM, err.msg);
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
	journal_set_state(j, RING_OK, "");
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
