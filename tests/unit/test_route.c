#include "keytrail/config.h"
#include "keytrail/route.h"

#include "key_protect_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define UUID	     "76c2c9cb-9095-5a24-811b-0ef4b24ac4d5"

/* ---- helpers ---- */

static void
add_field(struct http_head *h, char *line)
{
	char *colon = strchr(line, ':');

	assert_non_null(colon);
	http_head_add(h, (struct slice){ line, (size_t)(colon - line) })->value =
	    slice_trim(slice_of(colon + 1));
}

/* A head as the parser makes it, but with nothing refused, and with a body of which it says no more;
 * `headers` are lines, changed here. */
static struct http_head
head_of(const char *method, const char *target, char *headers)
{
	bool body = method[0] == 'P' || strcmp(method, "DELETE") == 0;
	struct http_head h = { .method = slice_of(method),
		.target = slice_of(target),
		.minor = 1,
		.framing = body ? HTTP_CHUNKED : HTTP_NO_BODY };
	const char *question = strchr(target, '?');
	char *save = NULL;

	h.path = slice_of(target);
	h.query = SLICE_EMPTY;
	if (question != NULL) {
		h.path.n = (size_t)(question - target);
		h.query = slice_of(question + 1);
		h.has_query = true;
	}
	for (char *line = strtok_r(headers, "\n", &save); line != NULL;
	     line = strtok_r(NULL, "\n", &save))
		add_field(&h, line);
	return h;
}

static void
match(const struct route_table *t, const char *method, const char *target, const char *headers,
    struct route_match *m)
{
	static char copy[1024];
	struct http_head h;

	snprintf(copy, sizeof(copy), "%s", headers != NULL ? headers : "");
	h = head_of(method, target, copy);
	route_match(t, &h, m);
}

static const char minimal[] =
    "{\"listen\":{\"address\":\"127.0.0.1:1\",\"tls\":null},"
    "\"upstream\":{\"address\":\"127.0.0.1:2\",\"tls\":null},"
    "\"audit\":{\"trail\":\"/tmp/trail\",\"sign\":null},\"include\":[\"key-protect.json\"]}";

static int
load_set(void **state)
{
	struct config *cfg;
	struct err err;

	if (config_load_text("test.json", slice_of(minimal), "proxy/routes", &cfg, &err) == -1)
		fail_msg("%s", err.msg);
	*state = cfg;
	return 0;
}

static int
free_set(void **state)
{
	config_unref(*state);
	return 0;
}

static const struct route_table *
set_of(void **state)
{
	return ((const struct config *)*state)->routes;
}

/* ---- the shipped set ---- */

static const struct route *
find_row(const struct route_table *t, size_t i)
{
	char want[600], have[600];

	if (key_protect_rows[i].query_action == NULL)
		snprintf(want, sizeof(want), "%s %s", key_protect_rows[i].method,
		    key_protect_rows[i].path);
	else
		snprintf(want, sizeof(want), "%s %s with ?action=%s", key_protect_rows[i].method,
		    key_protect_rows[i].path, key_protect_rows[i].query_action);
	for (size_t j = 0; j < route_table_size(t); j++) {
		route_describe(route_table_get(t, j), have, sizeof(have));
		if (strcmp(want, have) == 0)
			return route_table_get(t, j);
	}
	fail_msg("the set has no %s", want);
	return NULL;
}

static void
the_set_has_every_operation_and_no_other(void **state)
{
	const struct route_table *t = set_of(state);

	assert_int_equal(route_table_size(t), KEY_PROTECT_ROWS + 1);
	for (size_t i = 0; i < KEY_PROTECT_ROWS; i++) {
		const struct route *r = find_row(t, i);
		const char *old = key_protect_rows[i].action_2019;

		assert_string_equal(r->action, key_protect_rows[i].action);
		assert_string_equal(r->action_2019, old != NULL ? old : r->action);
		assert_int_equal(r->severity, key_protect_rows[i].severity);
		assert_int_equal(r->guarantee, key_protect_rows[i].guarantee);
		assert_int_equal(r->data_event, key_protect_rows[i].data_event);
		assert_int_equal(r->retry, key_protect_rows[i].retry);
		assert_int_equal(r->fallback, key_protect_rows[i].fallback);
		assert_true(r->login);
	}
}

static void
every_operation_is_matched_by_its_own_row(void **state)
{
	const struct route_table *t = set_of(state);

	for (size_t i = 0; i < KEY_PROTECT_ROWS; i++) {
		struct route_match m;

		match(t, key_protect_rows[i].example_method, key_protect_rows[i].example_target,
		    NULL, &m);
		assert_ptr_equal(m.route, find_row(t, i));
		assert_int_equal(m.refusal, REFUSAL_NONE);
		assert_int_equal(m.matched, !key_protect_rows[i].fallback);
		assert_int_equal(m.shape[0] != '\0', key_protect_rows[i].fallback);
	}
}

static const struct {
	const char *label, *method, *target, *action, *shape;
} rules[] = {
	{ "registrations is a literal, not a key", "GET", "/api/v2/keys/registrations",
	    "kms.registrations.list", "" },
	{ "a method that the literal lacks falls to the parameter", "DELETE",
	    "/api/v2/keys/registrations", "kms.secrets.delete", "" },
	{ "keys_with_policy_overrides is not under keys", "POST",
	    "/api/v2/keys_with_policy_overrides", "kms.secrets-with-policy-overrides.create", "" },
	{ "its other methods are outside every prefix", "GET", "/api/v2/keys_with_policy_overrides",
	    "kms.secrets.default", "/api/v2/keys_with_policy_overrides" },
	{ "old form with other parameters before and after", "POST",
	    "/api/v2/keys/" UUID "?force=true&action=rotate&include_resource=true",
	    "kms.secrets.rotate", "" },
	{ "the word is camelCase in the query", "POST",
	    "/api/v2/keys/" UUID "?action=setKeyForDeletion", "kms.secrets.setkeyfordeletion", "" },
	{ "and in the path", "POST", "/api/v2/keys/" UUID "/actions/unsetKeyForDeletion",
	    "kms.secrets.unsetkeyfordeletion", "" },
	{ "restore has a path of its own", "POST", "/api/v2/keys/" UUID "/restore",
	    "kms.secrets.restore", "" },
	{ "a key by its alias", "GET", "/api/v2/keys/my-alias_1", "kms.secrets.read", "" },
	{ "a CRN with encoded slashes is one segment", "DELETE",
	    "/api/v2/keys/" UUID "/registrations/crn%3Av1%2Fa%2Fb", "kms.registrations.delete",
	    "" },
	{ "a CRN that is encoded twice too", "PUT",
	    "/api/v2/keys/" UUID "/registrations/crn%3Av1%252fa", "kms.registrations.write", "" },
	{ "other parameters change nothing", "PUT",
	    "/api/v2/keys/" UUID "/policies?policy=rotation", "kms.policies.write", "" },
	{ "search text changes nothing", "GET",
	    "/api/v2/keys?limit=1&offset=2&search=not%3Aaction%3Dwrap&sort=-id", "kms.secrets.list",
	    "" },
	{ "no action in the old form", "POST", "/api/v2/keys/" UUID, "kms.secrets.default",
	    "/api/v2/keys/{uuid}" },
	{ "an unknown word after /actions/", "POST", "/api/v2/keys/" UUID "/actions/explode",
	    "kms.secrets.default", "/api/v2/keys/{uuid}/actions/{}" },
	{ "a wrong method on policies", "DELETE", "/api/v2/keys/" UUID "/policies",
	    "kms.policies.default", "/api/v2/keys/{uuid}/policies" },
	{ "policies has no rest", "GET", "/api/v2/keys/" UUID "/policies/1", "kms.secrets.default",
	    "/api/v2/keys/{uuid}/policies/{n}" },
	{ "a wrong method on registrations", "OPTIONS", "/api/v2/keys/x/registrations",
	    "kms.registrations.default", "/api/v2/keys/{}/registrations" },
	{ "too deep under registrations", "GET", "/api/v2/keys/x/registrations/y/z",
	    "kms.registrations.default", "/api/v2/keys/{}/registrations/{}/{}" },
	{ "deactivate needs its query", "POST", "/api/v2/keys/x/registrations",
	    "kms.registrations.default", "/api/v2/keys/{}/registrations" },
	{ "a wrong method on an alias", "GET", "/api/v2/keys/x/aliases/y",
	    "kms.secrets-alias.request", "/api/v2/keys/{}/aliases/{}" },
	{ "a wrong method on the instance's policies", "POST", "/api/v2/instance/policies",
	    "kms.instance-policies.request", "/api/v2/instance/policies" },
	{ "a wrong method on the import token", "DELETE", "/api/v2/import_token",
	    "kms.import-token.request", "/api/v2/import_token" },
	{ "a wrong method on key rings", "PATCH", "/api/v2/key_rings/r", "kms.key-rings.request",
	    "/api/v2/key_rings/{}" },
	{ "a wrong method on KMIP adapters", "PUT", "/api/v2/kmip_adapters/a/certificates/1",
	    "kms.kmip-management.default", "/api/v2/kmip_adapters/{}/certificates/{n}" },
	{ "outside every prefix", "GET", "/metrics/12/x", "kms.secrets.default", "/{}/{n}/{}" },
	{ "the root", "GET", "/", "kms.secrets.default", "/" },
	{ "HEAD is no GET", "HEAD", "/api/v2/keys/" UUID, "kms.secrets.default",
	    "/api/v2/keys/{uuid}" },
	{ "a method of another world", "PURGE", "/api/v2/keys", "kms.secrets.default",
	    "/api/v2/keys" },
	{ "OPTIONS *", "OPTIONS", "*", "kms.secrets.default", "*" },
};

static void
the_matching_rules_hold(void **state)
{
	for (size_t i = 0; i < COUNT(rules); i++) {
		struct route_match m;

		match(set_of(state), rules[i].method, rules[i].target, NULL, &m);
		if (strcmp(m.route->action, rules[i].action) != 0 ||
		    strcmp(m.shape, rules[i].shape) != 0 || m.refusal != REFUSAL_NONE ||
		    m.matched != (rules[i].shape[0] == '\0'))
			fail_msg("%s: %s, \"%s\", %s", rules[i].label, m.route->action, m.shape,
			    refusal_info(m.refusal)->label);
	}
}

#define BLANKS_65 "+++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++"
#define BLANKS	  BLANKS_65 BLANKS_65 BLANKS_65 BLANKS_65

static const struct {
	const char *label, *method, *target, *headers;
	enum http_refusal refusal;
	const char *action; /* what it is recorded as */
} refused[] = {
	{ "an unknown word", "POST", "/api/v2/keys/x?action=foo", NULL, REFUSAL_AMBIGUOUS_QUERY,
	    "kms.secrets.default" },
	{ "an empty word", "POST", "/api/v2/keys/x?action=", NULL, REFUSAL_AMBIGUOUS_QUERY,
	    "kms.secrets.default" },
	{ "no word", "POST", "/api/v2/keys/x?action", NULL, REFUSAL_AMBIGUOUS_QUERY,
	    "kms.secrets.default" },
	{ "the wrong case of the word", "POST", "/api/v2/keys/x?action=Wrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "an encoded word", "POST", "/api/v2/keys/x?action=wr%61p", NULL, REFUSAL_AMBIGUOUS_QUERY,
	    "kms.secrets.default" },
	{ "a word and more", "POST", "/api/v2/keys/x?action=wrap%00", NULL, REFUSAL_AMBIGUOUS_QUERY,
	    "kms.secrets.default" },
	{ "two words", "POST", "/api/v2/keys/x?action=wrap&action=unwrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "the same word twice", "POST", "/api/v2/keys/x?action=wrap&action=wrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "Action", "POST", "/api/v2/keys/x?Action=wrap", NULL, REFUSAL_AMBIGUOUS_QUERY,
	    "kms.secrets.default" },
	{ "both cases", "POST", "/api/v2/keys/x?action=wrap&ACTION=unwrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "an encoded name", "POST", "/api/v2/keys/x?action=wrap&%61ction=unwrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "a name encoded twice", "POST", "/api/v2/keys/x?action=wrap&%2561ction=unwrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "a second action beside the new form", "POST",
	    "/api/v2/keys/x/actions/wrap?action=unwrap", NULL, REFUSAL_AMBIGUOUS_QUERY,
	    "kms.secrets.default" },
	{ "even the same one", "POST", "/api/v2/keys/x/actions/wrap?action=wrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "a name behind more blanks than a name may have", "POST",
	    "/api/v2/keys/x?" BLANKS "action=unwrap", NULL, REFUSAL_METHOD_OVERRIDE,
	    "kms.secrets.default" },
	{ "an action within a value", "POST", "/api/v2/keys/x?x=1%26action=unwrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "an action within a name", "POST", "/api/v2/keys/x?x%26action=unwrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "an action with its value in its name", "POST", "/api/v2/keys/x?action%3Dunwrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "an action on another method", "DELETE", "/api/v2/keys/x?action=restore", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },
	{ "an action of another path", "POST", "/api/v2/keys/x/registrations?action=wrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.registrations.default" },
	{ "an action outside every prefix", "POST", "/elsewhere?action=wrap", NULL,
	    REFUSAL_AMBIGUOUS_QUERY, "kms.secrets.default" },

	{ "a literal in capitals", "GET", "/API/v2/keys", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "the last literal", "POST", "/api/v2/keys/x/actions/Wrap", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "a literal below a parameter", "PUT", "/api/v2/keys/x/Policies", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "a literal beside a parameter", "GET", "/api/v2/keys/Registrations", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "white space around a literal", "GET", "/api/v2/keys/%20registrations", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "a prefix in capitals", "GET", "/api/v2/KEY_RINGS/x", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "an encoded slash for a slash", "GET", "/api/v2%2Fkeys", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "an encoded backslash in the rest", "GET", "/api/v2/keys/x/y%5Cz", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "an encoded slash that leads to another route", "DELETE", "/api/v2/keys/x%2fpurge", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "two of them, beside a discriminator", "POST",
	    "/api/v2/keys/x%2Factions%2funwrap?action=wrap", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "one that is encoded twice", "GET", "/api/v2/keys/x%252fmetadata", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "one in another case", "GET", "/api/v2/keys/x%2FMetadata", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "an encoded backslash", "GET", "/api/v2/kmip_adapters/x%5Ccertificates", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.kmip-management.default" },
	{ "encoded slashes that are collapsed", "GET", "/api/v2/keys/x%2F%2Fpolicies%2F", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "an encoded question mark", "POST", "/api/v2/keys/x%3Faction=unwrap?action=wrap", NULL,
	    REFUSAL_AMBIGUOUS_PATH, "kms.secrets.default" },
	{ "an encoded percent in the rest", "GET", "/nowhere/a%252fb", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "an empty segment", "GET", "/api/v2//keys", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "an empty last segment", "GET", "/api/v2/keys/", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "an empty key", "POST", "/api/v2/keys//actions/wrap", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "a way up", "GET", "/api/v2/keys/x/../y", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "an encoded letter", "GET", "/api/v2/%6beys", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },
	{ "a parameter of the path", "GET", "/api/v2/keys;x=y", NULL, REFUSAL_AMBIGUOUS_PATH,
	    "kms.secrets.default" },

	{ "a form on the old form's path", "POST", "/api/v2/keys/x?action=wrap",
	    "Content-Type: application/x-www-form-urlencoded", REFUSAL_AMBIGUOUS_BODY,
	    "kms.secrets.default" },
	{ "a form in other letters", "POST", "/api/v2/keys/x?action=wrap",
	    "content-type:  Application/X-WWW-Form-URLencoded; charset=utf-8",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "a form without an action", "POST", "/api/v2/keys/x",
	    "Content-Type: multipart/form-data; boundary=x", REFUSAL_AMBIGUOUS_BODY,
	    "kms.secrets.default" },
	{ "a form where the path alone says the action", "POST", "/api/v2/keys/x/actions/wrap",
	    "Content-Type: application/x-www-form-urlencoded", REFUSAL_AMBIGUOUS_BODY,
	    "kms.secrets.default" },
	{ "a form on no route", "PUT", "/elsewhere", "Content-Type: multipart/related; boundary=x",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "a form by an old name", "POST", "/api/v2/keys",
	    "Content-Type: application/x-url-encoded", REFUSAL_AMBIGUOUS_BODY,
	    "kms.secrets.default" },
	{ "a form in a parameter", "POST", "/api/v2/keys",
	    "Content-Type: text/plain; x=\"application/x-www-form-urlencoded\"",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "a form in a list", "POST", "/api/v2/keys", "Content-Type: a/b, multipart/form-data",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "a list of types", "POST", "/api/v2/keys", "Content-Type: a/b, c/d",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "two words", "POST", "/api/v2/keys", "Content-Type: a/b c", REFUSAL_AMBIGUOUS_BODY,
	    "kms.secrets.default" },
	{ "an empty type, which servers take for none", "POST", "/api/v2/keys",
	    "Content-Type:", REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "parameters of no type", "POST", "/api/v2/keys", "Content-Type: ; charset=utf-8",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "a type without a subtype", "POST", "/api/v2/keys", "Content-Type: json",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "an empty subtype", "POST", "/api/v2/keys", "Content-Type: json/; a=b",
	    REFUSAL_AMBIGUOUS_BODY, "kms.secrets.default" },
	{ "a form in the second of two types", "POST", "/api/v2/keys/x?action=wrap",
	    "Content-Type: application/json\nContent-Type: multipart/mixed", REFUSAL_AMBIGUOUS_BODY,
	    "kms.secrets.default" },

	{ "two tokens", "POST", "/api/v2/keys/x?action=wrap",
	    "Authorization: Bearer a\nAuthorization: Bearer b", REFUSAL_REPEATED_HEADER,
	    "kms.secrets.wrap" },
	{ "a list of tokens", "GET", "/api/v2/keys", "Authorization: Bearer a, Bearer b",
	    REFUSAL_REPEATED_HEADER, "kms.secrets.list" },
	{ "two instances", "GET", "/api/v2/keys", "Bluemix-Instance: a\nbluemix-instance: b",
	    REFUSAL_REPEATED_HEADER, "kms.secrets.list" },
	{ "two key rings", "GET", "/api/v2/keys", "X-Kms-Key-Ring: a\nX-Kms-Key-Ring: a",
	    REFUSAL_REPEATED_HEADER, "kms.secrets.list" },
	{ "two correlation IDs", "GET", "/api/v2/keys", "Correlation-Id: a,b",
	    REFUSAL_REPEATED_HEADER, "kms.secrets.list" },
	{ "two preferences", "GET", "/api/v2/keys", "Prefer: return=minimal\nPrefer: x",
	    REFUSAL_REPEATED_HEADER, "kms.secrets.list" },

	{ "a method override", "POST", "/api/v2/keys", "X-HTTP-Method-Override: DELETE",
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "its short name", "POST", "/api/v2/keys", "X-HTTP-Method: DELETE",
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "its third name", "POST", "/api/v2/keys", "X-Method-Override: DELETE",
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "its fourth name", "POST", "/api/v2/keys", "X-HTTP-Request: DELETE",
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "one in the query", "POST", "/api/v2/keys?limit=1&_method=DELETE", NULL,
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "and without a value", "POST", "/api/v2/keys?_method", NULL, REFUSAL_METHOD_OVERRIDE,
	    "kms.secrets.default" },
	{ "in other letters", "POST", "/api/v2/keys?_Method=DELETE", NULL, REFUSAL_METHOD_OVERRIDE,
	    "kms.secrets.default" },
	{ "encoded", "POST", "/api/v2/keys?%5fmethod=DELETE", NULL, REFUSAL_METHOD_OVERRIDE,
	    "kms.secrets.default" },
	{ "as PHP would take it", "POST", "/api/v2/keys?.method=DELETE", NULL,
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "as an array", "POST", "/api/v2/keys?_method%5b%5d=DELETE", NULL, REFUSAL_METHOD_OVERRIDE,
	    "kms.secrets.default" },
	{ "behind blanks", "POST", "/api/v2/keys?" BLANKS "_method=DELETE", NULL,
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "within a value", "POST", "/api/v2/keys?x=1%26_method=DELETE", NULL,
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "another URL", "GET", "/api/v2/keys", "X-Original-URL: /admin", REFUSAL_METHOD_OVERRIDE,
	    "kms.secrets.default" },
	{ "rewritten", "GET", "/api/v2/keys", "X-Rewrite-URL: /admin", REFUSAL_METHOD_OVERRIDE,
	    "kms.secrets.default" },
	{ "an override with OPTIONS *", "OPTIONS", "*", "X-HTTP-Method-Override: DELETE",
	    REFUSAL_METHOD_OVERRIDE, "kms.secrets.default" },
	{ "two tokens with OPTIONS *", "OPTIONS", "*", "Authorization: a\nAuthorization: b",
	    REFUSAL_REPEATED_HEADER, "kms.secrets.default" },
};

static void
what_could_be_read_in_two_ways_is_refused(void **state)
{
	for (size_t i = 0; i < COUNT(refused); i++) {
		struct route_match m;

		match(set_of(state), refused[i].method, refused[i].target, refused[i].headers, &m);
		if (m.refusal != refused[i].refusal ||
		    strcmp(m.route->action, refused[i].action) != 0)
			fail_msg("%s: %s, recorded as %s", refused[i].label,
			    refusal_info(m.refusal)->label, m.route->action);
	}
}

static const struct {
	const char *label, *method, *target, *headers, *action;
} passed[] = {
	{ "a type with parameters", "POST", "/api/v2/keys/x/actions/wrap",
	    "Content-Type: application/vnd.ibm.kms.key_action+json \t;charset=utf-8; a=\"b, c\"",
	    "kms.secrets.wrap" },
	{ "JSON on the old form's path", "POST", "/api/v2/keys/x?action=wrap",
	    "Content-Type: application/json", "kms.secrets.wrap" },
	{ "one of each header", "GET", "/api/v2/keys",
	    "Authorization: Bearer a\nBluemix-Instance: b\nCorrelation-Id: c\nPrefer: d",
	    "kms.secrets.list" },
	{ "a parameter whose name only begins so", "GET", "/api/v2/keys?action_type=x&actions=y",
	    NULL, "kms.secrets.list" },
	{ "encoded slashes that lead nowhere", "DELETE",
	    "/api/v2/keys/x/registrations/crn%253Av1%2Fa%252Fb", NULL, "kms.registrations.delete" },
	{ "a parameter that ends like an override", "GET", "/api/v2/keys?sort_method=x", NULL,
	    "kms.secrets.list" },
	{ "other encoded characters", "GET", "/api/v2/keys/caf%C3%A9%3A/metadata", NULL,
	    "kms.secrets-metadata.read" },
	{ "another header twice", "GET", "/api/v2/keys", "Accept: a\nAccept: b",
	    "kms.secrets.list" },
};

static void
what_is_clear_is_passed(void **state)
{
	for (size_t i = 0; i < COUNT(passed); i++) {
		struct route_match m;

		match(set_of(state), passed[i].method, passed[i].target, passed[i].headers, &m);
		if (m.refusal != REFUSAL_NONE || strcmp(m.route->action, passed[i].action) != 0)
			fail_msg("%s: %s, %s", passed[i].label, refusal_info(m.refusal)->label,
			    m.route->action);
	}
}

static void
the_key_is_the_raw_id(void **state)
{
	static const struct {
		const char *method, *target, *key;
	} keys[] = {
		{ "GET", "/api/v2/keys/" UUID, UUID },
		{ "POST", "/api/v2/keys/my-alias/actions/wrap", "my-alias" },
		{ "POST", "/api/v2/keys/" UUID "?action=wrap", UUID },
		{ "POST", "/api/v2/keys/a/aliases/b", "a" },
		{ "GET", "/api/v2/keys", "" },
		{ "GET", "/api/v2/kmip_adapters/" UUID, "" }, /* no key */
		{ "GET", "/api/v2/key_rings/x", "" },
		{ "GET", "/x/" UUID, "" },
	};

	for (size_t i = 0; i < COUNT(keys); i++) {
		struct route_match m;

		match(set_of(state), keys[i].method, keys[i].target, NULL, &m);
		assert_int_equal(m.key.n, strlen(keys[i].key));
		assert_memory_equal(m.key.p, keys[i].key, m.key.n);
	}
}

static void
the_shape_holds_no_byte_of_the_client(void **state)
{
	char target[2048] = "", want[600] = "";
	struct route_match m;

	for (int i = 0; i < 30; i++) {
		strcat(target, "/CANARY-");
		strcat(want, "/{}");
	}
	match(set_of(state), "GET", target, NULL, &m);
	assert_string_equal(m.shape, want);

	/* Known literals are long; together they are more than a shape holds. */
	target[0] = '\0';
	for (int i = 0; i < 12; i++)
		strcat(target, "/keys_with_policy_overrides");
	match(set_of(state), "GET", target, NULL, &m);
	assert_string_equal(m.shape, "other");

	match(set_of(state), "GET", "/CANARY//x", NULL, &m);
	assert_string_equal(m.shape, "{}");
}

static void
actions_are_counted_once(void **state)
{
	const struct route_table *t = set_of(state);

	for (size_t i = 0; i < route_table_actions(t); i++)
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(route_table_action(t, i), route_table_action(t, j));
	for (size_t i = 0; i < route_table_size(t); i++) {
		const struct route *r = route_table_get(t, i);

		assert_int_equal(r->index, i);
		assert_string_equal(route_table_action(t, r->action_index), r->action);
	}
}

/* ---- tables of their own ---- */

#define SPEC(a, m, p) .action = a, .method = m, .path = p
static const struct route_options options = { .default_action = "x.default",
	.default_where = "t:0:0",
	.default_guarantee = GUARANTEE_INTENT };

static struct route_table *
compile(const struct route_spec *specs, size_t n)
{
	struct route_table *t = NULL;
	struct err err;

	if (route_compile(specs, n, &options, &t, &err) == -1)
		fail_msg("%s", err.msg);
	return t;
}

static void
specificity_decides_not_order(void **state)
{
	static const struct route_spec specs[] = {
		{ SPEC("x.rest", "GET", "/a/**") },
		{ SPEC("x.any", "*", "/a/b") },
		{ SPEC("x.parameter", "GET", "/a/{p}") },
		{ SPEC("x.literal", "GET", "/a/b") },
		{ SPEC("x.deep", "GET", "/a/{p}/c") },
		{ SPEC("x.all", "GET", "/**") },
		{ SPEC("x.root", "POST", "/") },
	};
	static const struct {
		const char *method, *path, *action;
	} want[] = {
		{ "GET", "/a/b", "x.literal" },
		{ "GET", "/a/x", "x.parameter" },
		{ "GET", "/a/b/c", "x.deep" }, /* back from the literal b, which has no c */
		{ "GET", "/a/b/d", "x.rest" },
		{ "GET", "/a", "x.rest" }, /* "**" may stand for nothing */
		{ "GET", "/", "x.all" },
		{ "POST", "/", "x.root" },
		{ "POST", "/a/b", "x.any" },
		{ "POST", "/a/c", "x.default" },
		{ "GET", "/z/z/z", "x.all" },
	};
	struct route_spec turned[COUNT(specs)];

	(void)state;
	for (size_t i = 0; i < COUNT(specs); i++)
		turned[i] = specs[COUNT(specs) - 1 - i];
	for (int round = 0; round < 2; round++) {
		struct route_table *t = compile(round == 0 ? specs : turned, COUNT(specs));

		for (size_t i = 0; i < COUNT(want); i++) {
			struct route_match m;

			match(t, want[i].method, want[i].path, NULL, &m);
			assert_string_equal(m.route->action, want[i].action);
		}
		route_table_free(t);
	}
}

static void
the_default_has_the_guarantee_it_was_given(void **state)
{
	static const struct route_spec specs[] = { { SPEC("x.a", "GET", "/a") } };
	struct route_table *t = compile(specs, 1);
	struct route_match m;

	(void)state;
	match(t, "GET", "/b", NULL, &m);
	assert_string_equal(m.route->action, "x.default");
	assert_int_equal(m.route->guarantee, GUARANTEE_INTENT);
	assert_string_equal(m.route->where, "t:0:0");
	assert_int_equal(m.route->index, 1);
	route_table_free(t);
}

/* A POST, and what it is taken for. */
struct posted {
	const char *target, *headers, *action;
	enum http_refusal refusal;
};

static void
expect_posted(const struct route_spec *specs, size_t nspecs, const struct posted *want, size_t n)
{
	struct route_table *t = compile(specs, nspecs);

	for (size_t i = 0; i < n; i++) {
		struct route_match m;

		match(t, "POST", want[i].target, want[i].headers, &m);
		if (m.refusal != want[i].refusal || strcmp(m.route->action, want[i].action) != 0)
			fail_msg("%s %s: %s, %s", want[i].target, want[i].headers, m.route->action,
			    refusal_info(m.refusal)->label);
	}
	route_table_free(t);
}

static void
headers_can_decide(void **state)
{
	static const struct route_spec specs[] = {
		{ SPEC("x.encrypt", "POST", "/"), .header_name = "X-Target",
		    .header_value = "Service.Encrypt" },
		{ SPEC("x.decrypt", "POST", "/"), .header_name = "x-target",
		    .header_value = "Service.Decrypt" },
		{ SPEC("x.both", "POST", "/"), .header_name = "X-Target",
		    .header_value = "Service.Decrypt", .query_name = "dry", .query_value = "1" },
		{ SPEC("x.none", "POST", "/") },
		{ SPEC("x.other", "POST", "/other") },
	};
	static const struct posted want[] = {
		{ "/", "X-Target: Service.Encrypt", "x.encrypt", REFUSAL_NONE },
		{ "/", "x-TARGET: Service.Decrypt", "x.decrypt", REFUSAL_NONE },
		{ "/?dry=1", "X-Target: Service.Decrypt", "x.both", REFUSAL_NONE },
		{ "/", NULL, "x.none", REFUSAL_NONE },
		{ "/", "X-Target: Service.Other", "x.default", REFUSAL_AMBIGUOUS_HEADER },
		{ "/", "X-Target: service.encrypt", "x.default", REFUSAL_AMBIGUOUS_HEADER },
		{ "/", "X-Target:", "x.default", REFUSAL_AMBIGUOUS_HEADER },
		{ "/", "X_Target: Service.Encrypt", "x.default", REFUSAL_ALIAS_HEADER },
		{ "/", "X-Target: Service.Encrypt\nx.target: Service.Decrypt", "x.default",
		    REFUSAL_ALIAS_HEADER },
		{ "/", "X-Target: Service.Encrypt\nX-Target: Service.Decrypt", "x.encrypt",
		    REFUSAL_REPEATED_HEADER },
		{ "/", "X-Target: Service.Encrypt, Service.Decrypt", "x.none",
		    REFUSAL_REPEATED_HEADER },
		{ "/other", "X-Target: Service.Encrypt", "x.default", REFUSAL_AMBIGUOUS_HEADER },
		{ "/?dry=1", "X-Target: Service.Encrypt", "x.default", REFUSAL_AMBIGUOUS_QUERY },
	};

	(void)state;
	expect_posted(specs, COUNT(specs), want, COUNT(want));
}

/* A service that obeys an override is told apart by it, as strictly as by anything else. */
static void
overrides_that_a_route_names_decide(void **state)
{
	static const struct route_spec specs[] = {
		{ SPEC("x.create", "POST", "/a") },
		{ SPEC("x.delete", "POST", "/a"), .header_name = "X-HTTP-Method-Override",
		    .header_value = "DELETE" },
		{ SPEC("x.replace", "POST", "/b"), .query_name = "_method", .query_value = "put" },
		{ SPEC("x.other", "POST", "/b") },
	};
	static const struct posted want[] = {
		{ "/a", NULL, "x.create", REFUSAL_NONE },
		{ "/a", "X-Http-Method-Override: DELETE", "x.delete", REFUSAL_NONE },
		{ "/b?_method=put", NULL, "x.replace", REFUSAL_NONE },
		{ "/a", "X-HTTP-Method-Override: PUT", "x.default", REFUSAL_AMBIGUOUS_HEADER },
		{ "/a", "X-HTTP-Method-Override: DELETE, PUT", "x.create",
		    REFUSAL_REPEATED_HEADER },
		{ "/b?_method=delete", NULL, "x.default", REFUSAL_AMBIGUOUS_QUERY },
		{ "/b?_METHOD=put", NULL, "x.default", REFUSAL_AMBIGUOUS_QUERY },
		{ "/b?_method=put", "X-HTTP-Method-Override: DELETE", "x.default",
		    REFUSAL_AMBIGUOUS_HEADER },
		{ "/a?_method=put", NULL, "x.default", REFUSAL_AMBIGUOUS_QUERY },
		{ "/a", "X-HTTP-Method: DELETE", "x.default", REFUSAL_METHOD_OVERRIDE },
		{ "/b", "X-HTTP-Method-Override: DELETE", "x.default", REFUSAL_AMBIGUOUS_HEADER },
		{ "*", "X-HTTP-Method-Override: DELETE", "x.default", REFUSAL_AMBIGUOUS_HEADER },
		{ "*", NULL, "x.default", REFUSAL_NONE },
	};

	(void)state;
	expect_posted(specs, COUNT(specs), want, COUNT(want));
}

static void
configured_headers_may_not_be_repeated(void **state)
{
	static const struct route_spec specs[] = { { SPEC("x.a", "GET", "/a") } };
	static const char *const single[] = { "X-Request-Id" };
	struct route_options opts = options;
	struct route_table *t;
	struct route_match m;
	struct err err;

	(void)state;
	opts.single_headers = single;
	opts.nsingle_headers = 1;
	assert_int_equal(route_compile(specs, 1, &opts, &t, &err), 0);
	match(t, "GET", "/a", "X-Request-Id: 1", &m);
	assert_int_equal(m.refusal, REFUSAL_NONE);
	match(t, "GET", "/a", "X-Request-Id: 1\nx-request-id: 2", &m);
	assert_int_equal(m.refusal, REFUSAL_REPEATED_HEADER);
	match(t, "GET", "/a", "X-Request-Id: 1, 2", &m);
	assert_int_equal(m.refusal, REFUSAL_REPEATED_HEADER);
	match(t, "OPTIONS", "*", "X-Request-Id: 1, 2", &m);
	assert_int_equal(m.refusal, REFUSAL_REPEATED_HEADER);
	match(t, "OPTIONS", "*", "X_Request-Id: 1", &m);
	assert_int_equal(m.refusal, REFUSAL_ALIAS_HEADER);
	match(t, "OPTIONS", "*", "X-Request-Id: 1", &m);
	assert_int_equal(m.refusal, REFUSAL_NONE);
	route_table_free(t);
}

/* The record would rest on what the service never sees. */
static void
configured_headers_may_not_be_taken_out(void **state)
{
	static const struct route_spec specs[] = { { SPEC("x.a", "GET", "/a"),
	    .header_name = "X-Target", .header_value = "a" } };
	static const char *const single[] = { "X-Request-Id" };
	struct route_options opts = options;
	struct http_head h;
	struct route_table *t;
	struct route_match m;
	struct err err;

	(void)state;
	opts.single_headers = single;
	opts.nsingle_headers = 1;
	assert_int_equal(route_compile(specs, 1, &opts, &t, &err), 0);
	for (unsigned i = 0; i < 3; i++) {
		char lines[] = "X-Target: a\nx-request-id: 1\nAccept: a";

		h = head_of("GET", "/a", lines);
		h.fields[i].hop = true;
		route_match(t, &h, &m);
		assert_int_equal(m.refusal, i < 2 ? REFUSAL_BAD_CONNECTION : REFUSAL_NONE);
		assert_string_equal(m.route->action, i < 2 ? "x.default" : "x.a");
	}
	route_table_free(t);
}

static void
a_form_without_a_body_says_nothing(void **state)
{
	static const struct {
		enum http_framing framing;
		uint64_t length;
		enum http_refusal refusal;
	} cases[] = { { HTTP_NO_BODY, 0, REFUSAL_NONE }, { HTTP_LENGTH, 0, REFUSAL_NONE },
		{ HTTP_LENGTH, 1, REFUSAL_AMBIGUOUS_BODY },
		{ HTTP_CHUNKED, 0, REFUSAL_AMBIGUOUS_BODY } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char line[] = "Content-Type: multipart/form-data";
		struct http_head h = head_of("POST", "/api/v2/keys", line);
		struct route_match m;

		h.framing = cases[i].framing;
		h.length = cases[i].length;
		route_match(set_of(state), &h, &m);
		assert_int_equal(m.refusal, cases[i].refusal);
	}
}

static void
a_body_is_refused_where_the_method_has_none(void **state)
{
	static const struct {
		const char *method, *action;
		enum http_refusal refusal; /* of a body */
		const char *target;	   /* or NULL */
	} methods[] = { { "GET", "kms.secrets.list", REFUSAL_UNEXPECTED_BODY, NULL },
		{ "HEAD", "kms.secrets.head", REFUSAL_UNEXPECTED_BODY, NULL },
		{ "OPTIONS", "kms.secrets.default", REFUSAL_UNEXPECTED_BODY, NULL },
		{ "OPTIONS", "kms.secrets.default", REFUSAL_UNEXPECTED_BODY, "*" },
		{ "POST", "kms.secrets.create", REFUSAL_NONE, NULL },
		{ "PUT", "kms.secrets.default", REFUSAL_NONE, NULL },
		{ "PATCH", "kms.secrets.default", REFUSAL_NONE, NULL },
		{ "DELETE", "kms.secrets.default", REFUSAL_NONE, NULL } };
	static const struct {
		enum http_framing framing;
		uint64_t length;
		bool body;
	} framings[] = { { HTTP_NO_BODY, 0, false }, { HTTP_LENGTH, 0, false },
		{ HTTP_LENGTH, 1, true }, { HTTP_CHUNKED, 0, true } };

	for (size_t i = 0; i < COUNT(methods) * COUNT(framings); i++) {
		size_t m = i / COUNT(framings), f = i % COUNT(framings);
		char line[] = "X-A: b";
		const char *target = methods[m].target != NULL ? methods[m].target : "/api/v2/keys";
		struct http_head h = head_of(methods[m].method, target, line);
		struct route_match match;

		h.framing = framings[f].framing;
		h.length = framings[f].length;
		route_match(set_of(state), &h, &match);
		if (match.refusal != (framings[f].body ? methods[m].refusal : REFUSAL_NONE) ||
		    strcmp(match.route->action, methods[m].action) != 0)
			fail_msg("%s, %zu: %s, recorded as %s", methods[m].method, f,
			    refusal_info(match.refusal)->label, match.route->action);
	}
}

static void
names_of_configured_headers_are_known_in_disguise(void **state)
{
	static const struct route_spec specs[] = { { SPEC("x.a", "GET", "/a"),
	    .header_name = "X-Target", .header_value = "a" } };
	struct route_table *t = compile(specs, 1);

	(void)state;
	assert_true(route_is_single_header(t, SLICE("X-Target")));
	assert_true(route_is_single_header(t, SLICE("x_TARGET")));
	assert_false(route_is_single_header(t, SLICE("XxTarget")));
	assert_false(route_is_single_header(t, SLICE("X-Targets")));
	route_table_free(t);
}

#define QUERY(n, v)  .query_name = n, .query_value = v
#define HEADER(n, v) .header_name = n, .header_value = v
#define AT(w)	     .where = w

static const struct {
	struct route_spec specs[2];
	const char *error;
} bad_tables[] = {
	{ { { SPEC("x.a", "GET", "/a"), AT("f:1:1") }, { SPEC("x.b", "GET", "/a"), AT("f:2:1") } },
	    "f:2:1: GET /a (x.b) fits the same requests as GET /a (x.a) at f:1:1" },
	{ { { SPEC("x.a", "GET", "/a/{x}"), AT("f:1:1") },
	      { SPEC("x.b", "GET", "/a/{y}"), AT("g:7:3") } },
	    "g:7:3: GET /a/{y} (x.b) fits the same requests as GET /a/{x} (x.a) at f:1:1" },
	{ { { SPEC("x.a", "*", "/a/**"), AT("f:1:1") },
	      { SPEC("x.b", "*", "/a/**"), AT("f:2:1") } },
	    "f:2:1: * /a/** (x.b) fits the same requests as * /a/** (x.a) at f:1:1" },
	{ { { SPEC("x.a", "GET", "/a"), QUERY("q", "1"), AT("f:1:1") },
	      { SPEC("x.b", "GET", "/a"), QUERY("q", "1"), AT("f:2:1") } },
	    "f:2:1: GET /a (x.b) fits the same requests as GET /a (x.a) at f:1:1" },
	{ { { SPEC("x.a", "GET", "/a"), QUERY("q", "1"), AT("f:1:1") },
	      { SPEC("x.b", "GET", "/a"), QUERY("r", "1"), AT("f:2:1") } },
	    "f:2:1: GET /a (x.b) fits the same requests as GET /a (x.a) at f:1:1" },
	{ { { SPEC("x.a", "GET", "/a"), QUERY("q", "1"), AT("f:1:1") },
	      { SPEC("x.b", "GET", "/a"), HEADER("h", "1"), AT("f:2:1") } },
	    "f:2:1: GET /a (x.b) fits the same requests as GET /a (x.a) at f:1:1" },
	{ { { SPEC("x.a", "GET", "/a"), QUERY("mode", "1"), AT("f:1:1") },
	      { SPEC("x.b", "GET", "/b"), QUERY("Mode", "1"), AT("f:2:1") } },
	    "f:2:1: the query parameter \"Mode\" differs from \"mode\" of another route in case "
	    "alone" },
	{ { { SPEC("x.a", "GET", "/a/keys"), AT("f:1:1") },
	      { SPEC("x.b", "GET", "/a/Keys"), AT("f:2:1") } },
	    "f:2:1: the segment \"Keys\" differs from \"keys\" of another route in case alone" },
};

static void
ambiguous_tables_name_both_places(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(bad_tables); i++) {
		struct route_table *t = NULL;
		struct err err = { "" };

		assert_int_equal(route_compile(bad_tables[i].specs, 2, &options, &t, &err), -1);
		assert_null(t);
		assert_string_equal(err.msg, bad_tables[i].error);
	}
}

static const struct {
	const char *path;
	bool good;
} templates[] = {
	{ "/", true },
	{ "/a", true },
	{ "/a/{id}/b", true },
	{ "/**", true },
	{ "/a/**", true },
	{ "/{a-b_c1}", true },
	{ "/a.b~c@d:e", true },
	{ "", false },
	{ "a", false },
	{ "/a/", false },
	{ "//a", false },
	{ "/a//b", false },
	{ "/**/a", false },
	{ "/*", false },
	{ "/a*", false },
	{ "/{}", false },
	{ "/{a", false },
	{ "/a}", false },
	{ "/a{b}", false },
	{ "/{a}b", false },
	{ "/{a b}", false },
	{ "/.", false },
	{ "/..", false },
	{ "/a%2Fb", false },
	{ "/a;b", false },
	{ "/a?b", false },
	{ "/a#b", false },
	{ "/a\\b", false },
	{ "/\xc3\xa9", false },
	{ "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2", true },
	{ "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3", false },
};

static void
templates_have_a_grammar(void **state)
{
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT(templates); i++)
		if ((route_check_path(templates[i].path, &err) == 0) != templates[i].good)
			fail_msg("%s", templates[i].path);
}

static const struct {
	const char *action;
	bool good;
} actions[] = {
	{ "kms.secrets.unwrap", true },
	{ "a.b", true },
	{ "a1.b-c.d.e.f", true },
	{ "a", false },
	{ "", false },
	{ ".", false },
	{ "a.", false },
	{ ".a", false },
	{ "a..b", false },
	{ "a.B", false },
	{ "a.b_c", false },
	{ "a b.c", false },
	{ "a.b.c.d.e.f", false },
	{ "keytrail.start", false },
	{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b", false },
};

static void
actions_have_a_grammar(void **state)
{
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT(actions); i++)
		if ((route_check_action(actions[i].action, &err) == 0) != actions[i].good)
			fail_msg("%s", actions[i].action);
}

static void
an_explanation_says_why(void **state)
{
	static const struct {
		const char *method, *target, *want;
	} cases[] = {
		{ "POST", "/api/v2/keys/x?action=wrap",
		    "the most specific route that fits is POST /api/v2/keys/{id} with "
		    "?action=wrap (proxy/routes/key-protect.json:" },
		{ "GET", "/api/v2/keys/x/y",
		    "no route of this method and path fits; the nearest fallback is * "
		    "/api/v2/keys/** (proxy/routes/key-protect.json:" },
		{ "GET", "/x",
		    "no route fits; the default action stands (proxy/routes/key-protect.json:" },
		{ "GET", "/api/v2/Keys",
		    "refused before anything is forwarded: the path could be read in two ways; "
		    "recorded as kms.secrets.default" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		char none[1] = "", out[512];
		struct http_head h = head_of(cases[i].method, cases[i].target, none);

		route_explain(set_of(state), &h, out, sizeof(out));
		if (strncmp(out, cases[i].want, strlen(cases[i].want)) != 0)
			fail_msg("%s", out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_set_has_every_operation_and_no_other),
		cmocka_unit_test(every_operation_is_matched_by_its_own_row),
		cmocka_unit_test(the_matching_rules_hold),
		cmocka_unit_test(what_could_be_read_in_two_ways_is_refused),
		cmocka_unit_test(what_is_clear_is_passed),
		cmocka_unit_test(the_key_is_the_raw_id),
		cmocka_unit_test(the_shape_holds_no_byte_of_the_client),
		cmocka_unit_test(actions_are_counted_once),
		cmocka_unit_test(specificity_decides_not_order),
		cmocka_unit_test(the_default_has_the_guarantee_it_was_given),
		cmocka_unit_test(headers_can_decide),
		cmocka_unit_test(overrides_that_a_route_names_decide),
		cmocka_unit_test(configured_headers_may_not_be_repeated),
		cmocka_unit_test(configured_headers_may_not_be_taken_out),
		cmocka_unit_test(a_form_without_a_body_says_nothing),
		cmocka_unit_test(a_body_is_refused_where_the_method_has_none),
		cmocka_unit_test(names_of_configured_headers_are_known_in_disguise),
		cmocka_unit_test(ambiguous_tables_name_both_places),
		cmocka_unit_test(templates_have_a_grammar),
		cmocka_unit_test(actions_have_a_grammar),
		cmocka_unit_test(an_explanation_says_why),
	};

	return cmocka_run_group_tests(tests, load_set, free_set);
}
