/*
 * Which of the files that are named like segments are segments.  A segment's first line has the number
 * of its name, and the one before it ends below.  A file of which neither is so was put there: it
 * bounds nothing, and the lines of the one before it count.
 */
#include "keytrail/file.h"
#include "trail_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int
open_at(int dirfd, uint64_t segment, struct stat *st)
{
	int fd =
	    openat(dirfd, trail_segment_name(segment, "").s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd != -1 && fstat(fd, st) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The number of the first line of the log; 0: there is none. */
static uint64_t
first_number(int dirfd, const struct trail_log *log, uint64_t segment, bool *damaged)
{
	struct trail_cursor c = { .mem = NULL };
	struct trail_piece p = { .at = 0 };
	struct trail_member m;
	struct stat st;
	struct err err;
	uint64_t number = 0;
	int fd;

	*damaged = false;
	if ((fd = open_at(dirfd, segment, &st)) == -1)
		return 0;
	if (trail_cursor_init(&c, &err) == 0) {
		c.step_over = true;
		c.log = log;
		trail_cursor_set(&c, fd, segment, 0, (uint64_t)st.st_size);
		while (number == 0 && trail_cursor_next(&c, &p, &err) == 1)
			if (trail_cursor_parse(&c, &p, &m))
				number = m.seq;
	}
	*damaged = p.at > 0;
	trail_cursor_fini(&c);
	close(fd);
	return number;
}

static bool
last_line(const struct trail_log *log, const char *mem, size_t n, struct trail_member *last)
{
	const char *line = mem, *end;
	struct trail_member m;
	bool any = false;

	for (; (end = memchr(line, '\n', (size_t)(mem + n - line))) != NULL; line = end + 1)
		if (trail_parse_line((struct slice){ line, (size_t)(end - line) }, &m) == 0 &&
		    trail_owns(log, &m)) {
			*last = m;
			any = true;
		}
	return any;
}

#define TAIL_SIZE (2 * (size_t)TRAIL_LINE_MAX)

static ssize_t
read_tail(int dirfd, uint64_t segment, char mem[TAIL_SIZE])
{
	struct stat st;
	ssize_t n;
	int fd;

	if ((fd = open_at(dirfd, segment, &st)) == -1)
		return -1;
	n = file_read(
	    fd, mem, TAIL_SIZE, st.st_size > (off_t)TAIL_SIZE ? st.st_size - (off_t)TAIL_SIZE : 0);
	close(fd);
	return n;
}

uint64_t
trail_last_number(int dirfd, const struct trail_log *log, uint64_t segment)
{
	char mem[TAIL_SIZE];
	ssize_t n = read_tail(dirfd, segment, mem);
	struct trail_member m;

	if (n == 0) /* emptied */
		return segment - 1;
	return n > 0 && last_line(log, mem, (size_t)n, &m) ? m.seq : 0;
}

bool
trail_last_time(int dirfd, const struct trail_log *log, uint64_t segment, int64_t *wall_ns)
{
	char mem[TAIL_SIZE];
	ssize_t n = read_tail(dirfd, segment, mem);
	struct trail_member m;

	return n > 0 && last_line(log, mem, (size_t)n, &m) &&
	       clock_parse_event_time(m.at, wall_ns) == 0;
}

/* A segment whose start is damaged goes on where the damage ends, and the one before it may have lines
 * of it, which a failed write left behind. */
bool
trail_is_stray(int dirfd, const struct trail_log *log, const struct trail_list *l, size_t i)
{
	uint64_t name = l->first[i], first, last;
	bool damaged, any;

	if ((first = first_number(dirfd, log, name, &damaged)) == name)
		return false;
	do
		if (i-- == 0)
			return false;
	while (first_number(dirfd, log, l->first[i], &any) < l->first[i]);
	if ((last = trail_last_number(dirfd, log, l->first[i])) == 0)
		return first < name;
	return last >= name && (!damaged || first < name || first > last + 1);
}

uint64_t
trail_own_end(int dirfd, const struct trail_log *log, const struct trail_list *l, uint64_t segment)
{
	size_t i = 0;

	while (i < l->n && (l->first[i] <= segment || trail_is_stray(dirfd, log, l, i)))
		i++;
	return i < l->n ? l->first[i] : TRAIL_SEQ_END;
}

size_t
trail_own_find(int dirfd, const struct trail_log *log, const struct trail_list *l, uint64_t seq)
{
	size_t i = trail_list_find(l, seq);

	while (i < l->n && trail_is_stray(dirfd, log, l, i))
		i--;
	return i;
}

void
trail_drop_strays(int dirfd, const struct trail_log *log, uint64_t from,
    const struct trail_mark *mark, struct trail_list *l)
{
	for (size_t i = l->n; i-- > 0;) {
		uint64_t first = l->first[i];

		if (first == mark->segment)
			continue;
		if (trail_is_stray(dirfd, log, l, i))
			trail_list_drop(l, i);
		else if (first <= from)
			break;
	}
}
