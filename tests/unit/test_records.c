#include "keytrail/records.h"

#include <openssl/crypto.h>

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define ROOM 16709 /* what OpenSSL asks for */

/* Room that was given back, as it is when it comes again; another where none is kept. */
static char *
again_of(char *room, size_t size)
{
	char *next;

	OPENSSL_free(room);
	next = OPENSSL_malloc(size);
	assert_non_null(next);
	return next;
}

static char *
again(char *room)
{
	return again_of(room, ROOM);
}

/* Behind the pointers that whoever keeps free room writes into it: those may hold any byte. */
static bool
has(const char *p, size_t n, char c)
{
	enum { POINTERS = 32 };

	return n > POINTERS && memchr(p + POINTERS, c, n - POINTERS) != NULL;
}

static void
what_was_filled_is_wiped(void **state)
{
	char *room = OPENSSL_malloc(ROOM), *next;

	(void)state;
	assert_non_null(room);
	memset(room, 0, ROOM);
	memset(room + 5, 's', 100);
	records_filled(room + 5, 60);
	records_filled(room + 65, 40);
	records_filled(room + 5, 10);
	if ((next = again(room)) == room)
		assert_false(has(next, ROOM, 's'));
	OPENSSL_free(next);
}

static void
what_nobody_told_of_is_wiped_as_a_whole(void **state)
{
	char *rooms[9], *next;

	(void)state;
	/* More than are followed. */
	for (unsigned i = 0; i < 9; i++) {
		rooms[i] = OPENSSL_malloc(ROOM);
		assert_non_null(rooms[i]);
		memset(rooms[i], 's', ROOM);
	}
	for (unsigned i = 0; i < 9; i++) {
		if ((next = again(rooms[i])) == rooms[i])
			assert_false(has(next, ROOM, 's'));
		OPENSSL_free(next);
	}
}

/* By its own size: what stands behind it is not its own. */
static void
what_was_filled_in_small_room_is_wiped(void **state)
{
	enum { SIZE = 2100 };
	char *room = OPENSSL_malloc(SIZE), *next;

	(void)state;
	assert_non_null(room);
	memset(room, 's', 100);
	memset(room + 100, 'c', SIZE - 100);
	records_filled(room, 100);
	records_filled(room + 4000, 100);
	if ((next = again_of(room, SIZE)) == room) {
		assert_false(has(next, SIZE, 's'));
		assert_true(has(next + 100, SIZE - 100, 'c'));
	}
	OPENSSL_free(next);
}

static void
what_was_sent_is_no_secret(void **state)
{
	char *room = OPENSSL_malloc(ROOM), *next;

	(void)state;
	assert_non_null(room);
	memset(room, 'c', ROOM);
	records_sent(room + 5, ROOM - 5);
	if ((next = again(room)) == room)
		assert_true(has(next, ROOM, 'c'));
	memset(next, 's', 100);
	records_filled(next, 100);
	records_sent(next, 5);
	room = next;
	if ((next = again(room)) == room)
		assert_false(has(next, ROOM, 's'));
	OPENSSL_free(next);
}

/* What was told of room before it was given back says nothing of its next use. */
static void
each_use_is_told_of_anew(void **state)
{
	char *room = OPENSSL_malloc(ROOM), *next;

	(void)state;
	records_filled(room, 10);
	room = again(room);
	memset(room, 's', ROOM);
	if ((next = again(room)) == room)
		assert_false(has(next, ROOM, 's'));
	records_sent(next, 10);
	room = again(next);
	memset(room, 's', ROOM);
	if ((next = again(room)) == room)
		assert_false(has(next, ROOM, 's'));
	OPENSSL_free(next);
}

static void
what_grows_leaves_nothing_behind(void **state)
{
	static const size_t sizes[] = { 1000, ROOM };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		char *old = OPENSSL_malloc(sizes[i]), *grown, *next;
		char *guard = OPENSSL_malloc(sizes[i]); /* not in place */

		assert_true(old != NULL && guard != NULL);
		memset(old, 's', sizes[i]);
		assert_non_null(grown = OPENSSL_realloc(old, 4 * sizes[i]));
		for (size_t k = 0; k < sizes[i]; k++)
			assert_int_equal(grown[k], 's');
		assert_non_null(next = OPENSSL_malloc(sizes[i]));
		if (next == old)
			assert_false(has(next, sizes[i], 's'));
		OPENSSL_free(grown);
		OPENSSL_free(guard);
		OPENSSL_free(next);
	}
}

static void
what_is_kept_was_wiped(void **state)
{
	static const size_t sizes[] = { 1, 24, 25, 40, 200, 201, 2049, 2304 };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		char *old = OPENSSL_malloc(sizes[i]), *next;

		assert_non_null(old);
		memset(old, 's', sizes[i]);
		OPENSSL_free(old);
		assert_non_null(next = OPENSSL_malloc(sizes[i]));
		if (next == old)
			assert_false(has(next, sizes[i], 's'));
		OPENSSL_free(next);
	}
}

/* Whatever it was before. */
static void
what_is_kept_has_room(void **state)
{
	enum { MOST = 300, KINDS = 16 };
	char *blocks[KINDS];

	(void)state;
	for (size_t n = 1; n <= MOST; n++) {
		for (size_t i = 0; i < KINDS; i++)
			assert_non_null(blocks[i] = OPENSSL_malloc(n + i));
		for (size_t i = 0; i < KINDS; i++)
			OPENSSL_free(blocks[i]);
		for (size_t i = 0; i < KINDS; i++) {
			assert_non_null(blocks[i] = OPENSSL_malloc(n + KINDS - i));
			assert_true(malloc_usable_size(blocks[i]) >= n + KINDS - i);
		}
		for (size_t i = 0; i < KINDS; i++)
			OPENSSL_free(blocks[i]);
	}
}

static int
install(void **state)
{
	(void)state;
	records_keep();
	return records_install();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_filled_is_wiped),
		cmocka_unit_test(what_nobody_told_of_is_wiped_as_a_whole),
		cmocka_unit_test(what_was_filled_in_small_room_is_wiped),
		cmocka_unit_test(what_was_sent_is_no_secret),
		cmocka_unit_test(each_use_is_told_of_anew),
		cmocka_unit_test(what_grows_leaves_nothing_behind),
		cmocka_unit_test(what_is_kept_was_wiped),
		cmocka_unit_test(what_is_kept_has_room),
	};

	return cmocka_run_group_tests(tests, install, NULL);
}
