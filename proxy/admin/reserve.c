#include "admin/reserve.h"

#include <event2/event.h>

#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK  1024
#define BLOCKS 8192 /* three listeners, VISITORS_MAX of each, 40 blocks of each of those */

union block {
	union block *next;
	max_align_t align;
	char bytes[BLOCK];
};

/* libevent's hooks have no argument: one process, one reserve. */
static union block blocks[BLOCKS];
static struct {
	pthread_mutex_t lock;
	union block *given_back;
	unsigned used; /* blocks from there on were never taken */
} reserve = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool
is_reserve(const void *p)
{
	return (uintptr_t)p >= (uintptr_t)blocks && (uintptr_t)p < (uintptr_t)(blocks + BLOCKS);
}

static void *
take(void)
{
	union block *b;

	pthread_mutex_lock(&reserve.lock);
	if ((b = reserve.given_back) != NULL)
		reserve.given_back = b->next;
	else if (reserve.used < BLOCKS)
		b = &blocks[reserve.used++];
	pthread_mutex_unlock(&reserve.lock);
	return b;
}

static void
give_back(void *p)
{
	union block *b = p;

	pthread_mutex_lock(&reserve.lock);
	b->next = reserve.given_back;
	reserve.given_back = b;
	pthread_mutex_unlock(&reserve.lock);
}

static void *
allocate(size_t n)
{
	void *p = malloc(n);

	if (p == NULL && n <= BLOCK)
		p = take();
	return p;
}

static void
release(void *p)
{
	if (is_reserve(p))
		give_back(p);
	else
		free(p);
}

static void *
reallocate(void *p, size_t n)
{
	size_t had = is_reserve(p) ? BLOCK : malloc_usable_size(p);
	void *next;

	if (n <= had && p != NULL)
		return p;
	if ((next = allocate(n)) != NULL && p != NULL) {
		memcpy(next, p, had);
		release(p);
	}
	return next;
}

void
reserve_install(void)
{
	event_set_mem_functions(allocate, reallocate, release);
}
