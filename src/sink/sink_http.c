/*
 * sink_http: batches of events as requests over HTTP.
 *
 * A batch may take several requests (a token, the events, a question about them) and longer than the
 * patience of one deliver; then SINK_BUSY says so, and the next call goes on.
 */
#include "keytrail/sink.h"

#include "keytrail/clock.h"
#include "keytrail/http_preset.h"
#include "sink_http_secret.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define TOKEN_EARLY_NS	(300 * CLOCK_NS_PER_S) /* before its end a token is fetched anew ... */
#define TOKEN_SHARE	5		       /* ... but not in the first 4/5 of its life */
#define ACK_POLL_NS	(200 * CLOCK_NS_PER_MS)
#define ACK_PATIENCE_NS (120 * CLOCK_NS_PER_S)
#define LONE_TRIES	6
#define GZIP_LEVEL	Z_BEST_SPEED

enum step {
	STEP_READY,
	STEP_TOKEN, /* for the API key */
	STEP_EVENTS,
	STEP_ASK, /* about events that are said to be there already */
};

struct http {
	const struct config_http *cfg;
	const struct http_preset *preset;
	char *url, *path;
	struct exchange *events;

	enum step step;
	size_t from;	   /* of those offered, the first in the request that is under way ... */
	size_t sent;	   /* ... and how many there are in it */
	bool trusted;	   /* it has taken something since it rejected the last, or was opened */
	bool proving;	   /* whether it takes anything at all */
	unsigned refusals; /* of an event that is alone, while it is not trusted */
	size_t limit;	   /* on events of a request; 0: none is known */
	size_t suspect; /* so many of the next events, one of which was refused; 0: none is known */
	struct http_verdict verdict;
	struct buf body, packed;
	int64_t not_before_ns; /* as the server wished */

	/* ibm-cloud-logs */
	struct exchange *iam; /* or NULL */
	struct buf token;
	int64_t token_until_ns;

	/* splunk-hec */
	struct exchange *acks;
	struct buf question;
	uint64_t *pending; /* what is not indexed yet */
	size_t npending, room;
	int64_t pending_ns; /* since when */
	char channel[HTTP_CHANNEL_SIZE];

	uint64_t requests, conflicts;
};

/* ---- opening ---- */

static void
http_close(void *state)
{
	struct http *h = state;

	exchange_free(h->events);
	exchange_free(h->iam);
	exchange_free(h->acks);
	buf_fini(&h->body);
	buf_fini(&h->packed);
	buf_fini(&h->question);
	buf_fini(&h->token);
	free(h->pending);
	free(h->path);
	free(h->url);
	free(h);
}

/* The preset's, with the index in it. */
static char *
path_of(const struct http_preset *p, const char *index)
{
	struct buf path = BUF_INIT;
	char *out = NULL;

	for (const char *c = p->path; *c != '\0'; c++)
		if (*c == '$' ? buf_printf(&path, "%s", index) == -1
			      : buf_append(&path, c, 1) == -1)
			goto done;
	out = strndup(buf_slice(&path).p, buf_size(&path));
done:
	buf_fini(&path);
	return out;
}

static int
open_others(struct http *h, const struct config_sink *cfg, struct err *err)
{
	/* `tls` is about the receiver; IAM is a public server. */
	static const struct config_tls public = { .on = true };

	if (cfg->http.preset == CONFIG_HTTP_SPLUNK_HEC &&
	    exchange_new(cfg, &cfg->tls, h->url, &h->acks, err) == -1)
		return -1;
	return cfg->http.api_key.path != NULL
		   ? exchange_new(cfg, &public, cfg->http.iam_url, &h->iam, err)
		   : 0;
}

static int
http_open(const struct config_sink *cfg, void **state, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));
	size_t n = strlen(cfg->http.url);

	if (h == NULL)
		return err_set(err, "%s: memory is short", cfg->http.url);
	h->cfg = &cfg->http;
	h->preset = http_preset_of(cfg->http.preset);
	n -= n > 0 && cfg->http.url[n - 1] == '/' && h->preset->path[0] != '\0';
	if ((h->url = strndup(cfg->http.url, n)) == NULL ||
	    (h->path = path_of(h->preset, cfg->http.index)) == NULL) {
		err_set(err, "%s: memory is short", cfg->http.url);
		goto fail;
	}
	if (exchange_new(cfg, &cfg->tls, h->url, &h->events, err) == -1 ||
	    open_others(h, cfg, err) == -1)
		goto fail;
	*state = h;
	return 0;
fail:
	http_close(h);
	return -1;
}

static int
add_token(struct http *h, struct exchange *x, struct err *err)
{
	struct buf value = BUF_INIT;
	int rc = -1;

	if (buf_printf(&value, "Bearer ") == -1 ||
	    buf_append_slice(&value, buf_slice(&h->token)) == -1)
		err_set(err, "%s: memory is short", h->url);
	else
		rc = exchange_header(x, "Authorization", buf_slice(&value), err);
	buf_fini(&value);
	return rc;
}

/* ---- requests ---- */

static int
pack(struct http *h, struct err *err)
{
	struct slice body = buf_slice(&h->body);
	z_stream z = { .next_in = (Bytef *)(uintptr_t)body.p, .avail_in = (uInt)body.n };
	int rc;

	buf_consume(&h->packed, buf_size(&h->packed));
	if (deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return err_set(err, "%s: memory is short", h->url);
	z.avail_out = (uInt)deflateBound(&z, body.n);
	rc = buf_reserve(&h->packed, z.avail_out);
	if (rc == 0) {
		z.next_out = (Bytef *)buf_tail(&h->packed);
		rc = deflate(&z, Z_FINISH) == Z_STREAM_END ? 0 : -1;
		buf_commit(&h->packed, z.total_out);
	}
	deflateEnd(&z);
	return rc == 0 ? 0 : err_set(err, "%s: memory is short", h->url);
}

static int
add_credentials(const struct http *h, struct exchange *x, struct err *err)
{
	const struct config_http *cfg = h->cfg;
	const struct http_credential bearer = { "Authorization", h->preset->scheme, NULL,
		cfg->bearer.path },
				     basic = { "Authorization", "Basic", cfg->basic.user,
					     cfg->basic.password.path };

	if (http_add_credential(x, &bearer, h->url, err) == -1 ||
	    http_add_credential(x, &basic, h->url, err) == -1)
		return -1;
	for (size_t i = 0; i < cfg->nheaders; i++)
		if (http_add_credential(x,
			&(struct http_credential){
			    cfg->headers[i].name, "", NULL, cfg->headers[i].value.path },
			h->url, err) == -1)
			return -1;
	return 0;
}

static int
add_headers(struct http *h, struct exchange *x, struct err *err)
{
	if (exchange_header(x, "Content-Type", slice_of(h->preset->type), err) == -1 ||
	    (h->iam != NULL && add_token(h, x, err) == -1) || add_credentials(h, x, err) == -1)
		return -1;
	return h->acks != NULL
		   ? exchange_header(x, "X-Splunk-Request-Channel", slice_of(h->channel), err)
		   : 0;
}

/* Send what is in the body. */
static int
begin(struct http *h, const char *path, enum step step, struct err *err)
{
	const struct buf *body = &h->body;

	if (add_headers(h, h->events, err) == -1)
		goto fail;
	if (h->cfg->gzip) {
		if (pack(h, err) == -1 ||
		    exchange_header(h->events, "Content-Encoding", SLICE("gzip"), err) == -1)
			goto fail;
		body = &h->packed;
	}
	if (exchange_begin(h->events, path, buf_slice(body), err) == -1)
		goto fail;
	h->requests++;
	h->step = step;
	return 0;
fail:
	exchange_give_up(h->events);
	return -1;
}

/* Of the suspects the first half, so that the one is found in few requests. */
static size_t
how_many(const struct http *h, size_t n)
{
	size_t half = (h->suspect + 1) / 2;

	if (h->suspect > 0 && half < n)
		n = half;
	return h->limit > 0 && h->limit < n ? h->limit : n;
}

/* What is too large for the server is halved; while it takes as many, a few more are tried. */
static void
set_limit(struct http *h, bool too_large)
{
	if (too_large)
		h->limit = h->sent / 2;
	else if (h->sent == h->limit)
		h->limit += h->limit / 8 + 1;
}

static int
begin_events(struct http *h, const struct sink_event *events, size_t n, struct err *err)
{
	h->from = h->proving ? n - 1 : 0;
	h->sent = h->proving ? 1 : how_many(h, n);
	buf_consume(&h->body, buf_size(&h->body));
	if (h->channel[0] == '\0')
		http_splunk_channel(events[0].log, h->channel);
	if (h->preset->frame(events + h->from, h->sent, &h->body) == -1)
		return err_set(err, "%s: memory is short", h->url);
	return begin(h, h->path, STEP_EVENTS, err);
}

static int
begin_token(struct http *h, struct err *err)
{
	struct buf key = BUF_INIT;
	int rc = -1;

	buf_consume(&h->body, buf_size(&h->body));
	if (http_read_secret(h->cfg->api_key.path, &key, err) == -1)
		goto done;
	if (http_iam_ask(buf_slice(&key), &h->body) == -1) {
		err_set(err, "%s: memory is short", h->url);
		goto done;
	}
	rc = exchange_header(
	    h->iam, "Content-Type", SLICE("application/x-www-form-urlencoded"), err);
	if (rc == 0)
		rc = exchange_begin(h->iam, "", buf_slice(&h->body), err);
	if (rc == 0)
		h->step = STEP_TOKEN;
done:
	if (rc == -1) {
		exchange_give_up(h->iam);
		buf_fini(&h->body); /* the key is in it */
	}
	buf_fini(&key);
	return rc;
}

/* ---- answers ---- */

static int
take_token(struct http *h, struct err *err)
{
	const struct http_reply reply = exchange_reply(h->iam);
	int64_t early_ns = TOKEN_EARLY_NS, life_ns;
	uint64_t seconds;

	buf_fini(&h->token);
	buf_fini(&h->body); /* the key is in it */
	h->token_until_ns = 0;
	if (http_iam_read(&reply, &h->token, &seconds, err) == -1)
		return -1;
	if (!http_fits_header(buf_slice(&h->token)))
		return err_set(err, "IAM's token is none that a header can hold");
	life_ns = (int64_t)(seconds < 86400 ? seconds : 86400) * CLOCK_NS_PER_S;
	if (early_ns > life_ns / TOKEN_SHARE)
		early_ns = life_ns / TOKEN_SHARE;
	h->token_until_ns = clock_mono_ns() + life_ns - early_ns;
	return 0;
}

static int
note_ack(struct http *h)
{
	if (h->verdict.ack == HTTP_NO_ACK)
		return 0;
	if (h->npending == h->room) {
		size_t room = h->room == 0 ? 64 : h->room * 2;
		uint64_t *more = reallocarray(h->pending, room, sizeof(*more));

		if (more == NULL)
			return -1;
		h->pending = more;
		h->room = room;
	}
	if (h->npending == 0)
		h->pending_ns = clock_mono_ns();
	h->pending[h->npending++] = h->verdict.ack;
	return 0;
}

/* Fewer of them, to find the one. */
static enum sink_result
divide(struct http *h)
{
	if (exchange_reply(h->events).status == 413)
		set_limit(h, true);
	else
		h->suspect = h->sent - h->verdict.done;
	return SINK_OK;
}

/*
 * Who refuses an event may be one who refuses all, since something is set up wrongly; then none is
 * put aside.  So before each that is, another must have been taken, if only the stub of the one before;
 * where there is no other, it must have been refused some times, since it may keep others from coming.
 */
static enum sink_result
reject(struct http *h, size_t left, struct err *err)
{
	bool proving = h->proving;

	h->suspect = 0;
	h->proving = false;
	/* It has what it says that it has: it takes events. */
	h->trusted = h->trusted || h->verdict.conflict;
	if (h->trusted && proving)
		return SINK_OK;
	if (!h->trusted && !proving && left > 1) {
		h->proving = true;
		return SINK_OK;
	}
	if (h->trusted || (left == 1 && ++h->refusals >= LONE_TRIES)) {
		h->trusted = false;
		h->refusals = 0;
		return SINK_REJECT;
	}
	err_prefix(err, "nothing else was taken, so it may be the set-up");
	return SINK_RETRY;
}

/* Add what is taken, and say how to go on: SINK_OK with what is left. */
static enum sink_result
conclude(struct http *h, size_t left, size_t *done, struct err *err)
{
	const struct http_verdict *v = &h->verdict;
	bool proving = h->proving;

	h->conflicts += v->conflict;
	h->trusted = h->trusted || v->done > 0;
	err_set(
	    err, "%s%s%s", v->why[0] != '\0' ? h->url : "", v->why[0] != '\0' ? ": " : "", v->why);
	if (v->say == HTTP_TAKEN && note_ack(h) == -1) {
		err_set(err, "%s: memory is short", h->url);
		return SINK_RETRY;
	}
	if (!proving) { /* what proved it comes again in its turn */
		*done += v->done;
		h->suspect = h->suspect > v->done ? h->suspect - v->done : 0;
	}
	if (v->say == HTTP_REJECTED)
		return reject(h, left, err);
	h->proving = false;
	if (v->say == HTTP_REFUSED)
		return divide(h);
	if (v->say == HTTP_TAKEN) {
		set_limit(h, false);
		return SINK_OK;
	}
	if (exchange_retry_after_ns(h->events) > 0)
		h->not_before_ns = clock_mono_ns() + exchange_retry_after_ns(h->events);
	return SINK_RETRY;
}

static enum sink_result
take_answer(
    struct http *h, const struct sink_event *events, size_t left, size_t *done, struct err *err)
{
	const struct http_reply reply = exchange_reply(h->events);

	if (reply.status == 401)
		h->token_until_ns = 0; /* somebody took it back */
	buf_consume(&h->body, buf_size(&h->body));
	if (http_read(h->preset, &reply, events + h->from, h->sent, &h->verdict, &h->body) == -1) {
		err_set(err, "%s: memory is short", h->url);
		return SINK_RETRY;
	}
	if (buf_size(&h->body) == 0)
		return conclude(h, left, done, err);
	return begin(h, h->preset->ask_path, STEP_ASK, err) == 0 ? SINK_OK : SINK_RETRY;
}

static enum sink_result
take(struct http *h, const struct sink_event *events, size_t left, size_t *done, struct err *err)
{
	enum step step = h->step;
	struct http_reply reply;

	h->step = STEP_READY;
	switch (step) {
	case STEP_TOKEN:
		return take_token(h, err) == 0 ? SINK_OK : SINK_RETRY;
	case STEP_EVENTS:
		return take_answer(h, events, left, done, err);
	case STEP_ASK:
		reply = exchange_reply(h->events);
		h->preset->settle(&reply, events + h->from, &h->verdict);
		return conclude(h, left, done, err);
	case STEP_READY:
		break;
	}
	return SINK_OK;
}

/* ---- delivering ---- */

static int
begin_next(struct http *h, const struct sink_event *events, size_t n, struct err *err)
{
	if (h->step != STEP_READY)
		return 0;
	return h->iam != NULL && clock_mono_ns() >= h->token_until_ns
		   ? begin_token(h, err)
		   : begin_events(h, events, n, err);
}

/* One request and its answer.  SINK_OK: on with what is left. */
static enum sink_result
advance(struct http *h, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	int rc;

	if (begin_next(h, events + *done, n - *done, err) == -1)
		return SINK_RETRY;
	rc = exchange_wait(h->step == STEP_TOKEN ? h->iam : h->events, deadline_ns, err);
	if (rc == 0)
		return SINK_BUSY;
	if (rc == 1)
		return take(h, events + *done, n - *done, done, err);
	if (h->step == STEP_TOKEN)
		buf_fini(&h->body); /* the key is in it */
	h->step = STEP_READY;
	return SINK_RETRY;
}

static enum sink_result
http_deliver(void *state, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	enum sink_result result = SINK_OK;
	struct http *h = state;
	int64_t wait_ns = h->not_before_ns - clock_mono_ns();

	if (wait_ns > 0) {
		err_set(err, "%s: the server wants to be left alone for %d s more", h->url,
		    (int)(wait_ns / CLOCK_NS_PER_S) + 1);
		return SINK_RETRY;
	}
	while (*done < n && result == SINK_OK)
		result = advance(h, events, n, deadline_ns, done, err);
	if (result == SINK_OK)
		err->msg[0] = '\0';
	return result;
}

/* ---- acknowledgement of what was taken ---- */

static int
begin_acks(struct http *h, struct err *err)
{
	buf_consume(&h->question, buf_size(&h->question));
	if (http_splunk_ask(h->pending, h->npending, &h->question) == -1)
		return err_set(err, "%s: memory is short", h->url);
	if (add_headers(h, h->acks, err) == 0 &&
	    exchange_begin(h->acks, h->preset->ask_path, buf_slice(&h->question), err) == 0)
		return 0;
	exchange_give_up(h->acks);
	return -1;
}

/* Ask once.  1: answered; 0: not at the deadline; -1. */
static int
ask_acks(struct http *h, int64_t deadline_ns, struct err *err)
{
	struct http_reply reply;
	int rc;

	if (!exchange_running(h->acks) && begin_acks(h, err) == -1)
		return -1;
	if ((rc = exchange_wait(h->acks, deadline_ns, err)) != 1)
		return rc;
	reply = exchange_reply(h->acks);
	return http_splunk_acked(&reply, h->pending, &h->npending, err) == 0 ? 1 : -1;
}

/* What is not indexed by now comes again; so does what is under way. */
static int
give_up_acks(struct http *h, struct err *err)
{
	h->npending = 0;
	exchange_give_up(h->events);
	h->step = STEP_READY;
	return err_set(err, "%s: events were not indexed within %d s; they come again", h->url,
	    (int)(ACK_PATIENCE_NS / CLOCK_NS_PER_S));
}

static void
rest(int64_t until_ns)
{
	int64_t left = until_ns - clock_mono_ns();

	if (left > 0)
		poll(NULL, 0, (int)(left / CLOCK_NS_PER_MS) + 1);
}

static int
http_flush(void *state, int64_t deadline_ns, struct err *err)
{
	struct http *h = state;

	while (h->npending > 0) {
		int64_t next_ns = clock_mono_ns() + ACK_POLL_NS;

		/* Its word may be late, and its failure to say it too. */
		(void)ask_acks(h, deadline_ns, err);
		if (h->npending > 0 && clock_mono_ns() - h->pending_ns > ACK_PATIENCE_NS)
			return give_up_acks(h, err);
		if (h->npending > 0 && clock_mono_ns() >= deadline_ns)
			return 1;
		if (h->npending > 0)
			rest(next_ns < deadline_ns ? next_ns : deadline_ns);
	}
	return 0;
}

/* ---- looking ---- */

static int
fetch_token(struct http *h, int64_t deadline_ns, struct err *err)
{
	int rc = begin_token(h, err) == -1 ? -1 : exchange_wait(h->iam, deadline_ns, err);

	if (rc == 0)
		return err_set(err, "IAM does not answer in time");
	return rc == -1 ? -1 : take_token(h, err);
}

static int
look(struct http *h, int64_t deadline_ns, struct buf *found, struct err *err)
{
	unsigned status;
	int rc;

	if ((h->iam != NULL && fetch_token(h, deadline_ns, err) == -1) ||
	    add_headers(h, h->events, err) == -1 || exchange_look(h->events, err) == -1 ||
	    (rc = exchange_wait(h->events, deadline_ns, err)) == -1)
		return -1;
	status = exchange_reply(h->events).status;
	if (rc == 0)
		return err_set(err, "%s: no answer in time", h->url);
	if (status == 401 || status == 403 || status == 407)
		return err_set(
		    err, "%s: the credentials are not taken (status %u)", h->url, status);
	return buf_printf(found, "%s answers (status %u to HEAD)", h->url, status);
}

static int
http_probe(const struct config_sink *cfg, int64_t deadline_ns, struct buf *found, struct err *err)
{
	void *state;
	int rc;

	if (http_open(cfg, &state, err) == -1)
		return -1;
	rc = look(state, deadline_ns, found, err);
	http_close(state);
	return rc;
}

static void
http_figures(void *state, sink_figure_fn each, void *arg)
{
	const struct http *h = state;

	each(arg, "requests", (double)h->requests);
	each(arg, "conflicts", (double)h->conflicts);
	each(arg, "unacknowledged_requests", (double)h->npending);
}

const struct sink_ops sink_http_ops = {
	.type = "http",
	.open = http_open,
	.close = http_close,
	.deliver = http_deliver,
	.flush = http_flush,
	.probe = http_probe,
	.figures = http_figures,
};

const struct sink_module keytrail_sink = { SINK_ABI, KEYTRAIL_VERSION, &sink_http_ops };
