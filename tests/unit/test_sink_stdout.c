#include "keytrail/sink.h"

#include "keytrail/clock.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define LINES	 200
#define LINE_LEN 1000
#define TEXT_MAX (1u << 20)

struct fixture {
	int fd[2]; /* read, write */
	void *sink;
	struct err err;
	struct sink_event events[LINES];
	size_t done; /* of them */
	char bytes[LINES][LINE_LEN];
	size_t n;
	char text[TEXT_MAX];
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(pipe(f->fd), 0);
	assert_int_equal(sink_stdout_open_fd(f->fd[1], &f->sink, &f->err), 0);
	for (unsigned i = 0; i < LINES; i++) {
		memset(f->bytes[i], 'x', LINE_LEN);
		snprintf(f->bytes[i], LINE_LEN, "{\"n\":%03u,\"pad\":\"", i);
		f->bytes[i][strlen(f->bytes[i])] = 'x';
		memcpy(f->bytes[i] + LINE_LEN - 2, "\"}", 2);
		f->events[i].text = (struct slice){ f->bytes[i], LINE_LEN };
	}
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	sink_stdout_ops.close(f->sink);
	if (f->fd[0] != -1)
		close(f->fd[0]);
	close(f->fd[1]);
	free(f);
	return 0;
}

/* Up to the n-th event, from where the last one stopped. */
static enum sink_result
deliver(struct fixture *f, size_t n, int64_t patience_ns)
{
	size_t done = 0;
	enum sink_result result;

	f->err.msg[0] = '\0';
	result = sink_stdout_ops.deliver(f->sink, f->events + f->done, n - f->done,
	    clock_mono_ns() + patience_ns, &done, &f->err);
	f->done += done;
	return result;
}

static void
take(struct fixture *f, size_t most)
{
	ssize_t got;

	fcntl(f->fd[0], F_SETFL, O_NONBLOCK);
	while (most > 0 && (got = read(f->fd[0], f->text + f->n, most < 4096 ? most : 4096)) > 0) {
		f->n += (size_t)got;
		most -= (size_t)got;
	}
	f->text[f->n] = '\0';
}

/* Exactly these lines, once each and in order. */
static void
check_text(const struct fixture *f, size_t n)
{
	const char *p = f->text;

	for (size_t i = 0; i < n; i++, p += LINE_LEN + 1) {
		assert_true((size_t)(p - f->text) + LINE_LEN + 1 <= f->n);
		assert_memory_equal(p, f->bytes[i], LINE_LEN);
		assert_int_equal(p[LINE_LEN], '\n');
	}
	assert_int_equal(p - f->text, f->n);
}

static void
test_lines_go_out_in_order(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(deliver(f, 10, CLOCK_NS_PER_S), SINK_OK);
	take(f, TEXT_MAX);
	check_text(f, 10);
}

/* A slow reader that takes some bytes between the tries, never a whole line. */
static void
test_a_retry_neither_tears_nor_repeats_a_line(void **state)
{
	struct fixture *f = *state;
	unsigned retries = 0;

	while (deliver(f, LINES, 0) == SINK_RETRY) {
		assert_non_null(strstr(f->err.msg, "standard output"));
		retries++;
		take(f, 777);
	}
	assert_true(retries > 10);
	take(f, TEXT_MAX);
	check_text(f, LINES);
}

static void
test_the_flags_of_the_shared_description_stay(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(deliver(f, LINES, 0), SINK_RETRY);
	assert_int_equal(fcntl(f->fd[1], F_GETFL) & O_NONBLOCK, 0);
}

static void
test_a_stalled_reader_costs_no_more_than_the_deadline(void **state)
{
	struct fixture *f = *state;
	int64_t before = clock_mono_ns(), took;

	assert_int_equal(deliver(f, LINES, 50 * CLOCK_NS_PER_MS), SINK_RETRY);
	took = clock_mono_ns() - before;
	assert_true(took >= 50 * CLOCK_NS_PER_MS && took < 10 * CLOCK_NS_PER_S);
}

static void *
read_all(void *arg)
{
	struct fixture *f = arg;
	ssize_t got;

	while (f->n < LINES * (LINE_LEN + 1) &&
	       (got = read(f->fd[0], f->text + f->n, TEXT_MAX - f->n)) > 0)
		f->n += (size_t)got;
	return NULL;
}

static void
test_it_waits_for_a_reader_that_keeps_up(void **state)
{
	struct fixture *f = *state;
	pthread_t reader;

	assert_int_equal(pthread_create(&reader, NULL, read_all, f), 0);
	assert_int_equal(deliver(f, LINES, 60 * CLOCK_NS_PER_S), SINK_OK);
	pthread_join(reader, NULL);
	check_text(f, LINES);
}

static void
test_a_reader_that_is_gone_is_told(void **state)
{
	struct fixture *f = *state;

	close(f->fd[0]);
	f->fd[0] = -1;
	assert_int_equal(deliver(f, 1, CLOCK_NS_PER_S), SINK_RETRY);
	assert_non_null(strstr(f->err.msg, "Broken pipe"));
	assert_int_equal(deliver(f, 1, CLOCK_NS_PER_S), SINK_RETRY);
}

static void
test_a_line_longer_than_a_pipe_takes_at_once_is_whole(void **state)
{
	struct fixture *f = *state;
	char *line = malloc(16000);
	struct sink_event one = { .text = { line, 16000 } };
	size_t done = 0;

	memset(line, 'y', 16000);
	fcntl(f->fd[1], F_SETPIPE_SZ, 4096);
	while (sink_stdout_ops.deliver(f->sink, &one, 1, 0, &done, &f->err) == SINK_RETRY)
		take(f, 100);
	take(f, TEXT_MAX);
	assert_int_equal(f->n, 16001);
	assert_int_equal(f->text[16000], '\n');
	assert_ptr_equal(strchr(f->text, '\n'), f->text + 16000);
	free(line);
}

static void
test_a_socket_works_as_well(void **state)
{
	struct fixture *f = *state;

	sink_stdout_ops.close(f->sink);
	close(f->fd[0]);
	close(f->fd[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, f->fd), 0);
	assert_int_equal(sink_stdout_open_fd(f->fd[1], &f->sink, &f->err), 0);
	while (deliver(f, LINES, 0) == SINK_RETRY)
		take(f, 5000);
	take(f, TEXT_MAX);
	check_text(f, LINES);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_lines_go_out_in_order),
		TEST(test_a_retry_neither_tears_nor_repeats_a_line),
		TEST(test_the_flags_of_the_shared_description_stay),
		TEST(test_a_stalled_reader_costs_no_more_than_the_deadline),
		TEST(test_it_waits_for_a_reader_that_keeps_up),
		TEST(test_a_reader_that_is_gone_is_told),
		TEST(test_a_line_longer_than_a_pipe_takes_at_once_is_whole),
		TEST(test_a_socket_works_as_well),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
