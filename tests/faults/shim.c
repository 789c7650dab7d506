/*
 * shim: a disk that fails as a test wants it, for LD_PRELOAD.
 *
 * KEYTRAIL_SHIM names a file of rules, looked at whenever it has changed; no file: no faults.
 * A rule is a line:
 *
 *	<call> <path> <what> [<from> [<times>]]
 *
 * call: open, read, write, sync (also of what is mapped), allocate, truncate, rename (link too) or
 * unlink.  path: a pattern as of fnmatch(3), of the whole path (for rename, the new one).  what: the
 * name of an errno; short (one byte less than was asked for, at least one); or stall (as long as the
 * rule is there).  From the from-th match on (default 1), so many times (default: always), counted
 * since the file has changed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RULES_MAX 16
#define STALL_US  1000

enum { PASS, SHORT, STALL, FAIL };

struct rule {
	char call[16], path[256], what[16];
	unsigned long from, times, matched;
};

/* One process, one control file. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stat seen;
static struct rule rules[RULES_MAX];
static size_t nrules;

static const struct {
	const char *name;
	int value;
} errors[] = {
	{ "EACCES", EACCES },
	{ "EINTR", EINTR },
	{ "EIO", EIO },
	{ "ENOSPC", ENOSPC },
	{ "EOPNOTSUPP", EOPNOTSUPP },
};

/* Not by open and read: those are ours. */
static void
load(const char *file)
{
	char text[4096] = "", *save, *line;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC, 0);

	nrules = 0;
	if (fd == -1)
		return;
	syscall(SYS_read, fd, text, sizeof(text) - 1);
	syscall(SYS_close, fd);
	for (line = strtok_r(text, "\n", &save); line != NULL && nrules < RULES_MAX;
	     line = strtok_r(NULL, "\n", &save)) {
		struct rule *r = &rules[nrules];

		*r = (struct rule){ .from = 1, .times = ULONG_MAX };
		if (sscanf(line, "%15s %255s %15s %lu %lu", r->call, r->path, r->what, &r->from,
			&r->times) >= 3)
			nrules++;
	}
}

static void
refresh(void)
{
	const char *file = getenv("KEYTRAIL_SHIM");
	struct stat st = { 0 };

	if (file == NULL)
		return;
	if (stat(file, &st) == -1)
		st = (struct stat){ 0 };
	if (st.st_ino == seen.st_ino && st.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
	    st.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
		return;
	seen = st;
	load(file);
}

static int
act(const struct rule *r)
{
	if (strcmp(r->what, "short") == 0)
		return SHORT;
	if (strcmp(r->what, "stall") == 0)
		return STALL;
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (strcmp(r->what, errors[i].name) == 0) {
			errno = errors[i].value;
			return FAIL;
		}
	fprintf(stderr, "shim: unknown fault \"%s\"\n", r->what);
	abort();
}

static int
look(const char *call, const char *path)
{
	int rc = PASS, before = errno;

	pthread_mutex_lock(&lock);
	refresh();
	errno = before;
	for (size_t i = 0; i < nrules && rc == PASS; i++) {
		struct rule *r = &rules[i];

		if (strcmp(r->call, call) != 0 || fnmatch(r->path, path, 0) != 0)
			continue;
		r->matched++;
		if (r->matched >= r->from && r->matched - r->from < r->times)
			rc = act(r);
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

static int
decide(const char *call, const char *path)
{
	int rc;

	while ((rc = look(call, path)) == STALL)
		usleep(STALL_US);
	return rc;
}

static int
decide_fd(const char *call, int fd)
{
	char link[64], path[PATH_MAX];
	int before = errno;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if ((n = readlink(link, path, sizeof(path) - 1)) <= 0 || path[0] != '/') {
		errno = before;
		return PASS;
	}
	path[n] = '\0';
	return decide(call, path);
}

static int
decide_at(const char *call, int dirfd, const char *name)
{
	char link[64], path[2 * PATH_MAX];
	ssize_t n;

	if (dirfd == AT_FDCWD || name[0] == '/')
		return decide(call, name);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
	n = readlink(link, path, PATH_MAX);
	snprintf(path + (n > 0 ? n : 0), sizeof(path) - (size_t)(n > 0 ? n : 0), "/%s", name);
	return decide(call, path);
}

static size_t
shorter(int verdict, size_t n)
{
	return verdict == SHORT && n > 1 ? n - 1 : n;
}

/* ---- the calls ---- */

#define REAL(name, type, ...)                                                                      \
	type (*real)(__VA_ARGS__) = __extension__(type(*)(__VA_ARGS__)) dlsym(RTLD_NEXT, #name)

ssize_t
write(int fd, const void *p, size_t n)
{
	REAL(write, ssize_t, int, const void *, size_t);
	int v = decide_fd("write", fd);

	return v == FAIL ? -1 : real(fd, p, shorter(v, n));
}

ssize_t
pwrite(int fd, const void *p, size_t n, off_t at)
{
	REAL(pwrite, ssize_t, int, const void *, size_t, off_t);
	int v = decide_fd("write", fd);

	return v == FAIL ? -1 : real(fd, p, shorter(v, n), at);
}

ssize_t
read(int fd, void *p, size_t n)
{
	REAL(read, ssize_t, int, void *, size_t);
	int v = decide_fd("read", fd);

	return v == FAIL ? -1 : real(fd, p, shorter(v, n));
}

ssize_t
pread(int fd, void *p, size_t n, off_t at)
{
	REAL(pread, ssize_t, int, void *, size_t, off_t);
	int v = decide_fd("read", fd);

	return v == FAIL ? -1 : real(fd, p, shorter(v, n), at);
}

/* What pread is when the compiler knows the size of the memory. */
ssize_t __pread_chk(int fd, void *p, size_t n, off_t at, size_t size);

ssize_t
__pread_chk(int fd, void *p, size_t n, off_t at, size_t size)
{
	if (n > size)
		abort();
	return pread(fd, p, n, at);
}

int
fsync(int fd)
{
	REAL(fsync, int, int);

	return decide_fd("sync", fd) == FAIL ? -1 : real(fd);
}

int
fdatasync(int fd)
{
	REAL(fdatasync, int, int);

	return decide_fd("sync", fd) == FAIL ? -1 : real(fd);
}

/* Of the file that is mapped there, by the kernel's own table. */
static int
decide_mapped(const char *call, const void *p)
{
	char line[PATH_MAX + 128];
	unsigned long from, to, at = (unsigned long)p;
	int before = errno, column, rc = PASS;
	FILE *f = fopen("/proc/self/maps", "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", &from, &to, &column) == 2 &&
		    at >= from && at < to) {
			line[strcspn(line, "\n")] = '\0';
			errno = before;
			rc = decide(call, line + column);
			before = errno;
			break;
		}
	if (f != NULL)
		fclose(f);
	errno = before;
	return rc;
}

int
msync(void *p, size_t n, int flags)
{
	REAL(msync, int, void *, size_t, int);

	return decide_mapped("sync", p) == FAIL ? -1 : real(p, n, flags);
}

int
fallocate(int fd, int mode, off_t at, off_t n)
{
	REAL(fallocate, int, int, int, off_t, off_t);

	return decide_fd("allocate", fd) == FAIL ? -1 : real(fd, mode, at, n);
}

int
posix_fallocate(int fd, off_t at, off_t n)
{
	REAL(posix_fallocate, int, int, off_t, off_t);

	return decide_fd("allocate", fd) == FAIL ? errno : real(fd, at, n);
}

int
ftruncate(int fd, off_t length)
{
	REAL(ftruncate, int, int, off_t);

	return decide_fd("truncate", fd) == FAIL ? -1 : real(fd, length);
}

int
openat(int dirfd, const char *name, int flags, ...)
{
	REAL(openat, int, int, const char *, int, ...);
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if (flags & O_CREAT)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return decide_at("open", dirfd, name) == FAIL ? -1 : real(dirfd, name, flags, mode);
}

/* The same of openat without a mode. */
int __openat_2(int dirfd, const char *name, int flags);

int
__openat_2(int dirfd, const char *name, int flags)
{
	return openat(dirfd, name, flags);
}

int
renameat(int from, const char *old, int to, const char *new)
{
	REAL(renameat, int, int, const char *, int, const char *);

	return decide_at("rename", to, new) == FAIL ? -1 : real(from, old, to, new);
}

int
renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
	REAL(renameat2, int, int, const char *, int, const char *, unsigned);

	return decide_at("rename", to, new) == FAIL ? -1 : real(from, old, to, new, flags);
}

int
linkat(int from, const char *old, int to, const char *new, int flags)
{
	REAL(linkat, int, int, const char *, int, const char *, int);

	return decide_at("rename", to, new) == FAIL ? -1 : real(from, old, to, new, flags);
}

int
unlinkat(int dirfd, const char *name, int flags)
{
	REAL(unlinkat, int, int, const char *, int);

	return decide_at("unlink", dirfd, name) == FAIL ? -1 : real(dirfd, name, flags);
}
