#include "data/location.h"

#include "keytrail/chars.h"

static bool
is_legal(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!chars_is(s.p[i], CHARS_PCHAR) &&
		    (s.p[i] == '\0' || strchr("/?#%[]", s.p[i]) == NULL))
			return false;
	return true;
}

/* Bytes before the first one of `stops`, or all. */
static size_t
span_to(struct slice s, const char *stops)
{
	size_t n = 0;

	while (n < s.n && strchr(stops, s.p[n]) == NULL)
		n++;
	return n;
}

static struct slice
without_port(struct slice authority, struct slice port)
{
	size_t n = authority.n - port.n;

	if (authority.n > port.n && slice_equal(slice_sub(authority, n, authority.n), port))
		return slice_sub(authority, 0, n);
	return authority;
}

/* A scheme, its default port, or "" for a reference that keeps the client's. */
static const struct {
	struct slice name, port;
} schemes[] = {
	{ SLICE_INIT("https:"), SLICE_INIT(":443") },
	{ SLICE_INIT("http:"), SLICE_INIT(":80") },
	{ SLICE_INIT(""), SLICE_INIT(":443") },
};

static bool
is_ours(struct slice authority, struct slice port, struct slice service, struct slice client)
{
	struct slice plain = without_port(authority, port);

	return plain.n > 0 && (slice_equal_nocase(plain, without_port(service, port)) ||
				  slice_equal_nocase(plain, without_port(client, port)));
}

bool
location_rewrite(
    struct slice value, struct slice service, struct slice client, bool *rooted, struct slice *rest)
{
	size_t scheme = span_to(value, ":/?#"), i = 0, n;

	*rooted = false;
	*rest = value;
	if (!is_legal(value))
		return false;
	scheme = scheme < value.n && value.p[scheme] == ':' ? scheme + 1 : 0;
	*rest = slice_sub(value, scheme, value.n);
	if (!slice_has_prefix(*rest, SLICE("//")))
		return scheme == 0;
	while (!slice_equal_nocase(slice_sub(value, 0, scheme), schemes[i].name))
		if (++i == sizeof(schemes) / sizeof(schemes[0]))
			return false;
	*rest = slice_sub(*rest, 2, rest->n);
	n = span_to(*rest, "/?#");
	if (!is_ours(slice_sub(*rest, 0, n), schemes[i].port, service, client))
		return false;
	*rest = slice_sub(*rest, n, rest->n);
	*rooted = rest->n == 0 || rest->p[0] != '/';
	/* An empty first segment would be read as an authority. */
	return !slice_has_prefix(*rest, SLICE("//"));
}
