/*
 * rewrite: message heads written afresh from their parsed parts.
 *
 * Nothing of the bytes that came in is copied but the method, path, query, status, field names and
 * values that http_parse vouched for.  Hop-by-hop fields stay behind (RFC 9110 section 7.6.1),
 * framing is written by us, Via, Forwarded (RFC 7239) and X-Forwarded-* are ours; other claims of
 * origin (X-Real-IP, True-Client-IP, ...) go on from a trusted peer alone.  A request's body has a
 * type, by default RFC 9110 section 8.3's application/octet-stream.  Pure.
 */
#ifndef KEYTRAIL_PROXY_REWRITE_H
#define KEYTRAIL_PROXY_REWRITE_H

#include "keytrail/buf.h"
#include "keytrail/config.h"
#include "keytrail/head.h"
#include "keytrail/refusal.h"

struct rewrite_request {
	const struct http_head *head;
	const struct config_upstream *upstream;
	struct slice correlation_header; /* name, added with `correlation` when the head has none */
	const char *correlation;
	const char *client; /* numeric address of the connection's peer */
	bool trusted_peer;  /* what it says in Via, Forwarded and X-Forwarded-* is kept; but no list
			     * whose quotes or comments might reach into what we add */
	bool tls;	    /* between the client and us */
};

/* -1 when memory is short. */
int rewrite_request(struct buf *out, const struct rewrite_request *r);

struct rewrite_response {
	const struct http_head *head;
	struct slice correlation_header; /* name; the field is passed whatever Connection says */
	unsigned client_minor;		 /* HTTP/1.minor of the request */
	enum http_framing framing;	 /* of the body towards the client */
	bool close;
	struct slice service, client; /* the authorities that mean us: location.h */
};

/* False: Location leads elsewhere, or is there twice; the answer may not be relayed. */
bool rewrite_may_relay(const struct rewrite_response *r);

/* -1 when memory is short.  Alt-Svc stays behind: it names a way past us. */
int rewrite_response(struct buf *out, const struct rewrite_response *r);

/* Our own answer in the key service's error shape.  `head_only`: the request was a HEAD. */
struct rewrite_refusal {
	enum http_refusal refusal;
	struct slice correlation_header;
	const char *correlation; /* fits its grammar */
	unsigned client_minor;
	bool close, head_only;
};

int rewrite_refusal(struct buf *out, const struct rewrite_refusal *r);

#endif
