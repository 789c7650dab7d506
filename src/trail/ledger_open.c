/* Opening: the key, the checkpoint that is there, and the tree that it signs. */
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
	ssize_t n;
	int fd;

	if ((fd = openat(dirfd, "checkpoint", O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open checkpoint");
	if (buf_reserve(out, CHECKPOINT_NOTE_MAX + 1) == -1 ||
	    (n = read(fd, buf_tail(out), CHECKPOINT_NOTE_MAX + 1)) == -1) {
		close(fd);
		return err_set_errno(err, "read checkpoint");
	}
	close(fd);
	buf_commit(out, (size_t)n);
	return 1;
}

static int
read_last(struct ledger *l, struct err *err)
{
	struct buf note = BUF_INIT;
	struct err why;
	int rc = ledger_read_checkpoint(l->files.dirfd, &note, err);

	if (rc == 1 && checkpoint_read(buf_slice(&note), checkpoint_signer_key(l->signer), 1,
			   &l->last, &why) != CHECKPOINT_GOOD) {
		l->foreign = true;
		l->last.size = 0;
	}
	buf_fini(&note);
	atomic_store(&l->covered, l->last.size);
	return rc == -1 ? -1 : 0;
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
	if ((l->dir = strdup(opts->dir)) == NULL) {
		err_set_errno(err, "ledger");
		goto fail;
	}
	if ((l->signer = checkpoint_signer_parse(opts->key, err)) == NULL)
		goto fail;
	l->files.dirfd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->files.dirfd == -1 && errno != ENOENT) {
		err_set_errno(err, "%s: open", l->dir);
		goto fail;
	}
	if (l->files.dirfd != -1 && read_last(l, err) == -1)
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
	ledger_drop_reader(l);
	checkpoint_signer_free(l->signer);
	if (l->files.dirfd != -1)
		close(l->files.dirfd);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	free(l->dir);
	free(l);
}

uint64_t
ledger_signed_size(const struct ledger *l)
{
	return l->last.size;
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

/* From all tiles of level 0; those above are made good. */
static int
load_leaves(struct ledger *l, struct err *err)
{
	struct merkle_hash row[MERKLE_TILE_WIDTH];
	uint64_t size = l->last.size;

	l->tree.size = 0;
	while (l->tree.size < size) {
		uint64_t left = size - l->tree.size;
		unsigned width = left < MERKLE_TILE_WIDTH ? (unsigned)left : MERKLE_TILE_WIDTH;

		if (tiles_read(&l->files, 0, l->tree.size / MERKLE_TILE_WIDTH, width, row, err) ==
		    -1)
			return -1;
		for (unsigned i = 0; i < width; i++)
			if (tiles_tree_append(&l->tree, &l->files, TILES_REPAIR, &row[i], err) ==
			    -1)
				return -1;
	}
	return 0;
}

static int
load_lines(struct ledger *l, enum tiles_policy policy, struct err *err)
{
	l->tree.size = 0;
	ledger_drop_reader(l);
	return ledger_take_lines(l, policy, l->last.size, err);
}

/* Nothing of what is there is overwritten before the lines are known to be those that were signed. */
static int
load_signed(struct ledger *l, bool clean, struct err *err)
{
	if (clean && tiles_tree_load(&l->tree, &l->files, l->last.size, err) == 0 && is_signed(l))
		return 0;
	if (load_leaves(l, err) == 0 && is_signed(l))
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

int
ledger_load(struct ledger *l, bool clean, struct err *err)
{
	ledger_drop_reader(l);
	l->tree.size = 0;
	if (l->last.size > 0 && load_signed(l, clean, err) == -1)
		return -1;
	ledger_drop_reader(l);
	l->others = 0;
	l->loaded = true;
	return 0;
}

/* ---- what opening finds ---- */

static int
compare_lines(struct ledger *l, struct ledger_findings *out, struct err *err)
{
	struct merkle_source source = { l->last.size, tiles_read, &l->files };
	struct merkle_hash row[MERKLE_TILE_WIDTH], leaf;
	uint64_t size = source.size, tile = UINT64_MAX, seq;
	struct trail_reader *r;
	struct slice line;
	int rc;

	if (trail_reader_open(l->dir, size > COMPARED_MAX ? size - COMPARED_MAX + 1 : 1, &r, err) ==
	    -1)
		return -1;
	while ((rc = trail_reader_next(r, &line, &seq, err)) == 1 && seq <= size) {
		uint64_t first = (seq - 1) / MERKLE_TILE_WIDTH * MERKLE_TILE_WIDTH;
		unsigned width =
		    size - first < MERKLE_TILE_WIDTH ? (unsigned)(size - first) : MERKLE_TILE_WIDTH;

		if (first != tile &&
		    tiles_read(&l->files, 0, first / MERKLE_TILE_WIDTH, width, row, err) == -1) {
			rc = -1;
			break;
		}
		tile = first;
		merkle_leaf(line, &leaf);
		out->checked++;
		if (merkle_equal(&leaf, &row[seq - 1 - first]))
			continue;
		out->altered_first = out->altered_first == 0 ? seq : out->altered_first;
		out->altered_last = seq;
	}
	trail_reader_close(r);
	return rc == -1 ? -1 : 0;
}

/* Where no checkpoint is left, a line about one tells that there was one. */
static int
look_for_checkpoints(struct ledger *l, struct err *err)
{
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;
	int rc;

	if (trail_reader_open(l->dir, 0, &r, err) == -1)
		return -1;
	while ((rc = trail_reader_next(r, &line, &seq, err)) == 1)
		if (ledger_is_own(line)) {
			rc = refuse(l, err, "the checkpoint is gone, but the log had one");
			break;
		}
	trail_reader_close(r);
	return rc;
}

static int
open_tree(struct ledger *l, const struct trail *t, bool clean, struct ledger_findings *out,
    struct err *err)
{
	if (l->files.dirfd == -1 &&
	    (l->files.dirfd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: open", l->dir);
	snprintf(l->origin, sizeof(l->origin), "%s/%s", checkpoint_signer_key(l->signer)->name,
	    trail_log_id(t));
	if (l->foreign)
		return refuse(l, err, "the checkpoint that is there is not signed by this key");
	if (l->last.size == 0)
		return look_for_checkpoints(l, err) == -1 ? -1 : ledger_load(l, clean, err);
	if (strcmp(l->last.origin, l->origin) != 0)
		return refuse(l, err, "the checkpoint that is there is of another log");
	if (l->last.size > trail_durable_seq(t))
		return refuse(l, err, "the trail is shorter than its checkpoint");
	if (ledger_load(l, clean, err) == -1)
		return -1;
	if (compare_lines(l, out, err) == 0 && out->altered_first == 0)
		return 0;
	/* Perhaps it is the tile. */
	if (ledger_load(l, false, err) == -1)
		return -1;
	*out = (struct ledger_findings){ 0 };
	return compare_lines(l, out, err);
}

int
ledger_open(struct ledger *l, const struct trail *t, bool clean, struct ledger_findings *out,
    struct err *err)
{
	struct err why;

	*out = (struct ledger_findings){ 0 };
	if (open_tree(l, t, clean, out, err) == 0)
		return 0;
	if (!ledger_is_refused(l))
		refuse(l, &why, err->msg);
	return -1;
}
