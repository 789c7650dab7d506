/* What the readers tell the journal of, and what it records of that. */
#include "journal_internal.h"
#include "keytrail/base64.h"

#include <stdlib.h>

static bool
is_within(const struct trail_range *ranges, size_t n, uint64_t first, uint64_t last)
{
	for (size_t i = 0; i < n; i++)
		if (ranges[i].first <= first && last <= ranges[i].last)
			return true;
	return false;
}

/* Every sink that reads past the damage tells of it, and recovery may have met it before, at this start
 * or at one long ago. */
static bool
was_told(const struct journal *j, uint64_t first, uint64_t last)
{
	return is_within(j->known, j->nknown, first, last) ||
	       is_within(j->told, TOLD_MAX, first, last);
}

/* More than can wait to be recorded are enclosed by the last one. */
static void
add_told(struct journal *j, struct trail_range r)
{
	struct trail_range *latest = &j->told[(j->ntold - 1) % TOLD_MAX];

	if (j->ntold - j->nrecorded < TOLD_MAX) {
		j->told[j->ntold++ % TOLD_MAX] = r;
		return;
	}
	latest->first = r.first < latest->first ? r.first : latest->first;
	latest->last = r.last > latest->last ? r.last : latest->last;
}

void
journal_report_corrupt(struct journal *j, uint64_t first, uint64_t last)
{
	pthread_mutex_lock(&j->lock);
	if (was_told(j, first, last)) {
		pthread_mutex_unlock(&j->lock);
		return;
	}
	add_told(j, (struct trail_range){ first, last });
	pthread_mutex_unlock(&j->lock);
	atomic_store(&j->reported, true);
	journal_wake(j);
}

void
journal_report_checkpoint(struct journal *j, uint64_t size, struct slice note)
{
	struct journal_note *more;

	if (BASE64_SIZE(note.n) >= sizeof(more->text))
		return;
	pthread_mutex_lock(&j->lock);
	if ((more = realloc(j->notes, (j->nnotes + 1) * sizeof(*more))) != NULL) {
		j->notes = more;
		more += j->nnotes++;
		more->size = size;
		more->text[base64_encode(note.p, note.n, more->text)] = '\0';
	}
	pthread_mutex_unlock(&j->lock);
	if (more == NULL)
		log_error(j->opts.log, "checkpoint_not_recorded", "memory is short");
	atomic_store(&j->reported, true);
	journal_wake(j);
}

/* The one of this sink that waits to be recorded, or a new one; NULL: memory is short. */
static struct journal_reject *
reject_of(struct journal *j, const char *sink)
{
	struct journal_reject *more;

	for (size_t i = 0; i < j->nrejects; i++)
		if (strcmp(j->rejects[i].sink, sink) == 0)
			return &j->rejects[i];
	if ((more = realloc(j->rejects, (j->nrejects + 1) * sizeof(*more))) == NULL)
		return NULL;
	j->rejects = more;
	more += j->nrejects++;
	*more = (struct journal_reject){ .count = 0 };
	snprintf(more->sink, sizeof(more->sink), "%s", sink);
	return more;
}

uint64_t
journal_report_reject(struct journal *j, const char *sink, uint64_t seq, const char *reason)
{
	struct journal_reject *r;
	uint64_t report;

	pthread_mutex_lock(&j->lock);
	report = ++j->reports;
	if ((r = reject_of(j, sink)) != NULL) {
		if (r->count++ == 0) {
			r->first = seq;
			snprintf(r->reason, sizeof(r->reason), "%s", reason);
		}
		r->last = seq;
	}
	pthread_mutex_unlock(&j->lock);
	if (r == NULL)
		log_error(j->opts.log, "reject_not_recorded", "memory is short");
	atomic_store(&j->reported, true);
	journal_wake(j);
	return report;
}

bool
journal_reject_is_durable(const struct journal *j, uint64_t report)
{
	return atomic_load(&j->reports_durable) >= report;
}

/* ---- the journal's thread ---- */

/* By the reports of other damage, or since the trail was searched for it. */
static bool
is_told(struct journal *j, const struct trail_range *r)
{
	struct trail_range told[TRAIL_TOLD_MAX];
	size_t n = trail_told_ranges(j->opts.trail, told);

	return is_within(told, n, r->first, r->last);
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
	journal_record_range(j, "keytrail.corrupt", SEVERITY_CRITICAL,
	    "keytrail: a reader met corrupt lines in the trail", r->first, r->last);
	trail_told(j->opts.trail, r->first, r->last);
	j->untold = true;
}

void
journal_record_reports(struct journal *j)
{
	struct journal_note *notes;
	struct journal_reject *rejects;
	struct trail_range told[TOLD_MAX];
	size_t n, nrejects, ntold = 0;

	if (j->unrecorded || !atomic_exchange(&j->reported, false))
		return;
	pthread_mutex_lock(&j->lock);
	while (j->nrecorded < j->ntold)
		told[ntold++] = j->told[j->nrecorded++ % TOLD_MAX];
	n = j->nnotes;
	notes = j->notes;
	j->notes = NULL;
	j->nnotes = 0;
	nrejects = j->nrejects;
	rejects = j->rejects;
	j->rejects = NULL;
	j->nrejects = 0;
	j->reports_recorded = j->reports;
	pthread_mutex_unlock(&j->lock);
	for (size_t i = 0; i < ntold; i++)
		record_damage(j, &told[i]);
	for (size_t i = 0; i < n; i++)
		journal_record_checkpoint(j, notes[i].size, notes[i].text);
	for (size_t i = 0; i < nrejects; i++)
		journal_record_reject(j, &rejects[i]);
	free(notes);
	free(rejects);
}
