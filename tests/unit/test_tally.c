#include "data/tally.h"

#include "keytrail/clock.h"
#include "tempdir.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OBSERVER "keytrail/0123456789abcdef0123456789abcdef"
#define NOW	 (1700000000 * CLOCK_NS_PER_S)

struct fixture {
	char dir[TEMPDIR_SIZE];
	int fd;
	struct ring *ring;
	struct trail *trail;
	struct journal *journal; /* never started: only kicked */
	struct metrics *metrics;
	struct log *log;
	struct tally tally;
	uint64_t pos; /* read so far */
	struct err err;
};

static int
setup(void **state)
{
	struct ring_opts opts = {
		.size = 65536, .slots = TALLY_SLOTS + 1, .slot_size = EVENT_LINE_MAX
	};
	struct fixture *f = calloc(1, sizeof(*f));
	struct trail_recovery rec;
	struct trail_opts trail = { .dir = f->dir, .create = true, .segment_size = 65536 };
	struct journal_opts journal = { .spacing_max_us = 1 };

	tempdir_make(f->dir);
	f->log = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
	f->metrics = metrics_new();
	assert_int_equal(trail_open(&trail, &f->trail, &rec, &f->err), 0);
	f->fd = trail_dirfd(f->trail);
	assert_int_equal(ring_open(f->fd, "ring.0", &opts, &f->ring, &f->err), 0);
	journal.trail = f->trail;
	journal.log = f->log;
	journal.metrics = metrics_shard_new(f->metrics);
	f->journal = journal_new(&journal, &f->err);
	assert_non_null(f->journal);
	tally_init(&f->tally, &tally_losses, f->ring, f->journal, metrics_shard_new(f->metrics));
	f->pos = ring_tail(f->ring);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	journal_free(f->journal);
	ring_close(f->ring);
	trail_close(f->trail, false);
	metrics_free(f->metrics);
	log_free(f->log);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static bool
read_line(struct fixture *f, char text[EVENT_HARD_MAX])
{
	struct slice line;
	unsigned flags;

	if (!ring_next(f->ring, &f->pos, &line, &flags))
		return false;
	memcpy(text, line.p, line.n);
	text[line.n] = '\0';
	return true;
}

static void
expect(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("no %s in %s", part, text);
}

static void
add(struct fixture *f, const char *word, const char *name, int64_t wall_ns)
{
	tally_add(&f->tally, OBSERVER, &(struct tally_item){ word, name, wall_ns, RING_NO_SLOT });
}

static void
losses_become_one_event_that_counts_them(void **state)
{
	struct fixture *f = *state;
	char text[EVENT_HARD_MAX];

	add(f, "kms.secrets.wrap", "IBMid-1", NOW);
	add(f, "kms.secrets.list", "", NOW + CLOCK_NS_PER_S);
	add(f, "kms.secrets.wrap", "IBMid-2", NOW + 2 * CLOCK_NS_PER_S);
	add(f, "kms.secrets.wrap", "IBMid-1", NOW + 3 * CLOCK_NS_PER_S);
	assert_true(tally_flush(&f->tally, OBSERVER));
	assert_true(read_line(f, text));
	expect(text, "\"action\":\"keytrail.loss\"");
	expect(text, "\"severity\":\"critical\"");
	expect(text,
	    "\"details\":{\"actions\":\"kms.secrets.wrap 3, kms.secrets.list 1\",\"count\":4,"
	    "\"first\":\"2023-11-14T22:13:20.00+0000\",\"initiators\":\"IBMid-1, IBMid-2\","
	    "\"initiatorsCut\":false,\"last\":\"2023-11-14T22:13:23.00+0000\","
	    "\"reason\":\"ring_full\"}");
	assert_true(tally_flush(&f->tally, OBSERVER));
	assert_false(read_line(f, text));
	/* The one that tells of them. */
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_ACCEPTED, 0), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_RING_FULL), 4);
}

static void
refusals_are_told_by_reason_and_source(void **state)
{
	struct fixture *f = *state;
	char text[EVENT_HARD_MAX];

	tally_init(&f->tally, &tally_refusals, f->ring, f->journal, metrics_shard_new(f->metrics));
	add(f, "bad_host", "192.0.2.1", NOW);
	add(f, "obs_fold", "2001:db8::/64", NOW);
	add(f, "bad_host", "192.0.2.1", NOW);
	assert_true(tally_flush(&f->tally, OBSERVER));
	assert_true(read_line(f, text));
	expect(text, "\"action\":\"keytrail.refused\"");
	expect(text, "\"severity\":\"warning\"");
	expect(text, "\"details\":{\"count\":3,\"first\":\"2023-11-14T22:13:20.00+0000\",\"last\":"
		     "\"2023-11-14T22:13:20.00+0000\",\"reasons\":\"bad_host 2, obs_fold 1\","
		     "\"sources\":\"192.0.2.1, 2001:db8::/64\",\"sourcesCut\":false}");
}

/* What stands in the way is the disk, not the ring's size. */
static void
the_reason_is_what_the_journal_says_of_the_trail(void **state)
{
	struct fixture *f = *state;
	char text[EVENT_HARD_MAX];

	ring_set_state(f->ring, RING_NO_ROOM);
	add(f, "a.b", "x", NOW);
	ring_set_state(f->ring, RING_FAILED);
	add(f, "a.b", "x", NOW);
	ring_set_state(f->ring, RING_OK);
	assert_true(tally_flush(&f->tally, OBSERVER));
	assert_true(read_line(f, text));
	expect(text, "\"reason\":\"trail_full, trail_failed\"}");
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_TRAIL_FULL), 1);
	assert_int_equal(
	    metrics_value(f->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_TRAIL_FAILED), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_EVENTS_LOST, METRIC_LOSS_RING_FULL), 0);
}

static void
each_event_tells_of_its_own_losses_only(void **state)
{
	struct fixture *f = *state;
	char first[EVENT_HARD_MAX], second[EVENT_HARD_MAX];

	add(f, "a.b", "x", NOW);
	assert_true(tally_flush(&f->tally, OBSERVER));
	add(f, "c.d", "y", NOW + CLOCK_NS_PER_S);
	assert_true(tally_flush(&f->tally, OBSERVER));
	assert_true(read_line(f, first) && read_line(f, second));
	expect(
	    second, "\"actions\":\"c.d 1\",\"count\":1,\"first\":\"2023-11-14T22:13:21.00+0000\"");
	expect(second, "\"initiators\":\"y\"");
	assert_false(slice_equal(trail_line_string(slice_of(first), SLICE("id")),
	    trail_line_string(slice_of(second), SLICE("id"))));
}

static void
what_finds_no_room_is_written_when_there_is_some(void **state)
{
	struct fixture *f = *state;
	char text[EVENT_HARD_MAX];

	while (ring_claim(f->ring, EVENT_LINE_MAX))
		continue;
	add(f, "a.b", "x", NOW);
	assert_false(tally_flush(&f->tally, OBSERVER));
	add(f, "a.b", "x", NOW);
	for (unsigned i = 0; i < 5; i++)
		ring_unclaim(f->ring, EVENT_LINE_MAX);
	assert_true(tally_flush(&f->tally, OBSERVER));
	assert_true(read_line(f, text));
	expect(text, "\"actions\":\"a.b 2\",\"count\":2");
}

struct found {
	unsigned n, slots;
	char text[EVENT_LINE_MAX + 1];
};

static int
collect(void *arg, struct slice line, unsigned flags, uint64_t segment, uint64_t offset,
    struct err *err)
{
	struct found *found = arg;

	(void)segment;
	(void)offset;
	(void)err;
	found->n++;
	found->slots += (flags & RING_SLOT) != 0;
	memcpy(found->text, line.p, line.n);
	found->text[line.n] = '\0';
	return 0;
}

static unsigned
publish_call(struct fixture *f)
{
	unsigned slot = ring_slot_take(f->ring);

	memcpy(ring_slot_line(f->ring, slot), "{\"id\":\"call\"", 12);
	ring_slot_publish(f->ring, slot, 12);
	return slot;
}

/* Killed before the call's slot is closed, and after its next call has it. */
static void
a_kill_finds_a_lost_call_in_the_count_alone(void **state)
{
	struct fixture *f = *state;
	struct tally_item item = { "a.b", "x", NOW, RING_NO_SLOT };
	unsigned slot = publish_call(f);

	for (unsigned i = 1; i <= 3; i++) {
		struct found found = { 0 };

		item.slot = slot;
		tally_add(&f->tally, OBSERVER, &item);
		assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
		assert_int_equal(found.n, 1);
		expect(found.text, i == 1 ? "\"count\":1" : i == 2 ? "\"count\":2" : "\"count\":3");
		ring_slot_close(f->ring, slot);
		slot = publish_call(f);
		found.n = 0;
		assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
		assert_int_equal(found.n, 2);
	}
}

static void
a_kill_loses_no_loss(void **state)
{
	struct fixture *f = *state;
	struct found found = { 0 };

	add(f, "a.b", "x", NOW);
	add(f, "a.b", "y", NOW);
	add(f, "a.b", "z", NOW);
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 1);
	assert_int_equal(found.slots, 1);
	expect(found.text, "\"actions\":\"a.b 3\",\"count\":3");
	assert_true(tally_flush(&f->tally, OBSERVER));
	found = (struct found){ 0 };
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.n, 1);
	assert_int_equal(found.slots, 0);
}

static void
the_longest_event_fits_into_a_slot(void **state)
{
	struct fixture *f = *state;
	struct found found = { 0 };
	char action[EVENT_ACTION_MAX], initiator[300];

	for (unsigned i = 0; i < 50; i++) {
		memset(action, 'a', sizeof(action) - 1);
		snprintf(action + sizeof(action) - 4, 4, ".%02u", i);
		memset(initiator, '"', sizeof(initiator) - 1);
		initiator[sizeof(initiator) - 1] = '\0';
		initiator[0] = (char)('A' + i);
		add(f, action, initiator, NOW);
	}
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.slots, 1);
	expect(found.text, "\"count\":50");
	expect(found.text, ", other ");
	expect(found.text, "\"initiatorsCut\":true");
}

/* Also in the slot: a kill loses none of them. */
static void
as_many_are_named_when_their_names_are_long(void **state)
{
	struct fixture *f = *state;
	struct found found = { 0 };
	char action[40], initiator[TALLY_NAME_SIZE], last[200];

	for (unsigned i = 0; i < TALLY_NAMES; i++) {
		snprintf(action, sizeof(action), "kms.secrets.some-long-action-%02u", i);
		snprintf(initiator, sizeof(initiator),
		    "iam-ServiceId-01234567-89ab-cdef-0123-456789abcdef-%013u", i);
		assert_int_equal(strlen(initiator), TALLY_NAME_SIZE - 1);
		add(f, action, initiator, NOW);
	}
	assert_int_equal(ring_recover(f->fd, "ring.0", collect, &found, &f->err), 0);
	assert_int_equal(found.slots, 1);
	snprintf(last, sizeof(last), "%s 1\",\"count\":32", action);
	expect(found.text, last);
	snprintf(last, sizeof(last), "%s\",\"initiatorsCut\":false", initiator);
	expect(found.text, last);
}

static void
at_most_so_many_initiators_and_actions_are_named(void **state)
{
	struct fixture *f = *state;
	char text[EVENT_HARD_MAX], action[16], initiator[16];

	for (unsigned i = 0; i < 40; i++) {
		snprintf(action, sizeof(action), "k.a%u", i);
		snprintf(initiator, sizeof(initiator), "u%u", i);
		add(f, action, initiator, NOW);
	}
	assert_true(tally_flush(&f->tally, OBSERVER));
	assert_true(read_line(f, text));
	expect(text, "k.a31 1, other 8\",\"count\":40");
	expect(text, "u30, u31\",\"initiatorsCut\":true");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(losses_become_one_event_that_counts_them),
		TEST(the_reason_is_what_the_journal_says_of_the_trail),
		TEST(refusals_are_told_by_reason_and_source),
		TEST(each_event_tells_of_its_own_losses_only),
		TEST(what_finds_no_room_is_written_when_there_is_some),
		TEST(a_kill_finds_a_lost_call_in_the_count_alone),
		TEST(a_kill_loses_no_loss),
		TEST(the_longest_event_fits_into_a_slot),
		TEST(as_many_are_named_when_their_names_are_long),
		TEST(at_most_so_many_initiators_and_actions_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
