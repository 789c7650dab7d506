/*
 * head: the parsed head of one HTTP/1.x message (RFC 9110, RFC 9112).
 *
 * All slices point into the bytes that were parsed and live as long as those (the path "/" of an
 * absolute-form target without one is static).  A head that parse handed out obeys the strict
 * grammar: one reading, no folding, framing decided.
 */
#ifndef KEYTRAIL_HEAD_H
#define KEYTRAIL_HEAD_H

#include "keytrail/slice.h"

#define HTTP_FIELDS_MAX 128

/* Fields that the proxy itself looks at; everything else is HTTP_F_OTHER. X(suffix, name) */
#define HTTP_FIELD_TABLE(X)                                                                        \
	X(OTHER, "")                                                                               \
	X(ALT_SVC, "alt-svc")                                                                      \
	X(AUTHORIZATION, "authorization")                                                          \
	X(BLUEMIX_INSTANCE, "bluemix-instance")                                                    \
	X(CONNECTION, "connection")                                                                \
	X(CONTENT_ENCODING, "content-encoding")                                                    \
	X(CONTENT_LENGTH, "content-length")                                                        \
	X(CONTENT_TYPE, "content-type")                                                            \
	X(CORRELATION_ID, "correlation-id")                                                        \
	X(DATE, "date")                                                                            \
	X(EXPECT, "expect")                                                                        \
	X(FORWARDED, "forwarded")                                                                  \
	X(HOST, "host")                                                                            \
	X(HTTP2_SETTINGS, "http2-settings")                                                        \
	X(KEEP_ALIVE, "keep-alive")                                                                \
	X(LOCATION, "location")                                                                    \
	X(PREFER, "prefer")                                                                        \
	X(PROXY_AUTHENTICATE, "proxy-authenticate")                                                \
	X(PROXY_AUTHORIZATION, "proxy-authorization")                                              \
	X(PROXY_CONNECTION, "proxy-connection")                                                    \
	X(TE, "te")                                                                                \
	X(TRAILER, "trailer")                                                                      \
	X(TRANSFER_ENCODING, "transfer-encoding")                                                  \
	X(UPGRADE, "upgrade")                                                                      \
	X(USER_AGENT, "user-agent")                                                                \
	X(VIA, "via")                                                                              \
	X(X_FORWARDED_FOR, "x-forwarded-for")                                                      \
	X(X_FORWARDED_HOST, "x-forwarded-host")                                                    \
	X(X_FORWARDED_PROTO, "x-forwarded-proto")                                                  \
	X(X_HTTP_METHOD, "x-http-method")                                                          \
	X(X_HTTP_METHOD_OVERRIDE, "x-http-method-override")                                        \
	X(X_HTTP_REQUEST, "x-http-request")                                                        \
	X(X_KMS_KEY_RING, "x-kms-key-ring")                                                        \
	X(X_METHOD_OVERRIDE, "x-method-override")                                                  \
	X(X_ORIGINAL_URL, "x-original-url")                                                        \
	X(X_REWRITE_URL, "x-rewrite-url")

enum http_field_id {
#define X(suffix, name) HTTP_F_##suffix,
	HTTP_FIELD_TABLE(X)
#undef X
	    HTTP_F_COUNT
};

_Static_assert(HTTP_F_COUNT <= 64, "a set of field ids fits in 64 bits");
#define HTTP_F_SET(id) (UINT64_C(1) << (id))

struct http_field {
	struct slice name;  /* as it came */
	struct slice value; /* without OWS around it */
	enum http_field_id id;
	bool hop; /* hop-by-hop: not forwarded (RFC 9110 section 7.6.1) */
};

enum http_framing {
	HTTP_NO_BODY,
	HTTP_LENGTH, /* `length` bytes, may be 0 */
	HTTP_CHUNKED,
	HTTP_UNTIL_CLOSE, /* answers only */
};

struct http_head {
	/* a request's */
	struct slice method, target;
	struct slice authority; /* of an absolute-form target, else empty */
	struct slice path;	/* raw, begins with '/'; "*" for OPTIONS * */
	struct slice query;	/* raw, without '?' */
	bool has_query;
	/* an answer's */
	unsigned status;
	struct slice reason;
	/* both */
	unsigned minor;	 /* HTTP/1.minor: 0 or 1 */
	bool keep_alive; /* may the connection carry another message after this one */
	bool expect_continue;
	enum http_framing framing;
	uint64_t length;
	bool alias;		    /* a field's name holds a byte that others might read as '-' */
	uint64_t present, repeated; /* which ids fields have, which of them more than one has */
	unsigned nfields;
	struct http_field fields[HTTP_FIELDS_MAX];
	/* index + 1 of the first field of each known id; 0 when there is none */
	uint8_t first[HTTP_F_COUNT];
};

/* One more field, its value empty, where there is room: what the head knows of ids is kept up. */
struct http_field *http_head_add(struct http_head *h, struct slice name);

/* The first field with this id, or NULL. */
static inline const struct http_field *
http_head_field(const struct http_head *h, enum http_field_id id)
{
	return h->first[id] != 0 ? &h->fields[h->first[id] - 1] : NULL;
}

/* Does a request bring a body?  One in chunks may turn out empty. */
static inline bool
http_head_has_body(const struct http_head *h)
{
	return h->framing == HTTP_CHUNKED || (h->framing == HTTP_LENGTH && h->length > 0);
}

/* Whom a request is for: its Host, else its target's authority; empty when it has neither. */
struct slice http_head_host(const struct http_head *h);

/* How many fields have this id / this name (ASCII case ignored). */
unsigned http_head_count(const struct http_head *h, enum http_field_id id);
unsigned http_head_count_name(const struct http_head *h, struct slice name);

/* The first field with this name (for names of the configuration), or NULL. */
const struct http_field *http_head_find(const struct http_head *h, struct slice name);

enum http_field_id http_field_id(struct slice name);

#endif
