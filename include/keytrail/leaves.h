/*
 * leaves: the hashes of the newest lines of the trail, on their way from the journal to the ledger.
 *
 * A line is hashed when it is appended, while it is in the cache, and as it was recorded: what
 * somebody makes of the file meanwhile does not get into the tree.  There is room for LEAVES_MAX;
 * lines for which there was none the ledger reads from the trail.  One writer and one reader, each in
 * its thread; nobody waits.
 */
#ifndef KEYTRAIL_LEAVES_H
#define KEYTRAIL_LEAVES_H

#include "keytrail/merkle.h"

#define LEAVES_MAX 16384

struct leaves;

/* What the ledger must know of a line besides. */
enum leaf_kind {
	LEAF_EVENT,
	LEAF_CHECKPOINT, /* tells of a checkpoint */
	LEAF_EXPIRE,	 /* tells of what goes or stays: soon to be signed */
};

struct leaf {
	struct merkle_hash hash;
	enum leaf_kind kind;
};

struct leaves *leaves_new(size_t line_max); /* NULL when memory is short */
void leaves_free(struct leaves *l);	    /* NULL is allowed */

/* The writer.  A line, at most `line_max` bytes, without its newline.  Numbers ascend; those that are
 * not durable may come again, and the last line of a number counts. */
void leaves_add(struct leaves *l, uint64_t seq, enum leaf_kind kind, struct slice line);
/* All that were added can be taken: before the lines count as durable. */
void leaves_flush(struct leaves *l);

/* The reader, of durable lines.  False: it is not here.  Lower numbers are not asked for again. */
bool leaves_have(const struct leaves *l, uint64_t seq);
bool leaves_take(struct leaves *l, uint64_t seq, struct leaf *out);

#endif
