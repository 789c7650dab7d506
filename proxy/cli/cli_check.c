#include "cli/cli.h"

#include "keytrail/config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct found {
	char text[512]; /* "" where there was nothing to check */
};

/* One check of the environment: 0 and what was found, or -1 and an error. */
typedef int (*environment_fn)(const struct config *cfg, struct found *found, struct err *err);

/* ---- certificates ---- */

/* A file of PEM, or NULL and an error that names the member and the file. */
static BIO *
open_pem(const char *member, const char *path, struct err *err)
{
	BIO *bio;

	errno = 0;
	if ((bio = BIO_new_file(path, "r")) == NULL)
		err_set_errno(err, "%s: %s", member, path);
	ERR_clear_error();
	return bio;
}

static X509 *
read_certificate(const char *member, const char *path, struct err *err)
{
	BIO *bio = open_pem(member, path, err);
	X509 *x;

	if (bio == NULL)
		return NULL;
	x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	BIO_free(bio);
	ERR_clear_error();
	if (x == NULL)
		err_set(err, "%s: %s holds no PEM certificate", member, path);
	return x;
}

/* Nobody is there to type a passphrase. */
static int
no_passphrase(char *out, int size, int writing, void *arg)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static EVP_PKEY *
read_key(const char *member, const char *path, struct err *err)
{
	BIO *bio = open_pem(member, path, err);
	EVP_PKEY *key;

	if (bio == NULL)
		return NULL;
	key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	ERR_clear_error();
	if (key == NULL)
		err_set(err, "%s: %s holds no PEM private key without a passphrase", member, path);
	return key;
}

static int
check_validity(const char *path, const X509 *x, struct found *found, struct err *err)
{
	char until[64] = "";
	BIO *bio = BIO_new(BIO_s_mem());

	if (bio == NULL)
		return err_set(err, "memory is short");
	ASN1_TIME_print(bio, X509_get0_notAfter(x));
	if (BIO_read(bio, until, sizeof(until) - 1) <= 0)
		until[0] = '\0';
	BIO_free(bio);
	if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
		return err_set(err, "%s: the certificate was valid until %s", path, until);
	if (X509_cmp_current_time(X509_get0_notBefore(x)) > 0)
		return err_set(err, "%s: the certificate is not valid yet", path);
	snprintf(found->text, sizeof(found->text), "%s fits its key, valid until %s", path, until);
	return 0;
}

static int
check_pair(const char *member, const char *certificate, const char *key_file, struct found *found,
    struct err *err)
{
	char name[64];
	X509 *x = NULL;
	EVP_PKEY *key = NULL;
	int rc = -1;

	snprintf(name, sizeof(name), "%s.certificate", member);
	if ((x = read_certificate(name, certificate, err)) == NULL)
		return -1;
	snprintf(name, sizeof(name), "%s.key", member);
	if ((key = read_key(name, key_file, err)) == NULL)
		goto out;
	rc = X509_check_private_key(x, key) == 1
		 ? check_validity(certificate, x, found, err)
		 : err_set(err, "%s: %s is not the key of %s", name, key_file, certificate);
	ERR_clear_error();
out:
	X509_free(x);
	EVP_PKEY_free(key);
	return rc;
}

static int
check_authorities(const char *member, const char *path, struct found *found, struct err *err)
{
	X509 *x = read_certificate(member, path, err);

	if (x == NULL)
		return -1;
	X509_free(x);
	snprintf(found->text, sizeof(found->text), "%s holds certificates", path);
	return 0;
}

static int
check_listen_pair(const struct config *cfg, struct found *found, struct err *err)
{
	const struct config_listen *l = &cfg->listen;

	return l->tls ? check_pair("listen.tls", l->certificate, l->key, found, err) : 0;
}

static int
check_client_ca(const struct config *cfg, struct found *found, struct err *err)
{
	const char *ca = cfg->listen.client_ca;

	return ca != NULL ? check_authorities("listen.tls.client_ca", ca, found, err) : 0;
}

static int
check_upstream_ca(const struct config *cfg, struct found *found, struct err *err)
{
	const char *ca = cfg->upstream.ca;

	return ca != NULL ? check_authorities("upstream.tls.ca", ca, found, err) : 0;
}

static int
check_upstream_pair(const struct config *cfg, struct found *found, struct err *err)
{
	const struct config_upstream *u = &cfg->upstream;

	if (u->certificate == NULL)
		return 0;
	return check_pair("upstream.tls", u->certificate, u->key, found, err);
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
check_bind(const char *member, const struct config_address *a, struct found *found, struct err *err)
{
	struct addrinfo *ai;
	int rc = 0;

	if (resolve(member, a, AI_PASSIVE, &ai, err) == -1)
		return -1;
	if (try_bind(ai) == 0)
		snprintf(found->text, sizeof(found->text), "%s port %u is free", a->host, a->port);
	else if (errno == EADDRINUSE)
		snprintf(
		    found->text, sizeof(found->text), "%s port %u is in use now", a->host, a->port);
	else
		rc = err_set_errno(err, "%s: %s port %u", member, a->host, a->port);
	freeaddrinfo(ai);
	return rc;
}

static int
check_listen_address(const struct config *cfg, struct found *found, struct err *err)
{
	return check_bind("listen.address", &cfg->listen.address, found, err);
}

static int
check_metrics_address(const struct config *cfg, struct found *found, struct err *err)
{
	return cfg->metrics_enabled ? check_bind("metrics.address", &cfg->metrics, found, err) : 0;
}

static int
check_admin_address(const struct config *cfg, struct found *found, struct err *err)
{
	if (!cfg->admin.enabled || cfg->admin.address.host == NULL)
		return 0;
	return check_bind("admin.address", &cfg->admin.address, found, err);
}

static int
check_upstream_names(const struct config *cfg, struct found *found, struct err *err)
{
	struct addrinfo *ai;

	for (size_t i = 0; i < cfg->upstream.naddresses; i++) {
		if (resolve("upstream.address", &cfg->upstream.addresses[i], 0, &ai, err) == -1)
			return -1;
		freeaddrinfo(ai);
	}
	snprintf(found->text, sizeof(found->text),
	    "%zu address%s of the key service can be resolved", cfg->upstream.naddresses,
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
check_trail(const struct config *cfg, struct found *found, struct err *err)
{
	const char *dir = cfg->audit.trail;
	struct stat st;

	if (stat(dir, &st) == -1) {
		if (errno != ENOENT || !cfg->audit.create)
			return err_set_errno(err, "audit.trail: %s", dir);
		snprintf(found->text, sizeof(found->text), "%s will be made", dir);
		return check_writable_parent("audit.trail", dir, err);
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(err, "audit.trail: %s is no directory", dir);
	if (access(dir, R_OK | W_OK | X_OK) == -1)
		return err_set_errno(err, "audit.trail: %s is not writable", dir);
	snprintf(found->text, sizeof(found->text), "%s is writable", dir);
	return 0;
}

static int
check_group(const struct config *cfg, struct found *found, struct err *err)
{
	if (cfg->audit.group == NULL)
		return 0;
	if (getgrnam(cfg->audit.group) == NULL)
		return err_set(err, "audit.group: there is no group %s", cfg->audit.group);
	snprintf(found->text, sizeof(found->text), "the group %s is there", cfg->audit.group);
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
check_sink_files(const struct config *cfg, struct found *found, struct err *err)
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
		snprintf(found->text, sizeof(found->text), "%zu sink file%s can be written", n,
		    n == 1 ? "" : "s");
	return 0;
}

static const struct {
	environment_fn check;
	enum cli_status status;
} environment_checks[] = {
	{ check_listen_pair, CLI_CONFIG },
	{ check_client_ca, CLI_CONFIG },
	{ check_upstream_ca, CLI_CONFIG },
	{ check_upstream_pair, CLI_CONFIG },
	{ check_listen_address, CLI_FAILED },
	{ check_metrics_address, CLI_FAILED },
	{ check_admin_address, CLI_FAILED },
	{ check_upstream_names, CLI_FAILED },
	{ check_trail, CLI_FAILED },
	{ check_group, CLI_CONFIG },
	{ check_sink_files, CLI_FAILED },
};

#define CHECKS (sizeof(environment_checks) / sizeof(environment_checks[0]))

/* All of them, so that one run shows everything that is wrong. */
static int
check_environment(const struct config *cfg)
{
	int status = CLI_OK;

	for (size_t i = 0; i < CHECKS; i++) {
		struct found found = { "" };
		struct err err;

		if (environment_checks[i].check(cfg, &found, &err) == -1) {
			cli_fail(environment_checks[i].status, &err);
			if (status != CLI_CONFIG)
				status = environment_checks[i].status;
		} else if (found.text[0] != '\0') {
			printf("  %s\n", found.text);
		}
	}
	return status;
}

static int
check(const char *file, bool environment)
{
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
	if (environment)
		status = check_environment(cfg);
	config_unref(cfg);
	return fflush(stdout) == EOF ? CLI_FAILED : status;
}

int
cli_check(int argc, char **argv)
{
	static const char *const known[] = { "--environment", NULL };
	const char *file = NULL;
	bool environment = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--environment") == 0)
			environment = true;
		else if (argv[i][0] == '-')
			return cli_unknown_option("check", argv[i], known);
		else if (file != NULL)
			return cli_usage("check", "one file only");
		else
			file = argv[i];
	}
	if (file == NULL)
		return cli_usage("check", "which file?");
	return check(file, environment);
}
