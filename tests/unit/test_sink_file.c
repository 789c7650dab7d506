#include "keytrail/sink.h"

#include "keytrail/clock.h"
#include "tempdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#define TEXT_MAX 65536
#define SUM	 "\"sum\":\"0123abcd\"}}"

struct fixture {
	char dir[TEMPDIR_SIZE];
	char path[TEMPDIR_SIZE + 64];
	struct config_sink cfg;
	void *sink;
	size_t done;
	struct err err;
	char text[TEXT_MAX];
};

static int64_t wall_now;

static int64_t
fake_wall(void)
{
	return wall_now;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	snprintf(f->path, sizeof(f->path), "%s/audit.jsonl", f->dir);
	f->cfg = (struct config_sink){ .path = f->path, .keep = 10 };
	wall_now = clock_wall_ns();
	*state = f;
	return 0;
}

static void
close_sink(struct fixture *f)
{
	if (f->sink != NULL)
		sink_file_ops.close(f->sink);
	f->sink = NULL;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	close_sink(f);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static void
open_sink(struct fixture *f)
{
	if (sink_file_ops.open(&f->cfg, &f->sink, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	sink_file_set_clock(f->sink, fake_wall);
}

/* One line for each argument, up to NULL. */
static enum sink_result
deliver(struct fixture *f, ...)
{
	struct sink_event events[64] = { 0 };
	size_t n = 0;
	const char *s;
	va_list ap;

	va_start(ap, f);
	while ((s = va_arg(ap, const char *)) != NULL)
		events[n++].text = slice_of(s);
	va_end(ap);
	f->err.msg[0] = '\0';
	f->done = 0;
	return sink_file_ops.deliver(
	    f->sink, events, n, clock_mono_ns() + CLOCK_NS_PER_S, &f->done, &f->err);
}

#define assert_delivered(f, ...)                                                                   \
	do {                                                                                       \
		if (deliver(f, __VA_ARGS__, NULL) != SINK_OK || f->err.msg[0] != '\0')             \
			fail_msg("%s", f->err.msg);                                                \
	} while (0)

static const char *
text_of(struct fixture *f, const char *path)
{
	FILE *file = fopen(path, "r");
	size_t n = file == NULL ? 0 : fread(f->text, 1, TEXT_MAX - 1, file);

	f->text[n] = '\0';
	if (file != NULL)
		fclose(file);
	return f->text;
}

static void
write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int
is_rotated(const struct dirent *d)
{
	return strncmp(d->d_name, "audit.jsonl.", 12) == 0;
}

/* The texts of the rotated files, oldest name first, each followed by '|'. */
static void
rotated(struct fixture *f, char *out, size_t size)
{
	struct dirent **all;
	int n = scandir(f->dir, &all, is_rotated, by_name);

	out[0] = '\0';
	for (int i = 0; i < n; i++) {
		char path[TEMPDIR_SIZE + 300];

		snprintf(path, sizeof(path), "%s/%s", f->dir, all[i]->d_name);
		strncat(out, text_of(f, path), size - strlen(out) - 1);
		strncat(out, "|", size - strlen(out) - 1);
		free(all[i]);
	}
	free(all);
}

#define assert_rotated(f, want)                                                                    \
	do {                                                                                       \
		char got[4096];                                                                    \
		rotated(f, got, sizeof(got));                                                      \
		assert_string_equal(got, want);                                                    \
	} while (0)

/* ---- appending ---- */

static void
test_lines_are_appended(void **state)
{
	struct fixture *f = *state;

	write_file(f->path, "before\n");
	open_sink(f);
	assert_delivered(f, "one", "two");
	assert_delivered(f, "three");
	assert_string_equal(text_of(f, f->path), "before\none\ntwo\nthree\n");
}

static void
test_the_file_is_for_owner_and_group(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	umask(022);
	open_sink(f);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
}

/* ---- a tail that a crash left ---- */

static const struct {
	const char *label, *before, *after;
} tails[] = {
	{ "half a line of ours goes: it comes again", "one\n{\"action\":\"kms", "one\n" },
	{ "even when it is the first", "{\"action\":\"kms.secrets.r", "" },
	{ "even when it is shorter than its opening", "one\n{\"act", "one\n" },
	{ "a line that lacks only its newline gets it", "one\n{\"action\":\"a\",\"trail\":{" SUM,
	    "one\n{\"action\":\"a\",\"trail\":{" SUM "\n" },
	{ "what is not ours stays", "one\nhello", "one\nhello\n" },
	{ "another object stays", "{\"a\":1}", "{\"a\":1}\n" },
	{ "a whole file is left alone", "one\ntwo\n", "one\ntwo\n" },
	{ "an empty file is left alone", "", "" },
};

static void
test_the_tail_is_mended_when_opened(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
		char want[256];

		write_file(f->path, tails[i].before);
		open_sink(f);
		assert_delivered(f, "next");
		close_sink(f);
		snprintf(want, sizeof(want), "%snext\n", tails[i].after);
		if (strcmp(text_of(f, f->path), want) != 0)
			fail_msg("%s: %s", tails[i].label, f->text);
	}
}

/* ---- rotation ---- */

static void
test_a_file_is_rotated_before_it_grows_too_large(void **state)
{
	struct fixture *f = *state;

	f->cfg.rotate_size = 8;
	open_sink(f);
	assert_delivered(f, "111", "222", "333");
	assert_string_equal(text_of(f, f->path), "333\n");
	assert_rotated(f, "111\n222\n|");
	assert_delivered(f, "444");
	assert_string_equal(text_of(f, f->path), "333\n444\n");
	assert_delivered(f, "5");
	assert_string_equal(text_of(f, f->path), "5\n");
	assert_rotated(f, "111\n222\n|333\n444\n|");
}

static void
test_a_line_larger_than_a_file_gets_one_of_its_own(void **state)
{
	struct fixture *f = *state;

	f->cfg.rotate_size = 8;
	open_sink(f);
	assert_delivered(f, "1", "a line that is too long", "2");
	assert_string_equal(text_of(f, f->path), "2\n");
	assert_rotated(f, "1\n|a line that is too long\n|");
}

static void
test_an_old_file_is_rotated(void **state)
{
	struct fixture *f = *state;

	f->cfg.rotate_age = 3600;
	open_sink(f);
	assert_delivered(f, "one");
	wall_now += 3599 * CLOCK_NS_PER_S;
	assert_delivered(f, "two");
	assert_rotated(f, "");
	wall_now += 2 * CLOCK_NS_PER_S;
	assert_delivered(f, "three");
	assert_rotated(f, "one\ntwo\n|");
	assert_string_equal(text_of(f, f->path), "three\n");
}

static void
test_an_empty_file_is_never_too_old(void **state)
{
	struct fixture *f = *state;

	f->cfg.rotate_age = 3600;
	open_sink(f);
	wall_now += 7200 * CLOCK_NS_PER_S;
	assert_delivered(f, "one");
	assert_rotated(f, "");
}

static void
test_rotated_files_carry_the_time_and_no_name_is_reused(void **state)
{
	struct fixture *f = *state;
	char path[TEMPDIR_SIZE + 100];

	wall_now = 1606064400 * CLOCK_NS_PER_S;
	f->cfg.rotate_size = 2;
	open_sink(f);
	assert_delivered(f, "1", "2", "3");
	snprintf(path, sizeof(path), "%s.20201122T170000Z", f->path);
	assert_string_equal(text_of(f, path), "1\n");
	snprintf(path, sizeof(path), "%s.20201122T170000Z-1", f->path);
	assert_string_equal(text_of(f, path), "2\n");
}

static void
test_only_so_many_rotated_files_are_kept(void **state)
{
	struct fixture *f = *state;
	char other[TEMPDIR_SIZE + 100];
	char line[8];

	snprintf(other, sizeof(other), "%s.notes", f->path);
	write_file(other, "notes\n");
	f->cfg.rotate_size = 2;
	f->cfg.keep = 3;
	open_sink(f);
	for (int i = 0; i < 14; i++) {
		snprintf(line, sizeof(line), "%x", i);
		wall_now += i % 2 * CLOCK_NS_PER_S;
		assert_delivered(f, line);
	}
	assert_string_equal(text_of(f, f->path), "d\n");
	assert_rotated(f, "a\n|b\n|c\n|notes\n|");
}

/* More than ten in a second: -10 is newer than -9, though it sorts before it. */
static void
test_the_newest_of_one_second_are_kept(void **state)
{
	struct fixture *f = *state;
	char line[8], got[256];

	f->cfg.rotate_size = 2;
	f->cfg.keep = 2;
	open_sink(f);
	for (int i = 0; i < 15; i++) {
		snprintf(line, sizeof(line), "%x", i);
		assert_delivered(f, line);
	}
	rotated(f, got, sizeof(got));
	assert_non_null(strchr(got, 'd'));
	assert_null(strchr(got, 'b'));
}

/* Trap 9: rotation is not possible; the events matter more. */
static void
test_a_file_that_cannot_be_renamed_is_written_on(void **state)
{
	struct fixture *f = *state;

	char long_path[TEMPDIR_SIZE + 260];
	int n = snprintf(long_path, sizeof(long_path), "%s/", f->dir);

	/* Its own name is not too long, but with the time it would be. */
	memset(long_path + n, 'n', 245);
	long_path[n + 245] = '\0';
	f->cfg.path = long_path;
	f->cfg.rotate_size = 2;
	open_sink(f);
	assert_delivered(f, "1");
	assert_int_equal(deliver(f, "2", "3", NULL), SINK_OK);
	assert_non_null(strstr(f->err.msg, "rotate: File name too long"));
	assert_string_equal(text_of(f, long_path), "1\n2\n3\n");
}

/* Trap 17. */
static void
test_the_newest_is_kept_when_the_clock_is_put_back(void **state)
{
	struct fixture *f = *state;

	f->cfg.rotate_size = 2;
	f->cfg.keep = 1;
	open_sink(f);
	assert_delivered(f, "1", "2");
	assert_rotated(f, "1\n|");
	wall_now -= 7200 * CLOCK_NS_PER_S;
	assert_delivered(f, "3");
	assert_rotated(f, "2\n|");
	assert_string_equal(text_of(f, f->path), "3\n");
}

/* ---- the file changes under us: trap 9 ---- */

static void
test_a_renamed_file_is_left_and_a_new_one_made(void **state)
{
	struct fixture *f = *state;
	char moved[TEMPDIR_SIZE + 100];

	snprintf(moved, sizeof(moved), "%s.1", f->path);
	open_sink(f);
	assert_delivered(f, "one");
	assert_int_equal(rename(f->path, moved), 0);
	assert_delivered(f, "two");
	assert_string_equal(text_of(f, moved), "one\n");
	assert_string_equal(text_of(f, f->path), "two\n");
	assert_int_equal(sink_file_ops.flush(f->sink, 0, &f->err), 0);
}

static void
test_lines_that_went_with_a_removed_file_come_again(void **state)
{
	struct fixture *f = *state;

	open_sink(f);
	assert_delivered(f, "safe");
	assert_int_equal(sink_file_ops.flush(f->sink, 0, &f->err), 0);
	assert_delivered(f, "lost");
	assert_int_equal(unlink(f->path), 0);
	assert_delivered(f, "next");
	assert_int_equal(sink_file_ops.flush(f->sink, 0, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "comes again"));
	assert_delivered(f, "lost", "next");
	assert_int_equal(sink_file_ops.flush(f->sink, 0, &f->err), 0);
	assert_string_equal(text_of(f, f->path), "next\nlost\nnext\n");
}

static void
test_a_file_that_is_removed_before_the_flush_is_noticed(void **state)
{
	struct fixture *f = *state;

	open_sink(f);
	assert_delivered(f, "lost");
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(sink_file_ops.flush(f->sink, 0, &f->err), -1);
	assert_delivered(f, "lost");
	assert_int_equal(sink_file_ops.flush(f->sink, 0, &f->err), 0);
	assert_string_equal(text_of(f, f->path), "lost\n");
}

static void
test_a_file_that_was_cut_by_somebody_is_appended_to(void **state)
{
	struct fixture *f = *state;

	open_sink(f);
	assert_delivered(f, "one");
	assert_int_equal(truncate(f->path, 0), 0);
	assert_delivered(f, "two");
	assert_string_equal(text_of(f, f->path), "two\n");
}

static void
test_usr1_reopens(void **state)
{
	struct fixture *f = *state;
	struct stat before, after;

	open_sink(f);
	assert_delivered(f, "one");
	assert_int_equal(stat(f->path, &before), 0);
	sink_file_ops.reopen(f->sink);
	assert_delivered(f, "two");
	assert_int_equal(stat(f->path, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_string_equal(text_of(f, f->path), "one\ntwo\n");
}

/* ---- what cannot be written ---- */

static void
test_errors_name_the_path(void **state)
{
	struct fixture *f = *state;
	char missing[TEMPDIR_SIZE + 100];

	snprintf(missing, sizeof(missing), "%s/no/file", f->dir);
	f->cfg.path = missing;
	assert_int_equal(sink_file_ops.open(&f->cfg, &f->sink, &f->err), -1);
	assert_non_null(strstr(f->err.msg, missing));
	assert_non_null(strstr(f->err.msg, "No such file"));
	f->cfg.path = f->path;
	assert_int_equal(mkfifo(f->path, 0600), 0);
	assert_int_equal(sink_file_ops.open(&f->cfg, &f->sink, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "not a regular file"));
	f->sink = NULL;
}

/* In a process of its own, where no file can be larger than `max`. */
static void
fill_disk(struct fixture *f, rlim_t max)
{
	struct rlimit limit = { max, max };
	int ok;

	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	ok = deliver(f, "222", "333", "444", NULL) == SINK_RETRY &&
	     strstr(f->err.msg, "write: File too large") != NULL;
	_exit(ok ? 0 : 1);
}

/* Trap 8: the torn line would be joined by the next one. */
static void
test_a_full_disk_leaves_no_half_line(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	open_sink(f);
	assert_delivered(f, "111");
	if ((pid = fork()) == 0)
		fill_disk(f, 10);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_string_equal(text_of(f, f->path), "111\n");
	assert_delivered(f, "222", "333");
	assert_string_equal(text_of(f, f->path), "111\n222\n333\n");
}

static void
test_a_retry_goes_on_where_rotation_stopped(void **state)
{
	struct fixture *f = *state;
	char moved[TEMPDIR_SIZE + 100];

	snprintf(moved, sizeof(moved), "%s.moved", f->dir);
	f->cfg.rotate_size = 8;
	open_sink(f);
	assert_delivered(f, "111");
	/* The folder goes away, a directory comes in the file's place: it cannot be opened. */
	assert_int_equal(rename(f->path, moved), 0);
	assert_int_equal(mkdir(f->path, 0700), 0);
	assert_int_equal(deliver(f, "222", "333", NULL), SINK_RETRY);
	assert_non_null(strstr(f->err.msg, "Is a directory"));
	assert_int_equal(rmdir(f->path), 0);
	assert_delivered(f, "222", "333");
	assert_string_equal(text_of(f, f->path), "222\n333\n");
	unlink(moved);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_lines_are_appended),
		TEST(test_the_file_is_for_owner_and_group),
		TEST(test_the_tail_is_mended_when_opened),
		TEST(test_a_file_is_rotated_before_it_grows_too_large),
		TEST(test_a_line_larger_than_a_file_gets_one_of_its_own),
		TEST(test_an_old_file_is_rotated),
		TEST(test_an_empty_file_is_never_too_old),
		TEST(test_rotated_files_carry_the_time_and_no_name_is_reused),
		TEST(test_only_so_many_rotated_files_are_kept),
		TEST(test_the_newest_of_one_second_are_kept),
		TEST(test_a_file_that_cannot_be_renamed_is_written_on),
		TEST(test_the_newest_is_kept_when_the_clock_is_put_back),
		TEST(test_a_renamed_file_is_left_and_a_new_one_made),
		TEST(test_lines_that_went_with_a_removed_file_come_again),
		TEST(test_a_file_that_is_removed_before_the_flush_is_noticed),
		TEST(test_a_file_that_was_cut_by_somebody_is_appended_to),
		TEST(test_usr1_reopens),
		TEST(test_errors_name_the_path),
		TEST(test_a_full_disk_leaves_no_half_line),
		TEST(test_a_retry_goes_on_where_rotation_stopped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
