/* logs: takes the datagrams of a log and counts them.
 *
 * Prints its port; then, for each byte of standard input, how many datagrams came so far.  It ends
 * with its input.  UDP, since Linux queues few datagrams for a Unix socket and the rest is dropped.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, LINE = 2048, QUEUE = 64 << 20 };

static _Noreturn void
die(const char *what)
{
	perror(what);
	exit(1);
}

static int
listen_anywhere(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof at;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	int queue = QUEUE;

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		die("logs: bind");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue);
	printf("%u\n", ntohs(at.sin_port));
	fflush(stdout);
	return fd;
}

static unsigned long
take_all(int fd)
{
	static char lines[BATCH][LINE];
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec parts[BATCH];
	unsigned long count = 0;
	int n;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ lines[i], LINE };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	while ((n = recvmmsg(fd, messages, BATCH, 0, NULL)) > 0)
		count += (unsigned long)n;
	return count;
}

int
main(void)
{
	struct pollfd fds[] = { { .fd = listen_anywhere(), .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN } };
	unsigned long count = 0;
	char asked;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			die("logs: poll");
		count += take_all(fds[0].fd);
		if (fds[1].revents == 0)
			continue;
		if (read(STDIN_FILENO, &asked, 1) != 1)
			return 0;
		printf("%lu\n", count);
		fflush(stdout);
	}
}
