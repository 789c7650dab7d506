/* keytrail hold: what retention may not remove, over the admin socket. */
#include "cli/cli.h"

#include "cli/cli_call.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const options[] = { "--from", "--to", "--socket", NULL };

struct args {
	const char *verb, *name, *from, *to;
	struct cli_socket at;
};

static bool
asks_to(const struct args *a, const char *verb)
{
	return a->verb != NULL && strcmp(a->verb, verb) == 0;
}

static bool
has_name(const struct args *a)
{
	return !asks_to(a, "list") && !asks_to(a, "reset");
}

/* Where the value of an option goes, or NULL. */
static const char **
value_of(struct args *a, const char *option)
{
	if (strcmp(option, "--from") == 0)
		return &a->from;
	if (strcmp(option, "--to") == 0)
		return &a->to;
	return strcmp(option, "--socket") == 0 ? &a->at.path : NULL;
}

/* Where the next argument that is no option goes, or NULL. */
static const char **
place_of(struct args *a)
{
	if (a->verb == NULL)
		return &a->verb;
	if (a->name == NULL && has_name(a))
		return &a->name;
	return a->at.file == NULL ? &a->at.file : NULL;
}

static int
check_args(const char *command, const struct args *a)
{
	bool add = asks_to(a, "add");

	if (!add && !asks_to(a, "remove") && !asks_to(a, "list") && !asks_to(a, "reset"))
		return cli_usage(command, "wanted add, remove, list or reset");
	if (a->name == NULL && has_name(a))
		return cli_usage(command, "which hold? it has a name");
	if ((a->at.file == NULL) == (a->at.path == NULL))
		return cli_usage(command, "which sidecar? wanted its routes file, or --socket");
	if (add != (a->from != NULL) || add != (a->to != NULL))
		return cli_usage(command, "add has --from and --to, the others have not");
	return CLI_OK;
}

static int
parse_args(int argc, char **argv, struct args *a)
{
	*a = (struct args){ 0 };
	for (int i = 1; i < argc; i++) {
		const char **value = value_of(a, argv[i]);

		if (value != NULL && i + 1 == argc)
			return cli_usage(argv[0], "%s needs a value", argv[i]);
		if (value == NULL && argv[i][0] == '-')
			return cli_unknown_option(argv[0], argv[i], options);
		if (value != NULL)
			i++;
		else if ((value = place_of(a)) == NULL)
			return cli_usage(argv[0], "one argument too many");
		*value = argv[i];
	}
	return check_args(argv[0], a);
}

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
list(const struct args *a, struct err *err)
{
	struct buf status = BUF_INIT;
	int rc = cli_call(&a->at, "/status", NULL, &status, err);

	if (rc == 0)
		rc = print_holds(&status, err);
	buf_fini(&status);
	return rc;
}

static int
change(const struct args *a, struct err *err)
{
	struct buf form = BUF_INIT, answer = BUF_INIT;
	bool add = asks_to(a, "add");
	char path[32];
	int rc = a->name != NULL ? cli_form_add(&form, "name", a->name) : 0;

	snprintf(path, sizeof(path), "/hold/%s", a->verb);
	if (rc == 0 && add)
		rc = cli_form_add(&form, "from", a->from);
	if (rc == 0 && add)
		rc = cli_form_add(&form, "to", a->to);
	if (rc == -1)
		err_set(err, "memory is short");
	else
		rc = cli_call(&a->at, path, &form, &answer, err);
	if (rc == 0)
		fwrite(buf_slice(&answer).p, 1, buf_size(&answer), stdout);
	buf_fini(&form);
	buf_fini(&answer);
	return rc;
}

int
cli_hold(int argc, char **argv)
{
	struct args a;
	struct err err;
	int rc = parse_args(argc, argv, &a);

	if (rc != CLI_OK)
		return rc;
	rc = asks_to(&a, "list") ? list(&a, &err) : change(&a, &err);
	return rc == 0 ? CLI_OK : cli_fail(CLI_FAILED, &err);
}
