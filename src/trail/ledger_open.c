/* Opening: the key, the checkpoint that is there, and the tree that it signs. */
#include "keytrail/fault.h"
#include "keytrail/file.h"
#include "keytrail/rotation.h"
#include "ledger_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COMPARED_MAX 65536 /* of the lines that were signed, so many are read at a start */

/* ---- files ---- */

int
ledger_read_checkpoint(int dirfd, struct buf *out, struct err *err)
{
	return file_load(dirfd, "checkpoint", CHECKPOINT_NOTE_MAX + 1, out, err);
}

/* Did the key that signed the checkpoint hand over to ours?  1, 0, -1. */
static int
is_handed_over(struct ledger *l, struct err *err)
{
	struct rotation r;
	enum checkpoint_verdict v;
	int rc = rotation_read_file(l->files.dirfd, &l->rotation, err);

	if (rc != 1)
		return rc;
	v = rotation_read(buf_slice(&l->rotation), &r, err);
	if (v == CHECKPOINT_GOOD && rotation_leads_to(&r, checkpoint_signer_key(l->signer)))
		v = checkpoint_read(buf_slice(&l->note), &r.old, 1, &l->last, err);
	else if (v == CHECKPOINT_GOOD)
		return 0;
	if (v == CHECKPOINT_UNCHECKED)
		return -1;
	return v == CHECKPOINT_GOOD && strcmp(l->last.origin, r.origin) == 0;
}

static int
read_signed(struct ledger *l, struct err *err)
{
	struct err why;
	int rc;

	switch (checkpoint_read(
	    buf_slice(&l->note), checkpoint_signer_key(l->signer), 1, &l->last, &why)) {
	case CHECKPOINT_GOOD:
		return 1;
	case CHECKPOINT_UNCHECKED:
		return err_set(err, "the checkpoint that is there: %s", why.msg);
	case CHECKPOINT_UNSIGNED:
		if ((rc = is_handed_over(l, err)) == 0)
			err_set(err,
			    "another key has signed the last checkpoint; \"keytrail rotate-key\" "
			    "hands over from it to this one. If nobody has changed the key, "
			    "somebody "
			    "put the checkpoint there: put it aside, and the start will tell");
		return rc;
	default:
		l->last.size = 0;
		err_prefix(&why, "the checkpoint that is there");
		memcpy(l->unfit, why.msg, sizeof(l->unfit));
		return 1;
	}
}

int
ledger_look(struct ledger *l, struct err *err)
{
	int rc;

	l->files.dirfd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->files.dirfd == -1) {
		if (errno == ENOENT)
			return 1;
		return err_set_errno(err, "%s: open", l->dir);
	}
	if ((rc = ledger_read_checkpoint(l->files.dirfd, &l->note, err)) == 0)
		return 1;
	if (rc == 1 && (rc = read_signed(l, err)) == 1)
		return 1;
	err_prefix(err, "%s", l->dir);
	return rc;
}

static int
refuse(struct ledger *l, struct err *err, const char *why)
{
	pthread_mutex_lock(&l->lock);
	snprintf(l->refusal, sizeof(l->refusal), "%s", why);
	pthread_mutex_unlock(&l->lock);
	return err_set(err, "%s: %s; nothing is signed", l->dir, why);
}

/* ---- making and freeing ---- */

int
ledger_new(const struct ledger_opts *opts, struct ledger **out, struct err *err)
{
	struct ledger *l;

	if ((l = calloc(1, sizeof(*l))) == NULL)
		return err_set_errno(err, "ledger");
	l->opts = *opts;
	l->files.dirfd = -1;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->wake, NULL);
	if ((l->dir = strdup(opts->dir)) == NULL ||
	    (l->batch = merkle_batch_new(TRAIL_LINE_MAX)) == NULL) {
		err_set_errno(err, "ledger");
		goto fail;
	}
	if ((l->signer = checkpoint_signer_parse(opts->key, err)) == NULL)
		goto fail;
	*out = l;
	return 0;
fail:
	ledger_free(l);
	return -1;
}

void
ledger_free(struct ledger *l)
{
	if (l == NULL)
		return;
	merkle_batch_free(l->batch);
	buf_fini(&l->note);
	buf_fini(&l->rotation);
	checkpoint_signer_free(l->signer);
	if (l->files.dirfd != -1)
		close(l->files.dirfd);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	free(l->dir);
	free(l);
}

const char *
ledger_signed_log(const struct ledger *l)
{
	const char *slash = strrchr(l->last.origin, '/');

	return l->last.size > 0 && slash != NULL ? slash + 1 : NULL;
}

uint64_t
ledger_signed_size(const struct ledger *l)
{
	return l->last.size;
}

struct slice
ledger_signed_note(const struct ledger *l)
{
	return buf_slice(&l->note);
}

struct slice
ledger_rotation(const struct ledger *l)
{
	return buf_slice(&l->rotation);
}

uint64_t
ledger_covered(const struct ledger *l)
{
	return atomic_load(&l->covered);
}

void
ledger_key_name(const struct ledger *l, char *out, size_t n)
{
	const struct checkpoint_key *k = checkpoint_signer_key(l->signer);

	snprintf(out, n, "signed by %s+%08" PRIx32, k->name, k->id);
}

void
ledger_key_text(const struct ledger *l, char out[CHECKPOINT_KEY_MAX])
{
	checkpoint_key_text(checkpoint_signer_key(l->signer), out);
}

/* ---- the tree that was signed ---- */

static bool
is_signed(const struct ledger *l)
{
	struct merkle_hash root;

	tiles_tree_root(&l->tree, &root);
	return l->tree.size == l->last.size && merkle_equal(&root, &l->last.root);
}

static int
load_tile(struct ledger *l, unsigned width, struct err *err)
{
	struct merkle_hash row[MERKLE_TILE_WIDTH];

	if (tiles_read(&l->files, 0, l->tree.size / MERKLE_TILE_WIDTH, width, row, err) == -1)
		return -1;
	for (unsigned i = 0; i < width; i++)
		if (tiles_tree_append(&l->tree, &l->files, TILES_REPAIR, &row[i], err) == -1)
			return -1;
	return 0;
}

/* So many leaves from the tiles of level 0; those above are made good. */
static int
load_leaves(struct ledger *l, uint64_t size, struct err *err)
{
	l->tree.size = 0;
	while (l->tree.size < size) {
		uint64_t left = size - l->tree.size;

		if (load_tile(l, left < MERKLE_TILE_WIDTH ? (unsigned)left : MERKLE_TILE_WIDTH,
			err) == -1)
			return -1;
	}
	return 0;
}

/* The number of the first line that is there: 1, 0, -1. */
static int
find_first(struct ledger *l, uint64_t *seq, struct err *err)
{
	struct trail_reader *r;
	struct slice line;
	int rc;

	if (trail_reader_open_at(l->files.dirfd, l->base + 1, &r, err) == -1)
		return -1;
	rc = trail_reader_next(r, &line, seq, err);
	trail_reader_close(r);
	return rc;
}

/* How many leaves, whole tiles of them, only the tiles have: the lines have expired. */
static int
count_expired(struct ledger *l, uint64_t *n, struct err *err)
{
	uint64_t seq;
	int rc = find_first(l, &seq, err);

	*n = 0;
	if (rc == 1 && seq <= l->base + l->last.size)
		*n = (seq - 1 - l->base + MERKLE_TILE_WIDTH - 1) / MERKLE_TILE_WIDTH *
		     MERKLE_TILE_WIDTH;
	return rc == -1 ? -1 : 0;
}

/* As it can be after a power cut: only the tiles of what has expired are certain to be there. */
static int
load_lines(struct ledger *l, enum tiles_policy policy, struct err *err)
{
	uint64_t expired;

	if (count_expired(l, &expired, err) == -1 ||
	    load_leaves(l, expired < l->last.size ? expired : l->last.size, err) == -1)
		return -1;
	return ledger_take_lines(l, policy, l->last.size, err);
}

/* Nothing of what is there is overwritten before the lines are known to be those that were signed. */
static int
load_signed(struct ledger *l, bool clean, struct err *err)
{
	if (clean && tiles_tree_load(&l->tree, &l->files, l->last.size, err) == 0 && is_signed(l))
		return 0;
	if (load_leaves(l, l->last.size, err) == 0 && is_signed(l))
		return tiles_tree_write_edge(&l->tree, &l->files, 0, err);
	if (load_lines(l, TILES_NONE, err) == -1)
		return -1;
	if (!is_signed(l))
		return refuse(
		    l, err, "neither the tiles nor the lines lead to the root that was signed");
	if (load_lines(l, TILES_WRITE, err) == -1)
		return -1;
	return tiles_tree_write_edge(&l->tree, &l->files, 0, err);
}

/* Of a run that had signed it, or the last one, which had ended well and so must have. */
static void
note_checkpoint(const struct ledger *l, struct slice line, bool *told, bool *due)
{
	if (trail_line_kind(line) == LEAF_CHECKPOINT)
		*told = true;
	if (slice_has_prefix(line, SLICE("{\"action\":\"keytrail.start\"")))
		*due = l->clean && memmem(line.p, line.n, "\"signing\":\"none\"", 16) == NULL;
}

/* No checkpoint is left: where there was one, nobody may sign another of its size. */
static int
check_unsigned(struct ledger *l, struct err *err)
{
	struct trail_reader *r;
	struct slice line;
	bool told = false, due = false;
	uint64_t seq;
	int rc;

	if (trail_reader_open_at(l->files.dirfd, l->base + 1, &r, err) == -1)
		return -1;
	while (!told && (rc = trail_reader_next(r, &line, &seq, err)) == 1 && seq <= l->unsearched)
		note_checkpoint(l, line, &told, &due);
	trail_reader_close(r);
	if (told || (due && rc != -1))
		return refuse(l, err, "the checkpoint is gone, but the log had one");
	if (rc != -1)
		l->unsearched = 0;
	return rc == -1 ? -1 : 0;
}

int
ledger_load(struct ledger *l, bool clean, struct err *err)
{
	l->tree.size = 0;
	if (l->last.size > 0 ? load_signed(l, clean, err) == -1
			     : (l->unsearched > 0 && check_unsigned(l, err) == -1))
		return -1;
	l->others = 0;
	l->loaded = true;
	return 0;
}

/* ---- what opening finds ---- */

struct comparison {
	struct ledger *l;
	struct ledger_findings *out;
	uint64_t end; /* highest number that was signed */
	struct merkle_hash row[MERKLE_TILE_WIDTH];
	uint64_t tile;
};

static void
widen(struct comparison *c, uint64_t seq)
{
	if (c->out->first == 0 || seq < c->out->first)
		c->out->first = seq;
	if (seq > c->out->last)
		c->out->last = seq;
}

/* The hash that was signed for a number, or NULL. */
static const struct merkle_hash *
signed_hash(struct comparison *c, uint64_t seq, struct err *err)
{
	uint64_t index = seq - 1 - c->l->base, tile = index / MERKLE_TILE_WIDTH;
	uint64_t left = c->l->last.size - tile * MERKLE_TILE_WIDTH;

	if (tile != c->tile &&
	    tiles_read(&c->l->files, 0, tile,
		left < MERKLE_TILE_WIDTH ? (unsigned)left : MERKLE_TILE_WIDTH, c->row, err) == -1)
		return NULL;
	c->tile = tile;
	return &c->row[index % MERKLE_TILE_WIDTH];
}

/* Numbers without lines: only those may be that were signed so. */
static int
compare_void(struct comparison *c, uint64_t first, uint64_t last, struct err *err)
{
	struct merkle_hash none;

	merkle_leaf(SLICE_EMPTY, &none);
	for (uint64_t seq = first; seq <= last && seq <= c->end; seq++) {
		const struct merkle_hash *h = signed_hash(c, seq, err);

		if (h == NULL)
			return -1;
		if (!merkle_equal(h, &none))
			widen(c, seq);
	}
	return 0;
}

static int
compare_line(struct comparison *c, struct slice line, uint64_t seq, struct err *err)
{
	const struct merkle_hash *h = signed_hash(c, seq, err);
	struct merkle_hash leaf;

	if (h == NULL)
		return -1;
	merkle_leaf(line, &leaf);
	c->out->checked++;
	if (!merkle_equal(&leaf, h))
		widen(c, seq);
	return 0;
}

static int
compare_last_lines(struct comparison *c, struct err *err)
{
	uint64_t from = c->l->last.size > COMPARED_MAX ? c->end - COMPARED_MAX + 1 : c->l->base + 1;
	uint64_t expect = 0, seq;
	struct trail_reader *r;
	struct slice line;
	int rc;

	if (trail_reader_open_at(c->l->files.dirfd, from, &r, err) == -1)
		return -1;
	while ((rc = trail_reader_next(r, &line, &seq, err)) == 1 && seq <= c->end) {
		if ((expect != 0 && compare_void(c, expect, seq - 1, err) == -1) ||
		    compare_line(c, line, seq, err) == -1) {
			rc = -1;
			break;
		}
		expect = seq + 1;
	}
	trail_reader_close(r);
	if (rc == -1)
		return -1;
	return expect != 0 ? compare_void(c, expect, c->end, err) : 0;
}

/* What precedes the first line has expired, or was taken away. */
static int
compare_beginning(struct comparison *c, const struct trail *t, struct err *err)
{
	uint64_t from = trail_expired(t) > c->l->base ? trail_expired(t) : c->l->base, seq;
	int rc = find_first(c->l, &seq, err);

	return rc == 1 ? compare_void(c, from + 1, seq - 1, err) : rc;
}

static int
compare(struct ledger *l, const struct trail *t, const struct trail_recovery *rec,
    struct ledger_findings *out, struct err *err)
{
	struct comparison c = {
		.l = l, .out = out, .end = l->base + l->last.size, .tile = UINT64_MAX
	};
	uint64_t first, last;

	out->first = out->last = out->checked = 0;
	if (compare_last_lines(&c, err) == -1 || compare_beginning(&c, t, err) == -1 ||
	    trail_find_gap(t, l->base, &first, &last, err) == -1)
		return -1;
	if (first > 0 && compare_void(&c, first, last, err) == -1)
		return -1;
	if (rec->missing_last <= l->base)
		return 0;
	first = rec->missing_first > l->base ? rec->missing_first : l->base + 1;
	return compare_void(&c, first, rec->missing_last, err);
}

static int
unfit(struct ledger_findings *out, const char *why)
{
	snprintf(out->unfit, sizeof(out->unfit), "%s", why);
	return 0;
}

static int
find_origin(struct ledger *l, const struct trail *t, struct err *err)
{
	l->trail = t;
	l->leaves = trail_leaves(t);
	if (l->files.dirfd == -1 &&
	    (l->files.dirfd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: open", l->dir);
	snprintf(l->origin, sizeof(l->origin), "%s/%s", checkpoint_signer_key(l->signer)->name,
	    trail_log_id(t));
	l->base = trail_log_base(t);
	return 0;
}

static void
set_covered(struct ledger *l)
{
	atomic_store(&l->covered, l->last.size > 0 ? l->base + l->last.size : 0);
}

static int
open_tree(struct ledger *l, const struct trail *t, const struct trail_recovery *rec,
    struct ledger_findings *out, struct err *err)
{
	if (find_origin(l, t, err) == -1)
		return -1;
	set_covered(l);
	if (l->unfit[0] != '\0')
		return unfit(out, l->unfit);
	if (l->last.size > 0 && strcmp(l->last.origin, l->origin) != 0)
		return unfit(out, "the checkpoint that is there is of another log");
	if (rec->missing_last - rec->missing_first >= LEDGER_VOID_MAX)
		return unfit(out, "more numbers are skipped than a log ever loses");
	l->clean = rec->clean;
	l->unsearched = trail_last_seq(t);
	if (ledger_load(l, rec->clean, err) == -1)
		return ledger_is_refused(l) ? unfit(out, l->refusal) : -1;
	if (l->last.size == 0 || l->trusts)
		return 0;
	if (compare(l, t, rec, out, err) == -1 || out->last > 0) {
		/* Perhaps it is the tile. */
		if (ledger_load(l, false, err) == -1)
			return ledger_is_refused(l) ? unfit(out, l->refusal) : -1;
		if (compare(l, t, rec, out, err) == -1)
			return -1;
	}
	return out->last > 0 ? unfit(out, "signed lines are gone or altered") : 0;
}

void
ledger_trust(struct ledger *l)
{
	l->trusts = true;
}

int
ledger_open(struct ledger *l, const struct trail *t, const struct trail_recovery *rec,
    struct ledger_findings *out, struct err *err)
{
	struct err why;

	*out = (struct ledger_findings){ .unfit = "" };
	if (open_tree(l, t, rec, out, err) == 0) {
		if (out->unfit[0] != '\0')
			refuse(l, &why, out->unfit);
		return 0;
	}
	ledger_set_trouble(l, err->msg);
	return -1;
}

/* ---- a new log ---- */

/* Under a name that is free: what was put aside before is evidence too. */
static int
put_aside(struct ledger *l, const char *name, const char *log, struct err *err)
{
	char aside[TRAIL_ID_SIZE + 32];
	unsigned n = 1;

	snprintf(aside, sizeof(aside), "%s.%s", name, log);
	while (faccessat(l->files.dirfd, aside, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		snprintf(aside, sizeof(aside), "%s.%s.%u", name, log, ++n);
	if (renameat(l->files.dirfd, name, l->files.dirfd, aside) == -1 && errno != ENOENT)
		return err_set_errno(err, "%s: put %s aside", l->dir, name);
	return 0;
}

/* Of which log the checkpoint is that is there; "" when it does not say. */
static void
find_signed_log(const struct ledger *l, char out[TRAIL_ID_SIZE])
{
	struct checkpoint cp;
	const char *slash;

	out[0] = '\0';
	if (checkpoint_peek(buf_slice(&l->note), &cp) &&
	    (slash = strrchr(cp.origin, '/')) != NULL && trail_is_id(slash + 1))
		memcpy(out, slash + 1, TRAIL_ID_SIZE);
}

/* A start that was killed had put it there. */
static void
find_old_note(struct ledger *l, const char *log)
{
	char name[TRAIL_ID_SIZE + 32];
	struct err err;

	snprintf(name, sizeof(name), "checkpoint.%s", log);
	buf_consume(&l->note, buf_size(&l->note));
	file_load(l->files.dirfd, name, CHECKPOINT_NOTE_MAX + 1, &l->note, &err);
}

static int
put_all_aside(struct ledger *l, const char *log, struct err *err)
{
	if (put_aside(l, "checkpoint", log, err) == -1)
		return -1;
	FAULT_POINT("renew.within_aside");
	if (put_aside(l, "tile", log, err) == -1 || put_aside(l, "rotation", log, err) == -1)
		return -1;
	FAULT_POINT("renew.after_aside");
	l->last.size = 0;
	l->unsearched = 0;
	return 0;
}

int
ledger_begin(struct ledger *l, const struct trail *t, struct err *err)
{
	const char *given_up = trail_log_given_up(t);
	char old[TRAIL_ID_SIZE];
	bool begun;

	if (find_origin(l, t, err) == -1)
		return -1;
	find_signed_log(l, old);
	begun = strcmp(old, trail_log_id(t)) == 0;
	if (old[0] == '\0')
		strcpy(old, given_up[0] != '\0' ? given_up : "unknown");
	if (!begun && put_all_aside(l, old, err) == -1)
		return -1;
	if (begun || buf_size(&l->note) == 0)
		find_old_note(l, given_up);
	set_covered(l);
	if (l->last.size > 0)
		return 0;
	pthread_mutex_lock(&l->lock);
	l->refusal[0] = '\0';
	pthread_mutex_unlock(&l->lock);
	return ledger_load(l, true, err);
}
