#include "keytrail/prove.h"

#include "keytrail/ledger.h"
#include "keytrail/proof.h"
#include "keytrail/tiles.h"
#include "keytrail/trail.h"

#include <inttypes.h>

static enum prove_result
read_line(int dirfd, uint64_t seq, struct buf *out, struct err *err)
{
	enum prove_result result = PROVE_FAILED;
	struct trail_reader *r;
	struct slice line;
	uint64_t found = 0;
	int rc;

	if (trail_reader_open_at(dirfd, seq, &r, err) == -1)
		return PROVE_FAILED;
	rc = trail_reader_next(r, &line, &found, err);
	if (rc == 0 || (rc == 1 && found != seq)) {
		err_set(err, "event %" PRIu64 " has no line", seq);
		result = PROVE_NO_LINE;
	} else if (rc == 1 && buf_append_slice(out, line) == -1) {
		err_set_errno(err, "event %" PRIu64, seq);
	} else if (rc == 1) {
		result = PROVE_DONE;
	}
	trail_reader_close(r);
	return result;
}

static enum prove_result
read_checkpoint(
    int dirfd, struct buf *note, struct checkpoint *cp, struct trail_log *log, struct err *err)
{
	int rc = ledger_read_checkpoint(dirfd, note, err);

	if (rc == 0) {
		err_set(err, "there is no checkpoint");
		return PROVE_UNSIGNED;
	}
	if (rc == 1 && !checkpoint_peek(buf_slice(note), cp))
		rc = err_set(err, "the checkpoint is none");
	return rc == 1 && trail_read_log(dirfd, log, err) == 0 ? PROVE_DONE : PROVE_FAILED;
}

static enum prove_result
find_place(uint64_t seq, const struct checkpoint *cp, const struct trail_log *log, struct err *err)
{
	if (seq <= log->base) {
		err_set(err,
		    "event %" PRIu64 " is of an earlier log: this one begins with event %" PRIu64,
		    seq, log->base + 1);
		return PROVE_NO_LINE;
	}
	if (seq > log->base + cp->size) {
		err_set(err, "event %" PRIu64 " is not signed yet: the checkpoint covers %" PRIu64,
		    seq, log->base + cp->size);
		return PROVE_UNSIGNED;
	}
	return PROVE_DONE;
}

static int
write_proof(int dirfd, uint64_t seq, const struct checkpoint *cp, struct proof *proof,
    struct prove *out, struct err *err)
{
	struct tiles files = { dirfd };
	struct merkle_source source = { cp->size, tiles_read, &files };
	struct merkle_hash leaf;

	if (merkle_prove_inclusion(
		&source, proof->index, cp->size, proof->hashes, &proof->n, err) == -1)
		return -1;
	merkle_leaf(buf_slice(&out->line), &leaf);
	if (!merkle_verify_inclusion(
		&leaf, proof->index, cp->size, proof->hashes, proof->n, &cp->root))
		return err_set(err,
		    "event %" PRIu64 " is not the line that was signed, or the tiles are damaged: "
		    "\"keytrail verify\" tells",
		    seq);
	return proof_write(proof, &out->text, err);
}

enum prove_result
prove_event(int dirfd, uint64_t seq, struct prove *out, struct err *err)
{
	struct buf note = BUF_INIT;
	struct checkpoint cp = { 0 };
	struct trail_log log = { .base = 0 };
	enum prove_result result = read_line(dirfd, seq, &out->line, err);

	if (result == PROVE_DONE)
		result = read_checkpoint(dirfd, &note, &cp, &log, err);
	out->covered = cp.size > 0 ? log.base + cp.size : 0;
	if (result == PROVE_DONE)
		result = find_place(seq, &cp, &log, err);
	if (result == PROVE_DONE) {
		struct proof proof = { .index = seq - 1 - log.base, .note = buf_slice(&note) };

		if (write_proof(dirfd, seq, &cp, &proof, out, err) == -1)
			result = PROVE_FAILED;
	}
	buf_fini(&note);
	return result;
}

void
prove_fini(struct prove *p)
{
	buf_fini(&p->line);
	buf_fini(&p->text);
}
