/* Jumps of the wall clock: numbers go on, times do not, and the trail says so. */
#include "cli/server_internal.h"

#include "keytrail/clock.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

static const struct timeval look_interval = { 1, 0 };

static void
record_jump(struct server *s, int64_t from_ns, int64_t to_ns, const char *when)
{
	char from[CLOCK_EVENT_TIME_SIZE], to[CLOCK_EVENT_TIME_SIZE];
	const struct event_detail details[] = {
		{ "from", EVENT_DETAIL_STRING, from, 0 },
		{ "milliseconds", EVENT_DETAIL_NUMBER, NULL,
		    (uint64_t)llabs(to_ns - from_ns) / CLOCK_NS_PER_MS },
		{ "to", EVENT_DETAIL_STRING, to, 0 },
		{ "way", EVENT_DETAIL_STRING, to_ns < from_ns ? "back" : "forward", 0 },
		{ "when", EVENT_DETAIL_STRING, when, 0 },
	};
	struct chronicle_entry e = { .action = "keytrail.clock",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: the clock jumped",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	clock_event_time(from_ns, from);
	clock_event_time(to_ns, to);
	log_warn(s->log, "clock_jumped", "from %s to %s", from, to);
	server_record(s, &e);
}

static void
on_clock_timer(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	int64_t wall = clock_wall_ns(), jump;

	(void)fd;
	(void)what;
	if (s->takeover.given)
		return;
	if ((jump = clock_watch(&s->clock_watch, wall, clock_boot_ns())) != 0)
		record_jump(s, wall - jump, wall, "running");
}

/* Before recovery adds lines of now.  A trail that cannot be read has no last line here. */
void
server_look_back(struct server *s)
{
	const char *dir = s->config->audit.trail;
	struct trail_reader *r;
	struct trail_member m;
	struct slice line;
	uint64_t last, seq;
	struct err err;

	if (trail_reader_open(dir, 0, &r, &err) == -1)
		return;
	last = trail_reader_durable(r);
	trail_reader_close(r);
	if (last == 0 || trail_reader_open(dir, last, &r, &err) == -1)
		return;
	if (trail_reader_next(r, &line, &seq, &err) == 1 && trail_parse_line(line, &m) == 0)
		clock_parse_event_time(m.at, &s->last_line_ns);
	trail_reader_close(r);
}

int
server_watch_clock(struct server *s, struct err *err)
{
	int64_t wall = clock_wall_ns();

	if (s->last_line_ns - wall > CLOCK_JUMP_NS)
		record_jump(s, s->last_line_ns, wall, "stopped");
	clock_watch(&s->clock_watch, wall, clock_boot_ns());
	event_assign(&s->clock_timer, s->base, -1, EV_PERSIST, on_clock_timer, s);
	if (event_add(&s->clock_timer, &look_interval) == -1)
		return err_set(err, "cannot watch the clock: memory is short");
	return 0;
}

const char *
server_clock_state(void)
{
	struct timex tx;
	int rc;

	memset(&tx, 0, sizeof(tx));
	if ((rc = adjtimex(&tx)) == -1)
		return "unknown";
	return rc == TIME_ERROR ? "unsynchronized" : "synchronized";
}
