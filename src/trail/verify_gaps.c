/* Numbers that have no line: what the log says of them, and what it does not. */
#include "verify_internal.h"

#include "keytrail/ledger.h"

#include <inttypes.h>
#include <string.h>

#define SAID_TAMPERED "the line is gone, and the log says that it was taken away or damaged"

static void
say_range(struct check *c, enum verify_kind kind, struct range r, const char *what)
{
	if (r.from == r.to)
		verify_find(c, kind, "event %" PRIu64 ": %s", r.from, what);
	else
		verify_find(c, kind, "events %" PRIu64 " to %" PRIu64 ": %s", r.from, r.to, what);
}

/* ---- what the lines say ---- */

static void
note_expire(struct check *c, struct slice line, bool is_signed)
{
	uint64_t *last = is_signed ? &c->expire_last : &c->claim_last;
	struct trail_range said;

	if (is_signed)
		verify_note_expiry(c, line);
	if (trail_line_range(line, TRAIL_EXPIRE_START, &said) && said.last > *last)
		*last = said.last;
}

static void
note_tamper(struct check *c, struct slice line)
{
	struct trail_range said;

	if (!(trail_line_range(line, TRAIL_TAMPER_START, &said) ||
		trail_line_range(line, TRAIL_CORRUPT_START, &said)) ||
	    said.last == 0)
		return;
	if (c->ntampered < MISSING_MAX)
		c->tampered[c->ntampered++] = (struct range){ said.first, said.last };
	else if (said.first < c->tampered[0].from) /* what expires is all up to a number */
		c->tampered[0].from = said.first;
}

/* Lines that were never promised, which a power cut has torn: told by the start that found them, so
 * behind them. */
static void
note_torn(struct check *c, struct slice line)
{
	struct slice details;
	uint64_t first, last;
	size_t left = 0;

	if (!slice_has_prefix(line, TRAIL_RECOVER_START))
		return;
	details = trail_line_value(line, SLICE("details"));
	if (slice_to_u64(trail_line_value(details, SLICE("tornFirst")), &first) == -1 ||
	    slice_to_u64(trail_line_value(details, SLICE("tornLast")), &last) == -1)
		return;
	for (size_t i = 0; i < c->nvoids; i++) {
		struct range r = c->voids[i];

		if (first <= r.from && r.to <= last)
			c->report->lost += r.to - r.from + 1;
		else
			c->voids[left++] = r;
	}
	c->nvoids = left;
}

void
verify_note_removal(struct check *c, struct slice line, bool is_signed)
{
	note_tamper(c, line);
	if (!is_signed)
		return;
	note_expire(c, line, true);
	note_torn(c, line);
}

/* ---- lines that there were ---- */

static bool
was_tampered(const struct check *c, struct range r)
{
	for (size_t i = 0; i < c->ntampered; i++)
		if (c->tampered[i].from <= r.to && r.from <= c->tampered[i].to)
			return true;
	return false;
}

/* The oldest lines go first.  Asked after the gap was found: what went while we read is gone by now. */
static bool
is_preceded(struct check *c, uint64_t from)
{
	struct trail_reader *r;
	struct slice line;
	struct err err;
	uint64_t seq;
	bool is;

	if (trail_reader_open(c->opts->dir, c->log->base + 1, &r, &err) == -1)
		return false;
	is = trail_reader_next(r, &line, &seq, &err) == 1 && seq < from;
	trail_reader_close(r);
	return is;
}

static void
judge_missing(struct check *c, struct range r)
{
	struct range kept;
	const char *why;
	uint64_t said = c->claim_last > c->expire_last ? c->claim_last : c->expire_last;

	if (was_tampered(c, r)) {
		say_range(c, VERIFY_INCOMPLETE, r, SAID_TAMPERED);
	} else if ((why = verify_find_kept(c, r, &kept)) != NULL) {
		say_range(c, VERIFY_INCOMPLETE, kept, why);
	} else if (r.to > said) {
		say_range(c, VERIFY_INCOMPLETE,
		    (struct range){ r.from > said ? r.from : said + 1, r.to },
		    "the line is gone, and the log does not say that it expired");
	} else if (is_preceded(c, r.from)) {
		say_range(c, VERIFY_INCOMPLETE, r,
		    "the line is gone, but older ones are there: it did not expire");
	} else if (r.to > c->expire_last) {
		say_range(c, VERIFY_CANNOT_TELL, r,
		    "the line is gone, and what says that it expired is not signed");
		if (c->report->complete == VERIFY_YES)
			c->report->complete = VERIFY_UNKNOWN;
	} else if (r.to > c->report->expired) {
		c->report->expired = r.to;
	}
}

static void
miss(struct check *c, struct range r)
{
	if (c->bad > 0)
		say_range(c, VERIFY_ALTERED, r, "damaged, bytes stand there that are no line");
	if (c->nmissing < MISSING_MAX)
		c->missing[c->nmissing++] = r;
	else
		judge_missing(c, r);
}

/* ---- lines that there were not when they were signed ---- */

/* Who said why may have expired with them. */
static void
judge_void(struct check *c, struct range r)
{
	if (was_tampered(c, r))
		say_range(c, VERIFY_INCOMPLETE, r, SAID_TAMPERED);
	else if (r.to > c->expire_last || is_preceded(c, r.from))
		say_range(c, VERIFY_INCOMPLETE, r,
		    "no line stood there when it was signed, and the log does not say why");
}

static void
note_void(struct check *c, struct range r)
{
	if (c->nvoids < MISSING_MAX)
		c->voids[c->nvoids++] = r;
	else
		judge_void(c, r);
}

/* ---- gaps ---- */

static void
take_run(struct check *c, bool is_void, struct range r)
{
	if (is_void)
		note_void(c, r);
	else
		miss(c, r);
}

/* Signed numbers from..to have no line. */
static void
skip_signed(struct check *c, uint64_t from, uint64_t to)
{
	struct merkle_hash none;
	struct range run = { from, from - 1 };
	bool before = false;

	merkle_leaf(SLICE_EMPTY, &none);
	for (uint64_t seq = from; seq <= to; seq++) {
		const struct merkle_hash *h = verify_tile_hash(c, seq);
		bool is_void = h != NULL && merkle_equal(h, &none);

		if (is_void != before && run.to >= run.from) {
			take_run(c, before, run);
			run.from = seq;
		}
		before = is_void;
		run.to = seq;
		if (h != NULL)
			verify_append_hash(c, h);
		else
			c->broken = true;
	}
	take_run(c, before, run);
}

void
verify_skip(struct check *c, uint64_t to)
{
	uint64_t from = c->expect, size = c->end;

	if (from > to)
		return;
	if (from <= size)
		skip_signed(c, from, to < size ? to : size);
	if (to > size)
		say_range(c, VERIFY_INCOMPLETE, (struct range){ from > size ? from : size + 1, to },
		    "no line (they are behind the checkpoint)");
	c->expect = to + 1;
	c->bad = 0;
}

/* ---- the end ---- */

/* Was this line signed meanwhile? */
static bool
is_in(struct check *c, const struct checkpoint *now, struct slice line, uint64_t seq)
{
	struct merkle_source source = { now->size, tiles_read, &c->files };
	struct merkle_hash leaf, hashes[MERKLE_PROOF_MAX];
	uint64_t index = seq - 1 - c->log->base;
	struct err err;
	size_t n;

	if (index >= now->size ||
	    merkle_prove_inclusion(&source, index, now->size, hashes, &n, &err) == -1)
		return false;
	merkle_leaf(line, &leaf);
	return merkle_verify_inclusion(&leaf, index, now->size, hashes, n, &now->root);
}

/* The checkpoint that is there now; size 0: none that is any good. */
static void
read_newer(struct check *c, struct checkpoint *now)
{
	struct buf note = BUF_INIT;
	struct checkpoint_key signer;
	enum checkpoint_verdict v;
	struct err err;

	if (ledger_read_checkpoint(c->files.dirfd, &note, &err) != 1 ||
	    !verify_read_note(c, buf_slice(&note), now, &signer, &v, &err) ||
	    strcmp(now->origin, c->cp.origin) != 0)
		now->size = 0;
	buf_fini(&note);
}

/* Removal is recorded and signed before it is done, but perhaps since the checkpoint was read. */
static int
look_for_expiry(struct check *c, struct err *err)
{
	struct checkpoint now;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;
	int rc;

	read_newer(c, &now);
	if (trail_reader_open(c->opts->dir, c->end + 1, &r, err) == -1)
		return -1;
	while ((rc = trail_reader_next(r, &line, &seq, err)) == 1)
		if (trail_line_kind(line) == LEAF_EXPIRE ||
		    slice_has_prefix(line, TRAIL_HOLD_START))
			note_expire(c, line, is_in(c, &now, line, seq));
	trail_reader_close(r);
	return rc;
}

void
verify_judge_gaps(struct check *c)
{
	struct err err;

	if (c->nmissing > 0 && (c->missing[c->nmissing - 1].to > c->expire_last || c->nkept > 0) &&
	    look_for_expiry(c, &err) == -1)
		verify_find(c, VERIFY_CANNOT_TELL, "%s", err.msg);
	for (size_t i = 0; i < c->nmissing; i++)
		judge_missing(c, c->missing[i]);
	for (size_t i = 0; i < c->nvoids; i++)
		judge_void(c, c->voids[i]);
}
