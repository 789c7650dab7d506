/* keytrail reference: the chapters of the manual that are made from the program's tables. */
#include "cli/cli.h"

#include "keytrail/config.h"
#include "keytrail/event.h"
#include "keytrail/metrics.h"
#include "keytrail/refusal.h"

#include <stdio.h>

static int
refusal_reference(struct buf *out)
{
	if (buf_printf(out, "| status | code | label | what it says |\n|---|---|---|---|\n") == -1)
		return -1;
	for (unsigned r = REFUSAL_NONE + 1; r < REFUSAL_COUNT; r++) {
		const struct refusal_info *i = refusal_info(r);

		if (buf_printf(out, "| %u | `%s` | `%s` | %s |\n", i->status, i->code, i->label,
			i->text) == -1)
			return -1;
	}
	for (unsigned r = 0; r < REFUSAL_CLIENT_COUNT; r++) {
		const struct refusal_info *i = refusal_client_info(r);

		if (buf_printf(out, "| - | - | `%s` | %s |\n", i->label, i->text) == -1)
			return -1;
	}
	return 0;
}

#define ROUTES_INTRO                                                                               \
	"Sizes are bytes or carry a unit (`\"64MiB\"`), times carry one (`\"20ms\"`, "             \
	"`\"400d\"`).\n"                                                                           \
	"File names are relative to the folder of the file they stand in. `${NAME}` in a string "  \
	"is\n"                                                                                     \
	"the environment's (not in `set`, `default`, `include`, in `action`, `aliases`, `method` " \
	"and\n"                                                                                    \
	"`path` of a route, nor in a secret's `file`), `$${` is a literal `${`.\n"
#define METRICS_INTRO                                                                              \
	"Labels hold nothing that a client chose: actions of the routes file, names of sinks, "    \
	"words\n"                                                                                  \
	"of fixed tables.\n"
#define EVENTS_INTRO "One line of canonical JSON (RFC 8785) a call, at most 16 KiB.\n"
#define REFUSALS_INTRO                                                                             \
	"Every reason for which keytrail itself answers a request. The code stands in the "        \
	"answer\n"                                                                                 \
	"(`resources[0].reasons[0].code`; what answers HEAD has no body), the label in\n"          \
	"`keytrail_refused_requests_total` and in the event: as `reason.reasonForFailure`, or, "   \
	"once the\n"                                                                               \
	"request was forwarded and no status came, what became of it as `reason.reasonType` "      \
	"(`timeout`,\n"                                                                            \
	"`connection_lost`, `malformed_answer`, `foreign_location`, `out_of_memory`, or the "      \
	"label of what\n"                                                                          \
	"was wrong with the request's body). Beyond `limits.refusals` it is counted in "           \
	"`details.reasons` of "                                                                    \
	"`keytrail.refused`,\n"                                                                    \
	"as is whoever is refused in the handshake, which "                                        \
	"`keytrail_tls_handshake_failures_total` counts.\n"

static const struct chapter {
	const char *name, *title, *intro;
	int (*make)(struct buf *out);
} chapters[] = {
	{ "routes", "Routes file", ROUTES_INTRO, config_reference },
	{ "metrics", "Metrics", METRICS_INTRO, metrics_reference },
	{ "events", "Events", EVENTS_INTRO, event_reference },
	{ "refusals", "Refusals", REFUSALS_INTRO, refusal_reference },
};

static int
print_chapter(const struct chapter *c)
{
	struct buf text = BUF_INIT;
	bool all =
	    buf_printf(&text,
		"# %s\n\nMade by `keytrail reference %s`; `make docs` writes it anew.\n\n%s\n",
		c->title, c->name, c->intro) == 0 &&
	    c->make(&text) == 0 &&
	    fwrite(buf_slice(&text).p, 1, buf_size(&text), stdout) == buf_size(&text);

	buf_fini(&text);
	return cli_printed(all);
}

static int
reference(const struct cli_args *a)
{
	const struct chapter *c = chapters;

	while (cli_value(a, c->name) == NULL)
		c++;
	return print_chapter(c);
}

const struct cli_command cli_reference = {
	.name = "reference",
	.help = "print a chapter of the manual, as Markdown",
	.rows =
	    (const struct cli_row[]){
		{ "routes", .help = "the members of the routes file" },
		{ "metrics", .help = "what /metrics shows", .flags = CLI_OR },
		{ "events", .help = "the members of a line of the trail", .flags = CLI_OR },
		{ "refusals", .help = "what keytrail itself answers", .flags = CLI_OR },
		{ 0 },
	    },
	.run = reference,
};
