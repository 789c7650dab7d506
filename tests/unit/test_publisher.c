#include "keytrail/publisher.h"

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/crc32c.h"
#include "keytrail/merkle.h"
#include "keytrail/sink.h"
#include "keytrail/trail.h"
#include "tempdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include <cmocka.h>

#define ROUTES	 "proxy/routes"
#define TEXT_MAX (4u << 20)
#define PATIENCE (60 * CLOCK_NS_PER_S)

/* ---- a sink that does as it is told; it stands where the configuration says "stdout" ---- */

struct scripted {
	pthread_mutex_t lock;
	struct buf text; /* what was delivered, a line each */
	struct buf told; /* of the same: "number<prev ", with an 's' behind a stub's number */
	unsigned deliveries;
	_Atomic bool down;    /* RETRY */
	_Atomic bool stalled; /* RETRY at the deadline */
	_Atomic bool cannot_open;
	_Atomic bool rejects_odd;   /* REJECT what has an odd number */
	_Atomic bool rejects_stubs; /* half of them */
	_Atomic unsigned takes;	    /* so many events, then RETRY; 0: all */
	_Atomic bool busy;	    /* BUSY in place of RETRY */
	_Atomic bool frozen;	    /* does not return, whatever the deadline */
	_Atomic bool inside;	    /* was called */
	_Atomic bool flush_fails;
	_Atomic bool flush_waits;
	_Atomic unsigned flushes;
	_Atomic unsigned reopened, opened, closed;
	_Atomic unsigned close_together; /* each waits for so many */
	struct publisher *watched;	 /* or NULL */
	_Atomic uint64_t kept_at_close;	 /* by it */
};

static struct scripted script = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int
script_open(const struct config_sink *cfg, void **state, struct err *err)
{
	(void)cfg;
	if (script.cannot_open)
		return err_set(err, "cannot be opened");
	script.opened++;
	*state = &script;
	return 0;
}

static void
script_close(void *state)
{
	assert_ptr_equal(state, &script);
	script.closed++;
	while (script.closed < script.close_together)
		usleep(1000);
	if (script.watched != NULL)
		script.kept_at_close = publisher_keep_seq(script.watched);
}

static void
script_take(const struct sink_event *events, size_t n)
{
	pthread_mutex_lock(&script.lock);
	for (size_t i = 0; i < n; i++) {
		buf_append_slice(&script.text, events[i].text);
		buf_append(&script.text, "\n", 1);
		buf_printf(&script.told, "%" PRIu64 "%s<%" PRIu64 " ", events[i].seq,
		    events[i].stub ? "s" : "", events[i].prev);
	}
	script.deliveries++;
	pthread_mutex_unlock(&script.lock);
}

static bool
is_rejected(const struct sink_event *e)
{
	return e->stub ? script.rejects_stubs && e->seq % 4 == 1
		       : script.rejects_odd && e->seq % 2 == 1;
}

static enum sink_result
script_deliver(void *state, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	size_t fit = script.takes > 0 && script.takes < n ? script.takes : n;

	(void)state;
	if (script.down) {
		err_set(err, "is down");
		return SINK_RETRY;
	}
	script.inside = true;
	while (script.frozen)
		usleep(1000);
	while (script.stalled && clock_mono_ns() < deadline_ns)
		usleep(1000);
	if (script.stalled) {
		err_set(err, "stands still");
		return script.busy ? SINK_BUSY : SINK_RETRY;
	}
	for (*done = 0; *done < fit && !is_rejected(&events[*done]); ++*done)
		;
	script_take(events, *done);
	if (*done < fit)
		err_set(err, "is odd");
	if (*done < fit)
		return SINK_REJECT;
	return *done == n ? SINK_OK : script.busy ? SINK_BUSY : SINK_RETRY;
}

static void
script_reopen(void *state)
{
	(void)state;
	script.reopened++;
}

static int
script_flush(void *state, int64_t deadline_ns, struct err *err)
{
	(void)state;
	script.flushes++;
	while (script.flush_waits && clock_mono_ns() < deadline_ns)
		usleep(1000);
	if (script.flush_waits)
		return 1;
	return script.flush_fails ? err_set(err, "cannot be flushed") : 0;
}

static void
script_figures(void *state, sink_figure_fn each, void *arg)
{
	(void)state;
	each(arg, "deliveries", script.deliveries);
	each(arg, "none", (double)NAN); /* as JSON cannot say it */
}

static struct sink_ops script_ops = {
	.type = "stdout",
	.verbatim = true,
	.open = script_open,
	.close = script_close,
	.deliver = script_deliver,
	.reopen = script_reopen,
	.figures = script_figures,
};

static const struct sink_types types = {
	.ops = { [CONFIG_SINK_STDOUT] = &script_ops, [CONFIG_SINK_FILE] = &sink_file_ops }
};

/* ---- the fixture ---- */

struct fixture {
	char dir[TEMPDIR_SIZE];	  /* all of it */
	char trail[TEMPDIR_SIZE]; /* in dir */
	struct trail *t;
	struct config *config;
	struct metrics *metrics;
	struct metrics_shard *shard;
	struct log *log;
	struct publisher *p;
	struct err err;
	uint64_t intents, failures;
	bool rejects; /* to record those */
	char rejected[256];
	_Atomic uint64_t recorded; /* what was rejected up to this number is */
	char text[TEXT_MAX];
};

#define FIRST_SEGMENT "00000000000000000001.jsonl"
#define FILE_SINK     "{\"name\":\"file\",\"type\":\"file\",\"path\":\"audit.jsonl\"}"
#define SCRIPT_SINK   "{\"name\":\"script\",\"type\":\"stdout\"}"

static struct config *
load_config(struct fixture *f, const char *sinks)
{
	char path[TEMPDIR_SIZE + 16], text[4096];
	struct config *config;

	snprintf(path, sizeof(path), "%s/a.json", f->dir);
	snprintf(text, sizeof(text),
	    "{\"listen\":{\"address\":\"127.0.0.1:8443\",\"tls\":null},"
	    "\"upstream\":{\"address\":\"kms.example.com:443\"},\"audit\":{\"trail\":\"trail\","
	    "\"sign\":null},"
	    "\"include\":[\"key-protect.json\"],\"sinks\":[%s]}",
	    sinks);
	if (config_load_text(path, slice_of(text), ROUTES, &config, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	return config;
}

static void
open_trail(struct fixture *f)
{
	struct trail_opts opts = { .dir = f->trail, .create = true, .segment_size = 8192 };
	struct trail_recovery rec;

	if (trail_open(&opts, &f->t, &rec, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[TEMPDIR_SIZE + 16];

	tempdir_make(f->dir);
	snprintf(f->trail, sizeof(f->trail), "%.200s/trail", f->dir);
	snprintf(path, sizeof(path), "%s/own.log", f->dir);
	f->log =
	    log_new(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), LOG_LEVEL_INFO);
	f->metrics = metrics_new();
	f->shard = metrics_shard_new(f->metrics);
	open_trail(f);
	atomic_store(&f->recorded, UINT64_MAX);
	script.text = script.told = BUF_INIT;
	script.deliveries = 0;
	script.reopened = 0;
	script.opened = script.closed = script.close_together = 0;
	script.down = false;
	script.stalled = false;
	script.cannot_open = false;
	script.rejects_odd = script.rejects_stubs = false;
	script.takes = 0;
	script.flush_fails = script.flush_waits = script.busy = false;
	script.flushes = 0;
	script.watched = NULL;
	script_ops.flush = NULL;
	script_ops.verbatim = true;
	*state = f;
	return 0;
}

static uint64_t
stop_within(struct fixture *f, int64_t ns)
{
	uint64_t left = publisher_stop(f->p, clock_mono_ns() + ns);

	publisher_free(f->p);
	config_unref(f->config);
	f->p = NULL;
	f->config = NULL;
	return left;
}

static uint64_t
stop(struct fixture *f)
{
	return stop_within(f, PATIENCE);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	if (f->p != NULL) {
		publisher_stop(f->p, clock_mono_ns());
		publisher_free(f->p);
		config_unref(f->config);
	}
	if (f->t != NULL)
		trail_close(f->t, true);
	log_free(f->log);
	metrics_free(f->metrics);
	buf_fini(&script.text);
	buf_fini(&script.told);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static uint64_t
note_rejected(void *arg, const char *sink, uint64_t seq, const char *reason)
{
	struct fixture *f = arg;
	size_t n = strlen(f->rejected);

	snprintf(
	    f->rejected + n, sizeof(f->rejected) - n, "%s %" PRIu64 " %s, ", sink, seq, reason);
	return seq;
}

static bool
is_recorded(void *arg, uint64_t report)
{
	const struct fixture *f = arg;

	return report <= atomic_load(&f->recorded);
}

static void
start(struct fixture *f, const char *sinks)
{
	struct publisher_opts opts = { .types = &types,
		.dirfd = trail_dirfd(f->t),
		.metrics = f->metrics,
		.shard = f->shard,
		.log = f->log,
		.rejected = note_rejected,
		.recorded = is_recorded,
		.arg = f };

	f->config = load_config(f, sinks);
	opts.config = f->config;
	if (publisher_start(&opts, &f->p, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

/* n events, the i-th an intent where `intents` has bit i % 64, the others with the same words in a
 * place where they mean nothing, and a failure where `failures` has that bit; durable, and the sinks
 * are told. */
static void
record(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char line[200];
		uint64_t seq, next = trail_last_seq(f->t) + 1;
		int len =
		    snprintf(line, sizeof(line), "{\"action\":\"%s\",\"id\":\"%" PRIu64 "\"%s%s",
			f->rejects ? "keytrail.reject" : "test", next,
			f->intents >> i % 64 & 1 ? ",\"kind\":\"intent\""
						 : ",\"of\":{\"kind\":\"intent\"}",
			f->failures >> i % 64 & 1 ? ",\"outcome\":\"failure\"" : "");

		if (trail_append(f->t, (struct slice){ line, (size_t)len }, clock_wall_ns(), &seq,
			&f->err) == -1)
			fail_msg("%s", f->err.msg);
	}
	if (trail_write(f->t, &f->err) == -1 || trail_sync(f->t, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	if (f->p != NULL)
		publisher_wake(f->p, trail_durable_seq(f->t));
}

#define wait_for(condition)                                                                        \
	do {                                                                                       \
		int64_t until = clock_mono_ns() + PATIENCE;                                        \
		while (!(condition) && clock_mono_ns() < until)                                    \
			usleep(1000);                                                              \
		assert_true(condition);                                                            \
	} while (0)

static struct publisher_sink_status
status_of(struct fixture *f, const char *name)
{
	struct publisher_sink_status all[METRICS_SINKS_MAX];
	size_t n = publisher_status(f->p, all, METRICS_SINKS_MAX);

	for (size_t i = 0; i < n; i++)
		if (strcmp(all[i].name, name) == 0)
			return all[i];
	return (struct publisher_sink_status){ .waiting = UINT64_MAX };
}

static bool
caught_up(struct fixture *f, const char *name)
{
	return status_of(f, name).waiting == 0;
}

static void
start_and_catch_up(struct fixture *f)
{
	start(f, SCRIPT_SINK);
	wait_for(caught_up(f, "script"));
}

/* The file, in f->text. */
static const char *
read_file(struct fixture *f, const char *folder, const char *name)
{
	char path[TEMPDIR_SIZE + 64];
	FILE *file;
	size_t n = 0;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if ((file = fopen(path, "r")) != NULL) {
		n = fread(f->text, 1, TEXT_MAX - 1, file);
		fclose(file);
	}
	f->text[n] = '\0';
	return f->text;
}

static const char *
own_log(struct fixture *f)
{
	log_flush(f->log);
	return read_file(f, f->dir, "own.log");
}

static const char *
script_text(struct fixture *f)
{
	pthread_mutex_lock(&script.lock);
	assert_true(buf_size(&script.text) < TEXT_MAX);
	f->text[buf_size(&script.text)] = '\0';
	if (buf_size(&script.text) > 0)
		memcpy(f->text, script.text.mem, buf_size(&script.text));
	pthread_mutex_unlock(&script.lock);
	return f->text;
}

static const char *
script_told(struct fixture *f)
{
	pthread_mutex_lock(&script.lock);
	snprintf(f->text, TEXT_MAX, "%.*s", SLICE_ARG(buf_slice(&script.told)));
	pthread_mutex_unlock(&script.lock);
	return f->text;
}

static unsigned
count(const char *text, const char *what)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
		n++;
	return n;
}

/* The numbers of the lines: "1 2 3 ". */
static char *
numbers(const char *text)
{
	struct buf out = BUF_INIT;

	while (*text != '\0') {
		size_t n = strcspn(text, "\n");
		struct trail_member member;

		assert_int_equal(text[n], '\n');
		if (trail_parse_line((struct slice){ text, n }, &member) == -1)
			fail_msg("not a whole line: %.*s", (int)n, text);
		assert_int_equal(buf_printf(&out, "%" PRIu64 " ", member.seq), 0);
		text += n + 1;
	}
	assert_int_equal(buf_append(&out, "", 1), 0);
	return out.mem;
}

#define assert_numbers(text, want)                                                                 \
	do {                                                                                       \
		char *got_ = numbers(text);                                                        \
		assert_string_equal(got_, want);                                                   \
		free(got_);                                                                        \
	} while (0)

/* The equation of the one sink, in its status and in a scrape. */
static void
check_ledger(struct fixture *f, const char *name, uint64_t before)
{
	struct publisher_sink_status s = status_of(f, name);
	const struct publisher_counts *c = &s.counts;
	struct metrics *m = f->metrics;

	assert_int_equal(s.due, trail_durable_seq(f->t) - before);
	assert_int_equal(s.due, c->delivered + c->filtered + c->rejected + c->missing + s.waiting);
	publisher_set_gauges(f->p);
	assert_int_equal(metrics_value(m, METRIC_SINK_DUE, 0),
	    metrics_value(m, METRIC_SINK_DELIVERED, 0) + metrics_value(m, METRIC_SINK_FILTERED, 0) +
		metrics_value(m, METRIC_SINK_REJECTED, 0) +
		metrics_value(m, METRIC_SINK_MISSING, 0) +
		metrics_value(m, METRIC_SINK_LAG_EVENTS, 0));
}

/* ---- delivering ---- */

static void
test_events_are_delivered_in_order_as_they_become_durable(void **state)
{
	struct fixture *f = *state;

	record(f, 3);
	start(f, FILE_SINK);
	wait_for(caught_up(f, "file"));
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 3 ");
	record(f, 2);
	wait_for(caught_up(f, "file"));
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 3 4 5 ");
	check_ledger(f, "file", 0);
	assert_true(status_of(f, "file").up);
	assert_string_equal(status_of(f, "file").type, "file");
}

static void
test_many_events_make_few_deliveries(void **state)
{
	struct fixture *f = *state;
	char *got;

	record(f, 2000);
	start_and_catch_up(f);
	assert_int_equal(count(script_text(f), "\n"), 2000);
	assert_true(script.deliveries >= 8 && script.deliveries <= 12);
	got = numbers(f->text);
	assert_non_null(strstr(got, " 1999 2000 "));
	free(got);
	publisher_set_gauges(f->p);
	assert_int_equal(metrics_value(f->metrics, METRIC_SINK_DELIVERED, 0), 2000);
}

static void
test_a_clean_stop_repeats_nothing(void **state)
{
	struct fixture *f = *state;

	start(f, FILE_SINK);
	record(f, 3);
	assert_int_equal(stop(f), 0);
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 3 ");
	start(f, FILE_SINK);
	record(f, 2);
	assert_int_equal(stop(f), 0);
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 3 4 5 ");
}

/* Nothing that may still be needed goes, and what is not needed may go (trap 12). */
static void
test_the_trail_is_kept_up_to_the_synced_cursor(void **state)
{
	struct fixture *f = *state;

	script.down = true;
	record(f, 4);
	start(f, FILE_SINK "," SCRIPT_SINK);
	wait_for(caught_up(f, "file"));
	assert_int_equal(publisher_keep_seq(f->p), 1);
	script.down = false;
	wait_for(publisher_keep_seq(f->p) == 5);
	record(f, 2);
	wait_for(publisher_keep_seq(f->p) == 7);
}

static void
test_without_sinks_nothing_is_kept(void **state)
{
	struct fixture *f = *state;

	start(f, "");
	record(f, 1);
	assert_int_equal(publisher_keep_seq(f->p), UINT64_MAX);
	assert_int_equal(stop(f), 0);
}

/* ---- sinks that fail: traps 1 to 4 ---- */

static void
test_a_dead_sink_stops_no_other_and_loses_nothing(void **state)
{
	struct fixture *f = *state;
	struct publisher_sink_status s;

	script.down = true;
	start(f, SCRIPT_SINK "," FILE_SINK);
	record(f, 5);
	wait_for(caught_up(f, "file"));
	wait_for(status_of(f, "script").counts.retries >= 2);
	s = status_of(f, "script");
	assert_false(s.up);
	assert_int_equal(s.waiting, 5);
	assert_string_equal(s.last_error, "is down");
	check_ledger(f, "script", 0);
	script.down = false;
	wait_for(caught_up(f, "script"));
	assert_numbers(script_text(f), "1 2 3 4 5 ");
	wait_for(status_of(f, "script").up);
	assert_string_equal(status_of(f, "script").last_error, "");
	/* One line each, however often it was tried (trap 7). */
	assert_int_equal(count(own_log(f), "\"sink_down\""), 1);
	assert_int_equal(count(f->text, "sink script: is down"), 1);
	assert_int_equal(count(f->text, "\"sink_up\""), 1);
}

static void
test_a_sink_that_cannot_be_opened_is_down(void **state)
{
	struct fixture *f = *state;

	script.cannot_open = true;
	record(f, 2);
	start(f, SCRIPT_SINK "," FILE_SINK);
	wait_for(!status_of(f, "script").up);
	assert_string_equal(status_of(f, "script").last_error, "cannot be opened");
	wait_for(caught_up(f, "file"));
	/* The age of what waits is known all the same. */
	wait_for(status_of(f, "script").oldest_seconds > 0);
	assert_int_equal(status_of(f, "script").waiting, 2);
	script.cannot_open = false;
	wait_for(caught_up(f, "script"));
	assert_true(status_of(f, "script").oldest_seconds <= 0);
	assert_numbers(script_text(f), "1 2 ");
}

static void
test_a_stub_stands_for_a_rejected_event(void **state)
{
	struct fixture *f = *state;

	script.rejects_odd = true;
	record(f, 4);
	f->rejects = true;
	record(f, 1);
	start_and_catch_up(f);
	assert_string_equal(script_told(f), "1s<0 2<1 3s<2 4<3 5s<4 ");
	/* Of the last one nobody is told: it tells of one itself. */
	assert_string_equal(f->rejected, "script 1 is odd, script 3 is odd, ");
	assert_numbers(read_file(f, f->trail, "quarantine.script.jsonl"), "1 3 5 ");
	assert_int_equal(status_of(f, "script").counts.rejected, 3);
	assert_string_equal(status_of(f, "script").last_error, "is odd");
	check_ledger(f, "script", 0);
	assert_int_equal(metrics_value(f->metrics, METRIC_SINK_REJECTED, 0), 3);
	assert_int_equal(count(own_log(f), "\"sink_rejected\""), 3);
	assert_int_equal(stop(f), 0);
}

static void
test_a_cursor_waits_until_what_was_rejected_is_recorded(void **state)
{
	struct fixture *f = *state;
	uint64_t at;

	script.rejects_odd = true;
	atomic_store(&f->recorded, 0);
	record(f, 4);
	for (int life = 0; life < 2; life++) {
		start_and_catch_up(f);
		assert_int_equal(stop(f), 0);
		assert_true(publisher_position(trail_dirfd(f->t), "script", &at));
		assert_int_equal(at, 0);
	}
	assert_string_equal(script_told(f), "1s<0 2<1 3s<2 4<3 1s<0 2<1 3s<2 4<3 ");
	start_and_catch_up(f);
	assert_int_equal(publisher_keep_seq(f->p), 1);
	atomic_store(&f->recorded, 3);
	wait_for(publisher_keep_seq(f->p) == 5);
	assert_int_equal(stop(f), 0);
}

static void
test_a_rejected_stub_is_left_out(void **state)
{
	struct fixture *f = *state;

	script.rejects_odd = script.rejects_stubs = true;
	script_ops.verbatim = false;
	record(f, 6);
	start_and_catch_up(f);
	assert_string_equal(script_told(f), "2<0 3s<2 4<3 6<4 ");
	assert_int_equal(count(script_text(f), "\"prev\":0}"), 1);
	assert_int_equal(count(f->text, "\"prev\":4}"), 1);
	assert_numbers(read_file(f, f->trail, "quarantine.script.jsonl"), "1 3 5 ");
	assert_int_equal(status_of(f, "script").counts.rejected, 3);
	check_ledger(f, "script", 0);
}

/* What a sink took before it failed is done with. */
static void
test_a_retry_goes_on_behind_what_was_taken(void **state)
{
	struct fixture *f = *state;

	script.takes = 2;
	script.rejects_odd = true;
	record(f, 7);
	start(f, SCRIPT_SINK);
	wait_for(status_of(f, "script").counts.retries > 0);
	check_ledger(f, "script", 0);
	wait_for(caught_up(f, "script"));
	assert_string_equal(script_told(f), "1s<0 2<1 3s<2 4<3 5s<4 6<5 7s<6 ");
	check_ledger(f, "script", 0);
}

/* ---- what a sink is told of an event ---- */

/* The JSON of the n-th line delivered. */
static const char *
delivered_line(struct fixture *f, unsigned n)
{
	char *p = f->text;

	script_text(f);
	while (--n > 0)
		p = strchr(p, '\n') + 1;
	*strchr(p, '\n') = '\0';
	return p;
}

static void
hash_of(const char *line, char out[65])
{
	struct merkle_hash leaf;

	merkle_leaf(slice_of(line), &leaf);
	for (int i = 0; i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", leaf.b[i]);
}

static void
test_a_line_goes_with_its_hash_and_with_who_came_before(void **state)
{
	struct fixture *f = *state;
	char want[1024], line[512], hash[65];

	script_ops.verbatim = false;
	f->intents = 2;
	record(f, 3);
	start_and_catch_up(f);
	assert_string_equal(script_told(f), "1<0 3<1 ");
	snprintf(line, sizeof(line), "%s",
	    strstr(read_file(f, f->trail, FIRST_SEGMENT), "{\"action\":\"test\",\"id\":\"3\""));
	*strchr(line, '\n') = '\0';
	hash_of(line, hash);
	snprintf(want, sizeof(want),
	    "{\"action\":\"test\",\"delivery\":{\"hash\":\"%s\",\"prev\":1},%s", hash,
	    strstr(line, "\"id\""));
	assert_string_equal(delivered_line(f, 2), want);
}

static void
test_a_stub_says_what_is_fixed(void **state)
{
	struct fixture *f = *state;
	char want[1024], hash[65];

	script.rejects_odd = true;
	record(f, 1);
	start_and_catch_up(f);
	read_file(f, f->trail, FIRST_SEGMENT);
	*strchr(f->text, '\n') = '\0';
	hash_of(f->text, hash);
	snprintf(want, sizeof(want),
	    "{\"action\":\"test\",\"delivery\":{\"hash\":\"%s\",\"prev\":0,\"stub\":true},"
	    "\"outcome\":\"\",\"trail\":{\"boot\":\"%s\",\"log\":\"%s\",\"seq\":1}}",
	    hash, trail_boot_id(f->t), trail_log_id(f->t));
	assert_string_equal(delivered_line(f, 1), want);
}

static void
test_prev_is_kept_over_restarts_and_rewinds(void **state)
{
	struct fixture *f = *state;

	f->intents = 4;
	script_ops.flush = script_flush;
	script.flush_fails = true;
	record(f, 3);
	start(f, SCRIPT_SINK);
	wait_for(count(script_told(f), "2<1") >= 2);
	assert_int_equal(strncmp(f->text, "1<0 2<1 1<0 2<1 ", 16), 0);
	script.flush_fails = false;
	wait_for(publisher_keep_seq(f->p) == 4);
	assert_int_equal(stop(f), 0);
	buf_consume(&script.told, buf_size(&script.told));
	record(f, 1);
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_string_equal(script_told(f), "4<2 ");
}

static void
test_what_a_failed_flush_took_back_comes_again(void **state)
{
	struct fixture *f = *state;
	char *got;

	script_ops.flush = script_flush;
	script.flush_fails = true;
	record(f, 3);
	start(f, SCRIPT_SINK);
	wait_for(count(script_text(f), "\n") >= 9);
	assert_int_equal(publisher_keep_seq(f->p), 1);
	assert_true(strstr(own_log(f), "cannot be flushed") != NULL);
	script.flush_fails = false;
	wait_for(publisher_keep_seq(f->p) == 4);
	got = numbers(script_text(f));
	assert_int_equal(strncmp(got, "1 2 3 1 2 3 ", 12), 0);
	free(got);
	/* Counted once, and told once. */
	assert_int_equal(status_of(f, "script").counts.delivered, 3);
	assert_int_equal(count(own_log(f), "\"sink_down\""), 1);
	assert_int_equal(count(f->text, "\"sink_up\""), 1);
	check_ledger(f, "script", 0);
}

/* ---- what takes longer than one call ---- */

static void
test_a_sink_that_is_busy_is_not_down(void **state)
{
	struct fixture *f = *state;

	script.busy = true;
	script.takes = 2;
	record(f, 5);
	start_and_catch_up(f);
	assert_string_equal(script_told(f), "1<0 2<1 3<2 4<3 5<4 ");
	assert_int_equal(script.deliveries, 3);
	assert_int_equal(status_of(f, "script").counts.retries, 0);
	assert_int_equal(count(own_log(f), "\"sink_down\""), 0);
}

static void
test_a_sink_that_is_busy_takes_orders(void **state)
{
	struct fixture *f = *state;

	script.busy = script.stalled = true;
	record(f, 1);
	start(f, SCRIPT_SINK);
	wait_for(script.opened == 1);
	publisher_reopen(f->p);
	wait_for(script.reopened == 1);
	assert_int_equal(stop_within(f, 0), 1);
}

static void
test_nothing_is_delivered_while_a_flush_does_not_know(void **state)
{
	struct fixture *f = *state;

	script_ops.flush = script_flush;
	script.flush_waits = true;
	record(f, 3);
	start(f, SCRIPT_SINK);
	wait_for(script.flushes > 0);
	record(f, 2);
	wait_for(script.flushes > 2);
	assert_string_equal(script_told(f), "1<0 2<1 3<2 ");
	assert_int_equal(publisher_keep_seq(f->p), 1);
	script.flush_waits = false;
	wait_for(publisher_keep_seq(f->p) == 6);
	assert_string_equal(script_told(f), "1<0 2<1 3<2 4<3 5<4 ");
	assert_int_equal(count(own_log(f), "\"sink_down\""), 0);
}

static void
test_what_no_flush_knew_at_the_stop_comes_again(void **state)
{
	struct fixture *f = *state;

	script_ops.flush = script_flush;
	script.flush_waits = true;
	record(f, 3);
	start(f, SCRIPT_SINK);
	wait_for(script.flushes > 0);
	assert_int_equal(stop_within(f, 0), 3);
	script.flush_waits = false;
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_string_equal(script_told(f), "1<0 2<1 3<2 1<0 2<1 3<2 ");
}

/* ---- stopping: trap 16 ---- */

static void
test_a_stop_in_an_outage_keeps_and_counts_what_waits(void **state)
{
	struct fixture *f = *state;
	int64_t before = clock_mono_ns();

	script.stalled = true;
	start(f, SCRIPT_SINK "," FILE_SINK);
	record(f, 7);
	wait_for(caught_up(f, "file"));
	assert_int_equal(publisher_stop(f->p, clock_mono_ns() + 50 * CLOCK_NS_PER_MS), 7);
	assert_true(clock_mono_ns() - before < 20 * CLOCK_NS_PER_S);
	assert_int_equal(status_of(f, "script").waiting, 7);
	assert_int_equal(status_of(f, "file").waiting, 0);
	publisher_free(f->p);
	config_unref(f->config);
	script.stalled = false;
	start(f, SCRIPT_SINK "," FILE_SINK);
	assert_int_equal(stop(f), 0);
	assert_numbers(script_text(f), "1 2 3 4 5 6 7 ");
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 3 4 5 6 7 ");
}

static void *
stop_thread(void *f)
{
	assert_int_equal(stop(f), 0);
	return NULL;
}

static void
test_a_stop_waits_for_a_sink_that_comes_back_in_time(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	script.down = true;
	start(f, SCRIPT_SINK);
	record(f, 3);
	wait_for(status_of(f, "script").counts.retries > 0);
	assert_int_equal(pthread_create(&thread, NULL, stop_thread, f), 0);
	script.down = false;
	pthread_join(thread, NULL);
	assert_numbers(script_text(f), "1 2 3 ");
}

/* A child delivers and dies in the middle; the parent goes on from its cursor. */
static void
deliver_and_die(struct fixture *f)
{
	start(f, FILE_SINK "," SCRIPT_SINK);
	record(f, 100);
	wait_for(caught_up(f, "file"));
	wait_for(caught_up(f, "script"));
	record(f, 50);
	kill(getpid(), SIGKILL);
}

static void
test_a_killed_process_loses_nothing(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;
	char want[8], *got;

	trail_close(f->t, true);
	f->t = NULL;
	if ((pid = fork()) == 0) {
		open_trail(f);
		deliver_and_die(f);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	open_trail(f);
	start(f, FILE_SINK "," SCRIPT_SINK);
	record(f, 1);
	assert_int_equal(stop(f), 0);
	got = numbers(read_file(f, f->dir, "audit.jsonl"));
	for (unsigned i = 1; i <= 151; i++) {
		snprintf(want, sizeof(want), "%u ", i);
		if (strstr(got, want) == NULL)
			fail_msg("event %u is missing", i);
	}
	free(got);
	/* A sink without a flush repeats no batch that it took. */
	got = numbers(script_text(f));
	assert_true(strtoul(got, NULL, 10) > 100);
	free(got);
}

/* ---- settings ---- */

static void
test_intents_are_delivered_only_when_asked_for(void **state)
{
	struct fixture *f = *state;

	f->intents = 0xa; /* 2 and 4 */
	record(f, 5);
	start(f, FILE_SINK ",{\"name\":\"all\",\"type\":\"stdout\",\"intents\":true}");
	wait_for(caught_up(f, "file"));
	wait_for(caught_up(f, "all"));
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 3 5 ");
	assert_numbers(script_text(f), "1 2 3 4 5 ");
	assert_int_equal(status_of(f, "file").counts.filtered, 2);
	assert_int_equal(status_of(f, "all").counts.filtered, 0);
	check_ledger(f, "file", 0);
	wait_for(publisher_keep_seq(f->p) == 6);
}

static void
test_a_batch_of_intents_alone_is_passed(void **state)
{
	struct fixture *f = *state;

	f->intents = UINT64_MAX;
	record(f, 600);
	start_and_catch_up(f);
	assert_string_equal(script_text(f), "");
	assert_int_equal(status_of(f, "script").counts.filtered, 600);
	wait_for(publisher_keep_seq(f->p) == 601);
}

static void
test_a_new_sink_begins_where_it_is_told(void **state)
{
	struct fixture *f = *state;
	const char *both =
	    "{\"name\":\"old\",\"type\":\"file\",\"path\":\"old\"},"
	    "{\"name\":\"new\",\"type\":\"file\",\"path\":\"new\",\"start\":\"now\"}";

	record(f, 3);
	start(f, both);
	record(f, 2);
	assert_int_equal(stop(f), 0);
	assert_numbers(read_file(f, f->dir, "old"), "1 2 3 4 5 ");
	assert_numbers(read_file(f, f->dir, "new"), "4 5 ");
	/* Only at its first start. */
	record(f, 1);
	start(f, both);
	assert_int_equal(stop(f), 0);
	assert_numbers(read_file(f, f->dir, "new"), "4 5 6 ");
}

static void
test_now_on_an_empty_trail(void **state)
{
	struct fixture *f = *state;

	start(f, "{\"name\":\"new\",\"type\":\"stdout\",\"start\":\"now\"}");
	record(f, 2);
	assert_int_equal(stop(f), 0);
	assert_numbers(script_text(f), "1 2 ");
}

/* ---- reload ---- */

static void
reload(struct fixture *f, const char *sinks)
{
	struct config *next = load_config(f, sinks);

	if (publisher_reload(f->p, next, &f->err) == -1)
		fail_msg("%s", f->err.msg);
	config_unref(f->config);
	f->config = next;
}

static void
test_a_reload_adds_changes_and_removes_sinks(void **state)
{
	struct fixture *f = *state;

	start(f, FILE_SINK);
	record(f, 2);
	wait_for(caught_up(f, "file"));
	reload(f, "{\"name\":\"file\",\"type\":\"file\",\"path\":\"moved.jsonl\"}," SCRIPT_SINK);
	record(f, 2);
	wait_for(caught_up(f, "file"));
	wait_for(caught_up(f, "script"));
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 ");
	assert_numbers(read_file(f, f->dir, "moved.jsonl"), "3 4 ");
	assert_numbers(script_text(f), "1 2 3 4 ");
	reload(f, SCRIPT_SINK);
	record(f, 1);
	wait_for(caught_up(f, "script"));
	wait_for(publisher_keep_seq(f->p) == 6);
	assert_int_equal(status_of(f, "file").waiting, UINT64_MAX);
	/* It comes back and goes on from its cursor. */
	reload(f, FILE_SINK "," SCRIPT_SINK);
	wait_for(caught_up(f, "file"));
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 5 ");
	assert_int_equal(script.opened, 1);
}

static void
test_a_reload_lets_all_that_leave_end_at_once(void **state)
{
	struct fixture *f = *state;

	record(f, 1);
	start(f, FILE_SINK "," SCRIPT_SINK ",{\"name\":\"other\",\"type\":\"stdout\"}");
	wait_for(caught_up(f, "script") && caught_up(f, "other"));
	script.close_together = 2;
	reload(f, FILE_SINK);
	wait_for(script.closed == 2);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count(own_log(f), "sink_stuck"), 0);
}

/* A cursor is of one thread: until that has returned, no other gets its name. */
static void
test_a_reload_waits_for_no_write_and_shares_no_cursor(void **state)
{
	struct fixture *f = *state;
	struct config *again = load_config(f, FILE_SINK "," SCRIPT_SINK);

	start(f, SCRIPT_SINK);
	record(f, 1);
	wait_for(caught_up(f, "script"));
	script.inside = false;
	script.frozen = true;
	record(f, 1);
	wait_for(script.inside);
	reload(f, FILE_SINK);
	assert_int_equal(count(own_log(f), "sink_stuck"), 0);
	wait_for((publisher_reap(f->p), count(own_log(f), "sink_stuck") == 1));
	assert_int_equal(publisher_keep_seq(f->p), 3);
	assert_int_equal(publisher_reload(f->p, again, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "sink script: it was removed, and has not returned"));
	assert_int_equal(publisher_status(f->p, NULL, 0), 1);
	script.frozen = false;
	wait_for(publisher_reload(f->p, again, &f->err) == 0);
	record(f, 1);
	wait_for(caught_up(f, "script"));
	assert_numbers(script_text(f), "1 2 3 ");
	assert_int_equal(script.opened, 2);
	assert_int_equal(stop(f), 0);
	assert_int_equal(count(own_log(f), "sink_stuck"), 1);
	config_unref(again);
}

static void
test_a_reload_changes_a_filter(void **state)
{
	struct fixture *f = *state;

	f->intents = UINT64_MAX;
	start(f, SCRIPT_SINK);
	record(f, 2);
	wait_for(caught_up(f, "script"));
	reload(f, "{\"name\":\"script\",\"type\":\"stdout\",\"intents\":true}");
	/* The order is taken before the next batch is read. */
	record(f, 2);
	wait_for(caught_up(f, "script"));
	assert_numbers(script_text(f), "3 4 ");
	assert_int_equal(script.opened, 1);
}

/* What was read and made ready is made anew for the new place, and comes once. */
static void
test_a_reload_changes_the_format_of_what_waits(void **state)
{
	struct fixture *f = *state;

	script.takes = 1;
	record(f, 5);
	start(f, SCRIPT_SINK);
	wait_for(count(script_told(f), " ") > 0);
	script.down = true;
	wait_for(!status_of(f, "script").up);
	reload(f, "{\"name\":\"script\",\"type\":\"stdout\",\"format\":\"ecs\"}");
	wait_for(script.opened == 2);
	script.down = false;
	script.takes = 0;
	wait_for(caught_up(f, "script"));
	assert_int_equal(strncmp(script_told(f), "1<0 2<1 3<2 4<3 5<4 ", 20), 0);
	assert_int_equal(count(f->text, " "), 5);
	assert_int_equal(strncmp(delivered_line(f, 5), "{\"ecs\":{", 8), 0);
	check_ledger(f, "script", 0);
}

static void
test_a_reload_helps_a_sink_that_is_down_at_once(void **state)
{
	struct fixture *f = *state;

	start(f, "{\"name\":\"file\",\"type\":\"file\",\"path\":\"no/such/folder\"}");
	record(f, 2);
	wait_for(!status_of(f, "file").up);
	assert_non_null(strstr(status_of(f, "file").last_error, "no/such"));
	reload(f, FILE_SINK);
	wait_for(caught_up(f, "file"));
	assert_numbers(read_file(f, f->dir, "audit.jsonl"), "1 2 ");
}

static void
test_a_reload_that_fails_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct config *next = load_config(
	    f, "{\"name\":\"a\",\"type\":\"stdout\"},{\"name\":\"b\",\"type\":\"stdout\"}");
	char path[TEMPDIR_SIZE + 32];

	start(f, FILE_SINK);
	snprintf(path, sizeof(path), "%s/cursor.b", f->trail);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(publisher_reload(f->p, next, &f->err), -1);
	assert_non_null(strstr(f->err.msg, "sink b"));
	assert_non_null(strstr(f->err.msg, "cursor.b"));
	record(f, 1);
	wait_for(caught_up(f, "file"));
	assert_int_equal(publisher_status(f->p, NULL, 0), 1);
	wait_for(publisher_keep_seq(f->p) == 2);
	config_unref(next);
}

static void
test_a_reload_loads_no_module(void **state)
{
	struct fixture *f = *state;
	struct config *next = load_config(
	    f, SCRIPT_SINK ",{\"name\":\"far\",\"type\":\"http\",\"url\":\"https://a\"}");

	start(f, FILE_SINK);
	assert_int_equal(publisher_reload(f->p, next, &f->err), -1);
	assert_string_equal(
	    f->err.msg, "sink far: the module of type \"http\" is loaded at a start only: restart");
	assert_int_equal(publisher_status(f->p, NULL, 0), 1);
	config_unref(next);
}

static void
test_reopen_reaches_the_sinks(void **state)
{
	struct fixture *f = *state;

	start(f, SCRIPT_SINK);
	record(f, 1);
	wait_for(caught_up(f, "script"));
	publisher_reopen(f->p);
	wait_for(script.reopened == 1);
}

/* ---- cursors: traps 11, 13, 15 ---- */

static void
change_cursor(struct fixture *f, off_t at, const char *bytes, size_t n)
{
	char path[TEMPDIR_SIZE + 32];
	int fd;

	snprintf(path, sizeof(path), "%s/cursor.script", f->trail);
	assert_true((fd = open(path, O_WRONLY)) != -1);
	assert_int_equal(pwrite(fd, bytes, n, at), n);
	close(fd);
}

/* ---- filters ---- */

#define FAILURES "{\"name\":\"script\",\"type\":\"stdout\",\"filter\":{\"outcomes\":[\"fail*\"]}}"

static void
test_a_filter_holds_back_what_has_no_pattern(void **state)
{
	struct fixture *f = *state;

	f->failures = 0x54; /* 3, 5 and 7 */
	record(f, 8);
	start(f, FAILURES);
	wait_for(caught_up(f, "script"));
	assert_string_equal(script_told(f), "3<0 5<3 7<5 ");
	assert_int_equal(status_of(f, "script").counts.filtered, 5);
	check_ledger(f, "script", 0);
	/* Such a sink tells from a gap that which is held back. */
	assert_int_equal(count(script_text(f), ",\"delivery\":{\"hash\":\""), 3);
	wait_for(publisher_keep_seq(f->p) == 9);
}

/* Each delivery names the one before it, as often as it is made anew. */
static void
check_chain(const char *told)
{
	uint64_t last = 0, seq, prev;
	char *p;

	for (; *told != '\0'; told = p + 1) {
		seq = strtoull(told, &p, 10);
		prev = strtoull(strchr(p, '<') + 1, &p, 10);
		if (seq > last && prev != last)
			fail_msg("%" PRIu64 " names %" PRIu64 ", but %" PRIu64 " came before it",
			    seq, prev, last);
		assert_true(prev < seq);
		last = seq > last ? seq : last;
	}
}

/* Each number is in one place, whenever one looks. */
static void
check_sum(struct fixture *f)
{
	struct publisher_sink_status s = status_of(f, "script");

	assert_int_equal(s.due, s.counts.delivered + s.counts.filtered + s.counts.rejected +
				    s.counts.missing + s.waiting);
}

static void
test_prev_is_right_whatever_fails(void **state)
{
	struct fixture *f = *state;

	f->failures = 0x15b;
	script_ops.flush = script_flush;
	script.rejects_odd = script.rejects_stubs = true;
	start(f, FAILURES);
	for (unsigned i = 0; i < 200; i++) {
		script.flush_fails = i % 40 == 7;
		script.takes = i % 3 + 1;
		record(f, 1 + i % 9);
		check_sum(f);
		if (i % 50 == 49) {
			script.flush_fails = false;
			stop_within(f, 0);
			start(f, FAILURES);
		}
	}
	script.takes = 0;
	script.flush_fails = false;
	wait_for(caught_up(f, "script"));
	check_sum(f);
	assert_true(count(script_told(f), " ") > 300);
	check_chain(f->text);
}

/* ---- once more ---- */

static void
test_a_sink_is_sent_back_while_it_runs(void **state)
{
	struct fixture *f = *state;
	uint64_t first;

	record(f, 4);
	start_and_catch_up(f);
	assert_int_equal(publisher_replay(f->p, "script", "3", &first, &f->err), 0);
	assert_int_equal(first, 3);
	wait_for(count(script_told(f), " ") == 6);
	assert_string_equal(f->text, "1<0 2<1 3<2 4<3 3<0 4<3 ");
	assert_int_equal(count(own_log(f), "\"sink_replay\""), 1);
	/* Counted once. */
	check_ledger(f, "script", 0);
	assert_int_equal(status_of(f, "script").counts.delivered, 4);
	assert_int_equal(publisher_replay(f->p, "script", "5", &first, &f->err), -1);
	assert_string_equal(f->err.msg, "5: no event is there yet");
	assert_int_equal(publisher_replay(f->p, "script", "soon", &first, &f->err), -1);
	assert_int_equal(publisher_replay(f->p, "other", "1", &first, &f->err), -1);
	assert_string_equal(f->err.msg, "there is no sink \"other\"");
}

static void
test_a_replay_skips_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t first;

	script.down = true;
	record(f, 4);
	start(f, SCRIPT_SINK);
	assert_int_equal(publisher_replay(f->p, "script", "3", &first, &f->err), -1);
	assert_string_equal(
	    f->err.msg, "3: the sink is at event 0, and gets what follows without a replay");
	script.down = false;
	wait_for(caught_up(f, "script"));
	assert_int_equal(publisher_replay(f->p, "script", "4", &first, &f->err), 0);
	assert_int_equal(stop(f), 0);
	assert_string_equal(script_told(f), "1<0 2<1 3<2 4<3 4<0 ");
}

/* Whatever it is asked for: no event is safely done with. */
static void
replay_goes_back_to_the_first(struct fixture *f, const char *from)
{
	uint64_t first;

	assert_int_equal(publisher_replay(f->p, "script", from, &first, &f->err), 0);
	wait_for(strstr(own_log(f), "sink_replay") != NULL);
	assert_non_null(strstr(own_log(f), "events from 1 on are delivered again"));
}

static void
test_a_replay_skips_nothing_that_a_flush_took_back(void **state)
{
	struct fixture *f = *state;

	script_ops.flush = script_flush;
	script.flush_fails = true;
	record(f, 3);
	start_and_catch_up(f);
	replay_goes_back_to_the_first(f, "3");
	assert_int_equal(publisher_keep_seq(f->p), 1);
	script.flush_fails = false;
	wait_for(publisher_keep_seq(f->p) == 4);
	assert_int_equal(stop(f), 0);
}

static void
test_a_replay_skips_nothing_that_is_not_recorded(void **state)
{
	struct fixture *f = *state;

	script.rejects_odd = true;
	atomic_store(&f->recorded, 0);
	record(f, 4);
	start_and_catch_up(f);
	replay_goes_back_to_the_first(f, "4");
	assert_int_equal(stop(f), 0);
}

static void
test_what_is_to_be_replayed_is_kept_while_a_sink_leaves(void **state)
{
	struct fixture *f = *state;
	uint64_t first;

	record(f, 4);
	start(f, SCRIPT_SINK);
	wait_for(publisher_keep_seq(f->p) == 5);
	record(f, 4);
	wait_for(caught_up(f, "script"));
	script.watched = f->p;
	script.kept_at_close = 0;
	assert_int_equal(publisher_replay(f->p, "script", "3", &first, &f->err), 0);
	wait_for(script.kept_at_close > 0);
	assert_int_equal(script.kept_at_close, 3);
	script.watched = NULL;
	assert_int_equal(stop(f), 0);
}

/* Neither a kill nor a sink that is down forgets it. */
static void
test_a_replay_outlives_the_process(void **state)
{
	struct fixture *f = *state;
	uint64_t first, seq = 0;

	record(f, 4);
	start_and_catch_up(f);
	script.down = true;
	assert_int_equal(publisher_replay(f->p, "script", "1", &first, &f->err), 0);
	wait_for(!status_of(f, "script").up);
	assert_int_equal(publisher_keep_seq(f->p), 1);
	stop_within(f, 0);
	script.down = false;
	assert_true(publisher_position(trail_dirfd(f->t), "script", &seq));
	assert_int_equal(seq, 0);
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_string_equal(script_told(f), "1<0 2<1 3<2 4<3 1<0 2<1 3<2 4<3 ");
}

static void
test_a_sink_is_sent_back_while_it_stands_still(void **state)
{
	struct fixture *f = *state;
	uint64_t first;

	record(f, 4);
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_int_equal(publisher_rewind(trail_dirfd(f->t), "script", "3", &first, &f->err), 0);
	assert_int_equal(first, 3);
	assert_int_equal(publisher_rewind(trail_dirfd(f->t), "script", "4", &first, &f->err), -1);
	assert_string_equal(
	    f->err.msg, "4: the sink is at event 2, and gets what follows without a replay");
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_string_equal(script_told(f), "1<0 2<1 3<2 4<3 3<0 4<3 ");
	assert_int_equal(count(own_log(f), "cursor_foreign"), 0);
	assert_int_equal(
	    publisher_rewind(trail_dirfd(f->t), "script", "2020-01-01", &first, &f->err), 0);
	assert_int_equal(first, 1);
}

/* ---- cursors of former versions ---- */

/* One of a former version, which did not say what was delivered. */
static void
test_an_old_cursor_is_read(void **state)
{
	struct fixture *f = *state;
	unsigned char slot[512] = "ktcursr1\x09";
	uint64_t seq = 2;
	uint32_t sum;

	record(f, 3);
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	memcpy(slot + 16, &seq, 8);
	memcpy(slot + 24, trail_log_id(f->t), 33);
	memcpy(slot + 57, trail_boot_id(f->t), 33);
	sum = crc32c(0, slot, 508);
	memcpy(slot + 508, &sum, 4);
	change_cursor(f, 512, (const char *)slot, 512);
	buf_consume(&script.told, buf_size(&script.told));
	record(f, 1);
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_string_equal(script_told(f), "3<0 4<3 ");
}

static void
test_a_cursor_needs_no_new_room(void **state)
{
	struct fixture *f = *state;
	struct stat before, after;
	char path[TEMPDIR_SIZE + 32];

	start(f, SCRIPT_SINK);
	snprintf(path, sizeof(path), "%s/cursor.script", f->trail);
	assert_int_equal(stat(path, &before), 0);
	record(f, 10);
	assert_int_equal(stop(f), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_size, 1024);
	assert_int_equal(after.st_size, before.st_size);
	assert_int_equal(after.st_ino, before.st_ino);
	assert_int_equal(after.st_blocks, before.st_blocks);
	assert_int_equal(after.st_mode & 0777, 0600);
}

static void
test_a_torn_slot_leaves_the_other(void **state)
{
	for (off_t at = 0; at < 1024; at += 512) {
		struct fixture *f = *state;
		char *got;

		start(f, SCRIPT_SINK);
		for (int i = 0; i < 4; i++) {
			record(f, 1);
			wait_for(caught_up(f, "script"));
		}
		assert_int_equal(stop(f), 0);
		change_cursor(f, at + 20, "torn", 4);
		buf_consume(&script.text, buf_size(&script.text));
		start(f, SCRIPT_SINK);
		record(f, 1);
		assert_int_equal(stop(f), 0);
		/* At most the last step again. */
		got = numbers(script_text(f));
		assert_true(strtoul(got, NULL, 10) + 1 >= trail_last_seq(f->t));
		free(got);
		buf_consume(&script.text, buf_size(&script.text));
	}
}

static void
test_a_damaged_cursor_delivers_all_again(void **state)
{
	struct fixture *f = *state;

	start(f, SCRIPT_SINK);
	record(f, 3);
	assert_int_equal(stop(f), 0);
	change_cursor(f, 8, "xxxxxxxx", 8);
	change_cursor(f, 520, "xxxxxxxx", 8);
	buf_consume(&script.text, buf_size(&script.text));
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_numbers(script_text(f), "1 2 3 ");
	assert_int_equal(count(own_log(f), "\"cursor_damaged\""), 1);
	/* And it is mended. */
	buf_consume(&script.text, buf_size(&script.text));
	start(f, SCRIPT_SINK);
	assert_int_equal(stop(f), 0);
	assert_string_equal(script_text(f), "");
}

static void
empty_trail(struct fixture *f)
{
	DIR *dir = opendir(f->trail);
	struct dirent *entry;

	while ((entry = readdir(dir)) != NULL)
		if (strncmp(entry->d_name, "cursor.", 7) != 0)
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

/* A new log in an old folder: its numbers begin again, and none may be skipped. */
static void
test_a_cursor_of_another_log_delivers_all(void **state)
{
	struct fixture *f = *state;

	for (unsigned now = 2; now <= 6; now += 2) {
		start(f, SCRIPT_SINK);
		record(f, 4);
		assert_int_equal(stop(f), 0);
		trail_close(f->t, true);
		empty_trail(f);
		open_trail(f);
		buf_consume(&script.text, buf_size(&script.text));
		record(f, now);
		start(f, SCRIPT_SINK);
		assert_int_equal(stop(f), 0);
		assert_numbers(script_text(f), now == 2	  ? "1 2 "
					       : now == 4 ? "1 2 3 4 "
							  : "1 2 3 4 5 6 ");
		assert_true(count(own_log(f), "\"cursor_foreign\"") > 0);
	}
}

static void
test_a_cursor_that_no_sink_names_is_reported(void **state)
{
	struct fixture *f = *state;

	start(f, SCRIPT_SINK);
	record(f, 1);
	assert_int_equal(stop(f), 0);
	start(f, FILE_SINK);
	wait_for(publisher_keep_seq(f->p) == 2);
	assert_int_equal(count(own_log(f), "\"cursor_unused\""), 1);
	assert_non_null(strstr(f->text, "cursor.script"));
}

static void
damage_line(struct fixture *f, const char *id)
{
	char path[TEMPDIR_SIZE + 64], *at;
	int fd;

	at = strstr(read_file(f, f->trail, "00000000000000000001.jsonl"), id);
	assert_non_null(at);
	snprintf(path, sizeof(path), "%s/00000000000000000001.jsonl", f->trail);
	assert_true((fd = open(path, O_WRONLY)) != -1);
	assert_int_equal(pwrite(fd, "X", 1, at - f->text + 2), 1);
	close(fd);
}

/* Trap 15: neither a loop nor a silent stop. */
static void
test_a_damaged_line_is_stepped_over_and_named(void **state)
{
	struct fixture *f = *state;

	record(f, 5);
	damage_line(f, "\"id\":\"3\"");
	start_and_catch_up(f);
	assert_numbers(script_text(f), "1 2 4 5 ");
	assert_non_null(strstr(own_log(f), "events 3 to 3"));
	wait_for(publisher_keep_seq(f->p) == 6);
	assert_int_equal(status_of(f, "script").counts.missing, 1);
	check_ledger(f, "script", 0);
}

static void
test_a_damaged_last_line_is_stepped_over_too(void **state)
{
	struct fixture *f = *state;

	record(f, 3);
	damage_line(f, "\"id\":\"3\"");
	start_and_catch_up(f);
	assert_numbers(script_text(f), "1 2 ");
	assert_non_null(strstr(own_log(f), "events 3 to 3"));
	assert_int_equal(status_of(f, "script").counts.missing, 1);
	check_ledger(f, "script", 0);
	assert_int_equal(stop(f), 0);
}

/* ---- figures ---- */

/* What waited at the start is due in the second life, and in the third under the same name. */
static void
test_the_equation_holds_in_every_life(void **state)
{
	struct fixture *f = *state;

	script.down = true;
	start(f, SCRIPT_SINK);
	record(f, 5);
	wait_for(!status_of(f, "script").up);
	check_ledger(f, "script", 0);
	assert_int_equal(stop_within(f, 0), 5);
	script.down = false;
	script.rejects_odd = true;
	start_and_catch_up(f);
	check_ledger(f, "script", 0);
	assert_int_equal(stop(f), 0);
	start(f, SCRIPT_SINK);
	record(f, 2);
	wait_for(caught_up(f, "script"));
	check_ledger(f, "script", 5);
	reload(f, "");
	reload(f, SCRIPT_SINK);
	record(f, 2);
	wait_for(caught_up(f, "script"));
	check_ledger(f, "script", 7);
}

static void
test_the_gauges_follow_the_sinks(void **state)
{
	struct fixture *f = *state;
	struct buf text = BUF_INIT;

	script.down = true;
	start(f, SCRIPT_SINK);
	record(f, 3);
	wait_for(!status_of(f, "script").up);
	publisher_set_gauges(f->p);
	assert_int_equal(metrics_value(f->metrics, METRIC_SINK_LAG_EVENTS, 0), 3);
	assert_true(metrics_value(f->metrics, METRIC_SINK_UP, 0) < 0.5);
	assert_true(metrics_value(f->metrics, METRIC_SINK_LAG_SECONDS, 0) > 0);
	assert_true(metrics_value(f->metrics, METRIC_SINK_ATTEMPTS,
			metrics_attempt(0, METRIC_ATTEMPT_RETRY)) > 0);
	reload(f, "");
	publisher_set_gauges(f->p);
	assert_int_equal(metrics_render(f->metrics, METRICS_TEXT_0_0_4, &text), 0);
	assert_int_equal(buf_append(&text, "", 1), 0);
	assert_null(strstr(text.mem, "keytrail_sink_up{"));
	assert_null(strstr(text.mem, "keytrail_sink_lag_events{"));
	buf_fini(&text);
}

static double
attempts(struct fixture *f, enum metric_attempt result)
{
	return metrics_value(f->metrics, METRIC_SINK_ATTEMPTS, metrics_attempt(0, result));
}

static void
test_each_attempt_is_counted(void **state)
{
	struct fixture *f = *state;
	unsigned figure = metrics_figure(f->metrics, 0, "deliveries");
	struct publisher_sink_status s;

	script.takes = 2;
	script.rejects_odd = true;
	record(f, 3);
	start_and_catch_up(f);
	/* 1 is refused, its stub and 2 are taken; 3 is refused, then its stub is taken. */
	assert_int_equal(attempts(f, METRIC_ATTEMPT_REJECT), 2);
	assert_int_equal(attempts(f, METRIC_ATTEMPT_RETRY), 1);
	assert_int_equal(attempts(f, METRIC_ATTEMPT_OK), 1);
	assert_int_equal(metrics_value(f->metrics, METRIC_SINK_BATCH_EVENTS, 0), 4);
	assert_int_equal(metrics_value(f->metrics, METRIC_SINK_DELIVERY_SECONDS, 0), 4);
	assert_int_equal(metrics_value(f->metrics, METRIC_SINK_BYTES, 0),
	    strlen(script_text(f)) - 3 /* newlines */);
	wait_for(publisher_keep_seq(f->p) == 4);
	s = status_of(f, "script");
	assert_int_equal(s.nfigures, 1);
	assert_string_equal(s.figures[0].name, "deliveries");
	publisher_set_gauges(f->p);
	assert_true(metrics_value(f->metrics, METRIC_SINK_FIGURE, figure) >= 2);
}

/* The first line of a thread's file that begins so, or "". */
static void
task_line(const char *task, const char *name, const char *begin, char line[128])
{
	char path[300];
	FILE *file;

	line[0] = '\0';
	snprintf(path, sizeof(path), "/proc/self/task/%s/%s", task, name);
	if ((file = fopen(path, "r")) == NULL)
		return;
	while (fgets(line, 128, file) != NULL && strncmp(line, begin, strlen(begin)) != 0)
		line[0] = '\0';
	fclose(file);
}

/* How often the sinks' threads have gone to sleep. */
static unsigned long
sleeps(unsigned *threads)
{
	static const char key[] = "voluntary_ctxt_switches:";
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned long sum = 0;
	char line[128];

	for (*threads = 0; (entry = readdir(dir)) != NULL;) {
		task_line(entry->d_name, "comm", "sink ", line);
		if (line[0] == '\0')
			continue;
		++*threads;
		task_line(entry->d_name, "status", key, line);
		sum += strtoul(line + sizeof(key) - 1, NULL, 10);
	}
	closedir(dir);
	return sum;
}

static bool
sleep_on(void)
{
	unsigned threads;
	unsigned long before = sleeps(&threads);

	assert_int_equal(threads, 2);
	usleep(300000);
	return sleeps(&threads) - before <= 2;
}

static void
test_an_idle_sink_sleeps(void **state)
{
	struct fixture *f = *state;

	start(f, FILE_SINK "," SCRIPT_SINK);
	record(f, 1);
	wait_for(publisher_keep_seq(f->p) == 2);
	wait_for(sleep_on());
}

/* A writer as fast as it can, a sink that fails now and then, and main that looks all the time. */
static void
test_under_load_every_event_comes_once_and_in_order(void **state)
{
	struct fixture *f = *state;
	uint64_t last = 0;
	char *got, *p;

	start(f, SCRIPT_SINK "," FILE_SINK);
	for (unsigned i = 0; i < 300; i++) {
		script.down = i % 50 == 7;
		record(f, 1 + i % 40);
		publisher_set_gauges(f->p);
		assert_true(publisher_keep_seq(f->p) <= trail_durable_seq(f->t) + 1);
		if (i % 100 == 50)
			reload(f, FILE_SINK "," SCRIPT_SINK);
	}
	script.down = false;
	wait_for(caught_up(f, "script"));
	wait_for(caught_up(f, "file"));
	got = p = numbers(script_text(f));
	for (uint64_t seq; (seq = strtoul(p, &p, 10)) != 0; last = seq)
		assert_int_equal(seq, last + 1);
	assert_int_equal(last, trail_durable_seq(f->t));
	free(got);
	assert_int_equal(count(read_file(f, f->dir, "audit.jsonl"), "\n"), last);
	check_ledger(f, "script", 0);
	check_ledger(f, "file", 0);
	assert_int_equal(stop(f), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_events_are_delivered_in_order_as_they_become_durable),
		TEST(test_many_events_make_few_deliveries),
		TEST(test_a_clean_stop_repeats_nothing),
		TEST(test_the_trail_is_kept_up_to_the_synced_cursor),
		TEST(test_without_sinks_nothing_is_kept),
		TEST(test_a_dead_sink_stops_no_other_and_loses_nothing),
		TEST(test_a_sink_that_cannot_be_opened_is_down),
		TEST(test_a_stub_stands_for_a_rejected_event),
		TEST(test_a_cursor_waits_until_what_was_rejected_is_recorded),
		TEST(test_a_rejected_stub_is_left_out),
		TEST(test_a_retry_goes_on_behind_what_was_taken),
		TEST(test_a_line_goes_with_its_hash_and_with_who_came_before),
		TEST(test_a_stub_says_what_is_fixed),
		TEST(test_prev_is_kept_over_restarts_and_rewinds),
		TEST(test_a_filter_holds_back_what_has_no_pattern),
		TEST(test_prev_is_right_whatever_fails),
		TEST(test_a_sink_is_sent_back_while_it_runs),
		TEST(test_a_replay_skips_nothing),
		TEST(test_a_replay_skips_nothing_that_a_flush_took_back),
		TEST(test_a_replay_skips_nothing_that_is_not_recorded),
		TEST(test_what_is_to_be_replayed_is_kept_while_a_sink_leaves),
		TEST(test_a_replay_outlives_the_process),
		TEST(test_a_sink_is_sent_back_while_it_stands_still),
		TEST(test_an_old_cursor_is_read),
		TEST(test_what_a_failed_flush_took_back_comes_again),
		TEST(test_a_sink_that_is_busy_is_not_down),
		TEST(test_a_sink_that_is_busy_takes_orders),
		TEST(test_nothing_is_delivered_while_a_flush_does_not_know),
		TEST(test_what_no_flush_knew_at_the_stop_comes_again),
		TEST(test_a_stop_in_an_outage_keeps_and_counts_what_waits),
		TEST(test_a_stop_waits_for_a_sink_that_comes_back_in_time),
		TEST(test_a_killed_process_loses_nothing),
		TEST(test_intents_are_delivered_only_when_asked_for),
		TEST(test_a_batch_of_intents_alone_is_passed),
		TEST(test_a_new_sink_begins_where_it_is_told),
		TEST(test_now_on_an_empty_trail),
		TEST(test_a_reload_adds_changes_and_removes_sinks),
		TEST(test_a_reload_lets_all_that_leave_end_at_once),
		TEST(test_a_reload_waits_for_no_write_and_shares_no_cursor),
		TEST(test_a_reload_changes_a_filter),
		TEST(test_a_reload_changes_the_format_of_what_waits),
		TEST(test_a_reload_helps_a_sink_that_is_down_at_once),
		TEST(test_a_reload_that_fails_changes_nothing),
		TEST(test_a_reload_loads_no_module),
		TEST(test_reopen_reaches_the_sinks),
		TEST(test_a_cursor_needs_no_new_room),
		TEST(test_a_torn_slot_leaves_the_other),
		TEST(test_a_damaged_cursor_delivers_all_again),
		TEST(test_a_cursor_of_another_log_delivers_all),
		TEST(test_a_cursor_that_no_sink_names_is_reported),
		TEST(test_a_damaged_line_is_stepped_over_and_named),
		TEST(test_a_damaged_last_line_is_stepped_over_too),
		TEST(test_the_equation_holds_in_every_life),
		TEST(test_the_gauges_follow_the_sinks),
		TEST(test_each_attempt_is_counted),
		TEST(test_an_idle_sink_sleeps),
		TEST(test_under_load_every_event_comes_once_and_in_order),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
