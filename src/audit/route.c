#include "route_table.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

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

int
route_child_order(struct slice a, struct slice b)
{
	if (a.n != b.n)
		return a.n < b.n ? -1 : 1;
	return strncasecmp(a.p, b.p, a.n);
}

const struct route_child *
route_node_child(const struct route_node *node, struct slice segment)
{
	size_t low = 0, high = node->nchildren;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = route_child_order(segment, node->children[middle].literal);

		if (order == 0)
			return &node->children[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
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
