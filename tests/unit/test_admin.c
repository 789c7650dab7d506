#include "admin/admin.h"

#include "keytrail/clock.h"
#include "tempdir.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#define TOKEN	   "0123456789abcdef-token"
#define BEARER	   "Authorization: Bearer " TOKEN "\r\n"
#define LOCAL	   "Host: localhost\r\n"
#define CANARY	   "c4n4ry"

#define OTHER_SITE "Sec-Fetch-Site: cross-site\r\n"
#define NAVIGATES  "Sec-Fetch-Mode: navigate\r\n"

struct fixture {
	char dir[TEMPDIR_SIZE];
	int dirfd;
	char socket_path[TEMPDIR_SIZE + 32];
	char host[32], path[32];
	unsigned char token[sizeof(TOKEN)];
	struct config config;
	struct event_base *base;
	struct metrics *metrics;
	struct metrics_shard *shard;
	struct log *log;
	int log_fd[2];
	struct admin *admin;
	struct err err;
	const int *given;
	unsigned refreshed;
	bool failing;
	struct {
		unsigned n;
		char text[256]; /* the last one */
	} accesses;
	char answer[65536];
};

static const struct config *
current_config(void *arg)
{
	struct fixture *f = arg;

	return &f->config;
}

static void
refresh(void *arg)
{
	struct fixture *f = arg;

	metrics_set(f->shard, METRIC_TRAIL_SEGMENTS, 0, ++f->refreshed);
}

static size_t
checks(void *arg, struct health_check *out, size_t max)
{
	struct fixture *f = arg;

	assert_true(max > 0);
	out[0] = (struct health_check){ .name = "trail", .ok = !f->failing };
	snprintf(out[0].detail, sizeof(out[0].detail), "%s", f->failing ? "no room" : "");
	return 1;
}

static int
status(void *arg, double full_s, struct buf *out)
{
	(void)arg;
	assert_true(isinf(full_s));
	return buf_printf(out, "\"workers\":4,\"sinks\":[]");
}

static unsigned
operate(void *arg, const struct admin_call *call, struct buf *text)
{
	const char *reason = admin_call_get(call, "reason");

	(void)arg;
	buf_printf(text, "%s %s %lu %ld %s\n", call->path, reason != NULL ? reason : "none",
	    (unsigned long)call->peer.uid, (long)call->peer.pid, call->peer.name);
	return reason != NULL ? 200 : 422;
}

static void
on_access(void *arg, const struct admin_access *a)
{
	struct fixture *f = arg;

	f->accesses.n++;
	if (a->refused > 0)
		snprintf(f->accesses.text, sizeof(f->accesses.text), "%u refused %s %s",
		    (unsigned)a->refused, a->address, a->reason);
	else
		snprintf(f->accesses.text, sizeof(f->accesses.text), "%s %s %s %s %s", a->page,
		    a->token, a->role, a->address, a->filter);
}

static const struct admin_opts template = { .config = current_config,
	.refresh = refresh,
	.checks = checks,
	.status = status,
	.operate = operate,
	.access = on_access };

static int
start(struct fixture *f)
{
	struct admin_opts opts = template;

	opts.base = f->base;
	opts.given = f->given;
	opts.metrics = f->metrics;
	opts.shard = f->shard;
	opts.trail_dirfd = f->dirfd;
	opts.log = f->log;
	opts.arg = f;
	return admin_start(&opts, &f->admin, &f->err);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tempdir_make(f->dir);
	f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY);
	snprintf(f->socket_path, sizeof(f->socket_path), "%s/admin.sock", f->dir);
	strcpy(f->host, "127.0.0.1");
	strcpy(f->path, "/etc/\"routes\".json");
	memcpy(f->token, TOKEN, sizeof(TOKEN));
	assert_int_equal(pipe2(f->log_fd, O_NONBLOCK | O_CLOEXEC), 0);
	f->base = event_base_new();
	f->metrics = metrics_new();
	f->shard = metrics_shard_new(f->metrics);
	f->log = log_new(f->log_fd[1], LOG_LEVEL_TRACE);
	f->config.path = f->path;
	f->config.audit.trail = f->dir;
	f->config.metrics_enabled = true;
	f->config.metrics = (struct config_address){ f->host, 0 };
	f->config.admin.enabled = true;
	f->config.admin.address = (struct config_address){ f->host, 0 };
	f->config.admin.token = (struct config_secret){ .bytes = f->token, .n = strlen(TOKEN) };
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	admin_free(f->admin);
	log_free(f->log);
	metrics_free(f->metrics);
	event_base_free(f->base);
	close(f->log_fd[0]);
	close(f->log_fd[1]);
	close(f->dirfd);
	tempdir_remove(f->dir);
	free(f);
	return 0;
}

/* The kernel has chosen one; 0: it was not asked for. */
static uint16_t
port_of(const char *log, const char *listener)
{
	const char *line = strstr(log, listener);
	unsigned short port = 0;

	if (line != NULL)
		assert_int_equal(sscanf(line + strlen(listener), "%*[0-9.]:%hu", &port), 1);
	return port;
}

static void
start_or_fail(struct fixture *f)
{
	char text[4096];
	ssize_t n;

	if (start(f) == -1)
		fail_msg("%s", f->err.msg);
	log_flush(f->log);
	n = read(f->log_fd[0], text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	f->config.metrics.port = port_of(text, "\"message\":\"metrics ");
	f->config.admin.address.port = port_of(text, "\"message\":\"admin ");
}

static int
connect_from(const char *address, uint16_t port)
{
	struct sockaddr_in own = { .sin_family = AF_INET };
	struct sockaddr_in sin = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(inet_pton(AF_INET, address, &own.sin_addr), 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

static int
connect_tcp(uint16_t port)
{
	return connect_from("127.0.0.1", port);
}

static int
connect_unix(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sun.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

/* Send the bytes and turn the loop until the connection is closed.  The status; the answer is in
 * f->answer.  Takes fd. */
static int
talk(struct fixture *f, int fd, const char *request)
{
	int64_t until = clock_mono_ns() + 20 * CLOCK_NS_PER_S;
	size_t n = 0;
	ssize_t got = -1;

	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (got != 0 && clock_mono_ns() < until) {
		event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		while ((got = recv(fd, f->answer + n, sizeof(f->answer) - 1 - n, 0)) > 0)
			n += (size_t)got;
		if (got == -1 && errno != EAGAIN)
			break;
	}
	close(fd);
	f->answer[n] = '\0';
	return strncmp(f->answer, "HTTP/1.1 ", 9) == 0 ? atoi(f->answer + 9) : -1;
}

static int
ask(struct fixture *f, uint16_t port, const char *line, const char *headers)
{
	char request[16384];

	snprintf(
	    request, sizeof(request), "%s HTTP/1.1\r\nConnection: close\r\n%s\r\n", line, headers);
	return talk(f, connect_tcp(port), request);
}

static const char *
body_of(const struct fixture *f)
{
	const char *p = strstr(f->answer, "\r\n\r\n");

	return p == NULL ? "" : p + 4;
}

/* ---- the metrics listener ---- */

static const struct {
	const char *label, *line, *headers;
	int status;
	const char *want; /* in the answer */
} metrics_cases[] = {
	{ "no token, any Host", "GET /metrics", "Host: prometheus.example\r\n", 200,
	    "\nkeytrail_start_time_seconds 0\n" },
	{ "liveness", "GET /livez", LOCAL, 200, "alive\n" },
	{ "readiness has no details", "GET /readyz?verbose", LOCAL, 200, "\r\n\r\nready\n" },
	{ "status is for the admin listener", "GET /status", LOCAL BEARER, 404, "no such page" },
	{ "nothing else is there", "GET /" CANARY, LOCAL, 404, "no such page" },
	{ "a longer path is another", "GET /metrics/", LOCAL, 404, "" },
	{ "POST is refused", "POST /metrics", LOCAL "Content-Length: 0\r\n", 405,
	    "Allow: GET, HEAD" },
	{ "OPTIONS is refused", "OPTIONS /metrics", LOCAL, 405, "" },
	{ "a body is refused", "POST /metrics", LOCAL "Content-Length: 6\r\n\r\n" CANARY, 413, "" },
};

static void
test_the_metrics_listener(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	for (size_t i = 0; i < sizeof(metrics_cases) / sizeof(metrics_cases[0]); i++) {
		int got =
		    ask(f, f->config.metrics.port, metrics_cases[i].line, metrics_cases[i].headers);

		if (got != metrics_cases[i].status ||
		    strstr(f->answer, metrics_cases[i].want) == NULL)
			fail_msg("%s: %s", metrics_cases[i].label, f->answer);
		assert_null(strstr(f->answer, CANARY));
	}
}

static void
test_gauges_are_refreshed_before_a_scrape(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	assert_int_equal(ask(f, f->config.metrics.port, "GET /metrics", LOCAL), 200);
	assert_non_null(strstr(f->answer, "\nkeytrail_trail_segments 1\n"));
	assert_int_equal(ask(f, f->config.metrics.port, "GET /metrics", LOCAL), 200);
	assert_non_null(strstr(f->answer, "\nkeytrail_trail_segments 2\n"));
}

static void
test_a_failed_check_is_503(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	f->failing = true;
	assert_int_equal(ask(f, f->config.metrics.port, "GET /readyz", LOCAL), 503);
	assert_string_equal(body_of(f), "not ready\n");
	assert_int_equal(ask(f, f->config.metrics.port, "GET /livez", LOCAL), 200);
	assert_int_equal(
	    ask(f, f->config.admin.address.port, "GET /readyz?verbose", LOCAL BEARER), 503);
	assert_string_equal(body_of(f),
	    "{\"checks\":[{\"detail\":\"no room\",\"name\":\"trail\",\"ok\":false}],"
	    "\"ready\":false}\n");
}

static const struct {
	const char *accept;
	bool openmetrics;
} accepts[] = {
	{ "", false },
	{ "Accept: */*\r\n", false },
	{ "Accept: application/openmetrics-text\r\n", true },
	{ "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n", true },
	{ "Accept: application/openmetrics-text; version=1.0.0; q=0.4, text/plain;q=0.5\r\n",
	    false },
	{ "Accept: application/openmetrics-text;version=1.0.0,"
	  "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,"
	  "*/*;q=0.1\r\n",
	    true },
	{ "Accept: application/openmetrics-text;version=0.0.1\r\n", false },
	{ "Accept: application/openmetrics-text;q=0\r\n", false },
	{ "Accept: application/openmetrics-text;q=x\r\n", false },
	{ "Accept: text/html\r\n", false },
};

static void
test_the_format_is_negotiated(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	for (size_t i = 0; i < sizeof(accepts) / sizeof(accepts[0]); i++) {
		char headers[512];
		bool eof;

		snprintf(headers, sizeof(headers), LOCAL "%s", accepts[i].accept);
		assert_int_equal(ask(f, f->config.metrics.port, "GET /metrics", headers), 200);
		eof = strstr(f->answer, "# EOF\n") != NULL;
		if (eof != accepts[i].openmetrics ||
		    strstr(
			f->answer, eof ? "Content-Type: application/openmetrics-text; version=1.0.0"
				       : "Content-Type: text/plain; version=0.0.4") == NULL)
			fail_msg("%s", accepts[i].accept);
	}
}

static void
test_head_has_the_length_and_no_body(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	assert_int_equal(ask(f, f->config.metrics.port, "HEAD /livez", LOCAL), 200);
	assert_non_null(strstr(f->answer, "Content-Length: 6\r\n"));
	assert_string_equal(body_of(f), "");
}

static void
test_a_head_beyond_the_limit_is_refused(void **state)
{
	struct fixture *f = *state;
	static char headers[12000];
	int status;

	start_or_fail(f);
	memset(headers, 'x', sizeof(headers) - 1);
	memcpy(headers, LOCAL "X: ", strlen(LOCAL "X: "));
	memcpy(headers + sizeof(headers) - 3, "\r\n", 2);
	status = ask(f, f->config.metrics.port, "GET /metrics", headers);
	assert_true(status == 400 || status == 413 || status == 431 || status == -1);
}

/* ---- the admin listener ---- */

static const struct {
	const char *label, *line, *headers;
	int status;
	const char *want;
} admin_cases[] = {
	{ "the token opens it", "GET /status", LOCAL BEARER, 200, "\"workers\":4" },
	{ "the scheme's case does not matter", "GET /status",
	    LOCAL "Authorization: bearer " TOKEN "\r\n", 200, "" },
	{ "an hour of it", "GET /history", LOCAL BEARER, 200, "{\"step\":10,\"end\":0," },
	{ "a minute of it", "GET /history?minutes=1", LOCAL BEARER, 200,
	    "\"lost\":[null,null,null,null,null,null]" },
	{ "no time", "GET /history?minutes=0", LOCAL BEARER, 400, "" },
	{ "too much of it", "GET /history?minutes=61", LOCAL BEARER, 400, "" },
	{ "something else", "GET /history?" CANARY "=1", LOCAL BEARER, 400, "" },
	{ "metrics are there too", "GET /metrics", LOCAL BEARER, 200, "keytrail_requests_total" },
	{ "liveness too", "GET /livez", LOCAL BEARER, 200, "alive" },
	{ "readiness in short", "GET /readyz", LOCAL BEARER, 200, "\r\n\r\nready\n" },
	{ "readiness at length", "GET /readyz?verbose", LOCAL BEARER, 200, "{\"checks\":[" },
	{ "a loopback address", "GET /status", "Host: 127.0.0.1:9481\r\n" BEARER, 200, "" },
	{ "another one", "GET /status", "Host: 127.8.9.1\r\n" BEARER, 200, "" },
	{ "in brackets", "GET /status", "Host: [::1]:9481\r\n" BEARER, 200, "" },
	{ "a name with a port", "GET /status", "Host: LOCALHOST:1\r\n" BEARER, 200, "" },
	{ "DNS rebinding", "GET /status", "Host: " CANARY ".example\r\n" BEARER, 403, "Host" },
	{ "a name that begins like ours", "GET /status", "Host: localhost.evil.example\r\n" BEARER,
	    403, "" },
	{ "an address that is not ours", "GET /status", "Host: 192.0.2.1\r\n" BEARER, 403, "" },
	{ "no Host", "GET /status", BEARER, 403, "" },
	{ "two Hosts", "GET /status", LOCAL "Host: evil.example\r\n" BEARER, 403, "" },
	{ "two Hosts, the other way", "GET /status", "Host: evil.example\r\n" LOCAL BEARER, 403,
	    "" },
	{ "another origin", "GET /status", LOCAL "Origin: http://" CANARY "\r\n" BEARER, 403,
	    "other sites" },
	{ "the null origin", "GET /status", LOCAL "Origin: null\r\n" BEARER, 403, "" },
	{ "our own origin", "GET /status", LOCAL "Origin: http://localhost\r\n" BEARER, 200, "" },
	{ "another port is another origin", "GET /status",
	    LOCAL "Origin: http://localhost:1\r\n" BEARER, 403, "" },
	{ "a cross-site fetch", "GET /status", LOCAL "Sec-Fetch-Site: cross-site\r\n" BEARER, 403,
	    "" },
	{ "a same-site fetch", "GET /status", LOCAL "Sec-Fetch-Site: same-site\r\n" BEARER, 403,
	    "" },
	{ "a link to the dashboard", "GET /", LOCAL OTHER_SITE NAVIGATES, 200, "<title>" },
	{ "a link to what is not for everybody", "GET /status", LOCAL OTHER_SITE NAVIGATES BEARER,
	    403, "" },
	{ "a link by another name", "GET /", "Host: " CANARY ".example\r\n" OTHER_SITE NAVIGATES,
	    403, "" },
	{ "a picture of the dashboard", "GET /", LOCAL OTHER_SITE, 403, "" },
	{ "a form that is sent to it", "POST /", LOCAL OTHER_SITE NAVIGATES, 403, "" },
	{ "typed into a browser", "GET /status", LOCAL "Sec-Fetch-Site: none\r\n" BEARER, 200, "" },
	{ "no token", "GET /status", LOCAL, 401, "WWW-Authenticate: Bearer" },
	{ "a wrong token", "GET /status", LOCAL "Authorization: Bearer " CANARY "\r\n", 401, "" },
	{ "a token that is too short", "GET /status",
	    LOCAL "Authorization: Bearer 0123456789abcdef-toke\r\n", 401, "" },
	{ "a token that is too long", "GET /status", LOCAL "Authorization: Bearer " TOKEN "x\r\n",
	    401, "" },
	{ "an empty token", "GET /status", LOCAL "Authorization: Bearer \r\n", 401, "" },
	{ "another scheme", "GET /status", LOCAL "Authorization: Basic " TOKEN "\r\n", 401, "" },
	{ "two tokens", "GET /status", LOCAL "Authorization: Bearer x\r\n" BEARER, 401, "" },
	{ "a token in the URL", "GET /status?token=" TOKEN, LOCAL, 401, "" },
	{ "liveness needs it too here", "GET /livez", LOCAL, 401, "" },
	{ "what is not there, without a token", "GET /" CANARY, LOCAL, 401, "" },
	{ "what is not there, with it", "GET /" CANARY, LOCAL BEARER, 404, "" },
	{ "DELETE", "DELETE /status", LOCAL BEARER, 405, "" },
};

static void
test_the_admin_listener(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	for (size_t i = 0; i < sizeof(admin_cases) / sizeof(admin_cases[0]); i++) {
		int got = ask(
		    f, f->config.admin.address.port, admin_cases[i].line, admin_cases[i].headers);

		if (got != admin_cases[i].status || strstr(f->answer, admin_cases[i].want) == NULL)
			fail_msg("%s: %s", admin_cases[i].label, f->answer);
		assert_null(strstr(f->answer, CANARY));
		assert_null(strstr(f->answer, TOKEN));
	}
}

static void
test_the_log_never_shows_what_was_asked(void **state)
{
	struct fixture *f = *state;
	char text[65536];
	ssize_t n;

	start_or_fail(f);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /" CANARY,
			     "Host: " CANARY "\r\nAuthorization: Bearer " CANARY "\r\n"),
	    403);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /" CANARY,
			     LOCAL "Authorization: Bearer " CANARY "\r\n"),
	    401);
	log_flush(f->log);
	n = read(f->log_fd[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_non_null(strstr(text, "admin_refused"));
	assert_null(strstr(text, CANARY));
}

static void
test_the_status_is_one_object(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	metrics_add(f->shard, METRIC_UPSTREAM_OPEN, 0, 3);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL BEARER), 200);
	assert_string_equal(body_of(f),
	    "{\"configPath\":\"/etc/\\\"routes\\\".json\","
	    "\"you\":{\"role\":\"viewer\",\"token\":\"admin.token\"},"
	    "\"checks\":[{\"detail\":\"\",\"name\":\"trail\",\"ok\":true}],\"ready\":true,"
	    "\"requests\":{\"inFlight\":0},"
	    "\"upstream\":{\"idle\":0,\"open\":3},\"workers\":4,\"sinks\":[]}\n");
}

static void
test_without_a_token_none_is_asked_for(void **state)
{
	struct fixture *f = *state;

	f->config.admin.token.bytes = NULL;
	start_or_fail(f);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL), 200);
}

/* There is no trail: what is let in is answered 503. */
static const struct {
	const char *label, *given;
	int status;
	const char *want; /* what is recorded */
} token_cases[] = {
	{ "a viewer", "alice-alice-alice", 503, "/events alice viewer 127.0.0.1 action, limit" },
	{ "an operator", "oscar-oscar-oscar", 503,
	    "/events oscar operator 127.0.0.1 action, limit" },
	{ "the one beside them", TOKEN, 503, "/events admin.token viewer 127.0.0.1 action, limit" },
	{ "nobody's", "alice-alice-alicf", 401, "1 refused 127.0.0.1 wrong_token" },
};

static void
test_each_query_is_recorded_with_the_name_of_its_token(void **state)
{
	struct fixture *f = *state;
	unsigned char alice[] = "alice-alice-alice", oscar[] = "oscar-oscar-oscar";
	char alice_name[] = "alice", oscar_name[] = "oscar";
	struct config_admin_token tokens[] = {
		{ alice_name, false, { .bytes = alice, .n = sizeof(alice) - 1 } },
		{ oscar_name, true, { .bytes = oscar, .n = sizeof(oscar) - 1 } },
	};

	f->config.admin.tokens = tokens;
	f->config.admin.ntokens = 2;
	start_or_fail(f);
	for (size_t i = 0; i < sizeof(token_cases) / sizeof(token_cases[0]); i++) {
		char headers[256];
		int got;

		snprintf(headers, sizeof(headers), LOCAL "Authorization: Bearer %s\r\n",
		    token_cases[i].given);
		got = ask(f, f->config.admin.address.port, "GET /events?action=" CANARY "&limit=3",
		    headers);
		if (got != token_cases[i].status)
			fail_msg("%s: %s", token_cases[i].label, f->answer);
		assert_string_equal(f->accesses.text, token_cases[i].want);
	}
	assert_int_equal(f->accesses.n, 4);
	f->config.admin.token.bytes = NULL;
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL), 401);
}

static void
test_who_tries_too_often_is_put_off_but_not_the_right_token(void **state)
{
	struct fixture *f = *state;
	const char *wrong = LOCAL "Authorization: Bearer " CANARY "\r\n";

	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL), 401);
	assert_int_equal(f->accesses.n, 0);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", wrong), 401);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", wrong), 429);
	assert_non_null(strstr(f->answer, "Retry-After: 6\r\n"));
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL BEARER), 200);
	assert_int_equal(talk(f, connect_unix(f->socket_path),
			     "GET /status HTTP/1.1\r\nConnection: close\r\n" LOCAL "\r\n"),
	    200);
	assert_int_equal(
	    metrics_value(f->metrics, METRIC_ADMIN_REFUSED, METRIC_ADMIN_NO_TOKEN), 20);
	assert_int_equal(
	    metrics_value(f->metrics, METRIC_ADMIN_REFUSED, METRIC_ADMIN_WRONG_TOKEN), 10);
	assert_int_equal(
	    metrics_value(f->metrics, METRIC_ADMIN_REFUSED, METRIC_ADMIN_TOO_OFTEN), 1);
	assert_int_equal(f->accesses.n, 2);
	assert_string_equal(f->accesses.text, "1 refused 127.0.0.1 too_often");
	admin_tell_refused(f->admin);
	assert_int_equal(f->accesses.n, 3);
	assert_string_equal(f->accesses.text, "9 refused 127.0.0.1 wrong_token");
	admin_tell_refused(f->admin);
	assert_int_equal(f->accesses.n, 3);
}

static void
refuse(struct fixture *f, unsigned source, const char *headers, int status)
{
	char address[16], request[256];

	snprintf(address, sizeof(address), "127.0.0.%u", source);
	snprintf(request, sizeof(request), "GET /status HTTP/1.1\r\nConnection: close\r\n%s\r\n",
	    headers);
	assert_int_equal(
	    talk(f, connect_from(address, f->config.admin.address.port), request), status);
}

static void
test_what_is_refused_is_recorded_by_address(void **state)
{
	struct fixture *f = *state;
	const char *wrong = LOCAL "Authorization: Bearer " CANARY "\r\n";

	start_or_fail(f);
	for (unsigned i = 0; i < 3; i++)
		refuse(f, 2, wrong, 401);
	assert_string_equal(f->accesses.text, "1 refused 127.0.0.2 wrong_token");
	refuse(f, 3, "Host: " CANARY "\r\n", 403);
	assert_string_equal(f->accesses.text, "1 refused 127.0.0.3 host");
	admin_tell_refused(f->admin);
	assert_string_equal(f->accesses.text, "2 refused 127.0.0.2 wrong_token");
	assert_int_equal(f->accesses.n, 3);
	for (unsigned source = 4; source < 21; source++)
		refuse(f, source, wrong, 401);
	refuse(f, 21, "Host: " CANARY "\r\n", 403);
	assert_int_equal(f->accesses.n, 3 + 7);
	assert_string_equal(f->accesses.text, "1 refused 127.0.0.10 wrong_token");
	admin_tell_refused(f->admin);
	assert_string_equal(f->accesses.text, "11 refused others wrong_token");
	assert_int_equal(f->accesses.n, 3 + 7 + 1);
}

/* Nobody tries anything with it. */
static void
test_a_page_that_shows_one_of_ours_is_not_recorded(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /", LOCAL OTHER_SITE), 403);
	assert_int_equal(f->accesses.n, 0);
	assert_int_equal(metrics_value(f->metrics, METRIC_ADMIN_REFUSED, METRIC_ADMIN_SITE), 1);
	assert_int_equal(
	    ask(f, f->config.admin.address.port, "GET /status", LOCAL OTHER_SITE), 403);
	assert_int_equal(f->accesses.n, 1);
}

static void
test_further_names_are_listed(void **state)
{
	struct fixture *f = *state;
	char name[] = "Keytrail.Example", *hosts[] = { name };

	start_or_fail(f);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status",
			     "Host: keytrail.example\r\n" BEARER),
	    403);
	f->config.admin.hosts = hosts;
	f->config.admin.nhosts = 1;
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status",
			     "Host: keytrail.example:9481\r\n"
			     "Origin: http://keytrail.example:9481\r\n" BEARER),
	    200);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status",
			     "Host: www.keytrail.example\r\n" BEARER),
	    403);
}

/* A reload may change it. */
static void
test_the_token_in_force_counts(void **state)
{
	struct fixture *f = *state;

	start_or_fail(f);
	f->token[0] = 'X';
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL BEARER), 401);
}

static void
test_a_listener_on_all_addresses_takes_any_address_as_host(void **state)
{
	struct fixture *f = *state;

	strcpy(f->host, "0.0.0.0");
	start_or_fail(f);
	assert_int_equal(
	    ask(f, f->config.admin.address.port, "GET /status", "Host: 192.0.2.1\r\n" BEARER), 200);
	assert_int_equal(
	    ask(f, f->config.admin.address.port, "GET /status", "Host: a.example\r\n" BEARER), 403);
}

static void
test_the_socket_is_for_its_owner(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	assert_int_equal(stat(f->socket_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(talk(f, connect_unix(f->socket_path),
			     "GET /status HTTP/1.1\r\nConnection: close\r\n" LOCAL "\r\n"),
	    200);
	assert_int_equal(talk(f, connect_unix(f->socket_path),
			     "GET /status HTTP/1.1\r\nConnection: close\r\nHost: evil\r\n\r\n"),
	    403);
	admin_free(f->admin);
	f->admin = NULL;
	assert_int_equal(stat(f->socket_path, &st), -1);
}

#define POST(path, length)                                                                         \
	"POST " path " HTTP/1.1\r\nConnection: close\r\n" LOCAL BEARER "Content-Length: " length   \
	"\r\n\r\n"

static void
test_an_operator_is_known_by_the_kernel(void **state)
{
	struct fixture *f = *state;
	char want[128];

	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	assert_int_equal(talk(f, connect_unix(f->socket_path),
			     POST("/degrade", "28") "reason=a+full%20disk&uid=77&x"),
	    200);
	snprintf(want, sizeof(want), "/degrade a full disk %lu %ld ", (unsigned long)getuid(),
	    (long)getpid());
	assert_memory_equal(body_of(f), want, strlen(want));
	if (getuid() == 0)
		assert_string_equal(body_of(f) + strlen(want), "root\n");
	assert_int_equal(talk(f, connect_unix(f->socket_path), POST("/degrade", "0")), 422);
	assert_int_equal(talk(f, connect_unix(f->socket_path), POST("/degrade", "5000")), 413);
}

static void
test_what_changes_something_goes_over_the_socket_only(void **state)
{
	struct fixture *f = *state;

	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	assert_int_equal(
	    talk(f, connect_tcp(f->config.admin.address.port), POST("/degrade", "0")), 405);
	assert_int_equal(talk(f, connect_tcp(f->config.metrics.port), POST("/degrade", "0")), 405);
}

static void
test_a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sun.sun_path, f->socket_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	close(fd);
	f->config.metrics_enabled = false;
	f->config.admin.address.host = NULL;
	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	{
		struct fixture second = *f;

		assert_int_equal(start(&second), -1);
		assert_non_null(strstr(second.err.msg, f->socket_path));
		assert_non_null(strstr(second.err.msg, "in use"));
		assert_int_equal(access(f->socket_path, F_OK), 0);
	}
}

static int
ask_socket(struct fixture *f)
{
	return talk(f, connect_unix(f->socket_path),
	    "GET /status HTTP/1.1\r\nConnection: close\r\n" LOCAL "\r\n");
}

/* Who comes between the two waits. */
static void
test_listeners_that_were_given_away_go_on(void **state)
{
	struct fixture *f = *state;
	int fds[ADMIN_LISTENERS], early;

	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	assert_int_equal(admin_give(f->admin, fds, &f->err), 0);
	early = connect_tcp(f->config.metrics.port);
	f->given = fds;
	assert_int_equal(start(f), 0);
	for (size_t i = 0; i < ADMIN_LISTENERS; i++)
		close(fds[i]);
	assert_int_equal(
	    talk(f, early, "GET /livez HTTP/1.1\r\nConnection: close\r\n" LOCAL "\r\n"), 200);
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL BEARER), 200);
	assert_int_equal(ask_socket(f), 200);
	admin_free(f->admin);
	f->admin = NULL;
	assert_int_equal(access(f->socket_path, F_OK), -1);
}

/* How many of this process' loops are told of the file. */
static unsigned
told_of(int fd)
{
	char path[64], link[64], line[256], want[64];
	unsigned n = 0;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	snprintf(want, sizeof(want), " ino:%lx ", (unsigned long)st.st_ino);
	for (int i = 0; i < 256; i++) {
		ssize_t len;
		FILE *info;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", i);
		if ((len = readlink(path, link, sizeof(link) - 1)) == -1)
			continue;
		link[len] = '\0';
		if (strstr(link, "[eventpoll]") == NULL)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", i);
		info = fopen(path, "re");
		while (fgets(line, sizeof(line), info) != NULL)
			n += strstr(line, want) != NULL;
		fclose(info);
	}
	return n;
}

static void
test_who_gave_a_listener_away_hears_no_more_of_it(void **state)
{
	struct fixture *f = *state;
	int fds[ADMIN_LISTENERS];

	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	assert_int_equal(admin_give(f->admin, fds, &f->err), 0);
	f->admin = NULL;
	for (size_t i = 0; i < ADMIN_LISTENERS; i++) {
		assert_int_equal(told_of(fds[i]), 0);
		close(fds[i]);
	}
	unlink(f->socket_path);
}

static void
test_what_there_is_not_is_not_given_away(void **state)
{
	struct fixture *f = *state;
	int fds[ADMIN_LISTENERS];

	f->config.metrics_enabled = false;
	start_or_fail(f);
	assert_int_equal(admin_give(f->admin, fds, &f->err), 0);
	f->admin = NULL;
	assert_int_equal(fds[ADMIN_METRICS], -1);
	assert_int_not_equal(fds[ADMIN_ADDRESS], -1);
	assert_int_equal(fds[ADMIN_SOCKET], -1);
	close(fds[ADMIN_ADDRESS]);
}

/* Each in turn is the first for which there is none. */
static void
test_where_descriptors_are_short_nothing_is_given_away(void **state)
{
	struct fixture *f = *state;
	int fds[ADMIN_LISTENERS], next;
	struct rlimit before, limit;

	f->config.admin.socket = f->socket_path;
	start_or_fail(f);
	next = dup(f->dirfd);
	close(next);
	getrlimit(RLIMIT_NOFILE, &before);
	for (int n = 0; n < ADMIN_LISTENERS; n++) {
		limit = (struct rlimit){ (rlim_t)(next + n), before.rlim_max };
		setrlimit(RLIMIT_NOFILE, &limit);
		assert_int_equal(admin_give(f->admin, fds, &f->err), -1);
		setrlimit(RLIMIT_NOFILE, &before);
		fds[0] = dup(f->dirfd);
		assert_int_equal(fds[0], next);
		close(fds[0]);
	}
	assert_int_equal(ask(f, f->config.admin.address.port, "GET /status", LOCAL BEARER), 200);
	assert_int_equal(ask_socket(f), 200);
}

/* More than there may be, all silent. */
static void
test_a_new_connection_ends_the_oldest(void **state)
{
	struct fixture *f = *state;
	int fds[70];
	char byte;

	start_or_fail(f);
	for (unsigned i = 0; i < 70; i++) {
		fds[i] = connect_tcp(f->config.metrics.port);
		fcntl(fds[i], F_SETFL, O_NONBLOCK);
		event_base_loop(f->base, EVLOOP_ONCE);
	}
	assert_int_equal(ask(f, f->config.metrics.port, "GET /livez", ""), 200);
	/* That one went; it had ended the seventh. */
	for (unsigned i = 0; i < 70; i++) {
		ssize_t n = read(fds[i], &byte, 1);

		if (i < 7 ? n != 0 : n != -1 || errno != EAGAIN)
			fail_msg("connection %u: %zd", i, n);
		close(fds[i]);
	}
	/* Those who left make room. */
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(ask(f, f->config.metrics.port, "GET /livez", ""), 200);
}

static void
test_a_port_in_use_is_named(void **state)
{
	struct fixture *f = *state;
	struct fixture *second = NULL;
	char port[8];

	start_or_fail(f);
	setup((void **)&second);
	second->config.metrics.port = f->config.metrics.port;
	assert_int_equal(start(second), -1);
	second->admin = NULL;
	snprintf(port, sizeof(port), "%u", f->config.metrics.port);
	assert_non_null(strstr(second->err.msg, "127.0.0.1"));
	assert_non_null(strstr(second->err.msg, port));
	assert_non_null(strstr(second->err.msg, "Address already in use"));
	teardown((void **)&second);
}

static void
test_neither_listener_is_started_unasked(void **state)
{
	struct fixture *f = *state;

	f->config.metrics_enabled = f->config.admin.enabled = false;
	start_or_fail(f);
	assert_int_equal(event_base_get_num_events(f->base, EVENT_BASE_COUNT_ADDED), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_the_metrics_listener),
		TEST(test_gauges_are_refreshed_before_a_scrape),
		TEST(test_a_failed_check_is_503),
		TEST(test_the_format_is_negotiated),
		TEST(test_head_has_the_length_and_no_body),
		TEST(test_a_head_beyond_the_limit_is_refused),
		TEST(test_the_admin_listener),
		TEST(test_the_log_never_shows_what_was_asked),
		TEST(test_the_status_is_one_object),
		TEST(test_without_a_token_none_is_asked_for),
		TEST(test_each_query_is_recorded_with_the_name_of_its_token),
		TEST(test_who_tries_too_often_is_put_off_but_not_the_right_token),
		TEST(test_what_is_refused_is_recorded_by_address),
		TEST(test_a_page_that_shows_one_of_ours_is_not_recorded),
		TEST(test_further_names_are_listed),
		TEST(test_the_token_in_force_counts),
		TEST(test_a_listener_on_all_addresses_takes_any_address_as_host),
		TEST(test_the_socket_is_for_its_owner),
		TEST(test_an_operator_is_known_by_the_kernel),
		TEST(test_what_changes_something_goes_over_the_socket_only),
		TEST(test_a_stale_socket_is_replaced_and_a_live_one_is_not),
		TEST(test_listeners_that_were_given_away_go_on),
		TEST(test_who_gave_a_listener_away_hears_no_more_of_it),
		TEST(test_what_there_is_not_is_not_given_away),
		TEST(test_where_descriptors_are_short_nothing_is_given_away),
		TEST(test_a_new_connection_ends_the_oldest),
		TEST(test_a_port_in_use_is_named),
		TEST(test_neither_listener_is_started_unasked),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
