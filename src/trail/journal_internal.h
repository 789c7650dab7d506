/*
 * journal_internal: the journal's state, shared by the thread (journal.c), its commits and what
 * fails in them (journal_commit.c), its sleep and who wakes it (journal_wake.c), the events that it
 * records itself (journal_own.c), what expires (journal_expire.c), what readers report
 * (journal_reports.c) and what goes from one process to the next (journal_adopt.c).
 */
#ifndef KEYTRAIL_JOURNAL_INTERNAL_H
#define KEYTRAIL_JOURNAL_INTERNAL_H

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/event.h"
#include "keytrail/journal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct member {
	struct ring *ring;
	journal_notify_fn notify;
	void *arg;
	uint64_t pos;  /* drained up to here */
	uint64_t lost; /* what is too large was counted up to here: a repair drains again */
	uint64_t taken, taken_durable; /* entries; those before ring_tail */
	uint64_t vanished;	       /* entries that were not there when their turn came */
	bool waits;		       /* a durable entry is not synced yet */
	bool adopted;		       /* another process fills it; the ring is the journal's */
	/* The relay's own: what it told of last. */
	uint64_t seen;
	enum ring_state seen_state;
};

#define TOLD_MAX 64

/* DOZING: there is something to sync later, only somebody who waits, or as many lines as are awaited,
 * are a reason to wake.  GATHERING: somebody waits for a commit, and it for as many as are awaited. */
enum sleep { AWAKE, GATHERING, DOZING, ASLEEP };

struct journal {
	struct journal_opts opts;
	struct trail_recovery recovery;
	struct member *members; /* the adopted ones come last */
	size_t nmembers;
	_Atomic unsigned nadopted;
	pthread_t thread, relay;
	bool running, relaying;
	int result; /* of the thread, once it has ended */

	/* any thread */
	_Atomic uint32_t sleeping; /* enum sleep; a futex */
	_Atomic int64_t awaited; /* entries that are still to come; while GATHERING, durable ones */
	_Atomic bool stop, retention_changed, reported, orphaned, relay_stop;
	bool give; /* set before stop */
	_Atomic uint64_t retention_s, max_size;
	pthread_mutex_t lock; /* of what follows */
	char health[ERR_MSG_MAX];
	struct journal_note {
		uint64_t size;
		char text[EVENT_DETAIL_MAX];
	} * notes; /* of checkpoints that are to be recorded */
	size_t nnotes;
	struct journal_reject {
		char sink[64];
		char reason[160]; /* of the first */
		uint64_t first, last, count;
	} * rejects; /* that are to be recorded, one a sink */
	size_t nrejects;
	uint64_t reports;			  /* of rejects: how many there were */
	_Atomic uint64_t reports_durable;	  /* how many of them are in durable events */
	struct trail_range known[TRAIL_TOLD_MAX]; /* before this run had begun to read */
	size_t nknown;
	struct trail_range told[TOLD_MAX]; /* by readers, the latest; each of them is told once */
	size_t ntold, nrecorded;	   /* of all: how many there were, are in events */

	/* the thread's own */
	uint64_t reports_recorded; /* as reports_durable, durable or not */
	bool unrecorded;	   /* what opening the trail found is not recorded yet, */
	bool untold;		   /* or what was found of the trail since is not durable; */
	bool unsettled;		   /* it is, and the page does not say so */
	enum ring_state state;
	unsigned failures;	    /* since the last good commit */
	uint64_t pending, recorded; /* numbered and not durable; of these, counted */
	uint64_t waiting;	    /* durable entries among them */
	uint64_t expected; /* to wait for the next commit: whom the last one released or left */
	int64_t pending_since_ns;
	int64_t last_sync_ns, spacing_ns, sync_cost_ns;
	int64_t retry_ns, room_ns, retention_ns, watch_ns; /* when due */
	uint64_t segment;				   /* of the durable mark */
	uint64_t expiry, expiry_last; /* the line that tells of a removal, 0: none; up to where */
	bool expiry_failed;	      /* that removal did: to be tried again, but not at once */
	struct clock_watch clock;
	int64_t trusted_ns; /* from then on, by the clock that never steps, ages count */
	struct buf own;	    /* own events that are not durable, for repair */
};

#define JOURNAL_TRUST_NS (3600 * CLOCK_NS_PER_S)

/* Number and queue one line. */
int journal_append(struct journal *j, struct slice line);

/* ---- own events; each is kept in j->own until it is durable ---- */

int journal_append_own(struct journal *j); /* once more, after a failure */
void journal_record_range(struct journal *j, const char *action, enum severity severity,
    const char *message, uint64_t first, uint64_t last);
/* So many calls were in flight when the process was killed whose rings these are. */
void journal_record_left(struct journal *j, uint64_t calls);
void journal_record_reject(struct journal *j, const struct journal_reject *r);
void journal_record_checkpoint(struct journal *j, uint64_t size, const char *note);
void journal_record_recovery(struct journal *j);
void journal_record_reports(struct journal *j);
/* Count so many lines as lost; the one that there is says whose it is. */
int journal_record_loss(struct journal *j, enum metric_loss reason, uint64_t n, struct slice line);
/* Files that are mapped were cut. */
void journal_record_cuts(struct journal *j);
/* The open segment was deleted, renamed or replaced. */
void journal_record_tampering(struct journal *j);
/* So were other files. */
void journal_record_harm(struct journal *j);
/* Lines are gone with a segment, or a segment's end. */
void journal_record_gaps(struct journal *j);
/* Record what will be removed, make that durable and have it signed, remove it.  1: it is to be signed;
 * -1: not done, try again. */
int journal_expire(struct journal *j);
/* There is something recorded that may be removed now. */
bool journal_may_remove(const struct journal *j);
/* Record that what was said to go stays, and make that durable.  -1: not done, try again. */
int journal_retract(struct journal *j);

/* ---- commits (journal_commit.c) ---- */

#define JOURNAL_RETRY_NS (100 * CLOCK_NS_PER_MS) /* while the trail cannot be written */

/* Make all that was appended durable, and release who waits for it.  -1: it failed, and that is noted. */
int journal_commit(struct journal *j);
/* Nothing since the last good commit counts; it is all still in the rings, or in j->own. */
void journal_fail(struct journal *j, enum metric_trail_op op, const struct err *err);
void journal_set_state(struct journal *j, enum ring_state state, const char *why);
/* Asked before the rings' room is given back: what is then claimed there has room on the disk. */
void journal_check_room(struct journal *j, int64_t now);
/* What was found is told of. */
void journal_settle(struct journal *j);

/* Its producer, where there is one. */
void journal_tell(const struct member *m);

/* ---- rings (journal.c) ---- */

/* Append what the rings hold.  -1: it failed, and that is noted. */
int journal_drain(struct journal *j);
bool journal_rings_hold_more(const struct journal *j);

/* ---- sleep (journal_wake.c) ---- */

/* When what is pending must be synced. */
int64_t journal_sync_due_ns(const struct journal *j);
/* Until something is due, or a kick. */
void journal_rest(struct journal *j);
/* Any thread. */
void journal_wake(struct journal *j);

/* ---- rings of another process (journal_adopt.c) ---- */

/* Record what is left in them, once it has ended, and remove them. */
void journal_end_adoption(struct journal *j);
void journal_end_relay(struct journal *j);
int journal_end_thread(struct journal *j, struct err *err);
#define JOURNAL_LOOK_NS CLOCK_NS_PER_MS

#endif
