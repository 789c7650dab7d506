#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "data/origin.h"
#include "keytrail/parse.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static const struct http_limits limits = { .head = 8192, .target = 1024, .fields = 64 };
static struct http_head head;

static struct sockaddr_storage
peer_of(const char *text)
{
	struct sockaddr_storage ss = { 0 };
	struct sockaddr_in *v4 = (struct sockaddr_in *)&ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ss;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
		ss.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
		ss.ss_family = AF_INET6;
	else
		ss.ss_family = AF_UNIX;
	return ss;
}

static const struct {
	const char *label, *peer, *text;
} peers[] = {
	{ "IPv4", "192.0.2.1", "192.0.2.1" },
	{ "IPv6 in its shortest form", "2001:db8:0:0::1", "2001:db8::1" },
	{ "IPv4 over an IPv6 socket is IPv4", "::ffff:192.0.2.1", "192.0.2.1" },
	{ "a Unix socket has no address", "unix", "" },
};

static void
a_peer_has_one_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
		struct sockaddr_storage ss = peer_of(peers[i].peer);
		char text[ORIGIN_TEXT_SIZE];
		struct origin o;

		origin_of_peer(&ss, &o);
		origin_text(&o, text);
		if (strcmp(text, peers[i].text) != 0)
			fail_msg("%s: \"%s\"", peers[i].label, text);
	}
}

static void
the_text_of_ipv4_is_that_of_the_c_library(void **state)
{
	struct origin o = { .address = { [10] = 0xff, 0xff } };
	char text[ORIGIN_TEXT_SIZE], want[ORIGIN_TEXT_SIZE];

	(void)state;
	for (unsigned i = 0; i < 256; i++) {
		for (unsigned k = 0; k < 4; k++)
			o.address[12 + k] = (unsigned char)(i * (2 * k + 1));
		origin_text(&o, text);
		assert_non_null(inet_ntop(AF_INET, o.address + 12, want, sizeof(want)));
		assert_string_equal(text, want);
	}
}

/* Trusted: 10.0.0.0/8 and 2001:db8:aa::/48. */
static struct config_network networks[] = {
	{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10 }, 104 },
	{ { 0x20, 0x01, 0x0d, 0xb8, 0x00, 0xaa }, 48 },
};

static const struct {
	const char *label, *peer, *fields, *want; /* want NULL: the peer itself */
} cases[] = {
	{ "no field", "10.0.0.1", "", NULL },
	{ "an untrusted peer is not believed", "192.0.2.1", "X-Forwarded-For: 198.51.100.1\r\n",
	    NULL },
	{ "a trusted peer is", "10.0.0.1", "X-Forwarded-For: 198.51.100.1\r\n", "198.51.100.1" },
	{ "the rightmost that is not trusted counts", "10.0.0.1",
	    "X-Forwarded-For: 203.0.113.66, 198.51.100.1, 10.2.3.4\r\n", "198.51.100.1" },
	{ "repeated fields are one list", "10.0.0.1",
	    "X-Forwarded-For: 198.51.100.1\r\nX-A: 1\r\nX-Forwarded-For: 10.2.3.4,10.2.3.5\r\n",
	    "198.51.100.1" },
	{ "all trusted: the leftmost", "10.0.0.1", "X-Forwarded-For: 10.9.9.9, 10.2.3.4\r\n",
	    "10.9.9.9" },
	{ "garbage ends the search at what stood right of it", "10.0.0.1",
	    "X-Forwarded-For: 198.51.100.1, unknown, 10.2.3.4\r\n", "10.2.3.4" },
	{ "garbage alone is nothing", "10.0.0.1", "X-Forwarded-For: evil\r\n", NULL },
	{ "an empty element is garbage", "10.0.0.1", "X-Forwarded-For: 198.51.100.1,, 10.1.1.1\r\n",
	    "10.1.1.1" },
	{ "an empty last element", "10.0.0.1", "X-Forwarded-For: 198.51.100.1,\r\n", NULL },
	{ "an empty field is passed over", "10.0.0.1",
	    "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For:\r\n", "198.51.100.1" },
	{ "a port is garbage", "10.0.0.1", "X-Forwarded-For: 198.51.100.1:80\r\n", NULL },
	{ "brackets are garbage", "10.0.0.1", "X-Forwarded-For: [2001:db8::1]\r\n", NULL },
	{ "leading zeros are garbage", "10.0.0.1", "X-Forwarded-For: 010.0.0.1\r\n", NULL },
	{ "too long to be an address", "10.0.0.1",
	    "X-Forwarded-For: 1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa\r\n", NULL },
	{ "nobody has the unspecified address", "10.0.0.1", "X-Forwarded-For: ::\r\n", NULL },
	{ "IPv6", "10.0.0.1", "X-Forwarded-For: 2001:DB8:0::9\r\n", "2001:db8::9" },
	{ "mapped IPv4 is IPv4", "10.0.0.1", "X-Forwarded-For: ::ffff:198.51.100.1\r\n",
	    "198.51.100.1" },
	{ "mapped IPv4 in a trusted network is trusted", "10.0.0.1",
	    "X-Forwarded-For: 198.51.100.1, ::ffff:10.0.0.2\r\n", "198.51.100.1" },
	{ "a mapped peer is trusted as IPv4", "::ffff:10.0.0.1",
	    "X-Forwarded-For: 198.51.100.1\r\n", "198.51.100.1" },
	{ "an IPv6 network", "2001:db8:aa::1", "X-Forwarded-For: 2001:db8:ab::1\r\n",
	    "2001:db8:ab::1" },
	{ "one bit outside of the IPv6 network", "2001:db8:ab::1",
	    "X-Forwarded-For: 198.51.100.1\r\n", NULL },
	{ "tabs around an element", "10.0.0.1", "X-Forwarded-For: 203.0.113.1,\t198.51.100.1\t\r\n",
	    "198.51.100.1" },
	{ "a Unix peer is in no network", "unix", "X-Forwarded-For: 198.51.100.1\r\n", NULL },
};

static void
parse_head(const char *fields)
{
	struct http_scan scan = { 0 };
	enum http_refusal why;
	static char text[1024]; /* the head borrows it */
	size_t used;

	snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
	assert_int_equal(
	    http_parse_request(&scan, slice_of(text), &limits, &head, &used, &why), HTTP_DONE);
}

static void
only_trusted_peers_are_believed(void **state)
{
	struct config config = { .trusted_networks = networks, .ntrusted_networks = 2 };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sockaddr_storage ss = peer_of(cases[i].peer);
		char text[ORIGIN_TEXT_SIZE], peer_text[ORIGIN_TEXT_SIZE];
		struct origin peer, out;
		bool found;

		origin_of_peer(&ss, &peer);
		parse_head(cases[i].fields);
		found = origin_of_request(&config, &peer, &head, &out);
		origin_text(&peer, peer_text);
		origin_text(&out, text);
		if (found != (cases[i].want != NULL) ||
		    strcmp(text, found ? cases[i].want : peer_text) != 0)
			fail_msg(
			    "%s: %s \"%s\"", cases[i].label, found ? "found" : "the peer", text);
	}
}

static void
without_trusted_networks_nobody_is_believed(void **state)
{
	struct config config = { 0 };
	struct sockaddr_storage ss = peer_of("10.0.0.1");
	struct origin peer, out;

	(void)state;
	origin_of_peer(&ss, &peer);
	parse_head("X-Forwarded-For: 198.51.100.1\r\n");
	assert_false(origin_of_request(&config, &peer, &head, &out));
	assert_memory_equal(&out, &peer, sizeof(out));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_peer_has_one_text),
		cmocka_unit_test(the_text_of_ipv4_is_that_of_the_c_library),
		cmocka_unit_test(only_trusted_peers_are_believed),
		cmocka_unit_test(without_trusted_networks_nobody_is_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
