/*
 * trail_internal: what the files of module trail share.
 */
#ifndef KEYTRAIL_TRAIL_INTERNAL_H
#define KEYTRAIL_TRAIL_INTERNAL_H

#include "keytrail/buf.h"
#include "keytrail/clock.h"
#include "keytrail/trail.h"

#include <pthread.h>
#include <stdatomic.h>

#define TRAIL_SEQ_END	   (1ULL << 53) /* JSON's integers end here */
#define TRAIL_NAME_END	   (TRAIL_SEQ_END - (1ULL << 40))
#define TRAIL_BELIEVED_END (1ULL << 52) /* a jump beyond is forged; it must not use numbers up */

/* ---- trail_state: the mapped page ---- */

struct trail_mark {
	uint64_t seq;	  /* all up to this number is durable */
	uint64_t segment; /* the segment, by its first number, */
	uint64_t offset;  /* and the offset in it where that number's line ends */
};

struct trail_state;

/* Numbers without a line that nobody need be told of any more. */
struct trail_gone {
	uint64_t expired; /* up to this one they were removed for their age or size, */
	uint64_t told_by; /* as the line of this number says; */
	uint64_t said;	  /* up to this one lines say, or may say, that they are; or 0 */
	uint32_t n;
	struct trail_range told[TRAIL_TOLD_MAX]; /* ascending, apart */
};

/* How many holds the file has, and its CRC: 0 where there is none.  Of a file that is about to change
 * both are known, and whoever reads it then finds one of them. */
struct trail_holds_sums {
	uint64_t was, is;
};

/* What the page says, whoever wrote it. */
struct trail_state_info {
	bool valid;
	bool clean;
	unsigned rings; /* that hold lines which the trail does not have yet */
	struct trail_log log;
	bool unrecorded; /* what recovery found is in no event yet: */
	struct trail_recovery found;
	struct trail_gone gone;
	struct trail_holds_sums holds;
	char boot[TRAIL_ID_SIZE];
	struct trail_mark mark;
};

int trail_state_load(int dirfd, struct trail_state_info *out, struct err *err);
/* Make the page anew with this content (a writer), or map the one there is (a reader). */
int trail_state_create(
    int dirfd, const struct trail_state_info *info, struct trail_state **out, struct err *err);
int trail_state_map(int dirfd, struct trail_state **out, struct err *err);
/* Its name is another file's, or nobody's: another page of this name in its place. */
int trail_state_replace(
    int dirfd, const struct trail_state_info *info, struct trail_state **s, struct err *err);
bool trail_state_is_named(const struct trail_state *s, int dirfd);
void trail_state_unmap(struct trail_state *s); /* NULL is allowed */
/* When its file was cut: the page anew.  True when it was. */
bool trail_state_mend(struct trail_state *s, const struct trail_state_info *info);
/* Whose lines they are up to any mark that was read before; false: nobody knows. */
bool trail_state_read_log(const struct trail_state *s, struct trail_log *out);
void trail_state_publish(struct trail_state *s, const struct trail_mark *m);
/* False when the page is being overwritten faster than it can be read, or is damaged. */
bool trail_state_read(const struct trail_state *s, struct trail_mark *out);
/* All of the content but the mark. */
int trail_state_identify(
    struct trail_state *s, const struct trail_state_info *info, struct err *err);

/* ---- trail_segment: names, lists, and the pieces of a file ---- */

#define TRAIL_NAME_SIZE 48
struct trail_name {
	char s[TRAIL_NAME_SIZE];
};
struct trail_name trail_segment_name(uint64_t first, const char *suffix);

struct trail_list {
	uint64_t *first; /* sorted */
	size_t n;
};
int trail_list_segments(int dirfd, struct trail_list *out, struct err *err);
void trail_list_free(struct trail_list *l);
/* The number at which the segment at index i ends. */
uint64_t trail_list_end(const struct trail_list *l, size_t i);
/* Index of the last segment that begins at or before seq; n when there is none. */
size_t trail_list_find(const struct trail_list *l, uint64_t seq);
bool trail_list_has(const struct trail_list *l, uint64_t first);
void trail_list_drop(struct trail_list *l, size_t i);

/* Walks through a file newline by newline, never past `limit`, which may grow. */
struct trail_cursor {
	int fd;
	uint64_t segment; /* for errors */
	uint64_t at;	  /* offset of the next piece */
	uint64_t limit;
	char *mem;
	size_t start, end; /* read ahead, in mem */
	bool in_long;	   /* inside a piece that is longer than any line */
	/* To be set after _init: */
	bool step_over;		     /* a block that cannot be read is damage, not an error */
	const struct trail_log *log; /* whose lines they are; NULL: nobody knows */
};

struct trail_piece {
	struct slice bytes; /* without the newline */
	uint64_t at, end;
	bool whole; /* ended by a newline, and not too long for a line */
};

#define TRAIL_BLOCK 4096 /* what a disk loses at once */
int trail_cursor_init(struct trail_cursor *c, struct err *err);
void trail_cursor_fini(struct trail_cursor *c);
void trail_cursor_set(
    struct trail_cursor *c, int fd, uint64_t segment, uint64_t at, uint64_t limit);
/* 1, 0 at the limit, -1. */
int trail_cursor_next(struct trail_cursor *c, struct trail_piece *out, struct err *err);
/* Is it a line of the log? */
bool trail_cursor_parse(
    const struct trail_cursor *c, const struct trail_piece *p, struct trail_member *m);
/* For trail_cursor_seek: has it a number below this uint64_t? */
bool trail_member_is_below(const struct trail_member *m, const void *seq);
/* Go near to, and not beyond, the first line that is not `before`; halves the file until what is
 * left is quickly read. */
int trail_cursor_seek(struct trail_cursor *c, int fd, uint64_t segment, uint64_t limit,
    bool (*before)(const struct trail_member *m, const void *arg), const void *arg,
    struct err *err);

/* ---- trail_seen ---- */

struct trail_file; /* what it was when it was looked at */
struct trail_seen {
	struct trail_list names;
	struct trail_file *files; /* as many */
};
int trail_seen_set(struct trail *t, const struct trail_list *l, struct err *err);
void trail_seen_fini(struct trail_seen *s);

/* ---- trail: the writer ---- */

/* The one that is written. */
struct trail_segment {
	int fd; /* -1 after a failure */
	uint64_t first;
	dev_t dev;
	ino_t ino;
	uint64_t offset;    /* end of what is written */
	uint64_t allocated; /* end of what is reserved */
	uint64_t roll_at;   /* offset from which a successor is opened */
	bool gone;	    /* its name is another file's, or nobody's */
};

/* The one before it, after a failure, until what was written in vain is cut off. */
struct trail_failed {
	int fd;		 /* -1: it is */
	uint64_t length; /* of what counts */
};

struct trail {
	int dirfd, lockfd;
	char *path;
	struct trail_io io;
	uint64_t segment_size, room, used;
	gid_t gid; /* of the segments; (gid_t)-1: as it comes */
	struct trail_state *state;
	struct trail_recovery found;
	bool recorded; /* it is in events */
	struct trail_gone gone;
	uint64_t teller;	   /* the line that tells of the removal that comes next */
	struct trail_seen seen;	   /* segments between which nothing was missing */
	struct trail_list foreign; /* segments that were told of and stand there still */
	unsigned harmed;	   /* files that were told of and are not mended; bits */
	unsigned rings;
	struct trail_log log;
	char boot[TRAIL_ID_SIZE];
	char member[128]; /* of every line: from boot to seq */
	size_t nmember;
	char at[CLOCK_EVENT_TIME_SIZE]; /* text of the time at_tick, or "" */
	int64_t at_tick;
	struct buf queue;
	struct leaves *leaves; /* or NULL */
	struct trail_segment open;
	uint64_t ghost; /* a successor that was made in vain and may still be there; 0: none */
	struct trail_failed failed;
	struct err not_rolled; /* why the last successor could not be made, or "" */
	uint64_t tampered; /* the segment that was found gone, 0: none; with it, durable lines: */
	uint64_t tampered_first, tampered_last;
	uint64_t last_seq; /* numbered */
	uint64_t written_seq;
	struct trail_mark mark; /* durable */
	bool cannot_reserve;
	_Atomic uint64_t durable_seq;
	_Atomic uint64_t sealed_bytes, open_bytes, segments;
	pthread_mutex_t holds_lock; /* while segments are removed, and while holds change */
	struct trail_holds holds;
	uint64_t holds_sum; /* of the file that has them, 0: there is none */
	bool holds_unread;  /* the damage is that it could not be read: nobody did that */
	pthread_mutex_t
	    page_lock; /* within it: who changes holds is another thread; of what follows */
	struct trail_state_info page;
};

/* Open a new segment that begins at `first`; the old one stays the caller's. */
int trail_segment_create(struct trail *t, uint64_t first, int *fd, struct err *err);
/* Make fd the open segment, written and durable up to `offset`. */
void trail_segment_use(struct trail *t, int fd, uint64_t first, uint64_t offset);
uint64_t trail_step(const struct trail *t);

/* Can the line be of this log, by the id that it carries?  NULL: nobody knows which one. */
bool trail_owns(const struct trail_log *log, const struct trail_member *m);

/* What the state page is to say. */
struct trail_state_info trail_info(const struct trail *t); /* with the lock of the page */
/* Does the file `log` say what it should; write it. */
bool trail_log_is_there(struct trail *t);
int trail_write_log(struct trail *t, struct err *err);
/* -1: the directory was deleted, and nothing can be put into it. */
int trail_check_directory(const struct trail *t, struct err *err);

/* ---- trail_own ---- */

/* The number of a segment's last line; 0 when damage hides it. */
uint64_t trail_last_number(int dirfd, const struct trail_log *log, uint64_t segment);
/* When its last line was numbered; false: damage hides it. */
bool trail_last_time(int dirfd, const struct trail_log *log, uint64_t segment, int64_t *wall_ns);
/* Is it a file that was put between the lines of a segment?  Not to be asked of the one that is
 * written: after a failed write it may look like one. */
bool trail_is_stray(int dirfd, const struct trail_log *log, const struct trail_list *l, size_t i);
/* Where the segment ends that begins with this number, and as trail_list_find: strays are none. */
uint64_t trail_own_end(
    int dirfd, const struct trail_log *log, const struct trail_list *l, uint64_t segment);
size_t trail_own_find(
    int dirfd, const struct trail_log *log, const struct trail_list *l, uint64_t seq);
/* Take those out of the list that are above the last segment that begins at or before `from`. */
void trail_drop_strays(int dirfd, const struct trail_log *log, uint64_t from,
    const struct trail_mark *mark, struct trail_list *l);

/* ---- trail_gaps ---- */

void trail_gone_add(struct trail_gone *g, uint64_t first, uint64_t last);
/* Are lines gone in front of segment i that nobody was told of?  False where there is no such segment. */
bool trail_is_untold_before(const struct trail *t, const struct trail_list *l, size_t i);

/* ---- trail_foreign ---- */

/* Of the segments that were not there before, those that have lines of another log alone, and strays
 * without any of ours. */
int trail_list_foreign(const struct trail *t, const struct trail_mark *durable,
    struct trail_list *out, struct err *err);
/* All that there is are such segments: not they are from elsewhere, but the files that say whose
 * directory it is. */
bool trail_is_alien(const struct trail *t);
/* How many could be. */
size_t trail_put_aside(struct trail *t, const struct trail_list *l);

/* ---- trail_index ---- */

/* That of a segment that is gone. */
void trail_index_remove(int dirfd, uint64_t first);

/* ---- trail_quarantine ---- */

/* Append bytes [at, end) of a segment to <segment><suffix>. */
int trail_copy_aside(const struct trail *t, int fd, uint64_t first, const char *suffix, uint64_t at,
    uint64_t end, struct err *err);

/* ---- trail_keep ---- */

/* A small file of the directory anew, whole or not at all, durable. */
int trail_replace_file(struct trail *t, const char *name, struct slice text, struct err *err);
void trail_load_holds(struct trail *t, const struct trail_holds_sums *known);
/* When the first line of a segment was numbered: "" when that cannot be read. */
void trail_first_time(const struct trail *t, uint64_t segment, char out[TRAIL_TIME_SIZE]);
/* With holds_lock. */
bool trail_is_held(const struct trail *t, uint64_t first, uint64_t last);
/* Is the file there, as it was written; write it again. */
bool trail_holds_are_there(struct trail *t);
int trail_write_holds(struct trail *t, struct err *err);

/* ---- trail_retain ---- */

/* Remove what is left of the segments that have expired: a kill may have cut their removal short.  What
 * was held since, or cannot be removed, has not expired. */
int trail_finish_expiry(struct trail *t, struct trail_gone *gone, struct err *err);
/* Is there the line that tells of this expiry? */
bool trail_tells_of_expiry(struct trail *t, const struct trail_gone *g);

/* ---- trail_recover ---- */

/* Make segments and rings one whole, and the trail ready to append; t->found.  `given`: by the process
 * that wrote them. */
int trail_recover(
    struct trail *t, const struct trail_state_info *before, bool given, struct err *err);
/* Of so many rings the files must be there.  `given`: those that were given up are still filled. */
int trail_recover_rings(struct trail *t, unsigned expected, bool given, struct err *err);
/* The state page, but for the mark, as t has it now. */
int trail_identify(struct trail *t, bool clean, struct err *err);

#endif
