/*
 * http_preset_impl: what the files of the presets share.
 */
#ifndef KEYTRAIL_HTTP_PRESET_IMPL_H
#define KEYTRAIL_HTTP_PRESET_IMPL_H

#include "keytrail/http_preset.h"
#include "keytrail/jsonscan.h"

#define HTTP_PUT(out, literal) buf_append(out, literal, sizeof(literal) - 1)

/* The JSON string of s. */
int http_put_string(struct buf *out, struct slice s);

/* The time of an event in nanoseconds since 1970; 0 when its line has none. */
int64_t http_time_ns(const struct sink_event *e);

/* A string of an event's line, as it stands. */
struct slice http_fact(const struct sink_event *e, struct slice key);

/* Append what `one` makes of each event, with `separator` between, or behind each. */
typedef int (*http_one_fn)(const struct sink_event *e, struct buf *out);
int http_put_each(const struct sink_event *events, size_t n, const char *separator, http_one_fn one,
    struct buf *out);
int http_put_text(const struct sink_event *e, struct buf *out);

/* Begin with the object that a body is. */
int http_open_object(struct jsonscan *s, struct slice body);

/* Go through the members of an object of which `{` has been read: 1 and the value's first token, 0 at
 * its end, -1. */
int http_next_member(struct jsonscan *s, struct slice *key, struct jsonscan_token *value);
bool http_number(const struct jsonscan_token *t, uint64_t *out); /* or a string of digits */

/* Set the verdict. */
int http_say(struct http_verdict *v, enum http_say say, size_t done, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The answer is none of what is documented. */
int http_not_understood(struct http_verdict *v);

extern const struct http_preset http_elasticsearch, http_opensearch, http_splunk, http_loki,
    http_otlp, http_ibm;

#endif
