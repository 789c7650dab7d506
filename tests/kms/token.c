#include "token.h"
#include "crypto.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int
token_secret_read(const char *path, struct token_secret *out)
{
	FILE *f = fopen(path, "re");

	if (f == NULL)
		return -1;
	out->n = fread(out->bytes, 1, sizeof(out->bytes), f);
	fclose(f);
	while (out->n > 0 && out->bytes[out->n - 1] == '\n')
		out->n--;
	return out->n >= 16 ? 0 : -1;
}

static void
token_sign(const struct token_secret *s, const char *text, size_t n, unsigned char mac[32])
{
	unsigned len = 32;

	if (HMAC(EVP_sha256(), s->bytes, (int)s->n, (const unsigned char *)text, n, mac, &len) ==
	    NULL)
		abort();
}

static json_t *
token_part(const char *p, size_t n)
{
	struct bytes b;
	json_t *j;

	if (crypto_b64_decode(p, n, true, &b) == -1)
		return NULL;
	j = json_loadb((const char *)b.p, b.n, JSON_REJECT_DUPLICATES, NULL);
	bytes_free(&b);
	return j;
}

static bool
token_signature_fits(const struct token_secret *s, const char *jwt, const char *dot)
{
	unsigned char mac[32];
	struct bytes sig;
	bool same;

	if (crypto_b64_decode(dot + 1, strlen(dot + 1), true, &sig) == -1)
		return false;
	token_sign(s, jwt, (size_t)(dot - jwt), mac);
	same = sig.n == sizeof(mac) && CRYPTO_memcmp(sig.p, mac, sizeof(mac)) == 0;
	bytes_free(&sig);
	return same;
}

static bool
token_algorithm_fits(const char *jwt, const char *dot)
{
	json_t *header = token_part(jwt, (size_t)(dot - jwt));
	const char *alg = json_string_value(json_object_get(header, "alg"));
	bool fits = alg != NULL && strcmp(alg, "HS256") == 0;

	json_decref(header);
	return fits;
}

static enum token_result
token_check_claims(const char *p, size_t n, time_t now)
{
	json_t *claims = token_part(p, n);
	const char *role = json_string_value(json_object_get(claims, "role"));
	enum token_result result = TOKEN_OK;

	if ((time_t)json_integer_value(json_object_get(claims, "exp")) <= now)
		result = TOKEN_BAD;
	else if (role != NULL && strcmp(role, "none") == 0)
		result = TOKEN_FORBIDDEN;
	json_decref(claims);
	return result;
}

enum token_result
token_check(const struct token_secret *s, const char *authorization, time_t now)
{
	const char *jwt, *first, *last;

	if (authorization == NULL || strncasecmp(authorization, "Bearer ", 7) != 0)
		return TOKEN_BAD;
	jwt = authorization + 7 + strspn(authorization + 7, " ");
	first = strchr(jwt, '.');
	last = strrchr(jwt, '.');
	if (first == NULL || first == last || !token_algorithm_fits(jwt, first) ||
	    !token_signature_fits(s, jwt, last))
		return TOKEN_BAD;
	return token_check_claims(first + 1, (size_t)(last - first - 1), now);
}

static void
token_append_part(char *out, size_t cap, const void *p, size_t n)
{
	char *b64 = crypto_b64_encode(p, n);
	size_t at = strlen(out);

	if (b64 == NULL || at + 1 + strlen(b64) >= cap)
		abort();
	if (at > 0)
		out[at++] = '.';
	for (const char *c = b64; *c != '\0' && *c != '='; c++)
		out[at++] = *c == '+' ? '-' : *c == '/' ? '_' : *c;
	out[at] = '\0';
	free(b64);
}

char *
token_mint(const struct token_secret *s, const char *subject, time_t now, time_t lifetime)
{
	static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
	const size_t cap = 4096;
	unsigned char mac[32];
	char *out = calloc(1, cap);
	json_t *claims = json_pack("{s:s+, s:s, s:s, s:{s:s}, s:s, s:I, s:I}", "iam_id", "IBMid-",
	    subject, "sub", subject, "grant_type", "urn:ibm:params:oauth:grant-type:apikey",
	    "account", "bss", "a12333e9bd28461a8c92385628efac9f", "iss",
	    "https://iam.example.com/identity", "iat", (json_int_t)now, "exp",
	    (json_int_t)now + lifetime);
	char *text = json_dumps(claims, JSON_COMPACT);

	if (out == NULL || text == NULL)
		abort();
	token_append_part(out, cap, header, strlen(header));
	token_append_part(out, cap, text, strlen(text));
	token_sign(s, out, strlen(out), mac);
	token_append_part(out, cap, mac, sizeof(mac));
	free(text);
	json_decref(claims);
	return out;
}
