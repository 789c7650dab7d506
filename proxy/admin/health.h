/*
 * health: is this sidecar ready, and if not, why?  Is every call recorded, and what is amiss?
 *
 * Main fills the checks when it is asked; nothing is remembered.  A sink that is down is no reason
 * to be not ready, unless it is required: its events wait in the trail.  Pure.
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

/* "checks":[{"detail":"...","name":"trail","ok":false}],"ready":false */
int health_render_members(const struct health_check *checks, size_t n, struct buf *out);

struct health_sink {
	const char *name;
	const char *error; /* "": it is up */
	double behind_s;   /* age of the oldest event that it has not taken */
};

/* NULL, "" and 0: nothing to say of it. */
struct health_facts {
	bool accepting;
	const char *trail;	 /* why it takes nothing */
	const char *degraded;	 /* until when */
	uint64_t lost;		 /* events, since the start */
	const char *unsigned_;	 /* why what should be signed is not */
	const char *holds;	 /* why nothing is removed */
	const char *certificate; /* until when which file is valid, where that is near */
	double full_s;		 /* until the trail is; INFINITY: not in sight */
	const struct health_sink *sinks;
	size_t nsinks;
};

/* One sentence: whether every call is recorded, then what else is amiss. */
int health_summary(const struct health_facts *f, struct buf *out);

#endif
