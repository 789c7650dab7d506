/*
 * location: does Location of an answer lead a client past us?
 *
 * A client that followed it would call the key service without a record, or somebody else with its
 * token.  What names the key service's authority is turned into a reference to ours, which is one
 * without scheme and authority (RFC 3986 section 4.2); a relative reference stays as it is.
 * Refused: any other authority or scheme, and bytes that RFC 3986 does not allow, which clients
 * read in different ways ("https:/\example.org").  Pure; any thread.
 */
#ifndef KEYTRAIL_PROXY_LOCATION_H
#define KEYTRAIL_PROXY_LOCATION_H

#include "keytrail/slice.h"

/*
 * False: refused.  Else what to write is "/" if *rooted, and *rest, borrowed from `value`.
 * `service` and `client` are the authorities that mean us: Host towards the key service, and Host
 * of the client's request (may be empty).  The default port of the scheme may be told or not.
 */
bool location_rewrite(struct slice value, struct slice service, struct slice client, bool *rooted,
    struct slice *rest);

#endif
