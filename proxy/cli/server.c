#include "cli/server_internal.h"

#include "admin/reserve.h"
#include "keytrail/clock.h"
#include "keytrail/mapguard.h"

#include <event2/event.h>

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define LOG_RETRY_US 50000
#define STOP_WAIT_MS 1000

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

/* ---- own events ---- */

static const struct timeval chronicle_retry = { 0, 100000 };

/* After a start that the trail could not take. */
static bool
follow_start(struct server *s)
{
	struct err err;

	if (!chronicle_wait(&s->chronicle, s->chronicle.last, 0))
		return false;
	s->start_waits = server_follow_start(s, 0, &err) == -1;
	if (s->start_waits)
		log_error(s->log, "start_waits", "%s", err.msg);
	return !s->start_waits;
}

/* After a change of holds whose event was not durable when it was answered. */
static bool
settle_holds(struct server *s)
{
	struct err err;

	if (s->takeover.given) /* there are none to settle, and the trail is not ours */
		return true;
	if (s->hold_lost) {
		s->hold_lost = false;
		server_record_holds(s);
	}
	return trail_holds_are_settled(s->trail) ||
	       (chronicle_wait(&s->chronicle, s->chronicle.last, 0) &&
		   trail_holds_settled(s->trail, &err) == 0);
}

static void
flush_chronicle(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;

	(void)fd;
	(void)what;
	if (!chronicle_flush(&s->chronicle) ||
	    !(s->start_waits ? follow_start(s) : settle_holds(s)))
		evtimer_add(&s->chronicle_retry, &chronicle_retry);
}

uint64_t
server_record(struct server *s, const struct chronicle_entry *e)
{
	uint64_t position = chronicle_record(&s->chronicle, e);

	if (position == 0)
		evtimer_add(&s->chronicle_retry, &chronicle_retry);
	return position;
}

bool
server_assure(struct server *s, const struct chronicle_entry *e, unsigned ms)
{
	bool assured = chronicle_assure(&s->chronicle, e, ms);

	evtimer_add(&s->chronicle_retry, &chronicle_retry);
	return assured;
}

/* ---- reload ---- */

/* who NULL: nobody asked, files were replaced. */
static void
record_reload(struct server *s, const struct signalfd_siginfo *who, bool ok, const char *changes,
    const char *restart)
{
	struct event_detail details[] = {
		{ "changes", EVENT_DETAIL_STRING, changes, 0 },
		{ "configDigest", EVENT_DETAIL_STRING, s->config->digest, 0 },
		{ "needsRestart", EVENT_DETAIL_STRING, restart, 0 },
		{ "signalPid", EVENT_DETAIL_NUMBER, NULL, who != NULL ? who->ssi_pid : 0 },
		{ "signalUid", EVENT_DETAIL_NUMBER, NULL, who != NULL ? who->ssi_uid : 0 },
	};
	size_t of_signal = 2;
	struct chronicle_entry e = { .action = "keytrail.reload",
		.severity = ok ? SEVERITY_NORMAL : SEVERITY_WARNING,
		.outcome = ok ? EVENT_SUCCESS : EVENT_FAILURE,
		.message = ok ? "keytrail: configuration reloaded"
			      : "keytrail: configuration not reloaded",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	if (who == NULL)
		e.ndetails -= of_signal;
	server_record(s, &e);
	metrics_add(s->shard, METRIC_RELOADS, ok, 1);
}

static void
add_name(char *list, size_t size, const char *name)
{
	size_t n = strlen(list);

	snprintf(list + n, size - n, "%s%s", n > 0 ? ", " : "", name);
}

/* HUP keeps longer only: what would remove more waits for a start, which records it.  Adds to the
 * names of what waits. */
static void
adopt_retention(struct server *s, const struct config_audit *a, char *restart, size_t n)
{
	struct trail_retention *r = &s->retention;
	const struct trail_retention next = { a->retention, a->max_size };
	bool shorter = trail_keeps_shorter(&next, r), smaller = trail_keeps_smaller(&next, r);
	struct err err;

	if (shorter)
		add_name(restart, n, "audit.retention");
	if (smaller)
		add_name(restart, n, "audit.max_size");
	r->age_s = shorter ? r->age_s : next.age_s;
	r->max_size = smaller ? r->max_size : next.max_size;
	journal_set_retention(s->journal, r->age_s, r->max_size);
	if (trail_save_retention(s->trail, r, &err) == -1)
		log_error(s->log, "retention_not_saved", "%s", err.msg);
}

/* Have every worker, and where the configuration is another the sinks, take what is read from its
 * files, or change nothing. */
static int
adopt(struct server *s, struct config *config, struct err *err)
{
	struct snapshot *snapshot = snapshot_new(config, s->snapshot, s->metrics, err);
	struct worker_reload *reload;

	if (snapshot == NULL)
		return -1;
	if ((reload = worker_reload_prepare(s->workers, s->nworkers, snapshot, err)) == NULL) {
		snapshot_unref(snapshot);
		return -1;
	}
	if (config != s->config && publisher_reload(s->publisher, config, err) == -1) {
		worker_reload_cancel(reload);
		snapshot_unref(snapshot);
		return -1;
	}
	worker_reload_commit(reload);
	snapshot_unref(s->snapshot);
	s->snapshot = snapshot;
	memset(s->files.tell_again, 0, sizeof(s->files.tell_again));
	s->files.failed = false;
	s->chronicle.observer = snapshot->observer;
	metrics_set(s->shard, METRIC_RELOAD_TIME, 0, (double)clock_wall_ns() / CLOCK_NS_PER_S);
	return 0;
}

void
server_reload_files(struct server *s)
{
	struct server_files *f = &s->files;
	uint64_t state = server_files_state(s->config);
	bool again = f->failed && state == f->loaded, ok;
	struct err err;

	f->loaded = state;
	if ((ok = adopt(s, s->config, &err) == 0)) {
		log_info(s->log, "reloaded", "changed: certificates");
	} else {
		again = again && strcmp(err.msg, f->why.msg) == 0;
		f->failed = true;
		f->tried = clock_mono_ns();
		f->why = err;
		if (again)
			return;
		log_error(s->log, "reload_failed", "%s; the running certificates stay", err.msg);
	}
	record_reload(s, NULL, ok, "certificates", "");
}

static void
add_change(char *changes, size_t size, const char *name)
{
	size_t n = strlen(changes);

	snprintf(changes + n, size - n, "%s%s", n == 0 ? "" : ", ", name);
}

static void
reload(struct server *s, const struct signalfd_siginfo *who)
{
	struct config *next;
	struct err err;
	char changes[256], restart[256] = "";
	uint64_t files;

	if (config_load(s->config->path, NULL, &next, &err) == -1) {
		log_error(s->log, "reload_failed", "%s; the running configuration stays", err.msg);
		record_reload(s, who, false, "", "");
		return;
	}
	/* Before they are read: what changes meanwhile is read again. */
	files = server_files_state(next);
	if (sandbox_check(&s->sandbox, next, &err) == -1 || adopt(s, next, &err) == -1) {
		log_error(s->log, "reload_failed", "%s; the running configuration stays", err.msg);
		config_unref(next);
		record_reload(s, who, false, "", "");
		return;
	}
	config_changes(s->config, next, changes, sizeof(changes));
	if (files != s->files.loaded)
		add_change(changes, sizeof(changes), "certificates");
	config_needs_restart(s->config, next, restart, sizeof(restart));
	adopt_retention(s, &next->audit, restart, sizeof(restart));
	if (!server_has_slots(s, next->limits.connections))
		add_name(restart, sizeof(restart), "limits.connections");
	if (restart[0] != '\0')
		log_warn(
		    s->log, "reload_needs_restart", "%s: takes effect at the next start", restart);
	log_set_level(s->log, next->log_level);
	config_unref(s->config);
	s->config = next;
	s->files.loaded = files;
	log_info(s->log, "reloaded", "changed: %s", changes[0] != '\0' ? changes : "nothing");
	record_reload(s, who, true, changes, restart);
}

/* What it is to be known to is the trail's, the sinks' and the admin listeners', which are given. */
static void
refuse_reload(struct server *s, const struct signalfd_siginfo *who)
{
	log_error(s->log, "reload_failed", "a successor takes over: signal that one");
	record_reload(s, who, false, "", "");
}

/* ---- signals ---- */

/* One a turn: HUPs without a pause keep no connection and no timer from theirs. */
static void
on_signal(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	struct signalfd_siginfo info;

	(void)what;
	if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGHUP:
		if (s->takeover.given)
			refuse_reload(s, &info);
		else
			reload(s, &info);
		break;
	case SIGUSR1:
		if (s->takeover.given)
			break;
		publisher_reopen(s->publisher);
		log_info(s->log, "reopened", "files of the sinks are reopened");
		break;
	default:
		s->stopping = true;
		event_base_loopbreak(s->base);
	}
}

/*
 * Blocked before the first thread is made, so that only the descriptor sees them.  As process 1 of a
 * container it is the parent of whoever has lost his own: ignored, such children leave no zombies.
 */
static int
open_signals(struct server *s, struct err *err)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGQUIT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if ((s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)) == -1)
		return err_set_errno(err, "signalfd");
	return 0;
}

/* ---- the loop ---- */

static void
on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
	struct chronicle_entry e = { .action = "keytrail.heartbeat",
		.severity = SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: recording" };
	struct server *s = arg;

	(void)fd;
	(void)what;
	if (!s->takeover.given)
		server_record(s, &e);
}

/* Its words are no lines of the own log; what they are about comes back as an error. */
static void
ignore_libevent(int severity, const char *words)
{
	(void)severity;
	(void)words;
}

static int
open_loop(struct server *s, struct err *err)
{
	struct event_config *cfg;

	event_set_log_callback(ignore_libevent);
	cfg = event_config_new();
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
	evtimer_assign(&s->chronicle_retry, s->base, flush_chronicle, s);
	evtimer_assign(&s->degrade_timer, s->base, server_on_degrade_timer, s);
	event_assign(&s->signal_event, s->base, s->signal_fd, EV_READ | EV_PERSIST, on_signal, s);
	event_assign(&s->heartbeat, s->base, -1, EV_PERSIST, on_heartbeat, s);
	if (event_add(&s->log_event, NULL) == -1 || event_add(&s->signal_event, NULL) == -1 ||
	    event_add(&s->heartbeat, &(struct timeval){ s->config->audit.heartbeat, 0 }) == -1)
		return err_set(err, "memory is short");
	return 0;
}

/* ---- stopping ---- */

static void
stop_workers(struct server *s)
{
	int64_t deadline = clock_mono_ns() + s->config->timeouts.drain * (int64_t)CLOCK_NS_PER_MS;

	/* Another process accepts from the same socket: that is not to be shut. */
	if (s->takeover.given || s->takeover.taken)
		listener_give(s->listener);
	/* Workers first: whoever sees the listener gone meets workers that know. */
	for (unsigned i = 0; i < s->nstarted; i++)
		worker_drain(s->workers[i], WORKER_STOPS, deadline);
	listener_stop(s->listener);
	for (unsigned i = 0; i < s->nstarted; i++)
		worker_join(s->workers[i]);
	listener_free(s->listener);
	s->listener = NULL;
}

static uint64_t
record_stop(struct server *s)
{
	struct chronicle_entry e = { .action = "keytrail.stop",
		.severity = SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: stopped" };

	return server_record(s, &e);
}

/* All that was accepted becomes durable, all that is durable is signed. */
static void
end_trail(struct server *s)
{
	struct err err;

	if (s->ledger != NULL)
		ledger_end(s->ledger);
	s->drained = s->journal == NULL || journal_stop(s->journal, &err) == 0;
	if (!s->drained)
		log_error(s->log, "stop_failed", "%s", err.msg);
	s->whole = (s->ledger == NULL || ledger_stop(s->ledger)) && s->drained;
}

/* The trail first, then the sinks get their bounded time. */
static void
stop(struct server *s)
{
	uint64_t undelivered;

	log_info(s->log, "stopping", "finishing what is in flight");
	stop_workers(s);
	if (s->takeover.failed) {
		if (s->publisher != NULL)
			publisher_stop(s->publisher, clock_mono_ns());
		return;
	}
	if (s->takeover.given) {
		server_leave(s);
		log_info(s->log, "stopped", "the successor goes on");
		return;
	}
	server_end_degrade(s, "stopped");
	admin_tell_refused(s->admin);
	/* Durable, so that the checkpoint that the sinks still get covers it. */
	chronicle_wait(&s->chronicle, record_stop(s), STOP_WAIT_MS);
	end_trail(s);
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
	if (s->nstarted > 0)
		stop_workers(s);
	end_trail(s);
	if (s->publisher != NULL)
		publisher_stop(s->publisher, clock_mono_ns());
}

static void
tear_down(struct server *s)
{
	server_close_given(s);
	admin_free(s->admin);
	handover_free(s->takeover.handover);
	listener_free(s->listener);
	for (unsigned i = 0; i < s->nworkers; i++)
		worker_free(s->workers[i]);
	journal_free(s->journal);
	publisher_free(s->publisher);
	for (unsigned i = 0; i <= s->nworkers; i++)
		ring_close(s->rings[i]);
	ledger_free(s->ledger);
	buf_fini(&s->old_note);
	if (s->trail != NULL)
		trail_close(s->trail, s->whole);
	snapshot_unref(s->snapshot);
	if (s->base != NULL) {
		event_del(&s->log_event);
		event_del(&s->log_retry);
		event_del(&s->chronicle_retry);
		event_del(&s->degrade_timer);
		if (event_initialized(&s->files.timer))
			event_del(&s->files.timer);
		if (event_initialized(&s->clock_timer))
			event_del(&s->clock_timer);
		if (event_initialized(&s->takeover.ended))
			event_del(&s->takeover.ended);
		if (event_initialized(&s->takeover.leave_timer))
			event_del(&s->takeover.leave_timer);
		event_del(&s->signal_event);
		event_del(&s->heartbeat);
		event_base_free(s->base);
	}
	if (s->signal_fd != -1)
		close(s->signal_fd);
	sandbox_fini(&s->sandbox);
	peers_free(s->peers);
	shapes_free(s->shapes);
	metrics_free(s->metrics);
	log_free(s->log);
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
prepare(struct server *s, struct err *err)
{
	raise_descriptor_limit();
	if ((s->log = log_new(STDERR_FILENO, s->config->log_level)) == NULL ||
	    (s->metrics = metrics_new()) == NULL ||
	    (s->shard = metrics_shard_new(s->metrics)) == NULL)
		return err_set(err, "memory is short");
	if ((s->peers = peers_new(err)) == NULL || (s->shapes = shapes_new(err)) == NULL ||
	    mapguard_install(err) == -1 || open_signals(s, err) == -1)
		return -1;
	return open_loop(s, err);
}

enum server_result
server_run(struct config *config, bool takeover, struct err *err)
{
	struct server *s = calloc(1, sizeof(*s));
	enum server_result rc;

	if (s == NULL) {
		err_set(err, "memory is short");
		return SERVER_FAILED;
	}
	reserve_install();
	s->config = config_ref(config);
	s->signal_fd = -1;
	s->started = clock_wall_ns();
	s->takeover.wanted = takeover;
	if (prepare(s, err) == -1) {
		rc = SERVER_FAILED;
	} else if ((rc = server_build(s, err)) == SERVER_STOPPED) {
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
