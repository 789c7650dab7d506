/* IBM Cloud Logs: the singles endpoint, and the token of IBM Cloud IAM that it wants. */

#include "http_preset_impl.h"

#include "keytrail/clock.h"

#include <inttypes.h>

/* ---- the request ---- */

static unsigned
severity_of(const struct sink_event *e)
{
	struct slice severity = http_fact(e, SLICE("severity"));

	return slice_equal(severity, SLICE("critical"))	 ? 6
	       : slice_equal(severity, SLICE("warning")) ? 4
							 : 3;
}

static int
put_one(const struct sink_event *e, struct buf *out)
{
	int64_t ms = http_time_ns(e) / CLOCK_NS_PER_MS;

	return buf_printf(out,
		   "{\"applicationName\":\"keytrail\",\"subsystemName\":\"%s\",\"severity\":%u,"
		   "\"timestamp\":%" PRId64 ",\"text\":",
		   e->log, severity_of(e), ms) == -1 ||
		       http_put_string(out, e->text) == -1
		   ? -1
		   : HTTP_PUT(out, "}");
}

static int
frame(const struct sink_event *events, size_t n, struct buf *out)
{
	return HTTP_PUT(out, "[") == -1 || http_put_each(events, n, ",", put_one, out) == -1
		   ? -1
		   : HTTP_PUT(out, "]");
}

/* ---- the token ---- */

static int
put_escaped(struct buf *out, struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (buf_printf(out, "%%%02X", (unsigned char)s.p[i]) == -1)
			return -1;
	return 0;
}

int
http_iam_ask(struct slice api_key, struct buf *out)
{
	return HTTP_PUT(
		   out, "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=") == -1
		   ? -1
		   : put_escaped(out, api_key);
}

/* A token stands in a header as it is; one with an escape in JSON is none (RFC 6750 section 2.1). */
static int
read_token(struct slice body, struct slice *token, uint64_t *seconds)
{
	struct jsonscan_token value;
	struct jsonscan s;
	struct slice key;
	int rc;

	if (http_open_object(&s, body) == -1)
		return -1;
	while ((rc = http_next_member(&s, &key, &value)) == 1) {
		if (slice_equal(key, SLICE("access_token")) && value.type == JSONSCAN_STRING &&
		    !value.escaped)
			*token = value.raw;
		else if (slice_equal(key, SLICE("expires_in")))
			rc = http_number(&value, seconds) ? 1 : -1;
		else
			rc = jsonscan_skip(&s, &value) == -1 ? -1 : 1;
		if (rc == -1)
			return -1;
	}
	return rc == 0 && token->n > 0 && *seconds > 0 ? 0 : -1;
}

int
http_iam_read(const struct http_reply *reply, struct buf *token, uint64_t *seconds, struct err *err)
{
	struct slice found = SLICE_EMPTY;

	*seconds = 0;
	if (reply->status != 200)
		return err_set(
		    err, "IAM gives no token for the API key (status %u)", reply->status);
	if (read_token(reply->body, &found, seconds) == -1)
		return err_set(err, "IAM's answer is none that was expected");
	return buf_append_slice(token, found) == 0 ? 0 : err_set(err, "memory is short");
}

const struct http_preset http_ibm = { "ibm-cloud-logs", "/logs/v1/singles", "application/json",
	"Bearer", frame, NULL, NULL, NULL };
