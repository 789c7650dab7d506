/*
 * origin: which address a request came from.
 *
 * The peer of the connection, unless that is in a trusted network: then the rightmost address of
 * X-Forwarded-For that is in none.  Anything that does not parse ends the search.  Pure.
 */
#ifndef KEYTRAIL_PROXY_ORIGIN_H
#define KEYTRAIL_PROXY_ORIGIN_H

#include "keytrail/config.h"
#include "keytrail/head.h"

#include <sys/socket.h>

#define ORIGIN_TEXT_SIZE 46 /* INET6_ADDRSTRLEN */

struct origin {
	unsigned char address[16]; /* IPv4 as ::ffff:a.b.c.d; a Unix socket's is zero */
};

/* Of a peer's socket address. */
void origin_of_peer(const struct sockaddr_storage *peer, struct origin *out);

/* In one form whatever the peer wrote, so that events can be compared; "" where there is none. */
void origin_text(const struct origin *o, char out[ORIGIN_TEXT_SIZE]);

/* True when *out is another than the peer's: taken from X-Forwarded-For. */
bool origin_of_request(const struct config *config, const struct origin *peer,
    const struct http_head *head, struct origin *out);

#endif
