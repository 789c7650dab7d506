/*
 * tempdir: a directory of a test's own under $TMPDIR, and its removal.
 */
#ifndef KEYTRAIL_TEST_TEMPDIR_H
#define KEYTRAIL_TEST_TEMPDIR_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPDIR_SIZE 256

static inline int
tempdir_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void
tempdir_remove(const char *dir)
{
	nftw(dir, tempdir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void
tempdir_make(char dir[TEMPDIR_SIZE])
{
	const char *base = getenv("TMPDIR");

	snprintf(dir, TEMPDIR_SIZE, "%s/keytrail-test-XXXXXX", base != NULL ? base : "/tmp");
	if (mkdtemp(dir) == NULL) {
		perror(dir);
		abort();
	}
}

#endif
