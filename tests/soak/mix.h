/*
 * mix: what the load generator asks, a table with a weight for each kind of call.
 *
 * Every call ends as one line of the caller's file: "<correlation id> <status>", status 0 when the
 * client went away on purpose before it read the answer.
 */
#ifndef SOAK_MIX_H
#define SOAK_MIX_H

#include "client.h"

#include <stdio.h>

#define MIX_STATUSES 600

struct mix_opts {
	unsigned number;   /* of the connection; no two are alike */
	const char *token; /* a bearer token that the key service accepts */
	const char *out;   /* folder for the file */
};

struct mix {
	struct client client;
	struct mix_opts opts;
	FILE *out;
	uint64_t random, calls, faults, aborted;
	uint64_t statuses[MIX_STATUSES];
	int64_t refused_at;
	char key[37];	       /* of a root key of our own */
	char plain[64];	       /* base64 */
	char ciphertext[4096]; /* of plain under key; "" when there is none */
	char id[37];	       /* that was sent with the last call; "" when none was */
};

int mix_init(
    struct mix *m, const struct mix_opts *opts, SSL_CTX *ctx, const struct sockaddr_in *address);
/* Make the key that the other calls need; -1 when that does not work. */
int mix_begin(struct mix *m);
/* One call, chosen at random. */
void mix_step(struct mix *m);
/* Flush the file. */
void mix_fini(struct mix *m);

#endif
