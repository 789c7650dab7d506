#include "keytrail/crc32c.h"

#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define POLY 0x82f63b78u /* reflected */

static uint32_t
crc_bits(uint32_t crc, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++)
			crc = (crc >> 1) ^ (POLY & (0u - (crc & 1)));
	}
	return crc;
}

#ifdef __x86_64__
/* The instruction takes three cycles but can be begun in each: so three lanes are summed at once. */
#define LANE	 128
#define HARDWARE __attribute__((target("sse4.2,pclmul")))

HARDWARE static inline uint64_t
crc_word(uint64_t crc, const unsigned char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return _mm_crc32_u64(crc, word);
}

HARDWARE static inline __m128i
multiply(uint64_t crc, uint64_t power)
{
	return _mm_clmulepi64_si128(
	    _mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)power), 0);
}

/* A lane's sum goes on over the lanes behind it as if they were zeros: it is multiplied by a power
 * of x, of which reducing the product adds 33. */
HARDWARE static uint64_t
crc_lanes(uint64_t crc, const unsigned char *p)
{
	static const uint64_t power_of_one = 0x0d3b6092; /* x^(8 * LANE - 33) */
	static const uint64_t power_of_two = 0xb9e02b86; /* x^(16 * LANE - 33) */
	uint64_t a = crc, b = 0, c = 0;
	__m128i both;

	for (size_t i = 0; i < LANE; i += sizeof(uint64_t)) {
		a = crc_word(a, p + i);
		b = crc_word(b, p + LANE + i);
		c = crc_word(c, p + 2 * LANE + i);
	}
	both = _mm_xor_si128(multiply(a, power_of_two), multiply(b, power_of_one));
	return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(both)) ^ c;
}

HARDWARE static uint32_t
crc_hardware(uint32_t crc32, const unsigned char *p, size_t n)
{
	uint64_t crc = crc32;

	for (; n >= 3 * LANE; p += 3 * LANE, n -= 3 * LANE)
		crc = crc_lanes(crc, p);
	for (; n >= sizeof(uint64_t); p += sizeof(uint64_t), n -= sizeof(uint64_t))
		crc = crc_word(crc, p);
	crc32 = (uint32_t)crc;
	for (; n > 0; p++, n--)
		crc32 = _mm_crc32_u8(crc32, *p);
	return crc32;
}

static uint32_t
crc_update(uint32_t crc, const unsigned char *p, size_t n)
{
	return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")
		   ? crc_hardware(crc, p, n)
		   : crc_bits(crc, p, n);
}
#else
static uint32_t
crc_update(uint32_t crc, const unsigned char *p, size_t n)
{
	return crc_bits(crc, p, n);
}
#endif

uint32_t
crc32c(uint32_t crc, const void *p, size_t n)
{
	return ~crc_update(~crc, p, n);
}
