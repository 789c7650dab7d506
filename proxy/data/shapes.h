/*
 * shapes: which paths come that fit no route, by their shapes (route.h), and how often.
 *
 * The first SHAPES_MAX are known for good, those after them are one number: who sends many shapes
 * makes nothing grow.  Counting is for any thread, without a lock where the shape is known.
 */
#ifndef KEYTRAIL_PROXY_SHAPES_H
#define KEYTRAIL_PROXY_SHAPES_H

#include "keytrail/err.h"

#include <stdint.h>

#define SHAPES_MAX 256

struct shapes;

struct shape {
	const char *text; /* the shapes' */
	uint64_t count;
	int64_t last_ns; /* wall clock */
};

struct shapes *shapes_new(struct err *err);
void shapes_free(struct shapes *s); /* NULL is allowed */

void shapes_count(struct shapes *s, const char *shape, int64_t now_ns);

unsigned shapes_known(const struct shapes *s);
/* In the order in which they first came; how many. */
unsigned shapes_list(const struct shapes *s, struct shape out[SHAPES_MAX], uint64_t *others);

#endif
