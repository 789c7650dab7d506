/*
 * chronicle: the events of the sidecar's own life (keytrail.start, .stop, .reload ...), written
 * into the trail by the main thread through its own ring.
 *
 * What finds no room there stands in a slot of the ring (ring.h) until there is room, so that a
 * killed process loses none of it.  When the slots are taken too, it is counted as lost.
 *
 * What a killed process could not tell any more may be foretold: it stands in a slot until it is
 * recorded, or until recovery finds it there.
 */
#ifndef KEYTRAIL_PROXY_CHRONICLE_H
#define KEYTRAIL_PROXY_CHRONICLE_H

#include "data/tally.h"
#include "keytrail/event.h"
#include "keytrail/journal.h"
#include "keytrail/metrics.h"
#include "keytrail/ring.h"

#define CHRONICLE_WAITING  8 /* events that a slot each is kept for */
#define CHRONICLE_FORETOLD 2 /* slots; one is written while the other one stands */
#define CHRONICLE_SLOTS	   (CHRONICLE_WAITING + CHRONICLE_FORETOLD + TALLY_SLOTS) /* of the ring */

struct chronicle {
	struct tally losses;  /* knows "ring.main", the journal and main's metrics */
	const char *observer; /* "keytrail/<log id>" */
	uint64_t last;	      /* position of the last event in the ring, 0: none */
	unsigned foretold;    /* slot, or RING_NO_SLOT */
	char foretold_id[CLOCK_UUID_SIZE];
	bool lost; /* the last one: there was no slot either */
	unsigned nwaiting;
	struct {
		unsigned slot;
		size_t n;	      /* bytes of the line */
	} waiting[CHRONICLE_WAITING]; /* oldest first */
};

struct chronicle_entry {
	const char *action; /* "keytrail.start" */
	enum severity severity;
	enum event_outcome outcome;
	const char *message;
	const struct event_detail *details;
	size_t ndetails;
	bool foretold; /* it takes the place of what was foretold */
};

/* The ring, the journal and the metrics that it records with. */
void chronicle_init(struct chronicle *c, const char *observer, struct ring *ring,
    struct journal *journal, struct metrics_shard *metrics);

/* Never waits.  The position to wait for; 0: it found no room. */
uint64_t chronicle_record(struct chronicle *c, const struct chronicle_entry *e);

/* The same, and wait: true when it is durable, or stands in a slot that outlives whatever happens until
 * chronicle_flush, or recovery, records it. */
bool chronicle_assure(struct chronicle *c, const struct chronicle_entry *e, unsigned ms);

/* What recovery shall record when the process dies before it is recorded: one event at a time.  Once
 * more: it is as of now, and recovery need not look further back for it. */
void chronicle_foretell(struct chronicle *c, const struct chronicle_entry *e);

/* Write what found no room, if there is room now.  True: nothing is left. */
bool chronicle_flush(struct chronicle *c);

/* Wait until that position is durable, at most ms milliseconds, and while the trail can be written: for
 * a start, which no request may precede in the trail. */
bool chronicle_wait(const struct chronicle *c, uint64_t position, unsigned ms);

#endif
