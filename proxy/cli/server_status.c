#include "cli/server_internal.h"

#include "keytrail/clock.h"
#include "keytrail/event.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* JSON, or null. */
static void
status_degrade(struct server *s, struct buf *out)
{
	char until[CLOCK_EVENT_TIME_SIZE], reason[6 * sizeof(s->degrade.reason)];
	long n = event_json_string(slice_of(s->degrade.reason), reason, sizeof(reason));

	if (!degrade_begun(&s->degrade)) {
		buf_printf(out, "\"degraded\":null,");
		return;
	}
	clock_event_time(s->degraded_until, until);
	buf_printf(out, "\"degraded\":{\"reason\":%.*s,\"until\":\"%s\"},", (int)n, reason, until);
}

/* null: the file is damaged. */
static void
status_holds(struct server *s, struct buf *out)
{
	const struct trail_holds *holds = trail_holds(s->trail);

	if (holds->damage.msg[0] != '\0') {
		buf_printf(out, "\"holds\":null,");
		return;
	}
	buf_printf(out, "\"holds\":[");
	for (size_t i = 0; i < holds->n; i++)
		buf_printf(out, "%s{\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"name\":\"%s\"}",
		    i > 0 ? "," : "", holds->holds[i].first, holds->holds[i].last,
		    holds->holds[i].name);
	buf_printf(out, "],");
}

static const struct config *
current_config(void *arg)
{
	struct server *s = arg;

	return s->config;
}

/* Files that are named no longer are left out. */
static void
set_expiries(struct server *s)
{
	struct tls_validity all[SERVER_VALIDITIES_MAX];
	size_t n = server_validity(s, all);
	double ends[METRICS_FILES_MAX + 1];

	for (unsigned i = 0; i <= METRICS_FILES_MAX; i++)
		ends[i] = (double)NAN;
	for (size_t i = 0; i < n; i++) {
		unsigned file = metrics_file(s->metrics, all[i].path);

		/* One file may have several uses. */
		if (all[i].until != INT64_MAX && !(ends[file] <= (double)all[i].until))
			ends[file] = (double)all[i].until;
	}
	for (unsigned i = 0; i <= METRICS_FILES_MAX; i++)
		metrics_set(s->shard, METRIC_CERTIFICATE_EXPIRY, i, ends[i]);
}

static void
refresh(void *arg)
{
	struct server *s = arg;
	struct trail_stats st;
	char why[128], unsigned_[128] = "audit.sign is null";
	int64_t left = degrade_left_ns(&s->degrade, clock_mono_ns());

	trail_stats(s->trail, &st);
	journal_health(s->journal, why, sizeof(why));
	metrics_set(s->shard, METRIC_TRAIL_BYTES, 0, (double)st.bytes);
	metrics_set(s->shard, METRIC_TRAIL_SEGMENTS, 0, (double)st.segments);
	metrics_set(s->shard, METRIC_TRAIL_FREE_BYTES, 0, (double)st.free_bytes);
	metrics_set(s->shard, METRIC_TRAIL_SEQUENCE, 0, (double)trail_durable_seq(s->trail));
	metrics_set(s->shard, METRIC_TRAIL_SIGNED, 0,
	    s->ledger != NULL ? (double)ledger_covered(s->ledger) : 0);
	if (s->ledger != NULL)
		ledger_refusal(s->ledger, unsigned_, sizeof(unsigned_));
	metrics_set(s->shard, METRIC_TRAIL_SIGNING, 0, unsigned_[0] == '\0');
	metrics_set(s->shard, METRIC_TRAIL_WRITABLE, 0, why[0] == '\0');
	metrics_set(s->shard, METRIC_LOG_SUPPRESSED, 0, (double)log_suppressed_total(s->log));
	metrics_set(s->shard, METRIC_LOG_DROPPED, 0, (double)log_dropped_total(s->log));
	metrics_set(s->shard, METRIC_DEGRADED, 0, left > 0);
	metrics_set(s->shard, METRIC_DEGRADED_REMAINING, 0, (double)left / CLOCK_NS_PER_S);
	publisher_set_gauges(s->publisher);
	set_expiries(s);
}

/* Whether the trail is signed, by which key, or why it is not. */
static void
describe_signing(struct server *s, char *out, size_t n)
{
	if (s->ledger == NULL) {
		snprintf(out, n, "audit.sign is null: nothing is signed");
		return;
	}
	ledger_refusal(s->ledger, out, n);
	if (out[0] == '\0')
		ledger_key_name(s->ledger, out, n);
}

/* What is degraded is to be used: a trail that takes nothing does not make it unready then. */
static void
check_trail(struct server *s, struct health_check *out)
{
	char why[128], until[CLOCK_EVENT_TIME_SIZE];

	out->name = "trail";
	journal_health(s->journal, why, sizeof(why));
	out->ok = why[0] == '\0' || degrade_begun(&s->degrade);
	snprintf(out->detail, sizeof(out->detail), "%s", why);
	if (!degrade_begun(&s->degrade))
		return;
	clock_event_time(s->degraded_until, until);
	snprintf(out->detail, sizeof(out->detail), "degraded until %s: %s", until,
	    why[0] != '\0' ? why : "the trail takes events");
}

/* The first one to end soon is told, but no reason to be unready. */
static void
check_certificates(struct server *s, struct health_check *out)
{
	struct tls_validity all[SERVER_VALIDITIES_MAX], *first = NULL;
	size_t n = server_validity(s, all);
	char until[TLS_TIME_SIZE];

	*out = (struct health_check){ .name = "certificates", .ok = true };
	for (size_t i = 0; i < n; i++)
		if (server_ends_soon(&all[i]) && (first == NULL || all[i].end < first->end))
			first = &all[i];
	if (first == NULL)
		return;
	tls_time_text(first->end, until);
	snprintf(out->detail, sizeof(out->detail), "valid until %s: %s", until, first->path);
}

static size_t
checks(void *arg, struct health_check *out, size_t max)
{
	struct server *s = arg;
	size_t n = 0;

	if (n < max)
		check_trail(s, &out[n++]);
	if (n < max) {
		out[n].name = "listener";
		out[n].ok = s->listener != NULL && !s->stopping;
		snprintf(out[n].detail, sizeof(out[n].detail), "%s",
		    out[n].ok ? "" : "not accepting connections");
		n++;
	}
	if (n < max)
		check_certificates(s, &out[n++]);
	if (n < max) {
		out[n].name = "signing";
		out[n].ok = true; /* the trail comes before its proof */
		describe_signing(s, out[n].detail, sizeof(out[n].detail));
		n++;
	}
	return n;
}

static void
status_sink(const struct publisher_sink_status *st, struct buf *out)
{
	char error[6 * sizeof(st->last_error)];
	long n = event_json_string(slice_of(st->last_error), error, sizeof(error));

	buf_printf(out,
	    "{\"name\":\"%s\",\"type\":\"%s\",\"up\":%s,\"lastError\":%.*s,\"delivered\":%" PRIu64
	    ",\"rejected\":%" PRIu64 ",\"filtered\":%" PRIu64 ",\"missing\":%" PRIu64
	    ",\"retries\":%" PRIu64 ",\"waiting\":%" PRIu64 ",\"oldestSeconds\":%.3f}",
	    st->name, st->type, st->up ? "true" : "false", (int)n, error, st->counts.delivered,
	    st->counts.rejected, st->counts.filtered, st->counts.missing, st->counts.retries,
	    st->waiting, st->oldest_seconds);
}

static void
status_sinks(struct server *s, struct buf *out)
{
	struct publisher_sink_status st[METRICS_SINKS_MAX];
	size_t n = publisher_status(s->publisher, st, METRICS_SINKS_MAX);

	buf_printf(out, "\"sinks\":[");
	for (size_t i = 0; i < n && i < METRICS_SINKS_MAX; i++) {
		if (i > 0)
			buf_printf(out, ",");
		status_sink(&st[i], out);
	}
	buf_printf(out, "]");
}

static void
status_signing(struct server *s, struct buf *out)
{
	char text[256], json[6 * sizeof(text)];
	long n;

	describe_signing(s, text, sizeof(text));
	n = event_json_string(slice_of(text), json, sizeof(json));
	buf_printf(out, "\"signing\":{\"on\":%s,\"detail\":%.*s,\"covered\":%" PRIu64 "},",
	    s->ledger != NULL ? "true" : "false", (int)n, json,
	    s->ledger != NULL ? ledger_covered(s->ledger) : 0);
}

/* Members of the status object; every string is a fixed word, hex, or checked by config. */
static void
status(void *arg, struct buf *out)
{
	struct server *s = arg;
	struct trail_stats st;
	char listen[LISTENER_TEXT_SIZE] = "";

	trail_stats(s->trail, &st);
	if (s->listener != NULL)
		listener_text(listener_fd(s->listener), listen);
	buf_printf(out,
	    "\"version\":\"" KEYTRAIL_VERSION "\",\"uptimeSeconds\":%" PRId64
	    ",\"configDigest\":\"%s\",\"listen\":\"%s\",\"workers\":%u,\"connections\":%u,",
	    (int64_t)((clock_wall_ns() - s->started) / CLOCK_NS_PER_S), s->config->digest, listen,
	    s->nworkers, atomic_load_explicit(&s->open_connections, memory_order_relaxed));
	buf_printf(out,
	    "\"trail\":{\"log\":\"%s\",\"boot\":\"%s\",\"durable\":%" PRIu64 ",\"bytes\":%" PRIu64
	    ",\"segments\":%" PRIu64 ",\"freeBytes\":%" PRIu64 "},",
	    trail_log_id(s->trail), trail_boot_id(s->trail), trail_durable_seq(s->trail), st.bytes,
	    st.segments, st.free_bytes);
	status_signing(s, out);
	status_degrade(s, out);
	status_holds(s, out);
	status_sinks(s, out);
}

static void
record_refused(struct server *s, const struct admin_access *a)
{
	const struct event_detail details[] = {
		{ "address", EVENT_DETAIL_STRING, a->address, 0 },
		{ "count", EVENT_DETAIL_NUMBER, NULL, a->refused },
		{ "reason", EVENT_DETAIL_STRING, a->reason, 0 },
	};
	struct chronicle_entry e = { .action = "keytrail.access",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_FAILURE,
		.message = "keytrail: requests of the admin listener were refused",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	server_record(s, &e);
}

static void
record_query(struct server *s, const struct admin_access *a)
{
	const struct event_detail details[] = {
		{ "address", EVENT_DETAIL_STRING, a->address, 0 },
		{ "filter", EVENT_DETAIL_STRING, a->filter, 0 },
		{ "page", EVENT_DETAIL_STRING, a->page, 0 },
		{ "role", EVENT_DETAIL_STRING, a->role, 0 },
		{ "token", EVENT_DETAIL_STRING, a->token, 0 },
	};
	struct chronicle_entry e = { .action = "keytrail.access",
		.severity = SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: the trail was queried",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	server_record(s, &e);
}

static void
record_access(void *arg, const struct admin_access *a)
{
	if (a->refused > 0)
		record_refused(arg, a);
	else
		record_query(arg, a);
}

const struct admin_opts server_admin = {
	.config = current_config,
	.refresh = refresh,
	.checks = checks,
	.status = status,
	.access = record_access,
	.operate = server_operate,
};
