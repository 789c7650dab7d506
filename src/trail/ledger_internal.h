/*
 * ledger_internal: the state of a ledger, shared by its thread (ledger.c) and its opening
 * (ledger_open.c).
 */
#ifndef KEYTRAIL_LEDGER_INTERNAL_H
#define KEYTRAIL_LEDGER_INTERNAL_H

#include "keytrail/ledger.h"
#include "keytrail/tiles.h"

#include <pthread.h>
#include <stdatomic.h>

#define LEDGER_VOID_MAX ((uint64_t)1 << 24) /* numbers in a row that have no line */

struct ledger {
	struct ledger_opts opts;
	char *dir;
	struct checkpoint_signer *signer;
	struct tiles files;
	char origin[CHECKPOINT_ORIGIN_MAX];
	struct checkpoint last;	 /* what is signed; size 0: nothing */
	struct buf note;	 /* of it, as it was found */
	struct buf rotation;	 /* by which its key handed over to this one, or empty */
	char unfit[ERR_MSG_MAX]; /* what is wrong with the note, or "" */
	uint64_t base;		 /* the number before the tree's first line */
	struct tiles_tree tree;
	const struct trail *trail;
	struct leaves *leaves;	    /* the trail's, or NULL */
	struct merkle_batch *batch; /* lines that were read, on their way into the tree */
	uint64_t seqs[MERKLE_BATCH];
	unsigned taken;
	uint64_t unsearched; /* up to here a line may tell of a checkpoint that is gone; or 0 */
	bool clean;	     /* the run before ended well */
	bool trusts;	     /* the lines are not compared: who signed them gave them on */
	bool loaded;
	bool urgent;	 /* there is a line that somebody waits to see signed */
	uint64_t others; /* lines since the last checkpoint that are not about one */
	int64_t signed_ns, retry_ns;

	_Atomic uint64_t covered;

	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t wake;
	bool stop, woken;
	uint64_t settled; /* below and at: what has expired, or may */
	uint64_t expiring_first, expiring_last;
	char refusal[ERR_MSG_MAX];
	char trouble[ERR_MSG_MAX]; /* that may pass */
};

/* The lines of the trail into the tree, until it has the size `end` (0: all that is durable). */
int ledger_take_lines(struct ledger *l, enum tiles_policy policy, uint64_t end, struct err *err);
/* The tree of the last checkpoint; -1 also when nothing may be signed (see the refusal). */
int ledger_load(struct ledger *l, bool clean, struct err *err);
bool ledger_is_refused(struct ledger *l);
void ledger_set_trouble(struct ledger *l, const char *text);

#endif
