/*
 * sandbox: what the running sidecar has given up, and what of that the kernel enforces.
 *
 * Part of it is given up before (harden.h); here it becomes its own user and finds out what is in
 * force.  What the kernel lacks is told of and done without, unless `"sandbox": "require"`.  Main
 * thread only.
 */
#ifndef KEYTRAIL_PROXY_SANDBOX_H
#define KEYTRAIL_PROXY_SANDBOX_H

#include "keytrail/buf.h"
#include "keytrail/config.h"
#include "keytrail/err.h"

enum sandbox_part_id {
	SANDBOX_LANDLOCK,
	SANDBOX_SECCOMP,
	SANDBOX_USER,
	SANDBOX_NO_NEW_PRIVS,
	SANDBOX_DUMPABLE, /* on: it is not */
	SANDBOX_CORE,
	SANDBOX_PARTS
};

struct sandbox_filters;

struct sandbox {
	struct {
		bool on;
		char detail[128]; /* why not, or more about it */
	} parts[SANDBOX_PARTS];
	struct sandbox_filters *filters; /* NULL: none */
	bool required;
	bool network; /* some sink used it at the start */
};

void sandbox_fini(struct sandbox *s);

/* Become the configuration's user, if it names one; what HUP reads again must be readable to it.
 * Before a thread is made, and before the trail and certificates are opened. */
int sandbox_become_user(const struct config *c, struct err *err);

/* What is in force.  -1: something is not, and the configuration requires it. */
int sandbox_look(struct sandbox *s, const struct config *c, struct err *err);

/* From now on no file but those that the configuration names, the trail's and the system's for names and
 * certificates.  Once the trail is there, before a thread is made.  -1: it failed, and is required. */
int sandbox_confine(struct sandbox *s, const struct config *c, struct err *err);

/* From now on the calling thread makes no system call but those of its kind: main, worker, journal,
 * ledger, reader, follow, sink, publish, or that and more behind ' ' or '-'.  Any thread
 * (thread_install).
 * -1: it cannot take its filter, and that is required. */
int sandbox_enter(void *sandbox, const char *name, struct err *err);

/* -1: what HUP is to take names a file that was none of them, or uses the network for sinks first. */
int sandbox_check(const struct sandbox *s, const struct config *next, struct err *err);

#define SANDBOX_TEXT_SIZE 1024
/* The names of the parts that are in force, or those that are not with the reason; "" for none. */
void sandbox_text(struct sandbox *s, bool on, char out[SANDBOX_TEXT_SIZE]);

/* {"required":...,"parts":[...]} */
int sandbox_put(struct sandbox *s, const struct config *c, struct buf *out);

#endif
