/* relay: TLS in, TLS out, every byte as it comes.  The floor of `make bench`: what two TLS
 * connections and the system calls of moving bytes between them cost, and nothing else.
 *
 * relay PORT BACKEND_PORT FOLDER CIPHER TICKETS
 *
 * FOLDER holds server.pem, server.key, ca.pem; TICKETS are sent after a full handshake.
 *
 * One thread; a connection to the back end for each of a client's; up to 16 KiB wait in each
 * direction.  Level-triggered, so that a message costs one read: SSL_has_pending() says when
 * OpenSSL, which reads ahead, holds more.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 16384, EVENTS = 256 };
#define UNWATCHED UINT32_MAX

/* One direction reads here and writes to the peer; the bytes that the peer does not take yet wait
 * in `piece`. */
struct side {
	struct pair *pair;
	SSL *ssl;
	int fd;
	uint32_t watched; /* what epoll was asked for; UNWATCHED at first */
	bool up;	  /* handshake done */
	bool wants_write; /* OpenSSL cannot go on before the socket takes more */
	bool ended;	  /* the other end sent its last byte */
	int from, len;
	char piece[PIECE];
};

struct pair {
	struct side client, backend;
	struct pair *next_dead;
	bool dead;
};

static int loop;
static struct pair *graves; /* freed after the events of this turn, some of which may name them */
static SSL_CTX *server_ctx, *client_ctx;
static struct sockaddr_in backend_at;

static _Noreturn void
die(const char *what)
{
	fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static struct side *
peer_of(struct side *s)
{
	return s == &s->pair->client ? &s->pair->backend : &s->pair->client;
}

static void
kill_pair(struct pair *p)
{
	if (p->dead)
		return;
	p->dead = true;
	SSL_free(p->client.ssl);
	SSL_free(p->backend.ssl);
	close(p->client.fd);
	close(p->backend.fd);
	p->next_dead = graves;
	graves = p;
}

static bool
blocked(struct side *s, int rc)
{
	int err = SSL_get_error(s->ssl, rc);

	s->wants_write = err == SSL_ERROR_WANT_WRITE;
	return s->wants_write || err == SSL_ERROR_WANT_READ;
}

/* False: the connection is of no more use. */
static bool
shake(struct side *s)
{
	int rc;

	if (s->up)
		return true;
	ERR_clear_error();
	rc = SSL_do_handshake(s->ssl);
	s->up = rc == 1;
	return s->up || blocked(s, rc);
}

static bool
flush(struct side *to, struct side *from)
{
	while (from->len > 0 && to->up) {
		int n = SSL_write(to->ssl, from->piece + from->from, from->len);

		if (n <= 0)
			return blocked(to, n);
		to->wants_write = false;
		from->from += n;
		from->len -= n;
	}
	return true;
}

/* Move what `from` has to its peer. */
static bool
move(struct side *from)
{
	struct side *to = peer_of(from);

	do {
		int n;

		if (!flush(to, from))
			return false;
		if (from->len > 0 || !from->up || from->ended)
			break;
		ERR_clear_error();
		n = SSL_read(from->ssl, from->piece, PIECE);
		if (n <= 0) {
			if (SSL_get_error(from->ssl, n) == SSL_ERROR_WANT_READ)
				break;
			from->ended = true;
			break;
		}
		from->from = 0;
		from->len = n;
		if (!flush(to, from))
			return false;
	} while (SSL_has_pending(from->ssl));
	return !from->ended || from->len > 0;
}

static void
watch(struct side *s)
{
	uint32_t want = (s->len == 0 ? EPOLLIN : 0) | (s->wants_write ? EPOLLOUT : 0);
	struct epoll_event ev = { .events = want, .data.ptr = s };
	int op = s->watched == UNWATCHED ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (want == s->watched)
		return;
	if (epoll_ctl(loop, op, s->fd, &ev) < 0)
		die("epoll_ctl");
	s->watched = want;
}

static void
drive(struct pair *p, struct side *ready)
{
	if (!shake(ready) || !move(ready) || !move(peer_of(ready))) {
		kill_pair(p);
		return;
	}
	watch(&p->client);
	watch(&p->backend);
}

static void
set_up(struct side *s, struct pair *p, int fd, SSL_CTX *ctx)
{
	int on = 1;

	s->pair = p;
	s->fd = fd;
	s->watched = UNWATCHED;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	s->ssl = SSL_new(ctx);
	if (s->ssl == NULL || SSL_set_fd(s->ssl, fd) != 1)
		die("SSL_new");
}

static void
accept_one(int listener)
{
	int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct pair *p;
	int fd;

	if (client < 0)
		return;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	p = calloc(1, sizeof *p);
	if (fd < 0 || p == NULL)
		die("a connection");
	if (connect(fd, (struct sockaddr *)&backend_at, sizeof backend_at) < 0 &&
	    errno != EINPROGRESS)
		die("connect");
	set_up(&p->client, p, client, server_ctx);
	set_up(&p->backend, p, fd, client_ctx);
	SSL_set_accept_state(p->client.ssl);
	SSL_set_connect_state(p->backend.ssl);
	SSL_set_tlsext_host_name(p->backend.ssl, "localhost");
	if (SSL_set1_host(p->backend.ssl, "localhost") != 1)
		die("SSL_set1_host");
	watch(&p->client);
	p->backend.wants_write = true; /* connected */
	watch(&p->backend);
}

static SSL_CTX *
context(const SSL_METHOD *method, const char *cipher)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, cipher) != 1)
		die("a TLS context");
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(ctx, 1);
	return ctx;
}

static void
load_contexts(const char *folder, const char *cipher, size_t tickets)
{
	char cert[512], key[512], ca[512];

	snprintf(cert, sizeof cert, "%s/server.pem", folder);
	snprintf(key, sizeof key, "%s/server.key", folder);
	snprintf(ca, sizeof ca, "%s/ca.pem", folder);
	server_ctx = context(TLS_server_method(), cipher);
	client_ctx = context(TLS_client_method(), cipher);
	if (SSL_CTX_use_certificate_chain_file(server_ctx, cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(server_ctx, key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_set_num_tickets(server_ctx, tickets) != 1 ||
	    SSL_CTX_load_verify_file(client_ctx, ca) != 1)
		die(folder);
	SSL_CTX_set_verify(client_ctx, SSL_VERIFY_PEER, NULL);
}

static struct sockaddr_in
loopback(const char *port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

static int
listen_on(const char *port)
{
	struct sockaddr_in at = loopback(port);
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0 ||
	    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("listen");
	return fd;
}

int
main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	int listener;

	if (argc != 6) {
		fputs("usage: relay PORT BACKEND_PORT FOLDER CIPHER TICKETS\n", stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	load_contexts(argv[3], argv[4], strtoul(argv[5], NULL, 10));
	backend_at = loopback(argv[2]);
	loop = epoll_create1(EPOLL_CLOEXEC);
	listener = listen_on(argv[1]);
	for (;;) {
		int n = epoll_wait(loop, events, EVENTS, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct side *s = events[i].data.ptr;

			if (s == NULL)
				accept_one(listener);
			else if (!s->pair->dead)
				drive(s->pair, s);
		}
		while (graves != NULL) {
			struct pair *p = graves;

			graves = p->next_dead;
			free(p);
		}
	}
}
