#include "cli/cli.h"

#include <event2/event.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <stdio.h>

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static int
version(const struct cli_args *a)
{
	(void)a;
	printf("keytrail %s\n", KEYTRAIL_VERSION);
	printf("compiler %s\n", COMPILER);
	printf("OpenSSL %s\n", OpenSSL_version(OPENSSL_VERSION_STRING));
	printf("libevent %s\n", event_get_version());
	printf(
	    "llhttp %d.%d.%d\n", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
	return CLI_OK;
}

const struct cli_command cli_version = {
	.name = "version",
	.alias = "--version",
	.help = "print the versions of keytrail and of what it is built with",
	.rows = (const struct cli_row[]){ { 0 } },
	.run = version,
};
