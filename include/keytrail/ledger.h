/*
 * ledger: the hash tree over the trail, its tiles and its signed checkpoint.
 *
 * One thread takes the hash of each durable line (without its newline; entry `seq` - 1 - base of
 * the tree) from where it was appended (leaves.h), or else reads the line as a sink does; it keeps
 * <dir>/tile/ and signs <dir>/checkpoint: the first one at once, then after `events` lines (at most
 * once a second) or `interval_s`, and when it stops.  Lines about checkpoints alone are no reason
 * for another.  Nobody waits for it; what fails is tried again.  A number that has no line is the
 * hash of an empty entry.  Origin of the log: `<key name>/<log id>`.
 *
 * What was signed is never taken back: where the trail is not what its last checkpoint says, the log
 * cannot go on (struct ledger_findings), and a new one begins.  A checkpoint of another key is
 * accepted where <dir>/rotation (see rotation.h) hands over from that key to this one.
 */
#ifndef KEYTRAIL_LEDGER_H
#define KEYTRAIL_LEDGER_H

#include "keytrail/checkpoint.h"
#include "keytrail/err.h"
#include "keytrail/log.h"
#include "keytrail/trail.h"

struct ledger;

#define LEDGER_EVENTS 1024

struct ledger_opts {
	const char *dir;
	struct slice key; /* text of the signing key */
	struct log *log;
	uint64_t events;
	unsigned interval_s;
	/* On the ledger's thread, after each checkpoint but that of ledger_stop. */
	void (*signed_)(void *arg, uint64_t size, struct slice note);
	trail_corrupt_fn corrupt; /* on any thread that calls; or NULL */
	void *arg;
};

int ledger_new(const struct ledger_opts *opts, struct ledger **out, struct err *err);
/* Before all else: read the checkpoint that is there, if any.  1; 0 when another key has signed it, and
 * none hands over (err says so); -1. */
int ledger_look(struct ledger *l, struct err *err);
void ledger_free(struct ledger *l); /* NULL is allowed */

/* The checkpoint that was found: the log's id and size (for struct trail_opts), and the note. */
const char *ledger_signed_log(const struct ledger *l); /* NULL: there is none */
uint64_t ledger_signed_size(const struct ledger *l);
struct slice ledger_signed_note(const struct ledger *l); /* until the first signing */
/* The statement by which another key handed over to this one since that checkpoint, or empty. */
struct slice ledger_rotation(const struct ledger *l);
/* Highest number that the last checkpoint covers (any thread). */
uint64_t ledger_covered(const struct ledger *l);
/* Lines from here on must not expire: they are not signed yet, or their tile is not full (any
 * thread). */
uint64_t ledger_keep_seq(struct ledger *l);
/* Lines below that, first to last, are to expire.  The highest whose tile is durable, so that the tree
 * can be made without the line; the thread sees to the others: ask again (one thread). */
uint64_t ledger_settled(struct ledger *l, uint64_t first, uint64_t last);
/* Lines up to here are signed; UINT64_MAX: none will be (any thread). */
uint64_t ledger_told_seq(struct ledger *l);
/* "signed by <name>+<id>". */
void ledger_key_name(const struct ledger *l, char *out, size_t n);
/* The verifier key. */
void ledger_key_text(const struct ledger *l, char out[CHECKPOINT_KEY_MAX]);

/* What opening found. */
struct ledger_findings {
	char unfit[ERR_MSG_MAX]; /* why the trail is not what was signed, or "" */
	uint64_t first, last;	 /* lines that are gone or not those that were signed; or 0 */
	uint64_t checked;	 /* lines compared with what was signed */
};

/* Before that: the process that signed it gives it on, and vouches for the lines, which are not
 * compared. */
void ledger_trust(struct ledger *l);
/* Load the tree that was signed, or make it again from the lines.  After -1 nothing is signed until
 * the next start; unfit: only ledger_begin may follow. */
int ledger_open(struct ledger *l, const struct trail *t, const struct trail_recovery *rec,
    struct ledger_findings *out, struct err *err);
/* After trail_renew, by this start or one that was killed: put the old log's checkpoint and tiles aside,
 * as checkpoint.<log id> and tile.<log id>, and begin the tree of the new log; where that start signed
 * some of it (ledger_signed_size), ledger_open goes on.  ledger_signed_note is the old log's last
 * checkpoint then. */
int ledger_begin(struct ledger *l, const struct trail *t, struct err *err);
/* Why nothing is signed, for good or for now, or "" (any thread). */
void ledger_refusal(struct ledger *l, char *out, size_t n);

/* The thread's work in steps, for tests: sync what is to expire; take in what is durable; sign it. */
int ledger_settle(struct ledger *l, struct err *err);
int ledger_advance(struct ledger *l, struct err *err);
int ledger_sign(struct ledger *l, struct err *err);

int ledger_start(struct ledger *l, struct err *err);
/* There may be room again: what failed is tried at once (any thread). */
void ledger_wake(struct ledger *l);
/* Before the journal's end: sign all that is durable, tell of it, and end the thread. */
void ledger_end(struct ledger *l);
/* After the journal's end and before trail_close: sign what became durable since, the line that tells of
 * that checkpoint.  False: not all is signed. */
bool ledger_stop(struct ledger *l);

/* Read <dir>/checkpoint: 1, 0 when there is none, -1. */
int ledger_read_checkpoint(int dirfd, struct buf *out, struct err *err);

#endif
