/* dial: TLS connections with one request each, which wrk and h2load do not make.
 *
 * dial full|resumed PORT CIPHER CALLERS       dial, ask, read to the end, dial again
 * dial hold         PORT CIPHER CONNECTIONS   dial, ask, say "held N"
 * dial hold         PORT plain CONNECTIONS    the same without TLS
 *
 * All go on to the end of their input.  The request's head is read from the environment variable
 * REQUEST.  Callers print "answered N resumed M tickets T", which are those that came.  Each is a process
 * that blocks: what this program costs is not what is measured.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct count {
	unsigned long answered, resumed, tickets;
};

static struct sockaddr_in at;
static const char *request;
static SSL_SESSION *ticket; /* the last that came */
static unsigned long tickets;

static _Noreturn void
die(const char *what)
{
	fprintf(stderr, "dial: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static int
keep_ticket(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	SSL_SESSION_free(ticket);
	ticket = session;
	tickets++;
	return 1;
}

static int
dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

static SSL *
dial_tls(SSL_CTX *ctx, bool resume)
{
	SSL *ssl = SSL_new(ctx);

	if (ssl == NULL || SSL_set_fd(ssl, dial()) != 1)
		die("SSL_new");
	SSL_set_tlsext_host_name(ssl, "localhost");
	if (resume && ticket != NULL)
		SSL_set_session(ssl, ticket);
	if (SSL_connect(ssl) != 1)
		die("handshake");
	return ssl;
}

/* The answer's head, and its body as far as the server sends it before it closes or, where it does
 * not, to the end that Content-Length tells. */
static void
ask(BIO *to, bool to_the_end)
{
	char answer[65536];
	size_t len = 0, whole = sizeof answer - 1;
	int n;

	if (BIO_write(to, request, (int)strlen(request)) <= 0)
		die("write");
	while (
	    len < whole && (n = BIO_read(to, answer + len, (int)(sizeof answer - 1 - len))) > 0) {
		const char *body, *length;

		len += (size_t)n;
		answer[len] = '\0';
		body = strstr(answer, "\r\n\r\n");
		length = body != NULL ? strcasestr(answer, "\r\ncontent-length:") : NULL;
		if (length != NULL && !to_the_end)
			whole = (size_t)(body + 4 - answer) + strtoul(length + 17, NULL, 10);
	}
	if (strncmp(answer, "HTTP/1.1 2", 10) != 0)
		die(len > 0 ? answer : "no answer");
}

static BIO *
over(SSL *ssl)
{
	BIO *bio = BIO_new(BIO_f_ssl());

	if (bio == NULL)
		die("BIO_new");
	BIO_set_ssl(bio, ssl, BIO_CLOSE);
	return bio;
}

static void
hang_up(SSL *ssl, BIO *bio)
{
	int fd = SSL_get_fd(ssl);

	SSL_shutdown(ssl);
	BIO_free(bio);
	close(fd);
}

static bool
input_ended(void)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&in, 1, 0) > 0;
}

static struct count
call_to_the_end(SSL_CTX *ctx, bool resume)
{
	struct count done = { 0 };

	while (!input_ended()) {
		SSL *ssl = dial_tls(ctx, resume);
		BIO *bio = over(ssl);

		ask(bio, true);
		done.answered++;
		done.resumed += SSL_session_reused(ssl) ? 1 : 0;
		hang_up(ssl, bio);
	}
	done.tickets = tickets;
	return done;
}

static void
run_callers(SSL_CTX *ctx, bool resume, long callers)
{
	struct count all = { 0 }, one;
	int ends[2];

	if (pipe(ends) < 0)
		die("pipe");
	for (long i = 0; i < callers; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			one = call_to_the_end(ctx, resume);
			_exit(write(ends[1], &one, sizeof one) == sizeof one ? 0 : 1);
		}
	}
	close(ends[1]);
	for (long i = 0; i < callers; i++) {
		if (read(ends[0], &one, sizeof one) != sizeof one)
			die("a caller");
		all.answered += one.answered;
		all.resumed += one.resumed;
		all.tickets += one.tickets;
	}
	printf("answered %lu resumed %lu tickets %lu\n", all.answered, all.resumed, all.tickets);
}

static void
hold(SSL_CTX *ctx, long connections, bool plain)
{
	for (long i = 0; i < connections; i++)
		ask(plain ? BIO_new_socket(dial(), BIO_NOCLOSE) : over(dial_tls(ctx, false)),
		    false);
	printf("held %ld\n", connections);
	fflush(stdout);
	while (getchar() != EOF)
		;
}

int
main(int argc, char **argv)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	bool resume = argc > 1 && strcmp(argv[1], "resumed") == 0;

	request = getenv("REQUEST");
	if (argc < 5 || request == NULL || ctx == NULL) {
		fputs("usage: REQUEST=... dial full|resumed|hold PORT CIPHER COUNT\n", stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	at = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_ciphersuites(ctx, argv[3]);
	SSL_CTX_set_session_cache_mode(
	    ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(ctx, keep_ticket);
	if (strcmp(argv[1], "hold") == 0)
		hold(ctx, strtol(argv[4], NULL, 10), strcmp(argv[3], "plain") == 0);
	else
		run_callers(ctx, resume, strtol(argv[4], NULL, 10));
	return 0;
}
