/*
 * Each allocation of what libkeytrail does, made to fail.
 */
#include "scarce.h"

#include "keytrail/base64.h"
#include "keytrail/clock.h"
#include "keytrail/config.h"
#include "keytrail/crc32c.h"
#include "keytrail/event.h"
#include "keytrail/follow.h"
#include "keytrail/join.h"
#include "keytrail/journal.h"
#include "keytrail/leaves.h"
#include "keytrail/ledger.h"
#include "keytrail/log.h"
#include "keytrail/metrics.h"
#include "keytrail/nearest.h"
#include "keytrail/parse.h"
#include "keytrail/proof.h"
#include "keytrail/publisher.h"
#include "keytrail/query.h"
#include "keytrail/reader.h"
#include "keytrail/ring.h"
#include "keytrail/rotation.h"
#include "keytrail/sha256.h"
#include "keytrail/sink.h"
#include "keytrail/trail.h"
#include "keytrail/utf8.h"
#include "keytrail/verify.h"
#include "endless.h"
#include "tempdir.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KEY_ID	     "8f3b1d5c-0c44-4a67-9d29-56c2f00b9f5d"
#define SECRET	     "0123456789abcdef0123456789abcdef"

static char dir[TEMPDIR_SIZE]; /* of the case that runs */
static char secret[CHECKPOINT_KEY_MAX], other_secret[CHECKPOINT_KEY_MAX];

static void
must(int rc, const struct err *err)
{
	if (rc == -1)
		fail_msg("%s", err->msg);
}

static void
empty_dir(void)
{
	tempdir_remove(dir);
	tempdir_make(dir);
}

static const char *
path_of(const char *name)
{
	static char path[TEMPDIR_SIZE + 64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void
write_file(const char *name, const char *text)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* ---- pure: a call from its bytes to its event ---- */

#define CLAIMS                                                                                     \
	"eyJpYW1faWQiOiJJQk1pZC0xIiwic3ViIjoiYUBiLmMiLCJhY2NvdW50Ijp7ImJzcyI6IjAxMjM0NTY3ODlhYmNk" \
	"ZWYwMTIzNDU2Nzg5YWJjZGVmIn19"

static const char request[] = "POST /api/v2/keys/" KEY_ID "/actions/wrap HTTP/1.1\r\n"
			      "Host: kms.example\r\nAuthorization: Bearer e30." CLAIMS ".c2ln\r\n"
			      "User-Agent: curl/7.88.1\r\nContent-Length: 2\r\n\r\n";
static const char answer[] = "HTTP/1.1 200 OK\r\nCorrelation-Id: " KEY_ID "\r\n"
			     "Content-Length: 2\r\n\r\n";
static const struct http_limits limits = { .head = 8192, .target = 1024, .fields = 64 };
static const struct route_spec wrap_route = { .action = "kms.secrets.wrap",
	.method = "POST",
	.path = "/api/v2/keys/{id}/actions/wrap",
	.data_event = true,
	.login = true };
static const struct route_options route_opts = { .default_action = "kms.secrets.default" };
static struct route_table *routes;
static struct http_head head; /* large */
static struct audit_event event;

static void
compile_routes(void)
{
	struct err err;

	must(routes == NULL ? route_compile(&wrap_route, 1, &route_opts, &routes, &err) : 0, &err);
}

static int
parse(const char *text, bool is_request)
{
	struct http_scan scan = { 0 };
	enum http_refusal why;
	size_t used;
	enum http_result rc =
	    is_request
		? http_parse_request(&scan, slice_of(text), &limits, &head, &used, &why)
		: http_parse_response(&scan, slice_of(text), &limits, false, &head, &used, &why);

	return rc == HTTP_DONE ? 0 : -1;
}

static size_t
render(bool hashed, char line[EVENT_LINE_MAX])
{
	const struct event_profile profile = { .service_name = "Key Protect",
		.crn_service = "kms",
		.type_uri = "kms/secrets",
		.region = "us-south",
		.account = "",
		.observer_id = "keytrail/x",
		.key_ids = hashed ? EVENT_KEY_HMAC : EVENT_KEY_OMIT,
		.names = hashed ? EVENT_NAME_HMAC : EVENT_NAME_OMIT,
		.hmac_key = (const unsigned char *)SECRET };

	return event_render(&profile, &event, line);
}

static int
run_call(struct err *err)
{
	char line[EVENT_LINE_MAX];
	struct route_match match;

	event = (struct audit_event){ .attempts = 1 };
	if (parse(request, true) == -1)
		return err_set(err, "the request");
	route_match(routes, &head, &match);
	event_from_request(&event, &head, &match, SLICE("Correlation-Id"), SCRUB_UUID);
	identity_from_authorization(event_authorization(&head), &event.identity);
	if (parse(answer, false) == -1)
		return err_set(err, "the answer");
	event_from_response(&event, &head, SLICE("Correlation-Id"), SCRUB_UUID);
	if (strcmp(event.identity.iam_id, "IBMid-1") != 0 ||
	    memmem(line, render(false, line), "kms.secrets.wrap", 16) == NULL)
		return err_set(err, "the event");
	return 0;
}

static void
make_event(void)
{
	struct err err;

	compile_routes();
	must(run_call(&err), &err);
}

/* What cannot be hashed is left out, never plain. */
static int
run_key_ref(struct err *err)
{
	char line[EVENT_LINE_MAX];
	size_t n = render(true, line);

	if (memmem(line, n, KEY_ID, sizeof(KEY_ID) - 1) == NULL ||
	    memmem(line, n, "a@b.c", 5) != NULL || memmem(line, n, ":key:", 5) != NULL)
		return err_set(err, "%.*s", (int)n, line);
	return 0;
}

static int
run_memo(struct err *err)
{
	static const unsigned char key[KEYHASH_KEY_SIZE];
	static struct identity_memo memo; /* large */
	struct identity first, again;

	if (identity_memo_init(&memo, key) == -1)
		return err_set(err, "memory is short");
	identity_recall(&memo, event_authorization(&head), true, &first);
	identity_recall(&memo, event_authorization(&head), true, &again);
	identity_memo_fini(&memo);
	assert_string_equal(first.iam_id, again.iam_id);
	return 0;
}

/* ---- base ---- */

static const char *
word_of(const void *list, size_t i)
{
	return ((const char *const *)list)[i];
}

/* Text, sums, words, a tree: what has no state but the caller's. */
static int
run_plain(struct err *err)
{
	static const char *const words[] = { "listen", "upstream" };
	struct merkle_tree tree = { .size = 0 };
	struct merkle_hash leaf, root;
	char text[BASE64_SIZE(sizeof(SECRET))], when[CLOCK_EVENT_TIME_SIZE], utf8[4];
	unsigned char sum[SHA256_SIZE];
	uint32_t point;

	base64_encode(SECRET, sizeof(SECRET), text);
	clock_event_time(clock_wall_ns(), when);
	sha256_joined(SLICE("a"), SLICE("b"), sum);
	merkle_leaf(SLICE("{}"), &leaf);
	merkle_append(&tree, &leaf);
	merkle_root(&tree, &root);
	if (crc32c(0, "123456789", 9) != 0xe3069283 || !merkle_equal(&leaf, &root) ||
	    nearest_word("lisen", word_of, words, 2) != words[0] ||
	    utf8_decode("\xc3\xa4", utf8_encode(0xe4, utf8), &point) != 2 || point != 0xe4)
		return err_set(err, "the sums");
	return 0;
}

static int
run_pool(struct err *err)
{
	struct pool pool;
	struct buf first = { .pool = &pool }, second = { .pool = &pool };
	int rc;

	pool_init(&pool, 1000, POOL_KEPT);
	rc = buf_append(&first, SECRET, sizeof(SECRET)) == -1 || buf_reserve(&first, 5000) == -1 ||
	     buf_append(&second, SECRET, sizeof(SECRET)) == -1;
	buf_fini(&first);
	buf_fini(&second);
	pool_fini(&pool);
	return rc ? err_set(err, "memory is short") : 0;
}

static int
run_buf(struct err *err)
{
	struct buf b = BUF_INIT;
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < 1000; i++) {
		rc = buf_append(&b, "0123456789", 10);
		assert_int_equal(buf_size(&b), 10 * (i + (rc == 0)));
	}
	if (rc == 0)
		rc = buf_printf(&b, "%05000d", 1);
	buf_fini(&b);
	return rc == -1 ? err_set(err, "memory is short") : 0;
}

static int
run_log(struct err *err)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct log *log = log_new(fd, LOG_LEVEL_TRACE);

	if (log != NULL)
		log_error(log, "a_word", "%s", "a text");
	log_free(log);
	close(fd);
	return log != NULL ? 0 : err_set(err, "memory is short");
}

static int
run_metrics(struct err *err)
{
	struct metrics *m = metrics_new();
	struct metrics_shard *s = m != NULL ? metrics_shard_new(m) : NULL;
	struct buf out = BUF_INIT;
	int rc = -1;

	if (s != NULL) {
		metrics_count_request(
		    s, metrics_action(m, "kms.secrets.wrap"), METRIC_OUTCOME_SUCCESS, 200);
		metrics_set(s, METRIC_SINK_UP, metrics_sink(m, "sink"), 1);
		metrics_set(s, METRIC_CERTIFICATE_EXPIRY, metrics_file(m, "a.pem"), 1);
		metrics_build_info(m, "1", "2", "3");
		rc = metrics_render(m, METRICS_OPENMETRICS_1_0_0, &out);
	}
	buf_fini(&out);
	metrics_free(m);
	return rc == -1 ? err_set(err, "memory is short") : 0;
}

/* ---- config ---- */

static const char config_text[] =
    "{\"listen\":{\"address\":\"127.0.0.1:8443\",\"tls\":{\"certificate\":\"a.pem\",\"key\":\"a."
    "key\","
    "\"certificates\":[{\"certificate\":\"b.pem\",\"key\":\"b.key\"}]}},"
    "\"upstream\":{\"addresses\":[\"kms.example.com:443\",\"[::1]:444\"]},"
    "\"admin\":{\"address\":\"127.0.0.1:9481\",\"token\":{\"file\":\"secret\"}},"
    "\"audit\":{\"trail\":\"trail\",\"sign\":null,\"key_ids\":\"hmac\",\"hmac_key\":{\"file\":"
    "\"secret\"}},"
    "\"service\":{\"region\":\"${SCARCE_REGION}\",\"instances\":[\"" KEY_ID "\"]},"
    "\"trusted_networks\":[\"10.0.0.0/8\"],"
    "\"sinks\":[{\"name\":\"a\",\"type\":\"file\",\"path\":\"a.jsonl\"},{\"name\":\"b\",\"type\":"
    "\"stdout\"}],"
    "\"include\":[\"key-protect.json\"],"
    "\"routes\":[{\"action\":\"x.y\",\"method\":\"GET\",\"path\":\"/x/"
    "{id}\",\"header\":{\"Prefer\":\"a\"}}]}";

static void
write_config(void)
{
	empty_dir();
	setenv("SCARCE_REGION", "us-south", 1);
	write_file("routes.json", config_text);
	write_file("secret", SECRET);
}

static int
run_config(struct err *err)
{
	struct config *c;

	if (config_load(path_of("routes.json"), "proxy/routes", &c, err) == -1)
		return -1;
	config_unref(c);
	return 0;
}

static int
run_changes(struct err *err)
{
	static const char text[] =
	    "{\"listen\":{\"address\":\"127.0.0.1:0\",\"tls\":null},"
	    "\"upstream\":{\"address\":\"127.0.0.1:1\",\"tls\":null},"
	    "\"audit\":{\"trail\":\"trail\",\"sign\":null},\"default\":\"a.b\",\"routes\":[{"
	    "\"action\":\"a.b\",\"method\":\"GET\",\"path\":\"/a\"}]}";
	char changes[256], restart[256];
	struct config *a, *b;

	if (config_load_text("f.json", slice_of(text), NULL, &a, err) == -1)
		return -1;
	if (config_load_text("f.json", slice_of(text), NULL, &b, err) == -1) {
		config_unref(a);
		return -1;
	}
	config_changes(a, b, changes, sizeof(changes));
	config_needs_restart(a, b, restart, sizeof(restart));
	assert_string_equal(a->digest, b->digest);
	config_unref(a);
	config_unref(b);
	return 0;
}

/* A file that is wrong is never told from one for which there was no memory. */
static int
run_bad_config(struct err *err)
{
	struct config *c;

	if (config_load_text("f.json", SLICE("{\"listen\":{\"adress\":1}}"), NULL, &c, err) == 0)
		return err_set(err, "it is good");
	return strstr(err->msg, "adress") != NULL ? 0 : -1;
}

static int
run_reference(struct err *err)
{
	struct buf out = BUF_INIT;
	int rc = config_schema(&out) == -1 || config_reference(&out) == -1 ||
			 metrics_reference(&out) == -1
		     ? -1
		     : 0;

	buf_fini(&out);
	return rc == -1 ? err_set(err, "memory is short") : 0;
}

/* ---- routes ---- */

static int
run_routes(struct err *err)
{
	const struct route_spec specs[] = {
		{ .action = "a.list", .method = "GET", .path = "/a" },
		{ .action = "a.read", .method = "GET", .path = "/a/{id}", .where = "f:1:1" },
		{ .action = "a.wrap",
		    .method = "POST",
		    .path = "/a/{id}",
		    .query_name = "action",
		    .query_value = "wrap" },
		{ .action = "a.zap",
		    .method = "POST",
		    .path = "/b/c/d/**",
		    .header_name = "Prefer",
		    .header_value = "x" },
	};
	const char *single[] = { "X-One", "X-Two" };
	const struct route_options opts = {
		.default_action = "a.other", .single_headers = single, .nsingle_headers = 2
	};
	struct route_table *t;

	if (route_compile(specs, COUNT(specs), &opts, &t, err) == -1)
		return -1;
	assert_int_equal(route_table_size(t), COUNT(specs) + 1);
	route_table_free(t);
	return 0;
}

/* ---- trail ---- */

static const struct trail_opts trail_opts = {
	.dir = dir, .create = true, .segment_size = 8192, .room = 65536
};

static int
append(struct trail *t, unsigned n, const char *text, struct err *err)
{
	uint64_t seq;

	while (n-- > 0)
		if (trail_append(t, slice_of(text), clock_wall_ns(), &seq, err) == -1)
			return -1;
	return trail_write(t, err) == -1 || trail_sync(t, err) == -1 ? -1 : 0;
}

static int
keep_house(struct trail *t, struct err *err)
{
	const struct trail_hold hold = { .name = "case", .first = 3, .last = 4 };
	const struct trail_retention retention = { 86400, 0 };
	uint64_t first, last;
	size_t foreign;
	struct trail_hold removed;

	return trail_reserve(t, err) == -1 || trail_hold_add(t, &hold, err) == -1 ||
		       trail_save_retention(t, &retention, err) == -1 ||
		       trail_expire(t, 0, 1, 3, &first, &last, err) == -1 ||
		       trail_find_untold(t, 0, &first, &last, err) == -1 ||
		       trail_find_foreign(t, &foreign, err) == -1 ||
		       trail_hold_find(t, "case", &removed, err) == -1 ||
		       trail_hold_remove(t, "case", err) == -1 || trail_reopen(t, err) == -1 ||
		       trail_expect_rings(t, 2, err) == -1
		   ? -1
		   : 0;
}

static int
run_trail(struct err *err)
{
	struct trail_recovery rec;
	struct trail *t;
	int rc;

	if (trail_open(&trail_opts, &t, &rec, err) == -1)
		return -1;
	trail_recovery_recorded(t, err);
	rc = keep_house(t, err);
	if (rc == 0)
		rc = append(t, 1, "{\"action\":\"a\"", err);
	trail_close(t, rc == 0);
	return rc;
}

static void
commit(struct ring *r, const char *line)
{
	size_t n = strlen(line);

	assert_true(ring_claim(r, n));
	memcpy(ring_line(r, n), line, n);
	ring_commit(r, n, n, 0);
}

/* A trail whose last run was killed: lines in a ring, a call in flight, an intent, a torn tail. */
static void
kill_trail(void)
{
	const struct ring_opts opts = { .size = 65536, .slots = 4, .slot_size = 1024 };
	const char *flight = "{\"action\":\"b\",\"id\":\"2\"";
	struct trail_recovery rec;
	struct trail *t;
	struct ring *r;
	struct err err;
	unsigned slot;

	empty_dir();
	must(trail_open(&trail_opts, &t, &rec, &err), &err);
	trail_recovery_recorded(t, &err);
	must(append(t, 100,
		 "{\"action\":\"kms.secrets.delete\",\"id\":\"i\",\"kind\":\"intent\","
		 "\"outcome\":\"pending\",\"severity\":\"normal\"",
		 &err),
	    &err);
	must(ring_open(trail_dirfd(t), "ring.0", &opts, &r, &err), &err);
	must(trail_expect_rings(t, 2, &err), &err);
	commit(r, "{\"action\":\"a\",\"id\":\"1\"");
	slot = ring_slot_take(r);
	memcpy(ring_slot_line(r, slot), flight, strlen(flight));
	ring_slot_publish(r, slot, strlen(flight));
	ring_close(r);
	trail_close(t, false);
	write_file("killed", "");
}

static int
run_recovery(struct err *err)
{
	struct trail_recovery rec;
	struct trail *t;

	if (trail_open(&trail_opts, &t, &rec, err) == -1)
		return -1;
	assert_int_equal(rec.from_rings, 1);
	assert_int_equal(rec.from_slots, 1);
	assert_false(rec.state_lost);
	trail_close(t, false);
	return 0;
}

/* What a start could not recover for want of memory, the next one does. */
static int
run_recovery_again(struct err *err)
{
	struct trail_recovery rec;
	struct trail *t;
	struct err first;
	int rc = trail_open(&trail_opts, &t, &rec, &first);

	scarce.on = false;
	if (rc == -1)
		rc = trail_open(&trail_opts, &t, &rec, err);
	if (rc == -1)
		fail_msg("after \"%s\": %s", first.msg, err->msg);
	assert_int_equal(rec.from_rings, 1);
	assert_int_equal(rec.from_slots, 1);
	assert_false(rec.state_lost);
	assert_int_equal(rec.corrupt_lines, 0);
	assert_int_equal(rec.missing_first, 0);
	trail_close(t, false);
	return 0;
}

static int
run_ring(struct err *err)
{
	const struct ring_opts opts = { .size = 65536, .slots = 4, .slot_size = 1024 };
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct ring *r;
	int rc = ring_open(fd, "ring.0", &opts, &r, err);

	if (rc == 0)
		ring_close(r);
	close(fd);
	return rc;
}

static uint64_t
keep_all(void *arg)
{
	(void)arg;
	return 0;
}

static struct log *quiet;

static void
quiet_empty_dir(void)
{
	empty_dir();
	if (quiet == NULL)
		quiet = log_new(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_ERROR);
}

static int
run_journal(struct err *err)
{
	struct metrics *m = metrics_new();
	struct journal_opts opts = { .log = quiet,
		.metrics = m != NULL ? metrics_shard_new(m) : NULL,
		.keep_seq = keep_all };
	const struct ring_opts room = { .size = 65536 };
	struct trail_recovery rec;
	struct journal *j;
	struct ring *r;
	int rc = -1;

	if (opts.metrics == NULL) {
		metrics_free(m);
		return err_set(err, "memory is short");
	}
	if (trail_open(&trail_opts, &opts.trail, &rec, err) == 0) {
		if (ring_open(trail_dirfd(opts.trail), "ring.0", &room, &r, err) == 0) {
			if ((j = journal_new(&opts, err)) != NULL) {
				rc = journal_add_ring(j, r, NULL, NULL, err);
				journal_free(j);
			}
			ring_close(r);
		}
		trail_close(opts.trail, true);
	}
	metrics_free(m);
	return rc;
}

/* ---- readers ---- */

static void
fill_trail(void)
{
	struct stat st;

	if (stat(path_of("killed"), &st) == -1)
		kill_trail();
}

static int
run_reader(struct err *err)
{
	struct trail_reader *r;
	struct slice line;
	uint64_t seq, n = 0;
	int rc;

	int dirfd = open(dir, O_RDONLY | O_DIRECTORY);

	rc = trail_find_time(dirfd, "2100-01-01T00:00:00.00+0000", &seq, err);
	if (rc == 0)
		rc = trail_reader_open_at(dirfd, 0, &r, err);
	close(dirfd);
	if (rc == -1)
		return -1;
	while ((rc = trail_reader_next(r, &line, &seq, err)) == 1)
		n++;
	trail_reader_close(r);
	if (rc == 0)
		assert_int_equal(n, 100);
	return rc;
}

static int
run_walk(struct err *err)
{
	struct trail_walk *w;
	struct trail_walk_item item;
	uint64_t n = 0;
	int rc;

	if (trail_walk_open(dir, &w, err) == -1)
		return -1;
	while ((rc = trail_walk_next(w, &item, err)) == 1)
		n++;
	trail_walk_close(w);
	if (rc == 0)
		assert_int_equal(n, 100);
	return rc;
}

static int
count_piece(void *arg, struct slice piece)
{
	*(size_t *)arg += piece.n;
	return 0;
}

static int
run_query(struct err *err)
{
	struct query query;
	size_t n = 0;
	struct query_run run = { .dirfd = open(dir, O_RDONLY | O_DIRECTORY),
		.query = &query,
		.deadline_ns = 1,
		.now_ns = endless_now_ns,
		.cancelled = endless_cancelled,
		.write = count_piece,
		.arg = &n };
	int rc;

	query_init(&query);
	must(query_set(&query, "action", "kms.secrets.delete", err), err);
	if ((rc = query_run(&run, err)) == 0)
		assert_true(n > 5000);
	close(run.dirfd);
	return rc;
}

static void
fill_trail_without_index(void)
{
	fill_trail();
	tempdir_remove(path_of("index"));
}

static int
run_index(struct err *err)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct trail_index_query q = { .want = { SLICE("\"nothing\"") } };
	struct trail_index *ix;
	uint64_t seq = 1;
	bool fits;
	int rc = trail_index_open(dirfd, &ix, err);

	if (rc == 0) {
		while ((rc = trail_index_make(ix, 0, err)) == 1)
			continue;
		trail_index_ask(ix, &q);
		while (trail_index_pass(ix, &seq, &fits))
			assert_false(fits);
		trail_index_close(ix);
	}
	close(dirfd);
	return rc;
}

static int
run_reader_thread(struct err *err)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct reader_opts opts = { .dirfd = dirfd };
	struct reader *r;
	int rc = reader_start(&opts, &r, err);

	if (rc == 0)
		reader_stop(r);
	close(dirfd);
	return rc;
}

static int
run_follow_thread(struct err *err)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct follow *w;
	int rc = follow_start(dirfd, NULL, NULL, &w, err);

	if (rc == 0)
		follow_stop(w);
	close(dirfd);
	return rc;
}

static int
run_leaves(struct err *err)
{
	struct leaves *l = leaves_new(100);
	struct leaf leaf;

	if (l == NULL)
		return err_set(err, "memory is short");
	leaves_add(l, 1, LEAF_EVENT, SLICE("{}"));
	leaves_flush(l);
	assert_true(leaves_take(l, 1, &leaf));
	leaves_free(l);
	return 0;
}

static int
run_join(struct err *err)
{
	struct join *j = join_new(err);
	char line[128];
	int rc = 0;

	if (j == NULL)
		return -1;
	for (unsigned i = 1; rc == 0 && i <= 20; i++) {
		snprintf(line, sizeof(line), "{\"id\":\"%u\"%s}", i % 10,
		    i <= 10 ? ",\"kind\":\"intent\"" : "");
		rc = join_add(j, slice_of(line), i, true, err);
	}
	join_free(j);
	return rc;
}

/* ---- proof ---- */

static void
make_keys(void)
{
	struct err err;

	if (secret[0] != '\0')
		return;
	must(checkpoint_signer_make("example.com/k", secret, &err), &err);
	must(checkpoint_signer_make("example.com/k", other_secret, &err), &err);
}

static int
run_signer_make(struct err *err)
{
	char text[CHECKPOINT_KEY_MAX];

	return checkpoint_signer_make("example.com/k", text, err);
}

static int
prove(const struct checkpoint_signer *s, struct buf *note, struct buf *text, struct err *err)
{
	struct checkpoint cp = { .origin = "example.com/k/log", .size = 1 }, read;
	struct proof p = { .index = 0 };

	merkle_leaf(SLICE("{}"), &cp.root);
	if (checkpoint_write(s, &cp, note, err) == -1)
		return -1;
	p.note = buf_slice(note);
	if (proof_write(&p, text, err) == -1 || proof_parse(buf_slice(text), &p, err) == -1)
		return -1;
	return proof_check(&p, SLICE("{}"), checkpoint_signer_key(s), 1, &read, err) == PROOF_GOOD
		   ? 0
		   : -1;
}

static int
run_proof(struct err *err)
{
	struct checkpoint_signer *s = checkpoint_signer_parse(slice_of(secret), err);
	struct buf note = BUF_INIT, text = BUF_INIT;
	int rc = s == NULL ? -1 : prove(s, &note, &text, err);

	buf_fini(&note);
	buf_fini(&text);
	checkpoint_signer_free(s);
	return rc;
}

static int
run_rotation(struct err *err)
{
	struct checkpoint_signer *old = checkpoint_signer_parse(slice_of(secret), err), *new = NULL;
	struct buf note = BUF_INIT;
	struct rotation r;
	int rc = -1;

	if (old != NULL && (new = checkpoint_signer_parse(slice_of(other_secret), err)) != NULL &&
	    rotation_write(old, new, "example.com/k/log", &note, err) == 0)
		rc = rotation_read(buf_slice(&note), &r, err) == CHECKPOINT_GOOD ? 0 : -1;
	buf_fini(&note);
	checkpoint_signer_free(old);
	checkpoint_signer_free(new);
	return rc;
}

static void
on_signed(void *arg, uint64_t size, struct slice note)
{
	(void)arg;
	(void)size;
	(void)note;
}

static struct trail *signed_trail;
static struct trail_recovery signed_recovery;

static void
fill_signed_trail(void)
{
	struct err err;

	if (signed_trail != NULL)
		trail_close(signed_trail, true);
	make_keys();
	quiet_empty_dir();
	must(trail_open(&trail_opts, &signed_trail, &signed_recovery, &err), &err);
	trail_recovery_recorded(signed_trail, &err);
	must(append(signed_trail, 10, "{\"action\":\"a\"", &err), &err);
}

static int
run_ledger(struct err *err)
{
	struct ledger_opts opts = { .dir = dir,
		.key = slice_of(secret),
		.log = quiet,
		.events = 1,
		.interval_s = 1,
		.signed_ = on_signed };
	struct ledger_findings found;
	struct ledger *l;
	int rc;

	if (ledger_new(&opts, &l, err) == -1)
		return -1;
	if (ledger_look(l, err) == -1) {
		ledger_free(l);
		return -1;
	}
	rc = ledger_open(l, signed_trail, &signed_recovery, &found, err);
	assert_string_equal(found.unfit, "");
	if (rc == 0 && (rc = ledger_advance(l, err)) == 0)
		rc = ledger_sign(l, err);
	ledger_free(l);
	return rc;
}

/* Elsewhere, for verify. */
static void
keep_checkpoint(void)
{
	char line[8 + BASE64_SIZE(CHECKPOINT_NOTE_MAX)] = " note=";
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct buf note = BUF_INIT;
	struct err err;

	must(ledger_read_checkpoint(dirfd, &note, &err), &err);
	line[6 + base64_encode(buf_slice(&note).p, buf_size(&note), line + 6)] = '\0';
	write_file("anchors", line);
	buf_fini(&note);
	close(dirfd);
}

static void
sign_trail(void)
{
	struct err err;

	fill_signed_trail();
	must(run_ledger(&err), &err);
	must(append(signed_trail, 1, "{\"action\":\"b\"", &err), &err);
	keep_checkpoint();
}

static int
run_verify(struct err *err)
{
	struct checkpoint_signer *s = checkpoint_signer_parse(slice_of(secret), err);
	static struct verify_report report;
	struct verify_opts opts = { .dir = dir, .nkeys = 1, .anchors_fd = -1 };
	int rc;

	if (s == NULL)
		return -1;
	opts.keys = checkpoint_signer_key(s);
	opts.anchors_fd = open(path_of("anchors"), O_RDONLY | O_CLOEXEC);
	if ((rc = verify_trail(&opts, &report, err)) == 0) {
		/* What it could not do is no verdict on the trail. */
		if (report.unaltered != VERIFY_YES || report.complete == VERIFY_NO)
			rc = err_set(err, "%s", report.findings[0].text);
		else
			assert_int_equal(report.anchors, 1);
	}
	close(opts.anchors_fd);
	checkpoint_signer_free(s);
	return rc;
}

/* ---- sinks ---- */

static int
run_sink_file(struct err *err)
{
	char name[] = "a", path[TEMPDIR_SIZE + 64];
	const struct config_sink cfg = {
		.name = name, .type = CONFIG_SINK_FILE, .path = path, .rotate_size = 10, .keep = 1
	};
	const struct sink_event events[] = { { .text = SLICE_INIT("{\"action\":\"a\"}") },
		{ .text = SLICE_INIT("{\"action\":\"b\"}") } };
	void *state;
	int rc;

	strcpy(path, path_of("sink.jsonl"));
	if ((rc = sink_file_ops.open(&cfg, &state, err)) == -1)
		return -1;
	for (unsigned i = 0; rc == 0 && i < 3; i++)
		rc = sink_file_ops.deliver(state, events, 2, INT64_MAX, &(size_t){ 0 }, err) ==
			     SINK_OK
			 ? 0
			 : -1;
	sink_file_ops.close(state);
	return rc;
}

static int
run_sink_stdout(struct err *err)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), rc = -1;
	const struct sink_event one = { .text = SLICE_INIT("{}") };
	void *state;

	if (sink_stdout_open_fd(fd, &state, err) == 0) {
		rc = sink_stdout_ops.deliver(state, &one, 1, INT64_MAX, &(size_t){ 0 }, err) ==
			     SINK_OK
			 ? 0
			 : -1;
		sink_stdout_ops.close(state);
	}
	close(fd);
	return rc;
}

/* To a port of its own, where it stays unread. */
static int
run_sink_syslog(struct err *err)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	char host[] = "127.0.0.1";
	struct config_sink cfg = { .type = CONFIG_SINK_SYSLOG,
		.address.host = host,
		.transport = CONFIG_SYSLOG_UDP,
		.max_datagram = 8192 };
	const struct sink_event one = { .text = SLICE_INIT("{}"), .log = "a", .boot = "b" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = -1;
	void *state;

	assert_int_equal(bind(fd, (const struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	cfg.address.port = ntohs(sin.sin_port);
	if (sink_syslog_ops.open(&cfg, &state, err) == 0) {
		rc = sink_syslog_ops.deliver(state, &one, 1, INT64_MAX, &(size_t){ 0 }, err) ==
			     SINK_OK
			 ? 0
			 : -1;
		sink_syslog_ops.close(state);
	}
	close(fd);
	return rc;
}

static struct config *with_sinks;

static void
fill_trail_for_sinks(void)
{
	static const char text[] =
	    "{\"listen\":{\"address\":\"127.0.0.1:0\",\"tls\":null},"
	    "\"upstream\":{\"address\":\"127.0.0.1:1\",\"tls\":null},"
	    "\"audit\":{\"trail\":\"trail\",\"sign\":null},\"include\":[\"key-protect.json\"],"
	    "\"sinks\":[{\"name\":\"a\",\"type\":\"file\",\"path\":\"a.jsonl\"},"
	    "{\"name\":\"b\",\"type\":\"file\",\"path\":\"b.jsonl\"}]}";
	struct err err;

	quiet_empty_dir();
	if (with_sinks == NULL)
		must(config_load_text(
			 path_of("f.json"), slice_of(text), "proxy/routes", &with_sinks, &err),
		    &err);
	kill_trail();
}

static int
publish(const struct publisher_opts *opts, struct err *err)
{
	struct publisher *p;

	if (publisher_start(opts, &p, err) == -1)
		return -1;
	publisher_stop(p, clock_mono_ns());
	publisher_free(p);
	return 0;
}

static int
run_publisher(struct err *err)
{
	struct sink_types types;
	struct publisher_opts opts = { .config = with_sinks,
		.types = &types,
		.dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		.metrics = metrics_new(),
		.log = quiet };
	int rc = -1;

	sink_types_init(&types);
	if (opts.metrics != NULL && (opts.shard = metrics_shard_new(opts.metrics)) != NULL)
		rc = publish(&opts, err);
	else
		err_set(err, "memory is short");
	metrics_free(opts.metrics);
	close(opts.dirfd);
	return rc;
}

/* ---- */

static const struct scarce_case cases[] = {
	{ .label = "a call, from its bytes to its event",
	    .run = run_call,
	    .before = compile_routes,
	    .none = true },
	{ .label = "an event with references", .run = run_key_ref, .before = make_event },
	{ .label = "what a token said", .run = run_memo, .before = make_event },
	{ .label = "text, sums, words, a tree", .run = run_plain, .none = true },
	{ .label = "pool", .run = run_pool },
	{ .label = "buf", .run = run_buf },
	{ .label = "log", .run = run_log },
	{ .label = "metrics", .run = run_metrics },
	{ .label = "config", .run = run_config, .before = write_config },
	{ .label = "config, two of them", .run = run_changes },
	{ .label = "config, a wrong one", .run = run_bad_config },
	{ .label = "chapters of the manual", .run = run_reference },
	{ .label = "routes", .run = run_routes },
	{ .label = "trail", .run = run_trail, .before = empty_dir },
	{ .label = "trail, recovery", .run = run_recovery, .before = kill_trail },
	{ .label = "trail, recovery at the second attempt",
	    .run = run_recovery_again,
	    .before = kill_trail },
	{ .label = "ring", .run = run_ring, .before = empty_dir },
	{ .label = "journal", .run = run_journal, .before = quiet_empty_dir },
	{ .label = "reader", .run = run_reader, .before = fill_trail },
	{ .label = "walk", .run = run_walk, .before = fill_trail },
	{ .label = "query", .run = run_query, .before = fill_trail },
	{ .label = "index", .run = run_index, .before = fill_trail_without_index },
	{ .label = "reader's thread", .run = run_reader_thread, .before = fill_trail },
	{ .label = "follow's thread", .run = run_follow_thread, .before = fill_trail },
	{ .label = "leaves", .run = run_leaves },
	{ .label = "join", .run = run_join },
	{ .label = "a new signing key", .run = run_signer_make },
	{ .label = "proof", .run = run_proof, .before = make_keys },
	{ .label = "rotation", .run = run_rotation, .before = make_keys },
	{ .label = "ledger", .run = run_ledger, .before = fill_signed_trail },
	{ .label = "ledger, a tree that is there", .run = run_ledger, .before = sign_trail },
	{ .label = "verify", .run = run_verify, .before = sign_trail },
	{ .label = "sink file", .run = run_sink_file, .before = empty_dir },
	{ .label = "sink stdout", .run = run_sink_stdout },
	{ .label = "sink syslog", .run = run_sink_syslog },
	{ .label = "publisher", .run = run_publisher, .before = fill_trail_for_sinks },
};

static int
setup(void **state)
{
	(void)state;
	scarce_seed();
	setenv("TMPDIR", "/dev/shm", 0); /* each run syncs what it writes */
	tempdir_make(dir);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	if (signed_trail != NULL)
		trail_close(signed_trail, true);
	log_free(quiet);
	config_unref(with_sinks);
	route_table_free(routes);
	tempdir_remove(dir);
	return 0;
}

int
main(void)
{
	struct CMUnitTest tests[COUNT(cases)];

	for (size_t i = 0; i < COUNT(cases); i++)
		tests[i] = scarce_test(&cases[i]);
	return cmocka_run_group_tests_name("scarce", tests, setup, teardown);
}
