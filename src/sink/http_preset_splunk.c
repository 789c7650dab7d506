/* Splunk's HTTP event collector: objects one after the other, and later word of what is indexed. */

#include "http_preset_impl.h"

#include "keytrail/clock.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- the request ---- */

static int
put_one(const struct sink_event *e, struct buf *out)
{
	int64_t ms = http_time_ns(e) / CLOCK_NS_PER_MS;

	return buf_printf(out,
		   "{\"time\":%" PRId64 ".%03d,\"source\":\"keytrail\",\"sourcetype\":\"_json\","
		   "\"event\":",
		   ms / 1000, (int)(ms % 1000)) == -1 ||
		       buf_append_slice(out, e->text) == -1
		   ? -1
		   : HTTP_PUT(out, "}");
}

static int
frame(const struct sink_event *events, size_t n, struct buf *out)
{
	return http_put_each(events, n, "", put_one, out);
}

void
http_splunk_channel(const char *log, char out[HTTP_CHANNEL_SIZE])
{
	snprintf(out, HTTP_CHANNEL_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", log, log + 8, log + 12,
	    log + 16, log + 20);
}

/* ---- the answer ---- */

/* A member of the object that an answer is, if it is a number there. */
static bool
find_number(struct slice body, struct slice name, uint64_t *out)
{
	struct jsonscan_token value;
	struct jsonscan s;
	struct slice key;

	if (http_open_object(&s, body) == -1)
		return false;
	while (http_next_member(&s, &key, &value) == 1) {
		if (slice_equal(key, name))
			return http_number(&value, out);
		if (jsonscan_skip(&s, &value) == -1)
			return false;
	}
	return false;
}

/* The codes of status 400 that are about an event; the others are about the token, the index or the
 * channel. */
static bool
is_of_event(uint64_t code)
{
	return code == 6 || code == 12 || code == 13 || code == 15;
}

static int
read_answer(const struct http_reply *reply, const struct sink_event *events, size_t n,
    struct http_verdict *v, struct buf *ask)
{
	uint64_t code;

	(void)events;
	(void)n;
	(void)ask;
	if (v->say == HTTP_TAKEN && !find_number(reply->body, SLICE("ackId"), &v->ack))
		return http_say(v, HTTP_LATER, 0,
		    "the token has no indexer acknowledgement, without which nothing is known to "
		    "be stored");
	if (reply->status != 400)
		return 0;
	if (!find_number(reply->body, SLICE("code"), &code))
		return http_not_understood(v);
	return http_say(v, is_of_event(code) ? HTTP_REFUSED : HTTP_LATER, 0,
	    "the collector refuses what it was sent (status 400, code %u)", (unsigned)code % 1000);
}

/* ---- acknowledgement ---- */

int
http_splunk_ask(const uint64_t *acks, size_t n, struct buf *out)
{
	for (size_t i = 0; i < n; i++)
		if (buf_printf(out, "%s%" PRIu64, i == 0 ? "{\"acks\":[" : ",", acks[i]) == -1)
			return -1;
	return HTTP_PUT(out, "]}");
}

static void
drop(uint64_t *acks, size_t *n, uint64_t ack)
{
	size_t kept = 0;

	for (size_t i = 0; i < *n; i++)
		if (acks[i] != ack)
			acks[kept++] = acks[i];
	*n = kept;
}

/* {"acks":{"0":true,"1":false}} */
static int
read_acks(struct slice body, uint64_t *acks, size_t *n)
{
	struct jsonscan_token value;
	struct jsonscan s;
	struct slice key;
	uint64_t ack;
	int rc;

	if (http_open_object(&s, body) == -1 || http_next_member(&s, &key, &value) != 1 ||
	    !slice_equal(key, SLICE("acks")) || value.type != JSONSCAN_OBJECT)
		return -1;
	while ((rc = http_next_member(&s, &key, &value)) == 1)
		if (value.type == JSONSCAN_TRUE && slice_to_u64(key, &ack) == 0)
			drop(acks, n, ack);
		else if (value.type != JSONSCAN_FALSE)
			return -1;
	return rc;
}

int
http_splunk_acked(const struct http_reply *reply, uint64_t *acks, size_t *n, struct err *err)
{
	if (reply->status != 200)
		return err_set(
		    err, "the collector does not say what is indexed (status %u)", reply->status);
	return read_acks(reply->body, acks, n) == 0
		   ? 0
		   : err_set(err, "the collector's word of what is indexed is not understood");
}

const struct http_preset http_splunk = { "splunk-hec", "/services/collector/event",
	"application/json", "Splunk", frame, read_answer, "/services/collector/ack", NULL };
