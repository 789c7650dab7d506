/*
 * publisher_cursor: how far a sink has come, in a file that needs no new room to be updated.
 *
 * Two slots of 512 bytes, each with a magic, a generation, the identity (log, boot, number) of the
 * last line that is done with, the number of the last one that was delivered (0 where a former version
 * wrote it: unknown), and a CRC-32C; numbers in host order.  A write goes to the slot with
 * the older generation, so a torn write leaves the other one.  One thread at a time.
 */
#ifndef KEYTRAIL_PUBLISHER_CURSOR_H
#define KEYTRAIL_PUBLISHER_CURSOR_H

#include "keytrail/err.h"
#include "keytrail/trail.h"

#include <stdbool.h>
#include <stdint.h>

struct line_id {
	uint64_t seq;
	uint64_t
	    delivered; /* of a sink's position: the last number delivered up to here; 0: none */
	char log[TRAIL_ID_SIZE], boot[TRAIL_ID_SIZE];
};

struct cursor {
	int fd;
	uint64_t generation;
	struct line_id at; /* the last line that is done with; seq 0: none */
};

enum cursor_found {
	CURSOR_NEW,
	CURSOR_KNOWN,
	CURSOR_DAMAGED, /* no slot is valid; at is as for a new one */
};

/* Make or read the file `name`. */
int cursor_open(
    int dirfd, const char *name, struct cursor *c, enum cursor_found *found, struct err *err);
/* What a file says that is there; false when it says nothing. */
bool cursor_look(int dirfd, const char *name, struct line_id *out);
void cursor_close(struct cursor *c);

/* Survives the process when it returns, and a power cut after cursor_sync. */
int cursor_write(struct cursor *c, const struct line_id *at);
int cursor_sync(struct cursor *c);

#endif
