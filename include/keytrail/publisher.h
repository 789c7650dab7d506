/*
 * publisher: one thread and one cursor a sink; reads the durable trail and delivers it.
 *
 * Delivery is at least once and in order.  Nothing that goes wrong with a sink touches another sink
 * or a request: its events wait in the trail, "sink_down" and "sink_up" stand in the log, and the
 * status says why.  SINK_RETRY backs off exponentially with jitter (100 ms to 30 s); SINK_REJECT
 * writes the line to <trail>/quarantine.<sink>.jsonl, counts it, tells of it and delivers a stub in its
 * place; of a rejected stub, and of a keytrail.reject, nobody is told.  No cursor passes what is told
 * of before that is durable: after a kill it is rejected once more, and again in quarantine.  The cursor
 * <trail>/cursor.<sink> is a preallocated file of two checksummed slots, overwritten in turn,
 * synced at most once a second and at the end; a kill repeats at most the last second (of a file
 * sink).  A cursor whose line is of another log, or is damaged, delivers all that the trail holds.
 *
 * A reload that names a type whose module is not loaded is refused.
 *
 * Main thread, where nothing else is said.  Sinks that cannot be opened are no error: they are
 * down.
 */
#ifndef KEYTRAIL_PUBLISHER_H
#define KEYTRAIL_PUBLISHER_H

#include "keytrail/config.h"
#include "keytrail/log.h"
#include "keytrail/metrics.h"
#include "keytrail/sink.h"
#include "keytrail/trail.h"

struct publisher;

/* Has it recorded; returns the number of the report. */
typedef uint64_t (*publisher_reject_fn)(
    void *arg, const char *sink, uint64_t seq, const char *reason);
typedef bool (*publisher_recorded_fn)(void *arg, uint64_t report);

struct publisher_opts {
	const struct config *config;	/* sinks, trail directory */
	const struct sink_types *types; /* all that the configuration names are there */
	int dirfd;
	struct metrics *metrics;
	struct metrics_shard *shard; /* the main thread's */
	struct log *log;
	/* On a sink's thread; or NULL. */
	trail_corrupt_fn corrupt;
	publisher_reject_fn rejected;	/* reason: our words */
	publisher_recorded_fn recorded; /* what was told up to a report is durable; with rejected */
	void *arg;
};

/* Before the trail is open: the highest number of a log that any cursor names. */
uint64_t publisher_used(int dirfd, const char *log);

/* The trail is open.  The configuration is referenced; types, dirfd, metrics and log must outlive p. */
int publisher_start(const struct publisher_opts *opts, struct publisher **out, struct err *err);

/* The durable number has moved; the journal thread. */
void publisher_wake(struct publisher *p, uint64_t durable_seq);

/* Lowest number that a synced cursor does not yet cover; UINT64_MAX without sinks.  Any thread,
 * lock-free. */
uint64_t publisher_keep_seq(struct publisher *p);

/* Reload: settings of sinks that exist change, new ones start, missing ones stop (their cursor
 * stays and pins nothing); nobody waits for those, however long a delivery that is under way takes.  A
 * sink of a name that has not ended yet is waited for, two seconds at most, or refused after three where
 * a write does not return.  On -1 all is as before. */
int publisher_reload(struct publisher *p, const struct config *next, struct err *err);
/* Now and then: what sinks that were removed leave behind. */
void publisher_reap(struct publisher *p);
void publisher_reopen(struct publisher *p); /* USR1 */

/* How far a sink is, by its cursor in the trail's directory; false: it has none.  Any process. */
bool publisher_position(int dirfd, const char *sink, uint64_t *seq);

/* Send a sink back: it gets once more what the trail holds from an event on (its number, or a time as
 * clock_parse_time reads it), or from the first one there is.  -1 where it has not come so far.  What it
 * counted before it does not count again.  *first: the event that it begins with. */
int publisher_replay(
    struct publisher *p, const char *sink, const char *from, uint64_t *first, struct err *err);
/* The same where nothing runs; the caller has the lock of the directory. */
int publisher_rewind(
    int dirfd, const char *sink, const char *from, uint64_t *first, struct err *err);
#define PUBLISHER_REPLAY_TEXT                                                                      \
	"sink %s: what the trail holds from event %" PRIu64 " on is delivered again\n"

/* Numbers of the trail, since the sink began in this process; each of them is in one of the first
 * four. */
struct publisher_counts {
	uint64_t delivered, rejected, filtered;
	uint64_t missing; /* gone from the trail, or damaged, when their turn came */
	uint64_t retries;
};

struct publisher_figure {
	char name[48];
	double value;
};

struct publisher_sink_status {
	char name[64];
	const char *type;
	struct publisher_counts counts;
	uint64_t due; /* durable, above where the sink began: counts and waiting */
	uint64_t waiting;
	uint64_t position;     /* the highest number that was counted */
	double oldest_seconds; /* age of the oldest waiting event */
	bool up, required;
	char last_error[256];				      /* our words */
	struct publisher_figure figures[METRICS_FIGURES_MAX]; /* of its own */
	size_t nfigures;
};
/* Main thread.  Fills at most n; returns how many sinks there are. */
size_t publisher_status(struct publisher *p, struct publisher_sink_status *out, size_t n);

/* Before a scrape: all that the metrics tell of the sinks. */
void publisher_set_gauges(struct publisher *p);

/* After journal_stop.  Give the sinks until deadline_ns (monotonic), then stop their threads, which
 * takes up to three seconds more; a thread whose write does not return then is left behind, and its
 * memory.  Returns how many events are undelivered, summed over the sinks; publisher_status still
 * works. */
uint64_t publisher_stop(struct publisher *p, int64_t deadline_ns);
void publisher_free(struct publisher *p); /* after publisher_stop */

#endif
