#include "keytrail/thread.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>

#include <cmocka.h>

/* What the thread under test found. */
struct seen {
	bool refuse;
	char entered_as[32], name[16];
	bool hears_term, hears_bus;
	atomic_bool ran;
};

static int
enter(void *arg, const char *name, struct err *err)
{
	struct seen *s = arg;

	strcpy(s->entered_as, name);
	return s->refuse ? err_set(err, "not %s", name) : 0;
}

static void *
run(void *arg)
{
	struct seen *s = arg;
	sigset_t blocked;

	pthread_sigmask(SIG_BLOCK, NULL, &blocked);
	s->hears_term = !sigismember(&blocked, SIGTERM);
	s->hears_bus = !sigismember(&blocked, SIGBUS);
	prctl(PR_GET_NAME, s->name);
	atomic_store(&s->ran, true);
	return NULL;
}

static void
it_has_entered_when_it_is_started(void **state)
{
	struct seen s = { .refuse = false };
	pthread_t thread;
	struct err err;

	(void)state;
	thread_install(enter, &s);
	assert_int_equal(thread_start(&thread, "a name that is long", run, &s, &err), 0);
	assert_string_equal(s.entered_as, "a name that is long");
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(s.ran);
	assert_string_equal(s.name, "a name that is ");
	assert_false(s.hears_term);
	assert_true(s.hears_bus);
}

static void
one_that_must_not_run_does_not(void **state)
{
	struct seen s = { .refuse = true };
	pthread_t thread;
	struct err err;

	(void)state;
	thread_install(enter, &s);
	assert_int_equal(thread_start(&thread, "one", run, &s, &err), -1);
	assert_string_equal(err.msg, "not one");
	assert_false(s.ran);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_has_entered_when_it_is_started),
		cmocka_unit_test(one_that_must_not_run_does_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
