#include "data/descriptors.h"
#include "data/tls.h"
#include "data/upstream_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

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
	upstream_close_conn(c);
	if (r->tries >= resolver_count(u->resolver)) {
		upstream_fail_request(u, r, metric, why);
		return;
	}
	metrics_add(u->worker->metrics, METRIC_UPSTREAM_FAILURES, metric, 1);
	upstream_connect(u, r);
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
	upstream_fail_request(u, c->request, UPSTREAM_FAILURE_MEMORY, REFUSAL_OUT_OF_MEMORY);
	upstream_close_conn(c);
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
		upstream_succeed(u, c);
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
	else
		upstream_ready(c);
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
	upstream_fail_request(u, c->request, UPSTREAM_FAILURE_BUSY, REFUSAL_UPSTREAM_BUSY);
	upstream_close_conn(c);
}

void
upstream_connect(struct upstream *u, struct upstream_request *r)
{
	struct upstream_conn *c = upstream_add_conn(u, r);
	bool connecting;
	int fd;

	if (c == NULL) {
		upstream_fail_request(u, r, UPSTREAM_FAILURE_MEMORY, REFUSAL_OUT_OF_MEMORY);
		return;
	}
	r->tries++;
	c->target = resolver_next(u->resolver);
	if ((fd = open_socket(&c->target, &connecting)) == -1) {
		fail_to_open(u, c);
	} else if (open_stream(u, c, fd, connecting) == -1) {
		fail_for_memory(u, c);
	} else if (c->stream.writable) {
		go_on_connecting(u, c);
	}
}

void
upstream_blame_late(struct upstream *u, struct upstream_conn *c)
{
	resolver_set_aside(u->resolver, &c->target);
	blame(u, c, "no connection in time");
	c->stream.broken = true;
}
