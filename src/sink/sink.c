#include "keytrail/sink.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	const struct sink_ops *ops; /* NULL: in a module */
} types[CONFIG_SINK_TYPES] = {
	[CONFIG_SINK_STDOUT] = { "stdout", &sink_stdout_ops },
	[CONFIG_SINK_FILE] = { "file", &sink_file_ops },
	[CONFIG_SINK_SYSLOG] = { "syslog", &sink_syslog_ops },
	[CONFIG_SINK_HTTP] = { "http", NULL },
	[CONFIG_SINK_KAFKA] = { "kafka", NULL },
};

void
sink_types_init(struct sink_types *t)
{
	for (unsigned i = 0; i < CONFIG_SINK_TYPES; i++)
		t->ops[i] = types[i].ops;
}

/* ---- modules ---- */

static const char *
modules_dir(void)
{
	const char *dir = secure_getenv("KEYTRAIL_MODULES_DIR");

	return dir != NULL ? dir : KEYTRAIL_MODULES;
}

static int
check_module(const struct sink_module *m, const char *path, struct err *err)
{
	if (m == NULL)
		return err_set(err, "%s: no module of keytrail", path);
	/* Of another version nothing is known but the first two members. */
	if (m->abi != SINK_ABI || strcmp(m->version, KEYTRAIL_VERSION) != 0)
		return err_set(err, "%s: made for keytrail %.32s (%#x), this is %s (%#x)", path,
		    m->version, m->abi, KEYTRAIL_VERSION, SINK_ABI);
	return 0;
}

/* Loaded for good: its libraries may leave threads behind. */
static int
load_module(const char *name, const struct sink_ops **ops, struct err *err)
{
	const struct sink_module *m;
	char path[4096];
	void *handle;

	snprintf(path, sizeof(path), "%s/sink_%s.so", modules_dir(), name);
	if (access(path, R_OK) == -1)
		return err_set_errno(err, "%s, the module of type \"%s\"", path, name);
	if ((handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)) == NULL)
		return err_set(err, "%s", dlerror());
	m = dlsym(handle, "keytrail_sink");
	if (check_module(m, path, err) == -1) {
		dlclose(handle);
		return -1;
	}
	*ops = m->ops;
	return 0;
}

int
sink_types_load(struct sink_types *t, const struct config *config, struct err *err)
{
	for (size_t i = 0; i < config->nsinks; i++) {
		const struct config_sink *s = &config->sinks[i];

		if (t->ops[s->type] == NULL &&
		    load_module(types[s->type].name, &t->ops[s->type], err) == -1)
			return err_prefix(err, "sink %s", s->name);
	}
	return 0;
}

int
sink_types_check(const struct sink_types *t, const struct config *config, struct err *err)
{
	for (size_t i = 0; i < config->nsinks; i++) {
		const struct config_sink *s = &config->sinks[i];

		if (t->ops[s->type] == NULL)
			return err_set(err,
			    "sink %s: the module of type \"%s\" is loaded at a start only: restart",
			    s->name, types[s->type].name);
	}
	return 0;
}
