#include "cli/cli.h"

#include "cli/server.h"
#include "keytrail/config.h"

int
cli_run(int argc, char **argv)
{
	static const enum cli_status exit_codes[] = {
		[SERVER_STOPPED] = CLI_OK,
		[SERVER_FAILED] = CLI_FAILED,
		[SERVER_MISCONFIGURED] = CLI_CONFIG,
	};
	struct config *config;
	struct err err;
	enum server_result r;

	if (argc != 2)
		return cli_usage("run", "wanted one FILE");
	if (config_load(argv[1], NULL, &config, &err) == -1)
		return cli_fail(CLI_CONFIG, &err);
	r = server_run(config, &err);
	config_unref(config);
	return r == SERVER_STOPPED ? CLI_OK : cli_fail(exit_codes[r], &err);
}
