/* The events that the journal records itself, past the rings. */
#include "journal_internal.h"
#include "keytrail/base64.h"
#include "keytrail/clock.h"
#include "keytrail/event.h"
#include "keytrail/fault.h"

#include <sys/random.h>

struct own_line {
	uint32_t n;
};

static int
keep_line(struct journal *j, struct slice line)
{
	struct own_line head = { (uint32_t)line.n };

	if (buf_reserve(&j->own, sizeof(head) + line.n) == -1)
		return -1;
	buf_append(&j->own, &head, sizeof(head));
	return buf_append_slice(&j->own, line);
}

/* A line that cannot be kept for want of memory is appended all the same. */
static int
record(struct journal *j, struct event_self *ev)
{
	char line[EVENT_HARD_MAX], observer[16 + TRAIL_ID_SIZE];
	unsigned char random[10] = { 0 };
	size_t n;

	snprintf(observer, sizeof(observer), "keytrail/%s", trail_log_id(j->opts.trail));
	ev->time_ns = clock_wall_ns();
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		log_warn(j->opts.log, "no_random_bytes", "an event's id has no random part");
	clock_uuid7(ev->time_ns, random, ev->id);
	n = event_render_self(observer, ev, line);
	keep_line(j, (struct slice){ line, n });
	metrics_add(j->opts.metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	return journal_append(j, (struct slice){ line, n });
}

int
journal_append_own(struct journal *j)
{
	struct slice rest = buf_slice(&j->own);

	while (rest.n > 0) {
		struct own_line head;

		memcpy(&head, rest.p, sizeof(head));
		rest = slice_sub(rest, sizeof(head), rest.n);
		if (journal_append(j, slice_sub(rest, 0, head.n)) == -1)
			return -1;
		rest = slice_sub(rest, head.n, rest.n);
	}
	return 0;
}

#define NUMBER(name, value)                                                                        \
	{                                                                                          \
		.key = (name), .type = EVENT_DETAIL_NUMBER, .number = (value)                      \
	}
#define STRING(name, value)                                                                        \
	{                                                                                          \
		.key = (name), .type = EVENT_DETAIL_STRING, .string = (value)                      \
	}
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define LOSER_SIZE   128 /* cut */

void
journal_record_range(struct journal *j, const char *action, enum severity severity,
    const char *message, uint64_t first, uint64_t last)
{
	const struct event_detail details[] = { NUMBER("first", first), NUMBER("last", last) };
	struct event_self ev = {
		.action = action,
		.severity = severity,
		.outcome = EVENT_SUCCESS,
		.message = message,
		.details = details,
		.ndetails = COUNT(details),
	};

	record(j, &ev);
}

static void
record_tamper(struct journal *j, const char *message, const struct event_detail *details, size_t n)
{
	struct event_self ev = {
		.action = "keytrail.tamper",
		.severity = SEVERITY_CRITICAL,
		.outcome = EVENT_SUCCESS,
		.message = message,
		.details = details,
		.ndetails = n,
	};

	record(j, &ev);
}

/* Events may be gone with it; nobody can say how many. */
static void
record_cut_rings(struct journal *j, uint64_t n)
{
	const struct event_detail details[] = { NUMBER("rings", n) };

	record_tamper(j,
	    "keytrail: rings were shortened, deleted or overwritten; events may be gone", details,
	    COUNT(details));
}

static void
record_renewal(struct journal *j, const struct journal_renewal *r)
{
	char note[EVENT_DETAIL_MAX] = "";
	const struct event_detail details[] = { STRING("note", note), STRING("reason", r->reason) };

	if (BASE64_SIZE(r->note.n) < sizeof(note))
		note[base64_encode(r->note.p, r->note.n, note)] = '\0';
	record_tamper(j, "keytrail: the trail is not what it was; it goes on as a new log", details,
	    COUNT(details));
}

static void
record_foreign(struct journal *j, uint64_t n)
{
	const struct event_detail details[] = { NUMBER("segments", n) };
	struct event_self ev = {
		.action = "keytrail.corrupt",
		.severity = SEVERITY_CRITICAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: segments that are not of this log stood in the trail",
		.details = details,
		.ndetails = COUNT(details),
	};

	if (n > 0)
		record(j, &ev);
}

void
journal_record_recovery(struct journal *j)
{
	const struct trail_recovery *r = j->opts.recovery;

	j->unrecorded = false;
	j->untold = true;
	if (j->opts.renewal != NULL)
		record_renewal(j, j->opts.renewal);
	if (r == NULL)
		return;
	/* A new log whose first records did not become durable may have been torn, too. */
	if (!r->clean && (!r->new_log || r->torn_last > 0)) {
		const struct event_detail details[] = {
			NUMBER("fromRings", r->from_rings),
			NUMBER("fromSlots", r->from_slots),
			NUMBER("intentsClosed", r->intents_closed),
			STRING("previousBoot", r->previous_boot),
			NUMBER("tornBytes", r->torn_bytes),
			NUMBER("tornFirst", r->torn_first),
			NUMBER("tornLast", r->torn_last),
		};
		struct event_self ev = {
			.action = "keytrail.recover",
			.severity = SEVERITY_WARNING,
			.outcome = EVENT_SUCCESS,
			.message = "keytrail: recovered after an unclean stop",
			.details = details,
			.ndetails = COUNT(details) - (r->torn_last > 0 ? 0 : 2),
		};

		record(j, &ev);
	}
	if (r->rings_cut > 0)
		record_cut_rings(j, r->rings_cut);
	record_foreign(j, r->foreign);
	if (r->corrupt_last > 0)
		journal_record_range(j, "keytrail.corrupt", SEVERITY_CRITICAL,
		    "keytrail: the trail held corrupt lines", r->corrupt_first, r->corrupt_last);
	if (r->missing_last > 0)
		journal_record_range(j, "keytrail.tamper", SEVERITY_CRITICAL,
		    "keytrail: durable lines are gone from the trail", r->missing_first,
		    r->missing_last);
}

void
journal_record_left(struct journal *j, uint64_t calls)
{
	const struct event_detail details[] = { NUMBER("fromSlots", calls) };
	struct event_self ev = {
		.action = "keytrail.recover",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: the process that was taken over from was killed",
		.details = details,
		.ndetails = COUNT(details),
	};

	record(j, &ev);
}

/* In the words of the losses that producers count. */
static void
name_loser(struct slice line, char action[LOSER_SIZE], char initiator[LOSER_SIZE])
{
	struct slice who = trail_line_value(line, SLICE("initiator"));
	struct slice id = trail_line_string(who, SLICE("id"));
	struct slice what = trail_line_string(line, SLICE("action"));

	if (id.n == 0)
		id = trail_line_string(who, SLICE("name"));
	snprintf(action, LOSER_SIZE, "%.*s 1", (int)what.n, what.p);
	snprintf(initiator, LOSER_SIZE, "%.*s", (int)id.n, id.p);
}

int
journal_record_loss(struct journal *j, enum metric_loss reason, uint64_t n, struct slice line)
{
	char at[CLOCK_EVENT_TIME_SIZE], action[LOSER_SIZE], initiator[LOSER_SIZE];
	const struct event_detail named[] = {
		STRING("actions", action),
		NUMBER("count", n),
		STRING("first", at),
		STRING("initiators", initiator),
		STRING("last", at),
		STRING("reason", metrics_loss_word(reason)),
	};
	const struct event_detail unnamed[] = { named[1], named[2], named[4], named[5] };
	struct event_self ev = {
		.action = "keytrail.loss",
		.severity = SEVERITY_CRITICAL,
		.outcome = EVENT_FAILURE,
		.message = "keytrail: events were lost",
		.details = line.n > 0 ? named : unnamed,
		.ndetails = line.n > 0 ? COUNT(named) : COUNT(unnamed),
	};

	metrics_add(j->opts.metrics, METRIC_EVENTS_LOST, reason, (int64_t)n);
	clock_event_time(clock_wall_ns(), at);
	name_loser(line, action, initiator);
	return record(j, &ev);
}

static void
record_gone(struct journal *j, uint64_t segment, uint64_t first, uint64_t last)
{
	const struct event_detail details[] = {
		NUMBER("first", first),
		NUMBER("last", last),
		NUMBER("segment", segment),
	};

	record_tamper(j, "keytrail: the open segment was cut, deleted, renamed or replaced",
	    details, COUNT(details));
}

static void
record_cut_state(struct journal *j)
{
	record_tamper(j, "keytrail: the state page was shortened", NULL, 0);
}

void
journal_record_cuts(struct journal *j)
{
	uint64_t n = 0;

	for (size_t i = 0; i < j->nmembers; i++)
		n += ring_was_cut(j->members[i].ring);
	if (n > 0)
		record_cut_rings(j, n);
	if (trail_state_was_cut(j->opts.trail))
		record_cut_state(j);
}

void
journal_record_tampering(struct journal *j)
{
	uint64_t segment, first, last;

	if (!trail_tampered(j->opts.trail, &segment, &first, &last))
		return;
	record_gone(j, segment, first, last);
	trail_told(j->opts.trail, first, last);
	j->untold = true;
}

static void
record_changes(struct journal *j)
{
	uint64_t segment;

	while (trail_find_changed(j->opts.trail, &segment)) {
		const struct event_detail details[] = { NUMBER("segment", segment) };

		record_tamper(j, "keytrail: a sealed segment was changed or replaced", details,
		    COUNT(details));
	}
}

/* Told before they go: nobody would find them again.  -1: nothing can be said of the others. */
static int
put_foreign_aside(struct journal *j)
{
	struct err err;
	size_t n;

	if (trail_find_foreign(j->opts.trail, &n, &err) == -1) {
		log_error(j->opts.log, "trail_not_searched", "%s", err.msg);
		return -1;
	}
	if (n > 0) {
		record_foreign(j, n);
		if (j->failures > 0 || journal_commit(j) == -1)
			return -1;
		FAULT_POINT("aside.after_record");
	}
	if (trail_put_foreign_aside(j->opts.trail, &err) == -1)
		log_error(j->opts.log, "not_put_aside", "%s", err.msg);
	return 0;
}

void
journal_record_gaps(struct journal *j)
{
	uint64_t first, last = 0;
	struct err err;
	int rc;

	record_changes(j);
	if (put_foreign_aside(j) == -1)
		return;
	while ((rc = trail_find_untold(j->opts.trail, last, &first, &last, &err)) == 1) {
		journal_record_range(j, "keytrail.tamper", SEVERITY_CRITICAL,
		    "keytrail: lines are gone with a segment, or a segment's end", first, last);
		trail_told(j->opts.trail, first, last);
		j->untold = true;
	}
	if (rc == -1)
		log_error(j->opts.log, "trail_not_searched", "%s", err.msg);
}

static void
record_file(struct journal *j, const char *file, bool mended)
{
	const struct event_detail details[] = {
		STRING("file", file),
		{ .key = "mended", .type = EVENT_DETAIL_BOOL, .number = mended },
	};

	record_tamper(j,
	    strcmp(file, ".") == 0
		? "keytrail: the trail's directory was deleted, renamed or replaced"
		: "keytrail: a file of the trail was deleted, renamed or replaced",
	    details, COUNT(details));
}

void
journal_record_harm(struct journal *j)
{
	struct trail_harm harm[TRAIL_HARM_MAX];
	size_t n = trail_find_harm(j->opts.trail, harm);
	const char *ring;
	bool mended;

	for (size_t i = 0; i < n; i++)
		record_file(j, harm[i].file, harm[i].mended);
	for (size_t i = 0; i < j->nmembers; i++) {
		ring = ring_was_unlinked(j->members[i].ring, trail_dirfd(j->opts.trail), &mended);
		if (ring != NULL)
			record_file(j, ring, mended);
	}
}

void
journal_record_checkpoint(struct journal *j, uint64_t size, const char *note)
{
	const struct event_detail details[] = { NUMBER("events", size), STRING("note", note) };
	struct event_self ev = {
		.action = "keytrail.checkpoint",
		.severity = SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: a checkpoint of the trail was signed",
		.details = details,
		.ndetails = COUNT(details),
	};

	record(j, &ev);
}

void
journal_record_reject(struct journal *j, const struct journal_reject *r)
{
	const struct event_detail details[] = { NUMBER("count", r->count),
		NUMBER("first", r->first), NUMBER("last", r->last), STRING("reason", r->reason),
		STRING("sink", r->sink) };
	struct event_self ev = {
		.action = "keytrail.reject",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_FAILURE,
		.message = "keytrail: a sink refused events for good; they are in its quarantine",
		.details = details,
		.ndetails = COUNT(details),
	};

	record(j, &ev);
}
