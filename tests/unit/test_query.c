#include "keytrail/join.h"
#include "keytrail/query.h"
#include "keytrail/trail.h"
#include "tempdir.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND 1700000000 /* 2023-11-14T22:13:20Z, of line 1; each line is a second later */

struct fixture {
	char dir[TEMPDIR_SIZE];
	struct trail *trail;
	struct query query;
	struct query_run run;
	struct err err;
	int64_t now;
	unsigned asked, cancel_at, writes, looks_left;
	char answer[4 << 20];
	size_t n;
	json_t *page;
};

static int64_t
now_ns(void *arg)
{
	struct fixture *f = arg;

	if (f->looks_left > 0 && --f->looks_left == 0)
		f->now = f->run.deadline_ns;
	return f->now;
}

static bool
is_cancelled(void *arg)
{
	struct fixture *f = arg;

	return f->cancel_at > 0 && ++f->asked >= f->cancel_at;
}

static int
take_piece(void *arg, struct slice piece)
{
	struct fixture *f = arg;

	assert_true(f->n + piece.n < sizeof(f->answer));
	memcpy(f->answer + f->n, piece.p, piece.n);
	f->n += piece.n;
	f->writes++;
	return 0;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct trail_opts opts = { .create = true, .segment_size = 65536, .room = 65536 };
	struct trail_recovery rec;

	tempdir_make(f->dir);
	opts.dir = f->dir;
	assert_int_equal(trail_open(&opts, &f->trail, &rec, &f->err), 0);
	query_init(&f->query);
	f->run = (struct query_run){ .dirfd = trail_dirfd(f->trail),
		.query = &f->query,
		.deadline_ns = 1,
		.now_ns = now_ns,
		.cancelled = is_cancelled,
		.write = take_piece,
		.arg = f };
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	json_decref(f->page);
	trail_close(f->trail, true);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

/* ---- the trail ---- */

static void
append(struct fixture *f, const char *text)
{
	uint64_t seq;

	assert_int_equal(
	    trail_append(f->trail, slice_of(text),
		(SECOND + (int64_t)trail_last_seq(f->trail)) * CLOCK_NS_PER_S, &seq, &f->err),
	    0);
	assert_int_equal(trail_write(f->trail, &f->err), 0);
	assert_int_equal(trail_sync(f->trail, &f->err), 0);
}

static void
append_event(struct fixture *f, const char *action, const char *id)
{
	char text[512];

	snprintf(text, sizeof(text),
	    "{\"action\":\"%s\",\"correlationId\":\"c-%s\",\"id\":\"%s\","
	    "\"initiator\":{\"id\":\"IBMid-%s\"},\"outcome\":\"success\",\"severity\":\"normal\"",
	    action, id, id, id);
	append(f, text);
}

static void
append_intent(struct fixture *f, const char *id)
{
	char text[512];

	snprintf(text, sizeof(text),
	    "{\"action\":\"kms.secrets.delete\",\"id\":\"%s\",\"kind\":\"intent\","
	    "\"outcome\":\"pending\",\"severity\":\"normal\"",
	    id);
	append(f, text);
}

static void
append_many(struct fixture *f, unsigned n)
{
	char id[16];

	for (unsigned i = 0; i < n; i++) {
		snprintf(id, sizeof(id), "n%u", i);
		append_event(f, i % 10 == 3 ? "kms.secrets.wrap" : "kms.secrets.list", id);
	}
}

static size_t
count_segments(const struct fixture *f)
{
	DIR *d = opendir(f->dir);
	struct dirent *e;
	size_t n = 0;

	while ((e = readdir(d)) != NULL)
		n += strstr(e->d_name, ".jsonl") != NULL;
	closedir(d);
	return n;
}

/* ---- asking ---- */

static void
set(struct fixture *f, const char *name, const char *value)
{
	if (query_set(&f->query, name, value, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

static void
ask(struct fixture *f)
{
	json_error_t why;

	json_decref(f->page);
	f->n = f->writes = 0;
	assert_int_equal(query_run(&f->run, &f->err), 0);
	if ((f->page = json_loadb(f->answer, f->n, 0, &why)) == NULL)
		fail_msg("%s: %.*s", why.text, (int)f->n, f->answer);
}

static void
expect_page(struct fixture *f, const char *ids, const char *next, bool more)
{
	json_t *row;
	size_t i;
	char got[8192] = "";

	json_array_foreach(json_object_get(f->page, "events"), i, row)
	{
		strcat(got, i > 0 ? " " : "");
		strcat(got, json_string_value(json_object_get(row, "id")));
	}
	assert_string_equal(got, ids);
	assert_string_equal(json_string_value(json_object_get(f->page, "next")), next);
	assert_int_equal(json_is_true(json_object_get(f->page, "more")), more);
}

/* ---- parameters ---- */

static void
what_is_wrong_with_a_parameter_is_said(void **state)
{
	static const struct {
		const char *name, *value, *want;
	} cases[] = {
		{ "colour", "c4n4ry",
		    "unknown parameter; there are action, correlationId, cursor, "
		    "initiator, limit, outcome, severity, since and until" },
		{ "limit", "0", "limit: a number from 1 to 1000 is wanted" },
		{ "limit", "1001", "limit: a number from 1 to 1000 is wanted" },
		{ "limit", "c4n4ry", "limit: a number from 1 to 1000 is wanted" },
		{ "cursor", "0", "cursor: a number from 1 to 9223372036854775807 is wanted" },
		{ "cursor", "-1", "cursor: a number from 1 to 9223372036854775807 is wanted" },
		{ "outcome", "c4n4ry", "outcome: success, failure, unknown or pending is wanted" },
		{ "severity", "high", "severity: normal, warning or critical is wanted" },
		{ "action", "", "action: 1 to 128 bytes are wanted" },
		{ "since", "yesterday",
		    "since: a number or a time like 2026-01-31T23:59:59Z is wanted" },
		{ "until", "2026-01-31",
		    "until: a number or a time like 2026-01-31T23:59:59Z is wanted" },
		{ "until", "2026-01-31T23:59:59+0100",
		    "until: a number or a time like 2026-01-31T23:59:59Z is wanted" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct query q;
		struct err err;

		query_init(&q);
		assert_int_equal(query_set(&q, cases[i].name, cases[i].value, &err), -1);
		assert_string_equal(err.msg, cases[i].want);
	}
}

static void
a_parameter_comes_once(void **state)
{
	struct fixture *f = *state;

	set(f, "limit", "5");
	assert_int_equal(query_set(&f->query, "limit", "6", &f->err), -1);
	assert_string_equal(f->err.msg, "limit: given more than once");
}

static void
times_come_in_three_forms(void **state)
{
	static const struct {
		const char *value, *want;
	} cases[] = {
		{ "2026-01-31T23:59:59Z", "2026-01-31T23:59:59.00+0000" },
		{ "2026-01-31T23:59:59.5Z", "2026-01-31T23:59:59.50+0000" },
		{ "2026-01-31T23:59:59.07Z", "2026-01-31T23:59:59.07+0000" },
		{ "2026-01-31T23:59:59.07+0000", "2026-01-31T23:59:59.07+0000" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct query q;
		struct err err;

		query_init(&q);
		assert_int_equal(query_set(&q, "since", cases[i].value, &err), 0);
		assert_string_equal(q.since.at, cases[i].want);
	}
}

static void
the_shape_holds_names_and_no_values(void **state)
{
	struct fixture *f = *state;
	char shape[128];

	query_shape(&f->query, shape, sizeof(shape));
	assert_string_equal(shape, "");
	set(f, "since", "7");
	set(f, "initiator", "c4n4ry");
	query_shape(&f->query, shape, sizeof(shape));
	assert_string_equal(shape, "initiator, since");
	query_shape(&f->query, shape, 14);
	assert_string_equal(shape, "initiator");
}

/* ---- matching ---- */

static void
each_string_must_be_equal(void **state)
{
	static const char line[] =
	    "{\"action\":\"kms.secrets.wrap\",\"correlationId\":\"c\",\"initiator\":{\"claimed\":"
	    "{\"id\":\"victim\"},\"id\":\"IBMid-\\\"1\"},\"outcome\":\"failure\",\"severity\":"
	    "\"warning\",\"trail\":{\"at\":\"2026-01-31T23:59:59.07+0000\"}}";
	static const struct {
		const char *name, *value;
		bool want;
	} cases[] = {
		{ "action", "kms.secrets.wrap", true },
		{ "action", "kms.secrets.wra", false },
		{ "correlationId", "c", true },
		{ "correlationId", "C", false },
		{ "initiator", "IBMid-\"1", true },
		{ "initiator", "victim", false },
		{ "outcome", "failure", true },
		{ "outcome", "success", false },
		{ "severity", "warning", true },
		{ "severity", "critical", false },
		{ "since", "7", true },
		{ "since", "8", false },
		{ "since", "2026-01-31T23:59:59.07Z", true },
		{ "since", "2026-01-31T23:59:59.08Z", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct query q;
		struct err err;

		query_init(&q);
		assert_int_equal(query_set(&q, cases[i].name, cases[i].value, &err), 0);
		if (query_matches(&q, slice_of(line), 7) != cases[i].want)
			fail_msg("%s=%s", cases[i].name, cases[i].value);
	}
}

/* ---- pages ---- */

static void
an_empty_trail_has_an_empty_page(void **state)
{
	struct fixture *f = *state;

	ask(f);
	expect_page(f, "", "1", false);
}

static void
pages_follow_each_other_across_segments(void **state)
{
	struct fixture *f = *state;
	unsigned rows = 0, pages = 0;
	char cursor[24] = "1";
	bool more;

	append_many(f, 1000);
	assert_true(count_segments(f) > 3);
	do {
		query_init(&f->query);
		set(f, "limit", "77");
		set(f, "cursor", cursor);
		ask(f);
		for (size_t i = 0; i < json_array_size(json_object_get(f->page, "events")); i++) {
			json_t *row = json_array_get(json_object_get(f->page, "events"), i);
			char want[16];

			snprintf(want, sizeof(want), "n%u", rows++);
			assert_string_equal(json_string_value(json_object_get(row, "id")), want);
		}
		snprintf(cursor, sizeof(cursor), "%s",
		    json_string_value(json_object_get(f->page, "next")));
		more = json_is_true(json_object_get(f->page, "more"));
		pages++;
	} while (more);
	assert_int_equal(rows, 1000);
	assert_int_equal(pages, 13);
	assert_string_equal(cursor, "1001");
}

static void
rows_are_lines_of_the_trail_byte_for_byte(void **state)
{
	struct fixture *f = *state;
	struct trail_reader *r;
	struct slice line;
	uint64_t seq;

	append_event(f, "kms.secrets.wrap", "1");
	ask(f);
	assert_int_equal(trail_reader_open(f->dir, 1, &r, &f->err), 0);
	assert_int_equal(trail_reader_next(r, &line, &seq, &f->err), 1);
	assert_non_null(memmem(f->answer, f->n, line.p, line.n));
	trail_reader_close(r);
}

static void
a_filter_passes_over_lines(void **state)
{
	struct fixture *f = *state;

	append_many(f, 35);
	set(f, "action", "kms.secrets.wrap");
	set(f, "limit", "3");
	ask(f);
	expect_page(f, "n3 n13 n23", "25", true);
	set(f, "cursor", "25");
	ask(f);
	expect_page(f, "n33", "36", false);
}

static void
a_range_of_numbers_or_times_holds_its_beginning_and_not_its_end(void **state)
{
	struct fixture *f = *state;

	append_many(f, 1000);
	set(f, "since", "501");
	set(f, "until", "503");
	ask(f);
	expect_page(f, "n500 n501", "503", false);
	query_init(&f->query);
	set(f, "since", "2023-11-14T22:21:40Z"); /* 500 seconds after line 1 */
	set(f, "until", "2023-11-14T22:21:42Z");
	ask(f);
	expect_page(f, "n500 n501", "503", false);
}

/* Every time of the trail, and one beyond each end; whatever somebody puts between our lines. */
static void
a_time_is_found_wherever_it_is(void **state)
{
	struct fixture *f = *state;
	char at[CLOCK_EVENT_TIME_SIZE];
	uint64_t seq;
	int fd;

	append_many(f, 1000);
	fd = openat(trail_dirfd(f->trail), "00000000000000000007.jsonl", O_WRONLY | O_CREAT, 0600);
	assert_true(fd != -1);
	close(fd);
	for (int i = -1; i <= 1000; i++) {
		clock_event_time((SECOND + (int64_t)i) * CLOCK_NS_PER_S, at);
		assert_int_equal(trail_find_time(trail_dirfd(f->trail), at, &seq, &f->err), 0);
		assert_int_equal(seq, i < 0 ? 1 : i + 1);
	}
}

static void
a_page_ends_when_its_time_is_over(void **state)
{
	struct fixture *f = *state;

	append_many(f, 10);
	f->now = f->run.deadline_ns;
	ask(f);
	expect_page(f, "", "1", true);
}

static void
a_page_has_a_bound_in_bytes(void **state)
{
	struct fixture *f = *state;
	static char text[8192];
	size_t rows;

	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "{\"id\":\"", 7);
	text[sizeof(text) - 2] = '"';
	for (int i = 0; i < 200; i++)
		append(f, text);
	set(f, "limit", "1000");
	ask(f);
	rows = json_array_size(json_object_get(f->page, "events"));
	assert_in_range(rows, QUERY_BYTES_MAX / 8400, QUERY_BYTES_MAX / 8190 + 1);
	assert_true(json_is_true(json_object_get(f->page, "more")));
	assert_in_range(f->writes, 12, 20);
}

static void
a_cancelled_query_writes_no_more(void **state)
{
	struct fixture *f = *state;

	append_many(f, 100);
	f->cancel_at = 50;
	assert_int_equal(query_run(&f->run, &f->err), 1);
	assert_int_equal(f->writes, 0);
}

static void
a_trail_that_is_not_there_is_an_error(void **state)
{
	struct fixture *f = *state;

	f->run.dirfd = open("/", O_RDONLY | O_DIRECTORY);
	assert_int_equal(query_run(&f->run, &f->err), -1);
	assert_string_equal(f->err.msg, "no trail here: there is no file \"state\"");
	close(f->run.dirfd);
	assert_int_equal(f->writes, 0);
}

/* ---- intents ---- */

static void
a_closed_intent_is_no_row(void **state)
{
	struct fixture *f = *state;

	append_intent(f, "a");
	append_event(f, "kms.secrets.list", "b");
	append_intent(f, "c");
	ask(f);
	expect_page(f, "a b c", "4", false);
	append_event(f, "kms.secrets.delete", "a");
	ask(f);
	expect_page(f, "b c a", "5", false);
}

static void
the_closing_event_may_be_beyond_the_page(void **state)
{
	struct fixture *f = *state;

	append_intent(f, "a");
	append_event(f, "kms.secrets.list", "b");
	append_intent(f, "p");
	append_many(f, 300);
	append_event(f, "kms.secrets.delete", "a");
	set(f, "limit", "3");
	ask(f);
	expect_page(f, "b p", "4", true);
	query_init(&f->query);
	set(f, "until", "3");
	ask(f);
	expect_page(f, "b", "3", false);
}

static void
an_intent_is_closed_by_what_no_filter_shows(void **state)
{
	struct fixture *f = *state;

	append_intent(f, "a");
	append_intent(f, "b");
	append_event(f, "kms.secrets.delete", "a");
	set(f, "outcome", "pending");
	ask(f);
	expect_page(f, "b", "4", false);
}

/* What is not looked for in time begins the next page, where it is shown at last. */
static void
a_page_is_cut_before_what_there_was_no_time_to_look_for(void **state)
{
	struct fixture *f = *state;

	append_event(f, "kms.secrets.list", "a");
	append_intent(f, "b");
	append_event(f, "kms.secrets.list", "c");
	append_many(f, 300);
	set(f, "limit", "3");
	f->looks_left = 3;
	ask(f);
	expect_page(f, "a", "2", true);
	query_init(&f->query);
	set(f, "limit", "3");
	set(f, "cursor", "2");
	f->now = 0;
	f->looks_left = 3;
	ask(f);
	expect_page(f, "b c n0", "5", true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_wrong_with_a_parameter_is_said),
		TEST(a_parameter_comes_once),
		TEST(times_come_in_three_forms),
		TEST(the_shape_holds_names_and_no_values),
		TEST(each_string_must_be_equal),
		TEST(an_empty_trail_has_an_empty_page),
		TEST(pages_follow_each_other_across_segments),
		TEST(rows_are_lines_of_the_trail_byte_for_byte),
		TEST(a_filter_passes_over_lines),
		TEST(a_range_of_numbers_or_times_holds_its_beginning_and_not_its_end),
		TEST(a_time_is_found_wherever_it_is),
		TEST(a_page_ends_when_its_time_is_over),
		TEST(a_page_has_a_bound_in_bytes),
		TEST(a_cancelled_query_writes_no_more),
		TEST(a_trail_that_is_not_there_is_an_error),
		TEST(a_closed_intent_is_no_row),
		TEST(the_closing_event_may_be_beyond_the_page),
		TEST(an_intent_is_closed_by_what_no_filter_shows),
		TEST(a_page_is_cut_before_what_there_was_no_time_to_look_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
