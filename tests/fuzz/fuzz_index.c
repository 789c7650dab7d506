/*
 * Any bytes as the index of a segment, with its seals put right: what it says stays within the
 * segment, and a query that believes it goes on from number to number, and ends.
 */
#include "../../src/trail/trail_index_internal.h"

#include "keytrail/file.h"
#include "keytrail/query.h"
#include "unit/endless.h"
#include "unit/tempdir.h"

#include <assert.h>
#include <fcntl.h>
#include <stddef.h>

#define LINES	  80
#define INPUT_MAX ((size_t)1 << 16)
#define KEY	  "0123456789abcdef"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char dir[TEMPDIR_SIZE];
static struct trail *trail;
static struct trail_index *ix;
static struct index_head real; /* of the first segment */

static void
need(bool ok, const struct err *err)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", err->msg);
	abort();
}

static void
remove_directory(void)
{
	tempdir_remove(dir);
}

static void
append(uint64_t n)
{
	char line[512];
	struct err err;
	uint64_t seq;

	snprintf(line, sizeof(line),
	    "{\"action\":\"a%d\",\"correlationId\":\"c%d\",\"initiator\":{\"id\":\"i%d\"},"
	    "\"outcome\":\"success\",\"severity\":\"normal\",\"x\":\"%0200d\"",
	    (int)(n % 3), (int)(n % 50), (int)(n % 7), 0);
	need(trail_append(trail, slice_of(line), (int64_t)n * CLOCK_NS_PER_S, &seq, &err) == 0 &&
		 trail_write(trail, &err) == 0 && trail_sync(trail, &err) == 0,
	    &err);
}

/* The key is the same each time, so that the seeds have the hashes of what is looked for.  Each line is
 * synced: memory is the better disk here. */
int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct trail_opts opts = { .dir = dir, .create = true, .segment_size = 16384 };
	struct trail_recovery rec;
	struct err err;
	int fd;

	(void)argc;
	(void)argv;
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	tempdir_make(dir);
	atexit(remove_directory);
	need(trail_open(&opts, &trail, &rec, &err) == 0, &err);
	for (uint64_t n = 1; n <= LINES; n++)
		append(n);
	mkdirat(trail_dirfd(trail), "index", 0700);
	need(file_replace(trail_dirfd(trail), "index/key", 0600, SLICE(KEY), &err) == 0, &err);
	need(trail_index_open(trail_dirfd(trail), &ix, &err) == 0, &err);
	do {
		while (trail_index_make(ix, 0, &err) == 1)
			continue;
		fd = openat(trail_dirfd(trail), trail_index_name(1).s, O_RDONLY);
	} while (fd == -1);
	need(file_read(fd, &real, sizeof(real), 0) == (ssize_t)sizeof(real), &err);
	close(fd);
	return 0;
}

/* n numbers of the file, from the at-th on; none where there are fewer. */
static struct slice
numbers(const char *file, size_t size, uint64_t at, uint64_t n)
{
	size_t have = (size - sizeof(struct index_head)) / sizeof(uint64_t);

	if (at > have || n > have - at)
		return SLICE_EMPTY;
	return (struct slice){ file + sizeof(struct index_head) + at * sizeof(uint64_t),
		n * sizeof(uint64_t) };
}

/* What only the maker can know. */
static void
put_seals_right(char *file, size_t size)
{
	struct index_head h;
	uint64_t begin = 0;

	memcpy(&h, file, sizeof(h));
	memcpy(h.magic, real.magic, sizeof(h.magic));
	memcpy(h.log, real.log, sizeof(h.log));
	h.first = 1;
	h.file = real.file;
	h.values_seal = trail_index_hash(ix, numbers(file, size, 0, h.nvalues));
	for (size_t i = 0; i < INDEX_BUCKETS; i++) {
		struct index_bucket *b = &h.buckets[i];

		b->seal =
		    trail_index_hash(ix, numbers(file, size, h.nvalues + begin, b->end - begin));
		begin = b->end;
	}
	h.seal = trail_index_seal_head(ix, &h);
	memcpy(file, &h, sizeof(h));
}

static int
drop_piece(void *arg, struct slice piece)
{
	(void)arg;
	(void)piece;
	return 0;
}

static void
run_query(const char *name, const char *value)
{
	struct query q;
	struct query_run run = { .dirfd = trail_dirfd(trail),
		.query = &q,
		.index = ix,
		.deadline_ns = 1,
		.now_ns = endless_now_ns,
		.cancelled = endless_cancelled,
		.write = drop_piece };
	struct trail_index_query iq;
	uint64_t seq = 1, last = 1;
	struct err err;
	bool fits;

	query_init(&q);
	need(query_set(&q, name, value, &err) == 0, &err);
	iq = query_of_index(&q);
	trail_index_ask(ix, &iq);
	while (trail_index_pass(ix, &seq, &fits)) {
		assert(seq > last && seq <= TRAIL_SEQ_END);
		last = seq;
		if (last > 2 * LINES)
			break;
	}
	need(query_run(&run, &err) == 0, &err);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static char file[INPUT_MAX];
	int fd;

	if (n < sizeof(struct index_head) || n > sizeof(file))
		return 0;
	memcpy(file, data, n);
	put_seals_right(file, n);
	fd = openat(trail_dirfd(trail), trail_index_name(1).s, O_WRONLY | O_TRUNC);
	if (fd == -1 || file_write(fd, file, n, 0) == -1)
		abort();
	close(fd);
	run_query("correlationId", "c7");
	run_query("correlationId", "nobody");
	run_query("initiator", "i3");
	run_query("since", "1970-01-01T00:01:00Z");
	return 0;
}
