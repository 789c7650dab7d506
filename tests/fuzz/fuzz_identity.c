/*
 * Claims of a token: what is recorded fits its grammar, and the event that shows it is JSON.
 *
 * The first byte chooses whether the rest is the value of Authorization or the text of the claims,
 * which is then made into a token.
 */
#include "keytrail/event.h"
#include "keytrail/jsonscan.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char prefix[] = "Bearer e30.";
static const char suffix[] = ".c2ln";

/* The token whose claims are in; the caller frees it. */
static char *
make_token(struct slice in, size_t *size)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char *value = malloc(sizeof(prefix) + sizeof(suffix) + in.n * 4 / 3 + 4);
	char *out = value + sizeof(prefix) - 1;
	unsigned acc = 0, bits = 0;

	assert(value != NULL);
	memcpy(value, prefix, sizeof(prefix) - 1);
	for (size_t i = 0; i < in.n; i++) {
		acc = (acc << 8 | (unsigned char)in.p[i]) & 0xffff;
		for (bits += 8; bits >= 6; bits -= 6)
			*out++ = digits[acc >> (bits - 6) & 63];
	}
	if (bits > 0)
		*out++ = digits[acc << (6 - bits) & 63];
	memcpy(out, suffix, sizeof(suffix) - 1);
	*size = (size_t)(out - value) + sizeof(suffix) - 1;
	return value;
}

static void
check_word(enum scrub_grammar g, const char *s)
{
	assert(s[0] == '\0' || strcmp(s, SCRUB_REDACTED) == 0 || scrub_fits(g, slice_of(s)));
}

static void
check_identity(const struct identity *id)
{
	char again[sizeof(id->name)];
	size_t n = strlen(id->name);

	check_word(SCRUB_IAM_ID, id->iam_id);
	check_word(SCRUB_IAM_ID, id->authn_id);
	check_word(SCRUB_ACCOUNT, id->account);
	check_word(SCRUB_IDENTIFIER, id->grant);
	assert(scrub_text(slice_of(id->name), again, sizeof(again)) == n);
	assert(memcmp(again, id->name, n) == 0);
	if (id->state != IDENTITY_TOKEN)
		assert(id->iam_id[0] == '\0' && id->name[0] == '\0' && id->authn_id[0] == '\0' &&
		       id->account[0] == '\0' && id->grant[0] == '\0');
}

static void
check_line(const struct identity *id, unsigned status)
{
	static const struct route route = { .action = "kms.secrets.unwrap",
		.action_2019 = "kms.secrets.unwrap",
		.path = "/api/v2/keys/{id}",
		.login = true };
	static const struct event_profile profile = { .service_name = "Key Protect",
		.crn_service = "kms",
		.type_uri = "kms/secrets",
		.region = "us-south",
		.account = "",
		.observer_id = "keytrail/0",
		.names = EVENT_NAME_PLAIN };
	struct audit_event ev = { .route = &route, .status = status, .from_service = true };
	char line[EVENT_LINE_MAX + 1];
	size_t n;
	struct jsonscan s;
	struct jsonscan_token t;

	ev.identity = *id;
	n = event_render(&profile, &ev, line);
	assert(n <= EVENT_LINE_MAX);
	line[n++] = '}';
	jsonscan_init(&s, (struct slice){ line, n });
	while (jsonscan_next(&s, &t) != JSONSCAN_EOF)
		assert(t.type != JSONSCAN_BAD);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in;
	struct identity id;
	char *token = NULL;

	if (size == 0)
		return 0;
	in = (struct slice){ (const char *)data + 1, size - 1 };
	if ((data[0] & 1) != 0)
		in.p = token = make_token(in, &in.n);
	identity_from_authorization(in, &id);
	free(token);
	check_identity(&id);
	check_line(&id, 200);
	check_line(&id, 401);
	return 0;
}
