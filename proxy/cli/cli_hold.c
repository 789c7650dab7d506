/* keytrail hold: what retention may not remove, over the admin socket. */
#include "cli/cli.h"

#include "cli/cli_call.h"

#include <jansson.h>
#include <stdio.h>

enum { ADD = 1, REMOVE = 2, LIST = 4, RESET = 8 };

static int
print_holds(struct buf *status, struct err *err)
{
	struct slice text = buf_slice(status);
	json_t *root = json_loadb(text.p, text.n, 0, NULL);
	const json_t *holds = json_object_get(root, "holds"), *hold;

	if (!json_is_array(holds)) {
		json_decref(root);
		return err_set(err, "the file `holds` of the trail is damaged, or not the one that "
				    "was written: everything is held");
	}
	for (size_t i = 0; (hold = json_array_get(holds, i)) != NULL; i++)
		printf("%s %" JSON_INTEGER_FORMAT " %" JSON_INTEGER_FORMAT "\n",
		    json_string_value(json_object_get(hold, "name")),
		    json_integer_value(json_object_get(hold, "first")),
		    json_integer_value(json_object_get(hold, "last")));
	json_decref(root);
	return 0;
}

static int
list(const struct cli_socket *at, struct err *err)
{
	struct buf status = BUF_INIT;
	int rc = cli_call(at, "/status", NULL, &status, err);

	if (rc == 0)
		rc = print_holds(&status, err);
	buf_fini(&status);
	return rc;
}

static const char *
page_of(const struct cli_args *a)
{
	if (cli_value(a, "add") != NULL)
		return "/hold/add";
	return cli_value(a, "remove") != NULL ? "/hold/remove" : "/hold/reset";
}

static int
change(const struct cli_args *a, const struct cli_socket *at, struct err *err)
{
	static const struct {
		const char *field, *row;
	} fields[] = { { "name", "NAME" }, { "from", "--from" }, { "to", "--to" } };
	struct buf form = BUF_INIT, answer = BUF_INIT;
	int rc = 0;

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		const char *value = cli_value(a, fields[i].row);

		if (value != NULL)
			rc |= cli_form_add(&form, fields[i].field, value);
	}
	if (rc == -1)
		err_set(err, "memory is short");
	else
		rc = cli_call(at, page_of(a), &form, &answer, err);
	if (rc == 0)
		fwrite(buf_slice(&answer).p, 1, buf_size(&answer), stdout);
	buf_fini(&form);
	buf_fini(&answer);
	return rc;
}

static int
hold(const struct cli_args *a)
{
	const struct cli_socket at = { cli_value(a, "FILE"), cli_value(a, "--socket"), 0 };
	struct err err;
	int rc = cli_value(a, "list") != NULL ? list(&at, &err) : change(a, &at, &err);

	return rc == 0 ? CLI_OK : cli_fail(CLI_FAILED, &err);
}

const struct cli_command cli_hold = {
	.name = "hold",
	.help = "keep a range of events from being removed, until the hold is removed",
	.rows =
	    (const struct cli_row[]){
		{ "add", .help = "hold a range", .forms = ADD },
		{ "remove", .help = "let go of it", .forms = REMOVE },
		{ "list", .help = "print the holds: name, first and last event", .forms = LIST },
		{ "reset", .help = "begin with none, where the file of the holds is damaged",
		    .forms = RESET },
		{ "NAME", .help = "of the hold", .forms = ADD | REMOVE },
		{ "--from", NULL, "SEQ|TIME", "the first event, or its time", 0, ADD },
		{ "--to", NULL, "SEQ|TIME", "the last event, or its time", 0, ADD },
		CLI_SIDECAR,
		{ 0 },
	    },
	.run = hold,
};
