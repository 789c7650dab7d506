#include "client.h"

#include <openssl/err.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SECONDS 60 /* an answer that takes longer is a fault */

SSL_CTX *
client_context(const char *ca_file)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (ctx == NULL || SSL_CTX_load_verify_locations(ctx, ca_file, NULL) != 1) {
		fprintf(stderr, "load: cannot use %s\n", ca_file);
		exit(1);
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	return ctx;
}

void
client_init(struct client *c, SSL_CTX *ctx, const struct sockaddr_in *address)
{
	*c = (struct client){ .ctx = ctx, .address = *address, .fd = -1 };
}

void
client_fini(struct client *c)
{
	client_close(c, true);
	SSL_SESSION_free(c->session);
}

void
client_close(struct client *c, bool politely)
{
	struct linger reset = { 1, 0 };

	if (c->ssl != NULL) {
		if (politely) {
			SSL_SESSION_free(c->session);
			c->session = SSL_get1_session(c->ssl);
			SSL_shutdown(c->ssl);
		} else {
			setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		}
		SSL_free(c->ssl);
	}
	if (c->fd != -1)
		close(c->fd);
	c->ssl = NULL;
	c->fd = -1;
	c->off = c->len = 0;
}

static int
fail(struct client *c, const char *what)
{
	snprintf(c->why, sizeof(c->why), "%s: %s", what,
	    ERR_peek_error() != 0 ? ERR_reason_error_string(ERR_peek_error()) : "no more is known");
	ERR_clear_error();
	client_close(c, false);
	return -1;
}

int
client_connect(struct client *c)
{
	struct timeval limit = { SECONDS, 0 };

	client_close(c, true);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd == -1 || connect(c->fd, (struct sockaddr *)&c->address, sizeof(c->address)) == -1)
		return fail(c, "connect");
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if ((c->ssl = SSL_new(c->ctx)) == NULL || SSL_set_fd(c->ssl, c->fd) != 1 ||
	    SSL_set1_host(c->ssl, "localhost") != 1)
		return fail(c, "TLS");
	if (c->session != NULL)
		SSL_set_session(c->ssl, c->session);
	if (SSL_connect(c->ssl) != 1)
		return fail(c, "handshake");
	c->handshakes++;
	c->resumed += SSL_session_reused(c->ssl) == 1;
	return 0;
}

int
client_send(struct client *c, const char *p, size_t n)
{
	size_t done;

	if (SSL_write_ex(c->ssl, p, n, &done) != 1)
		return fail(c, "send");
	return 0;
}

static int
fill(struct client *c)
{
	size_t got;

	if (c->off > 0) {
		memmove(c->buffer, c->buffer + c->off, c->len - c->off);
		c->len -= c->off;
		c->off = 0;
	}
	if (c->len == sizeof(c->buffer))
		return fail(c, "an answer's line is too long");
	if (SSL_read_ex(c->ssl, c->buffer + c->len, sizeof(c->buffer) - c->len, &got) != 1)
		return fail(c, c->len > 0 ? "answer cut" : "no answer");
	c->len += got;
	return 0;
}

/* The next line without its CR LF, NUL-terminated; valid until the next call. */
static char *
read_line(struct client *c)
{
	size_t seen = 0;
	char *line, *end;

	for (;;) {
		line = c->buffer + c->off;
		if ((end = memchr(line + seen, '\n', c->len - c->off - seen)) != NULL)
			break;
		seen = c->len - c->off;
		if (fill(c) == -1)
			return NULL;
	}
	if (end == line || end[-1] != '\r') {
		fail(c, "a line without CR");
		return NULL;
	}
	end[-1] = '\0';
	c->off = (size_t)(end + 1 - c->buffer);
	return line;
}

static int
read_content(struct client *c, uint64_t n, struct answer *a)
{
	while (n > 0) {
		size_t have = c->len - c->off, kept;
		if (have == 0) {
			if (fill(c) == -1)
				return -1;
			continue;
		}
		if (have > n)
			have = (size_t)n;
		if (a->body_len < CLIENT_BODY) {
			kept = CLIENT_BODY - (size_t)a->body_len;
			memcpy(
			    a->body + a->body_len, c->buffer + c->off, have < kept ? have : kept);
		}
		a->body_len += have;
		c->off += have;
		n -= have;
	}
	return 0;
}

static int
read_chunks(struct client *c, struct answer *a)
{
	uint64_t n;
	char *line, *end;

	do {
		if ((line = read_line(c)) == NULL)
			return -1;
		n = strtoull(line, &end, 16);
		if (end == line || *end != '\0')
			return fail(c, "a chunk's size is malformed");
		if (read_content(c, n, a) == -1)
			return -1;
		do { /* the end of the chunk, or the trailers */
			if ((line = read_line(c)) == NULL)
				return -1;
		} while (n == 0 && *line != '\0');
		if (*line != '\0')
			return fail(c, "a chunk has no end");
	} while (n > 0);
	return 0;
}

struct framing {
	bool chunked, length_given;
	uint64_t length;
};

static int
read_fields(struct client *c, struct framing *f, struct answer *a)
{
	char *line, *value;

	while ((line = read_line(c)) != NULL && *line != '\0') {
		if ((value = strchr(line, ':')) == NULL)
			return fail(c, "a header has no colon");
		*value++ = '\0';
		value += strspn(value, " \t");
		if (strcasecmp(line, "content-length") == 0) {
			f->length_given = true;
			f->length = strtoull(value, NULL, 10);
		} else if (strcasecmp(line, "transfer-encoding") == 0) {
			f->chunked = strcasecmp(value, "chunked") == 0;
		} else if (strcasecmp(line, "connection") == 0) {
			a->close = strcasecmp(value, "close") == 0;
		} else if (strcasecmp(line, "correlation-id") == 0) {
			if (a->correlation[0] != '\0')
				return fail(c, "Correlation-Id comes twice");
			snprintf(a->correlation, sizeof(a->correlation), "%s", value);
		}
	}
	return line != NULL ? 0 : -1;
}

static int
read_body(struct client *c, const struct framing *f, struct answer *a)
{
	if (f->chunked && f->length_given)
		return fail(c, "an answer with two framings");
	if (f->chunked)
		return read_chunks(c, a);
	if (!f->length_given)
		return fail(c, "an answer without framing");
	return read_content(c, f->length, a);
}

int
client_receive(struct client *c, bool to_head, struct answer *out)
{
	struct framing f = { 0 };
	char *line;
	bool bare;

	memset(out, 0, offsetof(struct answer, body));
	if ((line = read_line(c)) == NULL)
		return -1;
	if (strncmp(line, "HTTP/1.1 ", 9) != 0 ||
	    (out->status = (unsigned)strtoul(line + 9, NULL, 10)) < 100)
		return fail(c, "a status line is malformed");
	if (read_fields(c, &f, out) == -1)
		return -1;
	bare = to_head || out->status < 200 || out->status == 204 || out->status == 304;
	if (!bare && read_body(c, &f, out) == -1)
		return -1;
	out->body[out->body_len < CLIENT_BODY ? out->body_len : CLIENT_BODY] = '\0';
	if (out->close && out->status >= 200)
		client_close(c, true);
	return 0;
}
