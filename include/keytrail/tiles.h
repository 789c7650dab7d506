/*
 * tiles: the files of a tree's hashes, <dir>/tile/<level>/<index>[.p/<width>] (C2SP tlog-tiles).
 *
 * No reader meets half of a file: a new one is written before a checkpoint covers it, and one that is
 * there is replaced by renaming.  Only full tiles of level 0 are ever synced, by tiles_sync: what a
 * power cut takes of the others is made again from those and from the segments.  One writer a
 * directory; any reader.
 */
#ifndef KEYTRAIL_TILES_H
#define KEYTRAIL_TILES_H

#include "keytrail/merkle.h"

#define TILES_PATH_MAX 80

/* The path below the directory; width MERKLE_TILE_WIDTH: of the full tile. */
void tiles_path(unsigned level, uint64_t index, unsigned width, char out[TILES_PATH_MAX]);

struct tiles {
	int dirfd; /* borrowed */
};

/* A merkle_tile_fn; arg is a struct tiles.  A partial tile that is gone is read from the full one. */
int tiles_read(void *arg, unsigned level, uint64_t index, unsigned width, struct merkle_hash *out,
    struct err *err);

/* The partial ones go once the full one is there. */
int tiles_write(const struct tiles *t, unsigned level, uint64_t index, unsigned width,
    const struct merkle_hash *hashes, struct err *err);

/* Make durable, names included, the full tiles of level 0 that a tree of size `since` did not have. */
int tiles_sync(const struct tiles *t, uint64_t since, uint64_t size, struct err *err);

/* ---- a tree that grows, and its files with it ---- */

struct tiles_tree {
	uint64_t size;
	struct merkle_hash row[MERKLE_LEVELS][MERKLE_TILE_WIDTH]; /* of the tiles not full yet */
};

enum tiles_policy {
	TILES_NONE,
	TILES_REPAIR, /* write what is not there as it should be, level 0 excepted */
	TILES_WRITE,
};

/* Writes the tiles that the leaf fills.  After -1 the tree is to be loaded again. */
int tiles_tree_append(struct tiles_tree *t, const struct tiles *files, enum tiles_policy policy,
    const struct merkle_hash *leaf, struct err *err);
void tiles_tree_root(const struct tiles_tree *t, struct merkle_hash *out);
/* The right edge of the tree of this size. */
int tiles_tree_load(
    struct tiles_tree *t, const struct tiles *files, uint64_t size, struct err *err);
/* The partial tiles that a tree of size `since` (0: none) did not have. */
int tiles_tree_write_edge(
    const struct tiles_tree *t, const struct tiles *files, uint64_t since, struct err *err);

#endif
