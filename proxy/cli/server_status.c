#include "cli/server_internal.h"

#include "admin/answer.h"
#include "admin/health.h"
#include "keytrail/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

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
	struct tlsfile_validity all[SERVER_VALIDITIES_MAX];
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
	metrics_set(s->shard, METRIC_UNMATCHED_SHAPES, 0, shapes_known(s->shapes));
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

/* "valid until <time>: <file>" of the first to end soon, or nothing. */
static void
describe_certificates(struct server *s, char *out, size_t n)
{
	struct tlsfile_validity all[SERVER_VALIDITIES_MAX], *first = NULL;
	size_t nall = server_validity(s, all);
	char until[TLSFILE_TIME_SIZE];

	out[0] = '\0';
	for (size_t i = 0; i < nall; i++)
		if (server_ends_soon(&all[i]) && (first == NULL || all[i].end < first->end))
			first = &all[i];
	if (first == NULL)
		return;
	tlsfile_time_text(first->end, until);
	snprintf(out, n, "valid until %s: %s", until, first->path);
}

/* Who is down, and why; that makes it unready only where one of them is required. */
static void
check_sinks(struct server *s, struct health_check *out)
{
	struct publisher_sink_status st[METRICS_SINKS_MAX];
	size_t all = publisher_status(s->publisher, st, METRICS_SINKS_MAX);

	*out = (struct health_check){ .name = "sinks", .ok = true };
	for (size_t i = 0; i < all && i < METRICS_SINKS_MAX; i++) {
		size_t n = strlen(out->detail);

		if (st[i].up)
			continue;
		out->ok = out->ok && !st[i].required;
		snprintf(out->detail + n, sizeof(out->detail) - n, "%s%s%s: %s", n > 0 ? "; " : "",
		    st[i].name, st[i].required ? " (required)" : "", st[i].last_error);
	}
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
	if (n < max) {
		out[n].name = "certificates";
		out[n].ok = true; /* no reason to be unready */
		describe_certificates(s, out[n].detail, sizeof(out[n].detail));
		n++;
	}
	if (n < max)
		check_sinks(s, &out[n++]);
	if (n < max) {
		out[n].name = "signing";
		out[n].ok = true; /* the trail comes before its proof */
		describe_signing(s, out[n].detail, sizeof(out[n].detail));
		n++;
	}
	return n;
}

/* ---- /status ---- */

/* JSON, or null. */
static int
put_degrade(struct server *s, struct buf *out)
{
	char until[CLOCK_EVENT_TIME_SIZE];

	if (!degrade_begun(&s->degrade))
		return buf_printf(out, "\"degraded\":null,");
	clock_event_time(s->degraded_until, until);
	return buf_printf(out, "\"degraded\":{\"reason\":") == -1 ||
		       answer_put_string(slice_of(s->degrade.reason), out) == -1
		   ? -1
		   : buf_printf(out, ",\"until\":\"%s\"},", until);
}

/* null: the file is damaged. */
static int
put_holds(struct server *s, struct buf *out)
{
	const struct trail_holds *holds = trail_holds(s->trail);

	if (holds->damage.msg[0] != '\0')
		return buf_printf(out, "\"holds\":null,");
	if (buf_printf(out, "\"holds\":[") == -1)
		return -1;
	for (size_t i = 0; i < holds->n; i++)
		if (buf_printf(out,
			"%s{\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"name\":\"%s\"}",
			i > 0 ? "," : "", holds->holds[i].first, holds->holds[i].last,
			holds->holds[i].name) == -1)
			return -1;
	return buf_printf(out, "],");
}

static int
put_sink(const struct publisher_sink_status *st, struct buf *out)
{
	if (buf_printf(out, "{\"name\":\"%s\",\"type\":\"%s\",\"up\":%s,\"lastError\":", st->name,
		st->type, st->up ? "true" : "false") == -1 ||
	    answer_put_string(slice_of(st->last_error), out) == -1)
		return -1;
	if (buf_printf(out, ",\"required\":%s,\"figures\":{", st->required ? "true" : "false") ==
	    -1)
		return -1;
	for (size_t i = 0; i < st->nfigures; i++)
		if (buf_printf(out, "%s\"%s\":%.15g", i > 0 ? "," : "", st->figures[i].name,
			st->figures[i].value) == -1)
			return -1;
	return buf_printf(out,
	    "},\"delivered\":%" PRIu64 ",\"rejected\":%" PRIu64 ",\"filtered\":%" PRIu64
	    ",\"missing\":%" PRIu64 ",\"retries\":%" PRIu64 ",\"waiting\":%" PRIu64
	    ",\"position\":%" PRIu64 ",\"oldestSeconds\":%.3f}",
	    st->counts.delivered, st->counts.rejected, st->counts.filtered, st->counts.missing,
	    st->counts.retries, st->waiting, st->position, st->oldest_seconds);
}

static int
put_sinks(const struct publisher_sink_status *st, size_t n, struct buf *out)
{
	if (buf_printf(out, "\"sinks\":[") == -1)
		return -1;
	for (size_t i = 0; i < n; i++)
		if ((i > 0 && buf_append(out, ",", 1) == -1) || put_sink(&st[i], out) == -1)
			return -1;
	return buf_printf(out, "],");
}

static int
put_signing(struct server *s, struct buf *out)
{
	char text[256];

	describe_signing(s, text, sizeof(text));
	return buf_printf(out,
		   "\"signing\":{\"on\":%s,\"detail\":", s->ledger != NULL ? "true" : "false") ==
			   -1 ||
		       answer_put_string(slice_of(text), out) == -1
		   ? -1
		   : buf_printf(out, ",\"covered\":%" PRIu64 "},",
			 s->ledger != NULL ? ledger_covered(s->ledger) : 0);
}

/* notAfter null: it has no end. */
static int
put_certificates(struct server *s, struct buf *out)
{
	struct tlsfile_validity all[SERVER_VALIDITIES_MAX];
	size_t n = server_validity(s, all);
	char end[24];

	if (buf_printf(out, "\"certificates\":[") == -1)
		return -1;
	for (size_t i = 0; i < n; i++) {
		snprintf(end, sizeof(end), "%" PRId64, all[i].until);
		if (buf_printf(out, "%s{\"file\":", i > 0 ? "," : "") == -1 ||
		    answer_put_string(slice_of(all[i].path), out) == -1 ||
		    buf_printf(out, ",\"notAfter\":%s,\"endsSoon\":%s}",
			all[i].until == INT64_MAX ? "null" : end,
			server_ends_soon(&all[i]) ? "true" : "false") == -1)
			return -1;
	}
	return buf_printf(out, "],");
}

static int
put_process(struct server *s, double full_s, struct buf *out)
{
	char listen[LISTENER_TEXT_SIZE] = "", full[32];
	struct trail_stats st;

	trail_stats(s->trail, &st);
	snprintf(full, sizeof(full), "%.0f", full_s);
	if (s->listener != NULL)
		listener_text(listener_fd(s->listener), listen);
	return buf_printf(out,
	    "\"version\":\"" KEYTRAIL_VERSION "\",\"uptimeSeconds\":%" PRId64
	    ",\"configDigest\":\"%s\",\"listen\":\"%s\",\"workers\":%u,\"connections\":%u,"
	    "\"trail\":{\"log\":\"%s\",\"boot\":\"%s\",\"durable\":%" PRIu64 ",\"bytes\":%" PRIu64
	    ",\"segments\":%" PRIu64 ",\"freeBytes\":%" PRIu64 ",\"secondsToFull\":%s},",
	    (int64_t)((clock_wall_ns() - s->started) / CLOCK_NS_PER_S), s->config->digest, listen,
	    s->nworkers, atomic_load_explicit(&s->open_connections, memory_order_relaxed),
	    trail_log_id(s->trail), trail_boot_id(s->trail), trail_durable_seq(s->trail), st.bytes,
	    st.segments, st.free_bytes, isinf(full_s) ? "null" : full);
}

static double
lost(const struct server *s)
{
	double n = 0;

	for (unsigned i = 0; i < METRIC_LOSSES; i++)
		n += metrics_value(s->metrics, METRIC_EVENTS_LOST, i);
	return n;
}

static int
put_summary(struct server *s, double full_s, const struct publisher_sink_status *st, size_t n,
    struct buf *out)
{
	char why[128], until[CLOCK_EVENT_TIME_SIZE] = "", unsigned_[128] = "", ends[256];
	struct health_sink sinks[METRICS_SINKS_MAX];
	struct health_facts facts = { .accepting = s->listener != NULL && !s->stopping,
		.trail = why,
		.degraded = until,
		.lost = (uint64_t)lost(s),
		.unsigned_ = unsigned_,
		.holds = trail_holds(s->trail)->damage.msg,
		.certificate = ends,
		.full_s = full_s,
		.sinks = sinks,
		.nsinks = n };
	struct buf text = BUF_INIT;
	int rc;

	journal_health(s->journal, why, sizeof(why));
	if (degrade_begun(&s->degrade))
		clock_event_time(s->degraded_until, until);
	if (s->ledger != NULL)
		ledger_refusal(s->ledger, unsigned_, sizeof(unsigned_));
	describe_certificates(s, ends, sizeof(ends));
	for (size_t i = 0; i < n; i++)
		sinks[i] = (struct health_sink){ st[i].name, st[i].up ? "" : st[i].last_error,
			st[i].oldest_seconds };
	rc = health_summary(&facts, &text) == -1 || buf_printf(out, "\"summary\":") == -1
		 ? -1
		 : answer_put_string(buf_slice(&text), out);
	buf_fini(&text);
	return rc;
}

static int
put_sandbox(struct server *s, struct buf *out)
{
	return buf_printf(out, "\"sandbox\":") == -1 ||
		       sandbox_put(&s->sandbox, s->config, out) == -1
		   ? -1
		   : buf_append(out, ",", 1);
}

/* What is put without quoting is a fixed word, hex, or was checked by config. */
static int
status(void *arg, double full_s, struct buf *out)
{
	struct publisher_sink_status st[METRICS_SINKS_MAX];
	struct server *s = arg;
	size_t n = publisher_status(s->publisher, st, METRICS_SINKS_MAX);

	if (n > METRICS_SINKS_MAX)
		n = METRICS_SINKS_MAX;
	if (put_process(s, full_s, out) == -1 || put_signing(s, out) == -1 ||
	    put_degrade(s, out) == -1 || put_holds(s, out) == -1 || put_sinks(st, n, out) == -1 ||
	    put_certificates(s, out) == -1 || put_sandbox(s, out) == -1)
		return -1;
	return put_summary(s, full_s, st, n, out);
}

/* ---- keytrail.access ---- */

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
	.routes = server_put_routes,
	.access = record_access,
	.operate = server_operate,
};
