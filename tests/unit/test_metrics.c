#include "keytrail/metrics.h"

#include "keytrail/refusal.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
	struct metrics *m;
	struct metrics_shard *a, *b;
	struct buf text;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->m = metrics_new();
	assert_non_null(f->m);
	f->a = metrics_shard_new(f->m);
	f->b = metrics_shard_new(f->m);
	assert_non_null(f->a);
	assert_non_null(f->b);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	buf_fini(&f->text);
	metrics_free(f->m);
	free(f);
	return 0;
}

static const char *
render(struct fixture *f, enum metrics_format format)
{
	buf_fini(&f->text);
	assert_int_equal(metrics_render(f->m, format, &f->text), 0);
	assert_int_equal(buf_append(&f->text, "", 1), 0);
	return f->text.mem;
}

/* Is this a whole line of the text? */
static bool
has_line(const char *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *p = text; (p = strstr(p, line)) != NULL; p++)
		if ((p == text || p[-1] == '\n') && p[n] == '\n')
			return true;
	return false;
}

#define assert_line(text, line)                                                                    \
	do {                                                                                       \
		if (!has_line(text, line))                                                         \
			fail_msg("no line \"%s\"", line);                                          \
	} while (0)
#define assert_value(m, id, index, want)                                                           \
	assert_true(fabs(metrics_value(m, id, index) - (double)(want)) < 1e-9)

static void
test_shards_are_summed(void **state)
{
	struct fixture *f = *state;

	metrics_add(f->a, METRIC_CONNECTIONS, 0, 3);
	metrics_add(f->b, METRIC_CONNECTIONS, 0, 4);
	metrics_add(f->a, METRIC_CONNECTIONS_OPEN, 0, 3);
	metrics_add(f->b, METRIC_CONNECTIONS_OPEN, 0, 4);
	metrics_add(f->b, METRIC_CONNECTIONS_OPEN, 0, -2);
	metrics_set(f->a, METRIC_TRAIL_FREE_BYTES, 0, 1e15);
	assert_value(f->m, METRIC_CONNECTIONS, 0, 7);
	assert_value(f->m, METRIC_CONNECTIONS_OPEN, 0, 5);
	assert_line(render(f, METRICS_TEXT_0_0_4), "keytrail_connections_total 7");
	assert_line(f->text.mem, "keytrail_connections_open 5");
	assert_line(f->text.mem, "keytrail_trail_free_bytes 1e+15");
}

static void
test_requests_are_told_apart(void **state)
{
	static const struct {
		unsigned status;
		const char *class;
	} cases[] = { { 0, "none" }, { 101, "1xx" }, { 200, "2xx" }, { 304, "3xx" }, { 404, "4xx" },
		{ 599, "5xx" }, { 600, "none" }, { 99, "none" } };
	struct fixture *f = *state;
	unsigned read = metrics_action(f->m, "kms.secrets.read");
	unsigned list = metrics_action(f->m, "kms.secrets.list");

	assert_int_not_equal(read, list);
	assert_int_equal(metrics_action(f->m, "kms.secrets.read"), read);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		metrics_count_request(f->a, read, METRIC_OUTCOME_FAILURE, cases[i].status);
	metrics_count_request(f->b, list, METRIC_OUTCOME_SUCCESS, 204);
	metrics_count_request(f->b, list, METRIC_OUTCOME_UNKNOWN, 0);
	assert_value(f->m, METRIC_REQUESTS, read, 8);
	assert_value(f->m, METRIC_REQUESTS, list, 2);
	render(f, METRICS_TEXT_0_0_4);
	for (size_t i = 0; i < 6; i++) {
		char line[160];

		snprintf(line, sizeof(line),
		    "keytrail_requests_total{action=\"kms.secrets.read\",outcome=\"failure\","
		    "code=\"%s\"} %d",
		    cases[i].class, i == 0 ? 3 : 1);
		assert_line(f->text.mem, line);
	}
	assert_line(f->text.mem,
	    "keytrail_requests_total{action=\"kms.secrets.list\",outcome=\"success\",code=\"2xx\"} "
	    "1");
	assert_line(f->text.mem,
	    "keytrail_requests_total{action=\"kms.secrets.list\",outcome=\"unknown\",code=\"none\"}"
	    " 1");
}

static void
test_names_beyond_the_table_are_other(void **state)
{
	struct fixture *f = *state;
	char name[32];
	unsigned index = 0;

	for (unsigned i = 0; i < METRICS_ACTIONS_MAX; i++) {
		snprintf(name, sizeof(name), "action.%u", i);
		assert_int_equal(metrics_action(f->m, name), i);
	}
	index = metrics_action(f->m, "one.too.many");
	assert_int_equal(metrics_action(f->m, "two.too.many"), index);
	metrics_count_request(f->a, index, METRIC_OUTCOME_SUCCESS, 200);
	for (unsigned i = 0; i <= METRICS_SINKS_MAX; i++) {
		snprintf(name, sizeof(name), "sink%u", i);
		index = metrics_sink(f->m, name);
	}
	metrics_add(f->a, METRIC_SINK_BYTES, index, 1);
	metrics_set(f->a, METRIC_SINK_UP, index, 1);
	render(f, METRICS_TEXT_0_0_4);
	assert_line(f->text.mem,
	    "keytrail_requests_total{action=\"other\",outcome=\"success\",code=\"2xx\"} 1");
	assert_line(f->text.mem, "keytrail_sink_delivered_bytes_total{sink=\"other\"} 1");
	assert_line(f->text.mem, "keytrail_sink_up{sink=\"other\"} 1");
}

static void
test_label_values_are_escaped(void **state)
{
	struct fixture *f = *state;

	metrics_add(f->a, METRIC_SINK_BYTES, metrics_sink(f->m, "a\"b\\c\nd"), 1);
	assert_line(render(f, METRICS_TEXT_0_0_4),
	    "keytrail_sink_delivered_bytes_total{sink=\"a\\\"b\\\\c\\nd\"} 1");
}

static void
test_observations_fall_into_buckets(void **state)
{
	struct fixture *f = *state;

	metrics_observe(f->a, METRIC_COMMIT_EVENTS, 1);
	metrics_observe(f->a, METRIC_COMMIT_EVENTS, 2);
	metrics_observe(f->b, METRIC_COMMIT_EVENTS, 3);
	metrics_observe(f->b, METRIC_COMMIT_EVENTS, 4096);
	metrics_observe(f->b, METRIC_COMMIT_EVENTS, 4097);
	assert_value(f->m, METRIC_COMMIT_EVENTS, 0, 5);
	render(f, METRICS_TEXT_0_0_4);
	assert_line(f->text.mem, "keytrail_trail_commit_events_bucket{le=\"1\"} 1");
	assert_line(f->text.mem, "keytrail_trail_commit_events_bucket{le=\"2\"} 2");
	assert_line(f->text.mem, "keytrail_trail_commit_events_bucket{le=\"4\"} 3");
	assert_line(f->text.mem, "keytrail_trail_commit_events_bucket{le=\"4096\"} 4");
	assert_line(f->text.mem, "keytrail_trail_commit_events_bucket{le=\"+Inf\"} 5");
	assert_line(f->text.mem, "keytrail_trail_commit_events_sum 8199");
	assert_line(f->text.mem, "keytrail_trail_commit_events_count 5");
	render(f, METRICS_OPENMETRICS_1_0_0);
	assert_line(f->text.mem, "keytrail_trail_commit_events_bucket{le=\"1.0\"} 1");
}

static void
test_labels_of_two_names(void **state)
{
	struct fixture *f = *state;
	unsigned a = metrics_sink(f->m, "a"), b = metrics_sink(f->m, "b");

	metrics_add(f->a, METRIC_SINK_ATTEMPTS, metrics_attempt(b, METRIC_ATTEMPT_RETRY), 2);
	metrics_set(f->a, METRIC_SINK_FIGURE, metrics_figure(f->m, b, "queue"), 7);
	metrics_set(f->a, METRIC_SINK_FIGURE, metrics_figure(f->m, a, "round_trip"), 0.5);
	render(f, METRICS_TEXT_0_0_4);
	assert_line(f->text.mem, "keytrail_sink_deliveries_total{sink=\"a\",result=\"ok\"} 0");
	assert_line(f->text.mem, "keytrail_sink_deliveries_total{sink=\"b\",result=\"retry\"} 2");
	assert_line(f->text.mem, "keytrail_sink_figure{sink=\"b\",figure=\"queue\"} 7");
	assert_line(f->text.mem, "keytrail_sink_figure{sink=\"a\",figure=\"round_trip\"} 0.5");
	assert_null(strstr(f->text.mem, "sink=\"a\",figure=\"queue\""));
	assert_null(strstr(f->text.mem, "sink=\"other\""));
}

static void
test_a_histogram_of_each_sink(void **state)
{
	struct fixture *f = *state;
	unsigned a = metrics_sink(f->m, "a"), b = metrics_sink(f->m, "b");

	metrics_observe_at(f->a, METRIC_SINK_BATCH_EVENTS, b, 3);
	metrics_observe_at(f->b, METRIC_SINK_BATCH_EVENTS, b, 5000);
	assert_value(f->m, METRIC_SINK_BATCH_EVENTS, a, 0);
	assert_value(f->m, METRIC_SINK_BATCH_EVENTS, b, 2);
	render(f, METRICS_TEXT_0_0_4);
	assert_line(f->text.mem, "keytrail_sink_batch_events_bucket{sink=\"b\",le=\"2\"} 0");
	assert_line(f->text.mem, "keytrail_sink_batch_events_bucket{sink=\"b\",le=\"4\"} 1");
	assert_line(f->text.mem, "keytrail_sink_batch_events_bucket{sink=\"b\",le=\"+Inf\"} 2");
	assert_line(f->text.mem, "keytrail_sink_batch_events_sum{sink=\"b\"} 5003");
	assert_line(f->text.mem, "keytrail_sink_batch_events_count{sink=\"b\"} 2");
	assert_line(f->text.mem, "keytrail_sink_batch_events_count{sink=\"a\"} 0");
	assert_null(strstr(f->text.mem, "batch_events_count{sink=\"other\"}"));
}

static void
test_what_is_shown_before_it_occurs(void **state)
{
	struct fixture *f = *state;

	metrics_add(f->a, METRIC_REFUSED, REFUSAL_BAD_HOST, 2);
	metrics_sink(f->m, "out");
	metrics_route(f->m, "GET /never");
	metrics_add(f->a, METRIC_ROUTE_REQUESTS, metrics_route(f->m, "GET /once"), 1);
	render(f, METRICS_TEXT_0_0_4);
	/* Always: no label, or a short list that alerts watch. */
	assert_line(f->text.mem, "keytrail_unmatched_requests_total 0");
	assert_line(f->text.mem, "keytrail_events_lost_total{reason=\"ring_full\"} 0");
	assert_line(f->text.mem, "keytrail_trail_failures_total{operation=\"sync\"} 0");
	assert_line(f->text.mem, "keytrail_reloads_total{result=\"failure\"} 0");
	assert_line(f->text.mem, "keytrail_upstream_failures_total{reason=\"untrusted\"} 0");
	assert_line(f->text.mem, "keytrail_sink_events_delivered_total{sink=\"out\"} 0");
	/* From its first occurrence on. */
	assert_line(f->text.mem, "keytrail_refused_requests_total{reason=\"bad_host\"} 2");
	assert_null(strstr(f->text.mem, "reason=\"bad_method\""));
	assert_line(f->text.mem, "keytrail_route_requests_total{route=\"GET /once\"} 1");
	assert_null(strstr(f->text.mem, "GET /never"));
	/* When somebody has set it. */
	assert_null(strstr(f->text.mem, "\nkeytrail_certificate_expiry_timestamp_seconds{"));
	assert_null(strstr(f->text.mem, "\nkeytrail_sink_up{"));
	metrics_set(f->a, METRIC_CERTIFICATE_EXPIRY, metrics_file(f->m, "/a.pem"), 1796083200);
	metrics_set(f->a, METRIC_CERTIFICATE_EXPIRY, metrics_file(f->m, "/b.pem"), 1796083201);
	metrics_set(f->a, METRIC_SINK_UP, 0, 0);
	render(f, METRICS_TEXT_0_0_4);
	assert_line(f->text.mem,
	    "keytrail_certificate_expiry_timestamp_seconds{file=\"/a.pem\"} 1796083200");
	assert_line(f->text.mem,
	    "keytrail_certificate_expiry_timestamp_seconds{file=\"/b.pem\"} 1796083201");
	assert_line(f->text.mem, "keytrail_sink_up{sink=\"out\"} 0");
	metrics_set(f->a, METRIC_SINK_UP, 0, (double)NAN);
	assert_null(strstr(render(f, METRICS_TEXT_0_0_4), "\nkeytrail_sink_up{"));
}

static void
test_the_build_is_shown(void **state)
{
	struct fixture *f = *state;

	metrics_build_info(f->m, "9.9", NULL, NULL);
	metrics_build_info(f->m, "1.0", "OpenSSL 3", "llhttp 8");
	render(f, METRICS_TEXT_0_0_4);
	assert_line(f->text.mem, "# TYPE keytrail_build_info gauge");
	assert_line(f->text.mem,
	    "keytrail_build_info{version=\"1.0\",tls=\"OpenSSL 3\",http_parser=\"llhttp 8\"} 1");
	metrics_build_info(f->m, "1.0", NULL, NULL);
	render(f, METRICS_OPENMETRICS_1_0_0);
	assert_line(f->text.mem, "# TYPE keytrail_build info");
	assert_line(f->text.mem, "keytrail_build_info{version=\"1.0\"} 1");
}

static void
test_openmetrics_names_families_and_units(void **state)
{
	struct fixture *f = *state;
	size_t n;

	render(f, METRICS_OPENMETRICS_1_0_0);
	n = strlen(f->text.mem);
	assert_string_equal(f->text.mem + n - 6, "# EOF\n");
	assert_line(f->text.mem, "# TYPE keytrail_received_bytes counter");
	assert_line(f->text.mem, "# UNIT keytrail_received_bytes bytes");
	assert_line(f->text.mem, "keytrail_received_bytes_total 0");
	render(f, METRICS_TEXT_0_0_4);
	assert_line(f->text.mem, "# TYPE keytrail_received_bytes_total counter");
	assert_null(strstr(f->text.mem, "# UNIT"));
	assert_null(strstr(f->text.mem, "# EOF"));
}

static void
test_two_scrapes_of_one_state_are_equal(void **state)
{
	struct fixture *f = *state;
	char *first;

	metrics_observe(f->a, METRIC_REQUEST_SECONDS, 0.1);
	metrics_observe(f->b, METRIC_REQUEST_SECONDS, 0.2);
	first = strdup(render(f, METRICS_TEXT_0_0_4));
	assert_string_equal(render(f, METRICS_TEXT_0_0_4), first);
	free(first);
}

static void
test_the_reference_names_every_metric(void **state)
{
	struct fixture *f = *state;
	const char *line = render(f, METRICS_TEXT_0_0_4);
	struct buf reference = BUF_INIT;
	unsigned n = 0;

	assert_int_equal(metrics_reference(&reference), 0);
	assert_int_equal(buf_append(&reference, "", 1), 0);
	while ((line = strstr(line, "# TYPE ")) != NULL) {
		char name[128];

		line += 7;
		snprintf(name, sizeof(name), "| `%.*s` |", (int)strcspn(line, " "), line);
		assert_non_null(strstr(reference.mem, name));
		n++;
	}
	assert_int_equal(n, METRIC_COUNT);
	buf_fini(&reference);
}

/* ---- threads ---- */

#define STEPS 20000

struct writer {
	struct metrics_shard *in, *out;
	_Atomic uint64_t passed; /* from the one that accepts to the one that delivers */
	unsigned sink;
};

static void *
accept_events(void *arg)
{
	struct writer *w = arg;

	for (unsigned i = 0; i < STEPS; i++) {
		metrics_add(w->in, METRIC_EVENTS_ACCEPTED, 0, 1);
		metrics_observe(w->in, METRIC_ADDED_SECONDS, 0.0001);
		atomic_fetch_add(&w->passed, 1);
	}
	return NULL;
}

static void *
deliver_events(void *arg)
{
	struct writer *w = arg;

	for (uint64_t done = 0; done < STEPS;) {
		uint64_t passed = atomic_load(&w->passed);

		for (; done < passed; done++) {
			metrics_add(w->out, METRIC_EVENTS_RECORDED, 0, 1);
			metrics_add(w->out, METRIC_EVENTS_DURABLE, 0, 1);
			metrics_add(w->out, METRIC_SINK_DELIVERED, w->sink, 1);
		}
	}
	return NULL;
}

static unsigned long
sample(const char *text, const char *name)
{
	const char *p = strstr(text, name);

	assert_non_null(p);
	return strtoul(p + strlen(name), NULL, 10);
}

static void
check_ledger(const char *text)
{
	unsigned long accepted = sample(text, "\nkeytrail_events_accepted_total ");
	unsigned long recorded = sample(text, "\nkeytrail_events_recorded_total ");
	unsigned long durable = sample(text, "\nkeytrail_events_durable_total ");
	unsigned long delivered =
	    sample(text, "\nkeytrail_sink_events_delivered_total{sink=\"out\"} ");

	assert_true(delivered <= durable);
	assert_true(durable <= recorded);
	assert_true(recorded <= accepted);
	assert_int_equal(sample(text, "\nkeytrail_added_seconds_bucket{le=\"+Inf\"} "),
	    sample(text, "\nkeytrail_added_seconds_count "));
}

static void
test_a_scrape_never_shows_more_going_out_than_came_in(void **state)
{
	struct fixture *f = *state;
	struct writer w = { .in = f->a, .out = f->b, .sink = metrics_sink(f->m, "out") };
	pthread_t in, out;

	assert_int_equal(pthread_create(&in, NULL, accept_events, &w), 0);
	assert_int_equal(pthread_create(&out, NULL, deliver_events, &w), 0);
	do
		check_ledger(render(f, METRICS_TEXT_0_0_4));
	while (metrics_value(f->m, METRIC_SINK_DELIVERED, w.sink) < STEPS);
	pthread_join(in, NULL);
	pthread_join(out, NULL);
	check_ledger(render(f, METRICS_TEXT_0_0_4));
	assert_int_equal(sample(f->text.mem, "\nkeytrail_events_accepted_total "), STEPS);
}

/* ---- for parsers that nobody here wrote: tests/integration/test_metrics_text.py ---- */

static void
touch_all(struct metrics *m, struct metrics_shard *s)
{
	unsigned action = metrics_action(m, "kms.secrets.unwrap");
	unsigned sink = metrics_sink(m, "out");

	for (unsigned status = 0; status < 600; status += 100)
		metrics_count_request(s, action, METRIC_OUTCOME_FAILURE, status);
	for (unsigned r = 0; r < REFUSAL_COUNT; r++)
		metrics_add(s, METRIC_REFUSED, r, 1);
	for (unsigned r = 0; r < TLS_FAILURE_COUNT; r++)
		metrics_add(s, METRIC_HANDSHAKE_FAILURES, r, r);
	for (unsigned r = 0; r < UPSTREAM_FAILURE_COUNT; r++)
		metrics_add(s, METRIC_UPSTREAM_FAILURES, r, r);
	for (double v = 1e-5; v < 1e5; v *= 3) {
		metrics_observe(s, METRIC_REQUEST_SECONDS, v);
		metrics_observe(s, METRIC_ADDED_SECONDS, v);
		metrics_observe(s, METRIC_FSYNC_SECONDS, v);
		metrics_observe(s, METRIC_COMMIT_EVENTS, v);
	}
	metrics_add(s, METRIC_ROUTE_REQUESTS, metrics_route(m, "GET /a/{id} with X: \"b\""), 1);
	metrics_add(s, METRIC_SINK_DELIVERED, sink, 1);
	metrics_set(s, METRIC_SINK_UP, sink, 1);
	metrics_set(s, METRIC_SINK_DUE, sink, 4);
	metrics_set(s, METRIC_SINK_LAG_EVENTS, sink, 3);
	metrics_set(s, METRIC_SINK_DUE, sink, 5);
	metrics_set(s, METRIC_SINK_LAG_SECONDS, sink, 0.123456789);
	metrics_observe_at(s, METRIC_SINK_BATCH_EVENTS, sink, 3);
	metrics_observe_at(s, METRIC_SINK_DELIVERY_SECONDS, sink, 0.01);
	metrics_set(s, METRIC_SINK_FIGURE, metrics_figure(m, sink, "queue"), 2);
	metrics_set(s, METRIC_CERTIFICATE_EXPIRY, metrics_file(m, "/tls.pem"), 1796083200);
	metrics_build_info(m, "1.0", "OpenSSL 3.0.22", "llhttp 8.1.0");
}

static int
dump(const char *what)
{
	struct metrics *m = metrics_new();
	struct buf out = BUF_INIT;

	if (strcmp(what, "--dump-empty") != 0)
		touch_all(m, metrics_shard_new(m));
	metrics_render(m,
	    strcmp(what, "--dump-openmetrics") == 0 ? METRICS_OPENMETRICS_1_0_0
						    : METRICS_TEXT_0_0_4,
	    &out);
	fwrite(out.mem, 1, buf_size(&out), stdout);
	buf_fini(&out);
	metrics_free(m);
	return 0;
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_shards_are_summed),
		TEST(test_requests_are_told_apart),
		TEST(test_names_beyond_the_table_are_other),
		TEST(test_label_values_are_escaped),
		TEST(test_observations_fall_into_buckets),
		TEST(test_labels_of_two_names),
		TEST(test_a_histogram_of_each_sink),
		TEST(test_what_is_shown_before_it_occurs),
		TEST(test_the_build_is_shown),
		TEST(test_openmetrics_names_families_and_units),
		TEST(test_two_scrapes_of_one_state_are_equal),
		TEST(test_the_reference_names_every_metric),
		TEST(test_a_scrape_never_shows_more_going_out_than_came_in),
	};

	if (argc > 1)
		return dump(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
