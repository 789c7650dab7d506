/*
 * turns: work that waits for a turn of a worker's loop, so that however many ask, what else is ready
 * is served in between.
 *
 * One thread's, the one that runs the loop.  Nothing allocates or fails.
 */
#ifndef KEYTRAIL_PROXY_TURNS_H
#define KEYTRAIL_PROXY_TURNS_H

#include <event2/event_struct.h>

#include <stdbool.h>
#include <sys/queue.h>

enum turn_kind {
	TURN_STEP, /* of a TLS handshake, say: expensive */
	TURN_CALL, /* the next one: answers go first, while what they need is in the cache */
	TURN_NKINDS
};
/* So many of each kind in a turn of the loop. */
#define TURN_STEPS 4
#define TURN_CALLS 16

/* Somebody with work that can wait until it is his turn. */
struct turn {
	TAILQ_ENTRY(turn) link;
	void (*ready)(struct turn *turn);
	struct turn_queue *queue; /* NULL: does not wait */
};

struct turn_queue {
	TAILQ_HEAD(turn_list, turn) list;
	unsigned n;
};

/* The way to free what may still be on the stack. */
struct reap {
	STAILQ_ENTRY(reap) link;
	void (*reap)(struct reap *r);
};
STAILQ_HEAD(reap_list, reap);

struct turns {
	struct event turn_event, reap_event;
	struct turn_queue queues[TURN_NKINDS];
	unsigned before_steps; /* calls that are to be served before the next steps */
	bool turning, reaping;
	struct reap_list reaps;
};

void turns_init(struct turns *t, struct event_base *base);
void turns_fini(struct turns *t);

/* Ready is called once, in the order of asking; the next steps are taken only when all calls that
 * waited have been.  Not from within this call.  To wait again, or for another kind, makes no
 * difference. */
void turns_wait(struct turns *t, struct turn *turn, enum turn_kind kind);
void turns_cancel(struct turn *turn);

/* Call reap at the end of this turn of the loop. */
void turns_reap_later(struct turns *t, struct reap *r);
/* All, at once: the loop has ended. */
void turns_reap_all(struct turns *t);

/* Have the event once the loop has looked at the descriptors again. */
void turns_next(struct event *ev);

#endif
