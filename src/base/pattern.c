#include "keytrail/pattern.h"

/* Where the rest does not fit, only the last '*' can take one byte more: what came before it fits as
 * early as it can. */
bool
pattern_matches(const char *pattern, struct slice text)
{
	const char *p = pattern, *after_star = NULL;
	size_t i = 0, taken = 0;

	while (i < text.n) {
		if (*p == '*') {
			after_star = ++p;
			taken = i;
		} else if (*p != '\0' && (*p == '?' || *p == text.p[i])) {
			p++;
			i++;
		} else if (after_star != NULL) {
			p = after_star;
			i = ++taken;
		} else {
			return false;
		}
	}
	while (*p == '*')
		p++;
	return *p == '\0';
}
