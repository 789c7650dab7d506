/* keytrail sinks: how far each sink is, of a running sidecar or in the files of one that does not run. */
#include "cli/cli.h"

#include "cli/cli_call.h"
#include "keytrail/config.h"
#include "keytrail/publisher.h"
#include "keytrail/trail.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* One sink, as --json prints it. */
static json_t *
row(const char *name, const char *type, const char *state, json_t *cursor, json_t *lag,
    json_t *oldest, const char *error)
{
	return json_pack("{s:s,s:s,s:s,s:o,s:o,s:o,s:s}", "name", name, "type", type, "state",
	    state, "cursor", cursor, "lag", lag, "oldestSeconds", oldest, "lastError", error);
}

/* ---- of a running sidecar ---- */

static json_t *
rows_of_status(const json_t *status)
{
	const json_t *sinks = json_object_get(status, "sinks"), *sink;
	json_t *rows = json_array();

	for (size_t i = 0; (sink = json_array_get(sinks, i)) != NULL; i++)
		json_array_append_new(
		    rows, row(json_string_value(json_object_get(sink, "name")),
			      json_string_value(json_object_get(sink, "type")),
			      json_is_true(json_object_get(sink, "up")) ? "up" : "down",
			      json_incref(json_object_get(sink, "position")),
			      json_incref(json_object_get(sink, "waiting")),
			      json_incref(json_object_get(sink, "oldestSeconds")),
			      json_string_value(json_object_get(sink, "lastError"))));
	return rows;
}

static json_t *
ask(const struct cli_socket *at, struct err *err)
{
	struct buf answer = BUF_INIT;
	json_t *status = NULL, *rows = NULL;

	if (cli_call(at, "/status", NULL, &answer, err) == 0 &&
	    (status = json_loadb(buf_slice(&answer).p, buf_size(&answer), 0, NULL)) == NULL)
		err_set(err, "the answer cannot be read");
	if (status != NULL)
		rows = rows_of_status(status);
	json_decref(status);
	buf_fini(&answer);
	return rows;
}

/* ---- of its files ---- */

static int
read_durable(int dirfd, uint64_t *durable, struct err *err)
{
	struct trail_reader *r;

	if (trail_reader_open_at(dirfd, 0, &r, err) == -1)
		return -1;
	*durable = trail_reader_durable(r);
	trail_reader_close(r);
	return 0;
}

static json_t *
look(const struct config *c, int dirfd, const char *state, struct err *err)
{
	json_t *rows;
	uint64_t durable, at;

	if (read_durable(dirfd, &durable, err) == -1)
		return NULL;
	rows = json_array();
	for (size_t i = 0; i < c->nsinks; i++) {
		const struct config_sink *s = &c->sinks[i];
		bool known = publisher_position(dirfd, s->name, &at);

		json_array_append_new(
		    rows, row(s->name, config_sink_type_name(s->type), known ? state : "new",
			      known ? json_integer((json_int_t)at) : json_null(),
			      known ? json_integer((json_int_t)(at < durable ? durable - at : 0))
				    : json_null(),
			      json_null(), ""));
	}
	return rows;
}

/* Nobody else writes the trail, and nobody begins to while dirfd is open. */
static bool
lock(int dirfd)
{
	return flock(dirfd, LOCK_EX | LOCK_NB) == 0;
}

static int
open_trail(const struct config *c, struct err *err)
{
	int dirfd = open(c->audit.trail, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return dirfd == -1 ? err_set_errno(err, "%s: open", c->audit.trail) : dirfd;
}

static json_t *
read_rows(const struct cli_socket *at, struct err *err)
{
	struct config *c;
	json_t *rows = NULL;
	int dirfd;

	if (at->path != NULL)
		return ask(at, err);
	if (config_load(at->file, NULL, &c, err) == -1)
		return NULL;
	if ((dirfd = open_trail(c, err)) != -1) {
		if (lock(dirfd))
			rows = look(c, dirfd, "stopped", err);
		else if (c->admin.socket != NULL)
			rows = ask(at, err);
		else
			rows = look(c, dirfd, "running", err);
		close(dirfd);
	}
	config_unref(c);
	return rows;
}

/* ---- printing ---- */

static void
print_number(const json_t *v, int width)
{
	if (json_is_integer(v))
		printf(" %*" JSON_INTEGER_FORMAT, width, json_integer_value(v));
	else if (json_is_real(v))
		printf(" %*.1f", width, json_real_value(v));
	else
		printf(" %*s", width, "-");
}

static void
print_table(const json_t *rows)
{
	const json_t *r;

	printf("%-16s %-8s %-8s %12s %10s %9s  %s\n", "NAME", "TYPE", "STATE", "CURSOR", "LAG",
	    "OLDEST S", "LAST ERROR");
	for (size_t i = 0; (r = json_array_get(rows, i)) != NULL; i++) {
		printf("%-16s %-8s %-8s", json_string_value(json_object_get(r, "name")),
		    json_string_value(json_object_get(r, "type")),
		    json_string_value(json_object_get(r, "state")));
		print_number(json_object_get(r, "cursor"), 12);
		print_number(json_object_get(r, "lag"), 10);
		print_number(json_object_get(r, "oldestSeconds"), 9);
		printf("  %s\n", json_string_value(json_object_get(r, "lastError")));
	}
}

static int
sinks(const struct cli_args *a)
{
	const struct cli_socket at = { cli_value(a, "FILE"), cli_value(a, "--socket"), 0 };
	struct err err = { "memory is short" };
	json_t *rows = read_rows(&at, &err);

	if (rows == NULL)
		return cli_fail(CLI_FAILED, &err);
	if (cli_value(a, "--json") == NULL)
		print_table(rows);
	else if (json_dumpf(rows, stdout, JSON_COMPACT | JSON_SORT_KEYS) == 0)
		putchar('\n');
	json_decref(rows);
	return cli_printed(true);
}

const struct cli_command cli_sinks = {
	.name = "sinks",
	.help = "print of each sink whether it is up, how far it is and what went wrong last; of a "
		"sidecar that does not run, what its files say",
	.rows =
	    (const struct cli_row[]){
		CLI_SIDECAR,
		{ "--json", .help = "as JSON", .flags = CLI_MAY },
		{ 0 },
	    },
	.run = sinks,
};

/* ---- keytrail replay ---- */

static int
ask_replay(const struct cli_socket *at, const char *sink, const char *from, struct err *err)
{
	struct buf form = BUF_INIT, answer = BUF_INIT;
	int rc;

	if (cli_form_add(&form, "sink", sink) == -1 || cli_form_add(&form, "from", from) == -1)
		rc = err_set(err, "memory is short");
	else if ((rc = cli_call(at, "/sinks/replay", &form, &answer, err)) == 0)
		fwrite(buf_slice(&answer).p, 1, buf_size(&answer), stdout);
	buf_fini(&form);
	buf_fini(&answer);
	return rc;
}

static int
rewind_file(const struct config *c, int dirfd, const char *sink, const char *from, struct err *err)
{
	uint64_t first;
	size_t i = 0;

	while (i < c->nsinks && strcmp(c->sinks[i].name, sink) != 0)
		i++;
	if (i == c->nsinks)
		return err_set(err, "there is no sink \"%s\"", sink);
	if (publisher_rewind(dirfd, sink, from, &first, err) == -1)
		return -1;
	printf(PUBLISHER_REPLAY_TEXT, sink, first);
	return 0;
}

static int
replay_of_file(const struct cli_socket *at, const char *sink, const char *from, struct err *err)
{
	struct config *c;
	int dirfd, rc = -1;
	bool runs;

	if (config_load(at->file, NULL, &c, err) == -1)
		return -1;
	if ((dirfd = open_trail(c, err)) != -1) {
		runs = !lock(dirfd);
		rc =
		    runs ? ask_replay(at, sink, from, err) : rewind_file(c, dirfd, sink, from, err);
		close(dirfd);
	}
	config_unref(c);
	return rc;
}

static int
replay(const struct cli_args *a)
{
	const struct cli_socket at = { cli_value(a, "FILE"), cli_value(a, "--socket"), 0 };
	const char *sink = cli_value(a, "--sink"), *from = cli_value(a, "--from");
	struct err err;
	int rc = at.path != NULL ? ask_replay(&at, sink, from, &err)
				 : replay_of_file(&at, sink, from, &err);

	return rc == 0 ? cli_printed(true) : cli_fail(CLI_FAILED, &err);
}

const struct cli_command cli_replay = {
	.name = "replay",
	.help =
	    "have a sink delivered once more what the trail holds from an event on; who received "
	    "it before can tell by log, boot and number",
	.rows =
	    (const struct cli_row[]){
		CLI_SIDECAR,
		{ "--sink", NULL, "NAME", "which one", 0, 0 },
		{ "--from", NULL, "SEQ|TIME", "the first event, or when it was written", 0, 0 },
		{ 0 },
	    },
	.run = replay,
};
