/*
 * pool: blocks of one size that are kept for their next use, so that what comes and goes with each
 * request costs no allocation.
 *
 * Owned by one thread.  What a block holds may be secret: whoever gives one back has wiped it.
 */
#ifndef KEYTRAIL_POOL_H
#define KEYTRAIL_POOL_H

#include <stdbool.h>
#include <stddef.h>

#define POOL_KEPT      64 /* blocks that no trim frees */
#define POOL_UNBOUNDED (~0u)

struct pool {
	size_t size;
	unsigned most, n;
	unsigned idle; /* so many were kept at any time since the last trim */
	void *kept;    /* the first; in each stands the next */
};

/* Empty, for blocks of this size, no less than a pointer's.  What is given back while `most` are kept is
 * freed; who sets no bound trims. */
void pool_init(struct pool *p, size_t size, unsigned most);

/* Free what nobody has needed since the last trim.  False: no more than POOL_KEPT are left. */
bool pool_trim(struct pool *p);

/* Free what is kept. */
void pool_fini(struct pool *p);

/* A block, its content undefined, or NULL when memory is short. */
void *pool_take(struct pool *p);
void pool_give(struct pool *p, void *block); /* NULL is allowed */

#endif
