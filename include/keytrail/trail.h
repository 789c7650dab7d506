/*
 * trail: the directory of segments that is the audit log: append, recover, retain, read.
 *
 * <dir>/00000000000000000001.jsonl (first sequence number in the name), one event a line; `state`
 * (one mapped page: durable number, segment, offset); `log` (the log's id and base); `lock`; `ring.*`;
 * `cursor.<sink>`; `holds` and `retention` (trail_keep.c).  Format and files: README.md; recovery:
 * trail_recover.c.  The writer side belongs
 * to the journal thread; readers (sinks, `tail`, other processes) need no lock and stop at the
 * durable mark.
 */
#ifndef KEYTRAIL_TRAIL_H
#define KEYTRAIL_TRAIL_H

#include "keytrail/err.h"
#include "keytrail/leaves.h"
#include "keytrail/ring.h"
#include "keytrail/slice.h"

#include <sys/types.h>

struct trail;

#define TRAIL_LINE_MAX	 16384 /* a line of the trail, with its newline */
#define TRAIL_MEMBER_MAX 256   /* what trail_append adds to a line at most */

#define TRAIL_ID_SIZE	 33 /* 128 bits as lower-case hex, and a NUL */

bool trail_is_id(const char *s);

struct trail_range {
	uint64_t first, last;
};

/* The calls that a disk can fail; tests replace some.  As the system calls: -1 and errno. */
struct trail_io {
	int (*create)(void *arg, int dirfd, const char *name); /* O_EXCL, for writing, 0640 */
	int (*allocate)(void *arg, int fd, off_t at, off_t n); /* FALLOC_FL_KEEP_SIZE */
	ssize_t (*write)(void *arg, int fd, const void *p, size_t n, off_t at);
	int (*sync)(void *arg, int fd); /* data */
	int (*truncate)(void *arg, int fd, off_t length);
	void *arg;
};
extern const struct trail_io trail_disk; /* the disk itself; no function of it looks at arg */

struct trail_opts {
	const char *dir;
	bool create;	       /* make a new log where there is none */
	bool hashed;	       /* keep the hashes of what is appended, for a ledger */
	uint64_t segment_size; /* bytes */
	uint64_t room;	       /* bytes of all rings; trail_reserve keeps half as much again */
	/* Of this log so many lines are known to have been signed: their numbers are used up. */
	const char *signed_log; /* or NULL */
	uint64_t signed_size;
	/* The highest number of this log that is known to have been given on, or NULL. */
	uint64_t (*used)(int dirfd, const char *log);
	const char *group; /* of the segments, or NULL */
	/* The lock of a process that has given the trail up and fills its rings still: a descriptor of
	 * the directory, of which a copy is made.  Its rings are left alone.  NULL: nobody has. */
	const int *lock;
	const struct trail_io *io; /* NULL: the disk */
};

/* What opening found; goes into keytrail.start, .recover, .corrupt and .tamper.  Every start is told
 * of it until trail_recovery_recorded. */
struct trail_recovery {
	bool new_log;
	bool clean;		      /* the previous run ended by TERM, and left nothing undone */
	bool state_lost;	      /* the state page was gone or damaged: a new log was begun */
	char given_up[TRAIL_ID_SIZE]; /* the log in whose place this one was begun, or "" */
	char previous_boot[TRAIL_ID_SIZE]; /* "" when new */
	uint64_t torn_bytes;		   /* never promised; kept in <segment>.torn */
	uint64_t torn_first, torn_last;	   /* numbers among them that valid lines follow; or 0 */
	uint64_t from_rings;		   /* events that only the rings held */
	uint64_t from_slots;		   /* calls in flight whose outcome nobody knows */
	uint64_t intents_closed;	   /* the same, known from their intents only */
	uint64_t rings_cut; /* files of rings that somebody had shortened, deleted or overwritten */
	uint64_t corrupt_lines; /* invalid lines followed by valid ones */
	uint64_t corrupt_first, corrupt_last;
	uint64_t missing_first, missing_last; /* durable numbers that are gone; 0 when none */
	uint64_t foreign;		      /* segments of another log, put aside */
	uint64_t foreign_left;		      /* those of them that perhaps were not yet */
};

/* Lock, recover (rings included), make ready to append.  "locked by process N" and the like in
 * err.  The directory is made when it is missing and `create`. */
int trail_open(
    const struct trail_opts *opts, struct trail **out, struct trail_recovery *rec, struct err *err);
/* From now on these rings hold what the trail does not yet have: the next start misses those that are
 * gone.  Ring i of n has this name; the last one is the main thread's. */
#define TRAIL_RING_NAME_SIZE 24
void trail_ring_name(unsigned i, unsigned n, char out[TRAIL_RING_NAME_SIZE]);
int trail_expect_rings(struct trail *t, unsigned n, struct err *err);

/* ---- from one process to the next ---- */

uint32_t trail_state_version(void); /* of the state page's format */
/* Rings are given up under these names, main's first: every version recovers them. */
#define TRAIL_GIVEN_RINGS 1000
void trail_given_ring_name(unsigned i, char out[TRAIL_RING_NAME_SIZE]);
/* Everything is durable and recorded, and its rings go by those names: trail_open of another process
 * may go on.  From here on t is to be closed, not clean; who shares the lock keeps it.  `whole`: all is
 * signed, where anything is. */
int trail_give(struct trail *t, bool whole, struct err *err);
/* The process that gave these rings has ended, and what it committed is durable: of its calls in
 * flight `each` gets those without a record, as events.  -1: `each` said so, or cannot read. */
typedef int (*trail_left_fn)(void *arg, struct slice line, struct err *err);
int trail_find_left(struct trail *t, unsigned n, trail_left_fn each, void *arg, struct err *err);
/* Nobody has gone on for good with a ring that was given: be its consumer again, from behind what whoever
 * tried has recorded of it. */
int trail_skip_recorded(struct trail *t, struct ring *ring, struct err *err);
/* Room is kept reserved for so many bytes of rings less. */
void trail_need_less(struct trail *t, uint64_t room);
/* The events that tell of it are durable.  -1: the next start may tell of it again; may be tried
 * again. */
int trail_recovery_recorded(struct trail *t, struct err *err);
/* clean: everything is synced, and signed where anything is; the state page says so.  After
 * trail_recovery_recorded only. */
void trail_close(struct trail *t, bool clean);

const char *trail_log_id(const struct trail *t); /* TRAIL_ID_SIZE - 1 hex digits */
/* The number before the log's first line: line `seq` is entry `seq` - 1 - base of the log. */
uint64_t trail_log_base(const struct trail *t);
const char *trail_boot_id(const struct trail *t);
int trail_dirfd(const struct trail *t);

/* Before the first append: give the log up for a new one in the same directory.  Numbers go on, and
 * the lines that are there stay.  Every start is told of it (given_up) until trail_recovery_recorded. */
int trail_renew(struct trail *t, struct err *err);
/* The log that was given up for this one by this start, or by one that did not record it; or "". */
const char *trail_log_given_up(const struct trail *t);

/* The log that a directory holds, as its state says (readers).  Lines above its base carry its id; those
 * up to there are of logs that were given up. */
struct trail_log {
	char id[TRAIL_ID_SIZE];
	uint64_t base;
};
int trail_read_log(int dirfd, struct trail_log *out, struct err *err);

/* ---- the one writer ---- */

/* Number a line (as event_render leaves it), close it with the trail member and queue it for the
 * next write (which is made here when the queue is full).  -1 when the line is longer than
 * TRAIL_LINE_MAX allows, or that write failed. */
int trail_append(
    struct trail *t, struct slice line, int64_t wall_ns, uint64_t *seq, struct err *err);
/* Write what is queued.  On -1 nothing of it counts as written; see trail_reopen. */
int trail_write(struct trail *t, struct err *err);
/* fdatasync and publish the durable mark.  A segment that was deleted, renamed or replaced
 * meanwhile is a failed sync, and trail_tampered says so. */
int trail_sync(struct trail *t, struct err *err);
/* After a failed write or sync: seal the segment, open a successor; the caller appends again every
 * line since the last good sync.  May be tried again after -1; nothing else may until then. */
int trail_reopen(struct trail *t, struct err *err);
/* The state page was found cut since this was last asked; it is whole again. */
bool trail_state_was_cut(struct trail *t);
/* A segment that is full had to grow on since this was last asked, for this reason. */
bool trail_could_not_roll(struct trail *t, struct err *why);
/* The open segment was found gone since this was last asked: which one, and which durable numbers
 * went with it (0 when none). */
bool trail_tampered(struct trail *t, uint64_t *segment, uint64_t *first, uint64_t *last);
/* Is the open segment there under its name?  trail_sync asks the same; -1 is its failure. */
int trail_check(struct trail *t, struct err *err);

/* A file of the directory, or "." for itself, that was deleted, renamed or replaced. */
struct trail_harm {
	const char *file;
	bool mended; /* it is there again, as it was */
};
#define TRAIL_HARM_MAX 4
/* Those that were not so when this was last asked; how many. */
size_t trail_find_harm(struct trail *t, struct trail_harm out[TRAIL_HARM_MAX]);
/* Keep the room of struct trail_opts reserved beyond what is queued.  -1: there is none now. */
int trail_reserve(struct trail *t, struct err *err);
/* Free bytes of the file system that are for the trail alone: for a segment and what is reserved. */
uint64_t trail_keep_free(const struct trail *t);
/* The file system cannot reserve: room is what statvfs says. */
bool trail_cannot_reserve(const struct trail *t);

uint64_t trail_last_seq(const struct trail *t);
uint64_t trail_durable_seq(const struct trail *t); /* any thread */
/* Of the lines that are appended; NULL: they are not hashed. */
struct leaves *trail_leaves(const struct trail *t);
/* Segment and offset of the durable mark (for ring_release). */
void trail_durable_mark(const struct trail *t, uint64_t *segment, uint64_t *offset);

/* The range that trail_expire would remove now, or 0: recorded before it is gone. */
int trail_expirable(struct trail *t, int64_t before_ns, uint64_t max_size, uint64_t keep_seq,
    uint64_t *first, uint64_t *last, struct err *err);
/* Before an event tells that all up to this number goes. */
int trail_expiry_foretold(struct trail *t, uint64_t last, struct err *err);
/* That event is durable, and has this number: where the log is signed, the next start believes in the
 * removal if that line was signed. */
void trail_expiry_recorded(struct trail *t, uint64_t seq);
/* Of what such events told of, by this run or one before it, this has not gone.  False: nothing.  Where
 * it is to stay, an event has to say so; when that is durable, trail_expiry_retracted. */
bool trail_expiry_left(const struct trail *t, uint64_t *first, uint64_t *last);
int trail_expiry_retracted(struct trail *t, struct err *err);
/* Remove sealed segments that are older than `before_ns` (or, with max_size, the oldest ones) and
 * wholly below `keep_seq`, the oldest first, a power cut included.  Fills the removed range (0 when
 * none).  -1 also when lines beside them were taken away of which nobody was told (trail_find_untold):
 * they would count as expired. */
int trail_expire(struct trail *t, int64_t before_ns, uint64_t max_size, uint64_t keep_seq,
    uint64_t *first, uint64_t *last, struct err *err);
/* The wall clock was put forward (or back) by so much: the segments' files are as much younger, though
 * none than now. */
int trail_shift_times(struct trail *t, int64_t ns, struct err *err);
/* Numbers up to this one have expired. */
uint64_t trail_expired(const struct trail *t);

/* Segments with lines of another log alone: how many that were not there when this was last asked.
 * Once the event that tells of them is durable they are put aside, as <segment>.foreign; -1: not all. */
int trail_find_foreign(struct trail *t, size_t *n, struct err *err);
int trail_put_foreign_aside(struct trail *t, struct err *err);

/* A sealed segment that is another file, or of another length, than when trail_find_untold looked; it is
 * told once, and looked at anew. */
bool trail_find_changed(struct trail *t, uint64_t *segment);

/* The first numbers above `from` without a line, because a whole segment or a segment's end is gone,
 * that have not expired and of which nobody was told: 1, 0: there are none, -1.  What was looked at to
 * the end is looked at once, but for segments that go. */
int trail_find_untold(
    struct trail *t, uint64_t from, uint64_t *first, uint64_t *last, struct err *err);
/* The event that tells of them is appended: kept from the next trail_recovery_recorded on. */
void trail_told(struct trail *t, uint64_t first, uint64_t last);
/* What was told by then, by earlier runs too; of more than that many the lowest are forgotten, and told
 * again by the next start. */
#define TRAIL_TOLD_MAX 8
size_t trail_told_ranges(const struct trail *t, struct trail_range out[TRAIL_TOLD_MAX]);

/* The first numbers above `from` that have no line because a whole segment or a segment's end is
 * gone; 0 when none. */
int trail_find_gap(
    const struct trail *t, uint64_t from, uint64_t *first, uint64_t *last, struct err *err);

/* Copy the damage that a reader met at these numbers to <segment>.corrupt. */
int trail_quarantine(struct trail *t, uint64_t first, uint64_t last, struct err *err);

/* ---- what must be kept ---- */

#define TRAIL_HOLDS_MAX	     64
#define TRAIL_HOLD_NAME_SIZE 65

/* Numbers that are not removed.  Segments go from the oldest on, so what is younger stays too. */
struct trail_hold {
	char name[TRAIL_HOLD_NAME_SIZE]; /* letters, digits, '-', '_', '.' */
	uint64_t first, last;
};

struct trail_holds {
	size_t n;
	struct trail_hold holds[TRAIL_HOLDS_MAX];
	struct err damage; /* not "": the file cannot be believed, and everything is held */
};

/* They outlive the process: durable in the file `holds` when the call returns.  What is added is to be
 * recorded then, what is removed before, so that no event tells of a removal that a hold forbids.  When
 * both are durable, _settled: else the next start finds that a change was under way.  One thread (not
 * only the writer's); it alone may read trail_holds. */
int trail_hold_add(struct trail *t, const struct trail_hold *hold, struct err *err);
int trail_hold_find(
    const struct trail *t, const char *name, struct trail_hold *out, struct err *err);
int trail_hold_remove(struct trail *t, const char *name, struct err *err);
/* Where they cannot be believed: there are none any more. */
int trail_holds_reset(struct trail *t, struct err *err);
bool trail_holds_are_settled(struct trail *t);
int trail_holds_settled(struct trail *t, struct err *err);
const struct trail_holds *trail_holds(const struct trail *t);

#define TRAIL_TIME_SIZE 28 /* as clock_event_time writes it, with a NUL */

/* A range of numbers that has all that was numbered between two times: whole segments.  After now
 * `last` is the highest number there can be.  The same thread. */
int trail_seq_range(struct trail *t, const char *from, const char *to, uint64_t *first,
    uint64_t *last, struct err *err);

/* What a run removes, kept in the file `retention` for the next one to compare. */
struct trail_retention {
	uint64_t age_s;
	uint64_t max_size; /* bytes; 0: none */
};

/* Does this retention remove something that the other one keeps, for its age or for the size? */
bool trail_keeps_shorter(const struct trail_retention *r, const struct trail_retention *than);
bool trail_keeps_smaller(const struct trail_retention *r, const struct trail_retention *than);

/* False: there was no run before, or nobody knows. */
bool trail_load_retention(struct trail *t, struct trail_retention *out);
int trail_save_retention(struct trail *t, const struct trail_retention *r, struct err *err);

struct trail_stats {
	uint64_t bytes, segments, free_bytes;
};
void trail_stats(const struct trail *t, struct trail_stats *out); /* any thread */

/* ---- readers: any process, any thread, one reader a thread ---- */

struct trail_reader;
struct trail_member;

/* Open for reading; from_seq 0: the first line there is. */
int trail_reader_open(
    const char *dir, uint64_t from_seq, struct trail_reader **out, struct err *err);
/* The directory that is open, wherever it may be now. */
int trail_reader_open_at(int dirfd, uint64_t from_seq, struct trail_reader **out, struct err *err);
void trail_reader_close(struct trail_reader *r);

/*
 * The next durable line, without its newline, borrowed until the next call: 1, 0 when there is none
 * yet, -1 on an error.  A gap (expired or corrupt lines) is stepped over: compare *seq.
 */
int trail_reader_next(struct trail_reader *r, struct slice *line, uint64_t *seq, struct err *err);

/* Pass over the lines up to this number: durable ones of segments without damage. */
int trail_reader_skip(struct trail_reader *r, uint64_t seq, struct err *err);

/* The trail member of that line, until the next call. */
const struct trail_member *trail_reader_member(const struct trail_reader *r);

/* Whether a block that the disk fails to give (EIO) is damage that is stepped over; else it is an
 * error, and the next call may do better. */
void trail_reader_step_over(struct trail_reader *r, bool unreadable);

/* Pieces of damage stepped over so far: newline-terminated, or what is left at a segment's end. */
uint64_t trail_reader_corrupt(const struct trail_reader *r);
/* To be told of them by trail_reader_next: these numbers have no line where they stand; bytes between two
 * lines have the number of the second one. */
typedef void (*trail_corrupt_fn)(void *arg, uint64_t first, uint64_t last);
void trail_reader_on_corrupt(struct trail_reader *r, trail_corrupt_fn told, void *arg);

/* The durable number that readers of this directory may go up to. */
uint64_t trail_reader_durable(const struct trail_reader *r);

/* The number of the first durable line whose trail.at is not before `at` (of that format), or the one
 * after the mark: by halving, so that a line written before the clock was put back may be passed
 * over.  -1 on an error. */
int trail_find_time(int dirfd, const char *at, uint64_t *seq, struct err *err);

/* Check and take apart a line's trail member: the number and time; -1 when the line is malformed
 * or its sum is wrong. */
struct trail_member {
	uint64_t seq;
	struct slice at, boot, log;
	size_t event_len; /* the line up to `,"trail":` */
};
int trail_parse_line(struct slice line, struct trail_member *out);

/* The value of a top-level member of a line, or of an object that is such a value, as it stands; or
 * empty.  The line may lack its closing brace. */
struct slice trail_line_value(struct slice line, struct slice key);
/* The same of a string, between the quotes and not unescaped. */
struct slice trail_line_string(struct slice line, struct slice key);
/* The offset of the first top-level member whose name does not sort before `key`, or, where all do, of
 * what ends the line. */
size_t trail_line_place(struct slice line, struct slice key);

/* Numbers that a line with this start (one of those here) tells of: `first` and `last` of its details. */
#define TRAIL_EXPIRE_START     SLICE("{\"action\":\"keytrail.expire\",")
#define TRAIL_KEEP_START       SLICE("{\"action\":\"keytrail.keep\",")
#define TRAIL_HOLD_START       SLICE("{\"action\":\"keytrail.hold\",")
#define TRAIL_CHECKPOINT_START SLICE("{\"action\":\"keytrail.checkpoint\"")
#define TRAIL_TAMPER_START     SLICE("{\"action\":\"keytrail.tamper\",")
#define TRAIL_CORRUPT_START    SLICE("{\"action\":\"keytrail.corrupt\",")
#define TRAIL_RECOVER_START    SLICE("{\"action\":\"keytrail.recover\",")
enum leaf_kind trail_line_kind(struct slice line);
bool trail_line_range(struct slice line, struct slice start, struct trail_range *out);

/* The closing event of an intent's call of which nothing more is known: outcome unknown, reason
 * restart, severity at least warning.  Both lines lack their closing brace; `out` has room for one
 * byte more than the line.  The length. */
size_t trail_line_closing(struct slice intent, char *out);

/* ---- auditors: every piece of every segment up to the durable mark, nothing stepped over ---- */

struct trail_walk;

enum trail_walk_kind {
	TRAIL_WALK_LINE,    /* a valid line with a number of its segment */
	TRAIL_WALK_DAMAGE,  /* bytes that are no line */
	TRAIL_WALK_FOREIGN, /* a line of another log */
	TRAIL_WALK_LEFTOVER, /* a line at or above the next segment's first number: no part of the log, and
			      * none that keytrail leaves there */
};

struct trail_walk_item {
	enum trail_walk_kind kind;
	uint64_t segment, at; /* which, and the offset in it */
	struct slice line;    /* borrowed until the next call */
	struct trail_member member;
};

int trail_walk_open(const char *dir, struct trail_walk **out, struct err *err);
void trail_walk_close(struct trail_walk *w);		 /* NULL is allowed */
uint64_t trail_walk_durable(const struct trail_walk *w); /* as it was when the walk was opened */
const struct trail_log *trail_walk_log(const struct trail_walk *w);
bool trail_walk_clean(const struct trail_walk *w); /* the writer had ended well */
/* 1, 0 at the mark, -1. */
int trail_walk_next(struct trail_walk *w, struct trail_walk_item *out, struct err *err);

/* Put `"recovered":true` at its sorted place among a line's members, unless it is there.  `out` has
 * room for TRAIL_RECOVERED_MAX bytes more than the line.  The length. */
#define TRAIL_RECOVERED_MAX 17
size_t trail_line_recovered(struct slice line, char *out);

#endif
