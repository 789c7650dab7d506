#include "data/tls.h"

#include "data/stream.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TLS12_CIPHERS                                                                              \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"                               \
	"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"                               \
	"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define TLS13_CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

static const unsigned char alpn_http11[] = { 8, 'h', 't', 't', 'p', '/', '1', '.', '1' };

static int
fail_openssl(struct err *err, const char *what, const char *path)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return err_set(err, "%s: cannot use as %s: %s", path, what,
	    reason != NULL ? reason : "OpenSSL gives no reason");
}

/* OpenSSL's message for a missing file is hard to read; errno's is not. */
static int
check_readable(const char *what, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd == -1)
		return err_set_errno(err, "%s: cannot read the %s", path, what);
	close(fd);
	return 0;
}

static int
no_passphrase(char *out, int size, int writing, void *arg)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int
load_pair(SSL_CTX *ctx, const char *certificate, const char *key, struct err *err)
{
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (check_readable("certificate", certificate, err) == -1 ||
	    check_readable("private key", key, err) == -1)
		return -1;
	if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1)
		return fail_openssl(err, "a certificate chain in PEM", certificate);
	/* The key of another certificate is told from a file that is no key. */
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
		if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH) {
			ERR_clear_error();
			return err_set(err, "%s: is not the private key of the certificate %s", key,
			    certificate);
		}
		return fail_openssl(err, "an unencrypted private key in PEM", key);
	}
	if (SSL_CTX_check_private_key(ctx) != 1)
		return err_set(
		    err, "%s: is not the private key of the certificate %s", key, certificate);
	return 0;
}

static int
load_ca(SSL_CTX *ctx, const char *path, struct err *err)
{
	if (check_readable("CA certificates", path, err) == -1)
		return -1;
	if (SSL_CTX_load_verify_file(ctx, path) != 1)
		return fail_openssl(err, "CA certificates in PEM", path);
	return 0;
}

static SSL_CTX *
context_new(const SSL_METHOD *method, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(ctx, TLS12_CIPHERS) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, TLS13_CIPHERS) != 1) {
		fail_openssl(err, "a TLS context", "OpenSSL");
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
				     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				  SSL_MODE_RELEASE_BUFFERS);
	/* One recv takes a whole record and what follows it. */
	SSL_CTX_set_read_ahead(ctx, 1);
	return ctx;
}

/* RFC 7301 section 3.2: a client that offers protocols, but not ours, gets an alert. */
static int
select_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in,
    unsigned inlen, void *arg)
{
	/* In order of preference; curl --http1.0 offers nothing but the second. */
	static const unsigned char spoken[] = { 8, 'h', 't', 't', 'p', '/', '1', '.', '1', 8, 'h',
		't', 't', 'p', '/', '1', '.', '0' };
	unsigned char *chosen;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, outlen, spoken, sizeof(spoken), in, inlen) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static int
hand_on_ticket_keys(SSL_CTX *from, SSL_CTX *to)
{
	unsigned char keys[256];
	long n = SSL_CTX_get_tlsext_ticket_keys(from, NULL, 0);
	int rc;

	assert(n > 0 && (size_t)n <= sizeof(keys));
	rc = SSL_CTX_get_tlsext_ticket_keys(from, keys, n) == 1 &&
	     SSL_CTX_set_tlsext_ticket_keys(to, keys, n) == 1;
	OPENSSL_cleanse(keys, sizeof(keys));
	return rc ? 0 : -1;
}

/*
 * A resumed session is not verified again, so one is resumed only where clients are still asked for
 * the same: the context of a session is the digest of all CA certificates that they may have.
 */
static int
set_session_context(SSL_CTX *ctx)
{
	STACK_OF(X509_OBJECT) *store = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx));
	unsigned char id[EVP_MAX_MD_SIZE], one[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned n;
	bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

	for (int i = 0; ok && i < sk_X509_OBJECT_num(store); i++) {
		X509 *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(store, i));

		if (cert != NULL)
			ok = X509_digest(cert, EVP_sha256(), one, &n) == 1 &&
			     EVP_DigestUpdate(md, one, n) == 1;
	}
	ok = ok && EVP_DigestFinal_ex(md, id, &n) == 1 &&
	     SSL_CTX_set_session_id_context(ctx, id, n) == 1;
	EVP_MD_CTX_free(md);
	return ok ? 0 : -1;
}

SSL_CTX *
tls_server_new(const struct config_listen *cfg, SSL_CTX *previous, struct err *err)
{
	SSL_CTX *ctx = context_new(TLS_server_method(), err);

	if (ctx == NULL)
		return NULL;
	if (load_pair(ctx, cfg->certificate, cfg->key, err) == -1)
		goto fail;
	if (cfg->client_ca != NULL) {
		if (load_ca(ctx, cfg->client_ca, err) == -1)
			goto fail;
		SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(cfg->client_ca));
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	}
	if (set_session_context(ctx) == -1) {
		fail_openssl(err, "a context of sessions", "OpenSSL");
		goto fail;
	}
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 1);
	SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
	if (previous != NULL && hand_on_ticket_keys(previous, ctx) == -1) {
		fail_openssl(err, "ticket keys", "OpenSSL");
		goto fail;
	}
	return ctx;
fail:
	SSL_CTX_free(ctx);
	return NULL;
}

/* Keep the newest session where stream was told to, for the next connection. */
static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct stream_session *slot = SSL_get_app_data(ssl);

	/* A ticket may come late, when a reload has brought another context. */
	if (slot == NULL || slot->ctx != SSL_get_SSL_CTX(ssl))
		return 0;
	SSL_SESSION_free(slot->session);
	slot->session = session;
	return 1;
}

SSL_CTX *
tls_client_new(const struct config_upstream *cfg, struct err *err)
{
	SSL_CTX *ctx = context_new(TLS_client_method(), err);

	if (ctx == NULL)
		return NULL;
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (cfg->ca != NULL ? load_ca(ctx, cfg->ca, err) == -1
			    : SSL_CTX_set_default_verify_paths(ctx) != 1) {
		if (cfg->ca == NULL)
			fail_openssl(err, "the store of CA certificates", "system");
		goto fail;
	}
	if (cfg->certificate != NULL && load_pair(ctx, cfg->certificate, cfg->key, err) == -1)
		goto fail;
	if (SSL_CTX_set_alpn_protos(ctx, alpn_http11, sizeof(alpn_http11)) != 0) {
		fail_openssl(err, "ALPN", "OpenSSL");
		goto fail;
	}
	SSL_CTX_set_session_cache_mode(
	    ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(ctx, keep_session);
	return ctx;
fail:
	SSL_CTX_free(ctx);
	return NULL;
}

int64_t
tls_not_after(const SSL_CTX *ctx)
{
	X509 *cert = SSL_CTX_get0_certificate(ctx);
	struct tm tm;

	if (cert == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
		return 0;
	return (int64_t)timegm(&tm);
}

size_t
tls_peer_subject(const SSL *ssl, char *out, size_t cap)
{
	X509 *cert = SSL_get0_peer_certificate(ssl);
	BIO *bio;
	char *text;
	long n;
	size_t len = 0;

	if (cert == NULL || SSL_get_verify_result(ssl) != X509_V_OK ||
	    (bio = BIO_new(BIO_s_mem())) == NULL)
		return 0;
	if (X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0,
		XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0 &&
	    (n = BIO_get_mem_data(bio, &text)) > 0) {
		len = (size_t)n < cap ? (size_t)n : cap;
		memcpy(out, text, len);
	}
	BIO_free(bio);
	return len;
}
