#include "keytrail/sink.h"

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/outfd.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

struct stdout_sink {
	struct outfd out;
	struct buf rest; /* of the batch that is under way */
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
load_batch(struct stdout_sink *s, const struct slice *lines, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (buf_append_slice(&s->rest, lines[i]) == -1 ||
		    buf_append(&s->rest, "\n", 1) == -1) {
			buf_fini(&s->rest);
			return -1;
		}
	}
	return 0;
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
stdout_deliver(
    void *state, const struct slice *lines, size_t n, int64_t deadline_ns, struct err *err)
{
	struct stdout_sink *s = state;

	if (buf_size(&s->rest) == 0 && load_batch(s, lines, n) == -1) {
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
		buf_consume(&s->rest, (size_t)w);
	}
	return SINK_OK;
}

const struct sink_ops sink_stdout_ops = {
	.type = "stdout",
	.open = stdout_open,
	.close = stdout_close,
	.deliver = stdout_deliver,
};
