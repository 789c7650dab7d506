#include "keytrail/identity.h"

int
identity_memo_init(struct identity_memo *m, const unsigned char key[KEYHASH_KEY_SIZE])
{
	memset(m->rows, 0, sizeof(m->rows));
	return (m->hash = keyhash_new(key)) != NULL ? 0 : -1;
}

static void
read_row(struct identity_row *row, struct slice value, bool named)
{
	identity_from_authorization(value, &row->identity);
	if (!named)
		explicit_bzero(row->identity.name, sizeof(row->identity.name));
	row->used = true;
	row->named = named;
	row->old = false;
}

void
identity_recall(struct identity_memo *m, struct slice value, bool named, struct identity *out)
{
	struct identity_row *row;
	uint64_t hash[2];

	if (value.p == NULL) {
		identity_from_authorization(value, out);
		return;
	}
	keyhash(m->hash, value, hash);
	row = &m->rows[hash[0] % IDENTITY_MEMO_ROWS];
	if (!row->used || row->named != named || row->hash[0] != hash[0] ||
	    row->hash[1] != hash[1]) {
		read_row(row, value, named);
		memcpy(row->hash, hash, sizeof(hash));
	}
	*out = row->identity;
}

bool
identity_memo_age(struct identity_memo *m)
{
	bool any = false;

	for (struct identity_row *row = m->rows; row < m->rows + IDENTITY_MEMO_ROWS; row++) {
		if (row->old)
			explicit_bzero(row, sizeof(*row));
		row->old = row->used;
		any |= row->used;
	}
	return any;
}

void
identity_memo_fini(struct identity_memo *m)
{
	keyhash_free(m->hash);
	explicit_bzero(m, sizeof(*m));
}
