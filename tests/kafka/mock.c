/*
 * kafka-mock BROKERS TOPIC:PARTITIONS...: librdkafka's mock cluster as a process.
 *
 * Prints one line with the addresses of its brokers and then does what standard input says, a line
 * each, and answers "ok" or "error"; it ends with standard input.  A broker of number 0 is all of
 * them.
 *
 *	up BROKER
 *	down BROKER			connections are reset, none are taken
 *	slow BROKER MS			each answer takes so long
 *	lead TOPIC PARTITION BROKER	the leader is another one
 *	fail API CODE TIMES		the next requests of this kind are answered so (0: Produce, 3: Metadata)
 *	refuse TOPIC CODE		what metadata says of the topic; 0: all is well
 */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 256

struct mock {
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	int brokers;
};

struct order {
	char word[16], topic[128];
	int a, b, c;
};

/* ---- what it is told ---- */

static rd_kafka_resp_err_t
one_broker(struct mock *m, const struct order *o, int broker)
{
	if (strcmp(o->word, "up") == 0)
		return rd_kafka_mock_broker_set_up(m->cluster, broker);
	if (strcmp(o->word, "down") == 0)
		return rd_kafka_mock_broker_set_down(m->cluster, broker);
	return rd_kafka_mock_broker_set_rtt(m->cluster, broker, o->b);
}

static rd_kafka_resp_err_t
each_broker(struct mock *m, const struct order *o)
{
	rd_kafka_resp_err_t rc = RD_KAFKA_RESP_ERR_NO_ERROR;

	for (int i = 1; i <= m->brokers && rc == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
		if (o->a == 0 || o->a == i)
			rc = one_broker(m, o, i);
	return rc;
}

static rd_kafka_resp_err_t
fail(struct mock *m, const struct order *o)
{
	rd_kafka_resp_err_t codes[64];
	size_t n = o->c < 64 ? (size_t)o->c : 64;

	for (size_t i = 0; i < n; i++)
		codes[i] = (rd_kafka_resp_err_t)o->b;
	rd_kafka_mock_clear_request_errors(m->cluster, (int16_t)o->a);
	rd_kafka_mock_push_request_errors_array(m->cluster, (int16_t)o->a, n, codes);
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t
refuse(struct mock *m, const struct order *o)
{
	rd_kafka_mock_topic_set_error(m->cluster, o->topic, (rd_kafka_resp_err_t)o->a);
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t
obey(struct mock *m, const char *line)
{
	struct order o = { .word = "" };

	if (sscanf(line, "lead %127s %d %d", o.topic, &o.a, &o.b) == 3)
		return rd_kafka_mock_partition_set_leader(m->cluster, o.topic, o.a, o.b);
	if (sscanf(line, "refuse %127s %d", o.topic, &o.a) == 2)
		return refuse(m, &o);
	if (sscanf(line, "%15s %d %d %d", o.word, &o.a, &o.b, &o.c) < 2)
		return RD_KAFKA_RESP_ERR__INVALID_ARG;
	return strcmp(o.word, "fail") == 0 ? fail(m, &o) : each_broker(m, &o);
}

/* ---- the cluster ---- */

static int
make_topics(struct mock *m, char **names, int n)
{
	for (int i = 0; i < n; i++) {
		char *colon = strchr(names[i], ':');

		if (colon == NULL)
			return -1;
		*colon = '\0';
		if (rd_kafka_mock_topic_create(m->cluster, names[i], atoi(colon + 1),
			m->brokers < 3 ? m->brokers : 3) != RD_KAFKA_RESP_ERR_NO_ERROR)
			return -1;
	}
	return 0;
}

int
main(int argc, char **argv)
{
	struct mock m = { .brokers = argc > 2 ? atoi(argv[1]) : 0 };
	char line[LINE_SIZE], why[256];

	m.rk = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof(why));
	if (m.brokers < 1 || m.rk == NULL ||
	    (m.cluster = rd_kafka_mock_cluster_new(m.rk, m.brokers)) == NULL ||
	    make_topics(&m, argv + 2, argc - 2) == -1) {
		fprintf(stderr, "kafka-mock: it could not be made\n");
		return 1;
	}
	puts(rd_kafka_mock_cluster_bootstraps(m.cluster));
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		puts(obey(&m, line) == RD_KAFKA_RESP_ERR_NO_ERROR ? "ok" : "error");
		fflush(stdout);
	}
	rd_kafka_mock_cluster_destroy(m.cluster);
	rd_kafka_destroy(m.rk);
	return 0;
}
