#include "data/exchange_internal.h"

#include "data/rewrite.h"
#include "keytrail/clock.h"

#include <assert.h>
#include <stdlib.h>

#define ROOM_WAIT_MS   50   /* for room in the ring, before 503 trail_slow */
#define INTENT_WAIT_MS 5000 /* for the intent to be durable, before the same */

static void enter(struct exchange *ex, enum ex_state next);

/* ---- the final answer is ours ---- */

void
exchange_refuse(struct exchange *ex, enum http_refusal why, const char *unknown_reason)
{
	assert(ex->state < EX_RECORD);
	if (why == REFUSAL_OUT_OF_MEMORY)
		worker_starved(ex->worker, "a request");
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

void
exchange_give_up(struct exchange *ex, enum http_refusal why)
{
	ex->client_gone = true;
	exchange_refuse(ex, why, refusal_info(why)->label);
}

/* ---- a body's time ---- */

/* From here on, and again each time that it is over within the connection's lifetime, a body has
 * timeouts.body to move at limits.body_rate. */
static void
limit_moving(struct exchange *ex)
{
	wtimer_set(ex->client.timer, exchange_config(ex)->timeouts.body);
}

static void
start_moving(struct exchange *ex)
{
	ex->moved = 0;
	limit_moving(ex);
}

static bool
has_moved(const struct exchange *ex)
{
	const struct config *c = exchange_config(ex);

	return ex->moved > 0 && ex->moved * 1000 >= c->limits.body_rate * c->timeouts.body;
}

static bool
is_too_old(const struct exchange *ex)
{
	return clock_mono_ns() >= ex->client.last_ns;
}

/* ---- GATHER: a small body of a known length that nobody expects to be asked for, so that who sends
 * one slowly keeps room and connections from nobody.  Any other is passed on as it comes. ---- */

static void
on_gather(struct exchange *ex)
{
	exchange_pump_request(ex);
	if (ex->state == EX_GATHER)
		limit_moving(ex);
}

void
exchange_gathered(struct exchange *ex)
{
	wtimer_clear(ex->client.timer);
	enter(ex, EX_ACQUIRE);
}

/* ---- ACQUIRE: room in the ring, then a connection ---- */

/* The head was made for the key service of its time, which may be another one since. */
static bool
has_changed(const struct exchange *ex)
{
	const struct config *now = ex->worker->lease->snapshot->config;

	return !config_same_service(&exchange_config(ex)->upstream, &now->upstream);
}

/* All that is needed is there.  The call is in flight before anything of it can leave. */
static void
acquired(struct exchange *ex)
{
	if (has_changed(ex)) {
		exchange_refuse(ex, REFUSAL_UPSTREAM_CHANGED, "connection_lost"); /* of a retry */
		return;
	}
	exchange_publish(ex);
	enter(ex, ex->intend ? EX_INTEND : EX_FORWARD);
}

static void
on_acquired(void *arg, struct upstream_conn *c, enum http_refusal why)
{
	struct exchange *ex = arg;

	if (c == NULL) {
		exchange_refuse(ex, why,
		    why == REFUSAL_UPSTREAM_TIMEOUT ? "timeout"
		    : why == REFUSAL_OUT_OF_MEMORY  ? "out_of_memory"
						    : "connection_lost");
		return;
	}
	ex->up = c;
	acquired(ex);
}

static void
acquire(struct exchange *ex)
{
	bool fresh = ex->event.attempts > 1;

	ex->request = (struct upstream_request){
		.done = on_acquired, .arg = ex, .source = exchange_source(ex)
	};
	ex->up = upstream_acquire(ex->worker->upstream, &ex->request, fresh);
	if (ex->up != NULL)
		acquired(ex);
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
	bool wait;
	enum http_refusal why;

	if (exchange_claim(ex) || ex->guarantee == GUARANTEE_ASYNC) {
		wtimer_clear(ex->client.timer);
		acquire(ex);
		return;
	}
	why = no_room(ex, &wait);
	if (!wait) {
		exchange_refuse(ex, why, NULL);
		return;
	}
	if (ex->client.timer->deadline == 0)
		wtimer_set(ex->client.timer, ROOM_WAIT_MS);
	worker_wait_room(ex->worker, &ex->waiter);
}

/* ---- INTEND ---- */

/* The connection's news, say its death, are met in FORWARD. */
static void
ignore_upstream(void *arg)
{
	(void)arg;
}

static void
on_intended(void *arg)
{
	enter(arg, EX_FORWARD);
}

static void
on_intend(struct exchange *ex)
{
	ex->up->ready = ignore_upstream;
	ex->up->arg = ex;
	ex->waiter.ready = on_intended;
	wtimer_set(ex->client.timer, INTENT_WAIT_MS);
	worker_wait_durable(ex->worker, &ex->waiter, exchange_intend(ex));
}

/* ---- FORWARD ---- */

static void
on_upstream(void *arg)
{
	struct exchange *ex = arg;

	exchange_pump_request(ex);
	if (ex->state == EX_FORWARD || ex->state == EX_RELAY)
		exchange_pump_answer(ex);
}

/* Queued before the exchange's own end can be, and so called before it is freed. */
static void
on_go_on(struct reap *r)
{
	struct exchange *ex = (struct exchange *)((char *)r - offsetof(struct exchange, go_on));

	ex->goes_on = false;
	on_upstream(ex);
}

void
exchange_go_on_later(struct exchange *ex)
{
	if (ex->goes_on)
		return;
	ex->goes_on = true;
	ex->go_on = (struct reap){ .reap = on_go_on };
	turns_reap_later(&ex->worker->turns, &ex->go_on);
}

static void
on_forward(struct exchange *ex)
{
	ex->up->ready = on_upstream;
	ex->up->arg = ex;
	http_scan_reset(&ex->scan);
	ex->moved = 0;
	/* What came before the request: the end of the connection, or an answer to nothing. */
	exchange_pump_answer(ex);
	exchange_pump_request(ex);
	if (ex->state == EX_FORWARD && !ex->all_sent)
		limit_moving(ex);
	if (ex->state == EX_FORWARD)
		exchange_pump_answer(ex);
}

/* ---- RECORD ---- */

static void
on_recorded(void *arg)
{
	enter(arg, EX_RELAY);
}

static void
on_record(struct exchange *ex)
{
	uint64_t position;

	upstream_cancel(ex->worker->upstream, &ex->request);
	worker_wait_cancel(&ex->waiter);
	/* Who has gone waits for nothing. */
	if ((position = exchange_record(ex)) == 0 || ex->client_gone) {
		enter(ex, EX_RELAY);
		return;
	}
	ex->waiter.ready = on_recorded;
	worker_wait_durable(ex->worker, &ex->waiter, position);
	wtimer_set(ex->client.timer, exchange_config(ex)->timeouts.answer);
	exchange_hold_answer(ex);
}

/* ---- RELAY ---- */

/* Our own answer ends the connection unless the request was well-formed and read to its end. */
bool
exchange_may_keep(const struct exchange *ex)
{
	int64_t now = ex->answered > 0 ? ex->answered : ex->started;

	if (!ex->client_keeps || now >= ex->client.last_ns || ex->worker->draining != WORKER_STAYS)
		return false;
	if (ex->refusal == REFUSAL_NONE)
		return true;
	return (ex->refusal == REFUSAL_DENIED || ex->refusal == REFUSAL_TOO_MANY_REQUESTS ||
		   refusal_info(ex->refusal)->status >= 500) &&
	       http_body_done(&ex->request_body);
}

static int
build_refusal(struct exchange *ex)
{
	struct rewrite_refusal r = { .refusal = ex->refusal,
		.correlation_header = ex->lease->snapshot->correlation_header,
		.correlation = ex->correlation,
		.client_minor = ex->is_10 ? 0 : 1,
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
	ex->moved = 0;
	if (ex->refusal != REFUSAL_NONE) {
		ex->keep = exchange_may_keep(ex);
		ex->answer_read = true;
		if (build_refusal(ex) == -1) {
			worker_starved(ex->worker, "an answer");
			ex->client_gone = true;
			enter(ex, EX_DONE);
			return;
		}
	}
	exchange_pump_answer(ex);
	if (ex->state == EX_RELAY)
		limit_moving(ex);
}

/* ---- DONE ---- */

static void
free_exchange(struct exchange *ex)
{
	struct pool *pool = &ex->worker->exchanges;

	buf_fini(&ex->to_up);
	buf_fini(&ex->to_client);
	http_body_fini(&ex->request_body);
	http_body_fini(&ex->answer_body);
	explicit_bzero(ex, offsetof(struct exchange, request_body));
	pool_give(pool, ex);
}

static void
on_reap(struct reap *r)
{
	free_exchange((struct exchange *)((char *)r - offsetof(struct exchange, reap)));
}

static void
observe(const struct exchange *ex)
{
	double total = (double)(clock_mono_ns() - ex->started) / CLOCK_NS_PER_S;
	int64_t service = ex->answered > ex->sent && ex->sent > 0 ? ex->answered - ex->sent : 0;

	metrics_observe(ex->worker->metrics, METRIC_REQUEST_SECONDS, total);
	metrics_observe(
	    ex->worker->metrics, METRIC_ADDED_SECONDS, total - (double)service / CLOCK_NS_PER_S);
	metrics_add(ex->worker->metrics, METRIC_REQUESTS_IN_FLIGHT, 0, -1);
}

/* What is left of a body must never be read as a request. */
static enum exchange_end
end_of(const struct exchange *ex)
{
	if (!http_body_done(&ex->request_body))
		return EXCHANGE_CLOSE;
	if (ex->client_ends)
		return EXCHANGE_LAST;
	return ex->keep && !ex->client_gone ? EXCHANGE_NEXT : EXCHANGE_CLOSE;
}

void
exchange_release_upstream(struct exchange *ex)
{
	bool whole = ex->answer_read && ex->all_sent && ex->refusal == REFUSAL_NONE;

	if (ex->up != NULL)
		upstream_release(ex->up, whole && ex->up_keeps);
	ex->up = NULL;
}

static void
on_done(struct exchange *ex)
{
	struct worker *w = ex->worker;
	enum exchange_end end = end_of(ex);

	assert(ex->slot == RING_NO_SLOT && !ex->claimed);
	exchange_release_upstream(ex);
	worker_wait_cancel(&ex->waiter);
	wtimer_clear(ex->client.timer);
	observe(ex);
	worker_lease_drop(ex->lease);
	ex->reap = (struct reap){ .reap = on_reap };
	turns_reap_later(&w->turns, &ex->reap);
	ex->client.done(ex->client.arg, end);
}

/* ---- the machine ---- */

#define TO(state) (1u << EX_##state)

static const struct {
	const char *name;
	unsigned next; /* the only legal successors */
	void (*enter)(struct exchange *ex);
} ex_states[] = {
	[EX_HEAD] = { "head", TO(GATHER) | TO(RECORD), NULL },
	[EX_GATHER] = { "gather", TO(ACQUIRE) | TO(RECORD), on_gather },
	/* To itself: the ring may have room now. */
	[EX_ACQUIRE] = { "acquire", TO(ACQUIRE) | TO(INTEND) | TO(FORWARD) | TO(RECORD),
	    on_acquire },
	[EX_INTEND] = { "intend", TO(FORWARD) | TO(RECORD), on_intend },
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

void
exchange_answered(struct exchange *ex)
{
	enter(ex, EX_RECORD);
}

void
exchange_retry(struct exchange *ex)
{
	ex->event.attempts = 2;
	ex->waiter.ready = on_room;
	ex->stopped = ex->all_sent = ex->asked = false;
	enter(ex, EX_ACQUIRE);
}

void
exchange_finish(struct exchange *ex)
{
	enter(ex, EX_DONE);
}

void
exchange_cut(struct exchange *ex, enum metric_id who)
{
	metrics_add(ex->worker->metrics, who, 0, 1);
	ex->client_gone = true;
	/* A close_notify would make a cut answer that ends with the connection look whole. */
	ex->client.stream->broken = true;
	enter(ex, EX_DONE);
}

void
exchange_cut_for_memory(struct exchange *ex)
{
	worker_starved(ex->worker, "an answer");
	exchange_cut(ex, METRIC_UPSTREAM_CUT);
}

/* The request is here only in part when its time is over. */
static void
request_is_late(struct exchange *ex)
{
	if (!has_moved(ex) && buf_size(&ex->to_up) > 0 && ex->state == EX_FORWARD)
		exchange_refuse(ex, REFUSAL_UPSTREAM_TIMEOUT, "timeout");
	else if (!has_moved(ex))
		exchange_refuse(ex, REFUSAL_REQUEST_TIMEOUT, "timeout");
	else if (is_too_old(ex))
		exchange_refuse(ex, REFUSAL_LIFETIME, "lifetime");
	else
		start_moving(ex);
}

static void
answer_is_late(struct exchange *ex)
{
	if (!has_moved(ex))
		exchange_cut(
		    ex, buf_size(&ex->to_client) > 0 ? METRIC_CLIENT_ABORTS : METRIC_UPSTREAM_CUT);
	else if (is_too_old(ex))
		exchange_cut(ex, METRIC_LIFETIME_CUT);
	else
		start_moving(ex);
}

void
exchange_on_timeout(struct exchange *ex)
{
	bool wait;

	switch (ex->state) {
	case EX_GATHER:
		request_is_late(ex);
		break;
	case EX_ACQUIRE:
	case EX_INTEND:
		exchange_refuse(ex, no_room(ex, &wait), NULL);
		break;
	case EX_FORWARD:
		if (ex->all_sent)
			exchange_refuse(ex, REFUSAL_UPSTREAM_TIMEOUT, "timeout");
		else
			request_is_late(ex);
		break;
	case EX_RECORD:
		/* The event will become durable or be found by recovery; the answer may not go. */
		log_error(ex->worker->log, "trail_slow",
		    "an answer was withheld because its event did not become durable in time");
		ex->client_gone = true;
		enter(ex, EX_DONE);
		break;
	case EX_RELAY:
		answer_is_late(ex);
		break;
	default:
		break;
	}
}

void
exchange_abort(struct exchange *ex)
{
	if (ex->state < EX_RECORD)
		exchange_give_up(ex, REFUSAL_SHUTDOWN);
	else if (ex->state == EX_RELAY)
		exchange_cut(ex, METRIC_CLIENT_ABORTS);
	if (ex->state == EX_RECORD) {
		ex->client_gone = true;
		enter(ex, EX_DONE);
	}
}

/* ---- the beginning ---- */

const size_t exchange_size = sizeof(struct exchange);

static struct exchange *
begin(const struct exchange_client *client, int64_t arrival_ns)
{
	struct exchange *ex = pool_take(&client->worker->exchanges);
	unsigned char random[10];

	if (ex == NULL)
		return NULL;
	memset(ex, 0, offsetof(struct exchange, request_body));
	ex->client = *client;
	ex->worker = client->worker;
	ex->lease = worker_lease_take(client->worker);
	ex->started = clock_mono_ns();
	ex->event.arrival_ns = arrival_ns;
	ex->event.attempts = 1;
	ex->slot = RING_NO_SLOT;
	ex->to_up.pool = ex->to_client.pool = &ex->worker->heads;
	worker_random(ex->worker, random, sizeof(random));
	clock_uuid7(arrival_ns, random, ex->event.id);
	ex->waiter = (struct worker_waiter){ .ready = on_room, .arg = ex };
	http_body_init(&ex->request_body, HTTP_NO_BODY, 0);
	http_body_init(&ex->answer_body, HTTP_NO_BODY, 0);
	return ex;
}

int
exchange_start(const struct exchange_client *client, const struct http_head *head,
    enum http_refusal refusal, int64_t arrival_ns, struct exchange **slot)
{
	struct exchange *ex = begin(client, arrival_ns);

	if (ex == NULL)
		return -1;
	if (head != NULL)
		refusal = exchange_prepare(ex, head);
	exchange_identify(ex, head);
	/* Whatever else is refused here ends the connection, or is for want of memory. */
	if ((refusal == REFUSAL_NONE || refusal == REFUSAL_DENIED) && !exchange_within_rate(ex))
		refusal = REFUSAL_TOO_MANY_REQUESTS;
	metrics_add(ex->worker->metrics, METRIC_REQUESTS_IN_FLIGHT, 0, 1);
	*slot = ex;
	if (refusal != REFUSAL_NONE)
		exchange_refuse(ex, refusal, NULL);
	else
		enter(ex, EX_GATHER);
	return 0;
}

int
exchange_note(const struct exchange_client *client, enum http_refusal refusal, int64_t arrival_ns)
{
	struct exchange *ex = begin(client, arrival_ns);

	if (ex == NULL)
		return -1;
	exchange_identify(ex, NULL);
	ex->refusal = ex->event.refusal = refusal;
	ex->event.status = refusal_info(refusal)->status;
	exchange_record(ex);
	worker_lease_drop(ex->lease);
	free_exchange(ex);
	return 0;
}
