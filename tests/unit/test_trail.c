#include "keytrail/trail.h"

#include "keytrail/clock.h"
#include "keytrail/crc32c.h"
#include "keytrail/ring.h"
#include "tempdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SEGMENT 4096

struct fixture {
	char dir[TEMPDIR_SIZE];
	struct trail *t;
	struct trail_recovery rec;
	struct err err;
	const char *signed_log; /* or NULL */
	uint64_t signed_size;
	uint64_t segment_size; /* 0: SEGMENT */
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	if (f->t != NULL)
		trail_close(f->t, false);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static int
try_open(struct fixture *f, const struct trail_io *io)
{
	struct trail_opts opts = { .dir = f->dir,
		.create = true,
		.segment_size = f->segment_size > 0 ? f->segment_size : SEGMENT,
		.room = 0,
		.io = io,
		.signed_log = f->signed_log,
		.signed_size = f->signed_size };

	f->t = NULL;
	return trail_open(&opts, &f->t, &f->rec, &f->err);
}

/* And record what that found, as the journal does. */
static void
open_trail(struct fixture *f)
{
	if (try_open(f, NULL) == -1)
		fail_msg("%s", f->err.msg);
	trail_recovery_recorded(f->t, &f->err);
}

static void
close_trail(struct fixture *f, bool clean)
{
	trail_close(f->t, clean);
	f->t = NULL;
}

static void
append_at(struct fixture *f, const char *text, int64_t wall_ns)
{
	uint64_t seq;

	if (trail_append(f->t, slice_of(text), wall_ns, &seq, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

static void
append(struct fixture *f, const char *text)
{
	append_at(f, text, clock_wall_ns());
}

static void
sync_trail(struct fixture *f)
{
	if (trail_write(f->t, &f->err) == -1 || trail_sync(f->t, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

/* n durable lines, each in a commit of its own. */
static void
append_durable_at(struct fixture *f, unsigned n, int64_t wall_ns)
{
	for (unsigned i = 0; i < n; i++) {
		char text[100];

		snprintf(text, sizeof(text), "{\"action\":\"test\",\"id\":\"id-%" PRIu64 "\"",
		    trail_last_seq(f->t) + 1);
		append_at(f, text, wall_ns);
		sync_trail(f);
	}
}

static void
append_durable(struct fixture *f, unsigned n)
{
	append_durable_at(f, n, clock_wall_ns());
}

static char *
path_of(const struct fixture *f, const char *name)
{
	static char path[TEMPDIR_SIZE + 64];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return path;
}

static char *
segment_path(const struct fixture *f, uint64_t first)
{
	char name[40];

	snprintf(name, sizeof(name), "%020" PRIu64 ".jsonl", first);
	return path_of(f, name);
}

static long
file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (long)st.st_size : -1;
}

static size_t
read_file(const char *path, char *out, size_t cap)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd == -1 ? 0 : read(fd, out, cap);

	assert_true(fd != -1 && n >= 0);
	close(fd);
	return (size_t)n;
}

static void
write_file(const char *path, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd != -1);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

static void
append_file(const char *path, const char *text, size_t n)
{
	int fd = open(path, O_WRONLY | O_APPEND);

	assert_true(fd != -1);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

static void
flip_byte(const char *path, long at)
{
	int fd = open(path, O_RDWR);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

static void
commit_ring(struct ring *r, const char *text)
{
	size_t n = strlen(text);

	assert_true(ring_claim(r, n));
	memcpy(ring_line(r, n), text, n);
	ring_commit(r, n, n, RING_DURABLE);
}

struct seen {
	uint64_t n, first, last, gaps, corrupt;
};

/* Everything that a reader gets; each number once and in order. */
static struct seen
read_all(struct fixture *f, uint64_t from)
{
	struct trail_reader *r;
	struct seen seen = { 0 };
	struct trail_member m;
	struct slice line;
	uint64_t seq;
	int rc;

	assert_int_equal(trail_reader_open(f->dir, from, &r, &f->err), 0);
	while ((rc = trail_reader_next(r, &line, &seq, &f->err)) == 1) {
		assert_int_equal(trail_parse_line(line, &m), 0);
		assert_int_equal(m.seq, seq);
		assert_true(seq > seen.last);
		if (seen.n++ == 0)
			seen.first = seq;
		else if (seq != seen.last + 1)
			seen.gaps++;
		seen.last = seq;
	}
	assert_int_equal(rc, 0);
	seen.corrupt = trail_reader_corrupt(r);
	trail_reader_close(r);
	return seen;
}

/* ---- format ---- */

static void
the_trail_member_is_as_the_design_says(void **state)
{
	struct fixture *f = *state;
	char text[4096], want[600], head[512];
	struct trail_member m;
	uint64_t seq;
	size_t n;

	open_trail(f);
	assert_int_equal(trail_append(f->t, SLICE("{\"action\":\"a\",\"id\":\"1\""),
			     1592840176700000000LL, &seq, &f->err),
	    0);
	assert_int_equal(seq, 1);
	sync_trail(f);
	snprintf(head, sizeof(head),
	    "{\"action\":\"a\",\"id\":\"1\",\"trail\":{\"at\":\"2020-06-22T15:36:16.70+0000\","
	    "\"boot\":\"%s\",\"log\":\"%s\",\"seq\":1",
	    trail_boot_id(f->t), trail_log_id(f->t));
	snprintf(
	    want, sizeof(want), "%s,\"sum\":\"%08x\"}}\n", head, crc32c(0, head, strlen(head)));
	n = read_file(segment_path(f, 1), text, sizeof(text));
	assert_int_equal(n, strlen(want));
	assert_memory_equal(text, want, n);
	assert_int_equal(trail_parse_line((struct slice){ text, n - 1 }, &m), 0);
	assert_int_equal(m.seq, 1);
	assert_int_equal(m.event_len, strlen("{\"action\":\"a\",\"id\":\"1\""));
	assert_true(slice_equal(m.at, SLICE("2020-06-22T15:36:16.70+0000")));
	assert_true(slice_equal(m.boot, slice_of(trail_boot_id(f->t))));
	assert_true(slice_equal(m.log, slice_of(trail_log_id(f->t))));
}

static void
a_line_with_any_byte_changed_is_refused(void **state)
{
	struct fixture *f = *state;
	char text[4096];
	struct trail_member m;
	size_t n;

	open_trail(f);
	append_durable(f, 1);
	n = read_file(segment_path(f, 1), text, sizeof(text)) - 1;
	for (size_t i = 0; i < n; i++) {
		text[i] ^= 1;
		assert_int_equal(trail_parse_line((struct slice){ text, n }, &m), -1);
		text[i] ^= 1;
		assert_int_equal(trail_parse_line((struct slice){ text, i }, &m), -1);
	}
	assert_int_equal(trail_parse_line((struct slice){ text, n }, &m), 0);
}

static void
files_have_the_documented_names_and_modes(void **state)
{
	static const struct {
		const char *name;
		unsigned mode;
	} files[] = {
		{ "00000000000000000001.jsonl", 0640 },
		{ "log", 0600 },
		{ "lock", 0600 },
		{ "state", 0600 },
	};
	struct fixture *f = *state;
	struct stat st;
	mode_t mask = umask(0);

	rmdir(f->dir);
	open_trail(f);
	append_durable(f, 1);
	umask(mask);
	assert_int_equal(stat(f->dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		assert_int_equal(stat(path_of(f, files[i].name), &st), 0);
		assert_int_equal(st.st_mode & 07777, files[i].mode);
	}
}

static void
recovered_is_put_at_its_sorted_place(void **state)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{ "{\"action\":\"a\",\"reason\":{\"recovered\":1},\"requestData\":{\"z\":[1,{}]}",
		    "{\"action\":\"a\",\"reason\":{\"recovered\":1},\"recovered\":true,"
		    "\"requestData\":{\"z\":[1,{}]}" },
		{ "{\"action\":\"}\\\",\\\"x\"", "{\"action\":\"}\\\",\\\"x\",\"recovered\":true" },
		{ "{\"severity\":1", "{\"recovered\":true,\"severity\":1" },
		{ "{\"reason\":{\"a\":\"b,\\\"c\"}",
		    "{\"reason\":{\"a\":\"b,\\\"c\"},\"recovered\":true" },
		{ "{\"recovered\":true,\"z\":1", "{\"recovered\":true,\"z\":1" },
		{ "{\"recovere\":1,\"recoveredx\":2",
		    "{\"recovere\":1,\"recovered\":true,\"recoveredx\":2" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[256];
		size_t n = trail_line_recovered(slice_of(cases[i].line), out);

		out[n] = '\0';
		assert_string_equal(out, cases[i].want);
		assert_true(n <= strlen(cases[i].line) + TRAIL_RECOVERED_MAX);
	}
}

static void
an_id_is_looked_for_at_the_top_level_only(void **state)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{ "{\"action\":\"a\",\"id\":\"x\"", "x" },
		{ "{\"action\":\"a\",\"initiator\":{\"id\":\"y\"},\"outcome\":\"z\"", "" },
		{ "{\"a\":\"\\\"id\\\":\\\"n\\\"\",\"id\":\"x\",\"target\":{}", "x" },
		{ "{\"a\":\"\\\\\",\"id\":\"x\"", "x" },
		{ "{\"a\":\"\\\\\\\",\\\"id\\\":\",\"id\":\"x\"", "x" },
		{ "{\"id\":\"x\\\"y\\\\\"", "x\\\"y\\\\" },
		{ "{\"id\":5", "" },
		{ "{\"id\":\"cut", "" },
		{ "{", "" },
		{ "{\"id\"", "" },
		{ "{\"id", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct slice id = trail_line_string(slice_of(cases[i].line), SLICE("id"));

		assert_true(slice_equal(id, slice_of(cases[i].want)));
	}
}

/* ---- append, roll, reopen ---- */

static void
lines_survive_a_clean_stop_and_numbers_go_on(void **state)
{
	struct fixture *f = *state;
	char boot[TRAIL_ID_SIZE], log[TRAIL_ID_SIZE];
	struct seen seen;

	open_trail(f);
	assert_true(f->rec.new_log);
	assert_false(f->rec.clean);
	assert_string_equal(f->rec.previous_boot, "");
	strcpy(boot, trail_boot_id(f->t));
	strcpy(log, trail_log_id(f->t));
	append_durable(f, 100);
	close_trail(f, true);
	open_trail(f);
	assert_false(f->rec.new_log);
	assert_true(f->rec.clean);
	assert_string_equal(f->rec.previous_boot, boot);
	assert_string_not_equal(trail_boot_id(f->t), boot);
	assert_string_equal(trail_log_id(f->t), log);
	assert_int_equal(trail_durable_seq(f->t), 100);
	append_durable(f, 1);
	seen = read_all(f, 0);
	assert_int_equal(seen.n, 101);
	assert_int_equal(seen.gaps, 0);
}

static void
an_unclean_stop_is_noticed_and_loses_nothing_synced(void **state)
{
	struct fixture *f = *state;

	open_trail(f);
	append_durable(f, 50);
	close_trail(f, false);
	open_trail(f);
	assert_false(f->rec.clean);
	assert_int_equal(trail_durable_seq(f->t), 50);
	assert_int_equal(f->rec.torn_bytes + f->rec.corrupt_lines + f->rec.missing_last, 0);
}

static void
lines_written_but_not_synced_are_kept(void **state)
{
	struct fixture *f = *state;

	open_trail(f);
	append_durable(f, 3);
	append(f, "{\"action\":\"x\"");
	assert_int_equal(trail_write(f->t, &f->err), 0);
	assert_int_equal(read_all(f, 0).n, 3); /* readers stop at the mark */
	close_trail(f, false);
	open_trail(f);
	assert_int_equal(trail_durable_seq(f->t), 4);
	assert_int_equal(read_all(f, 0).n, 4);
}

/* Bytes that this process has written, or -1 where the kernel does not count them. */
static long
bytes_written(void)
{
	FILE *io = fopen("/proc/self/io", "re");
	long n;

	if (io == NULL)
		return -1;
	if (fscanf(io, "rchar: %*d wchar: %ld", &n) != 1)
		n = -1;
	fclose(io);
	return n;
}

static long
bytes_written_by_opening(struct fixture *f)
{
	long before = bytes_written();

	open_trail(f);
	return bytes_written() - before;
}

/* A sync that failed may have left them clean in memory, and not on the disk. */
static void
what_was_not_synced_is_written_again_before_it_counts(void **state)
{
	struct fixture *f = *state;
	long size;

	open_trail(f);
	append_durable(f, 1);
	for (unsigned i = 0; i < 20; i++)
		append(f, "{\"action\":\"x\"");
	assert_int_equal(trail_write(f->t, &f->err), 0);
	size = file_size(segment_path(f, 1));
	close_trail(f, false);
	if (bytes_written() <= 0)
		skip();
	assert_true(bytes_written_by_opening(f) >= size * 20 / 22);
	close_trail(f, false);
	assert_true(bytes_written_by_opening(f) < size * 20 / 22);
}

static void
segments_roll_and_are_named_by_their_first_number(void **state)
{
	struct fixture *f = *state;
	struct trail_stats stats;
	struct dirent *d;
	DIR *dir;
	unsigned segments = 0;
	char text[400];

	open_trail(f);
	append_durable(f, 200);
	trail_stats(f->t, &stats);
	dir = opendir(f->dir);
	while ((d = readdir(dir)) != NULL) {
		struct trail_member m;
		const char *end;

		if (strlen(d->d_name) != 26 || file_size(path_of(f, d->d_name)) == 0)
			continue;
		segments++;
		read_file(path_of(f, d->d_name), text, sizeof(text));
		end = memchr(text, '\n', sizeof(text));
		assert_int_equal(
		    trail_parse_line((struct slice){ text, (size_t)(end - text) }, &m), 0);
		assert_int_equal(m.seq, strtoull(d->d_name, NULL, 10));
	}
	closedir(dir);
	assert_true(segments > 5);
	assert_true(stats.segments == segments || stats.segments == segments + 1);
	assert_int_equal(read_all(f, 0).n, 200);
}

static void
a_line_too_long_is_refused_and_takes_no_number(void **state)
{
	struct fixture *f = *state;
	char text[TRAIL_LINE_MAX];
	uint64_t seq;

	open_trail(f);
	memset(text, 'x', sizeof(text));
	memcpy(text, "{\"a\":\"", 6);
	text[TRAIL_LINE_MAX - TRAIL_MEMBER_MAX - 1] = '"';
	assert_int_equal(
	    trail_append(f->t, (struct slice){ text, TRAIL_LINE_MAX - TRAIL_MEMBER_MAX + 1 }, 0,
		&seq, &f->err),
	    -1);
	assert_int_equal(
	    trail_append(
		f->t, (struct slice){ text, TRAIL_LINE_MAX - TRAIL_MEMBER_MAX }, 0, &seq, &f->err),
	    0);
	assert_int_equal(seq, 1);
	sync_trail(f);
	assert_int_equal(read_all(f, 0).n, 1);
}

static void
more_than_the_queue_holds_is_written_on_the_way(void **state)
{
	struct fixture *f = *state;

	open_trail(f);
	for (unsigned i = 0; i < 20000; i++)
		append(f, "{\"action\":\"many\",\"id\":\"x\"");
	sync_trail(f);
	assert_int_equal(read_all(f, 0).n, 20000);
	assert_int_equal(read_all(f, 19990).n, 11);
}

static void
the_clock_may_step_back(void **state)
{
	struct fixture *f = *state;
	uint64_t a, b;

	open_trail(f);
	assert_int_equal(
	    trail_append(f->t, SLICE("{\"a\":1"), 2000000000000000000, &a, &f->err), 0);
	assert_int_equal(
	    trail_append(f->t, SLICE("{\"a\":1"), 1000000000000000000, &b, &f->err), 0);
	sync_trail(f);
	assert_int_equal(b, a + 1);
	assert_int_equal(read_all(f, 0).n, 2);
}

/* ---- opening what cannot be opened ---- */

static void
a_directory_has_one_writer_and_names_it(void **state)
{
	struct fixture *f = *state;
	struct fixture second = *f;
	char want[TEMPDIR_SIZE + 64];

	open_trail(f);
	assert_int_equal(try_open(&second, NULL), -1);
	snprintf(want, sizeof(want), "%s: locked by process %ld", f->dir, (long)getpid());
	assert_string_equal(second.err.msg, want);
	unlink(path_of(f, "lock"));
	assert_int_equal(try_open(&second, NULL), -1);
	assert_non_null(strstr(second.err.msg, "locked by another process"));
	close_trail(f, true);
	assert_int_equal(try_open(&second, NULL), 0);
	trail_close(second.t, true);
}

static void
create_false_makes_nothing(void **state)
{
	struct fixture *f = *state;
	struct trail_opts opts = { .dir = f->dir, .create = false, .segment_size = SEGMENT };
	struct dirent *d;
	DIR *dir;

	assert_int_equal(trail_open(&opts, &f->t, &f->rec, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "\"create\" is false"));
	dir = opendir(f->dir);
	while ((d = readdir(dir)) != NULL)
		assert_int_equal(d->d_name[0], '.');
	closedir(dir);
	open_trail(f);
	append_durable(f, 1);
	close_trail(f, true);
	assert_int_equal(trail_open(&opts, &f->t, &f->rec, &f->err), 0);
}

static void
a_directory_that_cannot_be_written_is_an_error(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	assert_int_equal(chmod(f->dir, 0555), 0);
	if ((pid = fork()) == 0) {
		if (geteuid() == 0 && seteuid(65534) == -1)
			_exit(2);
		_exit(try_open(f, NULL) == -1 && strstr(f->err.msg, "Permission denied") != NULL
			  ? 0
			  : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void
an_unknown_group_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct trail_opts opts = {
		.dir = f->dir, .create = true, .segment_size = SEGMENT, .group = "no-such-group"
	};

	assert_int_equal(trail_open(&opts, &f->t, &f->rec, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "no-such-group"));
}

static void
the_log_file_is_made_again_from_the_state(void **state)
{
	struct fixture *f = *state;
	char log[TRAIL_ID_SIZE];

	open_trail(f);
	strcpy(log, trail_log_id(f->t));
	append_durable(f, 2);
	close_trail(f, true);
	unlink(path_of(f, "log"));
	open_trail(f);
	assert_false(f->rec.new_log);
	assert_string_equal(trail_log_id(f->t), log);
	assert_int_equal(file_size(path_of(f, "log")), 35);
}

/* ---- recovery ---- */

/* The last line is cut at every byte: it was never durable, so nothing durable is lost. */
static void
a_torn_tail_is_kept_aside_and_cut(void **state)
{
	struct fixture *f = *state;
	long start, end;

	open_trail(f);
	append_durable(f, 3);
	start = file_size(segment_path(f, 1));
	append(f, "{\"action\":\"torn\"");
	assert_int_equal(trail_write(f->t, &f->err), 0);
	end = file_size(segment_path(f, 1));
	close_trail(f, false);
	for (long cut = start + 1; cut < end; cut++) {
		char line[512], torn[512], segment[4096];

		read_file(segment_path(f, 1), segment, sizeof(segment));
		memcpy(line, segment + start, (size_t)(end - start));
		assert_int_equal(truncate(segment_path(f, 1), cut), 0);
		open_trail(f);
		assert_int_equal(f->rec.torn_bytes, cut - start);
		assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last, 0);
		assert_int_equal(trail_durable_seq(f->t), 3);
		assert_int_equal(file_size(segment_path(f, 1)), start);
		close_trail(f, false);
		assert_int_equal(
		    read_file(path_of(f, "00000000000000000001.jsonl.torn"), torn, sizeof(torn)),
		    cut - start);
		assert_memory_equal(torn, line, (size_t)(cut - start));
		unlink(path_of(f, "00000000000000000001.jsonl.torn"));
		append_file(segment_path(f, 1), line, (size_t)(end - start));
	}
	open_trail(f);
	assert_int_equal(trail_durable_seq(f->t), 4);
	assert_int_equal(f->rec.torn_bytes, 0);
}

/* A byte of a durable line is changed: the others are kept, and the number is not reused. */
static void
a_corrupt_line_costs_no_other(void **state)
{
	struct fixture *f = *state;
	char whole[4096], aside[512];
	size_t n, line;

	open_trail(f);
	append_durable(f, 4);
	close_trail(f, false);
	n = read_file(segment_path(f, 1), whole, sizeof(whole));
	line = n / 4;
	for (size_t at = 0; at < line - 1; at += 7) {
		struct seen seen;
		char state_page[4096];

		read_file(path_of(f, "state"), state_page, sizeof(state_page));
		flip_byte(segment_path(f, 1), (long)(line + at));
		open_trail(f);
		assert_int_equal(f->rec.corrupt_lines, 1);
		assert_int_equal(f->rec.corrupt_first, 2);
		assert_int_equal(f->rec.corrupt_last, 2);
		assert_int_equal(f->rec.missing_last, 0);
		assert_int_equal(f->rec.torn_bytes, 0);
		append_durable(f, 1);
		assert_int_equal(trail_last_seq(f->t), 5);
		seen = read_all(f, 0);
		assert_int_equal(seen.n, 4);
		assert_int_equal(seen.corrupt, 1);
		close_trail(f, false);
		assert_int_equal(read_file(path_of(f, "00000000000000000001.jsonl.corrupt"), aside,
				     sizeof(aside)),
		    line);
		open_trail(f); /* found once, not at each start */
		assert_int_equal(f->rec.corrupt_lines, 0);
		close_trail(f, false);
		unlink(path_of(f, "00000000000000000001.jsonl.corrupt"));
		unlink(segment_path(f, 5));
		write_file(segment_path(f, 1), whole, n);
		write_file(path_of(f, "state"), state_page, sizeof(state_page));
	}
}

/* Of five durable lines the third is damaged, and the state page is the one after the second. */
static void
damage_beyond_the_mark(struct fixture *f, bool clean)
{
	char page[4096];
	long line;

	open_trail(f);
	append_durable(f, 2);
	close_trail(f, clean);
	read_file(path_of(f, "state"), page, sizeof(page));
	line = file_size(segment_path(f, 1));
	open_trail(f);
	append_durable(f, 3);
	close_trail(f, false);
	flip_byte(segment_path(f, 1), line + 20);
	write_file(path_of(f, "state"), page, sizeof(page));
}

static void
a_batch_torn_in_the_middle_costs_no_other(void **state)
{
	struct fixture *f = *state;
	char aside[512];

	damage_beyond_the_mark(f, false);
	open_trail(f);
	assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last, 0);
	assert_int_equal(f->rec.torn_first, 3);
	assert_int_equal(f->rec.torn_last, 3);
	assert_int_equal(
	    read_file(path_of(f, "00000000000000000001.jsonl.torn"), aside, sizeof(aside)),
	    f->rec.torn_bytes);
	append_durable(f, 1);
	assert_int_equal(trail_last_seq(f->t), 6);
	assert_int_equal(read_all(f, 0).n, 5);
	close_trail(f, false);
	open_trail(f);
	assert_int_equal(f->rec.torn_last, 0);
}

/* The first sector of the page is older than the others. */
static void
put_back_marks(struct fixture *f, const char page[4096])
{
	int fd = openat(trail_dirfd(f->t), "state", O_WRONLY);

	assert_int_equal(pwrite(fd, page, 512, 0), 512);
	close(fd);
}

static void
what_is_torn_is_told_once_however_often_a_start_is_cut_off(void **state)
{
	struct fixture *f = *state;
	char page[4096], aside[512];

	damage_beyond_the_mark(f, false);
	read_file(path_of(f, "state"), page, sizeof(page));
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(try_open(f, NULL), 0);
		assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last, 0);
		assert_int_equal(f->rec.torn_first, 3);
		assert_int_equal(f->rec.torn_last, 3);
		put_back_marks(f, page);
		close_trail(f, false);
	}
	assert_int_equal(
	    read_file(path_of(f, "00000000000000000001.jsonl.torn"), aside, sizeof(aside)),
	    f->rec.torn_bytes);
	write_file(path_of(f, "state"), page, sizeof(page));
	open_trail(f);
	assert_int_equal(f->rec.corrupt_lines, 0);
	assert_int_equal(f->rec.torn_first, 3);
}

static void
a_clean_stop_leaves_nothing_torn(void **state)
{
	struct fixture *f = *state;

	damage_beyond_the_mark(f, true);
	open_trail(f);
	assert_int_equal(f->rec.corrupt_first, 3);
	assert_int_equal(f->rec.torn_last, 0);
}

static void
what_was_signed_is_not_torn(void **state)
{
	struct fixture *f = *state;
	char log[TRAIL_ID_SIZE];

	damage_beyond_the_mark(f, false);
	log[read_file(path_of(f, "log"), log, TRAIL_ID_SIZE - 1)] = '\0';
	f->signed_log = log;
	f->signed_size = 3;
	open_trail(f);
	assert_int_equal(f->rec.corrupt_first, 3);
	assert_int_equal(f->rec.torn_last, 0);
}

static void
the_last_durable_line_is_corrupt_and_not_torn(void **state)
{
	struct fixture *f = *state;
	long size;

	open_trail(f);
	append_durable(f, 4);
	close_trail(f, false);
	size = file_size(segment_path(f, 1));
	flip_byte(segment_path(f, 1), size - 20);
	append_file(segment_path(f, 1), "{\"torn", 6);
	open_trail(f);
	assert_int_equal(f->rec.corrupt_first, 4);
	assert_int_equal(f->rec.corrupt_last, 4);
	assert_int_equal(f->rec.torn_bytes, 6);
	assert_int_equal(trail_durable_seq(f->t), 4);
	append_durable(f, 1);
	assert_int_equal(trail_last_seq(f->t), 5);
	assert_int_equal(file_size(segment_path(f, 5)) > 0, 1);
	assert_int_equal(read_all(f, 0).n, 4);
}

static void
durable_lines_that_are_gone_are_missed(void **state)
{
	struct fixture *f = *state;
	char whole[4096];
	size_t n;

	open_trail(f);
	append_durable(f, 4);
	close_trail(f, true);
	n = read_file(segment_path(f, 1), whole, sizeof(whole));
	assert_int_equal(truncate(segment_path(f, 1), (off_t)(n / 2)), 0);
	open_trail(f);
	assert_int_equal(f->rec.missing_first, 3);
	assert_int_equal(f->rec.missing_last, 4);
	append_durable(f, 1);
	assert_int_equal(trail_last_seq(f->t), 5);
	assert_int_equal(read_all(f, 0).n, 3);
}

/* A start that fails, or is killed, before anything is recorded: the next one is told the same. */
static void
findings_stay_until_they_are_recorded(void **state)
{
	struct fixture *f = *state;
	char boot[TRAIL_ID_SIZE];
	struct ring *r;

	assert_int_equal(try_open(f, NULL), 0);
	close_trail(f, true);
	open_trail(f);
	assert_true(f->rec.new_log);
	strcpy(boot, trail_boot_id(f->t));
	append_durable(f, 9);
	assert_int_equal(ring_open(trail_dirfd(f->t), "ring.0", &(struct ring_opts){ .size = 4096 },
			     &r, &f->err),
	    0);
	commit_ring(r, "{\"action\":\"held\",\"id\":\"c\"");
	ring_close(r);
	close_trail(f, false);
	flip_byte(segment_path(f, 1), 30);
	assert_int_equal(truncate(segment_path(f, 1), file_size(segment_path(f, 1)) - 400), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(try_open(f, NULL), 0);
		assert_string_equal(f->rec.previous_boot, boot);
		assert_false(f->rec.clean || f->rec.new_log);
		assert_int_equal(f->rec.corrupt_first, 1);
		assert_int_equal(f->rec.corrupt_last, 9);
		assert_int_equal(f->rec.corrupt_lines, 2);
		assert_int_equal(f->rec.from_rings, 1);
		close_trail(f, i == 0);
	}
	open_trail(f);
	assert_int_equal(f->rec.corrupt_last, 9);
	strcpy(boot, trail_boot_id(f->t));
	close_trail(f, true);
	open_trail(f);
	assert_string_equal(f->rec.previous_boot, boot);
	assert_true(f->rec.clean);
	assert_int_equal(f->rec.corrupt_lines + f->rec.from_rings, 0);
}

/* The life before it was: what the cut tore since is told with what it had found. */
static void
a_start_that_was_cut_off_before_it_recorded_anything_is_not_clean(void **state)
{
	struct fixture *f = *state;
	char text[SEGMENT];
	size_t n;

	open_trail(f);
	append_durable(f, 3);
	close_trail(f, true);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(try_open(f, NULL), 0);
		assert_true(f->rec.clean);
		close_trail(f, false);
	}
	n = read_file(segment_path(f, 1), text, sizeof(text));
	memcpy(text + n, "{\"torn", 6);
	write_file(segment_path(f, 1), text, n + 6);
	assert_int_equal(try_open(f, NULL), 0);
	assert_int_equal(f->rec.torn_bytes, 6);
	assert_false(f->rec.clean);
}

/* As a kill leaves it in the middle of writing one of them. */
static void
either_half_of_the_state_page_may_be_damaged(void **state)
{
	struct fixture *f = *state;
	char page[4096], junk[100], log[TRAIL_ID_SIZE];
	unsigned clean = 0;

	open_trail(f);
	strcpy(log, trail_log_id(f->t));
	append_durable(f, 3);
	close_trail(f, true);
	read_file(path_of(f, "state"), page, sizeof(page));
	memset(junk, 0xff, sizeof(junk));
	for (size_t at = 512; at <= 1024; at += 512) {
		char damaged[4096];

		memcpy(damaged, page, sizeof(page));
		memcpy(damaged + at, junk, sizeof(junk));
		write_file(path_of(f, "state"), damaged, sizeof(damaged));
		unlink(path_of(f, "log"));
		open_trail(f);
		assert_string_equal(trail_log_id(f->t), log);
		assert_string_not_equal(f->rec.previous_boot, "");
		clean += f->rec.clean;
		close_trail(f, false);
	}
	assert_int_equal(clean, 1);
}

/* The page with these bytes in both of its halves, the sums made good. */
static void
forge_state(struct fixture *f, size_t at, const void *bytes, size_t n)
{
	uint64_t sum;
	char page[4096];

	read_file(path_of(f, "state"), page, sizeof(page));
	for (char *half = page + 512; half <= page + 1024; half += 512) {
		memcpy(&sum, half + 456, sizeof(sum));
		assert_int_equal(sum, crc32c(0, half, 456));
		memcpy(half + at, bytes, n);
		sum = crc32c(0, half, 456);
		memcpy(half + 456, &sum, sizeof(sum));
	}
	write_file(path_of(f, "state"), page, sizeof(page));
}

static void
a_state_page_that_somebody_made_up_is_none(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
	} rows[] = {
		{ 304, UINT32_MAX }, /* more ranges than there is room for */
		{ 89, 2 },	     /* a flag that is neither true nor false */
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		open_trail(f);
		append_durable(f, 3);
		close_trail(f, true);
		forge_state(f, rows[i].at, &rows[i].value, sizeof(rows[i].value));
		open_trail(f);
		assert_true(f->rec.state_lost);
		assert_int_equal(trail_last_seq(f->t), 3 * (i + 1));
		close_trail(f, false);
	}
}

static void
a_stray_does_not_stop_the_start_by_its_name(void **state)
{
	struct fixture *f = *state;
	char text[8192], *half;
	size_t n;

	open_trail(f);
	append_durable(f, 4);
	half = text + read_file(segment_path(f, 1), text, sizeof(text));
	append_durable(f, 4);
	close_trail(f, false);
	n = read_file(segment_path(f, 1), text, sizeof(text));
	text[0] = 'x';
	unlink(segment_path(f, 1));
	write_file(segment_path(f, 1), text, (size_t)(half - text));
	write_file(segment_path(f, 2), half, n - (size_t)(half - text));
	write_file(segment_path(f, 5), "junk\n", 5);
	unlink(path_of(f, "state"));
	unlink(path_of(f, "log"));
	open_trail(f);
	assert_int_equal(f->rec.foreign, 1);
	assert_int_equal(trail_last_seq(f->t), 4);
}

static void
a_vanished_segment_is_missed(void **state)
{
	struct fixture *f = *state;
	uint64_t last;

	open_trail(f);
	append_durable(f, 30);
	close_trail(f, true);
	open_trail(f);
	last = trail_durable_seq(f->t);
	close_trail(f, true);
	for (uint64_t first = last; first > 1; first--)
		if (file_size(segment_path(f, first)) >= 0) {
			unlink(segment_path(f, first));
			break;
		}
	open_trail(f);
	assert_true(f->rec.missing_first > 1);
	assert_int_equal(f->rec.missing_last, last);
	append_durable(f, 1);
	assert_int_equal(trail_last_seq(f->t), last + 1);
	close_trail(f, true);
	open_trail(f);
	assert_int_equal(f->rec.missing_last, 0); /* reported once */
}

static void
an_emptied_directory_does_not_reuse_numbers(void **state)
{
	struct fixture *f = *state;

	open_trail(f);
	append_durable(f, 5);
	close_trail(f, true);
	unlink(segment_path(f, 1));
	open_trail(f);
	assert_int_equal(f->rec.missing_first, 1);
	assert_int_equal(f->rec.missing_last, 5);
	append_durable(f, 1);
	assert_int_equal(trail_last_seq(f->t), 6);
}

static void
a_stale_state_page_loses_nothing(void **state)
{
	struct fixture *f = *state;
	char page[4096];

	open_trail(f);
	append_durable(f, 2);
	read_file(path_of(f, "state"), page, sizeof(page));
	append_durable(f, 100);
	close_trail(f, true);
	write_file(path_of(f, "state"), page, sizeof(page));
	open_trail(f);
	assert_int_equal(trail_durable_seq(f->t), 102);
	assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last + f->rec.torn_bytes, 0);
	close_trail(f, true);
	unlink(path_of(f, "state"));
	open_trail(f);
	assert_int_equal(trail_durable_seq(f->t), 102);
	close_trail(f, true);
	memset(page, 0xff, sizeof(page));
	write_file(path_of(f, "state"), page, sizeof(page));
	open_trail(f);
	assert_int_equal(trail_durable_seq(f->t), 102);
	assert_int_equal(read_all(f, 0).n, 102);
}

static void
foreign_files_are_left_alone(void **state)
{
	static const char *const names[] = { "notes.txt", "1.jsonl", "0000000000000000000x.jsonl",
		"00000000000000000001.jsonl.bak", "99999999999999999999.jsonl",
		"00000000000000000000.jsonl", "ring.junk", "cursor.x" };
	struct fixture *f = *state;

	open_trail(f);
	append_durable(f, 3);
	close_trail(f, true);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		write_file(path_of(f, names[i]), "hello\n", 6);
	mkdir(path_of(f, "00000000000000000777.jsonl"), 0700);
	mkdir(path_of(f, "ring.0"), 0700);
	mkdir(path_of(f, "ring.old"), 0700);
	mkfifo(path_of(f, "ring.1"), 0600);
	mkfifo(path_of(f, "ring.x"), 0600);
	open_trail(f);
	assert_int_equal(trail_durable_seq(f->t), 3);
	append_durable(f, 1);
	assert_int_equal(read_all(f, 0).n, 4);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(file_size(path_of(f, names[i])), 6);
}

/* ---- another log ---- */

/* The bytes of a segment of another trail with lines 1 to n. */
static size_t
foreign_segment(unsigned n, char *out, size_t cap)
{
	struct fixture other = { .dir = "" };
	size_t size;

	tempdir_make(other.dir);
	open_trail(&other);
	append_durable(&other, n);
	size = read_file(segment_path(&other, 1), out, cap);
	close_trail(&other, true);
	tempdir_remove(other.dir);
	return size;
}

static void
lines_of_another_log_are_corrupt(void **state)
{
	struct fixture *f = *state;
	char own[4096], foreign[4096];
	size_t n, line;
	struct seen seen;

	foreign_segment(9, foreign, sizeof(foreign));
	open_trail(f);
	append_durable(f, 9);
	close_trail(f, false);
	n = read_file(segment_path(f, 1), own, sizeof(own));
	line = n / 9;
	memcpy(own + 4 * line, foreign + 4 * line, 2 * line);
	write_file(segment_path(f, 1), own, n);
	seen = read_all(f, 0);
	assert_int_equal(seen.n, 7);
	assert_int_equal(seen.corrupt, 2);
	open_trail(f);
	assert_int_equal(f->rec.corrupt_first, 5);
	assert_int_equal(f->rec.corrupt_last, 6);
	assert_int_equal(f->rec.foreign, 0);
	assert_int_equal(file_size(path_of(f, "00000000000000000001.jsonl.corrupt")), 2 * line);
	append_durable(f, 1);
	assert_int_equal(trail_last_seq(f->t), 10);
	assert_int_equal(read_all(f, 0).n, 8);
}

/* Whatever its name says: in the place of one of ours, between two of them, behind them all. */
static void
a_segment_of_another_log_is_put_aside(void **state)
{
	static const uint64_t names[] = { 1, 2, 30, 31, 4000, 1ULL << 51 };
	struct fixture *f = *state;
	char foreign[8192], aside[64];
	size_t n = foreign_segment(9, foreign, sizeof(foreign));

	open_trail(f);
	append_durable(f, 30);
	close_trail(f, true);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		write_file(segment_path(f, names[i]), foreign, n);
		open_trail(f);
		assert_int_equal(f->rec.foreign, 1);
		assert_int_equal(trail_durable_seq(f->t), 30 + i);
		snprintf(aside, sizeof(aside), "%020" PRIu64 ".jsonl.foreign", names[i]);
		assert_int_equal(file_size(path_of(f, aside)), n);
		append_durable(f, 1);
		assert_int_equal(read_all(f, 30).n, i + 2);
		close_trail(f, true);
		open_trail(f);
		assert_int_equal(f->rec.foreign, 0);
		close_trail(f, true);
	}
	write_file(segment_path(f, 4000), foreign, n);
	open_trail(f);
	assert_int_equal(file_size(path_of(f, "00000000000000004000.jsonl.foreign.2")), n);
	write_file(segment_path(f, 4000), foreign, n);
	for (size_t left = 1; left < 2; left--) {
		assert_int_equal(trail_find_foreign(f->t, &n, &f->err), 0);
		assert_int_equal(n, left);
		assert_int_equal(trail_put_foreign_aside(f->t, &f->err), 0);
	}
}

/* Its numbers are those of the log that was given up, of which any line might be. */
static void
one_is_put_aside_from_a_renewed_log_too(void **state)
{
	struct fixture *f = *state;
	char foreign[8192];
	size_t n = foreign_segment(9, foreign, sizeof(foreign));

	open_trail(f);
	append_durable(f, 20);
	assert_int_equal(trail_renew(f->t, &f->err), 0);
	append_durable(f, 20);
	close_trail(f, true);
	write_file(segment_path(f, 30), foreign, n);
	open_trail(f);
	assert_int_equal(f->rec.foreign, 1);
	assert_int_equal(read_all(f, 0).n, 40);
}

/* One that cannot be put aside is told once, bounds nothing and is tried again. */
static void
a_segment_of_another_log_that_stays_is_told_once(void **state)
{
	struct fixture *f = *state;
	char foreign[8192];
	size_t size = foreign_segment(9, foreign, sizeof(foreign)), n;
	uint64_t first, last;

	open_trail(f);
	append_durable(f, 3);
	write_file(segment_path(f, 100), foreign, size);
	for (size_t told = 1; told < 2; told--) {
		assert_int_equal(trail_find_foreign(f->t, &n, &f->err), 0);
		assert_int_equal(n, told);
		assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
	}
	assert_int_equal(trail_put_foreign_aside(f->t, &f->err), 0);
	assert_int_equal(file_size(path_of(f, "00000000000000000100.jsonl.foreign")), size);
	assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
}

static void
what_stood_aside_of_another_log_stays_told_until_it_is_recorded(void **state)
{
	struct fixture *f = *state;
	char foreign[8192];
	size_t n = foreign_segment(9, foreign, sizeof(foreign));

	open_trail(f);
	append_durable(f, 3);
	close_trail(f, true);
	write_file(segment_path(f, 100), foreign, n);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(try_open(f, NULL), 0);
		assert_int_equal(f->rec.foreign, 1);
		close_trail(f, false);
	}
}

static void
a_reader_is_not_misled_by_lines_of_another_log(void **state)
{
	struct fixture *f = *state;
	char own[65536], foreign[8192];
	size_t n = foreign_segment(9, foreign, sizeof(foreign)), size, line;

	f->segment_size = 1 << 20;
	open_trail(f);
	append_durable(f, 150);
	assert_int_equal(trail_reopen(f->t, &f->err), 0); /* seals it */
	append_durable(f, 1);
	close_trail(f, true);
	size = read_file(segment_path(f, 1), own, sizeof(own));
	line = size - 1 - (size_t)((char *)memrchr(own, '\n', size - 1) - own);
	write_file(segment_path(f, 1), own, size - line);
	for (int i = 0; i < 40; i++)
		append_file(segment_path(f, 1), foreign, n);
	append_file(segment_path(f, 1), own + size - line, line);
	assert_int_equal(read_all(f, 100).first, 100);
	assert_int_equal(read_all(f, 100).n, 52);
}

/* 1 to 50 in a sealed segment, 51 to 60 in the open one; the bytes of the first. */
static size_t
append_two_segments(struct fixture *f, char *first, size_t cap)
{
	f->segment_size = 1 << 20;
	open_trail(f);
	append_durable(f, 50);
	assert_int_equal(trail_reopen(f->t, &f->err), 0); /* seals it */
	append_durable(f, 10);
	return read_file(segment_path(f, 1), first, cap);
}

static void
no_file_that_is_put_between_our_lines_hides_one(void **state)
{
	enum what { NOTHING, FOREIGN, OURS, HALF, KINDS };
	static const struct {
		uint64_t name;
		enum what what;
	} rows[] = { { 30, FOREIGN }, { 30, NOTHING }, { 30, OURS }, { 45, HALF }, { 2, FOREIGN },
		{ 50, FOREIGN }, { 55, FOREIGN }, { 55, NOTHING }, { 55, OURS }, { 60, NOTHING } };
	struct fixture *f = *state;
	char bytes[KINDS][16384], log[TRAIL_ID_SIZE];
	size_t n[KINDS] = { [FOREIGN] = foreign_segment(9, bytes[FOREIGN], sizeof(bytes[0])) },
	       left;
	uint64_t first, last;

	n[OURS] = append_two_segments(f, bytes[OURS], sizeof(bytes[0]));
	n[HALF] = n[OURS] / 2;
	memcpy(bytes[HALF], bytes[OURS], n[HALF]);
	strcpy(log, trail_log_id(f->t));
	close_trail(f, true);
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		write_file(segment_path(f, rows[i].name), bytes[rows[i].what], n[rows[i].what]);
		for (uint64_t from = 1; from <= 60; from++) {
			struct seen seen = read_all(f, from);

			if (seen.n != 61 - from || seen.gaps > 0)
				fail_msg("row %zu: %" PRIu64 " lines from %" PRIu64 " on", i,
				    seen.n, from);
		}
		open_trail(f);
		assert_int_equal(trail_durable_seq(f->t), 60);
		assert_string_equal(trail_log_id(f->t), log);
		assert_int_equal(f->rec.foreign, rows[i].what < OURS);
		assert_int_equal(f->rec.missing_last + f->rec.corrupt_lines, 0);
		assert_int_equal(trail_find_foreign(f->t, &left, &f->err), 0);
		assert_int_equal(left, 0);
		assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
		assert_int_equal(read_all(f, 0).n, 60);
		close_trail(f, i % 2 == 0);
		unlink(segment_path(f, rows[i].name));
	}
}

/* Where the end of the segment is damaged, nobody can tell from it how far it goes. */
static void
damage_does_not_hide_that_a_file_was_put_there(void **state)
{
	struct fixture *f = *state;
	char foreign[8192], junk[3 * TRAIL_LINE_MAX];
	size_t n = foreign_segment(9, foreign, sizeof(foreign));
	long size;

	f->segment_size = 1 << 20;
	open_trail(f);
	append_durable(f, 400);
	assert_int_equal(trail_reopen(f->t, &f->err), 0);
	append_durable(f, 1);
	size = file_size(segment_path(f, 1)) - (long)sizeof(junk);
	assert_true(size > 8192);
	assert_int_equal(truncate(segment_path(f, 1), size), 0);
	memset(junk, 'x', sizeof(junk));
	append_file(segment_path(f, 1), junk, sizeof(junk));
	write_file(segment_path(f, 5), foreign, n);
	assert_in_range(read_all(f, 0).n, 30, 399);
	assert_int_equal(read_all(f, 0).gaps, 1);
	assert_int_equal(read_all(f, 0).last, 401);
}

/* A power cut has left an older mark. */
static void
a_file_that_was_put_behind_the_mark_hides_no_line(void **state)
{
	struct fixture *f = *state;
	char page[4096];

	f->segment_size = 1 << 20;
	open_trail(f);
	append_durable(f, 5);
	read_file(path_of(f, "state"), page, sizeof(page));
	append_durable(f, 20);
	close_trail(f, false);
	write_file(path_of(f, "state"), page, sizeof(page));
	write_file(segment_path(f, 15), "", 0);
	open_trail(f);
	assert_int_equal(f->rec.foreign, 1);
	assert_int_equal(f->rec.missing_last, 0);
	assert_int_equal(read_all(f, 0).n, 25);
}

static void
what_a_ring_holds_is_known_behind_a_file_that_was_put_there(void **state)
{
	struct fixture *f = *state;
	char bytes[16384];
	struct ring *r;
	size_t n;

	n = append_two_segments(f, bytes, sizeof(bytes));
	assert_int_equal(ring_open(trail_dirfd(f->t), "ring.0", &(struct ring_opts){ .size = 4096 },
			     &r, &f->err),
	    0);
	commit_ring(r, "{\"action\":\"written\",\"id\":\"a\"");
	append(f, "{\"action\":\"written\",\"id\":\"a\"");
	sync_trail(f); /* killed before the release */
	ring_close(r);
	close_trail(f, false);
	write_file(segment_path(f, 55), bytes, n);
	open_trail(f);
	assert_int_equal(f->rec.from_rings, 0);
	assert_int_equal(trail_durable_seq(f->t), 61);
}

/* Nor may what it seems to end, go before all of it may. */
static void
a_file_that_was_put_there_lets_nothing_expire(void **state)
{
	static const char never[] = "0000-01-01T00:00:00.00+0000";
	struct fixture *f = *state;
	char bytes[16384];
	size_t n = foreign_segment(9, bytes, sizeof(bytes));
	uint64_t first, last;

	append_two_segments(f, (char[16384]){ 0 }, 16384);
	write_file(segment_path(f, 30), bytes, n);
	assert_int_equal(trail_expirable(f->t, INT64_MAX, 0, 45, &first, &last, &f->err), 0);
	assert_int_equal(last, 0);
	assert_int_equal(trail_expirable(f->t, INT64_MAX, 0, 51, &first, &last, &f->err), 0);
	assert_int_equal(last, 50);
	assert_int_equal(trail_seq_range(f->t, never, never, &first, &last, &f->err), 0);
	assert_true(first == 1 && last == 50);
}

/* Even where a failed write left lines of it in the one before. */
static void
a_segment_with_a_damaged_start_is_none_that_was_put_there(void **state)
{
	struct fixture *f = *state;
	char text[4096];
	size_t size;

	open_trail(f);
	for (int i = 0; i < 3; i++) {
		append_durable(f, 5);
		assert_int_equal(trail_reopen(f->t, &f->err), 0);
	}
	close_trail(f, true);
	size = read_file(segment_path(f, 6), text, sizeof(text));
	append_file(segment_path(f, 1), text, size / 5);
	assert_int_equal(read_all(f, 0).n, 15);
	flip_byte(segment_path(f, 6), 5);
	assert_int_equal(read_all(f, 0).n, 14);
	open_trail(f);
	assert_int_equal(f->rec.foreign + f->rec.missing_last, 0);
}

static void
a_renewed_log_keeps_its_lines_and_readers_follow(void **state)
{
	struct fixture *f = *state;
	struct trail_reader *r;
	char old[TRAIL_ID_SIZE];
	struct slice line;
	uint64_t seq;

	open_trail(f);
	append_durable(f, 5);
	assert_int_equal(trail_reader_open(f->dir, 5, &r, &f->err), 0);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
	strcpy(old, trail_log_id(f->t));
	assert_int_equal(trail_renew(f->t, &f->err), 0);
	assert_string_equal(trail_log_given_up(f->t), old);
	append_durable(f, 2);
	for (uint64_t want = 6; want <= 7; want++) {
		assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
		assert_int_equal(seq, want);
	}
	assert_int_equal(trail_reader_corrupt(r), 0);
	trail_reader_close(r);
	close_trail(f, false);
	open_trail(f); /* the first start that records it */
	assert_string_equal(f->rec.given_up, old);
	assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last + f->rec.foreign, 0);
	assert_int_equal(read_all(f, 0).n, 7);
	close_trail(f, true);
	open_trail(f);
	assert_string_equal(f->rec.given_up, "");
}

static void
a_renewal_that_was_cut_short_is_completed(void **state)
{
	struct fixture *f = *state;
	char text[64], new[TRAIL_ID_SIZE];
	size_t n;

	open_trail(f);
	append_durable(f, 5);
	n = read_file(path_of(f, "log"), text, sizeof(text));
	assert_int_equal(trail_renew(f->t, &f->err), 0);
	strcpy(new, trail_log_id(f->t));
	close_trail(f, false);
	write_file(path_of(f, "log"), text, n); /* killed before it was written */
	open_trail(f);
	assert_string_equal(trail_log_id(f->t), new);
	assert_int_equal(trail_log_base(f->t), 5);
	assert_false(f->rec.state_lost);
	assert_memory_equal(f->rec.given_up, text, TRAIL_ID_SIZE - 1);
	n = read_file(path_of(f, "log"), text, sizeof(text));
	assert_memory_equal(text, new, TRAIL_ID_SIZE - 1);
}

static void
lines_without_any_identity_become_those_of_an_earlier_log(void **state)
{
	struct fixture *f = *state;

	open_trail(f);
	append_durable(f, 5);
	close_trail(f, true);
	unlink(path_of(f, "log"));
	unlink(path_of(f, "state"));
	open_trail(f);
	assert_true(f->rec.new_log && f->rec.state_lost);
	assert_int_equal(trail_log_base(f->t), 5);
	append_durable(f, 1);
	assert_int_equal(read_all(f, 0).n, 6);
}

/* ---- what only the rings held ---- */

static void
ring_lines_are_recovered_once_each(void **state)
{
	struct fixture *f = *state;
	struct ring *r;
	uint64_t segment, offset, pos;
	struct slice line;
	unsigned flags;
	char text[8192], *last;

	open_trail(f);
	append_durable(f, 2);
	assert_int_equal(ring_open(trail_dirfd(f->t), "ring.0", &(struct ring_opts){ .size = 4096 },
			     &r, &f->err),
	    0);
	commit_ring(r, "{\"action\":\"released\",\"id\":\"a\"");
	pos = ring_tail(r);
	assert_true(ring_next(r, &pos, &line, &flags));
	append(f, "{\"action\":\"released\",\"id\":\"a\"");
	sync_trail(f);
	trail_durable_mark(f->t, &segment, &offset);
	ring_release(r, pos, segment, offset);
	commit_ring(r, "{\"action\":\"written\",\"id\":\"b\"");
	append(f, "{\"action\":\"written\",\"id\":\"b\"");
	sync_trail(f); /* killed before the release */
	commit_ring(r, "{\"action\":\"held\",\"id\":\"c\",\"target\":{}");
	ring_close(r);
	close_trail(f, false);

	open_trail(f);
	assert_int_equal(f->rec.from_rings, 1);
	assert_int_equal(trail_durable_seq(f->t), 5);
	text[read_file(segment_path(f, 1), text, sizeof(text) - 1)] = '\0';
	last = strstr(text, "{\"action\":\"held\"");
	assert_non_null(last);
	assert_int_equal(
	    strncmp(last,
		"{\"action\":\"held\",\"id\":\"c\",\"recovered\":true,\"target\":{},\"trail\":",
		63),
	    0);
	close_trail(f, false);
	open_trail(f);
	assert_int_equal(f->rec.from_rings, 0);
	assert_int_equal(trail_durable_seq(f->t), 5);
}

/* Killed in the middle of recovery: the line is in the trail, the ring not cleared. */
static void
recovery_may_be_killed_and_begun_again(void **state)
{
	struct fixture *f = *state;
	struct ring *r;
	char ring_file[64 * 1024];
	size_t n;

	open_trail(f);
	assert_int_equal(ring_open(trail_dirfd(f->t), "ring.7", &(struct ring_opts){ .size = 4096 },
			     &r, &f->err),
	    0);
	commit_ring(r, "{\"action\":\"held\",\"id\":\"c\"");
	ring_close(r);
	n = read_file(path_of(f, "ring.7"), ring_file, sizeof(ring_file));
	close_trail(f, false);
	for (unsigned i = 0; i < 3; i++) {
		write_file(path_of(f, "ring.7"), ring_file, n);
		open_trail(f);
		assert_int_equal(f->rec.from_rings, i == 0);
		close_trail(f, false);
	}
	assert_int_equal(read_all(f, 0).n, 1);
}

/* ---- readers ---- */

static void
a_reader_follows_into_new_segments(void **state)
{
	struct fixture *f = *state;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq, expect = 1;

	open_trail(f);
	assert_int_equal(trail_reader_open(f->dir, 0, &r, &f->err), 0);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 0);
	for (unsigned i = 0; i < 200; i++) {
		append_durable(f, 1 + i % 3);
		assert_int_equal(trail_reader_durable(r), trail_durable_seq(f->t));
		while (trail_reader_next(r, &line, &seq, &f->err) == 1)
			assert_int_equal(seq, expect++);
		assert_int_equal(expect, trail_durable_seq(f->t) + 1);
	}
	trail_reader_close(r);
}

static void
a_reader_waits_at_the_mark_and_goes_on_behind_it(void **state)
{
	struct fixture *f = *state;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;

	open_trail(f);
	append_durable(f, 1);
	assert_int_equal(trail_reader_open(f->dir, 0, &r, &f->err), 0);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
	append_durable(f, 1);
	append(f, "{\"action\":\"written\"");
	assert_int_equal(trail_write(f->t, &f->err), 0);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 0);
	sync_trail(f);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
	assert_int_equal(seq, 3);
	assert_int_equal(trail_reader_corrupt(r), 0);
	trail_reader_close(r);
}

static void
a_reader_begins_at_any_number(void **state)
{
	struct fixture *f = *state;

	open_trail(f);
	append_durable(f, 120);
	for (uint64_t from = 1; from <= 121; from += 5) {
		struct seen seen = read_all(f, from);

		assert_int_equal(seen.n, 121 - from);
		assert_int_equal(seen.first, from == 121 ? 0 : from);
	}
}

static void
a_reader_copes_with_segments_that_expire_under_it(void **state)
{
	struct fixture *f = *state;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq, first, last, previous;

	open_trail(f);
	append_durable(f, 200);
	assert_int_equal(trail_reader_open(f->dir, 0, &r, &f->err), 0);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
	assert_int_equal(trail_expirable(f->t, INT64_MAX, 0, 100, &first, &last, &f->err), 0);
	assert_true(first == 1 && last > 50 && last < 100);
	assert_int_equal(trail_expire(f->t, INT64_MAX, 0, 100, &first, &last, &f->err), 0);
	assert_true(first == 1 && last > 50 && last < 100);
	/* Its own segment is read to the end; the next one is the first that is left. */
	for (previous = seq; trail_reader_next(r, &line, &seq, &f->err) == 1; previous = seq)
		assert_true(seq == previous + 1 || seq == last + 1);
	assert_int_equal(seq, 200);
	trail_reader_close(r);
	assert_int_equal(read_all(f, 0).first, last + 1);
}

static void
retention_by_size_takes_the_oldest_and_keeps_what_is_not_acknowledged(void **state)
{
	struct fixture *f = *state;
	struct trail_stats before, after;
	uint64_t first, last;

	open_trail(f);
	append_durable(f, 200);
	trail_stats(f->t, &before);
	assert_int_equal(trail_expire(f->t, 0, before.bytes / 2, 1, &first, &last, &f->err), 0);
	assert_int_equal(last, 0);
	assert_int_equal(trail_expire(f->t, 0, before.bytes / 2, 201, &first, &last, &f->err), 0);
	trail_stats(f->t, &after);
	assert_int_equal(first, 1);
	assert_true(after.bytes <= before.bytes / 2 && after.segments < before.segments);
	assert_true(after.bytes + SEGMENT + 512 > before.bytes / 2);
	/* The open one stays, whatever the limits. */
	assert_int_equal(trail_expire(f->t, INT64_MAX, 1, 999, &first, &last, &f->err), 0);
	append_durable(f, 1);
	assert_int_equal(read_all(f, 0).last, 201);
}

static void
a_mark_that_is_older_than_what_expired_misses_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;
	char page[4096];

	open_trail(f);
	append_durable(f, 50);
	read_file(path_of(f, "state"), page, sizeof(page));
	append_durable(f, 150);
	assert_int_equal(trail_expire(f->t, INT64_MAX, 1, 150, &first, &last, &f->err), 0);
	assert_true(last > 50);
	put_back_marks(f, page);
	close_trail(f, false);
	open_trail(f);
	assert_int_equal(f->rec.missing_last, 0);
	assert_int_equal(trail_last_seq(f->t), 200);
	assert_int_equal(read_all(f, 0).first, last + 1);
}

static void
touch(const struct fixture *f, uint64_t segment, time_t to)
{
	struct timespec times[2] = { { .tv_sec = to }, { .tv_sec = to } };

	assert_int_equal(utimensat(AT_FDCWD, segment_path(f, segment), times, 0), 0);
}

/* Where the second segment begins. */
static uint64_t
second_segment(const struct fixture *f)
{
	uint64_t first = 2;

	while (access(segment_path(f, first), F_OK) == -1)
		first++;
	return first;
}

static uint64_t
expirable_before(struct fixture *f, int64_t before_ns)
{
	uint64_t first, last;

	assert_int_equal(
	    trail_expirable(f->t, before_ns, 0, UINT64_MAX, &first, &last, &f->err), 0);
	return last;
}

#define YEAR_NS (365 * 86400 * CLOCK_NS_PER_S)

static void
a_segment_is_as_old_as_its_lines_and_its_file(void **state)
{
	struct fixture *f = *state;
	int64_t now = clock_wall_ns();

	open_trail(f);
	append_durable_at(f, 50, now - YEAR_NS);
	assert_int_equal(expirable_before(f, now - YEAR_NS / 2), 0);
	touch(f, 1, 1);
	assert_int_equal(expirable_before(f, now - YEAR_NS / 2), second_segment(f) - 1);
}

static void
who_touches_a_segment_makes_it_no_older(void **state)
{
	struct fixture *f = *state;
	int64_t now = clock_wall_ns();
	char bytes[2 * SEGMENT];
	size_t n;

	open_trail(f);
	append_durable(f, 50);
	n = read_file(segment_path(f, 1), bytes, sizeof(bytes));
	touch(f, 1, 1);
	assert_int_equal(expirable_before(f, now - YEAR_NS / 2), 0);
	memset(bytes, 'x', n); /* the next one's lines are younger */
	write_file(segment_path(f, 1), bytes, n);
	touch(f, 1, 1);
	assert_int_equal(expirable_before(f, now - YEAR_NS / 2), 0);
	assert_int_not_equal(expirable_before(f, now + YEAR_NS), 0);
}

static void
a_clock_that_was_put_back_makes_a_segment_no_older(void **state)
{
	struct fixture *f = *state;
	int64_t now = clock_wall_ns();

	open_trail(f);
	do
		append_durable(f, 1);
	while (access(segment_path(f, trail_last_seq(f->t) + 1), F_OK) == -1);
	append_durable_at(f, 50, now - YEAR_NS);
	touch(f, 1, 1);
	assert_int_equal(expirable_before(f, now - YEAR_NS / 2), 0);
}

static uint64_t
segment_after(struct fixture *f, uint64_t first)
{
	do
		first++;
	while (access(segment_path(f, first), F_OK) == -1);
	return first;
}

/* A run that stopped before the two oldest segments were gone. */
static uint64_t
cut_an_expiry_short(struct fixture *f)
{
	char one[2 * SEGMENT], two[2 * SEGMENT];
	uint64_t first, last, second, third;
	size_t n, m;

	open_trail(f);
	append_durable(f, 200);
	second = second_segment(f);
	third = segment_after(f, second);
	n = read_file(segment_path(f, 1), one, sizeof(one));
	m = read_file(segment_path(f, second), two, sizeof(two));
	assert_int_equal(trail_expire(f->t, INT64_MAX, 0, third, &first, &last, &f->err), 0);
	assert_int_equal(last, third - 1);
	write_file(segment_path(f, 1), one, n);
	write_file(segment_path(f, second), two, m);
	return second;
}

static void
a_removal_that_was_cut_short_heeds_what_is_held_since(void **state)
{
	struct fixture *f = *state;
	uint64_t second = cut_an_expiry_short(f), first, last;
	const struct trail_hold hold = { "case-7", second, second };

	assert_int_equal(trail_hold_add(f->t, &hold, &f->err), 0);
	close_trail(f, false);
	open_trail(f);
	assert_int_equal(access(segment_path(f, 1), F_OK), -1);
	assert_int_equal(access(segment_path(f, second), F_OK), 0);
	assert_int_equal(trail_expired(f->t), second - 1);
	assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
	/* Who takes it away now is told of. */
	assert_int_equal(unlink(segment_path(f, second)), 0);
	assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 1);
	assert_true(first == second && last > first);
}

/* It is put aside before the segment goes whose lines it would seem to have lost. */
static void
a_removal_that_was_cut_short_leaves_no_stray_alone(void **state)
{
	struct fixture *f = *state;
	uint64_t second = cut_an_expiry_short(f), first, last;

	close_trail(f, false);
	write_file(segment_path(f, second + 1), "", 0);
	open_trail(f);
	assert_int_equal(access(segment_path(f, 1), F_OK), -1);
	assert_int_equal(access(segment_path(f, second), F_OK), 0);
	assert_int_equal(access(segment_path(f, second + 1), F_OK), -1);
	assert_int_equal(f->rec.foreign, 1);
	assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
}

static void
a_removal_that_was_cut_short_removes_nothing_while_holds_are_damaged(void **state)
{
	struct fixture *f = *state;
	uint64_t second = cut_an_expiry_short(f);

	close_trail(f, false);
	write_file(path_of(f, "holds"), "x", 1);
	open_trail(f);
	assert_int_equal(access(segment_path(f, 1), F_OK), 0);
	assert_int_equal(access(segment_path(f, second), F_OK), 0);
	assert_int_equal(trail_expired(f->t), 0);
	assert_int_equal(read_all(f, 0).n, 200);
}

/* Every second segment goes. */
static unsigned
make_holes(struct fixture *f)
{
	unsigned n = 0, holes = 0;
	char name[64];

	for (unsigned first = 2; first < 400; first++) {
		snprintf(name, sizeof(name), "%020u.jsonl", first);
		if (faccessat(trail_dirfd(f->t), name, F_OK, 0) == 0 && n++ % 2 == 0)
			holes += unlinkat(trail_dirfd(f->t), name, 0) == 0;
	}
	return holes;
}

static void
more_holes_than_are_remembered_are_told_once_each(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last, previous = 0, lowest = 0;
	unsigned told = 0, holes;

	open_trail(f);
	append_durable(f, 500);
	assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
	holes = make_holes(f);
	assert_true(holes > 8);
	while (trail_find_untold(f->t, previous, &first, &last, &f->err) == 1) {
		assert_true(previous < first && first <= last);
		previous = last;
		trail_told(f->t, first, last);
		if (++told == holes - TRAIL_TOLD_MAX)
			lowest = last;
	}
	assert_int_equal(told, holes);
	trail_recovery_recorded(f->t, &f->err);
	close_trail(f, false);
	open_trail(f);
	for (told = 0, last = 0; trail_find_untold(f->t, last, &first, &last, &f->err) == 1; told++)
		assert_true(last <= lowest);
	assert_int_equal(told, holes - TRAIL_TOLD_MAX); /* once more */
}

static void
a_sealed_segment_that_changes_is_told_once(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last, segment;
	static char bytes[65536];
	size_t n;

	open_trail(f);
	append_durable(f, 200);
	assert_false(trail_find_changed(f->t, &segment));
	assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
	append_durable(f, 1); /* the open one may grow */
	assert_false(trail_find_changed(f->t, &segment));
	n = read_file(segment_path(f, 1), bytes, sizeof(bytes));
	assert_int_equal(
	    renameat(trail_dirfd(f->t), "00000000000000000001.jsonl", trail_dirfd(f->t), "kept"),
	    0);
	for (size_t cut = 0; cut < 2; cut++) {
		write_file(segment_path(f, 1), bytes, n - cut);
		assert_true(trail_find_changed(f->t, &segment));
		assert_int_equal(segment, 1);
		assert_false(trail_find_changed(f->t, &segment));
		assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), cut);
	}
	assert_int_equal(first, last);
}

/* It goes when everything was looked at: in front of what is to expire, within, and behind. */
static void
what_is_taken_away_beside_what_expires_is_told_before(void **state)
{
	struct fixture *f;

	for (unsigned i = 0; i < 3; i++) {
		uint64_t firsts[4] = { 1 }, first, last;

		teardown(state);
		setup(state);
		f = *state;
		open_trail(f);
		append_durable(f, 200);
		for (unsigned n = 1; n < 4; n++)
			firsts[n] = segment_after(f, firsts[n - 1]);
		assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 0);
		assert_int_equal(unlink(segment_path(f, firsts[i])), 0);
		assert_int_equal(
		    trail_expire(f->t, INT64_MAX, 0, firsts[3], &first, &last, &f->err), -1);
		assert_non_null(strstr(f->err.msg, "to be told before it goes"));
		assert_int_equal(trail_expired(f->t), 0);
		assert_int_equal(trail_find_untold(f->t, 0, &first, &last, &f->err), 1);
		assert_true(first == firsts[i] && last == firsts[i + 1] - 1);
		trail_told(f->t, first, last);
		assert_int_equal(
		    trail_expire(f->t, INT64_MAX, 0, firsts[3], &first, &last, &f->err), 0);
		assert_int_equal(trail_expired(f->t), firsts[3] - 1);
	}
}

static void
what_is_held_stays_until_the_hold_is_removed(void **state)
{
	const struct trail_hold hold = { "case-7", 100, 120 };
	struct fixture *f = *state;
	struct trail_hold gone;
	uint64_t first, last;

	open_trail(f);
	append_durable(f, 200);
	assert_int_equal(trail_hold_add(f->t, &hold, &f->err), 0);
	close_trail(f, true);
	open_trail(f);
	assert_int_equal(trail_holds(f->t)->n, 1);
	assert_int_equal(trail_expire(f->t, INT64_MAX, 1, 999, &first, &last, &f->err), 0);
	assert_true(first == 1 && last > 50 && last < 100);
	assert_int_equal(read_all(f, 0).first, last + 1);
	assert_int_equal(trail_expirable(f->t, INT64_MAX, 1, 999, &first, &last, &f->err), 0);
	assert_int_equal(last, 0);
	assert_int_equal(trail_hold_find(f->t, "case-7", &gone, &f->err), 0);
	assert_int_equal(trail_hold_remove(f->t, "case-7", &f->err), 0);
	assert_true(gone.first == 100 && gone.last == 120);
	assert_int_equal(trail_expire(f->t, INT64_MAX, 1, 999, &first, &last, &f->err), 0);
	assert_true(last > 120);
	close_trail(f, true);
	open_trail(f);
	assert_int_equal(trail_holds(f->t)->n, 0);
}

static const struct {
	const char *label;
	struct trail_hold hold;
	const char *want; /* NULL: it is taken */
} hold_cases[] = {
	{ "a name of every kind of character", { "aZ0-_.", 1, 1 }, NULL },
	{ "the same name", { "aZ0-_.", 2, 3 }, "already" },
	{ "no name", { "", 1, 1 }, "wanted a name" },
	{ "a space in it", { "a b", 1, 1 }, "wanted a name" },
	{ "a line break in it", { "a\n", 1, 1 }, "wanted a name" },
	{ "it ends before it begins", { "b", 3, 2 }, "a range" },
	{ "from 0 on", { "b", 0, 2 }, "a range" },
	{ "beyond all numbers", { "b", 1, 1ULL << 53 }, "a range" },
	{ "the word of the last line", { "sum", 1, 9 }, NULL },
};

static void
holds_have_a_name_and_a_range(void **state)
{
	struct fixture *f = *state;
	struct trail_hold more = { .first = 1, .last = 1 };

	open_trail(f);
	for (size_t i = 0; i < sizeof(hold_cases) / sizeof(hold_cases[0]); i++) {
		int rc = trail_hold_add(f->t, &hold_cases[i].hold, &f->err);

		if ((rc == 0) != (hold_cases[i].want == NULL) ||
		    (rc == -1 && strstr(f->err.msg, hold_cases[i].want) == NULL))
			fail_msg("%s: %s", hold_cases[i].label, f->err.msg);
	}
	for (unsigned i = 2; i < TRAIL_HOLDS_MAX; i++) {
		memset(more.name, 'x', sizeof(more.name) - 1);
		snprintf(more.name, 4, "%u", i);
		more.name[strlen(more.name)] = 'x';
		assert_int_equal(trail_hold_add(f->t, &more, &f->err), 0);
	}
	strcpy(more.name, "one-too-many");
	assert_int_equal(trail_hold_add(f->t, &more, &f->err), -1);
	assert_int_equal(trail_hold_find(f->t, "none", &more, &f->err), -1);
	close_trail(f, true);
	open_trail(f);
	assert_int_equal(trail_holds(f->t)->n, TRAIL_HOLDS_MAX);
	assert_string_equal(trail_holds(f->t)->holds[1].name, "sum");
}

static void
with_damaged_holds_everything_is_held(void **state)
{
	const struct trail_hold hold = { "case-7", 1, 2 };
	struct fixture *f = *state;
	struct trail_hold gone;
	uint64_t first, last;
	long size;

	open_trail(f);
	append_durable(f, 200);
	assert_int_equal(trail_hold_add(f->t, &hold, &f->err), 0);
	size = file_size(path_of(f, "holds"));
	assert_true(size > 0);
	close_trail(f, true);
	for (long at = 0; at < size; at++) {
		int fd = open(path_of(f, "holds"), O_RDWR);
		char was;

		assert_int_equal(pread(fd, &was, 1, at), 1);
		assert_int_equal(pwrite(fd, was == '9' ? "8" : "9", 1, at), 1);
		open_trail(f);
		assert_non_null(strstr(trail_holds(f->t)->damage.msg, "holds is damaged"));
		assert_int_equal(trail_expire(f->t, INT64_MAX, 1, 999, &first, &last, &f->err), 0);
		assert_int_equal(last, 0);
		assert_int_equal(trail_hold_add(f->t, &hold, &f->err), -1);
		assert_int_equal(trail_hold_find(f->t, "case-7", &gone, &f->err), -1);
		close_trail(f, true);
		assert_int_equal(pwrite(fd, &was, 1, at), 1);
		close(fd);
	}
	assert_int_equal(truncate(path_of(f, "holds"), size - 1), 0);
	open_trail(f);
	assert_string_not_equal(trail_holds(f->t)->damage.msg, "");
}

static void
expect_all_held(struct fixture *f, const char *why)
{
	uint64_t first, last;

	open_trail(f);
	assert_non_null(strstr(trail_holds(f->t)->damage.msg, why));
	assert_int_equal(trail_expire(f->t, INT64_MAX, 1, 999, &first, &last, &f->err), 0);
	assert_int_equal(last, 0);
	close_trail(f, true);
}

/* Whoever takes the file away, or puts an older one there. */
static void
with_other_holds_than_were_written_everything_is_held(void **state)
{
	const struct trail_hold one = { "one", 100, 120 }, two = { "two", 1, 2 };
	struct fixture *f = *state;
	char old[200];
	size_t n;

	open_trail(f);
	append_durable(f, 200);
	assert_int_equal(trail_hold_add(f->t, &one, &f->err), 0);
	assert_int_equal(trail_holds_settled(f->t, &f->err), 0);
	n = read_file(path_of(f, "holds"), old, sizeof(old));
	assert_int_equal(trail_hold_add(f->t, &two, &f->err), 0);
	assert_false(trail_holds_are_settled(f->t));
	close_trail(f, true);
	/* Killed on the way, it may be this one or that. */
	open_trail(f);
	assert_int_equal(trail_holds(f->t)->n, 2);
	close_trail(f, true);
	write_file(path_of(f, "holds"), old, n);
	open_trail(f);
	assert_int_equal(trail_holds(f->t)->n, 1);
	assert_false(trail_holds_are_settled(f->t));
	assert_int_equal(trail_hold_add(f->t, &two, &f->err), 0);
	assert_int_equal(trail_holds_settled(f->t, &f->err), 0);
	close_trail(f, true);
	write_file(path_of(f, "holds"), old, n);
	expect_all_held(f, "holds is not the file that keytrail wrote");
	assert_int_equal(unlink(path_of(f, "holds")), 0);
	expect_all_held(f, "holds is gone");
	open_trail(f);
	assert_int_equal(trail_holds_reset(f->t, &f->err), 0);
	assert_int_equal(trail_holds_settled(f->t, &f->err), 0);
	close_trail(f, true);
	open_trail(f);
	assert_string_equal(trail_holds(f->t)->damage.msg, "");
	assert_int_equal(trail_holds(f->t)->n, 0);
}

static void
holds_that_are_taken_away_under_the_writer_are_put_back(void **state)
{
	const struct trail_hold hold = { "case-7", 1, 2 };
	struct trail_harm harm[TRAIL_HARM_MAX];
	struct fixture *f = *state;

	open_trail(f);
	assert_int_equal(trail_hold_add(f->t, &hold, &f->err), 0);
	assert_int_equal(trail_holds_settled(f->t, &f->err), 0);
	assert_int_equal(trail_find_harm(f->t, harm), 0);
	assert_int_equal(unlink(path_of(f, "holds")), 0);
	assert_int_equal(trail_find_harm(f->t, harm), 1);
	assert_string_equal(harm[0].file, "holds");
	assert_true(harm[0].mended);
	assert_int_equal(trail_find_harm(f->t, harm), 0);
	close_trail(f, true);
	open_trail(f);
	assert_int_equal(trail_holds(f->t)->n, 1);
	close_trail(f, true);
	write_file(path_of(f, "holds"), "x", 1);
	open_trail(f);
	assert_int_equal(trail_find_harm(f->t, harm), 1);
	assert_false(harm[0].mended);
	assert_int_equal(trail_find_harm(f->t, harm), 0);
}

static void
holds_that_cannot_be_read_now_are_not_gone(void **state)
{
	const struct trail_hold hold = { "case-7", 1, 2 };
	struct trail_harm harm[TRAIL_HARM_MAX];
	struct rlimit all, none;
	struct fixture *f = *state;
	size_t n;

	open_trail(f);
	assert_int_equal(trail_hold_add(f->t, &hold, &f->err), 0);
	getrlimit(RLIMIT_NOFILE, &all);
	none = (struct rlimit){ 0, all.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	n = trail_find_harm(f->t, harm);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
	while (n-- > 0)
		assert_string_not_equal(harm[n].file, "holds");
	assert_int_equal(trail_find_harm(f->t, harm), 0);
}

static void
times_are_whole_segments(void **state)
{
	static const char ever[] = "9999-12-31T23:59:59.99+0000";
	static const char never[] = "0000-01-01T00:00:00.00+0000";
	struct fixture *f = *state;
	uint64_t first, last, all_first, all_last;
	char now[CLOCK_EVENT_TIME_SIZE];

	open_trail(f);
	append_durable(f, 100);
	clock_event_time(clock_wall_ns(), now);
	while (clock_wall_ns() % CLOCK_NS_PER_S / 10000000 == (now[20] - '0') * 10 + now[21] - '0')
		continue; /* the next hundredth of a second */
	append_durable(f, 200);
	assert_int_equal(trail_seq_range(f->t, never, ever, &all_first, &all_last, &f->err), 0);
	assert_true(all_first == 1 && all_last > 1000);
	assert_int_equal(trail_seq_range(f->t, now, now, &first, &last, &f->err), 0);
	assert_true(first > 1 && first <= 100 && last >= 100 && last < 250);
	assert_int_equal(trail_seq_range(f->t, ever, ever, &first, &last, &f->err), 0);
	assert_true(first > 200 && last == all_last);
	assert_int_equal(trail_seq_range(f->t, never, never, &first, &last, &f->err), 0);
	assert_true(first == 1 && last == 1);
}

static void
the_retention_of_the_run_before_is_known(void **state)
{
	struct trail_retention r = { 86400, 0 }, found = { 1, 2 };
	const struct trail_retention shorter = { 86399, 0 }, smaller = { 86400, 1 << 20 };
	struct fixture *f = *state;

	open_trail(f);
	assert_false(trail_load_retention(f->t, &found));
	assert_int_equal(trail_save_retention(f->t, &r, &f->err), 0);
	close_trail(f, true);
	open_trail(f);
	assert_true(trail_load_retention(f->t, &found));
	assert_true(found.age_s == 86400 && found.max_size == 0);
	assert_true(trail_keeps_shorter(&shorter, &r) && !trail_keeps_smaller(&shorter, &r));
	assert_true(trail_keeps_smaller(&smaller, &r) && !trail_keeps_shorter(&smaller, &r));
	assert_false(trail_keeps_smaller(&r, &smaller) || trail_keeps_shorter(&r, &shorter));
	assert_int_equal(truncate(path_of(f, "retention"), 3), 0);
	assert_false(trail_load_retention(f->t, &found));
}

static void
readers_without_a_trail_are_told(void **state)
{
	struct fixture *f = *state;
	struct trail_reader *r;

	assert_int_equal(trail_reader_open(f->dir, 0, &r, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "state"));
	assert_int_equal(trail_reader_open("/nowhere/at/all", 0, &r, &f->err), -1);
}

/* ---- a disk that fails ---- */

struct faults {
	unsigned fail_writes, fail_syncs, fail_creates, fail_truncates, fail_allocates;
	size_t short_write; /* bytes that a failing write still takes */
	int error;
};

static int
faulty(unsigned *count, const struct faults *x)
{
	if (*count == 0)
		return 0;
	--*count;
	errno = x->error;
	return -1;
}

static int
faulty_create(void *arg, int dirfd, const char *name)
{
	struct faults *x = arg;

	if (faulty(&x->fail_creates, x) == -1)
		return -1;
	return openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
}

static int
faulty_allocate(void *arg, int fd, off_t at, off_t n)
{
	struct faults *x = arg;

	if (faulty(&x->fail_allocates, x) == -1)
		return -1;
	return fallocate(fd, FALLOC_FL_KEEP_SIZE, at, n);
}

static ssize_t
faulty_write(void *arg, int fd, const void *p, size_t n, off_t at)
{
	struct faults *x = arg;

	if (x->fail_writes > 0 && x->short_write > 0) {
		size_t part = x->short_write < n ? x->short_write : n;

		x->short_write = 0;
		return pwrite(fd, p, part, at);
	}
	if (faulty(&x->fail_writes, x) == -1)
		return -1;
	/* Short writes are no failure. */
	return pwrite(fd, p, n > 1000 ? 1000 : n, at);
}

static int
faulty_sync(void *arg, int fd)
{
	struct faults *x = arg;

	return faulty(&x->fail_syncs, x) == -1 ? -1 : fdatasync(fd);
}

static int
faulty_truncate(void *arg, int fd, off_t length)
{
	struct faults *x = arg;

	return faulty(&x->fail_truncates, x) == -1 ? -1 : ftruncate(fd, length);
}

static struct trail_io
faulty_io(struct faults *x)
{
	return (struct trail_io){ faulty_create, faulty_allocate, faulty_write, faulty_sync,
		faulty_truncate, x };
}

static const struct fault_case {
	const char *label;
	unsigned durable; /* lines before the fault */
	struct faults x;
} fault_cases[] = {
	{ "sync fails", 3, { .fail_syncs = 1, .error = EIO } },
	{ "sync fails in a segment without a durable line", 0, { .fail_syncs = 1, .error = EIO } },
	{ "sync and cut fail", 3, { .fail_syncs = 1, .fail_truncates = 9, .error = EIO } },
	{ "write fails", 3, { .fail_writes = 1, .error = ENOSPC } },
	{ "write fails in the middle of a line", 3,
	    { .fail_writes = 1, .short_write = 333, .error = ENOSPC } },
	{ "write and cut fail in the middle of a line", 3,
	    { .fail_writes = 1, .short_write = 333, .fail_truncates = 9, .error = EIO } },
	{ "write and cut fail, nothing durable", 0,
	    { .fail_writes = 1, .short_write = 333, .fail_truncates = 9, .error = EIO } },
	{ "no successor can be made at first", 3,
	    { .fail_syncs = 1, .fail_creates = 2, .error = EIO } },
};

/* Four lines are pending when the disk fails; they are appended again, and each is there once, also
 * for a reader that was there before and for the next start. */
static void
one_fault(struct fixture *f, const struct fault_case *c)
{
	struct faults x = { 0 };
	struct trail_io io = faulty_io(&x);
	struct trail_stats stats;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq, expect = 1;
	off_t length;

	assert_int_equal(try_open(f, &io), 0);
	append_durable(f, c->durable);
	length = file_size(segment_path(f, 1));
	assert_int_equal(trail_reader_open(f->dir, 0, &r, &f->err), 0);
	while (expect <= c->durable && trail_reader_next(r, &line, &seq, &f->err) == 1)
		assert_int_equal(seq, expect++);
	for (unsigned i = 0; i < 4; i++)
		append(f, "{\"action\":\"pending\"");
	x = c->x;
	assert_true(trail_write(f->t, &f->err) == -1 || trail_sync(f->t, &f->err) == -1);
	assert_int_equal(trail_durable_seq(f->t), c->durable);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 0);
	while (trail_reopen(f->t, &f->err) == -1)
		assert_true(x.fail_creates < 2);
	x = (struct faults){ 0 };
	append_durable(f, 4);
	assert_true(c->durable == 0 || file_size(segment_path(f, 1)) == length);
	assert_int_equal(trail_last_seq(f->t), c->durable + 4);
	trail_stats(f->t, &stats);
	assert_int_equal(stats.segments, c->durable > 0 ? 2 : 1);
	while (trail_reader_next(r, &line, &seq, &f->err) == 1)
		assert_int_equal(seq, expect++);
	assert_int_equal(expect, c->durable + 5);
	assert_int_equal(trail_reader_corrupt(r), 0);
	trail_reader_close(r);
	close_trail(f, false);
	open_trail(f);
	assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last, 0);
	assert_int_equal(trail_durable_seq(f->t), c->durable + 4);
	assert_int_equal(read_all(f, 0).n, c->durable + 4);
	close_trail(f, true);
}

static void
a_failed_segment_is_sealed_and_followed_by_another(void **state)
{
	for (size_t i = 0; i < sizeof(fault_cases) / sizeof(fault_cases[0]); i++) {
		struct fixture *f;

		print_message("    %s\n", fault_cases[i].label);
		setup((void **)&f);
		one_fault(f, &fault_cases[i]);
		teardown((void **)&f);
	}
	(void)state;
}

/* Nobody could tell it from lines that were added there. */
static void
nothing_is_durable_behind_what_was_written_in_vain(void **state)
{
	struct fixture *f = *state;
	struct faults x = { 0 };
	struct trail_io io = faulty_io(&x);
	off_t length;

	assert_int_equal(try_open(f, &io), 0);
	append_durable(f, 3);
	length = file_size(segment_path(f, 1));
	x = (struct faults){ .fail_syncs = 1, .fail_truncates = 9, .error = EIO };
	for (unsigned tries = 0; tries < 3; tries++) {
		append(f, "{\"action\":\"pending\"");
		assert_int_equal(trail_write(f->t, &f->err), 0);
		assert_int_equal(trail_sync(f->t, &f->err), -1);
		assert_int_equal(trail_reopen(f->t, &f->err), 0);
	}
	assert_int_equal(trail_durable_seq(f->t), 3);
	assert_true(file_size(segment_path(f, 1)) > length);
	append(f, "{\"action\":\"pending\"");
	assert_int_equal(trail_write(f->t, &f->err), 0);
}

static void
what_a_kill_left_of_it_is_cut_by_the_next_start(void **state)
{
	char left[4096], kept[4096];
	struct fixture *f = *state;
	off_t length;
	size_t n;

	nothing_is_durable_behind_what_was_written_in_vain(state);
	close_trail(f, false);
	length = file_size(segment_path(f, 1));
	n = read_file(segment_path(f, 1), left, sizeof(left));
	open_trail(f);
	assert_int_equal(read_all(f, 0).n, 4);
	assert_true(file_size(segment_path(f, 1)) < length);
	length -= file_size(segment_path(f, 1));
	assert_int_equal(
	    read_file(path_of(f, "00000000000000000001.jsonl.torn"), kept, sizeof(kept)), length);
	assert_memory_equal(kept, left + n - (size_t)length, (size_t)length);
}

static void
a_line_of_a_later_segment_is_damage(void **state)
{
	struct fixture *f = *state;
	struct trail_reader *r;
	struct slice line;
	char text[8192], next[8192];
	size_t n, first;
	uint64_t seq;

	open_trail(f);
	append_durable(f, 5);
	assert_int_equal(trail_reopen(f->t, &f->err), 0);
	append_durable(f, 5);
	n = read_file(segment_path(f, 1), text, sizeof(text));
	first = (size_t)((char *)memchr(text, '\n', n) - text) + 1;
	assert_true(read_file(segment_path(f, 6), next, sizeof(next)) >= first);
	write_file(segment_path(f, 1), text, first);
	append_file(segment_path(f, 1), next, first);
	append_file(segment_path(f, 1), text + first, n - first);
	assert_int_equal(trail_reader_open(f->dir, 0, &r, &f->err), 0);
	for (uint64_t want = 1; want <= 10; want++)
		assert_true(trail_reader_next(r, &line, &seq, &f->err) == 1 && seq == want);
	assert_int_equal(trail_reader_corrupt(r), 1);
	trail_reader_close(r);
}

static void
note_told(void *arg, uint64_t first, uint64_t last)
{
	char *told = arg;
	size_t n = strlen(told);

	snprintf(told + n, 100 - n, "%" PRIu64 "-%" PRIu64 " ", first, last);
}

/* The offset of a line in the first segment. */
static long
offset_of(struct fixture *f, uint64_t seq)
{
	char text[8192];
	size_t n = read_file(segment_path(f, 1), text, sizeof(text));
	const char *line = text;

	while (--seq > 0)
		line = (const char *)memchr(line, '\n', n - (size_t)(line - text)) + 1;
	return line - text;
}

static void
who_reads_is_told_which_numbers_are_damaged(void **state)
{
	static const struct {
		uint64_t from, damaged[4];
		const char *told;
	} rows[] = {
		{ 0, { 0 }, "" },
		{ 0, { 1, 4, 5, 9 }, "1-1 4-5 9-9 " },
		{ 0, { 10 }, "10-10 " }, /* no line follows */
		{ 0, { 9, 10 }, "9-10 " },
		{ 5, { 4 }, "" },
		{ 5, { 4, 5, 6 }, "5-6 " },
		{ 10, { 9, 10 }, "10-10 " },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct trail_reader *r;
		struct fixture *f;
		struct slice line;
		char told[100] = "";
		uint64_t seq;

		setup((void **)&f);
		open_trail(f);
		append_durable(f, 10);
		for (size_t k = 0; k < 4 && rows[i].damaged[k] != 0; k++)
			flip_byte(segment_path(f, 1), offset_of(f, rows[i].damaged[k]) + 5);
		assert_int_equal(trail_reader_open(f->dir, rows[i].from, &r, &f->err), 0);
		trail_reader_on_corrupt(r, note_told, told);
		for (int again = 0; again < 2; again++)
			while (trail_reader_next(r, &line, &seq, &f->err) == 1)
				continue;
		append_durable(f, 1);
		assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
		assert_int_equal(seq, 11);
		assert_string_equal(told, rows[i].told);
		trail_reader_close(r);
		teardown((void **)&f);
	}
	(void)state;
}

static void
what_a_reader_met_is_copied_aside(void **state)
{
	struct fixture *f = *state;
	char text[8192], kept[8192];
	long from, end;

	open_trail(f);
	append_durable(f, 10);
	assert_int_equal(trail_reopen(f->t, &f->err), 0);
	append_durable(f, 5);
	from = offset_of(f, 4);
	end = offset_of(f, 6);
	flip_byte(segment_path(f, 1), from + 5);
	flip_byte(segment_path(f, 1), offset_of(f, 5) + 5);
	flip_byte(segment_path(f, 1), offset_of(f, 8) + 5);
	assert_int_equal(trail_quarantine(f->t, 4, 5, &f->err), 0);
	assert_true(read_file(segment_path(f, 1), text, sizeof(text)) > (size_t)end);
	assert_int_equal(
	    read_file(path_of(f, "00000000000000000001.jsonl.corrupt"), kept, sizeof(kept)),
	    end - from);
	assert_memory_equal(kept, text + from, (size_t)(end - from));
	assert_int_equal(trail_quarantine(f->t, 11, 15, &f->err), 0); /* undamaged */
	assert_int_equal(access(path_of(f, "00000000000000000011.jsonl.corrupt"), F_OK), -1);
}

static void
a_torn_tail_that_cannot_be_cut_is_left_behind(void **state)
{
	struct fixture *f = *state;
	struct faults x = { .fail_truncates = 1, .error = EIO };
	struct trail_io io = faulty_io(&x);

	open_trail(f);
	append_durable(f, 3);
	close_trail(f, false);
	append_file(segment_path(f, 1), "{\"torn", 6);
	if (try_open(f, &io) == -1)
		fail_msg("%s", f->err.msg);
	trail_recovery_recorded(f->t, &f->err);
	assert_int_equal(x.fail_truncates, 0);
	assert_int_equal(f->rec.torn_bytes, 6);
	append_durable(f, 1);
	assert_true(file_size(segment_path(f, 4)) > 0);
	close_trail(f, false);
	open_trail(f);
	assert_int_equal(f->rec.corrupt_lines + f->rec.missing_last, 0);
	assert_int_equal(read_all(f, 0).n, 4);
}

/* Its name is the next one's, and it cannot be copied. */
static void
what_is_torn_is_never_dropped(void **state)
{
	struct fixture *f = *state;
	char bytes[8];

	open_trail(f);
	close_trail(f, false);
	append_file(segment_path(f, 1), "torn", 4);
	assert_int_equal(mkdir(path_of(f, "00000000000000000001.jsonl.torn"), 0700), 0);
	open_trail(f);
	append_durable(f, 3);
	assert_int_equal(read_all(f, 0).n, 3);
	assert_int_equal(
	    read_file(path_of(f, "00000000000000000001.jsonl.torn.whole"), bytes, sizeof(bytes)),
	    4);
	assert_memory_equal(bytes, "torn", 4);
}

/* Noticed before the next write fills the hole, or by who looks. */
static void
an_open_segment_that_is_cut_is_told(void **state)
{
	struct fixture *f = *state;
	uint64_t segment, first, last;

	for (unsigned look = 0; look < 2; look++) {
		uint64_t begin = trail_last_seq(f->t != NULL ? f->t : (open_trail(f), f->t)) + 1;

		append_durable(f, 10);
		assert_int_equal(truncate(segment_path(f, begin), look), 0);
		if (look) {
			assert_int_equal(trail_check(f->t, &f->err), -1);
		} else {
			append(f, "{\"action\":\"test\"");
			assert_int_equal(trail_write(f->t, &f->err), -1);
		}
		assert_true(trail_tampered(f->t, &segment, &first, &last));
		assert_true(segment == begin && first == begin && last == begin + 9);
		assert_int_equal(trail_reopen(f->t, &f->err), 0);
		assert_int_equal(file_size(segment_path(f, begin)), look);
	}
	append_durable(f, 1);
	assert_true(read_all(f, 0).n == 1 && trail_last_seq(f->t) == 21);
}

static void
a_roll_that_fails_lets_the_segment_grow(void **state)
{
	struct fixture *f = *state;
	struct faults x = { 0 };
	struct trail_io io = faulty_io(&x);

	assert_int_equal(try_open(f, &io), 0);
	assert_false(trail_could_not_roll(f->t, &f->err));
	x = (struct faults){ .fail_creates = 1000, .error = ENOSPC };
	append_durable(f, 100);
	assert_int_equal(read_all(f, 0).n, 100);
	assert_true(x.fail_creates < 1000);
	assert_true(trail_could_not_roll(f->t, &f->err));
	assert_non_null(strstr(f->err.msg, "No space left on device"));
	assert_false(trail_could_not_roll(f->t, &f->err));
}

/* The successor is there and valid, but has no room: the old segment is still the open one. */
static void
a_roll_without_room_lets_the_segment_grow(void **state)
{
	struct fixture *f = *state;
	struct faults x = { 0 };
	struct trail_io io = faulty_io(&x);
	struct trail_opts opts = {
		.dir = f->dir, .create = true, .segment_size = SEGMENT, .room = 8192, .io = &io
	};
	struct trail_stats stats;

	assert_int_equal(trail_open(&opts, &f->t, &f->rec, &f->err), 0);
	x = (struct faults){ .fail_allocates = 1000, .error = ENOSPC };
	append_durable(f, 100);
	assert_true(x.fail_allocates < 1000);
	assert_true(file_size(segment_path(f, 1)) > 4 * SEGMENT);
	trail_stats(f->t, &stats);
	assert_int_equal(stats.segments, 1);
	assert_int_equal(stats.bytes, file_size(segment_path(f, 1)));
	assert_int_equal(read_all(f, 0).n, 100);
	x.fail_allocates = 0;
	append_durable(f, 900);
	trail_stats(f->t, &stats);
	assert_true(stats.segments > 1);
	assert_int_equal(read_all(f, 0).n, 1000);
}

static void
room_that_is_short_is_told_and_found_again(void **state)
{
	struct fixture *f = *state;
	struct faults x = { 0 };
	struct trail_io io = faulty_io(&x);
	struct trail_opts opts = {
		.dir = f->dir, .create = true, .segment_size = SEGMENT, .room = 1 << 20, .io = &io
	};
	struct stat st;

	assert_int_equal(trail_open(&opts, &f->t, &f->rec, &f->err), 0);
	x = (struct faults){ .fail_allocates = 2, .error = ENOSPC };
	assert_int_equal(trail_reserve(f->t, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "No space left"));
	assert_int_equal(trail_reserve(f->t, &f->err), 0);
	assert_int_equal(stat(segment_path(f, 1), &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_true(st.st_blocks * 512 >= 3 << 19);
	assert_false(trail_cannot_reserve(f->t));
}

static void
a_file_system_that_cannot_reserve_is_used_all_the_same(void **state)
{
	struct fixture *f = *state;
	struct faults x = { .fail_allocates = 1000, .error = EOPNOTSUPP };
	struct trail_io io = faulty_io(&x);
	struct trail_opts opts = {
		.dir = f->dir, .create = true, .segment_size = SEGMENT, .room = 4096, .io = &io
	};

	assert_int_equal(trail_open(&opts, &f->t, &f->rec, &f->err), 0);
	assert_int_equal(trail_reserve(f->t, &f->err), 0);
	assert_true(trail_cannot_reserve(f->t));
	append_durable(f, 3);
	assert_int_equal(read_all(f, 0).n, 3);
	close_trail(f, true);
	opts.room = UINT64_MAX / 4;
	assert_int_equal(trail_open(&opts, &f->t, &f->rec, &f->err), 0);
	assert_int_equal(trail_reserve(f->t, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "no room"));
}

/* The kernel's own refusal, in the middle of a line. */
static void
a_full_disk_never_tears_a_line(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	open_trail(f);
	append_durable(f, 3);
	close_trail(f, true);
	if ((pid = fork()) == 0) {
		struct rlimit limit = { 1234, 1234 };
		uint64_t seq;
		bool failed = false;

		signal(SIGXFSZ, SIG_IGN);
		/* The state page and the lock are there already and below the limit of no write. */
		if (try_open(f, NULL) == -1 || setrlimit(RLIMIT_FSIZE, &limit) == -1)
			_exit(2);
		for (unsigned i = 0; i < 20 && !failed; i++)
			failed = trail_append(f->t, SLICE("{\"action\":\"x\""), 0, &seq, &f->err) ==
				     -1 ||
				 trail_write(f->t, &f->err) == -1 ||
				 trail_sync(f->t, &f->err) == -1;
		_exit(failed && strstr(f->err.msg, "File too large") != NULL ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	open_trail(f);
	assert_int_equal(f->rec.torn_bytes + f->rec.corrupt_lines + f->rec.missing_last, 0);
	assert_true(trail_durable_seq(f->t) > 3);
	assert_int_equal(read_all(f, 0).n, trail_durable_seq(f->t));
}

/* ---- any bytes ---- */

/* Whatever single byte is changed or cut anywhere in the directory's main files, the trail opens and
 * keeps every line that is valid. */
static void
no_change_of_one_byte_stops_the_start(void **state)
{
	static const char *const names[] = { "00000000000000000001.jsonl", "state", "log",
		"ring.0" };
	struct fixture *f = *state;
	struct ring *r;
	uint32_t random = 12345;

	open_trail(f);
	append_durable(f, 5);
	assert_int_equal(ring_open(trail_dirfd(f->t), "ring.0", &(struct ring_opts){ .size = 4096 },
			     &r, &f->err),
	    0);
	commit_ring(r, "{\"action\":\"held\",\"id\":\"c\"");
	ring_close(r);
	close_trail(f, false);
	for (unsigned i = 0; i < 300; i++) {
		char *path = path_of(f, names[i % 4]);
		long size = file_size(path);

		random = random * 1103515245 + 12345;
		if (size > 0)
			flip_byte(
			    path, (long)((random >> 8) % (size > 600 ? 600 : (unsigned)size)));
		open_trail(f);
		append_durable(f, 1);
		read_all(f, 0);
		close_trail(f, i % 2 == 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_trail_member_is_as_the_design_says),
		TEST(a_line_with_any_byte_changed_is_refused),
		TEST(files_have_the_documented_names_and_modes),
		TEST(recovered_is_put_at_its_sorted_place),
		TEST(an_id_is_looked_for_at_the_top_level_only),
		TEST(lines_survive_a_clean_stop_and_numbers_go_on),
		TEST(an_unclean_stop_is_noticed_and_loses_nothing_synced),
		TEST(lines_written_but_not_synced_are_kept),
		TEST(what_was_not_synced_is_written_again_before_it_counts),
		TEST(segments_roll_and_are_named_by_their_first_number),
		TEST(a_line_too_long_is_refused_and_takes_no_number),
		TEST(more_than_the_queue_holds_is_written_on_the_way),
		TEST(the_clock_may_step_back),
		TEST(a_directory_has_one_writer_and_names_it),
		TEST(create_false_makes_nothing),
		TEST(a_directory_that_cannot_be_written_is_an_error),
		TEST(an_unknown_group_is_an_error),
		TEST(the_log_file_is_made_again_from_the_state),
		TEST(a_torn_tail_is_kept_aside_and_cut),
		TEST(a_corrupt_line_costs_no_other),
		TEST(a_batch_torn_in_the_middle_costs_no_other),
		TEST(what_is_torn_is_told_once_however_often_a_start_is_cut_off),
		TEST(a_clean_stop_leaves_nothing_torn),
		TEST(what_was_signed_is_not_torn),
		TEST(the_last_durable_line_is_corrupt_and_not_torn),
		TEST(durable_lines_that_are_gone_are_missed),
		TEST(findings_stay_until_they_are_recorded),
		TEST(a_start_that_was_cut_off_before_it_recorded_anything_is_not_clean),
		TEST(either_half_of_the_state_page_may_be_damaged),
		TEST(a_state_page_that_somebody_made_up_is_none),
		TEST(a_stray_does_not_stop_the_start_by_its_name),
		TEST(a_vanished_segment_is_missed),
		TEST(an_emptied_directory_does_not_reuse_numbers),
		TEST(a_stale_state_page_loses_nothing),
		TEST(foreign_files_are_left_alone),
		TEST(lines_of_another_log_are_corrupt),
		TEST(a_segment_of_another_log_is_put_aside),
		TEST(one_is_put_aside_from_a_renewed_log_too),
		TEST(a_segment_of_another_log_that_stays_is_told_once),
		TEST(what_stood_aside_of_another_log_stays_told_until_it_is_recorded),
		TEST(a_reader_is_not_misled_by_lines_of_another_log),
		TEST(no_file_that_is_put_between_our_lines_hides_one),
		TEST(damage_does_not_hide_that_a_file_was_put_there),
		TEST(a_file_that_was_put_behind_the_mark_hides_no_line),
		TEST(what_a_ring_holds_is_known_behind_a_file_that_was_put_there),
		TEST(a_file_that_was_put_there_lets_nothing_expire),
		TEST(a_segment_with_a_damaged_start_is_none_that_was_put_there),
		TEST(a_renewed_log_keeps_its_lines_and_readers_follow),
		TEST(a_renewal_that_was_cut_short_is_completed),
		TEST(lines_without_any_identity_become_those_of_an_earlier_log),
		TEST(ring_lines_are_recovered_once_each),
		TEST(recovery_may_be_killed_and_begun_again),
		TEST(a_reader_follows_into_new_segments),
		TEST(a_reader_waits_at_the_mark_and_goes_on_behind_it),
		TEST(a_reader_begins_at_any_number),
		TEST(a_reader_copes_with_segments_that_expire_under_it),
		TEST(more_holes_than_are_remembered_are_told_once_each),
		TEST(retention_by_size_takes_the_oldest_and_keeps_what_is_not_acknowledged),
		TEST(a_segment_is_as_old_as_its_lines_and_its_file),
		TEST(who_touches_a_segment_makes_it_no_older),
		TEST(a_clock_that_was_put_back_makes_a_segment_no_older),
		TEST(a_removal_that_was_cut_short_heeds_what_is_held_since),
		TEST(a_removal_that_was_cut_short_leaves_no_stray_alone),
		TEST(a_removal_that_was_cut_short_removes_nothing_while_holds_are_damaged),
		TEST(what_is_taken_away_beside_what_expires_is_told_before),
		TEST(a_mark_that_is_older_than_what_expired_misses_nothing),
		TEST(a_sealed_segment_that_changes_is_told_once),
		TEST(what_is_held_stays_until_the_hold_is_removed),
		TEST(holds_have_a_name_and_a_range),
		TEST(with_damaged_holds_everything_is_held),
		TEST(with_other_holds_than_were_written_everything_is_held),
		TEST(holds_that_are_taken_away_under_the_writer_are_put_back),
		TEST(holds_that_cannot_be_read_now_are_not_gone),
		TEST(times_are_whole_segments),
		TEST(the_retention_of_the_run_before_is_known),
		TEST(readers_without_a_trail_are_told),
		TEST(a_failed_segment_is_sealed_and_followed_by_another),
		TEST(nothing_is_durable_behind_what_was_written_in_vain),
		TEST(what_a_kill_left_of_it_is_cut_by_the_next_start),
		TEST(a_line_of_a_later_segment_is_damage),
		cmocka_unit_test(who_reads_is_told_which_numbers_are_damaged),
		TEST(what_a_reader_met_is_copied_aside),
		TEST(a_torn_tail_that_cannot_be_cut_is_left_behind),
		TEST(what_is_torn_is_never_dropped),
		TEST(an_open_segment_that_is_cut_is_told),
		TEST(a_roll_that_fails_lets_the_segment_grow),
		TEST(a_roll_without_room_lets_the_segment_grow),
		TEST(room_that_is_short_is_told_and_found_again),
		TEST(a_file_system_that_cannot_reserve_is_used_all_the_same),
		TEST(a_full_disk_never_tears_a_line),
		TEST(no_change_of_one_byte_stops_the_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
