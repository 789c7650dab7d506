#include "keytrail/file.h"

#include "keytrail/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_NEW 64

ssize_t
file_read(int fd, void *p, size_t n, off_t at)
{
	size_t done = 0;
	ssize_t got = 1;

	while (done < n && got != 0) {
		got = at == FILE_HERE ? read(fd, (char *)p + done, n - done)
				      : pread(fd, (char *)p + done, n - done, at + (off_t)done);
		if (got == -1 && errno != EINTR)
			return -1;
		done += got > 0 ? (size_t)got : 0;
	}
	return (ssize_t)done;
}

int
file_write(int fd, const void *p, size_t n, off_t at)
{
	size_t done = 0;
	ssize_t put;

	while (done < n) {
		put = at == FILE_HERE
			  ? write(fd, (const char *)p + done, n - done)
			  : pwrite(fd, (const char *)p + done, n - done, at + (off_t)done);
		if (put == -1 && errno != EINTR)
			return -1;
		if (put == 0) {
			errno = EIO;
			return -1;
		}
		done += put > 0 ? (size_t)put : 0;
	}
	return 0;
}

int
file_reserve(int fd, off_t n)
{
	int rc;

	while ((rc = posix_fallocate(fd, 0, n)) == EINTR)
		;
	errno = rc;
	return rc == 0 ? 0 : -1;
}

int
file_load(int dirfd, const char *name, size_t max, struct buf *out, struct err *err)
{
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n;

	if (fd == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	if (buf_reserve(out, max) == -1 || (n = file_read(fd, buf_tail(out), max, 0)) == -1) {
		err_set_errno(err, "read %s", name);
		close(fd);
		return -1;
	}
	close(fd);
	buf_commit(out, (size_t)n);
	return 1;
}

int
file_open_regular(const char *path, size_t max, struct stat *st, struct err *err)
{
	/* Not to hang on a FIFO that somebody put there. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd == -1)
		return err_set_errno(err, "%s", path);
	if (fstat(fd, st) == -1)
		err_set_errno(err, "%s", path);
	else if (!S_ISREG(st->st_mode))
		err_set(err, "%s: not a regular file", path);
	else if ((uintmax_t)st->st_size > max)
		err_set(err, "%s: larger than %zu bytes", path, max);
	else
		return fd;
	close(fd);
	return -1;
}

int
file_load_secret(const char *path, struct buf *out, struct err *err)
{
	struct stat st;
	ssize_t n = -1;
	int fd = file_open_regular(path, FILE_SECRET_MAX, &st, err);

	if (fd == -1)
		return -1;
	if ((st.st_mode & (S_IROTH | S_IWOTH)) != 0)
		err_set(err, "%s is open to everybody (mode %04o); wanted 0640 or stricter", path,
		    (unsigned)st.st_mode & 07777);
	else if (buf_reserve(out, FILE_SECRET_MAX) == -1 ||
		 (n = file_read(fd, buf_tail(out), FILE_SECRET_MAX, 0)) == -1)
		err_set_errno(err, "%s", path);
	close(fd);
	if (n == -1)
		return -1;
	buf_commit(out, (size_t)n);
	return 0;
}

static int
write_new(int dirfd, const char *new, mode_t mode, struct slice text)
{
	int fd = openat(dirfd, new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	bool ok;

	if (fd == -1)
		return -1;
	ok = file_write(fd, text.p, text.n, 0) == 0 && fsync(fd) == 0;
	return close(fd) == 0 && ok ? 0 : -1;
}

int
file_replace(int dirfd, const char *name, mode_t mode, struct slice text, struct err *err)
{
	char new[NAME_MAX_NEW];

	snprintf(new, sizeof(new), "%s.new", name);
	if (write_new(dirfd, new, mode, text) == -1)
		return err_set_errno(err, "write %s", name);
	FAULT_POINT("file.before_rename");
	if (renameat(dirfd, new, dirfd, name) == -1 || fsync(dirfd) == -1)
		return err_set_errno(err, "put %s in its place", name);
	return 0;
}

/* FNV-1a. */
static void
mix(uint64_t *state, uint64_t value)
{
	for (int i = 0; i < 64; i += 8)
		*state = (*state ^ ((value >> i) & 0xff)) * UINT64_C(0x100000001b3);
}

void
file_stamp(uint64_t *stamp, const char *path)
{
	struct stat st = { 0 };

	if (path == NULL)
		return;
	(void)stat(path, &st); /* one that is missing is a state, too */
	mix(stamp, st.st_dev);
	mix(stamp, st.st_ino);
	mix(stamp, (uint64_t)st.st_size);
	mix(stamp, (uint64_t)st.st_mtim.tv_sec);
	mix(stamp, (uint64_t)st.st_mtim.tv_nsec);
	mix(stamp, (uint64_t)st.st_ctim.tv_sec);
	mix(stamp, (uint64_t)st.st_ctim.tv_nsec);
}
