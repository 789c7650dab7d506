/* Retention: which sealed segments may go, and their going. */
#include "keytrail/clock.h"
#include "keytrail/fault.h"
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRACTION_MAX                                                                             \
	65536 /* lines behind the one that tells of a removal, in which a start looks */

struct retain {
	int64_t before_ns;
	uint64_t max_size, keep_seq;
	uint64_t total; /* bytes of all segments that are left */
};

static int64_t
modified_ns(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * CLOCK_NS_PER_S + st->st_mtim.tv_nsec;
}

static void
lift(int64_t *ns, int64_t to)
{
	if (to > *ns)
		*ns = to;
}

/* When segment i was written, at the latest: anybody may `touch` it, and damage may hide its lines, but
 * what follows them is younger.  That the log has no line behind it, nobody can believe. */
static int64_t
written_ns(const struct trail *t, const struct trail_list *l, size_t i, const struct stat *st)
{
	int64_t ns = modified_ns(st), at;
	char text[TRAIL_TIME_SIZE];

	if (trail_last_time(t->dirfd, &t->log, l->first[i], &at))
		lift(&ns, at);
	while (++i < l->n) {
		trail_first_time(t, l->first[i], text);
		if (clock_parse_event_time(slice_of(text), &at) == 0) {
			lift(&ns, at);
			return ns;
		}
	}
	return INT64_MAX;
}

static bool
may_go(const struct trail *t, const struct retain *r, const struct trail_list *l, size_t i,
    const struct stat *st)
{
	if (trail_list_end(l, i) > r->keep_seq)
		return false;
	return (r->max_size > 0 && r->total > r->max_size) ||
	       written_ns(t, l, i, st) < r->before_ns;
}

/* Below `end`. */
static void
drop_stray_behind(struct trail *t, struct trail_list *l, size_t i, uint64_t end)
{
	while (i + 1 < l->n && l->first[i + 1] < end && trail_is_stray(t->dirfd, &t->log, l, i + 1))
		trail_list_drop(l, i + 1);
}

/* Beside segment i; with it they would count as expired. */
static bool
hides_gap(const struct trail *t, const struct trail_list *l, size_t i)
{
	return (i == 0 && trail_is_untold_before(t, l, 0)) || trail_is_untold_before(t, l, i + 1);
}

/* How many segments may go, oldest first; the open one and what is not durable never.  Strays among
 * them leave the list. */
static int
count_expired(struct trail *t, struct trail_list *l, struct retain *r, size_t *n, struct err *err)
{
	struct trail_stats stats;
	struct stat st;

	trail_stats(t, &stats);
	r->total = stats.bytes;
	for (*n = 0; *n < l->n; ++*n) {
		struct trail_name name = trail_segment_name(l->first[*n], "");
		uint64_t end;

		drop_stray_behind(t, l, *n, t->mark.segment);
		end = trail_list_end(l, *n);
		if (l->first[*n] >= t->open.first || l->first[*n] >= t->mark.segment ||
		    end > t->mark.seq + 1)
			break;
		if (fstatat(t->dirfd, name.s, &st, AT_SYMLINK_NOFOLLOW) == -1)
			return err_set_errno(err, "%s: %s", t->path, name.s);
		if (!may_go(t, r, l, *n, &st) || trail_is_held(t, l->first[*n], end - 1))
			break;
		if (hides_gap(t, l, *n))
			return err_set(err,
			    "%s: lines beside %s are gone, which is to be told before it goes",
			    t->path, name.s);
		r->total -= (uint64_t)st.st_size < r->total ? (uint64_t)st.st_size : r->total;
	}
	return 0;
}

/* One after the other: what is left begins with the lowest number that there is, whenever the power
 * goes.  *went of them did. */
static int
remove_segments(
    struct trail *t, const struct trail_list *l, size_t n, size_t *went, struct err *err)
{
	for (*went = 0; *went < n;) {
		struct trail_name name = trail_segment_name(l->first[*went], "");
		struct stat st = { .st_size = 0 };

		fstatat(t->dirfd, name.s, &st, AT_SYMLINK_NOFOLLOW);
		if (unlinkat(t->dirfd, name.s, 0) == -1)
			return err_set_errno(err, "%s: remove %s", t->path, name.s);
		trail_index_remove(t->dirfd, l->first[*went]);
		++*went;
		atomic_fetch_sub(&t->sealed_bytes, (uint64_t)st.st_size);
		atomic_fetch_sub(&t->segments, 1);
		if (fsync(t->dirfd) == -1)
			return err_set_errno(err, "%s: remove %s", t->path, name.s);
		FAULT_POINT("expire.after_unlink");
	}
	return 0;
}

/* The page first: what is missing without this was taken away.  Nor has expired what stays. */
static int
remove_expired(struct trail *t, const struct trail_list *l, size_t n, struct err *err)
{
	struct trail_gone before = t->gone;
	struct err ignored;
	size_t went = 0;

	t->gone.expired = trail_list_end(l, n - 1) - 1;
	t->gone.told_by = t->teller;
	if (trail_identify(t, false, err) == -1) {
		err_prefix(err, "%s", t->path);
	} else {
		FAULT_POINT("expire.after_page");
		if (remove_segments(t, l, n, &went, err) == 0)
			return 0;
	}
	if (went > 0)
		t->gone.expired = trail_list_end(l, went - 1) - 1;
	else
		t->gone = before;
	trail_identify(t, false, &ignored);
	return -1;
}

static int
expire(struct trail *t, struct retain *r, bool removing, uint64_t *first, uint64_t *last,
    struct err *err)
{
	struct trail_list l;
	size_t n = 0;
	int rc;

	*first = *last = 0;
	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	rc = count_expired(t, &l, r, &n, err);
	if (rc == 0 && n > 0) {
		*first = l.first[0];
		*last = trail_list_end(&l, n - 1) - 1;
		rc = removing ? remove_expired(t, &l, n, err) : 0;
	}
	trail_list_free(&l);
	return rc;
}

static int
expire_locked(struct trail *t, struct retain *r, bool removing, uint64_t *first, uint64_t *last,
    struct err *err)
{
	int rc;

	pthread_mutex_lock(&t->holds_lock);
	rc = expire(t, r, removing, first, last, err);
	pthread_mutex_unlock(&t->holds_lock);
	return rc;
}

int
trail_finish_expiry(struct trail *t, struct trail_gone *gone, struct err *err)
{
	struct err later; /* when it expires again */
	struct trail_list l;
	size_t n, went;

	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	/* Without the segment before it, a stray would seem to have lost the lines of that one. */
	for (n = 0; n + 1 < l.n && l.first[n + 1] <= gone->expired + 1 &&
		    !trail_is_stray(t->dirfd, &t->log, &l, n + 1) &&
		    !trail_is_held(t, l.first[n], l.first[n + 1] - 1);
	     n++)
		continue;
	remove_segments(t, &l, n, &went, &later);
	if (went < l.n && l.first[went] <= gone->expired)
		gone->expired = l.first[went] - 1;
	trail_list_free(&l);
	return 0;
}

static int
shift_time(struct trail *t, uint64_t segment, time_t seconds)
{
	struct trail_name name = trail_segment_name(segment, "");
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = 0 } };
	time_t now = (time_t)(clock_wall_ns() / CLOCK_NS_PER_S);
	struct stat st;

	if (fstatat(t->dirfd, name.s, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return -1;
	times[1].tv_sec = st.st_mtim.tv_sec + seconds;
	if (times[1].tv_sec > now)
		times[1].tv_sec = now;
	return utimensat(t->dirfd, name.s, times, AT_SYMLINK_NOFOLLOW);
}

int
trail_shift_times(struct trail *t, int64_t ns, struct err *err)
{
	struct trail_list l;
	int rc = 0;

	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	for (size_t i = 0; i < l.n && rc == 0; i++)
		rc = shift_time(t, l.first[i], (time_t)(ns / CLOCK_NS_PER_S));
	if (rc == -1)
		err_set_errno(err, "%s: shift the times of segments", t->path);
	trail_list_free(&l);
	return rc;
}

/* What is looked for, and found. */
struct teller {
	const struct trail_gone *gone;
	struct trail_cursor c;
	unsigned left; /* lines that may be looked at */
	bool tells, retracted;
};

static void
take_line(struct teller *e, struct slice line, uint64_t seq)
{
	struct trail_range said;

	if (seq == e->gone->told_by)
		e->tells = trail_line_range(line, TRAIL_EXPIRE_START, &said) &&
			   said.last >= e->gone->expired;
	else if (seq > e->gone->told_by && trail_line_range(line, TRAIL_KEEP_START, &said))
		e->retracted |= said.first <= e->gone->expired;
}

/* Beyond the durable mark too: a power cut may leave an older one. */
static void
read_tellers(struct teller *e, int fd, uint64_t segment)
{
	struct trail_piece p;
	struct trail_member m;
	struct stat st;
	struct err err;

	if (fstat(fd, &st) == -1 || trail_cursor_seek(&e->c, fd, segment, (uint64_t)st.st_size,
					trail_member_is_below, &e->gone->told_by, &err) == -1)
		return;
	while (e->left > 0 && trail_cursor_next(&e->c, &p, &err) == 1) {
		e->left--;
		if (trail_cursor_parse(&e->c, &p, &m))
			take_line(e, p.bytes, m.seq);
	}
}

bool
trail_tells_of_expiry(struct trail *t, const struct trail_gone *g)
{
	struct teller e = { .gone = g, .left = RETRACTION_MAX };
	struct trail_list l;
	struct err err;
	int fd;

	if (trail_list_segments(t->dirfd, &l, &err) == -1)
		return false;
	if (trail_cursor_init(&e.c, &err) == 0) {
		e.c.log = &t->log;
		for (size_t i = trail_own_find(t->dirfd, &t->log, &l, g->told_by);
		     i < l.n && e.left > 0 && !e.retracted; i++) {
			if ((fd = openat(t->dirfd, trail_segment_name(l.first[i], "").s,
				 O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
				continue;
			read_tellers(&e, fd, l.first[i]);
			close(fd);
		}
		trail_cursor_fini(&e.c);
	}
	trail_list_free(&l);
	return e.tells && !e.retracted;
}

int
trail_expiry_foretold(struct trail *t, uint64_t last, struct err *err)
{
	if (last > t->gone.said)
		t->gone.said = last;
	return trail_identify(t, false, err);
}

void
trail_expiry_recorded(struct trail *t, uint64_t seq)
{
	t->teller = seq;
}

bool
trail_expiry_left(const struct trail *t, uint64_t *first, uint64_t *last)
{
	uint64_t went = t->gone.expired > t->log.base ? t->gone.expired : t->log.base;

	*first = went + 1;
	*last = t->gone.said;
	return *first <= *last;
}

int
trail_expiry_retracted(struct trail *t, struct err *err)
{
	t->gone.said = 0;
	return trail_identify(t, false, err);
}

uint64_t
trail_expired(const struct trail *t)
{
	return t->gone.expired;
}

int
trail_expirable(struct trail *t, int64_t before_ns, uint64_t max_size, uint64_t keep_seq,
    uint64_t *first, uint64_t *last, struct err *err)
{
	struct retain r = { before_ns, max_size, keep_seq, 0 };

	return expire_locked(t, &r, false, first, last, err);
}

int
trail_expire(struct trail *t, int64_t before_ns, uint64_t max_size, uint64_t keep_seq,
    uint64_t *first, uint64_t *last, struct err *err)
{
	struct retain r = { before_ns, max_size, keep_seq, 0 };

	return expire_locked(t, &r, true, first, last, err);
}
