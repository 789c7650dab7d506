/*
 * ring: a single-producer, single-consumer queue of event lines in a shared file mapping, and the
 * producer's table of calls in flight.
 *
 * The file outlives the process, so that a killed process loses nothing: what the producer has
 * committed is found by ring_recover at the next start.  The producer is one worker (or the main
 * thread, "ring.main"), the consumer is the journal.  Positions are byte counts since the ring was
 * made; they only grow.  Space is given back when the consumer releases it, which it does when the
 * line is durable, not before.
 *
 * A slot of the table holds one complete line that is to count should the process die before it has
 * committed a better one: publish the slot, act, commit the line, close the slot.  Killed between
 * the last two, both are found; they are told apart by the line's id.
 *
 * File: one page of header (magic, format version, epoch, size, slots, head, tail, released, durable
 * segment and offset at the last release, horizon, closed flag), then `size` bytes mapped twice in
 * a row, so that every entry is contiguous, then a page or more of slot states (8 bytes each) and
 * the slots (56 bytes and the line each; about 40 MiB for 10,000 of 4 KiB).  All of it is reserved
 * on the disk; memory is taken only by the slots that are used, the lowest ones first.
 * Entry: CRC-32C, length, flags, epoch, then the line; 8-byte aligned.  The sum covers the entry's
 * position too, so that what an earlier turn left behind is never taken for new.  An entry or a
 * slot counts only when its epoch is the header's and its sum holds.
 */
#ifndef KEYTRAIL_RING_H
#define KEYTRAIL_RING_H

#include "keytrail/err.h"
#include "keytrail/slice.h"

struct ring;

#define RING_SIZE_MAX	   ((size_t)1 << 30)
#define RING_SLOTS_MAX	   65536
#define RING_SLOT_SIZE_MAX ((size_t)65536)

enum ring_flag {
	RING_DURABLE = 1, /* someone waits: sync as soon as the spacing allows */
	RING_SELF = 2,	  /* an event of the sidecar itself */
	RING_SLOT = 4,	  /* in recovery: the line of an open slot, not a committed one */
};

struct ring_opts {
	size_t size;	  /* of the queue: bytes, a multiple of the page */
	unsigned slots;	  /* how many; may be 0 */
	size_t slot_size; /* the longest line of a slot, a multiple of 8 */
	/* The trail's durable mark.  A power cut may leave the header as ring_open made it. */
	uint64_t segment, offset;
};

/* Make or reuse <dir>/<name>, preallocated, and clear it.  Recover first. */
int ring_open(
    int dirfd, const char *name, const struct ring_opts *opts, struct ring **out, struct err *err);
void ring_close(struct ring *r); /* NULL is allowed; the file stays */

uint32_t ring_version(void); /* of the file's format */
/* Be the consumer of the ring that another process fills, from where the one before has ended: of the
 * file nothing changes.  One that was cut, or is of another version, is none.  How much was committed
 * to it nobody here knows (ring_committed is 0). */
int ring_adopt(int dirfd, const char *name, struct ring **out, struct err *err);
/* Where another process has been the consumer of an own ring: from where it has ended. */
void ring_follow(struct ring *r);
/* The file gets another name, and may take that of one there.  Syncing the directory is the caller's. */
int ring_rename(struct ring *r, int dirfd, const char *name, struct err *err);
/* Remove the file and close the ring; after -1 it is still there. */
int ring_remove(struct ring *r, int dirfd, struct err *err);

/* ---- producer ---- */

/* Set room aside for one line of at most `max` bytes, before a request is forwarded.  False when
 * the ring is full or the journal has closed it. */
bool ring_claim(struct ring *r, size_t max);
/* Give a claim back without a line. */
void ring_unclaim(struct ring *r, size_t max);

/* Where to write a line of at most `max` bytes that was claimed; never NULL. */
char *ring_line(struct ring *r, size_t max);
/* Publish the n bytes written there and end the claim of `max`.  The position at its end: the line
 * is durable when ring_durable(r) has reached it. */
uint64_t ring_commit(struct ring *r, size_t max, size_t n, unsigned flags);

uint64_t ring_durable(const struct ring *r); /* any thread */

enum ring_state { RING_OK, RING_NO_ROOM, RING_FAILED };
enum ring_state ring_state(const struct ring *r); /* what the journal last said of the trail */

/* ---- producer: calls in flight ---- */

#define RING_NO_SLOT UINT32_MAX

const char *ring_name(const struct ring *r); /* of its file */
size_t ring_size(const struct ring *r);	     /* of the queue: bytes */
unsigned ring_slots(const struct ring *r);   /* how many there are */
/* A free slot, or RING_NO_SLOT. */
unsigned ring_slot_take(struct ring *r);
/* Where to write its line, at most slot_size bytes; before it is published. */
char *ring_slot_line(struct ring *r, unsigned slot);
/* Before it is published, at most twice: from then on the other one, an open slot, counts no more.  Close
 * it next. */
void ring_slot_instead_of(struct ring *r, unsigned slot, unsigned other);
/* From here on the n bytes written there are found by recovery.  No system call. */
void ring_slot_publish(struct ring *r, unsigned slot, size_t n);
/* The call has its record, or never happened: the slot is free. */
void ring_slot_close(struct ring *r, unsigned slot);

/* ---- consumer ---- */

/* The entry at *pos, if one is published: advances *pos past it, and past what is no entry: somebody
 * has cut the file or written into it. */
bool ring_next(struct ring *r, uint64_t *pos, struct slice *line, unsigned *flags);
/* Is anything published behind pos, be it no entry? */
bool ring_has_more(struct ring *r, uint64_t pos);
/* How many entries behind pos have the flag (0: all), as it seems: nothing is checked. */
uint64_t ring_count(struct ring *r, uint64_t pos, unsigned flag);
/* Entries committed since the ring was opened: from then on, as many are there to be found. */
uint64_t ring_committed(const struct ring *r);
uint64_t ring_tail(const struct ring *r); /* first position not yet released */
/* All up to pos is durable, in the named segment at this offset. */
void ring_release(struct ring *r, uint64_t pos, uint64_t segment, uint64_t offset);
/* A claim found the ring full since this was last asked; to be asked after ring_release. */
bool ring_was_starved(struct ring *r);
/* The file was found cut since this was last asked (keytrail/mapguard.h); it is whole again, but what
 * was in it may be gone. */
bool ring_was_cut(struct ring *r);
/* The file's name, if it was deleted, renamed or replaced in its directory since this was last asked;
 * else NULL.  *mended: it has its name again, and the next start will read it. */
const char *ring_was_unlinked(struct ring *r, int dirfd, bool *mended);
void ring_set_state(struct ring *r, enum ring_state state);

/* ---- consumer: before lines are removed from the trail ---- */

/* The first segment whose lines recovery may need to tell what this ring holds from what is recorded;
 * UINT64_MAX: none. */
uint64_t ring_needs_from(const struct ring *r);
/* What is released or closed is so on the disk too: recovery will not look for its lines.  Syncs. */
int ring_settle(struct ring *r, struct err *err);

/* ---- recovery ---- */

/* Call `each` for every committed line of the file that was not released, oldest first, with the
 * durable segment and offset at the last release; then for the line of every open slot (RING_SLOT),
 * with those at its publishing: a committed line for the same call lies behind them.  Foreign epochs
 * and bad checksums are skipped; a file that is no ring holds nothing.  -1 when the file cannot be
 * read or `each` says so. */
typedef int (*ring_recover_fn)(void *arg, struct slice line, unsigned flags, uint64_t segment,
    uint64_t offset, struct err *err);
int ring_recover(int dirfd, const char *name, ring_recover_fn each, void *arg, struct err *err);

/* Where in the trail the first line of a call that was in flight can be, at the earliest: segment
 * and offset.  After a power cut too, whichever version of its page the disk has.  *segment 0: the
 * file says nothing. */
int ring_horizon(int dirfd, const char *name, uint64_t *segment, uint64_t *offset, struct err *err);

/* Somebody has cut the file: it is shorter than its header says. */
int ring_is_cut(int dirfd, const char *name, bool *cut, struct err *err);

/* Forget what the file holds, once it is durable elsewhere: a new epoch, synced. */
int ring_clear(int dirfd, const char *name, struct err *err);

#endif
