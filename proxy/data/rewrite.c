#include "data/rewrite.h"

#include "data/location.h"
#include "keytrail/parse.h"

#include <assert.h>
#include <stdio.h>

#define VIA "keytrail"

/* The room is asked for once a field, not once a piece: a head is mostly fields. */
static int
append_field(struct buf *out, struct slice name, struct slice value)
{
	size_t n = name.n + value.n + 4;
	char *p;

	if (buf_room(out) < n && buf_reserve(out, n) == -1)
		return -1;
	p = buf_tail(out);
	memcpy(p, name.p, name.n);
	memcpy(p + name.n, ": ", 2);
	memcpy(p + name.n + 2, value.p, value.n);
	memcpy(p + n - 2, "\r\n", 2);
	buf_commit(out, n);
	return 0;
}

static int
append_framing(struct buf *out, enum http_framing framing, uint64_t length)
{
	switch (framing) {
	case HTTP_LENGTH:
		return buf_append_slice(out, SLICE("Content-Length: ")) |
		       buf_append_u64(out, length) | buf_append(out, "\r\n", 2);
	case HTTP_CHUNKED:
		return buf_append_slice(out, SLICE("Transfer-Encoding: chunked\r\n"));
	default:
		return 0;
	}
}

/* Fields that are never copied: hop-by-hop ones, framing, and what we write ourselves. */
static bool
is_ours(const struct http_field *f)
{
	switch (f->id) {
	case HTTP_F_CONTENT_LENGTH:
	case HTTP_F_TRANSFER_ENCODING:
	case HTTP_F_VIA:
		return true;
	default:
		return f->hop;
	}
}

static bool
is_forwarding(const struct http_field *f)
{
	switch (f->id) {
	case HTTP_F_FORWARDED:
	case HTTP_F_X_FORWARDED_FOR:
	case HTTP_F_X_FORWARDED_HOST:
	case HTTP_F_X_FORWARDED_PROTO:
		return true;
	default:
		return false;
	}
}

/* Would every parser see its end, those too that know no comments, or no escapes?  Else what follows
 * might be read as part of its last string or comment. */
static bool
is_closed(struct slice s)
{
	bool quoted = false;
	unsigned depth = 0;

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '\\' || (c == '"' && depth > 0) || ((c == '(' || c == ')') && quoted) ||
		    (c == ')' && depth == 0))
			return false;
		quoted = c == '"' ? !quoted : quoted;
		depth += c == '(';
		depth -= c == ')';
	}
	return !quoted && depth == 0;
}

/* What a list field says, before our own element; nothing where the two might not be told apart. */
static int
append_list(struct buf *out, const struct http_head *h, enum http_field_id id)
{
	int rc = 0;

	for (unsigned i = 0; i < h->nfields; i++)
		if (h->fields[i].id == id && !is_closed(h->fields[i].value))
			return 0;
	for (unsigned i = 0; i < h->nfields; i++)
		if (h->fields[i].id == id) {
			rc |= buf_append_slice(out, h->fields[i].value);
			rc |= buf_append_slice(out, SLICE(", "));
		}
	return rc;
}

/* Via names every recipient in order (RFC 9110 section 7.6.3): those before us first. */
static int
append_via(struct buf *out, const struct http_head *h, bool keep_others)
{
	int rc = buf_append_slice(out, SLICE("Via: "));

	if (keep_others)
		rc |= append_list(out, h, HTTP_F_VIA);
	return rc | buf_append_slice(
			out, h->minor == 0 ? SLICE("1.0 " VIA "\r\n") : SLICE("1.1 " VIA "\r\n"));
}

/* What a list field of the trusted peer says, before our own element. */
static int
append_chain(
    struct buf *out, struct slice name, enum http_field_id id, const struct rewrite_request *r)
{
	int rc = buf_append_slice(out, name) | buf_append(out, ": ", 2);

	return r->trusted_peer ? rc | append_list(out, r->head, id) : rc;
}

static int
append_forwarded(
    struct buf *out, const struct rewrite_request *r, struct slice client, struct slice proto)
{
	bool v6 = memchr(client.p, ':', client.n) != NULL;

	return append_chain(out, SLICE("Forwarded"), HTTP_F_FORWARDED, r) |
	       buf_append_slice(out, v6 ? SLICE("for=\"[") : SLICE("for=")) |
	       buf_append_slice(out, client) |
	       buf_append_slice(out, v6 ? SLICE("]\";proto=") : SLICE(";proto=")) |
	       buf_append_slice(out, proto) | buf_append(out, "\r\n", 2);
}

static int
append_forwarding(struct buf *out, const struct rewrite_request *r)
{
	const struct http_field *theirs = http_head_field(r->head, HTTP_F_X_FORWARDED_PROTO);
	struct slice proto = r->tls ? SLICE("https") : SLICE("http");
	struct slice client = slice_of(r->client);
	int rc = append_via(out, r->head, r->trusted_peer);

	rc |= append_forwarded(out, r, client, proto);
	rc |= append_chain(out, SLICE("X-Forwarded-For"), HTTP_F_X_FORWARDED_FOR, r);
	rc |= buf_append_slice(out, client) | buf_append(out, "\r\n", 2);
	if (r->trusted_peer && theirs != NULL)
		proto = theirs->value;
	return rc | append_field(out, SLICE("X-Forwarded-Proto"), proto);
}

static struct slice
host_of(const struct rewrite_request *r)
{
	struct slice host = http_head_host(r->head);

	return r->upstream->pass_host && host.n > 0 ? host : slice_of(r->upstream->host);
}

static int
append_request_line(struct buf *out, const struct http_head *h)
{
	if (buf_reserve(out, h->method.n + h->path.n + h->query.n + 16) == -1)
		return -1;
	buf_append_slice(out, h->method);
	buf_append(out, " ", 1);
	buf_append_slice(out, h->path);
	if (h->has_query) {
		buf_append(out, "?", 1);
		buf_append_slice(out, h->query);
	}
	return buf_append_slice(out, SLICE(" HTTP/1.1\r\n"));
}

/* Does the key service see this field?  An expectation in HTTP/1.0 is ignored (RFC 9110 section
 * 10.1.1). */
static bool
may_pass(const struct rewrite_request *r, const struct http_field *f)
{
	if (is_ours(f) || is_forwarding(f) || f->id == HTTP_F_HOST)
		return false;
	if (f->id == HTTP_F_EXPECT)
		return r->head->expect_continue;
	/* Of the names that have an id, is_forwarding knows all such. */
	return r->trusted_peer || f->id != HTTP_F_OTHER || !http_is_claim_of_origin(f->name);
}

/* Servers are known to take a body of no type for a form, and to look for `_method` in it. */
static int
append_type(struct buf *out, const struct http_head *h)
{
	if (!http_head_has_body(h) || http_head_field(h, HTTP_F_CONTENT_TYPE) != NULL)
		return 0;
	return buf_append_slice(out, SLICE("Content-Type: application/octet-stream\r\n"));
}

int
rewrite_request(struct buf *out, const struct rewrite_request *r)
{
	const struct http_head *h = r->head;
	int rc = append_request_line(out, h);

	rc |= append_field(out, SLICE("Host"), host_of(r));
	for (unsigned i = 0; i < h->nfields; i++) {
		const struct http_field *f = &h->fields[i];

		if (may_pass(r, f))
			rc |= append_field(out, f->name, f->value);
	}
	if (http_head_find(h, r->correlation_header) == NULL)
		rc |= append_field(out, r->correlation_header, slice_of(r->correlation));
	rc |= append_forwarding(out, r);
	rc |= append_type(out, h) | append_framing(out, h->framing, h->length);
	rc |= buf_append(out, "\r\n", 2);
	return rc == 0 ? 0 : -1;
}

static int
append_connection(struct buf *out, unsigned minor, bool close)
{
	if (close)
		return buf_append_slice(out, SLICE("Connection: close\r\n"));
	return minor == 0 ? buf_append_slice(out, SLICE("Connection: keep-alive\r\n")) : 0;
}

bool
rewrite_may_relay(const struct rewrite_response *r)
{
	const struct http_field *location = http_head_field(r->head, HTTP_F_LOCATION);
	struct slice rest;
	bool rooted;

	return location == NULL ||
	       (http_head_count(r->head, HTTP_F_LOCATION) == 1 &&
		   location_rewrite(location->value, r->service, r->client, &rooted, &rest));
}

static int
append_location(struct buf *out, const struct rewrite_response *r, const struct http_field *f)
{
	struct slice rest;
	bool rooted, ours = location_rewrite(f->value, r->service, r->client, &rooted, &rest);

	assert(ours);
	return buf_append_slice(out, f->name) |
	       buf_append_slice(out, rooted ? SLICE(": /") : SLICE(": ")) |
	       buf_append_slice(out, rest) | buf_append(out, "\r\n", 2);
}

/* The record rests on it: Connection may not strip it, whatever a set calls it. */
static bool
is_correlation(const struct rewrite_response *r, const struct http_field *f)
{
	return f->id == HTTP_F_OTHER && slice_equal_nocase(f->name, r->correlation_header);
}

static int
append_answer_field(struct buf *out, const struct rewrite_response *r, const struct http_field *f)
{
	if ((is_ours(f) && !is_correlation(r, f)) || f->id == HTTP_F_ALT_SVC)
		return 0;
	if (f->id == HTTP_F_LOCATION)
		return append_location(out, r, f);
	return append_field(out, f->name, f->value);
}

int
rewrite_response(struct buf *out, const struct rewrite_response *r)
{
	const struct http_head *h = r->head;
	const struct http_field *length = http_head_field(h, HTTP_F_CONTENT_LENGTH);
	int rc;

	rc = buf_append_slice(out, SLICE("HTTP/1.1 ")) | buf_append_u64(out, h->status);
	rc |= buf_append(out, " ", 1) | buf_append_slice(out, h->reason);
	rc |= buf_append(out, "\r\n", 2);
	for (unsigned i = 0; i < h->nfields; i++)
		rc |= append_answer_field(out, r, &h->fields[i]);
	rc |= append_via(out, h, true);
	/* Of a body that is not sent (HEAD, 304) the length may still be told, but not with a 204. */
	if (r->framing == HTTP_NO_BODY && length != NULL && h->status != 204)
		rc |= append_framing(out, HTTP_LENGTH, h->length);
	else
		rc |= append_framing(out, r->framing, h->length);
	rc |= append_connection(out, r->client_minor, r->close);
	rc |= buf_append(out, "\r\n", 2);
	return rc == 0 ? 0 : -1;
}

int
rewrite_refusal(struct buf *out, const struct rewrite_refusal *r)
{
	const struct refusal_info *info = refusal_info(r->refusal);
	char body[768];
	int n, rc;

	n = snprintf(body, sizeof(body),
	    "{\"metadata\":{\"collectionType\":\"application/vnd.ibm.kms.error+json\","
	    "\"collectionTotal\":1},\"resources\":[{\"errorMsg\":\"%s: %s\",\"reasons\":[{"
	    "\"code\":\"%s\",\"message\":\"%s\",\"status\":%u}]}]}\n",
	    http_status_phrase(info->status), info->text, info->code, info->text, info->status);
	rc = buf_printf(out,
	    "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n",
	    info->status, http_status_phrase(info->status), n);
	if (info->status == 405)
		rc |= buf_append_slice(
		    out, SLICE("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"));
	if (info->status == 503)
		rc |= buf_append_slice(out, SLICE("Retry-After: 1\r\n"));
	if (r->correlation[0] != '\0')
		rc |= append_field(out, r->correlation_header, slice_of(r->correlation));
	rc |= buf_append_slice(out, SLICE("Via: 1.1 " VIA "\r\n"));
	rc |= append_connection(out, r->client_minor, r->close) | buf_append(out, "\r\n", 2);
	if (!r->head_only)
		rc |= buf_append(out, body, (size_t)n);
	return rc == 0 ? 0 : -1;
}
