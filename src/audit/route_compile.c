#include "route_table.h"

#include <assert.h>
#include <stdlib.h>

#define NODES_MAX (1u << 20)

static int
no_memory(struct err *err)
{
	return err_set(err, "memory is short");
}

/* ---- growing arrays: room for one more element at index n ---- */

static int
grow(void **array, size_t n, size_t size)
{
	void *more;

	if ((n & (n - 1)) != 0) /* capacities are powers of two */
		return 0;
	if ((more = realloc(*array, (n == 0 ? 1 : 2 * n) * size)) == NULL)
		return -1;
	*array = more;
	return 0;
}

/* ---- entries ---- */

static int
copy(const char *from, const char **to)
{
	return from == NULL || (*to = strdup(from)) != NULL ? 0 : -1;
}

static int
copy_slice(const char *from, struct slice *to)
{
	if (copy(from, &to->p) == -1)
		return -1;
	to->n = from == NULL ? 0 : strlen(from);
	return 0;
}

static int
entry_init(struct route_entry *e, const struct route_spec *spec, unsigned index)
{
	const char *old = spec->action_2019 != NULL ? spec->action_2019 : spec->action;
	struct slice rest = slice_of(spec->path), segment;
	unsigned i = 0;

	*e = (struct route_entry){
		.pub = {
			.severity = spec->severity,
			.guarantee = spec->guarantee,
			.data_event = spec->data_event,
			.login = spec->login,
			.retry = spec->retry,
			.fallback = spec->fallback,
			.index = index,
		},
		.method = route_method_of(slice_of(spec->method)),
		.key_segment = -1,
		.query = -1,
		.header = -1,
		.next = ROUTE_NONE,
	};
	for (; route_next_segment(&rest, &segment); i++) {
		if (route_is_parameter(segment))
			e->parameters |= UINT32_C(1) << i;
		if (slice_equal(segment, SLICE("{id}")) && e->key_segment == -1)
			e->key_segment = (int8_t)i;
	}
	if (copy(spec->action, &e->pub.action) == -1 || copy(old, &e->pub.action_2019) == -1 ||
	    copy(spec->method, &e->pub.method) == -1 || copy(spec->path, &e->pub.path) == -1 ||
	    copy(spec->where != NULL ? spec->where : "", &e->pub.where) == -1 ||
	    copy_slice(spec->query_name, &e->query_name) == -1 ||
	    copy_slice(spec->query_value, &e->query_value) == -1 ||
	    copy_slice(spec->header_name, &e->header_name) == -1 ||
	    copy_slice(spec->header_value, &e->header_value) == -1)
		return -1;
	return 0;
}

static unsigned
constraints(const struct route_entry *e)
{
	return (e->query_name.p != NULL) + (e->header_name.p != NULL);
}

/* Could one request satisfy both, and neither is the more specific one? */
static bool
pair_excludes(struct slice na, struct slice va, struct slice nb, struct slice vb)
{
	return na.p != NULL && nb.p != NULL && slice_equal_nocase(na, nb) && !slice_equal(va, vb);
}

static bool
pair_within(struct slice na, struct slice va, struct slice nb, struct slice vb)
{
	return na.p == NULL || (nb.p != NULL && slice_equal_nocase(na, nb) && slice_equal(va, vb));
}

static bool
entry_within(const struct route_entry *a, const struct route_entry *b)
{
	return pair_within(a->query_name, a->query_value, b->query_name, b->query_value) &&
	       pair_within(a->header_name, a->header_value, b->header_name, b->header_value);
}

static bool
entries_clash(const struct route_entry *a, const struct route_entry *b)
{
	if (a->method != b->method ||
	    pair_excludes(a->query_name, a->query_value, b->query_name, b->query_value) ||
	    pair_excludes(a->header_name, a->header_value, b->header_name, b->header_value))
		return false;
	return entry_within(a, b) == entry_within(b, a);
}

static int
clash(const struct route_entry *a, const struct route_entry *b, struct err *err)
{
	return err_set(err, "%s: %s %s (%s) fits the same requests as %s %s (%s) at %s",
	    b->pub.where, b->pub.method, b->pub.path, b->pub.action, a->pub.method, a->pub.path,
	    a->pub.action, a->pub.where);
}

/* Named methods before "*", more discriminators before fewer. */
static bool
comes_before(const struct route_entry *a, const struct route_entry *b)
{
	bool any_a = a->method == ROUTE_ANY_METHOD, any_b = b->method == ROUTE_ANY_METHOD;

	return any_a != any_b ? any_b : constraints(a) >= constraints(b);
}

/* Insert into a leaf's list. */
static int
leaf_add(struct route_table *t, uint32_t *first, uint32_t index, struct err *err)
{
	struct route_entry *e = &t->entries[index], *other;
	uint32_t *at = first;

	for (uint32_t i = *first; i != ROUTE_NONE; i = other->next) {
		other = &t->entries[i];
		if (entries_clash(other, e))
			return clash(other, e, err);
		if (comes_before(other, e))
			at = &other->next;
	}
	e->next = *at;
	*at = index;
	return 0;
}

/* ---- the trie ---- */

static int
node_new(struct route_table *t, uint32_t *out, struct err *err)
{
	void *p = t->nodes;

	if (t->nnodes >= NODES_MAX)
		return err_set(err, "too many routes");
	if (grow(&p, t->nnodes, sizeof(t->nodes[0])) == -1)
		return no_memory(err);
	t->nodes = p;
	t->nodes[t->nnodes] = (struct route_node){
		.parameter = ROUTE_NONE,
		.exact = ROUTE_NONE,
		.rest = ROUTE_NONE,
	};
	*out = (uint32_t)t->nnodes++;
	return 0;
}

static int
node_add_literal(struct route_table *t, uint32_t at, struct slice literal, uint32_t *out,
    const char *where, struct err *err)
{
	const struct route_child *child = route_node_child(&t->nodes[at], literal, false);

	if (child != NULL && !slice_equal(child->literal, literal))
		return err_set(err,
		    "%s: the segment \"%.*s\" differs from \"%.*s\" of another "
		    "route in case alone",
		    where, SLICE_ARG(literal), SLICE_ARG(child->literal));
	if (child != NULL) {
		*out = child->node;
		return 0;
	}
	if (node_new(t, out, err) == -1)
		return -1;
	if (route_node_add(&t->nodes[at], literal, *out) == -1)
		return no_memory(err);
	return 0;
}

static int
node_add_parameter(struct route_table *t, uint32_t at, uint32_t *out, struct err *err)
{
	if (t->nodes[at].parameter == ROUTE_NONE) {
		if (node_new(t, out, err) == -1)
			return -1;
		t->nodes[at].parameter = *out;
	}
	*out = t->nodes[at].parameter;
	return 0;
}

static int
trie_add(struct route_table *t, uint32_t index, struct err *err)
{
	const struct route_entry *e = &t->entries[index];
	struct slice rest = slice_of(e->pub.path), segment;
	uint32_t at = 0;

	while (route_next_segment(&rest, &segment)) {
		int rc;

		if (route_is_rest(segment))
			return leaf_add(t, &t->nodes[at].rest, index, err);
		if (route_is_parameter(segment))
			rc = node_add_parameter(t, at, &at, err);
		else
			rc = node_add_literal(t, at, segment, &at, e->pub.where, err);
		if (rc == -1)
			return -1;
	}
	return leaf_add(t, &t->nodes[at].exact, index, err);
}

/* ---- what the whole table knows ---- */

static int
order_literals(const void *a, const void *b)
{
	return route_slice_order(*(const struct slice *)a, *(const struct slice *)b);
}

/* Literals of one text are one: of many routes few lines of memory are looked at. */
static void
share_literals(struct route_table *t)
{
	for (size_t i = 0; i < t->nnodes; i++)
		for (size_t j = 0; j < t->nodes[i].capacity; j++) {
			struct slice *s = &t->nodes[i].children[j].literal;
			const struct slice *same =
			    bsearch(s, t->literals, t->nliterals, sizeof(*s), order_literals);

			if (same != NULL)
				*s = *same;
		}
}

static int
collect_literals(struct route_table *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->nnodes; i++)
		n += t->nodes[i].nchildren;
	if ((t->literals = calloc(n + 1, sizeof(t->literals[0]))) == NULL)
		return -1;
	n = 0;
	for (size_t i = 0; i < t->nnodes; i++)
		for (size_t j = 0; j < t->nodes[i].capacity; j++)
			if (t->nodes[i].children[j].literal.p != NULL)
				t->literals[n++] = t->nodes[i].children[j].literal;
	qsort(t->literals, n, sizeof(t->literals[0]), order_literals);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || !slice_equal(t->literals[t->nliterals - 1], t->literals[i]))
			t->literals[t->nliterals++] = t->literals[i];
	share_literals(t);
	return 0;
}

/* The index of the name in the list, where it is added when it is new. */
static int
add_name(struct slice *names, size_t *n, struct slice name, const char *where, int8_t *index,
    struct err *err)
{
	for (size_t i = 0; i < *n; i++)
		if (slice_equal_nocase(names[i], name)) {
			*index = (int8_t)i;
			return 0;
		}
	if (*n == ROUTE_DISCRIMINATORS_MAX)
		return err_set(err, "%s: more than %d distinct discriminators", where,
		    ROUTE_DISCRIMINATORS_MAX);
	*index = (int8_t)*n;
	names[(*n)++] = name;
	return 0;
}

static int
add_discriminators(struct route_table *t, struct route_entry *e, struct err *err)
{
	struct slice known;

	if (e->header_name.p != NULL && add_name(t->header_names, &t->nheader_names, e->header_name,
					    e->pub.where, &e->header, err) == -1)
		return -1;
	if (e->query_name.p == NULL)
		return 0;
	if (add_name(t->query_names, &t->nquery_names, e->query_name, e->pub.where, &e->query,
		err) == -1)
		return -1;
	known = t->query_names[e->query];
	if (!slice_equal(known, e->query_name))
		return err_set(err,
		    "%s: the query parameter \"%.*s\" differs from \"%.*s\" of "
		    "another route in case alone",
		    e->pub.where, SLICE_ARG(e->query_name), SLICE_ARG(known));
	return 0;
}

static int
order_actions(const void *a, const void *b)
{
	return strcmp((*(struct route_entry *const *)a)->pub.action,
	    (*(struct route_entry *const *)b)->pub.action);
}

static int
collect_actions(struct route_table *t)
{
	struct route_entry **sorted = calloc(t->nentries, sizeof(struct route_entry *));

	t->actions = calloc(t->nentries, sizeof(t->actions[0]));
	if (sorted == NULL || t->actions == NULL) {
		free(sorted);
		return -1;
	}
	for (size_t i = 0; i < t->nentries; i++)
		sorted[i] = &t->entries[i];
	qsort(sorted, t->nentries, sizeof(struct route_entry *), order_actions);
	for (size_t i = 0; i < t->nentries; i++) {
		if (i == 0 || strcmp(sorted[i]->pub.action, sorted[i - 1]->pub.action) != 0)
			t->actions[t->nactions++] = sorted[i]->pub.action;
		sorted[i]->pub.action_index = (unsigned)t->nactions - 1;
	}
	free(sorted);
	return 0;
}

static int
copy_single_headers(struct route_table *t, const struct route_options *opts)
{
	if ((t->single_headers = calloc(opts->nsingle_headers + 1, sizeof(char *))) == NULL)
		return -1;
	for (; t->nsingle_headers < opts->nsingle_headers; t->nsingle_headers++)
		if ((t->single_headers[t->nsingle_headers] =
			    strdup(opts->single_headers[t->nsingle_headers])) == NULL)
			return -1;
	return 0;
}

static void
note_declared(struct route_table *t)
{
	for (size_t i = 0; i < t->nheader_names; i++) {
		t->header_ids |= HTTP_F_SET(http_field_id(t->header_names[i]));
		t->declared_lengths |= route_length_bit(t->header_names[i].n);
	}
	for (size_t i = 0; i < t->nsingle_headers; i++)
		t->declared_lengths |= route_length_bit(strlen(t->single_headers[i]));
}

/* ---- compile ---- */

static int
check_spec(const struct route_spec *spec, struct err *err)
{
	if (route_check_action(spec->action, err) == -1 ||
	    (spec->action_2019 != NULL && route_check_action(spec->action_2019, err) == -1) ||
	    route_check_method(spec->method, err) == -1 ||
	    route_check_path(spec->path, err) == -1 ||
	    (spec->query_name != NULL &&
		route_check_discriminator(spec->query_name, spec->query_value, false, err) == -1) ||
	    (spec->header_name != NULL &&
		route_check_discriminator(spec->header_name, spec->header_value, true, err) == -1))
		return err_prefix(err, "%s", spec->where != NULL ? spec->where : "route");
	return 0;
}

static int
add_entries(struct route_table *t, const struct route_spec *specs, size_t n,
    const struct route_options *opts, struct err *err)
{
	const struct route_spec other = {
		.action = opts->default_action,
		.method = "*",
		.path = "/**",
		.guarantee = opts->default_guarantee,
		.data_event = true,
		.login = true,
		.fallback = true,
		.where = opts->default_where,
	};
	uint32_t root;

	if ((t->entries = calloc(n + 1, sizeof(t->entries[0]))) == NULL)
		return no_memory(err);
	if (node_new(t, &root, err) == -1)
		return -1;
	assert(root == 0);
	for (size_t i = 0; i <= n; i++) {
		const struct route_spec *spec = i < n ? &specs[i] : &other;

		if (check_spec(spec, err) == -1)
			return -1;
		t->nentries = i + 1;
		if (entry_init(&t->entries[i], spec, (unsigned)i) == -1)
			return no_memory(err);
		if (add_discriminators(t, &t->entries[i], err) == -1)
			return -1;
		/* The default is in no leaf: it stands where nothing fits. */
		if (i < n && trie_add(t, (uint32_t)i, err) == -1)
			return -1;
	}
	return 0;
}

int
route_compile(const struct route_spec *specs, size_t n, const struct route_options *opts,
    struct route_table **out, struct err *err)
{
	struct route_table *t;

	if (n >= ROUTE_NONE)
		return err_set(err, "too many routes");
	if ((t = calloc(1, sizeof(*t))) == NULL)
		return no_memory(err);
	if (add_entries(t, specs, n, opts, err) == -1)
		goto fail;
	if (collect_literals(t) == -1 || collect_actions(t) == -1 ||
	    copy_single_headers(t, opts) == -1) {
		no_memory(err);
		goto fail;
	}
	note_declared(t);
	*out = t;
	return 0;
fail:
	route_table_free(t);
	return -1;
}
