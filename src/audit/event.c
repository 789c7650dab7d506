#include "event_out.h"

/* Bounds of what a client chose, as escaped: only names can need escapes, the rest is ASCII of a
 * grammar. */
#define NAME_MAX_OUT 320
#define SUBJECT_MAX  256
#define WORD_MAX     128

enum { ADDRESS_MAX = 45, UUID_MAX = 36 };

/* One event on its way into the buffer. */
struct render {
	struct event_out o;
	const struct event_profile *p;
	const struct audit_event *ev;
	enum event_outcome outcome;
	bool verified; /* the service answered 2xx to a caller it checked */
	bool known_instance;
	struct slice crn; /* what both CRNs begin with, where it was written first */
};

bool
event_is_verified(const struct audit_event *ev)
{
	return ev->from_service && ev->status / 100 == 2 && ev->route != NULL && ev->route->login;
}

static bool
is_listed(const struct event_profile *p, struct slice instance)
{
	for (size_t i = 0; i < p->ninstances; i++) {
		if (slice_equal_nocase(instance, slice_of(p->instances[i])))
			return true;
	}
	return false;
}

static bool
is_known_instance(const struct event_profile *p, const struct audit_event *ev, bool verified)
{
	struct slice instance = slice_of(ev->instance);

	return (verified || is_listed(p, instance)) && scrub_fits(SCRUB_UUID, instance);
}

/* What is said of a caller for whom nobody vouches.  An answer such as 404 leaves open whether the
 * service has looked at the token. */
static const char *
name_of_nobody(const struct audit_event *ev)
{
	if (ev->identity.state == IDENTITY_NONE || ev->status == 401 || ev->status == 0 ||
	    ev->refusal != REFUSAL_NONE)
		return "unauthenticated";
	return ev->identity.state == IDENTITY_UNPARSABLE ? "unparsable" : "unverified";
}

static const char *
action_of(const struct render *r)
{
	if (r->ev->route == NULL)
		return "keytrail.refused";
	return r->p->vocabulary == EVENT_2019 ? r->ev->route->action_2019 : r->ev->route->action;
}

static const char *
correlation_source_name(enum correlation_source s)
{
	static const char *const names[] = {
		[CORRELATION_SERVICE] = "service",
		[CORRELATION_ECHOED] = "echoed",
		[CORRELATION_REQUEST] = "request",
		[CORRELATION_NONE] = "none",
	};

	return names[s];
}

/* action to id */
static void
render_head(struct render *r)
{
	struct event_out *o = &r->o;
	const struct audit_event *ev = r->ev;
	char time[CLOCK_EVENT_TIME_SIZE];

	OUT_LIT(o, "{\"action\":\"");
	out_text(o, action_of(r), EVENT_ACTION_MAX);
	OUT_LIT(o, "\",\"correlationId\":\"");
	out_text(o, ev->correlation, WORD_MAX);
	OUT_LIT(o, "\",\"correlationSource\":\"");
	out_text(o, correlation_source_name(ev->correlation_source), WORD_MAX);
	if (ev->route != NULL && ev->route->data_event)
		OUT_LIT(o, "\",\"dataEvent\":true,\"eventTime\":\"");
	else
		OUT_LIT(o, "\",\"dataEvent\":false,\"eventTime\":\"");
	clock_event_time(ev->arrival_ns, time);
	out_bytes(o, time, CLOCK_EVENT_TIME_SIZE - 1);
	OUT_LIT(o, "\",\"id\":\"");
	out_text(o, ev->id, UUID_MAX);
}

/* The name as the configuration lets it be seen: NULL for not at all. */
static const char *
visible_name(const struct event_profile *p, const struct identity *id, char ref[SCRUB_KEY_REF_SIZE])
{
	if (p->names == EVENT_NAME_PLAIN)
		return id->name;
	if (p->names == EVENT_NAME_HMAC && p->hmac_key != NULL && id->name[0] != '\0' &&
	    scrub_name_ref(p->hmac_key, p->hmac_epoch, slice_of(id->name), ref) == 0)
		return ref;
	return NULL;
}

static void
render_claimed(struct render *r, const char *name)
{
	struct event_out *o = &r->o;

	OUT_LIT(o, "\"claimed\":{\"id\":\"");
	out_text(o, r->ev->identity.iam_id, WORD_MAX);
	if (name != NULL) {
		OUT_LIT(o, "\",\"name\":\"");
		out_text(o, name, NAME_MAX_OUT);
	}
	OUT_LIT(o, "\"},");
}

static void
render_credential(struct render *r)
{
	const struct identity *id = &r->ev->identity;
	struct event_out *o = &r->o;

	OUT_LIT(o, "\"credential\":{");
	if (id->other[0] != '\0') {
		if (strncmp(id->name, "URI:", 4) == 0)
			OUT_LIT(o, "\"subject\":\"");
		else
			OUT_LIT(o, "\"alternative\":\"");
		out_text(o, id->other, SUBJECT_MAX);
		OUT_LIT(o, "\",");
	}
	OUT_LIT(o, "\"type\":\"");
	out_text(o, identity_credential_type(&r->ev->identity), WORD_MAX);
	if (r->ev->identity.state == IDENTITY_CERTIFICATE)
		OUT_LIT(o, "\",\"verifiedBy\":\"certificate\"}");
	else if (r->verified)
		OUT_LIT(o, "\",\"verifiedBy\":\"service\"}");
	else
		OUT_LIT(o, "\",\"verifiedBy\":\"none\"}");
}

static void
render_host(struct render *r)
{
	struct event_out *o = &r->o;
	const struct audit_event *ev = r->ev;

	OUT_LIT(o, ",\"host\":{\"address\":\"");
	out_text(o, ev->address, ADDRESS_MAX);
	if (strchr(ev->address, ':') != NULL)
		OUT_LIT(o, "\",\"addressType\":\"IPv6\",\"agent\":\"");
	else
		OUT_LIT(o, "\",\"addressType\":\"IPv4\",\"agent\":\"");
	out_text(o, ev->agent, SCRUB_AGENT_MAX);
	if (ev->peer[0] != '\0') {
		OUT_LIT(o, "\",\"peer\":\"");
		out_text(o, ev->peer, ADDRESS_MAX);
	}
	OUT_LIT(o, "\"}");
}

static void
render_initiator(struct render *r)
{
	static const char *const type_uris[] = {
		[IDENTITY_USER] = "service/security/account/user",
		[IDENTITY_SERVICE_ID] = "service/security/account/serviceid",
		[IDENTITY_PROFILE] = "service/security/account/profile",
		[IDENTITY_CLIENT_CERT] = "service/security/client/certificateid",
	};
	const struct identity *id = &r->ev->identity;
	struct event_out *o = &r->o;
	bool hearsay = id->state != IDENTITY_CERTIFICATE && !r->verified;
	char ref[SCRUB_KEY_REF_SIZE];
	const char *name = visible_name(r->p, id, ref);

	OUT_LIT(o, "\",\"initiator\":{");
	if (hearsay && id->state == IDENTITY_TOKEN)
		render_claimed(r, name);
	if (!hearsay && id->authn_id[0] != '\0') {
		OUT_LIT(o, "\"authnId\":\"");
		out_text(o, id->authn_id, WORD_MAX);
		OUT_LIT(o, "\",");
	}
	render_credential(r);
	render_host(r);
	OUT_LIT(o, ",\"id\":\"");
	if (id->state == IDENTITY_CERTIFICATE)
		out_text(o, id->name, NAME_MAX_OUT);
	else if (!hearsay)
		out_text(o, id->iam_id, WORD_MAX);
	OUT_LIT(o, "\",\"name\":\"");
	if (hearsay)
		out_text(o, name_of_nobody(r->ev), NAME_MAX_OUT);
	else if (id->state == IDENTITY_UNPARSABLE)
		OUT_LIT(o, "unparsable");
	else if (name != NULL)
		out_text(o, name, NAME_MAX_OUT);
	OUT_LIT(o, "\",\"typeURI\":\"");
	out_text(o, type_uris[id->kind], WORD_MAX);
	OUT_LIT(o, "\"}");
}

/* The configured account, or the one of a caller whom the service checked. */
static const char *
account_of(const struct render *r)
{
	if (r->p->account[0] != '\0')
		return r->p->account;
	if (r->verified && scrub_fits(SCRUB_ACCOUNT, slice_of(r->ev->identity.account)))
		return r->ev->identity.account;
	return "";
}

/* "crn:v1:bluemix:public:kms:us-south:a/<account>:<instance>:", to be followed by one more part. */
static void
render_crn(struct render *r)
{
	struct event_out *o = &r->o;
	const char *begin = o->p;

	OUT_LIT(o, "crn:v1:bluemix:public:");
	out_text(o, r->p->crn_service, EVENT_SERVICE_MAX);
	OUT_LIT(o, ":");
	out_text(o, r->p->region, EVENT_SERVICE_MAX);
	OUT_LIT(o, ":a/");
	out_text(o, account_of(r), EVENT_SERVICE_MAX);
	OUT_LIT(o, ":");
	if (r->known_instance)
		out_text(o, r->ev->instance, UUID_MAX);
	OUT_LIT(o, ":");
	r->crn = (struct slice){ begin, (size_t)(o->p - begin) };
}

/* "kms.secrets.unwrap" reads "unwrap secret": the last word, then what lies before it without the
 * service, in the singular where we know it. */
static void
render_action_words(struct event_out *o, struct slice action)
{
	static const struct {
		struct slice plural, singular;
	} nouns[] = {
		{ SLICE_INIT("secrets"), SLICE_INIT("secret") },
		{ SLICE_INIT("policies"), SLICE_INIT("policy") },
		{ SLICE_INIT("instance-policies"), SLICE_INIT("instance policy") },
		{ SLICE_INIT("registrations"), SLICE_INIT("registration") },
		{ SLICE_INIT("key-rings"), SLICE_INIT("key ring") },
		{ SLICE_INIT("import-token"), SLICE_INIT("import token") },
	};
	const char *first = memchr(action.p, '.', action.n);
	const char *last = memrchr(action.p, '.', action.n);
	struct slice noun;

	if (first == NULL) {
		event_out_text(o, action, EVENT_ACTION_MAX);
		return;
	}
	event_out_text(
	    o, slice_sub(action, (size_t)(last - action.p) + 1, action.n), EVENT_ACTION_MAX);
	if (last == first)
		return;
	noun = (struct slice){ first + 1, (size_t)(last - first) - 1 };
	for (size_t i = 0; i < sizeof(nouns) / sizeof(*nouns); i++) {
		if (slice_equal(noun, nouns[i].plural))
			noun = nouns[i].singular;
	}
	OUT_LIT(o, " ");
	event_out_text(o, noun, EVENT_ACTION_MAX);
}

/* kind to outcome */
static void
render_middle(struct render *r)
{
	struct event_out *o = &r->o;

	if (r->ev->pending)
		OUT_LIT(o, ",\"kind\":\"intent\"");
	OUT_LIT(o, ",\"logSourceCRN\":\"");
	render_crn(r);
	OUT_LIT(o, ":\",\"message\":\"");
	out_text(o, r->p->service_name, EVENT_SERVICE_MAX);
	OUT_LIT(o, ": ");
	if (r->ev->route != NULL)
		render_action_words(o, slice_of(r->ev->route->action));
	else
		OUT_LIT(o, "refused request");
	if (r->outcome == EVENT_FAILURE)
		OUT_LIT(o, " -failure");
	OUT_LIT(o, "\",\"observer\":{\"id\":\"");
	out_text(o, r->p->observer_id, EVENT_SERVICE_MAX);
	OUT_LIT(o, "\",\"name\":\"ActivityTracker\"},\"outcome\":\"");
	out_text(o, event_outcome_name(r->outcome), WORD_MAX);
}

static void
render_cause(struct render *r)
{
	struct event_out *o = &r->o;
	const struct audit_event *ev = r->ev;

	if (r->outcome != EVENT_FAILURE && !ev->client_gone)
		return;
	OUT_LIT(o, "\"reasonForFailure\":\"");
	if (ev->refusal != REFUSAL_NONE) {
		out_text(o, refusal_info(ev->refusal)->label, WORD_MAX);
	} else if (ev->client_gone) {
		OUT_LIT(o, "client gone");
	} else {
		OUT_LIT(o, "status ");
		event_out_number(o, ev->status);
	}
	OUT_LIT(o, "\",");
}

static void
render_reason(struct render *r)
{
	struct event_out *o = &r->o;
	const struct audit_event *ev = r->ev;
	const char *type = ev->unknown_reason;

	OUT_LIT(o, "\",\"reason\":{");
	if (ev->status != 0) {
		OUT_LIT(o, "\"reasonCode\":");
		event_out_number(o, ev->status);
		OUT_LIT(o, ",");
		type = http_status_phrase(ev->status);
	} else if (ev->pending) {
		type = "pending";
	}
	render_cause(r);
	OUT_LIT(o, "\"reasonType\":\"");
	out_text(o, type != NULL ? type : "unknown", WORD_MAX);
	OUT_LIT(o, "\"}");
	if (ev->recovered)
		OUT_LIT(o, ",\"recovered\":true");
}

static void
render_request(struct render *r)
{
	struct event_out *o = &r->o;
	const struct audit_event *ev = r->ev;

	OUT_LIT(o, ",\"requestData\":{");
	if (ev->attempts == 2)
		OUT_LIT(o, "\"attempts\":2,");
	if (ev->instance[0] != '\0') {
		OUT_LIT(o, "\"instanceId\":\"");
		out_text(o, ev->instance, UUID_MAX);
		OUT_LIT(o, "\",");
	}
	if (ev->key_ring[0] != '\0') {
		OUT_LIT(o, "\"keyRingId\":\"");
		out_text(o, ev->key_ring, WORD_MAX);
		OUT_LIT(o, "\",");
	}
	OUT_LIT(o, "\"method\":\"");
	out_text(o, ev->method, WORD_MAX);
	OUT_LIT(o, "\",\"path\":\"");
	out_text(o, ev->route->path, EVENT_PATH_MAX);
	if (!ev->matched) {
		OUT_LIT(o, "\",\"shape\":\"");
		out_text(o, ev->shape, ROUTE_SHAPE_SIZE - 1);
		OUT_LIT(o, "\",\"unmatched\":true}");
	} else {
		OUT_LIT(o, "\"}");
	}
}

static void
render_response(struct render *r)
{
	struct event_out *o = &r->o;

	if (r->ev->correlation_source != CORRELATION_SERVICE &&
	    r->ev->correlation_source != CORRELATION_ECHOED)
		return;
	OUT_LIT(o, ",\"responseHeader\":{\"content\":{\"correlationId\":\"");
	out_text(o, r->ev->correlation, WORD_MAX);
	OUT_LIT(o, "\"}}");
}

static void
render_key_ref(struct render *r)
{
	struct slice instance = slice_of(r->ev->instance);
	char ref[SCRUB_KEY_REF_SIZE];

	if (!scrub_fits(SCRUB_UUID, instance))
		instance = SLICE_EMPTY;
	if (scrub_key_ref(r->p->hmac_key, r->p->hmac_epoch, instance, slice_of(r->ev->key), ref) ==
	    -1)
		return;
	OUT_LIT(&r->o, ",\"keyRef\":\"");
	out_text(&r->o, ref, SCRUB_KEY_REF_SIZE);
	OUT_LIT(&r->o, "\"");
}

/* saveServiceCopy to target */
static void
render_tail(struct render *r)
{
	struct event_out *o = &r->o;
	const struct audit_event *ev = r->ev;

	OUT_LIT(o, ",\"saveServiceCopy\":true,\"severity\":\"");
	out_text(o, severity_name(event_severity(ev)), WORD_MAX);
	OUT_LIT(o, "\",\"target\":{\"id\":\"");
	out_bytes(o, r->crn.p, r->crn.n);
	if (r->p->key_ids == EVENT_KEY_PLAIN && r->known_instance &&
	    scrub_fits(SCRUB_UUID, slice_of(ev->key))) {
		OUT_LIT(o, "key:");
		out_text(o, ev->key, UUID_MAX);
	} else {
		OUT_LIT(o, ":");
	}
	OUT_LIT(o, "\"");
	if (r->p->key_ids == EVENT_KEY_HMAC && r->p->hmac_key != NULL && ev->key[0] != '\0')
		render_key_ref(r);
	OUT_LIT(o, ",\"name\":\"\",\"typeURI\":\"");
	out_text(o, r->p->type_uri, EVENT_SERVICE_MAX);
	OUT_LIT(o, "\"}");
}

size_t
event_render(const struct event_profile *p, const struct audit_event *ev, char *out)
{
	struct render r = {
		.o = { out, out + EVENT_LINE_MAX },
		.p = p,
		.ev = ev,
		.outcome = event_outcome(ev),
		.verified = event_is_verified(ev),
	};

	r.known_instance = is_known_instance(p, ev, r.verified);
	render_head(&r);
	render_initiator(&r);
	render_middle(&r);
	render_reason(&r);
	if (ev->route != NULL)
		render_request(&r);
	render_response(&r);
	render_tail(&r);
	return (size_t)(r.o.p - out);
}
