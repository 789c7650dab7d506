#include "admin/admin_internal.h"

#include <arpa/inet.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

/* The one value of a header: NULL when there is none; *repeated when there are more. */
static const char *
find_one(struct evhttp_request *req, const char *name, bool *repeated)
{
	struct evkeyvalq *headers = evhttp_request_get_input_headers(req);
	const char *value = NULL;
	struct evkeyval *h;

	*repeated = false;
	for (h = headers->tqh_first; h != NULL; h = h->next.tqe_next) {
		if (strcasecmp(h->key, name) != 0)
			continue;
		*repeated = value != NULL;
		value = h->value;
	}
	return value;
}

/* Without port and brackets: false when it does not fit. */
static bool
host_name(const char *header, char *out, size_t n)
{
	const char *end;

	if (*header == '[') {
		header++;
		if ((end = strchr(header, ']')) == NULL)
			return false;
	} else {
		end = header + strcspn(header, ":");
	}
	if ((size_t)(end - header) >= n)
		return false;
	memcpy(out, header, (size_t)(end - header));
	out[end - header] = '\0';
	return true;
}

static bool
is_address(const char *host, bool *loopback)
{
	struct in_addr v4;
	struct in6_addr v6;

	*loopback = false;
	if (inet_pton(AF_INET, host, &v4) == 1) {
		*loopback = ntohl(v4.s_addr) >> 24 == 127;
		return true;
	}
	if (inet_pton(AF_INET6, host, &v6) == 1) {
		*loopback = IN6_IS_ADDR_LOOPBACK(&v6) ||
			    (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
		return true;
	}
	return false;
}

/* A page of another site whose name was made to resolve to us (DNS rebinding) has its name here. */
static bool
host_allowed(const char *bound, const char *header)
{
	char host[256];
	bool loopback, address;

	if (header == NULL || !host_name(header, host, sizeof(host)))
		return false;
	address = is_address(host, &loopback);
	if (loopback || strcasecmp(host, "localhost") == 0)
		return true;
	if (bound == NULL)
		return false;
	if (strcmp(bound, "0.0.0.0") == 0 || strcmp(bound, "::") == 0)
		return address;
	return strcasecmp(host, bound) == 0;
}

static bool
same_site(struct evhttp_request *req, const char *host)
{
	bool repeated_origin, repeated_site;
	const char *origin = find_one(req, "Origin", &repeated_origin);
	const char *site = find_one(req, "Sec-Fetch-Site", &repeated_site);

	if (repeated_origin || repeated_site)
		return false;
	if (site != NULL && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
		return false;
	return origin == NULL ||
	       (strncmp(origin, "http://", 7) == 0 && strcmp(origin + 7, host) == 0);
}

static bool
token_allowed(struct evhttp_request *req, const struct config_secret *token)
{
	bool repeated;
	const char *given = find_one(req, "Authorization", &repeated);

	if (token == NULL || token->bytes == NULL)
		return true;
	if (given == NULL || repeated || strncasecmp(given, "Bearer ", 7) != 0)
		return false;
	given += 7;
	return strlen(given) == token->n && CRYPTO_memcmp(given, token->bytes, token->n) == 0;
}

bool
admin_may_ask(struct evhttp_request *req, const char *bound, const struct config_secret *token,
    struct admin_refusal *why)
{
	bool repeated;
	const char *host = find_one(req, "Host", &repeated);

	if (repeated || !host_allowed(bound, host))
		*why = (struct admin_refusal){ 403, "Host is not an address of this listener\n" };
	else if (!same_site(req, host))
		*why = (struct admin_refusal){ 403, "requests of other sites are refused\n" };
	else if (!token_allowed(req, token))
		*why = (struct admin_refusal){ 401, "a bearer token is needed\n" };
	else
		return true;
	return false;
}
