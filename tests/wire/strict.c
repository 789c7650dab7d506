#include "wire/strict.h"

#include <string.h>
#include <strings.h>

struct reader {
	const char *p, *end;
	enum strict_kind kind;
	struct strict_message *out;
	unsigned seen; /* of `once`, by position */
};

static enum strict_result
bad(struct reader *r, const char *why)
{
	r->out->why = why;
	return STRICT_BAD;
}

static bool
is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool
is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

static bool
is_token(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(p[i]) && !is_one_of(p[i], "!#$%&'*+-.^_`|~"))
			return false;
	return n > 0;
}

static bool
is(const char *p, size_t n, const char *word)
{
	return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

static bool
is_in(const char *p, size_t n, const char *const *words, size_t nwords)
{
	for (size_t i = 0; i < nwords; i++)
		if (is(p, n, words[i]))
			return true;
	return false;
}

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* Fields that a request may have once. */
static const char *const once[] = { "host", "content-length", "transfer-encoding", "authorization",
	"bluemix-instance", "correlation-id", "content-type", "expect", "forwarded", "prefer",
	"via", "x-forwarded-for", "x-forwarded-proto", "x-kms-key-ring" };
static const char *const hop_by_hop[] = { "connection", "http2-settings", "keep-alive",
	"proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
	"upgrade" };
/* What RFC 9110 section 6.5.1 keeps out of trailers. */
static const char *const header_only[] = { "age", "authentication-info", "cache-control",
	"content-encoding", "content-location", "content-range", "cookie", "date", "expires",
	"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
	"location", "max-forwards", "pragma", "proxy-authentication-info", "range", "retry-after",
	"set-cookie", "vary", "www-authenticate" };
/* What servers take for where a request came from, beside X-Forwarded-*. */
static const char *const origins[] = { "cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4",
	"client-ip", "fastly-client-ip", "fly-client-ip", "forwarded-for", "proxy-client-ip",
	"true-client-ip", "wl-proxy-client-ip", "x-azure-clientip", "x-client-ip",
	"x-cluster-client-ip", "x-envoy-external-address", "x-forwarded",
	"x-original-forwarded-for", "x-originating-ip", "x-real-ip", "x-remote-addr",
	"x-remote-ip" };
static const char *const overrides[] = { "x-http-method", "x-http-method-override",
	"x-http-request", "x-method-override", "x-original-url", "x-rewrite-url" };

/* ---- lines ---- */

/* The line at r->p, which is passed: PARTIAL while its CR LF is not there. */
static enum strict_result
take_line(struct reader *r, const char **line, size_t *n)
{
	for (const char *p = r->p; p < r->end; p++) {
		if (*p == '\n')
			return bad(r, "a bare LF");
		if (*p != '\r')
			continue;
		if (p + 1 == r->end)
			return STRICT_PARTIAL;
		if (p[1] != '\n')
			return bad(r, "a bare CR");
		*line = r->p;
		*n = (size_t)(p - r->p);
		r->p = p + 2;
		return STRICT_WHOLE;
	}
	return STRICT_PARTIAL;
}

static int
hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool
is_target(const char *p, size_t n)
{
	bool query = false;

	if (n == 0 || p[0] != '/')
		return n == 1 && p[0] == '*';
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '%') {
			if (n - i < 3 || hex(p[i + 1]) == -1 || hex(p[i + 2]) == -1)
				return false;
			i += 2;
		} else if (p[i] == '?' && !query) {
			query = true;
		} else if (!is_alnum(p[i]) &&
			   !is_one_of(p[i], query ? "-._~!$&'()*+,=:@/?" : "-._~!$&'()*+,=:@/")) {
			return false;
		}
	}
	return true;
}

static enum strict_result
read_request_line(struct reader *r, const char *line, size_t n)
{
	static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE",
		"OPTIONS" };
	static const char version[] = " HTTP/1.1";
	const char *space = memchr(line, ' ', n);
	size_t method = space != NULL ? (size_t)(space - line) : 0, after = sizeof(version) - 1;
	bool known = false;

	for (size_t i = 0; i < COUNT(methods); i++)
		known = known ||
			(method == strlen(methods[i]) && memcmp(line, methods[i], method) == 0);
	if (!known)
		return bad(r, "the method");
	if (n < method + 1 + after || memcmp(line + n - after, version, after) != 0)
		return bad(r, "the version");
	r->out->method = line;
	r->out->method_len = method;
	r->out->target = space + 1;
	r->out->target_len = n - method - 1 - after;
	return is_target(r->out->target, r->out->target_len) ? STRICT_WHOLE : bad(r, "the target");
}

static enum strict_result
read_status_line(struct reader *r, const char *line, size_t n)
{
	if (n < 13 || memcmp(line, "HTTP/1.1 ", 9) != 0 || line[12] != ' ')
		return bad(r, "the status line");
	for (int i = 9; i < 12; i++) {
		if (line[i] < '0' || line[i] > '9')
			return bad(r, "the status");
		r->out->status = r->out->status * 10 + (unsigned)(line[i] - '0');
	}
	return r->out->status >= 100 && r->out->status < 600 ? STRICT_WHOLE : bad(r, "the status");
}

/* ---- fields ---- */

static bool
is_value(const struct reader *r, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f ||
		    ((unsigned char)p[i] > 0x7f && r->kind == STRICT_REQUEST))
			return false;
	return n == 0 || (!is_one_of(p[0], " \t") && !is_one_of(p[n - 1], " \t"));
}

static enum strict_result
read_length(struct reader *r, const char *p, size_t n)
{
	if (r->out->counted || n == 0 || n > 19 || (n > 1 && p[0] == '0'))
		return bad(r, "Content-Length");
	r->out->counted = true;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return bad(r, "Content-Length");
		r->out->length = r->out->length * 10 + (unsigned)(p[i] - '0');
	}
	return STRICT_WHOLE;
}

/* As whoever follows CGI reads a name: "content_length" is "content-length".  False: it is longer than
 * any that counts. */
static bool
fold(const char *name, size_t n, char plain[32])
{
	for (size_t i = 0; i < n && i < 32; i++)
		plain[i] = is_alnum(name[i]) ? name[i] : '-';
	return n <= 32;
}

static bool
is_alias(const char *name, size_t n)
{
	char plain[32];

	return fold(name, n, plain) && memcmp(plain, name, n) != 0 &&
	       (is_in(plain, n, once, COUNT(once)) ||
		   is_in(plain, n, hop_by_hop, COUNT(hop_by_hop)));
}

bool
strict_is_origin(const char *name, size_t n)
{
	static const char forwarded[] = "x-forwarded-";
	char plain[32];
	bool fits = fold(name, n, plain);

	if (n >= strlen(forwarded) && strncasecmp(plain, forwarded, strlen(forwarded)) == 0)
		return true;
	return fits && is_in(plain, n, origins, COUNT(origins));
}

static bool
is_header_only(const char *name, size_t n)
{
	char plain[32];

	if (strict_is_origin(name, n))
		return true;
	return fold(name, n, plain) && (is_in(plain, n, once, COUNT(once)) ||
					   is_in(plain, n, hop_by_hop, COUNT(hop_by_hop)) ||
					   is_in(plain, n, overrides, COUNT(overrides)) ||
					   is_in(plain, n, header_only, COUNT(header_only)));
}

static enum strict_result
check_request_name(struct reader *r, const char *name, size_t n)
{
	if (is_in(name, n, hop_by_hop, COUNT(hop_by_hop)))
		return bad(r, "a hop-by-hop field");
	if (is_in(name, n, overrides, COUNT(overrides)))
		return bad(r, "an override");
	for (unsigned i = 0; i < COUNT(once); i++) {
		if (!is(name, n, once[i]))
			continue;
		if ((r->seen & 1u << i) != 0)
			return bad(r, "a field that is repeated");
		r->seen |= 1u << i;
	}
	return STRICT_WHOLE;
}

/* "Name: value" and nothing else. */
static bool
split_field(const struct reader *r, const char *line, size_t n, size_t *name, const char **value,
    size_t *len)
{
	const char *colon = memchr(line, ':', n);

	if (colon == NULL || colon + 1 == line + n || colon[1] != ' ')
		return false;
	*name = (size_t)(colon - line);
	*value = colon + 2;
	*len = n - *name - 2;
	return is_token(line, *name) && is_value(r, *value, *len);
}

static enum strict_result
read_field(struct reader *r, const char *line, size_t n)
{
	const char *value;
	size_t name, len;

	if (!split_field(r, line, n, &name, &value, &len))
		return bad(r, "a field");
	if (is_alias(line, name))
		return bad(r, "an alias");
	if (r->kind == STRICT_REQUEST && check_request_name(r, line, name) != STRICT_WHOLE)
		return STRICT_BAD;
	if (is(line, name, "connection")) {
		if (!is(value, len, "close") && !is(value, len, "keep-alive"))
			return bad(r, "Connection");
		r->out->close = is(value, len, "close");
	}
	if (is(line, name, "content-length"))
		return read_length(r, value, len);
	if (!is(line, name, "transfer-encoding"))
		return STRICT_WHOLE;
	if (r->out->chunked || !is(value, len, "chunked"))
		return bad(r, "Transfer-Encoding");
	r->out->chunked = true;
	return STRICT_WHOLE;
}

/* ---- a body ---- */

static enum strict_result
take_content(struct reader *r, uint64_t n)
{
	size_t have = (size_t)(r->end - r->p);
	size_t take = n < have ? (size_t)n : have;

	r->out->sum = strict_sum(r->out->sum, r->p, take);
	r->out->content += take;
	r->p += take;
	return take == n ? STRICT_WHOLE : STRICT_PARTIAL;
}

static enum strict_result
read_size(struct reader *r, uint64_t *size)
{
	enum strict_result result;
	const char *line;
	size_t n;

	if ((result = take_line(r, &line, &n)) != STRICT_WHOLE)
		return result;
	if (n == 0 || n > 15 || (n > 1 && line[0] == '0'))
		return bad(r, "a chunk's size");
	*size = 0;
	for (size_t i = 0; i < n; i++) {
		if (hex(line[i]) == -1)
			return bad(r, "a chunk's size");
		*size = *size << 4 | (unsigned)hex(line[i]);
	}
	return STRICT_WHOLE;
}

static enum strict_result
read_chunks(struct reader *r)
{
	enum strict_result result;
	const char *line;
	uint64_t size;
	size_t n;

	while ((result = read_size(r, &size)) == STRICT_WHOLE && size > 0) {
		if ((result = take_content(r, size)) != STRICT_WHOLE)
			return result;
		if ((result = take_line(r, &line, &n)) != STRICT_WHOLE)
			return result;
		if (n > 0)
			return bad(r, "a chunk's end");
	}
	if (result != STRICT_WHOLE)
		return result;
	r->out->trailers = r->p;
	while ((result = take_line(r, &line, &n)) == STRICT_WHOLE && n > 0) {
		const char *value;
		size_t name, len;

		if (!split_field(r, line, n, &name, &value, &len))
			return bad(r, "a trailer");
		if (is_header_only(line, name))
			return bad(r, "a trailer that may not be one");
		r->out->trailers_len = (size_t)(r->p - r->out->trailers);
	}
	return result;
}

static enum strict_result
read_body(struct reader *r)
{
	struct strict_message *m = r->out;
	bool none = r->kind == STRICT_ANSWER_TO_HEAD || m->status == 204 || m->status == 304 ||
		    (m->status > 0 && m->status < 200);

	if (m->chunked && m->counted)
		return bad(r, "two framings");
	if ((m->status == 204 || (m->status > 0 && m->status < 200)) && (m->chunked || m->counted))
		return bad(r, "a body that may not be");
	if (none || (r->kind == STRICT_REQUEST && !m->chunked && !m->counted))
		return STRICT_WHOLE;
	if (m->chunked)
		return read_chunks(r);
	if (m->counted)
		return take_content(r, m->length);
	m->until_close = true;
	take_content(r, UINT64_MAX);
	return m->close ? STRICT_PARTIAL : bad(r, "an end that is not announced");
}

enum strict_result
strict_read(const char *p, size_t n, enum strict_kind kind, struct strict_message *out)
{
	struct reader r = { .p = p, .end = p + n, .kind = kind, .out = out };
	enum strict_result result;
	const char *line;
	size_t len;

	*out = (struct strict_message){ .sum = STRICT_SUM_INIT };
	if ((result = take_line(&r, &line, &len)) != STRICT_WHOLE)
		return result;
	result = kind == STRICT_REQUEST ? read_request_line(&r, line, len)
					: read_status_line(&r, line, len);
	out->fields = r.p;
	while (result == STRICT_WHOLE) {
		if ((result = take_line(&r, &line, &len)) != STRICT_WHOLE)
			return result;
		if (len == 0)
			break;
		result = read_field(&r, line, len);
		out->fields_len = (size_t)(r.p - out->fields);
	}
	if (result != STRICT_WHOLE)
		return result;
	if (kind == STRICT_REQUEST && (r.seen & 1) == 0)
		return bad(&r, "no Host");
	out->has_head = true;
	result = read_body(&r);
	out->used = (size_t)(r.p - p);
	return result;
}

uint64_t
strict_sum(uint64_t sum, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum = (sum ^ (unsigned char)p[i]) * UINT64_C(0x100000001b3);
	return sum;
}
