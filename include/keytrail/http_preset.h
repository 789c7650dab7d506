/*
 * http_preset: what a receiver of events over HTTP wants to be sent, and what its answers mean.
 *
 * One row a receiver (src/sink/http_preset.c): the path behind the sink's URL, the framing of a batch,
 * the reading of an answer.  What an answer says is told in our own words only; no text of a body ever
 * gets out.  Pure: no I/O, no clock.
 */
#ifndef KEYTRAIL_HTTP_PRESET_H
#define KEYTRAIL_HTTP_PRESET_H

#include "keytrail/buf.h"
#include "keytrail/config.h"
#include "keytrail/sink.h"

struct http_reply {
	unsigned status;
	struct slice body;
};

enum http_say {
	HTTP_TAKEN,    /* all of them */
	HTTP_LATER,    /* those from `done` on are to be offered again later */
	HTTP_REFUSED,  /* one of those from `done` on, or all at once, cannot be taken: try fewer */
	HTTP_REJECTED, /* the one at `done` can never be taken */
};

#define HTTP_NO_ACK UINT64_MAX

struct http_verdict {
	enum http_say say;
	size_t done;   /* leading events that are taken */
	size_t asked;  /* about so many of those that are taken there is a question */
	bool conflict; /* rejected since the receiver has another event under its identity */
	uint64_t
	    ack; /* the number under which the receiver will say that it has them, or HTTP_NO_ACK */
	char why[160];
};

struct http_preset {
	const char *name;
	const char *path;   /* behind the URL; a '$' stands for the index */
	const char *type;   /* of the body */
	const char *scheme; /* of the token in Authorization */
	/* Append the body that carries n events: 0, or -1 when memory is short. */
	int (*frame)(const struct sink_event *events, size_t n, struct buf *out);
	/* NULL: the status says all.  Where the receiver must be asked more before all is known, the
	 * body of that question is appended to ask. */
	int (*read)(const struct http_reply *reply, const struct sink_event *events, size_t n,
	    struct http_verdict *out, struct buf *ask);
	const char *ask_path;
	/* The answer to that question, to what `read` has found. */
	void (*settle)(const struct http_reply *reply, const struct sink_event *events,
	    struct http_verdict *inout);
};

/* Never NULL for a value of the enum. */
const struct http_preset *http_preset_of(enum config_http_preset preset);

/* What an answer to n events says: its status, and then the preset.  -1 when memory is short. */
int http_read(const struct http_preset *p, const struct http_reply *reply,
    const struct sink_event *events, size_t n, struct http_verdict *out, struct buf *ask);

/* An event's identity as a document's: log, boot and number. */
#define HTTP_ID_SIZE 128
void http_id(const struct sink_event *e, char out[HTTP_ID_SIZE]);

/* ---- splunk-hec ---- */

/* The channel of a log: its identity in the form of a UUID. */
#define HTTP_CHANNEL_SIZE 37
void http_splunk_channel(const char *log, char out[HTTP_CHANNEL_SIZE]);
/* Ask which of these are indexed; then drop those that are from acks, *n of them. */
int http_splunk_ask(const uint64_t *acks, size_t n, struct buf *out);
int http_splunk_acked(const struct http_reply *reply, uint64_t *acks, size_t *n, struct err *err);

/* ---- ibm-cloud-logs ---- */

/* The form that asks for a token, and the token with its life in seconds: 0, or -1. */
int http_iam_ask(struct slice api_key, struct buf *out);
int http_iam_read(
    const struct http_reply *reply, struct buf *token, uint64_t *seconds, struct err *err);

#endif
