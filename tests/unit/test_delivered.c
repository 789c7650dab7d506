/* What arrived at a receiver, judged: made lines, altered, dropped, repeated and out of order. */
#include "keytrail/delivered.h"
#include "keytrail/base64.h"
#include "keytrail/crc32c.h"
#include "keytrail/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG    "0123456789abcdef0123456789abcdef"
#define OTHER  "fedcba9876543210fedcba9876543210"
#define BOOT   "00000000000000000000000000000001"
#define EVENTS 20
#define SIGNED 15 /* of them, as number 16 tells */

struct world {
	struct checkpoint_signer *signer;
	char lines[EVENTS + 1][1024]; /* as recorded, from 1 */
	char texts[EVENTS + 1][1200]; /* as delivered */
	struct delivered *d;
	struct delivered_log logs[4];
	size_t n;
};

/* ---- lines ---- */

static void
close_line(char *line, const char *log, uint64_t seq)
{
	size_t n = strlen(line);

	n += (size_t)sprintf(line + n,
	    ",\"trail\":{\"at\":\"2026-11-23T10:00:%02" PRIu64 ".00+0000\",\"boot\":\"" BOOT
	    "\",\"log\":\"%s\",\"seq\":%" PRIu64,
	    seq, log, seq);
	sprintf(line + n, ",\"sum\":\"%08x\"}}", (unsigned)crc32c(0, line, n));
}

static void
render(const char *line, uint64_t seq, uint64_t prev, bool stub, char *text)
{
	struct sink_event e = { .line = slice_of(line),
		.seq = seq,
		.prev = prev,
		.log = LOG,
		.boot = BOOT,
		.stub = stub };
	struct buf out = BUF_INIT;
	struct merkle_hash leaf;
	struct err err;

	merkle_leaf(e.line, &leaf);
	for (size_t i = 0; i < sizeof(leaf.b); i++)
		sprintf(e.hash + 2 * i, "%02x", leaf.b[i]);
	assert_int_equal(format_render(CONFIG_FORMAT_ACTIVITY_TRACKER, &e, &out, &err), 0);
	slice_to_cstr(buf_slice(&out), text, 1200);
	buf_fini(&out);
}

/* A checkpoint of the first `size` lines, as the line tells of it; or one of fewer, under its
 * signature. */
static void
put_checkpoint(struct world *w, uint64_t size, bool forged, char *line)
{
	struct merkle_tree tree = MERKLE_TREE_INIT;
	struct checkpoint cp = { .size = size };
	struct buf note = BUF_INIT;
	struct merkle_hash leaf;
	char text[900];
	size_t n;
	struct err err;

	for (uint64_t i = 1; i <= size; i++) {
		merkle_leaf(slice_of(w->lines[i]), &leaf);
		merkle_append(&tree, &leaf);
	}
	merkle_root(&tree, &cp.root);
	snprintf(cp.origin, sizeof(cp.origin), "example.com/test/" LOG);
	assert_int_equal(checkpoint_write(w->signer, &cp, &note, &err), 0);
	if (forged)
		*(strchr(note.mem, '\n') + 1) = '2';
	n = base64_encode(buf_slice(&note).p, buf_size(&note), text);
	sprintf(line, "{\"action\":\"keytrail.checkpoint\",\"details\":{\"note\":\"%.*s\"}", (int)n,
	    text);
	buf_fini(&note);
}

static void
make_lines(struct world *w)
{
	for (uint64_t i = 1; i <= EVENTS; i++) {
		if (i == SIGNED + 1)
			put_checkpoint(w, SIGNED, false, w->lines[i]);
		else
			sprintf(w->lines[i],
			    "{\"action\":\"kms.secrets.list\",\"eventTime\":\"t%" PRIu64 "\"", i);
		close_line(w->lines[i], LOG, i);
		render(w->lines[i], i, i - 1, false, w->texts[i]);
	}
}

static int
setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char text[CHECKPOINT_KEY_MAX];
	struct err err;

	assert_int_equal(checkpoint_signer_make("example.com/test", text, &err), 0);
	w->signer = checkpoint_signer_parse(slice_of(text), &err);
	make_lines(w);
	w->d = delivered_new(checkpoint_signer_key(w->signer), 1);
	*state = w;
	return 0;
}

static int
teardown(void **state)
{
	struct world *w = *state;

	delivered_free(w->d);
	checkpoint_signer_free(w->signer);
	free(w);
	return 0;
}

/* ---- what arrives, and what is said of it ---- */

static void
arrive(struct world *w, const char *text)
{
	struct err err;

	assert_int_equal(delivered_take(w->d, slice_of(text), &err), 1);
}

static void
arrive_but(struct world *w, uint64_t missing)
{
	for (uint64_t i = 1; i <= EVENTS; i++)
		if (i != missing)
			arrive(w, w->texts[i]);
}

static int
keep(void *world, const struct delivered_log *log)
{
	struct world *w = world;

	assert_in_range(w->n, 0, 3);
	w->logs[w->n++] = *log;
	return 0;
}

static const struct verify_report *
judge(struct world *w)
{
	assert_int_equal(delivered_judge(w->d, keep, w), 0);
	assert_in_range(w->n, 1, 4);
	return &w->logs[0].report;
}

static void
assert_finding(const struct verify_report *r, enum verify_kind kind, const char *text)
{
	for (size_t i = 0; i < r->nfindings; i++)
		if (r->findings[i].kind == kind && strstr(r->findings[i].text, text) != NULL)
			return;
	fail_msg("no \"%s\" among %zu findings, the first \"%s\"", text, r->nfindings,
	    r->findings[0].text);
}

static void
assert_verdicts(
    const struct verify_report *r, enum verify_verdict unaltered, enum verify_verdict complete)
{
	assert_int_equal(r->unaltered, unaltered);
	assert_int_equal(r->complete, complete);
}

static void
test_all_of_it_is_there(void **state)
{
	struct world *w = *state;
	const struct verify_report *r;

	arrive_but(w, 0);
	r = judge(w);
	assert_verdicts(r, VERIFY_YES, VERIFY_YES);
	assert_int_equal(r->nfindings, 0);
	assert_int_equal(r->checkpoint.size, SIGNED);
	assert_int_equal(r->unsigned_lines, EVENTS - SIGNED);
	assert_int_equal(w->logs[0].events, EVENTS);
	assert_int_equal(w->logs[0].repeated, 0);
	assert_string_equal(w->logs[0].id, LOG);
	assert_string_equal(w->logs[0].last_at, "2026-11-23T10:00:20.00+0000");
}

static void
test_order_and_repeats_do_not_matter(void **state)
{
	struct world *w = *state;

	for (uint64_t i = EVENTS; i >= 1; i--) {
		arrive(w, w->texts[i]);
		if (i % 4 == 0)
			arrive(w, w->texts[i]);
	}
	assert_verdicts(judge(w), VERIFY_YES, VERIFY_YES);
	assert_int_equal(w->logs[0].repeated, EVENTS / 4);
	assert_int_equal(w->logs[0].events, EVENTS);
}

static void
test_what_is_missing_is_missed(void **state)
{
	struct world *w = *state;

	arrive_but(w, 7);
	assert_finding(
	    judge(w), VERIFY_INCOMPLETE, "event 7 was delivered before event 8 and is not here");
	assert_verdicts(&w->logs[0].report, VERIFY_UNKNOWN, VERIFY_NO);
}

static void
test_a_filter_is_no_loss(void **state)
{
	struct world *w = *state;

	for (uint64_t i = 1; i <= EVENTS; i += 3) {
		render(w->lines[i], i, i == 1 ? 0 : i - 3, false, w->texts[i]);
		arrive(w, w->texts[i]);
	}
	assert_finding(judge(w), VERIFY_CANNOT_TELL, "without which the root");
	assert_verdicts(&w->logs[0].report, VERIFY_UNKNOWN, VERIFY_YES);
}

static void
test_the_beginning_may_have_expired(void **state)
{
	struct world *w = *state;

	for (uint64_t i = 5; i <= EVENTS; i++)
		arrive(w, w->texts[i]);
	assert_finding(judge(w), VERIFY_NOTE, "event 4 was delivered before the first one here");
	assert_verdicts(&w->logs[0].report, VERIFY_UNKNOWN, VERIFY_YES);
}

static void
test_a_new_cursor_leaves_a_doubt(void **state)
{
	struct world *w = *state;

	render(w->lines[9], 9, 0, false, w->texts[9]);
	arrive_but(w, 8);
	assert_finding(judge(w), VERIFY_CANNOT_TELL, "event 9 does not say what was delivered");
	assert_verdicts(&w->logs[0].report, VERIFY_UNKNOWN, VERIFY_YES);
}

static void
test_an_altered_event_is_found(void **state)
{
	struct world *w = *state;

	*strstr(w->texts[3], "list") = 'L';
	assert_int_equal(delivered_take(w->d, slice_of(w->texts[3]), &(struct err){ "" }), 0);
	/* Its sum made to fit, but not its hash. */
	sprintf(w->lines[4], "{\"action\":\"kms.secrets.wrap\"");
	close_line(w->lines[4], LOG, 4);
	memcpy(w->texts[0], strstr(w->texts[4], "\"delivery\""), 111);
	sprintf(w->texts[4], "{\"action\":\"kms.secrets.wrap\",%.*s%s",
	    (int)(strchr(w->texts[0], '}') - w->texts[0]) + 1, w->texts[0],
	    strstr(w->lines[4], ",\"trail\""));
	arrive_but(w, 3);
	assert_finding(judge(w), VERIFY_ALTERED, "event 4 is not what its hash says");
}

static void
test_an_event_with_a_hash_of_its_own_leads_to_no_signed_root(void **state)
{
	struct world *w = *state;

	sprintf(w->lines[4], "{\"action\":\"kms.secrets.wrap\"");
	close_line(w->lines[4], LOG, 4);
	render(w->lines[4], 4, 3, false, w->texts[4]);
	arrive_but(w, 0);
	assert_finding(
	    judge(w), VERIFY_ALTERED, "events 1 to 15 do not lead to the root that was signed");
	assert_verdicts(&w->logs[0].report, VERIFY_NO, VERIFY_YES);
}

static void
test_one_number_with_two_contents_is_found(void **state)
{
	struct world *w = *state;

	arrive_but(w, 0);
	sprintf(w->lines[4], "{\"action\":\"kms.secrets.wrap\"");
	close_line(w->lines[4], LOG, 4);
	render(w->lines[4], 4, 3, false, w->texts[4]);
	arrive(w, w->texts[4]);
	assert_finding(judge(w), VERIFY_ALTERED, "event 4 arrived with two contents");
}

static void
test_a_stub_stands_for_its_event(void **state)
{
	struct world *w = *state;

	render(w->lines[4], 4, 3, true, w->texts[4]);
	arrive_but(w, 0);
	assert_verdicts(judge(w), VERIFY_YES, VERIFY_YES);
	assert_int_equal(w->logs[0].stubs, 1);
}

static void
test_a_forged_checkpoint_is_found(void **state)
{
	struct world *w = *state;

	put_checkpoint(w, SIGNED, true, w->lines[SIGNED + 1]);
	close_line(w->lines[SIGNED + 1], LOG, SIGNED + 1);
	render(w->lines[SIGNED + 1], SIGNED + 1, SIGNED, false, w->texts[SIGNED + 1]);
	arrive_but(w, 0);
	assert_finding(judge(w), VERIFY_ALTERED, "event 16: the checkpoint is forged");
}

static void
test_without_a_checkpoint_nothing_is_proved(void **state)
{
	struct world *w = *state;

	for (uint64_t i = 1; i <= SIGNED; i++)
		arrive(w, w->texts[i]);
	assert_finding(judge(w), VERIFY_CANNOT_TELL, "no checkpoint of a given key is here");
	assert_verdicts(&w->logs[0].report, VERIFY_UNKNOWN, VERIFY_YES);
}

static void
test_logs_are_judged_each_for_itself(void **state)
{
	struct world *w = *state;
	char line[1024] = "{\"action\":\"keytrail.start\"", text[1200];

	arrive_but(w, 0);
	close_line(line, OTHER, 1);
	render(line, 1, 0, false, text);
	arrive(w, text);
	assert_verdicts(judge(w), VERIFY_YES, VERIFY_YES);
	assert_int_equal(w->n, 2);
	assert_string_equal(w->logs[1].id, OTHER);
	assert_int_equal(w->logs[1].events, 1);
}

static void
test_what_is_no_event_is_none(void **state)
{
	static const char *const lines[] = { "", "{}", "x",
		"{\"delivery\":{\"hash\":\"00\",\"prev\":1}}",
		"{\"action\":\"a\",\"delivery\":{\"hash\":"
		"\"0000000000000000000000000000000000000000000000000000000000000000\",\"prev\":1,"
		"\"stub\":true},\"trail\":{\"log\":\"\\u001b\",\"seq\":1}}" };
	struct world *w = *state;
	struct err err;

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_int_equal(delivered_take(w->d, slice_of(lines[i]), &err), 0);
	/* A line as it was recorded. */
	assert_int_equal(delivered_take(w->d, slice_of(w->lines[1]), &err), 0);
	assert_int_equal(delivered_judge(w->d, keep, w), 0);
	assert_int_equal(w->n, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_all_of_it_is_there),
		TEST(test_order_and_repeats_do_not_matter),
		TEST(test_what_is_missing_is_missed),
		TEST(test_a_filter_is_no_loss),
		TEST(test_the_beginning_may_have_expired),
		TEST(test_a_new_cursor_leaves_a_doubt),
		TEST(test_an_altered_event_is_found),
		TEST(test_an_event_with_a_hash_of_its_own_leads_to_no_signed_root),
		TEST(test_one_number_with_two_contents_is_found),
		TEST(test_a_stub_stands_for_its_event),
		TEST(test_a_forged_checkpoint_is_found),
		TEST(test_without_a_checkpoint_nothing_is_proved),
		TEST(test_logs_are_judged_each_for_itself),
		TEST(test_what_is_no_event_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
