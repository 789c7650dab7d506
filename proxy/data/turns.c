#include "data/turns.h"

#include <event2/event.h>

void
turns_next(struct event *ev)
{
	const struct timeval at_once = { 0, 0 };

	if (evtimer_add(ev, &at_once) == -1)
		event_active(ev, EV_TIMEOUT, 0);
}

/* ---- turns ---- */

static bool
nobody_waits(const struct turns *t)
{
	return t->queues[TURN_STEP].n == 0 && t->queues[TURN_CALL].n == 0;
}

static void
give_turns(struct turn_queue *q, unsigned n)
{
	struct turn *turn;

	while (n-- > 0 && (turn = TAILQ_FIRST(&q->list)) != NULL) {
		turns_cancel(turn);
		turn->ready(turn);
	}
}

static void
on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct turns *t = arg;
	struct turn_queue *calls = &t->queues[TURN_CALL];

	(void)fd;
	(void)what;
	t->turning = true;
	if (t->before_steps == 0) {
		t->before_steps = calls->n;
		give_turns(&t->queues[TURN_STEP], TURN_STEPS);
	}
	give_turns(calls, TURN_CALLS);
	t->before_steps -= t->before_steps < TURN_CALLS ? t->before_steps : TURN_CALLS;
	t->turning = false;
	if (!nobody_waits(t))
		turns_next(&t->turn_event);
}

void
turns_wait(struct turns *t, struct turn *turn, enum turn_kind kind)
{
	if (turn->queue != NULL)
		return;
	if (!t->turning && nobody_waits(t))
		event_active(&t->turn_event, EV_TIMEOUT, 0);
	turn->queue = &t->queues[kind];
	TAILQ_INSERT_TAIL(&turn->queue->list, turn, link);
	turn->queue->n++;
}

void
turns_cancel(struct turn *turn)
{
	if (turn->queue == NULL)
		return;
	TAILQ_REMOVE(&turn->queue->list, turn, link);
	turn->queue->n--;
	turn->queue = NULL;
}

/* ---- reaping ---- */

/* What is added meanwhile waits until the loop has looked at the descriptors again: a client who
 * pipelines faster than we answer must not keep the others from being served. */
static void
on_reap(evutil_socket_t fd, short what, void *arg)
{
	struct turns *t = arg;
	struct reap_list now = STAILQ_HEAD_INITIALIZER(now);
	struct reap *r;

	(void)fd;
	(void)what;
	STAILQ_CONCAT(&now, &t->reaps);
	t->reaping = true;
	while ((r = STAILQ_FIRST(&now)) != NULL) {
		STAILQ_REMOVE_HEAD(&now, link);
		r->reap(r);
	}
	t->reaping = false;
	if (!STAILQ_EMPTY(&t->reaps))
		turns_next(&t->reap_event);
}

void
turns_reap_later(struct turns *t, struct reap *r)
{
	if (STAILQ_EMPTY(&t->reaps) && !t->reaping)
		event_active(&t->reap_event, EV_TIMEOUT, 0);
	STAILQ_INSERT_TAIL(&t->reaps, r, link);
}

void
turns_reap_all(struct turns *t)
{
	while (!STAILQ_EMPTY(&t->reaps))
		on_reap(-1, 0, t);
}

/* ---- life ---- */

void
turns_init(struct turns *t, struct event_base *base)
{
	STAILQ_INIT(&t->reaps);
	for (int i = 0; i < TURN_NKINDS; i++)
		TAILQ_INIT(&t->queues[i].list);
	event_assign(&t->turn_event, base, -1, 0, on_turn, t);
	event_assign(&t->reap_event, base, -1, 0, on_reap, t);
}

void
turns_fini(struct turns *t)
{
	event_del(&t->turn_event);
	event_del(&t->reap_event);
}
