#include "data/exchange_internal.h"

#include "keytrail/clock.h"
#include "keytrail/fault.h"

/* The request cannot be completed.  Before RECORD that decides the event: where its head has left, a
 * service that acts on a head alone may have acted. */
static void
fail_request(struct exchange *ex, enum http_refusal why)
{
	ex->stopped = true;
	ex->keep = false;
	if (ex->state >= EX_RECORD)
		return;
	if (why == REFUSAL_NONE)
		exchange_give_up(ex, REFUSAL_CLIENT_GONE);
	else
		exchange_refuse(ex, why, refusal_info(why)->label);
}

/* Some servers read trailers as if they were header fields. */
static bool
may_pass_trailers(const struct exchange *ex)
{
	struct slice rest = http_body_trailers(&ex->request_body);

	while (rest.n > 0) {
		size_t n = (size_t)((const char *)memchr(rest.p, ':', rest.n) - rest.p);
		const char *end = memchr(rest.p, '\n', rest.n);

		if (route_is_single_header(exchange_config(ex)->routes, slice_sub(rest, 0, n)))
			return false;
		rest = slice_sub(rest, (size_t)(end - rest.p) + 1, rest.n);
	}
	return true;
}

/* More of the body into to_up.  False: wait, or it is over. */
static bool
fill_request(struct exchange *ex)
{
	struct worker *w = ex->worker;
	enum http_refusal why = REFUSAL_NONE;
	size_t n = 0;

	switch (pump_fill(
	    &ex->to_up, ex->request_body.framing, ex->client.in, &ex->request_body, &why)) {
	case PUMP_SOME:
	case PUMP_END:
		if (ex->request_body.total > exchange_config(ex)->limits.body)
			why = REFUSAL_BODY_TOO_LARGE;
		else if (!may_pass_trailers(ex))
			why = REFUSAL_BAD_TRAILER;
		else
			return true;
		break;
	case PUMP_MEMORY:
		why = REFUSAL_OUT_OF_MEMORY;
		break;
	case PUMP_BAD:
		break;
	case PUMP_NONE:
		switch (pump_read(ex->client.stream, ex->client.in, &n)) {
		case STREAM_OK:
			metrics_add(w->metrics, METRIC_RECEIVED_BYTES, 0, (int64_t)n);
			return true;
		case STREAM_AGAIN:
			return false;
		default:
			if (ex->client.stream->starved)
				why = REFUSAL_OUT_OF_MEMORY;
			break;
		}
	}
	fail_request(ex, why);
	return false;
}

/* Send what waits.  False: wait, or the connection is dead (the answer's side will know, unless it is
 * ours that failed). */
static bool
flush_request(struct exchange *ex)
{
	size_t n;

	while (buf_size(&ex->to_up) > 0) {
		switch (stream_write(
		    &ex->up->stream, ex->to_up.mem + ex->to_up.off, buf_size(&ex->to_up), &n)) {
		case STREAM_OK:
			break;
		case STREAM_AGAIN:
			return false;
		default:
			ex->stopped = true;
			if (ex->up->stream.starved && ex->state == EX_FORWARD)
				exchange_lost_upstream(ex);
			return false;
		}
		ex->asked = ex->forwarded = true;
		FAULT_POINT("exchange.after_first_byte");
		ex->moved += n;
		/* A request that may be sent again keeps its bytes until an answer comes. */
		if (ex->may_retry && n == buf_size(&ex->to_up))
			return true;
		buf_consume(&ex->to_up, n);
		ex->may_retry = false;
	}
	return true;
}

static bool
is_gathered(const struct exchange *ex)
{
	return !ex->gather || http_body_done(&ex->request_body);
}

static void
gather(struct exchange *ex)
{
	unsigned rounds = PUMP_ROUNDS;
	uint64_t before = ex->request_body.total;

	while (!is_gathered(ex)) {
		if (rounds-- == 0) {
			exchange_go_on_later(ex);
			break;
		}
		if (!fill_request(ex))
			break;
	}
	if (ex->state != EX_GATHER)
		return;
	ex->moved += ex->request_body.total - before;
	if (is_gathered(ex))
		exchange_gathered(ex);
}

void
exchange_pump_request(struct exchange *ex)
{
	unsigned rounds = PUMP_ROUNDS;
	bool more;

	if (ex->state == EX_GATHER) {
		gather(ex);
		return;
	}
	if (ex->state < EX_FORWARD || ex->up == NULL || ex->stopped || ex->all_sent)
		return;
	/* Filled first, so that the head and what came with it go out in one record. */
	do {
		if (rounds-- == 0) {
			exchange_go_on_later(ex);
			return;
		}
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
		wtimer_set_from(ex->client.timer, ex->sent, exchange_config(ex)->timeouts.answer);
}

/* ---- the client's side ---- */

void
exchange_on_client(struct exchange *ex)
{
	exchange_pump_request(ex);
	if (ex->state == EX_RELAY) {
		exchange_pump_answer(ex);
		return;
	}
	if (ex->state == EX_DONE || ex->client_gone)
		return;
	if (ex->state == EX_FORWARD && buf_size(&ex->to_client) > 0)
		exchange_flush_client(ex);
	/* EOF is a half-close and legal; only a reset says that nobody listens. */
	if (!ex->client_gone && ex->client.stream->readable)
		ex->client_gone = stream_is_reset(ex->client.stream);
	if (ex->client_gone && !ex->forwarded && ex->state < EX_RECORD)
		exchange_give_up(ex, REFUSAL_CLIENT_GONE);
}
