/* Retention: which sealed segments may go, and their going. */
#include "keytrail/clock.h"
#include "keytrail/fault.h"
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct retain {
	int64_t before_ns;
	uint64_t max_size, keep_seq;
	uint64_t total; /* bytes of all segments that are left */
};

static bool
may_go(const struct retain *r, const struct stat *st, uint64_t end)
{
	int64_t written = (int64_t)st->st_mtim.tv_sec * CLOCK_NS_PER_S + st->st_mtim.tv_nsec;

	if (end > r->keep_seq)
		return false;
	return written < r->before_ns || (r->max_size > 0 && r->total > r->max_size);
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

		while (*n + 1 < l->n && l->first[*n + 1] < t->mark.segment &&
		       trail_is_stray(t->dirfd, &t->log, l, *n + 1))
			trail_list_drop(l, *n + 1);
		end = trail_list_end(l, *n);
		if (l->first[*n] >= t->open.first || l->first[*n] >= t->mark.segment ||
		    end > t->mark.seq + 1)
			break;
		if (fstatat(t->dirfd, name.s, &st, AT_SYMLINK_NOFOLLOW) == -1)
			return err_set_errno(err, "%s: %s", t->path, name.s);
		if (!may_go(r, &st, end) || trail_is_held(t, l->first[*n], end - 1))
			break;
		r->total -= (uint64_t)st.st_size < r->total ? (uint64_t)st.st_size : r->total;
	}
	return 0;
}

/* Before they go: what is missing without this was taken away. */
static int
remember(struct trail *t, uint64_t last, struct err *err)
{
	t->gone.expired = last;
	if (trail_identify(t, false, err) == -1)
		return err_prefix(err, "%s", t->path);
	FAULT_POINT("expire.after_page");
	return 0;
}

/* One after the other: what is left begins with the lowest number that there is, whenever the power
 * goes. */
static int
remove_segment(struct trail *t, uint64_t first, struct err *err)
{
	struct trail_name name = trail_segment_name(first, "");

	if (unlinkat(t->dirfd, name.s, 0) == -1 || fsync(t->dirfd) == -1)
		return err_set_errno(err, "%s: remove %s", t->path, name.s);
	FAULT_POINT("expire.after_unlink");
	return 0;
}

static int
expire(struct trail *t, struct retain *r, bool removing, uint64_t *first, uint64_t *last,
    struct err *err)
{
	struct trail_list l;
	struct stat st;
	size_t n = 0;
	int rc;

	*first = *last = 0;
	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	rc = count_expired(t, &l, r, &n, err);
	if (rc == 0 && removing && n > 0)
		rc = remember(t, trail_list_end(&l, n - 1) - 1, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (removing) {
			struct trail_name name = trail_segment_name(l.first[i], "");

			st.st_size = 0;
			fstatat(t->dirfd, name.s, &st, AT_SYMLINK_NOFOLLOW);
			if ((rc = remove_segment(t, l.first[i], err)) == -1)
				break;
			atomic_fetch_sub(&t->sealed_bytes, (uint64_t)st.st_size);
			atomic_fetch_sub(&t->segments, 1);
		}
		*first = l.first[0];
		*last = trail_list_end(&l, i) - 1;
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
trail_finish_expiry(struct trail *t, uint64_t expired, struct err *err)
{
	struct trail_list l;
	int rc = 0;

	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	for (size_t i = 0; i + 1 < l.n && l.first[i + 1] <= expired + 1 && rc == 0; i++)
		rc = remove_segment(t, l.first[i], err);
	trail_list_free(&l);
	return rc;
}

static bool
is_below(const struct trail_member *m, const void *seq)
{
	return m->seq < *(const uint64_t *)seq;
}

/* Beyond the durable mark too: a power cut may leave an older one. */
static bool
find_teller(struct trail_cursor *c, int fd, uint64_t segment, const struct trail_gone *g)
{
	struct trail_piece p;
	struct trail_member m;
	struct trail_range said;
	struct stat st;
	struct err err;

	if (fstat(fd, &st) == -1 || trail_cursor_seek(c, fd, segment, (uint64_t)st.st_size,
					is_below, &g->told_by, &err) == -1)
		return false;
	while (trail_cursor_next(c, &p, &err) == 1)
		if (trail_cursor_parse(c, &p, &m) && m.seq >= g->told_by)
			return m.seq == g->told_by &&
			       trail_line_range(p.bytes, TRAIL_EXPIRE_START, &said) &&
			       said.last >= g->expired;
	return false;
}

bool
trail_tells_of_expiry(struct trail *t, const struct trail_gone *g)
{
	struct trail_cursor c;
	struct trail_list l;
	struct err err;
	bool tells = false;
	size_t i;
	int fd = -1;

	if (trail_list_segments(t->dirfd, &l, &err) == -1)
		return false;
	if ((i = trail_own_find(t->dirfd, &t->log, &l, g->told_by)) < l.n)
		fd = openat(t->dirfd, trail_segment_name(l.first[i], "").s,
		    O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd != -1 && trail_cursor_init(&c, &err) == 0) {
		c.log = &t->log;
		tells = find_teller(&c, fd, l.first[i], g);
		trail_cursor_fini(&c);
	}
	if (fd != -1)
		close(fd);
	trail_list_free(&l);
	return tells;
}

void
trail_expiry_recorded(struct trail *t, uint64_t seq)
{
	t->gone.told_by = seq;
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
