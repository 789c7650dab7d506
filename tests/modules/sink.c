/*
 * A module that takes every event and keeps none, for the tests of what loads modules.  Named "picky"
 * it rejects failures.
 *
 * MODULE_ABI, MODULE_VERSION and MODULE_NAME: to be another one.
 */

#include "keytrail/buf.h"
#include "keytrail/sink.h"

#include <stdlib.h>
#include <string.h>

#ifndef MODULE_ABI
#define MODULE_ABI SINK_ABI
#endif
#ifndef MODULE_VERSION
#define MODULE_VERSION KEYTRAIL_VERSION
#endif
#ifndef MODULE_NAME
#define MODULE_NAME keytrail_sink
#endif

struct null_sink {
	struct buf taken;
	bool picky; /* its name */
};

static int
null_open(const struct config_sink *cfg, void **state, struct err *err)
{
	struct null_sink *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return err_set(err, "%s: memory is short", cfg->name);
	s->picky = strcmp(cfg->name, "picky") == 0;
	*state = s;
	return 0;
}

static void
null_close(void *state)
{
	struct null_sink *s = state;

	buf_fini(&s->taken);
	free(s);
}

/* Of failures, and of what tells of them. */
static bool
is_wrong(const struct null_sink *s, const struct sink_event *e)
{
	static const struct slice failure = SLICE_INIT("\"outcome\":\"failure\"");

	return s->picky && !e->stub && memmem(e->line.p, e->line.n, failure.p, failure.n) != NULL;
}

/* Through code of libkeytrail, of which a module has its own. */
static enum sink_result
null_deliver(void *state, const struct sink_event *events, size_t n, int64_t deadline_ns,
    size_t *done, struct err *err)
{
	struct null_sink *s = state;

	(void)deadline_ns;
	for (*done = 0; *done < n; ++*done) {
		if (is_wrong(s, &events[*done])) {
			err_set(err, "of failures it will not hear");
			return SINK_REJECT;
		}
		if (buf_append_slice(&s->taken, events[*done].text) == -1) {
			err_set(err, "memory is short");
			return SINK_RETRY;
		}
		buf_consume(&s->taken, buf_size(&s->taken));
	}
	return SINK_OK;
}

static int
null_probe(const struct config_sink *cfg, int64_t deadline_ns, struct buf *found, struct err *err)
{
	(void)deadline_ns;
	if (strcmp(cfg->name, "picky") == 0)
		return err_set(err, "it wants to be left alone");
	return buf_printf(found, "it is there");
}

static const struct sink_ops null_ops = { .type = "null",
	.open = null_open,
	.close = null_close,
	.deliver = null_deliver,
	.probe = null_probe };

extern const struct sink_module MODULE_NAME;
const struct sink_module MODULE_NAME = {
	.abi = MODULE_ABI, .version = MODULE_VERSION, .ops = &null_ops
};
