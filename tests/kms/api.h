/*
 * api: Key Protect's API v2, as far as the stand-in offers it: (method, path, query, body) in, a
 * status and a JSON document out.  Knows nothing of sockets.
 */
#ifndef KMS_API_H
#define KMS_API_H

#include "keys.h"

struct evkeyvalq;

struct call {
	struct keystore *store;
	/* the request */
	const char *method;
	const char *path; /* raw */
	struct evkeyvalq *query;
	const char *instance; /* Bluemix-Instance */
	const char *ring;     /* X-Kms-Key-Ring, or NULL */
	bool representation;  /* Prefer: return=representation */
	json_t *body;	      /* or NULL */
	/* set while routing */
	char name[128];	  /* {id}, percent-decoded */
	char second[512]; /* the second parameter */
	struct key *key;
	/* the answer */
	int status;
	json_t *answer; /* or NULL: no body */
	size_t total;	/* of a list, for Key-Total */
	bool list;	/* answered chunked */
};

void api_answer(struct call *c);

/* An error in the service's own shape; the caller owns it. */
json_t *api_error(int status, const char *code, const char *message);

#endif
