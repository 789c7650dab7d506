#include "keytrail/sha256.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LENGTH_MAX 400

static void
reference(unsigned char first, struct slice message, unsigned char out[SHA256_SIZE])
{
	unsigned char text[1 + LENGTH_MAX];

	text[0] = first;
	memcpy(text + 1, message.p, message.n);
	assert_int_equal(EVP_Digest(text, 1 + message.n, out, NULL, EVP_sha256(), NULL), 1);
}

/* FIPS 180-4's own example. */
static void
the_published_value(void **state)
{
	static const unsigned char want[SHA256_SIZE] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf,
		0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96,
		0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
	unsigned char room[SHA256_LANES * SHA256_ROOM(2)], have[SHA256_LANES][SHA256_SIZE];
	struct sha256_batch b = { .room = room };

	(void)state;
	sha256_joined(SLICE("a"), SLICE("bc"), have[0]);
	assert_memory_equal(have[0], want, sizeof(want));
	for (unsigned n = 1; n <= SHA256_LANES; n++) {
		for (unsigned i = 0; i < n; i++)
			sha256_batch_add(&b, 'a', SLICE("bc"));
		sha256_batch_finish(&b, have);
		for (unsigned i = 0; i < n; i++)
			assert_memory_equal(have[i], want, sizeof(want));
	}
}

/* Sixteen lengths that are far from each other, and each length once in every lane. */
static void
every_length_in_every_lane(void **state)
{
	static unsigned char room[SHA256_LANES * SHA256_ROOM(LENGTH_MAX)];
	unsigned char have[SHA256_LANES][SHA256_SIZE], want[SHA256_SIZE];
	struct sha256_batch b = { .room = room };
	char text[SHA256_LANES + LENGTH_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 167 + 13);
	for (size_t start = 0; start < LENGTH_MAX; start++) {
		for (unsigned i = 0; i < SHA256_LANES; i++)
			sha256_batch_add(&b, (unsigned char)i,
			    (struct slice){ text + i, (start + i * 27) % LENGTH_MAX });
		sha256_batch_finish(&b, have);
		for (unsigned i = 0; i < SHA256_LANES; i++) {
			reference((unsigned char)i,
			    (struct slice){ text + i, (start + i * 27) % LENGTH_MAX }, want);
			assert_memory_equal(have[i], want, sizeof(want));
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_published_value),
		cmocka_unit_test(every_length_in_every_lane),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
