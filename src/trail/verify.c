#include "keytrail/verify.h"

#include "keytrail/ledger.h"
#include "keytrail/tiles.h"
#include "keytrail/trail.h"
#include "verify_internal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void
verify_report_add(struct verify_report *r, enum verify_kind kind, const char *fmt, va_list ap)
{
	if (kind == VERIFY_ALTERED)
		r->unaltered = VERIFY_NO;
	else if (kind == VERIFY_INCOMPLETE)
		r->complete = VERIFY_NO;
	else if (kind == VERIFY_CANNOT_TELL)
		r->cannot_tell = true;
	if (r->nfindings++ >= VERIFY_FINDINGS_MAX)
		return;
	r->findings[r->nfindings - 1].kind = kind;
	vsnprintf(r->findings[r->nfindings - 1].text, VERIFY_TEXT_MAX, fmt, ap);
}

void
verify_find(struct check *c, enum verify_kind kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	verify_report_add(c->report, kind, fmt, ap);
	va_end(ap);
}

bool
verify_read_note(const struct check *c, struct slice note, struct checkpoint *out,
    struct checkpoint_key *signer, enum checkpoint_verdict *v, struct err *err)
{
	*v = CHECKPOINT_UNSIGNED;
	for (size_t i = 0; i < c->opts->nkeys && *v == CHECKPOINT_UNSIGNED; i++) {
		*v = checkpoint_read(note, &c->opts->keys[i], 1, out, err);
		*signer = c->opts->keys[i];
	}
	return *v == CHECKPOINT_GOOD;
}

/* ---- hashes ---- */

const struct merkle_hash *
verify_tile_hash(struct check *c, uint64_t seq)
{
	uint64_t entry = seq - 1 - c->log->base;
	uint64_t index = entry / MERKLE_TILE_WIDTH, first = index * MERKLE_TILE_WIDTH;
	uint64_t left = c->cp.size - first;
	struct err err;

	if (index != c->row_index || c->row_index == UINT64_MAX) {
		c->row_index = index;
		c->row_there = tiles_read(&c->files, 0, index,
				   left < MERKLE_TILE_WIDTH ? (unsigned)left : MERKLE_TILE_WIDTH,
				   c->row, &err) == 0;
		c->tiles_gone |= !c->row_there;
	}
	return c->row_there ? &c->row[entry - first] : NULL;
}

void
verify_append_hash(struct check *c, const struct merkle_hash *h)
{
	if (c->broken)
		return;
	merkle_append(&c->tree, h);
	verify_meet_anchors(c);
}

static void
take_hash(struct check *c, struct slice line, uint64_t seq)
{
	const struct merkle_hash *there = verify_tile_hash(c, seq);
	struct merkle_hash h;

	merkle_leaf(line, &h);
	if (there != NULL && !merkle_equal(there, &h) && c->differ++ == 0)
		c->differ_first = seq;
	verify_append_hash(c, &h);
}

/* ---- the lines ---- */

/* Damage before a line that follows its predecessor's number.  A power cut may leave bytes at the end of
 * a segment, and a full disk keep the next start from putting them aside; no line is among them. */
static void
judge_damage(struct check *c, uint64_t segment)
{
	if (c->bad == 0)
		return;
	if (segment == c->bad_segment) {
		verify_find(c, VERIFY_ALTERED,
		    "segment %" PRIu64 ", offset %" PRIu64 ": bytes that are no line of the log",
		    c->bad_segment, c->bad_at);
	} else {
		verify_find(c, VERIFY_CANNOT_TELL,
		    "segment %" PRIu64 ", offset %" PRIu64
		    ": bytes that are no line of the log stand at its end: a power cut may have "
		    "left them, or somebody added them",
		    c->bad_segment, c->bad_at);
		if (c->report->unaltered == VERIFY_YES)
			c->report->unaltered = VERIFY_UNKNOWN;
	}
	c->bad = 0;
}

/* Of the signed lines and those after them. */
static void
note_loss(struct check *c, struct slice line)
{
	static const struct slice key = SLICE_INIT("\"count\":");
	const char *at;
	size_t n = 0;
	uint64_t count;

	if (!slice_has_prefix(line, SLICE("{\"action\":\"keytrail.loss\"")) ||
	    (at = memmem(line.p, line.n, key.p, key.n)) == NULL)
		return;
	at += key.n;
	while (at + n < line.p + line.n && at[n] >= '0' && at[n] <= '9')
		n++;
	if (slice_to_u64((struct slice){ at, n }, &count) == 0)
		c->report->losses += count;
}

static void
take_line(struct check *c, const struct trail_walk_item *item)
{
	uint64_t seq = item->member.seq;

	if (seq <= c->log->base) { /* an earlier log's */
		c->bad = 0;
		return;
	}
	if (seq < c->expect) {
		verify_find(c, VERIFY_ALTERED,
		    "segment %" PRIu64 ", offset %" PRIu64 ": a line with number %" PRIu64
		    " stands where %" PRIu64 " belongs",
		    item->segment, item->at, seq, c->expect);
		return;
	}
	if (seq > c->expect)
		verify_skip(c, seq - 1);
	else
		judge_damage(c, item->segment);
	if (seq <= c->end) {
		take_hash(c, item->line, seq);
	} else {
		c->report->unsigned_lines++;
	}
	verify_note_removal(c, item->line, seq <= c->end);
	note_loss(c, item->line);
	verify_note_line(c, item->line, seq);
	if (c->last_line == 0)
		c->report->first = seq;
	c->last_line = seq;
	c->expect = seq + 1;
}

static void
take_damage(struct check *c, const struct trail_walk_item *item)
{
	if (c->bad++ > 0 && item->segment == c->bad_segment)
		return;
	c->bad_segment = item->segment;
	c->bad_at = item->at;
}

/* What was written in vain is gone before anything is durable behind it. */
static void
take_leftover(struct check *c, const struct trail_walk_item *item)
{
	if (item->member.seq > c->log->base)
		verify_find(c, VERIFY_ALTERED,
		    "segment %" PRIu64 ", offset %" PRIu64 ": a line with number %" PRIu64
		    ", which belongs to a later segment",
		    item->segment, item->at, item->member.seq);
}

/* One finding for those that stand together. */
static void
take_foreign(struct check *c, const struct trail_walk_item *item)
{
	if (item->segment != c->foreign_segment || item->at != c->foreign_end)
		verify_find(c, VERIFY_ALTERED,
		    "segment %" PRIu64 ", offset %" PRIu64
		    ": lines of another log, the first with number %" PRIu64,
		    item->segment, item->at, item->member.seq);
	c->foreign_segment = item->segment;
	c->foreign_end = item->at + item->line.n + 1;
}

static int
walk(struct check *c, struct trail_walk *w, struct err *err)
{
	uint64_t durable = trail_walk_durable(w);
	struct trail_walk_item item;
	int rc;

	while ((rc = trail_walk_next(w, &item, err)) == 1) {
		if (item.kind == TRAIL_WALK_LINE)
			take_line(c, &item);
		else if (item.kind == TRAIL_WALK_DAMAGE)
			take_damage(c, &item);
		else if (item.kind == TRAIL_WALK_FOREIGN)
			take_foreign(c, &item);
		else
			take_leftover(c, &item);
	}
	if (rc == -1)
		return -1;
	if (c->expect <= (durable > c->end ? durable : c->end))
		verify_skip(c, durable > c->end ? durable : c->end);
	else
		judge_damage(c, c->bad_segment);
	return 0;
}

/* ---- the end ---- */

static void
judge_root(struct check *c)
{
	struct merkle_hash root;

	merkle_root(&c->tree, &root);
	if (c->broken) {
		verify_find(c, VERIFY_CANNOT_TELL,
		    "the hashes of events that have no line are gone: the tree cannot be made");
		if (c->report->unaltered == VERIFY_YES)
			c->report->unaltered = VERIFY_UNKNOWN;
		if (c->differ > 0)
			verify_find(c, VERIFY_ALTERED,
			    "event %" PRIu64 ": not the line that the tiles know", c->differ_first);
		return;
	}
	if (!merkle_equal(&root, &c->cp.root)) {
		if (c->differ > 0)
			verify_find(c, VERIFY_ALTERED,
			    "event %" PRIu64 " is not the line that was signed (%" PRIu64
			    " such lines)",
			    c->differ_first, c->differ);
		else
			verify_find(
			    c, VERIFY_ALTERED, "the lines do not lead to the root that was signed");
		return;
	}
	if (c->differ > 0 || c->tiles_gone)
		verify_find(c, VERIFY_NOTE,
		    "tiles are %s; the lines themselves lead to the root that was signed",
		    c->differ > 0 ? "damaged" : "missing");
}

/* A checkpoint that the lines tell of is larger: unless the writer has signed meanwhile, this one was
 * put back. */
static void
judge_age(struct check *c, const struct trail_walk *w)
{
	struct buf note = BUF_INIT;
	struct checkpoint now = { .size = 0 };
	struct err err;

	if (c->recorded > c->cp.size) {
		int rc = ledger_read_checkpoint(c->files.dirfd, &note, &err);

		if (rc == 1 && checkpoint_read(buf_slice(&note), c->opts->keys, c->opts->nkeys,
				   &now, &err) == CHECKPOINT_UNCHECKED)
			rc = -1;
		if (rc == -1)
			verify_find(c, VERIFY_CANNOT_TELL, "the checkpoint: %s", err.msg);
		else if (now.size < c->recorded)
			verify_find(c, VERIFY_ALTERED,
			    "the checkpoint was rolled back: it covers %" PRIu64
			    " events, event %" PRIu64 " tells of one of %" PRIu64,
			    c->cp.size, c->recorder, c->recorded);
		buf_fini(&note);
	}
	if (trail_walk_clean(w) && trail_walk_durable(w) > c->end)
		verify_find(c, VERIFY_INCOMPLETE,
		    "the log was stopped cleanly, which signs all of it, but events %" PRIu64
		    " to %" PRIu64 " are not signed: rolled back, or signing was switched off",
		    c->end + 1, trail_walk_durable(w));
}

/* ---- the beginning ---- */

/* False: nothing more can be told. */
static bool
read_checkpoint(struct check *c)
{
	struct buf note = BUF_INIT;
	struct err err;
	int rc = ledger_read_checkpoint(c->files.dirfd, &note, &err);
	enum checkpoint_verdict v = CHECKPOINT_MALFORMED;
	bool good = rc == 1 && verify_read_note(c, buf_slice(&note), &c->cp, &c->signer, &v, &err);

	buf_fini(&note);
	if (rc == 0)
		verify_find(c, VERIFY_CANNOT_TELL, "there is no checkpoint");
	else if (v == CHECKPOINT_FORGED)
		verify_find(c, VERIFY_ALTERED, "the checkpoint is forged: %s", err.msg);
	else if (!good)
		verify_find(c, VERIFY_CANNOT_TELL, "the checkpoint: %s", err.msg);
	return good;
}

/* Whose checkpoint is it? */
static bool
judge_origin(struct check *c)
{
	const char *id = checkpoint_log(c->cp.origin, c->opts->keys, c->opts->nkeys);

	if (id == NULL) {
		verify_find(c, VERIFY_CANNOT_TELL,
		    "the checkpoint is of %s, which is no log of this key", c->cp.origin);
		return false;
	}
	if (strcmp(id, c->log->id) != 0) {
		verify_find(c, VERIFY_ALTERED,
		    "the checkpoint is of the log %s, the directory holds the log %s", id,
		    c->log->id);
		return false;
	}
	c->report->checkpoint = c->cp;
	if (c->log->base > 0)
		verify_find(c, VERIFY_INCOMPLETE,
		    "events 1 to %" PRIu64
		    " are of an earlier log, of which this directory did not hold what was signed: "
		    "event %" PRIu64 " says why this one was begun",
		    c->log->base, c->log->base + 1);
	return true;
}

/* What was found before stays found. */
static void
give_up(struct check *c, const struct err *why)
{
	struct verify_report *r = c->report;

	verify_find(c, VERIFY_CANNOT_TELL, "%s: %s", c->opts->dir, why->msg);
	r->unaltered = r->unaltered == VERIFY_NO ? VERIFY_NO : VERIFY_UNKNOWN;
	r->complete = r->complete == VERIFY_NO ? VERIFY_NO : VERIFY_UNKNOWN;
	r->last = c->last_line < c->end ? c->last_line : c->end;
}

static void
run(struct check *c, struct trail_walk *w)
{
	struct err why;

	c->expect = c->log->base + 1;
	c->end = c->log->base + c->cp.size;
	verify_meet_anchors(c); /* those of an empty log */
	if (walk(c, w, &why) == -1) {
		give_up(c, &why);
		return;
	}
	verify_judge_gaps(c);
	judge_root(c);
	judge_age(c, w);
	verify_judge_signer(c);
	verify_judge_anchors(c);
	c->report->last = c->last_line < c->end ? c->last_line : c->end;
}

static int
verify(struct check *c, struct err *err)
{
	struct trail_walk *w = NULL;

	/* The checkpoint first: what it covers is durable by then. */
	bool good = read_checkpoint(c);

	if (verify_read_elsewhere(c, err) == -1)
		return -1;
	if (!good) {
		verify_judge_anchors(c);
		return 0;
	}
	if (trail_walk_open(c->opts->dir, &w, err) == -1)
		return -1;
	c->log = trail_walk_log(w);
	c->report->unaltered = c->report->unaltered == VERIFY_NO ? VERIFY_NO : VERIFY_YES;
	c->report->complete = c->report->complete == VERIFY_NO ? VERIFY_NO : VERIFY_YES;
	if (judge_origin(c))
		run(c, w);
	trail_walk_close(w);
	return 0;
}

int
verify_trail(const struct verify_opts *opts, struct verify_report *out, struct err *err)
{
	struct check c = {
		.opts = opts, .report = out, .tree = MERKLE_TREE_INIT, .row_index = UINT64_MAX
	};
	int rc;

	*out = (struct verify_report){ .unaltered = VERIFY_UNKNOWN };
	if ((c.files.dirfd = open(opts->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: open", opts->dir);
	rc = verify(&c, err);
	free(c.anchors);
	close(c.files.dirfd);
	return rc;
}
