#include "keytrail/identity.h"

void
identity_memo_init(struct identity_memo *m, const unsigned char key[SIPHASH_KEY_SIZE])
{
	memset(m->rows, 0, sizeof(m->rows));
	memcpy(m->key, key, SIPHASH_KEY_SIZE);
}

void
identity_recall(struct identity_memo *m, struct slice value, struct identity *out)
{
	struct identity_row *row;
	uint64_t hash[2];

	if (value.p == NULL) {
		identity_from_authorization(value, out);
		return;
	}
	siphash(m->key, value, hash);
	row = &m->rows[hash[0] % IDENTITY_MEMO_ROWS];
	if (!row->used || row->hash[0] != hash[0] || row->hash[1] != hash[1]) {
		identity_from_authorization(value, &row->identity);
		memcpy(row->hash, hash, sizeof(hash));
		row->used = true;
	}
	*out = row->identity;
}
