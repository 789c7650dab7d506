/*
 * journal: the one thread that turns ring entries into numbered, durable lines of the trail.
 *
 * It drains all rings, appends the batch with one write, and syncs when somebody waits or when the
 * flush interval is over.  Then it releases ring space and notifies the producers that wait.
 *
 * Who waits is synced at once when as many wait as the last sync released and left waiting: all who
 * can be expected have come.  Else syncs are spaced adaptively: so far apart, they take 6 % of a CPU.
 * A lone waiter thus never waits for others, callers in a closed loop share one sync a round.
 */
#ifndef KEYTRAIL_JOURNAL_H
#define KEYTRAIL_JOURNAL_H

#include "keytrail/err.h"
#include "keytrail/log.h"
#include "keytrail/metrics.h"
#include "keytrail/ring.h"
#include "keytrail/trail.h"

struct journal;

/* Called on the journal thread after the durable position of a ring has moved past a RING_DURABLE
 * entry, or there is room again after a claim found the ring full, or the ring's state has changed;
 * must not block. */
typedef void (*journal_notify_fn)(void *arg);

/* A log that was given up for the one that is there now: recorded before all else
 * (keytrail.tamper). */
struct journal_renewal {
	const char *reason;
	struct slice note; /* the old log's checkpoint, or empty */
};

struct journal_opts {
	struct trail *trail;
	struct log *log;
	struct metrics_shard *metrics; /* the journal thread's own */
	unsigned flush_interval_ms, spacing_min_us, spacing_max_us;
	/* Age waits for a clock that has not jumped for an hour; the start counts as a jump when it is
	 * more than an hour after the last line before it (0: there is none). */
	uint64_t retention_s, max_size;
	int64_t last_line_ns;
	/* Lowest number that every sink has acknowledged + 1; called on the journal thread. */
	uint64_t (*keep_seq)(void *arg);
	/* Up to which number these may go now; asked again for the others.  NULL: all.  Called on the
	 * journal thread. */
	uint64_t (*settled)(void *arg, uint64_t first, uint64_t last);
	/* Up to which number the lines are signed, or UINT64_MAX: nothing removed waits for that.
	 * NULL: as if so.  Called on the journal thread. */
	uint64_t (*covered)(void *arg);
	/* Something was removed that is not signed yet: it is high time.  Called on the journal thread. */
	void (*removed)(void *arg);
	void *keep_arg;
	/* The durable number has moved: wake the sinks.  Called on the journal thread. */
	void (*durable)(void *arg, uint64_t seq);
	void *durable_arg;
	/* What trail_open found, to be recorded first (keytrail.recover, .corrupt, .tamper), or NULL;
	 * copied. */
	const struct trail_recovery *recovery;
	const struct journal_renewal *renewal; /* or NULL; outlives the journal */
};

/* Add all rings between journal_new and journal_start.  The rings stay the caller's and must
 * outlive the journal; `notify` may be NULL.  Where journal_new finds no room they are closed; once
 * there is some, the first one opens, and the others when a line of it is durable. */
struct journal *journal_new(const struct journal_opts *opts, struct err *err);
int journal_add_ring(
    struct journal *j, struct ring *r, journal_notify_fn notify, void *arg, struct err *err);
int journal_start(struct journal *j, struct err *err);

/* After ring_commit, from any producer: wakes the thread if it sleeps.  Cheap when it does not. */
void journal_kick(struct journal *j);
/* The same where nobody waits: a thread that will look within the flush interval is let sleep until
 * there is a batch for it. */
void journal_kick_async(struct journal *j);

/* Drain every ring, sync, and end the thread.  -1 when something could not be made durable. */
int journal_stop(struct journal *j, struct err *err);
void journal_free(struct journal *j);

/* ---- from one process to the next ---- */

/* Drain the rings once more, sync, and end the thread; then call notify as another process's journal,
 * to which the rings are given, moves on.  After -1 the thread goes on as before, if it can (what it
 * cannot: journal_stop). */
int journal_give(struct journal *j, struct err *err);

/* After journal_give and journal_stop: nobody has gone on with the rings, or he has ended; the trail was
 * opened anew, and has said from where on they count (trail_skip_recorded).  The metrics stay.
 * journal_start follows. */
void journal_resume(struct journal *j, const struct journal_opts *opts);

/* Before journal_start, behind the own: a ring that another process fills (ring_adopt).  It is the
 * journal's. */
int journal_adopt_ring(struct journal *j, struct ring *r, struct err *err);
/* How many there still are (any thread). */
unsigned journal_adopted(const struct journal *j);
/* That process has ended: what it left is recorded, calls that were in flight too, and the files are
 * removed (any thread). */
void journal_orphan(struct journal *j);

/* Why the trail cannot be written now, or "" (any thread; for readiness). */
void journal_health(const struct journal *j, char *out, size_t n);

/* A reader met damage at these numbers: it is copied aside and recorded (keytrail.corrupt), once for the
 * same numbers and those among them.  Any thread. */
void journal_report_corrupt(struct journal *j, uint64_t first, uint64_t last);

/* A sink said that it can never take this event: record keytrail.reject.  What a sink rejects before that
 * is recorded is one event.  Returns the number of the report.  Any thread. */
uint64_t journal_report_reject(
    struct journal *j, const char *sink, uint64_t seq, const char *reason);

/* What was reported up to this number is in durable events; false for ever where the journal has stopped
 * before.  Any thread, lock-free. */
bool journal_reject_is_durable(const struct journal *j, uint64_t report);

/* A checkpoint of so many events was signed: record keytrail.checkpoint with its note, as base64.
 * Any thread. */
void journal_report_checkpoint(struct journal *j, uint64_t size, struct slice note);

/* Live changes of a reload. */
void journal_set_retention(struct journal *j, uint64_t retention_s, uint64_t max_size);

#endif
