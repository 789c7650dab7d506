#include "data/records.h"

#include "keytrail/pool.h"

#include <openssl/crypto.h>

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* Room for the largest record, as OpenSSL asks for it, and what the C library gives on top. */
#define ROOM_MIN   16384
#define ROOM	   17408
#define ROOM_SLACK 16

/* As many as are followed at once; one at a time is the rule. */
#define LENT 4

struct lent {
	char *room;
	ssize_t filled; /* -1: nobody told */
};

static _Thread_local struct pool rooms = { .size = ROOM };
static _Thread_local struct lent lent[LENT];
static _Thread_local unsigned failures;

static struct lent *
find(const char *room)
{
	for (unsigned i = 0; i < LENT; i++)
		if (lent[i].room == room)
			return &lent[i];
	return NULL;
}

static void *
lend(void)
{
	char *room = pool_take(&rooms);
	struct lent *l = find(room);

	if (l == NULL)
		l = find(NULL);
	if (l != NULL)
		*l = (struct lent){ room, -1 };
	return room;
}

static void
take_back(char *room, size_t size)
{
	struct lent *l = find(room);

	explicit_bzero(room, l != NULL && l->filled >= 0 ? (size_t)l->filled : size);
	if (l != NULL)
		*l = (struct lent){ NULL, 0 };
	pool_give(&rooms, room);
}

static void *
allocate(size_t n, const char *file, int line)
{
	void *p;

	(void)file;
	(void)line;
	if (n == 0)
		return NULL;
	p = n > ROOM_MIN && n <= ROOM ? lend() : malloc(n);
	failures += p == NULL;
	return p;
}

static void
wipe_and_free(void *p, const char *file, int line)
{
	size_t n = malloc_usable_size(p);

	(void)file;
	(void)line;
	if (p == NULL)
		return;
	if (n >= ROOM && n < ROOM + ROOM_SLACK) {
		take_back(p, n);
		return;
	}
	explicit_bzero(p, n);
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

void
records_filled(const void *p, size_t n)
{
	const char *end = (const char *)p + n;

	for (unsigned i = 0; i < LENT; i++) {
		struct lent *l = &lent[i];

		if (l->room != NULL && end >= l->room && end <= l->room + ROOM &&
		    end - l->room > l->filled)
			l->filled = end - l->room;
	}
}

unsigned
records_failures(void)
{
	return failures;
}

void
records_release(void)
{
	pool_fini(&rooms);
}
