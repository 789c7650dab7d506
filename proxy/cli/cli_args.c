#include "cli/cli_args.h"

#include "keytrail/nearest.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parsing {
	struct cli_args *args;
	const struct cli_row *place; /* of the next argument that is no option, at the earliest */
	unsigned forms;		     /* that have all that was given so far */
};

bool
cli_row_is_option(const struct cli_row *r)
{
	return r->name[0] == '-';
}

bool
cli_row_is_word(const struct cli_row *r)
{
	return islower((unsigned char)r->name[0]);
}

static unsigned
forms_of(const struct cli_row *r)
{
	return r->forms != 0 ? r->forms : ~0U;
}

static unsigned
all_forms(const struct cli_command *c)
{
	unsigned all = 0;

	for (const struct cli_row *r = c->rows; r->name != NULL; r++)
		all |= r->forms;
	return all != 0 ? all : 1;
}

static const char *
default_file(void)
{
	const char *file = getenv("KEYTRAIL_CONFIG");

	return file != NULL && file[0] != '\0' ? file : NULL;
}

/* Behind the rows that an "or" joins to this one. */
static const struct cli_row *
next_group(const struct cli_row *r)
{
	do
		r++;
	while (r->name != NULL && r->flags & CLI_OR);
	return r;
}

/* ---- usage ---- */

static void
add_text(char text[CLI_SYNOPSIS_SIZE], const char *before, const char *s, const char *after)
{
	size_t at = strlen(text);
	int n = snprintf(text + at, CLI_SYNOPSIS_SIZE - at, "%s%s%s", before, s, after);

	assert(n >= 0 && (size_t)n < CLI_SYNOPSIS_SIZE - at);
}

static void
add_alternatives(char text[CLI_SYNOPSIS_SIZE], const struct cli_row *r)
{
	for (const struct cli_row *i = r, *end = next_group(r); i < end; i++) {
		add_text(text, i > r ? " | " : "", i->name, "");
		if (i->value != NULL)
			add_text(text, " ", i->value, "");
	}
}

static void
add_group(char text[CLI_SYNOPSIS_SIZE], const struct cli_row *r)
{
	bool may = r->flags & (CLI_MAY | CLI_DEFAULT), joined = !may && next_group(r) > r + 1;

	add_text(text, text[0] != '\0' ? " " : "", may ? "[" : joined ? "(" : "", "");
	add_alternatives(text, r);
	add_text(text, may ? "]" : joined ? ")" : "", r->flags & CLI_MANY ? "..." : "", "");
}

bool
cli_synopsis(const struct cli_command *c, unsigned i, char text[CLI_SYNOPSIS_SIZE])
{
	if ((all_forms(c) >> i & 1) == 0)
		return false;
	text[0] = '\0';
	for (const struct cli_row *r = c->rows; r->name != NULL; r = next_group(r))
		if (forms_of(r) >> i & 1)
			add_group(text, r);
	return true;
}

int
cli_usage(const struct cli_args *a, const char *fmt, ...)
{
	char text[CLI_SYNOPSIS_SIZE];
	va_list ap;

	fprintf(stderr, "keytrail %s: ", a->command->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	for (unsigned i = 0; cli_synopsis(a->command, i, text); i++)
		fprintf(stderr, "\n%s keytrail %s %s", i == 0 ? "usage:" : "      ",
		    a->command->name, text);
	fputc('\n', stderr);
	return CLI_USAGE;
}

/* ---- what is given ---- */

static bool
is_joined(const struct cli_row *a, const struct cli_row *b)
{
	const struct cli_row *first = a < b ? a : b, *last = a < b ? b : a;

	return first != last && last < next_group(first);
}

/* The row of what is given. */
static int
settle(struct parsing *p, struct cli_given *given, const struct cli_row *r)
{
	const struct cli_args *a = p->args;

	for (size_t i = 0; i < a->n; i++) {
		const struct cli_row *other = a->given[i].row;

		if (other == NULL)
			continue;
		if (other == r && !(r->flags & CLI_MANY))
			return cli_usage(a, "%s is given twice", r->name);
		if (is_joined(other, r) || (forms_of(other) & forms_of(r)) == 0)
			return cli_usage(a, "%s does not go with %s", r->name, other->name);
	}
	p->forms &= forms_of(r);
	assert(p->forms != 0); /* the rows of a command exclude one another in pairs */
	given->row = r;
	return CLI_OK;
}

/* ---- options ---- */

/* Whether this is the option; *value is what stands with it in one argument, or NULL. */
static bool
is_option(const struct cli_row *r, const char *text, const char **value)
{
	size_t n = strlen(r->name);

	*value = NULL;
	if (strcmp(text, r->name) == 0 || (r->letter != NULL && strcmp(text, r->letter) == 0))
		return true;
	if (r->value == NULL)
		return false;
	if (strncmp(text, r->name, n) == 0 && text[n] == '=')
		*value = text + n + 1;
	else if (r->letter != NULL && strncmp(text, r->letter, 2) == 0)
		*value = text + 2;
	return *value != NULL;
}

static const char *
option_name(const void *rows, size_t i)
{
	const struct cli_row *r = (const struct cli_row *)rows + i;

	return cli_row_is_option(r) ? r->name : "";
}

static const char *
word_name(const void *rows, size_t i)
{
	const struct cli_row *r = (const struct cli_row *)rows + i;

	return cli_row_is_word(r) ? r->name : "";
}

static int
unknown(const struct cli_args *a, const char *what, const char *text, nearest_get_fn get)
{
	const char *near;
	size_t n = 0;

	while (a->command->rows[n].name != NULL)
		n++;
	if ((near = nearest_word(text, get, a->command->rows, n)) != NULL)
		return cli_usage(a, "no %s \"%s\"; did you mean \"%s\"?", what, text, near);
	return cli_usage(a, "no %s \"%s\"", what, text);
}

/* *after is the argument behind it, or NULL; it becomes NULL where it was not taken. */
static int
take_option(struct parsing *p, const char *text, const char **after)
{
	struct cli_given *given = &p->args->given[p->args->n];
	const char *next = *after;
	const struct cli_row *r = p->args->command->rows;

	*after = NULL;
	while (r->name != NULL && !(cli_row_is_option(r) && is_option(r, text, &given->value)))
		r++;
	if (r->name == NULL)
		return unknown(p->args, "option", text, option_name);
	if (r->value == NULL)
		given->value = "";
	else if (given->value == NULL && (given->value = *after = next) == NULL)
		return cli_usage(p->args, "%s wants %s", text, r->value);
	if (settle(p, given, r) != CLI_OK)
		return CLI_USAGE;
	p->args->n++;
	return CLI_OK;
}

static bool
is_place(const char *text)
{
	return text[0] != '-' || text[1] == '\0'; /* "-": standard input */
}

/* Options are settled, what has a place is only kept: a form may depend on an option behind it. */
static int
take_all(struct parsing *p, int argc, char **argv)
{
	struct cli_args *a = p->args;

	for (int i = 1; i < argc; i++) {
		const char *after = i + 1 < argc ? argv[i + 1] : NULL;

		if (is_place(argv[i]))
			a->given[a->n++].value = argv[i];
		else if (take_option(p, argv[i], &after) != CLI_OK)
			return CLI_USAGE;
		else
			i += after != NULL;
	}
	return CLI_OK;
}

/* ---- words and places ---- */

static bool
is_open(const struct parsing *p, const struct cli_row *r)
{
	return !cli_row_is_option(r) && forms_of(r) & p->forms;
}

static int
take_word(struct parsing *p, struct cli_given *given)
{
	const struct cli_row *word = NULL;

	assert(given->value != NULL);
	for (; p->place->name != NULL && cli_row_is_word(p->place); p->place++)
		if (strcmp(p->place->name, given->value) == 0)
			word = p->place;
	if (word == NULL)
		return unknown(p->args, "word", given->value, word_name);
	return settle(p, given, word);
}

static int
take_place(struct parsing *p, struct cli_given *given)
{
	while (p->place->name != NULL && !is_open(p, p->place))
		p->place++;
	if (p->place->name == NULL)
		return cli_usage(p->args, "what is \"%s\"?", given->value);
	if (cli_row_is_word(p->place))
		return take_word(p, given);
	return settle(p, given, p->place++);
}

/* Where the routes file stands first and is left out, the others move up. */
static void
skip_default(struct parsing *p)
{
	const struct cli_row *rows = p->args->command->rows;
	size_t places = 0;

	if (!(rows->flags & CLI_DEFAULT) || default_file() == NULL)
		return;
	for (const struct cli_row *r = rows; r->name != NULL; r++)
		places += !cli_row_is_option(r);
	for (size_t i = 0; i < p->args->n; i++)
		places -= p->args->given[i].row == NULL && places > 0;
	if (places > 0)
		p->place++;
}

static int
place_all(struct parsing *p)
{
	skip_default(p);
	for (size_t i = 0; i < p->args->n; i++)
		if (p->args->given[i].row == NULL && take_place(p, &p->args->given[i]) != CLI_OK)
			return CLI_USAGE;
	return CLI_OK;
}

/* ---- the whole ---- */

/* One of the rows that an "or" joins to this one. */
static bool
is_given(const struct cli_args *a, const struct cli_row *r)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->given[i].row >= r && a->given[i].row < next_group(r))
			return true;
	return false;
}

static bool
is_there(const struct cli_args *a, const struct cli_row *r)
{
	return r->flags & CLI_MAY || (r->flags & CLI_DEFAULT && default_file() != NULL) ||
	       is_given(a, r);
}

/* What the form lacks, or NULL. */
static const struct cli_row *
missing(const struct cli_args *a, unsigned form)
{
	for (const struct cli_row *r = a->command->rows; r->name != NULL; r = next_group(r))
		if (forms_of(r) & form && !is_there(a, r))
			return r;
	return NULL;
}

static int
check_form(const struct parsing *p)
{
	const struct cli_row *r, *first = NULL;
	char text[CLI_SYNOPSIS_SIZE] = "";

	for (unsigned form = 1; form != 0; form <<= 1) {
		if (!(p->forms & form))
			continue;
		if ((r = missing(p->args, form)) == NULL)
			return CLI_OK;
		if (first == NULL)
			first = r;
	}
	add_alternatives(text, first);
	return cli_usage(p->args, "wanted %s", text);
}

int
cli_args_parse(struct cli_args *a, const struct cli_command *c, int argc, char **argv)
{
	struct parsing p = { a, c->rows, all_forms(c) };

	*a = (struct cli_args){ .command = c };
	if ((a->given = calloc((size_t)argc, sizeof(*a->given))) == NULL) {
		fprintf(stderr, "memory is short\n");
		return CLI_FAILED;
	}
	if (take_all(&p, argc, argv) != CLI_OK || place_all(&p) != CLI_OK ||
	    check_form(&p) != CLI_OK) {
		cli_args_fini(a);
		return CLI_USAGE;
	}
	return CLI_OK;
}

void
cli_args_fini(struct cli_args *a)
{
	free(a->given);
	a->given = NULL;
}

const char *
cli_next_value(const struct cli_args *a, const char *name, size_t *at)
{
	for (; *at < a->n; ++*at)
		if (strcmp(a->given[*at].row->name, name) == 0)
			return a->given[(*at)++].value;
	return NULL;
}

const char *
cli_value(const struct cli_args *a, const char *name)
{
	const struct cli_row *r = a->command->rows;
	size_t at = 0;
	const char *value = cli_next_value(a, name, &at);

	while (r->name != NULL && strcmp(r->name, name) != 0)
		r++;
	assert(r->name != NULL);
	if (r->flags & CLI_DEFAULT && !is_given(a, r))
		return default_file();
	return value;
}
