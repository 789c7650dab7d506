/*
 * tickets: the keys that seal TLS session tickets (RFC 5077 section 4, RFC 8446 section 4.6.1).
 *
 * Shared by reference count between all contexts, workers and reloads, so that a session is resumed
 * on any of them.  A key seals for TICKETS_LIFETIME_S and opens for as long again: no ticket that is
 * still good is sealed by a key that is gone.  Keys never leave the process's memory and are wiped
 * when they are dropped.
 *
 * Any thread.  `now`: any clock that never goes back, in seconds.
 */
#ifndef KEYTRAIL_PROXY_TICKETS_H
#define KEYTRAIL_PROXY_TICKETS_H

#include "keytrail/err.h"

#include <stdint.h>

#define TICKETS_LIFETIME_S 7200	 /* of a session, too */
#define TICKETS_CHAIN_S	   43200 /* of all that are resumed from one another */

struct tickets;

struct ticket_key {
	unsigned char name[16]; /* tells keys apart; goes over the wire */
	unsigned char cipher[32];
	unsigned char mac[32];
};

enum ticket_age { TICKET_UNKNOWN, TICKET_CURRENT, TICKET_OLD };

struct tickets *tickets_new(int64_t now, struct err *err);
struct tickets *tickets_ref(struct tickets *t);
void tickets_unref(struct tickets *t); /* NULL is allowed */

/* A copy of the key to seal with, for the caller to wipe; -1 when no random bytes are to be had. */
int tickets_seal_key(struct tickets *t, int64_t now, struct ticket_key *out);

/* The same of the key by its name, to open with.  TICKET_OLD: seal the session anew. */
enum ticket_age tickets_open_key(
    struct tickets *t, const unsigned char name[16], int64_t now, struct ticket_key *out);

#endif
