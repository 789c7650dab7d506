#include "keytrail/ring.h"

#include "keytrail/crc32c.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC	"KTRING\r\n"
#define VERSION 1
#define LINE	64 /* bytes of a cache line */

/* Each group of members has one writer and a cache line of its own. */
struct header {
	char magic[8];
	uint32_t version;
	uint32_t epoch;
	uint64_t size;
	/* producer */
	_Alignas(LINE) _Atomic uint64_t head;
	/* consumer; all in one disk sector, so that a power cut keeps them together */
	_Alignas(LINE) _Atomic uint64_t tail;
	_Atomic uint64_t offset;
	_Atomic uint64_t segment;
	_Alignas(LINE) _Atomic uint32_t state;
	_Atomic uint32_t starved; /* the producer found no room since the last release */
};

struct entry {
	uint32_t crc; /* of the position and of all that follows */
	uint32_t length;
	uint32_t flags;
	uint32_t epoch;
	char line[];
};

struct ring {
	struct header *h;
	char *data; /* size bytes, twice */
	size_t size;
	size_t mapped;
	uint32_t epoch;
	/* producer's own */
	_Alignas(LINE) uint64_t head;
	uint64_t claimed;
	uint64_t tail_seen;
	/* consumer's own */
	_Alignas(LINE) uint64_t head_seen;
};

static size_t
page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static uint64_t
entry_size(size_t n)
{
	return (sizeof(struct entry) + n + 7) & ~(uint64_t)7;
}

static uint32_t
entry_crc(const struct entry *e, uint64_t pos)
{
	return crc32c(crc32c(0, &pos, sizeof(pos)), &e->length,
	    sizeof(*e) - offsetof(struct entry, length) + e->length);
}

static bool
header_valid(const struct header *h)
{
	return memcmp(h->magic, MAGIC, sizeof(h->magic)) == 0 && h->version == VERSION &&
	       h->size > 0 && h->size <= RING_SIZE_MAX && h->size % 8 == 0;
}

static int
read_header(int fd, struct header *h, const char *name, struct err *err)
{
	ssize_t n;

	memset(h, 0, sizeof(*h));
	if ((n = pread(fd, h, sizeof(*h), 0)) == -1)
		return err_set_errno(err, "read %s", name);
	if ((size_t)n < sizeof(*h))
		memset(h, 0, sizeof(*h));
	return 0;
}

/* The epoch after the one in h; a random one when h is none: bytes left in the file by an unknown
 * past must not look like entries. */
static int
next_epoch(const struct header *h, uint32_t *epoch, struct err *err)
{
	if (header_valid(h))
		*epoch = h->epoch + 1;
	else if (getrandom(epoch, sizeof(*epoch), 0) != sizeof(*epoch))
		return err_set_errno(err, "random bytes");
	return 0;
}

static int
write_header(int fd, size_t size, uint32_t epoch, const char *name, struct err *err)
{
	struct header h;

	memset(&h, 0, sizeof(h));
	memcpy(h.magic, MAGIC, sizeof(h.magic));
	h.version = VERSION;
	h.epoch = epoch;
	h.size = size;
	if (pwrite(fd, &h, sizeof(h), 0) != sizeof(h) || fdatasync(fd) == -1)
		return err_set_errno(err, "write %s", name);
	return 0;
}

/* Room on the disk is taken now: a store to a hole of a full file system would be a SIGBUS. */
static int
prepare_file(int fd, size_t size, uint32_t *epoch, const char *name, struct err *err)
{
	off_t total = (off_t)(page_size() + size);
	struct header h;
	struct stat st;
	int rc;

	if (read_header(fd, &h, name, err) == -1 || next_epoch(&h, epoch, err) == -1)
		return -1;
	if (fstat(fd, &st) == -1)
		return err_set_errno(err, "%s", name);
	if (st.st_size > total && ftruncate(fd, total) == -1)
		return err_set_errno(err, "cut %s", name);
	if ((rc = posix_fallocate(fd, 0, total)) != 0) {
		errno = rc;
		return err_set_errno(err, "reserve %lld bytes for %s", (long long)total, name);
	}
	return write_header(fd, size, *epoch, name, err);
}

static int
map_twice(struct ring *r, int fd, const char *name, struct err *err)
{
	size_t page = page_size();
	char *base;

	r->mapped = page + 2 * r->size;
	base = mmap(NULL, r->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return err_set_errno(err, "map %s", name);
	r->h = (struct header *)(void *)base;
	r->data = base + page;
	if (mmap(base, page + r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
		MAP_FAILED ||
	    mmap(base + page + r->size, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		(off_t)page) == MAP_FAILED)
		return err_set_errno(err, "map %s", name);
	return 0;
}

int
ring_open(int dirfd, const char *name, size_t size, struct ring **out, struct err *err)
{
	struct ring *r;
	int fd;

	if (size == 0 || size > RING_SIZE_MAX || size % page_size() != 0)
		return err_set(
		    err, "%s: a ring of %zu bytes is no multiple of the page", name, size);
	if ((r = aligned_alloc(LINE, sizeof(*r))) == NULL)
		return err_set_errno(err, "%s", name);
	*r = (struct ring){ .size = size };
	if ((fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)) == -1) {
		err_set_errno(err, "open %s", name);
		goto fail;
	}
	if (prepare_file(fd, size, &r->epoch, name, err) == -1 || map_twice(r, fd, name, err) == -1)
		goto fail;
	close(fd);
	*out = r;
	return 0;
fail:
	if (fd != -1)
		close(fd);
	ring_close(r);
	return -1;
}

void
ring_close(struct ring *r)
{
	if (r == NULL)
		return;
	if (r->h != NULL)
		munmap(r->h, r->mapped);
	free(r);
}

static struct entry *
entry_at(const struct ring *r, uint64_t pos)
{
	return (struct entry *)(void *)(r->data + pos % r->size);
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
	uint64_t need = entry_size(max);

	if (ring_state(r) != RING_OK)
		return false;
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
	r->claimed += need;
	return true;
}

void
ring_unclaim(struct ring *r, size_t max)
{
	assert(r->claimed >= entry_size(max));
	r->claimed -= entry_size(max);
}

char *
ring_line(struct ring *r, size_t max)
{
	assert(r->claimed >= entry_size(max));
	return entry_at(r, r->head)->line;
}

uint64_t
ring_commit(struct ring *r, size_t max, size_t n, unsigned flags)
{
	struct entry *e = entry_at(r, r->head);

	assert(n <= max);
	ring_unclaim(r, max);
	e->length = (uint32_t)n;
	e->flags = flags;
	e->epoch = r->epoch;
	e->crc = entry_crc(e, r->head);
	r->head += entry_size(n);
	/* Sequentially consistent, not just release: the consumer says that it sleeps and then
	 * looks at head; the producer moves head and then looks whether the consumer sleeps. */
	atomic_store(&r->h->head, r->head);
	return r->head;
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
ring_next(struct ring *r, uint64_t *pos, struct slice *line, unsigned *flags)
{
	const struct entry *e;

	if (*pos >= r->head_seen && *pos >= (r->head_seen = atomic_load(&r->h->head)))
		return false;
	e = entry_at(r, *pos);
	assert(entry_size(e->length) <= r->head_seen - *pos);
	*line = (struct slice){ e->line, e->length };
	*flags = e->flags;
	*pos += entry_size(e->length);
	return true;
}

uint64_t
ring_tail(const struct ring *r)
{
	return ring_durable(r);
}

/* Killed between two of these stores, recovery finds a mark that is too old for the tail, never one
 * that is too new: it then compares with more lines than it had to. */
void
ring_release(struct ring *r, uint64_t pos, uint64_t segment, uint64_t offset)
{
	atomic_store(&r->h->tail, pos);
	atomic_store_explicit(&r->h->offset, offset, memory_order_release);
	atomic_store_explicit(&r->h->segment, segment, memory_order_release);
}

bool
ring_was_starved(struct ring *r)
{
	return atomic_load(&r->h->starved) != 0 && atomic_exchange(&r->h->starved, 0) != 0;
}

void
ring_set_state(struct ring *r, enum ring_state state)
{
	atomic_store_explicit(&r->h->state, state, memory_order_relaxed);
}

/* ---- recovery ---- */

/* The ring's bytes, twice in a row as in the mapping.  What the file lacks reads as zeros. */
static char *
read_data(int fd, size_t size, const char *name, struct err *err)
{
	char *data = calloc(2, size);
	size_t done = 0;
	ssize_t n = 1;

	if (data == NULL) {
		err_set_errno(err, "%s", name);
		return NULL;
	}
	while (done < size && n != 0) {
		n = pread(fd, data + done, size - done, (off_t)(page_size() + done));
		if (n == -1 && errno != EINTR) {
			err_set_errno(err, "read %s", name);
			free(data);
			return NULL;
		}
		if (n > 0)
			done += (size_t)n;
	}
	memcpy(data + size, data, size);
	return data;
}

/* The entry at pos, or NULL.  `left` bytes may be looked at. */
static const struct entry *
find_entry(const struct header *h, const char *data, uint64_t pos, uint64_t left)
{
	const struct entry *e = (const void *)(data + pos % h->size);

	if (left < sizeof(*e) || e->epoch != h->epoch || entry_size(e->length) > left ||
	    e->crc != entry_crc(e, pos))
		return NULL;
	return e;
}

/* The head is not believed: after a power cut its page may be older than the entries. */
static int
walk_entries(
    const struct header *h, const char *data, ring_recover_fn each, void *arg, struct err *err)
{
	uint64_t pos = h->tail, end = h->tail + h->size;
	const struct entry *e;

	while (pos < end) {
		if ((e = find_entry(h, data, pos, end - pos)) == NULL) {
			pos += 8;
			continue;
		}
		if (each(arg, (struct slice){ e->line, e->length }, e->flags, h->segment, h->offset,
			err) == -1)
			return -1;
		pos += entry_size(e->length);
	}
	return 0;
}

int
ring_recover(int dirfd, const char *name, ring_recover_fn each, void *arg, struct err *err)
{
	struct header h;
	char *data = NULL;
	int fd, rc = -1;

	if ((fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	if (read_header(fd, &h, name, err) == -1)
		goto out;
	if (!header_valid(&h) || h.tail % 8 != 0) {
		rc = 0;
		goto out;
	}
	if ((data = read_data(fd, h.size, name, err)) != NULL)
		rc = walk_entries(&h, data, each, arg, err);
out:
	free(data);
	close(fd);
	return rc;
}

int
ring_clear(int dirfd, const char *name, struct err *err)
{
	struct header h;
	uint32_t epoch;
	int fd, rc = -1;

	if ((fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	if (read_header(fd, &h, name, err) == -1)
		goto out;
	if (!header_valid(&h))
		rc = 0;
	else if (next_epoch(&h, &epoch, err) == 0)
		rc = write_header(fd, h.size, epoch, name, err);
out:
	close(fd);
	return rc;
}
