#include "trail_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS	  20
#define SUFFIX	  ".jsonl"
#define READ_AT	  (4 * TRAIL_LINE_MAX)
#define SEEK_NEAR 65536 /* bytes that are read through rather than halved */

struct trail_name
trail_segment_name(uint64_t first, const char *suffix)
{
	struct trail_name name;

	snprintf(name.s, sizeof(name.s), "%0*" PRIu64 SUFFIX "%s", DIGITS, first, suffix);
	return name;
}

/* Files that only look like segments are none: they are left alone. */
static bool
parse_name(int dirfd, const char *s, uint64_t *first)
{
	struct stat st;

	if (strlen(s) != DIGITS + sizeof(SUFFIX) - 1 || strcmp(s + DIGITS, SUFFIX) != 0 ||
	    slice_to_u64((struct slice){ s, DIGITS }, first) == -1)
		return false;
	if (*first == 0 || *first >= TRAIL_NAME_END)
		return false;
	return fstatat(dirfd, s, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int
list_add(struct trail_list *l, uint64_t first)
{
	uint64_t *more;

	if ((l->n & (l->n - 1)) == 0) { /* grows at every power of two */
		more = realloc(l->first, (l->n == 0 ? 1 : l->n * 2) * sizeof(*more));
		if (more == NULL)
			return -1;
		l->first = more;
	}
	l->first[l->n++] = first;
	return 0;
}

int
trail_list_segments(int dirfd, struct trail_list *out, struct err *err)
{
	struct trail_list l = { NULL, 0 };
	struct dirent *d;
	uint64_t first;
	DIR *dir;
	int fd;

	if ((fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "list segments");
	if ((dir = fdopendir(fd)) == NULL) {
		close(fd);
		return err_set_errno(err, "list segments");
	}
	while (errno = 0, (d = readdir(dir)) != NULL)
		if (parse_name(dirfd, d->d_name, &first) && list_add(&l, first) == -1)
			break;
	if (errno != 0) {
		err_set_errno(err, "list segments");
		closedir(dir);
		trail_list_free(&l);
		return -1;
	}
	closedir(dir);
	if (l.n > 0)
		qsort(l.first, l.n, sizeof(*l.first), compare);
	*out = l;
	return 0;
}

void
trail_list_free(struct trail_list *l)
{
	free(l->first);
	*l = (struct trail_list){ NULL, 0 };
}

uint64_t
trail_list_end(const struct trail_list *l, size_t i)
{
	return i + 1 < l->n ? l->first[i + 1] : TRAIL_SEQ_END;
}

size_t
trail_list_find(const struct trail_list *l, uint64_t seq)
{
	size_t i = l->n;

	while (i > 0 && l->first[i - 1] > seq)
		i--;
	return i > 0 ? i - 1 : l->n;
}

bool
trail_list_has(const struct trail_list *l, uint64_t first)
{
	size_t i = trail_list_find(l, first);

	return i < l->n && l->first[i] == first;
}

void
trail_list_drop(struct trail_list *l, size_t i)
{
	memmove(l->first + i, l->first + i + 1, (--l->n - i) * sizeof(*l->first));
}

/* ---- the pieces of a file ---- */

int
trail_cursor_init(struct trail_cursor *c, struct err *err)
{
	*c = (struct trail_cursor){ .fd = -1 };
	if ((c->mem = malloc(READ_AT)) == NULL)
		return err_set_errno(err, "read the trail");
	return 0;
}

void
trail_cursor_fini(struct trail_cursor *c)
{
	free(c->mem);
	c->mem = NULL;
}

void
trail_cursor_set(struct trail_cursor *c, int fd, uint64_t segment, uint64_t at, uint64_t limit)
{
	c->fd = fd;
	c->segment = segment;
	c->at = at;
	c->limit = limit;
	c->start = c->end = 0;
	c->in_long = false;
}

/* A block that is stepped over reads as zeros, which are in no line. */
static ssize_t
read_at(const struct trail_cursor *c, char *p, size_t n, uint64_t at)
{
	size_t block = TRAIL_BLOCK - (size_t)(at % TRAIL_BLOCK);
	ssize_t got;

	while ((got = pread(c->fd, p, n, (off_t)at)) == -1 && errno == EINTR)
		continue;
	if (got != -1 || errno != EIO || !c->step_over)
		return got;
	if (n > block)
		n = block;
	memset(p, 0, n);
	return (ssize_t)n;
}

static int
fill(struct trail_cursor *c, struct err *err)
{
	size_t have = c->end - c->start, room;
	ssize_t n;

	memmove(c->mem, c->mem + c->start, have);
	c->start = 0;
	c->end = have;
	room = READ_AT - have;
	if (room > c->limit - c->at - have)
		room = (size_t)(c->limit - c->at - have);
	if ((n = read_at(c, c->mem + c->end, room, c->at + have)) == -1)
		return err_set_errno(err, "read %s at offset %" PRIu64,
		    trail_segment_name(c->segment, "").s, c->at + have);
	if (n == 0) /* shorter than it was: what is gone cannot be read */
		c->limit = c->at + have;
	c->end += (size_t)n;
	return 0;
}

static void
take(struct trail_cursor *c, size_t n, size_t newline, struct trail_piece *out)
{
	out->bytes = (struct slice){ c->mem + c->start, n };
	out->at = c->at;
	out->end = c->at + n + newline;
	out->whole = newline == 1 && !c->in_long;
	c->in_long = newline == 0;
	c->at = out->end;
	c->start += n + newline;
}

int
trail_cursor_next(struct trail_cursor *c, struct trail_piece *out, struct err *err)
{
	size_t seen = 0, have;
	const char *nl;

	for (;;) {
		have = c->end - c->start;
		nl = seen < have ? memchr(c->mem + c->start + seen, '\n', have - seen) : NULL;
		if (nl != NULL) {
			take(c, (size_t)(nl - (c->mem + c->start)), 1, out);
			return 1;
		}
		seen = have;
		if (have >= TRAIL_LINE_MAX || (have > 0 && c->at + have >= c->limit)) {
			take(c, have, 0, out);
			return 1;
		}
		if (c->at + have >= c->limit)
			return 0;
		if (fill(c, err) == -1)
			return -1;
	}
}

bool
trail_cursor_parse(
    const struct trail_cursor *c, const struct trail_piece *p, struct trail_member *m)
{
	return p->whole && trail_parse_line(p->bytes, m) == 0 && trail_owns(c->log, m);
}

bool
trail_member_is_below(const struct trail_member *m, const void *seq)
{
	return m->seq < *(const uint64_t *)seq;
}

int
trail_cursor_seek(struct trail_cursor *c, int fd, uint64_t segment, uint64_t limit,
    bool (*before)(const struct trail_member *m, const void *arg), const void *arg, struct err *err)
{
	uint64_t low = 0, high = limit;
	struct trail_piece p;
	struct trail_member m;
	int rc;

	while (high - low > SEEK_NEAR) {
		uint64_t middle = low + (high - low) / 2;

		trail_cursor_set(c, fd, segment, middle, limit);
		if ((rc = trail_cursor_next(c, &p, err)) == 1) /* part of a line */
			rc = trail_cursor_next(c, &p, err);
		if (rc == -1)
			return -1;
		if (rc == 1 && !trail_cursor_parse(c, &p, &m))
			break; /* damage: read it all */
		if (rc == 1 && before(&m, arg))
			low = p.at;
		else
			high = middle;
	}
	trail_cursor_set(c, fd, segment, low, limit);
	return 0;
}
