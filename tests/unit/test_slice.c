#include "keytrail/slice.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

static void
equality_is_by_length_and_bytes(void **state)
{
	(void)state;
	assert_true(slice_equal(SLICE("abc"), slice_of("abc")));
	assert_false(slice_equal(SLICE("abc"), SLICE("ab")));
	assert_false(slice_equal(SLICE("abc"), SLICE("abd")));
	assert_true(slice_equal(SLICE_EMPTY, (struct slice){ NULL, 0 }));
	assert_true(slice_equal(SLICE("a\0b"), SLICE("a\0b")));
	assert_false(slice_equal(SLICE("a\0b"), SLICE("a\0c")));
	assert_int_equal(SLICE("a\0b").n, 3);
}

static void
case_is_ignored_for_ascii_letters_alone(void **state)
{
	(void)state;
	for (int a = 0; a < 256; a++) {
		for (int b = 0; b < 256; b++) {
			char x = (char)a, y = (char)b;
			bool letter = (a | 0x20) >= 'a' && (a | 0x20) <= 'z' && a < 128;
			bool want = a == b || (letter && (a ^ 0x20) == b);

			assert_int_equal(
			    slice_equal_nocase((struct slice){ &x, 1 }, (struct slice){ &y, 1 }),
			    want);
		}
	}
	assert_true(slice_equal_nocase(SLICE("Content-Type"), SLICE("cONTENT-tYPE")));
	assert_false(slice_equal_nocase(SLICE("Content-Type"), SLICE("content-typ")));
	assert_true(slice_equal_nocase(SLICE_EMPTY, SLICE_EMPTY));
}

/* Many bytes are compared at once: one that differs is found wherever it stands. */
static void
case_is_ignored_at_every_place(void **state)
{
	(void)state;
	for (size_t n = 1; n <= 40; n++) {
		for (size_t at = 0; at < n; at++) {
			char a[40], b[40];

			memset(a, 'z', sizeof(a));
			memset(b, 'z', sizeof(b));
			b[at] = 'Z';
			assert_true(
			    slice_equal_nocase((struct slice){ a, n }, (struct slice){ b, n }));
			b[at] = 'y';
			assert_false(
			    slice_equal_nocase((struct slice){ a, n }, (struct slice){ b, n }));
		}
	}
}

static void
prefixes(void **state)
{
	static const struct {
		const char *s, *prefix;
		bool want;
	} cases[] = {
		{ "abc", "", true },
		{ "abc", "a", true },
		{ "abc", "abc", true },
		{ "abc", "b", false },
		{ "abc", "abcd", false },
		{ "", "", true },
		{ "", "a", false },
		{ "abc", "A", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_int_equal(slice_has_prefix(slice_of(cases[i].s), slice_of(cases[i].prefix)),
		    cases[i].want);
}

static void
trimming_takes_spaces_and_tabs_at_the_ends(void **state)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{ "a", "a" },
		{ " a", "a" },
		{ "a\t", "a" },
		{ " \ta \t b\t ", "a \t b" },
		{ "", "" },
		{ " ", "" },
		{ "\t \t", "" },
		{ "\na\r", "\na\r" },
		{ "\v a\f", "\v a\f" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_true(
		    slice_equal(slice_trim(slice_of(cases[i].in)), slice_of(cases[i].want)));
}

static void
sub_slices_point_into_the_whole(void **state)
{
	struct slice s = SLICE("abcdef");
	struct slice sub = slice_sub(s, 2, 5);

	(void)state;
	assert_ptr_equal(sub.p, s.p + 2);
	assert_true(slice_equal(sub, SLICE("cde")));
	assert_int_equal(slice_sub(s, 6, 6).n, 0);
}

static void
numbers_are_digits_alone_and_do_not_wrap(void **state)
{
	static const struct {
		struct slice in;
		int rc;
		uint64_t want;
	} cases[] = {
		{ SLICE_INIT("0"), 0, 0 },
		{ SLICE_INIT("007"), 0, 7 },
		{ SLICE_INIT("18446744073709551615"), 0, UINT64_MAX },
		{ SLICE_INIT("18446744073709551616"), -1, 0 },
		{ SLICE_INIT("18446744073709551620"), -1, 0 },
		{ SLICE_INIT("99999999999999999999"), -1, 0 },
		{ SLICE_INIT("184467440737095516150"), -1, 0 },
		{ SLICE_INIT("00000000000000000000000001"), 0, 1 },
		{ SLICE_INIT(""), -1, 0 },
		{ SLICE_INIT("-1"), -1, 0 },
		{ SLICE_INIT("+1"), -1, 0 },
		{ SLICE_INIT(" 1"), -1, 0 },
		{ SLICE_INIT("1 "), -1, 0 },
		{ SLICE_INIT("0x1"), -1, 0 },
		{ SLICE_INIT("1\0"), -1, 0 },
		{ SLICE_INIT("1/"), -1, 0 },
		{ SLICE_INIT("1:"), -1, 0 },
		{ SLICE_INIT("\xb1"), -1, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t got = 42;

		assert_int_equal(slice_to_u64(cases[i].in, &got), cases[i].rc);
		assert_int_equal(got, cases[i].rc == 0 ? cases[i].want : 42);
	}
}

static void
slices_are_ordered_by_bytes_and_prefixes_come_first(void **state)
{
	(void)state;
	assert_true(slice_compare(SLICE("a"), SLICE("b")) < 0);
	assert_true(slice_compare(SLICE("\xff"), SLICE("a")) > 0);
	assert_true(slice_compare(SLICE("a"), SLICE("ab")) < 0);
	assert_true(slice_compare(SLICE("ab"), SLICE("a")) > 0);
	assert_int_equal(slice_compare(SLICE("ab"), SLICE("ab")), 0);
	assert_int_equal(slice_compare(SLICE_EMPTY, SLICE_EMPTY), 0);
}

static void
a_copy_ends_in_nul_and_may_fill_its_array(void **state)
{
	char out[4] = "???";

	(void)state;
	slice_to_cstr(SLICE("abc"), out, sizeof(out));
	assert_string_equal(out, "abc");
	slice_to_cstr(SLICE_EMPTY, out, sizeof(out));
	assert_string_equal(out, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equality_is_by_length_and_bytes),
		cmocka_unit_test(case_is_ignored_for_ascii_letters_alone),
		cmocka_unit_test(case_is_ignored_at_every_place),
		cmocka_unit_test(prefixes),
		cmocka_unit_test(trimming_takes_spaces_and_tabs_at_the_ends),
		cmocka_unit_test(sub_slices_point_into_the_whole),
		cmocka_unit_test(numbers_are_digits_alone_and_do_not_wrap),
		cmocka_unit_test(slices_are_ordered_by_bytes_and_prefixes_come_first),
		cmocka_unit_test(a_copy_ends_in_nul_and_may_fill_its_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
