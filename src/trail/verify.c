#include "keytrail/verify.h"

#include "keytrail/base64.h"
#include "keytrail/ledger.h"
#include "keytrail/tiles.h"
#include "keytrail/trail.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MISSING_MAX 64 /* ranges of numbers that are remembered to the end */

struct range {
	uint64_t from, to;
};

/* A checkpoint that was kept elsewhere. */
struct anchor {
	uint64_t size;
	struct merkle_hash root;
	bool met;
};

struct check {
	const struct verify_opts *opts;
	struct verify_report *report;
	struct tiles files;
	struct checkpoint cp;
	const char *log; /* its id, in cp.origin */
	struct anchor *anchors;
	size_t nanchors, next_anchor;
	uint64_t expect; /* the next number */
	struct merkle_tree tree;
	bool broken; /* a hash is missing: the tree cannot be had */
	/* of the tiles, level 0 */
	struct merkle_hash row[MERKLE_TILE_WIDTH];
	uint64_t row_index;
	bool row_there, tiles_gone;
	/* damage that no number explains yet */
	uint64_t bad, bad_segment, bad_at;
	/* numbers that have no line, though they had one: perhaps the log says, further on, that they
	 * have expired */
	struct range missing[MISSING_MAX];
	size_t nmissing;
	uint64_t expire_last; /* the log says that up to here all has expired */
	uint64_t recorded,
	    recorder; /* largest checkpoint in the lines, and the number of the line */
	uint64_t differ, differ_first; /* lines that are not as the tiles say */
	uint64_t last_line;
};

static void find(struct verify_report *r, enum verify_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
find(struct verify_report *r, enum verify_kind kind, const char *fmt, ...)
{
	va_list ap;

	r->cannot_tell |= kind == VERIFY_CANNOT_TELL;
	if (r->nfindings++ >= VERIFY_FINDINGS_MAX)
		return;
	r->findings[r->nfindings - 1].kind = kind;
	va_start(ap, fmt);
	vsnprintf(r->findings[r->nfindings - 1].text, VERIFY_TEXT_MAX, fmt, ap);
	va_end(ap);
}

static void
blame(struct check *c, enum verify_kind kind)
{
	if (kind == VERIFY_ALTERED)
		c->report->unaltered = VERIFY_NO;
	else if (kind == VERIFY_INCOMPLETE)
		c->report->complete = VERIFY_NO;
}

#define ACCUSE(c, kind, ...) (blame(c, kind), find((c)->report, kind, __VA_ARGS__))

/* ---- checkpoints kept elsewhere ---- */

int
verify_find_note(struct slice line, char out[CHECKPOINT_NOTE_MAX], size_t *n)
{
	static const struct {
		struct slice opening;
		char end;
	} forms[] = { { SLICE_INIT("\"note\":\""), '"' }, { SLICE_INIT(" note="), '"' } };

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		const char *at = memmem(line.p, line.n, forms[i].opening.p, forms[i].opening.n);
		const char *end;
		struct slice rest;
		long got;

		if (at == NULL)
			continue;
		rest.p = at + forms[i].opening.n;
		rest.n = (size_t)(line.p + line.n - rest.p);
		if ((end = memchr(rest.p, forms[i].end, rest.n)) != NULL)
			rest.n = (size_t)(end - rest.p);
		if ((got = base64_decode(rest, out, CHECKPOINT_NOTE_MAX)) > 0) {
			*n = (size_t)got;
			return 1;
		}
	}
	return 0;
}

static int
add_anchor(struct check *c, const struct checkpoint *cp, struct err *err)
{
	struct anchor *more;

	if ((c->nanchors & (c->nanchors - 1)) == 0) { /* grows at every power of two */
		more =
		    realloc(c->anchors, (c->nanchors == 0 ? 1 : c->nanchors * 2) * sizeof(*more));
		if (more == NULL)
			return err_set_errno(err, "anchors");
		c->anchors = more;
	}
	c->anchors[c->nanchors++] = (struct anchor){ cp->size, cp->root, false };
	return 0;
}

static int
compare_anchors(const void *a, const void *b)
{
	const struct anchor *x = a, *y = b;

	return (x->size > y->size) - (x->size < y->size);
}

static int
read_since(struct check *c, struct err *err)
{
	struct checkpoint cp;
	struct err why;

	if (!c->opts->has_since)
		return 0;
	if (checkpoint_read(c->opts->since, c->opts->keys, c->opts->nkeys, &cp, &why) !=
	    CHECKPOINT_GOOD) {
		find(c->report, VERIFY_CANNOT_TELL, "the checkpoint kept elsewhere: %s", why.msg);
		return 0;
	}
	if (strcmp(cp.origin, c->cp.origin) != 0) {
		ACCUSE(c, VERIFY_ALTERED, "the checkpoint kept elsewhere is of the log %s, not %s",
		    cp.origin, c->cp.origin);
		return 0;
	}
	return add_anchor(c, &cp, err);
}

static int
read_anchors(struct check *c, struct err *err)
{
	struct slice rest = c->opts->anchors;
	char note[CHECKPOINT_NOTE_MAX];
	struct checkpoint cp;
	struct err why;
	size_t n, before = c->nanchors;

	while (rest.n > 0) {
		const char *nl = memchr(rest.p, '\n', rest.n);
		size_t used = nl != NULL ? (size_t)(nl - rest.p) : rest.n;

		if (verify_find_note(slice_sub(rest, 0, used), note, &n) == 1 &&
		    checkpoint_read((struct slice){ note, n }, c->opts->keys, c->opts->nkeys, &cp,
			&why) == CHECKPOINT_GOOD &&
		    strcmp(cp.origin, c->cp.origin) == 0 && add_anchor(c, &cp, err) == -1)
			return -1;
		rest = slice_sub(rest, nl != NULL ? used + 1 : used, rest.n);
	}
	if (c->opts->has_anchors && c->nanchors == before)
		find(c->report, VERIFY_CANNOT_TELL,
		    "the anchors hold no checkpoint of this log and key");
	return 0;
}

static void
meet_anchors(struct check *c)
{
	struct merkle_hash root;

	while (c->next_anchor < c->nanchors && c->anchors[c->next_anchor].size == c->tree.size) {
		struct anchor *a = &c->anchors[c->next_anchor++];

		merkle_root(&c->tree, &root);
		if (merkle_equal(&root, &a->root)) {
			c->report->anchors++;
			continue;
		}
		ACCUSE(c, VERIFY_ALTERED,
		    "the first %" PRIu64 " events are not those of a checkpoint kept elsewhere",
		    a->size);
	}
}

/* ---- hashes ---- */

/* The hash that the tiles have for a number, or NULL. */
static const struct merkle_hash *
tile_hash(struct check *c, uint64_t seq)
{
	uint64_t index = (seq - 1) / MERKLE_TILE_WIDTH, first = index * MERKLE_TILE_WIDTH;
	uint64_t left = c->cp.size - first;
	struct err err;

	if (index != c->row_index || c->row_index == UINT64_MAX) {
		c->row_index = index;
		c->row_there = tiles_read(&c->files, 0, index,
				   left < MERKLE_TILE_WIDTH ? (unsigned)left : MERKLE_TILE_WIDTH,
				   c->row, &err) == 0;
		c->tiles_gone |= !c->row_there;
	}
	return c->row_there ? &c->row[seq - 1 - first] : NULL;
}

static void
append_hash(struct check *c, const struct merkle_hash *h)
{
	if (c->broken)
		return;
	merkle_append(&c->tree, h);
	meet_anchors(c);
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
		ACCUSE(c, kind, "event %" PRIu64 ": %s", from, what);
	else
		ACCUSE(c, kind, "events %" PRIu64 " to %" PRIu64 ": %s", from, to, what);
}

static void
judge_missing(struct check *c, struct range r)
{
	if (r.to <= c->expire_last) {
		c->report->expired = r.to > c->report->expired ? r.to : c->report->expired;
		return;
	}
	say_range(c, VERIFY_INCOMPLETE, r.from > c->expire_last ? r.from : c->expire_last + 1, r.to,
	    "the line is gone, and the log does not say that it expired");
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
	uint64_t from = c->expect, size = c->cp.size;

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
		ACCUSE(c, VERIFY_ALTERED,
		    "segment %" PRIu64 ", offset %" PRIu64 ": bytes that are no line of the log",
		    c->bad_segment, c->bad_at);
	else
		find(c->report, VERIFY_NOTE,
		    "segment %" PRIu64 ", offset %" PRIu64 ": a failed write left bytes that are "
		    "no part of the log",
		    c->bad_segment, c->bad_at);
	c->bad = 0;
}

static void
note_expire(struct check *c, struct slice line)
{
	static const struct slice opening = SLICE_INIT(
	    "{\"action\":\"keytrail.expire\",\"dataEvent\":false,\"details\":{\"first\":");
	static const struct slice key = SLICE_INIT(",\"last\":");
	const char *at, *end;
	uint64_t last;

	if (!slice_has_prefix(line, opening))
		return;
	at = memmem(line.p, line.n, key.p, key.n);
	if (at == NULL || (end = memchr(at, '}', (size_t)(line.p + line.n - at))) == NULL)
		return;
	at += key.n;
	if (slice_to_u64((struct slice){ at, (size_t)(end - at) }, &last) == 0 &&
	    last > c->expire_last)
		c->expire_last = last;
}

static void
note_checkpoint(struct check *c, struct slice line, uint64_t seq)
{
	char note[CHECKPOINT_NOTE_MAX];
	struct checkpoint cp;
	struct err err;
	size_t n;

	if (!slice_has_prefix(line, SLICE("{\"action\":\"keytrail.checkpoint\"")) ||
	    verify_find_note(line, note, &n) == 0 ||
	    checkpoint_read((struct slice){ note, n }, c->opts->keys, c->opts->nkeys, &cp, &err) !=
		CHECKPOINT_GOOD ||
	    strcmp(cp.origin, c->cp.origin) != 0 || cp.size <= c->recorded)
		return;
	c->recorded = cp.size;
	c->recorder = seq;
}

static void
take_line(struct check *c, const struct trail_walk_item *item)
{
	uint64_t seq = item->member.seq;

	if (seq < c->expect) {
		ACCUSE(c, VERIFY_ALTERED,
		    "segment %" PRIu64 ", offset %" PRIu64 ": a line with number %" PRIu64
		    " stands where %" PRIu64 " belongs",
		    item->segment, item->at, seq, c->expect);
		return;
	}
	if (seq > c->expect)
		skip(c, seq - 1);
	else
		judge_damage(c, item->segment);
	if (!slice_equal(item->member.log, slice_of(c->log)))
		ACCUSE(c, VERIFY_ALTERED, "event %" PRIu64 " is of another log", seq);
	if (seq <= c->cp.size)
		take_hash(c, item->line, seq);
	else
		c->report->unsigned_lines++;
	note_expire(c, item->line);
	note_checkpoint(c, item->line, seq);
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
	}
	if (rc == -1)
		return -1;
	if (c->expect <= (durable > c->cp.size ? durable : c->cp.size))
		skip(c, durable > c->cp.size ? durable : c->cp.size);
	else
		judge_damage(c, c->bad_segment);
	return 0;
}

/* ---- the end ---- */

/* Removal is recorded before it is done, but perhaps behind where the walk ended. */
static int
look_for_expiry(struct check *c, struct err *err)
{
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;
	int rc;

	if (trail_reader_open(c->opts->dir, c->expect, &r, err) == -1)
		return -1;
	while ((rc = trail_reader_next(r, &line, &seq, err)) == 1)
		note_expire(c, line);
	trail_reader_close(r);
	return rc;
}

static void
judge_all_missing(struct check *c)
{
	struct err err;

	if (c->nmissing > 0 && c->missing[c->nmissing - 1].to > c->expire_last &&
	    look_for_expiry(c, &err) == -1)
		find(c->report, VERIFY_CANNOT_TELL, "%s", err.msg);
	for (size_t i = 0; i < c->nmissing; i++)
		judge_missing(c, c->missing[i]);
}

static void
judge_root(struct check *c)
{
	struct merkle_hash root;

	merkle_root(&c->tree, &root);
	if (c->broken) {
		find(c->report, VERIFY_CANNOT_TELL,
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
			ACCUSE(c, VERIFY_ALTERED,
			    "event %" PRIu64 " is not the line that was signed (%" PRIu64
			    " such lines)",
			    c->differ_first, c->differ);
		else
			ACCUSE(
			    c, VERIFY_ALTERED, "the lines do not lead to the root that was signed");
		return;
	}
	if (c->differ > 0 || c->tiles_gone)
		find(c->report, VERIFY_NOTE,
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
		if (ledger_read_checkpoint(c->files.dirfd, &note, &err) == 1)
			checkpoint_read(
			    buf_slice(&note), c->opts->keys, c->opts->nkeys, &now, &err);
		if (now.size < c->recorded)
			ACCUSE(c, VERIFY_ALTERED,
			    "the checkpoint was rolled back: it covers %" PRIu64
			    " events, event %" PRIu64 " tells of one of %" PRIu64,
			    c->cp.size, c->recorder, c->recorded);
		buf_fini(&note);
	}
	if (trail_walk_clean(w) && trail_walk_durable(w) > c->cp.size)
		ACCUSE(c, VERIFY_INCOMPLETE,
		    "the log was stopped cleanly, which signs all of it, but events %" PRIu64
		    " to %" PRIu64 " are not signed: rolled back, or signing was switched off",
		    c->cp.size + 1, trail_walk_durable(w));
}

static void
judge_anchors(struct check *c)
{
	for (; c->next_anchor < c->nanchors; c->next_anchor++) {
		uint64_t size = c->anchors[c->next_anchor].size;

		if (size > c->cp.size)
			ACCUSE(c, VERIFY_INCOMPLETE,
			    "rolled back: a checkpoint of %" PRIu64
			    " events is kept elsewhere, this one covers %" PRIu64,
			    size, c->cp.size);
		else
			find(c->report, VERIFY_CANNOT_TELL,
			    "a checkpoint of %" PRIu64 " events could not be compared", size);
	}
}

/* ---- the beginning ---- */

static bool
known_origin(const struct check *c)
{
	size_t name = (size_t)(c->log - 1 - c->cp.origin);

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
	const char *slash;

	if (rc == 1)
		v = checkpoint_read(buf_slice(&note), c->opts->keys, c->opts->nkeys, &c->cp, &err);
	buf_fini(&note);
	if (rc == 0)
		find(c->report, VERIFY_CANNOT_TELL, "there is no checkpoint");
	else if (v == CHECKPOINT_FORGED)
		ACCUSE(c, VERIFY_ALTERED, "the checkpoint is forged: %s", err.msg);
	else if (v != CHECKPOINT_GOOD)
		find(c->report, VERIFY_CANNOT_TELL, "the checkpoint: %s", err.msg);
	if (rc != 1 || v != CHECKPOINT_GOOD)
		return false;
	slash = strrchr(c->cp.origin, '/');
	c->log = slash != NULL ? slash + 1 : c->cp.origin;
	if (slash == NULL || !known_origin(c)) {
		find(c->report, VERIFY_CANNOT_TELL,
		    "the checkpoint is of %s, which is no log of this key", c->cp.origin);
		return false;
	}
	c->report->checkpoint = c->cp;
	return true;
}

static int
run(struct check *c, struct trail_walk *w, struct err *err)
{
	if (read_since(c, err) == -1 || read_anchors(c, err) == -1)
		return -1;
	if (c->nanchors > 0)
		qsort(c->anchors, c->nanchors, sizeof(*c->anchors), compare_anchors);
	meet_anchors(c); /* those of an empty log */
	if (walk(c, w, err) == -1)
		return -1;
	judge_all_missing(c);
	judge_root(c);
	judge_age(c, w);
	judge_anchors(c);
	c->report->last = c->last_line < c->cp.size ? c->last_line : c->cp.size;
	return 0;
}

int
verify_trail(const struct verify_opts *opts, struct verify_report *out, struct err *err)
{
	struct check c = { .opts = opts,
		.report = out,
		.expect = 1,
		.tree = MERKLE_TREE_INIT,
		.row_index = UINT64_MAX };
	struct trail_walk *w = NULL;
	int rc = -1;

	*out = (struct verify_report){ .unaltered = VERIFY_UNKNOWN };
	if ((c.files.dirfd = open(opts->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: open", opts->dir);
	/* The checkpoint first: what it covers is durable by then. */
	if (!read_checkpoint(&c)) {
		rc = 0;
	} else if (trail_walk_open(opts->dir, &w, err) == 0) {
		out->unaltered = out->complete = VERIFY_YES;
		rc = run(&c, w, err);
	}
	trail_walk_close(w);
	free(c.anchors);
	close(c.files.dirfd);
	return rc;
}
