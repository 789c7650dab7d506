#include "admin/attempts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define NOW INT64_C(1000000000000)

static void
use_up(struct attempts *a, const char *address)
{
	for (int i = 0; i < ATTEMPTS_MAX; i++) {
		assert_true(attempts_allow(a, address, NOW));
		attempts_count(a, address, NOW);
	}
	assert_false(attempts_allow(a, address, NOW));
}

static void
some_at_once_and_one_more_each_time(void **state)
{
	struct attempts a = { 0 };

	(void)state;
	use_up(&a, "192.0.2.1");
	assert_false(attempts_allow(&a, "192.0.2.1", NOW + ATTEMPTS_EACH_NS - 1));
	assert_true(attempts_allow(&a, "192.0.2.1", NOW + ATTEMPTS_EACH_NS));
	attempts_count(&a, "192.0.2.1", NOW + ATTEMPTS_EACH_NS);
	assert_false(attempts_allow(&a, "192.0.2.1", NOW + ATTEMPTS_EACH_NS));
}

static void
a_source_is_an_address_or_a_network_of_64_bits(void **state)
{
	struct attempts a = { 0 };

	(void)state;
	use_up(&a, "192.0.2.1");
	assert_true(attempts_allow(&a, "192.0.2.2", NOW));
	use_up(&a, "2001:db8::1");
	assert_false(attempts_allow(&a, "2001:db8::1:2:3:4", NOW));
	assert_true(attempts_allow(&a, "2001:db8:0:1::1", NOW));
}

static const struct {
	const char *one, *other;
	bool same;
} pairs[] = {
	{ "::ffff:192.0.2.1", "::ffff:192.0.2.2", false },
	{ "::ffff:192.0.2.1", "::1", false },
	{ "::ffff:192.0.2.1", "192.0.2.1", true },
	{ "127.0.0.1", "::1", false },
	{ "fe80::1%eth0", "::1", false },
	{ "fe80::1%eth0", "unknown", false },
	{ "fe80::1%eth0", "fe80::1", true },
	{ "fe80::1%eth0", "fe80::2%a-link-whose-name-is-longer-than-any-address-may-be", true },
};

static void
as_a_listener_on_all_addresses_has_them(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct attempts a = { 0 };

		use_up(&a, pairs[i].one);
		if (attempts_allow(&a, pairs[i].other, NOW) == pairs[i].same)
			fail_msg("%s and %s", pairs[i].one, pairs[i].other);
	}
}

/* Those who come once do not make room for one who came often. */
static void
many_sources_do_not_hide_one(void **state)
{
	struct attempts a = { 0 };
	char address[32];

	(void)state;
	use_up(&a, "192.0.2.1");
	for (unsigned i = 0; i < 10 * ATTEMPTS_SOURCES; i++) {
		snprintf(address, sizeof(address), "10.0.%u.%u", i >> 8, i & 255);
		assert_true(attempts_allow(&a, address, NOW));
		attempts_count(&a, address, NOW);
	}
	assert_false(attempts_allow(&a, "192.0.2.1", NOW));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(some_at_once_and_one_more_each_time),
		cmocka_unit_test(a_source_is_an_address_or_a_network_of_64_bits),
		cmocka_unit_test(as_a_listener_on_all_addresses_has_them),
		cmocka_unit_test(many_sources_do_not_hide_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
