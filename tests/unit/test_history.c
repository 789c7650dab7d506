#include "admin/history.h"

#include "keytrail/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define STEP_NS (HISTORY_STEP_S * CLOCK_NS_PER_S)

struct fixture {
	struct metrics *m;
	struct metrics_shard *s;
	struct history *h;
	int64_t now;
	struct buf text;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->m = metrics_new();
	f->s = metrics_shard_new(f->m);
	f->now = 5 * CLOCK_NS_PER_S;
	f->h = history_new(f->m, f->now);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	history_free(f->h);
	metrics_free(f->m);
	buf_fini(&f->text);
	free(f);
	return 0;
}

/* A step is over when so much time has passed. */
static void
step(struct fixture *f, int64_t ns)
{
	f->now += ns;
	history_step(f->h, f->now, f->now + 1000 * CLOCK_NS_PER_S);
}

static void
call(struct fixture *f, const char *action, enum metric_outcome outcome, unsigned times)
{
	while (times-- > 0)
		metrics_count_request(f->s, metrics_action(f->m, action), outcome, 200);
}

static const char *
render(struct fixture *f, unsigned minutes)
{
	buf_consume(&f->text, buf_size(&f->text));
	assert_int_equal(history_render(f->h, minutes, &f->text), 0);
	assert_int_equal(buf_append(&f->text, "", 1), 0);
	return buf_slice(&f->text).p;
}

static void
nothing_is_known_before_the_first_step(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(render(f, 1), "{\"step\":10,\"end\":0,\"calls\":[],"
					  "\"added\":{\"p50\":[null,null,null,null,null,null],"
					  "\"p99\":[null,null,null,null,null,null]},"
					  "\"total\":{\"p50\":[null,null,null,null,null,null],"
					  "\"p99\":[null,null,null,null,null,null]},"
					  "\"lost\":[null,null,null,null,null,null],"
					  "\"trailFree\":[null,null,null,null,null,null]}\n");
}

static void
a_step_has_what_came_in_it(void **state)
{
	struct fixture *f = *state;

	call(f, "a.b", METRIC_OUTCOME_SUCCESS, 3);
	metrics_add(f->s, METRIC_EVENTS_LOST, METRIC_LOSS_TRAIL_FULL, 2);
	metrics_set(f->s, METRIC_TRAIL_FREE_BYTES, 0, 4096);
	step(f, STEP_NS);
	call(f, "a.b", METRIC_OUTCOME_SUCCESS, 1);
	call(f, "a.b", METRIC_OUTCOME_FAILURE, 1);
	call(f, "c.d", METRIC_OUTCOME_UNKNOWN, 2);
	step(f, STEP_NS + CLOCK_NS_PER_S);
	step(f, STEP_NS - CLOCK_NS_PER_S);
	assert_string_equal(render(f, 1),
	    "{\"step\":10,\"end\":1035,\"calls\":["
	    "{\"action\":\"a.b\",\"outcome\":\"success\",\"values\":[null,null,null,3,1,0]},"
	    "{\"action\":\"a.b\",\"outcome\":\"failure\",\"values\":[null,null,null,0,1,0]},"
	    "{\"action\":\"c.d\",\"outcome\":\"unknown\",\"values\":[null,null,null,0,2,0]}],"
	    "\"added\":{\"p50\":[null,null,null,null,null,null],"
	    "\"p99\":[null,null,null,null,null,null]},"
	    "\"total\":{\"p50\":[null,null,null,null,null,null],"
	    "\"p99\":[null,null,null,null,null,null]},"
	    "\"lost\":[null,null,null,2,0,0],"
	    "\"trailFree\":[null,null,null,4096,4096,4096]}\n");
}

/* 100 observations between 1 and 1.5 ms, and of the next step two between 0.5 and 1 s. */
static void
percentiles_are_of_the_step(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 100; i++)
		metrics_observe(f->s, METRIC_ADDED_SECONDS, 0.0012);
	step(f, STEP_NS);
	metrics_observe(f->s, METRIC_ADDED_SECONDS, 0.6);
	metrics_observe(f->s, METRIC_ADDED_SECONDS, 0.7);
	metrics_observe(f->s, METRIC_REQUEST_SECONDS, 3600); /* above every bound */
	step(f, STEP_NS);
	assert_non_null(
	    strstr(render(f, 1), "\"added\":{\"p50\":[null,null,null,null,0.001250,0.750000],"
				 "\"p99\":[null,null,null,null,0.001495,0.995000]},"
				 "\"total\":{\"p50\":[null,null,null,null,null,60.000000],"));
}

static void
time_that_nobody_looked_at_is_unknown(void **state)
{
	struct fixture *f = *state;

	step(f, STEP_NS);
	call(f, "a.b", METRIC_OUTCOME_SUCCESS, 7);
	step(f, 3 * STEP_NS);
	assert_non_null(strstr(render(f, 1), "\"values\":[null,null,0,null,null,7]"));
	step(f, INT64_C(100000) * STEP_NS);
	assert_non_null(strstr(render(f, 1), "\"calls\":[],"));
	assert_non_null(strstr(render(f, 1), "\"lost\":[null,null,null,null,null,0]"));
}

static void
an_hour_is_kept(void **state)
{
	struct fixture *f = *state;

	call(f, "a.b", METRIC_OUTCOME_SUCCESS, 9);
	step(f, STEP_NS);
	for (unsigned i = 1; i < HISTORY_STEPS; i++)
		step(f, STEP_NS);
	assert_non_null(strstr(render(f, HISTORY_MINUTES), "\"values\":[9,0,"));
	step(f, STEP_NS);
	assert_non_null(strstr(render(f, HISTORY_MINUTES), "\"calls\":[],"));
}

static void
actions_beyond_those_that_fit_are_one(void **state)
{
	struct fixture *f = *state;
	char action[32];
	const char *text;
	unsigned n = 0;

	for (unsigned i = 0; i < 2 * HISTORY_SERIES; i++) {
		snprintf(action, sizeof(action), "a.n%u", i);
		call(f, action, METRIC_OUTCOME_SUCCESS, 1);
	}
	step(f, STEP_NS);
	step(f, STEP_NS);
	text = render(f, 1);
	for (const char *p = text; (p = strstr(p, "\"action\"")) != NULL; p++)
		n++;
	assert_int_equal(n, HISTORY_SERIES);
	assert_non_null(strstr(text, "{\"action\":\"other\",\"outcome\":\"success\","
				     "\"values\":[null,null,null,null,65,0]}"));
}

static const struct {
	double first, slope; /* bytes, bytes a step */
	unsigned steps;
	double want;
} trends[] = {
	{ 1e9, -1e6, 61, (1e9 - 60e6) / 1e5 },
	{ 1e9, -1e6, HISTORY_STEPS, (1e9 - 359e6) / 1e5 },
	{ 1e9, -1e6, 2 * HISTORY_STEPS, (1e9 - 719e6) / 1e5 },
	{ 1e9, -1e6, 60, (double)INFINITY }, /* too short to tell */
	{ 1e9, 0, 61, (double)INFINITY },
	{ 1e9, 5, 61, (double)INFINITY },
};

static void
the_trail_is_full_when_it_goes_on_so(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(trends) / sizeof(trends[0]); i++) {
		struct fixture *f = NULL;

		setup((void **)&f);
		for (unsigned j = 0; j < trends[i].steps; j++) {
			metrics_set(f->s, METRIC_TRAIL_FREE_BYTES, 0,
			    trends[i].first + j * trends[i].slope);
			step(f, STEP_NS);
		}
		if (isinf(trends[i].want))
			assert_true(isinf(history_seconds_to_full(f->h)));
		else
			assert_true(fabs(history_seconds_to_full(f->h) - trends[i].want) < 1e-3);
		teardown((void **)&f);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(nothing_is_known_before_the_first_step),
		TEST(a_step_has_what_came_in_it),
		TEST(percentiles_are_of_the_step),
		TEST(time_that_nobody_looked_at_is_unknown),
		TEST(an_hour_is_kept),
		TEST(actions_beyond_those_that_fit_are_one),
		cmocka_unit_test(the_trail_is_full_when_it_goes_on_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
