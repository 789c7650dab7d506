/*
 * scrub: the grammars that decide which strings of a client or of the key service may be recorded.
 *
 * A string is recorded only if its member is in the closed list of the event and the string fits
 * the member's grammar; otherwise REDACTED stands in its place (a value was there).  Nothing is
 * masked in part.  Pure but for the two references, which use OpenSSL's HMAC; any thread.
 */
#ifndef KEYTRAIL_SCRUB_H
#define KEYTRAIL_SCRUB_H

#include "keytrail/slice.h"

#define SCRUB_REDACTED "[redacted]"

enum scrub_grammar {
	SCRUB_UUID,	   /* RFC 9562 text, any case: 36 bytes */
	SCRUB_CORRELATION, /* letters, digits, - _ . : at most 64: for sets that do not use UUIDs */
	SCRUB_KEY_RING,	   /* letters, digits, '-', 2 to 100 */
	SCRUB_ALIAS,	   /* letters, digits, - _ 2 to 90: a key's {id}; a UUID fits too */
	SCRUB_ACCOUNT,	   /* lower-case hex, 32 */
	SCRUB_IAM_ID,	   /* letters, digits, - _ . : @ at most 128 */
	SCRUB_METHOD,	   /* one of the methods of RFC 9110 and PATCH, in capitals */
	SCRUB_IDENTIFIER,  /* letters, digits, - _ at most 64: grant types and the like */
};

bool scrub_fits(enum scrub_grammar g, struct slice s);

/* The slice itself, or REDACTED.  Empty stays empty. */
struct slice scrub_value(enum scrub_grammar g, struct slice s);

/*
 * The products of a User-Agent (RFC 9110 section 10.1.5) without comments, as many as fit in 128
 * bytes: "curl/7.88.1 (x; y) OpenSSL/3" becomes "curl/7.88.1 OpenSSL/3".  A product is a name, '/'
 * and a version, both tokens of at most 40 bytes (a longer one could be a credential); a run of
 * anything else, a word without a version included, becomes one REDACTED.
 * Returns the length written to out (no NUL).
 */
#define SCRUB_AGENT_MAX 128
size_t scrub_agent(struct slice s, char out[SCRUB_AGENT_MAX]);

/* Text from a certificate or a claim: valid UTF-8, with C0, DEL, C1, bidi, zero-width and U+2028/9
 * characters replaced by U+FFFD; cut at a character boundary to fit cap.  Returns the length. */
size_t scrub_text(struct slice utf8, char *out, size_t cap);

#define SCRUB_HMAC_KEY_SIZE 32
#define SCRUB_KEY_REF_SIZE  48

/*
 * "h1:<epoch>:<base32 of 128 bits>" of HMAC-SHA-256 over instance, NUL, "uuid" or "alias", NUL,
 * the lower-cased UUID or the alias; NUL-terminated, base32 as RFC 4648 section 6 without padding.
 * 0, or -1 when OpenSSL fails or the input is over 500 bytes (nothing is written).
 */
int scrub_key_ref(const unsigned char key[SCRUB_HMAC_KEY_SIZE], unsigned epoch,
    struct slice instance, struct slice id, char out[SCRUB_KEY_REF_SIZE]);

/* The same construction for identity names: HMAC over "name", NUL, the name. */
int scrub_name_ref(const unsigned char key[SCRUB_HMAC_KEY_SIZE], unsigned epoch, struct slice name,
    char out[SCRUB_KEY_REF_SIZE]);

#endif
