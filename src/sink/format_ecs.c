/* The Elastic Common Schema 8.17: an event of the category api for a call. */
#include "format_internal.h"

#define ECS_VERSION "8.17.0"

static void
make_created(const struct facts *f, struct made *out)
{
	if (fact_ms(f, FACT_AT) > 0)
		made_print_string(out, "%.22sZ", f->of[FACT_AT].raw.p);
}

/* Category and type of the sidecar's own events, where the schema has some that fit. */
static const struct own {
	const char *action, *category, *type;
} owns[] = {
	{ "keytrail.start", "[\"process\"]", "[\"start\"]" },
	{ "keytrail.stop", "[\"process\"]", "[\"end\"]" },
	{ "keytrail.reload", "[\"configuration\"]", "[\"change\"]" },
	{ NULL, NULL, "[\"info\"]" },
};

static const struct own *
own_of(const struct facts *f)
{
	const struct own *own = owns;

	while (own->action != NULL && !fact_is(f, FACT_ACTION, own->action))
		own++;
	return own;
}

static void
make_category(const struct facts *f, struct made *out)
{
	const char *category = f->kind == FACTS_CALL ? "[\"api\"]" : own_of(f)->category;

	if (category != NULL)
		made_raw(out, slice_of(category));
}

static void
make_type(const struct facts *f, struct made *out)
{
	static const char *const types[] = {
		[VERB_OTHER] = "access",
		[VERB_CREATE] = "creation",
		[VERB_READ] = "access",
		[VERB_UPDATE] = "change",
		[VERB_DELETE] = "deletion",
	};
	unsigned status = fact_status(f);

	if (f->kind != FACTS_CALL)
		made_raw(out, slice_of(own_of(f)->type));
	else if (fact_is(f, FACT_KIND, "intent"))
		made_raw(out, SLICE("[\"start\"]"));
	else
		made_print(out, "[\"%s\"%s]", types[fact_verb(f)],
		    status == 401 || status == 403 ? ",\"denied\"" : "");
}

/* "pending" is none of the schema's outcomes: an intent has none. */
static void
make_outcome(const struct facts *f, struct made *out)
{
	if (!fact_is(f, FACT_OUTCOME, "pending"))
		out->value = f->of[FACT_OUTCOME];
}

static void
make_severity(const struct facts *f, struct made *out)
{
	if (fact_is(f, FACT_SEVERITY, "normal"))
		made_raw(out, SLICE("3"));
	else if (fact_is(f, FACT_SEVERITY, "warning"))
		made_raw(out, SLICE("6"));
	else if (fact_is(f, FACT_SEVERITY, "critical"))
		made_raw(out, SLICE("9"));
}

static void
make_source(const struct facts *f, struct made *out)
{
	out->value = f->of[f->of[FACT_PEER].there ? FACT_PEER : FACT_ADDRESS];
}

static const struct format_row rows[] = {
	{ "@timestamp", .make = make_iso_time, .help = "`eventTime`" },
	{ "client.ip", .fact = FACT_ADDRESS },
	{ "ecs.version", .always = "\"" ECS_VERSION "\"" },
	{ "event.action", .fact = FACT_ACTION },
	{ "event.category", .make = make_category,
	    .help =
		"`api` of a call, `process` of `keytrail.start` and `.stop`, `configuration` of "
		"`.reload`" },
	{ "event.created", .make = make_created, .help = "`trail.at`" },
	{ "event.dataset", .always = "\"keytrail.trail\"" },
	{ "event.hash", .fact = FACT_HASH },
	{ "event.id", .make = make_event_uid, .help = MADE_EVENT_UID },
	{ "event.kind", .always = "\"event\"" },
	{ "event.module", .always = "\"keytrail\"" },
	{ "event.outcome", .make = make_outcome, .help = "`outcome`; an intent has none" },
	{ "event.provider", .always = "\"keytrail\"" },
	{ "event.reason", .make = make_detail, .help = MADE_DETAIL },
	{ "event.sequence", .fact = FACT_SEQ },
	{ "event.severity", .make = make_severity, .help = "3 normal, 6 warning, 9 critical" },
	{ "event.type", .make = make_type,
	    .help = "`creation`, `access`, `change`, `deletion` by the action's last word (else "
		    "`access`), and `denied` where the status is 401 or 403; `start` of an intent; "
		    "`start`, `end`, `change`, `info` of the sidecar's own" },
	{ "http.request.id", .fact = FACT_CORRELATION },
	{ "http.request.method", .fact = FACT_METHOD },
	{ "http.response.status_code", .make = make_status, .help = MADE_STATUS },
	FORMAT_REST("keytrail."),
	{ "keytrail.target.id", .fact = FACT_TARGET },
	{ "keytrail.target.keyRef", .fact = FACT_KEY_REF },
	{ "keytrail.target.typeURI", .fact = FACT_TARGET_TYPE },
	{ "keytrail.uid", .fact = FACT_ID },
	{ "message", .fact = FACT_MESSAGE },
	{ "observer.product", .always = "\"keytrail\"" },
	{ "observer.type", .always = "\"proxy\"" },
	{ "observer.vendor", .always = "\"keytrail\"" },
	{ "observer.version", .always = "\"" KEYTRAIL_VERSION "\"", .help = "Of keytrail" },
	{ "service.id", .fact = FACT_CRN },
	{ "service.name", .make = make_service, .help = MADE_SERVICE },
	{ "source.ip", .make = make_source,
	    .help = "`initiator.host.peer`, else `initiator.host.address`" },
	{ "user.id", .fact = FACT_INITIATOR },
	{ "user.name", .fact = FACT_INITIATOR_NAME },
	{ "user_agent.original", .fact = FACT_AGENT },
};

const struct format_table format_ecs_table = {
	.about = "The Elastic Common Schema, version " ECS_VERSION
		 "; what it has no field for is below `keytrail`.",
	.rows = rows,
	.n = sizeof(rows) / sizeof(rows[0]),
};

int
format_ecs(const struct facts *f, struct buf *out)
{
	return format_object(&format_ecs_table, f, out, NULL);
}
