#include "route_table.h"

#include <assert.h>
#include <stdio.h>

static const struct route_entry *
entry_of(const struct route *r)
{
	return (const struct route_entry *)r;
}

struct route_pair
route_query(const struct route *r)
{
	return (struct route_pair){ entry_of(r)->query_name.p, entry_of(r)->query_value.p };
}

struct route_pair
route_header(const struct route *r)
{
	return (struct route_pair){ entry_of(r)->header_name.p, entry_of(r)->header_value.p };
}

void
route_describe(const struct route *r, char *out, size_t n)
{
	struct route_pair query = route_query(r), header = route_header(r);
	int len = snprintf(out, n, "%s %s", r->method, r->path);

	if (query.name != NULL && len >= 0 && (size_t)len < n)
		len +=
		    snprintf(out + len, n - (size_t)len, " with ?%s=%s", query.name, query.value);
	if (header.name != NULL && len >= 0 && (size_t)len < n)
		snprintf(out + len, n - (size_t)len, " with %s: %s", header.name, header.value);
}

static bool
is_default(const struct route_table *t, const struct route *r)
{
	return r->index == t->nentries - 1;
}

void
route_explain(const struct route_table *t, const struct http_head *head, char *out, size_t n)
{
	struct route_match m;
	char what[1024];

	assert(n > 0);
	route_match(t, head, &m);
	route_describe(m.route, what, sizeof(what));
	if (m.refusal != REFUSAL_NONE)
		snprintf(out, n, "refused before anything is forwarded: %s; recorded as %s",
		    refusal_info(m.refusal)->text, m.route->action);
	else if (is_default(t, m.route))
		snprintf(out, n, "no route fits; the default action stands (%s)", m.route->where);
	else if (m.route->fallback)
		snprintf(out, n,
		    "no route of this method and path fits; the nearest fallback is "
		    "%s (%s)",
		    what, m.route->where);
	else
		snprintf(
		    out, n, "the most specific route that fits is %s (%s)", what, m.route->where);
}
