#include "data/worker.h"

#include "keytrail/records.h"
#include "keytrail/clock.h"
#include "keytrail/thread.h"

#include <event2/event.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define RANDOM_POOL	 2048
#define HEAD_SIZE	 4096
#define TALLY_RETRY_MS	 100
#define TALLY_SPACING_MS 1000
#define IDENTITY_AGE_MS	 150000
#define TRIM_MS		 60000

/* The private part of a worker. */
struct worker_thread {
	struct mailbox *mailbox;
	struct mail durable_mail;
	struct worker *worker;
	pthread_t id;
	bool running;
	struct event release_event;
	struct event drain_timer;
	struct wtimer tally_timer, identity_timer, trim_timer;
	int64_t tallied;	/* when they were written */
	struct mail drain_mail; /* part of this struct, so that a stop needs no memory */
	atomic_int drain_how;
	_Atomic int64_t drain_deadline;
	unsigned char random[RANDOM_POOL];
	size_t random_left;
};

/* ---- leases ---- */

static struct lease *
lease_new(struct snapshot *s)
{
	struct lease *l = malloc(sizeof(*l));

	if (l != NULL)
		*l = (struct lease){ snapshot_ref(s), 1 };
	return l;
}

struct lease *
worker_lease_take(struct worker *w)
{
	w->lease->users++;
	return w->lease;
}

void
worker_lease_drop(struct lease *l)
{
	if (--l->users > 0)
		return;
	snapshot_unref(l->snapshot);
	free(l);
}

/* ---- waiting for the journal ---- */

static void
enqueue(struct worker_waiters *q, struct worker_waiter *waiter)
{
	assert(waiter->queue == NULL);
	waiter->queue = q;
	TAILQ_INSERT_TAIL(q, waiter, link);
}

void
worker_wait_durable(struct worker *w, struct worker_waiter *waiter, uint64_t position)
{
	waiter->position = position;
	enqueue(&w->durable_waiters, waiter);
	/* It may have become durable before it was queued; then no mail is left to come. */
	if (ring_durable(w->ring) >= position)
		mailbox_post(w->thread->mailbox, &w->thread->durable_mail);
}

void
worker_wait_room(struct worker *w, struct worker_waiter *waiter)
{
	enqueue(&w->room_waiters, waiter);
}

void
worker_wait_cancel(struct worker_waiter *waiter)
{
	if (waiter->queue != NULL)
		TAILQ_REMOVE(waiter->queue, waiter, link);
	waiter->queue = NULL;
}

/* Positions grow in the order of queueing, so the first that is not durable ends it. */
static bool
release_first(struct worker *w)
{
	struct worker_waiter *waiter = TAILQ_FIRST(&w->durable_waiters);

	if (waiter == NULL || waiter->position > ring_durable(w->ring))
		return false;
	worker_wait_cancel(waiter);
	waiter->ready(waiter->arg);
	return true;
}

static void
on_release(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	unsigned n = 0;

	(void)fd;
	(void)what;
	while (n < WORKER_RELEASES && release_first(w))
		n++;
	if (n == WORKER_RELEASES)
		turns_next(&w->thread->release_event);
}

static void
on_durable(struct mail *m)
{
	struct worker *w =
	    ((struct worker_thread *)((char *)m - offsetof(struct worker_thread, durable_mail)))
		->worker;
	struct worker_waiter *waiter;
	unsigned nroom = 0;

	on_release(-1, 0, w);
	/* Who finds no room queues again, at the end: each is asked once. */
	TAILQ_FOREACH(waiter, &w->room_waiters, link)
	nroom++;
	while (nroom-- > 0 && (waiter = TAILQ_FIRST(&w->room_waiters)) != NULL) {
		worker_wait_cancel(waiter);
		waiter->ready(waiter->arg);
	}
}

/* On the journal's thread. */
static void
notify(void *arg)
{
	struct worker_thread *t = arg;

	mailbox_post(t->mailbox, &t->durable_mail);
}

/* ---- random bytes ---- */

void
worker_random(struct worker *w, unsigned char *out, size_t n)
{
	struct worker_thread *t = w->thread;

	assert(n <= sizeof(t->random));
	if (t->random_left < n) {
		/* Up to 256 bytes getrandom cannot fail or come short once it is seeded. */
		for (size_t i = 0; i < sizeof(t->random); i += 256)
			while (getrandom(t->random + i, 256, 0) != 256)
				continue;
		t->random_left = sizeof(t->random);
	}
	t->random_left -= n;
	memcpy(out, t->random + t->random_left, n);
	explicit_bzero(t->random + t->random_left, n);
}

/* ---- tallies ---- */

static bool
flush_tallies(struct worker *w)
{
	const char *observer = w->lease->snapshot->observer;
	bool losses = tally_flush(&w->losses, observer);

	return tally_flush(&w->refusals, observer) && losses;
}

static void
on_tally_timer(void *arg)
{
	struct worker *w = arg;

	if (flush_tallies(w))
		w->thread->tallied = clock_mono_ns();
	else
		wtimer_set(&w->thread->tally_timer, TALLY_RETRY_MS);
}

static void
count(struct worker *w, struct tally *t, const char *word, const char *name, unsigned slot)
{
	int64_t since = (clock_mono_ns() - w->thread->tallied) / CLOCK_NS_PER_MS;

	tally_add(t, w->lease->snapshot->observer,
	    &(struct tally_item){ word, name, clock_wall_ns(), slot });
	if (w->losses.count + w->refusals.count == 1)
		wtimer_set(&w->thread->tally_timer, since < TALLY_SPACING_MS - TALLY_RETRY_MS
							? (unsigned)(TALLY_SPACING_MS - since)
							: TALLY_RETRY_MS);
}

void
worker_lose(struct worker *w, const char *action, const char *initiator, unsigned slot)
{
	count(w, &w->losses, action, initiator, slot);
}

void
worker_count_refusal(
    struct worker *w, const struct refusal_info *why, const char *source, unsigned slot)
{
	count(w, &w->refusals, why->label, source, slot);
}

void
worker_starved(struct worker *w, const char *what)
{
	metrics_add(w->metrics, METRIC_OUT_OF_MEMORY, 0, 1);
	log_error(w->log, "out_of_memory", "memory is short: %s was given up", what);
}

/* ---- who asks ---- */

struct peer *
worker_hold_source(struct worker *w, const unsigned char address[16], int64_t now)
{
	struct peer *peer = peers_hold(w->peers, address, now);

	if (peer != NULL)
		return peer;
	if (errno != ENOSPC)
		worker_starved(w, "a source");
	else
		log_warn(w->log, "too_many_sources",
		    "%d sources are remembered: others get no new connections, and through trusted "
		    "networks no limits",
		    PEERS_MAX);
	metrics_add(w->metrics, METRIC_SOURCES_UNKNOWN, 0, 1);
	return NULL;
}

static void
on_identity_timer(void *arg)
{
	struct worker *w = arg;

	if (identity_memo_age(&w->identities))
		wtimer_set(&w->thread->identity_timer, IDENTITY_AGE_MS);
}

void
worker_identify(
    struct worker *w, struct slice authorization, enum event_names names, struct identity *out)
{
	/* What is to be hashed anew for each event is read anew. */
	if (names == EVENT_NAME_HMAC) {
		identity_from_authorization(authorization, out);
		return;
	}
	identity_recall(&w->identities, authorization, names == EVENT_NAME_PLAIN, out);
	if (w->thread->identity_timer.deadline == 0)
		wtimer_set(&w->thread->identity_timer, IDENTITY_AGE_MS);
}

/* ---- pools ---- */

/* As long as there are connections, and until what they left is gone. */
static void
on_trim_timer(void *arg)
{
	struct worker *w = arg;
	struct pool *pools[] = { &w->reads, &w->heads, &w->exchanges };
	bool again = w->nconns > 0;

	for (size_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++)
		again |= pool_trim(pools[i]);
	if (again)
		wtimer_set(&w->thread->trim_timer, TRIM_MS);
}

/* ---- draining ---- */

void
worker_connection_gone(struct worker *w)
{
	if (w->draining != WORKER_STAYS && w->nconns == 0)
		event_base_loopbreak(w->base); /* loopexit allocates; what is left is reaped */
}

static void
on_drain_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;

	(void)fd;
	(void)what;
	w->hooks->abort(w);
}

static void
drain(struct worker *w)
{
	int64_t left = w->thread->drain_deadline - clock_mono_ns();
	struct timeval tv = { 0, 0 };

	if (left > 0)
		tv = (struct timeval){ left / CLOCK_NS_PER_S, left % CLOCK_NS_PER_S / 1000 };
	w->draining = (enum worker_draining)w->thread->drain_how;
	w->hooks->drain(w);
	if (evtimer_add(&w->thread->drain_timer, &tv) == -1)
		w->hooks->abort(w);
	worker_connection_gone(w);
}

/* ---- mails from main: each is allocated by the sender and freed here ---- */

struct worker_mail {
	struct mail mail; /* first: a struct mail * is cast to this */
	struct worker *worker;
	int fd;
	struct sockaddr_storage peer;
	struct lease *lease;
};

static void
deliver_accept(struct mail *m)
{
	struct worker_mail *wm = (struct worker_mail *)m;

	struct worker *w = wm->worker;

	w->hooks->accept(w, wm->fd, &wm->peer);
	if (w->thread->trim_timer.deadline == 0)
		wtimer_set(&w->thread->trim_timer, TRIM_MS);
	free(wm);
}

static void
deliver_reload(struct mail *m)
{
	struct worker_mail *wm = (struct worker_mail *)m;
	struct worker *w = wm->worker;

	worker_lease_drop(w->lease);
	w->lease = wm->lease;
	w->hooks->reload(w);
	free(wm);
}

static void
deliver_drain(struct mail *m)
{
	struct worker_thread *t =
	    (struct worker_thread *)((char *)m - offsetof(struct worker_thread, drain_mail));

	drain(t->worker);
}

static struct worker_mail *
mail_new(struct worker *w, void (*deliver)(struct mail *m))
{
	struct worker_mail *wm = calloc(1, sizeof(*wm));

	if (wm == NULL)
		return NULL;
	wm->mail.deliver = deliver;
	wm->worker = w;
	return wm;
}

void
worker_post(struct worker *w, struct mail *m)
{
	mailbox_post(w->thread->mailbox, m);
}

int
worker_accept(struct worker *w, int fd, const struct sockaddr_storage *peer)
{
	struct worker_mail *wm = mail_new(w, deliver_accept);

	if (wm == NULL) {
		close(fd);
		atomic_fetch_sub_explicit(w->open_connections, 1, memory_order_relaxed);
		return -1;
	}
	wm->fd = fd;
	wm->peer = *peer;
	worker_post(w, &wm->mail);
	return 0;
}

struct worker_reload {
	unsigned n;
	struct worker_mail *mails[CONFIG_WORKERS_MAX];
};

struct worker_reload *
worker_reload_prepare(
    struct worker *const *workers, unsigned n, struct snapshot *next, struct err *err)
{
	struct worker_reload *r = calloc(1, sizeof(*r));

	for (unsigned i = 0; r != NULL && i < n; i++) {
		struct worker_mail *wm = mail_new(workers[i], deliver_reload);

		if (wm == NULL || (wm->lease = lease_new(next)) == NULL) {
			free(wm);
			worker_reload_cancel(r);
			r = NULL;
		} else {
			r->mails[r->n++] = wm;
		}
	}
	if (r == NULL)
		err_set(err, "memory is short");
	return r;
}

void
worker_reload_commit(struct worker_reload *r)
{
	for (unsigned i = 0; i < r->n; i++)
		worker_post(r->mails[i]->worker, &r->mails[i]->mail);
	free(r);
}

void
worker_reload_cancel(struct worker_reload *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		worker_lease_drop(r->mails[i]->lease);
		free(r->mails[i]);
	}
	free(r);
}

void
worker_drain(struct worker *w, enum worker_draining how, int64_t deadline_ns)
{
	w->thread->drain_how = how;
	w->thread->drain_deadline = deadline_ns;
	worker_post(w, &w->thread->drain_mail);
}

/* ---- life ---- */

static void *
thread_main(void *arg)
{
	struct worker *w = arg;

	records_keep();
	event_base_dispatch(w->base);
	records_release();
	return NULL;
}

static struct event_base *
base_new(void)
{
	struct event_config *cfg = event_config_new();
	struct event_base *base;

	if (cfg == NULL)
		return NULL;
	/* Edge triggers are what stream is built on; one thread uses the base, so no locks. */
	event_config_require_features(cfg, EV_FEATURE_ET | EV_FEATURE_O1 | EV_FEATURE_EARLY_CLOSE);
	event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
	base = event_base_new_with_config(cfg);
	event_config_free(cfg);
	return base;
}

struct worker *
worker_new(const struct worker_opts *o, struct err *err)
{
	struct worker *w = calloc(1, sizeof(*w));
	struct worker_thread *t = calloc(1, sizeof(*t));
	unsigned char key[KEYHASH_KEY_SIZE];

	if (w == NULL || t == NULL || (w->lease = lease_new(o->snapshot)) == NULL ||
	    (w->base = base_new()) == NULL) {
		err_set(err, "worker %u: no memory, or no event loop with edge triggers", o->index);
		free(t);
		goto fail;
	}
	w->thread = t;
	t->worker = w;
	t->durable_mail.deliver = on_durable;
	t->drain_mail.deliver = deliver_drain;
	turns_init(&w->turns, w->base);
	event_assign(&t->release_event, w->base, -1, 0, on_release, w);
	evtimer_assign(&t->drain_timer, w->base, on_drain_deadline, w);
	wtimers_init(&w->timers, w->base);
	wtimer_init(&t->tally_timer, &w->timers, on_tally_timer, w);
	wtimer_init(&t->identity_timer, &w->timers, on_identity_timer, w);
	wtimer_init(&t->trim_timer, &w->timers, on_trim_timer, w);
	w->index = o->index;
	w->hooks = o->hooks;
	w->log = o->log;
	w->metrics = o->metrics;
	w->ring = o->ring;
	w->journal = o->journal;
	tally_init(&w->losses, &tally_losses, w->ring, w->journal, w->metrics);
	tally_init(&w->refusals, &tally_refusals, w->ring, w->journal, w->metrics);
	w->open_connections = o->open_connections;
	w->open_upstream = o->open_upstream;
	w->degrade = o->degrade;
	w->peers = o->peers;
	w->shapes = o->shapes;
	pool_init(&w->reads, STREAM_READ, POOL_UNBOUNDED);
	pool_init(&w->heads, HEAD_SIZE, POOL_UNBOUNDED);
	TAILQ_INIT(&w->conns);
	TAILQ_INIT(&w->durable_waiters);
	TAILQ_INIT(&w->room_waiters);
	worker_random(w, key, sizeof(key));
	if (identity_memo_init(&w->identities, key) == -1) {
		err_set(err, "worker %u: memory is short", o->index);
		goto fail;
	}
	if ((t->mailbox = mailbox_new(w->base, err)) == NULL ||
	    (w->stream_method = stream_method_new(err)) == NULL || w->hooks->init(w, err) == -1 ||
	    journal_add_ring(o->journal, o->ring, notify, t, err) == -1)
		goto fail;
	return w;
fail:
	worker_free(w);
	return NULL;
}

int
worker_start(struct worker *w, struct err *err)
{
	char name[16];

	snprintf(name, sizeof(name), "worker-%u", w->index);
	if (thread_start(&w->thread->id, name, thread_main, w, err) == -1)
		return -1;
	w->thread->running = true;
	return 0;
}

void
worker_join(struct worker *w)
{
	if (w->thread->running)
		pthread_join(w->thread->id, NULL);
	w->thread->running = false;
	turns_reap_all(&w->turns);
	/* What finds no room now is found by recovery. */
	flush_tallies(w);
}

void
worker_free(struct worker *w)
{
	if (w == NULL)
		return;
	if (w->thread != NULL) {
		w->hooks->fini(w);
		turns_reap_all(&w->turns);
		mailbox_free(w->thread->mailbox);
		stream_method_free(w->stream_method);
		turns_fini(&w->turns);
		event_del(&w->thread->release_event);
		event_del(&w->thread->drain_timer);
		wtimers_fini(&w->timers);
		explicit_bzero(w->thread->random, sizeof(w->thread->random));
		free(w->thread);
	}
	pool_fini(&w->reads);
	pool_fini(&w->heads);
	pool_fini(&w->exchanges);
	if (w->lease != NULL)
		worker_lease_drop(w->lease);
	if (w->base != NULL) {
		/* Lookups that were cancelled are freed in a turn of the loop; nothing else is left. */
		event_base_loop(w->base, EVLOOP_NONBLOCK);
		event_base_free(w->base);
	}
	identity_memo_fini(&w->identities);
	free(w);
}
