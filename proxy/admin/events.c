#include "admin/events_internal.h"

#include "admin/answer.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* One query.  The reader fills `out`, main sends it; each posts or waits for a mail of its own, so
 * that neither is queued any more when the last one is delivered. */
struct call {
	struct reader_job job; /* first: a reader_job * is cast to this */
	LIST_ENTRY(call) link;
	struct events *events;
	struct evhttp_request *req;
	bool begun; /* the answer's head is sent */
	struct mail more, done;
	int rc;
	struct err err;
	pthread_mutex_t lock; /* of `out` */
	struct buf out;
	bool short_of_memory;
};

/* ---- on the reader's thread ---- */

static void
on_piece(struct reader_job *job, struct slice bytes)
{
	struct call *c = (struct call *)job;

	pthread_mutex_lock(&c->lock);
	if (buf_append_slice(&c->out, bytes) == -1)
		c->short_of_memory = true;
	pthread_mutex_unlock(&c->lock);
	mailbox_post(c->events->mailbox, &c->more);
}

static void
on_done(struct reader_job *job, int rc, const struct err *err)
{
	struct call *c = (struct call *)job;

	c->rc = rc;
	c->err = *err;
	mailbox_post(c->events->mailbox, &c->done);
}

/* ---- answers ---- */

void
events_refuse(struct evhttp_request *req, int status, const char *why)
{
	char text[ERR_MSG_MAX + 1];

	if (status == 503)
		evhttp_add_header(evhttp_request_get_output_headers(req), "Retry-After", "1");
	snprintf(text, sizeof(text), "%s\n", why);
	answer_text(req, status, text);
}

/* Send what the reader has written so far. */
static void
send_more(struct call *c)
{
	struct evbuffer *chunk = evbuffer_new();

	pthread_mutex_lock(&c->lock);
	if (chunk == NULL || evbuffer_add(chunk, buf_slice(&c->out).p, buf_size(&c->out)) == -1)
		c->short_of_memory = true;
	buf_consume(&c->out, buf_size(&c->out));
	pthread_mutex_unlock(&c->lock);
	if (chunk != NULL && evbuffer_get_length(chunk) > 0 && !c->short_of_memory) {
		if (!c->begun) {
			answer_set_headers(c->req, ANSWER_JSON);
			evhttp_send_reply_start(c->req, 200, NULL);
		}
		c->begun = true;
		evhttp_send_reply_chunk(c->req, chunk);
	}
	if (chunk != NULL)
		evbuffer_free(chunk);
}

static void
call_free(struct call *c)
{
	LIST_REMOVE(c, link);
	buf_fini(&c->out);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct evhttp_connection *
connection_of(const struct call *c)
{
	return evhttp_request_get_connection(c->req);
}

static void
deliver_more(struct mail *m)
{
	struct call *c = (struct call *)((char *)m - offsetof(struct call, more));

	if (connection_of(c) != NULL)
		send_more(c);
}

/* A request whose connection is gone is freed by the call that would have answered it. */
static void
deliver_done(struct mail *m)
{
	struct call *c = (struct call *)((char *)m - offsetof(struct call, done));
	struct evhttp_connection *conn = connection_of(c);

	if (conn != NULL)
		evhttp_connection_set_closecb(conn, NULL, NULL);
	if (c->rc == -1)
		log_warn(c->events->log, "events_failed", "%s", c->err.msg);
	if (c->begun)
		evhttp_send_reply_end(c->req);
	else
		events_refuse(c->req, 503, "the trail cannot be read");
	call_free(c);
}

/* ---- requests ---- */

int
events_parse(struct evhttp_request *req, struct query *q, struct err *err)
{
	const char *text = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(req));
	struct evkeyvalq pairs;
	int rc = 0;

	query_init(q);
	if (text == NULL || text[0] == '\0')
		return 0;
	if (evhttp_parse_query_str(text, &pairs) == -1)
		return err_set(err, "the query is not of the form name=value&...");
	for (struct evkeyval *p = pairs.tqh_first; p != NULL && rc == 0; p = p->next.tqe_next)
		rc = query_set(q, p->key, p->value, err);
	evhttp_clear_headers(&pairs);
	return rc;
}

static struct call *
call_new(struct events *e, struct evhttp_request *req)
{
	struct call *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->job.piece = on_piece;
	c->job.done = on_done;
	c->more.deliver = deliver_more;
	c->done.deliver = deliver_done;
	c->events = e;
	c->req = req;
	pthread_mutex_init(&c->lock, NULL);
	LIST_INSERT_HEAD(&e->calls, c, link);
	return c;
}

static void
on_gone(struct evhttp_connection *conn, void *arg)
{
	(void)conn;
	reader_cancel(arg);
}

/* evhttp does not read while an answer is due, and so would not notice that the client has gone.
 * Read without its callback, which ends the process when it is called now: what comes stays unread,
 * and little of it (visitors.h). */
void
events_watch(struct evhttp_request *req, struct reader_job *job)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(req);
	struct bufferevent *bev = evhttp_connection_get_bufferevent(conn);
	bufferevent_data_cb on_write;
	bufferevent_event_cb on_event;
	void *arg;

	bufferevent_getcb(bev, NULL, &on_write, &on_event, &arg);
	bufferevent_setcb(bev, NULL, on_write, on_event, arg);
	bufferevent_enable(bev, EV_READ);
	evhttp_connection_set_closecb(conn, on_gone, job);
}

void
events_forget(struct evhttp_request *req)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(req);

	if (conn != NULL)
		evhttp_connection_set_closecb(conn, NULL, NULL);
	else
		evhttp_request_free(req);
}

bool
events_answer(struct events *e, struct evhttp_request *req, char *shape, size_t n)
{
	struct call *c = call_new(e, req);
	struct err err;

	if (c == NULL) {
		events_refuse(req, 503, "memory is short");
		return false;
	}
	if (events_parse(req, &c->job.query, &err) == -1) {
		events_refuse(req, 400, err.msg);
		call_free(c);
		return false;
	}
	query_shape(&c->job.query, shape, n);
	if (!reader_submit(e->reader, &c->job)) {
		events_refuse(req, 503, "too many queries run");
		call_free(c);
		return false;
	}
	events_watch(req, &c->job);
	return true;
}

int
events_new(const struct events_opts *opts, struct events **out, struct err *err)
{
	const struct reader_opts ropts = { opts->trail_dirfd, opts->corrupt, opts->arg,
		opts->keep_free };
	struct events *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return err_set(err, "events: memory is short");
	e->log = opts->log;
	LIST_INIT(&e->calls);
	LIST_INIT(&e->streams);
	LIST_INIT(&e->proofs);
	if ((e->mailbox = mailbox_new(opts->base, err)) == NULL ||
	    reader_start(&ropts, &e->reader, err) == -1 ||
	    events_start_streams(e, opts, err) == -1) {
		events_free(e);
		return -1;
	}
	*out = e;
	return 0;
}

void
events_free(struct events *e)
{
	struct call *c, *next;

	if (e == NULL)
		return;
	reader_stop(e->reader);
	follow_stop(e->follow);
	for (c = LIST_FIRST(&e->calls); c != NULL; c = next) {
		next = LIST_NEXT(c, link);
		events_forget(c->req);
		call_free(c);
	}
	events_free_proofs(e);
	events_free_streams(e);
	mailbox_free(e->mailbox);
	free(e);
}
