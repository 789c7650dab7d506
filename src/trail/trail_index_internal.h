/*
 * trail_index_internal: the file of an index, for what makes it, asks it and tries it.
 *
 * A head, the values of all members but correlationId, and the calls: a line's correlation ID and its
 * number.  Values and calls are sorted.  Calls are in BUCKETS parts by the highest byte of the hash,
 * each sealed for itself, so that one of them is read.  Numbers are the processor's own.
 */
#ifndef KEYTRAIL_TRAIL_INDEX_INTERNAL_H
#define KEYTRAIL_TRAIL_INDEX_INTERNAL_H

#include "keytrail/keyhash.h"
#include "keytrail/trail_index.h"
#include "trail_internal.h"

#define INDEX_BUCKETS	256
#define INDEX_MAGIC	"ktindex1"
#define INDEX_NAME_SIZE 40

struct index_name {
	char s[INDEX_NAME_SIZE]; /* from the trail's directory on */
};

/* What a segment was when it was read. */
struct index_file {
	uint64_t size, inode;
	int64_t changed_ns;
};

struct stat;

struct index_head {
	char magic[8];
	char log[40];
	uint64_t first, last; /* last < first: it is not whole */
	struct index_file file;
	char earliest[CLOCK_EVENT_TIME_SIZE], latest[CLOCK_EVENT_TIME_SIZE];
	uint64_t nvalues, values_seal;
	struct index_bucket {
		uint64_t end; /* number of calls up to here */
		uint64_t seal;
	} buckets[INDEX_BUCKETS];
	uint64_t seal; /* of all before it */
};

/* Numbers that are sorted and held once, when it is asked for. */
struct index_set {
	uint64_t *v;
	size_t n, room;
};

/* What is known of one segment and one query. */
struct index_verdict {
	uint64_t first, last, end; /* the segment's numbers; where its successor begins */
	enum { INDEX_UNKNOWN, INDEX_NONE, INDEX_LISTED, INDEX_ANY } kind;
	struct index_set lines; /* INDEX_LISTED: these, by their place in the segment */
};

struct index_maker {
	struct trail_list list; /* of the round */
	size_t next;
	bool later; /* something could not be done yet */
	uint64_t
	    done_mark; /* the segment of the mark in the last round that left nothing; 0: none */
	int fd;	       /* the segment that is read, or -1 */
	struct trail_cursor c;
	struct trail_log log;
	struct index_head head;
	struct index_set values, calls;
};

struct trail_index {
	int dirfd;
	struct keyhash *hash; /* NULL: there is no key yet */
	struct index_maker make;
	/* of the query: */
	struct trail_index_query query;
	bool asked;
	struct trail_log log;
	struct trail_mark mark;
	struct trail_list list;
	struct index_verdict verdict;
};

/* ---- trail_index ---- */

struct index_name trail_index_name(uint64_t first);
struct index_file trail_index_file(const struct stat *st);
/* The key in index/key, if there is one; make: or a new one. */
int trail_index_load_key(struct trail_index *ix, bool make, struct err *err);
uint64_t trail_index_hash(struct trail_index *ix, struct slice text);
/* The higher half of the hash, and the line's place in the segment. */
uint64_t trail_index_call(struct trail_index *ix, struct slice correlation, uint64_t place);

int trail_index_add(struct index_set *s, uint64_t v);
void trail_index_sort(struct index_set *s);
void trail_index_set_free(struct index_set *s);
/* Where the first one stands that is not below v. */
size_t trail_index_find(const struct index_set *s, uint64_t v);

/* The seal of a head, for all of it but the seal. */
uint64_t trail_index_seal_head(struct trail_index *ix, const struct index_head *h);
/* True: it is the head of this segment's index, made for this log. */
bool trail_index_read_head(struct trail_index *ix, int fd, const struct trail_log *log,
    uint64_t first, struct index_head *out);
/* n numbers, from the at-th after the head on; false: they are not those that were sealed. */
bool trail_index_read(
    struct trail_index *ix, int fd, uint64_t at, uint64_t n, uint64_t seal, struct index_set *out);

#endif
