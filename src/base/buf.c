#include "keytrail/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_MIN 512

void
buf_fini(struct buf *b)
{
	if (b->mem != NULL)
		explicit_bzero(b->mem, b->high);
	if (b->pool != NULL && b->cap == b->pool->size)
		pool_give(b->pool, b->mem);
	else
		free(b->mem);
	*b = (struct buf){ .pool = b->pool };
}

/* Memory for at least n bytes; *cap: for how many. */
static char *
allocate(struct pool *pool, size_t n, size_t *cap)
{
	if (pool != NULL && n <= pool->size) {
		*cap = pool->size;
		return pool_take(pool);
	}
	while (*cap < n)
		*cap *= 2;
	return malloc(*cap);
}

int
buf_reserve(struct buf *b, size_t n)
{
	size_t used = buf_size(b);
	size_t cap = b->cap < BUF_MIN ? BUF_MIN : b->cap;
	char *mem;

	if (b->cap - b->len >= n)
		return 0;
	if (n > SIZE_MAX / 4 || used > SIZE_MAX / 4)
		return -1;
	if (b->cap >= used + n) {
		memmove(b->mem, b->mem + b->off, used);
		b->off = 0;
		b->len = used;
		return 0;
	}
	/* Not realloc: it could leave the old bytes behind unwiped. */
	if ((mem = allocate(b->pool, used + n, &cap)) == NULL)
		return -1;
	if (used > 0)
		memcpy(mem, b->mem + b->off, used);
	buf_fini(b);
	*b = (struct buf){ mem, 0, used, cap, used, b->pool };
	return 0;
}

void
buf_swap(struct buf *a, struct buf *b)
{
	struct buf was = *a;

	*a = *b;
	a->pool = was.pool;
	was.pool = b->pool;
	*b = was;
}

int
buf_append_u64(struct buf *b, uint64_t v)
{
	char digits[20];
	size_t i = sizeof(digits);

	do
		digits[--i] = (char)('0' + v % 10);
	while ((v /= 10) > 0);
	return buf_append(b, digits + i, sizeof(digits) - i);
}

int
buf_printf(struct buf *b, const char *fmt, ...)
{
	size_t room = buf_room(b);
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(room > 0 ? buf_tail(b) : NULL, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room) {
		b->high = b->cap; /* what had no room was begun there */
		if (n < 0 || buf_reserve(b, (size_t)n + 1) == -1)
			return -1;
		va_start(ap, fmt);
		vsnprintf(buf_tail(b), (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	buf_commit(b, (size_t)n);
	return 0;
}
