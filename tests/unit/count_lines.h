/* count_lines: how many lines of a trail have a text in them; the numbers of all have no gap. */
#ifndef KEYTRAIL_TESTS_COUNT_LINES_H
#define KEYTRAIL_TESTS_COUNT_LINES_H

#include "keytrail/trail.h"

static unsigned
count_lines(const char *dir, const char *text)
{
	struct err err = { "" };
	struct trail_reader *r;
	struct slice line;
	uint64_t seq, last = 0;
	unsigned n = 0;
	int rc;

	if (trail_reader_open(dir, 0, &r, &err) == -1)
		fail_msg("%s", err.msg);
	while ((rc = trail_reader_next(r, &line, &seq, &err)) == 1) {
		assert_true(last == 0 || seq == last + 1);
		last = seq;
		n += memmem(line.p, line.n, text, strlen(text)) != NULL;
	}
	if (rc == -1)
		fail_msg("%s", err.msg);
	trail_reader_close(r);
	return n;
}

#endif
