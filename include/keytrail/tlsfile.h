/*
 * tlsfile: OpenSSL contexts from files, and until when these are good.
 *
 * TLS 1.2 and 1.3 (RFC 5246, RFC 8446), AEAD suites with forward secrecy only, no renegotiation, no
 * compression.  What is made never changes and may be used by any thread; errors name the file.
 */
#ifndef KEYTRAIL_TLSFILE_H
#define KEYTRAIL_TLSFILE_H

#include "keytrail/config.h"
#include "keytrail/err.h"

#include <openssl/ssl.h>

SSL_CTX *tlsfile_context(const SSL_METHOD *method, int min_version, struct err *err);

/* Verifies the peer's chain; that the certificate is for the peer's name is asked for a connection. */
SSL_CTX *tlsfile_client(const struct config_tls *cfg, struct err *err);

/* As file_stamp, of all its files. */
void tlsfile_stamp(uint64_t *stamp, const struct config_tls *cfg);

/* The name is sent as SNI and verified (RFC 6125); a numeric address is verified only, since SNI
 * may not hold one (RFC 6066 section 3).  false: memory is short. */
bool tlsfile_expect(SSL *ssl, const char *name);

int tlsfile_load_pair(SSL_CTX *ctx, const char *certificate, const char *key, struct err *err);

/* OpenSSL's message for a missing file is hard to read; errno's is not. */
int tlsfile_check_readable(const char *what, const char *path, struct err *err);

/* -1; err tells OpenSSL's reason why the file cannot be used as what it should be. */
int tlsfile_fail(struct err *err, const char *what, const char *path);

/*
 * OpenSSL forgives itself an allocation that fails while it reads a file: a CA is then taken for
 * less than it is, for as long as it is held.  But it leaves an error in the queue, which was empty
 * before; as it does of a CA whose key it does not know.  So what failed, or was not read well, is
 * read once more: what fails twice is the file's fault.
 */
bool tlsfile_was_read_well(const X509_STORE *store);

/* ---- until when ---- */

#define TLSFILE_WHOSE_SIZE 128

/* From when to when the content of a file is good, in seconds since 1970.  A file of many things is
 * as good as the first of them that ends. */
struct tlsfile_validity {
	const char *path;
	int64_t from, until; /* until INT64_MAX: it has no end */
	/* The one of them whose end is near first, a third of its time or 30 days before: */
	int64_t near, end;
	char whose[TLSFILE_WHOSE_SIZE]; /* its subject, a list's issuer; empty: a response */
};

/* Of a file of which nothing was seen so far. */
struct tlsfile_validity tlsfile_validity_any(const char *path);
/* The validity is within these. */
void tlsfile_narrow(
    struct tlsfile_validity *v, int64_t from, int64_t until, const X509_NAME *whose);

/* Of the context's certificate and those that it is sent with, which were read from path; without
 * one it has no end. */
struct tlsfile_validity tlsfile_validity_of(SSL_CTX *ctx, const char *path);
/* Of the certificates in it. */
struct tlsfile_validity tlsfile_validity_of_store(X509_STORE *store, const char *path);

/* Of all files but the key of a context that was made of cfg and is not in use yet; how many. */
#define TLSFILE_CLIENT_MAX 2
size_t tlsfile_validity_of_client(
    SSL_CTX *ctx, const struct config_tls *cfg, struct tlsfile_validity out[TLSFILE_CLIENT_MAX]);

/* Seconds since 1970; INT64_MAX for NULL. */
int64_t tlsfile_seconds_of(const ASN1_TIME *t);

/* "2026-11-22T21:00:00Z", or "ever" for INT64_MAX. */
#define TLSFILE_TIME_SIZE 32
void tlsfile_time_text(int64_t seconds, char out[TLSFILE_TIME_SIZE]);

#endif
