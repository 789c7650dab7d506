#include "event_out.h"

#include "keytrail/utf8.h"

#define EVERY_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

/* The high bit of every byte that is zero (and of some above one that is). */
static uint64_t
zero_bytes(uint64_t w)
{
	return (w - EVERY_BYTE(0x01)) & ~w & EVERY_BYTE(0x80);
}

/* Does any of the eight bytes need an escape, or lie outside ASCII? */
static inline bool
is_special_word(uint64_t w)
{
	uint64_t control = (w - EVERY_BYTE(0x20)) & ~w;

	return ((w | control) & EVERY_BYTE(0x80)) != 0 || zero_bytes(w ^ EVERY_BYTE('"')) != 0 ||
	       zero_bytes(w ^ EVERY_BYTE('\\')) != 0;
}

static bool
is_special(char c)
{
	return (unsigned char)c < 0x20 || (unsigned char)c >= 0x80 || c == '"' || c == '\\';
}

static uint64_t
word_at(const char *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	return w;
}

/* Is s the same inside a JSON string? */
static inline bool
is_plain(struct slice s)
{
	if (s.n < 8) {
		for (size_t i = 0; i < s.n; i++) {
			if (is_special(s.p[i]))
				return false;
		}
		return true;
	}
	for (size_t i = 0; i < s.n - 8; i += 8) {
		if (is_special_word(word_at(s.p + i)))
			return false;
	}
	return !is_special_word(word_at(s.p + s.n - 8));
}

/* RFC 8785 section 3.2.2.2; the length. */
static size_t
escape_character(uint32_t cp, char out[6])
{
	static const char short_forms[0x20] = {
		['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'
	};
	static const char hex[] = "0123456789abcdef";

	if (cp >= 0x20 && cp != '"' && cp != '\\')
		return utf8_encode(cp, out);
	out[0] = '\\';
	out[1] = cp >= 0x20 ? (char)cp : short_forms[cp];
	if (out[1] != '\0')
		return 2;
	memcpy(out + 1, "u00", 3);
	out[4] = hex[cp >> 4];
	out[5] = hex[cp & 15];
	return 6;
}

/* Escape as much of s as fits in cap bytes; *left is what did not. */
static size_t
escape(struct slice s, char *out, size_t cap, size_t *left)
{
	size_t n = 0, i = 0;
	uint32_t cp;
	char one[6];

	while (i < s.n) {
		size_t took = utf8_decode(s.p + i, s.n - i, &cp);
		size_t add = escape_character(took > 0 ? cp : UTF8_REPLACEMENT, one);

		if (cap - n < add)
			break;
		memcpy(out + n, one, add);
		n += add;
		i += took > 0 ? took : 1;
	}
	*left = s.n - i;
	return n;
}

void
event_out_text(struct event_out *o, struct slice s, size_t max)
{
	size_t left;

	if (s.n <= max && is_plain(s)) {
		out_bytes(o, s.p, s.n);
		return;
	}
	assert(max <= (size_t)(o->end - o->p));
	o->p += escape(s, o->p, max, &left);
}

void
event_out_number(struct event_out *o, uint64_t n)
{
	char digits[20];
	size_t i = sizeof(digits);

	do
		digits[--i] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	out_bytes(o, digits + i, sizeof(digits) - i);
}

long
event_json_string(struct slice s, char *out, size_t cap)
{
	size_t n, left;

	if (cap < 2)
		return -1;
	n = escape(s, out + 1, cap - 2, &left);
	if (left > 0)
		return -1;
	out[0] = out[n + 1] = '"';
	return (long)n + 2;
}
