#include "route_table.h"

#include <assert.h>
#include <stdio.h>

void
route_describe(const struct route *r, char *out, size_t n)
{
	const struct route_entry *e = (const struct route_entry *)r;
	int len = snprintf(out, n, "%s %s", r->method, r->path);

	if (e->query_name.p != NULL && len >= 0 && (size_t)len < n)
		len += snprintf(
		    out + len, n - (size_t)len, " with ?%s=%s", e->query_name.p, e->query_value.p);
	if (e->header_name.p != NULL && len >= 0 && (size_t)len < n)
		snprintf(out + len, n - (size_t)len, " with %s: %s", e->header_name.p,
		    e->header_value.p);
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
