/*
 * peers: what each source of connections has and takes, so that one cannot take it all.
 *
 * A source is an IPv4 address or an IPv6 /64, which is what one host is given (RFC 6177).  It has
 * open connections, requests and recorded refusals; the latter two are measured by the generic cell
 * rate algorithm (ITU-T I.371): one time stamp each, and a burst of one second's worth.
 *
 * The table is shared by main and the workers.  A peer is found under a lock, once a connection; all
 * else is atomic.  A peer that nobody holds is forgotten when its rates have recovered, so that
 * connecting anew does not win anything back.
 */
#ifndef KEYTRAIL_PROXY_PEERS_H
#define KEYTRAIL_PROXY_PEERS_H

#include "keytrail/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PEERS_MAX 65536 /* sources that are remembered at a time */

struct peers;
struct peer;

struct peers *peers_new(struct err *err);
void peers_free(struct peers *p); /* NULL is allowed; no peer may be held any more */

/* The peer of an address (IPv4 as ::ffff:a.b.c.d), to be dropped; NULL when PEERS_MAX are held
 * (errno ENOSPC) or memory is short (ENOMEM).  now: monotonic ns.  Any thread, as all of these. */
struct peer *peers_hold(struct peers *p, const unsigned char address[16], int64_t now);
void peers_drop(struct peers *p, struct peer *peer);

/* Open one more connection, if there are fewer than `limit` (0: no limit). */
bool peer_connect(struct peer *peer, unsigned limit);
void peer_disconnect(struct peer *peer);

/* One more request, or refusal, within `rate` a second (0: no limit)? */
bool peer_may_request(struct peer *peer, unsigned rate, int64_t now);
bool peer_may_record(struct peer *peer, unsigned rate, int64_t now);

/* The source of an address: all of an IPv4 one (true), mapped into IPv6 as it is, or an IPv6 host's /64. */
bool peers_source(const unsigned char address[16], unsigned char out[16]);

/* The same as text: "192.0.2.1", "2001:db8::/64". */
#define PEERS_TEXT_SIZE 50
void peers_source_text(const unsigned char address[16], char out[PEERS_TEXT_SIZE]);

/* Which of PEERS_BUCKETS an address's source falls into; nobody outside may choose who else does. */
#define PEERS_BUCKETS 16384
unsigned peers_bucket(const struct peers *p, const unsigned char address[16]);

/* How many are remembered, and with how many of them one that is looked for may be compared. */
unsigned peers_count(struct peers *p);
unsigned peers_longest(struct peers *p);

#endif
