#include "keytrail/follow.h"

#include "keytrail/trail.h"
#include "tempdir.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SEEN_MAX 4096
#define GAP	 UINT64_C(1000000) /* is added to the number that a gap goes on from */

struct seen {
	struct follower follower; /* first */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t all[SEEN_MAX];
	unsigned n, room; /* rows that there is room for */
	unsigned looked;  /* for room */
	unsigned asked;	  /* in vain */
	bool ended;
	int rc;
};

struct fixture {
	char dir[TEMPDIR_SIZE];
	int dirfd;
	struct trail *t;
	struct follow *follow;
	struct seen seen[FOLLOW_MAX + 1];
};

/* ---- on its thread ---- */

static bool
has_room(struct follower *f)
{
	struct seen *s = (struct seen *)f;
	bool room;

	pthread_mutex_lock(&s->lock);
	room = s->room > 0;
	s->looked++;
	s->asked += !room;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return room;
}

static void
note(struct seen *s, uint64_t what, bool takes_room)
{
	pthread_mutex_lock(&s->lock);
	assert_true(s->n < SEEN_MAX);
	s->all[s->n++] = what;
	s->room -= takes_room;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void
on_row(struct follower *f, uint64_t seq, struct slice line)
{
	char want[64];

	snprintf(want, sizeof(want), "\"seq\":%u,", (unsigned)seq);
	assert_non_null(memmem(line.p, line.n, want, strlen(want)));
	note((struct seen *)f, seq, true);
}

static void
on_gap(struct follower *f, uint64_t next)
{
	note((struct seen *)f, GAP + next, false);
}

static void
on_ended(struct follower *f, int rc, const struct err *err)
{
	struct seen *s = (struct seen *)f;

	(void)err;
	pthread_mutex_lock(&s->lock);
	s->ended = true;
	s->rc = rc;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* ---- the other side ---- */

#define WAIT_FOR(s, condition)                                                                     \
	do {                                                                                       \
		pthread_mutex_lock(&(s)->lock);                                                    \
		while (!(condition))                                                               \
			pthread_cond_wait(&(s)->changed, &(s)->lock);                              \
		pthread_mutex_unlock(&(s)->lock);                                                  \
	} while (0)

static void
append(struct fixture *f, const char *members, unsigned times)
{
	char line[1200];
	struct err err;
	uint64_t seq;

	snprintf(line, sizeof(line), "{%s,\"pad\":\"%01000d\"", members, 0);
	while (times-- > 0)
		assert_int_equal(trail_append(f->t, slice_of(line), 0, &seq, &err), 0);
	assert_int_equal(trail_write(f->t, &err), 0);
	assert_int_equal(trail_sync(f->t, &err), 0);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct trail_opts opts = { .create = true, .segment_size = 65536, .room = 65536 };
	struct trail_recovery rec;
	struct err err;

	alarm(60);
	tempdir_make(f->dir);
	opts.dir = f->dir;
	assert_int_equal(trail_open(&opts, &f->t, &rec, &err), 0);
	for (size_t i = 0; i <= FOLLOW_MAX; i++) {
		struct seen *s = &f->seen[i];

		query_init(&s->follower.query);
		s->follower.has_room = has_room;
		s->follower.row = on_row;
		s->follower.gap = on_gap;
		s->follower.ended = on_ended;
		s->room = UINT32_MAX;
		pthread_mutex_init(&s->lock, NULL);
		pthread_cond_init(&s->changed, NULL);
	}
	assert_true((f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY)) != -1);
	assert_int_equal(follow_start(f->dirfd, NULL, NULL, &f->follow, &err), 0);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	follow_stop(f->follow);
	trail_close(f->t, true);
	close(f->dirfd);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static void
rows_come_as_they_become_durable(void **state)
{
	struct fixture *f = *state;
	struct seen *past = &f->seen[0], *live = &f->seen[1], *some = &f->seen[2];
	struct err err;

	append(f, "\"action\":\"a\"", 150); /* segments of them */
	past->follower.query.cursor = 3;
	assert_int_equal(query_set(&some->follower.query, "action", "b", &err), 0);
	some->follower.query.cursor = 1;
	for (unsigned i = 0; i < 3; i++)
		assert_true(follow_add(f->follow, &f->seen[i].follower));
	WAIT_FOR(past, past->n == 148);
	assert_int_equal(past->all[0], 3);
	assert_int_equal(past->all[147], 150);
	WAIT_FOR(live, live->looked >= 2); /* after a first look: he has come up */
	append(f, "\"action\":\"b\",\"kind\":\"intent\"", 1);
	append(f, "\"action\":\"b\"", 1);
	append(f, "\"action\":\"a\"", 1);
	WAIT_FOR(live, live->n == 2);
	assert_int_equal(live->all[0], 152);
	assert_int_equal(live->all[1], 153);
	WAIT_FOR(past, past->n == 150);
	WAIT_FOR(some, some->n == 1);
	assert_int_equal(some->all[0], 152);
	assert_int_equal(live->n, 2);
}

/* However far behind: he began there. */
static void
who_catches_up_is_waited_for(void **state)
{
	struct fixture *f = *state;
	struct seen *s = &f->seen[0];

	append(f, "\"action\":\"a\"", 2 * FOLLOW_BEHIND);
	s->follower.query.cursor = 1;
	s->room = 10;
	assert_true(follow_add(f->follow, &s->follower));
	WAIT_FOR(s, s->n == 10 && s->asked >= 3);
	pthread_mutex_lock(&s->lock);
	s->room = UINT32_MAX;
	pthread_mutex_unlock(&s->lock);
	follow_wake(f->follow);
	WAIT_FOR(s, s->n == 2 * FOLLOW_BEHIND);
	for (unsigned i = 0; i < s->n; i++)
		assert_int_equal(s->all[i], i + 1);
	assert_false(s->ended);
}

static void
who_falls_behind_is_let_go_with_a_place_to_go_on(void **state)
{
	struct fixture *f = *state;
	struct seen *s = &f->seen[0];

	assert_true(follow_add(f->follow, &s->follower));
	WAIT_FOR(s, s->looked >= 2);
	pthread_mutex_lock(&s->lock);
	s->room = 5;
	pthread_mutex_unlock(&s->lock);
	append(f, "\"action\":\"a\"", FOLLOW_BEHIND + 4);
	WAIT_FOR(s, s->n == 5 && s->asked >= 3);
	assert_false(s->ended);
	append(f, "\"action\":\"a\"", 1);
	WAIT_FOR(s, s->ended);
	assert_int_equal(s->rc, 0);
	assert_int_equal(s->n, 6);
	assert_int_equal(s->all[4], 5);
	assert_int_equal(s->all[5], GAP + 6);
}

static void
lines_that_are_gone_are_a_gap(void **state)
{
	struct fixture *f = *state;
	struct seen *s = &f->seen[0];

	for (unsigned i = 0; i < 10; i++)
		append(f, "\"action\":\"a\"", 10);
	assert_int_equal(unlinkat(f->dirfd, "00000000000000000001.jsonl", 0), 0);
	s->follower.query.cursor = 1;
	assert_true(follow_add(f->follow, &s->follower));
	WAIT_FOR(s, s->n > 0 && s->all[s->n - 1] == 100);
	assert_true(s->all[0] > GAP + 1);
	for (unsigned i = 1; i < s->n; i++)
		assert_int_equal(s->all[i], s->all[0] - GAP + i - 1);
}

static void
there_are_so_many_and_who_leaves_makes_room(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < FOLLOW_MAX; i++)
		assert_true(follow_add(f->follow, &f->seen[i].follower));
	assert_false(follow_add(f->follow, &f->seen[FOLLOW_MAX].follower));
	for (unsigned i = 0; i < FOLLOW_MAX; i++)
		WAIT_FOR(&f->seen[i], f->seen[i].looked >= 2); /* has come up */
	follow_cancel(f->follow, &f->seen[3].follower);
	WAIT_FOR(&f->seen[3], f->seen[3].ended);
	assert_true(follow_add(f->follow, &f->seen[FOLLOW_MAX].follower));
	append(f, "\"action\":\"a\"", 1);
	for (unsigned i = 0; i < FOLLOW_MAX; i++)
		if (i != 3)
			WAIT_FOR(&f->seen[i], f->seen[i].n == 1);
	follow_stop(f->follow);
	f->follow = NULL;
	for (unsigned i = 0; i <= FOLLOW_MAX; i++)
		assert_true(f->seen[i].ended);
	assert_int_equal(f->seen[3].n, 0);
}

static void
a_trail_that_cannot_be_read_ends_it(void **state)
{
	struct fixture *f = *state;
	struct seen *s = &f->seen[0];

	assert_int_equal(renameat(f->dirfd, "state", f->dirfd, "elsewhere"), 0);
	assert_true(follow_add(f->follow, &s->follower));
	WAIT_FOR(s, s->ended);
	assert_int_equal(s->rc, -1);
	assert_int_equal(renameat(f->dirfd, "elsewhere", f->dirfd, "state"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rows_come_as_they_become_durable),
		TEST(who_catches_up_is_waited_for),
		TEST(who_falls_behind_is_let_go_with_a_place_to_go_on),
		TEST(lines_that_are_gone_are_a_gap),
		TEST(there_are_so_many_and_who_leaves_makes_room),
		TEST(a_trail_that_cannot_be_read_ends_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
