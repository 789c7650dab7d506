#include "keytrail/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void
a_message_is_what_was_said(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(err_set(&e, "%s:%d: wanted %s", "routes.json", 7, "a string"), -1);
	assert_string_equal(e.msg, "routes.json:7: wanted a string");
}

static void
errno_is_told_in_words(void **state)
{
	struct err e;

	(void)state;
	errno = ENOENT;
	assert_int_equal(err_set_errno(&e, "open %s", "x"), -1);
	assert_string_equal(e.msg, "open x: No such file or directory");
}

static void
a_prefix_goes_in_front(void **state)
{
	struct err e;

	(void)state;
	err_set(&e, "no such file");
	assert_int_equal(err_prefix(&e, "include %s", "a.json"), -1);
	assert_int_equal(err_prefix(&e, "routes.json"), -1);
	assert_string_equal(e.msg, "routes.json: include a.json: no such file");
}

static void
percent_signs_in_a_message_stay(void **state)
{
	struct err e;

	(void)state;
	err_set(&e, "%s", "%n%s");
	err_prefix(&e, "%s", "%d");
	assert_string_equal(e.msg, "%d: %n%s");
}

static void
long_messages_are_cut(void **state)
{
	char text[3 * ERR_MSG_MAX];
	struct err e;

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	err_set(&e, "%s", text);
	assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
	err_prefix(&e, "front");
	assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
	assert_memory_equal(e.msg, "front: xxx", 10);
	errno = EACCES;
	err_set_errno(&e, "%s", text);
	assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_is_what_was_said),
		cmocka_unit_test(errno_is_told_in_words),
		cmocka_unit_test(a_prefix_goes_in_front),
		cmocka_unit_test(percent_signs_in_a_message_stay),
		cmocka_unit_test(long_messages_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
