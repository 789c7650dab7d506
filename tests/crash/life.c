/*
 * life DIR KEY CALLS RING_SIZE MAX_SIZE: one life of a trail: recover, CALLS calls by each of two
 * producers, a clean end.  What the world outside gets to know is marked in the trace (record.c):
 *
 *	forward G ID	the call has been forwarded; G: a, d or i, its guarantee
 *	answer G ID	it has been answered
 *	durable N	a reader may have seen line N
 *
 * At the end standard output has what recovery found, each line as a reader gets it, and verify's
 * verdicts.
 */
#include "keytrail/journal.h"
#include "keytrail/ledger.h"
#include "keytrail/verify.h"

#include <dlfcn.h>
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
#define CHECKPOINT_EACH 24

struct call {
	char id[48];
	char guarantee;
	unsigned slot;
	uint64_t wait;
	enum { FREE, INTENDED, FORWARDED, RECORDED } step;
};

struct producer {
	struct life *life;
	struct ring *ring;
	unsigned calls, random;
	struct call in_flight[IN_FLIGHT];
};

struct life {
	struct trail *trail;
	struct trail_recovery recovery;
	struct ledger *ledger;
	struct journal *journal;
	struct producer producers[PRODUCERS];
	atomic_uint ended;
	struct log *log;
	struct metrics *metrics;
	void (*mark)(const char *);
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

static void
begin(struct producer *p, struct call *c)
{
	static const char guarantees[] = "adi";
	bool intent;

	c->guarantee = guarantees[random_below(p, 3)];
	intent = c->guarantee == 'i';
	if (!ring_claim(p->ring, LINE_MAX_))
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
end(struct producer *p, struct call *c)
{
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
	return p->calls > 0;
}

static void *
produce(void *arg)
{
	struct producer *p = arg;

	while (is_busy(p)) {
		advance(p, &p->in_flight[random_below(p, IN_FLIGHT)]);
		if (random_below(p, 8) == 0)
			pause_us(50);
	}
	p->life->ended++;
	return NULL;
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
settled(void *arg, uint64_t first, uint64_t last)
{
	return ledger_settled(((struct life *)arg)->ledger, first, last);
}

/* The ledger's thread signs once a second at most: too seldom for so short a life. */
static void
sign(struct life *l, unsigned each)
{
	struct err err;

	need(ledger_settle(l->ledger, &err) == 0, &err);
	if (trail_durable_seq(l->trail) < ledger_covered(l->ledger) + each)
		return;
	need(ledger_advance(l->ledger, &err) == 0 && ledger_sign(l->ledger, &err) == 0, &err);
}

static void
open_all(struct life *l, const char *dir, struct slice key, size_t ring_size, uint64_t max_size)
{
	struct ledger_opts lopts = { .dir = dir, .key = key, .signed_ = on_signed, .arg = l };
	struct trail_opts topts = { .dir = dir,
		.create = true,
		.hashed = true,
		.segment_size = 16384,
		.room = PRODUCERS * ring_size };
	struct ring_opts ropts = {
		.size = ring_size, .slots = 2 * IN_FLIGHT, .slot_size = LINE_MAX_
	};
	struct journal_opts jopts = { .flush_interval_ms = 2,
		.spacing_max_us = 1000,
		.log = l->log = log_new(STDERR_FILENO, LOG_LEVEL_ERROR),
		.metrics = metrics_shard_new(l->metrics = metrics_new()),
		.retention_s = 1000000,
		.max_size = max_size,
		.keep_seq = keep_seq,
		.settled = settled,
		.keep_arg = l,
		.durable = on_durable,
		.durable_arg = l,
		.recovery = &l->recovery };
	struct ledger_findings findings;
	struct err err;
	char name[16];

	need(ledger_new(&lopts, &l->ledger, &err) == 0, &err);
	need(trail_open(&topts, &l->trail, &l->recovery, &err) == 0, &err);
	need(ledger_open(l->ledger, l->trail, &l->recovery, &findings, &err) == 0, &err);
	err_set(&err, "the trail is not what was signed: %s", findings.unfit);
	need(findings.unfit[0] == '\0', &err);
	jopts.trail = l->trail;
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
live(struct life *l, unsigned calls)
{
	pthread_t threads[PRODUCERS];
	struct journal *j = l->journal;
	struct err err;

	for (unsigned i = 0; i < PRODUCERS; i++) {
		struct producer *p = &l->producers[i];

		*p = (struct producer){ .life = l, .ring = p->ring, .calls = calls, .random = i };
		pthread_create(&threads[i], NULL, produce, p);
	}
	while (l->ended < PRODUCERS) {
		sign(l, CHECKPOINT_EACH);
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
	struct verify_opts opts = { .dir = dir, .keys = &key, .nkeys = 1 };
	struct verify_report report;
	char text[CHECKPOINT_KEY_MAX];
	struct trail_reader *reader;
	struct slice line;
	struct err err;
	uint64_t seq;
	int rc;

	printf("{\"new\":%d,\"clean\":%d,\"rings\":%" PRIu64 ",\"cut\":%" PRIu64
	       ",\"corrupt\":[%" PRIu64 ",%" PRIu64 "],\"torn\":[%" PRIu64 ",%" PRIu64
	       "],\"missing\":[%" PRIu64 ",%" PRIu64 "]}\n",
	    r->new_log, r->clean, r->from_rings, r->rings_cut, r->corrupt_first, r->corrupt_last,
	    r->torn_first, r->torn_last, r->missing_first, r->missing_last);
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
	void *symbol;

	if (argc != 6)
		return 2;
	symbol = dlsym(RTLD_DEFAULT, "record_mark");
	memcpy(&life.mark, &symbol, sizeof(symbol));
	read_key(argv[2], key);
	open_all(&life, argv[1], (struct slice){ key, strlen(key) }, strtoul(argv[4], NULL, 10),
	    strtoull(argv[5], NULL, 10));
	live(&life, (unsigned)strtoul(argv[3], NULL, 10));
	tell(argv[1], &life);
	close_all(&life);
	return 0;
}
