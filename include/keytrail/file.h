/*
 * file: files that are read, written and replaced whole.
 *
 * read(2) and write(2) may do a part, or nothing because of a signal; these go on.  `at` is an offset, or
 * FILE_HERE: where the descriptor stands, with O_APPEND the end.  Any thread.
 */
#ifndef KEYTRAIL_FILE_H
#define KEYTRAIL_FILE_H

#include "keytrail/buf.h"
#include "keytrail/err.h"
#include "keytrail/slice.h"

#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define FILE_HERE (-1)

/* How many of n bytes there are before the end; -1 and errno. */
ssize_t file_read(int fd, void *p, size_t n, off_t at);

/* 0; -1 and errno: some may be written. */
int file_write(int fd, const void *p, size_t n, off_t at);

/* The file has n bytes at least, and room on the disk for them: 0; -1 and errno. */
int file_reserve(int fd, off_t n);

/* At most max bytes into out: 1; 0: there is no such file. */
int file_load(int dirfd, const char *name, size_t max, struct buf *out, struct err *err);

/* Open a regular file of at most max bytes to be read, by way of links, too: the descriptor, or -1. */
int file_open_regular(const char *path, size_t max, struct stat *st, struct err *err);

/* A secret: such a file of at most FILE_SECRET_MAX bytes that is not open to everybody.  (A mounted
 * Secret of Kubernetes is made of links.) */
#define FILE_SECRET_MAX 4096
int file_load_secret(const char *path, struct buf *out, struct err *err);

/* By way of <name>.new, synced with its folder: whoever looks finds the old text or the new one. */
int file_replace(int dirfd, const char *name, mode_t mode, struct slice text, struct err *err);

/* Mix in what tells one content of the file from another, and from none; NULL: nothing.  Begin with
 * FILE_STAMP_INIT. */
#define FILE_STAMP_INIT UINT64_C(0xcbf29ce484222325)
void file_stamp(uint64_t *stamp, const char *path);

#endif
