/*
 * admin_internal: what the files of module admin share.
 *
 * admin.c is the listeners, admin_request.c what is done with a request, admin_guard.c who may ask,
 * admin_refused.c what becomes of who may not, admin_pages.c the pages, admin_negotiate.c the format of
 * the metrics, admin_socket.c the Unix socket and who is at its other end.
 */
#ifndef KEYTRAIL_PROXY_ADMIN_INTERNAL_H
#define KEYTRAIL_PROXY_ADMIN_INTERNAL_H

#include "admin/admin.h"
#include "admin/attempts.h"
#include "admin/visitors.h"

#include <event2/event_struct.h>

#define ADMIN_FORM_MAX 4096

struct evhttp;
struct evhttp_request;
struct events;
struct history;

/* One listener. */
struct admin_door {
	struct admin *admin;
	struct evhttp *http;
	bool guarded;  /* of the administration */
	bool operates; /* the Unix socket: calls that change something */
	char *host;    /* as bound; NULL for the socket */
	struct visitors visitors;
};

/* What was refused of one address for one reason. */
struct admin_refusal {
	char address[64];
	enum metric_admin_refusal why;
	uint64_t count; /* not recorded yet */
};

struct admin_refused {
	struct admin_refusal all[8]; /* who was recorded of late */
	unsigned n;
	struct admin_refusal others; /* who came when these were taken */
	struct event timer;
};

struct admin {
	struct admin_opts opts;
	struct admin_door metrics, admin, socket;
	struct events *events;
	struct history *history;
	struct event step; /* of it */
	char *socket_path;
	struct attempts attempts;
	struct admin_refused refused;
};

/* For evhttp_set_gencb; arg: the door. */
void admin_on_request(struct evhttp_request *req, void *arg);

/* A request that is looked at, or answered by a page; all borrowed for this turn of the loop. */
struct admin_ask {
	struct admin_door *door;
	struct evhttp_request *req;
	const char *token, *role, *address; /* who asks, as admin_access has it */
	bool open;			    /* for a page that is for everybody */
};

struct admin_page {
	const char *path;
	bool guarded; /* on the admin listener only */
	bool open;    /* without a token there */
	void (*answer)(const struct admin_ask *ask);
};

/* NULL: this listener has no such page. */
const struct admin_page *admin_find_page(const struct admin_door *door, const char *path);

/* Answer, count and record it: of each address and reason the first one by itself, then those of each
 * minute together; beyond so many of these, those of all others together. */
void admin_init_refused(struct admin *a);
void admin_refuse(const struct admin_ask *ask, enum metric_admin_refusal why);

/* Listen on the path, mode 0600.  A socket that a dead process left is replaced.  The descriptor,
 * non-blocking, or -1. */
int admin_socket_bind(const char *path, struct err *err);

/* Whose process is connected to fd. */
int admin_socket_peer(int fd, struct admin_peer *out);

/* Why a page of the administration is not for this request, or METRIC_ADMIN_REFUSALS: Host is none of
 * this listener (a name that another site made to resolve to us is not), a page of another site asks
 * (but for one that links to an open page), or the token is wrong.  The token's name and role are set. */
enum metric_admin_refusal admin_look_at(struct admin_ask *ask, int64_t now);

/* What Accept (NULL: no header) prefers; RFC 9110 section 12.5.1. */
enum metrics_format admin_negotiate(const char *accept);

#endif
