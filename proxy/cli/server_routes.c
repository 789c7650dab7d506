/* /routes: which requests come, by route, and the shapes of those that fit none. */
#include "cli/server_internal.h"

#include "admin/answer.h"
#include "keytrail/clock.h"
#include "keytrail/route.h"

#include <inttypes.h>

static int
put_pair(const char *name, struct route_pair pair, const char *between, struct buf *out)
{
	char text[1024];

	if (pair.name == NULL)
		return buf_printf(out, "\"%s\":null,", name);
	snprintf(text, sizeof(text), "%s%s%s", pair.name, between, pair.value);
	return buf_printf(out, "\"%s\":", name) == -1 ||
		       answer_put_string(slice_of(text), out) == -1
		   ? -1
		   : buf_append(out, ",", 1);
}

/* hits null: more routes were configured than are counted one by one. */
static int
put_route(struct server *s, const struct route *r, struct buf *out)
{
	unsigned slot = s->snapshot->route_metric[r->index];
	char hits[24] = "null";

	if (slot < METRICS_ROUTES_MAX)
		snprintf(hits, sizeof(hits), "%.0f",
		    metrics_value(s->metrics, METRIC_ROUTE_REQUESTS, slot));
	if (buf_printf(out, "{\"action\":\"%s\",\"method\":\"%s\",\"path\":", r->action,
		r->method) == -1 ||
	    answer_put_string(slice_of(r->path), out) == -1 || buf_append(out, ",", 1) == -1 ||
	    put_pair("query", route_query(r), "=", out) == -1 ||
	    put_pair("header", route_header(r), ": ", out) == -1)
		return -1;
	return buf_printf(out,
	    "\"fallback\":%s,\"guarantee\":\"%s\",\"severity\":\"%s\",\"hits\":%s}",
	    r->fallback ? "true" : "false", guarantee_name(r->guarantee),
	    severity_name(r->severity), hits);
}

static int
put_routes(struct server *s, struct buf *out)
{
	const struct route_table *t = s->config->routes;

	for (size_t i = 0; i < route_table_size(t); i++)
		if ((i > 0 && buf_append(out, ",", 1) == -1) ||
		    put_route(s, route_table_get(t, i), out) == -1)
			return -1;
	return 0;
}

static int
put_shapes(struct server *s, struct buf *out)
{
	struct shape all[SHAPES_MAX];
	char last[CLOCK_EVENT_TIME_SIZE];
	uint64_t others;
	unsigned n = shapes_list(s->shapes, all, &others);

	for (unsigned i = 0; i < n; i++) {
		clock_event_time(all[i].last_ns, last);
		if (buf_printf(out, "%s{\"shape\":", i > 0 ? "," : "") == -1 ||
		    answer_put_string(slice_of(all[i].text), out) == -1 ||
		    buf_printf(
			out, ",\"count\":%" PRIu64 ",\"last\":\"%s\"}", all[i].count, last) == -1)
			return -1;
	}
	return buf_printf(out, "],\"otherShapes\":%" PRIu64 "}\n", others);
}

int
server_put_routes(void *arg, struct buf *out)
{
	char since[CLOCK_EVENT_TIME_SIZE];
	struct server *s = arg;

	clock_event_time(s->started, since);
	if (buf_printf(out, "{\"since\":\"%s\",\"routes\":[", since) == -1 ||
	    put_routes(s, out) == -1 || buf_printf(out, "],\"shapes\":[") == -1)
		return -1;
	return put_shapes(s, out);
}
