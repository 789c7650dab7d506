#include "keytrail/mapguard.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE ((size_t)4 * 4096)

struct fixture {
	int fd, guard;
	char *base;
};

static int
setup(void **state)
{
	static struct fixture f;
	char name[] = "/tmp/mapguard.XXXXXX";

	assert_int_not_equal(f.fd = mkstemp(name), -1);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(ftruncate(f.fd, SIZE), 0);
	f.base = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	assert_ptr_not_equal(f.base, MAP_FAILED);
	memset(f.base, 'x', SIZE);
	f.guard = mapguard_add(f.base, SIZE, f.fd, SIZE);
	assert_int_not_equal(f.guard, MAPGUARD_NONE);
	*state = &f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	mapguard_remove(f->guard);
	munmap(f->base, SIZE);
	close(f->fd);
	return 0;
}

/* Within each test: cmocka handles the signal too. */
static struct fixture *
begin(void **state)
{
	struct err err;

	assert_int_equal(mapguard_install(&err), 0);
	return *state;
}

static void
test_a_store_beyond_the_end_mends_the_file(void **state)
{
	struct fixture *f = begin(state);

	assert_false(mapguard_was_cut(f->guard));
	assert_int_equal(ftruncate(f->fd, 4096), 0);
	f->base[2 * 4096] = 'y';
	assert_int_equal(f->base[0], 'x');
	assert_int_equal(f->base[3 * 4096], 0);
	assert_int_equal(f->base[2 * 4096], 'y');
	assert_int_equal(lseek(f->fd, 0, SEEK_END), SIZE);
	assert_true(mapguard_was_cut(f->guard));
	assert_false(mapguard_was_cut(f->guard));
}

static void
test_who_maps_the_file_too_is_saved_with_it(void **state)
{
	struct fixture *f = begin(state);
	char *other = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, f->fd, 0);
	int guard = mapguard_add(other, SIZE, -1, 0);

	assert_int_equal(ftruncate(f->fd, 0), 0);
	assert_int_equal(other[4096], 0);
	assert_true(mapguard_was_cut(f->guard));
	assert_false(mapguard_was_cut(guard));
	mapguard_remove(guard);
	munmap(other, SIZE);
}

/* The signal that a child dies of which cuts the file and then reads from `at`. */
static int
child_dies_of(struct fixture *f, volatile char *at)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		close(STDERR_FILENO);
		_exit(ftruncate(f->fd, 0) == 0 ? *at : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void
test_what_is_not_registered_dies(void **state)
{
	struct fixture *f = begin(state);
	char *other = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, f->fd, 0);

	assert_int_equal(child_dies_of(f, other), SIGBUS);
	munmap(other, SIZE);
}

static void
test_a_file_that_cannot_be_mended_kills(void **state)
{
	struct fixture *f = begin(state);
	int fd = open("/dev/null", O_RDONLY);

	mapguard_remove(f->guard);
	f->guard = mapguard_add(f->base, SIZE, fd, SIZE);
	assert_int_equal(child_dies_of(f, f->base), SIGBUS);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
		    test_a_store_beyond_the_end_mends_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_who_maps_the_file_too_is_saved_with_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_not_registered_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    test_a_file_that_cannot_be_mended_kills, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
