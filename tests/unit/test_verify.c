/*
 * A small trail of several segments, signed three times, and every way to cheat that we know of.
 */
#include "keytrail/verify.h"

#include "keytrail/base64.h"
#include "keytrail/clock.h"
#include "keytrail/crc32c.h"
#include "keytrail/ledger.h"
#include "keytrail/trail.h"
#include "tempdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <cmocka.h>

#define SEGMENT	   4096
#define LINES	   100
#define SIGNED_ONE 30
#define SIGNED_TWO 60

struct fixture {
	char dir[TEMPDIR_SIZE];
	char secret[CHECKPOINT_KEY_MAX];
	struct checkpoint_key key;
	struct trail *t;
	struct trail_recovery rec;
	struct ledger *l;
	struct buf note;  /* signed last */
	struct buf one;	  /* the checkpoint of SIGNED_ONE events */
	struct buf two;	  /* and of SIGNED_TWO */
	struct buf state; /* the state page of that time */
	struct buf all;	  /* and of LINES */
	struct buf extra; /* for struct verify_opts */
	struct verify_opts opts;
	struct verify_report report;
	struct err err;
};

/* ---- making the trail ---- */

static void
on_signed(void *arg, uint64_t size, struct slice note)
{
	struct fixture *f = arg;

	(void)size;
	buf_consume(&f->note, buf_size(&f->note));
	buf_append_slice(&f->note, note);
}

static void
open_trail(struct fixture *f)
{
	struct trail_opts topts = {
		.dir = f->dir, .create = true, .hashed = true, .segment_size = SEGMENT
	};

	if (trail_open(&topts, &f->t, &f->rec, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	trail_recovery_recorded(f->t, &f->err);
}

static void
open_ledger(struct fixture *f)
{
	struct ledger_opts lopts = {
		.dir = f->dir, .key = slice_of(f->secret), .signed_ = on_signed, .arg = f
	};
	struct ledger_findings found;

	if (ledger_new(&lopts, &f->l, &f->err) == -1 || ledger_look(f->l, &f->err) != 1 ||
	    ledger_open(f->l, f->t, &f->rec, &found, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

static void
append(struct fixture *f, const char *line)
{
	uint64_t seq;

	if (trail_append(f->t, slice_of(line), clock_wall_ns(), &seq, &f->err) == -1 ||
	    trail_write(f->t, &f->err) == -1 || trail_sync(f->t, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

static void
append_to(struct fixture *f, uint64_t last)
{
	char line[200];

	while (trail_last_seq(f->t) < last) {
		snprintf(line, sizeof(line),
		    "{\"action\":\"kms.secrets.unwrap\",\"id\":\"id-%" PRIu64 "\"",
		    trail_last_seq(f->t) + 1);
		append(f, line);
	}
}

static void
sign(struct fixture *f, struct buf *keep)
{
	if (ledger_advance(f->l, &f->err) == -1 || ledger_sign(f->l, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	buf_consume(keep, buf_size(keep));
	buf_append_slice(keep, buf_slice(&f->note));
}

/* As the journal records it. */
static void
append_checkpoint(struct fixture *f)
{
	char text[1000], line[1200];
	struct slice note = buf_slice(&f->note);
	size_t n = base64_encode(note.p, note.n, text);

	snprintf(line, sizeof(line),
	    "{\"action\":\"keytrail.checkpoint\",\"details\":{\"note\":\"%.*s\"}", (int)n, text);
	append(f, line);
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

static char *
path_of(const struct fixture *f, const char *name)
{
	static char path[TEMPDIR_SIZE + 300];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return path;
}

static void
keep_state(struct fixture *f)
{
	char page[8192];
	FILE *file = fopen(path_of(f, "state"), "re");

	assert_non_null(file);
	assert_int_equal(buf_append(&f->state, page, fread(page, 1, sizeof(page), file)), 0);
	fclose(file);
}

static void
make_trail(struct fixture *f)
{
	open_trail(f);
	open_ledger(f);
	append_to(f, SIGNED_ONE);
	sign(f, &f->one);
	append_checkpoint(f);
	append_to(f, SIGNED_TWO);
	sign(f, &f->two);
	keep_state(f);
	append_checkpoint(f);
	append_to(f, LINES);
	sign(f, &f->all);
	close_all(f, true);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	new_key(f);
	make_trail(f);
	f->opts =
	    (struct verify_opts){ .dir = f->dir, .keys = &f->key, .nkeys = 1, .anchors_fd = -1 };
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	struct buf *bufs[] = { &f->note, &f->one, &f->two, &f->state, &f->all, &f->extra };

	close_all(f, false);
	tempdir_remove(f->dir);
	for (size_t i = 0; i < sizeof(bufs) / sizeof(bufs[0]); i++)
		buf_fini(bufs[i]);
	free(f);
	return 0;
}

/* ---- tools of a cheat ---- */

/* The first number of the segment that holds this event, or of the last one. */
static uint64_t
segment_of(const struct fixture *f, uint64_t seq)
{
	DIR *d = opendir(f->dir);
	const struct dirent *e;
	uint64_t best = 0;

	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		uint64_t first = strtoull(e->d_name, NULL, 10);

		if (strstr(e->d_name, ".jsonl") != NULL && first <= seq && first > best)
			best = first;
	}
	closedir(d);
	return best;
}

static char *
segment_path(const struct fixture *f, uint64_t seq)
{
	char name[40];

	snprintf(name, sizeof(name), "%020" PRIu64 ".jsonl", segment_of(f, seq));
	return path_of(f, name);
}

struct text {
	char p[4 * SEGMENT];
	size_t n;
};

static void
load(const char *path, struct text *t)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, t->p, sizeof(t->p) - 1);

	assert_true(n >= 0);
	t->n = (size_t)n;
	t->p[n] = '\0';
	close(fd);
}

static void
store(const char *path, struct slice s)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);

	assert_int_equal(write(fd, s.p, s.n), s.n);
	close(fd);
}

static void
store_text(const char *path, const struct text *t)
{
	store(path, (struct slice){ t->p, t->n });
}

/* The line of an event, with its newline. */
static struct slice
line_in(const struct text *t, uint64_t seq)
{
	char key[40];
	const char *at, *from = t->p, *end;

	snprintf(key, sizeof(key), ",\"seq\":%" PRIu64 ",", seq);
	at = strstr(t->p, key);
	assert_non_null(at);
	while ((end = strchr(from, '\n')) < at)
		from = end + 1;
	return (struct slice){ from, (size_t)(end - from) + 1 };
}

static void
cut_out(struct text *t, struct slice s)
{
	char *at = t->p + (s.p - t->p);

	memmove(at, at + s.n, t->n - (size_t)(at - t->p) - s.n);
	t->n -= s.n;
	t->p[t->n] = '\0';
}

static void
put_in(struct text *t, size_t at, struct slice s)
{
	memmove(t->p + at + s.n, t->p + at, t->n - at);
	memcpy(t->p + at, s.p, s.n);
	t->n += s.n;
	t->p[t->n] = '\0';
}

/* The line's sum made good. */
static void
reseal(struct text *t, struct slice line)
{
	char sum[9], *end = t->p + (line.p - t->p) + line.n - 1;

	snprintf(sum, sizeof(sum), "%08x",
	    crc32c(0, line.p, line.n - 1 - strlen(",\"sum\":\"12345678\"}}")));
	memcpy(end - 11, sum, 8);
}

static void
set_checkpoint(struct fixture *f, const struct buf *note)
{
	store(path_of(f, "checkpoint"), buf_slice(note));
}

/* ---- the ways to cheat; numbers are those of the trail above ---- */

static void
nothing(struct fixture *f)
{
	(void)f;
}

static void
edit(struct fixture *f)
{
	struct text t;

	load(segment_path(f, 40), &t);
	*strstr(line_in(&t, 40).p, "unwrap") = 'e';
	store_text(segment_path(f, 40), &t);
}

static void
edit_and_reseal(struct fixture *f)
{
	struct text t;

	load(segment_path(f, 40), &t);
	*strstr(line_in(&t, 40).p, "unwrap") = 'e';
	reseal(&t, line_in(&t, 40));
	store_text(segment_path(f, 40), &t);
}

static void
edit_reseal_and_hash(struct fixture *f)
{
	edit_and_reseal(f);
	close_all(f, true);
	tempdir_remove(path_of(f, "tile"));
}

static void
remove_line(struct fixture *f)
{
	struct text t;

	load(segment_path(f, 40), &t);
	cut_out(&t, line_in(&t, 40));
	store_text(segment_path(f, 40), &t);
}

/* A line less, and all that follow one number down. */
static void
remove_and_renumber(struct fixture *f)
{
	uint64_t first = segment_of(f, 40), seq = 41;
	struct text t;

	load(segment_path(f, 40), &t);
	cut_out(&t, line_in(&t, 40));
	for (; segment_of(f, seq) == first; seq++) {
		struct slice line = line_in(&t, seq);
		char key[40], *at = strstr(line.p, "\"seq\":");

		snprintf(key, sizeof(key), "%" PRIu64, seq - 1);
		assert_int_equal(strlen(key), 2);
		memcpy(at + 6, key, 2);
		reseal(&t, line);
	}
	store_text(segment_path(f, 40), &t);
}

static void
insert_copy(struct fixture *f)
{
	struct text t;
	char copy[1000];
	struct slice line;

	load(segment_path(f, 40), &t);
	line = line_in(&t, 40);
	memcpy(copy, line.p, line.n);
	put_in(&t, (size_t)(line.p - t.p) + line.n, (struct slice){ copy, line.n });
	store_text(segment_path(f, 40), &t);
}

static void
insert_junk(struct fixture *f)
{
	struct text t;

	load(segment_path(f, 40), &t);
	put_in(
	    &t, (size_t)(line_in(&t, 40).p - t.p), SLICE("{\"action\":\"kms.secrets.delete\"}\n"));
	store_text(segment_path(f, 40), &t);
}

/* A line whose number the segment does not reach, forged from its own one of that number. */
static void
forge_later_line(struct fixture *f, uint64_t from, bool at_end)
{
	struct text t;
	char copy[1000];
	struct slice line;
	size_t at;

	load(segment_path(f, 1), &t);
	line = line_in(&t, from);
	memcpy(copy, line.p, line.n);
	at = at_end ? t.n : (size_t)(line.p - t.p) + line.n;
	put_in(&t, at, (struct slice){ copy, line.n });
	memcpy(strstr(t.p + at, "\"seq\":") + 6, "90", 2);
	reseal(&t, (struct slice){ t.p + at, line.n });
	store_text(segment_path(f, 1), &t);
}

static void
insert_line_of_a_later_segment(struct fixture *f)
{
	forge_later_line(f, 10, false);
}

static void
append_line_of_a_later_segment(struct fixture *f)
{
	forge_later_line(f, 10, true);
}

static void
append_copy_of_the_next_line(struct fixture *f)
{
	struct text t, next;
	struct slice line;

	load(segment_path(f, 1), &t);
	load(segment_path(f, 40), &next);
	line = line_in(&next, segment_of(f, 40));
	put_in(&t, t.n, line);
	store_text(segment_path(f, 1), &t);
}

static void
append_junk(struct fixture *f)
{
	struct text t;

	load(segment_path(f, 1), &t);
	put_in(&t, t.n, SLICE("{\"action\":\"kms.secrets.delete\"}\n"));
	store_text(segment_path(f, 1), &t);
}

static void
append_junk_and_put_some_before_the_next(struct fixture *f)
{
	uint64_t next = segment_of(f, 40);
	struct text t;

	append_junk(f);
	load(segment_path(f, next), &t);
	put_in(&t, 0, SLICE("junk\n"));
	store_text(segment_path(f, next), &t);
}

static void
swap_lines(struct fixture *f)
{
	struct text t;
	char copy[1000];
	struct slice line;

	load(segment_path(f, 40), &t);
	line = line_in(&t, 40);
	memcpy(copy, line.p, line.n);
	cut_out(&t, line);
	line.p = line_in(&t, 41).p + line_in(&t, 41).n;
	put_in(&t, (size_t)(line.p - t.p), (struct slice){ copy, line.n });
	store_text(segment_path(f, 40), &t);
}

static void
cut_tail(struct fixture *f)
{
	struct text t;

	load(segment_path(f, LINES), &t);
	t.n = (size_t)(line_in(&t, LINES).p - t.p);
	store_text(segment_path(f, LINES), &t);
}

/* The last segment goes, and the state that remembers it; then keytrail ran without a key. */
static void
cut_tail_and_forget(struct fixture *f)
{
	assert_int_equal(unlink(segment_path(f, LINES)), 0);
	assert_int_equal(unlink(path_of(f, "state")), 0);
	open_trail(f);
	close_all(f, true);
}

static void
remove_segment(struct fixture *f)
{
	assert_int_equal(unlink(segment_path(f, 40)), 0);
}

static void
remove_first_segment(struct fixture *f)
{
	assert_int_equal(unlink(segment_path(f, 1)), 0);
}

static void
remove_checkpoint(struct fixture *f)
{
	assert_int_equal(unlink(path_of(f, "checkpoint")), 0);
}

static void
strip_checkpoint(struct fixture *f)
{
	struct text t;

	load(path_of(f, "checkpoint"), &t);
	t.n = (size_t)(strstr(t.p, "\n\n") - t.p) + 2;
	store_text(path_of(f, "checkpoint"), &t);
}

static void
edit_checkpoint(struct fixture *f)
{
	struct text t;

	load(path_of(f, "checkpoint"), &t);
	*strstr(t.p, "\n100\n") = '\n';
	memcpy(strstr(t.p, "\n100\n") + 1, "099", 3);
	store_text(path_of(f, "checkpoint"), &t);
}

static void
shrink_checkpoint(struct fixture *f)
{
	struct text t;

	load(path_of(f, "checkpoint"), &t);
	cut_out(&t, (struct slice){ strstr(t.p, "\n100\n") + 1, 1 });
	store_text(path_of(f, "checkpoint"), &t);
}

static void
roll_checkpoint_back(struct fixture *f)
{
	set_checkpoint(f, &f->one);
}

static void
roll_checkpoint_back_to_the_last_recorded(struct fixture *f)
{
	set_checkpoint(f, &f->two);
}

static void
take_checkpoint_of_another_key(struct fixture *f)
{
	struct checkpoint_key key = f->key;
	char dir[TEMPDIR_SIZE];

	memcpy(dir, f->dir, sizeof(dir));
	tempdir_make(f->dir);
	new_key(f);
	make_trail(f);
	tempdir_remove(f->dir);
	memcpy(f->dir, dir, sizeof(dir));
	f->key = key;
	set_checkpoint(f, &f->all);
}

static void
take_checkpoint_of_another_log(struct fixture *f)
{
	char dir[TEMPDIR_SIZE];

	memcpy(dir, f->dir, sizeof(dir));
	tempdir_make(f->dir);
	make_trail(f);
	tempdir_remove(f->dir);
	memcpy(f->dir, dir, sizeof(dir));
	set_checkpoint(f, &f->all);
}

static void
ask_with_another_key(struct fixture *f)
{
	new_key(f);
}

static void
remove_tiles(struct fixture *f)
{
	tempdir_remove(path_of(f, "tile"));
}

static void
damage_tile(struct fixture *f)
{
	struct text t;

	load(path_of(f, "tile/0/000.p/100"), &t);
	t.p[39 * 32] ^= 1;
	store_text(path_of(f, "tile/0/000.p/100"), &t);
}

static void
remove_line_and_tiles(struct fixture *f)
{
	remove_line(f);
	remove_tiles(f);
}

/* Every byte of the directory as it was at the second checkpoint. */
static void
roll_all_back(struct fixture *f)
{
	struct text t;

	while (segment_of(f, LINES) > SIGNED_TWO)
		assert_int_equal(unlink(segment_path(f, LINES)), 0);
	load(segment_path(f, LINES), &t);
	if (strstr(t.p, ",\"seq\":61,") != NULL)
		t.n = (size_t)(line_in(&t, SIGNED_TWO + 1).p - t.p);
	store_text(segment_path(f, LINES), &t);
	store(path_of(f, "state"), buf_slice(&f->state));
	set_checkpoint(f, &f->two);
	open_trail(f);
	close_all(f, true);
}

static void
give_anchors(struct fixture *f)
{
	struct slice text = buf_slice(&f->extra);

	if (f->opts.anchors_fd != -1)
		close(f->opts.anchors_fd);
	f->opts.anchors_fd = memfd_create("anchors", MFD_CLOEXEC);
	assert_int_equal(pwrite(f->opts.anchors_fd, text.p, text.n, 0), text.n);
}

static void
roll_all_back_with_since(struct fixture *f)
{
	roll_all_back(f);
	f->opts.since = buf_slice(&f->all);
	f->opts.has_since = true;
}

static void
add_anchor(struct fixture *f, const struct buf *note, const char *opening, const char *end)
{
	char text[1000];
	struct slice s = buf_slice(note);
	size_t n = base64_encode(s.p, s.n, text);

	buf_printf(&f->extra, "%s%.*s%s\n", opening, (int)n, text, end);
	give_anchors(f);
}

static void
roll_all_back_with_anchors(struct fixture *f)
{
	roll_all_back(f);
	add_anchor(
	    f, &f->one, "{\"action\":\"keytrail.checkpoint\",\"details\":{\"note\":\"", "\"}}");
	add_anchor(f, &f->all, "{\"event\":\"checkpoint\",\"message\":\"size 100 note=", "\"}");
}

static void
give_good_since(struct fixture *f)
{
	f->opts.since = buf_slice(&f->one);
	f->opts.has_since = true;
}

static void
give_good_anchors(struct fixture *f)
{
	buf_printf(&f->extra, "a line of something else\n");
	add_anchor(
	    f, &f->two, "{\"action\":\"keytrail.checkpoint\",\"details\":{\"note\":\"", "\"}}");
	add_anchor(f, &f->one, "{\"event\":\"checkpoint\",\"message\":\"size 30 note=", "\"}");
}

static void
give_no_anchors(struct fixture *f)
{
	buf_printf(&f->extra, "a line of something else\n");
	give_anchors(f);
}

/* A log of the same name that says otherwise: two histories were signed. */
static void
give_since_of_another_history(struct fixture *f)
{
	struct checkpoint_signer *s = checkpoint_signer_parse(slice_of(f->secret), &f->err);
	struct checkpoint cp;

	assert_int_equal(
	    checkpoint_read(buf_slice(&f->one), &f->key, 1, &cp, &f->err), CHECKPOINT_GOOD);
	cp.root.b[0] ^= 1;
	assert_int_equal(checkpoint_write(s, &cp, &f->extra, &f->err), 0);
	checkpoint_signer_free(s);
	f->opts.since = buf_slice(&f->extra);
	f->opts.has_since = true;
}

static void
write_beyond_the_mark(struct fixture *f)
{
	struct text t;

	load(segment_path(f, LINES), &t);
	put_in(&t, t.n, SLICE("{\"half of a li"));
	store_text(segment_path(f, LINES), &t);
}

/* The writer is at work: lines after the checkpoint, and one on its way. */
static void
go_on_writing(struct fixture *f)
{
	uint64_t seq;

	open_trail(f);
	append_to(f, LINES + 40);
	assert_int_equal(trail_append(f->t, SLICE("{\"a\":1"), clock_wall_ns(), &seq, &f->err), 0);
	assert_int_equal(trail_write(f->t, &f->err), 0);
}

static void
edit_after_the_checkpoint(struct fixture *f)
{
	struct text t;

	go_on_writing(f);
	load(segment_path(f, LINES + 20), &t);
	*strstr(line_in(&t, LINES + 20).p, "unwrap") = 'e';
	store_text(segment_path(f, LINES + 20), &t);
}

static void
forget_state(struct fixture *f)
{
	assert_int_equal(unlink(path_of(f, "state")), 0);
}

#define YES VERIFY_YES
#define NO  VERIFY_NO
#define DNK VERIFY_UNKNOWN

static const struct {
	const char *label;
	void (*cheat)(struct fixture *);
	enum verify_verdict unaltered, complete;
	bool cannot_tell;
	const char *words; /* in one of the findings; NULL: there are none */
} cases[] = {
	{ "nothing was done", nothing, YES, YES, false, NULL },
	{ "a line was edited", edit, NO, NO, false, "event 40: damaged" },
	{ "a line was edited and its sum made good", edit_and_reseal, NO, YES, false,
	    "event 40 is not the line that was signed" },
	{ "the same, and the tiles are gone", edit_reseal_and_hash, NO, YES, false,
	    "do not lead to the root that was signed" },
	{ "a line was removed", remove_line, YES, NO, false, "event 40: the line is gone" },
	{ "a line was removed and the others renumbered", remove_and_renumber, NO, NO, false,
	    "event 40 is not the line that was signed" },
	{ "a line was copied", insert_copy, NO, YES, false,
	    "a line with number 40 stands where 41 belongs" },
	{ "a line without a number was inserted", insert_junk, NO, YES, false,
	    "bytes that are no line of the log" },
	{ "a line of a later segment was inserted", insert_line_of_a_later_segment, NO, YES, false,
	    "a line with number 90, which belongs to a later segment" },
	{ "the same, behind a segment's last line", append_line_of_a_later_segment, NO, YES, false,
	    "a line with number 90, which belongs to a later segment" },
	{ "a copy of the next segment's first line stands there", append_copy_of_the_next_line, NO,
	    YES, false, ", which belongs to a later segment" },
	{ "a line without a number stands there", append_junk, DNK, YES, true,
	    "a power cut may have left them" },
	{ "the same, and more of it at the next one's start",
	    append_junk_and_put_some_before_the_next, NO, YES, false,
	    ", offset 0: bytes that are no line of the log" },
	{ "two lines were swapped", swap_lines, NO, NO, false,
	    "a line with number 40 stands where 42 belongs" },
	{ "the tail was cut", cut_tail, YES, NO, false, "event 100: the line is gone" },
	{ "the tail was cut and the state forgotten", cut_tail_and_forget, NO, YES, false,
	    "the checkpoint is of the log " },
	{ "a segment was removed", remove_segment, YES, NO, false, ": the line is gone" },
	{ "the first segment was removed", remove_first_segment, YES, NO, false,
	    "the log does not say that it expired" },
	{ "the checkpoint was removed", remove_checkpoint, DNK, DNK, true,
	    "there is no checkpoint" },
	{ "the checkpoint was stripped", strip_checkpoint, DNK, DNK, true, "not a signed note" },
	{ "the checkpoint was edited", edit_checkpoint, NO, DNK, false,
	    "the checkpoint is forged" },
	{ "its size was made smaller", shrink_checkpoint, NO, DNK, false,
	    "the checkpoint is forged" },
	{ "the checkpoint was rolled back", roll_checkpoint_back, NO, NO, false,
	    "the checkpoint was rolled back: it covers 30 events" },
	{ "it was rolled back to the last one recorded", roll_checkpoint_back_to_the_last_recorded,
	    YES, NO, false, "events 61 to 100 are not signed" },
	{ "it is of another key", take_checkpoint_of_another_key, DNK, DNK, true,
	    "no signature of a key that was given" },
	{ "it is of another log", take_checkpoint_of_another_log, NO, YES, false,
	    "the checkpoint is of the log" },
	{ "another key was asked for", ask_with_another_key, DNK, DNK, true,
	    "no signature of a key that was given" },
	{ "the tiles were removed", remove_tiles, YES, YES, false, "tiles are missing" },
	{ "a tile was damaged", damage_tile, YES, YES, false, "tiles are damaged" },
	{ "a line and the tiles were removed", remove_line_and_tiles, DNK, NO, true,
	    "the tree cannot be made" },
	{ "all was rolled back, and nobody remembers", roll_all_back, YES, YES, false, NULL },
	{ "all was rolled back, but for a checkpoint", roll_all_back_with_since, YES, NO, false,
	    "rolled back: a checkpoint of 100 events is kept elsewhere, this one covers 60" },
	{ "all was rolled back, but for anchors", roll_all_back_with_anchors, YES, NO, false,
	    "rolled back: a checkpoint of 100 events" },
	{ "the earlier checkpoint agrees", give_good_since, YES, YES, false, NULL },
	{ "anchors agree", give_good_anchors, YES, YES, false, NULL },
	{ "anchors without a checkpoint", give_no_anchors, YES, YES, true, "hold no checkpoint" },
	{ "two histories were signed", give_since_of_another_history, NO, YES, false,
	    "are not those of a checkpoint kept elsewhere" },
	{ "bytes beyond the mark", write_beyond_the_mark, YES, YES, false, NULL },
	{ "the writer is at work", go_on_writing, YES, YES, false, NULL },
	{ "an edit after the checkpoint", edit_after_the_checkpoint, YES, NO, false,
	    "event 120: no line (they are behind the checkpoint)" },
};

static bool
has_words(const struct verify_report *r, const char *words)
{
	for (size_t i = 0; i < r->nfindings && i < VERIFY_FINDINGS_MAX; i++)
		if (strstr(r->findings[i].text, words) != NULL)
			return true;
	return false;
}

static void
print_report(const struct verify_report *r)
{
	print_message("unaltered %d complete %d cannot tell %d, %" PRIu64 " to %" PRIu64 "\n",
	    r->unaltered, r->complete, r->cannot_tell, r->first, r->last);
	for (size_t i = 0; i < r->nfindings && i < VERIFY_FINDINGS_MAX; i++)
		print_message("  %s\n", r->findings[i].text);
}

static void
every_way_to_cheat_is_told(void **state)
{
	unsigned failed = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		void *own;
		struct fixture *f;
		const struct verify_report *r;

		setup(&own);
		f = own;
		r = &f->report;
		cases[i].cheat(f);
		if (verify_trail(&f->opts, &f->report, &f->err) == -1)
			fail_msg("%s: %s", cases[i].label, f->err.msg);
		if (r->unaltered != cases[i].unaltered || r->complete != cases[i].complete ||
		    r->cannot_tell != cases[i].cannot_tell ||
		    (cases[i].words != NULL ? !has_words(r, cases[i].words) : r->nfindings > 0)) {
			print_message("%s:\n", cases[i].label);
			print_report(r);
			failed++;
		}
		teardown(&own);
	}
	assert_int_equal(failed, 0);
}

static void
the_report_says_what_was_covered(void **state)
{
	struct fixture *f = *state;
	const struct verify_report *r = &f->report;

	give_good_anchors(f);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(r->first, 1);
	assert_int_equal(r->last, LINES);
	assert_int_equal(r->checkpoint.size, LINES);
	assert_int_equal(r->anchors, 2);
	assert_int_equal(r->unsigned_lines, 0);
	go_on_writing(f);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(r->last, LINES);
	assert_int_equal(r->unsigned_lines, 40);
}

/* What the log itself says has expired is no loss; what it does not say is. */
static void
expired_segments_are_no_loss(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;
	char line[200];

	open_trail(f);
	open_ledger(f);
	assert_int_equal(
	    trail_expirable(f->t, 0, 2 * SEGMENT, LINES + 1, &first, &last, &f->err), 0);
	assert_int_equal(first, 1);
	snprintf(line, sizeof(line),
	    "{\"action\":\"keytrail.expire\",\"dataEvent\":false,\"details\":{\"first\":%" PRIu64
	    ",\"last\":%" PRIu64 "}",
	    first, last);
	append(f, line);
	assert_int_equal(trail_expire(f->t, 0, 2 * SEGMENT, last + 1, &first, &last, &f->err), 0);
	sign(f, &f->all);
	close_all(f, true);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.unaltered, VERIFY_YES);
	assert_int_equal(f->report.complete, VERIFY_YES);
	assert_int_equal(f->report.expired, last);
	assert_int_equal(f->report.first, last + 1);
	assert_int_equal(unlink(segment_path(f, last + 1)), 0);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.complete, VERIFY_NO);
}

/* A line with a range, and the first segment's end. */
static uint64_t
append_range(struct fixture *f, const char *action)
{
	uint64_t first, last;
	char line[200];

	assert_int_equal(
	    trail_expirable(f->t, 0, 2 * SEGMENT, LINES + 1, &first, &last, &f->err), 0);
	snprintf(line, sizeof(line),
	    "{\"action\":\"%s\",\"details\":{\"first\":%" PRIu64 ",\"last\":%" PRIu64 "}", action,
	    first, last);
	append(f, line);
	return last;
}

static void
an_expiry_that_is_not_signed_is_not_believed(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;

	open_trail(f);
	last = append_range(f, "keytrail.expire");
	assert_int_equal(trail_expire(f->t, 0, 2 * SEGMENT, last + 1, &first, &last, &f->err), 0);
	close_all(f, false);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.unaltered, VERIFY_YES);
	assert_int_equal(f->report.complete, VERIFY_UNKNOWN);
	assert_true(f->report.cannot_tell);
	assert_true(has_words(&f->report, "what says that it expired is not signed"));
}

static void *
verify_in_thread(void *arg)
{
	struct fixture *f = arg;
	struct err err;

	assert_int_equal(verify_trail(&f->opts, &f->report, &err), 0);
	return NULL;
}

/* The anchors come through a pipe that is full: once there is room in it, the verifier has read the
 * checkpoint. */
static int
give_anchors_slowly(struct fixture *f)
{
	struct slice text = buf_slice(&f->extra);
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(write(fds[1], text.p, text.n), text.n);
	while (write(fds[1], "\n", 1) == 1)
		continue;
	close(f->opts.anchors_fd);
	f->opts.anchors_fd = fds[0];
	return fds[1];
}

static void
what_expires_while_it_is_looked_at_is_no_loss(void **state)
{
	struct fixture *f = *state;
	struct pollfd pipe;
	uint64_t first, last;
	pthread_t thread;

	give_good_anchors(f);
	pipe = (struct pollfd){ .fd = give_anchors_slowly(f), .events = POLLOUT };
	assert_int_equal(pthread_create(&thread, NULL, verify_in_thread, f), 0);
	assert_int_equal(poll(&pipe, 1, -1), 1);
	open_trail(f);
	open_ledger(f);
	last = append_range(f, "keytrail.expire");
	sign(f, &f->all);
	assert_int_equal(trail_expire(f->t, 0, 2 * SEGMENT, last + 1, &first, &last, &f->err), 0);
	close_all(f, false);
	close(pipe.fd);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(f->report.checkpoint.size, LINES);
	assert_int_equal(f->report.unaltered, VERIFY_YES);
	assert_int_equal(f->report.complete, VERIFY_YES);
	assert_int_equal(f->report.expired, last);
}

static void
what_was_taken_away_has_not_expired(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;

	open_trail(f);
	open_ledger(f);
	append_range(f, "keytrail.tamper");
	last = append_range(f, "keytrail.expire");
	assert_int_equal(trail_expire(f->t, 0, 2 * SEGMENT, last + 1, &first, &last, &f->err), 0);
	sign(f, &f->all);
	close_all(f, true);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.unaltered, VERIFY_YES);
	assert_int_equal(f->report.complete, VERIFY_NO);
	assert_true(has_words(&f->report, "the log says that it was taken away"));
}

/* Who takes away what a hold, say, had stay. */
static void
an_expiry_that_was_taken_back_excuses_nothing(void **state)
{
	struct fixture *f = *state;

	open_trail(f);
	open_ledger(f);
	append_range(f, "keytrail.expire");
	append_range(f, "keytrail.keep");
	sign(f, &f->all);
	close_all(f, true);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.complete, VERIFY_YES);
	remove_first_segment(f);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.unaltered, VERIFY_YES);
	assert_int_equal(f->report.complete, VERIFY_NO);
	assert_true(has_words(&f->report, "it was not removed when it expired"));
}

#define HOLD(time, change, range)                                                                  \
	"{\"action\":\"keytrail.hold\",\"details\":{\"change\":\"" change "\"," range              \
	",\"name\":\"case\"},\"eventTime\":\"" time "\""
#define EXPIRED "" /* the first segment does, at 5 */

/* The first segment is gone, though it was held: somebody had the sidecar forget that. */
static void
what_is_held_does_not_expire(void **state)
{
	static const struct {
		const char *lines[3];
		bool complete;
	} rows[] = {
		{ { HOLD("4", "add", "\"first\":3,\"last\":4"), EXPIRED }, false },
		{ { HOLD("4", "found", "\"first\":3,\"last\":4"), EXPIRED }, false },
		{ { HOLD("4", "add", "\"first\":90,\"last\":94"), EXPIRED }, true },
		{ { HOLD("3", "add", "\"first\":3,\"last\":4"),
		      HOLD("4", "remove", "\"first\":3,\"last\":4"), EXPIRED },
		    true },
		{ { EXPIRED, HOLD("6", "add", "\"first\":3,\"last\":4") }, true },
		/* The event of the removal found no room in time. */
		{ { HOLD("3", "add", "\"first\":3,\"last\":4"), EXPIRED,
		      HOLD("4", "remove", "\"first\":3,\"last\":4") },
		    true },
		{ { HOLD("3", "add", "\"first\":3,\"last\":4"), EXPIRED,
		      HOLD("6", "remove", "\"first\":3,\"last\":4") },
		    false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fixture *f;
		uint64_t first, last;
		char expiry[200];

		assert_int_equal(setup(state), 0);
		f = *state;
		open_trail(f);
		open_ledger(f);
		assert_int_equal(
		    trail_expirable(f->t, 0, 2 * SEGMENT, LINES + 1, &first, &last, &f->err), 0);
		snprintf(expiry, sizeof(expiry),
		    "{\"action\":\"keytrail.expire\",\"details\":{\"first\":1,\"last\":%" PRIu64
		    "},\"eventTime\":\"5\"",
		    last);
		for (size_t k = 0; k < 3 && rows[i].lines[k] != NULL; k++) {
			append(f, rows[i].lines[k][0] != '\0' ? rows[i].lines[k] : expiry);
		}
		sign(f, &f->all);
		assert_int_equal(
		    trail_expire(f->t, 0, 2 * SEGMENT, last + 1, &first, &last, &f->err), 0);
		close_all(f, true);
		assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
		if (f->report.complete != (rows[i].complete ? VERIFY_YES : VERIFY_NO) ||
		    (!rows[i].complete &&
			!has_words(&f->report, "though it was held when the log says")))
			fail_msg("row %zu: %s", i, f->report.findings[0].text);
		teardown(state);
	}
}

/* It goes later, as another line says. */
static void
what_was_kept_may_expire_later(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;

	open_trail(f);
	open_ledger(f);
	append_range(f, "keytrail.expire");
	append_range(f, "keytrail.keep");
	sign(f, &f->all);
	last = append_range(f, "keytrail.expire");
	assert_int_equal(trail_expire(f->t, 0, 2 * SEGMENT, last + 1, &first, &last, &f->err), 0);
	/* Not signed yet: nobody can tell. */
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.complete, VERIFY_NO);
	sign(f, &f->all);
	close_all(f, true);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
	assert_int_equal(f->report.complete, VERIFY_YES);
	assert_int_equal(f->report.expired, last);
}

static void
append_signed(struct fixture *f, const char *line)
{
	open_trail(f);
	open_ledger(f);
	append(f, line);
	sign(f, &f->all);
	close_all(f, true);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), 0);
}

static void
losses_are_added_up(void **state)
{
	struct fixture *f = *state;

	append_signed(
	    f, "{\"action\":\"keytrail.loss\",\"details\":{\"actions\":\"a 4\",\"count\":4}");
	append_signed(
	    f, "{\"action\":\"keytrail.loss\",\"details\":{\"count\":3,\"reason\":\"x\"}");
	assert_int_equal(f->report.losses, 7);
	assert_int_equal(f->report.complete, VERIFY_YES);
}

/* The trail goes on, an event of it is gone before it was signed, and the log says so. */
static void
sign_void(struct fixture *f, const char *line)
{
	struct text t;

	open_trail(f);
	append_to(f, LINES + 3);
	close_all(f, false);
	load(segment_path(f, LINES + 2), &t);
	cut_out(&t, line_in(&t, LINES + 2));
	store_text(segment_path(f, LINES + 2), &t);
	append_signed(f, line);
	assert_int_equal(f->report.unaltered, VERIFY_YES);
}

#define DETAILS(action, details) "{\"action\":\"keytrail." action "\",\"details\":{" details "}"

static void
what_a_power_cut_has_torn_is_lost(void **state)
{
	struct fixture *f = *state;

	sign_void(f, DETAILS("recover", "\"tornBytes\":90,\"tornFirst\":102,\"tornLast\":102"));
	assert_int_equal(f->report.complete, VERIFY_YES);
	assert_int_equal(f->report.lost, 1);
	assert_int_equal(f->report.nfindings, 0);
}

static void
a_number_that_was_signed_without_a_line_is_explained_or_missing(void **state)
{
	static const struct {
		const char *line, *words;
	} rows[] = {
		{ DETAILS("stop", ""), "the log does not say why" },
		{ DETAILS("recover", "\"tornBytes\":90"), "the log does not say why" },
		{ DETAILS("recover", "\"tornFirst\":100,\"tornLast\":101"),
		    "the log does not say why" },
		{ DETAILS("expire", "\"first\":1,\"last\":102"), "the log does not say why" },
		{ DETAILS("tamper", "\"first\":102,\"last\":102"),
		    "that it was taken away or damaged" },
		{ DETAILS("corrupt", "\"first\":102,\"last\":102"),
		    "that it was taken away or damaged" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct fixture *f;

		assert_int_equal(setup(state), 0);
		f = *state;
		sign_void(f, rows[i].line);
		assert_int_equal(f->report.complete, VERIFY_NO);
		assert_int_equal(f->report.lost, 0);
		if (!has_words(&f->report, "event 102: ") || !has_words(&f->report, rows[i].words))
			fail_msg("%s: %s", rows[i].line, f->report.findings[0].text);
		teardown(state);
	}
}

/* A statement that only the new key has signed. */
static void
a_change_of_keys_without_the_old_one_is_told(void **state)
{
	struct fixture *f = *state;
	struct checkpoint_key keys[2] = { f->key };
	struct checkpoint_signer *new;
	struct checkpoint cp;
	char text[1200], before[CHECKPOINT_KEY_MAX], after[CHECKPOINT_KEY_MAX], line[2000];
	struct buf note = BUF_INIT;
	size_t n;

	checkpoint_key_text(&f->key, before);
	strcpy(text, f->secret);
	new_key(f);
	keys[1] = f->key;
	checkpoint_key_text(&f->key, after);
	new = checkpoint_signer_parse(slice_of(f->secret), &f->err);
	strcpy(f->secret, text); /* the old key signs the trail on */
	assert_true(checkpoint_peek(buf_slice(&f->all), &cp));
	snprintf(text, sizeof(text), "keytrail.key\n%s\n%s\n%s\n", cp.origin, before, after);
	assert_int_equal(checkpoint_sign(new, slice_of(text), &note, &f->err), 0);
	n = base64_encode(buf_slice(&note).p, buf_size(&note), text);
	snprintf(line, sizeof(line), "{\"action\":\"keytrail.key\",\"details\":{\"note\":\"%.*s\"}",
	    (int)n, text);
	f->opts.keys = keys;
	f->opts.nkeys = 2;
	append_signed(f, line);
	assert_int_equal(f->report.unaltered, VERIFY_NO);
	assert_true(has_words(&f->report, "is not signed by the old key and the new"));
	checkpoint_signer_free(new);
	buf_fini(&note);
}

static void
without_the_state_nothing_is_read(void **state)
{
	struct fixture *f = *state;

	forget_state(f);
	assert_int_equal(verify_trail(&f->opts, &f->report, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "state"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_way_to_cheat_is_told),
		TEST(the_report_says_what_was_covered),
		TEST(expired_segments_are_no_loss),
		TEST(an_expiry_that_is_not_signed_is_not_believed),
		TEST(what_expires_while_it_is_looked_at_is_no_loss),
		TEST(what_was_taken_away_has_not_expired),
		TEST(an_expiry_that_was_taken_back_excuses_nothing),
		cmocka_unit_test(what_is_held_does_not_expire),
		TEST(what_was_kept_may_expire_later),
		TEST(losses_are_added_up),
		TEST(what_a_power_cut_has_torn_is_lost),
		cmocka_unit_test(a_number_that_was_signed_without_a_line_is_explained_or_missing),
		TEST(a_change_of_keys_without_the_old_one_is_told),
		TEST(without_the_state_nothing_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
