#include "keytrail/identity.h"

#include "keytrail/jsonscan.h"
#include "keytrail/scrub.h"

/* What stands in front of the plain word in a grant_type (RFC 8693 style URN of the provider). */
#define GRANT_URN "urn:ibm:params:oauth:grant-type:"

/* Escaped strings longer than this are recorded as redacted. */
#define UNESCAPED_MAX 1024

enum claim { CLAIM_IAM_ID, CLAIM_SUB, CLAIM_SUB_TYPE, CLAIM_GRANT, CLAIM_ACCOUNT, CLAIM_AUTHN };

struct claim_row {
	struct slice name;
	unsigned claim;
	bool object;
};

static const struct claim_row top_claims[] = {
	{ SLICE_INIT("iam_id"), CLAIM_IAM_ID, false },
	{ SLICE_INIT("sub"), CLAIM_SUB, false },
	{ SLICE_INIT("sub_type"), CLAIM_SUB_TYPE, false },
	{ SLICE_INIT("grant_type"), CLAIM_GRANT, false },
	{ SLICE_INIT("account"), CLAIM_ACCOUNT, true },
	{ SLICE_INIT("authn"), CLAIM_AUTHN, true },
};
static const struct claim_row account_claims[] = { { SLICE_INIT("bss"), CLAIM_ACCOUNT, false } };
static const struct claim_row authn_claims[] = { { SLICE_INIT("iam_id"), CLAIM_AUTHN, false } };

#define ROWS(t) (t), sizeof(t) / sizeof(*(t))

/* The claims of one object that are ours, each seen at most once. */
struct claim_set {
	const struct claim_row *rows;
	size_t n;
	unsigned seen;
};

static void
set_claim(struct identity *id, enum claim claim, struct slice v)
{
	switch (claim) {
	case CLAIM_IAM_ID:
		slice_to_cstr(scrub_value(SCRUB_IAM_ID, v), id->iam_id, sizeof(id->iam_id));
		break;
	case CLAIM_AUTHN:
		slice_to_cstr(scrub_value(SCRUB_IAM_ID, v), id->authn_id, sizeof(id->authn_id));
		break;
	case CLAIM_ACCOUNT:
		slice_to_cstr(scrub_value(SCRUB_ACCOUNT, v), id->account, sizeof(id->account));
		break;
	case CLAIM_SUB:
		id->name[scrub_text(v, id->name, sizeof(id->name) - 1)] = '\0';
		break;
	case CLAIM_SUB_TYPE:
		if (slice_equal(v, SLICE("ServiceId")))
			id->kind = IDENTITY_SERVICE_ID;
		else if (slice_equal(v, SLICE("Profile")))
			id->kind = IDENTITY_PROFILE;
		break;
	case CLAIM_GRANT:
		if (slice_has_prefix(v, SLICE(GRANT_URN)))
			v = slice_sub(v, sizeof(GRANT_URN) - 1, v.n);
		slice_to_cstr(scrub_value(SCRUB_IDENTIFIER, v), id->grant, sizeof(id->grant));
		break;
	}
}

static int
take_string(struct identity *id, enum claim claim, const struct jsonscan_token *t)
{
	char plain[UNESCAPED_MAX];
	long n;

	if (t->type != JSONSCAN_STRING)
		return -1;
	if (!t->escaped) {
		set_claim(id, claim, t->raw);
		return 0;
	}
	n = jsonscan_unescape(t->raw, plain, sizeof(plain));
	set_claim(id, claim, n == -1 ? SLICE(SCRUB_REDACTED) : (struct slice){ plain, (size_t)n });
	explicit_bzero(plain, sizeof(plain));
	return 0;
}

/* The row that a member's name stands for, however it is escaped, or NULL. */
static const struct claim_row *
find_row(const struct claim_set *set, const struct jsonscan_token *key)
{
	char plain[16];
	struct slice name = key->raw;
	long n;

	if (key->escaped) {
		if ((n = jsonscan_unescape(key->raw, plain, sizeof(plain))) == -1)
			return NULL;
		name = (struct slice){ plain, (size_t)n };
	}
	for (size_t i = 0; i < set->n; i++) {
		if (slice_equal(name, set->rows[i].name))
			return &set->rows[i];
	}
	return NULL;
}

/* Begin the object that comes next in the text: 0, or -1 when there is none. */
static int
open_object(struct jsonscan *s)
{
	struct jsonscan_token t;

	return jsonscan_next(s, &t) == JSONSCAN_OBJECT ? 0 : -1;
}

/* The value of a member that is none of ours. */
static int
skip_member(struct jsonscan *s)
{
	struct jsonscan_token t;

	jsonscan_next(s, &t);
	return jsonscan_skip(s, &t);
}

/*
 * Step to the next member of ours in the object being read: its row, with *more true.  At the
 * object's end NULL and *more false; NULL and *more true when the text is malformed or names a
 * claim twice.
 */
static const struct claim_row *
next_claim(struct jsonscan *s, struct claim_set *set, bool *more)
{
	struct jsonscan_token t;
	const struct claim_row *row;

	*more = true;
	while (jsonscan_next(s, &t) == JSONSCAN_KEY) {
		if ((row = find_row(set, &t)) == NULL) {
			if (skip_member(s) == -1)
				return NULL;
			continue;
		}
		if (set->seen & 1u << (row - set->rows))
			return NULL;
		set->seen |= 1u << (row - set->rows);
		return row;
	}
	*more = t.type == JSONSCAN_BAD;
	return NULL;
}

static int
read_inner_object(struct jsonscan *s, enum claim claim, struct identity *id)
{
	struct claim_set set = { ROWS(account_claims), 0 };
	struct jsonscan_token t;
	bool more;

	if (claim == CLAIM_AUTHN)
		set = (struct claim_set){ ROWS(authn_claims), 0 };
	if (open_object(s) == -1)
		return -1;
	while (next_claim(s, &set, &more) != NULL) {
		jsonscan_next(s, &t);
		if (take_string(id, claim, &t) == -1)
			return -1;
	}
	return more ? -1 : 0;
}

static int
read_claims(struct slice json, struct identity *id)
{
	struct claim_set set = { ROWS(top_claims), 0 };
	struct jsonscan s;
	struct jsonscan_token t;
	const struct claim_row *row;
	bool more;

	jsonscan_init(&s, json);
	if (open_object(&s) == -1)
		return -1;
	while ((row = next_claim(&s, &set, &more)) != NULL) {
		if (row->object) {
			if (read_inner_object(&s, row->claim, id) == -1)
				return -1;
			continue;
		}
		jsonscan_next(&s, &t);
		if (take_string(id, row->claim, &t) == -1)
			return -1;
	}
	return !more && jsonscan_next(&s, &t) == JSONSCAN_EOF ? 0 : -1;
}

/* The value of each base64url digit (RFC 4648 section 5); BAD for every other byte. */
#define BAD 0xff
/* clang-format off */
static const unsigned char digit_values[256] = {
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, 62, BAD, BAD,
	52, 53, 54, 55, 56, 57, 58, 59, 60, 61, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
	15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, BAD, BAD, BAD, BAD, 63,
	BAD, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
	41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
	BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
};
/* clang-format on */

static unsigned
digit_at(struct slice s, size_t i)
{
	return digit_values[(unsigned char)s.p[i]];
}

/* Is s the only spelling of some bytes?  Not so with a digit too many, or with bits in the last one
 * that no byte takes. */
static bool
is_base64(struct slice s)
{
	static const unsigned char unused_bits[] = { 0, 0, 0x0f, 0x03 };
	unsigned all = 0;

	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++)
		all |= digit_at(s, i);
	return (all & 0xc0) == 0 && (digit_at(s, s.n - 1) & unused_bits[s.n % 4]) == 0 &&
	       s.n % 4 != 1;
}

/* Decode what is_base64; out has room for three bytes for every four digits begun.  The length. */
static size_t
base64_decode(struct slice s, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i += 4) {
		unsigned v = digit_at(s, i) << 18 | (i + 1 < s.n ? digit_at(s, i + 1) << 12 : 0) |
			     (i + 2 < s.n ? digit_at(s, i + 2) << 6 : 0) |
			     (i + 3 < s.n ? digit_at(s, i + 3) : 0);

		out[n++] = (char)(v >> 16);
		out[n++] = (char)(v >> 8);
		out[n++] = (char)v;
	}
	return s.n / 4 * 3 + (s.n % 4 > 0 ? s.n % 4 - 1 : 0);
}

/* Cut *rest at its first point: the part before, empty when there is no point. */
static struct slice
cut_segment(struct slice *rest)
{
	const char *dot = memchr(rest->p, '.', rest->n);
	struct slice head = SLICE_EMPTY;

	if (dot != NULL) {
		head = slice_sub(*rest, 0, (size_t)(dot - rest->p));
		*rest = slice_sub(*rest, head.n + 1, rest->n);
	}
	return head;
}

static int
read_token(struct slice token, struct identity *id)
{
	char json[(IDENTITY_TOKEN_MAX + 3) / 4 * 3];
	struct slice rest = token;
	struct slice header = cut_segment(&rest);
	struct slice claims = cut_segment(&rest);
	size_t n;
	int rc;

	if (token.n > IDENTITY_TOKEN_MAX || !is_base64(header) || !is_base64(claims) ||
	    !is_base64(rest))
		return -1;
	n = base64_decode(claims, json);
	rc = read_claims((struct slice){ json, n }, id);
	explicit_bzero(json, n);
	return rc;
}

/* What follows "Bearer" and spaces; false when the scheme is another. */
static bool
bearer_token(struct slice value, struct slice *token)
{
	static const char scheme[] = "Bearer ";
	size_t n = sizeof(scheme) - 1;

	if (value.n <= n || !slice_equal_nocase(slice_sub(value, 0, n), slice_of(scheme)))
		return false;
	*token = slice_trim(slice_sub(value, n, value.n));
	return true;
}

void
identity_from_authorization(struct slice value, struct identity *out)
{
	struct slice token;

	*out = (struct identity){ .state = IDENTITY_NONE };
	if (value.p == NULL)
		return;
	if (bearer_token(value, &token) && read_token(token, out) == 0) {
		out->state = IDENTITY_TOKEN;
		return;
	}
	*out = (struct identity){ .state = IDENTITY_UNPARSABLE };
}

void
identity_from_certificate(const struct identity_certificate *cert, struct identity *out)
{
	*out = (struct identity){ .state = IDENTITY_CERTIFICATE, .kind = IDENTITY_CLIENT_CERT };
	out->name[scrub_text(cert->name, out->name, sizeof(out->name) - 1)] = '\0';
	out->other[scrub_text(cert->other, out->other, sizeof(out->other) - 1)] = '\0';
}

const char *
identity_credential_type(const struct identity *id)
{
	static const struct {
		const char *grant, *type;
	} grants[] = {
		{ "apikey", "apikey" },
		{ "passcode", "user" },
		{ "authorization_code", "user" },
		{ "password", "user" },
	};

	if (id->state == IDENTITY_NONE)
		return "public-access";
	if (id->state == IDENTITY_CERTIFICATE)
		return "certificate";
	for (size_t i = 0; i < sizeof(grants) / sizeof(*grants); i++) {
		if (strcmp(id->grant, grants[i].grant) == 0)
			return grants[i].type;
	}
	return "token";
}
