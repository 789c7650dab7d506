#include "admin/admin_internal.h"

#include "admin/events.h"
#include "admin/visitors.h"
#include "data/listener.h"
#include "keytrail/event.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADERS_MAX	 8192
#define TIMEOUT_S	 5
#define FORM_MAX	 4096
#define LIFE_MS		 300000

#define TYPE_TEXT	 "text/plain; charset=utf-8"
#define TYPE_JSON	 "application/json"
#define TYPE_METRICS	 "text/plain; version=0.0.4; charset=utf-8"
#define TYPE_OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* One listener. */
struct door {
	struct admin *admin;
	struct evhttp *http;
	bool guarded;  /* of the administration */
	bool operates; /* the Unix socket: calls that change something */
	char *host;    /* as bound; NULL for the socket */
	struct visitors visitors;
};

struct admin {
	struct admin_opts opts;
	struct door metrics, admin, socket;
	struct events *events;
	char *socket_path;
};

/* ---- answers ---- */

static void
answer(struct evhttp_request *req, int status, const char *type, struct slice body)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
	struct evbuffer *out = evhttp_request_get_output_buffer(req);
	char length[24];

	snprintf(length, sizeof(length), "%zu", body.n);
	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Content-Length", length);
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	if (evhttp_request_get_command(req) != EVHTTP_REQ_HEAD)
		evbuffer_add(out, body.p, body.n);
	evhttp_send_reply(req, status, NULL, NULL);
}

static void
answer_text(struct evhttp_request *req, int status, const char *text)
{
	answer(req, status, TYPE_TEXT, slice_of(text));
}

static void
answer_buf(struct evhttp_request *req, int status, const char *type, struct buf *body, int rc)
{
	if (rc == -1)
		answer_text(req, 503, "memory is short\n");
	else
		answer(req, status, type, buf_slice(body));
	buf_fini(body);
}

/* ---- /metrics ---- */

static void
answer_metrics(struct door *door, struct evhttp_request *req)
{
	struct admin *a = door->admin;
	struct evkeyvalq *in = evhttp_request_get_input_headers(req);
	enum metrics_format format = admin_negotiate(evhttp_find_header(in, "Accept"));
	struct buf body = BUF_INIT;
	int rc;

	a->opts.refresh(a->opts.arg);
	rc = metrics_render(a->opts.metrics, format, &body);
	evhttp_add_header(evhttp_request_get_output_headers(req), "Vary", "Accept");
	answer_buf(
	    req, 200, format == METRICS_TEXT_0_0_4 ? TYPE_METRICS : TYPE_OPENMETRICS, &body, rc);
}

/* ---- /livez, /readyz, /status ---- */

static void
answer_live(struct door *door, struct evhttp_request *req)
{
	(void)door;
	answer_text(req, 200, "alive\n");
}

static bool
is_verbose(struct door *door, struct evhttp_request *req)
{
	const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(req));

	return door->guarded && query != NULL &&
	       (strcmp(query, "verbose") == 0 || strncmp(query, "verbose=", 8) == 0);
}

static void
answer_ready(struct door *door, struct evhttp_request *req)
{
	struct admin *a = door->admin;
	struct health_check checks[HEALTH_CHECKS_MAX];
	size_t n = a->opts.checks(a->opts.arg, checks, HEALTH_CHECKS_MAX);
	struct buf body = BUF_INIT;
	bool verbose = is_verbose(door, req);
	int status, rc;

	if (n > HEALTH_CHECKS_MAX)
		n = HEALTH_CHECKS_MAX;
	status = health_ready(checks, n) ? 200 : 503;
	rc = verbose ? health_render_verbose(checks, n, &body)
		     : health_render_brief(checks, n, &body);
	answer_buf(req, status, verbose ? TYPE_JSON : TYPE_TEXT, &body, rc);
}

static int
append_own_status(struct admin *a, struct buf *out)
{
	const struct config *config = a->opts.config(a->opts.arg);
	const struct metrics *m = a->opts.metrics;
	struct slice path = slice_of(config->path);
	long n;

	if (buf_append_slice(out, SLICE("{\"configPath\":")) == -1 ||
	    buf_reserve(out, 6 * path.n + 2) == -1)
		return -1;
	n = event_json_string(path, buf_tail(out), buf_room(out));
	buf_commit(out, n > 0 ? (size_t)n : 0);
	return buf_printf(out,
	    ",\"requests\":{\"inFlight\":%.0f},\"upstream\":{\"idle\":%.0f,\"open\":%.0f}",
	    metrics_value(m, METRIC_REQUESTS_IN_FLIGHT, 0),
	    metrics_value(m, METRIC_UPSTREAM_IDLE, 0), metrics_value(m, METRIC_UPSTREAM_OPEN, 0));
}

static void
answer_status(struct door *door, struct evhttp_request *req)
{
	struct admin *a = door->admin;
	struct buf body = BUF_INIT, members = BUF_INIT;
	int rc;

	a->opts.refresh(a->opts.arg);
	a->opts.status(a->opts.arg, &members);
	rc = append_own_status(a, &body);
	if (rc == 0 && buf_size(&members) > 0)
		rc = buf_append(&body, ",", 1);
	if (rc == 0)
		rc = buf_append_slice(&body, buf_slice(&members));
	if (rc == 0)
		rc = buf_append_slice(&body, SLICE("}\n"));
	buf_fini(&members);
	answer_buf(req, 200, TYPE_JSON, &body, rc);
}

/* ---- /events ---- */

static void
answer_events(struct door *door, struct evhttp_request *req)
{
	struct admin *a = door->admin;
	bool token = !door->operates && a->opts.config(a->opts.arg)->admin.token.bytes != NULL;
	char *address = NULL, filter[128];
	uint16_t port;
	struct admin_access access = { .page = "/events",
		.token = token ? "admin.token" : "none",
		.role = door->operates ? "operator" : "viewer",
		.address = "unix",
		.filter = filter };

	if (evhttp_request_get_command(req) == EVHTTP_REQ_HEAD) {
		answer(req, 200, TYPE_JSON, SLICE_EMPTY);
		return;
	}
	evhttp_connection_get_peer(evhttp_request_get_connection(req), &address, &port);
	if (!door->operates && address != NULL)
		access.address = address;
	if (events_answer(a->events, req, filter, sizeof(filter)))
		a->opts.access(a->opts.arg, &access);
}

static const struct {
	const char *path;
	bool guarded; /* on the admin listener only */
	void (*answer)(struct door *, struct evhttp_request *);
} pages[] = {
	{ "/metrics", false, answer_metrics },
	{ "/livez", false, answer_live },
	{ "/readyz", false, answer_ready },
	{ "/status", true, answer_status },
	{ "/events", true, answer_events },
};

/* ---- who may ask ---- */

/* True when the request may go on; else it is answered. */
static bool
admit(struct door *door, struct evhttp_request *req)
{
	const struct config_secret *token =
	    &door->admin->opts.config(door->admin->opts.arg)->admin.token;
	struct admin_refusal why;

	if (!door->guarded || admin_may_ask(req, door->host, door->operates ? NULL : token, &why))
		return true;
	log_warn(door->admin->opts.log, "admin_refused", "%d: %s", why.status, why.text);
	if (why.status == 401)
		evhttp_add_header(evhttp_request_get_output_headers(req), "WWW-Authenticate",
		    "Bearer realm=\"keytrail\"");
	answer_text(req, why.status, why.text);
	return false;
}

/* ---- calls that change something ---- */

struct admin_form {
	struct evkeyvalq fields;
};

const char *
admin_call_get(const struct admin_call *call, const char *name)
{
	return evhttp_find_header(&call->form->fields, name);
}

/* "name=value&..." of the body, as it stands in a URL's query. */
static int
read_form(struct evhttp_request *req, struct admin_form *form)
{
	struct evbuffer *in = evhttp_request_get_input_buffer(req);
	char text[FORM_MAX + 1];
	ev_ssize_t n = evbuffer_copyout(in, text, FORM_MAX);

	if (n < 0 || memchr(text, '\0', (size_t)n) != NULL)
		return -1;
	text[n] = '\0';
	return evhttp_parse_query_str(text, &form->fields);
}

static void
operate(struct door *door, struct evhttp_request *req, const char *path)
{
	struct admin *a = door->admin;
	struct evhttp_connection *conn = evhttp_request_get_connection(req);
	struct admin_form form = { .fields = { 0 } };
	struct admin_call call = { .path = path, .socket = a->socket_path, .form = &form };
	struct buf text = BUF_INIT;
	unsigned status;

	if (admin_socket_peer(
		bufferevent_getfd(evhttp_connection_get_bufferevent(conn)), &call.peer) == -1 ||
	    read_form(req, &form) == -1) {
		answer_text(req, 400, "wanted a form\n");
		return;
	}
	status = a->opts.operate(a->opts.arg, &call, &text);
	answer(req, (int)status, TYPE_TEXT, buf_slice(&text));
	buf_fini(&text);
	evhttp_clear_headers(&form.fields);
}

static void
on_request(struct evhttp_request *req, void *arg)
{
	struct door *door = arg;
	enum evhttp_cmd_type method = evhttp_request_get_command(req);
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));

	if (!admit(door, req))
		return;
	if (method == EVHTTP_REQ_POST && door->operates && path != NULL) {
		operate(door, req, path);
		return;
	}
	if (method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD) {
		evhttp_add_header(evhttp_request_get_output_headers(req), "Allow", "GET, HEAD");
		answer_text(req, 405, "only GET and HEAD\n");
		return;
	}
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		if (path == NULL || strcmp(path, pages[i].path) != 0 ||
		    (pages[i].guarded && !door->guarded))
			continue;
		pages[i].answer(door, req);
		return;
	}
	answer_text(req, 404, "no such page\n");
}

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
open_door(struct admin *a, struct door *door, int fd, const char *host, struct err *err)
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
	evhttp_set_max_body_size(door->http, door->operates ? FORM_MAX : 0);
	evhttp_set_timeout(door->http, TIMEOUT_S);
	evhttp_set_bevcb(door->http, visitors_let_in, &door->visitors);
	evhttp_set_gencb(door->http, on_request, door);
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
open_metrics(struct admin *a, const struct config *config, struct err *err)
{
	int fd = listener_bind(&config->metrics, "metrics.address", err);

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
	if ((fd = listener_bind(&config->address, "admin.address", err)) == -1)
		return -1;
	announce(a, "admin", fd);
	a->admin.guarded = true;
	return open_door(a, &a->admin, fd, config->address.host, err);
}

static int
open_socket(struct admin *a, const struct config_admin *config, struct err *err)
{
	int fd;

	if (config->socket == NULL)
		return 0;
	if ((fd = admin_socket_bind(config->socket, err)) == -1)
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

int
admin_start(const struct admin_opts *opts, struct admin **out, struct err *err)
{
	const struct config *config = opts->config(opts->arg);
	struct events_opts eopts = { opts->base, opts->trail_dirfd, opts->log, opts->corrupt,
		opts->arg };
	struct admin *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return err_set(err, "admin: memory is short");
	a->opts = *opts;
	if ((config->metrics_enabled && open_metrics(a, config, err) == -1) ||
	    (config->admin.enabled && (events_new(&eopts, &a->events, err) == -1 ||
					  open_admin(a, &config->admin, err) == -1 ||
					  open_socket(a, &config->admin, err) == -1))) {
		admin_free(a);
		return -1;
	}
	*out = a;
	return 0;
}

static void
close_door(struct door *door)
{
	if (door->http != NULL) {
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
	if (a->socket_path != NULL)
		unlink(a->socket_path);
	free(a->socket_path);
	free(a);
}
