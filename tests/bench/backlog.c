/*
 * backlog DIR COUNT: a trail of so many events in DIR, each the line on standard input (up to its
 * `trail`) with an id of its own.
 */
#include "keytrail/clock.h"
#include "keytrail/trail.h"

#include <stdio.h>
#include <stdlib.h>

#define SEGMENT_BYTES ((uint64_t)64 << 20)
#define SYNC_EVERY    10000
#define DIGITS	      12 /* of the id that tell them apart */

static _Noreturn void
give_up(const char *why)
{
	fprintf(stderr, "backlog: %s\n", why);
	exit(1);
}

int
main(int argc, char **argv)
{
	struct trail_opts opts = {
		.create = true, .segment_size = SEGMENT_BYTES, .room = SEGMENT_BYTES
	};
	uint64_t count = argc == 3 ? strtoull(argv[2], NULL, 10) : 0, seq;
	char line[TRAIL_LINE_MAX], digits[DIGITS + 1], *end;
	struct trail_recovery rec;
	struct trail *t;
	struct err err;

	if (count == 0)
		give_up("usage: backlog DIR COUNT < LINE");
	if (fgets(line, sizeof(line), stdin) == NULL || (end = strstr(line, ",\"trail\":")) == NULL)
		give_up("no event");
	*end = '\0';
	if ((end = strstr(line, "\",\"initiator\":")) == NULL || end - line <= DIGITS)
		give_up("no id");
	opts.dir = argv[1];
	if (trail_open(&opts, &t, &rec, &err) == -1)
		give_up(err.msg);
	for (uint64_t n = 1; n <= count; n++) {
		snprintf(digits, sizeof(digits), "%012llu", (unsigned long long)n);
		memcpy(end - DIGITS, digits, DIGITS);
		if (trail_append(t, slice_of(line), clock_wall_ns(), &seq, &err) == -1)
			give_up(err.msg);
		if ((n % SYNC_EVERY == 0 || n == count) &&
		    (trail_reserve(t, &err) == -1 || trail_write(t, &err) == -1 ||
			trail_sync(t, &err) == -1))
			give_up(err.msg);
	}
	trail_close(t, true);
	return 0;
}
