#include "tls_internal.h"

#include "data/stream.h"

#include <openssl/x509v3.h>

#include <string.h>

static const unsigned char alpn_http11[] = { 8, 'h', 't', 't', 'p', '/', '1', '.', '1' };

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

SSL_CTX *
tls_client_new(const struct config_tls *cfg, struct err *err)
{
	SSL_CTX *ctx = tlsfile_client(cfg, err);

	if (ctx == NULL)
		return NULL;
	if (SSL_CTX_set_alpn_protos(ctx, alpn_http11, sizeof(alpn_http11)) != 0) {
		tlsfile_fail(err, "ALPN", "OpenSSL");
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(
	    ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(ctx, keep_session);
	return ctx;
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
