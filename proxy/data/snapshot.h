/*
 * snapshot: everything a request needs to know that a reload may change: configuration, routes,
 * TLS contexts, the event's profile.
 *
 * Immutable once made, shared by reference count between main and the workers; an exchange keeps
 * the snapshot it began with.
 */
#ifndef KEYTRAIL_PROXY_SNAPSHOT_H
#define KEYTRAIL_PROXY_SNAPSHOT_H

#include "data/tls.h"
#include "keytrail/config.h"
#include "keytrail/metrics.h"
#include "keytrail/parse.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

#define SNAPSHOT_VALIDITIES_MAX (TLSFILE_CLIENT_MAX * (1 + METRICS_SINKS_MAX))

struct snapshot {
	atomic_uint refs;
	const struct config *config;
	struct tls_server *server; /* NULL: plain TCP */
	SSL_CTX *client;	   /* NULL: plain TCP */
	size_t nvalidity;	   /* of the client's files, and the sinks' */
	struct tlsfile_validity validity[SNAPSHOT_VALIDITIES_MAX];
	unsigned *action_metric; /* by a route's action_index: label of its metrics */
	unsigned *route_metric;	 /* by a route's index */
	struct slice correlation_header;
	struct http_limits limits;
	struct event_profile profile;
	char observer[64];
};

/*
 * Read the certificates and freeze; takes a reference on config.  `previous` (or NULL) hands its
 * TLS ticket keys and the log's id on.  Main thread.
 */
struct snapshot *snapshot_new(const struct config *config, const struct snapshot *previous,
    struct metrics *metrics, struct err *err);

/* What a configuration says of every event; borrowed from it and from `observer`.  Any thread. */
struct event_profile snapshot_profile(const struct config *config, const char *observer);

/* The id of the log that events go to; once, before the snapshot is shared. */
void snapshot_set_log(struct snapshot *s, const char *log_id);

/* Any thread. */
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is allowed */

#endif
