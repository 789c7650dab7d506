#include "admin/admin_internal.h"

#include "admin/events.h"
#include "admin/history.h"
#include "data/listener.h"
#include "keytrail/clock.h"

#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADERS_MAX 8192
#define TIMEOUT_S   5
#define LIFE_MS	    300000

/* ---- listening ---- */

static void
announce(const struct admin *a, const char *what, int fd)
{
	char text[LISTENER_TEXT_SIZE];

	listener_text(fd, text);
	log_info(a->opts.log, "listening", "%s %s", what, text);
}

/* Takes fd. */
static int
open_door(struct admin *a, struct admin_door *door, int fd, const char *host, struct err *err)
{
	struct evhttp_bound_socket *bound;

	door->admin = a;
	if (host != NULL && (door->host = strdup(host)) == NULL)
		goto fail;
	if ((door->http = evhttp_new(a->opts.base)) == NULL)
		goto fail;
	visitors_init(&door->visitors, a->opts.base, a->opts.log, LIFE_MS);
	evhttp_set_allowed_methods(door->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
						   EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
						   EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
	evhttp_set_max_headers_size(door->http, HEADERS_MAX);
	evhttp_set_max_body_size(door->http, door->operates ? ADMIN_FORM_MAX : 0);
	evhttp_set_timeout(door->http, TIMEOUT_S);
	evhttp_set_bevcb(door->http, visitors_let_in, &door->visitors);
	evhttp_set_gencb(door->http, admin_on_request, door);
	if ((bound = evhttp_accept_socket_with_handle(door->http, fd)) == NULL)
		goto fail;
	if (visitors_watch(&door->visitors, evhttp_bound_socket_get_listener(bound)) == 0)
		return 0;
	return err_set(err, "admin: memory is short");
fail:
	close(fd);
	return err_set(err, "admin: memory is short");
}

static int
given(const struct admin *a, int listener)
{
	return a->opts.given != NULL ? a->opts.given[listener] : -1;
}

static int
open_metrics(struct admin *a, const struct config *config, struct err *err)
{
	int fd = listener_open(&config->metrics, "metrics.address", given(a, ADMIN_METRICS), err);

	if (fd == -1)
		return -1;
	announce(a, "metrics", fd);
	return open_door(a, &a->metrics, fd, config->metrics.host, err);
}

static int
open_admin(struct admin *a, const struct config_admin *config, struct err *err)
{
	int fd;

	if (config->address.host == NULL)
		return 0;
	fd = listener_open(&config->address, "admin.address", given(a, ADMIN_ADDRESS), err);
	if (fd == -1)
		return -1;
	announce(a, "admin", fd);
	a->admin.guarded = true;
	return open_door(a, &a->admin, fd, config->address.host, err);
}

static int
open_socket(struct admin *a, const struct config_admin *config, struct err *err)
{
	int fd = given(a, ADMIN_SOCKET);

	if (config->socket == NULL)
		return 0;
	if (fd != -1 && (fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) == -1)
		return err_set_errno(err, "admin.socket: %s", config->socket);
	if (fd == -1 && (fd = admin_socket_bind(config->socket, err)) == -1)
		return -1;
	if ((a->socket_path = strdup(config->socket)) == NULL) {
		close(fd);
		unlink(config->socket);
		return err_set(err, "admin: memory is short");
	}
	log_info(a->opts.log, "listening", "operator %s", config->socket);
	a->socket.guarded = a->socket.operates = true;
	return open_door(a, &a->socket, fd, NULL, err);
}

static void
on_step(evutil_socket_t fd, short what, void *arg)
{
	struct admin *a = arg;

	(void)fd;
	(void)what;
	a->opts.refresh(a->opts.arg);
	history_step(a->history, clock_mono_ns(), clock_wall_ns());
}

static int
start_history(struct admin *a, struct err *err)
{
	const struct timeval step = { HISTORY_STEP_S, 0 };

	if ((a->history = history_new(a->opts.metrics, clock_mono_ns())) == NULL ||
	    event_add(&a->step, &step) == -1)
		return err_set(err, "admin: memory is short");
	return 0;
}

int
admin_start(const struct admin_opts *opts, struct admin **out, struct err *err)
{
	const struct config *config = opts->config(opts->arg);
	struct events_opts eopts = { opts->base, opts->trail_dirfd, opts->log, opts->corrupt,
		opts->arg, opts->keep_free };
	struct admin *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return err_set(err, "admin: memory is short");
	a->opts = *opts;
	admin_init_refused(a);
	event_assign(&a->step, opts->base, -1, EV_PERSIST, on_step, a);
	if ((config->metrics_enabled && open_metrics(a, config, err) == -1) ||
	    (config->admin.enabled &&
		(start_history(a, err) == -1 || events_new(&eopts, &a->events, err) == -1 ||
		    open_admin(a, &config->admin, err) == -1 ||
		    open_socket(a, &config->admin, err) == -1))) {
		admin_free(a);
		return -1;
	}
	*out = a;
	return 0;
}

static void
close_door(struct admin_door *door)
{
	if (door->http != NULL) {
		visitors_stop(&door->visitors);
		evhttp_free(door->http);
		visitors_fini(&door->visitors);
	}
	free(door->host);
}

void
admin_free(struct admin *a)
{
	if (a == NULL)
		return;
	events_free(a->events);
	close_door(&a->metrics);
	close_door(&a->admin);
	close_door(&a->socket);
	event_del(&a->refused.timer);
	event_del(&a->step);
	history_free(a->history);
	if (a->socket_path != NULL)
		unlink(a->socket_path);
	free(a->socket_path);
	free(a);
}

int
admin_give(struct admin *a, int fds[ADMIN_LISTENERS], struct err *err)
{
	const struct admin_door *const doors[] = { [ADMIN_METRICS] = &a->metrics,
		[ADMIN_ADDRESS] = &a->admin,
		[ADMIN_SOCKET] = &a->socket };

	for (size_t i = 0; i < ADMIN_LISTENERS; i++) {
		fds[i] = -1;
		if (doors[i]->http == NULL ||
		    (fds[i] = fcntl(evconnlistener_get_fd(doors[i]->visitors.listener),
			 F_DUPFD_CLOEXEC, 0)) != -1)
			continue;
		err_set_errno(err, "admin: give a listener");
		while (i-- > 0)
			if (fds[i] != -1)
				close(fds[i]);
		return -1;
	}
	free(a->socket_path);
	a->socket_path = NULL;
	admin_free(a);
	return 0;
}
