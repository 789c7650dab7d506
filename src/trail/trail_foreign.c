/* Segments that somebody has copied here from another trail, and files that are none at all. */
#include "keytrail/fault.h"
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum whose { OURS, THEIRS, NOBODYS };

/* Any log's, by its id, up to the base; but not in a segment that begins above it. */
static bool
is_ours(const struct trail *t, uint64_t first, const struct trail_member *m)
{
	return m->seq >= first || slice_equal(m->log, slice_of(t->log.id));
}

/* One line of our own is worth keeping all that surrounds it. */
static enum whose
find_owner(const struct trail *t, struct trail_cursor *c, uint64_t first)
{
	struct trail_name name = trail_segment_name(first, "");
	int fd = openat(t->dirfd, name.s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	enum whose whose = NOBODYS;
	struct trail_piece p;
	struct trail_member m;
	struct stat st;
	struct err err;

	if (fd == -1)
		return OURS;
	if (fstat(fd, &st) == -1)
		whose = OURS;
	else
		trail_cursor_set(c, fd, first, 0, (uint64_t)st.st_size);
	while (whose != OURS && trail_cursor_next(c, &p, &err) == 1) {
		if (trail_cursor_parse(c, &p, &m) && is_ours(t, first, &m))
			whose = OURS;
		else if (p.whole && trail_parse_line(p.bytes, &m) == 0)
			whose = THEIRS;
	}
	close(fd);
	return whose;
}

static bool
is_foreign(const struct trail *t, struct trail_cursor *c, const struct trail_mark *durable,
    const struct trail_list *l, size_t i)
{
	uint64_t first = l->first[i];
	enum whose whose = find_owner(t, c, first);

	return whose == THEIRS || (whose == NOBODYS && first != durable->segment &&
				      trail_is_stray(t->dirfd, &t->log, l, i));
}

static int
begin(const struct trail *t, struct trail_list *l, struct trail_cursor *c, struct err *err)
{
	if (trail_list_segments(t->dirfd, l, err) == -1)
		return err_prefix(err, "%s", t->path);
	if (trail_cursor_init(c, err) == -1) {
		trail_list_free(l);
		return -1;
	}
	c->step_over = true;
	c->log = &t->log;
	return 0;
}

int
trail_list_foreign(const struct trail *t, const struct trail_mark *durable, struct trail_list *out,
    struct err *err)
{
	struct trail_cursor c;
	struct trail_list l;

	if (begin(t, &l, &c, err) == -1)
		return -1;
	*out = (struct trail_list){ calloc(l.n + 1, sizeof(*l.first)), 0 };
	for (size_t i = 0; i < l.n && out->first != NULL; i++)
		if (l.first[i] != t->open.first && !trail_list_has(&t->seen.names, l.first[i]) &&
		    is_foreign(t, &c, durable, &l, i))
			out->first[out->n++] = l.first[i];
	trail_list_free(&l);
	trail_cursor_fini(&c);
	return out->first != NULL ? 0 : err_set_errno(err, "%s", t->path);
}

bool
trail_is_alien(const struct trail *t)
{
	struct trail_cursor c;
	struct trail_list l;
	struct err err;
	bool alien;

	if (begin(t, &l, &c, &err) == -1)
		return false;
	alien = l.n > 0;
	for (size_t i = 0; i < l.n && alien; i++)
		alien = find_owner(t, &c, l.first[i]) == THEIRS;
	trail_cursor_fini(&c);
	trail_list_free(&l);
	return alien;
}

/* Under a name that is free: what was put aside before is evidence too. */
static struct trail_name
find_name(const struct trail *t, uint64_t first)
{
	struct trail_name name = trail_segment_name(first, ".foreign");
	char suffix[24];

	for (unsigned n = 2; faccessat(t->dirfd, name.s, F_OK, AT_SYMLINK_NOFOLLOW) == 0; n++) {
		snprintf(suffix, sizeof(suffix), ".foreign.%u", n);
		name = trail_segment_name(first, suffix);
	}
	return name;
}

static int
put_one_aside(const struct trail *t, uint64_t first)
{
	struct trail_name name = trail_segment_name(first, "");
	struct trail_name aside = find_name(t, first);

	return renameat(t->dirfd, name.s, t->dirfd, aside.s);
}

size_t
trail_put_aside(struct trail *t, const struct trail_list *l)
{
	size_t done = 0;

	for (size_t i = 0; i < l->n; i++)
		done += put_one_aside(t, l->first[i]) == 0;
	fsync(t->dirfd);
	return done;
}

/* ---- while the trail is written ---- */

int
trail_find_foreign(struct trail *t, size_t *n, struct err *err)
{
	struct trail_list l;

	if (trail_list_foreign(t, &t->mark, &l, err) == -1)
		return -1;
	*n = 0;
	for (size_t i = 0; i < l.n; i++)
		*n += !trail_list_has(&t->foreign, l.first[i]);
	trail_list_free(&t->foreign);
	t->foreign = l;
	return 0;
}

int
trail_put_foreign_aside(struct trail *t, struct err *err)
{
	struct trail_list *l = &t->foreign;
	size_t n = l->n;
	int rc = 0;

	l->n = 0;
	for (size_t i = 0; i < n; i++) {
		if (put_one_aside(t, l->first[i]) == 0 || errno == ENOENT)
			continue;
		rc = err_set_errno(
		    err, "%s: put %s aside", t->path, trail_segment_name(l->first[i], "").s);
		l->first[l->n++] = l->first[i];
	}
	if (l->n == n)
		return rc;
	FAULT_POINT("aside.after_rename");
	if (fsync(t->dirfd) == -1)
		rc = err_set_errno(err, "%s: sync", t->path);
	return rc;
}
