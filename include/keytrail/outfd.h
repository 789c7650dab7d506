/*
 * outfd: write to a descriptor that others share (standard output, standard error) without ever
 * blocking and without touching its flags.
 *
 * O_NONBLOCK belongs to the open file description, which the shell, other processes and our own
 * other threads hold too, so it is never set there.  A pipe or a terminal is opened once more
 * through /proc/self/fd, which gives a description of our own; a socket is written with
 * MSG_DONTWAIT; where neither works, a poll and a write of at most PIPE_BUF come closest.  Regular
 * files count as always writable.
 *
 * One thread at a time.  SIGPIPE must be ignored or blocked.
 */
#ifndef KEYTRAIL_OUTFD_H
#define KEYTRAIL_OUTFD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct outfd {
	int fd; /* the one to poll for POLLOUT */
	bool own;
	bool socket;
	bool bounded; /* poll first, then at most PIPE_BUF */
};

/* `fd` stays the caller's and must outlive o. */
void outfd_init(struct outfd *o, int fd);
void outfd_fini(struct outfd *o);

/* How many bytes were taken; 0 when it would block; -1 with errno. */
ssize_t outfd_write(struct outfd *o, const void *p, size_t n);

/*
 * How much of the n bytes to write at once so that no line is torn: the whole lines that fit into
 * PIPE_BUF, which a pipe takes all or not at all; a longer line as it is.
 */
size_t outfd_whole_lines(const char *p, size_t n);

#endif
