/* OTLP/HTTP with JSON: one log record an event. */

#include "http_preset_impl.h"

#include <inttypes.h>

/* ---- the request ---- */

static const struct {
	struct slice severity;
	unsigned number; /* of the data model's SeverityNumber */
	const char *text;
} severities[] = {
	{ SLICE_INIT("normal"), 9, "INFO" },
	{ SLICE_INIT("warning"), 13, "WARN" },
	{ SLICE_INIT("critical"), 21, "FATAL" },
};

static int
put_severity(const struct sink_event *e, struct buf *out)
{
	struct slice severity = http_fact(e, SLICE("severity"));

	for (size_t i = 0; i < sizeof(severities) / sizeof(severities[0]); i++)
		if (slice_equal(severity, severities[i].severity))
			return buf_printf(out, "\"severityNumber\":%u,\"severityText\":\"%s\",",
			    severities[i].number, severities[i].text);
	return 0;
}

static int
put_attribute(struct buf *out, const char *key, struct slice json)
{
	return buf_printf(
	    out, "{\"key\":\"%s\",\"value\":{\"stringValue\":\"%.*s\"}}", key, SLICE_ARG(json));
}

static int
put_attributes(const struct sink_event *e, struct buf *out)
{
	struct slice action = http_fact(e, SLICE("action"));

	return buf_printf(out,
		   "\"attributes\":[{\"key\":\"keytrail.seq\",\"value\":{\"intValue\":\"%" PRIu64
		   "\"}},",
		   e->seq) == -1 ||
		       put_attribute(out, "keytrail.log", slice_of(e->log)) == -1 ||
		       HTTP_PUT(out, ",") == -1 ||
		       put_attribute(out, "keytrail.boot", slice_of(e->boot)) == -1 ||
		       HTTP_PUT(out, ",") == -1 ||
		       put_attribute(out, "keytrail.hash", slice_of(e->hash)) == -1 ||
		       HTTP_PUT(out, ",") == -1 ||
		       put_attribute(out, "keytrail.action", action) == -1
		   ? -1
		   : HTTP_PUT(out, "]");
}

static int
put_record(const struct sink_event *e, struct buf *out)
{
	int64_t ns = http_time_ns(e);

	return buf_printf(out,
		   "{\"timeUnixNano\":\"%" PRId64 "\",\"observedTimeUnixNano\":\"%" PRId64 "\",",
		   ns, ns) == -1 ||
		       put_severity(e, out) == -1 ||
		       HTTP_PUT(out, "\"body\":{\"stringValue\":") == -1 ||
		       http_put_string(out, e->text) == -1 || HTTP_PUT(out, "},") == -1 ||
		       put_attributes(e, out) == -1
		   ? -1
		   : HTTP_PUT(out, "}");
}

static int
frame(const struct sink_event *events, size_t n, struct buf *out)
{
	return HTTP_PUT(out,
		   "{\"resourceLogs\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\","
		   "\"value\":{\"stringValue\":\"keytrail\"}}]},\"scopeLogs\":[{\"scope\":{"
		   "\"name\":\"keytrail\",\"version\":\"" KEYTRAIL_VERSION
		   "\"},\"logRecords\":[") == -1 ||
		       http_put_each(events, n, ",", put_record, out) == -1
		   ? -1
		   : HTTP_PUT(out, "]}]}]}");
}

/* ---- the answer ---- */

/* rejectedLogRecords of a partialSuccess, of which `{` has been read; it is an int64, so a string in
 * the JSON mapping of protocol buffers. */
static int
read_partial(struct jsonscan *s, uint64_t *rejected)
{
	struct jsonscan_token value;
	struct slice key;
	int rc;

	while ((rc = http_next_member(s, &key, &value)) == 1) {
		if (slice_equal(key, SLICE("rejectedLogRecords"))) {
			if (!http_number(&value, rejected))
				return -1;
		} else if (jsonscan_skip(s, &value) == -1) {
			return -1;
		}
	}
	return rc;
}

static int
read_success(struct slice body, uint64_t *rejected)
{
	struct jsonscan_token value;
	struct jsonscan s;
	struct slice key;
	int rc;

	if (http_open_object(&s, body) == -1)
		return -1;
	while ((rc = http_next_member(&s, &key, &value)) == 1) {
		if (slice_equal(key, SLICE("partialSuccess")) && value.type == JSONSCAN_OBJECT) {
			if (read_partial(&s, rejected) == -1)
				return -1;
		} else if (jsonscan_skip(&s, &value) == -1) {
			return -1;
		}
	}
	return rc;
}

/* It does not say which records it rejected.  They are found by sending fewer; those that it took come
 * again, with their log and number. */
static int
read_answer(const struct http_reply *reply, const struct sink_event *events, size_t n,
    struct http_verdict *v, struct buf *ask)
{
	uint64_t rejected = 0;

	(void)events;
	(void)n;
	(void)ask;
	if (v->say != HTTP_TAKEN)
		return 0;
	/* No bytes are a message without fields in protocol buffers, and some send none here too. */
	if (reply->body.n > 0 && read_success(reply->body, &rejected) == -1)
		return http_not_understood(v);
	return rejected == 0
		   ? 0
		   : http_say(v, HTTP_REFUSED, 0, "the server rejects it (partial success)");
}

const struct http_preset http_otlp = { "otlp", "/v1/logs", "application/json", "Bearer", frame,
	read_answer, NULL, NULL };
