#include "route_table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const severities[] = {
	[SEVERITY_NORMAL] = "normal",
	[SEVERITY_WARNING] = "warning",
	[SEVERITY_CRITICAL] = "critical",
};

static const char *const guarantees[] = {
	[GUARANTEE_ASYNC] = "async",
	[GUARANTEE_DURABLE] = "durable",
	[GUARANTEE_INTENT] = "intent",
};

const char *
severity_name(enum severity s)
{
	assert(s <= SEVERITY_CRITICAL);
	return severities[s];
}

const char *
guarantee_name(enum guarantee g)
{
	assert(g <= GUARANTEE_INTENT);
	return guarantees[g];
}

size_t
route_table_size(const struct route_table *t)
{
	return t->nentries;
}

const struct route *
route_table_get(const struct route_table *t, size_t index)
{
	assert(index < t->nentries);
	return &t->entries[index].pub;
}

size_t
route_table_actions(const struct route_table *t)
{
	return t->nactions;
}

const char *
route_table_action(const struct route_table *t, size_t action_index)
{
	assert(action_index < t->nactions);
	return t->actions[action_index];
}

/* The same for literals that differ in case alone (and for few others). */
static uint32_t
hash_of(struct slice s)
{
	const uint64_t fold = UINT64_C(0x2020202020202020), factor = UINT64_C(0x9e3779b97f4a7c15);
	uint64_t h = s.n, last;

	assert(s.n > 0);
	for (size_t i = 0; i + sizeof(last) < s.n; i += sizeof(last)) {
		h = (h ^ (lanes_word(s.p + i) | fold)) * factor;
		h ^= h >> 32;
	}
	if (s.n >= sizeof(last))
		last = lanes_word(s.p + s.n - sizeof(last));
	else
		last = ((lanes_halves)lanes_load_short(s.p, s.n))[0];
	/* What tells many apart comes last, and a product carries upwards only. */
	h = (h ^ (__builtin_bswap64(last) | fold)) * factor;
	return (uint32_t)(h >> 32);
}

typedef bool same_fn(struct slice, struct slice);

static inline struct route_child *
place_of(const struct route_node *node, struct slice literal, uint32_t hash, same_fn *same)
{
	for (uint32_t i = hash;; i++) {
		struct route_child *c = &node->children[i & (node->capacity - 1)];

		if (c->literal.p == NULL || (c->hash == hash && same(c->literal, literal)))
			return c;
	}
}

const struct route_child *
route_node_child(const struct route_node *node, struct slice segment, bool exactly)
{
	const struct route_child *c;
	uint32_t hash;

	if (node->nchildren == 0)
		return NULL;
	hash = hash_of(segment);
	c = exactly ? place_of(node, segment, hash, slice_equal)
		    : place_of(node, segment, hash, slice_equal_nocase);
	return c->literal.p != NULL ? c : NULL;
}

static int
widen(struct route_node *node)
{
	struct route_node wider = *node;

	wider.capacity = node->capacity == 0 ? 2 : 2 * node->capacity;
	if ((wider.children = calloc(wider.capacity, sizeof(*wider.children))) == NULL)
		return -1;
	for (uint32_t i = 0; i < node->capacity; i++)
		if (node->children[i].literal.p != NULL)
			*place_of(&wider, node->children[i].literal, node->children[i].hash,
			    slice_equal) = node->children[i];
	free(node->children);
	*node = wider;
	return 0;
}

int
route_node_add(struct route_node *node, struct slice literal, uint32_t child)
{
	uint32_t hash = hash_of(literal);

	if (2 * (node->nchildren + 1) > node->capacity && widen(node) == -1)
		return -1;
	*place_of(node, literal, hash, slice_equal) = (struct route_child){ literal, hash, child };
	node->nchildren++;
	return 0;
}

bool
route_next_segment(struct slice *rest, struct slice *segment)
{
	const char *end;

	if (rest->n <= 1)
		return false;
	*rest = slice_sub(*rest, 1, rest->n);
	end = memchr(rest->p, '/', rest->n);
	segment->p = rest->p;
	segment->n = end == NULL ? rest->n : (size_t)(end - rest->p);
	*rest = slice_sub(*rest, segment->n, rest->n);
	return true;
}

static void
entry_free(struct route_entry *e)
{
	/* The strings were copied one by one by route_compile. */
	union {
		const char *borrowed;
		char *owned;
	} strings[] = {
		{ e->pub.action },
		{ e->pub.action_2019 },
		{ e->pub.method },
		{ e->pub.path },
		{ e->pub.where },
		{ e->query_name.p },
		{ e->query_value.p },
		{ e->header_name.p },
		{ e->header_value.p },
	};

	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		free(strings[i].owned);
}

void
route_table_free(struct route_table *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->nentries; i++)
		entry_free(&t->entries[i]);
	for (size_t i = 0; i < t->nnodes; i++)
		free(t->nodes[i].children);
	for (size_t i = 0; i < t->nsingle_headers; i++)
		free(t->single_headers[i]);
	free(t->entries);
	free(t->nodes);
	free(t->actions);
	free(t->literals);
	free(t->single_headers);
	free(t);
}
