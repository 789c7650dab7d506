/* Numbers that must have their lines though the log says that they expire: it says later that they
 * stay, or a hold covered them. */
#include "verify_internal.h"

#include <stdio.h>
#include <string.h>

/* Of more than can be remembered the last ones are taken for one. */
static void
add_kept(struct check *c, struct range r, const char *hold, struct slice at)
{
	struct kept *k = &c->kept[c->nkept < MISSING_MAX ? c->nkept++ : MISSING_MAX - 1];

	if (k->r.to != 0 && k->r.from < r.from)
		r.from = k->r.from;
	k->r = r;
	snprintf(k->hold, sizeof(k->hold), "%s", hold);
	snprintf(k->at, sizeof(k->at), "%.*s", SLICE_ARG(at));
}

static void
drop_kept(struct check *c, size_t i)
{
	memmove(&c->kept[i], &c->kept[i + 1], (--c->nkept - i) * sizeof(c->kept[0]));
	c->kept[c->nkept].r = (struct range){ 0, 0 };
}

/* What was kept goes as all does, from the oldest on. */
static void
remove_kept(struct check *c, struct trail_range said)
{
	for (size_t i = c->nkept; i > 0; i--) {
		struct range *r = &c->kept[i - 1].r;

		if (said.first <= r->from && said.last >= r->from)
			r->from = said.last + 1;
		if (r->from > r->to)
			drop_kept(c, i - 1);
	}
}

/* ---- holds ---- */

static void
drop_hold(struct check *c, const char *name)
{
	for (size_t i = 0; i < c->nholds; i++)
		if (strcmp(c->holds[i].name, name) == 0)
			c->holds[i--] = c->holds[--c->nholds];
}

/* On a full disk a removal goes before the event that allowed it has room: by its time it came first. */
static void
lift(struct check *c, const char *name, struct slice at)
{
	for (size_t i = c->nkept; i > 0; i--) {
		const struct kept *k = &c->kept[i - 1];

		if (k->hold[0] != '\0' && (name[0] == '\0' || strcmp(k->hold, name) == 0) &&
		    slice_compare(at, slice_of(k->at)) <= 0)
			drop_kept(c, i - 1);
	}
}

/* name "": all of them. */
static void
note_release(struct check *c, const char *name, struct slice at)
{
	if (name[0] == '\0')
		c->nholds = 0;
	else
		drop_hold(c, name);
	lift(c, name, at);
}

static void
note_hold(struct check *c, struct slice line)
{
	struct slice details, change, name;
	struct trail_hold h;
	struct trail_range r;

	if (!trail_line_range(line, TRAIL_HOLD_START, &r))
		return;
	details = trail_line_value(line, SLICE("details"));
	change = trail_line_string(details, SLICE("change"));
	name = trail_line_string(details, SLICE("name"));
	if (name.n >= sizeof(h.name))
		return;
	slice_to_cstr(name, h.name, sizeof(h.name));
	h.first = r.first;
	h.last = r.last;
	if (slice_equal(change, SLICE("remove")) || slice_equal(change, SLICE("reset"))) {
		note_release(c, h.name, trail_line_string(line, SLICE("eventTime")));
		return;
	}
	drop_hold(c, h.name);
	if (c->nholds < TRAIL_HOLDS_MAX)
		c->holds[c->nholds++] = h;
}

static void
note_expire(struct check *c, struct slice line, struct trail_range said)
{
	remove_kept(c, said);
	for (size_t i = 0; i < c->nholds; i++) {
		const struct trail_hold *h = &c->holds[i];
		struct range r = { h->first > said.first ? h->first : said.first,
			h->last < said.last ? h->last : said.last };

		if (r.from <= r.to)
			add_kept(c, r, h->name, trail_line_string(line, SLICE("eventTime")));
	}
}

void
verify_note_expiry(struct check *c, struct slice line)
{
	struct trail_range said;

	if (trail_line_range(line, TRAIL_EXPIRE_START, &said))
		note_expire(c, line, said);
	else if (trail_line_range(line, TRAIL_KEEP_START, &said))
		add_kept(c, (struct range){ said.first, said.last }, "", SLICE_EMPTY);
	else
		note_hold(c, line);
}

const char *
verify_find_kept(const struct check *c, struct range r, struct range *out)
{
	for (size_t i = 0; i < c->nkept; i++) {
		const struct kept *k = &c->kept[i];

		if (k->r.from > r.to || k->r.to < r.from)
			continue;
		out->from = k->r.from > r.from ? k->r.from : r.from;
		out->to = k->r.to < r.to ? k->r.to : r.to;
		return k->hold[0] != '\0' ? "the line is gone, though it was held when the log "
					    "says that it expired"
					  : "the line is gone, and the log says that it was not "
					    "removed when it expired";
	}
	return NULL;
}
