/* What expires: recorded first, signed, and then removed. */
#include "journal_internal.h"
#include "keytrail/clock.h"
#include "keytrail/fault.h"

#include <stdlib.h>

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
	journal_record_range(j, "keytrail.expire", SEVERITY_NORMAL,
	    "keytrail: expired segments are removed", first, last);
	j->expiry_last = last;
	if (j->failures > 0 || journal_commit(j) == -1)
		return err_set(err, "the event that tells of it was not recorded");
	j->expiry = trail_durable_seq(t);
	FAULT_POINT("expire.after_record");
	return 1;
}

static bool
is_signed(const struct journal *j)
{
	const struct journal_opts *o = &j->opts;

	return o->covered == NULL || o->covered(o->keep_arg) >= j->expiry;
}

/* What is gone without a signed line that says so, nobody can tell from what was taken away.  On a full
 * disk nothing can be signed before something goes. */
bool
journal_may_remove(const struct journal *j)
{
	return j->expiry != 0 && (j->state == RING_NO_ROOM || is_signed(j));
}

static int
remove_expired(struct journal *j, int64_t before, uint64_t max_size, struct err *err)
{
	struct trail *t = j->opts.trail;
	uint64_t first, last;
	bool unsaid = !is_signed(j);

	trail_expiry_recorded(t, j->expiry);
	j->expiry_failed = settle_rings(j, err) == -1 ||
			   trail_expire(t, before, max_size,
			       lower(j->expiry_last + 1, keep_from(j)), &first, &last, err) == -1;
	if (unsaid && j->opts.removed != NULL)
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
	journal_record_range(j, "keytrail.keep", SEVERITY_WARNING,
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
