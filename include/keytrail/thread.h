/*
 * thread: what each thread does first.
 *
 * It takes its name, by which ps and gdb know it, and gives up what is not for its kind.
 */
#ifndef KEYTRAIL_THREAD_H
#define KEYTRAIL_THREAD_H

/* The kind is the name up to a space or '-'. */
typedef void (*thread_enter_fn)(void *arg, const char *name);

/* Once, before the first thread is made. */
void thread_install(thread_enter_fn enter, void *arg);

/* First thing of a thread; longer names than 15 bytes are cut. */
void thread_begin(const char *name);

#endif
