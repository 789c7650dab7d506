/*
 * chronicle: the events of the sidecar's own life (keytrail.start, .stop, .reload ...), written
 * into the trail by the main thread through its own ring.
 */
#ifndef KEYTRAIL_PROXY_CHRONICLE_H
#define KEYTRAIL_PROXY_CHRONICLE_H

#include "data/loss.h"
#include "keytrail/event.h"
#include "keytrail/journal.h"
#include "keytrail/metrics.h"
#include "keytrail/ring.h"

struct chronicle {
	struct loss loss;     /* knows "ring.main", the journal and main's metrics */
	const char *observer; /* "keytrail/<log id>" */
};

struct chronicle_entry {
	const char *action; /* "keytrail.start" */
	enum severity severity;
	enum event_outcome outcome;
	const char *message;
	const struct event_detail *details;
	size_t ndetails;
};

/* Never waits; what finds no room is counted as lost, and written about when there is room again.  The position to wait for, 0 when lost. */
uint64_t chronicle_record(struct chronicle *c, const struct chronicle_entry *e);

/* Wait until that position is durable, at most ms milliseconds: for a start, which no request may
 * precede in the trail. */
bool chronicle_wait(const struct chronicle *c, uint64_t position, unsigned ms);

#endif
