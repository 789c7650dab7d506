/* The batch of a sink: lines as they were read, events as the sink gets them, what is done with. */

#include "publisher_impl.h"

#include "keytrail/clock.h"
#include "keytrail/file.h"
#include "keytrail/filter.h"
#include "keytrail/format.h"
#include "keytrail/merkle.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- filling ---- */

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
	struct batch *b = &s->batch;
	uint64_t last = b->nread > 0 ? b->last.seq : s->pos.seq;

	if (last == 0 && s->counted == 0)
		publisher_begin_at(s, seq - 1);
	if (last == 0 || seq == last + 1)
		return;
	if (seq - 1 > s->counted)
		b->passed.missing += seq - 1 - (last > s->counted ? last : s->counted);
	log_error(s->p->log, "sink_gap",
	    "sink %s: events %" PRIu64 " to %" PRIu64 " are no longer in the trail", s->name,
	    last + 1, seq - 1);
}

/* The line of b->last, for which there is room.  What publisher_render sets is left as it was. */
static void
keep_line(struct batch *b, struct slice line)
{
	struct backing *kept = &b->backing[b->n];
	struct sink_event *e = &b->events[b->n++];

	kept->id = b->last;
	kept->line_at = buf_size(&b->lines);
	kept->passed = b->passed;
	kept->ready = false;
	buf_append_slice(&b->lines, line);
	b->passed = (struct passed){ 0 };
	e->line.n = line.n;
	e->seq = kept->id.seq;
	e->hash[0] = '\0';
	e->stub = false;
}

int
publisher_add_line(struct place *s, struct slice line, uint64_t seq, struct err *err)
{
	const struct trail_member *member = trail_reader_member(s->reader);
	struct batch *b = &s->batch;
	int64_t at_ns;

	if (buf_reserve(&b->lines, line.n) == -1)
		return err_set(err, "memory is short");
	note_gap(s, seq);
	b->last.seq = b->last.delivered = seq;
	publisher_copy_id(b->last.log, member->log);
	publisher_copy_id(b->last.boot, member->boot);
	if ((!s->cfg->intents && is_intent(line)) || !filter_passes(&s->cfg->filter, line))
		b->passed.filtered += seq > s->counted;
	else
		keep_line(b, line);
	if (b->nread++ == 0 && clock_parse_event_time(member->at, &at_ns) == 0)
		atomic_store(&s->oldest_ns, at_ns);
	return 0;
}

void
publisher_clear(struct place *s)
{
	struct batch *b = &s->batch;

	buf_consume(&b->lines, buf_size(&b->lines));
	buf_consume(&b->texts, buf_size(&b->texts));
	b->n = b->first = 0;
	b->nread = 0;
	b->passed = (struct passed){ 0 };
	atomic_store(&s->oldest_ns, 0);
}

bool
publisher_batch_full(const struct batch *b)
{
	return b->nread == BATCH_LINES || buf_size(&b->lines) >= BATCH_BYTES;
}

/* ---- rendering ---- */

static bool
is_verbatim(const struct place *s)
{
	return s->ops->verbatim && s->cfg->format == CONFIG_FORMAT_ACTIVITY_TRACKER &&
	       !filter_is_set(&s->cfg->filter);
}

static void
hash_line(struct sink_event *e)
{
	static const char digits[] = "0123456789abcdef";
	struct merkle_hash leaf;

	merkle_leaf(e->line, &leaf);
	for (size_t i = 0; i < sizeof(leaf.b); i++) {
		e->hash[2 * i] = digits[leaf.b[i] >> 4];
		e->hash[2 * i + 1] = digits[leaf.b[i] & 15];
	}
	e->hash[64] = '\0';
}

static int
render(struct place *s, struct sink_event *e, struct backing *kept, struct err *err)
{
	struct buf *texts = &s->batch.texts;

	kept->ready = true;
	kept->own_text = e->stub || !is_verbatim(s);
	if (!kept->own_text)
		return 0;
	if (e->hash[0] == '\0')
		hash_line(e);
	kept->text_at = buf_size(texts);
	kept->ready = format_render(s->cfg->format, e, texts, err) == 0;
	e->text.n = buf_size(texts) - kept->text_at;
	return kept->ready ? 0 : -1;
}

int
publisher_render(struct place *s, struct err *err)
{
	struct batch *b = &s->batch;
	uint64_t prev = s->pos.delivered;

	for (size_t i = b->first; i < b->n; i++) {
		struct sink_event *e = &b->events[i];
		struct backing *kept = &b->backing[i];

		e->line.p = buf_slice(&b->lines).p + kept->line_at;
		e->prev = prev;
		e->log = kept->id.log;
		e->boot = kept->id.boot;
		if (!kept->ready && render(s, e, kept, err) == -1)
			return -1;
		prev = kept->id.delivered;
	}
	/* Not before all are there: a buf that grows moves. */
	for (size_t i = b->first; i < b->n; i++) {
		struct sink_event *e = &b->events[i];

		if (b->backing[i].own_text)
			e->text.p = buf_slice(&b->texts).p + b->backing[i].text_at;
		else
			e->text = e->line;
	}
	return 0;
}

/* ---- what is done with ---- */

/* All at once, so that whoever looks sees each number in one place. */
static void
add_counts(struct place *s, const struct publisher_counts *add, uint64_t last)
{
	pthread_mutex_lock(&s->lock);
	s->counts.delivered += add->delivered;
	s->counts.filtered += add->filtered;
	s->counts.rejected += add->rejected;
	s->counts.missing += add->missing;
	if (last > s->counted)
		s->counted = last;
	pthread_mutex_unlock(&s->lock);
}

/* Lines that come again after a rewind are counted once. */
void
publisher_take_done(struct place *s, size_t n)
{
	struct publisher_counts add = { 0 };
	struct batch *b = &s->batch;

	for (size_t end = b->first + n; b->first < end; b->first++) {
		const struct backing *kept = &b->backing[b->first];
		bool first_time = kept->id.seq > s->counted;

		add.filtered += kept->passed.filtered;
		add.missing += kept->passed.missing;
		add.rejected += first_time && b->events[b->first].stub;
		add.delivered += first_time && !b->events[b->first].stub;
	}
	if (n > 0)
		s->pos = b->backing[b->first - 1].id;
	add_counts(s, &add, s->pos.seq);
}

void
publisher_take_rest(struct place *s)
{
	const struct batch *b = &s->batch;
	uint64_t delivered = s->pos.delivered;

	assert(b->first == b->n);
	add_counts(s,
	    &(struct publisher_counts){
		.filtered = b->passed.filtered, .missing = b->passed.missing },
	    b->last.seq);
	s->pos = b->last;
	s->pos.delivered = delivered;
	publisher_clear(s);
}

/* ---- what is rejected ---- */

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

/* Keep a line in <trail>/quarantine.<sink>.jsonl. */
static int
quarantine(struct place *s, struct slice line, struct err *err)
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

/* Not even its stub is taken: what comes next follows on what came before. */
static void
drop_first(struct place *s, const char *why)
{
	struct batch *b = &s->batch;

	log_error(s->p->log, "sink_rejected",
	    "sink %s: nor is the stub of event %" PRIu64 " taken: %s", s->name,
	    b->events[b->first].seq, why);
	b->backing[b->first].id.delivered = s->pos.delivered;
	publisher_take_done(s, 1);
	if (b->first < b->n)
		b->backing[b->first].ready = false;
}

/* Not of its own kind, or there would be no end of it. */
static void
tell_rejected(struct place *s, const struct sink_event *e, const char *why)
{
	log_error(s->p->log, "sink_rejected", "sink %s: event %" PRIu64 " is in quarantine: %s",
	    s->name, e->seq, why);
	if (s->p->rejected != NULL &&
	    !slice_has_prefix(e->line, SLICE("{\"action\":\"keytrail.reject\",")))
		s->report = s->p->rejected(s->p->arg, s->name, e->seq, why);
}

int
publisher_reject_first(struct place *s, const char *why, struct err *err)
{
	struct batch *b = &s->batch;
	struct sink_event *e = &b->events[b->first];

	if (e->stub) {
		drop_first(s, why);
		return 0;
	}
	if (quarantine(s, e->line, err) == -1)
		return -1;
	tell_rejected(s, e, why);
	e->stub = true;
	b->backing[b->first].ready = false;
	return 0;
}
