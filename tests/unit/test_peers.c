#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/origin.h"
#include "data/peers.h"
#include "keytrail/clock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define START (1000 * CLOCK_NS_PER_S)

static struct peer *
hold(struct peers *p, const char *text, int64_t now)
{
	struct sockaddr_storage ss = { .ss_family = AF_INET6 };
	struct origin o;

	assert_int_equal(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&ss)->sin6_addr), 1);
	origin_of_peer(&ss, &o);
	return peers_hold(p, o.address, now);
}

static int
setup(void **state)
{
	struct err err;

	return (*state = peers_new(&err)) != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	peers_free(*state);
	return 0;
}

static const struct {
	const char *label, *a, *b;
	bool same;
} sources[] = {
	{ "an IPv4 address", "::ffff:192.0.2.1", "::ffff:192.0.2.1", true },
	{ "its neighbour", "::ffff:192.0.2.1", "::ffff:192.0.2.2", false },
	{ "two addresses of an IPv6 /64", "2001:db8::1", "2001:db8::ffff:2", true },
	{ "two /64 of a site", "2001:db8:0:1::1", "2001:db8:0:2::1", false },
};

static void
a_source_is_what_one_host_is_given(void **state)
{
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		struct peer *a = hold(*state, sources[i].a, START);
		struct peer *b = hold(*state, sources[i].b, START);

		if ((a == b) != sources[i].same)
			fail_msg("%s", sources[i].label);
		peers_drop(*state, a);
		peers_drop(*state, b);
	}
}

static void
a_source_is_named_as_what_it_is(void **state)
{
	const unsigned char v4[16] = { [10] = 0xff, 0xff, 192, 0, 2, 1 };
	const unsigned char v6[16] = { 0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0xff, 0xff, 1 };
	char text[PEERS_TEXT_SIZE];

	(void)state;
	peers_source_text(v4, text);
	assert_string_equal(text, "192.0.2.1");
	peers_source_text(v6, text);
	assert_string_equal(text, "2001:db8:ffff:ffff::/64");
}

static void
connections_are_limited_for_each_source(void **state)
{
	struct peer *a = hold(*state, "2001:db8::1", START),
		    *b = hold(*state, "2001:db9::1", START);

	assert_true(peer_connect(a, 2));
	assert_true(peer_connect(a, 2));
	assert_false(peer_connect(a, 2));
	assert_true(peer_connect(b, 2));
	peer_disconnect(a);
	assert_true(peer_connect(a, 2));
	assert_true(peer_connect(a, 0));
	for (int i = 0; i < 3; i++)
		peer_disconnect(a);
	peer_disconnect(b);
	peers_drop(*state, a);
	peers_drop(*state, b);
}

static unsigned
allowed(struct peer *peer, unsigned rate, int64_t now, unsigned tries)
{
	unsigned n = 0;

	while (tries-- > 0)
		n += peer_may_request(peer, rate, now);
	return n;
}

static void
a_rate_allows_a_second_at_once_and_then_its_pace(void **state)
{
	struct peer *a = hold(*state, "2001:db8::1", START);

	assert_int_equal(allowed(a, 10, START, 100), 10);
	assert_int_equal(allowed(a, 10, START + CLOCK_NS_PER_S / 10 - 1, 5), 0);
	assert_int_equal(allowed(a, 10, START + CLOCK_NS_PER_S / 10, 5), 1);
	assert_int_equal(allowed(a, 10, START + CLOCK_NS_PER_S / 2, 100), 4);
	assert_int_equal(allowed(a, 10, START + 60 * CLOCK_NS_PER_S, 100), 10);
	assert_int_equal(allowed(a, 0, START, 100), 100);
	assert_int_equal(allowed(a, 1, START + 90 * CLOCK_NS_PER_S, 100), 1);
	/* The two rates are apart. */
	assert_true(peer_may_record(a, 1, START));
	assert_false(peer_may_record(a, 1, START));
	peers_drop(*state, a);
}

static void
connecting_anew_wins_nothing_back(void **state)
{
	struct peer *a = hold(*state, "2001:db8::1", START);

	assert_int_equal(allowed(a, 10, START, 100), 10);
	peers_drop(*state, a);
	for (int i = 0; i < 40000; i++) {
		char other[40];

		snprintf(other, sizeof(other), "2001:db9:%x:%x::1", (unsigned)i % 256,
		    (unsigned)i / 256);
		peers_drop(*state, hold(*state, other, START + CLOCK_NS_PER_S / 2));
	}
	a = hold(*state, "2001:db8::1", START + CLOCK_NS_PER_S / 2);
	assert_int_equal(allowed(a, 10, START + CLOCK_NS_PER_S / 2, 100), 5);
	peers_drop(*state, a);
}

static void
sources_that_have_gone_are_forgotten(void **state)
{
	for (unsigned i = 0; i < 3 * PEERS_MAX; i++) {
		char text[40];
		struct peer *a;

		snprintf(text, sizeof(text), "2001:%x:%x::1", i / 65536, i % 65536);
		a = hold(*state, text, START + i);
		assert_non_null(a);
		peers_drop(*state, a);
	}
	assert_int_equal(peers_count(*state), 1);
}

static void
sources_whose_rates_have_recovered_are_forgotten(void **state)
{
	for (unsigned i = 0; i < 1000; i++) {
		char text[40];
		struct peer *a;

		snprintf(text, sizeof(text), "2001:db8:%x:1::1", i);
		a = hold(*state, text, START);
		assert_true(peer_may_request(a, 1, START));
		peers_drop(*state, a);
	}
	peers_drop(*state, hold(*state, "2001:db9::1", START + CLOCK_NS_PER_S - 1));
	assert_int_equal(peers_count(*state), 1001);
	peers_drop(*state, hold(*state, "2001:dba::1", START + CLOCK_NS_PER_S));
	assert_int_equal(peers_count(*state), 1);
}

static const struct {
	const char *label;
	unsigned char address[16];
	unsigned varies; /* the first of two bytes */
} neighbours[] = {
	{ "a /16", { [10] = 0xff, 0xff, 10, 0 }, 14 },
	{ "the first of 65,536 /16", { [10] = 0xff, 0xff, [15] = 1 }, 12 },
	{ "an IPv6 /48", { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 }, 6 },
	{ "the first /64 of each /48 of an IPv6 /32", { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 }, 4 },
};

/* A bucket is expected to have four. */
static void
neighbours_are_spread(void **state)
{
	struct peer **all = calloc(PEERS_MAX, sizeof(struct peer *));

	assert_non_null(all);
	for (size_t n = 0; n < sizeof(neighbours) / sizeof(neighbours[0]); n++) {
		for (unsigned i = 0; i < PEERS_MAX; i++) {
			unsigned char address[16];

			memcpy(address, neighbours[n].address, sizeof(address));
			address[neighbours[n].varies] = (unsigned char)(i >> 8);
			address[neighbours[n].varies + 1] = (unsigned char)i;
			assert_non_null(all[i] = peers_hold(*state, address, START));
		}
		if (peers_longest(*state) > 40)
			fail_msg("%s: %u", neighbours[n].label, peers_longest(*state));
		for (unsigned i = 0; i < PEERS_MAX; i++)
			peers_drop(*state, all[i]);
	}
	free(all);
}

static void
sources_that_stay_are_not_forgotten(void **state)
{
	struct peer **all = calloc(PEERS_MAX, sizeof(struct peer *));
	char text[40];

	assert_non_null(all);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		snprintf(text, sizeof(text), "2001:db8:%x:1::1", i);
		assert_non_null(all[i] = hold(*state, text, START));
	}
	assert_null(hold(*state, "2001:db9::1", START));
	assert_ptr_equal(hold(*state, "2001:db8:0:1::2", START), all[0]);
	peers_drop(*state, all[0]);
	for (unsigned i = 0; i < PEERS_MAX; i++)
		peers_drop(*state, all[i]);
	free(all);
}

static void *
knock(void *arg)
{
	unsigned *n = malloc(sizeof(*n));

	*n = 0;
	for (int i = 0; i < 5000; i++) {
		struct peer *a = hold(arg, "2001:db8::1", START);

		if (peer_connect(a, 2)) {
			*n += peer_may_request(a, 1000, START);
			peer_disconnect(a);
		}
		peers_drop(arg, a);
	}
	return n;
}

static void
threads_together_get_no_more_than_one(void **state)
{
	pthread_t threads[4];
	unsigned total = 0;
	void *n;

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, knock, *state), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &n);
		total += *(unsigned *)n;
		free(n);
	}
	assert_int_equal(total, 1000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
		    a_source_is_what_one_host_is_given, setup, teardown),
		cmocka_unit_test(a_source_is_named_as_what_it_is),
		cmocka_unit_test_setup_teardown(
		    connections_are_limited_for_each_source, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    a_rate_allows_a_second_at_once_and_then_its_pace, setup, teardown),
		cmocka_unit_test_setup_teardown(connecting_anew_wins_nothing_back, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    sources_that_have_gone_are_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    sources_whose_rates_have_recovered_are_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(neighbours_are_spread, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    sources_that_stay_are_not_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    threads_together_get_no_more_than_one, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
