#include "api.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *
api_error(int status, const char *code, const char *message)
{
	char text[512];

	snprintf(text, sizeof(text), "%s: %s",
	    status == 401   ? "Unauthorized"
	    : status == 403 ? "Forbidden"
	    : status == 404 ? "Not Found"
	    : status == 409 ? "Conflict"
	    : status == 410 ? "Gone"
	    : status == 422 ? "Unprocessable Entity"
	    : status >= 500 ? "Internal Server Error"
			    : "Bad Request",
	    message);
	if (status == 401) /* has no reasons */
		return json_pack("{s:{s:s, s:i}, s:[{s:s}]}", "metadata", "collectionType",
		    "application/vnd.ibm.kms.error+json", "collectionTotal", 1, "resources",
		    "errorMsg", text);
	return json_pack("{s:{s:s, s:i}, s:[{s:s, s:[{s:s, s:s, s:i}]}]}", "metadata",
	    "collectionType", "application/vnd.ibm.kms.error+json", "collectionTotal", 1,
	    "resources", "errorMsg", text, "reasons", "code", code, "message", message, "status",
	    status);
}

/* `about` is echoed, as the service does. */
static void
fail(struct call *c, int status, const char *code, const char *what, const char *about)
{
	char message[400];

	snprintf(message, sizeof(message), "%s%s%.300s", what, about[0] != '\0' ? ": " : "", about);
	c->status = status;
	json_decref(c->answer);
	c->answer = api_error(status, code, message);
}

/* Takes `resources`, an array. */
static void
collection(struct call *c, int status, const char *type, json_t *resources)
{
	char mime[96];

	snprintf(mime, sizeof(mime), "application/vnd.ibm.kms.%s+json", type);
	c->status = status;
	c->answer = json_pack("{s:{s:s, s:I}, s:o}", "metadata", "collectionType", mime,
	    "collectionTotal", (json_int_t)json_array_size(resources), "resources", resources);
}

static void
one_key(struct call *c, int status, bool with_payload)
{
	collection(c, status, "key", json_pack("[o]", key_resource(c->key, with_payload)));
}

static const char *
text_of(json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

/* The first of the body's resources, or the body itself: both are in use. */
static json_t *
body_resource(const struct call *c)
{
	json_t *first = json_array_get(json_object_get(c->body, "resources"), 0);

	return first != NULL ? first : c->body;
}

/* ---- imported material ---- */

static int
decode_member(struct call *c, json_t *from, const char *name, struct bytes *out)
{
	json_t *j = json_object_get(from, name);

	if (!json_is_string(j) ||
	    crypto_b64_decode(json_string_value(j), json_string_length(j), false, out) == -1) {
		fail(c, 400, "INVALID_FIELD_ERR", "not base64", name);
		return -1;
	}
	return 0;
}

/* The nonce, sealed with the key that is imported, proves that the payload was meant for us. */
static bool
nonce_fits(const struct call *c, const struct bytes *material, const struct bytes *sealed,
    const struct bytes *iv)
{
	struct bytes none = { NULL, 0 }, text, nonce;
	unsigned char plain[64];
	bool fits;

	if (iv->n != CRYPTO_IV_SIZE || sealed->n < CRYPTO_TAG_SIZE ||
	    sealed->n > sizeof(plain) + CRYPTO_TAG_SIZE)
		return false;
	text = (struct bytes){ sealed->p, sealed->n - CRYPTO_TAG_SIZE };
	if (crypto_open(material->p, material->n, iv->p, &none, &text, plain, sealed->p + text.n) ==
		-1 ||
	    crypto_b64_decode(
		c->store->import_nonce, strlen(c->store->import_nonce), false, &nonce) == -1)
		return false;
	fits = nonce.n == text.n && memcmp(nonce.p, plain, nonce.n) == 0;
	bytes_free(&nonce);
	return fits;
}

static int
open_import(struct call *c, json_t *from, struct bytes *material)
{
	struct bytes nonce = { NULL, 0 }, iv = { NULL, 0 }, key = { NULL, 0 };
	int rc = -1;

	if (decode_member(c, from, "encryptedNonce", &nonce) == 0 &&
	    decode_member(c, from, "iv", &iv) == 0) {
		if (crypto_rsa_open(c->store->import_key, material, &key) == -1 ||
		    !nonce_fits(c, &key, &nonce, &iv))
			fail(c, 400, "INVALID_FIELD_ERR", "not encrypted with the import token",
			    "payload");
		else
			rc = 0;
	}
	bytes_free(&nonce);
	bytes_free(&iv);
	bytes_free(material);
	if (rc == 0)
		*material = key;
	else
		bytes_free(&key);
	return rc;
}

/* 0 with material->p NULL where the body has no payload; -1 when the call has failed. */
static int
body_material(struct call *c, json_t *from, struct bytes *material)
{
	*material = (struct bytes){ NULL, 0 };
	if (json_object_get(from, "payload") == NULL)
		return 0;
	if (decode_member(c, from, "payload", material) == -1)
		return -1;
	return json_object_get(from, "encryptedNonce") != NULL ? open_import(c, from, material) : 0;
}

/* ---- keys ---- */

static void
keys_create(struct call *c)
{
	json_t *given = body_resource(c);
	struct bytes material;

	if (text_of(given, "name") == NULL) {
		fail(c, 400, "BAD_BODY_ERR", "a key needs a name", "");
		return;
	}
	if (body_material(c, given, &material) == -1)
		return;
	c->key = keystore_create(c->store, c->instance, c->ring != NULL ? c->ring : "default",
	    given, material.p != NULL ? &material : NULL);
	bytes_free(&material);
	if (c->key == NULL)
		fail(c, 400, "INVALID_FIELD_ERR", "a root key has 16, 24 or 32 bytes", "payload");
	else
		one_key(c, 201, true);
}

static bool
is_listed(const struct call *c, const struct key *k)
{
	const char *ring = text_of(k->meta, "keyRingID");

	return strcasecmp(k->instance, c->instance) == 0 && k->state != KEY_DESTROYED &&
	       (c->ring == NULL || strcmp(c->ring, ring) == 0);
}

static size_t
query_number(const struct call *c, const char *name, size_t otherwise)
{
	const char *s = evhttp_find_header(c->query, name);

	return s != NULL ? strtoul(s, NULL, 10) : otherwise;
}

static void
keys_list(struct call *c)
{
	size_t offset = query_number(c, "offset", 0), limit = query_number(c, "limit", 200);
	json_t *resources = json_array();

	c->total = 0;
	for (struct key *k = c->store->first; k != NULL; k = k->next) {
		if (!is_listed(c, k))
			continue;
		if (c->total++ >= offset && json_array_size(resources) < limit)
			json_array_append_new(resources, key_resource(k, false));
	}
	c->list = true;
	collection(c, 200, "key", resources);
}

static void
key_read(struct call *c)
{
	if (c->key->state == KEY_DESTROYED)
		fail(c, 410, "KEY_DELETED_ERR", "the key has been deleted", c->name);
	else
		one_key(c, 200, true);
}

static void
key_read_metadata(struct call *c)
{
	one_key(c, 200, false);
}

static void
key_patch(struct call *c)
{
	const char *ring = text_of(c->body, "keyRingID");

	if (ring == NULL) {
		fail(c, 400, "BAD_BODY_ERR", "keyRingID is missing", "");
		return;
	}
	json_object_set_new(c->key->meta, "keyRingID", json_string(ring));
	key_touch(c->key);
	one_key(c, 200, false);
}

static void
key_delete(struct call *c)
{
	if (c->key->state == KEY_DESTROYED) {
		fail(c, 410, "KEY_DELETED_ERR", "the key has been deleted", c->name);
		return;
	}
	c->key->state = KEY_DESTROYED;
	key_touch(c->key);
	if (c->representation)
		one_key(c, 200, false);
	else
		c->status = 204;
}

static void
key_purge(struct call *c)
{
	if (c->key->state != KEY_DESTROYED) {
		fail(c, 409, "KEY_ACTION_INVALID_STATE_ERR", "the key is not deleted", c->name);
		return;
	}
	if (c->representation)
		one_key(c, 200, false);
	else
		c->status = 204;
	keystore_remove(c->store, c->key);
}

static void
key_list_versions(struct call *c)
{
	json_t *resources = json_array();

	for (size_t i = c->key->nversions; i-- > 0;)
		json_array_append_new(resources, key_version_resource(&c->key->versions[i]));
	c->list = true;
	collection(c, 200, "key.version", resources);
}

/* ---- actions on a key ---- */

static void
append_bound(struct bytes *b, const char *s, size_t n)
{
	unsigned char len[4] = { (unsigned char)(n >> 24), (unsigned char)(n >> 16),
		(unsigned char)(n >> 8), (unsigned char)n };

	if ((b->p = realloc(b->p, b->n + 4 + n)) == NULL)
		abort();
	memcpy(b->p + b->n, len, 4);
	memcpy(b->p + b->n + 4, s, n);
	b->n += 4 + n;
}

/* The strings of `aad`, each after its length: ["ab","c"] and ["a","bc"] differ. */
static int
body_aad(struct call *c, struct bytes *out)
{
	json_t *aad = json_object_get(c->body, "aad");

	*out = (struct bytes){ NULL, 0 };
	if (aad != NULL && !json_is_array(aad))
		goto bad;
	for (size_t i = 0; i < json_array_size(aad); i++) {
		json_t *item = json_array_get(aad, i);
		if (!json_is_string(item))
			goto bad;
		append_bound(out, json_string_value(item), json_string_length(item));
	}
	return 0;
bad:
	bytes_free(out);
	fail(c, 400, "INVALID_FIELD_ERR", "aad is an array of strings", "");
	return -1;
}

static bool
can_wrap(struct call *c)
{
	if (c->key->state == KEY_DESTROYED)
		fail(c, 410, "KEY_DELETED_ERR", "the key has been deleted", c->name);
	else if (c->key->state != KEY_ACTIVE)
		fail(c, 409, "KEY_ACTION_INVALID_STATE_ERR", "the key is not active", c->name);
	else if (c->key->standard)
		fail(c, 400, "KEY_ROOT_REQ_ERR", "a standard key cannot wrap", c->name);
	else
		return true;
	return false;
}

static int
body_plaintext(struct call *c, struct bytes *plain)
{
	if (json_object_get(c->body, "plaintext") != NULL)
		return decode_member(c, c->body, "plaintext", plain);
	*plain = (struct bytes){ malloc(CRYPTO_KEY_SIZE), CRYPTO_KEY_SIZE };
	if (plain->p == NULL)
		abort();
	crypto_random(plain->p, plain->n);
	return 0;
}

static void
answer_wrapped(struct call *c, const struct bytes *aad, const struct bytes *plain, bool generated)
{
	char *ciphertext = key_wrap(c->key, aad, plain), *b64;

	if (ciphertext == NULL) {
		fail(c, 500, "INTERNAL_ERR", "the cipher failed", "");
		return;
	}
	c->status = 200;
	c->answer = json_pack("{s:s, s:o}", "ciphertext", ciphertext, "keyVersion",
	    key_version_resource(key_newest(c->key)));
	if (generated) {
		b64 = crypto_b64_encode(plain->p, plain->n);
		json_object_set_new(c->answer, "plaintext", json_string(b64));
		free(b64);
	}
	free(ciphertext);
}

static void
key_do_wrap(struct call *c)
{
	struct bytes aad, plain = { NULL, 0 };

	if (!can_wrap(c) || body_aad(c, &aad) == -1)
		return;
	if (body_plaintext(c, &plain) == 0)
		answer_wrapped(c, &aad, &plain, json_object_get(c->body, "plaintext") == NULL);
	bytes_free(&plain);
	bytes_free(&aad);
}

static int
open_body(struct call *c, struct bytes *aad, struct bytes *plain, const struct key_version **v)
{
	json_t *wrapped = json_object_get(c->body, "ciphertext");

	if (!can_wrap(c) || body_aad(c, aad) == -1)
		return -1;
	if (!json_is_string(wrapped)) {
		fail(c, 400, "BAD_BODY_ERR", "ciphertext is missing", "");
	} else if (key_unwrap(c->key, aad, json_string_value(wrapped), json_string_length(wrapped),
		       plain, v) == -1) {
		fail(c, 422, "UNPROCESSABLE_CIPHERTEXT_ERR",
		    "the ciphertext does not belong to this key and aad", c->name);
	} else {
		return 0;
	}
	bytes_free(aad);
	return -1;
}

static void
key_do_unwrap(struct call *c)
{
	struct bytes aad, plain;
	const struct key_version *v;
	char *b64;

	if (open_body(c, &aad, &plain, &v) == -1)
		return;
	b64 = crypto_b64_encode(plain.p, plain.n);
	c->status = 200;
	c->answer =
	    json_pack("{s:s, s:o}", "plaintext", b64, "keyVersion", key_version_resource(v));
	free(b64);
	if (v != key_newest(c->key)) {
		b64 = key_wrap(c->key, &aad, &plain);
		json_object_set_new(c->answer, "rewrappedPlaintext", json_string(b64));
		free(b64);
	}
	bytes_free(&plain);
	bytes_free(&aad);
}

static void
key_do_rewrap(struct call *c)
{
	struct bytes aad, plain;
	const struct key_version *v;

	if (open_body(c, &aad, &plain, &v) == -1)
		return;
	answer_wrapped(c, &aad, &plain, false);
	if (c->status == 200)
		json_object_set_new(
		    c->answer, "rewrappedKeyVersion", key_version_resource(key_newest(c->key)));
	bytes_free(&plain);
	bytes_free(&aad);
}

static void
key_do_rotate(struct call *c)
{
	struct bytes material;

	if (!can_wrap(c) || body_material(c, c->body, &material) == -1)
		return;
	if (c->key->imported != (material.p != NULL))
		fail(c, 400, "BAD_BODY_ERR",
		    "an imported key is rotated with a payload, others without", c->name);
	else if (key_add_version(c->key, material.p != NULL ? &material : NULL) == -1)
		fail(c, 400, "INVALID_FIELD_ERR", "a root key has 16, 24 or 32 bytes", "payload");
	else
		c->status = 204;
	bytes_free(&material);
	key_touch(c->key);
}

static void
key_do_restore(struct call *c)
{
	struct bytes material;

	if (c->key->state != KEY_DESTROYED) {
		fail(c, 409, "KEY_ACTION_INVALID_STATE_ERR", "the key is not deleted", c->name);
		return;
	}
	if (body_material(c, body_resource(c), &material) == -1)
		return;
	bytes_free(&material);
	c->key->state = KEY_ACTIVE;
	key_touch(c->key);
	one_key(c, 201, false);
}

static void
change_state(struct call *c, enum key_state from, enum key_state to)
{
	if (c->key->state != from) {
		fail(c, 409, "KEY_ACTION_INVALID_STATE_ERR", "not in that state", c->name);
		return;
	}
	c->key->state = to;
	key_touch(c->key);
	c->status = 204;
}

static void
key_do_disable(struct call *c)
{
	change_state(c, KEY_ACTIVE, KEY_SUSPENDED);
}

static void
key_do_enable(struct call *c)
{
	change_state(c, KEY_SUSPENDED, KEY_ACTIVE);
}

static void
key_do_set_for_deletion(struct call *c)
{
	c->key->marked = true;
	c->status = 204;
}

static void
key_do_unset_for_deletion(struct call *c)
{
	c->key->marked = false;
	c->status = 204;
}

static void
key_do_sync(struct call *c)
{
	c->status = 204;
}

/* ---- policies, rings, aliases, the rest ---- */

static void
policies_answer(struct call *c, int status, json_t *policies)
{
	if (status == 204)
		c->status = 204;
	else
		collection(c, status, "policy", json_deep_copy(policies));
}

static void
policies_put(struct call *c, int status, json_t *policies)
{
	json_t *given = json_object_get(c->body, "resources");

	if (!json_is_array(given)) {
		fail(c, 400, "BAD_BODY_ERR", "resources is missing", "");
		return;
	}
	json_array_clear(policies);
	json_array_extend(policies, given);
	policies_answer(c, status, policies);
}

static void
key_policies_read(struct call *c)
{
	policies_answer(c, 200, c->key->policies);
}

static void
key_policies_write(struct call *c)
{
	policies_put(c, 200, c->key->policies);
}

static json_t *
array_of_instance(json_t *object, const char *instance)
{
	json_t *array = json_object_get(object, instance);

	if (array == NULL) {
		array = json_array();
		json_object_set_new(object, instance, array);
	}
	return array;
}

static void
instance_policies_read(struct call *c)
{
	policies_answer(c, 200, array_of_instance(c->store->policies, c->instance));
}

static void
instance_policies_write(struct call *c)
{
	policies_put(c, 204, array_of_instance(c->store->policies, c->instance));
}

static void
instance_port(struct call *c)
{
	collection(
	    c, 200, "allowed_ip_metadata", json_pack("[{s:i}]", "private_endpoint_port", 8888));
}

static void
import_token(struct call *c)
{
	char *pem = crypto_rsa_public(c->store->import_key), now[32];

	keys_now(now);
	c->status = 200;
	c->answer = json_pack("{s:s, s:s, s:i, s:i, s:s}", "creationDate", now, "nonce",
	    c->store->import_nonce, "maxAllowedRetrievals", 500, "remainingRetrievals", 499,
	    "payload", pem);
	free(pem);
}

static void
rings_list(struct call *c)
{
	json_t *rings = array_of_instance(c->store->rings, c->instance), *out = json_array();

	json_array_append_new(out, json_pack("{s:s}", "id", "default"));
	for (size_t i = 0; i < json_array_size(rings); i++)
		json_array_append_new(out, json_pack("{s:O}", "id", json_array_get(rings, i)));
	c->list = true;
	collection(c, 200, "key_ring", out);
}

static size_t
index_of_text(json_t *array, const char *text)
{
	for (size_t i = 0; i < json_array_size(array); i++)
		if (strcmp(json_string_value(json_array_get(array, i)), text) == 0)
			return i;
	return SIZE_MAX;
}

static void
ring_create(struct call *c)
{
	json_t *rings = array_of_instance(c->store->rings, c->instance);

	if (index_of_text(rings, c->name) != SIZE_MAX) {
		fail(c, 409, "KEY_RING_EXISTS_ERR", "the key ring exists", c->name);
		return;
	}
	json_array_append_new(rings, json_string(c->name));
	c->status = 201;
}

static void
ring_delete(struct call *c)
{
	json_t *rings = array_of_instance(c->store->rings, c->instance);
	size_t i = index_of_text(rings, c->name);

	if (i == SIZE_MAX) {
		fail(c, 404, "KEY_RING_NOT_FOUND_ERR", "no such key ring", c->name);
		return;
	}
	json_array_remove(rings, i);
	c->status = 204;
}

static void
alias_create(struct call *c)
{
	json_t *aliases = json_object_get(c->key->meta, "aliases");

	c->status = 200;
	if (index_of_text(aliases, c->second) == SIZE_MAX) {
		json_array_append_new(aliases, json_string(c->second));
		c->status = 201;
	}
	c->answer = json_pack("{s:{s:s, s:i}, s:[{s:s, s:s}]}", "metadata", "collectionType",
	    "application/vnd.ibm.kms.key.alias+json", "collectionTotal", 1, "resources", "keyId",
	    c->key->id, "alias", c->second);
}

static void
alias_delete(struct call *c)
{
	json_t *aliases = json_object_get(c->key->meta, "aliases");
	size_t i = index_of_text(aliases, c->second);

	if (i == SIZE_MAX) {
		fail(c, 404, "ALIAS_NOT_FOUND_ERR", "no such alias", c->second);
		return;
	}
	json_array_remove(aliases, i);
	c->status = 204;
}

static void
empty_list(struct call *c)
{
	c->list = true;
	collection(c, 200, "registration", json_array());
}

static void
service_only(struct call *c)
{
	fail(c, 403, "SERVICE_ONLY_ERR", "for services only", c->second);
}

/* ---- routing ---- */

static const struct {
	const char *word;
	void (*run)(struct call *);
} actions[] = {
	{ "wrap", key_do_wrap },
	{ "unwrap", key_do_unwrap },
	{ "rewrap", key_do_rewrap },
	{ "rotate", key_do_rotate },
	{ "restore", key_do_restore },
	{ "disable", key_do_disable },
	{ "enable", key_do_enable },
	{ "setKeyForDeletion", key_do_set_for_deletion },
	{ "unsetKeyForDeletion", key_do_unset_for_deletion },
	{ "sync", key_do_sync },
};

static void
key_act(struct call *c, const char *word)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
		if (word != NULL && strcmp(actions[i].word, word) == 0) {
			actions[i].run(c);
			return;
		}
	}
	fail(c, 400, "ACTION_INVALID_ERR", "no such action", word != NULL ? word : "");
}

static void
key_act_query(struct call *c)
{
	key_act(c, evhttp_find_header(c->query, "action"));
}

static void
key_act_path(struct call *c)
{
	key_act(c, c->second);
}

enum { NO_KEY, THE_KEY };

/* Literals stand before parameters: the first row that fits is taken. */
static const struct {
	const char *method, *path;
	int needs;
	void (*run)(struct call *);
} routes[] = {
	{ "HEAD", "/api/v2/keys", NO_KEY, keys_list },
	{ "GET", "/api/v2/keys", NO_KEY, keys_list },
	{ "POST", "/api/v2/keys", NO_KEY, keys_create },
	{ "POST", "/api/v2/keys_with_policy_overrides", NO_KEY, keys_create },
	{ "GET", "/api/v2/keys/registrations", NO_KEY, empty_list },
	{ "GET", "/api/v2/keys/{}", THE_KEY, key_read },
	{ "PATCH", "/api/v2/keys/{}", THE_KEY, key_patch },
	{ "DELETE", "/api/v2/keys/{}", THE_KEY, key_delete },
	{ "POST", "/api/v2/keys/{}", THE_KEY, key_act_query },
	{ "POST", "/api/v2/keys/{}/actions/{}", THE_KEY, key_act_path },
	{ "POST", "/api/v2/keys/{}/restore", THE_KEY, key_do_restore },
	{ "GET", "/api/v2/keys/{}/metadata", THE_KEY, key_read_metadata },
	{ "DELETE", "/api/v2/keys/{}/purge", THE_KEY, key_purge },
	{ "GET", "/api/v2/keys/{}/versions", THE_KEY, key_list_versions },
	{ "GET", "/api/v2/keys/{}/policies", THE_KEY, key_policies_read },
	{ "PUT", "/api/v2/keys/{}/policies", THE_KEY, key_policies_write },
	{ "POST", "/api/v2/keys/{}/aliases/{}", THE_KEY, alias_create },
	{ "DELETE", "/api/v2/keys/{}/aliases/{}", THE_KEY, alias_delete },
	{ "GET", "/api/v2/keys/{}/registrations", THE_KEY, empty_list },
	{ "POST", "/api/v2/keys/{}/registrations", THE_KEY, service_only },
	{ "POST", "/api/v2/keys/{}/registrations/{}", THE_KEY, service_only },
	{ "PUT", "/api/v2/keys/{}/registrations/{}", THE_KEY, service_only },
	{ "PATCH", "/api/v2/keys/{}/registrations/{}", THE_KEY, service_only },
	{ "DELETE", "/api/v2/keys/{}/registrations/{}", THE_KEY, service_only },
	{ "POST", "/api/v2/event_ack", NO_KEY, service_only },
	{ "GET", "/api/v2/instance/policies", NO_KEY, instance_policies_read },
	{ "PUT", "/api/v2/instance/policies", NO_KEY, instance_policies_write },
	{ "GET", "/api/v2/instance/allowed_ip_port", NO_KEY, instance_port },
	{ "GET", "/api/v2/instance/ip_whitelist_port", NO_KEY, instance_port },
	{ "GET", "/api/v2/import_token", NO_KEY, import_token },
	{ "POST", "/api/v2/import_token", NO_KEY, import_token },
	{ "GET", "/api/v2/key_rings", NO_KEY, rings_list },
	{ "POST", "/api/v2/key_rings/{}", NO_KEY, ring_create },
	{ "DELETE", "/api/v2/key_rings/{}", NO_KEY, ring_delete },
	{ "GET", "/api/v2/kmip_adapters", NO_KEY, empty_list },
	{ "GET", "/governance/v1/configs", NO_KEY, empty_list },
};

static void
decode_parameter(const char *p, size_t n, char *out, size_t cap)
{
	char *copy = strndup(p, n);
	size_t len = 0;
	char *plain = copy != NULL ? evhttp_uridecode(copy, 0, &len) : NULL;

	snprintf(out, cap, "%s", plain != NULL ? plain : "");
	free(plain);
	free(copy);
}

static bool
path_fits(struct call *c, const char *pattern)
{
	const char *p = c->path;
	unsigned n = 0;

	for (; *pattern != '\0'; pattern++) {
		size_t len;
		if (*pattern != '{') {
			if (*pattern != *p++)
				return false;
			continue;
		}
		pattern++; /* the closing brace */
		if ((len = strcspn(p, "/")) == 0)
			return false;
		if (n++ == 0)
			decode_parameter(p, len, c->name, sizeof(c->name));
		else
			decode_parameter(p, len, c->second, sizeof(c->second));
		p += len;
	}
	return *p == '\0';
}

void
api_answer(struct call *c)
{
	bool known_path = false;

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (!path_fits(c, routes[i].path))
			continue;
		known_path = true;
		if (strcmp(c->method, routes[i].method) != 0)
			continue;
		if (routes[i].needs == THE_KEY &&
		    (c->key = keystore_find(c->store, c->instance, c->name)) == NULL)
			fail(c, 404, "KEY_NOT_FOUND_ERR", "no such key", c->name);
		else
			routes[i].run(c);
		return;
	}
	if (known_path)
		fail(c, 405, "METHOD_NOT_ALLOWED_ERR", "the method is not allowed", c->method);
	else
		fail(c, 404, "NOT_FOUND_ERR", "no such page", c->path);
}
