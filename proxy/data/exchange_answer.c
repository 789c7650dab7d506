#include "data/exchange_internal.h"

#include "data/rewrite.h"
#include "keytrail/clock.h"

#define INTERIM_MAX 10 /* 1xx answers before the final one */

/* Whatever is allowed to requests: a call that was executed is not to fail for its answer's size. */
static const struct http_limits answer_limits = { .head = 65536, .fields = HTTP_FIELDS_MAX };

bool
exchange_flush_client(struct exchange *ex)
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
		ex->moved += n;
	}
	return true;
}

void
exchange_lost_upstream(struct exchange *ex)
{
	bool stale = ex->up->reused && !ex->got_bytes && ex->may_retry && ex->event.attempts == 1;
	bool starved = ex->up->stream.starved;

	upstream_release(ex->up, false);
	ex->up = NULL;
	if (!stale) {
		metrics_add(ex->worker->metrics, METRIC_UPSTREAM_FAILURES,
		    starved ? UPSTREAM_FAILURE_MEMORY : UPSTREAM_FAILURE_CLOSED, 1);
		exchange_refuse(ex, starved ? REFUSAL_OUT_OF_MEMORY : REFUSAL_UPSTREAM_BROKEN,
		    starved ? "out_of_memory" : "connection_lost");
		return;
	}
	metrics_add(ex->worker->metrics, METRIC_UPSTREAM_RETRIES, 0, 1);
	exchange_retry(ex);
}

static void
reject_answer(struct exchange *ex, enum http_refusal why, const char *unknown_reason)
{
	upstream_release(ex->up, false);
	ex->up = NULL;
	metrics_add(ex->worker->metrics, METRIC_UPSTREAM_FAILURES, UPSTREAM_FAILURE_MALFORMED, 1);
	exchange_refuse(ex, why, unknown_reason);
}

static void
malformed_answer(struct exchange *ex)
{
	reject_answer(ex, REFUSAL_UPSTREAM_MALFORMED, "malformed_answer");
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
		exchange_flush_client(ex);
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
	struct snapshot *snap = ex->lease->snapshot;
	struct rewrite_response r = { .head = h,
		.correlation_header = snap->correlation_header,
		.client_minor = ex->is_10 ? 0 : 1,
		.service = slice_of(exchange_config(ex)->upstream.host),
		.client = slice_of(ex->host) };
	int rc;

	if (!rewrite_may_relay(&r)) {
		reject_answer(ex, REFUSAL_UPSTREAM_REDIRECT, "foreign_location");
		return;
	}
	ex->answered = clock_mono_ns();
	ex->up_keeps = h->keep_alive;
	event_from_response(
	    &ex->event, h, snap->correlation_header, snap->config->correlation_grammar);
	if (!ex->all_sent && h->status >= 400)
		ex->stopped = true;
	ex->framing = r.framing = client_framing(ex, h);
	ex->keep = exchange_may_keep(ex) && !ex->stopped && ex->framing != HTTP_UNTIL_CLOSE;
	r.close = !ex->keep;
	http_body_follow(&ex->answer_body, h);
	rc = rewrite_response(&ex->to_client, &r);
	buf_consume(&ex->up->in, used);
	ex->event.client_gone = ex->client_gone;
	if (rc == -1) {
		worker_starved(ex->worker, "an answer");
		ex->client_gone = true;
	}
	exchange_answered(ex);
}

static void
pump_head(struct exchange *ex)
{
	struct worker *w = ex->worker;
	enum http_refusal why;
	enum http_result r;
	size_t used, n;

	while (ex->state == EX_FORWARD) {
		r = HTTP_MORE;
		if (buf_size(&ex->up->in) > 0)
			r = http_parse_response(&ex->scan, buf_slice(&ex->up->in), &answer_limits,
			    ex->to_head, &w->head, &used, &why);
		switch (r) {
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
		switch (pump_read(&ex->up->stream, &ex->up->in, &n)) {
		case STREAM_OK:
			ex->got_bytes = true;
			if (ex->asked)
				continue;
			malformed_answer(ex);
			return;
		case STREAM_AGAIN:
			return;
		default:
			exchange_lost_upstream(ex);
			return;
		}
	}
}

static void
end_answer(struct exchange *ex)
{
	ex->answer_read = true;
	if (pump_end(&ex->to_client, ex->framing, &ex->answer_body) == -1)
		exchange_cut_for_memory(ex);
}

/* More of the answer into to_client.  False: wait, or it is over. */
static bool
fill_answer(struct exchange *ex)
{
	enum http_refusal why;
	size_t n;

	switch (pump_fill(&ex->to_client, ex->framing, &ex->up->in, &ex->answer_body, &why)) {
	case PUMP_SOME:
		return true;
	case PUMP_END:
		ex->answer_read = true;
		return true;
	case PUMP_BAD:
		exchange_cut(ex, METRIC_UPSTREAM_CUT);
		return false;
	case PUMP_MEMORY:
		exchange_cut_for_memory(ex);
		return false;
	case PUMP_NONE:
		break;
	}
	switch (pump_read(&ex->up->stream, &ex->up->in, &n)) {
	case STREAM_OK:
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
	if (ex->up->stream.starved)
		exchange_cut_for_memory(ex);
	else
		exchange_cut(ex, METRIC_UPSTREAM_CUT);
	return false;
}

void
exchange_hold_answer(struct exchange *ex)
{
	const struct http_body *b = &ex->answer_body;
	enum http_refusal why;

	if (ex->refusal != REFUSAL_NONE || !ex->all_sent || b->framing == HTTP_CHUNKED ||
	    b->framing == HTTP_UNTIL_CLOSE || b->left > buf_size(&ex->up->in))
		return;
	switch (pump_fill(&ex->to_client, ex->framing, &ex->up->in, &ex->answer_body, &why)) {
	case PUMP_END:
		ex->answer_read = true;
		exchange_release_upstream(ex);
		buf_fini(&ex->to_up);
		break;
	case PUMP_MEMORY:
		exchange_cut_for_memory(ex);
		break;
	default:
		break;
	}
}

/* After an early answer of 2xx or 3xx the request's body is still on its way. */
static bool
ends_with_answer(const struct exchange *ex)
{
	return ex->answer_read && (ex->up == NULL || ex->all_sent || ex->stopped);
}

static void
pump_body(struct exchange *ex)
{
	unsigned rounds = PUMP_ROUNDS;
	bool more;

	/* Filled first, so that the head and what came with it go out in one record. */
	do {
		if (rounds-- == 0) {
			exchange_go_on_later(ex);
			return;
		}
		more = ex->answer_read || buf_size(&ex->to_client) >= PUMP_MAX || fill_answer(ex);
		if (ex->state != EX_RELAY)
			return;
		if (!ex->keep && ends_with_answer(ex))
			stream_end_follows(ex->client.stream);
		if (!exchange_flush_client(ex)) {
			if (ex->client_gone)
				exchange_cut(ex, METRIC_CLIENT_ABORTS);
			return;
		}
	} while (!ex->answer_read && more);
	if (ends_with_answer(ex))
		exchange_finish(ex);
}

void
exchange_pump_answer(struct exchange *ex)
{
	if (ex->state == EX_FORWARD)
		pump_head(ex);
	else if (ex->state == EX_RELAY)
		pump_body(ex);
}
