#include <llhttp.h>

#include "parse_internal.h"

/* What llhttp has confirmed so far of a head that our own scan found legal. */
struct opinion {
	const struct http_head *head;
	unsigned names;	 /* fields whose name llhttp has read */
	unsigned values; /* fields whose value it has read, or that have none */
	bool start_line; /* target or reason */
	bool method;
	bool complete;
};

static struct opinion *
opinion_of(llhttp_t *parser)
{
	return parser->data;
}

/* The same bytes at the same place, not just equal ones. */
static bool
is_span(struct slice s, const char *at, size_t n)
{
	return n == s.n && (n == 0 || at == s.p);
}

/* Ends the run: there are two readings. */
static int
verdict(bool agreed)
{
	return agreed ? 0 : HPE_USER;
}

static int
on_method(llhttp_t *parser, const char *at, size_t n)
{
	struct opinion *o = opinion_of(parser);

	o->method = is_span(o->head->method, at, n);
	return verdict(o->method);
}

static int
on_target(llhttp_t *parser, const char *at, size_t n)
{
	struct opinion *o = opinion_of(parser);

	o->start_line = is_span(o->head->target, at, n);
	return verdict(o->start_line);
}

static int
on_reason(llhttp_t *parser, const char *at, size_t n)
{
	struct opinion *o = opinion_of(parser);

	o->start_line = is_span(o->head->reason, at, n);
	return verdict(o->start_line);
}

static bool
is_value_read(const struct opinion *o)
{
	return o->values == o->names ||
	       (o->values + 1 == o->names && o->head->fields[o->names - 1].value.n == 0);
}

static int
on_name(llhttp_t *parser, const char *at, size_t n)
{
	struct opinion *o = opinion_of(parser);

	if (!is_value_read(o) || o->names == o->head->nfields)
		return verdict(false);
	o->values = o->names;
	return verdict(is_span(o->head->fields[o->names++].name, at, n));
}

/* llhttp leaves the white space after a value in its span. */
static int
on_value(llhttp_t *parser, const char *at, size_t n)
{
	struct opinion *o = opinion_of(parser);
	struct slice trimmed = slice_trim((struct slice){ at, n });

	if (o->names == 0 || o->values == o->names)
		return verdict(n == 0);
	o->values = o->names;
	return verdict(is_span(o->head->fields[o->names - 1].value, trimmed.p, trimmed.n));
}

static int
on_headers_complete(llhttp_t *parser)
{
	struct opinion *o = opinion_of(parser);

	o->complete = is_value_read(o) && o->names == o->head->nfields;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_method = on_method,
	.on_url = on_target,
	.on_status = on_reason,
	.on_header_field = on_name,
	.on_header_value = on_value,
	.on_headers_complete = on_headers_complete,
};

static bool
is_same_framing(const llhttp_t *parser, const struct http_head *h)
{
	bool chunked = http_head_field(h, HTTP_F_TRANSFER_ENCODING) != NULL;
	bool length = http_head_field(h, HTTP_F_CONTENT_LENGTH) != NULL;

	return chunked == ((parser->flags & F_CHUNKED) != 0) &&
	       length == ((parser->flags & F_CONTENT_LENGTH) != 0) &&
	       (!length || parser->content_length == h->length);
}

bool
parse_second_opinion(const struct http_head *h, struct slice bytes, bool response)
{
	struct opinion o = { .head = h };
	llhttp_t parser;

	llhttp_init(&parser, response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
	parser.data = &o;
	if (llhttp_execute(&parser, bytes.p, bytes.n) != HPE_PAUSED || !o.complete)
		return false;
	if (llhttp_get_http_major(&parser) != 1 || llhttp_get_http_minor(&parser) != h->minor ||
	    !is_same_framing(&parser, h))
		return false;
	return response ? (unsigned)llhttp_get_status_code(&parser) == h->status &&
			      (o.start_line || h->reason.n == 0)
			: o.method && o.start_line;
}
