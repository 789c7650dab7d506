#include "format_internal.h"

#include "keytrail/clock.h"
#include "keytrail/jsonscan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PATH_MAX_LENGTH 64

/* A value of another type is not there; TRUE stands for both. */
static const struct {
	const char *name;
	enum jsonscan_type type;
} rows[FACTS] = {
	[FACT_ACTION] = { "action", JSONSCAN_STRING },
	[FACT_CORRELATION] = { "correlationId", JSONSCAN_STRING },
	[FACT_CORRELATION_SOURCE] = { "correlationSource", JSONSCAN_STRING },
	[FACT_DATA_EVENT] = { "dataEvent", JSONSCAN_TRUE },
	[FACT_DETAILS] = { "details", JSONSCAN_OBJECT },
	[FACT_TIME] = { "eventTime", JSONSCAN_STRING },
	[FACT_ID] = { "id", JSONSCAN_STRING },
	[FACT_AUTHN_ID] = { "initiator.authnId", JSONSCAN_STRING },
	[FACT_CLAIMED_ID] = { "initiator.claimed.id", JSONSCAN_STRING },
	[FACT_CLAIMED_NAME] = { "initiator.claimed.name", JSONSCAN_STRING },
	[FACT_ALTERNATIVE] = { "initiator.credential.alternative", JSONSCAN_STRING },
	[FACT_SUBJECT] = { "initiator.credential.subject", JSONSCAN_STRING },
	[FACT_CREDENTIAL] = { "initiator.credential.type", JSONSCAN_STRING },
	[FACT_VERIFIED_BY] = { "initiator.credential.verifiedBy", JSONSCAN_STRING },
	[FACT_ADDRESS] = { "initiator.host.address", JSONSCAN_STRING },
	[FACT_AGENT] = { "initiator.host.agent", JSONSCAN_STRING },
	[FACT_PEER] = { "initiator.host.peer", JSONSCAN_STRING },
	[FACT_INITIATOR] = { "initiator.id", JSONSCAN_STRING },
	[FACT_INITIATOR_NAME] = { "initiator.name", JSONSCAN_STRING },
	[FACT_INITIATOR_TYPE] = { "initiator.typeURI", JSONSCAN_STRING },
	[FACT_KIND] = { "kind", JSONSCAN_STRING },
	[FACT_CRN] = { "logSourceCRN", JSONSCAN_STRING },
	[FACT_MESSAGE] = { "message", JSONSCAN_STRING },
	[FACT_OUTCOME] = { "outcome", JSONSCAN_STRING },
	[FACT_CODE] = { "reason.reasonCode", JSONSCAN_NUMBER },
	[FACT_CAUSE] = { "reason.reasonForFailure", JSONSCAN_STRING },
	[FACT_REASON] = { "reason.reasonType", JSONSCAN_STRING },
	[FACT_RECOVERED] = { "recovered", JSONSCAN_TRUE },
	[FACT_ATTEMPTS] = { "requestData.attempts", JSONSCAN_NUMBER },
	[FACT_INSTANCE] = { "requestData.instanceId", JSONSCAN_STRING },
	[FACT_KEY_RING] = { "requestData.keyRingId", JSONSCAN_STRING },
	[FACT_METHOD] = { "requestData.method", JSONSCAN_STRING },
	[FACT_PATH] = { "requestData.path", JSONSCAN_STRING },
	[FACT_SHAPE] = { "requestData.shape", JSONSCAN_STRING },
	[FACT_UNMATCHED] = { "requestData.unmatched", JSONSCAN_TRUE },
	[FACT_SEVERITY] = { "severity", JSONSCAN_STRING },
	[FACT_TARGET] = { "target.id", JSONSCAN_STRING },
	[FACT_KEY_REF] = { "target.keyRef", JSONSCAN_STRING },
	[FACT_TARGET_TYPE] = { "target.typeURI", JSONSCAN_STRING },
	[FACT_AT] = { "trail.at", JSONSCAN_STRING },
	[FACT_LINE] = { "the line", 0 },
	[FACT_BOOT] = { "trail.boot", 0 },
	[FACT_HASH] = { "hash", 0 },
	[FACT_LOG] = { "trail.log", 0 },
	[FACT_PREV] = { "prev", 0 },
	[FACT_SEQ] = { "trail.seq", 0 },
	[FACT_STUB] = { "stub", 0 },
};

const char *
fact_name(enum fact fact)
{
	return rows[fact].name;
}

/* ---- a line ---- */

struct walk {
	struct facts *f;
	struct jsonscan scan;
	struct jsonscan_token token;
	char path[PATH_MAX_LENGTH];	  /* of the object that is being read, with its last dot */
	size_t n[JSONSCAN_DEPTH_MAX + 1]; /* bytes of it, by depth */
	unsigned depth;
};

/* FACTS: none of them. */
static enum fact
find_fact(const char *name)
{
	size_t low = 0, high = FACTS_OF_LINE;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = strcmp(name, rows[middle].name);

		if (order == 0)
			return (enum fact)middle;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return FACTS;
}

/* False: no name of ours is that long. */
static bool
join_name(struct walk *w, struct slice key)
{
	size_t at = w->n[w->depth];

	if (at + key.n + 2 > sizeof(w->path))
		return false;
	slice_to_cstr(key, w->path + at, sizeof(w->path) - at);
	return true;
}

static void
enter_object(struct walk *w)
{
	size_t n = strlen(w->path);

	w->path[n] = '.';
	w->n[++w->depth] = n + 1;
}

static bool
is_of_type(enum jsonscan_type wanted, enum jsonscan_type type)
{
	return type ==
	       (wanted == JSONSCAN_TRUE && type == JSONSCAN_FALSE ? JSONSCAN_FALSE : wanted);
}

/* The member's name has been read: 0 past its value, or past the brace that begins it. */
static int
read_member(struct walk *w)
{
	bool known = join_name(w, w->token.raw);
	enum fact fact = known ? find_fact(w->path) : FACTS;
	size_t from;

	if (jsonscan_next(&w->scan, &w->token) == JSONSCAN_OBJECT && known && fact == FACTS) {
		enter_object(w);
		return 0;
	}
	from = w->token.offset;
	if (jsonscan_skip(&w->scan, &w->token) == -1)
		return -1;
	if (fact != FACTS && is_of_type(rows[fact].type, w->token.type))
		w->f->of[fact] =
		    w->token.type == JSONSCAN_OBJECT
			? (struct value){ true, false, slice_sub(w->scan.text, from, w->scan.pos) }
			: (struct value){ true, w->token.type == JSONSCAN_STRING, w->token.raw };
	return 0;
}

/* White space between tokens is not canonical, and could hold a newline. */
static bool
is_one_line(struct slice line)
{
	for (size_t i = 0; i < line.n; i++)
		if ((unsigned char)line.p[i] < ' ')
			return false;
	return true;
}

static int
read_line(struct facts *f, struct slice line)
{
	struct walk w = { .f = f };

	jsonscan_init(&w.scan, line);
	if (!is_one_line(line) || jsonscan_next(&w.scan, &w.token) != JSONSCAN_OBJECT)
		return -1;
	for (;;) {
		enum jsonscan_type type = jsonscan_next(&w.scan, &w.token);

		if (type == JSONSCAN_KEY) {
			if (read_member(&w) == -1)
				return -1;
		} else if (type != JSONSCAN_OBJECT_END) {
			return -1;
		} else if (w.depth-- == 0) {
			return jsonscan_next(&w.scan, &w.token) == JSONSCAN_EOF ? 0 : -1;
		}
	}
}

/* ---- facts ---- */

/* What is none is nothing: it would have to be escaped. */
static void
set_hex(struct facts *f, enum fact fact, const char *text)
{
	bool good = text[strspn(text, "0123456789abcdef")] == '\0';

	f->of[fact] = (struct value){ true, true, good ? slice_of(text) : SLICE_EMPTY };
}

static void
set_number(struct facts *f, enum fact fact, char text[24], uint64_t n)
{
	snprintf(text, 24, "%" PRIu64, n);
	f->of[fact] = (struct value){ true, false, slice_of(text) };
}

/* Of a stub, but what is fixed. */
static void
drop_most(struct facts *f)
{
	for (enum fact i = 0; i < FACTS_OF_LINE; i++)
		if (i != FACT_ACTION && i != FACT_OUTCOME && i != FACT_TIME && i != FACT_AT)
			f->of[i] = (struct value){ 0 };
	f->of[FACT_STUB] = (struct value){ true, false, SLICE("true") };
}

static void
drop_empty(struct facts *f)
{
	for (enum fact i = 0; i < FACTS_OF_LINE; i++)
		if (f->of[i].string && f->of[i].raw.n == 0)
			f->of[i].there = false;
}

void
facts_of(const struct sink_event *e, struct facts *f)
{
	bool read;

	memset(f->of, 0, sizeof(f->of));
	f->event = e;
	read = read_line(f, e->line) == 0;
	if (!read)
		memset(f->of, 0, sizeof(f->of));
	drop_empty(f);
	f->of[FACT_LINE] = (struct value){ true, false, e->line };
	set_hex(f, FACT_BOOT, e->boot);
	set_hex(f, FACT_HASH, e->hash);
	set_hex(f, FACT_LOG, e->log);
	set_number(f, FACT_PREV, f->own[0], e->prev);
	set_number(f, FACT_SEQ, f->own[1], e->seq);
	f->kind = !read || e->stub	      ? FACTS_STUB
		  : f->of[FACT_ADDRESS].there ? FACTS_CALL
					      : FACTS_OWN;
	if (f->kind == FACTS_STUB)
		drop_most(f);
}

bool
fact_is(const struct facts *f, enum fact fact, const char *word)
{
	return f->of[fact].there && slice_equal(f->of[fact].raw, slice_of(word));
}

uint64_t
fact_ms(const struct facts *f, enum fact fact)
{
	int64_t ns;

	if (!f->of[fact].there || clock_parse_event_time(f->of[fact].raw, &ns) == -1 || ns < 0)
		return 0;
	return (uint64_t)(ns / CLOCK_NS_PER_MS);
}

unsigned
fact_status(const struct facts *f)
{
	const struct value *v = &f->of[FACT_CODE];
	uint64_t n;

	return v->there && slice_to_u64(v->raw, &n) == 0 && n <= 999 ? (unsigned)n : 0;
}

struct slice
fact_last_word(const struct facts *f)
{
	struct slice action = f->of[FACT_ACTION].raw;
	const char *dot = action.n > 0 ? memrchr(action.p, '.', action.n) : NULL;

	return dot == NULL ? action : slice_sub(action, (size_t)(dot - action.p) + 1, action.n);
}

enum verb
fact_verb(const struct facts *f)
{
	static const struct {
		const char *word;
		enum verb verb;
	} words[] = {
		{ "activate", VERB_UPDATE },
		{ "create", VERB_CREATE },
		{ "deactivate", VERB_UPDATE },
		{ "delete", VERB_DELETE },
		{ "destroy", VERB_DELETE },
		{ "disable", VERB_UPDATE },
		{ "enable", VERB_UPDATE },
		{ "get", VERB_READ },
		{ "head", VERB_READ },
		{ "list", VERB_READ },
		{ "locate", VERB_READ },
		{ "merge", VERB_UPDATE },
		{ "patch", VERB_UPDATE },
		{ "purge", VERB_DELETE },
		{ "read", VERB_READ },
		{ "restore", VERB_UPDATE },
		{ "revoke", VERB_UPDATE },
		{ "rotate", VERB_UPDATE },
		{ "setkeyfordeletion", VERB_UPDATE },
		{ "sync", VERB_UPDATE },
		{ "unsetkeyfordeletion", VERB_UPDATE },
		{ "update", VERB_UPDATE },
		{ "write", VERB_UPDATE },
	};
	struct slice word = fact_last_word(f);

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (slice_equal(word, slice_of(words[i].word)))
			return words[i].verb;
	return VERB_OTHER;
}

struct slice
fact_service(const struct facts *f)
{
	struct slice rest = f->of[FACT_CRN].raw;
	const char *colon;

	for (unsigned part = 0; part < 4; part++) {
		if (rest.n == 0 || (colon = memchr(rest.p, ':', rest.n)) == NULL)
			return SLICE_EMPTY;
		rest = slice_sub(rest, (size_t)(colon - rest.p) + 1, rest.n);
	}
	colon = rest.n > 0 ? memchr(rest.p, ':', rest.n) : NULL;
	return colon == NULL ? SLICE_EMPTY : slice_sub(rest, 0, (size_t)(colon - rest.p));
}
