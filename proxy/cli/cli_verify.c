/* keytrail verify: is the trail what was signed, and is all of it there? */
#include "cli/cli.h"
#include "cli/cli_files.h"
#include "keytrail/delivered.h"
#include "keytrail/proof.h"
#include "keytrail/trail.h"
#include "keytrail/verify.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TRAIL = 1, PROOF = 2, DELIVERED = 4 };

struct verifying {
	const char *dir, *since, *anchors, *proof, *line, *delivered;
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

static json_t *
to_json(const struct verify_report *r)
{
	json_t *findings = json_array();

	for (size_t i = 0; i < kept(r); i++)
		json_array_append_new(
		    findings, json_pack("{s:s,s:s}", "kind", kind_word(r->findings[i].kind), "text",
				  r->findings[i].text));
	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "unaltered",
	    verdict_word(r->unaltered), "complete", verdict_word(r->complete), "origin",
	    r->checkpoint.origin, "size", (json_int_t)r->checkpoint.size, "first",
	    (json_int_t)r->first, "last", (json_int_t)r->last, "expired", (json_int_t)r->expired,
	    "lost", (json_int_t)r->lost, "losses", (json_int_t)r->losses, "rotations",
	    (json_int_t)r->rotations, "unsigned", (json_int_t)r->unsigned_lines, "anchors",
	    (json_int_t)r->anchors, "findingsTotal", (json_int_t)r->nfindings, "findings",
	    findings);
}

static int
print_json(json_t *all)
{
	int rc = all != NULL ? json_dumpf(all, stdout, JSON_SORT_KEYS | JSON_COMPACT) : -1;

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
		rc = print_json(to_json(&v->report));
	else
		print_text(&v->report);
	return cli_printed(rc == 0) == CLI_OK ? status_of(&v->report) : CLI_FAILED;
}

/* ---- what was delivered ---- */

/* Of all logs; the worst of them decides. */
struct telling {
	json_t *logs; /* NULL: as text */
	size_t n;
	enum cli_status status;
};

static enum cli_status
worse(enum cli_status a, enum cli_status b)
{
	static const enum cli_status order[] = { CLI_ALTERED, CLI_INCOMPLETE, CLI_FAILED };

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (a == order[i] || b == order[i])
			return order[i];
	return CLI_OK;
}

static json_t *
log_to_json(const struct delivered_log *l)
{
	json_t *all = to_json(&l->report);

	json_object_set_new(all, "log", json_string(l->id));
	json_object_set_new(all, "events", json_integer((json_int_t)l->events));
	json_object_set_new(all, "repeated", json_integer((json_int_t)l->repeated));
	json_object_set_new(all, "stubs", json_integer((json_int_t)l->stubs));
	json_object_set_new(all, "lastAt", json_string(l->last_at));
	return all;
}

static int
tell_log(void *arg, const struct delivered_log *l)
{
	struct telling *t = arg;

	t->n++;
	t->status = worse(t->status, status_of(&l->report));
	if (t->logs != NULL)
		return json_array_append_new(t->logs, log_to_json(l));
	printf("log %s: %" PRIu64 " events, %" PRIu64 " to %" PRIu64 " (%s), %" PRIu64
	       " repeated, %" PRIu64 " stubs\n",
	    l->id, l->events, l->report.first, l->report.last, l->last_at, l->repeated, l->stubs);
	print_text(&l->report);
	return 0;
}

/* Each line; *foreign counts those that are no events. */
static int
take_lines(struct delivered *d, FILE *in, uint64_t *foreign, struct err *err)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int rc = 0;

	while (rc != -1 && (n = getline(&line, &cap, in)) > 0) {
		struct slice text = { line, (size_t)n - (line[n - 1] == '\n') };

		rc = delivered_take(d, text, err);
		*foreign += rc == 0;
	}
	if (rc != -1 && ferror(in))
		rc = err_set_errno(err, "read what was delivered");
	free(line);
	return rc == -1 ? -1 : 0;
}

static int
judge_delivered(const struct verifying *v, struct delivered *d, uint64_t foreign)
{
	struct telling t = { v->json ? json_array() : NULL, 0, CLI_OK };
	int rc = delivered_judge(d, tell_log, &t);

	if (foreign > 0 || t.n == 0)
		t.status = worse(t.status, CLI_FAILED);
	if (v->json)
		rc |= print_json(
		    json_pack("{s:I,s:o}", "foreign", (json_int_t)foreign, "logs", t.logs));
	else if (foreign > 0)
		printf("cannot tell: %" PRIu64 " lines are no events as sinks deliver them\n",
		    foreign);
	return cli_printed(rc == 0) == CLI_OK ? t.status : CLI_FAILED;
}

static int
verify_delivered(const struct verifying *v)
{
	struct delivered *d = delivered_new(v->keys, v->nkeys);
	uint64_t foreign = 0;
	FILE *in = NULL;
	struct err err;
	int fd, rc = -1;

	if (d == NULL)
		err_set(&err, "memory is short");
	else if ((fd = cli_open(v->delivered, &err)) != -1 && (in = fdopen(fd, "r")) == NULL)
		err_set_errno(&err, "%s", v->delivered);
	else if (in != NULL)
		rc = take_lines(d, in, &foreign, &err);
	rc = rc == -1 ? cli_fail(CLI_FAILED, &err) : (int)judge_delivered(v, d, foreign);
	if (in != NULL)
		fclose(in);
	delivered_free(d);
	return rc;
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
		.delivered = cli_value(a, "--delivered"),
		.json = cli_value(a, "--json") != NULL,
	};
	struct err err;
	int rc;

	if (read_keys(&v, a, &err) == -1)
		return cli_fail(CLI_USAGE, &err);
	rc = v.delivered != NULL ? verify_delivered(&v)
	     : v.proof != NULL	 ? verify_proof(&v)
				 : verify_directory(&v);
	buf_fini(&v.since_text);
	buf_fini(&v.proof_text);
	buf_fini(&v.line_text);
	return rc;
}

const struct cli_command cli_verify = {
	.name = "verify",
	.help =
	    "say whether a trail is what was signed and whether all of it is there; whether one "
	    "line is the one that was signed; or both of what sinks delivered",
	.rows =
	    (const struct cli_row[]){
		{ "DIR", .help = "the trail's directory", .forms = TRAIL },
		{ "--proof", NULL, "FILE", "the proof of one line", 0, PROOF },
		{ "--line", NULL, "FILE", "the line; - is standard input", 0, PROOF },
		{ "--delivered", NULL, "FILE",
		    "events as a sink delivered them, a line each, of any logs and in any order; - "
		    "is standard input",
		    0, DELIVERED },
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
