#include "sink_kafka.h"

#include <jansson.h>
#include <string.h>

enum { BROKERS_UP, QUEUED, REQUESTS, BYTES, RETRIES, TIMEOUTS, DISCONNECTS, ROUND_TRIP };

static const char *const names[KAFKA_FIGURES] = {
	[BROKERS_UP] = "brokers_up",
	[QUEUED] = "queued_events",
	[REQUESTS] = "requests",
	[BYTES] = "sent_bytes",
	[RETRIES] = "request_retries",
	[TIMEOUTS] = "request_timeouts",
	[DISCONNECTS] = "disconnects",
	[ROUND_TRIP] = "round_trip_seconds", /* the mean of the slowest broker, 5 s back */
};

static double
number(const json_t *object, const char *name)
{
	return json_number_value(json_object_get(object, name));
}

static void
add_broker(struct kafka_figures *f, const json_t *broker)
{
	const char *state = json_string_value(json_object_get(broker, "state"));
	double trip = number(json_object_get(broker, "rtt"), "avg") / 1e6;

	/* The bootstrap ones are the same brokers once more. */
	if (number(broker, "nodeid") >= 0 && state != NULL && strcmp(state, "UP") == 0)
		f->values[BROKERS_UP]++;
	f->values[RETRIES] += number(broker, "txretries");
	f->values[TIMEOUTS] += number(broker, "req_timeouts");
	f->values[DISCONNECTS] += number(broker, "disconnects");
	if (trip > f->values[ROUND_TRIP])
		f->values[ROUND_TRIP] = trip;
}

void
kafka_figures_read(struct kafka_figures *f, const char *json)
{
	json_t *all = json_loads(json, 0, NULL), *brokers = json_object_get(all, "brokers");

	if (all == NULL)
		return;
	*f = (struct kafka_figures){ .values = { [QUEUED] = number(all, "msg_cnt"),
					 [REQUESTS] = number(all, "tx"),
					 [BYTES] = number(all, "tx_bytes") } };
	for (void *at = json_object_iter(brokers); at != NULL;
	     at = json_object_iter_next(brokers, at))
		add_broker(f, json_object_iter_value(at));
	json_decref(all);
}

void
kafka_figures_tell(const struct kafka_figures *f, sink_figure_fn each, void *arg)
{
	for (size_t i = 0; i < KAFKA_FIGURES; i++)
		each(arg, names[i], f->values[i]);
}
