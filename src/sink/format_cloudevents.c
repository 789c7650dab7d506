/* CloudEvents 1.0.2 in the JSON event format, with the extension "sequence" and three of our own. */
#include "format_internal.h"

#include <inttypes.h>

static void
make_data(const struct facts *f, struct made *out)
{
	if (f->kind != FACTS_STUB)
		out->value = f->of[FACT_LINE];
	else if (f->of[FACT_OUTCOME].there && f->of[FACT_OUTCOME].raw.n < MADE_MAX / 2)
		made_print(out, "{\"outcome\":\"%.*s\",\"stub\":true}",
		    SLICE_ARG(f->of[FACT_OUTCOME].raw));
	else
		made_raw(out, SLICE("{\"stub\":true}"));
}

/* Integers of CloudEvents have 32 bits, and its sequences are in the order of their characters. */
static void
make_prev(const struct facts *f, struct made *out)
{
	made_print_string(out, "%020" PRIu64, f->event->prev);
}

static void
make_sequence(const struct facts *f, struct made *out)
{
	made_print_string(out, "%020" PRIu64, f->event->seq);
}

static void
make_source(const struct facts *f, struct made *out)
{
	made_print_string(out, "keytrail/%.*s", SLICE_ARG(f->of[FACT_LOG].raw));
}

/* Required, and of an unreadable line unknown. */
static void
make_type(const struct facts *f, struct made *out)
{
	made_string(
	    out, f->of[FACT_ACTION].there ? f->of[FACT_ACTION].raw : SLICE("keytrail.unknown"));
}

static const struct format_row rows[] = {
	{ "bootid", .fact = FACT_BOOT },
	{ "data", .make = make_data,
	    .help = "The line as it is in the trail; of a stub `outcome` and `\"stub\":true`" },
	{ "datacontenttype", .always = "\"application/json\"" },
	{ "hash", .fact = FACT_HASH },
	{ "id", .make = make_event_uid, .help = MADE_EVENT_UID },
	{ "logid", .fact = FACT_LOG },
	{ "prev", .make = make_prev, .help = "`prev` in 20 digits" },
	{ "sequence", .make = make_sequence, .help = "`trail.seq` in 20 digits" },
	{ "source", .make = make_source, .help = "`keytrail/<log>`" },
	{ "specversion", .always = "\"1.0\"" },
	{ "subject", .fact = FACT_TARGET },
	{ "time", .make = make_iso_time, .help = "`eventTime`" },
	{ "type", .make = make_type, .help = "`action`" },
};

const struct format_table format_cloudevents_table = {
	.about = "CloudEvents 1.0 in structured mode, as JSON.",
	.rows = rows,
	.n = sizeof(rows) / sizeof(rows[0]),
};

int
format_cloudevents(const struct facts *f, struct buf *out)
{
	return format_object(&format_cloudevents_table, f, out, NULL);
}
