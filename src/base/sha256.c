/* The one-shot functions of OpenSSL 3 look the algorithm up at every call, which costs half as much
 * again as hashing a line; these need no context on the heap either. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "keytrail/sha256.h"

#include <assert.h>
#include <openssl/sha.h>

#define BLOCK 64

_Static_assert(SHA256_SIZE == SHA256_DIGEST_LENGTH, "this is SHA-256");

void
sha256_joined(struct slice a, struct slice b, unsigned char out[SHA256_SIZE])
{
	SHA256_CTX c;

	SHA256_Init(&c);
	SHA256_Update(&c, a.p, a.n);
	SHA256_Update(&c, b.p, b.n);
	SHA256_Final(out, &c);
}

/* With its padding, so that all that is left to do is the same for every block. */
void
sha256_batch_add(struct sha256_batch *b, unsigned char first, struct slice message)
{
	unsigned char *to = b->room + b->used;
	size_t length = 1 + message.n, padded = SHA256_ROOM(message.n);
	uint64_t bits = __builtin_bswap64((uint64_t)length * 8);

	assert(b->n < SHA256_LANES);
	to[0] = first;
	memcpy(to + 1, message.p, message.n);
	memset(to + length, 0, padded - length);
	to[length] = 0x80;
	memcpy(to + padded - sizeof(bits), &bits, sizeof(bits));
	b->messages[b->n].at = b->used;
	b->messages[b->n++].length = length;
	b->used += padded;
}

static void
hash_in_turn(const struct sha256_batch *b, unsigned char (*out)[SHA256_SIZE])
{
	for (unsigned i = 0; i < b->n; i++)
		sha256_joined((struct slice){ (const char *)b->room + b->messages[i].at,
				  b->messages[i].length },
		    SLICE_EMPTY, out[i]);
}

#ifdef __x86_64__
#include <immintrin.h>

#define HARDWARE __attribute__((target("avx512f,avx512bw")))
#define WORTH_IT 8

/* The same word of each message, or of each one's state. */
typedef uint32_t words __attribute__((vector_size(4 * SHA256_LANES)));

static const uint32_t initial[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
	0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

static const uint32_t constants[64] = { 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b,
	0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6,
	0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d,
	0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
	0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585,
	0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa,
	0xa4506ceb, 0xbef9a3f7, 0xc67178f2 };

/* Truth tables of choice, majority and parity (FIPS 180-4 section 4.1.2), one instruction each. */
#define CHOICE	 0xca
#define MAJORITY 0xe8
#define PARITY	 0x96
#define LOGIC(table, x, y, z)                                                                      \
	((words)_mm512_ternarylogic_epi32((__m512i)(x), (__m512i)(y), (__m512i)(z), table))
#define ROTATE(x, n) ((words)_mm512_ror_epi32((__m512i)(x), n))
#define SHIFT(x, n)  ((words)_mm512_srli_epi32((__m512i)(x), n))

HARDWARE static inline void
round_with(words s[8], words w, uint32_t k)
{
	words a = s[0], e = s[4];
	words t1 = s[7] + LOGIC(PARITY, ROTATE(e, 6), ROTATE(e, 11), ROTATE(e, 25)) +
		   LOGIC(CHOICE, e, s[5], s[6]) + k + w;
	words t2 = LOGIC(PARITY, ROTATE(a, 2), ROTATE(a, 13), ROTATE(a, 22)) +
		   LOGIC(MAJORITY, a, s[1], s[2]);

	s[7] = s[6];
	s[6] = s[5];
	s[5] = e;
	s[4] = s[3] + t1;
	s[3] = s[2];
	s[2] = s[1];
	s[1] = a;
	s[0] = t1 + t2;
}

/* Word i of the message schedule becomes word i + 16. */
HARDWARE static inline void
extend(words w[16], unsigned i)
{
	words a = w[(i + 1) % 16], b = w[(i + 14) % 16];

	w[i] += w[(i + 9) % 16] + LOGIC(PARITY, ROTATE(a, 7), ROTATE(a, 18), SHIFT(a, 3)) +
		LOGIC(PARITY, ROTATE(b, 17), ROTATE(b, 19), SHIFT(b, 10));
}

HARDWARE static inline __m128i
load(const unsigned char *p)
{
	return _mm_loadu_si128((const void *)p);
}

/* 16 bytes of every fourth message. */
HARDWARE static inline __m512i
load_parts(const unsigned char *const *at, unsigned offset)
{
	const __m512i big_endian =
	    _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);
	__m512i parts = _mm512_castsi128_si512(load(at[0] + offset));

	parts = _mm512_inserti32x4(parts, load(at[4] + offset), 1);
	parts = _mm512_inserti32x4(parts, load(at[8] + offset), 2);
	parts = _mm512_inserti32x4(parts, load(at[12] + offset), 3);
	return _mm512_shuffle_epi8(parts, big_endian);
}

/* Four words of the block of each message; a gather instruction for each word takes longer. */
HARDWARE static inline void
load_words(words w[4], const unsigned char *const at[SHA256_LANES], unsigned offset)
{
	__m512i a = load_parts(at, offset), b = load_parts(at + 1, offset);
	__m512i c = load_parts(at + 2, offset), d = load_parts(at + 3, offset);
	__m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);

	w[0] = (words)_mm512_unpacklo_epi64(ab, cd);
	w[1] = (words)_mm512_unpackhi_epi64(ab, cd);
	ab = _mm512_unpackhi_epi32(a, b);
	cd = _mm512_unpackhi_epi32(c, d);
	w[2] = (words)_mm512_unpacklo_epi64(ab, cd);
	w[3] = (words)_mm512_unpackhi_epi64(ab, cd);
}

/* One block of each message: the one that begins at at[lane]. */
HARDWARE static void
compress(words state[8], const unsigned char *const at[SHA256_LANES])
{
	words s[8], w[16];

#pragma GCC unroll 4
	for (unsigned i = 0; i < 16; i += 4)
		load_words(w + i, at, 4 * i);
	memcpy(s, state, sizeof(s));
	for (unsigned t = 0; t < 64; t += 16) {
#pragma GCC unroll 16
		for (unsigned i = 0; i < 16; i++) {
			round_with(s, w[i], constants[t + i]);
			if (t < 48)
				extend(w, i);
		}
	}
	for (unsigned i = 0; i < 8; i++)
		state[i] += s[i];
}

HARDWARE static void
store_hash(const words state[8], unsigned lane, unsigned char out[SHA256_SIZE])
{
	for (unsigned i = 0; i < 8; i++) {
		uint32_t word = __builtin_bswap32(state[i][lane]);

		memcpy(out + 4 * i, &word, sizeof(word));
	}
}

/* A lane without a message, or at its end, goes on for nothing. */
HARDWARE static void
hash_in_lanes(const struct sha256_batch *b, unsigned char (*out)[SHA256_SIZE])
{
	const unsigned char *at[SHA256_LANES];
	unsigned left = b->n;
	words state[8];

	for (unsigned i = 0; i < 8; i++)
		state[i] = (words)_mm512_set1_epi32((int)initial[i]);
	for (unsigned lane = 0; lane < SHA256_LANES; lane++)
		at[lane] = b->room + (lane < b->n ? b->messages[lane].at : 0);
	for (size_t done = BLOCK; left > 0; done += BLOCK) {
		compress(state, at);
		for (unsigned lane = 0; lane < b->n; lane++) {
			size_t padded = SHA256_ROOM(b->messages[lane].length - 1);

			if (done < padded)
				at[lane] += BLOCK;
			if (done != padded)
				continue;
			store_hash(state, lane, out[lane]);
			left--;
		}
	}
}

static void
hash_all(const struct sha256_batch *b, unsigned char (*out)[SHA256_SIZE])
{
	if (b->n >= WORTH_IT && __builtin_cpu_supports("avx512f") &&
	    __builtin_cpu_supports("avx512bw"))
		hash_in_lanes(b, out);
	else
		hash_in_turn(b, out);
}
#else
#define hash_all hash_in_turn
#endif

void
sha256_batch_finish(struct sha256_batch *b, unsigned char (*out)[SHA256_SIZE])
{
	hash_all(b, out);
	b->n = 0;
	b->used = 0;
}
