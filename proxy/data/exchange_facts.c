#include "data/exchange_internal.h"

#include "data/rewrite.h"
#include "data/tls.h"
#include "keytrail/fault.h"

#include <assert.h>

#define GATHER_MAX 16384 /* bytes of a request whose body is awaited: what its buffer doubles to */

/* The client's own correlation ID where it fits the grammar, else the event's. */
static void
choose_correlation(struct exchange *ex)
{
	const struct audit_event *ev = &ex->event;
	bool own = scrub_fits(exchange_config(ex)->correlation_grammar, slice_of(ev->correlation));

	memcpy(ex->correlation, own ? ev->correlation : ev->id,
	    own ? sizeof(ev->correlation) : sizeof(ev->id));
}

static void
set_origin(struct exchange *ex, const struct http_head *head)
{
	ex->origin = *ex->client.peer;
	if (head != NULL &&
	    origin_of_request(exchange_config(ex), ex->client.peer, head, &ex->origin))
		origin_text(ex->client.peer, ex->event.peer);
	origin_text(&ex->origin, ex->event.address);
}

const unsigned char *
exchange_source(const struct exchange *ex)
{
	bool known = ex->client.source != NULL || ex->event.peer[0] != '\0';

	return known ? ex->origin.address : NULL;
}

/* Ask for the source of the request; a source that cannot be remembered has no limit. */
static bool
ask_source(const struct exchange *ex, bool (*may)(struct peer *, unsigned, int64_t), unsigned rate)
{
	struct peers *peers = ex->worker->peers;
	struct peer *peer = ex->client.source;
	bool yes;

	if (peer != NULL)
		return may(peer, rate, ex->started);
	peer = worker_hold_source(ex->worker, ex->origin.address, ex->started);
	if (peer == NULL)
		return true;
	yes = may(peer, rate, ex->started);
	peers_drop(peers, peer);
	return yes;
}

bool
exchange_within_rate(struct exchange *ex)
{
	unsigned rate = exchange_config(ex)->limits.rate;

	return rate == 0 || ask_source(ex, peer_may_request, rate);
}

static enum guarantee
guarantee_of(const struct exchange *ex, const struct route *route)
{
	if (route->guarantee == GUARANTEE_ASYNC ||
	    !degrade_covers(ex->worker->degrade, ex->started))
		return route->guarantee;
	metrics_add(ex->worker->metrics, METRIC_DEGRADED_REQUESTS, 0, 1);
	return GUARANTEE_ASYNC;
}

/* RFC 9110 section 7.4: the client trusts us for another name. */
static bool
is_misdirected(const struct exchange *ex, const struct http_head *head)
{
	const SSL *ssl = ex->client.stream->ssl;
	struct slice name = http_head_host(head);

	return ssl != NULL && name.n > 0 && !tls_serves(ssl, name);
}

static enum http_refusal
classify(struct exchange *ex, const struct http_head *head)
{
	const struct snapshot *snap = ex->lease->snapshot;
	const struct config *c = snap->config;
	struct route_match match;

	route_match(c->routes, head, &match);
	event_from_request(
	    &ex->event, head, &match, snap->correlation_header, c->correlation_grammar);
	worker_identify(
	    ex->worker, event_authorization(head), snap->profile.names, &ex->event.identity);
	ex->guarantee = guarantee_of(ex, match.route);
	ex->intend = ex->guarantee == GUARANTEE_INTENT;
	ex->to_head = slice_equal(head->method, SLICE("HEAD"));
	ex->is_10 = head->minor == 0;
	ex->client_keeps = head->keep_alive;
	ex->client_ends = !head->keep_alive;
	ex->may_retry = (ex->to_head || slice_equal(head->method, SLICE("GET"))) &&
			head->framing == HTTP_NO_BODY && match.route->retry;
	http_body_follow(&ex->request_body, head);
	if (match.refusal != REFUSAL_NONE)
		return match.refusal;
	if (is_misdirected(ex, head))
		return REFUSAL_MISDIRECTED;
	if (!match.matched && c->audit.deny_unmatched)
		return REFUSAL_DENIED;
	if (head->framing == HTTP_LENGTH && head->length > c->limits.body)
		return REFUSAL_BODY_TOO_LARGE;
	return REFUSAL_NONE;
}

static void
remember_host(struct exchange *ex, const struct http_head *head)
{
	struct slice host = http_head_host(head);

	if (host.n < sizeof(ex->host))
		slice_to_cstr(host, ex->host, sizeof(ex->host));
}

enum http_refusal
exchange_prepare(struct exchange *ex, const struct http_head *head)
{
	const struct snapshot *snap = ex->lease->snapshot;
	enum http_refusal why = classify(ex, head);
	char client[ORIGIN_TEXT_SIZE];
	struct rewrite_request r = { .head = head,
		.upstream = &snap->config->upstream,
		.correlation_header = snap->correlation_header,
		.correlation = ex->event.id,
		.client = client,
		.trusted_peer = config_network_contains(snap->config->trusted_networks,
		    snap->config->ntrusted_networks, ex->client.peer->address),
		.tls = ex->client.stream->ssl != NULL };

	origin_text(ex->client.peer, client);
	remember_host(ex, head);
	if (why == REFUSAL_NONE && rewrite_request(&ex->to_up, &r) == -1)
		why = REFUSAL_OUT_OF_MEMORY;
	ex->gather = head->framing == HTTP_LENGTH && !head->expect_continue &&
		     head->length <= GATHER_MAX &&
		     buf_size(&ex->to_up) <= GATHER_MAX - head->length;
	return why;
}

void
exchange_identify(struct exchange *ex, const struct http_head *head)
{
	if (ex->client.certificate != NULL)
		identity_from_certificate(ex->client.certificate, &ex->event.identity);
	set_origin(ex, head);
	choose_correlation(ex);
}

static void
count(struct exchange *ex)
{
	static const enum metric_outcome outcomes[] = {
		[EVENT_SUCCESS] = METRIC_OUTCOME_SUCCESS,
		[EVENT_FAILURE] = METRIC_OUTCOME_FAILURE,
		[EVENT_UNKNOWN] = METRIC_OUTCOME_UNKNOWN,
	};
	const struct snapshot *snap = ex->lease->snapshot;
	const struct route *route = ex->event.route;
	struct metrics_shard *m = ex->worker->metrics;
	enum event_outcome outcome = event_outcome(&ex->event);

	if (ex->refusal != REFUSAL_NONE)
		metrics_add(m, METRIC_REFUSED, ex->refusal, 1);
	if (route == NULL)
		return;
	if (!ex->event.matched) {
		metrics_add(m, METRIC_UNMATCHED, 0, 1);
		shapes_count(ex->worker->shapes, ex->event.shape, ex->event.arrival_ns);
	}
	metrics_add(m, METRIC_ROUTE_REQUESTS, snap->route_metric[route->index], 1);
	metrics_count_request(
	    m, snap->action_metric[route->action_index], outcomes[outcome], ex->event.status);
}

/* No answer named the call: its record has the ID that was sent on, or that our own answer has. */
static void
complete_correlation(const struct exchange *ex, struct audit_event *ev)
{
	if (ev->correlation[0] != '\0')
		return;
	memcpy(ev->correlation, ex->correlation, sizeof(ev->correlation));
	ev->correlation_source = CORRELATION_REQUEST;
}

static size_t
render(const struct exchange *ex, const struct audit_event *ev, char *out)
{
	return event_render(&ex->lease->snapshot->profile, ev, out);
}

/* ---- room, the call in flight, the intent ---- */

bool
exchange_claim(struct exchange *ex)
{
	struct ring *ring = ex->worker->ring;

	if (ex->claimed)
		return true;
	if (!ring_claim(ring, EVENT_LINE_MAX))
		return false;
	if (ex->intend && !ring_claim(ring, EVENT_LINE_MAX)) {
		ring_unclaim(ring, EVENT_LINE_MAX);
		return false;
	}
	return ex->claimed = true;
}

/* As if no answer ever came: that is how a killed process leaves it. */
void
exchange_publish(struct exchange *ex)
{
	struct ring *ring = ex->worker->ring;
	struct audit_event ev;

	if (ex->slot != RING_NO_SLOT)
		return;
	ev = ex->event;
	ex->slot = ring_slot_take(ring);
	assert(ex->slot != RING_NO_SLOT); /* a connection is taken only where there is one for it */
	ev.unknown_reason = "restart";
	complete_correlation(ex, &ev);
	ring_slot_publish(ring, ex->slot, render(ex, &ev, ring_slot_line(ring, ex->slot)));
	FAULT_POINT("exchange.after_slot");
}

static void
retire(struct exchange *ex)
{
	if (ex->slot != RING_NO_SLOT)
		ring_slot_close(ex->worker->ring, ex->slot);
	ex->slot = RING_NO_SLOT;
}

uint64_t
exchange_intend(struct exchange *ex)
{
	struct worker *w = ex->worker;
	struct audit_event ev = ex->event;
	uint64_t position;
	size_t n;

	assert(ex->claimed && ex->intend);
	ex->intend = false;
	ex->intended = true;
	ev.pending = true;
	complete_correlation(ex, &ev);
	metrics_add(w->metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	n = render(ex, &ev, ring_line(w->ring, EVENT_LINE_MAX));
	position = ring_commit(w->ring, EVENT_LINE_MAX, n, RING_DURABLE);
	FAULT_POINT("exchange.after_intent");
	journal_kick(w->journal);
	return position;
}

/* Loss is counted in the names that the event would have had. */
static void
lose(struct exchange *ex)
{
	const struct audit_event *ev = &ex->event;
	const char *action = ev->route != NULL ? ev->route->action : "keytrail.refused";

	worker_lose(ex->worker, action,
	    ev->identity.state == IDENTITY_CERTIFICATE ? ev->identity.name
	    : event_is_verified(ev)		       ? ev->identity.iam_id
						       : "unauthenticated",
	    ex->slot);
}

/* Junk shall neither fill the trail nor bury what it is kept for: what was refused before anything
 * of it was forwarded or announced is counted when its source sends too much of it. */
static bool
is_junk(const struct exchange *ex)
{
	unsigned rate = exchange_config(ex)->limits.refusals;

	return ex->refusal != REFUSAL_NONE && !ex->forwarded && !ex->intended && rate != 0 &&
	       !ask_source(ex, peer_may_record, rate);
}

static void
count_junk(struct exchange *ex)
{
	char source[PEERS_TEXT_SIZE];

	if (ex->claimed)
		ring_unclaim(ex->worker->ring, EVENT_LINE_MAX);
	ex->claimed = false;
	peers_source_text(ex->origin.address, source);
	worker_count_refusal(ex->worker, refusal_info(ex->refusal), source, ex->slot);
	retire(ex);
}

/* The event is in the ring from here on, or counted as lost. */
uint64_t
exchange_record(struct exchange *ex)
{
	struct worker *w = ex->worker;
	/* What was never forwarded changed nothing: its answer need not wait for a disk. */
	bool durable = ex->forwarded && ex->guarantee != GUARANTEE_ASYNC;
	uint64_t position;
	size_t n;

	count(ex);
	if (ex->claimed && ex->intend)
		ring_unclaim(w->ring, EVENT_LINE_MAX);
	ex->intend = false;
	if (is_junk(ex)) {
		count_junk(ex);
		return 0;
	}
	/* Before the journal can count it as recorded. */
	metrics_add(w->metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	if (!exchange_claim(ex)) {
		lose(ex);
		retire(ex);
		return 0;
	}
	ex->claimed = false;
	complete_correlation(ex, &ex->event);
	n = render(ex, &ex->event, ring_line(w->ring, EVENT_LINE_MAX));
	FAULT_POINT("exchange.before_commit");
	position = ring_commit(w->ring, EVENT_LINE_MAX, n, durable ? RING_DURABLE : 0);
	FAULT_POINT("exchange.after_commit");
	retire(ex);
	FAULT_POINT("exchange.after_close");
	if (!durable) {
		journal_kick_async(w->journal);
		return 0;
	}
	journal_kick(w->journal);
	return position;
}
