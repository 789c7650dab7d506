#include "keytrail/sink.h"

#include <assert.h>

static const struct sink_ops *const types[] = {
	[CONFIG_SINK_STDOUT] = &sink_stdout_ops,
	[CONFIG_SINK_FILE] = &sink_file_ops,
};

const struct sink_ops *
sink_ops_of(enum config_sink_type type)
{
	assert((unsigned)type < sizeof(types) / sizeof(types[0]));
	return types[type];
}
