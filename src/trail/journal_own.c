/* The events that the journal records itself, past the rings. */
#include "journal_internal.h"
#include "keytrail/base64.h"
#include "keytrail/clock.h"
#include "keytrail/event.h"
#include "keytrail/fault.h"

#include <stdlib.h>
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

static void
record_range(struct journal *j, const char *action, enum severity severity, const char *message,
    uint64_t first, uint64_t last)
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
	if (!r->new_log && !r->clean) {
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
		record_range(j, "keytrail.corrupt", SEVERITY_CRITICAL,
		    "keytrail: the trail held corrupt lines", r->corrupt_first, r->corrupt_last);
	if (r->missing_last > 0)
		record_range(j, "keytrail.tamper", SEVERITY_CRITICAL,
		    "keytrail: durable lines are gone from the trail", r->missing_first,
		    r->missing_last);
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
		record_range(j, "keytrail.tamper", SEVERITY_CRITICAL,
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

static void
record_checkpoint(struct journal *j, uint64_t size, const char *note)
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

/* By the reports of other damage, or since the trail was searched for it. */
static bool
is_told(struct journal *j, const struct trail_range *r)
{
	struct trail_range told[TRAIL_TOLD_MAX];
	size_t n = trail_told_ranges(j->opts.trail, told);

	for (size_t i = 0; i < n; i++)
		if (told[i].first <= r->first && r->last <= told[i].last)
			return true;
	return false;
}

/* Aside first: once it is told of, nobody looks for it again. */
static void
record_damage(struct journal *j, const struct trail_range *r)
{
	struct err err;

	if (is_told(j, r))
		return;
	if (trail_quarantine(j->opts.trail, r->first, r->last, &err) == -1)
		log_error(j->opts.log, "not_put_aside", "%s", err.msg);
	record_range(j, "keytrail.corrupt", SEVERITY_CRITICAL,
	    "keytrail: a reader met corrupt lines in the trail", r->first, r->last);
	trail_told(j->opts.trail, r->first, r->last);
	j->untold = true;
}

void
journal_record_reports(struct journal *j)
{
	struct journal_note *notes;
	struct trail_range told[TOLD_MAX];
	size_t n, ntold = 0;

	if (j->unrecorded || !atomic_exchange(&j->reported, false))
		return;
	pthread_mutex_lock(&j->lock);
	while (j->nrecorded < j->ntold)
		told[ntold++] = j->told[j->nrecorded++ % TOLD_MAX];
	n = j->nnotes;
	notes = j->notes;
	j->notes = NULL;
	j->nnotes = 0;
	pthread_mutex_unlock(&j->lock);
	for (size_t i = 0; i < ntold; i++)
		record_damage(j, &told[i]);
	for (size_t i = 0; i < n; i++)
		record_checkpoint(j, notes[i].size, notes[i].text);
	free(notes);
}

/* What was written before a jump is only as old as the clock says that is right.  What cannot be told so
 * does not expire. */
static void
heed_jump(struct journal *j, int64_t jump, int64_t steady)
{
	struct err err;

	if (j->trusted_ns != INT64_MAX)
		j->trusted_ns = steady + JOURNAL_TRUST_NS;
	if (llabs(jump) < JOURNAL_TRUST_NS || trail_shift_times(j->opts.trail, jump, &err) == 0)
		return;
	log_error(
	    j->opts.log, "times_not_shifted", "nothing expires before the next start: %s", err.msg);
	j->trusted_ns = INT64_MAX;
}

/* The time before which a line has expired; 0 while nobody knows that the clock is right: one that
 * is far ahead would remove all. */
static int64_t
expired_before(struct journal *j)
{
	uint64_t age = atomic_load_explicit(&j->retention_s, memory_order_relaxed);
	int64_t now = clock_wall_ns(), steady = clock_boot_ns();
	int64_t jump = clock_watch(&j->clock, now, steady);

	if (jump != 0)
		heed_jump(j, jump, steady);
	if (steady < j->trusted_ns || age >= (uint64_t)(now / CLOCK_NS_PER_S))
		return 0;
	return now - (int64_t)age * CLOCK_NS_PER_S;
}

static uint64_t
lower(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Not what recovery may need for a call in flight: without its lines, it would be recorded again. */
static uint64_t
keep_from(const struct journal *j)
{
	const struct journal_opts *o = &j->opts;
	uint64_t keep =
	    o->keep_seq != NULL ? o->keep_seq(o->keep_arg) : trail_durable_seq(o->trail) + 1;

	for (size_t i = 0; i < j->nmembers; i++)
		keep = lower(keep, ring_needs_from(j->members[i].ring));
	return keep;
}

static int
find_expirable(struct journal *j, int64_t before, uint64_t max_size, uint64_t *first,
    uint64_t *last, struct err *err)
{
	const struct journal_opts *o = &j->opts;

	if (trail_expirable(o->trail, before, max_size, keep_from(j), first, last, err) == -1)
		return -1;
	if (*last == 0 || o->settled == NULL)
		return 0;
	return trail_expirable(o->trail, before, max_size,
	    lower(o->settled(o->keep_arg, *first, *last), *last) + 1, first, last, err);
}

static int
settle_rings(struct journal *j, struct err *err)
{
	for (size_t i = 0; i < j->nmembers; i++)
		if (ring_settle(j->members[i].ring, err) == -1)
			return -1;
	return 0;
}

/* 1, or 0: there is nothing to remove. */
static int
record_expiry(struct journal *j, int64_t before, uint64_t max_size, struct err *err)
{
	struct trail *t = j->opts.trail;
	uint64_t first, last;

	if (find_expirable(j, before, max_size, &first, &last, err) == -1)
		return -1;
	if (last == 0)
		return 0;
	if (trail_expiry_foretold(t, last, err) == -1)
		return -1;
	FAULT_POINT("expire.before_record");
	record_range(j, "keytrail.expire", SEVERITY_NORMAL,
	    "keytrail: expired segments are removed", first, last);
	j->expiry_last = last;
	if (j->failures > 0 || journal_commit(j) == -1)
		return err_set(err, "the event that tells of it was not recorded");
	j->expiry = trail_durable_seq(t);
	FAULT_POINT("expire.after_record");
	return 1;
}

/* What is gone without a signed line that says so, nobody can tell from what was taken away.  On a full
 * disk nothing can be signed before something goes. */
bool
journal_may_remove(const struct journal *j)
{
	const struct journal_opts *o = &j->opts;

	return j->expiry != 0 && (o->covered == NULL || j->state == RING_NO_ROOM ||
				     o->covered(o->keep_arg) >= j->expiry);
}

static int
remove_expired(struct journal *j, int64_t before, uint64_t max_size, struct err *err)
{
	struct trail *t = j->opts.trail;
	uint64_t first, last;
	bool is_signed = j->opts.covered == NULL || j->opts.covered(j->opts.keep_arg) >= j->expiry;

	trail_expiry_recorded(t, j->expiry);
	j->expiry_failed = settle_rings(j, err) == -1 ||
			   trail_expire(t, before, max_size,
			       lower(j->expiry_last + 1, keep_from(j)), &first, &last, err) == -1;
	if (!is_signed && j->opts.removed != NULL)
		j->opts.removed(j->opts.keep_arg);
	if (j->expiry_failed)
		return -1;
	j->expiry = 0;
	if (last > 0)
		log_info(j->opts.log, "trail_expired", "removed %llu to %llu",
		    (unsigned long long)first, (unsigned long long)last);
	return 0;
}

/* Else who takes it away could say that it expired: since it was recorded somebody holds it, or keeps
 * more, or a kill came before it was done. */
static int
retract(struct journal *j, struct err *err)
{
	uint64_t first, last;

	if (!trail_expiry_left(j->opts.trail, &first, &last))
		return 0;
	record_range(j, "keytrail.keep", SEVERITY_WARNING,
	    "keytrail: what was to be removed stays for now", first, last);
	if (j->failures > 0 || journal_commit(j) == -1)
		return err_set(err, "the event that tells of it was not recorded");
	FAULT_POINT("keep.after_record");
	return trail_expiry_retracted(j->opts.trail, err);
}

int
journal_retract(struct journal *j)
{
	struct err err;

	if (retract(j, &err) == 0)
		return 0;
	log_error(j->opts.log, "trail_expire_failed", "%s", err.msg);
	return -1;
}

/* Recorded before it is done, and no more is removed than was recorded. */
int
journal_expire(struct journal *j)
{
	uint64_t max_size = atomic_load_explicit(&j->max_size, memory_order_relaxed);
	int64_t before = expired_before(j);
	struct err err;
	int rc = 1;

	if (j->expiry == 0 && (rc = retract(j, &err)) == 0)
		rc = record_expiry(j, before, max_size, &err);
	if (rc == 1 && journal_may_remove(j) &&
	    (rc = remove_expired(j, before, max_size, &err)) == 0)
		rc = retract(j, &err);
	if (rc == -1)
		log_error(j->opts.log, "trail_expire_failed", "%s", err.msg);
	return rc;
}
