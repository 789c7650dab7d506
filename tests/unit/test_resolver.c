#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench_worker.h"
#include "data/resolver.h"

#include <event2/dns.h>
#include <event2/util.h>

#include <arpa/inet.h>

/* ---- a name server that answers when the test says so ---- */

/* Takes the place of libevent's. */
struct evdns_getaddrinfo_request {
	char name[32];
	evdns_getaddrinfo_cb done;
	void *arg;
};

static struct evdns_getaddrinfo_request asked[4];
static struct evdns_base *asked_of;

struct evdns_getaddrinfo_request *
evdns_getaddrinfo(struct evdns_base *dns, const char *name, const char *servname,
    const struct evutil_addrinfo *hints, evdns_getaddrinfo_cb cb, void *arg)
{
	asked_of = dns;
	(void)servname;
	(void)hints;
	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++)
		if (asked[i].done == NULL) {
			asked[i].done = cb;
			asked[i].arg = arg;
			snprintf(asked[i].name, sizeof(asked[i].name), "%s", name);
			return &asked[i];
		}
	return NULL;
}

void
evdns_getaddrinfo_cancel(struct evdns_getaddrinfo_request *r)
{
	evdns_getaddrinfo_cb done = r->done;

	r->done = NULL;
	done(EVUTIL_EAI_CANCEL, NULL, r->arg);
}

/* An answer for the name: addresses with spaces between, or NULL: a failure. */
static void
answer(const char *name, const char *addresses)
{
	struct evutil_addrinfo *list = NULL, **next = &list;
	struct evutil_addrinfo hints = { .ai_flags = EVUTIL_AI_NUMERICHOST,
		.ai_socktype = SOCK_STREAM };
	char copy[256], *save = NULL;
	evdns_getaddrinfo_cb done;
	size_t i = 0;

	while (asked[i].done == NULL || strcmp(asked[i].name, name) != 0)
		assert_true(++i < sizeof(asked) / sizeof(asked[0]));
	snprintf(copy, sizeof(copy), "%s", addresses != NULL ? addresses : "");
	for (char *a = strtok_r(copy, " ", &save); a != NULL; a = strtok_r(NULL, " ", &save)) {
		assert_int_equal(evutil_getaddrinfo(a, "443", &hints, next), 0);
		next = &(*next)->ai_next;
	}
	done = asked[i].done;
	asked[i].done = NULL;
	done(list != NULL ? 0 : EVUTIL_EAI_FAIL, list, asked[i].arg);
}

/* ---- what all tests share ---- */

struct fixture {
	struct bench bench;
	struct config_address addresses[4];
	struct resolver *resolver;
	unsigned changes;
};

static int
init(struct worker *w, struct err *err)
{
	(void)w;
	(void)err;
	return 0;
}

static void
fini(struct worker *w)
{
	(void)w;
}

static const struct worker_hooks hooks = { .init = init, .fini = fini };

static void
on_change(void *arg)
{
	struct fixture *f = arg;

	f->changes++;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err;

	if (f == NULL)
		return -1;
	memset(asked, 0, sizeof(asked));
	f->bench.config.upstream.addresses = f->addresses;
	bench_open(&f->bench, &hooks);
	assert_non_null(f->resolver = resolver_new(f->bench.worker, on_change, f, &err));
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	resolver_free(f->resolver);
	bench_close(&f->bench);
	free(f);
	return 0;
}

/* Look up these, all at port 443. */
static void
look_up(struct fixture *f, const char *first, const char *second)
{
	static char hosts[2][32];
	const char *all[] = { first, second };

	f->bench.config.upstream.naddresses = second != NULL ? 2 : 1;
	for (size_t i = 0; i < f->bench.config.upstream.naddresses; i++) {
		snprintf(hosts[i], sizeof(hosts[i]), "%s", all[i]);
		f->addresses[i] = (struct config_address){ hosts[i], 443 };
	}
	resolver_refresh(f->resolver);
}

/* The targets, each once, from the one whose turn it is. */
static const char *
targets(struct fixture *f)
{
	static char out[RESOLVER_TARGETS_MAX * RESOLVER_TEXT_SIZE];
	char text[RESOLVER_TEXT_SIZE];

	out[0] = '\0';
	for (unsigned i = 0; i < resolver_count(f->resolver); i++) {
		struct resolver_target t = resolver_next(f->resolver);

		resolver_text(&t, text);
		text[strlen(text) - strlen(":443")] = '\0';
		strcat(strcat(out, i > 0 ? " " : ""), text);
	}
	return out;
}

static void
expect_change(struct fixture *f)
{
	f->changes = 0;
	bench_turn(&f->bench);
	assert_int_equal(f->changes, 1);
}

/* ---- tests ---- */

static void
numbers_need_no_name_server(void **state)
{
	struct fixture *f = *state;

	look_up(f, "192.0.2.1", "2001:db8::1");
	assert_false(resolver_pending(f->resolver));
	assert_string_equal(targets(f), "192.0.2.1 [2001:db8::1]");
	expect_change(f);
}

static void
nobody_waits_for_a_silent_name_server(void **state)
{
	struct fixture *f = *state;

	look_up(f, "mute.test", "192.0.2.1");
	assert_true(resolver_pending(f->resolver));
	assert_string_equal(targets(f), "192.0.2.1");
	expect_change(f);
	answer("mute.test", "192.0.2.7 192.0.2.8");
	assert_false(resolver_pending(f->resolver));
	assert_string_equal(targets(f), "192.0.2.1 192.0.2.7 192.0.2.8");
	expect_change(f);
}

static void
a_name_that_fails_keeps_what_it_led_to(void **state)
{
	struct fixture *f = *state;

	look_up(f, "a.test", "b.test");
	answer("a.test", "192.0.2.1");
	answer("b.test", "192.0.2.2");
	resolver_refresh(f->resolver);
	assert_string_equal(targets(f), "192.0.2.1 192.0.2.2");
	answer("a.test", NULL);
	answer("b.test", "192.0.2.3");
	assert_string_equal(targets(f), "192.0.2.1 192.0.2.3");
}

static void
an_address_of_two_names_stays_as_long_as_one_leads_to_it(void **state)
{
	struct fixture *f = *state;

	look_up(f, "a.test", "b.test");
	answer("a.test", "192.0.2.1 192.0.2.2");
	answer("b.test", "192.0.2.2 192.0.2.2");
	assert_int_equal(resolver_count(f->resolver), 2);
	resolver_refresh(f->resolver);
	answer("a.test", "192.0.2.1");
	assert_string_equal(targets(f), "192.0.2.1 192.0.2.2");
	answer("b.test", "192.0.2.1");
	assert_string_equal(targets(f), "192.0.2.1");
}

static void
a_target_set_aside_stays_aside_when_it_is_found_again(void **state)
{
	struct fixture *f = *state;
	struct resolver_target t;
	char text[RESOLVER_TEXT_SIZE];

	look_up(f, "a.test", NULL);
	answer("a.test", "192.0.2.1 192.0.2.2");
	t = resolver_next(f->resolver);
	resolver_set_aside(f->resolver, &t);
	resolver_refresh(f->resolver);
	answer("a.test", "192.0.2.1 192.0.2.2");
	for (int i = 0; i < 3; i++) {
		t = resolver_next(f->resolver);
		resolver_text(&t, text);
		assert_string_equal(text, "192.0.2.2:443");
	}
}

static void
other_names_forget_the_former_ones(void **state)
{
	struct fixture *f = *state;

	/* A configuration that was in use does not change. */
	struct config_address *next = &f->addresses[2];
	struct config other = f->bench.config;
	struct snapshot snapshot = { .config = &other };
	struct lease lease = { .snapshot = &snapshot, .users = 1 }, *former;

	look_up(f, "a.test", NULL);
	answer("a.test", "192.0.2.1");
	other = f->bench.config;
	other.upstream.addresses = next;
	*next = (struct config_address){ f->addresses[0].host, 8443 };
	former = f->bench.worker->lease;
	f->bench.worker->lease = &lease;
	resolver_refresh(f->resolver);
	assert_int_equal(resolver_count(f->resolver), 0);
	f->bench.worker->lease = former;
	resolver_refresh(f->resolver);
	assert_int_equal(lease.users, 1);
}

static void
no_more_targets_than_fit(void **state)
{
	struct fixture *f = *state;
	char many[256] = "";

	for (int i = 0; i < 20; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many), "10.0.0.%d ", i);
	look_up(f, "a.test", "b.test");
	answer("a.test", many);
	for (char *p = many; (p = strstr(p, "10.0.0")) != NULL;)
		p[1] = '1';
	answer("b.test", many);
	assert_int_equal(resolver_count(f->resolver), RESOLVER_TARGETS_MAX);
}

static void
on_nothing(int result, char type, int count, int ttl, void *addresses, void *arg)
{
	(void)result;
	(void)type;
	(void)count;
	(void)ttl;
	(void)addresses;
	(void)arg;
}

/* A name server of containers may know "kms" and no "kMs". */
static void
a_name_is_asked_for_as_it_is_written(void **state)
{
	static const char name[] = "a-name-of-so-many-letters-that-one-would-be-a-capital.test";
	struct fixture *f = *state;
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(sin);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	char query[512], want[sizeof(name) + 1];
	ssize_t got;

	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &n), 0);
	look_up(f, "a.test", NULL);
	evdns_base_clear_nameservers_and_suspend(asked_of);
	assert_int_equal(
	    evdns_base_nameserver_sockaddr_add(asked_of, (struct sockaddr *)&sin, sizeof(sin), 0),
	    0);
	evdns_base_resume(asked_of);
	assert_non_null(
	    evdns_base_resolve_ipv4(asked_of, name, DNS_QUERY_NO_SEARCH, on_nothing, NULL));
	while ((got = recv(fd, query, sizeof(query), 0)) == -1)
		bench_turn(&f->bench);
	snprintf(want, sizeof(want), ".%s", name);
	want[0] = (char)(strchr(name, '.') - name);
	*strchr(want, '.') = (char)strlen("test");
	assert_true(got > 12 + (ssize_t)sizeof(want));
	assert_memory_equal(query + 12, want, sizeof(want));
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(numbers_need_no_name_server, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    nobody_waits_for_a_silent_name_server, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    a_name_that_fails_keeps_what_it_led_to, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    an_address_of_two_names_stays_as_long_as_one_leads_to_it, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    a_target_set_aside_stays_aside_when_it_is_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    other_names_forget_the_former_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(no_more_targets_than_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(
		    a_name_is_asked_for_as_it_is_written, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
