#include "data/upstream_internal.h"
#include "keytrail/clock.h"

#include <assert.h>
#include <stdlib.h>

static const struct config_upstream *
config_of(const struct upstream *u)
{
	return &u->worker->lease->snapshot->config->upstream;
}

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

struct upstream_conn *
upstream_add_conn(struct upstream *u, struct upstream_request *r)
{
	struct upstream_conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->pool = u;
	c->in.pool = &u->worker->reads;
	c->generation = u->generation;
	c->stream.fd = -1;
	c->request = r;
	use(c, r->share);
	r->conn = c;
	u->nopen++;
	atomic_fetch_add_explicit(u->worker->open_upstream, 1, memory_order_relaxed);
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_OPEN, 0, 1);
	return c;
}

void
upstream_close_conn(struct upstream_conn *c)
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
		upstream_close_conn(c);
}

void
upstream_ready(struct upstream_conn *c)
{
	if (c->idle)
		check_idle(c);
	else
		c->ready(c->arg);
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
		upstream_close_conn(c);
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

void
upstream_fail_request(struct upstream *u, struct upstream_request *r, enum upstream_failure metric,
    enum http_refusal why)
{
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_FAILURES, metric, 1);
	forget(u, r);
	r->done(r->arg, NULL, why);
}

void
upstream_succeed(struct upstream *u, struct upstream_conn *c)
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
			upstream_close_conn(TAILQ_LAST(&u->idle, conn_queue));
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
		upstream_connect(u, r);
		return true;
	}
	if (resolver_pending(u->resolver))
		return false;
	upstream_fail_request(u, r, UPSTREAM_FAILURE_RESOLVE, REFUSAL_UPSTREAM_UNREACHABLE);
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

static void
on_timeout(void *arg)
{
	struct upstream_request *r = arg;
	struct upstream_conn *c = r->conn;
	struct upstream *u = r->pool;

	if (c != NULL) {
		upstream_blame_late(u, c);
		upstream_fail_request(u, r, UPSTREAM_FAILURE_TIMEOUT, REFUSAL_UPSTREAM_TIMEOUT);
		upstream_close_conn(c);
	} else if (resolver_count(u->resolver) == 0) {
		upstream_fail_request(u, r, UPSTREAM_FAILURE_RESOLVE, REFUSAL_UPSTREAM_TIMEOUT);
	} else {
		upstream_fail_request(u, r, UPSTREAM_FAILURE_BUSY, REFUSAL_UPSTREAM_BUSY);
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
		upstream_close_conn(c);
}

void
upstream_release(struct upstream_conn *c, bool reuse)
{
	struct upstream *u = c->pool;

	c->ready = NULL;
	use_no_more(c);
	if (!reuse || u->worker->draining != WORKER_STAYS || c->generation != u->generation ||
	    buf_size(&c->in) > 0 || c->stream.hung_up || u->nidle >= config_of(u)->pool_idle) {
		upstream_close_conn(c);
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
		upstream_close_conn(TAILQ_FIRST(&u->idle));
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
