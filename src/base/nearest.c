#include "keytrail/nearest.h"

#include "keytrail/slice.h"

#include <ctype.h>

#define WORD_MAX   64
#define PREFIX_MIN 4

static size_t
smallest(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

static bool
same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Edits (insert, delete, replace, swap of neighbours) that make b of a; both at most WORD_MAX. */
static size_t
edit_distance(struct slice a, struct slice b)
{
	size_t rows[3][WORD_MAX + 1], *before = rows[0], *above = rows[1], *row = rows[2];

	for (size_t j = 0; j <= b.n; j++)
		above[j] = before[j] = j;
	for (size_t i = 1; i <= a.n; i++) {
		size_t *recycled = before;

		row[0] = i;
		for (size_t j = 1; j <= b.n; j++) {
			size_t replace = above[j - 1] + !same_letter(a.p[i - 1], b.p[j - 1]);

			row[j] = smallest(above[j] + 1, row[j - 1] + 1, replace);
			if (i > 1 && j > 1 && same_letter(a.p[i - 1], b.p[j - 2]) &&
			    same_letter(a.p[i - 2], b.p[j - 1]) && before[j - 2] + 1 < row[j])
				row[j] = before[j - 2] + 1;
		}
		before = above;
		above = row;
		row = recycled;
	}
	return above[b.n];
}

/* One is an abbreviation of the other. */
static bool
is_prefix(struct slice a, struct slice b)
{
	size_t n = a.n < b.n ? a.n : b.n;

	return n >= PREFIX_MIN && slice_equal_nocase(slice_sub(a, 0, n), slice_sub(b, 0, n));
}

const char *
nearest_word(const char *meant, nearest_get_fn get, const void *list, size_t n)
{
	struct slice m = slice_of(meant);
	const char *best = NULL;
	size_t distance = m.n < 6 ? 1 : m.n / 3;

	if (m.n > WORD_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		struct slice w = slice_of(get(list, i));
		size_t d;

		if (w.n > WORD_MAX || w.n == 0)
			continue;
		d = edit_distance(m, w);
		if (d > distance && is_prefix(m, w))
			d = distance;
		if (d <= distance && d < w.n) {
			best = w.p;
			distance = d - (d > 0);
		}
	}
	return best;
}
