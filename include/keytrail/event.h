/*
 * event: one audit event as one line of canonical JSON (RFC 8785), rendered from a closed list of
 * facts.
 *
 * A line is complete but for its last member: it ends before `,"trail":{...}}` and the newline,
 * which the journal adds (journal.h).  Keys are sorted at every level.  Every string that a client
 * or the key service chose has been through scrub before it enters struct audit_event (libevent
 * owns the name `struct event`).  Pure: no clock, no allocation, no I/O.
 */
#ifndef KEYTRAIL_EVENT_H
#define KEYTRAIL_EVENT_H

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/identity.h"
#include "keytrail/refusal.h"
#include "keytrail/route.h"
#include "keytrail/scrub.h"

/* A rendered call event is never longer than this, whatever its facts (asserted); a worker reserves
 * as much before it forwards a request. */
#define EVENT_LINE_MAX 4096
/* Texts of a configuration are cut at these bounds (bytes, as escaped). */
#define EVENT_ACTION_MAX  96
#define EVENT_PATH_MAX	  256
#define EVENT_SERVICE_MAX 64 /* service_name, crn_service, type_uri, region, account, observer_id */
/* Bound of the trail member and newline that the journal adds. */
#define EVENT_TRAIL_MAX 256
/* No line of the trail is longer; keytrail.* events may use it all. */
#define EVENT_HARD_MAX 16384

enum event_outcome { EVENT_SUCCESS, EVENT_FAILURE, EVENT_UNKNOWN, EVENT_PENDING };
enum correlation_source {
	CORRELATION_SERVICE,
	CORRELATION_ECHOED,
	CORRELATION_REQUEST,
	CORRELATION_NONE
};
enum event_key_ids { EVENT_KEY_OMIT, EVENT_KEY_HMAC, EVENT_KEY_PLAIN };
enum event_names { EVENT_NAME_OMIT, EVENT_NAME_HMAC, EVENT_NAME_PLAIN };
enum event_vocabulary { EVENT_CURRENT, EVENT_2019 };

/* What is the same for every event of one configuration; borrowed, immutable. */
struct event_profile {
	const char *service_name;     /* "Key Protect", opens the message */
	const char *crn_service;      /* "kms" */
	const char *type_uri;	      /* "kms/secrets" */
	const char *region;	      /* "us-south", or "" */
	const char *account;	      /* from the configuration, or "" */
	const char *const *instances; /* ids that are known without the service's word */
	size_t ninstances;
	const char *observer_id; /* "keytrail/<log id>" */
	enum event_key_ids key_ids;
	enum event_names names;
	enum event_vocabulary vocabulary;
	const unsigned char *hmac_key; /* SCRUB_HMAC_KEY_SIZE bytes, or NULL: hmac acts as omit */
	unsigned hmac_epoch;
};

/* The facts of one call.  Fixed storage: nothing is borrowed from the request's bytes. */
struct audit_event {
	const struct route *route;
	bool matched;
	enum http_refusal refusal; /* we answered ourselves, for this reason */
	unsigned status;	   /* of the final answer (the service's or ours); 0: none came */
	bool from_service;	   /* status came from the key service */
	/* status 0: why; a fixed word: "client_gone", "timeout", "connection_lost",
	 * "malformed_answer", "foreign_location", "shutdown", or the label of the refusal that cut
	 * the request */
	const char *unknown_reason;
	bool client_gone;   /* the client vanished; the service's status is known */
	int64_t arrival_ns; /* wall clock */
	char id[CLOCK_UUID_SIZE];
	char method[16];      /* scrubbed */
	char correlation[65]; /* scrubbed; "" when there is none */
	enum correlation_source correlation_source;
	char instance[37];  /* Bluemix-Instance, scrubbed: UUID or [redacted] or "" */
	char key_ring[101]; /* X-Kms-Key-Ring, scrubbed */
	char key[91];	    /* {id} as it came when it is a UUID or alias, else "" */
	char agent[129];    /* scrubbed product tokens */
	char address[46];   /* client address, numeric */
	char peer[46];	    /* TCP peer when address came from X-Forwarded-For, else "" */
	char shape[ROUTE_SHAPE_SIZE];
	unsigned attempts; /* 2 after the one retry, else 1 */
	bool recovered;	   /* written by recovery */
	bool pending;	   /* an intent: written before the request is forwarded */
	struct identity identity;
};

/* Fill the facts that come from the request's head but for the identity: method, instance, key ring,
 * agent, key, route with matched, refusal and shape, and the client's own correlation ID (source
 * REQUEST or NONE).  A field that came more than once counts as one that does not fit its grammar. */
void event_from_request(struct audit_event *ev, const struct http_head *head,
    const struct route_match *match, struct slice correlation_header, enum scrub_grammar grammar);

/* What the identity is to be read from. */
struct slice event_authorization(const struct http_head *head);

/* Fill status, from_service and correlation ID from the key service's answer; `echoed` is decided
 * here.  Where the answer names no ID the request's stays. */
void event_from_response(struct audit_event *ev, const struct http_head *head,
    struct slice correlation_header, enum scrub_grammar grammar);

/* The key service vouches for the token's claims: a 2xx where the route needs a login.  What nobody
 * vouches for, a token or a certificate's issuer, is hearsay and stands in initiator.claimed only. */
bool event_is_verified(const struct audit_event *ev);

enum event_outcome event_outcome(const struct audit_event *ev);
enum severity event_severity(const struct audit_event *ev);
const char *event_outcome_name(enum event_outcome outcome); /* "success" ... */

/* Render into out (at least EVENT_LINE_MAX bytes).  The length; never fails. */
size_t event_render(const struct event_profile *p, const struct audit_event *ev, char *out);

/* ---- events of the sidecar's own life: keytrail.start, .stop, .reload, .recover, ... ---- */

/* One detail: a key in camelCase (fixed literal) and a string, number or boolean. */
struct event_detail {
	const char *key;
	enum { EVENT_DETAIL_STRING, EVENT_DETAIL_NUMBER, EVENT_DETAIL_BOOL } type;
	const char
	    *string;	 /* own text or configuration, never a client's bytes; scrubbed as text */
	uint64_t number; /* below 2^53, and the truth of a boolean */
};

#define EVENT_DETAILS_MAX 24
#define EVENT_DETAIL_MAX  4096 /* bytes of a string; a longer one is left out */

struct event_self {
	const char *action; /* "keytrail.start" */
	enum severity severity;
	enum event_outcome outcome;
	const char *message;
	int64_t time_ns;
	char id[CLOCK_UUID_SIZE];
	const struct event_detail *details; /* any order; sorted by the renderer */
	size_t ndetails;
};

/* Render into out (at least EVENT_HARD_MAX - EVENT_TRAIL_MAX bytes); details that do not fit are
 * left out and `detailsCut` says so.  The length. */
size_t event_render_self(const char *observer_id, const struct event_self *ev, char *out);

/* Write the JSON string of s, quotes included, escaped as RFC 8785 section 3.2.2.2 asks, with at
 * most cap bytes.  The length, or -1 when it does not fit.  Invalid UTF-8 becomes U+FFFD. */
long event_json_string(struct slice s, char *out, size_t cap);

/* Markdown: the members of a line, and the details of the sidecar's own events. */
int event_reference(struct buf *out);

#endif
