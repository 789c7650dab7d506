#include "admin/admin_internal.h"

#include "keytrail/sha256.h"

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

static bool
is_listed(const struct config_admin *config, const char *host)
{
	for (size_t i = 0; i < config->nhosts; i++)
		if (strcasecmp(config->hosts[i], host) == 0)
			return true;
	return false;
}

/* A page of another site whose name was made to resolve to us (DNS rebinding) has its name here. */
static bool
host_allowed(const char *bound, const struct config_admin *config, const char *header)
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
	if (is_listed(config, host))
		return true;
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

/* A link, a bookmark, what is typed: the page opens by itself, whoever asked for it reads none of it. */
static bool
is_navigation(struct evhttp_request *req)
{
	bool repeated;
	const char *mode = find_one(req, "Sec-Fetch-Mode", &repeated);

	return mode != NULL && !repeated && strcmp(mode, "navigate") == 0 &&
	       evhttp_request_get_command(req) == EVHTTP_REQ_GET;
}

/* Compared by their hashes, each with all: how long it takes tells nothing of any. */
static void
look_up(const struct config_admin *config, const char *given, struct admin_ask *out)
{
	unsigned char wanted[SHA256_SIZE], found[SHA256_SIZE];

	sha256_joined(slice_of(given), SLICE_EMPTY, found);
	for (size_t i = 0; i <= config->ntokens; i++) {
		bool own = i == config->ntokens;
		const struct config_secret *s = own ? &config->token : &config->tokens[i].token;

		if (s->bytes == NULL)
			continue;
		sha256_joined((struct slice){ (const char *)s->bytes, s->n }, SLICE_EMPTY, wanted);
		if (CRYPTO_memcmp(wanted, found, sizeof(wanted)) != 0)
			continue;
		out->token = own ? "admin.token" : config->tokens[i].name;
		out->role = own || !config->tokens[i].operates ? "viewer" : "operator";
	}
}

/* What is wrong with the token; METRIC_ADMIN_REFUSALS: nothing.  A right one always passes, for others
 * may share its address: a port that is forwarded has them all come from loopback. */
static enum metric_admin_refusal
check_token(struct admin_ask *ask, const struct config_admin *config, int64_t now)
{
	struct attempts *attempts = &ask->door->admin->attempts;
	bool repeated;
	const char *given = find_one(ask->req, "Authorization", &repeated);

	if (config->token.bytes == NULL && config->ntokens == 0)
		return METRIC_ADMIN_REFUSALS;
	if (given == NULL)
		return METRIC_ADMIN_NO_TOKEN;
	if (!repeated && strncasecmp(given, "Bearer ", 7) == 0)
		look_up(config, given + 7, ask);
	if (strcmp(ask->token, "none") != 0)
		return METRIC_ADMIN_REFUSALS;
	if (!attempts_allow(attempts, ask->address, now))
		return METRIC_ADMIN_TOO_OFTEN;
	attempts_count(attempts, ask->address, now);
	return METRIC_ADMIN_WRONG_TOKEN;
}

enum metric_admin_refusal
admin_look_at(struct admin_ask *ask, int64_t now)
{
	const struct admin *a = ask->door->admin;
	const struct config_admin *config = &a->opts.config(a->opts.arg)->admin;
	bool repeated;
	const char *host = find_one(ask->req, "Host", &repeated);

	if (repeated || !host_allowed(ask->door->host, config, host))
		return METRIC_ADMIN_HOST;
	if (!same_site(ask->req, host) && !(ask->open && is_navigation(ask->req)))
		return METRIC_ADMIN_SITE;
	if (ask->open || ask->door->operates)
		return METRIC_ADMIN_REFUSALS;
	return check_token(ask, config, now);
}
