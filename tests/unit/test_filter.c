#include "keytrail/filter.h"
#include "keytrail/pattern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- patterns ---- */

/* What a pattern says, word for word. */
static bool
by_definition(const char *p, const char *s)
{
	if (*p == '*')
		return by_definition(p + 1, s) || (*s != '\0' && by_definition(p, s + 1));
	if (*p == '\0' || *s == '\0')
		return *p == *s;
	return (*p == '?' || *p == *s) && by_definition(p + 1, s + 1);
}

/* The number in base n, each digit a letter. */
static const char *
word(unsigned i, const char *letters, char out[8])
{
	unsigned n = (unsigned)strlen(letters), at = 0;

	for (; i > 0; i = (i - 1) / n)
		out[at++] = letters[(i - 1) % n];
	out[at] = '\0';
	return out;
}

static void
a_pattern_matches_what_it_says(void **state)
{
	char p[8], s[8];
	unsigned matched = 0;

	(void)state;
	for (unsigned i = 0; i < 1365; i++)
		for (unsigned j = 0; j < 127; j++) {
			bool want = by_definition(word(i, "ab*?", p), word(j, "ab", s));

			if (pattern_matches(p, slice_of(s)) != want)
				fail_msg("%s and %s: not %d", p, s, want);
			matched += want;
		}
	assert_true(matched > 10000);
}

/* Of the kind that takes for ever where each '*' is tried anew. */
static void
many_stars_take_no_time(void **state)
{
	static const char p[] = "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b";
	char text[4096];

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_false(pattern_matches(p, (struct slice){ text, sizeof(text) }));
	text[sizeof(text) - 1] = 'b';
	assert_true(pattern_matches(p, (struct slice){ text, sizeof(text) }));
}

/* ---- filters ---- */

#define ACCOUNT		       "0123456789abcdef0123456789abcdef"
#define INSTANCE	       "11111111-2222-4333-8444-555555555555"
#define CRN(account, instance) "crn:v1:bluemix:public:kms:us-south:a/" account ":" instance "::"
#define LINE(action, crn, outcome, severity)                                                       \
	"{\"action\":\"" action "\",\"logSourceCRN\":\"" crn "\",\"outcome\":\"" outcome           \
	"\",\"severity\":\"" severity "\"}"

static const char list[] = LINE("kms.secrets.list", CRN(ACCOUNT, INSTANCE), "success", "normal");
static const char wrap[] = LINE("kms.secrets.wrap", CRN(ACCOUNT, ""), "failure", "critical");
static const char nobody[] = LINE("kms.secrets.list", CRN("", ""), "failure", "critical");
static const char own[] = "{\"action\":\"keytrail.checkpoint\",\"outcome\":\"success\"}";

/* One list of at most two patterns each, in the order of config_filter. */
static const struct {
	const char *patterns[6][2];
	bool list, wrap, nobody;
} cases[] = {
	{ { { NULL } }, true, true, true },
	{ { { "kms.secrets.list" } }, true, false, true },
	{ { { "kms.secrets.l*", "*.wrap" } }, true, true, true },
	{ { { "kms.secrets" } }, false, false, false },
	{ { { NULL }, { "critical" } }, false, true, true },
	{ { { NULL }, { "normal", "warning" } }, true, false, false },
	{ { { NULL }, { NULL }, { "failure" } }, false, true, true },
	{ { { NULL }, { NULL }, { NULL }, { ACCOUNT } }, true, true, false },
	{ { { NULL }, { NULL }, { NULL }, { "01*", "" } }, true, true, true },
	{ { { NULL }, { NULL }, { NULL }, { "" } }, false, false, true },
	{ { { NULL }, { NULL }, { NULL }, { "?*" } }, true, true, false },
	{ { { NULL }, { NULL }, { NULL }, { NULL }, { "us-*" } }, true, true, true },
	{ { { NULL }, { NULL }, { NULL }, { NULL }, { "eu-*" } }, false, false, false },
	{ { { NULL }, { NULL }, { NULL }, { NULL }, { NULL }, { INSTANCE } }, true, false, false },
	{ { { NULL }, { NULL }, { NULL }, { NULL }, { NULL }, { "*" } }, true, true, true },
	{ { { "*.list" }, { "normal" }, { "failure" } }, false, false, false },
};

static void
fill(struct config_patterns *p, char *all[2], const char *const patterns[2])
{
	*p = (struct config_patterns){ .all = all };
	for (; p->n < 2 && patterns[p->n] != NULL; p->n++)
		all[p->n] = strdup(patterns[p->n]);
}

static void
an_event_passes_where_each_list_has_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct config_filter f;
		struct config_patterns *lists[] = { &f.actions, &f.severities, &f.outcomes,
			&f.accounts, &f.regions, &f.instances };
		char *all[6][2] = { { NULL } };

		for (size_t j = 0; j < 6; j++)
			fill(lists[j], all[j], cases[i].patterns[j]);
		if (filter_passes(&f, slice_of(list)) != cases[i].list ||
		    filter_passes(&f, slice_of(wrap)) != cases[i].wrap ||
		    filter_passes(&f, slice_of(nobody)) != cases[i].nobody)
			fail_msg("case %zu", i);
		assert_true(filter_passes(&f, slice_of(own)));
		assert_int_equal(filter_is_set(&f), i > 0);
		for (size_t j = 0; j < 6; j++) {
			free(all[j][0]);
			free(all[j][1]);
		}
	}
}

/* Lines of a log of before, or with less in them. */
static void
what_a_line_lacks_is_empty(void **state)
{
	char *any[] = { (char[]){ "*" } }, *some[] = { (char[]){ "?*" } };
	const struct config_filter all = { .instances = { any, 1 }, .severities = { any, 1 } };
	const struct config_filter none = { .regions = { some, 1 } };

	(void)state;
	assert_true(filter_passes(&all, SLICE("{\"action\":\"a\"}")));
	assert_false(filter_passes(&none, SLICE("{\"action\":\"a\"}")));
	assert_false(filter_passes(&none, SLICE("{\"action\":\"a\",\"logSourceCRN\":\"crn\"}")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pattern_matches_what_it_says),
		cmocka_unit_test(many_stars_take_no_time),
		cmocka_unit_test(an_event_passes_where_each_list_has_it),
		cmocka_unit_test(what_a_line_lacks_is_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
