#include "cli/server.h"

#include "admin/admin.h"
#include "data/chronicle.h"
#include "data/conn.h"
#include "data/listener.h"
#include "data/snapshot.h"
#include "data/tls.h"
#include "data/worker.h"
#include "keytrail/clock.h"
#include "keytrail/journal.h"
#include "keytrail/log.h"
#include "keytrail/metrics.h"
#include "keytrail/publisher.h"
#include "keytrail/ring.h"
#include "keytrail/trail.h"

#include <event2/event.h>
#include <event2/event_struct.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define WORKERS_MAX  64
#define LOG_RETRY_US 50000
#define REFRESH_S    5
#define SELF_RING    (1024 * 1024)

struct server {
	struct config *config; /* the current one */
	struct snapshot *snapshot;
	struct log *log;
	struct metrics *metrics;
	struct metrics_shard *shard; /* main's */
	struct event_base *base;
	struct event log_event, log_retry, signal_event, refresh_event;
	int signal_fd;
	int64_t started; /* wall clock ns */
	struct trail *trail;
	struct trail_recovery recovery;
	struct ring *rings[WORKERS_MAX + 1]; /* the last one is main's */
	struct publisher *publisher;
	struct journal *journal;
	struct chronicle chronicle;
	unsigned nworkers, nstarted;
	struct worker *workers[WORKERS_MAX];
	atomic_uint open_connections;
	struct listener *listener;
	struct admin *admin;
	bool stopping;
	bool drained; /* everything that was accepted is durable */
};

/* ---- own log ---- */

static void
flush_log(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	struct timeval tv = { 0, LOG_RETRY_US };
	uint64_t n;

	(void)what;
	if (fd >= 0 && read(fd, &n, sizeof(n)) == -1)
		return;
	if (!log_flush(s->log))
		evtimer_add(&s->log_retry, &tv);
}

/* ---- what the admin listener asks ---- */

static const struct config *
current_config(void *arg)
{
	struct server *s = arg;

	return s->config;
}

static void
refresh(void *arg)
{
	struct server *s = arg;
	struct trail_stats st;
	char why[128];

	trail_stats(s->trail, &st);
	journal_health(s->journal, why, sizeof(why));
	metrics_set(s->shard, METRIC_TRAIL_BYTES, 0, (double)st.bytes);
	metrics_set(s->shard, METRIC_TRAIL_SEGMENTS, 0, (double)st.segments);
	metrics_set(s->shard, METRIC_TRAIL_FREE_BYTES, 0, (double)st.free_bytes);
	metrics_set(s->shard, METRIC_TRAIL_SEQUENCE, 0, (double)trail_durable_seq(s->trail));
	metrics_set(s->shard, METRIC_TRAIL_WRITABLE, 0, why[0] == '\0');
	metrics_set(s->shard, METRIC_LOG_SUPPRESSED, 0, (double)log_suppressed_total(s->log));
	metrics_set(s->shard, METRIC_LOG_DROPPED, 0, (double)log_dropped_total(s->log));
	publisher_set_gauges(s->publisher, s->shard);
	if (s->snapshot->server != NULL)
		metrics_set(s->shard, METRIC_CERTIFICATE_EXPIRY, 0,
		    (double)tls_not_after(s->snapshot->server));
}

static size_t
checks(void *arg, struct health_check *out, size_t max)
{
	struct server *s = arg;
	size_t n = 0;

	if (n < max) {
		out[n].name = "trail";
		journal_health(s->journal, out[n].detail, sizeof(out[n].detail));
		out[n].ok = out[n].detail[0] == '\0';
		n++;
	}
	if (n < max) {
		out[n].name = "listener";
		out[n].ok = s->listener != NULL && !s->stopping;
		snprintf(out[n].detail, sizeof(out[n].detail), "%s",
		    out[n].ok ? "" : "not accepting connections");
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
	    ",\"rejected\":%" PRIu64 ",\"filtered\":%" PRIu64 ",\"retries\":%" PRIu64
	    ",\"waiting\":%" PRIu64 ",\"oldestSeconds\":%.3f}",
	    st->name, st->type, st->up ? "true" : "false", (int)n, error, st->delivered,
	    st->rejected, st->filtered, st->retries, st->waiting, st->oldest_seconds);
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
	status_sinks(s, out);
}

/* ---- reload ---- */

static void
record_reload(struct server *s, const struct signalfd_siginfo *who, bool ok, const char *changes,
    const char *restart)
{
	struct event_detail details[] = {
		{ "changes", EVENT_DETAIL_STRING, changes, 0 },
		{ "configDigest", EVENT_DETAIL_STRING, s->config->digest, 0 },
		{ "needsRestart", EVENT_DETAIL_STRING, restart, 0 },
		{ "signalPid", EVENT_DETAIL_NUMBER, NULL, who->ssi_pid },
		{ "signalUid", EVENT_DETAIL_NUMBER, NULL, who->ssi_uid },
	};
	struct chronicle_entry e = { .action = "keytrail.reload",
		.severity = ok ? SEVERITY_NORMAL : SEVERITY_WARNING,
		.outcome = ok ? EVENT_SUCCESS : EVENT_FAILURE,
		.message = ok ? "keytrail: configuration reloaded"
			      : "keytrail: configuration not reloaded",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	chronicle_record(&s->chronicle, &e);
	metrics_add(s->shard, METRIC_RELOADS, ok, 1);
}

static void
adopt(struct server *s, struct config *config, struct snapshot *snapshot)
{
	struct err err;

	for (unsigned i = 0; i < s->nworkers; i++)
		worker_reload(s->workers[i], snapshot);
	listener_set_limit(s->listener, config->limits.connections);
	log_set_level(s->log, config->log_level);
	journal_set_retention(s->journal, config->audit.retention, config->audit.max_size);
	if (publisher_reload(s->publisher, config, &err) == -1)
		log_error(s->log, "reload_sinks_failed", "%s", err.msg);
	snapshot_unref(s->snapshot);
	config_unref(s->config);
	s->snapshot = snapshot;
	s->config = config;
	s->chronicle.observer = snapshot->observer;
	metrics_set(s->shard, METRIC_RELOAD_TIME, 0, (double)clock_wall_ns() / CLOCK_NS_PER_S);
}

static void
reload(struct server *s, const struct signalfd_siginfo *who)
{
	struct config *next;
	struct snapshot *snapshot;
	struct err err;
	char changes[256], restart[256] = "";

	if (config_load(s->config->path, NULL, &next, &err) == -1) {
		log_error(s->log, "reload_failed", "%s; the running configuration stays", err.msg);
		record_reload(s, who, false, "", "");
		return;
	}
	if ((snapshot = snapshot_new(next, s->snapshot, s->metrics, &err)) == NULL) {
		log_error(s->log, "reload_failed", "%s; the running configuration stays", err.msg);
		config_unref(next);
		record_reload(s, who, false, "", "");
		return;
	}
	config_changes(s->config, next, changes, sizeof(changes));
	if (config_needs_restart(s->config, next, restart, sizeof(restart)))
		log_warn(
		    s->log, "reload_needs_restart", "%s: takes effect at the next start", restart);
	adopt(s, next, snapshot);
	log_info(s->log, "reloaded", "changed: %s", changes[0] != '\0' ? changes : "nothing");
	record_reload(s, who, true, changes, restart);
}

/* ---- signals ---- */

static void
on_signal(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	struct signalfd_siginfo info;

	(void)what;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGHUP:
			reload(s, &info);
			break;
		case SIGUSR1:
			publisher_reopen(s->publisher);
			log_info(s->log, "reopened", "files of the sinks are reopened");
			break;
		default:
			s->stopping = true;
			event_base_loopbreak(s->base);
		}
	}
}

/* Blocked before the first thread is made, so that only the descriptor sees them. */
static int
open_signals(struct server *s, struct err *err)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if ((s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)) == -1)
		return err_set_errno(err, "signalfd");
	return 0;
}

/* ---- building ---- */

/* The CPUs of the cgroup's quota (cgroup v2, cpu.max: "<quota> <period>", or "max <period>"). */
static unsigned long
quota_cpus(void)
{
	unsigned long quota = 0, period = 0;
	char line[64], *rest;
	FILE *f;

	if ((f = fopen("/sys/fs/cgroup/cpu.max", "re")) == NULL)
		return ULONG_MAX;
	if (fgets(line, sizeof(line), f) != NULL) {
		quota = strtoul(line, &rest, 10);
		period = strtoul(rest, NULL, 10);
	}
	fclose(f);
	return quota > 0 && period > 0 ? (quota - 1) / period + 1 : ULONG_MAX;
}

/* The CPUs this process may use: affinity and quota. */
static unsigned
available_cpus(void)
{
	unsigned long quota = quota_cpus();
	cpu_set_t set;
	unsigned n = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = (unsigned)CPU_COUNT(&set);
	if (quota < n)
		n = (unsigned)quota;
	return n < 1 ? 1 : n;
}

static void
raise_descriptor_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int
open_loop(struct server *s, struct err *err)
{
	struct event_config *cfg = event_config_new();

	if (cfg != NULL) {
		event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
		s->base = event_base_new_with_config(cfg);
		event_config_free(cfg);
	}
	if (s->base == NULL)
		return err_set(err, "cannot make an event loop");
	event_assign(
	    &s->log_event, s->base, log_wakeup_fd(s->log), EV_READ | EV_PERSIST, flush_log, s);
	evtimer_assign(&s->log_retry, s->base, flush_log, s);
	event_assign(&s->signal_event, s->base, s->signal_fd, EV_READ | EV_PERSIST, on_signal, s);
	event_add(&s->log_event, NULL);
	event_add(&s->signal_event, NULL);
	return 0;
}

static int
open_trail(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	struct trail_opts opts = { .dir = a->trail,
		.create = a->create,
		.segment_size = a->segment_size,
		.room = a->ring_size * s->nworkers + SELF_RING,
		.group = a->group };
	char name[32];

	if (trail_open(&opts, &s->trail, &s->recovery, err) == -1)
		return -1;
	snapshot_set_log(s->snapshot, trail_log_id(s->trail));
	for (unsigned i = 0; i <= s->nworkers; i++) {
		bool mine = i == s->nworkers;

		snprintf(name, sizeof(name), mine ? "ring.main" : "ring.%u", i);
		if (ring_open(trail_dirfd(s->trail), name, mine ? SELF_RING : a->ring_size,
			&s->rings[i], err) == -1)
			return -1;
	}
	return 0;
}

static uint64_t
keep_seq(void *arg)
{
	struct server *s = arg;

	return publisher_keep_seq(s->publisher);
}

static void
on_durable(void *arg, uint64_t seq)
{
	struct server *s = arg;

	publisher_wake(s->publisher, seq);
}

static void
on_corrupt(void *arg, uint64_t first, uint64_t last)
{
	struct server *s = arg;

	journal_report_corrupt(s->journal, first, last);
}

static int
open_journal(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	struct publisher_opts popts = { .config = s->config,
		.dirfd = trail_dirfd(s->trail),
		.metrics = s->metrics,
		.log = s->log,
		.corrupt = on_corrupt,
		.corrupt_arg = s };
	struct journal_opts jopts = { .trail = s->trail,
		.log = s->log,
		.metrics = metrics_shard_new(s->metrics),
		.flush_interval_ms = a->flush_interval,
		.spacing_min_us = a->spacing_min_us,
		.spacing_max_us = a->spacing_max_us,
		.retention_s = a->retention,
		.max_size = a->max_size,
		.keep_seq = keep_seq,
		.keep_arg = s,
		.durable = on_durable,
		.durable_arg = s,
		.recovery = &s->recovery };

	if (jopts.metrics == NULL)
		return err_set(err, "memory is short");
	if ((s->journal = journal_new(&jopts, err)) == NULL ||
	    publisher_start(&popts, &s->publisher, err) == -1 ||
	    journal_add_ring(s->journal, s->rings[s->nworkers], NULL, NULL, err) == -1)
		return -1;
	s->chronicle = (struct chronicle){ .ring = s->rings[s->nworkers],
		.journal = s->journal,
		.metrics = s->shard,
		.observer = s->snapshot->observer };
	return 0;
}

static int
make_workers(struct server *s, struct err *err)
{
	for (unsigned i = 0; i < s->nworkers; i++) {
		struct worker_opts opts = { .index = i,
			.hooks = &conn_hooks,
			.snapshot = s->snapshot,
			.log = s->log,
			.metrics = metrics_shard_new(s->metrics),
			.ring = s->rings[i],
			.journal = s->journal,
			.open_connections = &s->open_connections };

		if (opts.metrics == NULL)
			return err_set(err, "memory is short");
		if ((s->workers[i] = worker_new(&opts, err)) == NULL)
			return -1;
	}
	return 0;
}

static int
open_listeners(struct server *s, struct err *err)
{
	struct listener_opts lopts = { .base = s->base,
		.address = &s->config->listen.address,
		.workers = s->workers,
		.nworkers = s->nworkers,
		.open_connections = &s->open_connections,
		.limit = s->config->limits.connections,
		.metrics = s->shard,
		.log = s->log };
	struct admin_opts aopts = { .base = s->base,
		.metrics = s->metrics,
		.log = s->log,
		.config = current_config,
		.refresh = refresh,
		.checks = checks,
		.status = status,
		.arg = s };

	if ((s->listener = listener_new(&lopts, err)) == NULL)
		return -1;
	return admin_start(&aopts, &s->admin, err);
}

static void
record_start(struct server *s)
{
	const struct trail_recovery *r = &s->recovery;
	struct event_detail details[] = {
		{ "clean", EVENT_DETAIL_BOOL, NULL, r->clean },
		{ "configDigest", EVENT_DETAIL_STRING, s->config->digest, 0 },
		{ "newLog", EVENT_DETAIL_BOOL, NULL, r->new_log },
		{ "previousBoot", EVENT_DETAIL_STRING, r->previous_boot, 0 },
		{ "version", EVENT_DETAIL_STRING, KEYTRAIL_VERSION, 0 },
		{ "workers", EVENT_DETAIL_NUMBER, NULL, s->nworkers },
	};
	struct chronicle_entry e = { .action = "keytrail.start",
		.severity = r->new_log || !r->clean ? SEVERITY_WARNING : SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: started",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	chronicle_record(&s->chronicle, &e);
}

static void
announce(struct server *s)
{
	char text[LISTENER_TEXT_SIZE];

	listener_text(listener_fd(s->listener), text);
	log_info(s->log, "listening", "listen %s", text);
	log_info(s->log, "started", "version %s, %u workers, trail %s", KEYTRAIL_VERSION,
	    s->nworkers, s->config->audit.trail);
}

static int
start(struct server *s, struct err *err)
{
	if (open_listeners(s, err) == -1 || journal_start(s->journal, err) == -1)
		return -1;
	record_start(s);
	for (; s->nstarted < s->nworkers; s->nstarted++)
		if (worker_start(s->workers[s->nstarted], err) == -1)
			return -1;
	announce(s);
	return 0;
}

/* Which part failed decides whether the configuration is to blame. */
static void
set_build_info(struct metrics *m)
{
	char parser[32];

	snprintf(parser, sizeof(parser), "llhttp %d.%d.%d", LLHTTP_VERSION_MAJOR,
	    LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
	metrics_build_info(m, KEYTRAIL_VERSION, OpenSSL_version(OPENSSL_VERSION), parser);
}

static enum server_result
build(struct server *s, struct err *err)
{
	if ((s->log = log_new(STDERR_FILENO, s->config->log_level)) == NULL ||
	    (s->metrics = metrics_new()) == NULL ||
	    (s->shard = metrics_shard_new(s->metrics)) == NULL) {
		err_set(err, "memory is short");
		return SERVER_FAILED;
	}
	s->nworkers = s->config->workers != 0 ? s->config->workers : available_cpus();
	if (s->nworkers > WORKERS_MAX)
		s->nworkers = WORKERS_MAX;
	if ((s->snapshot = snapshot_new(s->config, NULL, s->metrics, err)) == NULL)
		return SERVER_MISCONFIGURED;
	if (open_signals(s, err) == -1 || open_loop(s, err) == -1 || open_trail(s, err) == -1 ||
	    open_journal(s, err) == -1 || make_workers(s, err) == -1 || start(s, err) == -1)
		return SERVER_FAILED;
	set_build_info(s->metrics);
	metrics_set(s->shard, METRIC_START_TIME, 0, (double)s->started / CLOCK_NS_PER_S);
	metrics_set(s->shard, METRIC_RELOAD_TIME, 0, (double)s->started / CLOCK_NS_PER_S);
	return SERVER_STOPPED;
}

/* ---- stopping ---- */

static void
stop_workers(struct server *s)
{
	int64_t deadline = clock_mono_ns() + s->config->timeouts.drain * (int64_t)CLOCK_NS_PER_MS;

	/* Workers first: whoever sees the listener gone meets workers that know. */
	for (unsigned i = 0; i < s->nstarted; i++)
		worker_drain(s->workers[i], deadline);
	listener_free(s->listener);
	s->listener = NULL;
	for (unsigned i = 0; i < s->nstarted; i++)
		worker_join(s->workers[i]);
}

static void
record_stop(struct server *s)
{
	struct chronicle_entry e = { .action = "keytrail.stop",
		.severity = SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: stopped" };

	chronicle_record(&s->chronicle, &e);
}

/* What was accepted becomes durable first, then the sinks get their bounded time. */
static void
stop(struct server *s)
{
	struct err err;
	uint64_t undelivered;

	log_info(s->log, "stopping", "finishing what is in flight");
	stop_workers(s);
	record_stop(s);
	s->drained = journal_stop(s->journal, &err) == 0;
	if (!s->drained)
		log_error(s->log, "stop_failed", "%s", err.msg);
	undelivered = publisher_stop(
	    s->publisher, clock_mono_ns() + s->config->timeouts.drain * (int64_t)CLOCK_NS_PER_MS);
	if (undelivered > 0)
		log_warn(s->log, "undelivered",
		    "%" PRIu64 " events are undelivered; they stay in %s", undelivered,
		    s->config->audit.trail);
	log_info(s->log, "stopped", "last durable event %" PRIu64, trail_durable_seq(s->trail));
}

/* A start that failed half way: end the threads that there are. */
static void
abandon(struct server *s)
{
	struct err err;

	if (s->nstarted > 0)
		stop_workers(s);
	s->drained = s->journal == NULL || journal_stop(s->journal, &err) == 0;
	if (!s->drained)
		log_error(s->log, "stop_failed", "%s", err.msg);
	if (s->publisher != NULL)
		publisher_stop(s->publisher, clock_mono_ns());
}

static void
tear_down(struct server *s)
{
	admin_free(s->admin);
	listener_free(s->listener);
	for (unsigned i = 0; i < s->nworkers; i++)
		worker_free(s->workers[i]);
	journal_free(s->journal);
	publisher_free(s->publisher);
	for (unsigned i = 0; i <= s->nworkers; i++)
		ring_close(s->rings[i]);
	if (s->trail != NULL)
		trail_close(s->trail, s->drained);
	snapshot_unref(s->snapshot);
	if (s->base != NULL) {
		event_del(&s->log_event);
		event_del(&s->log_retry);
		event_del(&s->signal_event);
		event_base_free(s->base);
	}
	if (s->signal_fd != -1)
		close(s->signal_fd);
	metrics_free(s->metrics);
	log_free(s->log);
}

enum server_result
server_run(struct config *config, struct err *err)
{
	struct server *s = calloc(1, sizeof(*s));
	enum server_result rc;

	if (s == NULL) {
		err_set(err, "memory is short");
		return SERVER_FAILED;
	}
	s->config = config_ref(config);
	s->signal_fd = -1;
	s->started = clock_wall_ns();
	raise_descriptor_limit();
	if ((rc = build(s, err)) == SERVER_STOPPED) {
		event_base_dispatch(s->base);
		stop(s);
		if (!s->drained) {
			err_set(err, "not everything became durable");
			rc = SERVER_FAILED;
		}
	} else {
		abandon(s);
	}
	tear_down(s);
	config_unref(s->config);
	free(s);
	return rc;
}
