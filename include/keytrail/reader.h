/*
 * reader: one thread that answers queries of the trail (query.h), one at a time, in order.
 *
 * A query takes at most READER_QUERY_MS and READER_QUEUE of them wait or run, so that an answer is
 * whole within as many times that or not begun.  It opens the trail for each query and holds nothing
 * in between.  When nothing is asked it makes indexes (trail_index.h), for a tenth of a processor's time at
 * most, and queries use them.
 */
#ifndef KEYTRAIL_READER_H
#define KEYTRAIL_READER_H

#include "keytrail/query.h"

#include <stdatomic.h>

#define READER_QUEUE	4
#define READER_QUERY_MS 1000

struct reader;

/* The submitter's; untouched by it (but for reader_cancel) until `done` was called. */
struct reader_job {
	struct query query;
	/* On the reader's thread; must not block. */
	void (*piece)(struct reader_job *job, struct slice bytes);
	/* Not NULL: what is done with the trail instead of the query, soon. */
	int (*run)(struct reader_job *job, int dirfd, struct err *err);
	/* The last call for this job.  rc and err as of query_run; also called for a cancelled job. */
	void (*done)(struct reader_job *job, int rc, const struct err *err);
	atomic_bool cancelled;
};

struct reader_opts {
	int dirfd;		  /* of the trail; stays open */
	trail_corrupt_fn corrupt; /* on the reader's thread; or NULL */
	void *arg;		  /* of it */
	uint64_t keep_free;	  /* bytes that indexes leave to the trail */
};

int reader_start(const struct reader_opts *opts, struct reader **out, struct err *err);

/* False: the queue is full. */
bool reader_submit(struct reader *r, struct reader_job *job);
/* No piece is wanted any more: `done` comes soon. */
void reader_cancel(struct reader_job *job);

/* Cancel all, wait for the thread; every job's `done` has been called then.  NULL is allowed. */
void reader_stop(struct reader *r);

#endif
