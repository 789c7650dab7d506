/*
 * Each allocation of what the proxy makes at a start or a reload, and writes of a call, made to fail.
 */
#define SCARCE_TRIES 200 /* some cases are OpenSSL's, and take milliseconds each */
#include "scarce.h"

#include "admin/admin.h"
#include "bench_worker.h"
#include "cli/handover.h"
#include "data/conn.h"
#include "data/listener.h"
#include "keytrail/records.h"
#include "data/resolver.h"
#include "data/rewrite.h"
#include "data/tickets.h"
#include "data/tls.h"
#include "data/upstream.h"
#include "keytrail/parse.h"
#include "pki.h"

#include <sys/socket.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char dir[TEMPDIR_SIZE];
static struct bench bench;
static struct event_base *base;
static struct metrics *metrics;
static struct config *config;

enum { CLIENT, SERVER, SIDES };

static struct {
	struct tls_server *server;
	SSL_CTX *client;
	struct stream streams[SIDES];
	int short_side; /* of it alone memory is short */
} pair;

/* ---- what there is before ---- */

static void
issue(const struct pki_id *ca, const char *name, const char *san)
{
	struct pki_id id = pki_make(&(struct pki_opts){ .name = name, .san = san, .issuer = ca });

	pki_write(&id, dir, name, NULL);
	pki_free(&id);
}

static void
write_pki(void)
{
	struct pki_id ca = pki_make(&(struct pki_opts){ .name = "ca" });
	char path[TEMPDIR_SIZE + 16];

	pki_write(&ca, dir, "ca", NULL);
	issue(&ca, "server", "DNS:kms.example");
	issue(&ca, "other", "DNS:other.example");
	issue(&ca, "client", NULL);
	snprintf(path, sizeof(path), "%s/crl.pem", dir);
	pki_write_crl(&ca, NULL, 3600, path);
	pki_free(&ca);
}

static const char config_text[] =
    "{\"listen\":{\"address\":\"127.0.0.1:0\",\"tls\":{\"certificate\":\"server.pem\","
    "\"key\":\"server.key\",\"client_ca\":\"ca.pem\",\"client_crl\":\"crl.pem\","
    "\"certificates\":[{\"certificate\":\"other.pem\",\"key\":\"other.key\"}]}},"
    "\"upstream\":{\"address\":\"kms.example:443\",\"tls\":{\"ca\":\"ca.pem\","
    "\"certificate\":\"client.pem\",\"key\":\"client.key\"}},"
    "\"metrics\":{\"address\":\"127.0.0.1:0\"},"
    "\"admin\":{\"address\":\"127.0.0.1:0\",\"socket\":\"admin.sock\",\"token\":null},"
    "\"audit\":{\"trail\":\"trail\",\"sign\":null},\"include\":[\"key-protect.json\"]}";

static int
setup(void **state)
{
	char path[TEMPDIR_SIZE + 16];
	struct err err;

	(void)state;
	scarce_seed();
	tempdir_make(dir);
	write_pki();
	snprintf(path, sizeof(path), "%s/f.json", dir);
	if (config_load_text(path, slice_of(config_text), "proxy/routes", &config, &err) == -1)
		fail_msg("%s", err.msg);
	metrics = metrics_new();
	base = event_base_new();
	bench_open(&bench, &conn_hooks);
	alarm(0); /* of what takes as long as OpenSSL does */
	pair.server = tls_server_new(&config->listen, NULL, &err);
	pair.client = tls_client_new(&config->upstream.tls, &err);
	return pair.server != NULL && pair.client != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	tls_server_free(pair.server);
	SSL_CTX_free(pair.client);
	bench_close(&bench);
	event_base_free(base);
	metrics_free(metrics);
	config_unref(config);
	tempdir_remove(dir);
	return 0;
}

/* ---- TLS ---- */

static X509 *
read_certificate(const char *name)
{
	char path[TEMPDIR_SIZE + 16];
	FILE *f;
	X509 *cert;

	snprintf(path, sizeof(path), "%s/%s.pem", dir, name);
	f = fopen(path, "r");
	assert_non_null(f);
	cert = PEM_read_X509(f, NULL, NULL, NULL);
	assert_non_null(cert);
	fclose(f);
	return cert;
}

/* Does who was told to trust the CA trust this one of its certificates? */
static bool
trusts(const SSL_CTX *ctx, X509 *cert)
{
	X509_STORE_CTX *c = X509_STORE_CTX_new();
	bool ok = c != NULL && X509_STORE_CTX_init(c, SSL_CTX_get_cert_store(ctx), cert, NULL) == 1;

	if (ok) {
		X509_VERIFY_PARAM_set_auth_level(
		    X509_STORE_CTX_get0_param(c), SSL_CTX_get_security_level(ctx));
		ok = X509_verify_cert(c) == 1;
	}
	X509_STORE_CTX_free(c);
	return ok;
}

/* With all the memory. */
static bool
trusts_well(const SSL_CTX *ctx, const char *name)
{
	bool scarcity = scarce.on, ok;
	X509 *cert;

	scarce.on = false;
	cert = read_certificate(name);
	ok = trusts(ctx, cert);
	X509_free(cert);
	scarce.on = scarcity;
	return ok;
}

static bool
handshake(SSL_CTX *client, SSL_CTX *server)
{
	SSL *c = SSL_new(client), *s = SSL_new(server);
	BIO *to_server, *to_client;
	bool ok;

	assert_true(c != NULL && s != NULL);
	assert_int_equal(BIO_new_bio_pair(&to_server, 0, &to_client, 0), 1);
	SSL_set_bio(c, to_server, to_server);
	SSL_set_bio(s, to_client, to_client);
	SSL_set_connect_state(c);
	SSL_set_accept_state(s);
	for (int i = 0; i < 8; i++) {
		SSL_do_handshake(c);
		SSL_do_handshake(s);
	}
	ok = SSL_is_init_finished(c) && SSL_is_init_finished(s);
	SSL_free(c);
	SSL_free(s);
	return ok;
}

/* Contexts made while memory was short, used when it is not. */
static bool
shake_hands_well(const struct tls_server *server)
{
	bool scarcity = scarce.on, ok;
	struct err err;
	SSL_CTX *client;

	scarce.on = false;
	if ((client = tls_client_new(&config->upstream.tls, &err)) == NULL)
		fail_msg("%s", err.msg);
	ok = handshake(client, tls_server_context(server));
	SSL_CTX_free(client);
	scarce.on = scarcity;
	return ok;
}

/* A context that lacks what the file says is no context. */
static int
run_client(struct err *err)
{
	SSL_CTX *ctx = tls_client_new(&config->upstream.tls, err);

	if (ctx == NULL)
		return -1;
	assert_true(trusts_well(ctx, "server"));
	assert_non_null(SSL_CTX_get0_certificate(ctx));
	SSL_CTX_free(ctx);
	return 0;
}

static int
run_server(struct err *err)
{
	struct tls_server *s = tls_server_new(&config->listen, NULL, err);
	size_t n;

	if (s == NULL)
		return -1;
	assert_true(trusts_well(tls_server_context(s), "client"));
	assert_true(sk_X509_NAME_num(SSL_CTX_get_client_CA_list(tls_server_context(s))) == 1);
	assert_int_equal(SSL_CTX_get_verify_mode(tls_server_context(s)),
	    SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
	tls_server_validity(s, &n);
	assert_int_equal(n, 4);
	assert_true(shake_hands_well(s));
	tls_server_free(s);
	return 0;
}

/* A chain that could not be followed for want of memory is followed the next time. */
static int
run_verify(struct err *err)
{
	SSL_CTX *ctx;
	X509 *cert;
	int rc;

	scarce.on = false;
	if ((ctx = tls_client_new(&config->upstream.tls, err)) == NULL)
		fail_msg("%s", err->msg);
	cert = read_certificate("server");
	scarce.on = true;
	rc = trusts(ctx, cert) ? 0 : err_set(err, "memory is short");
	if (!trusts_well(ctx, "server"))
		fail_msg("the CA is trusted no more");
	X509_free(cert);
	SSL_CTX_free(ctx);
	return rc;
}

/* ---- streams ---- */

static void
ignore(void *arg)
{
	(void)arg;
}

static int
open_side(int side, int fd, struct err *err)
{
	struct stream_opts o = { .base = base,
		.method = bench.worker->stream_method,
		.ctx = side == CLIENT ? pair.client : tls_server_context(pair.server),
		.client = side == CLIENT,
		.server_name = "kms.example",
		.ready = ignore };
	int rc;

	scarce.on = side == pair.short_side;
	rc = stream_open(&pair.streams[side], fd, &o, err);
	scarce.on = false;
	return rc;
}

/* What a side does next, once it knows what the other has sent. */
static enum stream_result
step(int side, enum stream_result (*act)(struct stream *s, struct err *err), struct err *err)
{
	enum stream_result r;

	event_base_loop(base, EVLOOP_NONBLOCK);
	scarce.on = side == pair.short_side;
	r = act(&pair.streams[side], err);
	scarce.on = false;
	return r;
}

static enum stream_result
put_a_byte(struct stream *s, struct err *err)
{
	size_t n;

	(void)err;
	return stream_write(s, "x", 1, &n);
}

static enum stream_result
get_a_byte(struct stream *s, struct err *err)
{
	char c;
	size_t n;

	(void)err;
	return stream_read(s, &c, 1, &n);
}

static enum stream_result
shake_hands(struct err *err)
{
	enum stream_result r[SIDES] = { STREAM_AGAIN, STREAM_AGAIN };
	struct err other;

	for (int turn = 0; turn < 16; turn++)
		for (int side = 0; side < SIDES; side++)
			if (r[side] == STREAM_AGAIN)
				r[side] = step(
				    side, stream_handshake, side == pair.short_side ? err : &other);
	return r[pair.short_side];
}

static enum stream_result
talk(struct err *err)
{
	int other = SIDES - 1 - pair.short_side;
	enum stream_result r = step(pair.short_side, put_a_byte, err);

	if (r != STREAM_OK)
		return r;
	if (step(other, get_a_byte, err) == STREAM_OK)
		assert_int_equal(step(other, put_a_byte, err), STREAM_OK);
	return step(pair.short_side, get_a_byte, err);
}

/* It fails, if it does, for want of memory, whatever OpenSSL made of it; the peer is not to blame. */
static int
run_streams(int short_side, struct err *err)
{
	const struct stream *s = &pair.streams[short_side];
	enum stream_result r = STREAM_ERROR;
	int fds[SIDES], rc = 0;

	scarce.on = false;
	pair.short_side = short_side;
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	for (int side = 0; side < SIDES; side++)
		rc |= open_side(side, fds[side], err);
	if (rc == 0 && (r = shake_hands(err)) == STREAM_OK && (r = talk(err)) != STREAM_OK)
		err_set(err, "%s", s->starved ? "memory is short" : "the peer");
	if (rc == 0 && s->starved != (r != STREAM_OK))
		fail_msg("ended with %d and \"%s\"", r, err->msg);
	for (int side = 0; side < SIDES; side++)
		stream_close(&pair.streams[side]);
	scarce.on = true;
	return r == STREAM_OK ? 0 : -1;
}

static int
run_client_stream(struct err *err)
{
	return run_streams(CLIENT, err);
}

static int
run_server_stream(struct err *err)
{
	return run_streams(SERVER, err);
}

static int
run_snapshot(struct err *err)
{
	struct snapshot *s = snapshot_new(config, NULL, metrics, err);

	snapshot_unref(s);
	return s != NULL ? 0 : -1;
}

static int
run_tickets(struct err *err)
{
	struct tickets *t = tickets_new(0, err);

	tickets_unref(t);
	return t != NULL ? 0 : -1;
}

/* ---- parts ---- */

static int
run_peers(struct err *err)
{
	static const unsigned char address[16] = { 1 };
	struct peers *p = peers_new(err);
	struct peer *peer;

	if (p == NULL)
		return -1;
	if ((peer = peers_hold(p, address, 0)) != NULL)
		peers_drop(p, peer);
	peers_free(p);
	return 0;
}

static int
run_worker(struct err *err)
{
	struct worker_opts opts = { .hooks = &conn_hooks,
		.snapshot = &bench.snapshot,
		.log = bench.log,
		.metrics = bench.worker->metrics,
		.ring = bench.ring,
		.journal = bench.journal,
		.open_connections = &bench.connections,
		.open_upstream = &bench.upstream };
	struct worker *w = worker_new(&opts, err);

	worker_free(w);
	return w != NULL ? 0 : -1;
}

/* Either each worker has something to be told, or there is nothing. */
static int
run_reload(struct err *err)
{
	struct worker *const workers[] = { bench.worker, bench.worker };
	unsigned users = bench.worker->lease->users;
	struct worker_reload *r = worker_reload_prepare(workers, 2, &bench.snapshot, err);

	if (r == NULL)
		return -1;
	worker_reload_cancel(r);
	assert_int_equal(bench.worker->lease->users, users);
	return 0;
}

static void
on_resolved(void *arg)
{
	(void)arg;
}

/* Once memory is there again, so are the targets and the timer that looks again.  A server may be
 * asked for a name that could not be copied from the hosts file. */
static int
resolve(const char *host, bool is_name, struct err *err)
{
	struct config_address address = { (char *)(uintptr_t)host, 443 };
	struct worker w = *bench.worker;
	struct resolver *r;
	int events;

	scarce.on = false;
	bench.config.upstream.addresses = &address;
	bench.config.upstream.naddresses = 1;
	w.base = event_base_new();
	if ((r = resolver_new(&w, on_resolved, NULL, err)) == NULL)
		fail_msg("%s", err->msg);
	events = event_base_get_num_events(w.base, EVENT_BASE_COUNT_ADDED);
	scarce.on = true;
	resolver_refresh(r);
	scarce.on = false;
	resolver_wake(r);
	event_base_loop(w.base, EVLOOP_NONBLOCK);
	/* A server may have answered by now that it knows no such name. */
	assert_true(resolver_count(r) > 0 || is_name);
	assert_true(event_base_get_num_events(w.base, EVENT_BASE_COUNT_ADDED) > events);
	resolver_free(r);
	event_base_loop(w.base, EVLOOP_NONBLOCK); /* evdns frees later what is cancelled */
	event_base_free(w.base);
	bench.config.upstream.naddresses = 0;
	scarce.on = true;
	return 0;
}

static int
run_number(struct err *err)
{
	return resolve("127.0.0.1", false, err);
}

static int
run_name(struct err *err)
{
	return resolve("localhost", true, err);
}

static void
count_call(void *arg)
{
	++*(unsigned *)arg;
}

/* The next one that can be armed brings it. */
static int
run_timer(struct err *err)
{
	struct event_base *loop;
	struct wtimers all;
	struct wtimer first, next;
	unsigned fired = 0;

	(void)err;
	scarce.on = false;
	loop = event_base_new();
	wtimers_init(&all, loop);
	wtimer_init(&first, &all, count_call, &fired);
	wtimer_init(&next, &all, count_call, &fired);
	scarce.on = true;
	wtimer_set(&first, 1);
	scarce.on = false;
	wtimer_set(&next, 1);
	event_base_dispatch(loop);
	assert_int_equal(fired, 2);
	wtimers_fini(&all);
	event_base_free(loop);
	scarce.on = true;
	return 0;
}

static enum http_refusal refused;

static void
on_connection(void *arg, struct upstream_conn *c, enum http_refusal why)
{
	(void)arg;
	assert_null(c);
	refused = why;
}

/* Where nobody shakes hands. */
static int
listen_somewhere(uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

/* The key service is not to blame. */
static int
run_connect(struct err *err)
{
	struct upstream_request r = { .done = on_connection };
	struct upstream *u = bench.worker->upstream;
	char host[] = "127.0.0.1";
	struct config_address address = { .host = host };
	int fd;

	scarce.on = false;
	fd = listen_somewhere(&address.port);
	bench.config.upstream = config->upstream;
	bench.config.upstream.addresses = &address;
	bench.config.timeouts.connect = 20000;
	bench.snapshot.client = tls_client_new(&config->upstream.tls, err);
	upstream_reconfigure(u);
	bench_turn(&bench);
	refused = REFUSAL_NONE;
	scarce.on = true;
	assert_null(upstream_acquire(u, &r, true));
	event_base_loop(bench.worker->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
	scarce.on = false;
	upstream_cancel(u, &r);
	bench_turn(&bench);
	SSL_CTX_free(bench.snapshot.client);
	bench.snapshot.client = NULL;
	bench.config.upstream = (struct config_upstream){ .naddresses = 0 };
	close(fd);
	scarce.on = true;
	if (refused == REFUSAL_NONE)
		return 0;
	assert_int_equal(refused, REFUSAL_OUT_OF_MEMORY);
	return err_set(err, "memory is short");
}

static int
run_listener(struct err *err)
{
	struct listener_opts opts = { .address = &config->listen.address,
		.workers = &bench.worker,
		.nworkers = 1,
		.given = -1 };
	struct listener *l = listener_new(&opts, err);

	listener_free(l);
	return l != NULL ? 0 : -1;
}

static const struct config *
current_config(void *arg)
{
	(void)arg;
	return config;
}

static int
run_admin(struct err *err)
{
	const struct admin_opts opts = {
		.base = base, .metrics = metrics, .log = bench.log, .config = current_config
	};
	struct admin *a;

	if (admin_start(&opts, &a, err) == -1)
		return -1;
	admin_free(a);
	return 0;
}

static int
run_handover(struct err *err)
{
	const struct handover_opts opts = {
		.base = base, .log = bench.log, .dirfd = trail_dirfd(bench.trail)
	};
	struct handover *h;
	int rc;

	if (handover_new(&opts, &h, err) == -1)
		return -1;
	rc = handover_open(h, err);
	handover_free(h);
	return rc;
}

/* ---- heads ---- */

static const struct http_limits limits = { .head = 8192, .target = 1024, .fields = 64 };
static struct http_head head; /* large */

static int
parse_request(void)
{
	struct http_scan scan = { 0 };
	enum http_refusal why;
	size_t used;

	return http_parse_request(&scan, SLICE("GET /a HTTP/1.1\r\nHost: a\r\n\r\n"), &limits,
		   &head, &used, &why) == HTTP_DONE
		   ? 0
		   : -1;
}

static int
run_heads(struct err *err)
{
	const struct rewrite_request request = { .head = &head,
		.upstream = &config->upstream,
		.correlation_header = SLICE("Correlation-Id"),
		.correlation = "x",
		.client = "192.0.2.1" };
	const struct rewrite_refusal refusal = { .refusal = REFUSAL_DENIED,
		.correlation_header = SLICE("Correlation-Id"),
		.correlation = "x" };
	struct buf a = BUF_INIT, b = BUF_INIT;
	int rc = parse_request() == -1 || rewrite_request(&a, &request) == -1 ||
			 rewrite_refusal(&b, &refusal) == -1
		     ? err_set(err, "memory is short")
		     : 0;

	buf_fini(&a);
	buf_fini(&b);
	return rc;
}

/* ---- */

static const struct scarce_case cases[] = {
	{ .label = "the key service's context", .run = run_client },
	{ .label = "the clients' context", .run = run_server },
	{ .label = "a chain of certificates", .run = run_verify },
	{ .label = "a stream to the key service", .run = run_client_stream },
	{ .label = "a stream to a client", .run = run_server_stream },
	{ .label = "snapshot", .run = run_snapshot },
	{ .label = "tickets", .run = run_tickets },
	{ .label = "peers", .run = run_peers },
	{ .label = "worker", .run = run_worker },
	{ .label = "reload of workers", .run = run_reload },
	{ .label = "a number for an address", .run = run_number },
	{ .label = "a name for an address", .run = run_name },
	{ .label = "a timer", .run = run_timer },
	{ .label = "a connection to the key service", .run = run_connect },
	{ .label = "listener", .run = run_listener },
	{ .label = "admin", .run = run_admin },
	{ .label = "handover", .run = run_handover },
	{ .label = "heads", .run = run_heads },
};

int
main(void)
{
	struct CMUnitTest tests[COUNT(cases)];

	if (records_install() == -1)
		return 1;
	for (size_t i = 0; i < COUNT(cases); i++)
		tests[i] = scarce_test(&cases[i]);
	return cmocka_run_group_tests_name("scarce_proxy", tests, setup, teardown);
}
