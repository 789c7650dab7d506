#include "keytrail/file.h"

#include "keytrail/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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
