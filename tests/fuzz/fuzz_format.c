/*
 * Any bytes as a line of the trail, in each format: what comes out is one line; JSON parses and CEF has its
 * frame; log, boot, sequence, prev and hash are found in it again.
 */
#include "keytrail/format.h"
#include "keytrail/jsonscan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LOG  "0123456789abcdef0123456789abcdef"
#define BOOT "fedcba9876543210fedcba9876543210"
#define HASH LOG BOOT
#define SEQ  777000777ULL
#define PREV 776000776ULL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool
holds(struct slice text, const char *word)
{
	return memmem(text.p, text.n, word, strlen(word)) != NULL;
}

static void
check_json(struct slice text)
{
	struct jsonscan_token t;
	struct jsonscan s;

	jsonscan_init(&s, text);
	assert(jsonscan_next(&s, &t) == JSONSCAN_OBJECT);
	assert(jsonscan_skip(&s, &t) == 0 && jsonscan_next(&s, &t) == JSONSCAN_EOF);
}

/* Seven bars that no backslash is before; behind them, each equals sign without one ends a key, which is a
 * word after a blank. */
static void
check_cef(struct slice text)
{
	unsigned bars = 0;
	bool escaped = false;
	size_t word = 0;

	assert(slice_has_prefix(text, SLICE("CEF:0|keytrail|keytrail|")));
	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];

		if (bars == 7 && c == '=' && !escaped)
			assert(word > 0);
		bars += c == '|' && !escaped && bars < 7;
		assert(!escaped || strchr(bars < 7 ? "\\|" : "\\=nr", c) != NULL);
		escaped = c == '\\' && !escaped;
		word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
			   ? word + 1
			   : 0;
	}
	assert(bars == 7 && !escaped);
}

static void
check(enum config_format format, struct slice text)
{
	for (size_t i = 0; i < text.n; i++)
		assert((unsigned char)text.p[i] >= ' ');
	if (format == CONFIG_FORMAT_CEF)
		check_cef(text);
	else
		check_json(text);
	assert(holds(text, HASH) && holds(text, "776000776"));
	/* There the line itself says the rest, as each of a trail does. */
	assert(format == CONFIG_FORMAT_ACTIVITY_TRACKER ||
	       (holds(text, LOG) && holds(text, BOOT) && holds(text, "777000777")));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct sink_event e = {
		.line = { (const char *)data, n },
		.seq = SEQ,
		.prev = PREV,
		.log = LOG,
		.boot = BOOT,
		.hash = HASH,
	};
	struct err err;

	for (unsigned i = 0; i < 2 * CONFIG_FORMATS; i++) {
		struct buf out = BUF_INIT;

		e.stub = i >= CONFIG_FORMATS;
		if (format_render(i % CONFIG_FORMATS, &e, &out, &err) == -1)
			abort();
		check(i % CONFIG_FORMATS, buf_slice(&out));
		buf_fini(&out);
	}
	return 0;
}
