#include "data/wtimer.h"

#include "keytrail/clock.h"

#include <event2/event.h>

#include <stddef.h>

#define AT_ONCE 64 /* then others have their turn of the loop */

/* ---- the heap: no timer is before its parent ---- */

/* Of two that stand alone, or NULL. */
static struct wtimer *
meld(struct wtimer *a, struct wtimer *b)
{
	if (a == NULL || b == NULL)
		return a != NULL ? a : b;
	if (b->pending < a->pending)
		return meld(b, a);
	b->prev = a;
	b->next = a->child;
	if (b->next != NULL)
		b->next->prev = b;
	a->child = b;
	return a;
}

static struct wtimer *
take_first(struct wtimer **list)
{
	struct wtimer *t = *list;

	if (t != NULL) {
		*list = t->next;
		t->next = t->prev = NULL;
	}
	return t;
}

/* In pairs, and the pairs one after the other: this is what keeps the heap flat. */
static struct wtimer *
meld_all(struct wtimer *list)
{
	struct wtimer *pairs = NULL, *heap = NULL, *t;

	while ((t = take_first(&list)) != NULL) {
		t = meld(t, take_first(&list));
		t->next = pairs;
		pairs = t;
	}
	while ((t = take_first(&pairs)) != NULL)
		heap = meld(heap, t);
	return heap;
}

static void
put_in(struct wtimer *t)
{
	t->pending = t->deadline;
	t->all->first = meld(t->all->first, t);
}

static void
take_out(struct wtimer *t)
{
	struct wtimers *all = t->all;

	if (t->pending == 0)
		return;
	if (t == all->first) {
		all->first = meld_all(t->child);
	} else {
		*(t->prev->child == t ? &t->prev->child : &t->prev->next) = t->next;
		if (t->next != NULL)
			t->next->prev = t->prev;
		all->first = meld(all->first, meld_all(t->child));
	}
	t->child = t->next = t->prev = NULL;
	t->pending = 0;
}

/* ---- the event ---- */

/* Where memory is short the next timer that is set makes good for it. */
static void
arm(struct wtimers *all, int64_t now)
{
	int64_t ns;
	struct timeval tv;

	if (all->first == NULL || (all->armed != 0 && all->armed <= all->first->pending))
		return;
	ns = all->first->pending > now ? all->first->pending - now : 0;
	tv = (struct timeval){ ns / CLOCK_NS_PER_S, ns % CLOCK_NS_PER_S / 1000 + 1 };
	all->armed = event_add(&all->event, &tv) == 0 ? all->first->pending : 0;
}

static void
look_at(struct wtimer *t)
{
	int64_t place = t->pending;

	take_out(t);
	if (t->deadline <= 0)
		return;
	if (t->deadline > place) {
		put_in(t);
		return;
	}
	t->deadline = 0;
	t->fire(t->arg);
}

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
	struct wtimers *all = arg;
	int64_t now = clock_mono_ns();

	(void)fd;
	(void)what;
	all->armed = 0;
	for (int i = 0; i < AT_ONCE && all->first != NULL && all->first->pending <= now; i++)
		look_at(all->first);
	arm(all, now);
}

void
wtimers_init(struct wtimers *all, struct event_base *base)
{
	*all = (struct wtimers){ .first = NULL };
	evtimer_assign(&all->event, base, on_event, all);
}

void
wtimers_fini(struct wtimers *all)
{
	event_del(&all->event);
}

/* ---- timers ---- */

void
wtimer_init(struct wtimer *t, struct wtimers *all, void (*fire)(void *arg), void *arg)
{
	*t = (struct wtimer){ .all = all, .fire = fire, .arg = arg };
}

void
wtimer_set_from(struct wtimer *t, int64_t now_ns, unsigned ms)
{
	t->deadline = now_ns + ms * CLOCK_NS_PER_MS;
	if (t->pending != 0 && t->pending <= t->deadline)
		return;
	take_out(t);
	put_in(t);
	arm(t->all, now_ns);
}

void
wtimer_set(struct wtimer *t, unsigned ms)
{
	wtimer_set_from(t, clock_mono_ns(), ms);
}

void
wtimer_clear(struct wtimer *t)
{
	t->deadline = 0;
}

void
wtimer_fini(struct wtimer *t)
{
	take_out(t);
	t->deadline = 0;
}
