/*
 * siphash: SipHash-2-4 with 128 bits of output (Aumasson and Bernstein), a keyed hash: who does not
 * know the key cannot find two texts of one hash.  Pure.
 */
#ifndef KEYTRAIL_SIPHASH_H
#define KEYTRAIL_SIPHASH_H

#include "keytrail/slice.h"

#include <stdint.h>

#define SIPHASH_KEY_SIZE 16

void siphash(const unsigned char key[SIPHASH_KEY_SIZE], struct slice text, uint64_t out[2]);

#endif
