/* keytrail verify: is the trail what was signed, and is all of it there? */
#include "cli/cli.h"
#include "cli/cli_files.h"
#include "keytrail/proof.h"
#include "keytrail/trail.h"
#include "keytrail/verify.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

enum { TRAIL = 1, PROOF = 2 };

struct verifying {
	const char *dir, *since, *anchors, *proof, *line;
	struct checkpoint_key keys[CLI_KEYS_MAX];
	size_t nkeys;
	bool json;
	struct buf since_text, proof_text, line_text;
	struct verify_report report;
};

/* ---- a trail ---- */

static const char *
verdict_word(enum verify_verdict v)
{
	static const char *const words[] = {
		[VERIFY_UNKNOWN] = "unknown", [VERIFY_YES] = "yes", [VERIFY_NO] = "no"
	};

	return words[v];
}

static const char *
kind_word(enum verify_kind k)
{
	static const char *const words[] = { [VERIFY_ALTERED] = "altered",
		[VERIFY_INCOMPLETE] = "incomplete",
		[VERIFY_CANNOT_TELL] = "cannot tell",
		[VERIFY_NOTE] = "note" };

	return words[k];
}

static enum cli_status
status_of(const struct verify_report *r)
{
	if (r->unaltered == VERIFY_NO)
		return CLI_ALTERED;
	if (r->complete == VERIFY_NO)
		return CLI_INCOMPLETE;
	if (r->cannot_tell || r->unaltered != VERIFY_YES || r->complete != VERIFY_YES)
		return CLI_FAILED;
	return CLI_OK;
}

static size_t
kept(const struct verify_report *r)
{
	return r->nfindings < VERIFY_FINDINGS_MAX ? r->nfindings : VERIFY_FINDINGS_MAX;
}

static void
print_text(const struct verify_report *r)
{
	printf(
	    "unaltered: %s\ncomplete:  %s", verdict_word(r->unaltered), verdict_word(r->complete));
	if (r->losses > 0)
		printf("%s with %" PRIu64 " accounted losses",
		    r->complete == VERIFY_YES ? ", gap-free," : ",", r->losses);
	putchar('\n');
	if (r->checkpoint.size > 0)
		printf("checkpoint of %s: %" PRIu64 " events; events %" PRIu64 " to %" PRIu64
		       " were looked at\n",
		    r->checkpoint.origin, r->checkpoint.size, r->first, r->last);
	if (r->expired > 0)
		printf("expired: events 1 to %" PRIu64 "\n", r->expired);
	if (r->lost > 0)
		printf("lost, as the log itself says: %" PRIu64 " events\n", r->lost);
	if (r->rotations > 0)
		printf("changes of the key: %" PRIu64 "\n", r->rotations);
	if (r->unsigned_lines > 0)
		printf("not signed yet: %" PRIu64 " events\n", r->unsigned_lines);
	if (r->anchors > 0)
		printf("agrees with %" PRIu64 " checkpoints kept elsewhere\n", r->anchors);
	for (size_t i = 0; i < kept(r); i++)
		printf("%s: %s\n", kind_word(r->findings[i].kind), r->findings[i].text);
	if (r->nfindings > kept(r))
		printf("and %zu findings more\n", r->nfindings - kept(r));
}

static int
print_json(const struct verify_report *r)
{
	json_t *findings = json_array();
	json_t *all;
	int rc = 0;

	for (size_t i = 0; i < kept(r); i++)
		rc |= json_array_append_new(
		    findings, json_pack("{s:s,s:s}", "kind", kind_word(r->findings[i].kind), "text",
				  r->findings[i].text));
	all = json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "unaltered",
	    verdict_word(r->unaltered), "complete", verdict_word(r->complete), "origin",
	    r->checkpoint.origin, "size", (json_int_t)r->checkpoint.size, "first",
	    (json_int_t)r->first, "last", (json_int_t)r->last, "expired", (json_int_t)r->expired,
	    "lost", (json_int_t)r->lost, "losses", (json_int_t)r->losses, "rotations",
	    (json_int_t)r->rotations, "unsigned", (json_int_t)r->unsigned_lines, "anchors",
	    (json_int_t)r->anchors, "findingsTotal", (json_int_t)r->nfindings, "findings",
	    findings);
	rc |= all != NULL ? json_dumpf(all, stdout, JSON_SORT_KEYS | JSON_COMPACT) : -1;
	json_decref(all);
	putchar('\n');
	return rc;
}

static int
verify_directory(struct verifying *v)
{
	struct verify_opts opts = {
		.dir = v->dir, .keys = v->keys, .nkeys = v->nkeys, .anchors_fd = -1
	};
	struct err err;
	int rc;

	if (v->since != NULL &&
	    cli_read_file(v->since, CHECKPOINT_NOTE_MAX, &v->since_text, &err) == -1)
		return cli_fail(CLI_FAILED, &err);
	if (v->anchors != NULL && (opts.anchors_fd = cli_open(v->anchors, &err)) == -1)
		return cli_fail(CLI_FAILED, &err);
	opts.since = buf_slice(&v->since_text);
	opts.has_since = v->since != NULL;
	rc = verify_trail(&opts, &v->report, &err);
	if (opts.anchors_fd != -1)
		close(opts.anchors_fd);
	if (rc == -1)
		return cli_fail(CLI_FAILED, &err);
	rc = 0;
	if (v->json)
		rc = print_json(&v->report);
	else
		print_text(&v->report);
	return cli_printed(rc == 0) == CLI_OK ? status_of(&v->report) : CLI_FAILED;
}

/* ---- a proof ---- */

/* The line of a proof that is good says of itself what the proof does: of a log with a base, entry i is
 * event base + i + 1. */
static int
judge_line(const struct verifying *v, const struct proof *proof, const struct checkpoint *cp,
    struct slice line, struct trail_member *m)
{
	const char *log = checkpoint_log(cp->origin, v->keys, v->nkeys);
	struct err err;

	if (trail_parse_line(line, m) == 0 && slice_equal(m->log, slice_of(log)) &&
	    m->seq > proof->index)
		return CLI_OK;
	err_set(&err,
	    "the line is entry %" PRIu64 " of the log %s, but it does not say so of itself",
	    proof->index, log);
	return cli_fail(CLI_ALTERED, &err);
}

static int
verify_proof(struct verifying *v)
{
	struct trail_member member = { .seq = 0 };
	struct checkpoint cp;
	struct proof proof;
	struct slice line;
	struct err err;
	int rc;

	if (cli_read_file(v->proof, PROOF_FILE_MAX, &v->proof_text, &err) == -1 ||
	    cli_read_file(v->line, (size_t)1 << 20, &v->line_text, &err) == -1 ||
	    proof_parse(buf_slice(&v->proof_text), &proof, &err) == -1)
		return cli_fail(CLI_FAILED, &err);
	line = buf_slice(&v->line_text);
	if (line.n > 0 && line.p[line.n - 1] == '\n')
		line.n--;
	switch (proof_check(&proof, line, v->keys, v->nkeys, &cp, &err)) {
	case PROOF_GOOD:
		break;
	case PROOF_UNKNOWN:
		return cli_fail(CLI_FAILED, &err);
	case PROOF_WRONG:
		return cli_fail(CLI_ALTERED, &err);
	}
	if ((rc = judge_line(v, &proof, &cp, line, &member)) != CLI_OK)
		return rc;
	if (v->json)
		printf("{\"event\":%" PRIu64 ",\"size\":%" PRIu64 ",\"unaltered\":\"yes\"}\n",
		    member.seq, cp.size);
	else
		printf("unaltered: yes\nevent %" PRIu64 " of the log %s (checkpoint of %" PRIu64
		       " events)\n",
		    member.seq, cp.origin, cp.size);
	return CLI_OK;
}

static int
read_keys(struct verifying *v, const struct cli_args *a, struct err *err)
{
	const char *key;
	size_t at = 0;

	while ((key = cli_next_value(a, "--key", &at)) != NULL)
		if (cli_read_keys(key, v->keys, &v->nkeys, err) == -1)
			return -1;
	return 0;
}

static int
verify(const struct cli_args *a)
{
	struct verifying v = {
		.dir = cli_value(a, "DIR"),
		.since = cli_value(a, "--since"),
		.anchors = cli_value(a, "--anchors"),
		.proof = cli_value(a, "--proof"),
		.line = cli_value(a, "--line"),
		.json = cli_value(a, "--json") != NULL,
	};
	struct err err;
	int rc;

	if (read_keys(&v, a, &err) == -1)
		return cli_fail(CLI_USAGE, &err);
	rc = v.proof != NULL ? verify_proof(&v) : verify_directory(&v);
	buf_fini(&v.since_text);
	buf_fini(&v.proof_text);
	buf_fini(&v.line_text);
	return rc;
}

const struct cli_command cli_verify = {
	.name = "verify",
	.help = "say whether a trail is what was signed and whether all of it is there; or whether "
		"one line is the one that was signed",
	.rows =
	    (const struct cli_row[]){
		{ "DIR", .help = "the trail's directory", .forms = TRAIL },
		{ "--proof", NULL, "FILE", "the proof of one line", 0, PROOF },
		{ "--line", NULL, "FILE", "the line; - is standard input", 0, PROOF },
		{ "--key", NULL, "VKEY|FILE", "a key that verifies, or a file of them", CLI_MANY,
		    0 },
		{ "--since", NULL, "CHECKPOINT",
		    "a checkpoint that was kept: what it covers must "
		    "still be there",
		    CLI_MAY, TRAIL },
		{ "--anchors", NULL, "FILE",
		    "checkpoints kept elsewhere, in lines of JSON or as notes", CLI_MAY, TRAIL },
		{ "--json", .help = "as JSON", .flags = CLI_MAY },
		{ 0 },
	    },
	.run = verify,
};
