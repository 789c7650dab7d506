#include "keytrail/filter.h"

#include "keytrail/pattern.h"
#include "keytrail/trail.h"

bool
filter_is_set(const struct config_filter *f)
{
	return f->actions.n + f->severities.n + f->outcomes.n + f->accounts.n + f->regions.n +
		   f->instances.n >
	       0;
}

static bool
any_matches(const struct config_patterns *p, struct slice text)
{
	for (size_t i = 0; i < p->n; i++)
		if (pattern_matches(p->all[i], text))
			return true;
	return p->n == 0;
}

static bool
member_passes(const struct config_patterns *p, struct slice line, struct slice name)
{
	return p->n == 0 || any_matches(p, trail_line_string(line, name));
}

/* crn:v1:bluemix:public:<service>:<region>:a/<account>:<instance>:: */
enum crn_part { CRN_REGION = 5, CRN_ACCOUNT, CRN_INSTANCE, CRN_PARTS };

static void
split_crn(struct slice crn, struct slice parts[CRN_PARTS])
{
	for (int i = 0; i < CRN_PARTS; i++) {
		const char *colon = crn.n > 0 ? memchr(crn.p, ':', crn.n) : NULL;
		size_t n = colon != NULL ? (size_t)(colon - crn.p) : crn.n;

		parts[i] = slice_sub(crn, 0, n);
		crn = slice_sub(crn, colon != NULL ? n + 1 : n, crn.n);
	}
	if (slice_has_prefix(parts[CRN_ACCOUNT], SLICE("a/")))
		parts[CRN_ACCOUNT] = slice_sub(parts[CRN_ACCOUNT], 2, parts[CRN_ACCOUNT].n);
}

static bool
source_passes(const struct config_filter *f, struct slice line)
{
	struct slice parts[CRN_PARTS];

	if (f->accounts.n + f->regions.n + f->instances.n == 0)
		return true;
	split_crn(trail_line_string(line, SLICE("logSourceCRN")), parts);
	return any_matches(&f->accounts, parts[CRN_ACCOUNT]) &&
	       any_matches(&f->regions, parts[CRN_REGION]) &&
	       any_matches(&f->instances, parts[CRN_INSTANCE]);
}

bool
filter_passes(const struct config_filter *f, struct slice line)
{
	if (!filter_is_set(f) || slice_has_prefix(line, SLICE("{\"action\":\"keytrail.")))
		return true;
	return member_passes(&f->actions, line, SLICE("action")) &&
	       member_passes(&f->severities, line, SLICE("severity")) &&
	       member_passes(&f->outcomes, line, SLICE("outcome")) && source_passes(f, line);
}
