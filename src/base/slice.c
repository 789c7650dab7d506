#include "keytrail/slice.h"

#include "keytrail/lanes.h"

#include <assert.h>

static inline lanes
lower(lanes b)
{
	return b | ((lanes)(b - 'A' < 26) & 0x20);
}

static inline bool
are_equal(lanes a, lanes b)
{
	return !lanes_any((lanes)(lower(a) != lower(b)));
}

bool
slice_equal_nocase(struct slice a, struct slice b)
{
	if (a.n != b.n)
		return false;
	if (a.n < LANES)
		return a.n == 0 ||
		       are_equal(lanes_load_short(a.p, a.n), lanes_load_short(b.p, b.n));
	for (size_t i = 0; i < a.n - LANES; i += LANES)
		if (!are_equal(lanes_load(a.p + i), lanes_load(b.p + i)))
			return false;
	return are_equal(lanes_load(a.p + a.n - LANES), lanes_load(b.p + b.n - LANES));
}

struct slice
slice_without_eol(struct slice s)
{
	s.n -= s.n > 0 && s.p[s.n - 1] == '\n';
	s.n -= s.n > 0 && s.p[s.n - 1] == '\r';
	return s;
}

struct slice
slice_trim(struct slice s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

int
slice_to_u64(struct slice s, uint64_t *out)
{
	uint64_t v = 0;

	if (s.n == 0)
		return -1;
	for (size_t i = 0; i < s.n; i++) {
		unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';

		if (digit > 9 || v > (UINT64_MAX - digit) / 10)
			return -1;
		v = v * 10 + digit;
	}
	*out = v;
	return 0;
}

void
slice_to_cstr(struct slice s, char *out, size_t size)
{
	assert(s.n < size);
	memcpy(out, s.p, s.n);
	out[s.n] = '\0';
}
