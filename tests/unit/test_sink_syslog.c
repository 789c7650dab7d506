#include "../../src/sink/sink_syslog.h"

#include "keytrail/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define EVENTS 200
#define HASH   "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* ---- messages ---- */

#define EVENT(action, more)                                                                        \
	"{\"action\":\"" action "\",\"eventTime\":\"2026-11-22T20:09:08.12+0000\"" more            \
	",\"outcome\":\"success\",\"severity\":\"normal\",\"trail\":{}}"
#define DATA(action, outcome, severity, more)                                                      \
	"[keytrail@32473 log=\"ab\" boot=\"cd\" seq=\"7\" prev=\"5\" hash=\"" HASH                 \
	"\" action=\"" action "\" outcome=\"" outcome "\" severity=\"" severity "\"" more "]"

static const struct {
	const char *label, *line, *text, *host, *want;
	bool stub;
} messages[] = {
	{ "an event", EVENT("kms.secrets.list", ""), "text", "a.example",
	    "<110>1 2026-11-22T20:09:08.12Z a.example keytrail 42 kms.secrets.list " DATA(
		"kms.secrets.list", "success", "normal", "") " text",
	    false },
	{ "what is not ASCII begins with a BOM", EVENT("a.b", ""), "\xc3\xa4", "h",
	    "<110>1 2026-11-22T20:09:08.12Z h keytrail 42 a.b " DATA(
		"a.b", "success", "normal", "") " \xef\xbb\xbf\xc3\xa4",
	    false },
	{ "quotes, brackets and backslashes in a value are escaped", EVENT("a]\\\\\\\"[", ""), "t",
	    "h",
	    "<110>1 2026-11-22T20:09:08.12Z h keytrail 42 a]\\\\\\\"[ " DATA(
		"a\\]\\\\\\\\\\\\\\\"[", "success", "normal", "") " t",
	    false },
	{ "a stub", EVENT("a.b", ""), "{}", "h",
	    "<110>1 2026-11-22T20:09:08.12Z h keytrail 42 a.b " DATA(
		"a.b", "success", "normal", " stub=\"true\"") " {}",
	    true },
	{ "a critical one without a time, from nowhere",
	    "{\"action\":\"a.b\",\"outcome\":\"failure\",\"severity\":\"critical\"}", "t", "",
	    "<106>1 - - keytrail 42 a.b " DATA("a.b", "failure", "critical", "") " t", false },
	{ "a warning, with an action that is longer than MSGID",
	    "{\"action\":\"keytrail.abcdefghijklmnopqrstuvwxyz.abc\",\"severity\":\"warning\"}",
	    "t", "h n",
	    "<108>1 - h_n keytrail 42 keytrail.abcdefghijklmnopqrstuvw " DATA(
		"keytrail.abcdefghijklmnopqrstuvwxyz.abc", "", "warning", "") " t",
	    false },
};

static void
messages_are_as_the_rfc_has_them(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		struct sink_event e = { .text = slice_of(messages[i].text),
			.line = slice_of(messages[i].line),
			.seq = 7,
			.prev = 5,
			.log = "ab",
			.boot = "cd",
			.hash = HASH,
			.stub = messages[i].stub };
		struct buf out = BUF_INIT;

		assert_int_equal(syslog_message(&e, messages[i].host, 42, &out), 0);
		assert_int_equal(buf_append(&out, "", 1), 0);
		assert_string_equal(buf_slice(&out).p, messages[i].want);
		buf_fini(&out);
	}
}

/* ---- a receiver ---- */

struct fixture {
	int listener, conn; /* conn -1: none */
	struct config_sink cfg;
	char host[16];
	void *sink;
	struct err err;
	size_t done;
	struct sink_event events[EVENTS];
	char lines[EVENTS][4096];
	char got[2 * 1024 * 1024];
	size_t ngot;
};

static void
make_events(struct fixture *f, size_t size)
{
	for (unsigned i = 0; i < EVENTS; i++) {
		memset(f->lines[i], 'x', size);
		f->events[i] = (struct sink_event){ .text = { f->lines[i], size },
			.line = slice_of("{\"action\":\"a.b\"}"),
			.seq = i + 1,
			.prev = i,
			.log = "ab",
			.boot = "cd" };
	}
}

static int
open_with(void **state, int type, enum config_syslog_transport transport, int room)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sockaddr_in sin = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);

	f->conn = -1;
	f->listener = socket(AF_INET, type, 0);
	assert_int_not_equal(f->listener, -1);
	if (room > 0)
		setsockopt(f->listener, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	assert_int_equal(bind(f->listener, (struct sockaddr *)&sin, sizeof(sin)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(f->listener, 8), 0);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&sin, &len), 0);
	snprintf(f->host, sizeof(f->host), "127.0.0.1");
	f->cfg = (struct config_sink){ .type = CONFIG_SINK_SYSLOG,
		.address = { f->host, ntohs(sin.sin_port) },
		.transport = transport,
		.max_datagram = 8192 };
	make_events(f, 100);
	assert_int_equal(sink_syslog_ops.open(&f->cfg, &f->sink, &f->err), 0);
	*state = f;
	return 0;
}

static int
setup_tcp(void **state)
{
	return open_with(state, SOCK_STREAM, CONFIG_SYSLOG_TCP, 0);
}

static int
setup_narrow(void **state)
{
	return open_with(state, SOCK_STREAM, CONFIG_SYSLOG_TCP, 4096);
}

static int
setup_udp(void **state)
{
	return open_with(state, SOCK_DGRAM, CONFIG_SYSLOG_UDP, 0);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	sink_syslog_ops.close(f->sink);
	if (f->conn != -1)
		close(f->conn);
	if (f->listener != -1)
		close(f->listener);
	free(f);
	return 0;
}

static enum sink_result
deliver(struct fixture *f, unsigned from, size_t n, int ms)
{
	f->done = 0;
	f->err.msg[0] = '\0';
	return sink_syslog_ops.deliver(f->sink, f->events + from, n,
	    clock_mono_ns() + ms * CLOCK_NS_PER_MS, &f->done, &f->err);
}

static void
take_connection(struct fixture *f)
{
	f->conn = accept(f->listener, NULL, NULL);
	assert_int_not_equal(f->conn, -1);
	f->ngot = 0;
}

/* What has come by now, or until so many bytes have. */
static void
read_some(struct fixture *f, size_t wanted)
{
	ssize_t n = 1;

	while (n > 0 && (wanted == 0 || f->ngot < wanted)) {
		n = recv(f->conn, f->got + f->ngot, sizeof(f->got) - f->ngot,
		    wanted == 0 ? MSG_DONTWAIT : 0);
		f->ngot += n > 0 ? (size_t)n : 0;
	}
}

static void
close_connection(struct fixture *f, bool reset)
{
	const struct linger now = { .l_onoff = reset };

	setsockopt(f->conn, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(f->conn);
	f->conn = -1;
}

/* The numbers in the frames, "1 2 3"; each has to be whole. */
static void
expect_frames(const struct fixture *f, unsigned from, unsigned to)
{
	const char *p = f->got, *end = f->got + f->ngot;
	uint64_t seq;

	for (; from <= to; from++) {
		char *message;
		size_t n = strtoul(p, &message, 10);
		const char *at;

		assert_true(p < end && *message++ == ' ' && n <= (size_t)(end - message));
		at = memmem(message, n, "seq=\"", 5);
		assert_true(at != NULL && sscanf(at, "seq=\"%" SCNu64 "\"", &seq) == 1);
		assert_int_equal(seq, from);
		p = message + n;
	}
	assert_ptr_equal(p, end);
}

/* ---- TCP ---- */

static void
frames_arrive_whole_and_once(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(deliver(f, 0, 3, 5000), SINK_OK);
	take_connection(f);
	assert_int_equal(deliver(f, 3, EVENTS - 3, 5000), SINK_OK);
	assert_string_equal(f->err.msg, "");
	read_some(f, 0);
	expect_frames(f, 1, EVENTS);
}

static void
what_was_acknowledged_comes_again_after_a_reset(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(deliver(f, 0, 3, 5000), SINK_OK);
	take_connection(f);
	close_connection(f, true);
	assert_int_equal(deliver(f, 3, 2, 5000), SINK_OK);
	take_connection(f);
	read_some(f, 0);
	expect_frames(f, 1, 5);
}

static void
what_was_read_does_not_come_again(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(deliver(f, 0, 3, 5000), SINK_OK);
	take_connection(f);
	read_some(f, 0);
	close_connection(f, false);
	assert_int_equal(deliver(f, 3, 2, 5000), SINK_OK);
	take_connection(f);
	read_some(f, 0);
	expect_frames(f, 4, 5);
}

/* More than the tail may hold. */
static void
the_tail_is_bounded(void **state)
{
	struct fixture *f = *state;
	unsigned first;

	make_events(f, 4000);
	assert_int_equal(deliver(f, 0, 1, 5000), SINK_OK);
	take_connection(f);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < EVENTS; i += 20) {
			assert_int_equal(deliver(f, i, 20, 5000), SINK_OK);
			read_some(f, 0);
			f->ngot = 0;
		}
	close_connection(f, true);
	assert_int_equal(deliver(f, 0, 1, 50), SINK_RETRY);
	assert_int_equal(f->done, 0);
	take_connection(f);
	read_some(f, 1024);
	assert_int_equal(sscanf(memmem(f->got, f->ngot, "seq=\"", 5), "seq=\"%u\"", &first), 1);
	assert_in_range(first, 100, EVENTS);
}

static void
a_receiver_that_stands_still_has_what_it_acknowledged(void **state)
{
	struct fixture *f = *state;
	size_t done;

	make_events(f, 4000);
	assert_int_equal(deliver(f, 0, EVENTS, 300), SINK_RETRY);
	assert_non_null(strstr(f->err.msg, "the receiver "));
	done = f->done;
	assert_true(done < EVENTS);
	take_connection(f);
	while (done < EVENTS) {
		read_some(f, 0);
		deliver(f, (unsigned)done, EVENTS - done, 50);
		done += f->err.msg[0] == '\0' ? EVENTS - done : f->done;
	}
	read_some(f, 0);
	expect_frames(f, 1, EVENTS);
}

/* It has closed its side, but not read what it was sent. */
static void
an_end_before_all_is_acknowledged_is_none(void **state)
{
	struct fixture *f = *state;
	int before;

	assert_int_equal(deliver(f, 0, 1, 5000), SINK_OK);
	take_connection(f);
	make_events(f, 4000);
	assert_int_equal(deliver(f, 1, 20, 300), SINK_RETRY);
	assert_int_equal(shutdown(f->conn, SHUT_WR), 0);
	before = f->conn;
	deliver(f, 1 + (unsigned)f->done, 20 - f->done, 300);
	take_connection(f);
	close(before);
	read_some(f, 1024);
	assert_non_null(memmem(f->got, 1024, "seq=\"1\"", 7));
}

static void *
reset_when_something_comes(void *arg)
{
	struct fixture *f = arg;
	char first;

	recv(f->conn, &first, 1, MSG_PEEK);
	close_connection(f, true);
	return NULL;
}

static void
a_reset_acknowledges_nothing(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_int_equal(deliver(f, 0, 1, 5000), SINK_OK);
	take_connection(f);
	make_events(f, 4000);
	read_some(f, 0);
	assert_int_equal(pthread_create(&thread, NULL, reset_when_something_comes, f), 0);
	assert_int_equal(deliver(f, 1, 10, 5000), SINK_RETRY);
	assert_int_equal(f->done, 0);
	pthread_join(thread, NULL);
}

static void *
accept_and_reset(void *arg)
{
	struct fixture *f = arg;

	take_connection(f);
	close_connection(f, true);
	return NULL;
}

static void
who_takes_connections_only_to_close_them_has_nothing(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, accept_and_reset, f), 0);
	assert_int_equal(deliver(f, 0, 3, 5000), SINK_RETRY);
	assert_int_equal(f->done, 0);
	pthread_join(thread, NULL);
	assert_int_equal(deliver(f, 0, 3, 5000), SINK_OK);
	take_connection(f);
	read_some(f, 0);
	expect_frames(f, 1, 3);
}

static void
nobody_listens(void **state)
{
	struct fixture *f = *state;

	close(f->listener);
	f->listener = -1;
	assert_int_equal(deliver(f, 0, 3, 5000), SINK_RETRY);
	assert_non_null(strstr(f->err.msg, "connect: Connection refused"));
	assert_int_equal(f->done, 0);
}

/* ---- UDP ---- */

static void
a_datagram_is_a_message(void **state)
{
	struct fixture *f = *state;
	ssize_t n;

	assert_int_equal(deliver(f, 0, 2, 5000), SINK_OK);
	for (unsigned i = 0; i < 2; i++) {
		n = recv(f->listener, f->got, sizeof(f->got), 0);
		assert_true(n > 0 && memcmp(f->got, "<110>1 ", 7) == 0);
		assert_memory_equal(f->got + n - 2, "xx", 2);
	}
}

static void
a_message_that_fits_no_datagram_is_rejected(void **state)
{
	struct fixture *f = *state;

	f->events[2].text.n = 4000;
	f->cfg.max_datagram = 2048;
	assert_int_equal(deliver(f, 0, 4, 5000), SINK_REJECT);
	assert_int_equal(f->done, 2);
	assert_non_null(strstr(f->err.msg, "a datagram at most 2048"));
}

static void
a_refused_datagram_is_sent_again(void **state)
{
	struct fixture *f = *state;

	close(f->listener);
	f->listener = -1;
	assert_int_equal(deliver(f, 0, 1, 5000), SINK_RETRY);
	assert_int_equal(f->done, 0);
}

#define WITH(setup, test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_are_as_the_rfc_has_them),
		WITH(setup_tcp, frames_arrive_whole_and_once),
		WITH(setup_tcp, what_was_acknowledged_comes_again_after_a_reset),
		WITH(setup_tcp, what_was_read_does_not_come_again),
		WITH(setup_tcp, the_tail_is_bounded),
		WITH(setup_narrow, a_receiver_that_stands_still_has_what_it_acknowledged),
		WITH(setup_narrow, an_end_before_all_is_acknowledged_is_none),
		WITH(setup_narrow, a_reset_acknowledges_nothing),
		WITH(setup_tcp, who_takes_connections_only_to_close_them_has_nothing),
		WITH(setup_tcp, nobody_listens),
		WITH(setup_udp, a_datagram_is_a_message),
		WITH(setup_udp, a_message_that_fits_no_datagram_is_rejected),
		WITH(setup_udp, a_refused_datagram_is_sent_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
