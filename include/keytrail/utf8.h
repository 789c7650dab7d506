/*
 * utf8: one character at a time, strictly (RFC 3629): no overlong forms, no surrogates, nothing
 * above U+10FFFF.  Pure; any thread.
 */
#ifndef KEYTRAIL_UTF8_H
#define KEYTRAIL_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT 0xfffdu /* stands for what may not be shown or could not be read */

/* The character at p (n > 0 bytes are there): its length, 1 to 4, or 0: it is invalid or cut. */
size_t utf8_decode(const char *p, size_t n, uint32_t *cp);

/* Write a character; its length, 1 to 4. */
size_t utf8_encode(uint32_t cp, char out[4]);

#endif
