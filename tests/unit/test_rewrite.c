#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/rewrite.h"
#include "keytrail/parse.h"

#include <jansson.h>

static const struct http_limits limits = { .head = 8192, .target = 1024, .fields = 64 };

static struct http_head head; /* large; one test at a time uses it */

static void
parse_request(const char *text)
{
	struct http_scan scan = { 0 };
	enum http_refusal why = REFUSAL_NONE;
	size_t used;

	assert_int_equal(
	    http_parse_request(&scan, slice_of(text), &limits, &head, &used, &why), HTTP_DONE);
	assert_int_equal(used, strlen(text));
}

static void
parse_answer(const char *label, const char *text, bool to_head)
{
	struct http_scan scan = { 0 };
	enum http_refusal why = REFUSAL_NONE;
	size_t used;

	if (http_parse_response(&scan, slice_of(text), &limits, to_head, &head, &used, &why) !=
	    HTTP_DONE)
		fail_msg("%s: cannot be parsed", label);
}

static void
expect_text(struct buf *out, const char *label, const char *want)
{
	if (!slice_equal(buf_slice(out), slice_of(want)))
		fail_msg("%s:\n%.*s\nwanted:\n%s", label, SLICE_ARG(buf_slice(out)), want);
	buf_fini(out);
}

/* ---- requests ---- */

#define TAIL_PLAIN                                                                                 \
	"Via: 1.1 keytrail\r\n"                                                                    \
	"Forwarded: for=192.0.2.7;proto=https\r\n"                                                 \
	"X-Forwarded-For: 192.0.2.7\r\n"                                                           \
	"X-Forwarded-Proto: https\r\n"

#define CORRELATION "Correlation-Id: made-here\r\n"
#define OCTETS	    "Content-Type: application/octet-stream\r\n"

static const struct request_case {
	const char *label, *in, *want;
	bool trusted, plain, pass_host;
	const char *client;
} requests[] = {
	{ .label = "the head is written afresh, framing and our own fields last",
	    .in = "POST /api/v2/keys?action=wrap HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
		  "Prefer: return=minimal\r\n\r\n",
	    .want = "POST /api/v2/keys?action=wrap HTTP/1.1\r\nHost: kms.example\r\n"
		    "Prefer: return=minimal\r\n" CORRELATION TAIL_PLAIN OCTETS
		    "Content-Length: 5\r\n\r\n" },
	{ .label = "a body's own type stays",
	    .in = "PUT /a HTTP/1.1\r\nHost: a\r\ncontent-type: a/b\r\nContent-Length: 5\r\n\r\n",
	    .want = "PUT /a HTTP/1.1\r\nHost: kms.example\r\n"
		    "content-type: a/b\r\n" CORRELATION TAIL_PLAIN "Content-Length: 5\r\n\r\n" },
	{ .label = "an empty query keeps its question mark",
	    .in = "GET /a? HTTP/1.1\r\nHost: a\r\n\r\n",
	    .want = "GET /a? HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n" },
	{ .label = "the correlation ID of the client stays, and is not added to",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\ncorrelation-id: theirs\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\ncorrelation-id: theirs\r\n" TAIL_PLAIN
		    "\r\n" },
	{ .label = "no hop-by-hop field crosses, nor one that Connection names",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private\r\n"
		  "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"
		  "Proxy-Authorization: Basic Zm9v\r\nProxy-Authenticate: Basic\r\n"
		  "TE: gzip\r\nTrailer: X-Sum\r\nX-Private: 1\r\nX-Public: 2\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n"
		    "X-Public: 2\r\n" CORRELATION TAIL_PLAIN "\r\n" },
	{ .label = "a chunked body is announced by us",
	    .in = "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
	    .want = "PUT /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN OCTETS
		    "Transfer-Encoding: chunked\r\n\r\n" },
	{ .label = "a length of nothing is still told",
	    .in = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
	    .want = "POST /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN
		    "Content-Length: 0\r\n\r\n" },
	{ .label = "HTTP/1.0 becomes 1.1, and Via says what came",
	    .in = "GET /a HTTP/1.0\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION "Via: 1.0 keytrail\r\n"
		    "Forwarded: for=192.0.2.7;proto=https\r\nX-Forwarded-For: 192.0.2.7\r\n"
		    "X-Forwarded-Proto: https\r\n\r\n" },
	{ .label = "an expectation goes on",
	    .in = "PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
	    .want = "PUT /a HTTP/1.1\r\nHost: kms.example\r\n"
		    "Expect: 100-continue\r\n" CORRELATION TAIL_PLAIN "\r\n" },
	{ .label = "but not that of HTTP/1.0, which could not read the answer",
	    .in = "PUT /a HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
	    .want = "PUT /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION "Via: 1.0 keytrail\r\n"
		    "Forwarded: for=192.0.2.7;proto=https\r\nX-Forwarded-For: 192.0.2.7\r\n"
		    "X-Forwarded-Proto: https\r\n\r\n" },
	{ .label = "what an untrusted peer says of its way here is dropped",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nVia: 1.1 liar\r\nForwarded: for=198.51.100.1\r\n"
		  "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Host: b\r\n"
		  "X-Forwarded-Proto: http\r\nX-Forwarded-Port: 1\r\nx-forwarded-CLIENT-cert: c\r\n"
		  "X-Real-IP: 198.51.100.1\r\nX_Real_IP: 198.51.100.1\r\nTrue-Client-IP: "
		  "198.51.100.1\r\n"
		  "x-client-ip: 198.51.100.1\r\nX-Cluster-Client-IP: 198.51.100.1\r\n"
		  "CF-Connecting-IP: 198.51.100.1\r\nFastly_Client.IP: 198.51.100.1\r\n"
		  "X-Forwarded: 1\r\nX-Client-IPs: 2\r\nX-True-Client-IP: 2\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\nX-Client-IPs: 2\r\n"
		    "X-True-Client-IP: 2\r\n" CORRELATION TAIL_PLAIN "\r\n" },
	{ .label = "but for chains and host, what a trusted peer says of its way goes on as it is",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Host: b\r\n"
		  "X-Real-IP: 198.51.100.1\r\nTrue-Client-IP: 198.51.100.1\r\n\r\n",
	    .want =
		"GET /a HTTP/1.1\r\nHost: kms.example\r\nX-Forwarded-Port: 1\r\n"
		"X-Real-IP: 198.51.100.1\r\nTrue-Client-IP: 198.51.100.1\r\n" CORRELATION TAIL_PLAIN
		"\r\n",
	    .trusted = true },
	{ .label = "what a trusted peer says comes first, repeated fields in order",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nVia: 1.1 one\r\nVia: 1.0 two\r\n"
		  "Forwarded: for=198.51.100.1\r\nX-Forwarded-For: 198.51.100.1\r\n"
		  "X-Forwarded-For: 198.51.100.2\r\nX-Forwarded-Proto: http\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION
		    "Via: 1.1 one, 1.0 two, 1.1 keytrail\r\n"
		    "Forwarded: for=198.51.100.1, for=192.0.2.7;proto=https\r\n"
		    "X-Forwarded-For: 198.51.100.1, 198.51.100.2, 192.0.2.7\r\n"
		    "X-Forwarded-Proto: http\r\n\r\n",
	    .trusted = true },
	{ .label = "quoted strings and comments that end are kept",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nVia: 1.1 one (of (two), three)\r\n"
		  "Forwarded: for=\"[2001:db8::1]\";by=\"_a,b\"\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION
		    "Via: 1.1 one (of (two), three), 1.1 keytrail\r\n"
		    "Forwarded: for=\"[2001:db8::1]\";by=\"_a,b\", for=192.0.2.7;proto=https\r\n"
		    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n",
	    .trusted = true },
	{ .label = "a list with an open quote or comment is dropped whole",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nVia: 1.1 x (\r\nVia: 1.1 y\r\n"
		  "Forwarded: for=198.51.100.1\r\nForwarded: for=\"198.51.100.2\r\n"
		  "X-Forwarded-For: \"198.51.100.1\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n",
	    .trusted = true },
	{ .label = "so is what ends for some parsers alone: an escape, a quote in a comment",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nVia: 1.1 x (a \" b)\r\n"
		  "Forwarded: for=\"a\\\"\"\r\nX-Forwarded-For: \"(\"\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n",
	    .trusted = true },
	{ .label = "and a comment that nobody began",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\nVia: 1.1 x)(\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n",
	    .trusted = true },
	{ .label = "a trusted peer that says nothing adds nothing",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n",
	    .trusted = true },
	{ .label = "an IPv6 client is quoted in Forwarded, and plain TCP is http",
	    .in = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION "Via: 1.1 keytrail\r\n"
		    "Forwarded: for=\"[2001:db8::7]\";proto=http\r\n"
		    "X-Forwarded-For: 2001:db8::7\r\nX-Forwarded-Proto: http\r\n\r\n",
	    .plain = true,
	    .client = "2001:db8::7" },
	{ .label = "with \"pass\" the client's Host goes on, once",
	    .in = "GET /a HTTP/1.1\r\nX: 1\r\nhOsT: other.example:444\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: other.example:444\r\nX: 1\r\n" CORRELATION TAIL_PLAIN
		    "\r\n",
	    .pass_host = true },
	{ .label = "with \"pass\" and no Host our own is sent",
	    .in = "GET /a HTTP/1.0\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION "Via: 1.0 keytrail\r\n"
		    "Forwarded: for=192.0.2.7;proto=https\r\nX-Forwarded-For: 192.0.2.7\r\n"
		    "X-Forwarded-Proto: https\r\n\r\n",
	    .pass_host = true },
	{ .label = "with \"pass\" and no Host the authority of the target is sent",
	    .in = "GET https://other.example/a HTTP/1.0\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: other.example\r\n" CORRELATION "Via: 1.0 keytrail\r\n"
		    "Forwarded: for=192.0.2.7;proto=https\r\nX-Forwarded-For: 192.0.2.7\r\n"
		    "X-Forwarded-Proto: https\r\n\r\n",
	    .pass_host = true },
	{ .label = "absolute form without a path stands for /",
	    .in = "GET https://other.example HTTP/1.1\r\nHost: other.example\r\n\r\n",
	    .want = "GET / HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n" },
	{ .label = "but OPTIONS asks all of the server",
	    .in = "OPTIONS https://other.example HTTP/1.1\r\nHost: other.example\r\n\r\n",
	    .want = "OPTIONS * HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n" },
	{ .label = "the authority of an absolute-form target does not reach the key service",
	    .in = "GET https://other.example/a HTTP/1.1\r\nHost: other.example\r\n\r\n",
	    .want = "GET /a HTTP/1.1\r\nHost: kms.example\r\n" CORRELATION TAIL_PLAIN "\r\n" },
};

static void
requests_are_written_afresh(void **state)
{
	char host[] = "kms.example";

	(void)state;
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		const struct request_case *c = &requests[i];
		struct config_upstream upstream = { .host = host, .pass_host = c->pass_host };
		struct rewrite_request r = { .head = &head,
			.upstream = &upstream,
			.correlation_header = SLICE_INIT("Correlation-Id"),
			.correlation = "made-here",
			.client = c->client != NULL ? c->client : "192.0.2.7",
			.trusted_peer = c->trusted,
			.tls = !c->plain };
		struct buf out = BUF_INIT;

		parse_request(c->in);
		assert_int_equal(rewrite_request(&out, &r), 0);
		expect_text(&out, c->label, c->want);
	}
}

/* ---- answers ---- */

static const struct answer_case {
	const char *label, *in, *want;
	bool to_head, close, old_client;
	enum http_framing framing;
} answers[] = {
	{ .label = "fields pass, hop-by-hop ones and framing do not",
	    .in = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
		  "Keep-Alive: timeout=1\r\nCorrelation-Id: c\r\nTrailer: X-Sum\r\n\r\n",
	    .want = "HTTP/1.1 200 OK\r\nCorrelation-Id: c\r\nVia: 1.1 keytrail\r\n"
		    "Content-Length: 2\r\n\r\n",
	    .framing = HTTP_LENGTH },
	{ .label = "what the record rests on passes, whatever Connection says",
	    .in = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Request-Id, X-Hop\r\n"
		  "X-Hop: 1\r\nx-request-id: c\r\n\r\n",
	    .want = "HTTP/1.1 200 OK\r\nx-request-id: c\r\nVia: 1.1 keytrail\r\n"
		    "Content-Length: 2\r\n\r\n",
	    .framing = HTTP_LENGTH },
	{ .label = "but not with a comment that does not end",
	    .in = "HTTP/1.1 200 Fine\r\nVia: 1.1 lb (\r\nContent-Length: 0\r\n\r\n",
	    .want = "HTTP/1.1 200 Fine\r\nVia: 1.1 keytrail\r\nContent-Length: 0\r\n\r\n",
	    .framing = HTTP_LENGTH },
	{ .label = "Via of those before us comes first, whatever the version",
	    .in = "HTTP/1.0 200 Fine\r\nVia: 1.1 lb\r\nContent-Length: 0\r\n\r\n",
	    .want = "HTTP/1.1 200 Fine\r\nVia: 1.1 lb, 1.0 keytrail\r\nContent-Length: 0\r\n\r\n",
	    .framing = HTTP_LENGTH },
	{ .label = "an answer that ends with its connection becomes chunked",
	    .in = "HTTP/1.1 200 OK\r\n\r\n",
	    .want = "HTTP/1.1 200 OK\r\nVia: 1.1 keytrail\r\nTransfer-Encoding: chunked\r\n\r\n",
	    .framing = HTTP_CHUNKED },
	{ .label = "for a client of HTTP/1.0 chunks end with the connection",
	    .in = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	    .want = "HTTP/1.1 200 OK\r\nVia: 1.1 keytrail\r\nConnection: close\r\n\r\n",
	    .framing = HTTP_UNTIL_CLOSE,
	    .close = true,
	    .old_client = true },
	{ .label = "a client of HTTP/1.0 is told that the connection stays",
	    .in = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
	    .want = "HTTP/1.1 200 OK\r\nVia: 1.1 keytrail\r\nContent-Length: 1\r\n"
		    "Connection: keep-alive\r\n\r\n",
	    .framing = HTTP_LENGTH,
	    .old_client = true },
	{ .label = "the answer to HEAD tells a length that is not sent",
	    .in = "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
	    .want = "HTTP/1.1 200 OK\r\nVia: 1.1 keytrail\r\nContent-Length: 12345\r\n\r\n",
	    .to_head = true,
	    .framing = HTTP_NO_BODY },
	{ .label = "304 tells the length of what it does not send",
	    .in = "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
	    .want = "HTTP/1.1 304 Not Modified\r\nVia: 1.1 keytrail\r\nContent-Length: 7\r\n\r\n",
	    .framing = HTTP_NO_BODY },
	{ .label = "an answer without a body and without a length stays so",
	    .in = "HTTP/1.1 204 No Content\r\n\r\n",
	    .want = "HTTP/1.1 204 No Content\r\nVia: 1.1 keytrail\r\n\r\n",
	    .framing = HTTP_NO_BODY },
	{ .label = "a 204 that said its length was 0 says nothing",
	    .in = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
	    .want = "HTTP/1.1 204 No Content\r\nVia: 1.1 keytrail\r\n\r\n",
	    .framing = HTTP_NO_BODY },
	{ .label = "what names another way to the service stays behind, or becomes one to us",
	    .in = "HTTP/1.1 302 Found\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: 0\r\n"
		  "Location: https://kms.example?a\r\n\r\n",
	    .want = "HTTP/1.1 302 Found\r\nLocation: /?a\r\nVia: 1.1 keytrail\r\n"
		    "Content-Length: 0\r\n\r\n",
	    .framing = HTTP_LENGTH },
	{ .label = "an empty reason stays empty",
	    .in = "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
	    .want = "HTTP/1.1 299 \r\nVia: 1.1 keytrail\r\nContent-Length: 0\r\n\r\n",
	    .framing = HTTP_LENGTH },
};

static void
answers_are_written_afresh(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		const struct answer_case *c = &answers[i];
		struct rewrite_response r = { .head = &head,
			.correlation_header = SLICE_INIT("X-Request-Id"),
			.client_minor = c->old_client ? 0 : 1,
			.framing = c->framing,
			.close = c->close,
			.service = SLICE_INIT("kms.example") };
		struct buf out = BUF_INIT;

		parse_answer(c->label, c->in, c->to_head);
		assert_true(rewrite_may_relay(&r));
		assert_int_equal(rewrite_response(&out, &r), 0);
		expect_text(&out, c->label, c->want);
	}
}

static void
a_location_elsewhere_is_not_relayed(void **state)
{
	static const char *const texts[] = {
		"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\n\r\n",
		"HTTP/1.1 201 Created\r\nLocation: /a\r\nLocation: /b\r\n\r\n",
	};
	struct rewrite_response r = { .head = &head, .service = SLICE_INIT("kms.example") };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		parse_answer("elsewhere", texts[i], false);
		assert_false(rewrite_may_relay(&r));
	}
}

/* ---- refusals ---- */

/* The body is an error of Key Protect: metadata, and one resource with one reason. */
static void
check_error_body(struct slice body, const struct refusal_info *info)
{
	json_error_t error;
	json_t *root = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &error);
	const char *type, *message, *code, *text;
	int total, status;
	char wanted[256];

	assert_non_null(root);
	assert_int_equal(
	    json_unpack(root, "{s:{s:s,s:i!},s:[{s:s,s:[{s:s,s:s,s:i!}]!}]!}", "metadata",
		"collectionType", &type, "collectionTotal", &total, "resources", "errorMsg",
		&message, "reasons", "code", &code, "message", &text, "status", &status),
	    0);
	assert_string_equal(type, "application/vnd.ibm.kms.error+json");
	assert_int_equal(total, 1);
	snprintf(wanted, sizeof(wanted), "%s: %s", http_status_phrase(info->status), info->text);
	assert_string_equal(message, wanted);
	assert_string_equal(code, info->code);
	assert_string_equal(text, info->text);
	assert_int_equal(status, info->status);
	json_decref(root);
}

static void
check_field(const char *name, const char *want)
{
	const struct http_field *f = http_head_find(&head, slice_of(name));

	if (want == NULL) {
		assert_null(f);
		return;
	}
	assert_non_null(f);
	assert_true(slice_equal(f->value, slice_of(want)));
	assert_int_equal(http_head_count_name(&head, slice_of(name)), 1);
}

static void
check_refusal(enum http_refusal refusal, bool close, bool head_only, unsigned minor)
{
	const struct refusal_info *info = refusal_info(refusal);
	struct rewrite_refusal r = { .refusal = refusal,
		.correlation_header = SLICE_INIT("Correlation-Id"),
		.correlation = "9f83-f39a",
		.client_minor = minor,
		.close = close,
		.head_only = head_only };
	struct http_scan scan = { 0 };
	struct buf out = BUF_INIT;
	enum http_refusal why;
	size_t used;

	assert_int_equal(rewrite_refusal(&out, &r), 0);
	assert_true(buf_size(&out) <= 1024);
	assert_int_equal(
	    http_parse_response(&scan, buf_slice(&out), &limits, head_only, &head, &used, &why),
	    HTTP_DONE);
	assert_int_equal(head.status, info->status);
	assert_int_equal(head.keep_alive, !close);
	check_field("Content-Type", "application/json");
	check_field("Correlation-Id", "9f83-f39a");
	check_field("Via", "1.1 keytrail");
	check_field("Connection", close ? "close" : minor == 0 ? "keep-alive" : NULL);
	check_field("Retry-After", info->status == 503 ? "1" : NULL);
	check_field(
	    "Allow", info->status == 405 ? "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" : NULL);
	buf_consume(&out, used);
	if (head_only) {
		assert_int_equal(buf_size(&out), 0);
		assert_true(head.length > 0);
	} else {
		assert_int_equal(buf_size(&out), head.length);
		check_error_body(buf_slice(&out), info);
	}
	buf_fini(&out);
}

static void
every_refusal_is_an_error_of_the_key_service(void **state)
{
	(void)state;
	for (enum http_refusal r = REFUSAL_NONE + 1; r < REFUSAL_COUNT; r++)
		for (int bits = 0; bits < 8; bits++)
			check_refusal(r, (bits & 1) != 0, (bits & 2) != 0, (unsigned)bits >> 2);
}

static void
a_refusal_without_a_correlation_names_none(void **state)
{
	struct rewrite_refusal r = { .refusal = REFUSAL_BAD_HOST,
		.correlation_header = SLICE_INIT("Correlation-Id"),
		.correlation = "",
		.close = true };
	struct buf out = BUF_INIT;

	(void)state;
	assert_int_equal(rewrite_refusal(&out, &r), 0);
	assert_int_equal(buf_append(&out, "", 1), 0);
	assert_null(strstr(buf_slice(&out).p, "Correlation-Id"));
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_written_afresh),
		cmocka_unit_test(answers_are_written_afresh),
		cmocka_unit_test(a_location_elsewhere_is_not_relayed),
		cmocka_unit_test(every_refusal_is_an_error_of_the_key_service),
		cmocka_unit_test(a_refusal_without_a_correlation_names_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
