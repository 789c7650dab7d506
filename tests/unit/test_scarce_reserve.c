/*
 * What libevent has when malloc gives nothing.
 */
#include "scarce.h"

#include "admin/reserve.h"

#include <event2/buffer.h>

#define MANY 20000 /* more than there are */

static struct evbuffer *all[MANY];

/* As many as there are blocks. */
static unsigned
take_all(void)
{
	unsigned n = 0;

	while (n < MANY && (all[n] = evbuffer_new()) != NULL)
		n++;
	return n;
}

static void
give_back(unsigned n)
{
	while (n > 0)
		evbuffer_free(all[--n]);
}

static void
test_what_is_given_back_is_there_again(void **state)
{
	unsigned first, again;

	(void)state;
	scarce.first = 1;
	scarce.times = ULONG_MAX;
	scarce.on = true;
	first = take_all();
	give_back(first);
	again = take_all();
	give_back(again);
	scarce.on = false;
	assert_true(first > 1000 && first < MANY);
	assert_int_equal(again, first);
}

static void
test_what_is_large_is_missing(void **state)
{
	static char large[100000];
	struct evbuffer *b;
	int small_rc, large_rc;

	(void)state;
	scarce.on = true;
	b = evbuffer_new();
	small_rc = evbuffer_add(b, large, 100);
	large_rc = evbuffer_add(b, large, sizeof(large));
	scarce.on = false;
	assert_int_equal(small_rc, 0);
	assert_int_equal(large_rc, -1);
	evbuffer_free(b);
}

static void
test_with_memory_it_is_not_touched(void **state)
{
	unsigned n;

	(void)state;
	scarce.held = 0;
	n = take_all();
	assert_int_equal(n, MANY);
	assert_int_equal(scarce.held, MANY);
	give_back(n);
	assert_int_equal(scarce.held, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_given_back_is_there_again),
		cmocka_unit_test(test_what_is_large_is_missing),
		cmocka_unit_test(test_with_memory_it_is_not_touched),
	};

	reserve_install();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
