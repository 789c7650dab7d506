#include "keytrail/http_preset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LOG  "0123456789abcdef0123456789abcdef"
#define BOOT "fedcba9876543210fedcba9876543210"
#define HASH "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define LINE                                                                                       \
	"{\"action\":\"kms.secrets.unwrap\",\"eventTime\":\"2026-11-23T15:20:01.25+0000\","        \
	"\"severity\":\"warning\"}"
#define ID(n)	LOG "-" BOOT "-" #n
#define EVENTS	3
#define BULK(s) "{\"items\":[" s "]}"

static struct sink_event events[EVENTS];

static int
make_events(void **state)
{
	(void)state;
	for (size_t i = 0; i < EVENTS; i++)
		events[i] = (struct sink_event){ .text = SLICE("{\"a\":\"\\\"\"}"),
			.line = SLICE(LINE),
			.seq = 7 + i,
			.log = LOG,
			.boot = BOOT,
			.hash = HASH };
	return 0;
}

/* ---- framing ---- */

static const struct {
	enum config_http_preset preset;
	const char *want; /* for two events */
} frames[] = {
	{ CONFIG_HTTP_NDJSON, "{\"a\":\"\\\"\"}\n{\"a\":\"\\\"\"}\n" },
	{ CONFIG_HTTP_JSON, "[{\"a\":\"\\\"\"},{\"a\":\"\\\"\"}]" },
	{ CONFIG_HTTP_CLOUDEVENTS, "[{\"a\":\"\\\"\"},{\"a\":\"\\\"\"}]" },
	{ CONFIG_HTTP_ELASTICSEARCH,
	    "{\"create\":{\"_id\":\"" ID(7) "\"}}\n{\"a\":\"\\\"\"}\n"
					    "{\"create\":{\"_id\":\"" ID(
						8) "\"}}\n{\"a\":\"\\\"\"}\n" },
	{ CONFIG_HTTP_SPLUNK_HEC, "{\"time\":1795447201.250,\"source\":\"keytrail\",\"sourcetype\":"
				  "\"_json\",\"event\":{\"a\":\"\\\"\"}}"
				  "{\"time\":1795447201.250,\"source\":\"keytrail\",\"sourcetype\":"
				  "\"_json\",\"event\":{\"a\":\"\\\"\"}}" },
	{ CONFIG_HTTP_LOKI,
	    "{\"streams\":[{\"stream\":{\"job\":\"keytrail\",\"log\":\"" LOG "\"},\"values\":["
	    "[\"1795447201250000000\",\"{\\\"a\\\":\\\"\\\\\\\"\\\"}\"],"
	    "[\"1795447201250000000\",\"{\\\"a\\\":\\\"\\\\\\\"\\\"}\"]]}]}" },
	{ CONFIG_HTTP_IBM_CLOUD_LOGS, "[{\"applicationName\":\"keytrail\",\"subsystemName\":\"" LOG
				      "\",\"severity\":4,\"timestamp\":1795447201250,\"text\":\"{"
				      "\\\"a\\\":\\\"\\\\\\\"\\\"}\"},"
				      "{\"applicationName\":\"keytrail\",\"subsystemName\":\"" LOG
				      "\",\"severity\":4,\"timestamp\":1795447201250,\"text\":\"{"
				      "\\\"a\\\":\\\"\\\\\\\"\\\"}\"}]" },
};

static void
frames_a_batch_as_its_receiver_wants_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		struct buf out = BUF_INIT;

		assert_int_equal(http_preset_of(frames[i].preset)->frame(events, 2, &out), 0);
		assert_int_equal(buf_append(&out, "", 1), 0);
		assert_string_equal(buf_slice(&out).p, frames[i].want);
		buf_fini(&out);
	}
}

static void
frames_an_otlp_record_an_event(void **state)
{
	static const char record[] =
	    "{\"timeUnixNano\":\"1795447201250000000\",\"observedTimeUnixNano\":"
	    "\"1795447201250000000\","
	    "\"severityNumber\":13,\"severityText\":\"WARN\","
	    "\"body\":{\"stringValue\":\"{\\\"a\\\":\\\"\\\\\\\"\\\"}\"},\"attributes\":["
	    "{\"key\":\"keytrail.seq\",\"value\":{\"intValue\":\"7\"}},"
	    "{\"key\":\"keytrail.log\",\"value\":{\"stringValue\":\"" LOG "\"}},"
	    "{\"key\":\"keytrail.boot\",\"value\":{\"stringValue\":\"" BOOT "\"}},"
	    "{\"key\":\"keytrail.hash\",\"value\":{\"stringValue\":\"" HASH "\"}},"
	    "{\"key\":\"keytrail.action\",\"value\":{\"stringValue\":\"kms.secrets.unwrap\"}}]}";
	struct buf out = BUF_INIT;

	(void)state;
	assert_int_equal(http_preset_of(CONFIG_HTTP_OTLP)->frame(events, 1, &out), 0);
	assert_int_equal(buf_append(&out, "", 1), 0);
	assert_non_null(strstr(buf_slice(&out).p, record));
	assert_non_null(strstr(buf_slice(&out).p, "{\"resourceLogs\":[{\"resource\":"));
	buf_fini(&out);
}

static void
gives_each_log_a_stream_of_its_own(void **state)
{
	struct buf out = BUF_INIT;

	(void)state;
	events[1].log = "ffff";
	assert_int_equal(http_preset_of(CONFIG_HTTP_LOKI)->frame(events, 3, &out), 0);
	assert_int_equal(buf_append(&out, "", 1), 0);
	assert_non_null(
	    strstr(buf_slice(&out).p, "]]},{\"stream\":{\"job\":\"keytrail\",\"log\":\"ffff\"}"));
	assert_non_null(
	    strstr(buf_slice(&out).p, "]]},{\"stream\":{\"job\":\"keytrail\",\"log\":\"" LOG));
	buf_fini(&out);
	make_events(NULL);
}

/* ---- answers ---- */

#define CREATED "{\"create\":{\"_index\":\"i\",\"status\":201}}"
#define CONFLICT                                                                                   \
	"{\"create\":{\"_index\":\"i\",\"status\":409,\"error\":{\"type\":\"version_conflict_"     \
	"engine_exception\"}}}"
#define ASKED(n) "{\"docs\":[{\"_index\":\"i\",\"_id\":\"" ID(n) "\"}]}"
#define ITEM(status, error)                                                                        \
	"{\"create\":{\"_index\":\"i\",\"status\":" #status ",\"error\":{\"type\":\"" error "\"}}" \
	"}"

static const struct {
	const char *label;
	enum config_http_preset preset;
	unsigned status;
	const char *body;
	size_t n;
	enum http_say say;
	size_t done;
	const char *why, *ask; /* "": none */
} answers[] = {
	{ "200 is taken", CONFIG_HTTP_NDJSON, 200, "", 3, HTTP_TAKEN, 3, "", "" },
	{ "204 is taken", CONFIG_HTTP_NDJSON, 204, "", 3, HTTP_TAKEN, 3, "", "" },
	{ "400 is of an event, not known which", CONFIG_HTTP_NDJSON, 400, "text", 3, HTTP_REFUSED,
	    0, "the server refuses what it was sent (status 400)", "" },
	{ "400 to a lone event is its end", CONFIG_HTTP_NDJSON, 400, "text", 1, HTTP_REJECTED, 0,
	    "the server refuses what it was sent (status 400)", "" },
	{ "413", CONFIG_HTTP_NDJSON, 413, "", 3, HTTP_REFUSED, 0,
	    "the server takes no request of this size (status 413)", "" },
	{ "401 is the operator's", CONFIG_HTTP_NDJSON, 401, "", 1, HTTP_LATER, 0,
	    "the server does not know the credentials (status 401)", "" },
	{ "404 is the operator's", CONFIG_HTTP_NDJSON, 404, "", 1, HTTP_LATER, 0,
	    "the server has nothing at this address (status 404)", "" },
	{ "407", CONFIG_HTTP_NDJSON, 407, "", 1, HTTP_LATER, 0,
	    "the proxy wants credentials (status 407)", "" },
	{ "429", CONFIG_HTTP_NDJSON, 429, "", 1, HTTP_LATER, 0,
	    "the server wants fewer requests (status 429)", "" },
	{ "302", CONFIG_HTTP_NDJSON, 302, "", 1, HTTP_LATER, 0,
	    "the server redirects, which is not followed (status 302)", "" },
	{ "500", CONFIG_HTTP_NDJSON, 500, "", 1, HTTP_LATER, 0,
	    "the server could not do it (status 500)", "" },
	{ "no status", CONFIG_HTTP_NDJSON, 0, "", 1, HTTP_LATER, 0,
	    "the server's answer is none that was expected", "" },

	{ "all created", CONFIG_HTTP_ELASTICSEARCH, 200, BULK(CREATED "," CREATED), 2, HTTP_TAKEN,
	    2, "", "" },
	{ "members that nobody asked for", CONFIG_HTTP_OPENSEARCH, 200,
	    "{\"took\":3,\"errors\":false,\"items\":[{\"create\":{\"_shards\":{\"total\":2},"
	    "\"_seq_no\":1,\"status\":201}}],\"x\":[]}",
	    1, HTTP_TAKEN, 1, "", "" },
	{ "one does not fit", CONFIG_HTTP_ELASTICSEARCH, 200,
	    BULK(CREATED "," ITEM(400, "document_parsing_exception") "," CREATED), 3, HTTP_REJECTED,
	    1, "the document does not fit its index (status 400)", "" },
	{ "one later, the rest comes again", CONFIG_HTTP_ELASTICSEARCH, 200,
	    BULK(CREATED "," ITEM(429, "es_rejected_execution_exception") "," CREATED), 3,
	    HTTP_LATER, 1, "an item was not stored (status 429)", "" },
	{ "a 400 that is not of the document", CONFIG_HTTP_ELASTICSEARCH, 200,
	    BULK(ITEM(400, "index_closed_exception")), 1, HTTP_LATER, 0,
	    "an item was not stored (status 400)", "" },
	{ "a conflict is asked about", CONFIG_HTTP_ELASTICSEARCH, 200, BULK(CREATED "," CONFLICT),
	    2, HTTP_TAKEN, 2, "", ASKED(8) },
	{ "and one before an item that is not stored", CONFIG_HTTP_ELASTICSEARCH, 200,
	    BULK(CONFLICT "," ITEM(503, "unavailable_shards_exception")), 2, HTTP_LATER, 1,
	    "an item was not stored (status 503)", ASKED(7) },
	{ "too few items", CONFIG_HTTP_ELASTICSEARCH, 200, BULK(CREATED), 2, HTTP_LATER, 0,
	    "the server's answer is none that was expected", "" },
	{ "too many items", CONFIG_HTTP_ELASTICSEARCH, 200, BULK(CREATED "," CREATED), 1,
	    HTTP_LATER, 0, "the server's answer is none that was expected", "" },
	{ "a cut answer", CONFIG_HTTP_ELASTICSEARCH, 200, "{\"items\":[" CREATED, 1, HTTP_LATER, 0,
	    "the server's answer is none that was expected", "" },
	{ "no answer", CONFIG_HTTP_ELASTICSEARCH, 200, "", 1, HTTP_LATER, 0,
	    "the server's answer is none that was expected", "" },
	{ "an item without a status", CONFIG_HTTP_ELASTICSEARCH, 200, BULK("{\"create\":{}}"), 1,
	    HTTP_LATER, 0, "an item was not stored (status 0)", "" },
	{ "all of it refused", CONFIG_HTTP_ELASTICSEARCH, 400, "{\"error\":{}}", 2, HTTP_REFUSED, 0,
	    "the server refuses what it was sent (status 400)", "" },

	{ "taken under a number", CONFIG_HTTP_SPLUNK_HEC, 200,
	    "{\"text\":\"Success\",\"code\":0,\"ackId\":5}", 2, HTTP_TAKEN, 2, "", "" },
	{ "taken without one", CONFIG_HTTP_SPLUNK_HEC, 200, "{\"text\":\"Success\",\"code\":0}", 2,
	    HTTP_LATER, 0,
	    "the token has no indexer acknowledgement, without which nothing is known to be stored",
	    "" },
	{ "an event that is not understood", CONFIG_HTTP_SPLUNK_HEC, 400,
	    "{\"text\":\"Invalid data format\",\"code\":6,\"invalid-event-number\":1}", 2,
	    HTTP_REFUSED, 0, "the collector refuses what it was sent (status 400, code 6)", "" },
	{ "an index that is not", CONFIG_HTTP_SPLUNK_HEC, 400,
	    "{\"text\":\"Incorrect index\",\"code\":7,\"invalid-event-number\":1}", 1, HTTP_LATER,
	    0, "the collector refuses what it was sent (status 400, code 7)", "" },
	{ "a busy collector", CONFIG_HTTP_SPLUNK_HEC, 503,
	    "{\"text\":\"Server is busy\",\"code\":9}", 1, HTTP_LATER, 0,
	    "the server is not available (status 503)", "" },

	{ "pushed", CONFIG_HTTP_LOKI, 204, "", 2, HTTP_TAKEN, 2, "", "" },
	{ "too old", CONFIG_HTTP_LOKI, 400,
	    "entry with timestamp 2026-11-01 00:00:00 +0000 UTC ignored, reason: 'entry too far "
	    "behind'",
	    1, HTTP_REJECTED, 0, "older than what the server still takes (status 400)", "" },
	{ "too long", CONFIG_HTTP_LOKI, 400, "Max entry size '262144' bytes exceeded", 2,
	    HTTP_REFUSED, 0, "the server refuses what it was sent (status 400)", "" },

	{ "full success", CONFIG_HTTP_OTLP, 200, "{}", 2, HTTP_TAKEN, 2, "", "" },
	{ "full success in no bytes", CONFIG_HTTP_OTLP, 200, "", 2, HTTP_TAKEN, 2, "", "" },
	{ "a warning", CONFIG_HTTP_OTLP, 200,
	    "{\"partialSuccess\":{\"rejectedLogRecords\":\"0\",\"errorMessage\":\"slow\"}}", 2,
	    HTTP_TAKEN, 2, "", "" },
	{ "partial success", CONFIG_HTTP_OTLP, 200,
	    "{\"partialSuccess\":{\"errorMessage\":\"no\",\"rejectedLogRecords\":\"1\"}}", 2,
	    HTTP_REFUSED, 0, "the server rejects it (partial success)", "" },
	{ "a number is as good", CONFIG_HTTP_OTLP, 200,
	    "{\"partialSuccess\":{\"rejectedLogRecords\":1}}", 1, HTTP_REJECTED, 0,
	    "the server rejects it (partial success)", "" },
	{ "no success", CONFIG_HTTP_OTLP, 200, "<html>", 1, HTTP_LATER, 0,
	    "the server's answer is none that was expected", "" },
};

static void
read_answer(size_t i, struct http_verdict *v, struct buf *ask)
{
	const struct http_reply reply = { answers[i].status, slice_of(answers[i].body) };

	assert_int_equal(
	    http_read(http_preset_of(answers[i].preset), &reply, events, answers[i].n, v, ask), 0);
}

static void
knows_what_an_answer_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct http_verdict v;
		struct buf ask = BUF_INIT;

		read_answer(i, &v, &ask);
		if (v.say != answers[i].say || v.done != answers[i].done ||
		    strcmp(v.why, answers[i].why) != 0 ||
		    !slice_equal(buf_slice(&ask), slice_of(answers[i].ask)))
			fail_msg("%s: say %d, done %zu, \"%s\", asks \"%.*s\"", answers[i].label,
			    (int)v.say, v.done, v.why, SLICE_ARG(buf_slice(&ask)));
		buf_fini(&ask);
	}
}

/* ---- what is stored ---- */

#define DOC(n, hash)                                                                               \
	"{\"_index\":\"i\",\"_id\":\"" ID(                                                         \
	    n) "\",\"found\":true,\"_source\":{\"event\":{\"hash\":\"" hash "\"}}}"
#define LATE                                                                                       \
	"{\"_source\":{\"event\":{\"hash\":\"" HASH "\"}},\"found\":true,\"_id\":\"" ID(9) "\"}"

static const struct {
	const char *label;
	unsigned status;
	const char *body;
	enum http_say say;
	size_t done;
	bool conflict;
} stored[] = {
	/* 7 and 9 were asked about */
	{ "both are the same", 200, "{\"docs\":[" DOC(7, HASH) "," DOC(9, HASH) "]}", HTTP_TAKEN, 3,
	    false },
	{ "in whatever order", 200, "{\"docs\":[" DOC(7, HASH) "," LATE "]}", HTTP_TAKEN, 3,
	    false },
	{ "another one has it", 200, "{\"docs\":[" DOC(7, HASH) "," DOC(9, "00") "]}",
	    HTTP_REJECTED, 2, true },
	{ "the first one is another", 200, "{\"docs\":[" DOC(7, "00") "," DOC(9, HASH) "]}",
	    HTTP_REJECTED, 0, true },
	{ "a text that merely holds it", 200, "{\"docs\":[" DOC(7, "x" HASH) "," DOC(9, HASH) "]}",
	    HTTP_REJECTED, 0, true },
	{ "an empty text is no hash", 200,
	    "{\"docs\":[{\"_id\":\"" ID(7) "\",\"found\":true,\"_source\":{\"a\":\"\"}}," DOC(
		9, HASH) "]}",
	    HTTP_REJECTED, 0, true },
	{ "word of more than was asked about", 200,
	    "{\"docs\":[" DOC(7, HASH) "," DOC(8, HASH) "," DOC(9, HASH) "]}", HTTP_LATER, 0,
	    false },
	{ "it is gone", 200,
	    "{\"docs\":[" DOC(7, HASH) ",{\"_id\":\"" ID(9) "\",\"found\":false}]}", HTTP_LATER, 2,
	    false },
	{ "word of one only", 200, "{\"docs\":[" DOC(7, HASH) "]}", HTTP_LATER, 0, false },
	{ "word of one twice", 200, "{\"docs\":[" DOC(7, HASH) "," DOC(7, HASH) "]}", HTTP_LATER, 0,
	    false },
	{ "word of strangers", 200, "{\"docs\":[" DOC(7, HASH) "," DOC(6, HASH) "]}", HTTP_LATER, 0,
	    false },
	{ "a cut answer", 200, "{\"docs\":[" DOC(7, HASH) "," DOC(9, HASH), HTTP_LATER, 0, false },
	{ "no word", 500, "", HTTP_LATER, 0, false },
};

static void
takes_what_is_stored_only_with_its_hash(void **state)
{
	const struct http_preset *p = http_preset_of(CONFIG_HTTP_ELASTICSEARCH);

	(void)state;
	for (size_t i = 0; i < sizeof(stored) / sizeof(stored[0]); i++) {
		const struct http_reply first = { 200,
			SLICE(BULK(CONFLICT "," CREATED "," CONFLICT)) };
		const struct http_reply second = { stored[i].status, slice_of(stored[i].body) };
		struct http_verdict v;
		struct buf ask = BUF_INIT;

		assert_int_equal(http_read(p, &first, events, 3, &v, &ask), 0);
		assert_true(buf_size(&ask) > 0);
		p->settle(&second, events, &v);
		if (v.say != stored[i].say || v.done != stored[i].done ||
		    v.conflict != stored[i].conflict)
			fail_msg(
			    "%s: say %d, done %zu: %s", stored[i].label, (int)v.say, v.done, v.why);
		buf_fini(&ask);
	}
}

/* ---- acknowledgement ---- */

static void
drops_what_is_indexed(void **state)
{
	uint64_t acks[] = { 3, 4, 5 };
	size_t n = 3;
	struct buf ask = BUF_INIT;
	struct http_reply reply = { 200,
		SLICE("{\"acks\":{\"3\":true,\"4\":false,\"5\":true,\"9\":true}}") };
	struct err err;

	(void)state;
	assert_int_equal(http_splunk_ask(acks, n, &ask), 0);
	assert_true(slice_equal(buf_slice(&ask), SLICE("{\"acks\":[3,4,5]}")));
	assert_int_equal(http_splunk_acked(&reply, acks, &n, &err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(acks[0], 4);
	reply.body = SLICE("{\"acks\":{\"4\":tru");
	assert_int_equal(http_splunk_acked(&reply, acks, &n, &err), -1);
	reply.status = 400;
	assert_int_equal(http_splunk_acked(&reply, acks, &n, &err), -1);
	assert_int_equal(n, 1);
	buf_fini(&ask);
}

static void
makes_a_channel_of_a_log(void **state)
{
	char channel[HTTP_CHANNEL_SIZE];

	(void)state;
	http_splunk_channel(LOG, channel);
	assert_string_equal(channel, "01234567-89ab-cdef-0123-456789abcdef");
}

/* ---- the token ---- */

static void
asks_for_a_token_with_nothing_of_the_key_left_bare(void **state)
{
	struct buf out = BUF_INIT;

	(void)state;
	assert_int_equal(http_iam_ask(SLICE("a&b"), &out), 0);
	assert_true(slice_equal(buf_slice(&out),
	    SLICE("grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=%61%26%62")));
	buf_fini(&out);
}

static const struct {
	unsigned status;
	const char *body, *token; /* NULL: there is none */
	uint64_t seconds;
} tokens[] = {
	{ 200,
	    "{\"access_token\":\"ey.J\",\"refresh_token\":\"not_supported\",\"token_type\":"
	    "\"Bearer\","
	    "\"expires_in\":3600,\"expiration\":1473188353,\"scope\":\"ibm openid\"}",
	    "ey.J", 3600 },
	{ 200, "{\"access_token\":\"ey.J\"}", NULL, 0 },
	{ 200, "{\"expires_in\":3600}", NULL, 0 },
	{ 200, "{\"access_token\":\"a\\nb\",\"expires_in\":3600}", NULL, 0 },
	{ 200, "{\"access_token\":\"a\",\"expires_in\":\"soon\"}", NULL, 0 },
	{ 200, "{\"access_token\":\"a\",\"expires_in\":3600", NULL, 0 },
	{ 400, "{\"access_token\":\"a\",\"expires_in\":3600}", NULL, 0 },
};

static void
reads_a_token_and_its_life(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
		const struct http_reply reply = { tokens[i].status, slice_of(tokens[i].body) };
		struct buf token = BUF_INIT;
		struct err err;
		uint64_t seconds;
		int rc = http_iam_read(&reply, &token, &seconds, &err);

		assert_int_equal(rc, tokens[i].token != NULL ? 0 : -1);
		if (rc == 0) {
			assert_true(slice_equal(buf_slice(&token), slice_of(tokens[i].token)));
			assert_int_equal(seconds, tokens[i].seconds);
		}
		buf_fini(&token);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_a_batch_as_its_receiver_wants_it),
		cmocka_unit_test(frames_an_otlp_record_an_event),
		cmocka_unit_test(gives_each_log_a_stream_of_its_own),
		cmocka_unit_test(knows_what_an_answer_says),
		cmocka_unit_test(takes_what_is_stored_only_with_its_hash),
		cmocka_unit_test(drops_what_is_indexed),
		cmocka_unit_test(makes_a_channel_of_a_log),
		cmocka_unit_test(asks_for_a_token_with_nothing_of_the_key_left_bare),
		cmocka_unit_test(reads_a_token_and_its_life),
	};

	return cmocka_run_group_tests_name("http_preset", tests, make_events, NULL);
}
