#include "keytrail/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t
base64_encode(const void *p, size_t n, char *out)
{
	const unsigned char *b = p;
	char *o = out;

	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)b[i] << 16;

		if (i + 1 < n)
			v |= (uint32_t)b[i + 1] << 8;
		if (i + 2 < n)
			v |= b[i + 2];
		*o++ = alphabet[v >> 18];
		*o++ = alphabet[v >> 12 & 63];
		*o++ = i + 1 < n ? alphabet[v >> 6 & 63] : '=';
		*o++ = i + 2 < n ? alphabet[v & 63] : '=';
	}
	return (size_t)(o - out);
}

static int
value_of(char c)
{
	const char *at = c != '\0' ? strchr(alphabet, c) : NULL;

	return at != NULL ? (int)(at - alphabet) : -1;
}

/* Four characters, of which the last `pad` are '='. */
static bool
decode_group(const char *s, size_t pad, unsigned char out[3])
{
	uint32_t v = 0;

	for (size_t i = 0; i < 4; i++) {
		int digit = i < 4 - pad ? value_of(s[i]) : 0;

		if (digit == -1)
			return false;
		v = v << 6 | (uint32_t)digit;
	}
	out[0] = (unsigned char)(v >> 16);
	out[1] = (unsigned char)(v >> 8);
	out[2] = (unsigned char)v;
	return (pad < 1 || out[2] == 0) && (pad < 2 || out[1] == 0);
}

long
base64_decode(struct slice text, void *out, size_t cap)
{
	unsigned char *o = out, group[3];
	size_t used = 0;

	if (text.n % 4 != 0)
		return -1;
	for (size_t i = 0; i < text.n; i += 4) {
		bool last = i + 4 == text.n;
		size_t pad = !last || text.p[i + 3] != '=' ? 0 : text.p[i + 2] != '=' ? 1 : 2;

		if (!decode_group(text.p + i, pad, group) || cap - used < 3 - pad)
			return -1;
		memcpy(o + used, group, 3 - pad);
		used += 3 - pad;
	}
	return (long)used;
}
