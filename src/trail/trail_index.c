#include "trail_index_internal.h"

#include "keytrail/file.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_NAME "index/key"

static_assert(sizeof(struct index_head) % sizeof(uint64_t) == 0 &&
		  sizeof(((struct index_head *)NULL)->log) >= TRAIL_ID_SIZE,
    "the head has no padding, and the log's ID fits");

struct slice
trail_index_value(struct slice line, enum trail_index_field field)
{
	static const struct slice names[TRAIL_INDEX_FIELDS] = {
		[TRAIL_INDEX_ACTION] = SLICE_INIT("action"),
		[TRAIL_INDEX_CORRELATION] = SLICE_INIT("correlationId"),
		[TRAIL_INDEX_INITIATOR] = SLICE_INIT("initiator"),
		[TRAIL_INDEX_OUTCOME] = SLICE_INIT("outcome"),
		[TRAIL_INDEX_SEVERITY] = SLICE_INIT("severity"),
	};
	struct slice value = trail_line_value(line, names[field]);

	return field == TRAIL_INDEX_INITIATOR ? trail_line_value(value, SLICE("id")) : value;
}

struct index_name
trail_index_name(uint64_t first)
{
	struct index_name name;

	snprintf(name.s, sizeof(name.s), "index/%020" PRIu64 ".idx", first);
	return name;
}

struct index_file
trail_index_file(const struct stat *st)
{
	return (struct index_file){ (uint64_t)st->st_size, st->st_ino,
		(int64_t)st->st_ctim.tv_sec * CLOCK_NS_PER_S + st->st_ctim.tv_nsec };
}

void
trail_index_remove(int dirfd, uint64_t first)
{
	unlinkat(dirfd, trail_index_name(first).s, 0);
}

/* ---- the key ---- */

static int
make_key(struct trail_index *ix, unsigned char key[KEYHASH_KEY_SIZE], struct err *err)
{
	if (getrandom(key, KEYHASH_KEY_SIZE, 0) != KEYHASH_KEY_SIZE)
		return err_set_errno(err, "random bytes");
	mkdirat(ix->dirfd, "index", 0700);
	return file_replace(
	    ix->dirfd, KEY_NAME, 0600, (struct slice){ (const char *)key, KEYHASH_KEY_SIZE }, err);
}

int
trail_index_load_key(struct trail_index *ix, bool make, struct err *err)
{
	unsigned char key[KEYHASH_KEY_SIZE];
	struct buf text = { 0 };
	int rc = 0;

	if (ix->hash != NULL)
		return 0;
	if (file_load(ix->dirfd, KEY_NAME, sizeof(key) + 1, &text, err) == -1)
		rc = -1;
	else if (buf_size(&text) == sizeof(key))
		memcpy(key, buf_slice(&text).p, sizeof(key));
	else if (make)
		rc = make_key(ix, key, err);
	else
		goto out;
	if (rc == 0 && (ix->hash = keyhash_new(key)) == NULL)
		rc = err_set(err, "index: memory is short");
out:
	buf_fini(&text);
	return rc;
}

uint64_t
trail_index_hash(struct trail_index *ix, struct slice text)
{
	uint64_t out[2];

	keyhash(ix->hash, text, out);
	return out[0];
}

uint64_t
trail_index_call(struct trail_index *ix, struct slice correlation, uint64_t place)
{
	return (trail_index_hash(ix, correlation) & ~(uint64_t)UINT32_MAX) | place;
}

/* ---- sets ---- */

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void
trail_index_sort(struct index_set *s)
{
	size_t n = 0;

	if (s->n > 0)
		qsort(s->v, s->n, sizeof(*s->v), compare);
	for (size_t i = 0; i < s->n; i++)
		if (n == 0 || s->v[i] != s->v[n - 1])
			s->v[n++] = s->v[i];
	s->n = n;
}

/* It grows only where what it holds once fills half of it. */
int
trail_index_add(struct index_set *s, uint64_t v)
{
	uint64_t *more;

	if (s->n == s->room) {
		trail_index_sort(s);
		if (s->n >= s->room / 2) {
			size_t room = s->room == 0 ? 1024 : 2 * s->room;

			if ((more = realloc(s->v, room * sizeof(*more))) == NULL)
				return -1;
			s->v = more;
			s->room = room;
		}
	}
	s->v[s->n++] = v;
	return 0;
}

void
trail_index_set_free(struct index_set *s)
{
	free(s->v);
	*s = (struct index_set){ .v = NULL };
}

size_t
trail_index_find(const struct index_set *s, uint64_t v)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->v[middle] < v)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* ---- the file ---- */

uint64_t
trail_index_seal_head(struct trail_index *ix, const struct index_head *h)
{
	return trail_index_hash(
	    ix, (struct slice){ (const char *)h, offsetof(struct index_head, seal) });
}

bool
trail_index_read_head(struct trail_index *ix, int fd, const struct trail_log *log, uint64_t first,
    struct index_head *out)
{
	return file_read(fd, out, sizeof(*out), 0) == (ssize_t)sizeof(*out) &&
	       memcmp(out->magic, INDEX_MAGIC, sizeof(out->magic)) == 0 &&
	       out->seal == trail_index_seal_head(ix, out) && out->first == first &&
	       memcmp(out->log, log->id, sizeof(log->id)) == 0 &&
	       out->latest[sizeof(out->latest) - 1] == '\0';
}

bool
trail_index_read(
    struct trail_index *ix, int fd, uint64_t at, uint64_t n, uint64_t seal, struct index_set *out)
{
	size_t size = n * sizeof(*out->v);
	struct stat st;

	*out = (struct index_set){ .n = n, .room = n };
	if (fstat(fd, &st) == -1 || (uint64_t)st.st_size / sizeof(*out->v) < n ||
	    (out->v = malloc(size + 1)) == NULL)
		return false;
	if (file_read(fd, out->v, size,
		(off_t)(sizeof(struct index_head) + at * sizeof(*out->v))) == (ssize_t)size &&
	    trail_index_hash(ix, (struct slice){ (const char *)out->v, size }) == seal)
		return true;
	trail_index_set_free(out);
	return false;
}

int
trail_index_open(int dirfd, struct trail_index **out, struct err *err)
{
	struct trail_index *ix = calloc(1, sizeof(*ix));

	if (ix == NULL)
		return err_set(err, "index: memory is short");
	ix->dirfd = dirfd;
	ix->make.fd = -1;
	if (trail_cursor_init(&ix->make.c, err) == -1) {
		trail_index_close(ix);
		return -1;
	}
	*out = ix;
	return 0;
}

void
trail_index_close(struct trail_index *ix)
{
	if (ix == NULL)
		return;
	if (ix->make.fd != -1)
		close(ix->make.fd);
	trail_cursor_fini(&ix->make.c);
	trail_index_set_free(&ix->make.values);
	trail_index_set_free(&ix->make.calls);
	trail_index_set_free(&ix->verdict.lines);
	trail_list_free(&ix->make.list);
	trail_list_free(&ix->list);
	keyhash_free(ix->hash);
	free(ix);
}
