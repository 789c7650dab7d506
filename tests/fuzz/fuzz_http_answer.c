/*
 * Any bytes as the answer of a receiver over HTTP: what is taken of it is within what was sent, and
 * what is said of it is in words of our own.  The first byte chooses the receiver, the second the
 * status; a line of "----" ends the answer and begins that to the question about what is stored.
 */
#include "keytrail/http_preset.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const unsigned statuses[] = { 200, 200, 201, 204, 302, 400, 401, 404, 413, 422, 429, 503,
	0 };

static void
make_events(struct sink_event *events)
{
	for (size_t i = 0; i < EVENTS; i++)
		events[i] = (struct sink_event){ .text = SLICE("{}"),
			.line = SLICE("{}"),
			.seq = 7 + i,
			.log = "0a",
			.boot = "0b",
			.hash = "0c" };
}

static void
check(const struct http_verdict *v)
{
	assert(v->done <= EVENTS);
	assert(v->say != HTTP_TAKEN || (v->done == EVENTS && v->why[0] == '\0'));
	assert(v->say == HTTP_TAKEN || (v->done < EVENTS && v->why[0] != '\0'));
	assert(v->say != HTTP_REFUSED || EVENTS - v->done > 1);
	for (const char *p = v->why; *p != '\0'; p++)
		assert(*p >= ' ' && *p <= '~' && *p != '"');
}

static void
read_events(
    enum config_http_preset preset, unsigned status, struct slice first, struct slice second)
{
	const struct http_preset *p = http_preset_of(preset);
	const struct http_reply replies[] = { { status, first }, { 200, second } };
	struct sink_event events[EVENTS];
	struct buf ask = BUF_INIT;
	struct http_verdict v;

	make_events(events);
	if (http_read(p, &replies[0], events, EVENTS, &v, &ask) == -1)
		abort();
	check(&v);
	assert((buf_size(&ask) > 0) == (v.asked > 0));
	if (buf_size(&ask) > 0) {
		p->settle(&replies[1], events, &v);
		check(&v);
	}
	buf_fini(&ask);
}

static void
read_acks(unsigned status, struct slice body)
{
	const struct http_reply reply = { status, body };
	uint64_t acks[EVENTS] = { 0, 1, 5 };
	size_t n = EVENTS;
	struct err err;

	(void)http_splunk_acked(&reply, acks, &n, &err);
	assert(n <= EVENTS);
}

static void
read_token(unsigned status, struct slice body)
{
	const struct http_reply reply = { status, body };
	struct buf token = BUF_INIT;
	uint64_t seconds;
	struct err err;

	if (http_iam_read(&reply, &token, &seconds, &err) == 0)
		assert(buf_size(&token) > 0 && seconds > 0 && status == 200);
	buf_fini(&token);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice first, second = SLICE_EMPTY;
	unsigned status;
	const char *mark;

	if (n < 2)
		return 0;
	status = statuses[data[1] % (sizeof(statuses) / sizeof(statuses[0]))];
	first = (struct slice){ (const char *)data + 2, n - 2 };
	if ((mark = memmem(first.p, first.n, "----", 4)) != NULL) {
		second = slice_sub(first, (size_t)(mark - first.p) + 4, first.n);
		first = slice_sub(first, 0, (size_t)(mark - first.p));
	}
	switch (data[0] % (CONFIG_HTTP_PRESETS + 2)) {
	case CONFIG_HTTP_PRESETS:
		read_acks(status, first);
		break;
	case CONFIG_HTTP_PRESETS + 1:
		read_token(status, first);
		break;
	default:
		read_events(data[0] % (CONFIG_HTTP_PRESETS + 2), status, first, second);
	}
	return 0;
}
