#include "keytrail/tlsfile.h"

#include "keytrail/file.h"
#include "keytrail/records.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
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

/* OpenSSL tells what it could not do for want of memory as if the file were to blame. */
static bool
memory_is_short(void)
{
	void *probe = OPENSSL_malloc(1);

	OPENSSL_free(probe);
	return probe == NULL;
}

int
tlsfile_fail(struct err *err, const char *what, const char *path)
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
tlsfile_was_read_well(const X509_STORE *store)
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
tlsfile_check_readable(const char *what, const char *path, struct err *err)
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
tlsfile_load_pair(SSL_CTX *ctx, const char *certificate, const char *key, struct err *err)
{
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (tlsfile_check_readable("certificate", certificate, err) == -1 ||
	    tlsfile_check_readable("private key", key, err) == -1)
		return -1;
	if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1)
		return tlsfile_fail(err, "a certificate chain in PEM", certificate);
	/* The key of another certificate is told from a file that is no key. */
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
		if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH) {
			ERR_clear_error();
			return err_set(err, "%s: is not the private key of the certificate %s", key,
			    certificate);
		}
		return tlsfile_fail(err, "an unencrypted private key in PEM", key);
	}
	if (SSL_CTX_check_private_key(ctx) != 1)
		return err_set(
		    err, "%s: is not the private key of the certificate %s", key, certificate);
	return 0;
}

static int
load_ca(SSL_CTX *ctx, const char *path, struct err *err)
{
	if (tlsfile_check_readable("CA certificates", path, err) == -1)
		return -1;
	if (SSL_CTX_load_verify_file(ctx, path) != 1)
		return tlsfile_fail(err, "CA certificates in PEM", path);
	return 0;
}

SSL_CTX *
tlsfile_context(const SSL_METHOD *method, int min_version, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, min_version) != 1 ||
	    SSL_CTX_set_cipher_list(ctx, TLS12_CIPHERS) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, TLS13_CIPHERS) != 1) {
		tlsfile_fail(err, "a TLS context", "OpenSSL");
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

static SSL_CTX *
client_new(const struct config_tls *cfg, struct err *err)
{
	int oldest = cfg->tls13 ? TLS1_3_VERSION : TLS1_2_VERSION;
	SSL_CTX *ctx;

	ERR_clear_error();
	if ((ctx = tlsfile_context(TLS_client_method(), oldest, err)) == NULL)
		return NULL;
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (cfg->ca != NULL ? load_ca(ctx, cfg->ca, err) == -1
			    : SSL_CTX_set_default_verify_paths(ctx) != 1) {
		if (cfg->ca == NULL)
			tlsfile_fail(err, "the store of CA certificates", "system");
		goto fail;
	}
	if (cfg->certificate != NULL &&
	    tlsfile_load_pair(ctx, cfg->certificate, cfg->key, err) == -1)
		goto fail;
	return ctx;
fail:
	SSL_CTX_free(ctx);
	return NULL;
}

SSL_CTX *
tlsfile_client(const struct config_tls *cfg, struct err *err)
{
	SSL_CTX *ctx = client_new(cfg, err);

	if (ctx != NULL && tlsfile_was_read_well(SSL_CTX_get_cert_store(ctx)))
		return ctx;
	SSL_CTX_free(ctx);
	return client_new(cfg, err);
}

void
tlsfile_stamp(uint64_t *stamp, const struct config_tls *cfg)
{
	file_stamp(stamp, cfg->ca);
	file_stamp(stamp, cfg->certificate);
	file_stamp(stamp, cfg->key);
}

bool
tlsfile_expect(SSL *ssl, const char *name)
{
	unsigned char address[16];
	/* OpenSSL copies the name, but its macro casts const away. */
	char *sni = (char *)(uintptr_t)name;

	SSL_set_hostflags(
	    ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
	return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, sni) == 1;
}

/* ---- until when ---- */

int64_t
tlsfile_seconds_of(const ASN1_TIME *t)
{
	struct tm tm;

	return t != NULL && ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : INT64_MAX;
}

struct tlsfile_validity
tlsfile_validity_any(const char *path)
{
	return (struct tlsfile_validity){
		.path = path, .until = INT64_MAX, .near = INT64_MAX, .end = INT64_MAX
	};
}

void
tlsfile_narrow(struct tlsfile_validity *v, int64_t from, int64_t until, const X509_NAME *whose)
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
narrow_to(struct tlsfile_validity *v, const X509 *cert)
{
	if (cert != NULL)
		tlsfile_narrow(v, tlsfile_seconds_of(X509_get0_notBefore(cert)),
		    tlsfile_seconds_of(X509_get0_notAfter(cert)), X509_get_subject_name(cert));
}

struct tlsfile_validity
tlsfile_validity_of(SSL_CTX *ctx, const char *path)
{
	struct tlsfile_validity v = tlsfile_validity_any(path);
	STACK_OF(X509) *chain = NULL;

	narrow_to(&v, SSL_CTX_get0_certificate(ctx));
	SSL_CTX_get0_chain_certs(ctx, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++)
		narrow_to(&v, sk_X509_value(chain, i));
	return v;
}

struct tlsfile_validity
tlsfile_validity_of_store(X509_STORE *store, const char *path)
{
	STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
	struct tlsfile_validity v = tlsfile_validity_any(path);

	for (int i = 0; i < sk_X509_OBJECT_num(objects); i++)
		narrow_to(&v, X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i)));
	return v;
}

size_t
tlsfile_validity_of_client(
    SSL_CTX *ctx, const struct config_tls *cfg, struct tlsfile_validity out[TLSFILE_CLIENT_MAX])
{
	size_t n = 0;

	if (cfg->ca != NULL)
		out[n++] = tlsfile_validity_of_store(SSL_CTX_get_cert_store(ctx), cfg->ca);
	if (cfg->certificate != NULL)
		out[n++] = tlsfile_validity_of(ctx, cfg->certificate);
	return n;
}

void
tlsfile_time_text(int64_t seconds, char out[TLSFILE_TIME_SIZE])
{
	time_t t = seconds;
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL ||
	    strftime(out, TLSFILE_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(out, TLSFILE_TIME_SIZE, "ever");
}
