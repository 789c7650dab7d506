#include "cli/cli.h"

#include "keytrail/config.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define COLUMNS 6

enum { LIST = 1, SCHEMA = 2 };

struct row {
	char cells[COLUMNS][640];
};

static const char *const titles[COLUMNS] = { "ACTION", "METHOD", "PATH", "SEVERITY", "GUARANTEE",
	"NOTES" };

static void
add_note(char *notes, size_t n, bool wanted, const char *note)
{
	size_t at = strlen(notes);

	if (wanted)
		snprintf(notes + at, n - at, "%s%s", at > 0 ? ", " : "", note);
}

static void
fill_row(const struct route *r, struct row *row)
{
	char *notes = row->cells[5], what[640];
	const size_t n = sizeof(row->cells[0]);

	route_describe(r, what, sizeof(what));
	snprintf(row->cells[0], n, "%s", r->action);
	snprintf(row->cells[1], n, "%s", r->method);
	snprintf(row->cells[2], n, "%s", what + strlen(r->method) + 1);
	snprintf(row->cells[3], n, "%s", severity_name(r->severity));
	snprintf(row->cells[4], n, "%s", guarantee_name(r->guarantee));
	notes[0] = '\0';
	add_note(notes, n, r->fallback, "fallback");
	add_note(notes, n, !r->data_event, "no data event");
	add_note(notes, n, !r->login, "no login");
	add_note(notes, n, !r->retry, "no retry");
	if (strcmp(r->action, r->action_2019) != 0) {
		snprintf(what, sizeof(what), "2019: %s", r->action_2019);
		add_note(notes, n, true, what);
	}
}

static void
print_cells(const char *const cells[COLUMNS], const size_t widths[COLUMNS])
{
	size_t last = COLUMNS - 1;

	while (last > 0 && cells[last][0] == '\0')
		last--;
	for (size_t c = 0; c < last; c++)
		printf("%-*s  ", (int)widths[c], cells[c]);
	printf("%s\n", cells[last]);
}

static void
print_table(const struct route_table *t)
{
	size_t widths[COLUMNS], n = route_table_size(t);
	struct row row;

	for (size_t c = 0; c < COLUMNS; c++)
		widths[c] = strlen(titles[c]);
	for (size_t i = 0; i < n; i++) {
		fill_row(route_table_get(t, i), &row);
		for (size_t c = 0; c < COLUMNS; c++)
			if (strlen(row.cells[c]) > widths[c])
				widths[c] = strlen(row.cells[c]);
	}
	print_cells(titles, widths);
	for (size_t i = 0; i < n; i++) {
		const char *cells[COLUMNS];

		fill_row(route_table_get(t, i), &row);
		for (size_t c = 0; c < COLUMNS; c++)
			cells[c] = row.cells[c];
		print_cells(cells, widths);
	}
}

static json_t *
route_json(const struct route *r)
{
	char what[640];

	route_describe(r, what, sizeof(what));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:s}", "action",
	    r->action, "action2019", r->action_2019, "method", r->method, "path", r->path, "route",
	    what, "severity", severity_name(r->severity), "guarantee", guarantee_name(r->guarantee),
	    "dataEvent", r->data_event, "login", r->login, "retry", r->retry, "fallback",
	    r->fallback, "where", r->where);
}

static int
print_json(const struct route_table *t)
{
	json_t *all = json_array();
	int rc = -1;

	for (size_t i = 0; all != NULL && i < route_table_size(t); i++)
		if (json_array_append_new(all, route_json(route_table_get(t, i))) == -1)
			goto out;
	if (all != NULL && json_dumpf(all, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) == 0)
		rc = putchar('\n') == EOF ? -1 : 0;
out:
	json_decref(all);
	return rc;
}

static int
print_schema(void)
{
	struct buf text = BUF_INIT;
	bool all = config_schema(&text) == 0 &&
		   fwrite(buf_slice(&text).p, 1, buf_size(&text), stdout) == buf_size(&text);

	buf_fini(&text);
	return cli_printed(all);
}

static int
list_routes(const char *file, bool json)
{
	struct config *cfg;
	struct err err;
	int rc = 0;

	if (config_load(file, NULL, &cfg, &err) == -1)
		return cli_fail(CLI_CONFIG, &err);
	if (json)
		rc = print_json(cfg->routes);
	else
		print_table(cfg->routes);
	config_unref(cfg);
	return cli_printed(rc == 0);
}

static int
routes(const struct cli_args *a)
{
	if (cli_value(a, "--schema") != NULL)
		return print_schema();
	return list_routes(cli_value(a, "FILE"), cli_value(a, "--json") != NULL);
}

const struct cli_command cli_routes = {
	.name = "routes",
	.help = "list the routes of a file, or print the JSON Schema of such files",
	.rows =
	    (const struct cli_row[]){
		CLI_ROUTES_FILE(.forms = LIST),
		{ "--json", .help = "as JSON", .flags = CLI_MAY, .forms = LIST },
		{ "--schema", .help = "the JSON Schema", .forms = SCHEMA },
		{ 0 },
	    },
	.run = routes,
};
