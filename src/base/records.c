#include "keytrail/records.h"

#include "keytrail/pool.h"

#include <openssl/crypto.h>

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What comes and goes by the hundred with each handshake: small blocks.  Their sizes are so far apart that
 * one which is larger by what the C library may give on top is still of its own.  What comes with each
 * record: room for one that is as small as stream.c lets it be, and for the largest. */
enum { SMALL = 7, RECORD = SMALL, LARGEST, POOLS };

#define STEP	    32
#define SMALLEST    24
#define SMALL_MAX   (SMALLEST + (SMALL - 1) * STEP)
#define RECORD_MIN  2049
#define RECORD_MAX  2304
#define LARGEST_MIN 16385
#define LARGEST_MAX 17408

static _Thread_local struct pool pools[POOLS];

#define SLACK 16 /* what the C library may give on top */

/* As many rooms for records as are followed at once; one at a time is the rule. */
#define LENT 4

struct lent {
	char *room;
	size_t size;
	ssize_t filled; /* with what may be secret; -1: nobody told */
};

static _Thread_local bool keeps;
static _Thread_local struct lent lent[LENT];
static _Thread_local unsigned failures;

static bool
is_about(size_t usable, size_t size)
{
	return usable >= size && usable < size + SLACK;
}

/* Where a block of this size, or a little more, is taken from. */
static struct pool *
pool_for(size_t n)
{
	if (!keeps)
		return NULL;
	if (n <= SMALL_MAX)
		return &pools[n <= SMALLEST ? 0 : (n - SMALLEST + STEP - 1) / STEP];
	if (n >= RECORD_MIN && n <= RECORD_MAX)
		return &pools[RECORD];
	return n >= LARGEST_MIN && n <= LARGEST_MAX ? &pools[LARGEST] : NULL;
}

/* Where a block that has room for so much is of use. */
static struct pool *
pool_of(size_t usable)
{
	if (!keeps || usable < SMALLEST)
		return NULL;
	if (usable < SMALL_MAX + SLACK)
		return &pools[(usable - SMALLEST) / STEP];
	if (is_about(usable, RECORD_MAX))
		return &pools[RECORD];
	return is_about(usable, LARGEST_MAX) ? &pools[LARGEST] : NULL;
}

static bool
is_followed(const struct pool *pool)
{
	return pool == &pools[RECORD] || pool == &pools[LARGEST];
}

static struct lent *
find(const char *room)
{
	for (unsigned i = 0; i < LENT; i++)
		if (lent[i].room == room)
			return &lent[i];
	return NULL;
}

static void *
lend(struct pool *pool)
{
	char *room = pool_take(pool);
	struct lent *l = find(room);

	if (l == NULL)
		l = find(NULL);
	if (l != NULL)
		*l = (struct lent){ room, pool->size, -1 };
	return room;
}

/* Room is given back: how much of it is to be wiped. */
static size_t
take_back(char *room, size_t size)
{
	struct lent *l = find(room);

	if (l == NULL)
		return size;
	if (l->filled >= 0)
		size = (size_t)l->filled;
	*l = (struct lent){ .room = NULL };
	return size;
}

static void *
allocate(size_t n, const char *file, int line)
{
	struct pool *pool = pool_for(n);
	void *p;

	(void)file;
	(void)line;
	if (n == 0)
		return NULL;
	if (is_followed(pool))
		p = lend(pool);
	else
		p = pool != NULL ? pool_take(pool) : malloc(n);
	failures += p == NULL;
	return p;
}

static void
wipe_and_free(void *p, const char *file, int line)
{
	struct pool *pool;
	size_t n;

	(void)file;
	(void)line;
	if (p == NULL) /* more often than not */
		return;
	n = malloc_usable_size(p);
	pool = pool_of(n);
	explicit_bzero(p, is_followed(pool) ? take_back(p, n) : n);
	if (pool != NULL)
		pool_give(pool, p);
	else
		free(p);
}

/* The C library's own would leave what it moves where it was. */
static void *
reallocate(void *p, size_t n, const char *file, int line)
{
	size_t had = malloc_usable_size(p);
	void *next;

	if (n == 0) {
		wipe_and_free(p, file, line);
		return NULL;
	}
	if (n <= had)
		return p;
	if ((next = allocate(n, file, line)) != NULL && p != NULL) {
		memcpy(next, p, had);
		wipe_and_free(p, file, line);
	}
	return next;
}

int
records_install(void)
{
	if (CRYPTO_set_mem_functions(allocate, reallocate, wipe_and_free) != 1)
		return -1;
	/* It goes on without what it could not make, and crashes later. */
	return OPENSSL_init_crypto(0, NULL) == 1 && OSSL_LIB_CTX_get0_global_default() != NULL ? 0
											       : -1;
}

/* Bytes in room were filled to its n-th. */
static void
follow(const char *p, size_t n, bool secret)
{
	for (unsigned i = 0; i < LENT; i++) {
		struct lent *l = &lent[i];
		ssize_t filled;

		if (l->room == NULL || p < l->room || p + n > l->room + l->size)
			continue;
		filled = secret ? p + n - l->room : 0;
		if (filled > l->filled)
			l->filled = filled;
	}
}

void
records_filled(const void *p, size_t n)
{
	follow(p, n, true);
}

void
records_sent(const void *p, size_t n)
{
	follow(p, n, false);
}

unsigned
records_failures(void)
{
	return failures;
}

void
records_keep(void)
{
	for (unsigned i = 0; i < SMALL; i++)
		pool_init(&pools[i], SMALLEST + i * STEP, POOL_KEPT);
	pool_init(&pools[RECORD], RECORD_MAX, POOL_KEPT);
	pool_init(&pools[LARGEST], LARGEST_MAX, POOL_KEPT);
	keeps = true;
}

void
records_release(void)
{
	keeps = false;
	for (unsigned i = 0; i < POOLS; i++)
		pool_fini(&pools[i]);
}
