/* One sink's thread: read the durable trail, deliver, move the cursor. */

#include "publisher_impl.h"

#include "keytrail/clock.h"
#include "keytrail/fault.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DELIVER_NS	CLOCK_NS_PER_S /* of patience with one batch */
#define SYNC_NS		CLOCK_NS_PER_S /* between syncs of the cursor */
#define LINGER_NS	(10 * CLOCK_NS_PER_MS)
#define BACKOFF_MIN_NS	(100 * CLOCK_NS_PER_MS)
#define BACKOFF_MAX_NS	(30 * CLOCK_NS_PER_S)
#define BACKOFF_STOP_NS (50 * CLOCK_NS_PER_MS)
#define MISSING_NS	CLOCK_NS_PER_S
#define RECORD_NS	CLOCK_NS_PER_S
#define NEVER		INT64_MAX

static uint64_t
durable_of(struct place *s)
{
	return atomic_load(&s->p->durable);
}

/* ---- up and down ---- */

static void
set_error(struct place *s, const char *text)
{
	pthread_mutex_lock(&s->lock);
	snprintf(s->last_error, sizeof(s->last_error), "%s", text);
	pthread_mutex_unlock(&s->lock);
}

/* One line when it goes down, none while it stays so. */
static void
went_wrong(struct place *s, const char *why)
{
	set_error(s, why);
	if (s->failures++ == 0)
		log_error(s->p->log, "sink_down", "sink %s: %s; its events wait in the trail",
		    s->name, why);
	atomic_store(&s->up, false);
}

/* A sink that takes lines but cannot keep them stays down until it can. */
static void
went_well(struct place *s, const char *warning)
{
	if (s->flush_failed)
		return;
	if (s->failures > 0)
		log_info(s->p->log, "sink_up", "sink %s works again after %u failures", s->name,
		    s->failures);
	if (warning[0] != '\0')
		log_warn(s->p->log, "sink_warning", "sink %s: %s", s->name, warning);
	if (warning[0] != '\0' || s->failures > 0)
		set_error(s, warning);
	s->failures = 0;
	atomic_store(&s->up, true);
}

/* Exponential, between half and all of it, so that sinks of many sidecars do not retry together. */
static int64_t
backoff_ns(struct place *s)
{
	unsigned shift = s->failures > 10 ? 10 : s->failures > 0 ? s->failures - 1 : 0;
	int64_t full = BACKOFF_MIN_NS << shift;

	if (full > BACKOFF_MAX_NS)
		full = BACKOFF_MAX_NS;
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return full / 2 + (int64_t)(s->random % (uint64_t)(full / 2 + 1));
}

/* ---- waiting ---- */

static bool
ordered_locked(const struct place *s)
{
	return s->reopen || s->replay || s->next != NULL;
}

static void
wait_locked(struct place *s, int64_t until_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(until_ns / CLOCK_NS_PER_S),
		.tv_nsec = (long)(until_ns % CLOCK_NS_PER_S),
	};

	if (until_ns == NEVER)
		pthread_cond_wait(&s->changed, &s->lock);
	else
		pthread_cond_timedwait(&s->changed, &s->lock, &ts);
}

/* Until then, or an order, or the end of the time for stopping. */
static void
pause_until(struct place *s, int64_t until_ns)
{
	bool was_stopping;

	pthread_mutex_lock(&s->lock);
	was_stopping = s->stopping;
	while (!ordered_locked(s) && s->stopping == was_stopping) {
		int64_t until = s->stopping && s->stop_ns < until_ns ? s->stop_ns : until_ns;

		if (clock_mono_ns() >= until)
			break;
		wait_locked(s, until);
	}
	pthread_mutex_unlock(&s->lock);
}

static void
back_off(struct place *s)
{
	int64_t wait = backoff_ns(s);

	pthread_mutex_lock(&s->lock);
	if (s->stopping && wait > BACKOFF_STOP_NS)
		wait = BACKOFF_STOP_NS;
	pthread_mutex_unlock(&s->lock);
	pause_until(s, clock_mono_ns() + wait);
}

/* Until the durable number is above pos, or until_ns, or an order.  publisher_wake stores the number
 * and then looks at `sleeping`; here it is the other way round, so that one of both sees the other. */
static void
wait_for_events(struct place *s, int64_t until_ns)
{
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->sleeping, true);
	while (!ordered_locked(s) && !s->stopping && durable_of(s) <= s->pos.seq &&
	       clock_mono_ns() < until_ns)
		wait_locked(s, until_ns);
	atomic_store(&s->sleeping, false);
	pthread_mutex_unlock(&s->lock);
}

/* ---- the cursor ---- */

/* After a failed flush: what is not behind the cursor comes again. */
static void
rewind_to_cursor(struct place *s)
{
	publisher_close_reader(s);
	publisher_clear(s);
	s->pos = s->cursor.at;
	s->dirty = s->unflushed = false;
}

static bool
rejects_are_recorded(const struct place *s)
{
	return s->report == 0 || s->p->recorded(s->p->arg, s->report);
}

/* Who is told to stop does not wait: the journal may have stopped before. */
static bool
wait_for_rejects(struct place *s)
{
	int64_t until_ns = clock_mono_ns() + RECORD_NS;

	pthread_mutex_lock(&s->lock);
	atomic_store(&s->sleeping, true);
	while (!rejects_are_recorded(s) && !s->stopping && clock_mono_ns() < until_ns)
		wait_locked(s, until_ns);
	atomic_store(&s->sleeping, false);
	pthread_mutex_unlock(&s->lock);
	return rejects_are_recorded(s);
}

/* Make what is done with safe: -1 when the sink could not. */
static int
commit(struct place *s)
{
	struct err err;
	int rc = 0;

	s->synced_ns = clock_mono_ns();
	publisher_note_figures(s);
	if (!s->dirty)
		return 0;
	if (s->state != NULL && s->ops->flush != NULL)
		rc = s->ops->flush(s->state, clock_mono_ns() + DELIVER_NS, &err);
	if ((s->unflushed = rc == 1))
		return 0;
	if (rc == -1) {
		s->flush_failed = true;
		went_wrong(s, err.msg);
		rewind_to_cursor(s);
		return -1;
	}
	if (s->flush_failed) {
		s->flush_failed = false;
		went_well(s, "");
	}
	FAULT_POINT("sink.after_flush");
	if (!wait_for_rejects(s))
		return 0;
	if (cursor_write(&s->cursor, &s->pos) == -1 || cursor_sync(&s->cursor) == -1) {
		log_error(s->p->log, "cursor_failed", "sink %s: %s: %s", s->name, s->cursor_name,
		    strerror(errno));
		return 0;
	}
	FAULT_POINT("sink.after_cursor");
	s->dirty = false;
	pthread_mutex_lock(&s->lock);
	if (!s->replay)
		atomic_store(&s->keep, s->pos.seq + 1);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* The last time before the sink is closed; what is not known to be safe by then comes again. */
static void
commit_finally(struct place *s, int64_t until_ns)
{
	do
		commit(s);
	while (s->unflushed && clock_mono_ns() < until_ns);
	if (s->unflushed)
		rewind_to_cursor(s);
}

/* pos has moved. */
static void
advance(struct place *s)
{
	s->dirty = true;
	/* Cheap, and repeats nothing when the process is killed; a sink with a flush must not be
	 * overtaken by its cursor. */
	if (s->ops->flush == NULL && rejects_are_recorded(s))
		(void)cursor_write(&s->cursor, &s->pos);
}

/* ---- delivering ---- */

static void
finish_batch(struct place *s)
{
	s->linger_ns = publisher_batch_full(&s->batch) ? 0 : clock_mono_ns() + LINGER_NS;
	publisher_take_rest(s);
	advance(s);
}

/* What was delivered is done with, whatever became of the rest. */
static void
take_delivered(struct place *s, size_t done)
{
	if (done == 0)
		return;
	publisher_take_done(s, done);
	advance(s);
	/* It is slow, but not dead. */
	s->failures = s->failures > 0;
}

static enum sink_result
attempt(struct place *s, size_t n, size_t *done, struct err *why)
{
	const struct batch *b = &s->batch;
	int64_t now = clock_mono_ns();
	enum sink_result result =
	    s->ops->deliver(s->state, b->events + b->first, n, now + DELIVER_NS, done, why);

	if (s->attempt_ns == 0)
		s->attempt_ns = now;
	if (result == SINK_OK)
		*done = n;
	assert(result == SINK_OK || *done < n);
	publisher_note_attempt(s, result, n, *done);
	return result;
}

/* -1: to be tried again later. */
static int
deliver(struct place *s, struct err *err)
{
	struct batch *b = &s->batch;
	size_t n = b->n - b->first, done = 0;
	struct err why = { "" };
	enum sink_result result;

	if (n == 0) {
		finish_batch(s);
		return 0;
	}
	if (publisher_render(s, err) == -1)
		return -1;
	result = attempt(s, n, &done, &why);
	if (result == SINK_OK) {
		FAULT_POINT("sink.after_deliver");
		went_well(s, why.msg);
		publisher_take_done(s, n);
		finish_batch(s);
		return 0;
	}
	take_delivered(s, done);
	if (result == SINK_BUSY)
		return 0;
	if (result == SINK_REJECT) {
		set_error(s, why.msg);
		return publisher_reject_first(s, why.msg, err);
	}
	*err = why;
	pthread_mutex_lock(&s->lock);
	s->counts.retries++;
	pthread_mutex_unlock(&s->lock);
	return -1;
}

/* ---- orders of main ---- */

static int
open_sink(struct place *s, struct err *err)
{
	if (s->ops->open(s->cfg, &s->state, err) == -1)
		return -1;
	s->opened = config_ref(s->config);
	if (s->ops->log_to != NULL)
		s->ops->log_to(s->state, s->p->log);
	return 0;
}

static void
close_sink(struct place *s)
{
	if (s->state == NULL)
		return;
	s->ops->close(s->state);
	s->state = NULL;
	config_unref(s->opened);
}

/* Closed; what is not done with is read again. */
static void
leave_place(struct place *s)
{
	commit_finally(s, 0);
	close_sink(s);
	publisher_close_reader(s);
	publisher_clear(s);
	s->attempt_ns = 0;
}

/* Back, never ahead of what is safe by now.  The order stands until the place is left: what it keeps stays
 * low so long. */
static void
replay(struct place *s)
{
	struct line_id from;

	leave_place(s);
	rewind_to_cursor(s);
	pthread_mutex_lock(&s->lock);
	from = s->replay_from;
	s->replay = false;
	pthread_mutex_unlock(&s->lock);
	if (from.seq < s->pos.seq) {
		s->pos = from;
		s->verify = false;
	}
	s->dirty = true;
	if (cursor_write(&s->cursor, &s->pos) == -1 || cursor_sync(&s->cursor) == -1)
		log_error(s->p->log, "cursor_failed", "sink %s: %s: %s", s->name, s->cursor_name,
		    strerror(errno));
	log_warn(s->p->log, "sink_replay",
	    "sink %s: events from %" PRIu64 " on are delivered again", s->name, s->pos.seq + 1);
}

/* The new settings, for what is read from now on.  A sink whose place did not change stays open, and
 * the batch under way as it is, since the sink may have taken a part of it; else it is read again. */
static void
take_config(struct place *s, const struct config *next)
{
	const struct config_sink *cfg = publisher_find_config(next, s->name);

	if (s->config != NULL && !config_same_place(s->cfg, cfg)) {
		leave_place(s);
		s->failures = 0;
	}
	config_unref(s->config);
	s->config = next;
	s->cfg = cfg;
	s->ops = s->p->types->ops[cfg->type];
}

static void
take_orders(struct place *s)
{
	const struct config *next;
	bool reopen, again;

	pthread_mutex_lock(&s->lock);
	again = s->replay;
	next = s->next;
	s->next = NULL;
	reopen = s->reopen;
	s->reopen = false;
	pthread_mutex_unlock(&s->lock);
	if (next != NULL)
		take_config(s, next);
	if (again)
		replay(s);
	if (reopen && s->state != NULL && s->ops->reopen != NULL)
		s->ops->reopen(s->state);
}

/* ---- the loop ---- */

/* Durable lines that the reader cannot find are damaged, or, for a moment, not yet to be seen. */
static void
wait_for_missing(struct place *s)
{
	int64_t now = clock_mono_ns();

	if (s->missing_ns == 0)
		s->missing_ns = now;
	if (now - s->missing_ns < MISSING_NS) {
		pause_until(s, now + MISSING_NS / 10);
		return;
	}
	log_error(s->p->log, "sink_gap",
	    "sink %s: events %" PRIu64 " to %" PRIu64 " cannot be read", s->name, s->pos.seq + 1,
	    s->seen);
	s->missing_ns = 0;
	pthread_mutex_lock(&s->lock);
	if (s->seen > s->counted) {
		s->counts.missing += s->seen - s->counted;
		s->counted = s->seen;
	}
	pthread_mutex_unlock(&s->lock);
	s->pos.seq = s->seen;
	advance(s);
}

static int
step(struct place *s, struct err *err)
{
	if (s->batch.nread == 0) {
		if (s->reader == NULL && publisher_open_reader(s, err) == -1)
			return -1;
		if (publisher_fill(s, err) == -1)
			return -1;
	}
	/* After the reading, so that the age of what waits for a dead sink is known. */
	if (s->state == NULL && open_sink(s, err) == -1)
		return -1;
	if (s->batch.nread > 0) {
		s->missing_ns = 0;
		return deliver(s, err);
	}
	if (s->failures > 0)
		went_well(s, "");
	if (s->seen > s->pos.seq)
		wait_for_missing(s);
	else
		wait_for_events(s, s->dirty ? s->synced_ns + SYNC_NS : NEVER);
	return 0;
}

static bool
finished(struct place *s)
{
	bool over;

	pthread_mutex_lock(&s->lock);
	/* A position that has not been compared with the trail says nothing yet. */
	over = s->stopping && ((s->pos.seq >= s->stop_seq && !s->verify && !s->unflushed) ||
				  clock_mono_ns() >= s->stop_ns);
	pthread_mutex_unlock(&s->lock);
	return over;
}

static void
finish(struct place *s)
{
	commit_finally(s, s->stop_ns);
	close_sink(s);
	publisher_close_reader(s);
	publisher_clear(s);
	buf_fini(&s->batch.lines);
	buf_fini(&s->batch.texts);
	cursor_close(&s->cursor);
	config_unref(s->config);
	s->config = NULL;
	pthread_mutex_lock(&s->lock);
	/* What a failed flush took back is undelivered. */
	s->counted = s->pos.seq;
	if (s->leaving)
		atomic_store(&s->keep, NOTHING_TO_KEEP);
	s->ended = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void *
publisher_run(void *place)
{
	struct place *s = place;
	struct err err;

	take_orders(s);
	while (!finished(s)) {
		if (!s->unflushed && step(s, &err) == -1) {
			went_wrong(s, err.msg);
			back_off(s);
		} else if (s->linger_ns > clock_mono_ns()) {
			/* Under load, a few batches rather than many. */
			pause_until(s, s->linger_ns);
		}
		if ((s->unflushed || clock_mono_ns() - s->synced_ns >= SYNC_NS) && commit(s) == -1)
			back_off(s);
		take_orders(s);
	}
	finish(s);
	return NULL;
}
