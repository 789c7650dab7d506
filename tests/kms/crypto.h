/*
 * crypto: the primitives of the stand-in key service: base64, AES-256-GCM, random identifiers and
 * RSA-OAEP for import tokens.
 */
#ifndef KMS_CRYPTO_H
#define KMS_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>

#define CRYPTO_KEY_SIZE	 32
#define CRYPTO_IV_SIZE	 12
#define CRYPTO_TAG_SIZE	 16
#define CRYPTO_UUID_SIZE 37

struct bytes { /* owned; NULL when there are none */
	unsigned char *p;
	size_t n;
};

void bytes_free(struct bytes *b); /* wipes */

/* Standard alphabet with padding; the caller frees. */
char *crypto_b64_encode(const unsigned char *p, size_t n);

/* 0 and *out is the caller's, or -1.  url: RFC 4648 section 5 without padding. */
int crypto_b64_decode(const char *s, size_t n, bool url, struct bytes *out);

/* out has room for in.n bytes. */
int crypto_seal(const unsigned char key[CRYPTO_KEY_SIZE], const unsigned char iv[CRYPTO_IV_SIZE],
    const struct bytes *aad, const struct bytes *in, unsigned char *out,
    unsigned char tag[CRYPTO_TAG_SIZE]);
int crypto_open(const unsigned char *key, size_t keylen, const unsigned char iv[CRYPTO_IV_SIZE],
    const struct bytes *aad, const struct bytes *in, unsigned char *out,
    const unsigned char tag[CRYPTO_TAG_SIZE]);

void crypto_random(void *p, size_t n);
void crypto_uuid4(char out[CRYPTO_UUID_SIZE]);
bool crypto_is_uuid(const char *s);
void crypto_sha256_hex(const void *p, size_t n, char out[65]);

/* A one-time RSA key pair: its public half as base64 of PEM, and OAEP (SHA-256) decryption. */
struct crypto_rsa;
struct crypto_rsa *crypto_rsa_new(void);
void crypto_rsa_free(struct crypto_rsa *r);
char *crypto_rsa_public(const struct crypto_rsa *r);
int crypto_rsa_open(const struct crypto_rsa *r, const struct bytes *in, struct bytes *out);

#endif
