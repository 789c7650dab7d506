/*
 * history: the last hour of the metrics that the dashboard draws, in steps of ten seconds.
 *
 * Calls by action and outcome (HISTORY_SERIES actions that occurred, the last of them "other"), the
 * median and the 99th percentile of the added and the total time, lost events and the room that the
 * trail has left.  Constant memory.  Pure: the clock is an argument.
 */
#ifndef KEYTRAIL_PROXY_HISTORY_H
#define KEYTRAIL_PROXY_HISTORY_H

#include "keytrail/buf.h"
#include "keytrail/metrics.h"

#define HISTORY_STEP_S	10
#define HISTORY_STEPS	360
#define HISTORY_MINUTES (HISTORY_STEPS * HISTORY_STEP_S / 60)
#define HISTORY_SERIES	64

struct history;

/* Of these metrics, borrowed; from now on (monotonic).  NULL: memory is short. */
struct history *history_new(const struct metrics *m, int64_t mono_ns);
void history_free(struct history *h); /* NULL is allowed */

/* A step is over.  When more time has passed than one, those in between are unknown. */
void history_step(struct history *h, int64_t mono_ns, int64_t wall_ns);

/* The last minutes, 1 to HISTORY_MINUTES, the oldest step first; null where nothing is known.  -1:
 * memory is short. */
int history_render(const struct history *h, unsigned minutes, struct buf *out);

/* Until the trail has no room, if it goes on as in what is known; INFINITY: not in sight. */
double history_seconds_to_full(const struct history *h);

#endif
