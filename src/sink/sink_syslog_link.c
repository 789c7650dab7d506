#include "sink_syslog.h"

#include "keytrail/clock.h"
#include "keytrail/file.h"
#include "keytrail/tlsfile.h"

#include <openssl/err.h>

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK_NS		CLOCK_NS_PER_S
#define USER_TIMEOUT_MS 30000 /* unacknowledged for so long, the connection is given up */
#define UDP_NS		(60 * CLOCK_NS_PER_S) /* then its name is looked up again */

struct syslog_link {
	const struct config_sink *cfg;
	int fd;	      /* -1: closed */
	SSL_CTX *ctx; /* NULL: its files were not read yet */
	SSL *ssl;
	short wants;	/* what the last call could not go on without */
	uint64_t stamp; /* of the files of TLS when they were read */
	int64_t opened_ns, looked_ns;
};

struct syslog_link *
syslog_link_new(const struct config_sink *cfg)
{
	struct syslog_link *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	l->cfg = cfg;
	l->fd = -1;
	return l;
}

void
syslog_link_free(struct syslog_link *l)
{
	syslog_link_close(l);
	SSL_CTX_free(l->ctx);
	free(l);
}

void
syslog_link_close(struct syslog_link *l)
{
	if (l->ssl != NULL) {
		/* Says that nothing is missing; what it answers nobody waits for. */
		if (SSL_is_init_finished(l->ssl))
			SSL_shutdown(l->ssl);
		SSL_free(l->ssl);
		ERR_clear_error();
	}
	l->ssl = NULL;
	if (l->fd != -1)
		close(l->fd);
	l->fd = -1;
}

bool
syslog_link_is_open(const struct syslog_link *l)
{
	return l->fd != -1;
}

const char *
syslog_link_protocol(const struct syslog_link *l)
{
	if (l->cfg->transport == CONFIG_SYSLOG_UDP)
		return "UDP";
	return l->ssl != NULL ? SSL_get_version(l->ssl) : "TCP";
}

static bool
is_datagrams(const struct syslog_link *l)
{
	return l->cfg->transport == CONFIG_SYSLOG_UDP;
}

/* 1 when they are others than before.  Where those are of no use what was read before stays: main
 * tells of that. */
static int
read_files(struct syslog_link *l, struct err *err)
{
	uint64_t stamp = FILE_STAMP_INIT;
	SSL_CTX *ctx;

	/* Before they are read: what changes meanwhile is read again. */
	tlsfile_stamp(&stamp, &l->cfg->tls);
	if (l->ctx != NULL && stamp == l->stamp)
		return 0;
	if ((ctx = tlsfile_client(&l->cfg->tls, err)) == NULL && l->ctx == NULL)
		return -1;
	l->stamp = stamp;
	if (ctx == NULL)
		return 0;
	SSL_CTX_free(l->ctx);
	l->ctx = ctx;
	return 1;
}

bool
syslog_link_is_stale(struct syslog_link *l)
{
	int64_t now = clock_mono_ns();
	struct err unused;

	if (is_datagrams(l))
		return now - l->opened_ns >= UDP_NS;
	if (l->ssl == NULL || now - l->looked_ns < LOOK_NS)
		return false;
	l->looked_ns = now;
	return read_files(l, &unused) == 1;
}

/* ---- waiting ---- */

int
syslog_link_wait(struct syslog_link *l, int64_t deadline_ns)
{
	struct pollfd pfd = { .fd = l->fd, .events = l->wants };
	int64_t left = deadline_ns - clock_mono_ns();

	if (left <= 0)
		return -1;
	poll(&pfd, 1, (int)(left / CLOCK_NS_PER_MS) + 1);
	return 0;
}

/* ---- failing ---- */

static int
fail_errno(struct syslog_link *l, const char *what, struct err *err)
{
	return err_set_errno(
	    err, "%s port %u: %s", l->cfg->address.host, l->cfg->address.port, what);
}

/* Of TLS; errno where that says more. */
static int
fail_tls(struct syslog_link *l, const char *what, int rc, struct err *err)
{
	bool system = SSL_get_error(l->ssl, rc) == SSL_ERROR_SYSCALL && errno != 0;
	long verified = SSL_get_verify_result(l->ssl);
	unsigned long code = ERR_peek_error();
	const char *reason = verified != X509_V_OK ? X509_verify_cert_error_string(verified)
			     : code != 0	   ? ERR_reason_error_string(code)
						   : NULL;

	ERR_clear_error();
	if (reason == NULL && system)
		return fail_errno(l, what, err);
	return err_set(err, "%s port %u: %s: %s", l->cfg->address.host, l->cfg->address.port, what,
	    reason != NULL ? reason : "the connection was closed");
}

/* ---- opening ---- */

/* -1 and errno. */
static int
finish_connect(struct syslog_link *l, int64_t deadline_ns)
{
	struct pollfd pfd = { .fd = l->fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int why = 0;

	l->wants = POLLOUT;
	while (poll(&pfd, 1, 0) == 0)
		if (syslog_link_wait(l, deadline_ns) == -1) {
			errno = ETIMEDOUT;
			return -1;
		}
	if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &why, &len) == -1)
		return -1;
	errno = why;
	return why == 0 ? 0 : -1;
}

static int
connect_one(struct syslog_link *l, const struct addrinfo *ai, int64_t deadline_ns)
{
	int saved;

	l->fd =
	    socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
	if (l->fd == -1)
		return -1;
	if (ai->ai_socktype == SOCK_STREAM)
		(void)setsockopt(l->fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
		    &(unsigned){ USER_TIMEOUT_MS }, sizeof(unsigned));
	if (connect(l->fd, ai->ai_addr, ai->ai_addrlen) == 0 ||
	    (errno == EINPROGRESS && finish_connect(l, deadline_ns) == 0))
		return 0;
	saved = errno;
	close(l->fd);
	l->fd = -1;
	errno = saved;
	return -1;
}

/* The resolver knows no deadline, but it can be brief; what it reads, it reads anew. */
static int
resolve(struct syslog_link *l, struct addrinfo **out, struct err *err)
{
	const struct addrinfo hints = {
		.ai_socktype = is_datagrams(l) ? SOCK_DGRAM : SOCK_STREAM,
	};
	char port[8];
	int rc;

	if (res_init() == 0) {
		_res.retrans = 1;
		_res.retry = 1;
	}
	snprintf(port, sizeof(port), "%u", l->cfg->address.port);
	if ((rc = getaddrinfo(l->cfg->address.host, port, &hints, out)) == 0)
		return 0;
	return rc == EAI_SYSTEM
		   ? fail_errno(l, "look up", err)
		   : err_set(err, "%s: look up: %s", l->cfg->address.host, gai_strerror(rc));
}

static int
connect_any(struct syslog_link *l, int64_t deadline_ns, struct err *err)
{
	struct addrinfo *all, *ai;
	int rc = -1;

	if (resolve(l, &all, err) == -1)
		return -1;
	for (ai = all; ai != NULL && rc == -1; ai = ai->ai_next)
		rc = connect_one(l, ai, deadline_ns);
	if (rc == -1)
		fail_errno(l, "connect", err);
	freeaddrinfo(all);
	return rc;
}

/* 0 when the call of OpenSSL is to be made again once wants is there. */
static int
note_wants(struct syslog_link *l, int rc)
{
	switch (SSL_get_error(l->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		l->wants = POLLIN;
		return 0;
	case SSL_ERROR_WANT_WRITE:
		l->wants = POLLOUT;
		return 0;
	default:
		return -1;
	}
}

static int
shake_hands(struct syslog_link *l, int64_t deadline_ns, struct err *err)
{
	int rc;

	ERR_clear_error();
	while ((rc = SSL_connect(l->ssl)) != 1) {
		if (note_wants(l, rc) == -1)
			return fail_tls(l, "TLS", rc, err);
		if (syslog_link_wait(l, deadline_ns) == -1) {
			errno = ETIMEDOUT;
			return fail_errno(l, "TLS", err);
		}
	}
	return 0;
}

static int
begin_tls(struct syslog_link *l, int64_t deadline_ns, struct err *err)
{
	const char *name = l->cfg->tls.server_name;

	if (read_files(l, err) == -1)
		return -1;
	l->ssl = SSL_new(l->ctx);
	if (l->ssl == NULL || SSL_set_fd(l->ssl, l->fd) != 1 || !tlsfile_expect(l->ssl, name))
		return err_set(err, "%s: TLS: memory is short", l->cfg->address.host);
	return shake_hands(l, deadline_ns, err);
}

int
syslog_link_open(struct syslog_link *l, int64_t deadline_ns, struct err *err)
{
	l->opened_ns = l->looked_ns = clock_mono_ns();
	if (connect_any(l, deadline_ns, err) == -1)
		return -1;
	if (l->cfg->transport != CONFIG_SYSLOG_TLS || begin_tls(l, deadline_ns, err) == 0)
		return 0;
	syslog_link_close(l);
	return -1;
}

/* ---- using it ---- */

static ssize_t
write_tls(struct syslog_link *l, const void *p, size_t n, struct err *err)
{
	size_t written;
	int rc;

	ERR_clear_error();
	if ((rc = SSL_write_ex(l->ssl, p, n, &written)) == 1)
		return (ssize_t)written;
	return note_wants(l, rc) == 0 ? 0 : fail_tls(l, "write", rc, err);
}

ssize_t
syslog_link_write(struct syslog_link *l, const void *p, size_t n, struct err *err)
{
	ssize_t w;

	if (l->ssl != NULL)
		return write_tls(l, p, n, err);
	l->wants = POLLOUT;
	if ((w = send(l->fd, p, n, MSG_NOSIGNAL)) >= 0)
		return w;
	return errno == EAGAIN || errno == EINTR ? 0 : fail_errno(l, "write", err);
}

ssize_t
syslog_link_unacked(struct syslog_link *l, struct err *err)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int n;

	if (is_datagrams(l))
		return 0;
	/* In this order: a connection that breaks in between may have emptied the queue. */
	if (ioctl(l->fd, TIOCOUTQ, &n) == -1 ||
	    getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1)
		return fail_errno(l, "ask for what is acknowledged", err);
	if (info.tcpi_state == TCP_ESTABLISHED || info.tcpi_state == TCP_CLOSE_WAIT)
		return n;
	return err_set(
	    err, "%s port %u: the connection broke", l->cfg->address.host, l->cfg->address.port);
}

/* What a receiver says is for OpenSSL at most: 1 while it says something, 0 at its end, -1. */
static int
read_some(struct syslog_link *l, struct err *err)
{
	char unused[512];
	ssize_t n;
	int rc;

	if (l->ssl == NULL) {
		n = recv(l->fd, unused, sizeof(unused), MSG_DONTWAIT);
		return n >= 0 ? n > 0 : fail_errno(l, "read", err);
	}
	ERR_clear_error();
	errno = 0;
	if ((rc = SSL_read(l->ssl, unused, sizeof(unused))) > 0)
		return 1;
	switch (SSL_get_error(l->ssl, rc)) {
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		errno = EAGAIN;
		return -1;
	default:
		fail_tls(l, "read", rc, err);
		errno = EPROTO;
		return -1;
	}
}

enum syslog_peer
syslog_link_look(struct syslog_link *l, struct err *err)
{
	struct err why;
	int rc;

	while ((rc = read_some(l, &why)) == 1)
		;
	if (rc == -1 && (errno == EAGAIN || errno == EINTR))
		return SYSLOG_PEER_THERE;
	if (rc == -1) {
		*err = why;
		return SYSLOG_PEER_BROKEN;
	}
	err_set(err, "%s port %u: the receiver has closed the connection", l->cfg->address.host,
	    l->cfg->address.port);
	/* What its TLS had read, which may be whole records, the process may not have taken. */
	return l->ssl == NULL && syslog_link_unacked(l, &why) == 0 ? SYSLOG_PEER_ENDED
								   : SYSLOG_PEER_BROKEN;
}
