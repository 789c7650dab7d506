/*
 * tls: OpenSSL contexts made from the configuration, for both sides.
 *
 * TLS 1.2 and 1.3 (RFC 5246, RFC 8446), AEAD suites with forward secrecy only, no renegotiation, no
 * early data, no compression; ALPN (RFC 7301) "http/1.1", from clients also "http/1.0".
 *
 * Clients are shown the certificate of the name that they ask for (SNI, RFC 6066 section 3), else
 * the default one; an OCSP response (RFC 6960) is stapled until its nextUpdate.  Their own
 * certificate is verified against client_ca and client_crl, the key service's against upstream's ca,
 * at each full handshake; a session is resumed only while the certificates and lists that its peer
 * was verified by are still valid, for 12 hours at most, and not across a change of any.
 *
 * Made by the main thread; what is made never changes and may be used by any.
 */
#ifndef KEYTRAIL_PROXY_TLS_H
#define KEYTRAIL_PROXY_TLS_H

#include "keytrail/config.h"
#include "keytrail/err.h"

#include <openssl/ssl.h>

#define TLS_VALIDITIES_MAX (2 * (1 + CONFIG_CERTIFICATES_MAX) + 2)

#define TLS_WHOSE_SIZE	   128

struct tls_server; /* what clients are shown, and what they have to show */

/* From when to when the content of a file is good, in seconds since 1970.  A file of many things is
 * as good as the first of them that ends. */
struct tls_validity {
	const char *path;
	int64_t from, until; /* until INT64_MAX: it has no end */
	/* The one of them whose end is near first, a third of its time or 30 days before: */
	int64_t near, end;
	char whose[TLS_WHOSE_SIZE]; /* its subject, a list's issuer; empty: a response */
};

/*
 * Certificates and keys are read and matched.  `previous` (or NULL) hands its ticket keys on, so
 * that sessions survive a reload, unless clients are now asked for something else.  Errors name the
 * file.  cfg is borrowed until the free, which comes after that of every SSL made of it.
 */
struct tls_server *tls_server_new(
    const struct config_listen *cfg, const struct tls_server *previous, struct err *err);
void tls_server_free(struct tls_server *s); /* NULL is allowed */

/* For SSL_new; borrowed. */
SSL_CTX *tls_server_context(const struct tls_server *s);

/* Of all its files but the keys; n of them, at most TLS_VALIDITIES_MAX. */
const struct tls_validity *tls_server_validity(const struct tls_server *s, size_t *n);

/* Is this request's Host (with or without port) one that the connection's certificate is for?  The
 * default certificate is for all, and every one for numeric addresses. */
bool tls_serves(const SSL *ssl, struct slice host);

/* Verifies the key service's chain (the host name is set a connection, by stream). */
SSL_CTX *tls_client_new(const struct config_upstream *cfg, struct err *err);

/* Before a connection: drop the session if the key service has to be verified again. */
struct stream_session;
void tls_session_check(struct stream_session *slot);

/* Of the same files but the key, of a context that was made of cfg and is not in use yet; how many. */
#define TLS_CLIENT_VALIDITIES_MAX 2
size_t tls_client_validity(SSL_CTX *ctx, const struct config_upstream *cfg,
    struct tls_validity out[TLS_CLIENT_VALIDITIES_MAX]);

#define TLS_TIME_SIZE 32

/* "2026-11-22T21:00:00Z", or "ever" for INT64_MAX. */
void tls_time_text(int64_t seconds, char out[TLS_TIME_SIZE]);

/* Of the context's certificate and those that it is sent with, which were read from path; without
 * one it has no end. */
struct tls_validity tls_validity_of(SSL_CTX *ctx, const char *path);

/*
 * Who the peer's verified certificate says it is, in UTF-8: its first URI of the subject alternative
 * names as "URI:...", else its subject as RFC 2253 text, else its first DNS name, e-mail or IP address
 * as "DNS:...", "email:..." or "IP Address:...", else "SHA256:..." of it.  Beside a URI the subject,
 * beside a subject the next of these.  Nothing: there is no certificate.  -1: memory is short.
 */
#define TLS_PEER_MAX 256
struct tls_peer {
	size_t nname, nother;
	char name[TLS_PEER_MAX], other[TLS_PEER_MAX];
};
int tls_peer_read(const SSL *ssl, struct tls_peer *out);

#endif
