/* The names of the formats, for whoever has only these of config: the modules of sinks. */

#include "config_members.h"

const struct member_word config_format_words[] = {
	{ "activity-tracker", CONFIG_FORMAT_ACTIVITY_TRACKER },
	{ "ocsf", CONFIG_FORMAT_OCSF },
	{ "ecs", CONFIG_FORMAT_ECS },
	{ "cloudevents", CONFIG_FORMAT_CLOUDEVENTS },
	{ "cef", CONFIG_FORMAT_CEF },
	{ NULL, 0 },
};

const char *
config_format_name(enum config_format format)
{
	const struct member_word *w = config_format_words;

	while (w->name != NULL && w->value != format)
		w++;
	return w->name;
}
