#include "keytrail/merkle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define SIZE_MAX_TESTED 1000

/* ---- the naive implementation: RFC 6962 section 2.1, word for word ---- */

static void
naive_root(const struct merkle_hash *d, uint64_t n, struct merkle_hash *out)
{
	struct merkle_hash left, right;
	uint64_t k = 1;

	if (n == 1) {
		*out = d[0];
		return;
	}
	while (k * 2 < n)
		k *= 2;
	naive_root(d, k, &left);
	naive_root(d + k, n - k, &right);
	merkle_node(&left, &right, out);
}

static size_t
naive_path(const struct merkle_hash *d, uint64_t m, uint64_t n, struct merkle_hash *out)
{
	uint64_t k = 1;
	size_t used;

	if (n == 1)
		return 0;
	while (k * 2 < n)
		k *= 2;
	if (m < k) {
		used = naive_path(d, m, k, out);
		naive_root(d + k, n - k, &out[used]);
	} else {
		used = naive_path(d + k, m - k, n - k, out);
		naive_root(d, k, &out[used]);
	}
	return used + 1;
}

static size_t
naive_subproof(const struct merkle_hash *d, uint64_t m, uint64_t n, bool b, struct merkle_hash *out)
{
	uint64_t k = 1;
	size_t used;

	if (m == n) {
		if (b)
			return 0;
		naive_root(d, n, out);
		return 1;
	}
	while (k * 2 < n)
		k *= 2;
	if (m <= k) {
		used = naive_subproof(d, m, k, b, out);
		naive_root(d + k, n - k, &out[used]);
	} else {
		used = naive_subproof(d + k, m - k, n - k, false, out);
		naive_root(d, k, &out[used]);
	}
	return used + 1;
}

/* ---- the world of the tests ---- */

static int
setup(void **state)
{
	struct merkle_hash *leaves = calloc(SIZE_MAX_TESTED, sizeof(*leaves));
	char text[24];

	for (unsigned i = 0; i < SIZE_MAX_TESTED; i++) {
		snprintf(text, sizeof(text), "entry %u", i);
		merkle_leaf(slice_of(text), &leaves[i]);
	}
	*state = leaves;
	return 0;
}

static int
teardown(void **state)
{
	free(*state);
	return 0;
}

/* Tiles made on the spot; a tile that a tree of that size does not have is a failure. */
struct tiles {
	const struct merkle_hash *leaves;
	uint64_t size;
};

static int
tile(void *arg, unsigned level, uint64_t index, unsigned width, struct merkle_hash *out,
    struct err *err)
{
	const struct tiles *t = arg;
	uint64_t span = 1ULL << 8 * level;

	(void)err;
	assert_true(width >= 1 && width <= MERKLE_TILE_WIDTH);
	assert_true((index * MERKLE_TILE_WIDTH + width) * span <= t->size);
	for (unsigned i = 0; i < width; i++)
		naive_root(t->leaves + (index * MERKLE_TILE_WIDTH + i) * span, span, &out[i]);
	return 0;
}

static void
from_hex(const char *hex, struct merkle_hash *out)
{
	for (size_t i = 0; i < MERKLE_HASH_SIZE; i++) {
		unsigned v;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
		out->b[i] = (unsigned char)v;
	}
}

/* ---- the tests ---- */

/* The trees of certificate transparency's own test suite. */
static void
roots_are_those_of_rfc6962(void **state)
{
	static const char *const entries[8] = { "", "\x00", "\x10", "\x20\x21", "\x30\x31",
		"\x40\x41\x42\x43", "\x50\x51\x52\x53\x54\x55\x56\x57",
		"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f" };
	static const size_t sizes[8] = { 0, 1, 1, 2, 2, 4, 8, 16 };
	static const char *const roots[9] = {
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	};
	struct merkle_tree t = MERKLE_TREE_INIT;
	struct merkle_hash got, want, leaf;

	(void)state;
	for (size_t i = 0; i <= 8; i++) {
		merkle_root(&t, &got);
		from_hex(roots[i], &want);
		assert_memory_equal(got.b, want.b, MERKLE_HASH_SIZE);
		if (i == 8)
			break;
		merkle_leaf((struct slice){ entries[i], sizes[i] }, &leaf);
		merkle_append(&t, &leaf);
	}
}

static void
a_growing_tree_has_the_naive_root_at_every_size(void **state)
{
	const struct merkle_hash *leaves = *state;
	struct merkle_tree t = MERKLE_TREE_INIT;
	struct merkle_hash got, want;

	for (uint64_t n = 1; n <= SIZE_MAX_TESTED; n++) {
		merkle_append(&t, &leaves[n - 1]);
		merkle_root(&t, &got);
		naive_root(leaves, n, &want);
		assert_memory_equal(got.b, want.b, MERKLE_HASH_SIZE);
	}
}

static void
tiles_lead_to_the_naive_root_of_every_size(void **state)
{
	struct tiles tiles = { *state, SIZE_MAX_TESTED };
	struct merkle_source s = { SIZE_MAX_TESTED, tile, &tiles };
	struct merkle_hash got, want;
	struct err err;

	for (uint64_t n = 1; n <= SIZE_MAX_TESTED; n++) {
		assert_int_equal(merkle_source_root(&s, n, &got, &err), 0);
		naive_root(tiles.leaves, n, &want);
		assert_memory_equal(got.b, want.b, MERKLE_HASH_SIZE);
	}
	assert_int_equal(merkle_source_root(&s, SIZE_MAX_TESTED + 1, &got, &err), -1);
	assert_int_equal(merkle_source_root(&s, 0, &got, &err), 0);
}

/* Every size; of the entries the first, the last, and some between that move with the size. */
static void
inclusion_proofs_are_the_naive_ones_and_verify(void **state)
{
	const struct merkle_hash *leaves = *state;
	struct merkle_hash got[MERKLE_PROOF_MAX], want[MERKLE_PROOF_MAX], root;
	struct err err;
	size_t n;

	for (uint64_t size = 1; size <= SIZE_MAX_TESTED; size++) {
		struct tiles tiles = { leaves, size };
		struct merkle_source s = { size, tile, &tiles };
		uint64_t step = size < 20 ? 1 : size / 3;

		naive_root(leaves, size, &root);
		for (uint64_t i = 0; i < size;
		     i = i + step < size || i == size - 1 ? i + step : size - 1) {
			assert_int_equal(merkle_prove_inclusion(&s, i, size, got, &n, &err), 0);
			assert_int_equal(n, naive_path(leaves, i, size, want));
			assert_memory_equal(got, want, n * sizeof(*got));
			assert_true(merkle_verify_inclusion(&leaves[i], i, size, got, n, &root));
		}
	}
}

static void
consistency_proofs_are_the_naive_ones_and_verify(void **state)
{
	const struct merkle_hash *leaves = *state;
	struct merkle_hash got[MERKLE_CHAIN_MAX], want[MERKLE_CHAIN_MAX], old, root;
	struct err err;
	size_t n;

	for (uint64_t size = 1; size <= SIZE_MAX_TESTED; size++) {
		struct tiles tiles = { leaves, size };
		struct merkle_source s = { size, tile, &tiles };
		uint64_t step = size < 20 ? 1 : size / 3;

		naive_root(leaves, size, &root);
		for (uint64_t m = 1; m <= size;
		     m = m + step <= size || m == size ? m + step : size) {
			naive_root(leaves, m, &old);
			assert_int_equal(merkle_prove_consistency(&s, m, size, got, &n, &err), 0);
			assert_int_equal(n, naive_subproof(leaves, m, size, true, want));
			assert_memory_equal(got, want, n * sizeof(*got));
			assert_true(merkle_verify_consistency(m, &old, size, &root, got, n));
		}
	}
}

/* Whatever is changed in a proof or in what it is about, it proves nothing any more. */
static void
changed_proofs_do_not_verify(void **state)
{
	const struct merkle_hash *leaves = *state;
	struct merkle_hash p[MERKLE_CHAIN_MAX], root, old;
	struct err err;
	size_t n;

	for (uint64_t size = 2; size < 40; size++) {
		struct tiles tiles = { leaves, size };
		struct merkle_source s = { size, tile, &tiles };

		naive_root(leaves, size, &root);
		for (uint64_t i = 0; i < size; i++) {
			assert_int_equal(merkle_prove_inclusion(&s, i, size, p, &n, &err), 0);
			for (size_t k = 0; k < n; k++) {
				p[k].b[k] ^= 1;
				assert_false(
				    merkle_verify_inclusion(&leaves[i], i, size, p, n, &root));
				p[k].b[k] ^= 1;
			}
			assert_false(merkle_verify_inclusion(&leaves[i], i, size, p, n - 1, &root));
			p[n] = root;
			assert_false(merkle_verify_inclusion(&leaves[i], i, size, p, n + 1, &root));
			assert_false(merkle_verify_inclusion(&leaves[i], i ^ 1, size, p, n, &root));
			assert_false(
			    merkle_verify_inclusion(&leaves[i], i + size, size, p, n, &root));
			assert_false(
			    merkle_verify_inclusion(&leaves[(i + 1) % size], i, size, p, n, &root));
		}
		for (uint64_t m = 1; m < size; m++) {
			naive_root(leaves, m, &old);
			assert_int_equal(merkle_prove_consistency(&s, m, size, p, &n, &err), 0);
			for (size_t k = 0; k < n; k++) {
				p[k].b[k] ^= 1;
				assert_false(merkle_verify_consistency(m, &old, size, &root, p, n));
				p[k].b[k] ^= 1;
			}
			assert_false(merkle_verify_consistency(m, &old, size, &root, p, n - 1));
			assert_false(merkle_verify_consistency(m, &old, size, &old, p, n));
			assert_false(merkle_verify_consistency(m, &root, size, &root, p, n));
		}
		assert_false(merkle_verify_consistency(0, &root, size, &root, p, 0));
		assert_false(merkle_verify_consistency(size + 1, &root, size, &root, p, 0));
	}
}

static int
tile_fails(void *arg, unsigned level, uint64_t index, unsigned width, struct merkle_hash *out,
    struct err *err)
{
	(void)arg;
	(void)level;
	(void)index;
	(void)width;
	(void)out;
	return err_set(err, "no tile");
}

static void
a_missing_tile_is_an_error(void **state)
{
	struct merkle_source s = { 300, tile_fails, NULL };
	struct merkle_hash p[MERKLE_CHAIN_MAX];
	struct err err;
	size_t n;

	(void)state;
	assert_int_equal(merkle_prove_inclusion(&s, 3, 300, p, &n, &err), -1);
	assert_string_equal(err.msg, "no tile");
	assert_int_equal(merkle_prove_consistency(&s, 3, 300, p, &n, &err), -1);
	assert_int_equal(merkle_prove_inclusion(&s, 300, 300, p, &n, &err), -1);
	assert_int_equal(merkle_prove_inclusion(&s, 3, 301, p, &n, &err), -1);
	assert_int_equal(merkle_prove_consistency(&s, 0, 300, p, &n, &err), -1);
	assert_int_equal(merkle_prove_consistency(&s, 301, 300, p, &n, &err), -1);
}

/* With VERBOSE in the environment: what a line of 700 bytes costs. */
static void
a_line_costs_one_leaf_and_one_node(void **state)
{
	enum { LINES = 200000 };
	struct merkle_tree t = MERKLE_TREE_INIT;
	char line[700];
	struct merkle_hash leaf, root;
	struct timespec from, to;

	(void)state;
	memset(line, 'x', sizeof(line));
	if (getenv("VERBOSE") == NULL)
		skip();
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	for (unsigned i = 0; i < LINES; i++) {
		line[i % sizeof(line)]++;
		merkle_leaf((struct slice){ line, sizeof(line) }, &leaf);
		merkle_append(&t, &leaf);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	merkle_root(&t, &root);
	print_message("%.0f ns a line of %zu bytes\n",
	    ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / LINES,
	    sizeof(line));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(roots_are_those_of_rfc6962),
		cmocka_unit_test(a_growing_tree_has_the_naive_root_at_every_size),
		cmocka_unit_test(tiles_lead_to_the_naive_root_of_every_size),
		cmocka_unit_test(inclusion_proofs_are_the_naive_ones_and_verify),
		cmocka_unit_test(consistency_proofs_are_the_naive_ones_and_verify),
		cmocka_unit_test(changed_proofs_do_not_verify),
		cmocka_unit_test(a_missing_tile_is_an_error),
		cmocka_unit_test(a_line_costs_one_leaf_and_one_node),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
