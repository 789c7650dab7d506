#include "data/conn.h"

#include "data/exchange.h"
#include "data/peers.h"
#include "data/tls.h"
#include "data/upstream.h"
#include "keytrail/clock.h"
#include "keytrail/parse.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#define LINGER_BYTES 65536
#define LINGER_MS    1000
#define LAST_WAIT_MS 5000 /* for a request that crosses the end of the connection's lifetime */

enum conn_state { CONN_HANDSHAKE, CONN_IDLE, CONN_BUSY, CONN_LINGER, CONN_DEAD };

/* One a connection, idle or not: the order is what keeps it small. */
struct conn {
	TAILQ_ENTRY(conn) link;
	struct worker *worker;
	struct lease *lease; /* of the handshake */
	struct stream stream;
	struct wtimer timer;
	struct buf in;
	struct http_scan scan;
	enum conn_state state : 8;
	bool ended : 1;	   /* lingering: close_notify and FIN are sent */
	bool last : 1;	   /* lingering: the client may not send more, and has not */
	bool resuming : 1; /* `later` waits already, to go on */
	union {
		int64_t arrival; /* of the head's first byte, wall clock ns; 0: none yet */
		struct exchange *exchange; /* CONN_BUSY */
		uint64_t lingered;	   /* CONN_LINGER: bytes */
	};
	struct origin peer;
	struct peer *source;			  /* NULL: a trusted network's */
	int64_t born;				  /* monotonic ns */
	struct identity_certificate *certificate; /* owned; NULL without one, as most are */
	struct reap later;			  /* to be freed, or to go on */
	struct turn turn; /* of the handshake, a request, the end, what came too late */
};

static void read_head(struct conn *c);
static void on_exchange_done(void *arg, enum exchange_end end);

static const struct config_timeouts *
timeouts_of(const struct conn *c)
{
	return &c->worker->lease->snapshot->config->timeouts;
}

/* When the connection's lifetime is over, INT64_MAX: never. */
static int64_t
old_at(const struct conn *c)
{
	int64_t lifetime = timeouts_of(c)->lifetime * CLOCK_NS_PER_MS;

	return lifetime > 0 ? c->born + lifetime : INT64_MAX;
}

/* ---- the end ---- */

static void
free_conn(struct conn *c)
{
	buf_fini(&c->in);
	free(c->certificate);
	free(c);
}

static void
leave_source(struct worker *w, struct peer *source)
{
	if (source == NULL)
		return;
	peer_disconnect(source);
	peers_drop(w->peers, source);
}

static void
close_conn(struct conn *c)
{
	struct worker *w = c->worker;

	assert(c->state != CONN_DEAD && c->state != CONN_BUSY);
	c->state = CONN_DEAD;
	if (stream_is_flooded(&c->stream))
		metrics_add(w->metrics, METRIC_HANDSHAKE_FAILURES, TLS_FAILURE_FLOOD, 1);
	if (c->stream.starved)
		worker_starved(w, "a connection");
	stream_close(&c->stream);
	wtimer_fini(&c->timer);
	turns_cancel(&c->turn);
	leave_source(w, c->source);
	worker_lease_drop(c->lease);
	TAILQ_REMOVE(&w->conns, c, link);
	w->nconns--;
	atomic_fetch_sub_explicit(w->open_connections, 1, memory_order_relaxed);
	metrics_add(w->metrics, METRIC_CONNECTIONS_OPEN, 0, -1);
	if (!c->resuming)
		turns_reap_later(&w->turns, &c->later);
	worker_connection_gone(w);
}

static struct exchange_client
client_of(struct conn *c)
{
	return (struct exchange_client){ .worker = c->worker,
		.stream = &c->stream,
		.in = &c->in,
		.timer = &c->timer,
		.peer = &c->peer,
		.source = c->source,
		.last_ns = old_at(c),
		.certificate = c->certificate,
		.done = on_exchange_done,
		.arg = c };
}

/* What follows the last request is not read as one (RFC 9112 section 9.6), and not answered, for that
 * would answer nothing; but that it came is recorded, once.  Line ends alone are no request (section
 * 2.2). */
static void
tell_more(struct conn *c, struct slice more)
{
	struct exchange_client client;
	char source[PEERS_TEXT_SIZE];

	while (more.n > 0 && (more.p[0] == '\r' || more.p[0] == '\n'))
		more = slice_sub(more, 1, more.n);
	if (!c->last || more.n == 0)
		return;
	c->last = false;
	client = client_of(c);
	if (exchange_note(&client, REFUSAL_AFTER_CLOSE, clock_wall_ns()) == 0)
		return;
	peers_source_text(c->peer.address, source);
	worker_count_refusal(c->worker, refusal_info(REFUSAL_AFTER_CLOSE), source, RING_NO_SLOT);
}

static void
linger(struct conn *c)
{
	enum stream_result r = STREAM_OK;
	size_t n;

	/* A slow client has to make room for the end first, as for any byte of the answer. */
	if (!c->ended && stream_shutdown_write(&c->stream) == STREAM_OK) {
		c->ended = true;
		wtimer_set(&c->timer, LINGER_MS);
	}
	while (r == STREAM_OK && c->lingered < LINGER_BYTES && stream_may_read(&c->stream)) {
		if (buf_reserve(&c->in, STREAM_READ) == -1)
			break;
		r = stream_read(&c->stream, buf_tail(&c->in), STREAM_READ, &n);
		if (r == STREAM_OK) {
			tell_more(c, (struct slice){ buf_tail(&c->in), n });
			c->lingered += n;
			buf_commit(&c->in, n);
			buf_consume(&c->in, n);
		}
	}
	if ((r != STREAM_OK && r != STREAM_AGAIN) || c->lingered >= LINGER_BYTES)
		close_conn(c);
}

static void
start_linger(struct conn *c)
{
	c->state = CONN_LINGER;
	c->lingered = 0;
	buf_consume(&c->in, buf_size(&c->in));
	wtimer_set(&c->timer, timeouts_of(c)->body);
	linger(c);
}

/* ---- exchanges ---- */

static void
on_later(struct reap *later)
{
	struct conn *c = (struct conn *)((char *)later - offsetof(struct conn, later));

	c->resuming = false;
	if (c->state == CONN_DEAD)
		free_conn(c);
	else if (c->state == CONN_IDLE)
		read_head(c);
	else if (c->state == CONN_LINGER)
		start_linger(c);
}

/* Through the worker's list, so that a client who pipelines cannot make us recurse. */
static void
on_exchange_done(void *arg, enum exchange_end end)
{
	struct conn *c = arg;

	assert(c->state == CONN_BUSY);
	c->arrival = 0;
	http_scan_reset(&c->scan);
	c->last = end == EXCHANGE_LAST;
	tell_more(c, buf_slice(&c->in));
	if (c->stream.broken) {
		c->state = CONN_IDLE;
		close_conn(c);
		return;
	}
	c->state = end == EXCHANGE_NEXT ? CONN_IDLE : CONN_LINGER;
	c->resuming = true;
	turns_reap_later(&c->worker->turns, &c->later);
}

static void
start_exchange(struct conn *c, const struct http_head *head, size_t used, enum http_refusal why)
{
	struct exchange_client client = client_of(c);

	wtimer_clear(&c->timer);
	c->state = CONN_BUSY;
	/* The head's bytes stay where they are until the next read, which comes after they are
	 * used: consuming only moves an offset. */
	buf_consume(&c->in, used);
	if (exchange_start(&client, head, why, c->arrival, &c->exchange) == -1) {
		c->state = CONN_IDLE;
		c->stream.starved = true;
		close_conn(c);
	} else if (buf_size(&c->in) == 0) {
		/* For the next one to use, while it is still in the processor's cache. */
		buf_fini(&c->in);
	}
}

/* ---- heads ---- */

/* The head has its own time.  Between calls the connection's lifetime may be over sooner, but a
 * request on its way is still met: its answer says that it was the last. */
static void
limit_wait(struct conn *c)
{
	int64_t now = clock_mono_ns(), left_ms = (old_at(c) - now) / CLOCK_NS_PER_MS + 1;
	unsigned ms = c->arrival == 0 ? timeouts_of(c)->idle : timeouts_of(c)->head;

	if (left_ms < LAST_WAIT_MS)
		left_ms = LAST_WAIT_MS;
	if (c->arrival == 0 && left_ms < ms)
		ms = (unsigned)left_ms;
	wtimer_set_from(&c->timer, now, ms);
}

/* False: wait, or the connection is gone. */
static bool
read_more(struct conn *c)
{
	bool may_read =
	    buf_size(&c->in) > 0 ? stream_may_go_on(&c->stream) : stream_may_read(&c->stream);
	size_t n = 0;

	if (may_read && buf_reserve(&c->in, STREAM_READ) == -1) {
		c->stream.starved = true;
		close_conn(c);
		return false;
	}
	switch (
	    may_read ? stream_read(&c->stream, buf_tail(&c->in), STREAM_READ, &n) : STREAM_AGAIN) {
	case STREAM_OK:
		buf_commit(&c->in, n);
		metrics_add(c->worker->metrics, METRIC_RECEIVED_BYTES, 0, (int64_t)n);
		if (c->arrival == 0) {
			c->arrival = clock_wall_ns();
			wtimer_clear(&c->timer);
		}
		return true;
	case STREAM_AGAIN:
		if (buf_size(&c->in) == 0)
			buf_fini(&c->in);
		/* Not again at each edge: it may tell of bytes that are only TLS's. */
		if (c->timer.deadline == 0)
			limit_wait(c);
		return false;
	default:
		close_conn(c);
		return false;
	}
}

static void
read_head(struct conn *c)
{
	struct worker *w = c->worker;
	enum http_refusal why = REFUSAL_NONE;
	enum http_result r = HTTP_MORE;
	size_t used = 0;

	if (w->draining == WORKER_STOPS && buf_size(&c->in) == 0) {
		close_conn(c);
		return;
	}
	/* Pipelined bytes are here already. */
	if (buf_size(&c->in) > 0 && c->arrival == 0) {
		c->arrival = clock_wall_ns();
		wtimer_clear(&c->timer);
	}
	do {
		if (buf_size(&c->in) > 0)
			r = http_parse_request(&c->scan, buf_slice(&c->in),
			    &w->lease->snapshot->limits, &w->head, &used, &why);
	} while (r == HTTP_MORE && read_more(c));
	if (r == HTTP_DONE)
		start_exchange(c, &w->head, used, REFUSAL_NONE);
	else if (r == HTTP_BAD)
		start_exchange(c, NULL, 0, why);
}

/* ---- handshake ---- */

static enum tls_failure
failure_of(const struct stream *s, enum stream_result r)
{
	if (s->starved)
		return TLS_FAILURE_MEMORY;
	if (r != STREAM_ERROR)
		return TLS_FAILURE_CLOSED;
	if (SSL_get_verify_result(s->ssl) == X509_V_ERR_CERT_REVOKED)
		return TLS_FAILURE_REVOKED;
	if (SSL_get_verify_result(s->ssl) != X509_V_OK)
		return TLS_FAILURE_CERTIFICATE;
	switch (s->reason) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return TLS_FAILURE_NO_CERTIFICATE;
	case SSL_R_CALLBACK_FAILED:
		return TLS_FAILURE_UNKNOWN_NAME;
	case SSL_R_NO_APPLICATION_PROTOCOL:
		return TLS_FAILURE_ALPN;
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
		return TLS_FAILURE_REJECTED;
	default:
		return TLS_FAILURE_PROTOCOL;
	}
}

/* Who came without the certificate that is asked for, or with a bad one, is recorded: see tally. */
static void
handshake_failed(struct conn *c, enum tls_failure why)
{
	char source[PEERS_TEXT_SIZE];
	enum refusal_client refusal;

	metrics_add(c->worker->metrics, METRIC_HANDSHAKE_FAILURES, why, 1);
	if (why == TLS_FAILURE_REVOKED)
		refusal = REFUSAL_CLIENT_REVOKED;
	else if (why == TLS_FAILURE_CERTIFICATE || why == TLS_FAILURE_NO_CERTIFICATE)
		refusal = REFUSAL_CLIENT_CERTIFICATE;
	else
		return;
	peers_source_text(c->peer.address, source);
	worker_count_refusal(c->worker, refusal_client_info(refusal), source, RING_NO_SLOT);
}

/* -1 when memory is short: whoever was identified may not go on as nobody. */
static int
remember_certificate(struct conn *c)
{
	struct tls_peer peer;
	struct identity_certificate *cert;
	char *text;

	if (tls_peer_read(c->stream.ssl, &peer) == -1)
		return -1;
	if (peer.nname == 0)
		return 0;
	if ((cert = malloc(sizeof(*cert) + peer.nname + peer.nother)) == NULL)
		return -1;
	text = (char *)(cert + 1);
	memcpy(text, peer.name, peer.nname);
	memcpy(text + peer.nname, peer.other, peer.nother);
	cert->name = (struct slice){ text, peer.nname };
	cert->other = (struct slice){ text + peer.nname, peer.nother };
	c->certificate = cert;
	return 0;
}

static void
handshake(struct conn *c)
{
	struct metrics_shard *m = c->worker->metrics;
	enum stream_result r;
	char client[ORIGIN_TEXT_SIZE];
	struct err err;

	if ((r = stream_handshake(&c->stream, &err)) == STREAM_AGAIN)
		return;
	if (r != STREAM_OK) {
		handshake_failed(c, failure_of(&c->stream, r));
		origin_text(&c->peer, client);
		log_debug(c->worker->log, "handshake_failed", "%s: %s", client, err.msg);
		close_conn(c);
		return;
	}
	if (c->stream.ssl != NULL) {
		metrics_add(m, METRIC_HANDSHAKES, SSL_session_reused(c->stream.ssl) ? 1 : 0, 1);
		if (remember_certificate(c) == -1) {
			c->stream.starved = true;
			close_conn(c);
			return;
		}
	}
	wtimer_clear(&c->timer);
	c->state = CONN_IDLE;
	read_head(c);
}

/* ---- callbacks ---- */

static void
go_on(struct conn *c)
{
	if (c->resuming)
		return;
	switch (c->state) {
	case CONN_HANDSHAKE:
		handshake(c);
		break;
	case CONN_IDLE:
		read_head(c);
		break;
	case CONN_BUSY:
		exchange_on_client(c->exchange);
		break;
	case CONN_LINGER:
		linger(c);
		break;
	case CONN_DEAD:
		break;
	}
}

static void
on_ready(void *arg)
{
	struct conn *c = arg;

	if (c->state == CONN_HANDSHAKE)
		turns_wait(&c->worker->turns, &c->turn, TURN_STEP);
	else if (c->state == CONN_IDLE)
		turns_wait(&c->worker->turns, &c->turn, TURN_CALL);
	else
		go_on(c);
}

static void
time_over(struct conn *c)
{
	if (c->state == CONN_BUSY) {
		exchange_on_timeout(c->exchange);
		return;
	}
	if (c->state == CONN_IDLE && c->arrival != 0 && !c->resuming) {
		start_exchange(c, NULL, 0, REFUSAL_REQUEST_TIMEOUT);
		return;
	}
	if (c->state == CONN_HANDSHAKE) {
		c->stream.broken = true;
		metrics_add(c->worker->metrics, METRIC_HANDSHAKE_FAILURES, TLS_FAILURE_TIMEOUT, 1);
	}
	if (c->state != CONN_DEAD && !c->resuming)
		close_conn(c);
}

static void
on_turn(struct turn *turn)
{
	struct conn *c = (struct conn *)((char *)turn - offsetof(struct conn, turn));

	/* What came in time may have waited while others had their turn. */
	if (c->timer.deadline == WTIMER_OVER && c->state == CONN_IDLE && !c->resuming &&
	    stream_has_news(&c->stream)) {
		c->stream.readable = true;
		read_head(c);
	}
	if (c->timer.deadline == WTIMER_OVER) {
		wtimer_clear(&c->timer);
		time_over(c);
	}
	if (c->stream.end != STREAM_OK)
		stream_tell_end(&c->stream);
	if (c->stream.end != STREAM_OK || c->state == CONN_HANDSHAKE || c->state == CONN_IDLE)
		go_on(c);
}

/* A thousand clients may go at once, or be late, and each leaves much to do. */
static void
on_ending(void *arg)
{
	struct conn *c = arg;

	turns_wait(&c->worker->turns, &c->turn, TURN_STEP);
}

static void
on_timeout(void *arg)
{
	struct conn *c = arg;

	c->timer.deadline = WTIMER_OVER;
	turns_wait(&c->worker->turns, &c->turn, TURN_STEP);
}

/* Each connection has a slot for its call in flight.  False: one too many. */
static bool
admit(struct conn *c)
{
	struct worker *w = c->worker;
	const struct config *config = w->lease->snapshot->config;

	if (w->nconns >= ring_slots(w->ring) - WORKER_SLOTS)
		return false;
	if (config_network_contains(
		config->trusted_networks, config->ntrusted_networks, c->peer.address))
		return true;
	if ((c->source = worker_hold_source(w, c->peer.address, c->born)) == NULL)
		return false;
	if (peer_connect(c->source, config->limits.connections_per_address))
		return true;
	peers_drop(w->peers, c->source);
	c->source = NULL;
	return false;
}

static void
accept_conn(struct worker *w, int fd, const struct sockaddr_storage *peer)
{
	const struct tls_server *server = w->lease->snapshot->server;
	struct conn *c = calloc(1, sizeof(*c));
	struct stream_opts opts = { .base = w->base,
		.method = w->stream_method,
		.ctx = server != NULL ? tls_server_context(server) : NULL,
		.ready = on_ready,
		.ending = on_ending,
		.arg = c };
	struct err err;

	if (c == NULL || w->draining == WORKER_STOPS) {
		if (c == NULL)
			worker_starved(w, "a connection");
		close(fd);
		goto refused;
	}
	c->worker = w;
	c->in.pool = &w->reads;
	c->born = clock_mono_ns();
	origin_of_peer(peer, &c->peer);
	if (!admit(c)) {
		metrics_add(w->metrics, METRIC_CONNECTIONS_REJECTED, 0, 1);
		close(fd);
		goto refused;
	}
	if (stream_open(&c->stream, fd, &opts, &err) == -1) {
		log_warn(w->log, "accept_failed", "%s", err.msg);
		worker_starved(w, "a connection");
		leave_source(w, c->source);
		goto refused;
	}
	c->lease = worker_lease_take(w);
	c->later = (struct reap){ .reap = on_later };
	c->turn = (struct turn){ .ready = on_turn };
	wtimer_init(&c->timer, &w->timers, on_timeout, c);
	wtimer_set(&c->timer, timeouts_of(c)->handshake);
	TAILQ_INSERT_TAIL(&w->conns, c, link);
	w->nconns++;
	metrics_add(w->metrics, METRIC_CONNECTIONS, 0, 1);
	metrics_add(w->metrics, METRIC_CONNECTIONS_OPEN, 0, 1);
	turns_wait(&w->turns, &c->turn, TURN_STEP);
	return;
refused:
	free(c);
	atomic_fetch_sub_explicit(w->open_connections, 1, memory_order_relaxed);
}

static void
drain_conns(struct worker *w)
{
	struct conn *c, *next;

	if (w->draining == WORKER_LEAVES)
		return;
	for (c = TAILQ_FIRST(&w->conns); c != NULL; c = next) {
		next = TAILQ_NEXT(c, link);
		if (!c->resuming && (c->state == CONN_HANDSHAKE ||
					(c->state == CONN_IDLE && buf_size(&c->in) == 0)))
			close_conn(c);
	}
	upstream_close_idle(w->upstream);
}

static void
abort_conns(struct worker *w)
{
	struct conn *c, *next;

	for (c = TAILQ_FIRST(&w->conns); c != NULL; c = next) {
		next = TAILQ_NEXT(c, link);
		c->stream.broken = true;
		if (c->state == CONN_BUSY)
			exchange_abort(c->exchange);
		else if (c->state != CONN_DEAD)
			close_conn(c);
	}
}

static int
init(struct worker *w, struct err *err)
{
	pool_init(&w->exchanges, exchange_size, POOL_UNBOUNDED);
	return (w->upstream = upstream_new(w, err)) != NULL ? 0 : -1;
}

static void
fini(struct worker *w)
{
	upstream_free(w->upstream);
}

static void
reload(struct worker *w)
{
	upstream_reconfigure(w->upstream);
}

const struct worker_hooks conn_hooks = { .init = init,
	.fini = fini,
	.reload = reload,
	.accept = accept_conn,
	.drain = drain_conns,
	.abort = abort_conns };
