#include "sink_syslog.h"

#include "keytrail/trail.h"

#include <inttypes.h>

#define FACILITY   13 /* log audit */
#define MSGID_MAX  32
#define EVENT_TIME sizeof("2026-11-22T20:09:08.12") - 1
#define BOM	   "\xef\xbb\xbf"

static const struct {
	struct slice name;
	unsigned severity;
} severities[] = {
	{ SLICE_INIT("critical"), 2 },
	{ SLICE_INIT("warning"), 4 },
	{ SLICE_INIT("normal"), 6 },
};

static unsigned
priority(struct slice name)
{
	unsigned severity = 6;

	for (size_t i = 0; i < sizeof(severities) / sizeof(severities[0]); i++)
		if (slice_equal(name, severities[i].name))
			severity = severities[i].severity;
	return 8 * FACILITY + severity;
}

/* Hundredths of a second in UTC. */
static int
put_time(struct slice line, struct buf *out)
{
	struct slice time = trail_line_string(line, SLICE("eventTime"));

	if (time.n < EVENT_TIME)
		return buf_append(out, "-", 1);
	return buf_append(out, time.p, EVENT_TIME) == -1 ? -1 : buf_append(out, "Z", 1);
}

/* Printable ASCII without a space. */
static int
put_word(struct slice word, size_t max, struct buf *out)
{
	if (word.n == 0)
		return buf_append(out, "-", 1);
	for (size_t i = 0; i < word.n && i < max; i++) {
		char c = word.p[i] > ' ' && word.p[i] <= '~' ? word.p[i] : '_';

		if (buf_append(out, &c, 1) == -1)
			return -1;
	}
	return 0;
}

static int
put_value(struct slice value, struct buf *out)
{
	size_t done = 0;

	for (size_t i = 0; i < value.n; i++) {
		if (value.p[i] != '"' && value.p[i] != '\\' && value.p[i] != ']')
			continue;
		if (buf_append_slice(out, slice_sub(value, done, i)) == -1 ||
		    buf_append(out, "\\", 1) == -1)
			return -1;
		done = i;
	}
	return buf_append_slice(out, slice_sub(value, done, value.n));
}

static int
put_param(struct slice opening, struct slice value, struct buf *out)
{
	if (buf_append_slice(out, opening) == -1 || put_value(value, out) == -1)
		return -1;
	return buf_append(out, "\"", 1);
}

static int
put_data(const struct sink_event *e, struct slice action, struct slice severity, struct buf *out)
{
	struct slice outcome = trail_line_string(e->line, SLICE("outcome"));

	if (put_param(SLICE("[" SYSLOG_SD_ID " log=\""), slice_of(e->log), out) == -1 ||
	    put_param(SLICE(" boot=\""), slice_of(e->boot), out) == -1 ||
	    buf_printf(out, " seq=\"%" PRIu64 "\" prev=\"%" PRIu64 "\"", e->seq, e->prev) == -1 ||
	    put_param(SLICE(" hash=\""), slice_of(e->hash), out) == -1 ||
	    put_param(SLICE(" action=\""), action, out) == -1 ||
	    put_param(SLICE(" outcome=\""), outcome, out) == -1 ||
	    put_param(SLICE(" severity=\""), severity, out) == -1)
		return -1;
	return buf_append_slice(out, e->stub ? SLICE(" stub=\"true\"]") : SLICE("]"));
}

static bool
is_ascii(struct slice text)
{
	for (size_t i = 0; i < text.n; i++)
		if ((unsigned char)text.p[i] > 0x7f)
			return false;
	return true;
}

int
syslog_message(const struct sink_event *e, const char *host, int process, struct buf *out)
{
	struct slice action = trail_line_string(e->line, SLICE("action"));
	struct slice severity = trail_line_string(e->line, SLICE("severity"));

	if (buf_printf(out, "<%u>1 ", priority(severity)) == -1 || put_time(e->line, out) == -1 ||
	    buf_append(out, " ", 1) == -1 || put_word(slice_of(host), 255, out) == -1 ||
	    buf_printf(out, " keytrail %d ", process) == -1 ||
	    put_word(action, MSGID_MAX, out) == -1 || buf_append(out, " ", 1) == -1 ||
	    put_data(e, action, severity, out) == -1 ||
	    /* MSG-UTF8 begins with one, MSG-ANY does not; ASCII is either. */
	    buf_append_slice(out, is_ascii(e->text) ? SLICE(" ") : SLICE(" " BOM)) == -1)
		return -1;
	return buf_append_slice(out, e->text);
}
