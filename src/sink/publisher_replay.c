/* Where sinks are in the trail, and how one is sent back. */

#include "publisher_impl.h"

#include "keytrail/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void
name_cursor(const char *sink, char out[80])
{
	snprintf(out, 80, "cursor.%.63s", sink);
}

bool
publisher_position(int dirfd, const char *sink, uint64_t *seq)
{
	char name[80];
	struct line_id at;

	name_cursor(sink, name);
	if (!cursor_look(dirfd, name, &at))
		return false;
	*seq = at.seq;
	return true;
}

/* A number from 1 on, or the first event at or after a time. */
static int
read_from(int dirfd, const char *from, uint64_t *seq, struct err *err)
{
	char at[CLOCK_EVENT_TIME_SIZE];

	if (slice_to_u64(slice_of(from), seq) == 0 && *seq > 0)
		return 0;
	if (clock_parse_time(from, false, at) == -1)
		return err_set(err, "from is the number of an event from 1 on, or a time like "
				    "2026-11-22 and 2026-11-22T20:09:08Z");
	return trail_find_time(dirfd, at, seq, err);
}

/* The position before that event, or, where it has expired, before the first one there is. */
static int
position_before(int dirfd, const char *from, struct line_id *out, struct err *err)
{
	uint64_t seq;
	int rc;

	*out = (struct line_id){ .seq = 0 };
	if (read_from(dirfd, from, &seq, err) == -1)
		return -1;
	rc = publisher_look(dirfd, seq, true, out, err);
	if (rc == 0)
		return err_set(err, "%s: no event is there yet", from);
	if (rc == -1)
		return -1;
	seq = out->seq - 1;
	if (seq > 0 && publisher_look(dirfd, seq, true, out, err) == -1)
		return -1;
	out->seq = seq;
	return 0;
}

/* What lies between would never be delivered. */
static int
check_not_ahead(const struct line_id *at, uint64_t reached, const char *from, struct err *err)
{
	return at->seq <= reached ? 0
				  : err_set(err,
					"%s: the sink is at event %" PRIu64
					", and gets what follows without a replay",
					from, reached);
}

/* A new cursor may begin anywhere; one that is damaged, or of another log, begins with all. */
static uint64_t
reached_by(const struct cursor *c, enum cursor_found found, const char *log)
{
	if (found == CURSOR_NEW)
		return UINT64_MAX;
	return strcmp(c->at.log, log) == 0 ? c->at.seq : 0;
}

int
publisher_rewind(int dirfd, const char *sink, const char *from, uint64_t *first, struct err *err)
{
	char name[80];
	enum cursor_found found;
	struct cursor c;
	struct line_id at;
	int rc = 0;

	name_cursor(sink, name);
	if (position_before(dirfd, from, &at, err) == -1 ||
	    cursor_open(dirfd, name, &c, &found, err) == -1)
		return -1;
	if (check_not_ahead(&at, reached_by(&c, found, at.log), from, err) == -1)
		rc = -1;
	else if (cursor_write(&c, &at) == -1 || cursor_sync(&c) == -1)
		rc = err_set_errno(err, "%s: write", name);
	cursor_close(&c);
	*first = at.seq + 1;
	return rc;
}

int
publisher_replay(
    struct publisher *p, const char *sink, const char *from, uint64_t *first, struct err *err)
{
	struct place *s = publisher_find_place(p, sink);
	struct line_id at;
	int rc;

	if (s == NULL)
		return err_set(err, "there is no sink \"%.63s\"", sink);
	if (position_before(p->dirfd, from, &at, err) == -1)
		return -1;
	pthread_mutex_lock(&s->lock);
	if ((rc = check_not_ahead(&at, s->counted, from, err)) == 0) {
		/* From now on, and nothing raises it before the thread has the order. */
		if (at.seq + 1 < atomic_load(&s->keep))
			atomic_store(&s->keep, at.seq + 1);
		s->replay = true;
		s->replay_from = at;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	*first = at.seq + 1;
	return rc;
}
