#include "tls_internal.h"

#include <arpa/inet.h>
#include <string.h>

/* RFC 6125 section 6.4.3: a wildcard is the whole of the first label and stands for one. */
static enum tls_fit
name_fit(struct slice pattern, struct slice host)
{
	const char *dot;

	if (pattern.n < 2 || memcmp(pattern.p, "*.", 2) != 0)
		return slice_equal_nocase(pattern, host) ? TLS_FIT_EXACT : TLS_FIT_NONE;
	dot = memchr(host.p, '.', host.n);
	return dot != NULL && dot != host.p &&
		       slice_equal_nocase(slice_sub(pattern, 1, pattern.n),
			   slice_sub(host, (size_t)(dot - host.p), host.n))
		   ? TLS_FIT_WILDCARD
		   : TLS_FIT_NONE;
}

/* The DNS name, or an empty slice where it is none. */
static struct slice
dns_name(const GENERAL_NAME *name)
{
	if (name->type != GEN_DNS)
		return (struct slice){ "", 0 };
	return (struct slice){ (const char *)ASN1_STRING_get0_data(name->d.dNSName),
		(size_t)ASN1_STRING_length(name->d.dNSName) };
}

enum tls_fit
tls_names_fit(const GENERAL_NAMES *names, struct slice host)
{
	enum tls_fit best = TLS_FIT_NONE, fit;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		struct slice name = dns_name(sk_GENERAL_NAME_value(names, i));

		if (name.n > 0 && (fit = name_fit(name, host)) > best)
			best = fit;
	}
	return best;
}

bool
tls_has_dns_name(const GENERAL_NAMES *names)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		if (dns_name(sk_GENERAL_NAME_value(names, i)).n > 0)
			return true;
	return false;
}

/* The parser lets nothing but an IPv6 address stand in brackets. */
static bool
is_address(struct slice host)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr v4;

	if (host.n > 0 && host.p[0] == '[')
		return true;
	if (host.n >= sizeof(text))
		return false;
	slice_to_cstr(host, text, sizeof(text));
	return inet_pton(AF_INET, text, &v4) == 1;
}

static struct slice
without_port(struct slice host)
{
	const char *colon = memchr(host.p, ':', host.n);

	if (colon == NULL || host.p[0] == '[')
		return host;
	return slice_sub(host, 0, (size_t)(colon - host.p));
}

bool
tls_names_serve(const GENERAL_NAMES *names, struct slice host)
{
	host = without_port(host);
	return is_address(host) || tls_names_fit(names, host) != TLS_FIT_NONE;
}
