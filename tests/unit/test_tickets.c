#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/tickets.h"

#include <pthread.h>
#include <string.h>

#define LIFE TICKETS_LIFETIME_S

static struct tickets *
make(int64_t now)
{
	struct err err;
	struct tickets *t = tickets_new(now, &err);

	assert_non_null(t);
	return t;
}

static struct ticket_key
seal(struct tickets *t, int64_t now)
{
	struct ticket_key k;

	assert_int_equal(tickets_seal_key(t, now, &k), 0);
	return k;
}

static enum ticket_age
age(struct tickets *t, const struct ticket_key *k, int64_t now)
{
	struct ticket_key out;
	enum ticket_age a = tickets_open_key(t, k->name, now, &out);

	if (a != TICKET_UNKNOWN)
		assert_memory_equal(&out, k, sizeof(out));
	return a;
}

static void
a_key_seals_for_a_lifetime_and_opens_for_another(void **state)
{
	struct tickets *t = make(1000);
	struct ticket_key first = seal(t, 1000), last = seal(t, 1000 + LIFE - 1), next;

	(void)state;
	assert_memory_equal(&first, &last, sizeof(first));
	assert_int_equal(age(t, &first, 1000 + LIFE - 1), TICKET_CURRENT);
	next = seal(t, 1000 + LIFE);
	assert_memory_not_equal(first.name, next.name, sizeof(next.name));
	assert_memory_not_equal(first.cipher, next.cipher, sizeof(next.cipher));
	assert_memory_not_equal(first.mac, next.mac, sizeof(next.mac));
	assert_int_equal(age(t, &next, 1000 + LIFE), TICKET_CURRENT);
	assert_int_equal(age(t, &first, 1000 + 2 * LIFE - 1), TICKET_OLD);
	assert_int_equal(age(t, &first, 1000 + 2 * LIFE), TICKET_UNKNOWN);
	tickets_unref(t);
}

/* Nothing is sealed for so long that no rotation came. */
static void
a_key_ends_also_where_nobody_seals(void **state)
{
	struct tickets *t = make(0);
	struct ticket_key k = seal(t, 0), next;

	(void)state;
	assert_int_equal(age(t, &k, LIFE), TICKET_OLD);
	assert_int_equal(age(t, &k, 2 * LIFE), TICKET_UNKNOWN);
	next = seal(t, 5 * LIFE);
	assert_memory_not_equal(k.name, next.name, sizeof(next.name));
	assert_int_equal(age(t, &k, 5 * LIFE), TICKET_UNKNOWN);
	tickets_unref(t);
}

static void
only_names_that_were_given_out_are_known(void **state)
{
	struct tickets *a = make(0), *b = make(0);
	struct ticket_key k = seal(a, 0), zero = { { 0 }, { 0 }, { 0 } };

	(void)state;
	assert_int_equal(age(b, &k, 0), TICKET_UNKNOWN);
	assert_int_equal(age(a, &zero, 0), TICKET_UNKNOWN); /* there is no previous key yet */
	tickets_unref(a);
	tickets_unref(b);
}

static void *
use(void *arg)
{
	struct tickets *t = arg;

	for (int i = 0; i < 2000; i++) {
		int64_t now = i * (int64_t)(LIFE / 100);
		struct ticket_key k, out;

		assert_int_equal(tickets_seal_key(t, now, &k), 0);
		tickets_open_key(t, k.name, now, &out);
	}
	tickets_unref(t);
	return NULL;
}

static void
threads_share_them(void **state)
{
	struct tickets *t = make(0);
	pthread_t threads[4];

	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use, tickets_ref(t)), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	tickets_unref(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_seals_for_a_lifetime_and_opens_for_another),
		cmocka_unit_test(a_key_ends_also_where_nobody_seals),
		cmocka_unit_test(only_names_that_were_given_out_are_known),
		cmocka_unit_test(threads_share_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
