/*
 * worker: one thread, one event loop, and what its connections share.
 *
 * Everything here belongs to the worker's own thread, but for the life-cycle functions, which main
 * calls.  Nothing blocks: what takes long (disk, sinks) is another thread's.
 */
#ifndef KEYTRAIL_PROXY_WORKER_H
#define KEYTRAIL_PROXY_WORKER_H

#include "data/degrade.h"
#include "data/mailbox.h"
#include "data/peers.h"
#include "data/shapes.h"
#include "data/snapshot.h"
#include "data/stream.h"
#include "data/tally.h"
#include "data/turns.h"
#include "data/wtimer.h"
#include "keytrail/identity.h"
#include "keytrail/journal.h"
#include "keytrail/log.h"
#include "keytrail/metrics.h"
#include "keytrail/pool.h"
#include "keytrail/refusal.h"
#include "keytrail/ring.h"

#include <sys/queue.h>
#include <sys/socket.h>

struct worker;
struct upstream;

/* A snapshot as one worker uses it: counted without atomics. */
struct lease {
	struct snapshot *snapshot;
	unsigned users;
};

/* Somebody who waits until a ring position is durable, or until the ring has room. */
struct worker_waiter {
	TAILQ_ENTRY(worker_waiter) link;
	uint64_t position;
	void (*ready)(void *arg);
	void *arg;
	struct worker_waiters *queue; /* NULL: does not wait */
};
TAILQ_HEAD(worker_waiters, worker_waiter);

/* What a worker does with connections; the table is conn's (conn.h). */
struct worker_hooks {
	int (*init)(struct worker *w, struct err *err); /* sets w->upstream */
	void (*fini)(struct worker *w);
	void (*reload)(struct worker *w); /* w->lease is another one now */
	void (*accept)(struct worker *w, int fd, const struct sockaddr_storage *peer);
	void (*drain)(struct worker *w); /* w->draining is another one now */
	void (*abort)(struct worker *w); /* end what is left, recording it */
};

struct conn;
TAILQ_HEAD(conn_list, conn);

/* From the first on each answer is the last one of its connection. */
enum worker_draining {
	WORKER_STAYS,
	WORKER_LEAVES, /* a request may be on its way: what is idle has its time, what comes is taken */
	WORKER_STOPS, /* what is idle goes at once, and so does what comes */
};

/* Slots of the ring that are not for calls. */
#define WORKER_SLOTS (2 * TALLY_SLOTS)

struct worker {
	/* what it was made of */
	unsigned index;
	struct event_base *base;
	struct stream_method *stream_method;
	const struct worker_hooks *hooks;
	struct log *log;
	struct metrics_shard *metrics;
	struct ring *ring;
	struct journal *journal;
	struct upstream *upstream;
	/* of the whole process */
	atomic_uint *open_connections, *open_upstream;
	const struct degrade *degrade;
	struct peers *peers;
	struct shapes *shapes;
	struct wtimers timers;
	struct turns turns;
	/* what changes */
	struct lease *lease; /* the current snapshot */
	struct conn_list conns;
	unsigned nconns;
	enum worker_draining draining;
	struct worker_waiters durable_waiters, room_waiters;
	struct tally losses, refusals;
	/* trimmed once a minute */
	struct pool reads;     /* memory of bufs that are read into: STREAM_READ bytes each */
	struct pool heads;     /* of those that are written from, as long as little waits */
	struct pool exchanges; /* exchange's */
	struct identity_memo identities;
	struct http_head head; /* scratch: a head is used up before the next is parsed */
	/* its own */
	struct worker_thread *thread;
};

struct worker_opts {
	unsigned index;
	const struct worker_hooks *hooks;
	struct snapshot *snapshot; /* a reference is taken */
	struct log *log;
	struct metrics_shard *metrics;
	struct ring *ring;
	struct journal *journal; /* before journal_start: the ring is added */
	atomic_uint *open_connections, *open_upstream;
	const struct degrade *degrade;
	struct peers *peers;
	struct shapes *shapes;
};

/* ---- main thread ---- */

struct worker *worker_new(const struct worker_opts *opts, struct err *err);
int worker_start(struct worker *w, struct err *err);
/* Hand a connection over; the descriptor is the worker's from here on.  -1 when memory is short: it is
 * closed. */
int worker_accept(struct worker *w, int fd, const struct sockaddr_storage *peer);
/* Deliver it on the worker's thread. */
void worker_post(struct worker *w, struct mail *m);
/* The next snapshot for all workers, or for none: prepare may find memory short, commit and cancel
 * cannot fail, and each ends it. */
struct worker_reload *worker_reload_prepare(
    struct worker *const *workers, unsigned n, struct snapshot *next, struct err *err);
void worker_reload_commit(struct worker_reload *r);
void worker_reload_cancel(struct worker_reload *r);
/* Finish what is in flight, at most until deadline_ns (monotonic), then end the loop.  Who leaves may be
 * told to stop. */
void worker_drain(struct worker *w, enum worker_draining how, int64_t deadline_ns);
void worker_join(struct worker *w);
void worker_free(struct worker *w);

/* ---- the worker's thread ---- */

struct lease *worker_lease_take(struct worker *w);
void worker_lease_drop(struct lease *l);

/* Ready is called once, when ring_durable has reached position, WORKER_RELEASES of them in a turn of the
 * loop; not from within this call. */
#define WORKER_RELEASES 16
void worker_wait_durable(struct worker *w, struct worker_waiter *waiter, uint64_t position);
/* Ready is called when the ring may have room again. */
void worker_wait_room(struct worker *w, struct worker_waiter *waiter);
/* Ready will not be called; nothing happens when it was already. */
void worker_wait_cancel(struct worker_waiter *waiter);

/* An event found no room: it is counted, and recorded as keytrail.loss when there is room again, at
 * most once a second.  `initiator`: scrubbed, or "".  `slot`: of the call, or RING_NO_SLOT; close it
 * next. */
void worker_lose(struct worker *w, const char *action, const char *initiator, unsigned slot);

/* A refusal that is not recorded by itself: as keytrail.refused, in the same way. */
void worker_count_refusal(
    struct worker *w, const struct refusal_info *why, const char *source, unsigned slot);

/* Who asks, as identity_from_authorization has it.  What a token said is remembered for five minutes
 * at most; of its name only what the events show. */
void worker_identify(
    struct worker *w, struct slice authorization, enum event_names names, struct identity *out);

/* Memory was short, so this was given up: count it, and say so. */
void worker_starved(struct worker *w, const char *what);

/* As peers_hold; where there is none, say so. */
struct peer *worker_hold_source(struct worker *w, const unsigned char address[16], int64_t now);

/* n random bytes (getrandom, drawn in bulk). */
void worker_random(struct worker *w, unsigned char *out, size_t n);

/* A connection has gone: when draining, the last one ends the loop. */
void worker_connection_gone(struct worker *w);

#endif
