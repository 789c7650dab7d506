#include "keytrail/proof.h"

#include "keytrail/base64.h"

#include <inttypes.h>

static const struct slice title = SLICE_INIT("c2sp.org/tlog-proof@v1");
static const struct slice extra_key = SLICE_INIT("extra ");
static const struct slice index_key = SLICE_INIT("index ");

int
proof_write(const struct proof *p, struct buf *out, struct err *err)
{
	char hash[BASE64_SIZE(MERKLE_HASH_SIZE)];
	int rc;

	rc = buf_printf(
	    out, "%.*s\n%.*s%" PRIu64 "\n", SLICE_ARG(title), SLICE_ARG(index_key), p->index);
	for (size_t i = 0; i < p->n && rc != -1; i++) {
		base64_encode(p->hashes[i].b, MERKLE_HASH_SIZE, hash);
		rc = buf_printf(out, "%.*s\n", (int)sizeof(hash), hash);
	}
	if (rc == -1 || buf_append(out, "\n", 1) == -1 || buf_append_slice(out, p->note) == -1)
		return err_set_errno(err, "proof");
	return 0;
}

static bool
next_line(struct slice *rest, struct slice *line)
{
	const char *nl = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;

	if (nl == NULL)
		return false;
	*line = slice_sub(*rest, 0, (size_t)(nl - rest->p));
	*rest = slice_sub(*rest, line->n + 1, rest->n);
	return true;
}

static bool
is_base64(struct slice s)
{
	char bytes[PROOF_FILE_MAX];

	return base64_decode(s, bytes, sizeof(bytes)) != -1;
}

static bool
parse_index(struct slice line, uint64_t *out)
{
	if (!slice_has_prefix(line, index_key))
		return false;
	line = slice_sub(line, index_key.n, line.n);
	return slice_to_u64(line, out) == 0 && (line.n == 1 || line.p[0] != '0');
}

int
proof_parse(struct slice text, struct proof *out, struct err *err)
{
	struct slice rest = text, line;

	out->n = 0;
	if (text.n > PROOF_FILE_MAX || !next_line(&rest, &line) || !slice_equal(line, title))
		return err_set(err, "not a proof: wanted a first line \"%.*s\"", SLICE_ARG(title));
	if (!next_line(&rest, &line))
		return err_set(err, "proof: wanted an index");
	if (slice_has_prefix(line, extra_key) &&
	    (!is_base64(slice_sub(line, extra_key.n, line.n)) || !next_line(&rest, &line)))
		return err_set(err, "proof: the line \"extra\" holds no base64");
	if (!parse_index(line, &out->index))
		return err_set(err, "proof: wanted \"index\" and a number");
	while (next_line(&rest, &line)) {
		if (line.n == 0) {
			out->note = rest;
			return 0;
		}
		if (out->n == MERKLE_PROOF_MAX || base64_decode(line, out->hashes[out->n++].b,
						      MERKLE_HASH_SIZE) != MERKLE_HASH_SIZE)
			return err_set(err, "proof: wanted at most %d lines of 32 bytes in base64",
			    MERKLE_PROOF_MAX);
	}
	return err_set(err, "proof: wanted an empty line and a checkpoint");
}

enum proof_verdict
proof_check(const struct proof *p, struct slice line, const struct checkpoint_key *keys,
    size_t nkeys, struct checkpoint *out, struct err *err)
{
	enum checkpoint_verdict v = checkpoint_read(p->note, keys, nkeys, out, err);
	struct merkle_hash leaf;

	if (v != CHECKPOINT_GOOD) {
		err_prefix(err, "the proof's checkpoint");
		return v == CHECKPOINT_FORGED ? PROOF_WRONG : PROOF_UNKNOWN;
	}
	if (checkpoint_log(out->origin, keys, nkeys) == NULL) {
		err_set(err, "the proof's checkpoint is of %s, which is no log of this key",
		    out->origin);
		return PROOF_UNKNOWN;
	}
	merkle_leaf(line, &leaf);
	if (merkle_verify_inclusion(&leaf, p->index, out->size, p->hashes, p->n, &out->root))
		return PROOF_GOOD;
	err_set(err,
	    "the line is not entry %" PRIu64 " of the log %s: the proof does not lead from it to "
	    "the root that was signed",
	    p->index, out->origin);
	return PROOF_WRONG;
}
