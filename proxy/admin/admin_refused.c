#include "admin/admin_internal.h"

#include "admin/answer.h"

#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <string.h>

static const struct timeval pause_time = { 60, 0 };

static const struct {
	int status;
	const char *text;
} answers[METRIC_ADMIN_REFUSALS] = {
	[METRIC_ADMIN_HOST] = { 403, "Host is not an address of this listener\n" },
	[METRIC_ADMIN_SITE] = { 403, "requests of other sites are refused\n" },
	[METRIC_ADMIN_NO_TOKEN] = { 401, "a bearer token is needed\n" },
	[METRIC_ADMIN_WRONG_TOKEN] = { 401, "a bearer token is needed\n" },
	[METRIC_ADMIN_TOO_OFTEN] = { 429, "too many wrong tokens came from this address\n" },
};

static void
tell(const struct admin *a, struct admin_refusal *r)
{
	const struct admin_access access = { .address = r->address,
		.refused = r->count,
		.reason = metrics_admin_refusal_word(r->why) };

	r->count = 0;
	a->opts.access(a->opts.arg, &access);
}

/* Who was silent since the last time is forgotten. */
void
admin_tell_refused(struct admin *a)
{
	struct admin_refused *r;
	unsigned kept = 0;

	if (a == NULL)
		return;
	r = &a->refused;
	for (unsigned i = 0; i < r->n; i++) {
		if (r->all[i].count == 0)
			continue;
		tell(a, &r->all[i]);
		r->all[kept++] = r->all[i];
	}
	r->n = kept;
	if (r->others.count > 0)
		tell(a, &r->others);
	if (kept > 0)
		evtimer_add(&r->timer, &pause_time);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	admin_tell_refused(arg);
}

void
admin_init_refused(struct admin *a)
{
	a->refused.others = (struct admin_refusal){ .address = "others" };
	evtimer_assign(&a->refused.timer, a->opts.base, on_timer, a);
}

static struct admin_refusal *
find(struct admin_refused *r, enum metric_admin_refusal why, const char *address)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->all[i].why == why && strcmp(r->all[i].address, address) == 0)
			return &r->all[i];
	return NULL;
}

static void
note(struct admin *a, enum metric_admin_refusal why, const char *address)
{
	struct admin_refused *r = &a->refused;
	struct admin_refusal *known = find(r, why, address);

	if (!evtimer_pending(&r->timer, NULL))
		evtimer_add(&r->timer, &pause_time);
	if (known != NULL) {
		known->count++;
	} else if (r->n < sizeof(r->all) / sizeof(r->all[0])) {
		known = &r->all[r->n++];
		*known = (struct admin_refusal){ .why = why, .count = 1 };
		snprintf(known->address, sizeof(known->address), "%s", address);
		tell(a, known);
	} else {
		r->others.why = r->others.count++ > 0 && r->others.why > why ? r->others.why : why;
	}
}

/* Who has sent no token has tried nothing: a page that was left open asks again and again.  Nor has a
 * page of another site that shows a picture of ours. */
static bool
is_attempt(const struct admin_ask *ask, enum metric_admin_refusal why)
{
	return why != METRIC_ADMIN_NO_TOKEN && !(ask->open && why == METRIC_ADMIN_SITE);
}

void
admin_refuse(const struct admin_ask *ask, enum metric_admin_refusal why)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(ask->req);
	struct admin *a = ask->door->admin;

	log_warn(a->opts.log, "admin_refused", "%d: %s", answers[why].status, answers[why].text);
	metrics_add(a->opts.shard, METRIC_ADMIN_REFUSED, why, 1);
	if (is_attempt(ask, why))
		note(a, why, ask->address);
	if (answers[why].status == 401)
		evhttp_add_header(headers, "WWW-Authenticate", "Bearer realm=\"keytrail\"");
	if (answers[why].status == 429)
		evhttp_add_header(headers, "Retry-After", "6");
	answer_text(ask->req, answers[why].status, answers[why].text);
}
