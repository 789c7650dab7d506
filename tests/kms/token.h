/*
 * token: the bearer tokens that the stand-in key service accepts: JSON Web Tokens signed with
 * HMAC-SHA-256 (RFC 7515, RFC 7519) under a secret that it shares with the tests.
 */
#ifndef KMS_TOKEN_H
#define KMS_TOKEN_H

#include <stddef.h>
#include <time.h>

struct token_secret {
	unsigned char bytes[256];
	size_t n;
};

enum token_result {
	TOKEN_OK,
	TOKEN_BAD,	 /* none, malformed, wrongly signed or expired: 401 */
	TOKEN_FORBIDDEN, /* the claim "role" is "none": 403 */
};

/* Read the secret from a file, without a newline at its end. */
int token_secret_read(const char *path, struct token_secret *out);

/* The value of Authorization, or NULL. */
enum token_result token_check(const struct token_secret *s, const char *authorization, time_t now);

/* A token like IAM's for this subject, valid for `lifetime` seconds; the caller frees. */
char *token_mint(const struct token_secret *s, const char *subject, time_t now, time_t lifetime);

#endif
