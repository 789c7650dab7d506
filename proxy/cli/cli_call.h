/*
 * cli_call: one HTTP request to a running sidecar (admin.h), over its admin socket.
 */
#ifndef KEYTRAIL_CLI_CALL_H
#define KEYTRAIL_CLI_CALL_H

#include "keytrail/buf.h"
#include "keytrail/err.h"

/* Which socket, from the arguments of a command: the `admin.socket` of a routes file, or --socket
 * PATH. */
struct cli_socket {
	const char *file, *path; /* one of them, the other is NULL */
	int patience_s;		 /* how long it may be silent; 0: half a minute */
};

/* Add a field to a form, escaped. */
int cli_form_add(struct buf *form, const char *name, const char *value);

/* POST the form (NULL: GET) to a page.  0 and the answer's body when it is well; -1 when nobody
 * listens there or the sidecar refuses; err says so in its words. */
int cli_call(const struct cli_socket *at, const char *page, const struct buf *form,
    struct buf *answer, struct err *err);

/* GET /readyz of its metrics listener, or over the socket where its port is not known. */
int cli_call_readiness(const struct cli_socket *at, struct buf *answer, struct err *err);

#endif
