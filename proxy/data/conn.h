/*
 * conn: one client connection: handshake, heads, one exchange at a time, an orderly end.
 *
 * Pipelined bytes wait unread while an exchange runs.  An idle connection holds no buffer.  After
 * an answer that closes, what the client still sends is read and dropped for a while (64 KiB or one
 * second), since closing over unread bytes would reset the connection and could take the answer
 * with it (RFC 9112 section 9.6).
 */
#ifndef KEYTRAIL_PROXY_CONN_H
#define KEYTRAIL_PROXY_CONN_H

#include "data/worker.h"

extern const struct worker_hooks conn_hooks;

#endif
