#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/stream.h"
#include "data/tickets.h"
#include "data/tls.h"
#include "pki.h"
#include "tempdir.h"

#include <inttypes.h>
#include <openssl/err.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SERVER_NAMES "DNS:kms.example,IP:127.0.0.1,IP:::1"
#define DAY	     INT64_C(86400)

static char dir[TEMPDIR_SIZE];
static int64_t seconds_ahead; /* of the monotonic clock */

/* In place of the C library's. */
int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ts);

	if (rc == 0 && id == CLOCK_MONOTONIC)
		ts->tv_sec += seconds_ahead;
	return rc;
}

/* Paths that stay good until as many more were asked for. */
static char *
path(const char *name)
{
	static char paths[8][TEMPDIR_SIZE + 64];
	static unsigned turn;
	char *p = paths[turn++ % 8];

	snprintf(p, sizeof(paths[0]), "%s/%s", dir, name);
	return p;
}

static void
write_text(const char *name, const char *text)
{
	FILE *f = fopen(path(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void
issue(const struct pki_id *ca, const char *name, const char *san, long from, long to)
{
	struct pki_id id = pki_make(
	    &(struct pki_opts){ .name = name, .san = san, .issuer = ca, .from = from, .to = to });

	pki_write(&id, dir, name, NULL);
	if (to == 0)
		pki_write(&id, dir, "sealed", "a passphrase");
	pki_free(&id);
}

static void
issue_nameless(const struct pki_id *ca, const char *file, const char *san)
{
	struct pki_id id = pki_make(&(struct pki_opts){ .san = san, .issuer = ca });

	pki_write(&id, dir, file, NULL);
	pki_free(&id);
}

static void
append_file(const char *to, const char *from)
{
	FILE *in = fopen(path(from), "r"), *out = fopen(path(to), "a");
	char text[8192];
	size_t n;

	assert_true(in != NULL && out != NULL);
	n = fread(text, 1, sizeof(text), in);
	assert_int_equal(fwrite(text, 1, n, out), n);
	fclose(in);
	fclose(out);
}

/* A client of an authority between, with the lists of one and of both: the one above may have
 * revoked the one between. */
static void
write_chain(const struct pki_id *ca)
{
	struct pki_id between =
	    pki_make(&(struct pki_opts){ .name = "between", .issuer = ca, .authority = true });
	struct pki_id below = pki_make(&(struct pki_opts){ .name = "below", .issuer = &between });
	struct pki_id namesake = pki_make(&(struct pki_opts){ .name = "between" });

	pki_write(&between, dir, "between", NULL);
	pki_write(&below, dir, "below", NULL);
	append_file("below.pem", "between.pem");
	pki_write_crl(&between, NULL, 3600, path("between-crl.pem"));
	pki_write_crl(&between, NULL, 3600, path("both-crl.pem"));
	append_file("both-crl.pem", "empty-crl.pem");
	pki_write_crl(ca, &between, 3600, path("revoking-crl.pem"));
	append_file("revoking-crl.pem", "between-crl.pem");
	pki_write_ocsp(&between, &below, V_OCSP_CERTSTATUS_GOOD, 1800, path("below.ocsp"));
	pki_write_ocsp(&namesake, &below, V_OCSP_CERTSTATUS_GOOD, 1800, path("namesake.ocsp"));
	pki_free(&namesake);
	pki_free(&between);
	pki_free(&below);
}

/* Revocation lists and OCSP responses. */
static void
write_status(const struct pki_id *ca, const struct pki_id *other)
{
	struct pki_id revoked = pki_make(&(struct pki_opts){ .name = "revoked", .issuer = ca });
	struct pki_id server =
	    pki_make(&(struct pki_opts){ .name = "server", .san = SERVER_NAMES, .issuer = ca });
	struct pki_id foreign = pki_make(&(struct pki_opts){ .name = "server", .issuer = other });

	pki_write(&revoked, dir, "revoked", NULL);
	pki_write(&server, dir, "server", NULL);
	pki_write_crl(ca, &revoked, 3600, path("crl.pem"));
	pki_write_crl(ca, NULL, 3600, path("empty-crl.pem"));
	pki_write_crl(ca, &revoked, -1, path("old-crl.pem"));
	pki_write_crl(other, NULL, 3600, path("other-crl.pem"));
	pki_write_crl(other, NULL, -1, path("mixed-crl.pem"));
	append_file("mixed-crl.pem", "empty-crl.pem");
	pki_write_ocsp(ca, &server, V_OCSP_CERTSTATUS_GOOD, 1800, path("good.ocsp"));
	pki_write_ocsp(ca, &server, V_OCSP_CERTSTATUS_GOOD, -1, path("old.ocsp"));
	pki_write_ocsp(ca, &revoked, V_OCSP_CERTSTATUS_GOOD, 3600, path("other.ocsp"));
	pki_write_ocsp(ca, &server, V_OCSP_CERTSTATUS_GOOD, PKI_NEVER, path("endless.ocsp"));
	pki_write_ocsp(ca, &server, V_OCSP_CERTSTATUS_REVOKED, 3600, path("revoked.ocsp"));
	pki_write_ocsp(ca, &server, V_OCSP_CERTSTATUS_UNKNOWN, 3600, path("unknown.ocsp"));
	X509_set_serialNumber(foreign.cert, X509_get_serialNumber(server.cert));
	pki_write_ocsp(other, &foreign, V_OCSP_CERTSTATUS_GOOD, 1800, path("foreign.ocsp"));
	pki_write_ocsp(ca, &server, V_OCSP_CERTSTATUS_GOOD, 7200, path("future.ocsp"));
	pki_write_ocsp(NULL, NULL, 0, 0, path("try-later.ocsp"));
	pki_free(&revoked);
	pki_free(&server);
	pki_free(&foreign);
}

/* An authority that has ended, and a client of it that has not. */
static void
write_old_ca(void)
{
	struct pki_id ca =
	    pki_make(&(struct pki_opts){ .name = "old ca", .from = -7200, .to = -3600 });

	pki_write(&ca, dir, "old-ca", NULL);
	pki_write(&ca, dir, "bundle", NULL);
	append_file("bundle.pem", "ca.pem");
	issue(&ca, "of-old-ca", NULL, 0, 0);
	append_file("under-old-ca.pem", "of-old-ca.pem");
	append_file("under-old-ca.pem", "old-ca.pem");
	pki_free(&ca);
}

static int
group_setup(void **state)
{
	struct pki_id ca = pki_make(&(struct pki_opts){ .name = "ca" });
	struct pki_id other = pki_make(&(struct pki_opts){ .name = "other ca" });

	(void)state;
	tempdir_make(dir);
	pki_write(&ca, dir, "ca", NULL);
	pki_write(&other, dir, "other-ca", NULL);
	issue(&ca, "client", NULL, 0, 0);
	issue(&ca, "expired", "DNS:kms.example", -7200, -3600);
	issue(&ca, "future", "DNS:kms.example", 3600, 7200);
	issue(&other, "foreign", "DNS:kms.example", 0, 0);
	issue(&other, "stranger", NULL, 0, 0);
	issue(&ca, "a", "DNS:a.example,DNS:exact.wild.example", 0, 0);
	issue(&ca, "wild", "DNS:*.wild.example", 0, 0);
	issue_nameless(&ca, "spiffe", "email:a@b,URI:spiffe://example/pay,DNS:x");
	issue_nameless(&ca, "nameless", NULL);
	issue(&ca, "workload-a", "DNS:x,URI:spiffe://example/a", 0, 0);
	issue(&ca, "dns", "DNS:x", 0, 0);
	issue_nameless(&ca, "nameless-dns", "IP:192.0.2.1,email:a@b,DNS:x,DNS:y");
	issue_nameless(&ca, "nameless-email", "IP:192.0.2.1,email:a@b");
	issue_nameless(&ca, "nameless-ip", "IP:192.0.2.1");
	write_status(&ca, &other);
	write_chain(&ca);
	write_old_ca();
	pki_free(&ca);
	pki_free(&other);
	write_text("garbage", "-----BEGIN NONSENSE-----\n");
	write_text("empty", "");
	return 0;
}

static int
group_teardown(void **state)
{
	(void)state;
	tempdir_remove(dir);
	return 0;
}

/* ---- files ---- */

static const struct {
	const char *label, *certificate, *key, *client_ca;
	const char *file, *reason; /* both stand in the message */
} bad_files[] = {
	{ "no certificate", "none.pem", "server.key", NULL, "none.pem", "No such file" },
	{ "no key", "server.pem", "none.key", NULL, "none.key", "No such file" },
	{ "another's key", "server.pem", "client.key", NULL, "client.key",
	    "is not the private key of the certificate" },
	{ "a sealed key", "sealed.pem", "sealed.key", NULL, "sealed.key", "unencrypted" },
	{ "garbage for a certificate", "garbage", "server.key", NULL, "garbage", "certificate" },
	{ "garbage for a key", "server.pem", "garbage", NULL, "garbage", "private key" },
	{ "an empty certificate", "empty", "server.key", NULL, "empty", "certificate" },
	{ "a key for a certificate", "server.key", "server.key", NULL, "server.key",
	    "certificate" },
	{ "no CA", "server.pem", "server.key", "none-ca.pem", "none-ca.pem", "No such file" },
	{ "garbage for a CA", "server.pem", "server.key", "garbage", "garbage", "CA certificates" },
};

static void
an_error_names_the_file_and_what_is_wrong(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
		struct config_listen cfg = { .own = { path(bad_files[i].certificate),
						 path(bad_files[i].key), NULL },
			.client_ca =
			    bad_files[i].client_ca != NULL ? path(bad_files[i].client_ca) : NULL };
		struct err err = { "" };

		if (tls_server_new(&cfg, NULL, &err) != NULL)
			fail_msg("%s: taken", bad_files[i].label);
		if (strstr(err.msg, path(bad_files[i].file)) == NULL ||
		    strstr(err.msg, bad_files[i].reason) == NULL)
			fail_msg("%s: %s", bad_files[i].label, err.msg);
		assert_int_equal(ERR_peek_error(), 0);
	}
}

static void
the_client_s_files_are_named_too(void **state)
{
	struct config_tls no_ca = { .ca = path("none-ca.pem") };
	struct config_tls mismatch = {
		.ca = path("ca.pem"), .certificate = path("client.pem"), .key = path("server.key")
	};
	struct err err;

	(void)state;
	assert_null(tls_client_new(&no_ca, &err));
	assert_non_null(strstr(err.msg, "none-ca.pem"));
	assert_null(tls_client_new(&mismatch, &err));
	assert_non_null(strstr(err.msg, "server.key"));
	assert_non_null(strstr(err.msg, "is not the private key"));
}

/* ---- handshakes, in memory ---- */

struct server_opts {
	const char *name, *ca, *crl, *ocsp;
	bool optional, refuse_unknown;
	const char *more[3]; /* certificates beside it */
};

/* Paths in it live until the end, as the configuration's do. */
static struct config_certificate
certificate(const char *name, const char *ocsp)
{
	static char texts[64][TEMPDIR_SIZE + 64];
	static unsigned n;
	struct config_certificate c = { texts[n % 64], texts[(n + 1) % 64], texts[(n + 2) % 64] };

	n += 3;
	snprintf(c.certificate, sizeof(texts[0]), "%s/%s.pem", dir, name);
	snprintf(c.key, sizeof(texts[0]), "%s/%s.key", dir, name);
	snprintf(c.ocsp, sizeof(texts[0]), "%s/%s", dir, ocsp != NULL ? ocsp : "");
	if (ocsp == NULL)
		c.ocsp = NULL;
	return c;
}

static struct tls_server *
server_of(const struct server_opts *o, const struct tls_server *previous)
{
	struct config_certificate more[3];
	struct config_listen cfg = { .own = certificate(o->name, o->ocsp),
		.certificates = more,
		.refuse_unknown = o->refuse_unknown,
		.client_ca = o->ca != NULL ? path(o->ca) : NULL,
		.client_crl = o->crl != NULL ? path(o->crl) : NULL,
		.client_optional = o->optional };
	struct tls_server *s;
	struct err err;

	for (; cfg.ncertificates < 3 && o->more[cfg.ncertificates] != NULL; cfg.ncertificates++)
		more[cfg.ncertificates] = certificate(o->more[cfg.ncertificates], NULL);
	if ((s = tls_server_new(&cfg, previous, &err)) == NULL)
		fail_msg("%s", err.msg);
	return s;
}

static struct tls_server *
server(const char *name, const char *client_ca, const struct tls_server *previous)
{
	return server_of(&(struct server_opts){ .name = name, .ca = client_ca }, previous);
}

static SSL_CTX *
client(const char *ca, const char *name)
{
	char certificate[TEMPDIR_SIZE + 64], key[TEMPDIR_SIZE + 64];
	struct config_tls cfg = {
		.ca = path(ca), .certificate = name != NULL ? certificate : NULL, .key = key
	};
	struct err err;
	SSL_CTX *ctx;

	snprintf(certificate, sizeof(certificate), "%s/%s.pem", dir, name != NULL ? name : "");
	snprintf(key, sizeof(key), "%s/%s.key", dir, name != NULL ? name : "");
	if ((ctx = tls_client_new(&cfg, &err)) == NULL)
		fail_msg("%s", err.msg);
	return ctx;
}

struct call {
	SSL *c, *s;
	bool ok, resumed;
	long verify; /* as the client sees the server */
	int reason;  /* of the error that ended it */
	struct tls_peer peer;
};

struct call_opts {
	SSL_CTX *client;
	struct tls_server *server;
	const char *sni;
	bool ask_status;
	int64_t verified_at;		/* for who verifies it is then, 0: now */
	struct stream_session *session; /* or NULL */
	bool checked;			/* as before each connection to the key service */
	const char *host, *ip;
	int version; /* at most this, 0: any */
	const char *alpn;
	unsigned alpn_len;
};

static bool
step(SSL *ssl, int *reason)
{
	int rc = SSL_do_handshake(ssl);
	int error = SSL_get_error(ssl, rc);

	if (rc == 1)
		return true;
	if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE && *reason == 0)
		*reason = ERR_GET_REASON(ERR_peek_error());
	ERR_clear_error();
	return false;
}

static void
run_call(struct call *call, const struct call_opts *o)
{
	BIO *a, *b;
	bool c_done = false, s_done = false;
	char byte;

	*call =
	    (struct call){ .c = SSL_new(o->client), .s = SSL_new(tls_server_context(o->server)) };
	assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
	SSL_set_bio(call->c, a, a);
	SSL_set_bio(call->s, b, b);
	SSL_set_connect_state(call->c);
	SSL_set_accept_state(call->s);
	if (o->host != NULL)
		assert_int_equal(SSL_set1_host(call->c, o->host), 1);
	if (o->ip != NULL)
		assert_int_equal(X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(call->c), o->ip), 1);
	if (o->sni != NULL)
		SSL_set_tlsext_host_name(call->c, (char *)(uintptr_t)o->sni);
	if (o->verified_at != 0) {
		X509_VERIFY_PARAM_set_time(SSL_get0_param(call->s), o->verified_at);
		X509_VERIFY_PARAM_set_time(SSL_get0_param(call->c), o->verified_at);
	}
	if (o->ask_status)
		SSL_set_tlsext_status_type(call->c, TLSEXT_STATUSTYPE_ocsp);
	if (o->version != 0)
		SSL_set_max_proto_version(call->c, o->version);
	if (o->alpn != NULL)
		SSL_set_alpn_protos(call->c, (const unsigned char *)o->alpn, o->alpn_len);
	if (o->checked)
		tls_session_check(o->session);
	if (o->session != NULL) {
		SSL_set_app_data(call->c, o->session);
		if (o->session->session != NULL)
			SSL_set_session(call->c, o->session->session);
	}
	for (int i = 0; i < 10 && !(c_done && s_done); i++) {
		c_done = c_done || step(call->c, &call->reason);
		s_done = s_done || step(call->s, &call->reason);
	}
	call->ok = c_done && s_done;
	call->verify = SSL_get_verify_result(call->c);
	call->resumed = call->ok && SSL_session_reused(call->s);
	assert_int_equal(tls_peer_read(call->s, &call->peer), 0);
	/* Tickets of TLS 1.3 come with the first read. */
	if (call->ok)
		SSL_read(call->c, &byte, 1);
	ERR_clear_error();
}

static void
end_call(struct call *call)
{
	/* A session whose connection was not ended well is not resumed. */
	SSL_shutdown(call->c);
	SSL_free(call->c);
	SSL_free(call->s);
	ERR_clear_error();
}

static const struct {
	const char *label, *ca, *server, *host, *ip;
	long verify;
} trust[] = {
	{ "the right name", "ca.pem", "server", "kms.example", NULL, X509_V_OK },
	{ "the right IPv4 address", "ca.pem", "server", NULL, "127.0.0.1", X509_V_OK },
	{ "the right IPv6 address", "ca.pem", "server", NULL, "::1", X509_V_OK },
	{ "another name", "ca.pem", "server", "kms.example.org", NULL,
	    X509_V_ERR_HOSTNAME_MISMATCH },
	{ "another address", "ca.pem", "server", NULL, "127.0.0.2",
	    X509_V_ERR_IP_ADDRESS_MISMATCH },
	{ "a CA that is not trusted", "ca.pem", "foreign", "kms.example", NULL,
	    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY },
	{ "expired", "ca.pem", "expired", "kms.example", NULL, X509_V_ERR_CERT_HAS_EXPIRED },
	{ "not yet valid", "ca.pem", "future", "kms.example", NULL, X509_V_ERR_CERT_NOT_YET_VALID },
};

static void
the_key_service_is_verified(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(trust) / sizeof(trust[0]); i++) {
		struct call_opts o = { .client = client(trust[i].ca, NULL),
			.server = server(trust[i].server, NULL, NULL),
			.host = trust[i].host,
			.ip = trust[i].ip };
		struct call call;

		run_call(&call, &o);
		if (call.verify != trust[i].verify || call.ok != (trust[i].verify == X509_V_OK))
			fail_msg("%s: %ld", trust[i].label, call.verify);
		end_call(&call);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

static void
only_our_protocol_is_agreed_on(void **state)
{
	struct call_opts o = { .client = client("ca.pem", NULL),
		.server = server("server", NULL, NULL) };
	struct call call;
	const unsigned char *chosen;
	unsigned len;

	(void)state;
	run_call(&call, &o);
	assert_true(call.ok);
	SSL_get0_alpn_selected(call.s, &chosen, &len);
	assert_int_equal(len, 8);
	assert_memory_equal(chosen, "http/1.1", 8);
	end_call(&call);
	o.alpn = "\2h2";
	o.alpn_len = 3;
	run_call(&call, &o);
	assert_false(call.ok);
	end_call(&call);
	o.alpn = "\2h2\10http/1.1";
	o.alpn_len = 12;
	run_call(&call, &o);
	assert_true(call.ok);
	end_call(&call);
	SSL_CTX_free(o.client);
	tls_server_free(o.server);
}

static void
old_versions_are_refused(void **state)
{
	struct call_opts o = { .client = client("ca.pem", NULL),
		.server = server("server", NULL, NULL),
		.version = TLS1_1_VERSION };
	struct call call;

	(void)state;
	SSL_CTX_set_min_proto_version(o.client, TLS1_VERSION);
	run_call(&call, &o);
	assert_false(call.ok);
	end_call(&call);
	SSL_CTX_free(o.client);
	tls_server_free(o.server);
}

/* ---- sessions ---- */

static const struct {
	const char *label;
	struct server_opts before, after;
	bool hand_on, resumed, ok;
	const char *client; /* NULL: "client" */
} reloads[] = {
	{ "the same context's keys are handed on", { .name = "server" }, { .name = "server" }, true,
	    true, true, NULL },
	{ "another certificate, no clients'", { .name = "server" }, { .name = "a" }, true, true,
	    true, NULL },
	{ "without that the session is not known", { .name = "server" }, { .name = "server" },
	    false, false, true, NULL },
	{ "the same CA for clients", { .name = "server", .ca = "ca.pem" },
	    { .name = "server", .ca = "ca.pem" }, true, true, true, NULL },
	{ "an authority of others has ended", { .name = "server", .ca = "bundle.pem" },
	    { .name = "server", .ca = "bundle.pem" }, true, true, true, NULL },
	{ "the list of others has", { .name = "server", .ca = "ca.pem", .crl = "mixed-crl.pem" },
	    { .name = "server", .ca = "ca.pem", .crl = "mixed-crl.pem" }, true, true, true, NULL },
	{ "another certificate, and clients'", { .name = "server", .ca = "ca.pem" },
	    { .name = "a", .ca = "ca.pem" }, true, false, true, NULL },
	{ "who was not asked for a certificate is asked now", { .name = "server" },
	    { .name = "server", .ca = "ca.pem" }, true, false, true, NULL },
	{ "who need not have one has to now",
	    { .name = "server", .ca = "ca.pem", .optional = true },
	    { .name = "server", .ca = "ca.pem" }, true, false, false, "" },
	{ "who was trusted by a CA that is gone is not", { .name = "server", .ca = "ca.pem" },
	    { .name = "server", .ca = "other-ca.pem" }, true, false, false, NULL },
	{ "who is revoked now", { .name = "server", .ca = "ca.pem", .crl = "empty-crl.pem" },
	    { .name = "server", .ca = "ca.pem", .crl = "crl.pem" }, true, false, false, "revoked" },
	{ "who is not revoked by the new list either",
	    { .name = "server", .ca = "ca.pem", .crl = "empty-crl.pem" },
	    { .name = "server", .ca = "ca.pem", .crl = "crl.pem" }, true, false, true, NULL },
};

static const char *
client_of(size_t row)
{
	if (reloads[row].client == NULL)
		return "client";
	return reloads[row].client[0] != '\0' ? reloads[row].client : NULL;
}

static void
sessions_survive_a_reload_as_far_as_trust_does(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

	(void)state;
	for (size_t i = 0; i < sizeof(reloads) / sizeof(reloads[0]); i++)
		for (size_t v = 0; v < 2; v++) {
			struct tls_server *before = server_of(&reloads[i].before, NULL);
			struct tls_server *after =
			    server_of(&reloads[i].after, reloads[i].hand_on ? before : NULL);
			struct stream_session session = { NULL, NULL };
			struct call_opts o = { .client = client("ca.pem", client_of(i)),
				.server = before,
				.session = &session,
				.version = versions[v] };
			struct call call;

			session.ctx = o.client;
			run_call(&call, &o);
			assert_true(call.ok);
			assert_non_null(session.session);
			end_call(&call);
			o.server = after;
			run_call(&call, &o);
			if (call.resumed != reloads[i].resumed || call.ok != reloads[i].ok)
				fail_msg("%s: %sresumed, %sok", reloads[i].label,
				    call.resumed ? "" : "not ", call.ok ? "" : "not ");
			end_call(&call);
			SSL_SESSION_free(session.session);
			SSL_CTX_free(o.client);
			tls_server_free(before);
			tls_server_free(after);
		}
}

static const struct {
	const char *label, *client, *ca, *crl;
	int64_t verified_at; /* seconds from now */
} ended[] = {
	{ "the certificate", "expired", "ca.pem", NULL, -5400 },
	{ "the list", "client", "ca.pem", "old-crl.pem", -30 },
	{ "the authority", "of-old-ca", "old-ca.pem", NULL, -5400 },
};

static void
a_session_ends_with_what_it_was_verified_by(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(ended) / sizeof(ended[0]); i++) {
		struct stream_session session = { NULL, NULL };
		struct call_opts o = { .client = client("ca.pem", ended[i / 2].client),
			.server = server_of(
			    &(struct server_opts){
				.name = "server", .ca = ended[i / 2].ca, .crl = ended[i / 2].crl },
			    NULL),
			.session = &session,
			.version = versions[i % 2],
			.verified_at = time(NULL) + ended[i / 2].verified_at };
		struct call call;

		session.ctx = o.client;
		run_call(&call, &o);
		if (!call.ok || session.session == NULL)
			fail_msg("%s: %ld", ended[i / 2].label, SSL_get_verify_result(call.s));
		end_call(&call);
		o.verified_at = 0;
		run_call(&call, &o);
		if (call.ok)
			fail_msg("%s: %sresumed", ended[i / 2].label, call.resumed ? "" : "not ");
		end_call(&call);
		SSL_SESSION_free(session.session);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

/* Hour by hour; the keys of the tickets change meanwhile. */
static void
sessions_are_not_resumed_from_one_another_for_ever(void **state)
{
	struct stream_session session = { NULL, NULL };
	struct call_opts o = { .client = client("ca.pem", "client"),
		.server = server("server", "ca.pem", NULL),
		.session = &session };
	struct call call;

	(void)state;
	session.ctx = o.client;
	for (seconds_ahead = 0; seconds_ahead <= 2 * TICKETS_CHAIN_S; seconds_ahead += 3600) {
		run_call(&call, &o);
		assert_true(call.ok);
		if (call.resumed != (seconds_ahead % TICKETS_CHAIN_S != 0))
			fail_msg(
			    "%" PRId64 " s: %sresumed", seconds_ahead, call.resumed ? "" : "not ");
		end_call(&call);
	}
	seconds_ahead = 0;
	SSL_SESSION_free(session.session);
	SSL_CTX_free(o.client);
	tls_server_free(o.server);
}

/* It resumes whatever it is shown. */
static struct tls_server *
lenient_server(const char *name)
{
	struct tls_server *s = server(name, NULL, NULL);

	SSL_CTX_set_session_ticket_cb(tls_server_context(s), NULL, NULL, NULL);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(tls_server_context(s), NULL);
	return s;
}

static const struct {
	const char *label, *ca, *server;
	int64_t verified_at; /* seconds from now */
	int64_t hours[2];    /* of two more calls, since the first */
	bool ok, resumed[2]; /* are they so? */
} kept[] = {
	{ "for half a day", "ca.pem", "server", 0, { 6, 11 }, true, { true, true } },
	{ "no longer, however often it was resumed", "ca.pem", "server", 0, { 11, 12 }, true,
	    { true, false } },
	{ "not when the certificate has ended", "ca.pem", "expired", -5400, { 0, 0 }, false,
	    { false, false } },
	{ "nor when its authority has", "old-ca.pem", "of-old-ca", -5400, { 0, 0 }, false,
	    { false, false } },
};

static void
the_key_service_is_verified_again_in_time(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(kept) / sizeof(kept[0]); i++) {
		struct stream_session session = { NULL, NULL };
		struct call_opts o = { .client = client(kept[i / 2].ca, NULL),
			.server = lenient_server(kept[i / 2].server),
			.session = &session,
			.checked = true,
			.version = versions[i % 2],
			.verified_at = time(NULL) + kept[i / 2].verified_at };
		struct call call;

		session.ctx = o.client;
		run_call(&call, &o);
		if (!call.ok || session.session == NULL)
			fail_msg("%s: %ld", kept[i / 2].label, call.verify);
		end_call(&call);
		o.verified_at = 0;
		for (size_t k = 0; k < 2; k++) {
			seconds_ahead = kept[i / 2].hours[k] * 3600;
			run_call(&call, &o);
			if (call.ok != kept[i / 2].ok || call.resumed != kept[i / 2].resumed[k])
				fail_msg("%s: %zu: %sok, %sresumed", kept[i / 2].label, k,
				    call.ok ? "" : "not ", call.resumed ? "" : "not ");
			end_call(&call);
		}
		seconds_ahead = 0;
		SSL_SESSION_free(session.session);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

static void
a_session_of_an_older_context_is_not_kept(void **state)
{
	struct stream_session session = { NULL, NULL };
	SSL_CTX *newer = client("other-ca.pem", NULL);
	struct call_opts o = { .client = client("ca.pem", NULL),
		.server = server("server", NULL, NULL),
		.session = &session };
	struct call call;

	(void)state;
	session.ctx = newer;
	run_call(&call, &o);
	assert_true(call.ok);
	assert_null(session.session);
	end_call(&call);
	SSL_CTX_free(o.client);
	tls_server_free(o.server);
	SSL_CTX_free(newer);
}

static void
a_client_is_named_by_its_certificate(void **state)
{
	struct call_opts o = { .client = client("ca.pem", "client"),
		.server = server("server", "ca.pem", NULL) };
	struct call call;

	(void)state;
	run_call(&call, &o);
	assert_true(call.ok);
	assert_int_equal(call.peer.nname, strlen("CN=client"));
	assert_memory_equal(call.peer.name, "CN=client", call.peer.nname);
	end_call(&call);
	SSL_CTX_free(o.client);
	o.client = client("ca.pem", NULL);
	run_call(&call, &o);
	assert_false(call.ok);
	assert_int_equal(call.peer.nname, 0);
	end_call(&call);
	SSL_CTX_free(o.client);
	tls_server_free(o.server);
}

static void
a_client_is_named_by_the_first_name_that_there_is(void **state)
{
	static const struct {
		const char *client, *want, *other;
	} rows[] = {
		{ "spiffe", "URI:spiffe://example/pay", "" },
		{ "workload-a", "URI:spiffe://example/a", "CN=workload-a" },
		{ "client", "CN=client", "" },
		{ "dns", "CN=dns", "DNS:x" },
		{ "nameless-dns", "DNS:x", "" },
		{ "nameless-email", "email:a@b", "" },
		{ "nameless-ip", "IP Address:192.0.2.1", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct call_opts o = { .client = client("ca.pem", rows[i].client),
			.server = server("server", "ca.pem", NULL) };
		struct call call;

		run_call(&call, &o);
		assert_true(call.ok);
		assert_int_equal(call.peer.nname, strlen(rows[i].want));
		assert_memory_equal(call.peer.name, rows[i].want, call.peer.nname);
		assert_int_equal(call.peer.nother, strlen(rows[i].other));
		assert_memory_equal(call.peer.other, rows[i].other, call.peer.nother);
		end_call(&call);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

static void
a_client_without_a_name_is_one_certificate(void **state)
{
	struct call_opts o = { .client = client("ca.pem", "nameless"),
		.server = server("server", "ca.pem", NULL) };
	unsigned char digest[32];
	struct call call;
	char want[80];
	int n = 7;

	(void)state;
	assert_int_equal(
	    X509_digest(SSL_CTX_get0_certificate(o.client), EVP_sha256(), digest, NULL), 1);
	strcpy(want, "SHA256:");
	for (size_t i = 0; i < sizeof(digest); i++)
		n += snprintf(want + n, sizeof(want) - (size_t)n, "%02x", digest[i]);
	run_call(&call, &o);
	assert_true(call.ok);
	assert_int_equal(call.peer.nname, n);
	assert_memory_equal(call.peer.name, want, n);
	end_call(&call);
	SSL_CTX_free(o.client);
	tls_server_free(o.server);
}

static void
a_certificate_may_be_optional_but_not_bad(void **state)
{
	static const struct {
		const char *client;
		bool ok;
	} rows[] = { { NULL, true }, { "client", true }, { "stranger", false } };

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct call_opts o = { .client = client("ca.pem", rows[i].client),
			.server = server_of(
			    &(struct server_opts){
				.name = "server", .ca = "ca.pem", .optional = true },
			    NULL) };
		struct call call;

		run_call(&call, &o);
		if (call.ok != rows[i].ok)
			fail_msg("%s", rows[i].client);
		end_call(&call);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

static const struct {
	const char *label, *client, *crl;
	long verify; /* of the client */
} revocations[] = {
	{ "not on the list", "client", "crl.pem", X509_V_OK },
	{ "revoked", "revoked", "crl.pem", X509_V_ERR_CERT_REVOKED },
	{ "a list that is out of date", "client", "old-crl.pem", X509_V_ERR_CRL_HAS_EXPIRED },
	{ "a list of somebody else", "client", "other-crl.pem", X509_V_ERR_UNABLE_TO_GET_CRL },
	{ "no list of who is above the issuer", "below", "between-crl.pem", X509_V_OK },
	{ "lists of both", "below", "both-crl.pem", X509_V_OK },
	{ "a revoked issuer", "below", "revoking-crl.pem", X509_V_ERR_CERT_REVOKED },
	{ "only a list of who is above", "below", "crl.pem", X509_V_ERR_UNABLE_TO_GET_CRL },
};

static void
a_revocation_list_is_heeded(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(revocations) / sizeof(revocations[0]); i++) {
		struct call_opts o = { .client = client("ca.pem", revocations[i].client),
			.server = server_of(
			    &(struct server_opts){
				.name = "server", .ca = "ca.pem", .crl = revocations[i].crl },
			    NULL) };
		struct call call;
		long verify;

		run_call(&call, &o);
		verify = SSL_get_verify_result(call.s);
		if (verify != revocations[i].verify || call.ok != (verify == X509_V_OK))
			fail_msg("%s: %ld", revocations[i].label, verify);
		end_call(&call);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

/* ---- several certificates ---- */

static const struct {
	const char *label, *asked, *shown; /* NULL: the handshake fails */
	bool refuse;
} names[] = {
	{ "none", NULL, "server", true },
	{ "the default one's", "kms.example", "server", true },
	{ "an exact one", "a.example", "a", true },
	{ "in another case", "A.EXAMPLE", "a", true },
	{ "by a wildcard", "x.wild.example", "wild", true },
	{ "exact before a wildcard", "exact.wild.example", "a", true },
	{ "a wildcard is not none", "wild.example", NULL, true },
	{ "a wildcard is not two", "x.y.wild.example", NULL, true },
	{ "an unknown one, refused", "b.example", NULL, true },
	{ "an unknown one", "b.example", "server", false },
};

static void
a_certificate_is_chosen_by_name(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
		size_t row = i / 2;
		struct call_opts o = { .client = client("ca.pem", "client"),
			.server = server_of(&(struct server_opts){ .name = "server",
						.ca = "ca.pem",
						.refuse_unknown = names[row].refuse,
						.more = { "wild", "a" } },
			    NULL),
			.sni = names[row].asked,
			.version = versions[i % 2] };
		char subject[64] = "";
		struct call call;

		run_call(&call, &o);
		if (call.ok)
			X509_NAME_get_text_by_NID(
			    X509_get_subject_name(SSL_get0_peer_certificate(call.c)),
			    NID_commonName, subject, sizeof(subject));
		if (call.ok != (names[row].shown != NULL) ||
		    (call.ok && strcmp(subject, names[row].shown) != 0))
			fail_msg("%s: %s", names[row].label, subject);
		if (call.ok)
			assert_int_equal(call.peer.nname, strlen("CN=client"));
		else
			assert_int_equal(call.reason, SSL_R_CALLBACK_FAILED);
		end_call(&call);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

static const struct {
	const char *sni, *host;
	bool served;
} hosts[] = {
	{ NULL, "anything.example", true },
	{ "kms.example", "a.example", true },
	{ "a.example", "a.example", true },
	{ "a.example", "A.example:8443", true },
	{ "a.example", "exact.wild.example", true },
	{ "a.example", "kms.example", false },
	{ "a.example", "kms.example:443", false },
	{ "a.example", "sub.a.example", false },
	{ "a.example", "127.0.0.1:1", true },
	{ "a.example", "12345", false },
	{ "a.example", "1.2.3.4.5", false },
	{ "a.example", "256.0.0.1", false },
	{ "a.example", "[::1]:1", true },
	{ "a.example", "[::1]", true },
	{ "x.wild.example", "y.wild.example", true },
	{ "x.wild.example", "y.z.wild.example", false },
	{ "x.wild.example", ".wild.example", false },
};

static void
a_certificate_serves_its_own_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		struct call_opts o = { .client = client("ca.pem", NULL),
			.server = server_of(
			    &(struct server_opts){ .name = "server", .more = { "a", "wild" } },
			    NULL),
			.sni = hosts[i].sni };
		struct call call;

		run_call(&call, &o);
		assert_true(call.ok);
		if (tls_serves(call.s, slice_of(hosts[i].host)) != hosts[i].served)
			fail_msg("%s: %s", hosts[i].sni, hosts[i].host);
		end_call(&call);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

static void
a_certificate_that_nobody_can_ask_for_is_an_error(void **state)
{
	struct config_certificate more = certificate("client", NULL);
	struct config_listen cfg = {
		.own = certificate("server", NULL), .certificates = &more, .ncertificates = 1
	};
	struct err err;

	(void)state;
	assert_null(tls_server_new(&cfg, NULL, &err));
	assert_non_null(strstr(err.msg, "client.pem"));
	assert_non_null(strstr(err.msg, "no DNS name"));
}

/* ---- OCSP ---- */

static const struct {
	const char *certificate, *file;
	bool stapled;
} responses[] = {
	{ "server", NULL, false },
	{ "server", "good.ocsp", true },
	{ "server", "old.ocsp", false },
	{ "below", "below.ocsp", true },
};

static void
a_response_is_stapled_while_it_is_good(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
		struct call_opts o = { .client = client("ca.pem", NULL),
			.server = server_of(&(struct server_opts){ .name = responses[i].certificate,
						.ocsp = responses[i].file },
			    NULL),
			.ask_status = true };
		const unsigned char *response;
		struct call call;

		run_call(&call, &o);
		assert_true(call.ok);
		assert_int_equal(
		    SSL_get_tlsext_status_ocsp_resp(call.c, &response) > 0, responses[i].stapled);
		end_call(&call);
		SSL_CTX_free(o.client);
		tls_server_free(o.server);
	}
}

static void
a_response_that_is_no_proof_is_an_error(void **state)
{
	static const struct {
		const char *file, *reason, *certificate; /* NULL: "server" */
	} rows[] = {
		{ "other.ocsp", "for another certificate", NULL },
		{ "foreign.ocsp", "for another certificate", NULL },
		{ "namesake.ocsp", "for another certificate", "below" },
		{ "future.ocsp", "of the future", NULL },
		{ "endless.ocsp", "no end (nextUpdate)", NULL },
		{ "revoked.ocsp", "does not say that the certificate is good", NULL },
		{ "unknown.ocsp", "does not say that the certificate is good", NULL },
		{ "garbage", "OCSP response in DER", NULL },
		{ "none.ocsp", "No such file", NULL },
		{ "try-later.ocsp", "not a successful one", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *own = rows[i].certificate != NULL ? rows[i].certificate : "server";
		struct config_listen cfg = { .own = certificate(own, rows[i].file) };
		struct err err;

		if (tls_server_new(&cfg, NULL, &err) != NULL)
			fail_msg("%s: taken", rows[i].file);
		if (strstr(err.msg, rows[i].file) == NULL ||
		    strstr(err.msg, rows[i].reason) == NULL)
			fail_msg("%s: %s", rows[i].file, err.msg);
		assert_int_equal(ERR_peek_error(), 0);
	}
}

/* ---- until when ---- */

static void
expect_validity(const struct tlsfile_validity *v, const char *file, int64_t from, int64_t until)
{
	int64_t now = time(NULL);

	assert_non_null(strstr(v->path, file));
	assert_in_range(v->from - now - from + 100, 0, 110);
	assert_in_range(v->until - now - until + 100, 0, 110);
}

static void
the_end_of_every_file_is_told(void **state)
{
	static const struct {
		const char *file;
		int64_t from, until; /* seconds from now */
	} want[] = {
		{ "/expired.pem", -7200, -3600 },
		{ "/wild.pem", -DAY, DAY },
		{ "/ca.pem", -DAY, DAY },
		{ "/crl.pem", -60, 3600 },
	};
	struct tls_server *s = server_of(
	    &(struct server_opts){
		.name = "expired", .ca = "ca.pem", .crl = "crl.pem", .more = { "wild" } },
	    NULL);
	SSL_CTX *none = client("ca.pem", NULL);
	size_t n;
	const struct tlsfile_validity *v = tls_server_validity(s, &n);
	char text[TLSFILE_TIME_SIZE];

	(void)state;
	assert_int_equal(n, 4);
	for (size_t i = 0; i < n; i++)
		expect_validity(&v[i], want[i].file, want[i].from, want[i].until);
	assert_true(tlsfile_validity_of(none, "x").until == INT64_MAX);
	tlsfile_time_text(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00Z");
	tlsfile_time_text(INT64_MAX, text);
	assert_string_equal(text, "ever");
	SSL_CTX_free(none);
	tls_server_free(s);
}

static void
so_is_that_of_files_for_the_key_service(void **state)
{
	struct config_tls cfg = { .ca = path("bundle.pem"),
		.certificate = path("under-old-ca.pem"),
		.key = path("of-old-ca.key") };
	struct tlsfile_validity v[TLSFILE_CLIENT_MAX];
	struct err err;
	SSL_CTX *ctx = tls_client_new(&cfg, &err);

	(void)state;
	assert_non_null(ctx);
	assert_int_equal(tlsfile_validity_of_client(ctx, &cfg, v), 2);
	/* As good as the first of them that ends, be it an authority above. */
	expect_validity(&v[0], "/bundle.pem", -7200, -3600);
	expect_validity(&v[1], "/under-old-ca.pem", -7200, -3600);
	SSL_CTX_free(ctx);
	cfg = (struct config_tls){ .ca = NULL };
	ctx = tls_client_new(&cfg, &err);
	assert_non_null(ctx);
	assert_int_equal(tlsfile_validity_of_client(ctx, &cfg, v), 0);
	SSL_CTX_free(ctx);
}

static void
the_key_service_may_have_to_speak_1_3(void **state)
{
	struct config_tls cfg = { .ca = path("ca.pem"), .tls13 = true };
	struct err err;
	struct call_opts o = { .client = tls_client_new(&cfg, &err),
		.server = server("server", NULL, NULL) };
	struct call call;

	(void)state;
	run_call(&call, &o);
	assert_true(call.ok);
	assert_int_equal(SSL_version(call.c), TLS1_3_VERSION);
	end_call(&call);
	SSL_CTX_set_max_proto_version(tls_server_context(o.server), TLS1_2_VERSION);
	run_call(&call, &o);
	assert_false(call.ok);
	end_call(&call);
	SSL_CTX_free(o.client);
	tls_server_free(o.server);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_names_the_file_and_what_is_wrong),
		cmocka_unit_test(the_client_s_files_are_named_too),
		cmocka_unit_test(the_key_service_is_verified),
		cmocka_unit_test(only_our_protocol_is_agreed_on),
		cmocka_unit_test(old_versions_are_refused),
		cmocka_unit_test(sessions_survive_a_reload_as_far_as_trust_does),
		cmocka_unit_test(a_session_ends_with_what_it_was_verified_by),
		cmocka_unit_test(sessions_are_not_resumed_from_one_another_for_ever),
		cmocka_unit_test(the_key_service_is_verified_again_in_time),
		cmocka_unit_test(a_session_of_an_older_context_is_not_kept),
		cmocka_unit_test(a_client_is_named_by_its_certificate),
		cmocka_unit_test(a_client_is_named_by_the_first_name_that_there_is),
		cmocka_unit_test(a_client_without_a_name_is_one_certificate),
		cmocka_unit_test(a_certificate_may_be_optional_but_not_bad),
		cmocka_unit_test(a_revocation_list_is_heeded),
		cmocka_unit_test(a_certificate_is_chosen_by_name),
		cmocka_unit_test(a_certificate_serves_its_own_names),
		cmocka_unit_test(a_certificate_that_nobody_can_ask_for_is_an_error),
		cmocka_unit_test(a_response_is_stapled_while_it_is_good),
		cmocka_unit_test(a_response_that_is_no_proof_is_an_error),
		cmocka_unit_test(the_end_of_every_file_is_told),
		cmocka_unit_test(so_is_that_of_files_for_the_key_service),
		cmocka_unit_test(the_key_service_may_have_to_speak_1_3),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
