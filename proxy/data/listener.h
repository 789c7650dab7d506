/*
 * listener: accepts client connections on the first worker's thread and deals them to the workers in
 * turn, so that with one worker no connection changes threads.
 *
 * Over the limit of open connections, of memory, or of the descriptors that clients may have, a new
 * one is closed at once and counted.  When descriptors run out all the same, one connection is turned
 * away and accepting pauses for 100 ms.
 *
 * Main makes it before the workers run, stops it at any time, and frees it when they are joined.
 */
#ifndef KEYTRAIL_PROXY_LISTENER_H
#define KEYTRAIL_PROXY_LISTENER_H

#include "data/worker.h"

struct listener;

struct listener_opts {
	const struct config_address *address;
	struct worker **workers;
	unsigned nworkers;
	int given; /* as for listener_open */
};

/* Bind and listen on the first address of a name, or copy the descriptor of a listener that is given
 * (-1: none is); `what` names the member in errors.  The descriptor, non-blocking, or -1. */
int listener_open(
    const struct config_address *address, const char *what, int given, struct err *err);

struct listener *listener_new(const struct listener_opts *opts, struct err *err);
/* Refuse connections from now on. */
void listener_stop(struct listener *l); /* NULL is allowed */
/* Accept nothing from now on, and let who has been given the descriptor go on.  Waits until the first
 * worker, which must run, knows: all that was accepted is in the workers' mailboxes.  Once is enough. */
void listener_give(struct listener *l);
void listener_free(struct listener *l); /* NULL is allowed */

/* The bound address of a listening descriptor as text ("127.0.0.1:8443"): the port is known even
 * when 0 was asked for. */
#define LISTENER_TEXT_SIZE 64
void listener_text(int fd, char out[LISTENER_TEXT_SIZE]);
int listener_fd(const struct listener *l);

#endif
