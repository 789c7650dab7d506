/* Recovery: what a killed process left in a ring's file. */
#include "keytrail/crc32c.h"
#include "keytrail/fault.h"
#include "ring_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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
		n = pread(fd, data + done, size - done, (off_t)(ring_page() + done));
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

static bool
read_slot(int fd, const struct ring_header *h, uint32_t index, struct ring_slot *s)
{
	size_t size = ring_slot_bytes(h->slot_size);
	off_t at = (off_t)(ring_page() + h->size + ring_states_bytes(h->slots) + index * size);

	return pread(fd, s, size, at) == (ssize_t)size && s->epoch == h->epoch &&
	       s->length <= h->slot_size && s->crc == ring_slot_crc(s, index);
}

static bool
is_among(uint64_t serial, const uint64_t *serials, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (serials[i] == serial)
			return true;
	return false;
}

/* Which of the open slots others have taken the place of; how many. */
static size_t
find_replaced(int fd, const struct ring_header *h, const uint64_t *states, struct ring_slot *s,
    uint64_t *replaced)
{
	size_t n = 0;

	for (uint32_t i = 0; i < h->slots; i++)
		if (states[i] == ring_slot_open_word(h->epoch) && read_slot(fd, h, i, s))
			for (size_t k = 0; k < RING_REPLACED; k++)
				if (s->instead_of[k] != 0)
					replaced[n++] = s->instead_of[k];
	return n;
}

static int
walk_slots(int fd, const struct ring_header *h, ring_recover_fn each, void *arg, struct err *err)
{
	size_t bytes = h->slots * sizeof(uint64_t), nreplaced;
	uint64_t *states = calloc(1 + RING_REPLACED, bytes + 1), *replaced;
	struct ring_slot *s = malloc(ring_slot_bytes(h->slot_size));
	int rc = -1;

	if (states == NULL || s == NULL) {
		err_set_errno(err, "recover slots");
		goto out;
	}
	replaced = states + h->slots;
	if (pread(fd, states, bytes, (off_t)(ring_page() + h->size)) == -1) {
		err_set_errno(err, "read slots");
		goto out;
	}
	rc = 0;
	nreplaced = find_replaced(fd, h, states, s, replaced);
	for (uint32_t i = 0; i < h->slots && rc == 0; i++)
		if (states[i] == ring_slot_open_word(h->epoch) && read_slot(fd, h, i, s) &&
		    !is_among(s->serial, replaced, nreplaced))
			rc = each(arg, (struct slice){ s->line, s->length }, RING_SLOT, s->segment,
			    s->offset, err);
out:
	free(states);
	free(s);
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
		rc = walk_slots(fd, &h, each, arg, err);
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
ring_is_cut(int dirfd, const char *name, bool *cut, struct err *err)
{
	struct ring_header h;
	struct stat st;
	int fd, rc;

	*cut = false;
	if ((fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	rc = ring_read_header(fd, &h, name, err);
	if (rc == 0 && fstat(fd, &st) == -1)
		rc = err_set_errno(err, "%s", name);
	if (rc == 0 && ring_header_valid(&h))
		*cut = (uint64_t)st.st_size <
		       ring_file_size(&(struct ring_opts){
			   .size = h.size, .slots = h.slots, .slot_size = h.slot_size });
	close(fd);
	return rc;
}

int
ring_clear(int dirfd, const char *name, struct err *err)
{
	struct ring_header h;
	struct ring_opts opts;
	uint32_t epoch;
	int fd, rc = -1;

	if ((fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "open %s", name);
	if (ring_read_header(fd, &h, name, err) == -1)
		goto out;
	opts = (struct ring_opts){ .size = h.size, .slots = h.slots, .slot_size = h.slot_size };
	if (!ring_header_valid(&h))
		rc = 0;
	else if (ring_next_epoch(&h, &epoch, err) == 0)
		rc = ring_write_header(fd, &opts, epoch, name, err);
	FAULT_POINT("recover.after_clear");
out:
	close(fd);
	return rc;
}
