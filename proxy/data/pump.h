/*
 * pump: moves one body from buffer to buffer, taken out of its framing and framed anew.
 *
 * Both directions of an exchange use it: bytes are read into a buffer, their content goes through
 * http_body into another one with the framing of the other side.  Memory is bounded: a side that
 * holds PUMP_MAX bytes is not filled.
 */
#ifndef KEYTRAIL_PROXY_PUMP_H
#define KEYTRAIL_PROXY_PUMP_H

#include "data/stream.h"
#include "keytrail/buf.h"
#include "keytrail/parse.h"

#define PUMP_MAX    32768 /* bytes that wait for one side before the other is paused */
#define PUMP_ROUNDS 16	  /* reads of one body in a turn of the loop: then others are served */

enum pump_result {
	PUMP_SOME, /* content was moved; there may be more */
	PUMP_NONE, /* `in` holds nothing more of the body: read */
	PUMP_END,  /* the body is complete, its end is in `out` */
	PUMP_BAD,  /* *why */
	PUMP_MEMORY,
};

/* Move what `in` holds of a body into `out`, framed as `framing`, up to PUMP_MAX bytes. */
enum pump_result pump_fill(struct buf *out, enum http_framing framing, struct buf *in,
    struct http_body *body, enum http_refusal *why);

/* Write the end of a body that ended with its connection.  -1 when memory is short. */
int pump_end(struct buf *out, enum http_framing framing, const struct http_body *from);

/* Read once, about a TLS record, to the end of `in`; *n is set with STREAM_OK. */
enum stream_result pump_read(struct stream *s, struct buf *in, size_t *n);

#endif
