/*
 * clock: time as numbers, and as the text of an event.
 *
 * Nanoseconds everywhere.  Modules that wait or expire take the time as an argument, so that tests
 * need not sleep; only the outermost callers read a clock.  Any thread.
 */
#ifndef KEYTRAIL_CLOCK_H
#define KEYTRAIL_CLOCK_H

#include "keytrail/slice.h"

#include <stddef.h>
#include <stdint.h>

#define CLOCK_NS_PER_US 1000LL
#define CLOCK_NS_PER_MS 1000000LL
#define CLOCK_NS_PER_S	1000000000LL

int64_t clock_mono_ns(void); /* CLOCK_MONOTONIC: for durations */
int64_t clock_wall_ns(void); /* CLOCK_REALTIME since 1970: for events; may step */
int64_t clock_boot_ns(void); /* CLOCK_BOOTTIME: never steps, and goes on while the machine sleeps */

/* What the wall clock should show by the steady one, since it was looked at last; begins as 0. */
struct clock_watch {
	int64_t wall_ns, steady_ns;
};

/* The jump since the last look (below 0: back), or 0 when it is not longer than CLOCK_JUMP_NS, or
 * this is the first look.  Look often: a clock that is slewed jumps a little each time. */
#define CLOCK_JUMP_NS CLOCK_NS_PER_S
int64_t clock_watch(struct clock_watch *w, int64_t wall_ns, int64_t steady_ns);

/* "YYYY-MM-DDTHH:mm:ss.SS+0000" (hundredths, cut not rounded) and a NUL. */
#define CLOCK_EVENT_TIME_SIZE 28
void clock_event_time(int64_t wall_ns, char out[CLOCK_EVENT_TIME_SIZE]);
/* The time of such a text; -1 when it is none. */
int clock_parse_event_time(struct slice text, int64_t *wall_ns);

/* What a person writes for a time of UTC ("2026-11-22", "2026-11-22T20:09:08Z", or anything in
 * between), as the first event time in it, or the last.  -1: it is none. */
int clock_parse_time(const char *text, int last, char out[CLOCK_EVENT_TIME_SIZE]);

/* "YYYY-MM-DDTHH:mm:ss.mmmZ" (RFC 3339) and a NUL, for the own log. */
#define CLOCK_RFC3339_SIZE 25
void clock_rfc3339(int64_t wall_ns, char out[CLOCK_RFC3339_SIZE]);

/*
 * A UUID of version 7 (RFC 9562 section 5.7) from a time and 10 random bytes, and a NUL.
 * Lower case.
 */
#define CLOCK_UUID_SIZE 37
void clock_uuid7(int64_t wall_ns, const unsigned char random[10], char out[CLOCK_UUID_SIZE]);

#endif
