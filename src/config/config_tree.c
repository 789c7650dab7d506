#include "config_tree.h"

#include "keytrail/jsonscan.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- arena ---- */

struct arena_block {
	struct arena_block *next;
	size_t n;
	max_align_t bytes[];
};

void *
arena_alloc(struct arena *a, size_t n)
{
	struct arena_block *b;

	if (n > SIZE_MAX / 2 || (b = calloc(1, sizeof(*b) + n)) == NULL)
		return NULL;
	b->n = n;
	b->next = a->blocks;
	a->blocks = b;
	return b->bytes;
}

char *
arena_copy(struct arena *a, const char *p, size_t n)
{
	char *s = arena_alloc(a, n + 1);

	if (s != NULL && n > 0)
		memcpy(s, p, n);
	return s;
}

void
arena_free(struct arena *a)
{
	struct arena_block *b;

	while ((b = a->blocks) != NULL) {
		a->blocks = b->next;
		explicit_bzero(b->bytes, b->n);
		free(b);
	}
}

/* ---- errors ---- */

int
source_locate(const struct source *source, size_t offset, struct err *err)
{
	unsigned line, column;

	jsonscan_position(source->text, offset, &line, &column);
	return err_prefix(err, "%s:%u:%u", source->name, line, column);
}

int
tree_error(const struct tree *at, struct err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	return source_locate(at->source, at->offset, err);
}

const char *
tree_where(const struct tree *at, struct arena *arena)
{
	size_t n = strlen(at->source->name) + 32;
	char *s = arena_alloc(arena, n);

	if (s == NULL)
		return NULL;
	snprintf(s, n, "%s:%u:%u", at->source->name, at->line, at->column);
	return s;
}

const char *
quoted(const char *text, char out[QUOTED_SIZE])
{
	size_t n = strlen(text), shown = n > 60 ? 57 : n, at = 0;

	out[at++] = '"';
	for (size_t i = 0; i < shown; i++)
		out[at++] = (char)(text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?');
	if (shown < n) {
		memcpy(out + at, "...", 3);
		at += 3;
	}
	out[at++] = '"';
	out[at] = '\0';
	return out;
}

/* ---- parsing ---- */

#define MEMBERS_MAX 256 /* duplicates are sought one by one */

struct parser {
	struct jsonscan scan;
	size_t seen, line_start; /* lines are counted up to here */
	unsigned line;
	const struct source *source;
	struct arena *arena;
	struct err *err;
};

static int
fail(const struct parser *p, size_t offset, const char *why)
{
	err_set(p->err, "%s", why);
	return source_locate(p->source, offset, p->err);
}

static int
read_string(const struct parser *p, const struct jsonscan_token *t, struct slice *out)
{
	char *s = arena_alloc(p->arena, t->raw.n + 1);
	long n;

	if (s == NULL)
		return fail(p, t->offset, "memory is short");
	if ((n = jsonscan_unescape(t->raw, s, t->raw.n)) == -1)
		return fail(p, t->offset, "the string cannot be unescaped");
	if (memchr(s, '\0', (size_t)n) != NULL)
		return fail(p, t->offset, "a string holds no NUL");
	*out = (struct slice){ s, (size_t)n };
	return 0;
}

static int
check_duplicate(const struct parser *p, const struct tree *object, struct slice name, size_t offset)
{
	unsigned line, column, n = 0;
	char q[QUOTED_SIZE];

	for (const struct tree *m = object->first; m != NULL; m = m->next) {
		if (++n == MEMBERS_MAX)
			return fail(p, offset, "too many members in one object");
		if (strcmp(m->name, name.p) != 0)
			continue;
		jsonscan_position(p->source->text, m->name_offset, &line, &column);
		err_set(p->err, "%s is given twice; the first is at %u:%u", quoted(name.p, q), line,
		    column);
		return source_locate(p->source, offset, p->err);
	}
	return 0;
}

static int read_value(struct parser *p, const struct jsonscan_token *t, struct tree **out);

static int
read_member(
    struct parser *p, const struct tree *object, struct jsonscan_token *t, struct tree **out)
{
	size_t name_offset = t->offset;
	struct slice name;

	if (read_string(p, t, &name) == -1 || check_duplicate(p, object, name, name_offset) == -1)
		return -1;
	jsonscan_next(&p->scan, t);
	if (read_value(p, t, out) == -1)
		return -1;
	(*out)->name = name.p;
	(*out)->name_offset = name_offset;
	return 0;
}

static int
read_children(struct parser *p, struct tree *v)
{
	struct tree **tail = &v->first;
	struct jsonscan_token t;

	while (jsonscan_next(&p->scan, &t) != JSONSCAN_OBJECT_END && t.type != JSONSCAN_ARRAY_END) {
		int rc =
		    t.type == JSONSCAN_KEY ? read_member(p, v, &t, tail) : read_value(p, &t, tail);

		if (rc == -1)
			return -1;
		tail = &(*tail)->next;
	}
	return 0;
}

static int
fill_value(struct parser *p, const struct jsonscan_token *t, struct tree *v)
{
	switch (t->type) {
	case JSONSCAN_OBJECT:
		v->type = TREE_OBJECT;
		return read_children(p, v);
	case JSONSCAN_ARRAY:
		v->type = TREE_ARRAY;
		return read_children(p, v);
	case JSONSCAN_STRING:
		v->type = TREE_STRING;
		return read_string(p, t, &v->text);
	case JSONSCAN_NUMBER:
		v->type = TREE_NUMBER;
		v->text = slice_sub(p->scan.text, t->offset, p->scan.pos);
		return 0;
	case JSONSCAN_TRUE:
	case JSONSCAN_FALSE:
		v->type = TREE_BOOL;
		v->truth = t->type == JSONSCAN_TRUE;
		return 0;
	case JSONSCAN_NULL:
		v->type = TREE_NULL;
		return 0;
	case JSONSCAN_BAD:
		return fail(p, t->offset, p->scan.error);
	default:
		return fail(p, t->offset, "wanted a value");
	}
}

/* Values come in order: each byte is looked at once, whatever the number of values. */
static void
place(struct parser *p, size_t offset, struct tree *v)
{
	const char *nl, *text = p->source->text.p;

	while ((nl = memchr(text + p->seen, '\n', offset - p->seen)) != NULL) {
		p->seen = p->line_start = (size_t)(nl - text) + 1;
		p->line++;
	}
	p->seen = v->offset = offset;
	v->line = p->line;
	v->column = (unsigned)(offset - p->line_start) + 1;
}

static int
read_value(struct parser *p, const struct jsonscan_token *t, struct tree **out)
{
	struct tree *v = arena_alloc(p->arena, sizeof(*v));

	if (v == NULL)
		return fail(p, t->offset, "memory is short");
	v->source = p->source;
	place(p, t->offset, v);
	if (fill_value(p, t, v) == -1)
		return -1;
	*out = v;
	return 0;
}

int
tree_parse(const struct source *source, struct arena *arena, struct tree **out, struct err *err)
{
	struct parser p = { .source = source, .arena = arena, .err = err, .line = 1 };
	struct jsonscan_token t;
	struct tree *v;

	jsonscan_init(&p.scan, source->text);
	jsonscan_next(&p.scan, &t);
	if (read_value(&p, &t, &v) == -1)
		return -1;
	if (jsonscan_next(&p.scan, &t) != JSONSCAN_EOF)
		return fail(&p, t.offset, p.scan.error != NULL ? p.scan.error : "wanted the end");
	*out = v;
	return 0;
}

const struct tree *
tree_get(const struct tree *object, const char *name)
{
	if (object == NULL || object->type != TREE_OBJECT)
		return NULL;
	for (const struct tree *m = object->first; m != NULL; m = m->next)
		if (strcmp(m->name, name) == 0)
			return m;
	return NULL;
}

const char *
tree_type_name(enum tree_type type)
{
	static const char *const names[] = {
		[TREE_OBJECT] = "an object",
		[TREE_ARRAY] = "an array",
		[TREE_STRING] = "a string",
		[TREE_NUMBER] = "a number",
		[TREE_BOOL] = "true or false",
		[TREE_NULL] = "null",
	};

	return names[type];
}
