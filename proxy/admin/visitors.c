#include "admin/visitors.h"

#include "keytrail/clock.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include <string.h>
#include <sys/socket.h>

/* evhttp takes its callbacks away from what it frees. */
static bool
is_gone(struct bufferevent *connection)
{
	bufferevent_event_cb on_event;

	bufferevent_getcb(connection, NULL, NULL, &on_event, NULL);
	return on_event == NULL;
}

static void
forget_gone(struct visitors *v)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < v->n; i++)
		if (is_gone(v->all[i].connection))
			bufferevent_decref(v->all[i].connection);
		else
			v->all[kept++] = v->all[i];
	v->n = kept;
}

/* evhttp, whose connection it is, sees its end. */
static void
end_oldest(struct visitors *v)
{
	shutdown(bufferevent_getfd(v->all[0].connection), SHUT_RDWR);
	bufferevent_decref(v->all[0].connection);
	v->n--;
	memmove(v->all, v->all + 1, v->n * sizeof(v->all[0]));
}

static int64_t
time_left(const struct visitors *v)
{
	return v->all[0].born + v->life_ms * CLOCK_NS_PER_MS - clock_mono_ns();
}

/* Where memory is too short for it the next who comes sets it. */
static void
set_timer(struct visitors *v)
{
	int64_t left = v->n > 0 ? time_left(v) : 0;
	struct timeval tv = { left / CLOCK_NS_PER_S, left % CLOCK_NS_PER_S / 1000 + 1 };

	if (v->n > 0 && !evtimer_pending(&v->timer, NULL))
		evtimer_add(&v->timer, &tv);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct visitors *v = arg;

	(void)fd;
	(void)what;
	forget_gone(v);
	while (v->n > 0 && time_left(v) <= 0)
		end_oldest(v);
	set_timer(v);
}

/* evhttp bounds a head and a body, not the size of a chunk, nor what comes amid an answer.  A high
 * watermark does not help: libevent 2.1 calls who reads nothing of it again and again. */
static void
on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *connection)
{
	(void)info;
	if (evbuffer_get_length(input) > VISITORS_UNREAD_MAX)
		bufferevent_trigger_event(
		    connection, BEV_EVENT_READING | BEV_EVENT_EOF, BEV_OPT_DEFER_CALLBACKS);
}

struct bufferevent *
visitors_let_in(struct event_base *base, void *arg)
{
	struct visitors *v = arg;
	struct bufferevent *connection = bufferevent_socket_new(base, -1, 0);

	if (connection == NULL)
		return NULL;
	if (evbuffer_add_cb(bufferevent_get_input(connection), on_input, connection) == NULL) {
		bufferevent_free(connection);
		return NULL;
	}
	forget_gone(v);
	if (v->n == VISITORS_MAX)
		end_oldest(v);
	bufferevent_incref(connection);
	v->all[v->n++] = (struct visitor){ connection, clock_mono_ns() };
	set_timer(v);
	return connection;
}

void
visitors_init(struct visitors *v, struct event_base *base, unsigned life_ms)
{
	v->life_ms = life_ms;
	v->n = 0;
	evtimer_assign(&v->timer, base, on_timer, v);
}

void
visitors_fini(struct visitors *v)
{
	while (v->n > 0)
		bufferevent_decref(v->all[--v->n].connection);
	event_del(&v->timer);
}
