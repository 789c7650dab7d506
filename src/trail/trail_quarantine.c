/* What is damaged or torn is copied to a file of its own; what is damaged stays in the segment, too. */
#include "keytrail/file.h"
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int
trail_copy_aside(const struct trail *t, int fd, uint64_t first, const char *suffix, uint64_t at,
    uint64_t end, struct err *err)
{
	struct trail_name name = trail_segment_name(first, suffix);
	char mem[16384];
	int out, rc = -1;

	if ((out = openat(t->dirfd, name.s, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
		 0600)) == -1)
		return err_set_errno(err, "%s: create %s", t->path, name.s);
	while (at < end) {
		size_t want = end - at < sizeof(mem) ? (size_t)(end - at) : sizeof(mem);
		ssize_t n = file_read(fd, mem, want, (off_t)at);

		if (n <= 0 || file_write(out, mem, (size_t)n, FILE_HERE) == -1)
			goto out;
		at += (uint64_t)n;
	}
	rc = fsync(out);
out:
	if (rc == -1)
		err_set_errno(err, "%s: write %s", t->path, name.s);
	close(out);
	return rc;
}

struct search {
	const struct trail *t;
	struct trail_cursor c;
	uint64_t first, last; /* numbers */
	uint64_t at, end;     /* of the damage since the last line; equal: none */
};

static int
flush(struct search *s, struct err *err)
{
	uint64_t at = s->at;

	s->at = s->end;
	if (at == s->end)
		return 0;
	return trail_copy_aside(s->t, s->c.fd, s->c.segment, ".corrupt", at, s->end, err);
}

/* The damage between the lines before and after the numbers. */
static int
copy_damage(struct search *s, uint64_t below, struct err *err)
{
	struct trail_member m;
	struct trail_piece p;
	int rc;

	s->at = s->end = 0;
	while ((rc = trail_cursor_next(&s->c, &p, err)) == 1) {
		if (!trail_cursor_parse(&s->c, &p, &m) || m.seq >= below) {
			s->at = s->at == s->end ? p.at : s->at;
			s->end = p.end;
			continue;
		}
		if (m.seq < s->first)
			s->at = s->end;
		else if (flush(s, err) == -1)
			return -1;
		if (m.seq > s->last)
			return 0;
	}
	return rc == 0 ? flush(s, err) : -1;
}

static int
search_segment(struct search *s, uint64_t segment, uint64_t below, struct err *err)
{
	struct trail_name name = trail_segment_name(segment, "");
	const struct trail_mark *mark = &s->t->mark;
	struct stat st;
	int fd, rc = -1;

	if ((fd = openat(s->t->dirfd, name.s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return err_set_errno(err, "%s: open %s", s->t->path, name.s);
	if (fstat(fd, &st) == -1)
		err_set_errno(err, "%s: %s", s->t->path, name.s);
	else if (trail_cursor_seek(&s->c, fd, segment,
		     segment == mark->segment ? mark->offset : (uint64_t)st.st_size,
		     trail_member_is_below, &s->first, err) == 0)
		rc = copy_damage(s, below, err);
	close(fd);
	return rc;
}

int
trail_quarantine(struct trail *t, uint64_t first, uint64_t last, struct err *err)
{
	struct search s = { .t = t, .first = first, .last = last };
	struct trail_list l;
	int rc = 0;
	size_t i;

	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	if ((rc = trail_cursor_init(&s.c, err)) == 0) {
		s.c.step_over = true;
		s.c.log = &t->log;
		trail_drop_strays(t->dirfd, &t->log, first, &t->mark, &l);
		i = trail_list_find(&l, first);
		for (i = i < l.n ? i : 0; rc == 0 && i < l.n && l.first[i] <= last; i++)
			rc = search_segment(&s, l.first[i], trail_list_end(&l, i), err);
	}
	trail_cursor_fini(&s.c);
	trail_list_free(&l);
	return rc;
}
