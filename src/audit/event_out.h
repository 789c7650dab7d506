/*
 * event_out: how the renderers of this module append JSON to a caller's buffer.
 *
 * The room is checked by assertion only: every piece is bounded, and the bounds add up to less than
 * the buffer (event.h).  Private to event*.c.
 */
#ifndef KEYTRAIL_EVENT_OUT_H
#define KEYTRAIL_EVENT_OUT_H

#include "keytrail/event.h"

#include <assert.h>

struct event_out {
	char *p, *end;
};

static inline void
out_bytes(struct event_out *o, const char *p, size_t n)
{
	assert(n <= (size_t)(o->end - o->p));
	memcpy(o->p, p, n);
	o->p += n;
}

#define OUT_LIT(o, lit) out_bytes((o), "" lit, sizeof(lit) - 1)

/* The inside of a JSON string: escaped, and cut at a character when that takes over max bytes. */
void event_out_text(struct event_out *o, struct slice s, size_t max);

static inline void
out_text(struct event_out *o, const char *s, size_t max)
{
	event_out_text(o, slice_of(s), max);
}

void event_out_number(struct event_out *o, uint64_t n);

#endif
