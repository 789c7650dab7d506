#include "keytrail/buf.h"
#include "keytrail/join.h"
#include "keytrail/query.h"
#include "keytrail/trail.h"

#include <inttypes.h>

#define PIECE	65536
#define LOOK_AT 64  /* lines between two looks at the clock */
#define NEAR	256 /* so many lines are read rather than looked for */

/* Why reading has ended. */
enum end { READING, AT_MARK, AT_UNTIL, PAGE_FULL, TIME_OVER, CANCELLED, FAILED };

struct page {
	const struct query_run *run;
	struct trail_reader *reader;
	struct join *join;
	struct buf out;
	size_t rows, bytes;   /* in the answer */
	uint64_t start, next; /* first number of this page, and of the next one */
	unsigned lines;
	bool begun; /* a piece was written */
};

/* ---- the text ---- */

static int
flush(struct page *p)
{
	int rc = p->run->write(p->run->arg, buf_slice(&p->out));

	p->begun = true;
	buf_consume(&p->out, buf_size(&p->out));
	return rc;
}

/* The rows that are settled. */
static int
put_rows(struct page *p, struct err *err)
{
	struct join_row row;

	while (join_next(p->join, &row)) {
		if ((p->rows > 0 && buf_append(&p->out, ",", 1) == -1) ||
		    buf_append_slice(&p->out, row.line) == -1)
			return err_set(err, "memory is short");
		p->rows++;
		p->bytes += row.line.n;
		if (buf_size(&p->out) >= PIECE && flush(p) == -1)
			return 1;
	}
	return 0;
}

static int
put_end(struct page *p, enum end end)
{
	uint64_t damaged = p->reader != NULL ? trail_reader_corrupt(p->reader) : 0;

	if (buf_append_slice(&p->out, SLICE("]")) == -1 ||
	    (damaged > 0 && buf_printf(&p->out, ",\"damaged\":%" PRIu64, damaged) == -1) ||
	    buf_printf(&p->out, ",\"next\":\"%" PRIu64 "\",\"more\":%s%s}\n", p->next,
		end == AT_MARK || end == AT_UNTIL ? "false" : "true",
		end == FAILED ? ",\"error\":\"the trail could not be read\"" : "") == -1)
		return -1;
	return flush(p);
}

/* ---- reading ---- */

static enum end
look_around(struct page *p)
{
	const struct query_run *r = p->run;

	if (r->cancelled(r->arg))
		return CANCELLED;
	if (p->lines++ % LOOK_AT == 0 && r->now_ns(r->arg) >= r->deadline_ns)
		return TIME_OVER;
	return READING;
}

static enum end
next_line(struct page *p, struct slice *line, uint64_t *seq, struct err *err)
{
	enum end end = look_around(p);
	int rc;

	if (end != READING)
		return end;
	if ((rc = trail_reader_next(p->reader, line, seq, err)) == -1)
		return FAILED;
	return rc == 0 ? AT_MARK : READING;
}

/* Over what the index knows not to fit, up to a line that may, or the last one that it knows: from there
 * on everything is as if all had been read. */
static enum end
skip(struct page *p, struct err *err)
{
	uint64_t seq = p->next - 1;
	enum end end = READING;
	bool fits = false;

	if (p->run->index == NULL || join_waiting(p->join) > 0)
		return READING;
	while (!fits && end == READING && trail_index_pass(p->run->index, &seq, &fits)) {
		p->lines = 0; /* a segment takes longer than a line */
		end = look_around(p);
	}
	if (seq < p->next + NEAR)
		return end;
	p->next = seq;
	return trail_reader_skip(p->reader, seq, err) == -1 ? FAILED : end;
}

static bool
is_full(const struct page *p)
{
	return p->rows + join_rows(p->join) >= p->run->query->limit ||
	       p->bytes + join_bytes(p->join) >= QUERY_BYTES_MAX;
}

/* Up to the end of the page. */
static enum end
read_page(struct page *p, struct err *err)
{
	const struct query *q = p->run->query;
	struct slice line;
	uint64_t seq;
	enum end end;
	int rc;

	while (
	    (end = skip(p, err)) == READING && (end = next_line(p, &line, &seq, err)) == READING) {
		bool ends = query_ends(q, line, seq);

		p->next = ends ? seq : seq + 1;
		if (join_add(p->join, line, seq, !ends && query_matches(q, line, seq), err) == -1)
			return FAILED;
		if (ends)
			return AT_UNTIL;
		if ((rc = put_rows(p, err)) != 0)
			return rc == -1 ? FAILED : CANCELLED;
		if (is_full(p))
			return PAGE_FULL;
	}
	return end;
}

/* Read on for the closing events of the intents that the page holds. */
static enum end
look_ahead(struct page *p, struct err *err)
{
	struct slice line;
	uint64_t seq;
	enum end end = READING;

	while (join_waiting(p->join) > 0 && (end = next_line(p, &line, &seq, err)) == READING)
		if (join_add(p->join, line, seq, false, err) == -1)
			return FAILED;
	return end;
}

/* What nobody had the time to look for begins the next page.  The first row of a page does not wait
 * for ever: it is shown as it is. */
static enum end
cut_page(struct page *p, enum end end, enum end ahead)
{
	if (ahead == CANCELLED || ahead == FAILED)
		return ahead;
	if (ahead == TIME_OVER && join_waiting(p->join) > 0 && join_first(p->join) > p->start) {
		p->next = join_first(p->join);
		return TIME_OVER;
	}
	join_settle(p->join);
	return end;
}

static enum end
answer(struct page *p, struct err *err)
{
	enum end end, ahead;
	int rc;

	if (buf_append_slice(&p->out, SLICE("{\"events\":[")) == -1) {
		err_set(err, "memory is short");
		return FAILED;
	}
	end = ahead = read_page(p, err);
	if (end == AT_UNTIL || end == PAGE_FULL)
		ahead = look_ahead(p, err);
	end = cut_page(p, end, ahead);
	if (end != CANCELLED && end != FAILED && (rc = put_rows(p, err)) != 0)
		end = rc == -1 ? FAILED : CANCELLED;
	return end;
}

static int
open_page(struct page *p, struct err *err)
{
	const struct query *q = p->run->query;
	const struct trail_index_query iq = query_of_index(q);

	p->start = q->cursor;
	if (q->since.seq > p->start)
		p->start = q->since.seq;
	if (p->start == 0 && q->since.at[0] != '\0' &&
	    trail_find_time(p->run->dirfd, q->since.at, &p->start, err) == -1)
		return -1;
	p->next = p->start > 0 ? p->start : 1;
	if ((p->join = join_new(err)) == NULL)
		return -1;
	if (trail_reader_open_at(p->run->dirfd, p->start, &p->reader, err) == -1)
		return -1;
	trail_reader_step_over(p->reader, true);
	trail_reader_on_corrupt(p->reader, p->run->corrupt, p->run->corrupt_arg);
	if (p->run->index != NULL)
		trail_index_ask(p->run->index, &iq);
	return 0;
}

int
query_run(const struct query_run *run, struct err *err)
{
	struct page p = { .run = run };
	enum end end = FAILED;

	if (open_page(&p, err) == 0)
		end = answer(&p, err);
	if (end != CANCELLED && (end != FAILED || p.begun) && put_end(&p, end) == -1)
		end = CANCELLED;
	trail_reader_close(p.reader);
	join_free(p.join);
	buf_fini(&p.out);
	return end == CANCELLED ? 1 : end == FAILED ? -1 : 0;
}
