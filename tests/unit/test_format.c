#include "../../src/sink/format_internal.h"

#include "keytrail/jsonscan.h"
#include "keytrail/merkle.h"
#include "keytrail/trail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof(*(a)))
#define GOLDEN	 "tests/unit/golden/"
#define LOG	 "9d1f0c5b7a3e4826b0c4d2e8f6a19375"
#define BOOT	 "5e2c7f10a4b84d39861d0f7b2ac953e6"

static const struct {
	const char *name;
	enum config_format format;
	const struct format_table *table; /* NULL: of its own file */
} formats[] = {
	{ "activity-tracker", CONFIG_FORMAT_ACTIVITY_TRACKER, NULL },
	{ "ocsf", CONFIG_FORMAT_OCSF, &format_ocsf_table },
	{ "ecs", CONFIG_FORMAT_ECS, &format_ecs_table },
	{ "cloudevents", CONFIG_FORMAT_CLOUDEVENTS, &format_cloudevents_table },
	{ "cef", CONFIG_FORMAT_CEF, &format_cef_table },
};

static struct sink_event
event_of(struct slice line, uint64_t seq, bool stub)
{
	struct sink_event e = {
		.line = line, .seq = seq, .prev = seq - 1, .log = LOG, .boot = BOOT, .stub = stub
	};
	struct merkle_hash leaf;

	merkle_leaf(line, &leaf);
	for (size_t i = 0; i < sizeof(leaf.b); i++)
		snprintf(e.hash + 2 * i, 3, "%02x", leaf.b[i]);
	return e;
}

static void
render(enum config_format format, const char *line, bool stub, struct buf *out)
{
	struct sink_event e = event_of(slice_of(line), 7, stub);
	struct err err;

	assert_int_equal(format_render(format, &e, out, &err), 0);
	assert_int_equal(buf_append(out, "", 1), 0);
}

static char *
rendered(enum config_format format, const char *line, bool stub)
{
	struct buf out = BUF_INIT;
	char *text;

	render(format, line, stub, &out);
	text = strdup(buf_slice(&out).p);
	buf_fini(&out);
	assert_non_null(text);
	return text;
}

/* ---- golden files ---- */

static void
read_file(const char *name, struct buf *out)
{
	char path[128];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), GOLDEN "%s", name);
	assert_non_null(f = fopen(path, "re"));
	do {
		assert_int_equal(buf_reserve(out, 65536), 0);
		n = fread(buf_tail(out), 1, 65536, f);
		buf_commit(out, n);
	} while (n > 0);
	fclose(f);
}

static void
write_file(const char *name, struct slice text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), GOLDEN "%s", name);
	assert_non_null(f = fopen(path, "we"));
	assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
	assert_int_equal(fclose(f), 0);
}

static struct slice
next_line(struct slice *text)
{
	const char *end = memchr(text->p, '\n', text->n);
	struct slice line;

	assert_non_null(end);
	line = slice_sub(*text, 0, (size_t)(end - text->p));
	*text = slice_sub(*text, line.n + 1, text->n);
	return line;
}

/* Each line, and then the stubs of a call and of an event of our own. */
static void
render_all(enum config_format format, struct slice lines, struct buf *out)
{
	struct err err;
	uint64_t seq = 1;

	for (struct slice rest = lines; rest.n > 0; seq++) {
		struct slice line = next_line(&rest);

		for (int stub = 0; stub <= (seq == 1 || rest.n == 0); stub++) {
			struct sink_event e = event_of(line, seq, stub);

			assert_int_equal(format_render(format, &e, out, &err), 0);
			assert_int_equal(buf_append(out, "\n", 1), 0);
		}
	}
}

/* GOLDEN=write writes them anew, as another VERSION asks for. */
static void
test_events_are_as_they_were_recorded(void **state)
{
	struct buf lines = BUF_INIT;

	(void)state;
	read_file("lines", &lines);
	for (size_t i = 0; i < COUNT(formats); i++) {
		struct buf want = BUF_INIT, got = BUF_INIT;
		struct slice w, g;

		render_all(formats[i].format, buf_slice(&lines), &got);
		if (getenv("GOLDEN") != NULL)
			write_file(formats[i].name, buf_slice(&got));
		read_file(formats[i].name, &want);
		for (w = buf_slice(&want), g = buf_slice(&got); w.n > 0 && g.n > 0;) {
			struct slice a = next_line(&w), b = next_line(&g);

			if (!slice_equal(a, b))
				fail_msg("%s:\n%.*s\nnot\n%.*s", formats[i].name, SLICE_ARG(b),
				    SLICE_ARG(a));
		}
		assert_int_equal(w.n, g.n);
		buf_fini(&want);
		buf_fini(&got);
	}
	buf_fini(&lines);
}

/* ---- tables ---- */

/* By the names of a path one after the other, without their brackets. */
static int
compare_paths(const char *a, const char *b)
{
	for (;; a++, b++) {
		a += 2 * (strncmp(a, "[]", 2) == 0);
		b += 2 * (strncmp(b, "[]", 2) == 0);
		if (*a != *b)
			return *a == '.' ? -1 : *b == '.' ? 1 : *a - *b;
		if (*a == '\0')
			return 0;
	}
}

static void
test_attributes_are_in_canonical_order(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(formats); i++) {
		const struct format_table *t = formats[i].table;

		for (size_t row = 1; t != NULL && row < t->n; row++)
			if (compare_paths(t->rows[row - 1].path, t->rows[row].path) >= 0)
				fail_msg("%s: %s stands before %s", formats[i].name,
				    t->rows[row - 1].path, t->rows[row].path);
	}
}

static void
test_names_of_facts_are_in_order(void **state)
{
	(void)state;
	for (enum fact i = 1; i < FACTS_OF_LINE; i++)
		assert_true(strcmp(fact_name(i - 1), fact_name(i)) < 0);
}

static void
test_the_manual_tells_of_each_attribute(void **state)
{
	struct buf out = BUF_INIT;
	char cell[96];

	(void)state;
	assert_int_equal(format_reference(&out), 0);
	for (size_t i = 0; i < COUNT(formats); i++)
		for (size_t row = 0; formats[i].table != NULL && row < formats[i].table->n; row++) {
			int n = snprintf(
			    cell, sizeof(cell), "\n| `%s`", formats[i].table->rows[row].path);

			assert_non_null(memmem(buf_slice(&out).p, buf_size(&out), cell, (size_t)n));
		}
	assert_null(memmem(buf_slice(&out).p, buf_size(&out), "(null)", 6));
	buf_fini(&out);
}

/* ---- lines that the journal never wrote ---- */

static void
test_what_is_no_canonical_line_is_told_of_as_a_stub(void **state)
{
	static const char *const lines[] = {
		"",
		"nothing",
		"[\"action\"]",
		"{\"action\":\"a\"} ",
		"{\"action\":\"a\"}{}",
		"{\"action\":\"a\",\n\"outcome\":\"success\"}",
		"{\"action\":\"a\",\"details\":{\"x\":\t1}}",
		"{\"action\":\"a\",\"message\":\"\x01\"}",
		"{\"action\":\"a\",\"message\":\"\\ud800\"}",
		"{\"action\":\"a\",\"message\":\"\xff\"}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(lines); i++)
		for (size_t f = 0; f < COUNT(formats); f++) {
			char *text = rendered(formats[f].format, lines[i], false);
			bool good = strstr(text, "stub") != NULL && strchr(text, '\n') == NULL;

			/* A blank behind the line is none of ours, and harms nobody. */
			if (!good && strcmp(lines[i], "{\"action\":\"a\"} ") != 0)
				fail_msg("%s of \"%s\": %s", formats[f].name, lines[i], text);
			free(text);
		}
}

static void
test_an_id_that_is_no_number_is_left_out(void **state)
{
	struct sink_event e = event_of(SLICE("{\"action\":\"a\"}"), 3, false);
	struct buf out = BUF_INIT;
	struct err err;

	(void)state;
	e.log = "a\\";
	e.boot = "|=\"";
	for (size_t f = 0; f < COUNT(formats); f++)
		assert_int_equal(format_render(formats[f].format, &e, &out, &err), 0);
	assert_null(memmem(buf_slice(&out).p, buf_size(&out), "a\\", 2));
	assert_null(memmem(buf_slice(&out).p, buf_size(&out), "|=", 2));
	buf_fini(&out);
}

static void
test_a_line_of_no_trail_is_not_added_to(void **state)
{
	char *text = rendered(CONFIG_FORMAT_ACTIVITY_TRACKER, "{\"action\":\"a\"}", false);
	const char *want = "{\"action\":\"a\",\"delivery\":{\"hash\":";

	(void)state;
	assert_memory_equal(text, want, strlen(want));
	assert_non_null(strstr(text, "\"seq\":7}}"));
	free(text);
}

static void
test_a_fact_of_another_type_is_none(void **state)
{
	static const enum config_format taken_apart[] = { CONFIG_FORMAT_OCSF, CONFIG_FORMAT_ECS,
		CONFIG_FORMAT_CEF };
	static const char line[] = "{\"action\":{\"x\":\"a.b\"},\"details\":[0],"
				   "\"initiator\":{\"host\":{\"address\":[\"::1\"]}},"
				   "\"outcome\":true,\"reason\":{\"reasonCode\":\"999\"}}";
	static const char *const none[] = { "a.b", "[0]", "::1", "outcome", "999" };

	(void)state;
	for (size_t i = 0; i < COUNT(taken_apart); i++) {
		char *text = rendered(taken_apart[i], line, false);

		for (size_t k = 0; k < COUNT(none); k++)
			if (strstr(text, none[k]) != NULL)
				fail_msg("%s: %s", none[k], text);
		free(text);
	}
}

static void
test_what_a_line_says_twice_is_said_once(void **state)
{
	char *text = rendered(CONFIG_FORMAT_ECS, "{\"action\":\"a\",\"action\":\"b\"}", false);

	(void)state;
	assert_null(strstr(strstr(text, "\"action\":") + 1, "\"action\":"));
	free(text);
}

/* ---- CEF ---- */

static void
test_cef_escapes_what_its_frame_is_made_of(void **state)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{ "{\"action\":\"a|b\\\\c=d\",\"message\":\"x|y\\\\z=\\n\"}",
		    "|a\\|b\\\\c=d|x\\|y\\\\z= |" },
		{ "{\"outcome\":\"a=b|c\\\\d\"}", " outcome=a\\=b|c\\\\d" },
		{ "{\"outcome\":\"a\\nb\\rc\\td\\u007fe\"}", " outcome=a\\nb\\rc d e" },
		{ "{\"initiator\":{\"name\":\"a cs1=forged src=192.0.2.1\"}}",
		    " suser=a cs1\\=forged src\\=192.0.2.1" },
		{ "{\"initiator\":{\"name\":\"\\u0041\\u20ac\"}}", " suser=A\xe2\x82\xac" },
		{ "{\"reason\":{\"reasonCode\":\"1 x=\"}}",
		    "|Unknown|cat=own cn2Label=prev cn2=6 cs2" },
		{ "{\"severity\":\"critical\"}", "|9|" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = rendered(CONFIG_FORMAT_CEF, cases[i].line, false);

		if (strstr(text, cases[i].want) == NULL)
			fail_msg("%s: %s", cases[i].line, text);
		free(text);
	}
}

static void
test_cef_cuts_what_is_too_long_at_a_character(void **state)
{
	char line[256], want[96], *text;

	(void)state;
	/* 63 bytes at most, and the character over the edge has three. */
	snprintf(line, sizeof(line), "{\"outcome\":\"%062d\xe2\x82\xac\"}", 0);
	snprintf(want, sizeof(want), " outcome=%062d rt", 0);
	memcpy(strstr(want, " rt"), "\0", 1);
	text = rendered(CONFIG_FORMAT_CEF, line, false);
	assert_non_null(strstr(text, want));
	assert_null(strstr(text, "\xe2"));
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events_are_as_they_were_recorded),
		cmocka_unit_test(test_attributes_are_in_canonical_order),
		cmocka_unit_test(test_names_of_facts_are_in_order),
		cmocka_unit_test(test_the_manual_tells_of_each_attribute),
		cmocka_unit_test(test_what_is_no_canonical_line_is_told_of_as_a_stub),
		cmocka_unit_test(test_an_id_that_is_no_number_is_left_out),
		cmocka_unit_test(test_a_line_of_no_trail_is_not_added_to),
		cmocka_unit_test(test_a_fact_of_another_type_is_none),
		cmocka_unit_test(test_what_a_line_says_twice_is_said_once),
		cmocka_unit_test(test_cef_escapes_what_its_frame_is_made_of),
		cmocka_unit_test(test_cef_cuts_what_is_too_long_at_a_character),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
