/*
 * chars: which bytes the grammars of RFC 9110, RFC 9112 and RFC 3986 allow where.
 *
 * One table of 256 bytes, one bit a class.  Pure; any thread.
 */
#ifndef KEYTRAIL_CHARS_H
#define KEYTRAIL_CHARS_H

#include "keytrail/lanes.h"

#include <stdbool.h>

enum {
	CHARS_TOKEN = 0x01, /* tchar: methods, field names */
	CHARS_ALIAS =
	    0x02, /* tchar that CGI-like servers read as '-': neither it nor alphanumeric */
	CHARS_VALUE = 0x04,	 /* of a field's value: HTAB, SP, visible ASCII */
	CHARS_OBS = 0x08,	 /* obs-text: 0x80 to 0xff */
	CHARS_UNRESERVED = 0x10, /* RFC 3986 section 2.3 */
	CHARS_PCHAR = 0x20,	 /* RFC 3986 section 3.3, without the '%' of an escape */
	CHARS_QUERY = 0x40,	 /* RFC 3986 section 3.4, without the '%' of an escape */
	CHARS_HEX = 0x80,	 /* HEXDIG of either case */
};

extern const unsigned char http_chars[256];

static inline bool
chars_is(char c, unsigned classes)
{
	return (http_chars[(unsigned char)c] & classes) != 0;
}

/* Each goes past the bytes it is for, to the first other one; of the last LANES - 1 before the end some
 * may be left. */
static inline const char *
chars_skip_ascii(const char *p, const char *end, char first) /* from `first` to '~' */
{
	const unsigned char low = (unsigned char)first, range = '~' - low;

	for (; end - p >= LANES; p += LANES) {
		lanes other = (lanes)(lanes_load(p) - low > range);

		if (lanes_any(other))
			return p + lanes_first(other);
	}
	return p;
}

static inline const char *
chars_skip_words(const char *p, const char *end) /* letters, digits and '-' */
{
	for (; end - p >= LANES; p += LANES) {
		lanes b = lanes_load(p);
		lanes word = (lanes)((b | 0x20) - 'a' < 26) | (lanes)(b - '0' < 10);
		lanes other = (lanes) ~(word | (lanes)(b == '-'));

		if (lanes_any(other))
			return p + lanes_first(other);
	}
	return p;
}

/* The value of a CHARS_HEX byte. */
static inline unsigned
chars_hex(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

static inline char
chars_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

#endif
