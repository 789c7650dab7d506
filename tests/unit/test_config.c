#include "keytrail/config.h"
#include "keytrail/nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ROUTES	     "proxy/routes"

#define LISTEN	     "\"listen\":{\"address\":\"127.0.0.1:8443\",\"tls\":null}"
#define UPSTREAM     "\"upstream\":{\"address\":\"kms.example.com:443\"}"
#define AUDIT	     "\"audit\":{\"trail\":\"trail\",\"sign\":null}"
#define INCLUDE	     "\"include\":[\"key-protect.json\"]"
#define BASE	     LISTEN "," UPSTREAM "," AUDIT "," INCLUDE
/* The base on line 1, what a row says on line 2. */
#define AND(more)    "{" BASE ",\n" more "}"
#define FILTER(what) AND("\"sinks\":[{\"name\":\"a\",\"type\":\"stdout\",\"filter\":{" what "}}]")
#define KAFKA(more)                                                                                \
	AND("\"sinks\":[{\"name\":\"a\",\"type\":\"kafka\",\"brokers\":\"k:9\",\"topic\":\"t\","   \
	    "\n" more "}]")
#define WITH_AUDIT(more)                                                                           \
	"{" LISTEN "," UPSTREAM "," INCLUDE ",\n\"audit\":{\"trail\":\"t\"," more ",\"sign\":"     \
	"null}}"
#define SYSLOG(members)	  AND("\"sinks\":[{\"name\":\"a\",\"type\":\"syslog\"," members "}]")
#define WITH_LISTEN(what) "{" UPSTREAM "," AUDIT "," INCLUDE ",\n\"listen\":" what "}"
#define WITH_UP(what)	  "{" LISTEN "," AUDIT "," INCLUDE ",\n\"upstream\":" what "}"
#define ROUTE(more)                                                                                \
	AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"GET\",\"path\":\"/x\"," more "}]")

/* ---- a folder of files ---- */

struct folder {
	char path[64];
};

static int
make_folder(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	strcpy(f->path, "/tmp/keytrail-config-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	*state = f;
	return 0;
}

static int
remove_folder(void **state)
{
	static const char *const files[] = { "a.json", "set.json", "other.json", "secret", "key" };
	struct folder *f = *state;
	char path[128];

	for (size_t i = 0; i < COUNT(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", f->path, files[i]);
		unlink(path);
	}
	rmdir(f->path);
	free(f);
	return 0;
}

static void
put_file(const struct folder *f, const char *name, const void *bytes, size_t n, mode_t mode)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, n, file), n);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static struct config *
load(const char *text)
{
	struct config *cfg = NULL;
	struct err err;

	if (config_load_text("f.json", slice_of(text), ROUTES, &cfg, &err) == -1)
		fail_msg("%s", err.msg);
	return cfg;
}

/* ---- bad files ---- */

static const struct {
	const char *text, *error;
} bad[] = {
	/* JSON */
	{ "", "f.json:1:1: " },
	{ "{", "f.json:1:2: " },
	{ "[]", "f.json:1:1: the file is an array; wanted an object" },
	{ "{} x", "f.json:1:4: " },
	{ "{\"listen\":{},\n \"listen\":{}}",
	    "f.json:2:2: \"listen\" is given twice; the first is at 1:2" },
	{ "{\"workers\":\"a\\u0000b\"}", "f.json:1:12: a string holds no NUL" },

	/* members */
	{ "{}", "f.json:1:1: the object here has no \"listen\"; it is required" },
	{ "{\"listn\":{}}", "f.json:1:2: unknown member \"listn\" in the file; did you mean "
			    "\"listen\"?" },
	{ "{\"\":1}",
	    "f.json:1:2: unknown member \"\" in the file; it has listen, upstream, "
	    "metrics, admin, audit, service, limits, timeouts, workers, "
	    "sandbox, user, log, trusted_networks, sinks, default, correlation, include, routes" },
	{ AND("\"Workers\":1"), "f.json:2:1: unknown member \"Workers\" in the file; did you mean "
				"\"workers\"?" },
	{ AND("\"limits\":{\"headers\":1}"), "f.json:2:11: unknown member \"headers\" in limits; "
					     "did you mean \"head\"?" },
	{ AND("\"limits\":{\"zzzzzzzz\":1}"),
	    "f.json:2:11: unknown member \"zzzzzzzz\" in limits; it has head, target, fields, "
	    "body, connections" },
	{ AND("\"limits\":[]"), "f.json:2:10: limits is an array; wanted an object" },
	{ AND("\"limits\":null"), "f.json:2:10: \"limits\" is null; wanted a value" },
	{ WITH_AUDIT("\"zzzz\":{\"file\":\"x\"}"),
	    "f.json:2:22: unknown member \"zzzz\" in audit; it has trail, create, guarantee, "
	    "degrade_max, unmatched, key_ids, identity_name, hmac_key, hmac_epoch, sign, "
	    "checkpoint_interval, heartbeat, vocabulary, group, segment_size, "
	    "ring_size, flush_interval, spacing, retention, max_size" },

	/* listen and upstream */
	{ WITH_LISTEN("{\"tls\":null}"),
	    "f.json:2:10: \"listen\" has no \"address\"; it is required" },
	{ WITH_LISTEN("{\"address\":\"127.0.0.1:1\"}"),
	    "f.json:2:10: \"listen\" has no \"tls\"; it is required" },
	{ WITH_LISTEN("{\"address\":\"127.0.0.1:1\",\"tls\":{\"key\":\"k\"}}"),
	    "f.json:2:41: \"listen.tls\" has no \"certificate\"; it is required" },
	{ WITH_LISTEN("{\"address\":\"a:1\",\"tls\":{\"certificate\":\"c\",\"key\":\"k\","
		      "\"client_crl\":\"r\"}}"),
	    "f.json:2:75: \"listen.tls.client_crl\" needs \"listen.tls.client_ca\"" },
	{ WITH_LISTEN("{\"address\":\"a:1\",\"tls\":{\"certificate\":\"c\",\"key\":\"k\","
		      "\"client_certificate\":\"optional\"}}"),
	    "f.json:2:83: \"listen.tls.client_certificate\" needs \"listen.tls.client_ca\"" },
	{ WITH_LISTEN("{\"address\":\"a:1\",\"tls\":{\"certificate\":\"c\",\"key\":\"k\","
		      "\"certificates\":[{\"certificate\":\"d\"}]}}"),
	    "f.json:2:78: the object here has no \"key\"; it is required" },
	{ WITH_LISTEN("{\"address\":\"127.0.0.1:1\",\"tls\":true}"),
	    "f.json:2:41: listen.tls is true or false; wanted an object" },
	{ WITH_LISTEN("{\"address\":\"127.0.0.1\",\"tls\":null}"),
	    "f.json:2:21: \"listen.address\" is \"127.0.0.1\"; wanted host:port, like "
	    "\"127.0.0.1:8443\" or \"[::1]:8443\"" },
	{ WITH_UP("{\"address\":\"a:0\"}"), "f.json:2:23: \"upstream.address\" is \"a:0\"; wanted "
					    "a port to connect to, 1 to 65535" },
	{ WITH_LISTEN("{\"address\":\"127.0.0.1:65536\",\"tls\":null}"),
	    "f.json:2:21: \"listen.address\" is \"127.0.0.1:65536\"; wanted host:port" },
	{ WITH_LISTEN("{\"address\":\".a.b:8443\",\"tls\":null}"),
	    "f.json:2:21: \"listen.address\" is \".a.b:8443\"; wanted host:port" },
	{ WITH_LISTEN("{\"address\":\":8443\",\"tls\":null}"),
	    "f.json:2:21: \"listen.address\" is \":8443\"; wanted host:port" },
	{ WITH_LISTEN("{\"address\":\"::1:8443\",\"tls\":null}"),
	    "f.json:2:21: \"listen.address\" is \"::1:8443\"; wanted host:port" },
	{ WITH_LISTEN("{\"address\":8443,\"tls\":null}"),
	    "f.json:2:21: \"listen.address\" is 8443; wanted a string" },
	{ "{" LISTEN "," UPSTREAM "," INCLUDE ",\n\"audit\":{\"trail\":\"t\"}}",
	    "f.json:2:9: \"audit\" has no \"sign\"; it is required: {\"file\": \"...\"} with a "
	    "key that `keytrail keygen` makes, or null to leave the trail without signed "
	    "checkpoints" },
	{ WITH_UP("{}"), "f.json:2:12: \"upstream\" has no \"address\"; it is required" },
	{ WITH_UP("{\"address\":\"a:1\",\"addresses\":[\"b:2\"]}"),
	    "f.json:2:41: \"address\" and \"addresses\" together; one is enough" },
	{ WITH_UP("{\"addresses\":[]}"),
	    "f.json:2:25: \"upstream.addresses\" has 0 elements; wanted 1 to 16" },
	{ WITH_UP("{\"addresses\":[\"a:1\",\"b\"]}"),
	    "f.json:2:32: \"upstream.addresses\" is \"b\"; wanted host:port" },
	{ WITH_UP("{\"address\":\"a:1\",\"tls\":{\"certificate\":\"c\"}}"),
	    "f.json:2:50: a client certificate needs both \"certificate\" and \"key\"" },
	{ WITH_UP("{\"address\":\"a:1\",\"tls\":{\"server_name\":\"a b\"}}"),
	    "f.json:2:50: \"upstream.tls.server_name\" is \"a b\"; wanted a host name" },
	{ WITH_UP("{\"address\":\"a:1\",\"tls\":{\"server_name\":\".b.c\"}}"),
	    "f.json:2:50: \"upstream.tls.server_name\" is \".b.c\"; wanted a host name" },
	{ WITH_UP("{\"address\":\"a:1\",\"host\":\"a\\r\\nX: y\"}"),
	    "f.json:2:36: \"upstream.host\" is \"a??X: y\"; wanted a host name" },
	{ WITH_UP("{\"address\":\"a:1\",\"pool\":{\"max\":0}}"),
	    "f.json:2:43: \"upstream.pool.max\" is 0; wanted 1 to 65536" },

	/* numbers, sizes, durations, words */
	{ AND("\"workers\":-1"), "f.json:2:11: \"workers\" is -1; wanted a whole number" },
	{ AND("\"workers\":1.5"), "f.json:2:11: \"workers\" is 1.5; wanted a whole number" },
	{ AND("\"workers\":65"), "f.json:2:11: \"workers\" is 65; wanted 0 to 64" },
	{ AND("\"workers\":\"2\""), "f.json:2:11: \"workers\" is \"2\"; wanted a whole number" },
	{ AND("\"workers\":99999999999999999999"),
	    "f.json:2:11: \"workers\" is 99999999999999999999; wanted a whole number" },
	{ AND("\"limits\":{\"head\":\"32KB\"}"),
	    "f.json:2:18: \"limits.head\" is \"32KB\"; wanted a number of bytes, or \"64MiB\" (B, "
	    "KiB, MiB, GiB, TiB)" },
	{ AND("\"limits\":{\"head\":\"2MiB\"}"),
	    "f.json:2:18: \"limits.head\" is \"2MiB\"; wanted 1024 to 1048576 bytes" },
	{ AND("\"limits\":{\"head\":1024,\"target\":2048}"),
	    "f.json:2:32: \"limits.target\" is above \"limits.head\"" },
	{ AND("\"limits\":{\"fields\":129}"),
	    "f.json:2:20: \"limits.fields\" is 129; wanted 8 to 128" },
	{ AND("\"limits\":{\"body\":\"99999999999999999999TiB\"}"),
	    "f.json:2:18: \"limits.body\" is \"99999999999999999999TiB\"; wanted a number of "
	    "bytes" },
	{ AND("\"timeouts\":{\"idle\":\"1w\"}"),
	    "f.json:2:20: \"timeouts.idle\" is \"1w\"; wanted a number of milliseconds, or "
	    "\"20ms\" (ms, s, m, h, d)" },
	{ AND("\"timeouts\":{\"idle\":\"1500us\"}"),
	    "f.json:2:20: \"timeouts.idle\" is \"1500us\"; wanted a number of milliseconds" },
	{ AND("\"timeouts\":{\"idle\":0}"),
	    "f.json:2:20: \"timeouts.idle\" is 0; wanted 1 to 86400000 ms" },
	{ WITH_AUDIT("\"guarantee\":\"durible\""),
	    "f.json:2:34: unknown audit.guarantee \"durible\"; did you mean \"durable\"?" },
	{ WITH_AUDIT("\"guarantee\":\"best-effort\""),
	    "f.json:2:34: unknown audit.guarantee \"best-effort\"; wanted one of \"async\", "
	    "\"durable\", \"intent\"" },
	{ WITH_AUDIT("\"vocabulary\":2019"),
	    "f.json:2:35: \"audit.vocabulary\" is 2019; wanted a string" },
	{ WITH_AUDIT("\"create\":1"), "f.json:2:31: \"audit.create\" is 1; wanted true or false" },
	{ WITH_AUDIT("\"create\":\"yes\""),
	    "f.json:2:31: \"audit.create\" is \"yes\"; wanted true or false" },
	{ WITH_AUDIT("\"ring_size\":65537"),
	    "f.json:2:34: \"audit.ring_size\" is no multiple of 4KiB" },
	{ WITH_AUDIT("\"spacing\":{\"min\":10,\"max\":5}"),
	    "f.json:2:32: \"audit.spacing.min\" is above \"audit.spacing.max\"" },
	{ WITH_AUDIT("\"key_ids\":\"hmac\""),
	    "f.json:2:32: \"audit.key_ids\" is \"hmac\", which needs \"audit.hmac_key\"" },
	{ WITH_AUDIT("\"identity_name\":\"hmac\""),
	    "f.json:2:38: \"audit.identity_name\" is \"hmac\", which needs \"audit.hmac_key\"" },
	{ WITH_AUDIT("\"group\":\"\""), "f.json:2:30: \"audit.group\" is empty" },
	{ AND("\"log\":{\"level\":\"verbose\"}"),
	    "f.json:2:16: unknown log.level \"verbose\"; wanted one of \"error\", \"warn\", "
	    "\"info\", \"debug\", \"trace\"" },

	/* admin and secrets */
	{ AND("\"admin\":{\"address\":\"127.0.0.1:1\"}"),
	    "f.json:2:9: \"admin\" has no \"token\"; wanted {\"file\": \"...\"}, or \"tokens\", or "
	    "null on a loopback address" },
	{ AND("\"admin\":{\"socket\":\"s\",\"hosts\":[\"a b\"]}"),
	    "f.json:2:32: \"admin.hosts\" is \"a b\"; wanted a host name without a port" },
	{ AND("\"admin\":{\"socket\":\"s\",\"tokens\":[{\"name\":\"a\"}]}"),
	    "f.json:2:33: the object here has no \"token\"; it is required" },
	{ AND("\"admin\":{\"address\":\"0.0.0.0:1\",\"token\":null}"),
	    "f.json:2:40: \"admin.token\" is null, but \"admin.address\" is no loopback address" },
	{ AND("\"admin\":{\"token\":null}"),
	    "f.json:2:9: \"admin\" has neither \"address\" nor \"socket\"" },
	{ AND("\"admin\":{\"address\":\"127.0.0.1:1\",\"token\":\"s3cret\"}"),
	    "f.json:2:42: \"admin.token\" is a string; wanted {\"file\": \"...\"}, a secret has a "
	    "file of its own" },
	{ AND("\"admin\":{\"address\":\"127.0.0.1:1\",\"token\":{\"file\":\"/nonexistent\"}}"),
	    "f.json:2:42: \"admin.token\": /nonexistent: No such file or directory" },
	{ AND("\"admin\":{\"address\":\"127.0.0.1:1\",\"token\":{\"file\":\"/dev/zero\"}}"),
	    "f.json:2:42: \"admin.token\": /dev/zero: not a regular file" },

	/* service, networks, sinks */
	{ AND("\"service\":{\"account\":\"abc\"}"),
	    "f.json:2:22: \"service.account\" is \"abc\"; wanted the 32 lower-case hex digits of "
	    "an account" },
	{ AND("\"service\":{\"region\":\"US South\"}"),
	    "f.json:2:21: \"service.region\" is \"US South\"; wanted lower-case letters" },
	{ AND("\"service\":{\"instances\":[\"x\"]}"),
	    "f.json:2:25: \"service.instances\" is \"x\"; wanted a UUID" },
	{ AND("\"trusted_networks\":[\"10.0.0.0/33\"]"),
	    "f.json:2:21: \"trusted_networks\" holds \"10.0.0.0/33\"; wanted a prefix length from "
	    "0 to 32" },
	{ AND("\"trusted_networks\":[\"10.0.0.1/8\"]"),
	    "f.json:2:21: \"trusted_networks\" holds \"10.0.0.1/8\"; the address has bits beyond "
	    "its prefix length" },
	{ AND("\"trusted_networks\":[\"proxy.example.com\"]"),
	    "f.json:2:21: \"trusted_networks\" holds \"proxy.example.com\"; wanted a network" },
	{ AND("\"trusted_networks\":\"10.0.0.0/8\""),
	    "f.json:2:20: \"trusted_networks\" is \"10.0.0.0/8\"; wanted an array" },
	{ AND("\"sinks\":[{\"name\":\"a\"}]"),
	    "f.json:2:10: the object here has no \"type\"; it is required" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"pigeon\"}]"),
	    "f.json:2:29: unknown type \"pigeon\"; wanted one of \"stdout\", \"file\", " },
	{ AND("\"sinks\":[{\"name\":\"a/b\",\"type\":\"stdout\"}]"),
	    "f.json:2:18: \"name\" is \"a/b\"; wanted letters, digits, '-' and '_', at most 64" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"file\"}]"),
	    "f.json:2:10: a sink of type \"file\" has a \"path\"" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"stdout\",\"path\":\"x\"}]"),
	    "f.json:2:45: \"path\" is for a sink of type \"file\"" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"stdout\"},\n{\"name\":\"a\",\"type\":"
	      "\"stdout\"}]"),
	    "f.json:3:9: two sinks are named \"a\"" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"file\",\"path\":\"p\"},\n"
	      "{\"name\":\"b\",\"type\":\"file\",\"path\":\"p\"}]"),
	    "f.json:3:34: two sinks write to p" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"syslog\"}]"),
	    "f.json:2:10: a sink of type \"syslog\" has a \"address\"" },
	{ SYSLOG("\"address\":\"a:0\""), "f.json:2:48: \"address\" has port 0; wanted a port" },
	{ SYSLOG("\"address\":\"a:1\",\"transport\":\"tcp\",\"tls\":{}"),
	    "f.json:2:78: \"tls\" is for \"transport\": \"tls\"" },
	{ SYSLOG("\"address\":\"a:1\",\"tls\":{\"key\":\"k\"}"),
	    "f.json:2:60: a client certificate needs both \"certificate\" and \"key\"" },
	{ SYSLOG("\"address\":\"a:1\",\"tls\":{\"verify\":false}"),
	    "f.json:2:61: unknown member \"verify\" in tls; it has ca, server_name, certificate, "
	    "key" },
	{ SYSLOG("\"address\":\"a:1\",\"max_datagram\":100"),
	    "f.json:2:69: \"max_datagram\" is 100; wanted 480 to 65507 bytes" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"stdout\",\"fmt\":1}]"),
	    "f.json:2:38: unknown member \"fmt\" in a sink; it has name, type, format, " },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"kafka\",\"topic\":\"t\"}]"),
	    "f.json:2:10: a sink of type \"kafka\" has a \"brokers\"" },
	{ AND("\"sinks\":[{\"name\":\"a\",\"type\":\"kafka\",\"brokers\":\"k:9\",\n"
	      "\"topic\":\"a/b\"}]"),
	    "f.json:3:9: \"topic\" is \"a/b\"; wanted letters, digits, '-', '_' and '.'" },
	{ KAFKA("\"tls\":{\"certificate\":\"c\"}"),
	    "f.json:3:22: a client certificate needs both \"certificate\" and \"key\"" },
	{ KAFKA("\"tls\":{\"server_name\":\"k\"}"),
	    "f.json:3:22: \"tls.server_name\" is for a sink of type \"syslog\" or \"http\"" },
	{ KAFKA("\"path\":\"p\""), "f.json:3:8: \"path\" is for a sink of type \"file\"" },

	{ FILTER("\"actions\":[\"kms.secrets.*\",\n\"kms.secretz.*\"]"),
	    "f.json:3:1: sink \"a\": no route has an action like \"kms.secretz.*\"" },
	{ FILTER("\"actions\":[\"kms.secrets.list_\"]"),
	    "f.json:2:59: \"filter.actions\" is \"kms.secrets.list_\"; wanted a pattern of" },
	{ FILTER("\"severities\":[\"crit*\",\"warn\"]"),
	    "f.json:2:70: \"filter.severities\" is \"warn\"; it matches none there is" },
	{ FILTER("\"outcomes\":[\"denied\"]"),
	    "f.json:2:60: \"filter.outcomes\" is \"denied\"; it matches none there is" },
	{ FILTER("\"accounts\":[\"ABC\"]"),
	    "f.json:2:60: \"filter.accounts\" is \"ABC\"; wanted a pattern of" },
	{ FILTER("\"regions\":[\"US-South\"]"),
	    "f.json:2:59: \"filter.regions\" is \"US-South\"; wanted a pattern of" },
	{ FILTER("\"region\":[\"us-south\"]"),
	    "f.json:2:48: unknown member \"region\" in filter; did you mean \"regions\"?" },

	/* routes and sets */
	{ "{" LISTEN "," UPSTREAM "," AUDIT "}",
	    "f.json:1:1: no \"default\": what a request outside every route is called; include a "
	    "route set or say it here" },
	{ "{" LISTEN "," UPSTREAM "," AUDIT ",\"default\":\"x.y\"}",
	    "f.json:1:1: no routes: \"include\" a route set or list \"routes\"" },
	{ "{" LISTEN "," UPSTREAM "," AUDIT ",\n\"default\":\"X\",\"routes\":[]}",
	    "f.json:2:11: \"default\" is \"X\"; an action is words" },
	{ "{" LISTEN "," UPSTREAM "," AUDIT ",\n\"include\":[\"nowhere.json\"]}",
	    "f.json:2:12: no route set \"nowhere.json\" beside the file or in proxy/routes" },
	{ "{" LISTEN "," UPSTREAM "," AUDIT ",\n\"include\":\"key-protect.json\"}",
	    "f.json:2:11: \"include\" is a string; wanted an array" },
	{ "{" LISTEN "," UPSTREAM "," AUDIT ",\n\"include\":[1]}",
	    "f.json:2:12: \"include\" holds a number; wanted names of route sets" },
	{ "{" LISTEN "," UPSTREAM "," AUDIT
	  ",\n\"include\":[\"key-protect.json\",\"key-protect.json\"]}",
	    "f.json:2:31: the same set is included twice" },
	{ AND("\"routes\":{}"), "f.json:2:10: \"routes\" is an object; wanted an array" },
	{ AND("\"routes\":[1]"), "f.json:2:11: a route is a number; wanted an object" },
	{ AND("\"routes\":[{\"method\":\"GET\",\"path\":\"/x\"}]"),
	    "f.json:2:11: the object here has no \"action\"; it is required" },
	{ AND("\"routes\":[{\"action\":\"kms.Unwrap\",\"method\":\"GET\",\"path\":\"/x\"}]"),
	    "f.json:2:21: \"action\" is \"kms.Unwrap\"; an action is words of lower-case letters, "
	    "digits and '-', joined by '.', like \"kms.secrets.unwrap\"" },
	{ AND("\"routes\":[{\"action\":\"keytrail.start\",\"method\":\"GET\",\"path\":\"/x\"}]"),
	    "f.json:2:21: \"action\" is \"keytrail.start\"; actions under \"keytrail.\" are the "
	    "sidecar's own" },
	{ AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"PSOT\",\"path\":\"/x\"}]"),
	    "f.json:2:36: unknown method \"PSOT\"; did you mean \"POST\"?" },
	{ AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"get\",\"path\":\"/x\"}]"),
	    "f.json:2:36: unknown method \"get\"; did you mean \"GET\"?" },
	{ AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"CONNECT\",\"path\":\"/x\"}]"),
	    "f.json:2:36: unknown method \"CONNECT\"; a method is one of GET" },
	{ AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"GET\",\"path\":\"/x/\"}]"),
	    "f.json:2:49: \"path\" is \"/x/\"; a path has no empty segment and no '/' at its end" },
	{ AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"GET\",\"path\":\"/${HOME}\"}]"),
	    "f.json:2:49: \"path\" is \"/${HOME}\"; a literal segment holds" },
	{ ROUTE("\"severity\":\"warn\""),
	    "f.json:2:65: unknown severity \"warn\"; did you mean \"warning\"?" },
	{ ROUTE("\"query\":{}"), "f.json:2:62: \"query\" is an object; wanted an object of one "
				 "member, {\"name\": \"value\"}" },
	{ ROUTE("\"query\":{\"a\":\"b\",\"c\":\"d\"}"),
	    "f.json:2:62: \"query\" is an object; wanted an object of one member" },
	{ ROUTE("\"query\":{\"a\":1}"), "f.json:2:67: \"query\" is a number; wanted a string" },
	{ ROUTE("\"query\":{\"a\":\"%62\"}"),
	    "f.json:2:67: \"query\" \"a\": a discriminator's value is letters, digits and -._~, at "
	    "most 64" },
	{ ROUTE("\"header\":{\"a b\":\"c\"}"),
	    "f.json:2:70: \"header\" \"a b\": a header's name is a token of at most 64 bytes" },
	{ ROUTE("\"aliases\":[\"a.b\",\"c.d\"]"),
	    "f.json:2:64: \"aliases\" has 2 elements; wanted 0 to 1" },
	{ ROUTE("\"record\":false"), "f.json:2:54: unknown member \"record\" in a route; it has "
				     "action, aliases, method, path, query, header, severity, "
				     "guarantee, data_event, login, retry, fallback" },
	{ AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"GET\",\"path\":\"/x/{a}\"},\n"
	      "{\"action\":\"x.z\",\"method\":\"GET\",\"path\":\"/x/{b}\"}]"),
	    "f.json:3:1: GET /x/{b} (x.z) fits the same requests as GET /x/{a} (x.y) at "
	    "f.json:2:11" },
	{ AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"GET\",\"path\":\"/API/x\"}]"),
	    "proxy/routes/key-protect.json:" },
	{ AND("\"correlation\":{\"header\":\"a b\"}"),
	    "f.json:2:25: \"correlation.header\" is \"a b\"; a header's name is a token" },
	{ AND("\"correlation\":{\"gramar\":\"id\"}"),
	    "f.json:2:16: unknown member \"gramar\" in correlation; did you mean \"grammar\"?" },

	/* the environment */
	{ AND("\"service\":{\"region\":\"${KEYTRAIL_TEST_UNSET}\"}"),
	    "f.json:2:21: the environment has no variable KEYTRAIL_TEST_UNSET" },
	{ AND("\"service\":{\"region\":\"${KEYTRAIL_TEST\"}"),
	    "f.json:2:21: wanted ${NAME}, closed and of letters, digits and '_'; write $${ for a "
	    "literal ${" },
	{ AND("\"service\":{\"region\":\"${}\"}"), "f.json:2:21: wanted ${NAME}, closed" },
	{ AND("\"service\":{\"region\":\"${KEYTRAIL_TEST_CANARY}\"}"),
	    "f.json:2:21: \"service.region\" is \"${KEYTRAIL_TEST_CANARY}\"; wanted lower-case" },
	{ WITH_LISTEN("{\"address\":\"${KEYTRAIL_TEST_CANARY}\",\"tls\":null}"),
	    "f.json:2:21: \"listen.address\" is \"${KEYTRAIL_TEST_CANARY}\"; wanted host:port" },
	{ AND("\"workers\":\"${KEYTRAIL_TEST_CANARY}\""),
	    "f.json:2:11: \"workers\" is \"${KEYTRAIL_TEST_CANARY}\"; wanted a whole number" },
	{ AND("\"log\":{\"level\":\"${KEYTRAIL_TEST_CANARY}\"}"),
	    "f.json:2:16: unknown log.level \"${KEYTRAIL_TEST_CANARY}\"; wanted one of" },
};

/* A row that ends where the message goes on gives its beginning. */
static void
bad_files_are_refused_with_their_place(void **state)
{
	(void)state;
	setenv("KEYTRAIL_TEST_CANARY", "C4N4RY!", 1);
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct config *cfg = NULL;
		struct err err = { "" };

		if (config_load_text("f.json", slice_of(bad[i].text), ROUTES, &cfg, &err) == 0)
			fail_msg("accepted: %s", bad[i].text);
		assert_null(cfg);
		if (strncmp(err.msg, bad[i].error, strlen(bad[i].error)) != 0)
			fail_msg("wanted %s\n     got %s", bad[i].error, err.msg);
		assert_null(strstr(err.msg, "C4N4RY"));
		assert_null(strchr(err.msg, '\n'));
	}
}

/* ---- good files ---- */

static void
absent_members_have_their_defaults(void **state)
{
	struct config *c = load("{" BASE "}");

	(void)state;
	assert_string_equal(c->path, "f.json");
	assert_false(c->listen.tls);
	assert_null(c->listen.own.certificate);
	assert_string_equal(c->listen.address.host, "127.0.0.1");
	assert_int_equal(c->listen.address.port, 8443);
	assert_true(c->upstream.tls.on);
	assert_null(c->upstream.tls.ca);
	assert_string_equal(c->upstream.tls.server_name, "kms.example.com");
	assert_string_equal(c->upstream.host, "kms.example.com");
	assert_false(c->upstream.pass_host);
	assert_int_equal(c->upstream.pool_idle, 64);
	assert_int_equal(c->upstream.pool_max, 1024);
	assert_int_equal(c->upstream.pool_timeout, 60000);
	assert_false(c->metrics_enabled);
	assert_false(c->admin.enabled);
	assert_int_equal(c->limits.head, 32768);
	assert_int_equal(c->limits.target, 8192);
	assert_int_equal(c->limits.fields, 128);
	assert_int_equal(c->limits.body, UINT64_C(4) << 30);
	assert_int_equal(c->limits.connections, 10000);
	assert_int_equal(c->timeouts.handshake, 10000);
	assert_int_equal(c->timeouts.head, 10000);
	assert_int_equal(c->timeouts.body, 30000);
	assert_int_equal(c->timeouts.idle, 75000);
	assert_int_equal(c->timeouts.connect, 5000);
	assert_int_equal(c->timeouts.answer, 60000);
	assert_int_equal(c->timeouts.drain, 10000);
	assert_true(c->audit.create);
	assert_int_equal(c->audit.guarantee, GUARANTEE_DURABLE);
	assert_false(c->audit.deny_unmatched);
	assert_int_equal(c->audit.key_ids, EVENT_KEY_OMIT);
	assert_int_equal(c->audit.identity_name, EVENT_NAME_OMIT);
	assert_int_equal(c->audit.vocabulary, EVENT_CURRENT);
	assert_null(c->audit.hmac_key.bytes);
	assert_int_equal(c->audit.hmac_epoch, 1);
	assert_null(c->audit.group);
	assert_int_equal(c->audit.segment_size, 64 << 20);
	assert_int_equal(c->audit.ring_size, 16 << 20);
	assert_int_equal(c->audit.flush_interval, 20);
	assert_int_equal(c->audit.spacing_min_us, 200);
	assert_int_equal(c->audit.spacing_max_us, 3000);
	assert_int_equal(c->audit.retention, 400 * 86400);
	assert_int_equal(c->audit.max_size, 0);
	assert_string_equal(c->service.name, "Key Protect");
	assert_string_equal(c->service.crn_name, "kms");
	assert_string_equal(c->service.type_uri, "kms/secrets");
	assert_string_equal(c->service.region, "");
	assert_string_equal(c->service.account, "");
	assert_int_equal(c->service.ninstances, 0);
	assert_int_equal(c->workers, 0);
	assert_int_equal(c->log_level, LOG_LEVEL_INFO);
	assert_int_equal(c->ntrusted_networks, 0);
	assert_int_equal(c->nsinks, 0);
	assert_string_equal(c->correlation_header, "Correlation-Id");
	assert_int_equal(c->correlation_grammar, SCRUB_UUID);
	config_unref(c);
}

static const char everything[] =
    "{\"$schema\":\"routes.schema.json\","
    "\"listen\":{\"address\":\"[::]:1\",\"tls\":{\"certificate\":\"a/c.pem\",\"key\":\"/k.pem\","
    "\"client_ca\":\"ca.pem\",\"client_crl\":\"crl.pem\",\"client_certificate\":\"optional\","
    "\"ocsp\":\"o.der\",\"unknown_name\":\"refuse\",\"certificates\":[{\"certificate\":\"b.pem\","
    "\"key\":\"b.key\"}]}},"
    "\"upstream\":{\"addresses\":[\"a:8443\",\"[::1]:2\"],\"tls\":{\"ca\":\"ca.pem\","
    "\"server_name\":\"kms\",\"min_version\":\"1.3\",\"certificate\":\"c\",\"key\":\"k\"},\"pool\":"
    "{\"idle\":1,\"max\":2}},"
    "\"metrics\":{\"address\":\"0.0.0.0:3\"},"
    "\"admin\":{\"socket\":\"/run/admin\",\"hosts\":[\"kt.example\"]},"
    "\"audit\":{\"trail\":\"/"
    "t\",\"sign\":null,\"create\":false,\"guarantee\":\"async\",\"unmatched\":\"deny\","
    "\"key_ids\":\"plain\",\"identity_name\":\"plain\",\"vocabulary\":\"2019\",\"group\":\"adm\","
    "\"segment_size\":\"1MiB\",\"ring_size\":65536,\"flush_interval\":\"1s\","
    "\"spacing\":{\"min\":0,\"max\":\"1ms\"},\"retention\":\"1h\",\"max_size\":\"2GiB\"},"
    "\"service\":{\"name\":\"KP\",\"crn_name\":\"x\",\"type_uri\":\"x/y\",\"region\":\"eu-de\","
    "\"account\":\"a12333e9bd28461a8c92385628efac9f\","
    "\"instances\":[\"fd692647-43d0-4699-9f83-f39a54b1327b\"]},"
    "\"limits\":{\"head\":4096,\"target\":1024,\"fields\":64,\"body\":0,\"connections\":7},"
    "\"timeouts\":{\"handshake\":1,\"head\":2,\"body\":3,\"idle\":4,\"connect\":5,\"answer\":6,"
    "\"drain\":0},"
    "\"workers\":3,\"log\":{\"level\":\"trace\"},"
    "\"trusted_networks\":[\"10.0.0.0/8\",\"::1\"],"
    "\"sinks\":[{\"name\":\"o\",\"type\":\"stdout\",\"start\":\"now\",\"intents\":true},"
    "{\"name\":\"f\",\"type\":\"file\",\"path\":\"e.jsonl\",\"rotate_size\":\"1KiB\","
    "\"rotate_age\":\"1d\",\"keep\":2}],"
    "\"default\":\"my.default\",\"correlation\":{\"header\":\"X-Request-Id\",\"grammar\":\"id\"},"
    "\"routes\":[{\"action\":\"my.read\",\"aliases\":[\"my.oldread\"],\"method\":\"GET\","
    "\"path\":\"/x\",\"severity\":\"critical\",\"guarantee\":\"intent\",\"data_event\":false,"
    "\"login\":false,\"retry\":false},"
    "{\"action\":\"my.other\",\"method\":\"*\",\"path\":\"/x/**\"}]}";

static void
every_member_is_read(void **state)
{
	struct config *c = NULL;
	const struct route *r;
	struct err err;

	(void)state;
	if (config_load_text("/etc/kt/f.json", slice_of(everything), ROUTES, &c, &err) == -1)
		fail_msg("%s", err.msg);
	assert_true(c->listen.tls);
	assert_string_equal(c->listen.address.host, "::");
	assert_string_equal(c->listen.own.certificate, "/etc/kt/a/c.pem");
	assert_string_equal(c->listen.own.key, "/k.pem");
	assert_string_equal(c->listen.own.ocsp, "/etc/kt/o.der");
	assert_int_equal(c->listen.ncertificates, 1);
	assert_string_equal(c->listen.certificates[0].certificate, "/etc/kt/b.pem");
	assert_string_equal(c->listen.certificates[0].key, "/etc/kt/b.key");
	assert_null(c->listen.certificates[0].ocsp);
	assert_true(c->listen.refuse_unknown);
	assert_string_equal(c->listen.client_ca, "/etc/kt/ca.pem");
	assert_string_equal(c->listen.client_crl, "/etc/kt/crl.pem");
	assert_true(c->listen.client_optional);
	assert_true(c->upstream.tls.tls13);
	assert_int_equal(c->upstream.naddresses, 2);
	assert_string_equal(c->upstream.addresses[1].host, "::1");
	assert_int_equal(c->upstream.addresses[1].port, 2);
	assert_string_equal(c->upstream.tls.ca, "/etc/kt/ca.pem");
	assert_string_equal(c->upstream.host, "kms:8443");
	assert_string_equal(c->upstream.tls.certificate, "/etc/kt/c");
	assert_int_equal(c->upstream.pool_idle, 1);
	assert_int_equal(c->upstream.pool_max, 2);
	assert_true(c->metrics_enabled);
	assert_int_equal(c->metrics.port, 3);
	assert_true(c->admin.enabled);
	assert_null(c->admin.address.host);
	assert_string_equal(c->admin.socket, "/run/admin");
	assert_int_equal(c->admin.nhosts, 1);
	assert_string_equal(c->admin.hosts[0], "kt.example");
	assert_int_equal(c->admin.ntokens, 0);
	assert_false(c->audit.create);
	assert_int_equal(c->audit.guarantee, GUARANTEE_ASYNC);
	assert_true(c->audit.deny_unmatched);
	assert_int_equal(c->audit.key_ids, EVENT_KEY_PLAIN);
	assert_int_equal(c->audit.identity_name, EVENT_NAME_PLAIN);
	assert_int_equal(c->audit.vocabulary, EVENT_2019);
	assert_string_equal(c->audit.group, "adm");
	assert_int_equal(c->audit.segment_size, 1 << 20);
	assert_int_equal(c->audit.ring_size, 65536);
	assert_int_equal(c->audit.flush_interval, 1000);
	assert_int_equal(c->audit.spacing_min_us, 0);
	assert_int_equal(c->audit.spacing_max_us, 1000);
	assert_int_equal(c->audit.retention, 3600);
	assert_int_equal(c->audit.max_size, UINT64_C(2) << 30);
	assert_string_equal(c->service.name, "KP");
	assert_string_equal(c->service.account, "a12333e9bd28461a8c92385628efac9f");
	assert_int_equal(c->service.ninstances, 1);
	assert_int_equal(c->limits.body, 0);
	assert_int_equal(c->timeouts.drain, 0);
	assert_int_equal(c->timeouts.answer, 6);
	assert_int_equal(c->workers, 3);
	assert_int_equal(c->log_level, LOG_LEVEL_TRACE);
	assert_int_equal(c->ntrusted_networks, 2);
	assert_int_equal(c->trusted_networks[0].bits, 104);
	assert_int_equal(c->trusted_networks[1].bits, 128);
	assert_int_equal(c->nsinks, 2);
	assert_int_equal(c->sinks[0].type, CONFIG_SINK_STDOUT);
	assert_false(c->sinks[0].earliest);
	assert_true(c->sinks[0].intents);
	assert_int_equal(c->sinks[1].type, CONFIG_SINK_FILE);
	assert_string_equal(c->sinks[1].path, "/etc/kt/e.jsonl");
	assert_int_equal(c->sinks[1].rotate_size, 1024);
	assert_int_equal(c->sinks[1].rotate_age, 86400);
	assert_int_equal(c->sinks[1].keep, 2);
	assert_true(c->sinks[1].earliest);
	assert_string_equal(c->correlation_header, "X-Request-Id");
	assert_int_equal(c->correlation_grammar, SCRUB_CORRELATION);

	assert_int_equal(route_table_size(c->routes), 3);
	r = route_table_get(c->routes, 0);
	assert_string_equal(r->action_2019, "my.oldread");
	assert_int_equal(r->severity, SEVERITY_CRITICAL);
	assert_int_equal(r->guarantee, GUARANTEE_INTENT);
	assert_false(r->data_event || r->login || r->retry || r->fallback);
	r = route_table_get(c->routes, 1);
	assert_int_equal(r->guarantee, GUARANTEE_ASYNC); /* audit.guarantee */
	assert_true(r->data_event && r->login && r->retry && r->fallback);
	assert_string_equal(route_table_get(c->routes, 2)->action, "my.default");
	config_unref(c);
}

static void
the_host_header_follows_the_server(void **state)
{
	static const struct {
		const char *upstream, *host;
	} cases[] = {
		{ "{\"address\":\"kms:443\"}", "kms" },
		{ "{\"address\":\"kms:8443\"}", "kms:8443" },
		{ "{\"address\":\"10.0.0.1:443\",\"tls\":{\"server_name\":\"kms\"}}", "kms" },
		{ "{\"address\":\"[::1]:8443\"}", "[::1]:8443" },
		{ "{\"address\":\"kms:80\",\"tls\":null}", "kms" },
		{ "{\"address\":\"kms:443\",\"tls\":null}", "kms:443" },
		{ "{\"address\":\"kms:443\",\"host\":\"other:1\"}", "other:1" },
	};
	struct config *c;
	char text[512];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		snprintf(text, sizeof(text), WITH_UP("%s"), cases[i].upstream);
		c = load(text);
		assert_string_equal(c->upstream.host, cases[i].host);
		config_unref(c);
	}
	c = load(WITH_UP("{\"address\":\"kms:443\",\"host\":\"pass\"}"));
	assert_true(c->upstream.pass_host);
	assert_string_equal(c->upstream.host, "kms");
	config_unref(c);
}

static void
own_routes_replace_those_of_a_set(void **state)
{
	struct config *c = load(
	    AND("\"routes\":[{\"action\":\"kms.secrets.unwrap\",\"method\":\"POST\",\"severity\":"
		"\"critical\",\"path\":\"/api/v2/keys/{key}/actions/unwrap\"}]"));
	size_t found = 0;

	(void)state;
	for (size_t i = 0; i < route_table_size(c->routes); i++) {
		const struct route *r = route_table_get(c->routes, i);

		if (strstr(r->path, "/actions/unwrap") == NULL)
			continue;
		assert_int_equal(r->severity, SEVERITY_CRITICAL);
		assert_string_equal(r->where, "f.json:2:11");
		found++;
	}
	assert_int_equal(found, 1);
	config_unref(c);
}

static void
the_environment_is_put_in_once(void **state)
{
	struct config *c;

	(void)state;
	setenv("KT_HOST", "kms.internal", 1);
	setenv("KT_NAME", "a ${KT_HOST} b", 1);
	setenv("KT_WORKERS", "3", 1);
	setenv("KT_SIZE", "1MiB", 1);
	setenv("KT_LEVEL", "debug", 1);
	c = load("{" LISTEN "," AUDIT "," INCLUDE ","
		 "\"upstream\":{\"address\":\"${KT_HOST}:44${KT_WORKERS}\"},"
		 "\"service\":{\"name\":\"${KT_NAME}$${KT_HOST}$$\"},"
		 "\"workers\":\"${KT_WORKERS}\",\"limits\":{\"body\":\"${KT_SIZE}\"},"
		 "\"log\":{\"level\":\"${KT_LEVEL}\"}}");
	assert_string_equal(c->upstream.addresses[0].host, "kms.internal");
	assert_int_equal(c->upstream.addresses[0].port, 443);
	assert_string_equal(c->service.name, "a ${KT_HOST} b${KT_HOST}$$");
	assert_int_equal(c->workers, 3);
	assert_int_equal(c->limits.body, 1 << 20);
	assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
	config_unref(c);
}

/* ---- files ---- */

static int
load_file(const struct folder *f, const char *text, struct config **out, struct err *err)
{
	char path[128];

	put_file(f, "a.json", text, strlen(text), 0600);
	snprintf(path, sizeof(path), "%s/a.json", f->path);
	return config_load(path, ROUTES, out, err);
}

static void
expect_error(const struct folder *f, const char *text, const char *want)
{
	struct config *c = NULL;
	struct err err = { "" };
	const char *message;

	assert_int_equal(load_file(f, text, &c, &err), -1);
	/* The folder's name differs from run to run. */
	message =
	    strncmp(err.msg, f->path, strlen(f->path)) == 0 ? err.msg + strlen(f->path) : err.msg;
	if (strstr(message, want) == NULL)
		fail_msg("wanted %s\n     got %s", want, err.msg);
}

#define ADMIN  AND("\"admin\":{\"address\":\"0.0.0.0:1\",\"token\":{\"file\":\"secret\"}}")
#define HMAC   WITH_AUDIT("\"key_ids\":\"hmac\",\"hmac_key\":{\"file\":\"key\"}")
#define SECRET "0123456789abcdef-token"

static void
secrets_come_from_files_of_their_own(void **state)
{
	const struct folder *f = *state;
	struct config *c = NULL;
	struct err err;

	put_file(f, "secret", SECRET "\n", sizeof(SECRET), 0640);
	if (load_file(f, ADMIN, &c, &err) == -1)
		fail_msg("%s", err.msg);
	assert_int_equal(c->admin.token.n, sizeof(SECRET) - 1);
	assert_memory_equal(c->admin.token.bytes, SECRET, sizeof(SECRET) - 1);
	config_unref(c);

	put_file(f, "secret", SECRET, sizeof(SECRET) - 1, 0644);
	expect_error(f, ADMIN, "/a.json:2:40: \"admin.token\": ");
	expect_error(f, ADMIN, "/secret is open to everybody (mode 0644); wanted 0640 or stricter");
	put_file(f, "secret", "\n", 1, 0600);
	expect_error(f, ADMIN, "/secret is empty");
	put_file(f, "secret", "short", 5, 0600);
	expect_error(f, ADMIN, "/secret has 5 bytes; wanted at least 16");
}

/* ---- a sink over HTTP ---- */

#define HTTP(url, more)                                                                            \
	AND("\"sinks\":[{\"name\":\"a\",\"type\":\"http\",\"url\":\"" url "\"" more "}]")
#define FILED(name) ",\"" name "\":{\"file\":\"key\"}"

static const struct {
	const char *text, *error; /* NULL: it is good */
} http_sinks[] = {
	{ HTTP("https://a", ""), NULL },
	{ HTTP("http://[::1]:9200/base", ""), NULL },
	{ HTTP("ftp://a", ""), "wanted an URL like" },
	{ HTTP("https://", ""), "\"url\"" },
	{ HTTP("https:///a", ""), "wanted an URL like" },
	{ HTTP("https://u:p@a", ""), "wanted an URL like" },
	{ HTTP("https://a?k=v", ""), "wanted an URL like" },
	{ HTTP("https://a", ",\"preset\":\"elastic\""), "did you mean \"elasticsearch\"?" },
	{ HTTP("https://a", FILED("bearer")), NULL },
	{ HTTP("http://a", FILED("bearer")), "credentials need \"https\"" },
	{ HTTP("http://a", ",\"basic\":{\"user\":\"u\"" FILED("password") "}"),
	    "credentials need \"https\"" },
	{ HTTP("http://a", ",\"headers\":[{\"name\":\"X-Key\"" FILED("value") "}]"),
	    "credentials need \"https\"" },
	{ HTTP("https://a", ",\"headers\":[{\"name\":\"X-Key\"" FILED("value") "}]"), NULL },
	{ HTTP("https://a", ",\"headers\":[{\"name\":\"Host\"" FILED("value") "}]"),
	    "wanted another header: this one the sink sets itself" },
	{ HTTP("https://a", ",\"headers\":[{\"name\":\"a b\"" FILED("value") "}]"),
	    "a header's name is a token" },
	{ HTTP("https://a", ",\"basic\":{\"user\":\"u\"" FILED("password") "}"), NULL },
	{ HTTP("https://a", ",\"basic\":{\"user\":\"u\"}"),
	    "\"basic\" needs both \"user\" and \"password\"" },
	{ HTTP("https://a", ",\"basic\":{\"user\":\"u:v\"" FILED("password") "}"),
	    "wanted a name without ':'" },
	{ HTTP("https://a", FILED("bearer") ",\"basic\":{\"user\":\"u\"" FILED("password") "}"),
	    "a request has one Authorization" },
	{ HTTP("https://a", ",\"preset\":\"ibm-cloud-logs\"" FILED("api_key")), NULL },
	{ HTTP("https://a", ",\"preset\":\"ibm-cloud-logs\""),
	    "\"api_key\" is for the preset \"ibm-cloud-logs\", which needs it" },
	{ HTTP("https://a", FILED("api_key")), "\"api_key\" is for the preset" },
	{ HTTP("https://a",
	      ",\"preset\":\"ibm-cloud-logs\",\"iam_url\":\"http://iam\"" FILED("api_key")),
	    "\"iam_url\" needs \"https\"" },
	{ HTTP("https://a", ",\"preset\":\"splunk-hec\"" FILED("bearer")), NULL },
	{ HTTP("https://a", ",\"preset\":\"splunk-hec\""), "\"splunk-hec\" needs a \"bearer\"" },
	{ HTTP("https://a", ",\"preset\":\"cloudevents\",\"format\":\"ecs\""),
	    "the preset \"cloudevents\" has the format \"cloudevents\" only" },
	{ HTTP("https://a", ",\"preset\":\"json\",\"format\":\"cef\""),
	    "the format \"cef\" is none of JSON" },
	{ HTTP("https://a", ",\"format\":\"cef\""), NULL },
	{ HTTP("https://a", ",\"proxy\":\"proxy:3128\""), "\"proxy\"" },
	{ HTTP("https://a", ",\"index\":\"A\""), "wanted lower-case letters" },
	{ HTTP("http://a", ",\"tls\":{}"), "\"tls\" needs \"https\" in \"url\"" },
	{ HTTP("https://a", ",\"tls\":{\"certificate\":\"c\"}"),
	    "needs both \"certificate\" and \"key\"" },
	{ HTTP("https://a", ",\"tls\":{\"verify\":false}"), "unknown member \"verify\" in tls" },
};

static void
a_receiver_gets_the_format_that_it_understands(void **state)
{
	static const struct {
		const char *text;
		enum config_format format;
	} cases[] = {
		{ HTTP("https://a", ""), CONFIG_FORMAT_ACTIVITY_TRACKER },
		{ HTTP("https://a", ",\"preset\":\"loki\""), CONFIG_FORMAT_ACTIVITY_TRACKER },
		{ HTTP("https://a", ",\"preset\":\"elasticsearch\""), CONFIG_FORMAT_ECS },
		{ HTTP("https://a", ",\"preset\":\"opensearch\""), CONFIG_FORMAT_ECS },
		{ HTTP("https://a", ",\"preset\":\"opensearch\",\"format\":\"ocsf\""),
		    CONFIG_FORMAT_OCSF },
		{ HTTP("https://a", ",\"preset\":\"cloudevents\""), CONFIG_FORMAT_CLOUDEVENTS },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct config *c = NULL;
		struct err err = { "" };

		if (load_file(*state, cases[i].text, &c, &err) == -1)
			fail_msg("%s", err.msg);
		assert_int_equal(c->sinks[0].format, cases[i].format);
		config_unref(c);
	}
}

static void
a_sink_over_http_keeps_its_credentials(void **state)
{
	const struct folder *f = *state;

	put_file(f, "key", "a-secret\n", 9, 0600);
	for (size_t i = 0; i < COUNT(http_sinks); i++) {
		struct config *c = NULL;
		struct err err = { "" };

		if (http_sinks[i].error != NULL) {
			expect_error(f, http_sinks[i].text, http_sinks[i].error);
			continue;
		}
		if (load_file(f, http_sinks[i].text, &c, &err) == -1)
			fail_msg("%s: %s", http_sinks[i].text, err.msg);
		config_unref(c);
	}
}

#define TOKENS(text)                                                                               \
	AND("\"admin\":{\"address\":\"0.0.0.0:1\",\"token\":null,\"tokens\":[" text "]}")
#define TOKEN(name, rest, file) "{\"name\":\"" name "\"," rest "\"token\":{\"file\":\"" file "\"}}"

static void
a_token_has_a_name_and_a_role(void **state)
{
	const struct folder *f = *state;
	struct config *c = NULL;
	struct err err;

	put_file(f, "a", SECRET "\n", sizeof(SECRET), 0640);
	put_file(f, "b", SECRET "2", sizeof(SECRET), 0640);
	put_file(f, "short", "short", 5, 0600);
	if (load_file(f,
		TOKENS(TOKEN("alice", "", "a") "," TOKEN("bob", "\"role\":\"operator\",", "b")), &c,
		&err) == -1)
		fail_msg("%s", err.msg);
	assert_int_equal(c->admin.ntokens, 2);
	assert_string_equal(c->admin.tokens[0].name, "alice");
	assert_false(c->admin.tokens[0].operates);
	assert_true(c->admin.tokens[1].operates);
	assert_memory_equal(c->admin.tokens[1].token.bytes, SECRET "2", sizeof(SECRET));
	config_unref(c);
	expect_error(
	    f, TOKENS(TOKEN("a", "", "a") "," TOKEN("a", "", "b")), "two tokens are named \"a\"");
	expect_error(f, TOKENS(TOKEN("a", "", "a") "," TOKEN("b", "", "a")),
	    "the token of \"b\" is another's, too");
	expect_error(f, TOKENS(TOKEN("none", "", "a")), "no token is named \"none\"");
	expect_error(f, TOKENS(TOKEN("admin.token", "", "a")), "wanted letters, digits");
	expect_error(f, TOKENS(TOKEN("a", "\"role\":\"root\",", "a")), "unknown role \"root\"");
	expect_error(f, TOKENS(TOKEN("a", "", "short")), "/short has 5 bytes; wanted at least 16");
	expect_error(
	    f, TOKENS(""), "\"admin.token\" is null, but \"admin.address\" is no loopback");
	expect_error(f,
	    AND("\"admin\":{\"address\":\"127.0.0.1:1\",\"token\":{\"file\":\"a\"},\"tokens\":"
		"[" TOKEN("b", "", "a") "]}"),
	    "the token of \"b\" is another's, too");
}

#define SIGN(file)                                                                                 \
	"{" LISTEN "," UPSTREAM "," INCLUDE ",\n\"audit\":{\"trail\":\"t\",\"sign\":" file "}}"

static void
a_signing_key_is_read_and_kept_out_of_the_trail(void **state)
{
	const struct folder *f = *state;
	struct config *c = NULL;
	char trail[128];
	struct err err;

	put_file(f, "key", "PRIVATE+KEY+a\n", 14, 0600);
	if (load_file(f, SIGN("{\"file\":\"key\"}"), &c, &err) == -1)
		fail_msg("%s", err.msg);
	assert_int_equal(c->audit.sign.n, 13);
	config_unref(c);
	if (load_file(f, SIGN("null"), &c, &err) == -1)
		fail_msg("%s", err.msg);
	assert_null(c->audit.sign.bytes);
	config_unref(c);
	expect_error(f, SIGN("{\"file\":\"no-such-key\"}"), "\"audit.sign\": ");
	expect_error(f, SIGN("\"key\""), "\"audit.sign\" is a string");
	put_file(f, "key", "PRIVATE+KEY+a\n", 14, 0644);
	expect_error(f, SIGN("{\"file\":\"key\"}"), "/key is open to everybody (mode 0644)");
	snprintf(trail, sizeof(trail), "%s/t", f->path);
	assert_int_equal(mkdir(trail, 0700), 0);
	put_file(f, "t/key", "PRIVATE+KEY+a\n", 14, 0600);
	expect_error(f, SIGN("{\"file\":\"t/key\"}"), "the key is in the trail's directory");
}

static void
an_hmac_key_is_raw_hex_or_base64(void **state)
{
	static const unsigned char key[32] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
		15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, '\n' };
	static const char hex[] =
	    "ff0102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e0a\n";
	static const char base64[] = "/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHgo=\n";
	static const struct {
		const void *bytes;
		size_t n;
	} good[] = {
		{ key, 32 },
		{ hex, 65 },
		{ hex, 64 },
		{ base64, 45 },
	};
	const struct folder *f = *state;
	struct config *c = NULL;
	struct err err;

	for (size_t i = 0; i < COUNT(good); i++) {
		put_file(f, "key", good[i].bytes, good[i].n, 0600);
		if (load_file(f, HMAC, &c, &err) == -1)
			fail_msg("%zu: %s", i, err.msg);
		assert_int_equal(c->audit.hmac_key.n, 32);
		assert_memory_equal(c->audit.hmac_key.bytes, key, 32);
		config_unref(c);
	}
	put_file(f, "key", hex, 63, 0600);
	expect_error(
	    f, HMAC, "/key holds no key; wanted 32 bytes, raw, as 64 hex digits or as base64");
}

#define SET(more)                                                                                  \
	"{\"set\":\"s\",\"default\":\"s.default\",\n"                                              \
	"\"routes\":[{\"action\":\"s.a\",\"method\":\"GET\",\"path\":\"/a\"}" more "]}"
#define INCLUDES(list) "{" LISTEN "," UPSTREAM "," AUDIT ",\n\"include\":[" list "]}"

static void
sets_are_sought_beside_the_file_first(void **state)
{
	const struct folder *f = *state;
	struct config *c = NULL;
	struct err err;

	put_file(f, "set.json", SET(""), strlen(SET("")), 0600);
	if (load_file(f, INCLUDES("\"set.json\""), &c, &err) == -1)
		fail_msg("%s", err.msg);
	assert_int_equal(route_table_size(c->routes), 2);
	assert_string_equal(route_table_get(c->routes, 1)->action, "s.default");
	assert_string_equal(c->service.name, "Key service");
	config_unref(c);
}

static void
errors_in_a_set_name_the_set(void **state)
{
	static const char clash[] =
	    SET(",\n{\"action\":\"s.b\",\"method\":\"GET\",\"path\":\"/a\"}");
	static const char no_name[] = "{\"default\":\"a.b\",\"routes\":[]}";
	static const char no_routes[] = "{\"set\":\"s\",\"default\":\"a.b\"}";
	static const char other[] = "{\"set\":\"o\",\n\"default\":\"o.default\",\"routes\":[]}";
	const struct folder *f = *state;

	put_file(f, "set.json", clash, strlen(clash), 0600);
	expect_error(f, INCLUDES("\"set.json\""), "/set.json:3:1: GET /a (s.b) fits the same");
	put_file(f, "set.json", no_name, strlen(no_name), 0600);
	expect_error(f, INCLUDES("\"set.json\""), "/set.json:1:1: the object here has no \"set\"");
	put_file(f, "set.json", no_routes, strlen(no_routes), 0600);
	expect_error(f, INCLUDES("\"set.json\""), "/set.json:1:1: the set has no \"routes\"");
	put_file(f, "set.json", SET(""), strlen(SET("")), 0600);
	put_file(f, "other.json", other, strlen(other), 0600);
	expect_error(f, INCLUDES("\"set.json\",\"other.json\""),
	    "/other.json:2:11: the sets differ in \"default\" (");
	expect_error(f, INCLUDES("\"set.json\",\"other.json\""),
	    "/set.json:1:22 has another); say in the file which one stands");
}

static void
the_file_settles_what_sets_differ_in(void **state)
{
	static const char other[] = "{\"set\":\"o\",\n\"default\":\"o.default\",\"routes\":[]}";
	const struct folder *f = *state;
	struct config *c = NULL;
	struct err err;

	put_file(f, "set.json", SET(""), strlen(SET("")), 0600);
	put_file(f, "other.json", other, strlen(other), 0600);
	if (load_file(f,
		"{" LISTEN "," UPSTREAM "," AUDIT ",\"default\":\"my.default\","
		"\"include\":[\"set.json\",\"other.json\"]}",
		&c, &err) == -1)
		fail_msg("%s", err.msg);
	assert_string_equal(route_table_get(c->routes, 1)->action, "my.default");
	config_unref(c);
}

static void
a_missing_file_says_so(void **state)
{
	struct config *c = NULL;
	struct err err;

	(void)state;
	assert_int_equal(config_load("/nonexistent/f.json", ROUTES, &c, &err), -1);
	assert_string_equal(err.msg, "/nonexistent/f.json: No such file or directory");
	assert_int_equal(config_load("/tmp", ROUTES, &c, &err), -1);
	assert_string_equal(err.msg, "/tmp: not a regular file");
}

/* ---- comparison ---- */

static const struct {
	const char *label, *text, *changes, *restart;
} differences[] = {
	{ "nothing", "{" BASE "}", "", "" },
	{ "the same said otherwise",
	    AND("\"workers\":0,\"limits\":{\"head\":32768},\"timeouts\":{\"idle\":\"75s\"}"), "",
	    "" },
	{ "workers", AND("\"workers\":2"), "workers", "workers" },
	{ "limits", AND("\"limits\":{\"head\":4096,\"target\":4096}"), "limits", "" },
	{ "timeouts", AND("\"timeouts\":{\"idle\":1}"), "timeouts", "" },
	{ "the log", AND("\"log\":{\"level\":\"debug\"}"), "log", "" },
	{ "the port", WITH_LISTEN("{\"address\":\"127.0.0.1:8444\",\"tls\":null}"), "listen",
	    "listen.address" },
	{ "TLS",
	    WITH_LISTEN("{\"address\":\"127.0.0.1:8443\",\"tls\":{\"certificate\":\"c\","
			"\"key\":\"k\"}}"),
	    "listen", "listen.tls" },
	{ "the key service", WITH_UP("{\"address\":\"other:443\"}"), "upstream", "" },
	{ "the trail", WITH_AUDIT("\"create\":true"), "audit", "audit.trail" },
	{ "retention",
	    "{" LISTEN "," UPSTREAM "," INCLUDE
	    ",\"audit\":{\"trail\":\"trail\",\"sign\":null,\"retention\":\"2d\"}}",
	    "audit", "" },
	{ "ring and segments",
	    "{" LISTEN "," UPSTREAM "," INCLUDE
	    ",\"audit\":{\"trail\":\"trail\",\"sign\":null,\"ring_size\":65536,"
	    "\"segment_size\":65536}}",
	    "audit", "audit.segment_size, audit.ring_size" },
	{ "metrics", AND("\"metrics\":{\"address\":\"127.0.0.1:1\"}"), "metrics",
	    "metrics, metrics.address" },
	{ "a sink", AND("\"sinks\":[{\"name\":\"a\",\"type\":\"stdout\"}]"), "sinks", "" },
	{ "networks", AND("\"trusted_networks\":[\"10.0.0.0/8\"]"), "trusted_networks", "" },
	{ "the service and the log",
	    AND("\"service\":{\"region\":\"x\"},\"log\":{\"level\":\"warn\"}"), "service, log",
	    "" },
	{ "a route", AND("\"routes\":[{\"action\":\"x.y\",\"method\":\"GET\",\"path\":\"/x\"}]"),
	    "routes", "" },
	{ "the correlation header", AND("\"correlation\":{\"header\":\"X-Id\"}"), "routes", "" },
};

static void
differences_are_named(void **state)
{
	struct config *a = load("{" BASE "}");
	char out[256];

	(void)state;
	for (size_t i = 0; i < COUNT(differences); i++) {
		struct config *b = load(differences[i].text);
		bool same = differences[i].changes[0] == '\0';

		config_changes(a, b, out, sizeof(out));
		assert_string_equal(out, differences[i].changes);
		assert_int_equal(config_needs_restart(a, b, out, sizeof(out)),
		    differences[i].restart[0] != '\0');
		assert_string_equal(out, differences[i].restart);
		if (same != (strcmp(a->digest, b->digest) == 0))
			fail_msg("digest: %s", differences[i].label);
		config_unref(b);
	}
	config_unref(a);
}

static void
the_digest_covers_secrets(void **state)
{
	const struct folder *f = *state;
	struct config *a = NULL, *b = NULL;
	struct err err;
	char out[64];

	put_file(f, "secret", SECRET, sizeof(SECRET) - 1, 0600);
	assert_int_equal(load_file(f, ADMIN, &a, &err), 0);
	put_file(f, "secret", SECRET "2", sizeof(SECRET), 0600);
	assert_int_equal(load_file(f, ADMIN, &b, &err), 0);
	assert_int_equal(strlen(a->digest), 64);
	assert_string_not_equal(a->digest, b->digest);
	config_changes(a, b, out, sizeof(out));
	assert_string_equal(out, "admin");
	assert_false(config_needs_restart(a, b, out, sizeof(out)));
	config_unref(a);
	config_unref(b);
}

static void
a_configuration_lives_as_long_as_its_references(void **state)
{
	struct config *c = load("{" BASE "}");

	(void)state;
	assert_ptr_equal(config_ref(c), c);
	config_unref(c);
	assert_string_equal(c->service.name, "Key Protect");
	config_unref(c);
	config_unref(NULL);
}

static void
networks_contain_addresses(void **state)
{
	struct config *c = load(AND("\"trusted_networks\":[\"10.0.0.0/8\",\"192.0.2.1\","
				    "\"2001:db8::/33\"]"));
	static const struct {
		unsigned char address[16];
		bool in;
	} cases[] = {
		{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 9, 8, 7 }, true },
		{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 11, 0, 0, 0 }, false },
		{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1 }, true },
		{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 2 }, false },
		{ { 0x20, 0x01, 0x0d, 0xb8, 0x7f }, true },
		{ { 0x20, 0x01, 0x0d, 0xb8, 0x80 }, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_int_equal(config_network_contains(
				     c->trusted_networks, c->ntrusted_networks, cases[i].address),
		    cases[i].in);
	assert_false(config_network_contains(NULL, 0, cases[0].address));
	config_unref(c);
}

/* ---- what is made from the table ---- */

static void
the_committed_schema_is_the_tables(void **state)
{
	struct buf want = BUF_INIT;
	char *have;
	long n;
	FILE *file = fopen(ROUTES "/routes.schema.json", "r");

	(void)state;
	assert_non_null(file);
	assert_int_equal(config_schema(&want), 0);
	assert_int_equal(fseek(file, 0, SEEK_END), 0);
	n = ftell(file);
	rewind(file);
	have = malloc((size_t)n + 1);
	assert_non_null(have);
	assert_int_equal(fread(have, 1, (size_t)n, file), n);
	fclose(file);
	assert_int_equal(buf_size(&want), n);
	assert_memory_equal(buf_slice(&want).p, have, n);
	free(have);
	buf_fini(&want);
}

static void
the_reference_has_every_member(void **state)
{
	static const char *const members[] = { "`listen.tls.client_ca`", "`audit.retention`",
		"`timeouts.drain`", "`rotate_age`", "`aliases`", "`correlation.grammar`" };
	struct buf text = BUF_INIT;

	(void)state;
	assert_int_equal(config_reference(&text), 0);
	assert_int_equal(buf_append(&text, "", 1), 0);
	for (size_t i = 0; i < COUNT(members); i++)
		assert_non_null(strstr(buf_slice(&text).p, members[i]));
	assert_non_null(
	    strstr(buf_slice(&text).p, "| `workers` | number, 0 to 64 | `0` | restart |"));
	buf_fini(&text);
}

static const char *
word(const void *list, size_t i)
{
	return ((const char *const *)list)[i];
}

static void
the_nearest_word_is_near(void **state)
{
	static const char *const words[] = { "", "POST", "PATCH", "listen", "guarantee" };
	static const struct {
		const char *meant, *want;
	} cases[] = {
		{ "PSOT", "POST" },
		{ "post", "POST" },
		{ "PATH", "PATCH" },
		{ "listne", "listen" },
		{ "garantee", "guarantee" },
		{ "x", NULL },
		{ "", NULL },
		{ "completely-else", NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *near = nearest_word(cases[i].meant, word, words, COUNT(words));

		if (cases[i].want == NULL ? near != NULL
					  : near == NULL || strcmp(near, cases[i].want) != 0)
			fail_msg("%s: %s", cases[i].meant, near != NULL ? near : "none");
	}
}

static void
a_syslog_sink_has_tls_unless_it_says_otherwise(void **state)
{
	static const struct {
		const char *members, *server_name;
	} cases[] = {
		{ SYSLOG("\"address\":\"a.example:6514\""), "a.example" },
		{ SYSLOG("\"address\":\"a.example:6514\",\"tls\":{\"server_name\":\"b\"}"), "b" },
		{ SYSLOG("\"address\":\"a.example:514\",\"transport\":\"udp\""), NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config *c = load(cases[i].members);
		const struct config_tls *tls = &c->sinks[0].tls;

		assert_ptr_equal(config_remote_sink(c), &c->sinks[0]);
		assert_int_equal(tls->on, cases[i].server_name != NULL);
		if (tls->on)
			assert_string_equal(tls->server_name, cases[i].server_name);
		config_unref(c);
	}
}

/* ---- sinks that are one place ---- */

#define AT_FILE	  "\"type\":\"file\",\"path\":\"p\""
#define AT_SYSLOG "\"type\":\"syslog\",\"address\":\"a:1\",\"transport\":\"tls\""

static const struct {
	const char *a, *b;
	bool same;
} places[] = {
	{ AT_FILE, AT_FILE, true },
	{ AT_FILE,
	    AT_FILE ",\"start\":\"now\",\"intents\":true,\"required\":true,"
		    "\"filter\":{\"outcomes\":[\"failure\"]}",
	    true },
	{ AT_FILE, AT_FILE ",\"rotate_size\":0,\"keep\":10", true },
	{ AT_FILE, "\"type\":\"file\",\"path\":\"q\"", false },
	{ AT_FILE, AT_FILE ",\"rotate_size\":1", false },
	{ AT_FILE, AT_FILE ",\"rotate_age\":1", false },
	{ AT_FILE, AT_FILE ",\"keep\":11", false },
	{ AT_FILE, AT_FILE ",\"format\":\"ecs\"", false },
	{ AT_FILE, "\"type\":\"stdout\"", false },
	{ AT_SYSLOG, AT_SYSLOG, true },
	{ AT_SYSLOG, AT_SYSLOG ",\"tls\":{\"server_name\":\"b\"}", false },
	{ AT_SYSLOG, "\"type\":\"syslog\",\"address\":\"a:2\",\"transport\":\"tls\"", false },
	{ AT_SYSLOG, "\"type\":\"syslog\",\"address\":\"a:1\",\"transport\":\"tcp\"", false },
};

static void
a_sink_moves_with_what_is_its_own(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const char *members[] = { places[i].a, places[i].b };
		struct config *c[2];

		for (int k = 0; k < 2; k++) {
			char text[1024];
			struct err err;

			snprintf(
			    text, sizeof(text), AND("\"sinks\":[{\"name\":\"a\",%s}]"), members[k]);
			if (config_load_text("f.json", slice_of(text), ROUTES, &c[k], &err) == -1)
				fail_msg("%s", err.msg);
		}
		if (config_same_place(c[0]->sinks, c[1]->sinks) != places[i].same)
			fail_msg("%s and %s", members[0], members[1]);
		config_unref(c[0]);
		config_unref(c[1]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sink_moves_with_what_is_its_own),
		cmocka_unit_test(bad_files_are_refused_with_their_place),
		cmocka_unit_test(absent_members_have_their_defaults),
		cmocka_unit_test(every_member_is_read),
		cmocka_unit_test(the_host_header_follows_the_server),
		cmocka_unit_test(a_syslog_sink_has_tls_unless_it_says_otherwise),
		cmocka_unit_test(own_routes_replace_those_of_a_set),
		cmocka_unit_test(the_environment_is_put_in_once),
		cmocka_unit_test(secrets_come_from_files_of_their_own),
		cmocka_unit_test(a_token_has_a_name_and_a_role),
		cmocka_unit_test(a_sink_over_http_keeps_its_credentials),
		cmocka_unit_test(a_receiver_gets_the_format_that_it_understands),
		cmocka_unit_test(a_signing_key_is_read_and_kept_out_of_the_trail),
		cmocka_unit_test(an_hmac_key_is_raw_hex_or_base64),
		cmocka_unit_test(sets_are_sought_beside_the_file_first),
		cmocka_unit_test(errors_in_a_set_name_the_set),
		cmocka_unit_test(the_file_settles_what_sets_differ_in),
		cmocka_unit_test(a_missing_file_says_so),
		cmocka_unit_test(differences_are_named),
		cmocka_unit_test(the_digest_covers_secrets),
		cmocka_unit_test(a_configuration_lives_as_long_as_its_references),
		cmocka_unit_test(networks_contain_addresses),
		cmocka_unit_test(the_committed_schema_is_the_tables),
		cmocka_unit_test(the_reference_has_every_member),
		cmocka_unit_test(the_nearest_word_is_near),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
