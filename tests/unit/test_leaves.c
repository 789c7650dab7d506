#include "keytrail/leaves.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#define LINE_MAX_ 64

static struct slice
line_of(uint64_t seq, const char *word, char out[LINE_MAX_])
{
	return (struct slice){ out, (size_t)snprintf(out, LINE_MAX_, "%s %" PRIu64, word, seq) };
}

static enum leaf_kind
kind_of(uint64_t seq)
{
	return seq % 7 == 0 ? LEAF_CHECKPOINT : seq % 11 == 0 ? LEAF_EXPIRE : LEAF_EVENT;
}

static void
add(struct leaves *l, uint64_t first, uint64_t last, const char *word)
{
	char text[LINE_MAX_];

	for (uint64_t seq = first; seq <= last; seq++)
		leaves_add(l, seq, kind_of(seq), line_of(seq, word, text));
}

static bool
take(struct leaves *l, uint64_t seq, const char *word)
{
	struct merkle_hash want;
	char text[LINE_MAX_];
	struct leaf leaf;
	bool had = leaves_have(l, seq);

	assert_int_equal(leaves_take(l, seq, &leaf), had);
	if (!had)
		return false;
	merkle_leaf(line_of(seq, word, text), &want);
	assert_memory_equal(leaf.hash.b, want.b, sizeof(want.b));
	assert_int_equal(leaf.kind, kind_of(seq));
	return true;
}

static int
setup(void **state)
{
	return (*state = leaves_new(LINE_MAX_)) != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	leaves_free(*state);
	return 0;
}

static void
what_was_added_is_taken_once(void **state)
{
	struct leaves *l = *state;

	add(l, 5, 104, "a");
	leaves_flush(l);
	for (uint64_t seq = 5; seq <= 104; seq++)
		assert_true(take(l, seq, "a"));
	assert_false(take(l, 105, "a"));
	assert_false(take(l, 104, "a"));
}

static void
of_lines_that_come_again_the_last_counts(void **state)
{
	struct leaves *l = *state;

	add(l, 1, 40, "lost");
	add(l, 1, 20, "a");
	leaves_flush(l);
	for (uint64_t seq = 1; seq <= 20; seq++)
		assert_true(take(l, seq, "a"));
}

/* The reader says where it goes on. */
static void
lines_without_room_are_not_here(void **state)
{
	struct leaves *l = *state;
	uint64_t end = 2 * LEAVES_MAX;

	assert_false(take(l, 100, "a"));
	add(l, 90, end, "a");
	leaves_flush(l);
	assert_true(take(l, 100, "a"));
	assert_false(take(l, 99, "a"));
	assert_true(take(l, LEAVES_MAX + 99, "a"));
	assert_false(take(l, LEAVES_MAX + 100, "a"));
	assert_false(take(l, end + 1, "a"));
	add(l, end + 1, end + LEAVES_MAX, "a");
	leaves_flush(l);
	for (uint64_t seq = end + 1; seq <= end + LEAVES_MAX; seq++)
		assert_true(take(l, seq, "a"));
}

struct writer {
	struct leaves *leaves;
	_Atomic uint64_t durable;
};

#define LINES 300000

static void *
write_lines(void *arg)
{
	struct writer *w = arg;

	for (uint64_t seq = 1; seq <= LINES; seq += 10) {
		add(w->leaves, seq, seq + 9, "lost");
		add(w->leaves, seq, seq + 9, "a");
		leaves_flush(w->leaves);
		atomic_store(&w->durable, seq + 9);
	}
	return NULL;
}

/* Some are there, whatever the two threads' pace; none is another line's. */
static void
a_reader_beside_the_writer_takes_the_right_ones(void **state)
{
	struct writer w = { .leaves = *state };
	uint64_t taken = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, write_lines, &w), 0);
	for (uint64_t seq = 1; seq <= LINES; seq++) {
		while (atomic_load(&w.durable) < seq)
			sched_yield();
		taken += take(w.leaves, seq, "a");
	}
	pthread_join(thread, NULL);
	assert_true(taken > 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_added_is_taken_once),
		TEST(of_lines_that_come_again_the_last_counts),
		TEST(lines_without_room_are_not_here),
		TEST(a_reader_beside_the_writer_takes_the_right_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
