#include "keytrail/event.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define INSTANCE   "fd692647-43d0-4699-9f83-f39a54b1327b"
#define KEY	   "76c2c9cb-9095-5a24-811b-0ef4b24ac4d5"
#define ACCOUNT	   "a12333e9bd28461a8c92385628efac9f"
#define CLIENT_ID  "11111111-2222-4333-8444-555555555555"
#define SERVICE_ID "ef56e7ed-abf5-4da4-bbf1-ac0d381891fd"

#define COUNT(a)   (sizeof(a) / sizeof(*(a)))

static const unsigned char hmac_key[SCRUB_HMAC_KEY_SIZE] = "0123456789abcdef0123456789abcde";

/* A call with all it needs, to be changed by each test. */
struct call {
	struct route route;
	struct event_profile profile;
	struct audit_event ev;
	char line[EVENT_LINE_MAX + 1];
};

static void
begin(struct call *c)
{
	*c = (struct call){
		.route = { .action = "kms.secrets.unwrap",
		    .action_2019 = "kms.secrets.unwrap-old",
		    .method = "POST",
		    .path = "/api/v2/keys/{id}/actions/unwrap",
		    .data_event = true,
		    .login = true },
		.profile = { .service_name = "Key Protect",
		    .crn_service = "kms",
		    .type_uri = "kms/secrets",
		    .region = "us-south",
		    .account = "",
		    .observer_id = "keytrail/00112233445566778899aabbccddeeff",
		    .hmac_key = hmac_key,
		    .hmac_epoch = 3 },
		.ev = { .matched = true,
		    .status = 200,
		    .from_service = true,
		    .arrival_ns = 1592840176700000000,
		    .id = "01908c5e-7c3a-7123-8abc-0123456789ab",
		    .method = "POST",
		    .correlation = SERVICE_ID,
		    .correlation_source = CORRELATION_SERVICE,
		    .instance = INSTANCE,
		    .key = KEY,
		    .agent = "curl/7.88.1",
		    .address = "192.0.2.7",
		    .attempts = 1,
		    .identity = { .state = IDENTITY_TOKEN,
			.iam_id = "IBMid-1",
			.name = "jane@example.com",
			.account = ACCOUNT,
			.grant = "apikey" } },
	};
	c->ev.route = &c->route;
}

static const char *
render(struct call *c)
{
	size_t n = event_render(&c->profile, &c->ev, c->line);

	assert_true(n > 0 && n <= EVENT_LINE_MAX);
	c->line[n] = '\0';
	return c->line;
}

static void
expect(const char *label, const char *line, const char *part)
{
	if (strstr(line, part) == NULL)
		fail_msg("%s: no %s in %s", label, part, line);
}

static void
expect_none(const char *label, const char *line, const char *part)
{
	if (strstr(line, part) != NULL)
		fail_msg("%s: %s in %s", label, part, line);
}

#define CRN_REGION "crn:v1:bluemix:public:kms:us-south:a/"
#define CRN	   CRN_REGION ACCOUNT ":" INSTANCE "::"

static void
a_whole_event(void **state)
{
	struct call c;

	(void)state;
	begin(&c);
	assert_string_equal(render(&c),
	    "{\"action\":\"kms.secrets.unwrap\",\"correlationId\":\"" SERVICE_ID "\","
	    "\"correlationSource\":\"service\",\"dataEvent\":true,"
	    "\"eventTime\":\"2020-06-22T15:36:16.70+0000\","
	    "\"id\":\"01908c5e-7c3a-7123-8abc-0123456789ab\","
	    "\"initiator\":{\"credential\":{\"type\":\"apikey\",\"verifiedBy\":\"service\"},"
	    "\"host\":{\"address\":\"192.0.2.7\",\"addressType\":\"IPv4\",\"agent\":\"curl/"
	    "7.88.1\"},"
	    "\"id\":\"IBMid-1\",\"name\":\"\",\"typeURI\":\"service/security/account/user\"},"
	    "\"logSourceCRN\":\"" CRN "\",\"message\":\"Key Protect: unwrap secret\","
	    "\"observer\":{\"id\":\"keytrail/00112233445566778899aabbccddeeff\","
	    "\"name\":\"ActivityTracker\"},\"outcome\":\"success\","
	    "\"reason\":{\"reasonCode\":200,\"reasonType\":\"OK\"},"
	    "\"requestData\":{\"instanceId\":\"" INSTANCE "\",\"method\":\"POST\","
	    "\"path\":\"/api/v2/keys/{id}/actions/unwrap\"},"
	    "\"responseHeader\":{\"content\":{\"correlationId\":\"" SERVICE_ID "\"}},"
	    "\"saveServiceCopy\":true,\"severity\":\"normal\","
	    "\"target\":{\"id\":\"" CRN "\",\"name\":\"\",\"typeURI\":\"kms/secrets\"}");
}

static void
an_event_with_every_optional_member(void **state)
{
	struct call c;

	(void)state;
	begin(&c);
	c.profile.key_ids = EVENT_KEY_HMAC;
	c.profile.names = EVENT_NAME_PLAIN;
	c.ev.matched = false;
	c.ev.status = 404;
	c.ev.client_gone = true;
	c.ev.recovered = true;
	c.ev.attempts = 2;
	c.ev.correlation_source = CORRELATION_ECHOED;
	strcpy(c.ev.key_ring, "my-ring");
	strcpy(c.ev.address, "2001:db8::1");
	strcpy(c.ev.peer, "10.0.0.1");
	strcpy(c.ev.shape, "/api/v2/keys/{uuid}/{}");
	strcpy(c.ev.identity.name, "a\"b\\c");
	strcpy(c.ev.identity.authn_id, "IBMid-2");
	assert_string_equal(render(&c),
	    "{\"action\":\"kms.secrets.unwrap\",\"correlationId\":\"" SERVICE_ID "\","
	    "\"correlationSource\":\"echoed\",\"dataEvent\":true,"
	    "\"eventTime\":\"2020-06-22T15:36:16.70+0000\","
	    "\"id\":\"01908c5e-7c3a-7123-8abc-0123456789ab\","
	    "\"initiator\":{\"claimed\":{\"id\":\"IBMid-1\",\"name\":\"a\\\"b\\\\c\"},"
	    "\"credential\":{\"type\":\"apikey\",\"verifiedBy\":\"none\"},"
	    "\"host\":{\"address\":\"2001:db8::1\",\"addressType\":\"IPv6\",\"agent\":\"curl/"
	    "7.88.1\","
	    "\"peer\":\"10.0.0.1\"},\"id\":\"\",\"name\":\"unverified\","
	    "\"typeURI\":\"service/security/account/user\"},"
	    "\"logSourceCRN\":\"" CRN_REGION ":::\","
	    "\"message\":\"Key Protect: unwrap secret -failure\","
	    "\"observer\":{\"id\":\"keytrail/00112233445566778899aabbccddeeff\","
	    "\"name\":\"ActivityTracker\"},\"outcome\":\"failure\","
	    "\"reason\":{\"reasonCode\":404,\"reasonForFailure\":\"client gone\","
	    "\"reasonType\":\"Not Found\"},\"recovered\":true,"
	    "\"requestData\":{\"attempts\":2,\"instanceId\":\"" INSTANCE "\","
	    "\"keyRingId\":\"my-ring\",\"method\":\"POST\","
	    "\"path\":\"/api/v2/keys/{id}/actions/unwrap\",\"shape\":\"/api/v2/keys/{uuid}/{}\","
	    "\"unmatched\":true},"
	    "\"responseHeader\":{\"content\":{\"correlationId\":\"" SERVICE_ID "\"}},"
	    "\"saveServiceCopy\":true,\"severity\":\"normal\","
	    "\"target\":{\"id\":\"" CRN_REGION
	    ":::\",\"keyRef\":\"h1:3:JQVLFIZQIMZT5D4HZGLLPDWYIY\","
	    "\"name\":\"\",\"typeURI\":\"kms/secrets\"}");
}

static void
what_could_not_be_parsed_is_keytrail_refused(void **state)
{
	struct call c;

	(void)state;
	begin(&c);
	c.ev = (struct audit_event){ .refusal = REFUSAL_BAD_HOST,
		.status = 400,
		.correlation_source = CORRELATION_NONE,
		.arrival_ns = 1592840176700000000,
		.id = "01908c5e-7c3a-7123-8abc-0123456789ab",
		.address = "192.0.2.7" };
	assert_string_equal(render(&c),
	    "{\"action\":\"keytrail.refused\",\"correlationId\":\"\","
	    "\"correlationSource\":\"none\",\"dataEvent\":false,"
	    "\"eventTime\":\"2020-06-22T15:36:16.70+0000\","
	    "\"id\":\"01908c5e-7c3a-7123-8abc-0123456789ab\","
	    "\"initiator\":{\"credential\":{\"type\":\"public-access\",\"verifiedBy\":\"none\"},"
	    "\"host\":{\"address\":\"192.0.2.7\",\"addressType\":\"IPv4\",\"agent\":\"\"},"
	    "\"id\":\"\",\"name\":\"unauthenticated\","
	    "\"typeURI\":\"service/security/account/user\"},"
	    "\"logSourceCRN\":\"" CRN_REGION ":::\","
	    "\"message\":\"Key Protect: refused request -failure\","
	    "\"observer\":{\"id\":\"keytrail/00112233445566778899aabbccddeeff\","
	    "\"name\":\"ActivityTracker\"},\"outcome\":\"failure\","
	    "\"reason\":{\"reasonCode\":400,\"reasonForFailure\":\"bad_host\","
	    "\"reasonType\":\"Bad Request\"},"
	    "\"saveServiceCopy\":true,\"severity\":\"warning\","
	    "\"target\":{\"id\":\"" CRN_REGION ":::\",\"name\":\"\",\"typeURI\":\"kms/secrets\"}");
}

static void
severity_goes_by_status_first(void **state)
{
	enum { N = SEVERITY_NORMAL, W = SEVERITY_WARNING, C = SEVERITY_CRITICAL };
	/* Wanted where the route's own severity is normal, warning, critical. */
	static const struct {
		unsigned status;
		bool matched;
		int want[3];
	} cases[] = {
		{ 200, true, { N, W, C } },
		{ 201, true, { N, W, C } },
		{ 204, true, { N, W, C } },
		{ 200, false, { C, C, C } },
		{ 204, false, { C, C, C } },
		{ 404, false, { N, W, C } },
		{ 304, true, { N, W, C } },
		{ 400, true, { W, W, C } },
		{ 401, true, { C, C, C } },
		{ 403, true, { C, C, C } },
		{ 404, true, { N, W, C } },
		{ 408, true, { N, W, C } },
		{ 409, true, { W, W, C } },
		{ 422, true, { N, W, C } },
		{ 424, true, { W, W, C } },
		{ 429, true, { N, W, C } },
		{ 500, true, { W, W, C } },
		{ 502, true, { W, W, C } },
		{ 503, true, { C, C, C } },
		{ 504, true, { W, W, C } },
		{ 505, true, { W, W, C } },
		{ 507, true, { C, C, C } },
		{ 0, true, { W, W, C } },
		{ 0, false, { W, W, C } },
	};
	static const char *const words[] = { "\"severity\":\"normal\"", "\"severity\":\"warning\"",
		"\"severity\":\"critical\"" };
	struct call c;
	char label[64];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		for (int own = N; own <= C; own++) {
			begin(&c);
			c.route.severity = (enum severity)own;
			c.ev.status = cases[i].status;
			c.ev.matched = cases[i].matched;
			snprintf(label, sizeof(label), "status %u, own severity %d",
			    cases[i].status, own);
			expect(label, render(&c), words[cases[i].want[own]]);
		}
	}
}

static void
outcome_goes_by_status(void **state)
{
	static const struct {
		unsigned status;
		enum event_outcome want;
		const char *word;
	} cases[] = {
		{ 200, EVENT_SUCCESS, "\"outcome\":\"success\"" },
		{ 299, EVENT_SUCCESS, "\"outcome\":\"success\"" },
		{ 302, EVENT_FAILURE, "\"outcome\":\"failure\"" },
		{ 404, EVENT_FAILURE, "\"outcome\":\"failure\"" },
		{ 503, EVENT_FAILURE, "\"outcome\":\"failure\"" },
		{ 0, EVENT_UNKNOWN, "\"outcome\":\"unknown\"" },
	};
	struct call c;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.ev.status = cases[i].status;
		assert_int_equal(event_outcome(&c.ev), cases[i].want);
		expect("outcome", render(&c), cases[i].word);
		expect_none("outcome", c.line, "\"kind\"");
	}
}

static void
an_intent_is_pending(void **state)
{
	struct call c;

	(void)state;
	begin(&c);
	c.ev.status = 0;
	c.ev.from_service = false;
	c.ev.pending = true;
	c.ev.correlation_source = CORRELATION_REQUEST;
	render(&c);
	expect("intent", c.line, ",\"kind\":\"intent\",\"logSourceCRN\"");
	expect("intent", c.line, "\"outcome\":\"pending\",\"reason\":{\"reasonType\":\"pending\"}");
	expect("intent", c.line, "\"message\":\"Key Protect: unwrap secret\"");
	expect("intent", c.line, "\"severity\":\"normal\"");
	expect("intent", c.line, "\"verifiedBy\":\"none\"");
}

static void
the_reason_is_ours_or_the_status(void **state)
{
	static const struct {
		const char *label;
		unsigned status;
		enum http_refusal refusal;
		bool client_gone;
		const char *unknown, *want;
	} cases[] = {
		{ "success", 204, REFUSAL_NONE, false, NULL,
		    "\"reason\":{\"reasonCode\":204,\"reasonType\":\"No Content\"}" },
		{ "service's failure", 404, REFUSAL_NONE, false, NULL,
		    "\"reason\":{\"reasonCode\":404,\"reasonForFailure\":\"status 404\","
		    "\"reasonType\":\"Not Found\"}" },
		{ "not modified", 304, REFUSAL_NONE, false, NULL,
		    "\"reason\":{\"reasonCode\":304,\"reasonForFailure\":\"status 304\","
		    "\"reasonType\":\"Not Modified\"}" },
		{ "our refusal", 403, REFUSAL_DENIED, false, NULL,
		    "\"reason\":{\"reasonCode\":403,\"reasonForFailure\":\"denied\","
		    "\"reasonType\":\"Forbidden\"}" },
		{ "upstream timeout", 504, REFUSAL_UPSTREAM_TIMEOUT, false, NULL,
		    "\"reason\":{\"reasonCode\":504,\"reasonForFailure\":\"upstream_timeout\","
		    "\"reasonType\":\"Gateway Timeout\"}" },
		{ "our refusal to a client that is gone", 503, REFUSAL_TRAIL_FULL, true, NULL,
		    "\"reason\":{\"reasonCode\":503,\"reasonForFailure\":\"trail_full\","
		    "\"reasonType\":\"Service Unavailable\"}" },
		{ "client gone, call done", 200, REFUSAL_NONE, true, NULL,
		    "\"reason\":{\"reasonCode\":200,\"reasonForFailure\":\"client gone\","
		    "\"reasonType\":\"OK\"}" },
		{ "client gone, call failed", 409, REFUSAL_NONE, true, NULL,
		    "\"reason\":{\"reasonCode\":409,\"reasonForFailure\":\"client gone\","
		    "\"reasonType\":\"Conflict\"}" },
		{ "no status: restart", 0, REFUSAL_NONE, false, "restart",
		    "\"reason\":{\"reasonType\":\"restart\"}" },
		{ "no status: timeout", 0, REFUSAL_NONE, false, "timeout",
		    "\"reason\":{\"reasonType\":\"timeout\"}" },
		{ "no status, no reason", 0, REFUSAL_NONE, false, NULL,
		    "\"reason\":{\"reasonType\":\"unknown\"}" },
	};
	struct call c;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.ev.status = cases[i].status;
		c.ev.refusal = cases[i].refusal;
		c.ev.from_service = cases[i].refusal == REFUSAL_NONE;
		c.ev.client_gone = cases[i].client_gone;
		c.ev.unknown_reason = cases[i].unknown;
		expect(cases[i].label, render(&c), cases[i].want);
	}
}

static void
every_refusal_gives_its_label(void **state)
{
	struct call c;
	char want[96];

	(void)state;
	for (int r = REFUSAL_NONE + 1; r < REFUSAL_COUNT; r++) {
		const struct refusal_info *info = refusal_info((enum http_refusal)r);

		begin(&c);
		c.ev.refusal = (enum http_refusal)r;
		c.ev.status = info->status;
		c.ev.from_service = false;
		snprintf(want, sizeof(want), "\"reasonForFailure\":\"%s\",", info->label);
		expect(info->code, render(&c), want);
		expect(info->code, c.line, "\"id\":\"\",\"name\":\"unauthenticated\"");
		expect(info->code, c.line, "\"claimed\":{\"id\":\"IBMid-1\"}");
		expect(info->code, c.line, "\"action\":\"kms.secrets.unwrap\"");
	}
}

static void
only_the_service_or_a_certificate_verifies(void **state)
{
	static const struct {
		const char *label;
		unsigned status;
		bool from_service, login;
		enum identity_state who;
		const char *want;
	} cases[] = {
		{ "2xx of the service", 200, true, true, IDENTITY_TOKEN, "service" },
		{ "204 of the service", 204, true, true, IDENTITY_TOKEN, "service" },
		{ "2xx on a route without login", 200, true, false, IDENTITY_TOKEN, "none" },
		{ "2xx of our own", 200, false, true, IDENTITY_TOKEN, "none" },
		{ "404 of the service", 404, true, true, IDENTITY_TOKEN, "none" },
		{ "401 of the service", 401, true, true, IDENTITY_TOKEN, "none" },
		{ "no status", 0, false, true, IDENTITY_TOKEN, "none" },
		{ "certificate, 2xx", 200, true, true, IDENTITY_CERTIFICATE, "certificate" },
		{ "certificate, 401", 401, true, true, IDENTITY_CERTIFICATE, "certificate" },
		{ "certificate, no login", 200, true, false, IDENTITY_CERTIFICATE, "certificate" },
	};
	struct call c;
	char want[64];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.ev.status = cases[i].status;
		c.ev.from_service = cases[i].from_service;
		c.route.login = cases[i].login;
		c.ev.identity.state = cases[i].who;
		snprintf(want, sizeof(want), "\"verifiedBy\":\"%s\"}", cases[i].want);
		expect(cases[i].label, render(&c), want);
		if (strcmp(cases[i].want, "none") == 0)
			expect(cases[i].label, c.line, "\"id\":\"\",\"name\":\"un");
		else
			expect_none(cases[i].label, c.line, "claimed");
	}
}

static void
nobody_writes_another_ones_name(void **state)
{
	struct call c;

	(void)state;
	begin(&c);
	c.profile.names = EVENT_NAME_PLAIN;
	c.ev.status = 401;
	strcpy(c.ev.identity.authn_id, "IBMid-2");
	render(&c);
	expect("401", c.line,
	    "\"initiator\":{\"claimed\":{\"id\":\"IBMid-1\",\"name\":\"jane@example.com\"},"
	    "\"credential\":");
	expect("401", c.line, "\"id\":\"\",\"name\":\"unauthenticated\"");
	expect_none("401", c.line, "IBMid-2");

	/* A caller who goes before the answer was looked at by nobody. */
	c.ev.status = 0;
	c.ev.client_gone = true;
	render(&c);
	expect("no status", c.line, "\"initiator\":{\"claimed\":{\"id\":\"IBMid-1\",");
	expect("no status", c.line, "\"id\":\"\",\"name\":\"unauthenticated\"");
	expect_none("no status", c.line, "IBMid-2");
	c.ev.status = 401;
	c.ev.client_gone = false;

	c.profile.names = EVENT_NAME_OMIT;
	render(&c);
	expect("401, names omitted", c.line, "\"claimed\":{\"id\":\"IBMid-1\"},");
	expect_none("401, names omitted", c.line, "jane");

	c.ev.identity = (struct identity){ .state = IDENTITY_NONE };
	render(&c);
	expect("401 without a token", c.line, "\"id\":\"\",\"name\":\"unauthenticated\"");
	expect_none("401 without a token", c.line, "claimed");

	c.ev.identity = (struct identity){ .state = IDENTITY_UNPARSABLE };
	render(&c);
	expect("401, unparsable", c.line, "\"id\":\"\",\"name\":\"unauthenticated\"");
	expect_none("401, unparsable", c.line, "claimed");

	c.ev.status = 200;
	render(&c);
	expect("unparsable", c.line, "\"id\":\"\",\"name\":\"unparsable\"");
	expect("unparsable", c.line, "\"credential\":{\"type\":\"token\"");
}

static void
a_certificate_is_the_initiator_whatever_the_answer(void **state)
{
	static const unsigned statuses[] = { 200, 401, 403, 0 };
	struct identity_certificate cert = { SLICE("CN=vault"), SLICE_EMPTY };
	struct call c;

	(void)state;
	for (size_t i = 0; i < COUNT(statuses); i++) {
		begin(&c);
		identity_from_certificate(&cert, &c.ev.identity);
		c.ev.status = statuses[i];
		render(&c);
		expect("certificate", c.line,
		    "\"id\":\"CN=vault\",\"name\":\"\","
		    "\"typeURI\":\"service/security/client/certificateid\"");
		expect("certificate", c.line, "\"credential\":{\"type\":\"certificate\"");
		expect_none("certificate", c.line, "claimed");
	}
	cert = (struct identity_certificate){ SLICE("URI:spiffe://a/b"), SLICE("CN=\"vault\"") };
	begin(&c);
	identity_from_certificate(&cert, &c.ev.identity);
	render(&c);
	expect("a subject beside the name", c.line,
	    "\"credential\":{\"subject\":\"CN=\\\"vault\\\"\",\"type\":\"certificate\","
	    "\"verifiedBy\":\"certificate\"}");
	expect("a subject beside the name", c.line, "\"id\":\"URI:spiffe://a/b\"");
}

static void
names_are_shown_as_the_configuration_says(void **state)
{
	struct call c;
	char ref[SCRUB_KEY_REF_SIZE], want[96];

	(void)state;
	begin(&c);
	expect("omit", render(&c), "\"name\":\"\",\"typeURI\":\"service");
	expect_none("omit", c.line, "jane");
	c.profile.names = EVENT_NAME_PLAIN;
	expect("plain", render(&c), "\"name\":\"jane@example.com\"");
	c.profile.names = EVENT_NAME_HMAC;
	assert_int_equal(scrub_name_ref(hmac_key, 3, SLICE("jane@example.com"), ref), 0);
	snprintf(want, sizeof(want), "\"name\":\"%s\"", ref);
	expect("hmac", render(&c), want);
	expect_none("hmac", c.line, "jane");
	c.profile.hmac_key = NULL;
	expect("hmac without a key", render(&c), "\"name\":\"\",\"typeURI\":\"service");
	expect_none("hmac without a key", c.line, "jane");
}

static void
the_kind_of_initiator_is_its_type(void **state)
{
	static const struct {
		enum identity_kind kind;
		const char *want;
	} cases[] = {
		{ IDENTITY_USER, "\"typeURI\":\"service/security/account/user\"" },
		{ IDENTITY_SERVICE_ID, "\"typeURI\":\"service/security/account/serviceid\"" },
		{ IDENTITY_PROFILE, "\"typeURI\":\"service/security/account/profile\"" },
		{ IDENTITY_CLIENT_CERT, "\"typeURI\":\"service/security/client/certificateid\"" },
	};
	struct call c;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.ev.identity.kind = cases[i].kind;
		expect("kind", render(&c), cases[i].want);
	}
}

static void
the_crn_stops_where_nobody_vouches(void **state)
{
	static const char *const listed[] = { "00000000-0000-0000-0000-000000000000", INSTANCE };
	static const struct {
		const char *label;
		unsigned status;
		bool login;
		const char *configured, *claimed;
		bool listed;
		const char *instance, *want;
	} cases[] = {
		{ "verified", 200, true, "", ACCOUNT, false, INSTANCE, CRN },
		{ "account of the configuration", 200, true, "conf", ACCOUNT, false, INSTANCE,
		    CRN_REGION "conf:" INSTANCE "::" },
		{ "not verified", 404, true, "", ACCOUNT, false, INSTANCE, CRN_REGION ":::" },
		{ "not verified, account of the configuration", 404, true, "conf", ACCOUNT, false,
		    INSTANCE, CRN_REGION "conf:::" },
		{ "not verified, instance in the list", 404, true, "conf", ACCOUNT, true, INSTANCE,
		    CRN_REGION "conf:" INSTANCE "::" },
		{ "list in other case", 404, true, "conf", ACCOUNT, true,
		    "FD692647-43d0-4699-9f83-f39a54b1327b",
		    CRN_REGION "conf:FD692647-43d0-4699-9f83-f39a54b1327b::" },
		{ "other instance than the list's, not verified", 404, true, "conf", ACCOUNT, true,
		    KEY, CRN_REGION "conf:::" },
		{ "other instance than the list's, verified", 200, true, "conf", ACCOUNT, true, KEY,
		    CRN_REGION "conf:" KEY "::" },
		{ "no login", 200, false, "", ACCOUNT, false, INSTANCE, CRN_REGION ":::" },
		{ "redacted instance", 200, true, "", ACCOUNT, false, "[redacted]",
		    CRN_REGION ACCOUNT ":::" },
		{ "no instance", 200, true, "", ACCOUNT, false, "", CRN_REGION ACCOUNT ":::" },
		{ "redacted account", 200, true, "", "[redacted]", false, INSTANCE,
		    CRN_REGION ":" INSTANCE "::" },
		{ "no account", 200, true, "", "", false, INSTANCE, CRN_REGION ":" INSTANCE "::" },
	};
	struct call c;
	char want[200];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.ev.status = cases[i].status;
		c.route.login = cases[i].login;
		c.profile.account = cases[i].configured;
		c.profile.instances = listed;
		c.profile.ninstances = cases[i].listed ? COUNT(listed) : 0;
		strcpy(c.ev.identity.account, cases[i].claimed);
		strcpy(c.ev.instance, cases[i].instance);
		render(&c);
		snprintf(want, sizeof(want), "\"logSourceCRN\":\"%s\"", cases[i].want);
		expect(cases[i].label, c.line, want);
		snprintf(want, sizeof(want), "\"target\":{\"id\":\"%s\"", cases[i].want);
		expect(cases[i].label, c.line, want);
	}
}

static void
a_key_is_named_as_the_configuration_says(void **state)
{
	static const struct {
		const char *label;
		enum event_key_ids how;
		const char *key;
		unsigned status;
		const char *id, *ref;
	} cases[] = {
		{ "omit", EVENT_KEY_OMIT, KEY, 200, CRN, NULL },
		{ "plain UUID", EVENT_KEY_PLAIN, KEY, 200,
		    CRN_REGION ACCOUNT ":" INSTANCE ":key:" KEY, NULL },
		{ "plain alias", EVENT_KEY_PLAIN, "my-alias", 200, CRN, NULL },
		{ "plain without a key", EVENT_KEY_PLAIN, "", 200, CRN, NULL },
		{ "plain, not verified", EVENT_KEY_PLAIN, KEY, 404, CRN_REGION ":::", NULL },
		{ "hmac of a UUID", EVENT_KEY_HMAC, KEY, 200, CRN, KEY },
		{ "hmac of an alias", EVENT_KEY_HMAC, "my-alias", 200, CRN, "my-alias" },
		{ "hmac, not verified", EVENT_KEY_HMAC, KEY, 404, CRN_REGION ":::", KEY },
		{ "hmac without a key", EVENT_KEY_HMAC, "", 200, CRN, NULL },
	};
	struct call c;
	char ref[SCRUB_KEY_REF_SIZE], want[256];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.profile.key_ids = cases[i].how;
		c.ev.status = cases[i].status;
		strcpy(c.ev.key, cases[i].key);
		render(&c);
		snprintf(want, sizeof(want), "\"target\":{\"id\":\"%s\",\"name\"", cases[i].id);
		if (cases[i].ref != NULL) {
			assert_int_equal(scrub_key_ref(hmac_key, 3, SLICE(INSTANCE),
					     slice_of(cases[i].ref), ref),
			    0);
			snprintf(want, sizeof(want),
			    "\"target\":{\"id\":\"%s\",\"keyRef\":\"%s\",\"name\"", cases[i].id,
			    ref);
		}
		expect(cases[i].label, c.line, want);
		if (cases[i].how != EVENT_KEY_PLAIN && cases[i].key[0] != '\0')
			expect_none(cases[i].label, c.line, cases[i].key);
	}
	begin(&c);
	c.profile.key_ids = EVENT_KEY_HMAC;
	strcpy(c.ev.instance, "[redacted]");
	assert_int_equal(scrub_key_ref(hmac_key, 3, SLICE_EMPTY, SLICE(KEY), ref), 0);
	expect("hmac without an instance", render(&c), ref);
	c.profile.hmac_key = NULL;
	strcpy(c.ev.key, KEY);
	expect_none("hmac without the secret", render(&c), "keyRef");
}

static void
messages_read_as_verb_and_object(void **state)
{
	static const struct {
		const char *action;
		unsigned status;
		const char *want;
	} cases[] = {
		{ "kms.secrets.unwrap", 200, "Key Protect: unwrap secret" },
		{ "kms.secrets.unwrap", 500, "Key Protect: unwrap secret -failure" },
		{ "kms.secrets.unwrap", 0, "Key Protect: unwrap secret" },
		{ "kms.secrets.setkeyfordeletion", 200, "Key Protect: setkeyfordeletion secret" },
		{ "kms.policies.write", 200, "Key Protect: write policy" },
		{ "kms.instance-policies.read", 200, "Key Protect: read instance policy" },
		{ "kms.registrations.list", 200, "Key Protect: list registration" },
		{ "kms.key-rings.delete", 404, "Key Protect: delete key ring -failure" },
		{ "kms.import-token.create", 200, "Key Protect: create import token" },
		{ "kms.secrets-alias.create", 200, "Key Protect: create secrets-alias" },
		{ "kms.a.b.read", 200, "Key Protect: read a.b" },
		{ "service.read", 200, "Key Protect: read" },
		{ "read", 200, "Key Protect: read" },
	};
	struct call c;
	char want[96];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.route.action = cases[i].action;
		c.ev.status = cases[i].status;
		snprintf(want, sizeof(want), "\"message\":\"%s\"", cases[i].want);
		expect(cases[i].action, render(&c), want);
	}
}

static void
the_vocabulary_names_the_action(void **state)
{
	struct call c;

	(void)state;
	begin(&c);
	c.profile.vocabulary = EVENT_2019;
	expect("2019", render(&c), "{\"action\":\"kms.secrets.unwrap-old\",");
	expect("2019", c.line, "\"message\":\"Key Protect: unwrap secret\"");
}

static void
data_event_is_the_routes(void **state)
{
	struct call c;

	(void)state;
	begin(&c);
	c.route.data_event = false;
	expect("no data event", render(&c), "\"dataEvent\":false,");
}

static void
an_id_of_the_answer_stands_where_2019_readers_look(void **state)
{
	static const struct {
		enum correlation_source source;
		const char *word;
		bool in_response;
	} cases[] = {
		{ CORRELATION_SERVICE, "\"correlationSource\":\"service\"", true },
		{ CORRELATION_ECHOED, "\"correlationSource\":\"echoed\"", true },
		{ CORRELATION_REQUEST, "\"correlationSource\":\"request\"", false },
		{ CORRELATION_NONE, "\"correlationSource\":\"none\"", false },
	};
	struct call c;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin(&c);
		c.ev.correlation_source = cases[i].source;
		expect("source", render(&c), cases[i].word);
		if (cases[i].in_response)
			expect("source", c.line,
			    "\"responseHeader\":{\"content\":{\"correlationId\":\"" SERVICE_ID
			    "\"}}");
		else
			expect_none("source", c.line, "responseHeader");
	}
}

/* ---- the facts of a head ---- */

static void
add_field(struct http_head *h, const char *name, const char *value)
{
	http_head_add(h, slice_of(name))->value = slice_of(value);
}

struct facts {
	struct http_head head;
	struct route route;
	struct route_match match;
	struct audit_event ev;
};

static void
begin_facts(struct facts *f)
{
	memset(f, 0, sizeof(*f));
	memset(&f->ev, 0xa5, sizeof(f->ev));
	f->head.method = SLICE("POST");
	f->match.route = &f->route;
	f->match.matched = true;
	f->match.key = SLICE_EMPTY;
}

static void
take_request(struct facts *f)
{
	event_from_request(&f->ev, &f->head, &f->match, SLICE("Correlation-Id"), SCRUB_UUID);
	identity_from_authorization(event_authorization(&f->head), &f->ev.identity);
}

/* {"iam_id":"IBMid-1"} */
#define TOKEN "Bearer e30.eyJpYW1faWQiOiJJQk1pZC0xIn0.c2ln"

static void
a_request_gives_its_facts(void **state)
{
	struct facts f;

	(void)state;
	begin_facts(&f);
	add_field(&f.head, "bluemix-instance", INSTANCE);
	add_field(&f.head, "X-Kms-Key-Ring", "my-ring");
	add_field(&f.head, "User-Agent", "curl/7.88.1 (x)");
	add_field(&f.head, "Authorization", TOKEN);
	add_field(&f.head, "correlation-id", CLIENT_ID);
	f.match.key = SLICE("my_alias");
	strcpy(f.match.shape, "/api");
	take_request(&f);
	assert_ptr_equal(f.ev.route, &f.route);
	assert_true(f.ev.matched);
	assert_int_equal(f.ev.refusal, REFUSAL_NONE);
	assert_string_equal(f.ev.method, "POST");
	assert_string_equal(f.ev.instance, INSTANCE);
	assert_string_equal(f.ev.key_ring, "my-ring");
	assert_string_equal(f.ev.agent, "curl/7.88.1");
	assert_string_equal(f.ev.key, "my_alias");
	assert_string_equal(f.ev.shape, "/api");
	assert_string_equal(f.ev.identity.iam_id, "IBMid-1");
	assert_string_equal(f.ev.correlation, CLIENT_ID);
	assert_int_equal(f.ev.correlation_source, CORRELATION_REQUEST);
}

static void
a_bare_request_gives_empty_facts(void **state)
{
	struct facts f;

	(void)state;
	begin_facts(&f);
	f.match.matched = false;
	f.match.refusal = REFUSAL_DENIED;
	take_request(&f);
	assert_false(f.ev.matched);
	assert_int_equal(f.ev.refusal, REFUSAL_DENIED);
	assert_string_equal(f.ev.instance, "");
	assert_string_equal(f.ev.key_ring, "");
	assert_string_equal(f.ev.agent, "");
	assert_string_equal(f.ev.key, "");
	assert_string_equal(f.ev.shape, "");
	assert_int_equal(f.ev.identity.state, IDENTITY_NONE);
	assert_string_equal(f.ev.correlation, "");
	assert_int_equal(f.ev.correlation_source, CORRELATION_NONE);
}

static void
what_does_not_fit_is_redacted(void **state)
{
	struct facts f;

	(void)state;
	begin_facts(&f);
	f.head.method = SLICE("PROPFIND");
	add_field(&f.head, "Bluemix-Instance", "my-instance");
	add_field(&f.head, "X-Kms-Key-Ring", "my ring");
	add_field(&f.head, "User-Agent", "secret");
	add_field(&f.head, "Authorization", "Basic YTpi");
	add_field(&f.head, "Correlation-Id", "secret");
	f.match.key = SLICE("my%2Falias");
	take_request(&f);
	assert_string_equal(f.ev.method, "[redacted]");
	assert_string_equal(f.ev.instance, "[redacted]");
	assert_string_equal(f.ev.key_ring, "[redacted]");
	assert_string_equal(f.ev.agent, "[redacted]");
	assert_string_equal(f.ev.key, "");
	assert_int_equal(f.ev.identity.state, IDENTITY_UNPARSABLE);
	assert_string_equal(f.ev.correlation, "[redacted]");
	assert_int_equal(f.ev.correlation_source, CORRELATION_REQUEST);
}

static void
of_a_repeated_field_nothing_is_believed(void **state)
{
	struct facts f;

	(void)state;
	begin_facts(&f);
	for (int i = 0; i < 2; i++) {
		add_field(&f.head, "Bluemix-Instance", INSTANCE);
		add_field(&f.head, "X-Kms-Key-Ring", "my-ring");
		add_field(&f.head, "User-Agent", "curl/7.88.1");
		add_field(&f.head, "Authorization", TOKEN);
		add_field(&f.head, "Correlation-Id", CLIENT_ID);
	}
	take_request(&f);
	assert_string_equal(f.ev.instance, "[redacted]");
	assert_string_equal(f.ev.key_ring, "[redacted]");
	assert_string_equal(f.ev.agent, "[redacted]");
	assert_int_equal(f.ev.identity.state, IDENTITY_UNPARSABLE);
	assert_string_equal(f.ev.correlation, "[redacted]");
	event_from_response(&f.ev, &f.head, SLICE("Correlation-Id"), SCRUB_UUID);
	assert_string_equal(f.ev.correlation, "[redacted]");
	assert_int_equal(f.ev.correlation_source, CORRELATION_SERVICE);
}

static void
the_answers_id_wins(void **state)
{
	static const struct {
		const char *label, *client, *service, *want;
		enum correlation_source source;
	} cases[] = {
		{ "service alone", NULL, SERVICE_ID, SERVICE_ID, CORRELATION_SERVICE },
		{ "both differ", CLIENT_ID, SERVICE_ID, SERVICE_ID, CORRELATION_SERVICE },
		{ "echoed", CLIENT_ID, CLIENT_ID, CLIENT_ID, CORRELATION_ECHOED },
		{ "echoed in other case", "EF56E7ED-ABF5-4DA4-BBF1-AC0D381891FD", SERVICE_ID,
		    SERVICE_ID, CORRELATION_ECHOED },
		{ "no answer had one", CLIENT_ID, NULL, CLIENT_ID, CORRELATION_REQUEST },
		{ "an empty one is none", CLIENT_ID, "", CLIENT_ID, CORRELATION_REQUEST },
		{ "none at all", NULL, NULL, "", CORRELATION_NONE },
		{ "answer's does not fit", CLIENT_ID, "secret", "[redacted]", CORRELATION_SERVICE },
		{ "neither fits", "secret", "secret", "[redacted]", CORRELATION_SERVICE },
		{ "client's looks redacted", "[redacted]", "[redacted]", "[redacted]",
		    CORRELATION_SERVICE },
	};
	struct facts f;
	struct http_head answer;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		begin_facts(&f);
		memset(&answer, 0, sizeof(answer));
		answer.status = 404;
		if (cases[i].client != NULL)
			add_field(&f.head, "Correlation-Id", cases[i].client);
		if (cases[i].service != NULL)
			add_field(&answer, "correlation-id", cases[i].service);
		take_request(&f);
		event_from_response(&f.ev, &answer, SLICE("Correlation-Id"), SCRUB_UUID);
		if (strcmp(f.ev.correlation, cases[i].want) != 0 ||
		    f.ev.correlation_source != cases[i].source)
			fail_msg("%s: %s, source %d", cases[i].label, f.ev.correlation,
			    (int)f.ev.correlation_source);
		assert_int_equal(f.ev.status, 404);
		assert_true(f.ev.from_service);
	}
}

static void
a_second_answer_is_no_echo_of_the_first(void **state)
{
	struct facts f;
	struct http_head answer;

	(void)state;
	begin_facts(&f);
	memset(&answer, 0, sizeof(answer));
	add_field(&answer, "Correlation-Id", SERVICE_ID);
	take_request(&f);
	for (int i = 0; i < 2; i++) {
		event_from_response(&f.ev, &answer, SLICE("Correlation-Id"), SCRUB_UUID);
		assert_int_equal(f.ev.correlation_source, CORRELATION_SERVICE);
	}
}

static void
a_set_may_name_another_header_and_grammar(void **state)
{
	struct facts f;
	struct http_head answer;

	(void)state;
	begin_facts(&f);
	memset(&answer, 0, sizeof(answer));
	answer.status = 200;
	add_field(&f.head, "Correlation-Id", CLIENT_ID);
	add_field(&f.head, "X-Request-Id", "abc");
	add_field(&answer, "x-request-id", "ABC");
	event_from_request(&f.ev, &f.head, &f.match, SLICE("X-Request-ID"), SCRUB_CORRELATION);
	assert_string_equal(f.ev.correlation, "abc");
	event_from_response(&f.ev, &answer, SLICE("X-Request-ID"), SCRUB_CORRELATION);
	assert_string_equal(f.ev.correlation, "ABC");
	assert_int_equal(f.ev.correlation_source, CORRELATION_SERVICE);
}

/* ---- bounds ---- */

static void
fill(char *out, size_t size, const char *unit)
{
	size_t n = strlen(unit), used = 0;

	for (; used + n < size; used += n)
		memcpy(out + used, unit, n);
	out[used] = '\0';
}

#define FILL(member, unit) fill((member), sizeof(member), (unit))

/* Every field as long as it can be, of the given text; nothing shortened by a grammar. */
static void
fill_call(struct call *c, const char *unit, char text[2000])
{
	struct audit_event *ev = &c->ev;

	fill(text, 2000, unit);
	c->route.action = c->route.action_2019 = c->route.path = text;
	c->profile.service_name = c->profile.crn_service = c->profile.type_uri = text;
	c->profile.region = c->profile.account = c->profile.observer_id = text;
	c->profile.names = EVENT_NAME_PLAIN;
	ev->attempts = 2;
	ev->recovered = true;
	ev->client_gone = true;
	ev->matched = false;
	FILL(ev->method, unit);
	FILL(ev->correlation, unit);
	FILL(ev->key_ring, unit);
	FILL(ev->agent, unit);
	FILL(ev->address, unit);
	FILL(ev->peer, unit);
	FILL(ev->shape, unit);
	FILL(ev->id, unit);
	FILL(ev->identity.iam_id, unit);
	FILL(ev->identity.name, unit);
	FILL(ev->identity.other, unit);
	FILL(ev->identity.authn_id, unit);
	FILL(ev->identity.account, unit);
	FILL(ev->identity.grant, unit);
}

static void
no_facts_make_a_line_too_long(void **state)
{
	static const char *const units[] = { "x", "\"", "\\", "\n", "\x01", "\xe2\x80\xa8", "\xff",
		"\xf0\x9f\x98\x80", "\xc3\xa9" };
	static const enum identity_state states[] = { IDENTITY_TOKEN, IDENTITY_UNPARSABLE,
		IDENTITY_CERTIFICATE };
	static const unsigned statuses[] = { 200, 401, 511, 999, 0 };
	static char text[2000];
	struct call c;
	size_t longest = 0;

	(void)state;
	for (size_t i = 0; i < COUNT(units) * COUNT(states) * COUNT(statuses) * 3; i++) {
		size_t n;

		begin(&c);
		c.profile.key_ids = (enum event_key_ids)(i % 3);
		c.ev.status = statuses[i / 3 % COUNT(statuses)];
		fill_call(&c, units[i / 3 / COUNT(statuses) % COUNT(units)], text);
		c.ev.identity.state = states[i / 3 / COUNT(statuses) / COUNT(units)];
		n = strlen(render(&c));
		longest = n > longest ? n : longest;
		if (c.ev.status == 401) {
			c.ev.refusal = REFUSAL_BAD_TRANSFER_ENCODING;
			n = strlen(render(&c));
			longest = n > longest ? n : longest;
		}
	}
	print_message("longest line: %zu of %d\n", longest, EVENT_LINE_MAX);
	assert_true(longest > EVENT_LINE_MAX / 2);
	assert_true(longest <= EVENT_LINE_MAX - 64);
}

static void
texts_of_the_bounds_are_not_cut(void **state)
{
	static char action[EVENT_ACTION_MAX + 1], path[EVENT_PATH_MAX + 1],
	    service[EVENT_SERVICE_MAX + 1];
	struct call c;
	char want[400];

	(void)state;
	begin(&c);
	FILL(action, "a");
	FILL(path, "p");
	FILL(service, "s");
	c.route.action = action;
	c.route.path = path;
	c.profile.service_name = service;
	render(&c);
	snprintf(want, sizeof(want), "{\"action\":\"%s\"", action);
	expect("action", c.line, want);
	snprintf(want, sizeof(want), "\"path\":\"%s\"", path);
	expect("path", c.line, want);
	snprintf(want, sizeof(want), "\"message\":\"%s: %s\"", service, action);
	expect("service", c.line, want);
}

/* ---- JSON strings ---- */

static void
strings_are_escaped_as_rfc_8785_asks(void **state)
{
	static const struct {
		struct slice in;
		const char *want;
	} cases[] = {
		{ SLICE_INIT(""), "\"\"" },
		{ SLICE_INIT("plain text"), "\"plain text\"" },
		{ SLICE_INIT("\"\\/"), "\"\\\"\\\\/\"" },
		{ SLICE_INIT("\b\t\n\f\r"), "\"\\b\\t\\n\\f\\r\"" },
		{ SLICE_INIT("\0\x01\x0b\x1f\x7f"), "\"\\u0000\\u0001\\u000b\\u001f\x7f\"" },
		{ SLICE_INIT("\xc3\xa9\xe2\x80\xa8\xf0\x9f\x98\x80"),
		    "\"\xc3\xa9\xe2\x80\xa8\xf0\x9f\x98\x80\"" },
		{ SLICE_INIT("a\xff\xc3z"), "\"a\xef\xbf\xbd\xef\xbf\xbdz\"" },
		{ SLICE_INIT("eight888\"nine"), "\"eight888\\\"nine\"" },
	};
	char out[64];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		size_t n = strlen(cases[i].want);

		assert_int_equal(event_json_string(cases[i].in, out, sizeof(out)), n);
		assert_memory_equal(out, cases[i].want, n);
		assert_int_equal(event_json_string(cases[i].in, out, n), n);
		for (size_t cap = 0; cap < n; cap++)
			assert_int_equal(event_json_string(cases[i].in, out, cap), -1);
	}
}

/* The quick path looks at 16 bytes at once: a special byte is found in texts of any length, wherever
 * it stands. */
static void
a_special_byte_is_found_at_every_place(void **state)
{
	struct call c;

	(void)state;
	for (int b = 1; b < 256; b++) {
		bool special = b < 0x20 || b >= 0x80 || b == '"' || b == '\\';

		for (size_t length = 1; length <= 35; length++) {
			size_t at = ((size_t)b * 7 + length * 5) % length;
			char name[36] = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", want[64];
			long n;

			begin(&c);
			c.profile.names = EVENT_NAME_PLAIN;
			name[length] = '\0';
			name[at] = (char)b;
			strcpy(c.ev.identity.name, name);
			n = event_json_string(slice_of(name), want, sizeof(want) - 1);
			assert_true(n > 0);
			want[n] = '\0';
			assert_int_equal((size_t)n > length + 2, special);
			expect("special byte", render(&c), want);
		}
	}
}

/* ---- the sidecar's own life ---- */

static char self_line[EVENT_HARD_MAX - EVENT_TRAIL_MAX + 1];

static const char *
render_self(const struct event_detail *details, size_t n)
{
	struct event_self ev = {
		.action = "keytrail.start",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: started \"here\"\n",
		.time_ns = 1592840176700000000,
		.id = "01908c5e-7c3a-7123-8abc-0123456789ab",
		.details = details,
		.ndetails = n,
	};
	size_t len = event_render_self("keytrail/00112233445566778899aabbccddeeff", &ev, self_line);

	assert_true(len <= EVENT_HARD_MAX - EVENT_TRAIL_MAX);
	self_line[len] = '\0';
	return self_line;
}

#define SELF_TAIL                                                                                  \
	",\"eventTime\":\"2020-06-22T15:36:16.70+0000\","                                          \
	"\"id\":\"01908c5e-7c3a-7123-8abc-0123456789ab\","                                         \
	"\"message\":\"keytrail: started \\\"here\\\"\xef\xbf\xbd\","                              \
	"\"observer\":{\"id\":\"keytrail/00112233445566778899aabbccddeeff\","                      \
	"\"name\":\"ActivityTracker\"},\"outcome\":\"success\",\"saveServiceCopy\":true,"          \
	"\"severity\":\"warning\""

static void
details_are_sorted_and_typed(void **state)
{
	static const struct event_detail details[] = {
		{ "version", EVENT_DETAIL_STRING, "1.2 \"x\"\n\xe2\x80\xae", 0 },
		{ "newLog", EVENT_DETAIL_BOOL, NULL, 1 },
		{ "clean", EVENT_DETAIL_BOOL, NULL, 0 },
		{ "tornBytes", EVENT_DETAIL_NUMBER, NULL, 9007199254740991 },
		{ "newLogs", EVENT_DETAIL_NUMBER, NULL, 0 },
	};

	(void)state;
	assert_string_equal(render_self(details, COUNT(details)),
	    "{\"action\":\"keytrail.start\",\"dataEvent\":false,\"details\":{\"clean\":false,"
	    "\"newLog\":true,\"newLogs\":0,\"tornBytes\":9007199254740991,"
	    "\"version\":\"1.2 \\\"x\\\"\xef\xbf\xbd\xef\xbf\xbd\"}" SELF_TAIL);
}

static void
no_details_are_an_empty_object(void **state)
{
	(void)state;
	assert_string_equal(render_self(NULL, 0),
	    "{\"action\":\"keytrail.start\",\"dataEvent\":false,\"details\":{}" SELF_TAIL);
}

static void
details_that_do_not_fit_are_left_out_and_said_so(void **state)
{
	static char big[EVENT_DETAIL_MAX + 2], quotes[EVENT_DETAIL_MAX + 1];
	struct event_detail details[EVENT_DETAILS_MAX];
	char keys[EVENT_DETAILS_MAX][8];

	(void)state;
	FILL(big, "x");
	FILL(quotes, "\"");
	details[0] = (struct event_detail){ "tooLong", EVENT_DETAIL_STRING, big, 0 };
	details[1] = (struct event_detail){ "zero", EVENT_DETAIL_NUMBER, NULL, 0 };
	expect("one too long", render_self(details, 2),
	    "\"details\":{\"detailsCut\":true,\"zero\":0}");

	for (size_t i = 0; i < EVENT_DETAILS_MAX; i++) {
		snprintf(keys[i], sizeof(keys[i]), "k%02zu", i);
		details[i] = (struct event_detail){ keys[i], EVENT_DETAIL_STRING, quotes, 0 };
	}
	render_self(details, EVENT_DETAILS_MAX);
	expect("many", self_line, "\"details\":{\"detailsCut\":true,\"k00\":\"");
	expect_none("many", self_line, "\"k02\"");
	expect("many", self_line, SELF_TAIL);

	/* As much as fits before it, so that the mark itself is what would be short of room. */
	for (size_t i = 0; i < EVENT_DETAILS_MAX; i++)
		snprintf(keys[i], sizeof(keys[i]), "a%02zu", i);
	render_self(details, EVENT_DETAILS_MAX);
	expect("mark last", self_line, ",\"detailsCut\":true}");
	expect("mark last", self_line, SELF_TAIL);
}

/* Whatever room the others leave, the mark has its own. */
static void
the_mark_always_fits(void **state)
{
	static char filler[EVENT_DETAIL_MAX + 1], rest[EVENT_DETAIL_MAX + 1];
	const struct event_detail details[] = {
		{ "a0", EVENT_DETAIL_STRING, filler, 0 },
		{ "a1", EVENT_DETAIL_STRING, filler, 0 },
		{ "a2", EVENT_DETAIL_STRING, filler, 0 },
		{ "a3", EVENT_DETAIL_STRING, rest, 0 },
		{ "a4", EVENT_DETAIL_STRING, filler, 0 },
	};
	bool last_fits = true, last_cut = false;

	(void)state;
	FILL(filler, "x");
	for (size_t n = 1500; n < 2000; n++) {
		memset(rest, 'y', n);
		rest[n] = '\0';
		render_self(details, COUNT(details));
		expect("mark", self_line, ",\"detailsCut\":true}");
		expect("mark", self_line, SELF_TAIL);
		last_fits = strstr(self_line, "\"a3\":") != NULL;
		last_cut |= !last_fits;
		assert_true(n > 1500 || last_fits);
	}
	assert_true(last_cut);
}

static void
a_long_message_is_cut_and_the_line_stays_whole(void **state)
{
	static char message[8000];
	struct event_self ev = { .action = "keytrail.stop", .message = message, .id = "x" };
	size_t n;

	(void)state;
	FILL(message, "\"");
	n = event_render_self("keytrail/x", &ev, self_line);
	self_line[n] = '\0';
	expect("cut", self_line, "\\\"\",\"observer\":{");
	assert_true(n < 2048);
}

/* ---- lines for an independent reader: tests/integration/test_canonical.py ---- */

static void
print_line(const char *line)
{
	printf("%s}\n", line);
}

static void
dump_calls(void)
{
	static const char *const names[] = { "jane@example.com", "a\"b\\c\n\t\b\f\r\x01\x7f",
		"caf\xc3\xa9 \xe2\x80\xa8 \xf0\x9f\x98\x80", "", "bad \xff\xc3", "URI:a://b" };
	static const unsigned statuses[] = { 200, 204, 304, 400, 401, 404, 503, 599, 0 };
	struct call c;

	for (unsigned i = 0; i < 5184; i++) {
		unsigned k = i;

		begin(&c);
		c.ev.status = statuses[k % COUNT(statuses)];
		k /= COUNT(statuses);
		strcpy(c.ev.identity.name, names[k % COUNT(names)]);
		k /= COUNT(names);
		c.ev.identity.state = (enum identity_state)(k % 4);
		k /= 4;
		c.profile.key_ids = (enum event_key_ids)(k % 3);
		c.profile.names = (enum event_names)(k % 3);
		k /= 3;
		c.ev.correlation_source = (enum correlation_source)(k & 3);
		c.ev.matched = (k & 1) == 0;
		c.ev.pending = (k & 3) == 3 && c.ev.status == 0;
		c.ev.recovered = (k & 2) != 0;
		strcpy(c.ev.peer, (k & 1) != 0 ? "2001:db8::1" : "");
		strcpy(c.ev.key_ring, (k & 2) != 0 ? "my-ring" : "");
		strcpy(c.ev.identity.other, (k & 2) != 0 ? "CN=a\"b" : "");
		strcpy(c.ev.identity.authn_id, (k & 1) != 0 ? "IBMid-2" : "");
		k /= 4;
		c.ev.refusal = k % 2 == 0 ? REFUSAL_NONE : REFUSAL_DENIED;
		c.ev.attempts = 1 + k % 2;
		if (i % 7 == 0)
			c.ev.route = NULL;
		print_line(render(&c));
	}
}

static void
dump_selves(void)
{
	static const struct event_detail details[] = {
		{ "b", EVENT_DETAIL_STRING, "caf\xc3\xa9 \"\\ \x01 \xe2\x80\xa8", 0 },
		{ "a", EVENT_DETAIL_NUMBER, NULL, 12345678901 },
		{ "ab", EVENT_DETAIL_BOOL, NULL, 1 },
		{ "Z", EVENT_DETAIL_BOOL, NULL, 0 },
	};

	for (size_t n = 0; n <= COUNT(details); n++)
		print_line(render_self(details, n));
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_event),
		cmocka_unit_test(an_event_with_every_optional_member),
		cmocka_unit_test(what_could_not_be_parsed_is_keytrail_refused),
		cmocka_unit_test(severity_goes_by_status_first),
		cmocka_unit_test(outcome_goes_by_status),
		cmocka_unit_test(an_intent_is_pending),
		cmocka_unit_test(the_reason_is_ours_or_the_status),
		cmocka_unit_test(every_refusal_gives_its_label),
		cmocka_unit_test(only_the_service_or_a_certificate_verifies),
		cmocka_unit_test(nobody_writes_another_ones_name),
		cmocka_unit_test(a_certificate_is_the_initiator_whatever_the_answer),
		cmocka_unit_test(names_are_shown_as_the_configuration_says),
		cmocka_unit_test(the_kind_of_initiator_is_its_type),
		cmocka_unit_test(the_crn_stops_where_nobody_vouches),
		cmocka_unit_test(a_key_is_named_as_the_configuration_says),
		cmocka_unit_test(messages_read_as_verb_and_object),
		cmocka_unit_test(the_vocabulary_names_the_action),
		cmocka_unit_test(data_event_is_the_routes),
		cmocka_unit_test(an_id_of_the_answer_stands_where_2019_readers_look),
		cmocka_unit_test(a_request_gives_its_facts),
		cmocka_unit_test(a_bare_request_gives_empty_facts),
		cmocka_unit_test(what_does_not_fit_is_redacted),
		cmocka_unit_test(of_a_repeated_field_nothing_is_believed),
		cmocka_unit_test(the_answers_id_wins),
		cmocka_unit_test(a_second_answer_is_no_echo_of_the_first),
		cmocka_unit_test(a_set_may_name_another_header_and_grammar),
		cmocka_unit_test(no_facts_make_a_line_too_long),
		cmocka_unit_test(texts_of_the_bounds_are_not_cut),
		cmocka_unit_test(strings_are_escaped_as_rfc_8785_asks),
		cmocka_unit_test(a_special_byte_is_found_at_every_place),
		cmocka_unit_test(details_are_sorted_and_typed),
		cmocka_unit_test(no_details_are_an_empty_object),
		cmocka_unit_test(details_that_do_not_fit_are_left_out_and_said_so),
		cmocka_unit_test(the_mark_always_fits),
		cmocka_unit_test(a_long_message_is_cut_and_the_line_stays_whole),
	};

	if (argc == 2 && strcmp(argv[1], "--dump") == 0) {
		dump_calls();
		dump_selves();
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
