#include "data/resolver.h"

#include "keytrail/clock.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>

#include <arpa/inet.h>
#include <assert.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#define REFRESH_S    30
#define RETRY_S	     1
#define SET_ASIDE_NS (10 * CLOCK_NS_PER_S)

/* One name or number of the configuration. */
struct lookup {
	struct resolver *resolver;
	struct evdns_getaddrinfo_request *request;
	bool running;
	unsigned index;
};

struct resolver {
	struct worker *worker;
	struct lease *lease; /* whose addresses are looked up */
	struct evdns_base *dns;
	struct event timer;
	struct event changed_event;
	void (*changed)(void *arg);
	void *arg;
	unsigned nlookups, running;
	bool succeeded; /* one lookup of this round has */
	bool starved;	/* this round had no memory to ask with */
	bool late;	/* the next round waits for memory */
	struct lookup lookups[CONFIG_ADDRESSES_MAX];
	unsigned ntargets, turn;
	struct resolver_target targets[RESOLVER_TARGETS_MAX];
};

/* What one lookup led to. */
struct answer {
	unsigned n;
	struct resolver_target targets[RESOLVER_TARGETS_MAX];
};

#define BIT_OF(lookup) (UINT32_C(1) << (lookup)->index)
_Static_assert(CONFIG_ADDRESSES_MAX <= 32, "a set of lookups fits in found_by");

static bool
same_address(const struct resolver_target *a, const struct resolver_target *b)
{
	return a->len == b->len && memcmp(&a->address, &b->address, a->len) == 0;
}

static struct resolver_target *
find_target(struct resolver *r, const struct resolver_target *like)
{
	for (unsigned i = 0; i < r->ntargets; i++)
		if (same_address(&r->targets[i], like))
			return &r->targets[i];
	return NULL;
}

static void
drop_unfound(struct resolver *r)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < r->ntargets; i++)
		if (r->targets[i].found_by != 0)
			r->targets[kept++] = r->targets[i];
	r->ntargets = kept;
}

/* In place of what the same lookup led to before; a target that was known keeps its time aside. */
static void
adopt(struct lookup *l, const struct answer *answer)
{
	struct resolver *r = l->resolver;
	struct resolver_target *known;

	for (unsigned i = 0; i < r->ntargets; i++)
		r->targets[i].found_by &= ~BIT_OF(l);
	for (unsigned i = 0; i < answer->n; i++)
		if ((known = find_target(r, &answer->targets[i])) != NULL)
			known->found_by |= BIT_OF(l);
	drop_unfound(r);
	for (unsigned i = 0; i < answer->n && r->ntargets < RESOLVER_TARGETS_MAX; i++) {
		if (find_target(r, &answer->targets[i]) != NULL)
			continue;
		r->targets[r->ntargets] = answer->targets[i];
		r->targets[r->ntargets++].found_by = BIT_OF(l);
	}
}

static void
set_timer(struct resolver *r, int seconds)
{
	const struct timeval tv = { seconds, 0 };

	r->late = evtimer_add(&r->timer, &tv) == -1;
}

static void
end_round(struct resolver *r)
{
	set_timer(r, r->succeeded ? REFRESH_S : RETRY_S);
	r->late = r->late || r->starved;
}

static void
add_address(struct answer *answer, const void *address, size_t len)
{
	struct resolver_target *t = &answer->targets[answer->n];

	if (answer->n == RESOLVER_TARGETS_MAX || len > sizeof(t->address))
		return;
	*t = (struct resolver_target){ .len = (socklen_t)len };
	memcpy(&t->address, address, len);
	answer->n++;
}

/* Without evdns, which asks for memory. */
static bool
read_number(const struct config_address *a, struct answer *answer)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(a->port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(a->port) };

	if (inet_pton(AF_INET, a->host, &v4.sin_addr) == 1)
		add_address(answer, &v4, sizeof(v4));
	else if (inet_pton(AF_INET6, a->host, &v6.sin6_addr) == 1)
		add_address(answer, &v6, sizeof(v6));
	return answer->n > 0;
}

/* Who failed keeps what it led to before; nobody waits for the others. */
static void
end_lookup(struct lookup *l, const struct answer *answer)
{
	struct resolver *r = l->resolver;

	l->running = false;
	if (answer->n > 0) {
		r->succeeded = true;
		adopt(l, answer);
	}
	if (--r->running == 0)
		end_round(r);
	/* Through the loop: numeric addresses are "resolved" before resolver_refresh returns. */
	event_active(&r->changed_event, EV_TIMEOUT, 0);
}

static void
on_lookup(int result, struct evutil_addrinfo *list, void *arg)
{
	struct lookup *l = arg;
	struct answer answer = { 0 };
	struct resolver *r;

	/* Told later, when this lookup may serve another request, or be gone. */
	if (result == EVUTIL_EAI_CANCEL)
		return;
	r = l->resolver;
	/* At once, no server was asked. */
	if (result == EVUTIL_EAI_MEMORY || (result != 0 && l->request == NULL))
		r->starved = true;
	l->request = NULL;
	if (result != 0)
		log_warn(r->worker->log, "resolve_failed", "upstream address %u: %s", l->index + 1,
		    evutil_gai_strerror(result));
	for (const struct evutil_addrinfo *ai = list; ai != NULL; ai = ai->ai_next)
		add_address(&answer, ai->ai_addr, ai->ai_addrlen);
	if (list != NULL)
		evutil_freeaddrinfo(list);
	end_lookup(l, &answer);
}

static void
cancel_lookups(struct resolver *r)
{
	for (unsigned i = 0; i < r->nlookups; i++)
		if (r->lookups[i].request != NULL) {
			evdns_getaddrinfo_cancel(r->lookups[i].request);
			r->lookups[i].request = NULL;
		}
	r->running = 0;
}

static const struct config_upstream *
config_of(const struct lease *l)
{
	return &l->snapshot->config->upstream;
}

static void
start_lookup(struct resolver *r, unsigned i, const struct config_address *a)
{
	struct evutil_addrinfo hints = { .ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = EVUTIL_AI_NUMERICSERV };
	struct lookup *l = &r->lookups[i];
	struct evdns_getaddrinfo_request *request;
	struct answer number = { 0 };
	char port[8];

	*l = (struct lookup){ .resolver = r, .index = i, .running = true };
	if (read_number(a, &number)) {
		end_lookup(l, &number);
		return;
	}
	snprintf(port, sizeof(port), "%u", a->port);
	request = evdns_getaddrinfo(r->dns, a->host, port, &hints, on_lookup, l);
	if (l->running)
		l->request = request;
}

static void
start_round(struct resolver *r)
{
	const struct config_upstream *c = config_of(r->lease);

	cancel_lookups(r);
	r->succeeded = r->starved = false;
	/* evdns never ends a lookup for whose own timer memory was short. */
	set_timer(r, REFRESH_S);
	assert(c->naddresses <= CONFIG_ADDRESSES_MAX);
	r->nlookups = (unsigned)c->naddresses;
	/* All are counted before the first starts: a number ends within start_lookup. */
	r->running = r->nlookups;
	for (unsigned i = 0; i < r->nlookups; i++)
		start_lookup(r, i, &c->addresses[i]);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	start_round(arg);
}

static void
on_changed(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *r = arg;

	(void)fd;
	(void)what;
	r->changed(r->arg);
}

struct resolver *
resolver_new(struct worker *w, void (*changed)(void *arg), void *arg, struct err *err)
{
	struct resolver *r = calloc(1, sizeof(*r));

	if (r == NULL) {
		err_set(err, "memory is short");
		return NULL;
	}
	r->worker = w;
	r->changed = changed;
	r->arg = arg;
	evtimer_assign(&r->timer, w->base, on_timer, r);
	event_assign(&r->changed_event, w->base, -1, 0, on_changed, r);
	r->dns = evdns_base_new(
	    w->base, EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	/* Without a name server numbers and the hosts file still work. */
	if (r->dns == NULL &&
	    (r->dns = evdns_base_new(w->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE)) != NULL)
		evdns_base_load_hosts(r->dns, "/etc/hosts");
	if (r->dns == NULL) {
		err_set(err, "name resolution cannot be set up, or memory is short");
		free(r);
		return NULL;
	}
	/* evdns asks for "kMs" where "kms" is meant, which some servers (podman's) do not know.  With
	 * `upstream.tls`, who guesses an answer gains nothing; without it the network is trusted. */
	evdns_base_set_option(r->dns, "randomize-case:", "0");
	return r;
}

void
resolver_free(struct resolver *r)
{
	if (r == NULL)
		return;
	cancel_lookups(r);
	event_del(&r->timer);
	event_del(&r->changed_event);
	evdns_base_free(r->dns, 0);
	if (r->lease != NULL)
		worker_lease_drop(r->lease);
	free(r);
}

void
resolver_refresh(struct resolver *r)
{
	struct lease *before = r->lease;

	r->lease = worker_lease_take(r->worker);
	if (before != NULL) {
		if (!config_same_addresses(config_of(before), config_of(r->lease)))
			r->ntargets = 0;
		worker_lease_drop(before);
	}
	start_round(r);
}

void
resolver_wake(struct resolver *r)
{
	if (r->late && r->running == 0)
		start_round(r);
	else if (r->late)
		set_timer(r, REFRESH_S);
}

bool
resolver_pending(const struct resolver *r)
{
	return r->running > 0;
}

unsigned
resolver_count(const struct resolver *r)
{
	return r->ntargets;
}

struct resolver_target
resolver_next(struct resolver *r)
{
	int64_t now = clock_mono_ns();
	unsigned best = 0;

	assert(r->ntargets > 0);
	for (unsigned i = 0; i < r->ntargets; i++) {
		unsigned k = (r->turn + i) % r->ntargets;

		if (i == 0 || r->targets[k].aside_until < r->targets[best].aside_until)
			best = k;
		if (r->targets[k].aside_until <= now)
			break;
	}
	r->turn = (best + 1) % r->ntargets;
	return r->targets[best];
}

void
resolver_set_aside(struct resolver *r, const struct resolver_target *t)
{
	struct resolver_target *known = find_target(r, t);

	if (known != NULL)
		known->aside_until = clock_mono_ns() + SET_ASIDE_NS;
}

void
resolver_text(const struct resolver_target *t, char out[RESOLVER_TEXT_SIZE])
{
	char host[INET6_ADDRSTRLEN], port[8];

	if (getnameinfo((const struct sockaddr *)&t->address, t->len, host, sizeof(host), port,
		sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(out, RESOLVER_TEXT_SIZE, "unknown address");
	else
		snprintf(out, RESOLVER_TEXT_SIZE,
		    t->address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}
