#include "cli/cli_man.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct {
	const char *label, *markdown, *want;
} cases[] = {
	{ "headings", "# NAME\n\n## keytrail run\n", ".SH NAME\n.SS keytrail run\n" },
	{ "no request for a paragraph stands below a heading", "# A\n\none\ntwo\n\nthree\n",
	    ".SH A\none\ntwo\n.PP\nthree\n" },
	{ "words of code", "a `b-c` d-e\n", "a \\fBb\\-c\\fR d-e\n" },
	{ "what roff would read", "it's \\ ^ ~\n.end\n", "it\\(aqs \\e \\(ha \\(ti\n\\&.end\n" },
	{ "a block of code", "# A\n\n```\na `-b'\n.c\n```\n\nd\n",
	    ".SH A\n.RS 4\n.nf\na `\\-b\\(aq\n\\&.c\n.fi\n.RE\n.PP\nd\n" },
	{ "a table of two cells", "| a | b |\n|---|---|\n| `x` | y |\n\nz\n",
	    ".TP\n\\fBx\\fR\ny\n.PP\nz\n" },
	{ "inner cells have their titles, empty ones none",
	    "| a | b | c | d |\n| --- | --- | --- | --- |\n| 1 | 2 | 3 | 4 |\n| 5 |  | 6 | 7 |\n"
	    "| 8 |  |  | 9 |\n",
	    ".TP\n1  (b: 2; c: 3)\n4\n.TP\n5  (c: 6)\n7\n.TP\n8\n9\n" },
	{ "a bar within a cell", "| a | b |\n|---|---|\n| `x\\|y` | z |\n",
	    ".TP\n\\fBx|y\\fR\nz\n" },
	{ "two tables",
	    "| a | b |\n|---|---|\n| 1 | 2 |\n\n| c | d | e |\n|---|---|---|\n| 3 | 4 | 5 |\n",
	    ".TP\n1\n2\n.TP\n3  (d: 4)\n5\n" },
	{ "the last line has no end", "a", "a\n" },
};

static void
each_becomes_what_man_reads(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf out = BUF_INIT;

		assert_int_equal(cli_man_render(slice_of(cases[i].markdown), &out), 0);
		assert_int_equal(buf_append(&out, "", 1), 0);
		if (strcmp(out.mem, cases[i].want) != 0)
			fail_msg("%s: %s", cases[i].label, out.mem);
		buf_fini(&out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_becomes_what_man_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
