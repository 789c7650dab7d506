/*
 * merkle: the hash tree of RFC 6962 section 2.1 over the lines of the log, and its proofs.
 *
 * A leaf is SHA-256(0x00 || entry), an inner node SHA-256(0x01 || left || right).  Entries are
 * counted from zero.  Pure; any thread, one tree a thread.  Proofs are made from the hashes of tiles
 * (C2SP tlog-tiles: level l, index n, up to 256 hashes of complete subtrees of 256^l leaves), which
 * the caller hands in through a function.
 */
#ifndef KEYTRAIL_MERKLE_H
#define KEYTRAIL_MERKLE_H

#include "keytrail/err.h"
#include "keytrail/slice.h"

#define MERKLE_HASH_SIZE  32
#define MERKLE_PROOF_MAX  64 /* hashes of an inclusion proof */
#define MERKLE_CHAIN_MAX  65 /* hashes of a consistency proof */
#define MERKLE_TILE_WIDTH 256
#define MERKLE_LEVELS	  8 /* of tiles, at most */

struct merkle_hash {
	unsigned char b[MERKLE_HASH_SIZE];
};

/* SHA-256, which cannot fail. */
void merkle_hash_of(const void *p, size_t n, struct merkle_hash *out);
void merkle_leaf(struct slice entry, struct merkle_hash *out);
void merkle_node(
    const struct merkle_hash *left, const struct merkle_hash *right, struct merkle_hash *out);
/* Leaves of up to MERKLE_BATCH entries together cost half of what they cost one by one.  An entry, of
 * at most `entry_max` bytes, is copied. */
#define MERKLE_BATCH 16
struct merkle_batch;
struct merkle_batch *merkle_batch_new(size_t entry_max); /* NULL when memory is short */
void merkle_batch_free(struct merkle_batch *b);		 /* NULL is allowed */
/* How many there are now. */
unsigned merkle_batch_add(struct merkle_batch *b, struct slice entry);
/* Their hashes, in order, and how many; the batch is empty then. */
unsigned merkle_batch_finish(struct merkle_batch *b, struct merkle_hash out[MERKLE_BATCH]);

bool merkle_equal(const struct merkle_hash *a, const struct merkle_hash *b);

/* The root over n <= MERKLE_TILE_WIDTH hashes of equal height; of no hashes SHA-256(""). */
void merkle_root_of(const struct merkle_hash *hashes, size_t n, struct merkle_hash *out);

/* ---- a tree that grows, by its right edge alone ---- */

struct merkle_tree {
	uint64_t size;
	struct merkle_hash
	    edge[64]; /* [k]: the complete subtree of 2^k leaves, where size has bit k */
};

#define MERKLE_TREE_INIT ((struct merkle_tree){ .size = 0 })

void merkle_append(struct merkle_tree *t, const struct merkle_hash *leaf);
void merkle_root(const struct merkle_tree *t, struct merkle_hash *out);

/* ---- proofs from tiles ---- */

/* Fill out with the first `width` hashes of a tile. */
typedef int (*merkle_tile_fn)(void *arg, unsigned level, uint64_t index, unsigned width,
    struct merkle_hash *out, struct err *err);

struct merkle_source {
	uint64_t size; /* of the tree whose tiles these are */
	merkle_tile_fn tile;
	void *arg;
};

/* The root of the first `size` leaves. */
int merkle_source_root(
    const struct merkle_source *s, uint64_t size, struct merkle_hash *out, struct err *err);

/* That entry `index` is in the tree of `size` leaves: its sibling first. */
int merkle_prove_inclusion(const struct merkle_source *s, uint64_t index, uint64_t size,
    struct merkle_hash proof[MERKLE_PROOF_MAX], size_t *n, struct err *err);
/* That the tree of `from` leaves is the beginning of that of `size`; 0 < from <= size. */
int merkle_prove_consistency(const struct merkle_source *s, uint64_t from, uint64_t size,
    struct merkle_hash proof[MERKLE_CHAIN_MAX], size_t *n, struct err *err);

/* RFC 9162 sections 2.1.3.2 and 2.1.4.2. */
bool merkle_verify_inclusion(const struct merkle_hash *leaf, uint64_t index, uint64_t size,
    const struct merkle_hash *proof, size_t n, const struct merkle_hash *root);
bool merkle_verify_consistency(uint64_t from, const struct merkle_hash *from_root, uint64_t size,
    const struct merkle_hash *root, const struct merkle_hash *proof, size_t n);

#endif
