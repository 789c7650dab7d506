#include "config_table.h"

#include <stddef.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define KIB	     UINT64_C(1024)
#define MIB	     (KIB * KIB)
#define GIB	     (MIB * KIB)
#define TIB	     (GIB * KIB)

#define MINUTE_MS    60000
#define DAY_MS	     (UINT64_C(24) * 60 * MINUTE_MS)
#define DAY_S	     UINT64_C(86400)

/* Where a row keeps its value: offset and size of a member of a struct. */
#define AT(type, member)	  .field = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define IN(member)		  AT(struct config, member)
#define WITH(type, second_member) .second = offsetof(type, second_member)

/* ---- words ---- */

static const struct member_word severity_words[] = {
	{ "normal", SEVERITY_NORMAL },
	{ "warning", SEVERITY_WARNING },
	{ "critical", SEVERITY_CRITICAL },
	{ NULL, 0 },
};

static const struct member_word guarantee_words[] = {
	{ "async", GUARANTEE_ASYNC },
	{ "durable", GUARANTEE_DURABLE },
	{ "intent", GUARANTEE_INTENT },
	{ NULL, 0 },
};

static const struct member_word unmatched_words[] = {
	{ "record", false },
	{ "deny", true },
	{ NULL, 0 },
};

static const struct member_word key_id_words[] = {
	{ "omit", EVENT_KEY_OMIT },
	{ "hmac", EVENT_KEY_HMAC },
	{ "plain", EVENT_KEY_PLAIN },
	{ NULL, 0 },
};

static const struct member_word name_words[] = {
	{ "omit", EVENT_NAME_OMIT },
	{ "hmac", EVENT_NAME_HMAC },
	{ "plain", EVENT_NAME_PLAIN },
	{ NULL, 0 },
};

static const struct member_word vocabulary_words[] = {
	{ "current", EVENT_CURRENT },
	{ "2019", EVENT_2019 },
	{ NULL, 0 },
};

static const struct member_word level_words[] = {
	{ "error", LOG_LEVEL_ERROR },
	{ "warn", LOG_LEVEL_WARN },
	{ "info", LOG_LEVEL_INFO },
	{ "debug", LOG_LEVEL_DEBUG },
	{ "trace", LOG_LEVEL_TRACE },
	{ NULL, 0 },
};

static const struct member_word sandbox_words[] = {
	{ "on", CONFIG_SANDBOX_ON },
	{ "require", CONFIG_SANDBOX_REQUIRE },
	{ "off", CONFIG_SANDBOX_OFF },
	{ NULL, 0 },
};

static const struct member_word grammar_words[] = {
	{ "uuid", SCRUB_UUID },
	{ "id", SCRUB_CORRELATION },
	{ NULL, 0 },
};

static const struct member_word client_certificate_words[] = {
	{ "require", false },
	{ "optional", true },
	{ NULL, 0 },
};

static const struct member_word unknown_name_words[] = {
	{ "default", false },
	{ "refuse", true },
	{ NULL, 0 },
};

static const struct member_word version_words[] = {
	{ "1.2", false },
	{ "1.3", true },
	{ NULL, 0 },
};

static const struct member_word sink_words[] = {
	{ "stdout", CONFIG_SINK_STDOUT },
	{ "file", CONFIG_SINK_FILE },
	{ NULL, 0 },
};

static const struct member_word role_words[] = {
	{ "viewer", false },
	{ "operator", true },
	{ NULL, 0 },
};

static const struct member_word start_words[] = {
	{ "earliest", true },
	{ "now", false },
	{ NULL, 0 },
};

/* ---- checks ---- */

static int
check_region(const char *value, struct err *err)
{
	if (strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(value))
		return err_set(err, "wanted lower-case letters, digits and '-', like \"us-south\"");
	return 0;
}

static int
check_account(const char *value, struct err *err)
{
	if (value[0] != '\0' && !scrub_fits(SCRUB_ACCOUNT, slice_of(value)))
		return err_set(err, "wanted the 32 lower-case hex digits of an account");
	return 0;
}

static int
check_uuid(const char *value, struct err *err)
{
	if (!scrub_fits(SCRUB_UUID, slice_of(value)))
		return err_set(err, "wanted a UUID");
	return 0;
}

static int
check_name(const char *value, struct err *err)
{
	if (!scrub_fits(SCRUB_IDENTIFIER, slice_of(value)))
		return err_set(err, "wanted letters, digits, '-' and '_', at most 64");
	return 0;
}

static int
check_crn_word(const char *value, struct err *err)
{
	if (strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-/") != strlen(value))
		return err_set(err, "wanted lower-case letters, digits, '-' and '/'");
	return 0;
}

static int
check_text(const char *value, struct err *err)
{
	for (const char *p = value; *p != '\0'; p++)
		if (*p < 0x20 || *p > 0x7e)
			return err_set(err, "wanted printable ASCII");
	return 0;
}

static int
check_header(const char *value, struct err *err)
{
	return route_check_discriminator(value, "-", true, err);
}

static int
check_host(const char *value, struct err *err)
{
	if (strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]") !=
	    strlen(value))
		return err_set(err, "wanted a host name, with a port if need be, or \"pass\"");
	return 0;
}

static int
check_server_name(const char *value, struct err *err)
{
	/* ".example.com" would stand for every name below it. */
	if (value[0] == '.' ||
	    strspn(value, "abcdefghijklmnopqrstuvwxyz"
			  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:") != strlen(value))
		return err_set(err, "wanted a host name without a port, or an address");
	return 0;
}

/* ---- the file ---- */

static const struct member file_members[] = {
	{ .name = "$schema", .type = MEMBER_IGNORED, .help = "For editors; not read." },

	{ .name = "listen",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_REQUIRED,
	    .help = "Where clients connect." },
	{ .name = "listen.address",
	    .type = MEMBER_ADDRESS,
	    .flags = MEMBER_REQUIRED | MEMBER_RESTART,
	    IN(listen.address),
	    .help = "Host and port to listen on: \"0.0.0.0:8443\", \"[::]:8443\"; port 0 is any "
		    "free one, which the log names." },
	{ .name = "listen.tls",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_REQUIRED | MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(listen.tls),
	    .help = "TLS towards clients; null: plain TCP. Whether there is TLS at all changes at "
		    "a restart only, its files at HUP and when they are replaced." },
	{ .name = "listen.tls.certificate",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_REQUIRED,
	    IN(listen.own.certificate),
	    .max = 4096,
	    .min = 1,
	    .help = "PEM file of the certificate and the chain that follows it." },
	{ .name = "listen.tls.key",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_REQUIRED,
	    IN(listen.own.key),
	    .max = 4096,
	    .min = 1,
	    .help = "PEM file of its private key." },
	{ .name = "listen.tls.ocsp",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    IN(listen.own.ocsp),
	    .max = 4096,
	    .min = 1,
	    .fallback = "null",
	    .help =
		"DER file of the OCSP response that is stapled to it, until its nextUpdate; null: "
		"none." },
	{ .name = "listen.tls.certificates",
	    .type = MEMBER_LIST,
	    IN(listen.certificates),
	    WITH(struct config, listen.ncertificates),
	    .element = &config_certificate_table,
	    .max = CONFIG_CERTIFICATES_MAX,
	    .fallback = "[]",
	    .help =
		"More certificates, each for clients that ask for one of its DNS names (SNI). A "
		"request on their connections whose Host is none of these names is answered 421." },
	{ .name = "listen.tls.unknown_name",
	    .type = MEMBER_WORD,
	    IN(listen.refuse_unknown),
	    .words = unknown_name_words,
	    .fallback = "\"default\"",
	    .help =
		"What a client gets that asks for a name of no certificate: the default one, or an "
		"alert." },
	{ .name = "listen.tls.client_ca",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    IN(listen.client_ca),
	    .max = 4096,
	    .min = 1,
	    .fallback = "null",
	    .help =
		"PEM file of the authorities of client certificates; null: none are asked for." },
	{ .name = "listen.tls.client_certificate",
	    .type = MEMBER_WORD,
	    IN(listen.client_optional),
	    .words = client_certificate_words,
	    .fallback = "\"require\"",
	    .help =
		"With client_ca: whether a client must have a certificate. One that comes must be "
		"good in either case; it is the initiator of the calls." },
	{ .name = "listen.tls.client_crl",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    IN(listen.client_crl),
	    .max = 4096,
	    .min = 1,
	    .fallback = "null",
	    .help =
		"PEM file of the revocation lists of those authorities that issue to clients. "
		"Where "
		"none fits, or it is out of date, clients are refused. Lists of the authorities "
		"above them are heeded too, but need not be there. null: nothing is revoked." },

	{ .name = "upstream",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_REQUIRED,
	    .help = "The key service." },
	{ .name = "upstream.address",
	    .type = MEMBER_ADDRESSES,
	    IN(upstream.addresses),
	    WITH(struct config, upstream.naddresses),
	    .min = 1,
	    .max = 1,
	    .help = "Its host and port: \"kms.example.com:443\". Short for `addresses` of one." },
	{ .name = "upstream.addresses",
	    .type = MEMBER_ADDRESSES,
	    IN(upstream.addresses),
	    WITH(struct config, upstream.naddresses),
	    .min = 1,
	    .max = CONFIG_ADDRESSES_MAX,
	    .help = "Several of them; one that fails is set aside for a while." },
	{ .name = "upstream.host",
	    .type = MEMBER_STRING,
	    IN(upstream.host),
	    .min = 1,
	    .max = 255,
	    .check = check_host,
	    .help = "What `Host` says towards the key service; \"pass\" keeps the client's. "
		    "Default: the server name, with the port where it is not 443." },
	{ .name = "upstream.tls",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_NULLABLE,
	    IN(upstream.tls),
	    .help = "TLS towards the key service; null: plain TCP." },
	{ .name = "upstream.tls.ca",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_SYSTEM,
	    IN(upstream.ca),
	    .min = 1,
	    .max = 4096,
	    .fallback = "\"system\"",
	    .help = "PEM file of the authorities, or \"system\" for the system's store." },
	{ .name = "upstream.tls.server_name",
	    .type = MEMBER_STRING,
	    IN(upstream.server_name),
	    .min = 1,
	    .max = 253,
	    .check = check_server_name,
	    .help = "The name the key service's certificate must have. Default: the host of its "
		    "(first) address." },
	{ .name = "upstream.tls.min_version",
	    .type = MEMBER_WORD,
	    IN(upstream.tls13),
	    .words = version_words,
	    .fallback = "\"1.2\"",
	    .help = "The oldest version of TLS that is spoken with the key service." },
	{ .name = "upstream.tls.certificate",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    IN(upstream.certificate),
	    .min = 1,
	    .max = 4096,
	    .fallback = "null",
	    .help = "PEM file of a client certificate; null: none." },
	{ .name = "upstream.tls.key",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    IN(upstream.key),
	    .min = 1,
	    .max = 4096,
	    .fallback = "null",
	    .help = "PEM file of its private key." },
	{ .name = "upstream.pool", .type = MEMBER_OBJECT, .help = "Kept connections." },
	{ .name = "upstream.pool.idle",
	    .type = MEMBER_COUNT,
	    IN(upstream.pool_idle),
	    .max = 65536,
	    .fallback = "64",
	    .help = "Idle connections that a worker keeps." },
	{ .name = "upstream.pool.max",
	    .type = MEMBER_COUNT,
	    IN(upstream.pool_max),
	    .min = 1,
	    .max = 65536,
	    .fallback = "1024",
	    .help = "Connections of a worker; a source may use twice as many as are left." },
	{ .name = "upstream.pool.timeout",
	    .type = MEMBER_MS,
	    IN(upstream.pool_timeout),
	    .min = 1,
	    .max = DAY_MS,
	    .fallback = "\"60s\"",
	    .help = "How long a connection may be idle." },

	{ .name = "metrics",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(metrics_enabled),
	    .fallback = "null",
	    .help = "The listener of /metrics, /livez and /readyz; null: none." },
	{ .name = "metrics.address",
	    .type = MEMBER_ADDRESS,
	    .flags = MEMBER_REQUIRED | MEMBER_RESTART,
	    IN(metrics),
	    .help = "Host and port: \"0.0.0.0:9480\"." },

	{ .name = "admin",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(admin.enabled),
	    .fallback = "null",
	    .help = "The listeners of /status and /readyz?verbose, beside what `metrics` has; "
		    "null: none." },
	{ .name = "admin.address",
	    .type = MEMBER_ADDRESS,
	    .flags = MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(admin.address),
	    .fallback = "null",
	    .help = "Host and port, for what only reads; null: the socket alone." },
	{ .name = "admin.socket",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(admin.socket),
	    .min = 1,
	    .max = 107,
	    .fallback = "null",
	    .help = "Path of a Unix socket, mode 0600, for operators: what changes something "
		    "(`keytrail degrade`, `keytrail hold`) goes over it only; null: none." },
	{ .name = "admin.token",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_NULLABLE,
	    IN(admin.token),
	    .min = 16,
	    .help = "File of a viewer's token, at least 16 bytes. null: none; where `admin.tokens` "
		    "has none either, none is asked for, on a loopback address only. The socket "
		    "asks for none: the kernel says who calls." },
	{ .name = "admin.tokens",
	    .type = MEMBER_LIST,
	    IN(admin.tokens),
	    WITH(struct config, admin.ntokens),
	    .max = 64,
	    .fallback = "[]",
	    .element = &config_token_table,
	    .help = "Tokens with names: each query is recorded with that of its token." },
	{ .name = "admin.hosts",
	    .type = MEMBER_STRINGS,
	    IN(admin.hosts),
	    WITH(struct config, admin.nhosts),
	    .max = 16,
	    .check = check_server_name,
	    .fallback = "[]",
	    .help = "Names, without a port, by which the admin listener may be asked (`Host`), "
		    "beside localhost, loopback addresses and its own." },

	{ .name = "audit",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_REQUIRED,
	    .help = "The trail and what goes into it." },
	{ .name = "audit.trail",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_REQUIRED | MEMBER_RESTART,
	    IN(audit.trail),
	    .min = 1,
	    .max = 4000,
	    .help = "Directory of the trail." },
	{ .name = "audit.create",
	    .type = MEMBER_BOOL,
	    .flags = MEMBER_RESTART,
	    IN(audit.create),
	    .fallback = "true",
	    .help = "Make a new log where there is none; false: refuse to start." },
	{ .name = "audit.guarantee",
	    .type = MEMBER_WORD,
	    IN(audit.guarantee),
	    .words = guarantee_words,
	    .fallback = "\"durable\"",
	    .help = "Of routes that do not say another." },
	{ .name = "audit.degrade_max",
	    .type = MEMBER_SECONDS,
	    IN(audit.degrade_max),
	    .max = 4 * 3600,
	    .fallback = "\"1h\"",
	    .help = "Longest time for which `keytrail degrade` may have every route served as "
		    "`async`; 0: it may not." },
	{ .name = "audit.unmatched",
	    .type = MEMBER_WORD,
	    IN(audit.deny_unmatched),
	    .words = unmatched_words,
	    .fallback = "\"record\"",
	    .help = "What becomes of a request that fits no route: passed and recorded, or 403 "
		    "and recorded." },
	{ .name = "audit.key_ids",
	    .type = MEMBER_WORD,
	    IN(audit.key_ids),
	    .words = key_id_words,
	    .fallback = "\"omit\"",
	    .help = "How a key's own id appears in `target`." },
	{ .name = "audit.identity_name",
	    .type = MEMBER_WORD,
	    IN(audit.identity_name),
	    .words = name_words,
	    .fallback = "\"omit\"",
	    .help = "How a caller's name (an e-mail for users) appears in `initiator`." },
	{ .name = "audit.hmac_key",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_NULLABLE,
	    IN(audit.hmac_key),
	    .fallback = "null",
	    .help = "File of the key that \"hmac\" needs: 32 bytes, raw, as hex or as base64." },
	{ .name = "audit.hmac_epoch",
	    .type = MEMBER_COUNT,
	    IN(audit.hmac_epoch),
	    .min = 1,
	    .max = 999999,
	    .fallback = "1",
	    .help = "Number of that key, written beside each value; count it up with a new key." },
	{ .name = "audit.sign",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_REQUIRED | MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(audit.sign),
	    .choices = "{\"file\": \"...\"} with a key that `keytrail keygen` makes, or null to "
		       "leave the trail without signed checkpoints",
	    .help = "File of the key that signs the trail's checkpoints (`keytrail keygen` makes "
		    "it), outside the trail's directory; null: nothing is signed." },
	{ .name = "audit.checkpoint_interval",
	    .type = MEMBER_SECONDS,
	    .flags = MEMBER_RESTART,
	    IN(audit.checkpoint_interval),
	    .min = 1,
	    .max = 86400,
	    .fallback = "60",
	    .help = "A checkpoint is signed when what was recorded has waited so long for one; "
		    "sooner after 1,024 events, and at the stop." },
	{ .name = "audit.heartbeat",
	    .type = MEMBER_SECONDS,
	    .flags = MEMBER_RESTART,
	    IN(audit.heartbeat),
	    .min = 1,
	    .max = 86400,
	    .fallback = "3600",
	    .help = "`keytrail.heartbeat` is recorded so often, and signed: silence between two of "
		    "them is proven." },
	{ .name = "audit.vocabulary",
	    .type = MEMBER_WORD,
	    IN(audit.vocabulary),
	    .words = vocabulary_words,
	    .fallback = "\"current\"",
	    .help = "Names of actions: today's, or those of the 2019 documentation." },
	{ .name = "audit.group",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(audit.group),
	    .min = 1,
	    .max = 64,
	    .check = check_name,
	    .fallback = "null",
	    .help = "Group that may read the segments; null: the process's own." },
	{ .name = "audit.segment_size",
	    .type = MEMBER_BYTES,
	    .flags = MEMBER_RESTART,
	    IN(audit.segment_size),
	    .min = 64 * KIB,
	    .max = 4 * GIB,
	    .fallback = "\"64MiB\"",
	    .help = "Size at which a new file of the trail begins." },
	{ .name = "audit.ring_size",
	    .type = MEMBER_BYTES,
	    .flags = MEMBER_RESTART,
	    IN(audit.ring_size),
	    .min = 64 * KIB,
	    .max = GIB,
	    .fallback = "\"16MiB\"",
	    .help = "Room for events on their way to the trail, for each worker; a multiple of "
		    "4KiB." },
	{ .name = "audit.flush_interval",
	    .type = MEMBER_MS,
	    .flags = MEMBER_RESTART,
	    IN(audit.flush_interval),
	    .min = 1,
	    .max = MINUTE_MS,
	    .fallback = "\"20ms\"",
	    .help = "Longest time that an event for which nobody waits stays unsynced." },
	{ .name = "audit.spacing",
	    .type = MEMBER_OBJECT,
	    .help = "Time from one sync to the next under load, adapted between these." },
	{ .name = "audit.spacing.min",
	    .type = MEMBER_US,
	    .flags = MEMBER_RESTART,
	    IN(audit.spacing_min_us),
	    .max = 1000000,
	    .fallback = "\"200us\"",
	    .help = "The shortest." },
	{ .name = "audit.spacing.max",
	    .type = MEMBER_US,
	    .flags = MEMBER_RESTART,
	    IN(audit.spacing_max_us),
	    .max = 1000000,
	    .fallback = "\"3ms\"",
	    .help = "The longest." },
	{ .name = "audit.retention",
	    .type = MEMBER_SECONDS,
	    IN(audit.retention),
	    .min = 60,
	    .max = 36500 * DAY_S,
	    .fallback = "\"400d\"",
	    .help =
		"Age at which delivered events are removed. HUP makes it longer only; a start "
		"that makes it shorter records that. For an hour after a jump of the clock, or a "
		"start more than an hour after the newest event, none is removed for its age." },
	{ .name = "audit.max_size",
	    .type = MEMBER_BYTES,
	    IN(audit.max_size),
	    .max = 1024 * TIB,
	    .fallback = "0",
	    .help = "Size at which the oldest delivered events are removed before their time; "
		    "0: none. HUP as with `retention`." },

	{ .name = "service",
	    .type = MEMBER_OBJECT,
	    .help = "What events say of the key service; a route set has defaults." },
	{ .name = "service.name",
	    .type = MEMBER_STRING,
	    IN(service.name),
	    .min = 1,
	    .max = 64,
	    .check = check_text,
	    .help = "Opens the message of an event: \"Key Protect\"." },
	{ .name = "service.crn_name",
	    .type = MEMBER_STRING,
	    IN(service.crn_name),
	    .min = 1,
	    .max = 64,
	    .check = check_crn_word,
	    .help = "Its name in a CRN: \"kms\"." },
	{ .name = "service.type_uri",
	    .type = MEMBER_STRING,
	    IN(service.type_uri),
	    .min = 1,
	    .max = 64,
	    .check = check_crn_word,
	    .help = "`target.typeURI`: \"kms/secrets\"." },
	{ .name = "service.region",
	    .type = MEMBER_STRING,
	    IN(service.region),
	    .max = 64,
	    .check = check_region,
	    .fallback = "\"\"",
	    .help = "Region of the CRNs." },
	{ .name = "service.account",
	    .type = MEMBER_STRING,
	    IN(service.account),
	    .max = 32,
	    .check = check_account,
	    .fallback = "\"\"",
	    .help = "Account of the CRNs; \"\": the caller's, once the key service has checked "
		    "the token." },
	{ .name = "service.instances",
	    .type = MEMBER_STRINGS,
	    IN(service.instances),
	    WITH(struct config, service.ninstances),
	    .max = 256,
	    .check = check_uuid,
	    .fallback = "[]",
	    .help = "Instances that are known to be yours." },

	{ .name = "limits", .type = MEMBER_OBJECT, .help = "What a client may ask for." },
	{ .name = "limits.head",
	    .type = MEMBER_BYTES,
	    IN(limits.head),
	    .min = KIB,
	    .max = MIB,
	    .fallback = "\"32KiB\"",
	    .help = "Size of a request's head. Of an answer: 64 KiB." },
	{ .name = "limits.target",
	    .type = MEMBER_BYTES,
	    IN(limits.target),
	    .min = 64,
	    .max = 64 * KIB,
	    .fallback = "\"8KiB\"",
	    .help = "Size of a request target." },
	{ .name = "limits.fields",
	    .type = MEMBER_COUNT,
	    IN(limits.fields),
	    .min = 8,
	    .max = HTTP_FIELDS_MAX,
	    .fallback = "128",
	    .help = "Header fields of a request. Of an answer: 128." },
	{ .name = "limits.body",
	    .type = MEMBER_BYTES,
	    IN(limits.body),
	    .max = 1024 * TIB,
	    .fallback = "\"4GiB\"",
	    .help = "Size of a request's body; 0: none is allowed." },
	{ .name = "limits.connections",
	    .type = MEMBER_COUNT,
	    IN(limits.connections),
	    .min = 1,
	    .max = 1000000,
	    .fallback = "10000",
	    .help = "Open connections of clients. Their room is taken at the start: what is "
		    "raised beyond it needs a restart." },
	{ .name = "limits.connections_per_address",
	    .type = MEMBER_COUNT,
	    IN(limits.connections_per_address),
	    .max = 1000000,
	    .fallback = "2000",
	    .help = "The same of one source, an IPv4 address or an IPv6 /64; 0: no limit. Trusted "
		    "networks have none." },
	{ .name = "limits.rate",
	    .type = MEMBER_COUNT,
	    IN(limits.rate),
	    .max = 1000000,
	    .fallback = "0",
	    .help =
		"Requests a second of one source, the same number at once; beyond it: 429. Those "
		"that are malformed end their connection instead. 0: no limit." },
	{ .name = "limits.refusals",
	    .type = MEMBER_COUNT,
	    IN(limits.refusals),
	    .max = 1000000,
	    .fallback = "100",
	    .help = "Refused requests a second of one source that have an event each; more are "
		    "counted in `keytrail.refused`. 0: no limit." },
	{ .name = "limits.body_rate",
	    .type = MEMBER_BYTES,
	    IN(limits.body_rate),
	    .max = GIB,
	    .fallback = "100",
	    .help = "Bytes a second that a body has to move at, over each `timeouts.body`." },
	{ .name = "limits.memory",
	    .type = MEMBER_BYTES,
	    IN(limits.memory),
	    .max = 1024 * TIB,
	    .fallback = "0",
	    .help =
		"Memory of the process, resident and no file's (the rings are files), from which "
		"new connections are refused; 0: no limit." },

	{ .name = "timeouts", .type = MEMBER_OBJECT, .help = "How long keytrail waits." },
	{ .name = "timeouts.handshake",
	    .type = MEMBER_MS,
	    IN(timeouts.handshake),
	    .min = 1,
	    .max = DAY_MS,
	    .fallback = "\"10s\"",
	    .help = "For a client's TLS handshake." },
	{ .name = "timeouts.head",
	    .type = MEMBER_MS,
	    IN(timeouts.head),
	    .min = 1,
	    .max = DAY_MS,
	    .fallback = "\"10s\"",
	    .help = "For a request's head, from its first byte." },
	{ .name = "timeouts.body",
	    .type = MEMBER_MS,
	    IN(timeouts.body),
	    .min = 1,
	    .max = DAY_MS,
	    .fallback = "\"30s\"",
	    .help = "For a body to move on, in either direction, at `limits.body_rate`." },
	{ .name = "timeouts.idle",
	    .type = MEMBER_MS,
	    IN(timeouts.idle),
	    .min = 1,
	    .max = DAY_MS,
	    .fallback = "\"75s\"",
	    .help = "For a client's next request." },
	{ .name = "timeouts.connect",
	    .type = MEMBER_MS,
	    IN(timeouts.connect),
	    .min = 1,
	    .max = DAY_MS,
	    .fallback = "\"5s\"",
	    .help = "For a connection to the key service, TLS included." },
	{ .name = "timeouts.answer",
	    .type = MEMBER_MS,
	    IN(timeouts.answer),
	    .min = 1,
	    .max = DAY_MS,
	    .fallback = "\"60s\"",
	    .help = "For the key service's answer, from the end of the request." },
	{ .name = "timeouts.lifetime",
	    .type = MEMBER_MS,
	    IN(timeouts.lifetime),
	    .max = 30 * DAY_MS,
	    .fallback = "\"1h\"",
	    .help = "Of a client's connection: then it ends, with the answer to the request that "
		    "is under way or comes within 5 s, if one does; a body that moves by then gets "
		    "no further `timeouts.body`; 0: no limit." },
	{ .name = "timeouts.drain",
	    .type = MEMBER_MS,
	    IN(timeouts.drain),
	    .max = DAY_MS,
	    .fallback = "\"10s\"",
	    .help = "For requests in flight and for sinks, at TERM." },

	{ .name = "workers",
	    .type = MEMBER_COUNT,
	    .flags = MEMBER_RESTART,
	    IN(workers),
	    .max = CONFIG_WORKERS_MAX,
	    .fallback = "0",
	    .help = "Threads that serve requests; 0: the CPUs that the process may use, at most "
		    "64." },
	{ .name = "sandbox",
	    .type = MEMBER_WORD,
	    .flags = MEMBER_RESTART,
	    IN(sandbox),
	    .words = sandbox_words,
	    .fallback = "\"on\"",
	    .help = "What the process gives up once it runs; `/status` and the log say which parts "
		    "are in force. \"require\": it does not start where one is not, \"on\": it "
		    "does without those that the kernel lacks." },
	{ .name = "user",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_NULLABLE | MEMBER_RESTART,
	    IN(user),
	    .min = 1,
	    .max = 64,
	    .check = check_name,
	    .fallback = "null",
	    .help = "Whom to become when started as root, with the groups of that user and "
		    "`audit.group`; null: nobody else. The trail has to be that user's, and what "
		    "HUP reads readable to it." },
	{ .name = "log", .type = MEMBER_OBJECT, .help = "keytrail's own log." },
	{ .name = "log.level",
	    .type = MEMBER_WORD,
	    IN(log_level),
	    .words = level_words,
	    .fallback = "\"info\"",
	    .help = "How much it says." },
	{ .name = "trusted_networks",
	    .type = MEMBER_NETWORKS,
	    IN(trusted_networks),
	    WITH(struct config, ntrusted_networks),
	    .max = 256,
	    .fallback = "[]",
	    .help = "Proxies in front whose `X-Forwarded-For` is believed: \"10.0.0.0/8\"." },
	{ .name = "sinks",
	    .type = MEMBER_LIST,
	    IN(sinks),
	    WITH(struct config, nsinks),
	    .max = 16,
	    .fallback = "[]",
	    .element = &config_sink_table,
	    .help = "Where the events of the trail are delivered." },

	{ .name = "default",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_LATER | MEMBER_VERBATIM,
	    .min = 1,
	    .max = 64,
	    .help = "Action of a request outside every route. Default: what the included set "
		    "says." },
	{ .name = "correlation",
	    .type = MEMBER_OBJECT,
	    .flags = MEMBER_LATER,
	    .help = "Where the correlation ID is. Default: what the included set says." },
	{ .name = "correlation.header",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_LATER,
	    .min = 1,
	    .max = 64,
	    .help = "Header that carries it." },
	{ .name = "correlation.grammar",
	    .type = MEMBER_WORD,
	    .flags = MEMBER_LATER,
	    .words = grammar_words,
	    .help = "What it looks like: a UUID, or 1 to 64 letters, digits and -_.: characters." },
	{ .name = "include",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_LATER | MEMBER_VERBATIM,
	    .max = 64,
	    .help = "Route sets: beside the file, else in the installed routes directory." },
	{ .name = "routes",
	    .type = MEMBER_LIST,
	    .flags = MEMBER_LATER,
	    .element = &config_route_table,
	    .max = 10000,
	    .help = "Own routes. One that stands for the same requests as a route of an included "
		    "set replaces it." },
};

const struct member_table config_file_table = { "the file", file_members, COUNT(file_members),
	sizeof(struct config) };

/* ---- a certificate ---- */

#define CERTIFICATE(member) AT(struct config_certificate, member)

static const struct member certificate_members[] = {
	{ .name = "certificate",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_REQUIRED,
	    CERTIFICATE(certificate),
	    .max = 4096,
	    .min = 1,
	    .help =
		"PEM file of the certificate and the chain that follows it. It has DNS names as "
		"subject alternative names; \"*.\" stands for one label." },
	{ .name = "key",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_REQUIRED,
	    CERTIFICATE(key),
	    .max = 4096,
	    .min = 1,
	    .help = "PEM file of its private key." },
	{ .name = "ocsp",
	    .type = MEMBER_PATH,
	    .flags = MEMBER_NULLABLE,
	    CERTIFICATE(ocsp),
	    .max = 4096,
	    .min = 1,
	    .fallback = "null",
	    .help = "DER file of its OCSP response; null: none." },
};

const struct member_table config_certificate_table = { "the certificate", certificate_members,
	COUNT(certificate_members), sizeof(struct config_certificate) };

/* ---- a token ---- */

#define TOKEN(member) AT(struct config_admin_token, member)

static const struct member token_members[] = {
	{ .name = "name",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED,
	    TOKEN(name),
	    .min = 1,
	    .max = 64,
	    .check = check_name,
	    .help = "Whose it is, as the trail shall say." },
	{ .name = "role",
	    .type = MEMBER_WORD,
	    TOKEN(operates),
	    .words = role_words,
	    .fallback = "\"viewer\"",
	    .help = "Recorded with the name. What changes something goes over `admin.socket` only, "
		    "whatever the role." },
	{ .name = "token",
	    .type = MEMBER_SECRET,
	    .flags = MEMBER_REQUIRED,
	    TOKEN(token),
	    .min = 16,
	    .help = "File of the token, at least 16 bytes." },
};

const struct member_table config_token_table = { "a token", token_members, COUNT(token_members),
	sizeof(struct config_admin_token) };

/* ---- a sink ---- */

#define SINK(member) AT(struct config_sink, member)

static const struct member sink_members[] = {
	{ .name = "name",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED,
	    SINK(name),
	    .min = 1,
	    .max = 63,
	    .check = check_name,
	    .help = "Its name in metrics and in the trail's directory; keep it." },
	{ .name = "type",
	    .type = MEMBER_WORD,
	    .flags = MEMBER_REQUIRED,
	    SINK(type),
	    .words = sink_words,
	    .help = "What it is." },
	{ .name = "path",
	    .type = MEMBER_PATH,
	    SINK(path),
	    .min = 1,
	    .max = 4096,
	    .help = "file: the file that is appended to." },
	{ .name = "rotate_size",
	    .type = MEMBER_BYTES,
	    SINK(rotate_size),
	    .max = 1024 * TIB,
	    .fallback = "0",
	    .help = "file: size at which it is rotated; 0: never." },
	{ .name = "rotate_age",
	    .type = MEMBER_SECONDS,
	    SINK(rotate_age),
	    .max = 36500 * DAY_S,
	    .fallback = "0",
	    .help = "file: age at which it is rotated; 0: never." },
	{ .name = "keep",
	    .type = MEMBER_COUNT,
	    SINK(keep),
	    .min = 1,
	    .max = 10000,
	    .fallback = "10",
	    .help = "file: rotated files that are kept." },
	{ .name = "start",
	    .type = MEMBER_WORD,
	    SINK(earliest),
	    .words = start_words,
	    .fallback = "\"earliest\"",
	    .help = "Where a new sink begins: with the oldest event there is, or with the next." },
	{ .name = "intents",
	    .type = MEMBER_BOOL,
	    SINK(intents),
	    .fallback = "false",
	    .help = "Deliver the `pending` lines of intents too." },
};

const struct member_table config_sink_table = { "a sink", sink_members, COUNT(sink_members),
	sizeof(struct config_sink) };

/* ---- a route set ---- */

#define SET(member) AT(struct config_set, member)

static const struct member set_members[] = {
	{ .name = "$schema", .type = MEMBER_IGNORED, .help = "For editors; not read." },
	{ .name = "set",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED | MEMBER_VERBATIM,
	    SET(name),
	    .min = 1,
	    .max = 64,
	    .check = check_name,
	    .help = "Name of the set." },
	{ .name = "default",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED | MEMBER_VERBATIM,
	    SET(default_action),
	    .min = 1,
	    .max = 64,
	    .check = route_check_action,
	    .help = "Action of a request outside every route." },
	{ .name = "correlation", .type = MEMBER_OBJECT, .help = "Where the correlation ID is." },
	{ .name = "correlation.header",
	    .type = MEMBER_STRING,
	    SET(correlation_header),
	    .min = 1,
	    .max = 64,
	    .check = check_header,
	    .help = "Header that carries it." },
	{ .name = "correlation.grammar",
	    .type = MEMBER_WORD,
	    SET(correlation_grammar),
	    .words = grammar_words,
	    .help = "What it looks like: a UUID, or 1 to 64 letters, digits and -_.: characters." },
	{ .name = "service", .type = MEMBER_OBJECT, .help = "Defaults of the file's `service`." },
	{ .name = "service.name",
	    .type = MEMBER_STRING,
	    SET(service_name),
	    .min = 1,
	    .max = 64,
	    .check = check_text,
	    .help = "Opens the message of an event." },
	{ .name = "service.crn_name",
	    .type = MEMBER_STRING,
	    SET(service_crn_name),
	    .min = 1,
	    .max = 64,
	    .check = check_crn_word,
	    .help = "Its name in a CRN." },
	{ .name = "service.type_uri",
	    .type = MEMBER_STRING,
	    SET(service_type_uri),
	    .min = 1,
	    .max = 64,
	    .check = check_crn_word,
	    .help = "`target.typeURI`." },
	{ .name = "routes",
	    .type = MEMBER_LIST,
	    .flags = MEMBER_LATER | MEMBER_REQUIRED,
	    .element = &config_route_table,
	    .max = 10000,
	    .help = "The routes of the set." },
};

const struct member_table config_set_table = { "a route set", set_members, COUNT(set_members),
	sizeof(struct config_set) };

/* ---- a route ---- */

#define ROUTE(member) AT(struct config_route, member)

static const struct member route_members[] = {
	{ .name = "action",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED | MEMBER_VERBATIM,
	    ROUTE(spec.action),
	    .min = 1,
	    .max = 64,
	    .check = route_check_action,
	    .help = "What such a request is called: \"kms.secrets.unwrap\"." },
	{ .name = "aliases",
	    .type = MEMBER_STRINGS,
	    .flags = MEMBER_VERBATIM,
	    ROUTE(aliases),
	    WITH(struct config_route, naliases),
	    .max = 1,
	    .check = route_check_action,
	    .fallback = "[]",
	    .help = "Its name in the vocabulary of 2019, where it was another." },
	{ .name = "method",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED | MEMBER_VERBATIM,
	    ROUTE(spec.method),
	    .min = 1,
	    .max = 16,
	    .help = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, or \"*\" for any." },
	{ .name = "path",
	    .type = MEMBER_STRING,
	    .flags = MEMBER_REQUIRED | MEMBER_VERBATIM,
	    ROUTE(spec.path),
	    .min = 1,
	    .max = 512,
	    .check = route_check_path,
	    .help = "Template: literal segments, whole `{parameter}` segments, and \"**\" as the "
		    "last one for any rest. `{id}` is a key." },
	{ .name = "query",
	    .type = MEMBER_PAIR,
	    ROUTE(spec.query_name),
	    WITH(struct config_route, spec.query_value),
	    .help = "The query parameter and value that tell this route from others of its path." },
	{ .name = "header",
	    .type = MEMBER_PAIR,
	    ROUTE(spec.header_name),
	    WITH(struct config_route, spec.header_value),
	    .help = "The header and value that do." },
	{ .name = "severity",
	    .type = MEMBER_WORD,
	    ROUTE(spec.severity),
	    .words = severity_words,
	    .fallback = "\"normal\"",
	    .help = "Of a success; the status may raise it." },
	{ .name = "guarantee",
	    .type = MEMBER_WORD,
	    ROUTE(spec.guarantee),
	    .words = guarantee_words,
	    .help = "Default: `audit.guarantee`." },
	{ .name = "data_event",
	    .type = MEMBER_BOOL,
	    ROUTE(spec.data_event),
	    .fallback = "true",
	    .help = "`dataEvent` of the event." },
	{ .name = "login",
	    .type = MEMBER_BOOL,
	    ROUTE(spec.login),
	    .fallback = "true",
	    .help = "The service checks the caller's token before it answers 2xx." },
	{ .name = "retry",
	    .type = MEMBER_BOOL,
	    ROUTE(spec.retry),
	    .fallback = "true",
	    .help = "A GET or HEAD may be sent once more when a kept connection was dead." },
	{ .name = "fallback",
	    .type = MEMBER_BOOL,
	    ROUTE(spec.fallback),
	    .help = "Name of invalid requests; such a request counts as unmatched. Default: true "
		    "where the method is \"*\"." },
};

const struct member_table config_route_table = { "a route", route_members, COUNT(route_members),
	sizeof(struct config_route) };
