/*
 * ring_internal: the file's format and the ring's state, shared by the queue (ring.c), the slots
 * (ring_slots.c) and recovery (ring_recover.c).
 */
#ifndef KEYTRAIL_RING_INTERNAL_H
#define KEYTRAIL_RING_INTERNAL_H

#include "keytrail/ring.h"

#include <stdatomic.h>

#define RING_MAGIC   "KTRING\r\n"
#define RING_VERSION 3
#define RING_LINE    64 /* bytes of a cache line */

/* Each group of members has one writer and a cache line of its own. */
struct ring_header {
	char magic[8];
	uint32_t version;
	uint32_t epoch;
	uint64_t size;
	uint32_t slots, slot_size;
	/* producer */
	_Alignas(RING_LINE) _Atomic uint64_t head;
	/* consumer */
	_Alignas(RING_LINE) _Atomic uint64_t tail;
	_Atomic uint64_t offset;
	_Atomic uint64_t segment;
	_Alignas(RING_LINE) _Atomic uint32_t state;
	_Atomic uint32_t starved; /* the producer found no room since the last release */
	/* producer: who had a slot before this mark has a durable line; segment 0: none had one */
	_Alignas(RING_LINE) _Atomic uint64_t horizon_offset;
	_Atomic uint64_t horizon_segment;
};

_Static_assert(sizeof(struct ring_header) <= 512, "a power cut must not tear the header");

struct ring_entry {
	uint32_t crc; /* of the position and of all that follows */
	uint32_t length;
	uint32_t flags;
	uint32_t epoch;
	char line[];
};

#define RING_SLOT_EMPTY UINT32_MAX
#define RING_REPLACED	2

struct ring_slot {
	uint64_t segment, offset;	    /* the durable mark when it was published */
	uint64_t serial;		    /* of the publishing, in this epoch */
	uint64_t instead_of[RING_REPLACED]; /* serials of slots that count no more, or 0 */
	uint32_t crc;			    /* of the slot's index and of all but itself */
	uint32_t length;		    /* RING_SLOT_EMPTY: closed */
	uint32_t epoch;
	uint32_t reserved;
	char line[];
};

struct ring_mark {
	uint64_t segment, offset;
};

struct ring {
	struct ring_header *h;
	char *data; /* size bytes, twice */
	size_t size;
	size_t mapped;
	uint32_t epoch;
	int fd;
	int guards[2]; /* of the queue's memory and the slots' */
	char name[32];
	bool unlinked; /* and told of */
	/* producer's own */
	_Alignas(RING_LINE) uint64_t head;
	uint64_t claimed;
	uint64_t tail_seen;
	_Atomic uint64_t committed;			  /* entries */
	_Atomic uint64_t horizon_offset, horizon_segment; /* the header's, whatever becomes of it */
	struct ring_slots {
		unsigned n;
		size_t slot_size, mapped;
		_Atomic uint64_t *states; /* one a slot, and the mapping's begin */
		char *slots;
		uint64_t serial;  /* of the last publishing */
		uint32_t *unused; /* a stack */
		unsigned nunused;
		/* Slots are of two generations: when all of the older one are closed, and what took
		 * their places is durable, the younger one's begin is the horizon. */
		unsigned char *generations; /* of each slot */
		unsigned generation;
		unsigned open[2];
		struct ring_mark began[2];
		uint64_t closed_at[2]; /* the head at the last close */
	} slots;
	/* consumer's own */
	_Alignas(RING_LINE) uint64_t head_seen;
	uint64_t released; /* the header's tail, whatever becomes of the file */
};

static inline uint64_t
ring_slot_bytes(size_t slot_size)
{
	return sizeof(struct ring_slot) + slot_size;
}

size_t ring_page(void);
uint64_t ring_file_size(const struct ring_opts *o);
uint64_t ring_entry_size(size_t n);
uint32_t ring_entry_crc(const struct ring_entry *e, uint64_t pos);
bool ring_header_valid(const struct ring_header *h);
/* What the file lacks reads as zeros. */
int ring_read(int fd, void *mem, size_t n, size_t at, const char *name, struct err *err);
int ring_read_header(int fd, struct ring_header *h, const char *name, struct err *err);
/* The epoch after the one in h; a random one when h is none. */
int ring_next_epoch(const struct ring_header *h, uint32_t *epoch, struct err *err);
/* A header as it is at the beginning, synced. */
int ring_write_header(
    int fd, const struct ring_opts *opts, uint32_t epoch, const char *name, struct err *err);

/* Has the file less than its header says? */
int ring_look_for_cut(
    int fd, const struct ring_header *h, bool *cut, const char *name, struct err *err);

/* ---- ring_slots.c ---- */

uint64_t ring_states_bytes(unsigned slots); /* whole pages */
uint64_t ring_slots_bytes(unsigned slots, size_t slot_size);
bool ring_slots_open(const struct ring *r); /* any of them; any thread */
void ring_put_horizon(struct ring *r);	    /* into the header */
uint64_t ring_slot_open_word(uint32_t epoch);
uint32_t ring_slot_crc(const struct ring_slot *s, uint64_t index);
int ring_slots_map(
    struct ring *r, int fd, const struct ring_opts *opts, const char *name, struct err *err);
int ring_slots_init(struct ring *r, const char *name, struct err *err); /* the producer's part */
void ring_slots_fini(struct ring *r);

#endif
