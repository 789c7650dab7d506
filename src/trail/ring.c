#include "keytrail/crc32c.h"
#include "keytrail/fault.h"
#include "keytrail/file.h"
#include "keytrail/mapguard.h"
#include "ring_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

size_t
ring_page(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

uint32_t
ring_version(void)
{
	return RING_VERSION;
}

uint64_t
ring_file_size(const struct ring_opts *o)
{
	return ring_page() + o->size + ring_states_bytes(o->slots) +
	       ring_slots_bytes(o->slots, o->slot_size);
}

uint64_t
ring_entry_size(size_t n)
{
	return (sizeof(struct ring_entry) + n + 7) & ~(uint64_t)7;
}

uint32_t
ring_entry_crc(const struct ring_entry *e, uint64_t pos)
{
	return crc32c(crc32c(0, &pos, sizeof(pos)), &e->length,
	    sizeof(*e) - offsetof(struct ring_entry, length) + e->length);
}

bool
ring_header_valid(const struct ring_header *h)
{
	return memcmp(h->magic, RING_MAGIC, sizeof(h->magic)) == 0 && h->version == RING_VERSION &&
	       h->size > 0 && h->size <= RING_SIZE_MAX && h->size % 8 == 0 &&
	       h->slots <= RING_SLOTS_MAX && h->slot_size <= RING_SLOT_SIZE_MAX &&
	       h->slot_size % 8 == 0;
}

int
ring_read(int fd, void *mem, size_t n, size_t at, const char *name, struct err *err)
{
	ssize_t got = file_read(fd, mem, n, (off_t)at);

	if (got == -1)
		return err_set_errno(err, "read %s", name);
	memset((char *)mem + got, 0, n - (size_t)got);
	return 0;
}

int
ring_read_header(int fd, struct ring_header *h, const char *name, struct err *err)
{
	return ring_read(fd, h, sizeof(*h), 0, name, err);
}

/* The epoch after the one in h; a random one when h is none: bytes left in the file by an unknown
 * past must not look like entries. */
int
ring_next_epoch(const struct ring_header *h, uint32_t *epoch, struct err *err)
{
	if (ring_header_valid(h))
		*epoch = h->epoch + 1;
	else if (getrandom(epoch, sizeof(*epoch), 0) != sizeof(*epoch))
		return err_set_errno(err, "random bytes");
	return 0;
}

static void
put_identity(struct ring_header *h, const struct ring_opts *opts, uint32_t epoch)
{
	memcpy(h->magic, RING_MAGIC, sizeof(h->magic));
	h->version = RING_VERSION;
	h->epoch = epoch;
	h->size = opts->size;
	h->slots = opts->slots;
	h->slot_size = (uint32_t)opts->slot_size;
}

int
ring_write_header(
    int fd, const struct ring_opts *opts, uint32_t epoch, const char *name, struct err *err)
{
	struct ring_header h;

	memset(&h, 0, sizeof(h));
	put_identity(&h, opts, epoch);
	h.segment = opts->segment;
	h.offset = opts->offset;
	if (file_write(fd, &h, sizeof(h), 0) == -1 || fdatasync(fd) == -1)
		return err_set_errno(err, "write %s", name);
	return 0;
}

/* Room on the disk is taken now: a store to a hole of a full file system would be a SIGBUS. */
static int
prepare_file(
    int fd, const struct ring_opts *opts, uint32_t *epoch, const char *name, struct err *err)
{
	off_t total = (off_t)ring_file_size(opts);
	struct ring_header h;
	struct stat st;

	if (ring_read_header(fd, &h, name, err) == -1 || ring_next_epoch(&h, epoch, err) == -1)
		return -1;
	if (fstat(fd, &st) == -1)
		return err_set_errno(err, "%s", name);
	/* The header never promises more than the file has. */
	if (st.st_size > total) {
		if (ring_write_header(fd, opts, *epoch, name, err) == -1)
			return -1;
		if (ftruncate(fd, total) == -1)
			return err_set_errno(err, "cut %s", name);
	}
	if (file_reserve(fd, total) == -1)
		return err_set_errno(err, "reserve %lld bytes for %s", (long long)total, name);
	if (fdatasync(fd) == -1)
		return err_set_errno(err, "sync %s", name);
	return ring_write_header(fd, opts, *epoch, name, err);
}

static int
map_twice(struct ring *r, int fd, const char *name, struct err *err)
{
	size_t page = ring_page();
	char *base;

	r->mapped = page + 2 * r->size;
	base = mmap(NULL, r->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return err_set_errno(err, "map %s", name);
	r->h = (struct ring_header *)(void *)base;
	r->data = base + page;
	if (mmap(base, page + r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
		MAP_FAILED ||
	    mmap(base + page + r->size, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		(off_t)page) == MAP_FAILED)
		return err_set_errno(err, "map %s", name);
	return 0;
}

static int
check_opts(const struct ring_opts *o, const char *name, struct err *err)
{
	if (o->size == 0 || o->size > RING_SIZE_MAX || o->size % ring_page() != 0)
		return err_set(
		    err, "%s: a ring of %zu bytes is no multiple of the page", name, o->size);
	if (o->slots > RING_SLOTS_MAX || o->slot_size > RING_SLOT_SIZE_MAX || o->slot_size % 8 != 0)
		return err_set(
		    err, "%s: %u slots of %zu bytes cannot be had", name, o->slots, o->slot_size);
	return 0;
}

static void
guard(struct ring *r, const struct ring_opts *opts)
{
	off_t size = (off_t)ring_file_size(opts);

	r->guards[0] = mapguard_add(r->h, r->mapped, r->fd, size);
	if (opts->slots > 0)
		r->guards[1] = mapguard_add(r->slots.states, r->slots.mapped, r->fd, size);
}

static int
set_name(struct ring *r, const char *name, struct err *err)
{
	if (strlen(name) >= sizeof(r->name))
		return err_set(err, "%s: too long a name for a ring", name);
	strcpy(r->name, name);
	return 0;
}

/* Its file is open; not mapped yet. */
static struct ring *
ring_new(int dirfd, const char *name, int flags, struct err *err)
{
	struct ring *r = aligned_alloc(RING_LINE, sizeof(*r));

	if (r == NULL) {
		err_set_errno(err, "%s", name);
		return NULL;
	}
	*r = (struct ring){ .fd = -1, .guards = { MAPGUARD_NONE, MAPGUARD_NONE } };
	if (set_name(r, name, err) == -1)
		goto fail;
	if ((r->fd = openat(dirfd, name, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600)) == -1) {
		err_set_errno(err, "open %s", name);
		goto fail;
	}
	return r;
fail:
	ring_close(r);
	return NULL;
}

int
ring_open(
    int dirfd, const char *name, const struct ring_opts *opts, struct ring **out, struct err *err)
{
	struct ring *r;

	if (check_opts(opts, name, err) == -1 || (r = ring_new(dirfd, name, O_CREAT, err)) == NULL)
		return -1;
	r->size = opts->size;
	if (fsync(dirfd) == -1) {
		err_set_errno(err, "sync the name of %s", name);
		goto fail;
	}
	if (prepare_file(r->fd, opts, &r->epoch, name, err) == -1 ||
	    map_twice(r, r->fd, name, err) == -1 ||
	    ring_slots_map(r, r->fd, opts, name, err) == -1 || ring_slots_init(r, name, err) == -1)
		goto fail;
	guard(r, opts);
	*out = r;
	return 0;
fail:
	ring_close(r);
	return -1;
}

void
ring_follow(struct ring *r)
{
	r->released = atomic_load(&r->h->tail);
	r->head_seen = atomic_load(&r->h->head);
}

/* Is it one that a process fills, and is all of it there? */
static int
check_adopted(const struct ring *r, const struct ring_header *h, struct err *err)
{
	bool cut;

	if (!ring_header_valid(h) || h->tail % 8 != 0 || h->head - h->tail > h->size)
		return err_set(err, "%s is not a ring that this version can read", r->name);
	if (ring_look_for_cut(r->fd, h, &cut, r->name, err) == -1)
		return -1;
	return cut ? err_set(err, "%s: somebody has cut it", r->name) : 0;
}

int
ring_adopt(int dirfd, const char *name, struct ring **out, struct err *err)
{
	struct ring *r = ring_new(dirfd, name, 0, err);
	struct ring_header h;
	struct ring_opts opts;

	if (r == NULL)
		return -1;
	if (ring_read_header(r->fd, &h, name, err) == -1 || check_adopted(r, &h, err) == -1)
		goto fail;
	opts = (struct ring_opts){ .size = h.size, .slots = h.slots, .slot_size = h.slot_size };
	r->size = h.size;
	r->epoch = h.epoch;
	if (map_twice(r, r->fd, name, err) == -1 ||
	    ring_slots_map(r, r->fd, &opts, name, err) == -1)
		goto fail;
	/* What is put back where somebody cuts it: the producer moves it on. */
	atomic_store(&r->horizon_offset, h.horizon_offset);
	atomic_store(&r->horizon_segment, h.horizon_segment);
	guard(r, &opts);
	ring_follow(r);
	*out = r;
	return 0;
fail:
	ring_close(r);
	return -1;
}

int
ring_rename(struct ring *r, int dirfd, const char *name, struct err *err)
{
	char before[sizeof(r->name)];

	strcpy(before, r->name);
	if (set_name(r, name, err) == -1)
		return -1;
	if (renameat(dirfd, before, dirfd, name) == 0)
		return 0;
	err_set_errno(err, "rename %s to %s", before, name);
	strcpy(r->name, before);
	return -1;
}

int
ring_remove(struct ring *r, int dirfd, struct err *err)
{
	if (unlinkat(dirfd, r->name, 0) == -1 && errno != ENOENT)
		return err_set_errno(err, "remove %s", r->name);
	ring_close(r);
	return 0;
}

void
ring_close(struct ring *r)
{
	if (r == NULL)
		return;
	mapguard_remove(r->guards[0]);
	mapguard_remove(r->guards[1]);
	ring_slots_fini(r);
	if (r->h != NULL)
		munmap(r->h, r->mapped);
	if (r->fd != -1)
		close(r->fd);
	free(r);
}

static struct ring_entry *
entry_at(const struct ring *r, uint64_t pos)
{
	return (struct ring_entry *)(void *)(r->data + pos % r->size);
}

/* ---- producer ---- */

static bool
fits(const struct ring *r, uint64_t need)
{
	return r->head - r->tail_seen + r->claimed + need <= r->size;
}

bool
ring_claim(struct ring *r, size_t max)
{
	uint64_t need = ring_entry_size(max);

	if (!fits(r, need))
		r->tail_seen = atomic_load_explicit(&r->h->tail, memory_order_acquire);
	if (!fits(r, need)) {
		/* As with head and sleep: say so, then look once more; the consumer moves tail, then
		 * looks whether we said so. */
		atomic_store(&r->h->starved, 1);
		r->tail_seen = atomic_load(&r->h->tail);
		if (!fits(r, need))
			return false;
	}
	/* After the tail: who sees room that was released sees too when there is none behind it. */
	if (ring_state(r) != RING_OK)
		return false;
	r->claimed += need;
	return true;
}

void
ring_unclaim(struct ring *r, size_t max)
{
	assert(r->claimed >= ring_entry_size(max));
	r->claimed -= ring_entry_size(max);
}

char *
ring_line(struct ring *r, size_t max)
{
	assert(r->claimed >= ring_entry_size(max));
	return entry_at(r, r->head)->line;
}

uint64_t
ring_commit(struct ring *r, size_t max, size_t n, unsigned flags)
{
	struct ring_entry *e = entry_at(r, r->head);

	assert(n <= max);
	ring_unclaim(r, max);
	e->length = (uint32_t)n;
	e->flags = flags;
	e->epoch = r->epoch;
	e->crc = ring_entry_crc(e, r->head);
	FAULT_POINT("ring.before_head");
	r->head += ring_entry_size(n);
	/* Sequentially consistent, not just release: the consumer says that it sleeps and then
	 * looks at head; the producer moves head and then looks whether the consumer sleeps. */
	atomic_store(&r->h->head, r->head);
	atomic_store_explicit(&r->committed,
	    atomic_load_explicit(&r->committed, memory_order_relaxed) + 1, memory_order_release);
	return r->head;
}

const char *
ring_name(const struct ring *r)
{
	return r->name;
}

size_t
ring_size(const struct ring *r)
{
	return r->size;
}

uint64_t
ring_durable(const struct ring *r)
{
	return atomic_load_explicit(&r->h->tail, memory_order_acquire);
}

enum ring_state
ring_state(const struct ring *r)
{
	return (enum ring_state)atomic_load_explicit(&r->h->state, memory_order_relaxed);
}

/* ---- consumer ---- */

bool
ring_has_more(struct ring *r, uint64_t pos)
{
	return pos < r->head_seen || pos < (r->head_seen = atomic_load(&r->h->head));
}

/* Not so only where somebody has cut the file, or written into it. */
static bool
is_entry(const struct ring *r, uint64_t pos)
{
	const struct ring_entry *e = entry_at(r, pos);
	uint64_t left = r->head_seen - pos;

	return left >= sizeof(*e) && e->epoch == r->epoch && ring_entry_size(e->length) <= left &&
	       e->crc == ring_entry_crc(e, pos);
}

bool
ring_next(struct ring *r, uint64_t *pos, struct slice *line, unsigned *flags)
{
	const struct ring_entry *e;

	while (ring_has_more(r, *pos) && !is_entry(r, *pos))
		*pos += 8;
	if (*pos >= r->head_seen)
		return false;
	e = entry_at(r, *pos);
	*line = (struct slice){ e->line, e->length };
	*flags = e->flags;
	*pos += ring_entry_size(e->length);
	return true;
}

uint64_t
ring_count(struct ring *r, uint64_t pos, unsigned flag)
{
	uint64_t n = 0;

	while (ring_has_more(r, pos)) {
		n += flag == 0 || (entry_at(r, pos)->flags & flag) != 0;
		pos += ring_entry_size(entry_at(r, pos)->length);
	}
	return n;
}

uint64_t
ring_committed(const struct ring *r)
{
	return atomic_load_explicit(&r->committed, memory_order_acquire);
}

uint64_t
ring_tail(const struct ring *r)
{
	return r->released;
}

/* Killed between two of these stores, recovery finds a mark that is too old for the tail, never one
 * that is too new: it then compares with more lines than it had to. */
void
ring_release(struct ring *r, uint64_t pos, uint64_t segment, uint64_t offset)
{
	r->released = pos;
	atomic_store(&r->h->tail, pos);
	FAULT_POINT("ring.after_tail");
	atomic_store_explicit(&r->h->offset, offset, memory_order_release);
	atomic_store_explicit(&r->h->segment, segment, memory_order_release);
}

/* What recovery needs is put back; of the rest the next stores take care. */
bool
ring_was_cut(struct ring *r)
{
	bool queue = mapguard_was_cut(r->guards[0]), slots = mapguard_was_cut(r->guards[1]);
	struct ring_opts opts = {
		.size = r->size, .slots = r->slots.n, .slot_size = r->slots.slot_size
	};

	if (!queue && !slots)
		return false;
	put_identity(r->h, &opts, r->epoch);
	atomic_store(&r->h->tail, r->released);
	ring_put_horizon(r);
	return true;
}

static bool
is_named(const struct ring *r, int dirfd)
{
	struct stat own, named;

	return fstat(r->fd, &own) == -1 ||
	       (fstatat(dirfd, r->name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
		   named.st_ino == own.st_ino && named.st_dev == own.st_dev);
}

/* A file without any name gets none again.  What has taken the name must not be read as this ring:
 * the next start had better miss it. */
static int
link_again(const struct ring *r, int dirfd)
{
	char self[32], aside[sizeof(r->name) + 16];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", r->fd);
	snprintf(aside, sizeof(aside), "replaced.%s", r->name);
	if (renameat(dirfd, r->name, dirfd, aside) == -1 && errno != ENOENT)
		return -1;
	FAULT_POINT("mend.before_link");
	if (linkat(AT_FDCWD, self, dirfd, r->name, AT_SYMLINK_FOLLOW) == -1)
		return -1;
	return fsync(dirfd);
}

const char *
ring_was_unlinked(struct ring *r, int dirfd, bool *mended)
{
	bool told = r->unlinked, there = is_named(r, dirfd);

	*mended = !there && link_again(r, dirfd) == 0;
	r->unlinked = !there && !*mended;
	return there || told ? NULL : r->name;
}

bool
ring_was_starved(struct ring *r)
{
	return atomic_load(&r->h->starved) != 0 && atomic_exchange(&r->h->starved, 0) != 0;
}

/* States first: a call commits before it closes, so that what is closed shows in the head. */
static bool
holds_nothing(const struct ring *r)
{
	return !ring_slots_open(r) && atomic_load(&r->h->head) == r->released;
}

/* The horizon is 0 until a slot is published. */
uint64_t
ring_needs_from(const struct ring *r)
{
	uint64_t horizon;

	if (holds_nothing(r))
		return UINT64_MAX;
	horizon = atomic_load_explicit(&r->h->horizon_segment, memory_order_acquire);
	return horizon != 0 ? horizon : UINT64_MAX;
}

/* Not the data: an entry counts only from the tail on. */
int
ring_settle(struct ring *r, struct err *err)
{
	if (msync(r->h, ring_page(), MS_SYNC) == -1 ||
	    (r->slots.n > 0 && msync(r->slots.states, r->slots.mapped, MS_SYNC) == -1))
		return err_set_errno(err, "sync %s", r->name);
	return 0;
}

void
ring_set_state(struct ring *r, enum ring_state state)
{
	atomic_store_explicit(&r->h->state, state, memory_order_relaxed);
}
