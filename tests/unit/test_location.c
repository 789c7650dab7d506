#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "data/location.h"

static const struct location_case {
	const char *label, *value, *want; /* NULL: refused */
} cases[] = {
	{ "a path stays", "/api/v2/keys/1?a=b#c", "/api/v2/keys/1?a=b#c" },
	{ "a relative path stays", "../keys/1", "../keys/1" },
	{ "a query alone stays", "?page=2", "?page=2" },
	{ "nothing stays nothing", "", "" },
	{ "a colon after a slash is no scheme", "/keys/crn:v1", "/keys/crn:v1" },
	{ "the key service becomes us", "https://kms.example/api/v2/keys/1", "/api/v2/keys/1" },
	{ "in any case", "HTTPS://KMS.Example/x", "/x" },
	{ "with its default port", "https://kms.example:443/x", "/x" },
	{ "by plain HTTP too", "http://kms.example:80/x", "/x" },
	{ "without a scheme", "//kms.example/x", "/x" },
	{ "without a path", "https://kms.example", "/" },
	{ "with a query alone", "https://kms.example?a", "/?a" },
	{ "our own name is ours", "https://sidecar:8443/x", "/x" },
	{ "another host", "https://evil.example/x", NULL },
	{ "another host without a scheme", "//evil.example/x", NULL },
	{ "another port", "https://kms.example:444/x", NULL },
	{ "the port of another scheme", "https://kms.example:80/x", NULL },
	{ "user information", "https://kms.example@evil.example/x", NULL },
	{ "user information before the name", "https://a@kms.example/x", NULL },
	{ "a longer name", "https://kms.example.evil.example/", NULL },
	{ "no name", "https:///x", NULL },
	{ "only a port", "https://:443/x", NULL },
	{ "a scheme without an authority", "https:/x", NULL },
	{ "a relative reference with a scheme", "https:evil.example", NULL },
	{ "a script", "javascript:alert(1)", NULL },
	{ "another scheme with our name", "ftp://kms.example/x", NULL },
	{ "a path that would be an authority", "https://kms.example//evil.example/", NULL },
	{ "a backslash", "/\\evil.example", NULL },
	{ "a tab, which browsers remove", "/\t/evil.example", NULL },
	{ "a blank", "/a b", NULL },
	{ "a byte above 0x7f", "/\xc3\xa4", NULL },
};

static void
only_our_authority_is_passed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct location_case *c = &cases[i];
		struct slice rest;
		char got[128];
		bool rooted;
		bool passed = location_rewrite(slice_of(c->value), SLICE("kms.example"),
		    SLICE("sidecar:8443"), &rooted, &rest);

		if (passed != (c->want != NULL))
			fail_msg("%s: %s", c->label, passed ? "passed" : "refused");
		if (!passed)
			continue;
		snprintf(got, sizeof(got), "%s%.*s", rooted ? "/" : "", SLICE_ARG(rest));
		if (!slice_equal(slice_of(got), slice_of(c->want)))
			fail_msg("%s: \"%s\", wanted \"%s\"", c->label, got, c->want);
	}
}

static void
a_nul_is_refused(void **state)
{
	struct slice rest;
	bool rooted;

	(void)state;
	assert_false(location_rewrite(SLICE("/a\0b"), SLICE("a"), SLICE_EMPTY, &rooted, &rest));
}

static void
a_client_without_a_host_is_nobody(void **state)
{
	struct slice rest;
	bool rooted;

	(void)state;
	assert_false(
	    location_rewrite(SLICE("https:///x"), SLICE("a"), SLICE_EMPTY, &rooted, &rest));
	assert_true(
	    location_rewrite(SLICE("https://a/x"), SLICE("a"), SLICE_EMPTY, &rooted, &rest));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_our_authority_is_passed),
		cmocka_unit_test(a_nul_is_refused),
		cmocka_unit_test(a_client_without_a_host_is_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
