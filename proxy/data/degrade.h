/*
 * degrade: break-glass.  For a bounded time, routes whose guarantee is `durable` or `intent` are
 * served as `async`: also while the trail takes no event, which is then counted as lost.
 *
 * One at a time: it ends by itself or is ended, it is not renewed, and a restart forgets it.  Main
 * begins and ends it; workers only ask whether it covers a call, without a lock.
 */
#ifndef KEYTRAIL_PROXY_DEGRADE_H
#define KEYTRAIL_PROXY_DEGRADE_H

#include "keytrail/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define DEGRADE_REASON_MAX 256 /* bytes */

struct degrade {
	_Atomic int64_t until_ns; /* monotonic; 0: not degraded */
	char reason[DEGRADE_REASON_MAX + 1];
};

/* Did a call that came at this time (monotonic) come while degraded?  Any thread. */
static inline bool
degrade_covers(const struct degrade *d, int64_t mono_ns)
{
	return mono_ns < atomic_load_explicit(&d->until_ns, memory_order_relaxed);
}

/* ---- main thread ---- */

/* May it begin now, for so many seconds, at most max_s?  The reason is printable ASCII and not blank.
 * -1: it is not allowed, and why. */
int degrade_check(const struct degrade *d, uint64_t seconds, uint64_t max_s, const char *reason,
    int64_t mono_ns, struct err *err);
/* Degrade from now on. */
void degrade_begin(struct degrade *d, uint64_t seconds, const char *reason, int64_t mono_ns);
/* -1: it is not degraded. */
int degrade_end(struct degrade *d, struct err *err);

/* It was begun and not ended, even if its time is over. */
bool degrade_begun(const struct degrade *d);
/* Nanoseconds that are left; 0 when it is over or was not begun. */
int64_t degrade_left_ns(const struct degrade *d, int64_t mono_ns);

#endif
