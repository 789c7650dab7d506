#include "data/tally.h"

#include "keytrail/clock.h"

#include <stdio.h>
#include <sys/random.h>

/* Bytes of the lists, as JSON: all of it fits into a slot.  Names that need no escapes have room. */
#define NAMES_MAX   (TALLY_NAMES * (TALLY_NAME_SIZE - 1 + 2))
#define WORDS_MAX   1200
#define REASONS_MAX 80
#define REST_MAX    700
#define OTHER_MAX   40 /* of the words */
_Static_assert(NAMES_MAX + WORDS_MAX + REASONS_MAX + REST_MAX <= EVENT_LINE_MAX, "a slot");

const struct tally_kind tally_losses = { .action = "keytrail.loss",
	.severity = SEVERITY_CRITICAL,
	.message = "keytrail: events were lost",
	.words = "actions",
	.names = "initiators",
	.names_cut = "initiatorsCut",
	.lost = true };

const struct tally_kind tally_refusals = { .action = "keytrail.refused",
	.severity = SEVERITY_WARNING,
	.message = "keytrail: requests were refused",
	.words = "reasons",
	.names = "sources",
	.names_cut = "sourcesCut" };

void
tally_init(struct tally *t, const struct tally_kind *kind, struct ring *ring,
    struct journal *journal, struct metrics_shard *metrics)
{
	*t = (struct tally){ .kind = kind,
		.ring = ring,
		.journal = journal,
		.metrics = metrics,
		.slot = RING_NO_SLOT };
}

static void
begin(struct tally *t, int64_t wall_ns)
{
	unsigned char random[10];

	tally_init(t, t->kind, t->ring, t->journal, t->metrics);
	while (getrandom(random, sizeof(random), 0) != sizeof(random))
		continue;
	clock_uuid7(wall_ns, random, t->id);
	t->first_ns = wall_ns;
}

static void
count_word(struct tally *t, const char *word)
{
	unsigned i = 0;

	while (i < t->nwords && strcmp(t->words[i].name, word) != 0)
		i++;
	if (i == TALLY_WORDS) {
		t->other_words++;
		return;
	}
	if (i == t->nwords)
		snprintf(t->words[t->nwords++].name, EVENT_ACTION_MAX, "%s", word);
	t->words[i].count++;
}

static void
add_name(struct tally *t, const char *name)
{
	char cut[TALLY_NAME_SIZE];

	if (name[0] == '\0')
		return;
	snprintf(cut, sizeof(cut), "%s", name);
	for (unsigned i = 0; i < t->nnames; i++)
		if (strcmp(t->names[i], cut) == 0)
			return;
	if (t->nnames == TALLY_NAMES)
		t->more_names = true;
	else
		memcpy(t->names[t->nnames++], cut, sizeof(cut));
}

/* ---- the event ---- */

struct list {
	size_t n, left; /* bytes; and how many more, as JSON */
	char text[NAMES_MAX];
};

static void
list_init(struct list *l, size_t max)
{
	l->n = 0;
	l->left = max;
	l->text[0] = '\0';
}

/* False: it has no room, of which so much is kept. */
static bool
list_add(struct list *l, const char *word, size_t keep)
{
	char json[6 * EVENT_ACTION_MAX];
	long n = event_json_string(slice_of(word), json, sizeof(json)); /* its quotes: ", " */

	if (n < 0 || (size_t)n + keep > l->left)
		return false;
	l->left -= (size_t)n;
	l->n += (size_t)snprintf(
	    l->text + l->n, sizeof(l->text) - l->n, "%s%s", l->n > 0 ? ", " : "", word);
	return true;
}

static void
list_words(const struct tally *t, struct list *out)
{
	char word[EVENT_ACTION_MAX + 32];
	uint64_t other = t->other_words;

	list_init(out, WORDS_MAX);
	for (unsigned i = 0; i < t->nwords; i++) {
		snprintf(word, sizeof(word), "%s %llu", t->words[i].name,
		    (unsigned long long)t->words[i].count);
		if (!list_add(out, word, OTHER_MAX))
			other += t->words[i].count;
	}
	snprintf(word, sizeof(word), "other %llu", (unsigned long long)other);
	if (other > 0)
		list_add(out, word, 0);
}

/* All of them are named, or the list is cut. */
static bool
list_names(const struct tally *t, struct list *out)
{
	bool all = !t->more_names;

	list_init(out, NAMES_MAX);
	for (unsigned i = 0; i < t->nnames; i++)
		all &= list_add(out, t->names[i], 0);
	return all;
}

static enum metric_loss
reason_of(const struct ring *r)
{
	switch (ring_state(r)) {
	case RING_NO_ROOM:
		return METRIC_LOSS_TRAIL_FULL;
	case RING_FAILED:
		return METRIC_LOSS_TRAIL_FAILED;
	default:
		return METRIC_LOSS_RING_FULL;
	}
}

static void
list_reasons(const struct tally *t, struct list *out)
{
	list_init(out, REASONS_MAX);
	for (unsigned i = 0; i < METRIC_LOSSES; i++)
		if (t->reasons[i])
			list_add(out, metrics_loss_word((enum metric_loss)i), 0);
}

static size_t
render(const struct tally *t, const char *observer, char out[EVENT_HARD_MAX])
{
	struct list words, names, reasons;
	char first[CLOCK_EVENT_TIME_SIZE], last[CLOCK_EVENT_TIME_SIZE];
	const struct tally_kind *k = t->kind;
	bool all = list_names(t, &names);
	const struct event_detail details[] = {
		{ k->words, EVENT_DETAIL_STRING, words.text, 0 },
		{ "count", EVENT_DETAIL_NUMBER, NULL, t->count },
		{ "first", EVENT_DETAIL_STRING, first, 0 },
		{ k->names, EVENT_DETAIL_STRING, names.text, 0 },
		{ k->names_cut, EVENT_DETAIL_BOOL, NULL, !all },
		{ "last", EVENT_DETAIL_STRING, last, 0 },
		{ "reason", EVENT_DETAIL_STRING, reasons.text, 0 },
	};
	struct event_self ev = { .action = k->action,
		.severity = k->severity,
		.outcome = EVENT_FAILURE,
		.message = k->message,
		.time_ns = t->last_ns,
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) - !k->lost };

	list_words(t, &words);
	list_reasons(t, &reasons);
	clock_event_time(t->first_ns, first);
	clock_event_time(t->last_ns, last);
	memcpy(ev.id, t->id, sizeof(ev.id));
	return event_render_self(observer, &ev, out);
}

/* The new text stands before the old one goes. */
static void
publish(struct tally *t, const char *line, size_t n, unsigned call)
{
	unsigned old = t->slot, slot = ring_slot_take(t->ring);

	if (slot == RING_NO_SLOT)
		return;
	memcpy(ring_slot_line(t->ring, slot), line, n);
	if (old != RING_NO_SLOT)
		ring_slot_instead_of(t->ring, slot, old);
	if (call != RING_NO_SLOT)
		ring_slot_instead_of(t->ring, slot, call);
	ring_slot_publish(t->ring, slot, n);
	if (old != RING_NO_SLOT)
		ring_slot_close(t->ring, old);
	t->slot = slot;
}

void
tally_add(struct tally *t, const char *observer, const struct tally_item *item)
{
	enum metric_loss reason = reason_of(t->ring);
	char line[EVENT_HARD_MAX];
	size_t n;

	if (t->count == 0)
		begin(t, item->wall_ns);
	t->count++;
	t->last_ns = item->wall_ns;
	if (t->kind->lost) {
		t->reasons[reason] = true;
		metrics_add(t->metrics, METRIC_EVENTS_LOST, reason, 1);
	}
	count_word(t, item->word);
	add_name(t, item->name);
	n = render(t, observer, line);
	if (n <= EVENT_LINE_MAX)
		publish(t, line, n, item->slot);
}

bool
tally_flush(struct tally *t, const char *observer)
{
	const size_t max = EVENT_HARD_MAX - EVENT_TRAIL_MAX;
	size_t n;

	if (t->count == 0)
		return true;
	if (!ring_claim(t->ring, max))
		return false;
	n = render(t, observer, ring_line(t->ring, max));
	metrics_add(t->metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	ring_commit(t->ring, max, n, RING_DURABLE | RING_SELF);
	if (t->slot != RING_NO_SLOT)
		ring_slot_close(t->ring, t->slot);
	t->slot = RING_NO_SLOT;
	t->count = 0;
	journal_kick(t->journal);
	return true;
}
