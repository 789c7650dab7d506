/*
 * Loki's push API.  One stream a log: labels are few and never change, what tells events apart is in
 * the line.  Loki drops a line that it has with the same time, so repeats are harmless; it takes what
 * is somewhat out of order.
 */

#include "http_preset_impl.h"

#include <inttypes.h>
#include <string.h>

static int
put_value(const struct sink_event *e, struct buf *out)
{
	return buf_printf(out, "[\"%" PRId64 "\",", http_time_ns(e)) == -1 ||
		       http_put_string(out, e->text) == -1
		   ? -1
		   : HTTP_PUT(out, "]");
}

/* A trail may go on under a new log's name. */
static size_t
of_one_log(const struct sink_event *events, size_t n)
{
	size_t i = 1;

	while (i < n && strcmp(events[i].log, events[0].log) == 0)
		i++;
	return i;
}

static int
frame(const struct sink_event *events, size_t n, struct buf *out)
{
	const char *between = "{\"streams\":[";

	for (size_t i = 0, some; i < n; i += some) {
		some = of_one_log(events + i, n - i);
		if (buf_printf(out,
			"%s{\"stream\":{\"job\":\"keytrail\",\"log\":\"%s\"},\"values\":[", between,
			events[i].log) == -1 ||
		    http_put_each(events + i, some, ",", put_value, out) == -1 ||
		    HTTP_PUT(out, "]}") == -1)
			return -1;
		between = ",";
	}
	return HTTP_PUT(out, "]}");
}

static bool
says(struct slice body, const char *text)
{
	return memmem(body.p, body.n, text, strlen(text)) != NULL;
}

/* It has stored the lines of the request that it does take; sent again they are dropped. */
static int
read_answer(const struct http_reply *reply, const struct sink_event *events, size_t n,
    struct http_verdict *v, struct buf *ask)
{
	(void)events;
	(void)n;
	(void)ask;
	if (reply->status == 400 &&
	    (says(reply->body, "too far behind") || says(reply->body, "out of order") ||
		says(reply->body, "timestamp too old")))
		return http_say(
		    v, HTTP_REFUSED, 0, "older than what the server still takes (status 400)");
	return 0;
}

const struct http_preset http_loki = { "loki", "/loki/api/v1/push", "application/json", "Bearer",
	frame, read_answer, NULL, NULL };
