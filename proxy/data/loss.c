#include "data/loss.h"

#include "keytrail/clock.h"

#include <stdio.h>
#include <sys/random.h>

#define TEXT_MAX 1000 /* of the actions, and of the initiators: all of it fits into a slot */

void
loss_init(struct loss *l, struct ring *ring, struct journal *journal, struct metrics_shard *metrics)
{
	*l = (struct loss){
		.ring = ring, .journal = journal, .metrics = metrics, .slot = RING_NO_SLOT
	};
}

static void
begin(struct loss *l, int64_t wall_ns)
{
	unsigned char random[10];

	loss_init(l, l->ring, l->journal, l->metrics);
	while (getrandom(random, sizeof(random), 0) != sizeof(random))
		continue;
	clock_uuid7(wall_ns, random, l->id);
	l->first_ns = wall_ns;
}

static void
count_action(struct loss *l, const char *action)
{
	unsigned i = 0;

	while (i < l->nactions && strcmp(l->actions[i].name, action) != 0)
		i++;
	if (i == LOSS_ACTIONS) {
		l->other_actions++;
		return;
	}
	if (i == l->nactions)
		snprintf(l->actions[l->nactions++].name, EVENT_ACTION_MAX, "%s", action);
	l->actions[i].count++;
}

static void
name_initiator(struct loss *l, const char *initiator)
{
	char name[LOSS_NAME_SIZE];

	if (initiator[0] == '\0')
		return;
	snprintf(name, sizeof(name), "%s", initiator);
	for (unsigned i = 0; i < l->ninitiators; i++)
		if (strcmp(l->initiators[i], name) == 0)
			return;
	if (l->ninitiators == LOSS_INITIATORS)
		l->more_initiators = true;
	else
		memcpy(l->initiators[l->ninitiators++], name, sizeof(name));
}

/* ---- the event ---- */

/* Add a word to a list, or say that it has no room. */
static bool
add_word(char out[TEXT_MAX], const char *word)
{
	size_t n = strlen(out);

	if (n + 2 + strlen(word) >= TEXT_MAX)
		return false;
	snprintf(out + n, TEXT_MAX - n, "%s%s", n > 0 ? ", " : "", word);
	return true;
}

static void
list_actions(const struct loss *l, char out[TEXT_MAX])
{
	char word[EVENT_ACTION_MAX + 32];
	uint64_t other = l->other_actions;

	out[0] = '\0';
	for (unsigned i = 0; i < l->nactions; i++) {
		snprintf(word, sizeof(word), "%s %llu", l->actions[i].name,
		    (unsigned long long)l->actions[i].count);
		/* Room is kept for the others. */
		if (strlen(out) + strlen(word) + 40 >= TEXT_MAX || !add_word(out, word))
			other += l->actions[i].count;
	}
	snprintf(word, sizeof(word), "other %llu", (unsigned long long)other);
	if (other > 0)
		add_word(out, word);
}

/* All of them are named, or the list is cut. */
static bool
list_initiators(const struct loss *l, char out[TEXT_MAX])
{
	bool all = !l->more_initiators;

	out[0] = '\0';
	for (unsigned i = 0; i < l->ninitiators; i++)
		all &= add_word(out, l->initiators[i]);
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
list_reasons(const struct loss *l, char out[TEXT_MAX])
{
	out[0] = '\0';
	for (unsigned i = 0; i < METRIC_LOSSES; i++)
		if (l->reasons[i])
			add_word(out, metrics_loss_word((enum metric_loss)i));
}

static size_t
render(const struct loss *l, const char *observer, char out[EVENT_HARD_MAX])
{
	char actions[TEXT_MAX], initiators[TEXT_MAX], reasons[TEXT_MAX];
	char first[CLOCK_EVENT_TIME_SIZE], last[CLOCK_EVENT_TIME_SIZE];
	bool all = list_initiators(l, initiators);
	const struct event_detail details[] = {
		{ "actions", EVENT_DETAIL_STRING, actions, 0 },
		{ "count", EVENT_DETAIL_NUMBER, NULL, l->count },
		{ "first", EVENT_DETAIL_STRING, first, 0 },
		{ "initiators", EVENT_DETAIL_STRING, initiators, 0 },
		{ "initiatorsCut", EVENT_DETAIL_BOOL, NULL, !all },
		{ "last", EVENT_DETAIL_STRING, last, 0 },
		{ "reason", EVENT_DETAIL_STRING, reasons, 0 },
	};
	struct event_self ev = { .action = "keytrail.loss",
		.severity = SEVERITY_CRITICAL,
		.outcome = EVENT_FAILURE,
		.message = "keytrail: events were lost",
		.time_ns = l->last_ns,
		.details = details,
		.ndetails = sizeof(details) / sizeof(details[0]) };

	list_actions(l, actions);
	list_reasons(l, reasons);
	clock_event_time(l->first_ns, first);
	clock_event_time(l->last_ns, last);
	memcpy(ev.id, l->id, sizeof(ev.id));
	return event_render_self(observer, &ev, out);
}

/* The new text stands before the old one goes. */
static void
publish(struct loss *l, const char *line, size_t n)
{
	unsigned old = l->slot, slot = ring_slot_take(l->ring);

	if (slot == RING_NO_SLOT)
		return;
	memcpy(ring_slot_line(l->ring, slot), line, n);
	ring_slot_publish(l->ring, slot, n);
	if (old != RING_NO_SLOT)
		ring_slot_close(l->ring, old);
	l->slot = slot;
}

void
loss_add(struct loss *l, const char *observer, const char *action, const char *initiator,
    int64_t wall_ns)
{
	enum metric_loss reason = reason_of(l->ring);
	char line[EVENT_HARD_MAX];
	size_t n;

	if (l->count == 0)
		begin(l, wall_ns);
	l->count++;
	l->last_ns = wall_ns;
	l->reasons[reason] = true;
	count_action(l, action);
	name_initiator(l, initiator);
	metrics_add(l->metrics, METRIC_EVENTS_LOST, reason, 1);
	n = render(l, observer, line);
	if (n <= EVENT_LINE_MAX)
		publish(l, line, n);
}

bool
loss_flush(struct loss *l, const char *observer)
{
	const size_t max = EVENT_HARD_MAX - EVENT_TRAIL_MAX;
	size_t n;

	if (l->count == 0)
		return true;
	if (!ring_claim(l->ring, max))
		return false;
	n = render(l, observer, ring_line(l->ring, max));
	metrics_add(l->metrics, METRIC_EVENTS_ACCEPTED, 0, 1);
	ring_commit(l->ring, max, n, RING_DURABLE | RING_SELF);
	if (l->slot != RING_NO_SLOT)
		ring_slot_close(l->ring, l->slot);
	l->slot = RING_NO_SLOT;
	l->count = 0;
	journal_kick(l->journal);
	return true;
}
