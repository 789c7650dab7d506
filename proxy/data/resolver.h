/*
 * resolver: the addresses of the key service, from names and numbers, and which of them work.
 *
 * Names are resolved with evdns (resolv.conf and hosts), never blocking, again every 30 seconds; each
 * is of use as soon as it is found, and what a name led to stays in use while it cannot be resolved.
 * Targets are taken in turn; one that failed is set aside for 10 seconds, unless all are.  Worker's
 * thread.
 */
#ifndef KEYTRAIL_PROXY_RESOLVER_H
#define KEYTRAIL_PROXY_RESOLVER_H

#include "data/worker.h"

#define RESOLVER_TARGETS_MAX 32

struct resolver;

struct resolver_target {
	struct sockaddr_storage address;
	socklen_t len;
	int64_t aside_until; /* monotonic ns */
	uint32_t found_by;   /* the resolver's: which addresses of the configuration led to it */
};

/* `changed` is called when a lookup has ended, well or not; never from within resolver_refresh. */
struct resolver *resolver_new(
    struct worker *w, void (*changed)(void *arg), void *arg, struct err *err);
void resolver_free(struct resolver *r); /* NULL is allowed */

/* Look up all names of the worker's current configuration; where they are others than before, forget
 * what those led to. */
void resolver_refresh(struct resolver *r);

/* An address will be wanted: look up now what memory was too short for. */
void resolver_wake(struct resolver *r);

/* A round of lookups is under way: with no target known yet, wait for `changed`. */
bool resolver_pending(const struct resolver *r);
unsigned resolver_count(const struct resolver *r); /* of known targets */

/* The next target in turn (resolver_count > 0). */
struct resolver_target resolver_next(struct resolver *r);
void resolver_set_aside(struct resolver *r, const struct resolver_target *t);

/* "192.0.2.1:443" for the log. */
#define RESOLVER_TEXT_SIZE 64
void resolver_text(const struct resolver_target *t, char out[RESOLVER_TEXT_SIZE]);

#endif
