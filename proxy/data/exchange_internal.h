/*
 * exchange_internal: the state of an exchange, shared by the files of that module.
 *
 * exchange.c holds the machine, exchange_facts.c what is known of the call and how it is recorded,
 * exchange_request.c and exchange_answer.c the two pumps.
 */
#ifndef KEYTRAIL_PROXY_EXCHANGE_INTERNAL_H
#define KEYTRAIL_PROXY_EXCHANGE_INTERNAL_H

#include "data/exchange.h"
#include "data/pump.h"
#include "data/upstream.h"
#include "keytrail/event.h"
#include "keytrail/parse.h"

enum ex_state {
	EX_HEAD,
	EX_GATHER,
	EX_ACQUIRE,
	EX_INTEND,
	EX_FORWARD,
	EX_RECORD,
	EX_RELAY,
	EX_DONE
};

struct exchange {
	enum ex_state state;
	struct exchange_client client;
	struct worker *worker;
	struct lease *lease;
	struct audit_event event;
	enum guarantee guarantee;
	enum http_refusal refusal; /* not NONE: the final answer is ours */
	char correlation[65];
	char host[256]; /* whom the client called; "" when that is not said or longer */
	struct worker_waiter waiter;
	struct reap reap, go_on;
	bool goes_on;			 /* go_on is queued */
	int64_t started, sent, answered; /* monotonic ns */

	/* the request */
	bool to_head;	   /* HEAD: the answer has no body */
	bool may_retry;	   /* GET or HEAD without a body, on a route that allows it */
	bool client_keeps; /* the client's head allows another request */
	bool client_ends;  /* the client's head forbids another request */
	bool is_10;	   /* HTTP/1.0 */
	bool gather;	   /* a small body: awaited before anything is taken for the call */
	bool client_gone;  /* nothing can be sent to it any more */
	bool claimed;	   /* room in the ring */
	bool intend;	   /* an intent is still to be written; with `claimed`, its room too */
	bool intended;	   /* it is written: an event of its own closes it */
	unsigned slot;	   /* of the call in flight, or RING_NO_SLOT */
	struct buf to_up;  /* head and framed body that wait to be sent */
	bool forwarded;	   /* a byte has left */
	bool stopped;	   /* no more of the body is sent */
	bool all_sent;
	struct origin origin;
	uint64_t moved; /* bytes of bodies, in this timeouts.body */

	/* the key service */
	struct upstream_request request;
	struct upstream_conn *up;
	struct http_scan scan;
	unsigned interim;
	bool asked; /* a byte of the request has left on this connection */
	bool up_keeps, got_bytes;
	bool answer_read; /* to its end */

	/* the answer, towards the client */
	struct buf to_client;
	enum http_framing framing;
	bool keep; /* the connection, after this answer */

	struct http_body request_body, answer_body; /* last: large, and not zeroed */
};

static inline const struct config *
exchange_config(const struct exchange *ex)
{
	return ex->lease->snapshot->config;
}

/* ---- exchange.c: every call may end in DONE; look at the state afterwards ---- */

/* Answer with `why`, before RECORD.  Once a byte was forwarded and no status came, nobody knows
 * whether the key service acted: with unknown_reason the outcome is unknown whatever the client is
 * told. */
void exchange_refuse(struct exchange *ex, enum http_refusal why, const char *unknown_reason);
/* Nobody is left to answer: the event is all there is.  Before RECORD. */
void exchange_give_up(struct exchange *ex, enum http_refusal why);
/* The body is here, as far as it is awaited. */
void exchange_gathered(struct exchange *ex);
/* The key service's answer is known and rewritten. */
void exchange_answered(struct exchange *ex);
/* The pooled connection was dead: acquire a fresh one. */
void exchange_retry(struct exchange *ex);
/* After RECORD nothing changes the event any more: the answer is cut, and a metric says so. */
void exchange_cut(struct exchange *ex, enum metric_id who);
/* The same, for want of memory. */
void exchange_cut_for_memory(struct exchange *ex);
/* The connection to the key service ended, or failed, before a whole head had come. */
void exchange_lost_upstream(struct exchange *ex);
/* A pump has had its PUMP_ROUNDS: both go on after what else is ready. */
void exchange_go_on_later(struct exchange *ex);
/* The answer is relayed to its end. */
void exchange_finish(struct exchange *ex);
/* The connection goes back to the pool if it may. */
void exchange_release_upstream(struct exchange *ex);
/* May the client's connection carry another request after this answer? */
bool exchange_may_keep(const struct exchange *ex);

/* ---- exchange_facts.c ---- */

/* Classify, gather the facts of the event, rewrite the head into to_up; why it is refused. */
enum http_refusal exchange_prepare(struct exchange *ex, const struct http_head *head);
/* The facts that do not need a head that could be parsed. */
void exchange_identify(struct exchange *ex, const struct http_head *head);
/* The address that limits of a source are about; NULL: a trusted network's own. */
const unsigned char *exchange_source(const struct exchange *ex);
/* Does the request keep to limits.rate? */
bool exchange_within_rate(struct exchange *ex);
/* Room for the event, and for the intent where there is one. */
bool exchange_claim(struct exchange *ex);
/* Put the call into the table of those in flight, unless it is there. */
void exchange_publish(struct exchange *ex);
/* Render and commit the intent.  The position to wait for. */
uint64_t exchange_intend(struct exchange *ex);
/* Count, render and commit the event; the call is in flight no more.  The position to wait for, 0:
 * do not wait. */
uint64_t exchange_record(struct exchange *ex);

/* ---- exchange_request.c, exchange_answer.c ---- */

void exchange_pump_request(struct exchange *ex);
void exchange_pump_answer(struct exchange *ex);
/* While the event becomes durable: an answer that is here to its end is made ready, so that its
 * connection and buffers serve others meanwhile. */
void exchange_hold_answer(struct exchange *ex);
/* Send what waits for the client.  False: wait, or client_gone. */
bool exchange_flush_client(struct exchange *ex);

#endif
