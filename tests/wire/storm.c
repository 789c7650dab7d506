/*
 * storm: mutated streams through a sidecar, as fast as it takes them; every byte on both sides is
 * read strictly.
 *
 * usage: storm SEEDS STREAMS SEED CLIENTS < port
 *
 * SEEDS holds streams, each behind its length (four bytes, big-endian).  Prints the port of the back
 * end that it is, then reads the port of the sidecar.  The back end answers each whole request
 * with a Correlation-Id of its own: 00000000-0000-4000-8000- and the number of the answer in hex,
 * from 1.  Prints one JSON object with counts at the end; ends with 1 when something was not
 * canonical, or a conversation did not end within a minute.
 */
#include "wire/strict.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAM_MAX 65536
#define REPLY_MAX  262144
#define SHOWN	   10

struct storm {
	char *seeds;
	size_t *offsets, nseeds; /* of each seed's length */
	unsigned long streams;
	uint64_t seed;
	struct sockaddr_in sidecar;
	atomic_ulong next, requests, partial, answers, refused, non_canonical, unreadable;
	atomic_ulong unsent, mute, reset, unended; /* conversations */
};

static void
fail(const char *what)
{
	perror(what);
	exit(2);
}

static void
complain(atomic_ulong *count, const char *where, const char *why, const char *p, size_t n)
{
	if (atomic_fetch_add(count, 1) < SHOWN)
		fprintf(stderr, "storm: %s: %s: %.*s\n", where, why, (int)(n < 1000 ? n : 1000), p);
}

static bool
send_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t put = send(fd, p, n, MSG_NOSIGNAL);

		if (put <= 0)
			return false;
		p += put;
		n -= (size_t)put;
	}
	return true;
}

/* ---- mutation ---- */

/* xorshift64*: quick, and the same everywhere. */
static uint64_t
draw(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static size_t
below(uint64_t *state, size_t n)
{
	return n > 0 ? (size_t)(draw(state) >> 11) % n : 0;
}

static const char *const pieces[] = { "\r\n", "\r\n\r\n", "\n", "\r", " ", "\t", ":", ",", ";", "0",
	"0\r\n\r\n", "5\r\nhello\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
	"Transfer-Encoding: identity\r\n", "Connection: close\r\n", "Host: x\r\n",
	"Expect: 100-continue\r\n", "GET /api/v2/keys HTTP/1.1\r\nHost: localhost\r\n\r\n",
	" HTTP/1.1", "%2f", "%2e", "//", "..", "?action=wrap", "&", "\x80", "\x7f", "chunked",
	"HTTP/1.0" };

static void
splice(char *data, size_t *n, size_t at, size_t cut, const char *piece, size_t len)
{
	if (*n - cut + len > STREAM_MAX)
		return;
	memmove(data + at + len, data + at + cut, *n - at - cut);
	memcpy(data + at, piece, len);
	*n += len - cut;
}

static void
mutate(const struct storm *s, uint64_t *state, char *data, size_t *n)
{
	size_t at = below(state, *n + 1), span = 1 + below(state, 1 << below(state, 7));
	size_t rest = *n - at, other = s->offsets[below(state, s->nseeds)];
	const char *piece = pieces[below(state, sizeof(pieces) / sizeof(*pieces))];
	char copy[128];

	span = span < rest ? span : rest;
	switch (below(state, 6)) {
	case 0:
		if (rest > 0)
			data[at] = (char)(data[at] ^ 1 << below(state, 8));
		break;
	case 1:
		if (rest > 0)
			data[at] = (char)draw(state);
		break;
	case 2:
		splice(data, n, at, span, "", 0);
		break;
	case 3:
		memcpy(copy, data + at, span);
		splice(data, n, below(state, *n + 1), 0, copy, span);
		break;
	case 4:
		splice(data, n, at, 0, s->seeds + other + 4 + at % 8, span % 64);
		break;
	default:
		splice(data, n, at, 0, piece, strlen(piece));
		break;
	}
}

/* ---- the client ---- */

static int
connect_from(const struct storm *s, unsigned long number)
{
	/* Many addresses, so that ports do not run out. */
	struct sockaddr_in from = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(0x7f100001 + (uint32_t)(number % 1000) * 256) };
	struct timeval patience = { .tv_sec = 60 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd == -1)
		fail("socket");
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) == -1 ||
	    connect(fd, (const struct sockaddr *)&s->sidecar, sizeof(s->sidecar)) == -1)
		fail("connect");
	return fd;
}

/* The methods are not known for sure: an answer may be one to a HEAD.  A reset may cut the last. */
static void
check_answers(struct storm *s, const char *p, size_t n, bool reset)
{
	struct strict_message m, to_head;

	while (n > 0) {
		enum strict_result r = strict_read(p, n, STRICT_ANSWER, &m);
		bool head = strict_read(p, n, STRICT_ANSWER_TO_HEAD, &to_head) == STRICT_WHOLE;

		if (head && (r != STRICT_WHOLE || m.used < n) &&
		    (to_head.used == n || memcmp(p + to_head.used, "HTTP/1.1 ", 9) == 0)) {
			m = to_head;
			r = STRICT_WHOLE;
		}
		if (reset && r == STRICT_PARTIAL)
			return;
		if (r == STRICT_BAD || (r == STRICT_PARTIAL && !m.until_close)) {
			complain(&s->unreadable, "client", r == STRICT_BAD ? m.why : "cut", p, n);
			return;
		}
		if (m.status >= 200)
			atomic_fetch_add(m.status == 200 ? &s->answers : &s->refused, 1);
		p += r == STRICT_WHOLE ? m.used : n;
		n -= r == STRICT_WHOLE ? m.used : n;
	}
}

static void
converse(struct storm *s, int fd, uint64_t *state, const char *data, size_t n, char *reply)
{
	size_t cut = below(state, 3) == 0 ? below(state, n + 1) : n, got = 0;
	ssize_t more = 0;
	bool reset;

	if (!send_all(fd, data, cut) || !send_all(fd, data + cut, n - cut))
		atomic_fetch_add(&s->unsent, 1);
	shutdown(fd, SHUT_WR);
	while (got < REPLY_MAX && (more = recv(fd, reply + got, REPLY_MAX - got, 0)) > 0)
		got += (size_t)more;
	reset = more == -1 && errno == ECONNRESET;
	if (more != 0 && !reset)
		complain(&s->unended, "client", "no end", data, n);
	atomic_fetch_add(&s->reset, reset);
	atomic_fetch_add(&s->mute, got == 0);
	check_answers(s, reply, got, more != 0);
}

static void *
be_client(void *arg)
{
	struct storm *s = arg;
	char *data = malloc(STREAM_MAX), *reply = malloc(REPLY_MAX);
	unsigned long number;

	if (data == NULL || reply == NULL)
		fail("malloc");
	while ((number = atomic_fetch_add(&s->next, 1)) < s->streams) {
		uint64_t state = (s->seed + number + 1) * UINT64_C(0x9e3779b97f4a7c15);
		const char *seed = s->seeds + s->offsets[below(&state, s->nseeds)];
		uint32_t length;
		size_t n;
		int fd;

		memcpy(&length, seed, sizeof(length));
		n = ntohl(length);
		memcpy(data, seed + 4, n);
		for (size_t i = below(&state, 5); i > 0; i--)
			mutate(s, &state, data, &n);
		fd = connect_from(s, number);
		converse(s, fd, &state, data, n, reply);
		close(fd);
	}
	free(data);
	free(reply);
	return NULL;
}

/* ---- the back end ---- */

struct served {
	struct storm *storm;
	int fd;
};

static bool
answer(struct storm *s, int fd, const struct strict_message *m)
{
	bool to_head = m->method_len == 4 && memcmp(m->method, "HEAD", 4) == 0;
	unsigned long number = atomic_fetch_add(&s->requests, 1) + 1;
	char text[256];
	int n = snprintf(text, sizeof(text),
	    "HTTP/1.1 200 OK\r\nCorrelation-Id: 00000000-0000-4000-8000-%012lx\r\n"
	    "Content-Length: 2\r\n\r\n%s",
	    number, to_head ? "" : "{}");

	return send_all(fd, text, (size_t)n);
}

/* Answer what is whole; how much was taken, or -1. */
static ssize_t
serve_bytes(struct storm *s, int fd, const char *p, size_t n, bool *partial)
{
	struct strict_message m;
	enum strict_result r;
	size_t used = 0;

	while (used < n) {
		r = strict_read(p + used, n - used, STRICT_REQUEST, &m);
		if (r == STRICT_BAD) {
			complain(&s->non_canonical, "back end", m.why, p + used, n - used);
			return -1;
		}
		*partial = r == STRICT_PARTIAL;
		if (*partial)
			break;
		used += m.used;
		if (!answer(s, fd, &m))
			return -1;
	}
	return (ssize_t)used;
}

static void *
be_served(void *arg)
{
	struct served *c = arg;
	char *data = malloc(REPLY_MAX);
	bool partial = false;
	size_t n = 0;
	ssize_t got, used = 0;

	if (data == NULL)
		fail("malloc");
	while (used >= 0 && n < REPLY_MAX && (got = recv(c->fd, data + n, REPLY_MAX - n, 0)) > 0) {
		n += (size_t)got;
		if ((used = serve_bytes(c->storm, c->fd, data, n, &partial)) > 0) {
			memmove(data, data + used, n - (size_t)used);
			n -= (size_t)used;
		}
	}
	if (n > 0 && partial)
		atomic_fetch_add(&c->storm->partial, 1);
	close(c->fd);
	free(data);
	free(c);
	return NULL;
}

struct backend {
	struct storm *storm;
	int listener;
};

static void *
be_backend(void *arg)
{
	struct backend *b = arg;

	for (;;) {
		struct served *c = malloc(sizeof(*c));
		pthread_t thread;
		int one = 1;

		if (c == NULL)
			fail("malloc");
		c->storm = b->storm;
		if ((c->fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC)) == -1)
			fail("accept");
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (pthread_create(&thread, NULL, be_served, c) != 0)
			fail("pthread_create");
		pthread_detach(thread);
	}
	return NULL;
}

static int
listen_on_any(unsigned *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) == -1 ||
	    listen(fd, 1024) == -1 || getsockname(fd, (struct sockaddr *)&a, &len) == -1)
		fail("listen");
	*port = ntohs(a.sin_port);
	return fd;
}

/* ---- the whole ---- */

static void
read_seeds(struct storm *s, const char *path)
{
	FILE *f = fopen(path, "re");
	size_t size, at = 0;
	uint32_t length;

	if (f == NULL || fseek(f, 0, SEEK_END) == -1)
		fail(path);
	size = (size_t)ftell(f);
	rewind(f);
	/* Slack, since a mutation may copy from behind the last seed. */
	if ((s->seeds = calloc(1, size + 256)) == NULL ||
	    (s->offsets = calloc(size / 4 + 1, sizeof(*s->offsets))) == NULL ||
	    fread(s->seeds, 1, size, f) != size)
		fail(path);
	fclose(f);
	for (; at + 4 <= size; at += 4 + ntohl(length)) {
		memcpy(&length, s->seeds + at, sizeof(length));
		if (ntohl(length) <= STREAM_MAX)
			s->offsets[s->nseeds++] = at;
	}
	if (s->nseeds == 0)
		fail("seeds");
}

static void
run_clients(struct storm *s, unsigned long n)
{
	pthread_t *threads = calloc(n, sizeof(*threads));

	if (threads == NULL)
		fail("calloc");
	for (unsigned long i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, be_client, s) != 0)
			fail("pthread_create");
	for (unsigned long i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	free(threads);
}

int
main(int argc, char **argv)
{
	static struct storm s;
	struct backend backend = { .storm = &s };
	char line[16];
	unsigned port;
	pthread_t thread;

	if (argc != 5) {
		fputs("usage: storm SEEDS STREAMS SEED CLIENTS\n", stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	read_seeds(&s, argv[1]);
	s.streams = strtoul(argv[2], NULL, 10);
	s.seed = strtoull(argv[3], NULL, 10);
	backend.listener = listen_on_any(&port);
	if (pthread_create(&thread, NULL, be_backend, &backend) != 0)
		fail("pthread_create");
	printf("%u\n", port);
	fflush(stdout);
	if (fgets(line, sizeof(line), stdin) == NULL)
		fail("the sidecar's port");
	s.sidecar = (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(line, NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	run_clients(&s, strtoul(argv[4], NULL, 10));
	printf("{\"streams\":%lu,\"requests\":%lu,\"partial\":%lu,\"answered\":%lu,\"refused\":%lu,"
	       "\"unsent\":%lu,\"mute\":%lu,\"reset\":%lu,\"non_canonical\":%lu,"
	       "\"unreadable\":%lu,\"unended\":%lu}\n",
	    s.streams, s.requests, s.partial, s.answers, s.refused, s.unsent, s.mute, s.reset,
	    s.non_canonical, s.unreadable, s.unended);
	return s.non_canonical + s.unreadable + s.unended > 0;
}
