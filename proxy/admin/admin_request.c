#include "admin/admin_internal.h"

#include "admin/answer.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <string.h>

/* ---- who may ask ---- */

/* True when the request may go on; else it is answered. */
static bool
admit(struct admin_door *door, struct evhttp_request *req)
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
	char text[ADMIN_FORM_MAX + 1];
	ev_ssize_t n = evbuffer_copyout(in, text, ADMIN_FORM_MAX);

	if (n < 0 || memchr(text, '\0', (size_t)n) != NULL)
		return -1;
	text[n] = '\0';
	return evhttp_parse_query_str(text, &form->fields);
}

static void
operate(struct admin_door *door, struct evhttp_request *req, const char *path)
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
	answer_send(req, (int)status, ANSWER_TEXT, buf_slice(&text));
	buf_fini(&text);
	evhttp_clear_headers(&form.fields);
}

void
admin_on_request(struct evhttp_request *req, void *arg)
{
	struct admin_door *door = arg;
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
	if (path == NULL || !admin_answer_page(door, req, path))
		answer_text(req, 404, "no such page\n");
}
