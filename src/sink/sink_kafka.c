#include "sink_kafka.h"

#include "keytrail/clock.h"
#include "keytrail/trail.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLOW_NS	    (5 * CLOCK_NS_PER_S)
#define FLIGHTS	    1024 /* events that are under way at once, at most */
#define DIAGNOSE_MS 250	 /* of a delivery's time, for why nothing is acknowledged */

/* An event that was produced, until its turn to be counted as delivered has come. */
struct flight {
	uint64_t seq;
	bool acknowledged;
};

struct kafka_sink {
	const struct config_sink *cfg;
	uint64_t stamp; /* of the files that the producer was made with */
	struct log *log;
	rd_kafka_t *rk;	  /* NULL: to be made */
	size_t alone;	  /* so many events go one at a time: one of them was too large */
	int64_t moved_ns; /* when something was acknowledged last, or nothing was under way */

	pthread_mutex_t lock; /* guards what librdkafka's background thread fills in */
	pthread_cond_t changed;
	struct flight flights[FLIGHTS]; /* a ring */
	size_t first, n;
	size_t unreported;	     /* that are under way and have no report yet */
	rd_kafka_resp_err_t trouble; /* the last one, since anything was acknowledged */
	rd_kafka_resp_err_t refusal; /* of an event, the first one since the producer was made */
	bool fatal;
	struct kafka_figures figures;
};

static struct flight *
flight_at(struct kafka_sink *k, size_t i)
{
	return &k->flights[(k->first + i) % FLIGHTS];
}

/* ---- librdkafka's threads ---- */

/* What is queued behind an event that is refused is purged, and may be reported before it. */
static bool
is_consequence(rd_kafka_resp_err_t code)
{
	return code == RD_KAFKA_RESP_ERR__PURGE_QUEUE || code == RD_KAFKA_RESP_ERR__FATAL;
}

static void
take_reports(struct kafka_sink *k, rd_kafka_event_t *event)
{
	const rd_kafka_message_t *m;

	while ((m = rd_kafka_event_message_next(event)) != NULL) {
		struct flight *f = m->_private;

		f->acknowledged = m->err == RD_KAFKA_RESP_ERR_NO_ERROR;
		if (f->acknowledged)
			k->trouble = RD_KAFKA_RESP_ERR_NO_ERROR;
		else if (k->refusal == RD_KAFKA_RESP_ERR_NO_ERROR && !is_consequence(m->err))
			k->refusal = m->err;
		k->unreported--;
	}
}

/* Why the producer has given up. */
static rd_kafka_resp_err_t
end_of(rd_kafka_t *rk)
{
	char why[256];
	rd_kafka_resp_err_t code = rd_kafka_fatal_error(rk, why, sizeof(why));

	return code != RD_KAFKA_RESP_ERR_NO_ERROR ? code : RD_KAFKA_RESP_ERR__FATAL;
}

/* That all are down says less than what came before it. */
static void
take_error(struct kafka_sink *k, rd_kafka_t *rk, rd_kafka_event_t *event)
{
	bool fatal = rd_kafka_event_error_is_fatal(event) != 0;
	rd_kafka_resp_err_t code = fatal ? end_of(rk) : rd_kafka_event_error(event);

	if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
	    k->trouble == RD_KAFKA_RESP_ERR_NO_ERROR || k->trouble == RD_KAFKA_RESP_ERR__TRANSPORT)
		k->trouble = code;
	k->fatal |= fatal;
}

static void
on_event(rd_kafka_t *rk, rd_kafka_event_t *event, void *sink)
{
	struct kafka_sink *k = sink;

	pthread_mutex_lock(&k->lock);
	switch (rd_kafka_event_type(event)) {
	case RD_KAFKA_EVENT_DR:
		take_reports(k, event);
		break;
	case RD_KAFKA_EVENT_ERROR:
		take_error(k, rk, event);
		break;
	case RD_KAFKA_EVENT_STATS:
		kafka_figures_read(&k->figures, rd_kafka_event_stats(event));
		break;
	default:
		break;
	}
	pthread_cond_signal(&k->changed);
	pthread_mutex_unlock(&k->lock);
	rd_kafka_event_destroy(event);
}

/* Of what goes wrong the publisher tells, once. */
static void
on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	struct kafka_sink *k = rd_kafka_opaque(rk);

	(void)level;
	if (k->log != NULL)
		log_debug(k->log, "librdkafka", "%s: %s", facility, text);
}

/* ---- the producer ---- */

static void
drop_producer(struct kafka_sink *k)
{
	if (k->rk != NULL)
		rd_kafka_destroy(k->rk);
	k->rk = NULL;
	k->first = k->n = k->unreported = 0;
	k->fatal = false;
	k->refusal = RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void
send_events_to_background(rd_kafka_t *rk)
{
	rd_kafka_queue_t *from = rd_kafka_queue_get_main(rk);
	rd_kafka_queue_t *to = rd_kafka_queue_get_background(rk);

	rd_kafka_queue_forward(from, to);
	rd_kafka_queue_destroy(from);
	rd_kafka_queue_destroy(to);
}

static int
make_producer(struct kafka_sink *k, struct err *err)
{
	uint64_t stamp = kafka_stamp(k->cfg);
	rd_kafka_conf_t *conf;
	char why[256];
	bool fatal;

	pthread_mutex_lock(&k->lock);
	fatal = k->fatal;
	pthread_mutex_unlock(&k->lock);
	if (k->rk != NULL && stamp == k->stamp && !fatal)
		return 0;
	drop_producer(k);
	k->trouble = RD_KAFKA_RESP_ERR_NO_ERROR;
	if ((conf = kafka_conf(k->cfg, err)) == NULL)
		return -1;
	rd_kafka_conf_set_opaque(conf, k);
	rd_kafka_conf_set_log_cb(conf, on_log);
	rd_kafka_conf_set_events(
	    conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS);
	rd_kafka_conf_set_background_event_cb(conf, on_event);
	if ((k->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why))) == NULL) {
		rd_kafka_conf_destroy(conf);
		return err_set(err, "librdkafka: %s", why);
	}
	send_events_to_background(k->rk);
	k->stamp = stamp;
	return 0;
}

/* ---- one record ---- */

/* Its own events are of no instance: they stay together by their log. */
static struct slice
key_of(const struct kafka_sink *k, const struct sink_event *e)
{
	struct slice instance;

	if (k->cfg->kafka.key == CONFIG_KAFKA_NONE)
		return SLICE_EMPTY;
	if (k->cfg->kafka.key == CONFIG_KAFKA_LOG)
		return slice_of(e->log);
	instance =
	    trail_line_string(trail_line_value(e->line, SLICE("requestData")), SLICE("instanceId"));
	return instance.n > 0 ? instance : slice_of(e->log);
}

static rd_kafka_headers_t *
headers_of(const struct sink_event *e, const char *format)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(6);
	char seq[21], prev[21];
	const char *const rows[][2] = { { "log", e->log }, { "boot", e->boot }, { "seq", seq },
		{ "prev", prev }, { "hash", e->hash }, { "format", format } };

	snprintf(seq, sizeof(seq), "%" PRIu64, e->seq);
	snprintf(prev, sizeof(prev), "%" PRIu64, e->prev);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		rd_kafka_header_add(headers, rows[i][0], -1, rows[i][1], -1);
	return headers;
}

static void
count_unreported(struct kafka_sink *k, int n)
{
	pthread_mutex_lock(&k->lock);
	k->unreported += (size_t)n;
	pthread_mutex_unlock(&k->lock);
}

static rd_kafka_resp_err_t
produce(struct kafka_sink *k, const struct sink_event *e)
{
	struct flight *f = flight_at(k, k->n);
	struct slice key = key_of(k, e);
	rd_kafka_headers_t *headers = headers_of(e, config_format_name(k->cfg->format));
	const rd_kafka_vu_t parts[] = {
		{ .vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = k->cfg->kafka.topic },
		{ .vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY },
		{ .vtype = RD_KAFKA_VTYPE_VALUE,
		    .u.mem = { .ptr = (void *)(uintptr_t)e->text.p, .size = e->text.n } },
		{ .vtype = RD_KAFKA_VTYPE_KEY,
		    .u.mem = { .ptr = key.n > 0 ? (void *)(uintptr_t)key.p : NULL,
			.size = key.n } },
		{ .vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers },
		{ .vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = f },
	};
	rd_kafka_error_t *error;
	rd_kafka_resp_err_t code;

	*f = (struct flight){ .seq = e->seq };
	count_unreported(k, 1);
	error = rd_kafka_produceva(k->rk, parts, sizeof(parts) / sizeof(parts[0]));
	if (error == NULL) {
		k->n++;
		return RD_KAFKA_RESP_ERR_NO_ERROR;
	}
	count_unreported(k, -1);
	code = rd_kafka_error_code(error);
	rd_kafka_error_destroy(error);
	rd_kafka_headers_destroy(headers);
	return code;
}

/* ---- a batch ---- */

/* What one call of deliver is about. */
struct delivery {
	const struct sink_event *events;
	size_t n, next; /* next: the first that is not under way */
	size_t *done;
	int64_t deadline_ns;
	struct err *err;
};

/* Of a call before: the first ones of this batch. */
static bool
continues(struct kafka_sink *k, const struct delivery *d)
{
	if (k->n > d->n)
		return false;
	for (size_t i = 0; i < k->n; i++)
		if (flight_at(k, i)->seq != d->events[i].seq)
			return false;
	return true;
}

/* Room for as many as go at once; what cannot be produced waits for those before it. */
static rd_kafka_resp_err_t
feed(struct kafka_sink *k, struct delivery *d)
{
	size_t room = k->alone > 0 ? 1 : FLIGHTS;
	rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (k->n == 0)
		k->moved_ns = clock_mono_ns();
	while (d->next < d->n && k->n < room && code == RD_KAFKA_RESP_ERR_NO_ERROR)
		if ((code = produce(k, &d->events[d->next])) == RD_KAFKA_RESP_ERR_NO_ERROR)
			d->next++;
	return k->n > 0 ? RD_KAFKA_RESP_ERR_NO_ERROR : code;
}

/* Until the first is delivered, any is refused, or all are reported; false when none is so by the
 * deadline. */
static bool
await_report(struct kafka_sink *k, int64_t deadline_ns)
{
	const struct timespec until = {
		.tv_sec = (time_t)(deadline_ns / CLOCK_NS_PER_S),
		.tv_nsec = (long)(deadline_ns % CLOCK_NS_PER_S),
	};
	bool reported;

	pthread_mutex_lock(&k->lock);
	for (;;) {
		reported = flight_at(k, 0)->acknowledged ||
			   k->refusal != RD_KAFKA_RESP_ERR_NO_ERROR || k->unreported == 0;
		if (reported || clock_mono_ns() >= deadline_ns)
			break;
		pthread_cond_timedwait(&k->changed, &k->lock, &until);
	}
	pthread_mutex_unlock(&k->lock);
	return reported;
}

/* Count the leading ones that are delivered; why one behind them is refused. */
static rd_kafka_resp_err_t
settle(struct kafka_sink *k, struct delivery *d)
{
	rd_kafka_resp_err_t refusal;

	pthread_mutex_lock(&k->lock);
	while (k->n > 0 && flight_at(k, 0)->acknowledged) {
		k->first = (k->first + 1) % FLIGHTS;
		k->n--;
		k->alone -= k->alone > 0;
		(*d->done)++;
		k->moved_ns = clock_mono_ns();
	}
	refusal = k->refusal;
	if (refusal == RD_KAFKA_RESP_ERR_NO_ERROR && k->n > 0 && k->unreported == 0)
		refusal = end_of(k->rk);
	pthread_mutex_unlock(&k->lock);
	return refusal;
}

/* A batch is refused whole: which of its events it was, one at a time will show. */
static bool
is_too_large_together(const struct kafka_sink *k, rd_kafka_resp_err_t code)
{
	return code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE && k->n > 0 && k->alone == 0;
}

static enum sink_result
judge(struct kafka_sink *k, const struct delivery *d, rd_kafka_resp_err_t code)
{
	err_set(d->err, "topic %s: %s", k->cfg->kafka.topic, kafka_why(code));
	drop_producer(k);
	if (code != RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
		return SINK_RETRY;
	k->alone -= k->alone > 0;
	return SINK_REJECT;
}

/* What errors do not tell, the topic's metadata may.  A broker that does not give them in so short a
 * time may be a slow one. */
static rd_kafka_resp_err_t
diagnose(struct kafka_sink *k, bool patient)
{
	const struct rd_kafka_metadata *m;
	rd_kafka_resp_err_t code;

	pthread_mutex_lock(&k->lock);
	code = k->trouble;
	pthread_mutex_unlock(&k->lock);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return code;
	code = kafka_ask_for_topic(k->rk, k->cfg->kafka.topic, DIAGNOSE_MS, &m);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return patient ? RD_KAFKA_RESP_ERR_NO_ERROR : code;
	code = kafka_topic_trouble(m);
	rd_kafka_metadata_destroy(m);
	return code;
}

static enum sink_result
wait_on(struct kafka_sink *k, const struct delivery *d)
{
	bool patient = clock_mono_ns() - k->moved_ns < SLOW_NS;
	rd_kafka_resp_err_t code = diagnose(k, patient);

	if (code == RD_KAFKA_RESP_ERR_NO_ERROR && patient)
		return SINK_BUSY;
	err_set(d->err, "topic %s: %s", k->cfg->kafka.topic,
	    code != RD_KAFKA_RESP_ERR_NO_ERROR ? kafka_why(code)
					       : "the brokers do not acknowledge");
	return SINK_RETRY;
}

static enum sink_result
run(struct kafka_sink *k, struct delivery *d)
{
	rd_kafka_resp_err_t code;

	while (*d->done < d->n) {
		if (make_producer(k, d->err) == -1)
			return SINK_RETRY;
		d->next = *d->done + k->n;
		if ((code = feed(k, d)) == RD_KAFKA_RESP_ERR_NO_ERROR) {
			if (!await_report(k, d->deadline_ns - DIAGNOSE_MS * CLOCK_NS_PER_MS))
				return wait_on(k, d);
			code = settle(k, d);
		}
		if (is_too_large_together(k, code)) {
			k->alone = k->n;
			drop_producer(k);
		} else if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
			return judge(k, d, code);
		}
	}
	return SINK_OK;
}

/* ---- the sink ---- */

static enum sink_result
kafka_deliver(void *state, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	struct kafka_sink *k = state;
	struct delivery d = {
		.events = events, .n = n, .done = done, .deadline_ns = deadline_ns, .err = err
	};

	if (!continues(k, &d))
		drop_producer(k);
	return run(k, &d);
}

static int
kafka_open(const struct config_sink *cfg, void **state, struct err *err)
{
	struct kafka_sink *k = calloc(1, sizeof(*k));
	pthread_condattr_t attr;

	if (k == NULL)
		return err_set(err, "memory is short");
	k->cfg = cfg;
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->changed, &attr);
	pthread_condattr_destroy(&attr);
	*state = k;
	return 0;
}

static void
kafka_close(void *state)
{
	struct kafka_sink *k = state;

	drop_producer(k);
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static void
kafka_log_to(void *state, struct log *log)
{
	struct kafka_sink *k = state;

	k->log = log;
}

static void
kafka_figures(void *state, sink_figure_fn each, void *arg)
{
	struct kafka_sink *k = state;

	pthread_mutex_lock(&k->lock);
	kafka_figures_tell(&k->figures, each, arg);
	pthread_mutex_unlock(&k->lock);
}

static const struct sink_ops ops = {
	.type = "kafka",
	.open = kafka_open,
	.close = kafka_close,
	.deliver = kafka_deliver,
	.probe = kafka_probe,
	.figures = kafka_figures,
	.log_to = kafka_log_to,
};

const struct sink_module keytrail_sink = {
	.abi = SINK_ABI,
	.version = KEYTRAIL_VERSION,
	.ops = &ops,
};
