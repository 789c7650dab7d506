/*
 * Recovery of the rings: a line that a killed process had committed and that is not in the trail
 * yet is appended now.  Only lines after a ring's last release can be in both; they are told by id.
 */
#include "keytrail/clock.h"
#include "keytrail/ring.h"
#include "trail_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct held {
	struct slice line; /* own copy */
	struct slice key;  /* within it */
	size_t order;
	bool known; /* the trail has it */
};

struct rings {
	struct trail *t;
	char **names;
	size_t nnames;
	struct held *held;
	size_t nheld;
	uint64_t segment, offset; /* the oldest mark of a ring that holds something */
};

/* Room for one more of n; the array grows at every power of two. */
static void *
grow(void *array, size_t n, size_t size)
{
	if (n > 0 && (n & (n - 1)) != 0)
		return array;
	return realloc(array, (n == 0 ? 1 : n * 2) * size);
}

/* What tells lines apart: the id, or all of the event where there is none. */
static struct slice
line_key(struct slice event)
{
	struct slice id = trail_line_string(event, SLICE("id"));

	return id.n > 0 ? id : event;
}

static int
hold(void *arg, struct slice line, unsigned flags, uint64_t segment, uint64_t offset,
    struct err *err)
{
	struct rings *r = arg;
	struct held *more;
	char *copy;

	(void)flags;
	if (line.n < 2 || line.p[0] != '{' || line.n + TRAIL_MEMBER_MAX > TRAIL_LINE_MAX)
		return 0;
	if ((more = grow(r->held, r->nheld, sizeof(*more))) == NULL)
		return err_set_errno(err, "%s: recover the rings", r->t->path);
	r->held = more;
	if ((copy = malloc(line.n)) == NULL)
		return err_set_errno(err, "%s: recover the rings", r->t->path);
	memcpy(copy, line.p, line.n);
	line.p = copy;
	if (r->nheld == 0 || segment < r->segment ||
	    (segment == r->segment && offset < r->offset)) {
		r->segment = segment;
		r->offset = offset;
	}
	r->held[r->nheld] = (struct held){ line, line_key(line), r->nheld, false };
	r->nheld++;
	return 0;
}

/* ---- which of them the trail has ---- */

static int
compare_slices(struct slice a, struct slice b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int
compare_keys(const void *a, const void *b)
{
	const struct held *x = a, *y = b;
	int c = compare_slices(x->key, y->key);

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
mark_known(struct rings *r, struct slice key)
{
	size_t low = 0, high = r->nheld;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_slices(r->held[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < r->nheld && slice_equal(r->held[low].key, key); low++)
		r->held[low].known = true;
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
	trail_cursor_set(c, fd, offset, (uint64_t)st.st_size);
	while ((rc = trail_cursor_next(c, &p, err)) == 1)
		if (p.whole && trail_parse_line(p.bytes, &m) == 0 && m.seq < end)
			mark_known(r, line_key(slice_sub(p.bytes, 0, m.event_len)));
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
	if (trail_list_segments(r->t->dirfd, &l, err) == -1)
		goto out;
	rc = 0;
	qsort(r->held, r->nheld, sizeof(*r->held), compare_keys);
	for (size_t i = 0; i < l.n && rc == 0; i++)
		if (l.first[i] >= r->segment)
			rc = mark_segment(r, &c, l.first[i], trail_list_end(&l, i),
			    l.first[i] == r->segment ? r->offset : 0, err);
	qsort(r->held, r->nheld, sizeof(*r->held), compare_order);
	trail_list_free(&l);
out:
	trail_cursor_fini(&c);
	return rc;
}

/* ---- the rings and what becomes of them ---- */

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int
list_rings(struct rings *r, struct err *err)
{
	struct dirent *d;
	char **more;
	DIR *dir;
	int fd;

	if ((fd = openat(r->t->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: list rings", r->t->path);
	if ((dir = fdopendir(fd)) == NULL) {
		close(fd);
		return err_set_errno(err, "%s: list rings", r->t->path);
	}
	while (errno = 0, (d = readdir(dir)) != NULL) {
		if (strncmp(d->d_name, "ring.", 5) != 0)
			continue;
		if ((more = grow(r->names, r->nnames, sizeof(*more))) == NULL)
			break;
		r->names = more;
		if ((r->names[r->nnames] = strdup(d->d_name)) == NULL)
			break;
		r->nnames++;
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

static int
append_unknown(struct rings *r, uint64_t *count, struct err *err)
{
	char text[TRAIL_LINE_MAX];
	int64_t now = clock_wall_ns();
	uint64_t seq;

	for (size_t i = 0; i < r->nheld; i++) {
		struct slice line = r->held[i].line;

		if (r->held[i].known)
			continue;
		/* The longest of lines has no room to say that it was recovered. */
		if (line.n + TRAIL_RECOVERED_MAX + TRAIL_MEMBER_MAX <= TRAIL_LINE_MAX)
			line = (struct slice){ text, trail_line_recovered(line, text) };
		if (trail_append(r->t, line, now, &seq, err) == -1)
			return -1;
		++*count;
	}
	if (trail_write(r->t, err) == -1 || trail_sync(r->t, err) == -1)
		return -1;
	return 0;
}

static int
recover_all(struct rings *r, struct trail_recovery *rec, struct err *err)
{
	if (list_rings(r, err) == -1)
		return -1;
	for (size_t i = 0; i < r->nnames; i++)
		if (ring_recover(r->t->dirfd, r->names[i], hold, r, err) == -1)
			return err_prefix(err, "%s", r->t->path);
	if (r->nheld > 0 &&
	    (mark_all_known(r, err) == -1 || append_unknown(r, &rec->from_rings, err) == -1))
		return -1;
	for (size_t i = 0; i < r->nnames; i++)
		if (ring_clear(r->t->dirfd, r->names[i], err) == -1)
			return err_prefix(err, "%s", r->t->path);
	return 0;
}

int
trail_recover_rings(struct trail *t, struct trail_recovery *rec, struct err *err)
{
	struct rings r = { .t = t };
	int rc = recover_all(&r, rec, err);

	for (size_t i = 0; i < r.nheld; i++)
		free((void *)(uintptr_t)r.held[i].line.p);
	for (size_t i = 0; i < r.nnames; i++)
		free(r.names[i]);
	free(r.held);
	free(r.names);
	return rc;
}
