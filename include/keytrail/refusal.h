/*
 * refusal: every reason why keytrail itself answers a request, in one table.
 *
 * The table is code, test and manual at once: a row gives the enum, the HTTP status, the code in
 * the error answer (Key Protect's shape), the metric's label and the sentence.  Texts are fixed,
 * so that no byte of a client comes back in an answer.  Pure; any thread.
 */
#ifndef KEYTRAIL_REFUSAL_H
#define KEYTRAIL_REFUSAL_H

/* X(enum suffix, status, code (also the metric's label, in lower case), sentence) */
#define REFUSAL_TABLE(X)                                                                           \
	X(NONE, 0, "NONE", "not refused")                                                          \
	/* syntax of the message: RFC 9112 */                                                      \
	X(BAD_REQUEST_LINE, 400, "BAD_REQUEST_LINE", "the request line is malformed")              \
	X(BAD_METHOD, 400, "BAD_METHOD", "the method is not a token of RFC 9110")                  \
	X(BAD_VERSION, 400, "BAD_VERSION", "the HTTP version is not 1.0 or 1.1")                   \
	X(BAD_LINE_END, 400, "BAD_LINE_END", "a line does not end in CR LF")                       \
	X(BAD_HEADER, 400, "BAD_HEADER", "a header field is malformed")                            \
	X(OBS_FOLD, 400, "OBS_FOLD", "a header field is folded")                                   \
	X(BAD_HOST, 400, "BAD_HOST", "Host is missing, repeated or malformed")                     \
	X(BAD_CONTENT_LENGTH, 400, "BAD_CONTENT_LENGTH",                                           \
	    "Content-Length is malformed or repeated")                                             \
	X(BAD_TRANSFER_ENCODING, 400, "BAD_TRANSFER_ENCODING",                                     \
	    "Transfer-Encoding is not a single final chunked")                                     \
	X(BAD_FRAMING, 400, "BAD_FRAMING", "Content-Length and Transfer-Encoding together")        \
	X(BAD_CHUNK, 400, "BAD_CHUNK", "the chunked body is malformed")                            \
	X(BAD_TRAILER, 400, "BAD_TRAILER", "a trailer names a field that may not be one")          \
	X(BAD_CONNECTION, 400, "BAD_CONNECTION",                                                   \
	    "Connection names a field that may not be removed")                                    \
	X(BAD_EXPECT, 417, "BAD_EXPECT", "an expectation other than 100-continue")                 \
	X(UPGRADE, 400, "UPGRADE", "protocol upgrades are not supported")                          \
	X(METHOD_NOT_ALLOWED, 405, "METHOD_NOT_ALLOWED", "CONNECT and TRACE are not supported")    \
	X(ALIAS_HEADER, 400, "ALIAS_HEADER", "a header name that others could read as another")    \
	X(REPEATED_HEADER, 400, "REPEATED_HEADER",                                                 \
	    "a header that decides identity or action is repeated or a list")                      \
	X(METHOD_OVERRIDE, 400, "METHOD_OVERRIDE", "method and URL overrides are not supported")   \
	/* the target: DESIGN of the routes */                                                     \
	X(BAD_TARGET, 400, "BAD_TARGET", "the request target is malformed")                        \
	X(AMBIGUOUS_PATH, 400, "AMBIGUOUS_PATH", "the path could be read in two ways")             \
	X(AMBIGUOUS_QUERY, 400, "AMBIGUOUS_QUERY", "the query could be read in two ways")          \
	X(AMBIGUOUS_BODY, 415, "AMBIGUOUS_BODY", "a form body could carry a second action")        \
	X(DENIED, 403, "DENIED", "no route allows this request")                                   \
	/* limits */                                                                               \
	X(HEAD_TOO_LARGE, 431, "HEAD_TOO_LARGE", "the header section is too large")                \
	X(TARGET_TOO_LONG, 414, "TARGET_TOO_LONG", "the request target is too long")               \
	X(BODY_TOO_LARGE, 413, "BODY_TOO_LARGE", "the body is too large")                          \
	X(REQUEST_TIMEOUT, 408, "REQUEST_TIMEOUT", "the request did not arrive in time")           \
	X(TOO_MANY_REQUESTS, 429, "TOO_MANY_REQUESTS", "too many connections or requests")         \
	/* the key service */                                                                      \
	X(UPSTREAM_UNREACHABLE, 502, "UPSTREAM_UNREACHABLE", "the key service cannot be reached")  \
	X(UPSTREAM_UNTRUSTED, 502, "UPSTREAM_UNTRUSTED",                                           \
	    "the key service's certificate cannot be verified")                                    \
	X(UPSTREAM_BROKEN, 502, "UPSTREAM_BROKEN", "the key service closed without an answer")     \
	X(UPSTREAM_MALFORMED, 502, "UPSTREAM_MALFORMED", "the key service's answer is malformed")  \
	X(UPSTREAM_BUSY, 503, "UPSTREAM_BUSY", "no connection to the key service is free")         \
	X(UPSTREAM_TIMEOUT, 504, "UPSTREAM_TIMEOUT", "the key service did not answer in time")     \
	/* ourselves: 503 names the check that failed */                                           \
	X(TRAIL_SLOW, 503, "TRAIL_SLOW", "the audit trail is too slow")                            \
	X(TRAIL_FULL, 503, "TRAIL_FULL", "the audit trail has no room")                            \
	X(TRAIL_FAILED, 503, "TRAIL_FAILED", "the audit trail cannot be written")                  \
	X(OUT_OF_MEMORY, 503, "OUT_OF_MEMORY", "memory is short")                                  \
	X(SHUTTING_DOWN, 503, "SHUTTING_DOWN", "keytrail is stopping")

enum http_refusal {
#define X(name, status, code, text) REFUSAL_##name,
	REFUSAL_TABLE(X)
#undef X
	    REFUSAL_COUNT
};

struct refusal_info {
	unsigned status;
	const char *code;  /* "BAD_HOST" */
	const char *label; /* "bad_host": metrics, reason of the event */
	const char *text;
};

const struct refusal_info *refusal_info(enum http_refusal r);

/* The standard phrase of a status code (RFC 9110 section 15, RFC 4918), or "Status <class>xx". */
const char *http_status_phrase(unsigned status);

#endif
