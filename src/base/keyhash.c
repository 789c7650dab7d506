#include "keytrail/keyhash.h"

#include <openssl/evp.h>
#include <openssl/modes.h>

#include <stdlib.h>

#define BLOCK 16

struct keyhash {
	EVP_CIPHER_CTX *cipher;
	GCM128_CONTEXT *gcm;
};

static void
encrypt(const unsigned char in[BLOCK], unsigned char out[BLOCK], const void *cipher)
{
	int n;

	/* Of a whole block without padding it cannot fail. */
	EVP_EncryptUpdate((EVP_CIPHER_CTX *)(uintptr_t)cipher, out, &n, in, BLOCK);
}

struct keyhash *
keyhash_new(const unsigned char key[KEYHASH_KEY_SIZE])
{
	struct keyhash *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return NULL;
	if ((h->cipher = EVP_CIPHER_CTX_new()) == NULL ||
	    EVP_EncryptInit_ex(h->cipher, EVP_aes_128_ecb(), NULL, key, NULL) != 1 ||
	    EVP_CIPHER_CTX_set_padding(h->cipher, 0) != 1 ||
	    (h->gcm = CRYPTO_gcm128_new(h->cipher, encrypt)) == NULL) {
		keyhash_free(h);
		return NULL;
	}
	return h;
}

void
keyhash_free(struct keyhash *h)
{
	if (h == NULL)
		return;
	CRYPTO_gcm128_release(h->gcm);
	EVP_CIPHER_CTX_free(h->cipher);
	free(h);
}

void
keyhash(struct keyhash *h, struct slice text, uint64_t out[2])
{
	static const unsigned char nonce[12];
	unsigned char tag[BLOCK];

	CRYPTO_gcm128_setiv(h->gcm, nonce, sizeof(nonce));
	CRYPTO_gcm128_aad(h->gcm, (const unsigned char *)text.p, text.n);
	CRYPTO_gcm128_tag(h->gcm, tag, sizeof(tag));
	encrypt(tag, (unsigned char *)out, h->cipher);
}
