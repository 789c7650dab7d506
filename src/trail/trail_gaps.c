/* Which numbers have no line: whole segments that are gone, and the ends of segments. */
#include "trail_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what is known ---- */

/* What is between two ranges was told by neither: of more than can be kept the lowest one goes. */
void
trail_gone_add(struct trail_gone *g, uint64_t first, uint64_t last)
{
	struct trail_range all[TRAIL_TOLD_MAX + 1], add = { first, last };
	size_t n = 0, i = 0, drop;

	if (last <= g->expired)
		return;
	for (; i < g->n && g->told[i].last + 1 < first; i++)
		if (g->told[i].last > g->expired)
			all[n++] = g->told[i];
	for (; i < g->n && g->told[i].first <= last + 1; i++) {
		add.first = g->told[i].first < add.first ? g->told[i].first : add.first;
		add.last = g->told[i].last > add.last ? g->told[i].last : add.last;
	}
	all[n++] = add;
	while (i < g->n)
		all[n++] = g->told[i++];
	drop = n > TRAIL_TOLD_MAX;
	g->n = (uint32_t)(n - drop);
	memcpy(g->told, all + drop, g->n * sizeof(all[0]));
}

/* What of these numbers is not known; false: nothing. */
static bool
cut_known(const struct trail_gone *g, uint64_t *first, uint64_t *last)
{
	if (*first <= g->expired)
		*first = g->expired + 1;
	for (size_t i = 0; i < g->n; i++) {
		const struct trail_range *r = &g->told[i];

		if (r->first <= *first && *first <= r->last)
			*first = r->last + 1;
		if (r->first <= *last && *last <= r->last)
			*last = r->first - 1;
	}
	return *first <= *last;
}

/* ---- what is there ---- */

/* Did `b` follow `a` in the list? */
static bool
was_next(const struct trail_list *l, uint64_t a, uint64_t b)
{
	size_t i = trail_list_find(l, a);

	return i + 1 < l->n && l->first[i] == a && l->first[i + 1] == b;
}

/* The number before which segment i's predecessor ends; its own first when nothing is missing. */
static uint64_t
end_before(const struct trail *t, const struct trail_list *l, size_t i)
{
	uint64_t there = trail_last_number(t->dirfd, &t->log, l->first[i - 1]);

	return there == 0 ? l->first[i] : there + 1;
}

/* A stray bounds nothing; what was looked at is none. */
static bool
bounds(const struct trail *t, const struct trail_list *l, size_t i)
{
	uint64_t first = l->first[i];

	if (trail_list_has(&t->foreign, first))
		return false;
	return first == t->open.first || first > t->mark.seq ||
	       trail_list_has(&t->seen.names, first) || !trail_is_stray(t->dirfd, &t->log, l, i);
}

static int
list_own(const struct trail *t, struct trail_list *l, struct err *err)
{
	if (trail_list_segments(t->dirfd, l, err) == -1)
		return err_prefix(err, "%s", t->path);
	for (size_t i = l->n; i-- > 0;)
		if (!bounds(t, l, i))
			trail_list_drop(l, i);
	return 0;
}

/* The numbers above `from` that have no line in front of segment i, and of which nobody was told; false:
 * none. */
static bool
find_before(const struct trail *t, const struct trail_list *l, size_t i, uint64_t from,
    uint64_t *first, uint64_t *last)
{
	if (i > 0 && was_next(&t->seen.names, l->first[i - 1], l->first[i]))
		return false;
	*first = i > 0 ? end_before(t, l, i) : 1;
	*first = *first > from ? *first : from + 1;
	*last = l->first[i] - 1;
	return *first <= *last && cut_known(&t->gone, first, last);
}

bool
trail_is_untold_before(const struct trail *t, const struct trail_list *l, size_t i)
{
	uint64_t first, last;

	return i < l->n && find_before(t, l, i, 0, &first, &last);
}

int
trail_find_untold(struct trail *t, uint64_t from, uint64_t *first, uint64_t *last, struct err *err)
{
	struct trail_list l;
	int rc;

	if (list_own(t, &l, err) == -1)
		return -1;
	for (size_t i = 0; i < l.n; i++)
		if (find_before(t, &l, i, from, first, last)) {
			trail_list_free(&l);
			return 1;
		}
	rc = trail_seen_set(t, &l, err);
	trail_list_free(&l);
	return rc;
}

void
trail_told(struct trail *t, uint64_t first, uint64_t last)
{
	trail_gone_add(&t->gone, first, last);
}

size_t
trail_told_ranges(const struct trail *t, struct trail_range out[TRAIL_TOLD_MAX])
{
	memcpy(out, t->gone.told, sizeof(t->gone.told));
	return t->gone.n;
}

int
trail_find_gap(
    const struct trail *t, uint64_t from, uint64_t *first, uint64_t *last, struct err *err)
{
	struct trail_list l;

	*first = *last = 0;
	if (list_own(t, &l, err) == -1)
		return -1;
	for (size_t i = 1; i < l.n && *last == 0; i++) {
		uint64_t begin = l.first[i] > from + 1 ? end_before(t, &l, i) : l.first[i];

		if (begin == l.first[i])
			continue;
		*first = begin > from ? begin : from + 1;
		*last = l.first[i] - 1;
	}
	trail_list_free(&l);
	return 0;
}
