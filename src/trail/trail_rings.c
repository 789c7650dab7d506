/*
 * Recovery of the rings: a line that a killed process had committed and that is not in the trail
 * yet is appended now, and so is the line of a call in flight that has no record.  Only lines after
 * a mark that the ring or the slot names can be in both; they are told by id and kind.  At last,
 * every intent whose call has no closing event gets one; not so while another process's calls go on,
 * whose intents look the same: who was killed has a slot for each of his.
 */
#include "keytrail/clock.h"
#include "keytrail/fault.h"
#include "trail_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* What tells lines apart: an intent has the id of its call. */
struct key {
	struct slice id; /* all of the event where there is none */
	bool intent;
};

struct held {
	struct slice line; /* own copy */
	struct key key;	   /* within it */
	size_t order;
	bool slot;  /* of a call in flight */
	bool known; /* the trail has it, or another held line */
};

struct rings {
	struct trail *t;
	bool given; /* rings of that kind are another process's */
	trail_left_fn append;
	void *arg;
	char **names;
	size_t nnames;
	struct held *held;
	size_t nheld;
	bool marked;
	uint64_t segment, offset; /* the oldest mark there is */
	struct slice *intents;	  /* own copies: of these no closing event was seen yet */
	size_t nintents, intents_room;
	uint64_t from_slots, from_rings; /* appended */
};

/* Room for one more of n; the array grows at every power of two. */
static void *
grow(void *array, size_t n, size_t size)
{
	if (n > 0 && (n & (n - 1)) != 0)
		return array;
	return realloc(array, (n == 0 ? 1 : n * 2) * size);
}

static struct key
line_key(struct slice event)
{
	struct slice id = trail_line_string(event, SLICE("id"));
	bool intent = slice_equal(trail_line_string(event, SLICE("kind")), SLICE("intent"));

	return (struct key){ id.n > 0 ? id : event, intent };
}

static int
copy_slice(struct slice *s)
{
	char *copy = malloc(s->n + 1);

	if (copy == NULL)
		return -1;
	memcpy(copy, s->p, s->n);
	s->p = copy;
	return 0;
}

static void
free_slice(struct slice s)
{
	free((void *)(uintptr_t)s.p);
}

static void
look_from(struct rings *r, uint64_t segment, uint64_t offset)
{
	if (!r->marked || segment < r->segment || (segment == r->segment && offset < r->offset)) {
		r->segment = segment;
		r->offset = offset;
	}
	r->marked = true;
}

/* A newline would make two of it, of which none is a line. */
static bool
can_be_line(struct slice s)
{
	return s.n >= 2 && s.p[0] == '{' && s.n + TRAIL_MEMBER_MAX <= TRAIL_LINE_MAX &&
	       memchr(s.p, '\n', s.n) == NULL;
}

static int
hold(void *arg, struct slice line, unsigned flags, uint64_t segment, uint64_t offset,
    struct err *err)
{
	struct rings *r = arg;
	struct held *more;

	if (!can_be_line(line))
		return 0;
	if ((more = grow(r->held, r->nheld, sizeof(*more))) == NULL)
		return err_set_errno(err, "%s: recover the rings", r->t->path);
	r->held = more;
	if (copy_slice(&line) == -1)
		return err_set_errno(err, "%s: recover the rings", r->t->path);
	look_from(r, segment, offset);
	r->held[r->nheld] = (struct held){ .line = line,
		.key = line_key(line),
		.order = r->nheld,
		.slot = (flags & RING_SLOT) != 0 };
	r->nheld++;
	return 0;
}

/* ---- intents that nothing has closed ---- */

static int
add_intent(struct rings *r, struct slice event, struct err *err)
{
	/* Longer than any of ours: its closing event could not be appended. */
	if (event.n + TRAIL_RECOVERED_MAX + TRAIL_MEMBER_MAX > TRAIL_LINE_MAX)
		return 0;
	if (r->nintents == r->intents_room) {
		size_t room = r->intents_room == 0 ? 64 : 2 * r->intents_room;
		struct slice *more = realloc(r->intents, room * sizeof(*more));

		if (more == NULL)
			return err_set_errno(err, "%s: recover intents", r->t->path);
		r->intents = more;
		r->intents_room = room;
	}
	if (copy_slice(&event) == -1)
		return err_set_errno(err, "%s: recover intents", r->t->path);
	r->intents[r->nintents++] = event;
	return 0;
}

/* An event that the trail has, or gets now.  Never more intents are open than calls were in
 * flight, and most are closed soon: the latest are looked at first. */
static int
note_event(struct rings *r, struct slice event, struct err *err)
{
	struct key key;

	key = line_key(event);
	if (r->nintents == 0 && !key.intent)
		return 0;
	for (size_t i = r->nintents; i > 0; i--) {
		struct slice *open = &r->intents[i - 1];

		if (!slice_equal(line_key(*open).id, key.id))
			continue;
		if (key.intent)
			return 0;
		free_slice(*open);
		/* The order is kept: they are closed in the order in which they came. */
		memmove(open, open + 1, (r->nintents - i) * sizeof(*open));
		r->nintents--;
		return 0;
	}
	return key.intent ? add_intent(r, event, err) : 0;
}

/* ---- which of them the trail has ---- */

static int
compare_key(const struct key *a, const struct key *b)
{
	int c = slice_compare(a->id, b->id);

	return c != 0 ? c : a->intent - b->intent;
}

static int
compare_keys(const void *a, const void *b)
{
	const struct held *x = a, *y = b;
	int c = compare_key(&x->key, &y->key);

	return c != 0 ? c : (x->order > y->order) - (x->order < y->order);
}

static int
compare_order(const void *a, const void *b)
{
	const struct held *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

/* Sorted by key: mark the lines of this one. */
static void
mark_known(struct rings *r, const struct key *key)
{
	size_t low = 0, high = r->nheld;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_key(&r->held[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < r->nheld && compare_key(&r->held[low].key, key) == 0; low++)
		r->held[low].known = true;
}

/* Sorted by key: a slot gives way to what was committed for its call, which was held before it. */
static void
mark_repeated_slots(struct rings *r)
{
	for (size_t i = 1; i < r->nheld; i++)
		if (r->held[i].slot && compare_key(&r->held[i - 1].key, &r->held[i].key) == 0)
			r->held[i].known = true;
}

/* An intent behind the closing event of its call would open the call again: where a power cut left
 * only the latter, nothing is missing. */
static int
see_event(struct rings *r, struct slice event, struct err *err)
{
	struct key key;

	if (r->nheld > 0) {
		key = line_key(event);
		mark_known(r, &key);
		key.intent = true;
		mark_known(r, &key);
	}
	return note_event(r, event, err);
}

static int
mark_segment(struct rings *r, struct trail_cursor *c, uint64_t first, uint64_t end, uint64_t offset,
    struct err *err)
{
	struct trail_name name = trail_segment_name(first, "");
	struct trail_piece p;
	struct trail_member m;
	struct stat st;
	int fd, rc;

	if ((fd = openat(r->t->dirfd, name.s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1 ||
	    fstat(fd, &st) == -1) {
		err_set_errno(err, "%s: %s", r->t->path, name.s);
		if (fd != -1)
			close(fd);
		return -1;
	}
	if (offset > (uint64_t)st.st_size)
		offset = (uint64_t)st.st_size;
	trail_cursor_set(c, fd, first, offset, (uint64_t)st.st_size);
	while ((rc = trail_cursor_next(c, &p, err)) == 1)
		if (trail_cursor_parse(c, &p, &m) && m.seq < end &&
		    see_event(r, slice_sub(p.bytes, 0, m.event_len), err) == -1) {
			rc = -1;
			break;
		}
	close(fd);
	return rc;
}

static int
mark_all_known(struct rings *r, struct err *err)
{
	struct trail_cursor c;
	struct trail_list l;
	int rc = -1;

	if (trail_cursor_init(&c, err) == -1)
		return -1;
	c.step_over = true;
	c.log = &r->t->log;
	if (trail_list_segments(r->t->dirfd, &l, err) == -1) {
		err_prefix(err, "%s", r->t->path);
		goto out;
	}
	trail_drop_strays(r->t->dirfd, &r->t->log, r->segment, &r->t->mark, &l);
	rc = 0;
	if (r->nheld > 0)
		qsort(r->held, r->nheld, sizeof(*r->held), compare_keys);
	mark_repeated_slots(r);
	for (size_t i = 0; i < l.n && rc == 0; i++)
		if (l.first[i] >= r->segment)
			rc = mark_segment(r, &c, l.first[i], trail_list_end(&l, i),
			    l.first[i] == r->segment ? r->offset : 0, err);
	if (r->nheld > 0)
		qsort(r->held, r->nheld, sizeof(*r->held), compare_order);
	trail_list_free(&l);
out:
	trail_cursor_fini(&c);
	return rc;
}

/* ---- the rings and what becomes of them ---- */

/* "ring.main" first: a life's start comes before what its workers had. */
static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)b, *(char *const *)a);
}

/* "ring.main" and "ring.<n>"; what else bears such a name is left alone. */
static bool
is_ring(const struct rings *r, const char *name)
{
	struct stat st;
	uint64_t n = 0;

	if (strncmp(name, "ring.", 5) != 0 ||
	    (strcmp(name + 5, "main") != 0 && slice_to_u64(slice_of(name + 5), &n) == -1))
		return false;
	if (r->given && n >= TRAIL_GIVEN_RINGS)
		return false;
	return fstatat(r->t->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int
add_name(struct rings *r, const char *name)
{
	char **more = grow(r->names, r->nnames, sizeof(*more));

	if (more == NULL)
		return -1;
	r->names = more;
	if ((r->names[r->nnames] = strdup(name)) == NULL)
		return -1;
	r->nnames++;
	return 0;
}

static int
list_rings(struct rings *r, struct err *err)
{
	struct dirent *d;
	DIR *dir;
	int fd;

	if ((fd = openat(r->t->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: list rings", r->t->path);
	if ((dir = fdopendir(fd)) == NULL) {
		close(fd);
		return err_set_errno(err, "%s: list rings", r->t->path);
	}
	while (errno = 0, (d = readdir(dir)) != NULL) {
		if (is_ring(r, d->d_name) && add_name(r, d->d_name) == -1)
			break;
	}
	if (errno != 0) {
		err_set_errno(err, "%s: list rings", r->t->path);
		closedir(dir);
		return -1;
	}
	closedir(dir);
	if (r->nnames > 0)
		qsort(r->names, r->nnames, sizeof(*r->names), compare_names);
	return 0;
}

/* Append what recovery found, saying so. */
static int
append_recovered(const struct rings *r, struct slice line, struct err *err)
{
	char text[TRAIL_LINE_MAX];

	/* The longest of lines has no room to say that it was recovered. */
	if (line.n + TRAIL_RECOVERED_MAX + TRAIL_MEMBER_MAX <= TRAIL_LINE_MAX)
		line = (struct slice){ text, trail_line_recovered(line, text) };
	return r->append(r->arg, line, err);
}

static int
append_unknown(struct rings *r, struct err *err)
{
	for (size_t i = 0; i < r->nheld; i++) {
		const struct held *h = &r->held[i];

		if (h->known)
			continue;
		if (note_event(r, h->line, err) == -1 || append_recovered(r, h->line, err) == -1)
			return -1;
		if (h->slot)
			r->from_slots++;
		else
			r->from_rings++;
	}
	return 0;
}

static int
close_intents(struct rings *r, struct err *err)
{
	char text[TRAIL_LINE_MAX];

	for (size_t i = 0; i < r->nintents; i++) {
		size_t n = trail_line_closing(r->intents[i], text);

		if (append_recovered(r, (struct slice){ text, n }, err) == -1)
			return -1;
		r->t->found.intents_closed++;
	}
	return 0;
}

static int
append_all(struct rings *r, struct err *err)
{
	struct trail_recovery *found = &r->t->found;

	if (append_unknown(r, err) == -1 || (!r->given && close_intents(r, err) == -1) ||
	    trail_write(r->t, err) == -1 || trail_sync(r->t, err) == -1)
		return -1;
	found->from_slots += r->from_slots;
	found->from_rings += r->from_rings;
	return 0;
}

static int
read_ring(struct rings *r, const char *name, struct err *err)
{
	uint64_t segment, offset;
	bool cut;

	if (ring_is_cut(r->t->dirfd, name, &cut, err) == -1 ||
	    ring_recover(r->t->dirfd, name, hold, r, err) == -1 ||
	    ring_horizon(r->t->dirfd, name, &segment, &offset, err) == -1)
		return err_prefix(err, "%s", r->t->path);
	if (segment != 0)
		look_from(r, segment, offset);
	r->t->found.rings_cut += cut;
	return 0;
}

/* What it held is gone, and where its calls' intents are nobody knows: all of the trail is looked
 * through for them. */
static int
miss_rings(struct rings *r, unsigned expected, struct err *err)
{
	char name[TRAIL_RING_NAME_SIZE];
	uint64_t segment, offset;

	for (unsigned i = 0; i < expected; i++) {
		trail_ring_name(i, expected, name);
		if (ring_horizon(r->t->dirfd, name, &segment, &offset, err) == -1)
			return err_prefix(err, "%s", r->t->path);
		if (segment != 0)
			continue;
		r->t->found.rings_cut++;
		look_from(r, 0, 0);
	}
	if (r->t->found.state_lost)
		look_from(r, 0, 0);
	return 0;
}

static int
recover_all(struct rings *r, unsigned expected, struct err *err)
{
	if (list_rings(r, err) == -1)
		return -1;
	for (size_t i = 0; i < r->nnames; i++)
		if (read_ring(r, r->names[i], err) == -1)
			return -1;
	if (miss_rings(r, expected, err) == -1)
		return -1;
	if (r->marked && (mark_all_known(r, err) == -1 || append_all(r, err) == -1))
		return -1;
	FAULT_POINT("recover.after_rings");
	r->t->rings = 0;
	if (trail_identify(r->t, false, err) == -1)
		return -1;
	for (size_t i = 0; i < r->nnames; i++)
		if (ring_clear(r->t->dirfd, r->names[i], err) == -1)
			return err_prefix(err, "%s", r->t->path);
	return 0;
}

static void
rings_fini(struct rings *r)
{
	for (size_t i = 0; i < r->nheld; i++)
		free_slice(r->held[i].line);
	for (size_t i = 0; i < r->nnames; i++)
		free(r->names[i]);
	for (size_t i = 0; i < r->nintents; i++)
		free_slice(r->intents[i]);
	free(r->held);
	free(r->names);
	free(r->intents);
}

static int
append_now(void *arg, struct slice line, struct err *err)
{
	uint64_t seq;

	return trail_append(arg, line, clock_wall_ns(), &seq, err);
}

int
trail_recover_rings(struct trail *t, unsigned expected, bool given, struct err *err)
{
	struct rings r = { .t = t, .given = given, .append = append_now, .arg = t };
	int rc = recover_all(&r, expected, err);

	rings_fini(&r);
	return rc;
}

/* It was drained in order: all up to the last line that the trail has is recorded, or told as lost. */
static const struct held *
last_known(const struct rings *r)
{
	for (size_t i = r->nheld; i > 0; i--)
		if (r->held[i - 1].known && !r->held[i - 1].slot)
			return &r->held[i - 1];
	return NULL;
}

static void
skip_to(struct ring *ring, const struct held *last, const struct trail_mark *mark)
{
	uint64_t pos = ring_tail(ring);
	struct slice line;
	unsigned flags;

	while (ring_next(ring, &pos, &line, &flags) && !slice_equal(line, last->line))
		continue;
	ring_release(ring, pos, mark->segment, mark->offset);
}

int
trail_skip_recorded(struct trail *t, struct ring *ring, struct err *err)
{
	struct rings r = { .t = t };
	int rc = ring_recover(t->dirfd, ring_name(ring), hold, &r, err);

	ring_follow(ring);
	if (rc == 0 && r.nheld > 0 && (rc = mark_all_known(&r, err)) == 0 && last_known(&r) != NULL)
		skip_to(ring, last_known(&r), &t->mark);
	rings_fini(&r);
	return rc;
}

static int
find_left(struct rings *r, unsigned n, struct err *err)
{
	char name[TRAIL_RING_NAME_SIZE];

	for (unsigned i = 0; i < n; i++) {
		trail_given_ring_name(i, name);
		if (ring_recover(r->t->dirfd, name, hold, r, err) == -1)
			return err_prefix(err, "%s", r->t->path);
	}
	if (r->nheld > 0 && mark_all_known(r, err) == -1)
		return -1;
	return append_unknown(r, err);
}

int
trail_find_left(struct trail *t, unsigned n, trail_left_fn each, void *arg, struct err *err)
{
	struct rings r = { .t = t, .append = each, .arg = arg };
	int rc = find_left(&r, n, err);

	rings_fini(&r);
	return rc;
}
