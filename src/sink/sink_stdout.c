#include "keytrail/sink.h"

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/outfd.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

struct stdout_sink {
	struct outfd out;
	struct buf rest; /* of the events under way */
	size_t part;	 /* bytes of the first one that went out */
};

int
sink_stdout_open_fd(int fd, void **state, struct err *err)
{
	struct stdout_sink *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return err_set(err, "standard output: memory is short");
	outfd_init(&s->out, fd);
	*state = s;
	return 0;
}

static int
stdout_open(const struct config_sink *cfg, void **state, struct err *err)
{
	(void)cfg;
	return sink_stdout_open_fd(STDOUT_FILENO, state, err);
}

static void
stdout_close(void *state)
{
	struct stdout_sink *s = state;

	outfd_fini(&s->out);
	buf_fini(&s->rest);
	free(s);
}

static int
load_events(struct stdout_sink *s, const struct sink_event *events, size_t n)
{
	buf_consume(&s->rest, buf_size(&s->rest));
	for (size_t i = 0; i < n; i++)
		if (buf_append_slice(&s->rest, events[i].text) == -1 ||
		    buf_append(&s->rest, "\n", 1) == -1)
			return -1;
	buf_consume(&s->rest, s->part);
	return 0;
}

/* n more bytes went out: which events are whole now. */
static void
note_written(struct stdout_sink *s, const struct sink_event *events, size_t n, size_t *done)
{
	buf_consume(&s->rest, n);
	for (s->part += n; s->part > 0 && s->part > events[*done].text.n; ++*done)
		s->part -= events[*done].text.n + 1;
}

/* 0 when the descriptor can be written, -1 when the deadline is over. */
static int
wait_writable(struct stdout_sink *s, int64_t deadline_ns, struct err *err)
{
	struct pollfd pfd = { .fd = s->out.fd, .events = POLLOUT };
	int64_t left = deadline_ns - clock_mono_ns();

	if (left <= 0)
		return err_set(err, "standard output: the reader is too slow or stands still");
	poll(&pfd, 1, (int)(left / CLOCK_NS_PER_MS) + 1);
	return 0;
}

static enum sink_result
stdout_deliver(void *state, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	struct stdout_sink *s = state;

	if (load_events(s, events, n) == -1) {
		err_set(err, "standard output: memory is short");
		return SINK_RETRY;
	}
	while (buf_size(&s->rest) > 0) {
		struct slice rest = buf_slice(&s->rest);
		ssize_t w;

		w = outfd_write(&s->out, rest.p, outfd_whole_lines(rest.p, rest.n));
		if (w == -1) {
			err_set_errno(err, "standard output");
			return SINK_RETRY;
		}
		if (w == 0 && wait_writable(s, deadline_ns, err) == -1)
			return SINK_RETRY;
		note_written(s, events, (size_t)w, done);
	}
	return SINK_OK;
}

const struct sink_ops sink_stdout_ops = {
	.type = "stdout",
	.verbatim = true,
	.open = stdout_open,
	.close = stdout_close,
	.deliver = stdout_deliver,
};
