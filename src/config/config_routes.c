#include "config_table.h"

#include "keytrail/nearest.h"

#include <stdlib.h>
#include <unistd.h>

#define ROUTES_MAX	   20000
#define DEFAULT_HEADER	   "Correlation-Id"
#define DEFAULT_NAME	   "Key service"
#define DEFAULT_CRN_NAME   "kms"
#define DEFAULT_TYPE_URI   "kms/secrets"
#define GRAMMAR_UUID	   "uuid"
#define GRAMMAR_IDENTIFIER "id"

/* A value that several sets may give, and where the one that stands is from. */
struct setting {
	const char *value; /* NULL: not given yet */
	const struct tree *at;
	bool own; /* given by the file itself: no set overrides it */
};

enum setting_id {
	SETTING_DEFAULT,
	SETTING_HEADER,
	SETTING_GRAMMAR,
	SETTING_NAME,
	SETTING_CRN_NAME,
	SETTING_TYPE_URI,
	SETTING_COUNT,
};

static const char *const setting_names[] = {
	[SETTING_DEFAULT] = "default",
	[SETTING_HEADER] = "correlation.header",
	[SETTING_GRAMMAR] = "correlation.grammar",
	[SETTING_NAME] = "service.name",
	[SETTING_CRN_NAME] = "service.crn_name",
	[SETTING_TYPE_URI] = "service.type_uri",
};

struct gathering {
	struct config_reader r; /* into an arena that ends with the gathering */
	struct arena *kept;	/* the configuration's */
	const char *routes_dir;
	struct config *cfg;
	struct route_spec *specs;
	size_t n, nown; /* the file's own ones come first */
	struct setting settings[SETTING_COUNT];
};

static int
no_memory(const struct gathering *g, const struct tree *at)
{
	return tree_error(at, g->r.err, "memory is short");
}

/* ---- settings ---- */

static int
settle(struct gathering *g, enum setting_id id, const char *value, const struct tree *at, bool own)
{
	struct setting *s = &g->settings[id];
	const char *where;

	if (value == NULL || s->own)
		return 0;
	if (s->value == NULL) {
		*s = (struct setting){ value, at, own };
		return 0;
	}
	if (strcmp(s->value, value) == 0)
		return 0;
	if ((where = tree_where(s->at, g->r.arena)) == NULL)
		return no_memory(g, at);
	return tree_error(at, g->r.err,
	    "the sets differ in \"%s\" (%s has another); say in the file "
	    "which one stands",
	    setting_names[id], where);
}

static const char *
grammar_name(unsigned grammar)
{
	if (grammar == CONFIG_GRAMMAR_UNSET)
		return NULL;
	return grammar == SCRUB_UUID ? GRAMMAR_UUID : GRAMMAR_IDENTIFIER;
}

static int
settle_all(struct gathering *g, const struct config_set *set, const struct tree *at, bool own)
{
	const char *const values[] = {
		[SETTING_DEFAULT] = set->default_action,
		[SETTING_HEADER] = set->correlation_header,
		[SETTING_GRAMMAR] = grammar_name(set->correlation_grammar),
		[SETTING_NAME] = set->service_name,
		[SETTING_CRN_NAME] = set->service_crn_name,
		[SETTING_TYPE_URI] = set->service_type_uri,
	};

	const struct tree *action = tree_get(at, setting_names[SETTING_DEFAULT]);

	for (unsigned i = 0; i < SETTING_COUNT; i++)
		if (settle(g, i, values[i], i == SETTING_DEFAULT && action != NULL ? action : at,
			own) == -1)
			return -1;
	return 0;
}

/* What the file itself says of what a set can say. */
static int
read_own_settings(struct gathering *g, const struct tree *root)
{
	const struct tree *correlation = tree_get(root, "correlation");
	const struct tree *action = tree_get(root, "default");
	struct config_set set = {
		.correlation_grammar = CONFIG_GRAMMAR_UNSET,
		.service_name = g->cfg->service.name,
		.service_crn_name = g->cfg->service.crn_name,
		.service_type_uri = g->cfg->service.type_uri,
	};
	struct err why;
	char q[QUOTED_SIZE];

	if (action != NULL) {
		if (action->type != TREE_STRING)
			return tree_error(action, g->r.err, "\"default\" is %s; wanted an action",
			    tree_type_name(action->type));
		if (route_check_action(action->text.p, &why) == -1)
			return tree_error(action, g->r.err, "\"default\" is %s; %s",
			    quoted(action->text.p, q), why.msg);
		set.default_action = arena_copy(g->r.arena, action->text.p, action->text.n);
		if (set.default_action == NULL)
			return no_memory(g, action);
	}
	if (correlation != NULL && config_read_object(&g->r, &config_set_table, "correlation",
				       correlation, correlation, &set) == -1)
		return -1;
	return settle_all(g, &set, root, true);
}

/* ---- routes ---- */

static const char *
method_name(const void *list, size_t i)
{
	return ((const char *const *)list)[i];
}

static int
check_method(const struct gathering *g, const struct tree *at)
{
	static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE",
		"OPTIONS" };
	const char *near;
	struct err why;
	char q[QUOTED_SIZE];

	if (route_check_method(at->text.p, &why) == 0)
		return 0;
	near = nearest_word(at->text.p, method_name, methods, sizeof(methods) / sizeof(methods[0]));
	if (near != NULL)
		return tree_error(at, g->r.err, "unknown method %s; did you mean \"%s\"?",
		    quoted(at->text.p, q), near);
	return tree_error(at, g->r.err, "unknown method %s; %s", quoted(at->text.p, q), why.msg);
}

static bool
is_replaced(const struct gathering *g, const struct route_spec *spec)
{
	for (size_t i = 0; i < g->nown; i++)
		if (route_spec_same(&g->specs[i], spec))
			return true;
	return false;
}

static int
read_route(struct gathering *g, const struct tree *at)
{
	struct config_route route = { .spec = { .guarantee = g->cfg->audit.guarantee } };

	if (g->n == ROUTES_MAX)
		return tree_error(at, g->r.err, "more than %d routes", ROUTES_MAX);
	if (config_read_object(&g->r, &config_route_table, "", at, at, &route) == -1 ||
	    check_method(g, tree_get(at, "method")) == -1)
		return -1;
	if (tree_get(at, "fallback") == NULL)
		route.spec.fallback = strcmp(route.spec.method, "*") == 0;
	if (route.naliases > 0)
		route.spec.action_2019 = route.aliases[0];
	if ((route.spec.where = tree_where(at, g->r.arena)) == NULL)
		return no_memory(g, at);
	if (!is_replaced(g, &route.spec))
		g->specs[g->n++] = route.spec;
	return 0;
}

static int
read_routes(struct gathering *g, const struct tree *routes)
{
	size_t n = 0;
	void *more;

	if (routes->type != TREE_ARRAY)
		return tree_error(routes, g->r.err, "\"routes\" is %s; wanted an array",
		    tree_type_name(routes->type));
	for (const struct tree *at = routes->first; at != NULL; at = at->next)
		n++;
	more = realloc(g->specs, (g->n + n + 1) * sizeof(g->specs[0]));
	if (more == NULL)
		return no_memory(g, routes);
	g->specs = more;
	for (const struct tree *at = routes->first; at != NULL; at = at->next)
		if (read_route(g, at) == -1)
			return -1;
	return 0;
}

/* ---- sets ---- */

static int
read_set(struct gathering *g, const struct source *source)
{
	struct config_set set = { .correlation_grammar = CONFIG_GRAMMAR_UNSET };
	const struct tree *routes;
	struct tree *root;

	if (tree_parse(source, g->r.arena, &root, g->r.err) == -1 ||
	    config_read_object(&g->r, &config_set_table, "", root, root, &set) == -1)
		return -1;
	if ((routes = tree_get(root, "routes")) == NULL)
		return tree_error(root, g->r.err, "the set has no \"routes\"; they are required");
	if (settle_all(g, &set, root, false) == -1)
		return -1;
	return read_routes(g, routes);
}

static const char *
find_set(struct gathering *g, const struct tree *at)
{
	const char *file = at->text.p;
	const char *beside = config_resolve(g->r.arena, at->source->name, file);
	char *installed;
	size_t n = strlen(g->routes_dir);

	if (beside == NULL || file[0] == '/' || access(beside, F_OK) == 0)
		return beside;
	if ((installed = arena_alloc(g->r.arena, n + strlen(file) + 2)) == NULL)
		return NULL;
	memcpy(installed, g->routes_dir, n);
	installed[n] = '/';
	memcpy(installed + n + 1, file, strlen(file));
	return access(installed, F_OK) == 0 ? installed : beside;
}

static int
read_include(struct gathering *g, const struct tree *at)
{
	struct source *source = arena_alloc(g->r.arena, sizeof(*source));
	const char *path;
	struct err why;
	char q[QUOTED_SIZE];

	if (at->type != TREE_STRING || at->text.n == 0)
		return tree_error(at, g->r.err, "\"include\" holds %s; wanted names of route sets",
		    at->type == TREE_STRING ? "\"\"" : tree_type_name(at->type));
	if (source == NULL || (path = find_set(g, at)) == NULL)
		return no_memory(g, at);
	if (access(path, F_OK) == -1)
		return tree_error(at, g->r.err, "no route set %s beside the file or in %s",
		    quoted(at->text.p, q), g->routes_dir);
	if ((g->cfg->includes[g->cfg->nincludes++] = arena_copy(g->kept, path, strlen(path))) ==
	    NULL)
		return no_memory(g, at);
	if (config_read_file(path, g->r.arena, source, &why) == -1)
		return tree_error(at, g->r.err, "%s", why.msg);
	return read_set(g, source);
}

static int
read_includes(struct gathering *g, const struct tree *include)
{
	const struct tree *at, *other;
	size_t n = 0;

	if (include == NULL)
		return 0;
	if (include->type != TREE_ARRAY)
		return tree_error(include, g->r.err, "\"include\" is %s; wanted an array",
		    tree_type_name(include->type));
	for (at = include->first; at != NULL; at = at->next)
		n++;
	if ((g->cfg->includes = arena_alloc(g->kept, (n + 1) * sizeof(char *))) == NULL)
		return no_memory(g, include);
	for (at = include->first; at != NULL; at = at->next) {
		for (other = include->first; other != at; other = other->next)
			if (at->type == TREE_STRING && slice_equal(at->text, other->text))
				return tree_error(at, g->r.err, "the same set is included twice");
		if (read_include(g, at) == -1)
			return -1;
	}
	return 0;
}

/* ---- the whole ---- */

static int
keep(const struct config_reader *r, const struct gathering *g, enum setting_id id,
    const char *fallback, char **out)
{
	const char *value = g->settings[id].value;

	if (value == NULL)
		value = fallback;
	if ((*out = arena_copy(r->arena, value, strlen(value))) == NULL)
		return err_set(r->err, "memory is short");
	return 0;
}

static int
finish(const struct config_reader *r, struct gathering *g, const struct tree *root)
{
	const struct setting *action = &g->settings[SETTING_DEFAULT];
	const char *grammar = g->settings[SETTING_GRAMMAR].value;
	struct config *cfg = g->cfg;

	if (action->value == NULL)
		return tree_error(root, r->err,
		    "no \"default\": what a request outside every route is "
		    "called; include a route set or say it here");
	if (g->n == 0)
		return tree_error(
		    root, r->err, "no routes: \"include\" a route set or list \"routes\"");
	if (keep(r, g, SETTING_HEADER, DEFAULT_HEADER, &cfg->correlation_header) == -1 ||
	    keep(r, g, SETTING_NAME, DEFAULT_NAME, &cfg->service.name) == -1 ||
	    keep(r, g, SETTING_CRN_NAME, DEFAULT_CRN_NAME, &cfg->service.crn_name) == -1 ||
	    keep(r, g, SETTING_TYPE_URI, DEFAULT_TYPE_URI, &cfg->service.type_uri) == -1)
		return -1;
	cfg->correlation_grammar = SCRUB_UUID;
	if (grammar != NULL && strcmp(grammar, GRAMMAR_IDENTIFIER) == 0)
		cfg->correlation_grammar = SCRUB_CORRELATION;
	const char *single[] = { cfg->correlation_header };
	const struct route_options opts = {
		.default_action = action->value,
		.default_where = tree_where(action->at, g->r.arena),
		.default_guarantee = cfg->audit.guarantee,
		.single_headers = single,
		.nsingle_headers = 1,
	};
	return route_compile(g->specs, g->n, &opts, &cfg->routes, r->err);
}

int
config_read_routes(const struct config_reader *r, const struct tree *root, const char *routes_dir,
    struct config *cfg)
{
	struct arena scratch = { NULL };
	struct gathering g = {
		.r = { &scratch, r->err },
		.kept = r->arena,
		.routes_dir = routes_dir,
		.cfg = cfg,
	};
	const struct tree *routes = tree_get(root, "routes");
	int rc = read_own_settings(&g, root);

	if (rc == 0 && routes != NULL)
		rc = read_routes(&g, routes);
	g.nown = g.n;
	if (rc == 0)
		rc = read_includes(&g, tree_get(root, "include"));
	if (rc == 0)
		rc = finish(r, &g, root);
	free(g.specs);
	arena_free(&scratch);
	return rc;
}
