#include "data/upstream.h"

#include "data/descriptors.h"
#include "data/tls.h"
#include "keytrail/clock.h"

#include <event2/event.h>

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * A request waits in the queue until there is a target and room in the pool, then owns the
 * connection that is being made for it; when that fails, the next target is tried.
 */

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

static const struct config_upstream *
config_of(const struct upstream *u)
{
	return &u->worker->lease->snapshot->config->upstream;
}

static void start_connecting(struct upstream *u, struct upstream_request *r);

/* ---- shares ---- */

static struct upstream_share *
share_of(struct upstream *u, const struct upstream_request *r)
{
	return r->source != NULL ? &u->shares[peers_bucket(u->worker->peers, r->source)] : NULL;
}

static unsigned
count_free(const struct upstream *u)
{
	unsigned used = u->nopen - u->nidle, max = config_of(u)->pool_max;

	return used < max ? max - used : 0;
}

static bool
may_have_more(const struct upstream *u, const struct upstream_share *share)
{
	return share == NULL || share->in_use < UPSTREAM_SHARE * count_free(u);
}

static bool
holds_some(const struct upstream_share *share)
{
	return share != NULL && !TAILQ_EMPTY(&share->held);
}

static void
use(struct upstream_conn *c, struct upstream_share *share)
{
	if ((c->share = share) != NULL)
		share->in_use++;
}

static void
use_no_more(struct upstream_conn *c)
{
	if (c->share != NULL)
		c->share->in_use--;
	c->share = NULL;
}

/* ---- the queue ---- */

static void
dequeue(struct upstream *u, struct upstream_request *r)
{
	TAILQ_REMOVE(r->held ? &r->share->held : &u->waiting, r, link);
	if (r->held && TAILQ_EMPTY(&r->share->held))
		TAILQ_REMOVE(&u->over, r->share, link);
	r->queued = r->held = false;
}

/* Nobody has to step over it, nor to wait behind it. */
static void
hold_back(struct upstream *u, struct upstream_request *r)
{
	struct upstream_share *share = r->share;

	TAILQ_REMOVE(&u->waiting, r, link);
	if (TAILQ_EMPTY(&share->held)) {
		TAILQ_INIT(&share->held);
		TAILQ_INSERT_TAIL(&u->over, share, link);
	}
	r->held = true;
	TAILQ_INSERT_TAIL(&share->held, r, link);
}

static void
serve_soon(struct upstream *u)
{
	if (!TAILQ_EMPTY(&u->waiting) || !TAILQ_EMPTY(&u->over))
		event_active(&u->serve_event, EV_TIMEOUT, 0);
}

/* ---- connections ---- */

static void
free_conn(struct reap *r)
{
	struct upstream_conn *c =
	    (struct upstream_conn *)((char *)r - offsetof(struct upstream_conn, reap));

	buf_fini(&c->in);
	free(c);
}

static void
leave_pool(struct upstream_conn *c)
{
	struct upstream *u = c->pool;

	c->idle = false;
	TAILQ_REMOVE(&u->idle, c, link);
	u->nidle--;
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_IDLE, 0, -1);
}

static void
take_from_pool(struct upstream_conn *c, struct upstream_share *share)
{
	leave_pool(c);
	use(c, share);
	c->reused = true;
	metrics_add(c->pool->worker->metrics, METRIC_UPSTREAM_REUSES, 0, 1);
}

static void
close_conn(struct upstream_conn *c)
{
	struct upstream *u = c->pool;

	if (c->idle)
		leave_pool(c);
	use_no_more(c);
	u->nopen--;
	atomic_fetch_sub_explicit(u->worker->open_upstream, 1, memory_order_relaxed);
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_OPEN, 0, -1);
	stream_close(&c->stream);
	c->reap = (struct reap){ .reap = free_conn };
	turns_reap_later(&u->worker->turns, &c->reap);
	serve_soon(u);
}

/* Nothing may arrive on an idle connection but TLS 1.3 tickets: those SSL_read keeps to itself. */
static void
check_idle(struct upstream_conn *c)
{
	char byte;
	size_t n;

	if (stream_may_read(&c->stream) && stream_read(&c->stream, &byte, 1, &n) != STREAM_AGAIN)
		close_conn(c);
}

/* An answer that nobody asked for, or the end, may be here before the loop tells of it: whoever sent
 * a request now would take it for the answer to that. */
static struct upstream_conn *
first_idle(struct upstream *u)
{
	struct upstream_conn *c;

	while ((c = TAILQ_FIRST(&u->idle)) != NULL && stream_has_news(&c->stream)) {
		c->stream.readable = true;
		check_idle(c);
		if (c->idle)
			break;
	}
	return c;
}

static void
close_old(void *arg)
{
	struct upstream *u = arg;
	struct upstream_conn *c;
	int64_t limit = config_of(u)->pool_timeout * CLOCK_NS_PER_MS, left;

	while ((c = TAILQ_LAST(&u->idle, conn_queue)) != NULL) {
		if ((left = c->idle_since + limit - clock_mono_ns()) > 0) {
			wtimer_set(&u->idle_timer, (unsigned)(left / CLOCK_NS_PER_MS) + 1);
			return;
		}
		close_conn(c);
	}
}

/* ---- requests ---- */

/* The request is over: it holds nothing of ours any more. */
static void
forget(struct upstream *u, struct upstream_request *r)
{
	if (r->queued)
		dequeue(u, r);
	if (r->conn != NULL)
		r->conn->request = NULL;
	r->conn = NULL;
	wtimer_fini(&r->timer);
}

static void
fail_request(struct upstream *u, struct upstream_request *r, enum upstream_failure metric,
    enum http_refusal why)
{
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_FAILURES, metric, 1);
	forget(u, r);
	r->done(r->arg, NULL, why);
}

static void
succeed(struct upstream *u, struct upstream_conn *c)
{
	struct upstream_request *r = c->request;

	metrics_add(u->worker->metrics, METRIC_UPSTREAM_CONNECTS, 0, 1);
	forget(u, r);
	r->done(r->arg, c, REFUSAL_NONE);
}

/* An idle connection for the first that waits; where it asks for a fresh one and the pool is full,
 * an idle one makes room. */
static bool
serve_from_pool(struct upstream *u, struct upstream_request *r)
{
	struct upstream_conn *c = first_idle(u);

	if (c == NULL)
		return false;
	if (r->fresh) {
		if (u->nopen >= config_of(u)->pool_max)
			close_conn(TAILQ_LAST(&u->idle, conn_queue));
		return false;
	}
	take_from_pool(c, r->share);
	forget(u, r);
	r->done(r->arg, c, REFUSAL_NONE);
	return true;
}

/* False: whoever comes behind it has to wait, too. */
static bool
serve(struct upstream *u, struct upstream_request *r)
{
	if (serve_from_pool(u, r))
		return true;
	if (u->nopen >= config_of(u)->pool_max)
		return false;
	if (resolver_count(u->resolver) > 0) {
		dequeue(u, r);
		start_connecting(u, r);
		return true;
	}
	if (resolver_pending(u->resolver))
		return false;
	fail_request(u, r, UPSTREAM_FAILURE_RESOLVE, REFUSAL_UPSTREAM_UNREACHABLE);
	return true;
}

static bool
serve_held(struct upstream *u)
{
	struct upstream_share *share, *next;

	for (share = TAILQ_FIRST(&u->over); share != NULL; share = next) {
		next = TAILQ_NEXT(share, link);
		while (holds_some(share) && may_have_more(u, share))
			if (!serve(u, TAILQ_FIRST(&share->held)))
				return false;
	}
	return true;
}

/* Start what waits, as far as targets, shares and the pool's limit allow.  Whoever is served may end,
 * or ask again, but takes no other out of the queue.  Where nothing is free nothing is looked at, else
 * once what is held back: more than half as many shares as may be open never hold any. */
static void
serve_waiting(struct upstream *u)
{
	struct upstream_request *r, *next;

	if (count_free(u) == 0 || !serve_held(u))
		return;
	for (r = TAILQ_FIRST(&u->waiting); r != NULL && count_free(u) > 0; r = next) {
		next = TAILQ_NEXT(r, link);
		if (!may_have_more(u, r->share))
			hold_back(u, r);
		else if (!serve(u, r))
			return;
	}
}

static void
on_serve(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	serve_waiting(arg);
}

static void
on_resolved(void *arg)
{
	serve_waiting(arg);
}

/* ---- connecting ---- */

static void
blame(struct upstream *u, struct upstream_conn *c, const char *text)
{
	char address[RESOLVER_TEXT_SIZE];

	resolver_text(&c->target, address);
	log_warn(u->worker->log, "upstream_failed", "%s: %s", address, text);
}

/* Try the next target, as long as there is one that was not tried. */
static void
try_next(struct upstream *u, struct upstream_conn *c, enum upstream_failure metric,
    enum http_refusal why)
{
	struct upstream_request *r = c->request;

	resolver_set_aside(u->resolver, &c->target);
	c->request = NULL;
	r->conn = NULL;
	close_conn(c);
	if (r->tries >= resolver_count(u->resolver)) {
		fail_request(u, r, metric, why);
		return;
	}
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_FAILURES, metric, 1);
	start_connecting(u, r);
}

static void
fail_target(struct upstream *u, struct upstream_conn *c, enum upstream_failure metric,
    enum http_refusal why, const char *text)
{
	blame(u, c, text);
	c->request->blamed = why;
	try_next(u, c, metric, why);
}

/* It is no target's fault. */
static void
fail_for_memory(struct upstream *u, struct upstream_conn *c)
{
	fail_request(u, c->request, UPSTREAM_FAILURE_MEMORY, REFUSAL_OUT_OF_MEMORY);
	close_conn(c);
}

static void
go_on_connecting(struct upstream *u, struct upstream_conn *c)
{
	enum stream_result r = stream_connected(&c->stream);
	struct err err;

	if (r == STREAM_AGAIN)
		return;
	if (r != STREAM_OK) {
		err_set_errno(&err, "connect");
		fail_target(u, c, UPSTREAM_FAILURE_CONNECT, REFUSAL_UPSTREAM_UNREACHABLE, err.msg);
		return;
	}
	if ((r = stream_handshake(&c->stream, &err)) == STREAM_AGAIN)
		return;
	if (r == STREAM_OK)
		succeed(u, c);
	else if (c->stream.starved)
		fail_for_memory(u, c);
	else if (SSL_get_verify_result(c->stream.ssl) != X509_V_OK)
		fail_target(u, c, UPSTREAM_FAILURE_UNTRUSTED, REFUSAL_UPSTREAM_UNTRUSTED, err.msg);
	else
		fail_target(
		    u, c, UPSTREAM_FAILURE_HANDSHAKE, REFUSAL_UPSTREAM_UNREACHABLE, err.msg);
}

static void
on_ready(void *arg)
{
	struct upstream_conn *c = arg;

	if (c->request != NULL)
		go_on_connecting(c->pool, c);
	else if (c->idle)
		check_idle(c);
	else
		c->ready(c->arg);
}

static int
open_socket(const struct resolver_target *t, bool *connecting)
{
	int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1, saved;

	if (fd == -1)
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	*connecting = connect(fd, (const struct sockaddr *)&t->address, t->len) == -1;
	if (!*connecting || errno == EINPROGRESS)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int
open_stream(struct upstream *u, struct upstream_conn *c, int fd, bool connecting)
{
	const struct snapshot *snap = u->worker->lease->snapshot;
	struct stream_opts opts = { .base = u->worker->base,
		.method = u->worker->stream_method,
		.ctx = snap->client,
		.client = true,
		.server_name = snap->config->upstream.tls.server_name,
		.session = &u->session,
		.connecting = connecting,
		.ready = on_ready,
		.arg = c };
	struct err err;

	tls_session_check(&u->session);
	return stream_open(&c->stream, fd, &opts, &err);
}

/* No local port is free, or no local address leads there, as to ::1 where IPv6 is off: another target
 * may still be reached. */
static void
fail_locally(struct upstream *u, struct upstream_conn *c)
{
	enum http_refusal blamed = c->request->blamed;

	try_next(
	    u, c, UPSTREAM_FAILURE_BUSY, blamed != REFUSAL_NONE ? blamed : REFUSAL_UPSTREAM_BUSY);
}

static void
fail_to_open(struct upstream *u, struct upstream_conn *c)
{
	int error = errno;
	struct err err;

	err_set_errno(&err, "connect");
	if (!descriptors_are_short(error) && error != EADDRNOTAVAIL) {
		fail_target(u, c, UPSTREAM_FAILURE_CONNECT, REFUSAL_UPSTREAM_UNREACHABLE, err.msg);
		return;
	}
	log_error(u->worker->log, "connect_failed", "%s", err.msg);
	if (error == EADDRNOTAVAIL) {
		fail_locally(u, c);
		return;
	}
	fail_request(u, c->request, UPSTREAM_FAILURE_BUSY, REFUSAL_UPSTREAM_BUSY);
	close_conn(c);
}

static void
start_connecting(struct upstream *u, struct upstream_request *r)
{
	struct upstream_conn *c = calloc(1, sizeof(*c));
	bool connecting;
	int fd;

	if (c == NULL) {
		fail_request(u, r, UPSTREAM_FAILURE_MEMORY, REFUSAL_OUT_OF_MEMORY);
		return;
	}
	c->pool = u;
	c->in.pool = &u->worker->reads;
	c->generation = u->generation;
	c->stream.fd = -1;
	c->request = r;
	use(c, r->share);
	r->conn = c;
	r->tries++;
	u->nopen++;
	atomic_fetch_add_explicit(u->worker->open_upstream, 1, memory_order_relaxed);
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_OPEN, 0, 1);
	c->target = resolver_next(u->resolver);
	if ((fd = open_socket(&c->target, &connecting)) == -1) {
		fail_to_open(u, c);
	} else if (open_stream(u, c, fd, connecting) == -1) {
		fail_for_memory(u, c);
	} else if (c->stream.writable) {
		go_on_connecting(u, c);
	}
}

static void
on_timeout(void *arg)
{
	struct upstream_request *r = arg;
	struct upstream_conn *c = r->conn;
	struct upstream *u = r->pool;

	if (c != NULL) {
		resolver_set_aside(u->resolver, &c->target);
		blame(u, c, "no connection in time");
		c->stream.broken = true;
		fail_request(u, r, UPSTREAM_FAILURE_TIMEOUT, REFUSAL_UPSTREAM_TIMEOUT);
		close_conn(c);
	} else if (resolver_count(u->resolver) == 0) {
		fail_request(u, r, UPSTREAM_FAILURE_RESOLVE, REFUSAL_UPSTREAM_TIMEOUT);
	} else {
		fail_request(u, r, UPSTREAM_FAILURE_BUSY, REFUSAL_UPSTREAM_BUSY);
	}
}

struct upstream_conn *
upstream_acquire(struct upstream *u, struct upstream_request *r, bool fresh)
{
	struct upstream_share *share = share_of(u, r);
	/* Who came first is served first. */
	bool wait =
	    fresh || !TAILQ_EMPTY(&u->waiting) || holds_some(share) || !may_have_more(u, share);
	struct upstream_conn *c = wait ? NULL : first_idle(u);

	if (c != NULL) {
		take_from_pool(c, share);
		return c;
	}
	resolver_wake(u->resolver);
	r->pool = u;
	r->conn = NULL;
	r->share = share;
	r->tries = 0;
	r->blamed = REFUSAL_NONE;
	r->fresh = fresh;
	r->queued = true;
	r->held = false;
	wtimer_init(&r->timer, &u->worker->timers, on_timeout, r);
	wtimer_set(&r->timer, u->worker->lease->snapshot->config->timeouts.connect);
	TAILQ_INSERT_TAIL(&u->waiting, r, link);
	event_active(&u->serve_event, EV_TIMEOUT, 0);
	return NULL;
}

void
upstream_cancel(struct upstream *u, struct upstream_request *r)
{
	struct upstream_conn *c = r->conn;

	if (!r->queued && c == NULL)
		return;
	forget(u, r);
	if (c != NULL)
		close_conn(c);
}

void
upstream_release(struct upstream_conn *c, bool reuse)
{
	struct upstream *u = c->pool;

	c->ready = NULL;
	use_no_more(c);
	if (!reuse || u->worker->draining != WORKER_STAYS || c->generation != u->generation ||
	    buf_size(&c->in) > 0 || c->stream.hung_up || u->nidle >= config_of(u)->pool_idle) {
		close_conn(c);
		return;
	}
	buf_fini(&c->in);
	c->stream.unsure = false; /* a write will tell */
	c->idle = true;
	c->idle_since = clock_mono_ns();
	if (TAILQ_EMPTY(&u->idle))
		wtimer_set(&u->idle_timer, config_of(u)->pool_timeout);
	TAILQ_INSERT_HEAD(&u->idle, c, link);
	u->nidle++;
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_IDLE, 0, 1);
	/* What came together with the answer, say a close_notify, brings no edge of its own. */
	check_idle(c);
	serve_soon(u);
}

void
upstream_close_idle(struct upstream *u)
{
	while (!TAILQ_EMPTY(&u->idle))
		close_conn(TAILQ_FIRST(&u->idle));
}

void
upstream_reconfigure(struct upstream *u)
{
	u->generation++;
	SSL_SESSION_free(u->session.session);
	u->session = (struct stream_session){ NULL, NULL };
	upstream_close_idle(u);
	resolver_refresh(u->resolver);
}

struct upstream *
upstream_new(struct worker *w, struct err *err)
{
	struct upstream *u = calloc(1, sizeof(*u));

	if (u == NULL) {
		err_set(err, "memory is short");
		return NULL;
	}
	u->worker = w;
	TAILQ_INIT(&u->idle);
	TAILQ_INIT(&u->waiting);
	TAILQ_INIT(&u->over);
	event_assign(&u->serve_event, w->base, -1, 0, on_serve, u);
	wtimer_init(&u->idle_timer, &w->timers, close_old, u);
	if ((u->resolver = resolver_new(w, on_resolved, u, err)) == NULL) {
		free(u);
		return NULL;
	}
	resolver_refresh(u->resolver);
	return u;
}

void
upstream_free(struct upstream *u)
{
	if (u == NULL)
		return;
	assert(TAILQ_EMPTY(&u->waiting) && TAILQ_EMPTY(&u->over));
	upstream_close_idle(u);
	resolver_free(u->resolver);
	event_del(&u->serve_event);
	wtimer_fini(&u->idle_timer);
	SSL_SESSION_free(u->session.session);
	free(u);
}
