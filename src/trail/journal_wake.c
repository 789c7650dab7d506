#include "journal_internal.h"
#include "keytrail/clock.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64 /* lines that are worth a look though nobody waits: they are in the cache */

/* When what is pending must be synced.  Spacing gathers those who come by themselves.  Once as many
 * wait as can be expected, waiting on would gather nobody: callers who wait for their answers send
 * nothing meanwhile.  So a lone one never waits, and many share each sync without losing time. */
int64_t
journal_sync_due_ns(const struct journal *j)
{
	if (j->waiting == 0)
		return j->pending_since_ns + j->opts.flush_interval_ms * CLOCK_NS_PER_MS;
	if (j->waiting >= j->expected)
		return 0;
	return j->last_sync_ns + j->spacing_ns;
}

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
	       (atomic_load(&j->reported) && !j->unrecorded) || journal_rings_hold_more(j);
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

void
journal_rest(struct journal *j)
{
	int64_t when = earlier(j->retention_ns, j->watch_ns);

	if (j->state == RING_NO_ROOM)
		when = earlier(when, j->room_ns);
	if (j->failures > 0)
		sleep_until(j->retry_ns);
	else if (j->waiting > 0)
		sleep_until_kicked(j, GATHERING, journal_sync_due_ns(j));
	else if (j->pending > 0)
		sleep_until_kicked(j, DOZING, earlier(when, journal_sync_due_ns(j)));
	else
		sleep_until_kicked(j, ASLEEP, when);
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
