#include "admin/visitors.h"

#include "data/descriptors.h"
#include "keytrail/clock.h"
#include "keytrail/log.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

/* ---- who finds no descriptor ---- */

static const struct timeval pause_time = { 0, 100000 };

/* Comes before evhttp's own look, since it was added later: that would be repeated without end. */
static void
on_knock(evutil_socket_t fd, short what, void *arg)
{
	int probe = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct visitors *v = arg;

	(void)what;
	if (probe != -1)
		close(probe);
	if (probe != -1 || !descriptors_are_short(errno))
		return;
	log_error(v->log, "accept_failed", "accept: %s", strerror(errno));
	/* Without a timer the pause would have no end. */
	if (evtimer_add(&v->pause, &pause_time) == 0) {
		event_del(&v->knock);
		evconnlistener_disable(v->listener);
	}
	descriptors_turn_away(&v->spare, fd);
}

static void
on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct visitors *v = arg;

	(void)fd;
	(void)what;
	descriptors_take_spare(&v->spare);
	if (evconnlistener_enable(v->listener) == -1 || event_add(&v->knock, NULL) == -1)
		evtimer_add(&v->pause, &pause_time); /* in the place that it has just left */
}

int
visitors_watch(struct visitors *v, struct evconnlistener *listener)
{
	struct event_base *base = evconnlistener_get_base(listener);

	v->listener = listener;
	descriptors_take_spare(&v->spare);
	evtimer_assign(&v->pause, base, on_pause_over, v);
	event_assign(
	    &v->knock, base, evconnlistener_get_fd(listener), EV_READ | EV_PERSIST, on_knock, v);
	return event_add(&v->knock, NULL);
}

void
visitors_init(struct visitors *v, struct event_base *base, struct log *log, unsigned life_ms)
{
	v->log = log;
	v->life_ms = life_ms;
	v->n = 0;
	v->listener = NULL;
	v->spare = -1;
	evtimer_assign(&v->timer, base, on_timer, v);
}

void
visitors_stop(struct visitors *v)
{
	if (v->listener == NULL)
		return;
	event_del(&v->knock);
	event_del(&v->pause);
	v->listener = NULL;
}

void
visitors_fini(struct visitors *v)
{
	visitors_stop(v);
	while (v->n > 0)
		bufferevent_decref(v->all[--v->n].connection);
	event_del(&v->timer);
	if (v->spare != -1)
		close(v->spare);
}
