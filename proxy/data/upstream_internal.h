/*
 * upstream_internal: the pool's state, shared by the files of that module.
 *
 * A request waits in a queue until there is a target and room in the pool, then owns the connection
 * that is being made for it; when that fails, the next target is tried.  upstream.c holds the
 * connections and the queues, upstream_connect.c makes a connection.
 */
#ifndef KEYTRAIL_PROXY_UPSTREAM_INTERNAL_H
#define KEYTRAIL_PROXY_UPSTREAM_INTERNAL_H

#include "data/upstream.h"

#include <event2/event.h>
#include <event2/event_struct.h>

TAILQ_HEAD(conn_queue, upstream_conn);
TAILQ_HEAD(request_queue, upstream_request);
TAILQ_HEAD(share_queue, upstream_share);

/* What a source has; two in one bucket share a share. */
struct upstream_share {
	unsigned in_use;
	struct request_queue held;	  /* what waits until it may have more */
	TAILQ_ENTRY(upstream_share) link; /* of who holds some */
};

struct upstream {
	struct worker *worker;
	struct resolver *resolver;
	struct conn_queue idle; /* newest first */
	struct request_queue waiting;
	struct share_queue over; /* a share that used, and asks for, more than it may */
	struct event serve_event;
	struct wtimer idle_timer; /* for the oldest idle one */
	unsigned nopen;
	unsigned nidle;
	unsigned generation;
	struct stream_session session;
	struct upstream_share shares[PEERS_BUCKETS];
};

/* ---- upstream.c ---- */

/* A connection without a socket, counted, that is the request's.  NULL: memory is short. */
struct upstream_conn *upstream_add_conn(struct upstream *u, struct upstream_request *r);
void upstream_close_conn(struct upstream_conn *c);

/* The request ends, with the connection that was made for it or with a reason. */
void upstream_succeed(struct upstream *u, struct upstream_conn *c);
void upstream_fail_request(struct upstream *u, struct upstream_request *r,
    enum upstream_failure metric, enum http_refusal why);

/* The stream is ready of a connection that is made. */
void upstream_ready(struct upstream_conn *c);

/* ---- upstream_connect.c ---- */

/* Make a connection for the request, which is in no queue: to the next target, until one serves. */
void upstream_connect(struct upstream *u, struct upstream_request *r);

/* It was not made in time: its target is to blame. */
void upstream_blame_late(struct upstream *u, struct upstream_conn *c);

#endif
