#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench_worker.h"
#include "data/conn.h"
#include "keytrail/clock.h"

#define HOUR_NS (INT64_C(3600) * CLOCK_NS_PER_S)

static int
setup(void **state)
{
	static struct config_network everywhere[1];
	struct bench *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return -1;
	b->config.timeouts =
	    (struct config_timeouts){ .handshake = 60000, .head = 60000, .idle = 60000 };
	b->config.trusted_networks = everywhere;
	b->config.ntrusted_networks = 1;
	bench_open(b, &conn_hooks);
	*state = b;
	return 0;
}

/* Somebody who has connected, and asks for nothing yet. */
static int
connect_to(struct bench *b)
{
	static const struct sockaddr_storage peer = { .ss_family = AF_UNIX };
	int pair[2];

	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	atomic_fetch_add(&b->connections, 1);
	conn_hooks.accept(b->worker, pair[0], &peer);
	bench_turn(b);
	return pair[1];
}

static bool
is_open(int client)
{
	char byte;
	ssize_t n = recv(client, &byte, 1, MSG_DONTWAIT);

	assert_true(n == 0 || (n == -1 && errno == EAGAIN));
	return n == -1;
}

static void
drain(struct bench *b, enum worker_draining how, int64_t left_ns)
{
	worker_drain(b->worker, how, clock_mono_ns() + left_ns);
	bench_turn(b);
}

static void
who_is_idle_may_still_ask_a_worker_that_leaves(void **state)
{
	int before = connect_to(*state), amid;

	drain(*state, WORKER_LEAVES, HOUR_NS);
	amid = connect_to(*state);
	assert_true(is_open(before) && is_open(amid));
	drain(*state, WORKER_STOPS, HOUR_NS);
	assert_false(is_open(before) || is_open(amid));
	close(before);
	close(amid);
}

static void
a_worker_that_stops_takes_nobody(void **state)
{
	int client;

	drain(*state, WORKER_STOPS, HOUR_NS);
	client = connect_to(*state);
	assert_false(is_open(client));
	close(client);
}

static void
nobody_stays_beyond_the_deadline(void **state)
{
	int client = connect_to(*state);

	drain(*state, WORKER_LEAVES, HOUR_NS);
	assert_true(is_open(client));
	drain(*state, WORKER_LEAVES, 0);
	while (is_open(client))
		bench_wait(*state);
	close(client);
}

static void
who_is_idle_for_long_goes_as_ever(void **state)
{
	struct bench *b = *state;
	int client;

	b->config.timeouts.idle = 1;
	client = connect_to(b);
	drain(b, WORKER_LEAVES, HOUR_NS);
	while (is_open(client))
		bench_wait(b);
	assert_int_equal(b->worker->nconns, 0);
	close(client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, bench_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(who_is_idle_may_still_ask_a_worker_that_leaves),
		TEST(a_worker_that_stops_takes_nobody),
		TEST(nobody_stays_beyond_the_deadline),
		TEST(who_is_idle_for_long_goes_as_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
