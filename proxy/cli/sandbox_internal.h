/*
 * sandbox_internal: shared by the files of that module.
 */
#ifndef KEYTRAIL_PROXY_SANDBOX_INTERNAL_H
#define KEYTRAIL_PROXY_SANDBOX_INTERNAL_H

#include "cli/sandbox.h"

void sandbox_set(struct sandbox *s, enum sandbox_part_id part, bool on, const char *detail);

/* Whether the kernel has it and it is wanted. */
void sandbox_look_at_landlock(struct sandbox *s, const struct config *c);
void sandbox_look_at_seccomp(struct sandbox *s, const struct config *c);

void sandbox_free_filters(struct sandbox_filters *f);	      /* NULL is allowed */
bool sandbox_filters_failed(const struct sandbox_filters *f); /* some thread has none */

/* Each file that a start and HUP read; stops at the first -1. */
int sandbox_each_file(const struct config *c,
    int (*visit)(void *arg, const char *path, struct err *err), void *arg, struct err *err);

#endif
