/*
 * nearest: the word that somebody probably meant.
 *
 * By edit distance (Damerau's: insert, delete, replace, swap of neighbours), without regard to
 * case; none where less than two thirds of the word agree and neither abbreviates the other.
 *
 * Pure; any thread.
 */
#ifndef KEYTRAIL_NEAREST_H
#define KEYTRAIL_NEAREST_H

#include <stddef.h>

/* The i-th word of a list; "" is never the nearest. */
typedef const char *(*nearest_get_fn)(const void *list, size_t i);

/* The word of n that is nearest to the one that was meant, or NULL when none is near. */
const char *nearest_word(const char *meant, nearest_get_fn get, const void *list, size_t n);

#endif
