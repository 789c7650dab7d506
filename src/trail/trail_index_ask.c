/* What the indexes say of a query. */
#include "trail_index_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

void
trail_index_ask(struct trail_index *ix, const struct trail_index_query *q)
{
	struct trail_state_info info;
	struct err err;

	ix->query = *q;
	ix->verdict.first = ix->verdict.end = 0;
	trail_list_free(&ix->list);
	ix->asked = trail_index_load_key(ix, false, &err) == 0 && ix->hash != NULL &&
		    trail_state_load(ix->dirfd, &info, &err) == 0 && info.valid &&
		    trail_list_segments(ix->dirfd, &ix->list, &err) == 0;
	if (!ix->asked)
		return;
	ix->log = info.log;
	ix->mark = info.mark;
}

/* Is the segment still what it was when the index was made? */
static bool
describes(const struct trail_index *ix, const struct index_head *h)
{
	struct index_file now;
	struct stat st;

	if (fstatat(ix->dirfd, trail_segment_name(h->first, "").s, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return false;
	now = trail_index_file(&st);
	return memcmp(&now, &h->file, sizeof(now)) == 0;
}

/* Does the query end within the segment? */
static bool
ends_in(const struct trail_index_query *q, const struct index_head *h)
{
	return (q->before != 0 && h->last >= q->before) ||
	       (q->until.n > 0 && slice_compare(slice_of(h->latest), q->until) >= 0);
}

static bool
has_values(const struct trail_index_query *q)
{
	for (int i = 0; i < TRAIL_INDEX_FIELDS; i++)
		if (i != TRAIL_INDEX_CORRELATION && q->want[i].n > 0)
			return true;
	return false;
}

/* INDEX_NONE: a value is not there. */
static int
judge_values(struct trail_index *ix, int fd, const struct index_head *h)
{
	struct index_set values;
	int kind = INDEX_ANY;

	if (!trail_index_read(ix, fd, 0, h->nvalues, h->values_seal, &values))
		return INDEX_UNKNOWN;
	for (int i = 0; i < TRAIL_INDEX_FIELDS; i++) {
		uint64_t wanted;
		size_t at;

		if (i == TRAIL_INDEX_CORRELATION || ix->query.want[i].n == 0)
			continue;
		wanted = trail_index_hash(ix, ix->query.want[i]);
		at = trail_index_find(&values, wanted);
		if (at == values.n || values.v[at] != wanted)
			kind = INDEX_NONE;
	}
	trail_index_set_free(&values);
	return kind;
}

/* The lines that have the hash of the correlation ID. */
static int
list_lines(struct trail_index *ix, int fd, const struct index_head *h, struct index_set *out)
{
	uint64_t wanted = trail_index_call(ix, ix->query.want[TRAIL_INDEX_CORRELATION], 0);
	const struct index_bucket *b = &h->buckets[wanted >> 56];
	uint64_t begin = wanted >> 56 == 0 ? 0 : b[-1].end;
	size_t i, n = 0;

	if (begin > b->end ||
	    !trail_index_read(ix, fd, h->nvalues + begin, b->end - begin, b->seal, out))
		return INDEX_UNKNOWN;
	for (i = trail_index_find(out, wanted); i < out->n && out->v[i] >> 32 == wanted >> 32; i++)
		if ((out->v[n++] = out->v[i] & UINT32_MAX) > h->last - h->first)
			return INDEX_UNKNOWN;
	out->n = n;
	return n > 0 ? INDEX_LISTED : INDEX_NONE;
}

static int
judge_head(struct trail_index *ix, int fd, const struct index_head *h, uint64_t end,
    struct index_set *lines)
{
	const struct trail_index_query *q = &ix->query;
	int kind;

	if (h->last < h->first || h->last >= end || !describes(ix, h) || ends_in(q, h))
		return INDEX_UNKNOWN;
	if (q->since.n > 0 && slice_compare(slice_of(h->latest), q->since) < 0)
		return INDEX_NONE;
	kind = has_values(q) ? judge_values(ix, fd, h) : INDEX_ANY;
	if (kind == INDEX_ANY && q->want[TRAIL_INDEX_CORRELATION].n > 0)
		kind = list_lines(ix, fd, h, lines);
	return kind;
}

static void
judge(struct trail_index *ix, size_t i)
{
	struct index_verdict *v = &ix->verdict;
	struct index_head h;
	int fd;

	trail_index_set_free(&v->lines);
	*v = (struct index_verdict){ .first = ix->list.first[i],
		.end = trail_list_end(&ix->list, i),
		.kind = INDEX_UNKNOWN };
	if (v->first >= ix->mark.segment)
		return;
	fd = openat(ix->dirfd, trail_index_name(v->first).s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd == -1)
		return;
	if (trail_index_read_head(ix, fd, &ix->log, v->first, &h)) {
		v->last = h.last;
		v->kind = judge_head(ix, fd, &h, v->end, &v->lines);
	}
	close(fd);
}

/* Is the number in a segment of which something is known? */
static bool
know(struct trail_index *ix, uint64_t seq)
{
	struct index_verdict *v = &ix->verdict;
	size_t i;

	if (seq < v->first || seq >= v->end) {
		if ((i = trail_list_find(&ix->list, seq)) == ix->list.n)
			return false;
		judge(ix, i);
	}
	return v->kind != INDEX_UNKNOWN && seq <= v->last;
}

bool
trail_index_pass(struct trail_index *ix, uint64_t *seq, bool *fits)
{
	struct index_verdict *v = &ix->verdict;
	uint64_t next = *seq + 1;
	size_t at;

	if (!ix->asked || !know(ix, *seq) || (*seq == v->last && !know(ix, next)))
		return false;
	at = trail_index_find(&v->lines, next - v->first);
	*fits = v->kind == INDEX_ANY || at < v->lines.n;
	*seq = v->kind == INDEX_ANY ? next : *fits ? v->first + v->lines.v[at] : v->last;
	return true;
}
