#include "keytrail/reader.h"
#include "keytrail/mapguard.h"
#include "keytrail/trail.h"
#include "tempdir.h"

#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A job whose first piece holds the reader until `go_on`. */
struct held {
	struct reader_job job; /* first */
	sem_t begun, go_on, ended;
	unsigned pieces;
	int rc;
};

struct fixture {
	char dir[TEMPDIR_SIZE];
	int dirfd;
	struct trail *t; /* or NULL */
	struct reader *reader;
	struct held jobs[READER_QUEUE + 1];
};

static void
on_piece(struct reader_job *job, struct slice bytes)
{
	struct held *h = (struct held *)job;

	assert_true(bytes.n > 0);
	h->pieces++;
	sem_post(&h->begun);
	sem_wait(&h->go_on);
}

static void
on_done(struct reader_job *job, int rc, const struct err *err)
{
	struct held *h = (struct held *)job;

	(void)err;
	h->rc = rc;
	sem_post(&h->ended);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct trail_opts opts = { .create = true, .segment_size = 65536, .room = 65536 };
	struct reader_opts ropts = { .corrupt = NULL };
	struct trail_recovery rec;
	struct trail *t;
	struct err err;

	tempdir_make(f->dir);
	opts.dir = f->dir;
	assert_int_equal(trail_open(&opts, &t, &rec, &err), 0);
	trail_close(t, true);
	for (size_t i = 0; i <= READER_QUEUE; i++) {
		struct held *h = &f->jobs[i];

		query_init(&h->job.query);
		h->job.piece = on_piece;
		h->job.done = on_done;
		sem_init(&h->begun, 0, 0);
		sem_init(&h->go_on, 0, 0);
		sem_init(&h->ended, 0, 0);
	}
	assert_true((f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY)) != -1);
	ropts.dirfd = f->dirfd;
	assert_int_equal(reader_start(&ropts, &f->reader, &err), 0);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	reader_stop(f->reader);
	if (f->t != NULL)
		trail_close(f->t, true);
	close(f->dirfd);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static void
fill_queue(struct fixture *f)
{
	for (size_t i = 0; i < READER_QUEUE; i++)
		assert_true(reader_submit(f->reader, &f->jobs[i].job));
	sem_wait(&f->jobs[0].begun);
}

static void
jobs_are_answered_in_order_and_no_more_wait_than_may(void **state)
{
	struct fixture *f = *state;

	fill_queue(f);
	assert_false(reader_submit(f->reader, &f->jobs[READER_QUEUE].job));
	for (size_t i = 0; i < READER_QUEUE; i++) {
		if (i > 0)
			sem_wait(&f->jobs[i].begun);
		for (size_t k = i + 1; k < READER_QUEUE; k++)
			assert_int_equal(sem_trywait(&f->jobs[k].begun), -1);
		sem_post(&f->jobs[i].go_on);
		sem_wait(&f->jobs[i].ended);
		assert_int_equal(f->jobs[i].rc, 0);
		assert_int_equal(f->jobs[i].pieces, 1);
	}
}

static void
a_job_that_is_cancelled_while_it_waits_writes_nothing(void **state)
{
	struct fixture *f = *state;

	fill_queue(f);
	reader_cancel(&f->jobs[1].job);
	for (size_t i = 0; i < READER_QUEUE; i++)
		sem_post(&f->jobs[i].go_on);
	for (size_t i = 0; i < READER_QUEUE; i++) {
		sem_wait(&f->jobs[i].ended);
		assert_int_equal(f->jobs[i].rc, i == 1);
		assert_int_equal(f->jobs[i].pieces, i != 1);
	}
}

static void
append_segments(struct fixture *f, unsigned lines)
{
	struct trail_opts opts = { .dir = f->dir, .segment_size = 65536, .room = 65536 };
	struct trail_recovery rec;
	char line[1100];
	struct err err;
	uint64_t seq;

	snprintf(line, sizeof(line), "{\"action\":\"%01000d\"", 0);
	assert_int_equal(trail_open(&opts, &f->t, &rec, &err), 0);
	for (unsigned i = 0; i < lines; i++) {
		assert_int_equal(trail_append(f->t, slice_of(line), 0, &seq, &err), 0);
		assert_int_equal(trail_write(f->t, &err), 0);
		assert_int_equal(trail_sync(f->t, &err), 0);
	}
}

/* It is the writer's mapping that mends the file: keytrail/mapguard.h. */
static void
a_state_page_that_is_cut_during_a_query_harms_nobody(void **state)
{
	struct fixture *f = *state;
	struct held *h = &f->jobs[0];
	char path[TEMPDIR_SIZE + 10];
	struct err err;

	append_segments(f, 200);
	assert_int_equal(mapguard_install(&err), 0);
	h->job.query.limit = QUERY_ROWS_MAX;
	assert_true(reader_submit(f->reader, &h->job));
	sem_wait(&h->begun);
	snprintf(path, sizeof(path), "%s/state", f->dir);
	assert_int_equal(truncate(path, 0), 0);
	for (unsigned i = 0; i < 9; i++)
		sem_post(&h->go_on);
	sem_wait(&h->ended);
	assert_int_equal(h->rc, 0);
	assert_true(h->pieces > 3); /* all segments */
}

static void
a_stop_ends_every_job(void **state)
{
	struct fixture *f = *state;

	fill_queue(f);
	reader_cancel(&f->jobs[0].job);
	for (size_t i = 0; i < READER_QUEUE; i++)
		sem_post(&f->jobs[i].go_on);
	reader_stop(f->reader);
	f->reader = NULL;
	for (size_t i = 0; i < READER_QUEUE; i++)
		assert_int_equal(sem_trywait(&f->jobs[i].ended), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(jobs_are_answered_in_order_and_no_more_wait_than_may),
		TEST(a_job_that_is_cancelled_while_it_waits_writes_nothing),
		TEST(a_state_page_that_is_cut_during_a_query_harms_nobody),
		TEST(a_stop_ends_every_job),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
