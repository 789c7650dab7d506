/*
 * reserve: the few bytes that libevent does without a check, when there are no others.
 *
 * Its evhttp crashes over a connection or a request that it has no memory for (2.1.12:
 * evhttp_connection_base_bufferevent_new, evhttp_request_new and their like).  What malloc cannot
 * give comes from a reserve, as long as it is small; what is large may fail, and is looked at.  The
 * reserve is made for all whom `visitors` lets in, though the workers' libevent draws on it too, and
 * takes no memory before it is used.
 */
#ifndef KEYTRAIL_PROXY_RESERVE_H
#define KEYTRAIL_PROXY_RESERVE_H

/* Once, before anything else of libevent is used. */
void reserve_install(void);

#endif
