#include "tls_internal.h"

#include "data/records.h"
#include "data/stream.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TLS12_CIPHERS                                                                              \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"                               \
	"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"                               \
	"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define TLS13_CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

#define NEAR_S	      (30 * INT64_C(86400))

static const unsigned char alpn_http11[] = { 8, 'h', 't', 't', 'p', '/', '1', '.', '1' };

/* OpenSSL tells what it could not do for want of memory as if the file were to blame. */
static bool
memory_is_short(void)
{
	void *probe = OPENSSL_malloc(1);

	OPENSSL_free(probe);
	return probe == NULL;
}

int
tls_fail(struct err *err, const char *what, const char *path)
{
	unsigned long code = ERR_peek_error(); /* the first is the cause */
	const char *reason = memory_is_short() ? "memory is short"
			     : code != 0       ? ERR_reason_error_string(code)
					       : NULL;

	ERR_clear_error();
	/* What it could not make once it may lack for ever. */
	return err_set(err, "%s: cannot use as %s: %s%s", path, what,
	    reason != NULL ? reason : "OpenSSL gives no reason",
	    records_failures() > 0 ? ", or because OpenSSL has found no memory before" : "");
}

/* What is read when it is first needed, and but once, is read now. */
static bool
is_whole(X509 *cert)
{
	uint32_t flags = X509_get_extension_flags(cert);
	bool self = (flags & EXFLAG_SI) == 0 || (flags & EXFLAG_SS) != 0;
	const EVP_PKEY *key = X509_get0_pubkey(cert);

	/* A key of which nobody could say how strong it is counts as too weak for ever. */
	return (flags & (EXFLAG_INVALID | EXFLAG_NO_FINGERPRINT)) == 0 && self && key != NULL &&
	       EVP_PKEY_get_security_bits(key) > 0;
}

bool
tls_was_read_well(const X509_STORE *store)
{
	STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
	bool well = true;

	for (int i = 0; well && i < sk_X509_OBJECT_num(objects); i++) {
		X509 *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));

		well = cert == NULL || is_whole(cert);
	}
	well = well && ERR_peek_error() == 0;
	ERR_clear_error();
	return well;
}

int
tls_check_readable(const char *what, const char *path, struct err *err)
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

int
tls_load_pair(SSL_CTX *ctx, const char *certificate, const char *key, struct err *err)
{
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (tls_check_readable("certificate", certificate, err) == -1 ||
	    tls_check_readable("private key", key, err) == -1)
		return -1;
	if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1)
		return tls_fail(err, "a certificate chain in PEM", certificate);
	/* The key of another certificate is told from a file that is no key. */
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
		if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH) {
			ERR_clear_error();
			return err_set(err, "%s: is not the private key of the certificate %s", key,
			    certificate);
		}
		return tls_fail(err, "an unencrypted private key in PEM", key);
	}
	if (SSL_CTX_check_private_key(ctx) != 1)
		return err_set(
		    err, "%s: is not the private key of the certificate %s", key, certificate);
	return 0;
}

static int
load_ca(SSL_CTX *ctx, const char *path, struct err *err)
{
	if (tls_check_readable("CA certificates", path, err) == -1)
		return -1;
	if (SSL_CTX_load_verify_file(ctx, path) != 1)
		return tls_fail(err, "CA certificates in PEM", path);
	return 0;
}

SSL_CTX *
tls_context_new(const SSL_METHOD *method, int min_version, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, min_version) != 1 ||
	    SSL_CTX_set_cipher_list(ctx, TLS12_CIPHERS) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, TLS13_CIPHERS) != 1) {
		tls_fail(err, "a TLS context", "OpenSSL");
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

/* Keep the newest session where stream was told to, for the next connection. */
static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct stream_session *slot = SSL_get_app_data(ssl);

	/* A ticket may come late, when a reload has brought another context. */
	if (slot == NULL || slot->ctx != SSL_get_SSL_CTX(ssl))
		return 0;
	tls_session_bind(ssl, session);
	SSL_SESSION_free(slot->session);
	slot->session = session;
	return 1;
}

static SSL_CTX *
client_new(const struct config_upstream *cfg, struct err *err)
{
	int oldest = cfg->tls13 ? TLS1_3_VERSION : TLS1_2_VERSION;
	SSL_CTX *ctx;

	ERR_clear_error();
	if ((ctx = tls_context_new(TLS_client_method(), oldest, err)) == NULL)
		return NULL;
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (cfg->ca != NULL ? load_ca(ctx, cfg->ca, err) == -1
			    : SSL_CTX_set_default_verify_paths(ctx) != 1) {
		if (cfg->ca == NULL)
			tls_fail(err, "the store of CA certificates", "system");
		goto fail;
	}
	if (cfg->certificate != NULL && tls_load_pair(ctx, cfg->certificate, cfg->key, err) == -1)
		goto fail;
	if (SSL_CTX_set_alpn_protos(ctx, alpn_http11, sizeof(alpn_http11)) != 0) {
		tls_fail(err, "ALPN", "OpenSSL");
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

SSL_CTX *
tls_client_new(const struct config_upstream *cfg, struct err *err)
{
	SSL_CTX *ctx = client_new(cfg, err);

	if (ctx != NULL && tls_was_read_well(SSL_CTX_get_cert_store(ctx)))
		return ctx;
	SSL_CTX_free(ctx);
	return client_new(cfg, err);
}

int64_t
tls_seconds_of(const ASN1_TIME *t)
{
	struct tm tm;

	return t != NULL && ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : INT64_MAX;
}

struct tls_validity
tls_validity_any(const char *path)
{
	return (struct tls_validity){
		.path = path, .until = INT64_MAX, .near = INT64_MAX, .end = INT64_MAX
	};
}

void
tls_narrow(struct tls_validity *v, int64_t from, int64_t until, const X509_NAME *whose)
{
	int64_t third = from < until ? (until - from) / 3 : 0;
	int64_t near = until - (third < NEAR_S ? third : NEAR_S);

	if (from > v->from)
		v->from = from;
	if (until < v->until)
		v->until = until;
	if (until == INT64_MAX || near >= v->near)
		return;
	v->near = near;
	v->end = until;
	v->whose[0] = '\0';
	if (whose != NULL)
		X509_NAME_oneline(whose, v->whose, sizeof(v->whose));
}

static void
narrow_to(struct tls_validity *v, const X509 *cert)
{
	if (cert != NULL)
		tls_narrow(v, tls_seconds_of(X509_get0_notBefore(cert)),
		    tls_seconds_of(X509_get0_notAfter(cert)), X509_get_subject_name(cert));
}

struct tls_validity
tls_validity_of(SSL_CTX *ctx, const char *path)
{
	struct tls_validity v = tls_validity_any(path);
	STACK_OF(X509) *chain = NULL;

	narrow_to(&v, SSL_CTX_get0_certificate(ctx));
	SSL_CTX_get0_chain_certs(ctx, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++)
		narrow_to(&v, sk_X509_value(chain, i));
	return v;
}

struct tls_validity
tls_authorities_validity(X509_STORE *store, const char *path)
{
	STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
	struct tls_validity v = tls_validity_any(path);

	for (int i = 0; i < sk_X509_OBJECT_num(objects); i++)
		narrow_to(&v, X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i)));
	return v;
}

size_t
tls_client_validity(SSL_CTX *ctx, const struct config_upstream *cfg,
    struct tls_validity out[TLS_CLIENT_VALIDITIES_MAX])
{
	size_t n = 0;

	if (cfg->ca != NULL)
		out[n++] = tls_authorities_validity(SSL_CTX_get_cert_store(ctx), cfg->ca);
	if (cfg->certificate != NULL)
		out[n++] = tls_validity_of(ctx, cfg->certificate);
	return n;
}

void
tls_time_text(int64_t seconds, char out[TLS_TIME_SIZE])
{
	time_t t = seconds;
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL ||
	    strftime(out, TLS_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(out, TLS_TIME_SIZE, "ever");
}

/* ---- who the peer is ---- */

/* What is printed is taken: the next thing begins anew. */
static size_t
take_text(BIO *bio, char out[TLS_PEER_MAX])
{
	char *text;
	long n = BIO_get_mem_data(bio, &text);
	size_t len = n <= 0 ? 0 : n < TLS_PEER_MAX ? (size_t)n : TLS_PEER_MAX;

	if (len > 0)
		memcpy(out, text, len);
	BIO_reset(bio);
	return len;
}

/* The first of a type: 1, 0 if there is none, -1 when memory is short.  GENERAL_NAME_print writes
 * "URI:" and the like itself. */
static int
print_alternative(BIO *bio, const X509 *cert, int type)
{
	int critical, rc = 0;
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);

	if (names == NULL)
		return critical < 0 ? 0 : -1; /* none; else one that was verified */
	for (int i = 0; rc == 0 && i < sk_GENERAL_NAME_num(names); i++) {
		GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == type)
			rc = GENERAL_NAME_print(bio, name) == 1 ? 1 : -1;
	}
	GENERAL_NAMES_free(names);
	return rc;
}

static int
print_uri(BIO *bio, const X509 *cert)
{
	return print_alternative(bio, cert, GEN_URI);
}

static int
print_subject(BIO *bio, const X509 *cert)
{
	const X509_NAME *subject = X509_get_subject_name(cert);

	if (X509_NAME_entry_count(subject) == 0)
		return 0;
	return X509_NAME_print_ex(
		   bio, subject, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0
		   ? 1
		   : -1;
}

/* As the last resort: whoever was verified is somebody. */
static int
print_fingerprint(BIO *bio, const X509 *cert)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n;

	if (X509_digest(cert, EVP_sha256(), digest, &n) != 1 || BIO_puts(bio, "SHA256:") <= 0)
		return -1;
	for (unsigned i = 0; i < n; i++)
		if (BIO_printf(bio, "%02x", digest[i]) <= 0)
			return -1;
	return 1;
}

static int
print_other(BIO *bio, const X509 *cert)
{
	static const int types[] = { GEN_DNS, GEN_EMAIL, GEN_IPADD };
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof(types) / sizeof(types[0]); i++)
		rc = print_alternative(bio, cert, types[i]);
	return rc;
}

typedef int (*print_fn)(BIO *, const X509 *);

/* Workloads that share a subject differ in their URI (SPIFFE), or in another alternative name. */
static int
read_names(BIO *bio, const X509 *cert, struct tls_peer *out)
{
	static const struct {
		print_fn name, beside;
	} forms[] = {
		{ print_uri, print_subject },
		{ print_subject, print_other },
		{ print_other, NULL },
		{ print_fingerprint, NULL },
	};
	size_t i = 0;
	int rc;

	while ((rc = forms[i].name(bio, cert)) == 0)
		i++;
	out->nname = take_text(bio, out->name);
	if (rc == 1 && forms[i].beside != NULL) {
		rc = forms[i].beside(bio, cert);
		out->nother = take_text(bio, out->other);
	}
	return rc == -1 ? -1 : 0;
}

int
tls_peer_read(const SSL *ssl, struct tls_peer *out)
{
	const X509 *cert = SSL_get0_peer_certificate(ssl);
	BIO *bio;
	int rc;

	out->nname = out->nother = 0;
	if (cert == NULL || SSL_get_verify_result(ssl) != X509_V_OK)
		return 0;
	if ((bio = BIO_new(BIO_s_mem())) == NULL)
		return -1;
	rc = read_names(bio, cert, out);
	BIO_free(bio);
	return rc;
}
