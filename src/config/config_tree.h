/*
 * config_tree: a JSON text as a tree of values that know where they stand; private to config.
 *
 * The tree and everything it points to live in an arena, which is freed (and wiped) as a whole.
 */
#ifndef KEYTRAIL_CONFIG_TREE_H
#define KEYTRAIL_CONFIG_TREE_H

#include "keytrail/err.h"
#include "keytrail/slice.h"

struct arena_block;

struct arena {
	struct arena_block *blocks;
};

void *arena_alloc(struct arena *a, size_t n);		    /* zeroed; NULL when memory is short */
char *arena_copy(struct arena *a, const char *p, size_t n); /* with a NUL at its end */
void arena_free(struct arena *a);

/* A file that was read; name is what errors call it. */
struct source {
	const char *name;
	struct slice text;
};

enum tree_type { TREE_OBJECT, TREE_ARRAY, TREE_STRING, TREE_NUMBER, TREE_BOOL, TREE_NULL };

struct tree {
	enum tree_type type;
	const struct source *source;
	size_t offset; /* of the value's first byte */
	unsigned line, column;
	struct slice text;  /* STRING: unescaped, with a NUL behind it; NUMBER: as it stands */
	bool truth;	    /* BOOL */
	struct tree *first; /* child of an object or array */
	struct tree *next;  /* sibling */
	const char *name;   /* of a member, else NULL */
	size_t name_offset;
};

/* Parse a whole text.  The source and the arena must outlive the tree.  Duplicate members are
 * errors. */
int tree_parse(
    const struct source *source, struct arena *arena, struct tree **out, struct err *err);

/* The member of an object, or NULL; `object` may be NULL. */
const struct tree *tree_get(const struct tree *object, const char *name);

const char *tree_type_name(enum tree_type type); /* "a string" */

/* Put "name:line:column: " of a place in front of the message that is there; returns -1. */
int source_locate(const struct source *source, size_t offset, struct err *err);

/* "name:line:column: " and a message; returns -1. */
int tree_error(const struct tree *at, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "file:line:column" of a value, in the arena; NULL when memory is short. */
const char *tree_where(const struct tree *at, struct arena *arena);

/* What a message may show of a text: printable ASCII, at most 60 bytes, in quotes. */
#define QUOTED_SIZE 80
const char *quoted(const char *text, char out[QUOTED_SIZE]);

#endif
