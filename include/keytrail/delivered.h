/*
 * delivered: what arrived at a receiver of a sink, judged log by log.
 *
 * A receiver, a topic of Kafka say, holds the events of many logs, each perhaps more than once and in
 * some order, in the format activity-tracker with its member `delivery`.  Without that member an event
 * is the line that was recorded, and its hash the leaf that was signed.  Verdicts are those of
 * keytrail/verify.h, of what was delivered to the sink: *complete* follows each event to the one
 * delivered before it, *unaltered* the hashes to the root of a checkpoint that arrived too.  What was
 * delivered before the first event that is here, and after the last, cannot be told.
 *
 * Any thread, one at a time.  Memory: 64 bytes an event.
 */
#ifndef KEYTRAIL_DELIVERED_H
#define KEYTRAIL_DELIVERED_H

#include "keytrail/checkpoint.h"
#include "keytrail/err.h"
#include "keytrail/slice.h"
#include "keytrail/trail.h"
#include "keytrail/verify.h"

struct delivered_log {
	char id[TRAIL_ID_SIZE];
	uint64_t events;   /* different numbers; the report has the first and the last */
	uint64_t repeated; /* arrivals of a number that was there */
	uint64_t stubs;	   /* of events that the receiver had rejected */
	char last_at[TRAIL_TIME_SIZE]; /* when the last one was recorded */
	struct verify_report report;
};

struct delivered;

/* The keys are borrowed until delivered_free.  NULL: memory is short. */
struct delivered *delivered_new(const struct checkpoint_key *keys, size_t nkeys);
void delivered_free(struct delivered *d); /* NULL is allowed */

/* A line that arrived, without its newline: 1, 0 when it is no event in that format; -1 when memory is
 * short, or OpenSSL's. */
int delivered_take(struct delivered *d, struct slice line, struct err *err);

/* After the last line, once: each log, in the order in which they were met first.  -1: tell said so. */
typedef int (*delivered_fn)(void *arg, const struct delivered_log *log);
int delivered_judge(struct delivered *d, delivered_fn tell, void *arg);

#endif
