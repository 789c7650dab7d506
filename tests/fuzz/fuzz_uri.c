/*
 * A path, a query or a parameter's name, as the first byte says.
 *
 * The oracle decodes in the plainest way there is: all of the text, again and again, until nothing
 * changes.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "keytrail/uri.h"

#define CHECK(property)                                                                            \
	do {                                                                                       \
		if (!(property)) {                                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #property);             \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t
decode_once(char *s, size_t n)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		char hex[3] = { 0 };

		if (s[i] == '%' && i + 2 < n && isxdigit((unsigned char)s[i + 1]) &&
		    isxdigit((unsigned char)s[i + 2])) {
			memcpy(hex, s + i + 1, 2);
			s[out++] = (char)strtol(hex, NULL, 16);
			i += 2;
		} else {
			s[out++] = s[i];
		}
	}
	return out;
}

static size_t
decode_fully(char *s, size_t n)
{
	size_t before;

	do {
		before = n;
		n = decode_once(s, n);
	} while (n != before);
	return n;
}

static bool
is_separator(char c)
{
	return c == '/' || c == '\\';
}

/* No reading of a segment has a dot segment in it, or a control byte. */
static void
check_decoded(const char *s, size_t n)
{
	for (size_t begin = 0, i = 0; i <= n; i++) {
		if (i < n && !is_separator(s[i])) {
			CHECK((unsigned char)s[i] >= 0x20 && s[i] != 0x7f);
			continue;
		}
		CHECK(i - begin != 1 || s[begin] != '.');
		CHECK(i - begin != 2 || memcmp(s + begin, "..", 2) != 0);
		begin = i + 1;
	}
}

static void
check_path(struct slice path)
{
	struct uri_path out;
	char text[512];
	size_t n = 0;

	if (path.n > sizeof(text) || uri_split_path(path, &out) != REFUSAL_NONE)
		return;
	for (unsigned i = 0; i < out.nsegments; i++) {
		char copy[512];

		text[n++] = '/';
		CHECK(out.segments[i].n > 0);
		memcpy(text + n, out.segments[i].p, out.segments[i].n);
		n += out.segments[i].n;
		memcpy(copy, out.segments[i].p, out.segments[i].n);
		check_decoded(copy, decode_fully(copy, out.segments[i].n));
	}
	CHECK(out.nsegments == 0 ? slice_equal(path, SLICE("/"))
				 : slice_equal(path, (struct slice){ text, n }));
}

static void
check_query(struct slice query)
{
	struct slice rest = query, name, value;
	bool has_value, plain = uri_check_query(query) == REFUSAL_NONE;
	size_t n = 0;

	while (uri_next_parameter(&rest, &name, &value, &has_value)) {
		n += name.n + value.n + has_value;
		CHECK(name.n + value.n + has_value > 0);
		CHECK(memchr(name.p, '=', name.n) == NULL && memchr(name.p, '&', name.n) == NULL);
		CHECK(has_value || value.n == 0);
	}
	CHECK(rest.n == 0 && n <= query.n);
	for (size_t i = 0; plain && i < query.n; i++)
		CHECK(query.p[i] > 0x20 && query.p[i] < 0x7f && query.p[i] != ';');
}

static void
check_name(struct slice name)
{
	static const struct slice literal = SLICE_INIT("action");
	char text[512];
	struct slice decoded = { text, 0 };

	if (name.n > sizeof(text))
		return;
	if (name.n > 0)
		memcpy(text, name.p, name.n);
	decoded.n = decode_fully(text, name.n);
	if (slice_equal_nocase(decoded, literal))
		CHECK(uri_is_disguised(name, literal) == !slice_equal(name, literal));
	if (memchr(name.p, '%', name.n) == NULL && name.n < literal.n)
		CHECK(!uri_is_disguised(name, literal));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const checks[])(struct slice) = { check_path, check_query, check_name };

	if (size > 0)
		checks[data[0] % 3]((struct slice){ (const char *)data + 1, size - 1 });
	return 0;
}
