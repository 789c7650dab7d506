/*
 * sink: a place where events are delivered, behind one small interface.
 *
 * A sink is driven by its publisher's thread and may block, but honours `deadline_ns` (monotonic).
 * Adding a type is a row in the table of sink.c and a file sink_<type>.c.
 */
#ifndef KEYTRAIL_SINK_H
#define KEYTRAIL_SINK_H

#include "keytrail/config.h"
#include "keytrail/err.h"
#include "keytrail/slice.h"

enum sink_result {
	SINK_OK,     /* all of the batch is delivered and acknowledged */
	SINK_RETRY,  /* none of it counts; offer the same batch again later */
	SINK_REJECT, /* the first line can never be delivered; quarantine it */
};

struct sink_ops {
	const char *type; /* "file" */
	int (*open)(const struct config_sink *cfg, void **state, struct err *err);
	void (*close)(void *state);
	/* Lines without newline, in order. */
	enum sink_result (*deliver)(
	    void *state, const struct slice *lines, size_t n, int64_t deadline_ns, struct err *err);
	void (*reopen)(void *state); /* USR1; NULL when pointless */
	int (*flush)(void *state, int64_t deadline_ns, struct err *err); /* before a cursor moves */
};

/* The operations of a type; never NULL for a value of the enum. */
const struct sink_ops *sink_ops_of(enum config_sink_type type);

extern const struct sink_ops sink_stdout_ops, sink_file_ops;

#endif
