/*
 * fuzz_routes: any bytes as a routes file; then any request against what came of it.
 *
 * The input is a routes file, a NUL, and a request head.  Where there is no NUL, or the file is
 * bad, the request is matched against the shipped set.
 */
#include "keytrail/config.h"
#include "keytrail/parse.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char shipped[] =
    "{\"listen\":{\"address\":\"127.0.0.1:1\",\"tls\":null},"
    "\"upstream\":{\"address\":\"127.0.0.1:2\",\"tls\":null},"
    "\"audit\":{\"trail\":\"trail\",\"sign\":null},\"include\":[\"key-protect.json\"]}";

static struct config *
load(struct slice text)
{
	struct config *cfg = NULL;
	struct err err = { "" };

	if (config_load_text("f.json", text, "proxy/routes", &cfg, &err) == 0)
		return cfg;
	assert(cfg == NULL);
	assert(err.msg[0] != '\0' && strchr(err.msg, '\n') == NULL);
	return NULL;
}

/* Loaded once: it is the same for every input. */
static const struct config *
shipped_set(void)
{
	static struct config *cfg;

	if (cfg == NULL && (cfg = load(slice_of(shipped))) == NULL)
		abort();
	return cfg;
}

static void
check_shape(const char shape[ROUTE_SHAPE_SIZE])
{
	assert(memchr(shape, '\0', ROUTE_SHAPE_SIZE) != NULL);
	for (const char *p = shape; *p != '\0'; p++)
		assert(*p > 0x20 && *p < 0x7f);
}

static void
match(const struct config *cfg, struct slice request)
{
	const struct http_limits limits = { 32768, 8192, HTTP_FIELDS_MAX };
	struct http_scan scan = { 0 };
	enum http_refusal refusal;
	struct route_match m, again;
	struct http_head head;
	char why[256];
	size_t used;

	if (http_parse_request(&scan, request, &limits, &head, &used, &refusal) != HTTP_DONE)
		return;
	route_match(cfg->routes, &head, &m);
	assert(m.route == route_table_get(cfg->routes, m.route->index));
	assert(m.matched == (m.shape[0] == '\0'));
	assert(!m.matched || !m.route->fallback);
	check_shape(m.shape);
	route_match(cfg->routes, &head, &again);
	assert(again.route == m.route && again.refusal == m.refusal);
	route_explain(cfg->routes, &head, why, sizeof(why));
	assert(why[0] != '\0');
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	const char *nul = size > 0 ? memchr(text, '\0', size) : NULL;
	size_t n = nul != NULL ? (size_t)(nul - text) : size;
	struct slice request = nul != NULL ? (struct slice){ nul + 1, size - n - 1 } : SLICE_EMPTY;
	struct config *cfg = load((struct slice){ text, n });

	match(
	    cfg != NULL ? cfg : shipped_set(), request.n > 0 ? request : (struct slice){ text, n });
	config_unref(cfg);
	return 0;
}
