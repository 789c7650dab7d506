#include "keytrail/jsonscan.h"
#include "keytrail/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* The tokens of a text as letters: { } [ ] k s n t f 0, then . for the end or ! for an error. */
static void
trace(struct slice text, char *out, struct jsonscan *s, struct jsonscan_token *t)
{
	static const char letters[] = "{}[]ksntf0.!";
	enum jsonscan_type type;

	jsonscan_init(s, text);
	do {
		type = jsonscan_next(s, t);
		*out++ = letters[type];
	} while (type != JSONSCAN_EOF && type != JSONSCAN_BAD);
	*out = '\0';
}

/* From memory of exactly the right size, so that the sanitizer sees a read past the end. */
static void
trace_tight(struct slice text, char *out, struct jsonscan *s, struct jsonscan_token *t)
{
	char *copy = malloc(text.n > 0 ? text.n : 1);

	assert_non_null(copy);
	memcpy(copy, text.p, text.n);
	trace((struct slice){ copy, text.n }, out, s, t);
	free(copy);
}

static const struct {
	const char *text, *want;
} good[] = {
	{ "{}", "{}." },
	{ "[]", "[]." },
	{ " \t\r\n1 ", "n." },
	{ "true", "t." },
	{ "false", "f." },
	{ "null", "0." },
	{ "\"\"", "s." },
	{ "{\"a\":1,\"b\":[true,{\"c\":null}],\"d\":\"x\"}", "{knk[t{k0}]ks}." },
	{ " { \"a\" : [ 1 , 2 ] , \"b\" : { } } ", "{k[nn]k{}}." },
	{ "[[],{},[[]]]", "[[]{}[[]]]." },
	{ "[-0,0,10,-1.5,1e9,1E+9,1.0e-9]", "[nnnnnnn]." },
	{ "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"", "s." },
	{ "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "s." },
	{ "\"\\u0000\"", "s." },
};

static void
accepts_json(void **state)
{
	struct jsonscan s;
	struct jsonscan_token t;
	char out[64];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		trace_tight(slice_of(good[i].text), out, &s, &t);
		assert_string_equal(out, good[i].want);
		assert_int_equal(s.depth, 0);
		assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_EOF);
	}
}

static const struct {
	const char *label, *text, *want;
	size_t offset;
	const char *why;
} bad[] = {
	{ "nothing", "", "!", 0, "the text ends too early" },
	{ "white space only", "  ", "!", 2, "the text ends too early" },
	{ "two values", "1 2", "n!", 2, "text after the end of the value" },
	{ "trailing comma in an array", "[1,]", "[n!", 3, "want a value" },
	{ "trailing comma in an object", "{\"a\":1,}", "{kn!", 7,
	    "want a member's name in quotes" },
	{ "leading comma", "[,1]", "[!", 1, "want a value" },
	{ "missing comma", "[1 2]", "[n!", 3, "want ',' or ']'" },
	{ "missing comma in an object", "{\"a\":1 \"b\":2}", "{kn!", 7, "want ',' or '}'" },
	{ "missing colon", "{\"a\" 1}", "{k!", 5, "want ':'" },
	{ "bare name", "{a:1}", "{!", 1, "want a member's name in quotes" },
	{ "number as a name", "{1:1}", "{!", 1, "want a member's name in quotes" },
	{ "wrong bracket", "[1}", "[n!", 2, "want ',' or ']'" },
	{ "wrong brace", "{\"a\":1]", "{kn!", 6, "want ',' or '}'" },
	{ "name without a value", "{\"a\":}", "{k!", 5, "want a value" },
	{ "open object", "{", "{!", 1, "want a member's name in quotes" },
	{ "open array", "[", "[!", 1, "the text ends too early" },
	{ "line comment", "// x\n1", "!", 0, "want a value" },
	{ "single quotes", "'a'", "!", 0, "want a value" },
	{ "NaN", "NaN", "!", 0, "want a value" },
	{ "capital True", "True", "!", 0, "want a value" },
	{ "cut word", "tru", "!", 0, "want a value" },
	{ "word with a tail", "trueish", "t!", 4, "text after the end of the value" },
	{ "byte order mark", "\xef\xbb\xbf{}", "!", 0, "want a value" },
	{ "leading zero", "01", "n!", 1, "text after the end of the value" },
	{ "plus sign", "+1", "!", 0, "want a value" },
	{ "minus alone", "-", "!", 1, "malformed number" },
	{ "point without digits", "1.", "!", 2, "malformed number" },
	{ "point first", ".5", "!", 0, "want a value" },
	{ "exponent without digits", "1e+", "!", 3, "malformed number" },
	{ "hexadecimal", "0x1", "n!", 1, "text after the end of the value" },
	{ "open string", "\"ab", "!", 3, "unterminated string" },
	{ "string open after a backslash", "\"ab\\", "!", 3, "malformed escape" },
	{ "quote escaped at the end", "\"ab\\\"", "!", 5, "unterminated string" },
	{ "unknown escape", "\"\\x41\"", "!", 1, "malformed escape" },
	{ "short escape", "\"\\u12\"", "!", 1, "malformed escape" },
	{ "escape of no digits", "\"\\u12g4\"", "!", 1, "malformed escape" },
	{ "lone high surrogate", "\"\\ud83d\"", "!", 1, "malformed escape" },
	{ "high surrogate at the end", "\"\\ud83d", "!", 1, "malformed escape" },
	{ "half an escape after it", "\"\\ud83d\\u", "!", 1, "malformed escape" },
	{ "lone low surrogate", "\"\\ude00\"", "!", 1, "malformed escape" },
	{ "high surrogate twice", "\"\\ud83d\\ud83d\"", "!", 1, "malformed escape" },
	{ "newline in a string", "\"a\nb\"", "!", 2, "control character in a string" },
	{ "tab in a string", "\"\t\"", "!", 1, "control character in a string" },
	{ "overlong UTF-8", "\"\xc0\xaf\"", "!", 1, "invalid UTF-8" },
	{ "overlong UTF-8 of three", "\"\xe0\x9f\xbf\"", "!", 1, "invalid UTF-8" },
	{ "overlong UTF-8 of four", "\"\xf0\x8f\xbf\xbf\"", "!", 1, "invalid UTF-8" },
	{ "cut UTF-8", "\"a\xe2\x82\"", "!", 2, "invalid UTF-8" },
	{ "surrogate in UTF-8", "\"\xed\xa0\x80\"", "!", 1, "invalid UTF-8" },
	{ "beyond Unicode", "\"\xf4\x90\x80\x80\"", "!", 1, "invalid UTF-8" },
	{ "stray continuation", "\"\x80\"", "!", 1, "invalid UTF-8" },
};

static void
refuses_what_is_not_json_and_says_where(void **state)
{
	struct jsonscan s;
	struct jsonscan_token t;
	char out[64];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		trace_tight(slice_of(bad[i].text), out, &s, &t);
		if (strcmp(out, bad[i].want) != 0 || t.offset != bad[i].offset ||
		    strcmp(s.error, bad[i].why) != 0)
			fail_msg("%s: %s at %zu: %s", bad[i].label, out, t.offset, s.error);
		assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_BAD);
		assert_int_equal(t.offset, bad[i].offset);
		assert_string_equal(s.error, bad[i].why);
	}
}

static void
a_nul_byte_is_no_end_of_text(void **state)
{
	struct jsonscan s;
	struct jsonscan_token t;
	char out[16];

	(void)state;
	trace((struct slice){ "1\0", 2 }, out, &s, &t);
	assert_string_equal(out, "n!");
	trace((struct slice){ "\"\0\"", 3 }, out, &s, &t);
	assert_string_equal(out, "!");
	trace((struct slice){ "\"\\\0\"", 4 }, out, &s, &t);
	assert_string_equal(out, "!");
}

static void
every_prefix_of_a_document_is_refused(void **state)
{
	static const char text[] = "{\"a\":[1.5e3,true],\"b\\u00e9\":{\"c\":\"\xc3\xa9\"}}";
	struct jsonscan s;
	struct jsonscan_token t;
	char out[64];

	(void)state;
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		trace_tight((struct slice){ text, n }, out, &s, &t);
		assert_int_equal(t.type, JSONSCAN_BAD);
		assert_true(t.offset <= n);
	}
	trace_tight((struct slice){ text, sizeof(text) - 1 }, out, &s, &t);
	assert_string_equal(out, "{k[nt]k{ks}}.");
}

static void
depth_is_bounded(void **state)
{
	struct jsonscan s;
	struct jsonscan_token t;
	char text[2 * JSONSCAN_DEPTH_MAX + 2], out[80];

	(void)state;
	memset(text, '[', JSONSCAN_DEPTH_MAX);
	memset(text + JSONSCAN_DEPTH_MAX, ']', JSONSCAN_DEPTH_MAX);
	trace((struct slice){ text, (size_t)2 * JSONSCAN_DEPTH_MAX }, out, &s, &t);
	assert_int_equal(t.type, JSONSCAN_EOF);
	memset(text, '[', JSONSCAN_DEPTH_MAX + 1);
	trace((struct slice){ text, JSONSCAN_DEPTH_MAX + 1 }, out, &s, &t);
	assert_int_equal(t.type, JSONSCAN_BAD);
	assert_int_equal(t.offset, JSONSCAN_DEPTH_MAX);
	assert_string_equal(s.error, "nested too deep");
}

static void
tokens_carry_their_text(void **state)
{
	static const char text[] = "{ \"na\\u006de\" : \"v\\n\", \"n\" : -1.5 }";
	struct jsonscan s;
	struct jsonscan_token t;

	(void)state;
	jsonscan_init(&s, slice_of(text));
	assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_OBJECT);
	assert_int_equal(t.offset, 0);
	assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_KEY);
	assert_int_equal(t.offset, 2);
	assert_true(t.escaped);
	assert_true(slice_equal(t.raw, SLICE("na\\u006de")));
	assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_STRING);
	assert_int_equal(t.offset, 16);
	assert_true(t.escaped);
	assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_KEY);
	assert_false(t.escaped);
	assert_true(slice_equal(t.raw, SLICE("n")));
	assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_NUMBER);
	assert_true(slice_equal(t.raw, SLICE("-1.5")));
}

static void
skipping_a_value_lands_on_what_follows(void **state)
{
	static const char *const values[] = { "1", "\"x\"", "null", "[]", "{}",
		"[1,[2,{\"a\":[]}],3]", "{\"a\":{\"b\":[1]},\"c\":2}" };
	struct jsonscan s;
	struct jsonscan_token t;
	char text[64];

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		snprintf(text, sizeof(text), "{\"a\":%s,\"z\":true}", values[i]);
		jsonscan_init(&s, slice_of(text));
		jsonscan_next(&s, &t);
		jsonscan_next(&s, &t);
		jsonscan_next(&s, &t);
		assert_int_equal(jsonscan_skip(&s, &t), 0);
		assert_int_equal(jsonscan_next(&s, &t), JSONSCAN_KEY);
		assert_true(slice_equal(t.raw, SLICE("z")));
	}
	jsonscan_init(&s, SLICE("[1,[2,"));
	jsonscan_next(&s, &t);
	assert_int_equal(jsonscan_skip(&s, &t), -1);
}

static const struct {
	const char *raw, *want;
} escapes[] = {
	{ "", "" },
	{ "plain", "plain" },
	{ "\\\"\\\\\\/", "\"\\/" },
	{ "\\b\\f\\n\\r\\t", "\b\f\n\r\t" },
	{ "\\u0041\\u00E9\\u20aC", "A\xc3\xa9\xe2\x82\xac" },
	{ "\\ud83d\\ude00", "\xf0\x9f\x98\x80" },
	{ "\\udbff\\udfff", "\xf4\x8f\xbf\xbf" },
	{ "a\xc3\xa9z", "a\xc3\xa9z" },
};

static void
escapes_become_their_characters(void **state)
{
	char out[16];

	(void)state;
	for (size_t i = 0; i < sizeof(escapes) / sizeof(*escapes); i++) {
		long n = jsonscan_unescape(slice_of(escapes[i].raw), out, sizeof(out));

		assert_int_equal(n, strlen(escapes[i].want));
		assert_memory_equal(out, escapes[i].want, (size_t)n);
		assert_int_equal(jsonscan_unescape(slice_of(escapes[i].raw), out, (size_t)n), n);
		if (n > 0)
			assert_int_equal(
			    jsonscan_unescape(slice_of(escapes[i].raw), out, (size_t)n - 1), -1);
	}
	assert_int_equal(jsonscan_unescape(SLICE("\\u0000"), out, sizeof(out)), 1);
	assert_int_equal(out[0], 0);
	assert_int_equal(jsonscan_unescape(SLICE("\\ud800"), out, sizeof(out)), -1);
	assert_int_equal(jsonscan_unescape(SLICE("\\"), out, sizeof(out)), -1);
}

static void
positions_count_lines_and_bytes_from_one(void **state)
{
	static const struct {
		size_t offset;
		unsigned line, column;
	} cases[] = { { 0, 1, 1 }, { 2, 1, 3 }, { 3, 2, 1 }, { 4, 3, 1 }, { 6, 3, 3 },
		{ 99, 3, 96 } };
	unsigned line, column;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		jsonscan_position(SLICE("ab\n\ncd"), cases[i].offset, &line, &column);
		assert_int_equal(line, cases[i].line);
		assert_int_equal(column, cases[i].column);
	}
}

static void
utf8_round_trips_every_character(void **state)
{
	char bytes[4];
	uint32_t got;

	(void)state;
	for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
		if (cp == 0xd800)
			cp = 0xe000;
		size_t n = utf8_encode(cp, bytes);

		assert_int_equal(utf8_decode(bytes, n, &got), n);
		assert_int_equal(got, cp);
		assert_int_equal(n == 1 ? 0 : utf8_decode(bytes, n - 1, &got), 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_json),
		cmocka_unit_test(refuses_what_is_not_json_and_says_where),
		cmocka_unit_test(a_nul_byte_is_no_end_of_text),
		cmocka_unit_test(every_prefix_of_a_document_is_refused),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(tokens_carry_their_text),
		cmocka_unit_test(skipping_a_value_lands_on_what_follows),
		cmocka_unit_test(escapes_become_their_characters),
		cmocka_unit_test(positions_count_lines_and_bytes_from_one),
		cmocka_unit_test(utf8_round_trips_every_character),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
