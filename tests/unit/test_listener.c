#include "data/listener.h"

#include "data/descriptors.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench_worker.h"

struct fixture {
	struct metrics *metrics;
	struct config_address address;
	struct config config;
	struct snapshot snapshot;
	struct lease lease;
	atomic_uint open, upstream;
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
	f->worker.open_upstream = &f->upstream;
	f->worker.metrics = metrics_shard_new(f->metrics);
	f->worker.log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	f->workers[0] = &f->worker;
	f->opts = (struct listener_opts){ &f->address, f->workers, 1, -1 };
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

static unsigned accepted;

static void
count(struct worker *w, int fd, const struct sockaddr_storage *peer)
{
	(void)w;
	(void)peer;
	accepted++;
	close(fd);
}

/* A client comes: is it let in? */
static bool
let_in(struct fixture *f, const struct listener *l)
{
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned before = accepted;
	struct sockaddr_in sin;
	socklen_t n = sizeof(sin);

	assert_int_equal(getsockname(listener_fd(l), (struct sockaddr *)&sin, &n), 0);
	assert_int_equal(connect(client, (struct sockaddr *)&sin, n), 0);
	event_base_loop(f->worker.base, EVLOOP_ONCE);
	close(client);
	return accepted > before;
}

static uint64_t
resident(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages;

	assert_int_equal(fscanf(f, "%*u %lu", &pages), 1);
	fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static struct listener *
listen_with_memory(struct fixture *f, uint64_t limit)
{
	static const struct worker_hooks hooks = { .accept = count };
	struct listener *l;

	f->worker.hooks = &hooks;
	f->config.limits.connections = 1000;
	f->config.limits.memory = limit;
	assert_non_null(l = listener_new(&f->opts, &f->err));
	return l;
}

#define MIB (1 << 20)

/* As rings are. */
static void
pages_of_files_are_no_memory_of_its_own(void **state)
{
	struct listener *l = listen_with_memory(*state, resident() + 16 * MIB);
	/* Not written to: a sanitizer keeps books of that in memory of its own. */
	char *file = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	assert_ptr_not_equal(file, MAP_FAILED);
	assert_true(let_in(*state, l));
	munmap(file, 64 * MIB);
	listener_free(l);
}

/* The allocator keeps what is freed below what is not; a sanitizer's does as it likes. */
static void
memory_that_was_freed_lets_others_in(void **state)
{
	static char *blocks[64 * MIB / 4096];
	size_t n = sizeof(blocks) / sizeof(blocks[0]);
	uint64_t limit = resident() + 16 * MIB;
	struct listener *l = listen_with_memory(*state, limit);
	bool sanitized;

	for (size_t i = 0; i < n; i++)
		blocks[i] = memset(malloc(4096), 1, 4096);
	sanitized = mallinfo2().uordblks < 64 * MIB;
	for (size_t i = 0; i + 1 < n; i++)
		free(blocks[i]);
	assert_true(resident() > limit || sanitized);
	assert_true(let_in(*state, l) || sanitized);
	free(blocks[n - 1]);
	listener_free(l);
}

static void
what_the_service_has_already_is_not_kept_for_it_again(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit = { 600, f->descriptors.rlim_max };

	f->config.upstream.pool_max = 20;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(descriptors_suffice_for(303, 0, &f->config, 2));
	assert_false(descriptors_suffice_for(304, 0, &f->config, 2));
	assert_true(descriptors_suffice_for(343, 40, &f->config, 2));
	/* Nor does it have any of the process's own, or of what is above the half. */
	assert_false(descriptors_suffice_for(344, 40, &f->config, 2));
	assert_false(descriptors_suffice_for(344, 100, &f->config, 20));
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

static void
nothing(struct worker *w)
{
	(void)w;
}

static int
no_init(struct worker *w, struct err *err)
{
	(void)w;
	(void)err;
	return 0;
}

static void
turn_away(struct worker *w, int fd, const struct sockaddr_storage *peer)
{
	(void)w;
	(void)peer;
	close(fd);
}

/* Who gave it stops, and takes nobody any more. */
static void
who_was_given_a_listener_goes_on_with_it(void **state)
{
	static const struct worker_hooks hooks = { .init = no_init,
		.fini = nothing,
		.reload = nothing,
		.accept = turn_away,
		.drain = nothing,
		.abort = nothing };
	struct fixture *f = *state;
	struct listener_opts opts = f->opts;
	struct bench b = { .started = false };
	struct listener *first, *second;

	bench_open(&b, &hooks);
	opts.workers = &b.worker;
	assert_non_null(first = listener_new(&opts, &f->err));
	assert_int_equal(worker_start(b.worker, &f->err), 0);
	f->opts.given = listener_fd(first);
	second = listen_with_memory(f, 0);
	listener_give(first);
	listener_give(first);
	listener_stop(first);
	for (unsigned i = 0; i < 50; i++)
		assert_true(let_in(f, second));
	worker_drain(b.worker, WORKER_STOPS, 0);
	worker_join(b.worker);
	listener_free(first);
	bench_close(&b);
	assert_true(let_in(f, second));
	listener_free(second);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_limit_of_memory_that_cannot_be_watched_is_an_error),
		TEST(a_spare_descriptor_that_was_lost_is_taken_again),
		TEST(pages_of_files_are_no_memory_of_its_own),
		TEST(memory_that_was_freed_lets_others_in),
		TEST(what_the_service_has_already_is_not_kept_for_it_again),
		TEST(who_was_given_a_listener_goes_on_with_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
