#include "keytrail/siphash.h"

#include <endian.h>

struct state {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t
rotate(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static inline void
round_once(struct state *s)
{
	s->v0 += s->v1;
	s->v1 = rotate(s->v1, 13) ^ s->v0;
	s->v0 = rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotate(s->v1, 17) ^ s->v2;
	s->v2 = rotate(s->v2, 32);
}

static inline void
absorb(struct state *s, uint64_t word)
{
	s->v3 ^= word;
	round_once(s);
	round_once(s);
	s->v0 ^= word;
}

static inline uint64_t
squeeze(struct state *s)
{
	for (int i = 0; i < 4; i++)
		round_once(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

static inline uint64_t
word_at(const void *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return le64toh(word);
}

void
siphash(const unsigned char key[SIPHASH_KEY_SIZE], struct slice text, uint64_t out[2])
{
	uint64_t k0 = word_at(key), k1 = word_at(key + 8);
	struct state s = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ 0xee,
		k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573 };
	size_t whole = text.n & ~(size_t)7;
	uint64_t last = (uint64_t)text.n << 56;

	for (size_t i = 0; i < whole; i += 8)
		absorb(&s, word_at(text.p + i));
	for (size_t i = whole; i < text.n; i++)
		last |= (uint64_t)(unsigned char)text.p[i] << (i - whole) * 8;
	absorb(&s, last);
	s.v2 ^= 0xee;
	out[0] = squeeze(&s);
	s.v1 ^= 0xdd;
	out[1] = squeeze(&s);
}
