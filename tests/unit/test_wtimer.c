#include "data/wtimer.h"

#include "keytrail/clock.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture {
	struct event_base *base;
	struct wtimers timers;
};

static int
setup(void **state)
{
	static struct fixture f;

	f.base = event_base_new();
	assert_non_null(f.base);
	wtimers_init(&f.timers, f.base);
	*state = &f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	wtimers_fini(&f->timers);
	event_base_free(f->base);
	return 0;
}

static void
note_time(void *arg)
{
	*(int64_t *)arg = clock_mono_ns();
}

/* In how many milliseconds since the start it has. */
static int64_t
run_until_fired(struct fixture *f, const int64_t *fired, int64_t start)
{
	while (*fired == 0)
		event_base_loop(f->base, EVLOOP_ONCE);
	return (*fired - start) / CLOCK_NS_PER_MS;
}

static void
a_timer_fires_once(void **state)
{
	struct fixture *f = *state;
	struct wtimer t;
	int64_t fired = 0, start = clock_mono_ns();

	wtimer_init(&t, &f->timers, note_time, &fired);
	wtimer_set(&t, 10);
	assert_true(run_until_fired(f, &fired, start) >= 9);
	assert_int_equal(t.deadline, 0);
	assert_int_equal(t.pending, 0);
	fired = 0;
	event_base_loop(f->base, EVLOOP_NONBLOCK);
	assert_int_equal(fired, 0);
	wtimer_fini(&t);
}

static void
a_deadline_moved_later_is_kept_later(void **state)
{
	struct fixture *f = *state;
	struct wtimer t;
	int64_t fired = 0, start = clock_mono_ns(), pending;

	wtimer_init(&t, &f->timers, note_time, &fired);
	wtimer_set(&t, 5);
	pending = t.pending;
	wtimer_set(&t, 60);
	/* The loop was not touched for that. */
	assert_int_equal(t.pending, pending);
	assert_true(run_until_fired(f, &fired, start) >= 59);
	wtimer_fini(&t);
}

static void
a_deadline_moved_earlier_is_kept_earlier(void **state)
{
	struct fixture *f = *state;
	struct wtimer t;
	int64_t fired = 0, start = clock_mono_ns();

	wtimer_init(&t, &f->timers, note_time, &fired);
	wtimer_set(&t, 3600000);
	wtimer_set(&t, 5);
	assert_true(run_until_fired(f, &fired, start) < 60000);
	wtimer_fini(&t);
}

static void
a_cleared_timer_does_not_fire_and_can_be_set_again(void **state)
{
	struct fixture *f = *state;
	struct wtimer t, other;
	int64_t fired = 0, passed = 0, start;

	wtimer_init(&t, &f->timers, note_time, &fired);
	wtimer_init(&other, &f->timers, note_time, &passed);
	wtimer_set(&t, 5);
	wtimer_clear(&t);
	wtimer_set(&other, 20);
	run_until_fired(f, &passed, 0);
	assert_int_equal(fired, 0);
	wtimer_set(&t, 5);
	run_until_fired(f, &fired, 0);
	wtimer_set(&t, 5);
	wtimer_clear(&t);
	start = clock_mono_ns();
	wtimer_set(&t, 10);
	fired = 0;
	assert_true(run_until_fired(f, &fired, start) >= 9);
	wtimer_fini(&t);
	wtimer_fini(&other);
}

static void
a_finished_timer_is_gone(void **state)
{
	struct fixture *f = *state;
	struct wtimer *t = malloc(sizeof(*t)), other;
	int64_t fired = 0, passed = 0;

	assert_non_null(t);
	wtimer_init(t, &f->timers, note_time, &fired);
	wtimer_set(t, 1);
	wtimer_fini(t);
	free(t);
	wtimer_init(&other, &f->timers, note_time, &passed);
	wtimer_set(&other, 10);
	run_until_fired(f, &passed, 0);
	assert_int_equal(fired, 0);
	wtimer_fini(&other);
}

#define MANY 1000

struct many {
	struct wtimer t;
	struct many *all;
	int64_t last;  /* of the first one: the deadline of the one that fired last */
	int64_t until; /* 0: it must not fire */
	unsigned fired;
};

static void
note_order(void *arg)
{
	struct many *m = arg;

	assert_in_range(m->until, m->all->last, clock_mono_ns());
	m->all->last = m->until;
	m->fired++;
}

static void
set(struct many *m, int64_t now, unsigned ms)
{
	wtimer_set_from(&m->t, now, ms);
	m->until = m->t.deadline;
}

/* Set, moved, cleared and finished in no order, they fire in the order of their deadlines. */
static void
many_timers_fire_in_the_order_of_time(void **state)
{
	static struct many many[MANY];
	struct fixture *f = *state;
	int64_t now = clock_mono_ns();

	for (unsigned i = 0; i < MANY; i++) {
		many[i] = (struct many){ .all = many };
		wtimer_init(&many[i].t, &f->timers, note_order, &many[i]);
		set(&many[i], now, 1 + i * 37 % 50);
	}
	for (unsigned i = 0; i < MANY; i++) {
		struct many *m = &many[i * 7 % MANY];

		if (i % 5 == 1) {
			wtimer_fini(&m->t);
			m->until = 0;
		} else if (i % 5 == 2) {
			wtimer_clear(&m->t);
			m->until = 0;
		} else if (i % 5 > 2) {
			set(m, now, 1 + i * 13 % 50);
		}
	}
	event_base_dispatch(f->base);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(many[i].fired, many[i].until != 0);
		assert_int_equal(many[i].t.pending, 0);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_timer_fires_once),
		TEST(a_deadline_moved_later_is_kept_later),
		TEST(a_deadline_moved_earlier_is_kept_earlier),
		TEST(a_cleared_timer_does_not_fire_and_can_be_set_again),
		TEST(a_finished_timer_is_gone),
		TEST(many_timers_fire_in_the_order_of_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
