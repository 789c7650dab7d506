/*
 * pool: blocks of one size that are kept for their next use, so that what comes and goes with each
 * request costs no allocation.
 *
 * Owned by one thread.  What a block holds may be secret: whoever gives one back has wiped it.
 */
#ifndef KEYTRAIL_POOL_H
#define KEYTRAIL_POOL_H

#include <stddef.h>

#define POOL_KEPT 64 /* blocks at most; what is given back beyond them is freed */

struct pool {
	size_t size;
	unsigned n;
	void *kept[POOL_KEPT];
};

/* Empty, for blocks of this size. */
void pool_init(struct pool *p, size_t size);

/* Free what is kept. */
void pool_fini(struct pool *p);

/* A block, its content undefined, or NULL when memory is short. */
void *pool_take(struct pool *p);
void pool_give(struct pool *p, void *block); /* NULL is allowed */

#endif
