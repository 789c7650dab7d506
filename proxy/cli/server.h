/*
 * server: the running sidecar: every part built in order, run, and torn down in reverse.
 *
 * Main thread.  Signals: HUP validates and swaps the configuration, USR1 reopens files, TERM and
 * INT drain and stop.
 */
#ifndef KEYTRAIL_PROXY_SERVER_H
#define KEYTRAIL_PROXY_SERVER_H

#include "keytrail/config.h"
#include "keytrail/err.h"

/* Until TERM.  0, or an exit code (1 failed, 78 bad configuration) and the reason in err. */
int server_run(struct config *config, struct err *err);

#endif
