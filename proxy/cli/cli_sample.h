/*
 * cli_sample: what a scrape of /metrics says of a sidecar's traffic, and what happened between two.
 *
 * Pure.
 */
#ifndef KEYTRAIL_CLI_SAMPLE_H
#define KEYTRAIL_CLI_SAMPLE_H

#include "keytrail/event.h"

#define SAMPLE_ACTIONS_MAX 512 /* more of them are left out */
#define SAMPLE_BUCKETS_MAX 32

struct sample_action {
	char name[EVENT_ACTION_MAX + 1];
	double calls, failed, unknown;
};

struct sample_latency { /* how many took at most `bound` seconds */
	double bound[SAMPLE_BUCKETS_MAX], count[SAMPLE_BUCKETS_MAX];
	size_t n;
};

struct sample {
	struct sample_action actions[SAMPLE_ACTIONS_MAX]; /* in the order of their names */
	size_t nactions;
	struct sample_latency added, all;
	double lost, clients;
};

/* Lines that it does not know are left out, whatever they are. */
void sample_read(struct sample *s, struct slice metrics);

/* What the action had before, or nothing. */
struct sample_action sample_before(const struct sample *before, const char *name);

/* The bound under which the part q of what came since then stayed, in seconds; -1: nothing came. */
double sample_quantile(
    const struct sample_latency *now, const struct sample_latency *before, double q);

#endif
