#include "event_out.h"

#include "keytrail/lanes.h"
#include "keytrail/utf8.h"

/* Must any of the bytes be escaped, or does one lie outside ASCII? */
static inline bool
has_special(lanes b)
{
	return lanes_any((lanes)(b - 0x20 > 0x7f - 0x20) | (lanes)(b == '"') | (lanes)(b == '\\'));
}

/* Copy n bytes that are the same inside a JSON string.  False: one is not, and what was written counts
 * for nothing. */
static inline bool
copy_long(char *out, const char *p, size_t n)
{
	lanes last = lanes_load(p + n - LANES);

	for (size_t i = 0; i < n - LANES; i += LANES) {
		lanes b = lanes_load(p + i);

		if (has_special(b))
			return false;
		lanes_store(out + i, b);
	}
	lanes_store(out + n - LANES, last);
	return !has_special(last);
}

/* The same of fewer than LANES, in pieces that may overlap. */
static inline bool
copy_short(char *out, const char *p, size_t n)
{
	if (n == 0)
		return true;
	if (n >= 8) {
		memcpy(out, p, 8);
		memcpy(out + n - 8, p + n - 8, 8);
	} else if (n >= 4) {
		memcpy(out, p, 4);
		memcpy(out + n - 4, p + n - 4, 4);
	} else {
		out[0] = p[0];
		out[n / 2] = p[n / 2];
		out[n - 1] = p[n - 1];
	}
	return !has_special(lanes_load_short(p, n));
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

/* Rare: inline, every text would pay for the canary beside its variables. */
static __attribute__((noinline)) void
out_escaped(struct event_out *o, struct slice s, size_t max)
{
	size_t left;

	assert(max <= (size_t)(o->end - o->p));
	o->p += escape(s, o->p, max, &left);
}

void
event_out_text(struct event_out *o, struct slice s, size_t max)
{
	if (s.n <= max && s.n <= (size_t)(o->end - o->p) &&
	    (s.n < LANES ? copy_short(o->p, s.p, s.n) : copy_long(o->p, s.p, s.n)))
		o->p += s.n;
	else
		out_escaped(o, s, max);
}

/* In place: bytes that are written one by one and read as words at once make the processor wait. */
void
event_out_number(struct event_out *o, uint64_t n)
{
	size_t digits = 1;

	for (uint64_t rest = n; rest >= 10; rest /= 10)
		digits++;
	assert(digits <= (size_t)(o->end - o->p));
	o->p += digits;
	for (char *p = o->p; digits > 0; digits--, n /= 10)
		*--p = (char)('0' + n % 10);
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
