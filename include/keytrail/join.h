/*
 * join: the lines of a trail as rows, one a call.
 *
 * An intent and the closing event of its call have one `id`; of the two the closing event is the
 * row.  An intent is a row of its own only where no closing event followed: its call is pending.
 * Lines are copied.  No I/O; one joiner is used by one thread.
 */
#ifndef KEYTRAIL_JOIN_H
#define KEYTRAIL_JOIN_H

#include "keytrail/err.h"
#include "keytrail/slice.h"

struct join;

struct join_row {
	uint64_t seq;
	struct slice line; /* as it stands in the trail */
};

struct join *join_new(struct err *err);
void join_free(struct join *j); /* NULL is allowed */

/* The next line of the trail.  It ends the wait of the intent that it closes, and becomes a row if
 * it is `wanted`.  -1 when memory is short. */
int join_add(struct join *j, struct slice line, uint64_t seq, bool wanted, struct err *err);

/* No more lines will come: whatever waits is pending. */
void join_settle(struct join *j);

/* The next row that no later line can take back, borrowed until the next call; in order. */
bool join_next(struct join *j, struct join_row *out);

/* The same for who follows the trail: past intents that wait, for as long as it takes. */
bool join_next_closed(struct join *j, struct join_row *out);

size_t join_rows(const struct join *j);	   /* held, whether they wait or not */
size_t join_waiting(const struct join *j); /* intents among them that nothing closed yet */
size_t join_bytes(const struct join *j);   /* of the lines held */
uint64_t join_first(const struct join *j); /* number of the first row held; 0: none */

#endif
