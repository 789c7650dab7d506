/*
 * Any bytes as a segment: recovery never fails, keeps every line that is valid and nothing else, and
 * finds nothing more to do the second time.  So that mutation gets behind the checksum, a sum that
 * reads "********" is put right first.
 */
#include "keytrail/crc32c.h"
#include "keytrail/trail.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SEGMENT	     "00000000000000000001.jsonl"
#define INPUT_MAX    ((size_t)1 << 20)
#define BELIEVED_END (1ULL << 52) /* no line may jump beyond */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char dir[256];

static void
remove_files(void)
{
	DIR *d = opendir(dir);
	const struct dirent *e;

	if (d == NULL)
		abort();
	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.' && unlinkat(dirfd(d), e->d_name, 0) == -1)
			abort();
	closedir(d);
}

static void
remove_directory(void)
{
	remove_files();
	rmdir(dir);
}

/* Recovery syncs a lot: memory is the better disk here. */
int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *base = getenv("TMPDIR");

	(void)argc;
	(void)argv;
	if (base == NULL)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(dir, sizeof(dir), "%s/keytrail-fuzz-XXXXXX", base);
	if (mkdtemp(dir) == NULL)
		abort();
	atexit(remove_directory);
	return 0;
}

static void
put_sums_right(char *bytes, size_t n)
{
	static const struct slice mark = SLICE_INIT(",\"sum\":\"********\"");
	size_t start = 0;

	for (size_t i = 0; i + mark.n <= n; i++) {
		char sum[9];

		if (bytes[i] == '\n')
			start = i + 1;
		if (memcmp(bytes + i, mark.p, mark.n) != 0)
			continue;
		snprintf(sum, sizeof(sum), "%08x", crc32c(0, bytes + start, i - start));
		memcpy(bytes + i + 8, sum, 8);
	}
}

/* The next line that counts, by the rule: numbers grow.  False at the end. */
static bool
next_valid(struct slice *rest, uint64_t *expect, struct slice *line)
{
	struct trail_member m;
	const char *newline;

	while ((newline = memchr(rest->p, '\n', rest->n)) != NULL) {
		*line = slice_sub(*rest, 0, (size_t)(newline - rest->p));
		*rest = slice_sub(*rest, line->n + 1, rest->n);
		if (trail_parse_line(*line, &m) == 0 &&
		    (m.seq == *expect || (m.seq > *expect && m.seq < BELIEVED_END))) {
			*expect = m.seq + 1;
			return true;
		}
	}
	return false;
}

static void
check_lines(struct slice input)
{
	struct trail_reader *r;
	struct slice got, want;
	uint64_t seq, expect = 1;
	struct err err;

	if (trail_reader_open(dir, 0, &r, &err) == -1)
		abort();
	while (next_valid(&input, &expect, &want)) {
		if (trail_reader_next(r, &got, &seq, &err) != 1)
			abort();
		assert(slice_equal(got, want));
	}
	assert(trail_reader_next(r, &got, &seq, &err) == 0);
	trail_reader_close(r);
}

static uint64_t
open_and_close(struct trail_recovery *rec)
{
	struct trail_opts opts = { .dir = dir, .create = true, .segment_size = 1 << 20 };
	struct trail *t;
	struct err err;
	uint64_t seq;

	if (trail_open(&opts, &t, rec, &err) == -1) {
		fprintf(stderr, "%s\n", err.msg);
		abort();
	}
	seq = trail_durable_seq(t);
	trail_recovery_recorded(t, &err);
	trail_close(t, false);
	return seq;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static char bytes[INPUT_MAX];
	char path[300];
	struct trail_recovery rec;
	uint64_t seq;
	int fd;

	if (n > sizeof(bytes))
		return 0;
	memcpy(bytes, data, n);
	put_sums_right(bytes, n);
	remove_files();
	snprintf(path, sizeof(path), "%s/%s", dir, SEGMENT);
	if ((fd = open(path, O_WRONLY | O_CREAT, 0600)) == -1 || write(fd, bytes, n) != (ssize_t)n)
		abort();
	close(fd);
	seq = open_and_close(&rec);
	check_lines((struct slice){ bytes, n });
	assert(open_and_close(&rec) == seq);
	assert(rec.torn_bytes == 0 && rec.corrupt_lines == 0 && rec.missing_last == 0);
	check_lines((struct slice){ bytes, n });
	return 0;
}
