/* landlock(7), without the headers of a newer kernel than the one that this is built on. */
#include "cli/sandbox_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VERSION	       1 /* flag of landlock_create_ruleset */
#define VERSION_MIN    2 /* the first one lets nothing move to another folder, as tiles do */
#define RULE_PATH      1
#define RULE_PORT      2

#define FS_WRITE_FILE  (UINT64_C(1) << 1)
#define FS_READ_FILE   (UINT64_C(1) << 2)
#define FS_READ_DIR    (UINT64_C(1) << 3)
#define FS_REMOVE_DIR  (UINT64_C(1) << 4)
#define FS_REMOVE_FILE (UINT64_C(1) << 5)
#define FS_MAKE_DIR    (UINT64_C(1) << 7)
#define FS_MAKE_REG    (UINT64_C(1) << 8)
#define FS_MAKE_SOCK   (UINT64_C(1) << 9)
#define FS_REFER       (UINT64_C(1) << 13) /* to another folder; since version 2 */
#define FS_TRUNCATE    (UINT64_C(1) << 14) /* 3 */
#define FS_IOCTL_DEV   (UINT64_C(1) << 15) /* 5 */
#define FS_FIRST       ((UINT64_C(1) << 14) - 1)
#define NET_BIND_TCP   UINT64_C(1) /* 4 */
#define SCOPE_ALL      UINT64_C(3) /* 6: abstract sockets, signals */

/* What may be done with a file itself. */
#define OF_FILES (FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE)
#define WRITE                                                                                      \
	(OF_FILES | FS_READ_DIR | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR | FS_MAKE_REG |     \
	    FS_REFER)

struct ruleset_attr {
	uint64_t fs, net, scoped;
};

struct path_attr {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

struct port_attr {
	uint64_t allowed, port;
};

struct rules {
	int fd;
	uint64_t fs; /* what is handled */
	bool net;
};

/* Of the same buffer, too. */
static void
folder_of(const char *path, char out[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t n = slash == NULL || slash == path ? 1 : (size_t)(slash - path);

	if (n >= PATH_MAX)
		n = PATH_MAX - 1;
	memmove(out, slash == NULL ? "." : path, n);
	out[n] = '\0';
}

/* ---- rules ---- */

/* What is not there needs none. */
static int
allow(const struct rules *r, const char *path, uint64_t allowed, struct err *err)
{
	struct path_attr a = { allowed & r->fs, open(path, O_PATH | O_CLOEXEC) };
	struct stat st;
	int rc = 0;

	if (a.parent == -1)
		return errno == ENOENT || errno == ENOTDIR || errno == EACCES
			   ? 0
			   : err_set_errno(err, "landlock: %s", path);
	if (fstat(a.parent, &st) == 0 && !S_ISDIR(st.st_mode))
		a.allowed &= OF_FILES;
	/* EBADFD: a pipe, say, which no rule is about. */
	if (syscall(SYS_landlock_add_rule, r->fd, RULE_PATH, &a, 0) == -1 && errno != EBADFD)
		rc = err_set_errno(err, "landlock: allow %s", path);
	close(a.parent);
	return rc;
}

/* Whatever its name is. */
static bool
is_root(const char *folder)
{
	struct stat st, root;

	return stat(folder, &st) == 0 && stat("/", &root) == 0 && st.st_dev == root.st_dev &&
	       st.st_ino == root.st_ino;
}

/* `path` is what it is for.  Of the root a rule would leave everything. */
static int
allow_folder(
    const struct rules *r, const char *folder, const char *path, uint64_t allowed, struct err *err)
{
	if (is_root(folder))
		return err_set(err, "landlock: %s would leave it the whole of /", path);
	return allow(r, folder, allowed, err);
}

static int
allow_folder_of(const struct rules *r, const char *path, uint64_t allowed, struct err *err)
{
	char folder[PATH_MAX];

	folder_of(path, folder);
	if (allowed == FS_READ_FILE)
		return allow(r, is_root(folder) ? path : folder, allowed, err);
	/* One that is not there yet may be made where it will be. */
	while (access(folder, F_OK) == -1 && errno == ENOENT)
		folder_of(folder, folder);
	return allow_folder(r, folder, path, allowed, err);
}

/* The folder of the name, and that of the file where the name is a link. */
static int
allow_around(const struct rules *r, const char *path, uint64_t allowed, struct err *err)
{
	char real[PATH_MAX];

	if (allow_folder_of(r, path, allowed, err) == -1)
		return -1;
	return realpath(path, real) == NULL ? 0 : allow_folder_of(r, real, allowed, err);
}

static int
allow_read(void *arg, const char *path, struct err *err)
{
	return allow_around(arg, path, FS_READ_FILE, err);
}

/* ---- what the configuration names ---- */

static int
allow_written(const struct rules *r, const struct config *c, struct err *err)
{
	if (allow_folder(r, c->audit.trail, c->audit.trail, WRITE | FS_MAKE_SOCK, err) == -1)
		return -1;
	for (size_t i = 0; i < c->nsinks; i++)
		if (c->sinks[i].path != NULL && allow_around(r, c->sinks[i].path, WRITE, err) == -1)
			return -1;
	return c->admin.socket == NULL
		   ? 0
		   : allow_folder_of(r, c->admin.socket, FS_MAKE_SOCK | FS_REMOVE_FILE, err);
}

/* ---- what the system brings ---- */

/* Folders, with colons between them. */
static int
allow_each(const struct rules *r, const char *folders, struct err *err)
{
	char folder[PATH_MAX];
	size_t n;

	for (; *folders != '\0'; folders += n + (folders[n] == ':')) {
		n = strcspn(folders, ":");
		snprintf(folder, sizeof(folder), "%.*s", (int)n, folders);
		if (allow_folder(r, folder, folder, FS_READ_FILE, err) == -1)
			return -1;
	}
	return 0;
}

/* What OpenSSL reads for `"ca": "system"`, and where Debian and Red Hat have what is linked there. */
static int
allow_authorities(const struct rules *r, struct err *err)
{
	const char *file = getenv(X509_get_default_cert_file_env());
	const char *folders = getenv(X509_get_default_cert_dir_env());

	if (allow_around(
		r, file != NULL ? file : X509_get_default_cert_file(), FS_READ_FILE, err) == -1 ||
	    allow_each(r, folders != NULL ? folders : X509_get_default_cert_dir(), err) == -1)
		return -1;
	return allow_each(r,
	    "/etc/ssl/certs:/etc/pki/ca-trust/extracted:"
	    "/usr/local/share/ca-certificates:/usr/share/ca-certificates",
	    err);
}

/* Names of hosts and of operators, the spare descriptor, limits.memory; a sink opens standard output
 * anew, so that it alone does not wait (outfd.h). */
static int
allow_system(const struct rules *r, struct err *err)
{
	static const char *const read[] = { "/dev/null", "/dev/urandom", "/etc/gai.conf",
		"/etc/host.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd",
		"/etc/resolv.conf", "/proc/self/statm" };

	for (size_t i = 0; i < sizeof(read) / sizeof(read[0]); i++)
		if (allow(r, read[i], FS_READ_FILE, err) == -1)
			return -1;
	return allow(r, "/proc/self/fd/1", FS_WRITE_FILE, err);
}

/* Sinks read it again when it is replaced, which it is where a service keeps it in a folder of its own;
 * in /run itself it would be the secrets of all others, too. */
static int
allow_replaced_names(const struct rules *r, struct err *err)
{
	char real[PATH_MAX];

	if (realpath("/etc/resolv.conf", real) == NULL || strncmp(real, "/run/", 5) != 0 ||
	    strrchr(real, '/') == real + 4)
		return 0;
	return allow_folder_of(r, real, FS_READ_FILE, err);
}

/* Those that are not bound yet. */
static int
allow_ports(const struct rules *r, const struct config *c, struct err *err)
{
	const struct config_address *const own[] = { &c->listen.address,
		c->metrics_enabled ? &c->metrics : NULL,
		c->admin.enabled && c->admin.address.host != NULL ? &c->admin.address : NULL };

	for (size_t i = 0; r->net && i < sizeof(own) / sizeof(own[0]); i++) {
		struct port_attr a = { NET_BIND_TCP, own[i] != NULL ? own[i]->port : 0 };

		if (own[i] != NULL && syscall(SYS_landlock_add_rule, r->fd, RULE_PORT, &a, 0) == -1)
			return err_set_errno(err, "landlock: allow port %u", own[i]->port);
	}
	return 0;
}

/* ---- the whole ---- */

static int
new_ruleset(struct rules *r, long version)
{
	static const size_t sizes[] = { 0, 8, 8, 8, 16, 16, 24 };
	struct ruleset_attr a = { FS_FIRST, NET_BIND_TCP, SCOPE_ALL };

	a.fs |= version >= 3 ? FS_TRUNCATE : 0;
	a.fs |= version >= 5 ? FS_IOCTL_DEV : 0;
	r->fs = a.fs;
	r->net = version >= 4;
	r->fd = (int)syscall(SYS_landlock_create_ruleset, &a, sizes[version < 6 ? version : 6], 0);
	return r->fd;
}

static long
kernels_version(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION);
}

static int
restrict_self(const struct config *c, long version, struct err *err)
{
	struct rules r;
	int rc = -1;

	if (new_ruleset(&r, version) == -1)
		return err_set_errno(err, "landlock");
	if (sandbox_each_file(c, allow_read, &r, err) == 0 && allow_written(&r, c, err) == 0 &&
	    allow_authorities(&r, err) == 0 && allow_system(&r, err) == 0 &&
	    (config_remote_sink(c) == NULL || allow_replaced_names(&r, err) == 0) &&
	    allow_ports(&r, c, err) == 0 &&
	    (rc = (int)syscall(SYS_landlock_restrict_self, r.fd, 0)) == -1)
		err_set_errno(err, "landlock: restrict the process");
	close(r.fd);
	return rc;
}

void
sandbox_look_at_landlock(struct sandbox *s, const struct config *c)
{
	long version = kernels_version();
	char detail[64] = "\"sandbox\" is \"off\"";
	bool on = c->sandbox != CONFIG_SANDBOX_OFF && version >= VERSION_MIN;

	if (c->sandbox != CONFIG_SANDBOX_OFF && version < 1)
		snprintf(detail, sizeof(detail), "the kernel has none");
	else if (c->sandbox != CONFIG_SANDBOX_OFF)
		snprintf(detail, sizeof(detail), "the kernel's is version %ld%s", version,
		    on ? "" : ", and 2 is needed");
	sandbox_set(s, SANDBOX_LANDLOCK, on, detail);
}

int
sandbox_confine(struct sandbox *s, const struct config *c, struct err *err)
{
	if (!s->parts[SANDBOX_LANDLOCK].on || restrict_self(c, kernels_version(), err) == 0)
		return 0;
	sandbox_set(s, SANDBOX_LANDLOCK, false, err->msg);
	return c->sandbox == CONFIG_SANDBOX_REQUIRE ? -1 : 0;
}

/* ---- what HUP may name ---- */

/* access(2) is not about landlock, open(2) is. */
static int
check_open(const char *path, int flags, struct err *err)
{
	int fd = open(path, flags | O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd != -1)
		close(fd);
	else if (errno == EACCES && access(path, R_OK) == 0)
		return err_set(err,
		    "%s is not what the process may use since its start (\"sandbox\"): restart",
		    path);
	return 0;
}

static int
check_read(void *arg, const char *path, struct err *err)
{
	(void)arg;
	return check_open(path, 0, err);
}

int
sandbox_check(const struct sandbox *s, const struct config *next, struct err *err)
{
	const struct config_sink *remote = config_remote_sink(next);
	char folder[PATH_MAX];

	if (remote != NULL && !s->network && s->filters != NULL)
		return err_set(err,
		    "sink %s uses the network, which the process gave up at its start "
		    "(\"sandbox\"): restart",
		    remote->name);
	for (size_t i = 0; i < next->nsinks; i++) {
		if (next->sinks[i].path == NULL)
			continue;
		folder_of(next->sinks[i].path, folder);
		if (check_open(folder, O_DIRECTORY, err) == -1)
			return -1;
	}
	return sandbox_each_file(next, check_read, NULL, err);
}
