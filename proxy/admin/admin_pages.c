#include "admin/admin_internal.h"

#include "admin/answer.h"
#include "admin/dashboard.h"
#include "admin/events.h"
#include "admin/history.h"

#include <event2/http.h>
#include <string.h>

#define TYPE_METRICS	 "text/plain; version=0.0.4; charset=utf-8"
#define TYPE_OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* ---- /metrics ---- */

static void
answer_metrics(const struct admin_ask *ask)
{
	struct admin *a = ask->door->admin;
	struct evkeyvalq *in = evhttp_request_get_input_headers(ask->req);
	enum metrics_format format = admin_negotiate(evhttp_find_header(in, "Accept"));
	struct buf body = BUF_INIT;
	int rc;

	a->opts.refresh(a->opts.arg);
	rc = metrics_render(a->opts.metrics, format, &body);
	evhttp_add_header(evhttp_request_get_output_headers(ask->req), "Vary", "Accept");
	answer_take(ask->req, 200, format == METRICS_TEXT_0_0_4 ? TYPE_METRICS : TYPE_OPENMETRICS,
	    &body, rc);
}

/* ---- /livez, /readyz, /status ---- */

static void
answer_live(const struct admin_ask *ask)
{
	answer_text(ask->req, 200, "alive\n");
}

static bool
is_verbose(const struct admin_ask *ask)
{
	const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(ask->req));

	return ask->door->guarded && query != NULL &&
	       (strcmp(query, "verbose") == 0 || strncmp(query, "verbose=", 8) == 0);
}

static size_t
run_checks(const struct admin *a, struct health_check checks[HEALTH_CHECKS_MAX])
{
	size_t n = a->opts.checks(a->opts.arg, checks, HEALTH_CHECKS_MAX);

	return n < HEALTH_CHECKS_MAX ? n : HEALTH_CHECKS_MAX;
}

static int
render_verbose(const struct health_check *checks, size_t n, struct buf *out)
{
	return buf_append(out, "{", 1) == -1 || health_render_members(checks, n, out) == -1
		   ? -1
		   : buf_append(out, "}\n", 2);
}

static void
answer_ready(const struct admin_ask *ask)
{
	struct health_check checks[HEALTH_CHECKS_MAX];
	size_t n = run_checks(ask->door->admin, checks);
	struct buf body = BUF_INIT;
	bool verbose = is_verbose(ask);
	int rc = verbose ? render_verbose(checks, n, &body) : health_render_brief(checks, n, &body);

	answer_take(ask->req, health_ready(checks, n) ? 200 : 503,
	    verbose ? ANSWER_JSON : ANSWER_TEXT, &body, rc);
}

/* The names are identifiers, or fixed words. */
static int
append_own_status(const struct admin_ask *ask, struct buf *out)
{
	const struct admin *a = ask->door->admin;
	const struct config *config = a->opts.config(a->opts.arg);
	const struct metrics *m = a->opts.metrics;
	struct health_check checks[HEALTH_CHECKS_MAX];

	if (buf_append_slice(out, SLICE("{\"configPath\":")) == -1 ||
	    answer_put_string(slice_of(config->path), out) == -1 ||
	    buf_printf(
		out, ",\"you\":{\"role\":\"%s\",\"token\":\"%s\"},", ask->role, ask->token) == -1 ||
	    health_render_members(checks, run_checks(a, checks), out) == -1)
		return -1;
	return buf_printf(out,
	    ",\"requests\":{\"inFlight\":%.0f},\"upstream\":{\"idle\":%.0f,\"open\":%.0f},",
	    metrics_value(m, METRIC_REQUESTS_IN_FLIGHT, 0),
	    metrics_value(m, METRIC_UPSTREAM_IDLE, 0), metrics_value(m, METRIC_UPSTREAM_OPEN, 0));
}

static void
answer_status(const struct admin_ask *ask)
{
	const struct admin *a = ask->door->admin;
	struct buf body = BUF_INIT;
	int rc;

	a->opts.refresh(a->opts.arg);
	rc = append_own_status(ask, &body) == -1 ||
		     a->opts.status(a->opts.arg, history_seconds_to_full(a->history), &body) == -1
		 ? -1
		 : buf_append(&body, "}\n", 2);
	answer_take(ask->req, 200, ANSWER_JSON, &body, rc);
}

/* ---- /history?minutes=60 ---- */

/* 0: something else is asked for. */
static unsigned
minutes_of(const char *query)
{
	uint64_t n;

	if (query == NULL)
		return HISTORY_MINUTES;
	if (strncmp(query, "minutes=", 8) != 0 || slice_to_u64(slice_of(query + 8), &n) == -1 ||
	    n > HISTORY_MINUTES)
		return 0;
	return (unsigned)n;
}

static void
answer_history(const struct admin_ask *ask)
{
	const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(ask->req));
	unsigned minutes = minutes_of(query);
	struct buf body = BUF_INIT;
	int rc;

	if (minutes == 0) {
		answer_text(ask->req, 400, "wanted minutes=1 to 60\n");
		return;
	}
	rc = history_render(ask->door->admin->history, minutes, &body);
	answer_take(ask->req, 200, ANSWER_JSON, &body, rc);
}

/* ---- /routes ---- */

static void
answer_routes(const struct admin_ask *ask)
{
	const struct admin *a = ask->door->admin;
	struct buf body = BUF_INIT;
	int rc = a->opts.routes(a->opts.arg, &body);

	answer_take(ask->req, 200, ANSWER_JSON, &body, rc);
}

/* ---- /events ---- */

/* Each query is recorded. */
static void
query_trail(const struct admin_ask *ask, const char *page,
    bool (*answer)(struct events *, struct evhttp_request *, char *shape, size_t n))
{
	struct admin *a = ask->door->admin;
	char filter[128];
	const struct admin_access access = { .page = page,
		.token = ask->token,
		.role = ask->role,
		.address = ask->address,
		.filter = filter };

	if (evhttp_request_get_command(ask->req) == EVHTTP_REQ_HEAD)
		answer_send(ask->req, 200, ANSWER_JSON, SLICE_EMPTY);
	else if (answer(a->events, ask->req, filter, sizeof(filter)))
		a->opts.access(a->opts.arg, &access);
}

static void
answer_events(const struct admin_ask *ask)
{
	query_trail(ask, "/events", events_answer);
}

static void
answer_stream(const struct admin_ask *ask)
{
	query_trail(
	    ask, "/events/stream", ask->door->operates ? events_stream_local : events_stream);
}

static void
answer_proof(const struct admin_ask *ask)
{
	query_trail(ask, "/proof", events_prove);
}

/* ---- the dashboard ---- */

static void
answer_dashboard(const struct admin_ask *ask)
{
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(ask->req));

	dashboard_answer(ask->req, dashboard_find(path));
}

static const struct admin_page dashboard = { NULL, true, true, answer_dashboard };

static const struct admin_page pages[] = {
	{ "/metrics", false, false, answer_metrics },
	{ "/livez", false, false, answer_live },
	{ "/readyz", false, false, answer_ready },
	{ "/status", true, false, answer_status },
	{ "/history", true, false, answer_history },
	{ "/routes", true, false, answer_routes },
	{ "/events", true, false, answer_events },
	{ "/events/stream", true, false, answer_stream },
	{ "/proof", true, false, answer_proof },
};

const struct admin_page *
admin_find_page(const struct admin_door *door, const char *path)
{
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		if (strcmp(path, pages[i].path) == 0 && (door->guarded || !pages[i].guarded))
			return &pages[i];
	return door->guarded && dashboard_find(path) != NULL ? &dashboard : NULL;
}
