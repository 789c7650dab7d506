#include "keytrail/delivered.h"

#include "keytrail/clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#define DELIVERY_MAX 128 /* bytes of that member */

struct entry {
	uint64_t seq, prev;
	struct merkle_hash hash;
	bool stub;
};

struct head {
	uint64_t size;
	struct merkle_hash root;
};

struct array {
	void *mem;
	size_t n, cap;
};

struct log {
	struct log *next;
	struct delivered_log pub;
	struct array entries; /* struct entry */
	struct array heads;   /* struct head, of good checkpoints */
	struct checkpoint largest;
	uint64_t last; /* its number is pub.last_at's */
};

struct delivered {
	const struct checkpoint_key *keys;
	size_t nkeys;
	struct log *logs, **end;
	struct log *recent; /* of the last line */
};

/* What a line says. */
struct arrival {
	struct slice log, at, line; /* line: as it was recorded; of a stub empty */
	struct entry entry;
};

static void __attribute__((format(printf, 3, 4)))
find(struct log *l, enum verify_kind kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	verify_report_add(&l->pub.report, kind, fmt, ap);
	va_end(ap);
}

/* ---- taking a line apart ---- */

static int
nibble(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
parse_hash(struct slice s, struct merkle_hash *out)
{
	if (s.n != 2 * sizeof(out->b))
		return false;
	for (size_t i = 0; i < sizeof(out->b); i++) {
		int high = nibble(s.p[2 * i]), low = nibble(s.p[2 * i + 1]);

		if (high == -1 || low == -1)
			return false;
		out->b[i] = (unsigned char)(high << 4 | low);
	}
	return true;
}

static bool
is_id(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (nibble(s.p[i]) == -1)
			return false;
	return s.n == TRAIL_ID_SIZE - 1;
}

static bool
parse_stub(struct slice line, struct arrival *out)
{
	struct slice trail = trail_line_value(line, SLICE("trail"));

	out->log = trail_line_string(trail, SLICE("log"));
	return slice_to_u64(trail_line_value(trail, SLICE("seq")), &out->entry.seq) == 0;
}

/* The line without its member `delivery`, into room for it. */
static bool
parse_event(struct slice line, struct slice delivery, char *room, struct arrival *out)
{
	static const char key[] = "\"delivery\":";
	size_t from = (size_t)(delivery.p - line.p) - (sizeof(key) - 1);
	size_t to = (size_t)(delivery.p - line.p) + delivery.n;
	struct trail_member m;
	int64_t ns;

	if (to < line.n && line.p[to] == ',')
		to++;
	memcpy(room, line.p, from);
	memcpy(room + from, line.p + to, line.n - to);
	out->line = (struct slice){ room, line.n - (to - from) };
	if (trail_parse_line(out->line, &m) == -1 || clock_parse_event_time(m.at, &ns) == -1)
		return false;
	out->log = m.log;
	out->at = m.at;
	out->entry.seq = m.seq;
	return true;
}

static bool
parse(struct slice line, char *room, struct arrival *out)
{
	struct slice delivery = trail_line_value(line, SLICE("delivery"));

	*out = (struct arrival){ .line = SLICE_EMPTY };
	out->entry.stub = slice_equal(trail_line_value(delivery, SLICE("stub")), SLICE("true"));
	return parse_hash(trail_line_string(delivery, SLICE("hash")), &out->entry.hash) &&
	       slice_to_u64(trail_line_value(delivery, SLICE("prev")), &out->entry.prev) == 0 &&
	       (out->entry.stub ? parse_stub(line, out) : parse_event(line, delivery, room, out)) &&
	       is_id(out->log);
}

/* ---- keeping it ---- */

static void *
push(struct array *a, size_t size)
{
	size_t cap = a->cap == 0 ? 64 : a->cap * 2;
	void *more;

	if (a->n == a->cap) {
		if ((more = reallocarray(a->mem, cap, size)) == NULL)
			return NULL;
		a->mem = more;
		a->cap = cap;
	}
	return (char *)a->mem + size * a->n++;
}

static struct log *
log_of(struct delivered *d, struct slice id)
{
	struct log *l = d->recent;

	if (l != NULL && slice_equal(slice_of(l->pub.id), id))
		return l;
	for (l = d->logs; l != NULL && !slice_equal(slice_of(l->pub.id), id);)
		l = l->next;
	if (l == NULL && (l = calloc(1, sizeof(*l))) != NULL) {
		slice_to_cstr(id, l->pub.id, sizeof(l->pub.id));
		l->pub.report.unaltered = l->pub.report.complete = VERIFY_YES;
		*d->end = l;
		d->end = &l->next;
	}
	d->recent = l;
	return l;
}

static int
take_checkpoint(struct delivered *d, struct log *l, const struct arrival *a, struct err *err)
{
	char note[CHECKPOINT_NOTE_MAX];
	enum checkpoint_verdict v;
	struct checkpoint cp;
	const char *id;
	struct head *h;
	size_t n;

	if (!slice_has_prefix(a->line, TRAIL_CHECKPOINT_START) ||
	    verify_find_note(a->line, note, &n) == 0)
		return 0;
	v = checkpoint_read((struct slice){ note, n }, d->keys, d->nkeys, &cp, err);
	if (v == CHECKPOINT_UNCHECKED)
		return -1;
	if (v == CHECKPOINT_FORGED)
		find(l, VERIFY_ALTERED, "event %" PRIu64 ": the checkpoint is forged: %s",
		    a->entry.seq, err->msg);
	if (v != CHECKPOINT_GOOD || (id = checkpoint_log(cp.origin, d->keys, d->nkeys)) == NULL ||
	    strcmp(id, l->pub.id) != 0)
		return 0;
	if ((h = push(&l->heads, sizeof(*h))) == NULL)
		return err_set(err, "memory is short");
	*h = (struct head){ cp.size, cp.root };
	if (cp.size >= l->largest.size)
		l->largest = cp;
	return 0;
}

static void
take_hash(struct log *l, const struct arrival *a)
{
	struct merkle_hash h;

	if (a->entry.stub)
		return;
	merkle_leaf(a->line, &h);
	if (!merkle_equal(&h, &a->entry.hash))
		find(
		    l, VERIFY_ALTERED, "event %" PRIu64 " is not what its hash says", a->entry.seq);
}

int
delivered_take(struct delivered *d, struct slice line, struct err *err)
{
	char room[TRAIL_LINE_MAX + DELIVERY_MAX];
	struct arrival a;
	struct entry *e;
	struct log *l;

	if (line.n > sizeof(room) || !parse(line, room, &a))
		return 0;
	if ((l = log_of(d, a.log)) == NULL || (e = push(&l->entries, sizeof(*e))) == NULL)
		return err_set(err, "memory is short");
	*e = a.entry;
	if (a.entry.seq >= l->last && a.at.n > 0) {
		l->last = a.entry.seq;
		slice_to_cstr(a.at, l->pub.last_at, sizeof(l->pub.last_at));
	}
	take_hash(l, &a);
	return take_checkpoint(d, l, &a, err) == -1 ? -1 : 1;
}

/* ---- judging ---- */

static int
compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return (x->prev < y->prev) - (x->prev > y->prev);
}

static int
compare_heads(const void *a, const void *b)
{
	const struct head *x = a, *y = b;

	return (x->size > y->size) - (x->size < y->size);
}

/* One of each number is left: the one that claims most of what came before it. */
static void
drop_repeats(struct log *l)
{
	struct entry *e = l->entries.mem;
	size_t n = 0;

	for (size_t i = 0; i < l->entries.n; i++) {
		if (n == 0 || e[i].seq != e[n - 1].seq) {
			e[n++] = e[i];
			continue;
		}
		l->pub.repeated++;
		e[n - 1].stub &= e[i].stub;
		if (!merkle_equal(&e[i].hash, &e[n - 1].hash))
			find(l, VERIFY_ALTERED, "event %" PRIu64 " arrived with two contents",
			    e[i].seq);
	}
	l->pub.events = l->entries.n = n;
}

static bool
is_there(const struct log *l, uint64_t seq)
{
	const struct entry wanted = { .seq = seq, .prev = UINT64_MAX }, *e = l->entries.mem;
	size_t from = 0, to = l->entries.n;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (compare_entries(&e[middle], &wanted) < 0)
			from = middle + 1;
		else
			to = middle;
	}
	return from < l->entries.n && e[from].seq == seq;
}

/* Each event names the one that was delivered before it. */
static void
follow(struct log *l)
{
	const struct entry *e = l->entries.mem;

	for (size_t i = 1; i < l->entries.n; i++) {
		if (e[i].prev >= e[i].seq)
			find(l, VERIFY_ALTERED,
			    "event %" PRIu64 " names a later one as its predecessor", e[i].seq);
		else if (e[i].prev == 0 && e[i].seq != e[i - 1].seq + 1)
			find(l, VERIFY_CANNOT_TELL,
			    "event %" PRIu64
			    " does not say what was delivered before it: perhaps more than event "
			    "%" PRIu64,
			    e[i].seq, e[i - 1].seq);
		else if (e[i].prev > e[i - 1].seq ||
			 (e[i].prev >= e[0].seq && !is_there(l, e[i].prev)))
			find(l, VERIFY_INCOMPLETE,
			    "event %" PRIu64 " was delivered before event %" PRIu64
			    " and is not here",
			    e[i].prev, e[i].seq);
	}
	if (e[0].prev > 0)
		find(l, VERIFY_NOTE, "event %" PRIu64 " was delivered before the first one here",
		    e[0].prev);
}

/* As far as there is each number, do they lead to the roots that were signed?  The sizes of the last
 * one that they lead to, and of the first one that they do not; or 0. */
static void
climb(const struct log *l, uint64_t *proven, uint64_t *missed)
{
	const struct entry *e = l->entries.mem;
	const struct head *h = l->heads.mem;
	struct merkle_tree tree = MERKLE_TREE_INIT;
	struct merkle_hash root;
	size_t next = 0;

	*proven = *missed = 0;
	for (size_t i = 0; i < l->entries.n && e[i].seq == e[0].seq + i && *missed == 0; i++) {
		merkle_append(&tree, &e[i].hash);
		for (; next < l->heads.n && h[next].size <= tree.size && *missed == 0; next++) {
			merkle_root(&tree, &root);
			if (h[next].size == tree.size && merkle_equal(&root, &h[next].root))
				*proven = tree.size;
			else if (h[next].size > 0)
				*missed = h[next].size;
		}
	}
}

/* The number before a log's first event is not known where that event is not here. */
static void
judge_roots(struct log *l)
{
	const struct entry *e = l->entries.mem;
	uint64_t proven, missed;

	climb(l, &proven, &missed);
	l->pub.report.checkpoint = l->largest;
	l->pub.report.unsigned_lines = l->entries.n - proven;
	if (l->largest.size > 0 && proven == l->largest.size)
		return;
	if (l->largest.size == 0)
		find(l, VERIFY_CANNOT_TELL, "no checkpoint of a given key is here");
	else if (missed > 0 && e[0].seq == 1)
		find(l, VERIFY_ALTERED,
		    "events 1 to %" PRIu64 " do not lead to the root that was signed", missed);
	else
		find(l, VERIFY_CANNOT_TELL,
		    "events of the log are not here, without which the root that was signed cannot "
		    "be made");
	if (l->pub.report.unaltered == VERIFY_YES)
		l->pub.report.unaltered = VERIFY_UNKNOWN;
}

static void
judge(struct log *l)
{
	struct verify_report *r = &l->pub.report;

	qsort(l->entries.mem, l->entries.n, sizeof(struct entry), compare_entries);
	if (l->heads.n > 0)
		qsort(l->heads.mem, l->heads.n, sizeof(struct head), compare_heads);
	drop_repeats(l);
	for (size_t i = 0; i < l->entries.n; i++)
		l->pub.stubs += ((struct entry *)l->entries.mem)[i].stub;
	r->first = ((struct entry *)l->entries.mem)[0].seq;
	r->last = ((struct entry *)l->entries.mem)[l->entries.n - 1].seq;
	follow(l);
	judge_roots(l);
}

int
delivered_judge(struct delivered *d, delivered_fn tell, void *arg)
{
	for (struct log *l = d->logs; l != NULL; l = l->next) {
		judge(l);
		if (tell(arg, &l->pub) == -1)
			return -1;
	}
	return 0;
}

/* ---- the whole ---- */

struct delivered *
delivered_new(const struct checkpoint_key *keys, size_t nkeys)
{
	struct delivered *d = calloc(1, sizeof(*d));

	if (d != NULL) {
		d->keys = keys;
		d->nkeys = nkeys;
		d->end = &d->logs;
	}
	return d;
}

void
delivered_free(struct delivered *d)
{
	struct log *next;

	if (d == NULL)
		return;
	for (struct log *l = d->logs; l != NULL; l = next) {
		next = l->next;
		free(l->entries.mem);
		free(l->heads.mem);
		free(l);
	}
	free(d);
}
