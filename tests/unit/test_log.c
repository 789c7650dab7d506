#include "keytrail/log.h"

#include "keytrail/clock.h"
#include "keytrail/outfd.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define TEXT_MAX (1u << 20)

struct fixture {
	int fd[2]; /* read, write */
	struct log *log;
	size_t n;
	char text[TEXT_MAX];
};

static _Atomic int64_t fake_now;

static int64_t
fake_clock(void)
{
	return atomic_load(&fake_now);
}

/* Ten seconds a call: no line is ever too many. */
static int64_t
racing_clock(void)
{
	return atomic_fetch_add(&fake_now, 11 * CLOCK_NS_PER_S);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(pipe(f->fd), 0);
	fcntl(f->fd[0], F_SETFL, O_NONBLOCK);
	f->log = log_new(f->fd[1], LOG_LEVEL_INFO);
	assert_non_null(f->log);
	atomic_store(&fake_now, CLOCK_NS_PER_S);
	log_set_clock(f->log, fake_clock);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	log_free(f->log);
	if (f->fd[0] != -1)
		close(f->fd[0]);
	close(f->fd[1]);
	free(f);
	return 0;
}

/* What has come so far. */
static void
drain(struct fixture *f)
{
	ssize_t got;

	while ((got = read(f->fd[0], f->text + f->n, TEXT_MAX - 1 - f->n)) > 0)
		f->n += (size_t)got;
	f->text[f->n] = '\0';
}

static void
flush_all(struct fixture *f)
{
	while (!log_flush(f->log))
		drain(f);
	drain(f);
}

static unsigned
count(const char *text, const char *what)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
		n++;
	return n;
}

static const struct {
	const char *label, *message, *want;
} messages[] = {
	{ "plain text stays", "sink out is up", "sink out is up" },
	{ "quotes and backslashes are escaped", "a \"b\" \\c", "a \\\"b\\\" \\\\c" },
	{ "a newline cannot forge a line", "a\n{\"level\":\"info\"}",
	    "a\\u000a{\\\"level\\\":\\\"info\\\"}" },
	{ "control characters and DEL", "\x01\x1b[31m\x7f", "\\u0001\\u001b[31m\\u007f" },
	{ "two and three bytes", "\xc3\xa9\xe2\x80\xae", "\\u00e9\\u202e" },
	{ "a pair of surrogates", "\xf0\x9f\x98\x80", "\\ud83d\\ude00" },
	{ "invalid UTF-8 is replaced", "\xff\xc0\x80z\xe2\x80",
	    "\\ufffd\\ufffd\\ufffdz\\ufffd\\ufffd" },
	{ "an encoded surrogate is invalid", "\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd" },
	{ "the empty message", "", "" },
};

static void
test_a_line_is_ascii_json(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		char want[512];
		int n;

		f->n = 0;
		atomic_fetch_add(&fake_now, 11 * CLOCK_NS_PER_S);
		log_warn(f->log, "word", "%s", messages[i].message);
		flush_all(f);
		n = snprintf(want, sizeof(want),
		    "\"level\":\"warn\",\"event\":\"word\",\"message\":\"%s\"}\n",
		    messages[i].want);
		if (f->n < 35 + (size_t)n || strcmp(f->text + f->n - n, want) != 0)
			fail_msg("%s: %s", messages[i].label, f->text);
		assert_int_equal(strncmp(f->text, "{\"time\":\"20", 11), 0);
		assert_int_equal(f->text[10 + 23], '"');
	}
}

static void
test_a_long_message_is_cut(void **state)
{
	struct fixture *f = *state;
	char text[5000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_error(f->log, "word", "%s", text);
	flush_all(f);
	assert_int_equal(count(f->text, "x"), 1000);
	assert_int_equal(count(f->text, "\"}\n"), 1);
}

static void
test_levels_are_filtered_and_can_change(void **state)
{
	struct fixture *f = *state;

	log_debug(f->log, "unseen", "no");
	log_info(f->log, "seen", "yes");
	log_set_level(f->log, LOG_LEVEL_ERROR);
	log_warn(f->log, "unseen", "no");
	log_notice(f->log, "always", "yes");
	log_set_level(f->log, LOG_LEVEL_TRACE);
	log_write(f->log, LOG_LEVEL_TRACE, "seen", "yes");
	flush_all(f);
	assert_int_equal(count(f->text, "unseen"), 0);
	assert_int_equal(count(f->text, "\"seen\""), 2);
	assert_int_equal(count(f->text, "\"notice\",\"event\":\"always\""), 1);
}

static bool
readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 1;
}

static void
test_the_wakeup_tells_of_new_lines(void **state)
{
	struct fixture *f = *state;

	assert_false(readable(log_wakeup_fd(f->log)));
	log_debug(f->log, "word", "below the level");
	assert_false(readable(log_wakeup_fd(f->log)));
	log_info(f->log, "word", "text");
	log_info(f->log, "word", "text");
	assert_true(readable(log_wakeup_fd(f->log)));
	flush_all(f);
	assert_false(readable(log_wakeup_fd(f->log)));
}

static void
test_a_word_is_limited_and_the_rest_counted(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 50; i++)
		log_info(f->log, "noisy", "text");
	log_info(f->log, "quiet", "text");
	flush_all(f);
	assert_int_equal(count(f->text, "\"noisy\""), 20);
	assert_int_equal(count(f->text, "\"quiet\""), 1);
	assert_int_equal(count(f->text, "log_suppressed"), 0);
	assert_int_equal(log_suppressed_total(f->log), 30);

	atomic_fetch_add(&fake_now, 10 * CLOCK_NS_PER_S);
	log_info(f->log, "noisy", "text");
	flush_all(f);
	assert_int_equal(count(f->text, "30 lines of noisy suppressed"), 1);
	assert_int_equal(count(f->text, "\"noisy\""), 21);
	assert_int_equal(log_suppressed_total(f->log), 30);
}

static void
test_what_was_suppressed_is_reported_without_another_line(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 21; i++)
		log_info(f->log, "noisy", "text");
	atomic_fetch_add(&fake_now, 10 * CLOCK_NS_PER_S);
	flush_all(f);
	assert_int_equal(count(f->text, "1 lines of noisy suppressed"), 1);
}

static void
test_more_words_than_the_table_holds_stay_counted(void **state)
{
	struct fixture *f = *state;
	static char words[200][16];

	for (int i = 0; i < 21; i++)
		log_info(f->log, "noisy", "text");
	for (int i = 0; i < 200; i++) {
		snprintf(words[i], sizeof(words[i]), "w%d", i);
		atomic_fetch_add(&fake_now, 1);
		log_info(f->log, words[i], "text");
	}
	flush_all(f);
	assert_int_equal(count(f->text, "\"message\":\"text\""), 220);
	assert_int_equal(count(f->text, "1 lines of noisy suppressed"), 1);
}

/* Lines of words that are never limited. */
static void
write_lines(struct fixture *f, unsigned n)
{
	char pad[200];

	memset(pad, 'p', sizeof(pad) - 1);
	pad[sizeof(pad) - 1] = '\0';
	log_set_clock(f->log, racing_clock);
	for (unsigned i = 0; i < n; i++)
		log_info(f->log, "line", "%u %s", i, pad);
}

static void
test_a_stalled_reader_blocks_nobody(void **state)
{
	struct fixture *f = *state;
	unsigned written = 3000; /* three times the buffer */
	uint64_t dropped;
	char want[64];

	write_lines(f, written);
	assert_false(log_flush(f->log));
	assert_false(log_flush(f->log));
	dropped = log_dropped_total(f->log);
	assert_true(dropped > 1000 && dropped < written);
	assert_int_equal(fcntl(f->fd[1], F_GETFL) & O_NONBLOCK, 0);

	flush_all(f);
	assert_int_equal(count(f->text, "\"event\":\"line\""), written - dropped);
	snprintf(
	    want, sizeof(want), "%llu lines dropped for want of room", (unsigned long long)dropped);
	assert_int_equal(count(f->text, want), 1);
	assert_int_equal(count(f->text, "\n{\"time\""), count(f->text, "\n") - 1);
}

static void
test_a_reader_that_is_gone_is_survived(void **state)
{
	struct fixture *f = *state;

	close(f->fd[0]);
	f->fd[0] = -1;
	write_lines(f, 7);
	assert_true(log_flush(f->log));
	assert_int_equal(log_dropped_total(f->log), 7);
	write_lines(f, 1);
	assert_true(log_flush(f->log));
	assert_int_equal(log_dropped_total(f->log), 8);
}

static void
test_free_does_not_wait_for_a_stalled_reader(void **state)
{
	struct fixture *f = *state;
	int64_t before = clock_mono_ns();

	write_lines(f, 1000);
	log_free(f->log);
	assert_true(clock_mono_ns() - before < 10 * CLOCK_NS_PER_S);
	f->log = log_new(f->fd[1], LOG_LEVEL_INFO);
}

static void
test_free_writes_what_is_left(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 22; i++)
		log_info(f->log, "noisy", "text");
	log_free(f->log);
	f->log = log_new(f->fd[1], LOG_LEVEL_INFO);
	drain(f);
	assert_int_equal(count(f->text, "\"noisy\""), 20);
	assert_int_equal(count(f->text, "2 lines of noisy suppressed"), 1);
}

#define THREADS 4
#define LINES	500

static void *
thread_lines(void *arg)
{
	struct log *log = arg;

	for (int i = 0; i < LINES; i++)
		log_info(log, "threaded", "a line that is never torn");
	return NULL;
}

static void
test_threads_do_not_tear_lines(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[THREADS];

	log_set_clock(f->log, racing_clock);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, thread_lines, f->log), 0);
	for (int i = 0; i < 1000; i++) {
		log_flush(f->log);
		drain(f);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	flush_all(f);
	assert_int_equal(log_dropped_total(f->log), 0);
	assert_int_equal(
	    count(f->text, "\"message\":\"a line that is never torn\"}\n"), THREADS * LINES);
	assert_int_equal(count(f->text, "{\"time\""), count(f->text, "\n"));
}

/* ---- outfd ---- */

static void
test_pieces_end_at_lines_that_a_pipe_takes_whole(void **state)
{
	static char text[3 * PIPE_BUF];

	(void)state;
	memset(text, 'x', sizeof(text));
	assert_int_equal(outfd_whole_lines(text, 10), 10);
	text[4] = '\n';
	assert_int_equal(outfd_whole_lines(text, 10), 5);
	text[PIPE_BUF - 1] = '\n';
	assert_int_equal(outfd_whole_lines(text, sizeof(text)), PIPE_BUF);
	text[PIPE_BUF - 1] = 'x';
	text[PIPE_BUF] = '\n';
	assert_int_equal(outfd_whole_lines(text, sizeof(text)), 5);
	text[4] = 'x';
	assert_int_equal(outfd_whole_lines(text, sizeof(text)), PIPE_BUF + 1);
	text[PIPE_BUF] = 'x';
	assert_int_equal(outfd_whole_lines(text, sizeof(text)), sizeof(text));
}

static void
fill(struct outfd *o)
{
	static char text[PIPE_BUF];
	ssize_t w;

	while ((w = outfd_write(o, text, sizeof(text))) > 0)
		;
	assert_int_equal(w, 0);
}

static void
test_a_full_socket_does_not_block(void **state)
{
	struct outfd o;
	int fd[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	outfd_init(&o, fd[0]);
	fill(&o);
	assert_int_equal(fcntl(fd[0], F_GETFL) & O_NONBLOCK, 0);
	outfd_fini(&o);
	assert_int_not_equal(fcntl(fd[0], F_GETFD), -1);
	close(fd[0]);
	close(fd[1]);
}

/* As where /proc is missing: the pipe's own description is used. */
static void
test_a_full_pipe_that_cannot_be_opened_again_does_not_block(void **state)
{
	struct outfd o;
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	o = (struct outfd){ .fd = fd[1], .bounded = true };
	fill(&o);
	close(fd[0]);
	assert_int_equal(outfd_write(&o, "x", 1), -1);
	close(fd[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_a_line_is_ascii_json),
		TEST(test_a_long_message_is_cut),
		TEST(test_levels_are_filtered_and_can_change),
		TEST(test_the_wakeup_tells_of_new_lines),
		TEST(test_a_word_is_limited_and_the_rest_counted),
		TEST(test_what_was_suppressed_is_reported_without_another_line),
		TEST(test_more_words_than_the_table_holds_stay_counted),
		TEST(test_a_stalled_reader_blocks_nobody),
		TEST(test_a_reader_that_is_gone_is_survived),
		TEST(test_free_does_not_wait_for_a_stalled_reader),
		TEST(test_free_writes_what_is_left),
		TEST(test_threads_do_not_tear_lines),
		cmocka_unit_test(test_pieces_end_at_lines_that_a_pipe_takes_whole),
		cmocka_unit_test(test_a_full_socket_does_not_block),
		cmocka_unit_test(test_a_full_pipe_that_cannot_be_opened_again_does_not_block),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
