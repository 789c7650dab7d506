#include "event_out.h"

#include "keytrail/lanes.h"
#include "keytrail/utf8.h"

/* Does any of the bytes need an escape, or lie outside ASCII? */
static inline bool
has_special(const char *p)
{
	lanes b = lanes_load(p);

	return lanes_any((lanes)(b - 0x20 > 0x7f - 0x20) | (lanes)(b == '"') | (lanes)(b == '\\'));
}

/* The same of n bytes, fewer than 16: two halves that may overlap, filled up with what is plain. */
static inline bool
has_special_short(const char *p, size_t n)
{
	char b[LANES];

	memset(b, '0', LANES);
	if (n >= 8) {
		memcpy(b, p, 8);
		memcpy(b + 8, p + n - 8, 8);
	} else if (n >= 4) {
		memcpy(b, p, 4);
		memcpy(b + 4, p + n - 4, 4);
	} else {
		for (size_t i = 0; i < n; i++)
			b[i] = p[i];
	}
	return has_special(b);
}

/* Is s the same inside a JSON string? */
static inline bool
is_plain(struct slice s)
{
	if (s.n < LANES)
		return !has_special_short(s.p, s.n);
	for (size_t i = 0; i < s.n - LANES; i += LANES) {
		if (has_special(s.p + i))
			return false;
	}
	return !has_special(s.p + s.n - LANES);
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
