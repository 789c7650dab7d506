/*
 * events_internal: what the files of module events share: events.c answers queries, events_stream.c
 * those who look on live, events_proof.c who wants a proof.
 */
#ifndef KEYTRAIL_PROXY_EVENTS_INTERNAL_H
#define KEYTRAIL_PROXY_EVENTS_INTERNAL_H

#include "admin/events.h"

#include "data/mailbox.h"
#include "keytrail/buf.h"
#include "keytrail/follow.h"
#include "keytrail/reader.h"

#include <event2/event_struct.h>
#include <sys/queue.h>

struct call;
LIST_HEAD(calls, call);
struct stream_call;
LIST_HEAD(stream_calls, stream_call);
struct proof_call;
LIST_HEAD(proof_calls, proof_call);

struct events {
	struct reader *reader;
	struct follow *follow;
	struct mailbox *mailbox;
	struct log *log;
	struct calls calls;
	struct stream_calls streams;
	struct proof_calls proofs;
	struct event heartbeat; /* of the streams */
};

/* The parameters of its URL. */
int events_parse(struct evhttp_request *req, struct query *q, struct err *err);
void events_refuse(struct evhttp_request *req, int status, const char *why);

/* A client that goes away cancels the job. */
void events_watch(struct evhttp_request *req, struct reader_job *job);
/* It will not be answered.  One that still has its connection is freed with it. */
void events_forget(struct evhttp_request *req);

int events_start_streams(struct events *e, const struct events_opts *opts, struct err *err);
/* After follow_stop. */
void events_free_streams(struct events *e);
/* After reader_stop. */
void events_free_proofs(struct events *e);

#endif
