#include "cli/harden.h"

#include <openssl/crypto.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void
it_is_too_late_once_openssl_has_allocated(void **state)
{
	struct err err;

	(void)state;
	OPENSSL_free(OPENSSL_malloc(1));
	assert_int_equal(harden_process(&err), -1);
	assert_string_equal(err.msg, "cannot make OpenSSL wipe what it frees, or memory is short");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_too_late_once_openssl_has_allocated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
