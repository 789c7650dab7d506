#include "cli/cli_call.h"

#include "keytrail/config.h"

#include <errno.h>
#include <event2/http.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (16 * 1024 * 1024) /* all actions and routes of /metrics, with long names */
#define PATIENCE_S 30

struct peer {
	struct sockaddr_storage address;
	socklen_t n;
	char name[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

int
cli_form_add(struct buf *form, const char *name, const char *value)
{
	char *escaped = evhttp_uriencode(value, -1, 1);
	int rc = -1;

	if (escaped != NULL)
		rc = buf_printf(form, "%s%s=%s", buf_size(form) > 0 ? "&" : "", name, escaped);
	free(escaped);
	return rc;
}

static int
at_path(const char *path, struct peer *to, struct err *err)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)&to->address;

	if (strlen(path) >= sizeof(sun->sun_path))
		return err_set(err, "%s: a socket's path has at most %zu bytes", path,
		    sizeof(sun->sun_path) - 1);
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, path, strlen(path) + 1);
	memcpy(to->name, path, strlen(path) + 1);
	to->n = sizeof(*sun);
	return 0;
}

static int
at_address(const struct config_address *a, struct peer *to, struct err *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *ai;
	char port[8];
	int rc;

	snprintf(port, sizeof(port), "%u", a->port);
	if ((rc = getaddrinfo(a->host, port, &hints, &ai)) != 0)
		return err_set(err, "%s: %s", a->host, gai_strerror(rc));
	memcpy(&to->address, ai->ai_addr, ai->ai_addrlen);
	to->n = ai->ai_addrlen;
	snprintf(to->name, sizeof(to->name), "%s port %s", a->host, port);
	freeaddrinfo(ai);
	return 0;
}

static int
find_peer(const struct cli_socket *at, bool metrics, struct peer *to, struct err *err)
{
	struct config *config;
	int rc;

	*to = (struct peer){ 0 };
	if (at->path != NULL)
		return at_path(at->path, to, err);
	if (config_load(at->file, NULL, &config, err) == -1)
		return -1;
	if (metrics && config->metrics_enabled && config->metrics.port != 0)
		rc = at_address(&config->metrics, to, err);
	else if (config->admin.socket != NULL)
		rc = at_path(config->admin.socket, to, err);
	else
		rc = err_set(err, "%s: there is no \"admin.socket\"%s", at->file,
		    metrics ? ", and no port of \"metrics\"" : "");
	config_unref(config);
	return rc;
}

static int
connect_to(const struct peer *to, int patience_s, struct err *err)
{
	const struct timeval patience = { patience_s, 0 };
	int fd = socket(to->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == -1 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == -1 ||
	    connect(fd, (const struct sockaddr *)&to->address, to->n) == -1) {
		err_set_errno(err, "%s: connect", to->name);
		if (fd != -1)
			close(fd);
		return -1;
	}
	return fd;
}

static int
send_request(int fd, const char *page, const struct buf *form, struct err *err)
{
	struct buf out = BUF_INIT;
	struct slice rest;
	int rc = buf_printf(&out,
	    "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
	    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %zu\r\n\r\n",
	    form != NULL ? "POST" : "GET", page, form != NULL ? buf_size(form) : 0);

	if (rc == 0 && form != NULL)
		rc = buf_append_slice(&out, buf_slice(form));
	rest = buf_slice(&out);
	while (rc == 0 && rest.n > 0) {
		ssize_t n = send(fd, rest.p, rest.n, MSG_NOSIGNAL);

		if (n == -1)
			rc = err_set_errno(err, "send");
		else
			rest = slice_sub(rest, (size_t)n, rest.n);
	}
	buf_fini(&out);
	return rc;
}

static int
receive(int fd, struct buf *in, struct err *err)
{
	ssize_t n;

	do {
		if (buf_size(in) > ANSWER_MAX || buf_reserve(in, 4096) == -1)
			return err_set(err, "the answer is too long");
		n = recv(fd, buf_tail(in), buf_room(in), 0);
		if (n > 0)
			buf_commit(in, (size_t)n);
	} while (n > 0);
	if (n == -1 && errno == EAGAIN)
		return err_set(err, "nothing was answered in time");
	return n == -1 ? err_set_errno(err, "receive") : 0;
}

/* The status; the head is taken off.  -1: that is no answer. */
static int
parse_answer(struct buf *in)
{
	struct slice all = buf_slice(in);
	const char *end = memmem(all.p, all.n, "\r\n\r\n", 4);

	if (end == NULL || !slice_has_prefix(all, SLICE("HTTP/1.1 ")))
		return -1;
	buf_consume(in, (size_t)(end - all.p) + 4);
	return (int)strtol(all.p + 9, NULL, 10);
}

static int
converse(int fd, const char *page, const struct buf *form, struct buf *answer, struct err *err)
{
	struct slice text;
	int status;

	if (send_request(fd, page, form, err) == -1 || receive(fd, answer, err) == -1)
		return -1;
	if ((status = parse_answer(answer)) == 200)
		return 0;
	text = buf_slice(answer);
	if (text.n > 0 && text.p[text.n - 1] == '\n')
		text.n--;
	if (status == -1)
		return err_set(err, "what answers is no sidecar");
	return err_set(err, "%.*s", (int)text.n, text.p);
}

static int
call(const struct cli_socket *at, const struct peer *to, const char *page, const struct buf *form,
    struct buf *answer, struct err *err)
{
	int fd, rc;

	if ((fd = connect_to(to, at->patience_s > 0 ? at->patience_s : PATIENCE_S, err)) == -1)
		return -1;
	if ((rc = converse(fd, page, form, answer, err)) == -1)
		err_prefix(err, "%s", to->name);
	close(fd);
	return rc;
}

int
cli_call(const struct cli_socket *at, const char *page, const struct buf *form, struct buf *answer,
    struct err *err)
{
	struct peer to;

	if (find_peer(at, false, &to, err) == -1)
		return -1;
	return call(at, &to, page, form, answer, err);
}

int
cli_call_readiness(const struct cli_socket *at, struct buf *answer, struct err *err)
{
	struct peer to;

	if (find_peer(at, true, &to, err) == -1)
		return -1;
	return call(at, &to, "/readyz", NULL, answer, err);
}
