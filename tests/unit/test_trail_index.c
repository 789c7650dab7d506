#include "keytrail/clock.h"
#include "keytrail/query.h"
#include "keytrail/trail.h"
#include "keytrail/trail_index.h"
#include "endless.h"
#include "tempdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/statvfs.h>
#include <time.h>

#include <cmocka.h>

#define SECOND	  1700000000 /* 2023-11-14T22:13:20Z */
#define SEGMENT	  65536
#define SEGMENTS  64
#define PATH_MORE (TEMPDIR_SIZE + 64)

struct segment {
	uint64_t first;
	char name[40];
};

struct fixture {
	char dir[TEMPDIR_SIZE];
	struct trail_opts opts;
	struct trail *t;
	struct trail_index *ix;
	struct segment segments[SEGMENTS];
	size_t n;
	struct err err;
	unsigned looks_left; /* at the clock, before the time is over; 0: it never is */
	int64_t behind;	     /* the clock, in seconds */
	char *answer;	     /* of all pages */
	size_t size;
	FILE *out;
};

/* ---- the trail ---- */

static void
open_trail(struct fixture *f)
{
	struct trail_recovery rec;

	if (trail_open(&f->opts, &f->t, &rec, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

static void
ask_anew(struct fixture *f)
{
	trail_index_close(f->ix);
	assert_int_equal(trail_index_open(trail_dirfd(f->t), &f->ix, &f->err), 0);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	f->opts = (struct trail_opts){
		.dir = f->dir, .create = true, .segment_size = SEGMENT, .room = SEGMENT
	};
	open_trail(f);
	ask_anew(f);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	trail_index_close(f->ix);
	trail_close(f->t, true);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static void
append_at(struct fixture *f, const char *text, int64_t second)
{
	uint64_t seq;

	assert_int_equal(
	    trail_append(f->t, slice_of(text), (SECOND + second) * CLOCK_NS_PER_S, &seq, &f->err),
	    0);
	assert_int_equal(trail_write(f->t, &f->err), 0);
}

static void
append_call(struct fixture *f, const char *correlation)
{
	char text[512];

	snprintf(text, sizeof(text),
	    "{\"action\":\"list\",\"correlationId\":\"%s\",\"id\":\"%0200d\"", correlation, 0);
	append_at(f, text, (int64_t)trail_last_seq(f->t));
}

static void
sync_trail(struct fixture *f)
{
	assert_int_equal(trail_sync(f->t, &f->err), 0);
}

/* So many calls; number i has the correlation ID "c<i>". */
static void
append_calls(struct fixture *f, unsigned n)
{
	char id[24];

	for (unsigned i = 0; i < n; i++) {
		snprintf(id, sizeof(id), "c%" PRIu64, trail_last_seq(f->t) + 1);
		append_call(f, id);
		if (i % 200 == 0)
			sync_trail(f);
	}
	sync_trail(f);
}

static int
compare_names(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* Up to that of the durable mark: all but this one are sealed. */
static void
list_segments(struct fixture *f)
{
	DIR *d = opendir(f->dir);
	uint64_t mark, offset;
	struct dirent *e;

	f->n = 0;
	while ((e = readdir(d)) != NULL) {
		if (strlen(e->d_name) != 26 || strcmp(e->d_name + 20, ".jsonl") != 0)
			continue;
		assert_true(f->n < SEGMENTS);
		strcpy(f->segments[f->n].name, e->d_name);
		f->segments[f->n++].first = strtoull(e->d_name, NULL, 10);
	}
	closedir(d);
	qsort(f->segments, f->n, sizeof(f->segments[0]), compare_names);
	trail_durable_mark(f->t, &mark, &offset);
	while (f->segments[f->n - 1].first > mark)
		f->n--;
}

static bool
is_indexed(const struct fixture *f, uint64_t first)
{
	char path[PATH_MORE];

	snprintf(path, sizeof(path), "%s/index/%020" PRIu64 ".idx", f->dir, first);
	return access(path, F_OK) == 0;
}

static size_t
count_indexes(const struct fixture *f)
{
	char path[PATH_MORE];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/index", f->dir);
	if ((d = opendir(path)) == NULL)
		return 0;
	while ((e = readdir(d)) != NULL)
		n += strstr(e->d_name, ".idx") != NULL;
	closedir(d);
	return n;
}

static void
wait_a_little(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static void
make_round(struct fixture *f)
{
	int rc;

	while ((rc = trail_index_make(f->ix, 0, &f->err)) == 1)
		continue;
	if (rc == -1)
		fail_msg("%s", f->err.msg);
}

/* All that can be made; a segment that has just been written is left for a while. */
static void
make_indexes(struct fixture *f)
{
	list_segments(f);
	ask_anew(
	    f); /* of a segment that was looked at nothing new is expected before another start */
	do {
		make_round(f);
		wait_a_little();
	} while (count_indexes(f) < f->n - 1);
}

/* ---- what is known ---- */

static void
ask_for(struct fixture *f, const char *correlation)
{
	static char value[64];
	struct trail_index_query q = { .before = 0 };

	snprintf(value, sizeof(value), "\"%s\"", correlation);
	q.want[TRAIL_INDEX_CORRELATION] = slice_of(value);
	trail_index_ask(f->ix, &q);
}

/* Whether anything is known of the line. */
static bool
knows(struct fixture *f, uint64_t seq)
{
	bool fits;

	ask_for(f, "nobody");
	return trail_index_pass(f->ix, &seq, &fits);
}

static void
each_call_is_found_where_it_is(void **state)
{
	struct fixture *f = *state;
	char id[24];

	append_calls(f, 1000);
	make_indexes(f);
	assert_true(f->n > 3);
	for (uint64_t want = 2; want < f->segments[f->n - 1].first; want++) {
		uint64_t seq = 1;
		bool fits = false;

		snprintf(id, sizeof(id), "c%" PRIu64, want);
		ask_for(f, id);
		while (!fits)
			assert_true(trail_index_pass(f->ix, &seq, &fits));
		assert_int_equal(seq, want);
	}
}

static void
what_nobody_sent_is_passed_over_up_to_the_open_segment(void **state)
{
	struct fixture *f = *state;
	uint64_t seq = 1;
	bool fits;

	append_calls(f, 1000);
	make_indexes(f);
	ask_for(f, "nobody");
	while (trail_index_pass(f->ix, &seq, &fits))
		assert_false(fits);
	assert_int_equal(seq, f->segments[f->n - 1].first - 1);
}

/* From line 1 on: the first line that may fit, or the last of what is known. */
static uint64_t
pass_all(struct fixture *f, const struct trail_index_query *q)
{
	uint64_t seq = 1;
	bool fits = false;

	trail_index_ask(f->ix, q);
	while (!fits && trail_index_pass(f->ix, &seq, &fits))
		continue;
	return seq;
}

static void
segments_without_the_value_are_passed_over(void **state)
{
	static const struct {
		enum trail_index_field field;
		const char *value;
	} cases[] = {
		{ TRAIL_INDEX_ACTION, "\"wrap\"" },
		{ TRAIL_INDEX_INITIATOR, "\"alice\"" },
		{ TRAIL_INDEX_OUTCOME, "\"failure\"" },
		{ TRAIL_INDEX_SEVERITY, "\"critical\"" },
	};
	struct fixture *f = *state;
	uint64_t seq;

	append_calls(f, 500);
	append_at(f,
	    "{\"action\":\"wrap\",\"initiator\":{\"id\":\"alice\"},\"outcome\":\"failure\","
	    "\"severity\":\"critical\"",
	    500);
	append_calls(f, 500);
	make_indexes(f);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct trail_index_query q = { .before = 0 };

		q.want[cases[i].field] = slice_of(cases[i].value);
		seq = pass_all(f, &q);
		assert_true(seq > 1 && seq <= 501 && is_indexed(f, seq));
	}
}

static void
segments_before_a_time_are_passed_over(void **state)
{
	struct fixture *f = *state;
	struct trail_index_query q = { .before = 0 };
	char at[CLOCK_EVENT_TIME_SIZE];

	append_calls(f, 1000);
	make_indexes(f);
	clock_event_time((SECOND + (int64_t)f->segments[2].first) * CLOCK_NS_PER_S, at);
	q.since = slice_of(at);
	assert_int_equal(pass_all(f, &q), f->segments[2].first);
}

/* The clock was far ahead for one line: a query ends there. */
static void
a_segment_in_which_a_query_ends_is_read(void **state)
{
	struct fixture *f = *state;
	struct trail_index_query q = { .before = 0 };
	char at[CLOCK_EVENT_TIME_SIZE];
	uint64_t ahead;

	append_calls(f, 500);
	append_at(f, "{\"action\":\"list\"", 100000);
	ahead = trail_last_seq(f->t);
	append_calls(f, 500);
	make_indexes(f);
	clock_event_time((SECOND + 50000) * CLOCK_NS_PER_S, at);
	q.want[TRAIL_INDEX_ACTION] = SLICE("\"nothing\"");
	q.until = slice_of(at);
	assert_in_range(pass_all(f, &q), ahead - 200, ahead - 1);
	q.until = SLICE_EMPTY;
	q.before = 501;
	assert_in_range(pass_all(f, &q), 300, 500);
	q.before = 0;
	assert_int_equal(pass_all(f, &q), f->segments[f->n - 1].first - 1);
}

/* ---- what is believed ---- */

static void
write_byte(const struct fixture *f, const char *name, off_t at, char byte)
{
	char path[PATH_MORE];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	assert_true((fd = open(path, O_RDWR)) != -1);
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static char
read_byte(const struct fixture *f, const char *name, off_t at)
{
	char path[PATH_MORE], byte;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	assert_true((fd = open(path, O_RDONLY)) != -1);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	close(fd);
	return byte;
}

/* Somebody writes into a segment, and puts its time of modification back. */
static void
an_index_of_what_the_segment_was_is_made_anew(void **state)
{
	struct fixture *f = *state;
	struct timespec times[2];
	char path[PATH_MORE], byte;
	struct stat st;

	append_calls(f, 1000);
	make_indexes(f);
	assert_true(knows(f, 1));
	snprintf(path, sizeof(path), "%s/%s", f->dir, f->segments[0].name);
	assert_int_equal(stat(path, &st), 0);
	byte = read_byte(f, f->segments[0].name, 100);
	write_byte(f, f->segments[0].name, 100, byte);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	assert_false(knows(f, 1));
	assert_true(knows(f, f->segments[1].first));
	append_calls(f, 500); /* begins another round */
	do {
		make_round(f);
		wait_a_little();
	} while (!knows(f, 1));
}

static void
of_a_segment_with_damage_nothing_is_known(void **state)
{
	struct fixture *f = *state;

	append_calls(f, 1000);
	list_segments(f);
	write_byte(f, f->segments[1].name, 100, '\n');
	make_indexes(f);
	assert_true(is_indexed(f, f->segments[1].first)); /* it is looked at once */
	assert_true(knows(f, 1));
	assert_false(knows(f, f->segments[1].first));
	assert_true(knows(f, f->segments[2].first));
}

static void
each_byte_of_an_index_is_sealed(void **state)
{
	struct fixture *f = *state;
	char name[40];
	struct stat st;
	char path[PATH_MORE];

	append_calls(f, 400);
	make_indexes(f);
	snprintf(name, sizeof(name), "index/%020" PRIu64 ".idx", f->segments[0].first);
	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	assert_int_equal(stat(path, &st), 0);
	for (off_t at = 0; at < st.st_size; at++) {
		char byte = read_byte(f, name, at);
		uint64_t seq;
		unsigned unknown = 0;
		char id[24];

		write_byte(f, name, at, (char)(byte ^ 1));
		for (uint64_t i = 2; i < 4; i++) { /* some of them ask this part of the file */
			bool fits = false;

			snprintf(id, sizeof(id), "c%" PRIu64, i);
			ask_for(f, id);
			seq = 1;
			if (!trail_index_pass(f->ix, &seq, &fits))
				unknown++;
			else
				assert_true(fits && seq == i);
		}
		if (at < 4096)
			assert_true(unknown == 2);
		write_byte(f, name, at, byte);
	}
}

/* With their key. */
static void
move_indexes(const struct fixture *from, const struct fixture *to)
{
	char here[PATH_MORE], there[PATH_MORE];

	snprintf(here, sizeof(here), "%s/index", from->dir);
	snprintf(there, sizeof(there), "%s/index", to->dir);
	tempdir_remove(there);
	assert_int_equal(rename(here, there), 0);
}

static void
an_index_of_another_log_is_not_believed(void **state)
{
	struct fixture *f = *state, *other;

	setup((void **)&other);
	append_calls(f, 1000);
	append_calls(other, 1000);
	make_indexes(other);
	move_indexes(other, f);
	ask_anew(f);
	assert_false(knows(f, 1));
	teardown((void **)&other);
	make_indexes(f);
	assert_true(knows(f, 1));
	trail_close(f->t, true);
	open_trail(f);
	assert_int_equal(trail_renew(f->t, &f->err), 0);
	ask_anew(f);
	assert_false(knows(f, 1));
}

static void
without_the_key_indexes_are_made_anew(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MORE];

	append_calls(f, 1000);
	make_indexes(f);
	snprintf(path, sizeof(path), "%s/index/key", f->dir);
	assert_int_equal(unlink(path), 0);
	ask_anew(f);
	assert_false(knows(f, 1));
	make_round(f);
	assert_true(knows(f, 1));
}

/* ---- its life ---- */

static void
an_index_goes_with_its_segment(void **state)
{
	struct fixture *f = *state;
	uint64_t first, last;

	append_calls(f, 1000);
	make_indexes(f);
	assert_int_equal(trail_expire(f->t, 0, SEGMENT, UINT64_MAX, &first, &last, &f->err), 0);
	assert_true(last > 0);
	for (size_t i = 0; i < f->n; i++)
		assert_int_equal(is_indexed(f, f->segments[i].first),
		    f->segments[i].first > last && i + 1 < f->n);
}

static void
what_has_no_segment_is_removed(void **state)
{
	struct fixture *f = *state;
	char from[PATH_MORE], to[PATH_MORE];

	append_calls(f, 1000);
	make_indexes(f);
	snprintf(from, sizeof(from), "%s/index/%020" PRIu64 ".idx", f->dir, f->segments[0].first);
	snprintf(to, sizeof(to), "%s/index/%020u.idx", f->dir, 7U);
	assert_int_equal(rename(from, to), 0);
	ask_anew(f);
	make_round(f);
	assert_false(is_indexed(f, 7));
	assert_true(is_indexed(f, f->segments[0].first));
}

static void
where_room_is_short_there_is_none(void **state)
{
	struct fixture *f = *state;
	bool begun = false;
	uint64_t keep_free;
	struct statvfs fs;
	int rc;

	append_calls(f, 1000);
	assert_int_equal(trail_index_make(f->ix, UINT64_MAX / 4, &f->err), 0);
	assert_int_equal(count_indexes(f), 0);
	make_indexes(f);
	assert_true(count_indexes(f) > 0);
	assert_int_equal(trail_index_make(f->ix, UINT64_MAX / 4, &f->err), 0);
	assert_int_equal(count_indexes(f), 0);
	assert_int_equal(statvfs(f->dir, &fs), 0);
	keep_free = (uint64_t)fs.f_bavail * fs.f_frsize / 3 * 2;
	do {
		while ((rc = trail_index_make(f->ix, keep_free, &f->err)) == 1)
			begun = true;
		assert_int_equal(rc, 0);
	} while (!begun);
	assert_int_equal(count_indexes(f), 0);
	make_indexes(f);
	assert_true(count_indexes(f) > 0);
}

/* ---- the same answer ---- */

static int64_t
now_ns(void *arg)
{
	struct fixture *f = arg;

	return f->looks_left > 0 && --f->looks_left == 0;
}

static int
take_piece(void *arg, struct slice piece)
{
	struct fixture *f = arg;

	return fwrite(piece.p, 1, piece.n, f->out) == piece.n ? 0 : -1;
}

static void
note_damage(void *arg, uint64_t first, uint64_t last)
{
	struct fixture *f = arg;

	fprintf(f->out, "<damage %" PRIu64 " %" PRIu64 ">", first, last);
}

/* What `next` of the last page is, or 0. */
static uint64_t
next_page(struct fixture *f)
{
	static const char key[] = "\"next\":\"";
	const char *at, *last = NULL;

	fflush(f->out);
	at = f->answer;
	while ((at = strstr(at, key)) != NULL)
		last = at++;
	assert_non_null(last);
	return strstr(last, "\"more\":true") != NULL ? strtoull(last + sizeof(key) - 1, NULL, 10)
						     : 0;
}

/* All pages, and the damage that was met. */
static char *
answer_all(struct fixture *f, struct query q, struct trail_index *ix)
{
	struct query_run run = { .dirfd = trail_dirfd(f->t),
		.query = &q,
		.index = ix,
		.deadline_ns = 1,
		.now_ns = now_ns,
		.cancelled = endless_cancelled,
		.write = take_piece,
		.arg = f,
		.corrupt = note_damage,
		.corrupt_arg = f };

	f->out = open_memstream(&f->answer, &f->size);
	do
		if (query_run(&run, &f->err) == -1)
			fail_msg("%s", f->err.msg);
	while ((q.cursor = next_page(f)) != 0);
	fclose(f->out);
	return f->answer;
}

static const char *const actions[] = { "list", "read", "wrap", "delete", "keytrail.stop" };
static const char *const outcomes[] = { "success", "failure", "unknown", "pending" };
static const char *const severities[] = { "normal", "warning", "critical" };

/* Some values are in few lines: most segments have none of them. */
static unsigned
draw(unsigned n)
{
	return random() % 10 == 0 && random() % 10 == 0
		   ? n - 1
		   : (unsigned)((unsigned long)random() % (n - 1));
}

static void
append_random(struct fixture *f)
{
	bool intent = random() % 300 == 0;
	unsigned id, n;
	char text[2048];

	/* Some intents are closed at once, some much later, some never. */
	id = (unsigned)random() % (intent || random() % 50 == 0 ? 200 : 40);

	n = (unsigned)snprintf(text, sizeof(text), "{\"action\":\"%s\"", actions[draw(5)]);
	if (random() % 5 != 0)
		n += (unsigned)snprintf(
		    text + n, sizeof(text) - n, ",\"correlationId\":\"c%ld\"", random() % 3000);
	n += (unsigned)snprintf(text + n, sizeof(text) - n, ",\"id\":\"%u\"", id);
	if (random() % 3 != 0)
		n += (unsigned)snprintf(
		    text + n, sizeof(text) - n, ",\"initiator\":{\"id\":\"i%u\"}", draw(50));
	if (intent)
		n += (unsigned)snprintf(text + n, sizeof(text) - n, ",\"kind\":\"intent\"");
	n += (unsigned)snprintf(
	    text + n, sizeof(text) - n, ",\"outcome\":\"%s\"", outcomes[draw(4)]);
	n += (unsigned)snprintf(
	    text + n, sizeof(text) - n, ",\"severity\":\"%s\"", severities[draw(3)]);
	snprintf(text + n, sizeof(text) - n, ",\"x\":\"%0*d\"", (int)(random() % 400), 0);
	if (random() % 500 == 0)
		f->behind = random() % 1500;
	append_at(f, text, (int64_t)trail_last_seq(f->t) - f->behind);
}

static struct query
random_query(struct fixture *f)
{
	uint64_t last = trail_last_seq(f->t);
	struct query q;
	char value[64];

	query_init(&q);
	for (unsigned i = 0; i < QUERY_STRINGS; i++) {
		const char *name[] = { "action", "correlationId", "initiator", "outcome",
			"severity" };

		if (random() % 4 != 0)
			continue;
		snprintf(value, sizeof(value),
		    i == QUERY_ACTION	     ? "%s"
		    : i == QUERY_CORRELATION ? "c%s"
		    : i == QUERY_INITIATOR   ? "i%s"
					     : "%s",
		    i == QUERY_ACTION	  ? actions[draw(5)]
		    : i == QUERY_OUTCOME  ? outcomes[draw(4)]
		    : i == QUERY_SEVERITY ? severities[draw(3)]
					  : "");
		if (i == QUERY_CORRELATION || i == QUERY_INITIATOR)
			snprintf(value + 1, sizeof(value) - 1, "%ld",
			    i == QUERY_CORRELATION ? random() % 3100 : (long)draw(52));
		assert_int_equal(query_set(&q, name[i], value, &f->err), 0);
	}
	for (int i = 0; i < 2; i++) {
		uint64_t place = 1 + (uint64_t)random() % (last + 10);
		char at[CLOCK_EVENT_TIME_SIZE];

		if (random() % 3 != 0)
			continue;
		clock_event_time((SECOND + (int64_t)place) * CLOCK_NS_PER_S, at);
		snprintf(value, sizeof(value), "%" PRIu64, place);
		assert_int_equal(query_set(&q, i == 0 ? "since" : "until",
				     random() % 2 == 0 ? at : value, &f->err),
		    0);
	}
	if (random() % 3 == 0)
		q.cursor = 1 + (uint64_t)random() % last;
	q.limit = random() % 2 == 0 ? 1000 : 20 + (unsigned)random() % 300;
	return q;
}

static void
expect_same_answers(struct fixture *f, struct trail_index *ix, const char *what)
{
	for (int i = 0; i < 25; i++) {
		struct query q = random_query(f);
		char *want = answer_all(f, q, NULL), *got = answer_all(f, q, ix);

		if (strcmp(got, want) != 0)
			fail_msg("%s: %s\n%s", what, got, want);
		free(want);
		free(got);
	}
}

/* What may be wrong with sealed segments. */
static void
harm_segments(struct fixture *f)
{
	char path[PATH_MORE];

	list_segments(f);
	for (size_t i = 0; i + 1 < f->n; i++) {
		const struct segment *s = &f->segments[i];
		int fd;

		snprintf(path, sizeof(path), "%s/%s", f->dir, s->name);
		switch (random() % 12) {
		case 0:
			write_byte(f, s->name, random() % SEGMENT, (char)random());
			break;
		case 1:
			assert_int_equal(truncate(path, random() % SEGMENT), 0);
			break;
		case 2:
			fd = open(path, O_WRONLY | O_APPEND);
			assert_int_equal(write(fd, "garbage\n", (size_t)random() % 9) == -1, 0);
			close(fd);
			break;
		case 3:
			assert_int_equal(i == 0 ? 0 : unlink(path), 0);
			break;
		case 4: /* put between */
			snprintf(path, sizeof(path), "%s/%020" PRIu64 ".jsonl", f->dir,
			    s->first + 1 + (uint64_t)random() % 50);
			fd = open(path, O_WRONLY | O_CREAT, 0600);
			assert_int_equal(write(fd, "stray\n", (size_t)random() % 7) == -1, 0);
			close(fd);
			break;
		default:
			break;
		}
	}
}

static void
corrupt_indexes(struct fixture *f)
{
	for (size_t i = 0; i + 1 < f->n; i++) {
		char name[40];

		snprintf(name, sizeof(name), "index/%020" PRIu64 ".idx", f->segments[i].first);
		if (is_indexed(f, f->segments[i].first) && random() % 2 == 0)
			write_byte(f, name, random() % 8192, (char)random());
	}
}

static void
answers_are_the_same_with_and_without(void **state)
{
	const char *given = getenv("KEYTRAIL_SEED");
	unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	struct fixture *f = *state, *other;

	printf("KEYTRAIL_SEED=%u\n", seed);
	srandom(seed);
	for (int i = 0; i < 5000; i++) {
		append_random(f);
		if (i % 200 == 0)
			sync_trail(f);
	}
	sync_trail(f);
	expect_same_answers(f, f->ix, "absent");
	make_indexes(f);
	assert_true(f->n > 10 && knows(f, 1));
	expect_same_answers(f, f->ix, "whole segments");
	harm_segments(f);
	expect_same_answers(f, f->ix, "stale");
	make_indexes(f);
	expect_same_answers(f, f->ix, "harmed segments");
	corrupt_indexes(f);
	expect_same_answers(f, f->ix, "corrupt");
	setup((void **)&other);
	append_calls(other, 1000);
	make_indexes(other);
	move_indexes(other, f);
	ask_anew(f);
	expect_same_answers(f, f->ix, "another log's");
	teardown((void **)&other);
}

/* ---- what it saves ---- */

static uint64_t
bytes_read(void)
{
	FILE *io = fopen("/proc/thread-self/io", "r");
	uint64_t n = 0;

	assert_non_null(io);
	assert_int_equal(fscanf(io, "rchar: %" SCNu64, &n), 1);
	fclose(io);
	return n;
}

/* What was passed over by then is not looked at again. */
static void
a_page_whose_time_is_over_has_come_so_far(void **state)
{
	struct fixture *f = *state;
	struct query q;
	char *all;

	append_calls(f, 1000);
	make_indexes(f);
	query_init(&q);
	assert_int_equal(query_set(&q, "correlationId", "nobody", &f->err), 0);
	f->looks_left = 4;
	all = answer_all(f, q, f->ix);
	assert_non_null(strstr(all, "\"more\":true}"));
	assert_true(strtoull(strstr(all, "\"next\":\"") + 8, NULL, 10) >= f->segments[1].first - 1);
	free(all);
}

static void
an_intent_is_closed_by_a_line_of_a_segment_that_would_be_passed_over(void **state)
{
	struct fixture *f = *state;
	struct query q;
	char *all;

	append_calls(f, 300);
	append_at(f,
	    "{\"action\":\"delete\",\"id\":\"i\",\"kind\":\"intent\",\"outcome\":\"pending\"", 300);
	append_calls(f, 500);
	append_at(f, "{\"action\":\"delete\",\"id\":\"i\",\"outcome\":\"success\"", 800);
	append_calls(f, 500);
	make_indexes(f);
	query_init(&q);
	assert_int_equal(query_set(&q, "outcome", "pending", &f->err), 0);
	all = answer_all(f, q, f->ix);
	assert_null(strstr(all, "intent"));
	free(all);
}

#define LARGE (1U << 20)

/* Of a sealed segment two pieces of its index; halving's reads where one begins, where the call is,
 * and where what is known ends; and the open one. */
static void
a_call_is_found_without_reading_the_trail(void **state)
{
	static char text[1024];
	struct fixture *f = *state;
	struct query q;
	uint64_t read;
	char *answer;
	size_t n;

	f->opts.segment_size = LARGE;
	trail_close(f->t, true);
	open_trail(f);
	ask_anew(f);
	for (unsigned i = 1; i <= 24000; i++) {
		n = (size_t)snprintf(text, sizeof(text),
		    "{\"action\":\"list\",\"correlationId\":\"c%u\",\"x\":\"", i);
		memset(text + n, 'x', 600);
		memcpy(text + n + 600, "\"", 2);
		append_at(f, text, i);
		if (i % 500 == 0)
			sync_trail(f);
	}
	make_indexes(f);
	assert_true(f->n > 15);
	query_init(&q);
	assert_int_equal(query_set(&q, "correlationId", "c4000", &f->err), 0);
	read = bytes_read();
	answer = answer_all(f, q, f->ix);
	read = bytes_read() - read;
	assert_non_null(strstr(answer, "\"seq\":4000,"));
	free(answer);
	if (read > 4 * LARGE)
		fail_msg("%" PRIu64 " bytes were read", read);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_call_is_found_where_it_is),
		TEST(what_nobody_sent_is_passed_over_up_to_the_open_segment),
		TEST(segments_without_the_value_are_passed_over),
		TEST(segments_before_a_time_are_passed_over),
		TEST(a_segment_in_which_a_query_ends_is_read),
		TEST(an_index_of_what_the_segment_was_is_made_anew),
		TEST(of_a_segment_with_damage_nothing_is_known),
		TEST(each_byte_of_an_index_is_sealed),
		TEST(an_index_of_another_log_is_not_believed),
		TEST(without_the_key_indexes_are_made_anew),
		TEST(an_index_goes_with_its_segment),
		TEST(what_has_no_segment_is_removed),
		TEST(where_room_is_short_there_is_none),
		TEST(answers_are_the_same_with_and_without),
		TEST(an_intent_is_closed_by_a_line_of_a_segment_that_would_be_passed_over),
		TEST(a_page_whose_time_is_over_has_come_so_far),
		TEST(a_call_is_found_without_reading_the_trail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
