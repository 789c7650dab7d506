#include "data/snapshot.h"

#include <stdio.h>
#include <stdlib.h>

struct event_profile
snapshot_profile(const struct config *c, const char *observer)
{
	return (struct event_profile){
		.service_name = c->service.name,
		.crn_service = c->service.crn_name,
		.type_uri = c->service.type_uri,
		.region = c->service.region,
		.account = c->service.account,
		.instances = (const char *const *)c->service.instances,
		.ninstances = c->service.ninstances,
		.observer_id = observer,
		.key_ids = c->audit.key_ids,
		.names = c->audit.identity_name,
		.vocabulary = c->audit.vocabulary,
		.hmac_key = c->audit.hmac_key.bytes,
		.hmac_epoch = c->audit.hmac_epoch,
	};
}

static int
set_labels(struct snapshot *s, struct metrics *metrics)
{
	const struct route_table *t = s->config->routes;
	size_t actions = route_table_actions(t), routes = route_table_size(t);
	char route[1024];

	if ((s->action_metric = calloc(actions, sizeof(*s->action_metric))) == NULL ||
	    (s->route_metric = calloc(routes, sizeof(*s->route_metric))) == NULL)
		return -1;
	for (size_t i = 0; i < actions; i++)
		s->action_metric[i] = metrics_action(metrics, route_table_action(t, i));
	for (size_t i = 0; i < routes; i++) {
		route_describe(route_table_get(t, i), route, sizeof(route));
		s->route_metric[i] = metrics_route(metrics, route);
	}
	return 0;
}

/* They make their own contexts; here it is seen that they can, and until when. */
static int
look_at_sinks(struct snapshot *s, struct err *err)
{
	for (size_t i = 0; i < s->config->nsinks; i++) {
		const struct config_sink *sink = &s->config->sinks[i];
		SSL_CTX *ctx;

		if (!sink->tls.on)
			continue;
		if ((ctx = tlsfile_client(&sink->tls, err)) == NULL)
			return err_prefix(err, "sink %s", sink->name);
		s->nvalidity +=
		    tlsfile_validity_of_client(ctx, &sink->tls, s->validity + s->nvalidity);
		SSL_CTX_free(ctx);
	}
	return 0;
}

struct snapshot *
snapshot_new(const struct config *config, const struct snapshot *previous, struct metrics *metrics,
    struct err *err)
{
	struct snapshot *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		err_set(err, "memory is short");
		return NULL;
	}
	atomic_init(&s->refs, 1);
	s->config = config_ref(config);
	s->correlation_header = slice_of(config->correlation_header);
	s->limits = (struct http_limits){ .head = config->limits.head,
		.target = config->limits.target,
		.fields = config->limits.fields };
	s->profile = snapshot_profile(config, s->observer);
	if (previous != NULL)
		memcpy(s->observer, previous->observer, sizeof(s->observer));
	if (set_labels(s, metrics) == -1) {
		err_set(err, "memory is short");
		goto fail;
	}
	if (config->listen.tls && (s->server = tls_server_new(&config->listen,
				       previous != NULL ? previous->server : NULL, err)) == NULL)
		goto fail;
	if (config->upstream.tls.on &&
	    (s->client = tls_client_new(&config->upstream.tls, err)) == NULL)
		goto fail;
	if (s->client != NULL)
		s->nvalidity =
		    tlsfile_validity_of_client(s->client, &config->upstream.tls, s->validity);
	if (look_at_sinks(s, err) == -1)
		goto fail;
	return s;
fail:
	snapshot_unref(s);
	return NULL;
}

void
snapshot_set_log(struct snapshot *s, const char *log_id)
{
	snprintf(s->observer, sizeof(s->observer), "keytrail/%s", log_id);
}

struct snapshot *
snapshot_ref(struct snapshot *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void
snapshot_unref(struct snapshot *s)
{
	if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	tls_server_free(s->server);
	SSL_CTX_free(s->client);
	free(s->action_metric);
	free(s->route_metric);
	config_unref(s->config);
	free(s);
}
