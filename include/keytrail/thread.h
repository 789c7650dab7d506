/*
 * thread: start a thread, which first takes its name and gives up what is not for its kind.
 *
 * By the name ps and gdb know it.  Main gets all signals, but for SIGBUS (keytrail/mapguard.h).
 */
#ifndef KEYTRAIL_THREAD_H
#define KEYTRAIL_THREAD_H

#include "keytrail/err.h"

#include <pthread.h>

/* The kind is the name up to a space or '-'.  -1: the thread must not run. */
typedef int (*thread_enter_fn)(void *arg, const char *name, struct err *err);

/* Once, before the first thread is made. */
void thread_install(thread_enter_fn enter, void *arg);

/* Returns when it has given up what is not for its kind.  Names longer than 15 bytes are cut. */
int thread_start(
    pthread_t *out, const char *name, void *(*run)(void *), void *arg, struct err *err);

#endif
