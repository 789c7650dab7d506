/*
 * follow: one thread that reads the trail for those who look on live.
 *
 * Rows are the lines that fit a query, but for intents: a call is a row when it is closed.  Each
 * follower has a place of his own in the trail, so whoever has no room is waited for; who had come
 * up with the trail, has no room, and is FOLLOW_BEHIND lines behind is let go.  The trail is looked at
 * each FOLLOW_MS while there is anybody: whoever writes it has nothing to tell.
 */
#ifndef KEYTRAIL_FOLLOW_H
#define KEYTRAIL_FOLLOW_H

#include "keytrail/query.h"

#include <stdatomic.h>

#define FOLLOW_MAX    8
#define FOLLOW_MS     100
#define FOLLOW_BEHIND 1000

struct follow;

/* The caller's; untouched by it (but for follow_cancel) until `ended` was called.  The functions are
 * called on the follower's thread and must not block. */
struct follower {
	struct query query; /* its strings and the cursor, 0: what becomes durable from now on */
	bool (*has_room)(struct follower *f);
	void (*row)(struct follower *f, uint64_t seq, struct slice line);
	/* Lines before this number are not shown: they are gone, or he is let go. */
	void (*gap)(struct follower *f, uint64_t next);
	/* The last call.  -1: the trail could not be read, err says why. */
	void (*ended)(struct follower *f, int rc, const struct err *err);
	atomic_bool cancelled;
	/* follow's own */
	struct trail_reader *reader; /* NULL: not begun */
	uint64_t next;
	bool live; /* he has come up with the trail */
};

/* Of the trail in this directory, which stays open.  `corrupt`: on the thread; or NULL. */
int follow_start(
    int dirfd, trail_corrupt_fn corrupt, void *arg, struct follow **out, struct err *err);

/* False: there are FOLLOW_MAX. */
bool follow_add(struct follow *w, struct follower *f);
/* There is room again. */
void follow_wake(struct follow *w);
/* No row is wanted any more: `ended` comes soon. */
void follow_cancel(struct follow *w, struct follower *f);

/* Cancel all, wait for the thread; everybody's `ended` has been called then.  NULL is allowed. */
void follow_stop(struct follow *w);

#endif
