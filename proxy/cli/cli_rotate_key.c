/* keytrail rotate-key: the statement by which the key of a trail hands over to another. */
#include "cli/cli.h"
#include "cli/cli_files.h"
#include "keytrail/file.h"
#include "keytrail/ledger.h"
#include "keytrail/rotation.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct rotating {
	const char *dir;
	int dirfd;
	struct checkpoint_signer *old, *new;
	struct checkpoint last;
	struct buf statement;
};

static struct checkpoint_signer *
read_signer(const char *path, struct err *err)
{
	struct checkpoint_signer *s = NULL;
	char text[CHECKPOINT_KEY_MAX + 1];
	ssize_t n;
	int fd;

	if ((fd = cli_open(path, err)) == -1)
		return NULL;
	if ((n = file_read(fd, text, sizeof(text), FILE_HERE)) == -1) {
		err_set_errno(err, "%s: read", path);
	} else {
		n -= n > 0 && text[n - 1] == '\n';
		if ((s = checkpoint_signer_parse((struct slice){ text, (size_t)n }, err)) == NULL)
			err_prefix(err, "%s", path);
	}
	explicit_bzero(text, sizeof(text));
	close(fd);
	return s;
}

/* Only the key that signs the trail now can hand over. */
static int
read_last(struct rotating *r, struct err *err)
{
	struct buf note = BUF_INIT;
	int rc = ledger_read_checkpoint(r->dirfd, &note, err);

	if (rc == 0)
		rc = err_set(err,
		    "%s: there is no checkpoint: nothing to hand over, give the new key as "
		    "\"audit.sign\"",
		    r->dir);
	else if (rc == 1 && checkpoint_read(buf_slice(&note), checkpoint_signer_key(r->old), 1,
				&r->last, err) == CHECKPOINT_GOOD)
		rc = 0;
	else if (rc == 1)
		rc = err_prefix(err, "%s: the checkpoint and the old key", r->dir);
	buf_fini(&note);
	return rc;
}

static int
rotate(struct rotating *r, const char *old, const char *new, struct err *err)
{
	if ((r->dirfd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: open", r->dir);
	if ((r->old = read_signer(old, err)) == NULL || (r->new = read_signer(new, err)) == NULL ||
	    read_last(r, err) == -1 ||
	    rotation_write(r->old, r->new, r->last.origin, &r->statement, err) == -1)
		return -1;
	if (file_replace(r->dirfd, "rotation", 0640, buf_slice(&r->statement), err) == -1)
		return err_prefix(err, "%s", r->dir);
	return 0;
}

static int
rotate_key(const struct cli_args *a)
{
	struct rotating r = { .dir = cli_value(a, "DIR"), .dirfd = -1 };
	char text[CHECKPOINT_KEY_MAX];
	struct err err;
	int rc = CLI_OK;

	if (rotate(&r, cli_value(a, "OLD"), cli_value(a, "NEW"), &err) == -1) {
		rc = cli_fail(CLI_FAILED, &err);
	} else {
		checkpoint_key_text(checkpoint_signer_key(r.new), text);
		printf("%s\n", text);
	}
	checkpoint_signer_free(r.old);
	checkpoint_signer_free(r.new);
	buf_fini(&r.statement);
	if (r.dirfd != -1)
		close(r.dirfd);
	return rc;
}

const struct cli_command cli_rotate_key = {
	.name = "rotate-key",
	.help = "let the key that signs a trail hand over to another at the next start with that "
		"one; print the key that verifies from then on",
	.rows =
	    (const struct cli_row[]){
		{ "DIR", .help = "the trail's directory" },
		{ "OLD", .help = "the file of the key that signs now" },
		{ "NEW", .help = "the file of the key that is to sign" },
		{ 0 },
	    },
	.run = rotate_key,
};
