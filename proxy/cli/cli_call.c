#include "cli/cli_call.h"

#include "keytrail/config.h"

#include <event2/http.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (1024 * 1024)
#define PATIENCE_S 30

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
find_path(const struct cli_socket *at, struct sockaddr_un *sun, struct err *err)
{
	struct config *config = NULL;
	const char *path = at->path;
	int rc = 0;

	if (path == NULL && config_load(at->file, NULL, &config, err) == -1)
		return -1;
	if (path == NULL && (path = config->admin.socket) == NULL)
		rc = err_set(err, "%s: there is no \"admin.socket\"", at->file);
	else if (strlen(path) >= sizeof(sun->sun_path))
		rc = err_set(err, "%s: a socket's path has at most %zu bytes", path,
		    sizeof(sun->sun_path) - 1);
	else
		memcpy(sun->sun_path, path, strlen(path) + 1);
	config_unref(config);
	return rc;
}

static int
connect_to(const struct sockaddr_un *sun, struct err *err)
{
	const struct timeval patience = { PATIENCE_S, 0 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == -1 ||
	    connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == -1) {
		err_set_errno(err, "%s: connect", sun->sun_path);
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
	text = slice_trim(buf_slice(answer));
	if (status == -1)
		return err_set(err, "what answers is no sidecar");
	return err_set(err, "%.*s", (int)text.n, text.p);
}

int
cli_call(const struct cli_socket *at, const char *page, const struct buf *form, struct buf *answer,
    struct err *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd, rc;

	if (find_path(at, &sun, err) == -1 || (fd = connect_to(&sun, err)) == -1)
		return -1;
	if ((rc = converse(fd, page, form, answer, err)) == -1)
		err_prefix(err, "%s", sun.sun_path);
	close(fd);
	return rc;
}
