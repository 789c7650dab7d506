/*
 * refusal: every reason why keytrail itself answers a request, in one table.
 *
 * The table is code, test and manual at once: a row gives the enum, the HTTP status, the code in
 * the error answer (Key Protect's shape), the metric's label and the sentence.  Texts are fixed,
 * so that no byte of a client comes back in an answer.  Pure; any thread.
 */
#ifndef KEYTRAIL_REFUSAL_H
#define KEYTRAIL_REFUSAL_H

/* X(enum suffix and code, status, the metric's label: the code in lower case, sentence) */
#define REFUSAL_TABLE(X)                                                                           \
	X(NONE, 0, "none", "not refused")                                                          \
	/* syntax of the message: RFC 9112 */                                                      \
	X(BAD_REQUEST_LINE, 400, "bad_request_line", "the request line is malformed")              \
	X(BAD_METHOD, 400, "bad_method", "the method is none of RFC 9110, nor PATCH")              \
	X(BAD_VERSION, 400, "bad_version", "the HTTP version is not 1.0 or 1.1")                   \
	X(BAD_LINE_END, 400, "bad_line_end", "a line does not end in CR LF")                       \
	X(BAD_HEADER, 400, "bad_header", "a header field is malformed")                            \
	X(OBS_FOLD, 400, "obs_fold", "a header field is folded")                                   \
	X(BAD_HOST, 400, "bad_host", "Host is missing, repeated, malformed or not the target's")   \
	X(BAD_CONTENT_LENGTH, 400, "bad_content_length",                                           \
	    "Content-Length is malformed or repeated")                                             \
	X(BAD_TRANSFER_ENCODING, 400, "bad_transfer_encoding",                                     \
	    "Transfer-Encoding is not a single final chunked")                                     \
	X(BAD_FRAMING, 400, "bad_framing", "Content-Length and Transfer-Encoding together")        \
	X(BAD_CHUNK, 400, "bad_chunk", "the chunked body is malformed")                            \
	X(BAD_TRAILER, 400, "bad_trailer", "a trailer is malformed or may not be one")             \
	X(BAD_CONNECTION, 400, "bad_connection",                                                   \
	    "Connection is malformed or names a field that may not be removed")                    \
	X(BAD_EXPECT, 417, "bad_expect", "an expectation other than 100-continue")                 \
	X(UPGRADE, 400, "upgrade", "protocol upgrades are not supported")                          \
	X(METHOD_NOT_ALLOWED, 405, "method_not_allowed", "CONNECT and TRACE are not supported")    \
	X(ALIAS_HEADER, 400, "alias_header", "a header name that others could read as another")    \
	X(REPEATED_HEADER, 400, "repeated_header",                                                 \
	    "a header that decides identity or action is repeated or a list")                      \
	X(METHOD_OVERRIDE, 400, "method_override", "a method or URL override that no route names") \
	/* the target */                                                                           \
	X(BAD_TARGET, 400, "bad_target", "the request target is malformed")                        \
	X(AMBIGUOUS_PATH, 400, "ambiguous_path", "the path could be read in two ways")             \
	X(AMBIGUOUS_QUERY, 400, "ambiguous_query", "the query could be read in two ways")          \
	X(AMBIGUOUS_HEADER, 400, "ambiguous_header",                                               \
	    "a header that decides the action has a value that no route of the path names")        \
	X(AMBIGUOUS_BODY, 415, "ambiguous_body",                                                   \
	    "a body that may be read as a form could carry another method or action")              \
	X(UNEXPECTED_BODY, 400, "unexpected_body", "a GET, HEAD or OPTIONS with a body")           \
	X(AFTER_CLOSE, 400, "after_close",                                                         \
	    "more came after the connection's last request (recorded, not answered)")              \
	X(MISDIRECTED, 421, "misdirected", "the connection's certificate is not for this host")    \
	X(DENIED, 403, "denied", "no route allows this request")                                   \
	/* limits */                                                                               \
	X(HEAD_TOO_LARGE, 431, "head_too_large", "the header section is too large")                \
	X(TARGET_TOO_LONG, 414, "target_too_long", "the request target is too long")               \
	X(BODY_TOO_LARGE, 413, "body_too_large", "the body is too large")                          \
	X(TOO_MANY_REQUESTS, 429, "too_many_requests", "the source sends too many requests")       \
	X(REQUEST_TIMEOUT, 408, "request_timeout", "the request did not arrive in time")           \
	X(LIFETIME, 408, "lifetime", "the connection's lifetime ended amid the request")           \
	X(CLIENT_GONE, 400, "client_gone",                                                         \
	    "the client left before its request was forwarded whole (recorded, not answered)")     \
	/* the key service */                                                                      \
	X(UPSTREAM_UNREACHABLE, 502, "upstream_unreachable", "the key service cannot be reached")  \
	X(UPSTREAM_UNTRUSTED, 502, "upstream_untrusted",                                           \
	    "the key service's certificate cannot be verified")                                    \
	X(UPSTREAM_BROKEN, 502, "upstream_broken", "the key service closed without an answer")     \
	X(UPSTREAM_MALFORMED, 502, "upstream_malformed", "the key service's answer is malformed")  \
	X(UPSTREAM_REDIRECT, 502, "upstream_redirect",                                             \
	    "the key service's answer leads to another authority")                                 \
	X(UPSTREAM_BUSY, 503, "upstream_busy", "no connection to the key service is free")         \
	X(UPSTREAM_TIMEOUT, 504, "upstream_timeout",                                               \
	    "the key service took or answered the request too slowly")                             \
	X(UPSTREAM_CHANGED, 503, "upstream_changed",                                               \
	    "a reload changed the key service before the request was forwarded")                   \
	/* ourselves: 503 names the check that failed */                                           \
	X(TRAIL_SLOW, 503, "trail_slow", "the audit trail is too slow")                            \
	X(TRAIL_FULL, 503, "trail_full", "the audit trail has no room")                            \
	X(TRAIL_FAILED, 503, "trail_failed", "the audit trail cannot be written")                  \
	X(OUT_OF_MEMORY, 503, "out_of_memory", "memory is short")                                  \
	X(SHUTDOWN, 503, "shutdown",                                                               \
	    "keytrail stopped before the request was answered (recorded, not answered)")

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

/* Who is refused in the handshake, without a status, code or answer: X(enum suffix, label, sentence) */
#define REFUSAL_CLIENTS(X)                                                                         \
	X(CERTIFICATE, "client_certificate",                                                       \
	    "the client has no certificate, where it must, or one that is not good")               \
	X(REVOKED, "client_revoked", "the client's certificate is revoked")

enum refusal_client {
#define X(name, label, text) REFUSAL_CLIENT_##name,
	REFUSAL_CLIENTS(X)
#undef X
	    REFUSAL_CLIENT_COUNT
};

const struct refusal_info *refusal_client_info(enum refusal_client r);

/* The standard phrase of a status code (RFC 9110 section 15, RFC 4918), or "Status <class>xx". */
const char *http_status_phrase(unsigned status);

#endif
