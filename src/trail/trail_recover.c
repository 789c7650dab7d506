/*
 * Recovery.  First the segments from the durable one on are read whole, and what is torn is cut, or
 * stepped over where lines follow; then what only the rings held is appended.
 */
#include "keytrail/fault.h"
#include "keytrail/file.h"
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A run of bytes that are no lines of the log. */
struct bad {
	uint64_t at, end; /* equal: none */
	uint64_t lines;
};

struct scan {
	struct trail *t;
	struct trail_mark before; /* the durable mark as found */
	bool cut;		  /* the run before did not end well */
	bool given;		  /* it has not ended: what is before the mark it vouches for */
	struct trail_recovery *rec;
	struct trail_cursor c;
	uint64_t expect;   /* the next number */
	uint64_t line_end; /* of the last good line in this segment */
	uint64_t promised; /* end of what was, in this segment */
	bool damaged;
	/* of the last segment, when all else is done */
	uint64_t first;
	bool keep; /* bytes after line_end could not be copied aside: leave the segment */
};

static void
widen(uint64_t *first, uint64_t *last, uint64_t from, uint64_t to)
{
	if (*first == 0 || from < *first)
		*first = from;
	if (to > *last)
		*last = to;
}

static void
note_missing(struct scan *s, uint64_t from, uint64_t to)
{
	widen(&s->rec->missing_first, &s->rec->missing_last, from, to);
	s->damaged = true;
}

/* Numbers from `from` on.  A power cut can tear the middle of what was being written, and leave lines
 * behind it; what was synced, or given on, it leaves alone. */
static bool
is_torn(const struct scan *s, const struct bad *bad, uint64_t from)
{
	return s->cut && bad->at >= s->promised && from > s->t->used;
}

/* Found by a start that was itself cut off before it could record it. */
static bool
is_known_torn(const struct scan *s, uint64_t from, uint64_t to)
{
	return s->rec->torn_first != 0 && from >= s->rec->torn_first && to <= s->rec->torn_last;
}

/* The bytes stay in the segment too, so that a copy that fails loses nothing. */
static void
note_damage(
    struct scan *s, int fd, uint64_t first, const struct bad *bad, uint64_t from, uint64_t to)
{
	bool torn = is_torn(s, bad, from);
	struct err err;

	if (to < from)
		to = from;
	s->damaged = true;
	if (torn && is_known_torn(s, from, to))
		return;
	trail_copy_aside(s->t, fd, first, torn ? ".torn" : ".corrupt", bad->at, bad->end, &err);
	if (torn) {
		widen(&s->rec->torn_first, &s->rec->torn_last, from, to);
		s->rec->torn_bytes += bad->end - bad->at;
	} else {
		widen(&s->rec->corrupt_first, &s->rec->corrupt_last, from, to);
		s->rec->corrupt_lines += bad->lines > 0 ? bad->lines : 1;
	}
}

static void
add_bad(struct bad *bad, const struct trail_piece *p)
{
	if (bad->at == bad->end)
		bad->at = p->at;
	bad->end = p->end;
	bad->lines++;
}

/* A line of this segment's part of the log? */
static bool
belongs(const struct scan *s, const struct trail_piece *p, uint64_t end, struct trail_member *m)
{
	return trail_cursor_parse(&s->c, p, m) && m->seq >= s->expect && m->seq < end &&
	       (m->seq == s->expect || m->seq < TRAIL_BELIEVED_END);
}

/* What follows the last good line of a sealed segment.  With no number missing it was written in vain
 * before a failure: the run before was killed before it had cut it off. */
static int
end_sealed(
    struct scan *s, int fd, uint64_t first, uint64_t end, const struct bad *bad, uint64_t size)
{
	const struct trail_io *io = &s->t->io;
	struct err err;

	if (s->expect >= end && bad->at < bad->end) {
		trail_copy_aside(s->t, fd, first, ".torn", bad->at, bad->end, &err);
		s->rec->torn_bytes += bad->end - bad->at;
		return io->truncate(io->arg, fd, (off_t)s->line_end) == -1 ? -1 : fsync(fd);
	}
	if (bad->at < bad->end)
		note_damage(s, fd, first, bad, s->expect, end - 1);
	else if (s->expect < end)
		note_missing(s, s->expect, end - 1);
	s->expect = end;
	/* Killed before its seal, it keeps the room that its successor needs. */
	io->truncate(io->arg, fd, (off_t)size);
	return 0;
}

/* What follows the last good line of all: up to the durable mark it is corrupt, beyond it torn. */
static void
end_last(struct scan *s, int fd, uint64_t first, struct bad *bad)
{
	uint64_t mark = s->promised;
	struct err err;

	s->first = first;
	if (bad->at < bad->end && bad->at < mark) {
		struct bad old = { bad->at, bad->end < mark ? bad->end : mark, bad->lines };

		note_damage(s, fd, first, &old, s->expect, s->before.seq);
		if (s->before.seq >= s->expect)
			s->expect = s->before.seq + 1;
		bad->at = s->line_end = old.end;
	}
	if (bad->at < bad->end) {
		s->keep = trail_copy_aside(s->t, fd, first, ".torn", bad->at, bad->end, &err) == -1;
		s->rec->torn_bytes += bad->end - bad->at;
	}
}

static int
scan_lines(struct scan *s, int fd, uint64_t first, uint64_t end, struct bad *bad, struct err *err)
{
	struct trail_piece p;
	struct trail_member m;
	int rc;

	while ((rc = trail_cursor_next(&s->c, &p, err)) == 1) {
		if (!belongs(s, &p, end, &m)) {
			add_bad(bad, &p);
			continue;
		}
		if (bad->at < bad->end)
			note_damage(s, fd, first, bad, s->expect, m.seq - 1);
		else if (m.seq > s->expect)
			note_missing(s, s->expect, m.seq - 1);
		*bad = (struct bad){ 0 };
		s->expect = m.seq + 1;
		s->line_end = p.end;
	}
	return rc;
}

/* After a sync that failed, the kernel takes pages for written that the disk never got: the next sync
 * succeeds without them.  So what no good sync has covered is made dirty once more; what cannot be read
 * is damage, which the scan tells of. */
static int
write_again(int fd, uint64_t at, uint64_t end)
{
	char mem[16384];

	while (at < end) {
		size_t want = end - at < sizeof(mem) ? (size_t)(end - at) : sizeof(mem);
		ssize_t n = pread(fd, mem, want, (off_t)at);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && errno == EIO) {
			at += TRAIL_BLOCK - at % TRAIL_BLOCK;
			continue;
		}
		if (n <= 0 || file_write(fd, mem, (size_t)n, (off_t)at) == -1)
			return -1;
		at += (uint64_t)n;
	}
	return 0;
}

/* What is kept is synced before it is published. */
static int
scan_segment(struct scan *s, uint64_t first, uint64_t end, struct err *err)
{
	struct trail_name name = trail_segment_name(first, "");
	struct bad bad = { 0 };
	uint64_t durable = first == s->before.segment ? s->before.offset : 0;
	struct stat st;
	int fd, rc = -1;

	if ((fd = openat(s->t->dirfd, name.s, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return err_set_errno(err, "%s: open %s", s->t->path, name.s);
	if (fstat(fd, &st) == -1 || write_again(fd, durable, (uint64_t)st.st_size) == -1 ||
	    fsync(fd) == -1) {
		err_set_errno(err, "%s: %s", s->t->path, name.s);
		goto out;
	}
	if (s->expect < first)
		note_missing(s, s->expect, first - 1);
	s->expect = first;
	s->line_end = 0;
	s->promised = first < s->before.segment ? (uint64_t)st.st_size : durable;
	if (s->given && first == s->before.segment && durable <= (uint64_t)st.st_size) {
		s->expect = s->before.seq + 1;
		s->line_end = durable;
	}
	trail_cursor_set(&s->c, fd, first, s->line_end, (uint64_t)st.st_size);
	if (scan_lines(s, fd, first, end, &bad, err) == -1)
		goto out;
	if (end == TRAIL_SEQ_END) {
		end_last(s, fd, first, &bad);
	} else if (end_sealed(s, fd, first, end, &bad, (uint64_t)st.st_size) == -1) {
		err_set_errno(err, "%s: cut %s", s->t->path, name.s);
		goto out;
	}
	rc = 0;
out:
	close(fd);
	return rc;
}

static int
scan_segments(struct scan *s, const struct trail_list *l, struct err *err)
{
	size_t from = l->n > 0 ? l->n - 1 : 0;

	s->expect = 1;
	if (s->before.segment > 0 && l->n > 0) {
		from = trail_list_find(l, s->before.segment);
		if (from == l->n)
			from = 0;
		s->expect = l->first[from] < s->before.segment ? l->first[from] : s->before.segment;
	} else if (s->before.segment > 0) {
		s->expect = s->before.segment;
	} else if (l->n > 0) {
		s->expect = l->first[from];
	}
	for (size_t i = from; i < l->n; i++)
		if (scan_segment(s, l->first[i], trail_list_end(l, i), err) == -1)
			return -1;
	if (s->expect <= s->before.seq) {
		note_missing(s, s->expect, s->before.seq);
		s->expect = s->before.seq + 1;
	}
	/* Signed lines that are gone: their numbers are used up all the same. */
	if (s->expect <= s->t->used) {
		note_missing(s, s->expect, s->t->used);
		s->expect = s->t->used + 1;
	}
	return 0;
}

static int
open_last(struct scan *s, struct stat *st, struct err *err)
{
	struct trail_name name = trail_segment_name(s->first, "");
	int fd;

	if ((fd = openat(s->t->dirfd, name.s, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return err_set_errno(err, "%s: open %s", s->t->path, name.s);
	if (fstat(fd, st) == -1) {
		close(fd);
		return err_set_errno(err, "%s: %s", s->t->path, name.s);
	}
	return fd;
}

/* Go on in the last segment, cut behind its last line.  A cut, even to the same length, gives back the
 * room behind the end, which on a full disk is all that there is for what the rings held: it is made
 * only where something is torn, and the room is taken again at once. */
static int
continue_segment(struct scan *s, struct err *err)
{
	struct trail *t = s->t;
	struct stat st;
	int fd;

	if ((fd = open_last(s, &st, err)) == -1)
		return -1;
	if ((uint64_t)st.st_size > s->line_end &&
	    t->io.truncate(t->io.arg, fd, (off_t)s->line_end) == -1) {
		err_set_errno(err, "%s: cut %s", t->path, trail_segment_name(s->first, "").s);
		close(fd);
		return -1;
	}
	trail_segment_use(t, fd, s->first, s->line_end);
	if (fsync(fd) == -1) {
		err_set_errno(err, "%s: sync %s", t->path, trail_segment_name(s->first, "").s);
		close(fd);
		t->open.fd = -1;
		return -1;
	}
	FAULT_POINT("recover.after_cut");
	return 0;
}

/* It is not written any more: the room that was kept behind its end is its successor's. */
static void
seal_last(struct scan *s)
{
	struct stat st;
	struct err err;
	int fd;

	if ((fd = open_last(s, &st, &err)) == -1)
		return;
	s->t->io.truncate(s->t->io.arg, fd, s->keep ? st.st_size : (off_t)s->line_end);
	fsync(fd);
	close(fd);
}

/* Its name is wanted, and what is torn in it could not be copied. */
static int
put_torn_aside(struct scan *s, struct err *err)
{
	struct trail_name name = trail_segment_name(s->first, "");
	struct trail_name aside = trail_segment_name(s->first, ".torn.whole");

	if (renameat2(s->t->dirfd, name.s, s->t->dirfd, aside.s, RENAME_NOREPLACE) == -1)
		return err_set_errno(err, "%s: put %s aside", s->t->path, name.s);
	return 0;
}

/* A stray may have the name: it was not put aside before where nobody knew whose directory it is. */
static int
create_next(struct scan *s, int *fd, struct err *err)
{
	struct trail_list stray = { &s->expect, 1 };

	if (faccessat(
		s->t->dirfd, trail_segment_name(s->expect, "").s, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		s->rec->foreign += trail_put_aside(s->t, &stray);
	return trail_segment_create(s->t, s->expect, fd, err);
}

/* Damage, and what cannot be cut, is left behind in a segment that is not written any more: the next
 * start does not find it again. */
static int
choose_segment(struct scan *s, bool any, struct err *err)
{
	struct trail *t = s->t;
	bool own_name = any && s->first == s->expect; /* it holds nothing that counts */
	int fd;

	t->last_seq = t->written_seq = s->expect - 1;
	if (own_name && s->keep) {
		if (put_torn_aside(s, err) == -1)
			return -1;
		any = own_name = false;
	}
	if (own_name) {
		s->line_end = 0;
		if (continue_segment(s, err) == -1)
			return -1;
	} else if (!any || s->damaged || s->keep || continue_segment(s, err) == -1) {
		if (any)
			seal_last(s);
		if (create_next(s, &fd, err) == -1)
			return -1;
		trail_segment_use(t, fd, s->expect, 0);
	}
	t->mark = (struct trail_mark){ t->last_seq, t->open.first, t->open.offset };
	atomic_store(&t->durable_seq, t->last_seq);
	return 0;
}

/* What expired was durable: a power cut may leave the page with that, and with an older mark. */
static struct trail_mark
durable_before(const struct trail_state_info *before)
{
	uint64_t expired = before->gone.expired;

	return before->mark.segment > expired ? before->mark
					      : (struct trail_mark){ expired, expired + 1, 0 };
}

/* The page tells of them before they go: nobody would find them again. */
static int
put_foreign_aside(struct trail *t, const struct trail_state_info *before, struct err *err)
{
	struct trail_state_info info = *before;
	struct trail_state *page;
	struct trail_list l;
	int rc = 0;

	if (!before->valid)
		return 0;
	if (trail_list_foreign(t, &before->mark, &l, err) == -1)
		return -1;
	/* A start that was killed has told of some. */
	t->found.foreign += l.n > t->found.foreign_left ? l.n - t->found.foreign_left : 0;
	t->found.foreign_left = l.n;
	info.found = t->found;
	info.unrecorded = true;
	if (l.n > 0 && (rc = trail_state_create(t->dirfd, &info, &page, err)) == 0) {
		trail_state_unmap(page);
		FAULT_POINT("foreign.before_rename");
		trail_put_aside(t, &l);
		FAULT_POINT("foreign.after_rename");
	}
	t->found.foreign_left = 0;
	trail_list_free(&l);
	return rc;
}

int
trail_recover(struct trail *t, const struct trail_state_info *before, bool given, struct err *err)
{
	struct scan s = { .t = t, .rec = &t->found, .given = given && before->clean };
	struct trail_list l;
	int rc = -1;

	if (before->valid && before->mark.seq < TRAIL_NAME_END)
		s.before = durable_before(before);
	s.cut = before->valid && !before->clean;
	if (put_foreign_aside(t, before, err) == -1)
		return -1;
	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	if (trail_cursor_init(&s.c, err) == -1)
		goto out;
	s.c.step_over = true;
	s.c.log = before->valid ? &t->log : NULL;
	trail_drop_strays(t->dirfd, s.c.log, s.before.segment, &s.before, &l);
	if (scan_segments(&s, &l, err) == 0 && choose_segment(&s, l.n > 0, err) == 0)
		rc = 0;
out:
	trail_cursor_fini(&s.c);
	trail_list_free(&l);
	return rc;
}
