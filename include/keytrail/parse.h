/*
 * parse: bytes to heads and bodies of HTTP/1.x, strictly (RFC 9112), without I/O.
 *
 * A head is parsed where it lies: the caller keeps the bytes of one head contiguous (they may move
 * between calls) and calls again with more until it is whole.  Our own scan over the raw bytes
 * comes first (line ends, characters, names, framing), then llhttp in strict mode reads the same
 * bytes; a message is accepted only when both agree.  Pure; one parser is used by one thread at a
 * time.
 *
 * Bytes are judged from left to right, and a head is refused at the first byte that no legal head
 * could have there or that is over a limit; what concerns several fields is judged when the head
 * is whole.  The verdict does not depend on how the bytes were cut.  Limits may change between two
 * calls for one head: what is over those of the later call is refused then.
 *
 * Stricter than RFC 9112 asks: methods are those of RFC 9110 and PATCH; obs-text (0x80 to 0xff) is
 * refused in a request's field values and in trailers, and passed in an answer; Content-Length has
 * no leading zeros and is below 2^63; no tab stands beside the value of Content-Length or
 * Transfer-Encoding; Host is an address or a name of letters, digits, '-', '_' and '.', with a port
 * from 1 to 65535, never empty; Connection has at most HTTP_OPTIONS_MAX options in
 * HTTP_OPTIONS_BYTES; chunk extensions have no white space outside of quotes.  More lenient in one
 * point: a status line may lack the space before its empty reason.
 */
#ifndef KEYTRAIL_PARSE_H
#define KEYTRAIL_PARSE_H

#include "keytrail/head.h"
#include "keytrail/refusal.h"

enum http_result {
	HTTP_MORE, /* nothing wrong so far, needs more bytes */
	HTTP_DONE,
	HTTP_BAD, /* *refusal says why; never retry */
};

struct http_limits {
	size_t head;	 /* bytes of the whole head (start line, fields, empty line) */
	size_t target;	 /* bytes of a request target */
	unsigned fields; /* at most HTTP_FIELDS_MAX */
};

#define HTTP_OPTIONS_MAX   32
#define HTTP_OPTIONS_BYTES 1024 /* of all Connection fields, each with a comma */

/* Remembers how far a head has been scanned, so that slow arrival is not quadratic.  Zero it (or
 * call http_scan_reset) before each head. */
struct http_scan {
	unsigned scanned;
	unsigned token; /* where the token that is being scanned begins */
	unsigned short state;
	unsigned short fields;
};

static inline void
http_scan_reset(struct http_scan *s)
{
	*s = (struct http_scan){ 0 };
}

/*
 * Parse a request head at the beginning of `in`.  On HTTP_DONE *out is filled and *used is the
 * length of the head; on HTTP_BAD *refusal is set.  Leading empty lines are not skipped.
 */
enum http_result http_parse_request(struct http_scan *scan, struct slice in,
    const struct http_limits *limits, struct http_head *out, size_t *used,
    enum http_refusal *refusal);

/*
 * The same for an answer; the one refusal is UPSTREAM_MALFORMED.  `to_head` is true when the
 * request was a HEAD (then there is no body whatever the fields say); 1xx, 204 and 304 have none
 * either.  `length` keeps what Content-Length said.
 */
enum http_result http_parse_response(struct http_scan *scan, struct slice in,
    const struct http_limits *limits, bool to_head, struct http_head *out, size_t *used,
    enum http_refusal *refusal);

/* Do servers take a field of this name for where a request came from (X-Forwarded-..., X-Real-IP,
 * True-Client-IP, ...), under CGI's rules if need be? */
bool http_is_claim_of_origin(struct slice name);

#define HTTP_TRAILERS_MAX 4096 /* bytes of a trailer section, with the options of Connection */

/* The body of one message: where its content lies between the framing bytes. */
struct http_body {
	enum http_framing framing;
	uint64_t left;	/* of the length, or of the current chunk */
	uint64_t total; /* content bytes handed out so far */
	unsigned state; /* of the chunked decoder */
	unsigned count; /* bytes of the current framing element */
	size_t options_len, trailers_len;
	size_t section_len; /* as it came: what is left out of it counts too */
	/* "option,"... of Connection, "Name: value\r\n"..., checked, then the open line */
	char trailers[HTTP_TRAILERS_MAX];
};

void http_body_init(struct http_body *b, enum http_framing framing, uint64_t length);
/* The body that follows a head, which is not needed afterwards: trailers that its Connection names
 * are hop-by-hop, as fields are, and left out. */
void http_body_follow(struct http_body *b, const struct http_head *h);
/* Wipe what it keeps of the message. */
void http_body_fini(struct http_body *b);

enum http_body_result {
	HTTP_BODY_MORE, /* all of *in was framing and is consumed; needs more bytes */
	HTTP_BODY_DATA, /* *data is content, borrowed from *in; call again */
	HTTP_BODY_END,	/* the body is complete; what is left of *in belongs to the next message */
	HTTP_BODY_BAD,	/* *refusal: BAD_CHUNK or BAD_TRAILER; never call again */
};

/*
 * Take the next piece out of *in, which is advanced past what was consumed.  Chunk extensions are
 * read (up to 256 bytes a chunk) and dropped.  HTTP_UNTIL_CLOSE never ends by itself.  A trailer
 * that names framing, routing, authentication or any other field of HTTP_FIELD_TABLE, or could be taken
 * for such a one, is bad.
 */
enum http_body_result http_body_next(
    struct http_body *b, struct slice *in, struct slice *data, enum http_refusal *refusal);

/* Has the body been read to its end (true at once where there is none)? */
bool http_body_done(const struct http_body *b);

/* The trailer section, "Name: value\r\n" lines safe to forward; empty where there is none. */
struct slice http_body_trailers(const struct http_body *b);

#endif
