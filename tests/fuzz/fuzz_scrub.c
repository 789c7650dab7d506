/*
 * Whatever comes in, what scrub lets through fits the grammar, and its JSON reads back as it was.
 */
#include "keytrail/chars.h"
#include "keytrail/event.h"
#include "keytrail/jsonscan.h"
#include "keytrail/utf8.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_grammars(struct slice in)
{
	for (int g = SCRUB_UUID; g <= SCRUB_IDENTIFIER; g++) {
		struct slice out = scrub_value((enum scrub_grammar)g, in);

		if (in.n == 0) {
			assert(out.n == 0);
		} else if (scrub_fits((enum scrub_grammar)g, in)) {
			assert(out.p == in.p && out.n == in.n && in.n <= 128);
			for (size_t i = 0; i < in.n; i++)
				assert(in.p[i] > ' ' && in.p[i] < 0x7f && in.p[i] != '"' &&
				       in.p[i] != '\\');
		} else {
			assert(slice_equal(out, SLICE(SCRUB_REDACTED)));
		}
	}
}

static void
check_product(struct slice p)
{
	unsigned slashes = 0, run = 0;

	if (slice_equal(p, SLICE(SCRUB_REDACTED)))
		return;
	for (size_t i = 0; i < p.n; i++) {
		if (p.p[i] == '/') {
			assert(run > 0);
			slashes++;
			run = 0;
			continue;
		}
		assert(chars_is(p.p[i], CHARS_TOKEN));
		assert(++run <= 40);
	}
	assert(slashes == 1 && run > 0);
}

static void
check_agent(struct slice in)
{
	char out[SCRUB_AGENT_MAX];
	size_t n = scrub_agent(in, out);

	assert(n <= sizeof(out));
	for (size_t from = 0, to; from < n; from = to + 1) {
		for (to = from; to < n && out[to] != ' '; to++)
			;
		check_product((struct slice){ out + from, to - from });
	}
}

static void
check_text(struct slice in, size_t cap)
{
	char out[512], json[2 + 2 * sizeof(out)], back[sizeof(out)];
	size_t n = scrub_text(in, out, cap);
	struct jsonscan s;
	struct jsonscan_token t;
	long len;

	assert(n <= cap);
	assert(scrub_text((struct slice){ out, n }, back, sizeof(back)) == n);
	assert(memcmp(out, back, n) == 0);
	len = event_json_string((struct slice){ out, n }, json, sizeof(json));
	assert(len >= 2);
	jsonscan_init(&s, (struct slice){ json, (size_t)len });
	assert(jsonscan_next(&s, &t) == JSONSCAN_STRING);
	assert(jsonscan_unescape(t.raw, back, sizeof(back)) == (long)n);
	assert(memcmp(out, back, n) == 0);
	assert(jsonscan_next(&s, &t) == JSONSCAN_EOF);
}

/* Unscrubbed bytes too become a JSON string, or are said not to fit. */
static void
check_json(struct slice in)
{
	size_t cap = 6 * in.n + 2;
	char *json = malloc(cap);
	struct jsonscan s;
	struct jsonscan_token t;
	long len;

	assert(json != NULL);
	len = event_json_string(in, json, cap);
	assert(len >= 2 && event_json_string(in, json, (size_t)len) == len);
	jsonscan_init(&s, (struct slice){ json, (size_t)len });
	assert(jsonscan_next(&s, &t) == JSONSCAN_STRING && jsonscan_next(&s, &t) == JSONSCAN_EOF);
	assert(event_json_string(in, json, (size_t)len - 1) == -1);
	free(json);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = { size > 0 ? (const char *)data : "", size };

	check_grammars(in);
	check_agent(in);
	check_text(in, 512);
	check_text(in, size % 16);
	check_json(in);
	return 0;
}
