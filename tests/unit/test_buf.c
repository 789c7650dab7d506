#include "keytrail/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void
what_is_appended_is_consumed_in_order(void **state)
{
	struct buf b = BUF_INIT;
	unsigned in = 0, out = 0, rnd = 1;
	unsigned char piece[900];

	(void)state;
	for (int turn = 0; turn < 3000; turn++) {
		size_t n = (rnd = rnd * 1103515245 + 12345) >> 8 & 511;

		for (size_t i = 0; i < n; i++)
			piece[i] = (unsigned char)in++;
		assert_int_equal(buf_append(&b, piece, n), 0);
		n = (rnd = rnd * 1103515245 + 12345) >> 8 & 1023;
		if (n > buf_size(&b))
			n = buf_size(&b);
		for (size_t i = 0; i < n; i++)
			assert_int_equal((unsigned char)buf_slice(&b).p[i], out++ & 255);
		buf_consume(&b, n);
		assert_int_equal(buf_size(&b), in - out);
	}
	buf_fini(&b);
}

static void
a_drained_buffer_does_not_grow(void **state)
{
	struct buf b = BUF_INIT;
	size_t cap;
	char *mem;

	(void)state;
	assert_int_equal(buf_append(&b, "0123456789", 10), 0);
	cap = b.cap;
	mem = b.mem;
	for (int i = 0; i < 10000; i++) {
		buf_consume(&b, 7);
		assert_int_equal(buf_append(&b, "0123456", 7), 0);
		assert_int_equal(buf_size(&b), 10);
	}
	assert_int_equal(b.cap, cap);
	assert_ptr_equal(b.mem, mem);
	buf_fini(&b);
}

static void
an_empty_buffer_is_usable_again(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	assert_int_equal(buf_append(&b, NULL, 0), 0);
	assert_int_equal(buf_size(&b), 0);
	assert_null(b.mem);
	assert_int_equal(buf_append_slice(&b, SLICE("abc")), 0);
	buf_consume(&b, 3);
	assert_int_equal(b.off, 0);
	assert_int_equal(b.len, 0);
	buf_fini(&b);
	assert_null(b.mem);
	assert_int_equal(b.cap, 0);
	assert_int_equal(buf_append_slice(&b, SLICE("abc")), 0);
	assert_true(slice_equal(buf_slice(&b), SLICE("abc")));
	buf_fini(&b);
}

static void
reserved_room_is_there_and_counts_when_committed(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	for (size_t n = 1; n < 100000; n = n * 3 + 1) {
		size_t before = buf_size(&b);

		assert_int_equal(buf_reserve(&b, n), 0);
		assert_true(buf_room(&b) >= n);
		assert_int_equal(buf_size(&b), before);
		memset(buf_tail(&b), 'x', n);
		buf_commit(&b, n);
		assert_int_equal(buf_size(&b), before + n);
		buf_consume(&b, 1);
	}
	buf_fini(&b);
}

static void
too_much_is_refused_and_nothing_changes(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	assert_int_equal(buf_append_slice(&b, SLICE("abc")), 0);
	assert_int_equal(buf_reserve(&b, SIZE_MAX), -1);
	assert_int_equal(buf_reserve(&b, SIZE_MAX - 2), -1);
	assert_int_equal(buf_reserve(&b, SIZE_MAX / 2), -1);
	assert_true(slice_equal(buf_slice(&b), SLICE("abc")));
	buf_fini(&b);
}

static void
printf_appends_without_the_nul(void **state)
{
	struct buf b = BUF_INIT;
	char want[2000];

	(void)state;
	assert_int_equal(buf_printf(&b, "%s-%d", "a", 1), 0);
	assert_int_equal(buf_printf(&b, "%s", ""), 0);
	assert_int_equal(buf_printf(&b, "|%1500d", 7), 0);
	snprintf(want, sizeof(want), "a-1|%1500d", 7);
	assert_true(slice_equal(buf_slice(&b), slice_of(want)));
	buf_fini(&b);
	/* The NUL needs room too, also where the text alone would fill what is reserved first. */
	assert_int_equal(buf_printf(&b, "%512d", 7), 0);
	assert_int_equal(buf_size(&b), 512);
	buf_fini(&b);
}

static void
numbers_are_appended_in_decimal(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	assert_int_equal(buf_append_u64(&b, 0), 0);
	assert_int_equal(buf_append(&b, " ", 1), 0);
	assert_int_equal(buf_append_u64(&b, 1024), 0);
	assert_int_equal(buf_append(&b, " ", 1), 0);
	assert_int_equal(buf_append_u64(&b, UINT64_MAX), 0);
	assert_true(slice_equal(buf_slice(&b), SLICE("0 1024 18446744073709551615")));
	buf_fini(&b);
}

static bool
is_wiped(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != 0)
			return false;
	return true;
}

/* Of a block that is given back nothing is left of what was ever in it, moved or consumed. */
static void
a_pool_lends_wiped_memory_again(void **state)
{
	static char block[64];
	struct pool pool;
	struct buf b = { .pool = &pool };
	char *mem;

	(void)state;
	pool_init(&pool, sizeof(block), POOL_KEPT);
	assert_int_equal(buf_append(&b, "0123456789", 10), 0);
	assert_int_equal(b.cap, sizeof(block));
	mem = b.mem;
	memset(mem + 10, 0, sizeof(block) - 10);
	assert_int_equal(buf_reserve(&b, 54), 0);
	assert_ptr_equal(b.mem, mem);
	memset(buf_tail(&b), 'x', 54);
	buf_commit(&b, 54);
	buf_consume(&b, 60);
	assert_int_equal(buf_reserve(&b, 50), 0);
	assert_ptr_equal(b.mem, mem);
	assert_int_equal(buf_size(&b), 4);
	buf_fini(&b);
	assert_ptr_equal(b.pool, &pool);
	if (pool.n > 0) {
		assert_ptr_equal(pool.kept, mem);
		assert_true(is_wiped(mem, sizeof(block)));
		assert_int_equal(buf_append(&b, "a", 1), 0);
		assert_ptr_equal(b.mem, mem);
	}
	buf_fini(&b);
	pool_fini(&pool);
}

static void
what_printf_began_where_it_had_no_room_is_wiped(void **state)
{
	struct pool pool;
	struct buf b = { .pool = &pool };
	char *mem;

	(void)state;
	pool_init(&pool, 64, POOL_KEPT);
	assert_int_equal(buf_printf(&b, "%s", "begun: "), 0);
	mem = b.mem;
	memset(mem + 7, 0, 64 - 7);
	assert_int_equal(buf_printf(&b, "%080d", 1), 0);
	assert_int_equal(buf_size(&b), 87);
	assert_true(slice_equal(slice_sub(buf_slice(&b), 0, 8), SLICE("begun: 0")));
	if (pool.n > 0) {
		assert_ptr_equal(pool.kept, mem);
		assert_true(is_wiped(mem, 64));
	}
	buf_fini(&b);
	pool_fini(&pool);
}

static void
a_buf_outgrows_its_pool(void **state)
{
	struct pool pool;
	struct buf b = { .pool = &pool };
	char bytes[200];

	(void)state;
	memset(bytes, 'b', sizeof(bytes));
	pool_init(&pool, 64, POOL_KEPT);
	assert_int_equal(buf_append(&b, bytes, 64), 0);
	assert_int_equal(buf_append(&b, bytes, sizeof(bytes)), 0);
	assert_int_equal(buf_size(&b), 264);
	assert_true(b.cap > 64);
	buf_fini(&b);
	assert_true(pool.n <= 1);
	for (unsigned i = 0; i < 2 * POOL_KEPT; i++)
		pool_give(&pool, malloc(64));
	assert_true(pool.n <= POOL_KEPT);
	pool_fini(&pool);
	assert_int_equal(pool.n, 0);
}

static void
give(struct pool *pool, unsigned n)
{
	while (n-- > 0)
		pool_give(pool, malloc(pool->size));
}

static void
a_trim_frees_what_was_not_needed_since_the_last_one(void **state)
{
	struct pool pool;
	void *blocks[2 * POOL_KEPT];

	(void)state;
	pool_init(&pool, 64, POOL_UNBOUNDED);
	give(&pool, 1);
	if (pool.n == 0) /* under a sanitizer */
		return;
	give(&pool, 4 * POOL_KEPT - 1);
	assert_true(pool_trim(&pool));
	assert_int_equal(pool.n, 4 * POOL_KEPT);
	for (unsigned i = 0; i < 2 * POOL_KEPT; i++)
		blocks[i] = pool_take(&pool);
	for (unsigned i = 0; i < 2 * POOL_KEPT; i++)
		pool_give(&pool, blocks[i]);
	assert_true(pool_trim(&pool));
	assert_int_equal(pool.n, 2 * POOL_KEPT);
	assert_false(pool_trim(&pool));
	assert_int_equal(pool.n, POOL_KEPT);
	pool_fini(&pool);
	assert_int_equal(pool.n, 0);
}

static void
what_is_swapped_keeps_its_pool(void **state)
{
	struct pool pools[2];
	struct buf a = { .pool = &pools[0] }, b = { .pool = &pools[1] };

	(void)state;
	pool_init(&pools[0], 64, POOL_KEPT);
	pool_init(&pools[1], 128, POOL_KEPT);
	assert_int_equal(buf_append(&a, "first", 5), 0);
	assert_int_equal(buf_append(&b, "the second", 10), 0);
	buf_consume(&b, 4);
	buf_swap(&a, &b);
	assert_true(slice_equal(buf_slice(&a), SLICE("second")));
	assert_true(slice_equal(buf_slice(&b), SLICE("first")));
	assert_ptr_equal(a.pool, &pools[0]);
	assert_ptr_equal(b.pool, &pools[1]);
	buf_fini(&a);
	buf_fini(&b);
	/* Memory of another size is no block of theirs. */
	assert_int_equal(pools[0].n + pools[1].n, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_lends_wiped_memory_again),
		cmocka_unit_test(what_printf_began_where_it_had_no_room_is_wiped),
		cmocka_unit_test(a_buf_outgrows_its_pool),
		cmocka_unit_test(a_trim_frees_what_was_not_needed_since_the_last_one),
		cmocka_unit_test(what_is_swapped_keeps_its_pool),
		cmocka_unit_test(what_is_appended_is_consumed_in_order),
		cmocka_unit_test(a_drained_buffer_does_not_grow),
		cmocka_unit_test(an_empty_buffer_is_usable_again),
		cmocka_unit_test(reserved_room_is_there_and_counts_when_committed),
		cmocka_unit_test(too_much_is_refused_and_nothing_changes),
		cmocka_unit_test(printf_appends_without_the_nul),
		cmocka_unit_test(numbers_are_appended_in_decimal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
