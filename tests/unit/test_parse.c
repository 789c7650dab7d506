#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "keytrail/chars.h"
#include "keytrail/parse.h"

static const struct http_limits limits = { .head = 2048, .target = 256, .fields = 16 };

struct verdict {
	enum http_result result;
	enum http_refusal refusal;
	size_t used;
	struct http_head head;
};

enum direction { REQUEST, ANSWER, ANSWER_TO_HEAD };

static void
parse(enum direction d, struct http_scan *scan, struct slice in, struct verdict *v)
{
	v->refusal = REFUSAL_NONE;
	v->used = 0;
	if (d == REQUEST)
		v->result = http_parse_request(scan, in, &limits, &v->head, &v->used, &v->refusal);
	else
		v->result = http_parse_response(
		    scan, in, &limits, d == ANSWER_TO_HEAD, &v->head, &v->used, &v->refusal);
}

/* Bytes that end where the allocation ends, so that a sanitizer sees a read too far. */
static struct slice
tight_copy(struct slice s)
{
	char *p = malloc(s.n > 0 ? s.n : 1);

	assert_non_null(p);
	if (s.n > 0)
		memcpy(p, s.p, s.n);
	return (struct slice){ p, s.n };
}

static void
free_copy(struct slice s)
{
	free((void *)(uintptr_t)s.p);
}

static void
same_slice(struct slice a, const char *abase, struct slice b, const char *bbase)
{
	assert_int_equal(a.n, b.n);
	assert_memory_equal(a.p, b.p, a.n);
	if (a.n > 1)
		assert_int_equal(a.p - abase, b.p - bbase);
}

static void
same_head(
    const struct http_head *a, const char *abase, const struct http_head *b, const char *bbase)
{
	same_slice(a->method, abase, b->method, bbase);
	same_slice(a->target, abase, b->target, bbase);
	same_slice(a->authority, abase, b->authority, bbase);
	same_slice(a->path, abase, b->path, bbase);
	same_slice(a->query, abase, b->query, bbase);
	same_slice(a->reason, abase, b->reason, bbase);
	assert_int_equal(a->has_query, b->has_query);
	assert_int_equal(a->status, b->status);
	assert_int_equal(a->minor, b->minor);
	assert_int_equal(a->keep_alive, b->keep_alive);
	assert_int_equal(a->expect_continue, b->expect_continue);
	assert_int_equal(a->framing, b->framing);
	assert_int_equal(a->length, b->length);
	assert_int_equal(a->nfields, b->nfields);
	assert_memory_equal(a->first, b->first, sizeof(a->first));
	for (unsigned i = 0; i < a->nfields; i++) {
		same_slice(a->fields[i].name, abase, b->fields[i].name, bbase);
		same_slice(a->fields[i].value, abase, b->fields[i].value, bbase);
		assert_int_equal(a->fields[i].id, b->fields[i].id);
		assert_int_equal(a->fields[i].hop, b->fields[i].hop);
	}
}

/* Feed `in` in steps; the bytes move before each call. */
static void
parse_in_steps(
    enum direction d, struct slice in, size_t first, size_t step, const struct verdict *want)
{
	struct http_scan scan = { 0 };
	struct verdict v = { .result = HTTP_MORE };
	struct slice part = SLICE_EMPTY;

	for (size_t n = first; v.result == HTTP_MORE; n = n + step < in.n ? n + step : in.n) {
		if (part.n > 0)
			free_copy(part);
		part = tight_copy(slice_sub(in, 0, n));
		parse(d, &scan, part, &v);
		if (n == in.n)
			break;
	}
	assert_int_equal(v.result, want->result);
	assert_int_equal(v.refusal, want->refusal);
	if (v.result == HTTP_DONE) {
		assert_int_equal(v.used, want->used);
		same_head(&v.head, part.p, &want->head, in.p);
	}
	free_copy(part);
}

static void
parse_every_way(enum direction d, struct slice text, struct verdict *v)
{
	struct http_scan scan = { 0 };
	struct slice in = tight_copy(text);

	parse(d, &scan, in, v);
	parse_in_steps(d, in, 1, 1, v);
	for (size_t cut = 1; cut < in.n && cut < 400; cut++)
		parse_in_steps(d, in, cut, in.n, v);
	free_copy(in);
	/* leave slices that live as long as the text */
	http_scan_reset(&scan);
	parse(d, &scan, text, v);
}

#define GET	"GET / HTTP/1.1\r\nHost: h\r\n"
#define POST	"POST / HTTP/1.1\r\nHost: h\r\n"
#define GET_10	"GET / HTTP/1.0\r\n"
#define OK	"HTTP/1.1 200 OK\r\n"
#define OK_10	"HTTP/1.0 200 OK\r\n"
#define END	"\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n"

/* ---- accepted ---- */

#define KEEP  true
#define CLOSE false

static const struct {
	const char *label;
	enum direction direction;
	struct slice text;
	enum http_framing framing;
	uint64_t length;
	bool keep_alive;
	unsigned nfields;
} accepted[] = {
	{ "the smallest request", REQUEST, SLICE_INIT(GET END), HTTP_NO_BODY, 0, KEEP, 1 },
	{ "HTTP/1.0 without Host", REQUEST, SLICE_INIT(GET_10 END), HTTP_NO_BODY, 0, CLOSE, 0 },
	{ "HTTP/1.0 with Host", REQUEST, SLICE_INIT(GET_10 "Host: h\r\n" END), HTTP_NO_BODY, 0,
	    CLOSE, 1 },
	{ "HTTP/1.0 asks to stay", REQUEST, SLICE_INIT(GET_10 "Connection: Keep-Alive\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "HTTP/1.0, close wins", REQUEST,
	    SLICE_INIT(GET_10 "Connection: keep-alive, close\r\n" END), HTTP_NO_BODY, 0, CLOSE, 1 },
	{ "HTTP/1.1 close", REQUEST, SLICE_INIT(GET "Connection: close\r\n" END), HTTP_NO_BODY, 0,
	    CLOSE, 2 },
	{ "HTTP/1.1 close in capitals", REQUEST, SLICE_INIT(GET "CONNECTION: CLOSE\r\n" END),
	    HTTP_NO_BODY, 0, CLOSE, 2 },
	{ "HTTP/1.1 close in the second field", REQUEST,
	    SLICE_INIT(GET "Connection: x\r\nConnection: ,close,\r\n" END), HTTP_NO_BODY, 0, CLOSE,
	    3 },
	{ "HTTP/1.0, another option that looks like keep-alive", REQUEST,
	    SLICE_INIT(GET_10 "Connection: keep_alive\r\n" END), HTTP_NO_BODY, 0, CLOSE, 1 },
	{ "HTTP/1.1, close wins", REQUEST, SLICE_INIT(GET "Connection: close, keep-alive\r\n" END),
	    HTTP_NO_BODY, 0, CLOSE, 2 },
	{ "closed is not close", REQUEST, SLICE_INIT(GET "Connection: closed\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 2 },
	{ "Proxy-Connection means nothing", REQUEST,
	    SLICE_INIT(GET "Proxy-Connection: close\r\n" END), HTTP_NO_BODY, 0, KEEP, 2 },
	{ "an empty Connection", REQUEST, SLICE_INIT(GET "Connection:\r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 2 },
	{ "32 options", REQUEST,
	    SLICE_INIT(
		GET "Connection: "
		    "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 2 },
	{ "a length", REQUEST, SLICE_INIT(POST "Content-Length: 5\r\n" END), HTTP_LENGTH, 5, KEEP,
	    2 },
	{ "a length of nothing", REQUEST, SLICE_INIT(POST "Content-Length: 0\r\n" END), HTTP_LENGTH,
	    0, KEEP, 2 },
	{ "a length between spaces", REQUEST, SLICE_INIT(POST "content-LENGTH:   42  \r\n" END),
	    HTTP_LENGTH, 42, KEEP, 2 },
	{ "a length without a space", REQUEST, SLICE_INIT(POST "Content-Length:42\r\n" END),
	    HTTP_LENGTH, 42, KEEP, 2 },
	{ "the greatest length", REQUEST,
	    SLICE_INIT(POST "Content-Length: 9223372036854775807\r\n" END), HTTP_LENGTH,
	    9223372036854775807u, KEEP, 2 },
	{ "a GET may have a body", REQUEST, SLICE_INIT(GET "Content-Length: 1\r\n" END),
	    HTTP_LENGTH, 1, KEEP, 2 },
	{ "a length in HTTP/1.0", REQUEST,
	    SLICE_INIT("PUT /x HTTP/1.0\r\nContent-Length: 7\r\n" END), HTTP_LENGTH, 7, CLOSE, 1 },
	{ "chunked", REQUEST, SLICE_INIT(POST "Transfer-Encoding: chunked\r\n" END), HTTP_CHUNKED,
	    0, KEEP, 2 },
	{ "chunked in any case", REQUEST, SLICE_INIT(POST "transfer-ENCODING:  ChunKED  \r\n" END),
	    HTTP_CHUNKED, 0, KEEP, 2 },
	{ "DELETE", REQUEST, SLICE_INIT("DELETE /k HTTP/1.1\r\nHost: h\r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 1 },
	{ "PUT", REQUEST, SLICE_INIT("PUT /k HTTP/1.1\r\nHost: h\r\n" END), HTTP_NO_BODY, 0, KEEP,
	    1 },
	{ "PATCH", REQUEST, SLICE_INIT("PATCH /k HTTP/1.1\r\nHost: h\r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 1 },
	{ "HEAD", REQUEST, SLICE_INIT("HEAD /k HTTP/1.1\r\nHost: h\r\n" END), HTTP_NO_BODY, 0, KEEP,
	    1 },
	{ "OPTIONS of all", REQUEST, SLICE_INIT("OPTIONS * HTTP/1.1\r\nHost: h\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "OPTIONS of a path", REQUEST, SLICE_INIT("OPTIONS /k HTTP/1.1\r\nHost: h\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "absolute form", REQUEST,
	    SLICE_INIT("GET https://h:8443/k HTTP/1.1\r\nHost: h:8443\r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 1 },
	{ "absolute form, case of the host", REQUEST,
	    SLICE_INIT("GET HTTP://KMS.example/k HTTP/1.1\r\nHost: kms.EXAMPLE\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "absolute form without a path", REQUEST,
	    SLICE_INIT("GET http://h HTTP/1.1\r\nHost: h\r\n" END), HTTP_NO_BODY, 0, KEEP, 1 },
	{ "absolute form in HTTP/1.0 without Host", REQUEST,
	    SLICE_INIT("GET http://h/ HTTP/1.0\r\n" END), HTTP_NO_BODY, 0, CLOSE, 0 },
	{ "what the path check decides later", REQUEST,
	    SLICE_INIT("GET /a//../%00;b\\c|\"<>^`{}[] HTTP/1.1\r\nHost: h\r\n" END), HTTP_NO_BODY,
	    0, KEEP, 1 },
	{ "Host with a port", REQUEST,
	    SLICE_INIT("GET / HTTP/1.1\r\nHost: kms-1.us_south.example.com:65535\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "Host with a final dot", REQUEST,
	    SLICE_INIT("GET / HTTP/1.1\r\nHost: example.com.\r\n" END), HTTP_NO_BODY, 0, KEEP, 1 },
	{ "Host as IPv4", REQUEST, SLICE_INIT("GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "Host as IPv6", REQUEST, SLICE_INIT("GET / HTTP/1.1\r\nHost: [::1]\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "Host as IPv6 with a port", REQUEST,
	    SLICE_INIT("GET / HTTP/1.1\r\nHost: [2001:db8::192.0.2.1]:8443\r\n" END), HTTP_NO_BODY,
	    0, KEEP, 1 },
	{ "Host between white space", REQUEST, SLICE_INIT("GET / HTTP/1.1\r\nHost:\t h \t\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "every byte of a name", REQUEST, SLICE_INIT(GET "!#$%&'*+-.^_`|~09azAZ: x\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 2 },
	{ "every byte of a value", REQUEST,
	    SLICE_INIT(GET "X: \t !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\t\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 2 },
	{ "an empty value", REQUEST, SLICE_INIT(GET "X:\r\nY: \t\r\nZ: z\r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 4 },
	{ "an empty value at the end", REQUEST, SLICE_INIT(GET "X: \r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 2 },
	{ "a colon in a value", REQUEST, SLICE_INIT(GET "X:: :\r\n" END), HTTP_NO_BODY, 0, KEEP,
	    2 },
	{ "a name with '_' that is nobody's alias", REQUEST,
	    SLICE_INIT(GET "X_Trace: 1\r\nx_forwarded: 2\r\n" END), HTTP_NO_BODY, 0, KEEP, 3 },
	{ "a repeated field that decides nothing", REQUEST,
	    SLICE_INIT(GET "Accept: a\r\nAccept: b\r\n" END), HTTP_NO_BODY, 0, KEEP, 3 },
	{ "repeated X-Forwarded-For", REQUEST,
	    SLICE_INIT(
		GET "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2, 192.0.2.3\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 3 },
	{ "identity fields, each once", REQUEST,
	    SLICE_INIT(GET "Authorization: Bearer a.b.c\r\nBluemix-Instance: i\r\nX-Kms-Key-Ring: "
			   "r\r\nCorrelation-Id: c\r\nPrefer: return=minimal\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 6 },
	{ "another scheme with a comma", REQUEST,
	    SLICE_INIT(GET "Authorization: Digest a=b, c=d\r\n" END), HTTP_NO_BODY, 0, KEEP, 2 },
	{ "100-continue", REQUEST,
	    SLICE_INIT(POST "Expect: 100-continue\r\nContent-Length: 1\r\n" END), HTTP_LENGTH, 1,
	    KEEP, 3 },
	{ "an override, which is the routes' to judge", REQUEST,
	    SLICE_INIT(GET "X-HTTP-Method-Override: DELETE\r\n" END), HTTP_NO_BODY, 0, KEEP, 2 },
	{ "TE", REQUEST, SLICE_INIT(GET "TE: trailers\r\nConnection: TE\r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 3 },
	{ "an answer without framing", ANSWER, SLICE_INIT(OK END), HTTP_UNTIL_CLOSE, 0, CLOSE, 0 },
	{ "an answer in HTTP/1.0", ANSWER, SLICE_INIT(OK_10 "Connection: keep-alive\r\n" END),
	    HTTP_UNTIL_CLOSE, 0, CLOSE, 1 },
	{ "an answer in HTTP/1.0 that stays", ANSWER,
	    SLICE_INIT(OK_10 "Connection: keep-alive\r\nContent-Length: 1\r\n" END), HTTP_LENGTH, 1,
	    KEEP, 2 },
	{ "an answer in HTTP/1.0 that goes", ANSWER, SLICE_INIT(OK_10 "Content-Length: 1\r\n" END),
	    HTTP_LENGTH, 1, CLOSE, 1 },
	{ "an answer with a length", ANSWER, SLICE_INIT(OK "Content-Length: 10\r\n" END),
	    HTTP_LENGTH, 10, KEEP, 1 },
	{ "an answer that closes", ANSWER,
	    SLICE_INIT(OK "Content-Length: 10\r\nConnection: close\r\n" END), HTTP_LENGTH, 10,
	    CLOSE, 2 },
	{ "an answer in chunks", ANSWER, SLICE_INIT(OK "Transfer-Encoding: chunked\r\n" END),
	    HTTP_CHUNKED, 0, KEEP, 1 },
	{ "204", ANSWER, SLICE_INIT("HTTP/1.1 204 No Content\r\n" END), HTTP_NO_BODY, 0, KEEP, 0 },
	{ "204 that says its length is 0", ANSWER,
	    SLICE_INIT("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n" END), HTTP_NO_BODY, 0,
	    KEEP, 1 },
	{ "100", ANSWER, SLICE_INIT("HTTP/1.1 100 Continue\r\n" END), HTTP_NO_BODY, 0, KEEP, 0 },
	{ "103 with fields", ANSWER, SLICE_INIT("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "304", ANSWER, SLICE_INIT("HTTP/1.1 304 Not Modified\r\n" END), HTTP_NO_BODY, 0, KEEP,
	    0 },
	{ "304 keeps its length", ANSWER,
	    SLICE_INIT("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n" END), HTTP_NO_BODY, 9,
	    KEEP, 1 },
	{ "304 with a transfer coding", ANSWER,
	    SLICE_INIT("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "to HEAD", ANSWER_TO_HEAD, SLICE_INIT(OK END), HTTP_NO_BODY, 0, KEEP, 0 },
	{ "to HEAD with a length", ANSWER_TO_HEAD, SLICE_INIT(OK "Content-Length: 12\r\n" END),
	    HTTP_NO_BODY, 12, KEEP, 1 },
	{ "to HEAD in chunks", ANSWER_TO_HEAD, SLICE_INIT(OK "Transfer-Encoding: chunked\r\n" END),
	    HTTP_NO_BODY, 0, KEEP, 1 },
	{ "the last status", ANSWER, SLICE_INIT("HTTP/1.1 599 x\r\nContent-Length: 0\r\n" END),
	    HTTP_LENGTH, 0, KEEP, 1 },
	{ "an empty reason", ANSWER, SLICE_INIT("HTTP/1.1 200 \r\nContent-Length: 0\r\n" END),
	    HTTP_LENGTH, 0, KEEP, 1 },
	{ "no reason at all", ANSWER, SLICE_INIT("HTTP/1.1 200\r\nContent-Length: 0\r\n" END),
	    HTTP_LENGTH, 0, KEEP, 1 },
	{ "obs-text in reason and value", ANSWER,
	    SLICE_INIT("HTTP/1.1 200 \xc3\xa4\tb\r\nX: \xff\x80\r\nContent-Length: 0\r\n" END),
	    HTTP_LENGTH, 0, KEEP, 2 },
	{ "an answer offers an upgrade", ANSWER,
	    SLICE_INIT(OK "Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n" END),
	    HTTP_LENGTH, 0, KEEP, 3 },
	{ "an answer with an underscore", ANSWER,
	    SLICE_INIT(OK "x_length: 3\r\nContent-Length: 0\r\n" END), HTTP_LENGTH, 0, KEEP, 2 },
};

static void
legal_heads_are_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
		static struct verdict v;

		parse_every_way(accepted[i].direction, accepted[i].text, &v);
		if (v.result != HTTP_DONE || v.head.framing != accepted[i].framing ||
		    v.head.length != accepted[i].length ||
		    v.head.keep_alive != accepted[i].keep_alive ||
		    v.head.nfields != accepted[i].nfields)
			fail_msg(
			    "%s: result %d, %s, framing %d, length %ju, keep-alive %d, %u fields",
			    accepted[i].label, (int)v.result, refusal_info(v.refusal)->code,
			    (int)v.head.framing, (uintmax_t)v.head.length, v.head.keep_alive,
			    v.head.nfields);
		assert_int_equal(v.used, accepted[i].text.n);
	}
}

/* ---- refused ---- */

static const struct {
	const char *label;
	struct slice text;
	enum http_refusal refusal;
} refused[] = {
	{ "an empty line first", SLICE_INIT("\r\n" GET END), REFUSAL_BAD_REQUEST_LINE },
	{ "a bare LF first", SLICE_INIT("\n" GET END), REFUSAL_BAD_REQUEST_LINE },
	{ "a space first", SLICE_INIT(" " GET END), REFUSAL_BAD_REQUEST_LINE },
	{ "a TLS handshake", SLICE_INIT("\x16\x03\x01\x02\x00"), REFUSAL_BAD_REQUEST_LINE },
	{ "NUL first", SLICE_INIT("\0GET / HTTP/1.1\r\n"), REFUSAL_BAD_REQUEST_LINE },
	{ "a byte order mark", SLICE_INIT("\xef\xbb\xbf" GET END), REFUSAL_BAD_REQUEST_LINE },
	{ "a method alone", SLICE_INIT("GET\r\n\r\n"), REFUSAL_BAD_REQUEST_LINE },
	{ "HTTP/0.9", SLICE_INIT("GET /\r\n"), REFUSAL_BAD_REQUEST_LINE },
	{ "no target", SLICE_INIT("GET  HTTP/1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_REQUEST_LINE },
	{ "two spaces before the target", SLICE_INIT("GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_REQUEST_LINE },
	{ "two spaces before the version", SLICE_INIT("GET /  HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_REQUEST_LINE },
	{ "a space after the version", SLICE_INIT("GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_REQUEST_LINE },
	{ "a space in the target", SLICE_INIT("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_REQUEST_LINE },
	{ "SSH", SLICE_INIT("SSH-2.0-x\r\n"), REFUSAL_BAD_METHOD },
	{ "a tab after the method", SLICE_INIT("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "a separator in the method", SLICE_INIT("G(T / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "NUL in the method", SLICE_INIT("G\0T / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "a non-ASCII method", SLICE_INIT("G\xc3\x89T / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "a method in small letters", SLICE_INIT("get / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "an unknown method", SLICE_INIT("PURGE / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "a prefix of a method", SLICE_INIT("GE / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "a method and more", SLICE_INIT("GETX / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "an endless method", SLICE_INIT("AAAAAAAAAAAAAAAA"), REFUSAL_BAD_METHOD },
	{ "the HTTP/2 preface", SLICE_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
	    REFUSAL_BAD_METHOD },
	{ "CONNECT", SLICE_INIT("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
	    REFUSAL_METHOD_NOT_ALLOWED },
	{ "CONNECT of a path", SLICE_INIT("CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_METHOD_NOT_ALLOWED },
	{ "TRACE", SLICE_INIT("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"), REFUSAL_METHOD_NOT_ALLOWED },
	{ "HTTP/2.0", SLICE_INIT("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "HTTP/1.2", SLICE_INIT("GET / HTTP/1.2\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "HTTP/0.9 by name", SLICE_INIT("GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_VERSION },
	{ "HTTP/1.10", SLICE_INIT("GET / HTTP/1.10\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "HTTP/01.1", SLICE_INIT("GET / HTTP/01.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "HTTP/1", SLICE_INIT("GET / HTTP/1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "HTTP/1,1", SLICE_INIT("GET / HTTP/1,1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "HTTP/-1.1", SLICE_INIT("GET / HTTP/-1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "Http/1.1", SLICE_INIT("GET / Http/1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_VERSION },
	{ "another protocol", SLICE_INIT("GET / RTSP/1.0\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_REQUEST_LINE },
	{ "a bare LF after the request line", SLICE_INIT("GET / HTTP/1.1\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_LINE_END },
	{ "a bare LF after the target", SLICE_INIT("GET /\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_LINE_END },
	{ "a bare CR after the request line", SLICE_INIT("GET / HTTP/1.1\rHost: h\r\n\r\n"),
	    REFUSAL_BAD_LINE_END },
	{ "two CR after the request line", SLICE_INIT("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_LINE_END },
	{ "a bare LF after a field", SLICE_INIT("GET / HTTP/1.1\r\nHost: h\n\r\n"),
	    REFUSAL_BAD_LINE_END },
	{ "a bare CR in a value", SLICE_INIT(GET "X: a\rY: b\r\n" END), REFUSAL_BAD_LINE_END },
	{ "two CR after a field", SLICE_INIT(GET "X: a\r\r\n" END), REFUSAL_BAD_LINE_END },
	{ "a bare LF ends the head", SLICE_INIT(GET "\n"), REFUSAL_BAD_LINE_END },
	{ "a bare CR ends the head", SLICE_INIT(GET "\rX"), REFUSAL_BAD_LINE_END },
	{ "bare LFs only", SLICE_INIT("GET / HTTP/1.1\nHost: h\n\n"), REFUSAL_BAD_LINE_END },
	{ "a bare LF in a name", SLICE_INIT(GET "X\nY: b\r\n" END), REFUSAL_BAD_LINE_END },
	{ "a field folded with a space", SLICE_INIT(GET "X: a\r\n b\r\n" END), REFUSAL_OBS_FOLD },
	{ "a field folded with a tab", SLICE_INIT(GET "X: a\r\n\tb\r\n" END), REFUSAL_OBS_FOLD },
	{ "a space before the first field", SLICE_INIT("GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
	    REFUSAL_OBS_FOLD },
	{ "a line of a space", SLICE_INIT(GET " \r\n" END), REFUSAL_OBS_FOLD },
	{ "a space before the colon", SLICE_INIT(GET "X : a\r\n" END), REFUSAL_BAD_HEADER },
	{ "a tab before the colon", SLICE_INIT(GET "X\t: a\r\n" END), REFUSAL_BAD_HEADER },
	{ "a space before the colon of Content-Length",
	    SLICE_INIT(POST "Content-Length : 5\r\n" END), REFUSAL_BAD_HEADER },
	{ "a space in a name", SLICE_INIT(GET "X Y: a\r\n" END), REFUSAL_BAD_HEADER },
	{ "no name", SLICE_INIT(GET ": a\r\n" END), REFUSAL_BAD_HEADER },
	{ "no colon", SLICE_INIT(GET "X\r\n" END), REFUSAL_BAD_HEADER },
	{ "NUL in a name", SLICE_INIT(GET "X\0Y: a\r\n" END), REFUSAL_BAD_HEADER },
	{ "NUL in a value", SLICE_INIT(GET "X: a\0b\r\n" END), REFUSAL_BAD_HEADER },
	{ "a control byte in a value", SLICE_INIT(GET "X: a\x01\r\n" END), REFUSAL_BAD_HEADER },
	{ "a vertical tab after chunked", SLICE_INIT(POST "Transfer-Encoding: chunked\x0b\r\n" END),
	    REFUSAL_BAD_HEADER },
	{ "a form feed before chunked",
	    SLICE_INIT(POST "Transfer-Encoding: \x0c"
			    "chunked\r\n" END),
	    REFUSAL_BAD_HEADER },
	{ "DEL in a value", SLICE_INIT(GET "X: a\x7f\r\n" END), REFUSAL_BAD_HEADER },
	{ "ESC in a name", SLICE_INIT(GET "X\x1b: a\r\n" END), REFUSAL_BAD_HEADER },
	{ "obs-text in a value", SLICE_INIT(GET "X: \xc3\xa4\r\n" END), REFUSAL_BAD_HEADER },
	{ "obs-text in a name", SLICE_INIT(GET "\xc3\xa4: x\r\n" END), REFUSAL_BAD_HEADER },
	{ "a separator in a name", SLICE_INIT(GET "X(: a\r\n" END), REFUSAL_BAD_HEADER },
	{ "a quoted name", SLICE_INIT(GET "\"X\": a\r\n" END), REFUSAL_BAD_HEADER },
	{ "a slash in a name", SLICE_INIT(GET "X/Y: a\r\n" END), REFUSAL_BAD_HEADER },
	{ "no Host", SLICE_INIT("GET / HTTP/1.1\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "two Hosts", SLICE_INIT(GET "Host: i\r\n" END), REFUSAL_BAD_HOST },
	{ "the same Host twice", SLICE_INIT(GET "hOST: h\r\n" END), REFUSAL_BAD_HOST },
	{ "two Hosts in HTTP/1.0", SLICE_INIT(GET_10 "Host: h\r\nHost: h\r\n" END),
	    REFUSAL_BAD_HOST },
	{ "an empty Host", SLICE_INIT("GET / HTTP/1.1\r\nHost:\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "an empty Host in HTTP/1.0", SLICE_INIT(GET_10 "Host: \r\n" END), REFUSAL_BAD_HOST },
	{ "a list of Hosts", SLICE_INIT("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "two words in Host", SLICE_INIT("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "user information in Host", SLICE_INIT("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "a path in Host", SLICE_INIT("GET / HTTP/1.1\r\nHost: h/p\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "a query in Host", SLICE_INIT("GET / HTTP/1.1\r\nHost: h?p\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "a scheme in Host", SLICE_INIT("GET / HTTP/1.1\r\nHost: http://h\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "an escape in Host", SLICE_INIT("GET / HTTP/1.1\r\nHost: %68\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "an empty port", SLICE_INIT("GET / HTTP/1.1\r\nHost: h:\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "port 0", SLICE_INIT("GET / HTTP/1.1\r\nHost: h:0\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "port 65536", SLICE_INIT("GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "a port of six digits", SLICE_INIT("GET / HTTP/1.1\r\nHost: h:000080\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "a signed port", SLICE_INIT("GET / HTTP/1.1\r\nHost: h:+80\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "a named port", SLICE_INIT("GET / HTTP/1.1\r\nHost: h:http\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "two ports", SLICE_INIT("GET / HTTP/1.1\r\nHost: h:80:81\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "a port alone", SLICE_INIT("GET / HTTP/1.1\r\nHost: :80\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "an empty label", SLICE_INIT("GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "a dot first", SLICE_INIT("GET / HTTP/1.1\r\nHost: .a\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "an open IPv6 address", SLICE_INIT("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "IPv6 without brackets", SLICE_INIT("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "a malformed IPv6 address", SLICE_INIT("GET / HTTP/1.1\r\nHost: [::1::]\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "an IPv6 zone", SLICE_INIT("GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "bytes after an IPv6 address", SLICE_INIT("GET / HTTP/1.1\r\nHost: [::1]x:80\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "an empty IPv6 address", SLICE_INIT("GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "a very long IPv6 address",
	    SLICE_INIT("GET / HTTP/1.1\r\nHost: "
		       "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "absolute form against Host", SLICE_INIT("GET http://evil/ HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "absolute form against the port",
	    SLICE_INIT("GET http://h:81/ HTTP/1.1\r\nHost: h:80\r\n\r\n"), REFUSAL_BAD_HOST },
	{ "absolute form without Host", SLICE_INIT("GET http://h/ HTTP/1.1\r\n\r\n"),
	    REFUSAL_BAD_HOST },
	{ "an empty Content-Length", SLICE_INIT(POST "Content-Length:\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a blank Content-Length", SLICE_INIT(POST "Content-Length:  \r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a positive Content-Length", SLICE_INIT(POST "Content-Length: +5\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a negative Content-Length", SLICE_INIT(POST "Content-Length: -5\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a space in Content-Length", SLICE_INIT(POST "Content-Length: 1 2\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a list in Content-Length", SLICE_INIT(POST "Content-Length: 5, 5\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a list of one in Content-Length", SLICE_INIT(POST "Content-Length: 5,\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "Content-Length twice, alike",
	    SLICE_INIT(POST "Content-Length: 5\r\nContent-Length: 5\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "Content-Length twice, different",
	    SLICE_INIT(POST "Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a hexadecimal Content-Length", SLICE_INIT(POST "Content-Length: 0x5\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "letters in Content-Length", SLICE_INIT(POST "Content-Length: 5a\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a fraction in Content-Length", SLICE_INIT(POST "Content-Length: 5.0\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "an underscore in Content-Length", SLICE_INIT(POST "Content-Length: 1_0\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "an octal Content-Length", SLICE_INIT(POST "Content-Length: 010\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a Content-Length of two zeros", SLICE_INIT(POST "Content-Length: 00\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "Content-Length 2^63", SLICE_INIT(POST "Content-Length: 9223372036854775808\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "Content-Length 2^64", SLICE_INIT(POST "Content-Length: 18446744073709551616\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "Content-Length 2^64 + 5",
	    SLICE_INIT(POST "Content-Length: 18446744073709551621\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a tab before Content-Length", SLICE_INIT(POST "Content-Length:\t5\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "a tab after Content-Length", SLICE_INIT(POST "Content-Length: 5\t\r\n" END),
	    REFUSAL_BAD_CONTENT_LENGTH },
	{ "both framings",
	    SLICE_INIT(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END),
	    REFUSAL_BAD_FRAMING },
	{ "both framings, the other way round",
	    SLICE_INIT(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" END),
	    REFUSAL_BAD_FRAMING },
	{ "an empty Transfer-Encoding with Content-Length",
	    SLICE_INIT(POST "Transfer-Encoding:\r\nContent-Length: 5\r\n" END),
	    REFUSAL_BAD_FRAMING },
	{ "identity with Content-Length",
	    SLICE_INIT(POST "Transfer-Encoding: identity\r\nContent-Length: 5\r\n" END),
	    REFUSAL_BAD_FRAMING },
	{ "Transfer-Encoding in HTTP/1.0",
	    SLICE_INIT("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "an empty Transfer-Encoding", SLICE_INIT(POST "Transfer-Encoding:\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "identity", SLICE_INIT(POST "Transfer-Encoding: identity\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "gzip", SLICE_INIT(POST "Transfer-Encoding: gzip\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "gzip, chunked", SLICE_INIT(POST "Transfer-Encoding: gzip, chunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "deflate, chunked", SLICE_INIT(POST "Transfer-Encoding: deflate, chunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "chunked, gzip", SLICE_INIT(POST "Transfer-Encoding: chunked, gzip\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "chunked, identity", SLICE_INIT(POST "Transfer-Encoding: chunked, identity\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "chunked, chunked", SLICE_INIT(POST "Transfer-Encoding: chunked, chunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ ",chunked", SLICE_INIT(POST "Transfer-Encoding: ,chunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "chunked,", SLICE_INIT(POST "Transfer-Encoding: chunked,\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "chunked with a parameter", SLICE_INIT(POST "Transfer-Encoding: chunked;q=1\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "quoted chunked", SLICE_INIT(POST "Transfer-Encoding: \"chunked\"\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "xchunked", SLICE_INIT(POST "Transfer-Encoding: xchunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "chunkedx", SLICE_INIT(POST "Transfer-Encoding: chunkedx\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "chunk", SLICE_INIT(POST "Transfer-Encoding: chunk\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "two Transfer-Encoding fields",
	    SLICE_INIT(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "gzip and chunked in two fields",
	    SLICE_INIT(POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "a tab before chunked", SLICE_INIT(POST "Transfer-Encoding:\tchunked\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "a tab after chunked", SLICE_INIT(POST "Transfer-Encoding: chunked\t\r\n" END),
	    REFUSAL_BAD_TRANSFER_ENCODING },
	{ "content_length", SLICE_INIT(POST "content_length: 5\r\n" END), REFUSAL_ALIAS_HEADER },
	{ "Content_Length beside Content-Length",
	    SLICE_INIT(POST "Content-Length: 0\r\nContent_Length: 5\r\n" END),
	    REFUSAL_ALIAS_HEADER },
	{ "Transfer_Encoding", SLICE_INIT(POST "Transfer_Encoding: chunked\r\n" END),
	    REFUSAL_ALIAS_HEADER },
	{ "Transfer.Encoding", SLICE_INIT(POST "Transfer.Encoding: chunked\r\n" END),
	    REFUSAL_ALIAS_HEADER },
	{ "BLUEMIX_INSTANCE", SLICE_INIT(GET "BLUEMIX_INSTANCE: x\r\n" END), REFUSAL_ALIAS_HEADER },
	{ "X_Kms-Key_Ring", SLICE_INIT(GET "X_Kms-Key_Ring: x\r\n" END), REFUSAL_ALIAS_HEADER },
	{ "X_Forwarded_Port", SLICE_INIT(GET "X_Forwarded_Port: 1\r\n" END), REFUSAL_ALIAS_HEADER },
	{ "X-Forwarded_Port", SLICE_INIT(GET "X-Forwarded_Port: 1\r\n" END), REFUSAL_ALIAS_HEADER },
	{ "a target without a slash", SLICE_INIT("GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "authority form", SLICE_INIT("GET h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "GET *", SLICE_INIT("GET * HTTP/1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_TARGET },
	{ "OPTIONS **", SLICE_INIT("OPTIONS ** HTTP/1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_TARGET },
	{ "OPTIONS *?", SLICE_INIT("OPTIONS *? HTTP/1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_TARGET },
	{ "another scheme", SLICE_INIT("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "a scheme without an authority", SLICE_INIT("GET http:/// HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "a scheme alone", SLICE_INIT("GET http:// HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "one slash after the scheme", SLICE_INIT("GET http:/h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "user information", SLICE_INIT("GET http://u:p@h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "a backslash in the authority",
	    SLICE_INIT("GET http://h\\x/ HTTP/1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_TARGET },
	{ "a fragment", SLICE_INIT("GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"), REFUSAL_BAD_TARGET },
	{ "a fragment after a query", SLICE_INIT("GET /a?b#c HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "NUL in the target", SLICE_INIT("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "a tab in the target", SLICE_INIT("GET /\tHTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "DEL in the target", SLICE_INIT("GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "a non-ASCII target", SLICE_INIT("GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n"),
	    REFUSAL_BAD_TARGET },
	{ "a malformed Connection", SLICE_INIT(GET "Connection: a b\r\n" END),
	    REFUSAL_BAD_CONNECTION },
	{ "a quoted option", SLICE_INIT(GET "Connection: \"close\"\r\n" END),
	    REFUSAL_BAD_CONNECTION },
	{ "33 options",
	    SLICE_INIT(
		GET "Connection: "
		    "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n" END),
	    REFUSAL_BAD_CONNECTION },
	{ "Authorization as an option",
	    SLICE_INIT(GET "Connection: close\r\nConnection: x, AUTHORIZATION\r\n" END),
	    REFUSAL_BAD_CONNECTION },
	{ "another expectation", SLICE_INIT(POST "Expect: 200-ok\r\n" END), REFUSAL_BAD_EXPECT },
	{ "an empty expectation", SLICE_INIT(POST "Expect:\r\n" END), REFUSAL_BAD_EXPECT },
	{ "two expectations",
	    SLICE_INIT(POST "Expect: 100-continue\r\nExpect: 100-continue\r\n" END),
	    REFUSAL_BAD_EXPECT },
	{ "a list of expectations", SLICE_INIT(POST "Expect: 100-continue, x\r\n" END),
	    REFUSAL_BAD_EXPECT },
	{ "Upgrade", SLICE_INIT(GET "Upgrade: websocket\r\nConnection: Upgrade\r\n" END),
	    REFUSAL_UPGRADE },
	{ "Upgrade alone", SLICE_INIT(GET "Upgrade: h2c\r\n" END), REFUSAL_UPGRADE },
	{ "Connection: upgrade alone", SLICE_INIT(GET "Connection: keep-alive, uPGRADE\r\n" END),
	    REFUSAL_UPGRADE },
	{ "HTTP2-Settings", SLICE_INIT(GET "HTTP2-Settings: AAMAAABkAAQAAP__\r\n" END),
	    REFUSAL_UPGRADE },
	{ "Connection: HTTP2-Settings", SLICE_INIT(GET "Connection: HTTP2-Settings\r\n" END),
	    REFUSAL_UPGRADE },
	{ "Authorization twice",
	    SLICE_INIT(GET "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "a list of bearer tokens", SLICE_INIT(GET "Authorization: bEARER a, Bearer b\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "Bluemix-Instance twice",
	    SLICE_INIT(GET "Bluemix-Instance: a\r\nBluemix-Instance: b\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "a list in Bluemix-Instance", SLICE_INIT(GET "Bluemix-Instance: a,b\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "X-Kms-Key-Ring twice", SLICE_INIT(GET "X-Kms-Key-Ring: a\r\nx-kms-key-ring: a\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "a list in X-Kms-Key-Ring", SLICE_INIT(GET "X-Kms-Key-Ring: a,b\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "Correlation-Id twice", SLICE_INIT(GET "Correlation-Id: a\r\nCorrelation-Id: b\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "a list in Correlation-Id", SLICE_INIT(GET "Correlation-Id: a,b\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "Prefer twice", SLICE_INIT(GET "Prefer: return=minimal\r\nPrefer: wait\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "a list in Prefer", SLICE_INIT(GET "Prefer: return=minimal, wait=1\r\n" END),
	    REFUSAL_REPEATED_HEADER },
	{ "Content-Type twice",
	    SLICE_INIT(POST "Content-Type: a/b\r\nContent-Type: multipart/form-data\r\n" END),
	    REFUSAL_REPEATED_HEADER },
};

static void
illegal_requests_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		static struct verdict v;

		parse_every_way(REQUEST, refused[i].text, &v);
		if (v.result != HTTP_BAD || v.refusal != refused[i].refusal)
			fail_msg("%s: result %d, %s, wanted %s", refused[i].label, (int)v.result,
			    refusal_info(v.refusal)->code, refusal_info(refused[i].refusal)->code);
	}
}

static const struct {
	const char *label;
	struct slice text;
} malformed[] = {
	{ "an empty line first", SLICE_INIT("\r\n" OK END) },
	{ "HTTP/0.9", SLICE_INIT("HTTP/0.9 200 OK\r\n\r\n") },
	{ "HTTP/2.0", SLICE_INIT("HTTP/2.0 200 OK\r\n\r\n") },
	{ "HTTP/1.2", SLICE_INIT("HTTP/1.2 200 OK\r\n\r\n") },
	{ "http/1.1", SLICE_INIT("http/1.1 200 OK\r\n\r\n") },
	{ "HTTP/1.11", SLICE_INIT("HTTP/1.11 200 OK\r\n\r\n") },
	{ "another protocol", SLICE_INIT("ICY 200 OK\r\n\r\n") },
	{ "no status", SLICE_INIT("HTTP/1.1\r\n\r\n") },
	{ "a status of two digits", SLICE_INIT("HTTP/1.1 20 OK\r\n\r\n") },
	{ "a status of four digits", SLICE_INIT("HTTP/1.1 2000 OK\r\n\r\n") },
	{ "a status with letters", SLICE_INIT("HTTP/1.1 2xx OK\r\n\r\n") },
	{ "status 099", SLICE_INIT("HTTP/1.1 099 OK\r\n\r\n") },
	{ "status 600", SLICE_INIT("HTTP/1.1 600 OK\r\n\r\n") },
	{ "a signed status", SLICE_INIT("HTTP/1.1 -200 OK\r\n\r\n") },
	{ "two spaces before the status", SLICE_INIT("HTTP/1.1  200 OK\r\n\r\n") },
	{ "a tab before the status", SLICE_INIT("HTTP/1.1\t200 OK\r\n\r\n") },
	{ "a control byte in the reason", SLICE_INIT("HTTP/1.1 200 O\x01K\r\n\r\n") },
	{ "NUL in the reason", SLICE_INIT("HTTP/1.1 200 O\0K\r\n\r\n") },
	{ "a bare LF after the status line", SLICE_INIT("HTTP/1.1 200 OK\n\r\n") },
	{ "a bare CR in the reason", SLICE_INIT("HTTP/1.1 200 OK\rX: y\r\n\r\n") },
	{ "a bare LF after a field", SLICE_INIT(OK "X: y\n" END) },
	{ "a bare LF ends the head", SLICE_INIT(OK "\n") },
	{ "a folded field", SLICE_INIT(OK "X: y\r\n z\r\n" END) },
	{ "a space before the colon", SLICE_INIT(OK "X : y\r\n" END) },
	{ "no name", SLICE_INIT(OK ": y\r\n" END) },
	{ "no colon", SLICE_INIT(OK "X\r\n" END) },
	{ "NUL in a value", SLICE_INIT(OK "X: \0\r\n" END) },
	{ "DEL in a value", SLICE_INIT(OK "X: \x7f\r\n" END) },
	{ "both framings",
	    SLICE_INIT(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END) },
	{ "Content-Length twice, alike",
	    SLICE_INIT(OK "Content-Length: 5\r\nContent-Length: 5\r\n" END) },
	{ "Content-Length twice, different",
	    SLICE_INIT(OK "Content-Length: 5\r\nContent-Length: 6\r\n" END) },
	{ "a list in Content-Length", SLICE_INIT(OK "Content-Length: 5, 5\r\n" END) },
	{ "a signed Content-Length", SLICE_INIT(OK "Content-Length: +5\r\n" END) },
	{ "an overflowing Content-Length",
	    SLICE_INIT(OK "Content-Length: 99999999999999999999\r\n" END) },
	{ "an empty Content-Length", SLICE_INIT(OK "Content-Length:\r\n" END) },
	{ "gzip, chunked", SLICE_INIT(OK "Transfer-Encoding: gzip, chunked\r\n" END) },
	{ "identity", SLICE_INIT(OK "Transfer-Encoding: identity\r\n" END) },
	{ "an empty Transfer-Encoding", SLICE_INIT(OK "Transfer-Encoding: \r\n" END) },
	{ "Transfer-Encoding twice",
	    SLICE_INIT(OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END) },
	{ "chunked in HTTP/1.0", SLICE_INIT(OK_10 "Transfer-Encoding: chunked\r\n" END) },
	{ "101", SLICE_INIT("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: "
			    "upgrade\r\n\r\n") },
	{ "100 with a length", SLICE_INIT("HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n") },
	{ "103 in chunks",
	    SLICE_INIT("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n") },
	{ "204 with a length", SLICE_INIT("HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n") },
	{ "204 in chunks",
	    SLICE_INIT("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n") },
	{ "a malformed length on 304",
	    SLICE_INIT("HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n") },
	{ "a malformed Connection", SLICE_INIT(OK "Connection: a b\r\n" END) },
	{ "an alias", SLICE_INIT(OK "Transfer_Encoding: chunked\r\n" END) },
	{ "an alias beside the field",
	    SLICE_INIT(OK "content_length: 3\r\nContent-Length: 0\r\n" END) },
	{ "an alias of a field that is removed", SLICE_INIT(OK "alt_svc: h3=\":443\"\r\n" END) },
};

static void
illegal_answers_are_malformed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		static struct verdict v;

		parse_every_way(ANSWER, malformed[i].text, &v);
		if (v.result != HTTP_BAD || v.refusal != REFUSAL_UPSTREAM_MALFORMED)
			fail_msg("%s: result %d, %s", malformed[i].label, (int)v.result,
			    refusal_info(v.refusal)->code);
	}
}

/* The last byte of each is the first that no legal request could have there. */
static const struct {
	const char *label;
	struct slice text;
	enum http_refusal refusal;
} early[] = {
	{ "a TLS record", SLICE_INIT("\x16"), REFUSAL_BAD_REQUEST_LINE },
	{ "an empty line", SLICE_INIT("\r"), REFUSAL_BAD_REQUEST_LINE },
	{ "a long method", SLICE_INIT("OPTIONSS"), REFUSAL_BAD_METHOD },
	{ "an unknown method", SLICE_INIT("FOO "), REFUSAL_BAD_METHOD },
	{ "a binary target", SLICE_INIT("GET /\x80"), REFUSAL_BAD_TARGET },
	{ "an empty target", SLICE_INIT("GET  "), REFUSAL_BAD_REQUEST_LINE },
	{ "HTTP/0.9", SLICE_INIT("GET /\r"), REFUSAL_BAD_REQUEST_LINE },
	{ "another protocol", SLICE_INIT("GET / X"), REFUSAL_BAD_REQUEST_LINE },
	{ "a major version", SLICE_INIT("GET / HTTP/2"), REFUSAL_BAD_VERSION },
	{ "a minor version", SLICE_INIT("GET / HTTP/1.2"), REFUSAL_BAD_VERSION },
	{ "a longer minor version", SLICE_INIT("GET / HTTP/1.11"), REFUSAL_BAD_VERSION },
	{ "a bare LF", SLICE_INIT("GET / HTTP/1.1\n"), REFUSAL_BAD_LINE_END },
	{ "a bare CR", SLICE_INIT("GET / HTTP/1.1\rH"), REFUSAL_BAD_LINE_END },
	{ "an empty name", SLICE_INIT(GET ":"), REFUSAL_BAD_HEADER },
	{ "a space before the colon", SLICE_INIT(GET "X "), REFUSAL_BAD_HEADER },
	{ "a fold", SLICE_INIT(GET "X: y\r\n "), REFUSAL_OBS_FOLD },
	{ "NUL in a value", SLICE_INIT(GET "X: \0"), REFUSAL_BAD_HEADER },
	{ "a bare CR in a value", SLICE_INIT(GET "X: y\rz"), REFUSAL_BAD_LINE_END },
	{ "a bare CR at the end", SLICE_INIT(GET "\r\r"), REFUSAL_BAD_LINE_END },
};

static void
a_request_is_refused_at_its_first_illegal_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(early) / sizeof(early[0]); i++) {
		static struct verdict v;
		struct http_scan scan = { 0 };
		struct slice text = early[i].text;

		parse(REQUEST, &scan, slice_sub(text, 0, text.n - 1), &v);
		if (v.result != HTTP_MORE)
			fail_msg("%s: refused too early", early[i].label);
		parse(REQUEST, &scan, text, &v);
		if (v.result != HTTP_BAD || v.refusal != early[i].refusal)
			fail_msg("%s: result %d, %s", early[i].label, (int)v.result,
			    refusal_info(v.refusal)->code);
	}
}

/* ---- limits ---- */

/* How many of these bytes pass before the refusal. */
static size_t
refused_after(struct slice text, enum http_refusal want)
{
	for (size_t n = 0; n <= text.n; n++) {
		struct http_scan whole = { 0 };
		static struct verdict v;

		parse(REQUEST, &whole, slice_sub(text, 0, n), &v);
		if (v.result == HTTP_MORE)
			continue;
		assert_int_equal(v.result, HTTP_BAD);
		assert_int_equal(v.refusal, want);
		parse_every_way(REQUEST, text, &v);
		assert_int_equal(v.refusal, want);
		return n;
	}
	fail_msg("never refused");
	return 0;
}

static void
an_endless_head_is_refused_at_the_limit(void **state)
{
	static char text[4096] = GET "X: ";

	(void)state;
	memset(text + strlen(text), 'a', sizeof(text) - strlen(text));
	assert_int_equal(
	    refused_after((struct slice){ text, sizeof(text) }, REFUSAL_HEAD_TOO_LARGE),
	    limits.head);
}

static void
a_head_of_exactly_the_limit_is_accepted(void **state)
{
	static char text[4096] = GET "X: ";
	static struct verdict v;

	(void)state;
	memset(text + strlen(text), 'a', limits.head - strlen(text));
	memcpy(text + limits.head - 4, "\r\n\r\n", 4);
	parse_every_way(REQUEST, (struct slice){ text, limits.head }, &v);
	assert_int_equal(v.result, HTTP_DONE);
	memcpy(text + limits.head - 4, "a\r\n\r\n", 5);
	parse_every_way(REQUEST, (struct slice){ text, limits.head + 1 }, &v);
	assert_int_equal(v.refusal, REFUSAL_HEAD_TOO_LARGE);
}

static void
a_long_target_is_refused_at_the_limit(void **state)
{
	static char text[1024] = "GET /";
	static struct verdict v;

	(void)state;
	memset(text + strlen(text), 'a', sizeof(text) - strlen(text));
	assert_int_equal(
	    refused_after((struct slice){ text, sizeof(text) }, REFUSAL_TARGET_TOO_LONG),
	    4 + limits.target + 1);
	memcpy(text + 4 + limits.target, " HTTP/1.1\r\nHost: h\r\n\r\n", 23);
	parse_every_way(REQUEST, slice_of(text), &v);
	assert_int_equal(v.result, HTTP_DONE);
	assert_int_equal(v.head.path.n, limits.target);
}

static void
one_field_too_many_is_refused_at_its_first_byte(void **state)
{
	char text[512] = "GET / HTTP/1.1\r\n";
	static struct verdict v;
	size_t before;

	(void)state;
	strcat(text, "Host: h\r\n");
	for (unsigned i = 1; i < limits.fields; i++)
		strcat(text, "A: b\r\n");
	before = strlen(text);
	strcat(text, "\r\n");
	parse_every_way(REQUEST, slice_of(text), &v);
	assert_int_equal(v.result, HTTP_DONE);
	assert_int_equal(v.head.nfields, limits.fields);
	text[before] = 'A';
	assert_int_equal(refused_after(slice_of(text), REFUSAL_HEAD_TOO_LARGE), before + 1);
}

static void
lowered_limits_hold_for_what_was_scanned_before(void **state)
{
	static const char text[] = GET "Host: h\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n";
	static const struct http_limits lower[] = {
		{ .head = 24, .target = 256, .fields = 16 },
		{ .head = 2048, .target = 256, .fields = 2 },
	};
	static struct verdict v;

	(void)state;
	for (size_t i = 0; i < sizeof(lower) / sizeof(lower[0]); i++)
		for (size_t cut = 30; cut < sizeof(text) - 1; cut++) {
			struct http_scan scan = { 0 };
			struct slice part = tight_copy((struct slice){ text, cut });

			parse(REQUEST, &scan, part, &v);
			assert_int_equal(v.result, HTTP_MORE);
			free_copy(part);
			part = tight_copy((struct slice){ text, sizeof(text) - 1 });
			v.result = http_parse_request(
			    &scan, part, &lower[i], &v.head, &v.used, &v.refusal);
			assert_int_equal(v.result, HTTP_BAD);
			assert_int_equal(v.refusal, REFUSAL_HEAD_TOO_LARGE);
			free_copy(part);
		}
}

/* ---- what a head says ---- */

static const struct {
	const char *label;
	struct slice target, authority, path, query;
	bool has_query;
} targets[] = {
	{ "a path", SLICE_INIT("/a/b"), SLICE_INIT(""), SLICE_INIT("/a/b"), SLICE_INIT(""), false },
	{ "a query", SLICE_INIT("/a?b=c"), SLICE_INIT(""), SLICE_INIT("/a"), SLICE_INIT("b=c"),
	    true },
	{ "an empty query", SLICE_INIT("/a?"), SLICE_INIT(""), SLICE_INIT("/a"), SLICE_INIT(""),
	    true },
	{ "the first question mark divides", SLICE_INIT("/a?b?c"), SLICE_INIT(""), SLICE_INIT("/a"),
	    SLICE_INIT("b?c"), true },
	{ "absolute form", SLICE_INIT("http://h/a?b"), SLICE_INIT("h"), SLICE_INIT("/a"),
	    SLICE_INIT("b"), true },
	{ "absolute form with a root", SLICE_INIT("https://h/"), SLICE_INIT("h"), SLICE_INIT("/"),
	    SLICE_INIT(""), false },
	{ "all of the server in absolute form", SLICE_INIT("https://h"), SLICE_INIT("h"),
	    SLICE_INIT("*"), SLICE_INIT(""), false },
	{ "absolute form with a query alone", SLICE_INIT("HTTPS://H?q"), SLICE_INIT("H"),
	    SLICE_INIT("/"), SLICE_INIT("q"), true },
	{ "all of the server", SLICE_INIT("*"), SLICE_INIT(""), SLICE_INIT("*"), SLICE_INIT(""),
	    false },
};

static void
a_target_is_taken_apart(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		char text[256];
		static struct verdict v;
		struct http_scan scan = { 0 };

		snprintf(text, sizeof(text), "OPTIONS %.*s HTTP/1.1\r\nHost: h\r\n\r\n",
		    SLICE_ARG(targets[i].target));
		parse(REQUEST, &scan, slice_of(text), &v);
		if (v.result != HTTP_DONE || !slice_equal(v.head.authority, targets[i].authority) ||
		    !slice_equal(v.head.target, targets[i].target) ||
		    !slice_equal(v.head.path, targets[i].path) ||
		    !slice_equal(v.head.query, targets[i].query) ||
		    v.head.has_query != targets[i].has_query)
			fail_msg("%s", targets[i].label);
	}
}

static void
fields_keep_their_bytes_without_white_space_around(void **state)
{
	static struct verdict v;
	struct slice text = SLICE("PUT /x HTTP/1.1\r\nhOSt:\t h \t\r\nX-Empty:\r\nX-Blank: \t \r\n"
				  "X-Inner:a \t b\r\nX-Inner:2\r\n\r\nrest");
	struct http_scan scan = { 0 };

	(void)state;
	parse(REQUEST, &scan, text, &v);
	assert_int_equal(v.result, HTTP_DONE);
	assert_int_equal(v.used, text.n - 4);
	assert_true(slice_equal(v.head.method, SLICE("PUT")));
	assert_true(slice_equal(v.head.fields[0].name, SLICE("hOSt")));
	assert_int_equal(v.head.first[HTTP_F_HOST], 1);
	assert_true(slice_equal(v.head.fields[0].value, SLICE("h")));
	assert_int_equal(v.head.fields[1].value.n, 0);
	assert_int_equal(v.head.fields[2].value.n, 0);
	assert_ptr_equal(http_head_find(&v.head, SLICE("x-inner")), &v.head.fields[3]);
	assert_true(slice_equal(v.head.fields[3].value, SLICE("a \t b")));
	assert_int_equal(http_head_count_name(&v.head, SLICE("x-INNER")), 2);
}

static void
expectation_is_known_and_ignored_in_http_1_0(void **state)
{
	static struct verdict v;

	(void)state;
	parse_every_way(
	    REQUEST, SLICE(POST "Expect: 100-Continue\r\nContent-Length: 3\r\n" END), &v);
	assert_int_equal(v.result, HTTP_DONE);
	assert_true(v.head.expect_continue);
	parse_every_way(REQUEST, SLICE(GET_10 "Expect: 100-continue\r\n" END), &v);
	assert_int_equal(v.result, HTTP_DONE);
	assert_false(v.head.expect_continue);
}

/* ---- hop-by-hop ---- */

static bool
is_hop(const struct http_head *h, const char *name)
{
	const struct http_field *f = http_head_find(h, slice_of(name));

	return f != NULL && f->hop;
}

static void
hop_by_hop_fields_are_marked(void **state)
{
	static struct verdict v;

	(void)state;
	parse_every_way(REQUEST,
	    SLICE(GET "Connection: , x-one ,X-Two\r\nX-One: 1\r\nx-tWO: 2\r\nX-Three: 3\r\n"
		      "Connection: keep-alive,,x-absent\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
		      "Proxy-Authorization: x\r\nProxy-Connection: y\r\nTrailer: z\r\n" END),
	    &v);
	assert_int_equal(v.result, HTTP_DONE);
	assert_true(is_hop(&v.head, "connection") && is_hop(&v.head, "x-one"));
	assert_true(is_hop(&v.head, "x-two") && is_hop(&v.head, "keep-alive"));
	assert_true(is_hop(&v.head, "te") && is_hop(&v.head, "proxy-authorization"));
	assert_true(is_hop(&v.head, "proxy-connection") && is_hop(&v.head, "trailer"));
	assert_false(is_hop(&v.head, "x-three") || is_hop(&v.head, "host"));
	assert_int_equal(http_head_count_name(&v.head, SLICE("x-three")), 1);
}

static void
an_answer_cannot_strip_what_the_record_needs(void **state)
{
	static struct verdict v;

	(void)state;
	parse_every_way(ANSWER,
	    SLICE(OK "Connection: Correlation-Id, content-length, X-Gone, upgrade\r\n"
		     "Correlation-Id: c\r\nContent-Length: 4\r\nX-Gone: 1\r\nUpgrade: h2c\r\n" END),
	    &v);
	assert_int_equal(v.result, HTTP_DONE);
	assert_false(is_hop(&v.head, "correlation-id") || is_hop(&v.head, "content-length"));
	assert_true(is_hop(&v.head, "x-gone") && is_hop(&v.head, "upgrade"));
}

static const char *const kept[] = { "Authorization", "Bluemix-Instance", "Correlation-Id", "Host",
	"Content-Length", "Transfer-Encoding", "X-Kms-Key-Ring", "Forwarded", "X-Forwarded-For",
	"X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "Via", "Content-Type",
	"Content-Encoding", "Prefer", "Expect", "User-Agent", "content_length", "x_forwarded_for" };

static void
a_request_cannot_strip_what_the_record_needs(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		char text[128];
		static struct verdict v;

		snprintf(text, sizeof(text), GET "Connection: close, %s\r\n\r\n", kept[i]);
		parse_every_way(REQUEST, slice_of(text), &v);
		if (v.result != HTTP_BAD || v.refusal != REFUSAL_BAD_CONNECTION)
			fail_msg("%s: %s", kept[i], refusal_info(v.refusal)->code);
	}
}

static void
names_that_cgi_reads_as_known_ones_are_refused(void **state)
{
	static const struct {
		const char *suffix;
	} names[] = {
#define X(suffix, name) { name },
		HTTP_FIELD_TABLE(X)
#undef X
	};

	(void)state;
	for (size_t i = 1; i < sizeof(names) / sizeof(names[0]); i++) {
		char name[64], text[256];
		static struct verdict v;
		char *dash;

		snprintf(name, sizeof(name), "%s", names[i].suffix);
		if ((dash = strchr(name, '-')) == NULL)
			continue;
		*dash = i % 2 == 0 ? '_' : '.';
		snprintf(text, sizeof(text), GET "%s: 1\r\n\r\n", name);
		parse_every_way(REQUEST, slice_of(text), &v);
		if (v.result != HTTP_BAD || v.refusal != REFUSAL_ALIAS_HEADER)
			fail_msg("%s: %s", name, refusal_info(v.refusal)->code);
	}
}

/* ---- bodies ---- */

static const struct {
	const char *label;
	enum http_framing framing;
	uint64_t length;
	struct slice text;
	struct slice content;
	enum http_body_result result;
	enum http_refusal refusal;
	struct slice trailers;
	size_t rest;
} bodies[] = {
	{ "no body", HTTP_NO_BODY, 0, SLICE_INIT("next"), SLICE_INIT(""), HTTP_BODY_END,
	    REFUSAL_NONE, SLICE_INIT(""), 4 },
	{ "a length of nothing", HTTP_LENGTH, 0, SLICE_INIT("next"), SLICE_INIT(""), HTTP_BODY_END,
	    REFUSAL_NONE, SLICE_INIT(""), 4 },
	{ "a length", HTTP_LENGTH, 5, SLICE_INIT("hellonext"), SLICE_INIT("hello"), HTTP_BODY_END,
	    REFUSAL_NONE, SLICE_INIT(""), 4 },
	{ "a length cut short", HTTP_LENGTH, 6, SLICE_INIT("hello"), SLICE_INIT("hello"),
	    HTTP_BODY_MORE, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "until close", HTTP_UNTIL_CLOSE, 0, SLICE_INIT("0\r\n\r\n"), SLICE_INIT("0\r\n\r\n"),
	    HTTP_BODY_MORE, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "no chunk", HTTP_CHUNKED, 0, SLICE_INIT("0\r\n\r\nnext"), SLICE_INIT(""), HTTP_BODY_END,
	    REFUSAL_NONE, SLICE_INIT(""), 4 },
	{ "a chunk", HTTP_CHUNKED, 0, SLICE_INIT("5\r\nhello\r\n0\r\n\r\n"), SLICE_INIT("hello"),
	    HTTP_BODY_END, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "chunks", HTTP_CHUNKED, 0,
	    SLICE_INIT("5\r\nhello\r\n1\r\n \r\n005\r\nworld\r\n000\r\n\r\nn"),
	    SLICE_INIT("hello world"), HTTP_BODY_END, REFUSAL_NONE, SLICE_INIT(""), 1 },
	{ "sizes of either case", HTTP_CHUNKED, 0,
	    SLICE_INIT("a\r\n0123456789\r\nA\r\n9876543210\r\n0\r\n\r\n"),
	    SLICE_INIT("01234567899876543210"), HTTP_BODY_END, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "content that looks like framing", HTTP_CHUNKED, 0,
	    SLICE_INIT("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), SLICE_INIT("\r\n0\r\n\r\n"),
	    HTTP_BODY_END, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "extensions are dropped", HTTP_CHUNKED, 0,
	    SLICE_INIT("1;a;b=c;d=\"e;\\\" \t\\\\f\";g\r\nx\r\n0;h=1\r\n\r\n"), SLICE_INIT("x"),
	    HTTP_BODY_END, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "a trailer", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nX-Sum: 1\r\n\r\nnext"), SLICE_INIT(""),
	    HTTP_BODY_END, REFUSAL_NONE, SLICE_INIT("X-Sum: 1\r\n"), 4 },
	{ "trailers are written afresh", HTTP_CHUNKED, 0,
	    SLICE_INIT("0\r\nX-A:1\r\nX-B: \t two  words\t\r\nX-C:\r\n\r\n"), SLICE_INIT(""),
	    HTTP_BODY_END, REFUSAL_NONE, SLICE_INIT("X-A: 1\r\nX-B: two  words\r\nX-C: \r\n"), 0 },
	{ "cut in a size", HTTP_CHUNKED, 0, SLICE_INIT("5"), SLICE_INIT(""), HTTP_BODY_MORE,
	    REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "cut in a chunk", HTTP_CHUNKED, 0, SLICE_INIT("5\r\nhel"), SLICE_INIT("hel"),
	    HTTP_BODY_MORE, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "cut after a chunk", HTTP_CHUNKED, 0, SLICE_INIT("5\r\nhello\r\n"), SLICE_INIT("hello"),
	    HTTP_BODY_MORE, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "cut before the last empty line", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nA: b\r\n"),
	    SLICE_INIT(""), HTTP_BODY_MORE, REFUSAL_NONE, SLICE_INIT(""), 0 },
	{ "no size", HTTP_CHUNKED, 0, SLICE_INIT("\r\n"), SLICE_INIT(""), HTTP_BODY_BAD,
	    REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "an extension without a size", HTTP_CHUNKED, 0, SLICE_INIT(";a\r\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a positive size", HTTP_CHUNKED, 0, SLICE_INIT("+5\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a negative size", HTTP_CHUNKED, 0, SLICE_INIT("-5\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a prefix", HTTP_CHUNKED, 0, SLICE_INIT("0x5\r\nhello"), SLICE_INIT(""), HTTP_BODY_BAD,
	    REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "an underscore", HTTP_CHUNKED, 0, SLICE_INIT("1_0\r\n"), SLICE_INIT(""), HTTP_BODY_BAD,
	    REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a space before the size", HTTP_CHUNKED, 0, SLICE_INIT(" 5\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a space after the size", HTTP_CHUNKED, 0, SLICE_INIT("5 \r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a tab after the size", HTTP_CHUNKED, 0, SLICE_INIT("5\t\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a space before the extension", HTTP_CHUNKED, 0, SLICE_INIT("5 ;a\r\nhello"),
	    SLICE_INIT(""), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a comma in the size", HTTP_CHUNKED, 0, SLICE_INIT("5,5\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a size of 2^63", HTTP_CHUNKED, 0, SLICE_INIT("8000000000000000\r\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a size of 2^64 + 5", HTTP_CHUNKED, 0, SLICE_INIT("10000000000000005\r\nhello"),
	    SLICE_INIT(""), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a bare LF after the size", HTTP_CHUNKED, 0, SLICE_INIT("5\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a bare CR after the size", HTTP_CHUNKED, 0, SLICE_INIT("5\rhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "two CR after the size", HTTP_CHUNKED, 0, SLICE_INIT("5\r\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "an empty extension", HTTP_CHUNKED, 0, SLICE_INIT("5;\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "an extension without a value", HTTP_CHUNKED, 0, SLICE_INIT("5;a=\r\nhello"),
	    SLICE_INIT(""), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "an extension that is no token", HTTP_CHUNKED, 0, SLICE_INIT("5;a[\r\nhello"),
	    SLICE_INIT(""), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a bare LF in an extension", HTTP_CHUNKED, 0, SLICE_INIT("5;a\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a bare CR in an extension", HTTP_CHUNKED, 0, SLICE_INIT("5;a\rb"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a line end in quotes", HTTP_CHUNKED, 0, SLICE_INIT("5;a=\"b\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "an escaped line end in quotes", HTTP_CHUNKED, 0, SLICE_INIT("5;a=\"b\\\n"),
	    SLICE_INIT(""), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "bytes after quotes", HTTP_CHUNKED, 0, SLICE_INIT("5;a=\"b\"c\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "NUL in an extension", HTTP_CHUNKED, 0, SLICE_INIT("5;a\0\r\nhello"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "content longer than its size", HTTP_CHUNKED, 0, SLICE_INIT("5\r\nhello!\r\n"),
	    SLICE_INIT("hello"), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a bare LF after content", HTTP_CHUNKED, 0, SLICE_INIT("5\r\nhello\n0\r\n\r\n"),
	    SLICE_INIT("hello"), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a bare CR after content", HTTP_CHUNKED, 0, SLICE_INIT("5\r\nhello\r0"),
	    SLICE_INIT("hello"), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "content without a line end", HTTP_CHUNKED, 0, SLICE_INIT("5\r\nhello0\r\n\r\n"),
	    SLICE_INIT("hello"), HTTP_BODY_BAD, REFUSAL_BAD_CHUNK, SLICE_INIT(""), 0 },
	{ "a bare LF ends the trailers", HTTP_CHUNKED, 0, SLICE_INIT("0\r\n\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "a bare CR ends the trailers", HTTP_CHUNKED, 0, SLICE_INIT("0\r\n\rX"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "a bare LF after a trailer", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nA: b\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "a folded trailer", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nA: b\r\n c"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "a trailer without a colon", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nA\r\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "a trailer without a name", HTTP_CHUNKED, 0, SLICE_INIT("0\r\n: a\r\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "a space before a trailer's colon", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nA : b\r\n"),
	    SLICE_INIT(""), HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "NUL in a trailer", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nA: \0\r\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
	{ "obs-text in a trailer", HTTP_CHUNKED, 0, SLICE_INIT("0\r\nA: \xe4\r\n"), SLICE_INIT(""),
	    HTTP_BODY_BAD, REFUSAL_BAD_TRAILER, SLICE_INIT(""), 0 },
};

struct body_run {
	char content[8192];
	size_t n, rest;
	enum http_body_result result;
	enum http_refusal refusal;
};

static void
feed(struct http_body *b, struct slice in, struct body_run *r)
{
	struct slice copy = tight_copy(in), left = copy, data;

	while ((r->result = http_body_next(b, &left, &data, &r->refusal)) == HTTP_BODY_DATA) {
		assert_true(data.n > 0 && r->n + data.n <= sizeof(r->content));
		memcpy(r->content + r->n, data.p, data.n);
		r->n += data.n;
	}
	r->rest = left.n;
	if (r->result == HTTP_BODY_MORE)
		assert_int_equal(left.n, 0);
	free_copy(copy);
}

static void
check_body(size_t i, const struct http_body *b, const struct body_run *r)
{
	if (r->result != bodies[i].result || r->refusal != bodies[i].refusal ||
	    !slice_equal((struct slice){ r->content, r->n }, bodies[i].content) ||
	    !slice_equal(http_body_trailers(b), bodies[i].trailers) || b->total != r->n ||
	    http_body_done(b) != (r->result == HTTP_BODY_END))
		fail_msg("%s: result %d, %s, content \"%.*s\", trailers \"%.*s\"", bodies[i].label,
		    (int)r->result, refusal_info(r->refusal)->code, (int)r->n, r->content,
		    SLICE_ARG(http_body_trailers(b)));
}

static void
bodies_read_alike_however_they_are_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		struct slice text = bodies[i].text;

		for (size_t cut = 0; cut <= text.n + 1; cut++) {
			static struct http_body b;
			static struct body_run r;
			/* the last round goes byte by byte */
			size_t step = cut <= text.n ? text.n : 1, n = cut <= text.n ? cut : 0;
			size_t from = 0;

			http_body_init(&b, bodies[i].framing, bodies[i].length);
			r = (struct body_run){ .result = HTTP_BODY_MORE };
			for (;;) {
				feed(&b, slice_sub(text, from, n), &r);
				from = n - r.rest;
				if (r.result != HTTP_BODY_MORE || n == text.n)
					break;
				n = n + step < text.n ? n + step : text.n;
			}
			check_body(i, &b, &r);
			if (r.result == HTTP_BODY_END)
				assert_int_equal(text.n - from, bodies[i].rest);
		}
	}
}

static const char *const no_trailers[] = {
#define X(suffix, name) name,
	HTTP_FIELD_TABLE(X)
#undef X
	    "content_length",
	"transfer.encoding", "X-Forwarded-Port", "x_forwarded_port", "Set-Cookie", "Cookie",
	"WWW-Authenticate", "Authentication-Info", "Range", "If-Match", "Cache-Control",
	"Max-Forwards", "Content-Range", "Location", "Retry-After", "X-Real-IP", "age",
	"Content-Location", "Expires", "If-Modified-Since", "If-None-Match", "If-Range",
	"If-Unmodified-Since", "Pragma", "Proxy-Authentication-Info", "Vary", "X_Real_IP",
	"X-Real.IP", "True-Client-IP", "X_Client_IP", "if_match", "Set.Cookie"
};

static void
a_trailer_names_no_field_that_decides_anything(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(no_trailers) / sizeof(no_trailers[0]); i++) {
		char text[128];
		static struct http_body b;
		static struct body_run r;

		snprintf(text, sizeof(text), "0\r\nX-Sum: 1\r\n%s: 1\r\n\r\n", no_trailers[i]);
		http_body_init(&b, HTTP_CHUNKED, 0);
		r = (struct body_run){ .result = HTTP_BODY_MORE };
		feed(&b, slice_of(text), &r);
		if (r.result != HTTP_BODY_BAD || r.refusal != REFUSAL_BAD_TRAILER)
			fail_msg("%s", no_trailers[i]);
	}
}

static const struct {
	const char *head, *trailers, *want;
	enum direction d;
} hop_trailers[] = {
	{ GET "Connection: x-sum\r\n" CHUNKED END, "X-Sum: 1\r\nX-Kept: 2\r\n", "X-Kept: 2\r\n",
	    REQUEST },
	{ GET "Connection: te\r\nConnection:,, x-a ,\tX-SUM\r\n" CHUNKED END,
	    "X-Kept: 2\r\nx-sum: 1\r\nX-Last: 3\r\nX-A:\r\n", "X-Kept: 2\r\nX-Last: 3\r\n",
	    REQUEST },
	{ GET CHUNKED "Connection: close\r\n" END, "Close: 1\r\nClosed: 2\r\n", "Closed: 2\r\n",
	    REQUEST },
	{ GET CHUNKED "Connection: x-sum\r\n" END, "X-Su: 1\r\nX-Sum2: 2\r\nX_Sum: 3\r\n",
	    "X-Su: 1\r\nX-Sum2: 2\r\nX_Sum: 3\r\n", REQUEST },
	{ OK CHUNKED "Connection: X-Sum, Content-Length\r\n" END, "X-Sum: 1\r\nX-Kept: 2\r\n",
	    "X-Kept: 2\r\n", ANSWER },
	{ OK CHUNKED "Connection: x-sum\r\n" END, "X-Sum: 1\r\n", "", ANSWER },
};

static void
trailers_that_connection_names_are_left_out(void **state)
{
	static struct http_body b;
	static struct body_run r;
	static struct verdict v;

	(void)state;
	for (size_t i = 0; i < sizeof(hop_trailers) / sizeof(hop_trailers[0]); i++) {
		char text[256];

		parse_every_way(hop_trailers[i].d, slice_of(hop_trailers[i].head), &v);
		assert_int_equal(v.result, HTTP_DONE);
		http_body_follow(&b, &v.head);
		snprintf(text, sizeof(text), "1\r\na\r\n0\r\n%s\r\n", hop_trailers[i].trailers);
		r = (struct body_run){ .result = HTTP_BODY_MORE };
		feed(&b, slice_of(text), &r);
		assert_int_equal(r.result, HTTP_BODY_END);
		if (!slice_equal(http_body_trailers(&b), slice_of(hop_trailers[i].want)))
			fail_msg("%s: \"%.*s\"", hop_trailers[i].head,
			    SLICE_ARG(http_body_trailers(&b)));
	}
}

/* Two fields of together n bytes, each with a comma. */
static enum http_result
parse_options(size_t n)
{
	static struct verdict v;
	char text[2 * HTTP_OPTIONS_BYTES] = GET "Connection: a\r\nConnection: ";
	size_t at = strlen(text);

	memset(text + at, 'b', n - 3);
	strcpy(text + at + n - 3, "\r\n\r\n");
	parse_every_way(REQUEST, slice_of(text), &v);
	return v.result == HTTP_BAD && v.refusal != REFUSAL_BAD_CONNECTION ? HTTP_MORE : v.result;
}

static void
what_connection_lists_is_bounded(void **state)
{
	(void)state;
	assert_int_equal(parse_options(HTTP_OPTIONS_BYTES), HTTP_DONE);
	assert_int_equal(parse_options(HTTP_OPTIONS_BYTES + 1), HTTP_BAD);
}

static enum http_body_result
feed_repeated(const char *begin, char c, size_t n, const char *end)
{
	static struct http_body b;
	static struct body_run r;
	char *text = malloc(strlen(begin) + n + strlen(end) + 1);

	assert_non_null(text);
	memcpy(text, begin, strlen(begin));
	memset(text + strlen(begin), c, n);
	memcpy(text + strlen(begin) + n, end, strlen(end) + 1);
	http_body_init(&b, HTTP_CHUNKED, 0);
	r = (struct body_run){ .result = HTTP_BODY_MORE };
	feed(&b, slice_of(text), &r);
	free(text);
	return r.result;
}

static void
extensions_and_trailers_are_bounded(void **state)
{
	(void)state;
	assert_int_equal(feed_repeated("0;", 'a', 256, "\r\n\r\n"), HTTP_BODY_END);
	assert_int_equal(feed_repeated("0;", 'a', 257, ""), HTTP_BODY_BAD);
	assert_int_equal(
	    feed_repeated("0\r\nA: ", 'b', HTTP_TRAILERS_MAX - 5, "\r\n\r\n"), HTTP_BODY_END);
	assert_int_equal(
	    feed_repeated("0\r\nA:", 'b', HTTP_TRAILERS_MAX - 4, "\r\n\r\n"), HTTP_BODY_BAD);
	assert_int_equal(feed_repeated("0\r\nA:", 'b', HTTP_TRAILERS_MAX - 1, ""), HTTP_BODY_BAD);
	assert_int_equal(feed_repeated("", '0', 16, "\r\n\r\n"), HTTP_BODY_END);
	assert_int_equal(feed_repeated("", '0', 17, ""), HTTP_BODY_BAD);
}

/* n times the same line. */
static enum http_body_result
feed_section(const char *head, enum direction d, const char *line, size_t n)
{
	static struct http_body b;
	static struct body_run r;
	static struct verdict v;

	parse_every_way(d, slice_of(head), &v);
	assert_int_equal(v.result, HTTP_DONE);
	http_body_follow(&b, &v.head);
	r = (struct body_run){ .result = HTTP_BODY_MORE };
	feed(&b, SLICE("0\r\n"), &r);
	while (n-- > 0 && r.result == HTTP_BODY_MORE)
		feed(&b, slice_of(line), &r);
	if (r.result == HTTP_BODY_MORE)
		feed(&b, SLICE("\r\n"), &r);
	return r.result;
}

static void
trailers_that_are_left_out_count_too(void **state)
{
	static const char request[] = GET "Connection: x\r\n" CHUNKED END;
	static const char answer[] = OK "Connection: x\r\n" CHUNKED END;
	static const char blank[] = "y:                          \r\n";
	size_t most = (HTTP_TRAILERS_MAX - 2) / 5; /* "x," and lines of five bytes */

	(void)state;
	assert_int_equal(feed_section(request, REQUEST, "x:a\r\n", most), HTTP_BODY_END);
	assert_int_equal(feed_section(request, REQUEST, "x:a\r\n", most + 1), HTTP_BODY_BAD);
	assert_int_equal(feed_section(answer, ANSWER, "x:a\r\n", 100000), HTTP_BODY_BAD);
	assert_int_equal(
	    feed_section(request, REQUEST, blank, HTTP_TRAILERS_MAX / (sizeof(blank) - 1) + 1),
	    HTTP_BODY_BAD);
}

static void
bytes_are_skipped_up_to_another_one(void **state)
{
	char line[48];
	const char *end = line + sizeof(line);

	(void)state;
	for (int c = 0; c < 256; c++) {
		bool text = c >= 0x20 && c <= 0x7e;
		bool word = c == '-' || (c != '_' && !chars_is((char)c, CHARS_ALIAS) &&
					    chars_is((char)c, CHARS_TOKEN));

		for (size_t at = 0; at < sizeof(line); at++) {
			const char *there = line + at;

			memset(line, at % 2 ? '0' : 'Z', sizeof(line));
			line[at] = (char)c;
			assert_ptr_equal(chars_skip_ascii(line, end, ' '), text ? end : there);
			assert_ptr_equal(
			    chars_skip_ascii(line, end, '!'), text && c != ' ' ? end : there);
			assert_ptr_equal(chars_skip_words(line, end), word ? end : there);
			assert_ptr_equal(chars_skip_words(line, line + LANES - 1), line);
			assert_ptr_equal(chars_skip_ascii(line, line + LANES - 1, ' '), line);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_skipped_up_to_another_one),
		cmocka_unit_test(legal_heads_are_accepted),
		cmocka_unit_test(illegal_requests_are_refused),
		cmocka_unit_test(illegal_answers_are_malformed),
		cmocka_unit_test(a_request_is_refused_at_its_first_illegal_byte),
		cmocka_unit_test(an_endless_head_is_refused_at_the_limit),
		cmocka_unit_test(a_head_of_exactly_the_limit_is_accepted),
		cmocka_unit_test(a_long_target_is_refused_at_the_limit),
		cmocka_unit_test(one_field_too_many_is_refused_at_its_first_byte),
		cmocka_unit_test(lowered_limits_hold_for_what_was_scanned_before),
		cmocka_unit_test(a_target_is_taken_apart),
		cmocka_unit_test(fields_keep_their_bytes_without_white_space_around),
		cmocka_unit_test(expectation_is_known_and_ignored_in_http_1_0),
		cmocka_unit_test(hop_by_hop_fields_are_marked),
		cmocka_unit_test(an_answer_cannot_strip_what_the_record_needs),
		cmocka_unit_test(a_request_cannot_strip_what_the_record_needs),
		cmocka_unit_test(names_that_cgi_reads_as_known_ones_are_refused),
		cmocka_unit_test(bodies_read_alike_however_they_are_cut),
		cmocka_unit_test(a_trailer_names_no_field_that_decides_anything),
		cmocka_unit_test(trailers_that_connection_names_are_left_out),
		cmocka_unit_test(what_connection_lists_is_bounded),
		cmocka_unit_test(extensions_and_trailers_are_bounded),
		cmocka_unit_test(trailers_that_are_left_out_count_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
