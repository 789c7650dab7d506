/*
 * format: what a sink sends of an event: the line of the trail, or its facts as another schema names
 * them.  Tables say which attribute is made of which fact; code and manual are made from them.
 *
 * Whatever the format: one line, with log id, boot, sequence, prev and hash in it.  Of a stub, and
 * of a line that is no canonical JSON, there is little more than action and outcome.  Pure.
 */
#ifndef KEYTRAIL_FORMAT_H
#define KEYTRAIL_FORMAT_H

#include "keytrail/sink.h"

/* Append the text of an event, all of whose members are set but `text`.  -1 when memory is short. */
int format_render(
    enum config_format format, const struct sink_event *e, struct buf *out, struct err *err);

int format_reference(struct buf *out); /* Markdown */

#endif
