#include "mix.h"

#include <openssl/evp.h>

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INSTANCE     "fd692647-43d0-4699-9f83-f39a54b1327b"
#define BIG_BODY     (256 * 1024)
#define REFUSED_EACH 5 /* seconds between two calls that are refused: they may not be many */
#define FAULTS_SHOWN 5 /* a connection */

struct call {
	const char *method, *target, *body; /* body NULL: none */
	const char *more;		    /* further header lines */
	const char *token;		    /* NULL: ours */
	bool chunked, own_id;
	unsigned want; /* status; 0: any */
};

static uint64_t
next_random(struct mix *m)
{
	/* xorshift64*: repeatable for a connection's number */
	m->random ^= m->random >> 12;
	m->random ^= m->random << 25;
	m->random ^= m->random >> 27;
	return m->random * UINT64_C(0x2545f4914f6cdd1d);
}

static void
fault(struct mix *m, const char *fmt, ...)
{
	va_list ap;

	if (m->faults++ >= FAULTS_SHOWN)
		return;
	fprintf(stderr, "load: connection %u, call %llu: ", m->opts.number,
	    (unsigned long long)m->calls);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void
make_id(struct mix *m)
{
	uint64_t a = next_random(m);

	snprintf(m->id, sizeof(m->id), "%08x-%04x-4%03x-8%03x-%04x%08x", (unsigned)(a >> 32),
	    (unsigned)(a >> 16) & 0xffff, (unsigned)a & 0xfff, m->opts.number & 0xfff,
	    (unsigned)(m->calls >> 32) & 0xffff, (unsigned)m->calls);
}

static void
record(struct mix *m, const char *id, unsigned status)
{
	fprintf(m->out, "%s %u\n", id, status);
	m->statuses[status < MIX_STATUSES ? status : 0]++;
}

/* ---- one call ---- */

static int
format_head(struct mix *m, const struct call *call, char *out, size_t cap)
{
	const char *token = call->token != NULL ? call->token : m->opts.token;
	int n;

	m->calls++;
	m->id[0] = '\0';
	if (call->own_id || next_random(m) % 2 == 0)
		make_id(m);
	n = snprintf(out, cap,
	    "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
	    "Bluemix-Instance: " INSTANCE "\r\nUser-Agent: soak/1\r\n%s%s%s%s",
	    call->method, call->target, token, m->id[0] != '\0' ? "Correlation-Id: " : "", m->id,
	    m->id[0] != '\0' ? "\r\n" : "", call->more != NULL ? call->more : "");
	if (call->body != NULL && call->chunked)
		n += snprintf(out + n, cap - (size_t)n,
		    "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n");
	else if (call->body != NULL)
		n += snprintf(out + n, cap - (size_t)n,
		    "Content-Type: application/json\r\nContent-Length: %zu\r\n",
		    strlen(call->body));
	n += snprintf(out + n, cap - (size_t)n, "\r\n");
	return n;
}

static int
send_body(struct mix *m, const struct call *call)
{
	size_t n = call->body != NULL ? strlen(call->body) : 0, step = n / 3 + 1;
	char size[32];

	if (n == 0)
		return 0;
	if (!call->chunked)
		return client_send(&m->client, call->body, n);
	for (size_t at = 0; at < n; at += step) {
		size_t part = n - at < step ? n - at : step;
		snprintf(size, sizeof(size), "%zx\r\n", part);
		if (client_send(&m->client, size, strlen(size)) == -1 ||
		    client_send(&m->client, call->body + at, part) == -1 ||
		    client_send(&m->client, "\r\n", 2) == -1)
			return -1;
	}
	return client_send(&m->client, "0\r\n\r\n", 5);
}

static int
connected(struct mix *m)
{
	if (m->client.ssl != NULL || client_connect(&m->client) == 0)
		return 0;
	fault(m, "%s", m->client.why);
	return -1;
}

/* Head and body in one write where they are small, as most clients do. */
static int
send_call(struct mix *m, const struct call *call)
{
	char text[8192];
	size_t n, body = call->body != NULL ? strlen(call->body) : 0;

	if (connected(m) == -1)
		return -1;
	n = (size_t)format_head(m, call, text, sizeof(text));
	if (!call->chunked && n + body <= sizeof(text)) {
		if (body > 0)
			memcpy(text + n, call->body, body);
		return client_send(&m->client, text, n + body);
	}
	if (client_send(&m->client, text, n) == -1)
		return -1;
	return send_body(m, call);
}

/* Read the final answer and write its line. */
static int
finish_call(struct mix *m, const struct call *call, const char *id, struct answer *a)
{
	bool head = strcmp(call->method, "HEAD") == 0;

	do {
		if (client_receive(&m->client, head, a) == -1) {
			fault(m, "%s %s: %s", call->method, call->target, m->client.why);
			return -1;
		}
	} while (a->status < 200);
	if (id[0] != '\0' && a->correlation[0] != '\0' && strcmp(id, a->correlation) != 0)
		fault(m, "sent id %s, the answer has %s", id, a->correlation);
	if (id[0] == '\0')
		id = a->correlation;
	if (id[0] == '\0')
		fault(
		    m, "%s %s: %u without a correlation id", call->method, call->target, a->status);
	else
		record(m, id, a->status);
	if (call->want != 0 && a->status != call->want && a->status != 503)
		fault(m, "%s %s: wanted %u, got %u", call->method, call->target, call->want,
		    a->status);
	return 0;
}

static int
do_call(struct mix *m, const struct call *call, struct answer *a)
{
	if (send_call(m, call) == -1) {
		fault(m, "%s %s: %s", call->method, call->target, m->client.why);
		return -1;
	}
	return finish_call(m, call, m->id, a);
}

/* The value of a string member, the first of this name. */
static int
take_member(const struct answer *a, const char *name, char *out, size_t cap)
{
	char pattern[40];
	const char *p;
	size_t n;

	snprintf(pattern, sizeof(pattern), "\"%s\":", name);
	if ((p = strstr(a->body, pattern)) == NULL)
		return -1;
	p += strlen(pattern);
	p += strspn(p, " ");
	if (*p++ != '"' || (n = strcspn(p, "\"")) >= cap)
		return -1;
	memcpy(out, p, n);
	out[n] = '\0';
	return 0;
}

/* ---- the kinds of calls ---- */

static void
wrap(struct mix *m, bool old, bool chunked)
{
	char target[160], body[256], given[33];
	struct answer a;

	snprintf(given, sizeof(given), "%016llx%016llx", (unsigned long long)next_random(m),
	    (unsigned long long)next_random(m));
	EVP_EncodeBlock((unsigned char *)m->plain, (const unsigned char *)given, 32);
	snprintf(target, sizeof(target), "/api/v2/keys/%s%s", m->key,
	    old ? "?action=wrap" : "/actions/wrap");
	snprintf(body, sizeof(body), "{\"plaintext\":\"%s\",\"aad\":[\"soak\"]}", m->plain);
	m->ciphertext[0] = '\0';
	if (do_call(m,
		&(struct call){ .method = "POST",
		    .target = target,
		    .body = body,
		    .chunked = chunked,
		    .want = 200 },
		&a) == -1 ||
	    a.status != 200)
		return;
	if (take_member(&a, "ciphertext", m->ciphertext, sizeof(m->ciphertext)) == -1)
		fault(m, "no ciphertext in %s", a.body);
}

static void
unwrap(struct mix *m, bool old, const char *more)
{
	char target[160], body[4300], plain[64];
	struct answer a;

	if (m->ciphertext[0] == '\0') {
		wrap(m, old, false);
		return;
	}
	snprintf(target, sizeof(target), "/api/v2/keys/%s%s", m->key,
	    old ? "?action=unwrap" : "/actions/unwrap");
	snprintf(body, sizeof(body), "{\"ciphertext\":\"%s\",\"aad\":[\"soak\"]}", m->ciphertext);
	if (do_call(m,
		&(struct call){
		    .method = "POST", .target = target, .body = body, .more = more, .want = 200 },
		&a) == -1 ||
	    a.status != 200)
		return;
	if (take_member(&a, "plaintext", plain, sizeof(plain)) == -1 ||
	    strcmp(plain, m->plain) != 0)
		fault(m, "unwrapped something else: %s", a.body);
}

static void
do_wrap(struct mix *m)
{
	wrap(m, false, false);
}

static void
do_wrap_chunked(struct mix *m)
{
	wrap(m, false, true);
}

static void
do_wrap_old(struct mix *m)
{
	wrap(m, true, false);
}

static void
do_unwrap(struct mix *m)
{
	unwrap(m, false, NULL);
}

static void
do_unwrap_old(struct mix *m)
{
	unwrap(m, true, NULL);
}

static void
do_unwrap_expect(struct mix *m)
{
	/* The body follows at once, as RFC 9110 section 10.1.1 allows. */
	unwrap(m, false, "Expect: 100-continue\r\n");
}

static void
on_key(struct mix *m, const char *method, const char *after, const char *body, unsigned want)
{
	char target[160];
	struct answer a;

	snprintf(target, sizeof(target), "/api/v2/keys/%s%s", m->key, after);
	do_call(m, &(struct call){ .method = method, .target = target, .body = body, .want = want },
	    &a);
}

static void
do_read(struct mix *m)
{
	on_key(m, "GET", "", NULL, 200);
}

static void
do_read_metadata(struct mix *m)
{
	on_key(m, "GET", "/metadata", NULL, 200);
}

static void
do_rotate(struct mix *m)
{
	on_key(m, "POST", "/actions/rotate", "", 204);
}

static void
do_write_policies(struct mix *m)
{
	on_key(m, "PUT", "/policies",
	    "{\"resources\":[{\"type\":\"application/vnd.ibm.kms.policy+json\","
	    "\"rotation\":{\"interval_month\":3}}]}",
	    200);
}

static void
on_target(struct mix *m, const char *method, const char *target, unsigned want)
{
	struct answer a;

	do_call(m, &(struct call){ .method = method, .target = target, .want = want }, &a);
}

static void
do_list(struct mix *m)
{
	on_target(m, "GET", "/api/v2/keys?limit=5", 200);
}

static void
do_head(struct mix *m)
{
	on_target(m, "HEAD", "/api/v2/keys", 200);
}

static void
do_unknown_key(struct mix *m)
{
	on_target(m, "GET", "/api/v2/keys/00000000-0000-4000-8000-000000000000", 404);
}

static void
do_unmapped(struct mix *m)
{
	on_target(m, "GET", "/api/v9/nothing/here", 404);
}

static void
do_wrong_token(struct mix *m)
{
	struct answer a;

	do_call(m,
	    &(struct call){
		.method = "GET", .target = "/api/v2/keys", .token = "e30.e30.AAAA", .want = 401 },
	    &a);
}

static void
do_big_answer(struct mix *m)
{
	struct answer a;

	if (do_call(m,
		&(struct call){ .method = "GET",
		    .target = "/api/v2/keys",
		    .more = "X-Test-Size: 300000\r\n",
		    .want = 200 },
		&a) == 0 &&
	    a.status == 200 && a.body_len != 300000)
		fault(m, "wanted 300000 bytes, got %llu", (unsigned long long)a.body_len);
}

static void
do_big_body(struct mix *m)
{
	static const char target[] =
	    "/api/v2/keys/00000000-0000-4000-8000-000000000000/actions/wrap";
	char *body = malloc(BIG_BODY + 1);
	struct answer a;

	if (body == NULL)
		abort();
	memset(body, ' ', BIG_BODY);
	memcpy(body, "{}", 2);
	body[BIG_BODY] = '\0';
	do_call(m,
	    &(struct call){ .method = "POST",
		.target = target,
		.body = body,
		.chunked = m->calls % 2 == 0,
		.want = 404 },
	    &a);
	free(body);
}

static void
do_pipeline(struct mix *m)
{
	struct call call = { .method = "GET", .target = "/api/v2/keys?limit=1", .want = 200 };
	char ids[3][sizeof(m->id)], text[16384];
	struct answer a;
	int n = 0;

	if (connected(m) == -1)
		return;
	for (unsigned i = 0; i < 3; i++) {
		n += format_head(m, &call, text + n, sizeof(text) - (size_t)n);
		memcpy(ids[i], m->id, sizeof(m->id));
	}
	if (client_send(&m->client, text, (size_t)n) == -1) {
		fault(m, "pipeline: %s", m->client.why);
		return;
	}
	for (unsigned i = 0; i < 3; i++) {
		if (finish_call(m, &call, ids[i], &a) == -1)
			return;
		if (m->client.ssl == NULL && i < 2) {
			fault(m, "closed within a pipeline");
			return;
		}
	}
}

static void
do_refused(struct mix *m)
{
	struct timespec now;
	struct answer a;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec - m->refused_at < REFUSED_EACH) {
		do_read(m);
		return;
	}
	m->refused_at = now.tv_sec;
	do_call(m,
	    &(struct call){
		.method = "GET", .target = "/api/v2//keys", .own_id = true, .want = 400 },
	    &a);
}

static void
do_abort(struct mix *m)
{
	struct call call = { .method = "GET", .target = "/api/v2/keys?limit=2", .own_id = true };

	if (send_call(m, &call) == -1) {
		fault(m, "abort: %s", m->client.why);
		return;
	}
	client_close(&m->client, false);
	m->aborted++;
	record(m, m->id, 0);
}

static void
do_reconnect(struct mix *m)
{
	client_close(&m->client, true);
	do_read(m);
}

static const struct {
	unsigned weight;
	void (*run)(struct mix *);
} kinds[] = {
	{ 200, do_wrap },
	{ 60, do_wrap_old },
	{ 40, do_wrap_chunked },
	{ 200, do_unwrap },
	{ 60, do_unwrap_old },
	{ 20, do_unwrap_expect },
	{ 200, do_read },
	{ 60, do_read_metadata },
	{ 60, do_list },
	{ 20, do_head },
	{ 40, do_unknown_key },
	{ 30, do_unmapped },
	{ 30, do_wrong_token },
	{ 5, do_write_policies },
	{ 1, do_rotate },
	{ 5, do_big_answer },
	{ 3, do_big_body },
	{ 20, do_pipeline },
	{ 2, do_abort },
	{ 8, do_reconnect },
	{ 2, do_refused },
};
#define NKINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- a connection's life ---- */

int
mix_init(
    struct mix *m, const struct mix_opts *opts, SSL_CTX *ctx, const struct sockaddr_in *address)
{
	char path[512];

	*m = (struct mix){ .opts = *opts, .random = 0x9e3779b97f4a7c15u * (opts->number + 1u) };
	client_init(&m->client, ctx, address);
	snprintf(path, sizeof(path), "%s/%03u", opts->out, opts->number);
	if ((m->out = fopen(path, "we")) == NULL) {
		perror(path);
		return -1;
	}
	return 0;
}

int
mix_begin(struct mix *m)
{
	static const char body[] =
	    "{\"metadata\":{\"collectionType\":\"application/vnd.ibm.kms.key+json\","
	    "\"collectionTotal\":1},\"resources\":[{\"type\":\"application/vnd.ibm.kms.key+json\","
	    "\"name\":\"soak\",\"extractable\":false}]}";
	struct answer a;

	if (do_call(m,
		&(struct call){
		    .method = "POST", .target = "/api/v2/keys", .body = body, .want = 201 },
		&a) == -1)
		return -1;
	if (take_member(&a, "id", m->key, sizeof(m->key)) == -1) {
		fault(m, "no key in %s", a.body);
		return -1;
	}
	return 0;
}

void
mix_step(struct mix *m)
{
	unsigned total = 0, pick;
	size_t i;

	for (i = 0; i < NKINDS; i++)
		total += kinds[i].weight;
	pick = (unsigned)(next_random(m) >> 33) % total;
	for (i = 0; pick >= kinds[i].weight; i++)
		pick -= kinds[i].weight;
	kinds[i].run(m);
}

void
mix_fini(struct mix *m)
{
	client_fini(&m->client);
	if (fclose(m->out) != 0) {
		perror("load: write");
		m->faults++;
	}
}
