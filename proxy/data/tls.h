/*
 * tls: OpenSSL contexts made from the configuration, for both sides (tlsfile.h).
 *
 * No early data; ALPN (RFC 7301) "http/1.1", from clients also "http/1.0".
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
#include "keytrail/tlsfile.h"

#define TLS_VALIDITIES_MAX (2 * (1 + CONFIG_CERTIFICATES_MAX) + 2)

struct tls_server; /* what clients are shown, and what they have to show */

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
const struct tlsfile_validity *tls_server_validity(const struct tls_server *s, size_t *n);

/* Is this request's Host (with or without port) one that the connection's certificate is for?  The
 * default certificate is for all, and every one for numeric addresses. */
bool tls_serves(const SSL *ssl, struct slice host);

/* Verifies the key service's chain (the host name is set a connection, by stream). */
SSL_CTX *tls_client_new(const struct config_tls *cfg, struct err *err);

/* Before a connection: drop the session if the key service has to be verified again. */
struct stream_session;
void tls_session_check(struct stream_session *slot);

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
