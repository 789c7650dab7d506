#include "keytrail/crc32c.h"

#include <string.h>

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
__attribute__((target("sse4.2"))) static uint32_t
crc_hardware(uint32_t crc32, const unsigned char *p, size_t n)
{
	uint64_t crc = crc32;

	for (; n >= 8; p += 8, n -= 8) {
		uint64_t word;

		memcpy(&word, p, 8);
		crc = __builtin_ia32_crc32di(crc, word);
	}
	crc32 = (uint32_t)crc;
	for (; n > 0; p++, n--)
		crc32 = __builtin_ia32_crc32qi(crc32, *p);
	return crc32;
}

static uint32_t
crc_update(uint32_t crc, const unsigned char *p, size_t n)
{
	return __builtin_cpu_supports("sse4.2") ? crc_hardware(crc, p, n) : crc_bits(crc, p, n);
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
