/* Checkpoints besides the one in the directory, and the keys that signed them. */
#include "keytrail/base64.h"
#include "keytrail/rotation.h"
#include "verify_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ANCHORS_MAX ((size_t)1 << 20) /* that are remembered, 48 bytes each */
#define READ_SIZE   ((size_t)1 << 18) /* a longer line holds no checkpoint */

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

	if (c->cp.size > 0 && strcmp(cp->origin, c->cp.origin) != 0) {
		c->foreign++;
		return 0;
	}
	if (c->nanchors == ANCHORS_MAX)
		return err_set(err, "more than %zu checkpoints are kept elsewhere", ANCHORS_MAX);
	if ((c->nanchors & (c->nanchors - 1)) == 0) { /* grows at every power of two */
		more =
		    realloc(c->anchors, (c->nanchors == 0 ? 1 : c->nanchors * 2) * sizeof(*more));
		if (more == NULL)
			return err_set_errno(err, "anchors");
		c->anchors = more;
	}
	c->anchors[c->nanchors++] = (struct anchor){ cp->size, cp->root };
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
		verify_find(c, VERIFY_CANNOT_TELL, "the checkpoint kept elsewhere: %s", why.msg);
		return 0;
	}
	if (c->cp.size > 0 && strcmp(cp.origin, c->cp.origin) != 0)
		verify_find(c, VERIFY_ALTERED,
		    "the checkpoint kept elsewhere is of the log %s, not %s", cp.origin,
		    c->cp.origin);
	return add_anchor(c, &cp, err);
}

static int
take_anchor(struct check *c, struct slice line, struct err *err)
{
	char note[CHECKPOINT_NOTE_MAX];
	struct checkpoint cp;
	size_t n;

	if (verify_find_note(line, note, &n) == 0)
		return 0;
	switch (
	    checkpoint_read((struct slice){ note, n }, c->opts->keys, c->opts->nkeys, &cp, err)) {
	case CHECKPOINT_GOOD:
		return add_anchor(c, &cp, err);
	case CHECKPOINT_UNCHECKED:
		return -1;
	default:
		return 0;
	}
}

/* The whole lines in text; *rest is what is left. */
static int
take_lines(struct check *c, struct slice text, bool *skip, struct slice *rest, struct err *err)
{
	const char *nl;

	while (text.n > 0 && (nl = memchr(text.p, '\n', text.n)) != NULL) {
		size_t n = (size_t)(nl - text.p);

		if (!*skip && take_anchor(c, slice_sub(text, 0, n), err) == -1)
			return -1;
		*skip = false;
		text = slice_sub(text, n + 1, text.n);
	}
	*rest = text;
	return 0;
}

static int
read_anchor_lines(struct check *c, char *mem, struct err *err)
{
	struct slice rest = SLICE_EMPTY;
	bool skip = false;
	size_t have = 0;
	ssize_t n;

	while ((n = read(c->opts->anchors_fd, mem + have, READ_SIZE - have)) != 0) {
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return err_set_errno(err, "read the anchors");
		if (take_lines(c, (struct slice){ mem, have + (size_t)n }, &skip, &rest, err) == -1)
			return -1;
		skip |= rest.n == READ_SIZE;
		have = rest.n < READ_SIZE ? rest.n : 0;
		memmove(mem, rest.p, have);
	}
	return skip ? 0 : take_anchor(c, (struct slice){ mem, have }, err);
}

static int
read_anchors(struct check *c, struct err *err)
{
	size_t before = c->nanchors;
	char *mem;
	int rc;

	if (c->opts->anchors_fd == -1)
		return 0;
	if ((mem = malloc(READ_SIZE)) == NULL)
		return err_set_errno(err, "anchors");
	rc = read_anchor_lines(c, mem, err);
	free(mem);
	if (rc == 0 && c->nanchors == before)
		verify_find(
		    c, VERIFY_CANNOT_TELL, "the anchors hold no checkpoint of this log and key");
	return rc;
}

int
verify_read_elsewhere(struct check *c, struct err *err)
{
	if (read_since(c, err) == -1 || read_anchors(c, err) == -1)
		return -1;
	if (c->nanchors > 0)
		qsort(c->anchors, c->nanchors, sizeof(*c->anchors), compare_anchors);
	return 0;
}

void
verify_meet_anchors(struct check *c)
{
	struct merkle_hash root;

	while (c->next_anchor < c->nanchors && c->anchors[c->next_anchor].size == c->tree.size) {
		struct anchor *a = &c->anchors[c->next_anchor++];

		merkle_root(&c->tree, &root);
		if (merkle_equal(&root, &a->root)) {
			c->report->anchors++;
			continue;
		}
		verify_find(c, VERIFY_ALTERED,
		    "the first %" PRIu64 " events are not those of a checkpoint kept elsewhere",
		    a->size);
	}
}

/* Without a checkpoint here there is none to compare with. */
void
verify_judge_anchors(struct check *c)
{
	uint64_t largest = c->nanchors > 0 ? c->anchors[c->nanchors - 1].size : 0;

	if (c->foreign > 0)
		verify_find(c, VERIFY_NOTE,
		    "%" PRIu64 " checkpoints kept elsewhere are of other logs of this key",
		    c->foreign);
	if (largest > 0 && c->cp.size == 0)
		verify_find(c, VERIFY_INCOMPLETE,
		    "a checkpoint of %" PRIu64
		    " events is kept elsewhere, and here is none that a given key has signed",
		    largest);
	else if (largest > c->cp.size)
		verify_find(c, VERIFY_INCOMPLETE,
		    "rolled back: a checkpoint of %" PRIu64
		    " events is kept elsewhere, this one covers %" PRIu64,
		    largest, c->cp.size);
	else if (c->next_anchor < c->nanchors)
		verify_find(c, VERIFY_CANNOT_TELL,
		    "a checkpoint of %" PRIu64 " events could not be compared",
		    c->anchors[c->next_anchor].size);
}

/* ---- what the lines tell of checkpoints and keys ---- */

/* A line or the checkpoint at the end shows who signs: since the last one only a rotation may have
 * changed that.  A checkpoint that does not cover the rotation was signed before it: a start tells
 * once more of the one that it has found. */
static void
expect_signer(struct check *c, const struct checkpoint_key *k, uint64_t seq)
{
	char where[64] = "the checkpoint";

	if (seq > 0)
		snprintf(where, sizeof(where), "the checkpoint of event %" PRIu64, seq);
	if (c->current.name[0] != '\0' && !checkpoint_key_equal(&c->current, k))
		verify_find(c, VERIFY_ALTERED,
		    "%s is signed by %s+%08" PRIx32 ", but %s+%08" PRIx32
		    " signed before and has not handed over",
		    where, k->name, k->id, c->current.name, c->current.id);
	c->current = c->signed_last = *k;
}

static void
cannot_check(struct check *c, uint64_t seq, const struct err *why)
{
	verify_find(c, VERIFY_CANNOT_TELL, "event %" PRIu64 ": %s", seq, why->msg);
}

static void
note_checkpoint(struct check *c, struct slice line, uint64_t seq)
{
	char note[CHECKPOINT_NOTE_MAX];
	enum checkpoint_verdict v;
	struct checkpoint_key signer;
	struct checkpoint cp;
	struct err err;
	size_t n;

	if (verify_find_note(line, note, &n) == 0)
		return;
	if (!verify_read_note(c, (struct slice){ note, n }, &cp, &signer, &v, &err)) {
		if (v == CHECKPOINT_UNCHECKED)
			cannot_check(c, seq, &err);
		return;
	}
	if (strcmp(cp.origin, c->cp.origin) != 0)
		return;
	if (seq <= c->end && c->log->base + cp.size >= c->rotated)
		expect_signer(c, &signer, seq);
	if (cp.size <= c->recorded)
		return;
	c->recorded = cp.size;
	c->recorder = seq;
}

static void
note_rotation(struct check *c, struct slice line, uint64_t seq)
{
	char note[CHECKPOINT_NOTE_MAX];
	enum checkpoint_verdict v = CHECKPOINT_MALFORMED;
	struct rotation r;
	struct err err;
	size_t n;

	if (seq > c->end) /* not signed yet */
		return;
	if (verify_find_note(line, note, &n) == 1)
		v = rotation_read((struct slice){ note, n }, &r, &err);
	if (v == CHECKPOINT_UNCHECKED) {
		cannot_check(c, seq, &err);
		return;
	}
	if (v != CHECKPOINT_GOOD || strcmp(r.origin, c->cp.origin) != 0) {
		verify_find(c, VERIFY_ALTERED,
		    "event %" PRIu64
		    ": the change of keys is not signed by the old key and the new",
		    seq);
		return;
	}
	/* Until the new key has signed, a start that follows a kill records this again, or another
	 * change in its place. */
	if (c->signed_last.name[0] == '\0' || !checkpoint_key_equal(&c->signed_last, &r.old))
		expect_signer(c, &r.old, seq);
	c->report->rotations += !checkpoint_key_equal(&c->current, &r.new);
	c->current = r.new;
	c->rotated = seq;
}

void
verify_note_line(struct check *c, struct slice line, uint64_t seq)
{
	if (slice_has_prefix(line, SLICE("{\"action\":\"keytrail.checkpoint\"")))
		note_checkpoint(c, line, seq);
	else if (slice_has_prefix(line, SLICE("{\"action\":\"keytrail.key\"")))
		note_rotation(c, line, seq);
}

void
verify_judge_signer(struct check *c)
{
	expect_signer(c, &c->signer, 0);
}
