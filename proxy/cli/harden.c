#include "cli/harden.h"

#include "keytrail/records.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define DUMPABLE 1
#else
#define DUMPABLE 0
#endif

int
harden_again(struct err *err)
{
	if (prctl(PR_SET_DUMPABLE, DUMPABLE) == -1)
		return err_set_errno(err, "cannot turn core dumps off");
	return 0;
}

int
harden_process(struct err *err)
{
	const struct rlimit none = { 0, 0 };

	if (records_install() == -1)
		return err_set(err, "cannot make OpenSSL wipe what it frees, or memory is short");
	/* The limit does not bind a core_pattern that is a pipe. */
	if (setrlimit(RLIMIT_CORE, &none) == -1)
		return err_set_errno(err, "cannot turn core dumps off");
	if (harden_again(err) == -1)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return err_set_errno(err, "cannot give up new privileges");
	return 0;
}
