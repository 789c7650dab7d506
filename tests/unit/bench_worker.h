/*
 * bench_worker: a worker on a real trail, ring and journal, whose loop the test turns itself.
 */
#ifndef KEYTRAIL_TEST_BENCH_WORKER_H
#define KEYTRAIL_TEST_BENCH_WORKER_H

#include "data/worker.h"
#include "tempdir.h"

#include <assert.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct bench {
	char dir[TEMPDIR_SIZE];
	struct config config; /* the test's to fill, before bench_open */
	struct snapshot snapshot;
	struct trail *trail;
	struct ring *ring;
	struct journal *journal;
	struct metrics *metrics;
	struct log *log;
	atomic_uint connections, upstream;
	struct worker *worker;
	bool started;
};

static inline uint64_t
bench_keep(void *arg)
{
	(void)arg;
	return UINT64_MAX;
}

static inline void
bench_durable(void *arg, uint64_t seq)
{
	(void)arg;
	(void)seq;
}

static inline void
bench_open(struct bench *b, const struct worker_hooks *hooks)
{
	struct trail_recovery rec;
	struct trail_opts trail = {
		.dir = b->dir, .create = true, .segment_size = 65536, .room = 65536
	};
	struct journal_opts journal = { .flush_interval_ms = 20,
		.spacing_min_us = 200,
		.spacing_max_us = 3000,
		.retention_s = 86400,
		.keep_seq = bench_keep,
		.durable = bench_durable };
	struct worker_opts worker = {
		.hooks = hooks, .open_connections = &b->connections, .open_upstream = &b->upstream
	};
	struct ring_opts room = { .size = 65536, .slots = 16, .slot_size = EVENT_LINE_MAX };
	struct err err = { "" };
	int rc;

	alarm(60);
	tempdir_make(b->dir);
	rc = trail_open(&trail, &b->trail, &rec, &err);
	assert(rc == 0);
	rc = ring_open(trail_dirfd(b->trail), "ring.0", &room, &b->ring, &err);
	assert(rc == 0);
	b->metrics = metrics_new();
	b->log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	journal.trail = b->trail;
	journal.log = worker.log = b->log;
	journal.metrics = metrics_shard_new(b->metrics);
	b->journal = journal_new(&journal, &err);
	/* Never the last reference: it lies here, and holds nothing. */
	atomic_init(&b->snapshot.refs, 1000);
	b->snapshot.config = &b->config;
	worker.snapshot = &b->snapshot;
	worker.metrics = metrics_shard_new(b->metrics);
	worker.ring = b->ring;
	worker.journal = b->journal;
	b->worker = worker_new(&worker, &err);
	assert(b->journal != NULL && b->worker != NULL);
	(void)rc;
}

/* The journal runs from here on. */
static inline void
bench_start(struct bench *b)
{
	struct err err;

	b->started = journal_start(b->journal, &err) == 0;
	assert(b->started);
}

static inline void
bench_close(struct bench *b)
{
	struct err err;

	if (b->started)
		journal_stop(b->journal, &err);
	worker_free(b->worker);
	journal_free(b->journal);
	ring_close(b->ring);
	trail_close(b->trail, true);
	metrics_free(b->metrics);
	log_free(b->log);
	tempdir_remove(b->dir);
	alarm(0);
}

/* Of a test whose state it is, on the heap. */
static inline int
bench_teardown(void **state)
{
	bench_close(*state);
	free(*state);
	return 0;
}

/* Do what is due now. */
static inline void
bench_turn(struct bench *b)
{
	event_base_loop(b->worker->base, EVLOOP_NONBLOCK);
}

/* Wait for the next thing to happen, whatever it is. */
static inline void
bench_wait(struct bench *b)
{
	event_base_loop(b->worker->base, EVLOOP_ONCE);
}

/* Put a line into the ring: the position at its end. */
static inline uint64_t
bench_commit(struct bench *b, const char *line)
{
	bool claimed = ring_claim(b->ring, EVENT_LINE_MAX);
	uint64_t position;

	assert(claimed);
	(void)claimed;
	memcpy(ring_line(b->ring, EVENT_LINE_MAX), line, strlen(line));
	position = ring_commit(b->ring, EVENT_LINE_MAX, strlen(line), RING_DURABLE);
	journal_kick(b->journal);
	return position;
}

#endif
