#include "keytrail/sink.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct sink_types types;
static struct err err;

/* The variant that lies beside this program, as the module of a sink of type http. */
static int
load(const char *variant)
{
	char path[PATH_MAX], name[] = "far", *end;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	struct config_sink sink = { .name = name, .type = CONFIG_SINK_HTTP };
	const struct config config = { .sinks = &sink, .nsinks = 1 };

	assert_true(n > 0);
	path[n] = '\0';
	end = strrchr(path, '/');
	snprintf(end, sizeof(path) - (size_t)(end - path), "/../modules/%s", variant);
	setenv("KEYTRAIL_MODULES_DIR", path, 1);
	sink_types_init(&types);
	return sink_types_load(&types, &config, &err);
}

static void
what_is_built_in_needs_no_module(void **state)
{
	char name[] = "near";
	struct config_sink sinks[] = { { .name = name, .type = CONFIG_SINK_STDOUT },
		{ .name = name, .type = CONFIG_SINK_FILE } };
	const struct config config = { .sinks = sinks, .nsinks = 2 };

	(void)state;
	sink_types_init(&types);
	assert_int_equal(sink_types_check(&types, &config, &err), 0);
	assert_ptr_equal(types.ops[CONFIG_SINK_FILE], &sink_file_ops);
	assert_null(types.ops[CONFIG_SINK_HTTP]);
}

static void
a_module_is_driven_like_any_sink(void **state)
{
	char name[] = "far";
	const struct config_sink cfg = { .name = name, .type = CONFIG_SINK_HTTP };
	const struct sink_event events[] = { { .text = SLICE_INIT("{\"a\":1}") },
		{ .text = SLICE_INIT("{\"b\":2}") } };
	const struct sink_ops *ops;
	size_t done = 0;
	void *sink;

	(void)state;
	if (load("good") == -1)
		fail_msg("%s", err.msg);
	ops = types.ops[CONFIG_SINK_HTTP];
	assert_string_equal(ops->type, "null");
	assert_int_equal(ops->open(&cfg, &sink, &err), 0);
	assert_int_equal(ops->deliver(sink, events, 2, INT64_MAX, &done, &err), SINK_OK);
	ops->close(sink);
}

static const struct {
	const char *variant, *want;
} wrong[] = {
	{ "nowhere", "/nowhere/sink_http.so, the module of type \"http\": No such file" },
	{ "abi", "/abi/sink_http.so: made for keytrail " KEYTRAIL_VERSION " (0x1), this is " },
	{ "version", "/version/sink_http.so: made for keytrail 0.0.1 (" },
	{ "name", "/name/sink_http.so: no module of keytrail" },
	{ "text", "sink_http.so: " },
};

static void
a_wrong_module_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(load(wrong[i].variant), -1);
		if (strncmp(err.msg, "sink far: ", 10) != 0 ||
		    strstr(err.msg, wrong[i].want) == NULL)
			fail_msg("%s: %s", wrong[i].variant, err.msg);
		assert_null(types.ops[CONFIG_SINK_HTTP]);
	}
}

/* Nothing of libkeytrail is to be seen from outside: its caller has its own. */
static void
a_module_exports_its_table_alone(void **state)
{
	char command[PATH_MAX + 64], line[256];
	unsigned n = 0;
	FILE *nm;

	(void)state;
	assert_int_equal(load("good"), 0);
	snprintf(command, sizeof(command), "nm -D --defined-only %s/sink_http.so",
	    getenv("KEYTRAIL_MODULES_DIR"));
	assert_non_null(nm = popen(command, "r"));
	while (fgets(line, sizeof(line), nm) != NULL) {
		assert_non_null(strstr(line, " keytrail_sink\n"));
		n++;
	}
	pclose(nm);
	assert_int_equal(n, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_built_in_needs_no_module),
		cmocka_unit_test(a_module_is_driven_like_any_sink),
		cmocka_unit_test(a_wrong_module_is_refused),
		cmocka_unit_test(a_module_exports_its_table_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
