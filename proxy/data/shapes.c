#include "data/shapes.h"

#include "keytrail/route.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct row {
	atomic_uint_fast64_t count;
	_Atomic int64_t last_ns;
	char text[ROUTE_SHAPE_SIZE]; /* fixed once it is among the n */
};

struct shapes {
	atomic_uint n;
	atomic_uint_fast64_t others;
	pthread_mutex_t lock; /* to add one */
	uint32_t hashes[SHAPES_MAX];
	struct row rows[SHAPES_MAX];
};

/* FNV-1a: a collision costs a comparison. */
static uint32_t
hash_of(const char *text)
{
	uint32_t h = 2166136261u;

	for (; *text != '\0'; text++)
		h = (h ^ (unsigned char)*text) * 16777619u;
	return h;
}

unsigned
shapes_known(const struct shapes *s)
{
	return atomic_load_explicit(&s->n, memory_order_acquire);
}

static struct row *
find(struct shapes *s, const char *text, uint32_t hash)
{
	unsigned n = shapes_known(s);

	for (unsigned i = 0; i < n; i++)
		if (s->hashes[i] == hash && strcmp(s->rows[i].text, text) == 0)
			return &s->rows[i];
	return NULL;
}

static struct row *
add(struct shapes *s, const char *text, uint32_t hash)
{
	struct row *row;
	unsigned n;

	pthread_mutex_lock(&s->lock);
	n = atomic_load_explicit(&s->n, memory_order_relaxed);
	row = find(s, text, hash); /* another thread was first */
	if (row == NULL && n < SHAPES_MAX) {
		row = &s->rows[n];
		s->hashes[n] = hash;
		strncpy(row->text, text, sizeof(row->text) - 1);
		atomic_store_explicit(&s->n, n + 1, memory_order_release);
	}
	pthread_mutex_unlock(&s->lock);
	return row;
}

void
shapes_count(struct shapes *s, const char *shape, int64_t now_ns)
{
	unsigned before = shapes_known(s);
	uint32_t hash = hash_of(shape);
	struct row *row = find(s, shape, hash);

	if (row == NULL && before < SHAPES_MAX)
		row = add(s, shape, hash);
	if (row == NULL) {
		atomic_fetch_add_explicit(&s->others, 1, memory_order_relaxed);
		return;
	}
	atomic_fetch_add_explicit(&row->count, 1, memory_order_relaxed);
	atomic_store_explicit(&row->last_ns, now_ns, memory_order_relaxed);
}

unsigned
shapes_list(const struct shapes *s, struct shape out[SHAPES_MAX], uint64_t *others)
{
	unsigned n = shapes_known(s);

	for (unsigned i = 0; i < n; i++)
		out[i] = (struct shape){ s->rows[i].text,
			atomic_load_explicit(&s->rows[i].count, memory_order_relaxed),
			atomic_load_explicit(&s->rows[i].last_ns, memory_order_relaxed) };
	*others = atomic_load_explicit(&s->others, memory_order_relaxed);
	return n;
}

struct shapes *
shapes_new(struct err *err)
{
	struct shapes *s = calloc(1, sizeof(*s));

	if (s == NULL)
		err_set(err, "memory is short");
	else
		pthread_mutex_init(&s->lock, NULL);
	return s;
}

void
shapes_free(struct shapes *s)
{
	if (s != NULL)
		pthread_mutex_destroy(&s->lock);
	free(s);
}
