#include "admin/admin_internal.h"

#include "admin/events.h"
#include "admin/visitors.h"
#include "data/listener.h"
#include "keytrail/event.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
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

static struct slice
next_part(struct slice *rest, char separator)
{
	const char *end = memchr(rest->p, separator, rest->n);
	size_t n = end == NULL ? rest->n : (size_t)(end - rest->p);
	struct slice part = slice_trim(slice_sub(*rest, 0, n));

	*rest = slice_sub(*rest, end == NULL ? n : n + 1, rest->n);
	return part;
}

/* "0.75" -> 750; 0 where it is none (RFC 9110 section 12.4.2). */
static unsigned
parse_weight(struct slice s)
{
	unsigned weight = 0, place = 1000;

	for (size_t i = 0; i < s.n && place > 0; i++) {
		if (s.p[i] == '.' && i == 1)
			continue;
		if (s.p[i] < '0' || s.p[i] > '9')
			return 0;
		weight += (unsigned)(s.p[i] - '0') * place;
		place /= 10;
	}
	return weight > 1000 ? 0 : weight;
}

struct preference {
	unsigned openmetrics, text;
};

static void
weigh(struct slice range, struct preference *p)
{
	struct slice type = next_part(&range, ';');
	unsigned weight = 1000;
	bool ours = true;

	while (range.n > 0) {
		struct slice parameter = next_part(&range, ';');

		if (slice_has_prefix(parameter, SLICE("q=")))
			weight = parse_weight(slice_sub(parameter, 2, parameter.n));
		else if (slice_has_prefix(parameter, SLICE("version=")))
			ours = slice_equal(parameter, SLICE("version=1.0.0"));
	}
	if (slice_equal_nocase(type, SLICE("application/openmetrics-text")) && ours) {
		if (weight > p->openmetrics)
			p->openmetrics = weight;
	} else if (slice_equal_nocase(type, SLICE("text/plain")) ||
		   slice_equal(type, SLICE("text/*")) || slice_equal(type, SLICE("*/*"))) {
		if (weight > p->text)
			p->text = weight;
	}
}

static enum metrics_format
negotiate(const char *accept)
{
	struct preference p = { 0, 0 };
	struct slice rest = slice_of(accept == NULL ? "" : accept);

	while (rest.n > 0)
		weigh(next_part(&rest, ','), &p);
	return p.openmetrics > 0 && p.openmetrics >= p.text ? METRICS_OPENMETRICS_1_0_0
							    : METRICS_TEXT_0_0_4;
}

static void
answer_metrics(struct door *door, struct evhttp_request *req)
{
	struct admin *a = door->admin;
	struct evkeyvalq *in = evhttp_request_get_input_headers(req);
	enum metrics_format format = negotiate(evhttp_find_header(in, "Accept"));
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

/* The one value of a header: NULL when there is none; *repeated when there are more. */
static const char *
find_one(struct evhttp_request *req, const char *name, bool *repeated)
{
	struct evkeyvalq *headers = evhttp_request_get_input_headers(req);
	const char *value = NULL;
	struct evkeyval *h;

	*repeated = false;
	for (h = headers->tqh_first; h != NULL; h = h->next.tqe_next) {
		if (strcasecmp(h->key, name) != 0)
			continue;
		*repeated = value != NULL;
		value = h->value;
	}
	return value;
}

/* Without port and brackets: false when it does not fit. */
static bool
host_name(const char *header, char *out, size_t n)
{
	const char *end;

	if (*header == '[') {
		header++;
		if ((end = strchr(header, ']')) == NULL)
			return false;
	} else {
		end = header + strcspn(header, ":");
	}
	if ((size_t)(end - header) >= n)
		return false;
	memcpy(out, header, (size_t)(end - header));
	out[end - header] = '\0';
	return true;
}

static bool
is_address(const char *host, bool *loopback)
{
	struct in_addr v4;
	struct in6_addr v6;

	*loopback = false;
	if (inet_pton(AF_INET, host, &v4) == 1) {
		*loopback = ntohl(v4.s_addr) >> 24 == 127;
		return true;
	}
	if (inet_pton(AF_INET6, host, &v6) == 1) {
		*loopback = IN6_IS_ADDR_LOOPBACK(&v6) ||
			    (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
		return true;
	}
	return false;
}

/* A page of another site whose name was made to resolve to us (DNS rebinding) has its name here. */
static bool
host_allowed(const struct door *door, const char *header)
{
	char host[256];
	bool loopback, address;

	if (header == NULL || !host_name(header, host, sizeof(host)))
		return false;
	address = is_address(host, &loopback);
	if (loopback || strcasecmp(host, "localhost") == 0)
		return true;
	if (door->host == NULL)
		return false;
	if (strcmp(door->host, "0.0.0.0") == 0 || strcmp(door->host, "::") == 0)
		return address;
	return strcasecmp(host, door->host) == 0;
}

static bool
same_site(struct evhttp_request *req, const char *host)
{
	bool repeated_origin, repeated_site;
	const char *origin = find_one(req, "Origin", &repeated_origin);
	const char *site = find_one(req, "Sec-Fetch-Site", &repeated_site);

	if (repeated_origin || repeated_site)
		return false;
	if (site != NULL && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
		return false;
	return origin == NULL ||
	       (strncmp(origin, "http://", 7) == 0 && strcmp(origin + 7, host) == 0);
}

static bool
token_allowed(struct door *door, struct evhttp_request *req)
{
	const struct config_secret *token =
	    &door->admin->opts.config(door->admin->opts.arg)->admin.token;
	bool repeated;
	const char *given = find_one(req, "Authorization", &repeated);

	if (door->operates || token->bytes == NULL)
		return true;
	if (given == NULL || repeated || strncasecmp(given, "Bearer ", 7) != 0)
		return false;
	given += 7;
	return strlen(given) == token->n && CRYPTO_memcmp(given, token->bytes, token->n) == 0;
}

static void
refuse(struct door *door, struct evhttp_request *req, int status, const char *why)
{
	log_warn(door->admin->opts.log, "admin_refused", "%d: %s", status, why);
	answer(req, status, TYPE_TEXT, slice_of(why));
}

/* True when the request may go on; else it is answered. */
static bool
admit(struct door *door, struct evhttp_request *req)
{
	bool repeated;
	const char *host = find_one(req, "Host", &repeated);

	if (!door->guarded)
		return true;
	if (repeated || !host_allowed(door, host)) {
		refuse(door, req, 403, "Host is not an address of this listener\n");
		return false;
	}
	if (!same_site(req, host)) {
		refuse(door, req, 403, "requests of other sites are refused\n");
		return false;
	}
	if (!token_allowed(door, req)) {
		evhttp_add_header(evhttp_request_get_output_headers(req), "WWW-Authenticate",
		    "Bearer realm=\"keytrail\"");
		refuse(door, req, 401, "a bearer token is needed\n");
		return false;
	}
	return true;
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
	door->admin = a;
	if (host != NULL && (door->host = strdup(host)) == NULL)
		goto fail;
	if ((door->http = evhttp_new(a->opts.base)) == NULL)
		goto fail;
	visitors_init(&door->visitors, a->opts.base, LIFE_MS);
	evhttp_set_allowed_methods(door->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
						   EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
						   EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
	evhttp_set_max_headers_size(door->http, HEADERS_MAX);
	evhttp_set_max_body_size(door->http, door->operates ? FORM_MAX : 0);
	evhttp_set_timeout(door->http, TIMEOUT_S);
	evhttp_set_bevcb(door->http, visitors_let_in, &door->visitors);
	evhttp_set_gencb(door->http, on_request, door);
	if (evhttp_accept_socket(door->http, fd) == -1)
		goto fail;
	return 0;
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
	struct admin *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return err_set(err, "admin: memory is short");
	a->opts = *opts;
	if ((config->metrics_enabled && open_metrics(a, config, err) == -1) ||
	    (config->admin.enabled && (events_new(a->opts.base, a->opts.trail_dirfd, a->opts.log,
					   &a->events, err) == -1 ||
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
