/*
 * cli_term: text on a terminal, of which no byte is a command to it but our own.
 *
 * What a trail or a sidecar says is shown as text, whoever edited it: control characters and bytes
 * that are no UTF-8 become '?'.
 */
#ifndef KEYTRAIL_CLI_TERM_H
#define KEYTRAIL_CLI_TERM_H

#include "cli/cli.h"

enum cli_style { CLI_PLAIN, CLI_BOLD, CLI_FAINT, CLI_GOOD, CLI_WARN, CLI_BAD };

/* The row of commands that print in colour. */
#define CLI_COLOR                                                                                  \
	{                                                                                          \
		"--color", NULL, "WHEN",                                                           \
		    "`always`, `never` or `auto`: on a terminal, unless NO_COLOR is set", CLI_MAY, \
		    0                                                                              \
	}

/* Whether it prints in colour; or CLI_USAGE. */
int cli_term_colour(const struct cli_args *, bool *colour);

/* Columns that the text takes, each character one. */
int cli_term_width(const char *text);

/* On standard output, padded to `width`; where max is not 0, cut at so many columns. */
void cli_term_put(const char *text, int width, int max, enum cli_style style);

#endif
