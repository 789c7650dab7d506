/*
 * Which action a request is: what is passed has the same one for every server that could stand
 * behind, or none.
 *
 * The input is a request's head; a byte 1 in it repeats the next one, since there are limits of
 * length that no mutation gets past.  The servers read the shipped set anew, and one with headers and
 * overrides, and differ in how they take a path, a query and fields apart; none is strict.
 */
#include "keytrail/config.h"
#include "keytrail/parse.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#define SEGMENTS_MAX 64
#define SIGNS_MAX    4
#define TEXT_MAX     4096
#define RUN	     257

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What servers do, a bit each. */
enum {
	DECODES = 1,	   /* before it splits the path; else each segment on its own */
	DECODES_TWICE = 2, /* then, and names and values too */
	FOLDS = 4,	   /* capitals and small letters are one */
	CUTS = 8, /* a segment's parameters after ';', a path after what decodes to '?' or '#' */
	LAST_WINS = 16,	    /* of parameters or fields of one name, of the members of a list */
	BACKSLASH = 32,	    /* is a slash; and ';' between parameters */
	DECODES_QUERY = 64, /* before it splits that */
	OVERLONG = 128,	    /* reads overlong UTF-8 as what it stands for */
	SERVERS = 256,
};

/* ---- text ---- */

static void
decode(char *s)
{
	char *out = s, hex[3] = { 0 };

	for (; *s != '\0'; s++) {
		if (*s != '%' || !isxdigit((unsigned char)s[1]) || !isxdigit((unsigned char)s[2])) {
			*out++ = *s;
			continue;
		}
		memcpy(hex, s + 1, 2);
		*out = (char)strtol(hex, NULL, 16);
		out += *out != '\0';
		s += 2;
	}
	*out = '\0';
}

/* ASCII that was written with two bytes. */
static void
shorten(char *s)
{
	char *out = s;

	for (; *s != '\0'; s++) {
		unsigned lead = (unsigned char)s[0], next = (unsigned char)s[1];

		if ((lead & 0xfe) == 0xc0 && (next & 0xc0) == 0x80) {
			*out = (char)((lead & 1) << 6 | (next & 0x3f));
			out += *out != '\0';
			s++;
		} else {
			*out++ = (char)lead;
		}
	}
	*out = '\0';
}

static void
decode_as(char *s, unsigned server)
{
	for (int i = 0; i < ((server & DECODES_TWICE) != 0 ? 2 : 1); i++) {
		decode(s);
		if ((server & OVERLONG) != 0)
			shorten(s);
	}
}

static bool
is_same(const char *a, const char *b, unsigned server)
{
	return (server & FOLDS) != 0 ? strcasecmp(a, b) == 0 : strcmp(a, b) == 0;
}

/* ---- how a server takes a target apart ---- */

struct target {
	char path[TEXT_MAX], query[TEXT_MAX], fields[TEXT_MAX];
	char *segments[SEGMENTS_MAX];
	unsigned n;
	const char *values[SIGNS_MAX]; /* of each sign of the set, or NULL */
};

/* A parameter or a field that tells routes apart. */
struct sign {
	const char *kind, *name; /* "query" or "header" */
};

struct set {
	const char *path;
	json_t *file;
	struct config *config;
	struct sign signs[SIGNS_MAX];
	unsigned nsigns;
};

static void
split_path(struct target *t, unsigned server)
{
	const char *slashes = (server & BACKSLASH) != 0 ? "/\\" : "/";
	char *save = NULL;

	if ((server & DECODES) != 0)
		decode_as(t->path, server);
	if ((server & CUTS) != 0)
		t->path[strcspn(t->path, "?#")] = '\0';
	t->n = 0;
	for (char *s = strtok_r(t->path, slashes, &save); s != NULL && t->n < SEGMENTS_MAX;
	     s = strtok_r(NULL, slashes, &save)) {
		if ((server & CUTS) != 0)
			s[strcspn(s, ";")] = '\0';
		if ((server & DECODES) == 0)
			decode_as(s, server);
		if (strcmp(s, "..") == 0)
			t->n -= t->n > 0;
		else if (strcmp(s, ".") != 0)
			t->segments[t->n++] = s;
	}
}

static void
take(const struct set *set, struct target *t, const char *kind, const char *name, const char *value,
    unsigned server)
{
	for (unsigned i = 0; i < set->nsigns; i++)
		if (strcmp(set->signs[i].kind, kind) == 0 &&
		    is_same(name, set->signs[i].name, server) &&
		    (t->values[i] == NULL || (server & LAST_WINS) != 0))
			t->values[i] = value;
}

static void
find_parameters(const struct set *set, struct target *t, unsigned server)
{
	char *save = NULL;

	if ((server & DECODES_QUERY) != 0)
		decode_as(t->query, server);
	for (char *s = strtok_r(t->query, (server & BACKSLASH) != 0 ? "&;" : "&", &save); s != NULL;
	     s = strtok_r(NULL, (server & BACKSLASH) != 0 ? "&;" : "&", &save)) {
		char *value = strchr(s, '=');

		if (value != NULL)
			*value++ = '\0';
		decode_as(s, server);
		s += strspn(s, " +");
		s[strcspn(s, "[ +")] = '\0';
		if (value != NULL)
			decode_as(value, server);
		take(set, t, "query", s, value != NULL ? value : "", server);
	}
}

/* "name\nvalue\n" of each; some servers read names as CGI does, and all read them in any case. */
static void
find_fields(const struct set *set, struct target *t, unsigned server)
{
	char *save = NULL, *value;

	for (char *s = strtok_r(t->fields, "\n", &save); s != NULL;
	     s = strtok_r(NULL, "\n", &save)) {
		value = strtok_r(NULL, "\n", &save) + 1;
		for (char *c = s; (server & FOLDS) != 0 && *c != '\0'; c++)
			*c = isalnum((unsigned char)*c) ? *c : '-';
		if ((server & LAST_WINS) != 0 && strrchr(value, ',') != NULL)
			value = strrchr(value, ',') + 1;
		value += strspn(value, " \t");
		value[strcspn(value, ", \t")] = '\0';
		take(set, t, "header", s, value, server | FOLDS);
	}
}

/* ---- which route it takes ---- */

/* How well a template stands for the segments: a digit each, '2' a literal, '1' a parameter. */
static bool
rate(const char *path, const struct target *t, unsigned server, char score[SEGMENTS_MAX + 2])
{
	char copy[512], *save = NULL;
	unsigned i = 0;

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *s = strtok_r(copy, "/", &save); s != NULL; s = strtok_r(NULL, "/", &save), i++) {
		if (i == t->n || strcmp(s, "**") == 0 ||
		    (s[0] != '{' && !is_same(s, t->segments[i], server)))
			return false;
		score[i] = s[0] == '{' ? '1' : '2';
	}
	score[i] = '\0';
	return i == t->n;
}

/* Are the signs that a route asks for there?  *n: how many it asks for. */
static bool
has_signs(
    const struct set *set, const json_t *route, const struct target *t, unsigned server, int *n)
{
	*n = 0;
	for (unsigned i = 0; i < set->nsigns; i++) {
		const char *wanted = json_string_value(json_object_get(
		    json_object_get(route, set->signs[i].kind), set->signs[i].name));

		if (wanted == NULL)
			continue;
		if (t->values[i] == NULL || !is_same(wanted, t->values[i], server))
			return false;
		++*n;
	}
	return true;
}

static bool
is_of_all(const json_t *route)
{
	const char *path = json_string_value(json_object_get(route, "path"));

	return json_is_true(json_object_get(route, "fallback")) || strstr(path, "**") != NULL;
}

/* The action of the best route, or NULL. */
static const char *
choose(const struct set *set, const char *method, const struct target *t, unsigned server)
{
	const char *best = NULL;
	char best_score[SEGMENTS_MAX + 2] = "";
	size_t i;
	json_t *route;

	json_array_foreach(json_object_get(set->file, "routes"), i, route)
	{
		char score[SEGMENTS_MAX + 2];
		int nsigns;

		if (is_of_all(route) ||
		    strcmp(json_string_value(json_object_get(route, "method")), method) != 0 ||
		    !rate(json_string_value(json_object_get(route, "path")), t, server, score) ||
		    !has_signs(set, route, t, server, &nsigns))
			continue;
		strcat(score, nsigns > 0 ? "1" : "0");
		if (best == NULL || strcmp(score, best_score) > 0) {
			best = json_string_value(json_object_get(route, "action"));
			memcpy(best_score, score, sizeof(best_score));
		}
	}
	return best;
}

/* ---- both ---- */

static void
add_sign(struct set *set, const char *kind, const char *name)
{
	for (unsigned i = 0; i < set->nsigns; i++)
		if (strcmp(set->signs[i].kind, kind) == 0 && strcmp(set->signs[i].name, name) == 0)
			return;
	if (set->nsigns == SIGNS_MAX)
		abort();
	set->signs[set->nsigns++] = (struct sign){ kind, name };
}

static void
read_set(struct set *set)
{
	static const char *const kinds[] = { "query", "header" };
	char text[512], here[256];
	struct err err;
	const char *name;
	json_t *route, *value;
	size_t i;

	snprintf(text, sizeof(text),
	    "{\"listen\":{\"address\":\"127.0.0.1:1\",\"tls\":null},"
	    "\"upstream\":{\"address\":\"127.0.0.1:2\",\"tls\":null},"
	    "\"audit\":{\"trail\":\"trail\",\"sign\":null},\"include\":[\"%s\"]}",
	    set->path);
	if (getcwd(here, sizeof(here)) == NULL ||
	    (set->file = json_load_file(set->path, 0, NULL)) == NULL ||
	    config_load_text("f.json", slice_of(text), here, &set->config, &err) == -1)
		abort();
	json_array_foreach(json_object_get(set->file, "routes"), i, route) for (unsigned kind = 0;
										kind < 2; kind++)
	    json_object_foreach(json_object_get(route, kinds[kind]), name, value)
		add_sign(set, kinds[kind], name);
}

static void
read_head(struct target *t, const struct http_head *head)
{
	size_t n = 0;

	snprintf(t->path, sizeof(t->path), "%.*s", SLICE_ARG(head->path));
	snprintf(t->query, sizeof(t->query), "%.*s", SLICE_ARG(head->query));
	t->fields[0] = '\0';
	for (unsigned i = 0; i < head->nfields && n < sizeof(t->fields); i++)
		n += (size_t)snprintf(t->fields + n, sizeof(t->fields) - n, "%.*s\n %.*s\n",
		    SLICE_ARG(head->fields[i].name), SLICE_ARG(head->fields[i].value));
	memset(t->values, 0, sizeof(t->values));
}

static void
check_server(const struct set *set, const struct http_head *head, const struct route_match *m,
    unsigned server)
{
	static struct target t;
	char method[16];
	const char *action;

	snprintf(method, sizeof(method), "%.*s", SLICE_ARG(head->method));
	read_head(&t, head);
	split_path(&t, server);
	find_parameters(set, &t, server);
	find_fields(set, &t, server);
	action = choose(set, method, &t, server);
	if (action == NULL || (m->matched && strcmp(action, m->route->action) == 0))
		return;
	fprintf(stderr, "%.*s %.*s is %s, and %s to server %#x\n", SLICE_ARG(head->method),
	    SLICE_ARG(head->target), m->matched ? m->route->action : "unmatched", action, server);
	abort();
}

static void
check_set(struct set *set, const struct http_head *head)
{
	struct route_match m;
	unsigned servers;

	if (set->config == NULL)
		read_set(set);
	route_match(set->config->routes, head, &m);
	/* Those that read overlong UTF-8 differ only where something is encoded. */
	servers = memchr(head->target.p, '%', head->target.n) != NULL ? SERVERS : OVERLONG;
	for (unsigned server = 0; server < servers && m.refusal == REFUSAL_NONE; server++)
		check_server(set, head, &m, server);
}

static struct slice
expand(const uint8_t *data, size_t size, char out[TEXT_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < size && n < TEXT_MAX - RUN; i++) {
		size_t run = data[i] == 1 && i + 1 < size ? RUN : 1;

		i += run > 1;
		memset(out + n, data[i], run);
		n += run;
	}
	return (struct slice){ out, n };
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char text[TEXT_MAX];
	static const struct http_limits limits = { .head = TEXT_MAX, .target = 2048, .fields = 24 };
	static struct http_head head;
	static struct set sets[] = { { .path = "proxy/routes/key-protect.json" },
		{ .path = "tests/wire/headers.json" } };
	struct http_scan scan = { 0 };
	enum http_refusal refusal;
	size_t used;

	if (http_parse_request(&scan, expand(data, size, text), &limits, &head, &used, &refusal) !=
	    HTTP_DONE)
		return 0;
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		check_set(&sets[i], &head);
	return 0;
}
