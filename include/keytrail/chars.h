/*
 * chars: which bytes the grammars of RFC 9110, RFC 9112 and RFC 3986 allow where.
 *
 * One table of 256 bytes, one bit a class.  Pure; any thread.
 */
#ifndef KEYTRAIL_CHARS_H
#define KEYTRAIL_CHARS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

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

/* Past bytes that are SP or visible ASCII, eight at a time: what follows may begin with more. */
static inline const char *
chars_skip_text(const char *p, const char *end)
{
	const uint64_t ones = UINT64_C(0x0101010101010101);
	uint64_t w;

	for (; end - p >= 8; p += 8) {
		memcpy(&w, p, 8);
		/* The high bit of a byte: it is 0x80 or more, below 0x20, or 0x7f. */
		if (((w | (w - ones * 0x20) | (w + ones)) & ones * 0x80) != 0)
			break;
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
