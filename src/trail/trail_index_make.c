/*
 * Making indexes: round after round through the segments, a piece at a time.
 *
 * Nothing of it is synced: a file that a power cut has torn fits its seal no more and is made anew, and
 * a sync would make the trail's own wait.
 */
#include "keytrail/file.h"
#include "trail_index_internal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LINES	 256 /* of a piece */
#define NEW_NAME "index/new"
#define SHARE	 4 /* no index is as much of its segment as one in this many */
/* A change sooner than this after another one may have the same time: the kernel's clock of files
 * ticks. */
#define TICK_NS (20 * CLOCK_NS_PER_MS)

/* ---- the directory ---- */

static bool
parse_name(const char *s, uint64_t *first)
{
	const char *dot = strrchr(s, '.');

	return dot != NULL && strcmp(dot, ".idx") == 0 &&
	       slice_to_u64((struct slice){ s, (size_t)(dot - s) }, first) == 0;
}

/* Those of segments that are not in the list. */
static void
remove_others(struct trail_index *ix, const struct trail_list *l)
{
	int fd = openat(ix->dirfd, "index", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct dirent *d;
	uint64_t first;
	DIR *dir;

	if (fd == -1)
		return;
	if ((dir = fdopendir(fd)) == NULL) {
		close(fd);
		return;
	}
	while ((d = readdir(dir)) != NULL)
		if (parse_name(d->d_name, &first) && !trail_list_has(l, first))
			unlinkat(fd, d->d_name, 0);
	closedir(dir);
}

static bool
has_room(const struct trail_index *ix, uint64_t need)
{
	struct statvfs fs;

	return fstatvfs(ix->dirfd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize >= need;
}

/* ---- a round ---- */

/* 1: begun; 0: there is nothing to do. */
static int
begin_round(struct trail_index *ix, uint64_t keep_free, struct err *err)
{
	struct index_maker *m = &ix->make;
	struct trail_state_info info;

	if (trail_state_load(ix->dirfd, &info, err) == -1)
		return -1;
	if (!has_room(ix, keep_free)) {
		remove_others(ix, &(struct trail_list){ .n = 0 });
		m->done_mark = 0;
		return 0;
	}
	if (!info.valid || info.mark.segment == m->done_mark)
		return 0;
	if (trail_list_segments(ix->dirfd, &m->list, err) == -1)
		return -1;
	remove_others(ix, &m->list);
	while (m->list.n > 0 && m->list.first[m->list.n - 1] >= info.mark.segment)
		m->list.n--;
	if (trail_index_load_key(ix, m->list.n > 0, err) == -1) {
		trail_list_free(&m->list);
		return -1;
	}
	m->log = info.log;
	m->done_mark = info.mark.segment;
	m->next = 0;
	m->later = false;
	return 1;
}

static int
end_round(struct index_maker *m)
{
	if (m->later)
		m->done_mark = 0;
	trail_list_free(&m->list);
	return 0;
}

/* ---- a segment ---- */

static bool
is_made(struct trail_index *ix, uint64_t first, const struct index_file *file)
{
	int fd = openat(ix->dirfd, trail_index_name(first).s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct index_head h;
	bool made;

	if (fd == -1)
		return false;
	made = trail_index_read_head(ix, fd, &ix->make.log, first, &h) &&
	       memcmp(&h.file, file, sizeof(h.file)) == 0;
	close(fd);
	return made;
}

/* Of the next one, where it has no index. */
static void
begin_segment(struct trail_index *ix, uint64_t keep_free)
{
	struct index_maker *m = &ix->make;
	uint64_t first = m->list.first[m->next++];
	struct index_file file;
	struct stat st;

	m->fd =
	    openat(ix->dirfd, trail_segment_name(first, "").s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (m->fd == -1)
		return;
	if (fstat(m->fd, &st) == 0) {
		file = trail_index_file(&st);
		if (is_made(ix, first, &file))
			goto out;
		if (file.changed_ns + TICK_NS < clock_wall_ns() &&
		    has_room(ix, 2 * keep_free + file.size / SHARE)) {
			m->head =
			    (struct index_head){ .first = first, .last = first - 1, .file = file };
			m->values.n = m->calls.n = 0;
			trail_cursor_set(&m->c, m->fd, first, 0, file.size);
			m->c.step_over = true;
			m->c.log = &m->log;
			return;
		}
	}
	m->later = true;
out:
	close(m->fd);
	m->fd = -1;
}

static int
add_line(struct trail_index *ix, struct slice line, uint64_t place)
{
	struct index_maker *m = &ix->make;

	for (int i = 0; i < TRAIL_INDEX_FIELDS; i++) {
		struct slice value = trail_index_value(line, (enum trail_index_field)i);
		int rc = 0;

		if (i == TRAIL_INDEX_CORRELATION && value.n > 0)
			rc = trail_index_add(&m->calls, trail_index_call(ix, value, place));
		else if (i != TRAIL_INDEX_CORRELATION)
			rc = trail_index_add(&m->values, trail_index_hash(ix, value));
		if (rc == -1)
			return -1;
	}
	return 0;
}

static void
note_time(struct index_head *h, struct slice at)
{
	if (h->earliest[0] == '\0' || slice_compare(at, slice_of(h->earliest)) < 0)
		slice_to_cstr(at, h->earliest, sizeof(h->earliest));
	if (slice_compare(at, slice_of(h->latest)) > 0)
		slice_to_cstr(at, h->latest, sizeof(h->latest));
}

/* 1: there is more of the segment; 0: it has ended, or is not whole; -1. */
static int
read_lines(struct trail_index *ix, struct err *err)
{
	struct index_maker *m = &ix->make;
	struct index_head *h = &m->head;
	struct trail_piece p;
	struct trail_member member;
	int rc = 1;

	for (unsigned i = 0; i < LINES && (rc = trail_cursor_next(&m->c, &p, err)) == 1; i++) {
		if (!trail_cursor_parse(&m->c, &p, &member) || member.seq != h->last + 1 ||
		    member.at.n >= sizeof(h->latest) || member.seq - h->first > UINT32_MAX) {
			h->last = h->first - 1;
			return 0;
		}
		if (add_line(ix, p.bytes, member.seq - h->first) == -1)
			return err_set(err, "index: memory is short");
		note_time(h, member.at);
		h->last = member.seq;
	}
	return rc;
}

static struct slice
bytes_of(const uint64_t *v, size_t n)
{
	return (struct slice){ (const char *)v, n * sizeof(*v) };
}

static void
seal(struct trail_index *ix)
{
	struct index_maker *m = &ix->make;
	struct index_head *h = &m->head;
	size_t begin = 0;

	memcpy(h->magic, INDEX_MAGIC, sizeof(h->magic));
	memcpy(h->log, m->log.id, sizeof(m->log.id));
	h->nvalues = m->values.n;
	h->values_seal = trail_index_hash(ix, bytes_of(m->values.v, m->values.n));
	for (size_t i = 0; i < INDEX_BUCKETS; i++) {
		size_t end = i + 1 < INDEX_BUCKETS
				 ? trail_index_find(&m->calls, (uint64_t)(i + 1) << 56)
				 : m->calls.n;
		struct slice calls =
		    begin < end ? bytes_of(m->calls.v + begin, end - begin) : SLICE_EMPTY;

		h->buckets[i] = (struct index_bucket){ end, trail_index_hash(ix, calls) };
		begin = end;
	}
	h->seal = trail_index_seal_head(ix, h);
}

static int
write_file(struct trail_index *ix)
{
	const struct index_maker *m = &ix->make;
	struct slice values = bytes_of(m->values.v, m->values.n);
	struct slice calls = bytes_of(m->calls.v, m->calls.n);
	off_t at = sizeof(m->head);
	int fd = openat(
	    ix->dirfd, NEW_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok;

	if (fd == -1)
		return -1;
	ok = file_write(fd, &m->head, sizeof(m->head), 0) == 0 &&
	     file_write(fd, values.p, values.n, at) == 0 &&
	     file_write(fd, calls.p, calls.n, at + (off_t)values.n) == 0;
	if (close(fd) == 0 && ok &&
	    renameat(ix->dirfd, NEW_NAME, ix->dirfd, trail_index_name(m->head.first).s) == 0)
		return 0;
	unlinkat(ix->dirfd, NEW_NAME, 0);
	return -1;
}

static bool
is_as_it_was(const struct index_maker *m)
{
	struct index_file now;
	struct stat st;

	if (fstat(m->fd, &st) == -1)
		return false;
	now = trail_index_file(&st);
	return memcmp(&now, &m->head.file, sizeof(now)) == 0;
}

/* Who removes the segment removes its index afterwards: either finds this one. */
static int
finish_segment(struct trail_index *ix, struct err *err)
{
	struct index_maker *m = &ix->make;
	struct trail_name name = trail_segment_name(m->head.first, "");
	struct stat st;
	int rc = 0;

	if (m->head.last < m->head.first) /* what is not whole is read */
		m->values.n = m->calls.n = 0;
	trail_index_sort(&m->values);
	trail_index_sort(&m->calls);
	seal(ix);
	if (!is_as_it_was(m))
		m->later = true;
	else if (write_file(ix) == -1)
		rc = err_set_errno(err, "write %s", trail_index_name(m->head.first).s);
	else if (fstatat(ix->dirfd, name.s, &st, AT_SYMLINK_NOFOLLOW) == -1)
		trail_index_remove(ix->dirfd, m->head.first);
	close(m->fd);
	m->fd = -1;
	return rc;
}

static int
go_on(struct trail_index *ix, uint64_t keep_free, struct err *err)
{
	struct index_maker *m = &ix->make;
	int rc;

	if (m->fd != -1) {
		if ((rc = read_lines(ix, err)) != 0)
			return rc;
		return finish_segment(ix, err) == -1 ? -1 : 1;
	}
	if (m->next == m->list.n)
		return end_round(m);
	begin_segment(ix, keep_free);
	return 1;
}

int
trail_index_make(struct trail_index *ix, uint64_t keep_free, struct err *err)
{
	struct index_maker *m = &ix->make;
	int rc;

	if (m->list.first == NULL)
		return begin_round(ix, keep_free, err);
	if ((rc = go_on(ix, keep_free, err)) != -1)
		return rc;
	if (m->fd != -1)
		close(m->fd);
	m->fd = -1;
	m->later = true;
	end_round(m);
	return -1;
}
