/*
 * slice: a borrowed range of bytes.
 *
 * Not NUL-terminated, may hold any byte.  Valid until the call it was passed to returns, unless
 * the header that hands it out names a later moment.  Pure; any thread.
 */
#ifndef KEYTRAIL_SLICE_H
#define KEYTRAIL_SLICE_H

#include "keytrail/lanes.h"

struct slice {
	const char *p;
	size_t n;
};

/* A slice of a string literal, as an expression and as an initialiser. */
#define SLICE(lit) ((struct slice){ "" lit, sizeof(lit) - 1 })
#define SLICE_INIT(lit)                                                                            \
	{                                                                                          \
		"" lit, sizeof(lit) - 1                                                            \
	}
#define SLICE_EMPTY ((struct slice){ "", 0 })

/* For printf's "%.*s". */
#define SLICE_ARG(s) (int)(s).n, (s).p

static inline struct slice
slice_of(const char *cstr)
{
	return (struct slice){ cstr, strlen(cstr) };
}

static inline struct slice
slice_sub(struct slice s, size_t from, size_t to)
{
	/* An empty slice may have no address, and NULL + 0 is undefined before C23. */
	return (struct slice){ from > 0 ? s.p + from : s.p, to - from };
}

static inline bool
slice_equal(struct slice a, struct slice b)
{
	return a.n == b.n && (a.n == 0 || (a.n < LANES ? lanes_equal_short(a.p, b.p, a.n)
						       : memcmp(a.p, b.p, a.n) == 0));
}

/* Order by bytes, a prefix before what it begins: below, equal to or above 0, as memcmp. */
static inline int
slice_compare(struct slice a, struct slice b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

/* Copy into an array of `size` bytes, with a NUL; that it fits is the caller's to know. */
void slice_to_cstr(struct slice s, char *out, size_t size);

/* ASCII case only, as RFC 9110 section 5.1 compares field names. */
bool slice_equal_nocase(struct slice a, struct slice b);

static inline bool
slice_has_prefix(struct slice s, struct slice prefix)
{
	return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

/* Without "\n" or "\r\n" at its end. */
struct slice slice_without_eol(struct slice s);

/* Without leading and trailing SP and HTAB (OWS of RFC 9110 section 5.6.3). */
struct slice slice_trim(struct slice s);

/* Unsigned decimal, digits only, no overflow: 0 and *out, or -1. */
int slice_to_u64(struct slice s, uint64_t *out);

#endif
