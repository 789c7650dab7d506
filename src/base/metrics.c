#include "metrics_table.h"

#include "keytrail/refusal.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- the tables ---- */

static const double request_bounds[] = { 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
	0.5, 1, 2.5, 5, 10, 30, 60 };
static const double added_bounds[] = { 0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001,
	0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1 };
static const double sync_bounds[] = { 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
	0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5 };
static const double commit_bounds[] = { 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096 };

#define NBOUNDS(a) (sizeof(a) / sizeof((a)[0]))
#define COUNTER(n, l, h)                                                                           \
	{                                                                                          \
		.name = n, .type = METRIC_COUNTER, .labels = l, .help = h                          \
	}
#define COUNTER_OF(n, u, h)                                                                        \
	{                                                                                          \
		.name = n, .type = METRIC_COUNTER, .unit = u, .help = h                            \
	}
#define COUNTER_BY(n, u, l, h)                                                                     \
	{                                                                                          \
		.name = n, .type = METRIC_COUNTER, .unit = u, .labels = l, .help = h               \
	}
#define GAUGE(n, u, l, h)                                                                          \
	{                                                                                          \
		.name = n, .type = METRIC_GAUGE, .unit = u, .labels = l, .help = h                 \
	}
#define GAUGE_UNSET(n, u, l, h)                                                                    \
	{                                                                                          \
		.name = n, .type = METRIC_GAUGE, .unit = u, .labels = l, .unset = true, .help = h  \
	}
#define HISTOGRAM(n, u, b, h)                                                                      \
	{                                                                                          \
		.name = n, .type = METRIC_HISTOGRAM, .unit = u, .bounds = b,                       \
		.nbounds = NBOUNDS(b), .help = h                                                   \
	}

#define HISTOGRAM_BY(n, u, l, b, h)                                                                \
	{                                                                                          \
		.name = n, .type = METRIC_HISTOGRAM, .unit = u, .labels = l, .bounds = b,          \
		.nbounds = NBOUNDS(b), .help = h                                                   \
	}

const struct metric_row metric_rows[METRIC_COUNT] = {
	[METRIC_REQUESTS] = COUNTER("requests", LABELS_REQUEST,
	    "Requests answered, by action, outcome and class of the final status."),
	[METRIC_REQUEST_SECONDS] = HISTOGRAM("request_duration_seconds", "seconds", request_bounds,
	    "Time from the arrival of a request's head to the last byte of its answer."),
	[METRIC_ADDED_SECONDS] = HISTOGRAM("added_seconds", "seconds", added_bounds,
	    "The part of a request's time that was spent in keytrail."),
	[METRIC_REQUESTS_IN_FLIGHT] = GAUGE("requests_in_flight", NULL, LABELS_NONE,
	    "Requests that have arrived and are not yet answered."),
	[METRIC_REFUSED] = COUNTER("refused_requests", LABELS_REFUSAL,
	    "Requests that keytrail answered itself, by reason."),
	[METRIC_UNMATCHED] =
	    COUNTER("unmatched_requests", LABELS_NONE, "Requests that fit no route."),
	[METRIC_ROUTE_REQUESTS] = COUNTER("route_requests", LABELS_ROUTE,
	    "Requests by route; those that fit none by what names them."),
	[METRIC_UNMATCHED_SHAPES] = GAUGE("unmatched_shapes", NULL, LABELS_NONE,
	    "Distinct shapes of paths that fit no route, at most 256; /routes names them."),
	[METRIC_CONNECTIONS] = COUNTER("connections", LABELS_NONE, "Client connections accepted."),
	[METRIC_CONNECTIONS_OPEN] =
	    GAUGE("connections_open", NULL, LABELS_NONE, "Client connections open."),
	[METRIC_CONNECTIONS_REJECTED] = COUNTER("connections_rejected", LABELS_NONE,
	    "Client connections closed at once, over the limit."),
	[METRIC_SOURCES_UNKNOWN] = COUNTER("sources_unknown", LABELS_NONE,
	    "Connections that were refused, and requests of trusted networks to which no rate was "
	    "applied, because 65,536 other sources are remembered, or memory was short."),
	[METRIC_OUT_OF_MEMORY] = COUNTER("out_of_memory", LABELS_NONE,
	    "Connections, requests and answers that were given up because memory was short."),
	[METRIC_HANDSHAKES] =
	    COUNTER("tls_handshakes", LABELS_RESUMED, "TLS handshakes finished with clients."),
	[METRIC_HANDSHAKE_FAILURES] = COUNTER("tls_handshake_failures", LABELS_TLS_FAILURE,
	    "TLS handshakes with clients that failed, by reason."),
	[METRIC_CLIENT_ABORTS] = COUNTER("client_aborts", LABELS_NONE,
	    "Answers cut by the client after their event was recorded."),
	[METRIC_LIFETIME_CUT] = COUNTER("lifetime_answers_cut", LABELS_NONE,
	    "Answers cut because timeouts.lifetime was over after their event was recorded."),
	[METRIC_RECEIVED_BYTES] =
	    COUNTER_OF("received_bytes", "bytes", "Bytes received from clients, after decryption."),
	[METRIC_SENT_BYTES] =
	    COUNTER_OF("sent_bytes", "bytes", "Bytes sent to clients, before encryption."),
	[METRIC_UPSTREAM_OPEN] = GAUGE("upstream_connections_open", NULL, LABELS_NONE,
	    "Connections to the key service that are open."),
	[METRIC_UPSTREAM_IDLE] = GAUGE("upstream_connections_idle", NULL, LABELS_NONE,
	    "Connections to the key service that wait in the pool."),
	[METRIC_UPSTREAM_CONNECTS] = COUNTER(
	    "upstream_connects", LABELS_NONE, "Connections to the key service that were opened."),
	[METRIC_UPSTREAM_REUSES] =
	    COUNTER("upstream_reuses", LABELS_NONE, "Requests sent over a pooled connection."),
	[METRIC_UPSTREAM_RETRIES] = COUNTER("upstream_retries", LABELS_NONE,
	    "Requests sent once more because a pooled connection was dead."),
	[METRIC_UPSTREAM_FAILURES] = COUNTER("upstream_failures", LABELS_UPSTREAM_FAILURE,
	    "Failures of the key service or of the way to it, by reason."),
	[METRIC_UPSTREAM_CUT] = COUNTER("upstream_answers_cut", LABELS_NONE,
	    "Answers cut by the key service after their event was recorded."),
	[METRIC_EVENTS_ACCEPTED] = COUNTER("events_accepted", LABELS_NONE,
	    "Events that were made: each is recorded, waits for it, or is lost."),
	[METRIC_EVENTS_RECORDED] =
	    COUNTER("events_recorded", LABELS_NONE, "Events appended to the trail."),
	[METRIC_EVENTS_DURABLE] =
	    COUNTER("events_durable", LABELS_NONE, "Events synced to the trail."),
	[METRIC_EVENTS_LOST] =
	    COUNTER("events_lost", LABELS_LOSS, "Events that never reached the trail, by reason."),
	[METRIC_TRAIL_BYTES] =
	    GAUGE("trail_size_bytes", "bytes", LABELS_NONE, "Bytes of the trail's segments."),
	[METRIC_TRAIL_SEGMENTS] =
	    GAUGE("trail_segments", NULL, LABELS_NONE, "Segments of the trail."),
	[METRIC_ADOPTED_RINGS] = GAUGE("adopted_rings", NULL, LABELS_NONE,
	    "Rings of the process that was taken over from, until it has ended; else 0."),
	[METRIC_TRAIL_FREE_BYTES] =
	    GAUGE("trail_free_bytes", "bytes", LABELS_NONE, "Room on the trail's file system."),
	[METRIC_TRAIL_SEQUENCE] = GAUGE("trail_durable_sequence", NULL, LABELS_NONE,
	    "Highest sequence number that is durable."),
	[METRIC_TRAIL_SIGNING] = GAUGE("trail_signing", NULL, LABELS_NONE,
	    "1 while checkpoints are signed; 0: audit.sign is null, or /readyz?verbose says why "
	    "not."),
	[METRIC_TRAIL_SIGNED] = GAUGE("trail_signed_sequence", NULL, LABELS_NONE,
	    "Highest sequence number that a signed checkpoint covers; 0: nothing is signed."),
	[METRIC_TRAIL_WRITABLE] =
	    GAUGE("trail_writable", NULL, LABELS_NONE, "1 while the trail takes events, else 0."),
	[METRIC_DEGRADED] = GAUGE("degraded", NULL, LABELS_NONE,
	    "1 while an operator has every route served as `async`, else 0."),
	[METRIC_DEGRADED_REMAINING] = GAUGE("degraded_remaining_seconds", "seconds", LABELS_NONE,
	    "Time until that ends by itself; 0: it is not so."),
	[METRIC_DEGRADED_REQUESTS] = COUNTER("degraded_requests", LABELS_NONE,
	    "Requests on `durable` and `intent` routes that came while it was so."),
	[METRIC_FSYNC_SECONDS] = HISTOGRAM("trail_sync_duration_seconds", "seconds", sync_bounds,
	    "Duration of one sync of the trail."),
	[METRIC_COMMIT_EVENTS] = HISTOGRAM("trail_commit_events", NULL, commit_bounds,
	    "Events that shared one sync of the trail."),
	[METRIC_TRAIL_FAILURES] =
	    COUNTER("trail_failures", LABELS_TRAIL_OP, "Failed operations on the trail's files."),
	[METRIC_SINK_DELIVERED] =
	    COUNTER("sink_events_delivered", LABELS_SINK, "Events that a sink acknowledged."),
	[METRIC_SINK_REJECTED] = COUNTER("sink_events_rejected", LABELS_SINK,
	    "Events that a sink refused for good; they are in its quarantine file."),
	[METRIC_SINK_FILTERED] = COUNTER(
	    "sink_events_filtered", LABELS_SINK, "Events that the sink's settings leave out."),
	[METRIC_SINK_MISSING] = COUNTER("sink_events_missing", LABELS_SINK,
	    "Events that were gone from the trail, or damaged, when the sink came to them."),
	[METRIC_SINK_DUE] = GAUGE_UNSET("sink_events_due", NULL, LABELS_SINK,
	    "Durable events since the sink's place at the start, whoever made them durable: always "
	    "delivered + rejected + filtered + missing + `keytrail_sink_lag_events`."),
	[METRIC_SINK_ATTEMPTS] = COUNTER("sink_deliveries", LABELS_ATTEMPT,
	    "Attempts to deliver a batch: all of it was taken (`ok`), an event was refused for "
	    "good "
	    "(`reject`), the rest was put off (`retry`)."),
	[METRIC_SINK_BYTES] = COUNTER_BY("sink_delivered_bytes", "bytes", LABELS_SINK,
	    "Bytes of the events that a sink acknowledged, in its format."),
	[METRIC_SINK_BATCH_EVENTS] = HISTOGRAM_BY(
	    "sink_batch_events", NULL, LABELS_SINK, commit_bounds, "Events offered in an attempt."),
	[METRIC_SINK_DELIVERY_SECONDS] = HISTOGRAM_BY("sink_delivery_duration_seconds", "seconds",
	    LABELS_SINK, request_bounds, "Time of an attempt."),
	[METRIC_SINK_FIGURE] = GAUGE_UNSET("sink_figure", NULL, LABELS_FIGURE,
	    "What a sink tells of itself; the names are its type's."),
	[METRIC_SINK_LAG_EVENTS] = GAUGE_UNSET(
	    "sink_lag_events", NULL, LABELS_SINK, "Durable events that a sink has not yet taken."),
	[METRIC_SINK_LAG_SECONDS] = GAUGE_UNSET("sink_lag_seconds", "seconds", LABELS_SINK,
	    "Age of the oldest event that a sink has not yet taken."),
	[METRIC_SINK_UP] = GAUGE_UNSET(
	    "sink_up", NULL, LABELS_SINK, "1 while the last delivery did not fail, else 0."),
	[METRIC_RELOADS] = COUNTER(
	    "reloads", LABELS_RESULT, "Loads of the configuration after the start, by result."),
	[METRIC_RELOAD_TIME] = GAUGE("last_load_timestamp_seconds", "seconds", LABELS_NONE,
	    "Time of the last successful load of the configuration, since 1970."),
	[METRIC_CERTIFICATE_EXPIRY] =
	    GAUGE_UNSET("certificate_expiry_timestamp_seconds", "seconds", LABELS_FILE,
		"Time when a file's certificate, revocation list or OCSP response expires, since "
		"1970."),
	[METRIC_ADMIN_REFUSED] = COUNTER("admin_refused", LABELS_ADMIN_REFUSAL,
	    "Requests of the admin listeners that were refused, by reason."),
	[METRIC_LOG_SUPPRESSED] = COUNTER("log_lines_suppressed", LABELS_NONE,
	    "Lines of the own log left out by its rate limit."),
	[METRIC_LOG_DROPPED] = COUNTER(
	    "log_lines_dropped", LABELS_NONE, "Lines of the own log lost for want of room."),
	[METRIC_BUILD_INFO] = { .name = "build",
	    .type = METRIC_INFO,
	    .labels = LABELS_BUILD,
	    .help = "Version of keytrail and of what it is built on; always 1." },
	[METRIC_START_TIME] = GAUGE("start_time_seconds", "seconds", LABELS_NONE,
	    "Time when the process started, since 1970."),
};

static const char *const refusal_words[] = {
#define X(name, status, label, text) label,
	REFUSAL_TABLE(X)
#undef X
};

static const char *const tls_failure_words[] = {
#define X(name, label) label,
	METRIC_TLS_FAILURE_TABLE(X)
#undef X
};

static const char *const upstream_failure_words[] = {
#define X(name, label) label,
	METRIC_UPSTREAM_FAILURE_TABLE(X)
#undef X
};

static const char *const admin_refusal_words[] = {
#define X(name, label) label,
	METRIC_ADMIN_REFUSAL_TABLE(X)
#undef X
};
const char *
metrics_admin_refusal_word(enum metric_admin_refusal reason)
{
	return admin_refusal_words[reason];
}

static const char *const resumed_words[] = { "false", "true" };
static const char *const result_words[] = { "failure", "success" };
static const char *const loss_words[] = {
	[METRIC_LOSS_RING_FULL] = "ring_full",
	[METRIC_LOSS_TRAIL_FULL] = "trail_full",
	[METRIC_LOSS_TRAIL_FAILED] = "trail_failed",
	[METRIC_LOSS_TOO_LARGE] = "too_large",
	[METRIC_LOSS_RING_CUT] = "ring_cut",
};
const char *
metrics_loss_word(enum metric_loss reason)
{
	return loss_words[reason];
}

static const char *const trail_op_words[] = {
	[METRIC_TRAIL_WRITE] = "write",
	[METRIC_TRAIL_SYNC] = "sync",
	[METRIC_TRAIL_OPEN] = "open",
};

const char *const metric_outcome_words[OUTCOMES] = {
	[METRIC_OUTCOME_SUCCESS] = "success",
	[METRIC_OUTCOME_FAILURE] = "failure",
	[METRIC_OUTCOME_UNKNOWN] = "unknown",
};
const char *
metrics_outcome_word(enum metric_outcome outcome)
{
	return metric_outcome_words[outcome];
}

const char *const metric_class_words[CLASSES] = { "none", "1xx", "2xx", "3xx", "4xx", "5xx" };

static const char *const attempt_words[METRIC_ATTEMPTS] = { "ok", "reject", "retry" };

#define WORDS(label, w, shown)                                                                     \
	{                                                                                          \
		.name = label, .words = w, .slots = sizeof(w) / sizeof((w)[0]), .always = shown    \
	}

const struct label_kind metric_label_kinds[LABELS_KINDS] = {
	[LABELS_NONE] = { .slots = 1, .always = true },
	[LABELS_REQUEST] = { .slots = (METRICS_ACTIONS_MAX + 1) * OUTCOMES * CLASSES },
	[LABELS_REFUSAL] = WORDS("reason", refusal_words, false),
	[LABELS_TLS_FAILURE] = WORDS("reason", tls_failure_words, true),
	[LABELS_UPSTREAM_FAILURE] = WORDS("reason", upstream_failure_words, true),
	[LABELS_RESUMED] = WORDS("resumed", resumed_words, true),
	[LABELS_LOSS] = WORDS("reason", loss_words, true),
	[LABELS_TRAIL_OP] = WORDS("operation", trail_op_words, true),
	[LABELS_RESULT] = WORDS("result", result_words, true),
	[LABELS_ADMIN_REFUSAL] = WORDS("reason", admin_refusal_words, true),
	[LABELS_SINK] = { .name = "sink", .slots = METRICS_SINKS_MAX + 1, .always = true },
	[LABELS_ATTEMPT] = { .name = "sink",
	    .slots = METRICS_SINKS_MAX + 1,
	    .always = true,
	    .also = "result",
	    .also_words = attempt_words,
	    .also_slots = METRIC_ATTEMPTS },
	[LABELS_FIGURE] = { .name = "sink",
	    .slots = METRICS_SINKS_MAX + 1,
	    .always = true,
	    .also = "figure",
	    .also_slots = METRICS_FIGURES_MAX + 1 },
	[LABELS_ROUTE] = { .name = "route", .slots = METRICS_ROUTES_MAX + 1 },
	[LABELS_FILE] = { .name = "file", .slots = METRICS_FILES_MAX + 1, .always = true },
	[LABELS_BUILD] = { .slots = 1, .always = true },
};

unsigned
metrics_slots(const struct metric_row *row)
{
	const struct label_kind *kind = &metric_label_kinds[row->labels];
	unsigned n = kind->slots * (kind->also_slots > 0 ? kind->also_slots : 1);

	return row->type == METRIC_HISTOGRAM ? n * (row->nbounds + 2) : n;
}

/* ---- life ---- */

struct metrics *
metrics_new(void)
{
	struct metrics *m = calloc(1, sizeof(*m));
	unsigned cell = 0;

	if (m == NULL)
		return NULL;
	/* The big tables go last, so that the other cells share few pages. */
	for (unsigned id = 0; id < METRIC_COUNT; id++) {
		if (id == METRIC_ROUTE_REQUESTS || id == METRIC_REQUESTS)
			continue;
		m->layout[id] = cell;
		cell += metrics_slots(&metric_rows[id]);
	}
	m->layout[METRIC_ROUTE_REQUESTS] = cell;
	m->layout[METRIC_REQUESTS] = cell + metrics_slots(&metric_rows[METRIC_ROUTE_REQUESTS]);
	m->layout[METRIC_COUNT] =
	    m->layout[METRIC_REQUESTS] + metrics_slots(&metric_rows[METRIC_REQUESTS]);
	return m;
}

void
metrics_free(struct metrics *m)
{
	struct metrics_shard *s;

	if (m == NULL)
		return;
	while ((s = m->shards) != NULL) {
		m->shards = s->next;
		munmap(s, s->size);
	}
	for (unsigned i = 0; i < m->nactions; i++)
		free(m->actions[i]);
	for (unsigned i = 0; i < m->nroutes; i++)
		free(m->routes[i]);
	for (unsigned i = 0; i < m->nsinks; i++)
		free(m->sinks[i]);
	for (unsigned i = 0; i < m->nfiles; i++)
		free(m->files[i]);
	for (unsigned i = 0; i < m->nfigures; i++)
		free(m->figures[i]);
	for (unsigned i = 0; i < 3; i++)
		free(m->build[i]);
	free(m);
}

static uint64_t
bits_of(double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static double
double_of(uint64_t bits)
{
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

struct metrics_shard *
metrics_shard_new(struct metrics *m)
{
	size_t cells = m->layout[METRIC_COUNT];
	size_t size = sizeof(struct metrics_shard) + cells * sizeof(uint64_t);
	struct metrics_shard *s;

	/* A mapping: its own pages, and those of actions that never occur are never touched. */
	s = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return NULL;
	s->layout = m->layout;
	s->size = size;
	for (unsigned id = 0; id < METRIC_COUNT; id++) {
		const struct metric_row *row = &metric_rows[id];

		if (row->type != METRIC_GAUGE)
			continue;
		for (unsigned i = 0; i < metrics_slots(row); i++)
			s->cells[m->layout[id] + i] = bits_of((double)NAN);
	}
	s->next = m->shards;
	m->shards = s;
	return s;
}

/* ---- names ---- */

/* The index of a name in a table of `max` names and a last "other". */
static unsigned
register_name(char **names, unsigned *n, unsigned max, const char *name)
{
	for (unsigned i = 0; i < *n; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	if (*n == max || (names[*n] = strdup(name)) == NULL)
		return max;
	return (*n)++;
}

unsigned
metrics_action(struct metrics *m, const char *action)
{
	return register_name(m->actions, &m->nactions, METRICS_ACTIONS_MAX, action);
}

unsigned
metrics_route(struct metrics *m, const char *route)
{
	return register_name(m->routes, &m->nroutes, METRICS_ROUTES_MAX, route);
}

unsigned
metrics_sink(struct metrics *m, const char *sink)
{
	return register_name(m->sinks, &m->nsinks, METRICS_SINKS_MAX, sink);
}

unsigned
metrics_attempt(unsigned sink, enum metric_attempt result)
{
	return sink * METRIC_ATTEMPTS + result;
}

unsigned
metrics_figure(struct metrics *m, unsigned sink, const char *figure)
{
	return sink * (METRICS_FIGURES_MAX + 1) +
	       register_name(m->figures, &m->nfigures, METRICS_FIGURES_MAX, figure);
}

unsigned
metrics_file(struct metrics *m, const char *path)
{
	return register_name(m->files, &m->nfiles, METRICS_FILES_MAX, path);
}

void
metrics_build_info(struct metrics *m, const char *version, const char *tls, const char *http_parser)
{
	const char *const values[3] = { version, tls, http_parser };

	for (unsigned i = 0; i < 3; i++) {
		free(m->build[i]);
		m->build[i] = values[i] == NULL ? NULL : strdup(values[i]);
	}
}

/* ---- writing: one thread a shard, so load and store need not be one operation ---- */

static _Atomic uint64_t *
cell_of(struct metrics_shard *s, enum metric_id id, unsigned index)
{
	assert(id < METRIC_COUNT && index < metrics_slots(&metric_rows[id]));
	return &s->cells[s->layout[id] + index];
}

static uint64_t
cell_load(_Atomic uint64_t *cell)
{
	return atomic_load_explicit(cell, memory_order_relaxed);
}

/* Release, so that a reader that sees an output also sees the input that was counted before. */
static void
cell_store(_Atomic uint64_t *cell, uint64_t value)
{
	atomic_store_explicit(cell, value, memory_order_release);
}

static double
or_zero(double value)
{
	return isnan(value) ? 0 : value;
}

void
metrics_add(struct metrics_shard *s, enum metric_id id, unsigned index, int64_t n)
{
	_Atomic uint64_t *cell = cell_of(s, id, index);

	assert(metric_rows[id].type != METRIC_HISTOGRAM);
	if (metric_rows[id].type == METRIC_GAUGE) {
		cell_store(cell, bits_of(or_zero(double_of(cell_load(cell))) + (double)n));
	} else {
		assert(n >= 0);
		cell_store(cell, cell_load(cell) + (uint64_t)n);
	}
}

void
metrics_set(struct metrics_shard *s, enum metric_id id, unsigned index, double value)
{
	_Atomic uint64_t *cell = cell_of(s, id, index);

	assert(metric_rows[id].type != METRIC_HISTOGRAM);
	if (metric_rows[id].type == METRIC_GAUGE)
		cell_store(cell, bits_of(value));
	else
		cell_store(cell, (uint64_t)value);
}

void
metrics_observe(struct metrics_shard *s, enum metric_id id, double value)
{
	metrics_observe_at(s, id, 0, value);
}

void
metrics_observe_at(struct metrics_shard *s, enum metric_id id, unsigned index, double value)
{
	const struct metric_row *row = &metric_rows[id];
	_Atomic uint64_t *cells = cell_of(s, id, index * (row->nbounds + 2));
	_Atomic uint64_t *sum = cells + row->nbounds + 1;
	unsigned i = 0;

	assert(row->type == METRIC_HISTOGRAM);
	while (i < row->nbounds && value > row->bounds[i])
		i++;
	cell_store(cells + i, cell_load(cells + i) + 1);
	cell_store(sum, bits_of(double_of(cell_load(sum)) + value));
}

void
metrics_count_request(
    struct metrics_shard *s, unsigned action, enum metric_outcome outcome, unsigned status)
{
	unsigned class = status / 100 < CLASSES ? status / 100 : 0;

	assert(action <= METRICS_ACTIONS_MAX && outcome < OUTCOMES);
	metrics_add(s, METRIC_REQUESTS, (action * OUTCOMES + outcome) * CLASSES + class, 1);
}

/* ---- reading ---- */

uint64_t
metrics_sum_integer(const struct metrics *m, unsigned cell)
{
	uint64_t sum = 0;

	for (struct metrics_shard *s = m->shards; s != NULL; s = s->next)
		sum += atomic_load_explicit(&s->cells[cell], memory_order_acquire);
	return sum;
}

double
metrics_sum_double(const struct metrics *m, unsigned cell)
{
	double sum = (double)NAN;

	for (struct metrics_shard *s = m->shards; s != NULL; s = s->next) {
		double v = double_of(atomic_load_explicit(&s->cells[cell], memory_order_acquire));

		if (!isnan(v))
			sum = or_zero(sum) + v;
	}
	return sum;
}

static double
sum_range(const struct metrics *m, unsigned cell, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += metrics_sum_integer(m, cell + i);
	return (double)sum;
}

double
metrics_value(const struct metrics *m, enum metric_id id, unsigned index)
{
	const struct metric_row *row = &metric_rows[id];
	unsigned cell = m->layout[id];

	if (id == METRIC_REQUESTS)
		return sum_range(m, cell + index * OUTCOMES * CLASSES, OUTCOMES * CLASSES);
	if (row->type == METRIC_HISTOGRAM)
		return sum_range(m, cell + index * (row->nbounds + 2), row->nbounds + 1);
	if (row->type == METRIC_GAUGE)
		return or_zero(metrics_sum_double(m, cell + index));
	return sum_range(m, cell + index, 1);
}

uint64_t
metrics_requests(const struct metrics *m, unsigned action, enum metric_outcome outcome)
{
	unsigned cell = m->layout[METRIC_REQUESTS] + (action * OUTCOMES + outcome) * CLASSES;
	uint64_t sum = 0;

	assert(action <= METRICS_ACTIONS_MAX && outcome < OUTCOMES);
	for (unsigned i = 0; i < CLASSES; i++)
		sum += metrics_sum_integer(m, cell + i);
	return sum;
}

const char *
metrics_action_name(const struct metrics *m, unsigned action)
{
	return action < m->nactions ? m->actions[action] : "other";
}

unsigned
metrics_buckets(const struct metrics *m, enum metric_id id, const double **bounds,
    uint64_t counts[METRICS_BUCKETS_MAX])
{
	const struct metric_row *row = &metric_rows[id];

	assert(row->type == METRIC_HISTOGRAM && row->nbounds < METRICS_BUCKETS_MAX);
	*bounds = row->bounds;
	for (unsigned i = 0; i <= row->nbounds; i++)
		counts[i] = metrics_sum_integer(m, m->layout[id] + i);
	return row->nbounds;
}
