/*
 * lanes: 16 bytes that are looked at at once, by GCC's vector extension: a comparison sets all bits of
 * the lanes where it is true.  Pure.
 */
#ifndef KEYTRAIL_LANES_H
#define KEYTRAIL_LANES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

typedef unsigned char lanes __attribute__((vector_size(LANES)));

static inline lanes
lanes_load(const char *p)
{
	lanes l;

	memcpy(&l, p, LANES);
	return l;
}

/* Of what comparisons gave: is it true in any lane? */
static inline bool
lanes_any(lanes l)
{
	uint64_t half[2];

	memcpy(half, &l, LANES);
	return (half[0] | half[1]) != 0;
}

#endif
