#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench_worker.h"
#include "data/worker.h"
#include "keytrail/clock.h"

static int
no_init(struct worker *w, struct err *err)
{
	(void)w;
	(void)err;
	return 0;
}

static void
nothing(struct worker *w)
{
	(void)w;
}

static const struct worker_hooks hooks = {
	.init = no_init, .fini = nothing, .reload = nothing, .drain = nothing, .abort = nothing
};

static int
setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return -1;
	bench_open(b, &hooks);
	*state = b;
	return 0;
}

/* ---- turns ---- */

struct asker {
	struct turn turn; /* first */
	enum turn_kind kind;
	struct worker *worker;
	unsigned *order;
	unsigned place; /* in which it was served; 0: not yet */
	bool again;
};

static void
on_turn(struct turn *turn)
{
	struct asker *a = (struct asker *)turn;

	a->place = ++*a->order;
	if (a->again)
		turns_wait(&a->worker->turns, &a->turn, a->kind);
	a->again = false;
}

static void
ask(struct bench *b, struct asker *a, enum turn_kind kind, unsigned *order)
{
	*a = (struct asker){
		.turn = { .ready = on_turn }, .kind = kind, .worker = b->worker, .order = order
	};
	turns_wait(&b->worker->turns, &a->turn, kind);
}

static void
serve_a_few_at_a_time(struct bench *b, enum turn_kind kind, unsigned few)
{
	struct asker askers[2 * TURN_CALLS + 1];
	const unsigned n = 2 * few + 1;
	unsigned order = 0;

	for (unsigned i = 0; i < n; i++) {
		ask(b, &askers[i], kind, &order);
		turns_wait(&b->worker->turns, &askers[i].turn, kind);
	}
	askers[0].again = true;
	assert_int_equal(order, 0);
	turns_cancel(&askers[1].turn);
	bench_wait(b);
	assert_int_equal(order, few);
	bench_wait(b);
	assert_int_equal(order, 2 * few);
	bench_wait(b);
	assert_int_equal(order, n);
	assert_int_equal(askers[0].place, n);
	assert_int_equal(askers[1].place, 0);
	for (unsigned i = 2; i < n; i++)
		assert_int_equal(askers[i].place, i);
	bench_turn(b);
	assert_int_equal(order, n);
}

static void
those_who_ask_for_a_turn_are_served_a_few_at_a_time(void **state)
{
	serve_a_few_at_a_time(*state, TURN_STEP, TURN_STEPS);
	serve_a_few_at_a_time(*state, TURN_CALL, TURN_CALLS);
}

static void
steps_are_taken_between_rounds_of_the_calls_that_waited(void **state)
{
	struct bench *b = *state;
	struct asker steps[TURN_STEPS + 1], calls[TURN_CALLS + 2];
	unsigned nsteps = 0, ncalls = 0;

	for (unsigned i = 0; i < TURN_STEPS + 1; i++)
		ask(b, &steps[i], TURN_STEP, &nsteps);
	for (unsigned i = 0; i < TURN_CALLS + 1; i++)
		ask(b, &calls[i], TURN_CALL, &ncalls);
	bench_wait(b);
	assert_int_equal(nsteps, TURN_STEPS);
	assert_int_equal(ncalls, TURN_CALLS);
	bench_wait(b);
	assert_int_equal(nsteps, TURN_STEPS);
	assert_int_equal(ncalls, TURN_CALLS + 1);
	ask(b, &calls[TURN_CALLS + 1], TURN_CALL, &ncalls);
	bench_wait(b);
	assert_int_equal(nsteps, TURN_STEPS + 1);
	assert_int_equal(ncalls, TURN_CALLS + 2);
}

/* ---- waiting for the journal ---- */

#define LINE "{\"action\":\"test\",\"id\":\"0\""

struct waiting {
	struct worker_waiter waiter;
	struct bench *bench;
	uint64_t seen; /* the durable position when it was called */
	unsigned calls, order;
	unsigned *turn;
};

static void
on_durable(void *arg)
{
	struct waiting *w = arg;

	w->calls++;
	w->order = ++*w->turn;
	w->seen = ring_durable(w->bench->ring);
}

static void
waiters_are_called_once_in_order_and_when_it_is_durable(void **state)
{
	struct bench *b = *state;
	struct waiting ws[5];
	uint64_t positions[5];
	unsigned turn = 0;

	for (unsigned i = 0; i < 5; i++) {
		ws[i] = (struct waiting){ .bench = b, .turn = &turn };
		ws[i].waiter = (struct worker_waiter){ .ready = on_durable, .arg = &ws[i] };
		positions[i] = bench_commit(b, LINE);
		worker_wait_durable(b->worker, &ws[i].waiter, positions[i]);
	}
	bench_turn(b);
	assert_int_equal(turn, 0);
	worker_wait_cancel(&ws[2].waiter);
	worker_wait_cancel(&ws[2].waiter);
	bench_start(b);
	while (turn < 4)
		bench_wait(b);
	bench_turn(b);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(ws[i].calls, i == 2 ? 0 : 1);
		if (i != 2)
			assert_true(ws[i].seen >= positions[i]);
		if (i > 0 && i != 2)
			assert_true(ws[i].order > ws[i == 3 ? 1 : i - 1].order);
	}
	worker_wait_cancel(&ws[0].waiter);
}

static void
who_comes_too_late_is_called_all_the_same(void **state)
{
	struct bench *b = *state;
	unsigned turn = 0;
	struct waiting w = { .bench = b, .turn = &turn };
	uint64_t position;

	bench_start(b);
	position = bench_commit(b, LINE);
	while (ring_durable(b->ring) < position)
		usleep(100);
	bench_turn(b);
	w.waiter = (struct worker_waiter){ .ready = on_durable, .arg = &w };
	worker_wait_durable(b->worker, &w.waiter, position);
	assert_int_equal(turn, 0);
	while (turn == 0)
		bench_wait(b);
	assert_int_equal(w.calls, 1);
}

static void
ask_again(void *arg)
{
	struct waiting *w = arg;

	w->calls++;
	worker_wait_room(w->bench->worker, &w->waiter);
}

static void
who_waits_for_room_is_asked_once_a_time(void **state)
{
	struct bench *b = *state;
	unsigned turn = 0;
	struct waiting a = { .bench = b }, c = { .bench = b, .turn = &turn };

	a.waiter = (struct worker_waiter){ .ready = ask_again, .arg = &a };
	c.waiter = (struct worker_waiter){ .ready = on_durable, .arg = &c };
	worker_wait_room(b->worker, &a.waiter);
	worker_wait_room(b->worker, &c.waiter);
	bench_commit(b, LINE);
	bench_start(b);
	while (turn == 0)
		bench_wait(b);
	assert_true(a.calls >= 1 && a.calls <= 2);
	assert_int_equal(c.calls, 1);
	worker_wait_cancel(&a.waiter);
}

/* ---- the end of a turn ---- */

struct repeater {
	struct reap reap; /* first */
	struct worker *worker;
	bool stop;
	unsigned runs;
};

static void
reap_again(struct reap *reap)
{
	struct repeater *r = (struct repeater *)reap;

	r->runs++;
	if (!r->stop)
		turns_reap_later(&r->worker->turns, &r->reap);
}

static void
stop_repeating(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	((struct repeater *)arg)->stop = true;
}

/* Like a client who pipelines without end: descriptors are looked at all the same. */
static void
reaping_does_not_starve_the_descriptors(void **state)
{
	struct bench *b = *state;
	struct repeater r = { .worker = b->worker };
	struct event readable;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	event_assign(&readable, b->worker->base, fds[0], EV_READ, stop_repeating, &r);
	event_add(&readable, NULL);
	r.reap = (struct reap){ .reap = reap_again };
	turns_reap_later(&b->worker->turns, &r.reap);
	assert_int_equal(write(fds[1], "x", 1), 1);
	while (!r.stop)
		bench_wait(b);
	assert_true(r.runs < 100);
	while (r.runs == 0)
		bench_wait(b);
	/* The last one that is queued comes too. */
	for (unsigned before = r.runs; r.runs == before;)
		bench_wait(b);
	event_del(&readable);
	close(fds[0]);
	close(fds[1]);
}

static void
random_bytes_do_not_repeat(void **state)
{
	struct bench *b = *state;
	unsigned char seen[300][16];

	for (unsigned i = 0; i < 300; i++) {
		worker_random(b->worker, seen[i], sizeof(seen[i]));
		for (unsigned k = 0; k < i; k++)
			assert_memory_not_equal(seen[i], seen[k], sizeof(seen[i]));
	}
}

/* One timer, whoever asks. */
static void
who_was_identified_is_to_be_forgotten(void **state)
{
	struct bench *b = *state;
	int before = event_base_get_num_events(b->worker->base, EVENT_BASE_COUNT_ADDED);
	struct identity got;

	for (unsigned i = 0; i < 3; i++)
		worker_identify(b->worker, SLICE("Bearer e30.e30.c2ln"), EVENT_NAME_OMIT, &got);
	assert_int_equal(
	    event_base_get_num_events(b->worker->base, EVENT_BASE_COUNT_ADDED), before + 1);
}

/* ---- sources ---- */

static void
a_source_too_many_is_not_told_as_a_want_of_memory(void **state)
{
	struct peer **held = calloc(PEERS_MAX, sizeof(struct peer *));
	unsigned char address[16] = { 0x20, 0x01, 0x0d, 0xb8 };
	struct bench *b = *state;
	struct peers *peers;
	struct err err;

	assert_non_null(held);
	b->worker->peers = peers = peers_new(&err);
	assert_non_null(peers);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		memcpy(address + 4, &i, sizeof(i));
		held[i] = worker_hold_source(b->worker, address, 0);
		assert_non_null(held[i]);
	}
	assert_int_equal(metrics_value(b->metrics, METRIC_SOURCES_UNKNOWN, 0), 0);
	address[0] = 0x30;
	assert_null(worker_hold_source(b->worker, address, 0));
	assert_int_equal(metrics_value(b->metrics, METRIC_SOURCES_UNKNOWN, 0), 1);
	assert_int_equal(metrics_value(b->metrics, METRIC_OUT_OF_MEMORY, 0), 0);
	for (unsigned i = 0; i < PEERS_MAX; i++)
		peers_drop(peers, held[i]);
	peers_free(peers);
	free(held);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, bench_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_source_too_many_is_not_told_as_a_want_of_memory),
		TEST(those_who_ask_for_a_turn_are_served_a_few_at_a_time),
		TEST(steps_are_taken_between_rounds_of_the_calls_that_waited),
		TEST(waiters_are_called_once_in_order_and_when_it_is_durable),
		TEST(who_comes_too_late_is_called_all_the_same),
		TEST(who_waits_for_room_is_asked_once_a_time),
		TEST(reaping_does_not_starve_the_descriptors),
		TEST(random_bytes_do_not_repeat),
		TEST(who_was_identified_is_to_be_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
