/*
 * Syslog knows no acknowledgement.  What TCP has acknowledged counts as delivered; what it has
 * acknowledged last is kept, and sent once more when the connection breaks, since the receiver may not
 * have read it.
 */
#include "sink_syslog.h"

#include "keytrail/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TAIL_MAX     (1024u * 1024)	   /* kept of what is acknowledged */
#define TAIL_NS	     (60 * CLOCK_NS_PER_S) /* so long after the last write */
#define PROBATION_NS (200 * CLOCK_NS_PER_MS)
#define PAUSE_MIN_NS (50 * CLOCK_NS_PER_US)
#define PAUSE_MAX_NS (5 * CLOCK_NS_PER_MS)

struct syslog_sink {
	const struct config_sink *cfg;
	struct syslog_link *link;
	char host[256];
	int process;
	/* Frames: the tail, then those of events that are not done with. */
	struct buf frames;
	size_t tail;	/* bytes */
	size_t written; /* of all, on this connection */
	size_t taken;	/* events that are not done with and have a frame */
	bool trusted;	/* the connection has stood its first events */
	int64_t began_ns, wrote_ns;
};

static int
syslog_open(const struct config_sink *cfg, void **state, struct err *err)
{
	struct syslog_sink *s = calloc(1, sizeof(*s));

	if (s == NULL || (s->link = syslog_link_new(cfg)) == NULL) {
		free(s);
		return err_set(err, "syslog: memory is short");
	}
	s->cfg = cfg;
	s->process = (int)getpid();
	if (gethostname(s->host, sizeof(s->host) - 1) == -1)
		s->host[0] = '\0';
	*state = s;
	return 0;
}

static void
syslog_close(void *state)
{
	struct syslog_sink *s = state;

	syslog_link_free(s->link);
	buf_fini(&s->frames);
	free(s);
}

/* ---- frames (RFC 6587 section 3.4.1, RFC 5425 section 4.3) ---- */

/* The length of the one that begins there. */
static size_t
frame_at(const struct syslog_sink *s, size_t at)
{
	const char *p = buf_slice(&s->frames).p + at;
	size_t n = 0, digits = 0;

	for (; p[digits] != ' '; digits++)
		n = 10 * n + (size_t)(p[digits] - '0');
	return digits + 1 + n;
}

static int
add_frame(struct syslog_sink *s, const struct sink_event *e)
{
	struct buf message = BUF_INIT;
	size_t before = buf_size(&s->frames);
	int rc = -1;

	if (syslog_message(e, s->host, s->process, &message) == 0 &&
	    buf_printf(&s->frames, "%zu ", buf_size(&message)) == 0 &&
	    buf_append_slice(&s->frames, buf_slice(&message)) == 0)
		rc = 0;
	else
		s->frames.len = s->frames.off + before;
	buf_fini(&message);
	return rc;
}

static int
take(struct syslog_sink *s, const struct sink_event *events, size_t n, struct err *err)
{
	for (; s->taken < n; s->taken++)
		if (add_frame(s, &events[s->taken]) == -1)
			return err_set(err, "syslog: memory is short");
	return 0;
}

static void
drop(struct syslog_sink *s, size_t n)
{
	buf_consume(&s->frames, n);
	s->tail -= n;
	s->written -= n < s->written ? n : s->written;
}

/* Of the frames that were written at most `unacked` bytes are not acknowledged: TLS only adds to them. */
static void
settle(struct syslog_sink *s, size_t unacked, size_t *done)
{
	size_t acked = s->written > unacked ? s->written - unacked : 0, n, over = 0;

	while (s->taken > 0 && s->tail + (n = frame_at(s, s->tail)) <= acked) {
		s->tail += n;
		s->taken--;
		++*done;
	}
	while (s->tail - over > TAIL_MAX)
		over += frame_at(s, over);
	drop(s, over);
}

/* ---- the connection ---- */

/* What may not have been read goes out first, on the next one. */
static void
give_up(struct syslog_sink *s, enum syslog_peer how)
{
	if (how == SYSLOG_PEER_ENDED || clock_mono_ns() - s->wrote_ns > TAIL_NS)
		drop(s, s->tail);
	s->written = 0;
	syslog_link_close(s->link);
}

/* 0: it is open, and the receiver has not closed it. */
static int
be_connected(struct syslog_sink *s, int64_t deadline_ns, struct err *err)
{
	enum syslog_peer peer;

	if (syslog_link_is_open(s->link)) {
		peer = syslog_link_look(s->link, err);
		if (peer != SYSLOG_PEER_THERE)
			give_up(s, peer);
		else if (s->taken == 0 && syslog_link_is_stale(s->link))
			give_up(s, SYSLOG_PEER_ENDED);
	}
	if (syslog_link_is_open(s->link))
		return 0;
	s->trusted = false;
	if (syslog_link_open(s->link, deadline_ns, err) == -1)
		return -1;
	s->began_ns = clock_mono_ns();
	return 0;
}

static int
write_frames(struct syslog_sink *s, int64_t deadline_ns, struct err *err)
{
	while (s->written < buf_size(&s->frames)) {
		struct slice all = buf_slice(&s->frames);
		ssize_t w = syslog_link_write(s->link, all.p + s->written, all.n - s->written, err);

		if (w == -1) {
			give_up(s, SYSLOG_PEER_BROKEN);
			return -1;
		}
		if (w == 0 && syslog_link_wait(s->link, deadline_ns) == -1)
			return err_set(err, "%s port %u: the receiver takes nothing",
			    s->cfg->address.host, s->cfg->address.port);
		s->written += (size_t)w;
		s->wrote_ns = clock_mono_ns();
	}
	return 0;
}

/* Until all that was written is acknowledged, the connection breaks or the deadline is over. */
static void
await_acks(struct syslog_sink *s, int64_t deadline_ns, struct err *err)
{
	struct timespec pause = { .tv_nsec = PAUSE_MIN_NS };
	struct err unused;

	while (syslog_link_unacked(s->link, &unused) > 0) {
		if (clock_mono_ns() >= deadline_ns) {
			err_set(err, "%s port %u: the receiver acknowledges nothing",
			    s->cfg->address.host, s->cfg->address.port);
			return;
		}
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < PAUSE_MAX_NS)
			pause.tv_nsec *= 2;
	}
}

/* Who takes connections and what comes over them only to close them, for want of a certificate or of
 * a place, say, has read none of it. */
static int
try_connection(struct syslog_sink *s, struct err *err)
{
	int64_t left = s->began_ns + PROBATION_NS - clock_mono_ns();
	struct timespec pause = { .tv_nsec = left };

	if (s->trusted)
		return 0;
	if (left > 0)
		nanosleep(&pause, NULL);
	if (syslog_link_look(s->link, err) == SYSLOG_PEER_THERE) {
		s->trusted = true;
		return 0;
	}
	give_up(s, SYSLOG_PEER_BROKEN);
	return -1;
}

static enum sink_result
deliver_frames(struct syslog_sink *s, const struct sink_event *events, size_t n,
    int64_t deadline_ns, size_t *done, struct err *err)
{
	ssize_t unacked;

	if (be_connected(s, deadline_ns, err) == -1 || take(s, events, n, err) == -1)
		return SINK_RETRY;
	if (write_frames(s, deadline_ns, err) == 0)
		await_acks(s, deadline_ns, err);
	if (!syslog_link_is_open(s->link) || try_connection(s, err) == -1)
		return SINK_RETRY;
	if ((unacked = syslog_link_unacked(s->link, err)) == -1) {
		give_up(s, SYSLOG_PEER_BROKEN);
		return SINK_RETRY;
	}
	settle(s, (size_t)unacked, done);
	if (s->taken > 0)
		return SINK_RETRY;
	err->msg[0] = '\0'; /* what was late has come */
	return SINK_OK;
}

/* ---- datagrams (RFC 5426) ---- */

static enum sink_result
send_datagram(struct syslog_sink *s, struct slice message, int64_t deadline_ns, struct err *err)
{
	ssize_t w;

	if (message.n > s->cfg->max_datagram) {
		err_set(err, "the message has %zu bytes, a datagram at most %" PRIu64, message.n,
		    s->cfg->max_datagram);
		return SINK_REJECT;
	}
	while ((w = syslog_link_write(s->link, message.p, message.n, err)) == 0)
		if (syslog_link_wait(s->link, deadline_ns) == -1) {
			err_set(err, "UDP: there is no room for a datagram");
			return SINK_RETRY;
		}
	if (w > 0)
		return SINK_OK;
	if (errno == EMSGSIZE)
		return SINK_REJECT;
	syslog_link_close(s->link);
	return SINK_RETRY;
}

/* Did the last one meet nobody? */
static enum sink_result
heard(struct syslog_sink *s, struct err *err)
{
	if (syslog_link_look(s->link, err) == SYSLOG_PEER_THERE)
		return SINK_OK;
	syslog_link_close(s->link);
	return SINK_RETRY;
}

/* Where nobody listens the one before may have told so: all are sent again. */
static enum sink_result
deliver_datagrams(struct syslog_sink *s, const struct sink_event *events, size_t n,
    int64_t deadline_ns, size_t *done, struct err *err)
{
	struct buf message = BUF_INIT;
	enum sink_result result = SINK_OK;
	size_t i;

	if (syslog_link_is_open(s->link) && syslog_link_is_stale(s->link))
		syslog_link_close(s->link);
	if (!syslog_link_is_open(s->link) && syslog_link_open(s->link, deadline_ns, err) == -1)
		return SINK_RETRY;
	for (i = 0; i < n && result == SINK_OK; i++) {
		buf_consume(&message, buf_size(&message));
		if (syslog_message(&events[i], s->host, s->process, &message) == -1) {
			err_set(err, "syslog: memory is short");
			result = SINK_RETRY;
		} else {
			result = send_datagram(s, buf_slice(&message), deadline_ns, err);
		}
	}
	buf_fini(&message);
	if (result == SINK_REJECT)
		*done = i - 1;
	return result == SINK_OK ? heard(s, err) : result;
}

static enum sink_result
syslog_deliver(void *state, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	struct syslog_sink *s = state;

	return s->cfg->transport == CONFIG_SYSLOG_UDP
		   ? deliver_datagrams(s, events, n, deadline_ns, done, err)
		   : deliver_frames(s, events, n, deadline_ns, done, err);
}

static int
syslog_probe(const struct config_sink *cfg, int64_t deadline_ns, struct buf *found, struct err *err)
{
	struct syslog_link *l = syslog_link_new(cfg);
	int rc;

	if (l == NULL)
		return err_set(err, "syslog: memory is short");
	rc = syslog_link_open(l, deadline_ns, err);
	if (rc == 0)
		rc = buf_printf(found, "%s port %u, %s", cfg->address.host, cfg->address.port,
		    syslog_link_protocol(l));
	syslog_link_free(l);
	return rc;
}

const struct sink_ops sink_syslog_ops = {
	.type = "syslog",
	.open = syslog_open,
	.close = syslog_close,
	.deliver = syslog_deliver,
	.probe = syslog_probe,
};
