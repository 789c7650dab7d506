#include "keytrail/leaves.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Its number is stored last; it is the reader's until `wanted` is above it. */
struct slot {
	_Atomic uint64_t seq;
	struct leaf leaf;
};

struct leaves {
	struct merkle_batch *batch;
	struct {
		uint64_t seq;
		enum leaf_kind kind;
	} pending[MERKLE_BATCH]; /* lines in the batch */
	_Atomic uint64_t wanted; /* the lowest number that the reader may ask for */
	struct slot slots[LEAVES_MAX];
};

struct leaves *
leaves_new(size_t line_max)
{
	struct leaves *l = calloc(1, sizeof(*l));

	if (l != NULL && (l->batch = merkle_batch_new(line_max)) == NULL) {
		free(l);
		return NULL;
	}
	return l;
}

void
leaves_free(struct leaves *l)
{
	if (l != NULL)
		merkle_batch_free(l->batch);
	free(l);
}

void
leaves_add(struct leaves *l, uint64_t seq, enum leaf_kind kind, struct slice line)
{
	uint64_t wanted = atomic_load_explicit(&l->wanted, memory_order_acquire);
	unsigned n;

	if (seq < wanted || seq - wanted >= LEAVES_MAX)
		return;
	n = merkle_batch_add(l->batch, line);
	l->pending[n - 1].seq = seq;
	l->pending[n - 1].kind = kind;
	if (n == MERKLE_BATCH)
		leaves_flush(l);
}

void
leaves_flush(struct leaves *l)
{
	struct merkle_hash hashes[MERKLE_BATCH];
	unsigned n = merkle_batch_finish(l->batch, hashes);

	for (unsigned i = 0; i < n; i++) {
		struct slot *s = &l->slots[l->pending[i].seq % LEAVES_MAX];

		s->leaf = (struct leaf){ hashes[i], l->pending[i].kind };
		atomic_store_explicit(&s->seq, l->pending[i].seq, memory_order_release);
	}
}

bool
leaves_have(const struct leaves *l, uint64_t seq)
{
	const struct slot *s = &l->slots[seq % LEAVES_MAX];

	return seq >= atomic_load_explicit(&l->wanted, memory_order_relaxed) &&
	       atomic_load_explicit(&s->seq, memory_order_acquire) == seq;
}

bool
leaves_take(struct leaves *l, uint64_t seq, struct leaf *out)
{
	bool here = leaves_have(l, seq);

	if (here)
		*out = l->slots[seq % LEAVES_MAX].leaf;
	if (seq >= atomic_load_explicit(&l->wanted, memory_order_relaxed))
		atomic_store_explicit(&l->wanted, seq + here, memory_order_release);
	return here;
}
