#include "service.h"
#include "api.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct reply {
	struct service *service;
	struct evhttp_request *req;
	int status;
	char *text; /* body, or NULL */
	bool chunked;
	bool head;
};

static const char *
header(struct evhttp_request *req, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(req), name);
}

static void
set_header(struct evhttp_request *req, const char *name, const char *value)
{
	evhttp_add_header(evhttp_request_get_output_headers(req), name, value);
}

static const char *
method_name(struct evhttp_request *req)
{
	switch (evhttp_request_get_command(req)) {
	case EVHTTP_REQ_GET:
		return "GET";
	case EVHTTP_REQ_POST:
		return "POST";
	case EVHTTP_REQ_HEAD:
		return "HEAD";
	case EVHTTP_REQ_PUT:
		return "PUT";
	case EVHTTP_REQ_DELETE:
		return "DELETE";
	case EVHTTP_REQ_OPTIONS:
		return "OPTIONS";
	case EVHTTP_REQ_PATCH:
		return "PATCH";
	default:
		return "OTHER";
	}
}

/* ---- the request log ---- */

static json_t *
log_field_names(struct evhttp_request *req)
{
	const struct evkeyval *kv = evhttp_request_get_input_headers(req)->tqh_first;
	json_t *names = json_array();

	for (; kv != NULL; kv = kv->next.tqe_next)
		json_array_append_new(names, json_string(kv->key));
	return names;
}

static json_t *
log_fields(struct evhttp_request *req)
{
	static const char *const shown[] = { "Host", "Via", "Forwarded", "Connection",
		"Transfer-Encoding", "Content-Length", "Expect", "TE", "Trailer", "Correlation-Id",
		"X-Forwarded-For", "User-Agent" };
	json_t *fields = json_object();

	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		if (header(req, shown[i]) != NULL)
			json_object_set_new(fields, shown[i], json_string(header(req, shown[i])));
	return fields;
}

static void
log_request(struct service *s, struct evhttp_request *req, const char *body, size_t n, int status)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(req);
	const char *correlation = header(req, "Correlation-Id");
	char *peer = NULL, hash[65], connection[80];
	ev_uint16_t port = 0;
	json_t *line;

	if (s->log == NULL)
		return;
	evhttp_connection_get_peer(conn, &peer, &port);
	snprintf(connection, sizeof(connection), "%s:%u", peer != NULL ? peer : "", port);
	crypto_sha256_hex(body != NULL ? body : "", n, hash);
	line = json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o, s:I, s:s, s:i}", "connection", connection,
	    "method", method_name(req), "target", evhttp_request_get_uri(req), "correlation",
	    correlation, "names", log_field_names(req), "fields", log_fields(req), "bodyLength",
	    (json_int_t)n, "bodySha256", hash, "status", status);
	if (line != NULL) {
		json_dumpf(line, s->log, JSON_COMPACT);
		fputc('\n', s->log);
		fflush(s->log);
	}
	json_decref(line);
}

/* ---- answering ---- */

static void
set_correlation(struct evhttp_request *req)
{
	const char *theirs = header(req, "Correlation-Id"),
		   *wanted = header(req, "X-Test-Correlation");
	char made[CRYPTO_UUID_SIZE];

	if (wanted != NULL) {
		if (strcmp(wanted, "none") != 0)
			set_header(req, "Correlation-Id", wanted);
	} else if (theirs != NULL && crypto_is_uuid(theirs)) {
		set_header(req, "Correlation-Id", theirs);
	} else {
		crypto_uuid4(made);
		set_header(req, "Correlation-Id", made);
	}
}

static void
set_test_header(struct evhttp_request *req)
{
	const char *wanted = header(req, "X-Test-Header"), *colon;
	char *name;

	if (wanted == NULL || (colon = strchr(wanted, ':')) == NULL)
		return;
	name = strndup(wanted, (size_t)(colon - wanted));
	set_header(req, name, colon + 1 + strspn(colon + 1, " "));
	free(name);
}

static void
fill_with_bytes(struct evbuffer *out, size_t n)
{
	static const char block[65536];

	while (n > 0) {
		size_t piece = n < sizeof(block) ? n : sizeof(block);
		evbuffer_add_reference(out, block, piece, NULL, NULL);
		n -= piece;
	}
}

static void
reply_free(struct reply *r)
{
	free(r->text);
	free(r);
}

static void
free_connection(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	evhttp_connection_free(arg);
}

/* Not from inside one of the connection's own callbacks. */
static void
close_soon(struct service *s, struct evhttp_connection *conn)
{
	static const struct timeval now = { 0, 0 };

	event_base_once(s->base, -1, EV_TIMEOUT, free_connection, conn, &now);
}

struct raw_close {
	struct service *service;
	struct evhttp_connection *conn;
};

static void
on_raw_written(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg)
{
	struct raw_close *rc = arg;

	(void)info;
	if (evbuffer_get_length(out) > 0)
		return;
	evbuffer_remove_cb(out, on_raw_written, rc);
	close_soon(rc->service, rc->conn);
	free(rc);
}

static void
send_raw(struct reply *r, const char *b64)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(r->req);
	struct bufferevent *bev = evhttp_connection_get_bufferevent(conn);
	struct raw_close *rc;
	struct bytes raw;

	if (crypto_b64_decode(b64, strlen(b64), false, &raw) == -1 ||
	    (rc = malloc(sizeof(*rc))) == NULL) {
		close_soon(r->service, conn);
		return;
	}
	*rc = (struct raw_close){ r->service, conn };
	bufferevent_enable(bev, EV_WRITE);
	bufferevent_write(bev, raw.p, raw.n);
	evbuffer_add_cb(bufferevent_get_output(bev), on_raw_written, rc);
	bytes_free(&raw);
}

static void
send_normal(struct reply *r)
{
	struct evbuffer *out = evbuffer_new();
	const char *size = header(r->req, "X-Test-Size");

	if (r->head || r->status == 204 || r->status == 304)
		;
	else if (size != NULL)
		fill_with_bytes(out, strtoul(size, NULL, 10));
	else if (r->text != NULL)
		evbuffer_add(out, r->text, strlen(r->text));
	if (r->chunked && !r->head) {
		evhttp_send_reply_start(r->req, r->status, NULL);
		evhttp_send_reply_chunk(r->req, out);
		evhttp_send_reply_end(r->req);
	} else {
		evhttp_send_reply(r->req, r->status, NULL, r->head ? NULL : out);
	}
	evbuffer_free(out);
}

static void
reply_send(evutil_socket_t fd, short what, void *arg)
{
	struct reply *r = arg;
	struct evhttp_connection *conn = evhttp_request_get_connection(r->req);

	(void)fd;
	(void)what;
	if (conn == NULL) /* the client has gone while we waited */
		evhttp_request_free(r->req);
	else if (header(r->req, "X-Test-Close") != NULL)
		close_soon(r->service, conn);
	else if (header(r->req, "X-Test-Raw") != NULL)
		send_raw(r, header(r->req, "X-Test-Raw"));
	else
		send_normal(r);
	reply_free(r);
}

static void
reply_schedule(struct reply *r)
{
	const char *delay = header(r->req, "X-Test-Delay");
	long ms = delay != NULL ? strtol(delay, NULL, 10) : 0;

	if (ms <= 0) {
		reply_send(-1, 0, r);
		return;
	}
	event_base_once(r->service->base, -1, EV_TIMEOUT, reply_send, r,
	    &(struct timeval){ ms / 1000, ms % 1000 * 1000 });
}

/* ---- deciding ---- */

static void
refuse(struct call *c, int status, const char *code, const char *message)
{
	c->status = status;
	c->answer = api_error(status, code, message);
}

static bool
admit(struct service *s, struct evhttp_request *req, struct call *c)
{
	switch (token_check(&s->secret, header(req, "Authorization"), time(NULL))) {
	case TOKEN_BAD:
		set_header(req, "WWW-Authenticate", "Bearer");
		refuse(c, 401, "", "Request is not authenticated");
		return false;
	case TOKEN_FORBIDDEN:
		refuse(c, 403, "UNAUTHORIZED_ERR", "The user has no role on this instance");
		return false;
	case TOKEN_OK:
		break;
	}
	/* The governance service is asked about an account, not about an instance. */
	if (strncmp(c->path, "/governance/", 12) == 0 && c->instance == NULL)
		c->instance = "00000000-0000-0000-0000-000000000000";
	if (c->instance == NULL || !crypto_is_uuid(c->instance)) {
		refuse(c, 400, "BAD_HEADER_ERR", "Bluemix-Instance is not a UUID");
		return false;
	}
	return true;
}

static void
run_call(struct service *s, struct evhttp_request *req, struct call *c, const char *body, size_t n)
{
	const char *status = header(req, "X-Test-Status");

	if (!admit(s, req, c))
		return;
	if (status != NULL && strtol(status, NULL, 10) >= 200) {
		c->status = (int)strtol(status, NULL, 10);
		if (c->status >= 400)
			c->answer = api_error(c->status, "TEST_ERR", "as asked for");
		return;
	}
	if (header(req, "X-Test-Size") != NULL) {
		c->status = 200;
		return;
	}
	if (n > 0 && (c->body = json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL)) == NULL) {
		refuse(c, 400, "BAD_BODY_ERR", "the body is not JSON");
		return;
	}
	api_answer(c);
}

static struct reply *
reply_new(struct service *s, struct evhttp_request *req, struct call *c)
{
	struct reply *r = calloc(1, sizeof(*r));

	if (r == NULL)
		abort();
	r->service = s;
	r->req = req;
	r->status = c->status;
	r->head = evhttp_request_get_command(req) == EVHTTP_REQ_HEAD;
	r->chunked = c->list || header(req, "X-Test-Chunked") != NULL;
	r->text = c->answer != NULL ? json_dumps(c->answer, JSON_COMPACT) : NULL;
	return r;
}

static void
set_headers(struct evhttp_request *req, const struct call *c)
{
	char total[24];

	if (c->answer != NULL)
		set_header(req, "Content-Type", "application/json");
	if (c->list && strcmp(c->path, "/api/v2/keys") == 0) {
		snprintf(total, sizeof(total), "%zu", c->total);
		set_header(req, "Key-Total", total);
	}
	set_correlation(req);
	set_test_header(req);
}

static void
on_request(struct evhttp_request *req, void *arg)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
	struct evbuffer *in = evhttp_request_get_input_buffer(req);
	size_t n = evbuffer_get_length(in);
	const char *body = n > 0 ? (const char *)evbuffer_pullup(in, -1) : NULL;
	const char *query = evhttp_uri_get_query(uri), *prefer = header(req, "Prefer");
	struct evkeyvalq parameters;
	struct service *s = arg;
	struct call c = { 0 };

	TAILQ_INIT(&parameters);
	if (query != NULL)
		evhttp_parse_query_str(query, &parameters);
	c.store = s->store;
	c.method = method_name(req);
	c.path = evhttp_uri_get_path(uri);
	c.query = &parameters;
	c.instance = header(req, "Bluemix-Instance");
	c.ring = header(req, "X-Kms-Key-Ring");
	c.representation = prefer != NULL && strstr(prefer, "representation") != NULL;
	run_call(s, req, &c, body, n);
	log_request(s, req, body, n, c.status);
	set_headers(req, &c);
	reply_schedule(reply_new(s, req, &c));
	evhttp_clear_headers(&parameters);
	json_decref(c.answer);
	json_decref(c.body);
}

void
service_attach(struct service *s, struct evhttp *http)
{
	evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
					     EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
					     EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
	evhttp_set_gencb(http, on_request, s);
}
