#include "cli/cli.h"

#include "cli/server.h"
#include "keytrail/config.h"

static int
run(const struct cli_args *a)
{
	static const enum cli_status exit_codes[] = {
		[SERVER_STOPPED] = CLI_OK,
		[SERVER_FAILED] = CLI_FAILED,
		[SERVER_MISCONFIGURED] = CLI_CONFIG,
	};
	struct config *config;
	struct err err;
	enum server_result r;

	if (config_load(cli_value(a, "FILE"), NULL, &config, &err) == -1)
		return cli_fail(CLI_CONFIG, &err);
	r = server_run(config, cli_value(a, "--takeover") != NULL, &err);
	config_unref(config);
	return r == SERVER_STOPPED ? CLI_OK : cli_fail(exit_codes[r], &err);
}

const struct cli_command cli_run = {
	.name = "run",
	.help = "run the sidecar with this routes file, until TERM",
	.rows = (const struct cli_row[]){ CLI_ROUTES_FILE(),
	    { "--takeover",
		.help =
		    "take the listeners and the trail over from the sidecar that runs with this "
		    "routes file's trail, without an end of service; where none runs, start",
		.flags = CLI_MAY },
	    { 0 } },
	.run = run,
};
