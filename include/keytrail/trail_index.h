/*
 * trail_index: what a sealed segment holds, so that a query need not read it.
 *
 * <dir>/index/<first number>.idx tells which values the members below have in a segment, when its lines
 * were numbered, and which of them has which correlation ID: as keyed hashes, with the key in index/key
 * and eight bytes a line.  It is advisory.  It is believed only if that key has sealed it for this log,
 * and the segment has the inode, the size and the time of change that it had then; and it lets a query
 * pass over a line only where the segment is whole: consecutive numbers from the one in its name, and
 * nothing between them.  Any other segment is read, so that its damage is met.  Recovery, verification
 * and the sinks know nothing of it.
 *
 * A struct trail_index is one thread's; others may make and ask the same files meanwhile.
 */
#ifndef KEYTRAIL_TRAIL_INDEX_H
#define KEYTRAIL_TRAIL_INDEX_H

#include "keytrail/err.h"
#include "keytrail/slice.h"

/* The members that can be asked for. */
enum trail_index_field {
	TRAIL_INDEX_ACTION,
	TRAIL_INDEX_CORRELATION,
	TRAIL_INDEX_INITIATOR, /* its id */
	TRAIL_INDEX_OUTCOME,
	TRAIL_INDEX_SEVERITY,
	TRAIL_INDEX_FIELDS
};

/* As it stands in the line, with its quotes; or empty. */
struct slice trail_index_value(struct slice line, enum trail_index_field field);

struct trail_index;

/* Of the trail in this directory, which stays open. */
int trail_index_open(int dirfd, struct trail_index **out, struct err *err);
void trail_index_close(struct trail_index *ix); /* NULL is allowed */

/* ---- making ---- */

/*
 * Do a piece of what is to be done: remove the indexes of segments that are gone, make those that are
 * missing.  A piece takes a millisecond, the last one of a segment of 64 MiB some tens of them.  1: there
 * is more; 0: not before another segment is sealed or a while has passed; -1: nor then, perhaps.  None is
 * made that leaves less than twice `keep_free` bytes on the file system, and where less than `keep_free` is
 * left all are removed: events are more.
 */
int trail_index_make(struct trail_index *ix, uint64_t keep_free, struct err *err);

/* ---- asking ---- */

struct trail_index_query {
	struct slice want[TRAIL_INDEX_FIELDS]; /* values; empty: any */
	struct slice since, until; /* of trail.at, the second not included; empty: any */
	uint64_t before;	   /* no line from this number on; 0: any */
};

/* The query that is asked next, of the segments that are there now.  What it borrows, until the last
 * trail_index_pass. */
void trail_index_ask(struct trail_index *ix, const struct trail_index_query *q);

/*
 * On from line *seq: true when it and all up to the returned *seq are lines of segments that are whole, and
 * none between the two fits the query.  *fits: that one may; else it is the last of its segment and does
 * not.  False: only reading tells.
 */
bool trail_index_pass(struct trail_index *ix, uint64_t *seq, bool *fits);

#endif
