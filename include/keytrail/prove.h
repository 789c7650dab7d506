/*
 * prove: one line of a trail, and the proof (proof.h) that it is in the log, from the files of the
 * trail's directory.  Blocks on the disk; any thread, while the trail is written or not.
 */
#ifndef KEYTRAIL_PROVE_H
#define KEYTRAIL_PROVE_H

#include "keytrail/buf.h"
#include "keytrail/err.h"

enum prove_result {
	PROVE_DONE,
	PROVE_NO_LINE,	/* of that number; or it is of an earlier log */
	PROVE_UNSIGNED, /* not yet, or nothing is */
	PROVE_FAILED,
};

struct prove {
	struct buf line, text; /* without its newline; the proof's file */
	uint64_t covered;      /* the last number that the checkpoint covers, 0: there is none */
};

/* Errors name the event.  `out` is begun with all zero, and ended by prove_fini, whatever comes. */
enum prove_result prove_event(int dirfd, uint64_t seq, struct prove *out, struct err *err);
void prove_fini(struct prove *p);

#endif
