/* keytrail degrade: break-glass, over the admin socket. */
#include "cli/cli.h"

#include "cli/cli_call.h"

#include <stdbool.h>
#include <stdio.h>

enum { BEGIN = 1, END = 2 };

static int
degrade(const struct cli_args *a)
{
	const struct cli_socket at = { cli_value(a, "FILE"), cli_value(a, "--socket"), 0 };
	bool end = cli_value(a, "--end") != NULL;
	struct buf form = BUF_INIT, answer = BUF_INIT;
	struct err err;
	int rc = CLI_OK;

	if (!end && (cli_form_add(&form, "for", cli_value(a, "--for")) == -1 ||
			cli_form_add(&form, "reason", cli_value(a, "--reason")) == -1)) {
		err_set(&err, "memory is short");
		rc = cli_fail(CLI_FAILED, &err);
	} else if (cli_call(&at, end ? "/degrade/end" : "/degrade", &form, &answer, &err) == -1) {
		rc = cli_fail(CLI_FAILED, &err);
	} else {
		fwrite(buf_slice(&answer).p, 1, buf_size(&answer), stdout);
	}
	buf_fini(&form);
	buf_fini(&answer);
	return rc;
}

const struct cli_command cli_degrade = {
	.name = "degrade",
	.help = "have a running sidecar serve every route as `async` for a while (break-glass), or "
		"end it",
	.rows =
	    (const struct cli_row[]){
		CLI_SIDECAR,
		{ "--for", NULL, "TIME", "for how long, with a unit: 30m", 0, BEGIN },
		{ "--reason", NULL, "TEXT", "why: it stands in the trail", 0, BEGIN },
		{ "--end", NULL, NULL, "end it before its time", 0, END },
		{ 0 },
	    },
	.run = degrade,
};
