#include "sink_kafka.h"

#include "keytrail/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- words ---- */

static const struct {
	rd_kafka_resp_err_t code;
	const char *why;
} reasons[] = {
	{ RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "no broker can be reached" },
	{ RD_KAFKA_RESP_ERR__TRANSPORT, "a broker cannot be reached" },
	{ RD_KAFKA_RESP_ERR__TIMED_OUT, "a broker does not answer" },
	{ RD_KAFKA_RESP_ERR__RESOLVE, "a broker's name cannot be resolved" },
	{ RD_KAFKA_RESP_ERR__SSL, "TLS with a broker fails: its certificate, or ours" },
	{ RD_KAFKA_RESP_ERR__AUTHENTICATION, "a broker refuses the credentials" },
	{ RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, "a broker refuses the credentials" },
	{ RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM,
	    "a broker does not have \"sasl.mechanism\"" },
	{ RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, "a broker is too old" },
	{ RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,
	    "the brokers do not have \"compression\"" },
	{ RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, "there is no such topic" },
	{ RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "there is no such topic" },
	{ RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, "there is no such partition" },
	{ RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, "the topic's name is not allowed" },
	{ RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "the user may not write to the topic" },
	{ RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
	    "the user may not write idempotently (IDEMPOTENT_WRITE on the cluster)" },
	{ RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "it is larger than the topic's max.message.bytes" },
	{ RD_KAFKA_RESP_ERR_INVALID_RECORD,
	    "the topic takes no such record: one that is compacted wants a \"key\"" },
	{ RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
	    "too few of its replicas are in sync (min.insync.replicas)" },
	{ RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, "a partition has no leader" },
	{ RD_KAFKA_RESP_ERR_POLICY_VIOLATION, "a policy of the brokers refuses it" },
	{ RD_KAFKA_RESP_ERR__QUEUE_FULL, "memory for what is under way is short" },
	{ RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "memory or threads are short" },
	{ RD_KAFKA_RESP_ERR__FATAL, "the brokers have forgotten the producer" },
	{ RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE, "what came before it was refused" },
	{ RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, "the brokers have forgotten the producer" },
	{ RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "the brokers miss what came before it" },
	{ RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "the brokers have forgotten the producer" },
};

const char *
kafka_why(rd_kafka_resp_err_t code)
{
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].code == code)
			return reasons[i].why;
	return rd_kafka_err2str(code);
}

static const char *const mechanisms[] = {
	[CONFIG_SASL_PLAIN] = "PLAIN",
	[CONFIG_SASL_SCRAM_256] = "SCRAM-SHA-256",
	[CONFIG_SASL_SCRAM_512] = "SCRAM-SHA-512",
};

static const char *const codecs[] = {
	[CONFIG_KAFKA_PLAIN] = "none",
	[CONFIG_KAFKA_GZIP] = "gzip",
	[CONFIG_KAFKA_LZ4] = "lz4",
	[CONFIG_KAFKA_ZSTD] = "zstd",
};

/* ---- what does not depend on the configuration ---- */

/* In the order of rd_kafka_conf_set.  A broker that hangs is left after socket.timeout.ms; murmur2 is
 * what clients in Java find partitions by. */
static const char *const fixed[][2] = {
	{ "client.id", "keytrail" },
	{ "enable.idempotence", "true" },
	{ "enable.gapless.guarantee", "true" },
	{ "acks", "all" },
	{ "message.timeout.ms", "0" },
	{ "allow.auto.create.topics", "false" },
	{ "topic.metadata.propagation.max.ms", "3000" },
	{ "partitioner", "murmur2_random" },
	{ "linger.ms", "2" },
	{ "queue.buffering.max.messages", "2048" },
	{ "queue.buffering.max.kbytes", "8192" },
	{ "request.timeout.ms", "8000" },
	{ "socket.timeout.ms", "10000" },
	{ "socket.connection.setup.timeout.ms", "10000" },
	{ "socket.keepalive.enable", "true" },
	{ "reconnect.backoff.max.ms", "2000" },
	{ "statistics.interval.ms", "5000" },
	{ "log.connection.close", "false" },
	{ "log.thread.name", "false" },
};

static int
set(rd_kafka_conf_t *conf, const char *name, const char *value, struct err *err)
{
	char why[256];

	/* It may quote the value. */
	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) == RD_KAFKA_CONF_OK)
		return 0;
	return err_set(
	    err, "librdkafka %s does not take %s as it is given", rd_kafka_version_str(), name);
}

static int
set_fixed(rd_kafka_conf_t *conf, struct err *err)
{
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		if (set(conf, fixed[i][0], fixed[i][1], err) == -1)
			return -1;
	return 0;
}

/* ---- what does ---- */

static int
set_brokers(rd_kafka_conf_t *conf, const struct config_sink *cfg, struct err *err)
{
	struct buf list = BUF_INIT;
	int rc = 0;

	for (size_t i = 0; i < cfg->kafka.nbrokers && rc == 0; i++) {
		const struct config_address *a = &cfg->kafka.brokers[i];
		bool v6 = strchr(a->host, ':') != NULL;

		rc = buf_printf(&list, "%s%s%s%s:%u", i > 0 ? "," : "", v6 ? "[" : "", a->host,
		    v6 ? "]" : "", a->port);
	}
	if (rc == -1 || buf_append(&list, "", 1) == -1)
		rc = err_set(err, "memory is short");
	else
		rc = set(conf, "bootstrap.servers", buf_slice(&list).p, err);
	buf_fini(&list);
	return rc;
}

static int
set_tls(rd_kafka_conf_t *conf, const struct config_tls *tls, struct err *err)
{
	const char *const rows[][2] = {
		{ "ssl.endpoint.identification.algorithm", "https" },
		{ "enable.ssl.certificate.verification", "true" },
		{ "ssl.ca.location", tls->ca },
		{ "ssl.certificate.location", tls->certificate },
		{ "ssl.key.location", tls->key },
	};

	for (size_t i = 0; tls->on && i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i][1] != NULL && set(conf, rows[i][0], rows[i][1], err) == -1)
			return -1;
	return 0;
}

/* ---- secrets ---- */

static int
set_password(rd_kafka_conf_t *conf, struct slice text, struct err *err)
{
	char password[FILE_SECRET_MAX + 1];
	int rc;

	slice_to_cstr(slice_without_eol(text), password, sizeof(password));
	rc = set(conf, "sasl.password", password, err);
	explicit_bzero(password, sizeof(password));
	return rc;
}

static int
set_user(rd_kafka_conf_t *conf, const struct config_kafka *kafka, struct err *err)
{
	struct buf text = BUF_INIT;
	int rc;

	if (!kafka->sasl.on)
		return 0;
	if (set(conf, "sasl.mechanisms", mechanisms[kafka->sasl.mechanism], err) == -1 ||
	    set(conf, "sasl.username", kafka->sasl.user, err) == -1)
		return -1;
	rc = file_load_secret(kafka->sasl.password.path, &text, err);
	if (rc == 0)
		rc = set_password(conf, buf_slice(&text), err);
	buf_fini(&text);
	return rc;
}

/* ---- the whole ---- */

rd_kafka_conf_t *
kafka_conf(const struct config_sink *cfg, struct err *err)
{
	const char *protocol = cfg->kafka.sasl.on ? "sasl_ssl" : cfg->tls.on ? "ssl" : "plaintext";
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	if (set_fixed(conf, err) == 0 && set_brokers(conf, cfg, err) == 0 &&
	    set(conf, "compression.codec", codecs[cfg->kafka.codec], err) == 0 &&
	    set(conf, "security.protocol", protocol, err) == 0 &&
	    set_tls(conf, &cfg->tls, err) == 0 && set_user(conf, &cfg->kafka, err) == 0)
		return conf;
	rd_kafka_conf_destroy(conf);
	return NULL;
}

uint64_t
kafka_stamp(const struct config_sink *cfg)
{
	uint64_t stamp = FILE_STAMP_INIT;

	file_stamp(&stamp, cfg->tls.ca);
	file_stamp(&stamp, cfg->tls.certificate);
	file_stamp(&stamp, cfg->tls.key);
	file_stamp(&stamp, cfg->kafka.sasl.password.path);
	return stamp;
}
