#include "config_table.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- JSON ---- */

static int
put(struct buf *out, unsigned depth, const char *text)
{
	return buf_printf(out, "%*s%s", (int)depth * 2, "", text);
}

static int
put_string(struct buf *out, const char *s)
{
	if (buf_append(out, "\"", 1) == -1)
		return -1;
	for (; *s != '\0'; s++)
		if ((*s == '"' || *s == '\\') ? buf_printf(out, "\\%c", *s) == -1
					      : buf_append(out, s, 1) == -1)
			return -1;
	return buf_append(out, "\"", 1);
}

static int
put_plain(struct buf *out, const char *s)
{
	return buf_append(out, s, strlen(s));
}

#define ENV_PATTERN "{ \"type\": \"string\", \"pattern\": \"\\\\$\\\\{\" }"

static int
put_words(const struct member *m, struct buf *out)
{
	if (buf_printf(out, "\"anyOf\": [{ \"enum\": [") == -1)
		return -1;
	for (const struct member_word *w = m->words; w->name != NULL; w++)
		if (buf_printf(out, "%s\"%s\"", w == m->words ? "" : ", ", w->name) == -1)
			return -1;
	return buf_printf(out, "] }, " ENV_PATTERN "]");
}

static int
put_number(const struct member *m, const char *pattern, struct buf *out)
{
	return buf_printf(out,
	    "\"anyOf\": [{ \"type\": \"integer\", \"minimum\": %" PRIu64 ", \"maximum\": %" PRIu64
	    " }, { \"type\": \"string\", \"pattern\": \"%s\" }]",
	    m->min, m->max, pattern);
}

static int
put_nullable(const struct member *m, const char *type, struct buf *out)
{
	if (m->flags & MEMBER_NULLABLE)
		return buf_printf(out, "\"type\": [\"%s\", \"null\"]", type);
	return buf_printf(out, "\"type\": \"%s\"", type);
}

static int
put_array(const struct member *m, const char *items, struct buf *out)
{
	return buf_printf(out,
	    "\"type\": \"array\", \"minItems\": %" PRIu64 ", \"maxItems\": %" PRIu64
	    ", \"items\": %s",
	    m->min, m->max, items);
}

static const struct {
	const char *name, *title;
	const struct member_table *table;
} definitions[] = {
	{ "sidecar", "The routes file", &config_file_table },
	{ "set", "A route set", &config_set_table },
	{ "route", "A route", &config_route_table },
	{ "certificate", "A certificate", &config_certificate_table },
	{ "sink", "A sink", &config_sink_table },
	{ "header", "A header", &config_header_table },
	{ "token", "A token", &config_token_table },
};

#define DEFINITIONS (sizeof(definitions) / sizeof(definitions[0]))

static int
put_list(const struct member *m, struct buf *out)
{
	char items[64];
	size_t i = 0;

	while (definitions[i].table != m->element)
		i++;
	snprintf(items, sizeof(items), "{ \"$ref\": \"#/$defs/%s\" }", definitions[i].name);
	return put_array(m, items, out);
}

static int
put_addresses(const struct member *m, struct buf *out)
{
	if (m->max > 1)
		return put_array(m, "{ \"type\": \"string\" }", out);
	return buf_printf(out, "\"type\": \"string\"");
}

static int
put_secret(const struct member *m, struct buf *out)
{
	return put_nullable(m, "object", out) == -1
		   ? -1
		   : buf_printf(out, ", \"properties\": { \"file\": { \"type\": \"string\" } }, "
				     "\"required\": [\"file\"], \"additionalProperties\": false");
}

static int
put_type(const struct member *m, struct buf *out)
{
	switch (m->type) {
	case MEMBER_BOOL:
		return put_nullable(m, "boolean", out);
	case MEMBER_COUNT:
		return put_number(m, "\\\\$\\\\{", out);
	case MEMBER_BYTES:
		return put_number(m, "^[0-9]+([KMGT]i)?B$|\\\\$\\\\{", out);
	case MEMBER_MS:
	case MEMBER_US:
	case MEMBER_SECONDS:
		return put_number(m, "^[0-9]+(ns|us|ms|s|m|h|d)$|\\\\$\\\\{", out);
	case MEMBER_WORD:
		return put_words(m, out);
	case MEMBER_STRINGS:
		return put_array(m, "{ \"type\": \"string\" }", out);
	case MEMBER_NETWORKS:
		return put_array(m, "{ \"type\": \"string\" }", out);
	case MEMBER_ADDRESSES:
		return put_addresses(m, out);
	case MEMBER_LIST:
		return put_list(m, out);
	case MEMBER_SECRET:
		return put_secret(m, out);
	case MEMBER_PAIR:
		return buf_printf(out, "\"type\": \"object\", \"minProperties\": 1, "
				       "\"maxProperties\": 1, \"additionalProperties\": "
				       "{ \"type\": \"string\" }");
	default:
		return put_nullable(m, "string", out);
	}
}

static int put_object(const struct member_table *t, const char *prefix, unsigned flags,
    unsigned depth, struct buf *out);

/* The next row of the same name, which is for objects of other kinds. */
static const struct member *
namesake(const struct member_table *t, const struct member *m)
{
	for (const struct member *next = m + 1; next < t->members + t->n; next++)
		if (strcmp(next->name, m->name) == 0)
			return next;
	return NULL;
}

static bool
is_namesake(const struct member_table *t, const struct member *m)
{
	for (const struct member *before = t->members; before < m; before++)
		if (strcmp(before->name, m->name) == 0)
			return true;
	return false;
}

static int
put_types(const struct member_table *t, const struct member *m, struct buf *out)
{
	if (namesake(t, m) == NULL)
		return put_type(m, out);
	if (buf_printf(out, "\"anyOf\": [") == -1)
		return -1;
	for (const struct member *next; m != NULL; m = next) {
		next = namesake(t, m);
		if (buf_printf(out, "{ ") == -1 || put_type(m, out) == -1 ||
		    buf_printf(out, next != NULL ? " }, " : " }]") == -1)
			return -1;
	}
	return 0;
}

/* With the kinds that have it. */
static int
put_help(const struct member_table *t, const struct member *m,
    int (*put_text)(struct buf *, const char *), struct buf *out)
{
	char text[2048], kinds[128];

	member_kinds(t, m, "", ", ", kinds, sizeof(kinds));
	snprintf(text, sizeof(text), kinds[0] != '\0' ? "(%s) %s" : "%s%s", kinds, m->help);
	return put_text(out, text);
}

static int
put_member(const struct member_table *t, const struct member *m, unsigned depth, struct buf *out)
{
	if (buf_printf(out, "{\n") == -1 || put(out, depth + 1, "\"description\": ") == -1 ||
	    put_help(t, m, put_string, out) == -1 || buf_printf(out, ",\n") == -1)
		return -1;
	if (m->fallback != NULL && (put(out, depth + 1, "\"default\": ") == -1 ||
				       buf_printf(out, "%s,\n", m->fallback) == -1))
		return -1;
	if (m->type == MEMBER_OBJECT) {
		if (put_object(t, m->name, m->flags, depth + 1, out) == -1)
			return -1;
	} else if (put(out, depth + 1, "") == -1 || put_types(t, m, out) == -1) {
		return -1;
	}
	return buf_printf(out, "\n%*s}", (int)depth * 2, "");
}

/* Of every object, or of these kinds only. */
static int
put_required(const struct member_table *t, const char *prefix, unsigned kinds, struct buf *out)
{
	const char *separator = "";

	if (buf_printf(out, "\"required\": [") == -1)
		return -1;
	for (size_t i = 0; i < t->n; i++) {
		const struct member *m = &t->members[i];
		const char *name = member_in(m, prefix);

		if (name == NULL || (m->flags & MEMBER_REQUIRED) == 0 ||
		    (kinds == 0 ? m->only != 0 : (m->only & kinds) == 0))
			continue;
		if (buf_printf(out, "%s\"%s\"", separator, name) == -1)
			return -1;
		separator = ", ";
	}
	return buf_printf(out, "]");
}

/* Does a row below say of which kinds it is? */
static bool
depends_on_kind(const struct member_table *t, const char *prefix)
{
	size_t n = strlen(prefix);

	for (size_t i = 0; i < t->n; i++)
		if (t->members[i].only != 0 &&
		    (n == 0 || (strncmp(t->members[i].name, prefix, n) == 0 &&
				   t->members[i].name[n] == '.')))
			return true;
	return false;
}

static bool
is_of_kind(const struct member_table *t, const struct member *m, unsigned kind)
{
	for (; m != NULL; m = namesake(t, m))
		if (m->only == 0 || (m->only & kind) != 0)
			return true;
	return false;
}

/* What objects of this kind must have and may not. */
static int
put_kind(const struct member_table *t, const char *prefix, unsigned kind, struct buf *out)
{
	const char *separator = "";

	if (put_required(t, prefix, kind, out) == -1 ||
	    buf_printf(out, ", \"properties\": {") == -1)
		return -1;
	for (size_t i = 0; i < t->n; i++) {
		const struct member *m = &t->members[i];
		const char *name = member_in(m, prefix);
		bool has = is_of_kind(t, m, kind);

		if (name == NULL || is_namesake(t, m) ||
		    (has && (m->type != MEMBER_OBJECT || !depends_on_kind(t, m->name))))
			continue;
		if (buf_printf(out, has ? "%s\"%s\": { " : "%s\"%s\": false", separator, name) ==
			-1 ||
		    (has && (put_kind(t, m->name, kind, out) == -1 || buf_printf(out, " }") == -1)))
			return -1;
		separator = ", ";
	}
	return buf_printf(out, "}");
}

static int
put_kinds(const struct member_table *t, unsigned depth, struct buf *out)
{
	const struct member *row;
	const char *separator = "";

	if (!depends_on_kind(t, ""))
		return 0;
	row = member_kind_row(t);
	if (buf_printf(out, ",\n%*s\"allOf\": [", (int)depth * 2, "") == -1)
		return -1;
	for (const struct member_word *w = row->words; w->name != NULL; w++) {
		if (buf_printf(out,
			"%s\n%*s{ \"if\": { \"properties\": { \"%s\": { \"const\": \"%s\" } } }, "
			"\"then\": { ",
			separator, (int)depth * 2 + 2, "", row->name, w->name) == -1 ||
		    put_kind(t, "", 1u << w->value, out) == -1 || buf_printf(out, " } }") == -1)
			return -1;
		separator = ",";
	}
	return buf_printf(out, "\n%*s]", (int)depth * 2, "");
}

/* The members of an object's schema, without its braces. */
static int
put_object(const struct member_table *t, const char *prefix, unsigned flags, unsigned depth,
    struct buf *out)
{
	const char *separator = "\n";

	if (put(out, depth,
		flags & MEMBER_NULLABLE ? "\"type\": [\"object\", \"null\"],\n"
					: "\"type\": \"object\",\n") == -1 ||
	    put(out, depth, "\"additionalProperties\": false,\n") == -1 ||
	    put(out, depth, "") == -1 || put_required(t, prefix, 0, out) == -1 ||
	    buf_printf(out, ",\n") == -1 || put(out, depth, "\"properties\": {") == -1)
		return -1;
	for (size_t i = 0; i < t->n; i++) {
		const char *name = member_in(&t->members[i], prefix);

		if (name == NULL || is_namesake(t, &t->members[i]))
			continue;
		if (buf_printf(out, "%s%*s\"%s\": ", separator, (int)depth * 2 + 2, "", name) ==
			-1 ||
		    put_member(t, &t->members[i], depth + 1, out) == -1)
			return -1;
		separator = ",\n";
	}
	if (buf_printf(out, "\n%*s}", (int)depth * 2, "") == -1)
		return -1;
	return prefix[0] == '\0' ? put_kinds(t, depth, out) : 0;
}

int
config_schema(struct buf *out)
{
	if (buf_printf(out, "{\n"
			    "  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
			    "  \"title\": \"keytrail routes file\",\n"
			    "  \"if\": { \"type\": \"object\", \"required\": [\"set\"] },\n"
			    "  \"then\": { \"$ref\": \"#/$defs/set\" },\n"
			    "  \"else\": { \"$ref\": \"#/$defs/sidecar\" },\n"
			    "  \"$defs\": {") == -1)
		return -1;
	for (size_t i = 0; i < DEFINITIONS; i++)
		if (buf_printf(
			out, "%s\n    \"%s\": {\n", i == 0 ? "" : ",", definitions[i].name) == -1 ||
		    put_object(definitions[i].table, "", 0, 3, out) == -1 ||
		    buf_printf(out, "\n    }") == -1)
			return -1;
	return buf_printf(out, "\n  }\n}\n");
}

/* ---- Markdown ---- */

static int
put_type_text(const struct member *m, struct buf *out)
{
	static const char *const names[] = {
		[MEMBER_OBJECT] = "object",
		[MEMBER_BOOL] = "boolean",
		[MEMBER_COUNT] = "number",
		[MEMBER_BYTES] = "bytes",
		[MEMBER_MS] = "milliseconds",
		[MEMBER_US] = "microseconds",
		[MEMBER_SECONDS] = "seconds",
		[MEMBER_WORD] = "",
		[MEMBER_STRING] = "string",
		[MEMBER_PATH] = "file name",
		[MEMBER_ADDRESS] = "host:port",
		[MEMBER_ADDRESSES] = "host:port",
		[MEMBER_NETWORKS] = "array of networks",
		[MEMBER_STRINGS] = "array of strings",
		[MEMBER_SECRET] = "{\"file\": ...}",
		[MEMBER_PAIR] = "{name: value}",
		[MEMBER_LIST] = "array of objects",
		[MEMBER_IGNORED] = "string",
	};
	bool many = m->type == MEMBER_ADDRESSES && m->max > 1;

	if (m->type != MEMBER_WORD)
		return buf_printf(out, "%s%s", many ? "array of " : "", names[m->type]);
	for (const struct member_word *w = m->words; w->name != NULL; w++)
		if (buf_printf(out, "%s`%s`", w == m->words ? "" : ", ", w->name) == -1)
			return -1;
	return 0;
}

static int
put_default_text(const struct member *m, struct buf *out)
{
	if (m->flags & MEMBER_REQUIRED)
		return buf_printf(out, "required");
	return m->fallback != NULL ? buf_printf(out, "`%s`", m->fallback) : 0;
}

static bool
is_number(const struct member *m)
{
	return m->type == MEMBER_COUNT || m->type == MEMBER_BYTES || m->type == MEMBER_MS ||
	       m->type == MEMBER_US || m->type == MEMBER_SECONDS;
}

/* An object changes where its members do, unless it can be there or not. */
static const char *
changes_at(const struct member *m)
{
	if (m->type == MEMBER_IGNORED || (m->type == MEMBER_OBJECT && m->size == 0))
		return "";
	return m->flags & MEMBER_RESTART ? "restart" : "HUP";
}

static int
put_row(const struct member_table *t, const struct member *m, bool live, struct buf *out)
{
	if (buf_printf(out, "| `%s` | ", m->name) == -1 || put_type_text(m, out) == -1 ||
	    (is_number(m) && buf_printf(out, ", %" PRIu64 " to %" PRIu64, m->min, m->max) == -1) ||
	    buf_printf(out, " | ") == -1 || put_default_text(m, out) == -1)
		return -1;
	if (live && buf_printf(out, " | %s", changes_at(m)) == -1)
		return -1;
	if (buf_printf(out, " | ") == -1 || put_help(t, m, put_plain, out) == -1)
		return -1;
	return buf_printf(out, " |\n");
}

int
config_reference(struct buf *out)
{
	for (size_t i = 0; i < DEFINITIONS; i++) {
		bool live = definitions[i].table == &config_file_table;

		if (buf_printf(out,
			"%s## %s\n\n| member | type | default |%s what it says |\n"
			"|---|---|---|%s---|\n",
			i == 0 ? "" : "\n", definitions[i].title, live ? " changes at |" : "",
			live ? "---|" : "") == -1)
			return -1;
		for (size_t j = 0; j < definitions[i].table->n; j++)
			if (put_row(definitions[i].table, &definitions[i].table->members[j], live,
				out) == -1)
				return -1;
	}
	return 0;
}
