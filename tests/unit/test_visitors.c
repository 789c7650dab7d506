#include "admin/visitors.h"
#include "keytrail/clock.h"
#include "keytrail/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	struct event_base *base;
	struct evhttp *http;
	struct visitors visitors;
	struct log *log;
	uint16_t port;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	alarm(60);
	f->base = event_base_new();
	f->http = evhttp_new(f->base);
	f->log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	*state = f;
	return 0;
}

static void
open_to(struct fixture *f, unsigned life_ms)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	struct evhttp_bound_socket *bound;

	visitors_init(&f->visitors, f->base, f->log, life_ms);
	evhttp_set_bevcb(f->http, visitors_let_in, &f->visitors);
	bound = evhttp_bind_socket_with_handle(f->http, "127.0.0.1", 0);
	assert_non_null(bound);
	assert_int_equal(
	    getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&a, &len), 0);
	f->port = ntohs(a.sin_port);
	assert_int_equal(visitors_watch(&f->visitors, evhttp_bound_socket_get_listener(bound)), 0);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	evhttp_free(f->http);
	visitors_fini(&f->visitors);
	event_base_free(f->base);
	log_free(f->log);
	free(f);
	alarm(0);
	return 0;
}

static int
come(struct fixture *f)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(f->port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static bool
has_ended(int fd)
{
	char byte;
	ssize_t n = read(fd, &byte, 1);

	assert_true(n == 0 || (n == -1 && errno == EAGAIN));
	return n == 0;
}

/* No silence is too long here: evhttp was not told to mind it. */
static void
a_visitor_ends_at_an_age(void **state)
{
	struct fixture *f = *state;
	int fd;

	open_to(f, 1);
	for (int i = 0; i < 2; i++) {
		fd = come(f);
		while (!has_ended(fd))
			event_base_loop(f->base, EVLOOP_ONCE);
		close(fd);
	}
}

static void
younger_ones_stay(void **state)
{
	struct fixture *f = *state;
	int old, young;

	open_to(f, 3600000);
	old = come(f);
	young = come(f);
	while (f->visitors.n < 2)
		event_base_loop(f->base, EVLOOP_ONCE);
	f->visitors.all[0].born -= 3600 * CLOCK_NS_PER_S;
	event_active(&f->visitors.timer, EV_TIMEOUT, 0);
	while (!has_ended(old))
		event_base_loop(f->base, EVLOOP_ONCE);
	event_base_loop(f->base, EVLOOP_NONBLOCK);
	assert_false(has_ended(young));
	assert_true(evtimer_pending(&f->visitors.timer, NULL));
	close(old);
	close(young);
}

static size_t
unread_of(const struct fixture *f)
{
	return f->visitors.n == 0
		   ? 0
		   : evbuffer_get_length(bufferevent_get_input(f->visitors.all[0].connection));
}

static void
answer_at_length(struct evhttp_request *req, void *arg)
{
	static const char zeros[16 << 20];
	struct evbuffer *body = evbuffer_new();

	(void)arg;
	evbuffer_add_reference(body, zeros, sizeof(zeros), NULL, NULL);
	evhttp_send_reply(req, 200, "OK", body);
	evbuffer_free(body);
}

static bool
has_gone(const struct fixture *f)
{
	bufferevent_event_cb on_event = NULL;

	if (f->visitors.n > 0)
		bufferevent_getcb(f->visitors.all[0].connection, NULL, NULL, &on_event, NULL);
	return f->visitors.n > 0 && on_event == NULL;
}

static void
expect_ended_amid_digits(struct fixture *f, const char *head)
{
	static char digits[4 * VISITORS_UNREAD_MAX];
	int fd;

	memset(digits, '0', sizeof(digits));
	open_to(f, 3600000);
	evhttp_set_gencb(f->http, answer_at_length, NULL);
	fd = come(f);
	assert_int_equal(write(fd, head, strlen(head)), strlen(head));
	assert_int_equal(write(fd, digits, sizeof(digits)), sizeof(digits));
	while (!has_gone(f)) {
		event_base_loop(f->base, EVLOOP_ONCE);
		assert_true(unread_of(f) < 2 * VISITORS_UNREAD_MAX);
	}
	close(fd);
}

/* evhttp would look for its end in all that comes. */
static void
the_size_of_a_chunk_has_an_end(void **state)
{
	expect_ended_amid_digits(
	    *state, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
}

/* evhttp would keep it. */
static void
little_may_come_amid_an_answer(void **state)
{
	expect_ended_amid_digits(*state, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
}

static void
who_finds_no_descriptor_is_turned_away_and_nobody_spins(void **state)
{
	struct fixture *f = *state;
	struct rlimit all, none;
	int fd, next;

	open_to(f, 3600000);
	fd = come(f);
	getrlimit(RLIMIT_NOFILE, &all);
	assert_int_not_equal(next = dup(fd), -1);
	close(next);
	none = (struct rlimit){ (rlim_t)next, all.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	event_base_loop(f->base, EVLOOP_ONCE);
	assert_true(has_ended(fd));
	assert_true(evtimer_pending(&f->visitors.pause, NULL));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
	close(fd);
	fd = come(f);
	event_base_loop(f->base, EVLOOP_NONBLOCK);
	assert_int_equal(f->visitors.n, 0);
	while (f->visitors.n == 0)
		event_base_loop(f->base, EVLOOP_ONCE);
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_visitor_ends_at_an_age),
		TEST(younger_ones_stay),
		TEST(who_finds_no_descriptor_is_turned_away_and_nobody_spins),
		TEST(the_size_of_a_chunk_has_an_end),
		TEST(little_may_come_amid_an_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
