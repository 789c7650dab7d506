/*
 * sink_http_secret: headers of a request whose value is in a file.
 *
 * The file is read for each request, since it may have been replaced; what was read of it is wiped.
 */
#ifndef KEYTRAIL_SINK_HTTP_SECRET_H
#define KEYTRAIL_SINK_HTTP_SECRET_H

#include "keytrail/buf.h"
#include "sink_http_exchange.h"

/* What a header can hold (RFC 9110 section 5.5), and nothing that ends it. */
bool http_fits_header(struct slice s);

/* The line that the file is, if a header can hold it. */
int http_read_secret(const char *file, struct buf *out, struct err *err);

struct http_credential {
	const char *name;   /* of the header */
	const char *scheme; /* before the secret, or "" */
	const char *user;   /* of "Basic", or NULL */
	const char *file;   /* NULL: there is none, nothing is added */
};

/* Add it to the next request; `url` is for errors. */
int http_add_credential(
    struct exchange *x, const struct http_credential *c, const char *url, struct err *err);

#endif
