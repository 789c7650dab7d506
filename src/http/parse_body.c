#include "keytrail/chars.h"
#include "parse_internal.h"

#define SIZE_DIGITS_MAX 16
#define EXTENSION_MAX	256 /* bytes a chunk */

/* A chunked body; RFC 9112 section 7.1. */
enum chunk_state {
	SIZE,
	EXT_NAME_BEGIN, /* after ';' */
	EXT_NAME,
	EXT_VALUE_BEGIN, /* after '=' */
	EXT_TOKEN,
	EXT_QUOTED,
	EXT_QUOTED_PAIR, /* after '\' */
	EXT_QUOTED_END,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER, /* a line's begin */
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	END_LF,
	END,
};

void
http_body_init(struct http_body *b, enum http_framing framing, uint64_t length)
{
	b->framing = framing;
	b->left = framing == HTTP_LENGTH ? length : 0;
	b->total = 0;
	b->state = SIZE;
	b->count = 0;
	b->options_len = b->trailers_len = b->section_len = 0;
}

void
http_body_follow(struct http_body *b, const struct http_head *h)
{
	const struct http_field *f;
	unsigned i = 0;

	http_body_init(b, h->framing, h->length);
	if (h->framing != HTTP_CHUNKED)
		return;
	while ((f = parse_next_connection(h, &i)) != NULL) {
		memcpy(b->trailers + b->options_len, f->value.p, f->value.n);
		b->options_len += f->value.n;
		b->trailers[b->options_len++] = ',';
	}
	b->trailers_len = b->section_len = b->options_len;
}

void
http_body_fini(struct http_body *b)
{
	/* All of it: an open line and a trimmed one lie beyond trailers_len. */
	if (b->framing == HTTP_CHUNKED)
		explicit_bzero(b->trailers, sizeof(b->trailers));
}

bool
http_body_done(const struct http_body *b)
{
	switch (b->framing) {
	case HTTP_NO_BODY:
		return true;
	case HTTP_LENGTH:
		return b->left == 0;
	case HTTP_CHUNKED:
		return b->state == END;
	case HTTP_UNTIL_CLOSE:
		break;
	}
	return false;
}

struct slice
http_body_trailers(const struct http_body *b)
{
	return b->framing == HTTP_CHUNKED && b->state == END
		   ? slice_sub((struct slice){ b->trailers, b->trailers_len }, b->options_len,
			 b->trailers_len)
		   : SLICE_EMPTY;
}

/* ---- chunk sizes and extensions ---- */

static enum http_refusal
go(struct http_body *b, enum chunk_state state)
{
	b->state = state;
	return REFUSAL_NONE;
}

static enum http_refusal
step_size(struct http_body *b, char c)
{
	if (chars_is(c, CHARS_HEX)) {
		b->left = b->left << 4 | chars_hex(c);
		return ++b->count <= SIZE_DIGITS_MAX && b->left <= INT64_MAX ? REFUSAL_NONE
									     : REFUSAL_BAD_CHUNK;
	}
	if (b->count == 0 || (c != ';' && c != '\r'))
		return REFUSAL_BAD_CHUNK;
	b->count = 0;
	return go(b, c == ';' ? EXT_NAME_BEGIN : SIZE_LF);
}

/* The end of an extension's name or value. */
static enum http_refusal
step_extension_end(struct http_body *b, char c)
{
	if (c == ';')
		return go(b, EXT_NAME_BEGIN);
	return c == '\r' ? go(b, SIZE_LF) : REFUSAL_BAD_CHUNK;
}

static enum http_refusal
step_extension(struct http_body *b, char c)
{
	bool token = chars_is(c, CHARS_TOKEN);

	if (c != '\r' && ++b->count > EXTENSION_MAX)
		return REFUSAL_BAD_CHUNK;
	switch ((enum chunk_state)b->state) {
	case EXT_NAME_BEGIN:
		return token ? go(b, EXT_NAME) : REFUSAL_BAD_CHUNK;
	case EXT_NAME:
		if (c == '=')
			return go(b, EXT_VALUE_BEGIN);
		return token ? REFUSAL_NONE : step_extension_end(b, c);
	case EXT_VALUE_BEGIN:
		if (c == '"')
			return go(b, EXT_QUOTED);
		return token ? go(b, EXT_TOKEN) : REFUSAL_BAD_CHUNK;
	case EXT_TOKEN:
		return token ? REFUSAL_NONE : step_extension_end(b, c);
	case EXT_QUOTED:
		if (c == '"')
			return go(b, EXT_QUOTED_END);
		if (c == '\\')
			return go(b, EXT_QUOTED_PAIR);
		return chars_is(c, CHARS_VALUE) ? REFUSAL_NONE : REFUSAL_BAD_CHUNK;
	case EXT_QUOTED_PAIR:
		return chars_is(c, CHARS_VALUE) ? go(b, EXT_QUOTED) : REFUSAL_BAD_CHUNK;
	default:
		return step_extension_end(b, c);
	}
}

static enum http_refusal
step_size_lf(struct http_body *b, char c)
{
	if (c != '\n')
		return REFUSAL_BAD_CHUNK;
	b->count = 0;
	return go(b, b->left > 0 ? DATA : TRAILER);
}

/* ---- trailers ---- */

/* Beyond the fields of the table: what RFC 9110 section 6.5.1 keeps out of trailers. */
static bool
is_header_only(struct slice name)
{
	static const struct slice names[] = { SLICE_INIT("age"), SLICE_INIT("authentication-info"),
		SLICE_INIT("cache-control"), SLICE_INIT("content-location"),
		SLICE_INIT("content-range"), SLICE_INIT("cookie"), SLICE_INIT("expires"),
		SLICE_INIT("if-match"), SLICE_INIT("if-modified-since"),
		SLICE_INIT("if-none-match"), SLICE_INIT("if-range"),
		SLICE_INIT("if-unmodified-since"), SLICE_INIT("max-forwards"), SLICE_INIT("pragma"),
		SLICE_INIT("proxy-authentication-info"), SLICE_INIT("range"),
		SLICE_INIT("retry-after"), SLICE_INIT("set-cookie"), SLICE_INIT("vary"),
		SLICE_INIT("www-authenticate") };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (parse_is_taken_for(name, names[i]))
			return true;
	return false;
}

/* RFC 9110 section 7.6.1 */
static bool
is_hop_by_hop(const struct http_body *b, struct slice name)
{
	struct slice rest = { b->trailers, b->options_len }, option;

	while (parse_next_element(&rest, &option))
		if (slice_equal_nocase(option, name))
			return true;
	return false;
}

static enum http_refusal
keep_trailer_byte(struct http_body *b, char c)
{
	if (b->trailers_len + b->count == sizeof(b->trailers) ||
	    b->section_len + b->count == HTTP_TRAILERS_MAX)
		return REFUSAL_BAD_TRAILER;
	b->trailers[b->trailers_len + b->count++] = c;
	return REFUSAL_NONE;
}

/* The open line, which may have white space around its value, becomes "Name: value\r\n". */
static enum http_refusal
close_trailer_line(struct http_body *b)
{
	char *line = b->trailers + b->trailers_len;
	const char *colon = memchr(line, ':', b->count);
	struct slice name = { line, (size_t)(colon - line) };
	struct slice value = slice_trim((struct slice){ colon + 1, b->count - name.n - 1 });

	b->section_len += b->count + 2;
	if (parse_alias_of(name) != HTTP_F_OTHER || http_is_claim_of_origin(name) ||
	    is_header_only(name) || b->section_len > HTTP_TRAILERS_MAX ||
	    b->trailers_len + name.n + value.n + 4 > sizeof(b->trailers))
		return REFUSAL_BAD_TRAILER;
	if (is_hop_by_hop(b, name))
		return go(b, TRAILER_LF);
	memmove(line + name.n + 2, value.p, value.n);
	memcpy(line + name.n, ": ", 2);
	memcpy(line + name.n + 2 + value.n, "\r\n", 2);
	b->trailers_len += name.n + value.n + 4;
	return go(b, TRAILER_LF);
}

static enum http_refusal
step_trailer(struct http_body *b, char c)
{
	switch ((enum chunk_state)b->state) {
	case TRAILER:
		if (c == '\r')
			return go(b, END_LF);
		b->count = 0;
		b->state = TRAILER_NAME;
		return chars_is(c, CHARS_TOKEN) ? keep_trailer_byte(b, c) : REFUSAL_BAD_TRAILER;
	case TRAILER_NAME:
		if (c == ':')
			b->state = TRAILER_VALUE;
		else if (!chars_is(c, CHARS_TOKEN))
			return REFUSAL_BAD_TRAILER;
		return keep_trailer_byte(b, c);
	case TRAILER_VALUE:
		if (c == '\r')
			return close_trailer_line(b);
		return chars_is(c, CHARS_VALUE) ? keep_trailer_byte(b, c) : REFUSAL_BAD_TRAILER;
	case TRAILER_LF:
		return c == '\n' ? go(b, TRAILER) : REFUSAL_BAD_TRAILER;
	default:
		return c == '\n' ? go(b, END) : REFUSAL_BAD_TRAILER;
	}
}

/* ---- the whole body ---- */

static enum http_refusal
step_chunked(struct http_body *b, char c)
{
	switch ((enum chunk_state)b->state) {
	case SIZE:
		return step_size(b, c);
	case SIZE_LF:
		return step_size_lf(b, c);
	case DATA_CR:
		return c == '\r' ? go(b, DATA_LF) : REFUSAL_BAD_CHUNK;
	case DATA_LF:
		return c == '\n' ? go(b, SIZE) : REFUSAL_BAD_CHUNK;
	case TRAILER:
	case TRAILER_NAME:
	case TRAILER_VALUE:
	case TRAILER_LF:
	case END_LF:
		return step_trailer(b, c);
	default:
		return step_extension(b, c);
	}
}

static struct slice
take(struct http_body *b, struct slice *in, uint64_t n)
{
	struct slice data = slice_sub(*in, 0, n < in->n ? (size_t)n : in->n);

	*in = slice_sub(*in, data.n, in->n);
	b->total += data.n;
	return data;
}

static enum http_body_result
next_counted(struct http_body *b, struct slice *in, struct slice *data)
{
	if (in->n == 0)
		return HTTP_BODY_MORE;
	*data = take(b, in, b->left);
	b->left -= data->n;
	return HTTP_BODY_DATA;
}

static enum http_body_result
next_chunked(struct http_body *b, struct slice *in, struct slice *data, enum http_refusal *refusal)
{
	while (in->n > 0 && b->state != DATA && b->state != END) {
		if ((*refusal = step_chunked(b, in->p[0])) != REFUSAL_NONE)
			return HTTP_BODY_BAD;
		*in = slice_sub(*in, 1, in->n);
	}
	if (b->state == END)
		return HTTP_BODY_END;
	if (in->n == 0)
		return HTTP_BODY_MORE;
	next_counted(b, in, data);
	if (b->left == 0)
		b->state = DATA_CR;
	return HTTP_BODY_DATA;
}

enum http_body_result
http_body_next(
    struct http_body *b, struct slice *in, struct slice *data, enum http_refusal *refusal)
{
	if (http_body_done(b))
		return HTTP_BODY_END;
	switch (b->framing) {
	case HTTP_LENGTH:
		return next_counted(b, in, data);
	case HTTP_CHUNKED:
		return next_chunked(b, in, data, refusal);
	case HTTP_UNTIL_CLOSE:
		b->left = UINT64_MAX;
		return next_counted(b, in, data);
	case HTTP_NO_BODY:
		break;
	}
	return HTTP_BODY_END;
}
