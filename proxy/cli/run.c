#include "cli/cli.h"

#include "cli/server.h"
#include "keytrail/config.h"

#include <stdio.h>

int
cli_run(int argc, char **argv)
{
	struct config *config;
	struct err err;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: keytrail run FILE\n");
		return CLI_USAGE;
	}
	if (config_load(argv[1], NULL, &config, &err) == -1) {
		fprintf(stderr, "keytrail: %s\n", err.msg);
		return CLI_CONFIG;
	}
	rc = server_run(config, &err);
	config_unref(config);
	if (rc != CLI_OK)
		fprintf(stderr, "keytrail: %s\n", err.msg);
	return rc;
}
