#include "keytrail/jsonscan.h"

#include "keytrail/utf8.h"

enum expect {
	EXPECT_VALUE,
	EXPECT_FIRST_ELEMENT, /* a value or ']' */
	EXPECT_FIRST_KEY,     /* a name or '}' */
	EXPECT_KEY,
	EXPECT_COLON,
	EXPECT_COMMA, /* or the end of the container */
	EXPECT_EOF,
	EXPECT_NOTHING /* an error was found */
};

void
jsonscan_init(struct jsonscan *s, struct slice text)
{
	*s = (struct jsonscan){ .text = text, .expect = EXPECT_VALUE };
}

static enum jsonscan_type
fail(struct jsonscan *s, struct jsonscan_token *t, size_t offset, const char *why)
{
	s->pos = offset;
	s->error = why;
	s->expect = EXPECT_NOTHING;
	*t = (struct jsonscan_token){ .type = JSONSCAN_BAD, .offset = offset, .raw = SLICE_EMPTY };
	return JSONSCAN_BAD;
}

/* The byte at a position; beyond the end a NUL, which no rule of the grammar takes. */
static char
at(const struct jsonscan *s, size_t pos)
{
	return pos < s->text.n ? s->text.p[pos] : '\0';
}

static void
skip_space(struct jsonscan *s)
{
	for (; s->pos < s->text.n; s->pos++) {
		char c = s->text.p[s->pos];

		if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
			return;
	}
}

static bool
in_object(const struct jsonscan *s)
{
	return s->depth > 0 && (s->in_object >> (s->depth - 1) & 1) != 0;
}

static enum jsonscan_type
finish(struct jsonscan *s, struct jsonscan_token *t, enum jsonscan_type type, size_t end)
{
	t->type = type;
	s->pos = end;
	s->expect = s->depth == 0 ? EXPECT_EOF : EXPECT_COMMA;
	return type;
}

static enum jsonscan_type
open_container(struct jsonscan *s, struct jsonscan_token *t, bool object)
{
	uint32_t bit;

	if (s->depth >= JSONSCAN_DEPTH_MAX)
		return fail(s, t, s->pos, "nested too deep");
	bit = UINT32_C(1) << s->depth++;
	s->in_object = object ? s->in_object | bit : s->in_object & ~bit;
	s->pos++;
	s->expect = object ? EXPECT_FIRST_KEY : EXPECT_FIRST_ELEMENT;
	t->type = object ? JSONSCAN_OBJECT : JSONSCAN_ARRAY;
	return t->type;
}

static enum jsonscan_type
close_container(struct jsonscan *s, struct jsonscan_token *t)
{
	bool object = in_object(s);

	s->depth--;
	return finish(s, t, object ? JSONSCAN_OBJECT_END : JSONSCAN_ARRAY_END, s->pos + 1);
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hex digits at p, or -1. */
static long
hex4(const char *p, size_t n)
{
	long v = 0;

	if (n < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		int d = hex_digit(p[i]);

		if (d == -1)
			return -1;
		v = v << 4 | d;
	}
	return v;
}

/* The escape at p, which begins with a backslash: its length and character, or 0. */
static size_t
read_escape(const char *p, size_t n, uint32_t *cp)
{
	static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
	const char *found;
	long high, low;

	if (n < 2 || p[1] == '\0')
		return 0;
	if ((found = strchr(names, p[1])) != NULL) {
		*cp = (unsigned char)means[found - names];
		return 2;
	}
	if (p[1] != 'u' || (high = hex4(p + 2, n - 2)) == -1)
		return 0;
	*cp = (uint32_t)high;
	if (high < 0xd800 || high > 0xdfff)
		return 6;
	if (high > 0xdbff || n < 12 || p[6] != '\\' || p[7] != 'u')
		return 0;
	low = hex4(p + 8, n - 8);
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	*cp = 0x10000 + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
	return 12;
}

/* The string at s->pos: NULL and the position of its closing quote, or why not and where. */
static const char *
scan_string(const struct jsonscan *s, bool *escaped, size_t *end)
{
	size_t i = s->pos + 1, n = s->text.n, len;
	uint32_t cp;

	for (; i < n && s->text.p[i] != '"'; i += len) {
		const char *p = s->text.p + i;

		len = 1;
		if ((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '\\')
			continue;
		*end = i;
		if (*p == '\\') {
			*escaped = true;
			if ((len = read_escape(p, n - i, &cp)) == 0)
				return "malformed escape";
		} else if ((unsigned char)*p < 0x20) {
			return "control character in a string";
		} else if ((len = utf8_decode(p, n - i, &cp)) == 0) {
			return "invalid UTF-8";
		}
	}
	*end = i;
	return i < n ? NULL : "unterminated string";
}

static enum jsonscan_type
take_string(struct jsonscan *s, struct jsonscan_token *t, enum jsonscan_type type)
{
	size_t end = s->pos;
	const char *why = scan_string(s, &t->escaped, &end);

	if (why != NULL)
		return fail(s, t, end, why);
	t->raw = slice_sub(s->text, s->pos + 1, end);
	return finish(s, t, type, end + 1);
}

static size_t
skip_digits(const struct jsonscan *s, size_t i)
{
	while (at(s, i) >= '0' && at(s, i) <= '9')
		i++;
	return i;
}

static enum jsonscan_type
take_number(struct jsonscan *s, struct jsonscan_token *t)
{
	size_t i = s->pos, from;

	if (at(s, i) == '-')
		i++;
	from = i;
	if ((i = at(s, i) == '0' ? i + 1 : skip_digits(s, i)) == from)
		return fail(s, t, i, "malformed number");
	if (at(s, i) == '.') {
		from = i + 1;
		if ((i = skip_digits(s, from)) == from)
			return fail(s, t, i, "malformed number");
	}
	if (at(s, i) == 'e' || at(s, i) == 'E') {
		i++;
		if (at(s, i) == '+' || at(s, i) == '-')
			i++;
		from = i;
		if ((i = skip_digits(s, from)) == from)
			return fail(s, t, i, "malformed number");
	}
	t->raw = slice_sub(s->text, s->pos, i);
	return finish(s, t, JSONSCAN_NUMBER, i);
}

static enum jsonscan_type
take_word(struct jsonscan *s, struct jsonscan_token *t)
{
	static const struct {
		struct slice word;
		enum jsonscan_type type;
	} words[] = {
		{ SLICE_INIT("true"), JSONSCAN_TRUE },
		{ SLICE_INIT("false"), JSONSCAN_FALSE },
		{ SLICE_INIT("null"), JSONSCAN_NULL },
	};
	struct slice rest = slice_sub(s->text, s->pos, s->text.n);

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (!slice_has_prefix(rest, words[i].word))
			continue;
		t->raw = slice_sub(rest, 0, words[i].word.n);
		return finish(s, t, words[i].type, s->pos + words[i].word.n);
	}
	return fail(s, t, s->pos, s->pos < s->text.n ? "want a value" : "the text ends too early");
}

static enum jsonscan_type
take_value(struct jsonscan *s, struct jsonscan_token *t)
{
	char c = at(s, s->pos);

	if (c == '{' || c == '[')
		return open_container(s, t, c == '{');
	if (c == '"')
		return take_string(s, t, JSONSCAN_STRING);
	if (c == '-' || (c >= '0' && c <= '9'))
		return take_number(s, t);
	return take_word(s, t);
}

static enum jsonscan_type
take_key(struct jsonscan *s, struct jsonscan_token *t)
{
	enum jsonscan_type type;

	if (at(s, s->pos) != '"')
		return fail(s, t, s->pos, "want a member's name in quotes");
	type = take_string(s, t, JSONSCAN_KEY);
	if (type == JSONSCAN_KEY)
		s->expect = EXPECT_COLON;
	return type;
}

static bool
at_container_end(const struct jsonscan *s)
{
	return at(s, s->pos) == (in_object(s) ? '}' : ']');
}

/* Step over the punctuation before the next key, value or end; NULL, or what was wanted instead. */
static const char *
step(struct jsonscan *s)
{
	switch (s->expect) {
	case EXPECT_COLON:
		if (at(s, s->pos) != ':')
			return "want ':'";
		s->pos++;
		s->expect = EXPECT_VALUE;
		return NULL;
	case EXPECT_COMMA:
		if (at_container_end(s))
			return NULL;
		if (at(s, s->pos) != ',')
			return in_object(s) ? "want ',' or '}'" : "want ',' or ']'";
		s->pos++;
		break;
	case EXPECT_FIRST_KEY:
	case EXPECT_FIRST_ELEMENT:
		if (at_container_end(s))
			return NULL;
		break;
	default:
		return NULL;
	}
	s->expect = in_object(s) ? EXPECT_KEY : EXPECT_VALUE;
	return NULL;
}

enum jsonscan_type
jsonscan_next(struct jsonscan *s, struct jsonscan_token *t)
{
	const char *why;

	if (s->expect == EXPECT_NOTHING)
		return fail(s, t, s->pos, s->error);
	*t = (struct jsonscan_token){ .raw = SLICE_EMPTY };
	skip_space(s);
	if ((why = step(s)) != NULL)
		return fail(s, t, s->pos, why);
	skip_space(s);
	t->offset = s->pos;
	switch (s->expect) {
	case EXPECT_KEY:
		return take_key(s, t);
	case EXPECT_VALUE:
		return take_value(s, t);
	case EXPECT_EOF:
		if (s->pos < s->text.n)
			return fail(s, t, s->pos, "text after the end of the value");
		return t->type = JSONSCAN_EOF;
	default:
		return close_container(s, t);
	}
}

int
jsonscan_skip(struct jsonscan *s, const struct jsonscan_token *t)
{
	struct jsonscan_token inner;
	unsigned depth = s->depth;

	if (t->type == JSONSCAN_BAD)
		return -1;
	if (t->type != JSONSCAN_OBJECT && t->type != JSONSCAN_ARRAY)
		return 0;
	while (s->depth >= depth) {
		if (jsonscan_next(s, &inner) == JSONSCAN_BAD)
			return -1;
	}
	return 0;
}

long
jsonscan_unescape(struct slice raw, char *out, size_t cap)
{
	size_t n = 0, len;
	uint32_t cp;
	char utf8[4];

	for (size_t i = 0; i < raw.n; i += len) {
		const char *from = raw.p + i;
		size_t add = 1;

		len = 1;
		if (*from == '\\') {
			if ((len = read_escape(from, raw.n - i, &cp)) == 0)
				return -1;
			add = utf8_encode(cp, utf8);
			from = utf8;
		}
		if (cap - n < add)
			return -1;
		memcpy(out + n, from, add);
		n += add;
	}
	return (long)n;
}

void
jsonscan_position(struct slice text, size_t offset, unsigned *line, unsigned *column)
{
	size_t start = 0;

	*line = 1;
	for (size_t i = 0; i < offset && i < text.n; i++) {
		if (text.p[i] != '\n')
			continue;
		++*line;
		start = i + 1;
	}
	*column = (unsigned)(offset - start) + 1;
}
