#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cli/handover.h"
#include "tempdir.h"

#include <dirent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct fixture {
	char top[TEMPDIR_SIZE], dir[2 * TEMPDIR_SIZE];
	struct event_base *base;
	struct handover_opts opts;
	struct handover *handover;
	struct handover_hello heard;
	struct handover_fds has;
	bool refuses;
	unsigned asked, ready, gone;
	int log;
	unsigned descriptors; /* before */
	struct err err;
};

static unsigned
descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static int
on_ask(void *arg, const struct handover_hello *hello, struct handover_fds *give, struct err *err)
{
	struct fixture *f = arg;

	f->asked++;
	f->heard = *hello;
	if (f->refuses)
		return err_set(err, "not today");
	*give = f->has;
	return 0;
}

static void
on_ready(void *arg)
{
	((struct fixture *)arg)->ready++;
}

static void
on_gone(void *arg)
{
	((struct fixture *)arg)->gone++;
}

/* The folder's path is longer than a socket's may be. */
static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	alarm(60);
	tempdir_make(f->top);
	snprintf(f->dir, sizeof(f->dir), "%s/%0200d", f->top, 0);
	mkdir(f->dir, 0700);
	f->descriptors = descriptors();
	f->base = event_base_new();
	f->log = open("/dev/null", O_WRONLY | O_CLOEXEC);
	f->opts = (struct handover_opts){ .base = f->base,
		.log = log_new(f->log, LOG_LEVEL_ERROR),
		.dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		.ask = on_ask,
		.ready = on_ready,
		.gone = on_gone,
		.arg = f };
	for (size_t i = 0; i < HANDOVER_ROLES; i++)
		f->has.of[i] = -1;
	assert_int_equal(handover_new(&f->opts, &f->handover, &f->err), 0);
	assert_int_equal(handover_open(f->handover, &f->err), 0);
	*state = f;
	return 0;
}

/* Nothing of it stays open, whatever was said. */
static int
teardown(void **state)
{
	struct fixture *f = *state;

	handover_free(f->handover);
	event_base_free(f->base);
	log_free(f->opts.log);
	close(f->opts.dirfd);
	close(f->log);
	for (size_t i = 0; i < HANDOVER_ROLES; i++)
		if (f->has.of[i] != -1)
			close(f->has.of[i]);
	assert_int_equal(descriptors(), f->descriptors);
	tempdir_remove(f->top);
	free(f);
	alarm(0);
	return 0;
}

/* ---- successors ---- */

struct successor {
	pthread_t id;
	struct handover_wish wish;
	struct handover_fds fds;
	int conn, rc;
	atomic_bool done;
	struct err err;
};

static void *
take(void *arg)
{
	struct successor *s = arg;

	s->rc = handover_take(&s->wish, &s->fds, &s->conn, &s->err);
	s->done = true;
	return NULL;
}

static struct handover_wish
wish(const struct fixture *f)
{
	return (struct handover_wish){ .dir = f->dir,
		.hello = { 3, 7, "listen.address 127.0.0.1:8443" },
		.patience_ms = 60000 };
}

static void
start(struct fixture *f, struct successor *s)
{
	*s = (struct successor){ .wish = wish(f) };
	assert_int_equal(pthread_create(&s->id, NULL, take, s), 0);
}

static void
turn(struct fixture *f)
{
	event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static int
finish(struct fixture *f, struct successor *s)
{
	while (!s->done)
		turn(f);
	pthread_join(s->id, NULL);
	return s->rc;
}

/* It has come so far that a word of its is awaited. */
static void
take_over(struct fixture *f, struct successor *s)
{
	start(f, s);
	assert_int_equal(finish(f, s), 1);
}

static void
be_gone(struct successor *s)
{
	for (size_t i = 0; i < HANDOVER_ROLES; i++)
		if (s->fds.of[i] != -1)
			close(s->fds.of[i]);
	close(s->conn);
}

static bool
is_same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_ino == sb.st_ino &&
	       sa.st_dev == sb.st_dev;
}

static void
have(struct fixture *f, enum handover_role a, enum handover_role b)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->has.of[a] = pair[0];
	f->has.of[b] = pair[1];
}

/* For it to see the end of the process, which a test does not reach. */
static void
close_left(struct fixture *f, const struct successor *s)
{
	char byte;

	handover_free(f->handover);
	f->handover = NULL;
	assert_int_equal(recv(s->conn, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	f->descriptors++;
}

static void
descriptors_come_in_their_roles(void **state)
{
	struct fixture *f = *state;
	struct successor s;

	have(f, HANDOVER_SOCKET, HANDOVER_LOCK);
	f->has.rings = 9;
	take_over(f, &s);
	assert_int_equal(f->heard.state_version, 3);
	assert_int_equal(f->heard.ring_version, 7);
	assert_string_equal(f->heard.terms, s.wish.hello.terms);
	assert_int_equal(s.fds.rings, 9);
	for (size_t i = 0; i < HANDOVER_ROLES; i++) {
		assert_int_equal(s.fds.of[i] == -1, f->has.of[i] == -1);
		if (s.fds.of[i] == -1)
			continue;
		assert_true(is_same_file(s.fds.of[i], f->has.of[i]));
		assert_int_equal(fcntl(s.fds.of[i], F_GETFD), FD_CLOEXEC);
	}
	assert_int_equal(handover_ready(s.conn, &s.err), 0);
	while (f->ready == 0)
		turn(f);
	close_left(f, &s);
	be_gone(&s);
	assert_int_equal(f->ready, 1);
	assert_int_equal(f->gone, 0);
}

static void
of_nothing_it_is_told_too(void **state)
{
	struct fixture *f = *state;
	struct successor s;

	take_over(f, &s);
	for (size_t i = 0; i < HANDOVER_ROLES; i++)
		assert_int_equal(s.fds.of[i], -1);
	be_gone(&s);
}

static void
who_is_refused_is_told_why_and_may_ask_again(void **state)
{
	struct fixture *f = *state;
	struct successor s;

	f->refuses = true;
	for (unsigned i = 1; i < 4; i++) {
		start(f, &s);
		assert_int_equal(finish(f, &s), -1);
		assert_non_null(strstr(s.err.msg, "not today"));
		assert_int_equal(f->asked, i);
	}
	f->refuses = false;
	take_over(f, &s);
	be_gone(&s);
}

static void
there_is_one_successor_at_a_time(void **state)
{
	struct fixture *f = *state;
	struct successor first, second;

	take_over(f, &first);
	start(f, &second);
	assert_int_equal(finish(f, &second), -1);
	assert_non_null(strstr(second.err.msg, "another takeover"));
	assert_int_equal(f->asked, 1);
	be_gone(&first);
	while (f->gone == 0)
		turn(f);
	take_over(f, &second);
	assert_int_equal(f->asked, 2);
	be_gone(&second);
	while (f->gone == 1)
		turn(f);
	assert_int_equal(f->gone, 2);
	assert_int_equal(f->ready, 0);
}

static void
after_one_that_is_ready_nobody_is_there(void **state)
{
	struct fixture *f = *state;
	struct successor first, second;

	take_over(f, &first);
	assert_int_equal(handover_ready(first.conn, &first.err), 0);
	while (f->ready == 0)
		turn(f);
	start(f, &second);
	assert_int_equal(finish(f, &second), 0);
	close_left(f, &first);
	be_gone(&first);
	/* The name is the successor's own. */
	assert_int_equal(faccessat(f->opts.dirfd, "takeover", F_OK, 0), 0);
}

static void
where_nobody_listens_nobody_is_there(void **state)
{
	struct fixture *f = *state;
	struct successor s = { .wish = { .dir = "/nonexistent" } };

	take(&s);
	assert_int_equal(s.rc, 0);
	s.wish.dir = f->top;
	take(&s);
	assert_int_equal(s.rc, 0);
	handover_free(f->handover);
	f->handover = NULL;
	s.wish.dir = f->dir;
	take(&s);
	assert_int_equal(s.rc, 0);
	assert_int_equal(faccessat(f->opts.dirfd, "takeover", F_OK, 0), -1);
}

/* What a process that was killed has left. */
static void
a_stale_socket_is_nobody_and_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct handover *killed;
	struct successor s = { .wish = wish(f) };

	assert_int_equal(linkat(f->opts.dirfd, "takeover", f->opts.dirfd, "kept", 0), 0);
	handover_free(f->handover);
	assert_int_equal(renameat(f->opts.dirfd, "kept", f->opts.dirfd, "takeover"), 0);
	take(&s);
	assert_int_equal(s.rc, 0);
	assert_int_equal(handover_new(&f->opts, &killed, &f->err), 0);
	take(&s);
	assert_int_equal(s.rc, 0);
	assert_int_equal(linkat(f->opts.dirfd, "takeover.new", f->opts.dirfd, "kept", 0), 0);
	handover_free(killed);
	assert_int_equal(renameat(f->opts.dirfd, "kept", f->opts.dirfd, "takeover.new"), 0);
	assert_int_equal(handover_new(&f->opts, &f->handover, &f->err), 0);
	assert_int_equal(handover_open(f->handover, &f->err), 0);
	take_over(f, &s);
	be_gone(&s);
}

static void
it_is_for_its_owner(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(fstatat(f->opts.dirfd, "takeover", &st, 0), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
}

/* ---- those who do not speak it ---- */

static struct sockaddr_un
address(const struct fixture *f)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	snprintf(sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d/takeover", f->opts.dirfd);
	return sun;
}

static int
connect_to(const struct fixture *f)
{
	struct sockaddr_un sun = address(f);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

/* Until the other side has closed. */
static void
see_the_end(struct fixture *f, int fd)
{
	char packet[2048];
	ssize_t n;

	while ((n = recv(fd, packet, sizeof(packet), MSG_DONTWAIT)) > 0 ||
	       (n == -1 && errno == EAGAIN))
		turn(f);
	close(fd);
}

/* The words of both sides, as they are on this machine. */
#define BYTES(s)	    s, sizeof(s) - 1
#define HEAD(version, kind) "keytrail" version "\0\0\0" kind "\0\0\0"

static const struct {
	const char *label, *p;
	size_t known; /* the rest of the packet is zero */
	size_t n;
} garbage[] = {
	{ "nothing", BYTES(""), 0 },
	{ "a word", BYTES("x"), 1 },
	{ "READY before HELLO", BYTES(HEAD("\1", "\4")), 16 },
	{ "a HELLO that is cut", BYTES(HEAD("\1", "\1") "\3\0\0\0"), 20 },
	{ "another protocol", BYTES(HEAD("\2", "\1")), 536 },
	{ "another word first", BYTES("KEYTRAIL\1\0\0\0\1\0\0\0"), 536 },
	{ "no such word", BYTES(HEAD("\1", "\5")), 536 },
	{ "a HELLO that is too long", BYTES(HEAD("\1", "\1")), 537 },
	{ "a book", BYTES(HEAD("\1", "\1")), 65536 },
};

static void
what_is_no_hello_is_not_asked_about(void **state)
{
	struct fixture *f = *state;
	static char packet[65536];

	for (size_t i = 0; i < COUNT(garbage); i++) {
		int fd = connect_to(f);

		print_message("%s\n", garbage[i].label);
		memset(packet, 0, sizeof(packet));
		memcpy(packet, garbage[i].p, garbage[i].known);
		assert_int_equal(send(fd, packet, garbage[i].n, 0), garbage[i].n);
		see_the_end(f, fd);
		assert_int_equal(f->asked, 0);
	}
	assert_int_equal(f->ready + f->gone, 0);
}

static void
send_with_descriptors(int fd, const char *p, size_t n, unsigned nfds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)(uintptr_t)p, n };
	struct msghdr m = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(nfds * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	*c = (struct cmsghdr){ CMSG_LEN(nfds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	for (unsigned i = 0; i < nfds; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	assert_int_equal(sendmsg(fd, &m, 0), n);
}

static void
descriptors_that_nobody_wants_are_closed(void **state)
{
	struct fixture *f = *state;
	static const char hello[536] = HEAD("\1", "\1");
	int pipes[2], fd = connect_to(f);
	char byte;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	send_with_descriptors(fd, "x", 1, 3);
	see_the_end(f, fd);
	f->refuses = true;
	fd = connect_to(f);
	send_with_descriptors(fd, hello, sizeof(hello), 3);
	see_the_end(f, fd);
	assert_int_equal(f->asked, 1);
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &byte, 1), 0);
	close(pipes[0]);
}

static void
what_comes_in_the_place_of_ready_is_the_end(void **state)
{
	struct fixture *f = *state;
	struct successor s;

	take_over(f, &s);
	assert_int_equal(send(s.conn, HEAD("\1", "\1"), 16, 0), 16);
	while (f->gone == 0)
		turn(f);
	assert_int_equal(f->ready, 0);
	be_gone(&s);
}

static void
ignore(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

/* As evhttp leaves it. */
static void
a_number_that_was_closed_while_it_was_watched_is_as_good(void **state)
{
	struct fixture *f = *state;
	static const char hello[536] = HEAD("\1", "\1");
	int fd = connect_to(f), closed = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct event left;

	event_assign(&left, f->base, closed, EV_READ | EV_PERSIST, ignore, NULL);
	assert_int_equal(event_add(&left, NULL), 0);
	close(closed);
	f->refuses = true;
	assert_int_equal(send(fd, hello, sizeof(hello), 0), sizeof(hello));
	see_the_end(f, fd);
	assert_int_equal(f->asked, 1);
	event_del(&left);
}

/* More of them than are let in; each has its second. */
static void
who_says_nothing_keeps_nobody_out(void **state)
{
	struct fixture *f = *state;
	struct successor s;
	int silent[6];

	for (size_t i = 0; i < COUNT(silent); i++) {
		silent[i] = connect_to(f);
		turn(f);
	}
	take_over(f, &s);
	be_gone(&s);
	for (size_t i = 0; i < COUNT(silent); i++)
		see_the_end(f, silent[i]);
}

/* Whoever came after it and says nothing is put off meanwhile. */
static void
a_successor_takes_its_time(void **state)
{
	struct fixture *f = *state;
	struct successor s;

	take_over(f, &s);
	see_the_end(f, connect_to(f));
	assert_int_equal(handover_ready(s.conn, &s.err), 0);
	while (f->ready + f->gone == 0)
		turn(f);
	assert_int_equal(f->gone, 0);
	close_left(f, &s);
	be_gone(&s);
}

static void
terms_end(void **state)
{
	struct fixture *f = *state;
	struct successor s = { .wish = wish(f) };

	memset(s.wish.hello.terms, 'x', sizeof(s.wish.hello.terms));
	assert_int_equal(pthread_create(&s.id, NULL, take, &s), 0);
	assert_int_equal(finish(f, &s), 1);
	assert_int_equal(strlen(f->heard.terms), sizeof(f->heard.terms) - 1);
	be_gone(&s);
}

/* Whom the file's mode would let in. */
static void
another_users_process_is_refused(void **state)
{
	struct fixture *f = *state;
	struct successor s = { .wish = wish(f) };
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	chmod(f->top, 0755);
	chmod(f->dir, 0755);
	assert_int_equal(fchmodat(f->opts.dirfd, "takeover", 0666, 0), 0);
	if ((pid = fork()) == 0) {
		bool refused = setuid(65534) == 0 && (take(&s), s.rc) == -1;

		_exit(refused ? 0 : 1);
	}
	while (waitpid(pid, &status, WNOHANG) == 0)
		turn(f);
	assert_int_equal(status, 0);
	assert_int_equal(f->asked, 0);
}

/* ---- a running process that does not speak it ---- */

/* Its turn does not come; once its queue is full, nobody is let in, either. */
static void
who_does_not_answer_is_not_waited_for(void **state)
{
	struct fixture *f = *state;
	struct successor s = { .wish = wish(f) };
	char own[32];
	unsigned told = 0;

	snprintf(own, sizeof(own), "process %ld does not", (long)getpid());
	s.wish.patience_ms = 1;
	take(&s);
	assert_int_equal(s.rc, -1);
	assert_non_null(strstr(s.err.msg, own));
	while (strstr(s.err.msg, "/takeover: the running process does not") == NULL && told++ < 100)
		take(&s);
	assert_in_range(told, 1, 99);
	/* Those have left: nobody is asked for them. */
	take_over(f, &s);
	assert_int_equal(f->asked, 1);
	be_gone(&s);
}

static const struct {
	const char *label, *p;
	size_t known;
	const char *words;
	size_t n;
	unsigned descriptors;
} answers[] = {
	{ "nothing", BYTES(""), "ended", 0, 0 },
	{ "a word", BYTES("x"), "no takeover", 1, 0 },
	{ "a word with descriptors", BYTES("x"), "no takeover", 1, 3 },
	{ "a refusal without an end", BYTES(HEAD("\1", "\2")), "refuses: ", 528, 1 },
	{ "another protocol", BYTES(HEAD("\2", "\3") "\0\0\0\0\0\1\2\3\4"), "no takeover", 28, 5 },
	{ "a role that there is not", BYTES(HEAD("\1", "\3") "\0\0\0\0\0\5\2\3\4"), "no takeover",
	    28, 5 },
	{ "a role twice", BYTES(HEAD("\1", "\3") "\0\0\0\0\0\1\2\3\3"), "no takeover", 28, 5 },
	{ "more than there are roles", BYTES(HEAD("\1", "\3") "\0\0\0\0\0\1\2\3\4"), "too long", 28,
	    8 },
	{ "a book", BYTES("x"), "too long", 4096, 2 },
};

static void
what_is_no_gift_is_an_error(void **state)
{
	struct fixture *f = *state;
	static char packet[4096];
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un sun = address(f);

	handover_free(f->handover);
	f->handover = NULL;
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 1), 0);
	for (size_t i = 0; i < COUNT(answers); i++) {
		struct successor s;
		int conn;

		print_message("%s\n", answers[i].label);
		start(f, &s);
		conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		assert_int_equal(recv(conn, packet, sizeof(packet), 0), 536);
		memset(packet, 'x', sizeof(packet));
		memcpy(packet, answers[i].p, answers[i].known);
		if (answers[i].descriptors > 0)
			send_with_descriptors(conn, packet, answers[i].n, answers[i].descriptors);
		else
			send(conn, packet, answers[i].n, 0);
		close(conn);
		assert_int_equal(finish(f, &s), -1);
		assert_non_null(strstr(s.err.msg, answers[i].words));
	}
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(descriptors_come_in_their_roles),
		TEST(of_nothing_it_is_told_too),
		TEST(who_is_refused_is_told_why_and_may_ask_again),
		TEST(there_is_one_successor_at_a_time),
		TEST(after_one_that_is_ready_nobody_is_there),
		TEST(where_nobody_listens_nobody_is_there),
		TEST(a_stale_socket_is_nobody_and_is_replaced),
		TEST(it_is_for_its_owner),
		TEST(what_is_no_hello_is_not_asked_about),
		TEST(descriptors_that_nobody_wants_are_closed),
		TEST(what_comes_in_the_place_of_ready_is_the_end),
		TEST(a_number_that_was_closed_while_it_was_watched_is_as_good),
		TEST(who_says_nothing_keeps_nobody_out),
		TEST(a_successor_takes_its_time),
		TEST(terms_end),
		TEST(another_users_process_is_refused),
		TEST(who_does_not_answer_is_not_waited_for),
		TEST(what_is_no_gift_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
