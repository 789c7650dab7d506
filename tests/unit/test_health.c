#include "admin/health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
	const char *label;
	struct health_check checks[3];
	size_t n;
	bool ready;
	const char *brief, *verbose;
} cases[] = {
	{ "nothing to check is ready", { { 0 } }, 0, true, "ready\n",
	    "{\"checks\":[],\"ready\":true}\n" },
	{ "all is well", { { "trail", true, "" }, { "listener", true, "" } }, 2, true, "ready\n",
	    "{\"checks\":[{\"detail\":\"\",\"name\":\"trail\",\"ok\":true},"
	    "{\"detail\":\"\",\"name\":\"listener\",\"ok\":true}],\"ready\":true}\n" },
	{ "one failure is enough, wherever it stands",
	    { { "trail", true, "" }, { "listener", false, "no \"room\"" }, { "x", true, "" } }, 3,
	    false, "not ready\n",
	    "{\"checks\":[{\"detail\":\"\",\"name\":\"trail\",\"ok\":true},"
	    "{\"detail\":\"no \\\"room\\\"\",\"name\":\"listener\",\"ok\":false},"
	    "{\"detail\":\"\",\"name\":\"x\",\"ok\":true}],\"ready\":false}\n" },
};

static const char *
text_of(struct buf *b)
{
	assert_int_equal(buf_append(b, "", 1), 0);
	return b->mem;
}

static void
test_the_checks_are_rendered(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf brief = BUF_INIT, verbose = BUF_INIT;

		print_message("%s\n", cases[i].label);
		assert_int_equal(health_ready(cases[i].checks, cases[i].n), cases[i].ready);
		assert_int_equal(health_render_brief(cases[i].checks, cases[i].n, &brief), 0);
		assert_int_equal(health_render_verbose(cases[i].checks, cases[i].n, &verbose), 0);
		assert_string_equal(text_of(&brief), cases[i].brief);
		assert_string_equal(text_of(&verbose), cases[i].verbose);
		buf_fini(&brief);
		buf_fini(&verbose);
	}
}

/* Every byte of it may need six. */
static void
test_the_longest_detail_fits(void **state)
{
	struct health_check check = { .name = "trail" };
	struct buf out = BUF_INIT;

	(void)state;
	memset(check.detail, '\x01', sizeof(check.detail) - 1);
	assert_int_equal(health_render_verbose(&check, 1, &out), 0);
	assert_true(buf_size(&out) > 6 * (sizeof(check.detail) - 1));
	assert_non_null(strstr(text_of(&out), "\\u0001\",\"name\":\"trail\",\"ok\":false}"));
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_checks_are_rendered),
		cmocka_unit_test(test_the_longest_detail_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
