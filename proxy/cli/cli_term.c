#include "cli/cli_term.h"

#include "keytrail/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const codes[] = {
	[CLI_PLAIN] = "",
	[CLI_BOLD] = "\x1b[1m",
	[CLI_FAINT] = "\x1b[2m",
	[CLI_GOOD] = "\x1b[32m",
	[CLI_WARN] = "\x1b[33m",
	[CLI_BAD] = "\x1b[1;31m",
};

/* See no-color.org. */
static bool
wants_colour(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && (no == NULL || no[0] == '\0') && term != NULL &&
	       strcmp(term, "dumb") != 0;
}

int
cli_term_colour(const struct cli_args *a, bool *colour)
{
	const char *when = cli_value(a, "--color");

	if (when == NULL || strcmp(when, "auto") == 0)
		*colour = wants_colour();
	else if (strcmp(when, "always") == 0 || strcmp(when, "never") == 0)
		*colour = when[0] == 'a';
	else
		return cli_usage(a, "--color wants always, never or auto");
	return CLI_OK;
}

/* The length of the character at s, and whether it may be shown. */
static size_t
next_character(const char *s, bool *shown)
{
	uint32_t cp;
	size_t n = utf8_decode(s, strnlen(s, 4), &cp);

	*shown =
	    n > 0 && cp >= 0x20 && (cp < 0x7f || cp > 0x9f); /* U+009B begins one as ESC [ does */
	return n > 0 ? n : 1;
}

int
cli_term_width(const char *text)
{
	bool shown;
	int width = 0;

	for (; *text != '\0'; text += next_character(text, &shown))
		width++;
	return width;
}

void
cli_term_put(const char *text, int width, int max, enum cli_style style)
{
	int used = 0;

	fputs(codes[style], stdout);
	for (; *text != '\0' && (max == 0 || used < max); used++) {
		bool shown;
		size_t n = next_character(text, &shown);

		fwrite(shown ? text : "?", 1, shown ? n : 1, stdout);
		text += n;
	}
	if (style != CLI_PLAIN)
		fputs("\x1b[0m", stdout);
	if (width > used)
		printf("%*s", width - used, "");
}
