/*
 * server_internal: the parts of the running sidecar, shared by the files of that module.
 *
 * server.c is the life (signals, reload, stop), server_build.c the composition, server_status.c
 * what the admin listener asks.  Main thread only.
 */
#ifndef KEYTRAIL_PROXY_SERVER_INTERNAL_H
#define KEYTRAIL_PROXY_SERVER_INTERNAL_H

#include "admin/admin.h"
#include "cli/server.h"
#include "data/chronicle.h"
#include "data/listener.h"
#include "data/snapshot.h"
#include "data/worker.h"
#include "keytrail/journal.h"
#include "keytrail/ledger.h"
#include "keytrail/log.h"
#include "keytrail/metrics.h"
#include "keytrail/publisher.h"
#include "keytrail/ring.h"
#include "keytrail/trail.h"

#include <event2/event_struct.h>

struct server {
	struct config *config; /* the current one */
	struct snapshot *snapshot;
	struct log *log;
	struct metrics *metrics;
	struct metrics_shard *shard; /* main's */
	struct event_base *base;
	struct event log_event, log_retry, signal_event;
	int signal_fd;
	int64_t started; /* wall clock ns */
	struct trail *trail;
	struct trail_recovery recovery;
	struct ledger *ledger; /* NULL: nothing is signed */
	struct ledger_findings findings;
	struct ring *rings[CONFIG_WORKERS_MAX + 1]; /* the last one is main's */
	struct publisher *publisher;
	struct journal *journal;
	struct chronicle chronicle;
	unsigned nworkers, nstarted;
	struct worker *workers[CONFIG_WORKERS_MAX];
	atomic_uint open_connections;
	struct listener *listener;
	struct admin *admin;
	bool stopping;
	bool drained; /* everything that was accepted is durable */
};

/* Build every part in order and start the threads; on failure what was built is torn down by the
 * caller all the same.  SERVER_STOPPED means that it runs. */
enum server_result server_build(struct server *s, struct err *err);

/* What the admin listener calls, with the server as argument. */
extern const struct admin_opts server_admin;

#endif
