#include "data/stream.h"

#include "keytrail/records.h"
#include "keytrail/tlsfile.h"

#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD_MAX  16384
#define RECORD_STEP 2048

/* What a peer may say of TLS alone (KeyUpdate, tickets, alerts) before its next byte for us.  OpenSSL
 * would read on for as long as such comes, within one call. */
#define MESSAGES_MAX 64

struct stream_method {
	BIO_METHOD *bio;
};

/*
 * A short read has emptied the socket, so the next one would only say EAGAIN; a new edge comes with
 * new bytes.  After a hang-up no edge is left to come, so then the EOF must be read.  A reset looks
 * to us like an edge for both directions: where it may have been one and the caller wants more than
 * the short read gave, the kernel is asked once again.
 */
static ssize_t
socket_read(struct stream *s, void *p, size_t cap)
{
	ssize_t n;

	if (!s->readable && !s->unsure) {
		errno = EAGAIN;
		return -1;
	}
	s->unsure = s->unsure && s->readable;
	do
		n = recv(s->fd, p, cap, 0);
	while (n == -1 && errno == EINTR);
	if ((n == -1 && errno == EAGAIN) || (n > 0 && (size_t)n < cap && !s->hung_up))
		s->readable = false;
	return n;
}

/* A session ticket is of no use before the answer, and goes out with it where that comes soon. */
static bool
may_wait(const struct stream *s)
{
	return s->more || (s->ssl != NULL && SSL_get_state(s->ssl) == TLS_ST_SW_SESSION_TICKET);
}

static ssize_t
socket_write(struct stream *s, const void *p, size_t len)
{
	bool more = may_wait(s);
	ssize_t n;

	if (!s->writable) {
		errno = EAGAIN;
		return -1;
	}
	do
		n = send(s->fd, p, len, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
	while (n == -1 && errno == EINTR);
	if ((n == -1 && errno == EAGAIN) || (n >= 0 && (size_t)n < len))
		s->writable = false;
	else if (n == -1)
		s->readable = true; /* the reader will be told why, and no edge is left to come */
	return n;
}

static int
bio_read(BIO *bio, char *p, int cap)
{
	struct stream *s = BIO_get_data(bio);
	ssize_t n;

	if (stream_is_flooded(s)) {
		BIO_clear_retry_flags(bio);
		return -1;
	}
	n = socket_read(s, p, (size_t)cap);
	records_filled(p, n > 0 ? (size_t)n : 0);
	BIO_clear_retry_flags(bio);
	if (n == -1 && errno == EAGAIN)
		BIO_set_retry_read(bio);
	if (n == 0)
		BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
	return (int)n;
}

static int
bio_write(BIO *bio, const char *p, int len)
{
	ssize_t n = socket_write(BIO_get_data(bio), p, (size_t)len);

	records_sent(p, (size_t)len);
	BIO_clear_retry_flags(bio);
	if (n == -1 && errno == EAGAIN)
		BIO_set_retry_write(bio);
	return (int)n;
}

static long
bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)num;
	(void)ptr;
	switch (cmd) {
	case BIO_CTRL_FLUSH:
		return 1;
	case BIO_CTRL_EOF:
		return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
	default:
		return 0;
	}
}

struct stream_method *
stream_method_new(struct err *err)
{
	struct stream_method *m = calloc(1, sizeof(*m));

	if (m == NULL || (m->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK,
			      "keytrail stream")) == NULL) {
		err_set(err, "memory is short");
		free(m);
		return NULL;
	}
	BIO_meth_set_read(m->bio, bio_read);
	BIO_meth_set_write(m->bio, bio_write);
	BIO_meth_set_ctrl(m->bio, bio_ctrl);
	return m;
}

void
stream_method_free(struct stream_method *m)
{
	if (m != NULL)
		BIO_meth_free(m->bio);
	free(m);
}

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;

	(void)fd;
	if (what & (EV_READ | EV_CLOSED))
		s->readable = true;
	if (what & EV_CLOSED)
		s->hung_up = true;
	if (what & EV_WRITE)
		s->writable = true;
	/* What libevent makes of EPOLLERR. */
	s->unsure = (what & (EV_READ | EV_WRITE)) == (EV_READ | EV_WRITE);
	s->ready(s->arg);
}

/* What an earlier call left behind would be taken for the reason of the next failure.  Mostly there is
 * nothing, which is cheaper to see than to clear. */
static void
begin_call(struct stream *s)
{
	if (ERR_peek_error() != 0)
		ERR_clear_error();
	s->failures = records_failures();
}

/* CVE-2024-4741: before these, OpenSSL freed a buffer that held a part of a record. */
static bool
frees_only_what_is_empty(void)
{
	static const unsigned fixed[] = { 14, 6, 2, 1 }; /* 3.0, 3.1, ... */
	unsigned minor = OPENSSL_version_minor();

	return OPENSSL_version_major() > 3 || minor >= sizeof(fixed) / sizeof(*fixed) ||
	       OPENSSL_version_patch() >= fixed[minor];
}

/*
 * OpenSSL takes room for the largest record with each write, and we wipe what it gives back: let
 * that be about as large as this one.  It may not change as long as there is such room: OpenSSL
 * would use what is too small, and drop what is of another size together with what waits in it.
 */
static void
fit_record(struct stream *s, size_t len)
{
	size_t record =
	    len < RECORD_MAX ? (len + RECORD_STEP - 1) / RECORD_STEP * RECORD_STEP : RECORD_MAX;

	if (record == s->record || !frees_only_what_is_empty() || SSL_free_buffers(s->ssl) != 1)
		return;
	SSL_set_max_send_fragment(s->ssl, (long)record);
	SSL_set_split_send_fragment(s->ssl, (long)record);
	s->record = (unsigned short)record;
}

static int
start_tls(struct stream *s, const struct stream_opts *o)
{
	BIO *bio;

	if ((s->ssl = SSL_new(o->ctx)) == NULL || (bio = BIO_new(o->method->bio)) == NULL)
		return -1;
	BIO_set_data(bio, s);
	BIO_set_init(bio, 1);
	SSL_set_bio(s->ssl, bio, bio);
	fit_record(s, 1); /* few handshakes need more */
	if (!o->client) {
		SSL_set_accept_state(s->ssl);
		return 0;
	}
	SSL_set_connect_state(s->ssl);
	if (o->session != NULL) {
		if (o->session->ctx != o->ctx) {
			SSL_SESSION_free(o->session->session);
			*o->session = (struct stream_session){ NULL, o->ctx };
		}
		SSL_set_app_data(s->ssl, o->session);
		if (o->session->session != NULL)
			SSL_set_session(s->ssl, o->session->session);
	}
	return tlsfile_expect(s->ssl, o->server_name) ? 0 : -1;
}

int
stream_open(struct stream *s, int fd, const struct stream_opts *o, struct err *err)
{
	*s = (struct stream){ .fd = fd, .ready = o->ready, .ending = o->ending, .arg = o->arg };
	s->readable = s->writable = !o->connecting;
	if (o->ctx != NULL && start_tls(s, o) == -1) {
		err_set(err, "cannot set up TLS: memory is short");
		goto fail;
	}
	event_assign(&s->event, o->base, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST,
	    on_event, s);
	if (event_add(&s->event, NULL) == -1) {
		err_set(err, "cannot watch a descriptor, or memory is short");
		goto fail;
	}
	return 0;
fail:
	ERR_clear_error();
	SSL_free(s->ssl);
	close(fd);
	s->ssl = NULL;
	s->fd = -1;
	return -1;
}

void
stream_close(struct stream *s)
{
	static const struct linger reset = { .l_onoff = 1 };

	if (s->fd == -1)
		return;
	if (s->broken && s->ssl == NULL)
		setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (s->ssl != NULL) {
		if (!s->broken && SSL_is_init_finished(s->ssl))
			SSL_shutdown(s->ssl);
		ERR_clear_error();
		SSL_free(s->ssl);
		s->ssl = NULL;
	}
	event_del(&s->event);
	close(s->fd);
	s->fd = -1;
}

enum stream_result
stream_connected(struct stream *s)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (!s->writable && !s->readable)
		return STREAM_AGAIN;
	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
		error = errno;
	if (error != 0) {
		s->broken = true;
		errno = error;
		return STREAM_ERROR;
	}
	return STREAM_OK;
}

static bool
ran_short(const struct stream *s)
{
	return s->failures != records_failures();
}

static enum stream_result
tls_result(struct stream *s, int rc)
{
	int error = SSL_get_error(s->ssl, rc);

	switch (error) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		/* It says so, too, of an error that it had no memory to note. */
		if (!ran_short(s))
			return STREAM_AGAIN;
		break;
	case SSL_ERROR_ZERO_RETURN:
		return STREAM_EOF;
	default:
		break;
	}
	s->broken = true;
	s->starved = s->starved || ran_short(s);
	if (error == SSL_ERROR_SSL &&
	    ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		ERR_clear_error();
		return STREAM_CUT;
	}
	return STREAM_ERROR;
}

/* OpenSSL's own words hold no byte of the peer's. */
static void
tls_error(struct stream *s, struct err *err)
{
	long verify = SSL_get_verify_result(s->ssl);
	unsigned long code = ERR_get_error();

	s->reason = ERR_GET_REASON(code);
	if (s->starved)
		err_set(err, "memory is short");
	else if (verify != X509_V_OK)
		err_set(err, "%s", X509_verify_cert_error_string(verify));
	else if (code != 0)
		err_set(err, "%s",
		    ERR_reason_error_string(code) != NULL ? ERR_reason_error_string(code)
							  : "TLS error");
	else
		err_set(err, "the connection was reset");
	ERR_clear_error();
}

/* Of each message, not of records of application data. */
static void
count_message(const SSL *ssl, int where, int value)
{
	struct stream *s = BIO_get_data(SSL_get_rbio(ssl));

	(void)where;
	(void)value;
	s->messages++;
}

bool
stream_is_flooded(const struct stream *s)
{
	return s->messages > MESSAGES_MAX;
}

enum stream_result
stream_handshake(struct stream *s, struct err *err)
{
	enum stream_result r;
	int rc;

	if (s->ssl == NULL)
		return STREAM_OK;
	begin_call(s);
	rc = SSL_do_handshake(s->ssl);
	/* It goes on without what it could not make, and fails over that later, or the peer does. */
	s->starved = s->starved || ran_short(s);
	if (rc == 1) {
		SSL_set_info_callback(s->ssl, count_message);
		return STREAM_OK;
	}
	r = tls_result(s, rc);
	if (r == STREAM_ERROR)
		tls_error(s, err);
	else if (r != STREAM_AGAIN)
		err_set(err, "the connection was closed");
	return r;
}

/* A result as it is told. */
static enum stream_result
told(struct stream *s, enum stream_result r)
{
	if (r <= STREAM_AGAIN || s->ending == NULL)
		return r;
	if (s->end == STREAM_OK)
		s->ending(s->arg);
	s->end = r;
	return STREAM_AGAIN;
}

void
stream_tell_end(struct stream *s)
{
	s->ending = NULL;
}

static enum stream_result
read_some(struct stream *s, void *p, size_t cap, size_t *n)
{
	enum stream_result r;
	ssize_t got;
	int rc;

	if (s->ssl == NULL) {
		if ((got = socket_read(s, p, cap)) > 0) {
			*n = (size_t)got;
			return STREAM_OK;
		}
		if (got == 0)
			return STREAM_EOF;
		return errno == EAGAIN ? STREAM_AGAIN : STREAM_ERROR;
	}
	begin_call(s);
	rc = SSL_read_ex(s->ssl, p, cap, n);
	if (stream_is_flooded(s)) {
		ERR_clear_error();
		s->broken = true;
		return STREAM_ERROR;
	}
	if (rc == 1) {
		s->messages = 0;
		s->starved = false;
		return STREAM_OK;
	}
	if ((r = tls_result(s, rc)) == STREAM_ERROR)
		ERR_clear_error();
	return r;
}

enum stream_result
stream_read(struct stream *s, void *p, size_t cap, size_t *n)
{
	return told(s, s->end != STREAM_OK ? s->end : read_some(s, p, cap, n));
}

static enum stream_result
write_some(struct stream *s, const void *p, size_t len, size_t *n)
{
	enum stream_result r;
	ssize_t put;
	int rc;

	if (s->ssl == NULL) {
		if ((put = socket_write(s, p, len)) >= 0) {
			*n = (size_t)put;
			return STREAM_OK;
		}
		return errno == EAGAIN ? STREAM_AGAIN : STREAM_ERROR;
	}
	begin_call(s);
	fit_record(s, len);
	if ((rc = SSL_write_ex(s->ssl, p, len, n)) == 1)
		return STREAM_OK;
	if ((r = tls_result(s, rc)) == STREAM_ERROR)
		ERR_clear_error();
	return r == STREAM_AGAIN ? r : STREAM_ERROR;
}

enum stream_result
stream_write(struct stream *s, const void *p, size_t len, size_t *n)
{
	/* A peer that has ended its side may still read. */
	return told(s, s->end == STREAM_ERROR ? s->end : write_some(s, p, len, n));
}

bool
stream_may_read(const struct stream *s)
{
	return s->readable || s->end != STREAM_OK || (s->ssl != NULL && SSL_has_pending(s->ssl));
}

bool
stream_may_go_on(const struct stream *s)
{
	return stream_may_read(s) || s->unsure;
}

bool
stream_has_news(const struct stream *s)
{
	char c;

	return recv(s->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) != -1 || errno != EAGAIN;
}

bool
stream_is_reset(struct stream *s)
{
	int error = 0;
	socklen_t len = sizeof(error);

	/* Not by peeking: behind a FIN that only ever shows the end. */
	if (s->end != STREAM_ERROR && getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 &&
	    error == 0)
		return false;
	return told(s, STREAM_ERROR) == STREAM_ERROR;
}

void
stream_end_follows(struct stream *s)
{
	s->more = true;
}

enum stream_result
stream_shutdown_write(struct stream *s)
{
	int rc;

	if (s->ssl != NULL && !s->broken) {
		ERR_clear_error();
		rc = SSL_shutdown(s->ssl);
		if (rc < 0 && SSL_get_error(s->ssl, rc) == SSL_ERROR_WANT_WRITE)
			return STREAM_AGAIN;
		ERR_clear_error();
	}
	shutdown(s->fd, SHUT_WR);
	return STREAM_OK;
}
