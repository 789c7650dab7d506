#include "keytrail/pool.h"

#include <stdlib.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
/* A block that is kept is one whose late use the sanitizer cannot see. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define KEPT 0
#else
#define KEPT POOL_KEPT
#endif

void
pool_init(struct pool *p, size_t size)
{
	p->size = size;
	p->n = 0;
}

void
pool_fini(struct pool *p)
{
	while (p->n > 0)
		free(p->kept[--p->n]);
}

void *
pool_take(struct pool *p)
{
	return p->n > 0 ? p->kept[--p->n] : malloc(p->size);
}

void
pool_give(struct pool *p, void *block)
{
	if (block != NULL && p->n != KEPT)
		p->kept[p->n++] = block;
	else
		free(block);
}
