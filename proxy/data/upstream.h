/*
 * upstream: verified connections to the key service, pooled a worker.
 *
 * An address is a name or a number; names are resolved without blocking and again every 30
 * seconds.  An address that fails is set aside for 10 seconds and the next one tried, within the
 * connect timeout; so is one that no local port or address leads to, but nobody is to blame for that.
 * An idle connection is closed when anything arrives on it, or after upstream.pool.timeout.
 *
 * A source may use UPSTREAM_SHARE times as many connections as are left for others (of
 * upstream.pool.max), and waits where it uses more: whoever keeps all that it can get leaves a third
 * of the rest to the next.  Worker's thread.
 */
#ifndef KEYTRAIL_PROXY_UPSTREAM_H
#define KEYTRAIL_PROXY_UPSTREAM_H

#include "data/resolver.h"
#include "data/worker.h"
#include "keytrail/buf.h"
#include "keytrail/refusal.h"

#define UPSTREAM_SHARE 2

struct upstream;
struct upstream_share;

/* A connection that an exchange holds. */
struct upstream_conn {
	struct stream stream;
	struct buf in; /* bytes read and not used yet */
	bool reused;
	/* The holder's; called when the stream is ready. */
	stream_ready_fn ready;
	void *arg;
	/* upstream's own */
	struct upstream *pool;
	struct reap reap;
	TAILQ_ENTRY(upstream_conn) link;
	unsigned generation;
	bool idle;
	int64_t idle_since; /* monotonic ns */
	struct resolver_target target;
	struct upstream_request *request; /* whom it is being made for; NULL once it is made */
	struct upstream_share *share;	  /* of its source, which counts this one; or NULL */
};

/*
 * Asks for a connection.  `done` is called once, never from within upstream_acquire, with a
 * connection that is the caller's until upstream_release, or with NULL and the reason
 * (UPSTREAM_UNREACHABLE, _UNTRUSTED, _TIMEOUT, _BUSY, OUT_OF_MEMORY).  Embedded in the caller; after
 * upstream_cancel `done` is not called.
 */
struct upstream_request {
	void (*done)(void *arg, struct upstream_conn *c, enum http_refusal why);
	void *arg;
	const unsigned char *source; /* the address of who asks; NULL: many, who share nothing */
	/* upstream's own */
	struct upstream *pool;
	TAILQ_ENTRY(upstream_request) link;
	struct upstream_conn *conn;
	struct upstream_share *share;
	unsigned tries;
	enum http_refusal blamed; /* what the last target that failed did wrong */
	bool queued;
	bool held;  /* its share is used up: nobody waits behind it */
	bool fresh; /* an idle connection will not do */
	struct wtimer timer;
};

struct upstream *upstream_new(struct worker *w, struct err *err);
void upstream_free(struct upstream *u); /* NULL is allowed */

/* An idle connection at once, or NULL and `done` later.  `fresh`: do not take an idle one. */
struct upstream_conn *upstream_acquire(struct upstream *u, struct upstream_request *r, bool fresh);
void upstream_cancel(struct upstream *u, struct upstream_request *r);

/* Give it back: to the pool when `reuse` (a whole answer was read, and both sides keep it). */
void upstream_release(struct upstream_conn *c, bool reuse);

/* The worker's lease has changed: resolve again, use no connection that is open now again. */
void upstream_reconfigure(struct upstream *u);

/* Close what is idle: the worker drains. */
void upstream_close_idle(struct upstream *u);

#endif
