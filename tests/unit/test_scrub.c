#include "keytrail/scrub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define UUID "fd692647-43d0-4699-9f83-f39a54b1327b"
#define N16  "0123456789abcdef"
#define N64  N16 N16 N16 N16
#define N40  N16 N16 "01234567"

static const struct {
	enum scrub_grammar g;
	const char *value;
	bool fits;
} grammars[] = {
	{ SCRUB_UUID, UUID, true },
	{ SCRUB_UUID, "FD692647-43D0-4699-9F83-F39A54B1327B", true },
	{ SCRUB_UUID, "", false },
	{ SCRUB_UUID, "fd692647-43d0-4699-9f83-f39a54b1327", false },
	{ SCRUB_UUID, UUID "0", false },
	{ SCRUB_UUID, "gd692647-43d0-4699-9f83-f39a54b1327b", false },
	{ SCRUB_UUID, "fd69264-743d0-4699-9f83-f39a54b1327b", false },
	{ SCRUB_UUID, "fd692647043d004699-9f83-f39a54b1327b", false },
	{ SCRUB_UUID, "fd692647-43d0-4699-9f83-f39a54b1327-", false },
	{ SCRUB_UUID, "{d692647-43d0-4699-9f83-f39a54b1327}", false },
	{ SCRUB_CORRELATION, "a", true },
	{ SCRUB_CORRELATION, "Root=1-67891233:a_b.c", false },
	{ SCRUB_CORRELATION, "1-67891233:a_b.c", true },
	{ SCRUB_CORRELATION, N64, true },
	{ SCRUB_CORRELATION, N64 "0", false },
	{ SCRUB_CORRELATION, "a b", false },
	{ SCRUB_CORRELATION, "a\"", false },
	{ SCRUB_CORRELATION, "a,b", false },
	{ SCRUB_KEY_RING, "a", false },
	{ SCRUB_KEY_RING, "ab", true },
	{ SCRUB_KEY_RING, "My-Ring-1", true },
	{ SCRUB_KEY_RING, "my_ring", false },
	{ SCRUB_KEY_RING, N64 N16 N16 "0123", true },
	{ SCRUB_KEY_RING, N64 N16 N16 "01234", false },
	{ SCRUB_ALIAS, "a", false },
	{ SCRUB_ALIAS, "my_alias-1", true },
	{ SCRUB_ALIAS, UUID, true },
	{ SCRUB_ALIAS, "my.alias", false },
	{ SCRUB_ALIAS, "my%20alias", false },
	{ SCRUB_ALIAS, N64 N16 "0123456789", true },
	{ SCRUB_ALIAS, N64 N16 "01234567890", false },
	{ SCRUB_ACCOUNT, "a12333e9bd28461a8c92385628efac9f", true },
	{ SCRUB_ACCOUNT, "A12333e9bd28461a8c92385628efac9f", false },
	{ SCRUB_ACCOUNT, "a12333e9bd28461a8c92385628efac9", false },
	{ SCRUB_ACCOUNT, "a12333e9bd28461a8c92385628efac9ff", false },
	{ SCRUB_ACCOUNT, "g12333e9bd28461a8c92385628efac9f", false },
	{ SCRUB_IAM_ID, "IBMid-270004WEEK", true },
	{ SCRUB_IAM_ID, "iam-ServiceId-" UUID, true },
	{ SCRUB_IAM_ID, "user@example.com", true },
	{ SCRUB_IAM_ID, "a/b", false },
	{ SCRUB_IAM_ID, "a b", false },
	{ SCRUB_IAM_ID, N64 N64, true },
	{ SCRUB_IAM_ID, N64 N64 "0", false },
	{ SCRUB_IAM_ID, "caf\xc3\xa9", false },
	{ SCRUB_METHOD, "GET", true },
	{ SCRUB_METHOD, "HEAD", true },
	{ SCRUB_METHOD, "POST", true },
	{ SCRUB_METHOD, "PUT", true },
	{ SCRUB_METHOD, "DELETE", true },
	{ SCRUB_METHOD, "CONNECT", true },
	{ SCRUB_METHOD, "OPTIONS", true },
	{ SCRUB_METHOD, "TRACE", true },
	{ SCRUB_METHOD, "PATCH", true },
	{ SCRUB_METHOD, "get", false },
	{ SCRUB_METHOD, "GETS", false },
	{ SCRUB_METHOD, "PROPFIND", false },
	{ SCRUB_IDENTIFIER, "authorization_code", true },
	{ SCRUB_IDENTIFIER, "urn:x", false },
	{ SCRUB_IDENTIFIER, N64, true },
	{ SCRUB_IDENTIFIER, N64 "0", false },
};

static void
a_value_is_itself_or_redacted(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(grammars) / sizeof(*grammars); i++) {
		struct slice v = slice_of(grammars[i].value);
		struct slice got = scrub_value(grammars[i].g, v);

		if (scrub_fits(grammars[i].g, v) != grammars[i].fits)
			fail_msg("grammar %d, \"%s\"", (int)grammars[i].g, grammars[i].value);
		if (grammars[i].fits)
			assert_ptr_equal(got.p, v.p);
		else if (v.n > 0)
			assert_true(slice_equal(got, SLICE("[redacted]")));
	}
}

static void
an_empty_value_stays_empty(void **state)
{
	(void)state;
	for (int g = SCRUB_UUID; g <= SCRUB_IDENTIFIER; g++) {
		assert_false(scrub_fits((enum scrub_grammar)g, SLICE_EMPTY));
		assert_int_equal(scrub_value((enum scrub_grammar)g, SLICE_EMPTY).n, 0);
		assert_int_equal(
		    scrub_value((enum scrub_grammar)g, (struct slice){ NULL, 0 }).n, 0);
	}
}

/* Only these bytes may ever be accepted, wherever they stand. */
static void
no_grammar_takes_a_byte_outside_its_set(void **state)
{
	static const char *const sets[] = {
		[SCRUB_UUID] = "-0123456789abcdefABCDEF",
		[SCRUB_CORRELATION] = "-_.:",
		[SCRUB_KEY_RING] = "-",
		[SCRUB_ALIAS] = "-_",
		[SCRUB_ACCOUNT] = "0123456789abcdef",
		[SCRUB_IAM_ID] = "-_.:@",
		[SCRUB_METHOD] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		[SCRUB_IDENTIFIER] = "-_",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(grammars) / sizeof(*grammars); i++) {
		enum scrub_grammar g = grammars[i].g;
		bool alnum = g != SCRUB_UUID && g != SCRUB_ACCOUNT && g != SCRUB_METHOD;
		char copy[160];
		size_t n = strlen(grammars[i].value);

		if (!grammars[i].fits)
			continue;
		for (size_t at = 0; at < n; at++) {
			for (int c = 0; c < 256; c++) {
				bool allowed = c != 0 && strchr(sets[g], c) != NULL;

				allowed |=
				    alnum && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
						 (c >= 'A' && c <= 'Z'));
				memcpy(copy, grammars[i].value, n);
				copy[at] = (char)c;
				if (!allowed && scrub_fits(g, (struct slice){ copy, n }))
					fail_msg("grammar %d takes byte %d", (int)g, c);
			}
		}
	}
}

static const struct {
	const char *label, *in, *want;
} agents[] = {
	{ "nothing", "", "" },
	{ "one product", "curl/7.88.1", "curl/7.88.1" },
	{ "comment in the middle", "curl/7.88.1 (x; y) OpenSSL/3", "curl/7.88.1 OpenSSL/3" },
	{ "browser",
	    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0",
	    "Mozilla/5.0 AppleWebKit/537.36 Chrome/126.0" },
	{ "nested comment", "a/1 (b (c) d) e/2", "a/1 e/2" },
	{ "quoted parenthesis", "a/1 (b \\) secret) e/2", "a/1 e/2" },
	{ "comment that never closes", "a/1 (secret e/2", "a/1" },
	{ "quoted pair at the end", "a/1 (x\\", "a/1" },
	{ "comment only", "(secret)", "" },
	{ "tabs and runs of spaces", "\ta/1  \t b/2 ", "a/1 b/2" },
	{ "word without a version", "unix_ms", "[redacted]" },
	{ "words in a row", "a/1 one two three b/2", "a/1 [redacted] b/2" },
	{ "empty name", "/1", "[redacted]" },
	{ "empty version", "a/", "[redacted]" },
	{ "two slashes", "a/b/c", "[redacted]" },
	{ "quote", "a/\"b\"", "[redacted]" },
	{ "at sign", "user@example/1", "[redacted]" },
	{ "comment glued to a product", "a/1(secret)", "[redacted]" },
	{ "closing parenthesis alone", "a/1 ) b/2", "a/1 [redacted] b/2" },
	{ "non-ASCII", "caf\xc3\xa9/1", "[redacted]" },
	{ "control byte", "a/1\x01", "[redacted]" },
	{ "name of 40 bytes", N40 "/1", N40 "/1" },
	{ "name of 41 bytes", N40 "8/1", "[redacted]" },
	{ "version of 40 bytes", "a/" N40, "a/" N40 },
	{ "API key as a version", "a/" N40 "8", "[redacted]" },
	{ "JWT as a version",
	    "a/1 t/eyJhbGciOiJSUzI1NiJ9.eyJpYW1faWQiOiJJQk1pZC0xIn0.c2lnbmF0dXJl b/2",
	    "a/1 [redacted] b/2" },
	{ "percent escapes are token characters", "a%20b/1", "a%20b/1" },
	{ "as many products as fit", "a/" N40 " b/" N40 " c/" N40 " d/1",
	    "a/" N40 " b/" N40 " c/" N40 },
	{ "never part of a product", "a/" N40 " b/" N40 " cc/" N40, "a/" N40 " b/" N40 },
};

static void
an_agent_keeps_its_products_alone(void **state)
{
	char out[SCRUB_AGENT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(agents) / sizeof(*agents); i++) {
		size_t n = scrub_agent(slice_of(agents[i].in), out);

		if (!slice_equal((struct slice){ out, n }, slice_of(agents[i].want)))
			fail_msg("%s: got \"%.*s\"", agents[i].label, (int)n, out);
	}
}

#define R "\xef\xbf\xbd"

static const struct {
	const char *label, *in, *want;
} texts[] = {
	{ "plain", "CN=a, O=b", "CN=a, O=b" },
	{ "other scripts", "caf\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x94\x91",
	    "caf\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x94\x91" },
	{ "C0", "a\nb\tc\x1f", "a" R "b" R "c" R },
	{ "DEL", "a\x7f", "a" R },
	{ "C1", "a\xc2\x80\xc2\x85\xc2\x9f\xc2\xa0", "a" R R R "\xc2\xa0" },
	{ "right-to-left override",
	    "a\xe2\x80\xae"
	    "b",
	    "a" R "b" },
	{ "left-to-right embedding", "\xe2\x80\xaa", R },
	{ "isolates", "\xe2\x81\xa6\xe2\x81\xa9", R R },
	{ "direction marks", "\xe2\x80\x8e\xe2\x80\x8f\xd8\x9c", R R R },
	{ "zero width", "a\xe2\x80\x8b\xe2\x80\x8c\xe2\x80\x8d\xe2\x81\xa0\xef\xbb\xbf",
	    "a" R R R R R },
	{ "line separators",
	    "a\xe2\x80\xa8"
	    "b\xe2\x80\xa9"
	    "c",
	    "a" R "b" R "c" },
	{ "neighbours stay", "\xe2\x80\x8a\xe2\x80\x90\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xb0",
	    "\xe2\x80\x8a\xe2\x80\x90\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xb0" },
	{ "invalid bytes", "a\xff\xc3", "a" R R },
	{ "surrogate", "\xed\xa0\x80", R R R },
	{ "tags", "\xf3\xa0\x81\x81", R },
};

static void
text_loses_what_cannot_be_seen(void **state)
{
	char out[64];

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		size_t n = scrub_text(slice_of(texts[i].in), out, sizeof(out));

		if (!slice_equal((struct slice){ out, n }, slice_of(texts[i].want)))
			fail_msg("%s: got \"%.*s\"", texts[i].label, (int)n, out);
	}
	assert_int_equal(scrub_text((struct slice){ "a\0b", 3 }, out, sizeof(out)), 5);
	assert_memory_equal(out, "a" R "b", 5);
}

static void
text_is_cut_at_a_character(void **state)
{
	static const size_t want[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10 };
	char out[16];

	(void)state;
	for (size_t cap = 0; cap < sizeof(want) / sizeof(*want); cap++)
		assert_int_equal(
		    scrub_text(SLICE("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), out, cap),
		    want[cap]);
	assert_int_equal(scrub_text(SLICE("\n"), out, 2), 0);
}

static const unsigned char key[SCRUB_HMAC_KEY_SIZE] = "0123456789abcdef0123456789abcde";

/* Computed with Python's hmac and base64 modules. */
static const struct {
	unsigned epoch;
	const char *instance, *id, *want;
} refs[] = {
	{ 1, UUID, "76c2c9cb-9095-5a24-811b-0ef4b24ac4d5", "h1:1:JQVLFIZQIMZT5D4HZGLLPDWYIY" },
	{ 1, UUID, "76C2C9CB-9095-5A24-811B-0EF4B24AC4D5", "h1:1:JQVLFIZQIMZT5D4HZGLLPDWYIY" },
	{ 4294967295, UUID, "My-Alias", "h1:4294967295:KZSK3T6FGIELNCDYJZ4BX3QSLA" },
	{ 1, UUID, "my-alias", "h1:1:OOOSWDE3WI2RBMA6QZL7XPGJFY" },
	{ 1, "", "my-alias", "h1:1:XK7WBRI4YFN5BBUIZ4T32NTYME" },
};

static void
a_key_reference_is_a_keyed_digest(void **state)
{
	char out[SCRUB_KEY_REF_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(refs) / sizeof(*refs); i++) {
		assert_int_equal(scrub_key_ref(key, refs[i].epoch, slice_of(refs[i].instance),
				     slice_of(refs[i].id), out),
		    0);
		assert_string_equal(out, refs[i].want);
	}
	assert_int_equal(scrub_name_ref(key, 7, SLICE("jane@example.com"), out), 0);
	assert_string_equal(out, "h1:7:WE7Q2JIXF37CGTAH3X3THWOAZ4");
}

static void
a_reference_of_too_much_is_refused(void **state)
{
	char big[512] = { 0 }, out[SCRUB_KEY_REF_SIZE] = "untouched";

	(void)state;
	memset(big, 'a', sizeof(big));
	assert_int_equal(scrub_name_ref(key, 1, (struct slice){ big, 500 }, out), 0);
	strcpy(out, "untouched");
	assert_int_equal(scrub_name_ref(key, 1, (struct slice){ big, sizeof(big) }, out), -1);
	assert_int_equal(
	    scrub_key_ref(key, 1, (struct slice){ big, 300 }, (struct slice){ big, 300 }, out), -1);
	assert_string_equal(out, "untouched");
}

/* It is looked at in parts. */
static void
a_uuid_is_judged_at_every_place(void **state)
{
	(void)state;
	for (size_t at = 0; at < sizeof(UUID) - 1; at++) {
		for (int c = 0; c < 256; c++) {
			char text[] = UUID;
			bool hex = strchr("0123456789abcdefABCDEF", c) != NULL && c != '\0';

			text[at] = (char)c;
			assert_int_equal(
			    scrub_fits(SCRUB_UUID, (struct slice){ text, sizeof(text) - 1 }),
			    UUID[at] == '-' ? c == '-' : hex);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_uuid_is_judged_at_every_place),
		cmocka_unit_test(a_value_is_itself_or_redacted),
		cmocka_unit_test(an_empty_value_stays_empty),
		cmocka_unit_test(no_grammar_takes_a_byte_outside_its_set),
		cmocka_unit_test(an_agent_keeps_its_products_alone),
		cmocka_unit_test(text_loses_what_cannot_be_seen),
		cmocka_unit_test(text_is_cut_at_a_character),
		cmocka_unit_test(a_key_reference_is_a_keyed_digest),
		cmocka_unit_test(a_reference_of_too_much_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
