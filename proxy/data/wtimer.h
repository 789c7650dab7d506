/*
 * wtimer: the deadlines of one thread, however many, on one timer of its event loop.
 *
 * A deadline is cheap to move: moving it later touches nothing; when the old time comes, the timer
 * looks again.  No memory is taken: a timer is part of what it is for.  They stand in a pairing heap
 * (Fredman, Sedgewick, Sleator, Tarjan 1986).
 */
#ifndef KEYTRAIL_PROXY_WTIMER_H
#define KEYTRAIL_PROXY_WTIMER_H

#include <event2/event_struct.h>

#include <stdint.h>

struct wtimer;

struct wtimers {
	struct event event;
	struct wtimer *first; /* of the heap */
	int64_t armed;	      /* when the event fires; 0: it does not */
};

void wtimers_init(struct wtimers *all, struct event_base *base);
void wtimers_fini(struct wtimers *all);

#define WTIMER_OVER (-1) /* a deadline: it has fired, and who was called has put off what to do */

struct wtimer {
	struct wtimers *all;
	struct wtimer *child, *next, *prev; /* prev: the parent, of a first child */
	int64_t deadline;		    /* monotonic ns, or WTIMER_OVER; 0: not set */
	int64_t pending;		    /* its place in the heap; 0: it is not there */
	void (*fire)(void *arg);
	void *arg;
};

void wtimer_init(struct wtimer *t, struct wtimers *all, void (*fire)(void *arg), void *arg);
void wtimer_set(struct wtimer *t, unsigned ms);
void wtimer_set_from(struct wtimer *t, int64_t now_ns, unsigned ms); /* without reading the clock */
void wtimer_clear(struct wtimer *t);
void wtimer_fini(struct wtimer *t);

#endif
