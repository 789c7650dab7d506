/*
 * mailbox: how other threads reach the thread that runs an event loop.
 *
 * A mail is an intrusive message: it belongs to the poster until it is posted and to the receiver
 * from then on, until its function is called.  A mail that is still queued is not queued again, so
 * a standing mail ("the durable mark has moved") costs nothing when it is posted often.
 */
#ifndef KEYTRAIL_PROXY_MAILBOX_H
#define KEYTRAIL_PROXY_MAILBOX_H

#include "keytrail/err.h"

#include <stdatomic.h>
#include <stdbool.h>

struct event_base;
struct mailbox;

struct mail {
	void (*deliver)(struct mail *m); /* called on the receiver's thread; may free or post it */
	struct mail *next;
	atomic_bool queued;
};

struct mailbox *mailbox_new(struct event_base *base, struct err *err);
/* Mails that were not delivered are dropped: post none once the receiver's loop has ended. */
void mailbox_free(struct mailbox *mb);

/* Any thread; never blocks but for a short lock.  In order of posting. */
void mailbox_post(struct mailbox *mb, struct mail *m);

#endif
