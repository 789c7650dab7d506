/*
 * rotation: the statement by which one signing key hands over to the next.
 *
 * A signed note (see checkpoint.h) of four lines: `keytrail.key`, the log's origin, the old verifier
 * key and the new one; both keys have signed it.  Both have the same name, so that the origin stays.
 * It lies in <dir>/rotation for the next start, which records it as keytrail.key.  Any thread.
 */
#ifndef KEYTRAIL_ROTATION_H
#define KEYTRAIL_ROTATION_H

#include "keytrail/checkpoint.h"

struct rotation {
	char origin[CHECKPOINT_ORIGIN_MAX];
	struct checkpoint_key old, new;
};

int rotation_write(const struct checkpoint_signer *old, const struct checkpoint_signer *new,
    const char *origin, struct buf *out, struct err *err);
/* GOOD when both keys have signed it. */
enum checkpoint_verdict rotation_read(struct slice note, struct rotation *out, struct err *err);
bool rotation_leads_to(const struct rotation *r, const struct checkpoint_key *k);

/* Read <dir>/rotation: 1, 0 when there is none, -1. */
int rotation_read_file(int dirfd, struct buf *out, struct err *err);

#endif
