/*
 * uri: the one function that decides whether a path or a query could be read in two ways.
 *
 * RFC 3986; the table of cases in tests/unit/test_uri.c is its documentation.  Pure; any thread.
 */
#ifndef KEYTRAIL_URI_H
#define KEYTRAIL_URI_H

#include "keytrail/refusal.h"
#include "keytrail/slice.h"

#define URI_SEGMENTS_MAX 32

struct uri_path {
	unsigned nsegments;
	struct slice segments[URI_SEGMENTS_MAX]; /* raw, between the slashes */
	/* bit i: segment i holds an encoded slash, backslash or percent, which is legal only where
	 * the route has a {parameter} */
	uint32_t encoded_delimiter;
};

/*
 * Split a raw path that begins with '/'.  REFUSAL_NONE, or REFUSAL_AMBIGUOUS_PATH /
 * REFUSAL_BAD_TARGET: "//", an empty last segment (but for the path "/", which has no segments),
 * "." and ".." segments plain or encoded, "%XX" of an unreserved character, a malformed "%",
 * encoded NUL or control bytes, backslash, ';', '#', control and non-ASCII bytes.
 */
enum http_refusal uri_split_path(struct slice path, struct uri_path *out);

/* Step through a raw query: *rest is advanced past the next name=value; false at the end.  A
 * parameter without '=' has an empty value and *has_value false. */
bool uri_next_parameter(
    struct slice *rest, struct slice *name, struct slice *value, bool *has_value);

/* Characters and '%' escapes of a query are well-formed: NONE, BAD_TARGET or AMBIGUOUS_QUERY. */
enum http_refusal uri_check_query(struct slice query);

/*
 * Does `name`, percent-decoded ('+' as space) and case-folded, equal `literal` without being it
 * byte for byte?  Repeated decoding (%2561) counts too.
 */
bool uri_is_disguised(struct slice name, struct slice literal);

#endif
