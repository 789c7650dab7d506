/* Recovery: what a killed process left in a ring's file. */
#include "keytrail/crc32c.h"
#include "keytrail/fault.h"
#include "ring_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The ring's bytes, twice in a row as in the mapping. */
static char *
read_data(int fd, size_t size, const char *name, struct err *err)
{
	char *data = calloc(2, size);

	if (data == NULL) {
		err_set_errno(err, "%s", name);
		return NULL;
	}
	if (ring_read(fd, data, size, ring_page(), name, err) == -1) {
		free(data);
		return NULL;
	}
	memcpy(data + size, data, size);
	return data;
}

/* The entry at pos, or NULL.  `left` bytes may be looked at. */
static const struct ring_entry *
find_entry(const struct ring_header *h, const char *data, uint64_t pos, uint64_t left)
{
	const struct ring_entry *e = (const void *)(data + pos % h->size);

	if (left < sizeof(*e) || e->epoch != h->epoch || ring_entry_size(e->length) > left ||
	    e->crc != ring_entry_crc(e, pos))
		return NULL;
	return e;
}

/* The head is not believed: after a power cut its page may be older than the entries. */
static int
walk_entries(
    const struct ring_header *h, const char *data, ring_recover_fn each, void *arg, struct err *err)
{
	uint64_t pos = h->tail, end = h->tail + h->size;
	const struct ring_entry *e;

	while (pos < end) {
		if ((e = find_entry(h, data, pos, end - pos)) == NULL) {
			pos += 8;
			continue;
		}
		if (each(arg, (struct slice){ e->line, e->length }, e->flags & ~RING_SLOT,
			h->segment, h->offset, err) == -1)
			return -1;
		pos += ring_entry_size(e->length);
	}
	return 0;
}

/* ---- slots ---- */

struct open_slot {
	uint64_t serial;
	uint32_t index;
};

struct slots {
	int fd;
	const struct ring_header *h;
	const char *name;
	uint64_t *states, *replaced;
	size_t nreplaced;
	struct open_slot *open;
	size_t nopen;
	struct ring_slot *slot; /* the last one read */
};

/* 1; 0: there is no call in it; -1. */
static int
read_slot(const struct slots *t, uint32_t index, struct err *err)
{
	const struct ring_header *h = t->h;
	const struct ring_slot *s = t->slot;
	size_t size = ring_slot_bytes(h->slot_size);
	size_t at = ring_page() + h->size + ring_states_bytes(h->slots) + index * size;

	if (t->states[index] != ring_slot_open_word(h->epoch))
		return 0;
	if (ring_read(t->fd, t->slot, size, at, t->name, err) == -1)
		return -1;
	return s->epoch == h->epoch && s->length <= h->slot_size &&
	       s->crc == ring_slot_crc(s, index);
}

static bool
is_replaced(const struct slots *t, uint64_t serial)
{
	for (size_t i = 0; i < t->nreplaced; i++)
		if (t->replaced[i] == serial)
			return true;
	return false;
}

/* Which slots are open, and which of them others have taken the place of. */
static int
find_open(struct slots *t, struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < t->h->slots && rc != -1; i++) {
		if ((rc = read_slot(t, i, err)) != 1)
			continue;
		t->open[t->nopen++] = (struct open_slot){ t->slot->serial, i };
		for (size_t k = 0; k < RING_REPLACED; k++)
			if (t->slot->instead_of[k] != 0)
				t->replaced[t->nreplaced++] = t->slot->instead_of[k];
	}
	return rc == -1 ? -1 : 0;
}

static int
compare_open(const void *a, const void *b)
{
	const struct open_slot *x = a, *y = b;

	return (x->serial > y->serial) - (x->serial < y->serial);
}

/* In the order in which they were published. */
static int
walk_open(struct slots *t, ring_recover_fn each, void *arg, struct err *err)
{
	const struct ring_slot *s = t->slot;
	int rc = 0;

	qsort(t->open, t->nopen, sizeof(*t->open), compare_open);
	for (size_t i = 0; i < t->nopen && rc != -1; i++)
		if (!is_replaced(t, t->open[i].serial) &&
		    (rc = read_slot(t, t->open[i].index, err)) == 1)
			rc = each(arg, (struct slice){ s->line, s->length }, RING_SLOT, s->segment,
			    s->offset, err);
	return rc == -1 ? -1 : 0;
}

static int
walk_slots(int fd, const struct ring_header *h, const char *name, ring_recover_fn each, void *arg,
    struct err *err)
{
	size_t bytes = h->slots * sizeof(uint64_t);
	struct slots t = { .fd = fd, .h = h, .name = name };
	int rc = -1;

	t.states = calloc(1 + RING_REPLACED, bytes + 1);
	t.slot = malloc(ring_slot_bytes(h->slot_size));
	t.open = calloc(h->slots + 1, sizeof(*t.open));
	if (t.states == NULL || t.slot == NULL || t.open == NULL) {
		err_set_errno(err, "recover slots");
		goto out;
	}
	t.replaced = t.states + h->slots;
	if (ring_read(fd, t.states, bytes, ring_page() + h->size, name, err) == 0 &&
	    find_open(&t, err) == 0)
		rc = walk_open(&t, each, arg, err);
out:
	free(t.states);
	free(t.slot);
	free(t.open);
	return rc;
}

int
ring_recover(int dirfd, const char *name, ring_recover_fn each, void *arg, struct err *err)
{
	struct ring_header h;
	char *data = NULL;
	int fd, rc = -1;

	if ((fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	if (ring_read_header(fd, &h, name, err) == -1)
		goto out;
	if (!ring_header_valid(&h) || h.tail % 8 != 0) {
		rc = 0;
		goto out;
	}
	if ((data = read_data(fd, h.size, name, err)) != NULL &&
	    walk_entries(&h, data, each, arg, err) == 0)
		rc = walk_slots(fd, &h, name, each, arg, err);
out:
	free(data);
	close(fd);
	return rc;
}

int
ring_horizon(int dirfd, const char *name, uint64_t *segment, uint64_t *offset, struct err *err)
{
	struct ring_header h;
	int fd, rc;

	*segment = *offset = 0;
	if ((fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	rc = ring_read_header(fd, &h, name, err);
	close(fd);
	if (rc == -1 || !ring_header_valid(&h))
		return rc;
	/* Killed between the two stores of a mark, its halves are of two marks: lines that count
	 * are behind the younger one, so in its segment or a later one. */
	*segment = h.horizon_segment != 0 ? h.horizon_segment : h.segment;
	*offset = h.horizon_segment != 0 ? h.horizon_offset : h.offset;
	return 0;
}

int
ring_look_for_cut(int fd, const struct ring_header *h, bool *cut, const char *name, struct err *err)
{
	struct ring_opts opts = { .size = h->size, .slots = h->slots, .slot_size = h->slot_size };
	struct stat st;

	*cut = false;
	if (!ring_header_valid(h))
		return 0;
	if (fstat(fd, &st) == -1)
		return err_set_errno(err, "%s", name);
	*cut = (uint64_t)st.st_size < ring_file_size(&opts);
	return 0;
}

int
ring_is_cut(int dirfd, const char *name, bool *cut, struct err *err)
{
	struct ring_header h;
	int fd, rc;

	*cut = false;
	if ((fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	if ((rc = ring_read_header(fd, &h, name, err)) == 0)
		rc = ring_look_for_cut(fd, &h, cut, name, err);
	close(fd);
	return rc;
}

/* One that is cut is emptied: no later start is to find it again. */
int
ring_clear(int dirfd, const char *name, struct err *err)
{
	struct ring_header h;
	struct ring_opts opts;
	uint32_t epoch;
	bool cut;
	int fd, rc = -1;

	if ((fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	if (ring_read_header(fd, &h, name, err) == -1 ||
	    ring_look_for_cut(fd, &h, &cut, name, err) == -1)
		goto out;
	opts = (struct ring_opts){ .size = h.size, .slots = h.slots, .slot_size = h.slot_size };
	if (!ring_header_valid(&h))
		rc = 0;
	else if (cut)
		rc = ftruncate(fd, 0) == -1 ? err_set_errno(err, "clear %s", name) : 0;
	else if (ring_next_epoch(&h, &epoch, err) == 0)
		rc = ring_write_header(fd, &opts, epoch, name, err);
	FAULT_POINT("recover.after_clear");
out:
	close(fd);
	return rc;
}
