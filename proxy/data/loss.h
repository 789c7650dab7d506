/*
 * loss: the events that a ring had no room for, gathered until one keytrail.loss can be written.
 *
 * Belongs to the ring's producer.  What is gathered stands in a slot of the ring too (ring.h), so
 * that a killed process loses none of it: recovery writes the event.  Losses are counted by action,
 * at most LOSS_ACTIONS of them, and at most LOSS_INITIATORS initiators are named.
 */
#ifndef KEYTRAIL_PROXY_LOSS_H
#define KEYTRAIL_PROXY_LOSS_H

#include "keytrail/event.h"
#include "keytrail/journal.h"
#include "keytrail/metrics.h"
#include "keytrail/ring.h"

#define LOSS_SLOTS	2 /* of the ring; one is written while the other one stands */
#define LOSS_ACTIONS	16
#define LOSS_INITIATORS 32
#define LOSS_NAME_SIZE	65 /* of an initiator, cut */

struct loss {
	struct ring *ring;
	struct journal *journal;
	struct metrics_shard *metrics; /* the producer's */
	/* loss's own */
	uint64_t count; /* 0: nothing is gathered */
	int64_t first_ns, last_ns;
	char id[CLOCK_UUID_SIZE];
	unsigned slot;
	unsigned nactions, ninitiators;
	uint64_t other_actions;
	bool more_initiators;
	bool reasons[METRIC_LOSSES]; /* that there were */
	struct {
		char name[EVENT_ACTION_MAX];
		uint64_t count;
	} actions[LOSS_ACTIONS];
	char initiators[LOSS_INITIATORS][LOSS_NAME_SIZE];
};

void loss_init(
    struct loss *l, struct ring *ring, struct journal *journal, struct metrics_shard *metrics);

/* An event of this action is lost, and counted so, by what the ring's state gives for a reason.  `initiator`: scrubbed, or "". */
void loss_add(struct loss *l, const char *observer, const char *action, const char *initiator,
    int64_t wall_ns);

/* Write what is gathered, if there is room.  True: nothing is left. */
bool loss_flush(struct loss *l, const char *observer);

#endif
