/* The one writer: number, queue, write, sync, roll. */
#include "keytrail/clock.h"
#include "keytrail/crc32c.h"
#include "keytrail/fault.h"
#include "trail_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define QUEUE_SIZE ((size_t)128 << 10) /* stays in the processor's cache */
#define STEP_MIN   ((uint64_t)64 << 10)
#define STEP_MAX   ((uint64_t)4 << 20)

/* ---- the disk ---- */

static int
disk_create(void *arg, int dirfd, const char *name)
{
	(void)arg;
	return openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
}

static int
disk_allocate(void *arg, int fd, off_t at, off_t n)
{
	(void)arg;
	return fallocate(fd, FALLOC_FL_KEEP_SIZE, at, n);
}

static ssize_t
disk_write(void *arg, int fd, const void *p, size_t n, off_t at)
{
	(void)arg;
	return pwrite(fd, p, n, at);
}

static int
disk_sync(void *arg, int fd)
{
	(void)arg;
	return fdatasync(fd);
}

static int
disk_truncate(void *arg, int fd, off_t length)
{
	(void)arg;
	return ftruncate(fd, length);
}

const struct trail_io trail_disk = { disk_create, disk_allocate, disk_write, disk_sync,
	disk_truncate, NULL };

/* ---- room ---- */

uint64_t
trail_step(const struct trail *t)
{
	uint64_t step = t->segment_size / 16;

	return step < STEP_MIN ? STEP_MIN : step > STEP_MAX ? STEP_MAX : step;
}

static int
check_free(struct trail *t, uint64_t want, struct err *err)
{
	struct statvfs v;

	if (fstatvfs(t->dirfd, &v) == -1)
		return err_set_errno(err, "%s", t->path);
	if ((uint64_t)v.f_bavail * v.f_frsize < want)
		return err_set(err, "%s: no room: %" PRIu64 " bytes free, %" PRIu64 " wanted",
		    t->path, (uint64_t)v.f_bavail * v.f_frsize, want);
	return 0;
}

static int
allocate_to(struct trail *t, uint64_t end)
{
	uint64_t from = t->open.allocated > t->open.offset ? t->open.allocated : t->open.offset;
	int rc;

	if (end <= from)
		return 0;
	do
		rc = t->io.allocate(t->io.arg, t->open.fd, (off_t)from, (off_t)(end - from));
	while (rc == -1 && errno == EINTR);
	if (rc == 0)
		t->open.allocated = end;
	return rc;
}

int
trail_reserve(struct trail *t, struct err *err)
{
	uint64_t queued = t->open.offset + buf_size(&t->queue);
	/* A line grows by its trail member between ring and file. */
	uint64_t need = queued + t->room + t->room / 2;

	if (t->open.allocated >= need)
		return 0;
	if (t->open.fd == -1)
		return err_set(err, "%s: no open segment", t->path);
	if (!t->cannot_reserve) {
		if (allocate_to(t, need + trail_step(t)) == 0 || allocate_to(t, need) == 0)
			return 0;
		if (errno != EOPNOTSUPP && errno != ENOSYS)
			return err_set_errno(err, "%s: reserve room", t->path);
		t->cannot_reserve = true;
	}
	if (check_free(t, need - t->open.offset, err) == -1)
		return -1;
	t->open.allocated = queued + t->room + t->room / 2 + trail_step(t);
	return 0;
}

uint64_t
trail_keep_free(const struct trail *t)
{
	return t->segment_size + t->room + t->room / 2;
}

bool
trail_cannot_reserve(const struct trail *t)
{
	return t->cannot_reserve;
}

/* ---- segments ---- */

/* An empty successor would hide what its predecessor grows by, and a power cut may bring it back. */
static int
bury(struct trail *t, struct err *err)
{
	struct trail_name name = trail_segment_name(t->ghost, "");

	if (t->ghost == 0)
		return 0;
	if ((unlinkat(t->dirfd, name.s, 0) == -1 && errno != ENOENT) || fsync(t->dirfd) == -1)
		return err_set_errno(err, "%s: remove %s", t->path, name.s);
	t->ghost = 0;
	return 0;
}

/* What cannot be removed at once is before anything more is durable. */
static void
withdraw(struct trail *t, uint64_t first)
{
	struct err later;

	t->ghost = first;
	bury(t, &later);
}

int
trail_segment_create(struct trail *t, uint64_t first, int *fd, struct err *err)
{
	struct trail_name name = trail_segment_name(first, "");
	int new;

	if ((new = t->io.create(t->io.arg, t->dirfd, name.s)) == -1)
		return err_set_errno(err, "%s: create %s", t->path, name.s);
	FAULT_POINT("segment.after_create");
	if (fchmod(new, 0640) == -1 || fchown(new, (uid_t)-1, t->gid) == -1 ||
	    fsync(t->dirfd) == -1) {
		err_set_errno(err, "%s: create %s", t->path, name.s);
		close(new);
		withdraw(t, first);
		return -1;
	}
	FAULT_POINT("segment.after_dir_sync");
	*fd = new;
	return 0;
}

static void
set_open(struct trail *t, const struct trail_segment *segment)
{
	t->open = *segment;
	atomic_store_explicit(&t->open_bytes, segment->offset, memory_order_relaxed);
}

void
trail_segment_use(struct trail *t, int fd, uint64_t first, uint64_t offset)
{
	struct stat st = { 0 };

	fstat(fd, &st);
	set_open(t, &(struct trail_segment){ .fd = fd,
			.first = first,
			.dev = st.st_dev,
			.ino = st.st_ino,
			.offset = offset,
			.allocated = offset,
			.roll_at = t->segment_size });
	/* Short of room the segment is used all the same: trail_reserve tells. */
	if (!t->cannot_reserve && t->segment_size > offset)
		allocate_to(t, t->segment_size);
	FAULT_POINT("segment.after_allocate");
}

static void
count_sealed(struct trail *t, uint64_t length)
{
	atomic_fetch_add_explicit(&t->sealed_bytes, length, memory_order_relaxed);
	atomic_fetch_add_explicit(&t->segments, 1, memory_order_relaxed);
}

/* What was reserved and not written is given back. */
static void
seal(struct trail *t, int fd, uint64_t length)
{
	t->io.truncate(t->io.arg, fd, (off_t)length);
	FAULT_POINT("segment.after_seal");
	close(fd);
	count_sealed(t, length);
}

/* What was written in vain is cut off before anything behind it is durable: nobody could tell it from
 * lines that were added. */
static int
cut_failed(struct trail *t, struct err *err)
{
	struct trail_failed *f = &t->failed;
	struct stat st;

	if (f->fd == -1)
		return 0;
	if ((t->io.truncate(t->io.arg, f->fd, (off_t)f->length) == -1 &&
		(fstat(f->fd, &st) == -1 || (uint64_t)st.st_size > f->length)) ||
	    t->io.sync(t->io.arg, f->fd) == -1)
		return err_set_errno(err, "%s: cut the segment that failed", t->path);
	FAULT_POINT("segment.after_cut");
	close(f->fd);
	f->fd = -1;
	return 0;
}

static void
seal_failed(struct trail *t, int fd, uint64_t length)
{
	struct err later;

	assert(t->failed.fd == -1);
	t->failed = (struct trail_failed){ fd, length };
	cut_failed(t, &later);
	count_sealed(t, length);
}

/* Everything is durable and the segment is full.  Where no successor can be made, this one grows on:
 * the trail comes before its cut. */
static void
roll(struct trail *t)
{
	struct trail_segment old = t->open;
	struct err *err = &t->not_rolled;
	int fd;

	old.roll_at = old.offset + trail_step(t);
	if (trail_segment_create(t, t->last_seq + 1, &fd, err) == -1) {
		set_open(t, &old);
		return;
	}
	trail_segment_use(t, fd, t->last_seq + 1, 0);
	if (trail_reserve(t, err) == -1) {
		close(fd);
		set_open(t, &old);
		withdraw(t, t->last_seq + 1);
		return;
	}
	seal(t, old.fd, old.offset);
}

/* What stands under the name of a segment that is gone is not of this log. */
static int
put_replacement_aside(struct trail *t, struct err *err)
{
	struct trail_name name = trail_segment_name(t->open.first, "");
	struct trail_name aside = trail_segment_name(t->open.first, ".replaced");

	if (renameat(t->dirfd, name.s, t->dirfd, aside.s) == -1 && errno != ENOENT)
		return err_set_errno(err, "%s: put %s aside", t->path, name.s);
	t->open.gone = false;
	return 0;
}

static uint64_t
lower(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

int
trail_reopen(struct trail *t, struct err *err)
{
	uint64_t first = t->mark.seq + 1;
	int fd;

	if (trail_check_directory(t, err) == -1 || bury(t, err) == -1)
		return -1;
	buf_consume(&t->queue, buf_size(&t->queue));
	t->last_seq = t->written_seq = t->mark.seq;
	if (t->open.fd != -1) {
		/* A segment without a durable line has the name that its successor needs. */
		bool empty = t->open.first == first;
		uint64_t length = lower(t->mark.offset, t->open.offset); /* it may have been cut */

		if (empty || t->open.gone)
			seal(t, t->open.fd, empty ? 0 : length);
		else
			seal_failed(t, t->open.fd, length);
		t->open.fd = -1;
		if (empty || t->open.gone)
			atomic_fetch_sub_explicit(&t->segments, 1, memory_order_relaxed);
		if (t->open.gone && !empty)
			atomic_fetch_sub_explicit(&t->sealed_bytes, length, memory_order_relaxed);
	}
	if (t->open.gone && put_replacement_aside(t, err) == -1)
		return -1;
	if (t->open.first == first &&
	    unlinkat(t->dirfd, trail_segment_name(first, "").s, 0) == -1 && errno != ENOENT)
		return err_set_errno(err, "%s: remove the failed segment %" PRIu64, t->path, first);
	FAULT_POINT("reopen.before_create");
	if (trail_segment_create(t, first, &fd, err) == -1)
		return -1;
	trail_segment_use(t, fd, first, 0);
	FAULT_POINT("reopen.after_create");
	return 0;
}

/* ---- append, write, sync ---- */

static size_t
put_digits(char *out, uint64_t v)
{
	char text[20];
	size_t n = 0;

	do
		text[sizeof(text) - ++n] = (char)('0' + v % 10);
	while ((v /= 10) > 0);
	memcpy(out, text + sizeof(text) - n, n);
	return n;
}

static size_t
put(char *out, const void *p, size_t n)
{
	memcpy(out, p, n);
	return n;
}

#define PUT(out, lit) put(out, lit, sizeof(lit) - 1)

/* The text changes at every tick, of many lines. */
static const char *
time_text(struct trail *t, int64_t wall_ns)
{
	int64_t tick = wall_ns / (CLOCK_NS_PER_S / 100);

	if (t->at[0] == '\0' || tick != t->at_tick)
		clock_event_time(wall_ns, t->at);
	t->at_tick = tick;
	return t->at;
}

/* The line with its trail member; the length. */
static size_t
close_line(struct trail *t, struct slice line, int64_t wall_ns, uint64_t seq, char *out)
{
	static const char hex[] = "0123456789abcdef";
	char *o = out + put(out, line.p, line.n);
	uint32_t crc;

	o += PUT(o, ",\"trail\":{\"at\":\"");
	o += put(o, time_text(t, wall_ns), CLOCK_EVENT_TIME_SIZE - 1);
	o += put(o, t->member, t->nmember);
	o += put_digits(o, seq);
	crc = crc32c(0, out, (size_t)(o - out));
	o += PUT(o, ",\"sum\":\"");
	for (int shift = 28; shift >= 0; shift -= 4)
		*o++ = hex[crc >> shift & 15];
	o += PUT(o, "\"}}\n");
	return (size_t)(o - out);
}

int
trail_append(struct trail *t, struct slice line, int64_t wall_ns, uint64_t *seq, struct err *err)
{
	size_t n;

	assert(line.n > 1 && line.p[0] == '{');
	if (line.n + TRAIL_MEMBER_MAX > TRAIL_LINE_MAX)
		return err_set(err, "a line of %zu bytes is too long for the trail", line.n);
	if (buf_size(&t->queue) + line.n + TRAIL_MEMBER_MAX > QUEUE_SIZE &&
	    trail_write(t, err) == -1)
		return -1;
	if (buf_reserve(
		&t->queue, buf_size(&t->queue) == 0 ? QUEUE_SIZE : line.n + TRAIL_MEMBER_MAX) == -1)
		return err_set_errno(err, "%s: queue", t->path);
	*seq = ++t->last_seq;
	n = close_line(t, line, wall_ns, *seq, buf_tail(&t->queue));
	if (t->leaves != NULL)
		leaves_add(t->leaves, *seq, trail_line_kind(line),
		    (struct slice){ buf_tail(&t->queue), n - 1 });
	buf_commit(&t->queue, n);
	return 0;
}

static int
write_all(struct trail *t, struct slice s, uint64_t at)
{
	while (s.n > 0) {
		ssize_t n = t->io.write(t->io.arg, t->open.fd, s.p, s.n, (off_t)at);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? EIO : errno;
			return -1;
		}
		s = slice_sub(s, (size_t)n, s.n);
		at += (uint64_t)n;
	}
	return 0;
}

/* Written at the offset where it was to go on, the file would have a hole, and its length again. */
static int
check_length(struct trail *t, const struct stat *st, struct err *err)
{
	uint64_t last;

	if ((uint64_t)st->st_size >= t->open.offset)
		return 0;
	t->open.offset = (uint64_t)st->st_size;
	t->tampered = t->open.first;
	last = trail_last_number(t->dirfd, &t->log, t->open.first);
	if (last < t->mark.seq) {
		t->tampered_first = last < t->open.first ? t->open.first : last + 1;
		t->tampered_last = t->mark.seq;
	}
	return err_set(err, "%s: %s was cut", t->path, trail_segment_name(t->open.first, "").s);
}

int
trail_write(struct trail *t, struct err *err)
{
	struct slice s = buf_slice(&t->queue);
	struct stat st;

	if (s.n == 0)
		return 0;
	if (t->open.fd == -1)
		return err_set(err, "%s: no open segment", t->path);
	if (fstat(t->open.fd, &st) == 0 && check_length(t, &st, err) == -1)
		return -1;
	FAULT_POINT("trail.before_write");
	if (write_all(t, s, t->open.offset) == -1) {
		err_set_errno(
		    err, "%s: write %s", t->path, trail_segment_name(t->open.first, "").s);
		t->io.truncate(t->io.arg, t->open.fd, (off_t)t->open.offset);
		return -1;
	}
	t->open.offset += s.n;
	buf_consume(&t->queue, s.n);
	t->written_seq = t->last_seq;
	atomic_store_explicit(&t->open_bytes, t->open.offset, memory_order_relaxed);
	return 0;
}

/* What was synced to a file without its name, no reader will find. */
int
trail_check(struct trail *t, struct err *err)
{
	struct trail_name name = trail_segment_name(t->open.first, "");
	struct stat st;

	if (fstatat(t->dirfd, name.s, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (st.st_ino == t->open.ino && st.st_dev == t->open.dev)
			return check_length(t, &st, err);
	} else if (errno != ENOENT) {
		return err_set_errno(err, "%s: look for %s", t->path, name.s);
	}
	t->open.gone = true;
	t->tampered = t->open.first;
	if (t->mark.seq >= t->open.first) {
		t->tampered_first = t->open.first;
		t->tampered_last = t->mark.seq;
	}
	if (trail_check_directory(t, err) == -1)
		return -1;
	return err_set(err, "%s: %s was deleted, renamed or replaced", t->path, name.s);
}

bool
trail_could_not_roll(struct trail *t, struct err *why)
{
	*why = t->not_rolled;
	t->not_rolled.msg[0] = '\0';
	return why->msg[0] != '\0';
}

bool
trail_tampered(struct trail *t, uint64_t *segment, uint64_t *first, uint64_t *last)
{
	*segment = t->tampered;
	*first = t->tampered_first;
	*last = t->tampered_last;
	t->tampered = t->tampered_first = t->tampered_last = 0;
	return *segment != 0;
}

int
trail_sync(struct trail *t, struct err *err)
{
	if (t->written_seq == t->mark.seq)
		return 0;
	if (bury(t, err) == -1 || cut_failed(t, err) == -1)
		return -1;
	FAULT_POINT("trail.before_sync");
	if (t->io.sync(t->io.arg, t->open.fd) == -1)
		return err_set_errno(
		    err, "%s: sync %s", t->path, trail_segment_name(t->open.first, "").s);
	FAULT_POINT("trail.after_sync");
	if (trail_check(t, err) == -1)
		return -1;
	if (t->leaves != NULL)
		leaves_flush(t->leaves);
	t->mark = (struct trail_mark){ t->written_seq, t->open.first, t->open.offset };
	trail_state_publish(t->state, &t->mark);
	FAULT_POINT("trail.after_mark");
	atomic_store_explicit(&t->durable_seq, t->mark.seq, memory_order_release);
	if (t->open.offset >= t->open.roll_at && buf_size(&t->queue) == 0)
		roll(t);
	return 0;
}

uint64_t
trail_last_seq(const struct trail *t)
{
	return t->last_seq;
}

uint64_t
trail_durable_seq(const struct trail *t)
{
	return atomic_load_explicit(&t->durable_seq, memory_order_acquire);
}

struct leaves *
trail_leaves(const struct trail *t)
{
	return t->leaves;
}

void
trail_durable_mark(const struct trail *t, uint64_t *segment, uint64_t *offset)
{
	*segment = t->mark.segment;
	*offset = t->mark.offset;
}
