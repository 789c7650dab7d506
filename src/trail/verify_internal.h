/*
 * verify_internal: the state of a verification, shared by the walk through the lines (verify.c),
 * the numbers that have none (verify_gaps.c) and what is known from checkpoints besides the one in
 * the directory: those kept elsewhere, those that the lines tell of, and changes of keys
 * (verify_anchors.c).
 */
#ifndef KEYTRAIL_VERIFY_INTERNAL_H
#define KEYTRAIL_VERIFY_INTERNAL_H

#include "keytrail/tiles.h"
#include "keytrail/trail.h"
#include "keytrail/verify.h"

#define MISSING_MAX 64 /* ranges of numbers that are remembered to the end */

struct range {
	uint64_t from, to;
};

/* Numbers that a signed line says expire, and do not. */
struct kept {
	struct range r;
	char hold[TRAIL_HOLD_NAME_SIZE]; /* that covers them; "": the log says so itself */
	char at[TRAIL_TIME_SIZE];	 /* when they were said to expire */
};

/* A checkpoint that was kept elsewhere. */
struct anchor {
	uint64_t size;
	struct merkle_hash root;
};

struct check {
	const struct verify_opts *opts;
	struct verify_report *report;
	struct tiles files;
	struct checkpoint cp;
	struct checkpoint_key signer; /* of cp */
	const struct trail_log *log;
	uint64_t end; /* the number of the last line that cp covers */
	struct anchor *anchors;
	size_t nanchors, next_anchor;
	uint64_t foreign; /* anchors of other logs of a known key */
	uint64_t expect;  /* the next number */
	struct merkle_tree tree;
	bool broken; /* a hash is missing: the tree cannot be had */
	/* of the tiles, level 0 */
	struct merkle_hash row[MERKLE_TILE_WIDTH];
	uint64_t row_index;
	bool row_there, tiles_gone;
	/* damage that no number explains yet */
	uint64_t bad, bad_segment, bad_at;
	uint64_t foreign_segment, foreign_end; /* of the last lines of another log */
	/* numbers that have no line, though they had one: perhaps the log says, further on, that they
	 * have expired */
	struct range missing[MISSING_MAX];
	size_t nmissing;
	/* numbers that never had a line in what was signed, of which no signed line has said why */
	struct range voids[MISSING_MAX];
	size_t nvoids;
	uint64_t expire_last; /* signed lines say that up to here all has expired; */
	uint64_t claim_last;  /* others say so up to here */
	struct kept kept[MISSING_MAX];
	size_t nkept;
	struct trail_hold holds[TRAIL_HOLDS_MAX]; /* in force, as signed lines say */
	size_t nholds;
	struct range tampered[MISSING_MAX]; /* the log says that they were taken away */
	size_t ntampered;
	uint64_t recorded; /* largest checkpoint in the lines, */
	uint64_t recorder; /* and the number of the line */
	/* As the lines tell; id 0 and no name: unknown. */
	struct checkpoint_key current;	   /* that is to sign, */
	struct checkpoint_key signed_last; /* that has */
	uint64_t rotated;		   /* the line of the last change between them */
	uint64_t differ, differ_first;	   /* lines that are not as the tiles say */
	uint64_t last_line;
};

/* Add a finding; it has its part in the verdicts. */
void verify_find(struct check *c, enum verify_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A note that one of the given keys has signed; which one. */
bool verify_read_note(const struct check *c, struct slice note, struct checkpoint *out,
    struct checkpoint_key *signer, enum checkpoint_verdict *v, struct err *err);

/* The hash that the tiles have for a number, or NULL. */
const struct merkle_hash *verify_tile_hash(struct check *c, uint64_t seq);
void verify_append_hash(struct check *c, const struct merkle_hash *h);

/* ---- verify_gaps ---- */

/* The numbers from c->expect to this one have no line. */
void verify_skip(struct check *c, uint64_t to);
/* A line that may say why others are gone. */
void verify_note_removal(struct check *c, struct slice line, bool is_signed);
void verify_judge_gaps(struct check *c);

/* ---- verify_kept ---- */

/* A signed line that may say that lines expire, stay or are held. */
void verify_note_expiry(struct check *c, struct slice line);
/* Why there must be lines for some of these numbers, whatever says that they have expired; the first
 * that are to be there.  Or NULL. */
const char *verify_find_kept(const struct check *c, struct range r, struct range *out);

/* ---- verify_anchors ---- */

int verify_read_elsewhere(struct check *c, struct err *err);
/* The tree has reached another size. */
void verify_meet_anchors(struct check *c);
void verify_judge_anchors(struct check *c);
/* A line that may tell of a checkpoint or of a change of keys. */
void verify_note_line(struct check *c, struct slice line, uint64_t seq);
void verify_judge_signer(struct check *c);

#endif
