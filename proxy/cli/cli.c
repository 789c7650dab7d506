#include "cli/cli.h"

#include "cli/harden.h"
#include "keytrail/nearest.h"

#include <jansson.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_command commands[] = {
	{ "run", NULL, "FILE", "run the sidecar with this routes file, until TERM", cli_run },
	{ "check", "-t", "FILE [--environment]",
	    "say whether a routes file is good; with --environment also its files and addresses",
	    cli_check },
	{ "explain", NULL, "FILE METHOD URL [-H 'NAME: VALUE']... [--json]",
	    "say which route a request takes, why, and which event it would make", cli_explain },
	{ "routes", NULL, "FILE [--json] | --schema",
	    "list the routes of a file; print the JSON Schema of such files", cli_routes },
	{ "reference", NULL, "routes | metrics | refusals",
	    "print a chapter of the manual, as Markdown", cli_reference },
	{ "tail", NULL, "DIR [-f] [-n N] [--json]",
	    "print the last events of a trail as a table, or as they are; -f follows", cli_tail },
	{ "degrade", NULL, "FILE|--socket PATH (--for TIME --reason TEXT | --end)",
	    "have a running sidecar serve every route as `async` for a while (break-glass); end it",
	    cli_degrade },
	{ "hold", NULL,
	    "add|remove|list|reset [NAME] [--from SEQ|TIME --to SEQ|TIME] FILE|--socket PATH",
	    "keep a range of events from being removed, until the hold is removed", cli_hold },
	{ "keygen", NULL, "FILE NAME",
	    "make a key that signs the trail's checkpoints; print the key that verifies them",
	    cli_keygen },
	{ "rotate-key", NULL, "DIR OLD NEW",
	    "let the key that signs a trail (file OLD) hand over to another (file NEW) at the next "
	    "start with that one; print the key that verifies from then on",
	    cli_rotate_key },
	{ "verify", NULL,
	    "DIR --key VKEY|FILE... [--since CHECKPOINT] [--anchors FILE] [--json] | --proof FILE "
	    "--line FILE --key VKEY|FILE",
	    "say whether a trail is what was signed and whether all of it is there; or whether one "
	    "line is the one that was signed",
	    cli_verify },
	{ "proof", NULL, "DIR SEQ [PREFIX]",
	    "write an event and the proof that it is in the log: PREFIX.json and PREFIX.tlog-proof",
	    cli_proof },
	{ "version", "--version", "", "print the versions of keytrail and of what it is built with",
	    cli_version },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void
print_help(FILE *to)
{
	fprintf(to, "usage: keytrail COMMAND ...\n\n");
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(to, "  keytrail %s%s%s\n      %s\n", commands[i].name,
		    commands[i].usage[0] != '\0' ? " " : "", commands[i].usage, commands[i].help);
	fprintf(to,
	    "\nexit status: 0 well, 1 failed, 2 wrong usage, 78 bad configuration; of verify also "
	    "3 altered, 4 incomplete\n");
}

static const struct cli_command *
find(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(name, commands[i].name) == 0 ||
		    (commands[i].alias != NULL && strcmp(name, commands[i].alias) == 0))
			return &commands[i];
	return NULL;
}

static const char *
command_name(const void *list, size_t i)
{
	return ((const struct cli_command *)list)[i].name;
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

int
cli_main(int argc, char **argv)
{
	const struct cli_command *command;
	const char *near;
	struct err err;

	if (argc < 2) {
		print_help(stderr);
		return CLI_USAGE;
	}
	if (asks_for_help(argv[1])) {
		print_help(stdout);
		return CLI_OK;
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
	if (argc > 2 && asks_for_help(argv[2])) {
		printf("usage: keytrail %s %s\n%s\n", command->name, command->usage, command->help);
		return CLI_OK;
	}
	if (harden_process(&err) == -1)
		return cli_fail(CLI_FAILED, &err);
	json_set_alloc_funcs(allocate_json, free);
	return command->run(argc - 1, argv + 1);
}

int
cli_usage(const char *command, const char *fmt, ...)
{
	const struct cli_command *c = find(command);
	va_list ap;

	fprintf(stderr, "keytrail %s: ", command);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nusage: keytrail %s %s\n", command, c != NULL ? c->usage : "");
	return CLI_USAGE;
}

static const char *
option_name(const void *list, size_t i)
{
	return ((const char *const *)list)[i];
}

int
cli_unknown_option(const char *command, const char *option, const char *const *known)
{
	const char *near;
	size_t n = 0;

	while (known[n] != NULL)
		n++;
	near = nearest_word(option, option_name, known, n);
	if (near != NULL)
		return cli_usage(command, "no option \"%s\"; did you mean \"%s\"?", option, near);
	return cli_usage(command, "no option \"%s\"", option);
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
