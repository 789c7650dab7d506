/*
 * keys: the keys of the stand-in key service, in memory, with real wrapping.
 *
 * A root key has versions of 256 bits; wrap seals with the newest by AES-256-GCM, bound to the key,
 * the version and the caller's additional data, and the ciphertext names its version, so that
 * unwrap works after a rotation.  A standard key has a payload instead.
 */
#ifndef KMS_KEYS_H
#define KMS_KEYS_H

#include "crypto.h"

#include <jansson.h>

enum key_state { KEY_ACTIVE = 1, KEY_SUSPENDED = 2, KEY_DESTROYED = 5 };

struct key_version {
	char id[CRYPTO_UUID_SIZE];
	unsigned char secret[CRYPTO_KEY_SIZE];
	char created[32];
};

struct key {
	struct key *next;
	char id[CRYPTO_UUID_SIZE];
	char instance[CRYPTO_UUID_SIZE];
	enum key_state state;
	bool standard; /* extractable: has a payload, cannot wrap */
	bool imported;
	bool marked;	  /* set for deletion */
	char *payload;	  /* base64; standard keys */
	json_t *meta;	  /* name, description, keyRingID, aliases, dates */
	json_t *policies; /* array */
	struct key_version *versions;
	size_t nversions;
};

struct keystore {
	struct key *first;
	json_t *rings;	  /* object: instance -> array of names */
	json_t *policies; /* object: instance -> array */
	struct crypto_rsa *import_key;
	char import_nonce[25]; /* base64 of 16 bytes */
};

struct keystore *keystore_new(void);
void keystore_free(struct keystore *s);

/* By id or alias, within the instance; NULL when there is none. */
struct key *keystore_find(struct keystore *s, const char *instance, const char *name);

/* `given` has name, description, extractable, aliases.  material: NULL or what is imported. */
struct key *keystore_create(struct keystore *s, const char *instance, const char *ring,
    json_t *given, const struct bytes *material);
void keystore_remove(struct keystore *s, struct key *k);

/* 0, or -1 when imported material is not a key of 128, 192 or 256 bits. */
int key_add_version(struct key *k, const struct bytes *material);

/* What the service shows of a key: the resource of an answer. */
json_t *key_resource(const struct key *k, bool with_payload);
json_t *key_version_resource(const struct key_version *v);
void key_touch(struct key *k);

const struct key_version *key_newest(const struct key *k);

/* The caller frees; NULL when the cipher fails. */
char *key_wrap(const struct key *k, const struct bytes *aad, const struct bytes *plain);
/* 0, or -1: not ours, tampered with, or another aad. */
int key_unwrap(const struct key *k, const struct bytes *aad, const char *wrapped, size_t n,
    struct bytes *plain, const struct key_version **version);

void keys_now(char out[32]);

#endif
