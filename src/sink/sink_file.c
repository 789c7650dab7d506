#include "keytrail/sink.h"

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STAMP_SIZE 17 /* "20201122T173000Z" and a NUL */
#define NAME_SIZE  256
#define TAIL_MAX   65536

struct file_sink {
	char *path;
	char *folder;
	char *base; /* the last part of path */
	uint64_t rotate_size;
	int64_t rotate_age_ns;
	unsigned keep;
	int64_t (*wall_ns)(void);

	int dirfd;	/* -1 with fd */
	int fd;		/* -1: to be opened */
	struct stat st; /* of fd, when last looked at */
	int64_t born_ns;
	bool reopen;   /* USR1 */
	bool unsynced; /* written since the last sync */
	bool lost;     /* a sync failed; the next flush says so */
	struct buf text;
};

/* ---- opening ---- */

/* Does this unfinished line look like the beginning of one of ours, or like one that lacks only the
 * newline? */
static bool
is_begun(const char *line, size_t n)
{
	static const char first[] = "{\"action\":\"";
	size_t len = sizeof(first) - 1;

	return memcmp(line, first, n < len ? n : len) == 0;
}

static bool
is_complete(const char *line, size_t n)
{
	static const char last[] = "\"sum\":\"01234567\"}}";
	size_t len = sizeof(last) - 1;

	return n > len && memcmp(line + n - len, last, 7) == 0 &&
	       memcmp(line + n - 3, last + len - 3, 3) == 0;
}

/* A crash may have left half a line at the end: its event comes again, so it goes.  Anything else is
 * kept, with a newline after it. */
static int
mend_tail(int fd, off_t size)
{
	char tail[TAIL_MAX];
	size_t n = size < TAIL_MAX ? (size_t)size : TAIL_MAX;
	ssize_t got;
	char *line;

	if ((got = file_read(fd, tail, n, size - (off_t)n)) <= 0 || tail[got - 1] == '\n')
		return got == -1 ? -1 : 0;
	line = memrchr(tail, '\n', (size_t)got);
	line = line == NULL ? tail : line + 1;
	n = (size_t)(tail + got - line);
	if ((line > tail || got == size) && is_begun(line, n) && !is_complete(line, n))
		return ftruncate(fd, size - (off_t)n);
	return file_write(fd, "\n", 1, FILE_HERE);
}

static int64_t
birth_of(int fd, int64_t now)
{
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &sx) == -1 || !(sx.stx_mask & STATX_BTIME))
		return now;
	return sx.stx_btime.tv_sec * CLOCK_NS_PER_S + sx.stx_btime.tv_nsec;
}

static void
close_both(struct file_sink *s)
{
	if (s->fd != -1)
		close(s->fd);
	if (s->dirfd != -1)
		close(s->dirfd);
	s->fd = s->dirfd = -1;
}

static int
open_both(struct file_sink *s, struct err *err)
{
	int flags = O_RDWR | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

	s->dirfd = open(s->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dirfd == -1) {
		err_set_errno(err, "%s: open folder %s", s->path, s->folder);
		goto fail;
	}
	if ((s->fd = openat(s->dirfd, s->base, flags, 0640)) == -1 || fstat(s->fd, &s->st) == -1) {
		err_set_errno(err, "%s: open", s->path);
		goto fail;
	}
	if (!S_ISREG(s->st.st_mode)) {
		err_set(err, "%s: not a regular file", s->path);
		goto fail;
	}
	if (mend_tail(s->fd, s->st.st_size) == -1 || fstat(s->fd, &s->st) == -1 ||
	    fsync(s->dirfd) == -1) {
		err_set_errno(err, "%s: make ready", s->path);
		goto fail;
	}
	s->born_ns = birth_of(s->fd, s->wall_ns());
	return 0;
fail:
	close_both(s);
	return -1;
}

static void
free_sink(struct file_sink *s)
{
	buf_fini(&s->text);
	free(s->base);
	free(s->folder);
	free(s->path);
	free(s);
}

static int
split_path(struct file_sink *s, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash == NULL ? path : slash + 1;

	s->path = strdup(path);
	s->base = strdup(base);
	s->folder = base == path    ? strdup(".")
		    : slash == path ? strdup("/")
				    : strndup(path, (size_t)(slash - path));
	return s->path == NULL || s->base == NULL || s->folder == NULL ? -1 : 0;
}

static int
file_open(const struct config_sink *cfg, void **state, struct err *err)
{
	struct file_sink *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return err_set(err, "%s: memory is short", cfg->path);
	s->rotate_size = cfg->rotate_size;
	s->rotate_age_ns = (int64_t)cfg->rotate_age * CLOCK_NS_PER_S;
	s->keep = cfg->keep;
	s->wall_ns = clock_wall_ns;
	s->fd = s->dirfd = -1;
	if (split_path(s, cfg->path) == -1) {
		err_set(err, "%s: memory is short", cfg->path);
		goto fail;
	}
	if (open_both(s, err) == -1)
		goto fail;
	*state = s;
	return 0;
fail:
	free_sink(s);
	return -1;
}

void
sink_file_set_clock(void *state, int64_t (*wall_ns)(void))
{
	struct file_sink *s = state;

	s->wall_ns = wall_ns;
}

/* ---- syncing ---- */

/*
 * -1: what was written since the last sync may be gone.  After a failed fdatasync the pages are
 * dropped and a second one would say that all is well; a file without a name goes with its last
 * descriptor.
 */
static int
sync_file(struct file_sink *s)
{
	bool dirty = s->unsynced;
	struct stat st;

	s->unsynced = false;
	if (!dirty || (fdatasync(s->fd) == 0 && fstat(s->fd, &st) == 0 && st.st_nlink > 0))
		return 0;
	s->lost = true;
	return -1;
}

static void
file_close(void *state)
{
	struct file_sink *s = state;

	if (s->fd != -1)
		sync_file(s);
	close_both(s);
	free_sink(s);
}

/* ---- rotation ---- */

static void
stamp(int64_t wall_ns, char out[STAMP_SIZE])
{
	time_t seconds = (time_t)(wall_ns / CLOCK_NS_PER_S);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(out, STAMP_SIZE, "%Y%m%dT%H%M%SZ", &tm);
}

struct rotated {
	char name[NAME_SIZE];
	char at[STAMP_SIZE];
	unsigned long n;
};

/* <base>.<stamp>[-n], and nothing else. */
static bool
parse_rotated(const char *base, const char *name, struct rotated *out)
{
	static const char shape[] = "dddddddd"
				    "T"
				    "dddddd"
				    "Z";
	size_t nbase = strlen(base);
	const char *at = name + nbase + 1;
	char *end;

	if (strncmp(name, base, nbase) != 0 || name[nbase] != '.' || strlen(name) >= NAME_SIZE)
		return false;
	for (size_t i = 0; i < STAMP_SIZE - 1; i++)
		if (shape[i] == 'd' ? at[i] < '0' || at[i] > '9' : at[i] != shape[i])
			return false;
	memcpy(out->name, name, strlen(name) + 1);
	memcpy(out->at, at, STAMP_SIZE - 1);
	out->at[STAMP_SIZE - 1] = '\0';
	at += STAMP_SIZE - 1;
	out->n = 0;
	if (*at == '\0')
		return true;
	if (*at != '-' || at[1] < '1' || at[1] > '9')
		return false;
	out->n = strtoul(at + 1, &end, 10);
	return *end == '\0';
}

static int
newest_first(const void *a, const void *b)
{
	const struct rotated *x = a, *y = b;
	int order = strcmp(y->at, x->at);

	return order != 0 ? order : (x->n < y->n) - (x->n > y->n);
}

static struct rotated *
list_rotated(struct file_sink *s, size_t *n)
{
	struct rotated *all = NULL, one;
	size_t cap = 0;
	int fd = openat(s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);
	struct dirent *entry;

	*n = 0;
	if (dir == NULL && fd != -1)
		close(fd);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (!parse_rotated(s->base, entry->d_name, &one))
			continue;
		if (*n == cap) {
			struct rotated *more;

			cap = cap == 0 ? 16 : cap * 2;
			if ((more = reallocarray(all, cap, sizeof(*all))) == NULL)
				break;
			all = more;
		}
		all[(*n)++] = one;
	}
	if (dir != NULL)
		closedir(dir);
	return all;
}

/* The name of the next rotated file sorts above all others: more than one may come in a second, and
 * the clock may have been put back. */
static void
next_name(struct file_sink *s, char *out, size_t size)
{
	size_t n;
	struct rotated *all = list_rotated(s, &n);
	char at[STAMP_SIZE];

	stamp(s->wall_ns(), at);
	if (n > 0)
		qsort(all, n, sizeof(*all), newest_first);
	if (n > 0 && strcmp(all[0].at, at) >= 0)
		snprintf(out, size, "%.255s.%s-%lu", s->base, all[0].at, all[0].n + 1);
	else
		snprintf(out, size, "%.255s.%s", s->base, at);
	free(all);
}

static int
rename_stamped(struct file_sink *s)
{
	char name[NAME_SIZE + 64];

	next_name(s, name, sizeof(name));
	return renameat2(s->dirfd, s->base, s->dirfd, name, RENAME_NOREPLACE);
}

static void
remove_old(struct file_sink *s, struct err *err)
{
	size_t n;
	struct rotated *all = list_rotated(s, &n);

	if (n > 0)
		qsort(all, n, sizeof(*all), newest_first);
	for (size_t i = s->keep; i < n; i++)
		if (unlinkat(s->dirfd, all[i].name, 0) == -1 && errno != ENOENT)
			err_set_errno(err, "%s: remove %s", s->path, all[i].name);
	free(all);
}

/* The old file is safe before a new one takes its name, and both names before an old one goes.  A
 * file that cannot be renamed is written on: late is better than lost. */
static int
rotate(struct file_sink *s, struct err *err)
{
	sync_file(s);
	if (rename_stamped(s) == -1) {
		err_set_errno(err, "%s: rotate", s->path);
		return 0;
	}
	close_both(s);
	if (open_both(s, err) == -1)
		return -1;
	remove_old(s, err);
	return 0;
}

static bool
too_old(struct file_sink *s)
{
	return s->rotate_age_ns > 0 && s->st.st_size > 0 &&
	       s->wall_ns() - s->born_ns >= s->rotate_age_ns;
}

/* ---- writing ---- */

/* The file may have been renamed or removed under us, and its folder too. */
static bool
still_ours(struct file_sink *s)
{
	struct stat st;

	return fstat(s->fd, &s->st) == 0 && stat(s->path, &st) == 0 && st.st_dev == s->st.st_dev &&
	       st.st_ino == s->st.st_ino;
}

static int
make_ready(struct file_sink *s, struct err *err)
{
	if (s->fd != -1 && (s->reopen || !still_ours(s))) {
		sync_file(s);
		close_both(s);
	}
	if (s->fd == -1 && open_both(s, err) == -1)
		return -1;
	s->reopen = false;
	if (too_old(s))
		return rotate(s, err);
	return 0;
}

/* How many of the events fit into the file; at least one into an empty file. */
static size_t
events_that_fit(struct file_sink *s, const struct sink_event *events, size_t n)
{
	uint64_t size = (uint64_t)s->st.st_size;

	if (s->rotate_size == 0)
		return n;
	for (size_t i = 0; i < n; i++) {
		size += events[i].text.n + 1;
		if (size > s->rotate_size)
			return i == 0 && s->st.st_size == 0 ? 1 : i;
	}
	return n;
}

static int
write_events(struct file_sink *s, const struct sink_event *events, size_t n, struct err *err)
{
	struct slice text;

	buf_consume(&s->text, buf_size(&s->text));
	for (size_t i = 0; i < n; i++)
		if (buf_append_slice(&s->text, events[i].text) == -1 ||
		    buf_append(&s->text, "\n", 1) == -1)
			return err_set(err, "%s: memory is short", s->path);
	s->unsynced = true;
	text = buf_slice(&s->text);
	if (file_write(s->fd, text.p, text.n, FILE_HERE) == -1) {
		err_set_errno(err, "%s: write", s->path);
		/* No half line stays; where even this fails, opening again mends the tail. */
		if (ftruncate(s->fd, s->st.st_size) == -1) {
			sync_file(s);
			close_both(s);
		}
		return -1;
	}
	for (size_t i = 0; i < n; i++)
		s->st.st_size += (off_t)events[i].text.n + 1;
	return 0;
}

static enum sink_result
file_deliver(void *state, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	struct file_sink *s = state;

	(void)deadline_ns;
	if (make_ready(s, err) == -1)
		return SINK_RETRY;
	while (*done < n) {
		size_t fit = events_that_fit(s, events + *done, n - *done);

		if (fit == 0) {
			if (rotate(s, err) == -1)
				return SINK_RETRY;
			fit = events_that_fit(s, events + *done, n - *done);
		}
		if (fit == 0)
			fit = n - *done;
		if (write_events(s, events + *done, fit, err) == -1)
			return SINK_RETRY;
		*done += fit;
	}
	return SINK_OK;
}

static void
file_reopen(void *state)
{
	struct file_sink *s = state;

	s->reopen = true;
}

static int
file_flush(void *state, int64_t deadline_ns, struct err *err)
{
	struct file_sink *s = state;

	(void)deadline_ns;
	if (s->fd != -1 && sync_file(s) == -1) {
		/* Nothing more goes into this file. */
		if (still_ours(s))
			rename_stamped(s);
		close_both(s);
	}
	if (!s->lost)
		return 0;
	s->lost = false;
	return err_set(
	    err, "%s: sync failed; what was written since the last one comes again", s->path);
}

const struct sink_ops sink_file_ops = {
	.type = "file",
	.verbatim = true,
	.open = file_open,
	.close = file_close,
	.deliver = file_deliver,
	.reopen = file_reopen,
	.flush = file_flush,
};
