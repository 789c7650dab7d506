/*
 * load: mixed traffic for the key service at full speed, one thread a connection.
 *
 * usage: load PORT CA-FILE TOKEN-FILE CONNECTIONS SECONDS FOLDER
 *
 * FOLDER gets a file for each connection (mix.h).  Prints one JSON object with what came back; ends
 * with 1 when an answer was not what it should be.
 */
#include "mix.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

struct connection {
	pthread_t thread;
	struct mix mix;
	int64_t until;
};

static void *
drive(void *arg)
{
	struct connection *c = arg;

	if (mix_begin(&c->mix) == 0) {
		while (now_ns() < c->until)
			mix_step(&c->mix);
	}
	mix_fini(&c->mix);
	return NULL;
}

static unsigned long
number(const char *text, unsigned long most)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || n == 0 || n > most) {
		fprintf(stderr, "load: wanted a number from 1 to %lu, got \"%s\"\n", most, text);
		exit(2);
	}
	return n;
}

static char *
read_token(const char *path)
{
	static char token[4096];
	FILE *f = fopen(path, "re");

	if (f == NULL || fgets(token, sizeof(token), f) == NULL) {
		perror(path);
		exit(1);
	}
	fclose(f);
	token[strcspn(token, "\n")] = '\0';
	return token;
}

static uint64_t
report(const struct connection *c, size_t n)
{
	uint64_t calls = 0, faults = 0, aborted = 0, handshakes = 0, resumed = 0;
	const char *comma = "";

	for (size_t i = 0; i < n; i++) {
		calls += c[i].mix.calls;
		faults += c[i].mix.faults;
		aborted += c[i].mix.aborted;
		handshakes += c[i].mix.client.handshakes;
		resumed += c[i].mix.client.resumed;
	}
	printf("{\"calls\":%llu,\"faults\":%llu,\"aborted\":%llu,\"handshakes\":%llu,"
	       "\"resumed\":%llu,\"statuses\":{",
	    (unsigned long long)calls, (unsigned long long)faults, (unsigned long long)aborted,
	    (unsigned long long)handshakes, (unsigned long long)resumed);
	for (unsigned status = 100; status < MIX_STATUSES; status++) {
		uint64_t sum = 0;
		for (size_t i = 0; i < n; i++)
			sum += c[i].mix.statuses[status];
		if (sum > 0) {
			printf("%s\"%u\":%llu", comma, status, (unsigned long long)sum);
			comma = ",";
		}
	}
	puts("}}");
	return faults;
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct connection *c;
	size_t n;
	int64_t until;
	SSL_CTX *ctx;
	char *token;
	uint64_t faults;

	if (argc != 7) {
		fputs("usage: load PORT CA-FILE TOKEN-FILE CONNECTIONS SECONDS FOLDER\n", stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	address.sin_port = htons((uint16_t)number(argv[1], 65535));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ctx = client_context(argv[2]);
	token = read_token(argv[3]);
	n = number(argv[4], 1000);
	until = now_ns() + (int64_t)number(argv[5], 1000000) * INT64_C(1000000000);
	if ((c = calloc(n, sizeof(*c))) == NULL)
		abort();
	for (size_t i = 0; i < n; i++) {
		struct mix_opts opts = { (unsigned)i, token, argv[6] };
		c[i].until = until;
		if (mix_init(&c[i].mix, &opts, ctx, &address) == -1 ||
		    pthread_create(&c[i].thread, NULL, drive, &c[i]) != 0)
			return 1;
	}
	for (size_t i = 0; i < n; i++)
		pthread_join(c[i].thread, NULL);
	faults = report(c, n);
	free(c);
	SSL_CTX_free(ctx);
	return faults == 0 ? 0 : 1;
}
