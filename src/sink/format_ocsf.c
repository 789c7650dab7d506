/*
 * OCSF 1.9.0: calls as API Activity, all else as Base Event; with the profile Record Integrity, whose
 * fingerprint is of this event, while the hash of the trail's line is that of the raw data.
 */
#include "format_internal.h"

#include "keytrail/sha256.h"

#include <stdio.h>

#define OCSF_VERSION "1.9.0"

enum { CATEGORY_APPLICATION = 6, CLASS_API = 6003, ACTIVITY_OTHER = 99 };

static unsigned
class_of(const struct facts *f)
{
	return f->kind == FACTS_CALL ? CLASS_API : 0;
}

static unsigned
activity_of(const struct facts *f)
{
	static const unsigned activities[] = {
		[VERB_OTHER] = ACTIVITY_OTHER,
		[VERB_CREATE] = 1,
		[VERB_READ] = 2,
		[VERB_UPDATE] = 3,
		[VERB_DELETE] = 4,
	};

	return f->kind == FACTS_CALL ? activities[fact_verb(f)] : ACTIVITY_OTHER;
}

static void
make_activity(const struct facts *f, struct made *out)
{
	made_print(out, "%u", activity_of(f));
}

static void
make_activity_name(const struct facts *f, struct made *out)
{
	static const char *const names[] = { "", "Create", "Read", "Update", "Delete" };
	unsigned activity = activity_of(f);

	if (activity == ACTIVITY_OTHER)
		made_string(out, fact_last_word(f));
	else
		made_string(out, slice_of(names[activity]));
}

static void
make_category(const struct facts *f, struct made *out)
{
	made_print(out, "%d", f->kind == FACTS_CALL ? CATEGORY_APPLICATION : 0);
}

static void
make_class(const struct facts *f, struct made *out)
{
	made_print(out, "%u", class_of(f));
}

static void
make_class_name(const struct facts *f, struct made *out)
{
	made_string(out, f->kind == FACTS_CALL ? SLICE("API Activity") : SLICE("Base Event"));
}

static void
make_type(const struct facts *f, struct made *out)
{
	made_print(out, "%u", class_of(f) * 100 + activity_of(f));
}

/* ---- who ---- */

static void
make_user_name(const struct facts *f, struct made *out)
{
	out->value = f->of[FACT_INITIATOR_NAME];
	if (f->kind == FACTS_CALL && !f->of[FACT_INITIATOR].there && !out->value.there)
		made_string(out, SLICE("unknown")); /* one of both there must be */
}

static void
make_user_type(const struct facts *f, struct made *out)
{
	if (f->kind != FACTS_CALL)
		return;
	if (fact_is(f, FACT_INITIATOR_TYPE, "service/security/account/user"))
		made_raw(out, SLICE("1"));
	else if (fact_is(f, FACT_INITIATOR_TYPE, "service/security/account/serviceid"))
		made_raw(out, SLICE("4"));
	else
		made_raw(out, SLICE("99"));
}

static void
make_peers(const struct facts *f, struct made *out)
{
	const struct slice peer = f->of[FACT_PEER].raw;

	if (f->of[FACT_PEER].there && peer.n < MADE_MAX / 2)
		made_print(out, "[\"%.*s\"]", SLICE_ARG(peer));
}

static void
make_address_name(const struct facts *f, struct made *out)
{
	if (f->kind == FACTS_CALL)
		made_string(out, SLICE("src_endpoint.ip"));
}

static void
make_address_type(const struct facts *f, struct made *out)
{
	if (f->kind == FACTS_CALL)
		made_raw(out, SLICE("2"));
}

/* ---- what ---- */

static void
make_call_action(const struct facts *f, struct made *out)
{
	if (f->kind == FACTS_CALL)
		made_string(
		    out, f->of[FACT_ACTION].there ? f->of[FACT_ACTION].raw : SLICE("unknown"));
}

/* The methods that every version knows. */
static void
make_method(const struct facts *f, struct made *out)
{
	static const char *const methods[] = { "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS",
		"PATCH", "POST", "PUT", "TRACE" };

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (fact_is(f, FACT_METHOD, methods[i]))
			out->value = f->of[FACT_METHOD];
}

static void
make_http_status(const struct facts *f, struct made *out)
{
	if (fact_status(f) > 0)
		out->value = f->of[FACT_REASON];
}

/* ---- how it went ---- */

static const struct level {
	const char *word, *caption;
	unsigned id;
} severities[] = { { "normal", "Informational", 1 }, { "warning", "Medium", 3 },
	{ "critical", "Critical", 5 }, { NULL, "Unknown", 0 } },
  outcomes[] = { { "success", "Success", 1 }, { "failure", "Failure", 2 },
	  { "pending", "Pending", 99 }, { NULL, "Unknown", 0 } };

static const struct level *
level_of(const struct level *level, const struct facts *f, enum fact fact)
{
	while (level->word != NULL && !fact_is(f, fact, level->word))
		level++;
	return level;
}

static void
make_severity(const struct facts *f, struct made *out)
{
	made_string(out, slice_of(level_of(severities, f, FACT_SEVERITY)->caption));
}

static void
make_severity_id(const struct facts *f, struct made *out)
{
	made_print(out, "%u", level_of(severities, f, FACT_SEVERITY)->id);
}

static void
make_status_name(const struct facts *f, struct made *out)
{
	made_string(out, slice_of(level_of(outcomes, f, FACT_OUTCOME)->caption));
}

static void
make_status_id(const struct facts *f, struct made *out)
{
	made_print(out, "%u", level_of(outcomes, f, FACT_OUTCOME)->id);
}

static void
make_status_code(const struct facts *f, struct made *out)
{
	if (fact_status(f) > 0)
		made_print_string(out, "%u", fact_status(f));
}

/* ---- the event ---- */

static void
make_time(const struct facts *f, struct made *out)
{
	made_print(out, "%llu", (unsigned long long)fact_ms(f, FACT_TIME));
}

static void
make_logged_time(const struct facts *f, struct made *out)
{
	if (f->of[FACT_AT].there)
		made_print(out, "%llu", (unsigned long long)fact_ms(f, FACT_AT));
}

static void
make_authority(const struct facts *f, struct made *out)
{
	made_print_string(out, "keytrail/%.*s", SLICE_ARG(f->of[FACT_LOG].raw));
}

static void
make_raw_size(const struct facts *f, struct made *out)
{
	made_print(out, "%zu", f->event->line.n);
}

#define CHAIN	    "attestation_list[].chain_uid"
#define FINGERPRINT "attestation_list[].fingerprint"

static const struct format_row rows[] = {
	{ "activity_id", .make = make_activity,
	    .help = "1 to 4 where the action's last word says that it creates, reads, changes or "
		    "deletes, else 99" },
	{ "activity_name", .make = make_activity_name,
	    .help = "`Create`, `Read`, `Update`, `Delete`, else the action's last word" },
	{ "actor.user.name", .make = make_user_name,
	    .help = "`initiator.name`; `unknown` where there is neither name nor id" },
	{ "actor.user.type_id", .make = make_user_type,
	    .help = "1 a user, 4 a service id, 99 others (`initiator.typeURI`)" },
	{ "actor.user.uid", .fact = FACT_INITIATOR },
	{ "api.operation", .make = make_call_action, .help = "`action` of a call" },
	{ "api.request.uid", .fact = FACT_CORRELATION },
	{ "api.response.code", .make = make_status, .help = MADE_STATUS },
	{ "api.response.error", .fact = FACT_CAUSE },
	{ "api.response.message", .fact = FACT_REASON },
	{ "api.service.name", .make = make_service, .help = MADE_SERVICE },
	{ "api.service.uid", .fact = FACT_CRN },
	{ "attestation_list[].authority_uid", .make = make_authority, .help = "`keytrail/<log>`" },
	{ CHAIN, .fact = FACT_LOG },
	{ FINGERPRINT, .fact = FACT_NEVER,
	    .help = "SHA-256 of this event without this attribute, serialized as RFC 8785 asks, as "
		    "it is sent" },
	{ "category_uid", .make = make_category, .help = "6; 0 of a Base Event" },
	{ "class_name", .make = make_class_name, .help = "`API Activity`, `Base Event`" },
	{ "class_uid", .make = make_class,
	    .help = "6003; 0 of the sidecar's own events and of stubs" },
	{ "http_request.http_method", .make = make_method,
	    .help = "`requestData.method`, where OCSF knows it" },
	{ "http_request.user_agent", .fact = FACT_AGENT },
	{ "http_response.code", .make = make_status, .help = MADE_STATUS },
	{ "http_response.status", .make = make_http_status,
	    .help = "`reason.reasonType`, where there was a status" },
	{ "message", .fact = FACT_MESSAGE },
	{ "metadata.correlation_uid", .fact = FACT_CORRELATION },
	{ "metadata.event_code", .fact = FACT_ACTION },
	{ "metadata.log_name", .fact = FACT_LOG },
	{ "metadata.logged_time", .make = make_logged_time, .help = "`trail.at`" },
	{ "metadata.original_event_uid", .fact = FACT_ID },
	{ "metadata.original_time", .fact = FACT_TIME },
	{ "metadata.product.name", .always = "\"keytrail\"" },
	{ "metadata.product.vendor_name", .always = "\"keytrail\"" },
	{ "metadata.product.version", .always = "\"" KEYTRAIL_VERSION "\"", .help = "Of keytrail" },
	{ "metadata.profiles", .always = "[\"record_integrity\"]" },
	{ "metadata.sequence", .fact = FACT_SEQ },
	{ "metadata.uid", .make = make_event_uid, .help = MADE_EVENT_UID },
	{ "metadata.version", .always = "\"" OCSF_VERSION "\"" },
	{ "observables[].name", .make = make_address_name, .help = "`src_endpoint.ip` of a call" },
	{ "observables[].type_id", .make = make_address_type, .help = "2 (IP Address)" },
	{ "observables[].value", .fact = FACT_ADDRESS },
	{ "raw_data_hash.algorithm", .always = "\"RFC 6962 leaf, SHA-256\"",
	    .help = "`RFC 6962 leaf, SHA-256`: of a zero byte and the line" },
	{ "raw_data_hash.algorithm_id", .always = "99" },
	{ "raw_data_hash.value", .fact = FACT_HASH },
	{ "raw_data_size", .make = make_raw_size, .help = "Bytes of the line" },
	{ "resources[].type", .fact = FACT_TARGET_TYPE },
	{ "resources[].uid", .fact = FACT_TARGET },
	{ "severity", .make = make_severity,
	    .help = "`Informational` (normal), `Medium` (warning), `Critical`" },
	{ "severity_id", .make = make_severity_id, .help = "1, 3, 5; 0 of a stub" },
	{ "src_endpoint.intermediate_ips", .make = make_peers, .help = "`initiator.host.peer`" },
	{ "src_endpoint.ip", .fact = FACT_ADDRESS },
	{ "status", .make = make_status_name,
	    .help = "`Success`, `Failure`, `Unknown`, `Pending` (`outcome`)" },
	{ "status_code", .make = make_status_code, .help = MADE_STATUS },
	{ "status_detail", .make = make_detail, .help = MADE_DETAIL },
	{ "status_id", .make = make_status_id, .help = "1, 2, 0, 99" },
	{ "time", .make = make_time, .help = "`eventTime`" },
	{ "type_uid", .make = make_type, .help = "100 `class_uid` + `activity_id`" },
	FORMAT_REST("unmapped."),
	{ "unmapped.target.keyRef", .fact = FACT_KEY_REF },
};

const struct format_table format_ocsf_table = {
	.about = "The Open Cybersecurity Schema Framework, version " OCSF_VERSION
		 ": calls as API Activity (6003), the sidecar's own events as Base Event (0).",
	.rows = rows,
	.n = sizeof(rows) / sizeof(rows[0]),
};

/* The fingerprint goes where its row is: into the text that it is of. */
static int
insert_fingerprint(struct buf *out, size_t from, size_t at)
{
	static const char begin[] =
	    ",\"fingerprint\":{\"algorithm\":\"SHA-256\",\"algorithm_id\":3,"
	    "\"encoding\":\"Hex\",\"encoding_id\":1,\"serialization\":\"JCS\","
	    "\"serialization_id\":2,\"value\":\"";
	char text[sizeof(begin) + 2 * SHA256_SIZE + 2];
	unsigned char digest[SHA256_SIZE];
	struct slice event = slice_sub(buf_slice(out), from, buf_size(out));
	char *p;
	size_t n;

	sha256_joined(event, SLICE_EMPTY, digest);
	n = (size_t)snprintf(text, sizeof(text), "%s", begin);
	for (size_t i = 0; i < sizeof(digest); i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%02x", digest[i]);
	n += (size_t)snprintf(text + n, sizeof(text) - n, "\"}");
	if (buf_reserve(out, n) == -1)
		return -1;
	p = out->mem + out->off + at;
	memmove(p + n, p, (size_t)(buf_tail(out) - p));
	memcpy(p, text, n);
	buf_commit(out, n);
	return 0;
}

int
format_ocsf(const struct facts *f, struct buf *out)
{
	struct format_mark mark = { CHAIN, SIZE_MAX };
	size_t from = buf_size(out);

	if (format_object(&format_ocsf_table, f, out, &mark) == -1)
		return -1;
	return insert_fingerprint(out, from, mark.at);
}
