/*
 * jsonscan: a pull scanner for JSON (RFC 8259) that allocates nothing and keeps positions.
 *
 * It serves the two places a tree builder does not: the claims of a bearer token on the hot path,
 * and line:column of values in configuration errors.  Strict: UTF-8 checked, no lone surrogates, no
 * comments, no trailing commas, depth at most 32.  An error is final: every later call repeats it.
 * Names that occur twice are the caller's business.  Pure; one scanner is used by one thread.
 */
#ifndef KEYTRAIL_JSONSCAN_H
#define KEYTRAIL_JSONSCAN_H

#include "keytrail/slice.h"

#define JSONSCAN_DEPTH_MAX 32

enum jsonscan_type {
	JSONSCAN_OBJECT,     /* { */
	JSONSCAN_OBJECT_END, /* } */
	JSONSCAN_ARRAY,
	JSONSCAN_ARRAY_END,
	JSONSCAN_KEY, /* a member's name; its value follows */
	JSONSCAN_STRING,
	JSONSCAN_NUMBER,
	JSONSCAN_TRUE,
	JSONSCAN_FALSE,
	JSONSCAN_NULL,
	JSONSCAN_EOF, /* the text is one whole value and nothing else */
	JSONSCAN_BAD, /* `error` says why, `offset` where */
};

struct jsonscan {
	struct slice text;
	size_t pos;
	unsigned depth;
	uint32_t in_object; /* bit per level */
	unsigned expect;
	const char *error;
};

struct jsonscan_token {
	enum jsonscan_type type;
	size_t offset;	  /* of the token's first byte */
	struct slice raw; /* KEY and STRING: between the quotes, escapes as they stand;
				     * NUMBER, TRUE, FALSE and NULL: the word; else empty */
	bool escaped;	  /* raw holds a backslash */
};

void jsonscan_init(struct jsonscan *s, struct slice text);
enum jsonscan_type jsonscan_next(struct jsonscan *s, struct jsonscan_token *t);

/* Skip the value that `t` begins (an object or array with its content, or a scalar): 0 or -1. */
int jsonscan_skip(struct jsonscan *s, const struct jsonscan_token *t);

/* Unescape into out (UTF-8).  The length, or -1 when it does not fit in cap. */
long jsonscan_unescape(struct slice raw, char *out, size_t cap);

/* 1-based line and column (in bytes) of an offset. */
void jsonscan_position(struct slice text, size_t offset, unsigned *line, unsigned *column);

#endif
