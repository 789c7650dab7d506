#include "route_table.h"

#include <strings.h>

#define ACTION_MAX	  64
#define ACTION_WORDS_MAX  5
#define TEMPLATE_MAX	  512
#define DISCRIMINATOR_MAX 64

#define LETTERS_LOWER	  "abcdefghijklmnopqrstuvwxyz"
#define LETTERS_UPPER	  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS		  "0123456789"
#define ALNUM		  LETTERS_LOWER LETTERS_UPPER DIGITS

/* pchar of RFC 3986 without '%', and without what servers are known to read in two ways. */
#define LITERAL_CHARS	ALNUM "-._~!$&'()+,=:@"
#define PARAMETER_CHARS ALNUM "-_"
#define VALUE_CHARS	ALNUM "-._~"
#define TOKEN_CHARS	ALNUM "!#$%&'*+-.^_`|~"

static const struct slice methods[ROUTE_NO_METHOD] = {
	[ROUTE_ANY_METHOD] = SLICE_INIT("*"),
	[ROUTE_GET] = SLICE_INIT("GET"),
	[ROUTE_HEAD] = SLICE_INIT("HEAD"),
	[ROUTE_POST] = SLICE_INIT("POST"),
	[ROUTE_PUT] = SLICE_INIT("PUT"),
	[ROUTE_PATCH] = SLICE_INIT("PATCH"),
	[ROUTE_DELETE] = SLICE_INIT("DELETE"),
	[ROUTE_OPTIONS] = SLICE_INIT("OPTIONS"),
};

static bool
consists_of(struct slice s, const char *chars)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '\0' || strchr(chars, s.p[i]) == NULL)
			return false;
	return s.n > 0;
}

int
route_check_action(const char *action, struct err *err)
{
	struct slice rest = slice_of(action);
	unsigned words = 0;

	if (rest.n > ACTION_MAX)
		return err_set(err, "an action has at most %d bytes", ACTION_MAX);
	for (const char *dot = rest.p; dot != NULL; words++) {
		struct slice word = rest;

		dot = memchr(rest.p, '.', rest.n);
		if (dot != NULL) {
			word.n = (size_t)(dot - rest.p);
			rest = slice_sub(rest, word.n + 1, rest.n);
		}
		if (!consists_of(word, LETTERS_LOWER DIGITS "-"))
			return err_set(err, "an action is words of lower-case letters, digits and "
					    "'-', joined by '.', like \"kms.secrets.unwrap\"");
	}
	if (words < 2 || words > ACTION_WORDS_MAX)
		return err_set(err, "an action has two to %d words, like \"kms.secrets.unwrap\"",
		    ACTION_WORDS_MAX);
	if (slice_has_prefix(slice_of(action), SLICE("keytrail.")))
		return err_set(err, "actions under \"keytrail.\" are the sidecar's own");
	return 0;
}

static int
check_segment(struct slice s, bool last, struct err *err)
{
	if (s.n == 0)
		return err_set(err, "a path has no empty segment and no '/' at its end");
	if (s.p[0] == '{') {
		if (s.n < 3 || s.p[s.n - 1] != '}' ||
		    !consists_of(slice_sub(s, 1, s.n - 1), PARAMETER_CHARS))
			return err_set(err, "a parameter is a whole segment, {name}, of letters, "
					    "digits, '-' and '_'");
		return 0;
	}
	if (route_is_rest(s)) {
		if (!last)
			return err_set(err, "\"**\" stands for the rest of a path, so it is its "
					    "last segment");
		return 0;
	}
	if (slice_equal(s, SLICE(".")) || slice_equal(s, SLICE("..")))
		return err_set(err, "a path has no \".\" and \"..\" segments");
	if (!consists_of(s, LITERAL_CHARS))
		return err_set(err, "a literal segment holds letters, digits and -._~!$&'()+,=:@ "
				    "only; nothing is percent-encoded");
	return 0;
}

int
route_check_path(const char *path, struct err *err)
{
	struct slice rest = slice_of(path), segment;
	unsigned n = 0;

	if (path[0] != '/')
		return err_set(err, "a path begins with '/'");
	if (rest.n > TEMPLATE_MAX)
		return err_set(err, "a path has at most %d bytes", TEMPLATE_MAX);
	if (rest.n > 1 && path[rest.n - 1] == '/')
		return check_segment(SLICE_EMPTY, true, err);
	while (route_next_segment(&rest, &segment)) {
		if (++n > URI_SEGMENTS_MAX)
			return err_set(err, "a path has at most %d segments", URI_SEGMENTS_MAX);
		if (check_segment(segment, rest.n == 0, err) == -1)
			return -1;
	}
	return 0;
}

enum route_method
route_method_of(struct slice name)
{
	enum route_method m = ROUTE_ANY_METHOD;

	while (m < ROUTE_NO_METHOD && !slice_equal(name, methods[m]))
		m++;
	return m;
}

int
route_check_method(const char *method, struct err *err)
{
	if (route_method_of(slice_of(method)) != ROUTE_NO_METHOD)
		return 0;
	return err_set(err, "a method is one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, or "
			    "\"*\" for any");
}

int
route_check_discriminator(const char *name, const char *value, bool header, struct err *err)
{
	struct slice n = slice_of(name), v = slice_of(value);

	if (n.n > DISCRIMINATOR_MAX || !consists_of(n, header ? TOKEN_CHARS : VALUE_CHARS))
		return err_set(err,
		    header ? "a header's name is a token of at most %d bytes"
			   : "a query parameter's name is letters, digits and -._~,"
			     " at most %d",
		    DISCRIMINATOR_MAX);
	if (v.n > DISCRIMINATOR_MAX || !consists_of(v, VALUE_CHARS))
		return err_set(err,
		    "a discriminator's value is letters, digits and -._~, at most "
		    "%d",
		    DISCRIMINATOR_MAX);
	return 0;
}

static bool
same_template(const char *a, const char *b)
{
	struct slice ra = slice_of(a), rb = slice_of(b), sa, sb;
	bool more;

	while ((more = route_next_segment(&ra, &sa)) == route_next_segment(&rb, &sb)) {
		if (!more)
			return true;
		if (!slice_equal(sa, sb) && !(route_is_parameter(sa) && route_is_parameter(sb)))
			return false;
	}
	return false;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool
route_spec_same(const struct route_spec *a, const struct route_spec *b)
{
	const char *ha = a->header_name, *hb = b->header_name;

	return strcmp(a->method, b->method) == 0 && same_template(a->path, b->path) &&
	       same_text(a->query_name, b->query_name) &&
	       same_text(a->query_value, b->query_value) &&
	       (ha == NULL || hb == NULL ? ha == hb : strcasecmp(ha, hb) == 0) &&
	       same_text(a->header_value, b->header_value);
}
