/*
 * descriptors: that they do not run out, and what is done where they do.
 *
 * A client may need a connection to the key service, and who watches keytrail needs one too, so some
 * are kept from clients: enough for all that upstream.pool.max allows and for the process's own, but
 * at most half of RLIMIT_NOFILE.  Any thread.
 */
#ifndef KEYTRAIL_PROXY_DESCRIPTORS_H
#define KEYTRAIL_PROXY_DESCRIPTORS_H

#include "keytrail/config.h"
#include "keytrail/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Is this errno of a want of descriptors or of kernel memory, and so nobody else's fault? */
bool descriptors_are_short(int error);

/* May a client have this one, which was the lowest that was free?  upstream: how many of what is kept
 * the connections to the key service have already. */
bool descriptors_suffice_for(
    int fd, unsigned upstream, const struct config *config, unsigned workers);

/* -1: all that the configuration allows would take more than there may be. */
int descriptors_check(const struct config *config, unsigned workers, struct err *err);

/* A descriptor to have when there is no other; -1: there is none. */
void descriptors_take_spare(int *spare);
/* Nothing is left to accept with: tell so who has been waiting longest.  False: nobody was told. */
bool descriptors_turn_away(int *spare, int listening);

#endif
