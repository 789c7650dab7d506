#include "crypto.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
bytes_free(struct bytes *b)
{
	if (b->p != NULL)
		OPENSSL_cleanse(b->p, b->n);
	free(b->p);
	*b = (struct bytes){ NULL, 0 };
}

char *
crypto_b64_encode(const unsigned char *p, size_t n)
{
	char *out = malloc(4 * ((n + 2) / 3) + 1);

	if (out != NULL)
		EVP_EncodeBlock((unsigned char *)out, p, (int)n);
	return out;
}

/* The standard alphabet with padding, whatever came; NULL when a character is in neither. */
static char *
b64_normalise(const char *s, size_t n, bool url, size_t *len)
{
	size_t padded = url ? (n + 3) / 4 * 4 : n;
	const char *extra = url ? "-_" : "+/=";
	char *out;

	if ((url ? n % 4 == 1 : n % 4 != 0) || (out = malloc(padded + 1)) == NULL)
		return NULL;
	for (size_t i = 0; i < padded; i++) {
		char c = i < n ? s[i] : '=';
		if (i < n && !isalnum((unsigned char)c) && strchr(extra, c) == NULL) {
			free(out);
			return NULL;
		}
		out[i] = c == '-' ? '+' : c == '_' ? '/' : c;
	}
	out[padded] = '\0';
	*len = padded;
	return out;
}

int
crypto_b64_decode(const char *s, size_t n, bool url, struct bytes *out)
{
	size_t len = 0;
	char *std = b64_normalise(s, n, url, &len), *again = NULL;
	struct bytes b = { NULL, 0 };
	int got;

	if (std == NULL || (b.p = malloc(len / 4 * 3 + 1)) == NULL)
		goto fail;
	if ((got = EVP_DecodeBlock(b.p, (const unsigned char *)std, (int)len)) < 0)
		goto fail;
	b.n = (size_t)got;
	for (size_t i = 0; i < 2 && i < len && std[len - 1 - i] == '='; i++)
		b.n--;
	/* One text for each value: what OpenSSL tolerates is not what was encoded. */
	if ((again = crypto_b64_encode(b.p, b.n)) == NULL || strcmp(again, std) != 0)
		goto fail;
	free(again);
	free(std);
	*out = b;
	return 0;
fail:
	free(again);
	free(std);
	bytes_free(&b);
	return -1;
}

int
crypto_seal(const unsigned char key[CRYPTO_KEY_SIZE], const unsigned char iv[CRYPTO_IV_SIZE],
    const struct bytes *aad, const struct bytes *in, unsigned char *out,
    unsigned char tag[CRYPTO_TAG_SIZE])
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;
	bool ok;

	ok = ctx != NULL && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv) == 1 &&
	     EVP_EncryptUpdate(ctx, NULL, &n, aad->p, (int)aad->n) == 1 &&
	     EVP_EncryptUpdate(ctx, out, &n, in->p, (int)in->n) == 1 &&
	     EVP_EncryptFinal_ex(ctx, out + n, &n) == 1 &&
	     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, CRYPTO_TAG_SIZE, tag) == 1;
	EVP_CIPHER_CTX_free(ctx);
	return ok ? 0 : -1;
}

static const EVP_CIPHER *
gcm_of(size_t keylen)
{
	return keylen == 16   ? EVP_aes_128_gcm()
	       : keylen == 24 ? EVP_aes_192_gcm()
	       : keylen == 32 ? EVP_aes_256_gcm()
			      : NULL;
}

int
crypto_open(const unsigned char *key, size_t keylen, const unsigned char iv[CRYPTO_IV_SIZE],
    const struct bytes *aad, const struct bytes *in, unsigned char *out,
    const unsigned char tag[CRYPTO_TAG_SIZE])
{
	const EVP_CIPHER *cipher = gcm_of(keylen);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	unsigned char want[CRYPTO_TAG_SIZE];
	int n;
	bool ok;

	memcpy(want, tag, sizeof(want));
	ok = ctx != NULL && cipher != NULL && EVP_DecryptInit_ex(ctx, cipher, NULL, key, iv) == 1 &&
	     EVP_DecryptUpdate(ctx, NULL, &n, aad->p, (int)aad->n) == 1 &&
	     EVP_DecryptUpdate(ctx, out, &n, in->p, (int)in->n) == 1 &&
	     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, CRYPTO_TAG_SIZE, want) == 1 &&
	     EVP_DecryptFinal_ex(ctx, out + n, &n) == 1;
	EVP_CIPHER_CTX_free(ctx);
	return ok ? 0 : -1;
}

void
crypto_random(void *p, size_t n)
{
	if (RAND_bytes(p, (int)n) != 1)
		abort();
}

void
crypto_uuid4(char out[CRYPTO_UUID_SIZE])
{
	unsigned char r[16];
	char *o = out;

	crypto_random(r, sizeof(r));
	r[6] = (unsigned char)((r[6] & 0x0f) | 0x40);
	r[8] = (unsigned char)((r[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof(r); i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*o++ = '-';
		o += snprintf(o, 3, "%02x", r[i]);
	}
}

bool
crypto_is_uuid(const char *s)
{
	for (size_t i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return s[36] == '\0';
}

void
crypto_sha256_hex(const void *p, size_t n, char out[65])
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (EVP_Digest(p, n, md, &len, EVP_sha256(), NULL) != 1)
		abort();
	for (unsigned i = 0; i < len; i++)
		snprintf(out + 2 * (size_t)i, 3, "%02x", md[i]);
}

struct crypto_rsa {
	EVP_PKEY *pkey;
};

struct crypto_rsa *
crypto_rsa_new(void)
{
	struct crypto_rsa *r = calloc(1, sizeof(*r));

	if (r != NULL && (r->pkey = EVP_RSA_gen(2048)) == NULL) {
		free(r);
		return NULL;
	}
	return r;
}

void
crypto_rsa_free(struct crypto_rsa *r)
{
	if (r != NULL)
		EVP_PKEY_free(r->pkey);
	free(r);
}

char *
crypto_rsa_public(const struct crypto_rsa *r)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *pem = NULL, *out = NULL;
	long n;

	if (bio != NULL && PEM_write_bio_PUBKEY(bio, r->pkey) == 1 &&
	    (n = BIO_get_mem_data(bio, &pem)) > 0)
		out = crypto_b64_encode((unsigned char *)pem, (size_t)n);
	BIO_free(bio);
	return out;
}

int
crypto_rsa_open(const struct crypto_rsa *r, const struct bytes *in, struct bytes *out)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(r->pkey, NULL);
	size_t n = (size_t)EVP_PKEY_get_size(r->pkey);
	unsigned char *p = malloc(n);
	bool ok;

	ok = ctx != NULL && p != NULL && EVP_PKEY_decrypt_init(ctx) == 1 &&
	     EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
	     EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) == 1 &&
	     EVP_PKEY_decrypt(ctx, p, &n, in->p, in->n) == 1;
	EVP_PKEY_CTX_free(ctx);
	if (!ok) {
		free(p);
		return -1;
	}
	*out = (struct bytes){ p, n };
	return 0;
}
