#include "admin/health.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
	const char *label;
	struct health_check checks[3];
	size_t n;
	bool ready;
	const char *brief, *members;
} cases[] = {
	{ "nothing to check is ready", { { 0 } }, 0, true, "ready\n",
	    "\"checks\":[],\"ready\":true" },
	{ "all is well", { { "trail", true, "" }, { "listener", true, "" } }, 2, true, "ready\n",
	    "\"checks\":[{\"detail\":\"\",\"name\":\"trail\",\"ok\":true},"
	    "{\"detail\":\"\",\"name\":\"listener\",\"ok\":true}],\"ready\":true" },
	{ "one failure is enough, wherever it stands",
	    { { "trail", true, "" }, { "listener", false, "no \"room\"" }, { "x", true, "" } }, 3,
	    false, "not ready\n",
	    "\"checks\":[{\"detail\":\"\",\"name\":\"trail\",\"ok\":true},"
	    "{\"detail\":\"no \\\"room\\\"\",\"name\":\"listener\",\"ok\":false},"
	    "{\"detail\":\"\",\"name\":\"x\",\"ok\":true}],\"ready\":false" },
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
		struct buf brief = BUF_INIT, members = BUF_INIT;

		print_message("%s\n", cases[i].label);
		assert_int_equal(health_ready(cases[i].checks, cases[i].n), cases[i].ready);
		assert_int_equal(health_render_brief(cases[i].checks, cases[i].n, &brief), 0);
		assert_int_equal(health_render_members(cases[i].checks, cases[i].n, &members), 0);
		assert_string_equal(text_of(&brief), cases[i].brief);
		assert_string_equal(text_of(&members), cases[i].members);
		buf_fini(&brief);
		buf_fini(&members);
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
	assert_int_equal(health_render_members(&check, 1, &out), 0);
	assert_true(buf_size(&out) > 6 * (sizeof(check.detail) - 1));
	assert_non_null(strstr(text_of(&out), "\\u0001\",\"name\":\"trail\",\"ok\":false}"));
	buf_fini(&out);
}

#define FINE                                                                                       \
	{                                                                                          \
		"out", "", 9.9                                                                     \
	}
#define LATE                                                                                       \
	{                                                                                          \
		"siem", "", 40                                                                     \
	}
#define VERY_LATE                                                                                  \
	{                                                                                          \
		"slow", "", 300000                                                                 \
	}
#define DOWN                                                                                       \
	{                                                                                          \
		"file", "no such file", 9000                                                       \
	}

static const struct {
	const char *want;
	struct health_facts facts;
	struct health_sink sinks[3];
} sentences[] = {
	{ "Every call is recorded.", { true, .full_s = (double)INFINITY }, { { 0 } } },
	{ "Every call is recorded.", { true, .full_s = 86401, .nsinks = 1 }, { FINE } },
	{ "Every call is recorded; sink siem is 40 s behind.", { true, .full_s = 1e9, .nsinks = 2 },
	    { FINE, LATE } },
	{ "Every call is recorded; sink file is down: no such file; sink slow is 3 days behind.",
	    { true, .full_s = 1e9, .nsinks = 3 }, { DOWN, FINE, VERY_LATE } },
	{ "Every call is recorded; the trail is full in 5 h.", { true, .full_s = 18000 },
	    { { 0 } } },
	{ "Every call is recorded; the trail is full in 90 min; a certificate is valid until "
	  "noon: a.pem.",
	    { true, .full_s = 5400, .certificate = "valid until noon: a.pem" }, { { 0 } } },
	{ "Calls are recorded; 3 events were lost.", { true, .full_s = 1e9, .lost = 3 },
	    { { 0 } } },
	{ "Every call is recorded; nothing is signed: no key; nothing is removed from the trail: "
	  "a list is damaged.",
	    { true, .full_s = 1e9, .unsigned_ = "no key", .holds = "a list is damaged" },
	    { { 0 } } },
	{ "Calls that need their record are refused: no room.",
	    { true, .full_s = 1e9, .trail = "no room" }, { { 0 } } },
	{ "Calls are served without waiting for their record until noon.",
	    { true, .full_s = 1e9, .degraded = "noon" }, { { 0 } } },
	{ "Calls are served without their record until noon: no room; 1 event was lost.",
	    { true, .full_s = 1e9, .degraded = "noon", .trail = "no room", .lost = 1 }, { { 0 } } },
	{ "No calls are accepted.", { false, .full_s = 1e9, .trail = "no room" }, { { 0 } } },
};

static void
test_what_is_amiss_is_said_in_one_sentence(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++) {
		struct health_facts facts = sentences[i].facts;
		struct buf out = BUF_INIT;

		facts.sinks = sentences[i].sinks;
		assert_int_equal(health_summary(&facts, &out), 0);
		assert_string_equal(text_of(&out), sentences[i].want);
		buf_fini(&out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_checks_are_rendered),
		cmocka_unit_test(test_the_longest_detail_fits),
		cmocka_unit_test(test_what_is_amiss_is_said_in_one_sentence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
