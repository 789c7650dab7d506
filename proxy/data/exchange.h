/*
 * exchange: one request and its answer, from the parsed head to the last byte, and its event.
 *
 * The states follow the final answer; the request's body is a pump of its own that may still run in
 * RECORD and RELAY.  Every path crosses RECORD before any byte of the final answer leaves, so every
 * request that was forwarded has its event.  Before the first byte is forwarded, a line with outcome
 * unknown stands in the worker's table of calls in flight (ring.h), for the case that the process
 * dies; with the guarantee `intent`, a pending line is durable too, or the request is refused.
 * A small body is awaited before anything is taken for the call.  Worker's thread.
 */
#ifndef KEYTRAIL_PROXY_EXCHANGE_H
#define KEYTRAIL_PROXY_EXCHANGE_H

#include "data/origin.h"
#include "data/stream.h"
#include "data/worker.h"
#include "keytrail/buf.h"
#include "keytrail/head.h"

struct exchange;

/* Of the blocks of the worker's pool `exchanges`. */
extern const size_t exchange_size;

/* What the client's next bytes are. */
enum exchange_end {
	EXCHANGE_NEXT,	/* the next request */
	EXCHANGE_LAST,	/* nothing that may be: it said that this request was the last one */
	EXCHANGE_CLOSE, /* not to be told: the connection ends */
};

/* The client's side, as an exchange sees it; borrowed until `done`. */
struct exchange_client {
	struct worker *worker;
	struct stream *stream;
	struct buf *in;	      /* bytes read and not used yet */
	struct wtimer *timer; /* cleared; the exchange's until `done`: see exchange_on_timeout */
	const struct origin *peer;
	struct peer *source; /* or NULL: the address of each request decides */
	/* Monotonic: an answer from then on ends the connection, a body moves on no more. */
	int64_t last_ns;
	const struct identity_certificate *certificate; /* of the client, or NULL */
	/* The exchange is over and forgets the client.  May be called from within any function of
	 * this header. */
	void (*done)(void *arg, enum exchange_end end);
	void *arg;
};

/*
 * Begin with a parsed head (its bytes are no longer needed afterwards), or, with `refusal` not
 * NONE, with one that could not be parsed (head is NULL then).  arrival_ns: wall clock.  *slot is
 * set before anything happens, and stays valid until `done`.  -1 when memory is short: nothing was
 * recorded or answered; close the connection.
 */
int exchange_start(const struct exchange_client *client, const struct http_head *head,
    enum http_refusal refusal, int64_t arrival_ns, struct exchange **slot);

/* Record what is refused but not answered, and change nothing else.  -1 when memory is short. */
int exchange_note(
    const struct exchange_client *client, enum http_refusal refusal, int64_t arrival_ns);

/* The client's stream is ready. */
void exchange_on_client(struct exchange *ex);

/* The client's timer has fired. */
void exchange_on_timeout(struct exchange *ex);

/* End it now, whatever state it is in; it is recorded, and `done` is called. */
void exchange_abort(struct exchange *ex);

#endif
