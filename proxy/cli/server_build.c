#include "cli/server_internal.h"

#include "data/conn.h"
#include "data/descriptors.h"
#include "keytrail/clock.h"
#include "keytrail/cpus.h"
#include "keytrail/fault.h"
#include "keytrail/thread.h"

#include <event2/event.h>

#include <fcntl.h>
#include <limits.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SELF_RING   (1024 * 1024) /* bytes of main's ring */
#define SLOTS_SPARE 64

/* One for each connection that a worker takes: twice its share of all that there may be, and some. */
static unsigned
slots_for(const struct server *s, unsigned limit)
{
	uint64_t share = 2 * ((uint64_t)limit / s->nworkers + 1) + SLOTS_SPARE;

	if (share > limit)
		share = limit;
	return share < RING_SLOTS_MAX - WORKER_SLOTS ? (unsigned)share
						     : RING_SLOTS_MAX - WORKER_SLOTS;
}

bool
server_has_slots(const struct server *s, unsigned connections)
{
	return slots_for(s, connections) + WORKER_SLOTS <= ring_slots(s->rings[0]);
}

static void
on_signed(void *arg, uint64_t size, struct slice note)
{
	struct server *s = arg;

	journal_report_checkpoint(s->journal, size, note);
}

static void
on_corrupt(void *arg, uint64_t first, uint64_t last)
{
	struct server *s = arg;

	if (s->journal != NULL) /* else the trail is being opened */
		journal_report_corrupt(s->journal, first, last);
}

static uint64_t
on_rejected(void *arg, const char *sink, uint64_t seq, const char *reason)
{
	struct server *s = arg;

	return journal_report_reject(s->journal, sink, seq, reason);
}

static bool
is_recorded(void *arg, uint64_t report)
{
	const struct server *s = arg;

	return journal_reject_is_durable(s->journal, report);
}

static int
blame_key(struct server *s, struct err *err)
{
	return err_prefix(
	    err, "%s: \"audit.sign\": %s", s->config->path, s->config->audit.sign.path);
}

static int
read_key(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	struct ledger_opts opts = { .dir = a->trail,
		.key = { (const char *)a->sign.bytes, a->sign.n },
		.log = s->log,
		.events = LEDGER_EVENTS,
		.interval_s = a->checkpoint_interval,
		.signed_ = on_signed,
		.corrupt = on_corrupt,
		.arg = s };

	if (a->sign.bytes == NULL || ledger_new(&opts, &s->ledger, err) == 0)
		return 0;
	return blame_key(s, err);
}

static enum server_result
read_checkpoint(struct server *s, struct err *err)
{
	switch (s->ledger == NULL ? 1 : ledger_look(s->ledger, err)) {
	case 1:
		return SERVER_STOPPED;
	case 0:
		blame_key(s, err);
		return SERVER_MISCONFIGURED;
	default:
		return SERVER_FAILED;
	}
}

/* The tree begins anew with the log; its last checkpoint is told of with the reason. */
static int
begin_ledger(struct server *s, const char *reason, struct err *err)
{
	s->renewal.reason = reason;
	log_error(s->log, "new_log", "%s: it goes on as a new log", reason);
	if (s->ledger == NULL)
		return 0;
	if (ledger_begin(s->ledger, s->trail, err) == -1)
		return -1;
	buf_consume(&s->old_note, buf_size(&s->old_note));
	if (buf_append_slice(&s->old_note, ledger_signed_note(s->ledger)) == -1)
		return err_set(err, "memory is short");
	s->renewal.note = buf_slice(&s->old_note);
	return 0;
}

/* The trail is not what was signed. */
static int
begin_log(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;

	if (s->takeover.lock != NULL)
		return err_set(
		    err, "%s: %s: only a start begins a new log", a->trail, s->findings.unfit);
	if (!a->create)
		return err_set(err, "%s: %s, and \"create\" is false: no new log is begun",
		    a->trail, s->findings.unfit);
	if (trail_renew(s->trail, err) == -1)
		return -1;
	return begin_ledger(s, s->findings.unfit, err);
}

/* Why trail_open, or a start that was killed, began this log; NULL: that is recorded. */
static const char *
untold_renewal(const struct server *s)
{
	if (s->recovery.state_lost)
		return "the file \"state\" was missing or damaged";
	return s->recovery.given_up[0] != '\0' ? "the log before it was not what was signed" : NULL;
}

/* What stands in the way of signing does not stand in the way of recording. */
static int
open_ledger(struct server *s, struct err *err)
{
	const char *untold = untold_renewal(s);
	struct err why;

	if (untold != NULL && begin_ledger(s, untold, err) == -1)
		return -1;
	if (s->ledger == NULL || (untold != NULL && ledger_signed_size(s->ledger) == 0))
		return 0;
	/* After a successor that was killed nobody vouches. */
	if (s->takeover.lock != NULL && s->recovery.clean)
		ledger_trust(s->ledger);
	if (ledger_open(s->ledger, s->trail, &s->recovery, &s->findings, &why) == -1)
		log_error(s->log, "not_signed", "%s", why.msg);
	return s->findings.unfit[0] != '\0' ? begin_log(s, err) : 0;
}

/* Those of a run that had more workers, and of one that was taken over from; recovery has emptied
 * them. */
static void
remove_other_rings(const struct server *s)
{
	char name[TRAIL_RING_NAME_SIZE];

	for (unsigned i = s->nworkers; i < CONFIG_WORKERS_MAX; i++) {
		trail_ring_name(i, CONFIG_WORKERS_MAX + 1, name);
		unlinkat(trail_dirfd(s->trail), name, 0);
	}
	for (unsigned i = 0; !s->takeover.taken && i <= CONFIG_WORKERS_MAX; i++) {
		trail_given_ring_name(i, name);
		unlinkat(trail_dirfd(s->trail), name, 0);
	}
}

static int
open_rings(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	char name[TRAIL_RING_NAME_SIZE];

	for (unsigned i = 0; i <= s->nworkers; i++) {
		bool mine = i == s->nworkers;
		struct ring_opts room = { .size = mine ? SELF_RING : a->ring_size,
			.slots = mine ? CHRONICLE_SLOTS
				      : WORKER_SLOTS + slots_for(s, s->config->limits.connections),
			.slot_size = EVENT_LINE_MAX };

		trail_durable_mark(s->trail, &room.segment, &room.offset);
		trail_ring_name(i, s->nworkers + 1, name);
		if (ring_open(trail_dirfd(s->trail), name, &room, &s->rings[i], err) == -1)
			return err_prefix(err, "%s", a->trail);
	}
	return trail_expect_rings(s->trail, s->nworkers + 1, err);
}

static int
open_trail(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	struct trail_opts opts = { .dir = a->trail,
		.create = a->create,
		.hashed = s->ledger != NULL,
		.segment_size = a->segment_size,
		.room = a->ring_size * s->nworkers + SELF_RING + s->takeover.room,
		.lock = s->takeover.lock,
		.signed_log = s->ledger != NULL ? ledger_signed_log(s->ledger) : NULL,
		.signed_size = s->ledger != NULL ? ledger_signed_size(s->ledger) : 0,
		.used = publisher_used,
		.group = a->group };

	if (trail_open(&opts, &s->trail, &s->recovery, err) == -1 || open_ledger(s, err) == -1)
		return -1;
	s->retention = (struct trail_retention){ a->retention, a->max_size };
	if (trail_holds(s->trail)->damage.msg[0] != '\0')
		log_error(s->log, "holds_damaged", "%s", trail_holds(s->trail)->damage.msg);
	return 0;
}

static uint64_t
keep_seq(void *arg)
{
	struct server *s = arg;
	uint64_t sinks = publisher_keep_seq(s->publisher);
	uint64_t unsigned_ = s->ledger != NULL ? ledger_keep_seq(s->ledger) : UINT64_MAX;

	return sinks < unsigned_ ? sinks : unsigned_;
}

static uint64_t
settled(void *arg, uint64_t first, uint64_t last)
{
	struct server *s = arg;

	return s->ledger != NULL ? ledger_settled(s->ledger, first, last) : last;
}

static uint64_t
covered(void *arg)
{
	struct server *s = arg;

	return s->ledger != NULL ? ledger_told_seq(s->ledger) : UINT64_MAX;
}

static void
on_removed(void *arg)
{
	struct server *s = arg;

	if (s->ledger != NULL)
		ledger_wake(s->ledger);
}

static void
on_durable(void *arg, uint64_t seq)
{
	struct server *s = arg;

	publisher_wake(s->publisher, seq);
}

static int
make_journal(struct server *s, struct journal_opts *opts, struct err *err)
{
	if ((opts->metrics = metrics_shard_new(s->metrics)) == NULL)
		return err_set(err, "memory is short");
	if ((s->journal = journal_new(opts, err)) == NULL ||
	    journal_add_ring(s->journal, s->rings[s->nworkers], NULL, NULL, err) == -1)
		return -1;
	chronicle_init(
	    &s->chronicle, s->snapshot->observer, s->rings[s->nworkers], s->journal, s->shard);
	return 0;
}

static int
open_journal(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	struct publisher_opts popts = { .config = s->config,
		.types = &s->sink_types,
		.dirfd = trail_dirfd(s->trail),
		.metrics = s->metrics,
		.shard = s->shard,
		.log = s->log,
		.corrupt = on_corrupt,
		.rejected = on_rejected,
		.recorded = is_recorded,
		.arg = s };
	struct journal_opts jopts = { .trail = s->trail,
		.log = s->log,
		.flush_interval_ms = a->flush_interval,
		.spacing_min_us = a->spacing_min_us,
		.spacing_max_us = a->spacing_max_us,
		.retention_s = a->retention,
		.max_size = a->max_size,
		.last_line_ns = s->last_line_ns,
		.keep_seq = keep_seq,
		.settled = settled,
		.covered = covered,
		.removed = on_removed,
		.keep_arg = s,
		.durable = on_durable,
		.durable_arg = s,
		.recovery = &s->recovery,
		.renewal = s->renewal.reason != NULL ? &s->renewal : NULL };

	if (s->journal != NULL)
		journal_resume(s->journal, &jopts);
	else if (make_journal(s, &jopts, err) == -1)
		return -1;
	/* Last: a sink may tell the journal of something at once. */
	return publisher_start(&popts, &s->publisher, err);
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
			.open_connections = &s->open_connections,
			.open_upstream = &s->open_upstream,
			.degrade = &s->degrade,
			.peers = s->peers,
			.shapes = s->shapes };

		if (opts.metrics == NULL)
			return err_set(err, "memory is short");
		if ((s->workers[i] = worker_new(&opts, err)) == NULL)
			return -1;
	}
	return 0;
}

static int
open_listener(struct server *s, struct err *err)
{
	struct listener_opts opts = { .address = &s->config->listen.address,
		.workers = s->workers,
		.nworkers = s->nworkers,
		.given = s->takeover.taken ? s->takeover.from.of[HANDOVER_LISTEN] : -1 };

	return (s->listener = listener_new(&opts, err)) != NULL ? 0 : -1;
}

/* given: as for admin_start. */
static int
open_admin(struct server *s, const int *given, struct err *err)
{
	struct admin_opts opts = server_admin;

	opts.base = s->base;
	opts.given = given;
	opts.metrics = s->metrics;
	opts.shard = s->shard;
	opts.log = s->log;
	opts.trail_dirfd = trail_dirfd(s->trail);
	opts.keep_free = trail_keep_free(s->trail);
	opts.corrupt = on_corrupt;
	opts.arg = s;
	return admin_start(&opts, &s->admin, err);
}

static void
announce(struct server *s)
{
	char text[LISTENER_TEXT_SIZE], off[SANDBOX_TEXT_SIZE];
	struct err err;

	listener_text(listener_fd(s->listener), text);
	log_info(s->log, "listening", "listen %s", text);
	sandbox_text(&s->sandbox, false, off);
	if (off[0] != '\0')
		log_warn(s->log, "sandbox", "not in force: %s", off);
	if (descriptors_check(s->config, s->nworkers, &err) == -1)
		log_warn(s->log, "descriptors", "%s", err.msg);
	log_info(s->log, "started", "version %s, %u workers, trail %s", KEYTRAIL_VERSION,
	    s->nworkers, s->config->audit.trail);
}

static int
start(struct server *s, struct err *err)
{
	const int *given = s->takeover.taken ? &s->takeover.from.of[HANDOVER_METRICS] : NULL;

	if (open_listener(s, err) == -1 || open_admin(s, given, err) == -1 ||
	    server_begin_trail(s, err) == -1 || server_watch_clock(s, err) == -1 ||
	    server_watch_files(s, err) == -1)
		return -1;
	server_await_successor(s);
	for (; s->nstarted < s->nworkers; s->nstarted++)
		if (worker_start(s->workers[s->nstarted], err) == -1)
			return -1;
	if (sandbox_enter(&s->sandbox, "main", err) == -1 || server_succeed(s, err) == -1)
		return -1;
	announce(s);
	return 0;
}

static void
set_build_info(struct metrics *m)
{
	char parser[32];

	snprintf(parser, sizeof(parser), "llhttp %d.%d.%d", LLHTTP_VERSION_MAJOR,
	    LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
	metrics_build_info(m, KEYTRAIL_VERSION, OpenSSL_version(OPENSSL_VERSION), parser);
}

unsigned
server_workers(const struct config *config)
{
	unsigned n = config->workers != 0 ? config->workers : cpus_available("");

	return n < CONFIG_WORKERS_MAX ? n : CONFIG_WORKERS_MAX;
}

/* Which part failed decides whether the configuration is to blame. */
enum server_result
server_build(struct server *s, struct err *err)
{
	enum server_result rc;

	if (sandbox_become_user(s->config, err) == -1)
		return SERVER_MISCONFIGURED;
	sink_types_init(&s->sink_types);
	if (sink_types_load(&s->sink_types, s->config, err) == -1)
		return SERVER_MISCONFIGURED;
	if (sandbox_look(&s->sandbox, s->config, err) == -1)
		return SERVER_FAILED;
	thread_install(sandbox_enter, &s->sandbox);
	s->nworkers = server_workers(s->config);
	s->files.loaded = server_files_state(s->config);
	if ((s->snapshot = snapshot_new(s->config, NULL, s->metrics, err)) == NULL ||
	    read_key(s, err) == -1)
		return SERVER_MISCONFIGURED;
	if (s->takeover.wanted && server_take_over(s, err) == -1)
		return SERVER_FAILED;
	if ((rc = read_checkpoint(s, err)) != SERVER_STOPPED)
		return rc;
	server_look_back(s);
	if (open_trail(s, err) == -1)
		return SERVER_FAILED;
	snapshot_set_log(s->snapshot, trail_log_id(s->trail));
	remove_other_rings(s);
	if (open_rings(s, err) == -1 || sandbox_confine(&s->sandbox, s->config, err) == -1 ||
	    open_journal(s, err) == -1 || make_workers(s, err) == -1 ||
	    server_adopt_rings(s, err) == -1 || start(s, err) == -1)
		return SERVER_FAILED;
	set_build_info(s->metrics);
	metrics_set(s->shard, METRIC_START_TIME, 0, (double)s->started / CLOCK_NS_PER_S);
	metrics_set(s->shard, METRIC_RELOAD_TIME, 0, (double)s->started / CLOCK_NS_PER_S);
	return SERVER_STOPPED;
}

/* What was made with the trail that was given; the rings and who writes into them stay. */
static void
close_trail(struct server *s)
{
	publisher_free(s->publisher);
	s->publisher = NULL;
	ledger_free(s->ledger);
	s->ledger = NULL;
	trail_close(s->trail, false);
	s->trail = NULL;
	s->findings = (struct ledger_findings){ .unfit = "" };
	s->start_followed = false;
}

/* Recovery leaves those alone that are given. */
static int
rename_rings(struct server *s, bool given, struct err *err)
{
	char name[TRAIL_RING_NAME_SIZE];

	for (unsigned i = 0; i <= s->nworkers; i++) {
		if (given)
			trail_given_ring_name(s->nworkers - i, name);
		else
			trail_ring_name(i, s->nworkers + 1, name);
		if (ring_rename(s->rings[i], trail_dirfd(s->trail), name, err) == -1)
			return err_prefix(err, "%s", s->config->audit.trail);
	}
	return 0;
}

int
server_give_rings(struct server *s, struct err *err)
{
	return rename_rings(s, true, err);
}

/* What the successor left in rings of its own is recovered as after any kill. */
static int
reopen(struct server *s, struct err *err)
{
	if (read_key(s, err) == -1 || read_checkpoint(s, err) != SERVER_STOPPED)
		return -1;
	server_look_back(s);
	if (open_trail(s, err) == -1 || rename_rings(s, false, err) == -1)
		return -1;
	remove_other_rings(s);
	for (unsigned i = 0; i <= s->nworkers; i++)
		if (trail_skip_recorded(s->trail, s->rings[i], err) == -1)
			return -1;
	if (trail_expect_rings(s->trail, s->nworkers + 1, err) == -1 ||
	    open_journal(s, err) == -1 ||
	    (!s->takeover.ready && open_admin(s, s->takeover.listeners, err) == -1))
		return -1;
	return server_begin_trail(s, err);
}

int
server_resume(struct server *s, struct err *err)
{
	int lock = fcntl(trail_dirfd(s->trail), F_DUPFD_CLOEXEC, 0), rc = -1;

	if (lock == -1)
		return err_set_errno(err, "%s", s->config->audit.trail);
	/* What is left in the rings stays there. */
	(void)journal_stop(s->journal, err);
	if (s->ledger != NULL)
		ledger_stop(s->ledger);
	s->takeover.lock = &lock;
	if (server_give_rings(s, err) == 0) {
		close_trail(s);
		rc = reopen(s, err);
	}
	s->takeover.lock = NULL;
	close(lock);
	return rc;
}
