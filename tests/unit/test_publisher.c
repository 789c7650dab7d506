#include "keytrail/publisher.h"

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/sink.h"
#include "keytrail/trail.h"
#include "tempdir.h"

#include <dirent.h>
#include <fcntl.h>
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
	unsigned deliveries;
	_Atomic bool down;    /* RETRY */
	_Atomic bool stalled; /* RETRY at the deadline */
	_Atomic bool cannot_open;
	_Atomic bool rejects_odd; /* REJECT what has an odd number */
	_Atomic bool flush_fails;
	_Atomic unsigned reopened, opened;
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
}

static bool
is_odd(struct slice line)
{
	struct trail_member member;

	return trail_parse_line(line, &member) == 0 && member.seq % 2 == 1;
}

static void
script_take(const struct slice *lines, size_t n)
{
	pthread_mutex_lock(&script.lock);
	for (size_t i = 0; i < n; i++) {
		buf_append_slice(&script.text, lines[i]);
		buf_append(&script.text, "\n", 1);
	}
	script.deliveries++;
	pthread_mutex_unlock(&script.lock);
}

static enum sink_result
script_deliver(
    void *state, const struct slice *lines, size_t n, int64_t deadline_ns, struct err *err)
{
	(void)state;
	if (script.down) {
		err_set(err, "is down");
		return SINK_RETRY;
	}
	while (script.stalled && clock_mono_ns() < deadline_ns)
		usleep(1000);
	if (script.stalled) {
		err_set(err, "stands still");
		return SINK_RETRY;
	}
	if (script.rejects_odd && is_odd(lines[0])) {
		err_set(err, "is odd");
		return SINK_REJECT;
	}
	script_take(lines, n);
	return SINK_OK;
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
	(void)deadline_ns;
	return script.flush_fails ? err_set(err, "cannot be flushed") : 0;
}

static struct sink_ops script_ops = {
	.type = "stdout",
	.open = script_open,
	.close = script_close,
	.deliver = script_deliver,
	.reopen = script_reopen,
};

/* Instead of the one in sink.c. */
const struct sink_ops *
sink_ops_of(enum config_sink_type type)
{
	return type == CONFIG_SINK_FILE ? &sink_file_ops : &script_ops;
}

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
	uint64_t intents;
	char text[TEXT_MAX];
};

#define FILE_SINK   "{\"name\":\"file\",\"type\":\"file\",\"path\":\"audit.jsonl\"}"
#define SCRIPT_SINK "{\"name\":\"script\",\"type\":\"stdout\"}"

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
	script.text = BUF_INIT;
	script.deliveries = 0;
	script.reopened = 0;
	script.opened = 0;
	script.down = false;
	script.stalled = false;
	script.cannot_open = false;
	script.rejects_odd = false;
	script.flush_fails = false;
	script_ops.flush = NULL;
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
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

static void
start(struct fixture *f, const char *sinks)
{
	struct publisher_opts opts = {
		.dirfd = trail_dirfd(f->t), .metrics = f->metrics, .shard = f->shard, .log = f->log
	};

	f->config = load_config(f, sinks);
	opts.config = f->config;
	if (publisher_start(&opts, &f->p, &f->err) == -1)
		fail_msg("%s", f->err.msg);
}

/* n events, the i-th an intent where `intents` has bit i % 64, the others with the same words in a
 * place where they mean nothing; durable, and the sinks are told. */
static void
record(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char line[200];
		uint64_t seq, next = trail_last_seq(f->t) + 1;
		int len = snprintf(line, sizeof(line),
		    "{\"action\":\"test\",\"id\":\"%" PRIu64 "\"%s", next,
		    f->intents >> i % 64 & 1 ? ",\"kind\":\"intent\""
					     : ",\"of\":{\"kind\":\"intent\"}");

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
	start(f, SCRIPT_SINK);
	wait_for(caught_up(f, "script"));
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
test_a_rejected_event_goes_to_the_quarantine(void **state)
{
	struct fixture *f = *state;

	script.rejects_odd = true;
	record(f, 1);
	start(f, SCRIPT_SINK);
	wait_for(caught_up(f, "script"));
	record(f, 1);
	wait_for(caught_up(f, "script"));
	record(f, 1);
	wait_for(caught_up(f, "script"));
	assert_numbers(script_text(f), "2 ");
	assert_numbers(read_file(f, f->trail, "quarantine.script.jsonl"), "1 3 ");
	assert_int_equal(status_of(f, "script").counts.rejected, 2);
	check_ledger(f, "script", 0);
	assert_int_equal(metrics_value(f->metrics, METRIC_SINK_REJECTED, 0), 2);
	assert_int_equal(count(own_log(f), "\"sink_rejected\""), 2);
	assert_int_equal(stop(f), 0);
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
	start(f, SCRIPT_SINK);
	wait_for(caught_up(f, "script"));
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
	start(f, SCRIPT_SINK);
	wait_for(caught_up(f, "script"));
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
	start(f, SCRIPT_SINK);
	wait_for(caught_up(f, "script"));
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
	start(f, SCRIPT_SINK);
	wait_for(caught_up(f, "script"));
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
	assert_true(metrics_value(f->metrics, METRIC_SINK_RETRIES, 0) > 0);
	reload(f, "");
	publisher_set_gauges(f->p);
	assert_int_equal(metrics_render(f->metrics, METRICS_TEXT_0_0_4, &text), 0);
	assert_int_equal(buf_append(&text, "", 1), 0);
	assert_null(strstr(text.mem, "keytrail_sink_up{"));
	assert_null(strstr(text.mem, "keytrail_sink_lag_events{"));
	buf_fini(&text);
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
		TEST(test_a_rejected_event_goes_to_the_quarantine),
		TEST(test_what_a_failed_flush_took_back_comes_again),
		TEST(test_a_stop_in_an_outage_keeps_and_counts_what_waits),
		TEST(test_a_stop_waits_for_a_sink_that_comes_back_in_time),
		TEST(test_a_killed_process_loses_nothing),
		TEST(test_intents_are_delivered_only_when_asked_for),
		TEST(test_a_batch_of_intents_alone_is_passed),
		TEST(test_a_new_sink_begins_where_it_is_told),
		TEST(test_now_on_an_empty_trail),
		TEST(test_a_reload_adds_changes_and_removes_sinks),
		TEST(test_a_reload_changes_a_filter),
		TEST(test_a_reload_helps_a_sink_that_is_down_at_once),
		TEST(test_a_reload_that_fails_changes_nothing),
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
		TEST(test_an_idle_sink_sleeps),
		TEST(test_under_load_every_event_comes_once_and_in_order),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
