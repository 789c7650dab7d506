/* keytrail proof: one event, and the proof that it is in the log. */
#include "cli/cli.h"
#include "cli/cli_files.h"
#include "keytrail/ledger.h"
#include "keytrail/proof.h"
#include "keytrail/tiles.h"
#include "keytrail/trail.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

struct proving {
	const char *dir;
	uint64_t seq;
	char prefix[4000];
	struct tiles files;
	struct buf note, text, line;
	struct checkpoint cp;
	struct trail_log log;
};

static int
read_checkpoint(struct proving *p, struct err *err)
{
	int rc = ledger_read_checkpoint(p->files.dirfd, &p->note, err);

	if (rc == -1)
		return -1;
	if (rc == 0)
		return err_set(err, "%s: there is no checkpoint", p->dir);
	if (!checkpoint_peek(buf_slice(&p->note), &p->cp))
		return err_set(err, "%s: the checkpoint is none", p->dir);
	if (trail_read_log(p->files.dirfd, &p->log, err) == -1)
		return err_prefix(err, "%s", p->dir);
	if (p->seq <= p->log.base)
		return err_set(err,
		    "event %" PRIu64 " is of an earlier log: this one begins with event %" PRIu64,
		    p->seq, p->log.base + 1);
	if (p->seq > p->log.base + p->cp.size)
		return err_set(err,
		    "event %" PRIu64 " is not signed yet: the checkpoint covers %" PRIu64, p->seq,
		    p->log.base + p->cp.size);
	return 0;
}

static int
read_line(struct proving *p, struct err *err)
{
	struct trail_reader *r;
	struct slice line;
	uint64_t seq = 0;
	int rc;

	if (trail_reader_open(p->dir, p->seq, &r, err) == -1)
		return -1;
	rc = trail_reader_next(r, &line, &seq, err);
	if (rc == 1 && seq == p->seq) {
		if ((rc = buf_append_slice(&p->line, line)) == -1)
			err_set_errno(err, "event %" PRIu64, p->seq);
	} else if (rc != -1)
		rc = err_set(err, "event %" PRIu64 " has no line", p->seq);
	trail_reader_close(r);
	return rc;
}

static int
prove(struct proving *p, struct err *err)
{
	struct merkle_source source = { p->cp.size, tiles_read, &p->files };
	struct proof proof = { .index = p->seq - 1 - p->log.base, .note = buf_slice(&p->note) };
	struct merkle_hash leaf;

	if (merkle_prove_inclusion(&source, proof.index, p->cp.size, proof.hashes, &proof.n, err) ==
	    -1)
		return -1;
	merkle_leaf(buf_slice(&p->line), &leaf);
	if (!merkle_verify_inclusion(
		&leaf, proof.index, p->cp.size, proof.hashes, proof.n, &p->cp.root))
		return err_set(err,
		    "event %" PRIu64 " is not the line that was signed, or the tiles are damaged: "
		    "\"keytrail verify\" tells",
		    p->seq);
	return proof_write(&proof, &p->text, err);
}

static int
write_files(struct proving *p, struct err *err)
{
	char path[sizeof(p->prefix) + 16];

	snprintf(path, sizeof(path), "%s.json", p->prefix);
	if (buf_append(&p->line, "\n", 1) == -1)
		return err_set_errno(err, "%s", path);
	if (cli_write_new(path, 0640, buf_slice(&p->line), err) == -1)
		return -1;
	printf("%s\n", path);
	snprintf(path, sizeof(path), "%s.tlog-proof", p->prefix);
	if (cli_write_new(path, 0640, buf_slice(&p->text), err) == -1)
		return -1;
	printf("%s\n", path);
	return 0;
}

static int
proof(const struct cli_args *a)
{
	const char *seq = cli_value(a, "SEQ"), *prefix = cli_value(a, "PREFIX");
	struct proving p = { .dir = cli_value(a, "DIR"), .files = { -1 } };
	struct err err;
	int rc = CLI_FAILED;

	if (slice_to_u64(slice_of(seq), &p.seq) == -1 || p.seq == 0)
		return cli_usage(a, "SEQ is the number of an event, 1 or more");
	snprintf(p.prefix, sizeof(p.prefix), prefix != NULL ? "%s" : "event-%s",
	    prefix != NULL ? prefix : seq);
	if ((p.files.dirfd = open(p.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		err_set_errno(&err, "%s: open", p.dir);
	else if (read_checkpoint(&p, &err) == 0 && read_line(&p, &err) == 0 &&
		 prove(&p, &err) == 0 && write_files(&p, &err) == 0)
		rc = CLI_OK;
	if (rc != CLI_OK)
		cli_fail(CLI_FAILED, &err);
	if (p.files.dirfd != -1)
		close(p.files.dirfd);
	buf_fini(&p.note);
	buf_fini(&p.text);
	buf_fini(&p.line);
	return rc;
}

const struct cli_command cli_proof = {
	.name = "proof",
	.help = "write an event and the proof that it is in the log",
	.rows =
	    (const struct cli_row[]){
		{ "DIR", .help = "the trail's directory" },
		{ "SEQ", .help = "the number of the event" },
		{ "PREFIX", .help = "of the files: PREFIX.json and PREFIX.tlog-proof (event-SEQ)",
		    .flags = CLI_MAY },
		{ 0 },
	    },
	.run = proof,
};
