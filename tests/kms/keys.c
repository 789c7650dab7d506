#include "keys.h"

#include <openssl/crypto.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void
keys_now(char out[32])
{
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

struct keystore *
keystore_new(void)
{
	struct keystore *s = calloc(1, sizeof(*s));
	unsigned char nonce[16];
	char *text;

	if (s == NULL || (s->import_key = crypto_rsa_new()) == NULL)
		abort();
	crypto_random(nonce, sizeof(nonce));
	text = crypto_b64_encode(nonce, sizeof(nonce));
	memcpy(s->import_nonce, text, sizeof(s->import_nonce));
	free(text);
	s->rings = json_object();
	s->policies = json_object();
	return s;
}

static void
key_free(struct key *k)
{
	OPENSSL_cleanse(k->versions, k->nversions * sizeof(*k->versions));
	free(k->versions);
	free(k->payload);
	json_decref(k->meta);
	json_decref(k->policies);
	free(k);
}

void
keystore_free(struct keystore *s)
{
	if (s == NULL)
		return;
	while (s->first != NULL)
		keystore_remove(s, s->first);
	json_decref(s->rings);
	json_decref(s->policies);
	crypto_rsa_free(s->import_key);
	free(s);
}

static bool
key_is_called(const struct key *k, const char *name)
{
	json_t *aliases = json_object_get(k->meta, "aliases");

	if (strcasecmp(k->id, name) == 0)
		return true;
	for (size_t i = 0; i < json_array_size(aliases); i++)
		if (strcmp(json_string_value(json_array_get(aliases, i)), name) == 0)
			return true;
	return false;
}

struct key *
keystore_find(struct keystore *s, const char *instance, const char *name)
{
	for (struct key *k = s->first; k != NULL; k = k->next)
		if (strcasecmp(k->instance, instance) == 0 && key_is_called(k, name))
			return k;
	return NULL;
}

void
keystore_remove(struct keystore *s, struct key *k)
{
	for (struct key **p = &s->first; *p != NULL; p = &(*p)->next) {
		if (*p == k) {
			*p = k->next;
			key_free(k);
			return;
		}
	}
}

int
key_add_version(struct key *k, const struct bytes *material)
{
	struct key_version *v;

	if (material != NULL && material->n != 16 && material->n != 24 && material->n != 32)
		return -1;
	if ((v = realloc(k->versions, (k->nversions + 1) * sizeof(*v))) == NULL)
		abort();
	k->versions = v;
	v += k->nversions++;
	memset(v, 0, sizeof(*v));
	crypto_uuid4(v->id);
	keys_now(v->created);
	/* Shorter imported keys are stretched by zeros: what is sealed with is always AES-256. */
	if (material != NULL)
		memcpy(v->secret, material->p, material->n);
	else
		crypto_random(v->secret, sizeof(v->secret));
	return 0;
}

static json_t *
key_first_meta(json_t *given, const char *ring)
{
	json_t *meta = json_object(), *aliases = json_object_get(given, "aliases");
	const char *desc = json_string_value(json_object_get(given, "description"));
	char now[32];

	keys_now(now);
	json_object_set(meta, "name", json_object_get(given, "name"));
	if (desc != NULL)
		json_object_set_new(meta, "description", json_string(desc));
	json_object_set_new(
	    meta, "aliases", json_is_array(aliases) ? json_deep_copy(aliases) : json_array());
	json_object_set_new(meta, "keyRingID", json_string(ring));
	json_object_set_new(meta, "creationDate", json_string(now));
	json_object_set_new(meta, "lastUpdateDate", json_string(now));
	return meta;
}

struct key *
keystore_create(struct keystore *s, const char *instance, const char *ring, json_t *given,
    const struct bytes *material)
{
	struct key *k = calloc(1, sizeof(*k));
	unsigned char fresh[CRYPTO_KEY_SIZE];

	if (k == NULL)
		abort();
	crypto_uuid4(k->id);
	memcpy(k->instance, instance, sizeof(k->instance));
	k->state = KEY_ACTIVE;
	k->standard = json_is_true(json_object_get(given, "extractable"));
	k->imported = material != NULL;
	k->meta = key_first_meta(given, ring);
	k->policies = json_array();
	if (k->standard && material == NULL) {
		crypto_random(fresh, sizeof(fresh));
		k->payload = crypto_b64_encode(fresh, sizeof(fresh));
	} else if (k->standard) {
		k->payload = crypto_b64_encode(material->p, material->n);
	} else if (key_add_version(k, material) == -1) {
		key_free(k);
		return NULL;
	}
	k->next = s->first;
	s->first = k;
	return k;
}

void
key_touch(struct key *k)
{
	char now[32];

	keys_now(now);
	json_object_set_new(k->meta, "lastUpdateDate", json_string(now));
}

json_t *
key_version_resource(const struct key_version *v)
{
	return json_pack("{s:s, s:s}", "id", v->id, "creationDate", v->created);
}

const struct key_version *
key_newest(const struct key *k)
{
	return k->nversions == 0 ? NULL : &k->versions[k->nversions - 1];
}

json_t *
key_resource(const struct key *k, bool with_payload)
{
	json_t *r = json_deep_copy(k->meta);
	char crn[160];

	snprintf(crn, sizeof(crn),
	    "crn:v1:bluemix:public:kms:us-south:a/a12333e9bd28461a8c92385628efac9f:%s:key:%s",
	    k->instance, k->id);
	json_object_set_new(r, "type", json_string("application/vnd.ibm.kms.key+json"));
	json_object_set_new(r, "id", json_string(k->id));
	json_object_set_new(r, "crn", json_string(crn));
	json_object_set_new(r, "algorithmType", json_string("AES"));
	json_object_set_new(r, "state", json_integer(k->state));
	json_object_set_new(r, "extractable", json_boolean(k->standard));
	json_object_set_new(r, "imported", json_boolean(k->imported));
	json_object_set_new(r, "deleted", json_boolean(k->state == KEY_DESTROYED));
	if (k->nversions > 0)
		json_object_set_new(r, "keyVersion", key_version_resource(key_newest(k)));
	if (with_payload && k->standard)
		json_object_set_new(r, "payload", json_string(k->payload));
	return r;
}

/* The caller's data and the key's version, so that neither can be exchanged. */
static struct bytes
key_bind(const struct key_version *v, const struct bytes *aad)
{
	const size_t fixed = sizeof(v->id);
	struct bytes b = { malloc(fixed + aad->n), fixed + aad->n };

	if (b.p == NULL)
		abort();
	memcpy(b.p, v->id, fixed);
	if (aad->n > 0)
		memcpy(b.p + fixed, aad->p, aad->n);
	return b;
}

static json_t *
b64_value(const unsigned char *p, size_t n)
{
	char *s = crypto_b64_encode(p, n);
	json_t *j = json_string(s);

	free(s);
	return j;
}

char *
key_wrap(const struct key *k, const struct bytes *aad, const struct bytes *plain)
{
	const struct key_version *v = key_newest(k);
	struct bytes bound, sealed = { malloc(plain->n + 1), plain->n };
	unsigned char iv[CRYPTO_IV_SIZE], tag[CRYPTO_TAG_SIZE];
	json_t *envelope;
	char *text = NULL, *out = NULL;

	assert(v != NULL); /* the caller has seen that it is a root key */
	bound = key_bind(v, aad);
	crypto_random(iv, sizeof(iv));
	if (sealed.p == NULL || crypto_seal(v->secret, iv, &bound, plain, sealed.p, tag) == -1)
		goto done;
	envelope = json_pack("{s:o, s:o, s:o, s:s, s:s}", "ciphertext",
	    b64_value(sealed.p, sealed.n), "iv", b64_value(iv, sizeof(iv)), "tag",
	    b64_value(tag, sizeof(tag)), "version", "4.0.0", "handle", v->id);
	if ((text = json_dumps(envelope, JSON_COMPACT)) != NULL)
		out = crypto_b64_encode((unsigned char *)text, strlen(text));
	json_decref(envelope);
done:
	free(text);
	bytes_free(&bound);
	bytes_free(&sealed);
	return out;
}

static int
envelope_part(json_t *envelope, const char *name, size_t want, struct bytes *out)
{
	json_t *j = json_object_get(envelope, name);

	if (!json_is_string(j) ||
	    crypto_b64_decode(json_string_value(j), json_string_length(j), false, out) == -1)
		return -1;
	return want == 0 || out->n == want ? 0 : -1;
}

static const struct key_version *
key_version_named(const struct key *k, const char *id)
{
	for (size_t i = 0; id != NULL && i < k->nversions; i++)
		if (strcmp(k->versions[i].id, id) == 0)
			return &k->versions[i];
	return NULL;
}

static int
key_unwrap_envelope(const struct key *k, const struct bytes *aad, json_t *envelope,
    struct bytes *plain, const struct key_version **version)
{
	const struct key_version *v =
	    key_version_named(k, json_string_value(json_object_get(envelope, "handle")));
	struct bytes ct = { NULL, 0 }, iv = { NULL, 0 }, tag = { NULL, 0 }, bound = { NULL, 0 };
	struct bytes out = { NULL, 0 };
	int rc = -1;

	if (v == NULL || envelope_part(envelope, "ciphertext", 0, &ct) == -1 ||
	    envelope_part(envelope, "iv", CRYPTO_IV_SIZE, &iv) == -1 ||
	    envelope_part(envelope, "tag", CRYPTO_TAG_SIZE, &tag) == -1)
		goto done;
	bound = key_bind(v, aad);
	out = (struct bytes){ malloc(ct.n + 1), ct.n };
	if (out.p != NULL &&
	    crypto_open(v->secret, CRYPTO_KEY_SIZE, iv.p, &bound, &ct, out.p, tag.p) == 0) {
		*plain = out;
		*version = v;
		out = (struct bytes){ NULL, 0 };
		rc = 0;
	}
done:
	bytes_free(&ct);
	bytes_free(&iv);
	bytes_free(&tag);
	bytes_free(&bound);
	bytes_free(&out);
	return rc;
}

int
key_unwrap(const struct key *k, const struct bytes *aad, const char *wrapped, size_t n,
    struct bytes *plain, const struct key_version **version)
{
	struct bytes text;
	json_t *envelope;
	int rc;

	if (crypto_b64_decode(wrapped, n, false, &text) == -1)
		return -1;
	envelope = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
	rc = key_unwrap_envelope(k, aad, envelope, plain, version);
	json_decref(envelope);
	bytes_free(&text);
	return rc;
}
