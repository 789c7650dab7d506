/* Where in the trail a time begins. */
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct search {
	int dirfd;
	struct trail_log log;
	struct trail_mark mark;
	struct trail_list list;
	struct trail_cursor c;
	struct slice at;
};

static bool
is_earlier(const struct trail_member *m, const void *at)
{
	return slice_compare(m->at, *(const struct slice *)at) < 0;
}

/* The first valid line from here on that is not earlier than `at` (any line: at is empty). */
static int
next_from(struct search *s, struct slice at, struct trail_member *m, struct err *err)
{
	struct trail_piece p;
	int rc;

	while ((rc = trail_cursor_next(&s->c, &p, err)) == 1)
		if (trail_cursor_parse(&s->c, &p, m) && !is_earlier(m, &at))
			return 1;
	return rc;
}

/* 1: open, its limit is *limit; 0: it has expired under us. */
static int
open_at(struct search *s, size_t i, int *fd, uint64_t *limit, struct err *err)
{
	struct trail_name name = trail_segment_name(s->list.first[i], "");
	struct stat st;

	*fd = openat(s->dirfd, name.s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (*fd == -1 && errno == ENOENT)
		return 0;
	if (*fd == -1 || fstat(*fd, &st) == -1) {
		err_set_errno(err, "read %s", name.s);
		if (*fd != -1)
			close(*fd);
		return -1;
	}
	*limit = s->list.first[i] == s->mark.segment ? s->mark.offset : (uint64_t)st.st_size;
	return 1;
}

/* Whether the segment's first line is earlier: what has none, or is gone, counts as earlier. */
static int
begins_earlier(struct search *s, size_t i, bool *earlier, struct err *err)
{
	struct trail_member m;
	uint64_t limit;
	int fd, rc;

	*earlier = true;
	if ((rc = open_at(s, i, &fd, &limit, err)) != 1)
		return rc;
	trail_cursor_set(&s->c, fd, s->list.first[i], 0, limit);
	if ((rc = next_from(s, SLICE_EMPTY, &m, err)) == 1)
		*earlier = is_earlier(&m, &s->at);
	close(fd);
	return rc == -1 ? -1 : 0;
}

/* The number in segment i: 1, or 0 when all of it is earlier. */
static int
find_within(struct search *s, size_t i, uint64_t *seq, struct err *err)
{
	struct trail_member m;
	uint64_t limit;
	int fd, rc;

	if ((rc = open_at(s, i, &fd, &limit, err)) != 1)
		return rc;
	if (trail_cursor_seek(&s->c, fd, s->list.first[i], limit, is_earlier, &s->at, err) == -1)
		rc = -1;
	else if ((rc = next_from(s, s->at, &m, err)) == 1)
		*seq = m.seq;
	close(fd);
	return rc;
}

static bool
is_stray(const struct search *s, size_t i)
{
	return s->list.first[i] < s->mark.segment && trail_is_stray(s->dirfd, &s->log, &s->list, i);
}

/* The last segment that begins earlier holds the place, or it is the beginning of the next one. */
static int
search(struct search *s, uint64_t *seq, struct err *err)
{
	size_t low = 0, high = s->list.n;
	bool earlier;
	int rc;

	while (high > 0 && s->list.first[high - 1] > s->mark.segment)
		high--;
	s->list.n = high;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (is_stray(s, middle)) {
			trail_list_drop(&s->list, middle);
			high--;
			continue;
		}
		if (begins_earlier(s, middle, &earlier, err) == -1)
			return -1;
		if (earlier)
			low = middle + 1;
		else
			high = middle;
	}
	if (low > 0 && (rc = find_within(s, low - 1, seq, err)) != 0)
		return rc == -1 ? -1 : 0;
	*seq = low < s->list.n ? s->list.first[low] : s->mark.seq + 1;
	return 0;
}

static int
read_mark(struct search *s, struct err *err)
{
	struct trail_state *state;
	bool ok;

	if (trail_state_map(s->dirfd, &state, err) == -1)
		return -1;
	ok = trail_state_read(state, &s->mark);
	trail_state_unmap(state);
	return ok ? 0 : err_set(err, "the file \"state\" is damaged");
}

int
trail_find_time(int dirfd, const char *at, uint64_t *seq, struct err *err)
{
	struct search s = { .dirfd = dirfd, .at = slice_of(at) };
	int rc = read_mark(&s, err);

	if (rc == 0)
		rc = trail_read_log(s.dirfd, &s.log, err);
	if (rc == 0)
		rc = trail_list_segments(s.dirfd, &s.list, err);
	if (rc == 0)
		rc = trail_cursor_init(&s.c, err);
	s.c.step_over = true;
	s.c.log = &s.log;
	if (rc == 0)
		rc = search(&s, seq, err);
	trail_cursor_fini(&s.c);
	trail_list_free(&s.list);
	return rc;
}
