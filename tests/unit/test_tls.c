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

#include <openssl/err.h>
#include <time.h>

static char dir[TEMPDIR_SIZE];

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

static int
group_setup(void **state)
{
	struct pki_id ca = pki_make(&(struct pki_opts){ .name = "ca" });
	struct pki_id other = pki_make(&(struct pki_opts){ .name = "other ca" });

	(void)state;
	tempdir_make(dir);
	pki_write(&ca, dir, "ca", NULL);
	pki_write(&other, dir, "other-ca", NULL);
	issue(&ca, "server", "DNS:kms.example,IP:127.0.0.1,IP:::1", 0, 0);
	issue(&ca, "client", NULL, 0, 0);
	issue(&ca, "expired", "DNS:kms.example", -7200, -3600);
	issue(&ca, "future", "DNS:kms.example", 3600, 7200);
	issue(&other, "foreign", "DNS:kms.example", 0, 0);
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
		struct config_listen cfg = { .certificate = path(bad_files[i].certificate),
			.key = path(bad_files[i].key),
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
	struct config_upstream no_ca = { .ca = path("none-ca.pem") };
	struct config_upstream mismatch = {
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

static SSL_CTX *
server(const char *name, const char *client_ca, SSL_CTX *previous)
{
	char certificate[TEMPDIR_SIZE + 64], key[TEMPDIR_SIZE + 64];
	struct config_listen cfg = { .certificate = certificate,
		.key = key,
		.client_ca = client_ca != NULL ? path(client_ca) : NULL };
	struct err err;
	SSL_CTX *ctx;

	snprintf(certificate, sizeof(certificate), "%s/%s.pem", dir, name);
	snprintf(key, sizeof(key), "%s/%s.key", dir, name);
	if ((ctx = tls_server_new(&cfg, previous, &err)) == NULL)
		fail_msg("%s", err.msg);
	return ctx;
}

static SSL_CTX *
client(const char *ca, const char *name)
{
	char certificate[TEMPDIR_SIZE + 64], key[TEMPDIR_SIZE + 64];
	struct config_upstream cfg = {
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
	size_t subject;
	char text[128];
};

struct call_opts {
	SSL_CTX *client, *server;
	struct stream_session *session; /* or NULL */
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

	*call = (struct call){ .c = SSL_new(o->client), .s = SSL_new(o->server) };
	assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
	SSL_set_bio(call->c, a, a);
	SSL_set_bio(call->s, b, b);
	SSL_set_connect_state(call->c);
	SSL_set_accept_state(call->s);
	if (o->host != NULL)
		assert_int_equal(SSL_set1_host(call->c, o->host), 1);
	if (o->ip != NULL)
		assert_int_equal(X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(call->c), o->ip), 1);
	if (o->version != 0)
		SSL_set_max_proto_version(call->c, o->version);
	if (o->alpn != NULL)
		SSL_set_alpn_protos(call->c, (const unsigned char *)o->alpn, o->alpn_len);
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
	call->subject = tls_peer_subject(call->s, call->text, sizeof(call->text));
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
		SSL_CTX_free(o.server);
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
	SSL_CTX_free(o.server);
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
	SSL_CTX_free(o.server);
}

/* ---- sessions ---- */

static const struct {
	const char *label, *before, *after; /* client_ca of the two contexts */
	bool hand_on, resumed, ok;
} reloads[] = {
	{ "the same context's keys are handed on", NULL, NULL, true, true, true },
	{ "without that the session is not known", NULL, NULL, false, false, true },
	{ "the same CA for clients", "ca.pem", "ca.pem", true, true, true },
	{ "who was not asked for a certificate is asked now", NULL, "ca.pem", true, false, true },
	{ "who was trusted by a CA that is gone is not", "ca.pem", "other-ca.pem", true, false,
	    false },
};

static void
sessions_survive_a_reload_as_far_as_trust_does(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

	(void)state;
	for (size_t i = 0; i < sizeof(reloads) / sizeof(reloads[0]); i++)
		for (size_t v = 0; v < 2; v++) {
			SSL_CTX *before = server("server", reloads[i].before, NULL);
			SSL_CTX *after =
			    server("server", reloads[i].after, reloads[i].hand_on ? before : NULL);
			struct stream_session session = { NULL, NULL };
			struct call_opts o = { .client = client("ca.pem", "client"),
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
			SSL_CTX_free(before);
			SSL_CTX_free(after);
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
	SSL_CTX_free(o.server);
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
	assert_int_equal(call.subject, strlen("CN=client"));
	assert_memory_equal(call.text, "CN=client", call.subject);
	end_call(&call);
	SSL_CTX_free(o.client);
	o.client = client("ca.pem", NULL);
	run_call(&call, &o);
	assert_false(call.ok);
	assert_int_equal(call.subject, 0);
	end_call(&call);
	SSL_CTX_free(o.client);
	SSL_CTX_free(o.server);
}

static void
the_end_of_a_certificate_is_told(void **state)
{
	SSL_CTX *ctx = server("expired", NULL, NULL), *none = client("ca.pem", NULL);
	int64_t now = time(NULL);

	(void)state;
	assert_true(tls_not_after(ctx) > now - 3700 && tls_not_after(ctx) <= now - 3500);
	assert_int_equal(tls_not_after(none), 0);
	SSL_CTX_free(ctx);
	SSL_CTX_free(none);
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
		cmocka_unit_test(a_session_of_an_older_context_is_not_kept),
		cmocka_unit_test(a_client_is_named_by_its_certificate),
		cmocka_unit_test(the_end_of_a_certificate_is_told),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
