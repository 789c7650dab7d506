#include "ledger_internal.h"

#include "keytrail/base64.h"
#include "keytrail/clock.h"
#include "keytrail/file.h"
#include "keytrail/thread.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define POLL_NS	 (200 * CLOCK_NS_PER_MS) /* LEAVES_MAX are 80,000 lines a second */
#define GAP_NS	 CLOCK_NS_PER_S		 /* from one checkpoint to the next, at least */
#define RETRY_NS (10 * CLOCK_NS_PER_S)

/* ---- taking lines in ---- */

static int
fill_void(struct ledger *l, enum tiles_policy policy, uint64_t size, struct err *err)
{
	struct merkle_hash none;

	if (size <= l->tree.size)
		return 0;
	if (size - l->tree.size > LEDGER_VOID_MAX)
		return err_set(err, "%s: numbers %" PRIu64 " to %" PRIu64 " have no lines", l->dir,
		    l->base + l->tree.size + 1, l->base + size);
	merkle_leaf(SLICE_EMPTY, &none);
	while (l->tree.size < size)
		if (tiles_tree_append(&l->tree, &l->files, policy, &none, err) == -1)
			return -1;
	return 0;
}

static int
append_batch(struct ledger *l, enum tiles_policy policy, struct err *err)
{
	struct merkle_hash leaves[MERKLE_BATCH];
	unsigned n = merkle_batch_finish(l->batch, leaves);

	l->taken = 0;
	for (unsigned i = 0; i < n; i++)
		if (fill_void(l, policy, l->seqs[i] - 1 - l->base, err) == -1 ||
		    tiles_tree_append(&l->tree, &l->files, policy, &leaves[i], err) == -1)
			return -1;
	return 0;
}

static void
note_kind(struct ledger *l, enum leaf_kind kind)
{
	l->others += kind != LEAF_CHECKPOINT;
	l->urgent |= kind == LEAF_EXPIRE;
}

static int
take_line(
    struct ledger *l, enum tiles_policy policy, struct slice line, uint64_t seq, struct err *err)
{
	l->seqs[l->taken] = seq;
	l->taken = merkle_batch_add(l->batch, line);
	note_kind(l, trail_line_kind(line));
	return l->taken < MERKLE_BATCH ? 0 : append_batch(l, policy, err);
}

/* The size that the tree will have. */
static uint64_t
size_ahead(const struct ledger *l)
{
	return l->taken > 0 ? l->seqs[l->taken - 1] - l->base : l->tree.size;
}

/* Need the next line not be read? */
static bool
is_hashed(const struct ledger *l)
{
	return l->leaves != NULL && leaves_have(l->leaves, l->base + size_ahead(l) + 1);
}

static int
read_lines(struct ledger *l, struct trail_reader *r, enum tiles_policy policy, uint64_t end,
    struct err *err)
{
	struct slice line;
	uint64_t seq;
	int rc = 1;

	while ((end == 0 ? !is_hashed(l) : size_ahead(l) < end) &&
	       (rc = trail_reader_next(r, &line, &seq, err)) == 1) {
		if (end != 0 && seq > l->base + end)
			break;
		if (take_line(l, policy, line, seq, err) == -1)
			return -1;
	}
	return append_batch(l, policy, err) == -1 || rc == -1 ? -1 : 0;
}

int
ledger_take_lines(struct ledger *l, enum tiles_policy policy, uint64_t end, struct err *err)
{
	struct trail_reader *r;
	int rc;

	if (trail_reader_open_at(l->files.dirfd, l->base + l->tree.size + 1, &r, err) == -1)
		return -1;
	trail_reader_on_corrupt(r, l->opts.corrupt, l->opts.arg);
	rc = read_lines(l, r, policy, end, err);
	trail_reader_close(r);
	return rc == 0 && end != 0 ? fill_void(l, policy, end, err) : rc;
}

static bool
is_level(const struct ledger *l)
{
	return l->base + l->tree.size >= trail_durable_seq(l->trail);
}

static int
take_leaves(struct ledger *l, struct err *err)
{
	struct leaf leaf;

	while (!is_level(l) && leaves_take(l->leaves, l->base + l->tree.size + 1, &leaf)) {
		note_kind(l, leaf.kind);
		if (tiles_tree_append(&l->tree, &l->files, TILES_WRITE, &leaf.hash, err) == -1)
			return -1;
	}
	return 0;
}

static int
take_durable(struct ledger *l, struct err *err)
{
	do {
		if (l->leaves != NULL && take_leaves(l, err) == -1)
			return -1;
		if (!is_level(l) && ledger_take_lines(l, TILES_WRITE, 0, err) == -1)
			return -1;
	} while (is_hashed(l) && !is_level(l));
	return 0;
}

/* After a failure what is known to be right is the tree of the last checkpoint. */
int
ledger_advance(struct ledger *l, struct err *err)
{
	if (!l->loaded && ledger_load(l, false, err) == -1)
		return -1;
	if (take_durable(l, err) == 0)
		return 0;
	l->loaded = false;
	return -1;
}

/* ---- signing ---- */

static void
tell(struct ledger *l, struct slice note)
{
	char text[BASE64_SIZE(CHECKPOINT_ORIGIN_MAX + 400)];
	size_t n;

	if (l->opts.log == NULL || BASE64_SIZE(note.n) > sizeof(text))
		return;
	n = base64_encode(note.p, note.n, text);
	log_notice(
	    l->opts.log, "checkpoint", "size %" PRIu64 " note=%.*s", l->last.size, (int)n, text);
}

int
ledger_sign(struct ledger *l, struct err *err)
{
	struct checkpoint cp = { .size = l->tree.size };
	struct buf note = BUF_INIT;
	int rc = -1;

	assert(l->loaded && cp.size > l->last.size);
	memcpy(cp.origin, l->origin, sizeof(cp.origin));
	tiles_tree_root(&l->tree, &cp.root);
	if (tiles_tree_write_edge(&l->tree, &l->files, l->last.size, err) == 0 &&
	    checkpoint_write(l->signer, &cp, &note, err) == 0 &&
	    file_replace(l->files.dirfd, "checkpoint", 0640, buf_slice(&note), err) == 0) {
		l->last = cp;
		atomic_store(&l->covered, l->base + cp.size);
		l->others = 0;
		l->urgent = false;
		tell(l, buf_slice(&note));
		if (l->opts.signed_ != NULL)
			l->opts.signed_(l->opts.arg, cp.size, buf_slice(&note));
		rc = 0;
	}
	buf_fini(&note);
	return rc;
}

/* ---- what is to expire ---- */

uint64_t
ledger_keep_seq(struct ledger *l)
{
	uint64_t covered = ledger_covered(l);

	if (ledger_is_refused(l))
		return UINT64_MAX;
	return covered <= l->base ? covered + 1
				  : covered - (covered - l->base) % MERKLE_TILE_WIDTH + 1;
}

uint64_t
ledger_told_seq(struct ledger *l)
{
	return ledger_is_refused(l) ? UINT64_MAX : ledger_covered(l);
}

uint64_t
ledger_settled(struct ledger *l, uint64_t first, uint64_t last)
{
	uint64_t settled;

	if (ledger_is_refused(l))
		return last;
	pthread_mutex_lock(&l->lock);
	settled = l->settled;
	l->expiring_first = first;
	l->expiring_last = last;
	pthread_mutex_unlock(&l->lock);
	return settled;
}

/* Lines of an earlier log have no tiles that count. */
int
ledger_settle(struct ledger *l, struct err *err)
{
	uint64_t first, last, since, size;

	pthread_mutex_lock(&l->lock);
	first = l->expiring_first > l->settled ? l->expiring_first : l->settled + 1;
	last = l->expiring_last;
	pthread_mutex_unlock(&l->lock);
	if (last < first)
		return 0;
	since = first > l->base ? first - 1 - l->base : 0;
	size = last > l->base ? last - l->base + MERKLE_TILE_WIDTH - 1 : 0;
	if (tiles_sync(&l->files, since, size, err) == -1)
		return -1;
	pthread_mutex_lock(&l->lock);
	l->settled = last;
	pthread_mutex_unlock(&l->lock);
	return 0;
}

/* ---- the thread ---- */

static bool
is_due(const struct ledger *l, int64_t now)
{
	uint64_t lines = l->tree.size - l->last.size;
	int64_t since = now - l->signed_ns;

	if (lines == 0 || l->others == 0)
		return false;
	if (l->last.size == 0)
		return true;
	return since >= GAP_NS && (l->urgent || l->others >= l->opts.events ||
				      since >= l->opts.interval_s * CLOCK_NS_PER_S);
}

bool
ledger_is_refused(struct ledger *l)
{
	bool refused;

	pthread_mutex_lock(&l->lock);
	refused = l->refusal[0] != '\0';
	pthread_mutex_unlock(&l->lock);
	return refused;
}

static int
sign_what_is_due(struct ledger *l, int64_t now, bool last, struct err *err)
{
	if (ledger_advance(l, err) == -1)
		return -1;
	if (last ? l->tree.size == l->last.size : !is_due(l, now))
		return 0;
	l->signed_ns = now;
	return ledger_sign(l, err);
}

void
ledger_set_trouble(struct ledger *l, const char *text)
{
	pthread_mutex_lock(&l->lock);
	snprintf(l->trouble, sizeof(l->trouble), "%s", text);
	pthread_mutex_unlock(&l->lock);
}

static void
work(struct ledger *l, bool last)
{
	int64_t now = clock_mono_ns();
	struct err err = { .msg = "" };

	if (ledger_is_refused(l) || (!last && now < l->retry_ns))
		return;
	if (sign_what_is_due(l, now, last, &err) == -1)
		log_error(l->opts.log, "not_signed", "%s", err.msg);
	else if (ledger_settle(l, &err) == -1)
		log_error(l->opts.log, "nothing_expires", "%s", err.msg);
	ledger_set_trouble(l, err.msg);
	if (err.msg[0] != '\0')
		l->retry_ns = now + RETRY_NS;
}

/* True when it is time to stop. */
static bool
rest(struct ledger *l)
{
	struct timespec until;
	int64_t when = clock_wall_ns() + POLL_NS;
	bool stop;

	until = (struct timespec){ when / CLOCK_NS_PER_S, when % CLOCK_NS_PER_S };
	pthread_mutex_lock(&l->lock);
	if (!l->stop && !l->woken)
		pthread_cond_timedwait(&l->wake, &l->lock, &until);
	stop = l->stop;
	if (l->woken)
		l->retry_ns = 0;
	l->woken = false;
	pthread_mutex_unlock(&l->lock);
	return stop;
}

static void *
run(void *arg)
{
	struct ledger *l = arg;

	do
		work(l, false);
	while (!rest(l));
	work(l, true);
	return NULL;
}

int
ledger_start(struct ledger *l, struct err *err)
{
	l->signed_ns = clock_mono_ns();
	if (thread_start(&l->thread, "ledger", run, l, err) == -1)
		return -1;
	l->running = true;
	return 0;
}

void
ledger_wake(struct ledger *l)
{
	pthread_mutex_lock(&l->lock);
	l->woken = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

void
ledger_end(struct ledger *l)
{
	if (!l->running)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	l->running = false;
}

bool
ledger_stop(struct ledger *l)
{
	ledger_end(l);
	l->opts.signed_ = NULL; /* who would record it has ended */
	l->opts.corrupt = NULL;
	if (l->stop)
		work(l, true);
	return l->trail != NULL && !ledger_is_refused(l) &&
	       ledger_covered(l) >= trail_durable_seq(l->trail);
}

void
ledger_refusal(struct ledger *l, char *out, size_t n)
{
	pthread_mutex_lock(&l->lock);
	snprintf(out, n, "%s", l->refusal[0] != '\0' ? l->refusal : l->trouble);
	pthread_mutex_unlock(&l->lock);
}
