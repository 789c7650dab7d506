#include "keytrail/checkpoint.h"

#include "keytrail/base64.h"
#include "keytrail/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#define ED25519	       1 /* the type of signature, first byte of a key */
#define KEY_BYTES      32
#define SIGNATURE_SIZE 64
#define SIGNATURES_MAX 64
#define DASH	       "\xe2\x80\x94 " /* U+2014 */
#define SECRET_PREFIX  "PRIVATE+KEY+"

struct checkpoint_signer {
	struct checkpoint_key key;
	EVP_PKEY *secret;
};

/* ---- names and ids ---- */

static bool
name_valid(struct slice name)
{
	if (name.n == 0 || name.n > CHECKPOINT_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] <= ' ' || name.p[i] >= 0x7f || name.p[i] == '+')
			return false;
	return true;
}

static uint32_t
key_id(struct slice name, const unsigned char key[KEY_BYTES])
{
	unsigned char bytes[CHECKPOINT_NAME_MAX + 2 + KEY_BYTES];
	struct merkle_hash hash;

	memcpy(bytes, name.p, name.n);
	bytes[name.n] = '\n';
	bytes[name.n + 1] = ED25519;
	memcpy(bytes + name.n + 2, key, KEY_BYTES);
	merkle_hash_of(bytes, name.n + 2 + KEY_BYTES, &hash);
	return (uint32_t)hash.b[0] << 24 | (uint32_t)hash.b[1] << 16 | (uint32_t)hash.b[2] << 8 |
	       hash.b[3];
}

/* What stands before the first `c`; *rest after it. */
static bool
cut(struct slice *rest, char c, struct slice *out)
{
	const char *at = rest->n > 0 ? memchr(rest->p, c, rest->n) : NULL;

	if (at == NULL)
		return false;
	*out = slice_sub(*rest, 0, (size_t)(at - rest->p));
	*rest = slice_sub(*rest, out->n + 1, rest->n);
	return true;
}

static bool
parse_id(struct slice s, uint32_t *out)
{
	static const char digits[] = "0123456789abcdef";

	if (s.n != 8)
		return false;
	*out = 0;
	for (size_t i = 0; i < s.n; i++) {
		const char *at = memchr(digits, s.p[i], 16);

		if (at == NULL)
			return false;
		*out = *out << 4 | (uint32_t)(at - digits);
	}
	return true;
}

/* `<name>+<id>+<base64 of (type || 32 bytes)>`; the id is not compared. */
static int
parse_key(struct slice text, struct checkpoint_key *out, const char *what, struct err *err)
{
	unsigned char bytes[1 + KEY_BYTES];
	struct slice name, id, rest = text;
	int rc = -1;

	if (!cut(&rest, '+', &name) || !cut(&rest, '+', &id) || !name_valid(name) ||
	    !parse_id(id, &out->id) ||
	    base64_decode(rest, bytes, sizeof(bytes)) != (long)sizeof(bytes)) {
		err_set(err, "%s: wanted <name>+<8 hex digits>+<base64 of 33 bytes>", what);
	} else if (bytes[0] != ED25519) {
		err_set(err, "%s: type %u; wanted 1 (Ed25519)", what, bytes[0]);
	} else {
		memcpy(out->name, name.p, name.n);
		out->name[name.n] = '\0';
		memcpy(out->bytes, bytes + 1, KEY_BYTES);
		rc = 0;
	}
	OPENSSL_cleanse(bytes, sizeof(bytes));
	return rc;
}

bool
checkpoint_key_equal(const struct checkpoint_key *a, const struct checkpoint_key *b)
{
	return strcmp(a->name, b->name) == 0 && memcmp(a->bytes, b->bytes, KEY_BYTES) == 0;
}

int
checkpoint_key_parse(struct slice text, struct checkpoint_key *out, struct err *err)
{
	struct checkpoint_key k;

	if (parse_key(text, &k, "verifier key", err) == -1)
		return -1;
	if (k.id != key_id(slice_of(k.name), k.bytes))
		return err_set(err, "verifier key: the id is not that of the name and key");
	*out = k;
	return 0;
}

/* The NUL included. */
static void
write_key(const char *prefix, const struct checkpoint_key *k, const unsigned char key[KEY_BYTES],
    char out[CHECKPOINT_KEY_MAX])
{
	unsigned char bytes[1 + KEY_BYTES] = { ED25519 };
	int n = snprintf(out, CHECKPOINT_KEY_MAX, "%s%s+%08" PRIx32 "+", prefix, k->name, k->id);

	assert(n > 0 && (size_t)n + BASE64_SIZE(sizeof(bytes)) < CHECKPOINT_KEY_MAX);
	memcpy(bytes + 1, key, KEY_BYTES);
	n += (int)base64_encode(bytes, sizeof(bytes), out + n);
	out[n] = '\0';
	OPENSSL_cleanse(bytes, sizeof(bytes));
}

void
checkpoint_key_text(const struct checkpoint_key *k, char out[CHECKPOINT_KEY_MAX])
{
	write_key("", k, k->bytes, out);
}

/* ---- signing keys ---- */

/* The reasons that it gives itself do not tell these two apart. */
static int
openssl_failed(const char *what, struct err *err)
{
	ERR_clear_error();
	return err_set(err, "%s: OpenSSL has no Ed25519, or memory is short", what);
}

static int
fill_public(struct checkpoint_signer *s, struct err *err)
{
	size_t n = KEY_BYTES;

	if (s->secret == NULL || EVP_PKEY_get_raw_public_key(s->secret, s->key.bytes, &n) != 1)
		return openssl_failed("the key", err);
	s->key.id = key_id(slice_of(s->key.name), s->key.bytes);
	return 0;
}

int
checkpoint_signer_make(const char *name, char out[CHECKPOINT_KEY_MAX], struct err *err)
{
	struct checkpoint_signer s = { .secret = NULL };
	unsigned char seed[KEY_BYTES];
	size_t n = sizeof(seed);
	int rc = -1;

	if (!name_valid(slice_of(name)))
		return err_set(err,
		    "the name \"%.200s\" is none; wanted 1 to %d visible ASCII characters, no '+'",
		    name, CHECKPOINT_NAME_MAX);
	memcpy(s.key.name, name, strlen(name) + 1);
	s.secret = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	if (fill_public(&s, err) == 0) {
		if (EVP_PKEY_get_raw_private_key(s.secret, seed, &n) == 1) {
			write_key(SECRET_PREFIX, &s.key, seed, out);
			rc = 0;
		} else {
			openssl_failed("the new key", err);
		}
	}
	OPENSSL_cleanse(seed, sizeof(seed));
	EVP_PKEY_free(s.secret);
	return rc;
}

struct checkpoint_signer *
checkpoint_signer_parse(struct slice text, struct err *err)
{
	static const struct slice prefix = SLICE_INIT(SECRET_PREFIX);
	struct checkpoint_signer *s;
	uint32_t id;

	if (!slice_has_prefix(text, prefix)) {
		err_set(err, "signing key: wanted a line that begins with " SECRET_PREFIX);
		return NULL;
	}
	if ((s = calloc(1, sizeof(*s))) == NULL) {
		err_set_errno(err, "signing key");
		return NULL;
	}
	if (parse_key(slice_sub(text, prefix.n, text.n), &s->key, "signing key", err) == -1)
		goto fail;
	id = s->key.id;
	s->secret = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, s->key.bytes, KEY_BYTES);
	OPENSSL_cleanse(s->key.bytes, KEY_BYTES);
	if (fill_public(s, err) == -1)
		goto fail;
	if (s->key.id != id) {
		err_set(err, "signing key: the id is not that of the name and key");
		goto fail;
	}
	return s;
fail:
	checkpoint_signer_free(s);
	return NULL;
}

void
checkpoint_signer_free(struct checkpoint_signer *s)
{
	if (s == NULL)
		return;
	EVP_PKEY_free(s->secret);
	OPENSSL_cleanse(s, sizeof(*s));
	free(s);
}

const struct checkpoint_key *
checkpoint_signer_key(const struct checkpoint_signer *s)
{
	return &s->key;
}

/* ---- notes ---- */

static int
sign_bytes(const struct checkpoint_signer *s, struct slice text, unsigned char *out)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	size_t n = SIGNATURE_SIZE;
	bool ok = c != NULL && EVP_DigestSignInit(c, NULL, NULL, NULL, s->secret) == 1 &&
		  EVP_DigestSign(c, out, &n, (const unsigned char *)text.p, text.n) == 1;

	EVP_MD_CTX_free(c);
	return ok ? 0 : -1;
}

static bool
is_signed_by(const unsigned char *public, struct slice text, const unsigned char *signature)
{
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, KEY_BYTES);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	bool ok = key != NULL && c != NULL && EVP_DigestVerifyInit(c, NULL, NULL, NULL, key) == 1 &&
		  EVP_DigestVerify(
		      c, signature, SIGNATURE_SIZE, (const unsigned char *)text.p, text.n) == 1;

	EVP_MD_CTX_free(c);
	EVP_PKEY_free(key);
	return ok;
}

/* Of the empty text: RFC 8032 section 7.1, test 1. */
static bool
knows_good_signature(void)
{
	static const unsigned char key[KEY_BYTES] = "\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b"
						    "\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3"
						    "\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07"
						    "\x51\x1a";
	static const unsigned char signature[SIGNATURE_SIZE] =
	    "\xe5\x56\x43\x00\xc3\x60\xac\x72\x90\x86\xe2\xcc\x80\x6e\x82\x8a"
	    "\x84\x87\x7f\x1e\xb8\xe5\xd9\x74\xd8\x73\xe0\x65\x22\x49\x01\x55"
	    "\x5f\xb8\x82\x15\x90\xa3\x3b\xac\xc6\x1e\x39\x70\x1c\xf9\xb4\x6b"
	    "\xd2\x5b\xf5\xf0\x59\x5b\xbe\x24\x65\x51\x41\x43\x8e\x7a\x10\x0b";

	return is_signed_by(key, SLICE(""), signature);
}

/* OpenSSL says the same of a forgery and when memory is short, so it has to prove first that it can
 * tell. */
static enum checkpoint_verdict
check_signature(const struct checkpoint_key *k, struct slice text, const unsigned char *signature)
{
	if (is_signed_by(k->bytes, text, signature))
		return CHECKPOINT_GOOD;
	if (!knows_good_signature())
		return CHECKPOINT_UNCHECKED;
	return is_signed_by(k->bytes, text, signature) ? CHECKPOINT_GOOD : CHECKPOINT_FORGED;
}

int
checkpoint_cosign(
    const struct checkpoint_signer *s, struct slice text, struct buf *note, struct err *err)
{
	unsigned char signature[4 + SIGNATURE_SIZE];
	char encoded[BASE64_SIZE(sizeof(signature))];

	assert(text.n > 0 && text.p[text.n - 1] == '\n');
	for (unsigned i = 0; i < 4; i++)
		signature[i] = (unsigned char)(s->key.id >> (24 - 8 * i));
	if (sign_bytes(s, text, signature + 4) == -1)
		return openssl_failed("sign", err);
	base64_encode(signature, sizeof(signature), encoded);
	if (buf_printf(note, DASH "%s %.*s\n", s->key.name, (int)sizeof(encoded), encoded) == -1)
		return err_set_errno(err, "sign");
	return 0;
}

int
checkpoint_sign(
    const struct checkpoint_signer *s, struct slice text, struct buf *out, struct err *err)
{
	if (buf_append_slice(out, text) == -1 || buf_append(out, "\n", 1) == -1)
		return err_set_errno(err, "sign");
	return checkpoint_cosign(s, text, out, err);
}

static bool
note_text_valid(struct slice note)
{
	uint32_t c;

	if (note.n == 0 || note.n > CHECKPOINT_NOTE_MAX)
		return false;
	for (size_t i = 0, n; i < note.n; i += n) {
		n = utf8_decode(note.p + i, note.n - i, &c);
		if (n == 0 || (c < ' ' && c != '\n') || c == 0x7f)
			return false;
	}
	return true;
}

/* At the last empty line: the text with its newline, and the signature lines. */
static bool
split_note(struct slice note, struct slice *text, struct slice *signatures)
{
	if (!note_text_valid(note) || note.p[note.n - 1] != '\n')
		return false;
	for (size_t i = note.n; i >= 2; i--)
		if (note.p[i - 1] == '\n' && note.p[i - 2] == '\n') {
			*text = slice_sub(note, 0, i - 1);
			*signatures = slice_sub(note, i, note.n);
			return signatures->n > 0;
		}
	return false;
}

bool
checkpoint_note_text(struct slice note, struct slice *text)
{
	struct slice signatures;

	return split_note(note, text, &signatures);
}

struct signature {
	struct slice name;
	uint32_t id;
	unsigned char bytes[CHECKPOINT_NOTE_MAX];
	size_t n;
};

static bool
parse_signature(struct slice line, struct signature *out)
{
	static const struct slice dash = SLICE_INIT(DASH);
	long n;

	if (!slice_has_prefix(line, dash))
		return false;
	line = slice_sub(line, dash.n, line.n);
	if (!cut(&line, ' ', &out->name) || out->name.n == 0 ||
	    memchr(out->name.p, '+', out->name.n) != NULL)
		return false;
	if ((n = base64_decode(line, out->bytes, sizeof(out->bytes))) < 5)
		return false;
	out->id = (uint32_t)out->bytes[0] << 24 | (uint32_t)out->bytes[1] << 16 |
		  (uint32_t)out->bytes[2] << 8 | out->bytes[3];
	out->n = (size_t)n;
	return true;
}

static const struct checkpoint_key *
known_key(const struct checkpoint_key *keys, size_t n, const struct signature *s)
{
	for (size_t i = 0; i < n; i++)
		if (keys[i].id == s->id && slice_equal(slice_of(keys[i].name), s->name))
			return &keys[i];
	return NULL;
}

enum checkpoint_verdict
checkpoint_open_note(struct slice note, const struct checkpoint_key *keys, size_t nkeys,
    struct slice *text, struct err *err)
{
	struct slice body, lines, line;
	struct signature s;
	unsigned n = 0, good = 0;

	if (!split_note(note, &body, &lines))
		goto malformed;
	while (cut(&lines, '\n', &line)) {
		const struct checkpoint_key *k;
		enum checkpoint_verdict v;

		if (++n > SIGNATURES_MAX || !parse_signature(line, &s))
			goto malformed;
		if ((k = known_key(keys, nkeys, &s)) == NULL)
			continue;
		v = s.n == 4 + SIGNATURE_SIZE ? check_signature(k, body, s.bytes + 4)
					      : CHECKPOINT_FORGED;
		if (v == CHECKPOINT_UNCHECKED)
			openssl_failed("the signature", err);
		else if (v == CHECKPOINT_FORGED)
			err_set(err, "the signature of %s is wrong", k->name);
		if (v != CHECKPOINT_GOOD)
			return v;
		good++;
	}
	if (good == 0) {
		err_set(err, "no signature of a key that was given");
		return CHECKPOINT_UNSIGNED;
	}
	*text = body;
	return CHECKPOINT_GOOD;
malformed:
	err_set(err, "not a signed note");
	return CHECKPOINT_MALFORMED;
}

/* ---- checkpoints ---- */

int
checkpoint_write(const struct checkpoint_signer *s, const struct checkpoint *cp, struct buf *out,
    struct err *err)
{
	char root[BASE64_SIZE(MERKLE_HASH_SIZE)], text[CHECKPOINT_ORIGIN_MAX + 80];
	int n;

	assert(cp->origin[0] != '\0' && strchr(cp->origin, '\n') == NULL);
	base64_encode(cp->root.b, MERKLE_HASH_SIZE, root);
	n = snprintf(text, sizeof(text), "%s\n%" PRIu64 "\n%.*s\n", cp->origin, cp->size,
	    (int)sizeof(root), root);
	return checkpoint_sign(s, (struct slice){ text, (size_t)n }, out, err);
}

static bool
parse_text(struct slice text, struct checkpoint *out)
{
	struct slice origin, size, root, extension;

	if (!cut(&text, '\n', &origin) || !cut(&text, '\n', &size) || !cut(&text, '\n', &root))
		return false;
	while (cut(&text, '\n', &extension))
		if (extension.n == 0)
			return false;
	if (origin.n == 0 || origin.n >= sizeof(out->origin) ||
	    slice_to_u64(size, &out->size) == -1 || (size.p[0] == '0' && size.n > 1) ||
	    base64_decode(root, out->root.b, MERKLE_HASH_SIZE) != MERKLE_HASH_SIZE)
		return false;
	memcpy(out->origin, origin.p, origin.n);
	out->origin[origin.n] = '\0';
	return true;
}

enum checkpoint_verdict
checkpoint_read(struct slice note, const struct checkpoint_key *keys, size_t nkeys,
    struct checkpoint *out, struct err *err)
{
	enum checkpoint_verdict v;
	struct slice text;

	if ((v = checkpoint_open_note(note, keys, nkeys, &text, err)) != CHECKPOINT_GOOD)
		return v;
	if (parse_text(text, out))
		return CHECKPOINT_GOOD;
	err_set(err, "not the text of a checkpoint");
	return CHECKPOINT_MALFORMED;
}

const char *
checkpoint_log(const char *origin, const struct checkpoint_key *keys, size_t nkeys)
{
	const char *slash = strrchr(origin, '/');
	size_t n = slash != NULL ? (size_t)(slash - origin) : 0;

	for (size_t i = 0; i < nkeys && slash != NULL; i++)
		if (strlen(keys[i].name) == n && memcmp(keys[i].name, origin, n) == 0)
			return slash + 1;
	return NULL;
}

bool
checkpoint_peek(struct slice note, struct checkpoint *out)
{
	struct slice text;

	return checkpoint_note_text(note, &text) && parse_text(text, out);
}
