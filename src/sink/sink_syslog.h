/*
 * sink_syslog: what the files of the syslog sink share.
 *
 * sink_syslog.c is the sink and what it keeps of what it has sent, sink_syslog_message.c one event
 * as a message (RFC 5424), sink_syslog_link.c the way to the receiver: UDP, TCP, or TLS over it.
 */
#ifndef KEYTRAIL_SINK_SYSLOG_H
#define KEYTRAIL_SINK_SYSLOG_H

#include "keytrail/buf.h"
#include "keytrail/sink.h"

#include <stdint.h>
#include <sys/types.h>

/* ---- messages ---- */

/*
 * The number is that of RFC 5612, for examples: keytrail has none of its own.
 * https://www.rfc-editor.org/rfc/rfc5424#section-7.2.2 asks for one that its maker has.
 */
#define SYSLOG_SD_ID "keytrail@32473"

/* Append the event as a message; host and process are what the header says of them.  -1 when memory
 * is short. */
int syslog_message(const struct sink_event *e, const char *host, int process, struct buf *out);

/* ---- the link ---- */

struct syslog_link;

/* What the peer has done. */
enum syslog_peer {
	SYSLOG_PEER_THERE,
	SYSLOG_PEER_ENDED,  /* it has read all that it acknowledged, and closed */
	SYSLOG_PEER_BROKEN, /* how much it has read nobody knows */
};

/* cfg is borrowed until the free.  NULL: memory is short. */
struct syslog_link *syslog_link_new(const struct config_sink *cfg);
void syslog_link_free(struct syslog_link *l);

/* Its name is looked up anew, and files of TLS are read that have changed. */
int syslog_link_open(struct syslog_link *l, int64_t deadline_ns, struct err *err);
void syslog_link_close(struct syslog_link *l);
bool syslog_link_is_open(const struct syslog_link *l);

/* "TLSv1.3" and the like, of an open one. */
const char *syslog_link_protocol(const struct syslog_link *l);

/* Would another connection be one with other files of TLS, or after a minute of UDP with another
 * address?  Looked at once a second. */
bool syslog_link_is_stale(struct syslog_link *l);

/* As much as can be written at once: how many bytes, 0 when none can, -1: the link is of no use. */
ssize_t syslog_link_write(struct syslog_link *l, const void *p, size_t n, struct err *err);
/* Until something can be written or the deadline is over, which is -1. */
int syslog_link_wait(struct syslog_link *l, int64_t deadline_ns);

/* How many bytes at most of what was written the kernel over there has not acknowledged; -1: the link
 * is broken.  Of UDP none. */
ssize_t syslog_link_unacked(struct syslog_link *l, struct err *err);
enum syslog_peer syslog_link_look(struct syslog_link *l, struct err *err);

#endif
