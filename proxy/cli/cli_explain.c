#include "cli/cli.h"

#include "data/snapshot.h"
#include "keytrail/config.h"
#include "keytrail/parse.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define OBSERVER "keytrail/00000000000000000000000000000000"
#define CLIENT	 "192.0.2.1" /* RFC 5737: an address for documentation */

struct question {
	const char *file, *method, *url;
	const struct cli_args *args; /* with the headers */
	bool json;
};

struct answer {
	struct route_match match;
	struct audit_event event;
	char why[1024];
	char line[EVENT_LINE_MAX + 2];
};

/* ---- the request ---- */

/* "https://host:port/path?query" or "/path?query": the authority and the target. */
static void
split_url(const char *url, struct slice *authority, struct slice *target)
{
	const char *scheme = strstr(url, "://");
	size_t n;

	*authority = SLICE("localhost");
	*target = slice_of(url);
	if (scheme == NULL || url[0] == '/')
		return;
	n = strcspn(scheme + 3, "/?#");
	*authority = (struct slice){ scheme + 3, n };
	*target = slice_of(scheme + 3 + n);
	if (target->n == 0)
		*target = SLICE("/");
}

static bool
names_host(const struct question *q)
{
	const char *header;
	size_t at = 0;

	while ((header = cli_next_value(q->args, "--header", &at)) != NULL)
		if (strncasecmp(header, "host:", 5) == 0)
			return true;
	return false;
}

static int
write_request(const struct question *q, struct buf *out)
{
	struct slice authority, target;
	const char *header;
	size_t at = 0;
	int rc;

	split_url(q->url, &authority, &target);
	rc = buf_printf(out, "%s ", q->method) | buf_append_slice(out, target) |
	     buf_printf(out, " HTTP/1.1\r\n");
	if (!names_host(q))
		rc |= buf_printf(out, "Host: ") | buf_append_slice(out, authority) |
		      buf_printf(out, "\r\n");
	while ((header = cli_next_value(q->args, "--header", &at)) != NULL)
		rc |= buf_printf(out, "%s\r\n", header);
	return rc | buf_printf(out, "\r\n");
}

/* Parse as the proxy would; *refusal is not NONE when it would not get as far as a route. */
static void
parse_request(struct slice bytes, const struct config *cfg, struct http_head *head,
    enum http_refusal *refusal)
{
	const struct http_limits limits = { cfg->limits.head, cfg->limits.target,
		cfg->limits.fields };
	struct http_scan scan = { 0 };
	size_t used = 0;

	*refusal = REFUSAL_NONE;
	switch (http_parse_request(&scan, bytes, &limits, head, &used, refusal)) {
	case HTTP_DONE:
		if (used != bytes.n)
			*refusal = REFUSAL_BAD_HEADER;
		return;
	case HTTP_MORE:
		*refusal = REFUSAL_HEAD_TOO_LARGE;
		return;
	case HTTP_BAD:
		return;
	}
}

/* ---- the event ---- */

/* A 200 of a service that echoes the client's correlation ID, or makes one. */
static void
answer_200(struct audit_event *ev, const struct config *cfg)
{
	const struct http_limits limits = { 4096, 4096, HTTP_FIELDS_MAX };
	struct http_scan scan = { 0 };
	struct http_head head;
	enum http_refusal refusal;
	char text[512];
	size_t used;
	int n =
	    snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s: %s\r\n\r\n",
		cfg->correlation_header, ev->correlation[0] != '\0' ? ev->correlation : ev->id);
	struct slice bytes = { text, (size_t)n };

	if (http_parse_response(&scan, bytes, &limits, false, &head, &used, &refusal) == HTTP_DONE)
		event_from_response(
		    ev, &head, slice_of(cfg->correlation_header), cfg->correlation_grammar);
	ev->status = 200;
	ev->from_service = true;
}

static void
make_event(const struct config *cfg, const struct http_head *head, struct answer *a)
{
	static const unsigned char no_random[10] = { 0 };
	const struct event_profile profile = snapshot_profile(cfg, OBSERVER);
	struct audit_event *ev = &a->event;
	int64_t now = clock_wall_ns();
	size_t n;

	*ev = (struct audit_event){ .attempts = 1, .arrival_ns = now };
	event_from_request(
	    ev, head, &a->match, slice_of(cfg->correlation_header), cfg->correlation_grammar);
	identity_from_authorization(event_authorization(head), &ev->identity);
	clock_uuid7(now, no_random, ev->id);
	memcpy(ev->address, CLIENT, sizeof(CLIENT));
	if (a->match.refusal == REFUSAL_NONE) {
		answer_200(ev, cfg);
	} else {
		ev->refusal = a->match.refusal;
		ev->status = refusal_info(a->match.refusal)->status;
	}
	n = event_render(&profile, ev, a->line);
	assert(n < sizeof(a->line) - 1);
	memcpy(a->line + n, "}", 2); /* where the journal adds the trail member */
}

/* ---- printing ---- */

static const char *
yes(bool b)
{
	return b ? "yes" : "no";
}

static void
print_refusal(enum http_refusal r)
{
	const struct refusal_info *i = refusal_info(r);

	printf("answer      %u %s (%s: %s)\n", i->status, http_status_phrase(i->status), i->label,
	    i->text);
}

static int
print_answer(const struct answer *a)
{
	const struct route *r = a->match.route;
	json_t *event = json_loads(a->line, 0, NULL);
	char what[640];
	bool all;

	route_describe(r, what, sizeof(what));
	printf("action      %s\n", r->action);
	printf("route       %s\n", what);
	printf("defined at  %s\n", r->where);
	printf("why         %s\n", a->why);
	printf("matched     %s\n", yes(a->match.matched));
	printf("guarantee   %s\n", guarantee_name(r->guarantee));
	printf("severity    %s (of this event: %s)\n", severity_name(r->severity),
	    severity_name(event_severity(&a->event)));
	printf("data event  %s\n", yes(r->data_event));
	if (a->match.refusal != REFUSAL_NONE)
		print_refusal(a->match.refusal);
	else
		printf("answer      the key service's\n");
	printf("event       as it would be with %s\n",
	    a->match.refusal == REFUSAL_NONE ? "an answer of 200" : "this answer");
	all = event != NULL && json_dumpf(event, stdout, JSON_INDENT(2)) == 0;
	putchar('\n');
	json_decref(event);
	return cli_printed(all);
}

static json_t *
refusal_json(enum http_refusal r)
{
	const struct refusal_info *i = refusal_info(r);

	if (r == REFUSAL_NONE)
		return json_null();
	return json_pack(
	    "{s:i, s:s, s:s}", "status", (int)i->status, "code", i->label, "text", i->text);
}

static int
print_json(json_t *all)
{
	bool whole = all != NULL && json_dumpf(all, stdout, JSON_INDENT(2)) == 0;

	putchar('\n');
	json_decref(all);
	return cli_printed(whole);
}

static int
print_answer_json(const struct answer *a)
{
	const struct route *r = a->match.route;
	char what[640];

	route_describe(r, what, sizeof(what));
	return print_json(json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:o, s:o}", "action",
	    r->action, "route", what, "where", r->where, "why", a->why, "matched", a->match.matched,
	    "guarantee", guarantee_name(r->guarantee), "severity", severity_name(r->severity),
	    "refusal", refusal_json(a->match.refusal), "event", json_loads(a->line, 0, NULL)));
}

/* Such a request never reaches a route. */
static int
print_unparsed(const struct question *q, enum http_refusal r)
{
	if (q->json)
		return print_json(json_pack("{s:n, s:o}", "action", "refusal", refusal_json(r)));
	printf("why         the request cannot be read, so it has no route\n");
	print_refusal(r);
	return cli_printed(true);
}

/* ---- the whole ---- */

static int
explain_head(const struct question *q, const struct config *cfg, const struct http_head *head)
{
	struct answer a;

	route_match(cfg->routes, head, &a.match);
	route_explain(cfg->routes, head, a.why, sizeof(a.why));
	if (a.match.refusal == REFUSAL_NONE && !a.match.matched && cfg->audit.deny_unmatched)
		a.match.refusal = REFUSAL_DENIED;
	make_event(cfg, head, &a);
	return q->json ? print_answer_json(&a) : print_answer(&a);
}

static int
explain_request(const struct question *q, const struct config *cfg)
{
	struct buf request = BUF_INIT;
	struct http_head head;
	enum http_refusal refusal;
	int rc;

	if (write_request(q, &request) == -1) {
		rc = cli_printed(false);
	} else {
		parse_request(buf_slice(&request), cfg, &head, &refusal);
		rc = refusal != REFUSAL_NONE ? print_unparsed(q, refusal)
					     : explain_head(q, cfg, &head);
	}
	buf_fini(&request);
	return rc;
}

static int
explain(const struct cli_args *a)
{
	const struct question q = {
		.file = cli_value(a, "FILE"),
		.method = cli_value(a, "METHOD"),
		.url = cli_value(a, "URL"),
		.args = a,
		.json = cli_value(a, "--json") != NULL,
	};
	struct config *cfg;
	struct err err;
	int rc;

	if (config_load(q.file, NULL, &cfg, &err) == -1)
		return cli_fail(CLI_CONFIG, &err);
	rc = explain_request(&q, cfg);
	config_unref(cfg);
	return rc;
}

const struct cli_command cli_explain = {
	.name = "explain",
	.help = "say which route a request takes, why, and which event it would make",
	.rows =
	    (const struct cli_row[]){
		CLI_ROUTES_FILE(),
		{ "METHOD", .help = "of the request" },
		{ "URL", .help = "its path and query; with scheme and host, or without" },
		{ "--header", "-H", "'NAME: VALUE'", "a header of the request", CLI_MAY | CLI_MANY,
		    0 },
		{ "--json", .help = "as JSON", .flags = CLI_MAY },
		{ 0 },
	    },
	.run = explain,
};
