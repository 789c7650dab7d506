#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/pump.h"

#define TRAILERS "X-Sum: 1\r\nX-More: 2\r\n"

/* One body of eleven bytes in every framing, and what follows it on the connection. */
static const struct source {
	const char *label;
	enum http_framing framing;
	uint64_t length;
	const char *bytes, *content, *trailers;
} sources[] = {
	{ "a length", HTTP_LENGTH, 11, "hello world", "hello world", "" },
	{ "no bytes", HTTP_LENGTH, 0, "", "", "" },
	{ "no body", HTTP_NO_BODY, 0, "", "", "" },
	{ "one chunk", HTTP_CHUNKED, 0, "b\r\nhello world\r\n0\r\n\r\n", "hello world", "" },
	{ "chunks with extensions", HTTP_CHUNKED, 0,
	    "5;a=b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0;z\r\n\r\n", "hello world", "" },
	{ "chunks and trailers", HTTP_CHUNKED, 0,
	    "6\r\nhello \r\n05\r\nworld\r\n00\r\n" TRAILERS "\r\n", "hello world", TRAILERS },
	{ "no chunk", HTTP_CHUNKED, 0, "0\r\n\r\n", "", "" },
};

static const char next_message[] = "GET /next";

/* The content of what was written in a framing; its trailers, where it is chunked. */
static void
read_back(struct slice in, enum http_framing framing, struct buf *content, struct buf *trailers)
{
	struct http_body body;
	struct slice data;
	enum http_refusal why;
	enum http_body_result r;

	if (framing != HTTP_CHUNKED) {
		assert_int_equal(buf_append_slice(content, in), 0);
		return;
	}
	http_body_init(&body, HTTP_CHUNKED, 0);
	while ((r = http_body_next(&body, &in, &data, &why)) == HTTP_BODY_DATA)
		assert_int_equal(buf_append_slice(content, data), 0);
	assert_int_equal(r, HTTP_BODY_END);
	assert_int_equal(in.n, 0);
	assert_int_equal(buf_append_slice(trailers, http_body_trailers(&body)), 0);
}

static void
expect(const struct source *s, const char *what, struct slice got, const char *want)
{
	if (!slice_equal(got, slice_of(want)))
		fail_msg("%s: %s is \"%.*s\"", s->label, what, SLICE_ARG(got));
}

static void
check_result(const struct source *s, enum http_framing to, const struct buf *out)
{
	struct buf content = BUF_INIT, trailers = BUF_INIT;

	read_back(buf_slice(out), to, &content, &trailers);
	expect(s, "the content", buf_slice(&content), s->content);
	expect(
	    s, "the trailer section", buf_slice(&trailers), to == HTTP_CHUNKED ? s->trailers : "");
	buf_fini(&content);
	buf_fini(&trailers);
}

/* Pump until there is nothing more to do with what `in` holds. */
static enum pump_result
pump(struct buf *out, enum http_framing to, struct buf *in, struct http_body *body)
{
	enum http_refusal why;
	enum pump_result r;

	while ((r = pump_fill(out, to, in, body, &why)) == PUMP_SOME)
		continue;
	return r;
}

static void
move_cut_at(const struct source *s, enum http_framing to, size_t cut)
{
	struct buf in = BUF_INIT, out = BUF_INIT;
	struct http_body body;
	size_t n = strlen(s->bytes);
	enum pump_result r;

	http_body_init(&body, s->framing, s->length);
	assert_int_equal(buf_append(&in, s->bytes, cut), 0);
	r = pump(&out, to, &in, &body);
	if (cut < n) {
		assert_int_equal(r, PUMP_NONE);
		assert_int_equal(buf_size(&in), 0);
		assert_int_equal(buf_append(&in, s->bytes + cut, n - cut), 0);
		assert_int_equal(buf_append(&in, next_message, sizeof(next_message) - 1), 0);
		r = pump(&out, to, &in, &body);
		expect(s, "what is left", buf_slice(&in), next_message);
	}
	assert_int_equal(r, PUMP_END);
	assert_true(http_body_done(&body));
	check_result(s, to, &out);
	buf_fini(&in);
	buf_fini(&out);
}

static void
every_framing_becomes_every_framing_cut_anywhere(void **state)
{
	static const enum http_framing targets[] = { HTTP_LENGTH, HTTP_CHUNKED, HTTP_UNTIL_CLOSE };

	(void)state;
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
		for (size_t k = 0; k < sizeof(targets) / sizeof(targets[0]); k++)
			for (size_t cut = 0; cut <= strlen(sources[i].bytes); cut++)
				move_cut_at(&sources[i], targets[k], cut);
}

static void
a_body_byte_by_byte_equals_the_whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		const struct source *s = &sources[i];
		struct buf in = BUF_INIT, out = BUF_INIT;
		struct http_body body;
		enum pump_result r = PUMP_NONE;

		http_body_init(&body, s->framing, s->length);
		for (size_t k = 0; s->bytes[k] != '\0'; k++) {
			assert_int_equal(r, PUMP_NONE);
			assert_int_equal(buf_append(&in, s->bytes + k, 1), 0);
			r = pump(&out, HTTP_CHUNKED, &in, &body);
		}
		if (s->bytes[0] == '\0')
			r = pump(&out, HTTP_CHUNKED, &in, &body);
		assert_int_equal(r, PUMP_END);
		check_result(s, HTTP_CHUNKED, &out);
		buf_fini(&in);
		buf_fini(&out);
	}
}

static void
a_body_until_the_close_ends_when_it_is_told(void **state)
{
	static const struct source s = { "until close", HTTP_UNTIL_CLOSE, 0, "", "some bytes", "" };
	struct buf in = BUF_INIT, out = BUF_INIT;
	struct http_body body;

	(void)state;
	http_body_init(&body, HTTP_UNTIL_CLOSE, 0);
	assert_int_equal(buf_append(&in, "some ", 5), 0);
	assert_int_equal(pump(&out, HTTP_CHUNKED, &in, &body), PUMP_NONE);
	assert_int_equal(buf_append(&in, "bytes", 5), 0);
	assert_int_equal(pump(&out, HTTP_CHUNKED, &in, &body), PUMP_NONE);
	assert_int_equal(pump_end(&out, HTTP_CHUNKED, &body), 0);
	check_result(&s, HTTP_CHUNKED, &out);
	buf_fini(&in);
	buf_fini(&out);
}

static const struct {
	const char *label, *bytes;
	enum http_refusal why;
} bad[] = {
	{ "no number", "x\r\n", REFUSAL_BAD_CHUNK },
	{ "a chunk that is too long", "2\r\nabc\r\n", REFUSAL_BAD_CHUNK },
	{ "a trailer that frames", "0\r\nContent-Length: 1\r\n\r\n", REFUSAL_BAD_TRAILER },
};

static void
a_malformed_body_is_bad_and_says_why(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct buf in = BUF_INIT, out = BUF_INIT;
		struct http_body body;
		enum http_refusal why = REFUSAL_NONE;
		enum pump_result r;

		http_body_init(&body, HTTP_CHUNKED, 0);
		assert_int_equal(buf_append_slice(&in, slice_of(bad[i].bytes)), 0);
		while ((r = pump_fill(&out, HTTP_CHUNKED, &in, &body, &why)) == PUMP_SOME)
			continue;
		if (r != PUMP_BAD || why != bad[i].why)
			fail_msg("%s: %d, %d", bad[i].label, r, why);
		buf_fini(&in);
		buf_fini(&out);
	}
}

/* Of a body of 10,000 bytes half has come; then the rest with what follows it. */
static void
much_that_is_all_there_is_changes_hands(void **state)
{
	struct buf in = BUF_INIT, out = BUF_INIT;
	char bytes[5000];
	struct http_body body;
	enum http_refusal why;
	const char *mem;

	(void)state;
	memset(bytes, 'b', sizeof(bytes));
	http_body_init(&body, HTTP_LENGTH, 2 * sizeof(bytes));
	assert_int_equal(buf_append(&in, bytes, sizeof(bytes)), 0);
	mem = in.mem;
	assert_int_equal(pump_fill(&out, HTTP_LENGTH, &in, &body, &why), PUMP_SOME);
	assert_ptr_equal(out.mem, mem);
	assert_int_equal(buf_size(&in), 0);
	assert_true(slice_equal(buf_slice(&out), (struct slice){ bytes, sizeof(bytes) }));
	buf_consume(&out, sizeof(bytes));
	assert_int_equal(buf_append(&in, bytes, sizeof(bytes)), 0);
	assert_int_equal(buf_append(&in, next_message, sizeof(next_message) - 1), 0);
	assert_int_equal(pump_fill(&out, HTTP_LENGTH, &in, &body, &why), PUMP_END);
	assert_true(slice_equal(buf_slice(&out), (struct slice){ bytes, sizeof(bytes) }));
	assert_true(slice_equal(buf_slice(&in), SLICE("GET /next")));
	buf_fini(&in);
	buf_fini(&out);
}

/* A side that is not drained is not filled, and what was not taken stays whole. */
static void
a_full_side_is_not_filled(void **state)
{
	const size_t total = 10 * PUMP_MAX;
	struct buf in = BUF_INIT, out = BUF_INIT;
	struct http_body body;
	enum http_refusal why;
	size_t moved = 0;

	(void)state;
	http_body_init(&body, HTTP_CHUNKED, 0);
	while (moved < total) {
		assert_int_equal(buf_append(&in, "8\r\n12345678\r\n", 13), 0);
		moved += 8;
	}
	moved = 0;
	for (;;) {
		enum pump_result r = pump_fill(&out, HTTP_CHUNKED, &in, &body, &why);

		assert_true(buf_size(&out) < PUMP_MAX + 32);
		if (r != PUMP_SOME)
			break;
		if (buf_size(&in) > 0) {
			/* Full: asked again, nothing moves. */
			size_t left = buf_size(&in), waiting = buf_size(&out);

			assert_true(waiting >= PUMP_MAX);
			assert_int_equal(
			    pump_fill(&out, HTTP_CHUNKED, &in, &body, &why), PUMP_NONE);
			assert_int_equal(buf_size(&in), left);
			assert_int_equal(buf_size(&out), waiting);
		}
		moved += buf_size(&out) / 13 * 8;
		buf_consume(&out, buf_size(&out));
	}
	assert_int_equal(moved, total);
	buf_fini(&in);
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_framing_becomes_every_framing_cut_anywhere),
		cmocka_unit_test(a_body_byte_by_byte_equals_the_whole),
		cmocka_unit_test(a_body_until_the_close_ends_when_it_is_told),
		cmocka_unit_test(a_malformed_body_is_bad_and_says_why),
		cmocka_unit_test(much_that_is_all_there_is_changes_hands),
		cmocka_unit_test(a_full_side_is_not_filled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
