#include "keytrail/follow.h"
#include "keytrail/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define TURN 256 /* lines of one follower, before it is the next one's turn */

/* What a turn has come to. */
enum turn { MORE, WAIT, ENDED, FAILED };

struct follow {
	int dirfd;
	trail_corrupt_fn corrupt;
	void *arg; /* of it */
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows; never held while anything is read */
	pthread_cond_t changed;
	struct follower *all[FOLLOW_MAX]; /* the thread alone takes out */
	unsigned n;
	bool stop, woken;
};

/* ---- the thread ---- */

static int
open_reader(const struct follow *w, struct follower *f, struct err *err)
{
	uint64_t from = f->query.cursor;

	if (trail_reader_open_at(w->dirfd, from, &f->reader, err) == -1)
		return -1;
	if (from == 0) {
		from = trail_reader_durable(f->reader) + 1;
		trail_reader_close(f->reader);
		f->reader = NULL;
		if (trail_reader_open_at(w->dirfd, from, &f->reader, err) == -1)
			return -1;
	}
	f->next = from;
	trail_reader_step_over(f->reader, true);
	trail_reader_on_corrupt(f->reader, w->corrupt, w->arg);
	return 0;
}

/* Whether he shall be waited for who has no room. */
static enum turn
without_room(struct follower *f)
{
	uint64_t durable = trail_reader_durable(f->reader);

	if (!f->live || durable + 1 < f->next + FOLLOW_BEHIND)
		return WAIT;
	f->gap(f, f->next);
	return ENDED;
}

static enum turn
take_line(struct follower *f, struct err *err)
{
	struct slice line;
	uint64_t seq;
	int rc;

	if (atomic_load_explicit(&f->cancelled, memory_order_relaxed))
		return ENDED;
	if (!f->has_room(f))
		return without_room(f);
	if ((rc = trail_reader_next(f->reader, &line, &seq, err)) == -1)
		return FAILED;
	if (rc == 0) {
		f->live = true;
		return WAIT;
	}
	if (seq > f->next)
		f->gap(f, seq);
	f->next = seq + 1;
	if (query_matches(&f->query, line, seq) &&
	    !slice_equal(trail_line_string(line, SLICE("kind")), SLICE("intent")))
		f->row(f, seq, line);
	return MORE;
}

static enum turn
take_turn(const struct follow *w, struct follower *f, struct err *err)
{
	enum turn turn = MORE;

	if (f->reader == NULL && open_reader(w, f, err) == -1)
		return FAILED;
	for (unsigned i = 0; i < TURN && turn == MORE; i++)
		turn = take_line(f, err);
	return turn;
}

static void
end(struct follow *w, unsigned i, int rc, const struct err *err)
{
	struct follower *f = w->all[i];

	pthread_mutex_lock(&w->lock);
	w->all[i] = w->all[--w->n];
	pthread_mutex_unlock(&w->lock);
	trail_reader_close(f->reader);
	f->ended(f, rc, err); /* from here on he may be gone */
}

/* Everybody once, the last first: who ends makes room for one that was looked at.  True: somebody can
 * go on. */
static bool
go_round(struct follow *w, unsigned n)
{
	struct err err = { "" };
	bool more = false;

	for (unsigned i = n; i-- > 0;) {
		enum turn turn = take_turn(w, w->all[i], &err);

		if (turn == ENDED || turn == FAILED)
			end(w, i, turn == FAILED ? -1 : 0, &err);
		more = more || turn == MORE;
	}
	return more;
}

/* With the lock. */
static void
rest(struct follow *w, bool more)
{
	int64_t until = clock_mono_ns() + FOLLOW_MS * CLOCK_NS_PER_MS;
	struct timespec ts = { (time_t)(until / CLOCK_NS_PER_S), (long)(until % CLOCK_NS_PER_S) };

	while (w->n == 0 && !w->stop)
		pthread_cond_wait(&w->changed, &w->lock);
	while (!more && !w->woken && !w->stop &&
	       pthread_cond_timedwait(&w->changed, &w->lock, &ts) != ETIMEDOUT)
		;
	w->woken = false;
}

static void *
run(void *arg)
{
	struct follow *w = arg;
	bool more = false;
	unsigned n;

	for (;;) {
		pthread_mutex_lock(&w->lock);
		rest(w, more);
		n = w->n;
		if (w->stop)
			for (unsigned i = 0; i < n; i++)
				atomic_store_explicit(
				    &w->all[i]->cancelled, true, memory_order_relaxed);
		pthread_mutex_unlock(&w->lock);
		more = go_round(w, n);
		if (n == 0)
			return NULL;
	}
}

/* ---- the callers' side ---- */

static struct follow *
follow_new(int dirfd, trail_corrupt_fn corrupt, void *arg)
{
	struct follow *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;

	if (w == NULL)
		return NULL;
	w->dirfd = dirfd;
	w->corrupt = corrupt;
	w->arg = arg;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	return w;
}

static void
follow_free(struct follow *w)
{
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int
follow_start(int dirfd, trail_corrupt_fn corrupt, void *arg, struct follow **out, struct err *err)
{
	struct follow *w = follow_new(dirfd, corrupt, arg);

	if (w == NULL)
		return err_set(err, "follow: memory is short");
	if (thread_start(&w->thread, "follow", run, w, err) == -1) {
		follow_free(w);
		return -1;
	}
	*out = w;
	return 0;
}

bool
follow_add(struct follow *w, struct follower *f)
{
	bool room;

	pthread_mutex_lock(&w->lock);
	room = w->n < FOLLOW_MAX && !w->stop;
	if (room)
		w->all[w->n++] = f;
	w->woken = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	return room;
}

void
follow_wake(struct follow *w)
{
	pthread_mutex_lock(&w->lock);
	w->woken = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void
follow_cancel(struct follow *w, struct follower *f)
{
	atomic_store_explicit(&f->cancelled, true, memory_order_relaxed);
	follow_wake(w);
}

void
follow_stop(struct follow *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	follow_free(w);
}
