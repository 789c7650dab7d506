#include "admin/events_internal.h"

#include "admin/answer.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#define ROOM	    (256 * 1024) /* that may wait to be sent; the last line may pass it */
#define HEARTBEAT_S 2
#define SEND_S	    30		     /* without a byte that could be sent */
#define TCP_MAX	    (FOLLOW_MAX - 2) /* viewers shall not keep who comes over the socket out */

/* One stream.  Follow fills `out`, main sends it, a piece when the one before has gone. */
struct stream_call {
	struct follower follower; /* first: a follower * is cast to this */
	LIST_ENTRY(stream_call) link;
	struct events *events;
	struct evhttp_request *req;
	bool tcp, sending;
	struct mail more, done;
	int rc;
	struct err err;
	pthread_mutex_t lock; /* of what follows */
	struct buf out;
	bool short_of_memory;
};

/* ---- on follow's thread ---- */

static bool
has_room(struct follower *f)
{
	struct stream_call *c = (struct stream_call *)f;
	bool room;

	pthread_mutex_lock(&c->lock);
	room = buf_size(&c->out) < ROOM;
	pthread_mutex_unlock(&c->lock);
	return room;
}

/* What is not whole is not sent: without memory the stream ends. */
static void
settle(struct stream_call *c, int rc)
{
	if (rc == -1) {
		c->short_of_memory = true;
		atomic_store_explicit(&c->follower.cancelled, true, memory_order_relaxed);
	}
	pthread_mutex_unlock(&c->lock);
	mailbox_post(c->events->mailbox, &c->more);
}

static void
on_row(struct follower *f, uint64_t seq, struct slice line)
{
	struct stream_call *c = (struct stream_call *)f;

	pthread_mutex_lock(&c->lock);
	settle(c, buf_printf(&c->out, "id: %" PRIu64 "\nevent: row\ndata: %.*s\n\n", seq,
		      (int)line.n, line.p));
}

static void
on_gap(struct follower *f, uint64_t next)
{
	struct stream_call *c = (struct stream_call *)f;

	pthread_mutex_lock(&c->lock);
	settle(c, buf_printf(&c->out, "event: gap\ndata: {\"next\":\"%" PRIu64 "\"}\n\n", next));
}

static void
on_ended(struct follower *f, int rc, const struct err *err)
{
	struct stream_call *c = (struct stream_call *)f;

	c->rc = rc;
	c->err = *err;
	mailbox_post(c->events->mailbox, &c->done);
}

/* ---- sending ---- */

static struct evhttp_connection *
connection_of(const struct stream_call *c)
{
	return evhttp_request_get_connection(c->req);
}

static void send_more(struct stream_call *c);

static void
on_sent(struct evhttp_connection *conn, void *arg)
{
	struct stream_call *c = arg;

	(void)conn;
	c->sending = false;
	send_more(c);
	follow_wake(c->events->follow);
}

static void
send_chunk(struct stream_call *c, struct slice bytes)
{
	struct evbuffer *chunk = evbuffer_new();

	if (chunk != NULL && evbuffer_add(chunk, bytes.p, bytes.n) == 0) {
		c->sending = true;
		evhttp_send_reply_chunk_with_cb(c->req, chunk, on_sent, c);
	} else {
		c->short_of_memory = true;
		follow_cancel(c->events->follow, &c->follower);
	}
	if (chunk != NULL)
		evbuffer_free(chunk);
}

static void
send_more(struct stream_call *c)
{
	pthread_mutex_lock(&c->lock);
	if (buf_size(&c->out) > 0 && !c->short_of_memory) {
		send_chunk(c, buf_slice(&c->out));
		buf_consume(&c->out, buf_size(&c->out));
	}
	pthread_mutex_unlock(&c->lock);
}

static void
stream_free(struct stream_call *c)
{
	LIST_REMOVE(c, link);
	buf_fini(&c->out);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void
deliver_more(struct mail *m)
{
	struct stream_call *c =
	    (struct stream_call *)((char *)m - offsetof(struct stream_call, more));

	if (connection_of(c) != NULL && !c->sending)
		send_more(c);
}

/* A request whose connection is gone is freed by the call that ends the answer. */
static void
deliver_done(struct mail *m)
{
	struct stream_call *c =
	    (struct stream_call *)((char *)m - offsetof(struct stream_call, done));
	struct evhttp_connection *conn = connection_of(c);

	if (conn != NULL) {
		evhttp_connection_set_closecb(conn, NULL, NULL);
		send_more(c);
	}
	if (c->rc == -1)
		log_warn(c->events->log, "events_failed", "%s", c->err.msg);
	evhttp_send_reply_end(c->req);
	stream_free(c);
}

static void
on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
	struct events *e = arg;
	struct stream_call *c;

	(void)fd;
	(void)what;
	LIST_FOREACH(c, &e->streams, link)
	if (connection_of(c) != NULL && !c->sending)
		send_chunk(c, SLICE(": \n\n"));
}

/* ---- requests ---- */

static void
on_gone(struct evhttp_connection *conn, void *arg)
{
	struct stream_call *c = arg;

	(void)conn;
	follow_cancel(c->events->follow, &c->follower);
}

static bool
has_place(const struct events *e, const struct stream_call *of)
{
	const struct stream_call *c;
	unsigned n = 0;

	LIST_FOREACH(c, &e->streams, link)
	n += c->tcp;
	return !of->tcp || n <= TCP_MAX;
}

static struct stream_call *
stream_new(struct events *e, struct evhttp_request *req, bool tcp)
{
	struct stream_call *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->follower = (struct follower){
		.has_room = has_room, .row = on_row, .gap = on_gap, .ended = on_ended
	};
	c->more.deliver = deliver_more;
	c->done.deliver = deliver_done;
	c->events = e;
	c->req = req;
	c->tcp = tcp;
	pthread_mutex_init(&c->lock, NULL);
	LIST_INSERT_HEAD(&e->streams, c, link);
	return c;
}

static int
parse(struct evhttp_request *req, struct query *q, struct err *err)
{
	const unsigned paged = 1U << QUERY_LIMIT | 1U << QUERY_SINCE | 1U << QUERY_UNTIL;

	if (events_parse(req, q, err) == -1)
		return -1;
	return q->given & paged ? err_set(err, "a stream has no limit, since or until") : 0;
}

/* It has no end of its own, so silence of the client ends nothing. */
static void
begin(struct stream_call *c)
{
	const struct timeval send = { SEND_S, 0 };
	struct evhttp_connection *conn = connection_of(c);

	answer_set_headers(c->req, "text/event-stream");
	evhttp_add_header(evhttp_request_get_output_headers(c->req), "Connection", "close");
	evhttp_send_reply_start(c->req, 200, NULL);
	bufferevent_set_timeouts(evhttp_connection_get_bufferevent(conn), NULL, &send);
	evhttp_connection_set_closecb(conn, on_gone, c);
	send_chunk(c, SLICE(": \n\n"));
}

static bool
stream(struct events *e, struct evhttp_request *req, bool tcp, char *shape, size_t n)
{
	struct stream_call *c = stream_new(e, req, tcp);
	struct err err;

	if (c == NULL) {
		events_refuse(req, 503, "memory is short");
		return false;
	}
	if (parse(req, &c->follower.query, &err) == -1) {
		events_refuse(req, 400, err.msg);
		stream_free(c);
		return false;
	}
	query_shape(&c->follower.query, shape, n);
	if (!has_place(e, c) || !follow_add(e->follow, &c->follower)) {
		events_refuse(req, 503, "too many streams run");
		stream_free(c);
		return false;
	}
	begin(c);
	return true;
}

bool
events_stream(struct events *e, struct evhttp_request *req, char *shape, size_t n)
{
	return stream(e, req, true, shape, n);
}

bool
events_stream_local(struct events *e, struct evhttp_request *req, char *shape, size_t n)
{
	return stream(e, req, false, shape, n);
}

int
events_start_streams(struct events *e, const struct events_opts *opts, struct err *err)
{
	const struct timeval beat = { HEARTBEAT_S, 0 };

	event_assign(&e->heartbeat, opts->base, -1, EV_PERSIST, on_heartbeat, e);
	if (event_add(&e->heartbeat, &beat) == -1)
		return err_set(err, "events: memory is short");
	return follow_start(opts->trail_dirfd, opts->corrupt, opts->arg, &e->follow, err);
}

void
events_free_streams(struct events *e)
{
	struct stream_call *c, *next;

	if (event_initialized(&e->heartbeat))
		event_del(&e->heartbeat);
	for (c = LIST_FIRST(&e->streams); c != NULL; c = next) {
		next = LIST_NEXT(c, link);
		events_forget(c->req);
		stream_free(c);
	}
}
