/*
 * cli: the subcommands of the program, one table row and one file each.
 *
 * A command gets its own argv: argv[0] is its name.  It prints results on standard output and
 * errors, one line each, on standard error, and returns an exit status.
 */
#ifndef KEYTRAIL_CLI_H
#define KEYTRAIL_CLI_H

#include "keytrail/err.h"

#include <stdbool.h>

enum cli_status {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_ALTERED = 3,    /* verify: something is not what was signed */
	CLI_INCOMPLETE = 4, /* verify: something is missing */
	CLI_CONFIG = 78,    /* EX_CONFIG of sysexits.h */
};

struct cli_command {
	const char *name;
	const char *alias; /* or NULL */
	const char *usage; /* arguments */
	const char *help;
	int (*run)(int argc, char **argv);
};

/* The whole program. */
int cli_main(int argc, char **argv);

/* "keytrail <command>: <message>" and the command's usage on standard error; returns CLI_USAGE. */
int cli_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* An option that the command does not have, with the nearest that it has.  NULL ends the list. */
int cli_unknown_option(const char *command, const char *option, const char *const *known);

/* The message on standard error; returns the status. */
int cli_fail(enum cli_status status, const struct err *err);

/* After the last of what a command prints: CLI_OK, or the reason on standard error, if not all of it
 * could be made or written, and CLI_FAILED. */
int cli_printed(bool all);

int cli_run(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_explain(int argc, char **argv);
int cli_routes(int argc, char **argv);
int cli_reference(int argc, char **argv);
int cli_tail(int argc, char **argv);
int cli_degrade(int argc, char **argv);
int cli_hold(int argc, char **argv);
int cli_keygen(int argc, char **argv);
int cli_rotate_key(int argc, char **argv);
int cli_proof(int argc, char **argv);
int cli_verify(int argc, char **argv);
int cli_version(int argc, char **argv);

#endif
