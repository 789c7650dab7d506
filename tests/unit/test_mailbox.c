#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/mailbox.h"

#include <event2/event.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

struct fixture {
	struct event_base *base;
	struct mailbox *mb;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err;

	if (f == NULL || (f->base = event_base_new()) == NULL ||
	    (f->mb = mailbox_new(f->base, &err)) == NULL)
		return -1;
	alarm(60);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	mailbox_free(f->mb);
	event_base_free(f->base);
	free(f);
	alarm(0);
	return 0;
}

static void
turn(struct fixture *f)
{
	event_base_loop(f->base, EVLOOP_NONBLOCK);
}

/* ---- one thread ---- */

#define NOTES 5

struct note {
	struct mail mail; /* first: a struct mail * is cast to this */
	struct mailbox *mb;
	char name;
	unsigned again; /* how often it posts itself */
	char *out;
};

static void
write_down(struct mail *m)
{
	struct note *n = (struct note *)m;

	n->out[strlen(n->out)] = n->name;
	if (n->again > 0) {
		n->again--;
		mailbox_post(n->mb, m);
	}
}

static struct note
make_note(struct fixture *f, char name, char *out)
{
	return (struct note){
		.mail = { .deliver = write_down }, .mb = f->mb, .name = name, .out = out
	};
}

static void
mails_come_in_the_order_of_posting(void **state)
{
	struct fixture *f = *state;
	struct note notes[NOTES];
	char out[16] = "";

	for (int i = 0; i < NOTES; i++)
		notes[i] = make_note(f, (char)('a' + i), out);
	for (int i = 0; i < NOTES; i++)
		mailbox_post(f->mb, &notes[i].mail);
	assert_string_equal(out, "");
	turn(f);
	assert_string_equal(out, "abcde");
}

static void
a_queued_mail_is_not_queued_again(void **state)
{
	struct fixture *f = *state;
	char out[16] = "";
	struct note a = make_note(f, 'a', out), b = make_note(f, 'b', out);

	mailbox_post(f->mb, &a.mail);
	mailbox_post(f->mb, &b.mail);
	mailbox_post(f->mb, &a.mail);
	turn(f);
	assert_string_equal(out, "ab");
	turn(f);
	assert_string_equal(out, "ab");
	mailbox_post(f->mb, &a.mail);
	turn(f);
	assert_string_equal(out, "aba");
}

static void
a_mail_that_posts_itself_queues_behind_the_others(void **state)
{
	struct fixture *f = *state;
	char out[16] = "";
	struct note a = make_note(f, 'a', out), b = make_note(f, 'b', out);

	a.again = 3;
	mailbox_post(f->mb, &a.mail);
	mailbox_post(f->mb, &b.mail);
	turn(f);
	assert_string_equal(out, "abaaa");
}

static void
free_itself(struct mail *m)
{
	free(m);
}

static void
a_mail_may_free_itself(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 10; i++) {
		struct mail *m = calloc(1, sizeof(*m));

		assert_non_null(m);
		m->deliver = free_itself;
		mailbox_post(f->mb, m);
	}
	turn(f);
}

/* ---- many threads ---- */

#define THREADS 4
#define MAILS	2000

struct counted {
	struct mail mail; /* first */
	struct counter *counter;
	unsigned thread, number;
};

struct counter {
	struct event_base *base;
	unsigned next[THREADS]; /* the number that is due */
	unsigned total;
	atomic_uint posted_standing; /* how much work the standing mail has announced */
	unsigned seen_standing;
};

struct poster {
	pthread_t id;
	struct mailbox *mb;
	struct counted *mails;
	struct mail *standing;
	struct counter *counter;
};

static void
count(struct mail *m)
{
	struct counted *c = (struct counted *)m;

	assert_int_equal(c->number, c->counter->next[c->thread]);
	c->counter->next[c->thread]++;
	c->counter->total++;
}

struct standing {
	struct mail mail; /* first */
	struct counter *counter;
};

static void
on_standing(struct mail *m)
{
	struct counter *c = ((struct standing *)m)->counter;

	c->seen_standing = atomic_load(&c->posted_standing);
}

static void *
post_all(void *arg)
{
	struct poster *p = arg;

	for (unsigned i = 0; i < MAILS; i++) {
		mailbox_post(p->mb, &p->mails[i].mail);
		atomic_fetch_add(&p->counter->posted_standing, 1);
		mailbox_post(p->mb, p->standing);
	}
	return NULL;
}

/* Each thread's mails arrive once and in order, and no announcement of a standing mail is lost. */
static void
many_threads_lose_nothing(void **state)
{
	struct fixture *f = *state;
	struct counter counter = { .base = f->base };
	struct standing standing = { { .deliver = on_standing }, &counter };
	struct poster posters[THREADS];

	for (unsigned t = 0; t < THREADS; t++) {
		posters[t] = (struct poster){ .mb = f->mb,
			.mails = calloc(MAILS, sizeof(struct counted)),
			.standing = &standing.mail,
			.counter = &counter };
		assert_non_null(posters[t].mails);
		for (unsigned i = 0; i < MAILS; i++)
			posters[t].mails[i] =
			    (struct counted){ { .deliver = count }, &counter, t, i };
		assert_int_equal(pthread_create(&posters[t].id, NULL, post_all, &posters[t]), 0);
	}
	while (counter.total < THREADS * MAILS || counter.seen_standing < THREADS * MAILS)
		event_base_loop(f->base, EVLOOP_ONCE);
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(posters[t].id, NULL);
	turn(f);
	assert_int_equal(counter.total, THREADS * MAILS);
	for (unsigned t = 0; t < THREADS; t++)
		free(posters[t].mails);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mails_come_in_the_order_of_posting),
		TEST(a_queued_mail_is_not_queued_again),
		TEST(a_mail_that_posts_itself_queues_behind_the_others),
		TEST(a_mail_may_free_itself),
		TEST(many_threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
