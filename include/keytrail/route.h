/*
 * route: turn the head of a request into an audit action.
 *
 * A route_table is compiled once from the routes file and never changes, so any thread may match
 * against it without a lock.  Pure: no I/O, no clock, no allocation while matching.
 *
 * Matching is on the raw path, segment by segment.  A literal beats a {parameter}, which beats a
 * trailing "**"; a method beats "*"; a discriminator (query or header) beats none.  Two routes that
 * one request could fit equally well are an error of route_compile, never a matter of order.  Cost
 * follows the length of the path, not the number of routes.
 */
#ifndef KEYTRAIL_ROUTE_H
#define KEYTRAIL_ROUTE_H

#include "keytrail/err.h"
#include "keytrail/head.h"
#include "keytrail/refusal.h"

enum severity { SEVERITY_NORMAL, SEVERITY_WARNING, SEVERITY_CRITICAL };
enum guarantee { GUARANTEE_ASYNC, GUARANTEE_DURABLE, GUARANTEE_INTENT };

/* One route as the file has it.  Strings are borrowed until route_compile returns. */
struct route_spec {
	const char *action;	 /* "kms.secrets.unwrap" */
	const char *action_2019; /* the name before 2022, or NULL when it never changed */
	const char *method;	 /* "POST", or "*" */
	const char *path;	 /* "/api/v2/keys/{id}", may end in a segment "**" (zero or more) */
	const char *query_name;	 /* discriminator, or NULL */
	const char *query_value;
	const char *header_name; /* discriminator, or NULL */
	const char *header_value;
	enum severity severity;
	enum guarantee guarantee;
	bool data_event;
	bool login;	   /* a 2xx means that the service checked the caller (default true) */
	bool retry;	   /* a GET or HEAD may be sent again on a fresh connection */
	bool fallback;	   /* the set's action for invalid requests: such a request is unmatched */
	const char *where; /* "file:line:column" for errors */
};

/* One compiled route.  Strings belong to the table. */
struct route {
	const char *action;
	const char *action_2019; /* equals action when it never changed */
	const char *method;
	const char *path; /* the template */
	const char *where;
	enum severity severity;
	enum guarantee guarantee;
	bool data_event, login, retry, fallback;
	unsigned index;	       /* of the route in the table, 0 .. route_table_size - 1 */
	unsigned action_index; /* of its action among the table's distinct actions */
};

struct route_table;

struct route_options {
	/* What a request outside every prefix is called. */
	const char *default_action; /* "kms.secrets.default" */
	const char *default_where;
	enum guarantee default_guarantee;
	/* Further headers that are refused when they come twice, under a name that only looks like
	 * theirs, in a trailer, or named in Connection (those that the record rests on). */
	const char *const *single_headers;
	size_t nsingle_headers;
};

/*
 * The grammars of a routes file: 0, or -1 and what was wanted.  An action is two to five words of
 * lower-case letters, digits and '-', joined by '.'; "keytrail." is the sidecar's own.  A path is
 * absolute; a segment is a literal, a whole {parameter} or, as the last one, "**".
 */
int route_check_action(const char *action, struct err *err);
int route_check_path(const char *path, struct err *err);
int route_check_method(const char *method, struct err *err); /* one of RFC 9110, PATCH, or "*" */
/* Name and value of a discriminator; header: a field's, else a query parameter's. */
int route_check_discriminator(const char *name, const char *value, bool header, struct err *err);

/* Do two specifications stand for the same requests: method, path but for the names of its
 * parameters, and discriminators? */
bool route_spec_same(const struct route_spec *a, const struct route_spec *b);

/* Compile n specifications.  On success *out is the caller's; on -1 *out is untouched and err
 * says which two routes (file:line:column of both) or what else is wrong. */
int route_compile(const struct route_spec *specs, size_t n, const struct route_options *opts,
    struct route_table **out, struct err *err);
void route_table_free(struct route_table *t); /* NULL is allowed */

/* The routes in the order of their specifications; the last one is the default action. */
size_t route_table_size(const struct route_table *t);
const struct route *route_table_get(const struct route_table *t, size_t index);
size_t route_table_actions(const struct route_table *t);
const char *route_table_action(const struct route_table *t, size_t action_index);

#define ROUTE_SHAPE_SIZE 257

struct route_match {
	const struct route *route; /* never NULL: the fallback or the default where nothing fits */
	bool matched;		   /* false: fallback or default, the event says unmatched */
	enum http_refusal refusal; /* not NONE: refuse; route is then the best name there is */
	struct slice key;	   /* raw value of {id} where the route has one, else empty */
	/* Unmatched: literals known to the table verbatim, the rest {uuid}, {n}, {},
	 * NUL-terminated; empty when matched, "{}" for a path that cannot be read, "other" for
	 * one that is too long.  Holds no byte a client chose freely. */
	char shape[ROUTE_SHAPE_SIZE];
};

/*
 * Classify, and refuse what a server could read otherwise than we do.  Every discriminator in the
 * request must be the one its route was chosen by.  A request whose path, query or body is refused
 * as ambiguous has the fallback's name.  Everything in *out is borrowed from the table and the
 * head.
 */
void route_match(
    const struct route_table *t, const struct http_head *head, struct route_match *out);

/* Is this, or could a server take it for, the name of a header that decides an action or that the
 * configuration declares single?  http_parse knows only those of its table. */
bool route_is_single_header(const struct route_table *t, struct slice name);

/* "POST /api/v2/keys/{id} with ?action=wrap"; at most n bytes with NUL. */
void route_describe(const struct route *r, char *out, size_t n);

/* What of the query, and of the fields, tells it from others of its method and path; name NULL: nothing. */
struct route_pair {
	const char *name, *value;
};
struct route_pair route_query(const struct route *r);
struct route_pair route_header(const struct route *r);

/* A sentence why this route and not another, for `keytrail explain`; at most n bytes with NUL. */
void route_explain(const struct route_table *t, const struct http_head *head, char *out, size_t n);

const char *severity_name(enum severity s);   /* "normal" ... */
const char *guarantee_name(enum guarantee g); /* "async" ... */

#endif
