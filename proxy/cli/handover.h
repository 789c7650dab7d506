/*
 * handover: a running process gives its listeners and the lock of its trail to its successor.
 *
 * They meet at `takeover`, a SOCK_SEQPACKET socket in the trail's folder: mode 0600, and the other one
 * must be of the same user, or root.  The successor says what it is; the running process refuses, in
 * words, or gives its descriptors; the successor says that it is ready.  The end of the connection is
 * the end of the other process.
 */
#ifndef KEYTRAIL_PROXY_HANDOVER_H
#define KEYTRAIL_PROXY_HANDOVER_H

#include "keytrail/err.h"
#include "keytrail/log.h"

#include <stdint.h>

struct event_base;

enum handover_role {
	HANDOVER_LOCK,
	HANDOVER_LISTEN,
	HANDOVER_METRICS,
	HANDOVER_ADMIN,
	HANDOVER_SOCKET, /* admin.socket */
	HANDOVER_ROLES
};

struct handover_fds {
	int of[HANDOVER_ROLES]; /* -1: none */
	uint32_t rings;		/* that the running process leaves in the trail's folder */
};

/* What a successor says of itself. */
struct handover_hello {
	uint32_t state_version, ring_version; /* of the trail's files */
	char terms[512];		      /* of its configuration: text */
};

/* ---- the running process: main thread, on its base ---- */

struct handover;

struct handover_opts {
	struct event_base *base;
	struct log *log;
	int dirfd; /* the trail's; a copy is made */
	/* May it take over?  0: the descriptors that it gets, which stay the callee's; until it is
	 * ready or gone nobody else is asked about.  -1: err is what it is told. */
	int (*ask)(void *arg, const struct handover_hello *hello, struct handover_fds *give,
	    struct err *err);
	/* After that, once each: it is ready; it has ended. */
	void (*ready)(void *arg);
	void (*gone)(void *arg);
	void *arg;
};

/* Listen, where nobody looks yet (`takeover.new`). */
int handover_new(const struct handover_opts *opts, struct handover **out, struct err *err);
/* Successors find it from now on; whoever was found before is not. */
int handover_open(struct handover *h, struct err *err);
/* No more successors.  One that is ready still learns from the end of the process that it has ended.
 * NULL is allowed. */
void handover_free(struct handover *h);

/* ---- the successor: blocks ---- */

struct handover_wish {
	const char *dir; /* the trail's */
	struct handover_hello hello;
	unsigned patience_ms; /* with a process that neither gives nor refuses */
};

/* 1: the descriptors, and the connection; 0: nobody is there; -1: refused, or it went wrong. */
int handover_take(
    const struct handover_wish *wish, struct handover_fds *out, int *conn, struct err *err);
/* From now on `conn` does not block, and is at its end when the other process is. */
int handover_ready(int conn, struct err *err);

#endif
