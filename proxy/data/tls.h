/*
 * tls: OpenSSL contexts made from the configuration, for both sides.
 *
 * TLS 1.2 and 1.3 (RFC 5246, RFC 8446), AEAD suites with forward secrecy only, no renegotiation, no
 * early data, no compression; ALPN (RFC 7301) "http/1.1", from clients also "http/1.0".  A context
 * is shared by all workers: its tickets (RFC 5077) are sealed with one key, so that a session is
 * resumed on any of them.
 * Main thread; the contexts themselves may be used by any.
 */
#ifndef KEYTRAIL_PROXY_TLS_H
#define KEYTRAIL_PROXY_TLS_H

#include "keytrail/config.h"
#include "keytrail/err.h"

#include <openssl/ssl.h>

/* Certificates and keys are read and matched.  `previous` (or NULL) hands its ticket keys on, so
 * that sessions survive a reload, unless client_ca has become another.  Errors name the file. */
SSL_CTX *tls_server_new(const struct config_listen *cfg, SSL_CTX *previous, struct err *err);

/* Verifies the key service's chain (the host name is set a connection, by stream). */
SSL_CTX *tls_client_new(const struct config_upstream *cfg, struct err *err);

/* notAfter of the context's certificate in seconds since 1970; 0 when there is none. */
int64_t tls_not_after(const SSL_CTX *ctx);

/* Subject of the peer's verified certificate as RFC 2253 text in UTF-8: the length, 0 if none. */
size_t tls_peer_subject(const SSL *ssl, char *out, size_t cap);

#endif
