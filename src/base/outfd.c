#include "keytrail/outfd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int
open_again(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

void
outfd_init(struct outfd *o, int fd)
{
	struct stat st;
	int again;

	*o = (struct outfd){ .fd = fd };
	if (fstat(fd, &st) == -1 || S_ISREG(st.st_mode))
		return;
	if (S_ISSOCK(st.st_mode)) {
		o->socket = true;
	} else if ((again = open_again(fd)) != -1) {
		o->fd = again;
		o->own = true;
	} else {
		o->bounded = true;
	}
}

void
outfd_fini(struct outfd *o)
{
	if (o->own)
		close(o->fd);
	o->own = false;
}

static ssize_t
write_once(struct outfd *o, const void *p, size_t n)
{
	struct pollfd pfd = { .fd = o->fd, .events = POLLOUT };

	if (o->socket)
		return send(o->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (o->bounded) {
		if (poll(&pfd, 1, 0) <= 0) {
			errno = EAGAIN;
			return -1;
		}
		if (n > PIPE_BUF)
			n = PIPE_BUF;
	}
	return write(o->fd, p, n);
}

ssize_t
outfd_write(struct outfd *o, const void *p, size_t n)
{
	ssize_t w;

	do
		w = write_once(o, p, n);
	while (w == -1 && errno == EINTR);
	if (w == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	return w;
}

size_t
outfd_whole_lines(const char *p, size_t n)
{
	size_t max = n < PIPE_BUF ? n : PIPE_BUF;
	const char *end = memrchr(p, '\n', max);

	if (end != NULL)
		return (size_t)(end - p) + 1;
	end = memchr(p + max, '\n', n - max);
	return end == NULL ? n : (size_t)(end - p) + 1;
}
