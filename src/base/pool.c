#include "keytrail/pool.h"

#include <stdlib.h>
#include <string.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
/* A block that is kept is one whose late use the sanitizer cannot see. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define KEEPS 0
#else
#define KEEPS 1
#endif

void
pool_init(struct pool *p, size_t size, unsigned most)
{
	*p = (struct pool){ .size = size, .most = KEEPS * most };
}

static void *
pop(struct pool *p)
{
	void *block = p->kept;

	memcpy(&p->kept, block, sizeof(p->kept));
	if (--p->n < p->idle)
		p->idle = p->n;
	return block;
}

void
pool_fini(struct pool *p)
{
	while (p->n > 0)
		free(pop(p));
}

void *
pool_take(struct pool *p)
{
	return p->n > 0 ? pop(p) : malloc(p->size);
}

void
pool_give(struct pool *p, void *block)
{
	if (block == NULL || p->n >= p->most) {
		free(block);
		return;
	}
	memcpy(block, &p->kept, sizeof(p->kept));
	p->kept = block;
	p->n++;
}

bool
pool_trim(struct pool *p)
{
	for (unsigned unneeded = p->idle; unneeded > 0 && p->n > POOL_KEPT; unneeded--)
		free(pop(p));
	p->idle = p->n;
	return p->n > POOL_KEPT;
}
