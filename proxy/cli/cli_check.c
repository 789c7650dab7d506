#include "cli/cli.h"

#include "cli/server.h"
#include "data/descriptors.h"
#include "data/tls.h"
#include "keytrail/clock.h"
#include "keytrail/config.h"
#include "keytrail/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PROBE_NS (10 * CLOCK_NS_PER_S)

/* One check of the environment: prints what it finds.  -1 and an error where that is not good. */
typedef int (*environment_fn)(const struct config *cfg, struct err *err);

/* ---- certificates ---- */

static int
check_validity(const struct tlsfile_validity *v, struct err *err)
{
	char text[TLSFILE_TIME_SIZE];
	int64_t now = time(NULL);

	if (now < v->from) {
		tlsfile_time_text(v->from, text);
		return err_set(err, "%s: not valid before %s", v->path, text);
	}
	tlsfile_time_text(v->until, text);
	if (now > v->until)
		return err_set(err, "%s: was valid until %s", v->path, text);
	printf("  %s: valid until %s\n", v->path, text);
	return 0;
}

static int
check_validities(const struct tlsfile_validity *v, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++)
		if (check_validity(&v[i], err) == -1)
			return -1;
	return 0;
}

static int
check_listen_tls(const struct config *cfg, struct err *err)
{
	const struct tlsfile_validity *v;
	struct tls_server *s;
	int rc = -1;
	size_t n;

	if (!cfg->listen.tls)
		return 0;
	if ((s = tls_server_new(&cfg->listen, NULL, err)) != NULL) {
		v = tls_server_validity(s, &n);
		rc = check_validities(v, n, err);
	}
	tls_server_free(s);
	return rc == 0 ? 0 : err_prefix(err, "listen.tls");
}

static int
check_client_tls(const char *member, const struct config_tls *tls, struct err *err)
{
	struct tlsfile_validity v[TLSFILE_CLIENT_MAX];
	SSL_CTX *ctx;
	int rc = -1;

	if (!tls->on)
		return 0;
	if ((ctx = tlsfile_client(tls, err)) != NULL)
		rc = check_validities(v, tlsfile_validity_of_client(ctx, tls, v), err);
	SSL_CTX_free(ctx);
	return rc == 0 ? 0 : err_prefix(err, "%s", member);
}

static int
check_upstream_tls(const struct config *cfg, struct err *err)
{
	return check_client_tls("upstream.tls", &cfg->upstream.tls, err);
}

static int
check_sink_tls(const struct config *cfg, struct err *err)
{
	char member[96];

	for (size_t i = 0; i < cfg->nsinks; i++) {
		snprintf(member, sizeof(member), "sinks: \"%s\"", cfg->sinks[i].name);
		if (check_client_tls(member, &cfg->sinks[i].tls, err) == -1)
			return -1;
	}
	return 0;
}

/* ---- addresses ---- */

static int
resolve(const char *member, const struct config_address *a, int flags, struct addrinfo **out,
    struct err *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags };
	char port[8];
	int rc;

	snprintf(port, sizeof(port), "%u", a->port);
	if ((rc = getaddrinfo(a->host, port, &hints, out)) != 0)
		return err_set(err, "%s: %s: %s", member, a->host, gai_strerror(rc));
	return 0;
}

static int
try_bind(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, 0), saved;

	if (fd == -1)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) == -1 ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen) == -1) {
		saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	close(fd);
	return 0;
}

/* A port in use is no failure: it may be a sidecar that this file is about to reload. */
static int
check_bind(const char *member, const struct config_address *a, struct err *err)
{
	struct addrinfo *ai;
	int rc = 0;

	if (resolve(member, a, AI_PASSIVE, &ai, err) == -1)
		return -1;
	if (try_bind(ai) == 0)
		printf("  %s port %u is free\n", a->host, a->port);
	else if (errno == EADDRINUSE)
		printf("  %s port %u is in use now\n", a->host, a->port);
	else
		rc = err_set_errno(err, "%s: %s port %u", member, a->host, a->port);
	freeaddrinfo(ai);
	return rc;
}

static int
check_listen_address(const struct config *cfg, struct err *err)
{
	return check_bind("listen.address", &cfg->listen.address, err);
}

static int
check_metrics_address(const struct config *cfg, struct err *err)
{
	return cfg->metrics_enabled ? check_bind("metrics.address", &cfg->metrics, err) : 0;
}

static int
check_admin_address(const struct config *cfg, struct err *err)
{
	if (!cfg->admin.enabled || cfg->admin.address.host == NULL)
		return 0;
	return check_bind("admin.address", &cfg->admin.address, err);
}

static int
check_upstream_names(const struct config *cfg, struct err *err)
{
	struct addrinfo *ai;

	for (size_t i = 0; i < cfg->upstream.naddresses; i++) {
		if (resolve("upstream.address", &cfg->upstream.addresses[i], 0, &ai, err) == -1)
			return -1;
		freeaddrinfo(ai);
	}
	printf("  %zu address%s of the key service can be resolved\n", cfg->upstream.naddresses,
	    cfg->upstream.naddresses == 1 ? "" : "es");
	return 0;
}

/* ---- files ---- */

static char *
parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static int
check_writable_parent(const char *member, const char *path, struct err *err)
{
	char *parent = parent_of(path);
	int rc = 0;

	if (parent == NULL)
		return err_set(err, "memory is short");
	if (access(parent, W_OK | X_OK) == -1)
		rc = err_set_errno(err, "%s: %s cannot be made in %s", member, path, parent);
	free(parent);
	return rc;
}

static int
check_trail(const struct config *cfg, struct err *err)
{
	const char *dir = cfg->audit.trail;
	struct stat st;

	if (stat(dir, &st) == -1) {
		if (errno != ENOENT || !cfg->audit.create)
			return err_set_errno(err, "audit.trail: %s", dir);
		if (check_writable_parent("audit.trail", dir, err) == -1)
			return -1;
		printf("  %s will be made\n", dir);
		return 0;
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(err, "audit.trail: %s is no directory", dir);
	if (access(dir, R_OK | W_OK | X_OK) == -1)
		return err_set_errno(err, "audit.trail: %s is not writable", dir);
	printf("  %s is writable\n", dir);
	return 0;
}

static int
check_group(const struct config *cfg, struct err *err)
{
	if (cfg->audit.group == NULL)
		return 0;
	if (getgrnam(cfg->audit.group) == NULL)
		return err_set(err, "audit.group: there is no group %s", cfg->audit.group);
	printf("  the group %s is there\n", cfg->audit.group);
	return 0;
}

static int
check_sink_file(const struct config_sink *s, struct err *err)
{
	char member[96];
	struct stat st;

	snprintf(member, sizeof(member), "sinks: \"%s\"", s->name);
	if (stat(s->path, &st) == -1)
		return errno == ENOENT ? check_writable_parent(member, s->path, err)
				       : err_set_errno(err, "%s: %s", member, s->path);
	if (S_ISDIR(st.st_mode))
		return err_set(err, "%s: %s is a directory", member, s->path);
	if (access(s->path, W_OK) == -1)
		return err_set_errno(err, "%s: %s is not writable", member, s->path);
	return 0;
}

static int
check_sink_files(const struct config *cfg, struct err *err)
{
	size_t n = 0;

	for (size_t i = 0; i < cfg->nsinks; i++) {
		if (cfg->sinks[i].path == NULL)
			continue;
		if (check_sink_file(&cfg->sinks[i], err) == -1)
			return -1;
		n++;
	}
	if (n > 0)
		printf("  %zu sink file%s can be written\n", n, n == 1 ? "" : "s");
	return 0;
}

/* All of them, so that one run shows whatever is wrong. */
static int
check_sinks(const struct config *cfg, struct err *err)
{
	struct sink_types types;
	struct buf found = BUF_INIT;
	int rc = 0;

	sink_types_init(&types);
	if (sink_types_load(&types, cfg, err) == -1)
		return -1;
	for (size_t i = 0; i < cfg->nsinks; i++) {
		const struct config_sink *s = &cfg->sinks[i];
		const struct sink_ops *ops = types.ops[s->type];
		struct err why;

		if (ops->probe == NULL)
			continue;
		buf_consume(&found, buf_size(&found));
		if (ops->probe(s, clock_mono_ns() + PROBE_NS, &found, &why) == 0) {
			printf("  sink %s: %.*s\n", s->name, SLICE_ARG(buf_slice(&found)));
			continue;
		}
		/* The last one is the caller's to tell. */
		if (rc == -1)
			cli_fail(CLI_FAILED, err);
		err_prefix(&why, "sinks: \"%s\"", s->name);
		*err = why;
		rc = -1;
	}
	buf_fini(&found);
	return rc;
}

/* No failure: it serves as many as there may be. */
static int
check_descriptors(const struct config *cfg, struct err *err)
{
	if (descriptors_check(cfg, server_workers(cfg), err) == -1)
		printf("  warning: %s\n", err->msg);
	return 0;
}

static const struct {
	environment_fn check;
	enum cli_status status;
} environment_checks[] = {
	{ check_listen_tls, CLI_CONFIG },
	{ check_upstream_tls, CLI_CONFIG },
	{ check_sink_tls, CLI_CONFIG },
	{ check_listen_address, CLI_FAILED },
	{ check_metrics_address, CLI_FAILED },
	{ check_admin_address, CLI_FAILED },
	{ check_upstream_names, CLI_FAILED },
	{ check_trail, CLI_FAILED },
	{ check_group, CLI_CONFIG },
	{ check_sink_files, CLI_FAILED },
	{ check_sinks, CLI_FAILED },
	{ check_descriptors, CLI_FAILED },
};

#define CHECKS (sizeof(environment_checks) / sizeof(environment_checks[0]))

/* All of them, so that one run shows everything that is wrong. */
static int
check_environment(const struct config *cfg)
{
	int status = CLI_OK;

	for (size_t i = 0; i < CHECKS; i++) {
		struct err err;

		if (environment_checks[i].check(cfg, &err) == 0)
			continue;
		cli_fail(environment_checks[i].status, &err);
		if (status != CLI_CONFIG)
			status = environment_checks[i].status;
	}
	return status;
}

static int
check(const struct cli_args *a)
{
	const char *file = cli_value(a, "FILE");
	struct config *cfg;
	struct err err;
	int status = CLI_OK;

	if (config_load(file, NULL, &cfg, &err) == -1)
		return cli_fail(CLI_CONFIG, &err);
	/* The default is a row of the table too, but nobody wrote it down as a route. */
	printf("%s is good: %zu routes, %zu actions, %zu sink%s\n", file,
	    route_table_size(cfg->routes) - 1, route_table_actions(cfg->routes), cfg->nsinks,
	    cfg->nsinks == 1 ? "" : "s");
	printf("  digest %s\n", cfg->digest);
	if (cli_value(a, "--environment") != NULL)
		status = check_environment(cfg);
	config_unref(cfg);
	return fflush(stdout) == EOF ? CLI_FAILED : status;
}

const struct cli_command cli_check = {
	.name = "check",
	.alias = "-t",
	.help = "say whether a routes file is good",
	.rows =
	    (const struct cli_row[]){
		CLI_ROUTES_FILE(),
		{ "--environment", .help = "and whether its files and addresses are",
		    .flags = CLI_MAY },
		{ 0 },
	    },
	.run = check,
};
