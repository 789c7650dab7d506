#include "keytrail/proof.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define LEAVES 5
#define HASH   "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n"
#define TITLE  "c2sp.org/tlog-proof@v1\n"

struct fixture {
	struct checkpoint_signer *signer;
	struct checkpoint_key key;
	struct buf note, text;
	struct merkle_hash leaves[LEAVES];
	struct err err;
};

static struct slice
line_of(unsigned i)
{
	static const char *const lines[LEAVES] = { "{\"a\":1}", "{\"a\":2}", "{\"a\":3}",
		"{\"a\":4}", "{\"a\":5}" };

	return slice_of(lines[i]);
}

static int
tile(void *arg, unsigned level, uint64_t index, unsigned width, struct merkle_hash *out,
    struct err *err)
{
	struct fixture *f = arg;

	(void)err;
	assert_true(level == 0 && index == 0 && width == LEAVES);
	memcpy(out, f->leaves, sizeof(f->leaves));
	return 0;
}

static void
sign_as(struct fixture *f, const char *origin)
{
	struct checkpoint cp = { .size = LEAVES };

	strcpy(cp.origin, origin);
	merkle_root_of(f->leaves, LEAVES, &cp.root);
	buf_consume(&f->note, buf_size(&f->note));
	assert_int_equal(checkpoint_write(f->signer, &cp, &f->note, &f->err), 0);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char secret[CHECKPOINT_KEY_MAX];

	if (checkpoint_signer_make("example.com/k", secret, &f->err) == -1 ||
	    (f->signer = checkpoint_signer_parse(slice_of(secret), &f->err)) == NULL)
		fail_msg("%s", f->err.msg);
	f->key = *checkpoint_signer_key(f->signer);
	for (unsigned i = 0; i < LEAVES; i++)
		merkle_leaf(line_of(i), &f->leaves[i]);
	sign_as(f, "example.com/k/log");
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	checkpoint_signer_free(f->signer);
	buf_fini(&f->note);
	buf_fini(&f->text);
	free(f);
	return 0;
}

static void
write_proof(struct fixture *f, unsigned index)
{
	struct merkle_source source = { LEAVES, tile, f };
	struct proof p = { .index = index, .note = buf_slice(&f->note) };

	buf_consume(&f->text, buf_size(&f->text));
	assert_int_equal(
	    merkle_prove_inclusion(&source, index, LEAVES, p.hashes, &p.n, &f->err), 0);
	assert_int_equal(proof_write(&p, &f->text, &f->err), 0);
}

static enum proof_verdict
check(struct fixture *f, struct slice line, const struct checkpoint_key *key)
{
	struct checkpoint cp;
	struct proof p;

	if (proof_parse(buf_slice(&f->text), &p, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	return proof_check(&p, line, key, 1, &cp, &f->err);
}

static void
every_line_has_a_proof_and_no_other_line_fits_it(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < LEAVES; i++) {
		write_proof(f, i);
		for (unsigned k = 0; k < LEAVES; k++)
			assert_int_equal(
			    check(f, line_of(k), &f->key), i == k ? PROOF_GOOD : PROOF_WRONG);
	}
}

static void
the_file_is_that_of_the_specification(void **state)
{
	struct fixture *f = *state;

	write_proof(f, 4);
	assert_true(slice_has_prefix(buf_slice(&f->text), SLICE(TITLE "index 4\n")));
	assert_non_null(memmem(f->text.mem, buf_size(&f->text), "\n\nexample.com/k/log\n5\n", 21));
}

static void
without_the_key_nothing_is_proved(void **state)
{
	struct fixture *f = *state;
	char secret[CHECKPOINT_KEY_MAX];
	struct checkpoint_signer *other;

	write_proof(f, 2);
	assert_int_equal(checkpoint_signer_make("example.com/k", secret, &f->err), 0);
	other = checkpoint_signer_parse(slice_of(secret), &f->err);
	assert_int_equal(check(f, line_of(2), checkpoint_signer_key(other)), PROOF_UNKNOWN);
	checkpoint_signer_free(other);
}

/* A key may sign other things than its logs. */
static void
a_checkpoint_of_no_log_of_the_key_proves_nothing(void **state)
{
	static const char *const origins[] = { "example.com/other/log", "example.com/k", "log",
		"example.com/k/log/log" };
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(origins) / sizeof(*origins); i++) {
		sign_as(f, origins[i]);
		write_proof(f, 1);
		assert_int_equal(check(f, line_of(1), &f->key), PROOF_UNKNOWN);
		assert_non_null(strstr(f->err.msg, "no log of this key"));
	}
}

/* A changed byte either spoils the file or proves nothing. */
static void
every_changed_byte_is_noticed(void **state)
{
	struct fixture *f = *state;
	struct checkpoint cp;
	struct proof p;

	write_proof(f, 3);
	for (size_t i = 0; i < buf_size(&f->text); i++) {
		f->text.mem[i] ^= 1;
		if (proof_parse(buf_slice(&f->text), &p, &f->err) == 0)
			assert_int_not_equal(
			    proof_check(&p, line_of(3), &f->key, 1, &cp, &f->err), PROOF_GOOD);
		f->text.mem[i] ^= 1;
	}
	assert_int_equal(check(f, line_of(3), &f->key), PROOF_GOOD);
}

static const struct {
	const char *label, *text;
	int want;
} files[] = {
	{ "no hashes", TITLE "index 0\n\nnote", 0 },
	{ "a hash", TITLE "index 0\n" HASH "\nnote", 0 },
	{ "extra data", TITLE "extra Zm9v\nindex 0\n" HASH "\nnote", 0 },
	{ "empty extra data", TITLE "extra \nindex 0\n\nnote", 0 },
	{ "nothing", "", -1 },
	{ "another title", "c2sp.org/tlog-proof@v2\nindex 0\n\nnote", -1 },
	{ "no index", TITLE "\nnote", -1 },
	{ "a leading zero", TITLE "index 00\n\nnote", -1 },
	{ "a sign", TITLE "index -1\n\nnote", -1 },
	{ "two extra lines", TITLE "extra Zm9v\nextra Zm9v\nindex 0\n\nnote", -1 },
	{ "extra data that is no base64", TITLE "extra Zm9\nindex 0\n\nnote", -1 },
	{ "extra data behind the index", TITLE "index 0\nextra Zm9v\n\nnote", -1 },
	{ "a short hash", TITLE "index 0\nZm9v\n\nnote", -1 },
	{ "no empty line", TITLE "index 0\n" HASH, -1 },
	{ "carriage returns", TITLE "index 0\r\n\r\nnote", -1 },
};

static void
files_are_judged_strictly(void **state)
{
	struct fixture *f = *state;
	struct proof p;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		if (proof_parse(slice_of(files[i].text), &p, &f->err) != files[i].want)
			fail_msg("%s", files[i].label);
}

static void
more_hashes_than_any_tree_has_are_refused(void **state)
{
	struct fixture *f = *state;
	struct proof p;

	for (int extra = 0; extra <= 1; extra++) {
		buf_consume(&f->text, buf_size(&f->text));
		buf_printf(&f->text, TITLE "index 0\n");
		for (int i = 0; i < MERKLE_PROOF_MAX + extra; i++)
			buf_printf(&f->text, HASH);
		buf_printf(&f->text, "\nnote");
		assert_int_equal(
		    proof_parse(buf_slice(&f->text), &p, &f->err), extra == 0 ? 0 : -1);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_line_has_a_proof_and_no_other_line_fits_it),
		TEST(the_file_is_that_of_the_specification),
		TEST(without_the_key_nothing_is_proved),
		TEST(a_checkpoint_of_no_log_of_the_key_proves_nothing),
		TEST(every_changed_byte_is_noticed),
		TEST(files_are_judged_strictly),
		TEST(more_hashes_than_any_tree_has_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
