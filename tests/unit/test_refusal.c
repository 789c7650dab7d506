#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <ctype.h>
#include <string.h>

#include <cmocka.h>

#include "keytrail/refusal.h"

static void
codes_are_upper_and_labels_lower_case_of_one_word(void **state)
{
	(void)state;
	for (unsigned r = 0; r < REFUSAL_COUNT; r++) {
		const struct refusal_info *info = refusal_info((enum http_refusal)r);
		size_t n = strlen(info->code);

		assert_int_equal(strlen(info->label), n);
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(info->label[i], tolower((unsigned char)info->code[i]));
			assert_true(isupper((unsigned char)info->code[i]) || info->code[i] == '_');
		}
	}
}

static void
every_refusal_has_an_error_status_and_a_sentence(void **state)
{
	(void)state;
	for (unsigned r = REFUSAL_NONE + 1; r < REFUSAL_COUNT; r++) {
		const struct refusal_info *info = refusal_info((enum http_refusal)r);

		assert_in_range(info->status, 400, 599);
		assert_string_not_equal(http_status_phrase(info->status), "Status 4xx");
		assert_string_not_equal(http_status_phrase(info->status), "Status 5xx");
		assert_in_range(strlen(info->text), 10, 100);
		assert_null(strpbrk(info->text, "\"\\"));
	}
}

static void
no_two_refusals_share_a_sentence(void **state)
{
	(void)state;
	for (unsigned a = 0; a < REFUSAL_COUNT; a++)
		for (unsigned b = a + 1; b < REFUSAL_COUNT; b++)
			assert_string_not_equal(refusal_info((enum http_refusal)a)->text,
			    refusal_info((enum http_refusal)b)->text);
}

static const struct {
	enum http_refusal refusal;
	unsigned status;
} statuses[] = {
	{ REFUSAL_BAD_HOST, 400 },
	{ REFUSAL_BAD_EXPECT, 417 },
	{ REFUSAL_UPGRADE, 400 },
	{ REFUSAL_METHOD_NOT_ALLOWED, 405 },
	{ REFUSAL_AMBIGUOUS_BODY, 415 },
	{ REFUSAL_DENIED, 403 },
	{ REFUSAL_HEAD_TOO_LARGE, 431 },
	{ REFUSAL_TARGET_TOO_LONG, 414 },
	{ REFUSAL_BODY_TOO_LARGE, 413 },
	{ REFUSAL_REQUEST_TIMEOUT, 408 },
	{ REFUSAL_UPSTREAM_MALFORMED, 502 },
	{ REFUSAL_UPSTREAM_REDIRECT, 502 },
	{ REFUSAL_UPSTREAM_TIMEOUT, 504 },
	{ REFUSAL_TRAIL_FULL, 503 },
};

static void
refusals_answer_with_the_status_that_the_manual_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		assert_int_equal(refusal_info(statuses[i].refusal)->status, statuses[i].status);
}

static const struct {
	unsigned status;
	const char *phrase;
} phrases[] = {
	{ 100, "Continue" },
	{ 200, "OK" },
	{ 204, "No Content" },
	{ 207, "Multi-Status" },
	{ 226, "IM Used" },
	{ 299, "Status 2xx" },
	{ 306, "Status 3xx" },
	{ 404, "Not Found" },
	{ 417, "Expectation Failed" },
	{ 418, "Status 4xx" },
	{ 422, "Unprocessable Content" },
	{ 431, "Request Header Fields Too Large" },
	{ 499, "Status 4xx" },
	{ 507, "Insufficient Storage" },
	{ 511, "Network Authentication Required" },
	{ 512, "Status 5xx" },
	{ 199, "Status 1xx" },
	{ 0, "Status unknown" },
	{ 99, "Status unknown" },
	{ 600, "Status unknown" },
};

static void
phrases_are_the_registered_ones(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++)
		assert_string_equal(http_status_phrase(phrases[i].status), phrases[i].phrase);
}

static void
every_status_has_a_phrase_of_printable_bytes(void **state)
{
	(void)state;
	for (unsigned status = 0; status < 1000; status++)
		for (const char *p = http_status_phrase(status); *p != '\0'; p++)
			assert_true(isprint((unsigned char)*p));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(codes_are_upper_and_labels_lower_case_of_one_word),
		cmocka_unit_test(every_refusal_has_an_error_status_and_a_sentence),
		cmocka_unit_test(no_two_refusals_share_a_sentence),
		cmocka_unit_test(refusals_answer_with_the_status_that_the_manual_names),
		cmocka_unit_test(phrases_are_the_registered_ones),
		cmocka_unit_test(every_status_has_a_phrase_of_printable_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
