#include "cli/cli_sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const char scrape[] =
    "# HELP keytrail_requests_total Requests.\n"
    "keytrail_requests_total{action=\"b.x\",outcome=\"success\",code=\"2xx\"} 7\n"
    "keytrail_requests_total{action=\"b.x\",outcome=\"failure\",code=\"4xx\"} 2\n"
    "keytrail_requests_total{action=\"a.x\",outcome=\"unknown\",code=\"none\"} 1\n"
    "keytrail_added_seconds_bucket{le=\"0.001\"} 50\n"
    "keytrail_added_seconds_bucket{le=\"0.01\"} 99\n"
    "keytrail_added_seconds_bucket{le=\"+Inf\"} 100\n"
    "keytrail_request_duration_seconds_bucket{le=\"0.5\"} 3\n"
    "keytrail_events_lost_total{reason=\"ring_full\"} 2\n"
    "keytrail_events_lost_total{reason=\"trail_full\"} 3\n"
    "keytrail_connections_open 4\n";

static struct sample *
read_text(const char *text)
{
	struct sample *s = malloc(sizeof(*s));

	assert_non_null(s);
	sample_read(s, slice_of(text));
	return s;
}

static void
a_scrape_is_read(void **state)
{
	struct sample *s = read_text(scrape);
	struct sample_action a;

	(void)state;
	assert_int_equal(s->nactions, 2);
	assert_string_equal(s->actions[0].name, "a.x");
	assert_true(s->actions[0].calls == 1 && s->actions[0].unknown == 1);
	a = sample_before(s, "b.x");
	assert_true(a.calls == 9 && a.failed == 2 && a.unknown == 0);
	assert_true(sample_before(s, "b").calls == 0 && sample_before(s, "c").calls == 0);
	assert_true(s->lost == 5 && s->clients == 4);
	assert_true(s->added.n == 3 && isinf(s->added.bound[2]));
	assert_true(s->all.n == 1 && s->all.bound[0] == 0.5 && s->all.count[0] == 3);
	free(s);
}

static void
lines_that_are_none_are_left_out(void **state)
{
	static const char *const texts[] = { "", "\n\n", "keytrail_requests_total{",
		"keytrail_requests_total{action=\"", "keytrail_requests_total{action=\"x",
		"keytrail_added_seconds_bucket{le=\"", "keytrail_connections_open ",
		"keytrail_events_lost_total{} x" };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct sample *s = read_text(texts[i]);

		assert_true(s->lost == 0 && s->clients == 0);
		free(s);
	}
}

static void
too_many_are_left_out(void **state)
{
	struct sample *s = malloc(sizeof(*s));
	struct buf text = BUF_INIT;

	(void)state;
	assert_non_null(s);
	for (unsigned i = 0; i < 2 * SAMPLE_ACTIONS_MAX; i++) {
		assert_int_equal(buf_printf(&text,
				     "keytrail_requests_total{action=\"%0200u\",outcome=\"x\"} 1\n"
				     "keytrail_requests_total{action=\"a%u\",outcome=\"x\"} 1\n"
				     "keytrail_added_seconds_bucket{le=\"%u\"} 1\n",
				     i, i, i),
		    0);
	}
	sample_read(s, buf_slice(&text));
	assert_int_equal(s->nactions, SAMPLE_ACTIONS_MAX);
	assert_int_equal(s->added.n, SAMPLE_BUCKETS_MAX);
	for (size_t i = 1; i < s->nactions; i++)
		assert_true(strcmp(s->actions[i - 1].name, s->actions[i].name) < 0);
	buf_fini(&text);
	free(s);
}

static void
quantiles_are_of_what_came_since(void **state)
{
	static const struct sample_latency none = { .n = 0 },
					   first = { { 1, 2, 3 }, { 10, 10, 10 }, 3 },
					   next = { { 1, 2, 3 }, { 10, 14, 20 }, 3 },
					   other = { { 1 }, { 4 }, 1 };

	(void)state;
	assert_true(sample_quantile(&none, &none, 0.5) == -1);
	assert_true(sample_quantile(&first, &none, 0.99) == 1);
	assert_true(sample_quantile(&first, &first, 0.5) == -1);
	assert_true(sample_quantile(&next, &first, 0.4) == 2);
	assert_true(sample_quantile(&next, &first, 0.41) == 3);
	assert_true(sample_quantile(&next, &other, 0.5) == 1);	/* another program's */
	assert_true(sample_quantile(&first, &next, 0.5) == -1); /* it began anew */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scrape_is_read),
		cmocka_unit_test(lines_that_are_none_are_left_out),
		cmocka_unit_test(too_many_are_left_out),
		cmocka_unit_test(quantiles_are_of_what_came_since),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
