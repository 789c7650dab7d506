/*
 * record: what a process does to the files below a directory, as a trace (disk.py reads it).
 *
 * Preloaded.  RECORD_DIR is the directory (absolute), RECORD_TRACE the file to append to.  Each
 * record is a struct head and its bytes.  Files that are mapped for writing are compared with a
 * copy at every recorded call, and the sectors that have changed are recorded as writes.  One mutex
 * makes calls and records one order; only a sync runs outside of it, between two records.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The C library's names for these parameters are reserved. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

#define SECTOR	  512
#define FILES_MAX 4096
#define MAPS_MAX  64
#define NONE	  (-1)

enum kind {
	OPEN = 'o',   /* file, path: it was there */
	CREATE = 'c', /* file, path */
	WRITE = 'w',  /* file, at, bytes */
	PAGE = 'p',   /* the same, through a mapping */
	SIZE = 't',   /* file, at: truncated or extended to there */
	BEGIN = 'b',  /* as SYNC: one begins */
	SYNC = 's',   /* file and range, or a directory's path; at: the record that began it */
	RENAME = 'r', /* old path, a NUL, new path */
	UNLINK = 'u', /* path */
	MKDIR = 'k',  /* path */
	MARK = 'm',   /* what the process says */
};

struct head {
	uint32_t kind;
	int32_t file;
	uint64_t at, ns;
	uint64_t n;
};

struct mapping {
	void *base;
	size_t length;
	off_t offset;
	int file, fd; /* fd: our own, to read the pages with */
	char *copy;
};

static struct {
	pthread_mutex_t lock;
	int trace;
	char dir[4096];
	size_t ndir;
	struct {
		dev_t dev;
		ino_t ino;
	} files[FILES_MAX];
	int nfiles;
	struct mapping maps[MAPS_MAX];
	int nmaps;
	uint64_t nrecords;
} rec = { .lock = PTHREAD_MUTEX_INITIALIZER, .trace = NONE };

static void
die(const char *what)
{
	dprintf(2, "record: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static uint64_t
put(enum kind kind, int file, uint64_t at, const void *bytes, size_t n)
{
	struct timespec now;
	struct head h = { kind, file, at, 0, n };
	struct {
		const void *p;
		size_t n;
	} parts[] = { { &h, sizeof(h) }, { bytes, n } };

	clock_gettime(CLOCK_MONOTONIC, &now);
	h.ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	for (int i = 0; i < 2; i++)
		if (parts[i].n > 0 &&
		    syscall(SYS_write, rec.trace, parts[i].p, parts[i].n) != (long)parts[i].n)
			die("write the trace");
	return rec.nrecords++;
}

static void
compare_page(struct mapping *m, size_t at)
{
	size_t n = m->length - at < 4096 ? m->length - at : 4096;
	char now[4096];

	if (syscall(SYS_pread64, m->fd, now, n, m->offset + (off_t)at) != (long)n)
		return; /* somebody has cut it */
	for (size_t s = 0; s < n; s += SECTOR) {
		size_t left = n - s < SECTOR ? n - s : SECTOR;

		if (memcmp(now + s, m->copy + at + s, left) != 0)
			put(PAGE, m->file, (uint64_t)m->offset + at + s, now + s, left);
	}
	memcpy(m->copy + at, now, n);
}

/* Backwards: a slot's state is read before the entry that takes its place. */
static void
compare_maps(void)
{
	for (int i = rec.nmaps; i-- > 0;)
		for (size_t pages = (rec.maps[i].length + 4095) / 4096; pages-- > 0;)
			compare_page(&rec.maps[i], pages * 4096);
}

__attribute__((constructor)) static void
start(void)
{
	const char *dir = getenv("RECORD_DIR"), *trace = getenv("RECORD_TRACE");

	if (dir == NULL || trace == NULL)
		return;
	rec.ndir = (size_t)snprintf(rec.dir, sizeof(rec.dir), "%s/", dir);
	rec.trace = (int)syscall(
	    SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (rec.trace == -1)
		die(trace);
}

static void
enter(void)
{
	pthread_mutex_lock(&rec.lock);
	compare_maps();
}

static void
leave(void)
{
	int saved = errno;

	pthread_mutex_unlock(&rec.lock);
	errno = saved;
}

/* The path below the directory, "" for itself; false when it is elsewhere. */
static bool
inside(int dirfd, const char *name, char out[4096])
{
	char link[64], full[8192];
	ssize_t n = 0;

	if (rec.trace == -1)
		return false;
	if (name[0] != '/' && dirfd != AT_FDCWD) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
		if ((n = readlink(link, full, 4096)) <= 0)
			return false;
		full[n++] = '/';
	}
	snprintf(full + n, sizeof(full) - (size_t)n, "%s", name);
	if (strncmp(full, rec.dir, rec.ndir) != 0)
		return false;
	snprintf(out, 4096, "%s", full + rec.ndir);
	return true;
}

static int
file_of(int fd)
{
	struct stat st;

	if (rec.trace == -1 || fstat(fd, &st) == -1)
		return NONE;
	for (int i = rec.nfiles; i-- > 0;)
		if (rec.files[i].ino == st.st_ino && rec.files[i].dev == st.st_dev)
			return i;
	return NONE;
}

static int
add_file(int fd)
{
	struct stat st;

	if (rec.nfiles == FILES_MAX || fstat(fd, &st) == -1)
		die("too many files");
	rec.files[rec.nfiles].dev = st.st_dev;
	rec.files[rec.nfiles].ino = st.st_ino;
	return rec.nfiles++;
}

static void
note_open(int fd, const char *path, int flags, bool new)
{
	struct stat st;
	int file = file_of(fd);

	if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode))
		return;
	/* The number of a removed file's inode comes back. */
	if (new)
		put(CREATE, file = add_file(fd), 0, path, strlen(path));
	else if (file == NONE)
		put(OPEN, file = add_file(fd), 0, path, strlen(path));
	if (!new && (flags & O_TRUNC) != 0)
		put(SIZE, file, 0, NULL, 0);
}

static int
do_open(int dirfd, const char *name, int flags, mode_t mode)
{
	char path[4096];
	bool new;
	int fd;

	if (!inside(dirfd, name, path))
		return (int)syscall(SYS_openat, dirfd, name, flags, mode);
	enter();
	new = (flags & O_CREAT) != 0 && faccessat(dirfd, name, F_OK, 0) == -1;
	fd = (int)syscall(SYS_openat, dirfd, name, flags, mode);
	if (fd != -1)
		note_open(fd, path, flags, new);
	leave();
	return fd;
}

static mode_t
mode_of(int flags, va_list ap)
{
	return (flags & O_CREAT) != 0 ? va_arg(ap, mode_t) : 0;
}

int
open(const char *name, int flags, ...)
{
	va_list ap;
	int fd;

	va_start(ap, flags);
	fd = do_open(AT_FDCWD, name, flags, mode_of(flags, ap));
	va_end(ap);
	return fd;
}

int
openat(int dirfd, const char *name, int flags, ...)
{
	va_list ap;
	int fd;

	va_start(ap, flags);
	fd = do_open(dirfd, name, flags, mode_of(flags, ap));
	va_end(ap);
	return fd;
}

/* ---- data ---- */

static ssize_t
do_write(int fd, const void *p, size_t n, off_t at, bool positioned)
{
	int file = file_of(fd);
	ssize_t done;

	if (file == NONE)
		return positioned ? syscall(SYS_pwrite64, fd, p, n, at)
				  : syscall(SYS_write, fd, p, n);
	enter();
	done = positioned ? syscall(SYS_pwrite64, fd, p, n, at) : syscall(SYS_write, fd, p, n);
	if (!positioned) /* the end of the write, also with O_APPEND */
		at = lseek(fd, 0, SEEK_CUR) - (done > 0 ? done : 0);
	if (done > 0)
		put(WRITE, file, (uint64_t)at, p, (size_t)done);
	leave();
	return done;
}

ssize_t
pwrite(int fd, const void *p, size_t n, off_t at)
{
	return do_write(fd, p, n, at, true);
}

ssize_t
write(int fd, const void *p, size_t n)
{
	return do_write(fd, p, n, 0, false);
}

static void
note_size(int fd, int file)
{
	struct stat st;

	if (fstat(fd, &st) == 0)
		put(SIZE, file, (uint64_t)st.st_size, NULL, 0);
}

int
ftruncate(int fd, off_t length)
{
	int file = file_of(fd), rc;

	if (file == NONE)
		return (int)syscall(SYS_ftruncate, fd, length);
	enter();
	if ((rc = (int)syscall(SYS_ftruncate, fd, length)) == 0)
		note_size(fd, file);
	leave();
	return rc;
}

int
fallocate(int fd, int mode, off_t at, off_t n)
{
	int file = file_of(fd), rc;

	if (file == NONE)
		return (int)syscall(SYS_fallocate, fd, mode, at, n);
	enter();
	if ((rc = (int)syscall(SYS_fallocate, fd, mode, at, n)) == 0 &&
	    (mode & FALLOC_FL_KEEP_SIZE) == 0)
		note_size(fd, file);
	leave();
	return rc;
}

int
posix_fallocate(int fd, off_t at, off_t n)
{
	return fallocate(fd, 0, at, n) == 0 ? 0 : errno;
}

/* ---- mappings ---- */

/* A ring maps its data twice. */
static bool
is_mapped(int file, off_t offset, size_t length)
{
	for (int i = 0; i < rec.nmaps; i++)
		if (rec.maps[i].file == file && rec.maps[i].offset <= offset &&
		    rec.maps[i].offset + (off_t)rec.maps[i].length >= offset + (off_t)length)
			return true;
	return false;
}

static void
note_map(void *base, size_t length, int fd, int file, off_t offset)
{
	char link[64];
	struct mapping *m = &rec.maps[rec.nmaps];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	*m = (struct mapping){ base, length, offset, file,
		(int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC), NULL };
	if (rec.nmaps == MAPS_MAX || m->fd == -1 || (m->copy = malloc(length)) == NULL)
		die("too many mappings");
	if (syscall(SYS_pread64, m->fd, m->copy, length, offset) != (long)length)
		die("read what is mapped");
	rec.nmaps++;
}

void *
mmap(void *hint, size_t length, int prot, int flags, int fd, off_t offset)
{
	bool ours = fd != -1 && (flags & MAP_SHARED) != 0 && (prot & PROT_WRITE) != 0;
	int file = ours ? file_of(fd) : NONE;
	void *base;

	if (file == NONE)
		return (void *)syscall(SYS_mmap, hint, length, prot, flags, fd, offset);
	enter();
	base = (void *)syscall(SYS_mmap, hint, length, prot, flags, fd, offset);
	if (base != MAP_FAILED && !is_mapped(file, offset, length))
		note_map(base, length, fd, file, offset);
	leave();
	return base;
}

int
munmap(void *base, size_t length)
{
	char *begin = base;
	int rc;

	if (rec.trace == -1)
		return (int)syscall(SYS_munmap, base, length);
	enter();
	rc = (int)syscall(SYS_munmap, base, length);
	for (int i = rec.nmaps; rc == 0 && i-- > 0;) {
		struct mapping *m = &rec.maps[i];

		if ((char *)m->base < begin || (char *)m->base >= begin + length)
			continue;
		close(m->fd);
		free(m->copy);
		*m = rec.maps[--rec.nmaps];
	}
	leave();
	return rc;
}

/* ---- syncs ---- */

/* So many syncs of a directory fail, from this thread's next one on. */
static _Thread_local unsigned failing;

void record_fail_syncs(unsigned n);

void
record_fail_syncs(unsigned n)
{
	failing = n;
}

static int
sync_or_fail(bool directory, long number, long a, long b, long c)
{
	if (!directory || failing == 0)
		return (int)syscall(number, a, b, c);
	failing--;
	errno = EIO;
	return -1;
}

static int
sync_recorded(int file, const void *what, size_t n, long number, long a, long b, long c)
{
	uint64_t begun;
	int rc;

	enter();
	begun = put(BEGIN, file, 0, what, n);
	leave();
	rc = sync_or_fail(file == NONE, number, a, b, c);
	enter();
	/* A disk that lies: it says that it has kept data that it has not. */
	if (rc == 0 && (number != SYS_fdatasync || getenv("RECORD_LIES") == NULL))
		put(SYNC, file, begun, what, n);
	leave();
	return rc;
}

static int
do_sync(int fd, long number)
{
	static const uint64_t whole[2] = { 0, UINT64_MAX };
	char path[4096] = "";
	struct stat st;
	int file = file_of(fd);

	if (file == NONE && (fstat(fd, &st) == -1 || !S_ISDIR(st.st_mode) || !inside(fd, "", path)))
		return (int)syscall(number, fd);
	return file == NONE ? sync_recorded(NONE, path, strlen(path), number, fd, 0, 0)
			    : sync_recorded(file, whole, sizeof(whole), number, fd, 0, 0);
}

int
fsync(int fd)
{
	return do_sync(fd, SYS_fsync);
}

int
fdatasync(int fd)
{
	return do_sync(fd, SYS_fdatasync);
}

int
msync(void *base, size_t length, int flags)
{
	uint64_t range[2];
	int file = NONE;

	pthread_mutex_lock(&rec.lock);
	for (int i = 0; i < rec.nmaps && file == NONE; i++) {
		const struct mapping *m = &rec.maps[i];
		size_t at = (size_t)((char *)base - (char *)m->base);

		if ((char *)base < (char *)m->base || at >= m->length)
			continue;
		file = m->file;
		range[0] = (uint64_t)m->offset + at;
		range[1] = range[0] + length;
	}
	pthread_mutex_unlock(&rec.lock);
	if (file == NONE)
		return (int)syscall(SYS_msync, base, length, flags);
	return sync_recorded(
	    file, range, sizeof(range), SYS_msync, (long)base, (long)length, flags);
}

/* ---- names ---- */

int
renameat(int olddir, const char *old, int newdir, const char *new)
{
	char paths[8192], from[4096], to[4096];
	int rc, n;

	if (!inside(olddir, old, from) || !inside(newdir, new, to))
		return (int)syscall(SYS_renameat, olddir, old, newdir, new);
	n = snprintf(paths, sizeof(paths), "%s%c%s", from, 0, to);
	enter();
	if ((rc = (int)syscall(SYS_renameat, olddir, old, newdir, new)) == 0)
		put(RENAME, NONE, 0, paths, (size_t)n);
	leave();
	return rc;
}

int
unlinkat(int dirfd, const char *name, int flags)
{
	char path[4096];
	int rc;

	if (!inside(dirfd, name, path))
		return (int)syscall(SYS_unlinkat, dirfd, name, flags);
	enter();
	if ((rc = (int)syscall(SYS_unlinkat, dirfd, name, flags)) == 0)
		put(UNLINK, NONE, 0, path, strlen(path));
	leave();
	return rc;
}

int
mkdirat(int dirfd, const char *name, mode_t mode)
{
	char path[4096];
	int rc;

	if (!inside(dirfd, name, path))
		return (int)syscall(SYS_mkdirat, dirfd, name, mode);
	enter();
	if ((rc = (int)syscall(SYS_mkdirat, dirfd, name, mode)) == 0)
		put(MKDIR, NONE, 0, path, strlen(path));
	leave();
	return rc;
}

/* ---- marks ---- */

void record_mark(const char *text);

void
record_mark(const char *text)
{
	enter();
	put(MARK, NONE, 0, text, strlen(text));
	leave();
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
