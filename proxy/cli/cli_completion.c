/* keytrail completion: what a shell completes, from the rows of the commands. */
#include "cli/cli_args.h"

#include <stdio.h>
#include <string.h>

typedef bool (*row_is_fn)(const struct cli_row *);

/* In quotes of the shell, in which `escape` stands for one. */
static void
print_quoted(const char *s, const char *escape)
{
	putchar('\'');
	for (; *s != '\0'; s++)
		if (*s == '\'')
			fputs(escape, stdout);
		else
			putchar(*s);
	putchar('\'');
}

static bool
has(const struct cli_command *c, row_is_fn is)
{
	for (const struct cli_row *r = c->rows; r->name != NULL; r++)
		if (is(r))
			return true;
	return false;
}

/* "a b c" */
static void
print_names(const struct cli_command *c, row_is_fn is)
{
	const char *before = "";

	for (const struct cli_row *r = c->rows; r->name != NULL; r++) {
		if (!is(r))
			continue;
		printf("%s%s", before, r->name);
		before = " ";
	}
}

/* ---- bash: where nothing is offered, it offers files ---- */

static void
print_bash_words(row_is_fn is)
{
	const struct cli_command *c;

	printf("\t\tcase ${COMP_WORDS[1]} in\n");
	for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
		if (!has(c, is))
			continue;
		printf("\t\t%s) words='", c->name);
		print_names(c, is);
		printf("' ;;\n");
	}
	printf("\t\tesac ;;\n");
}

static void
print_bash(void)
{
	const struct cli_command *c;

	printf("_keytrail()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} words=\n\n"
	       "\tcase $COMP_CWORD:$cur in\n\t1:*) words='");
	for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++)
		printf("%s%s", i > 0 ? " " : "", c->name);
	printf("' ;;\n\t*:-*)\n");
	print_bash_words(cli_row_is_option);
	printf("\t2:*)\n");
	print_bash_words(cli_row_is_word);
	printf("\tesac\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
	       "complete -o default -F _keytrail keytrail\n");
}

/* ---- zsh ---- */

static bool
names_file(const char *value)
{
	return strstr(value, "FILE") != NULL || strstr(value, "PATH") != NULL ||
	       strstr(value, "CHECKPOINT") != NULL;
}

static void
print_zsh_option(const char *name, const struct cli_row *r)
{
	char text[256];

	snprintf(text, sizeof(text), "%s%s[%s]%s", r->flags & CLI_MANY ? "*" : "", name, r->help,
	    r->value == NULL	   ? ""
	    : names_file(r->value) ? ": :_files"
				   : ": :");
	printf(" \\\n\t\t");
	print_quoted(text, "'\\''");
}

static void
print_zsh_command(const struct cli_command *c)
{
	printf("%s)\n\t_arguments", c->name);
	for (const struct cli_row *r = c->rows; r->name != NULL; r++) {
		if (!cli_row_is_option(r))
			continue;
		print_zsh_option(r->name, r);
		if (r->letter != NULL)
			print_zsh_option(r->letter, r);
	}
	if (has(c, cli_row_is_word)) {
		printf(" \\\n\t\t'1: :(");
		print_names(c, cli_row_is_word);
		printf(")'");
	}
	printf(" \\\n\t\t'*: :_files' ;;\n");
}

static void
print_zsh(void)
{
	const struct cli_command *c;

	printf("#compdef keytrail\n\nlocal -a commands=(\n");
	for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
		printf("\t%s:", c->name);
		print_quoted(c->help, "'\\''");
		printf("\n");
	}
	printf(")\nif (( CURRENT == 2 )); then\n\t_describe command commands\n\treturn\nfi\n"
	       "shift words\n(( CURRENT-- ))\ncase $words[1] in\n");
	for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++)
		print_zsh_command(c);
	printf("esac\n");
}

/* ---- fish: files too, but for the command itself ---- */

static void
print_fish_row(const struct cli_command *c, const struct cli_row *r)
{
	printf("complete -c keytrail -n '__fish_seen_subcommand_from %s", c->name);
	if (cli_row_is_word(r)) {
		printf("; and not __fish_seen_subcommand_from ");
		print_names(c, cli_row_is_word);
		printf("' -f -a %s", r->name);
	} else {
		printf("' -l %s", r->name + 2);
	}
	if (r->letter != NULL)
		printf(" -s %s", r->letter + 1);
	printf("%s -d ", r->value != NULL ? " -r" : "");
	print_quoted(r->help, "\\'");
	printf("\n");
}

static void
print_fish(void)
{
	const struct cli_command *c;

	for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
		printf("complete -c keytrail -n __fish_use_subcommand -f -a %s -d ", c->name);
		print_quoted(c->help, "\\'");
		printf("\n");
		for (const struct cli_row *r = c->rows; r->name != NULL; r++)
			if (cli_row_is_option(r) || cli_row_is_word(r))
				print_fish_row(c, r);
	}
}

static int
completion(const struct cli_args *a)
{
	if (cli_value(a, "bash") != NULL)
		print_bash();
	else if (cli_value(a, "zsh") != NULL)
		print_zsh();
	else
		print_fish();
	return cli_printed(true);
}

const struct cli_command cli_completion = {
	.name = "completion",
	.help = "print what completes this program's command lines in a shell",
	.rows =
	    (const struct cli_row[]){
		{ "bash", .help = "for bash" },
		{ "zsh", .help = "for zsh", .flags = CLI_OR },
		{ "fish", .help = "for fish", .flags = CLI_OR },
		{ 0 },
	    },
	.run = completion,
};
