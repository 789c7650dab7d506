#include "cli/handover.h"

#include "keytrail/fault.h"

#include <event2/event.h>
#include <event2/event_struct.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME	  "takeover"
#define NEW	  "takeover.new"
#define PROTOCOL  1
#define PEERS_MAX 4

enum { HELLO = 1, REFUSED, GIVEN, READY };

/* A packet: as much of it as its kind has. */
struct packet {
	char magic[8];
	uint32_t protocol, kind;
	union {
		struct handover_hello hello;
		char why[ERR_MSG_MAX];
		struct {
			uint32_t rings;
			uint8_t roles[HANDOVER_ROLES]; /* of the descriptors, in their order */
		} given;
	};
};

#define MAGIC	  "keytrail"
#define HEAD_SIZE offsetof(struct packet, hello)

static const size_t sizes[] = { [HELLO] = HEAD_SIZE + sizeof(struct handover_hello),
	[REFUSED] = HEAD_SIZE + ERR_MSG_MAX,
	[GIVEN] = HEAD_SIZE + sizeof(((struct packet *)0)->given),
	[READY] = HEAD_SIZE };

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int[HANDOVER_ROLES]))];
};

static struct packet
packet_of(uint32_t kind)
{
	struct packet p = { .magic = "", .protocol = PROTOCOL, .kind = kind };

	memcpy(p.magic, MAGIC, sizeof(p.magic));
	return p;
}

static int
send_packet(int fd, const struct packet *p)
{
	return send(fd, p, sizes[p->kind], MSG_NOSIGNAL) == (ssize_t)sizes[p->kind] ? 0 : -1;
}

static int
send_given(int fd, const struct handover_fds *give)
{
	struct packet p = packet_of(GIVEN);
	struct iovec iov = { &p, sizes[GIVEN] };
	union control control = { .room = { 0 } };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control };
	int list[HANDOVER_ROLES] = { 0 };
	size_t n = 0;

	for (size_t i = 0; i < HANDOVER_ROLES; i++)
		if (give->of[i] != -1) {
			p.given.roles[n] = (uint8_t)i;
			list[n++] = give->of[i];
		}
	p.given.rings = give->rings;
	m.msg_controllen = n > 0 ? CMSG_SPACE(n * sizeof(int)) : 0;
	control.head = (struct cmsghdr){ CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.head), list, n * sizeof(int));
	return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)sizes[GIVEN] ? 0 : -1;
}

/* Is it one, of this kind, and whole? */
static bool
is_packet(const struct packet *p, ssize_t n, uint32_t kind)
{
	return n == (ssize_t)sizes[kind] && memcmp(p->magic, MAGIC, sizeof(p->magic)) == 0 &&
	       p->protocol == PROTOCOL && p->kind == kind;
}

/* As the folder's descriptor: its path may be longer than a socket's. */
static struct sockaddr_un
address_in(int dirfd, const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	snprintf(sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d/%s", dirfd, name);
	return sun;
}

static struct ucred
peer_of(int fd)
{
	struct ucred who = { .pid = 0, .uid = (uid_t)-1 };
	socklen_t n = sizeof(who);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n);
	return who;
}

static int
check_peer(int fd, struct err *err)
{
	struct ucred who = peer_of(fd);

	if (who.uid != geteuid() && who.uid != 0)
		return err_set(err, "process %ld is another user's (uid %lu)", (long)who.pid,
		    (unsigned long)who.uid);
	return 0;
}

/* ---- the running process ---- */

/* Somebody who has connected. */
struct peer {
	struct handover *handover;
	int fd; /* -1: nobody */
	struct event word;
};

struct handover {
	struct handover_opts opts;
	int fd;
	bool found; /* under its name */
	bool ready; /* the successor is: the name is its own now */
	struct event knock, pause;
	struct peer peers[PEERS_MAX];
	struct peer *successor; /* was given what it wants */
};

static const struct timeval patience = { 1, 0 };
static const struct timeval hang = { 3, 0 }; /* of a successor, until it is told of */

static struct peer *
free_place(struct handover *h)
{
	for (size_t i = 0; i < PEERS_MAX; i++)
		if (h->peers[i].fd == -1)
			return &h->peers[i];
	return NULL;
}

/* While somebody can be taken in. */
static void
listen_on(struct handover *h)
{
	if (h->fd != -1 && event_add(&h->knock, NULL) == -1)
		evtimer_add(&h->pause, &patience);
}

static void
on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	listen_on(arg);
}

static void
stop_listening(struct handover *h)
{
	event_del(&h->knock);
	event_del(&h->pause);
	if (h->fd != -1)
		close(h->fd);
	h->fd = -1;
}

static void
drop(struct peer *p)
{
	struct handover *h = p->handover;

	event_del(&p->word);
	close(p->fd);
	p->fd = -1;
	listen_on(h);
}

static void
refuse(struct peer *p, const struct err *why)
{
	struct packet answer = packet_of(REFUSED);

	log_warn(p->handover->opts.log, "takeover_refused", "%s", why->msg);
	memcpy(answer.why, why->msg, sizeof(answer.why));
	send_packet(p->fd, &answer);
	drop(p);
}

static void
lose_successor(struct handover *h)
{
	drop(h->successor);
	h->successor = NULL;
	h->opts.gone(h->opts.arg);
}

static void
give(struct peer *p, const struct handover_hello *hello)
{
	struct handover *h = p->handover;
	struct err err = { "another takeover is under way" };
	struct handover_fds fds;

	if (h->successor != NULL || h->opts.ask(h->opts.arg, hello, &fds, &err) == -1) {
		refuse(p, &err);
		return;
	}
	h->successor = p;
	event_add(&p->word, &hang); /* to tell of it: it takes as long as it takes */
	if (send_given(p->fd, &fds) == -1)
		lose_successor(h);
	else
		FAULT_POINT("takeover.given");
}

/* It was not answered in time: to ask for it would stop the journal for nobody. */
static bool
has_left(const struct peer *p)
{
	char byte;

	return recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void
on_hello(struct peer *p, struct packet *word, ssize_t n)
{
	struct err err;

	if (n == 0 || has_left(p)) {
		drop(p);
	} else if (!is_packet(word, n, HELLO)) {
		err_set(&err, "what it said is not of this version's takeover");
		refuse(p, &err);
	} else {
		word->hello.terms[sizeof(word->hello.terms) - 1] = '\0';
		give(p, &word->hello);
	}
}

/* Its connection stays open, for it to see the end of this process, and for this one to see its. */
static void
on_ready(struct handover *h, const struct packet *word, ssize_t n)
{
	if (n == 0 || (!h->ready && !is_packet(word, n, READY))) {
		lose_successor(h);
		return;
	}
	if (h->ready)
		return;
	h->ready = true;
	event_remove_timer(&h->successor->word);
	stop_listening(h);
	h->opts.ready(h->opts.arg);
}

/* Only its end lets this process go on safely: two would write. */
static void
tell_hang(const struct peer *p)
{
	log_warn(p->handover->opts.log, "takeover_hangs",
	    "process %ld was given the trail and does not serve yet: calls may wait for it; where "
	    "it "
	    "hangs, kill it, and this process goes on",
	    (long)peer_of(p->fd).pid);
}

/* What else comes with a packet, descriptors, the kernel closes, since nobody asks for it. */
static void
on_word(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;
	struct packet word;
	ssize_t n = 0;

	if (what == EV_TIMEOUT && p == p->handover->successor) {
		tell_hang(p);
		return;
	}
	if (what & EV_READ && (n = recv(fd, &word, sizeof(word), MSG_TRUNC)) == -1) {
		if (errno == EAGAIN || errno == EINTR)
			return;
		n = 0;
	}
	if (p == p->handover->successor)
		on_ready(p->handover, &word, n);
	else
		on_hello(p, &word, n);
}

static void
on_knock(evutil_socket_t listening, short what, void *arg)
{
	struct handover *h = arg;
	struct peer *p = free_place(h);
	struct err err;

	(void)what;
	if (p == NULL ||
	    (p->fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) == -1) {
		event_del(&h->knock); /* until somebody goes, or descriptors are there again */
		if (p != NULL)
			evtimer_add(&h->pause, &patience);
		return;
	}
	/* A connection of evhttp's that had this number may be watched for reading still, as libevent
	 * believes (visitors.c), which then asks the kernel for nothing: EV_CLOSED is asked for anew. */
	event_assign(&p->word, h->opts.base, p->fd, EV_READ | EV_CLOSED | EV_PERSIST, on_word, p);
	if (check_peer(p->fd, &err) == -1)
		refuse(p, &err);
	else if (event_add(&p->word, &patience) == -1)
		drop(p);
}

static int
bind_new(int dirfd, struct err *err)
{
	struct sockaddr_un sun = address_in(dirfd, NEW);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return err_set_errno(err, NEW);
	/* Nobody can connect before listen, so the mode is right from the start. */
	if ((unlinkat(dirfd, NEW, 0) == 0 || errno == ENOENT) &&
	    bind(fd, (const struct sockaddr *)&sun, sizeof(sun)) == 0 &&
	    fchmodat(dirfd, NEW, 0600, 0) == 0 && listen(fd, PEERS_MAX) == 0)
		return fd;
	err_set_errno(err, NEW);
	close(fd);
	return -1;
}

int
handover_new(const struct handover_opts *opts, struct handover **out, struct err *err)
{
	struct handover *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return err_set(err, NEW ": memory is short");
	h->opts = *opts;
	for (size_t i = 0; i < PEERS_MAX; i++)
		h->peers[i] = (struct peer){ .handover = h, .fd = -1 };
	if ((h->opts.dirfd = fcntl(opts->dirfd, F_DUPFD_CLOEXEC, 0)) == -1) {
		free(h);
		return err_set_errno(err, NEW);
	}
	if ((h->fd = bind_new(h->opts.dirfd, err)) == -1) {
		close(h->opts.dirfd);
		free(h);
		return -1;
	}
	event_assign(&h->knock, opts->base, h->fd, EV_READ | EV_PERSIST, on_knock, h);
	evtimer_assign(&h->pause, opts->base, on_pause_over, h);
	*out = h;
	return 0;
}

int
handover_open(struct handover *h, struct err *err)
{
	if (event_add(&h->knock, NULL) == -1)
		return err_set(err, NAME ": memory is short");
	if (renameat(h->opts.dirfd, NEW, h->opts.dirfd, NAME) == -1)
		return err_set_errno(err, NAME);
	h->found = true;
	return 0;
}

void
handover_free(struct handover *h)
{
	if (h == NULL)
		return;
	stop_listening(h);
	for (size_t i = 0; i < PEERS_MAX; i++)
		if (h->peers[i].fd != -1 && h->ready && &h->peers[i] == h->successor)
			event_del(&h->peers[i].word);
		else if (h->peers[i].fd != -1)
			drop(&h->peers[i]);
	if (!h->ready)
		unlinkat(h->opts.dirfd, h->found ? NAME : NEW, 0);
	close(h->opts.dirfd);
	free(h);
}

/* ---- the successor ---- */

#define SILENT "does not answer: it or its disk hangs; where it does not come back, kill it"

/* As recvmsg; the descriptors that came are in fds, in their order. */
static ssize_t
receive(int fd, struct packet *p, int fds[HANDOVER_ROLES], size_t *nfds)
{
	struct iovec iov = { p, sizeof(*p) };
	union control control;
	struct msghdr m = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen =
		    CMSG_LEN(sizeof(int[HANDOVER_ROLES])) }; /* no room for one more */
	ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n == -1 ? NULL : CMSG_FIRSTHDR(&m);

	*nfds = 0;
	if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		*nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *nfds * sizeof(int));
	}
	if (n == -1 || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
		return n;
	errno = EMSGSIZE;
	return -1;
}

static void
close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/* Each descriptor in the place of its role. */
static int
assign(const struct packet *p, const int *fds, size_t n, struct handover_fds *out)
{
	out->rings = p->given.rings;
	for (size_t i = 0; i < HANDOVER_ROLES; i++)
		out->of[i] = -1;
	for (size_t i = 0; i < n; i++) {
		uint8_t role = p->given.roles[i];

		if (role >= HANDOVER_ROLES || out->of[role] != -1)
			return -1;
		out->of[role] = fds[i];
	}
	return 0;
}

static int
await_gift(int conn, struct handover_fds *out, struct err *err)
{
	int fds[HANDOVER_ROLES];
	struct packet p;
	size_t nfds;
	ssize_t n = receive(conn, &p, fds, &nfds);

	if (is_packet(&p, n, GIVEN) && assign(&p, fds, nfds, out) == 0)
		return 0;
	close_all(fds, nfds);
	if (n == -1 && errno == EAGAIN)
		return err_set(err, "process %ld " SILENT, (long)peer_of(conn).pid);
	if (n == -1)
		return err_set_errno(err, "the running process");
	if (!is_packet(&p, n, REFUSED))
		return err_set(err, n == 0 ? "the running process has ended amid the takeover"
					   : "the running process speaks of no takeover");
	p.why[sizeof(p.why) - 1] = '\0';
	return err_set(err, "the running process refuses: %s", p.why);
}

/* Which bounds connecting, too: where nobody is let in, it waits. */
static bool
be_patient(int fd, unsigned ms)
{
	const struct timeval t = { ms / 1000, (suseconds_t)(ms % 1000 * 1000) };

	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)) == 0 &&
	       setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) == 0;
}

/* 1, 0: nobody is there, or -1. */
static int
meet(const struct handover_wish *wish, int *conn, struct err *err)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int dirfd = open(wish->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct sockaddr_un sun = address_in(dirfd, NAME);
	bool met = fd != -1 && dirfd != -1 && be_patient(fd, wish->patience_ms) &&
		   connect(fd, (const struct sockaddr *)&sun, sizeof(sun)) == 0;
	int why = errno;

	if (dirfd != -1)
		close(dirfd);
	if (met && check_peer(fd, err) == 0) {
		*conn = fd;
		return 1;
	}
	if (fd != -1)
		close(fd);
	if (met)
		return -1;
	if (why == EAGAIN)
		return err_set(err, "the running process " SILENT);
	errno = why;
	return why == ENOENT || why == ECONNREFUSED ? 0 : err_set_errno(err, "connect");
}

int
handover_take(
    const struct handover_wish *wish, struct handover_fds *out, int *conn, struct err *err)
{
	struct packet p = packet_of(HELLO);
	int rc = meet(wish, conn, err);

	if (rc == 1) {
		p.hello = wish->hello;
		rc = send_packet(*conn, &p) == 0 ? 1 : err_set_errno(err, "say what is wanted");
		if (rc == -1 || await_gift(*conn, out, err) == -1) {
			close(*conn);
			rc = -1;
		}
	}
	if (rc == -1)
		return err_prefix(err, "%s/" NAME, wish->dir);
	if (rc == 1)
		FAULT_POINT("takeover.taken");
	return rc;
}

int
handover_ready(int conn, struct err *err)
{
	struct packet p = packet_of(READY);

	if (fcntl(conn, F_SETFL, O_NONBLOCK) == -1 || send_packet(conn, &p) == -1)
		return err_set_errno(err, NAME);
	FAULT_POINT("takeover.after_ready");
	return 0;
}
