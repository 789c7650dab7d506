/*
 * visitors: the connections of one listener of evhttp, which bounds neither their number, nor their
 * age, nor what it holds of one.
 *
 * There are VISITORS_MAX, of which a new one ends the oldest, and each ends at the age of life_ms
 * whatever it does: who says a byte now and then shall keep nobody from coming.  So does one of
 * whom more than VISITORS_UNREAD_MAX bytes wait to be understood or answered.  When
 * descriptors run out, one is turned away and accepting pauses for 100 ms.  Thread of the base.
 */
#ifndef KEYTRAIL_PROXY_VISITORS_H
#define KEYTRAIL_PROXY_VISITORS_H

#include <event2/event_struct.h>

#include <stdint.h>

#define VISITORS_MAX	    64
#define VISITORS_UNREAD_MAX 16384 /* more than a head or a body may have */

struct bufferevent;
struct evconnlistener;
struct log;

struct visitor {
	struct bufferevent *connection;
	int64_t born; /* monotonic ns */
};

struct visitors {
	struct log *log;
	unsigned life_ms;
	struct event timer; /* for the oldest */
	struct evconnlistener *listener;
	struct event knock, pause;
	int spare; /* descriptors.h */
	unsigned n;
	struct visitor all[VISITORS_MAX]; /* the oldest first */
};

void visitors_init(struct visitors *v, struct event_base *base, struct log *log, unsigned life_ms);
/* Those of this listener, which evhttp has; -1: memory is short. */
int visitors_watch(struct visitors *v, struct evconnlistener *listener);
/* Look at the listener no more.  Before evhttp_free, which closes it: where somebody else has it too, the
 * kernel would go on to tell of it. */
void visitors_stop(struct visitors *v);
/* After that. */
void visitors_fini(struct visitors *v);

/* For evhttp_set_bevcb; arg: the visitors. */
struct bufferevent *visitors_let_in(struct event_base *base, void *arg);

#endif
