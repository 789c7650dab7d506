#include "tls_internal.h"

#include "data/tickets.h"
#include "keytrail/clock.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CERTIFICATES (1 + CONFIG_CERTIFICATES_MAX)

struct certificate {
	const struct tls_server *server;
	SSL_CTX *ctx;
	GENERAL_NAMES *names; /* subject alternative names, or NULL */
	struct tls_ocsp ocsp;
};

struct tls_server {
	struct tickets *tickets;
	X509_STORE *clients; /* authorities and lists; NULL: no certificates are asked for */
	unsigned char trust[32];
	bool refuse_unknown;
	size_t n;
	struct certificate certificates[CERTIFICATES]; /* the first is the default one */
	size_t nvalidity;
	struct tlsfile_validity validity[TLS_VALIDITIES_MAX];
};

static const struct certificate *
certificate_of(const SSL *ssl)
{
	return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

bool
tls_serves(const SSL *ssl, struct slice host)
{
	const struct certificate *c = certificate_of(ssl);

	return c == c->server->certificates || tls_names_serve(c->names, host);
}

/* ---- the client's wish ---- */

/* The one that fits best, of equal ones the first; or NULL. */
static const struct certificate *
find_certificate(const struct tls_server *s, struct slice name)
{
	const struct certificate *found = NULL;
	enum tls_fit best = TLS_FIT_NONE, fit;

	for (size_t i = 0; i < s->n; i++)
		if ((fit = tls_names_fit(s->certificates[i].names, name)) > best) {
			best = fit;
			found = &s->certificates[i];
		}
	return found;
}

static int
select_certificate(SSL *ssl, int *alert, void *arg)
{
	const struct tls_server *s = certificate_of(ssl)->server;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	const struct certificate *c;

	(void)arg;
	if (name == NULL)
		return SSL_TLSEXT_ERR_NOACK;
	if ((c = find_certificate(s, slice_of(name))) != NULL) {
		SSL_set_SSL_CTX(ssl, c->ctx);
		return SSL_TLSEXT_ERR_OK;
	}
	if (!s->refuse_unknown)
		return SSL_TLSEXT_ERR_NOACK;
	*alert = SSL_AD_UNRECOGNIZED_NAME;
	return SSL_TLSEXT_ERR_ALERT_FATAL;
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
staple(SSL *ssl, void *arg)
{
	const struct tls_ocsp *ocsp = &certificate_of(ssl)->ocsp;
	unsigned char *copy;

	(void)arg;
	if (ocsp->bytes == NULL || time(NULL) >= ocsp->until)
		return SSL_TLSEXT_ERR_NOACK;
	/* OpenSSL frees what it is given. */
	if ((copy = OPENSSL_memdup(ocsp->bytes, (size_t)ocsp->len)) == NULL)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_tlsext_status_ocsp_resp(ssl, copy, ocsp->len);
	return SSL_TLSEXT_ERR_OK;
}

/* ---- sessions ---- */

static int
use_key(struct ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
    int sealing)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof(key->mac)),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){ "SHA256" }, 0),
		OSSL_PARAM_construct_end(),
	};
	bool ok =
	    EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, sealing) == 1 &&
	    EVP_MAC_CTX_set_params(mac, params) == 1;

	OPENSSL_cleanse(key, sizeof(*key));
	return ok ? 0 : -1;
}

/* As SSL_CTX_set_tlsext_ticket_key_evp_cb(3) has it: 1 go on, 2 and renew, 0 no ticket, -1 error.
 * A client of TLS 1.3 uses a ticket once (RFC 8446, C.4): it gets another each time. */
static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int sealing)
{
	struct tickets *tickets = certificate_of(ssl)->server->tickets;
	enum ticket_age age = TICKET_CURRENT;
	struct ticket_key key;

	if (sealing) {
		if (tickets_seal_key(tickets, tls_monotonic_s(), &key) == -1)
			return 0;
		memcpy(name, key.name, sizeof(key.name));
		if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1) {
			OPENSSL_cleanse(&key, sizeof(key));
			return 0;
		}
	} else if ((age = tickets_open_key(tickets, name, tls_monotonic_s(), &key)) ==
		   TICKET_UNKNOWN) {
		return 0;
	}
	if (use_key(&key, iv, cipher, mac, sealing) == -1)
		return -1;
	return age == TICKET_OLD || SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1;
}

static int
on_seal(SSL *ssl, void *arg)
{
	(void)arg;
	tls_session_bind(ssl, SSL_get_session(ssl));
	return 1;
}

static SSL_TICKET_RETURN
on_session(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t n,
    SSL_TICKET_STATUS status, void *arg)
{
	(void)ssl;
	(void)name;
	(void)n;
	(void)arg;
	if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	if (!tls_session_is_valid(session))
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

static bool
digest_store(EVP_MD_CTX *md, X509_STORE *store)
{
	STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
	unsigned char one[EVP_MAX_MD_SIZE];
	unsigned n;

	for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
		X509_OBJECT *object = sk_X509_OBJECT_value(objects, i);
		X509 *cert = X509_OBJECT_get0_X509(object);

		if ((cert != NULL ? X509_digest(cert, EVP_sha256(), one, &n)
				  : X509_CRL_digest(X509_OBJECT_get0_X509_CRL(object), EVP_sha256(),
					one, &n)) != 1 ||
		    EVP_DigestUpdate(md, one, n) != 1)
			return false;
	}
	return true;
}

/* A digest of all that decides whom we trust; without client certificates it never changes. */
static int
digest_trust(struct tls_server *s, bool optional)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char one[EVP_MAX_MD_SIZE];
	unsigned n;
	bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

	if (s->clients != NULL) {
		ok = ok && EVP_DigestUpdate(md, optional ? "o" : "r", 1) == 1 &&
		     digest_store(md, s->clients);
		for (size_t i = 0; ok && i < s->n; i++)
			ok = X509_digest(SSL_CTX_get0_certificate(s->certificates[i].ctx),
				 EVP_sha256(), one, &n) == 1 &&
			     EVP_DigestUpdate(md, one, n) == 1;
	}
	ok = ok && EVP_DigestFinal_ex(md, s->trust, NULL) == 1;
	EVP_MD_CTX_free(md);
	return ok ? 0 : -1;
}

static int
set_sessions(
    struct tls_server *s, const struct tls_server *previous, bool optional, struct err *err)
{
	if (digest_trust(s, optional) == -1)
		return tlsfile_fail(err, "a context of sessions", "OpenSSL");
	if (previous != NULL && memcmp(previous->trust, s->trust, sizeof(s->trust)) == 0)
		s->tickets = tickets_ref(previous->tickets);
	else if ((s->tickets = tickets_new(tls_monotonic_s(), err)) == NULL)
		return -1;
	for (size_t i = 0; i < s->n; i++)
		if (SSL_CTX_set_session_id_context(
			s->certificates[i].ctx, s->trust, sizeof(s->trust)) != 1)
			return tlsfile_fail(err, "a context of sessions", "OpenSSL");
	return 0;
}

/* ---- client certificates ---- */

static void
add_validity(struct tls_server *s, struct tlsfile_validity v)
{
	assert(s->nvalidity < TLS_VALIDITIES_MAX);
	s->validity[s->nvalidity++] = v;
}

static void
note_clients_validity(struct tls_server *s, const struct config_listen *cfg)
{
	STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(s->clients);
	struct tlsfile_validity crl = tlsfile_validity_any(cfg->client_crl);

	add_validity(s, tlsfile_validity_of_store(s->clients, cfg->client_ca));
	for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
		const X509_CRL *list = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));

		if (list != NULL)
			tlsfile_narrow(&crl, tlsfile_seconds_of(X509_CRL_get0_lastUpdate(list)),
			    tlsfile_seconds_of(X509_CRL_get0_nextUpdate(list)),
			    X509_CRL_get_issuer(list));
	}
	if (crl.path != NULL)
		add_validity(s, crl);
}

/* A list is wanted of who issued to the client; of the authorities above only where there is one. */
static int
on_verify(int ok, X509_STORE_CTX *store)
{
	if (ok || X509_STORE_CTX_get_error(store) != X509_V_ERR_UNABLE_TO_GET_CRL ||
	    X509_STORE_CTX_get_error_depth(store) == 0)
		return ok;
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

static int
load_crl(X509_STORE *store, const char *path, struct err *err)
{
	X509_LOOKUP *lookup;

	if (tlsfile_check_readable("revocation lists", path, err) == -1)
		return -1;
	if ((lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file())) == NULL ||
	    X509_load_crl_file(lookup, path, X509_FILETYPE_PEM) <= 0)
		return tlsfile_fail(err, "revocation lists in PEM", path);
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	X509_STORE_set_verify_cb(store, on_verify);
	return 0;
}

static int
load_clients(struct tls_server *s, const struct config_listen *cfg, struct err *err)
{
	if (tlsfile_check_readable("CA certificates", cfg->client_ca, err) == -1)
		return -1;
	if ((s->clients = X509_STORE_new()) == NULL ||
	    X509_STORE_load_file(s->clients, cfg->client_ca) != 1)
		return tlsfile_fail(err, "CA certificates in PEM", cfg->client_ca);
	if (cfg->client_crl != NULL && load_crl(s->clients, cfg->client_crl, err) == -1)
		return -1;
	note_clients_validity(s, cfg);
	return 0;
}

/* ---- composition ---- */

static int
ask_for_certificates(
    SSL_CTX *ctx, const struct tls_server *s, const struct config_listen *cfg, struct err *err)
{
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(cfg->client_ca);

	if (names == NULL)
		return tlsfile_fail(err, "CA certificates in PEM", cfg->client_ca);
	SSL_CTX_set1_cert_store(ctx, s->clients);
	SSL_CTX_set_client_CA_list(ctx, names);
	SSL_CTX_set_verify(ctx,
	    SSL_VERIFY_PEER | (cfg->client_optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
	return 0;
}

static void
set_callbacks(SSL_CTX *ctx)
{
	SSL_CTX_set_tlsext_servername_callback(ctx, select_certificate);
	SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
	SSL_CTX_set_tlsext_status_cb(ctx, staple);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
	SSL_CTX_set_session_ticket_cb(ctx, on_seal, on_session, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_timeout(ctx, TICKETS_LIFETIME_S);
	SSL_CTX_set_num_tickets(ctx, 1);
}

static int
load_certificate(struct tls_server *s, const struct config_certificate *files, struct err *err)
{
	struct certificate *c = &s->certificates[s->n++];
	struct tlsfile_validity ocsp = tlsfile_validity_any(files->ocsp);

	c->server = s;
	if ((c->ctx = tlsfile_context(TLS_server_method(), TLS1_2_VERSION, err)) == NULL ||
	    tlsfile_load_pair(c->ctx, files->certificate, files->key, err) == -1)
		return -1;
	if (SSL_CTX_set_app_data(c->ctx, c) != 1)
		return tlsfile_fail(err, "a TLS context", "OpenSSL");
	set_callbacks(c->ctx);
	c->names =
	    X509_get_ext_d2i(SSL_CTX_get0_certificate(c->ctx), NID_subject_alt_name, NULL, NULL);
	if (s->n > 1 && !tls_has_dns_name(c->names))
		return err_set(err, "%s: the certificate has no DNS name to be asked for by",
		    files->certificate);
	add_validity(s, tlsfile_validity_of(c->ctx, files->certificate));
	if (files->ocsp == NULL)
		return 0;
	if (tls_ocsp_read(files->ocsp, c->ctx, &c->ocsp, err) == -1)
		return -1;
	tlsfile_narrow(&ocsp, c->ocsp.from, c->ocsp.until, NULL);
	add_validity(s, ocsp);
	return 0;
}

static struct tls_server *
server_new(const struct config_listen *cfg, const struct tls_server *previous, struct err *err)
{
	struct tls_server *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		err_set(err, "memory is short");
		return NULL;
	}
	ERR_clear_error();
	s->refuse_unknown = cfg->refuse_unknown;
	if (load_certificate(s, &cfg->own, err) == -1)
		goto fail;
	for (size_t i = 0; i < cfg->ncertificates; i++)
		if (load_certificate(s, &cfg->certificates[i], err) == -1)
			goto fail;
	if (cfg->client_ca != NULL && load_clients(s, cfg, err) == -1)
		goto fail;
	for (size_t i = 0; s->clients != NULL && i < s->n; i++)
		if (ask_for_certificates(s->certificates[i].ctx, s, cfg, err) == -1)
			goto fail;
	if (set_sessions(s, previous, cfg->client_optional, err) == -1)
		goto fail;
	return s;
fail:
	tls_server_free(s);
	return NULL;
}

struct tls_server *
tls_server_new(const struct config_listen *cfg, const struct tls_server *previous, struct err *err)
{
	struct tls_server *s = server_new(cfg, previous, err);

	if (s == NULL || !tlsfile_was_read_well(SSL_CTX_get_cert_store(tls_server_context(s)))) {
		tls_server_free(s);
		s = server_new(cfg, previous, err);
	}
	if (s != NULL && !tls_shakes_hands(tls_server_context(s)) &&
	    !tls_shakes_hands(tls_server_context(s))) {
		err_set(
		    err, "%s: no handshake is possible, or memory is short", cfg->own.certificate);
		tls_server_free(s);
		s = NULL;
	}
	ERR_clear_error();
	return s;
}

void
tls_server_free(struct tls_server *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n; i++) {
		SSL_CTX_free(s->certificates[i].ctx);
		GENERAL_NAMES_free(s->certificates[i].names);
		OPENSSL_free(s->certificates[i].ocsp.bytes);
	}
	X509_STORE_free(s->clients);
	tickets_unref(s->tickets);
	free(s);
}

SSL_CTX *
tls_server_context(const struct tls_server *s)
{
	return s->certificates[0].ctx;
}

const struct tlsfile_validity *
tls_server_validity(const struct tls_server *s, size_t *n)
{
	*n = s->nvalidity;
	return s->validity;
}
