/*
 * sink: a place where events are delivered, behind one small interface.
 *
 * A sink is driven by its publisher's thread and may block, but honours `deadline_ns` (monotonic).
 * A type is a file sink_<type>.c, a row in the table of sink.c and a value of config_sink_type.  A
 * type that needs a library of its own is a module: a shared object sink_<type>.so that exports
 * `keytrail_sink` alone and has its own copy of what it uses of libkeytrail.
 */
#ifndef KEYTRAIL_SINK_H
#define KEYTRAIL_SINK_H

#include "keytrail/buf.h"
#include "keytrail/config.h"
#include "keytrail/err.h"
#include "keytrail/log.h"
#include "keytrail/slice.h"

/* One event as a sink gets it.  All that is pointed to lives until deliver returns. */
struct sink_event {
	struct slice text;  /* in the sink's format, without newline */
	struct slice line;  /* as the trail has it; of a stub, the rejected one */
	uint64_t seq, prev; /* prev: number of the event delivered before it; 0: none, or unknown */
	const char *log, *boot; /* hexadecimal, as in the trail */
	char hash[65];		/* of the line's leaf (merkle.h), lower-case hexadecimal; "" where
				   `verbatim` spares it */
	bool stub;		/* stands for a rejected event */
};

enum sink_result {
	SINK_OK,     /* all are delivered and acknowledged */
	SINK_BUSY,   /* still at it at the deadline; offer the rest again at once */
	SINK_RETRY,  /* offer the rest again later; err says why */
	SINK_REJECT, /* events[*done] can never be delivered; err says why */
};

typedef void (*sink_figure_fn)(void *arg, const char *name, double value);

/*
 * All but probe on the publisher's thread.  What open is given lives until the close.
 *
 * deliver: events in order, n > 0; *done (0 before) says how many of the first ones are delivered
 * and acknowledged, whatever the result; with SINK_OK it need not be set.  After SINK_RETRY and
 * SINK_BUSY the next deliver begins with events[*done], the same text, unless flush failed in between
 * or the sink is closed; so a sink may remember how much of that event went out.  After SINK_REJECT
 * the next one has a stub in place of events[*done], or, where that was one, nothing.  With SINK_OK,
 * err->msg may hold a warning: what did not work though every event is delivered ("" when all is well;
 * the caller clears it before).
 */
struct sink_ops {
	const char *type; /* "file" */
	/* Without a format or filter of its own it takes the lines as they are: `text` is `line`,
	 * and there is no hash. */
	bool verbatim;
	/* cfg stays until close. */
	int (*open)(const struct config_sink *cfg, void **state, struct err *err);
	void (*close)(void *state);
	enum sink_result (*deliver)(void *state, const struct sink_event *events, size_t n,
	    int64_t deadline_ns, size_t *done, struct err *err);
	void (*reopen)(void *state); /* USR1; NULL when pointless */
	/* Before a cursor moves; NULL when what is done is final.  1: not known at the deadline; asked
	 * again before anything else is delivered.  -1: what was delivered since the last flush may
	 * be gone and is delivered again. */
	int (*flush)(void *state, int64_t deadline_ns, struct err *err);
	/* `check --environment`: connect, and say in a few words what was found (a version, a topic
	 * with its partitions).  NULL: there is nothing to try. */
	int (*probe)(
	    const struct config_sink *cfg, int64_t deadline_ns, struct buf *found, struct err *err);
	/* Figures of its own, for metrics and status; NULL: none. */
	void (*figures)(void *state, sink_figure_fn each, void *arg);
	/* After open: where what a library says may be told; NULL: it says nothing. */
	void (*log_to)(void *state, struct log *log);
};

/* The operations of the types; NULL where a module is not loaded. */
struct sink_types {
	const struct sink_ops *ops[CONFIG_SINK_TYPES];
};

/* Those that are built in. */
void sink_types_init(struct sink_types *t);
/* And the modules of the types that a configuration names, from $KEYTRAIL_MODULES_DIR, else from where
 * they are installed; for the life of the process, and before its sandbox closes. */
int sink_types_load(struct sink_types *t, const struct config *config, struct err *err);
/* Are all that it names there? */
int sink_types_check(const struct sink_types *t, const struct config *config, struct err *err);

/* What a module exports as `keytrail_sink`; it changes with the size of what a sink gets, and with this
 * number, which counts the other changes of this header. */
#define SINK_ABI                                                                                   \
	(1u << 24 | (unsigned)sizeof(struct config_sink) << 12 | (unsigned)sizeof(struct sink_ops))
struct sink_module {
	unsigned abi;	     /* SINK_ABI */
	const char *version; /* KEYTRAIL_VERSION */
	const struct sink_ops *ops;
};

extern const struct sink_ops sink_stdout_ops, sink_file_ops, sink_syslog_ops;

/* For tests: another clock (wall time) for the age of a file sink's file, and another descriptor
 * for a stdout sink. */
void sink_file_set_clock(void *state, int64_t (*wall_ns)(void));
int sink_stdout_open_fd(int fd, void **state, struct err *err);

#endif
