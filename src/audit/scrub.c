#include "keytrail/scrub.h"

#include "keytrail/chars.h"
#include "keytrail/lanes.h"
#include "keytrail/utf8.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <stdio.h>

#define AGENT_TOKEN_MAX 40

/* A set of ASCII characters, one bit each: those below 64 and the others. */
#define LOW(c)	(UINT64_C(1) << (c))
#define HIGH(c) (UINT64_C(1) << ((c)-64))
#define DIGITS	(UINT64_C(0x3ff) << '0')
#define A_TO_Z	((UINT64_C(0x3ffffff) << ('A' - 64)) | (UINT64_C(0x3ffffff) << ('a' - 64)))
#define WORDS	(DIGITS | LOW('-')) /* with A_TO_Z: what chars_skip_words goes past */
#define A_TO_F	(UINT64_C(0x3f) << ('a' - 64))

/* Grammars that are a set of characters and a range of lengths. */
static const struct {
	unsigned min, max;
	uint64_t low, high;
} ranges[] = {
	[SCRUB_CORRELATION] = { 1, 64, DIGITS | LOW('-') | LOW('.') | LOW(':'),
	    A_TO_Z | HIGH('_') },
	[SCRUB_KEY_RING] = { 2, 100, DIGITS | LOW('-'), A_TO_Z },
	[SCRUB_ALIAS] = { 2, 90, DIGITS | LOW('-'), A_TO_Z | HIGH('_') },
	[SCRUB_ACCOUNT] = { 32, 32, DIGITS, A_TO_F },
	[SCRUB_IAM_ID] = { 1, 128, DIGITS | LOW('-') | LOW('.') | LOW(':'),
	    A_TO_Z | HIGH('_') | HIGH('@') },
	[SCRUB_IDENTIFIER] = { 1, 64, DIGITS | LOW('-'), A_TO_Z | HIGH('_') },
};

static bool
fits_range(enum scrub_grammar g, struct slice s)
{
	const uint64_t sets[4] = { ranges[g].low, ranges[g].high, 0, 0 };
	const char *p = s.p, *end;

	if (s.n < ranges[g].min || s.n > ranges[g].max)
		return false;
	end = p + s.n;
	if ((WORDS & ~sets[0]) == 0 && (A_TO_Z & ~sets[1]) == 0)
		p = chars_skip_words(p, end);
	for (; p < end; p++) {
		unsigned char c = (unsigned char)*p;

		if ((sets[c / 64] >> c % 64 & 1) == 0)
			return false;
	}
	return true;
}

static bool
all_of(unsigned classes, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!chars_is(p[i], classes))
			return false;
	}
	return true;
}

static bool
is_uuid(struct slice s)
{
	static const char shape[] = "00000000-0000-0000-0000-000000000000";
	static const size_t parts[] = { 0, LANES, sizeof(shape) - 1 - LANES };

	if (s.n != sizeof(shape) - 1)
		return false;
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		lanes b = lanes_load(s.p + parts[i]), wanted = lanes_load(shape + parts[i]);
		lanes hex = (lanes)(b - '0' < 10) | (lanes)((b | 0x20) - 'a' < 6);
		lanes dash = (lanes)(b == '-') & (lanes)(wanted == '-');

		if (lanes_any((lanes) ~(dash | (hex & (lanes)(wanted != '-')))))
			return false;
	}
	return true;
}

static bool
is_method(struct slice s)
{
	static const struct slice methods[] = {
		SLICE_INIT("GET"),
		SLICE_INIT("HEAD"),
		SLICE_INIT("POST"),
		SLICE_INIT("PUT"),
		SLICE_INIT("DELETE"),
		SLICE_INIT("CONNECT"),
		SLICE_INIT("OPTIONS"),
		SLICE_INIT("TRACE"),
		SLICE_INIT("PATCH"),
	};

	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
		if (slice_equal(s, methods[i]))
			return true;
	}
	return false;
}

bool
scrub_fits(enum scrub_grammar g, struct slice s)
{
	if (g == SCRUB_UUID)
		return is_uuid(s);
	if (g == SCRUB_METHOD)
		return is_method(s);
	return fits_range(g, s);
}

struct slice
scrub_value(enum scrub_grammar g, struct slice s)
{
	if (s.n == 0)
		return SLICE_EMPTY;
	return scrub_fits(g, s) ? s : SLICE(SCRUB_REDACTED);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The end of the comment that begins at `at`; comments nest and may hold quoted pairs. */
static size_t
comment_end(struct slice s, size_t at)
{
	size_t depth = 0;

	for (; at < s.n; at++) {
		if (s.p[at] == '\\')
			at++;
		else if (s.p[at] == '(')
			depth++;
		else if (s.p[at] == ')' && --depth == 0)
			return at + 1;
	}
	return s.n;
}

static bool
is_agent_token(const char *p, size_t n)
{
	return n >= 1 && n <= AGENT_TOKEN_MAX && all_of(CHARS_TOKEN, p, n);
}

static bool
is_product(struct slice word)
{
	const char *slash = memchr(word.p, '/', word.n);

	return slash != NULL && is_agent_token(word.p, (size_t)(slash - word.p)) &&
	       is_agent_token(slash + 1, word.n - (size_t)(slash - word.p) - 1);
}

/* The next word that is not a comment; false at the end. */
static bool
next_word(struct slice s, size_t *at, struct slice *word)
{
	size_t from;

	while (*at < s.n && (is_blank(s.p[*at]) || s.p[*at] == '('))
		*at = s.p[*at] == '(' ? comment_end(s, *at) : *at + 1;
	from = *at;
	while (*at < s.n && !is_blank(s.p[*at]))
		++*at;
	*word = slice_sub(s, from, *at);
	return word->n > 0;
}

size_t
scrub_agent(struct slice s, char out[SCRUB_AGENT_MAX])
{
	size_t n = 0, at = 0;
	bool redacted = false;
	struct slice word;

	while (next_word(s, &at, &word)) {
		bool product = is_product(word);

		if (!product && redacted)
			continue;
		redacted = !product;
		if (!product)
			word = SLICE(SCRUB_REDACTED);
		if (n + (n > 0) + word.n > SCRUB_AGENT_MAX)
			break;
		if (n > 0)
			out[n++] = ' ';
		memcpy(out + n, word.p, word.n);
		n += word.n;
	}
	return n;
}

static bool
is_hidden(uint32_t cp)
{
	static const struct {
		uint32_t first, last;
	} hidden[] = {
		{ 0x00, 0x1f },	      /* C0 */
		{ 0x7f, 0x9f },	      /* DEL, C1 */
		{ 0xad, 0xad },	      /* soft hyphen */
		{ 0x61c, 0x61c },     /* Arabic letter mark */
		{ 0x180e, 0x180e },   /* Mongolian vowel separator */
		{ 0x200b, 0x200f },   /* zero width, direction marks */
		{ 0x2028, 0x202e },   /* line and paragraph separators, bidi embeddings */
		{ 0x2060, 0x206f },   /* word joiner, bidi isolates, deprecated controls */
		{ 0xfeff, 0xfeff },   /* byte order mark */
		{ 0xfff9, 0xfffb },   /* interlinear annotations */
		{ 0xe0000, 0xe007f }, /* tags */
	};

	for (size_t i = 0; i < sizeof(hidden) / sizeof(*hidden) && cp >= hidden[i].first; i++) {
		if (cp <= hidden[i].last)
			return true;
	}
	return false;
}

size_t
scrub_text(struct slice utf8, char *out, size_t cap)
{
	size_t n = 0, len;
	uint32_t cp;
	char bytes[4];

	for (size_t i = 0; i < utf8.n; i += len) {
		const char *from = utf8.p + i;
		size_t add = len = utf8_decode(from, utf8.n - i, &cp);

		if (len == 0)
			len = 1;
		if (add == 0 || is_hidden(cp)) {
			add = utf8_encode(UTF8_REPLACEMENT, bytes);
			from = bytes;
		}
		if (cap - n < add)
			break;
		memcpy(out + n, from, add);
		n += add;
	}
	return n;
}

/* What a reference is computed from: parts with a NUL between them. */
struct ref_input {
	unsigned parts;
	size_t n;
	unsigned char bytes[512];
};

static int
add_part(struct ref_input *in, struct slice s)
{
	if (sizeof(in->bytes) - in->n < s.n + 1)
		return -1;
	if (in->parts++ > 0)
		in->bytes[in->n++] = '\0';
	memcpy(in->bytes + in->n, s.p, s.n);
	in->n += s.n;
	return 0;
}

/* RFC 4648 section 6, without padding: 16 bytes are 26 digits. */
static void
base32(const unsigned char in[16], char out[27])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	unsigned acc = 0, bits = 0;

	for (size_t i = 0; i < 16; i++) {
		acc = (acc << 8 | in[i]) & 0xfff;
		for (bits += 8; bits >= 5; bits -= 5)
			*out++ = digits[acc >> (bits - 5) & 31];
	}
	*out++ = digits[acc << (5 - bits) & 31];
	*out = '\0';
}

static int
make_ref(const unsigned char key[SCRUB_HMAC_KEY_SIZE], unsigned epoch, struct ref_input *in,
    char out[SCRUB_KEY_REF_SIZE])
{
	unsigned char mac[EVP_MAX_MD_SIZE];
	char text[27];

	if (HMAC(EVP_sha256(), key, SCRUB_HMAC_KEY_SIZE, in->bytes, in->n, mac, NULL) == NULL)
		return -1;
	base32(mac, text);
	snprintf(out, SCRUB_KEY_REF_SIZE, "h1:%u:%s", epoch, text);
	return 0;
}

int
scrub_key_ref(const unsigned char key[SCRUB_HMAC_KEY_SIZE], unsigned epoch, struct slice instance,
    struct slice id, char out[SCRUB_KEY_REF_SIZE])
{
	struct ref_input in = { 0 };
	bool uuid = is_uuid(id);

	if (add_part(&in, instance) == -1 ||
	    add_part(&in, uuid ? SLICE("uuid") : SLICE("alias")) == -1 || add_part(&in, id) == -1)
		return -1;
	for (size_t i = in.n - id.n; uuid && i < in.n; i++) {
		if (in.bytes[i] >= 'A' && in.bytes[i] <= 'F')
			in.bytes[i] |= 0x20;
	}
	return make_ref(key, epoch, &in, out);
}

int
scrub_name_ref(const unsigned char key[SCRUB_HMAC_KEY_SIZE], unsigned epoch, struct slice name,
    char out[SCRUB_KEY_REF_SIZE])
{
	struct ref_input in = { 0 };

	if (add_part(&in, SLICE("name")) == -1 || add_part(&in, name) == -1)
		return -1;
	return make_ref(key, epoch, &in, out);
}
