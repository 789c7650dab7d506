#include "sink_kafka.h"

#include "keytrail/clock.h"

#include <stdlib.h>
#include <string.h>

#define SETTINGS_MS 3000 /* a broker may not know how to tell */

/* ---- its metadata ---- */

rd_kafka_resp_err_t
kafka_ask_for_topic(
    rd_kafka_t *rk, const char *topic, int timeout_ms, const struct rd_kafka_metadata **out)
{
	rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);
	rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, t, out, timeout_ms);

	rd_kafka_topic_destroy(t);
	return code;
}

rd_kafka_resp_err_t
kafka_topic_trouble(const struct rd_kafka_metadata *m)
{
	const struct rd_kafka_metadata_topic *t = m->topics;
	rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (m->topic_cnt != 1 || t->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		return m->topic_cnt == 1 ? t->err : RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
	for (int i = 0; i < t->partition_cnt; i++) {
		if (t->partitions[i].leader < 0)
			return RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
		if (t->partitions[i].isr_cnt < t->partitions[i].replica_cnt)
			code = RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
	}
	return code;
}

struct probe {
	const struct config_sink *cfg;
	rd_kafka_t *rk;
	rd_kafka_resp_err_t trouble; /* that a broker was reached with, or not */
	int64_t deadline_ns;
	struct buf *found;
};

static void
on_error(rd_kafka_t *rk, int code, const char *why, void *probe)
{
	struct probe *p = probe;

	(void)rk;
	(void)why;
	if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || p->trouble == RD_KAFKA_RESP_ERR_NO_ERROR)
		p->trouble = code;
}

static void
on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	(void)rk;
	(void)level;
	(void)facility;
	(void)text;
}

static int
left_ms(const struct probe *p)
{
	int64_t left = (p->deadline_ns - clock_mono_ns()) / CLOCK_NS_PER_MS;

	return left > 0 ? (int)left : 0;
}

/* ---- the topic ---- */

static int
put_topic(struct probe *p, int brokers, const struct rd_kafka_metadata_topic *t)
{
	int least = t->partition_cnt > 0 ? t->partitions[0].replica_cnt : 0;
	int lag = 0, headless = 0;

	for (int i = 0; i < t->partition_cnt; i++) {
		const struct rd_kafka_metadata_partition *part = &t->partitions[i];

		least = part->replica_cnt < least ? part->replica_cnt : least;
		lag += part->isr_cnt < part->replica_cnt;
		headless += part->leader < 0;
	}
	return buf_printf(p->found,
	    "%d brokers, topic %s: %d partitions (%d without a leader, %d with replicas out of "
	    "sync), replication %d",
	    brokers, t->topic, t->partition_cnt, headless, lag, least);
}

static int
look_at_topic(struct probe *p, struct err *err)
{
	const struct rd_kafka_metadata *m;
	rd_kafka_resp_err_t code = kafka_ask_for_topic(p->rk, p->cfg->kafka.topic, left_ms(p), &m);
	int rc = 0;

	if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
		rd_kafka_poll(p->rk, 0);
		return err_set(err, "%s",
		    kafka_why(p->trouble != RD_KAFKA_RESP_ERR_NO_ERROR ? p->trouble : code));
	}
	if (m->topic_cnt != 1 || m->topics[0].err != RD_KAFKA_RESP_ERR_NO_ERROR)
		rc = err_set(
		    err, "topic %s: %s", p->cfg->kafka.topic, kafka_why(kafka_topic_trouble(m)));
	else if (put_topic(p, m->broker_cnt, &m->topics[0]) == -1)
		rc = err_set(err, "memory is short");
	rd_kafka_metadata_destroy(m);
	return rc;
}

/* ---- its settings, where the user may read them ---- */

static rd_kafka_event_t *
ask_for_settings(struct probe *p)
{
	rd_kafka_ConfigResource_t *topic =
	    rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, p->cfg->kafka.topic);
	rd_kafka_AdminOptions_t *options =
	    rd_kafka_AdminOptions_new(p->rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_queue_t *answers = rd_kafka_queue_new(p->rk);
	rd_kafka_event_t *answer = NULL;
	int ms = left_ms(p) < SETTINGS_MS ? left_ms(p) : SETTINGS_MS;

	if (ms > 0 && rd_kafka_AdminOptions_set_request_timeout(options, ms, NULL, 0) ==
			  RD_KAFKA_RESP_ERR_NO_ERROR) {
		rd_kafka_DescribeConfigs(p->rk, &topic, 1, options, answers);
		answer = rd_kafka_queue_poll(answers, ms);
	}
	rd_kafka_queue_destroy(answers);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(topic);
	return answer;
}

static int
put_settings(struct probe *p, rd_kafka_event_t *answer)
{
	static const char *const wanted[] = { "min.insync.replicas",
		"unclean.leader.election.enable", "max.message.bytes" };
	const rd_kafka_DescribeConfigs_result_t *result;
	const rd_kafka_ConfigResource_t **topics;
	const rd_kafka_ConfigEntry_t **entries;
	size_t n;

	result = answer != NULL ? rd_kafka_event_DescribeConfigs_result(answer) : NULL;
	topics = result != NULL ? rd_kafka_DescribeConfigs_result_resources(result, &n) : NULL;
	if (topics == NULL || n != 1 ||
	    rd_kafka_ConfigResource_error(topics[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return buf_printf(p->found, "; its settings may not be read");
	entries = rd_kafka_ConfigResource_configs(topics[0], &n);
	for (size_t w = 0; w < sizeof(wanted) / sizeof(wanted[0]); w++)
		for (size_t i = 0; i < n; i++)
			if (strcmp(rd_kafka_ConfigEntry_name(entries[i]), wanted[w]) == 0 &&
			    buf_printf(p->found, ", %s %s", wanted[w],
				rd_kafka_ConfigEntry_value(entries[i])) == -1)
				return -1;
	return 0;
}

static int
look_at_settings(struct probe *p, struct err *err)
{
	rd_kafka_event_t *answer = ask_for_settings(p);
	int rc = put_settings(p, answer);

	if (answer != NULL)
		rd_kafka_event_destroy(answer);
	return rc == -1 ? err_set(err, "memory is short") : 0;
}

/* ---- the whole ---- */

static int
connect_to(struct probe *p, struct err *err)
{
	rd_kafka_conf_t *conf = kafka_conf(p->cfg, err);
	char why[256];

	if (conf == NULL)
		return -1;
	rd_kafka_conf_set_opaque(conf, p);
	rd_kafka_conf_set_error_cb(conf, on_error);
	rd_kafka_conf_set_log_cb(conf, on_log);
	if ((p->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why))) != NULL)
		return 0;
	rd_kafka_conf_destroy(conf);
	return err_set(err, "librdkafka: %s", why);
}

int
kafka_probe(const struct config_sink *cfg, int64_t deadline_ns, struct buf *found, struct err *err)
{
	struct probe p = { .cfg = cfg, .deadline_ns = deadline_ns, .found = found };
	int rc = -1;

	if (connect_to(&p, err) == -1)
		return -1;
	if (look_at_topic(&p, err) == 0)
		rc = look_at_settings(&p, err);
	rd_kafka_destroy(p.rk);
	return rc;
}
