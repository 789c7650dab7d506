#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A segment is opened only when something in it is durable, and read only up to the mark, so that
 * what a reader holds is never taken back.  When the mark has left the segment, it is read to its
 * end, but not beyond its successor's first number.
 */
struct trail_reader {
	int dirfd, fd;
	struct trail_state *state;
	struct trail_log log;
	struct trail_mark mark;
	struct trail_cursor c;
	uint64_t want;	       /* lines below are skipped */
	uint64_t first;	       /* of the open segment, or of the last one that was */
	uint64_t end;	       /* number at which it ends, once it is sealed; else 0 */
	uint64_t last;	       /* line of the segment; 0: where reading began, none yet */
	uint64_t bad;	       /* damaged pieces since then */
	uint64_t corrupt;      /* in all, of what was wanted */
	trail_corrupt_fn told; /* or NULL */
	void *told_arg;
	struct trail_member member; /* of the last line */
};

int
trail_reader_open_at(int dirfd, uint64_t from_seq, struct trail_reader **out, struct err *err)
{
	struct trail_reader *r;

	if ((r = calloc(1, sizeof(*r))) == NULL)
		return err_set_errno(err, "read the trail");
	r->fd = -1;
	r->want = from_seq;
	if ((r->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0)) == -1) {
		err_set_errno(err, "open the trail's directory");
		goto fail;
	}
	if (trail_state_map(r->dirfd, &r->state, err) == -1 || trail_cursor_init(&r->c, err) == -1)
		goto fail;
	*out = r;
	return 0;
fail:
	trail_reader_close(r);
	return -1;
}

int
trail_reader_open(const char *dir, uint64_t from_seq, struct trail_reader **out, struct err *err)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	if (dirfd == -1)
		return err_set_errno(err, "%s: open", dir);
	if ((rc = trail_reader_open_at(dirfd, from_seq, out, err)) == -1)
		err_prefix(err, "%s", dir);
	close(dirfd);
	return rc;
}

void
trail_reader_close(struct trail_reader *r)
{
	if (r == NULL)
		return;
	trail_cursor_fini(&r->c);
	trail_state_unmap(r->state);
	if (r->fd != -1)
		close(r->fd);
	if (r->dirfd != -1)
		close(r->dirfd);
	free(r);
}

void
trail_reader_step_over(struct trail_reader *r, bool unreadable)
{
	r->c.step_over = unreadable;
}

uint64_t
trail_reader_durable(const struct trail_reader *r)
{
	struct trail_mark m;

	return trail_state_read(r->state, &m) ? m.seq : r->mark.seq;
}

const struct trail_member *
trail_reader_member(const struct trail_reader *r)
{
	return &r->member;
}

uint64_t
trail_reader_corrupt(const struct trail_reader *r)
{
	return r->corrupt;
}

void
trail_reader_on_corrupt(struct trail_reader *r, trail_corrupt_fn told, void *arg)
{
	r->told = told;
	r->told_arg = arg;
}

/* What is damaged stands before this number. */
static void
tell_damage(struct trail_reader *r, uint64_t before)
{
	if (r->bad == 0)
		return;
	r->corrupt += r->bad;
	r->bad = 0;
	if (r->told != NULL)
		r->told(r->told_arg, r->want, before > r->want ? before - 1 : r->want);
}

/* The log may have been given up for another one since.  While nobody can tell, a line may be any
 * log's. */
static bool
read_mark(struct trail_reader *r)
{
	struct trail_mark m;

	if (!trail_state_read(r->state, &m) || m.seq <= r->mark.seq)
		return false;
	r->mark = m;
	if (trail_state_read_log(r->state, &r->log))
		r->c.log = &r->log;
	return true;
}

/* True when the mark has moved.  A page that was deleted has a successor, if not at once. */
static bool
refresh_mark(struct trail_reader *r)
{
	struct trail_state *next;
	struct err err;

	if (read_mark(r))
		return true;
	if (trail_state_is_named(r->state, r->dirfd) ||
	    trail_state_map(r->dirfd, &next, &err) == -1)
		return false;
	trail_state_unmap(r->state);
	r->state = next;
	return read_mark(r);
}

static int
start_segment(struct trail_reader *r, uint64_t first, struct err *err)
{
	struct stat st;

	if (fstat(r->fd, &st) == -1)
		return err_set_errno(err, "read the trail");
	r->first = first;
	r->bad = 0;
	if (r->want < first)
		r->want = first;
	if (trail_cursor_seek(&r->c, r->fd, first,
		first == r->mark.segment ? r->mark.offset : (uint64_t)st.st_size,
		trail_member_is_below, &r->want, err) == -1)
		return -1;
	r->last = r->c.at == 0 ? first - 1 : 0;
	return 0;
}

/* The segment that holds r->want, or else the one after it: among those that are left, behind the
 * last one read, and durable.  The number at index n when there is none. */
static size_t
choose(const struct trail_reader *r, const struct trail_list *l)
{
	size_t i = trail_own_find(r->dirfd, r->c.log, l, r->want);

	if (i == l->n)
		i = 0;
	while (i < l->n && l->first[i] <= r->first)
		i++;
	return i < l->n && l->first[i] <= r->mark.segment ? i : l->n;
}

/* Where the segment ends; 0 while the mark is in it. */
static uint64_t
find_end(const struct trail_reader *r, const struct trail_list *l, uint64_t first)
{
	uint64_t end;

	if (first == r->mark.segment)
		return 0;
	end = trail_own_end(r->dirfd, r->c.log, l, first);
	return end < r->mark.segment ? end : r->mark.segment;
}

/* 1: one is open; 0: none yet. */
static int
open_segment(struct trail_reader *r, struct err *err)
{
	struct trail_list l;
	size_t i;
	uint64_t first;
	bool found;

	do {
		refresh_mark(r);
		if (r->mark.seq == 0 || r->want > r->mark.seq)
			return 0;
		if (trail_list_segments(r->dirfd, &l, err) == -1)
			return -1;
		i = choose(r, &l);
		found = i < l.n;
		first = found ? l.first[i] : 0;
		r->end = found ? find_end(r, &l, first) : 0;
		trail_list_free(&l);
		if (!found)
			return 0;
		r->fd = openat(
		    r->dirfd, trail_segment_name(first, "").s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	} while (r->fd == -1 && errno == ENOENT); /* expired under us */
	if (r->fd == -1)
		return err_set_errno(err, "open %s", trail_segment_name(first, "").s);
	return start_segment(r, first, err) == -1 ? -1 : 1;
}

static void
leave_segment(struct trail_reader *r)
{
	if (r->want < r->end) {
		tell_damage(r, r->end);
		r->want = r->end;
	}
	r->bad = 0;
	close(r->fd);
	r->fd = -1;
}

/* The mark has left the segment. */
static int
set_end(struct trail_reader *r, struct err *err)
{
	struct trail_list l;
	struct stat st;

	if (fstat(r->fd, &st) == -1)
		return err_set_errno(err, "read the trail");
	if (trail_list_segments(r->dirfd, &l, err) == -1)
		return -1;
	r->end = find_end(r, &l, r->first);
	trail_list_free(&l);
	r->c.limit = (uint64_t)st.st_size;
	return 0;
}

/* Nothing is left below the limit: 1 when there may be more now. */
static int
advance(struct trail_reader *r, struct err *err)
{
	if (r->end != 0) {
		leave_segment(r);
		return 1;
	}
	if (r->mark.segment != r->first)
		return set_end(r, err) == -1 ? -1 : 1;
	if (!refresh_mark(r))
		return 0;
	if (r->mark.segment == r->first)
		r->c.limit = r->mark.offset;
	return 1;
}

/* True: a line to hand out. */
static bool
take_piece(struct trail_reader *r, const struct trail_piece *p, struct slice *line, uint64_t *seq)
{
	struct trail_member *m = &r->member;

	if (!trail_cursor_parse(&r->c, p, m) || m->seq > r->mark.seq ||
	    (m->seq > r->want && m->seq >= TRAIL_BELIEVED_END) ||
	    (r->end != 0 && m->seq >= r->end)) {
		r->bad++;
		return false;
	}
	if (m->seq > r->want || (m->seq == r->want && r->last + 1 == r->want))
		tell_damage(r, m->seq);
	r->bad = 0; /* else it stands before what is wanted */
	r->last = m->seq;
	if (m->seq < r->want)
		return false;
	r->want = m->seq + 1;
	*line = p->bytes;
	*seq = m->seq;
	return true;
}

int
trail_reader_skip(struct trail_reader *r, uint64_t seq, struct err *err)
{
	if (seq <= r->want)
		return 0;
	r->want = seq;
	r->bad = 0;
	if (r->fd == -1)
		return 0;
	if (r->end != 0 && seq >= r->end) {
		leave_segment(r);
		return 0;
	}
	r->last = 0;
	return trail_cursor_seek(
	    &r->c, r->fd, r->first, r->c.limit, trail_member_is_below, &r->want, err);
}

int
trail_reader_next(struct trail_reader *r, struct slice *line, uint64_t *seq, struct err *err)
{
	struct trail_piece p;
	int rc;

	for (;;) {
		if (r->fd == -1 && (rc = open_segment(r, err)) != 1)
			return rc;
		if ((rc = trail_cursor_next(&r->c, &p, err)) == -1)
			return -1;
		if (rc == 1 && take_piece(r, &p, line, seq))
			return 1;
		if (rc == 1 || (rc = advance(r, err)) == 1)
			continue;
		if (rc == 0)
			tell_damage(r, r->mark.seq + 1);
		return rc;
	}
}
