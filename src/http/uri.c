#include "keytrail/uri.h"

#include "keytrail/chars.h"
#include "keytrail/lanes.h"
#include "keytrail/utf8.h"

/* A name that is longer and holds what others decode or drop is none that we can vouch for. */
#define NAME_MAX_DECODED 256

/* The escape "XX" after a '%' at p: its byte, or -1 when it is malformed. */
static int
escape(const char *p, const char *end)
{
	if (end - p < 2 || !chars_is(p[0], CHARS_HEX) || !chars_is(p[1], CHARS_HEX))
		return -1;
	return (int)(chars_hex(p[0]) << 4 | chars_hex(p[1]));
}

/* The bytes of a character that is not whole yet. */
struct utf8_part {
	char p[4];
	size_t n;
};

/* Well-formed UTF-8 or nothing: an overlong '/' or 'a' is somebody's '/' or 'a'. */
static bool
take_utf8(struct utf8_part *u, char c)
{
	uint32_t character;

	if ((unsigned char)c < 0x80)
		return u->n == 0;
	u->p[u->n++] = c;
	if (utf8_decode(u->p, u->n, &character) == u->n)
		u->n = 0;
	return u->n < sizeof(u->p);
}

/* ---- path ---- */

struct segment {
	const char *p, *end;
	struct utf8_part utf8;
	unsigned piece; /* plain bytes since the last separator, encoded ones included */
	bool dots;	/* and all of them dots */
	bool delimiter;
};

/* "." and ".." between separators, whoever decodes those. */
static bool
is_dot_piece(const struct segment *s)
{
	return s->dots && (s->piece == 1 || s->piece == 2);
}

static void
begin_piece(struct segment *s)
{
	s->piece = 0;
	s->dots = true;
}

/* What is no escape, up to the next one. */
static enum http_refusal
plain_bytes(struct segment *s)
{
	const char *p = s->p;

	if (s->utf8.n > 0)
		return REFUSAL_AMBIGUOUS_PATH;
	for (; p < s->end && *p != '%'; p++) {
		if (chars_is(*p, CHARS_UNRESERVED))
			continue;
		if (*p == '\\' || *p == ';')
			return REFUSAL_AMBIGUOUS_PATH;
		if (!chars_is(*p, CHARS_PCHAR))
			return REFUSAL_BAD_TARGET;
	}
	for (const char *c = s->p; s->dots && c < p; c++)
		s->dots = *c == '.';
	s->piece += (unsigned)(p - s->p);
	s->p = p;
	return REFUSAL_NONE;
}

/*
 * An escape, decoded to the end: "%252f" is a slash to whoever decodes twice.  A percent sign that
 * begins no further escape would make the number of decodings matter, so it is refused.
 */
static enum http_refusal
escaped_byte(struct segment *s)
{
	int c = escape(s->p + 1, s->end);

	if (c == -1)
		return REFUSAL_BAD_TARGET;
	for (s->p += 3; c == '%'; s->p += 2) {
		s->delimiter = true;
		if ((c = escape(s->p, s->end)) == -1)
			return REFUSAL_AMBIGUOUS_PATH;
	}
	if (c < 0x20 || c == 0x7f || chars_is((char)c, CHARS_UNRESERVED) ||
	    !take_utf8(&s->utf8, (char)c))
		return REFUSAL_AMBIGUOUS_PATH;
	if (c >= 0x80 || strchr("/\\;?#", c) != NULL)
		s->delimiter = true;
	if (c != '/' && c != '\\') {
		s->dots = false;
		s->piece++;
		return REFUSAL_NONE;
	}
	if (is_dot_piece(s))
		return REFUSAL_AMBIGUOUS_PATH;
	begin_piece(s);
	return REFUSAL_NONE;
}

static enum http_refusal
check_segment(struct slice raw, bool *delimiter)
{
	struct segment s = { .p = raw.p, .end = raw.p + raw.n };
	enum http_refusal refusal;

	if (raw.n == 0)
		return REFUSAL_AMBIGUOUS_PATH;
	begin_piece(&s);
	while (s.p < s.end) {
		refusal = *s.p == '%' ? escaped_byte(&s) : plain_bytes(&s);
		if (refusal != REFUSAL_NONE)
			return refusal;
	}
	if (is_dot_piece(&s) || s.utf8.n > 0)
		return REFUSAL_AMBIGUOUS_PATH;
	*delimiter = s.delimiter;
	return REFUSAL_NONE;
}

static inline bool
are_plain(const char *p)
{
	lanes b = lanes_load(p), plain = (lanes)((b | 0x20) - 'a' < 26);

	plain |= (lanes)(b - '-' < 13) & (lanes)(b != '.'); /* '-', '/' and digits */
	return !lanes_any((lanes) ~(plain | (lanes)(b == '_')));
}

/* Letters, digits, '-', '_' and '/' alone: then only an empty segment can be wrong. */
static bool
is_plain(struct slice path)
{
	if (path.n < LANES)
		return false;
	for (size_t i = 0; i < path.n - LANES; i += LANES)
		if (!are_plain(path.p + i))
			return false;
	return are_plain(path.p + path.n - LANES);
}

static inline const char *
find_slash(const char *p, const char *end)
{
	for (; end - p >= LANES; p += LANES) {
		lanes slash = (lanes)(lanes_load(p) == '/');

		if (lanes_any(slash))
			return p + lanes_first(slash);
	}
	while (p < end && *p != '/')
		p++;
	return p;
}

enum http_refusal
uri_split_path(struct slice path, struct uri_path *out)
{
	const char *p = path.p, *end = path.p + path.n;

	out->nsegments = 0;
	out->encoded_delimiter = 0;
	out->plain = is_plain(path);
	if (path.n == 0 || path.p[0] != '/')
		return REFUSAL_BAD_TARGET;
	while (path.n > 1 && p < end) {
		const char *slash = find_slash(p + 1, end);
		struct slice raw = { p + 1, (size_t)(slash - p) - 1 };
		enum http_refusal refusal;
		bool delimiter = false;

		if (out->nsegments == URI_SEGMENTS_MAX)
			return REFUSAL_BAD_TARGET;
		if (!(out->plain && raw.n > 0) &&
		    (refusal = check_segment(raw, &delimiter)) != REFUSAL_NONE)
			return refusal;
		out->encoded_delimiter |= (uint32_t)delimiter << out->nsegments;
		out->segments[out->nsegments++] = raw;
		p = slash;
	}
	return REFUSAL_NONE;
}

/* ---- query ---- */

bool
uri_next_parameter(struct slice *rest, struct slice *name, struct slice *value, bool *has_value)
{
	const char *end, *stop, *equals = NULL;

	while (rest->n > 0 && rest->p[0] == '&')
		*rest = slice_sub(*rest, 1, rest->n);
	if (rest->n == 0)
		return false;
	end = rest->p + rest->n;
	for (stop = rest->p; stop < end && *stop != '&'; stop++)
		if (*stop == '=' && equals == NULL)
			equals = stop;
	*has_value = equals != NULL;
	*name = (struct slice){ rest->p, (size_t)((equals != NULL ? equals : stop) - rest->p) };
	*value = equals != NULL ? (struct slice){ equals + 1, (size_t)(stop - equals) - 1 }
				: SLICE_EMPTY;
	*rest = (struct slice){ stop, (size_t)(end - stop) };
	return true;
}

/* Append and decode to the end, as often as anybody might: whenever the bytes written so far end in
 * an escape, its byte takes their place, and may complete the next escape. */
static size_t
decode_next(char *out, size_t n, char byte)
{
	int c;

	out[n++] = byte;
	while (n >= 3 && out[n - 3] == '%' && (c = escape(out + n - 2, out + n)) != -1) {
		n -= 2;
		out[n - 1] = (char)c;
	}
	return n;
}

/* How many of the last bytes may still become others. */
static size_t
pending(const char *p, size_t n)
{
	return n >= 1 && p[n - 1] == '%' ? 1 : n >= 2 && p[n - 2] == '%' ? 2 : 0;
}

static bool
take_text(struct utf8_part *u, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || !take_utf8(u, p[i]))
			return false;
	return true;
}

/* Does it decode, to the end, to text without control characters? */
static bool
is_text(struct slice query)
{
	struct utf8_part utf8 = { .n = 0 };
	char last[3]; /* pending bytes and the next one */
	size_t n = 0, done;

	if (memchr(query.p, '%', query.n) == NULL)
		return true;
	for (size_t i = 0; i < query.n; i++) {
		n = decode_next(last, n, query.p[i]);
		done = n - pending(last, n);
		if (!take_text(&utf8, last, done))
			return false;
		n -= done;
		memmove(last, last + done, n);
	}
	return take_text(&utf8, last, n) && utf8.n == 0;
}

enum http_refusal
uri_check_query(struct slice query)
{
	const char *end = query.p + query.n;

	for (const char *p = query.p; p < end; p++) {
		if (*p == ';' || *p == '\\')
			return REFUSAL_AMBIGUOUS_QUERY;
		if (chars_is(*p, CHARS_QUERY))
			continue;
		if (*p != '%' || escape(p + 1, end) == -1)
			return REFUSAL_BAD_TARGET;
		p += 2;
	}
	return is_text(query) ? REFUSAL_NONE : REFUSAL_AMBIGUOUS_QUERY;
}

static bool
is_space(char c)
{
	return c == ' ' || c == '+' || c == '\0' || (c >= '\t' && c <= '\r');
}

/* But for white space around it, for case, and for what PHP makes a '_' in a name; a bracket where
 * none follows that closes it. */
static bool
is_same_name(struct slice name, struct slice literal)
{
	while (name.n > 0 && is_space(name.p[0]))
		name = slice_sub(name, 1, name.n);
	while (name.n > 0 && is_space(name.p[name.n - 1]))
		name.n--;
	if (name.n != literal.n)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i], want = literal.p[i];

		if (chars_lower(c) != chars_lower(want) &&
		    (want != '_' || (c != '.' && c != '[' && !is_space(c))))
			return false;
	}
	return true;
}

static bool
may_shrink(struct slice name)
{
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] == '%' || name.p[i] == '[' || is_space(name.p[i]))
			return true;
	return false;
}

bool
uri_is_disguised(struct slice name, struct slice literal)
{
	char decoded[NAME_MAX_DECODED] = { 0 };
	struct slice plain = { decoded, 0 };
	const char *bracket;

	if (slice_equal(name, literal))
		return false;
	if (!may_shrink(name))
		return is_same_name(name, literal);
	if (name.n > sizeof(decoded))
		return true;
	for (size_t i = 0; i < name.n; i++)
		plain.n = decode_next(decoded, plain.n, name.p[i]);
	if (is_same_name(plain, literal))
		return true;
	/* "action[]" and "action[x]" are an array called action to PHP, Rack and others. */
	if ((bracket = memchr(plain.p, '[', plain.n)) == NULL)
		return false;
	plain.n = (size_t)(bracket - plain.p);
	return is_same_name(plain, literal);
}

static bool
is_read_as(struct slice name, struct slice literal)
{
	return slice_equal(name, literal) || uri_is_disguised(name, literal);
}

bool
uri_hides_parameter(struct slice parameter, struct slice literal)
{
	char text[NAME_MAX_DECODED];
	struct slice name = { text, 0 };
	bool hidden = false, value = false;

	if (memchr(parameter.p, '%', parameter.n) == NULL)
		return false;
	for (size_t i = 0; i < parameter.n; i++) {
		bool ends;
		size_t n;

		if (name.n == sizeof(text))
			return true;
		n = decode_next(text, name.n, parameter.p[i]);
		ends = text[n - 1] == '&' || text[n - 1] == ';';
		name.n = n - 1;
		hidden = hidden || ends;
		if (!value && (ends || text[n - 1] == '=')) {
			if ((hidden || parameter.p[i] != '=') && is_read_as(name, literal))
				return true;
			value = true;
		}
		if (ends)
			value = false;
		name.n = ends || (value && pending(text, n) == 0) ? 0 : n;
	}
	return !value && hidden && is_read_as(name, literal);
}
