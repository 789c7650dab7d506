/*
 * Any bytes as a proof file: what is read is written the same way again (but for the line `extra`,
 * which is dropped), and nothing proves a line of a log whose key signed nothing.
 */
#include "keytrail/proof.h"

#include <assert.h>

#define KEY "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The file without its line `extra`. */
static bool
is_same(struct slice file, struct slice again)
{
	const char *nl = memchr(file.p, '\n', file.n), *end;
	size_t title = (size_t)(nl - file.p) + 1;

	if (slice_equal(file, again))
		return true;
	end = memchr(nl + 1, '\n', file.n - title);
	return end != NULL && slice_has_prefix(slice_sub(file, title, file.n), SLICE("extra ")) &&
	       memcmp(file.p, again.p, title) == 0 &&
	       slice_equal(slice_sub(file, (size_t)(end - file.p) + 1, file.n),
		   slice_sub(again, title, again.n));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice file = { (const char *)data, n };
	struct checkpoint_key key;
	struct checkpoint cp;
	struct proof p;
	struct buf again = BUF_INIT;
	struct err err;

	assert(checkpoint_key_parse(SLICE(KEY), &key, &err) == 0);
	if (proof_parse(file, &p, &err) == -1)
		return 0;
	assert(proof_write(&p, &again, &err) == 0);
	assert(is_same(file, buf_slice(&again)));
	assert(proof_check(&p, file, &key, 1, &cp, &err) != PROOF_GOOD);
	buf_fini(&again);
	return 0;
}
