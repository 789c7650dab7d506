#include "keytrail/merkle.h"

#include "keytrail/sha256.h"

#include <assert.h>
#include <stdlib.h>

_Static_assert(
    MERKLE_HASH_SIZE == SHA256_SIZE && MERKLE_BATCH == SHA256_LANES, "the tree is one of SHA-256");

#define LEAF 0
#define NODE 1

void
merkle_hash_of(const void *p, size_t n, struct merkle_hash *out)
{
	sha256_joined((struct slice){ p, n }, SLICE_EMPTY, out->b);
}

void
merkle_leaf(struct slice entry, struct merkle_hash *out)
{
	static const char prefix = LEAF;

	sha256_joined((struct slice){ &prefix, 1 }, entry, out->b);
}

void
merkle_node(
    const struct merkle_hash *left, const struct merkle_hash *right, struct merkle_hash *out)
{
	unsigned char bytes[1 + 2 * MERKLE_HASH_SIZE] = { NODE };

	memcpy(bytes + 1, left->b, MERKLE_HASH_SIZE);
	memcpy(bytes + 1 + MERKLE_HASH_SIZE, right->b, MERKLE_HASH_SIZE);
	merkle_hash_of(bytes, sizeof(bytes), out);
}

bool
merkle_equal(const struct merkle_hash *a, const struct merkle_hash *b)
{
	return memcmp(a->b, b->b, MERKLE_HASH_SIZE) == 0;
}

/* Of each two hashes the one above; the last one of an odd number moves up as it is. */
static void
raise_row(struct merkle_hash *row, size_t n)
{
	unsigned char room[SHA256_LANES * SHA256_ROOM(2 * MERKLE_HASH_SIZE)];
	struct sha256_batch b = { .room = room };
	size_t done = 0;

	for (size_t i = 0; i < n / 2; i++) {
		sha256_batch_add(
		    &b, NODE, (struct slice){ (const char *)row[2 * i].b, 2 * MERKLE_HASH_SIZE });
		if (b.n < SHA256_LANES && i + 1 < n / 2)
			continue;
		sha256_batch_finish(&b, &row[done].b);
		done = i + 1;
	}
	if (n % 2 == 1)
		row[n / 2] = row[n - 1];
}

void
merkle_root_of(const struct merkle_hash *hashes, size_t n, struct merkle_hash *out)
{
	struct merkle_hash row[MERKLE_TILE_WIDTH];

	assert(n <= MERKLE_TILE_WIDTH);
	if (n == 0) {
		merkle_hash_of("", 0, out);
		return;
	}
	memcpy(row, hashes, n * sizeof(*row));
	for (; n > 1; n = (n + 1) / 2)
		raise_row(row, n);
	*out = row[0];
}

/* ---- many leaves ---- */

struct merkle_batch {
	struct sha256_batch hashes;
	unsigned char room[];
};

struct merkle_batch *
merkle_batch_new(size_t entry_max)
{
	struct merkle_batch *b = malloc(sizeof(*b) + MERKLE_BATCH * SHA256_ROOM(entry_max));

	if (b != NULL)
		b->hashes = (struct sha256_batch){ .room = b->room };
	return b;
}

void
merkle_batch_free(struct merkle_batch *b)
{
	free(b);
}

unsigned
merkle_batch_add(struct merkle_batch *b, struct slice entry)
{
	sha256_batch_add(&b->hashes, LEAF, entry);
	return b->hashes.n;
}

unsigned
merkle_batch_finish(struct merkle_batch *b, struct merkle_hash out[MERKLE_BATCH])
{
	unsigned n = b->hashes.n;

	sha256_batch_finish(&b->hashes, &out->b);
	return n;
}

/* ---- a tree that grows ---- */

void
merkle_append(struct merkle_tree *t, const struct merkle_hash *leaf)
{
	struct merkle_hash h = *leaf;
	unsigned k = 0;

	assert(t->size < UINT64_MAX);
	for (; (t->size >> k & 1) != 0; k++)
		merkle_node(&t->edge[k], &h, &h);
	t->edge[k] = h;
	t->size++;
}

void
merkle_root(const struct merkle_tree *t, struct merkle_hash *out)
{
	struct merkle_hash h;
	bool any = false;

	for (unsigned k = 0; k < 64; k++) {
		if ((t->size >> k & 1) == 0)
			continue;
		if (any)
			merkle_node(&t->edge[k], &h, &h);
		else
			h = t->edge[k];
		any = true;
	}
	if (any)
		*out = h;
	else
		merkle_hash_of("", 0, out);
}

/* ---- hashes from tiles ---- */

/* The complete subtree of 2^height leaves that begins at leaf `index` << height. */
static int
subtree(const struct merkle_source *s, unsigned height, uint64_t index, struct merkle_hash *out,
    struct err *err)
{
	struct merkle_hash row[MERKLE_TILE_WIDTH];
	unsigned level = height / 8, n = 1U << height % 8;
	uint64_t first = index << height % 8, tile = first / MERKLE_TILE_WIDTH;
	uint64_t all = s->size >> 8 * level, width = all - tile * MERKLE_TILE_WIDTH;
	unsigned at = first % MERKLE_TILE_WIDTH;

	assert(tile * MERKLE_TILE_WIDTH < all && first + n <= all);
	if (width > MERKLE_TILE_WIDTH)
		width = MERKLE_TILE_WIDTH;
	if (s->tile(s->arg, level, tile, (unsigned)width, row, err) == -1)
		return -1;
	merkle_root_of(row + at, n, out);
	return 0;
}

/* The largest power of two below n; n > 1. */
static unsigned
split_height(uint64_t n)
{
	assert(n > 1);
	return 63 - (unsigned)__builtin_clzll(n - 1);
}

/* MTH of RFC 6962 over leaves [begin, end); begin is a multiple of every subtree's size in it. */
static int
range_root(const struct merkle_source *s, uint64_t begin, uint64_t end, struct merkle_hash *out,
    struct err *err)
{
	struct merkle_hash parts[64];
	size_t n = 0;

	assert(begin < end);
	do {
		unsigned height = 63 - (unsigned)__builtin_clzll(end - begin);

		if (subtree(s, height, begin >> height, &parts[n++], err) == -1)
			return -1;
		begin += 1ULL << height;
	} while (begin < end);
	for (; n > 1; n--)
		merkle_node(&parts[n - 2], &parts[n - 1], &parts[n - 2]);
	*out = parts[0];
	return 0;
}

int
merkle_source_root(
    const struct merkle_source *s, uint64_t size, struct merkle_hash *out, struct err *err)
{
	if (size > s->size)
		return err_set(err, "the tree ends before entry %llu", (unsigned long long)size);
	if (size == 0) {
		merkle_root_of(NULL, 0, out);
		return 0;
	}
	return range_root(s, 0, size, out, err);
}

static void
reverse(struct merkle_hash *h, size_t n)
{
	for (size_t i = 0; i < n / 2; i++) {
		struct merkle_hash x = h[i];

		h[i] = h[n - 1 - i];
		h[n - 1 - i] = x;
	}
}

int
merkle_prove_inclusion(const struct merkle_source *s, uint64_t index, uint64_t size,
    struct merkle_hash proof[MERKLE_PROOF_MAX], size_t *n, struct err *err)
{
	uint64_t begin = 0, end = size;

	*n = 0;
	if (size > s->size || index >= size)
		return err_set(err, "the tree has no entry %llu", (unsigned long long)index);
	while (end - begin > 1) {
		uint64_t middle = begin + (1ULL << split_height(end - begin));
		bool left = index < middle;

		if (range_root(
			s, left ? middle : begin, left ? end : middle, &proof[(*n)++], err) == -1)
			return -1;
		*(left ? &end : &begin) = middle;
	}
	reverse(proof, *n);
	return 0;
}

int
merkle_prove_consistency(const struct merkle_source *s, uint64_t from, uint64_t size,
    struct merkle_hash proof[MERKLE_CHAIN_MAX], size_t *n, struct err *err)
{
	uint64_t begin = 0, end = size;

	*n = 0;
	if (size > s->size || from == 0 || from > size)
		return err_set(err, "the tree of %llu entries has none of %llu in it",
		    (unsigned long long)size, (unsigned long long)from);
	while (end != from) {
		uint64_t middle = begin + (1ULL << split_height(end - begin));
		bool left = from <= middle;

		if (range_root(
			s, left ? middle : begin, left ? end : middle, &proof[(*n)++], err) == -1)
			return -1;
		*(left ? &end : &begin) = middle;
	}
	/* What is left is a whole subtree of the new tree, unless it is the old tree itself. */
	if (begin > 0 && range_root(s, begin, end, &proof[(*n)++], err) == -1)
		return -1;
	reverse(proof, *n);
	return 0;
}

/* ---- verifying ---- */

bool
merkle_verify_inclusion(const struct merkle_hash *leaf, uint64_t index, uint64_t size,
    const struct merkle_hash *proof, size_t n, const struct merkle_hash *root)
{
	struct merkle_hash h = *leaf;
	uint64_t at = index, last = size - 1;

	if (index >= size)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (last == 0)
			return false;
		if ((at & 1) != 0 || at == last) {
			merkle_node(&proof[i], &h, &h);
			for (; (at & 1) == 0 && at != 0; at >>= 1)
				last >>= 1;
		} else {
			merkle_node(&h, &proof[i], &h);
		}
		at >>= 1;
		last >>= 1;
	}
	return last == 0 && merkle_equal(&h, root);
}

bool
merkle_verify_consistency(uint64_t from, const struct merkle_hash *from_root, uint64_t size,
    const struct merkle_hash *root, const struct merkle_hash *proof, size_t n)
{
	struct merkle_hash old, new;
	uint64_t at = from - 1, last = size - 1;
	size_t i = 0;

	if (from == 0 || from > size)
		return false;
	if (from == size)
		return n == 0 && merkle_equal(from_root, root);
	for (; (at & 1) != 0; at >>= 1)
		last >>= 1;
	if ((from & (from - 1)) == 0)
		old = *from_root;
	else if (n > 0)
		old = proof[i++];
	else
		return false;
	for (new = old; i < n; i++) {
		if (last == 0)
			return false;
		if ((at & 1) != 0 || at == last) {
			merkle_node(&proof[i], &old, &old);
			merkle_node(&proof[i], &new, &new);
			for (; (at & 1) == 0 && at != 0; at >>= 1)
				last >>= 1;
		} else {
			merkle_node(&new, &proof[i], &new);
		}
		at >>= 1;
		last >>= 1;
	}
	return last == 0 && merkle_equal(&old, from_root) && merkle_equal(&new, root);
}
