#include "keytrail/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* RFC 3720 appendix B.4, and the check value of the polynomial. */
static void
published_values(void **state)
{
	unsigned char b[32];

	(void)state;
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(0, "", 0), 0);
	memset(b, 0, sizeof(b));
	assert_int_equal(crc32c(0, b, sizeof(b)), 0x8a9136aa);
	memset(b, 0xff, sizeof(b));
	assert_int_equal(crc32c(0, b, sizeof(b)), 0x62a8ab43);
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = (unsigned char)i;
	assert_int_equal(crc32c(0, b, sizeof(b)), 0x46dd794e);
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = (unsigned char)(31 - i);
	assert_int_equal(crc32c(0, b, sizeof(b)), 0x113fdb5c);
}

/* The definition: a division bit by bit. */
static uint32_t
bitwise(uint32_t crc, const unsigned char *p, size_t n)
{
	crc = ~crc;
	while (n-- > 0) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
	}
	return ~crc;
}

static void
every_length_and_alignment_equals_the_definition(void **state)
{
	static unsigned char b[816];

	(void)state;
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = (unsigned char)(i * 167 + 13);
	for (size_t at = 0; at < 8; at++) {
		for (size_t n = 0; n <= 800; n++)
			assert_int_equal(crc32c(0, b + at, n), bitwise(0, b + at, n));
	}
}

static void
a_sum_may_be_continued_anywhere(void **state)
{
	static const char text[] = "The quick brown fox jumps over the lazy dog";
	size_t n = sizeof(text) - 1;
	uint32_t whole = crc32c(0, text, n);

	(void)state;
	for (size_t cut = 0; cut <= n; cut++)
		assert_int_equal(crc32c(crc32c(0, text, cut), text + cut, n - cut), whole);
}

static void
any_changed_bit_changes_the_sum(void **state)
{
	unsigned char b[40];
	uint32_t was;

	(void)state;
	memset(b, 0x5a, sizeof(b));
	was = crc32c(0, b, sizeof(b));
	for (size_t bit = 0; bit < 8 * sizeof(b); bit++) {
		b[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_not_equal(crc32c(0, b, sizeof(b)), was);
		b[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_values),
		cmocka_unit_test(every_length_and_alignment_equals_the_definition),
		cmocka_unit_test(a_sum_may_be_continued_anywhere),
		cmocka_unit_test(any_changed_bit_changes_the_sum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
