#include "data/origin.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static const unsigned char mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

/* inet_ntop takes ten times as long. */
static void
ipv4_text(const unsigned char address[4], char *out)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned v = address[i];

		if (v >= 100)
			*out++ = (char)('0' + v / 100);
		if (v >= 10)
			*out++ = (char)('0' + v / 10 % 10);
		*out++ = (char)('0' + v % 10);
		*out++ = i < 3 ? '.' : '\0';
	}
}

static bool
is_none(const struct origin *o)
{
	static const struct origin none;

	return memcmp(o, &none, sizeof(none)) == 0;
}

void
origin_text(const struct origin *o, char out[ORIGIN_TEXT_SIZE])
{
	if (memcmp(o->address, mapped_prefix, sizeof(mapped_prefix)) == 0)
		ipv4_text(o->address + sizeof(mapped_prefix), out);
	else if (is_none(o))
		out[0] = '\0';
	else
		inet_ntop(AF_INET6, o->address, out, ORIGIN_TEXT_SIZE);
}

void
origin_of_peer(const struct sockaddr_storage *peer, struct origin *out)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;

	memset(out, 0, sizeof(*out));
	if (peer->ss_family == AF_INET) {
		memcpy(out->address, mapped_prefix, sizeof(mapped_prefix));
		memcpy(out->address + 12, &v4->sin_addr, 4);
	} else if (peer->ss_family == AF_INET6) {
		memcpy(out->address, &v6->sin6_addr, 16);
	}
}

static bool
parse(struct slice s, struct origin *out)
{
	char text[ORIGIN_TEXT_SIZE];

	if (s.n == 0 || s.n >= sizeof(text))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, out->address + 12) == 1)
		memcpy(out->address, mapped_prefix, sizeof(mapped_prefix));
	else if (inet_pton(AF_INET6, text, out->address) != 1)
		return false;
	return !is_none(out);
}

static bool
trusted(const struct config *c, const struct origin *o)
{
	return config_network_contains(c->trusted_networks, c->ntrusted_networks, o->address);
}

/* Cut the last element off a comma-separated list. */
static struct slice
last_element(struct slice *list)
{
	size_t i = list->n;
	struct slice element;

	while (i > 0 && list->p[i - 1] != ',')
		i--;
	element = slice_trim(slice_sub(*list, i, list->n));
	list->n = i > 0 ? i - 1 : 0;
	return element;
}

bool
origin_of_request(const struct config *config, const struct origin *peer,
    const struct http_head *head, struct origin *out)
{
	bool found = false;

	*out = *peer;
	if (config->ntrusted_networks == 0 || !trusted(config, peer))
		return false;
	/* Repeated fields are one list (RFC 9110 section 5.3), so the last field comes first. */
	for (unsigned i = head->nfields; i-- > 0;) {
		struct slice list = head->fields[i].value;
		struct origin o;

		if (head->fields[i].id != HTTP_F_X_FORWARDED_FOR)
			continue;
		while (list.n > 0) {
			if (!parse(last_element(&list), &o))
				return found;
			*out = o;
			found = true;
			if (!trusted(config, &o))
				return true;
		}
	}
	return found;
}
