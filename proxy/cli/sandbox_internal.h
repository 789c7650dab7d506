/*
 * sandbox_internal: shared by the files of that module.
 */
#ifndef KEYTRAIL_PROXY_SANDBOX_INTERNAL_H
#define KEYTRAIL_PROXY_SANDBOX_INTERNAL_H

#include "cli/sandbox.h"

/* Each file that a start and HUP read; stops at the first -1. */
int sandbox_each_file(const struct config *c,
    int (*visit)(void *arg, const char *path, struct err *err), void *arg, struct err *err);

#endif
