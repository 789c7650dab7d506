/*
 * route_table: the compiled form of a route table; private to the route_*.c files.
 *
 * A trie over path segments.  A node's literal children are in a hash table without regard to case,
 * so that one look finds both the child and a segment that differs from it in case alone; two
 * siblings that differ in case alone are refused by route_compile.
 */
#ifndef KEYTRAIL_ROUTE_TABLE_H
#define KEYTRAIL_ROUTE_TABLE_H

#include "keytrail/route.h"
#include "keytrail/uri.h"

#define ROUTE_NONE UINT32_MAX

/* Distinct names of query parameters, and of headers, that decide an action in one table. */
#define ROUTE_DISCRIMINATORS_MAX 16

enum route_method {
	ROUTE_ANY_METHOD,
	ROUTE_GET,
	ROUTE_HEAD,
	ROUTE_POST,
	ROUTE_PUT,
	ROUTE_PATCH,
	ROUTE_DELETE,
	ROUTE_OPTIONS,
	ROUTE_NO_METHOD, /* none that a route could name */
};

struct route_entry {
	struct route pub;    /* first: a pointer to it is a pointer to its entry */
	uint32_t next;	     /* in its leaf, the most specific one first; ROUTE_NONE: the last */
	uint32_t parameters; /* bit i: segment i of the path is a {parameter} */
	enum route_method method;
	int8_t key_segment;   /* of {id}, or -1 */
	int8_t query, header; /* its discriminators' names in the table's lists, or -1 */
	struct slice query_value, header_value;
	struct slice query_name, header_name; /* as written */
};

struct route_child {
	struct slice literal; /* borrowed from the path of an entry; p NULL: an empty place */
	uint32_t hash;
	uint32_t node;
};

struct route_node {
	struct route_child *children; /* open addressing, at most half full */
	uint32_t capacity;	      /* of `children`: 0 or a power of two */
	uint32_t nchildren;
	uint32_t parameter; /* node below a {parameter}, or ROUTE_NONE */
	uint32_t exact;	    /* first entry whose path ends here, or ROUTE_NONE */
	uint32_t rest;	    /* first entry whose path ends here in "**", or ROUTE_NONE */
};

struct route_table {
	struct route_entry *entries; /* the last one is the default */
	size_t nentries;
	struct route_node *nodes; /* the first one is the root */
	size_t nnodes;
	const char **actions; /* distinct, borrowed from the entries */
	size_t nactions;
	struct slice *literals; /* distinct, sorted by slice_order */
	size_t nliterals;
	struct slice query_names[ROUTE_DISCRIMINATORS_MAX];
	size_t nquery_names;
	struct slice header_names[ROUTE_DISCRIMINATORS_MAX];
	size_t nheader_names;
	uint64_t header_ids; /* of the known ones among them */
	char **single_headers;
	size_t nsingle_headers;
	uint64_t declared_lengths; /* route_length_bit of each name in these two lists */
};

/* What tells most names from those of a list at a glance. */
static inline uint64_t
route_length_bit(size_t length)
{
	return UINT64_C(1) << (length < 63 ? length : 63);
}

/* Order of the literals: by length, then by bytes. */
static inline int
route_slice_order(struct slice a, struct slice b)
{
	if (a.n != b.n)
		return a.n < b.n ? -1 : 1;
	return memcmp(a.p, b.p, a.n);
}

/* The child with this literal, byte for byte or but for case, or NULL. */
const struct route_child *route_node_child(
    const struct route_node *node, struct slice segment, bool exactly);

/* Room for it and the child with this literal, which the node does not have: 0, or -1 without memory. */
int route_node_add(struct route_node *node, struct slice literal, uint32_t child);

enum route_method route_method_of(struct slice name);

/* The next segment of a path template after *rest, which is advanced; false at the end. */
bool route_next_segment(struct slice *rest, struct slice *segment);

static inline bool
route_is_parameter(struct slice segment)
{
	return segment.n > 2 && segment.p[0] == '{';
}

static inline bool
route_is_rest(struct slice segment)
{
	return slice_equal(segment, SLICE("**"));
}

#endif
