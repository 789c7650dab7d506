#include "admin/admin_internal.h"

#include "admin/answer.h"

#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>

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

void
admin_tell_refused(struct admin *a)
{
	struct admin_refused *r = a != NULL ? &a->refused : NULL;
	const struct admin_access access = { .address = r != NULL ? r->address : "",
		.refused = r != NULL ? r->count : 0,
		.reason = r != NULL ? metrics_admin_refusal_word(r->why) : "" };

	if (access.refused == 0)
		return;
	r->count = 0;
	evtimer_add(&r->timer, &pause_time);
	a->opts.access(a->opts.arg, &access);
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
	evtimer_assign(&a->refused.timer, a->opts.base, on_timer, a);
}

/* Who has sent no token has tried nothing: a page that was left open asks again and again. */
static void
note(struct admin *a, enum metric_admin_refusal why, const char *address)
{
	struct admin_refused *r = &a->refused;

	metrics_add(a->opts.shard, METRIC_ADMIN_REFUSED, why, 1);
	if (why == METRIC_ADMIN_NO_TOKEN)
		return;
	r->count++;
	r->why = why;
	snprintf(r->address, sizeof(r->address), "%s", address);
	if (!evtimer_pending(&r->timer, NULL))
		admin_tell_refused(a);
}

void
admin_refuse(const struct admin_ask *ask, enum metric_admin_refusal why)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(ask->req);
	struct admin *a = ask->door->admin;

	log_warn(a->opts.log, "admin_refused", "%d: %s", answers[why].status, answers[why].text);
	note(a, why, ask->address);
	if (answers[why].status == 401)
		evhttp_add_header(headers, "WWW-Authenticate", "Bearer realm=\"keytrail\"");
	if (answers[why].status == 429)
		evhttp_add_header(headers, "Retry-After", "6");
	answer_text(ask->req, answers[why].status, answers[why].text);
}
