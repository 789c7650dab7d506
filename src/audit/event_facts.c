#include "keytrail/event.h"

/* What fits no grammar: stands for a field that came more than once. */
static const struct slice repeated = SLICE_INIT("[repeated]");

/* p == NULL where there is no such field. */
static struct slice
single_field(const struct http_head *head, enum http_field_id id)
{
	const struct http_field *f = http_head_field(head, id);

	if (f == NULL)
		return (struct slice){ NULL, 0 };
	return http_head_count(head, id) == 1 ? f->value : repeated;
}

static struct slice
single_named_field(const struct http_head *head, struct slice name)
{
	const struct http_field *f = http_head_find(head, name);

	if (f == NULL)
		return SLICE_EMPTY;
	return http_head_count_name(head, name) == 1 ? f->value : repeated;
}

void
event_from_request(struct audit_event *ev, const struct http_head *head,
    const struct route_match *match, struct slice correlation_header, enum scrub_grammar grammar)
{
	struct slice agent = single_field(head, HTTP_F_USER_AGENT);
	struct slice correlation = single_named_field(head, correlation_header);

	ev->route = match->route;
	ev->matched = match->matched;
	ev->refusal = match->refusal;
	slice_to_cstr(slice_of(match->shape), ev->shape, sizeof(ev->shape));
	slice_to_cstr(scrub_fits(SCRUB_ALIAS, match->key) ? match->key : SLICE_EMPTY, ev->key,
	    sizeof(ev->key));
	slice_to_cstr(scrub_value(SCRUB_METHOD, head->method), ev->method, sizeof(ev->method));
	slice_to_cstr(scrub_value(SCRUB_UUID, single_field(head, HTTP_F_BLUEMIX_INSTANCE)),
	    ev->instance, sizeof(ev->instance));
	slice_to_cstr(scrub_value(SCRUB_KEY_RING, single_field(head, HTTP_F_X_KMS_KEY_RING)),
	    ev->key_ring, sizeof(ev->key_ring));
	ev->agent[scrub_agent(agent, ev->agent)] = '\0';
	slice_to_cstr(scrub_value(grammar, correlation), ev->correlation, sizeof(ev->correlation));
	ev->correlation_source = correlation.n > 0 ? CORRELATION_REQUEST : CORRELATION_NONE;
}

struct slice
event_authorization(const struct http_head *head)
{
	return single_field(head, HTTP_F_AUTHORIZATION);
}

void
event_from_response(struct audit_event *ev, const struct http_head *head,
    struct slice correlation_header, enum scrub_grammar grammar)
{
	struct slice id = single_named_field(head, correlation_header);
	struct slice own = slice_of(ev->correlation);
	bool echoed;

	ev->status = head->status;
	ev->from_service = true;
	if (id.n == 0)
		return;
	echoed = ev->correlation_source == CORRELATION_REQUEST && scrub_fits(grammar, id) &&
		 (grammar == SCRUB_UUID ? slice_equal_nocase(id, own) : slice_equal(id, own));
	slice_to_cstr(scrub_value(grammar, id), ev->correlation, sizeof(ev->correlation));
	ev->correlation_source = echoed ? CORRELATION_ECHOED : CORRELATION_SERVICE;
}

enum event_outcome
event_outcome(const struct audit_event *ev)
{
	if (ev->pending)
		return EVENT_PENDING;
	if (ev->status == 0)
		return EVENT_UNKNOWN;
	return ev->status / 100 == 2 ? EVENT_SUCCESS : EVENT_FAILURE;
}

const char *
event_outcome_name(enum event_outcome outcome)
{
	static const char *const names[] = {
		[EVENT_SUCCESS] = "success",
		[EVENT_FAILURE] = "failure",
		[EVENT_UNKNOWN] = "unknown",
		[EVENT_PENDING] = "pending",
	};

	return names[outcome];
}

/* The least severity that a status asks for. */
static enum severity
severity_of_status(unsigned status)
{
	static const struct {
		unsigned status;
		enum severity severity;
	} rows[] = {
		{ 400, SEVERITY_WARNING },
		{ 401, SEVERITY_CRITICAL },
		{ 403, SEVERITY_CRITICAL },
		{ 409, SEVERITY_WARNING },
		{ 424, SEVERITY_WARNING },
		{ 500, SEVERITY_WARNING },
		{ 502, SEVERITY_WARNING },
		{ 503, SEVERITY_CRITICAL },
		{ 504, SEVERITY_WARNING },
		{ 505, SEVERITY_WARNING },
		{ 507, SEVERITY_CRITICAL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		if (rows[i].status == status)
			return rows[i].severity;
	}
	return SEVERITY_NORMAL;
}

enum severity
event_severity(const struct audit_event *ev)
{
	enum severity least = severity_of_status(ev->status);
	enum severity route = ev->route != NULL ? ev->route->severity : SEVERITY_NORMAL;

	if (event_outcome(ev) == EVENT_UNKNOWN)
		least = SEVERITY_WARNING;
	else if (event_outcome(ev) == EVENT_SUCCESS && !ev->matched)
		least = SEVERITY_CRITICAL;
	return route > least ? route : least;
}
