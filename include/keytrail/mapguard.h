/*
 * mapguard: a file that is mapped may be cut by somebody, and the process goes on.
 *
 * An access to a mapped page that its file has no more is a SIGBUS.  For memory that is registered
 * here the handler gives the files their length and their room back and lets the access go on: it
 * meets zeros.  The owner asks mapguard_was_cut, puts right what must not be zeros, and says what
 * happened.  Where there is no room, after MAPGUARD_TIMES, and for any other SIGBUS the process dies
 * of it.  A thread that blocks SIGBUS dies of it too.
 */
#ifndef KEYTRAIL_MAPGUARD_H
#define KEYTRAIL_MAPGUARD_H

#include "keytrail/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MAPGUARD_MAX   512  /* pieces of memory; what is registered beyond is not guarded */
#define MAPGUARD_TIMES 1000 /* how often a process is saved */
#define MAPGUARD_NONE  (-1)

/* Handle SIGBUS, process-wide and for good. */
int mapguard_install(struct err *err);

/* n bytes at base are of this file, which has `size` bytes.  The descriptor stays the caller's, open
 * until mapguard_remove; -1: somebody else registers the file.  The index, or MAPGUARD_NONE.  Any
 * thread. */
int mapguard_add(const void *base, size_t n, int fd, off_t size);
void mapguard_remove(int index); /* before the memory is unmapped; MAPGUARD_NONE is allowed */
/* The file was found cut, and mended, since this was last asked.  Any thread. */
bool mapguard_was_cut(int index);

#endif
