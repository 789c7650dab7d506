/*
 * metrics: counters, gauges and histograms, one shard a thread, summed at the scrape.
 *
 * One table (src/base/metrics.c) holds every metric: name, type, unit, help, labels.  The scrape,
 * the manual and the tests are made from it.  A shard is written by one thread only, with plain
 * (release) stores to its own pages, and read by the scraping thread.  Values that live elsewhere
 * (trail bytes, sink lag, certificate expiry) are set by the main thread just before a scrape, in
 * its own shard, with metrics_set.
 *
 * Counters are printed from the first increment of their label on; those of a short fixed list
 * (loss, trail failures, reloads, handshakes, their failures, upstream failures) and those without
 * labels always, so that an alert sees the step from 0 to 1.
 *
 * No label value ever comes from a client: labels are actions and routes of the routes file, sink names of
 * the configuration, its files, and the words of fixed tables.
 */
#ifndef KEYTRAIL_METRICS_H
#define KEYTRAIL_METRICS_H

#include "keytrail/buf.h"

#include <stdint.h>

struct metrics;
struct metrics_shard;

enum metric_id {
	/* Labelled by action, outcome, status class: use metrics_count_request. */
	METRIC_REQUESTS,
	METRIC_REQUEST_SECONDS, /* histogram: arrival of the head to the last byte of the answer */
	METRIC_ADDED_SECONDS,	/* histogram: the part of it spent in keytrail */
	METRIC_REQUESTS_IN_FLIGHT,
	METRIC_REFUSED,		     /* by reason: index = enum http_refusal */
	METRIC_UNMATCHED,	     /* requests that fit no route */
	METRIC_ROUTE_REQUESTS,	     /* by route: metrics_route */
	METRIC_UNMATCHED_SHAPES,     /* gauge */
	METRIC_CONNECTIONS,	     /* accepted */
	METRIC_CONNECTIONS_OPEN,     /* gauge */
	METRIC_CONNECTIONS_REJECTED, /* over the limit */
	METRIC_SOURCES_UNKNOWN,	     /* no room to remember one more */
	METRIC_OUT_OF_MEMORY,	     /* what was given up for want of it */
	METRIC_HANDSHAKES,	     /* finished, by resumed: index 0 full, 1 resumed */
	METRIC_HANDSHAKE_FAILURES,   /* by reason: index = enum tls_failure */
	METRIC_CLIENT_ABORTS,	     /* answers cut by the client after RECORD */
	METRIC_LIFETIME_CUT,	     /* answers cut by us, at the connection's end, after RECORD */
	METRIC_RECEIVED_BYTES,	     /* from clients, plain text */
	METRIC_SENT_BYTES,	     /* to clients, plain text */
	METRIC_UPSTREAM_OPEN,	     /* gauge */
	METRIC_UPSTREAM_IDLE,	     /* gauge */
	METRIC_UPSTREAM_CONNECTS,
	METRIC_UPSTREAM_REUSES,
	METRIC_UPSTREAM_RETRIES,   /* stale pooled connection replaced */
	METRIC_UPSTREAM_FAILURES,  /* by reason: index = enum upstream_failure */
	METRIC_UPSTREAM_CUT,	   /* answers cut after RECORD */
	METRIC_EVENTS_ACCEPTED,	   /* made: recorded, waiting or lost */
	METRIC_EVENTS_RECORDED,	   /* appended to the trail */
	METRIC_EVENTS_DURABLE,	   /* synced */
	METRIC_EVENTS_LOST,	   /* by reason: index = enum metric_loss */
	METRIC_TRAIL_BYTES,	   /* gauge */
	METRIC_TRAIL_SEGMENTS,	   /* gauge */
	METRIC_ADOPTED_RINGS,	   /* gauge: of the process that was taken over from */
	METRIC_TRAIL_FREE_BYTES,   /* gauge: room on the trail's file system */
	METRIC_TRAIL_SEQUENCE,	   /* gauge: highest durable number */
	METRIC_TRAIL_SIGNING,	   /* gauge: 1 while it can be signed */
	METRIC_TRAIL_SIGNED,	   /* gauge: events that the last checkpoint covers */
	METRIC_TRAIL_WRITABLE,	   /* gauge 0/1 */
	METRIC_DEGRADED,	   /* gauge 0/1: break-glass */
	METRIC_DEGRADED_REMAINING, /* gauge: seconds */
	METRIC_DEGRADED_REQUESTS,
	METRIC_FSYNC_SECONDS,	      /* histogram */
	METRIC_COMMIT_EVENTS,	      /* histogram: events a group commit */
	METRIC_TRAIL_FAILURES,	      /* by operation: index = enum metric_trail_op */
	METRIC_SINK_DELIVERED,	      /* by sink */
	METRIC_SINK_REJECTED,	      /* by sink */
	METRIC_SINK_FILTERED,	      /* by sink */
	METRIC_SINK_MISSING,	      /* by sink */
	METRIC_SINK_ATTEMPTS,	      /* by sink and result: metrics_attempt */
	METRIC_SINK_BYTES,	      /* by sink */
	METRIC_SINK_BATCH_EVENTS,     /* histogram by sink: events a delivery */
	METRIC_SINK_DELIVERY_SECONDS, /* histogram by sink */
	METRIC_SINK_FIGURE,	      /* gauge by sink and figure: metrics_figure */
	METRIC_SINK_DUE,	      /* gauge by sink */
	METRIC_SINK_LAG_EVENTS,	      /* gauge by sink */
	METRIC_SINK_LAG_SECONDS,      /* gauge by sink: age of the oldest undelivered event */
	METRIC_SINK_UP,		      /* gauge by sink: last attempt was not a failure */
	METRIC_RELOADS,		      /* by result: index 0 failure, 1 success */
	METRIC_RELOAD_TIME,	   /* gauge: time of the last successful load, seconds since 1970 */
	METRIC_CERTIFICATE_EXPIRY, /* gauge by file: its certificate's end, seconds since 1970 */
	METRIC_ADMIN_REFUSED,	   /* by reason: index = enum metric_admin_refusal */
	METRIC_LOG_SUPPRESSED,
	METRIC_LOG_DROPPED,
	METRIC_BUILD_INFO, /* always 1, labels version, tls, http_parser; metrics_build_info */
	METRIC_START_TIME, /* gauge: seconds since 1970 */
	METRIC_COUNT
};

enum metric_outcome {
	METRIC_OUTCOME_SUCCESS,
	METRIC_OUTCOME_FAILURE,
	METRIC_OUTCOME_UNKNOWN,
	METRIC_OUTCOMES
};
const char *metrics_outcome_word(enum metric_outcome outcome);
enum metric_loss {
	METRIC_LOSS_RING_FULL,
	METRIC_LOSS_TRAIL_FULL,
	METRIC_LOSS_TRAIL_FAILED,
	METRIC_LOSS_TOO_LARGE,
	METRIC_LOSS_RING_CUT,
	METRIC_LOSSES
};
const char *metrics_loss_word(enum metric_loss reason);
enum metric_trail_op { METRIC_TRAIL_WRITE, METRIC_TRAIL_SYNC, METRIC_TRAIL_OPEN };

enum metric_attempt {
	METRIC_ATTEMPT_OK,
	METRIC_ATTEMPT_REJECT,
	METRIC_ATTEMPT_RETRY,
	METRIC_ATTEMPTS
};

/* Why a request of the admin listeners was refused.  X(enum suffix, label) */
#define METRIC_ADMIN_REFUSAL_TABLE(X)                                                              \
	X(HOST, "host")		      /* it names another one than the listener */                 \
	X(SITE, "site")		      /* a page of another site asks */                            \
	X(NO_TOKEN, "no_token")	      /* and one is needed */                                      \
	X(WRONG_TOKEN, "wrong_token") /* or none that can be read */                               \
	X(TOO_OFTEN, "too_often")     /* wrong ones came from this source */

enum metric_admin_refusal {
#define X(name, label) METRIC_ADMIN_##name,
	METRIC_ADMIN_REFUSAL_TABLE(X)
#undef X
	    METRIC_ADMIN_REFUSALS
};
const char *metrics_admin_refusal_word(enum metric_admin_refusal reason);

/* Why a client's handshake failed.  X(enum suffix, label) */
#define METRIC_TLS_FAILURE_TABLE(X)                                                                \
	X(PROTOCOL, "protocol") /* no common version, cipher or curve; not TLS; an alert */        \
	X(NO_CERTIFICATE, "no_certificate") /* one was asked for and none came */                  \
	X(CERTIFICATE, "certificate")	    /* the client's could not be verified */               \
	X(REVOKED, "revoked")		    /* the client's has been */                            \
	X(UNKNOWN_NAME, "unknown_name")	    /* of no certificate, and such are refused */          \
	X(REJECTED, "rejected")		    /* the client did not trust ours */                    \
	X(ALPN, "alpn")			    /* no common application protocol */                   \
	X(TIMEOUT, "timeout")                                                                      \
	X(CLOSED, "closed") /* the client went away */                                             \
	X(MEMORY, "memory") /* ours was short */                                                   \
	X(FLOOD, "flood")   /* after it: more of TLS's own messages than anybody needs */

enum tls_failure {
#define X(name, label) TLS_FAILURE_##name,
	METRIC_TLS_FAILURE_TABLE(X)
#undef X
	    TLS_FAILURE_COUNT
};

/* Why a connection to the key service could not be had or used.  X(enum suffix, label) */
#define METRIC_UPSTREAM_FAILURE_TABLE(X)                                                           \
	X(RESOLVE, "resolve")	  /* the name could not be resolved */                             \
	X(CONNECT, "connect")	  /* refused, unreachable */                                       \
	X(TIMEOUT, "timeout")	  /* connecting, or waiting for the answer */                      \
	X(HANDSHAKE, "handshake") /* TLS failed, but not over trust */                             \
	X(UNTRUSTED, "untrusted") /* certificate or host name could not be verified */             \
	X(CLOSED, "closed")	  /* closed or reset without an answer */                          \
	X(MALFORMED, "malformed") /* the answer is malformed */                                    \
	X(BUSY, "busy")		  /* the pool is exhausted */                                      \
	X(MEMORY, "memory")	  /* ours was short */

enum upstream_failure {
#define X(name, label) UPSTREAM_FAILURE_##name,
	METRIC_UPSTREAM_FAILURE_TABLE(X)
#undef X
	    UPSTREAM_FAILURE_COUNT
};

#define METRICS_ACTIONS_MAX 512	 /* distinct action names in a process's life; then "other" */
#define METRICS_ROUTES_MAX  1024 /* distinct routes in a process's life; then "other" */
#define METRICS_SINKS_MAX   16	 /* distinct sink names; then "other" */
#define METRICS_FILES_MAX   64	 /* distinct files of certificates and lists; then "other" */
#define METRICS_FIGURES_MAX 32	 /* distinct names of what sinks tell of themselves; then "other" */

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);

/* Main thread.  A shard lives as long as the metrics. */
struct metrics_shard *metrics_shard_new(struct metrics *m);

/* Main thread, at load: the stable index of an action's name ("other" when the table is full). */
unsigned metrics_action(struct metrics *m, const char *action);
/* The same for routes, as route_describe has them. */
unsigned metrics_route(struct metrics *m, const char *route);
/* For sink names. */
unsigned metrics_sink(struct metrics *m, const char *sink);
/* The index of a sink's attempts with that result, and of a figure of its own. */
unsigned metrics_attempt(unsigned sink, enum metric_attempt result);
unsigned metrics_figure(struct metrics *m, unsigned sink, const char *figure);
/* And for files of the configuration. */
unsigned metrics_file(struct metrics *m, const char *path);

/* Main thread.  What the program is made of; NULL leaves a label out. */
void metrics_build_info(
    struct metrics *m, const char *version, const char *tls, const char *http_parser);

/*
 * The owner of the shard.  `index` is the label's index where the metric has one, else 0.  Counters
 * and gauges; n may be negative for gauges only.  A thread counts before it hands on: an event as
 * accepted before it commits it, as recorded before it is durable, so that a scrape's differences
 * are never negative.
 */
void metrics_add(struct metrics_shard *s, enum metric_id id, unsigned index, int64_t n);
/* A gauge set to NAN is left out of the scrape (a sink that was removed); labelled gauges and the
 * certificate's expiry start so.  A counter that is kept elsewhere may be set too. */
void metrics_set(struct metrics_shard *s, enum metric_id id, unsigned index, double value);
void metrics_observe(struct metrics_shard *s, enum metric_id id, double value);
/* Of a histogram with a label. */
void metrics_observe_at(struct metrics_shard *s, enum metric_id id, unsigned index, double value);

/* status 0: no status came. */
void metrics_count_request(
    struct metrics_shard *s, unsigned action, enum metric_outcome outcome, unsigned status);

/* Sum over the shards; for tests and readiness.  For a histogram: the number of observations.  For
 * METRIC_REQUESTS: all outcomes and codes of the action `index`.  A gauge that nobody set is 0. */
double metrics_value(const struct metrics *m, enum metric_id id, unsigned index);

/* All codes of an action's outcome, and the action's name, as it is on the label. */
uint64_t metrics_requests(const struct metrics *m, unsigned action, enum metric_outcome outcome);
const char *metrics_action_name(const struct metrics *m, unsigned action);

/* A histogram's bounds, and how many were observed in each bucket and above the last; how many bounds. */
#define METRICS_BUCKETS_MAX 32
unsigned metrics_buckets(const struct metrics *m, enum metric_id id, const double **bounds,
    uint64_t counts[METRICS_BUCKETS_MAX]);

enum metrics_format { METRICS_TEXT_0_0_4, METRICS_OPENMETRICS_1_0_0 };

/* Render all.  Outputs are read before inputs (delivered before durable before recorded before
 * accepted), so that differences of a scrape are never negative.  -1 when memory is short. */
int metrics_render(const struct metrics *m, enum metrics_format format, struct buf *out);

/* Markdown reference of every metric, for the manual. */
int metrics_reference(struct buf *out);

#endif
