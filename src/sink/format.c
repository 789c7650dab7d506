#include "format_internal.h"

#include "keytrail/trail.h"

#include <inttypes.h>

/* ---- activity-tracker: the line, and a member more ---- */

/* A stub has a fixed shape: what it lacks is empty. */
static void
make_action(const struct facts *f, struct made *out)
{
	out->value = (struct value){ true, true, f->of[FACT_ACTION].raw };
}

static void
make_outcome(const struct facts *f, struct made *out)
{
	out->value = (struct value){ true, true, f->of[FACT_OUTCOME].raw };
}

static const struct format_row rows[] = {
	{ "action", .make = make_action, .help = "`action`" },
	{ "delivery.hash", .fact = FACT_HASH },
	{ "delivery.prev", .fact = FACT_PREV },
	{ "delivery.stub", .fact = FACT_STUB },
	{ "outcome", .make = make_outcome, .help = "`outcome`" },
	{ "trail.boot", .fact = FACT_BOOT },
	{ "trail.log", .fact = FACT_LOG },
	{ "trail.seq", .fact = FACT_SEQ },
};

static const struct format_table activity_tracker_table = {
	.about = "The line of the trail with one member more, `delivery`: without it, it is that "
		 "line byte for byte. A stub has these members only.",
	.rows = rows,
	.n = sizeof(rows) / sizeof(rows[0]),
};

static int
activity_tracker(const struct facts *f, struct buf *out)
{
	const struct sink_event *e = f->event;
	size_t at;

	/* `trail`, which each line has, is what the new member stands before at the latest. */
	if (f->kind == FACTS_STUB || !f->of[FACT_AT].there)
		return format_object(&activity_tracker_table, f, out, NULL);
	at = trail_line_place(e->line, SLICE("delivery"));
	if (buf_append(out, e->line.p, at) == -1 ||
	    buf_printf(out, "\"delivery\":{\"hash\":\"%s\",\"prev\":%" PRIu64 "},", e->hash,
		e->prev) == -1)
		return -1;
	return buf_append_slice(out, slice_sub(e->line, at, e->line.n));
}

/* ---- all of them ---- */

static const struct {
	const struct format_table *table;
	int (*render)(const struct facts *f, struct buf *out);
} formats[] = {
	[CONFIG_FORMAT_ACTIVITY_TRACKER] = { &activity_tracker_table, activity_tracker },
	[CONFIG_FORMAT_OCSF] = { &format_ocsf_table, format_ocsf },
	[CONFIG_FORMAT_ECS] = { &format_ecs_table, format_ecs },
	[CONFIG_FORMAT_CLOUDEVENTS] = { &format_cloudevents_table, format_cloudevents },
	[CONFIG_FORMAT_CEF] = { &format_cef_table, format_cef },
};

int
format_render(
    enum config_format format, const struct sink_event *e, struct buf *out, struct err *err)
{
	struct facts facts;

	facts_of(e, &facts);
	return formats[format].render(&facts, out) == -1 ? err_set(err, "memory is short") : 0;
}

/* ---- the manual ---- */

static int
put_row(struct buf *out, const struct format_row *row)
{
	if (buf_printf(out, "| `%s`", row->path) == -1 ||
	    (row->label != NULL && buf_printf(out, " (%s)", row->label) == -1))
		return -1;
	if (row->help != NULL)
		return buf_printf(out, " | %s |\n", row->help);
	return buf_printf(
	    out, " | `%s` |\n", row->always != NULL ? row->always : fact_name(row->fact));
}

int
format_reference(struct buf *out)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		const struct format_table *table = formats[i].table;

		if (buf_printf(out, "%s## %s\n\n%s\n\n| attribute | from |\n|---|---|\n",
			i > 0 ? "\n" : "", config_format_name(i), table->about) == -1)
			return -1;
		for (size_t row = 0; row < table->n; row++)
			if (put_row(out, &table->rows[row]) == -1)
				return -1;
	}
	return 0;
}
