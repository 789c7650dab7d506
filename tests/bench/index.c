/*
 * index MIB: a trail of so many MiB, the making of its indexes, and how long a query for one correlation ID
 * takes.  Each row of standard output: name, value, unit.
 *
 * Cold is after the kernel has dropped what it had cached (root only).  What is written lies below $TMPDIR,
 * and is removed.
 */
#include "keytrail/clock.h"
#include "keytrail/query.h"
#include "keytrail/trail.h"
#include "keytrail/trail_index.h"
#include "unit/endless.h"
#include "unit/tempdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <time.h>

#define SEGMENT_BYTES ((uint64_t)64 << 20)
#define LINE_BYTES    700
#define TRIES	      5
#define SYNC_EVERY    10000

struct bench {
	char dir[TEMPDIR_SIZE];
	struct trail *trail;
	struct trail_index *index;
	uint64_t lines, rows;
	struct err err;
};

static void
need(const struct bench *b, bool ok)
{
	if (ok)
		return;
	fprintf(stderr, "index: %s\n", b->err.msg);
	tempdir_remove(b->dir);
	exit(1);
}

static void
row(const char *name, double value, const char *unit)
{
	printf("%-24s %12.3f  %s\n", name, value, unit);
}

static double
seconds_since(int64_t start)
{
	return (double)(clock_mono_ns() - start) / CLOCK_NS_PER_S;
}

static double
cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / CLOCK_NS_PER_S;
}

/* ---- the trail ---- */

/* Of line n: spread like random ones (the finalizer of SplitMix64). */
static void
correlation_of(uint64_t n, char out[CLOCK_UUID_SIZE])
{
	uint64_t z = n * 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	z ^= z >> 31;
	snprintf(out, CLOCK_UUID_SIZE, "%08x-%04x-4%03x-8%03x-%012" PRIx64, (unsigned)(z >> 32),
	    (unsigned)(z >> 16) & 0xffff, (unsigned)z & 0xfff, (unsigned)(z >> 4) & 0xfff,
	    z & 0xffffffffffff);
}

static void
append(struct bench *b, uint64_t n)
{
	char text[LINE_BYTES + 1], id[CLOCK_UUID_SIZE];
	size_t used;
	uint64_t seq;

	correlation_of(n, id);
	used = (size_t)snprintf(text, sizeof(text),
	    "{\"action\":\"kms.secrets.%s\",\"correlationId\":\"%s\",\"id\":\"%s\","
	    "\"initiator\":{\"id\":\"IBMid-%" PRIu64 "\"},\"outcome\":\"success\","
	    "\"severity\":\"normal\",\"zone\":\"",
	    n % 3 == 0 ? "wrap" : "unwrap", id, id, n % 5000);
	memset(text + used, 'z', LINE_BYTES - 180 - used);
	strcpy(text + LINE_BYTES - 180, "\"");
	need(b, trail_append(b->trail, slice_of(text), clock_wall_ns(), &seq, &b->err) == 0);
	if (n % SYNC_EVERY == 0)
		need(b, trail_write(b->trail, &b->err) == 0 && trail_sync(b->trail, &b->err) == 0);
}

static void
make_trail(struct bench *b, uint64_t bytes)
{
	struct trail_opts opts = {
		.dir = b->dir, .create = true, .segment_size = SEGMENT_BYTES, .room = SEGMENT_BYTES
	};
	struct trail_recovery rec;
	struct trail_stats stats = { .bytes = 0 };

	need(b, trail_open(&opts, &b->trail, &rec, &b->err) == 0);
	for (b->lines = 0; stats.bytes < bytes; trail_stats(b->trail, &stats))
		append(b, ++b->lines);
	need(b, trail_write(b->trail, &b->err) == 0 && trail_sync(b->trail, &b->err) == 0);
}

static uint64_t
folder_bytes(const struct bench *b, const char *folder)
{
	int fd = openat(trail_dirfd(b->trail), folder, O_RDONLY | O_DIRECTORY);
	DIR *d = fd != -1 ? fdopendir(fd) : NULL;
	const struct dirent *e;
	uint64_t n = 0;
	struct stat st;

	while (d != NULL && (e = readdir(d)) != NULL)
		if (fstatat(fd, e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
			n += (uint64_t)st.st_size;
	if (d != NULL)
		closedir(d);
	return n;
}

static void
make_indexes(struct bench *b)
{
	double cpu = cpu_seconds();
	struct trail_stats stats;
	int rc;

	sleep(1); /* a segment that was written just now is left alone */
	need(b, trail_index_open(trail_dirfd(b->trail), &b->index, &b->err) == 0);
	while ((rc = trail_index_make(b->index, 0, &b->err)) == 1)
		continue;
	need(b, rc == 0);
	trail_stats(b->trail, &stats);
	row("make.cpu", (double)stats.bytes / 1e6 / (cpu_seconds() - cpu), "MB/s");
	row("make.size", 100.0 * (double)folder_bytes(b, "index") / (double)stats.bytes,
	    "% of the trail");
}

/* ---- queries ---- */

static int
take_piece(void *arg, struct slice piece)
{
	struct bench *b = arg;

	for (const char *p = piece.p;
	     (p = memmem(p, (size_t)(piece.p + piece.n - p), "\"seq\":", 6)) != NULL; p++)
		b->rows++;
	return 0;
}

/* The bytes that this process has had read; from the disk alone, or from the page cache too. */
static double
megabytes_read(const char *which)
{
	char text[1024], *at;
	int fd = open("/proc/self/io", O_RDONLY);
	ssize_t n = fd != -1 ? read(fd, text, sizeof(text) - 1) : 0;

	if (fd != -1)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strstr(text, which);
	return at != NULL ? (double)strtoull(at + strlen(which), NULL, 10) / 1e6 : 0;
}

static bool
drop_caches(void)
{
	int fd;
	bool ok;

	sync();
	fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	ok = fd != -1 && write(fd, "3", 1) == 1;
	if (fd != -1)
		close(fd);
	return ok;
}

static double
ask(struct bench *b, struct trail_index *index, uint64_t n)
{
	struct query q;
	struct query_run run = { .dirfd = trail_dirfd(b->trail),
		.query = &q,
		.index = index,
		.deadline_ns = 1,
		.now_ns = endless_now_ns,
		.cancelled = endless_cancelled,
		.write = take_piece,
		.arg = b };
	char id[CLOCK_UUID_SIZE];
	int64_t start = clock_mono_ns();

	correlation_of(n, id);
	query_init(&q);
	need(b, query_set(&q, "correlationId", id, &b->err) == 0);
	b->rows = 0;
	need(b, query_run(&run, &b->err) == 0);
	err_set(&b->err, "a call was not found once");
	need(b, b->rows == (n <= b->lines));
	return 1000 * seconds_since(start);
}

/* The slowest of a few, from everywhere in the trail; the last one is of nobody. */
static void
ask_all(struct bench *b, const char *name, bool cold)
{
	const char *which = cold ? "\nread_bytes: " : "rchar: ";
	double worst = 0, read = 0;
	char label[32];

	for (uint64_t i = 1; i <= TRIES; i++) {
		double before, took;

		if (cold && !drop_caches())
			return;
		before = megabytes_read(which);
		took = ask(b, b->index, i < TRIES ? b->lines * i / TRIES : b->lines + 1);
		if (took > worst) {
			worst = took;
			read = megabytes_read(which) - before;
		}
	}
	snprintf(label, sizeof(label), "%s.time", name);
	row(label, worst, "ms");
	snprintf(label, sizeof(label), "%s.read", name);
	row(label, read, "MB");
}

int
main(int argc, char **argv)
{
	struct bench b = { .lines = 0 };
	uint64_t mib = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
	struct trail_stats stats;
	int64_t start;

	if (mib == 0) {
		fprintf(stderr, "usage: index MIB\n");
		return 2;
	}
	setlinebuf(stdout);
	tempdir_make(b.dir);
	start = clock_mono_ns();
	make_trail(&b, mib << 20);
	trail_stats(b.trail, &stats);
	row("trail.size", (double)stats.bytes / (1 << 30), "GiB");
	row("trail.lines", (double)b.lines, "");
	row("trail.segments", (double)stats.segments, "");
	row("trail.made", seconds_since(start), "s");
	start = clock_mono_ns();
	make_indexes(&b);
	row("make.time", seconds_since(start), "s");
	ask_all(&b, "cold", true);
	ask_all(&b, "warm", false);
	row("without.time", ask(&b, NULL, b.lines + 1), "ms");
	trail_index_close(b.index);
	trail_close(b.trail, true);
	tempdir_remove(b.dir);
	return 0;
}
