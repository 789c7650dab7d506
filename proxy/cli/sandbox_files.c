#include "cli/sandbox_internal.h"

#include <stddef.h>

struct visit {
	int (*fn)(void *arg, const char *path, struct err *err);
	void *arg;
	struct err *err;
};

/* Those that are not given are NULL. */
static int
each(const struct visit *v, const char *const *paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (paths[i] != NULL && v->fn(v->arg, paths[i], v->err) == -1)
			return -1;
	return 0;
}

static int
each_certificate(const struct visit *v, const struct config_certificate *c)
{
	const char *const paths[] = { c->certificate, c->key, c->ocsp };

	return each(v, paths, 3);
}

static int
each_of_tls(const struct visit *v, const struct config_tls *tls)
{
	const char *const paths[] = { tls->ca, tls->certificate, tls->key };

	return each(v, paths, 3);
}

static int
each_of_http(const struct visit *v, const struct config_http *http)
{
	const char *const paths[] = { http->bearer.path, http->basic.password.path,
		http->api_key.path };

	for (size_t i = 0; i < http->nheaders; i++)
		if (each(v, (const char *const[]){ http->headers[i].value.path }, 1) == -1)
			return -1;
	return each(v, paths, 3);
}

int
sandbox_each_file(const struct config *c,
    int (*visit)(void *arg, const char *path, struct err *err), void *arg, struct err *err)
{
	const struct visit v = { visit, arg, err };
	const char *const paths[] = { c->path, c->listen.client_ca, c->listen.client_crl,
		c->audit.hmac_key.path, c->audit.sign.path, c->admin.token.path };

	if (each(&v, paths, sizeof(paths) / sizeof(paths[0])) == -1 ||
	    each(&v, (const char *const *)c->includes, c->nincludes) == -1 ||
	    each_certificate(&v, &c->listen.own) == -1 || each_of_tls(&v, &c->upstream.tls) == -1)
		return -1;
	for (size_t i = 0; i < c->listen.ncertificates; i++)
		if (each_certificate(&v, &c->listen.certificates[i]) == -1)
			return -1;
	for (size_t i = 0; i < c->nsinks; i++)
		if (each_of_tls(&v, &c->sinks[i].tls) == -1 ||
		    each_of_http(&v, &c->sinks[i].http) == -1 ||
		    each(&v, (const char *const[]){ c->sinks[i].kafka.sasl.password.path }, 1) ==
			-1)
			return -1;
	for (size_t i = 0; i < c->admin.ntokens; i++)
		if (each(&v, (const char *const[]){ c->admin.tokens[i].token.path }, 1) == -1)
			return -1;
	return 0;
}
