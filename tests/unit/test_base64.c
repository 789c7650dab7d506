#include "keytrail/base64.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct {
	const char *bytes, *text;
} vectors[] = {
	{ "", "" },
	{ "f", "Zg==" },
	{ "fo", "Zm8=" },
	{ "foo", "Zm9v" },
	{ "foob", "Zm9vYg==" },
	{ "fooba", "Zm9vYmE=" },
	{ "foobar", "Zm9vYmFy" },
	{ "\xfb\xff\xbf", "+/+/" },
};

static void
bytes_and_text_are_those_of_rfc4648(void **state)
{
	char text[16];
	unsigned char bytes[16];

	(void)state;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		size_t n = strlen(vectors[i].bytes);

		assert_int_equal(base64_encode(vectors[i].bytes, n, text), strlen(vectors[i].text));
		assert_memory_equal(text, vectors[i].text, strlen(vectors[i].text));
		assert_int_equal(base64_decode(slice_of(vectors[i].text), bytes, sizeof(bytes)), n);
		assert_memory_equal(bytes, vectors[i].bytes, n);
	}
}

static void
what_is_not_the_one_text_of_its_bytes_is_refused(void **state)
{
	static const char *const bad[] = { "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zm9vZg", "Zm9v\n",
		"Zm 9", "Zg==Zg==", "====", "Z===", "Zm-_", "=Zm9", "Zm9v====" };
	unsigned char bytes[16];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(base64_decode(slice_of(bad[i]), bytes, sizeof(bytes)), -1);
}

static void
no_more_is_written_than_there_is_room(void **state)
{
	unsigned char bytes[8] = { 0, 0, 0, 0, 0, 7, 7, 7 };

	(void)state;
	assert_int_equal(base64_decode(SLICE("Zm9vYmFy"), bytes, 5), -1);
	assert_int_equal(bytes[5], 7);
	assert_int_equal(base64_decode(SLICE("Zm9vYmE="), bytes, 5), 5);
	assert_int_equal(bytes[5], 7);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_and_text_are_those_of_rfc4648),
		cmocka_unit_test(what_is_not_the_one_text_of_its_bytes_is_refused),
		cmocka_unit_test(no_more_is_written_than_there_is_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
