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
	/* bit i: segment i holds an encoded slash, backslash, percent, ';', '?', '#' or non-ASCII
	 * byte, which is legal only where the route has a {parameter} */
	uint32_t encoded_delimiter;
	bool plain; /* letters, digits, '-', '_' and '/' alone */
};

/*
 * Split a raw path that begins with '/'; "/" has no segments.  REFUSAL_NONE, or
 * REFUSAL_AMBIGUOUS_PATH: "//", an empty last segment; "." and ".." between slashes or backslashes,
 * plain or encoded; "%XX" of an unreserved or control character or of no well-formed UTF-8; all of
 * this also in what "%25XX" decodes to, and a "%25" before anything else; backslash and ';'.
 * REFUSAL_BAD_TARGET: bytes that RFC 3986 allows in no path (control, non-ASCII, '#', ...), a
 * malformed "%", more than URI_SEGMENTS_MAX segments.
 */
enum http_refusal uri_split_path(struct slice path, struct uri_path *out);

/* Step through a raw query: *rest is advanced past the next name=value; false at the end.  A
 * parameter without '=' has an empty value and *has_value false; empty ones ("&&") are skipped. */
bool uri_next_parameter(
    struct slice *rest, struct slice *name, struct slice *value, bool *has_value);

/* NONE; BAD_TARGET: bytes that RFC 3986 allows in no query, a malformed "%"; AMBIGUOUS_QUERY: ';',
 * backslash, and what decodes, however often, to control characters or to no well-formed UTF-8. */
enum http_refusal uri_check_query(struct slice query);

/*
 * Would somebody read `name` as `literal` (of unreserved characters) though it is not it byte for
 * byte: percent-decoded any number of times, ASCII case folded, without white space ('+' too)
 * around it, without the "[...]" of an array, with a '_' for what PHP takes for one?  Also true for
 * a name of over 256 bytes that holds any of this.
 */
bool uri_is_disguised(struct slice name, struct slice literal);

/*
 * Would somebody who decodes a parameter, any number of times, before he looks for '&', ';' and '='
 * in it read `literal` there, disguised or not?  Not asked of its name as it stands.  Also true
 * where any of these names has over 256 bytes.
 */
bool uri_hides_parameter(struct slice parameter, struct slice literal);

#endif
