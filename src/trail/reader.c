#include "reader_internal.h"

#include "keytrail/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct reader {
	struct reader_opts opts;
	struct reader_index index; /* the thread's */
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows; never held while anything is read */
	pthread_cond_t changed;
	struct reader_job *jobs[READER_QUEUE]; /* the first one runs */
	size_t n;
	bool stop;
};

/* ---- the thread ---- */

static int64_t
now_ns(void *arg)
{
	(void)arg;
	return clock_mono_ns();
}

static bool
is_cancelled(void *arg)
{
	struct reader_job *job = arg;

	return atomic_load_explicit(&job->cancelled, memory_order_relaxed);
}

static int
write_piece(void *arg, struct slice piece)
{
	struct reader_job *job = arg;

	job->piece(job, piece);
	return 0;
}

static int
run_job(const struct reader *r, struct reader_job *job, struct err *err)
{
	struct query_run run = { .dirfd = r->opts.dirfd,
		.query = &job->query,
		.index = r->index.index,
		.deadline_ns = clock_mono_ns() + READER_QUERY_MS * CLOCK_NS_PER_MS,
		.now_ns = now_ns,
		.cancelled = is_cancelled,
		.write = write_piece,
		.arg = job,
		.corrupt = r->opts.corrupt,
		.corrupt_arg = r->opts.arg };

	return job->run != NULL ? job->run(job, r->opts.dirfd, err) : query_run(&run, err);
}

/* With the lock.  False: the time has come. */
static bool
wait_until(struct reader *r, int64_t ns)
{
	struct timespec ts = { (time_t)(ns / CLOCK_NS_PER_S), (long)(ns % CLOCK_NS_PER_S) };

	return pthread_cond_timedwait(&r->changed, &r->lock, &ts) != ETIMEDOUT;
}

/* It stays in the queue while it runs, so that it counts.  While there is none, indexes are made. */
static struct reader_job *
wait_for_job(struct reader *r)
{
	int64_t due = clock_mono_ns();
	struct reader_job *job;

	pthread_mutex_lock(&r->lock);
	while (r->n == 0 && !r->stop) {
		if (wait_until(r, due))
			continue;
		pthread_mutex_unlock(&r->lock);
		due = reader_index_make(&r->index);
		pthread_mutex_lock(&r->lock);
	}
	job = r->n > 0 ? r->jobs[0] : NULL;
	pthread_mutex_unlock(&r->lock);
	return job;
}

static void
forget_first(struct reader *r)
{
	pthread_mutex_lock(&r->lock);
	memmove(&r->jobs[0], &r->jobs[1], --r->n * sizeof(r->jobs[0]));
	pthread_mutex_unlock(&r->lock);
}

static void *
run(void *arg)
{
	struct reader *r = arg;
	struct reader_job *job;
	struct err err = { "" };

	while ((job = wait_for_job(r)) != NULL) {
		int rc = run_job(r, job, &err);

		forget_first(r); /* from `done` on the job may be gone */
		job->done(job, rc, &err);
	}
	return NULL;
}

/* ---- the callers' side ---- */

static void
reader_free(struct reader *r)
{
	trail_index_close(r->index.index);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static struct reader *
reader_new(const struct reader_opts *opts)
{
	struct reader *r = calloc(1, sizeof(*r));
	pthread_condattr_t attr;

	if (r == NULL)
		return NULL;
	r->opts = *opts;
	r->index.keep_free = opts->keep_free;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &attr);
	pthread_condattr_destroy(&attr);
	return r;
}

int
reader_start(const struct reader_opts *opts, struct reader **out, struct err *err)
{
	struct reader *r = reader_new(opts);

	if (r == NULL)
		return err_set(err, "reader: memory is short");
	if (trail_index_open(opts->dirfd, &r->index.index, err) == -1) {
		reader_free(r);
		return -1;
	}
	if (thread_start(&r->thread, "reader", run, r, err) == -1) {
		reader_free(r);
		return -1;
	}
	*out = r;
	return 0;
}

bool
reader_submit(struct reader *r, struct reader_job *job)
{
	bool room;

	pthread_mutex_lock(&r->lock);
	room = r->n < READER_QUEUE && !r->stop;
	if (room) {
		r->jobs[r->n++] = job;
		pthread_cond_signal(&r->changed);
	}
	pthread_mutex_unlock(&r->lock);
	return room;
}

void
reader_cancel(struct reader_job *job)
{
	atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
}

void
reader_stop(struct reader *r)
{
	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	for (size_t i = 0; i < r->n; i++)
		reader_cancel(r->jobs[i]);
	pthread_cond_signal(&r->changed);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	reader_free(r);
}
