/*
 * kms: the stand-in key service: `kms --cert FILE --key FILE --token-secret FILE [...]`.
 *
 * Prints {"event":"listening","address":"127.0.0.1:PORT"} when it is ready and runs until TERM.
 */
#include "service.h"

#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/http.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct options {
	const char *address, *port, *port_file, *cert, *key, *client_ca, *secret, *log, *mint;
};

static const struct {
	struct option option;
	const char *help;
} rows[] = {
	{ { "address", required_argument, NULL, 'a' }, "ADDRESS to listen on (127.0.0.1)" },
	{ { "port", required_argument, NULL, 'p' }, "PORT to listen on (0: a free one)" },
	{ { "port-file", required_argument, NULL, 'f' }, "FILE that gets the port" },
	{ { "cert", required_argument, NULL, 'c' }, "FILE with the certificate; none: plain HTTP" },
	{ { "key", required_argument, NULL, 'k' }, "FILE with its key" },
	{ { "client-ca", required_argument, NULL, 'C' }, "FILE: ask for client certificates" },
	{ { "token-secret", required_argument, NULL, 's' }, "FILE with the tokens' secret" },
	{ { "log", required_argument, NULL, 'l' }, "FILE: a line of JSON for every request" },
	{ { "mint", required_argument, NULL, 'm' }, "SUBJECT: print a token for an hour and end" },
};
#define NROWS (sizeof(rows) / sizeof(rows[0]))

static _Noreturn void
die(const char *what, const char *about)
{
	fprintf(stderr, "kms: %s: %s\n", what, about);
	exit(1); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

static _Noreturn void
usage(void)
{
	fputs("usage: kms [option]...\n", stderr);
	for (size_t i = 0; i < NROWS; i++)
		fprintf(stderr, "  --%-14s %s\n", rows[i].option.name, rows[i].help);
	exit(2); /* NOLINT(concurrency-mt-unsafe) */
}

static void
set_option(struct options *o, int c)
{
	switch (c) {
	case 'a':
		o->address = optarg;
		break;
	case 'p':
		o->port = optarg;
		break;
	case 'f':
		o->port_file = optarg;
		break;
	case 'c':
		o->cert = optarg;
		break;
	case 'k':
		o->key = optarg;
		break;
	case 'C':
		o->client_ca = optarg;
		break;
	case 's':
		o->secret = optarg;
		break;
	case 'l':
		o->log = optarg;
		break;
	case 'm':
		o->mint = optarg;
		break;
	default:
		usage();
	}
}

static struct options
parse_options(int argc, char **argv)
{
	struct options o = { .address = "127.0.0.1", .port = "0" };
	struct option long_options[NROWS + 1] = { 0 };
	int c;

	for (size_t i = 0; i < NROWS; i++)
		long_options[i] = rows[i].option;
	/* NOLINTNEXTLINE(concurrency-mt-unsafe) */
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		set_option(&o, c);
	if (optind != argc || o.secret == NULL || (o.cert == NULL) != (o.key == NULL))
		usage();
	return o;
}

static int
select_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in,
    unsigned inlen, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";
	unsigned char *chosen;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, outlen, ours, sizeof(ours) - 1, in, inlen) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *
tls_context(const struct options *o)
{
	SSL_CTX *ctx;

	if (o->cert == NULL)
		return NULL;
	if ((ctx = SSL_CTX_new(TLS_server_method())) == NULL)
		die("TLS", ERR_reason_error_string(ERR_get_error()));
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"kms", 3);
	SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
	if (SSL_CTX_use_certificate_chain_file(ctx, o->cert) != 1)
		die(o->cert, ERR_reason_error_string(ERR_get_error()));
	if (SSL_CTX_use_PrivateKey_file(ctx, o->key, SSL_FILETYPE_PEM) != 1)
		die(o->key, ERR_reason_error_string(ERR_get_error()));
	if (o->client_ca != NULL) {
		if (SSL_CTX_load_verify_locations(ctx, o->client_ca, NULL) != 1)
			die(o->client_ca, ERR_reason_error_string(ERR_get_error()));
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	}
	return ctx;
}

static struct bufferevent *
tls_bufferevent(struct event_base *base, void *arg)
{
	return bufferevent_openssl_socket_new(
	    base, -1, SSL_new(arg), BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
}

static void
on_signal(evutil_socket_t sig, short what, void *arg)
{
	(void)sig;
	(void)what;
	event_base_loopbreak(arg);
}

static unsigned
bound_port(struct evhttp_bound_socket *bound)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} sa;
	socklen_t len = sizeof(sa);

	memset(&sa, 0, sizeof(sa));
	if (getsockname(evhttp_bound_socket_get_fd(bound), &sa.any, &len) == -1)
		die("getsockname", "failed");
	return ntohs(sa.any.sa_family == AF_INET ? sa.v4.sin_port : sa.v6.sin6_port);
}

static void
announce(const struct options *o, struct evhttp_bound_socket *bound)
{
	unsigned port = bound_port(bound);
	FILE *f;

	if (o->port_file != NULL) {
		if ((f = fopen(o->port_file, "we")) == NULL || fprintf(f, "%u\n", port) < 0 ||
		    fclose(f) != 0)
			die("write", o->port_file);
	}
	printf("{\"event\":\"listening\",\"address\":\"%s:%u\"}\n", o->address, port);
	fflush(stdout);
}

static void
serve(const struct options *o, struct service *s)
{
	SSL_CTX *ctx = tls_context(o);
	struct evhttp *http = evhttp_new(s->base);
	struct evhttp_bound_socket *bound;
	struct event *term = evsignal_new(s->base, SIGTERM, on_signal, s->base);
	struct event *intr = evsignal_new(s->base, SIGINT, on_signal, s->base);

	if (ctx != NULL)
		evhttp_set_bevcb(http, tls_bufferevent, ctx);
	service_attach(s, http);
	if ((bound = evhttp_bind_socket_with_handle(
		 http, o->address, (ev_uint16_t)strtoul(o->port, NULL, 10))) == NULL)
		die("cannot listen", o->address);
	/* Accepted sockets inherit it; head and body are two writes, and Nagle would hold the second
	 * until the peer's delayed acknowledgement. */
	setsockopt(
	    evhttp_bound_socket_get_fd(bound), IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	evsignal_add(term, NULL);
	evsignal_add(intr, NULL);
	announce(o, bound);
	event_base_dispatch(s->base);
	event_free(term);
	event_free(intr);
	evhttp_free(http);
	SSL_CTX_free(ctx);
}

int
main(int argc, char **argv)
{
	struct options o = parse_options(argc, argv);
	struct service s = { 0 };
	char *token;

	if (token_secret_read(o.secret, &s.secret) == -1)
		die(o.secret, "wanted a secret of at least 16 bytes");
	if (o.mint != NULL) {
		token = token_mint(&s.secret, o.mint, time(NULL), 3600);
		puts(token);
		free(token);
		return 0;
	}
	if (o.log != NULL && (s.log = fopen(o.log, "ae")) == NULL)
		die("cannot append to", o.log);
	signal(SIGPIPE, SIG_IGN);
	s.base = event_base_new();
	s.store = keystore_new();
	serve(&o, &s);
	event_base_free(s.base);
	keystore_free(s.store);
	if (s.log != NULL)
		fclose(s.log);
	return 0;
}
