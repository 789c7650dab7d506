/*
 * pattern: a text with wild cards, '*' for any run of bytes and '?' for one.  Pure.
 */
#ifndef KEYTRAIL_PATTERN_H
#define KEYTRAIL_PATTERN_H

#include "keytrail/slice.h"

/* The whole of it. */
bool pattern_matches(const char *pattern, struct slice text);

#endif
