#include "http_preset_impl.h"

#include "keytrail/clock.h"
#include "keytrail/event.h"
#include "keytrail/trail.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- what presets share ---- */

int
http_put_string(struct buf *out, struct slice s)
{
	size_t most = 6 * s.n + 2;
	long n;

	if (buf_reserve(out, most) == -1 || (n = event_json_string(s, buf_tail(out), most)) == -1)
		return -1;
	buf_commit(out, (size_t)n);
	return 0;
}

struct slice
http_fact(const struct sink_event *e, struct slice key)
{
	return trail_line_string(e->line, key);
}

int64_t
http_time_ns(const struct sink_event *e)
{
	int64_t ns;

	return clock_parse_event_time(http_fact(e, SLICE("eventTime")), &ns) == 0 ? ns : 0;
}

void
http_id(const struct sink_event *e, char out[HTTP_ID_SIZE])
{
	snprintf(out, HTTP_ID_SIZE, "%.40s-%.40s-%" PRIu64, e->log, e->boot, e->seq);
}

int
http_put_text(const struct sink_event *e, struct buf *out)
{
	return buf_append_slice(out, e->text);
}

int
http_put_each(const struct sink_event *events, size_t n, const char *separator, http_one_fn one,
    struct buf *out)
{
	for (size_t i = 0; i < n; i++)
		if ((i > 0 && buf_append(out, separator, strlen(separator)) == -1) ||
		    one(&events[i], out) == -1)
			return -1;
	return 0;
}

int
http_open_object(struct jsonscan *s, struct slice body)
{
	struct jsonscan_token t;

	jsonscan_init(s, body);
	return jsonscan_next(s, &t) == JSONSCAN_OBJECT ? 0 : -1;
}

int
http_next_member(struct jsonscan *s, struct slice *key, struct jsonscan_token *value)
{
	struct jsonscan_token t;

	switch (jsonscan_next(s, &t)) {
	case JSONSCAN_KEY:
		*key = t.raw;
		return jsonscan_next(s, value) == JSONSCAN_BAD ? -1 : 1;
	case JSONSCAN_OBJECT_END:
		return 0;
	default:
		return -1;
	}
}

bool
http_number(const struct jsonscan_token *t, uint64_t *out)
{
	return (t->type == JSONSCAN_NUMBER || t->type == JSONSCAN_STRING) &&
	       slice_to_u64(t->raw, out) == 0;
}

int
http_say(struct http_verdict *v, enum http_say say, size_t done, const char *fmt, ...)
{
	va_list ap;

	v->say = say;
	v->done = done;
	va_start(ap, fmt);
	vsnprintf(v->why, sizeof(v->why), fmt, ap);
	va_end(ap);
	return 0;
}

int
http_not_understood(struct http_verdict *v)
{
	return http_say(v, HTTP_LATER, 0, "the server's answer is none that was expected");
}

/* ---- statuses ---- */

/* Those that say something of the events.  What every event would meet alike is the operator's to mend,
 * and sends none into quarantine. */
static bool
is_of_events(unsigned status)
{
	return status == 400 || status == 413 || status == 422;
}

static const struct {
	unsigned from, to;
	const char *text;
} meanings[] = {
	{ 300, 399, "the server redirects, which is not followed" },
	{ 400, 400, "the server refuses what it was sent" },
	{ 401, 401, "the server does not know the credentials" },
	{ 403, 403, "the server forbids it to these credentials" },
	{ 404, 404, "the server has nothing at this address" },
	{ 407, 407, "the proxy wants credentials" },
	{ 413, 413, "the server takes no request of this size" },
	{ 415, 415, "the server does not take this encoding" },
	{ 422, 422, "the server refuses what it was sent" },
	{ 429, 429, "the server wants fewer requests" },
	{ 503, 503, "the server is not available" },
	{ 100, 999, "the server could not do it" },
};

static int
read_status(unsigned status, size_t n, struct http_verdict *v)
{
	size_t i = 0;

	if (status >= 200 && status <= 299)
		return http_say(v, HTTP_TAKEN, n, "%s", "");
	while (status < meanings[i].from || status > meanings[i].to)
		if (++i == sizeof(meanings) / sizeof(meanings[0]))
			return http_not_understood(v);
	return http_say(v, is_of_events(status) ? HTTP_REFUSED : HTTP_LATER, 0, "%s (status %u)",
	    meanings[i].text, status);
}

int
http_read(const struct http_preset *p, const struct http_reply *reply,
    const struct sink_event *events, size_t n, struct http_verdict *out, struct buf *ask)
{
	*out = (struct http_verdict){ .ack = HTTP_NO_ACK };
	read_status(reply->status, n, out);
	if (p->read != NULL && p->read(reply, events, n, out, ask) == -1)
		return -1;
	/* Alone it has nobody to blame. */
	if (out->say == HTTP_REFUSED && n - out->done == 1)
		out->say = HTTP_REJECTED;
	return 0;
}

/* ---- without a preset, and CloudEvents ---- */

static int
frame_array(const struct sink_event *events, size_t n, struct buf *out)
{
	return HTTP_PUT(out, "[") == -1 ||
		       http_put_each(events, n, ",", http_put_text, out) == -1 ||
		       HTTP_PUT(out, "]") == -1
		   ? -1
		   : 0;
}

static int
frame_lines(const struct sink_event *events, size_t n, struct buf *out)
{
	return http_put_each(events, n, "\n", http_put_text, out) == -1 ? -1 : HTTP_PUT(out, "\n");
}

static const struct http_preset lines = { "ndjson", "", "application/x-ndjson", "Bearer",
	frame_lines, NULL, NULL, NULL };
static const struct http_preset array = { "json", "", "application/json", "Bearer", frame_array,
	NULL, NULL, NULL };
/* CloudEvents' HTTP protocol binding, section 3.3: batched content mode. */
static const struct http_preset cloudevents = { "cloudevents", "",
	"application/cloudevents-batch+json; charset=UTF-8", "Bearer", frame_array, NULL, NULL,
	NULL };

static const struct http_preset *const presets[CONFIG_HTTP_PRESETS] = {
	[CONFIG_HTTP_NDJSON] = &lines,
	[CONFIG_HTTP_JSON] = &array,
	[CONFIG_HTTP_ELASTICSEARCH] = &http_elasticsearch,
	[CONFIG_HTTP_OPENSEARCH] = &http_opensearch,
	[CONFIG_HTTP_IBM_CLOUD_LOGS] = &http_ibm,
	[CONFIG_HTTP_SPLUNK_HEC] = &http_splunk,
	[CONFIG_HTTP_LOKI] = &http_loki,
	[CONFIG_HTTP_OTLP] = &http_otlp,
	[CONFIG_HTTP_CLOUDEVENTS] = &cloudevents,
};

const struct http_preset *
http_preset_of(enum config_http_preset preset)
{
	assert((unsigned)preset < CONFIG_HTTP_PRESETS);
	return presets[preset];
}
