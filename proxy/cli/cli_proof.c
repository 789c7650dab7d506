/* keytrail proof: one event, and the proof that it is in the log. */
#include "cli/cli.h"
#include "cli/cli_files.h"
#include "keytrail/prove.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int
write_files(const char *prefix, struct prove *p, struct err *err)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s.json", prefix);
	if (buf_append(&p->line, "\n", 1) == -1)
		return err_set_errno(err, "%s", path);
	if (cli_write_new(path, 0640, buf_slice(&p->line), err) == -1)
		return -1;
	printf("%s\n", path);
	snprintf(path, sizeof(path), "%s.tlog-proof", prefix);
	if (cli_write_new(path, 0640, buf_slice(&p->text), err) == -1)
		return -1;
	printf("%s\n", path);
	return 0;
}

static int
prove_and_write(const char *dir, uint64_t seq, const char *prefix, struct prove *p, struct err *err)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum prove_result result;

	if (dirfd == -1)
		return err_set_errno(err, "%s: open", dir);
	result = prove_event(dirfd, seq, p, err);
	close(dirfd);
	return result != PROVE_DONE ? err_prefix(err, "%s", dir) : write_files(prefix, p, err);
}

static int
proof(const struct cli_args *a)
{
	const char *text = cli_value(a, "SEQ"), *given = cli_value(a, "PREFIX");
	struct prove p = { .covered = 0 };
	char prefix[4000];
	uint64_t seq;
	struct err err;
	int rc;

	if (slice_to_u64(slice_of(text), &seq) == -1 || seq == 0)
		return cli_usage(a, "SEQ is the number of an event, 1 or more");
	snprintf(prefix, sizeof(prefix), given != NULL ? "%s" : "event-%s",
	    given != NULL ? given : text);
	rc = prove_and_write(cli_value(a, "DIR"), seq, prefix, &p, &err) == 0
		 ? CLI_OK
		 : cli_fail(CLI_FAILED, &err);
	prove_fini(&p);
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
