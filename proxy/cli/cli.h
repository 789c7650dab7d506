/*
 * cli: the subcommands of the program, one file and one row each.
 *
 * What a command takes is a list of rows; from them come the reading of its command line, its usage
 * and its help.  A command prints results on standard output and errors, one line each, on standard
 * error, and returns an exit status.
 */
#ifndef KEYTRAIL_CLI_H
#define KEYTRAIL_CLI_H

#include "keytrail/err.h"

#include <stdbool.h>
#include <stddef.h>

enum cli_status {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_ALTERED = 3,    /* verify: something is not what was signed */
	CLI_INCOMPLETE = 4, /* verify: something is missing */
	CLI_CONFIG = 78,    /* EX_CONFIG of sysexits.h */
};

struct cli_exit {
	enum cli_status status;
	const char *means;
};

extern const struct cli_exit cli_exits[]; /* the last means nothing */

enum {
	CLI_MAY = 1,	 /* may be left out */
	CLI_MANY = 2,	 /* may be given more than once */
	CLI_OR = 4,	 /* or the row before: one of them */
	CLI_DEFAULT = 8, /* a routes file: where it is left out, KEYTRAIL_CONFIG names it */
};

/* What a command takes.  By its name an option ("--for"), what stands in this place ("FILE"), or
 * this very word ("add"). */
struct cli_row {
	const char *name;
	const char *letter; /* of an option: "-f", or NULL */
	const char *value;  /* of an option: what its value is called; NULL: it has none */
	const char *help;
	unsigned flags;
	unsigned forms; /* the forms of the command that have it, a bit each; 0: all */
};

#define CLI_ROUTES_FILE(...)                                                                       \
	{                                                                                          \
		"FILE", .help = "the routes file; left out, the one that KEYTRAIL_CONFIG names",   \
			.flags = CLI_DEFAULT, __VA_ARGS__                                          \
	}
/* A running sidecar. */
#define CLI_SIDECAR                                                                                \
	CLI_ROUTES_FILE(),                                                                         \
	{                                                                                          \
		"--socket", NULL, "PATH", "the sidecar's `admin.socket`, without its routes file", \
		    CLI_OR, 0                                                                      \
	}

struct cli_args;

struct cli_command {
	const char *name;
	const char *alias; /* or NULL */
	const char *help;
	const struct cli_row *rows; /* the last has no name */
	int (*run)(const struct cli_args *);
};

extern const struct cli_command cli_run, cli_check, cli_explain, cli_routes, cli_reference,
    cli_completion, cli_tail, cli_top, cli_health, cli_degrade, cli_hold, cli_sinks, cli_replay,
    cli_keygen, cli_rotate_key, cli_verify, cli_proof, cli_version;

/* The i-th of them, or NULL. */
const struct cli_command *cli_command_at(size_t i);

/* The whole program. */
int cli_main(int argc, char **argv);

/* ---- for commands ---- */

/* The value of the row of this name, "" where it has none; NULL: it was left out. */
const char *cli_value(const struct cli_args *, const char *name);
/* The next value of a row that may be given often, from *at on, which begins with 0; or NULL. */
const char *cli_next_value(const struct cli_args *, const char *name, size_t *at);

/* "keytrail <command>: <message>" and the command's usage on standard error; returns CLI_USAGE. */
int cli_usage(const struct cli_args *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The message on standard error; returns the status. */
int cli_fail(enum cli_status status, const struct err *err);

/* After the last of what a command prints: CLI_OK, or the reason on standard error, if not all of it
 * could be made or written, and CLI_FAILED. */
int cli_printed(bool all);

#endif
