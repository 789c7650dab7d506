#include "data/listener.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	struct metrics *metrics;
	struct config_address address;
	struct config config;
	struct snapshot snapshot;
	struct lease lease;
	atomic_uint open;
	struct worker worker, *workers[1];
	struct listener_opts opts;
	struct rlimit descriptors; /* as it was */
	struct err err;
};

static int
setup(void **state)
{
	static char host[] = "127.0.0.1";
	struct fixture *f = calloc(1, sizeof(*f));

	f->metrics = metrics_new();
	f->address.host = host;
	f->snapshot.config = &f->config;
	f->lease.snapshot = &f->snapshot;
	f->worker.base = event_base_new();
	f->worker.lease = &f->lease;
	f->worker.open_connections = &f->open;
	f->worker.metrics = metrics_shard_new(f->metrics);
	f->worker.log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	f->workers[0] = &f->worker;
	f->opts = (struct listener_opts){ &f->address, f->workers, 1 };
	getrlimit(RLIMIT_NOFILE, &f->descriptors);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	setrlimit(RLIMIT_NOFILE, &f->descriptors);
	event_base_free(f->worker.base);
	metrics_free(f->metrics);
	log_free(f->worker.log);
	free(f);
	return 0;
}

/* Leave room for so many descriptors more: the first that is beyond it. */
static int
leave_descriptors(const struct fixture *f, int n)
{
	struct rlimit limit = f->descriptors;
	int next;

	setrlimit(RLIMIT_NOFILE, &limit);
	next = dup(STDIN_FILENO);
	assert_int_not_equal(next, -1);
	close(next);
	limit.rlim_cur = (rlim_t)(next + n);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return next + n;
}

static void
a_limit_of_memory_that_cannot_be_watched_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct listener *l;

	leave_descriptors(f, 1);
	f->config.limits.memory = 1 << 20;
	assert_null(listener_new(&f->opts, &f->err));
	assert_non_null(strstr(f->err.msg, "limits.memory"));
	f->config.limits.memory = 0;
	assert_non_null(l = listener_new(&f->opts, &f->err));
	listener_free(l);
}

/* There is none at first; then one is free, which is not to be for a client. */
static void
a_spare_descriptor_that_was_lost_is_taken_again(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_in sin;
	socklen_t n = sizeof(sin);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int spare = leave_descriptors(f, 1);
	struct listener *l = listener_new(&f->opts, &f->err);
	char byte;

	assert_non_null(l);
	assert_int_equal(getsockname(listener_fd(l), (struct sockaddr *)&sin, &n), 0);
	assert_int_equal(connect(client, (struct sockaddr *)&sin, n), 0);
	event_base_loop(f->worker.base, EVLOOP_ONCE); /* accepting fails, and pauses */
	assert_int_equal(leave_descriptors(f, 1), spare + 1);
	event_base_loop(f->worker.base, EVLOOP_ONCE);
	assert_int_not_equal(fcntl(spare, F_GETFD), -1);
	/* It is what the client is turned away with. */
	event_base_loop(f->worker.base, EVLOOP_ONCE);
	assert_int_equal(read(client, &byte, 1), 0);
	assert_int_not_equal(fcntl(spare, F_GETFD), -1);
	listener_free(l);
	close(client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_limit_of_memory_that_cannot_be_watched_is_an_error),
		TEST(a_spare_descriptor_that_was_lost_is_taken_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
