#include "admin/attempts.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static void
source_of(const char *address, unsigned char out[16])
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
	char bare[INET6_ADDRSTRLEN];

	snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(address, "%"), address);
	memset(out, 0, 16);
	if (inet_pton(AF_INET, bare, out + sizeof(mapped)) == 1)
		memcpy(out, mapped, sizeof(mapped));
	else if (inet_pton(AF_INET6, bare, out) == 1 && memcmp(out, mapped, sizeof(mapped)) != 0)
		memset(out + 8, 0, 8);
}

/* Its place, or else that of whoever has the least to wait. */
static unsigned
place_of(const struct attempts *a, const unsigned char source[16], bool *known)
{
	unsigned least = 0;

	for (unsigned i = 0; i < ATTEMPTS_SOURCES; i++) {
		*known = memcmp(a->all[i].source, source, 16) == 0;
		if (*known)
			return i;
		if (a->all[i].due < a->all[least].due)
			least = i;
	}
	return least;
}

bool
attempts_allow(const struct attempts *a, const char *address, int64_t now)
{
	unsigned char source[16];
	unsigned i;
	bool known;

	source_of(address, source);
	i = place_of(a, source, &known);
	return !known || a->all[i].due - now <= (ATTEMPTS_MAX - 1) * ATTEMPTS_EACH_NS;
}

void
attempts_count(struct attempts *a, const char *address, int64_t now)
{
	unsigned char source[16];
	unsigned i;
	bool known;

	source_of(address, source);
	i = place_of(a, source, &known);
	if (!known || a->all[i].due < now)
		a->all[i].due = now;
	a->all[i].due += ATTEMPTS_EACH_NS;
	memcpy(a->all[i].source, source, 16);
}
