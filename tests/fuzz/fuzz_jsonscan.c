/*
 * jsonscan against jansson: both accept the same texts, but for limits that only one of them has.
 */
#include "keytrail/jsonscan.h"
#include "keytrail/utf8.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
is_utf8(const char *p, size_t n)
{
	uint32_t cp;

	for (size_t i = 0, len; i < n; i += len) {
		if ((len = utf8_decode(p + i, n - i, &cp)) == 0)
			return false;
	}
	return true;
}

static void
check_token(const struct jsonscan *s, const struct jsonscan_token *t)
{
	char *plain;
	long n;

	assert(t->offset <= s->pos && s->pos <= s->text.n);
	if (t->type != JSONSCAN_KEY && t->type != JSONSCAN_STRING)
		return;
	plain = malloc(t->raw.n + 1);
	assert(plain != NULL);
	n = jsonscan_unescape(t->raw, plain, t->raw.n);
	assert(n >= 0 && (size_t)n <= t->raw.n && is_utf8(plain, (size_t)n));
	assert(t->escaped ? (size_t)n < t->raw.n : (size_t)n == t->raw.n);
	free(plain);
}

/* True when the text is accepted; *deep when it is refused for its depth. */
static bool
scan(struct slice text, bool *deep)
{
	struct jsonscan s;
	struct jsonscan_token t;
	enum jsonscan_type type;
	unsigned line, column;

	jsonscan_init(&s, text);
	while ((type = jsonscan_next(&s, &t)) != JSONSCAN_EOF && type != JSONSCAN_BAD)
		check_token(&s, &t);
	jsonscan_position(text, t.offset, &line, &column);
	assert(line >= 1 && column >= 1 && t.offset <= text.n);
	*deep = type == JSONSCAN_BAD && strcmp(s.error, "nested too deep") == 0;
	return type == JSONSCAN_EOF;
}

/* Skipping the whole value must agree with stepping through it. */
static bool
skip(struct slice text)
{
	struct jsonscan s;
	struct jsonscan_token t;

	jsonscan_init(&s, text);
	jsonscan_next(&s, &t);
	return jsonscan_skip(&s, &t) == 0 && jsonscan_next(&s, &t) == JSONSCAN_EOF;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = { size > 0 ? (const char *)data : "", size };
	json_error_t error;
	json_t *tree;
	bool deep, ours = scan(text, &deep);

	assert(skip(text) == ours);
	/* jansson steps over a NUL between tokens; the grammar has none. */
	if (memchr(text.p, '\0', text.n) != NULL) {
		assert(!ours);
		return 0;
	}
	tree = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
	if (tree != NULL)
		assert(ours || deep);
	else if (ours)
		assert(json_error_code(&error) == json_error_numeric_overflow ||
		       json_error_code(&error) == json_error_null_byte_in_key);
	json_decref(tree);
	return 0;
}
