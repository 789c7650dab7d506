/* keytrail reference: the manual, of which most is made from the program's tables. */
#include "cli/cli_args.h"
#include "cli/cli_man.h"

#include "keytrail/config.h"
#include "keytrail/event.h"
#include "keytrail/format.h"
#include "keytrail/metrics.h"
#include "keytrail/nearest.h"
#include "keytrail/refusal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- commands ---- */

/* A '|' would end the cell. */
static int
put_cell(struct buf *out, const char *s)
{
	for (; *s != '\0'; s++)
		if ((*s == '|' && buf_append(out, "\\", 1) == -1) || buf_append(out, s, 1) == -1)
			return -1;
	return 0;
}

static int
put_forms(struct buf *out, const struct cli_command *c)
{
	char text[CLI_SYNOPSIS_SIZE];

	for (unsigned i = 0; cli_synopsis(c, i, text); i++)
		if (buf_printf(
			out, "keytrail %s%s%s\n", c->name, text[0] != '\0' ? " " : "", text) == -1)
			return -1;
	return 0;
}

static int
put_argument(struct buf *out, const struct cli_row *r)
{
	if (buf_printf(out, "| `") == -1 ||
	    (r->letter != NULL && buf_printf(out, "%s`, `", r->letter) == -1) ||
	    put_cell(out, r->name) == -1 ||
	    (r->value != NULL && (buf_printf(out, " ") == -1 || put_cell(out, r->value) == -1)) ||
	    buf_printf(out, "` | %s |\n", r->help) == -1)
		return -1;
	return 0;
}

static int
put_command(struct buf *out, const struct cli_command *c)
{
	if (buf_printf(out, "## keytrail %s\n\n%c%s.\n\n```\n", c->name,
		toupper((unsigned char)c->help[0]), c->help + 1) == -1 ||
	    put_forms(out, c) == -1 || buf_printf(out, "```\n") == -1)
		return -1;
	if (c->rows->name != NULL &&
	    buf_printf(out, "\n| argument | what it is |\n|---|---|\n") == -1)
		return -1;
	for (const struct cli_row *r = c->rows; r->name != NULL; r++)
		if (put_argument(out, r) == -1)
			return -1;
	return 0;
}

static int
commands_reference(struct buf *out)
{
	const struct cli_command *c;

	for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++)
		if ((i > 0 && buf_printf(out, "\n") == -1) || put_command(out, c) == -1)
			return -1;
	return 0;
}

static int
synopsis_reference(struct buf *out)
{
	const struct cli_command *c;

	if (buf_printf(out, "```\n") == -1)
		return -1;
	for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++)
		if (put_forms(out, c) == -1)
			return -1;
	return buf_printf(out, "```\n");
}

static int
status_reference(struct buf *out)
{
	if (buf_printf(out, "| status | means |\n|---|---|\n") == -1)
		return -1;
	for (const struct cli_exit *e = cli_exits; e->means != NULL; e++)
		if (buf_printf(out, "| %d | %s |\n", e->status, e->means) == -1)
			return -1;
	return 0;
}

/* ---- refusals ---- */

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

/* ---- texts ---- */

#define COMMANDS_INTRO                                                                             \
	"`keytrail COMMAND --help` tells of one command. Errors are one line on standard error.\n"
#define KEYTRAIL_TEXT                                                                              \
	"A reverse-proxy sidecar for a key-management service: it terminates TLS in front of the " \
	"key\n"                                                                                    \
	"service, names what each request does, takes the correlation ID from the answer, and "    \
	"writes one\n"                                                                             \
	"scrubbed audit event for every call into its trail: who, what, when, from where, with "   \
	"what\n"                                                                                   \
	"outcome, and never a key, a plaintext or a token.\n"
#define SIGNALS_TEXT                                                                               \
	"| signal | what a sidecar does |\n|---|---|\n"                                            \
	"| HUP | Reads the file again and swaps it if it is good (else the old one stays and the " \
	"log says why); what needs a restart is named. |\n"                                        \
	"| USR1 | Reopens the files of sinks. |\n"                                                 \
	"| TERM, INT, QUIT | Stops accepting, finishes what is in flight (`timeouts.drain`), "     \
	"syncs, "                                                                                  \
	"gives sinks the same time again, and ends. |\n"                                           \
	"\nReplaced files of TLS (certificates, keys, CAs, revocation lists, OCSP responses; the " \
	"system's\n"                                                                               \
	"store of CAs only at HUP) are loaded within seconds by themselves, where that fails "     \
	"tried again\n"                                                                            \
	"every ten; open connections keep the old ones.\n"
#define ENVIRONMENT_TEXT                                                                           \
	"| variable | what it is for |\n|---|---|\n"                                               \
	"| `KEYTRAIL_CONFIG` | The routes file of every command that takes one and was given "     \
	"none. |\n"                                                                                \
	"| `KEYTRAIL_ROUTES_DIR` | The folder of the shipped route sets, where it is another "     \
	"than that of the installation. |\n"                                                       \
	"| `KEYTRAIL_MODULES_DIR` | The folder of the modules of sinks, likewise. |\n"             \
	"| `NO_COLOR` | Not empty: no colours on a terminal. |\n"
#define ROUTES_TEXT                                                                                \
	"One JSON file configures a sidecar; `include` pulls in route sets, which have `set`.\n"
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
#define FORMATS_INTRO                                                                              \
	"What a sink sends of an event (`sinks[].format`), each as one line. Whatever the "        \
	"format,\n"                                                                                \
	"these are in it: log, boot, sequence; `hash`, the SHA-256 of a zero byte and the "        \
	"trail's line (a\n"                                                                        \
	"leaf of RFC 6962), for which `keytrail proof` has a proof; and `prev`, the number of "    \
	"the "                                                                                     \
	"event\n"                                                                                  \
	"that this sink got before, 0 for none, so that a filter is not mistaken for a loss. "     \
	"What "                                                                                    \
	"is empty\n"                                                                               \
	"is left out. The stub of a rejected event has its action, outcome and times besides.\n"
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

#define ROUTES_EXAMPLE                                                                             \
	"```\n"                                                                                    \
	"{\n"                                                                                      \
	"  \"listen\":   { \"address\": \"0.0.0.0:8443\",\n"                                       \
	"                \"tls\": { \"certificate\": \"server.pem\", \"key\": \"server.key\" } "   \
	"},\n"                                                                                     \
	"  \"upstream\": { \"address\": \"kms.example.com:443\" },\n"                              \
	"  \"metrics\":  { \"address\": \"0.0.0.0:9480\" },\n"                                     \
	"  \"audit\":    { \"trail\": \"/var/lib/keytrail\", \"sign\": null },\n"                  \
	"  \"sinks\":    [ { \"name\": \"out\", \"type\": \"stdout\" } ],\n"                       \
	"  \"include\":  [ \"key-protect.json\" ],\n"                                              \
	"  \"routes\":   [ { \"action\": \"my.secrets.read\", \"method\": \"GET\",\n"              \
	"                  \"path\": \"/my/secrets/{id}\" } ]\n"                                   \
	"}\n"                                                                                      \
	"```\n"

/* ---- chapters and pages ---- */

struct section {
	const char *title; /* or NULL */
	const char *text;  /* or NULL */
	int (*make)(struct buf *out);
};

#define SECTIONS_MAX 10 /* the last is empty */

/* Chapters are files of Markdown, pages are for man(1). */
struct document {
	const char *name, *title;
	struct section sections[SECTIONS_MAX];
};

static const struct document chapters[] = {
	{ "commands", "Commands",
	    {
		{ NULL, COMMANDS_INTRO, commands_reference },
		{ "Exit status", NULL, status_reference },
		{ "Signals", SIGNALS_TEXT, NULL },
		{ "Environment", ENVIRONMENT_TEXT, NULL },
	    } },
	{ "routes", "Routes file", { { NULL, ROUTES_INTRO, config_reference } } },
	{ "metrics", "Metrics", { { NULL, METRICS_INTRO, metrics_reference } } },
	{ "events", "Events", { { NULL, EVENTS_INTRO, event_reference } } },
	{ "formats", "Formats", { { NULL, FORMATS_INTRO, format_reference } } },
	{ "refusals", "Refusals", { { NULL, REFUSALS_INTRO, refusal_reference } } },
};

static const struct document pages[] = {
	{ "keytrail.1", "KEYTRAIL 1",
	    {
		{ "NAME", "keytrail - the audit trail of a key-management service\n", NULL },
		{ "SYNOPSIS", NULL, synopsis_reference },
		{ "DESCRIPTION", KEYTRAIL_TEXT, NULL },
		{ "COMMANDS", NULL, commands_reference },
		{ "EXIT STATUS", NULL, status_reference },
		{ "SIGNALS", SIGNALS_TEXT, NULL },
		{ "ENVIRONMENT", ENVIRONMENT_TEXT, NULL },
		{ "METRICS", METRICS_INTRO, metrics_reference },
		{ "SEE ALSO", "`keytrail-routes`(5), `keytrail-events`(5)\n", NULL },
	    } },
	{ "keytrail-routes.5", "KEYTRAIL-ROUTES 5",
	    {
		{ "NAME", "keytrail-routes - the routes file of keytrail\n", NULL },
		{ "DESCRIPTION", ROUTES_TEXT ROUTES_INTRO, NULL },
		{ "EXAMPLE", ROUTES_EXAMPLE, NULL },
		{ "MEMBERS", NULL, config_reference },
		{ "SEE ALSO", "`keytrail`(1), `keytrail-events`(5)\n", NULL },
	    } },
	{ "keytrail-events.5", "KEYTRAIL-EVENTS 5",
	    {
		{ "NAME", "keytrail-events - the lines of a trail\n", NULL },
		{ "DESCRIPTION", EVENTS_INTRO, NULL },
		{ "MEMBERS", NULL, event_reference },
		{ "REFUSALS", REFUSALS_INTRO, refusal_reference },
		{ "SEE ALSO", "`keytrail`(1), `keytrail-routes`(5)\n", NULL },
	    } },
};

#define PAGES (sizeof(pages) / sizeof(pages[0]))

/* Each has a blank line before it. */
static int
put_sections(struct buf *out, const struct section *s, const char *mark)
{
	for (; s->text != NULL || s->make != NULL; s++)
		if ((s->title != NULL && buf_printf(out, "\n%s %s\n", mark, s->title) == -1) ||
		    (s->text != NULL && buf_printf(out, "\n%s", s->text) == -1) ||
		    (s->make != NULL && (buf_printf(out, "\n") == -1 || s->make(out) == -1)))
			return -1;
	return 0;
}

static int
put_chapter(struct buf *out, const struct document *d)
{
	if (buf_printf(out,
		"# %s\n\nMade by `keytrail reference %s`; `make docs` writes it anew.\n", d->title,
		d->name) == -1)
		return -1;
	return put_sections(out, d->sections, "##");
}

static int
put_page(struct buf *out, const struct document *d)
{
	struct buf text = BUF_INIT;
	int rc = put_sections(&text, d->sections, "#");

	if (rc == 0)
		rc = buf_printf(
		    out, ".TH %s \"\" \"keytrail %s\"\n.ad l\n.nh\n", d->title, KEYTRAIL_VERSION);
	if (rc == 0)
		rc = cli_man_render(buf_slice(&text), out);
	buf_fini(&text);
	return rc;
}

static int
print(int (*make)(struct buf *, const struct document *), const struct document *d)
{
	struct buf text = BUF_INIT;
	bool all = make(&text, d) == 0 &&
		   fwrite(buf_slice(&text).p, 1, buf_size(&text), stdout) == buf_size(&text);

	buf_fini(&text);
	return cli_printed(all);
}

static const char *
page_name(const void *list, size_t i)
{
	return ((const struct document *)list)[i].name;
}

static int
reference(const struct cli_args *a)
{
	const char *page = cli_value(a, "--man"), *near;
	const struct document *c = chapters;

	for (size_t i = 0; page != NULL && i < PAGES; i++)
		if (strcmp(pages[i].name, page) == 0)
			return print(put_page, &pages[i]);
	if (page != NULL) {
		near = nearest_word(page, page_name, pages, PAGES);
		return cli_usage(a, "no page \"%s\"; did you mean \"%s\"?", page,
		    near != NULL ? near : pages[0].name);
	}
	while (cli_value(a, c->name) == NULL)
		c++;
	return print(put_chapter, c);
}

enum { CHAPTER = 1, PAGE = 2 };

const struct cli_command cli_reference = {
	.name = "reference",
	.help = "print a chapter of the manual, as Markdown, or a page for man(1)",
	.rows =
	    (const struct cli_row[]){
		{ "commands", NULL, NULL, "what the program does", 0, CHAPTER },
		{ "routes", NULL, NULL, "the members of the routes file", CLI_OR, CHAPTER },
		{ "metrics", NULL, NULL, "what /metrics shows", CLI_OR, CHAPTER },
		{ "events", NULL, NULL, "the members of a line of the trail", CLI_OR, CHAPTER },
		{ "formats", NULL, NULL, "what sinks make of an event", CLI_OR, CHAPTER },
		{ "refusals", NULL, NULL, "what keytrail itself answers", CLI_OR, CHAPTER },
		{ "--man", NULL, "PAGE", "keytrail.1, keytrail-routes.5 or keytrail-events.5", 0,
		    PAGE },
		{ 0 },
	    },
	.run = reference,
};
