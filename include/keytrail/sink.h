/*
 * sink: a place where events are delivered, behind one small interface.
 *
 * A sink is driven by its publisher's thread and may block, but honours `deadline_ns` (monotonic).
 * A type is a file sink_<type>.c, a row in the table of sink.c and a value of config_sink_type.
 */
#ifndef KEYTRAIL_SINK_H
#define KEYTRAIL_SINK_H

#include "keytrail/config.h"
#include "keytrail/err.h"
#include "keytrail/slice.h"

enum sink_result {
	SINK_OK,     /* all of the batch is delivered and acknowledged */
	SINK_RETRY,  /* offer the same batch again later; err says why */
	SINK_REJECT, /* the first line can never be delivered; quarantine it */
};

/*
 * All on the publisher's thread.  After SINK_RETRY the next deliver brings the same lines again,
 * unless flush failed in between or the sink is closed; so a sink may remember how far it came, and
 * a line that went out in part is continued, not begun anew.  With SINK_OK, err->msg may hold a
 * warning: what did not work though every line is delivered ("" when all is well; the caller clears
 * it before).
 */
struct sink_ops {
	const char *type; /* "file" */
	int (*open)(const struct config_sink *cfg, void **state, struct err *err);
	void (*close)(void *state);
	/* Lines without newline, in order; n > 0. */
	enum sink_result (*deliver)(
	    void *state, const struct slice *lines, size_t n, int64_t deadline_ns, struct err *err);
	void (*reopen)(void *state); /* USR1; NULL when pointless */
	/* Before a cursor moves; NULL when SINK_OK is final.  -1: what was delivered since the last
	 * flush may be gone and is delivered again. */
	int (*flush)(void *state, int64_t deadline_ns, struct err *err);
};

/* The operations of a type; never NULL for a value of the enum. */
const struct sink_ops *sink_ops_of(enum config_sink_type type);

extern const struct sink_ops sink_stdout_ops, sink_file_ops;

/* For tests: another clock (wall time) for the age of a file sink's file, and another descriptor
 * for a stdout sink. */
void sink_file_set_clock(void *state, int64_t (*wall_ns)(void));
int sink_stdout_open_fd(int fd, void **state, struct err *err);

#endif
