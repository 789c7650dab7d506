#include "data/shapes.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int
setup(void **state)
{
	struct err err;

	return (*state = shapes_new(&err)) != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	shapes_free(*state);
	return 0;
}

static void
each_is_counted_in_the_order_of_coming(void **state)
{
	struct shape all[SHAPES_MAX];
	uint64_t others;

	assert_int_equal(shapes_list(*state, all, &others), 0);
	shapes_count(*state, "/api/v2/{}", 7);
	shapes_count(*state, "{}", 8);
	shapes_count(*state, "/api/v2/{}", 9);
	assert_int_equal(shapes_list(*state, all, &others), 2);
	assert_string_equal(all[0].text, "/api/v2/{}");
	assert_int_equal(all[0].count, 2);
	assert_int_equal(all[0].last_ns, 9);
	assert_string_equal(all[1].text, "{}");
	assert_int_equal(all[1].count, 1);
	assert_int_equal(others, 0);
}

static void
those_beyond_are_one_number(void **state)
{
	struct shape all[SHAPES_MAX];
	uint64_t others;
	char text[32];

	for (int twice = 0; twice < 2; twice++)
		for (int i = 0; i < SHAPES_MAX + 10; i++) {
			snprintf(text, sizeof(text), "/%d", i);
			shapes_count(*state, text, 1);
		}
	assert_int_equal(shapes_list(*state, all, &others), SHAPES_MAX);
	assert_int_equal(others, 20);
	for (int i = 0; i < SHAPES_MAX; i++)
		assert_int_equal(all[i].count, 2);
}

#define THREADS 4
#define TIMES	500

struct race {
	pthread_barrier_t start;
	struct shapes *shapes;
};

static void *
count_all(void *arg)
{
	struct race *r = arg;
	char text[32];

	pthread_barrier_wait(&r->start);
	for (int i = 0; i < 2 * SHAPES_MAX; i++) {
		snprintf(text, sizeof(text), "/%d", i);
		shapes_count(r->shapes, text, 1);
	}
	return NULL;
}

static void
race_once(void)
{
	struct shape all[SHAPES_MAX];
	pthread_t threads[THREADS];
	struct race r;
	struct err err;
	uint64_t others;

	r.shapes = shapes_new(&err);
	pthread_barrier_init(&r.start, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_all, &r), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(shapes_list(r.shapes, all, &others), SHAPES_MAX);
	assert_int_equal(others, THREADS * SHAPES_MAX);
	for (int i = 0; i < SHAPES_MAX; i++)
		assert_int_equal(all[i].count, THREADS);
	pthread_barrier_destroy(&r.start);
	shapes_free(r.shapes);
}

/* Those that add one at the same time add it once. */
static void
threads_lose_no_count(void **state)
{
	(void)state;
	for (int i = 0; i < TIMES; i++)
		race_once();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(each_is_counted_in_the_order_of_coming),
		TEST(those_beyond_are_one_number),
		TEST(threads_lose_no_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
