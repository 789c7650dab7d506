/*
 * proof: that one line is in the log, in a file of its own (C2SP tlog-proof): the index, the hashes
 * from the line's sibling to the root, and the checkpoint.  Checked with the line and the log's key
 * alone.  Pure; any thread.
 */
#ifndef KEYTRAIL_PROOF_H
#define KEYTRAIL_PROOF_H

#include "keytrail/checkpoint.h"

#define PROOF_FILE_MAX 16384

struct proof {
	uint64_t index; /* from zero: the event's number less one and the log's base */
	size_t n;
	struct merkle_hash hashes[MERKLE_PROOF_MAX];
	struct slice note; /* borrowed from the text */
};

int proof_write(const struct proof *p, struct buf *out, struct err *err);
int proof_parse(struct slice text, struct proof *out, struct err *err);

/* The line (without its newline) is entry p->index of the log of the checkpoint, which a key has
 * signed for a log of its own. */
enum proof_verdict {
	PROOF_GOOD,
	PROOF_UNKNOWN, /* the checkpoint is of no key that is known, or of no log of it */
	PROOF_WRONG,
};
enum proof_verdict proof_check(const struct proof *p, struct slice line,
    const struct checkpoint_key *keys, size_t nkeys, struct checkpoint *out, struct err *err);

#endif
