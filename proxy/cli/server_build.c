#include "cli/server_internal.h"

#include "data/conn.h"
#include "data/descriptors.h"
#include "keytrail/base64.h"
#include "keytrail/clock.h"
#include "keytrail/cpus.h"
#include "keytrail/fault.h"
#include "keytrail/thread.h"

#include <event2/event.h>

#include <limits.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define START_WAIT_MS 10000
#define SELF_RING     (1024 * 1024) /* bytes of main's ring */
#define SLOTS_SPARE   64

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
	if (ledger_open(s->ledger, s->trail, &s->recovery, &s->findings, &why) == -1)
		log_error(s->log, "not_signed", "%s", why.msg);
	return s->findings.unfit[0] != '\0' ? begin_log(s, err) : 0;
}

/* Those of a run that had more workers; recovery has emptied them. */
static void
remove_other_rings(const struct server *s)
{
	char name[32];

	for (unsigned i = s->nworkers; i < CONFIG_WORKERS_MAX; i++) {
		snprintf(name, sizeof(name), "ring.%u", i);
		unlinkat(trail_dirfd(s->trail), name, 0);
	}
}

static int
open_trail(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	struct trail_opts opts = { .dir = a->trail,
		.create = a->create,
		.hashed = s->ledger != NULL,
		.segment_size = a->segment_size,
		.room = a->ring_size * s->nworkers + SELF_RING,
		.signed_log = s->ledger != NULL ? ledger_signed_log(s->ledger) : NULL,
		.signed_size = s->ledger != NULL ? ledger_signed_size(s->ledger) : 0,
		.used = publisher_used,
		.group = a->group };
	char name[TRAIL_RING_NAME_SIZE];

	if (trail_open(&opts, &s->trail, &s->recovery, err) == -1)
		return -1;
	if (open_ledger(s, err) == -1)
		return -1;
	s->retention = (struct trail_retention){ a->retention, a->max_size };
	if (trail_holds(s->trail)->damage.msg[0] != '\0')
		log_error(s->log, "holds_damaged", "%s", trail_holds(s->trail)->damage.msg);
	snapshot_set_log(s->snapshot, trail_log_id(s->trail));
	remove_other_rings(s);
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
open_journal(struct server *s, struct err *err)
{
	const struct config_audit *a = &s->config->audit;
	struct publisher_opts popts = { .config = s->config,
		.dirfd = trail_dirfd(s->trail),
		.metrics = s->metrics,
		.shard = s->shard,
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

	if (jopts.metrics == NULL)
		return err_set(err, "memory is short");
	if ((s->journal = journal_new(&jopts, err)) == NULL ||
	    publisher_start(&popts, &s->publisher, err) == -1 ||
	    journal_add_ring(s->journal, s->rings[s->nworkers], NULL, NULL, err) == -1)
		return -1;
	chronicle_init(
	    &s->chronicle, s->snapshot->observer, s->rings[s->nworkers], s->journal, s->shard);
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
open_listeners(struct server *s, struct err *err)
{
	struct listener_opts lopts = { .address = &s->config->listen.address,
		.workers = s->workers,
		.nworkers = s->nworkers };
	struct admin_opts aopts = server_admin;

	aopts.base = s->base;
	aopts.metrics = s->metrics;
	aopts.shard = s->shard;
	aopts.log = s->log;
	aopts.trail_dirfd = trail_dirfd(s->trail);
	aopts.keep_free = trail_keep_free(s->trail);
	aopts.corrupt = on_corrupt;
	aopts.arg = s;
	if ((s->listener = listener_new(&lopts, err)) == NULL)
		return -1;
	return admin_start(&aopts, &s->admin, err);
}

static uint64_t
record_start(struct server *s)
{
	const struct trail_recovery *r = &s->recovery;
	bool new_log = r->new_log || s->renewal.reason != NULL;
	char key[CHECKPOINT_KEY_MAX] = "none", sandbox[SANDBOX_TEXT_SIZE];
	struct trail_retention before = s->retention;
	bool less = trail_load_retention(s->trail, &before) &&
		    (trail_keeps_shorter(&s->retention, &before) ||
			trail_keeps_smaller(&s->retention, &before));
	struct event_detail details[] = {
		{ "clean", EVENT_DETAIL_BOOL, NULL, r->clean || r->new_log },
		{ "clock", EVENT_DETAIL_STRING, server_clock_state(), 0 },
		{ "configDigest", EVENT_DETAIL_STRING, s->config->digest, 0 },
		{ "keepsLess", EVENT_DETAIL_BOOL, NULL, less },
		{ "maxSize", EVENT_DETAIL_NUMBER, NULL, s->retention.max_size },
		{ "newLog", EVENT_DETAIL_BOOL, NULL, new_log },
		{ "previousBoot", EVENT_DETAIL_STRING, r->previous_boot, 0 },
		{ "previousMaxSize", EVENT_DETAIL_NUMBER, NULL, before.max_size },
		{ "previousRetentionSeconds", EVENT_DETAIL_NUMBER, NULL, before.age_s },
		{ "retentionSeconds", EVENT_DETAIL_NUMBER, NULL, s->retention.age_s },
		{ "sandbox", EVENT_DETAIL_STRING, sandbox, 0 },
		{ "signing", EVENT_DETAIL_STRING, key, 0 },
		{ "version", EVENT_DETAIL_STRING, KEYTRAIL_VERSION, 0 },
		{ "workers", EVENT_DETAIL_NUMBER, NULL, s->nworkers },
	};
	struct chronicle_entry e = { .action = "keytrail.start",
		.severity = new_log || !r->clean || less ? SEVERITY_WARNING : SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: started",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	sandbox_text(&s->sandbox, true, sandbox);
	if (s->ledger != NULL)
		ledger_key_text(s->ledger, key);
	return server_record(s, &e);
}

static void
record_tamper(struct server *s, const char *message, const struct event_detail *details, size_t n)
{
	struct chronicle_entry e = { .action = "keytrail.tamper",
		.severity = SEVERITY_CRITICAL,
		.outcome = EVENT_SUCCESS,
		.message = message,
		.details = details,
		.ndetails = n };

	server_record(s, &e);
}

/* What the signed tree tells of the trail that was found. */
static void
record_findings(struct server *s)
{
	const struct ledger_findings *f = &s->findings;
	const struct event_detail range[] = {
		{ "first", EVENT_DETAIL_NUMBER, NULL, f->first },
		{ "last", EVENT_DETAIL_NUMBER, NULL, f->last },
	};

	if (f->last > 0)
		record_tamper(s,
		    "keytrail: lines of the trail are gone or not those that were signed", range,
		    2);
}

static void
record_rotation(struct server *s)
{
	struct slice statement = ledger_rotation(s->ledger);
	char note[BASE64_SIZE(CHECKPOINT_NOTE_MAX) + 1];
	const struct event_detail details[] = { { "note", EVENT_DETAIL_STRING, note, 0 } };
	struct chronicle_entry e = { .action = "keytrail.key",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: another key signs from now on",
		.details = details,
		.ndetails = 1 };

	if (statement.n == 0 || statement.n > CHECKPOINT_NOTE_MAX)
		return;
	note[base64_encode(statement.p, statement.n, note)] = '\0';
	server_record(s, &e);
}

/* The checkpoint that was found is recorded once more: that of ledger_stop has not been yet. */
static void
record_handover(struct server *s)
{
	if (s->ledger == NULL || s->renewal.reason != NULL || ledger_signed_size(s->ledger) == 0)
		return;
	journal_report_checkpoint(
	    s->journal, ledger_signed_size(s->ledger), ledger_signed_note(s->ledger));
	record_rotation(s);
}

/* Nothing is signed before all that was recorded is durable: what a new key signs first covers the
 * event by which it became the key. */
static int
end_start(struct server *s, unsigned wait_ms, struct err *err)
{
	if (!chronicle_flush(&s->chronicle) ||
	    !chronicle_wait(&s->chronicle, s->chronicle.last, wait_ms))
		return err_set(err, "%s: what follows keytrail.start is not durable yet",
		    s->config->audit.trail);
	if (!trail_holds_are_settled(s->trail) && trail_holds_settled(s->trail, err) == -1)
		return -1;
	if (s->ledger == NULL)
		return 0;
	FAULT_POINT("start.before_ledger");
	return ledger_start(s->ledger, err);
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

int
server_follow_start(struct server *s, unsigned wait_ms, struct err *err)
{
	struct trail_retention saved;

	if (!s->start_followed) {
		if ((!trail_load_retention(s->trail, &saved) || saved.age_s != s->retention.age_s ||
			saved.max_size != s->retention.max_size) &&
		    trail_save_retention(s->trail, &s->retention, err) == -1)
			return -1;
		record_findings(s);
		record_handover(s);
		if (!trail_holds_are_settled(s->trail))
			server_record_holds(s);
		s->start_followed = true;
	}
	return end_start(s, wait_ms, err);
}

/* Where the trail cannot take it, all else goes on and it waits in main's ring (server.c). */
static void
await_start(struct server *s, uint64_t position)
{
	struct err err;
	char why[128];

	if (chronicle_wait(&s->chronicle, position, START_WAIT_MS)) {
		if (server_follow_start(s, START_WAIT_MS, &err) == 0)
			return;
	} else {
		journal_health(s->journal, why, sizeof(why));
		err_set(&err, "%s: keytrail.start is not durable yet: %s", s->config->audit.trail,
		    why[0] != '\0' ? why : "the disk is slow");
	}
	log_error(s->log, "start_waits", "%s", err.msg);
	s->start_waits = true;
	event_active(&s->chronicle_retry, 0, 0);
}

static int
start(struct server *s, struct err *err)
{
	uint64_t position;

	if (open_listeners(s, err) == -1)
		return -1;
	/* Before the journal: what it removes at once is removed under what this start says. */
	position = record_start(s);
	if (journal_start(s->journal, err) == -1)
		return -1;
	await_start(s, position);
	if (server_watch_clock(s, err) == -1 || server_watch_files(s, err) == -1)
		return -1;
	for (; s->nstarted < s->nworkers; s->nstarted++)
		if (worker_start(s->workers[s->nstarted], err) == -1)
			return -1;
	if (sandbox_enter(&s->sandbox, "main", err) == -1)
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
	if (sandbox_look(&s->sandbox, s->config, err) == -1)
		return SERVER_FAILED;
	thread_install(sandbox_enter, &s->sandbox);
	s->nworkers = server_workers(s->config);
	s->files.loaded = server_files_state(s->config);
	if ((s->snapshot = snapshot_new(s->config, NULL, s->metrics, err)) == NULL ||
	    read_key(s, err) == -1)
		return SERVER_MISCONFIGURED;
	if ((rc = read_checkpoint(s, err)) != SERVER_STOPPED)
		return rc;
	server_look_back(s);
	if (open_trail(s, err) == -1 || sandbox_confine(&s->sandbox, s->config, err) == -1 ||
	    open_journal(s, err) == -1 || make_workers(s, err) == -1 || start(s, err) == -1)
		return SERVER_FAILED;
	set_build_info(s->metrics);
	metrics_set(s->shard, METRIC_START_TIME, 0, (double)s->started / CLOCK_NS_PER_S);
	metrics_set(s->shard, METRIC_RELOAD_TIME, 0, (double)s->started / CLOCK_NS_PER_S);
	return SERVER_STOPPED;
}
