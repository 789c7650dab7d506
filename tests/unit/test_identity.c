#include "keytrail/identity.h"

#include <openssl/evp.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ACCOUNT "a12333e9bd28461a8c92385628efac9f"
#define URN	"urn:ibm:params:oauth:grant-type:"

/* RFC 4648 section 5 without padding; NUL-terminated. */
static void
encode(struct slice in, char *out)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned acc = 0, bits = 0;

	for (size_t i = 0; i < in.n; i++) {
		acc = acc << 8 | (unsigned char)in.p[i];
		for (bits += 8; bits >= 6; bits -= 6)
			*out++ = digits[acc >> (bits - 6) & 63];
	}
	if (bits > 0)
		*out++ = digits[acc << (6 - bits) & 63];
	*out = '\0';
}

/* identity_from_authorization from memory of exactly the value's size. */
static void
read_value(const char *value, struct identity *id)
{
	size_t n = strlen(value);
	char *copy = malloc(n > 0 ? n : 1);

	assert_non_null(copy);
	memcpy(copy, value, n);
	memset(id, 0xa5, sizeof(*id));
	identity_from_authorization((struct slice){ copy, n }, id);
	free(copy);
}

static void
read_claims(struct slice claims, struct identity *id)
{
	static char encoded[3 * IDENTITY_TOKEN_MAX], value[4 * IDENTITY_TOKEN_MAX];

	encode(claims, encoded);
	snprintf(value, sizeof(value), "Bearer eyJhbGciOiJub25lIn0.%s.c2ln", encoded);
	read_value(value, id);
}

static void
assert_no_strings(const struct identity *id)
{
	assert_string_equal(id->iam_id, "");
	assert_string_equal(id->name, "");
	assert_string_equal(id->authn_id, "");
	assert_string_equal(id->account, "");
	assert_string_equal(id->grant, "");
	assert_int_equal(id->kind, IDENTITY_USER);
}

static const struct {
	const char *label, *claims;
	enum identity_kind kind;
	const char *iam_id, *name, *authn_id, *account, *grant, *type;
} good[] = {
	{ "user",
	    "{\"iam_id\":\"IBMid-1\",\"sub\":\"jane@example.com\",\"grant_type\":\"password\","
	    "\"account\":{\"bss\":\"" ACCOUNT "\"},\"authn\":{\"iam_id\":\"IBMid-2\"}}",
	    IDENTITY_USER, "IBMid-1", "jane@example.com", "IBMid-2", ACCOUNT, "password", "user" },
	{ "service id with an API key",
	    "{\"iam_id\":\"iam-ServiceId-1\",\"sub\":\"ServiceId-1\",\"sub_type\":\"ServiceId\","
	    "\"grant_type\":\"" URN "apikey\"}",
	    IDENTITY_SERVICE_ID, "iam-ServiceId-1", "ServiceId-1", "", "", "apikey", "apikey" },
	{ "trusted profile", "{\"iam_id\":\"iam-Profile-1\",\"sub_type\":\"Profile\"}",
	    IDENTITY_PROFILE, "iam-Profile-1", "", "", "", "", "token" },
	{ "kind that we do not know", "{\"sub_type\":\"CRN\"}", IDENTITY_USER, "", "", "", "", "",
	    "token" },
	{ "passcode", "{\"grant_type\":\"" URN "passcode\"}", IDENTITY_USER, "", "", "", "",
	    "passcode", "user" },
	{ "authorization code", "{\"grant_type\":\"authorization_code\"}", IDENTITY_USER, "", "",
	    "", "", "authorization_code", "user" },
	{ "other grant", "{\"grant_type\":\"" URN "cr-token\"}", IDENTITY_USER, "", "", "", "",
	    "cr-token", "token" },
	{ "no claims of ours", "{}", IDENTITY_USER, "", "", "", "", "", "token" },
	{ "personal claims are stepped over",
	    "{\"given_name\":\"Jane\",\"family_name\":\"Doe\",\"email\":\"j@x\",\"id\":\"IBMid-9\","
	    "\"iam_id\":\"IBMid-1\",\"authn\":{\"sub\":\"j@x\",\"name\":\"Jane\"}}",
	    IDENTITY_USER, "IBMid-1", "", "", "", "", "token" },
	{ "escaped names and values",
	    "{\"iam\\u005fid\":\"IBMid\\u002d1\",\"\\u0073ub\":\"caf\\u00e9\"}", IDENTITY_USER,
	    "IBMid-1", "caf\xc3\xa9", "", "", "", "token" },
	{ "our names inside other objects are others",
	    "{\"ext\":{\"iam_id\":\"x\",\"sub\":[\"y\"]},\"iam_id\":\"IBMid-1\","
	    "\"account\":{\"sub\":\"z\",\"valid\":true,\"bss\":\"" ACCOUNT "\",\"n\":[1,{}]}}",
	    IDENTITY_USER, "IBMid-1", "", "", ACCOUNT, "", "token" },
	{ "values of other types in claims that are not ours",
	    "{\"iat\":1,\"scope\":null,\"x\":[true,{\"y\":[]}],\"exp\":-1.5e3,\"sub\":\"s\"}",
	    IDENTITY_USER, "", "s", "", "", "", "token" },
	{ "values outside their grammar are redacted",
	    "{\"iam_id\":\"a b\",\"grant_type\":\"a/b\",\"account\":{\"bss\":\"12\"},"
	    "\"authn\":{\"iam_id\":\"\\u0000\"}}",
	    IDENTITY_USER, "[redacted]", "", "[redacted]", "[redacted]", "[redacted]", "token" },
	{ "name without what cannot be seen", "{\"sub\":\"a\\n\\u202eb\\u0000c\"}", IDENTITY_USER,
	    "",
	    "a\xef\xbf\xbd\xef\xbf\xbd"
	    "b\xef\xbf\xbd"
	    "c",
	    "", "", "", "token" },
	{ "white space between tokens", " { \"iam_id\" : \"IBMid-1\" } ", IDENTITY_USER, "IBMid-1",
	    "", "", "", "", "token" },
	{ "empty values", "{\"iam_id\":\"\",\"sub\":\"\",\"account\":{},\"authn\":{}}",
	    IDENTITY_USER, "", "", "", "", "", "token" },
};

static void
claims_become_facts(void **state)
{
	struct identity id;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		read_claims(slice_of(good[i].claims), &id);
		if (id.state != IDENTITY_TOKEN)
			fail_msg("%s: state %d", good[i].label, (int)id.state);
		assert_int_equal(id.kind, good[i].kind);
		assert_string_equal(id.iam_id, good[i].iam_id);
		assert_string_equal(id.name, good[i].name);
		assert_string_equal(id.authn_id, good[i].authn_id);
		assert_string_equal(id.account, good[i].account);
		assert_string_equal(id.grant, good[i].grant);
		assert_string_equal(identity_credential_type(&id), good[i].type);
	}
}

static const struct {
	const char *label;
	struct slice claims;
} unparsable_claims[] = {
	{ "not an object", SLICE_INIT("[]") },
	{ "a string", SLICE_INIT("\"iam_id\"") },
	{ "no text", SLICE_INIT(" ") },
	{ "cut", SLICE_INIT("{\"iam_id\":\"IBMid-1\"") },
	{ "text after the object", SLICE_INIT("{\"iam_id\":\"IBMid-1\"}{}") },
	{ "NUL after the object", SLICE_INIT("{\"iam_id\":\"IBMid-1\"}\0") },
	{ "iam_id twice", SLICE_INIT("{\"iam_id\":\"IBMid-1\",\"iam_id\":\"IBMid-1\"}") },
	{ "iam_id twice, once escaped",
	    SLICE_INIT("{\"iam_id\":\"IBMid-1\",\"iam\\u005Fid\":\"IBMid-2\"}") },
	{ "sub twice", SLICE_INIT("{\"sub\":\"a\",\"x\":1,\"sub\":\"b\"}") },
	{ "sub_type twice", SLICE_INIT("{\"sub_type\":\"a\",\"sub_type\":\"ServiceId\"}") },
	{ "grant_type twice", SLICE_INIT("{\"grant_type\":\"a\",\"grant_type\":\"b\"}") },
	{ "account twice", SLICE_INIT("{\"account\":{},\"account\":{}}") },
	{ "account.bss twice", SLICE_INIT("{\"account\":{\"bss\":\"a\",\"bss\":\"b\"}}") },
	{ "account.bss twice, once escaped",
	    SLICE_INIT("{\"account\":{\"bss\":\"a\",\"\\u0062ss\":\"b\"}}") },
	{ "authn twice", SLICE_INIT("{\"authn\":{\"iam_id\":\"a\"},\"authn\":{}}") },
	{ "authn.iam_id twice", SLICE_INIT("{\"authn\":{\"iam_id\":\"a\",\"iam_id\":\"b\"}}") },
	{ "iam_id is a number", SLICE_INIT("{\"iam_id\":1}") },
	{ "iam_id is null", SLICE_INIT("{\"iam_id\":null}") },
	{ "iam_id is a list", SLICE_INIT("{\"iam_id\":[\"IBMid-1\"]}") },
	{ "sub is an object", SLICE_INIT("{\"sub\":{}}") },
	{ "sub_type is true", SLICE_INIT("{\"sub_type\":true}") },
	{ "grant_type is a number", SLICE_INIT("{\"grant_type\":1}") },
	{ "account is a string", SLICE_INIT("{\"account\":\"" ACCOUNT "\"}") },
	{ "account.bss is a number", SLICE_INIT("{\"account\":{\"bss\":1}}") },
	{ "authn is a list", SLICE_INIT("{\"authn\":[]}") },
	{ "malformed after our claims", SLICE_INIT("{\"iam_id\":\"IBMid-1\",\"x\":tru}") },
	{ "invalid UTF-8 in our claim", SLICE_INIT("{\"sub\":\"\xff\"}") },
	{ "invalid UTF-8 elsewhere", SLICE_INIT("{\"iam_id\":\"IBMid-1\",\"x\":\"\xc0\xaf\"}") },
	{ "lone surrogate", SLICE_INIT("{\"sub\":\"\\ud800\"}") },
};

static void
claims_that_can_be_read_in_two_ways_name_nobody(void **state)
{
	struct identity id;

	(void)state;
	for (size_t i = 0; i < sizeof(unparsable_claims) / sizeof(*unparsable_claims); i++) {
		read_claims(unparsable_claims[i].claims, &id);
		if (id.state != IDENTITY_UNPARSABLE)
			fail_msg("%s: state %d", unparsable_claims[i].label, (int)id.state);
		assert_no_strings(&id);
	}
}

/* {"iam_id":"IBMid-1"} */
#define CLAIMS "eyJpYW1faWQiOiJJQk1pZC0xIn0"

static const struct {
	const char *label, *value;
	enum identity_state state;
} values[] = {
	{ "as it should be", "Bearer e30." CLAIMS ".c2ln", IDENTITY_TOKEN },
	{ "scheme in lower case", "bearer e30." CLAIMS ".c2ln", IDENTITY_TOKEN },
	{ "scheme in capitals", "BEARER e30." CLAIMS ".c2ln", IDENTITY_TOKEN },
	{ "several spaces", "Bearer   e30." CLAIMS ".c2ln", IDENTITY_TOKEN },
	{ "empty", "", IDENTITY_UNPARSABLE },
	{ "scheme alone", "Bearer", IDENTITY_UNPARSABLE },
	{ "scheme and a space", "Bearer ", IDENTITY_UNPARSABLE },
	{ "no scheme", "e30." CLAIMS ".c2ln", IDENTITY_UNPARSABLE },
	{ "other scheme", "Basic e30." CLAIMS ".c2ln", IDENTITY_UNPARSABLE },
	{ "longer scheme", "Bearers e30." CLAIMS ".c2ln", IDENTITY_UNPARSABLE },
	{ "tab after the scheme", "Bearer\te30." CLAIMS ".c2ln", IDENTITY_UNPARSABLE },
	{ "repeated header", "[repeated]", IDENTITY_UNPARSABLE },
	{ "two tokens", "Bearer e30." CLAIMS ".c2ln, Bearer e30." CLAIMS ".c2ln",
	    IDENTITY_UNPARSABLE },
	{ "opaque token", "Bearer abcdef", IDENTITY_UNPARSABLE },
	{ "two segments", "Bearer e30." CLAIMS, IDENTITY_UNPARSABLE },
	{ "four segments", "Bearer e30." CLAIMS ".c2ln.c2ln", IDENTITY_UNPARSABLE },
	{ "empty header", "Bearer ." CLAIMS ".c2ln", IDENTITY_UNPARSABLE },
	{ "empty claims", "Bearer e30..c2ln", IDENTITY_UNPARSABLE },
	{ "empty signature", "Bearer e30." CLAIMS ".", IDENTITY_UNPARSABLE },
	{ "padding", "Bearer e30." CLAIMS "=.c2ln", IDENTITY_UNPARSABLE },
	{ "base64 of the other alphabet", "Bearer e3+." CLAIMS ".c2ln", IDENTITY_UNPARSABLE },
	{ "space inside", "Bearer e30." CLAIMS " .c2ln", IDENTITY_UNPARSABLE },
	{ "one digit too many", "Bearer e30.eyJpYW1faWQiOiJJQk1pZC0xIn0Ab.c2ln",
	    IDENTITY_UNPARSABLE },
	{ "length that no bytes have", "Bearer e30." CLAIMS "AA.c2ln", IDENTITY_UNPARSABLE },
	{ "signature of a length that no bytes have", "Bearer e30." CLAIMS ".c2lnA",
	    IDENTITY_UNPARSABLE },
	{ "unused bits are set", "Bearer e30.eyJpYW1faWQiOiJJQk1pZC0xIn1.c2ln",
	    IDENTITY_UNPARSABLE },
	{ "malformed signature", "Bearer e30." CLAIMS ".c2l!", IDENTITY_UNPARSABLE },
	{ "non-ASCII", "Bearer e30." CLAIMS ".c2l\xc3\xa9", IDENTITY_UNPARSABLE },
};

static void
only_a_bearer_token_of_three_segments_is_read(void **state)
{
	struct identity id;

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		read_value(values[i].value, &id);
		if (id.state != values[i].state)
			fail_msg("%s: state %d", values[i].label, (int)id.state);
		if (id.state == IDENTITY_TOKEN)
			assert_string_equal(id.iam_id, "IBMid-1");
		else
			assert_no_strings(&id);
	}
}

static void
no_header_is_public_access(void **state)
{
	struct identity id;

	(void)state;
	identity_from_authorization((struct slice){ NULL, 0 }, &id);
	assert_int_equal(id.state, IDENTITY_NONE);
	assert_no_strings(&id);
	assert_string_equal(identity_credential_type(&id), "public-access");
	read_value("Basic YTpi", &id);
	assert_string_equal(identity_credential_type(&id), "token");
}

static void
a_long_value_is_redacted_or_cut(void **state)
{
	struct identity id;
	char claims[4096], ids[200], names[300];
	int n;

	(void)state;
	memset(ids, 'i', sizeof(ids));
	memset(names, 'n', sizeof(names));
	n = snprintf(
	    claims, sizeof(claims), "{\"iam_id\":\"%.128s\",\"sub\":\"%.256s\"}", ids, names);
	read_claims((struct slice){ claims, (size_t)n }, &id);
	assert_int_equal(strlen(id.iam_id), 128);
	assert_int_equal(strlen(id.name), 256);
	n = snprintf(claims, sizeof(claims), "{\"iam_id\":\"%.129s\",\"sub\":\"%.255s\xc3\xa9\"}",
	    ids, names);
	read_claims((struct slice){ claims, (size_t)n }, &id);
	assert_string_equal(id.iam_id, "[redacted]");
	assert_int_equal(strlen(id.name), 255);
}

static void
a_long_escaped_value_is_redacted(void **state)
{
	struct identity id;
	char claims[4096] = "{\"sub\":\"\\u0041";
	size_t n = strlen(claims);

	(void)state;
	memset(claims + n, 'n', 2000);
	strcpy(claims + n + 2000, "\"}");
	read_claims(slice_of(claims), &id);
	assert_int_equal(id.state, IDENTITY_TOKEN);
	assert_string_equal(id.name, "[redacted]");
}

static void
a_token_may_fill_its_bound_and_no_more(void **state)
{
	static char value[IDENTITY_TOKEN_MAX + 64];
	struct identity id;
	int n = snprintf(value, sizeof(value), "Bearer e30." CLAIMS ".");
	size_t end = IDENTITY_TOKEN_MAX + strlen("Bearer ");

	(void)state;
	memset(value + n, 'A', end - (size_t)n);
	read_value(value, &id);
	assert_int_equal(id.state, IDENTITY_TOKEN);
	memset(value + n, 'A', end + 3 - (size_t)n);
	read_value(value, &id);
	assert_int_equal(id.state, IDENTITY_UNPARSABLE);
}

/* A whole token of claims alone, so that the decoded text is as long as it can be. */
static void
claims_may_fill_the_token(void **state)
{
	static char claims[IDENTITY_TOKEN_MAX], value[2 * IDENTITY_TOKEN_MAX];
	struct identity id;
	size_t n = (IDENTITY_TOKEN_MAX - 8) / 4 * 3;
	char *end;

	(void)state;
	memset(claims, ' ', n);
	memcpy(claims, "{\"iam_id\":\"IBMid-1\"}", 20);
	strcpy(value, "Bearer e30.");
	end = value + strlen(value);
	encode((struct slice){ claims, n }, end);
	strcat(value, ".AAA");
	read_value(value, &id);
	assert_int_equal(id.state, IDENTITY_TOKEN);
}

static void
a_certificate_names_its_subject(void **state)
{
	const struct identity_certificate cert = { SLICE("CN=vault\\, prod,O=Example\x01"),
		SLICE("CN=b\x7f") };
	struct identity id;

	(void)state;
	identity_from_certificate(&cert, &id);
	assert_int_equal(id.state, IDENTITY_CERTIFICATE);
	assert_int_equal(id.kind, IDENTITY_CLIENT_CERT);
	assert_string_equal(id.name, "CN=vault\\, prod,O=Example\xef\xbf\xbd");
	assert_string_equal(id.other, "CN=b\xef\xbf\xbd");
	assert_string_equal(id.iam_id, "");
	assert_string_equal(identity_credential_type(&id), "certificate");
}

/* OpenSSL's own GMAC, encrypted once more. */
static void
expect_keyhash(const unsigned char key[KEYHASH_KEY_SIZE], struct slice text, uint64_t want[2])
{
	static const unsigned char nonce[12];
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	unsigned char tag[16];
	int n;

	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, key, nonce), 1);
	if (text.n > 0)
		EVP_EncryptUpdate(ctx, NULL, &n, (const unsigned char *)text.p, (int)text.n);
	EVP_EncryptFinal_ex(ctx, tag, &n);
	EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, sizeof(tag), tag);
	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_128_ecb(), NULL, key, NULL), 1);
	EVP_EncryptUpdate(ctx, (unsigned char *)want, &n, tag, sizeof(tag));
	EVP_CIPHER_CTX_free(ctx);
}

static void
keyhash_is_the_encrypted_gmac_of_a_text(void **state)
{
	unsigned char key[KEYHASH_KEY_SIZE];
	char text[100];
	struct keyhash *h;
	uint64_t got[2], want[2];

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)i;
	memcpy(key, text + 5, sizeof(key));
	assert_non_null(h = keyhash_new(key));
	for (size_t n = 0; n <= sizeof(text); n++) {
		keyhash(h, (struct slice){ text, n }, got);
		expect_keyhash(key, (struct slice){ text, n }, want);
		assert_memory_equal(got, want, sizeof(got));
	}
	keyhash_free(h);
}

/* More tokens than rows, so that they push each other out. */
static void
what_is_recalled_is_what_the_token_says(void **state)
{
	static const unsigned char key[KEYHASH_KEY_SIZE] = { 1 };
	static struct identity_memo memo;
	struct identity got, want;
	char claims[64], encoded[128], value[256];

	(void)state;
	assert_int_equal(identity_memo_init(&memo, key), 0);
	for (int i = 0; i < 4 * IDENTITY_MEMO_ROWS; i++) {
		snprintf(claims, sizeof(claims), "{\"iam_id\":\"IBMid-%d\"}", i);
		encode(slice_of(claims), encoded);
		snprintf(value, sizeof(value), "Bearer e30.%s.%s", encoded, i % 5 ? "c2ln" : "!");
		identity_from_authorization(slice_of(value), &want);
		for (int again = 0; again < 2; again++) {
			memset(&got, 0xa5, sizeof(got));
			identity_recall(&memo, slice_of(value), true, &got);
			assert_memory_equal(&got, &want, sizeof(got));
		}
	}
	identity_recall(&memo, (struct slice){ NULL, 0 }, true, &got);
	assert_int_equal(got.state, IDENTITY_NONE);
	identity_memo_fini(&memo);
}

static void
a_token_is_read_once(void **state)
{
	static const unsigned char key[KEYHASH_KEY_SIZE] = { 1 };
	static struct identity_memo memo;
	struct slice value = SLICE("Bearer e30.e30.c2ln");
	struct identity got;

	(void)state;
	assert_int_equal(identity_memo_init(&memo, key), 0);
	identity_recall(&memo, value, true, &got);
	for (size_t i = 0; i < IDENTITY_MEMO_ROWS; i++)
		strcpy(memo.rows[i].identity.iam_id, "remembered");
	identity_recall(&memo, value, true, &got);
	assert_string_equal(got.iam_id, "remembered");
	identity_recall(&memo, SLICE("Bearer e30.e30.c2lm"), true, &got);
	assert_string_equal(got.iam_id, "");
	identity_memo_fini(&memo);
}

static bool
holds(const struct identity_memo *m, const char *text)
{
	return memmem(m, sizeof(*m), text, strlen(text)) != NULL;
}

static void
a_name_is_remembered_only_where_it_is_shown(void **state)
{
	static const unsigned char key[KEYHASH_KEY_SIZE] = { 1 };
	static struct identity_memo memo;
	struct identity got;
	char encoded[128], value[256];

	(void)state;
	encode(SLICE("{\"iam_id\":\"IBMid-1\",\"sub\":\"alice\"}"), encoded);
	snprintf(value, sizeof(value), "Bearer e30.%s.c2ln", encoded);
	assert_int_equal(identity_memo_init(&memo, key), 0);
	for (int again = 0; again < 2; again++) {
		identity_recall(&memo, slice_of(value), false, &got);
		assert_string_equal(got.iam_id, "IBMid-1");
		assert_string_equal(got.name, "");
		assert_false(holds(&memo, "alice"));
	}
	identity_recall(&memo, slice_of(value), true, &got);
	assert_string_equal(got.name, "alice");
	identity_recall(&memo, slice_of(value), false, &got);
	assert_string_equal(got.name, "");
	assert_false(holds(&memo, "alice"));
	identity_memo_fini(&memo);
}

static void
what_is_old_is_forgotten(void **state)
{
	static const unsigned char key[KEYHASH_KEY_SIZE] = { 1 };
	static struct identity_memo memo;
	struct identity got;
	char encoded[128], value[256];

	(void)state;
	encode(SLICE("{\"iam_id\":\"IBMid-1\"}"), encoded);
	snprintf(value, sizeof(value), "Bearer e30.%s.c2ln", encoded);
	assert_int_equal(identity_memo_init(&memo, key), 0);
	assert_false(identity_memo_age(&memo));
	identity_recall(&memo, slice_of(value), true, &got);
	assert_true(identity_memo_age(&memo));
	/* That it is asked for keeps nothing young. */
	identity_recall(&memo, slice_of(value), true, &got);
	assert_true(holds(&memo, "IBMid-1"));
	assert_false(identity_memo_age(&memo));
	assert_false(holds(&memo, "IBMid-1"));
	identity_recall(&memo, slice_of(value), true, &got);
	assert_string_equal(got.iam_id, "IBMid-1");
	identity_memo_fini(&memo);
	assert_false(holds(&memo, "IBMid-1"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(claims_become_facts),
		cmocka_unit_test(claims_that_can_be_read_in_two_ways_name_nobody),
		cmocka_unit_test(only_a_bearer_token_of_three_segments_is_read),
		cmocka_unit_test(no_header_is_public_access),
		cmocka_unit_test(a_long_value_is_redacted_or_cut),
		cmocka_unit_test(a_long_escaped_value_is_redacted),
		cmocka_unit_test(a_token_may_fill_its_bound_and_no_more),
		cmocka_unit_test(claims_may_fill_the_token),
		cmocka_unit_test(a_certificate_names_its_subject),
		cmocka_unit_test(keyhash_is_the_encrypted_gmac_of_a_text),
		cmocka_unit_test(what_is_recalled_is_what_the_token_says),
		cmocka_unit_test(a_token_is_read_once),
		cmocka_unit_test(a_name_is_remembered_only_where_it_is_shown),
		cmocka_unit_test(what_is_old_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
