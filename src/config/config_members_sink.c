#include "config_members.h"

#include "keytrail/pattern.h"

/* ---- words ---- */

static const struct member_word sink_words[] = {
	{ "stdout", CONFIG_SINK_STDOUT },
	{ "file", CONFIG_SINK_FILE },
	{ "syslog", CONFIG_SINK_SYSLOG },
	{ "http", CONFIG_SINK_HTTP },
	{ "kafka", CONFIG_SINK_KAFKA },
	{ NULL, 0 },
};

static const struct member_word transport_words[] = {
	{ "tls", CONFIG_SYSLOG_TLS },
	{ "tcp", CONFIG_SYSLOG_TCP },
	{ "udp", CONFIG_SYSLOG_UDP },
	{ NULL, 0 },
};

static const struct member_word preset_words[] = {
	{ "ndjson", CONFIG_HTTP_NDJSON },
	{ "json", CONFIG_HTTP_JSON },
	{ "elasticsearch", CONFIG_HTTP_ELASTICSEARCH },
	{ "opensearch", CONFIG_HTTP_OPENSEARCH },
	{ "ibm-cloud-logs", CONFIG_HTTP_IBM_CLOUD_LOGS },
	{ "splunk-hec", CONFIG_HTTP_SPLUNK_HEC },
	{ "loki", CONFIG_HTTP_LOKI },
	{ "otlp", CONFIG_HTTP_OTLP },
	{ "cloudevents", CONFIG_HTTP_CLOUDEVENTS },
	{ NULL, 0 },
};

static const struct member_word compression_words[] = {
	{ "none", false },
	{ "gzip", true },
	{ NULL, 0 },
};

static const struct member_word kafka_key_words[] = {
	{ "instance", CONFIG_KAFKA_INSTANCE },
	{ "log", CONFIG_KAFKA_LOG },
	{ "none", CONFIG_KAFKA_NONE },
	{ NULL, 0 },
};

static const struct member_word codec_words[] = {
	{ "zstd", CONFIG_KAFKA_ZSTD },
	{ "lz4", CONFIG_KAFKA_LZ4 },
	{ "gzip", CONFIG_KAFKA_GZIP },
	{ "none", CONFIG_KAFKA_PLAIN },
	{ NULL, 0 },
};

static const struct member_word mechanism_words[] = {
	{ "SCRAM-SHA-512", CONFIG_SASL_SCRAM_512 },
	{ "SCRAM-SHA-256", CONFIG_SASL_SCRAM_256 },
	{ "PLAIN", CONFIG_SASL_PLAIN },
	{ NULL, 0 },
};

static const struct member_word start_words[] = {
	{ "earliest", true },
	{ "now", false },
	{ NULL, 0 },
};

/* ---- checks ---- */

static int
check_topic(const char *value, struct err *err)
{
	if (strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") !=
		strlen(value) ||
	    strcmp(value, ".") == 0 || strcmp(value, "..") == 0)
		return err_set(err, "wanted letters, digits, '-', '_' and '.'");
	return 0;
}

#define WILD_DIGITS "*?0123456789"
#define LOWER	    "abcdefghijklmnopqrstuvwxyz"

static int
check_pattern(const char *value, const char *chars, const char *what, struct err *err)
{
	if (strspn(value, chars) != strlen(value))
		return err_set(err, "wanted a pattern of '*', '?', %s", what);
	return 0;
}

static int
check_action_pattern(const char *value, struct err *err)
{
	return check_pattern(
	    value, WILD_DIGITS LOWER ".-", "lower-case letters, digits, '.' and '-'", err);
}

static int
check_region_pattern(const char *value, struct err *err)
{
	return check_pattern(
	    value, WILD_DIGITS LOWER "-", "lower-case letters, digits and '-'", err);
}

static int
check_hex_pattern(const char *value, struct err *err)
{
	return check_pattern(value, WILD_DIGITS "abcdef-", "lower-case hex digits and '-'", err);
}

static int
check_words_pattern(const char *value, const char *const *words, struct err *err)
{
	for (; *words != NULL; words++)
		if (pattern_matches(value, slice_of(*words)))
			return 0;
	return err_set(err, "it matches none there is");
}

static int
check_severity_pattern(const char *value, struct err *err)
{
	static const char *const words[] = { "normal", "warning", "critical", NULL };

	return check_words_pattern(value, words, err);
}

static int
check_outcome_pattern(const char *value, struct err *err)
{
	static const char *const words[] = { "success", "failure", "unknown", "pending", NULL };

	return check_words_pattern(value, words, err);
}

static int
check_url(const char *value, struct err *err)
{
	size_t n = strncmp(value, "https://", 8) == 0  ? 8
		   : strncmp(value, "http://", 7) == 0 ? 7
						       : 0;

	if (n == 0 || value[n] == '\0' || value[n] == '/' || value[n] == ':' ||
	    strspn(
		value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/[]%") !=
		strlen(value))
		return err_set(err, "wanted an URL like \"https://siem.example.com:9200\", without "
				    "credentials, query "
				    "and fragment");
	return 0;
}

static int
check_index(const char *value, struct err *err)
{
	if (strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != strlen(value) ||
	    strchr("-_.", value[0]) != NULL)
		return err_set(err, "wanted lower-case letters, digits, '-', '_' and '.'");
	return 0;
}

static int
check_user(const char *value, struct err *err)
{
	/* RFC 7617 section 2: a colon ends it. */
	return strchr(value, ':') != NULL ? err_set(err, "wanted a name without ':'")
					  : config_check_text(value, err);
}

/* Those that say where a message ends, or that the sink sets. */
static int
check_own_header(const char *value, struct err *err)
{
	static const char *const taken[] = { "connection", "content-encoding", "content-length",
		"content-type", "expect", "host", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade" };

	for (size_t i = 0; i < COUNT(taken); i++)
		if (slice_equal_nocase(slice_of(value), slice_of(taken[i])))
			return err_set(err, "wanted another header: this one the sink sets itself");
	return config_check_header(value, err);
}

/* ---- a header ---- */

#define HEADER(member) AT(struct config_header, member)

static const struct member header_members[] = {
	{ .name = "name",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED,
	    HEADER(name),
	    .min = 1,
	    .max = 64,
	    .check = check_own_header,
	    .help = "Its name." },
	{ .name = "value",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_REQUIRED,
	    HEADER(value),
	    .min = 1,
	    .help = "File of its value." },
};

const struct member_table config_header_table = { "a header", header_members, COUNT(header_members),
	sizeof(struct config_header) };

/* ---- a sink ---- */

#define SINK(member) AT(struct config_sink, member)
#define OF(type)     (1u << CONFIG_SINK_##type)
#define REMOTE	     (OF(SYSLOG) | OF(HTTP) | OF(KAFKA))

static const struct member sink_members[] = {
	{ .name = "name",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED,
	    SINK(name),
	    .min = 1,
	    .max = 63,
	    .check = config_check_name,
	    .help = "Its name in metrics and in the trail's directory; keep it." },
	{ .name = "type",
	    .type = MEMBER_WORD,
	    .flags = MEMBER_REQUIRED | MEMBER_KIND,
	    SINK(type),
	    .words = sink_words,
	    .help = "What it is." },
	{ .name = "format",
	    .type = MEMBER_WORD,
	    SINK(format),
	    .words = config_format_words,
	    .fallback = "\"activity-tracker\"",
	    .help = "What is made of an event; `docs/formats.md` says how." },
	{ .name = "filter",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_OUTSIDE,
	    .help = "Which events it gets: those for which each list here has a pattern ('*' any "
		    "run of characters, '?' one; no list, or an empty one: all). Events of the "
		    "sidecar's own life and checkpoints cannot be held back." },
	{ .name = "filter.actions",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_OUTSIDE,
	    SINK(filter.actions.all),
	    WITH(struct config_sink, filter.actions.n),
	    .max = 64,
	    .check = check_action_pattern,
	    .fallback = "[]",
	    .help = "Of the routes in `audit.vocabulary`: \"kms.secrets.*\". Each pattern has to "
		    "match one." },
	{ .name = "filter.severities",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_OUTSIDE,
	    SINK(filter.severities.all),
	    WITH(struct config_sink, filter.severities.n),
	    .max = 64,
	    .check = check_severity_pattern,
	    .fallback = "[]",
	    .help = "`normal`, `warning`, `critical`." },
	{ .name = "filter.outcomes",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_OUTSIDE,
	    SINK(filter.outcomes.all),
	    WITH(struct config_sink, filter.outcomes.n),
	    .max = 64,
	    .check = check_outcome_pattern,
	    .fallback = "[]",
	    .help = "`success`, `failure`, `unknown`, `pending`." },
	{ .name = "filter.accounts",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_OUTSIDE,
	    SINK(filter.accounts.all),
	    WITH(struct config_sink, filter.accounts.n),
	    .max = 64,
	    .check = check_hex_pattern,
	    .fallback = "[]",
	    .help = "As `logSourceCRN` has it; \"\" for events that have none." },
	{ .name = "filter.regions",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_OUTSIDE,
	    SINK(filter.regions.all),
	    WITH(struct config_sink, filter.regions.n),
	    .max = 64,
	    .check = check_region_pattern,
	    .fallback = "[]",
	    .help = "Likewise." },
	{ .name = "filter.instances",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_OUTSIDE,
	    SINK(filter.instances.all),
	    WITH(struct config_sink, filter.instances.n),
	    .max = 64,
	    .check = check_hex_pattern,
	    .fallback = "[]",
	    .help = "Likewise; \"\" where the service has not verified one." },
	{ .name = "path",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_REQUIRED,
	    .only = OF(FILE),
	    SINK(path),
	    .min = 1,
	    .max = 4096,
	    .help = "The file that is appended to." },
	{ .name = "rotate_size",
	    .type = MEMBER_BYTES,
	    .only = OF(FILE),
	    SINK(rotate_size),
	    .max = 1024 * TIB,
	    .fallback = "0",
	    .help = "Size at which it is rotated; 0: never." },
	{ .name = "rotate_age",
	    .type = MEMBER_SECONDS,
	    .only = OF(FILE),
	    SINK(rotate_age),
	    .max = 36500 * DAY_S,
	    .fallback = "0",
	    .help = "Age at which it is rotated; 0: never." },
	{ .name = "keep",
	    .type = MEMBER_COUNT,
	    .only = OF(FILE),
	    SINK(keep),
	    .min = 1,
	    .max = 10000,
	    .fallback = "10",
	    .help = "Rotated files that are kept." },
	{ .name = "address",
	    .type = MEMBER_ADDRESS,
	    .flags = MEMBER_REQUIRED,
	    .only = OF(SYSLOG),
	    SINK(address),
	    .help = "The receiver's host and port: \"siem.example.com:6514\"." },
	{ .name = "transport",
	    .type = MEMBER_WORD,
	    .only = OF(SYSLOG),
	    SINK(transport),
	    .words = transport_words,
	    .fallback = "\"tls\"",
	    .help = "How messages travel: RFC 5425, RFC 6587 with octet counting, or RFC 5426, of "
		    "which nothing is promised." },
	{ .name = "max_datagram",
	    .type = MEMBER_BYTES,
	    .only = OF(SYSLOG),
	    SINK(max_datagram),
	    .min = 480,
	    .max = 65507,
	    .fallback = "\"8KiB\"",
	    .help =
		"What the receiver takes of a message over UDP; of a longer one it gets a stub, "
		"and the event is in quarantine." },
	{ .name = "url",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED,
	    .only = OF(HTTP),
	    SINK(http.url),
	    .min = 8,
	    .max = 1024,
	    .check = check_url,
	    .help = "Where the receiver is; a preset adds the path of its API. Credentials need "
		    "\"https\"." },
	{ .name = "preset",
	    .type = MEMBER_WORD,
	    .only = OF(HTTP),
	    SINK(http.preset),
	    .words = preset_words,
	    .fallback = "\"ndjson\"",
	    .help =
		"What the receiver is: how a batch is framed, and what an answer to it means." },
	{ .name = "compression",
	    .type = MEMBER_WORD,
	    .only = OF(HTTP),
	    SINK(http.gzip),
	    .words = compression_words,
	    .fallback = "\"gzip\"",
	    .help = "Of a request's body." },
	{ .name = "index",
	    .type = MEMBER_STRING,
	    .only = OF(HTTP),
	    SINK(http.index),
	    .min = 1,
	    .max = 200,
	    .check = check_index,
	    .fallback = "\"keytrail-audit\"",
	    .help = "`elasticsearch`, `opensearch`: the index, or data stream." },
	{ .name = "proxy",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_NULLABLE,
	    .only = OF(HTTP),
	    SINK(http.proxy),
	    .min = 8,
	    .max = 1024,
	    .check = check_url,
	    .fallback = "null",
	    .help = "URL of the proxy in between; null: none, whatever the environment says." },
	{ .name = "bearer",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_NULLABLE,
	    .only = OF(HTTP),
	    SINK(http.bearer),
	    .min = 1,
	    .fallback = "null",
	    .help = "File of a token for `Authorization`." },
	{ .name = "basic",
	    .type = MEMBER_OBJECT,
	    .only = OF(HTTP),
	    .help = "A user and its password for `Authorization`." },
	{ .name = "basic.user",
	    .type = MEMBER_STRING,
	    .only = OF(HTTP),
	    SINK(http.basic.user),
	    .min = 1,
	    .max = 255,
	    .check = check_user,
	    .help = "Its name." },
	{ .name = "basic.password",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_NULLABLE,
	    .only = OF(HTTP),
	    SINK(http.basic.password),
	    .min = 1,
	    .fallback = "null",
	    .help = "File of its password." },
	{ .name = "headers",
	    .type = MEMBER_LIST,
	    .only = OF(HTTP),
	    SINK(http.headers),
	    WITH(struct config_sink, http.nheaders),
	    .element = &config_header_table,
	    .max = 16,
	    .fallback = "[]",
	    .help = "Other headers whose values are secrets, like an API key's or a tenant's." },
	{ .name = "api_key",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_NULLABLE,
	    .only = OF(HTTP),
	    SINK(http.api_key),
	    .min = 1,
	    .fallback = "null",
	    .help = "`ibm-cloud-logs`: file of the API key for which IAM gives tokens." },
	{ .name = "iam_url",
	    .type = MEMBER_STRING,
	    .only = OF(HTTP),
	    SINK(http.iam_url),
	    .min = 9,
	    .max = 1024,
	    .check = check_url,
	    .fallback = "\"https://iam.cloud.ibm.com/identity/token\"",
	    .help = "`ibm-cloud-logs`: where IAM gives them." },
	{ .name = "brokers",
	    .type = MEMBER_ADDRESSES,
	    .flags = MEMBER_REQUIRED,
	    .only = OF(KAFKA),
	    SINK(kafka.brokers),
	    WITH(struct config_sink, kafka.nbrokers),
	    .min = 1,
	    .max = CONFIG_ADDRESSES_MAX,
	    .help = "Hosts and ports of brokers, of which one that answers tells of all." },
	{ .name = "topic",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED,
	    .only = OF(KAFKA),
	    SINK(kafka.topic),
	    .min = 1,
	    .max = 249,
	    .check = check_topic,
	    .help = "Topic that is written to; it is never made." },
	{ .name = "key",
	    .type = MEMBER_WORD,
	    .only = OF(KAFKA),
	    SINK(kafka.key),
	    .words = kafka_key_words,
	    .fallback = "\"instance\"",
	    .help =
		"What a record's key is, by which it finds its partition: events of one "
		"instance stay in order (those of none by their log), or all of a log, or none." },
	{ .name = "compression",
	    .type = MEMBER_WORD,
	    .only = OF(KAFKA),
	    SINK(kafka.codec),
	    .words = codec_words,
	    .fallback = "\"zstd\"",
	    .help = "Of the batches." },
	{ .name = "sasl",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_NULLABLE,
	    .only = OF(KAFKA),
	    SINK(kafka.sasl.on),
	    .fallback = "null",
	    .help = "The user, for whom there has to be `tls`; null: none." },
	{ .name = "sasl.mechanism",
	    .type = MEMBER_WORD,
	    .only = OF(KAFKA),
	    SINK(kafka.sasl.mechanism),
	    .words = mechanism_words,
	    .fallback = "\"SCRAM-SHA-512\"",
	    .help = "How the user is authenticated." },
	{ .name = "sasl.user",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED,
	    .only = OF(KAFKA),
	    SINK(kafka.sasl.user),
	    .min = 1,
	    .max = 256,
	    .check = config_check_text,
	    .help = "The user's name." },
	{ .name = "sasl.password",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_REQUIRED,
	    .only = OF(KAFKA),
	    SINK(kafka.sasl.password),
	    .help = "File of the user's password, read again when it changes." },
	{ .name = "tls",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_NULLABLE,
	    .only = REMOTE,
	    SINK(tls.on),
	    .fallback = "null",
	    .help = "TLS towards the receiver; its files are read again when they change." },
	{ .name = "tls.ca",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_SYSTEM,
	    .only = REMOTE,
	    SINK(tls.ca),
	    .min = 1,
	    .max = 4096,
	    .fallback = "\"system\"",
	    .help = "PEM file of the authorities, or \"system\" for the system's store." },
	{ .name = "tls.server_name",
	    .type = MEMBER_STRING,
	    .only = OF(SYSLOG) | OF(HTTP),
	    SINK(tls.server_name),
	    .min = 1,
	    .max = 253,
	    .check = config_check_server_name,
	    .help = "The name the receiver's certificate must have. Default: the host of its "
		    "address." },
	{ .name = "tls.certificate",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    .only = REMOTE,
	    SINK(tls.certificate),
	    .min = 1,
	    .max = 4096,
	    .fallback = "null",
	    .help = "PEM file of a client certificate; null: none." },
	{ .name = "tls.key",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    .only = REMOTE,
	    SINK(tls.key),
	    .min = 1,
	    .max = 4096,
	    .fallback = "null",
	    .help = "PEM file of its private key." },
	{ .name = "start",
	    .type = MEMBER_WORD,
	    .flags = MEMBER_OUTSIDE,
	    SINK(earliest),
	    .words = start_words,
	    .fallback = "\"earliest\"",
	    .help = "Where a new sink begins: with the oldest event there is, or with the next." },
	{ .name = "intents",
	    .type = MEMBER_BOOL,
	    .flags = MEMBER_OUTSIDE,
	    SINK(intents),
	    .fallback = "false",
	    .help = "Deliver the `pending` lines of intents too." },
	{ .name = "required",
	    .type = MEMBER_BOOL,
	    .flags = MEMBER_OUTSIDE,
	    SINK(required),
	    .fallback = "false",
	    .help = "While it is down the sidecar is not ready (`/readyz`). No call waits for it "
		    "all the same." },
};

const struct member_table config_sink_table = { "a sink", sink_members, COUNT(sink_members),
	sizeof(struct config_sink) };
