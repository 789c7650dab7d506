/*
 * config: the routes file, read, checked and frozen.
 *
 * One table row a member (src/config/): name, type, unit, default, range, whether HUP changes it,
 * help.  Parser, JSON Schema and the manual's reference are made from it.  A struct config never
 * changes after config_load; it is shared by reference count between threads.
 *
 * Errors are one line: file:line:column, the offending text (never a secret, never the value of an
 * ${ENV}), what was wanted, the nearest valid name.
 */
#ifndef KEYTRAIL_CONFIG_H
#define KEYTRAIL_CONFIG_H

#include "keytrail/buf.h"
#include "keytrail/err.h"
#include "keytrail/event.h"
#include "keytrail/log.h"
#include "keytrail/route.h"

#define CONFIG_WORKERS_MAX	64
#define CONFIG_ADDRESSES_MAX	16 /* of the key service */
#define CONFIG_CERTIFICATES_MAX 16 /* beside the default one */

struct config_address {
	char *host; /* name or numeric address, without brackets */
	uint16_t port;
};

struct config_network {		   /* CIDR */
	unsigned char address[16]; /* IPv4 as ::ffff:a.b.c.d */
	unsigned bits;		   /* 0 to 128 */
};

struct config_secret { /* {"file": "..."}; read at load; NULL when not given */
	char *path;
	unsigned char *bytes; /* without a trailing newline; wiped when freed */
	size_t n;
};

struct config_certificate { /* paths, resolved against the file's folder */
	char *certificate;
	char *key;
	char *ocsp; /* or NULL */
};

struct config_listen {
	struct config_address address;
	bool tls;				 /* false: "tls": null */
	struct config_certificate own;		 /* the default one */
	struct config_certificate *certificates; /* by the name that the client asks for */
	size_t ncertificates;
	bool refuse_unknown;  /* "unknown_name": "refuse" */
	char *client_ca;      /* NULL: no client certificates asked for */
	char *client_crl;     /* or NULL */
	bool client_optional; /* "client_certificate": "optional" */
};

struct config_tls { /* towards a server */
	bool on;
	bool tls13;	   /* "min_version": "1.3" */
	char *ca;	   /* path, or NULL: the system's store */
	char *server_name; /* NULL: the host's that is connected to */
	char *certificate; /* of the client, or NULL */
	char *key;
};

struct config_upstream {
	struct config_address *addresses;
	size_t naddresses;
	char *host;	/* Host header; default server_name (and port if not 443); never NULL */
	bool pass_host; /* "host": "pass": `host` is for clients that send none */
	struct config_tls tls;
	unsigned pool_idle;    /* idle connections kept a worker, default 64 */
	unsigned pool_max;     /* connections a worker, default 1024 */
	unsigned pool_timeout; /* ms that one may be idle, default 60000 */
};

struct config_limits {
	size_t head;	      /* bytes, default 32768 */
	size_t target;	      /* bytes, default 8192 */
	unsigned fields;      /* default 128, at most HTTP_FIELDS_MAX */
	uint64_t body;	      /* bytes, default 4 GiB; 0: none allowed */
	unsigned connections; /* open client connections, default 10000 */
	/* Of one source (an IPv4 address or an IPv6 /64); 0: no limit. */
	unsigned connections_per_address; /* default 2000 */
	unsigned rate;			  /* requests a second, default 0 */
	unsigned refusals;		  /* recorded each for itself a second, default 100 */
	uint64_t body_rate; /* bytes a second that a body moves at least, default 100 */
	uint64_t memory; /* bytes of its own resident, from which nobody new is let in; default 0 */
};

struct config_timeouts {    /* milliseconds */
	unsigned handshake; /* 10000 */
	unsigned head;	    /* first byte to the end of a head, 10000 */
	unsigned body;	    /* in each such time a body moves at body_rate, 30000 */
	unsigned idle;	    /* between requests, 75000 */
	unsigned connect;   /* to the key service, TLS included, 5000 */
	unsigned answer;    /* request sent to the answer's head, 60000 */
	unsigned lifetime;  /* of a client's connection; 0: no limit, 1 h */
	unsigned drain;	    /* at TERM, 10000 */
};

struct config_audit {
	char *trail; /* directory */
	bool create; /* default true: make a new log where there is none */
	enum guarantee guarantee;
	uint64_t degrade_max; /* seconds, default 1 h; 0: forbidden */
	bool deny_unmatched;  /* "unmatched": "deny" */
	enum event_key_ids key_ids;
	enum event_names identity_name;
	enum event_vocabulary vocabulary;
	struct config_secret hmac_key;
	unsigned hmac_epoch;	      /* number of that key, default 1 */
	struct config_secret sign;    /* the signing key; bytes NULL: nothing is signed */
	unsigned checkpoint_interval; /* s, default 60 */
	unsigned heartbeat;	      /* s, default 3600 */
	char *group;		      /* of the segments, or NULL */
	uint64_t segment_size;	      /* bytes, default 64 MiB */
	uint64_t ring_size;	      /* bytes, default 16 MiB */
	unsigned flush_interval;      /* ms, default 20 */
	unsigned spacing_min_us;      /* 200 */
	unsigned spacing_max_us;      /* 3000 */
	uint64_t retention;	      /* seconds, default 400 days */
	uint64_t max_size;	      /* bytes, 0: none */
};

struct config_service {
	char *name;	/* "Key Protect" */
	char *crn_name; /* "kms" */
	char *type_uri; /* "kms/secrets" */
	char *region;	/* "" when not given */
	char *account;
	char **instances;
	size_t ninstances;
};

enum config_sink_type {
	CONFIG_SINK_STDOUT,
	CONFIG_SINK_FILE,
	CONFIG_SINK_SYSLOG,
	CONFIG_SINK_HTTP,
	CONFIG_SINK_KAFKA,
	CONFIG_SINK_TYPES /* how many */
};

/* What a receiver over HTTP is (http_preset.h). */
enum config_http_preset {
	CONFIG_HTTP_NDJSON,
	CONFIG_HTTP_JSON,
	CONFIG_HTTP_ELASTICSEARCH,
	CONFIG_HTTP_OPENSEARCH,
	CONFIG_HTTP_IBM_CLOUD_LOGS,
	CONFIG_HTTP_SPLUNK_HEC,
	CONFIG_HTTP_LOKI,
	CONFIG_HTTP_OTLP,
	CONFIG_HTTP_CLOUDEVENTS,
	CONFIG_HTTP_PRESETS /* how many */
};

enum config_syslog_transport { CONFIG_SYSLOG_TLS, CONFIG_SYSLOG_TCP, CONFIG_SYSLOG_UDP };
struct config_header {
	char *name;
	struct config_secret value;
};

/* Secrets are read again from their files when they are needed. */
struct config_http {
	char *url;
	enum config_http_preset preset;
	bool gzip;   /* "compression": "gzip" */
	char *index; /* elasticsearch, opensearch: that or a data stream */
	char *proxy; /* its URL, or NULL */
	struct config_secret bearer;
	struct {
		char *user; /* or NULL */
		struct config_secret password;
	} basic;
	struct config_header *headers;
	size_t nheaders;
	struct config_secret api_key; /* ibm-cloud-logs */
	char *iam_url;
};

/* What keeps events of Kafka in one partition, and so in order. */
enum config_kafka_key { CONFIG_KAFKA_INSTANCE, CONFIG_KAFKA_LOG, CONFIG_KAFKA_NONE };

enum config_kafka_codec {
	CONFIG_KAFKA_PLAIN,
	CONFIG_KAFKA_GZIP,
	CONFIG_KAFKA_LZ4,
	CONFIG_KAFKA_ZSTD
};

enum config_sasl_mechanism { CONFIG_SASL_PLAIN, CONFIG_SASL_SCRAM_256, CONFIG_SASL_SCRAM_512 };

struct config_kafka {
	struct config_address *brokers;
	size_t nbrokers;
	char *topic;
	enum config_kafka_key key;
	enum config_kafka_codec codec; /* "compression" */
	struct {
		bool on;
		enum config_sasl_mechanism mechanism;
		char *user;
		struct config_secret password;
	} sasl;
};

enum config_format {
	CONFIG_FORMAT_ACTIVITY_TRACKER,
	CONFIG_FORMAT_OCSF,
	CONFIG_FORMAT_ECS,
	CONFIG_FORMAT_CLOUDEVENTS,
	CONFIG_FORMAT_CEF,
	CONFIG_FORMATS /* how many */
};

struct config_patterns { /* as pattern.h has them; none: whatever it is */
	char **all;
	size_t n;
};

struct config_filter {
	struct config_patterns actions, severities, outcomes, accounts, regions, instances;
};

struct config_sink {
	char *name; /* letters, digits, '-', '_': a metric's label and a file name */
	enum config_sink_type type;
	enum config_format format;
	struct config_filter filter;
	char *path;	      /* file */
	uint64_t rotate_size; /* bytes, 0: never */
	uint64_t rotate_age;  /* seconds, 0: never */
	unsigned keep;	      /* rotated files kept, default 10 */
	bool earliest;	      /* "start": "earliest" (default), else "now" */
	bool intents;	      /* pending lines too */
	bool required;	      /* unready while it is down */
	/* syslog: */
	struct config_address address;
	enum config_syslog_transport transport;
	uint64_t max_datagram; /* bytes, default 8 KiB */
	struct config_tls tls; /* of those that use the network */
	struct config_http http;
	struct config_kafka kafka;
};

struct config_admin_token {
	char *name;    /* letters, digits, '-', '_': who it is in the trail */
	bool operates; /* "role": "operator"; else a viewer */
	struct config_secret token;
};

struct config_admin {
	bool enabled;
	struct config_address address; /* host NULL: none */
	char *socket;		       /* path, or NULL */
	struct config_secret token;    /* a viewer's; bytes NULL: there is none */
	struct config_admin_token
	    *tokens; /* where there is none either: none asked for (loopback) */
	size_t ntokens;
	char **hosts; /* that `Host` may name, too */
	size_t nhosts;
};

enum config_sandbox { CONFIG_SANDBOX_ON, CONFIG_SANDBOX_REQUIRE, CONFIG_SANDBOX_OFF };

struct config {
	char *path;	 /* of the file */
	char **includes; /* the route sets' files */
	size_t nincludes;
	char digest[65]; /* SHA-256 of the whole resolved configuration, hex */
	struct config_listen listen;
	struct config_upstream upstream;
	bool metrics_enabled;
	struct config_address metrics;
	struct config_admin admin;
	struct config_audit audit;
	struct config_service service;
	struct config_limits limits;
	struct config_timeouts timeouts;
	unsigned workers;	  /* 0: the CPUs this process may use, at most CONFIG_WORKERS_MAX */
	enum log_level log_level; /* "log": {"level": "info"} */
	enum config_sandbox sandbox;
	char *user; /* to become, or NULL */
	struct config_network *trusted_networks;
	size_t ntrusted_networks;
	struct config_sink *sinks;
	size_t nsinks;
	struct route_table *routes;
	char *correlation_header; /* of the set, default "Correlation-Id" */
	enum scrub_grammar correlation_grammar;
};

/*
 * Read, check and resolve `path`.  Includes are sought beside the file, then in `routes_dir` (NULL:
 * the environment's KEYTRAIL_ROUTES_DIR, else where they are installed).  A route of the file that
 * stands for the same requests as one of a set replaces it.  The caller holds the one reference.
 * Secret files are read; other files (certificates) are not opened here.
 */
int config_load(const char *path, const char *routes_dir, struct config **out, struct err *err);

/* The same for a file's text in memory; `path` is what errors call it and where its folder is. */
int config_load_text(const char *path, struct slice text, const char *routes_dir,
    struct config **out, struct err *err);

struct config *config_ref(const struct config *c);
void config_unref(const struct config *c); /* NULL is allowed */

/* What differs between two configurations that HUP cannot change, as a list of member names
 * ("listen.address, workers"), or false. */
bool config_needs_restart(
    const struct config *running, const struct config *next, char *out, size_t n);

/* The names of top-level members that differ ("routes, limits"); "" when nothing does. */
void config_changes(const struct config *running, const struct config *next, char *out, size_t n);

/* The same hosts and ports, in the same order? */
bool config_same_addresses(const struct config_upstream *a, const struct config_upstream *b);

/* Are these one place in one format, whatever else is said of them? */
bool config_same_place(const struct config_sink *a, const struct config_sink *b);

/* Does it use the network?  And the first one that does, or NULL. */
bool config_sink_is_remote(const struct config_sink *s);
const char *config_sink_type_name(enum config_sink_type type); /* "file" */
const struct config_sink *config_remote_sink(const struct config *c);
const char *config_format_name(enum config_format format); /* "ocsf" */

/* Do requests go to the same addresses, under the same Host? */
bool config_same_service(const struct config_upstream *a, const struct config_upstream *b);

/* A time with its unit ("30m") as a whole number of units; -1 when the text is none. */
int config_time_of(const char *text, uint64_t unit_ns, uint64_t *out);

bool config_network_contains(
    const struct config_network *nets, size_t n, const unsigned char address[16]);

int config_schema(struct buf *out);    /* JSON Schema (2020-12) */
int config_reference(struct buf *out); /* Markdown */

#endif
