/*
 * sink_kafka: what the files of the kafka module share: one producer and what it has under way.
 *
 * The producer is thrown away and made anew whenever an event could not be delivered, or a secret
 * has changed: what it had under way is produced again then, which at least once allows.  It never
 * gives up by itself (message.timeout.ms 0), and with enable.gapless.guarantee nothing overtakes what
 * has failed.
 */
#ifndef KEYTRAIL_SINK_KAFKA_H
#define KEYTRAIL_SINK_KAFKA_H

#include "keytrail/config.h"
#include "keytrail/err.h"
#include "keytrail/log.h"
#include "keytrail/sink.h"

#include <librdkafka/rdkafka.h>

/* ---- settings (sink_kafka_conf.c) ---- */

/* For rd_kafka_new, with what the files of secrets hold now; or NULL. */
rd_kafka_conf_t *kafka_conf(const struct config_sink *cfg, struct err *err);

/* Changes with the files. */
uint64_t kafka_stamp(const struct config_sink *cfg);

/* In our words; nothing of what a broker says. */
const char *kafka_why(rd_kafka_resp_err_t code);

/* ---- what the brokers say of the topic (sink_kafka_topic.c) ---- */

/* Of its metadata; rd_kafka_metadata_destroy frees it. */
rd_kafka_resp_err_t kafka_ask_for_topic(
    rd_kafka_t *rk, const char *topic, int timeout_ms, const struct rd_kafka_metadata **out);

/* Why it might not take records now, as its metadata say. */
rd_kafka_resp_err_t kafka_topic_trouble(const struct rd_kafka_metadata *m);

/* check --environment. */
int kafka_probe(
    const struct config_sink *cfg, int64_t deadline_ns, struct buf *found, struct err *err);

/* ---- figures (sink_kafka_stats.c) ---- */

#define KAFKA_FIGURES 8
struct kafka_figures {
	double values[KAFKA_FIGURES];
};
/* What librdkafka's statistics say; as they were where they cannot be read. */
void kafka_figures_read(struct kafka_figures *f, const char *json);
void kafka_figures_tell(const struct kafka_figures *f, sink_figure_fn each, void *arg);

#endif
