/*
 * lanes: 16 bytes that are looked at at once, by GCC's vector extension: a comparison sets all bits of
 * the lanes where it is true.  Pure.
 */
#ifndef KEYTRAIL_LANES_H
#define KEYTRAIL_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

typedef unsigned char lanes __attribute__((vector_size(LANES)));
typedef uint64_t lanes_halves __attribute__((vector_size(LANES)));

static inline lanes
lanes_load(const char *p)
{
	lanes l;

	memcpy(&l, p, LANES);
	return l;
}

static inline void
lanes_store(char *p, lanes l)
{
	memcpy(p, &l, LANES);
}

static inline uint64_t
lanes_word(const char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

static inline uint32_t
lanes_half_word(const char *p)
{
	uint32_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* 1 to LANES - 1 bytes; which of them stand in more than one lane depends on n alone. */
static inline lanes
lanes_load_short(const char *p, size_t n)
{
	uint64_t low, high;

	if (n >= 8) {
		low = lanes_word(p);
		high = lanes_word(p + n - 8);
	} else if (n >= 4) {
		low = lanes_half_word(p);
		high = low |= (uint64_t)lanes_half_word(p + n - 4) << 32;
	} else {
		const unsigned char *b = (const unsigned char *)p;

		low = (uint64_t)b[0] | (uint64_t)b[n / 2] << 8 | (uint64_t)b[n - 1] << 16;
		high = low |= low << 24 | low << 48;
	}
	return (lanes)(lanes_halves){ low, high };
}

/* Are these 1 to LANES - 1 bytes the same? */
static inline bool
lanes_equal_short(const char *a, const char *b, size_t n)
{
	if (n >= 8)
		return ((lanes_word(a) ^ lanes_word(b)) |
			   (lanes_word(a + n - 8) ^ lanes_word(b + n - 8))) == 0;
	if (n >= 4)
		return ((lanes_half_word(a) ^ lanes_half_word(b)) |
			   (lanes_half_word(a + n - 4) ^ lanes_half_word(b + n - 4))) == 0;
	return a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1];
}

/* Of what comparisons gave: is it true in any lane? */
static inline bool
lanes_any(lanes l)
{
	lanes_halves half = (lanes_halves)l;

	return (half[0] | half[1]) != 0;
}

static inline unsigned
lanes_first_byte(uint64_t word)
{
	bool little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

	return (unsigned)(little ? __builtin_ctzll(word) : __builtin_clzll(word)) / 8;
}

/* The first lane of them. */
static inline unsigned
lanes_first(lanes l)
{
	lanes_halves half = (lanes_halves)l;

	return half[0] != 0 ? lanes_first_byte(half[0]) : 8 + lanes_first_byte(half[1]);
}

#endif
