/*
 * admin_internal: what the files of module admin share.
 *
 * admin.c is the listeners, admin_request.c what is done with a request, admin_guard.c who may ask,
 * admin_pages.c the pages, admin_negotiate.c the format of the metrics, admin_socket.c the Unix socket
 * and who is at its other end.
 */
#ifndef KEYTRAIL_PROXY_ADMIN_INTERNAL_H
#define KEYTRAIL_PROXY_ADMIN_INTERNAL_H

#include "admin/admin.h"
#include "admin/visitors.h"

#define ADMIN_FORM_MAX 4096

struct evhttp;
struct evhttp_request;
struct events;

/* One listener. */
struct admin_door {
	struct admin *admin;
	struct evhttp *http;
	bool guarded;  /* of the administration */
	bool operates; /* the Unix socket: calls that change something */
	char *host;    /* as bound; NULL for the socket */
	struct visitors visitors;
};

struct admin {
	struct admin_opts opts;
	struct admin_door metrics, admin, socket;
	struct events *events;
	char *socket_path;
};

/* For evhttp_set_gencb; arg: the door. */
void admin_on_request(struct evhttp_request *req, void *arg);

/* False: this listener has no such page. */
bool admin_answer_page(struct admin_door *door, struct evhttp_request *req, const char *path);

/* Listen on the path, mode 0600.  A socket that a dead process left is replaced.  The descriptor,
 * non-blocking, or -1. */
int admin_socket_bind(const char *path, struct err *err);

/* Whose process is connected to fd. */
int admin_socket_peer(int fd, struct admin_peer *out);

struct admin_refusal {
	int status;
	const char *text;
};

/* Whether a page of the administration is for this request: Host is an address of this listener (a
 * name that another site made to resolve to us is not), no page of another site asks, and the token
 * is right.  bound: as configured; NULL for the Unix socket.  token: NULL where none is wanted. */
bool admin_may_ask(struct evhttp_request *req, const char *bound, const struct config_secret *token,
    struct admin_refusal *why);

/* What Accept (NULL: no header) prefers; RFC 9110 section 12.5.1. */
enum metrics_format admin_negotiate(const char *accept);

#endif
