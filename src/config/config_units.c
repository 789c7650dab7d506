#include "config_table.h"

#include <arpa/inet.h>
#include <stdlib.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit byte_units[] = {
	{ "B", 1 },
	{ "KiB", UINT64_C(1) << 10 },
	{ "MiB", UINT64_C(1) << 20 },
	{ "GiB", UINT64_C(1) << 30 },
	{ "TiB", UINT64_C(1) << 40 },
	{ NULL, 0 },
};

static const struct unit time_units[] = {
	{ "ns", 1 },
	{ "us", UINT64_C(1000) },
	{ "ms", UINT64_C(1000000) },
	{ "s", UINT64_C(1000000000) },
	{ "m", UINT64_C(60000000000) },
	{ "h", UINT64_C(3600000000000) },
	{ "d", UINT64_C(86400000000000) },
	{ NULL, 0 },
};

/* "<digits><unit>" as a whole number of `divisor`. */
static int
with_unit(const char *text, const struct unit *units, uint64_t divisor, uint64_t *out)
{
	size_t n = strspn(text, "0123456789");
	uint64_t v;

	if (slice_to_u64((struct slice){ text, n }, &v) == -1)
		return -1;
	for (const struct unit *u = units; u->name != NULL; u++) {
		uint64_t product;

		if (strcmp(text + n, u->name) != 0)
			continue;
		if (__builtin_mul_overflow(v, u->factor, &product) || product % divisor != 0)
			return -1;
		*out = product / divisor;
		return 0;
	}
	return -1;
}

int
config_bytes_of(const char *text, uint64_t *out)
{
	return with_unit(text, byte_units, 1, out);
}

int
config_time_of(const char *text, uint64_t unit_ns, uint64_t *out)
{
	return with_unit(text, time_units, unit_ns, out);
}

static bool
is_host(struct slice s, bool bracketed)
{
	const char *chars = bracketed ? "0123456789abcdefABCDEF:."
				      : "abcdefghijklmnopqrstuvwxyz"
					"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789-._";

	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '\0' || strchr(chars, s.p[i]) == NULL)
			return false;
	return s.n > 0 && s.n <= 253 && s.p[0] != '.';
}

int
config_address_of(const char *text, struct slice *host, uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	bool bracketed = text[0] == '[';
	uint64_t v;

	if (colon == NULL || slice_to_u64(slice_of(colon + 1), &v) == -1 || v > 65535)
		return -1;
	*host = (struct slice){ text, (size_t)(colon - text) };
	if (bracketed) {
		if (host->n < 3 || host->p[host->n - 1] != ']')
			return -1;
		*host = slice_sub(*host, 1, host->n - 1);
	}
	*port = (uint16_t)v;
	return is_host(*host, bracketed) ? 0 : -1;
}

static int
parse_ip(const char *text, unsigned char out[16], unsigned *width)
{
	static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (inet_pton(AF_INET6, text, out) == 1) {
		*width = 128;
		return 0;
	}
	memcpy(out, mapped, sizeof(mapped));
	*width = 32;
	return inet_pton(AF_INET, text, out + sizeof(mapped)) == 1 ? 0 : -1;
}

static bool
has_host_bits(const struct config_network *net)
{
	for (unsigned bit = net->bits; bit < 128; bit++)
		if ((net->address[bit / 8] >> (7 - bit % 8) & 1) != 0)
			return true;
	return false;
}

int
config_network_of(const char *text, struct config_network *out, struct err *err)
{
	const char *slash = strchr(text, '/');
	char ip[INET6_ADDRSTRLEN];
	size_t n = slash == NULL ? strlen(text) : (size_t)(slash - text);
	unsigned width;
	uint64_t bits;

	if (n >= sizeof(ip))
		return err_set(err, "wanted a network, like \"10.0.0.0/8\" or \"fd00::/8\"");
	memcpy(ip, text, n);
	ip[n] = '\0';
	if (parse_ip(ip, out->address, &width) == -1)
		return err_set(err, "wanted a network, like \"10.0.0.0/8\" or \"fd00::/8\"");
	bits = width;
	if (slash != NULL && (slice_to_u64(slice_of(slash + 1), &bits) == -1 || bits > width))
		return err_set(err, "wanted a prefix length from 0 to %u", width);
	out->bits = (unsigned)bits + 128 - width;
	if (has_host_bits(out))
		return err_set(err, "the address has bits beyond its prefix length");
	return 0;
}

bool
config_network_contains(
    const struct config_network *nets, size_t n, const unsigned char address[16])
{
	for (size_t i = 0; i < n; i++) {
		unsigned whole = nets[i].bits / 8, rest = nets[i].bits % 8;
		unsigned char mask = (unsigned char)(0xff00u >> rest);

		if (memcmp(nets[i].address, address, whole) == 0 &&
		    (rest == 0 || ((nets[i].address[whole] ^ address[whole]) & mask) == 0))
			return true;
	}
	return false;
}
