#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <ctype.h>

#include <cmocka.h>

#include "keytrail/chars.h"
#include "keytrail/head.h"

static const char *const names[HTTP_F_COUNT] = {
#define X(suffix, name) [HTTP_F_##suffix] = name,
	HTTP_FIELD_TABLE(X)
#undef X
};

static void
every_known_name_has_its_id_in_any_case(void **state)
{
	(void)state;
	for (int id = 1; id < HTTP_F_COUNT; id++) {
		char upper[64], mixed[64];
		size_t n = strlen(names[id]);

		for (size_t i = 0; i <= n; i++) {
			upper[i] = (char)toupper((unsigned char)names[id][i]);
			mixed[i] = i % 2 == 0 ? upper[i] : names[id][i];
		}
		assert_int_equal(http_field_id(slice_of(names[id])), id);
		assert_int_equal(http_field_id(slice_of(upper)), id);
		assert_int_equal(http_field_id(slice_of(mixed)), id);
	}
}

static void
the_host_is_the_field_before_the_authority(void **state)
{
	struct http_head h = { .authority = SLICE("a") };

	(void)state;
	assert_true(slice_equal(http_head_host(&h), SLICE("a")));
	h.fields[h.nfields++] = (struct http_field){ .value = SLICE("b") };
	h.first[HTTP_F_HOST] = 1;
	assert_true(slice_equal(http_head_host(&h), SLICE("b")));
}

static void
a_name_that_differs_in_one_byte_is_another(void **state)
{
	(void)state;
	for (int id = 1; id < HTTP_F_COUNT; id++) {
		char name[64];
		size_t n = strlen(names[id]);

		for (size_t i = 0; i < n; i++) {
			memcpy(name, names[id], n);
			name[i] = '_';
			assert_int_equal(http_field_id((struct slice){ name, n }), HTTP_F_OTHER);
			/* '-' and CR, 'a' and 'A' differ by one bit: only letters fold */
			name[i] = (char)(names[id][i] ^ 0x20);
			assert_int_equal(http_field_id((struct slice){ name, n }),
			    isalpha((unsigned char)names[id][i]) ? id : HTTP_F_OTHER);
		}
		assert_int_equal(http_field_id((struct slice){ names[id], n - 1 }), HTTP_F_OTHER);
		memcpy(name, names[id], n);
		name[n] = 'x';
		assert_int_equal(http_field_id((struct slice){ name, n + 1 }), HTTP_F_OTHER);
	}
	assert_int_equal(http_field_id(SLICE_EMPTY), HTTP_F_OTHER);
	assert_int_equal(http_field_id(SLICE("accept")), HTTP_F_OTHER);
}

static void
add(struct http_head *h, const char *name, const char *value)
{
	http_head_add(h, slice_of(name))->value = slice_of(value);
}

static void
fields_are_found_and_counted_by_id_and_name(void **state)
{
	static struct http_head h;

	(void)state;
	add(&h, "Accept", "a");
	add(&h, "Host", "h");
	add(&h, "X-Custom", "1");
	add(&h, "PREFER", "p");
	add(&h, "x-cUSTOM", "2");
	add(&h, "prefer", "q");
	assert_ptr_equal(http_head_field(&h, HTTP_F_HOST), &h.fields[1]);
	assert_ptr_equal(http_head_field(&h, HTTP_F_PREFER), &h.fields[3]);
	assert_null(http_head_field(&h, HTTP_F_VIA));
	assert_true(h.present == (HTTP_F_SET(HTTP_F_OTHER) | HTTP_F_SET(HTTP_F_HOST) |
				     HTTP_F_SET(HTTP_F_PREFER)));
	assert_true(h.repeated == (HTTP_F_SET(HTTP_F_OTHER) | HTTP_F_SET(HTTP_F_PREFER)));
	assert_int_equal(http_head_count(&h, HTTP_F_HOST), 1);
	assert_int_equal(http_head_count(&h, HTTP_F_PREFER), 2);
	assert_int_equal(http_head_count(&h, HTTP_F_OTHER), 3);
	assert_int_equal(http_head_count(&h, HTTP_F_TE), 0);
	assert_int_equal(http_head_count_name(&h, SLICE("x-custom")), 2);
	assert_int_equal(http_head_count_name(&h, SLICE("x-custo")), 0);
	assert_ptr_equal(http_head_find(&h, SLICE("X-CUSTOM")), &h.fields[2]);
	assert_null(http_head_find(&h, SLICE("x-other")));
}

/* ---- the classes of bytes, from their grammars ---- */

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static const struct {
	unsigned class;
	const char *members;
} classes[] = {
	{ CHARS_TOKEN, ALNUM "!#$%&'*+-.^_`|~" },
	{ CHARS_ALIAS, "!#$%&'*+.^_`|~" },
	{ CHARS_UNRESERVED, ALNUM "-._~" },
	{ CHARS_PCHAR, ALNUM "-._~!$&'()*+,;=:@" },
	{ CHARS_QUERY, ALNUM "-._~!$&'()*+,;=:@/?" },
	{ CHARS_HEX, "0123456789abcdefABCDEF" },
};

static void
classes_are_those_of_the_grammars(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
			assert_int_equal(chars_is((char)c, classes[i].class),
			    c != 0 && strchr(classes[i].members, c) != NULL);
		assert_int_equal(
		    chars_is((char)c, CHARS_VALUE), c == '\t' || (c >= ' ' && c < 127));
		assert_int_equal(chars_is((char)c, CHARS_OBS), c >= 128);
	}
}

static void
hexadecimal_digits_have_their_values(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(chars_hex("0123456789abcdef"[i]), i);
		assert_int_equal(chars_hex("0123456789ABCDEF"[i]), i);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_known_name_has_its_id_in_any_case),
		cmocka_unit_test(the_host_is_the_field_before_the_authority),
		cmocka_unit_test(a_name_that_differs_in_one_byte_is_another),
		cmocka_unit_test(fields_are_found_and_counted_by_id_and_name),
		cmocka_unit_test(classes_are_those_of_the_grammars),
		cmocka_unit_test(hexadecimal_digits_have_their_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
