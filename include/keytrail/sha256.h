/*
 * sha256: SHA-256 (FIPS 180-4), of one message or of up to sixteen side by side.
 *
 * With AVX-512 sixteen messages take as long as seven one after the other, which have the SHA
 * instructions.  Where there is none, and for less than eight, there is OpenSSL alone.  Pure; any
 * thread, one batch a thread.
 */
#ifndef KEYTRAIL_SHA256_H
#define KEYTRAIL_SHA256_H

#include "keytrail/slice.h"

#define SHA256_SIZE  32
#define SHA256_LANES 16

/* Of a and b, joined. */
void sha256_joined(struct slice a, struct slice b, unsigned char out[SHA256_SIZE]);

/* What a message of n bytes takes in a batch's room. */
#define SHA256_ROOM(n) (((n) + 1 + 1 + 8 + 63) / 64 * 64)

struct sha256_batch {
	unsigned char
	    *room; /* the caller's, for SHA256_LANES messages and what is put around them */
	size_t used;
	unsigned n;
	struct {
		size_t at, length;
	} messages[SHA256_LANES];
};

/* One byte and a message behind it, which are copied; at most SHA256_LANES. */
void sha256_batch_add(struct sha256_batch *b, unsigned char first, struct slice message);
/* The hashes of those that were added, in order; the batch is empty then. */
void sha256_batch_finish(struct sha256_batch *b, unsigned char (*out)[SHA256_SIZE]);

#endif
