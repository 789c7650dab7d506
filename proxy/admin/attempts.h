/*
 * attempts: how often a source may come with a wrong token.
 *
 * ATTEMPTS_MAX times at once, and once more each ATTEMPTS_EACH_NS.  A source is what it is to peers,
 * whatever the address's scope.  The ATTEMPTS_SOURCES that have the longest to wait are known.  Pure.
 */
#ifndef KEYTRAIL_PROXY_ATTEMPTS_H
#define KEYTRAIL_PROXY_ATTEMPTS_H

#include <stdbool.h>
#include <stdint.h>

#define ATTEMPTS_SOURCES 64
#define ATTEMPTS_MAX	 10
#define ATTEMPTS_EACH_NS INT64_C(6000000000)

/* All zero: nobody has tried. */
struct attempts {
	struct {
		unsigned char source[16];
		int64_t due; /* when the next one would be if they came evenly; monotonic ns */
	} all[ATTEMPTS_SOURCES];
};

/* address: as text; what is none is one source. */
bool attempts_allow(const struct attempts *a, const char *address, int64_t now);
void attempts_count(struct attempts *a, const char *address, int64_t now);

#endif
