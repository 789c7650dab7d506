/*
 * base64: RFC 4648 section 4, with padding and nothing else: no white space, no bits left over, so
 * that bytes have one text.  Pure; any thread.
 */
#ifndef KEYTRAIL_BASE64_H
#define KEYTRAIL_BASE64_H

#include "keytrail/slice.h"

#define BASE64_SIZE(n) (((n) + 2) / 3 * 4)

/* Write BASE64_SIZE(n) characters, without a NUL; the length. */
size_t base64_encode(const void *p, size_t n, char *out);

/* The bytes of the text, at most cap: how many, or -1. */
long base64_decode(struct slice text, void *out, size_t cap);

#endif
