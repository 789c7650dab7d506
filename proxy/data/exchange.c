#include "data/exchange.h"

#include "data/rewrite.h"
#include "data/upstream.h"
#include "keytrail/clock.h"
#include "keytrail/event.h"
#include "keytrail/parse.h"

#include <assert.h>
#include <stdlib.h>

#define READ_SIZE	16384 /* bytes asked of a stream at once: a TLS record */
#define PUMP_MAX	32768 /* bytes that wait for one side before the other is paused */
#define INTERIM_MAX	10    /* 1xx answers before the final one */
#define ROOM_WAIT_MS	50    /* for room in the ring, before 503 trail_slow */

enum ex_state { EX_HEAD, EX_ACQUIRE, EX_FORWARD, EX_RECORD, EX_RELAY, EX_DONE };

struct exchange {
	enum ex_state	       state;
	struct exchange_client client;
	struct worker	      *worker;
	struct lease	      *lease;
	struct audit_event     event;
	enum guarantee	       guarantee;
	enum http_refusal      refusal; /* not NONE: the final answer is ours */
	char		       correlation[65];
	struct wtimer	       timer;
	struct worker_waiter   waiter;
	struct worker_reap     reap;
	int64_t		       started, sent, answered; /* monotonic ns */

	/* the request */
	bool to_head;	     /* HEAD: the answer has no body */
	bool may_retry;	     /* GET or HEAD without a body, on a route that allows it */
	bool client_keeps;   /* the client's head allows another request */
	bool is_10;	     /* HTTP/1.0 */
	bool client_gone;    /* nothing can be sent to it any more */
	bool claimed;	     /* room in the ring */
	struct buf to_up;    /* head and framed body that wait to be sent */
	bool	   forwarded; /* a byte has left */
	bool	   stopped;  /* no more of the body is sent */
	bool	   all_sent;

	/* the key service */
	struct upstream_request request;
	struct upstream_conn   *up;
	struct http_scan	scan;
	unsigned		interim;
	bool			up_keeps, got_bytes;
	bool			answer_read; /* to its end */

	/* the answer, towards the client */
	struct buf	  to_client;
	enum http_framing framing;
	bool		  keep; /* the connection, after this answer */

	struct http_body request_body, answer_body; /* last: large, and not zeroed */
};

static void enter(struct exchange *ex, enum ex_state next);
static void pump_request(struct exchange *ex);
static void pump_answer(struct exchange *ex);

static const struct config *
config_of(const struct exchange *ex)
{
	return ex->lease->snapshot->config;
}

/* ---- the final answer is ours ---- */

/*
 * Answer with `why`.  Once a byte was forwarded and no status came, nobody knows whether the key
 * service acted, so the outcome is unknown whatever the client is told.
 */
static void
refuse(struct exchange *ex, enum http_refusal why, const char *unknown_reason)
{
	assert(ex->state < EX_RECORD);
	ex->refusal = ex->event.refusal = why;
	ex->stopped = true;
	if (ex->forwarded && unknown_reason != NULL) {
		ex->event.status = 0;
		ex->event.unknown_reason = unknown_reason;
	} else {
		ex->event.status = refusal_info(why)->status;
	}
	enter(ex, EX_RECORD);
}

/* Nobody is left to answer: the event is all there is. */
static void
give_up(struct exchange *ex, const char *unknown_reason)
{
	assert(ex->state < EX_RECORD);
	ex->client_gone = ex->event.client_gone = true;
	ex->stopped = true;
	ex->event.status = 0;
	ex->event.unknown_reason = unknown_reason;
	enter(ex, EX_RECORD);
}

/* ---- ACQUIRE: room in the ring, then a connection ---- */

static void
on_acquired(void *arg, struct upstream_conn *c, enum http_refusal why)
{
	struct exchange *ex = arg;

	if (c == NULL) {
		refuse(ex, why, why == REFUSAL_UPSTREAM_TIMEOUT ? "timeout" : "connection_lost");
		return;
	}
	ex->up = c;
	enter(ex, EX_FORWARD);
}

static void
acquire(struct exchange *ex)
{
	bool fresh = ex->event.attempts > 1;

	ex->request = (struct upstream_request){ .done = on_acquired, .arg = ex };
	ex->up = upstream_acquire(ex->worker->upstream, &ex->request, fresh);
	if (ex->up != NULL)
		enter(ex, EX_FORWARD);
}

static void
on_room(void *arg)
{
	enter(arg, EX_ACQUIRE);
}

/* Why the ring gives no room; *wait: the journal is only behind. */
static enum http_refusal
no_room(const struct exchange *ex, bool *wait)
{
	*wait = false;
	switch (ring_state(ex->worker->ring)) {
	case RING_NO_ROOM:
		return REFUSAL_TRAIL_FULL;
	case RING_FAILED:
		return REFUSAL_TRAIL_FAILED;
	default:
		*wait = true;
		return REFUSAL_TRAIL_SLOW;
	}
}

static void
on_acquire(struct exchange *ex)
{
	bool		  wait;
	enum http_refusal why;

	if (!ex->claimed)
		ex->claimed = ring_claim(ex->worker->ring, EVENT_LINE_MAX);
	if (ex->claimed || ex->guarantee == GUARANTEE_ASYNC) {
		wtimer_clear(&ex->timer);
		acquire(ex);
		return;
	}
	why = no_room(ex, &wait);
	if (!wait) {
		refuse(ex, why, NULL);
		return;
	}
	if (ex->timer.deadline == 0)
		wtimer_set(&ex->timer, ROOM_WAIT_MS);
	worker_wait_room(ex->worker, &ex->waiter);
}

/* ---- FORWARD ---- */

static void
on_upstream(void *arg)
{
	struct exchange *ex = arg;

	pump_request(ex);
	if (ex->state == EX_FORWARD || ex->state == EX_RELAY)
		pump_answer(ex);
}

static void
on_forward(struct exchange *ex)
{
	ex->up->ready = on_upstream;
	ex->up->arg = ex;
	http_scan_reset(&ex->scan);
	wtimer_set(&ex->timer, config_of(ex)->timeouts.body);
	pump_request(ex);
	/* A connection from the pool may have died; then the answer side knows. */
	if (ex->state == EX_FORWARD)
		pump_answer(ex);
}

/* ---- RECORD ---- */

static void
count(struct exchange *ex)
{
	static const enum metric_outcome outcomes[] = {
		[EVENT_SUCCESS] = METRIC_OUTCOME_SUCCESS,
		[EVENT_FAILURE] = METRIC_OUTCOME_FAILURE,
		[EVENT_UNKNOWN] = METRIC_OUTCOME_UNKNOWN,
	};
	struct metrics_shard *m = ex->worker->metrics;
	enum event_outcome    outcome = event_outcome(&ex->event);

	if (ex->refusal != REFUSAL_NONE)
		metrics_add(m, METRIC_REFUSED, ex->refusal, 1);
	if (ex->event.route == NULL)
		return;
	if (!ex->event.matched)
		metrics_add(m, METRIC_UNMATCHED, 0, 1);
	metrics_count_request(m, ex->lease->snapshot->action_metric[ex->event.route->action_index],
	    outcomes[outcome], ex->event.status);
}

/* The event is in the ring from here on, or counted as lost.  The position to wait for, or 0. */
static uint64_t
commit_event(struct exchange *ex, bool durable)
{
	struct worker *w = ex->worker;
	uint64_t       position;
	size_t	       n;

	if (!ex->claimed && !ring_claim(w->ring, EVENT_LINE_MAX)) {
		metrics_add(w->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_RING_FULL, 1);
		return 0;
	}
	ex->claimed = false;
	n = event_render(&ex->lease->snapshot->profile, &ex->event,
	    ring_line(w->ring, EVENT_LINE_MAX));
	position = ring_commit(w->ring, EVENT_LINE_MAX, n, durable ? RING_DURABLE : 0);
	metrics_add(w->metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	journal_kick(w->journal);
	return durable ? position : 0;
}

static void
on_recorded(void *arg)
{
	enter(arg, EX_RELAY);
}

static void
on_record(struct exchange *ex)
{
	/* What was never forwarded changed nothing: its answer need not wait for a disk. */
	bool	 durable = ex->forwarded && ex->guarantee != GUARANTEE_ASYNC;
	uint64_t position;

	upstream_cancel(ex->worker->upstream, &ex->request);
	worker_wait_cancel(&ex->waiter, &ex->worker->room_waiters);
	count(ex);
	position = commit_event(ex, durable);
	if (position == 0) {
		enter(ex, EX_RELAY);
		return;
	}
	ex->waiter.ready = on_recorded;
	worker_wait_durable(ex->worker, &ex->waiter, position);
	wtimer_set(&ex->timer, config_of(ex)->timeouts.answer);
}

/* ---- RELAY ---- */

/* Our own answer ends the connection unless the request was well-formed and read to its end. */
static bool
may_keep(const struct exchange *ex)
{
	if (!ex->client_keeps || ex->worker->draining)
		return false;
	if (ex->refusal == REFUSAL_NONE)
		return true;
	return (ex->refusal == REFUSAL_DENIED || refusal_info(ex->refusal)->status >= 500) &&
	    http_body_done(&ex->request_body);
}

static int
build_refusal(struct exchange *ex)
{
	struct rewrite_refusal r = { .refusal = ex->refusal,
		.correlation_header = ex->lease->snapshot->correlation_header,
		.correlation = ex->correlation,
		.close = !ex->keep,
		.head_only = ex->to_head };

	return rewrite_refusal(&ex->to_client, &r);
}

static void
on_relay(struct exchange *ex)
{
	if (ex->client_gone) {
		enter(ex, EX_DONE);
		return;
	}
	wtimer_set(&ex->timer, config_of(ex)->timeouts.body);
	if (ex->refusal != REFUSAL_NONE) {
		ex->keep = may_keep(ex);
		ex->answer_read = true;
		if (build_refusal(ex) == -1) {
			ex->client_gone = true;
			enter(ex, EX_DONE);
			return;
		}
	}
	pump_answer(ex);
}

/* ---- DONE ---- */

static void
free_exchange(void *arg)
{
	struct exchange *ex = arg;

	buf_fini(&ex->to_up);
	buf_fini(&ex->to_client);
	explicit_bzero(&ex->event, sizeof(ex->event));
	free(ex);
}

static void
observe(const struct exchange *ex)
{
	double	total = (double)(clock_mono_ns() - ex->started) / CLOCK_NS_PER_S;
	int64_t	service = ex->answered > ex->sent && ex->sent > 0 ? ex->answered - ex->sent : 0;

	metrics_observe(ex->worker->metrics, METRIC_REQUEST_SECONDS, total);
	metrics_observe(ex->worker->metrics, METRIC_ADDED_SECONDS,
	    total - (double)service / CLOCK_NS_PER_S);
	metrics_add(ex->worker->metrics, METRIC_REQUESTS_IN_FLIGHT, 0, -1);
}

static void
on_done(struct exchange *ex)
{
	struct worker *w = ex->worker;
	bool	       whole = ex->answer_read && ex->all_sent && ex->refusal == REFUSAL_NONE;

	if (ex->up != NULL)
		upstream_release(ex->up, whole && ex->up_keeps);
	ex->up = NULL;
	worker_wait_cancel(&ex->waiter, &w->durable_waiters);
	wtimer_fini(&ex->timer);
	observe(ex);
	worker_lease_drop(ex->lease);
	ex->reap = (struct worker_reap){ .reap = free_exchange, .arg = ex };
	worker_reap_later(w, &ex->reap);
	ex->client.done(ex->client.arg, ex->keep && !ex->client_gone);
}

/* ---- the machine ---- */

#define TO(state) (1u << EX_##state)

static const struct {
	const char *name;
	unsigned    next; /* the only legal successors */
	void	  (*enter)(struct exchange *ex);
} ex_states[] = {
	[EX_HEAD] = { "head", TO(ACQUIRE) | TO(RECORD), NULL },
	/* To itself: the ring may have room now. */
	[EX_ACQUIRE] = { "acquire", TO(ACQUIRE) | TO(FORWARD) | TO(RECORD), on_acquire },
	[EX_FORWARD] = { "forward", TO(RECORD) | TO(ACQUIRE), on_forward },
	[EX_RECORD] = { "record", TO(RELAY) | TO(DONE), on_record },
	[EX_RELAY] = { "relay", TO(DONE), on_relay },
	[EX_DONE] = { "done", 0, on_done },
};

static void
enter(struct exchange *ex, enum ex_state next)
{
	assert(ex_states[ex->state].next & (1u << next));
	ex->state = next;
	ex_states[next].enter(ex);
}

/* After RECORD nothing changes the event any more: the answer is cut, and a metric says so. */
static void
cut(struct exchange *ex, enum metric_id who)
{
	metrics_add(ex->worker->metrics, who, 0, 1);
	ex->client_gone = true;
	/* A close_notify would make a cut answer that ends with the connection look whole. */
	ex->client.stream->broken = true;
	enter(ex, EX_DONE);
}

static void
on_timeout(void *arg)
{
	struct exchange *ex = arg;

	switch (ex->state) {
	case EX_ACQUIRE:
		refuse(ex, REFUSAL_TRAIL_SLOW, NULL);
		break;
	case EX_FORWARD:
		if (!ex->all_sent && buf_size(&ex->to_up) == 0)
			refuse(ex, REFUSAL_REQUEST_TIMEOUT, "timeout");
		else
			refuse(ex, REFUSAL_UPSTREAM_TIMEOUT, "timeout");
		break;
	case EX_RECORD:
		/* The event will become durable or be found by recovery; the answer may not go. */
		log_error(ex->worker->log, "trail_slow",
		    "an answer was withheld because its event did not become durable in time");
		ex->client_gone = true;
		enter(ex, EX_DONE);
		break;
	case EX_RELAY:
		cut(ex, buf_size(&ex->to_client) > 0 ? METRIC_CLIENT_ABORTS : METRIC_UPSTREAM_CUT);
		break;
	default:
		break;
	}
}

void
exchange_abort(struct exchange *ex)
{
	if (ex->state < EX_RECORD)
		give_up(ex, "shutdown");
	else if (ex->state == EX_RELAY)
		cut(ex, METRIC_CLIENT_ABORTS);
	if (ex->state == EX_RECORD) {
		ex->client_gone = true;
		enter(ex, EX_DONE);
	}
}

/* ---- the request's pump ---- */

static int
append_framed(struct buf *out, enum http_framing framing, struct slice data)
{
	int rc = 0;

	if (framing == HTTP_CHUNKED)
		rc |= buf_printf(out, "%zx\r\n", data.n);
	rc |= buf_append_slice(out, data);
	if (framing == HTTP_CHUNKED)
		rc |= buf_append(out, "\r\n", 2);
	return rc;
}

static int
append_end(struct buf *out, enum http_framing framing, const struct http_body *from)
{
	int rc = 0;

	if (framing != HTTP_CHUNKED)
		return 0;
	rc |= buf_append(out, "0\r\n", 3);
	if (from->framing == HTTP_CHUNKED)
		rc |= buf_append_slice(out, http_body_trailers(from));
	return rc | buf_append(out, "\r\n", 2);
}

enum fill { FILL_SOME, FILL_NONE, FILL_END, FILL_BAD, FILL_MEMORY };

/* Move what `in` holds of a body into `out`, framed anew, up to PUMP_MAX bytes. */
static enum fill
fill(struct buf *out, enum http_framing framing, struct buf *in, struct http_body *body,
    enum http_refusal *why)
{
	struct slice	      rest = buf_slice(in), data;
	size_t		      before = buf_size(out);
	enum http_body_result r = HTTP_BODY_MORE;
	int		      rc = 0;

	while (rc == 0 && buf_size(out) < PUMP_MAX &&
	    (r = http_body_next(body, &rest, &data, why)) == HTTP_BODY_DATA)
		rc = append_framed(out, framing, data);
	if (r == HTTP_BODY_END)
		rc |= append_end(out, framing, body);
	buf_consume(in, buf_size(in) - rest.n);
	if (rc != 0)
		return FILL_MEMORY;
	if (r == HTTP_BODY_BAD)
		return FILL_BAD;
	if (r == HTTP_BODY_END)
		return FILL_END;
	return buf_size(out) > before ? FILL_SOME : FILL_NONE;
}

static enum stream_result
read_into(struct stream *s, struct buf *in, size_t *n)
{
	enum stream_result r;

	if (!stream_may_read(s))
		return STREAM_AGAIN;
	if (buf_reserve(in, READ_SIZE) == -1)
		return STREAM_ERROR;
	if ((r = stream_read(s, buf_tail(in), buf_room(in), n)) == STREAM_OK)
		buf_commit(in, *n);
	return r;
}

/* The request cannot be completed.  Before RECORD that decides the event. */
static void
fail_request(struct exchange *ex, enum http_refusal why)
{
	ex->stopped = true;
	ex->keep = false;
	if (ex->state >= EX_RECORD)
		return;
	if (why == REFUSAL_NONE)
		give_up(ex, "client_gone");
	else
		refuse(ex, why, NULL);
}

/* More of the body into to_up.  False: wait, or it is over. */
static bool
fill_request(struct exchange *ex)
{
	struct worker	 *w = ex->worker;
	enum http_refusal why = REFUSAL_NONE;
	size_t		  n = 0;

	switch (fill(&ex->to_up, ex->request_body.framing, ex->client.in, &ex->request_body, &why)) {
	case FILL_SOME:
		if (ex->request_body.total <= config_of(ex)->limits.body)
			return true;
		why = REFUSAL_BODY_TOO_LARGE;
		break;
	case FILL_END:
		return true;
	case FILL_MEMORY:
		why = REFUSAL_OUT_OF_MEMORY;
		break;
	case FILL_BAD:
		break;
	case FILL_NONE:
		switch (read_into(ex->client.stream, ex->client.in, &n)) {
		case STREAM_OK:
			metrics_add(w->metrics, METRIC_RECEIVED_BYTES, 0, (int64_t)n);
			return true;
		case STREAM_AGAIN:
			return false;
		default:
			break;
		}
	}
	fail_request(ex, why);
	return false;
}

/* Send what waits.  False: wait, or the connection is dead (the answer's side will know). */
static bool
flush_request(struct exchange *ex)
{
	size_t n;

	while (buf_size(&ex->to_up) > 0) {
		switch (stream_write(&ex->up->stream, ex->to_up.mem + ex->to_up.off,
		    buf_size(&ex->to_up), &n)) {
		case STREAM_OK:
			break;
		case STREAM_AGAIN:
			return false;
		default:
			ex->stopped = true;
			return false;
		}
		ex->forwarded = true;
		wtimer_set(&ex->timer, config_of(ex)->timeouts.body);
		/* A request that may be sent again keeps its bytes until an answer comes. */
		if (ex->may_retry && n == buf_size(&ex->to_up))
			return true;
		buf_consume(&ex->to_up, n);
		if (ex->may_retry)
			ex->may_retry = false;
	}
	return true;
}

static void
pump_request(struct exchange *ex)
{
	bool more;

	if (ex->up == NULL || ex->stopped || ex->all_sent)
		return;
	/* Filled first, so that the head and what came with it go out in one record. */
	do {
		more = buf_size(&ex->to_up) >= PUMP_MAX || http_body_done(&ex->request_body) ||
		    fill_request(ex);
		if (ex->stopped || !flush_request(ex))
			return;
	} while (!http_body_done(&ex->request_body) && more);
	if (!http_body_done(&ex->request_body))
		return;
	ex->all_sent = true;
	ex->sent = clock_mono_ns();
	if (ex->state == EX_FORWARD)
		wtimer_set(&ex->timer, config_of(ex)->timeouts.answer);
}

/* ---- the answer's pump ---- */

static bool
flush_client(struct exchange *ex)
{
	size_t n;

	while (buf_size(&ex->to_client) > 0) {
		switch (stream_write(ex->client.stream, ex->to_client.mem + ex->to_client.off,
		    buf_size(&ex->to_client), &n)) {
		case STREAM_OK:
			break;
		case STREAM_AGAIN:
			return false;
		default:
			ex->client_gone = true;
			return false;
		}
		metrics_add(ex->worker->metrics, METRIC_SENT_BYTES, 0, (int64_t)n);
		buf_consume(&ex->to_client, n);
		if (ex->state == EX_RELAY)
			wtimer_set(&ex->timer, config_of(ex)->timeouts.body);
	}
	return true;
}

/* The key service closed or broke the connection before a whole head had come. */
static void
lost_upstream(struct exchange *ex)
{
	bool stale = ex->up->reused && !ex->got_bytes && ex->may_retry && ex->event.attempts == 1;

	upstream_release(ex->up, false);
	ex->up = NULL;
	if (!stale) {
		metrics_add(ex->worker->metrics, METRIC_UPSTREAM_FAILURES, UPSTREAM_FAILURE_CLOSED,
		    1);
		refuse(ex, REFUSAL_UPSTREAM_BROKEN, "connection_lost");
		return;
	}
	metrics_add(ex->worker->metrics, METRIC_UPSTREAM_RETRIES, 0, 1);
	ex->event.attempts = 2;
	ex->stopped = ex->all_sent = false;
	enter(ex, EX_ACQUIRE);
}

static void
malformed_answer(struct exchange *ex)
{
	upstream_release(ex->up, false);
	ex->up = NULL;
	metrics_add(ex->worker->metrics, METRIC_UPSTREAM_FAILURES, UPSTREAM_FAILURE_MALFORMED, 1);
	refuse(ex, REFUSAL_UPSTREAM_MALFORMED, "malformed_answer");
}

/* 100 goes to a client that can read it; others are dropped (RFC 9110 section 15.2). */
static void
on_interim(struct exchange *ex, unsigned status)
{
	if (++ex->interim > INTERIM_MAX) {
		malformed_answer(ex);
		return;
	}
	if (status != 100 || ex->is_10 || ex->client_gone)
		return;
	if (buf_append_slice(&ex->to_client, SLICE("HTTP/1.1 100 Continue\r\n\r\n")) == 0)
		flush_client(ex);
}

/* What the client gets for the framing of the key service: HTTP/1.0 knows no chunks. */
static enum http_framing
client_framing(const struct exchange *ex, const struct http_head *h)
{
	if (h->framing == HTTP_LENGTH || h->framing == HTTP_NO_BODY)
		return h->framing;
	return ex->is_10 ? HTTP_UNTIL_CLOSE : HTTP_CHUNKED;
}

/* The final answer's head: facts into the event, the rewritten head into to_client, then RECORD.
 * An early refusal by the key service ends the request's body and both connections. */
static void
on_answer(struct exchange *ex, const struct http_head *h, size_t used)
{
	struct snapshot	       *snap = ex->lease->snapshot;
	struct rewrite_response r = { .head = h, .client_minor = ex->is_10 ? 0 : 1 };
	int			rc;

	ex->answered = clock_mono_ns();
	ex->up_keeps = h->keep_alive;
	event_from_response(&ex->event, h, snap->correlation_header,
	    snap->config->correlation_grammar);
	if (!ex->all_sent && h->status >= 400)
		ex->stopped = true;
	ex->framing = r.framing = client_framing(ex, h);
	ex->keep = may_keep(ex) && !ex->stopped && ex->framing != HTTP_UNTIL_CLOSE;
	r.close = !ex->keep;
	http_body_init(&ex->answer_body, h->framing, h->length);
	rc = rewrite_response(&ex->to_client, &r);
	buf_consume(&ex->up->in, used);
	ex->event.client_gone = ex->client_gone;
	if (rc == -1)
		ex->client_gone = true;
	enter(ex, EX_RECORD);
}

static void
pump_head(struct exchange *ex)
{
	struct worker	 *w = ex->worker;
	enum http_refusal why;
	size_t		  used, n;

	while (ex->state == EX_FORWARD) {
		switch (http_parse_response(&ex->scan, buf_slice(&ex->up->in),
		    &ex->lease->snapshot->limits, ex->to_head, &w->head, &used, &why)) {
		case HTTP_DONE:
			http_scan_reset(&ex->scan);
			if (w->head.status >= 200) {
				on_answer(ex, &w->head, used);
				return;
			}
			buf_consume(&ex->up->in, used);
			on_interim(ex, w->head.status);
			continue;
		case HTTP_BAD:
			malformed_answer(ex);
			return;
		case HTTP_MORE:
			break;
		}
		switch (read_into(&ex->up->stream, &ex->up->in, &n)) {
		case STREAM_OK:
			ex->got_bytes = true;
			continue;
		case STREAM_AGAIN:
			return;
		default:
			lost_upstream(ex);
			return;
		}
	}
}

static void
end_answer(struct exchange *ex)
{
	ex->answer_read = true;
	if (append_end(&ex->to_client, ex->framing, &ex->answer_body) == -1)
		cut(ex, METRIC_UPSTREAM_CUT);
}

/* More of the answer into to_client.  False: wait, or it is over. */
static bool
fill_answer(struct exchange *ex)
{
	enum http_refusal why;
	size_t		  n;

	switch (fill(&ex->to_client, ex->framing, &ex->up->in, &ex->answer_body, &why)) {
	case FILL_SOME:
		return true;
	case FILL_END:
		ex->answer_read = true;
		return true;
	case FILL_BAD:
	case FILL_MEMORY:
		cut(ex, METRIC_UPSTREAM_CUT);
		return false;
	case FILL_NONE:
		break;
	}
	switch (read_into(&ex->up->stream, &ex->up->in, &n)) {
	case STREAM_OK:
		wtimer_set(&ex->timer, config_of(ex)->timeouts.body);
		return true;
	case STREAM_AGAIN:
		return false;
	case STREAM_EOF:
		if (ex->answer_body.framing == HTTP_UNTIL_CLOSE) {
			end_answer(ex);
			return ex->state == EX_RELAY;
		}
		break;
	default:
		break;
	}
	cut(ex, METRIC_UPSTREAM_CUT);
	return false;
}

static void
pump_body(struct exchange *ex)
{
	bool more;

	/* Filled first, so that the head and what came with it go out in one record. */
	do {
		more = ex->answer_read || buf_size(&ex->to_client) >= PUMP_MAX || fill_answer(ex);
		if (ex->state != EX_RELAY)
			return;
		if (!flush_client(ex)) {
			if (ex->client_gone)
				cut(ex, METRIC_CLIENT_ABORTS);
			return;
		}
	} while (!ex->answer_read && more);
	if (!ex->answer_read)
		return;
	/* An early answer of 2xx or 3xx: the request's body is still on its way. */
	if (ex->up == NULL || ex->all_sent || ex->stopped)
		enter(ex, EX_DONE);
}

static void
pump_answer(struct exchange *ex)
{
	if (ex->state == EX_FORWARD)
		pump_head(ex);
	else if (ex->state == EX_RELAY)
		pump_body(ex);
}

/* ---- the client's side ---- */

void
exchange_on_client(struct exchange *ex)
{
	pump_request(ex);
	if (ex->state == EX_RELAY) {
		pump_answer(ex);
		return;
	}
	if (ex->state == EX_DONE || ex->client_gone)
		return;
	if (ex->state == EX_FORWARD && buf_size(&ex->to_client) > 0)
		flush_client(ex);
	/* EOF is a half-close and legal; only a reset says that nobody listens. */
	if (!ex->client_gone && ex->client.stream->readable)
		ex->client_gone = stream_is_reset(ex->client.stream);
	if (ex->client_gone && !ex->forwarded && ex->state < EX_RECORD)
		give_up(ex, "client_gone");
}

/* ---- the beginning ---- */

/* The client's own correlation ID where it fits the grammar, else the event's. */
static void
choose_correlation(struct exchange *ex)
{
	const struct audit_event *ev = &ex->event;
	bool own = scrub_fits(config_of(ex)->correlation_grammar, slice_of(ev->correlation));

	memcpy(ex->correlation, own ? ev->correlation : ev->id,
	    own ? sizeof(ev->correlation) : sizeof(ev->id));
}

static void
set_origin(struct exchange *ex, const struct http_head *head)
{
	struct origin from;

	if (head != NULL && origin_of_request(config_of(ex), ex->client.peer, head, &from))
		memcpy(ex->event.peer, ex->client.peer->text, sizeof(ex->event.peer));
	else
		from = *ex->client.peer;
	memcpy(ex->event.address, from.text, sizeof(ex->event.address));
}

static enum http_refusal
classify(struct exchange *ex, const struct http_head *head)
{
	const struct snapshot *snap = ex->lease->snapshot;
	const struct config   *c = snap->config;
	struct route_match     match;

	route_match(c->routes, head, &match);
	event_from_request(&ex->event, head, &match, snap->correlation_header,
	    c->correlation_grammar);
	if (ex->client.subject != NULL)
		identity_from_certificate(*ex->client.subject, &ex->event.identity);
	ex->guarantee = match.route->guarantee;
	ex->to_head = slice_equal(head->method, SLICE("HEAD"));
	ex->is_10 = head->minor == 0;
	ex->client_keeps = head->keep_alive;
	ex->may_retry = (ex->to_head || slice_equal(head->method, SLICE("GET"))) &&
	    head->framing == HTTP_NO_BODY && match.route->retry;
	http_body_init(&ex->request_body, head->framing, head->length);
	if (match.refusal != REFUSAL_NONE)
		return match.refusal;
	if (!match.matched && c->audit.deny_unmatched)
		return REFUSAL_DENIED;
	if (head->framing == HTTP_LENGTH && head->length > c->limits.body)
		return REFUSAL_BODY_TOO_LARGE;
	return REFUSAL_NONE;
}

static enum http_refusal
prepare(struct exchange *ex, const struct http_head *head)
{
	const struct snapshot *snap = ex->lease->snapshot;
	enum http_refusal      why = classify(ex, head);
	struct rewrite_request r = { .head = head,
		.upstream = &snap->config->upstream,
		.correlation_header = snap->correlation_header,
		.correlation = ex->event.id,
		.client = ex->client.peer->text,
		.trusted_peer = config_network_contains(snap->config->trusted_networks,
		    snap->config->ntrusted_networks, ex->client.peer->address),
		.tls = ex->client.stream->ssl != NULL };

	if (why == REFUSAL_NONE && rewrite_request(&ex->to_up, &r) == -1)
		why = REFUSAL_OUT_OF_MEMORY;
	return why;
}

int
exchange_start(const struct exchange_client *client, const struct http_head *head,
    enum http_refusal refusal, int64_t arrival_ns, struct exchange **slot)
{
	struct exchange *ex = malloc(sizeof(*ex));
	unsigned char	 random[10];

	if (ex == NULL)
		return -1;
	memset(ex, 0, offsetof(struct exchange, request_body));
	ex->client = *client;
	ex->worker = client->worker;
	ex->lease = worker_lease_take(client->worker);
	ex->started = clock_mono_ns();
	ex->event.arrival_ns = arrival_ns;
	ex->event.attempts = 1;
	worker_random(ex->worker, random, sizeof(random));
	clock_uuid7(arrival_ns, random, ex->event.id);
	wtimer_init(&ex->timer, ex->worker, on_timeout, ex);
	ex->waiter = (struct worker_waiter){ .ready = on_room, .arg = ex };
	http_body_init(&ex->request_body, HTTP_NO_BODY, 0);
	if (head != NULL)
		refusal = prepare(ex, head);
	set_origin(ex, head);
	choose_correlation(ex);
	metrics_add(ex->worker->metrics, METRIC_REQUESTS_IN_FLIGHT, 0, 1);
	*slot = ex;
	if (refusal != REFUSAL_NONE)
		refuse(ex, refusal, NULL);
	else
		enter(ex, EX_ACQUIRE);
	return 0;
}
