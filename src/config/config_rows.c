/* What a row says of itself, and of which objects. */

#include "config_table.h"

#include <stdio.h>

const char *
member_in(const struct member *m, const char *object)
{
	size_t n = strlen(object);
	const char *rest = m->name;

	if (n > 0) {
		if (strncmp(rest, object, n) != 0 || rest[n] != '.')
			return NULL;
		rest += n + 1;
	}
	return strchr(rest, '.') == NULL ? rest : NULL;
}

const struct member *
member_kind_row(const struct member_table *table)
{
	const struct member *m = table->members;

	while ((m->flags & MEMBER_KIND) == 0)
		m++;
	return m;
}

const char *
member_kind(const struct member_table *table, const void *base)
{
	const struct member *row = member_kind_row(table);
	unsigned kind;

	memcpy(&kind, (const char *)base + row->field, sizeof(kind));
	for (const struct member_word *w = row->words; w->name != NULL; w++)
		if (w->value == kind)
			return w->name;
	return NULL;
}

bool
member_applies(const struct member_table *table, const struct member *m, const void *base)
{
	unsigned kind;

	if (m->only == 0)
		return true;
	memcpy(&kind, (const char *)base + member_kind_row(table)->field, sizeof(kind));
	return m->only >> kind & 1;
}

void
member_kinds(const struct member_table *table, const struct member *m, const char *quote,
    const char *between, char *out, size_t n)
{
	size_t at = 0;

	out[0] = '\0';
	if (m->only == 0)
		return;
	for (const struct member_word *w = member_kind_row(table)->words; w->name != NULL; w++)
		if (m->only >> w->value & 1 && at < n)
			at += (size_t)snprintf(out + at, n - at, "%s%s%s%s", at == 0 ? "" : between,
			    quote, w->name, quote);
}
