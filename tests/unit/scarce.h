/*
 * scarce: memory that is short, for a program of unit tests: its one test file includes this.
 *
 * malloc and its like are defined here and fail at the n-th call; the C library's, OpenSSL's and
 * the sanitizer's own callers come here too.  What is still held is counted, block by block.
 */
#ifndef KEYTRAIL_TEST_SCARCE_H
#define KEYTRAIL_TEST_SCARCE_H

#include "keytrail/err.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <openssl/err.h>

/* Of a sanitizer where there is one, else of glibc. */
extern void *__interceptor_malloc(size_t n) __attribute__((weak));
extern void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));
extern void *__interceptor_realloc(void *p, size_t n) __attribute__((weak));
extern void *__interceptor_aligned_alloc(size_t align, size_t n) __attribute__((weak));
extern void __interceptor_free(void *p) __attribute__((weak));
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

/* Of the thread that the test runs on; threads of others (a log's, OpenSSL's) never fail. */
static _Thread_local struct {
	bool on;
	unsigned long count, first, times; /* from the first on so many fail; 0: none */
	long held;
} scarce;

static inline bool
scarce_fails(void)
{
	if (!scarce.on)
		return false;
	scarce.count++;
	if (scarce.first == 0 || scarce.count < scarce.first ||
	    scarce.count - scarce.first >= scarce.times)
		return false;
	errno = ENOMEM;
	return true;
}

static inline void *
scarce_hold(void *p)
{
	scarce.held += p != NULL;
	return p;
}

void *
malloc(size_t n)
{
	if (scarce_fails())
		return NULL;
	return scarce_hold(
	    __interceptor_malloc != NULL ? __interceptor_malloc(n) : __libc_malloc(n));
}

void *
calloc(size_t n, size_t size)
{
	if (scarce_fails())
		return NULL;
	return scarce_hold(
	    __interceptor_calloc != NULL ? __interceptor_calloc(n, size) : __libc_calloc(n, size));
}

void *
aligned_alloc(size_t align, size_t n)
{
	if (scarce_fails())
		return NULL;
	return scarce_hold(__interceptor_aligned_alloc != NULL
			       ? __interceptor_aligned_alloc(align, n)
			       : __libc_memalign(align, n));
}

void
free(void *p)
{
	scarce.held -= p != NULL;
	if (__interceptor_free != NULL)
		__interceptor_free(p);
	else
		__libc_free(p);
}

void *
realloc(void *p, size_t n)
{
	bool fresh = p == NULL;

	if (n > 0 && scarce_fails())
		return NULL;
	p = __interceptor_realloc != NULL ? __interceptor_realloc(p, n) : __libc_realloc(p, n);
	scarce.held += fresh && p != NULL;
	scarce.held -= !fresh && n == 0;
	return p;
}

/* A sanitizer's own do not come by malloc. */

void *
reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, bytes);
}

char *
strndup(const char *s, size_t max)
{
	size_t n = strnlen(s, max);
	char *copy = malloc(n + 1);

	if (copy != NULL) {
		memcpy(copy, s, n);
		copy[n] = '\0';
	}
	return copy;
}

char *
strdup(const char *s)
{
	return strndup(s, SIZE_MAX);
}

/* ---- trying ---- */

struct scarce_case {
	const char *label;
	int (*run)(struct err *err); /* 0, or -1 with the reason; holds nothing afterwards */
	void (*before)(void);	     /* or NULL: what a run begins with, made with all the memory */
	bool none;		     /* it is pure: it asks for no memory at all */
};

#define SCARCE_DESCRIPTORS 256

static inline unsigned
scarce_descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < SCARCE_DESCRIPTORS; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

struct scarce_result {
	int rc;
	unsigned long count;
	long held;
	int descriptors;
	struct err err;
};

static inline struct scarce_result
scarce_run(const struct scarce_case *c, unsigned long first, unsigned long times)
{
	struct scarce_result r = { .err = { "" } };
	unsigned descriptors;

	scarce.on = false; /* an assertion may have left it so */
	if (c->before != NULL)
		c->before();
	descriptors = scarce_descriptors();
	scarce.held = 0;
	scarce.count = 0;
	scarce.first = first;
	scarce.times = times;
	scarce.on = true;
	r.rc = c->run(&r.err);
	scarce.on = false;
	ERR_clear_error(); /* a thread's, of at most 16 */
	r.count = scarce.count;
	r.held = scarce.held;
	r.descriptors = (int)scarce_descriptors() - (int)descriptors;
	return r;
}

/* What a library keeps for the next time is kept once; a leak is one each time. */
static inline struct scarce_result
scarce_run_settled(const struct scarce_case *c, unsigned long first, unsigned long times)
{
	struct scarce_result r = scarce_run(c, first, times);

	for (int i = 0; r.held != 0 && i < 3; i++)
		r = scarce_run(c, first, times);
	return r;
}

static inline bool
scarce_is_clear(const struct err *err)
{
	return strstr(err->msg, "emory") != NULL || strstr(err->msg, "malloc") != NULL;
}

static inline void
scarce_judge(const struct scarce_case *c, const struct scarce_result *r, unsigned long n)
{
	if (r->held != 0 || r->descriptors != 0)
		fail_msg("%s: after allocation %lu of %lu failed %ld blocks and %d descriptors "
			 "are left (%d: %s)",
		    c->label, n, r->count, r->held, r->descriptors, r->rc, r->err.msg);
	if (r->rc == -1 && !scarce_is_clear(&r->err))
		fail_msg("%s: allocation %lu of %lu failed: \"%s\" says nothing of memory",
		    c->label, n, r->count, r->err.msg);
}

/* What is drawn: told, and drawn again with KEYTRAIL_SEED. */
static inline void
scarce_seed(void)
{
	const char *given = getenv("KEYTRAIL_SEED");
	unsigned long seed = given != NULL ? strtoul(given, NULL, 10) : (unsigned long)time(NULL);

	printf("KEYTRAIL_SEED=%lu\n", seed);
	srandom((unsigned)seed);
}

/* Where a program defines it: of more, so many are made to fail, from a random first one;
 * SCARCE_STEP=1: all. */
#ifndef SCARCE_TRIES
#define SCARCE_TRIES ULONG_MAX
#endif

static inline unsigned long
scarce_step(unsigned long count)
{
	const char *step = getenv("SCARCE_STEP");

	return step != NULL ? strtoul(step, NULL, 10) : count / SCARCE_TRIES + 1;
}

/* An allocation fails, alone and with all that follow: the case fails and says so, or does without;
 * and leaves nothing. */
static inline void
scarce_try(void **state)
{
	const struct scarce_case *c = *state;
	const unsigned long times[] = { 1, ULONG_MAX };
	struct scarce_result r = scarce_run_settled(c, 0, 0);
	unsigned long step = scarce_step(r.count), n;

	if (r.rc != 0)
		fail_msg("%s: with all the memory: %s", c->label, r.err.msg);
	scarce_judge(c, &r, 0);
	if ((r.count == 0) != c->none)
		fail_msg("%s: asked for memory %lu times", c->label, r.count);
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		n = 1 + (unsigned long)random() % step;
		do {
			r = scarce_run_settled(c, n, times[i]);
			scarce_judge(c, &r, n);
			n += step;
		} while (r.count + step >= n); /* the one before did fail */
	}
}

static inline struct CMUnitTest
scarce_test(const struct scarce_case *c)
{
	return (struct CMUnitTest){ c->label, scarce_try, NULL, NULL, (void *)(uintptr_t)c };
}

#endif
