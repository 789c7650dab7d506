/*
 * Any bytes as a checkpoint.  The key is the one of C2SP's example, whose secret nobody here has: what
 * is good has the example's text, and what is read as a checkpoint is written the same way again.
 */
#include "keytrail/base64.h"
#include "keytrail/checkpoint.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define KEY  "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
#define TEXT "This is an example message.\n"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
check_peek(struct slice note)
{
	char text[CHECKPOINT_ORIGIN_MAX + 80], root[BASE64_SIZE(MERKLE_HASH_SIZE)];
	struct checkpoint cp;
	int used;

	if (!checkpoint_peek(note, &cp))
		return;
	base64_encode(cp.root.b, MERKLE_HASH_SIZE, root);
	used = snprintf(text, sizeof(text), "%s\n%" PRIu64 "\n%.*s\n", cp.origin, cp.size,
	    (int)sizeof(root), root);
	assert(slice_has_prefix(note, (struct slice){ text, (size_t)used }));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice note = { (const char *)data, n }, text;
	struct checkpoint_key key, other;
	struct checkpoint cp;
	struct err err;

	assert(checkpoint_key_parse(SLICE(KEY), &key, &err) == 0);
	if (checkpoint_open_note(note, &key, 1, &text, &err) == CHECKPOINT_GOOD)
		assert(slice_equal(text, SLICE(TEXT)));
	assert(checkpoint_read(note, &key, 1, &cp, &err) != CHECKPOINT_GOOD);
	check_peek(note);
	if (checkpoint_key_parse(note, &other, &err) == 0) {
		char again[CHECKPOINT_KEY_MAX];

		checkpoint_key_text(&other, again);
		assert(slice_equal(note, slice_of(again)));
	}
	checkpoint_signer_free(checkpoint_signer_parse(note, &err));
	return 0;
}
