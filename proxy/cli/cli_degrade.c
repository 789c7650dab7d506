/* keytrail degrade: break-glass, over the admin socket. */
#include "cli/cli.h"

#include "cli/cli_call.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const options[] = { "--for", "--reason", "--socket", "--end", NULL };

struct args {
	struct cli_socket at;
	const char *time, *reason;
	bool end;
};

/* Where the value of an option goes, or NULL. */
static const char **
value_of(struct args *a, const char *option)
{
	if (strcmp(option, "--for") == 0)
		return &a->time;
	if (strcmp(option, "--reason") == 0)
		return &a->reason;
	return strcmp(option, "--socket") == 0 ? &a->at.path : NULL;
}

static int
parse_args(int argc, char **argv, struct args *a)
{
	*a = (struct args){ 0 };
	for (int i = 1; i < argc; i++) {
		const char **value = value_of(a, argv[i]);

		if (strcmp(argv[i], "--end") == 0)
			a->end = true;
		else if (value != NULL && i + 1 == argc)
			return cli_usage(argv[0], "%s needs a value", argv[i]);
		else if (value != NULL)
			*value = argv[++i];
		else if (argv[i][0] == '-')
			return cli_unknown_option(argv[0], argv[i], options);
		else if (a->at.file != NULL)
			return cli_usage(argv[0], "one file only");
		else
			a->at.file = argv[i];
	}
	if ((a->at.file == NULL) == (a->at.path == NULL))
		return cli_usage(argv[0], "which sidecar? wanted its routes file, or --socket");
	if (a->end == (a->time != NULL && a->reason != NULL))
		return cli_usage(argv[0], "wanted --for and --reason, or --end");
	return CLI_OK;
}

int
cli_degrade(int argc, char **argv)
{
	struct buf form = BUF_INIT, answer = BUF_INIT;
	struct args a;
	struct err err;
	int rc = parse_args(argc, argv, &a);

	if (rc != CLI_OK)
		return rc;
	if (!a.end && (cli_form_add(&form, "for", a.time) == -1 ||
			  cli_form_add(&form, "reason", a.reason) == -1)) {
		err_set(&err, "memory is short");
		rc = cli_fail(CLI_FAILED, &err);
	} else if (cli_call(&a.at, a.end ? "/degrade/end" : "/degrade", &form, &answer, &err) ==
		   -1) {
		rc = cli_fail(CLI_FAILED, &err);
	} else {
		fwrite(buf_slice(&answer).p, 1, buf_size(&answer), stdout);
	}
	buf_fini(&form);
	buf_fini(&answer);
	return rc;
}
