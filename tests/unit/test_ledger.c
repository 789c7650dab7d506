#include "keytrail/ledger.h"

#include "keytrail/clock.h"
#include "keytrail/crc32c.h"
#include "keytrail/rotation.h"
#include "keytrail/tiles.h"
#include "keytrail/verify.h"
#include "tempdir.h"

#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#define SEGMENT 65536

struct fixture {
	char dir[TEMPDIR_SIZE];
	char secret[CHECKPOINT_KEY_MAX];
	struct checkpoint_key key;
	struct trail *t;
	struct trail_recovery rec;
	struct ledger *l;
	struct ledger_findings found;
	bool trusts;
	struct log *log;
	struct err err;
	_Atomic uint64_t told; /* size of the last checkpoint that was told of */
};

static void
new_key(struct fixture *f)
{
	struct checkpoint_signer *s = NULL;

	if (checkpoint_signer_make("example.com/k", f->secret, &f->err) == -1 ||
	    (s = checkpoint_signer_parse(slice_of(f->secret), &f->err)) == NULL)
		fail_msg("%s", f->err.msg);
	f->key = *checkpoint_signer_key(s);
	checkpoint_signer_free(s);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	f->log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	new_key(f);
	*state = f;
	return 0;
}

static void
close_all(struct fixture *f, bool clean)
{
	ledger_free(f->l);
	f->l = NULL;
	if (f->t != NULL)
		trail_close(f->t, clean);
	f->t = NULL;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	close_all(f, false);
	log_free(f->log);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static void
on_signed(void *arg, uint64_t size, struct slice note)
{
	struct fixture *f = arg;

	assert_true(note.n > 0);
	atomic_store(&f->told, size);
}

/* The result of ledger_open. */
static int
open_all(struct fixture *f)
{
	struct trail_opts topts = {
		.dir = f->dir, .create = true, .hashed = true, .segment_size = SEGMENT
	};
	struct ledger_opts lopts = { .dir = f->dir,
		.key = slice_of(f->secret),
		.log = f->log,
		.events = 2,
		.interval_s = 1,
		.signed_ = on_signed,
		.arg = f };

	if (ledger_new(&lopts, &f->l, &f->err) == -1 || ledger_look(f->l, &f->err) != 1)
		fail_msg("%s", f->err.msg);
	topts.signed_log = ledger_signed_log(f->l);
	topts.signed_size = ledger_signed_size(f->l);
	if (trail_open(&topts, &f->t, &f->rec, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	trail_recovery_recorded(f->t, &f->err);
	if (f->trusts)
		ledger_trust(f->l);
	if (ledger_open(f->l, f->t, &f->rec, &f->found, &f->err) == -1)
		return -1;
	return f->found.unfit[0] != '\0' ? err_set(&f->err, "%s", f->found.unfit) : 0;
}

static void
open_well(struct fixture *f)
{
	if (open_all(f) == -1)
		fail_msg("%s", f->err.msg);
}

static void
append_unsynced(struct fixture *f, unsigned n, const char *action)
{
	char text[100];
	uint64_t seq;

	for (unsigned i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "{\"action\":\"%s\",\"id\":\"id-%" PRIu64 "\"", action,
		    trail_last_seq(f->t) + 1);
		assert_int_equal(
		    trail_append(f->t, slice_of(text), clock_wall_ns(), &seq, &f->err), 0);
	}
	assert_int_equal(trail_write(f->t, &f->err), 0);
}

static void
append(struct fixture *f, unsigned n, const char *action)
{
	append_unsynced(f, n, action);
	assert_int_equal(trail_sync(f->t, &f->err), 0);
}

static void
sign(struct fixture *f)
{
	if (ledger_advance(f->l, &f->err) == -1 || ledger_sign(f->l, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

static void
append_signed(struct fixture *f, unsigned n)
{
	open_well(f);
	append(f, n, "test");
	sign(f);
	close_all(f, true);
}

static void
read_checkpoint(struct fixture *f, struct checkpoint *out)
{
	struct buf note = BUF_INIT;
	int dirfd = open(f->dir, O_RDONLY | O_DIRECTORY);

	assert_int_equal(ledger_read_checkpoint(dirfd, &note, &f->err), 1);
	close(dirfd);
	if (checkpoint_read(buf_slice(&note), &f->key, 1, out, &f->err) != CHECKPOINT_GOOD)
		fail_msg("%s", f->err.msg);
	buf_fini(&note);
}

/* From the lines alone; a number without a line counts as an empty entry. */
static void
root_of_lines(struct fixture *f, uint64_t size, struct merkle_hash *out)
{
	struct merkle_tree tree = MERKLE_TREE_INIT;
	struct merkle_hash h;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;

	assert_int_equal(trail_reader_open(f->dir, 1, &r, &f->err), 0);
	while (tree.size < size && trail_reader_next(r, &line, &seq, &f->err) == 1) {
		while (tree.size < seq - 1) {
			merkle_leaf(SLICE_EMPTY, &h);
			merkle_append(&tree, &h);
		}
		merkle_leaf(line, &h);
		merkle_append(&tree, &h);
	}
	trail_reader_close(r);
	assert_int_equal(tree.size, size);
	merkle_root(&tree, out);
}

static void
assert_signed(struct fixture *f, uint64_t size)
{
	int dirfd = open(f->dir, O_RDONLY | O_DIRECTORY);
	struct tiles files = { dirfd };
	struct merkle_source source = { size, tiles_read, &files };
	struct merkle_hash root;
	struct checkpoint cp;

	read_checkpoint(f, &cp);
	assert_int_equal(cp.size, size);
	root_of_lines(f, size, &root);
	assert_memory_equal(cp.root.b, root.b, MERKLE_HASH_SIZE);
	assert_int_equal(merkle_source_root(&source, size, &root, &f->err), 0);
	assert_memory_equal(cp.root.b, root.b, MERKLE_HASH_SIZE);
	close(dirfd);
}

static char *
path_of(const struct fixture *f, const char *name)
{
	static char path[TEMPDIR_SIZE + 64];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return path;
}

static void
poke(const struct fixture *f, const char *name, off_t at)
{
	int fd = open(path_of(f, name), O_RDWR);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

/* ---- the tests ---- */

static void
tiles_have_the_paths_of_the_specification(void **state)
{
	static const struct {
		unsigned level;
		uint64_t index;
		unsigned width;
		const char *want;
	} rows[] = {
		{ 0, 0, 256, "tile/0/000" },
		{ 0, 1, 1, "tile/0/001.p/1" },
		{ 1, 999, 255, "tile/1/999.p/255" },
		{ 2, 1000, 256, "tile/2/x001/000" },
		{ 7, 1234067, 256, "tile/7/x001/x234/067" },
	};
	char path[TILES_PATH_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		tiles_path(rows[i].level, rows[i].index, rows[i].width, path);
		assert_string_equal(path, rows[i].want);
	}
}

static void
what_is_signed_is_the_tree_of_the_lines(void **state)
{
	static const unsigned steps[] = { 1, 1, 253, 1, 1, 255, 300, 1000 };
	struct fixture *f = *state;
	uint64_t size = 0;

	open_well(f);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		append(f, steps[i], "test");
		sign(f);
		assert_signed(f, size += steps[i]);
		assert_int_equal(atomic_load(&f->told), size);
	}
}

static void
a_tree_of_more_than_one_level_of_full_tiles_is_right(void **state)
{
	struct fixture *f = *state;

	open_well(f);
	append(f, 65536 + 300, "test");
	sign(f);
	assert_signed(f, 65536 + 300);
	assert_int_equal(access(path_of(f, "tile/1/000"), F_OK), 0);
	assert_int_equal(access(path_of(f, "tile/2/000.p/1"), F_OK), 0);
}

static void
partial_tiles_go_when_the_full_one_is_there(void **state)
{
	struct fixture *f = *state;

	open_well(f);
	append(f, 10, "test");
	sign(f);
	assert_int_equal(access(path_of(f, "tile/0/000.p/10"), F_OK), 0);
	append(f, 300, "test");
	sign(f);
	assert_int_equal(access(path_of(f, "tile/0/000"), F_OK), 0);
	assert_int_equal(access(path_of(f, "tile/0/000.p"), F_OK), -1);
	assert_int_equal(access(path_of(f, "tile/0/001.p/54"), F_OK), 0);
}

static void
a_start_goes_on_where_the_last_one_ended(void **state)
{
	struct fixture *f = *state;

	append_signed(f, 700);
	open_well(f);
	assert_true(f->rec.clean);
	assert_int_equal(f->found.checked, 700);
	assert_int_equal(f->found.first, 0);
	append(f, 10, "test");
	close_all(f, false);
	open_well(f); /* 701 to 710 were not signed */
	append(f, 10, "test");
	sign(f);
	assert_signed(f, 720);
}

static void
tiles_that_are_gone_are_made_again(void **state)
{
	static const char *const gone[] = { "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2" };
	struct fixture *f = *state;

	append_signed(f, 700);
	for (size_t i = 0; i < 2 * sizeof(gone) / sizeof(gone[0]); i++) {
		const char *name = gone[i / 2];

		if (i % 2 == 0)
			assert_int_equal(unlink(path_of(f, name)), 0);
		else
			poke(f, name, 3);
		open_well(f);
		close_all(f, false); /* not clean: all tiles are looked at the next time */
		open_well(f);
		assert_signed(f, 700);
		close_all(f, false);
	}
}

/* Another id in the line of this number, with the sum that belongs to it. */
static void
forge(struct fixture *f, unsigned number)
{
	char text[8192], id[16], sum[9], *at, *line, *end;
	int fd = open(path_of(f, "00000000000000000001.jsonl"), O_RDWR);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	assert_true(n > 0);
	text[n] = '\0';
	snprintf(id, sizeof(id), "id-%u\"", number);
	assert_non_null(at = strstr(text, id));
	*at = 'I';
	for (line = text; (end = strchr(line, '\n')) < at; line = end + 1)
		continue;
	snprintf(sum, sizeof(sum), "%08x", crc32c(0, line, (size_t)(end - line) - 19));
	memcpy(end - 11, sum, 8);
	assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
	close(fd);
}

/* The n-th segment, from 0. */
static void
remove_segment(struct fixture *f, unsigned n)
{
	char path[TEMPDIR_SIZE + 64];
	glob_t g;

	snprintf(path, sizeof(path), "%s/0*.jsonl", f->dir);
	assert_int_equal(glob(path, 0, NULL, &g), 0);
	assert_true(g.gl_pathc > n + 1);
	assert_int_equal(unlink(g.gl_pathv[n]), 0);
	globfree(&g);
}

static void
begin_again(struct fixture *f)
{
	assert_int_equal(trail_renew(f->t, &f->err), 0);
	assert_int_equal(ledger_begin(f->l, f->t, &f->err), 0);
}

/* The one before has not ended: a takeover is not to end the service for it.  The next start is. */
static void
who_signed_the_lines_vouches_for_them(void **state)
{
	struct fixture *f = *state;

	append_signed(f, 10);
	forge(f, 4);
	f->trusts = true;
	open_well(f);
	close_all(f, true);
	f->trusts = false;
	assert_int_equal(open_all(f), -1);
	assert_int_equal(f->found.first, 4);
}

static void
a_line_that_was_altered_ends_the_log_and_what_was_signed_stays(void **state)
{
	struct fixture *f = *state;
	char old[TRAIL_ID_SIZE], aside[64];
	struct checkpoint after;

	append_signed(f, 10);
	forge(f, 4);
	assert_int_equal(open_all(f), -1);
	assert_non_null(strstr(f->err.msg, "gone or altered"));
	assert_int_equal(f->found.first, 4);
	assert_int_equal(f->found.last, 4);
	strcpy(old, trail_log_id(f->t));
	begin_again(f);
	assert_string_not_equal(trail_log_id(f->t), old);
	assert_int_equal(trail_log_base(f->t), 10);
	assert_int_equal(ledger_covered(f->l), 0);
	snprintf(aside, sizeof(aside), "checkpoint.%s", old);
	assert_int_equal(access(path_of(f, aside), F_OK), 0);
	append(f, 3, "test");
	sign(f);
	read_checkpoint(f, &after);
	assert_int_equal(after.size, 3);
	assert_non_null(strstr(after.origin, trail_log_id(f->t)));
	close_all(f, true);

	open_well(f);
	assert_int_equal(trail_log_base(f->t), 10);
	assert_int_equal(ledger_covered(f->l), 13);
	append(f, 400, "test");
	sign(f);
	close_all(f, false);
	tempdir_remove(path_of(f, "tile"));
	open_well(f);
	assert_int_equal(ledger_covered(f->l), 413);
}

static void
what_is_signed_is_the_line_that_was_recorded(void **state)
{
	struct fixture *f = *state;

	open_well(f);
	append(f, 10, "test");
	forge(f, 4);
	sign(f);
	close_all(f, true);
	assert_int_equal(open_all(f), -1);
	assert_int_equal(f->found.first, 4);
	assert_int_equal(f->found.last, 4);
}

/* The same numbers, other lines. */
static void
what_could_not_be_synced_is_signed_as_it_was_appended_again(void **state)
{
	static const unsigned counts[] = { 5, 16, 40 };
	struct fixture *f = *state;
	uint64_t size = 0;

	open_well(f);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		append_unsynced(f, counts[i], "lost");
		assert_int_equal(trail_reopen(f->t, &f->err), 0);
		append(f, counts[i], "test");
		sign(f);
		assert_signed(f, size += counts[i]);
	}
}

/* The tree is that of the last checkpoint again, and the hashes since were used up. */
static void
after_a_failure_the_lines_are_read(void **state)
{
	struct fixture *f = *state;

	open_well(f);
	append(f, 100, "test");
	sign(f);
	assert_int_equal(mkdir(path_of(f, "tile/0/000"), 0700), 0);
	append(f, 200, "test");
	assert_int_equal(ledger_advance(f->l, &f->err), -1);
	assert_int_equal(rmdir(path_of(f, "tile/0/000")), 0);
	append(f, 10, "test");
	sign(f);
	assert_signed(f, 310);
}

static void
without_tiles_and_lines_a_new_log_begins(void **state)
{
	struct fixture *f = *state;

	append_signed(f, 10);
	forge(f, 4);
	tempdir_remove(path_of(f, "tile"));
	assert_int_equal(open_all(f), -1);
	assert_non_null(strstr(f->err.msg, "neither the tiles nor the lines"));
	begin_again(f);
	append(f, 1, "test");
	sign(f);
}

static void
numbers_that_were_signed_are_not_used_again(void **state)
{
	struct fixture *f = *state;

	append_signed(f, 10);
	assert_int_equal(unlink(path_of(f, "00000000000000000001.jsonl")), 0);
	assert_int_equal(unlink(path_of(f, "state")), 0);
	assert_int_equal(open_all(f), -1);
	assert_true(f->rec.state_lost);
	assert_int_equal(f->rec.missing_first, 1);
	assert_int_equal(f->rec.missing_last, 10);
	assert_non_null(strstr(f->err.msg, "of another log"));
	begin_again(f);
	assert_int_equal(trail_last_seq(f->t), 10);
	append(f, 1, "test");
	sign(f);
}

/* Of three segments the middle one, which no start would read. */
static void
a_segment_that_vanished_ends_the_log(void **state)
{
	struct fixture *f = *state;

	open_well(f);
	for (unsigned i = 0; i < 150; i++)
		append(f, 10, "test");
	sign(f);
	close_all(f, true);
	open_well(f);
	close_all(f, true);
	remove_segment(f, 1);
	assert_int_equal(open_all(f), -1);
	assert_non_null(strstr(f->err.msg, "gone or altered"));
	assert_true(f->found.first > 1 && f->found.last < 1500);
}

static void
a_number_without_a_line_is_an_empty_entry(void **state)
{
	struct fixture *f = *state;

	open_well(f);
	append(f, 5, "test");
	close_all(f, true);
	poke(f, "00000000000000000001.jsonl", 20);
	open_well(f);
	append(f, 1, "test");
	sign(f);
	assert_signed(f, 6);
}

/* What f->l signed last is this key's; make it hand over to a new one. */
static void
rotate(struct fixture *f)
{
	struct checkpoint_signer *old, *new;
	struct buf note = BUF_INIT;
	struct checkpoint cp;
	FILE *out;

	read_checkpoint(f, &cp);
	old = checkpoint_signer_parse(slice_of(f->secret), &f->err);
	new_key(f);
	new = checkpoint_signer_parse(slice_of(f->secret), &f->err);
	assert_int_equal(rotation_write(old, new, cp.origin, &note, &f->err), 0);
	assert_non_null(out = fopen(path_of(f, "rotation"), "w"));
	fwrite(buf_slice(&note).p, 1, buf_size(&note), out);
	fclose(out);
	buf_fini(&note);
	checkpoint_signer_free(old);
	checkpoint_signer_free(new);
}

static int
look(struct fixture *f)
{
	struct ledger_opts opts = { .dir = f->dir, .key = slice_of(f->secret) };
	struct ledger *l;
	int rc;

	assert_int_equal(ledger_new(&opts, &l, &f->err), 0);
	rc = ledger_look(l, &f->err);
	ledger_free(l);
	return rc;
}

static void
another_key_is_refused_unless_the_old_one_hands_over(void **state)
{
	struct fixture *f = *state;
	struct checkpoint_key key = f->key;
	char old[CHECKPOINT_KEY_MAX];

	append_signed(f, 5);
	strcpy(old, f->secret);
	new_key(f);
	assert_int_equal(look(f), 0);
	assert_non_null(strstr(f->err.msg, "another key has signed"));
	strcpy(f->secret, old);
	f->key = key;
	rotate(f);
	open_well(f);
	assert_true(ledger_rotation(f->l).n > 0);
	append(f, 1, "test");
	sign(f);
	assert_signed(f, 6);
	close_all(f, true);
	open_well(f); /* the statement is old now */
	assert_int_equal(ledger_rotation(f->l).n, 0);
	close_all(f, true);
	strcpy(f->secret, old);
	assert_int_equal(look(f), 0);
}

static void
a_forged_checkpoint_ends_the_log(void **state)
{
	struct fixture *f = *state;

	append_signed(f, 5);
	poke(f, "checkpoint", 60);
	assert_int_equal(open_all(f), -1);
	assert_non_null(strstr(f->err.msg, "the checkpoint that is there"));
	begin_again(f);
	append(f, 1, "test");
	sign(f);
}

static void
nothing_is_signed_for_another_log(void **state)
{
	struct fixture *f = *state;

	append_signed(f, 5);
	assert_int_equal(unlink(path_of(f, "log")), 0);
	assert_int_equal(unlink(path_of(f, "state")), 0);
	assert_int_equal(open_all(f), -1);
	assert_non_null(strstr(f->err.msg, "of another log"));
}

static void
nothing_is_signed_anew_where_a_checkpoint_is_gone(void **state)
{
	struct fixture *f = *state;

	open_well(f);
	append(f, 5, "test");
	sign(f);
	append(f, 1, "keytrail.checkpoint");
	close_all(f, true);
	assert_int_equal(unlink(path_of(f, "checkpoint")), 0);
	assert_int_equal(open_all(f), -1);
	assert_non_null(strstr(f->err.msg, "the checkpoint is gone"));
}

static void
the_thread_signs_when_it_is_time_and_at_the_stop(void **state)
{
	struct fixture *f = *state;
	const struct timespec pause = { 0, 20 * CLOCK_NS_PER_MS };

	open_well(f);
	append(f, 5, "test");
	assert_int_equal(ledger_start(f->l, &f->err), 0);
	for (unsigned i = 0; i < 500 && atomic_load(&f->told) < 5; i++)
		nanosleep(&pause, NULL);
	assert_int_equal(atomic_load(&f->told), 5);
	append(f, 3, "test");
	ledger_stop(f->l);
	assert_signed(f, 8);
	assert_true(atomic_load(&f->told) <= 8);
}

/* As after a removal that has made room. */
static void
who_wakes_the_thread_has_it_try_again_at_once(void **state)
{
	struct fixture *f = *state;
	const struct timespec pause = { 0, 20 * CLOCK_NS_PER_MS };
	char why[ERR_MSG_MAX] = "";
	int fd;

	open_well(f);
	append(f, 5, "test");
	tempdir_remove(path_of(f, "tile"));
	fd = open(path_of(f, "tile"), O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd != -1);
	close(fd);
	assert_int_equal(ledger_start(f->l, &f->err), 0);
	for (unsigned i = 0; i < 500 && why[0] == '\0'; i++) {
		ledger_refusal(f->l, why, sizeof(why));
		nanosleep(&pause, NULL);
	}
	assert_string_not_equal(why, "");
	assert_int_equal(unlink(path_of(f, "tile")), 0);
	ledger_wake(f->l);
	for (unsigned i = 0; i < 250 && atomic_load(&f->told) < 5; i++)
		nanosleep(&pause, NULL);
	assert_int_equal(atomic_load(&f->told), 5);
	assert_true(ledger_stop(f->l));
}

/* A line that tells of a range, as the journal does; its number. */
static uint64_t
append_range(struct fixture *f, const char *action, uint64_t first, uint64_t last)
{
	char text[200];
	uint64_t seq;

	snprintf(text, sizeof(text),
	    "{\"action\":\"%s\",\"details\":{\"first\":%" PRIu64 ",\"last\":%" PRIu64 "}", action,
	    first, last);
	assert_int_equal(trail_append(f->t, slice_of(text), clock_wall_ns(), &seq, &f->err), 0);
	append(f, 1, "test");
	return seq;
}

static void
append_expiry(struct fixture *f, uint64_t first, uint64_t last)
{
	trail_expiry_recorded(f->t, append_range(f, "keytrail.expire", first, last));
}

/* Of the tiles those that were not synced are gone: of their lines none has expired.  An empty file in
 * front of the line that tells of the expiry does not hide it. */
static void
lines_expire_when_their_tiles_are_durable(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;
	char name[40];
	int fd;

	open_well(f);
	for (unsigned i = 0; i < 20; i++)
		append(f, i == 0 ? 48 : 50, "test");
	assert_int_equal(ledger_keep_seq(f->l), 1);
	assert_int_equal(trail_expirable(f->t, INT64_MAX, 0, 512, &first, &last, &f->err), 0);
	assert_in_range(last, 257, 511);
	append_expiry(f, first, last);
	sign(f);
	assert_int_equal(ledger_keep_seq(f->l), 769);
	assert_int_equal(ledger_settled(f->l, first, last), 0);
	assert_int_equal(ledger_settle(f->l, &f->err), 0);
	assert_int_equal(ledger_settled(f->l, first, last), last);
	assert_int_equal(trail_expire(f->t, INT64_MAX, 0, last + 1, &first, &last, &f->err), 0);
	close_all(f, false);
	snprintf(name, sizeof(name), "%020d.jsonl", 999);
	fd = open(path_of(f, name), O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd != -1);
	close(fd);
	assert_int_equal(unlink(path_of(f, "tile/0/002")), 0);
	assert_int_equal(unlink(path_of(f, "tile/0/003.p/232")), 0);
	assert_int_equal(unlink(path_of(f, "tile/1/000.p/3")), 0);
	open_well(f);
	append(f, 1, "test");
	sign(f);
	assert_int_equal(access(path_of(f, "tile/0/002"), F_OK), 0);
	close_all(f, false);
	assert_int_equal(unlink(path_of(f, "tile/0/001")), 0);
	assert_int_equal(open_all(f), -1);
}

static void
an_expiry_that_no_signed_line_tells_of_ends_the_log(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;

	open_well(f);
	for (unsigned i = 0; i < 20; i++)
		append(f, 50, "test");
	sign(f);
	assert_int_equal(trail_expirable(f->t, INT64_MAX, 0, 512, &first, &last, &f->err), 0);
	append_expiry(f, first, last);
	assert_int_equal(trail_expire(f->t, INT64_MAX, 0, last + 1, &first, &last, &f->err), 0);
	assert_true(first == 1 && last > 0);
	close_all(f, false);
	assert_int_equal(open_all(f), -1);
	assert_string_equal(f->found.unfit, "signed lines are gone or altered");
	assert_int_equal(f->found.first, 1);
	assert_int_equal(f->found.last, last);
}

/* Segments that a line says stay, after the one that the state page names has said that they go. */
static void
an_expiry_that_was_taken_back_ends_the_log(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;

	open_well(f);
	for (unsigned i = 0; i < 20; i++)
		append(f, 50, "test");
	assert_int_equal(trail_expirable(f->t, INT64_MAX, 0, 512, &first, &last, &f->err), 0);
	append_expiry(f, first, last);
	append_range(f, "keytrail.keep", first, last);
	sign(f);
	assert_int_equal(trail_expire(f->t, INT64_MAX, 0, last + 1, &first, &last, &f->err), 0);
	close_all(f, false);
	assert_int_equal(open_all(f), -1);
	assert_string_equal(f->found.unfit, "signed lines are gone or altered");
}

static double
cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* With VERBOSE in the environment: what 700-byte lines cost the ledger and the verifier. */
static void
cost_of_a_line(void **state)
{
	enum { LINES = 200000 };
	struct fixture *f = *state;
	struct verify_opts opts = { .dir = f->dir, .keys = &f->key, .nkeys = 1, .anchors_fd = -1 };
	struct verify_report report;
	char line[600], head[] = "{\"action\":\"";
	uint64_t seq;
	double from;

	if (getenv("VERBOSE") == NULL)
		skip();
	memset(line, 'x', sizeof(line));
	memcpy(line, head, sizeof(head) - 1);
	line[sizeof(line) - 1] = '"';
	open_well(f);
	for (unsigned i = 0; i < LINES; i++)
		assert_int_equal(trail_append(f->t, (struct slice){ line, sizeof(line) },
				     clock_wall_ns(), &seq, &f->err),
		    0);
	assert_int_equal(trail_write(f->t, &f->err), 0);
	assert_int_equal(trail_sync(f->t, &f->err), 0);
	from = cpu_ns();
	assert_int_equal(ledger_advance(f->l, &f->err), 0);
	print_message("ledger: %.0f ns a line\n", (cpu_ns() - from) / LINES);
	from = cpu_ns();
	assert_int_equal(ledger_sign(f->l, &f->err), 0);
	print_message("a checkpoint: %.0f us\n", (cpu_ns() - from) / 1000);
	from = cpu_ns();
	assert_int_equal(verify_trail(&opts, &report, &f->err), 0);
	print_message("verify: %.0f ns a line\n", (cpu_ns() - from) / LINES);
	assert_int_equal(report.unaltered, VERIFY_YES);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(tiles_have_the_paths_of_the_specification),
		TEST(what_is_signed_is_the_tree_of_the_lines),
		TEST(a_tree_of_more_than_one_level_of_full_tiles_is_right),
		TEST(partial_tiles_go_when_the_full_one_is_there),
		TEST(a_start_goes_on_where_the_last_one_ended),
		TEST(tiles_that_are_gone_are_made_again),
		TEST(who_signed_the_lines_vouches_for_them),
		TEST(a_line_that_was_altered_ends_the_log_and_what_was_signed_stays),
		TEST(what_is_signed_is_the_line_that_was_recorded),
		TEST(what_could_not_be_synced_is_signed_as_it_was_appended_again),
		TEST(after_a_failure_the_lines_are_read),
		TEST(without_tiles_and_lines_a_new_log_begins),
		TEST(a_segment_that_vanished_ends_the_log),
		TEST(numbers_that_were_signed_are_not_used_again),
		TEST(a_number_without_a_line_is_an_empty_entry),
		TEST(another_key_is_refused_unless_the_old_one_hands_over),
		TEST(a_forged_checkpoint_ends_the_log),
		TEST(nothing_is_signed_for_another_log),
		TEST(nothing_is_signed_anew_where_a_checkpoint_is_gone),
		TEST(the_thread_signs_when_it_is_time_and_at_the_stop),
		TEST(who_wakes_the_thread_has_it_try_again_at_once),
		TEST(lines_expire_when_their_tiles_are_durable),
		TEST(an_expiry_that_no_signed_line_tells_of_ends_the_log),
		TEST(an_expiry_that_was_taken_back_ends_the_log),
		TEST(cost_of_a_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
