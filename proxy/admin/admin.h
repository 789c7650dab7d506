/*
 * admin: the HTTP listeners of the sidecar's own: `metrics`, and `admin` with address and socket.
 *
 *   metrics        /metrics /livez /readyz            for Prometheus and the kubelet; no details
 *   admin.address  the same, /readyz?verbose /status  a bearer token, or a loopback address
 *                  /events (events.h)
 *                  / (dashboard.h)    without a token
 *   admin.socket   the same, and operators' calls     mode 0600; SO_PEERCRED says who calls
 *
 * /metrics is text format 0.0.4, or OpenMetrics 1.0 where `Accept` prefers it.  Only GET and HEAD,
 * but for operators' calls, which are POST with a form (application/x-www-form-urlencoded, at most
 * 4 KiB).  On the admin listeners `Host` must be localhost, a loopback address, the bound address (any
 * IP address where it is bound to all) or one of `admin.hosts`, `Origin` and `Sec-Fetch-Site` must not
 * be another site's (but for a link to the dashboard), and the token, where the configuration has any,
 * must be one of them; they are compared in constant time, and wrong ones are limited by source
 * (attempts.h).  No answer holds a byte of the request.  Heads are at most 8 KiB, there are no other
 * bodies, and five seconds of silence close a connection, and so does an age of five minutes; each
 * listener has 64 (visitors.h).
 *
 * Main thread, on its event_base (evhttp).
 */
#ifndef KEYTRAIL_ADMIN_H
#define KEYTRAIL_ADMIN_H

#include "admin/health.h"
#include "keytrail/config.h"
#include "keytrail/metrics.h"
#include "keytrail/trail.h"

#include <sys/types.h>

struct event_base;
struct admin;

/* Who calls over the socket, as the kernel says. */
struct admin_peer {
	uid_t uid;
	pid_t pid;
	char name[33]; /* of /etc/passwd; "uid:<number>" where that has none */
};

/* An operator's call. */
struct admin_call {
	const char *path;   /* "/degrade" */
	const char *socket; /* over which it came */
	struct admin_peer peer;
	const struct admin_form *form;
};

/* The first value of a field of the form, or NULL. */
const char *admin_call_get(const struct admin_call *call, const char *name);

/* A query of the trail that was let in, or requests that were not. */
struct admin_access {
	const char *page;    /* "/events" */
	const char *token;   /* its name, "admin.token", or "none" where none is asked for */
	const char *role;    /* "viewer" or "operator", as over the socket */
	const char *address; /* of the client, or "unix" */
	const char *filter;  /* names of the parameters, no values */
	uint64_t refused; /* so many; then there are `address`, or "others", and `reason` alone */
	const char *reason;
};

enum { ADMIN_METRICS, ADMIN_ADDRESS, ADMIN_SOCKET, ADMIN_LISTENERS };

struct admin_opts {
	struct event_base *base;
	const int *given; /* NULL, or listening descriptors of which copies are used; -1: bind */
	struct metrics *metrics;
	struct metrics_shard *shard; /* the main thread's */
	struct log *log;
	int trail_dirfd;
	uint64_t keep_free;			   /* as for reader_start */
	const struct config *(*config)(void *arg); /* the one in force: tokens, hosts */
	void (*refresh)(void *arg);		   /* set gauges, before a scrape */
	/* Fill at most max checks; how many there are. */
	size_t (*checks)(void *arg, struct health_check *out, size_t max);
	/* Append members of the status object, with commas between them, to what is of the
	 * listeners themselves.  full_s: until the trail is, or INFINITY.  -1: memory is short. */
	int (*status)(void *arg, double full_s, struct buf *json_members);
	/* The whole of /routes.  -1: memory is short. */
	int (*routes)(void *arg, struct buf *json);
	/* Do what an operator asks; `text`: what was done, or why it was not.  The HTTP status. */
	unsigned (*operate)(void *arg, const struct admin_call *call, struct buf *text);
	/* A query met damage in the trail; on any thread. */
	trail_corrupt_fn corrupt;
	/* Record it (keytrail.access).  What was refused: at most nine times a minute. */
	void (*access)(void *arg, const struct admin_access *access);
	void *arg;
};

/* Listen as the configuration says (every listener, some or none).  Errors name the address. */
int admin_start(const struct admin_opts *opts, struct admin **out, struct err *err);
void admin_free(struct admin *a); /* NULL is allowed */
/* The same, but the listeners stay: copies of their descriptors are in fds (-1: there is none), and the
 * socket has its file.  -1: nothing has changed. */
int admin_give(struct admin *a, int fds[ADMIN_LISTENERS], struct err *err);

/* Record those that were refused since it was done last.  NULL is allowed. */
void admin_tell_refused(struct admin *a);

#endif
