/*
 * stream: a non-blocking byte stream over a connected socket, plain or TLS.
 *
 * The only module that mixes libevent and OpenSSL.  libevent tells readiness, edge-triggered, with
 * one registration for the life of the descriptor; SSL_read and SSL_write work straight on the
 * caller's buffers, through a BIO that remembers whether the kernel has more, so that no read is
 * made only to see EAGAIN.  Pausing is simply not reading: readiness is remembered.
 *
 * Owned by one worker's thread.  `ready` is called when the descriptor became readable or writable
 * or was closed; it may close the stream.
 */
#ifndef KEYTRAIL_PROXY_STREAM_H
#define KEYTRAIL_PROXY_STREAM_H

#include "keytrail/err.h"
#include "keytrail/slice.h"

#include <event2/event_struct.h>
#include <openssl/ssl.h>

struct stream_method; /* one a thread: the BIO's methods */

struct stream_method *stream_method_new(struct err *err);
void stream_method_free(struct stream_method *m);

typedef void (*stream_ready_fn)(void *arg);

/* The newest session of a client's connections, to resume; only ever of one context, since a resumed
 * session is not verified again.  Zero at first; the owner frees `session`. */
struct stream_session {
	SSL_SESSION *session;
	const SSL_CTX *ctx;
};

enum stream_result {
	STREAM_OK,
	STREAM_AGAIN, /* `ready` will be called */
	STREAM_EOF,   /* orderly end: FIN, and close_notify where there is TLS */
	STREAM_CUT,   /* FIN without close_notify */
	STREAM_ERROR,
};

/* One a connection, idle or not: the order is what keeps it small. */
struct stream {
	int fd;			/* -1: closed */
	enum stream_result end; /* OK: none is known */
	SSL *ssl;		/* NULL: plain */
	struct event event;
	stream_ready_fn ready, ending;
	void *arg;
	int reason;	       /* OpenSSL's reason code of a failed handshake; 0: none */
	unsigned failures;     /* TLS: records_failures() before the call that is under way */
	unsigned messages;     /* TLS: of the protocol's own, since the last byte that was read */
	unsigned short record; /* TLS: what the largest to be sent may hold; 0: RECORD_MAX */
	bool readable : 1;     /* as far as known, the kernel would not say EAGAIN */
	bool writable : 1;     /* the same */
	bool hung_up : 1;      /* the peer will send no more: read until EOF */
	bool unsure : 1;       /* the last edge may have been a reset behind unread bytes */
	bool starved : 1;      /* if it fails, then for want of memory: no fault of the peer's */
	bool
	    broken : 1; /* may not end in order: without close_notify, and a plain one by a reset */
	bool more : 1;	/* more is written soon, or the end */
};

/*
 * Watch fd (non-blocking, owned by the stream from here on, also on -1).  With ctx, TLS over it:
 * as a server, or, with `host` not NULL, as a client that sends and verifies this name.
 * `connecting`: connect(2) is in progress, so that the first readiness means its end.
 */
struct stream_opts {
	struct event_base *base;
	struct stream_method *method;
	SSL_CTX *ctx; /* NULL: plain */
	bool client;
	const char *server_name;	/* a client's: SNI and the name that is verified */
	struct stream_session *session; /* a client's, or NULL */
	bool connecting;
	stream_ready_fn ready;
	/* Or NULL: called when the end is met.  Reads and writes say AGAIN until stream_tell_end, and no
	 * reset is known:
	 * who has many streams, which may all end at once, acts on a few at a time. */
	stream_ready_fn ending;
	void *arg;
};
int stream_open(struct stream *s, int fd, const struct stream_opts *opts, struct err *err);

/* close_notify where it can go without waiting, then close. */
void stream_close(struct stream *s);

/* The result of a connect(2) in progress: STREAM_OK, STREAM_AGAIN, or STREAM_ERROR and errno. */
enum stream_result stream_connected(struct stream *s);

/* Go on with the TLS handshake; STREAM_OK at once on a plain stream. */
enum stream_result stream_handshake(struct stream *s, struct err *err);

#define STREAM_READ 16384 /* bytes to ask for at once: a TLS record */

/* *n: how many bytes were moved, with STREAM_OK (at least 1). */
enum stream_result stream_read(struct stream *s, void *p, size_t cap, size_t *n);
enum stream_result stream_write(struct stream *s, const void *p, size_t len, size_t *n);

/* Has the peer sent so much that is TLS's own that the stream was ended for it? */
bool stream_is_flooded(const struct stream *s);

/* Reads and writes tell the end from now on. */
void stream_tell_end(struct stream *s);

/* Could a read give something at once, without asking the kernel in vain? */
bool stream_may_read(const struct stream *s);

/* The same inside of a message, where a reset behind what was read must not be missed. */
bool stream_may_go_on(const struct stream *s);

/* Is something there to read that `ready` did not tell of yet?  Asks the kernel. */
bool stream_has_news(const struct stream *s);

/* Has the peer reset the connection?  Asks the kernel; call it only when `ready` was called. */
bool stream_is_reset(struct stream *s);

/* What is written from now on is followed by the end at once: let them share a segment. */
void stream_end_follows(struct stream *s);

/* Say that nothing more will be sent (close_notify, FIN), go on receiving.  STREAM_AGAIN: the
 * close_notify has to wait; call again when `ready` was called. */
enum stream_result stream_shutdown_write(struct stream *s);

#endif
