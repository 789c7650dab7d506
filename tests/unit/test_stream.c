#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/stream.h"
#include "data/tls.h"
#include "pki.h"
#include "tempdir.h"

#include <event2/event.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- what all tests share ---- */

static struct shared {
	char dir[TEMPDIR_SIZE];
	struct event_base *base;
	struct stream_method *method;
	struct tls_server *server;
	SSL_CTX *client;
} shared;

static int
group_setup(void **state)
{
	struct event_config *cfg = event_config_new();
	struct pki_id ca = pki_make(&(struct pki_opts){ .name = "ca" });
	struct pki_id id =
	    pki_make(&(struct pki_opts){ .name = "server", .san = "DNS:localhost", .issuer = &ca });
	char certificate[TEMPDIR_SIZE + 16], key[TEMPDIR_SIZE + 16], ca_file[TEMPDIR_SIZE + 16];
	struct config_listen listen = { .own = { certificate, key, NULL } };
	struct config_tls upstream = { .ca = ca_file };
	struct err err;

	(void)state;
	alarm(100);
	tempdir_make(shared.dir);
	pki_write(&ca, shared.dir, "ca", NULL);
	pki_write(&id, shared.dir, "id", NULL);
	snprintf(certificate, sizeof(certificate), "%s/id.pem", shared.dir);
	snprintf(key, sizeof(key), "%s/id.key", shared.dir);
	snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", shared.dir);
	pki_free(&ca);
	pki_free(&id);
	event_config_require_features(cfg, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE);
	shared.base = event_base_new_with_config(cfg);
	event_config_free(cfg);
	shared.method = stream_method_new(&err);
	shared.server = tls_server_new(&listen, NULL, &err);
	shared.client = tls_client_new(&upstream, &err);
	return shared.base != NULL && shared.method != NULL && shared.server != NULL &&
		       shared.client != NULL
		   ? 0
		   : -1;
}

static int
group_teardown(void **state)
{
	(void)state;
	tls_server_free(shared.server);
	SSL_CTX_free(shared.client);
	stream_method_free(shared.method);
	event_base_free(shared.base);
	tempdir_remove(shared.dir);
	return 0;
}

/* Two connected sockets: TCP, so that they can be reset. */
static void
socket_pair(int fds[2], int buffer)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (buffer > 0) {
		setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
		setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
		setsockopt(fds[0], SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
		setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	}
	assert_int_equal(bind(listener, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&a, len), 0);
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fds[1] != -1);
	close(listener);
	for (int i = 0; i < 2; i++) {
		setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		evutil_make_socket_nonblocking(fds[i]);
	}
}

struct end {
	struct stream stream;
	unsigned readies;
};

static void
count_ready(void *arg)
{
	((struct end *)arg)->readies++;
}

enum kind { PLAIN, TLS12, TLS13, KINDS };
static const char *const kind_names[] = { "plain", "TLS 1.2", "TLS 1.3" };

static void
open_end(struct end *e, int fd, enum kind kind, bool client, stream_ready_fn ready, void *arg)
{
	struct stream_opts o = { .base = shared.base,
		.method = shared.method,
		.ctx = kind == PLAIN ? NULL
		       : client	     ? shared.client
				     : tls_server_context(shared.server),
		.client = client,
		.server_name = "localhost",
		.ready = ready,
		.arg = arg };
	struct err err;

	e->readies = 0;
	assert_int_equal(stream_open(&e->stream, fd, &o, &err), 0);
	if (kind == TLS12 && client)
		SSL_set_max_proto_version(e->stream.ssl, TLS1_2_VERSION);
}

/* Let events come until nothing is left to come. */
static void
settle(void)
{
	for (int i = 0; i < 3; i++)
		event_base_loop(shared.base, EVLOOP_NONBLOCK);
}

/* Read with `cap` until something else than bytes comes. */
static enum stream_result
read_text(struct end *e, size_t cap, char out[256])
{
	enum stream_result r;
	size_t n, have = 0;

	while ((r = stream_read(&e->stream, out + have, cap, &n)) == STREAM_OK)
		have += n;
	out[have] = '\0';
	return r;
}

static void
send_text(struct end *e, const char *text)
{
	size_t n;

	assert_int_equal(stream_write(&e->stream, text, strlen(text), &n), STREAM_OK);
	assert_int_equal(n, strlen(text));
}

static void
open_pair(struct end ends[2], enum kind kind, int buffer)
{
	enum stream_result a = STREAM_AGAIN, b = STREAM_AGAIN;
	struct err err;
	char text[256];
	int fds[2];

	socket_pair(fds, buffer);
	open_end(&ends[0], fds[0], kind, true, count_ready, &ends[0]);
	open_end(&ends[1], fds[1], kind, false, count_ready, &ends[1]);
	for (int i = 0; i < 20 && (a != STREAM_OK || b != STREAM_OK); i++) {
		a = stream_handshake(&ends[0].stream, &err);
		settle();
		b = stream_handshake(&ends[1].stream, &err);
		settle();
	}
	assert_int_equal(a, STREAM_OK);
	assert_int_equal(b, STREAM_OK);
	/* A ticket that nobody has read would make a close a reset: it goes with what is sent next. */
	for (int i = 0; i < 2; i++) {
		send_text(&ends[!i], "x");
		assert_int_equal(read_text(&ends[i], 100, text), STREAM_AGAIN);
		assert_string_equal(text, "x");
	}
}

static void
close_pair(struct end ends[2])
{
	stream_close(&ends[0].stream);
	stream_close(&ends[1].stream);
}

/* ---- messages that are TLS's own ---- */

/* With `data`, every tenth is followed by a byte of the application's. */
static enum stream_result
update_keys(struct end *from, struct end *to, unsigned n, bool data)
{
	enum stream_result r = STREAM_AGAIN;
	char text[256];

	for (unsigned i = 1; i <= n && r == STREAM_AGAIN; i++) {
		assert_int_equal(SSL_key_update(from->stream.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(from->stream.ssl), 1);
		if (data && i % 10 == 0)
			send_text(from, "x");
		if (i % 10 == 0 || i == n) {
			settle();
			r = read_text(to, 100, text);
		}
	}
	return r;
}

static void
a_flood_of_messages_ends_the_stream(void **state)
{
	(void)state;
	for (int client = 0; client < 2; client++) {
		struct end ends[2], *from = &ends[!client], *to = &ends[client];

		open_pair(ends, TLS13, 0);
		assert_int_equal(update_keys(from, to, 1000, true), STREAM_AGAIN);
		assert_false(stream_is_flooded(&to->stream));
		assert_int_equal(update_keys(from, to, 1000, false), STREAM_ERROR);
		assert_true(stream_is_flooded(&to->stream) && to->stream.broken);
		close_pair(ends);
	}
}

/* However much waits, one call reads what is here, not the rest of the flood; bytes behind it do not
 * make up for it. */
static void
a_flood_is_not_read_to_its_end(void **state)
{
	struct end ends[2];
	char text[256];
	int left = 0;

	(void)state;
	open_pair(ends, TLS13, 0);
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(
		    SSL_key_update(ends[0].stream.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(ends[0].stream.ssl), 1);
	}
	send_text(&ends[0], "x");
	settle();
	assert_int_equal(read_text(&ends[1], 100, text), STREAM_ERROR);
	assert_string_equal(text, "");
	assert_int_equal(ioctl(ends[1].stream.fd, FIONREAD, &left), 0);
	assert_true(left > 0);
	close_pair(ends);
}

/* ---- ends ---- */

enum farewell { SHUTDOWN, CLOSE, FIN_ONLY, BROKEN };

static void
say_farewell(struct end *e, enum farewell how)
{
	switch (how) {
	case SHUTDOWN:
		assert_int_equal(stream_shutdown_write(&e->stream), STREAM_OK);
		break;
	case BROKEN:
		e->stream.broken = true;
		stream_close(&e->stream);
		break;
	case CLOSE:
		stream_close(&e->stream);
		break;
	case FIN_ONLY:
		shutdown(e->stream.fd, SHUT_WR);
		break;
	}
}

/* Bytes and the end may come in one event or in two: both are read, and nothing after. */
static void
bytes_then_the_end(void **state)
{
	static const enum farewell all[] = { SHUTDOWN, CLOSE, FIN_ONLY, BROKEN };

	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++)
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			for (int together = 0; together < 2; together++) {
				struct end ends[2];
				char text[256];
				enum stream_result r, want = STREAM_EOF;

				if (kind == PLAIN && all[i] == BROKEN)
					want = STREAM_ERROR;
				else if (kind != PLAIN && (all[i] == FIN_ONLY || all[i] == BROKEN))
					want = STREAM_CUT;
				open_pair(ends, kind, 0);
				if (together && all[i] != BROKEN)
					stream_end_follows(&ends[0].stream);
				send_text(&ends[0], "last words");
				if (!together) {
					settle();
					assert_int_equal(
					    read_text(&ends[1], 100, text), STREAM_AGAIN);
					assert_string_equal(text, "last words");
				}
				say_farewell(&ends[0], all[i]);
				settle();
				r = read_text(&ends[1], 100, text);
				assert_string_equal(text, together ? "last words" : "");
				if (r != want)
					fail_msg(
					    "%s, farewell %d: %d", kind_names[kind], all[i], r);
				close_pair(ends);
			}
}

static void
a_half_closed_stream_still_carries_the_other_way(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct end ends[2];
		char text[256];

		open_pair(ends, kind, 0);
		stream_shutdown_write(&ends[0].stream);
		settle();
		assert_int_equal(read_text(&ends[1], 100, text), STREAM_EOF);
		send_text(&ends[1], "answer");
		settle();
		assert_int_equal(read_text(&ends[0], 100, text), STREAM_AGAIN);
		assert_string_equal(text, "answer");
		close_pair(ends);
	}
}

static void
reset_now(struct end *e)
{
	struct linger l = { 1, 0 };

	setsockopt(e->stream.fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	e->stream.broken = true;
	stream_close(&e->stream);
}

static void
a_reset_is_an_error_and_no_end(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct end ends[2];
		char text[256];

		open_pair(ends, kind, 0);
		ends[1].readies = 0;
		reset_now(&ends[0]);
		settle();
		assert_true(ends[1].readies > 0);
		assert_int_equal(read_text(&ends[1], 100, text), STREAM_ERROR);
		close_pair(ends);
	}
}

static void
a_reset_can_be_told_from_a_half_close_without_reading(void **state)
{
	struct end ends[2];

	(void)state;
	open_pair(ends, PLAIN, 0);
	assert_false(stream_is_reset(&ends[1].stream));
	stream_shutdown_write(&ends[0].stream);
	settle();
	assert_false(stream_is_reset(&ends[1].stream));
	reset_now(&ends[0]);
	settle();
	assert_true(stream_is_reset(&ends[1].stream));
	close_pair(ends);
}

/* A failed write says it too, to whoever reads: no event is left to come. */
static void
a_failed_write_wakes_the_reader(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct end ends[2];
		char text[256];
		size_t n;

		open_pair(ends, kind, 0);
		settle();
		ends[1].stream.readable = ends[1].stream.unsure = false; /* as after a short read */
		reset_now(&ends[0]);
		assert_int_equal(stream_write(&ends[1].stream, "x", 1, &n), STREAM_ERROR);
		assert_true(stream_may_read(&ends[1].stream));
		assert_true(stream_read(&ends[1].stream, text, 1, &n) > STREAM_AGAIN);
		close_pair(ends);
	}
}

/* Only one event comes for both, and it looks like one for bytes. */
static void
a_reset_behind_bytes_is_not_missed(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct end ends[2];
		char text[256];
		size_t n = 0;
		enum stream_result r;

		open_pair(ends, kind, 0);
		read_text(&ends[1], 100, text);
		send_text(&ends[0], "bytes");
		reset_now(&ends[0]);
		settle();
		r = stream_read(&ends[1].stream, text, 100, &n);
		if (r == STREAM_OK) {
			assert_true(stream_may_go_on(&ends[1].stream));
			r = stream_read(&ends[1].stream, text, 100, &n);
		}
		assert_int_equal(r, STREAM_ERROR);
		close_pair(ends);
	}
}

/* ---- readiness ---- */

static void
a_short_read_empties_and_a_new_byte_wakes(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct end ends[2];
		char text[256];

		open_pair(ends, kind, 0);
		assert_int_equal(read_text(&ends[1], 100, text), STREAM_AGAIN);
		for (int i = 0; i < 3; i++) {
			ends[1].readies = 0;
			send_text(&ends[0], "some");
			settle();
			if (ends[1].readies == 0)
				fail_msg("%s: no event for piece %d", kind_names[kind], i);
			assert_true(stream_may_read(&ends[1].stream));
			assert_int_equal(read_text(&ends[1], 100, text), STREAM_AGAIN);
			assert_string_equal(text, "some");
			assert_false(stream_may_read(&ends[1].stream));
		}
		close_pair(ends);
	}
}

static void
what_is_left_unread_stays_known(void **state)
{
	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct end ends[2];
		char text[256];
		size_t n;

		open_pair(ends, kind, 0);
		send_text(&ends[0], "abcdef");
		settle();
		for (int i = 0; i < 6; i++) {
			assert_true(stream_may_read(&ends[1].stream));
			assert_int_equal(stream_read(&ends[1].stream, text, 1, &n), STREAM_OK);
			assert_int_equal(text[0], "abcdef"[i]);
		}
		assert_int_equal(read_text(&ends[1], 1, text), STREAM_AGAIN);
		close_pair(ends);
	}
}

static void
a_full_pipe_stops_the_writer_until_it_drains(void **state)
{
	static char piece[16384];

	(void)state;
	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct end ends[2];
		size_t n, sent = 0;
		enum stream_result r;

		open_pair(ends, kind, 8192);
		/* Until the kernel has moved all that it can to the other side. */
		do {
			while ((r = stream_write(&ends[0].stream, piece, sizeof(piece), &n)) ==
			       STREAM_OK)
				sent += n;
			assert_int_equal(r, STREAM_AGAIN);
			assert_true(sent < 4 * 1024 * 1024);
			settle();
		} while (ends[0].stream.writable);
		while (!ends[0].stream.writable) {
			event_base_loop(shared.base, EVLOOP_ONCE);
			while (stream_read(&ends[1].stream, piece, sizeof(piece), &n) == STREAM_OK)
				continue;
		}
		/* The same bytes again, at another place. */
		memset(piece, 0, sizeof(piece));
		assert_int_equal(
		    stream_write(&ends[0].stream, piece, sizeof(piece), &n), STREAM_OK);
		close_pair(ends);
	}
}

/* ---- random traffic ---- */

#define TRAFFIC (1024 * 1024)

struct player {
	struct end end;
	struct player *other;
	struct event resume;
	uint64_t dice;
	bool shaken, told, ended, wrong;
	size_t sent, got, want;
	char in[40000], out[40000];
};

static unsigned
roll(struct player *p, unsigned n)
{
	p->dice = p->dice * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(p->dice >> 33) % n;
}

static char
byte_at(size_t i)
{
	return (char)(i * 31 + i / 251);
}

/* Stop in the middle of what could be done, and go on without an event of the socket. */
static bool
pauses(struct player *p)
{
	if (roll(p, 4) != 0)
		return false;
	event_active(&p->resume, EV_TIMEOUT, 0);
	return true;
}

static void
write_some(struct player *p)
{
	while (p->sent < TRAFFIC) {
		enum stream_result r;
		size_t n;

		if (pauses(p))
			return;
		/* OpenSSL takes a write that had to wait again only when it is no shorter. */
		if (p->want == 0)
			p->want = 1 + roll(p, sizeof(p->out));
		p->want = p->want < TRAFFIC - p->sent ? p->want : TRAFFIC - p->sent;
		for (size_t i = 0; i < p->want; i++)
			p->out[i] = byte_at(p->sent + i);
		if ((r = stream_write(&p->end.stream, p->out, p->want, &n)) != STREAM_OK) {
			p->wrong = p->wrong || r != STREAM_AGAIN;
			return;
		}
		p->sent += n;
		p->want = 0;
	}
	p->told = stream_shutdown_write(&p->end.stream) == STREAM_OK;
}

static void
read_some(struct player *p)
{
	enum stream_result r = STREAM_OK;

	while (r == STREAM_OK && !p->ended) {
		size_t n;

		if (pauses(p))
			return;
		r = stream_read(&p->end.stream, p->in, 1 + roll(p, sizeof(p->in)), &n);
		for (size_t i = 0; r == STREAM_OK && i < n; i++)
			p->wrong = p->wrong || p->in[i] != byte_at(p->got + i);
		p->got += r == STREAM_OK ? n : 0;
	}
	if (r == STREAM_AGAIN)
		return;
	p->ended = true;
	p->wrong = p->wrong || r != STREAM_EOF;
}

static void
play(void *arg)
{
	struct player *p = arg;
	struct err err;

	if (!p->shaken)
		p->shaken = stream_handshake(&p->end.stream, &err) == STREAM_OK;
	if (!p->shaken)
		return;
	if (!p->ended)
		read_some(p);
	if (!p->told)
		write_some(p);
	if (p->wrong || (p->ended && p->told && p->other->ended && p->other->told))
		event_base_loopbreak(shared.base);
}

static void
on_resume(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	play(arg);
}

static void
on_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	event_base_loopbreak(shared.base);
}

static void
no_byte_is_lost_in_random_traffic(void **state)
{
	static struct player players[2]; /* large */

	(void)state;
	for (unsigned round = 0; round < 8 * KINDS; round++) {
		struct timeval patience = { 20, 0 };
		struct event late;
		int fds[2];

		memset(players, 0, sizeof(players));
		socket_pair(fds, round % 2 == 0 ? 16384 : 0);
		for (unsigned i = 0; i < 2; i++) {
			struct player *p = &players[i];

			p->other = &players[1 - i];
			p->dice = round * 2 + i;
			event_assign(&p->resume, shared.base, -1, 0, on_resume, p);
			open_end(&p->end, fds[i], round % KINDS, i == 0, play, p);
		}
		play(&players[0]);
		evtimer_assign(&late, shared.base, on_late, NULL);
		evtimer_add(&late, &patience);
		event_base_dispatch(shared.base);
		event_del(&late);
		for (unsigned i = 0; i < 2; i++) {
			if (players[i].got != TRAFFIC || !players[i].ended || players[i].wrong)
				fail_msg(
				    "round %u: end %u has %zu bytes", round, i, players[i].got);
			event_del(&players[i].resume);
			stream_close(&players[i].end.stream);
		}
	}
}

static void
closing_twice_is_closing_once(void **state)
{
	struct end ends[2];

	(void)state;
	open_pair(ends, TLS13, 0);
	close_pair(ends);
	close_pair(ends);
	assert_int_equal(ends[0].stream.fd, -1);
}

static void
a_refused_connection_is_an_error(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	struct end e = { .readies = 0 };
	struct stream_opts o = { .base = shared.base,
		.method = shared.method,
		.client = true,
		.connecting = true,
		.ready = count_ready,
		.arg = &e };
	struct err err;
	int holder = socket(AF_INET, SOCK_STREAM, 0), fd;

	(void)state;
	/* Bound, but nobody listens: nobody else gets this port either. */
	assert_int_equal(bind(holder, (struct sockaddr *)&a, len), 0);
	assert_int_equal(getsockname(holder, (struct sockaddr *)&a, &len), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, len), -1);
	assert_int_equal(stream_open(&e.stream, fd, &o, &err), 0);
	while (e.readies == 0)
		event_base_loop(shared.base, EVLOOP_ONCE);
	assert_int_equal(stream_connected(&e.stream), STREAM_ERROR);
	assert_int_equal(errno, ECONNREFUSED);
	stream_close(&e.stream);
	close(holder);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flood_of_messages_ends_the_stream),
		cmocka_unit_test(a_flood_is_not_read_to_its_end),
		cmocka_unit_test(bytes_then_the_end),
		cmocka_unit_test(a_half_closed_stream_still_carries_the_other_way),
		cmocka_unit_test(a_reset_is_an_error_and_no_end),
		cmocka_unit_test(a_reset_can_be_told_from_a_half_close_without_reading),
		cmocka_unit_test(a_failed_write_wakes_the_reader),
		cmocka_unit_test(a_reset_behind_bytes_is_not_missed),
		cmocka_unit_test(a_short_read_empties_and_a_new_byte_wakes),
		cmocka_unit_test(what_is_left_unread_stays_known),
		cmocka_unit_test(a_full_pipe_stops_the_writer_until_it_drains),
		cmocka_unit_test(no_byte_is_lost_in_random_traffic),
		cmocka_unit_test(closing_twice_is_closing_once),
		cmocka_unit_test(a_refused_connection_is_an_error),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
