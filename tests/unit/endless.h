/*
 * endless: for a query that nobody cancels and whose time, with a deadline beyond 0, is never over.
 */
#ifndef KEYTRAIL_TESTS_ENDLESS_H
#define KEYTRAIL_TESTS_ENDLESS_H

#include <stdbool.h>
#include <stdint.h>

static inline int64_t
endless_now_ns(void *arg)
{
	(void)arg;
	return 0;
}

static inline bool
endless_cancelled(void *arg)
{
	(void)arg;
	return false;
}

#endif
