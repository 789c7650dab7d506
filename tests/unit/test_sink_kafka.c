/* The kafka sink against librdkafka's mock cluster. */
#include "keytrail/clock.h"
#include "keytrail/sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BROKERS	   3
#define PARTITIONS 4
#define TOPIC	   "audit"
#define EVENTS_MAX 4096
#define PRODUCE	   0 /* ApiKey */
#define INIT_ID	   22
#define PATIENCE   (60 * CLOCK_NS_PER_S)
#define SHORT	   (100 * CLOCK_NS_PER_MS)

extern const struct sink_module keytrail_sink;

struct world {
	char name[8], topic[16], host[16];
	const char *format; /* what records say */
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	struct config_address brokers[BROKERS];
	struct config_sink cfg;
	void *sink;
	struct sink_event events[EVENTS_MAX];
	char lines[EVENTS_MAX][256];
	size_t done;
	struct err err;
};

static const struct sink_ops *
ops(void)
{
	return keytrail_sink.ops;
}

/* ---- the world ---- */

static void
quiet(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	(void)rk;
	(void)level;
	(void)facility;
	(void)text;
}

static rd_kafka_t *
client(rd_kafka_type_t type, const char *brokers)
{
	static const char *const quick[][2] = { { "enable.partition.eof", "true" },
		{ "fetch.wait.max.ms", "10" } };
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char why[256];
	rd_kafka_t *rk;

	rd_kafka_conf_set_log_cb(conf, quiet);
	if (brokers != NULL)
		rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof(why));
	for (size_t i = 0; type == RD_KAFKA_CONSUMER && i < 2; i++)
		rd_kafka_conf_set(conf, quick[i][0], quick[i][1], why, sizeof(why));
	rk = rd_kafka_new(type, conf, why, sizeof(why));
	assert_non_null(rk);
	return rk;
}

static void
take_addresses(struct world *w)
{
	char list[256], *rest = list, *one;

	snprintf(list, sizeof(list), "%s", rd_kafka_mock_cluster_bootstraps(w->cluster));
	for (size_t i = 0; (one = strsep(&rest, ",")) != NULL; i++) {
		w->brokers[i].port = (uint16_t)atoi(strchr(one, ':') + 1);
		w->brokers[i].host = w->host;
	}
}

/* Of two instances, in turn; every fifth is an event of its own. */
static void
make_events(struct world *w)
{
	for (size_t i = 0; i < EVENTS_MAX; i++) {
		struct sink_event *e = &w->events[i];
		const char *instance = i % 5 == 0 ? "" : i % 2 == 0 ? "even" : "odd";

		snprintf(w->lines[i], sizeof(w->lines[i]),
		    "{\"n\":%zu,\"requestData\":{\"instanceId\":\"%s\"}}", i + 1, instance);
		*e = (struct sink_event){ .seq = i + 1, .prev = i, .log = "cafe", .boot = "b007" };
		e->line = e->text = slice_of(w->lines[i]);
		memset(e->hash, 'a', sizeof(e->hash) - 1);
	}
}

static int
setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->rk = client(RD_KAFKA_PRODUCER, NULL);
	w->cluster = rd_kafka_mock_cluster_new(w->rk, BROKERS);
	assert_int_equal(rd_kafka_mock_topic_create(w->cluster, TOPIC, PARTITIONS, BROKERS), 0);
	w->format = "activity-tracker";
	strcpy(w->name, "k");
	strcpy(w->topic, TOPIC);
	strcpy(w->host, "127.0.0.1");
	take_addresses(w);
	make_events(w);
	w->cfg = (struct config_sink){ .name = w->name,
		.type = CONFIG_SINK_KAFKA,
		.kafka = { .brokers = w->brokers,
		    .nbrokers = BROKERS,
		    .topic = w->topic,
		    .key = CONFIG_KAFKA_INSTANCE,
		    .codec = CONFIG_KAFKA_ZSTD } };
	assert_int_equal(ops()->open(&w->cfg, &w->sink, &w->err), 0);
	*state = w;
	return 0;
}

static int
teardown(void **state)
{
	struct world *w = *state;

	ops()->close(w->sink);
	rd_kafka_mock_cluster_destroy(w->cluster);
	rd_kafka_destroy(w->rk);
	free(w);
	return 0;
}

static void
open_again(struct world *w)
{
	ops()->close(w->sink);
	assert_int_equal(ops()->open(&w->cfg, &w->sink, &w->err), 0);
}

/* Events from..to-1. */
static enum sink_result
deliver(struct world *w, size_t from, size_t to, int64_t patience)
{
	w->done = 0;
	w->err.msg[0] = '\0';
	return ops()->deliver(
	    w->sink, &w->events[from], to - from, clock_mono_ns() + patience, &w->done, &w->err);
}

static void
deliver_at_once(struct world *w, size_t from, size_t to)
{
	if (deliver(w, from, to, PATIENCE) != SINK_OK)
		fail_msg("%zu of %zu are delivered: %s", w->done, to - from, w->err.msg);
}

/* Nobody takes them: until that is said. */
static void
deliver_in_vain(struct world *w, size_t from, size_t to)
{
	enum sink_result rc;

	do {
		rc = deliver(w, from, to, SHORT);
		assert_int_equal(w->done, 0);
	} while (rc == SINK_BUSY);
	assert_int_equal(rc, SINK_RETRY);
	assert_non_null(strstr(w->err.msg, "broker"));
}

/* As a publisher does: what is not done comes again.  How often it was told to. */
static unsigned
deliver_all(struct world *w, size_t from, size_t to)
{
	unsigned retries = 0;
	enum sink_result rc;

	while ((rc = deliver(w, from, to, PATIENCE)) == SINK_RETRY || rc == SINK_BUSY) {
		from += w->done;
		assert_true(++retries < 20);
	}
	assert_int_equal(rc, SINK_OK);
	return retries;
}

static void
all_brokers(struct world *w, rd_kafka_resp_err_t (*fn)(rd_kafka_mock_cluster_t *, int32_t))
{
	for (int i = 1; i <= BROKERS; i++)
		assert_int_equal(fn(w->cluster, i), 0);
}

/* ---- what arrived ---- */

struct arrivals {
	size_t n, repeats;
	unsigned times[EVENTS_MAX + 1]; /* of each number */
	int partition[EVENTS_MAX + 1];
	uint64_t last[PARTITIONS];
	bool disorder; /* in a partition, of first arrivals */
};

static const char *
header(rd_kafka_message_t *m, const char *name)
{
	rd_kafka_headers_t *headers;
	const void *value;
	size_t n;

	assert_int_equal(rd_kafka_message_headers(m, &headers), 0);
	assert_int_equal(rd_kafka_header_get_last(headers, name, &value, &n), 0);
	return value;
}

static void
take_message(struct world *w, struct arrivals *a, rd_kafka_message_t *m)
{
	uint64_t seq = strtoull(header(m, "seq"), NULL, 10);
	const struct sink_event *e = &w->events[seq - 1];

	assert_in_range(seq, 1, EVENTS_MAX);
	if (!e->stub)
		assert_true(slice_equal((struct slice){ m->payload, m->len }, e->text));
	assert_int_equal(strtoull(header(m, "prev"), NULL, 10), e->prev);
	assert_string_equal(header(m, "format"), w->format);
	a->n++;
	a->partition[seq] = m->partition;
	if (a->times[seq]++ > 0) {
		a->repeats++;
		return;
	}
	a->disorder |= seq < a->last[m->partition];
	a->last[m->partition] = seq;
}

/* To the end of each partition. */
static void
read_queue(struct world *w, rd_kafka_queue_t *queue, struct arrivals *a)
{
	int ends = 0;

	while (ends < PARTITIONS) {
		rd_kafka_message_t *m = rd_kafka_consume_queue(queue, 60000);

		if (m == NULL)
			fail_msg("no end of a partition");
		ends += m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
		if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			take_message(w, a, m);
		rd_kafka_message_destroy(m);
	}
}

static struct arrivals
arrivals(struct world *w)
{
	rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, rd_kafka_mock_cluster_bootstraps(w->cluster));
	rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, TOPIC, NULL);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	struct arrivals a = { .n = 0 };

	for (int i = 0; i < PARTITIONS; i++)
		assert_int_equal(
		    rd_kafka_consume_start_queue(topic, i, RD_KAFKA_OFFSET_BEGINNING, queue), 0);
	read_queue(w, queue, &a);
	for (int i = 0; i < PARTITIONS; i++)
		rd_kafka_consume_stop(topic, i);
	rd_kafka_queue_destroy(queue);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(rk);
	return a;
}

/* Each of these once or more. */
static struct arrivals
assert_each_of(struct world *w, size_t n)
{
	struct arrivals a = arrivals(w);

	for (size_t seq = 1; seq <= n; seq++)
		assert_true(a.times[seq] >= 1);
	assert_int_equal(a.n - a.repeats, n);
	return a;
}

/* And in order. */
static struct arrivals
assert_all_of(struct world *w, size_t n)
{
	struct arrivals a = assert_each_of(w, n);

	assert_false(a.disorder);
	return a;
}

/* ---- tests ---- */

static void
test_it_delivers_in_order_and_by_instance(void **state)
{
	struct world *w = *state;
	struct arrivals a;

	deliver_at_once(w, 0, 3000);
	deliver_at_once(w, 3000, 4000);
	a = assert_all_of(w, 4000);
	assert_int_equal(a.repeats, 0);
	for (size_t seq = 1; seq + 10 <= 4000; seq++)
		assert_int_equal(a.partition[seq], a.partition[seq + 10]);
}

static void
test_the_key_may_be_the_log_or_none(void **state)
{
	struct world *w = *state;
	struct arrivals a;

	w->cfg.kafka.key = CONFIG_KAFKA_LOG;
	w->cfg.kafka.codec = CONFIG_KAFKA_LZ4;
	open_again(w);
	deliver_at_once(w, 0, 100);
	a = assert_all_of(w, 100);
	for (size_t seq = 1; seq < 100; seq++)
		assert_int_equal(a.partition[seq], a.partition[seq + 1]);
	w->cfg.kafka.key = CONFIG_KAFKA_NONE;
	w->cfg.kafka.codec = CONFIG_KAFKA_PLAIN;
	open_again(w);
	deliver_at_once(w, 100, 200);
	assert_int_equal(arrivals(w).n, 200);
}

static void
test_records_say_their_format(void **state)
{
	struct world *w = *state;

	w->cfg.format = CONFIG_FORMAT_OCSF;
	w->format = "ocsf";
	open_again(w);
	deliver_at_once(w, 0, 10);
	assert_all_of(w, 10);
}

static void
test_what_is_under_way_is_not_produced_twice(void **state)
{
	struct world *w = *state;

	deliver_at_once(w, 0, 10);
	all_brokers(w, rd_kafka_mock_broker_set_down);
	deliver_in_vain(w, 10, 200);
	deliver_in_vain(w, 10, 200);
	all_brokers(w, rd_kafka_mock_broker_set_up);
	deliver_all(w, 10, 200);
	assert_int_equal(assert_all_of(w, 200).repeats, 0);
}

/* Not even what it says of the topic is there in the time for a diagnosis. */
static void
test_a_slow_broker_is_no_dead_one(void **state)
{
	struct world *w = *state;
	size_t from = 0;
	enum sink_result rc;

	deliver_at_once(w, 0, 10);
	for (int i = 1; i <= BROKERS; i++)
		rd_kafka_mock_broker_set_rtt(w->cluster, i, 1000);
	rc = deliver(w, 10, 20, SHORT);
	assert_int_equal(rc, SINK_BUSY);
	while (rc == SINK_BUSY) {
		from += w->done;
		rc = deliver(w, 10 + from, 20, SHORT);
	}
	assert_int_equal(rc, SINK_OK);
	assert_int_equal(assert_all_of(w, 20).repeats, 0);
}

static void
test_another_batch_is_not_mistaken_for_what_is_under_way(void **state)
{
	struct world *w = *state;

	all_brokers(w, rd_kafka_mock_broker_set_down);
	deliver_in_vain(w, 0, 100);
	deliver_in_vain(w, 50, 60);
	all_brokers(w, rd_kafka_mock_broker_set_up);
	deliver_all(w, 0, 200);
	assert_each_of(w, 200); /* the brokers may have come back before the second was given up */
}

static void
test_the_leader_may_change(void **state)
{
	struct world *w = *state;

	for (int round = 0; round < 6; round++) {
		size_t from = (size_t)round * 200;

		for (int i = 0; i < PARTITIONS; i++)
			assert_int_equal(rd_kafka_mock_partition_set_leader(
					     w->cluster, TOPIC, i, 1 + (round + i) % BROKERS),
			    0);
		deliver_all(w, from, from + 200);
	}
	assert_int_equal(assert_all_of(w, 1200).repeats, 0);
}

static void
test_too_few_replicas_are_waited_for(void **state)
{
	struct world *w = *state;

	rd_kafka_mock_push_request_errors(w->cluster, PRODUCE, 3,
	    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
	    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
	    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
	assert_int_equal(deliver_all(w, 0, 100), 0);
	assert_int_equal(assert_all_of(w, 100).repeats, 0);
}

/* What cannot be told from a lost answer is produced again. */
static void
test_a_forgotten_producer_is_made_anew(void **state)
{
	static const rd_kafka_resp_err_t codes[] = { RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
		RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
		RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, RD_KAFKA_RESP_ERR_INVALID_RECORD,
		RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
		RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED };
	struct world *w = *state;
	size_t n = 0;

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++, n += 100) {
		rd_kafka_mock_push_request_errors(w->cluster, PRODUCE, 1, codes[i]);
		deliver_all(w, n, n + 100);
	}
	assert_all_of(w, n);
}

static void
test_a_refusal_is_named(void **state)
{
	struct world *w = *state;

	rd_kafka_mock_push_request_errors(
	    w->cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
	assert_int_equal(deliver(w, 0, 1, PATIENCE), SINK_RETRY);
	assert_string_equal(w->err.msg, "topic audit: the user may not write to the topic");
	deliver_all(w, 0, 1);
	assert_all_of(w, 1);
}

/* The producer is refused, not an event. */
static void
test_a_refusal_of_the_producer_is_named(void **state)
{
	struct world *w = *state;

	rd_kafka_mock_push_request_errors(
	    w->cluster, INIT_ID, 1, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
	assert_int_equal(deliver(w, 0, 10, PATIENCE), SINK_RETRY);
	assert_string_equal(w->err.msg,
	    "topic audit: the user may not write idempotently (IDEMPOTENT_WRITE on the cluster)");
	deliver_all(w, 0, 10);
	assert_int_equal(assert_all_of(w, 10).repeats, 0);
}

static void
test_a_topic_that_is_not_there_is_not_made(void **state)
{
	struct world *w = *state;

	rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	assert_int_equal(deliver(w, 0, 100, PATIENCE), SINK_RETRY);
	assert_string_equal(w->err.msg, "topic audit: there is no such topic");
	assert_int_equal(w->done, 0);
	rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_NO_ERROR);
	deliver_all(w, 0, 100);
	assert_all_of(w, 100);
}

/* librdkafka knows that it can never be sent. */
static void
test_an_event_that_is_too_large_is_rejected(void **state)
{
	struct world *w = *state;
	struct slice text = w->events[40].text;
	char *large = calloc(1, 2000000);

	w->events[40].text = (struct slice){ large, 2000000 };
	assert_int_equal(deliver(w, 0, 100, PATIENCE), SINK_REJECT);
	assert_int_equal(w->done, 40);
	assert_non_null(strstr(w->err.msg, "larger"));
	w->events[40].text = text;
	w->events[40].stub = true;
	deliver_at_once(w, 40, 100);
	assert_int_equal(assert_all_of(w, 100).repeats, 0);
	free(large);
}

/* A broker refuses the batch, but none of its events.  What is queued then is purged, which librdkafka
 * now and then reports before the refusal. */
static void
test_a_batch_that_is_too_large_goes_one_by_one(void **state)
{
	struct world *w = *state;
	size_t n = 0;

	for (int round = 0; round < 10; round++, n += 50) {
		rd_kafka_mock_push_request_errors(
		    w->cluster, PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
		deliver_at_once(w, n, n + 50);
	}
	assert_all_of(w, n);
}

/* All go to one partition, so that the second refusal meets the first event, alone. */
static void
test_the_event_that_a_broker_finds_too_large_is_rejected(void **state)
{
	struct world *w = *state;

	w->cfg.kafka.key = CONFIG_KAFKA_LOG;
	open_again(w);
	rd_kafka_mock_push_request_errors(w->cluster, PRODUCE, 2,
	    RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	assert_int_equal(deliver(w, 0, 50, PATIENCE), SINK_REJECT);
	assert_int_equal(w->done, 0);
	w->events[0].stub = true;
	deliver_at_once(w, 0, 50);
	deliver_at_once(w, 50, 200);
	assert_int_equal(assert_all_of(w, 200).repeats, 0);
}

static void
keep_figure(void *sum, const char *name, double value)
{
	if (strcmp(name, "brokers_up") == 0)
		*(double *)sum = value;
}

static void
test_figures_tell_of_the_brokers(void **state)
{
	struct world *w = *state;
	int64_t end = clock_mono_ns() + PATIENCE;
	double up = 0;

	deliver_at_once(w, 0, 100);
	while (up == 0 && clock_mono_ns() < end) {
		ops()->figures(w->sink, keep_figure, &up);
		poll(NULL, 0, 10);
	}
	assert_in_range((int)up, 1, BROKERS);
}

static void
test_a_probe_tells_what_is_there(void **state)
{
	struct world *w = *state;
	struct buf found = BUF_INIT;

	assert_int_equal(ops()->probe(&w->cfg, clock_mono_ns() + PATIENCE, &found, &w->err), 0);
	assert_int_equal(buf_append(&found, "", 1), 0);
	assert_non_null(strstr(buf_slice(&found).p, "3 brokers, topic audit: 4 partitions"));
	assert_non_null(strstr(buf_slice(&found).p, "its settings may not be read"));
	buf_fini(&found);
	rd_kafka_mock_topic_set_error(w->cluster, TOPIC, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	assert_int_equal(ops()->probe(&w->cfg, clock_mono_ns() + PATIENCE, &found, &w->err), -1);
	assert_string_equal(w->err.msg, "topic audit: there is no such topic");
	all_brokers(w, rd_kafka_mock_broker_set_down);
	assert_int_equal(ops()->probe(&w->cfg, clock_mono_ns() + 10 * SHORT, &found, &w->err), -1);
	assert_non_null(strstr(w->err.msg, "reached"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_it_delivers_in_order_and_by_instance),
		TEST(test_the_key_may_be_the_log_or_none),
		TEST(test_records_say_their_format),
		TEST(test_what_is_under_way_is_not_produced_twice),
		TEST(test_a_slow_broker_is_no_dead_one),
		TEST(test_another_batch_is_not_mistaken_for_what_is_under_way),
		TEST(test_the_leader_may_change),
		TEST(test_too_few_replicas_are_waited_for),
		TEST(test_a_forgotten_producer_is_made_anew),
		TEST(test_a_refusal_is_named),
		TEST(test_a_refusal_of_the_producer_is_named),
		TEST(test_a_topic_that_is_not_there_is_not_made),
		TEST(test_an_event_that_is_too_large_is_rejected),
		TEST(test_a_batch_that_is_too_large_goes_one_by_one),
		TEST(test_the_event_that_a_broker_finds_too_large_is_rejected),
		TEST(test_figures_tell_of_the_brokers),
		TEST(test_a_probe_tells_what_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
