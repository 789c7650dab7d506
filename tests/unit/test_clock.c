#include "keytrail/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void
check_against_gmtime(int64_t secs, int64_t ns)
{
	char event[CLOCK_EVENT_TIME_SIZE], rfc[CLOCK_RFC3339_SIZE], date[32], want[48];
	time_t t = (time_t)secs;
	struct tm tm;

	assert_non_null(gmtime_r(&t, &tm));
	assert_int_equal(strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm), 19);
	clock_event_time(secs * CLOCK_NS_PER_S + ns, event);
	snprintf(want, sizeof(want), "%s.%02d+0000", date, (int)(ns / 10000000));
	assert_string_equal(event, want);
	clock_rfc3339(secs * CLOCK_NS_PER_S + ns, rfc);
	snprintf(want, sizeof(want), "%s.%03dZ", date, (int)(ns / 1000000));
	assert_string_equal(rfc, want);
}

static void
times_are_those_of_gmtime(void **state)
{
	(void)state;
	for (int64_t day = 0; day < 60000; day++)
		check_against_gmtime(
		    day * 86400 + day * 7919 % 86400, day * 16661 % CLOCK_NS_PER_S);
	for (int64_t s = 0; s < 86400; s += 7)
		check_against_gmtime(951782400 + s, 999999999); /* 2000-02-29 */
}

static void
times_around_every_new_year_and_leap_day(void **state)
{
	static const int64_t days[] = { 59, 60, 365 };

	(void)state;
	for (int year = 1970; year < 2260; year++) {
		struct tm first = { .tm_year = year - 1900, .tm_mday = 1 };
		int64_t start = (int64_t)timegm(&first);

		for (size_t i = 0; i < sizeof(days) / sizeof(*days); i++) {
			check_against_gmtime(start + days[i] * 86400 - 1, 999999999);
			check_against_gmtime(start + days[i] * 86400, 0);
		}
	}
}

static void
fractions_are_cut_not_rounded(void **state)
{
	char event[CLOCK_EVENT_TIME_SIZE], rfc[CLOCK_RFC3339_SIZE];

	(void)state;
	clock_event_time(1592840176999999999, event);
	assert_string_equal(event, "2020-06-22T15:36:16.99+0000");
	clock_rfc3339(1592840176999999999, rfc);
	assert_string_equal(rfc, "2020-06-22T15:36:16.999Z");
	clock_event_time(1592840176009999999, event);
	assert_string_equal(event, "2020-06-22T15:36:16.00+0000");
}

static void
times_before_1970_are_1970(void **state)
{
	char event[CLOCK_EVENT_TIME_SIZE], rfc[CLOCK_RFC3339_SIZE];

	(void)state;
	clock_event_time(-1, event);
	assert_string_equal(event, "1970-01-01T00:00:00.00+0000");
	clock_rfc3339(INT64_MIN, rfc);
	assert_string_equal(rfc, "1970-01-01T00:00:00.000Z");
}

static void
the_last_time_fits(void **state)
{
	char event[CLOCK_EVENT_TIME_SIZE];

	(void)state;
	clock_event_time(INT64_MAX, event);
	assert_string_equal(event, "2262-04-11T23:47:16.85+0000");
}

static void
a_uuid7_holds_time_version_and_random_bits(void **state)
{
	static const unsigned char zeros[10] = { 0 };
	static const unsigned char ones[10] = { 255, 255, 255, 255, 255, 255, 255, 255, 255, 255 };
	/* RFC 9562 appendix A.6. */
	static const unsigned char rfc[10] = { 0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39,
		0x8f };
	char out[CLOCK_UUID_SIZE];

	(void)state;
	clock_uuid7(1645557742000 * CLOCK_NS_PER_MS, rfc, out);
	assert_string_equal(out, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
	clock_uuid7(0, zeros, out);
	assert_string_equal(out, "00000000-0000-7000-8000-000000000000");
	clock_uuid7(999999, ones, out);
	assert_string_equal(out, "00000000-0000-7fff-bfff-ffffffffffff");
	clock_uuid7(-1, zeros, out);
	assert_string_equal(out, "00000000-0000-7000-8000-000000000000");
}

static void
uuids_of_later_times_sort_later(void **state)
{
	static const unsigned char zeros[10] = { 0 }, ones[10] = { 255, 255, 255, 255, 255 };
	char a[CLOCK_UUID_SIZE], b[CLOCK_UUID_SIZE];

	(void)state;
	for (int64_t ms = 1; ms < INT64_C(1) << 40; ms = ms * 3 + 1) {
		clock_uuid7(ms * CLOCK_NS_PER_MS, ones, a);
		clock_uuid7((ms + 1) * CLOCK_NS_PER_MS, zeros, b);
		assert_true(strcmp(a, b) < 0);
	}
}

static void
the_clocks_are_the_systems(void **state)
{
	int64_t mono = clock_mono_ns(), wall = clock_wall_ns();
	struct timespec ts;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	assert_true(ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec >= mono);
	assert_true(ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec - mono < 60 * CLOCK_NS_PER_S);
	clock_gettime(CLOCK_REALTIME, &ts);
	assert_true(ts.tv_sec - wall / CLOCK_NS_PER_S < 60);
	assert_true(wall / CLOCK_NS_PER_S - ts.tv_sec < 60);
}

static void
a_jump_is_what_the_steady_clock_did_not_do(void **state)
{
	static const struct {
		const char *label;
		int64_t wall_ms, steady_ms, want_ms;
	} looks[] = {
		{ "the first look", 1700000000000, 5000, 0 },
		{ "both go on", 1700000001000, 6000, 0 },
		{ "a late look", 1700000061000, 66000, 0 },
		{ "a second more", 1700000063000, 67000, 0 },
		{ "more than a second more", 1700000065001, 68000, 1001 },
		{ "the jump is told once", 1700000066001, 69000, 0 },
		{ "back", 1700000000000, 70000, -67001 },
		{ "a second less", 1700000000000, 71000, 0 },
	};
	struct clock_watch w = { 0, 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
		int64_t jump = clock_watch(
		    &w, looks[i].wall_ms * CLOCK_NS_PER_MS, looks[i].steady_ms * CLOCK_NS_PER_MS);

		if (jump != looks[i].want_ms * CLOCK_NS_PER_MS)
			fail_msg("%s: %lld", looks[i].label, (long long)jump);
	}
}

static void
an_event_time_is_read_as_it_was_written(void **state)
{
	static const char *const bad[] = { "", "2026-01-31T23:59:59.07+0100",
		"2026-01-31 23:59:59.07+0000", "2026-01-31T23:59:59,07+0000",
		"2026-01-31T23:59:59.x7+0000", "2026-13-31T23:59:59.07+0000",
		"1969-12-31T23:59:59.99+0000", "2262-01-01T00:00:00.00+0000" };
	const int64_t t = 1700000000 * CLOCK_NS_PER_S + 990 * CLOCK_NS_PER_MS;
	char text[CLOCK_EVENT_TIME_SIZE];
	int64_t got;

	(void)state;
	clock_event_time(t, text);
	assert_int_equal(clock_parse_event_time(slice_of(text), &got), 0);
	assert_true(got == t);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(clock_parse_event_time(slice_of(bad[i]), &got), -1);
}

static const struct {
	const char *text, *first, *last; /* NULL: it is no time */
} written[] = {
	{ "2026-11-22", "2026-11-22T00:00:00.00+0000", "2026-11-22T23:59:59.99+0000" },
	{ "2026-11-22T20:09", "2026-11-22T20:09:00.00+0000", "2026-11-22T20:09:59.99+0000" },
	{ "2026-11-22T20:09:08Z", "2026-11-22T20:09:08.00+0000", "2026-11-22T20:09:08.99+0000" },
	{ "", NULL, NULL },
	{ "Z", NULL, NULL },
	{ "2026-11", NULL, NULL },
	{ "2026-13-01", NULL, NULL },
	{ "2026-11-00", NULL, NULL },
	{ "2026-11-22T24:00", NULL, NULL },
	{ "2026-11-22 20:09", NULL, NULL },
	{ "2026-11-22T20:60", NULL, NULL },
	{ "2026-11-22T20:09:08+01:00", NULL, NULL },
	{ "2026-1x-22", NULL, NULL },
};

static void
a_time_is_its_first_and_its_last_moment(void **state)
{
	char out[CLOCK_EVENT_TIME_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++) {
		int want = written[i].first != NULL ? 0 : -1;

		if (clock_parse_time(written[i].text, 0, out) != want ||
		    (want == 0 && strcmp(out, written[i].first) != 0))
			fail_msg("%s: first %s", written[i].text, out);
		if (clock_parse_time(written[i].text, 1, out) != want ||
		    (want == 0 && strcmp(out, written[i].last) != 0))
			fail_msg("%s: last %s", written[i].text, out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_are_those_of_gmtime),
		cmocka_unit_test(a_time_is_its_first_and_its_last_moment),
		cmocka_unit_test(times_around_every_new_year_and_leap_day),
		cmocka_unit_test(fractions_are_cut_not_rounded),
		cmocka_unit_test(times_before_1970_are_1970),
		cmocka_unit_test(the_last_time_fits),
		cmocka_unit_test(a_uuid7_holds_time_version_and_random_bits),
		cmocka_unit_test(uuids_of_later_times_sort_later),
		cmocka_unit_test(the_clocks_are_the_systems),
		cmocka_unit_test(a_jump_is_what_the_steady_clock_did_not_do),
		cmocka_unit_test(an_event_time_is_read_as_it_was_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
