/*
 * filter: which events a sink gets.  Pure.
 *
 * An event passes when each list that has patterns has one for it: of its action, severity and
 * outcome, and of account, region and instance as `logSourceCRN` has them ("" where it has none).
 * Events of the sidecar's own life, checkpoints among them, always pass.
 */
#ifndef KEYTRAIL_FILTER_H
#define KEYTRAIL_FILTER_H

#include "keytrail/config.h"

/* Does it hold anything back? */
bool filter_is_set(const struct config_filter *f);

bool filter_passes(const struct config_filter *f, struct slice line);

#endif
