/*
 * server_internal: the parts of the running sidecar, shared by the files of that module.
 *
 * server.c is the life (signals, reload, stop), server_build.c the composition, server_start.c what
 * is recorded of a start, server_takeover.c what goes from one process to the next, server_status.c
 * what the admin listeners ask, server_routes.c one page of it, server_operate.c what operators
 * have it do, server_clock.c jumps of the clock, server_watch.c the files of TLS.  Main thread
 * only.
 */
#ifndef KEYTRAIL_PROXY_SERVER_INTERNAL_H
#define KEYTRAIL_PROXY_SERVER_INTERNAL_H

#include "admin/admin.h"
#include "cli/handover.h"
#include "cli/sandbox.h"
#include "cli/server.h"
#include "data/chronicle.h"
#include "data/degrade.h"
#include "data/listener.h"
#include "data/snapshot.h"
#include "data/tls.h"
#include "data/worker.h"
#include "keytrail/journal.h"
#include "keytrail/ledger.h"
#include "keytrail/log.h"
#include "keytrail/metrics.h"
#include "keytrail/publisher.h"
#include "keytrail/ring.h"
#include "keytrail/sink.h"
#include "keytrail/trail.h"

#include <event2/event_struct.h>

#define SERVER_VALIDITIES_MAX (TLS_VALIDITIES_MAX + SNAPSHOT_VALIDITIES_MAX)

/* What is known of the files of TLS. */
struct server_files {
	struct event timer;
	uint64_t loaded, seen; /* their state when they were last read, and looked at */
	bool failed;	       /* what was read is not in force: */
	int64_t tried;	       /* since when (monotonic ns), */
	struct err why;
	int64_t tell_again[SERVER_VALIDITIES_MAX]; /* no sooner than this one ends (monotonic ns) */
};

/* From the process before this one, and to the one after. */
struct server_takeover {
	bool wanted;
	bool taken;				    /* this was given: */
	struct handover_fds from;		    /* until it runs */
	struct ring *rings[CONFIG_WORKERS_MAX + 1]; /* until the journal has them */
	uint64_t room;				    /* of these, bytes */
	const int *lock; /* while the trail is opened; NULL: it is to be had */
	int before;	 /* the connection to that process */
	struct event ended;

	struct handover *handover;	/* for the next one; or NULL */
	bool given;			/* it has the trail, */
	bool ready;			/* and serves */
	bool failed;			/* nobody has the trail */
	int listeners[ADMIN_LISTENERS]; /* copies; until it serves */
	struct event leave_timer;
};

struct server {
	struct config *config; /* the current one */
	struct snapshot *snapshot;
	struct log *log;
	struct metrics *metrics;
	struct metrics_shard *shard; /* main's */
	struct event_base *base;
	struct event log_event, log_retry, signal_event, chronicle_retry, degrade_timer,
	    clock_timer, heartbeat;
	struct server_files files;
	struct server_takeover takeover;
	struct clock_watch clock_watch;
	int64_t last_line_ns; /* when the last line before this start was numbered, or 0 */
	int signal_fd;
	int64_t started; /* wall clock ns */
	struct trail *trail;
	struct trail_recovery recovery;
	struct trail_retention retention; /* in force */
	struct ledger *ledger;		  /* NULL: nothing is signed */
	struct ledger_findings findings;
	struct journal_renewal renewal; /* reason NULL: the log is the old one */
	struct buf old_note;
	struct ring *rings[CONFIG_WORKERS_MAX + 1]; /* the last one is main's */
	struct sink_types sink_types;
	struct publisher *publisher;
	struct journal *journal;
	struct chronicle chronicle;
	unsigned nworkers, nstarted;
	struct worker *workers[CONFIG_WORKERS_MAX];
	atomic_uint open_connections, open_upstream;
	struct peers *peers;
	struct shapes *shapes;
	struct listener *listener;
	struct admin *admin;
	struct sandbox sandbox;
	struct degrade degrade;
	double degraded_before; /* requests that were counted so before it began */
	int64_t degraded_until; /* wall clock ns */
	bool start_waits;	/* keytrail.start, or what follows it, is not durable yet */
	bool start_followed;	/* what follows it is recorded */
	bool hold_lost;		/* what was added is held, and no event tells of it */
	bool stopping;
	bool drained; /* everything that was accepted is durable, */
	bool whole;   /* and signed, where anything is */
};

/* Build every part in order and start the threads; on failure what was built is torn down by the
 * caller all the same.  SERVER_STOPPED means that it runs. */
enum server_result server_build(struct server *s, struct err *err);

/* Once all is built: begin to record, with keytrail.start. */
int server_begin_trail(struct server *s, struct err *err);

/* What is done when keytrail.start is durable.  -1: not all of it is done; to be tried again.  What it
 * records is waited for so long. */
int server_follow_start(struct server *s, unsigned wait_ms, struct err *err);

/* The workers' rings have a slot for each of so many connections. */
bool server_has_slots(const struct server *s, unsigned connections);

/* What the admin listeners call, with the server as argument. */
extern const struct admin_opts server_admin;
int server_put_routes(void *arg, struct buf *out);
unsigned server_operate(void *arg, const struct admin_call *call, struct buf *text);

/* Into the trail, as soon as there is room.  As chronicle_record. */
uint64_t server_record(struct server *s, const struct chronicle_entry *e);
/* As chronicle_assure; what it leaves waiting is seen to, the holds' too. */
bool server_assure(struct server *s, const struct chronicle_entry *e, unsigned ms);

/* Each that there is. */
void server_record_holds(struct server *s);

/* Be degraded no longer, if it is so, and record why. */
void server_end_degrade(struct server *s, const char *why);
void server_on_degrade_timer(evutil_socket_t fd, short what, void *arg);

/* Before the trail is opened note the time of its last line; once it runs record that the clock was
 * put back meanwhile, and watch it. */
void server_look_back(struct server *s);
int server_watch_clock(struct server *s, struct err *err);
/* Changes when one of the files of TLS that the configuration names was replaced. */
uint64_t server_files_state(const struct config *c);

/* Load them when they are, and tell of those that end.  As at HUP, a file that is of no use changes
 * nothing.  It is tried again every ten seconds, since memory, say, may have been short, and told of
 * again when it, or the reason, is another. */
int server_watch_files(struct server *s, struct err *err);
void server_reload_files(struct server *s);

/* ---- as successor; each does nothing where nobody was taken over from ---- */

/* Before the trail is opened: have it given, or find that nobody has it. */
int server_take_over(struct server *s, struct err *err);
/* Behind the own rings. */
int server_adopt_rings(struct server *s, struct err *err);
/* It runs: say so.  From now on there may be a successor. */
int server_succeed(struct server *s, struct err *err);
void server_close_given(struct server *s);

/* ---- as the one before ---- */

/* Where that cannot be, the log says so. */
void server_await_successor(struct server *s);
/* The rings get other names. */
int server_give_rings(struct server *s, struct err *err);
/* After that: nobody has taken the trail; go on with it.  After -1 nothing can be recorded. */
int server_resume(struct server *s, struct err *err);
/* All that is to be recorded is in the rings. */
void server_leave(struct server *s);

/* Until when what is loaded is good; how many. */
size_t server_validity(const struct server *s, struct tlsfile_validity out[SERVER_VALIDITIES_MAX]);
/* In 30 days or the last third of its time: what is renewed often is renewed late. */
bool server_ends_soon(const struct tlsfile_validity *v);

const char *server_clock_state(void); /* "synchronized", "unsynchronized" or "unknown" */

#endif
