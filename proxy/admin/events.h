/*
 * events: GET /events of the admin listener: a query of the trail (query.h), answered by the reader
 * (reader.h) while the main thread goes on.
 *
 * The answer is chunked JSON.  400 names the parameter that is wrong, 503 says that too many queries
 * run or that the trail cannot be read.  A client that goes away ends its query.
 *
 * GET /events/stream is text/event-stream (HTML, section 9.2) of what becomes durable, from `cursor` on
 * where there is one (follow.h): "row" with the number as its id, "gap" with the number to go on from
 * for lines that are gone, or because the client reads too slowly (then the stream ends), and a comment
 * every two seconds in which nothing else is sent.  503: there are FOLLOW_MAX, or all but two, which are
 * kept for who comes over the Unix socket.
 *
 * GET /proof?seq=<number> is {"seq","line","proof"}: a line and what `keytrail proof` writes of it, else
 * {"error","covered"}: 404 where there is no such line, 409 where it is not signed yet.
 *
 * Main thread, on its event_base.
 */
#ifndef KEYTRAIL_EVENTS_H
#define KEYTRAIL_EVENTS_H

#include "keytrail/err.h"
#include "keytrail/log.h"
#include "keytrail/trail.h"

#include <stdbool.h>
#include <stddef.h>

struct event_base;
struct evhttp_request;
struct events;

struct events_opts {
	struct event_base *base;
	int trail_dirfd;
	struct log *log;
	trail_corrupt_fn corrupt; /* as for reader_start */
	void *arg;
	uint64_t keep_free;
};

/* Starts the reader. */
int events_new(const struct events_opts *opts, struct events **out, struct err *err);
/* Ends all queries.  Before the connections they came on are freed.  NULL is allowed. */
void events_free(struct events *e);

/* Answer an admitted request, now or later, or as long as the client wants.  `shape` gets the names of
 * the parameters, of at most n bytes.  False: it is answered with an error already, and nothing was
 * read.  events_stream_local: over the Unix socket, for which places are kept. */
bool events_answer(struct events *e, struct evhttp_request *req, char *shape, size_t n);
bool events_stream(struct events *e, struct evhttp_request *req, char *shape, size_t n);
bool events_stream_local(struct events *e, struct evhttp_request *req, char *shape, size_t n);
bool events_prove(struct events *e, struct evhttp_request *req, char *shape, size_t n);

#endif
