/*
 * admin: the two HTTP listeners of the sidecar's own: `metrics` and `admin`.
 *
 *   metrics  /metrics /livez /readyz            for Prometheus and the kubelet; no details
 *   admin    the same, /readyz?verbose /status  loopback or a Unix socket, and a bearer token
 *
 * /metrics is text format 0.0.4, or OpenMetrics 1.0 where `Accept` prefers it.  Only GET and HEAD.
 * On the admin listener `Host` must be localhost, a loopback address or the bound address (any IP
 * address where it is bound to all), `Origin` and `Sec-Fetch-Site` must not be another site's, and
 * the token, where the configuration has one, is compared in constant time.  No answer holds a byte
 * of the request.  Heads are at most 8 KiB, there are no bodies, and five seconds of silence close
 * a connection.
 *
 * Main thread, on its event_base (evhttp).
 */
#ifndef KEYTRAIL_ADMIN_H
#define KEYTRAIL_ADMIN_H

#include "admin/health.h"
#include "keytrail/config.h"
#include "keytrail/metrics.h"

struct event_base;
struct admin;

struct admin_opts {
	struct event_base *base;
	struct metrics *metrics;
	struct log *log;
	const struct config *(*config)(void *arg); /* the one in force: the token */
	void (*refresh)(void *arg);		   /* set gauges, before a scrape */
	/* Fill at most max checks; how many there are. */
	size_t (*checks)(void *arg, struct health_check *out, size_t max);
	/* Append members of the status object, with commas between them.  `configPath`, `requests`
	 * and `upstream` are there already. */
	void (*status)(void *arg, struct buf *json_members);
	void *arg;
};

/* Listen as the configuration says (one listener, both or none).  Errors name the address. */
int admin_start(const struct admin_opts *opts, struct admin **out, struct err *err);
void admin_free(struct admin *a); /* NULL is allowed */

#endif
