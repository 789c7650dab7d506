#include "keytrail/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* The example of C2SP signed-note. */
#define VECTOR_KEY  "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
#define VECTOR_TEXT "This is an example message.\n"
#define VECTOR_LINE                                                                                \
	"— example.com/foo "                                                                     \
	"Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFX"                  \
	"mRKuwHjG1Yu72IneyaQM=\n"
#define STRANGER "— example.org/witness AAAAAAAAAAAAAAAA\n"

struct fixture {
	struct checkpoint_signer *signer;
	struct checkpoint_key key, vector;
	struct buf note;
	struct err err;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char text[CHECKPOINT_KEY_MAX];

	if (checkpoint_signer_make("example.com/log", text, &f->err) == -1 ||
	    (f->signer = checkpoint_signer_parse(slice_of(text), &f->err)) == NULL ||
	    checkpoint_key_parse(SLICE(VECTOR_KEY), &f->vector, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	f->key = *checkpoint_signer_key(f->signer);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	checkpoint_signer_free(f->signer);
	buf_fini(&f->note);
	free(f);
	return 0;
}

static enum checkpoint_verdict
open_vector(struct fixture *f, const char *note, struct slice *text)
{
	return checkpoint_open_note(slice_of(note), &f->vector, 1, text, &f->err);
}

static void
the_published_note_verifies(void **state)
{
	struct fixture *f = *state;
	struct slice text;

	assert_int_equal(open_vector(f, VECTOR_TEXT "\n" VECTOR_LINE, &text), CHECKPOINT_GOOD);
	assert_true(slice_equal(text, SLICE(VECTOR_TEXT)));
}

static const struct {
	const char *label, *note;
	enum checkpoint_verdict want;
} notes[] = {
	{ "unknown keys are passed over", VECTOR_TEXT "\n" STRANGER VECTOR_LINE STRANGER,
	    CHECKPOINT_GOOD },
	{ "sixteen of them",
	    VECTOR_TEXT "\n" STRANGER STRANGER STRANGER STRANGER STRANGER STRANGER STRANGER STRANGER
		STRANGER STRANGER STRANGER STRANGER STRANGER STRANGER STRANGER VECTOR_LINE,
	    CHECKPOINT_GOOD },
	{ "one byte of the text is another", "This is an example messagE.\n\n" VECTOR_LINE,
	    CHECKPOINT_FORGED },
	{ "an empty line more in the text", VECTOR_TEXT "\n\n" VECTOR_LINE, CHECKPOINT_FORGED },
	{ "a good one beside a wrong one",
	    VECTOR_TEXT "\n" VECTOR_LINE
			"— example.com/foo Uw2QOgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
			"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
	    CHECKPOINT_FORGED },
	{ "a signature that is too short", VECTOR_TEXT "\n— example.com/foo Uw2QOkn8\n",
	    CHECKPOINT_FORGED },
	{ "only strangers", VECTOR_TEXT "\n" STRANGER, CHECKPOINT_UNSIGNED },
	{ "no signature", VECTOR_TEXT "\n", CHECKPOINT_MALFORMED },
	{ "no empty line", VECTOR_TEXT VECTOR_LINE, CHECKPOINT_MALFORMED },
	{ "nothing", "", CHECKPOINT_MALFORMED },
	{ "no newline at the end", VECTOR_TEXT "\n— example.com/foo Uw2QOkn8",
	    CHECKPOINT_MALFORMED },
	{ "carriage returns", "This is an example message.\r\n\n" VECTOR_LINE,
	    CHECKPOINT_MALFORMED },
	{ "invalid UTF-8", "\xff\n\n" VECTOR_LINE, CHECKPOINT_MALFORMED },
	{ "a hyphen for the dash", VECTOR_TEXT "\n- example.com/foo Uw2QOkn8\n",
	    CHECKPOINT_MALFORMED },
	{ "a blank after the signature", VECTOR_TEXT "\n— example.com/foo Uw2QOkn8 \n",
	    CHECKPOINT_MALFORMED },
	{ "a '+' in a name", VECTOR_TEXT "\n— example.com+foo Uw2QOkn8\n" VECTOR_LINE,
	    CHECKPOINT_MALFORMED },
	{ "no name", VECTOR_TEXT "\n—  Uw2QOkn8\n" VECTOR_LINE, CHECKPOINT_MALFORMED },
	{ "four bytes of signature", VECTOR_TEXT "\n— x Uw2QOg==\n" VECTOR_LINE,
	    CHECKPOINT_MALFORMED },
};

static void
notes_are_judged_strictly(void **state)
{
	struct fixture *f = *state;
	struct slice text;

	for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
		enum checkpoint_verdict got = open_vector(f, notes[i].note, &text);

		if (got != notes[i].want)
			fail_msg("%s: got %d, wanted %d", notes[i].label, got, notes[i].want);
	}
}

static void
a_key_of_the_same_name_is_another_key(void **state)
{
	struct fixture *f = *state;
	char secret[CHECKPOINT_KEY_MAX];
	struct checkpoint_signer *other;
	struct slice text;

	assert_int_equal(checkpoint_signer_make("example.com/foo", secret, &f->err), 0);
	other = checkpoint_signer_parse(slice_of(secret), &f->err);
	assert_int_equal(checkpoint_open_note(SLICE(VECTOR_TEXT "\n" VECTOR_LINE),
			     checkpoint_signer_key(other), 1, &text, &f->err),
	    CHECKPOINT_UNSIGNED);
	checkpoint_signer_free(other);
}

static void
key_texts_come_back_as_they_were(void **state)
{
	struct fixture *f = *state;
	struct checkpoint_key k;
	char text[CHECKPOINT_KEY_MAX];

	checkpoint_key_text(&f->vector, text);
	assert_string_equal(text, VECTOR_KEY);
	checkpoint_key_text(&f->key, text);
	assert_int_equal(checkpoint_key_parse(slice_of(text), &k, &f->err), 0);
	assert_memory_equal(k.bytes, f->key.bytes, sizeof(k.bytes));
	assert_int_equal(k.id, f->key.id);
}

static void
bad_keys_are_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"example.com/foo",
		"example.com/foo+530d903a",
		"example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
		"example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
		"example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
		"example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
		"example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n",
		"example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U",
		"+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
	};
	struct fixture *f = *state;
	struct checkpoint_key k;
	char text[CHECKPOINT_KEY_MAX], other[CHECKPOINT_KEY_MAX];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(checkpoint_key_parse(slice_of(bad[i]), &k, &f->err), -1);
		snprintf(text, sizeof(text), "PRIVATE+KEY+%s", bad[i]);
		assert_null(checkpoint_signer_parse(slice_of(text), &f->err));
	}
	assert_null(checkpoint_signer_parse(SLICE(VECTOR_KEY), &f->err));
	assert_int_equal(checkpoint_signer_make("two words", other, &f->err), -1);
	assert_int_equal(checkpoint_signer_make("a+b", other, &f->err), -1);
	assert_int_equal(checkpoint_signer_make("", other, &f->err), -1);
}

static void
a_checkpoint_comes_back_as_it_was(void **state)
{
	struct fixture *f = *state;
	struct checkpoint cp = { .origin = "example.com/log/1", .size = 1234067 }, got;

	memset(cp.root.b, 0xab, sizeof(cp.root.b));
	assert_int_equal(checkpoint_write(f->signer, &cp, &f->note, &f->err), 0);
	assert_true(slice_has_prefix(buf_slice(&f->note),
	    SLICE("example.com/log/1\n1234067\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n\n— "
		  "example.com/log ")));
	assert_int_equal(
	    checkpoint_read(buf_slice(&f->note), &f->key, 1, &got, &f->err), CHECKPOINT_GOOD);
	assert_string_equal(got.origin, cp.origin);
	assert_int_equal(got.size, cp.size);
	assert_true(merkle_equal(&got.root, &cp.root));
}

#define ROOT "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n"

static const struct {
	const char *label, *text;
	enum checkpoint_verdict want;
} texts[] = {
	{ "an empty tree", "origin\n0\n" ROOT, CHECKPOINT_GOOD },
	{ "extension lines", "origin\n7\n" ROOT "more\nand more\n", CHECKPOINT_GOOD },
	{ "an empty extension line", "origin\n7\n" ROOT "\nmore\n", CHECKPOINT_MALFORMED },
	{ "a leading zero", "origin\n07\n" ROOT, CHECKPOINT_MALFORMED },
	{ "a sign", "origin\n+7\n" ROOT, CHECKPOINT_MALFORMED },
	{ "a size beyond 64 bits", "origin\n18446744073709551616\n" ROOT, CHECKPOINT_MALFORMED },
	{ "no size", "origin\n\n" ROOT, CHECKPOINT_MALFORMED },
	{ "no root", "origin\n7\n", CHECKPOINT_MALFORMED },
	{ "a short root", "origin\n7\nq6ur\n", CHECKPOINT_MALFORMED },
	{ "no origin", "\n7\n" ROOT, CHECKPOINT_MALFORMED },
};

static void
texts_of_checkpoints_are_judged_strictly(void **state)
{
	struct fixture *f = *state;
	struct checkpoint got;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		enum checkpoint_verdict v;

		buf_consume(&f->note, buf_size(&f->note));
		assert_int_equal(
		    checkpoint_sign(f->signer, slice_of(texts[i].text), &f->note, &f->err), 0);
		v = checkpoint_read(buf_slice(&f->note), &f->key, 1, &got, &f->err);
		if (v != texts[i].want)
			fail_msg("%s: got %d, wanted %d", texts[i].label, v, texts[i].want);
	}
}

static void
every_changed_byte_of_a_checkpoint_is_noticed(void **state)
{
	struct fixture *f = *state;
	struct checkpoint cp = { .origin = "example.com/log/1", .size = 42 }, got;

	assert_int_equal(checkpoint_write(f->signer, &cp, &f->note, &f->err), 0);
	for (size_t i = 0; i < buf_size(&f->note); i++) {
		f->note.mem[i] ^= 1;
		assert_int_not_equal(
		    checkpoint_read(buf_slice(&f->note), &f->key, 1, &got, &f->err),
		    CHECKPOINT_GOOD);
		f->note.mem[i] ^= 1;
		assert_int_not_equal(checkpoint_read(slice_sub(buf_slice(&f->note), 0, i), &f->key,
					 1, &got, &f->err),
		    CHECKPOINT_GOOD);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_published_note_verifies),
		TEST(notes_are_judged_strictly),
		TEST(a_key_of_the_same_name_is_another_key),
		TEST(key_texts_come_back_as_they_were),
		TEST(bad_keys_are_refused),
		TEST(a_checkpoint_comes_back_as_it_was),
		TEST(texts_of_checkpoints_are_judged_strictly),
		TEST(every_changed_byte_of_a_checkpoint_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
