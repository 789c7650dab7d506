#include "route_table.h"

#include "keytrail/chars.h"
#include "keytrail/scrub.h"

#include <assert.h>

/* One request on its way through the trie. */
struct walk {
	const struct route_table *table;
	const struct http_head *head;
	struct uri_path path;
	enum route_method method;
	enum route_method wanted; /* in this pass: that, then ROUTE_ANY_METHOD */
	bool disguised;		  /* a segment could be read as a literal that it is not */
	/* first value of each discriminator of the table; p NULL: the request has none */
	struct slice query[ROUTE_DISCRIMINATORS_MAX];
	struct slice header[ROUTE_DISCRIMINATORS_MAX];
};

/* Whoever repeats one of these could have us read the decoy and the service the real one. */
#define SINGLES                                                                                    \
	(HTTP_F_SET(HTTP_F_AUTHORIZATION) | HTTP_F_SET(HTTP_F_BLUEMIX_INSTANCE) |                  \
	    HTTP_F_SET(HTTP_F_X_KMS_KEY_RING) | HTTP_F_SET(HTTP_F_CORRELATION_ID) |                \
	    HTTP_F_SET(HTTP_F_PREFER))

/* Some servers act on what these say and not on the request line. */
#define OVERRIDES                                                                                  \
	(HTTP_F_SET(HTTP_F_X_HTTP_METHOD) | HTTP_F_SET(HTTP_F_X_HTTP_METHOD_OVERRIDE) |            \
	    HTTP_F_SET(HTTP_F_X_HTTP_REQUEST) | HTTP_F_SET(HTTP_F_X_METHOD_OVERRIDE) |             \
	    HTTP_F_SET(HTTP_F_X_ORIGINAL_URL) | HTTP_F_SET(HTTP_F_X_REWRITE_URL))
static const struct slice override_parameter = SLICE_INIT("_method");

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- which entry ---- */

static void
read_discriminators(struct walk *w)
{
	struct slice rest = w->head->query, name, value;
	const struct route_table *t = w->table;
	bool has_value;

	memset(w->query, 0, t->nquery_names * sizeof(w->query[0]));
	memset(w->header, 0, t->nheader_names * sizeof(w->header[0]));
	while (uri_next_parameter(&rest, &name, &value, &has_value))
		for (size_t i = 0; i < t->nquery_names; i++)
			if (w->query[i].p == NULL && slice_equal(name, t->query_names[i]))
				w->query[i] = has_value ? value : SLICE_EMPTY;
	for (size_t i = 0; i < t->nheader_names; i++) {
		const struct http_field *f = http_head_find(w->head, t->header_names[i]);

		if (f != NULL)
			w->header[i] = f->value.p != NULL ? f->value : SLICE_EMPTY;
	}
}

static bool
entry_fits(const struct walk *w, const struct route_entry *e)
{
	if (e->method != w->wanted)
		return false;
	if (e->query >= 0 &&
	    (w->query[e->query].p == NULL || !slice_equal(w->query[e->query], e->query_value)))
		return false;
	return e->header < 0 || (w->header[e->header].p != NULL &&
				    slice_equal(w->header[e->header], e->header_value));
}

static const struct route_entry *
leaf_find(const struct walk *w, uint32_t first)
{
	const struct route_entry *e;

	assert(w->table->entries != NULL);
	for (uint32_t i = first; i != ROUTE_NONE; i = e->next) {
		e = &w->table->entries[i];
		if (entry_fits(w, e))
			return e;
	}
	return NULL;
}

/* The child that is this segment, byte for byte.  Notes one that it could be taken for. */
static const struct route_child *
child_of(struct walk *w, const struct route_node *node, struct slice segment)
{
	const struct route_child *child = route_node_child(node, segment, true);

	if (child != NULL)
		return child;
	if (route_node_child(node, segment, false) != NULL) {
		w->disguised = true;
	} else if (!w->path.plain && memchr(segment.p, '%', segment.n) != NULL) {
		for (size_t i = 0; i < node->capacity && !w->disguised; i++)
			w->disguised = node->children[i].literal.p != NULL &&
				       uri_is_disguised(segment, node->children[i].literal);
	}
	return NULL;
}

/* The most specific entry below a node, once every place was seen that the path can lead to: a tree
 * is walked, so no node is seen twice. */
static const struct route_entry *
node_find(struct walk *w, uint32_t at, unsigned depth)
{
	const struct route_node *node = &w->table->nodes[at];
	const struct route_entry *e = NULL, *other;

	if (depth == w->path.nsegments) {
		e = leaf_find(w, node->exact);
	} else {
		const struct route_child *child = child_of(w, node, w->path.segments[depth]);

		if (child != NULL)
			e = node_find(w, child->node, depth + 1);
		if (node->parameter != ROUTE_NONE) {
			other = node_find(w, node->parameter, depth + 1);
			e = e != NULL ? e : other;
		}
	}
	return e != NULL ? e : leaf_find(w, node->rest);
}

static const struct route_entry *
find_fallback(struct walk *w)
{
	const struct route_entry *e;

	w->wanted = ROUTE_ANY_METHOD;
	e = node_find(w, 0, 0);
	return e != NULL ? e : &w->table->entries[w->table->nentries - 1];
}

static const struct route_entry *
find_entry(struct walk *w)
{
	const struct route_entry *e;

	w->wanted = w->method;
	e = node_find(w, 0, 0);
	return e != NULL ? e : find_fallback(w);
}

/* ---- what could be read in two ways ---- */

struct parameter {
	struct slice name, value, whole;
};

static bool
is_disguised(const struct parameter *p, struct slice literal)
{
	return uri_is_disguised(p->name, literal) || uri_hides_parameter(p->whole, literal);
}

/* An override that no route names, however it is written.  One that a route names is a
 * discriminator like any other. */
static bool
is_override(const struct route_table *t, const struct parameter *p)
{
	for (unsigned i = 0; i < t->nquery_names; i++)
		if (slice_equal(t->query_names[i], override_parameter))
			return false;
	return slice_equal(p->name, override_parameter) || is_disguised(p, override_parameter);
}

static enum http_refusal
check_parameter(
    const struct walk *w, const struct route_entry *e, const struct parameter *p, unsigned *seen)
{
	const struct route_table *t = w->table;

	if (is_override(t, p))
		return REFUSAL_METHOD_OVERRIDE;
	for (unsigned i = 0; i < t->nquery_names; i++) {
		if (is_disguised(p, t->query_names[i]))
			return REFUSAL_AMBIGUOUS_QUERY;
		if (!slice_equal(p->name, t->query_names[i]))
			continue;
		if (e->query != (int)i || !slice_equal(p->value, e->query_value) || (*seen)++ > 0)
			return REFUSAL_AMBIGUOUS_QUERY;
	}
	return REFUSAL_NONE;
}

static enum http_refusal
check_query(const struct walk *w, const struct route_entry *e)
{
	struct slice rest = w->head->query;
	enum http_refusal r = uri_check_query(rest);
	struct parameter p;
	unsigned seen = 0;
	bool has_value;

	while (r == REFUSAL_NONE && uri_next_parameter(&rest, &p.name, &p.value, &has_value)) {
		p.whole = (struct slice){ p.name.p, p.name.n + has_value + p.value.n };
		r = check_parameter(w, e, &p, &seen);
	}
	return r;
}

static bool
has_prefix_nocase(struct slice s, struct slice prefix)
{
	return s.n >= prefix.n && slice_equal_nocase(slice_sub(s, 0, prefix.n), prefix);
}

static size_t
skip_token(struct slice s, size_t at)
{
	while (at < s.n && chars_is(s.p[at], CHARS_TOKEN))
		at++;
	return at;
}

/* type/subtype, then the end, or a ';' and whatever follows that. */
static bool
is_media_type(struct slice s)
{
	size_t slash = skip_token(s, 0), end = skip_token(s, slash + 1);

	if (slash == 0 || slash >= s.n || s.p[slash] != '/' || end == slash + 1)
		return false;
	while (end < s.n && (s.p[end] == ' ' || s.p[end] == '\t'))
		end++;
	return end == s.n || s.p[end] == ';';
}

/* Do servers look for fields in the body, where nobody here sees `_method` or an action? */
static bool
may_be_form(struct slice type)
{
	static const struct slice json = SLICE_INIT("application/json");
	static const struct slice forms[] = { SLICE_INIT("multipart"), SLICE_INIT("urlencoded"),
		SLICE_INIT("url-encoded") };

	if (slice_equal(type, json)) /* as nearly everybody sends it */
		return false;
	for (size_t at = 0; at < type.n; at++) {
		char c = chars_lower(type.p[at]);

		for (size_t i = 0; (c == 'm' || c == 'u') && i < COUNT(forms); i++)
			if (has_prefix_nocase(slice_sub(type, at, type.n), forms[i]))
				return true;
	}
	return !is_media_type(type);
}

/* Servers are known not to read a body where they expect none, and to take it for the next request:
 * that would be a call of which nobody knows. */
static bool
may_have_body(enum route_method method)
{
	return method != ROUTE_GET && method != ROUTE_HEAD && method != ROUTE_OPTIONS;
}

/* Each Content-Type: which of several a server believes is not for us to guess. */
static enum http_refusal
check_body(const struct walk *w)
{
	const struct http_head *h = w->head;

	if (!http_head_has_body(h))
		return REFUSAL_NONE;
	if (!may_have_body(w->method))
		return REFUSAL_UNEXPECTED_BODY;
	if ((h->present & HTTP_F_SET(HTTP_F_CONTENT_TYPE)) == 0)
		return REFUSAL_NONE;
	for (unsigned i = h->first[HTTP_F_CONTENT_TYPE] - 1u; i < h->nfields; i++)
		if (h->fields[i].id == HTTP_F_CONTENT_TYPE && may_be_form(h->fields[i].value))
			return REFUSAL_AMBIGUOUS_BODY;
	return REFUSAL_NONE;
}

static bool
is_list(const struct http_field *f)
{
	return f != NULL && memchr(f->value.p, ',', f->value.n) != NULL;
}

/* Byte for byte but for case, and for what CGI-like servers turn into '-'. */
static bool
is_same_or_alias(struct slice name, struct slice other)
{
	if (name.n != other.n)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		char a = chars_is(name.p[i], CHARS_ALIAS) ? '-' : chars_lower(name.p[i]);
		char b = chars_is(other.p[i], CHARS_ALIAS) ? '-' : chars_lower(other.p[i]);

		if (a != b)
			return false;
	}
	return true;
}

static bool
is_among_declared(const struct route_table *t, struct slice name, bool exactly)
{
	bool (*same)(struct slice, struct slice) = exactly ? slice_equal_nocase : is_same_or_alias;

	for (size_t i = 0; i < t->nsingle_headers; i++)
		if (same(name, slice_of(t->single_headers[i])))
			return true;
	for (size_t i = 0; i < t->nheader_names; i++)
		if (same(name, t->header_names[i]))
			return true;
	return false;
}

static inline bool
is_declared(const struct route_table *t, struct slice name, bool exactly)
{
	return (t->declared_lengths & route_length_bit(name.n)) != 0 &&
	       is_among_declared(t, name, exactly);
}

bool
route_is_single_header(const struct route_table *t, struct slice name)
{
	return is_declared(t, name, false);
}

/* What the service would not see, or under a name that it alone takes for the declared one; and what
 * it may see twice. */
static enum http_refusal
check_declared(const struct walk *w)
{
	bool repeated = false;

	for (unsigned i = 0; i < w->head->nfields; i++) {
		const struct http_field *f = &w->head->fields[i];

		if (!is_declared(w->table, f->name, false))
			continue;
		if (!is_declared(w->table, f->name, true))
			return REFUSAL_ALIAS_HEADER;
		if (f->hop)
			return REFUSAL_BAD_CONNECTION;
		repeated |= is_list(f) || http_head_find(w->head, f->name) != f;
	}
	return repeated ? REFUSAL_REPEATED_HEADER : REFUSAL_NONE;
}

static enum http_refusal
check_singles(const struct http_head *h)
{
	if ((h->repeated & SINGLES) != 0)
		return REFUSAL_REPEATED_HEADER;
	for (uint64_t ids = h->present & SINGLES; ids != 0; ids &= ids - 1)
		if (is_list(http_head_field(h, (enum http_field_id)__builtin_ctzll(ids))))
			return REFUSAL_REPEATED_HEADER;
	return REFUSAL_NONE;
}

static enum http_refusal
check_header_discriminators(const struct walk *w, const struct route_entry *e)
{
	for (unsigned i = 0; i < w->table->nheader_names; i++)
		if (w->header[i].p != NULL &&
		    (e->header != (int)i || !slice_equal(w->header[i], e->header_value)))
			return REFUSAL_AMBIGUOUS_HEADER;
	return REFUSAL_NONE;
}

static enum http_refusal
check_overrides(const struct walk *w)
{
	return (w->head->present & OVERRIDES & ~w->table->header_ids) != 0 ? REFUSAL_METHOD_OVERRIDE
									   : REFUSAL_NONE;
}

/* The first delimiter in s that is encoded, however often: '\0' when there is none, else where it
 * begins and ends. */
static char
find_encoded_delimiter(struct slice s, size_t *begin, size_t *end)
{
	for (size_t i = 0; i + 2 < s.n; i++) {
		size_t at = i + 1;
		char c;

		if (s.p[i] != '%')
			continue;
		while (at + 3 < s.n && s.p[at] == '2' && s.p[at + 1] == '5')
			at += 2;
		c = (char)(chars_hex(s.p[at]) << 4 | chars_hex(s.p[at + 1]));
		if (c != '\0' && strchr("/\\?#;", c) != NULL) {
			*begin = i;
			*end = at + 2;
			return c;
		}
	}
	return '\0';
}

/* The path of a server that decodes before it splits, and drops what is empty.  False: it is the
 * same, or none of a table's, being too long. */
static bool
split_decoded(const struct uri_path *path, struct uri_path *out)
{
	bool differs = false;
	char c = '\0';

	out->nsegments = 0;
	for (unsigned i = 0; i < path->nsegments && c == '\0'; i++) {
		struct slice rest = path->segments[i];

		do {
			size_t begin = rest.n, end = rest.n;

			c = find_encoded_delimiter(rest, &begin, &end);
			differs = differs || c != '\0';
			if (begin > 0 && out->nsegments == URI_SEGMENTS_MAX)
				return false;
			if (begin > 0)
				out->segments[out->nsegments++] = slice_sub(rest, 0, begin);
			rest = slice_sub(rest, end, rest.n);
		} while (c == '/' || c == '\\');
	}
	return differs;
}

/* Does a template, "**" apart, stand for this path, in whatever case? */
static bool
is_path_of_route(const struct walk *w, const struct uri_path *path, uint32_t at, unsigned depth)
{
	const struct route_node *node = &w->table->nodes[at];
	const struct route_child *child;

	if (depth == path->nsegments)
		return node->exact != ROUTE_NONE;
	child = route_node_child(node, path->segments[depth], false);
	return (child != NULL && is_path_of_route(w, path, child->node, depth + 1)) ||
	       (node->parameter != ROUTE_NONE &&
		   is_path_of_route(w, path, node->parameter, depth + 1));
}

/* A delimiter inside a {parameter} is legal, but not where its decoding leads to a route's path:
 * whoever decodes first would do what that route says. */
static bool
leads_to_another_route(const struct walk *w)
{
	struct uri_path decoded;

	return w->path.encoded_delimiter != 0 && split_decoded(&w->path, &decoded) &&
	       is_path_of_route(w, &decoded, 0, 0);
}

static enum http_refusal
check_path(const struct walk *w, const struct route_entry *e)
{
	if ((w->path.encoded_delimiter & ~e->parameters) != 0 || w->disguised ||
	    leads_to_another_route(w))
		return REFUSAL_AMBIGUOUS_PATH;
	return REFUSAL_NONE;
}

/* ---- the shape of an unmatched path ---- */

static bool
is_known_literal(const struct route_table *t, struct slice s)
{
	size_t low = 0, high = t->nliterals;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = route_slice_order(s, t->literals[middle]);

		if (order == 0)
			return true;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return false;
}

static bool
is_number(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return s.n > 0;
}

static struct slice
segment_shape(const struct route_table *t, struct slice s)
{
	if (is_known_literal(t, s))
		return s;
	if (scrub_fits(SCRUB_UUID, s))
		return SLICE("{uuid}");
	return is_number(s) ? SLICE("{n}") : SLICE("{}");
}

static void
path_shape(const struct route_table *t, const struct uri_path *path, char out[ROUTE_SHAPE_SIZE])
{
	size_t n = 0;

	if (path->nsegments == 0)
		out[n++] = '/';
	for (unsigned i = 0; i < path->nsegments; i++) {
		struct slice s = segment_shape(t, path->segments[i]);

		if (n + s.n + 2 > ROUTE_SHAPE_SIZE) {
			memcpy(out, "other", sizeof("other"));
			return;
		}
		out[n++] = '/';
		memcpy(out + n, s.p, s.n);
		n += s.n;
	}
	out[n] = '\0';
}

/* ---- the whole ---- */

/* A name that the request gave itself by what was refused is not to be believed. */
static bool
refusal_hides_action(enum http_refusal r)
{
	return r != REFUSAL_NONE && r != REFUSAL_REPEATED_HEADER && r != REFUSAL_UNEXPECTED_BODY;
}

static enum http_refusal
check_all_but_target(const struct walk *w, const struct route_entry *e)
{
	enum http_refusal r = check_declared(w);

	if (r == REFUSAL_NONE)
		r = check_singles(w->head);
	if (r == REFUSAL_NONE)
		r = check_header_discriminators(w, e);
	if (r == REFUSAL_NONE)
		r = check_body(w);
	return r;
}

static enum http_refusal
check_request(const struct walk *w, const struct route_entry *e)
{
	enum http_refusal r = check_overrides(w);

	if (r == REFUSAL_NONE)
		r = check_path(w, e);
	if (r == REFUSAL_NONE)
		r = check_query(w, e);
	if (r == REFUSAL_NONE)
		r = check_all_but_target(w, e);
	return r;
}

static void
match_path(struct walk *w, struct route_match *out)
{
	const struct route_entry *e;

	read_discriminators(w);
	e = find_entry(w);
	out->refusal = check_request(w, e);
	if (refusal_hides_action(out->refusal) && !e->pub.fallback)
		e = find_fallback(w);
	out->route = &e->pub;
	out->matched = !e->pub.fallback;
	if (e->key_segment >= 0)
		out->key = w->path.segments[e->key_segment];
	if (out->matched)
		out->shape[0] = '\0';
	else
		path_shape(w->table, &w->path, out->shape);
}

void
route_match(const struct route_table *t, const struct http_head *head, struct route_match *out)
{
	struct walk w;

	w.table = t;
	w.head = head;
	w.method = route_method_of(head->method);
	w.disguised = false;
	out->route = &t->entries[t->nentries - 1].pub;
	out->matched = false;
	out->key = SLICE_EMPTY;
	memcpy(out->shape, "{}", sizeof("{}"));
	/* OPTIONS * has no path; the parser lets no other such target through. */
	if (slice_equal(head->path, SLICE("*"))) {
		read_discriminators(&w);
		if ((out->refusal = check_overrides(&w)) == REFUSAL_NONE)
			out->refusal = check_all_but_target(&w, &t->entries[t->nentries - 1]);
		memcpy(out->shape, "*", sizeof("*"));
		return;
	}
	out->refusal = uri_split_path(head->path, &w.path);
	if (out->refusal == REFUSAL_NONE)
		match_path(&w, out);
}
