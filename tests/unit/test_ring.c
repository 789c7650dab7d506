#include "keytrail/ring.h"
#include "keytrail/trail.h"
#include "tempdir.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SIZE 4096

struct fixture {
	char dir[TEMPDIR_SIZE];
	int fd;
	struct ring *ring;
	struct err err;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	f->fd = open(f->dir, O_RDONLY | O_DIRECTORY);
	if (ring_open(f->fd, "ring.0", &(struct ring_opts){ .size = SIZE }, &f->ring, &f->err) ==
	    -1)
		return -1;
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	ring_close(f->ring);
	close(f->fd);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static uint64_t
commit_text(struct ring *r, const char *text, unsigned flags)
{
	size_t n = strlen(text);

	assert_true(ring_claim(r, n));
	memcpy(ring_line(r, n), text, n);
	return ring_commit(r, n, n, flags);
}

/* ---- queue ---- */

static void
lines_come_out_as_they_went_in(void **state)
{
	struct fixture *f = *state;
	uint64_t pos = ring_tail(f->ring), end;
	struct slice line;
	unsigned flags;

	commit_text(f->ring, "first", RING_DURABLE);
	end = commit_text(f->ring, "second, longer", RING_SELF);
	assert_true(ring_next(f->ring, &pos, &line, &flags));
	assert_true(slice_equal(line, SLICE("first")));
	assert_int_equal(flags, RING_DURABLE);
	assert_true(ring_next(f->ring, &pos, &line, &flags));
	assert_true(slice_equal(line, SLICE("second, longer")));
	assert_int_equal(flags, RING_SELF);
	assert_int_equal(pos, end);
	assert_false(ring_next(f->ring, &pos, &line, &flags));
}

static void
what_is_left_is_counted_by_its_flag(void **state)
{
	struct fixture *f = *state;
	uint64_t pos = ring_tail(f->ring);
	struct slice line;
	unsigned flags;

	assert_false(ring_has_more(f->ring, pos));
	commit_text(f->ring, "waits", RING_DURABLE);
	commit_text(f->ring, "does not", 0);
	commit_text(f->ring, "waits, too", RING_DURABLE | RING_SELF);
	assert_int_equal(ring_count(f->ring, pos, RING_DURABLE), 2);
	assert_true(ring_next(f->ring, &pos, &line, &flags));
	assert_true(ring_has_more(f->ring, pos));
	assert_int_equal(ring_count(f->ring, pos, RING_DURABLE), 1);
	while (ring_next(f->ring, &pos, &line, &flags))
		continue;
	assert_false(ring_has_more(f->ring, pos));
	assert_int_equal(ring_count(f->ring, pos, RING_DURABLE), 0);
}

static void
a_line_is_durable_only_once_released(void **state)
{
	struct fixture *f = *state;
	uint64_t end = commit_text(f->ring, "line", 0), pos = ring_tail(f->ring);
	struct slice line;
	unsigned flags;

	assert_true(ring_next(f->ring, &pos, &line, &flags));
	assert_true(ring_durable(f->ring) < end);
	ring_release(f->ring, pos, 1, 100);
	assert_int_equal(ring_durable(f->ring), end);
}

static void
entries_wrap_and_stay_contiguous(void **state)
{
	struct fixture *f = *state;
	char want[700];
	struct slice line;
	unsigned flags;
	uint64_t pos = ring_tail(f->ring);

	for (unsigned i = 0; i < 1000; i++) {
		size_t n = 1 + i * 37 % sizeof(want);

		memset(want, 'a' + (int)(i % 26), n);
		assert_true(ring_claim(f->ring, sizeof(want)));
		memcpy(ring_line(f->ring, sizeof(want)), want, n);
		ring_commit(f->ring, sizeof(want), n, 0);
		assert_true(ring_next(f->ring, &pos, &line, &flags));
		assert_int_equal(line.n, n);
		assert_memory_equal(line.p, want, n);
		ring_release(f->ring, pos, 1, i);
	}
	assert_true(pos > 50 * SIZE);
}

static void
claims_bound_what_is_committed(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	while (ring_claim(f->ring, 200))
		n++;
	assert_int_equal(n, SIZE / 216); /* 16 bytes of entry, rounded to 8 */
	ring_unclaim(f->ring, 200);
	assert_true(ring_claim(f->ring, 200));
	assert_false(ring_claim(f->ring, 200));
	for (unsigned i = 0; i < n; i++) {
		memset(ring_line(f->ring, 200), 'x', 200);
		ring_commit(f->ring, 200, 200, 0);
	}
	assert_false(ring_claim(f->ring, 200));
}

static void
a_full_ring_opens_again_when_lines_are_released(void **state)
{
	struct fixture *f = *state;
	uint64_t first = 0, end;

	while (ring_claim(f->ring, 500)) {
		memset(ring_line(f->ring, 500), 'x', 500);
		end = ring_commit(f->ring, 500, 500, 0);
		first = first == 0 ? end : first;
	}
	ring_release(f->ring, first, 1, 1);
	assert_true(ring_claim(f->ring, 500));
	assert_false(ring_claim(f->ring, 500));
}

static void
a_closed_ring_takes_no_claims(void **state)
{
	struct fixture *f = *state;

	ring_set_state(f->ring, RING_NO_ROOM);
	assert_false(ring_claim(f->ring, 10));
	assert_int_equal(ring_state(f->ring), RING_NO_ROOM);
	ring_set_state(f->ring, RING_FAILED);
	assert_false(ring_claim(f->ring, 10));
	ring_set_state(f->ring, RING_OK);
	assert_true(ring_claim(f->ring, 10));
}

static void
sizes_that_cannot_be_mapped_are_errors(void **state)
{
	static const size_t sizes[] = { 0, 1, 4095, 4097, RING_SIZE_MAX + 4096 };
	struct fixture *f = *state;
	struct ring *r;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_int_equal(ring_open(f->fd, "ring.x", &(struct ring_opts){ .size = sizes[i] },
				     &r, &f->err),
		    -1);
	assert_int_equal(faccessat(f->fd, "ring.x", F_OK, 0), -1);
}

/* ---- two threads ---- */

#define STREAM 1000000

static void *
produce(void *arg)
{
	struct ring *r = arg;

	for (uint64_t i = 0; i < STREAM; i++) {
		while (!ring_claim(r, sizeof(i)))
			sched_yield();
		memcpy(ring_line(r, sizeof(i)), &i, sizeof(i));
		ring_commit(r, sizeof(i), sizeof(i), 0);
	}
	return NULL;
}

static void
a_million_lines_stream_between_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	uint64_t pos = ring_tail(f->ring), value;
	struct slice line;
	unsigned flags;

	assert_int_equal(pthread_create(&thread, NULL, produce, f->ring), 0);
	for (uint64_t i = 0; i < STREAM; i++) {
		while (!ring_next(f->ring, &pos, &line, &flags))
			sched_yield();
		assert_int_equal(line.n, sizeof(value));
		memcpy(&value, line.p, sizeof(value));
		assert_int_equal(value, i);
		ring_release(f->ring, pos, 1, i);
	}
	pthread_join(thread, NULL);
}

/* ---- recovery ---- */

struct found {
	char text[64][32];
	size_t n;
	unsigned flags;
	uint64_t segment, offset;
};

static int
collect(void *arg, struct slice line, unsigned flags, uint64_t segment, uint64_t offset,
    struct err *err)
{
	struct found *found = arg;

	(void)err;
	if (found->n < 64 && line.n < 32) {
		memcpy(found->text[found->n], line.p, line.n);
		found->text[found->n][line.n] = '\0';
	}
	found->n++;
	found->flags = flags;
	found->segment = segment;
	found->offset = offset;
	return 0;
}

static void
recovery_finds_what_was_not_released(void **state)
{
	struct fixture *f = *state;
	struct found found = { .n = 0 };
	uint64_t end = commit_text(f->ring, "durable", 0);

	ring_release(f->ring, end, 17, 4242);
	commit_text(f->ring, "one", 0);
	commit_text(f->ring, "two", RING_DURABLE);
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 2);
	assert_string_equal(found.text[0], "one");
	assert_string_equal(found.text[1], "two");
	assert_int_equal(found.flags, RING_DURABLE);
	assert_int_equal(found.segment, 17);
	assert_int_equal(found.offset, 4242);
}

static void
an_earlier_turn_is_not_taken_for_new(void **state)
{
	struct fixture *f = *state;
	struct found found = { .n = 0 };
	uint64_t end = 0;

	for (unsigned i = 0; i < 1000; i++) {
		end = commit_text(f->ring, "0123456789012345", 0);
		ring_release(f->ring, end, 1, 1);
	}
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 0);
}

static void
opening_and_clearing_forget_the_past(void **state)
{
	struct fixture *f = *state;
	struct found found = { .n = 0 };
	struct ring *again;

	commit_text(f->ring, "old", 0);
	assert_int_equal(
	    ring_open(f->fd, "ring.0", &(struct ring_opts){ .size = SIZE }, &again, &f->err), 0);
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 0);
	commit_text(again, "new", 0);
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 1);
	assert_string_equal(found.text[0], "new");
	assert_int_equal(ring_clear(f->fd, "ring.0", &f->err), 0);
	found.n = 0;
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 0);
	ring_close(again);
}

static void
flip(struct fixture *f, off_t at)
{
	int fd = openat(f->fd, "ring.0", O_RDWR);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

/* Every byte of the middle one of three entries. */
static void
a_damaged_entry_is_skipped_and_its_neighbours_are_found(void **state)
{
	struct fixture *f = *state;
	uint64_t from, to;

	commit_text(f->ring, "before", 0);
	from = commit_text(f->ring, "other", 0);
	to = commit_text(f->ring, "the damaged line", 0);
	commit_text(f->ring, "after", 0);
	for (uint64_t at = from; at < to; at++) {
		struct found found = { .n = 0 };

		flip(f, sysconf(_SC_PAGESIZE) + (off_t)at);
		assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
		assert_int_equal(found.n, 3);
		assert_string_equal(found.text[0], "before");
		assert_string_equal(found.text[1], "other");
		assert_string_equal(found.text[2], "after");
		flip(f, sysconf(_SC_PAGESIZE) + (off_t)at);
	}
}

static void
files_that_are_no_ring_hold_nothing(void **state)
{
	struct fixture *f = *state;
	struct found found = { .n = 0 };
	struct ring *r;
	char junk[9000];
	int fd;

	assert_int_equal(ring_recover(f->fd, "ring.none", collect, &found, &f->err), 0);
	assert_int_equal(ring_clear(f->fd, "ring.none", &f->err), 0);
	memset(junk, 0x5a, sizeof(junk));
	for (size_t n = 0; n <= sizeof(junk); n += 1500) {
		fd = openat(f->fd, "ring.junk", O_RDWR | O_CREAT | O_TRUNC, 0600);
		assert_int_equal(write(fd, junk, n), n);
		close(fd);
		assert_int_equal(ring_recover(f->fd, "ring.junk", collect, &found, &f->err), 0);
		assert_int_equal(ring_clear(f->fd, "ring.junk", &f->err), 0);
		assert_int_equal(
		    ring_open(f->fd, "ring.junk", &(struct ring_opts){ .size = SIZE }, &r, &f->err),
		    0);
		commit_text(r, "usable", 0);
		ring_close(r);
	}
	assert_int_equal(found.n, 0);
}

static void
a_truncated_ring_gives_what_it_still_holds(void **state)
{
	struct fixture *f = *state;
	struct found found = { .n = 0 };
	uint64_t end = commit_text(f->ring, "kept", 0);
	int fd = openat(f->fd, "ring.0", O_RDWR);

	commit_text(f->ring, "cut", 0);
	assert_int_equal(ftruncate(fd, sysconf(_SC_PAGESIZE) + (off_t)end + 17), 0);
	close(fd);
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 1);
	assert_string_equal(found.text[0], "kept");
}

static void
a_ring_changes_its_size_at_open(void **state)
{
	struct fixture *f = *state;
	struct ring *r;
	struct stat st;

	for (unsigned i = 0; i < 3; i++) {
		size_t size = i == 1 ? (size_t)SIZE * 4 : SIZE;

		assert_int_equal(
		    ring_open(f->fd, "ring.1", &(struct ring_opts){ .size = size }, &r, &f->err),
		    0);
		assert_int_equal(fstatat(f->fd, "ring.1", &st, 0), 0);
		assert_int_equal(st.st_size, (size_t)sysconf(_SC_PAGESIZE) + size);
		assert_int_equal(st.st_mode & 0777, 0600);
		assert_true(ring_claim(r, size - 16));
		ring_close(r);
	}
}

/* ---- death of the producer ---- */

/* A producer that tells over a pipe what it has committed, and is killed at any instruction. */
static void
commit_for_ever(struct ring *r, int tell)
{
	for (uint64_t i = 0;; i++) {
		char text[64];
		int n = snprintf(text, sizeof(text), "%" PRIu64, i);

		while (!ring_claim(r, sizeof(text)))
			sched_yield();
		memcpy(ring_line(r, sizeof(text)), text, (size_t)n);
		ring_commit(r, sizeof(text), (size_t)n, 0);
		if (write(tell, &i, sizeof(i)) != sizeof(i))
			_exit(1);
	}
}

struct sequence {
	uint64_t next;
	bool broken;
};

static int
check_sequence(void *arg, struct slice line, unsigned flags, uint64_t segment, uint64_t offset,
    struct err *err)
{
	struct sequence *s = arg;
	uint64_t value = 0;

	(void)flags;
	(void)segment;
	(void)offset;
	(void)err;
	if (slice_to_u64(line, &value) == -1 || value != s->next)
		s->broken = true;
	s->next++;
	return 0;
}

/* ---- another process's ring ---- */

static void
a_ring_is_adopted_from_where_its_consumer_has_ended(void **state)
{
	struct fixture *f = *state;
	uint64_t pos = ring_tail(f->ring), first;
	struct ring *adopted;
	struct slice line;
	unsigned flags;

	first = commit_text(f->ring, "released", 0);
	ring_release(f->ring, first, 7, 70);
	commit_text(f->ring, "before", RING_DURABLE);
	assert_int_equal(ring_adopt(f->fd, "ring.0", &adopted, &f->err), 0);
	assert_int_equal(pos = ring_tail(adopted), first);
	commit_text(f->ring, "after", 0);
	assert_true(ring_next(adopted, &pos, &line, &flags));
	assert_true(slice_equal(line, SLICE("before")));
	assert_int_equal(flags, RING_DURABLE);
	assert_true(ring_next(adopted, &pos, &line, &flags));
	assert_true(slice_equal(line, SLICE("after")));
	assert_int_equal(ring_committed(adopted), 0);
	ring_release(adopted, pos, 8, 80);
	assert_int_equal(ring_durable(f->ring), pos);
	ring_set_state(adopted, RING_NO_ROOM);
	assert_int_equal(ring_state(f->ring), RING_NO_ROOM);
	ring_follow(f->ring);
	assert_int_equal(ring_tail(f->ring), pos);
	ring_close(adopted);
}

static void
what_is_no_ring_of_this_version_is_not_adopted(void **state)
{
	struct fixture *f = *state;
	struct ring *adopted;
	uint32_t version;
	int fd = openat(f->fd, "ring.0", O_RDWR);

	assert_int_equal(ring_adopt(f->fd, "ring.1", &adopted, &f->err), -1);
	assert_int_equal(pread(fd, &version, sizeof(version), 8), sizeof(version));
	version++;
	assert_int_equal(pwrite(fd, &version, sizeof(version), 8), sizeof(version));
	assert_int_equal(ring_adopt(f->fd, "ring.0", &adopted, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "not a ring that this version can read"));
	version--;
	assert_int_equal(pwrite(fd, &version, sizeof(version), 8), sizeof(version));
	assert_int_equal(ftruncate(fd, SIZE), 0);
	assert_int_equal(ring_adopt(f->fd, "ring.0", &adopted, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "cut"));
	close(fd);
}

static void
a_ring_is_found_under_its_other_name(void **state)
{
	struct fixture *f = *state;
	struct ring *adopted;
	bool mended;

	assert_int_equal(ring_rename(f->ring, f->fd, "ring.1000", &f->err), 0);
	assert_null(ring_was_unlinked(f->ring, f->fd, &mended));
	assert_int_equal(ring_adopt(f->fd, "ring.1000", &adopted, &f->err), 0);
	assert_int_equal(ring_remove(adopted, f->fd, &f->err), 0);
	assert_int_equal(faccessat(f->fd, "ring.1000", F_OK, 0), -1);
	assert_int_equal(ring_rename(f->ring, f->fd, "ring.0", &f->err), -1);
}

static void
a_killed_producer_loses_nothing(void **state)
{
	struct fixture *f = *state;

	for (unsigned round = 0; round < 50; round++) {
		struct sequence s = { 0, false };
		uint64_t told = 0, value, want = 1 + (round * 7) % 40;
		struct ring *r;
		int pipefd[2], status;
		pid_t pid;

		assert_int_equal(ring_open(f->fd, "ring.kill",
				     &(struct ring_opts){ .size = SIZE * 4 }, &r, &f->err),
		    0);
		assert_int_equal(pipe(pipefd), 0);
		if ((pid = fork()) == 0)
			commit_for_ever(r, pipefd[1]);
		close(pipefd[1]);
		while (told < want && read(pipefd[0], &value, sizeof(value)) == sizeof(value))
			told = value + 1;
		kill(pid, SIGKILL);
		while (read(pipefd[0], &value, sizeof(value)) == sizeof(value))
			told = value + 1;
		waitpid(pid, &status, 0);
		close(pipefd[0]);
		ring_close(r);
		assert_int_equal(ring_recover(f->fd, "ring.kill", check_sequence, &s, &f->err), 0);
		assert_false(s.broken);
		assert_true(s.next == told || s.next == told + 1);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(lines_come_out_as_they_went_in),
		TEST(what_is_left_is_counted_by_its_flag),
		TEST(a_line_is_durable_only_once_released),
		TEST(entries_wrap_and_stay_contiguous),
		TEST(claims_bound_what_is_committed),
		TEST(a_full_ring_opens_again_when_lines_are_released),
		TEST(a_closed_ring_takes_no_claims),
		TEST(sizes_that_cannot_be_mapped_are_errors),
		TEST(a_million_lines_stream_between_threads),
		TEST(recovery_finds_what_was_not_released),
		TEST(an_earlier_turn_is_not_taken_for_new),
		TEST(opening_and_clearing_forget_the_past),
		TEST(a_damaged_entry_is_skipped_and_its_neighbours_are_found),
		TEST(files_that_are_no_ring_hold_nothing),
		TEST(a_truncated_ring_gives_what_it_still_holds),
		TEST(a_ring_changes_its_size_at_open),
		TEST(a_ring_is_adopted_from_where_its_consumer_has_ended),
		TEST(what_is_no_ring_of_this_version_is_not_adopted),
		TEST(a_ring_is_found_under_its_other_name),
		TEST(a_killed_producer_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
