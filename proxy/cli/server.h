/*
 * server: the running sidecar: every part built in order, run, and torn down in reverse.
 *
 * Main thread.  Signals: HUP validates and swaps the configuration, USR1 reopens files, TERM,
 * INT and QUIT drain and stop.
 */
#ifndef KEYTRAIL_PROXY_SERVER_H
#define KEYTRAIL_PROXY_SERVER_H

#include "keytrail/config.h"
#include "keytrail/err.h"

enum server_result {
	SERVER_STOPPED,	      /* by TERM, with everything durable */
	SERVER_FAILED,	      /* err says why */
	SERVER_MISCONFIGURED, /* err says what is wrong with the configuration or its files */
};

/* How many it has. */
unsigned server_workers(const struct config *config);

/* takeover: from the process that runs on the same trail, if there is one. */
enum server_result server_run(struct config *config, bool takeover, struct err *err);

#endif
