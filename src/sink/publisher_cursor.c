#include "publisher_cursor.h"

#include "keytrail/crc32c.h"
#include "keytrail/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define SLOT_SIZE 512
#define SLOTS	  2

struct slot {
	char magic[8];
	uint64_t generation;
	uint64_t seq;
	char log[TRAIL_ID_SIZE], boot[TRAIL_ID_SIZE];
	char pad[6];
	uint64_t delivered;
	char unused[SLOT_SIZE - 4 * 8 - 2 * TRAIL_ID_SIZE - 6 - 4];
	uint32_t sum; /* of all before it */
};
_Static_assert(sizeof(struct slot) == SLOT_SIZE, "a slot is one sector");

static const char magic[8] = { 'k', 't', 'c', 'u', 'r', 's', 'r', '1' };

static uint32_t
sum_of(const struct slot *slot)
{
	return crc32c(0, slot, offsetof(struct slot, sum));
}

static bool
is_valid(const struct slot *slot)
{
	return memcmp(slot->magic, magic, sizeof(magic)) == 0 && slot->sum == sum_of(slot) &&
	       slot->log[TRAIL_ID_SIZE - 1] == '\0' && slot->boot[TRAIL_ID_SIZE - 1] == '\0';
}

static void
take_slot(struct cursor *c, const struct slot *slot)
{
	c->generation = slot->generation;
	c->at.seq = slot->seq;
	c->at.delivered = slot->delivered;
	memcpy(c->at.log, slot->log, TRAIL_ID_SIZE);
	memcpy(c->at.boot, slot->boot, TRAIL_ID_SIZE);
}

static bool
all_zero(const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	for (size_t i = 0; i < n; i++)
		if (p[i] != 0)
			return false;
	return true;
}

/* A file that was never written in full is a new one; what cannot be read is none. */
static enum cursor_found
read_slots(struct cursor *c)
{
	struct slot slots[SLOTS] = { 0 };
	bool known = false;
	ssize_t n = file_read(c->fd, slots, sizeof(slots), 0);

	if (n == -1)
		return CURSOR_DAMAGED;
	for (int i = 0; i < SLOTS; i++) {
		if (!is_valid(&slots[i]) || (known && slots[i].generation < c->generation))
			continue;
		take_slot(c, &slots[i]);
		known = true;
	}
	if (known)
		return CURSOR_KNOWN;
	return n == (ssize_t)sizeof(slots) && !all_zero(slots, sizeof(slots)) ? CURSOR_DAMAGED
									      : CURSOR_NEW;
}

/* Zeros are written, not only reserved: a later write then needs no new block. */
static int
reserve(int dirfd, int fd)
{
	static const char zeros[SLOTS * SLOT_SIZE];

	if (file_write(fd, zeros, sizeof(zeros), 0) == -1 || fsync(fd) == -1)
		return -1;
	return fsync(dirfd);
}

int
cursor_open(
    int dirfd, const char *name, struct cursor *c, enum cursor_found *found, struct err *err)
{
	*c = (struct cursor){ .fd = -1 };
	c->fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (c->fd == -1)
		return err_set_errno(err, "%s: open", name);
	*found = read_slots(c);
	if (*found == CURSOR_NEW && reserve(dirfd, c->fd) == -1) {
		err_set_errno(err, "%s: reserve", name);
		cursor_close(c);
		return -1;
	}
	return 0;
}

bool
cursor_look(int dirfd, const char *name, struct line_id *out)
{
	struct cursor c = { .fd = openat(
				dirfd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW) };
	bool known;

	if (c.fd == -1)
		return false;
	known = read_slots(&c) == CURSOR_KNOWN;
	*out = c.at;
	cursor_close(&c);
	return known;
}

void
cursor_close(struct cursor *c)
{
	if (c->fd != -1)
		close(c->fd);
	c->fd = -1;
}

int
cursor_write(struct cursor *c, const struct line_id *at)
{
	struct slot slot = {
		.generation = c->generation + 1, .seq = at->seq, .delivered = at->delivered
	};

	memcpy(slot.magic, magic, sizeof(magic));
	memcpy(slot.log, at->log, TRAIL_ID_SIZE);
	memcpy(slot.boot, at->boot, TRAIL_ID_SIZE);
	slot.sum = sum_of(&slot);
	if (file_write(c->fd, &slot, sizeof(slot), (off_t)(slot.generation % SLOTS * SLOT_SIZE)) ==
	    -1)
		return -1;
	take_slot(c, &slot);
	return 0;
}

int
cursor_sync(struct cursor *c)
{
	return fdatasync(c->fd);
}
