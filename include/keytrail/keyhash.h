/*
 * keyhash: a keyed hash of 128 bits, for what stands in for a secret text in memory.  Who does not
 * know the key cannot find two texts of one hash, and learns nothing of it from what hashes show.
 *
 * GHASH (NIST SP 800-38D section 6.4) and one more block of AES over its result (the construction of
 * Carter and Wegman, with a cipher for the mask): OpenSSL has both at the speed of the processor's
 * own instructions.  One thread's.
 */
#ifndef KEYTRAIL_KEYHASH_H
#define KEYTRAIL_KEYHASH_H

#include "keytrail/slice.h"

#include <stdint.h>

#define KEYHASH_KEY_SIZE 16

struct keyhash;

/* The key: random, and used for nothing else.  NULL: memory is short. */
struct keyhash *keyhash_new(const unsigned char key[KEYHASH_KEY_SIZE]);
void keyhash_free(struct keyhash *h);

void keyhash(struct keyhash *h, struct slice text, uint64_t out[2]);

#endif
