/*
 * fuzz_http: what fuzz_request and fuzz_response share.  Properties abort.
 */
#ifndef FUZZ_HTTP_H
#define FUZZ_HTTP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/pump.h"
#include "data/rewrite.h"
#include "fuzz_fields.h"
#include "keytrail/parse.h"
#include "keytrail/route.h"
#include "wire/strict.h"

#define CHECK(property)                                                                            \
	do {                                                                                       \
		if (!(property)) {                                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #property);             \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

enum kind { KIND_REQUEST, KIND_ANSWER, KIND_ANSWER_TO_HEAD };

struct verdict {
	enum http_result result;
	enum http_refusal refusal;
	size_t used;
	struct http_head head;
};

static void
parse_once(enum kind kind, const struct http_limits *limits, struct http_scan *scan,
    struct slice in, struct verdict *v)
{
	v->refusal = REFUSAL_NONE;
	v->used = 0;
	if (kind == KIND_REQUEST)
		v->result = http_parse_request(scan, in, limits, &v->head, &v->used, &v->refusal);
	else
		v->result = http_parse_response(
		    scan, in, limits, kind == KIND_ANSWER_TO_HEAD, &v->head, &v->used, &v->refusal);
}

/* Where bytes are cut: into short pieces and now and then a long one, or behind each byte. */
struct cuts {
	uint32_t state; /* 0: nowhere */
	bool each;
};

static size_t
cuts_next(struct cuts *c)
{
	uint32_t drawn = c->state >> 16;

	if (c->state == 0)
		return SIZE_MAX / 2;
	if (c->each)
		return 1;
	c->state = c->state * 1664525 + 1013904223;
	c->state += c->state == 0;
	return drawn % 8 == 0 ? 1 + drawn / 8 % 512 : 1 + drawn / 8 % 16;
}

/* The first byte of an input says how the rest of it is cut. */
static struct cuts
cuts_of(uint8_t seed)
{
	return (struct cuts){ (1u + seed) * 2654435769u, seed % 16 == 0 };
}

/* Feed prefixes that grow piece by piece, each in memory of its own size. */
static struct slice
parse_in_steps(enum kind kind, const struct http_limits *limits, struct slice in, struct cuts cuts,
    struct verdict *v)
{
	struct http_scan scan = { 0 };
	struct slice part = SLICE_EMPTY;
	char *copy = NULL;

	for (size_t n = 0;; n += cuts_next(&cuts)) {
		n = n < in.n ? n : in.n;
		copy = realloc(copy, n > 0 ? n : 1);
		CHECK(copy != NULL);
		if (n > 0)
			memcpy(copy, in.p, n);
		part = (struct slice){ copy, n };
		parse_once(kind, limits, &scan, part, v);
		if (v->result != HTTP_MORE || n == in.n)
			return part;
	}
}

/* Limits that a reload changes between two calls: whatever was read under the former ones, nothing
 * is read too far and nothing passes that the last ones forbid. */
static void
check_changing_limits(
    enum kind kind, const struct http_limits *limits, struct slice in, struct cuts cuts)
{
	static struct verdict v;
	static const struct http_limits low = { .head = 48, .target = 16, .fields = 2 };
	const struct http_limits *now = limits;
	struct http_scan scan = { 0 };
	unsigned turn = 0;
	size_t n = 0;

	v.result = HTTP_MORE;
	while (v.result == HTTP_MORE && n < in.n) {
		size_t step = cuts_next(&cuts);
		char *copy;

		n = n + step < in.n ? n + step : in.n;
		CHECK((copy = malloc(n)) != NULL);
		memcpy(copy, in.p, n);
		now = turn++ % 3 == 1 ? &low : limits;
		parse_once(kind, now, &scan, (struct slice){ copy, n }, &v);
		free(copy);
	}
	if (v.result == HTTP_DONE)
		CHECK(v.used <= now->head && v.head.nfields <= now->fields &&
		      v.head.target.n <= now->target);
}

static void
check_same_slice(struct slice a, struct slice b)
{
	CHECK(slice_equal(a, b));
}

static void
check_same_head(const struct http_head *a, const struct http_head *b)
{
	check_same_slice(a->method, b->method);
	check_same_slice(a->target, b->target);
	check_same_slice(a->authority, b->authority);
	check_same_slice(a->path, b->path);
	check_same_slice(a->query, b->query);
	check_same_slice(a->reason, b->reason);
	CHECK(a->has_query == b->has_query && a->status == b->status && a->minor == b->minor);
	CHECK(a->keep_alive == b->keep_alive && a->expect_continue == b->expect_continue);
	CHECK(a->framing == b->framing && a->length == b->length && a->nfields == b->nfields);
	CHECK(memcmp(a->first, b->first, sizeof(a->first)) == 0);
	for (unsigned i = 0; i < a->nfields; i++) {
		check_same_slice(a->fields[i].name, b->fields[i].name);
		check_same_slice(a->fields[i].value, b->fields[i].value);
		CHECK(a->fields[i].id == b->fields[i].id && a->fields[i].hop == b->fields[i].hop);
	}
}

static size_t
put(char *out, size_t n, size_t cap, struct slice s)
{
	CHECK(n + s.n <= cap);
	if (s.n > 0)
		memcpy(out + n, s.p, s.n);
	return n + s.n;
}

/* The head in canonical form. */
static size_t
write_head(const struct http_head *h, enum kind kind, char *out, size_t cap)
{
	struct slice version = h->minor == 1 ? SLICE("HTTP/1.1") : SLICE("HTTP/1.0");
	char status[8];
	size_t n = 0;

	snprintf(status, sizeof(status), " %03u ", h->status % 1000);
	n = put(out, n, cap, kind == KIND_REQUEST ? h->method : version);
	n = put(out, n, cap, kind == KIND_REQUEST ? SLICE(" ") : slice_of(status));
	n = put(out, n, cap, kind == KIND_REQUEST ? h->target : h->reason);
	n = put(out, n, cap, kind == KIND_REQUEST ? SLICE(" ") : SLICE_EMPTY);
	n = put(out, n, cap, kind == KIND_REQUEST ? version : SLICE_EMPTY);
	n = put(out, n, cap, SLICE("\r\n"));
	for (unsigned i = 0; i < h->nfields; i++) {
		n = put(out, n, cap, h->fields[i].name);
		n = put(out, n, cap, SLICE(": "));
		n = put(out, n, cap, h->fields[i].value);
		n = put(out, n, cap, SLICE("\r\n"));
	}
	return put(out, n, cap, SLICE("\r\n"));
}

static void
check_bytes(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		CHECK(((unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f) || s.p[i] == '\t');
}

/* What holds for every head that was accepted, whatever its bytes were. */
static void
check_accepted(const struct verdict *v, struct slice in, enum kind kind)
{
	const struct http_head *h = &v->head;
	bool chunked = http_head_count_name(h, SLICE("transfer-encoding")) > 0;
	bool length = http_head_count_name(h, SLICE("content-length")) > 0;

	CHECK(v->used >= 4 && v->used <= in.n);
	CHECK(memcmp(in.p + v->used - 4, "\r\n\r\n", 4) == 0);
	CHECK(http_head_count_name(h, SLICE("content-length")) <= 1);
	CHECK(!chunked || (!length && h->minor == 1));
	CHECK((h->framing == HTTP_CHUNKED) <= chunked && (h->framing == HTTP_LENGTH) <= length);
	CHECK(kind != KIND_REQUEST || h->framing != HTTP_UNTIL_CLOSE);
	CHECK(kind != KIND_REQUEST || (chunked == (h->framing == HTTP_CHUNKED)));
	CHECK(kind != KIND_REQUEST || h->minor == 0 || http_head_count_name(h, SLICE("host")) == 1);
	CHECK(memchr(in.p, '\0', v->used) == NULL);
	check_bytes(h->reason);
	for (unsigned i = 0; i < h->nfields; i++) {
		CHECK(h->fields[i].name.n > 0);
		check_bytes(h->fields[i].value);
	}
}

struct body_run {
	char *content;
	size_t n, left;
	enum http_body_result result;
	enum http_refusal refusal;
	struct http_body body;
};

static void
read_body(const struct http_head *h, struct slice in, struct cuts cuts, struct body_run *r)
{
	size_t from = 0;

	*r = (struct body_run){ .content = malloc(in.n > 0 ? in.n : 1) };
	CHECK(r->content != NULL);
	http_body_follow(&r->body, h);
	do {
		size_t step = cuts_next(&cuts);
		size_t n = in.n - from < step ? in.n - from : step;
		struct slice part = slice_sub(in, from, from + n), data;

		while ((r->result = http_body_next(&r->body, &part, &data, &r->refusal)) ==
		       HTTP_BODY_DATA) {
			CHECK(data.n > 0 && data.p >= in.p && data.p + data.n <= in.p + in.n);
			memcpy(r->content + r->n, data.p, data.n);
			r->n += data.n;
		}
		from += n - part.n;
	} while (r->result == HTTP_BODY_MORE && from < in.n);
	r->left = in.n - from;
}

static void
check_body(const struct http_head *h, struct slice in, struct cuts cuts)
{
	static struct body_run whole, cut;

	read_body(h, in, (struct cuts){ 0 }, &whole);
	read_body(h, in, cuts, &cut);
	CHECK(whole.result == cut.result && whole.refusal == cut.refusal && whole.n == cut.n);
	CHECK(memcmp(whole.content, cut.content, whole.n) == 0 && whole.body.total == whole.n);
	CHECK(http_body_done(&whole.body) == (whole.result == HTTP_BODY_END));
	check_same_slice(http_body_trailers(&whole.body), http_body_trailers(&cut.body));
	if (whole.result != HTTP_BODY_BAD)
		CHECK(whole.left == cut.left);
	free(whole.content);
	free(cut.content);
}

/* ---- what leaves: every message of a stream, written afresh, read by a stranger ---- */

#define STREAM_MESSAGES 8

struct written {
	uint64_t line;	 /* sum of a request's method and of its target in origin form */
	unsigned status; /* an answer's */
	uint64_t content, sum;
	bool whole, until_close;
	struct buf fields, trailers;
};

/* One direction of a connection: bytes in, bytes out, and what was understood of them. */
struct relay {
	enum kind kind;
	struct way way;
	struct buf in, out;
	unsigned n;
	struct written messages[STREAM_MESSAGES];
};

/* Is it passed where there are no routes, which could forbid more? */
static bool
is_passed(const struct http_head *h)
{
	static const struct route_options options = { .default_action = "x.default" };
	static struct route_table *routes;
	static struct route_match match;
	struct err err;

	CHECK(routes != NULL || route_compile(NULL, 0, &options, &routes, &err) == 0);
	route_match(routes, h, &match);
	return match.refusal == REFUSAL_NONE;
}

/* False: refused. */
static bool
write_message_head(struct relay *r, const struct http_head *h, enum http_framing *framing)
{
	static char host[] = SERVICE;
	struct config_upstream upstream = { .host = host, .pass_host = r->way.pass_host };
	struct rewrite_request request = { .head = h,
		.upstream = &upstream,
		.correlation_header = SLICE_INIT("Correlation-Id"),
		.correlation = CORRELATION,
		.client = CLIENT,
		.trusted_peer = r->way.trusted,
		.tls = true };
	struct rewrite_response answer = {
		.head = h, .client_minor = r->way.client_10 ? 0 : 1, .service = SLICE_INIT(SERVICE)
	};

	*framing = h->framing;
	if (h->framing == HTTP_CHUNKED || h->framing == HTTP_UNTIL_CLOSE)
		*framing = r->way.client_10 ? HTTP_UNTIL_CLOSE : HTTP_CHUNKED;
	answer.framing = *framing;
	answer.close = *framing == HTTP_UNTIL_CLOSE;
	if (r->kind == KIND_REQUEST ? !is_passed(h) : !rewrite_may_relay(&answer))
		return false;
	if (r->kind == KIND_REQUEST)
		CHECK(rewrite_request(&r->out, &request) == 0);
	else
		CHECK(rewrite_response(&r->out, &answer) == 0);
	return true;
}

/* The body of the message that was begun last, in pieces; its end is consumed. */
static void
relay_body(struct relay *r, const struct http_head *h, enum http_framing framing, struct cuts cuts)
{
	static struct http_body body;
	struct buf piece = BUF_INIT, out = BUF_INIT;
	enum pump_result result = PUMP_SOME;
	enum http_refusal why;

	http_body_follow(&body, h);
	while (!http_body_done(&body) && result != PUMP_BAD && buf_size(&r->in) > 0) {
		struct slice next = buf_slice(&r->in);
		size_t step = cuts_next(&cuts);

		next.n = next.n < step ? next.n : step;
		CHECK(buf_append_slice(&piece, next) == 0);
		result = pump_fill(&out, framing, &piece, &body, &why);
		CHECK(result != PUMP_MEMORY && buf_append_slice(&r->out, buf_slice(&out)) == 0);
		buf_consume(&out, buf_size(&out));
		/* What is left of a piece belongs to the next message. */
		buf_consume(&r->in, next.n - (http_body_done(&body) ? buf_size(&piece) : 0));
	}
	if (result != PUMP_BAD && h->framing == HTTP_UNTIL_CLOSE)
		CHECK(pump_end(&r->out, framing, &body) == 0);
	buf_fini(&piece);
	buf_fini(&out);
}

static uint64_t
sum_slice(uint64_t sum, struct slice s)
{
	return strict_sum(sum, s.p, s.n);
}

static uint64_t
sum_line(struct slice method, struct slice path, struct slice query)
{
	uint64_t sum = sum_slice(sum_slice(STRICT_SUM_INIT, method), SLICE(" "));

	return sum_slice(sum_slice(sum, path), query);
}

/* What our own decoder makes of the body that follows the head, whose bytes are `head`. */
static struct written
understand(const struct http_head *h, struct slice head, struct slice rest)
{
	static struct body_run run;
	/* The '?' stands before the query. */
	struct slice query =
	    h->has_query ? (struct slice){ h->query.p - 1, h->query.n + 1 } : SLICE_EMPTY;
	struct written w = { .status = h->status, .line = sum_line(h->method, h->path, query) };

	read_body(h, rest, (struct cuts){ 0 }, &run);
	w.content = run.n;
	w.sum = strict_sum(STRICT_SUM_INIT, run.content, run.n);
	w.whole = http_body_done(&run.body) ||
		  (h->framing == HTTP_UNTIL_CLOSE && run.result != HTTP_BODY_BAD);
	free(run.content);
	if (w.whole && h->framing == HTTP_CHUNKED)
		due_trailers(&w.trailers, head, rest);
	return w;
}

/* False: the stream ends here. */
static bool
relay_one(struct relay *r, const struct http_limits *limits, struct cuts cuts)
{
	static struct verdict v;
	enum http_framing framing;
	struct slice part = parse_in_steps(r->kind, limits, buf_slice(&r->in), cuts, &v);
	bool interim = r->kind != KIND_REQUEST && v.head.status < 200;
	bool on = v.result == HTTP_DONE;

	if (on)
		buf_consume(&r->in, v.used);
	if (on && !interim && (on = write_message_head(r, &v.head, &framing))) {
		struct written *w = &r->messages[r->n++];

		*w = understand(&v.head, slice_sub(part, 0, v.used), buf_slice(&r->in));
		due_fields(&w->fields, slice_sub(part, 0, v.used), r->kind == KIND_REQUEST,
		    r->kind == KIND_ANSWER_TO_HEAD, &r->way);
		w->until_close = framing == HTTP_UNTIL_CLOSE;
		relay_body(r, &v.head, framing, cuts);
		on = w->whole && v.head.keep_alive && !w->until_close;
	}
	free((void *)(uintptr_t)part.p);
	return on && r->n < STREAM_MESSAGES && buf_size(&r->in) > 0;
}

static enum strict_kind
strict_kind_of(enum kind kind)
{
	return kind == KIND_REQUEST  ? STRICT_REQUEST
	       : kind == KIND_ANSWER ? STRICT_ANSWER
				     : STRICT_ANSWER_TO_HEAD;
}

static void
check_text(struct slice got, struct buf *wanted)
{
	if (!slice_equal(got, buf_slice(wanted)))
		fprintf(stderr, "left with\n%.*sinstead of\n%.*s\n", SLICE_ARG(got),
		    SLICE_ARG(buf_slice(wanted)));
	CHECK(slice_equal(got, buf_slice(wanted)));
	buf_fini(wanted);
}

/* One message that left, against what was understood of it; what follows it. */
static struct slice
check_written(enum kind kind, struct written *w, struct slice rest)
{
	struct strict_message m;
	enum strict_result result = strict_read(rest.p, rest.n, strict_kind_of(kind), &m);
	struct slice none = SLICE_EMPTY;

	if (result == STRICT_BAD)
		fprintf(stderr, "%s: %.*s\n", m.why, SLICE_ARG(rest));
	CHECK(result == (w->whole && !w->until_close ? STRICT_WHOLE : STRICT_PARTIAL));
	CHECK(m.has_head && m.content == w->content && m.until_close == w->until_close);
	CHECK(m.sum == w->sum && m.status == w->status);
	CHECK(w->line == sum_line((struct slice){ m.method, m.method_len },
			     (struct slice){ m.target, m.target_len }, SLICE_EMPTY));
	check_text((struct slice){ m.fields, m.fields_len }, &w->fields);
	/* Trailers of a message that is read to the connection's end have no place. */
	if (w->until_close)
		buf_fini(&w->trailers);
	else
		check_text(
		    m.chunked && w->whole ? (struct slice){ m.trailers, m.trailers_len } : none,
		    &w->trailers);
	return slice_sub(rest, result == STRICT_WHOLE ? m.used : rest.n, rest.n);
}

/* A stream of messages comes out as exactly those that were understood, under a strict reading. */
static void
check_stream(enum kind kind, const struct http_limits *limits, struct slice in, struct cuts cuts,
    const struct way *way)
{
	static struct relay r;
	struct slice rest;

	r = (struct relay){ .kind = kind, .way = *way, .in = BUF_INIT, .out = BUF_INIT };
	CHECK(buf_append_slice(&r.in, in) == 0);
	while (in.n > 0 && relay_one(&r, limits, cuts))
		;
	rest = buf_slice(&r.out);
	for (unsigned i = 0; i < r.n; i++)
		rest = check_written(kind, &r.messages[i], rest);
	CHECK(rest.n == 0);
	buf_fini(&r.in);
	buf_fini(&r.out);
}

static void
check_streams(enum kind kind, const struct http_limits *limits, struct slice in, struct cuts cuts)
{
	static const struct way requests[] = { { 0 }, { .trusted = true }, { .pass_host = true },
		{ .trusted = true, .pass_host = true } };
	static const struct way answers[] = { { 0 }, { .client_10 = true } };
	bool request = kind == KIND_REQUEST;

	for (unsigned i = 0; i < (request ? 4 : 2); i++)
		check_stream(kind, limits, in, cuts, request ? &requests[i] : &answers[i]);
}

/* Everything above on one input. */
static void
check_message(enum kind kind, const struct http_limits *limits, struct slice in, struct cuts cuts)
{
	static struct verdict whole, cut, again;
	static char text[8192];
	struct http_scan scan = { 0 };
	struct slice part;

	parse_once(kind, limits, &scan, in, &whole);
	part = parse_in_steps(kind, limits, in, cuts, &cut);
	CHECK(whole.result == cut.result && whole.refusal == cut.refusal);
	CHECK((whole.result == HTTP_BAD) == (whole.refusal != REFUSAL_NONE));
	if (whole.result == HTTP_DONE) {
		struct http_limits wide = *limits;

		CHECK(whole.used == cut.used);
		check_same_head(&whole.head, &cut.head);
		check_accepted(&whole, in, kind);
		wide.head = sizeof(text);
		http_scan_reset(&scan);
		parse_once(kind, &wide, &scan,
		    (struct slice){ text, write_head(&whole.head, kind, text, sizeof(text)) },
		    &again);
		CHECK(again.result == HTTP_DONE);
		check_same_head(&whole.head, &again.head);
		check_body(&whole.head, slice_sub(in, whole.used, in.n), cuts);
	}
	free((void *)(uintptr_t)part.p);
	check_streams(kind, limits, in, cuts);
	check_changing_limits(kind, limits, in, cuts);
}

#endif
