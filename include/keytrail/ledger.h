/*
 * ledger: the hash tree over the trail, its tiles and its signed checkpoint.
 *
 * One thread reads the durable trail as a sink does, hashes each line (without its newline; entry
 * `seq` - 1 of the tree), keeps <dir>/tile/ and signs <dir>/checkpoint: after `events` lines (at most
 * once a second) or `interval_s`, and when it stops.  Nobody waits for it; what fails is tried again.
 * A number that has no line is the hash of an empty entry.  Origin of the log: `<key name>/<log id>`.
 *
 * What was signed is never taken back.  Where the tree of the last checkpoint can be had neither from
 * the tiles nor from the lines, or the checkpoint is not this key's or not this log's, nothing is
 * signed, and ledger_refusal says why.
 */
#ifndef KEYTRAIL_LEDGER_H
#define KEYTRAIL_LEDGER_H

#include "keytrail/checkpoint.h"
#include "keytrail/err.h"
#include "keytrail/log.h"
#include "keytrail/trail.h"

struct ledger;

#define LEDGER_EVENTS	  1024
#define LEDGER_INTERVAL_S 60
#define LEDGER_SILENCE_S  900 /* nothing but checkpoints happened */

struct ledger_opts {
	const char *dir;
	struct slice key; /* text of the signing key */
	struct log *log;
	uint64_t events;
	unsigned interval_s, silence_s;
	/* On the ledger's thread, after each checkpoint but the one at the stop. */
	void (*signed_)(void *arg, uint64_t size, struct slice note);
	void *arg;
};

/* Read the key and the checkpoint that is there. */
int ledger_new(const struct ledger_opts *opts, struct ledger **out, struct err *err);
void ledger_free(struct ledger *l); /* NULL is allowed */

/* Numbers up to here were signed: for struct trail_opts.  0: there is no checkpoint of this key. */
uint64_t ledger_signed_size(const struct ledger *l);
/* Events that the last checkpoint covers (any thread). */
uint64_t ledger_covered(const struct ledger *l);
/* Lines from here on are not signed yet and must not expire (any thread). */
uint64_t ledger_keep_seq(struct ledger *l);
/* "signed by <name>+<id>". */
void ledger_key_name(const struct ledger *l, char *out, size_t n);
/* The verifier key. */
void ledger_key_text(const struct ledger *l, char out[CHECKPOINT_KEY_MAX]);

/* What opening found. */
struct ledger_findings {
	uint64_t altered_first, altered_last; /* lines that are not those that were signed */
	uint64_t checked;		      /* lines compared with what was signed */
};

/* Load the tree that was signed, or make it again from the lines; clean: the last run ended well.
 * After -1 nothing is signed until the next start. */
int ledger_open(struct ledger *l, const struct trail *t, bool clean, struct ledger_findings *out,
    struct err *err);
/* Why nothing is signed, or "" (any thread). */
void ledger_refusal(struct ledger *l, char *out, size_t n);

/* The thread's work in steps, for tests: take in what is durable; sign it. */
int ledger_advance(struct ledger *l, struct err *err);
int ledger_sign(struct ledger *l, struct err *err);

int ledger_start(struct ledger *l, struct err *err);
/* After the journal's end and before trail_close: sign all that is durable. */
void ledger_stop(struct ledger *l);

/* Read <dir>/checkpoint: 1, 0 when there is none, -1. */
int ledger_read_checkpoint(int dirfd, struct buf *out, struct err *err);

#endif
