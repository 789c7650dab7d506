#include <arpa/inet.h>

#include "keytrail/chars.h"
#include "parse_internal.h"

#define UPGRADES (HTTP_F_SET(HTTP_F_UPGRADE) | HTTP_F_SET(HTTP_F_HTTP2_SETTINGS))

/* We might read the first and the service the last: at most one of each. */
#define SINGLES                                                                                    \
	(HTTP_F_SET(HTTP_F_AUTHORIZATION) | HTTP_F_SET(HTTP_F_BLUEMIX_INSTANCE) |                  \
	    HTTP_F_SET(HTTP_F_CONTENT_TYPE) | HTTP_F_SET(HTTP_F_CORRELATION_ID) |                  \
	    HTTP_F_SET(HTTP_F_PREFER) | HTTP_F_SET(HTTP_F_X_KMS_KEY_RING))

/* Not to be stripped by naming them in Connection: framing, or what the record rests on. */
#define KEPT                                                                                       \
	(SINGLES | HTTP_F_SET(HTTP_F_CONTENT_ENCODING) | HTTP_F_SET(HTTP_F_CONTENT_LENGTH) |       \
	    HTTP_F_SET(HTTP_F_EXPECT) | HTTP_F_SET(HTTP_F_FORWARDED) | HTTP_F_SET(HTTP_F_HOST) |   \
	    HTTP_F_SET(HTTP_F_TRANSFER_ENCODING) | HTTP_F_SET(HTTP_F_USER_AGENT) |                 \
	    HTTP_F_SET(HTTP_F_VIA))

/* Some CGI-like servers turn every byte of a name that is not alphanumeric into '_'. */
enum http_field_id
parse_alias_of(struct slice name)
{
	char plain[32];

	if (name.n > sizeof(plain))
		return HTTP_F_OTHER;
	for (size_t i = 0; i < name.n; i++)
		plain[i] = chars_is(name.p[i], CHARS_ALIAS) ? '-' : name.p[i];
	return http_field_id((struct slice){ plain, name.n });
}

bool
parse_is_taken_for(struct slice name, struct slice plain)
{
	if (name.n != plain.n)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		char c = chars_is(name.p[i], CHARS_ALIAS) ? '-' : chars_lower(name.p[i]);

		if (c != plain.p[i])
			return false;
	}
	return true;
}

bool
parse_is_forwarded(struct slice name)
{
	static const struct slice prefix = SLICE_INIT("x-forwarded-");

	return name.n >= prefix.n && parse_is_taken_for(slice_sub(name, 0, prefix.n), prefix);
}

bool
http_is_claim_of_origin(struct slice name)
{
	static const struct slice names[] = { SLICE_INIT("cf-connecting-ip"),
		SLICE_INIT("cf-connecting-ipv6"), SLICE_INIT("cf-pseudo-ipv4"),
		SLICE_INIT("client-ip"), SLICE_INIT("fastly-client-ip"),
		SLICE_INIT("fly-client-ip"), SLICE_INIT("forwarded-for"),
		SLICE_INIT("proxy-client-ip"), SLICE_INIT("true-client-ip"),
		SLICE_INIT("wl-proxy-client-ip"), SLICE_INIT("x-azure-clientip"),
		SLICE_INIT("x-client-ip"), SLICE_INIT("x-cluster-client-ip"),
		SLICE_INIT("x-envoy-external-address"), SLICE_INIT("x-forwarded"),
		SLICE_INIT("x-original-forwarded-for"), SLICE_INIT("x-originating-ip"),
		SLICE_INIT("x-real-ip"), SLICE_INIT("x-remote-addr"), SLICE_INIT("x-remote-ip") };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (parse_is_taken_for(name, names[i]))
			return true;
	return parse_is_forwarded(name);
}

/* ---- framing ---- */

/* Two parsers agree on what is below 2^63 and has one spelling. */
static int
parse_length(struct slice value, uint64_t *out)
{
	if (value.n > 1 && value.p[0] == '0')
		return -1;
	return slice_to_u64(value, out) == 0 && *out <= INT64_MAX ? 0 : -1;
}

/* The OWS around a value may be a tab, but not every parser knows; around these it is a disguise. */
static bool
has_tab(const struct http_field *f)
{
	for (const char *p = f->name.p + f->name.n; *p != '\r'; p++)
		if (*p == '\t')
			return true;
	return false;
}

static enum http_refusal
check_framing(struct http_head *h)
{
	const struct http_field *te = http_head_field(h, HTTP_F_TRANSFER_ENCODING);
	const struct http_field *length = http_head_field(h, HTTP_F_CONTENT_LENGTH);

	if (te != NULL && length != NULL)
		return REFUSAL_BAD_FRAMING;
	if (te != NULL) {
		if ((h->repeated & HTTP_F_SET(HTTP_F_TRANSFER_ENCODING)) != 0 || h->minor == 0 ||
		    has_tab(te) || !slice_equal_nocase(te->value, SLICE("chunked")))
			return REFUSAL_BAD_TRANSFER_ENCODING;
		h->framing = HTTP_CHUNKED;
	} else if (length != NULL) {
		if ((h->repeated & HTTP_F_SET(HTTP_F_CONTENT_LENGTH)) != 0 || has_tab(length) ||
		    parse_length(length->value, &h->length) == -1)
			return REFUSAL_BAD_CONTENT_LENGTH;
		h->framing = HTTP_LENGTH;
	}
	return REFUSAL_NONE;
}

/* ---- Host and target ---- */

static bool
is_ipv6(struct slice s)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr address;

	if (s.n >= sizeof(text))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	return inet_pton(AF_INET6, text, &address) == 1;
}

static bool
is_name(struct slice s)
{
	bool label = false;

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '.' ? !label : c == '~' || !chars_is(c, CHARS_UNRESERVED))
			return false;
		label = c != '.';
	}
	return s.n > 0;
}

static bool
is_port(struct slice s)
{
	uint64_t port;

	return s.n <= 5 && slice_to_u64(s, &port) == 0 && port > 0 && port <= 65535;
}

static bool
is_authority(struct slice s)
{
	const char *end = s.p + s.n;
	const char *stop = s.n > 0 && s.p[0] == '[' ? memchr(s.p, ']', s.n) : NULL;
	const char *colon =
	    memchr(stop != NULL ? stop : s.p, ':', (size_t)(end - (stop != NULL ? stop : s.p)));
	struct slice host = { s.p, (size_t)((colon != NULL ? colon : end) - s.p) };

	if (colon != NULL && !is_port((struct slice){ colon + 1, (size_t)(end - colon) - 1 }))
		return false;
	if (stop == NULL)
		return is_name(host);
	return stop == host.p + host.n - 1 && is_ipv6(slice_sub(host, 1, host.n - 1));
}

static enum http_refusal
check_host(const struct http_head *h)
{
	const struct http_field *host = http_head_field(h, HTTP_F_HOST);

	if (host == NULL)
		return h->minor == 0 ? REFUSAL_NONE : REFUSAL_BAD_HOST;
	if ((h->repeated & HTTP_F_SET(HTTP_F_HOST)) != 0 || !is_authority(host->value))
		return REFUSAL_BAD_HOST;
	if (h->authority.n > 0 && !slice_equal_nocase(h->authority, host->value))
		return REFUSAL_BAD_HOST;
	return REFUSAL_NONE;
}

static struct slice
after_scheme(struct slice target)
{
	static const struct slice schemes[] = { SLICE_INIT("https://"), SLICE_INIT("http://") };

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (target.n > schemes[i].n &&
		    slice_equal_nocase(slice_sub(target, 0, schemes[i].n), schemes[i]))
			return slice_sub(target, schemes[i].n, target.n);
	return SLICE_EMPTY;
}

static void
split_query(struct http_head *h, struct slice s)
{
	const char *mark = memchr(s.p, '?', s.n);
	size_t n = mark != NULL ? (size_t)(mark - s.p) : s.n;

	h->path = n > 0 ? slice_sub(s, 0, n) : SLICE("/");
	h->has_query = mark != NULL;
	h->query = mark != NULL ? slice_sub(s, n + 1, s.n) : SLICE_EMPTY;
}

static enum http_refusal
split_target(struct http_head *h)
{
	struct slice rest = h->target;
	size_t n = 0;

	if (memchr(rest.p, '#', rest.n) != NULL)
		return REFUSAL_BAD_TARGET;
	if (slice_equal(rest, SLICE("*"))) {
		h->path = rest;
		return slice_equal(h->method, SLICE("OPTIONS")) ? REFUSAL_NONE : REFUSAL_BAD_TARGET;
	}
	if (rest.p[0] != '/') {
		rest = after_scheme(rest);
		while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
			n++;
		h->authority = slice_sub(rest, 0, n);
		if (!is_authority(h->authority))
			return REFUSAL_BAD_TARGET;
	}
	split_query(h, slice_sub(rest, n, rest.n));
	/* RFC 9112 section 3.2.4 */
	if (n > 0 && n == rest.n && slice_equal(h->method, SLICE("OPTIONS")))
		h->path = SLICE("*");
	return REFUSAL_NONE;
}

/* ---- Connection ---- */

bool
parse_next_element(struct slice *rest, struct slice *element)
{
	while (rest->n > 0) {
		const char *comma = memchr(rest->p, ',', rest->n);
		size_t n = comma != NULL ? (size_t)(comma - rest->p) : rest->n;

		*element = slice_trim(slice_sub(*rest, 0, n));
		*rest = slice_sub(*rest, comma != NULL ? n + 1 : n, rest->n);
		if (element->n > 0)
			return true;
	}
	return false;
}

const struct http_field *
parse_next_connection(const struct http_head *h, unsigned *i)
{
	if (h->first[HTTP_F_CONNECTION] == 0)
		return NULL;
	while (*i < h->nfields)
		if (h->fields[(*i)++].id == HTTP_F_CONNECTION)
			return &h->fields[*i - 1];
	return NULL;
}

struct options {
	bool request;
	bool close, keep_alive;
	unsigned count;
	size_t bytes;
};

static bool
is_token(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!chars_is(s.p[i], CHARS_TOKEN))
			return false;
	return true;
}

static void
mark_hop(struct http_head *h, struct slice name)
{
	for (unsigned i = 0; i < h->nfields; i++)
		if (slice_equal_nocase(h->fields[i].name, name))
			h->fields[i].hop = true;
}

static enum http_refusal
take_option(struct http_head *h, struct options *o, struct slice option)
{
	enum http_field_id id = parse_alias_of(option);

	if (!is_token(option) || ++o->count > HTTP_OPTIONS_MAX)
		return REFUSAL_BAD_CONNECTION;
	if (o->request && (HTTP_F_SET(id) & UPGRADES) != 0)
		return REFUSAL_UPGRADE;
	o->close |= slice_equal_nocase(option, SLICE("close"));
	o->keep_alive |= slice_equal_nocase(option, SLICE("keep-alive"));
	if ((HTTP_F_SET(id) & KEPT) == 0 && !parse_is_forwarded(option))
		mark_hop(h, option);
	else if (o->request)
		return REFUSAL_BAD_CONNECTION;
	return REFUSAL_NONE;
}

static enum http_refusal
check_connection(struct http_head *h, bool request)
{
	struct options o = { .request = request };
	const struct http_field *f;
	unsigned i = 0;

	while ((f = parse_next_connection(h, &i)) != NULL) {
		struct slice rest = f->value, option;
		enum http_refusal refusal;

		if ((o.bytes += rest.n + 1) > HTTP_OPTIONS_BYTES)
			return REFUSAL_BAD_CONNECTION;
		while (parse_next_element(&rest, &option))
			if ((refusal = take_option(h, &o, option)) != REFUSAL_NONE)
				return refusal;
	}
	h->keep_alive = !o.close && (h->minor == 1 || o.keep_alive);
	return REFUSAL_NONE;
}

/* ---- a request ---- */

static bool
is_alias(struct slice name)
{
	for (size_t i = 0; i < name.n; i++)
		if (chars_is(name.p[i], CHARS_ALIAS))
			return parse_alias_of(name) != HTTP_F_OTHER || parse_is_forwarded(name);
	return false;
}

static enum http_refusal
check_alias(const struct http_head *h)
{
	for (unsigned i = 0; i < h->nfields; i++)
		if (is_alias(h->fields[i].name))
			return REFUSAL_ALIAS_HEADER;
	return REFUSAL_NONE;
}

static enum http_refusal
check_expect(struct http_head *h)
{
	const struct http_field *expect = http_head_field(h, HTTP_F_EXPECT);

	if (expect == NULL)
		return REFUSAL_NONE;
	if ((h->repeated & HTTP_F_SET(HTTP_F_EXPECT)) != 0 ||
	    !slice_equal_nocase(expect->value, SLICE("100-continue")))
		return REFUSAL_BAD_EXPECT;
	/* RFC 9110 section 10.1.1: to be ignored in HTTP/1.0. */
	h->expect_continue = h->minor == 1;
	return REFUSAL_NONE;
}

static bool
is_list(const struct http_head *h, enum http_field_id id)
{
	const struct http_field *f = http_head_field(h, id);

	return f != NULL && memchr(f->value.p, ',', f->value.n) != NULL;
}

/* A comma is legal between the parameters of other schemes, but in no token68. */
static bool
is_bearer_list(const struct http_head *h)
{
	static const struct slice scheme = SLICE_INIT("bearer");
	const struct http_field *f = http_head_field(h, HTTP_F_AUTHORIZATION);

	return is_list(h, HTTP_F_AUTHORIZATION) && f->value.n >= scheme.n &&
	       slice_equal_nocase(slice_sub(f->value, 0, scheme.n), scheme);
}

static enum http_refusal
check_singles(const struct http_head *h)
{
	if ((h->repeated & SINGLES) != 0 || is_list(h, HTTP_F_BLUEMIX_INSTANCE) ||
	    is_list(h, HTTP_F_CORRELATION_ID) || is_list(h, HTTP_F_PREFER) ||
	    is_list(h, HTTP_F_X_KMS_KEY_RING) || is_bearer_list(h))
		return REFUSAL_REPEATED_HEADER;
	return REFUSAL_NONE;
}

enum http_refusal
parse_check_request(struct http_head *h)
{
	enum http_refusal refusal;

	if (slice_equal(h->method, SLICE("CONNECT")) || slice_equal(h->method, SLICE("TRACE")))
		return REFUSAL_METHOD_NOT_ALLOWED;
	if (h->alias && (refusal = check_alias(h)) != REFUSAL_NONE)
		return refusal;
	if ((refusal = check_framing(h)) != REFUSAL_NONE ||
	    (refusal = split_target(h)) != REFUSAL_NONE ||
	    (refusal = check_host(h)) != REFUSAL_NONE)
		return refusal;
	if ((h->present & UPGRADES) != 0)
		return REFUSAL_UPGRADE;
	if ((refusal = check_connection(h, true)) != REFUSAL_NONE ||
	    (refusal = check_expect(h)) != REFUSAL_NONE)
		return refusal;
	return check_singles(h);
}

/* ---- an answer ---- */

/* RFC 9112 section 6.3.  "Content-Length: 0", which servers do send with a 204, says nothing else, so
 * it is let pass; any other framing could be read as a body. */
static bool
has_no_body(unsigned status)
{
	return status < 200 || status == 204;
}

static bool
may_frame(const struct http_head *h, bool framed)
{
	return !has_no_body(h->status) || !framed ||
	       (h->status == 204 && h->framing == HTTP_LENGTH && h->length == 0);
}

enum http_refusal
parse_check_response(struct http_head *h, bool to_head)
{
	static const uint64_t framing =
	    HTTP_F_SET(HTTP_F_CONTENT_LENGTH) | HTTP_F_SET(HTTP_F_TRANSFER_ENCODING);

	bool framed = (h->present & framing) != 0;

	if (h->alias && check_alias(h) != REFUSAL_NONE)
		return REFUSAL_UPSTREAM_MALFORMED;
	if (h->status == 101 || check_framing(h) != REFUSAL_NONE || !may_frame(h, framed) ||
	    check_connection(h, false) != REFUSAL_NONE)
		return REFUSAL_UPSTREAM_MALFORMED;
	if (to_head || has_no_body(h->status) || h->status == 304)
		h->framing = HTTP_NO_BODY;
	else if (!framed)
		h->framing = HTTP_UNTIL_CLOSE;
	if (h->framing == HTTP_UNTIL_CLOSE)
		h->keep_alive = false;
	return REFUSAL_NONE;
}
