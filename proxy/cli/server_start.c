/* What is recorded when the trail is there, before the first call: keytrail.start and what follows it. */
#include "cli/server_internal.h"

#include "keytrail/base64.h"
#include "keytrail/fault.h"

#include <event2/event.h>

#define START_WAIT_MS 10000

static uint64_t
record_start(struct server *s)
{
	const struct trail_recovery *r = &s->recovery;
	bool new_log = r->new_log || s->renewal.reason != NULL;
	char key[CHECKPOINT_KEY_MAX] = "none", sandbox[SANDBOX_TEXT_SIZE];
	struct trail_retention before = s->retention;
	bool less = trail_load_retention(s->trail, &before) &&
		    (trail_keeps_shorter(&s->retention, &before) ||
			trail_keeps_smaller(&s->retention, &before));
	struct event_detail details[] = {
		{ "clean", EVENT_DETAIL_BOOL, NULL, r->clean || r->new_log },
		{ "clock", EVENT_DETAIL_STRING, server_clock_state(), 0 },
		{ "configDigest", EVENT_DETAIL_STRING, s->config->digest, 0 },
		{ "keepsLess", EVENT_DETAIL_BOOL, NULL, less },
		{ "maxSize", EVENT_DETAIL_NUMBER, NULL, s->retention.max_size },
		{ "newLog", EVENT_DETAIL_BOOL, NULL, new_log },
		{ "previousBoot", EVENT_DETAIL_STRING, r->previous_boot, 0 },
		{ "previousMaxSize", EVENT_DETAIL_NUMBER, NULL, before.max_size },
		{ "previousRetentionSeconds", EVENT_DETAIL_NUMBER, NULL, before.age_s },
		{ "retentionSeconds", EVENT_DETAIL_NUMBER, NULL, s->retention.age_s },
		{ "sandbox", EVENT_DETAIL_STRING, sandbox, 0 },
		{ "signing", EVENT_DETAIL_STRING, key, 0 },
		{ "takeover", EVENT_DETAIL_BOOL, NULL, s->takeover.taken },
		{ "version", EVENT_DETAIL_STRING, KEYTRAIL_VERSION, 0 },
		{ "workers", EVENT_DETAIL_NUMBER, NULL, s->nworkers },
	};
	struct chronicle_entry e = { .action = "keytrail.start",
		.severity = new_log || !r->clean || less ? SEVERITY_WARNING : SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: started",
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	sandbox_text(&s->sandbox, true, sandbox);
	if (s->ledger != NULL)
		ledger_key_text(s->ledger, key);
	return server_record(s, &e);
}

static void
record_tamper(struct server *s, const char *message, const struct event_detail *details, size_t n)
{
	struct chronicle_entry e = { .action = "keytrail.tamper",
		.severity = SEVERITY_CRITICAL,
		.outcome = EVENT_SUCCESS,
		.message = message,
		.details = details,
		.ndetails = n };

	server_record(s, &e);
}

/* What the signed tree tells of the trail that was found. */
static void
record_findings(struct server *s)
{
	const struct ledger_findings *f = &s->findings;
	const struct event_detail range[] = {
		{ "first", EVENT_DETAIL_NUMBER, NULL, f->first },
		{ "last", EVENT_DETAIL_NUMBER, NULL, f->last },
	};

	if (f->last > 0)
		record_tamper(s,
		    "keytrail: lines of the trail are gone or not those that were signed", range,
		    2);
}

static void
record_rotation(struct server *s)
{
	struct slice statement = ledger_rotation(s->ledger);
	char note[BASE64_SIZE(CHECKPOINT_NOTE_MAX) + 1];
	const struct event_detail details[] = { { "note", EVENT_DETAIL_STRING, note, 0 } };
	struct chronicle_entry e = { .action = "keytrail.key",
		.severity = SEVERITY_WARNING,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: another key signs from now on",
		.details = details,
		.ndetails = 1 };

	if (statement.n == 0 || statement.n > CHECKPOINT_NOTE_MAX)
		return;
	note[base64_encode(statement.p, statement.n, note)] = '\0';
	server_record(s, &e);
}

/* The checkpoint that was found is recorded once more: that of ledger_stop has not been yet. */
static void
record_handover(struct server *s)
{
	if (s->ledger == NULL || s->renewal.reason != NULL || ledger_signed_size(s->ledger) == 0)
		return;
	journal_report_checkpoint(
	    s->journal, ledger_signed_size(s->ledger), ledger_signed_note(s->ledger));
	record_rotation(s);
}

/* Nothing is signed before all that was recorded is durable: what a new key signs first covers the
 * event by which it became the key. */
static int
end_start(struct server *s, unsigned wait_ms, struct err *err)
{
	if (!chronicle_flush(&s->chronicle) ||
	    !chronicle_wait(&s->chronicle, s->chronicle.last, wait_ms))
		return err_set(err, "%s: what follows keytrail.start is not durable yet",
		    s->config->audit.trail);
	if (!trail_holds_are_settled(s->trail) && trail_holds_settled(s->trail, err) == -1)
		return -1;
	if (s->ledger == NULL)
		return 0;
	FAULT_POINT("start.before_ledger");
	return ledger_start(s->ledger, err);
}

int
server_follow_start(struct server *s, unsigned wait_ms, struct err *err)
{
	struct trail_retention saved;

	if (!s->start_followed) {
		if ((!trail_load_retention(s->trail, &saved) || saved.age_s != s->retention.age_s ||
			saved.max_size != s->retention.max_size) &&
		    trail_save_retention(s->trail, &s->retention, err) == -1)
			return -1;
		record_findings(s);
		record_handover(s);
		if (!trail_holds_are_settled(s->trail))
			server_record_holds(s);
		s->start_followed = true;
	}
	return end_start(s, wait_ms, err);
}

static int
await_start(struct server *s, uint64_t position, struct err *err)
{
	char why[128];

	if (chronicle_wait(&s->chronicle, position, START_WAIT_MS))
		return server_follow_start(s, START_WAIT_MS, err);
	journal_health(s->journal, why, sizeof(why));
	return err_set(err, "%s: keytrail.start is not durable yet: %s", s->config->audit.trail,
	    why[0] != '\0' ? why : "the disk is slow");
}

/* Before the journal: what it removes at once is removed under what this start says.  Where the trail
 * cannot take it, all else goes on and it waits in main's ring (server.c); not so where another process
 * can go on instead. */
int
server_begin_trail(struct server *s, struct err *err)
{
	uint64_t position = record_start(s);

	if (journal_start(s->journal, err) == -1)
		return -1;
	if (await_start(s, position, err) == 0)
		return 0;
	if (s->takeover.taken)
		return -1;
	log_error(s->log, "start_waits", "%s", err->msg);
	s->start_waits = true;
	event_active(&s->chronicle_retry, 0, 0);
	return 0;
}
