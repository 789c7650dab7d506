#include "keytrail/file.h"

#include "tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct fixture {
	char dir[TEMPDIR_SIZE];
	int dirfd;
	struct err err;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = f;
	return f->dirfd == -1;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	close(f->dirfd);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

#define LONG ((size_t)1 << 20) /* more than a pipe takes at once */

static void *
write_long(void *arg)
{
	char *text = malloc(LONG);

	for (size_t i = 0; i < LONG; i++)
		text[i] = (char)(i % 251);
	assert_int_equal(file_write(*(int *)arg, text, LONG, FILE_HERE), 0);
	close(*(int *)arg);
	free(text);
	return NULL;
}

static void
what_comes_in_parts_is_whole(void **state)
{
	char *text = malloc(2 * LONG);
	pthread_t thread;
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_long, &ends[1]), 0);
	assert_int_equal(file_read(ends[0], text, 2 * LONG, FILE_HERE), LONG);
	for (size_t i = 0; i < LONG; i++)
		assert_int_equal(text[i], (char)(i % 251));
	pthread_join(thread, NULL);
	close(ends[0]);
	free(text);
}

static void
an_error_has_its_errno(void **state)
{
	char byte = 0;

	(void)state;
	errno = 0;
	assert_int_equal(file_read(-1, &byte, 1, 0), -1);
	assert_int_equal(errno, EBADF);
	errno = 0;
	assert_int_equal(file_write(-1, &byte, 1, FILE_HERE), -1);
	assert_int_equal(errno, EBADF);
	errno = 0;
	assert_int_equal(file_reserve(-1, 1), -1);
	assert_int_equal(errno, EBADF);
}

static void
a_file_is_replaced_and_loaded(void **state)
{
	struct fixture *f = *state;
	struct buf text = BUF_INIT;
	struct stat st;

	assert_int_equal(file_load(f->dirfd, "name", 10, &text, &f->err), 0);
	assert_int_equal(file_replace(f->dirfd, "name", 0600, SLICE("old text"), &f->err), 0);
	assert_int_equal(file_replace(f->dirfd, "name", 0600, SLICE("new"), &f->err), 0);
	assert_int_equal(file_load(f->dirfd, "name", 10, &text, &f->err), 1);
	assert_true(slice_equal(buf_slice(&text), SLICE("new")));
	assert_int_equal(file_load(f->dirfd, "name", 2, &text, &f->err), 1);
	assert_true(slice_equal(buf_slice(&text), SLICE("newne")));
	assert_int_equal(fstatat(f->dirfd, "name", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(faccessat(f->dirfd, "name.new", F_OK, 0), -1);
	buf_fini(&text);
}

static void
a_name_that_is_taken_stays_as_it_was(void **state)
{
	struct fixture *f = *state;
	struct buf text = BUF_INIT;

	assert_int_equal(mkdirat(f->dirfd, "name", 0700), 0);
	assert_int_equal(file_replace(f->dirfd, "name", 0600, SLICE("new"), &f->err), -1);
	assert_string_equal(f->err.msg, "put name in its place: Is a directory");
	assert_int_equal(file_load(f->dirfd, "name", 10, &text, &f->err), -1);
	assert_string_equal(f->err.msg, "read name: Is a directory");
	assert_int_equal(mkdirat(f->dirfd, "other.new", 0700), 0);
	assert_int_equal(file_replace(f->dirfd, "other", 0600, SLICE("new"), &f->err), -1);
	assert_string_equal(f->err.msg, "write other: Is a directory");
	buf_fini(&text);
}

static uint64_t
stamp_of(const char *path)
{
	uint64_t stamp = FILE_STAMP_INIT;

	file_stamp(&stamp, path);
	return stamp;
}

static void
a_stamp_tells_one_content_from_another(void **state)
{
	struct fixture *f = *state;
	char path[TEMPDIR_SIZE + 16];
	uint64_t missing, first, second;

	snprintf(path, sizeof(path), "%s/stamped", f->dir);
	assert_true(stamp_of(NULL) == FILE_STAMP_INIT);
	missing = stamp_of(path);
	assert_int_equal(file_replace(f->dirfd, "stamped", 0600, SLICE("a"), &f->err), 0);
	first = stamp_of(path);
	assert_true(first == stamp_of(path));
	assert_int_equal(file_replace(f->dirfd, "stamped", 0600, SLICE("b"), &f->err), 0);
	second = stamp_of(path);
	assert_true(missing != first && first != second && second != missing);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_comes_in_parts_is_whole),
		cmocka_unit_test(an_error_has_its_errno),
		cmocka_unit_test_setup_teardown(a_file_is_replaced_and_loaded, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    a_name_that_is_taken_stays_as_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    a_stamp_tells_one_content_from_another, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
