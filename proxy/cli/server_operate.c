/* What operators ask over the admin socket.  Each call is keytrail.access in the trail, beside what tells
 * of what it did. */
#include "cli/server_internal.h"

#include "keytrail/clock.h"
#include "keytrail/fault.h"

#include <event2/event.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DETAILS_MAX  16
#define HOLD_WAIT_MS 5000
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct operation {
	const char *path;
	/* 0, -1; 1: and it has recorded so. */
	int (*run)(
	    struct server *s, const struct admin_call *call, struct buf *text, struct err *err);
};

/* ---- recording ---- */

/* The entry, with who asked for it. */
static void
add_caller(struct chronicle_entry *e, struct event_detail details[DETAILS_MAX],
    const struct admin_call *call)
{
	const struct event_detail who[] = {
		{ "operator", EVENT_DETAIL_STRING, call->peer.name, 0 },
		{ "operatorPid", EVENT_DETAIL_NUMBER, NULL, (uint64_t)call->peer.pid },
		{ "operatorUid", EVENT_DETAIL_NUMBER, NULL, call->peer.uid },
		{ "role", EVENT_DETAIL_STRING, "operator", 0 },
		{ "socket", EVENT_DETAIL_STRING, call->socket, 0 },
	};

	memcpy(details, who, sizeof(who));
	memcpy(details + COUNT(who), e->details, e->ndetails * sizeof(details[0]));
	e->details = details;
	e->ndetails += COUNT(who);
}

static void
record_call(struct server *s, const struct admin_call *call, const struct chronicle_entry *e)
{
	struct event_detail details[DETAILS_MAX];
	struct chronicle_entry whole = *e;

	add_caller(&whole, details, call);
	server_record(s, &whole);
}

static void
record_done(
    struct server *s, const struct admin_call *call, const struct event_detail *details, size_t n)
{
	struct chronicle_entry e = { .action = "keytrail.access",
		.severity = SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: an operator's call was carried out",
		.details = details,
		.ndetails = n };

	record_call(s, call, &e);
}

static void
record_refused(struct server *s, const struct admin_call *call, const char *path, const char *why)
{
	const struct event_detail details[] = {
		{ "call", EVENT_DETAIL_STRING, path, 0 },
		{ "reason", EVENT_DETAIL_STRING, why, 0 },
	};
	struct chronicle_entry e = { .action = "keytrail.access",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_FAILURE,
		.message = "keytrail: an operator's call was refused",
		.details = details,
		.ndetails = COUNT(details) };

	record_call(s, call, &e);
}

/* ---- break-glass ---- */

/* How often what is foretold of the end is renewed. */
#define FORETELL_NS (60 * CLOCK_NS_PER_S)

static int
arm_timer(struct server *s, int64_t left)
{
	int64_t ns = left < FORETELL_NS ? left : FORETELL_NS;
	struct timeval tv = { ns / CLOCK_NS_PER_S, ns % CLOCK_NS_PER_S / 1000 + 1 };

	return evtimer_add(&s->degrade_timer, &tv);
}

static void
record_begin(struct server *s, const struct admin_call *call, const char *reason, const char *until)
{
	const struct event_detail details[] = {
		{ "phase", EVENT_DETAIL_STRING, "start", 0 },
		{ "reason", EVENT_DETAIL_STRING, reason, 0 },
		{ "until", EVENT_DETAIL_STRING, until, 0 },
	};
	struct chronicle_entry e = { .action = "keytrail.degrade",
		.severity = SEVERITY_CRITICAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: calls are served without waiting for their record",
		.details = details,
		.ndetails = COUNT(details) };

	log_warn(s->log, "degraded", "until %s, by %s: %s", until, call->peer.name, reason);
	record_call(s, call, &e);
}

static struct chronicle_entry
ending(const struct event_detail *details, size_t n)
{
	return (struct chronicle_entry){ .action = "keytrail.degrade",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: calls wait for their record again",
		.details = details,
		.ndetails = n,
		.foretold = true };
}

/* A restart ends it; the process that dies cannot say so. */
static void
foretell_end(struct server *s)
{
	char until[CLOCK_EVENT_TIME_SIZE];
	const struct event_detail details[] = {
		{ "phase", EVENT_DETAIL_STRING, "end", 0 },
		{ "reason", EVENT_DETAIL_STRING, "restart", 0 },
		{ "until", EVENT_DETAIL_STRING, until, 0 },
	};
	struct chronicle_entry e = ending(details, COUNT(details));

	clock_event_time(s->degraded_until, until);
	chronicle_foretell(&s->chronicle, &e);
}

/* It is in force once both its start and its end would be found after a kill. */
static int
begin_degrade(struct server *s, const struct admin_call *call, struct buf *text, struct err *err)
{
	const char *time = admin_call_get(call, "for"), *reason = admin_call_get(call, "reason");
	char until[CLOCK_EVENT_TIME_SIZE];
	int64_t now = clock_mono_ns();
	uint64_t seconds;

	reason = reason != NULL ? reason : "";
	if (time == NULL || config_time_of(time, CLOCK_NS_PER_S, &seconds) == -1)
		return err_set(err, "for how long? wanted whole seconds with a unit, like 30m");
	if (degrade_check(&s->degrade, seconds, s->config->audit.degrade_max, reason, now, err) ==
	    -1)
		return -1;
	if (arm_timer(s, (int64_t)seconds * CLOCK_NS_PER_S) == -1)
		return err_set(err, "memory is short");
	s->degraded_before = metrics_value(s->metrics, METRIC_DEGRADED_REQUESTS, 0);
	s->degraded_until = clock_wall_ns() + (int64_t)seconds * CLOCK_NS_PER_S;
	clock_event_time(s->degraded_until, until);
	foretell_end(s);
	record_begin(s, call, reason, until);
	foretell_end(s); /* behind the start, should that stand in a slot too */
	degrade_begin(&s->degrade, seconds, reason, now);
	return buf_printf(text, "degraded until %s\n", until);
}

/* `call` NULL: nobody asked. */
static void
record_end(struct server *s, const struct admin_call *call, const char *why)
{
	double calls = metrics_value(s->metrics, METRIC_DEGRADED_REQUESTS, 0) - s->degraded_before;
	char until[CLOCK_EVENT_TIME_SIZE];
	const struct event_detail details[] = {
		{ "calls", EVENT_DETAIL_NUMBER, NULL, (uint64_t)calls },
		{ "phase", EVENT_DETAIL_STRING, "end", 0 },
		{ "reason", EVENT_DETAIL_STRING, why, 0 },
		{ "until", EVENT_DETAIL_STRING, until, 0 },
	};
	struct chronicle_entry e = ending(details, COUNT(details));

	clock_event_time(s->degraded_until, until);
	evtimer_del(&s->degrade_timer);
	log_warn(s->log, "degrade_ended", "%s; %.0f calls came meanwhile", why, calls);
	if (call != NULL)
		record_call(s, call, &e);
	else
		server_record(s, &e);
}

static int
end_degrade(struct server *s, const struct admin_call *call, struct buf *text, struct err *err)
{
	if (degrade_end(&s->degrade, err) == -1)
		return -1;
	record_end(s, call, "cancelled");
	return buf_printf(text, "degraded no longer\n");
}

void
server_end_degrade(struct server *s, const char *why)
{
	struct err err;

	if (degrade_end(&s->degrade, &err) == 0)
		record_end(s, NULL, why);
}

void
server_on_degrade_timer(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	int64_t left = degrade_left_ns(&s->degrade, clock_mono_ns());

	(void)fd;
	(void)what;
	if (left <= 0 || arm_timer(s, left) == -1)
		server_end_degrade(s, "elapsed");
	else
		foretell_end(s);
}

/* ---- holds ---- */

/* One end of a range: a number, or the first or last event time in what is written. */
struct bound {
	uint64_t seq; /* 0: a time */
	char time[CLOCK_EVENT_TIME_SIZE];
};

static int
read_bound(const char *text, bool last, struct bound *out, struct err *err)
{
	*out = (struct bound){ 0 };
	if (text != NULL && slice_to_u64(slice_of(text), &out->seq) == 0 && out->seq > 0)
		return 0;
	out->seq = 0;
	if (text == NULL || clock_parse_time(text, last, out->time) == -1)
		return err_set(err, "from and to are numbers of events from 1 on, or times like "
				    "2026-11-22 and 2026-11-22T20:09:08Z");
	return 0;
}

static int
read_hold(struct server *s, const struct admin_call *call, struct trail_hold *out, struct err *err)
{
	const char *name = admin_call_get(call, "name");
	struct bound from, to;

	*out = (struct trail_hold){ 0 };
	if (read_bound(admin_call_get(call, "from"), false, &from, err) == -1 ||
	    read_bound(admin_call_get(call, "to"), true, &to, err) == -1 ||
	    trail_seq_range(s->trail, from.time, to.time, &out->first, &out->last, err) == -1)
		return -1;
	if (from.seq == 0 && to.seq == 0 && strcmp(from.time, to.time) > 0)
		return err_set(err, "the range ends before it begins");
	out->first = from.seq != 0 ? from.seq : out->first;
	out->last = to.seq != 0 ? to.seq : out->last;
	if (name != NULL && strlen(name) < sizeof(out->name))
		snprintf(out->name, sizeof(out->name), "%s", name);
	return 0;
}

/* Nobody asked: `call` NULL.  False: it is not certain that it will be recorded. */
static bool
record_hold(struct server *s, const struct admin_call *call, const struct trail_hold *hold,
    const char *change)
{
	const struct event_detail details[] = {
		{ "change", EVENT_DETAIL_STRING, change, 0 },
		{ "first", EVENT_DETAIL_NUMBER, NULL, hold->first },
		{ "last", EVENT_DETAIL_NUMBER, NULL, hold->last },
		{ "name", EVENT_DETAIL_STRING, hold->name, 0 },
	};
	struct event_detail whole[DETAILS_MAX];
	struct chronicle_entry e = { .action = "keytrail.hold",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: what may be removed from the trail was changed",
		.details = details,
		.ndetails = COUNT(details) };

	if (call == NULL)
		return server_record(s, &e) != 0;
	add_caller(&e, whole, call);
	return server_assure(s, &e, HOLD_WAIT_MS);
}

/* After a kill between a change and its record, or a change that was recorded and failed. */
void
server_record_holds(struct server *s)
{
	const struct trail_holds *holds = trail_holds(s->trail);

	for (size_t i = 0; i < holds->n; i++)
		record_hold(s, NULL, &holds->holds[i], "found");
}

static int
not_recorded(const char *what, struct err *err)
{
	return err_set(err, "%s: the event that tells of it is not durable", what);
}

static int
add_hold(struct server *s, const struct admin_call *call, struct buf *text, struct err *err)
{
	struct trail_hold hold;

	if (read_hold(s, call, &hold, err) == -1 || trail_hold_add(s->trail, &hold, err) == -1)
		return -1;
	if (!record_hold(s, call, &hold, "add")) {
		s->hold_lost = s->chronicle.lost;
		return not_recorded("it is held", err);
	}
	FAULT_POINT("hold.after_record");
	if (trail_holds_settled(s->trail, err) == -1)
		return -1;
	return buf_printf(
	    text, "events %" PRIu64 " to %" PRIu64 " are held\n", hold.first, hold.last);
}

static int
remove_hold(struct server *s, const struct admin_call *call, struct buf *text, struct err *err)
{
	const char *name = admin_call_get(call, "name");
	struct trail_hold hold;

	if (trail_hold_find(s->trail, name != NULL ? name : "", &hold, err) == -1)
		return -1;
	if (!record_hold(s, call, &hold, "remove"))
		return not_recorded("it is still held", err);
	FAULT_POINT("hold.after_record");
	if (trail_hold_remove(s->trail, hold.name, err) == -1) {
		server_record_holds(s);
		return -1;
	}
	if (trail_holds_settled(s->trail, err) == -1)
		return -1;
	return buf_printf(
	    text, "events %" PRIu64 " to %" PRIu64 " are held no longer\n", hold.first, hold.last);
}

static int
reset_holds(struct server *s, const struct admin_call *call, struct buf *text, struct err *err)
{
	const struct trail_hold none = { .name = "" };

	if (trail_holds(s->trail)->damage.msg[0] == '\0')
		return err_set(err, "the holds are known: remove them by name");
	if (!record_hold(s, call, &none, "reset"))
		return not_recorded("everything is still held", err);
	if (trail_holds_reset(s->trail, err) == -1 || trail_holds_settled(s->trail, err) == -1)
		return -1;
	return buf_printf(text, "nothing is held\n");
}

/* ---- sinks ---- */

static int
replay_sink(struct server *s, const struct admin_call *call, struct buf *text, struct err *err)
{
	const char *sink = admin_call_get(call, "sink"), *from = admin_call_get(call, "from");
	uint64_t first;

	if (publisher_replay(s->publisher, sink != NULL ? sink : "", from != NULL ? from : "",
		&first, err) == -1)
		return -1;
	record_done(s, call,
	    (const struct event_detail[]){ { "call", EVENT_DETAIL_STRING, call->path, 0 },
		{ "first", EVENT_DETAIL_NUMBER, NULL, first },
		{ "sink", EVENT_DETAIL_STRING, sink, 0 } },
	    3);
	buf_printf(text, PUBLISHER_REPLAY_TEXT, sink, first);
	return 1;
}

/* ---- the calls ---- */

static const struct operation operations[] = {
	{ "/degrade", begin_degrade },
	{ "/degrade/end", end_degrade },
	{ "/hold/add", add_hold },
	{ "/hold/remove", remove_hold },
	{ "/hold/reset", reset_holds },
	{ "/sinks/replay", replay_sink },
};

unsigned
server_operate(void *arg, const struct admin_call *call, struct buf *text)
{
	struct server *s = arg;
	struct err err;
	int rc;

	for (size_t i = 0; i < COUNT(operations); i++) {
		const struct operation *o = &operations[i];

		if (strcmp(call->path, o->path) != 0)
			continue;
		if ((rc = o->run(s, call, text, &err)) == -1) {
			record_refused(s, call, o->path, err.msg);
			buf_printf(text, "%s\n", err.msg);
			return 409;
		}
		if (rc == 0)
			record_done(s, call,
			    &(struct event_detail){ "call", EVENT_DETAIL_STRING, o->path, 0 }, 1);
		return 200;
	}
	record_refused(s, call, "unknown", "no such call");
	buf_printf(text, "no such call\n");
	return 404;
}
