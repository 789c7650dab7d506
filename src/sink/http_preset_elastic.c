/* The bulk API of Elasticsearch and OpenSearch: one verdict an item. */

#include "http_preset_impl.h"

#define ASK_PATH "/_mget"

/* ---- the request ---- */

static int
put_one(const struct sink_event *e, struct buf *out)
{
	char id[HTTP_ID_SIZE];

	http_id(e, id);
	return buf_printf(out, "{\"create\":{\"_id\":\"%s\"}}\n", id) == -1 ||
		       buf_append_slice(out, e->text) == -1
		   ? -1
		   : HTTP_PUT(out, "\n");
}

static int
frame(const struct sink_event *events, size_t n, struct buf *out)
{
	return http_put_each(events, n, "", put_one, out);
}

/* ---- the answer ---- */

struct item {
	uint64_t status;
	struct slice index, error; /* as they stand in the answer */
};

/* The type in an error, of which `{` has been read. */
static int
read_error(struct jsonscan *s, struct slice *type)
{
	struct jsonscan_token value;
	struct slice key;
	int rc;

	while ((rc = http_next_member(s, &key, &value)) == 1) {
		if (slice_equal(key, SLICE("type")) && value.type == JSONSCAN_STRING)
			*type = value.raw;
		else if (jsonscan_skip(s, &value) == -1)
			return -1;
	}
	return rc;
}

/* What stands behind {"create": */
static int
read_result(struct jsonscan *s, struct item *item)
{
	struct jsonscan_token value;
	struct slice key;
	int rc;

	while ((rc = http_next_member(s, &key, &value)) == 1) {
		if (slice_equal(key, SLICE("status"))) {
			if (!http_number(&value, &item->status))
				return -1;
		} else if (slice_equal(key, SLICE("_index")) && value.type == JSONSCAN_STRING) {
			item->index = value.raw;
		} else if (slice_equal(key, SLICE("error")) && value.type == JSONSCAN_OBJECT) {
			if (read_error(s, &item->error) == -1)
				return -1;
		} else if (jsonscan_skip(s, &value) == -1) {
			return -1;
		}
	}
	return rc;
}

/* 1, 0 at the end of the items, -1. */
static int
next_item(struct jsonscan *s, struct item *item)
{
	struct jsonscan_token t, value;
	struct slice key;

	*item = (struct item){ .index = SLICE_EMPTY, .error = SLICE_EMPTY };
	switch (jsonscan_next(s, &t)) {
	case JSONSCAN_ARRAY_END:
		return 0;
	case JSONSCAN_OBJECT:
		break;
	default:
		return -1;
	}
	if (http_next_member(s, &key, &value) != 1 || value.type != JSONSCAN_OBJECT ||
	    read_result(s, item) == -1)
		return -1;
	return jsonscan_next(s, &t) == JSONSCAN_OBJECT_END ? 1 : -1;
}

/* Those that say that this document does not fit, whatever its index is like. */
static bool
is_of_document(struct slice error)
{
	static const struct slice types[] = { SLICE_INIT("mapper_parsing_exception"),
		SLICE_INIT("document_parsing_exception"),
		SLICE_INIT("strict_dynamic_mapping_exception"),
		SLICE_INIT("illegal_argument_exception") };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (slice_equal(error, types[i]))
			return true;
	return false;
}

static int
ask_for(const struct item *item, const struct sink_event *e, struct buf *ask)
{
	char id[HTTP_ID_SIZE];

	http_id(e, id);
	return buf_printf(ask, "%s{\"_index\":\"%.*s\",\"_id\":\"%s\"}",
	    buf_size(ask) == 0 ? "{\"docs\":[" : ",", SLICE_ARG(item->index), id);
}

/* 1: it is stored, now or before; 0: it is not, and the verdict is made. */
static int
read_item(const struct item *item, const struct sink_event *e, size_t i, struct http_verdict *v,
    struct buf *ask)
{
	if (item->status == 200 || item->status == 201)
		return 1;
	if (item->status == 409) {
		v->asked++;
		return ask_for(item, e, ask) == -1 ? -1 : 1;
	}
	if (item->status == 400 && is_of_document(item->error))
		return http_say(
		    v, HTTP_REJECTED, i, "the document does not fit its index (status 400)");
	return http_say(v, HTTP_LATER, i, "an item was not stored (status %u)",
	    (unsigned)(item->status % 1000));
}

static int
read_items(struct jsonscan *s, const struct sink_event *events, size_t n, struct http_verdict *v,
    struct buf *ask)
{
	struct item item;

	for (size_t i = 0; i < n; i++) {
		int rc;

		if (next_item(s, &item) != 1)
			return http_not_understood(v);
		if ((rc = read_item(&item, &events[i], i, v, ask)) != 1)
			return rc;
	}
	return next_item(s, &item) == 0 ? http_say(v, HTTP_TAKEN, n, "%s", "")
					: http_not_understood(v);
}

static int
find_items(struct jsonscan *s)
{
	struct jsonscan_token t;
	struct slice key;

	if (jsonscan_next(s, &t) != JSONSCAN_OBJECT)
		return -1;
	while (http_next_member(s, &key, &t) == 1) {
		if (slice_equal(key, SLICE("items")))
			return t.type == JSONSCAN_ARRAY ? 0 : -1;
		if (jsonscan_skip(s, &t) == -1)
			return -1;
	}
	return -1;
}

static int
read_bulk(const struct http_reply *reply, const struct sink_event *events, size_t n,
    struct http_verdict *v, struct buf *ask)
{
	struct jsonscan s;

	if (v->say != HTTP_TAKEN)
		return 0;
	jsonscan_init(&s, reply->body);
	if (find_items(&s) == -1)
		return http_not_understood(v);
	if (read_items(&s, events, n, v, ask) == -1)
		return -1;
	return buf_size(ask) > 0 ? HTTP_PUT(ask, "]}") : 0;
}

/* ---- what is stored under an identity that was taken ---- */

struct document {
	struct slice id;
	bool found, same;
};

/* Does a string of the value that `t` begins read so? */
static int
holds(struct jsonscan *s, const struct jsonscan_token *t, struct slice text, bool *out)
{
	struct jsonscan_token in = *t;
	unsigned depth = s->depth;

	if (t->type == JSONSCAN_OBJECT || t->type == JSONSCAN_ARRAY)
		depth--;
	while (s->depth > depth) {
		if (jsonscan_next(s, &in) == JSONSCAN_BAD)
			return -1;
		if (in.type == JSONSCAN_STRING && slice_equal(in.raw, text))
			*out = true;
	}
	return 0;
}

static int
read_document(struct jsonscan *s, struct slice hash, struct document *d)
{
	struct jsonscan_token value;
	struct slice key;
	int rc;

	while ((rc = http_next_member(s, &key, &value)) == 1) {
		if (slice_equal(key, SLICE("_id")) && value.type == JSONSCAN_STRING) {
			d->id = value.raw;
		} else if (slice_equal(key, SLICE("found"))) {
			d->found = value.type == JSONSCAN_TRUE;
		} else if (slice_equal(key, SLICE("_source"))) {
			if (holds(s, &value, hash, &d->same) == -1)
				return -1;
		} else if (jsonscan_skip(s, &value) == -1) {
			return -1;
		}
	}
	return rc;
}

/* Each document is of the next event that was asked for; the event is known once the `_id` is, and
 * that may stand behind the source. */
static int
read_next(
    struct jsonscan *s, const struct sink_event *events, size_t n, size_t *at, struct document *d)
{
	struct jsonscan begin = *s;
	char id[HTTP_ID_SIZE];

	*d = (struct document){ .id = SLICE_EMPTY };
	if (read_document(s, SLICE_EMPTY, d) == -1)
		return -1;
	for (; *at < n; ++*at) {
		http_id(&events[*at], id);
		if (!slice_equal(d->id, slice_of(id)))
			continue;
		*s = begin;
		d->same = false;
		return read_document(s, slice_of(events[*at].hash), d);
	}
	return -1;
}

static int
find_docs(struct jsonscan *s)
{
	struct jsonscan_token t;
	struct slice key;

	if (jsonscan_next(s, &t) != JSONSCAN_OBJECT || http_next_member(s, &key, &t) != 1 ||
	    !slice_equal(key, SLICE("docs")) || t.type != JSONSCAN_ARRAY)
		return -1;
	return 0;
}

static void
settle(const struct http_reply *reply, const struct sink_event *events, struct http_verdict *v)
{
	struct jsonscan_token t;
	struct jsonscan s;
	struct document d;
	size_t at = 0, answered = 0;

	jsonscan_init(&s, reply->body);
	if (reply->status != 200 || find_docs(&s) == -1) {
		http_say(v, HTTP_LATER, 0, "what is stored could not be looked at (status %u)",
		    reply->status);
		return;
	}
	while (jsonscan_next(&s, &t) == JSONSCAN_OBJECT) {
		if (read_next(&s, events, v->done, &at, &d) == -1)
			break;
		if (!d.found) {
			http_say(v, HTTP_LATER, at, "a stored document is gone again");
			return;
		}
		if (!d.same) {
			v->conflict = true;
			http_say(v, HTTP_REJECTED, at,
			    "conflict: another document has the identity of this event");
			return;
		}
		at++;
		answered++;
	}
	if (t.type != JSONSCAN_ARRAY_END || answered != v->asked)
		http_not_understood(v);
}

#define BULK "/$/_bulk?filter_path=items.*.status,items.*._index,items.*.error.type"

const struct http_preset http_elasticsearch = { "elasticsearch", BULK, "application/x-ndjson",
	"Bearer", frame, read_bulk, ASK_PATH, settle };
const struct http_preset http_opensearch = { "opensearch", BULK, "application/x-ndjson", "Bearer",
	frame, read_bulk, ASK_PATH, settle };
