#include "cli/harden.h"

#include "keytrail/pool.h"

#include <openssl/crypto.h>

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
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

/* OpenSSL takes room for a record with each read and write, and gives it back after it. */
#define RECORD_ROOM_MIN	  16384
#define RECORD_ROOM	  17408
#define RECORD_ROOM_SLACK 16 /* what the C library gives on top */

/* What is kept of it.  OpenSSL tells its allocator nothing but sizes, so this cannot be anybody's. */
static _Thread_local struct pool records = { .size = RECORD_ROOM };

static void *
allocate(size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	if (n > RECORD_ROOM_MIN && n <= RECORD_ROOM)
		return pool_take(&records);
	return n > 0 ? malloc(n) : NULL;
}

/* Records are decrypted in place in buffers that OpenSSL frees as they are.  Its own
 * SSL_OP_CLEANSE_PLAINTEXT wipes them too, six times as slowly. */
static void
wipe_and_free(void *p, const char *file, int line)
{
	size_t n = malloc_usable_size(p);

	(void)file;
	(void)line;
	if (p != NULL)
		explicit_bzero(p, n);
	if (n >= RECORD_ROOM && n < RECORD_ROOM + RECORD_ROOM_SLACK)
		pool_give(&records, p);
	else
		free(p);
}

int
harden_process(struct err *err)
{
	const struct rlimit none = { 0, 0 };

	if (CRYPTO_set_mem_functions(allocate, NULL, wipe_and_free) != 1)
		return err_set(err, "cannot make OpenSSL wipe what it frees");
	/* The limit does not bind a core_pattern that is a pipe. */
	if (setrlimit(RLIMIT_CORE, &none) == -1 || prctl(PR_SET_DUMPABLE, DUMPABLE) == -1)
		return err_set_errno(err, "cannot turn core dumps off");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return err_set_errno(err, "cannot give up new privileges");
	return 0;
}
