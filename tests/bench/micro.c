/*
 * micro WHAT [COUNT] [BYTES]: what one part of keytrail costs without a network.  Each row of standard
 * output: name, value, unit.
 *
 *	journal	  COUNT lines of BYTES (in the trail) through ring, journal, hash tree and a sink that
 *		  throws them away, until tree and sink have all
 *	catch-up  a file sink's way through a backlog of COUNT lines of BYTES, which the page cache holds
 *	stdout, syslog-tcp, syslog-tls, http (gzip, no TLS), kafka (lz4, to $KAFKA_BROKER)
 *		  the same of another sink; its receiver answers and looks at nothing
 *	ledger	  COUNT lines of BYTES into the hash tree, read from the trail
 *	verify	  the same, signed, from the disk: MB of lines a second of processor time, and by how much
 *		  memory grows meanwhile
 *	render	  COUNT events into the ring
 *	format	  COUNT lines in each format of a sink
 *	match	  COUNT requests with eight fields against 10, 100, 1,000, 10,000 routes, every other one
 *		  told by its path and ?action=
 *	load	  COUNT times: a configuration of 10,000 routes, as a start or a reload reads it
 *
 * What is written lies below $TMPDIR, and is removed.
 */
#include "keytrail/clock.h"
#include "keytrail/config.h"
#include "keytrail/event.h"
#include "keytrail/format.h"
#include "keytrail/journal.h"
#include "keytrail/ledger.h"
#include "keytrail/parse.h"
#include "keytrail/publisher.h"
#include "keytrail/verify.h"
#include "unit/pki.h"
#include "unit/tempdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#define RING_BYTES    ((size_t)16 << 20)
#define SEGMENT_BYTES ((uint64_t)256 << 20)
#define PATIENCE      (600 * CLOCK_NS_PER_S)
#define BATCH	      1024
#define TEXT(...)     (snprintf(text, sizeof(text), __VA_ARGS__), text)

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static uint64_t allocations; /* of this thread's making or another's */

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
void *
malloc(size_t n)
{
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_malloc(n);
}

void *
calloc(size_t n, size_t size)
{
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_calloc(n, size);
}

void *
realloc(void *p, size_t n)
{
	__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_realloc(p, n);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */

/* ---- common to all ---- */

struct bench {
	char dir[TEMPDIR_SIZE];
	uint64_t count;
	size_t bytes;
	FILE *rows;
	struct err err;
	struct trail *trail;
	struct ledger *ledger;
	struct metrics *metrics;
	struct log *log;
};

static void
need(struct bench *b, bool good)
{
	if (good)
		return;
	fprintf(stderr, "micro: %s\n", b->err.msg);
	tempdir_remove(b->dir);
	exit(1);
}

static void
row(struct bench *b, const char *name, double value, const char *unit)
{
	fprintf(b->rows, "%s %.1f %s\n", name, value, unit);
	fflush(b->rows);
}

static int64_t
thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * CLOCK_NS_PER_S + ts.tv_nsec;
}

static bool
read_first_line(const char *task, const char *file, char *out, int n)
{
	char text[64];
	FILE *f = fopen(TEXT("/proc/self/task/%.16s/%s", task, file), "r");
	bool good = f != NULL && fgets(out, n, f) != NULL;

	if (f != NULL)
		fclose(f);
	out[good ? strcspn(out, "\n") : 0] = '\0';
	return good;
}

/* Processor time an event: of each thread but the main one, and of these but a receiver in all. */
static void
thread_rows(struct bench *b, const char *prefix)
{
	DIR *dir = opendir("/proc/self/task");
	char comm[32], stat[96], text[80];
	struct dirent *task;
	double each, all = 0;
	long tid;

	while (dir != NULL && (task = readdir(dir)) != NULL) {
		tid = strtol(task->d_name, NULL, 10); /* of "..": 0 */
		if (tid == 0 || tid == getpid() ||
		    !read_first_line(task->d_name, "comm", comm, sizeof(comm)) ||
		    !read_first_line(task->d_name, "schedstat", stat, sizeof(stat)))
			continue;
		comm[strcspn(comm, " ")] = '\0';
		each = strtod(stat, NULL) / (double)b->count;
		row(b, TEXT("%s.cpu.%s", prefix, comm), each, "ns/event");
		all += strcmp(comm, "receiver") != 0 ? each : 0;
	}
	row(b, TEXT("%s.cpu", prefix), all, "ns/event");
	if (dir != NULL)
		closedir(dir);
}

/* ---- a trail ---- */

/* An event without its trail member, that makes a line of b->bytes in the trail. */
static struct slice
sample(const struct bench *b, char out[TRAIL_LINE_MAX])
{
	static const char begin[] = "{\"action\":\"kms.secrets.unwrap\",\"correlationId\":"
				    "\"7f1f0f3e-6b5c-4c2e-9d5a-0d1f6a1e2b3c\","
				    "\"id\":\"01a2058c-0481-7689-ad91-79b65bfda37e\",\"initiator\":"
				    "{\"credential\":{\"type\":"
				    "\"apikey\",\"verifiedBy\":\"service\"},\"host\":{\"address\":"
				    "\"192.0.2.7\",\"addressType\":"
				    "\"IPv4\"},\"id\":\"IBMid-1\"},\"message\":\"Key Protect: "
				    "unwrap secret\",\"observer\":{";
	static const char end[] = "},\"outcome\":\"success\",\"reason\":{\"reasonCode\":200}";
	size_t fixed = sizeof(begin) + sizeof(end) - 2, member = 180;
	int fill = b->bytes > fixed + member + 8 ? (int)(b->bytes - fixed - member - 8) : 0;

	return (struct slice){ out, (size_t)snprintf(out, TRAIL_LINE_MAX / 2,
					"%s\"name\":\"%0*d\"%s", begin, fill, 0, end) };
}

static void
open_trail(struct bench *b, bool hashed)
{
	struct trail_opts topts = { .dir = b->dir,
		.create = true,
		.hashed = hashed,
		.segment_size = SEGMENT_BYTES,
		.room = RING_BYTES };
	char secret[CHECKPOINT_KEY_MAX];
	struct ledger_opts lopts = {
		.dir = b->dir, .log = b->log, .events = LEDGER_EVENTS, .interval_s = 60
	};
	struct ledger_findings found;
	struct trail_recovery rec;

	need(b, checkpoint_signer_make("bench", secret, &b->err) == 0);
	lopts.key = slice_of(secret);
	need(b, ledger_new(&lopts, &b->ledger, &b->err) == 0);
	need(b, trail_open(&topts, &b->trail, &rec, &b->err) == 0);
	trail_recovery_recorded(b->trail, &b->err);
	need(b, ledger_open(b->ledger, b->trail, &rec, &found, &b->err) == 0);
}

static void
close_trail(struct bench *b)
{
	ledger_free(b->ledger);
	trail_close(b->trail, true);
}

static void
write_backlog(struct bench *b)
{
	char text[TRAIL_LINE_MAX];
	struct slice line = sample(b, text);
	uint64_t seq;

	for (uint64_t i = 0; i < b->count; i++) {
		need(b, trail_append(b->trail, line, clock_wall_ns(), &seq, &b->err) == 0);
		if ((i + 1) % 65536 == 0 || i + 1 == b->count)
			need(b, trail_reserve(b->trail, &b->err) == 0 &&
				    trail_write(b->trail, &b->err) == 0 &&
				    trail_sync(b->trail, &b->err) == 0);
	}
}

static struct config *
load_config(struct bench *b, const char *more)
{
	char path[TEMPDIR_SIZE + 16];
	struct buf text = BUF_INIT;
	struct config *c;

	snprintf(path, sizeof(path), "%s/bench.json", b->dir);
	buf_printf(&text,
	    "{\"listen\":{\"address\":\"127.0.0.1:8443\",\"tls\":null},"
	    "\"upstream\":{\"address\":\"kms.example.com:443\"},"
	    "\"audit\":{\"trail\":\".\",\"sign\":null},\"include\":[\"key-protect.json\"],%s}",
	    more);
	need(b, config_load_text(path, buf_slice(&text), "proxy/routes", &c, &b->err) == 0);
	buf_fini(&text);
	return c;
}

static struct publisher *
start_sink(struct bench *b, const struct config *c)
{
	static struct sink_types types;
	struct publisher_opts opts = { .config = c,
		.types = &types,
		.dirfd = trail_dirfd(b->trail),
		.metrics = b->metrics,
		.shard = metrics_shard_new(b->metrics),
		.log = b->log };
	struct publisher *p;

	sink_types_init(&types);
	need(b, sink_types_load(&types, c, &b->err) == 0);
	need(b, publisher_start(&opts, &p, &b->err) == 0);
	return p;
}

static void
wait_for_sink(struct bench *b, struct publisher *p)
{
	struct publisher_sink_status s;
	int64_t until = clock_mono_ns() + PATIENCE;

	do {
		usleep(200);
		publisher_status(p, &s, 1);
		err_set(&b->err, "the sink does not catch up: %s", s.last_error);
		need(b, clock_mono_ns() < until);
	} while (s.waiting > 0);
}

static void
end_sink(struct publisher *p, struct config *c)
{
	publisher_stop(p, clock_mono_ns());
	publisher_free(p);
	config_unref(c);
}

/* ---- journal ---- */

static void
wake_sink(void *arg, uint64_t seq)
{
	publisher_wake(arg, seq);
}

static void
produce(struct bench *b, struct ring *r, struct journal *j)
{
	char text[TRAIL_LINE_MAX];
	struct slice line = sample(b, text);

	for (uint64_t i = 0; i < b->count; i++) {
		while (!ring_claim(r, line.n)) {
			journal_kick(j);
			usleep(50);
		}
		memcpy(ring_line(r, line.n), line.p, line.n);
		ring_commit(r, line.n, line.n, 0);
		journal_kick_async(j);
	}
}

static void
bench_journal(struct bench *b)
{
	struct ring_opts ropts = { .size = RING_BYTES };
	struct journal_opts jopts = { .log = b->log,
		.metrics = metrics_shard_new(b->metrics),
		.flush_interval_ms = 20,
		.spacing_min_us = 200,
		.spacing_max_us = 3000,
		.retention_s = 1000000,
		.durable = wake_sink };
	struct config *c = load_config(b, "\"sinks\":[{\"name\":\"out\",\"type\":\"stdout\"}]");
	struct publisher *p;
	struct journal *j;
	struct ring *r;
	int64_t start;

	open_trail(b, true);
	p = start_sink(b, c);
	jopts.trail = b->trail;
	jopts.durable_arg = p;
	trail_durable_mark(b->trail, &ropts.segment, &ropts.offset);
	need(b, (j = journal_new(&jopts, &b->err)) != NULL);
	need(b, ring_open(trail_dirfd(b->trail), "ring.main", &ropts, &r, &b->err) == 0);
	need(b, journal_add_ring(j, r, NULL, NULL, &b->err) == 0);
	need(b, ledger_start(b->ledger, &b->err) == 0 && journal_start(j, &b->err) == 0);
	start = clock_mono_ns();
	produce(b, r, j);
	while (trail_durable_seq(b->trail) < b->count)
		usleep(200);
	ledger_wake(b->ledger);
	wait_for_sink(b, p);
	while (ledger_covered(b->ledger) + LEDGER_EVENTS <= b->count) /* fewer are not signed yet */
		usleep(200);
	row(b, "journal.rate",
	    (double)b->count * CLOCK_NS_PER_S / (double)(clock_mono_ns() - start), "events/s");
	thread_rows(b, "journal");
	end_sink(p, c);
	need(b, journal_stop(j, &b->err) == 0);
	ledger_stop(b->ledger);
	journal_free(j);
	ring_close(r);
	close_trail(b);
}

/* ---- a sink, the ledger ---- */

/* The way of one sink through a backlog; the rows are named for `what`. */
static void
go_through(struct bench *b, const char *what, const char *sink)
{
	char text[512];
	struct config *c = load_config(b, TEXT("\"sinks\":[{\"name\":\"out\",%s}]", sink));
	struct publisher *p;
	int64_t start;

	open_trail(b, false);
	write_backlog(b);
	start = clock_mono_ns();
	p = start_sink(b, c);
	wait_for_sink(b, p);
	row(b, TEXT("%s.rate", what),
	    (double)b->count * CLOCK_NS_PER_S / (double)(clock_mono_ns() - start), "events/s");
	thread_rows(b, what);
	end_sink(p, c);
	close_trail(b);
}

static void
bench_catch_up(struct bench *b)
{
	go_through(b, "catch-up", "\"type\":\"file\",\"path\":\"out.jsonl\"");
}

static void
bench_stdout(struct bench *b)
{
	go_through(b, "stdout", "\"type\":\"stdout\"");
}

static void
bench_kafka(struct bench *b)
{
	const char *broker = getenv("KAFKA_BROKER");
	char text[128];

	err_set(&b->err, "KAFKA_BROKER has no address");
	need(b, broker != NULL);
	go_through(b, "kafka",
	    TEXT("\"type\":\"kafka\",\"topic\":\"audit\",\"brokers\":[\"%s\"]", broker));
}

/* ---- receivers ---- */

/* A thread that serves one connection after the other, each to its end. */
struct receiver {
	void (*serve)(struct receiver *r, int fd);
	SSL_CTX *tls;
	int listener;
	pthread_t thread;
	char bytes[1 << 20];
};

static void
answer_requests(struct receiver *r, int fd)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	const char *head, *length;
	size_t have = 0, whole;
	ssize_t n;

	while ((n = read(fd, r->bytes + have, sizeof(r->bytes) - 1 - have)) > 0) {
		have += (size_t)n;
		r->bytes[have] = '\0';
		if ((head = strstr(r->bytes, "\r\n\r\n")) == NULL ||
		    (length = strstr(r->bytes, "Content-Length: ")) == NULL)
			continue;
		whole = (size_t)(head + 4 - r->bytes) + strtoul(length + 16, NULL, 10);
		if (have < whole)
			continue;
		have = 0; /* one at a time */
		if (write(fd, answer, sizeof(answer) - 1) == -1)
			return;
	}
}

static void
read_all(struct receiver *r, int fd)
{
	while (read(fd, r->bytes, sizeof(r->bytes)) > 0)
		;
}

static void
read_all_tls(struct receiver *r, int fd)
{
	SSL *ssl = SSL_new(r->tls);

	SSL_set_fd(ssl, fd);
	if (SSL_accept(ssl) == 1)
		while (SSL_read(ssl, r->bytes, sizeof(r->bytes)) > 0)
			;
	SSL_free(ssl);
}

static void *
receive(void *arg)
{
	struct receiver *r = arg;
	int fd;

	pthread_setname_np(pthread_self(), "receiver");
	while ((fd = accept(r->listener, NULL, NULL)) != -1) {
		r->serve(r, fd);
		close(fd);
	}
	return NULL;
}

/* The port ends the sink's last member. */
static void
go_through_to(struct bench *b, struct receiver *r, const char *what, const char *sink)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof(at);
	struct buf members = BUF_INIT;

	r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	err_set(&b->err, "no receiver can be had");
	need(b, r->listener != -1 && bind(r->listener, (struct sockaddr *)&at, size) == 0 &&
		    listen(r->listener, 1) == 0 &&
		    getsockname(r->listener, (struct sockaddr *)&at, &size) == 0 &&
		    pthread_create(&r->thread, NULL, receive, r) == 0);
	buf_printf(&members, "%s:%u\"", sink, ntohs(at.sin_port));
	go_through(b, what, members.mem);
	buf_fini(&members);
	shutdown(r->listener, SHUT_RDWR);
	pthread_join(r->thread, NULL);
	close(r->listener);
}

static void
bench_http(struct bench *b)
{
	static struct receiver r = { .serve = answer_requests };

	go_through_to(b, &r, "http", "\"type\":\"http\",\"url\":\"http://127.0.0.1");
}

static void
bench_syslog_tcp(struct bench *b)
{
	static struct receiver r = { .serve = read_all };

	go_through_to(b, &r, "syslog-tcp",
	    "\"type\":\"syslog\",\"transport\":\"tcp\",\"address\":\"127.0.0.1");
}

static void
bench_syslog_tls(struct bench *b)
{
	static struct receiver r = { .serve = read_all_tls };
	struct pki_opts opts = { .name = "receiver", .san = "IP:127.0.0.1" };
	struct pki_id id = pki_make(&opts);

	pki_write(&id, b->dir, "receiver", NULL);
	r.tls = SSL_CTX_new(TLS_server_method());
	err_set(&b->err, "the receiver has no TLS");
	need(b, r.tls != NULL && SSL_CTX_use_certificate(r.tls, id.cert) == 1 &&
		    SSL_CTX_use_PrivateKey(r.tls, id.key) == 1);
	go_through_to(b, &r, "syslog-tls",
	    "\"type\":\"syslog\",\"tls\":{\"ca\":\"receiver.pem\"},\"address\":\"127.0.0.1");
	SSL_CTX_free(r.tls);
	pki_free(&id);
}

static void
bench_ledger(struct bench *b)
{
	int64_t start;

	open_trail(b, false);
	write_backlog(b);
	start = thread_ns();
	need(b, ledger_advance(b->ledger, &b->err) == 0);
	row(b, "ledger.line", (double)(thread_ns() - start) / (double)b->count, "ns");
	close_trail(b);
}

/* From /proc/self/status, KiB. */
static double
memory(struct bench *b, const char *name)
{
	char line[128];
	size_t n = strlen(name);
	double value = -1;
	FILE *f = fopen("/proc/self/status", "r");

	while (value < 0 && f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, name, n) == 0 && line[n] == ':')
			value = strtod(line + n + 1, NULL);
	if (f != NULL)
		fclose(f);
	err_set(&b->err, "no %s in /proc/self/status", name);
	need(b, value >= 0);
	return value;
}

static void
reset_peak(struct bench *b)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY);

	err_set(&b->err, "cannot reset VmHWM");
	need(b, fd != -1 && write(fd, "5", 1) == 1);
	close(fd);
}

static void
bench_verify(struct bench *b)
{
	static struct verify_report report;
	char text[CHECKPOINT_KEY_MAX];
	struct checkpoint_key key;
	struct verify_opts opts = { .dir = b->dir, .keys = &key, .nkeys = 1, .anchors_fd = -1 };
	struct trail_stats stats;
	double before;
	int64_t ns;

	open_trail(b, false);
	write_backlog(b);
	need(b, ledger_advance(b->ledger, &b->err) == 0 && ledger_sign(b->ledger, &b->err) == 0);
	ledger_key_text(b->ledger, text);
	need(b, checkpoint_key_parse(slice_of(text), &key, &b->err) == 0);
	trail_stats(b->trail, &stats);
	close_trail(b);
	reset_peak(b);
	before = memory(b, "VmRSS");
	ns = thread_ns();
	need(b, verify_trail(&opts, &report, &b->err) == 0);
	ns = thread_ns() - ns;
	err_set(&b->err, "%s", report.findings[0].text);
	need(b, report.unaltered == VERIFY_YES && report.complete == VERIFY_YES &&
		    report.last == b->count);
	row(b, "verify.rate", (double)stats.bytes * 1e3 / (double)ns, "MB/s");
	row(b, "verify.memory", memory(b, "VmHWM") - before, "KiB");
}

/* ---- rendering ---- */

static const struct route unwrap = { .action = "kms.secrets.unwrap",
	.action_2019 = "kms.secrets.unwrap",
	.method = "POST",
	.path = "/api/v2/keys/{id}/actions/unwrap",
	.data_event = true,
	.login = true };
static const struct event_profile of_a_service = { .service_name = "Key Protect",
	.crn_service = "kms",
	.type_uri = "kms/secrets",
	.region = "us-south",
	.account = "",
	.observer_id = "keytrail/00112233445566778899aabbccddeeff" };
static const struct audit_event a_call = { .route = &unwrap,
	.matched = true,
	.status = 200,
	.from_service = true,
	.arrival_ns = 1592840176700000000,
	.id = "01908c5e-7c3a-7123-8abc-0123456789ab",
	.method = "POST",
	.correlation = "ef56e7ed-abf5-4da4-bbf1-ac0d381891fd",
	.correlation_source = CORRELATION_SERVICE,
	.instance = "fd692647-43d0-4699-9f83-f39a54b1327b",
	.key = "76c2c9cb-9095-5a24-811b-0ef4b24ac4d5",
	.agent = "curl/7.88.1",
	.address = "192.0.2.7",
	.attempts = 1,
	.identity = { .state = IDENTITY_TOKEN,
	    .iam_id = "IBMid-1",
	    .name = "jane@example.com",
	    .account = "a12333e9bd28461a8c92385628efac9f",
	    .grant = "apikey" } };

static void
bench_render(struct bench *b)
{
	struct ring_opts opts = { .size = RING_BYTES };
	uint64_t before, end = 0;
	struct ring *r;
	int64_t start;
	size_t n = 0;

	open_trail(b, false);
	need(b, ring_open(trail_dirfd(b->trail), "ring.main", &opts, &r, &b->err) == 0);
	before = allocations;
	start = thread_ns();
	for (uint64_t i = 0; i < b->count; i++) {
		if (!ring_claim(r, EVENT_LINE_MAX)) {
			ring_release(r, end, 0, 0);
			ring_claim(r, EVENT_LINE_MAX);
		}
		n = event_render(&of_a_service, &a_call, ring_line(r, EVENT_LINE_MAX));
		end = ring_commit(r, EVENT_LINE_MAX, n, 0);
	}
	row(b, "render.event", (double)(thread_ns() - start) / (double)b->count, "ns");
	row(b, "render.allocations", (double)(allocations - before) / (double)b->count,
	    "per-event");
	row(b, "render.size", (double)n, "bytes");
	ring_close(r);
	close_trail(b);
}

/* ---- formats ---- */

#define AN_ID "00112233445566778899aabbccddeeff"

static void
bench_format(struct bench *b)
{
	char name[32];
	char line[EVENT_LINE_MAX + EVENT_TRAIL_MAX];
	size_t n = event_render(&of_a_service, &a_call, line);
	struct sink_event e = {
		.seq = 7, .prev = 6, .log = AN_ID, .boot = AN_ID, .hash = AN_ID AN_ID
	};
	struct buf out = BUF_INIT;
	int64_t start;

	n += (size_t)snprintf(line + n, sizeof(line) - n,
	    ",\"trail\":{\"at\":\"2020-06-22T15:36:16.70+0000\",\"boot\":\"" AN_ID
	    "\",\"log\":\"" AN_ID "\",\"seq\":7,\"sum\":\"00000000\"}}");
	e.line = (struct slice){ line, n };
	for (unsigned i = 0; i < CONFIG_FORMATS; i++) {
		start = thread_ns();
		for (uint64_t k = 0; k < b->count; k++) {
			buf_consume(&out, buf_size(&out));
			need(b, format_render(i, &e, &out, &b->err) == 0);
		}
		snprintf(name, sizeof(name), "format.%s", config_format_name(i));
		row(b, name, (double)(thread_ns() - start) / (double)b->count, "ns");
	}
	buf_fini(&out);
}

/* ---- routes ---- */

#define ROUTES_MAX 10000
#define VERBS	   10
#define REQUESTS   1024

/* A verb is a segment of the path or, every other one, what ?action= says. */
static bool
is_queried(unsigned route)
{
	return route % 2 == 1;
}

static void
verb_path(char *out, size_t n, unsigned route, const char *id)
{
	unsigned service = route / VERBS, verb = route % VERBS;

	if (is_queried(route))
		snprintf(out, n, "/api/v2/service%u/%s", service, id);
	else
		snprintf(out, n, "/api/v2/service%u/%s/actions/verb%u", service, id, verb);
}

/* As SDKs send it. */
static void
parse_head(struct bench *b, struct http_head *head)
{
	static const char text[] = "POST / HTTP/1.1\r\n"
				   "Host: us-south.kms.cloud.ibm.com\r\n"
				   "User-Agent: key-protect-go-sdk/0.12.1\r\n"
				   "Accept: application/json\r\n"
				   "Accept-Encoding: gzip\r\n"
				   "Authorization: Bearer e30.e30.AAAA\r\n"
				   "Bluemix-Instance: fd692647-43d0-4699-9f83-f39a54b1327b\r\n"
				   "Content-Type: application/json\r\n"
				   "Content-Length: 64\r\n\r\n";
	static const struct http_limits limits = { sizeof(text), sizeof(text), 8 };
	struct http_scan scan = { 0 };
	enum http_refusal refusal;
	size_t used;

	err_set(&b->err, "a head that is none");
	need(b,
	    http_parse_request(&scan, slice_of(text), &limits, head, &used, &refusal) == HTTP_DONE);
}

static struct route_table *
compile_routes(struct bench *b, unsigned n)
{
	static char templates[ROUTES_MAX][96], actions[ROUTES_MAX][32], verbs[VERBS][8];
	static struct route_spec specs[ROUTES_MAX];
	static const struct route_options opts = { .default_action = "kms.secrets.default" };
	struct route_table *table;

	for (unsigned i = 0; i < n; i++) {
		verb_path(templates[i], sizeof(templates[i]), i, "{id}");
		snprintf(actions[i], sizeof(actions[i]), "bench.verb%u", i);
		snprintf(verbs[i % VERBS], sizeof(verbs[0]), "verb%u", i % VERBS);
		specs[i] = (struct route_spec){ .action = actions[i],
			.method = "POST",
			.path = templates[i],
			.query_name = is_queried(i) ? "action" : NULL,
			.query_value = is_queried(i) ? verbs[i % VERBS] : NULL,
			.where = "bench" };
	}
	need(b, route_compile(specs, n, &opts, &table, &b->err) == 0);
	return table;
}

static void
make_targets(unsigned n, struct slice out[REQUESTS], struct slice queries[REQUESTS])
{
	static char paths[REQUESTS][96], texts[REQUESTS][24];

	for (unsigned i = 0; i < REQUESTS; i++) {
		unsigned route = i * 7919U % n;

		verb_path(
		    paths[i], sizeof(paths[i]), route, "76c2c9cb-9095-5a24-811b-0ef4b24ac4d5");
		snprintf(texts[i], sizeof(texts[i]), "action=verb%u", route % VERBS);
		out[i] = slice_of(paths[i]);
		queries[i] = is_queried(route) ? slice_of(texts[i]) : SLICE_EMPTY;
	}
}

static void
match_among(struct bench *b, unsigned n, bool fields)
{
	static struct slice paths[REQUESTS], queries[REQUESTS];
	static struct http_head head;
	struct route_table *table = compile_routes(b, n);
	struct route_match m;
	uint64_t matched = 0;
	char text[64];
	int64_t start;

	make_targets(n, paths, queries);
	parse_head(b, &head);
	if (!fields)
		head = (struct http_head){ .method = SLICE("POST") };
	start = thread_ns();
	for (uint64_t i = 0; i < b->count; i++) {
		head.path = paths[i % REQUESTS];
		head.query = queries[i % REQUESTS];
		head.has_query = head.query.n > 0;
		route_match(table, &head, &m);
		matched += m.matched;
	}
	err_set(&b->err, "requests fit no route");
	need(b, matched == b->count);
	row(b, TEXT("match%s.%u", fields ? "" : ".no-fields", n),
	    (double)(thread_ns() - start) / (double)b->count, "ns");
	route_table_free(table);
}

static void
bench_match(struct bench *b)
{
	for (unsigned n = 10; n <= ROUTES_MAX; n *= 10)
		match_among(b, n, true);
	match_among(b, ROUTES_MAX, false);
}

static void
bench_load(struct bench *b)
{
	struct buf routes = BUF_INIT;
	char path[96];
	int64_t start;

	buf_printf(&routes, "\"routes\":[");
	for (unsigned i = 0; i < ROUTES_MAX; i++) {
		verb_path(path, sizeof(path), i, "{id}");
		buf_printf(&routes,
		    "%s{\"action\":\"bench.verb%u\",\"method\":\"POST\",\"path\":\"%s\"",
		    i > 0 ? "," : "", i, path);
		if (is_queried(i))
			buf_printf(&routes, ",\"query\":{\"action\":\"verb%u\"}", i % VERBS);
		buf_append(&routes, "}", 1);
	}
	buf_append(&routes, "]", 2);
	start = clock_mono_ns();
	for (uint64_t i = 0; i < b->count; i++)
		config_unref(load_config(b, routes.mem));
	row(b, "load.10000", (double)(clock_mono_ns() - start) / (double)b->count / CLOCK_NS_PER_MS,
	    "ms");
	buf_fini(&routes);
}

/* ---- the program ---- */

static const struct kind {
	const char *name;
	void (*run)(struct bench *b);
	uint64_t count;
} kinds[] = {
	{ "journal", bench_journal, 1000000 },
	{ "catch-up", bench_catch_up, ((uint64_t)1 << 30) / 700 },
	{ "stdout", bench_stdout, 1000000 },
	{ "syslog-tcp", bench_syslog_tcp, 200000 },
	{ "syslog-tls", bench_syslog_tls, 200000 },
	{ "http", bench_http, 200000 },
	{ "kafka", bench_kafka, 200000 },
	{ "ledger", bench_ledger, 300000 },
	{ "verify", bench_verify, 150000 },
	{ "render", bench_render, 1000000 },
	{ "format", bench_format, 200000 },
	{ "match", bench_match, 1000000 },
	{ "load", bench_load, 5 },
};

static const struct kind *
find(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	return NULL;
}

/* The rows keep standard output; what a sink writes there goes nowhere. */
static FILE *
keep_stdout(void)
{
	int rows = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);

	dup2(null, STDOUT_FILENO);
	close(null);
	return fdopen(rows, "w");
}

int
main(int argc, char **argv)
{
	static struct bench b;
	const struct kind *k = argc >= 2 && argc <= 4 ? find(argv[1]) : NULL;

	if (k == NULL) {
		fprintf(stderr, "usage: micro WHAT [COUNT] [BYTES]\n");
		return 2;
	}
	b.count = argc > 2 ? strtoull(argv[2], NULL, 10) : k->count;
	b.bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : 700;
	b.rows = keep_stdout();
	b.metrics = metrics_new();
	b.log = log_new(STDERR_FILENO, LOG_LEVEL_ERROR);
	tempdir_make(b.dir);
	k->run(&b);
	tempdir_remove(b.dir);
	metrics_free(b.metrics);
	log_free(b.log);
	fclose(b.rows);
	return 0;
}
