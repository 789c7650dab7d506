#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench_worker.h"
#include "data/upstream.h"
#include "keytrail/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIVE 2 /* listening sockets */

struct fixture {
	struct bench bench;
	struct config_address addresses[4];
	char host[16];
	int listeners[LIVE];
	uint16_t ports[LIVE];
	int holder; /* bound, but nobody listens */
	uint16_t dead;
};

/* No local port is free for connections to one port, or to any. */
#define ANY_PORT 1
static uint16_t unreachable;

int
connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t len)
{
	uint16_t port = ntohs(to.__sockaddr_in__->sin_port);

	if (unreachable == port || unreachable == ANY_PORT) {
		errno = EADDRNOTAVAIL;
		return -1;
	}
	return (int)syscall(SYS_connect, fd, to.__sockaddr__, len);
}

static int
init(struct worker *w, struct err *err)
{
	return (w->upstream = upstream_new(w, err)) != NULL ? 0 : -1;
}

static void
fini(struct worker *w)
{
	upstream_free(w->upstream);
}

static void
reload(struct worker *w)
{
	upstream_reconfigure(w->upstream);
}

static const struct worker_hooks hooks = { .init = init, .fini = fini, .reload = reload };

static int
bound(uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (f == NULL)
		return -1;
	snprintf(f->host, sizeof(f->host), "127.0.0.1");
	for (int i = 0; i < LIVE; i++) {
		f->listeners[i] = bound(&f->ports[i]);
		assert_int_equal(listen(f->listeners[i], 16), 0);
	}
	f->holder = bound(&f->dead);
	f->bench.config.upstream.addresses = f->addresses;
	f->bench.config.upstream.pool_idle = 4;
	f->bench.config.upstream.pool_max = 4;
	f->bench.config.upstream.pool_timeout = 60000;
	f->bench.config.timeouts.connect = 20000;
	*state = f;
	return 0;
}

/* The addresses in turn; 0 ends them. */
static void
start(struct fixture *f, uint16_t a, uint16_t b)
{
	uint16_t ports[] = { a, b };
	size_t n = 0;

	for (; n < 2 && ports[n] != 0; n++)
		f->addresses[n] = (struct config_address){ f->host, ports[n] };
	f->bench.config.upstream.naddresses = n;
	bench_open(&f->bench, &hooks);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	unreachable = 0;
	bench_close(&f->bench);
	for (int i = 0; i < LIVE; i++)
		close(f->listeners[i]);
	close(f->holder);
	free(f);
	return 0;
}

/* ---- one who asks ---- */

struct asker {
	struct upstream_request request;
	struct upstream_conn *conn;
	enum http_refusal why;
	unsigned calls;
};

static void
on_done(void *arg, struct upstream_conn *c, enum http_refusal why)
{
	struct asker *a = arg;

	a->calls++;
	a->conn = c;
	a->why = why;
}

static void
on_stream(void *arg)
{
	(void)arg;
}

static void
ask_for(struct fixture *f, struct asker *a, bool fresh, const unsigned char *source)
{
	*a = (struct asker){ .request = { .done = on_done, .source = source } };
	a->request.arg = a;
	a->conn = upstream_acquire(f->bench.worker->upstream, &a->request, fresh);
}

static void
ask(struct fixture *f, struct asker *a, bool fresh)
{
	ask_for(f, a, fresh, NULL);
}

static void
hold(struct asker *a)
{
	assert_non_null(a->conn);
	a->conn->ready = on_stream;
	a->conn->arg = a;
}

static void
ask_and_wait(struct fixture *f, struct asker *a, bool fresh)
{
	ask(f, a, fresh);
	while (a->conn == NULL && a->calls == 0)
		bench_wait(&f->bench);
	if (a->conn != NULL)
		hold(a);
}

static uint16_t
port_of(const struct asker *a)
{
	return ntohs(((const struct sockaddr_in *)&a->conn->target.address)->sin_port);
}

static double
gauge(struct fixture *f, enum metric_id id)
{
	return metrics_value(f->bench.metrics, id, 0);
}

/* ---- targets ---- */

static void
addresses_are_taken_in_turn(void **state)
{
	struct fixture *f = *state;
	struct asker a, b;

	start(f, f->ports[0], f->ports[1]);
	ask_and_wait(f, &a, false);
	ask_and_wait(f, &b, false);
	assert_int_not_equal(port_of(&a), port_of(&b));
	upstream_release(a.conn, false);
	upstream_release(b.conn, false);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
}

static void
a_dead_address_is_stepped_over_and_set_aside(void **state)
{
	struct fixture *f = *state;
	struct asker a[4];

	start(f, f->dead, f->ports[0]);
	for (int i = 0; i < 4; i++) {
		ask_and_wait(f, &a[i], true);
		assert_int_equal(port_of(&a[i]), f->ports[0]);
		assert_int_equal(a[i].request.tries, i == 0 ? 2 : 1);
	}
	for (int i = 0; i < 4; i++)
		upstream_release(a[i].conn, false);
}

static void
when_all_are_dead_each_is_tried_once(void **state)
{
	struct fixture *f = *state;
	struct asker a;

	start(f, f->dead, f->dead == 1 ? 2 : 1);
	for (int i = 0; i < 2; i++) {
		ask_and_wait(f, &a, false);
		assert_null(a.conn);
		assert_int_equal(a.calls, 1);
		assert_int_equal(a.why, REFUSAL_UPSTREAM_UNREACHABLE);
		assert_int_equal(a.request.tries, 2);
	}
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
}

/* As to ::1 where IPv6 is off. */
static void
where_no_local_port_leads_to_an_address_the_next_one_is_tried(void **state)
{
	struct fixture *f = *state;
	struct asker a[4];

	start(f, f->ports[1], f->ports[0]);
	unreachable = f->ports[1];
	for (int i = 0; i < 4; i++) {
		ask_and_wait(f, &a[i], true);
		assert_int_equal(port_of(&a[i]), f->ports[0]);
	}
	for (int i = 0; i < 4; i++)
		upstream_release(a[i].conn, false);
}

static void
no_address_is_to_blame_for_a_want_of_local_ports(void **state)
{
	struct fixture *f = *state;
	struct asker a;

	start(f, f->ports[0], f->ports[1]);
	unreachable = ANY_PORT;
	for (int i = 0; i < 2; i++) {
		ask_and_wait(f, &a, false);
		assert_null(a.conn);
		assert_int_equal(a.why, REFUSAL_UPSTREAM_BUSY);
		assert_int_equal(a.request.tries, 2);
	}
	assert_int_equal(
	    metrics_value(f->bench.metrics, METRIC_UPSTREAM_FAILURES, UPSTREAM_FAILURE_CONNECT), 0);
	unreachable = 0;
	ask_and_wait(f, &a, false);
	upstream_release(a.conn, false);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
}

/* A service that refuses is what stands in the way, whichever was tried last. */
static void
who_is_dead_is_blamed_beside_a_want_of_local_ports(void **state)
{
	struct fixture *f = *state;
	struct asker a;

	start(f, f->dead, f->ports[0]);
	unreachable = f->ports[0];
	for (int i = 0; i < 3; i++) {
		ask_and_wait(f, &a, false);
		assert_null(a.conn);
		assert_int_equal(a.why, REFUSAL_UPSTREAM_UNREACHABLE);
	}
}

static void
reload_to(struct fixture *f, struct snapshot *s)
{
	struct worker_reload *r;
	struct err err;

	r = worker_reload_prepare(&f->bench.worker, 1, s, &err);
	assert_non_null(r);
	worker_reload_commit(r);
	while (f->bench.worker->lease->snapshot != s)
		bench_wait(&f->bench);
}

static void
a_reload_forgets_only_what_is_named_no_more(void **state)
{
	struct config_address elsewhere = { (char[]){ "elsewhere.invalid" }, 443 };
	struct fixture *f = *state;
	struct snapshot same = { .refs = 1000, .config = &f->bench.config }, other;
	struct config config;
	struct asker a;

	start(f, f->ports[0], 0);
	/* What was found stays in use while it is looked up again, with or without success. */
	snprintf(f->host, sizeof(f->host), "nowhere.invalid");
	reload_to(f, &same);
	ask_and_wait(f, &a, false);
	assert_non_null(a.conn);
	assert_int_equal(port_of(&a), f->ports[0]);
	upstream_release(a.conn, false);
	config = f->bench.config;
	config.upstream.addresses = &elsewhere;
	other = (struct snapshot){ .refs = 1000, .config = &config };
	reload_to(f, &other);
	ask(f, &a, false);
	bench_turn(&f->bench);
	assert_null(a.conn);
	upstream_cancel(f->bench.worker->upstream, &a.request);
	reload_to(f, &f->bench.snapshot); /* which outlives this function */
}

/* ---- the pool ---- */

static void
a_connection_is_used_again_unless_a_fresh_one_is_asked_for(void **state)
{
	struct fixture *f = *state;
	struct asker a, b, c;
	struct upstream_conn *first;

	start(f, f->ports[0], 0);
	ask_and_wait(f, &a, false);
	assert_false(a.conn->reused);
	first = a.conn;
	upstream_release(a.conn, true);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_IDLE), 1);
	ask(f, &b, false);
	assert_ptr_equal(b.conn, first);
	assert_true(b.conn->reused);
	upstream_release(b.conn, true);
	ask_and_wait(f, &c, true);
	assert_ptr_not_equal(c.conn, first);
	assert_false(c.conn->reused);
	upstream_release(c.conn, true);
	upstream_reconfigure(f->bench.worker->upstream);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
}

static void
what_is_not_clean_is_not_used_again(void **state)
{
	struct fixture *f = *state;
	struct asker a;
	int peer;

	start(f, f->ports[0], 0);
	/* Bytes that nobody has asked for, in our buffer. */
	ask_and_wait(f, &a, false);
	buf_append(&a.conn->in, "x", 1);
	upstream_release(a.conn, true);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
	close(accept(f->listeners[0], NULL, NULL));
	/* In the kernel's, already announced. */
	ask_and_wait(f, &a, false);
	peer = accept(f->listeners[0], NULL, NULL);
	assert_int_equal(write(peer, "x", 1), 1);
	while (!a.conn->stream.readable)
		bench_wait(&f->bench);
	upstream_release(a.conn, true);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
	close(peer);
	/* Arriving while it is idle: bytes, or its end. */
	for (int i = 0; i < 2; i++) {
		ask_and_wait(f, &a, false);
		peer = accept(f->listeners[0], NULL, NULL);
		bench_turn(&f->bench);
		upstream_release(a.conn, true);
		if (i == 0)
			assert_int_equal(write(peer, "x", 1), 1);
		else
			shutdown(peer, SHUT_WR);
		while (gauge(f, METRIC_UPSTREAM_OPEN) > 0)
			bench_wait(&f->bench);
		close(peer);
	}
}

/* Else an answer too many would be taken for the next one's. */
static void
what_arrived_before_the_loop_told_of_it_is_seen(void **state)
{
	struct fixture *f = *state;
	struct asker a, b;
	int peer;

	start(f, f->ports[0], 0);
	for (int i = 0; i < 2; i++) {
		ask_and_wait(f, &a, false);
		peer = accept(f->listeners[0], NULL, NULL);
		bench_turn(&f->bench);
		upstream_release(a.conn, true);
		if (i == 0)
			assert_int_equal(write(peer, "x", 1), 1);
		else
			shutdown(peer, SHUT_WR);
		ask(f, &b, false);
		assert_null(b.conn);
		upstream_cancel(f->bench.worker->upstream, &b.request);
		assert_true(gauge(f, METRIC_UPSTREAM_OPEN) == 0);
		close(peer);
	}
}

static void
who_waits_gets_what_becomes_free_in_order(void **state)
{
	struct fixture *f = *state;
	struct asker holders[4], a, b, late;

	start(f, f->ports[0], 0);
	for (int i = 0; i < 4; i++)
		ask_and_wait(f, &holders[i], false);
	ask(f, &a, false);
	ask(f, &b, true);
	bench_turn(&f->bench);
	assert_int_equal(a.calls + b.calls, 0);
	upstream_release(holders[0].conn, true);
	ask(f, &late, false);
	assert_null(late.conn);
	while (a.calls == 0)
		bench_wait(&f->bench);
	hold(&a);
	assert_ptr_equal(a.conn, holders[0].conn);
	assert_int_equal(b.calls + late.calls, 0);
	/* The fresh one does not take it, but its place. */
	upstream_release(holders[1].conn, true);
	while (b.calls == 0)
		bench_wait(&f->bench);
	hold(&b);
	assert_false(b.conn->reused);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 4);
	upstream_release(holders[2].conn, false);
	while (late.calls == 0)
		bench_wait(&f->bench);
	hold(&late);
	upstream_release(holders[3].conn, true);
	upstream_release(a.conn, true);
	upstream_release(b.conn, true);
	upstream_release(late.conn, true);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_IDLE), 4);
}

static void
who_waits_too_long_is_told_that_all_are_busy(void **state)
{
	struct fixture *f = *state;
	struct asker holders[4], a;

	f->bench.config.timeouts.connect = 50;
	start(f, f->ports[0], 0);
	for (int i = 0; i < 4; i++)
		ask_and_wait(f, &holders[i], false);
	ask_and_wait(f, &a, false);
	assert_null(a.conn);
	assert_int_equal(a.why, REFUSAL_UPSTREAM_BUSY);
	for (int i = 0; i < 4; i++)
		upstream_release(holders[i].conn, false);
}

/* ---- idle connections ---- */

static void
who_is_idle_too_long_is_closed_and_no_other(void **state)
{
	struct fixture *f = *state;
	struct asker old, young;

	f->bench.config.upstream.pool_timeout = 10;
	start(f, f->ports[0], 0);
	for (int round = 0; round < 2; round++) {
		ask_and_wait(f, &old, true);
		ask_and_wait(f, &young, true);
		upstream_release(old.conn, true);
		upstream_release(young.conn, true);
		young.conn->idle_since += 3600 * CLOCK_NS_PER_S;
		while (gauge(f, METRIC_UPSTREAM_IDLE) == 2)
			bench_wait(&f->bench);
		assert_true(young.conn->idle);
		assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 1);
		upstream_close_idle(f->bench.worker->upstream);
	}
}

/* ---- giving up ---- */

static void
a_request_can_be_cancelled_at_every_stage(void **state)
{
	struct fixture *f = *state;
	struct asker a;

	start(f, f->ports[0], 0);
	for (int turns = 0; turns < 6; turns++) {
		ask(f, &a, true);
		for (int i = 0; i < turns && a.calls == 0; i++)
			event_base_loop(f->bench.worker->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		upstream_cancel(f->bench.worker->upstream, &a.request);
		upstream_cancel(f->bench.worker->upstream, &a.request);
		if (a.conn != NULL)
			upstream_release(a.conn, false);
		else
			assert_int_equal(a.calls, 0);
		a.calls = 0;
		bench_turn(&f->bench);
		assert_int_equal(a.calls, 0);
		assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
	}
}

/* ---- shares ---- */

static const unsigned char sources[][16] = {
	{ [10] = 0xff, 0xff, 192, 0, 2, 1 },
	{ [10] = 0xff, 0xff, 192, 0, 2, 2 },
	{ 0x20, 0x01, 0x0d, 0xb8 },
};

/* Of so many requests, how many need not wait for others? */
static unsigned
count_served(struct fixture *f, const struct asker *a, unsigned n)
{
	unsigned served = 0;

	bench_turn(&f->bench);
	for (unsigned i = 0; i < n; i++)
		served += !a[i].request.queued;
	return served;
}

static unsigned
ask_often(struct fixture *f, struct asker *a, unsigned n, const unsigned char *source)
{
	for (unsigned i = 0; i < n; i++)
		ask_for(f, &a[i], false, source);
	return count_served(f, a, n);
}

static void
hold_all(struct fixture *f, struct asker *a, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		while (a[i].conn == NULL)
			bench_wait(&f->bench);
		hold(&a[i]);
	}
}

static void
release_all(struct asker *a, unsigned n, bool reuse)
{
	for (unsigned i = 0; i < n; i++)
		upstream_release(a[i].conn, reuse);
}

static void
a_source_leaves_some_for_others(void **state)
{
	struct fixture *f = *state;
	struct asker a[10], b[4], c, d;
	struct err err;

	f->bench.config.upstream.pool_max = 12;
	start(f, f->ports[0], f->ports[1]);
	f->bench.worker->peers = peers_new(&err);
	assert_non_null(f->bench.worker->peers);
	ask_and_wait(f, &d, false);
	upstream_release(d.conn, false);

	assert_int_equal(ask_often(f, a, 10, sources[0]), 8);
	assert_int_equal(ask_often(f, b, 4, sources[1]), 3);
	assert_int_equal(ask_often(f, &c, 1, sources[2]), 1);
	assert_int_equal(ask_often(f, &d, 1, NULL), 0); /* all are in use */
	hold_all(f, a, 8);
	hold_all(f, b, 3);
	hold_all(f, &c, 1);
	release_all(&c, 1, true); /* an idle one is not for who has too many either */
	assert_int_equal(count_served(f, a, 10) + count_served(f, b, 4), 11);
	hold_all(f, &d, 1);
	assert_true(d.conn->reused);
	release_all(b, 3, false);
	assert_int_equal(count_served(f, a, 10), 8);
	assert_int_equal(count_served(f, b, 4), 4);
	release_all(a, 3, false);
	assert_int_equal(count_served(f, a, 10), 10);

	hold_all(f, a + 3, 7);
	hold_all(f, b + 3, 1);
	release_all(a + 3, 7, false);
	release_all(b + 3, 1, false);
	release_all(&d, 1, false);
	assert_int_equal(ask_often(f, a, 8, sources[0]), 8);
	hold_all(f, a, 8);
	release_all(a, 8, false);
	assert_int_equal(gauge(f, METRIC_UPSTREAM_OPEN), 0);
	peers_free(f->bench.worker->peers);
}

static void
who_has_too_many_holds_up_nobody_else(void **state)
{
	struct fixture *f = *state;
	struct asker a[10], b, c;
	struct err err;

	f->bench.config.upstream.pool_max = 12;
	start(f, f->ports[0], f->ports[1]);
	f->bench.worker->peers = peers_new(&err);
	assert_non_null(f->bench.worker->peers);
	ask_and_wait(f, &b, false);
	assert_int_equal(ask_often(f, a, 10, sources[0]), 8);
	hold_all(f, a, 8);
	upstream_release(b.conn, true);
	assert_int_equal(count_served(f, a, 10), 8);
	ask_for(f, &b, false, sources[1]);
	hold_all(f, &b, 1);
	assert_int_equal(b.calls, 0); /* at once */
	/* It does not overtake itself. */
	upstream_release(a[0].conn, true);
	upstream_release(a[1].conn, true);
	upstream_release(a[2].conn, true);
	ask_for(f, &c, false, sources[0]);
	assert_null(c.conn);
	upstream_cancel(f->bench.worker->upstream, &c.request);
	upstream_cancel(f->bench.worker->upstream, &a[9].request);
	hold_all(f, a + 8, 1);
	assert_true(a[8].conn->reused);
	release_all(a + 3, 6, false);
	release_all(&b, 1, false);
	upstream_close_idle(f->bench.worker->upstream);
	peers_free(f->bench.worker->peers);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(addresses_are_taken_in_turn),
		TEST(a_dead_address_is_stepped_over_and_set_aside),
		TEST(when_all_are_dead_each_is_tried_once),
		TEST(where_no_local_port_leads_to_an_address_the_next_one_is_tried),
		TEST(no_address_is_to_blame_for_a_want_of_local_ports),
		TEST(who_is_dead_is_blamed_beside_a_want_of_local_ports),
		TEST(a_reload_forgets_only_what_is_named_no_more),
		TEST(a_connection_is_used_again_unless_a_fresh_one_is_asked_for),
		TEST(what_is_not_clean_is_not_used_again),
		TEST(what_arrived_before_the_loop_told_of_it_is_seen),
		TEST(who_waits_gets_what_becomes_free_in_order),
		TEST(who_waits_too_long_is_told_that_all_are_busy),
		TEST(who_is_idle_too_long_is_closed_and_no_other),
		TEST(a_request_can_be_cancelled_at_every_stage),
		TEST(a_source_leaves_some_for_others),
		TEST(who_has_too_many_holds_up_nobody_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
