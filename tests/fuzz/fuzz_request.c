/*
 * A request's head and body: the first byte says how the rest is cut.
 */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct http_limits limits = { .head = 4096, .target = 1024, .fields = 24 };

	if (size > 0)
		check_message(KIND_REQUEST, &limits,
		    (struct slice){ (const char *)data + 1, size - 1 }, cuts_of(data[0]));
	return 0;
}
