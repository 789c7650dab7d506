/* keytrail keygen: a new key that signs checkpoints. */
#include "cli/cli.h"
#include "cli/cli_files.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Whoever may write the trail must not find the key beside it. */
static bool
is_in_trail(const char *path)
{
	char folder[4096], file[4200];

	if (strlen(path) >= sizeof(folder))
		return false;
	memcpy(folder, path, strlen(path) + 1);
	snprintf(file, sizeof(file), "%s/state", dirname(folder));
	return access(file, F_OK) == 0;
}

static int
make_key(const char *path, const char *name, struct err *err)
{
	char secret[CHECKPOINT_KEY_MAX + 1], text[CHECKPOINT_KEY_MAX];
	struct checkpoint_signer *s;
	int rc = -1;

	if (checkpoint_signer_make(name, secret, err) == -1)
		return -1;
	if ((s = checkpoint_signer_parse(slice_of(secret), err)) != NULL) {
		strcat(secret, "\n");
		rc = cli_write_new(path, 0600, slice_of(secret), err);
		checkpoint_key_text(checkpoint_signer_key(s), text);
	}
	explicit_bzero(secret, sizeof(secret));
	checkpoint_signer_free(s);
	if (rc == 0)
		printf("%s\n", text);
	return rc;
}

static int
keygen(const struct cli_args *a)
{
	const char *file = cli_value(a, "FILE");
	struct err err;

	if (is_in_trail(file)) {
		err_set(&err,
		    "%s: this is a trail's directory; the key that signs it belongs elsewhere",
		    file);
		return cli_fail(CLI_FAILED, &err);
	}
	if (make_key(file, cli_value(a, "NAME"), &err) == -1)
		return cli_fail(CLI_FAILED, &err);
	return CLI_OK;
}

const struct cli_command cli_keygen = {
	.name = "keygen",
	.help = "make a key that signs the trail's checkpoints; print the key that verifies them",
	.rows =
	    (const struct cli_row[]){
		{ "FILE", .help = "where the secret key is written; not in the trail's directory" },
		{ "NAME", .help = "of the key, and of the log that it signs" },
		{ 0 },
	    },
	.run = keygen,
};
