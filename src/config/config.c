#include "config_table.h"

#include "keytrail/pattern.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define RING_MULTIPLE 4096

/* What config_load hands out is the first member. */
struct holder {
	struct config pub;
	atomic_uint refs;
	struct arena arena;
};

/* A check across members; the tree tells where to point. */
typedef int (*cross_check_fn)(
    const struct config_reader *r, const struct tree *root, struct config *cfg);

static const struct tree *
find(const struct tree *root, const char *object, const char *name)
{
	const struct tree *o = tree_get(root, object), *m = tree_get(o, name);

	return m != NULL ? m : o != NULL ? o : root;
}

static char *
with_port(struct arena *arena, const char *host, uint16_t port, uint16_t usual)
{
	bool v6 = strchr(host, ':') != NULL;
	size_t n = strlen(host) + 16;
	char *s = arena_alloc(arena, n);

	if (s == NULL)
		return NULL;
	if (port == usual)
		snprintf(s, n, v6 ? "[%s]" : "%s", host);
	else
		snprintf(s, n, v6 ? "[%s]:%u" : "%s:%u", host, port);
	return s;
}

/* `tls` is in the object `at`; by default the certificate has to be for the host. */
static int
check_tls(const struct config_reader *r, const struct tree *at, struct config_tls *tls, char *host)
{
	if ((tls->certificate == NULL) != (tls->key == NULL))
		return tree_error(find(at, "tls", "certificate"), r->err,
		    "a client certificate needs both \"certificate\" and \"key\"");
	if (tls->on && tls->server_name == NULL)
		tls->server_name = host;
	return 0;
}

static int
check_upstream(const struct config_reader *r, const struct tree *root, struct config *cfg)
{
	const struct tree *upstream = tree_get(root, "upstream");
	const struct tree *many = tree_get(upstream, "addresses");
	struct config_upstream *u = &cfg->upstream;

	if (tree_get(upstream, "address") != NULL && many != NULL)
		return tree_error(many, r->err,
		    "\"address\" and \"addresses\" together; one is "
		    "enough");
	if (u->naddresses == 0)
		return tree_error(
		    upstream, r->err, "\"upstream\" has no \"address\"; it is required");
	if (check_tls(r, upstream, &u->tls, u->addresses[0].host) == -1)
		return -1;
	u->pass_host = u->host != NULL && strcmp(u->host, "pass") == 0;
	if (u->host == NULL || u->pass_host) {
		u->host = with_port(r->arena, u->tls.on ? u->tls.server_name : u->addresses[0].host,
		    u->addresses[0].port, u->tls.on ? 443 : 80);
		if (u->host == NULL)
			return err_set(r->err, "memory is short");
	}
	return 0;
}

static bool
is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (strcmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return (ntohl(v4.s_addr) >> 24) == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool
same_secret(const struct config_secret *a, const struct config_secret *b)
{
	return b->bytes != NULL && a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
}

/* Each tells who asks: by name, and by its bytes. */
static int
check_tokens(const struct config_reader *r, const struct tree *admin, const struct config_admin *a)
{
	const struct tree *tokens = tree_get(admin, "tokens");
	const struct tree *at = tokens != NULL ? tokens->first : NULL;

	for (size_t i = 0; at != NULL; i++, at = at->next) {
		bool twice = same_secret(&a->tokens[i].token, &a->token);

		if (strcmp(a->tokens[i].name, "none") == 0)
			return tree_error(tree_get(at, "name"), r->err,
			    "no token is named \"none\": it would read as if none was asked for");
		for (size_t j = 0; j < i; j++) {
			if (strcmp(a->tokens[i].name, a->tokens[j].name) == 0)
				return tree_error(tree_get(at, "name"), r->err,
				    "two tokens are named \"%s\"", a->tokens[i].name);
			twice = twice || same_secret(&a->tokens[i].token, &a->tokens[j].token);
		}
		if (twice)
			return tree_error(tree_get(at, "token"), r->err,
			    "the token of \"%s\" is another's, too", a->tokens[i].name);
	}
	return 0;
}

static int
check_admin(const struct config_reader *r, const struct tree *root, struct config *cfg)
{
	const struct tree *admin = tree_get(root, "admin");

	if (!cfg->admin.enabled)
		return 0;
	if (check_tokens(r, admin, &cfg->admin) == -1)
		return -1;
	if (cfg->admin.address.host == NULL && cfg->admin.socket == NULL)
		return tree_error(
		    admin, r->err, "\"admin\" has neither \"address\" nor \"socket\"");
	if (cfg->admin.address.host == NULL || cfg->admin.token.bytes != NULL ||
	    cfg->admin.ntokens > 0)
		return 0;
	if (tree_get(admin, "token") == NULL)
		return tree_error(admin, r->err,
		    "\"admin\" has no \"token\"; wanted {\"file\": "
		    "\"...\"}, or \"tokens\", or null on a loopback address");
	if (!is_loopback(cfg->admin.address.host))
		return tree_error(find(root, "admin", "token"), r->err,
		    "\"admin.token\" is null, but \"admin.address\" is no loopback address");
	return 0;
}

static bool
is_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	while (n > 1 && folder[n - 1] == '/')
		n--;
	return strncmp(path, folder, n) == 0 && path[n] == '/';
}

static int
check_audit(const struct config_reader *r, const struct tree *root, struct config *cfg)
{
	const struct config_audit *a = &cfg->audit;

	if (a->ring_size % RING_MULTIPLE != 0)
		return tree_error(find(root, "audit", "ring_size"), r->err,
		    "\"audit.ring_size\" is no multiple of 4KiB");
	if (a->spacing_min_us > a->spacing_max_us)
		return tree_error(find(root, "audit", "spacing"), r->err,
		    "\"audit.spacing.min\" is above \"audit.spacing.max\"");
	if (a->hmac_key.bytes == NULL && a->key_ids == EVENT_KEY_HMAC)
		return tree_error(find(root, "audit", "key_ids"), r->err,
		    "\"audit.key_ids\" is \"hmac\", which needs \"audit.hmac_key\"");
	if (a->hmac_key.bytes == NULL && a->identity_name == EVENT_NAME_HMAC)
		return tree_error(find(root, "audit", "identity_name"), r->err,
		    "\"audit.identity_name\" is \"hmac\", which needs \"audit.hmac_key\"");
	if (a->sign.path != NULL && is_below(a->sign.path, a->trail))
		return tree_error(find(root, "audit", "sign"), r->err,
		    "\"audit.sign\": the key is in the trail's directory, where whoever alters the "
		    "trail finds it");
	return 0;
}

static int
check_limits(const struct config_reader *r, const struct tree *root, struct config *cfg)
{
	if (cfg->limits.target > cfg->limits.head)
		return tree_error(find(root, "limits", "target"), r->err,
		    "\"limits.target\" is above \"limits.head\"");
	return 0;
}

static bool
is_https(const char *url)
{
	return strncmp(url, "https://", 8) == 0;
}

static bool
has_credentials(const struct config_http *h)
{
	return h->bearer.path != NULL || h->basic.user != NULL || h->nheaders > 0 ||
	       h->api_key.path != NULL;
}

/* Which way of saying who we are the receiver understands. */
static int
check_credentials(const struct config_reader *r, const struct tree *at, const struct config_http *h)
{
	bool ibm = h->preset == CONFIG_HTTP_IBM_CLOUD_LOGS;

	if ((h->basic.user == NULL) != (h->basic.password.path == NULL))
		return tree_error(tree_get(at, "basic"), r->err,
		    "\"basic\" needs both \"user\" and \"password\"");
	if (ibm != (h->api_key.path != NULL))
		return tree_error(
		    at, r->err, "\"api_key\" is for the preset \"ibm-cloud-logs\", which needs it");
	if (h->preset == CONFIG_HTTP_SPLUNK_HEC && h->bearer.path == NULL)
		return tree_error(at, r->err, "the preset \"splunk-hec\" needs a \"bearer\"");
	if ((h->bearer.path != NULL) + (h->basic.user != NULL) + ibm > 1)
		return tree_error(at, r->err,
		    "a request has one Authorization: wanted one of \"bearer\", \"basic\" and "
		    "\"api_key\"");
	return 0;
}

/* What a receiver understands; `at` says whether there was a choice. */
static int
check_http_format(const struct config_reader *r, const struct tree *at, struct config_sink *s)
{
	enum config_http_preset preset = s->http.preset;
	bool elastic = preset == CONFIG_HTTP_ELASTICSEARCH || preset == CONFIG_HTTP_OPENSEARCH;
	const struct tree *format = tree_get(at, "format");

	if (format == NULL && elastic)
		s->format = CONFIG_FORMAT_ECS;
	if (format == NULL && preset == CONFIG_HTTP_CLOUDEVENTS)
		s->format = CONFIG_FORMAT_CLOUDEVENTS;
	if (preset == CONFIG_HTTP_CLOUDEVENTS && s->format != CONFIG_FORMAT_CLOUDEVENTS)
		return tree_error(format, r->err,
		    "the preset \"cloudevents\" has the format \"cloudevents\" only");
	if (preset != CONFIG_HTTP_NDJSON && s->format == CONFIG_FORMAT_CEF)
		return tree_error(format, r->err,
		    "the format \"cef\" is none of JSON, and for the preset \"ndjson\" only");
	return 0;
}

static int
check_http(const struct config_reader *r, const struct tree *at, struct config_sink *s)
{
	const struct config_http *h = &s->http;

	if (has_credentials(h) && !is_https(h->url))
		return tree_error(tree_get(at, "url"), r->err, "credentials need \"https\"");
	if (!is_https(h->iam_url))
		return tree_error(tree_get(at, "iam_url"), r->err, "\"iam_url\" needs \"https\"");
	if (tree_get(at, "tls") != NULL && !is_https(h->url))
		return tree_error(
		    tree_get(at, "tls"), r->err, "\"tls\" needs \"https\" in \"url\"");
	if (check_tls(r, at, &s->tls, NULL) == -1 || check_http_format(r, at, s) == -1)
		return -1;
	return check_credentials(r, at, h);
}

static int
check_kafka(const struct config_reader *r, const struct tree *at, struct config_sink *s)
{
	if (s->kafka.sasl.on && !s->tls.on)
		return tree_error(tree_get(at, "sasl"), r->err, "\"sasl\" needs \"tls\"");
	return check_tls(r, at, &s->tls, NULL);
}

static int
check_syslog(const struct config_reader *r, const struct tree *at, struct config_sink *s)
{
	if (s->address.port == 0)
		return tree_error(tree_get(at, "address"), r->err,
		    "\"address\" has port 0; wanted a port to connect to, 1 to 65535");
	if (s->tls.on && s->transport != CONFIG_SYSLOG_TLS)
		return tree_error(
		    tree_get(at, "tls"), r->err, "\"tls\" is for \"transport\": \"tls\"");
	s->tls.on = s->transport == CONFIG_SYSLOG_TLS;
	return check_tls(r, at, &s->tls, s->address.host);
}

static int
check_sinks(const struct config_reader *r, const struct tree *root, struct config *cfg)
{
	const struct tree *sinks = tree_get(root, "sinks");
	const struct tree *at = sinks != NULL ? sinks->first : NULL;

	for (size_t i = 0; i < cfg->nsinks && at != NULL; i++, at = at->next) {
		struct config_sink *s = &cfg->sinks[i];

		if ((s->type == CONFIG_SINK_SYSLOG && check_syslog(r, at, s) == -1) ||
		    (s->type == CONFIG_SINK_HTTP && check_http(r, at, s) == -1) ||
		    (s->type == CONFIG_SINK_KAFKA && check_kafka(r, at, s) == -1))
			return -1;
		for (const struct config_sink *other = cfg->sinks; other != s; other++) {
			if (strcmp(s->name, other->name) == 0)
				return tree_error(tree_get(at, "name"), r->err,
				    "two sinks are named \"%s\"", s->name);
			if (s->path != NULL && other->path != NULL &&
			    strcmp(s->path, other->path) == 0)
				return tree_error(
				    tree_get(at, "path"), r->err, "two sinks write to %s", s->path);
		}
	}
	return 0;
}

static int
check_listen(const struct config_reader *r, const struct tree *root, struct config *cfg)
{
	const struct tree *tls = tree_get(tree_get(root, "listen"), "tls");

	if (cfg->listen.client_crl != NULL && cfg->listen.client_ca == NULL)
		return tree_error(tree_get(tls, "client_crl"), r->err,
		    "\"listen.tls.client_crl\" needs \"listen.tls.client_ca\"");
	if (cfg->listen.client_optional && cfg->listen.client_ca == NULL)
		return tree_error(tree_get(tls, "client_certificate"), r->err,
		    "\"listen.tls.client_certificate\" needs \"listen.tls.client_ca\"");
	return 0;
}

static bool
matches_action(const struct config *cfg, const char *pattern)
{
	bool old = cfg->audit.vocabulary == EVENT_2019;

	for (size_t i = 0; i < route_table_size(cfg->routes); i++) {
		const struct route *r = route_table_get(cfg->routes, i);

		if (pattern_matches(pattern, slice_of(old ? r->action_2019 : r->action)))
			return true;
	}
	/* For a sink that shall have nothing but the sidecar's own life. */
	return strcmp(pattern, "keytrail.*") == 0;
}

/* When the routes are known. */
static int
check_filters(const struct config_reader *r, const struct tree *root, struct config *cfg)
{
	const struct tree *sink = tree_get(root, "sinks");
	const struct tree *at;

	sink = sink != NULL ? sink->first : NULL;
	for (size_t i = 0; sink != NULL; i++, sink = sink->next) {
		const struct config_patterns *p = &cfg->sinks[i].filter.actions;

		at = tree_get(tree_get(sink, "filter"), "actions");
		at = at != NULL ? at->first : NULL;
		for (size_t j = 0; at != NULL; j++, at = at->next)
			if (!matches_action(cfg, p->all[j]))
				return tree_error(at, r->err,
				    "sink \"%s\": no route has an action like \"%s\"",
				    cfg->sinks[i].name, at->text.p);
	}
	return 0;
}

static const cross_check_fn cross_checks[] = { check_listen, check_upstream, check_admin,
	check_audit, check_limits, check_sinks };

static int
read_root(struct holder *h, const struct tree *root, const char *routes_dir, struct err *err)
{
	const struct config_reader r = { &h->arena, err };

	if (config_read_object(&r, &config_file_table, "", root, root, &h->pub) == -1)
		return -1;
	for (size_t i = 0; i < sizeof(cross_checks) / sizeof(cross_checks[0]); i++)
		if (cross_checks[i](&r, root, &h->pub) == -1)
			return -1;
	if (config_read_routes(&r, root, routes_dir, &h->pub) == -1 ||
	    check_filters(&r, root, &h->pub) == -1)
		return -1;
	return config_digest(&h->pub, h->pub.digest, err);
}

static const char *
installed_routes(const char *routes_dir)
{
	if (routes_dir == NULL)
		routes_dir = getenv("KEYTRAIL_ROUTES_DIR");
	return routes_dir != NULL ? routes_dir : KEYTRAIL_ROUTES;
}

static int
load(const struct source *source, const char *routes_dir, struct config **out, struct err *err)
{
	struct holder *h = calloc(1, sizeof(*h));
	struct arena scratch = { NULL };
	struct tree *root;
	int rc = -1;

	if (h == NULL)
		return err_set(err, "%s: memory is short", source->name);
	atomic_init(&h->refs, 1);
	h->pub.path = arena_copy(&h->arena, source->name, strlen(source->name));
	if (h->pub.path == NULL)
		err_set(err, "%s: memory is short", source->name);
	else if (tree_parse(source, &scratch, &root, err) == 0)
		rc = read_root(h, root, installed_routes(routes_dir), err);
	arena_free(&scratch);
	if (rc == -1) {
		config_unref(&h->pub);
		return -1;
	}
	*out = &h->pub;
	return 0;
}

int
config_load(const char *path, const char *routes_dir, struct config **out, struct err *err)
{
	struct arena scratch = { NULL };
	struct source source;
	int rc = config_read_file(path, &scratch, &source, err);

	if (rc == 0)
		rc = load(&source, routes_dir, out, err);
	arena_free(&scratch);
	return rc;
}

int
config_load_text(const char *path, struct slice text, const char *routes_dir, struct config **out,
    struct err *err)
{
	const struct source source = { path, text };

	return load(&source, routes_dir, out, err);
}

const char *
config_sink_type_name(enum config_sink_type type)
{
	const struct config_sink s = { .type = type };

	return member_kind(&config_sink_table, &s);
}

bool
config_sink_is_remote(const struct config_sink *s)
{
	return s->type != CONFIG_SINK_STDOUT && s->type != CONFIG_SINK_FILE;
}

const struct config_sink *
config_remote_sink(const struct config *c)
{
	for (size_t i = 0; i < c->nsinks; i++)
		if (config_sink_is_remote(&c->sinks[i]))
			return &c->sinks[i];
	return NULL;
}

/* The count is the one thing about a configuration that changes. */
static struct holder *
holder_of(const struct config *c)
{
	union {
		const struct config *shared;
		struct holder *holder;
	} u = { c };

	return u.holder;
}

struct config *
config_ref(const struct config *c)
{
	struct holder *h = holder_of(c);

	atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
	return &h->pub;
}

void
config_unref(const struct config *c)
{
	struct holder *h;

	if (c == NULL)
		return;
	h = holder_of(c);
	if (atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1)
		return;
	route_table_free(h->pub.routes);
	arena_free(&h->arena);
	free(h);
}
