/*
 * crc32c: CRC-32C (Castagnoli), RFC 3720 appendix B.4; check value of "123456789" is e3069283.
 * Uses SSE4.2 and PCLMULQDQ where the processor has them.  Pure; any thread.
 */
#ifndef KEYTRAIL_CRC32C_H
#define KEYTRAIL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue `crc` (0 to begin) over n bytes. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

#endif
