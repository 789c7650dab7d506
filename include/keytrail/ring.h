/*
 * ring: a single-producer, single-consumer queue of event lines in a shared file mapping.
 *
 * The file outlives the process, so that a killed process loses nothing: what the producer has
 * committed is found by ring_recover at the next start.  The producer is one worker (or the main
 * thread, "ring.main"), the consumer is the journal.  Positions are byte counts since the ring was
 * made; they only grow.  Space is given back when the consumer releases it, which it does when the
 * line is durable, not before.
 *
 * File: one page of header (magic, format version, epoch, size, head, tail, released, durable
 * segment and offset at the last release, closed flag), then `size` bytes mapped twice in a row, so
 * that every entry is contiguous.  Entry: CRC-32C, length, flags, epoch, then the line; 8-byte
 * aligned.  The sum covers the entry's position too, so that what an earlier turn left behind is
 * never taken for new.  An entry counts only when its epoch is the header's and its sum holds.
 */
#ifndef KEYTRAIL_RING_H
#define KEYTRAIL_RING_H

#include "keytrail/err.h"
#include "keytrail/slice.h"

struct ring;

#define RING_SIZE_MAX ((size_t)1 << 30)

enum ring_flag {
	RING_DURABLE = 1, /* someone waits: sync as soon as the spacing allows */
	RING_SELF = 2,	  /* an event of the sidecar itself */
};

/* Make or reuse <dir>/<name> with `size` bytes of room (a multiple of the page), preallocated, and
 * clear it.  Recover first. */
int ring_open(int dirfd, const char *name, size_t size, struct ring **out, struct err *err);
void ring_close(struct ring *r); /* NULL is allowed; the file stays */

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

/* ---- consumer ---- */

/* The entry at *pos, if one is published: advances *pos past it. */
bool ring_next(struct ring *r, uint64_t *pos, struct slice *line, unsigned *flags);
uint64_t ring_tail(const struct ring *r); /* first position not yet released */
/* All up to pos is durable, in the named segment at this offset. */
void ring_release(struct ring *r, uint64_t pos, uint64_t segment, uint64_t offset);
/* A claim found the ring full since this was last asked; to be asked after ring_release. */
bool ring_was_starved(struct ring *r);
void ring_set_state(struct ring *r, enum ring_state state);

/* ---- recovery ---- */

/* Call `each` for every committed line of the file that was not released, oldest first, with the
 * durable segment and offset at the last release.  Foreign epochs and bad checksums are skipped; a
 * file that is no ring holds nothing.  -1 when the file cannot be read or `each` says so. */
typedef int (*ring_recover_fn)(void *arg, struct slice line, unsigned flags, uint64_t segment,
    uint64_t offset, struct err *err);
int ring_recover(int dirfd, const char *name, ring_recover_fn each, void *arg, struct err *err);

/* Forget what the file holds, once it is durable elsewhere: a new epoch, synced. */
int ring_clear(int dirfd, const char *name, struct err *err);

#endif
