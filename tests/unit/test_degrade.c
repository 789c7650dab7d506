#include "data/degrade.h"

#include "keytrail/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define NOW    (1000 * CLOCK_NS_PER_S)
#define REASON "the disk is full"

#define X64    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static int
begin(struct degrade *d, uint64_t seconds, uint64_t max_s, const char *reason, int64_t now,
    struct err *err)
{
	if (degrade_check(d, seconds, max_s, reason, now, err) == -1)
		return -1;
	degrade_begin(d, seconds, reason, now);
	return 0;
}

static void
it_covers_what_comes_before_its_end(void **state)
{
	struct degrade d = { 0 };
	struct err err;

	(void)state;
	assert_false(degrade_covers(&d, NOW));
	assert_int_equal(begin(&d, 10, 3600, REASON, NOW, &err), 0);
	assert_true(degrade_covers(&d, NOW));
	assert_true(degrade_covers(&d, NOW + 10 * CLOCK_NS_PER_S - 1));
	assert_false(degrade_covers(&d, NOW + 10 * CLOCK_NS_PER_S));
	assert_int_equal(degrade_left_ns(&d, NOW), 10 * CLOCK_NS_PER_S);
	assert_int_equal(degrade_left_ns(&d, NOW + 11 * CLOCK_NS_PER_S), 0);
}

static void
it_is_not_renewed_before_it_was_ended(void **state)
{
	struct degrade d = { 0 };
	struct err err;
	int64_t late = NOW + 11 * CLOCK_NS_PER_S;

	(void)state;
	assert_int_equal(begin(&d, 10, 3600, REASON, NOW, &err), 0);
	assert_int_equal(begin(&d, 10, 3600, "again", NOW + 1, &err), -1);
	assert_string_equal(err.msg,
	    "it is degraded already, for another 10 s; it cannot be renewed before that has ended");
	assert_string_equal(d.reason, REASON);
	assert_int_equal(begin(&d, 10, 3600, "again", late, &err), -1);
	assert_int_equal(degrade_end(&d, &err), 0);
	assert_false(degrade_covers(&d, NOW));
	assert_int_equal(degrade_end(&d, &err), -1);
	assert_int_equal(begin(&d, 10, 3600, "again", late, &err), 0);
}

static const struct {
	const char *label;
	uint64_t seconds, max;
	const char *reason;
	const char *want; /* NULL: it is allowed */
} cases[] = {
	{ "as long as it may", 3600, 3600, REASON, NULL },
	{ "a second longer", 3601, 3600, REASON,
	    "wanted 1 to 3600 seconds (\"audit.degrade_max\")" },
	{ "no time at all", 0, 3600, REASON, "wanted 1 to 3600 seconds (\"audit.degrade_max\")" },
	{ "forbidden", 1, 0, REASON, "\"audit.degrade_max\" is 0: it is forbidden" },
	{ "no reason", 1, 3600, "", "a reason is needed" },
	{ "a blank one", 1, 3600, "   ", "a reason is needed" },
	{ "a line break", 1, 3600, "a\nb", "the reason is not printable ASCII" },
	{ "beyond ASCII", 1, 3600, "\xc3\xa9", "the reason is not printable ASCII" },
	{ "the longest reason", 1, 3600, X64 X64 X64 X64, NULL },
	{ "one that is longer", 1, 3600, X64 X64 X64 X64 "x",
	    "the reason is too long; at most 256 bytes" },
};

static void
what_is_allowed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct degrade d = { 0 };
		struct err err = { "" };
		int rc = begin(&d, cases[i].seconds, cases[i].max, cases[i].reason, NOW, &err);

		if ((rc == 0) != (cases[i].want == NULL) ||
		    (rc == -1 && strcmp(err.msg, cases[i].want) != 0))
			fail_msg("%s: %s", cases[i].label, err.msg);
		assert_int_equal(degrade_begun(&d), rc == 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_covers_what_comes_before_its_end),
		cmocka_unit_test(it_is_not_renewed_before_it_was_ended),
		cmocka_unit_test(what_is_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
