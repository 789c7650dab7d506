/*
 * strict: reads what keytrail wrote, the way the least forgiving peer would (RFC 9110, RFC 9112).
 *
 * For tests alone; shares no code with keytrail's own parser, nor with llhttp.  Accepts the
 * canonical form only: no byte that a recipient may take in two ways, no hop-by-hop field, no chunk
 * extension, one of each field that frames, routes or identifies.  Pure; any thread.
 */
#ifndef WIRE_STRICT_H
#define WIRE_STRICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum strict_result { STRICT_WHOLE, STRICT_PARTIAL, STRICT_BAD };

/* How a message is to be read.  The two answers differ in whether a body follows. */
enum strict_kind { STRICT_REQUEST, STRICT_ANSWER, STRICT_ANSWER_TO_HEAD };

struct strict_message {
	const char *method, *target; /* in the bytes that were read; a request's */
	size_t method_len, target_len;
	unsigned status; /* an answer's */
	const char *fields,
	    *trailers; /* lines "Name: value\r\n"; of a whole head, and a whole body */
	size_t fields_len, trailers_len;
	bool has_head; /* all above is known; false: PARTIAL within the head */
	bool close;    /* the connection ends after it */
	bool chunked, counted, until_close;
	uint64_t length;       /* of a counted body */
	uint64_t content, sum; /* bytes of content that were there, and strict_sum() of them */
	size_t used;	       /* of a WHOLE message */
	const char *why;       /* BAD; static */
};

/* Read the message that begins at p.  A body that ends with the connection is PARTIAL. */
enum strict_result strict_read(
    const char *p, size_t n, enum strict_kind kind, struct strict_message *out);

/* Do servers take a field of this name for where a request came from? */
bool strict_is_origin(const char *name, size_t n);

#define STRICT_SUM_INIT UINT64_C(0xcbf29ce484222325)

/* FNV-1a over more bytes. */
uint64_t strict_sum(uint64_t sum, const char *p, size_t n);

#endif
