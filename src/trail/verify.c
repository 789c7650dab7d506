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
verify_find(struct check *c, enum verify_kind kind, const char *fmt, ...)
{
	struct verify_report *r = c->report;
	va_list ap;

	if (kind == VERIFY_ALTERED)
		r->unaltered = VERIFY_NO;
	else if (kind == VERIFY_INCOMPLETE)
		r->complete = VERIFY_NO;
	else if (kind == VERIFY_CANNOT_TELL)
		r->cannot_tell = true;
	if (r->nfindings++ >= VERIFY_FINDINGS_MAX)
		return;
	r->findings[r->nfindings - 1].kind = kind;
	va_start(ap, fmt);
	vsnprintf(r->findings[r->nfindings - 1].text, VERIFY_TEXT_MAX, fmt, ap);
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

/* The hash that the tiles have for a number, or NULL. */
static const struct merkle_hash *
tile_hash(struct check *c, uint64_t seq)
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

static void
append_hash(struct check *c, const struct merkle_hash *h)
{
	if (c->broken)
		return;
	merkle_append(&c->tree, h);
	verify_meet_anchors(c);
}

static void
take_hash(struct check *c, struct slice line, uint64_t seq)
{
	const struct merkle_hash *there = tile_hash(c, seq);
	struct merkle_hash h;

	merkle_leaf(line, &h);
	if (there != NULL && !merkle_equal(there, &h) && c->differ++ == 0)
		c->differ_first = seq;
	append_hash(c, &h);
}

/* ---- numbers without lines ---- */

static void
say_range(struct check *c, enum verify_kind kind, uint64_t from, uint64_t to, const char *what)
{
	if (from == to)
		verify_find(c, kind, "event %" PRIu64 ": %s", from, what);
	else
		verify_find(c, kind, "events %" PRIu64 " to %" PRIu64 ": %s", from, to, what);
}

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
	uint64_t said = c->claim_last > c->expire_last ? c->claim_last : c->expire_last;

	if (was_tampered(c, r)) {
		say_range(c, VERIFY_INCOMPLETE, r.from, r.to,
		    "the line is gone, and the log says that it was taken away");
	} else if (r.to > said) {
		say_range(c, VERIFY_INCOMPLETE, r.from > said ? r.from : said + 1, r.to,
		    "the line is gone, and the log does not say that it expired");
	} else if (is_preceded(c, r.from)) {
		say_range(c, VERIFY_INCOMPLETE, r.from, r.to,
		    "the line is gone, but older ones are there: it did not expire");
	} else if (r.to > c->expire_last) {
		say_range(c, VERIFY_CANNOT_TELL, r.from, r.to,
		    "the line is gone, and what says that it expired is not signed");
		if (c->report->complete == VERIFY_YES)
			c->report->complete = VERIFY_UNKNOWN;
	} else if (r.to > c->report->expired) {
		c->report->expired = r.to;
	}
}

static void
miss(struct check *c, uint64_t from, uint64_t to)
{
	struct range r = { from, to };

	if (c->bad > 0)
		say_range(
		    c, VERIFY_ALTERED, from, to, "damaged, bytes stand there that are no line");
	if (c->nmissing < MISSING_MAX)
		c->missing[c->nmissing++] = r;
	else
		judge_missing(c, r);
}

/* Signed numbers from..to have no line. */
static void
skip_signed(struct check *c, uint64_t from, uint64_t to)
{
	struct merkle_hash none;
	uint64_t start = 0; /* of a run of lines that there were */

	merkle_leaf(SLICE_EMPTY, &none);
	for (uint64_t seq = from; seq <= to; seq++) {
		const struct merkle_hash *h = tile_hash(c, seq);
		bool lost = h != NULL && merkle_equal(h, &none);

		if (lost && start != 0)
			miss(c, start, seq - 1);
		start = lost ? 0 : start != 0 ? start : seq;
		c->report->lost += lost;
		if (h != NULL)
			append_hash(c, h);
		else
			c->broken = true;
	}
	if (start != 0)
		miss(c, start, to);
}

static void
skip(struct check *c, uint64_t to)
{
	uint64_t from = c->expect, size = c->end;

	if (from > to)
		return;
	if (from <= size)
		skip_signed(c, from, to < size ? to : size);
	if (to > size)
		say_range(c, VERIFY_INCOMPLETE, from > size ? from : size + 1, to,
		    "no line (they are behind the checkpoint)");
	c->expect = to + 1;
	c->bad = 0;
}

/* ---- the lines ---- */

/* Damage before a line that follows its predecessor's number: only a failed write leaves such, at the
 * end of a segment. */
static void
judge_damage(struct check *c, uint64_t segment)
{
	if (c->bad == 0)
		return;
	if (segment == c->bad_segment)
		verify_find(c, VERIFY_ALTERED,
		    "segment %" PRIu64 ", offset %" PRIu64 ": bytes that are no line of the log",
		    c->bad_segment, c->bad_at);
	else
		verify_find(c, VERIFY_NOTE,
		    "segment %" PRIu64 ", offset %" PRIu64 ": a failed write left bytes that are "
		    "no part of the log",
		    c->bad_segment, c->bad_at);
	c->bad = 0;
}

static void
note_expire(struct slice line, uint64_t *last)
{
	struct trail_range said;

	if (trail_line_range(line, TRAIL_EXPIRE_START, &said) && said.last > *last)
		*last = said.last;
}

static void
note_tamper(struct check *c, struct slice line)
{
	struct trail_range said;

	if (!trail_line_range(line, TRAIL_TAMPER_START, &said) || said.last == 0)
		return;
	if (c->ntampered < MISSING_MAX)
		c->tampered[c->ntampered++] = (struct range){ said.first, said.last };
	else if (said.first < c->tampered[0].from) /* what expires is all up to a number */
		c->tampered[0].from = said.first;
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
		skip(c, seq - 1);
	else
		judge_damage(c, item->segment);
	if (seq <= c->end) {
		take_hash(c, item->line, seq);
		note_expire(item->line, &c->expire_last);
	} else {
		c->report->unsigned_lines++;
	}
	note_tamper(c, item->line);
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
	if (c->bad++ > 0)
		return;
	c->bad_segment = item->segment;
	c->bad_at = item->at;
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
	}
	if (rc == -1)
		return -1;
	if (c->expect <= (durable > c->end ? durable : c->end))
		skip(c, durable > c->end ? durable : c->end);
	else
		judge_damage(c, c->bad_segment);
	return 0;
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
	struct trail_range said;
	struct slice line;
	uint64_t seq;
	int rc;

	read_newer(c, &now);
	if (trail_reader_open(c->opts->dir, c->end + 1, &r, err) == -1)
		return -1;
	while ((rc = trail_reader_next(r, &line, &seq, err)) == 1)
		if (trail_line_range(line, TRAIL_EXPIRE_START, &said))
			note_expire(
			    line, is_in(c, &now, line, seq) ? &c->expire_last : &c->claim_last);
	trail_reader_close(r);
	return rc;
}

static void
judge_all_missing(struct check *c)
{
	struct err err;

	if (c->nmissing > 0 && c->missing[c->nmissing - 1].to > c->expire_last &&
	    look_for_expiry(c, &err) == -1)
		verify_find(c, VERIFY_CANNOT_TELL, "%s", err.msg);
	for (size_t i = 0; i < c->nmissing; i++)
		judge_missing(c, c->missing[i]);
}

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
			say_range(c, VERIFY_ALTERED, c->differ_first, c->differ_first,
			    "not the line that the tiles know");
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

static bool
known_origin(const struct check *c, const char *slash)
{
	size_t name = (size_t)(slash - c->cp.origin);

	for (size_t i = 0; i < c->opts->nkeys; i++)
		if (strlen(c->opts->keys[i].name) == name &&
		    memcmp(c->opts->keys[i].name, c->cp.origin, name) == 0)
			return true;
	return false;
}

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
	const char *slash = strrchr(c->cp.origin, '/');

	if (slash == NULL || !known_origin(c, slash)) {
		verify_find(c, VERIFY_CANNOT_TELL,
		    "the checkpoint is of %s, which is no log of this key", c->cp.origin);
		return false;
	}
	if (strcmp(slash + 1, c->log->id) != 0) {
		verify_find(c, VERIFY_ALTERED,
		    "the checkpoint is of the log %s, the directory holds the log %s", slash + 1,
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
	judge_all_missing(c);
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
