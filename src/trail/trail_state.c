#include "keytrail/crc32c.h"
#include "keytrail/fault.h"
#include "keytrail/file.h"
#include "keytrail/mapguard.h"
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC	  "KTSTATE\n"
#define VERSION	  8
#define PAGE	  4096
#define SECTOR	  512
#define TRIES_MAX 1000

/* Of marks and of identities there are two each, written in turn: whoever is killed while writing
 * one leaves the other, and so does a power cut. */
struct slot {
	_Atomic uint64_t seq, segment, offset, generation;
	_Atomic uint64_t sum;
};

struct identity {
	uint64_t generation;
	struct trail_log log;
	char boot[TRAIL_ID_SIZE];
	bool clean, unrecorded;
	uint32_t rings;
	struct trail_recovery found;
	struct trail_gone gone;
	struct trail_holds_sums holds;
	_Atomic uint64_t sum; /* of all before */
};

struct page {
	char magic[8];
	uint32_t version;
	_Atomic uint64_t generation; /* the slot to read is the one of its lowest bit */
	struct slot slots[2];
	struct {
		_Alignas(SECTOR) struct identity of;
	} identities[2];
};

_Static_assert(offsetof(struct page, identities) <= SECTOR && sizeof(struct identity) <= SECTOR &&
		   sizeof(struct page) <= PAGE,
    "the parts of the state page must not be torn by a power cut");

struct trail_state {
	struct page *page;
	int fd; /* of the writer, else -1 */
	int guard;
	dev_t dev;
	ino_t ino;
};

uint32_t
trail_state_version(void)
{
	return VERSION;
}

static uint64_t
slot_sum(uint64_t generation, const struct trail_mark *m)
{
	uint64_t words[4] = { generation, m->seq, m->segment, m->offset };

	return crc32c(0, words, sizeof(words));
}

static uint64_t
identity_sum(const struct identity *id)
{
	return crc32c(0, id, offsetof(struct identity, sum));
}

/* Looked at as a byte: to load any other one as a bool is undefined. */
static bool
is_flag(const bool *flag)
{
	return *(const unsigned char *)flag <= 1;
}

/* Whoever made its sum. */
static bool
is_sane(const struct identity *id)
{
	return is_flag(&id->clean) && is_flag(&id->unrecorded) && is_flag(&id->found.new_log) &&
	       is_flag(&id->found.clean) && is_flag(&id->found.state_lost) &&
	       id->gone.n <= TRAIL_TOLD_MAX && id->log.id[TRAIL_ID_SIZE - 1] == '\0' &&
	       id->boot[TRAIL_ID_SIZE - 1] == '\0' &&
	       id->found.given_up[TRAIL_ID_SIZE - 1] == '\0' &&
	       id->found.previous_boot[TRAIL_ID_SIZE - 1] == '\0';
}

/* The latest valid one, or NULL. */
static const struct identity *
find_identity(const struct page *p)
{
	const struct identity *best = NULL;

	for (size_t i = 0; i < 2; i++) {
		const struct identity *id = &p->identities[i].of;

		if (id->generation > 0 && id->sum == identity_sum(id) && is_sane(id) &&
		    (best == NULL || id->generation > best->generation))
			best = id;
	}
	return best;
}

static void
store_identity(struct page *p, const struct trail_state_info *info)
{
	const struct identity *last = find_identity(p);
	struct identity next, *to;

	memset(
	    &next, 0, sizeof(next)); /* padding, too: what lies on the stack is nobody's business */
	next.generation = last != NULL ? last->generation + 1 : 1;
	next.log.base = info->log.base;
	memcpy(next.log.id, info->log.id, sizeof(next.log.id));
	next.clean = info->clean;
	next.unrecorded = info->unrecorded;
	next.rings = info->rings;
	next.found = info->found;
	next.gone = info->gone;
	next.holds = info->holds;
	to = &p->identities[next.generation & 1].of;
	memcpy(next.boot, info->boot, sizeof(next.boot));
	memcpy(to, &next, offsetof(struct identity, sum));
	FAULT_POINT("state.within_identity");
	atomic_store_explicit(&to->sum, identity_sum(&next), memory_order_release);
}

static void
slot_store(struct slot *s, uint64_t generation, const struct trail_mark *m)
{
	atomic_store_explicit(&s->sum, 0, memory_order_release);
	FAULT_POINT("state.within_slot");
	atomic_store_explicit(&s->seq, m->seq, memory_order_release);
	atomic_store_explicit(&s->segment, m->segment, memory_order_release);
	atomic_store_explicit(&s->offset, m->offset, memory_order_release);
	atomic_store_explicit(&s->generation, generation, memory_order_release);
	atomic_store_explicit(&s->sum, slot_sum(generation, m), memory_order_release);
}

static bool
slot_load(const struct slot *s, uint64_t *generation, struct trail_mark *m)
{
	uint64_t sum = atomic_load_explicit(&s->sum, memory_order_acquire);

	m->seq = atomic_load_explicit(&s->seq, memory_order_acquire);
	m->segment = atomic_load_explicit(&s->segment, memory_order_acquire);
	m->offset = atomic_load_explicit(&s->offset, memory_order_acquire);
	*generation = atomic_load_explicit(&s->generation, memory_order_acquire);
	return sum == slot_sum(*generation, m);
}

static bool
page_valid(const struct page *p)
{
	return memcmp(p->magic, MAGIC, sizeof(p->magic)) == 0 && p->version == VERSION;
}

int
trail_state_load(int dirfd, struct trail_state_info *out, struct err *err)
{
	union {
		char bytes[PAGE];
		struct page page;
	} file = { { 0 } };
	const struct page *p = &file.page;
	const struct identity *id;
	struct trail_mark m;
	uint64_t generation, best = 0;
	int fd;

	*out = (struct trail_state_info){ 0 };
	if ((fd = openat(dirfd, "state", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open state");
	if (file_read(fd, file.bytes, PAGE, 0) == -1) {
		close(fd);
		return err_set_errno(err, "read state");
	}
	close(fd);
	if (!page_valid(p) || (id = find_identity(p)) == NULL)
		return 0;
	for (size_t i = 0; i < 2; i++)
		if (slot_load(&p->slots[i], &generation, &m) &&
		    (!out->valid || generation > best)) {
			out->valid = true;
			out->mark = m;
			best = generation;
		}
	out->log = id->log;
	memcpy(out->boot, id->boot, sizeof(out->boot));
	out->clean = id->clean;
	out->rings = id->rings;
	out->unrecorded = id->unrecorded;
	out->found = id->found;
	out->gone = id->gone;
	out->holds = id->holds;
	return 0;
}

static int
map_page(int dirfd, const char *name, int flags, struct trail_state **out, struct err *err)
{
	int prot = (flags & O_ACCMODE) == O_RDWR ? PROT_READ | PROT_WRITE : PROT_READ;
	struct trail_state *s = NULL;
	struct stat st;
	int fd;

	if ((fd = openat(dirfd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600)) == -1)
		return err_set_errno(err, "open %s", name);
	if ((flags & O_ACCMODE) == O_RDWR && file_reserve(fd, PAGE) == -1) {
		err_set_errno(err, "reserve state");
		goto fail;
	}
	if (fstat(fd, &st) == -1 || st.st_size < PAGE) {
		err_set(err, "state: not a page");
		goto fail;
	}
	if ((s = malloc(sizeof(*s))) == NULL ||
	    (s->page = mmap(NULL, PAGE, prot, MAP_SHARED, fd, 0)) == MAP_FAILED) {
		err_set_errno(err, "map state");
		goto fail;
	}
	s->fd = (flags & O_ACCMODE) == O_RDWR ? fd : -1;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	s->guard = mapguard_add(s->page, PAGE, s->fd, PAGE);
	if (s->fd == -1)
		close(fd);
	*out = s;
	return 0;
fail:
	free(s);
	close(fd);
	return -1;
}

static int
sync_page(struct trail_state *s, struct err *err)
{
	if (msync(s->page, PAGE, MS_SYNC) == -1)
		return err_set_errno(err, "sync state");
	return 0;
}

/* The identity first: it has what the mark hides. */
static int
fill_page(struct trail_state *s, const struct trail_state_info *info, struct err *err)
{
	struct page *p = s->page;

	store_identity(p, info);
	if (sync_page(s, err) == -1)
		return -1;
	trail_state_publish(s, &info->mark);
	p->version = VERSION;
	memcpy(p->magic, MAGIC, sizeof(p->magic));
	return sync_page(s, err);
}

bool
trail_state_mend(struct trail_state *s, const struct trail_state_info *info)
{
	struct err err;

	if (!mapguard_was_cut(s->guard))
		return false;
	fill_page(s, info, &err);
	return true;
}

int
trail_state_create(
    int dirfd, const struct trail_state_info *info, struct trail_state **out, struct err *err)
{
	if (map_page(dirfd, "state", O_RDWR | O_CREAT, out, err) == -1)
		return -1;
	if (fill_page(*out, info, err) == -1)
		goto fail;
	if (fsync(dirfd) == -1) {
		err_set_errno(err, "sync state");
		goto fail;
	}
	return 0;
fail:
	trail_state_unmap(*out);
	*out = NULL;
	return -1;
}

/* Under its name there is never half a page. */
int
trail_state_replace(
    int dirfd, const struct trail_state_info *info, struct trail_state **s, struct err *err)
{
	struct trail_state *new;

	unlinkat(dirfd, "state.new", 0);
	if (map_page(dirfd, "state.new", O_RDWR | O_CREAT | O_EXCL, &new, err) == -1)
		return -1;
	if (fill_page(new, info, err) == -1)
		goto fail;
	FAULT_POINT("mend.before_rename");
	if (renameat(dirfd, "state.new", dirfd, "state") == -1 || fsync(dirfd) == -1) {
		err_set_errno(err, "put state in its place");
		goto fail;
	}
	FAULT_POINT("mend.after_rename");
	trail_state_unmap(*s);
	*s = new;
	return 0;
fail:
	trail_state_unmap(new);
	return -1;
}

bool
trail_state_is_named(const struct trail_state *s, int dirfd)
{
	struct stat st;

	return fstatat(dirfd, "state", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == s->ino &&
	       st.st_dev == s->dev;
}

int
trail_state_map(int dirfd, struct trail_state **out, struct err *err)
{
	if (faccessat(dirfd, "state", F_OK, 0) == -1 && errno == ENOENT)
		return err_set(err, "no trail here: there is no file \"state\"");
	if (map_page(dirfd, "state", O_RDONLY, out, err) == -1)
		return -1;
	if (!page_valid((*out)->page)) {
		trail_state_unmap(*out);
		*out = NULL;
		return err_set(err, "state: not the state of a trail");
	}
	return 0;
}

void
trail_state_unmap(struct trail_state *s)
{
	if (s == NULL)
		return;
	mapguard_remove(s->guard);
	munmap(s->page, PAGE);
	if (s->fd != -1)
		close(s->fd);
	free(s);
}

bool
trail_state_read_log(const struct trail_state *s, struct trail_log *out)
{
	struct page page;
	const struct identity *id;

	for (int i = 0; i < TRIES_MAX; i++) {
		memcpy(&page, s->page, sizeof(page));
		if ((id = find_identity(&page)) != NULL) {
			*out = id->log;
			return true;
		}
	}
	return false;
}

void
trail_state_publish(struct trail_state *s, const struct trail_mark *m)
{
	struct page *p = s->page;
	uint64_t generation = atomic_load_explicit(&p->generation, memory_order_relaxed) + 1;

	slot_store(&p->slots[generation & 1], generation, m);
	FAULT_POINT("state.before_generation");
	atomic_store_explicit(&p->generation, generation, memory_order_release);
}

bool
trail_state_read(const struct trail_state *s, struct trail_mark *out)
{
	const struct page *p = s->page;

	for (int i = 0; i < TRIES_MAX; i++) {
		uint64_t g = atomic_load_explicit(&p->generation, memory_order_acquire), seen;

		/* The slot is overwritten only after the generation has moved on. */
		if (slot_load(&p->slots[g & 1], &seen, out) && seen == g &&
		    atomic_load_explicit(&p->generation, memory_order_acquire) == g)
			return true;
	}
	return false;
}

int
trail_state_identify(struct trail_state *s, const struct trail_state_info *info, struct err *err)
{
	store_identity(s->page, info);
	return sync_page(s, err);
}
