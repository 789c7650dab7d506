/* What a sink's thread reads and keeps: the trail, the batch, the quarantine. */

#include "publisher_impl.h"

#include "keytrail/clock.h"
#include "keytrail/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_TRIES 10

static void
copy_id(char out[TRAIL_ID_SIZE], struct slice id)
{
	size_t n = id.n < TRAIL_ID_SIZE ? id.n : TRAIL_ID_SIZE - 1;

	memcpy(out, id.p, n);
	out[n] = '\0';
}

/* ---- the cursor's line ---- */

/* The first line at or after `seq`: 1, 0 when there is none, -1. */
int
publisher_look(int dirfd, uint64_t seq, bool step_over, struct line_id *out, struct err *err)
{
	const struct trail_member *member;
	struct trail_reader *r;
	struct slice line;
	int rc;

	if (trail_reader_open_at(dirfd, seq, &r, err) == -1)
		return -1;
	trail_reader_step_over(r, step_over);
	rc = trail_reader_next(r, &line, &out->seq, err);
	if (rc == 1) {
		member = trail_reader_member(r);
		copy_id(out->log, member->log);
		copy_id(out->boot, member->boot);
	}
	trail_reader_close(r);
	return rc;
}

/* A disk may recover; what it has not given in so many tries, with the pauses between them most of a
 * minute, is lost: the sink must not wait for it for ever. */
static bool
gives_up(const struct place *s)
{
	return s->unread >= READ_TRIES;
}

static int
look(struct place *s, uint64_t seq, struct line_id *out, struct err *err)
{
	int rc = publisher_look(s->p->dirfd, seq, gives_up(s), out, err);

	s->unread = rc == -1 ? s->unread + 1 : 0;
	return rc;
}

void
publisher_begin_at(struct place *s, uint64_t seq)
{
	pthread_mutex_lock(&s->lock);
	s->begin = s->counted = seq;
	pthread_mutex_unlock(&s->lock);
}

static void
start_at(struct place *s, uint64_t seq)
{
	s->pos.seq = seq;
	s->dirty = true;
	publisher_begin_at(s, seq);
	atomic_store(&s->keep, seq + 1);
}

static void
start_over(struct place *s)
{
	log_error(s->p->log, "cursor_foreign",
	    "sink %s: %s is of another trail; all that this one holds is delivered", s->name,
	    s->cursor_name);
	s->pos.log[0] = s->pos.boot[0] = '\0';
	start_at(s, 0);
}

/* The trail ends below the cursor: it was put back to an earlier state.  What it holds of the same
 * log was delivered before; another log is a new one. */
static int
settle_rolled_back(struct place *s, uint64_t durable, struct err *err)
{
	struct line_id id;
	int rc = durable == 0 ? 0 : look(s, durable, &id, err);

	if (rc == -1)
		return -1;
	if (rc == 0 || strcmp(id.log, s->pos.log) != 0) {
		start_over(s);
		return 0;
	}
	log_error(s->p->log, "trail_rolled_back",
	    "sink %s: the trail ends at event %" PRIu64 ", the cursor was at %" PRIu64, s->name,
	    id.seq, s->pos.seq);
	s->pos = id;
	start_at(s, id.seq);
	return 0;
}

/* log, boot and number together are a line's identity: is the one that the cursor names there? */
static int
verify_cursor(struct place *s, struct err *err)
{
	uint64_t durable = atomic_load(&s->p->durable);
	struct line_id id;
	int rc;

	if (s->pos.seq == 0)
		return 0;
	if (s->pos.seq > durable)
		return settle_rolled_back(s, durable, err);
	if ((rc = look(s, s->pos.seq, &id, err)) == -1)
		return -1;
	/* A line that has expired since cannot be compared. */
	if (rc == 1 && id.seq == s->pos.seq &&
	    (strcmp(id.log, s->pos.log) != 0 || strcmp(id.boot, s->pos.boot) != 0))
		start_over(s);
	return 0;
}

int
publisher_open_reader(struct place *s, struct err *err)
{
	if (s->verify && verify_cursor(s, err) == -1)
		return -1;
	s->verify = false;
	if (trail_reader_open_at(
		s->p->dirfd, s->pos.seq == 0 ? 0 : s->pos.seq + 1, &s->reader, err) == -1)
		return -1;
	trail_reader_on_corrupt(s->reader, s->p->corrupt, s->p->corrupt_arg);
	return 0;
}

void
publisher_close_reader(struct place *s)
{
	trail_reader_close(s->reader);
	s->reader = NULL;
}

/* ---- the batch ---- */

/* Few lines say so anywhere: only those are taken apart. */
static bool
is_intent(struct slice line)
{
	static const struct slice text = SLICE_INIT("\"kind\":\"intent\"");

	return memmem(line.p, line.n, text.p, text.n) != NULL &&
	       slice_equal(trail_line_string(line, SLICE("kind")), SLICE("intent"));
}

/* What had expired before the sink began at the first line there is, it does not miss. */
static void
note_gap(struct place *s, uint64_t seq)
{
	uint64_t last = s->batch.nread > 0 ? s->batch.last.seq : s->pos.seq;

	if (last == 0 && s->counted == 0)
		publisher_begin_at(s, seq - 1);
	if (last == 0 || seq == last + 1)
		return;
	if (seq - 1 > s->counted)
		s->batch.nmissing += seq - 1 - (last > s->counted ? last : s->counted);
	log_error(s->p->log, "sink_gap",
	    "sink %s: events %" PRIu64 " to %" PRIu64 " are no longer in the trail", s->name,
	    last + 1, seq - 1);
}

static int
keep_line(struct batch *b, struct slice line, uint64_t seq)
{
	b->offsets[b->n] = buf_size(&b->text);
	if (buf_append_slice(&b->text, line) == -1)
		return -1;
	b->seqs[b->n] = seq;
	b->lines[b->n++].n = line.n;
	return 0;
}

static int
add_line(struct place *s, struct slice line, uint64_t seq, struct err *err)
{
	const struct trail_member *member = trail_reader_member(s->reader);
	struct batch *b = &s->batch;
	int64_t at_ns;

	note_gap(s, seq);
	if (!s->cfg->intents && is_intent(line))
		b->nfiltered += seq > s->counted;
	else if (keep_line(b, line, seq) == -1)
		return err_set(err, "memory is short");
	if (b->nread++ == 0 && clock_parse_event_time(member->at, &at_ns) == 0)
		atomic_store(&s->oldest_ns, at_ns);
	b->last.seq = seq;
	copy_id(b->last.log, member->log);
	copy_id(b->last.boot, member->boot);
	return 0;
}

void
publisher_clear(struct place *s)
{
	struct batch *b = &s->batch;

	buf_consume(&b->text, buf_size(&b->text));
	b->n = b->first = 0;
	b->nread = 0;
	b->nfiltered = b->nmissing = b->nrejected = 0;
	atomic_store(&s->oldest_ns, 0);
}

bool
publisher_batch_full(const struct batch *b)
{
	return b->nread == BATCH_LINES || buf_size(&b->text) >= BATCH_BYTES;
}

int
publisher_fill(struct place *s, struct err *err)
{
	struct batch *b = &s->batch;
	struct slice line;
	uint64_t seq;
	int got = 1;

	publisher_clear(s);
	trail_reader_step_over(s->reader, gives_up(s));
	s->seen = atomic_load(&s->p->durable);
	while (got == 1 && !publisher_batch_full(b))
		if ((got = trail_reader_next(s->reader, &line, &seq, err)) == 1)
			got = add_line(s, line, seq, err) == -1 ? -1 : 1;
	for (size_t i = 0; i < b->n; i++)
		b->lines[i].p = b->text.mem + b->text.off + b->offsets[i];
	s->unread = got == -1 ? s->unread + 1 : 0;
	if (got != -1)
		return 0;
	/* The line that failed was taken from the reader: it is read again, after what came before
	 * it is done with. */
	publisher_close_reader(s);
	return b->nread > 0 ? 0 : -1;
}

/* ---- the quarantine ---- */

static int
append_line(int fd, struct slice line)
{
	struct buf text = BUF_INIT;
	struct stat st;
	int rc = -1;

	if (fstat(fd, &st) == -1 || buf_append_slice(&text, line) == -1 ||
	    buf_append(&text, "\n", 1) == -1)
		goto done;
	if (file_write(fd, text.mem, buf_size(&text), FILE_HERE) == 0 && fsync(fd) == 0)
		rc = 0;
	else if (ftruncate(fd, st.st_size) == -1)
		rc = -1; /* the line may stand there twice, or in part and then whole */
done:
	buf_fini(&text);
	return rc;
}

int
publisher_quarantine(struct place *s, struct slice line, struct err *err)
{
	char name[96];
	int fd, rc;

	snprintf(name, sizeof(name), "quarantine.%s.jsonl", s->name);
	fd =
	    openat(s->p->dirfd, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1)
		return err_set_errno(err, "%s: open", name);
	rc = append_line(fd, line);
	if (rc == 0)
		rc = fsync(s->p->dirfd);
	if (rc == -1)
		err_set_errno(err, "%s: write", name);
	close(fd);
	return rc;
}
