/*
 * cli_files: what the commands about keys, proofs and verification read and write.
 */
#ifndef KEYTRAIL_CLI_FILES_H
#define KEYTRAIL_CLI_FILES_H

#include "keytrail/buf.h"
#include "keytrail/checkpoint.h"

#define CLI_KEYS_MAX 16

/* For reading ("-": standard input). */
int cli_open(const char *path, struct err *err);
/* The whole file, at most max bytes. */
int cli_read_file(const char *path, size_t max, struct buf *out, struct err *err);
/* A new file of this mode, synced; never one that is there. */
int cli_write_new(const char *path, unsigned mode, struct slice text, struct err *err);

/* Add the verifier keys of an argument: a key's text, or a file with one a line. */
int cli_read_keys(
    const char *arg, struct checkpoint_key keys[CLI_KEYS_MAX], size_t *n, struct err *err);

#endif
