#include "data/degrade.h"

#include "keytrail/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int
check_reason(const char *reason, struct err *err)
{
	bool blank = true;

	if (strlen(reason) > DEGRADE_REASON_MAX)
		return err_set(err, "the reason is too long; at most %d bytes", DEGRADE_REASON_MAX);
	for (const char *p = reason; *p != '\0'; p++) {
		if (*p < 0x20 || *p > 0x7e)
			return err_set(err, "the reason is not printable ASCII");
		blank = blank && *p == ' ';
	}
	return blank ? err_set(err, "a reason is needed") : 0;
}

int
degrade_check(const struct degrade *d, uint64_t seconds, uint64_t max_s, const char *reason,
    int64_t mono_ns, struct err *err)
{
	if (max_s == 0)
		return err_set(err, "\"audit.degrade_max\" is 0: it is forbidden");
	if (degrade_begun(d))
		return err_set(err,
		    "it is degraded already, for another %" PRIu64
		    " s; it cannot be renewed before that has ended",
		    (uint64_t)(degrade_left_ns(d, mono_ns) / CLOCK_NS_PER_S) + 1);
	if (seconds == 0 || seconds > max_s)
		return err_set(
		    err, "wanted 1 to %" PRIu64 " seconds (\"audit.degrade_max\")", max_s);
	return check_reason(reason, err);
}

void
degrade_begin(struct degrade *d, uint64_t seconds, const char *reason, int64_t mono_ns)
{
	snprintf(d->reason, sizeof(d->reason), "%s", reason);
	atomic_store_explicit(
	    &d->until_ns, mono_ns + (int64_t)seconds * CLOCK_NS_PER_S, memory_order_relaxed);
}

int
degrade_end(struct degrade *d, struct err *err)
{
	if (!degrade_begun(d))
		return err_set(err, "it is not degraded");
	atomic_store_explicit(&d->until_ns, 0, memory_order_relaxed);
	return 0;
}

bool
degrade_begun(const struct degrade *d)
{
	return atomic_load_explicit(&d->until_ns, memory_order_relaxed) != 0;
}

int64_t
degrade_left_ns(const struct degrade *d, int64_t mono_ns)
{
	int64_t until = atomic_load_explicit(&d->until_ns, memory_order_relaxed);

	return until > mono_ns ? until - mono_ns : 0;
}
