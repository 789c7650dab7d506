/*
 * verify: is the trail in a directory what was signed, and is all of it there?
 *
 * Two verdicts.  *Unaltered*: every line up to the checkpoint's size is the one that was signed.
 * *Complete*: every number has its line, but for those that were signed as lost, or that have expired
 * as the log itself says.  Lines before a log's first one are of an earlier log, which was given up
 * because the directory did not hold what was signed: such a trail is not complete.  Where there is
 * no checkpoint of a given key, neither can be told.  Lines
 * after the checkpoint are looked at as far as one can without a signature.
 *
 * Reads the directory as any reader: the writer may be at work.  Memory does not grow with the trail.
 */
#ifndef KEYTRAIL_VERIFY_H
#define KEYTRAIL_VERIFY_H

#include "keytrail/checkpoint.h"
#include "keytrail/err.h"

#include <stdarg.h>

enum verify_verdict { VERIFY_UNKNOWN, VERIFY_YES, VERIFY_NO };

enum verify_kind { VERIFY_ALTERED, VERIFY_INCOMPLETE, VERIFY_CANNOT_TELL, VERIFY_NOTE };

#define VERIFY_FINDINGS_MAX 32
#define VERIFY_TEXT_MAX	    320

struct verify_finding {
	enum verify_kind kind;
	char text[VERIFY_TEXT_MAX];
};

struct verify_report {
	enum verify_verdict unaltered, complete;
	struct checkpoint checkpoint; /* the one that was checked against; size 0: none */
	uint64_t first, last;	      /* events covered; 0: none */
	uint64_t unsigned_lines;      /* after the checkpoint */
	uint64_t lost;	 /* numbers without a line, torn by a power cut before they were promised */
	uint64_t losses; /* events without a number, as keytrail.loss says */
	uint64_t rotations; /* changes of the key, signed by the old one and the new */
	uint64_t expired;   /* events up to here have expired */
	bool cannot_tell;   /* something of what was asked could not be judged */
	uint64_t anchors;   /* checkpoints kept elsewhere that the log agrees with */
	size_t nfindings;   /* more than VERIFY_FINDINGS_MAX: the rest is not kept */
	struct verify_finding findings[VERIFY_FINDINGS_MAX];
};

struct verify_opts {
	const char *dir;
	const struct checkpoint_key *keys;
	size_t nkeys;
	struct slice since; /* a checkpoint kept elsewhere */
	bool has_since;
	/* A file with checkpoints kept elsewhere: lines of the own log or of a sink
	 * ("note":"<base64>" or note=<base64>).  At least one of this log is wanted.  -1: none. */
	int anchors_fd;
};

/* -1: the trail could not be read. */
int verify_trail(const struct verify_opts *opts, struct verify_report *out, struct err *err);

/* Add a finding; it has its part in the verdicts. */
void verify_report_add(struct verify_report *r, enum verify_kind kind, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

/* The note in a line as struct verify_opts says, decoded: 1, 0 when there is none. */
int verify_find_note(struct slice line, char out[CHECKPOINT_NOTE_MAX], size_t *n);

#endif
