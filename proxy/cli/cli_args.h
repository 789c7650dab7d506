/*
 * cli_args: a command line, read by the rows of its command (cli.h).
 *
 * A row is given once, unless it may be many times.  Rows of which no form of the command has both go
 * not together, nor do those that an "or" joins; the words and places stand in the order of the rows,
 * options anywhere: --for 5m, --for=5m, -n 5, -n5.
 */
#ifndef KEYTRAIL_CLI_ARGS_H
#define KEYTRAIL_CLI_ARGS_H

#include "cli/cli.h"

struct cli_args {
	const struct cli_command *command;
	struct cli_given {
		const struct cli_row *row;
		const char *value;
	} * given; /* in their order */
	size_t n;
};

/* CLI_OK, and the caller's; else what is wrong stands on standard error. */
int cli_args_parse(struct cli_args *, const struct cli_command *, int argc, char **argv);
void cli_args_fini(struct cli_args *);

bool cli_row_is_option(const struct cli_row *);
bool cli_row_is_word(const struct cli_row *);

#define CLI_SYNOPSIS_SIZE 512

/* The arguments of the i-th form of a command, as in its usage.  False: it has no such form. */
bool cli_synopsis(const struct cli_command *, unsigned i, char text[CLI_SYNOPSIS_SIZE]);

#endif
