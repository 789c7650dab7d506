/*
 * From one process to the next: the old one ends its thread and relays what the new one does with its
 * rings; the new one drains them as if they were its own, until the old one has ended.
 *
 * Neither can wake the other: both look every millisecond, as long as the old one drains.
 */
#include "journal_internal.h"
#include "keytrail/fault.h"
#include "keytrail/thread.h"

#include <assert.h>
#include <inttypes.h>
#include <time.h>

/* ---- the old process ---- */

static void
relay_to(struct member *m)
{
	uint64_t durable = ring_durable(m->ring);
	enum ring_state state = ring_state(m->ring);

	if (durable == m->seen && state == m->seen_state)
		return;
	m->seen = durable;
	m->seen_state = state;
	journal_tell(m);
}

static void *
relay(void *arg)
{
	const struct timespec pause = { 0, JOURNAL_LOOK_NS };
	struct journal *j = arg;

	while (!atomic_load(&j->relay_stop)) {
		for (size_t i = 0; i < j->nmembers; i++)
			relay_to(&j->members[i]);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

void
journal_end_relay(struct journal *j)
{
	if (!j->relaying)
		return;
	atomic_store(&j->relay_stop, true);
	pthread_join(j->relay, NULL);
	atomic_store(&j->relay_stop, false);
	j->relaying = false;
}

/* The relay first: from when the thread has ended, nobody else tells the producers of anything. */
int
journal_give(struct journal *j, struct err *err)
{
	struct err again;
	int rc;

	assert(j->running && j->nadopted == 0);
	if (thread_start(&j->relay, "journal relay", relay, j, err) == -1)
		return -1;
	j->give = true;
	rc = journal_end_thread(j, err);
	j->relaying = true;
	j->give = false;
	if (rc == 0)
		return 0;
	journal_end_relay(j);
	if (journal_start(j, &again) == -1)
		err_set(err, "%s", again.msg);
	return -1;
}

/* ---- the new process ---- */

int
journal_adopt_ring(struct journal *j, struct ring *r, struct err *err)
{
	if (journal_add_ring(j, r, NULL, NULL, err) == -1)
		return -1;
	j->members[j->nmembers - 1].adopted = true;
	metrics_set(j->opts.metrics, METRIC_ADOPTED_RINGS, 0, ++j->nadopted);
	return 0;
}

unsigned
journal_adopted(const struct journal *j)
{
	return atomic_load(&j->nadopted);
}

void
journal_orphan(struct journal *j)
{
	atomic_store(&j->orphaned, true);
	journal_wake(j);
}

struct left {
	struct journal *j;
	uint64_t calls;
};

static int
append_left(void *arg, struct slice line, struct err *err)
{
	struct left *left = arg;

	if (journal_append(left->j, line) == -1)
		return err_set(err, "the trail cannot be written");
	metrics_add(left->j->opts.metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	left->calls++;
	return 0;
}

static int
commit_all(struct journal *j)
{
	return j->failures > 0 || (j->pending > 0 && journal_commit(j) == -1) ? -1 : 0;
}

/* Where the trail cannot be written it is done again; what cannot be read stays for the next start. */
static int
record_left(struct journal *j)
{
	struct left left = { j, 0 };
	struct err err;

	if (trail_find_left(j->opts.trail, j->nadopted, append_left, &left, &err) == -1) {
		if (j->failures == 0) {
			log_error(
			    j->opts.log, "rings_left", "the next start reads them: %s", err.msg);
			atomic_store(&j->orphaned, false);
		}
		return -1;
	}
	if (left.calls > 0)
		journal_record_left(j, left.calls);
	if (commit_all(j) == -1)
		return -1;
	log_info(j->opts.log, "predecessor_ended", "%" PRIu64 " calls were in flight", left.calls);
	return 0;
}

static void
drop_adopted(struct journal *j)
{
	struct err err;

	while (j->nmembers > 0 && j->members[j->nmembers - 1].adopted) {
		struct ring *r = j->members[--j->nmembers].ring;

		trail_need_less(j->opts.trail, ring_size(r));
		if (ring_remove(r, trail_dirfd(j->opts.trail), &err) == -1) {
			log_error(j->opts.log, "rings_left", "%s", err.msg);
			ring_close(r);
		}
	}
	j->nadopted = 0;
	metrics_set(j->opts.metrics, METRIC_ADOPTED_RINGS, 0, 0);
}

/* Its files go when all that they hold is durable: who is killed before that recovers them. */
void
journal_end_adoption(struct journal *j)
{
	FAULT_POINT("takeover.ended");
	if (journal_drain(j) == -1 || commit_all(j) == -1 || record_left(j) == -1)
		return;
	FAULT_POINT("takeover.finished");
	drop_adopted(j);
	atomic_store(&j->orphaned, false);
}
