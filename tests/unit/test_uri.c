#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>

#include <cmocka.h>

#include "keytrail/uri.h"

#define NONE REFUSAL_NONE
#define AMB  REFUSAL_AMBIGUOUS_PATH
#define BAD  REFUSAL_BAD_TARGET

static const struct {
	const char *label;
	struct slice path;
	enum http_refusal refusal;
	unsigned nsegments;
	uint32_t encoded_delimiter;
} paths[] = {
	{ "the root", SLICE_INIT("/"), NONE, 0, 0 },
	{ "one segment", SLICE_INIT("/a"), NONE, 1, 0 },
	{ "segments", SLICE_INIT("/api/v2/keys"), NONE, 3, 0 },
	{ "every unreserved byte", SLICE_INIT("/azAZ09-._~"), NONE, 1, 0 },
	{ "every other plain byte", SLICE_INIT("/!$&'()*+,=:@"), NONE, 1, 0 },
	{ "three dots", SLICE_INIT("/..."), NONE, 1, 0 },
	{ "a dot in a name", SLICE_INIT("/a.b/.c/d."), NONE, 3, 0 },
	{ "an encoded space", SLICE_INIT("/a%20b"), NONE, 1, 0 },
	{ "an encoded colon", SLICE_INIT("/crn%3Av1"), NONE, 1, 0 },
	{ "an encoded slash", SLICE_INIT("/a/b%2Fc/d"), NONE, 3, 2 },
	{ "an encoded slash in small letters", SLICE_INIT("/b%2fc"), NONE, 1, 1 },
	{ "a doubly encoded slash", SLICE_INIT("/a/b%252fc"), NONE, 2, 2 },
	{ "a triply encoded slash", SLICE_INIT("/b%25252Fc"), NONE, 1, 1 },
	{ "a registration's CRN",
	    SLICE_INIT("/api/v2/keys/7/registrations/"
		       "crn%3Av1%3Abluemix%3Apublic%3Adb%3Aus-south%3Aa%2F1234%3Ab::"),
	    NONE, 6, 1 << 5 },
	{ "a registration's CRN, doubly", SLICE_INIT("/registrations/crn:v1:a%252f1234:b::"), NONE,
	    2, 2 },
	{ "an encoded backslash", SLICE_INIT("/a%5Cb"), NONE, 1, 1 },
	{ "an encoded semicolon", SLICE_INIT("/a%3Bb"), NONE, 1, 1 },
	{ "an encoded question mark", SLICE_INIT("/keys%3Faction=wrap"), NONE, 1, 1 },
	{ "an encoded number sign", SLICE_INIT("/a%23b"), NONE, 1, 1 },
	{ "encoded UTF-8", SLICE_INIT("/%C3%A4/%E2%82%AC/%F0%9F%94%91"), NONE, 3, 7 },
	{ "32 segments",
	    SLICE_INIT("/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/%2f"), NONE,
	    32, 0x80000000 },
	{ "33 segments",
	    SLICE_INIT("/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x"), BAD,
	    0, 0 },
	{ "nothing", SLICE_INIT(""), BAD, 0, 0 },
	{ "no slash first", SLICE_INIT("a/b"), BAD, 0, 0 },
	{ "an asterisk", SLICE_INIT("*"), BAD, 0, 0 },
	{ "two slashes", SLICE_INIT("//"), AMB, 0, 0 },
	{ "two slashes first", SLICE_INIT("//a"), AMB, 0, 0 },
	{ "two slashes inside", SLICE_INIT("/a//b"), AMB, 0, 0 },
	{ "a slash last", SLICE_INIT("/a/"), AMB, 0, 0 },
	{ "a dot segment", SLICE_INIT("/a/./b"), AMB, 0, 0 },
	{ "a dot segment last", SLICE_INIT("/a/."), AMB, 0, 0 },
	{ "a dot segment alone", SLICE_INIT("/."), AMB, 0, 0 },
	{ "two dots", SLICE_INIT("/a/../b"), AMB, 0, 0 },
	{ "two dots last", SLICE_INIT("/a/.."), AMB, 0, 0 },
	{ "encoded dots", SLICE_INIT("/a/%2e%2E/b"), AMB, 0, 0 },
	{ "one dot encoded", SLICE_INIT("/a/.%2e/b"), AMB, 0, 0 },
	{ "doubly encoded dots", SLICE_INIT("/a/%252e%252e/b"), AMB, 0, 0 },
	{ "dots before an encoded slash", SLICE_INIT("/a/..%2fb"), AMB, 0, 0 },
	{ "dots after an encoded slash", SLICE_INIT("/a/b%2f.."), AMB, 0, 0 },
	{ "dots between encoded slashes", SLICE_INIT("/a/b%2F..%2Fc"), AMB, 0, 0 },
	{ "a dot between encoded slashes", SLICE_INIT("/a/b%2F.%2Fc"), AMB, 0, 0 },
	{ "dots between doubly encoded slashes", SLICE_INIT("/b%252f..%252fc"), AMB, 0, 0 },
	{ "dots between encoded backslashes", SLICE_INIT("/b%5c..%5cc"), AMB, 0, 0 },
	{ "dots and more between encoded slashes", SLICE_INIT("/b%2f...%2fc"), NONE, 1, 1 },
	{ "dots and an escape between encoded slashes", SLICE_INIT("/b%2f..%20%2fc"), NONE, 1, 1 },
	{ "an encoded letter", SLICE_INIT("/%61"), AMB, 0, 0 },
	{ "an encoded digit", SLICE_INIT("/a%31"), AMB, 0, 0 },
	{ "an encoded hyphen", SLICE_INIT("/a%2Db"), AMB, 0, 0 },
	{ "an encoded tilde", SLICE_INIT("/%7Ea"), AMB, 0, 0 },
	{ "a doubly encoded letter", SLICE_INIT("/%2561"), AMB, 0, 0 },
	{ "an encoded percent alone", SLICE_INIT("/100%25"), AMB, 0, 0 },
	{ "an encoded percent before no escape", SLICE_INIT("/100%25x"), AMB, 0, 0 },
	{ "an encoded percent before an escape", SLICE_INIT("/%25%32%66"), AMB, 0, 0 },
	{ "a doubly encoded percent alone", SLICE_INIT("/a%2525"), AMB, 0, 0 },
	{ "an encoded NUL", SLICE_INIT("/a%00.json"), AMB, 0, 0 },
	{ "a doubly encoded NUL", SLICE_INIT("/a%2500"), AMB, 0, 0 },
	{ "encoded line ends", SLICE_INIT("/a%0d%0ab"), AMB, 0, 0 },
	{ "an encoded tab", SLICE_INIT("/a%09"), AMB, 0, 0 },
	{ "an encoded DEL", SLICE_INIT("/a%7F"), AMB, 0, 0 },
	{ "an overlong slash", SLICE_INIT("/a%C0%AFb"), AMB, 0, 0 },
	{ "an overlong dot", SLICE_INIT("/%C0%AE%C0%AE"), AMB, 0, 0 },
	{ "an overlong slash of three bytes", SLICE_INIT("/%E0%80%AF"), AMB, 0, 0 },
	{ "an overlong slash of four bytes", SLICE_INIT("/%F0%80%80%AF"), AMB, 0, 0 },
	{ "a surrogate", SLICE_INIT("/%ED%A0%80"), AMB, 0, 0 },
	{ "above U+10FFFF", SLICE_INIT("/%F4%90%80%80"), AMB, 0, 0 },
	{ "a byte that UTF-8 never has", SLICE_INIT("/%FF"), AMB, 0, 0 },
	{ "a continuation byte alone", SLICE_INIT("/%80"), AMB, 0, 0 },
	{ "a character cut short", SLICE_INIT("/%C3"), AMB, 0, 0 },
	{ "a character cut by a plain byte", SLICE_INIT("/%E2%82a"), AMB, 0, 0 },
	{ "a character cut by an encoded byte", SLICE_INIT("/%E2%82%20"), AMB, 0, 0 },
	{ "a character cut by a slash", SLICE_INIT("/%E2%82/%AC"), AMB, 0, 0 },
	{ "the bounds of UTF-8",
	    SLICE_INIT("/%C2%80/%E0%A0%80/%EF%BF%BF/%F0%90%80%80/%F4%8F%BF%BF"), NONE, 5, 31 },
	{ "four bytes of no character", SLICE_INIT("/%80%80%80%80"), AMB, 0, 0 },
	{ "a doubly encoded space", SLICE_INIT("/a%2520b"), NONE, 1, 1 },
	{ "a doubly encoded character", SLICE_INIT("/%25C3%25A4"), NONE, 1, 1 },
	{ "a backslash", SLICE_INIT("/a\\b"), AMB, 0, 0 },
	{ "a semicolon", SLICE_INIT("/a;b=c/d"), AMB, 0, 0 },
	{ "a session in the path", SLICE_INIT("/keys;jsessionid=1"), AMB, 0, 0 },
	{ "a fragment", SLICE_INIT("/a#b"), BAD, 0, 0 },
	{ "a question mark", SLICE_INIT("/a?b"), BAD, 0, 0 },
	{ "a space", SLICE_INIT("/a b"), BAD, 0, 0 },
	{ "a quotation mark", SLICE_INIT("/a\"b"), BAD, 0, 0 },
	{ "angle brackets", SLICE_INIT("/<a>"), BAD, 0, 0 },
	{ "braces", SLICE_INIT("/{id}"), BAD, 0, 0 },
	{ "brackets", SLICE_INIT("/a[0]"), BAD, 0, 0 },
	{ "a caret", SLICE_INIT("/a^"), BAD, 0, 0 },
	{ "a back quote", SLICE_INIT("/a`"), BAD, 0, 0 },
	{ "a bar", SLICE_INIT("/a|b"), BAD, 0, 0 },
	{ "NUL", SLICE_INIT("/a\0b"), BAD, 0, 0 },
	{ "a control byte", SLICE_INIT("/a\x01"), BAD, 0, 0 },
	{ "DEL", SLICE_INIT("/a\x7f"), BAD, 0, 0 },
	{ "a non-ASCII byte", SLICE_INIT("/\xc3\xa4"), BAD, 0, 0 },
	{ "a percent last", SLICE_INIT("/a%"), BAD, 0, 0 },
	{ "an escape cut short", SLICE_INIT("/a%2"), BAD, 0, 0 },
	{ "an escape cut by a slash", SLICE_INIT("/a%2/f"), BAD, 0, 0 },
	{ "an escape that is no number", SLICE_INIT("/a%zz"), BAD, 0, 0 },
	{ "an escape of one digit", SLICE_INIT("/a%2g"), BAD, 0, 0 },
	{ "a Unicode escape", SLICE_INIT("/%u002f"), BAD, 0, 0 },
	{ "a signed escape", SLICE_INIT("/%+2"), BAD, 0, 0 },
};

static void
paths_that_could_be_read_in_two_ways_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct uri_path out;
		enum http_refusal refusal = uri_split_path(paths[i].path, &out);

		if (refusal != paths[i].refusal ||
		    (refusal == NONE && (out.nsegments != paths[i].nsegments ||
					    out.encoded_delimiter != paths[i].encoded_delimiter)))
			fail_msg("%s: %s, %u segments, delimiters %x", paths[i].label,
			    refusal_info(refusal)->code, out.nsegments, out.encoded_delimiter);
	}
}

/* Long paths are looked at 16 bytes at once. */
static void
a_byte_is_judged_alike_in_a_short_path_and_in_a_long_one(void **state)
{
	char few[] = "/a?cc", many[] = "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaacc";
	struct slice short_path = { few, sizeof(few) - 1 }, long_path = { many, sizeof(many) - 1 };

	(void)state;
	for (unsigned b = 0; b < 256; b++) {
		for (size_t at = 2; at < long_path.n - 2; at++) {
			struct uri_path out, want;
			enum http_refusal refusal;

			few[2] = many[at] = (char)b;
			refusal = uri_split_path(short_path, &want);
			if (uri_split_path(long_path, &out) != refusal ||
			    (refusal == NONE && out.nsegments != want.nsegments))
				fail_msg("byte %02x at %zu", b, at);
			many[at] = 'a';
		}
	}
}

static void
segments_are_raw_and_between_the_slashes(void **state)
{
	struct slice path = SLICE("/api/v2/b%2fc");
	struct uri_path out;

	(void)state;
	assert_int_equal(uri_split_path(path, &out), NONE);
	assert_int_equal(out.nsegments, 3);
	assert_true(slice_equal(out.segments[0], SLICE("api")));
	assert_true(slice_equal(out.segments[1], SLICE("v2")));
	assert_true(slice_equal(out.segments[2], SLICE("b%2fc")));
	assert_ptr_equal(out.segments[2].p, path.p + 8);
}

/* ---- queries ---- */

#define AMBQ REFUSAL_AMBIGUOUS_QUERY

static const struct {
	const char *label;
	struct slice query;
	enum http_refusal refusal;
} queries[] = {
	{ "nothing", SLICE_INIT(""), NONE },
	{ "a parameter", SLICE_INIT("action=wrap"), NONE },
	{ "every plain byte", SLICE_INIT("azAZ09-._~!$&'()*+,=:@/?"), NONE },
	{ "an encoded space", SLICE_INIT("search=a%20b"), NONE },
	{ "encoded text", SLICE_INIT("filter=%C3%A4%22%7B%5B%26%3D%23%25"), NONE },
	{ "an encoded tilde", SLICE_INIT("a=%7E"), NONE },
	{ "a semicolon", SLICE_INIT("a=b;action=wrap"), AMBQ },
	{ "an encoded semicolon", SLICE_INIT("a=b%3Bc"), NONE },
	{ "a backslash", SLICE_INIT("a=\\"), AMBQ },
	{ "an encoded NUL", SLICE_INIT("action=wrap%00"), AMBQ },
	{ "encoded line ends", SLICE_INIT("a=%0D%0a"), AMBQ },
	{ "an encoded DEL", SLICE_INIT("a=%7f"), AMBQ },
	{ "an encoded line end to whoever decodes twice", SLICE_INIT("a=%250A"), AMBQ },
	{ "a percent sign, encoded twice", SLICE_INIT("a=100%2525"), NONE },
	{ "characters of two, three and four bytes", SLICE_INIT("a=%C3%A9%E2%82%AC%F0%9F%94%91"),
	    NONE },
	{ "the same, encoded twice", SLICE_INIT("a=%25C3%25A9b"), NONE },
	{ "an overlong letter", SLICE_INIT("%C1%A1ction=unwrap"), AMBQ },
	{ "an overlong ampersand", SLICE_INIT("x=1%C0%A6action=unwrap"), AMBQ },
	{ "an overlong letter of three bytes", SLICE_INIT("%E0%81%A1ction=unwrap"), AMBQ },
	{ "an overlong letter, encoded twice", SLICE_INIT("%25C1%25A1ction=unwrap"), AMBQ },
	{ "one of which a part is encoded twice", SLICE_INIT("%C1%25A1ction=unwrap"), AMBQ },
	{ "Latin-1", SLICE_INIT("a=%E4b"), AMBQ },
	{ "a character cut short", SLICE_INIT("a=%E2%82"), AMBQ },
	{ "a character cut by plain text", SLICE_INIT("a=%E2%82b%AC"), AMBQ },
	{ "a continuation alone", SLICE_INIT("a=%A9"), AMBQ },
	{ "a fragment", SLICE_INIT("a=b#c"), BAD },
	{ "a space", SLICE_INIT("a=b c"), BAD },
	{ "a quotation mark", SLICE_INIT("a=\"b\""), BAD },
	{ "brackets", SLICE_INIT("a[]=b"), BAD },
	{ "a bar", SLICE_INIT("a=b|c"), BAD },
	{ "a control byte", SLICE_INIT("a=\x01"), BAD },
	{ "NUL", SLICE_INIT("a=\0"), BAD },
	{ "a non-ASCII byte", SLICE_INIT("a=\xe4"), BAD },
	{ "a percent last", SLICE_INIT("a=%"), BAD },
	{ "an escape cut short", SLICE_INIT("a=%2"), BAD },
	{ "an escape that is no number", SLICE_INIT("a=%GG"), BAD },
	{ "an escape cut by the next parameter", SLICE_INIT("a=%2&b"), BAD },
};

static void
queries_are_well_formed_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
		enum http_refusal refusal = uri_check_query(queries[i].query);

		if (refusal != queries[i].refusal)
			fail_msg("%s: %s", queries[i].label, refusal_info(refusal)->code);
	}
}

/* Parameters written as name=value| or name| where there is no '='. */
static const struct {
	const char *label, *query, *parameters;
} parameters[] = {
	{ "nothing", "", "" },
	{ "one", "a=b", "a=b|" },
	{ "two", "a=b&c=d", "a=b|c=d|" },
	{ "no value", "a", "a|" },
	{ "an empty value", "a=", "a=|" },
	{ "an empty name", "=b", "=b|" },
	{ "the first '=' divides", "a=b=c", "a=b=c|" },
	{ "empty ones are skipped", "&&a=b&&c&", "a=b|c|" },
	{ "only empty ones", "&&&", "" },
	{ "the same name twice", "a=1&a=2", "a=1|a=2|" },
	{ "raw bytes", "a%3Db=c%26d", "a%3Db=c%26d|" },
};

static void
parameters_are_stepped_through(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++) {
		struct slice rest = slice_of(parameters[i].query), name, value;
		char got[128] = "";
		bool has_value;

		while (uri_next_parameter(&rest, &name, &value, &has_value)) {
			size_t n = strlen(got);

			assert_true(has_value || value.n == 0);
			snprintf(got + n, sizeof(got) - n, "%.*s%s%.*s|", SLICE_ARG(name),
			    has_value ? "=" : "", SLICE_ARG(value));
		}
		if (strcmp(got, parameters[i].parameters) != 0)
			fail_msg("%s: %s", parameters[i].label, got);
	}
}

static const struct {
	const char *label;
	struct slice name;
	bool disguised;
} disguises[] = {
	{ "itself", SLICE_INIT("action"), false },
	{ "another name", SLICE_INIT("actions"), false },
	{ "a prefix", SLICE_INIT("actio"), false },
	{ "nothing", SLICE_INIT(""), false },
	{ "another name with an escape", SLICE_INIT("%61ctions"), false },
	{ "a malformed escape", SLICE_INIT("%6"), false },
	{ "capitals", SLICE_INIT("ACTION"), true },
	{ "one capital", SLICE_INIT("Action"), true },
	{ "an encoded letter", SLICE_INIT("%61ction"), true },
	{ "an encoded capital", SLICE_INIT("%41ction"), true },
	{ "all encoded", SLICE_INIT("%61%63%74%69%6F%6e"), true },
	{ "doubly encoded", SLICE_INIT("%2561ction"), true },
	{ "triply encoded", SLICE_INIT("%252561ction"), true },
	{ "encoded digits of an escape", SLICE_INIT("%%361ction"), true },
	{ "all of an escape encoded", SLICE_INIT("%25%36%31ction"), true },
	{ "a space before", SLICE_INIT("%20action"), true },
	{ "a plus before", SLICE_INIT("+action"), true },
	{ "a space after", SLICE_INIT("action%20"), true },
	{ "a tab after", SLICE_INIT("action%09"), true },
	{ "a carriage return after", SLICE_INIT("action%0d"), true },
	{ "NUL after", SLICE_INIT("action%00"), true },
	{ "an array", SLICE_INIT("action%5B%5D"), true },
	{ "an element", SLICE_INIT("action[0]"), true },
	{ "an element of another", SLICE_INIT("x[action]"), false },
	{ "a space inside", SLICE_INIT("act+ion"), false },
	{ "method override", SLICE_INIT("_action"), false },
};

static void
a_name_that_others_read_as_the_discriminator_is_disguised(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(disguises) / sizeof(disguises[0]); i++)
		if (uri_is_disguised(disguises[i].name, SLICE("action")) != disguises[i].disguised)
			fail_msg("%s", disguises[i].label);
}

static const struct {
	const char *label;
	struct slice name;
	bool disguised;
} underscores[] = {
	{ "itself", SLICE_INIT("x_y"), false },
	{ "a dot", SLICE_INIT("x.y"), true },
	{ "an encoded dot", SLICE_INIT("X%2Ey"), true },
	{ "a plus", SLICE_INIT("x+y"), true },
	{ "a space", SLICE_INIT("%20x%20y"), true },
	{ "an open bracket", SLICE_INIT("x[y"), true },
	{ "an encoded one", SLICE_INIT("x%5By"), true },
	{ "a doubly encoded one", SLICE_INIT("x%255by"), true },
	{ "an element of x", SLICE_INIT("x%5By%5D"), false },
	{ "an element of x_y", SLICE_INIT("x.y%5B0%5D"), true },
	{ "a hyphen", SLICE_INIT("x-y"), false },
};

static void
a_name_that_php_reads_with_an_underscore_is_disguised(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(underscores) / sizeof(underscores[0]); i++)
		if (uri_is_disguised(underscores[i].name, SLICE("x_y")) != underscores[i].disguised)
			fail_msg("%s", underscores[i].label);
}

static void
a_long_name_is_disguised_with_what_others_drop(void **state)
{
	static const char dropped[] = "%+[ ";
	char name[300];

	(void)state;
	memset(name, 'a', sizeof(name));
	assert_false(uri_is_disguised((struct slice){ name, sizeof(name) }, SLICE("action")));
	for (size_t i = 0; i < sizeof(dropped); i++) {
		name[299] = dropped[i];
		assert_true(
		    uri_is_disguised((struct slice){ name, sizeof(name) }, SLICE("action")));
		assert_false(uri_is_disguised((struct slice){ name + 44, 256 }, SLICE("action")));
		assert_true(uri_is_disguised((struct slice){ name + 43, 257 }, SLICE("action")));
	}
}

static const struct {
	const char *label;
	struct slice parameter;
	bool hides;
} hidden[] = {
	{ "itself", SLICE_INIT("action=wrap"), false },
	{ "itself with an encoded value", SLICE_INIT("action=wr%61p"), false },
	{ "a value", SLICE_INIT("x=a%20action%3Dwrap"), false },
	{ "another one", SLICE_INIT("x=1%26actions=wrap"), false },
	{ "the end of another one", SLICE_INIT("x=1%26reaction=wrap"), false },
	{ "a value of another one", SLICE_INIT("x=1%26y=action"), false },
	{ "only delimiters", SLICE_INIT("x=%26%3D%26%25"), false },
	{ "in a value", SLICE_INIT("x=1%26action=wrap"), true },
	{ "in a name", SLICE_INIT("x%26action=wrap"), true },
	{ "all encoded", SLICE_INIT("x%3D1%26action%3Dwrap"), true },
	{ "without a value", SLICE_INIT("x=1%26action"), true },
	{ "among others", SLICE_INIT("x=1%26action=wrap%26y=2"), true },
	{ "first", SLICE_INIT("%26action=wrap"), true },
	{ "behind a semicolon", SLICE_INIT("x=1%3Baction=wrap"), true },
	{ "before an encoded '='", SLICE_INIT("action%3dwrap"), true },
	{ "before an encoded '&'", SLICE_INIT("action%26x=1"), true },
	{ "twice encoded", SLICE_INIT("x=1%2526action=wrap"), true },
	{ "digits of the escape encoded", SLICE_INIT("x=1%25%32%36action=wrap"), true },
	{ "in disguise", SLICE_INIT("x=1%26+Act%69on%5b%5d=wrap"), true },
	{ "after a percent sign", SLICE_INIT("x=%252%26action=wrap"), true },
};

static void
a_parameter_may_hide_another_from_who_splits_before_decoding(void **state)
{
	char text[400] = "x=%26";

	(void)state;
	for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
		if (uri_hides_parameter(hidden[i].parameter, SLICE("action")) != hidden[i].hides)
			fail_msg("%s", hidden[i].label);
	memset(text + 5, '+', 300);
	assert_false(uri_hides_parameter((struct slice){ text, 261 }, SLICE("action")));
	strcpy(text + 305, "action=wrap");
	assert_true(uri_hides_parameter(slice_of(text), SLICE("action")));
	memset(text + 2, 'a', 300);
	assert_false(uri_hides_parameter(slice_of(text), SLICE("action")));
	memcpy(text + 300, "%26action=wrap", 15);
	assert_true(uri_hides_parameter(slice_of(text), SLICE("action")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_that_could_be_read_in_two_ways_are_refused),
		cmocka_unit_test(a_byte_is_judged_alike_in_a_short_path_and_in_a_long_one),
		cmocka_unit_test(segments_are_raw_and_between_the_slashes),
		cmocka_unit_test(queries_are_well_formed_or_refused),
		cmocka_unit_test(parameters_are_stepped_through),
		cmocka_unit_test(a_name_that_others_read_as_the_discriminator_is_disguised),
		cmocka_unit_test(a_name_that_php_reads_with_an_underscore_is_disguised),
		cmocka_unit_test(a_long_name_is_disguised_with_what_others_drop),
		cmocka_unit_test(a_parameter_may_hide_another_from_who_splits_before_decoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
