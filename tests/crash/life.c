/*
 * life DIR KEY CALLS RING_SIZE MAX_SIZE EVENT: one life of a trail: recover, CALLS calls by each of two
 * producers, a clean end.  EVENT is what befalls it: "" nothing; "full": again and again the disk is,
 * and who has no room is served and counted; "roll": every other successor of a segment cannot be made,
 * and is taken back at once or a while later; "renew": the log is given up for a new one; else a file
 * that is copied between its lines, before it begins and while it lasts.  What the world outside gets
 * to know is marked in the trace (record.c):
 *
 *	forward G ID	the call has been forwarded; G: a, d or i, its guarantee
 *	lost G ID	it has been counted as lost
 *	answer G ID	it has been answered
 *	durable N	a reader may have seen line N
 *
 * At the end standard output has what recovery found, each line as a reader gets it, and verify's
 * verdicts.
 */
#include "data/tally.h"
#include "keytrail/clock.h"
#include "keytrail/journal.h"
#include "keytrail/ledger.h"
#include "keytrail/verify.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PRODUCERS	2
#define IN_FLIGHT	4
#define LINE_MAX_	1024
#define SLOT_SIZE	2048
#define LOSSES_MAX	8 /* of a producer, then it waits for room */
#define FULL_EACH	60
#define COPY_EACH	40
#define CHECKPOINT_EACH 24

struct call {
	char id[48];
	char guarantee;
	bool claimed;
	unsigned slot;
	uint64_t wait;
	enum { FREE, INTENDED, FORWARDED, RECORDED } step;
};

struct producer {
	struct life *life;
	struct ring *ring;
	atomic_uint calls;
	unsigned random;
	struct tally losses;
	atomic_uint lost; /* and not told of yet */
	struct call in_flight[IN_FLIGHT];
};

struct life {
	struct trail *trail;
	struct trail_recovery recovery;
	struct ledger *ledger;
	struct journal *journal;
	struct journal_renewal renewal;
	const char *event;
	atomic_bool full;
	uint64_t next; /* durable number from which on something befalls it */
	struct producer producers[PRODUCERS];
	atomic_uint ended;
	struct log *log;
	struct metrics *metrics;
	void (*mark)(const char *);
	void (*fail_syncs)(unsigned); /* of a directory, by the thread that calls it */
	unsigned rolls;
};

static void
need(bool good, const struct err *err)
{
	if (good)
		return;
	fprintf(stderr, "life: %s\n", err->msg);
	exit(1);
}

static void
mark(const struct life *l, const char *what, char guarantee, const char *id)
{
	char text[80];

	snprintf(text, sizeof(text), "%s %c %s", what, guarantee, id);
	if (l->mark != NULL)
		l->mark(text);
}

static void
pause_us(unsigned us)
{
	nanosleep(&(struct timespec){ 0, us * 1000L }, NULL);
}

/* ---- producers ---- */

static unsigned
random_below(struct producer *p, unsigned n)
{
	return (unsigned)rand_r(&p->random) % n;
}

static size_t
render(struct producer *p, const struct call *c, const char *members, char *out)
{
	return (size_t)snprintf(out, LINE_MAX_,
	    "{\"action\":\"kms.secrets.wrap\",\"filler\":\"%0*d\",\"id\":\"%s\",%s",
	    (int)random_below(p, 700) + 1, 0, c->id, members);
}

static uint64_t
commit(struct producer *p, const struct call *c, const char *members)
{
	size_t n = render(p, c, members, ring_line(p->ring, LINE_MAX_));
	uint64_t end = ring_commit(p->ring, LINE_MAX_, n, c->guarantee == 'a' ? 0 : RING_DURABLE);

	if (c->guarantee == 'a')
		journal_kick_async(p->life->journal);
	else
		journal_kick(p->life->journal);
	return end;
}

static void
publish(struct producer *p, struct call *c)
{
	size_t n = render(p, c, "\"outcome\":\"unknown\",\"reason\":{\"reasonType\":\"restart\"}",
	    ring_slot_line(p->ring, c->slot));

	ring_slot_publish(p->ring, c->slot, n);
}

static void
forward(struct producer *p, struct call *c)
{
	mark(p->life, "forward", c->guarantee, c->id);
	c->step = FORWARDED;
}

/* What can wait for room does; the others are served without it, so many of them. */
static bool
claim(struct producer *p, struct call *c)
{
	c->claimed = ring_claim(p->ring, LINE_MAX_);
	return c->claimed || (c->guarantee == 'a' && p->losses.count < LOSSES_MAX);
}

static void
begin(struct producer *p, struct call *c)
{
	static const char guarantees[] = "adi";
	bool intent;

	c->guarantee = guarantees[random_below(p, 3)];
	intent = c->guarantee == 'i';
	if (!claim(p, c))
		return;
	if (intent && !ring_claim(p->ring, LINE_MAX_)) {
		ring_unclaim(p->ring, LINE_MAX_);
		return;
	}
	snprintf(c->id, sizeof(c->id), "%.8s-%u-%u", trail_boot_id(p->life->trail),
	    (unsigned)(p - p->life->producers), p->calls--);
	c->slot = ring_slot_take(p->ring);
	publish(p, c);
	if (!intent) {
		forward(p, c);
		return;
	}
	c->wait = commit(p, c,
	    "\"kind\":\"intent\",\"outcome\":\"pending\",\"reason\":{\"reasonType\":\"pending\"}");
	c->step = INTENDED;
}

static void
lose(struct producer *p, struct call *c)
{
	const struct tally_item item = { "kms.secrets.wrap", c->id, clock_wall_ns(), c->slot };

	tally_add(&p->losses, "keytrail/life", &item);
	ring_slot_close(p->ring, c->slot);
	mark(p->life, "lost", c->guarantee, c->id);
	p->lost = (unsigned)p->losses.count;
	c->wait = 0;
	c->step = RECORDED;
}

static void
end(struct producer *p, struct call *c)
{
	if (!c->claimed && !ring_claim(p->ring, LINE_MAX_)) {
		lose(p, c);
		return;
	}
	c->wait = commit(p, c, "\"outcome\":\"success\",\"reason\":{\"reasonCode\":200}");
	ring_slot_close(p->ring, c->slot);
	c->step = RECORDED;
}

static void
advance(struct producer *p, struct call *c)
{
	bool durable = ring_durable(p->ring) >= c->wait;

	switch (c->step) {
	case FREE:
		if (p->calls > 0)
			begin(p, c);
		break;
	case INTENDED:
		if (durable)
			forward(p, c);
		break;
	case FORWARDED:
		end(p, c);
		break;
	case RECORDED:
		if (!durable && c->guarantee != 'a')
			break;
		mark(p->life, "answer", c->guarantee, c->id);
		c->step = FREE;
		break;
	}
}

static bool
is_busy(const struct producer *p)
{
	for (size_t i = 0; i < IN_FLIGHT; i++)
		if (p->in_flight[i].step != FREE)
			return true;
	return p->calls > 0 || p->losses.count > 0;
}

static void *
produce(void *arg)
{
	struct producer *p = arg;

	while (is_busy(p)) {
		advance(p, &p->in_flight[random_below(p, IN_FLIGHT)]);
		if (random_below(p, 4) == 0 && tally_flush(&p->losses, "keytrail/life"))
			p->lost = 0;
		if (random_below(p, 8) == 0)
			pause_us(50);
	}
	p->life->ended++;
	return NULL;
}

/* ---- what befalls it ---- */

static int
disk_create(void *arg, int dirfd, const char *name)
{
	struct life *l = arg;
	bool rolls = strcmp(l->event, "roll") == 0 && l->journal != NULL && l->fail_syncs != NULL;

	/* That of the name, and then those by which it is taken back. */
	if (rolls && l->rolls++ % 2 == 0)
		l->fail_syncs(1 + l->rolls / 2 % 3);
	return trail_disk.create(NULL, dirfd, name);
}

static int
disk_allocate(void *arg, int fd, off_t at, off_t n)
{
	const struct life *l = arg;

	errno = ENOSPC;
	return l->full ? -1 : fallocate(fd, FALLOC_FL_KEEP_SIZE, at, n);
}

/* Until somebody waits for room with what it has lost, or nobody is left who could lose. */
static void
fill_disk(struct life *l, uint64_t durable)
{
	unsigned lost = 0, calls = 0;

	for (unsigned i = 0; i < PRODUCERS; i++) {
		lost += l->producers[i].lost;
		calls += l->producers[i].calls;
	}
	if (l->full && (lost >= LOSSES_MAX || calls == 0)) {
		l->full = false;
		l->next = durable + FULL_EACH;
	} else if (!l->full && durable >= l->next && lost == 0) {
		l->full = calls > 0;
	}
}

static void
copy_between(const struct life *l, const char *dir, uint64_t number)
{
	char name[64], bytes[16384];
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	FILE *from = fopen(l->event, "r");
	size_t n = fread(bytes, 1, sizeof(bytes), from);
	int to;

	snprintf(name, sizeof(name), "%020" PRIu64 ".jsonl", number);
	if ((to = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) != -1) {
		if (write(to, bytes, n) != (ssize_t)n)
			exit(1);
		close(to);
	}
	fclose(from);
	close(dirfd);
}

static bool
is_path(const char *event)
{
	return event[0] == '/';
}

static void
befall(struct life *l, const char *dir)
{
	uint64_t durable = trail_durable_seq(l->trail);

	if (strcmp(l->event, "full") == 0)
		fill_disk(l, durable);
	if (is_path(l->event) && durable >= l->next) {
		copy_between(l, dir, durable - 3);
		l->next = durable + COPY_EACH;
	}
}

/* In the middle of the lines that an earlier life has left. */
static void
befall_before(struct life *l, const char *dir)
{
	struct trail_reader *r;
	struct err err;

	if (!is_path(l->event) || trail_reader_open(dir, 0, &r, &err) == -1)
		return;
	copy_between(l, dir, trail_reader_durable(r) / 2 + 2);
	trail_reader_close(r);
}

/* ---- the life ---- */

static void
on_durable(void *arg, uint64_t seq)
{
	const struct life *l = arg;
	char number[24];

	snprintf(number, sizeof(number), "%" PRIu64, seq);
	mark(l, "durable", '-', number);
}

static void
on_signed(void *arg, uint64_t size, struct slice note)
{
	const struct life *l = arg;

	if (l->journal != NULL)
		journal_report_checkpoint(l->journal, size, note);
}

static uint64_t
keep_seq(void *arg)
{
	return ledger_keep_seq(((struct life *)arg)->ledger);
}

static uint64_t
covered(void *arg)
{
	return ledger_told_seq(((struct life *)arg)->ledger);
}

static uint64_t
settled(void *arg, uint64_t first, uint64_t last)
{
	return ledger_settled(((struct life *)arg)->ledger, first, last);
}

/* The ledger's thread signs once a second at most: too seldom for so short a life. */
static void
sign(struct life *l, unsigned each)
{
	uint64_t last = ledger_covered(l->ledger);
	struct err err;

	need(ledger_settle(l->ledger, &err) == 0, &err);
	if (last < trail_log_base(l->trail))
		last = trail_log_base(l->trail);
	if (trail_durable_seq(l->trail) < last + each)
		return;
	need(ledger_advance(l->ledger, &err) == 0 && ledger_sign(l->ledger, &err) == 0, &err);
}

static void
begin_ledger(struct life *l, const char *reason)
{
	struct err err;

	l->renewal.reason = reason;
	need(ledger_begin(l->ledger, l->trail, &err) == 0, &err);
}

/* As server_build.c does; a log that is to be renewed is one that is not what was signed. */
static void
open_ledger(struct life *l)
{
	bool renew = strcmp(l->event, "renew") == 0;
	struct ledger_findings findings = { .unfit = "" };
	struct err err;

	if (l->recovery.given_up[0] != '\0')
		begin_ledger(l, "it was given up");
	if (renew) {
		need(trail_renew(l->trail, &err) == 0, &err);
		begin_ledger(l, "it is to be renewed");
	} else if (l->renewal.reason == NULL || ledger_signed_size(l->ledger) > 0) {
		need(ledger_open(l->ledger, l->trail, &l->recovery, &findings, &err) == 0, &err);
	}
	err_set(&err, "the trail is not what was signed: %s", findings.unfit);
	need(findings.unfit[0] == '\0', &err);
}

static void
open_all(struct life *l, const char *dir, struct slice key, size_t ring_size, uint64_t max_size)
{
	struct trail_io io = trail_disk;
	struct ledger_opts lopts = { .dir = dir, .key = key, .signed_ = on_signed, .arg = l };
	struct trail_opts topts = { .dir = dir,
		.create = true,
		.hashed = true,
		.segment_size = 16384,
		.room = PRODUCERS * ring_size,
		.io = &io };
	struct ring_opts ropts = {
		.size = ring_size, .slots = 2 * IN_FLIGHT + TALLY_SLOTS, .slot_size = SLOT_SIZE
	};
	struct journal_opts jopts = { .flush_interval_ms = 2,
		.spacing_max_us = 1000,
		.log = l->log = log_new(STDERR_FILENO, LOG_LEVEL_ERROR),
		.metrics = metrics_shard_new(l->metrics = metrics_new()),
		.retention_s = 1000000,
		.max_size = max_size,
		.keep_seq = keep_seq,
		.settled = settled,
		.covered = covered,
		.keep_arg = l,
		.durable = on_durable,
		.durable_arg = l,
		.recovery = &l->recovery };
	struct err err;
	char name[16];

	io.create = disk_create;
	io.allocate = disk_allocate;
	io.arg = l;
	befall_before(l, dir);
	need(ledger_new(&lopts, &l->ledger, &err) == 0 && ledger_look(l->ledger, &err) == 1, &err);
	topts.signed_log = ledger_signed_log(l->ledger);
	topts.signed_size = ledger_signed_size(l->ledger);
	need(trail_open(&topts, &l->trail, &l->recovery, &err) == 0, &err);
	open_ledger(l);
	l->next = trail_durable_seq(l->trail) + 10;
	jopts.trail = l->trail;
	jopts.renewal = l->renewal.reason != NULL ? &l->renewal : NULL;
	need((l->journal = journal_new(&jopts, &err)) != NULL, &err);
	trail_durable_mark(l->trail, &ropts.segment, &ropts.offset);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		struct producer *p = &l->producers[i];

		snprintf(name, sizeof(name), "ring.%u", i);
		need(ring_open(trail_dirfd(l->trail), name, &ropts, &p->ring, &err) == 0, &err);
		need(journal_add_ring(l->journal, p->ring, NULL, NULL, &err) == 0, &err);
	}
	need(journal_start(l->journal, &err) == 0, &err);
}

static void
live(struct life *l, const char *dir, unsigned calls)
{
	pthread_t threads[PRODUCERS];
	struct journal *j = l->journal;
	struct err err;

	for (unsigned i = 0; i < PRODUCERS; i++) {
		struct producer *p = &l->producers[i];

		*p = (struct producer){ .life = l, .ring = p->ring, .calls = calls, .random = i };
		tally_init(&p->losses, &tally_losses, p->ring, j, metrics_shard_new(metrics_new()));
		pthread_create(&threads[i], NULL, produce, p);
	}
	while (l->ended < PRODUCERS) {
		sign(l, CHECKPOINT_EACH);
		befall(l, dir);
		pause_us(200);
	}
	for (unsigned i = 0; i < PRODUCERS; i++)
		pthread_join(threads[i], NULL);
	need(journal_stop(j, &err) == 0, &err);
	l->journal = NULL;
	sign(l, 1);
	journal_free(j);
	trail_close(l->trail, true);
}

static void
tell(const char *dir, const struct life *l)
{
	const struct trail_recovery *r = &l->recovery;
	struct checkpoint_key key;
	struct verify_opts opts = { .dir = dir, .keys = &key, .nkeys = 1, .anchors_fd = -1 };
	struct verify_report report;
	char text[CHECKPOINT_KEY_MAX];
	struct trail_reader *reader;
	struct slice line;
	struct err err;
	uint64_t seq;
	int rc;

	printf("{\"new\":%d,\"clean\":%d,\"renewed\":%d,\"stateLost\":%d,\"foreign\":%" PRIu64
	       ",\"rings\":%" PRIu64 ",\"cut\":%" PRIu64 ",\"corrupt\":[%" PRIu64 ",%" PRIu64
	       "],\"torn\":[%" PRIu64 ",%" PRIu64 "],\"missing\":[%" PRIu64 ",%" PRIu64 "]}\n",
	    r->new_log, r->clean, l->renewal.reason != NULL, r->state_lost, r->foreign,
	    r->from_rings, r->rings_cut, r->corrupt_first, r->corrupt_last, r->torn_first,
	    r->torn_last, r->missing_first, r->missing_last);
	need(trail_reader_open(dir, 0, &reader, &err) == 0, &err);
	while ((rc = trail_reader_next(reader, &line, &seq, &err)) == 1)
		printf("%.*s\n", (int)line.n, line.p);
	need(rc == 0, &err);
	trail_reader_close(reader);
	ledger_key_text(l->ledger, text);
	need(checkpoint_key_parse((struct slice){ text, strlen(text) }, &key, &err) == 0 &&
		 verify_trail(&opts, &report, &err) == 0,
	    &err);
	printf("{\"unaltered\":%d,\"complete\":%d,\"findings\":[", report.unaltered == VERIFY_YES,
	    report.complete == VERIFY_YES);
	for (size_t i = 0; i < report.nfindings && i < VERIFY_FINDINGS_MAX; i++)
		printf("%s\"%s\"", i > 0 ? "," : "", report.findings[i].text);
	printf("]}\n");
}

static void
close_all(struct life *l)
{
	for (unsigned i = 0; i < PRODUCERS; i++)
		ring_close(l->producers[i].ring);
	ledger_free(l->ledger);
	metrics_free(l->metrics);
	log_free(l->log);
}

static void
read_key(const char *path, char out[CHECKPOINT_KEY_MAX])
{
	FILE *f = fopen(path, "r");
	struct err err;

	err_set(&err, "%s: no key", path);
	need(f != NULL && fgets(out, CHECKPOINT_KEY_MAX, f) != NULL, &err);
	out[strcspn(out, "\n")] = '\0';
	fclose(f);
}

int
main(int argc, char **argv)
{
	static struct life life;
	char key[CHECKPOINT_KEY_MAX];

	if (argc != 7)
		return 2;
	*(void **)&life.mark = dlsym(RTLD_DEFAULT, "record_mark");
	*(void **)&life.fail_syncs = dlsym(RTLD_DEFAULT, "record_fail_syncs");
	read_key(argv[2], key);
	life.event = argv[6];
	open_all(&life, argv[1], (struct slice){ key, strlen(key) }, strtoul(argv[4], NULL, 10),
	    strtoull(argv[5], NULL, 10));
	live(&life, argv[1], (unsigned)strtoul(argv[3], NULL, 10));
	tell(argv[1], &life);
	close_all(&life);
	return 0;
}
