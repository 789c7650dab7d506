#include "admin/attempts.h"

#include "data/peers.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static void
source_of(const char *text, unsigned char out[16])
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
	unsigned char address[16] = { 0 };
	char bare[INET6_ADDRSTRLEN];

	snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(text, "%"), text);
	if (inet_pton(AF_INET, bare, address + sizeof(mapped)) == 1)
		memcpy(address, mapped, sizeof(mapped));
	else
		inet_pton(AF_INET6, bare, address);
	peers_source(address, out);
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
