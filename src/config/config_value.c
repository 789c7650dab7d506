#include "config_table.h"

#include "keytrail/nearest.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* One value on its way from the tree to its field. */
struct reading {
	const struct config_reader *r;
	const struct member *m;
	const struct tree *at;
	const char *text; /* of a string, with ${ENV} replaced; else NULL */
	char *base;
};

static int
no_memory(const struct config_reader *r, const struct tree *at)
{
	return tree_error(at, r->err, "memory is short");
}

static void
store(const struct reading *v, const void *p, size_t n)
{
	assert(n == v->m->size);
	memcpy(v->base + v->m->field, p, n);
}

static void
store_number(char *at, size_t size, uint64_t value)
{
	switch (size) {
	case 1:
		*at = (char)value;
		return;
	case 4:
		memcpy(at, &(uint32_t){ (uint32_t)value }, 4);
		return;
	default:
		assert(size == 8);
		memcpy(at, &value, 8);
	}
}

/* ---- errors that show the text, as the file has it and never as ${ENV} made it ---- */

static int
not_wanted(const struct reading *v, const char *wanted)
{
	char q[QUOTED_SIZE];
	const char *got = tree_type_name(v->at->type);

	if (v->at->type == TREE_STRING)
		got = quoted(v->at->text.p, q);
	if (v->at->type == TREE_NUMBER)
		return tree_error(v->at, v->r->err, "\"%s\" is %.*s; wanted %s", v->m->name,
		    v->at->text.n > 40 ? 40 : (int)v->at->text.n, v->at->text.p, wanted);
	return tree_error(v->at, v->r->err, "\"%s\" is %s; wanted %s", v->m->name, got, wanted);
}

/* ---- ${ENV} ---- */

static bool
is_name_char(char c, bool first)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
	       (!first && c >= '0' && c <= '9');
}

/* The variable that begins after "${": its value, or NULL and an error; *rest is after its '}'. */
static const char *
variable(const struct config_reader *r, const struct tree *at, const char **rest)
{
	const char *name = *rest, *end = name, *value;
	char copy[64];

	while (is_name_char(*end, end == name))
		end++;
	if (*end != '}' || end == name || (size_t)(end - name) >= sizeof(copy)) {
		tree_error(at, r->err,
		    "wanted ${NAME}, closed and of letters, digits and '_'; "
		    "write $${ for a literal ${");
		return NULL;
	}
	memcpy(copy, name, (size_t)(end - name));
	copy[end - name] = '\0';
	*rest = end + 1;
	if ((value = getenv(copy)) == NULL)
		tree_error(at, r->err, "the environment has no variable %s", copy);
	return value;
}

/* A string of the file with its ${ENV} replaced, in the arena; NULL and an error on failure. */
static const char *
expand(const struct config_reader *r, const struct tree *at)
{
	const char *p = at->text.p, *dollar, *value, *text;
	struct buf b = BUF_INIT;
	int rc = 0;

	if (strstr(p, "${") == NULL)
		return p;
	while (rc == 0 && (dollar = strstr(p, "${")) != NULL) {
		if (dollar > p && dollar[-1] == '$') {
			rc = buf_append(&b, p, (size_t)(dollar - p) - 1) | buf_append(&b, "${", 2);
			p = dollar + 2;
			continue;
		}
		rc = buf_append(&b, p, (size_t)(dollar - p));
		p = dollar + 2;
		if ((value = variable(r, at, &p)) == NULL) {
			buf_fini(&b);
			return NULL;
		}
		rc |= buf_append(&b, value, strlen(value));
	}
	rc |= buf_append(&b, p, strlen(p));
	text = rc == 0 ? arena_copy(r->arena, buf_slice(&b).p, buf_size(&b)) : NULL;
	buf_fini(&b);
	if (text == NULL)
		no_memory(r, at);
	return text;
}

static int
get_text(struct reading *v)
{
	v->text = NULL;
	if (v->at->type != TREE_STRING)
		not_wanted(v, "a string");
	else
		v->text = v->m->flags & MEMBER_VERBATIM ? v->at->text.p : expand(v->r, v->at);
	return v->text == NULL ? -1 : 0;
}

/* ---- numbers ---- */

struct number_kind {
	const char *wanted;
	uint64_t unit_ns;
	const char *unit;
};

static const struct number_kind number_kinds[] = {
	[MEMBER_COUNT] = { "a whole number", 0, "" },
	[MEMBER_BYTES] = { "a number of bytes, or \"64MiB\" (B, KiB, MiB, GiB, TiB)", 0, " bytes" },
	[MEMBER_MS] = { "a number of milliseconds, or \"20ms\" (ms, s, m, h, d)", 1000000, " ms" },
	[MEMBER_US] = { "a number of microseconds, or \"200us\" (us, ms, s)", 1000, " us" },
	[MEMBER_SECONDS] = { "a number of seconds, or \"400d\" (s, m, h, d)", 1000000000, " s" },
};

static int
number_of(struct reading *v, uint64_t *out)
{
	const struct number_kind *k = &number_kinds[v->m->type];

	if (v->at->type == TREE_NUMBER)
		return slice_to_u64(v->at->text, out);
	if (v->at->type != TREE_STRING)
		return -1;
	if (v->m->type == MEMBER_BYTES)
		return config_bytes_of(v->text, out);
	return k->unit_ns == 0 ? -1 : config_time_of(v->text, k->unit_ns, out);
}

static int
read_number(struct reading *v)
{
	const struct number_kind *k = &number_kinds[v->m->type];
	uint64_t n;

	if (v->at->type == TREE_STRING && get_text(v) == -1)
		return -1;
	/* A count may come from the environment, where everything is text. */
	if (number_of(v, &n) == -1 && (v->text == NULL || v->text == v->at->text.p ||
					  slice_to_u64(slice_of(v->text), &n) == -1))
		return not_wanted(v, k->wanted);
	if (n < v->m->min || n > v->m->max) {
		char wanted[80];

		snprintf(wanted, sizeof(wanted), "%" PRIu64 " to %" PRIu64 "%s", v->m->min,
		    v->m->max, k->unit);
		return not_wanted(v, wanted);
	}
	store_number(v->base + v->m->field, v->m->size, n);
	return 0;
}

static int
read_bool(struct reading *v)
{
	if (v->at->type != TREE_BOOL)
		return not_wanted(v, "true or false");
	store(v, &v->at->truth, sizeof(bool));
	return 0;
}

/* ---- strings ---- */

static const char *
word_name(const void *list, size_t i)
{
	return ((const struct member_word *)list)[i].name;
}

static int
unknown_word(const struct reading *v, size_t n)
{
	const char *near = nearest_word(v->at->text.p, word_name, v->m->words, n);
	struct err list = { "" };
	char q[QUOTED_SIZE];

	if (near != NULL)
		return tree_error(v->at, v->r->err, "unknown %s %s; did you mean \"%s\"?",
		    v->m->name, quoted(v->at->text.p, q), near);
	for (size_t i = 0; i < n; i++) {
		size_t at = strlen(list.msg);

		snprintf(list.msg + at, sizeof(list.msg) - at, "%s\"%s\"", i == 0 ? "" : ", ",
		    v->m->words[i].name);
	}
	return tree_error(v->at, v->r->err, "unknown %s %s; wanted one of %s", v->m->name,
	    quoted(v->at->text.p, q), list.msg);
}

static int
read_word(struct reading *v)
{
	size_t n = 0;

	if (get_text(v) == -1)
		return -1;
	for (; v->m->words[n].name != NULL; n++)
		if (strcmp(v->text, v->m->words[n].name) == 0) {
			store_number(v->base + v->m->field, v->m->size, v->m->words[n].value);
			return 0;
		}
	return unknown_word(v, n);
}

static int
check_length(const struct reading *v, size_t n)
{
	if (n == 0 && v->m->min > 0)
		return tree_error(v->at, v->r->err, "\"%s\" is empty", v->m->name);
	if (n > v->m->max)
		return tree_error(v->at, v->r->err, "\"%s\" is too long; at most %" PRIu64 " bytes",
		    v->m->name, v->m->max);
	return 0;
}

static int
check_value(const struct reading *v, const char *text)
{
	struct err why;
	char q[QUOTED_SIZE];

	if (v->m->check == NULL || v->m->check(text, &why) == 0)
		return 0;
	return tree_error(
	    v->at, v->r->err, "\"%s\" is %s; %s", v->m->name, quoted(v->at->text.p, q), why.msg);
}

static int
store_string(const struct reading *v, size_t field, const char *text)
{
	char *copy = arena_copy(v->r->arena, text, strlen(text));

	if (copy == NULL)
		return no_memory(v->r, v->at);
	memcpy(v->base + field, &copy, sizeof(copy));
	return 0;
}

static int
read_string(struct reading *v)
{
	if (get_text(v) == -1 || check_length(v, strlen(v->text)) == -1 ||
	    check_value(v, v->text) == -1)
		return -1;
	return store_string(v, v->m->field, v->text);
}

static int
read_path(struct reading *v)
{
	char *path;

	if (get_text(v) == -1 || check_length(v, strlen(v->text)) == -1)
		return -1;
	if (v->m->flags & MEMBER_SYSTEM && strcmp(v->text, "system") == 0)
		return 0;
	if ((path = config_resolve(v->r->arena, v->at->source->name, v->text)) == NULL)
		return no_memory(v->r, v->at);
	store(v, &path, sizeof(path));
	return 0;
}

static int
read_pair(struct reading *v)
{
	const struct tree *only = v->at->first;
	bool header = strcmp(v->m->name, "header") == 0;
	const char *value;
	struct err why;
	char q[QUOTED_SIZE];

	if (v->at->type != TREE_OBJECT || only == NULL || only->next != NULL)
		return not_wanted(v, "an object of one member, {\"name\": \"value\"}");
	if (only->type != TREE_STRING)
		return tree_error(only, v->r->err, "\"%s\" is %s; wanted a string", v->m->name,
		    tree_type_name(only->type));
	if ((value = expand(v->r, only)) == NULL)
		return -1;
	if (route_check_discriminator(only->name, value, header, &why) == -1)
		return tree_error(
		    only, v->r->err, "\"%s\" %s: %s", v->m->name, quoted(only->name, q), why.msg);
	if (store_string(v, v->m->field, only->name) == -1)
		return -1;
	return store_string(v, v->m->second, value);
}

/* ---- addresses ---- */

static int
parse_address(struct reading *v, struct config_address *out)
{
	struct slice host;

	if (get_text(v) == -1)
		return -1;
	if (config_address_of(v->text, &host, &out->port) == -1)
		return not_wanted(v, "host:port, like \"127.0.0.1:8443\" or \"[::1]:8443\"");
	if ((out->host = arena_copy(v->r->arena, host.p, host.n)) == NULL)
		return no_memory(v->r, v->at);
	return 0;
}

static int
read_address(struct reading *v)
{
	struct config_address a;

	if (parse_address(v, &a) == -1)
		return -1;
	store(v, &a, sizeof(a));
	return 0;
}

/* ---- arrays ---- */

typedef int (*element_fn)(struct reading *v, void *out);

static int
read_address_element(struct reading *v, void *out)
{
	struct config_address *a = out;

	if (parse_address(v, a) == -1)
		return -1;
	return a->port != 0 ? 0 : not_wanted(v, "a port to connect to, 1 to 65535");
}

static int
read_network_element(struct reading *v, void *out)
{
	struct err why;
	char q[QUOTED_SIZE];

	if (get_text(v) == -1)
		return -1;
	if (config_network_of(v->text, out, &why) == -1)
		return tree_error(v->at, v->r->err, "\"%s\" holds %s; %s", v->m->name,
		    quoted(v->at->text.p, q), why.msg);
	return 0;
}

static int
read_string_element(struct reading *v, void *out)
{
	char *copy;

	if (get_text(v) == -1 || check_value(v, v->text) == -1)
		return -1;
	if ((copy = arena_copy(v->r->arena, v->text, strlen(v->text))) == NULL)
		return no_memory(v->r, v->at);
	memcpy(out, &copy, sizeof(copy));
	return 0;
}

static int
read_object_element(struct reading *v, void *out)
{
	if (v->at->type != TREE_OBJECT)
		return not_wanted(v, "objects");
	return config_read_object(v->r, v->m->element, "", v->at, v->at, out);
}

static int
read_array(struct reading *v, size_t size, element_fn read)
{
	const struct tree *array = v->at, *child;
	bool lone = v->m->type == MEMBER_ADDRESSES && array->type == TREE_STRING;
	char *elements, *at;
	size_t n = lone ? 1 : 0;

	if (!lone && array->type != TREE_ARRAY)
		return not_wanted(v, "an array");
	for (child = array->first; child != NULL; child = child->next)
		n++;
	if (n < v->m->min || n > v->m->max)
		return tree_error(array, v->r->err,
		    "\"%s\" has %zu elements; wanted %" PRIu64 " to %" PRIu64, v->m->name, n,
		    v->m->min, v->m->max);
	if ((elements = arena_alloc(v->r->arena, n * size + 1)) == NULL)
		return no_memory(v->r, array);
	at = elements;
	for (child = lone ? array : array->first; child != NULL;
	     child = lone ? NULL : child->next) {
		v->at = child;
		if (read(v, at) == -1)
			return -1;
		at += size;
	}
	v->at = array;
	store(v, &elements, sizeof(elements));
	memcpy(v->base + v->m->second, &n, sizeof(n));
	return 0;
}

/* ---- one member ---- */

static int
read_secret(struct reading *v)
{
	struct config_secret s = { 0 };

	if (config_read_secret(v->r, v->at, v->m->name, &s) == -1)
		return -1;
	if (s.n < v->m->min)
		return tree_error(v->at, v->r->err,
		    "\"%s\": %s has %zu bytes; wanted at least %" PRIu64, v->m->name, s.path, s.n,
		    v->m->min);
	store(v, &s, sizeof(s));
	return 0;
}

static int
read_nested(struct reading *v, const struct member_table *table)
{
	if (v->m->size > 0)
		store(v, &(bool){ true }, sizeof(bool));
	return config_read_object(v->r, table, v->m->name, v->at, v->at, v->base);
}

static int
read_value(struct reading *v, const struct member_table *table)
{
	switch (v->m->type) {
	case MEMBER_OBJECT:
		return read_nested(v, table);
	case MEMBER_BOOL:
		return read_bool(v);
	case MEMBER_COUNT:
	case MEMBER_BYTES:
	case MEMBER_MS:
	case MEMBER_US:
	case MEMBER_SECONDS:
		return read_number(v);
	case MEMBER_WORD:
		return read_word(v);
	case MEMBER_STRING:
		return read_string(v);
	case MEMBER_PATH:
		return read_path(v);
	case MEMBER_ADDRESS:
		return read_address(v);
	case MEMBER_ADDRESSES:
		return read_array(v, sizeof(struct config_address), read_address_element);
	case MEMBER_NETWORKS:
		return read_array(v, sizeof(struct config_network), read_network_element);
	case MEMBER_STRINGS:
		return read_array(v, sizeof(char *), read_string_element);
	case MEMBER_SECRET:
		return read_secret(v);
	case MEMBER_PAIR:
		return read_pair(v);
	case MEMBER_LIST:
		return read_array(v, v->m->element->size, read_object_element);
	case MEMBER_IGNORED:
		return v->at->type == TREE_STRING ? 0 : not_wanted(v, "a string");
	}
	return 0;
}

static int
read_fallback(struct reading *v, const struct member_table *table)
{
	struct source source = { "default", slice_of(v->m->fallback) };
	struct arena scratch = { NULL };
	struct tree *value;
	int rc = tree_parse(&source, &scratch, &value, v->r->err);

	if (rc == 0 && value->type != TREE_NULL) {
		v->at = value;
		rc = read_value(v, table);
	}
	arena_free(&scratch);
	return rc;
}

static int
missing(const struct reading *v, const struct member_table *table, const char *object,
    const struct tree *at)
{
	const char *name = object[0] != '\0' ? object : "the object";

	if (v->m->only != 0)
		return tree_error(at, v->r->err, "%s of type \"%s\" has a \"%s\"", table->title,
		    member_kind(table, v->base), v->m->name);
	return tree_error(at, v->r->err,
	    object[0] != '\0' ? "\"%s\" has no \"%s\"; it is required%s%s"
			      : "%s here has no \"%s\"; it is required%s%s",
	    name, member_in(v->m, object), v->m->choices != NULL ? ": " : "",
	    v->m->choices != NULL ? v->m->choices : "");
}

/* `at`: where to point when something is missing; `object` NULL: absent. */
static int
read_member(struct reading *v, const struct member_table *table, const char *prefix,
    const struct tree *at, const struct tree *object)
{
	v->at = tree_get(object, member_in(v->m, prefix));
	if (v->at == NULL && v->m->flags & MEMBER_REQUIRED)
		return missing(v, table, prefix, at);
	if (v->at == NULL && v->m->fallback != NULL)
		return read_fallback(v, table);
	if (v->at == NULL && v->m->type == MEMBER_OBJECT) {
		if (v->m->size > 0)
			store(v, &(bool){ true }, sizeof(bool));
		return config_read_object(v->r, table, v->m->name, at, NULL, v->base);
	}
	if (v->at == NULL)
		return 0;
	if (v->at->type == TREE_NULL) {
		if (v->m->flags & MEMBER_NULLABLE)
			return 0;
		return not_wanted(v, "a value");
	}
	return read_value(v, table);
}

/* ---- an object ---- */

/* The names directly in an object, for the search of the nearest. */
struct names {
	const struct member_table *table;
	const char *prefix;
};

static const char *
names_get(const void *list, size_t i)
{
	const struct names *names = list;
	const char *name = member_in(&names->table->members[i], names->prefix);

	return name != NULL ? name : "";
}

static int
unknown_member(const struct config_reader *r, const struct names *names, const struct tree *m)
{
	const char *near = nearest_word(m->name, names_get, names, names->table->n);
	const char *in = names->prefix[0] != '\0' ? names->prefix : names->table->title;
	char q[QUOTED_SIZE], known[300] = "";

	for (size_t i = 0; near == NULL && i < names->table->n; i++) {
		const char *name = names_get(names, i);
		size_t at = strlen(known);

		if (name[0] != '\0' && name[0] != '$')
			snprintf(known + at, sizeof(known) - at, "%s%s", at == 0 ? "" : ", ", name);
	}
	if (near != NULL)
		err_set(r->err, "unknown member %s in %s; did you mean \"%s\"?", quoted(m->name, q),
		    in, near);
	else
		err_set(
		    r->err, "unknown member %s in %s; it has %s", quoted(m->name, q), in, known);
	return source_locate(m->source, m->name_offset, r->err);
}

static int
check_names(const struct config_reader *r, const struct names *names, const struct tree *object)
{
	for (const struct tree *m = object->first; m != NULL; m = m->next) {
		bool known = false;

		for (size_t i = 0; !known && i < names->table->n; i++)
			known = m->name[0] != '\0' && strcmp(names_get(names, i), m->name) == 0;
		if (!known)
			return unknown_member(r, names, m);
	}
	return 0;
}

/* A row that is for objects of other kinds; another one may have its name. */
static int
check_absent(const struct reading *v, const struct member_table *table, const char *prefix,
    const struct tree *object)
{
	const struct tree *at = tree_get(object, member_in(v->m, prefix));
	char kinds[128];

	if (at == NULL)
		return 0;
	for (size_t i = 0; i < table->n; i++)
		if (strcmp(table->members[i].name, v->m->name) == 0 &&
		    member_applies(table, &table->members[i], v->base))
			return 0;
	member_kinds(table, v->m, "\"", " or ", kinds, sizeof(kinds));
	return tree_error(
	    at, v->r->err, "\"%s\" is for %s of type %s", v->m->name, table->title, kinds);
}

int
config_read_object(const struct config_reader *r, const struct member_table *table,
    const char *prefix, const struct tree *at, const struct tree *object, void *base)
{
	struct names names = { table, prefix };

	if (object != NULL && object->type != TREE_OBJECT)
		return tree_error(object, r->err, "%s is %s; wanted an object",
		    prefix[0] != '\0' ? prefix : table->title, tree_type_name(object->type));
	if (object != NULL && check_names(r, &names, object) == -1)
		return -1;
	for (size_t i = 0; i < table->n; i++) {
		struct reading v = { .r = r, .m = &table->members[i], .base = base };

		if (member_in(v.m, prefix) == NULL || v.m->flags & MEMBER_LATER)
			continue;
		if (member_applies(table, v.m, base)
			? read_member(&v, table, prefix, at, object) == -1
			: check_absent(&v, table, prefix, object) == -1)
			return -1;
	}
	return 0;
}
