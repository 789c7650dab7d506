#include "keytrail/parse.h"

#include <assert.h>

#include "keytrail/chars.h"
#include "parse_internal.h"

/* Where the scan stands.  A request and an answer begin in BEGIN, the state of a zeroed scan. */
enum state {
	BEGIN,
	METHOD,
	TARGET,
	VERSION,
	STATUS,
	REASON,
	LINE_CR,
	LINE_LF,
	NAME,
	VALUE,
	END_LF
};

/*
 * One run over bytes of a head.  With `out` the run begins at the first byte and records what it
 * finds; without, it continues where the scan stands and only looks for the end and for errors.
 */
struct lexer {
	const char *p, *end;
	const char *token;
	enum state state;
	unsigned fields;
	bool response;
	bool done;
	enum http_refusal refusal;
	const struct http_limits *limits;
	struct http_head *out;
};

/* A step ends with one of these; true means that the next state may go on. */
static bool
next(struct lexer *l, enum state state)
{
	l->state = state;
	return true;
}

static bool
more(void)
{
	return false;
}

static bool
bad(struct lexer *l, enum http_refusal refusal)
{
	l->refusal = refusal;
	return false;
}

static struct slice
token(const struct lexer *l)
{
	return (struct slice){ l->token, (size_t)(l->p - l->token) };
}

static void
skip_to(struct lexer *l, const char *p)
{
	l->p = p;
	l->token = p;
}

/* ---- request line ---- */

#define METHOD_MAX 7

static bool
is_known_method(struct slice m)
{
	static const struct slice methods[] = { SLICE_INIT("GET"), SLICE_INIT("POST"),
		SLICE_INIT("PATCH"), SLICE_INIT("DELETE"), SLICE_INIT("PUT"), SLICE_INIT("HEAD"),
		SLICE_INIT("OPTIONS"), SLICE_INIT("CONNECT"), SLICE_INIT("TRACE") };

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (slice_equal(m, methods[i]))
			return true;
	return false;
}

static bool
lex_begin(struct lexer *l)
{
	return next(l, l->response ? VERSION : METHOD);
}

static bool
lex_method(struct lexer *l)
{
	while (l->p < l->end && chars_is(*l->p, CHARS_TOKEN))
		l->p++;
	if (token(l).n > METHOD_MAX)
		return bad(l, REFUSAL_BAD_METHOD);
	if (l->p == l->end)
		return more();
	if (l->p == l->token || *l->p == '\r' || *l->p == '\n')
		return bad(l, REFUSAL_BAD_REQUEST_LINE);
	if (*l->p != ' ' || !is_known_method(token(l)))
		return bad(l, REFUSAL_BAD_METHOD);
	if (l->out != NULL)
		l->out->method = token(l);
	skip_to(l, l->p + 1);
	return next(l, TARGET);
}

static bool
is_visible(char c)
{
	return c > 0x20 && c < 0x7f;
}

static bool
lex_target(struct lexer *l)
{
	l->p = chars_skip_ascii(l->p, l->end, '!');
	while (l->p < l->end && is_visible(*l->p))
		l->p++;
	if ((size_t)(l->p - l->token) > l->limits->target)
		return bad(l, REFUSAL_TARGET_TOO_LONG);
	if (l->p == l->end)
		return more();
	if (*l->p == '\n')
		return bad(l, REFUSAL_BAD_LINE_END);
	if (l->p == l->token || *l->p == '\r')
		return bad(l, REFUSAL_BAD_REQUEST_LINE);
	if (*l->p != ' ')
		return bad(l, REFUSAL_BAD_TARGET);
	if (l->out != NULL)
		l->out->target = token(l);
	skip_to(l, l->p + 1);
	return next(l, VERSION);
}

static enum http_refusal
bad_version(const struct lexer *l)
{
	if (*l->p == '\n')
		return REFUSAL_BAD_LINE_END;
	return l->p == l->token ? REFUSAL_BAD_REQUEST_LINE : REFUSAL_BAD_VERSION;
}

static bool
lex_version(struct lexer *l)
{
	static const struct slice want = SLICE_INIT("HTTP/1.");

	for (; l->p < l->end; l->p++) {
		size_t i = (size_t)(l->p - l->token);

		if (i == want.n)
			break;
		if (*l->p != want.p[i])
			return bad(l, bad_version(l));
	}
	if (l->p == l->end)
		return more();
	if (*l->p != '0' && *l->p != '1')
		return bad(l, REFUSAL_BAD_VERSION);
	if (l->out != NULL)
		l->out->minor = *l->p == '1';
	skip_to(l, l->p + 1);
	return next(l, l->response ? STATUS : LINE_CR);
}

/* ---- status line ---- */

static bool
lex_status(struct lexer *l)
{
	for (; l->p < l->end && l->p - l->token < 4; l->p++) {
		ptrdiff_t i = l->p - l->token;
		char low = i == 1 ? '1' : '0', high = i == 1 ? '5' : '9';

		if (i == 0 ? *l->p != ' ' : *l->p < low || *l->p > high)
			return bad(l, REFUSAL_UPSTREAM_MALFORMED);
	}
	if (l->p == l->end)
		return more();
	if (*l->p != ' ' && *l->p != '\r')
		return bad(l, REFUSAL_UPSTREAM_MALFORMED);
	if (l->out != NULL)
		l->out->status = (unsigned)(l->token[1] - '0') * 100 +
				 (unsigned)(l->token[2] - '0') * 10 + (unsigned)(l->token[3] - '0');
	skip_to(l, *l->p == ' ' ? l->p + 1 : l->p);
	return next(l, REASON);
}

static bool
lex_reason(struct lexer *l)
{
	while (l->p < l->end && chars_is(*l->p, CHARS_VALUE | CHARS_OBS))
		l->p++;
	if (l->p == l->end)
		return more();
	if (*l->p != '\r')
		return bad(l, REFUSAL_UPSTREAM_MALFORMED);
	if (l->out != NULL)
		l->out->reason = token(l);
	return next(l, LINE_CR);
}

/* ---- line ends ---- */

static bool
lex_line_cr(struct lexer *l)
{
	if (l->p == l->end)
		return more();
	if (*l->p != '\r')
		return bad(l, *l->p == '\n'		      ? REFUSAL_BAD_LINE_END
			      : *l->p == ' ' || *l->p == '\t' ? REFUSAL_BAD_REQUEST_LINE
							      : REFUSAL_BAD_VERSION);
	l->p++;
	return next(l, LINE_LF);
}

static bool
lex_line_lf(struct lexer *l)
{
	if (l->p == l->end)
		return more();
	if (*l->p != '\n')
		return bad(l, REFUSAL_BAD_LINE_END);
	skip_to(l, l->p + 1);
	return next(l, NAME);
}

static bool
lex_end_lf(struct lexer *l)
{
	if (l->p == l->end)
		return more();
	if (*l->p != '\n')
		return bad(l, REFUSAL_BAD_LINE_END);
	l->p++;
	l->done = true;
	return false;
}

/* ---- fields ---- */

#define HOP_BY_HOP                                                                                 \
	(HTTP_F_SET(HTTP_F_CONNECTION) | HTTP_F_SET(HTTP_F_HTTP2_SETTINGS) |                       \
	    HTTP_F_SET(HTTP_F_KEEP_ALIVE) | HTTP_F_SET(HTTP_F_PROXY_AUTHENTICATE) |                \
	    HTTP_F_SET(HTTP_F_PROXY_AUTHORIZATION) | HTTP_F_SET(HTTP_F_PROXY_CONNECTION) |         \
	    HTTP_F_SET(HTTP_F_TE) | HTTP_F_SET(HTTP_F_TRAILER) |                                   \
	    HTTP_F_SET(HTTP_F_TRANSFER_ENCODING) | HTTP_F_SET(HTTP_F_UPGRADE))

static void
record_name(struct lexer *l, unsigned classes)
{
	struct http_field *f = http_head_add(l->out, token(l));

	f->hop = (HOP_BY_HOP & HTTP_F_SET(f->id)) != 0;
	l->out->alias |= (classes & CHARS_ALIAS) != 0;
}

static enum http_refusal
bad_line_begin(struct lexer *l)
{
	switch (*l->p) {
	case '\n':
		return REFUSAL_BAD_LINE_END;
	case ' ':
	case '\t':
		return REFUSAL_OBS_FOLD;
	default:
		if (!chars_is(*l->p, CHARS_TOKEN))
			return REFUSAL_BAD_HEADER;
		return l->fields++ >= l->limits->fields ? REFUSAL_HEAD_TOO_LARGE : REFUSAL_NONE;
	}
}

static bool
lex_name(struct lexer *l)
{
	unsigned classes = 0;
	const char *p;

	if (l->p == l->end)
		return more();
	if (l->p == l->token) {
		enum http_refusal refusal;

		if (*l->p == '\r') {
			l->p++;
			return next(l, END_LF);
		}
		if ((refusal = bad_line_begin(l)) != REFUSAL_NONE)
			return bad(l, refusal);
	}
	for (p = chars_skip_words(l->p, l->end); p < l->end && chars_is(*p, CHARS_TOKEN); p++)
		classes |= http_chars[(unsigned char)*p];
	l->p = p;
	if (l->p == l->end)
		return more();
	if (*l->p != ':')
		return bad(l, *l->p == '\n' ? REFUSAL_BAD_LINE_END : REFUSAL_BAD_HEADER);
	if (l->out != NULL)
		record_name(l, classes);
	skip_to(l, l->p + 1);
	return next(l, VALUE);
}

static bool
lex_value(struct lexer *l)
{
	unsigned legal = l->response ? CHARS_VALUE | CHARS_OBS : CHARS_VALUE;
	const char *p;

	for (p = chars_skip_ascii(l->p, l->end, ' '); p < l->end && chars_is(*p, legal);)
		p = chars_skip_ascii(p + 1, l->end, ' ');
	l->p = p;
	if (l->p == l->end)
		return more();
	if (*l->p != '\r')
		return bad(l, *l->p == '\n' ? REFUSAL_BAD_LINE_END : REFUSAL_BAD_HEADER);
	if (l->out != NULL)
		l->out->fields[l->out->nfields - 1].value = slice_trim(token(l));
	l->p++;
	return next(l, LINE_LF);
}

static bool (*const steps[])(struct lexer *) = {
	[BEGIN] = lex_begin,
	[METHOD] = lex_method,
	[TARGET] = lex_target,
	[VERSION] = lex_version,
	[STATUS] = lex_status,
	[REASON] = lex_reason,
	[LINE_CR] = lex_line_cr,
	[LINE_LF] = lex_line_lf,
	[NAME] = lex_name,
	[VALUE] = lex_value,
	[END_LF] = lex_end_lf,
};

/* ---- a whole head ---- */

struct run {
	struct http_scan *scan;
	struct slice in;
	const struct http_limits *limits;
	bool response;
};

static enum http_result
run_lexer(struct run *r, struct http_head *out, enum http_refusal *refusal)
{
	size_t n = r->in.n < r->limits->head ? r->in.n : r->limits->head;
	struct lexer l = {
		.p = r->in.p + r->scan->scanned,
		.end = r->in.p + n,
		.token = r->in.p + r->scan->token,
		.state = (enum state)r->scan->state,
		.fields = r->scan->fields,
		.response = r->response,
		.limits = r->limits,
		.out = out,
	};

	/* The limit may have been lowered since these bytes were scanned. */
	if (r->scan->scanned > n) {
		*refusal = REFUSAL_HEAD_TOO_LARGE;
		return HTTP_BAD;
	}
	while (steps[l.state](&l))
		;
	*r->scan = (struct http_scan){ (unsigned)(l.p - r->in.p), (unsigned)(l.token - r->in.p),
		l.state, l.fields };
	if (l.done)
		return HTTP_DONE;
	if (l.refusal == REFUSAL_NONE && n < r->limits->head)
		return HTTP_MORE;
	*refusal = l.refusal != REFUSAL_NONE ? l.refusal : REFUSAL_HEAD_TOO_LARGE;
	return HTTP_BAD;
}

static void
head_init(struct http_head *h)
{
	h->method = h->target = h->authority = h->path = h->query = h->reason = SLICE_EMPTY;
	h->has_query = false;
	h->status = 0;
	h->minor = 0;
	h->keep_alive = false;
	h->expect_continue = false;
	h->framing = HTTP_NO_BODY;
	h->length = 0;
	h->alias = false;
	h->present = h->repeated = 0;
	h->nfields = 0;
	memset(h->first, 0, sizeof(h->first));
}

/* A head that arrives in one piece is read once.  Else the pieces are scanned as they come, and
 * the whole is recorded at the end. */
static enum http_result
lex_head(struct run *r, struct http_head *out, enum http_refusal *refusal)
{
	enum http_result result;

	assert(r->limits->fields <= HTTP_FIELDS_MAX && r->scan->scanned <= r->in.n);
	if (r->scan->scanned > 0) {
		if ((result = run_lexer(r, NULL, refusal)) != HTTP_DONE)
			return result;
		http_scan_reset(r->scan);
	}
	head_init(out);
	return run_lexer(r, out, refusal);
}

enum http_result
http_parse_request(struct http_scan *scan, struct slice in, const struct http_limits *limits,
    struct http_head *out, size_t *used, enum http_refusal *refusal)
{
	struct run r = { .scan = scan, .in = in, .limits = limits };
	enum http_result result = lex_head(&r, out, refusal);

	if (result != HTTP_DONE)
		return result;
	if ((*refusal = parse_check_request(out)) != REFUSAL_NONE)
		return HTTP_BAD;
	if (!parse_second_opinion(out, slice_sub(in, 0, scan->scanned), false)) {
		*refusal = REFUSAL_BAD_HEADER;
		return HTTP_BAD;
	}
	*used = scan->scanned;
	return HTTP_DONE;
}

enum http_result
http_parse_response(struct http_scan *scan, struct slice in, const struct http_limits *limits,
    bool to_head, struct http_head *out, size_t *used, enum http_refusal *refusal)
{
	struct run r = { .scan = scan, .in = in, .limits = limits, .response = true };
	enum http_result result = lex_head(&r, out, refusal);

	if (result == HTTP_MORE)
		return result;
	if (result == HTTP_BAD || parse_check_response(out, to_head) != REFUSAL_NONE ||
	    !parse_second_opinion(out, slice_sub(in, 0, scan->scanned), true)) {
		*refusal = REFUSAL_UPSTREAM_MALFORMED;
		return HTTP_BAD;
	}
	*used = scan->scanned;
	return HTTP_DONE;
}
