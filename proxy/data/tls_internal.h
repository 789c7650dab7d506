/* tls_internal: what the files of tls share: tls.c makes the client's context, tls_server.c the
 * server's, tls_session.c says how long a session of either may be resumed, tls_names.c whom a
 * certificate is for, tls_ocsp.c reads a stapled response, tls_try.c tries what was made. */
#ifndef KEYTRAIL_PROXY_TLS_INTERNAL_H
#define KEYTRAIL_PROXY_TLS_INTERNAL_H

#include "data/tls.h"

#include <openssl/x509v3.h>

/* OpenSSL makes what it is made of at the first need and but once, and goes on without that for which
 * memory was short; then every handshake fails. */
bool tls_shakes_hands(SSL_CTX *server);

int64_t tls_monotonic_s(void);

/* Note in a new session what its peer was verified by; one that comes of another has it already. */
void tls_session_bind(SSL *ssl, SSL_SESSION *session);
bool tls_session_is_valid(SSL_SESSION *session);

/* An OCSP response in DER.  bytes NULL: none. */
struct tls_ocsp {
	unsigned char *bytes;
	int len;
	int64_t from, until;
};

/* Read the response and check that it speaks of this context's certificate.  bytes are the caller's to
 * free. */
int tls_ocsp_read(const char *path, SSL_CTX *ctx, struct tls_ocsp *out, struct err *err);

/* How well a certificate's subject alternative names fit. */
enum tls_fit { TLS_FIT_NONE, TLS_FIT_WILDCARD, TLS_FIT_EXACT };

enum tls_fit tls_names_fit(const GENERAL_NAMES *names, struct slice host);
bool tls_has_dns_name(const GENERAL_NAMES *names);

/* Whether a request to this host (as in Host, with or without a port) may come over a connection with
 * these names; to an IP address it always may. */
bool tls_names_serve(const GENERAL_NAMES *names, struct slice host);

#endif
