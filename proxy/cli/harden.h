/*
 * harden: what the process gives up so that its memory stays its own.
 *
 * From then on it leaves no core dump and cannot be traced or read by its own user (only with
 * CAP_SYS_PTRACE: so gdb, strace and perf need root), it never gains privileges, and what OpenSSL
 * frees is wiped.  Built with AddressSanitizer it stays traceable, since LeakSanitizer traces it.
 */
#ifndef KEYTRAIL_PROXY_HARDEN_H
#define KEYTRAIL_PROXY_HARDEN_H

#include "keytrail/err.h"

/* Before the first secret is read, and before OpenSSL has allocated anything. */
int harden_process(struct err *err);
/* Once the process has become another user, which makes it as dumpable as the system says. */
int harden_again(struct err *err);

#endif
