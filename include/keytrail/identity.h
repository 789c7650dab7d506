/*
 * identity: who asks, read from the claims of a bearer token (RFC 6750, RFC 7519) without checking
 * its signature.
 *
 * The claims are hearsay until the key service answers 2xx; the event says so (verifiedBy).  Only
 * the claims in the struct are read; personal ones (given_name, family_name, email) are stepped
 * over.  No allocation: base64url is decoded into a buffer on the stack that is wiped.  Pure.
 */
#ifndef KEYTRAIL_IDENTITY_H
#define KEYTRAIL_IDENTITY_H

#include "keytrail/keyhash.h"
#include "keytrail/slice.h"

#include <stdbool.h>

enum identity_state {
	IDENTITY_NONE,	     /* no Authorization header */
	IDENTITY_TOKEN,	     /* claims parsed */
	IDENTITY_UNPARSABLE, /* not a bearer token, its claims do not parse or name one twice */
	IDENTITY_CERTIFICATE /* a verified client certificate */
};

enum identity_kind { IDENTITY_USER, IDENTITY_SERVICE_ID, IDENTITY_PROFILE, IDENTITY_CLIENT_CERT };

/* Strings are scrubbed already: they fit their grammar or are "[redacted]". */
struct identity {
	enum identity_state state;
	enum identity_kind kind;
	char iam_id[129];   /* iam_id */
	char name[257];	    /* sub, or the certificate's name */
	char other[257];    /* the certificate's subject beside a URI, else an alternative name */
	char authn_id[129]; /* authn.iam_id */
	char account[33];   /* account.bss */
	char grant[65];	    /* grant_type */
};

#define IDENTITY_TOKEN_MAX 8192 /* bytes of a token; longer ones are unparsable */

/* From the value of Authorization; pass a slice with p == NULL when there is no such header. */
void identity_from_authorization(struct slice value, struct identity *out);

/*
 * What the newest tokens said: a client sends the same one with many requests.  A token is known by
 * its keyed hash, so that none is kept, and what it said for two calls of identity_memo_age at most.
 * One thread's.
 */
#define IDENTITY_MEMO_ROWS 64

struct identity_memo {
	struct keyhash *hash;
	struct identity_row {
		bool used, named, old;
		uint64_t hash[2];
		struct identity identity;
	} rows[IDENTITY_MEMO_ROWS];
};

/* The key: random, and nobody else's.  -1: memory is short. */
int identity_memo_init(struct identity_memo *m, const unsigned char key[KEYHASH_KEY_SIZE]);

/* identity_from_authorization, which it calls for what it does not remember.  Not named: the name is
 * neither given nor kept. */
void identity_recall(struct identity_memo *m, struct slice value, bool named, struct identity *out);

/* Forget what was old, and call the rest old: whether there is any. */
bool identity_memo_age(struct identity_memo *m);
void identity_memo_fini(struct identity_memo *m);

/* A verified client certificate, in UTF-8. */
struct identity_certificate {
	struct slice name;
	struct slice other; /* beside "URI:..." the subject, else an alternative name; or empty */
};
void identity_from_certificate(const struct identity_certificate *cert, struct identity *out);

/* credential.type of the event: apikey, user, token, certificate, public-access. */
const char *identity_credential_type(const struct identity *id);

#endif
