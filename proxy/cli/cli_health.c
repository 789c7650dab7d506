/* keytrail health: is a running sidecar ready, as a container's health check wants to know it? */
#include "cli/cli.h"

#include "cli/cli_call.h"

#include <stdio.h>

#define PATIENCE_S 3

static int
health(const struct cli_args *a)
{
	const struct cli_socket at = { cli_value(a, "FILE"), cli_value(a, "--socket"), PATIENCE_S };
	struct buf answer = BUF_INIT;
	struct err err;
	int rc;

	if (cli_call_readiness(&at, &answer, &err) == -1) {
		rc = cli_fail(CLI_FAILED, &err);
	} else {
		fwrite(buf_slice(&answer).p, 1, buf_size(&answer), stdout);
		rc = cli_printed(true);
	}
	buf_fini(&answer);
	return rc;
}

const struct cli_command cli_health = {
	.name = "health",
	.help = "say whether a running sidecar is ready, within three seconds",
	.rows = (const struct cli_row[]){ CLI_SIDECAR, { 0 } },
	.run = health,
};
