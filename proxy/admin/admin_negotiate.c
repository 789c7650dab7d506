#include "admin/admin_internal.h"

#include "keytrail/slice.h"

#include <string.h>

static struct slice
next_part(struct slice *rest, char separator)
{
	const char *end = memchr(rest->p, separator, rest->n);
	size_t n = end == NULL ? rest->n : (size_t)(end - rest->p);
	struct slice part = slice_trim(slice_sub(*rest, 0, n));

	*rest = slice_sub(*rest, end == NULL ? n : n + 1, rest->n);
	return part;
}

/* "0.75" -> 750; 0 where it is none (RFC 9110 section 12.4.2). */
static unsigned
parse_weight(struct slice s)
{
	unsigned weight = 0, place = 1000;

	for (size_t i = 0; i < s.n && place > 0; i++) {
		if (s.p[i] == '.' && i == 1)
			continue;
		if (s.p[i] < '0' || s.p[i] > '9')
			return 0;
		weight += (unsigned)(s.p[i] - '0') * place;
		place /= 10;
	}
	return weight > 1000 ? 0 : weight;
}

struct preference {
	unsigned openmetrics, text;
};

static void
weigh(struct slice range, struct preference *p)
{
	struct slice type = next_part(&range, ';');
	unsigned weight = 1000;
	bool ours = true;

	while (range.n > 0) {
		struct slice parameter = next_part(&range, ';');

		if (slice_has_prefix(parameter, SLICE("q=")))
			weight = parse_weight(slice_sub(parameter, 2, parameter.n));
		else if (slice_has_prefix(parameter, SLICE("version=")))
			ours = slice_equal(parameter, SLICE("version=1.0.0"));
	}
	if (slice_equal_nocase(type, SLICE("application/openmetrics-text")) && ours) {
		if (weight > p->openmetrics)
			p->openmetrics = weight;
	} else if (slice_equal_nocase(type, SLICE("text/plain")) ||
		   slice_equal(type, SLICE("text/*")) || slice_equal(type, SLICE("*/*"))) {
		if (weight > p->text)
			p->text = weight;
	}
}

enum metrics_format
admin_negotiate(const char *accept)
{
	struct preference p = { 0, 0 };
	struct slice rest = slice_of(accept == NULL ? "" : accept);

	while (rest.n > 0)
		weigh(next_part(&rest, ','), &p);
	return p.openmetrics > 0 && p.openmetrics >= p.text ? METRICS_OPENMETRICS_1_0_0
							    : METRICS_TEXT_0_0_4;
}
