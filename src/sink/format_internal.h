/*
 * format_internal: what the formats share: a line taken apart into facts, and tables that say which
 * attribute of a format is made of which fact.  Private to format*.c.
 */
#ifndef KEYTRAIL_FORMAT_INTERNAL_H
#define KEYTRAIL_FORMAT_INTERNAL_H

#include "keytrail/format.h"

/* ---- facts ---- */

/* Members of a line in the order of their names (format_facts.c), then what the event says. */
enum fact {
	FACT_ACTION,
	FACT_CORRELATION,
	FACT_CORRELATION_SOURCE,
	FACT_DATA_EVENT,
	FACT_DETAILS,
	FACT_TIME,
	FACT_ID,
	FACT_AUTHN_ID,
	FACT_CLAIMED_ID,
	FACT_CLAIMED_NAME,
	FACT_ALTERNATIVE,
	FACT_SUBJECT,
	FACT_CREDENTIAL,
	FACT_VERIFIED_BY,
	FACT_ADDRESS,
	FACT_AGENT,
	FACT_PEER,
	FACT_INITIATOR,
	FACT_INITIATOR_NAME,
	FACT_INITIATOR_TYPE,
	FACT_KIND,
	FACT_CRN,
	FACT_MESSAGE,
	FACT_OUTCOME,
	FACT_CODE,
	FACT_CAUSE,
	FACT_REASON,
	FACT_RECOVERED,
	FACT_ATTEMPTS,
	FACT_INSTANCE,
	FACT_KEY_RING,
	FACT_METHOD,
	FACT_PATH,
	FACT_SHAPE,
	FACT_UNMATCHED,
	FACT_SEVERITY,
	FACT_TARGET,
	FACT_KEY_REF,
	FACT_TARGET_TYPE,
	FACT_AT,
	FACTS_OF_LINE,
	FACT_LINE = FACTS_OF_LINE, /* all of it */
	FACT_BOOT,
	FACT_HASH,
	FACT_LOG,
	FACT_PREV,
	FACT_SEQ,
	FACT_STUB,
	FACT_NEVER, /* of a row that is filled in otherwise */
	FACTS,
};

/* A piece of JSON; of a string, what is between its quotes. */
struct value {
	bool there;
	bool string;
	struct slice raw;
};

/* Of a call, of the sidecar's own life, or little of an event: of one that was rejected, or whose line
 * is no canonical JSON. */
enum facts_kind { FACTS_CALL, FACTS_OWN, FACTS_STUB };

struct facts {
	const struct sink_event *event;
	enum facts_kind kind;
	struct value of[FACTS]; /* borrowed from the event and from own; "" is not there */
	char own[2][24];
};

void facts_of(const struct sink_event *e, struct facts *f);
const char *fact_name(enum fact fact); /* "initiator.host.address" */
bool fact_is(const struct facts *f, enum fact fact, const char *word);
/* Milliseconds since 1970, or 0 where there is no such time. */
uint64_t fact_ms(const struct facts *f, enum fact fact);
unsigned fact_status(const struct facts *f); /* or 0 */
/* What a call does, by the last word of its action. */
enum verb { VERB_OTHER, VERB_CREATE, VERB_READ, VERB_UPDATE, VERB_DELETE };
enum verb fact_verb(const struct facts *f);
struct slice fact_last_word(const struct facts *f); /* of the action */
/* "kms" of "crn:v1:bluemix:public:kms:...", or "". */
struct slice fact_service(const struct facts *f);

/* ---- tables ---- */

#define MADE_MAX 160

/* What a row makes of the facts. */
struct made {
	struct value value;
	char text[MADE_MAX];
};

void made_raw(struct made *out, struct slice raw); /* not of a string */
void made_string(struct made *out, struct slice raw);
void made_print(struct made *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void made_print_string(struct made *out, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

typedef void (*make_fn)(const struct facts *f, struct made *out);

/* An attribute: what is always the same, or what `make` says of the facts, or a fact as it is. */
struct format_row {
	const char *path;   /* "resources[].uid": of the one element of an array; of CEF a key */
	const char *always; /* JSON */
	make_fn make;
	enum fact fact;
	const char *help;  /* for the manual, where the fact does not say it */
	const char *label; /* of a custom key of CEF */
	size_t max;	   /* CEF: bytes of the value, before it is escaped */
};

struct format_table {
	const char *about; /* for the manual */
	const struct format_row *rows;
	size_t n;
};

extern const struct format_table format_ocsf_table, format_ecs_table, format_cloudevents_table,
    format_cef_table;

struct value row_value(const struct format_row *row, const struct facts *f, struct made *made);

/* Append one object of those rows that have a value; the paths of a table are in the order of RFC
 * 8785.  `mark`, unless NULL, gets the offset after the row of that path, or SIZE_MAX. */
struct format_mark {
	const char *path;
	size_t at;
};
int format_object(const struct format_table *table, const struct facts *f, struct buf *out,
    struct format_mark *mark);

int format_ocsf(const struct facts *f, struct buf *out);
int format_ecs(const struct facts *f, struct buf *out);
int format_cloudevents(const struct facts *f, struct buf *out);
int format_cef(const struct facts *f, struct buf *out);

/* ---- what several tables have ---- */

void make_event_uid(const struct facts *f, struct made *out);
void make_iso_time(const struct facts *f, struct made *out);
void make_service(const struct facts *f, struct made *out);
void make_status(const struct facts *f, struct made *out);
void make_detail(const struct facts *f, struct made *out);
#define MADE_EVENT_UID "`<log>/<boot>/<sequence>`: who is told twice can see it"
#define MADE_SERVICE   "The service's name in `logSourceCRN`"
#define MADE_STATUS    "`reason.reasonCode`"
#define MADE_DETAIL    "`reason.reasonForFailure`, else `reason.reasonType`"

/* What a format has no attribute for, under its own name below `prefix`. */
/* clang-format off */
#define FORMAT_REST(prefix) \
	{ prefix "boot", .fact = FACT_BOOT }, \
	{ prefix "correlationSource", .fact = FACT_CORRELATION_SOURCE }, \
	{ prefix "dataEvent", .fact = FACT_DATA_EVENT }, \
	{ prefix "details", .fact = FACT_DETAILS }, \
	{ prefix "initiator.authnId", .fact = FACT_AUTHN_ID }, \
	{ prefix "initiator.claimed.id", .fact = FACT_CLAIMED_ID }, \
	{ prefix "initiator.claimed.name", .fact = FACT_CLAIMED_NAME }, \
	{ prefix "initiator.credential.alternative", .fact = FACT_ALTERNATIVE }, \
	{ prefix "initiator.credential.subject", .fact = FACT_SUBJECT }, \
	{ prefix "initiator.credential.type", .fact = FACT_CREDENTIAL }, \
	{ prefix "initiator.credential.verifiedBy", .fact = FACT_VERIFIED_BY }, \
	{ prefix "initiator.typeURI", .fact = FACT_INITIATOR_TYPE }, \
	{ prefix "kind", .fact = FACT_KIND }, \
	{ prefix "log", .fact = FACT_LOG }, \
	{ prefix "prev", .fact = FACT_PREV }, \
	{ prefix "recovered", .fact = FACT_RECOVERED }, \
	{ prefix "requestData.attempts", .fact = FACT_ATTEMPTS }, \
	{ prefix "requestData.instanceId", .fact = FACT_INSTANCE }, \
	{ prefix "requestData.keyRingId", .fact = FACT_KEY_RING }, \
	{ prefix "requestData.method", .fact = FACT_METHOD }, \
	{ prefix "requestData.path", .fact = FACT_PATH }, \
	{ prefix "requestData.shape", .fact = FACT_SHAPE }, \
	{ prefix "requestData.unmatched", .fact = FACT_UNMATCHED }, \
	{ prefix "stub", .fact = FACT_STUB }
/* clang-format on */

#endif
