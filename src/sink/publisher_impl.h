/*
 * publisher_impl: what the files of the publisher share: one sink's place, thread and batch.
 *
 * A place outlives its sink: it keeps its lock, its counts and its keep number, so that the
 * journal thread and main may look at any place at any time.  Members are the sink thread's own
 * where nothing else is said.
 */
#ifndef KEYTRAIL_PUBLISHER_IMPL_H
#define KEYTRAIL_PUBLISHER_IMPL_H

#include "keytrail/buf.h"
#include "keytrail/publisher.h"
#include "keytrail/sink.h"
#include "keytrail/trail.h"
#include "publisher_cursor.h"

#include <pthread.h>
#include <stdatomic.h>

#define PLACES		METRICS_SINKS_MAX
#define BATCH_LINES	256
#define BATCH_BYTES	(256u * 1024)
#define NOTHING_TO_KEEP UINT64_MAX

/* Numbers that no event of the batch stands for, and that were not counted before. */
struct passed {
	uint64_t filtered, missing;
};

/* What is behind an event of the batch. */
struct backing {
	struct line_id id;
	size_t line_at, text_at; /* in lines and texts */
	struct passed passed;	 /* between the event before and this one */
	bool own_text;		 /* in texts; else the line is the text */
	bool ready;		 /* has its text */
};

/* Lines that were read from the trail and are not yet done with. */
struct batch {
	struct buf lines, texts;
	struct sink_event events[BATCH_LINES];
	struct backing backing[BATCH_LINES];
	size_t n, first;      /* events before `first` are done with */
	unsigned nread;	      /* filtered ones too */
	struct passed passed; /* after the last event */
	struct line_id last;  /* that was read */
};

struct place {
	struct publisher *p;
	unsigned index;

	/* Main's; the thread reads name and cursor_name. */
	bool used;   /* a sink of the configuration in force */
	bool stuck;  /* its thread did not end in time, which was told */
	bool remote; /* it uses the network, as only such a thread may */
	char name[64];
	char cursor_name[80];
	unsigned metric;
	struct metrics_shard *shard;	/* the thread's */
	struct publisher_counts before; /* what the metrics had of this name when the sink began */
	pthread_t thread;

	/* Any thread. */
	_Atomic bool running;
	_Atomic bool sleeping;	   /* waits for the durable number to move */
	_Atomic uint64_t keep;	   /* lowest number that is not safely done with */
	_Atomic int64_t oldest_ns; /* wall time of the first line of the batch; 0: no batch */
	_Atomic bool up;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	bool ended, reopen, stopping, replay;
	bool leaving; /* was removed; its thread is to end, or to be joined */
	struct line_id replay_from;
	int64_t stop_ns;	   /* deadline when stopping */
	uint64_t stop_seq;	   /* deliver up to here when stopping */
	const struct config *next; /* of a reload, referenced */
	const char *type;
	bool required;
	char last_error[256];
	struct publisher_figure figures[METRICS_FIGURES_MAX];
	size_t nfigures;
	struct publisher_counts counts; /* counted - begin = all of them */
	uint64_t counted;		/* the highest number that is in one of them */
	uint64_t begin;			/* the number before the first one */

	/* The thread's own. */
	const struct config *config;   /* referenced */
	const struct config_sink *cfg; /* in config */
	const struct sink_ops *ops;
	void *state;		     /* NULL: not open */
	const struct config *opened; /* what it was opened with is in it; referenced */
	struct trail_reader *reader;
	struct cursor cursor;
	struct batch batch;
	uint64_t report;    /* of what was rejected last; 0: none */
	bool verify;	    /* the cursor's line has not been compared yet */
	struct line_id pos; /* the last line done with, maybe not yet safe */
	bool flush_failed;  /* and none has worked since */
	bool unflushed;	    /* a flush does not know yet */
	bool dirty;	    /* pos is ahead of the synced cursor */
	int64_t synced_ns, linger_ns;
	int64_t attempt_ns; /* when the attempt under way began; 0: none */
	uint64_t seen;	    /* durable number before the last look into the trail */
	int64_t missing_ns; /* since when lines up to it cannot be read; 0: none */
	unsigned failures;  /* in a row */
	unsigned unread;    /* times in a row that the trail could not be read */
	uint64_t random;
};

struct publisher {
	struct metrics *metrics;
	struct metrics_shard *shard; /* main's */
	struct log *log;
	const struct sink_types *types;
	int dirfd;
	char *dir;
	_Atomic uint64_t durable;
	trail_corrupt_fn corrupt;
	publisher_reject_fn rejected;
	publisher_recorded_fn recorded;
	void *arg;
	bool stopped;
	bool stuck; /* a thread did not end; its memory must stay */
	struct place places[PLACES];
};

/* The settings of a sink, or NULL. */
const struct config_sink *publisher_find_config(const struct config *config, const char *name);

/* The place of a sink that is in use, or NULL. */
struct place *publisher_find_place(struct publisher *p, const char *name);

/* The thread of a place. */
void *publisher_run(void *place);

/* ---- what is told (publisher_status.c) ---- */

/* Main. */
void publisher_note_before(struct place *s);
void publisher_fill_status(struct place *s, struct publisher_sink_status *out);
void publisher_show(struct place *s); /* of a sink that was removed, what it counted */

/* The thread: n events were offered, `done` of them taken; and what the sink tells of itself. */
void publisher_note_attempt(struct place *s, enum sink_result result, size_t n, size_t done);
void publisher_note_figures(struct place *s);

/* ---- reading the trail (publisher_read.c) ---- */

/* The first line at or after `seq`: 1, 0 when there is none, -1.  `step_over` as for the reader. */
int publisher_look(int dirfd, uint64_t seq, bool step_over, struct line_id *out, struct err *err);

/* Open the reader at pos, and compare the cursor's line the first time. */
int publisher_open_reader(struct place *s, struct err *err);
void publisher_close_reader(struct place *s);

/* Nothing was counted yet, and what is counted begins behind this number. */
void publisher_begin_at(struct place *s, uint64_t seq);

/* 0 also when there is nothing to read: nread is 0 then. */
int publisher_fill(struct place *s, struct err *err);

void publisher_copy_id(char out[TRAIL_ID_SIZE], struct slice id);

/* ---- the batch (publisher_batch.c) ---- */

/* The line that the reader gave. */
int publisher_add_line(struct place *s, struct slice line, uint64_t seq, struct err *err);
void publisher_clear(struct place *s);
bool publisher_batch_full(const struct batch *b);

/* Make the events from `first` on ready for the sink.  -1: memory is short; to be tried again. */
int publisher_render(struct place *s, struct err *err);

/* The next n events are done with: count them and move pos. */
void publisher_take_done(struct place *s, size_t n);
/* So is what was read after the last one; the batch is empty then. */
void publisher_take_rest(struct place *s);

/* Keep the first event's line in the quarantine and put its stub in its place; drop a stub. */
int publisher_reject_first(struct place *s, const char *why, struct err *err);

#endif
