/*
 * health: is this sidecar ready, and if not, why?
 *
 * Main fills the checks when it is asked; nothing is remembered.  A sink that is down is no reason
 * to be not ready: its events wait in the trail.  Pure.
 */
#ifndef KEYTRAIL_HEALTH_H
#define KEYTRAIL_HEALTH_H

#include "keytrail/buf.h"

#define HEALTH_CHECKS_MAX 16

struct health_check {
	const char *name; /* fixed word */
	bool ok;
	char detail[256]; /* our words; "" when there is nothing to say */
};

bool health_ready(const struct health_check *checks, size_t n);

/* "ready\n" or "not ready\n".  -1 when memory is short. */
int health_render_brief(const struct health_check *checks, size_t n, struct buf *out);

/* {"checks":[{"detail":"...","name":"trail","ok":false}],"ready":false} and a newline. */
int health_render_verbose(const struct health_check *checks, size_t n, struct buf *out);

#endif
