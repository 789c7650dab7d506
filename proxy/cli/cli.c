#include "cli/cli_args.h"

#include "cli/harden.h"
#include "keytrail/nearest.h"

#include <jansson.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_command *const commands[] = {
	&cli_run,
	&cli_check,
	&cli_explain,
	&cli_routes,
	&cli_reference,
	&cli_completion,
	&cli_tail,
	&cli_top,
	&cli_health,
	&cli_degrade,
	&cli_hold,
	&cli_sinks,
	&cli_replay,
	&cli_keygen,
	&cli_rotate_key,
	&cli_verify,
	&cli_proof,
	&cli_version,
};

const struct cli_exit cli_exits[] = {
	{ CLI_OK, "well" },
	{ CLI_FAILED, "failed: a port in use, a trail locked by another process" },
	{ CLI_USAGE, "wrong usage" },
	{ CLI_ALTERED, "verify: altered" },
	{ CLI_INCOMPLETE, "verify: incomplete" },
	{ CLI_CONFIG, "bad configuration, certificates included" },
	{ 0 },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

const struct cli_command *
cli_command_at(size_t i)
{
	return i < COMMANDS ? commands[i] : NULL;
}

static void
print_forms(FILE *to, const char *before, const struct cli_command *c)
{
	char text[CLI_SYNOPSIS_SIZE];

	for (unsigned i = 0; cli_synopsis(c, i, text); i++)
		fprintf(
		    to, "%skeytrail %s%s%s\n", before, c->name, text[0] != '\0' ? " " : "", text);
}

static void
print_help(FILE *to)
{
	fprintf(to, "usage: keytrail COMMAND ...\n\n");
	for (size_t i = 0; i < COMMANDS; i++) {
		print_forms(to, "  ", commands[i]);
		fprintf(to, "      %s\n", commands[i]->help);
	}
	fprintf(to, "\nexit status:\n");
	for (const struct cli_exit *e = cli_exits; e->means != NULL; e++)
		fprintf(to, "  %-4d%s\n", e->status, e->means);
}

static int
print_command_help(const struct cli_command *c)
{
	printf("%s\n\n", c->help);
	print_forms(stdout, "  ", c);
	for (const struct cli_row *r = c->rows; r->name != NULL; r++)
		printf("%s  %s%s%s%s%s\n      %s\n", r == c->rows ? "\n" : "",
		    r->letter != NULL ? r->letter : "", r->letter != NULL ? ", " : "", r->name,
		    r->value != NULL ? " " : "", r->value != NULL ? r->value : "", r->help);
	return cli_printed(true);
}

static const struct cli_command *
find(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(name, commands[i]->name) == 0 ||
		    (commands[i]->alias != NULL && strcmp(name, commands[i]->alias) == 0))
			return commands[i];
	return NULL;
}

static const char *
command_name(const void *list, size_t i)
{
	return ((const struct cli_command *const *)list)[i]->name;
}

static bool
asks_for_help(const char *arg)
{
	return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0 || strcmp(arg, "help") == 0;
}

/* jansson (2.14) crashes over a string for which it has no memory, or calls it a wrong one. */
static void *
allocate_json(size_t n)
{
	void *p = malloc(n);

	if (p == NULL) {
		fprintf(stderr, "memory is short\n");
		exit(CLI_FAILED);
	}
	return p;
}

static int
run(const struct cli_command *command, int argc, char **argv)
{
	struct cli_args args;
	struct err err;
	int rc;

	if ((rc = cli_args_parse(&args, command, argc, argv)) != CLI_OK)
		return rc;
	json_set_alloc_funcs(allocate_json, free);
	rc = harden_process(&err) == -1 ? cli_fail(CLI_FAILED, &err) : command->run(&args);
	cli_args_fini(&args);
	return rc;
}

int
cli_main(int argc, char **argv)
{
	const struct cli_command *command;
	const char *near;

	if (argc < 2) {
		print_help(stderr);
		return CLI_USAGE;
	}
	if (asks_for_help(argv[1])) {
		print_help(stdout);
		return cli_printed(true);
	}
	if ((command = find(argv[1])) == NULL) {
		near = nearest_word(argv[1], command_name, commands, COMMANDS);
		fprintf(stderr, "keytrail: no command \"%s\"; ", argv[1]);
		if (near != NULL)
			fprintf(stderr, "did you mean \"%s\"?\n", near);
		else
			fprintf(stderr, "\"keytrail help\" lists them\n");
		return CLI_USAGE;
	}
	if (argc > 2 && asks_for_help(argv[2]))
		return print_command_help(command);
	return run(command, argc - 1, argv + 1);
}

int
cli_printed(bool all)
{
	if (all && fflush(stdout) == 0 && !ferror(stdout))
		return CLI_OK;
	fprintf(stderr, "standard output cannot be written, or memory is short\n");
	return CLI_FAILED;
}

int
cli_fail(enum cli_status status, const struct err *err)
{
	fflush(stdout); /* what was found before is read before */
	fprintf(stderr, "%s\n", err->msg);
	return status;
}
