#include "admin/answer.h"

#include "keytrail/event.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <stdio.h>

int
answer_put_string(struct slice s, struct buf *out)
{
	long n;

	if (buf_reserve(out, 6 * s.n + 2) == -1)
		return -1;
	n = event_json_string(s, buf_tail(out), buf_room(out));
	buf_commit(out, n > 0 ? (size_t)n : 0);
	return 0;
}

void
answer_set_headers(struct evhttp_request *req, const char *type)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);

	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
}

void
answer_send(struct evhttp_request *req, int status, const char *type, struct slice body)
{
	char length[24];

	snprintf(length, sizeof(length), "%zu", body.n);
	answer_set_headers(req, type);
	evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Length", length);
	if (evhttp_request_get_command(req) != EVHTTP_REQ_HEAD)
		evbuffer_add(evhttp_request_get_output_buffer(req), body.p, body.n);
	evhttp_send_reply(req, status, NULL, NULL);
}

void
answer_text(struct evhttp_request *req, int status, const char *text)
{
	answer_send(req, status, ANSWER_TEXT, slice_of(text));
}

void
answer_take(struct evhttp_request *req, int status, const char *type, struct buf *body, int rc)
{
	if (rc == -1)
		answer_text(req, 503, "memory is short\n");
	else
		answer_send(req, status, type, buf_slice(body));
	buf_fini(body);
}
