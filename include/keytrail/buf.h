/*
 * buf: a growable byte queue: append at the end, consume from the front.
 *
 * Owned by one thread.  The bytes may be secret (bodies, tokens), so memory that is given back is
 * wiped first: by buf_fini, and by buf_reserve where it moves the bytes.  Only what was committed is
 * wiped: nothing else may be written at buf_tail, failed reads included.
 */
#ifndef KEYTRAIL_BUF_H
#define KEYTRAIL_BUF_H

#include "keytrail/pool.h"
#include "keytrail/slice.h"

struct buf {
	char *mem;
	size_t off; /* first unread byte */
	size_t len; /* end of the bytes; mem[off..len) is the content */
	size_t cap;
	size_t high; /* no byte at or above it was ever written */
	struct pool
	    *pool; /* where memory of up to its size comes from, or NULL: outlives the buf */
};

#define BUF_INIT ((struct buf){ .mem = NULL })

/* Wipe and free; the buf is empty and usable afterwards. */
void buf_fini(struct buf *b);

/* Room for n more bytes at buf_tail(b).  -1 when memory is short; the content is untouched. */
int buf_reserve(struct buf *b, size_t n);

/* Change contents; each keeps its pool. */
void buf_swap(struct buf *a, struct buf *b);

int buf_append_u64(struct buf *b, uint64_t v); /* in decimal */
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline char *
buf_tail(struct buf *b)
{
	return b->mem + b->len;
}

static inline size_t
buf_room(const struct buf *b)
{
	return b->cap - b->len;
}

/* n bytes have been written at buf_tail. */
static inline void
buf_commit(struct buf *b, size_t n)
{
	b->len += n;
	if (b->high < b->len)
		b->high = b->len;
}

/* Reserve and copy. */
static inline int
buf_append(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return 0;
	if (buf_room(b) < n && buf_reserve(b, n) == -1)
		return -1;
	memcpy(buf_tail(b), p, n);
	buf_commit(b, n);
	return 0;
}

static inline int
buf_append_slice(struct buf *b, struct slice s)
{
	return buf_append(b, s.p, s.n);
}

static inline size_t
buf_size(const struct buf *b)
{
	return b->len - b->off;
}

static inline struct slice
buf_slice(const struct buf *b)
{
	/* Arithmetic on NULL is undefined, even plus 0. */
	return b->mem == NULL ? SLICE_EMPTY : (struct slice){ b->mem + b->off, b->len - b->off };
}

/* Drop n bytes from the front. */
static inline void
buf_consume(struct buf *b, size_t n)
{
	b->off += n;
	if (b->off == b->len)
		b->off = b->len = 0;
}

#endif
