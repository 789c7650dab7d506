#include "admin/admin_internal.h"

#include "admin/answer.h"
#include "keytrail/clock.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <string.h>

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

/* Until a token says more. */
static struct admin_ask
ask_of(struct admin_door *door, struct evhttp_request *req)
{
	struct admin_ask ask = { door, req, "none", "viewer", "unknown", false };
	char *address = NULL;
	uint16_t port;

	if (door->operates)
		return (struct admin_ask){ door, req, "none", "operator", "unix", false };
	evhttp_connection_get_peer(evhttp_request_get_connection(req), &address, &port);
	if (address != NULL)
		ask.address = address;
	return ask;
}

void
admin_on_request(struct evhttp_request *req, void *arg)
{
	struct admin_door *door = arg;
	enum evhttp_cmd_type method = evhttp_request_get_command(req);
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
	const struct admin_page *page = path != NULL ? admin_find_page(door, path) : NULL;
	struct admin_ask ask = ask_of(door, req);
	enum metric_admin_refusal why = METRIC_ADMIN_REFUSALS;

	ask.open = page != NULL && page->open;
	if (door->guarded)
		why = admin_look_at(&ask, clock_mono_ns());
	if (why != METRIC_ADMIN_REFUSALS) {
		admin_refuse(&ask, why);
	} else if (method == EVHTTP_REQ_POST && door->operates && path != NULL) {
		operate(door, req, path);
	} else if (method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD) {
		evhttp_add_header(evhttp_request_get_output_headers(req), "Allow", "GET, HEAD");
		answer_text(req, 405, "only GET and HEAD\n");
	} else if (page != NULL) {
		page->answer(&ask);
	} else {
		answer_text(req, 404, "no such page\n");
	}
}
