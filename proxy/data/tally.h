/*
 * tally: things of one kind that are counted together until one event can tell of them: events that
 * found no room (keytrail.loss), refusals beyond their rate (keytrail.refused).
 *
 * Belongs to the ring's producer.  What is gathered stands in a slot of the ring too (ring.h), so
 * that a killed process loses none of it: recovery writes the event.  The slot takes the place of the
 * lost call's own one, so that a call is either counted or recovered.  It is counted by a word, at
 * most TALLY_WORDS of them apart, and at most TALLY_NAMES of those who caused it are named.
 */
#ifndef KEYTRAIL_PROXY_TALLY_H
#define KEYTRAIL_PROXY_TALLY_H

#include "keytrail/event.h"
#include "keytrail/journal.h"
#include "keytrail/metrics.h"
#include "keytrail/ring.h"

#define TALLY_SLOTS	2 /* of the ring; one is written while the other one stands */
#define TALLY_WORDS	32
#define TALLY_NAMES	32
#define TALLY_NAME_SIZE 65 /* cut */

/* How an event of this kind is written. */
struct tally_kind {
	const char *action; /* "keytrail.loss" */
	enum severity severity;
	const char *message;
	const char *words, *names, *names_cut; /* keys of the details */
	bool
	    lost; /* each is an event lost: counted so, by what the ring's state gives for a reason */
};

extern const struct tally_kind tally_losses;   /* by action; initiators are named */
extern const struct tally_kind tally_refusals; /* by refusal; sources are named */

struct tally {
	const struct tally_kind *kind;
	struct ring *ring;
	struct journal *journal;
	struct metrics_shard *metrics; /* the producer's */
	/* tally's own */
	uint64_t count; /* 0: nothing is gathered */
	int64_t first_ns, last_ns;
	char id[CLOCK_UUID_SIZE];
	unsigned slot;
	unsigned nwords, nnames;
	uint64_t other_words;
	bool more_names;
	bool reasons[METRIC_LOSSES]; /* that there were */
	struct {
		char name[EVENT_ACTION_MAX];
		uint64_t count;
	} words[TALLY_WORDS];
	char names[TALLY_NAMES][TALLY_NAME_SIZE];
};

void tally_init(struct tally *t, const struct tally_kind *kind, struct ring *ring,
    struct journal *journal, struct metrics_shard *metrics);

struct tally_item {
	const char *word;
	const char *name; /* scrubbed, or "" */
	int64_t wall_ns;
	unsigned slot; /* that counts no more, and is closed next; or RING_NO_SLOT */
};

/* One more. */
void tally_add(struct tally *t, const char *observer, const struct tally_item *item);

/* Write what is gathered, if there is room.  True: nothing is left. */
bool tally_flush(struct tally *t, const char *observer);

#endif
