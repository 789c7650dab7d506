/*
 * fuzz_fields: the field lines that a message has to leave with, told from the bytes it came in.
 *
 * The oracle for proxy/data/rewrite.h.  Shares no code with it, nor with the parser: it takes the raw
 * lines of a message that was accepted and says what becomes of each.
 */
#ifndef FUZZ_FIELDS_H
#define FUZZ_FIELDS_H

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../wire/strict.h"
#include "keytrail/buf.h"

#define SERVICE	    "kms.example"
#define CLIENT	    "192.0.2.7"
#define CORRELATION "0b9a1e6e-86e2-4d5e-9b65-3f4f0f1a2b3c"

/* What a message's way depends on beside itself. */
struct way {
	bool trusted, pass_host; /* a request's */
	bool client_10;		 /* an answer's */
};

struct line {
	struct slice name, value;
};

/* What no sender may have stripped by naming it in Connection, with all of X-Forwarded-*. */
static const char *const kept[] = { "authorization", "bluemix-instance", "content-encoding",
	"content-length", "content-type", "correlation-id", "expect", "forwarded", "host", "prefer",
	"transfer-encoding", "user-agent", "via", "x-kms-key-ring", NULL };
static const char *const hop_by_hop[] = { "connection", "http2-settings", "keep-alive",
	"proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade",
	NULL };
static const char *const request_anew[] = { "content-length", "forwarded", "host",
	"transfer-encoding", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
	NULL };
static const char *const answer_anew[] = { "alt-svc", "content-length", "transfer-encoding", "via",
	NULL };

static bool
is_named(struct slice name, const char *wanted)
{
	return name.n == strlen(wanted) && strncasecmp(name.p, wanted, name.n) == 0;
}

static bool
is_among(struct slice name, const char *const *names)
{
	while (*names != NULL && !is_named(name, *names))
		names++;
	return *names != NULL;
}

static struct slice
trim(struct slice s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = slice_sub(s, 1, s.n);
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* What stands before a separator, which is passed; without one, all. */
static struct slice
take_until(struct slice *rest, struct slice separator)
{
	const char *end = rest->n > 0 ? memmem(rest->p, rest->n, separator.p, separator.n) : NULL;
	size_t n = end != NULL ? (size_t)(end - rest->p) : rest->n;
	struct slice taken = slice_sub(*rest, 0, n);

	*rest = slice_sub(*rest, end != NULL ? n + separator.n : n, rest->n);
	return taken;
}

/* False at the empty line. */
static bool
next_line(struct slice *rest, struct line *l)
{
	l->value = take_until(rest, SLICE("\r\n"));
	l->name = take_until(&l->value, SLICE(":"));
	l->value = trim(l->value);
	return l->name.n > 0;
}

static bool
find_line(struct slice lines, const char *name, struct slice *value)
{
	struct line l;

	while (next_line(&lines, &l))
		if (is_named(l.name, name)) {
			*value = l.value;
			return true;
		}
	return false;
}

/* As CGI reads a name: a byte that is not alphanumeric is a dash. */
static struct slice
fold_name(struct slice name, char plain[32])
{
	size_t n = name.n < 32 ? name.n : 32;

	for (size_t i = 0; i < n; i++) {
		char c = name.p[i], lower = (char)(c | 0x20);
		bool letter = lower >= 'a' && lower <= 'z';

		plain[i] = letter ? lower : c >= '0' && c <= '9' ? c : '-';
	}
	return (struct slice){ plain, name.n < 32 ? n : 0 };
}

static bool
is_forwarded(struct slice name)
{
	char plain[32];

	name.n = name.n < 31 ? name.n : 31;
	return slice_has_prefix(fold_name(name, plain), SLICE("x-forwarded-"));
}

static bool
is_option(struct slice lines, struct slice name)
{
	struct slice list;
	struct line l;

	while (next_line(&lines, &l))
		for (list = l.value; is_named(l.name, "connection") && list.n > 0;) {
			struct slice option = trim(take_until(&list, SLICE(",")));

			if (option.n == name.n && strncasecmp(option.p, name.p, name.n) == 0)
				return true;
		}
	return false;
}

static bool
is_stripped(struct slice lines, struct slice name)
{
	char plain[32];

	if (is_among(name, hop_by_hop))
		return true;
	return is_option(lines, name) && !is_among(fold_name(name, plain), kept) &&
	       !is_forwarded(name);
}

/* Does a list end outside of quotes and comments, for whoever knows either or both? */
static bool
is_closed_list(struct slice s)
{
	char open[256] = ""; /* what is to be closed, outermost first */
	size_t depth = 0;

	for (size_t i = 0; i < s.n; i++) {
		bool quoted = depth > 0 && open[depth - 1] == '"';

		if (s.p[i] == '\\' || depth == sizeof(open) || (quoted && strchr("()", s.p[i])) ||
		    (!quoted && depth > 0 && s.p[i] == '"') || (depth == 0 && s.p[i] == ')'))
			return false;
		if (s.p[i] == '(' || (s.p[i] == '"' && !quoted))
			open[depth++] = s.p[i];
		else if (s.p[i] == ')' || s.p[i] == '"')
			depth--;
	}
	return depth == 0;
}

static void
due(struct buf *out, const char *text)
{
	if (buf_append_slice(out, slice_of(text)) == -1)
		abort();
}

static void
due_line(struct buf *out, struct slice name, struct slice value)
{
	if (buf_printf(out, "%.*s: %.*s\r\n", SLICE_ARG(name), SLICE_ARG(value)) == -1)
		abort();
}

/* "Name: theirs, ours", or ours alone. */
static void
due_list(struct buf *out, struct slice lines, const char *name, bool theirs, const char *ours)
{
	struct slice rest = lines;
	struct line l;

	while (theirs && next_line(&rest, &l))
		theirs = !is_named(l.name, name) || is_closed_list(l.value);
	due(out, name);
	due(out, ": ");
	for (rest = lines; theirs && next_line(&rest, &l);)
		if (is_named(l.name, name) && buf_printf(out, "%.*s, ", SLICE_ARG(l.value)) == -1)
			abort();
	due(out, ours);
	due(out, "\r\n");
}

static struct slice
host_due(struct slice first, struct slice lines, const struct way *way)
{
	struct slice host = SLICE(SERVICE), target = first;

	if (!way->pass_host || find_line(lines, "host", &host))
		return host;
	take_until(&target, SLICE(" "));
	if (target.p[0] == '/' || target.p[0] == '*')
		return host;
	take_until(&target, SLICE("://"));
	return slice_sub(target, 0, strcspn(target.p, "/? "));
}

static void
due_request(struct buf *out, struct slice first, struct slice lines, const struct way *way)
{
	bool is_10 = first.p[first.n - 1] == '0', length, body;
	struct slice rest = lines, value, proto = SLICE("https");
	struct line l;

	due_line(out, SLICE("Host"), host_due(first, lines, way));
	while (next_line(&rest, &l))
		if (!is_among(l.name, request_anew) && !is_stripped(lines, l.name) &&
		    !(is_10 && is_named(l.name, "expect")) &&
		    (way->trusted || !strict_is_origin(l.name.p, l.name.n)))
			due_line(out, l.name, l.value);
	if (!find_line(lines, "correlation-id", &value))
		due(out, "Correlation-Id: " CORRELATION "\r\n");
	due_list(out, lines, "Via", way->trusted, is_10 ? "1.0 keytrail" : "1.1 keytrail");
	due_list(out, lines, "Forwarded", way->trusted, "for=" CLIENT ";proto=https");
	due_list(out, lines, "X-Forwarded-For", way->trusted, CLIENT);
	if (way->trusted)
		find_line(lines, "x-forwarded-proto", &proto);
	due_line(out, SLICE("X-Forwarded-Proto"), proto);
	length = find_line(lines, "content-length", &value);
	body = !length ? find_line(lines, "transfer-encoding", &value) : !is_named(value, "0");
	if (body && !find_line(lines, "content-type", &proto))
		due(out, "Content-Type: application/octet-stream\r\n");
	if (length)
		due_line(out, SLICE("Content-Length"), value);
	else if (body)
		due(out, "Transfer-Encoding: chunked\r\n");
}

/* A reference to the key service loses scheme and authority. */
static void
due_location(struct buf *out, const struct line *l)
{
	struct slice rest = l->value;

	if (is_named(slice_sub(rest, 0, rest.n < 5 ? rest.n : 5), "http:") ||
	    is_named(slice_sub(rest, 0, rest.n < 6 ? rest.n : 6), "https:"))
		take_until(&rest, SLICE(":"));
	if (!slice_has_prefix(rest, SLICE("//"))) {
		due_line(out, l->name, l->value);
		return;
	}
	for (rest = slice_sub(rest, 2, rest.n); rest.n > 0 && strchr("/?#", rest.p[0]) == NULL;)
		rest = slice_sub(rest, 1, rest.n);
	if (buf_printf(out, "%.*s: %s%.*s\r\n", SLICE_ARG(l->name),
		rest.n == 0 || rest.p[0] != '/' ? "/" : "", SLICE_ARG(rest)) == -1)
		abort();
}

static void
due_answer(
    struct buf *out, struct slice first, struct slice lines, bool to_head, const struct way *way)
{
	unsigned long status = strtoul(first.p + strlen("HTTP/1.1 "), NULL, 10);
	bool none = to_head || status == 204 || status == 304;
	struct slice rest = lines, length;
	bool counted = find_line(lines, "content-length", &length);
	struct line l;

	while (next_line(&rest, &l))
		if (is_named(l.name, "location"))
			due_location(out, &l);
		else if (!is_among(l.name, answer_anew) && !is_stripped(lines, l.name))
			due_line(out, l.name, l.value);
	due_list(out, lines, "Via", true, first.p[7] == '0' ? "1.0 keytrail" : "1.1 keytrail");
	if (counted && status != 204)
		due_line(out, SLICE("Content-Length"), length);
	else if (!none && !way->client_10)
		due(out, "Transfer-Encoding: chunked\r\n");
	if (way->client_10)
		due(out, none || counted ? "Connection: keep-alive\r\n" : "Connection: close\r\n");
}

/* All field lines of an accepted head, as it has to leave. */
static void
due_fields(struct buf *out, struct slice head, bool request, bool to_head, const struct way *way)
{
	struct slice first;

	while (slice_has_prefix(head, SLICE("\r\n")))
		head = slice_sub(head, 2, head.n);
	first = take_until(&head, SLICE("\r\n"));
	if (request)
		due_request(out, first, head, way);
	else
		due_answer(out, first, head, to_head, way);
}

/* All trailers of a chunked body that came to its end, behind a head. */
static void
due_trailers(struct buf *out, struct slice head, struct slice body)
{
	struct line l;

	for (;;) {
		size_t size = strtoul(take_until(&body, SLICE("\r\n")).p, NULL, 16);

		if (size == 0)
			break;
		body = slice_sub(body, size + 2, body.n);
	}
	take_until(&head, SLICE("\r\n"));
	while (next_line(&body, &l))
		if (!is_option(head, l.name))
			due_line(out, l.name, l.value);
}

#endif
