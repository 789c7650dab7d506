#include "data/pump.h"

#define COPY_MAX 4096 /* bytes; the memory of more is passed on */

static int
append_framed(struct buf *out, enum http_framing framing, struct slice data)
{
	int rc = 0;

	if (framing == HTTP_CHUNKED)
		rc |= buf_printf(out, "%zx\r\n", data.n);
	rc |= buf_append_slice(out, data);
	if (framing == HTTP_CHUNKED)
		rc |= buf_append(out, "\r\n", 2);
	return rc;
}

/* Copied, unless it is much, and all that there is: then the memory changes hands. */
static int
move(struct buf *out, enum http_framing framing, struct buf *in, struct slice data)
{
	if (framing == HTTP_CHUNKED || buf_size(out) > 0 || data.n <= COPY_MAX ||
	    data.n < buf_size(in))
		return append_framed(out, framing, data);
	buf_swap(out, in);
	return 0;
}

int
pump_end(struct buf *out, enum http_framing framing, const struct http_body *from)
{
	int rc = 0;

	if (framing != HTTP_CHUNKED)
		return 0;
	rc |= buf_append(out, "0\r\n", 3);
	if (from->framing == HTTP_CHUNKED)
		rc |= buf_append_slice(out, http_body_trailers(from));
	return rc | buf_append(out, "\r\n", 2);
}

enum pump_result
pump_fill(struct buf *out, enum http_framing framing, struct buf *in, struct http_body *body,
    enum http_refusal *why)
{
	struct slice rest = buf_slice(in), data;
	size_t before = buf_size(out);
	enum http_body_result r = HTTP_BODY_MORE;
	int rc = 0;

	while (rc == 0 && buf_size(out) < PUMP_MAX &&
	       (r = http_body_next(body, &rest, &data, why)) == HTTP_BODY_DATA)
		rc = move(out, framing, in, data);
	if (r == HTTP_BODY_END)
		rc |= pump_end(out, framing, body);
	buf_consume(in, buf_size(in) - rest.n);
	if (rc != 0)
		return PUMP_MEMORY;
	if (r == HTTP_BODY_BAD)
		return PUMP_BAD;
	if (r == HTTP_BODY_END)
		return PUMP_END;
	return buf_size(out) > before ? PUMP_SOME : PUMP_NONE;
}

enum stream_result
pump_read(struct stream *s, struct buf *in, size_t *n)
{
	enum stream_result r;

	if (!stream_may_go_on(s))
		return STREAM_AGAIN;
	if (buf_reserve(in, STREAM_READ) == -1) {
		s->starved = true;
		return STREAM_ERROR;
	}
	if ((r = stream_read(s, buf_tail(in), buf_room(in), n)) == STREAM_OK)
		buf_commit(in, *n);
	return r;
}
