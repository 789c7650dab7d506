#include "cli/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <netinet/in.h>

#include <cmocka.h>

/* Folders of a sidecar, the current one among them, and its configuration. */
struct place {
	char folder[64];
	struct config *config;
};

static const char routes[] =
    "{\"listen\":{\"address\":\"127.0.0.1:7\","
    "\"tls\":{\"certificate\":\"../tls/c\",\"key\":\"../tls/k\"}},"
    "\"upstream\":{\"address\":\"127.0.0.1:9\",\"tls\":null},"
    "\"sinks\":[{\"type\":\"file\",\"name\":\"s\",\"path\":\"../later/there/sink\"}],"
    "\"admin\":{\"socket\":\"../run/s\"},\"audit\":{\"trail\":\"../trail\",\"sign\":null},"
    "\"service\":{\"region\":\"us-south\"},\"default\":\"kms.x.y\","
    "\"routes\":[{\"action\":\"kms.a.b\",\"method\":\"GET\",\"path\":\"/x\"}]}";

static void
make_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
}

static int
set_up(void **state)
{
	static const char *const folders[] = { "trail", "trail/tile", "tls", "real", "run", "later",
		"other", "more" };
	static const char *const files[] = { "tls/k", "real/c", "real/new", "more/f", "other/f" };
	struct place *p = calloc(1, sizeof(*p));
	struct err err;

	snprintf(p->folder, sizeof(p->folder), "/tmp/keytrail-sandbox-XXXXXX");
	assert_non_null(mkdtemp(p->folder));
	assert_int_equal(chdir(p->folder), 0);
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
		assert_int_equal(mkdir(folders[i], 0700), 0);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		make_file(files[i]);
	setenv("SSL_CERT_DIR", "none:more", 1);
	assert_int_equal(symlink("../real/c", "tls/c"), 0);
	assert_int_equal(mkdir("conf", 0700), 0);
	assert_int_equal(
	    config_load_text("conf/routes.json", slice_of(routes), NULL, &p->config, &err), 0);
	*state = p;
	return 0;
}

static int
tear_down(void **state)
{
	struct place *p = *state;
	char command[128];

	config_unref(p->config);
	snprintf(command, sizeof(command), "rm -rf %s", p->folder);
	assert_int_equal(system(command), 0);
	free(p);
	return 0;
}

/* ---- what may be tried: 0, or errno ---- */

static int
result(int rc)
{
	return rc == -1 ? errno : 0;
}

static int
open_one(const char *path, int flags)
{
	int fd = open(path, flags, 0600), rc = result(fd);

	if (fd != -1)
		close(fd);
	return rc;
}

static int
reads(const char *path)
{
	return open_one(path, O_RDONLY);
}

static int
writes(const char *path)
{
	return open_one(path, O_WRONLY);
}

static int
creates(const char *path)
{
	return open_one(path, O_WRONLY | O_CREAT | O_EXCL);
}

static int
truncates(const char *path)
{
	return result(truncate(path, 0));
}

static int
lists(const char *path)
{
	return open_one(path, O_RDONLY | O_DIRECTORY);
}

static int
removes(const char *path)
{
	return result(unlink(path));
}

/* From the trail's own folder. */
static int
moves_to(const char *path)
{
	int rc = creates("trail/moved");

	if (rc == 0 && (rc = result(rename("trail/moved", path))) != 0)
		unlink("trail/moved");
	return rc;
}

static int
makes_pipe(const char *path)
{
	return result(mkfifo(path, 0600));
}

static int
binds_unix(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), rc;

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	rc = result(bind(fd, (const struct sockaddr *)&sun, sizeof(sun)));
	close(fd);
	return rc;
}

static int
executes(const char *path)
{
	char *const args[] = { NULL };

	return result(execve(path, args, args));
}

static int
binds_port(const char *port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(port)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), rc;

	rc = result(bind(fd, (const struct sockaddr *)&sin, sizeof(sin)));
	close(fd);
	return rc;
}

static int
signals_parent(const char *unused)
{
	(void)unused;
	return result(kill(getppid(), 0));
}

static const struct {
	int (*try)(const char *path);
	const char *path;
	int want, version; /* the first that knows of it */
} attempts[] = {
	{ reads, "other/f", EACCES, 0 },
	{ reads, "/etc/shadow", EACCES, 0 },
	{ reads, "/proc/self/environ", EACCES, 0 },
	{ lists, "/", EACCES, 0 },
	{ lists, "other", EACCES, 0 },
	{ writes, "other/f", EACCES, 0 },
	{ truncates, "other/f", EACCES, 3 },
	{ removes, "other/f", EACCES, 0 },
	{ creates, "other/new", EACCES, 0 },
	{ moves_to, "other/new", EACCES, 0 },
	{ binds_unix, "other/socket", EACCES, 0 },
	{ executes, "/bin/true", EACCES, 0 },
	{ binds_port, "8", EACCES, 4 },
	{ signals_parent, "", EPERM, 6 },
	/* certificates: to be read, not to be changed; wherever a link leads */
	{ reads, "tls/k", 0, 0 },
	{ reads, "tls/c", 0, 0 },
	{ reads, "real/new", 0, 0 },
	{ reads, "more/f", 0, 0 },
	{ writes, "tls/k", EACCES, 0 },
	{ creates, "tls/new", EACCES, 0 },
	{ removes, "tls/k", EACCES, 0 },
	{ lists, "tls", EACCES, 0 },
	/* the trail: files, also in other folders of it */
	{ lists, "trail", 0, 0 },
	{ creates, "trail/new", 0, 0 },
	{ truncates, "trail/new", 0, 0 },
	{ moves_to, "trail/tile/new", 0, 0 },
	{ removes, "trail/tile/new", 0, 0 },
	{ makes_pipe, "trail/pipe", EACCES, 0 },
	{ binds_unix, "trail/socket", 0, 0 },
	/* a sink whose folder is made later */
	{ lists, "later", 0, 0 },
	{ creates, "later/sink", 0, 0 },
	/* the admin's socket */
	{ binds_unix, "run/s", 0, 0 },
	{ removes, "run/s", 0, 0 },
	{ creates, "run/new", EACCES, 0 },
	/* the system's */
	{ reads, "/etc/passwd", 0, 0 },
	{ writes, "/etc/passwd", EACCES, 0 },
	{ reads, "/dev/null", 0, 0 },
};

/* In a process of its own, which ends with 0 if all was as it should be. */
static void
in_child(void (*run)(const struct place *), const struct place *p)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		run(p);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static int
version_of(const struct sandbox *s)
{
	int version = 0;

	sscanf(s->parts[SANDBOX_LANDLOCK].detail, "the kernel's is version %d", &version);
	return version;
}

static void
try_all(const struct place *p)
{
	struct sandbox s = { .filters = NULL };
	struct err err;
	int failed = 0, got;

	if (sandbox_look(&s, p->config, &err) == -1 || sandbox_confine(&s, p->config, &err) == -1)
		_exit(1);
	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		if (version_of(&s) < attempts[i].version)
			continue;
		errno = 0;
		if ((got = attempts[i].try(attempts[i].path)) == attempts[i].want)
			continue;
		fprintf(stderr, "attempt %zu, %s: %s, wanted %s\n", i, attempts[i].path,
		    strerror(got), strerror(attempts[i].want));
		failed++;
	}
	if (failed > 0)
		_exit(2);
}

static bool
kernel_has_landlock(const struct place *p)
{
	struct sandbox s = { .filters = NULL };
	struct err err;

	assert_int_equal(sandbox_look(&s, p->config, &err), 0);
	sandbox_fini(&s);
	return s.parts[SANDBOX_LANDLOCK].on;
}

static void
nothing_but_what_is_named(void **state)
{
	if (!kernel_has_landlock(*state))
		skip();
	in_child(try_all, *state);
}

/* ---- the root ---- */

#define NOWHERE "/keytrail-no-such-folder/file"

/* Whether `c` leaves it what is named nowhere; `rc` is what confining is to give. */
static void
confine_and_read(const struct place *p, const struct config *c, int rc, bool on)
{
	struct sandbox s = { .filters = NULL };
	char other[128];
	struct err err;

	snprintf(other, sizeof(other), "%s/other/f", p->folder);
	s.parts[SANDBOX_LANDLOCK].on = true;
	if (sandbox_confine(&s, c, &err) != rc || s.parts[SANDBOX_LANDLOCK].on != on)
		_exit(1);
	if (on ? reads(other) != EACCES
	       : strstr(s.parts[SANDBOX_LANDLOCK].detail, "would leave it the whole of /") == NULL)
		_exit(2);
}

static void
read_in_no_folder(const struct place *p)
{
	struct config c = *p->config;
	char ca[] = NOWHERE;

	c.upstream.tls.ca = ca;
	confine_and_read(p, &c, 0, true);
}

static void
read_beside_the_root(const struct place *p)
{
	struct config c = *p->config;
	char ca[] = "bare-name";

	c.upstream.tls.ca = ca;
	c.nsinks = 0; /* relative, as the socket is */
	c.admin.socket = NULL;
	if (chdir("/") == -1)
		_exit(3);
	confine_and_read(p, &c, 0, true);
}

static void
write_in_no_folder(const struct place *p)
{
	struct config c = *p->config;
	char path[] = NOWHERE;
	struct config_sink sink = { .path = path };

	c.sinks = &sink;
	c.nsinks = 1;
	confine_and_read(p, &c, 0, false);
	c.sandbox = CONFIG_SANDBOX_REQUIRE;
	confine_and_read(p, &c, -1, false);
}

static void
socket_in_the_root(const struct place *p)
{
	struct config c = *p->config;
	char path[] = "/../socket";

	c.admin.socket = path;
	confine_and_read(p, &c, 0, false);
}

static void
trail_in_the_root(const struct place *p)
{
	struct config c = *p->config;
	char path[] = "/.";

	c.audit.trail = path;
	confine_and_read(p, &c, 0, false);
}

static void
the_root_is_never_left_whole(void **state)
{
	void (*const runs[])(const struct place *) = { read_in_no_folder, read_beside_the_root,
		write_in_no_folder, socket_in_the_root, trail_in_the_root };

	if (!kernel_has_landlock(*state))
		skip();
	for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++)
		in_child(runs[i], *state);
}

/* ---- names of hosts ---- */

/* Beside what /etc/resolv.conf leads to is `beside`, which it may read or not. */
static void
confine_with_names(const struct place *p, const char *names, const char *beside, int want)
{
	struct config_sink remote = { .type = CONFIG_SINK_SYSLOG };
	struct sandbox s = { .filters = NULL };
	struct config c = *p->config;
	struct err err;

	c.sinks = &remote;
	c.nsinks = 1;
	/* Not every root may, nor can what is mounted be kept apart where "/" is no mount (chroot). */
	if (unshare(CLONE_NEWNS) == -1 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1)
		_exit(0);
	if (mount("none", "/etc", "tmpfs", 0, NULL) == -1 ||
	    mount("none", "/run", "tmpfs", 0, NULL) == -1 || mkdir("/run/names", 0700) == -1)
		_exit(1);
	make_file(names);
	make_file(beside);
	if (symlink(names, "/etc/resolv.conf") == -1)
		_exit(2);
	s.parts[SANDBOX_LANDLOCK].on = true;
	if (sandbox_confine(&s, &c, &err) == -1 || reads("/etc/resolv.conf") != 0)
		_exit(3);
	if (reads(beside) != want)
		_exit(4);
}

static void
names_in_their_folder(const struct place *p)
{
	confine_with_names(p, "/run/names/resolv.conf", "/run/names/new", 0);
}

static void
names_in_run(const struct place *p)
{
	confine_with_names(p, "/run/resolv.conf", "/run/secret", EACCES);
}

static void
names_leave_it_no_more_than_their_folder(void **state)
{
	if (!kernel_has_landlock(*state))
		skip();
	in_child(names_in_their_folder, *state);
	in_child(names_in_run, *state);
}

/* ---- what HUP may name ---- */

static void
check_next(const struct place *p)
{
	struct sandbox s = { .filters = NULL };
	struct config next = *p->config;
	char outside[] = "other/f";
	struct config_sink sink = { .path = outside };
	struct err err;

	if (sandbox_look(&s, p->config, &err) == -1 || sandbox_confine(&s, p->config, &err) == -1)
		_exit(1);
	if (sandbox_check(&s, &next, &err) == -1)
		_exit(2);
	next.upstream.tls.ca = outside;
	if (sandbox_check(&s, &next, &err) == 0 || strstr(err.msg, outside) == NULL)
		_exit(3);
	next.upstream.tls.ca = NULL;
	next.sinks = &sink;
	next.nsinks = 1;
	if (sandbox_check(&s, &next, &err) == 0)
		_exit(4);
}

static void
what_hup_names_has_to_be_within(void **state)
{
	if (!kernel_has_landlock(*state))
		skip();
	in_child(check_next, *state);
}

/* ---- system calls ---- */

static int
opens_socket(int family, int type)
{
	int fd = socket(family, type, 0), rc = result(fd);

	if (fd != -1)
		close(fd);
	return rc;
}

static int
of_inet(void)
{
	return opens_socket(AF_INET, SOCK_STREAM);
}

static int
of_packet(void)
{
	return opens_socket(AF_PACKET, SOCK_RAW);
}

static int
of_netlink(void)
{
	return opens_socket(AF_NETLINK, SOCK_RAW);
}

static int
of_unix(void)
{
	return opens_socket(AF_UNIX, SOCK_STREAM);
}

static int
listens(void)
{
	return result(listen(0, 1));
}

static int
connects(void)
{
	return result(connect(-1, NULL, 0)) == EBADF ? 0 : EPERM;
}

static int
asks_unsent(void)
{
	return result(ioctl(-1, TIOCOUTQ, NULL)) == EBADF ? 0 : EPERM;
}

static int
binds(void)
{
	return result(bind(0, NULL, 0));
}

static int
traces(void)
{
	return result((int)syscall(SYS_ptrace, 0, 0, 0, 0));
}

static int
reads_memory(void)
{
	return result((int)syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0));
}

static int
signals_itself(void)
{
	return result(kill(getpid(), 0));
}

static int
forks(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	return result(child);
}

static int
executes_true(void)
{
	return executes("/bin/true");
}

static int
maps(int protection)
{
	void *p = mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? errno : result(munmap(p, 4096));
}

static int
maps_code(void)
{
	return maps(PROT_READ | PROT_EXEC);
}

static int
maps_data(void)
{
	return maps(PROT_READ | PROT_WRITE);
}

static int
makes_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return result(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int
is_dumpable_again(void)
{
	return result(prctl(PR_SET_DUMPABLE, 1));
}

static int
becomes_other(void)
{
	return result((int)syscall(SYS_setuid, getuid()));
}

static int
mounts(void)
{
	return result((int)syscall(SYS_mount, "none", "/", "none", 0, NULL));
}

static int
raises_limit(void)
{
	struct rlimit r;

	getrlimit(RLIMIT_CORE, &r);
	return result(setrlimit(RLIMIT_CORE, &r));
}

static int
has_limit(void)
{
	struct rlimit r;

	return result(getrlimit(RLIMIT_NOFILE, &r));
}

static int
uses_ring(void)
{
	return result((int)syscall(SYS_io_uring_setup, 1, NULL));
}

static int
syncs(void)
{
	return result(fdatasync(-1)) == EBADF ? 0 : EPERM;
}

static int
removes_any(void)
{
	return result(unlinkat(-1, "f", 0)) == EBADF ? 0 : EPERM;
}

static int
dates(void)
{
	return result(utimensat(-1, "f", NULL, 0)) == EBADF ? 0 : EPERM;
}

static void *
nothing(void *arg)
{
	return arg;
}

static int
makes_thread(void)
{
	pthread_t t;
	int rc = pthread_create(&t, NULL, nothing, NULL);

	return rc != 0 ? rc : pthread_join(t, NULL);
}

static int
calls_tomorrow(void)
{
	return result((int)syscall(470));
}

static int
waits(void)
{
	return result(usleep(1));
}

#define EVERY_KIND "main worker journal ledger reader follow sink publish"

static const struct {
	const char *label;
	int (*try)(void);
	const char *kinds; /* where it is allowed */
	int otherwise;
} calls[] = {
	{ "socket of IPv4", of_inet, "worker publish", EPERM },
	{ "socket of packets", of_packet, "", EPERM },
	{ "netlink", of_netlink, "", EPERM },
	{ "Unix socket", of_unix, "", EPERM },
	{ "listen", listens, "", EPERM },
	{ "bind", binds, "", EPERM },
	{ "ptrace", traces, "", EPERM },
	{ "process_vm_readv", reads_memory, "", EPERM },
	{ "kill", signals_itself, "", EPERM },
	{ "fork", forks, "", EPERM },
	{ "execve", executes_true, "", EPERM },
	{ "code mapped", maps_code, "", EPERM },
	{ "memory made code", makes_code, "", EPERM },
	{ "memory", maps_data, EVERY_KIND, EPERM },
	{ "dumpable", is_dumpable_again, "", EPERM },
	{ "setuid", becomes_other, "", EPERM },
	{ "mount", mounts, "", EPERM },
	{ "setrlimit", raises_limit, "", EPERM },
	{ "getrlimit", has_limit, EVERY_KIND, EPERM },
	{ "io_uring", uses_ring, "", EPERM },
	{ "fdatasync", syncs, "main journal ledger reader sink publish", EPERM },
	{ "unlinkat", removes_any, "main journal ledger reader sink", EPERM },
	{ "utimensat", dates, "main journal", EPERM },
	{ "a thread", makes_thread, "main publish", EPERM },
	{ "connect", connects, "worker publish", EPERM },
	{ "unsent bytes", asks_unsent, "publish", EPERM },
	{ "nanosleep", waits, EVERY_KIND, EPERM },
	{ "a call that is not known yet", calls_tomorrow, "", ENOSYS },
};

static const char *kind_of_child;
static bool with_network;

static void
try_calls(const struct place *p)
{
	struct config_sink remote = { .type = CONFIG_SINK_SYSLOG };
	struct sandbox s = { .filters = NULL };
	struct config c = *p->config;
	struct err err;
	int failed = 0;

	if (with_network) {
		c.sinks = &remote;
		c.nsinks = 1;
	}
	if (sandbox_look(&s, &c, &err) == -1)
		_exit(1);
	if (sandbox_enter(&s, kind_of_child, &err) == -1)
		_exit(1);
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		const char *found = strstr(calls[i].kinds, kind_of_child);
		int got, want;

		/* Its children are sinks. */
		if (with_network && found == NULL)
			found = strstr(calls[i].kinds, "publish");
		got = calls[i].try();
		want = found != NULL ? 0 : calls[i].otherwise;

		if (got != want) {
			fprintf(stderr, "%s: %s: %s, wanted %s\n", kind_of_child, calls[i].label,
			    strerror(got), strerror(want));
			failed++;
		}
	}
	if (failed > 0)
		_exit(2);
}

static void
skip_without_seccomp(const struct place *p)
{
	struct sandbox s = { .filters = NULL };
	struct err err;

	assert_int_equal(sandbox_look(&s, p->config, &err), 0);
	sandbox_fini(&s);
	if (!s.parts[SANDBOX_SECCOMP].on)
		skip();
}

static void
each_kind_has_its_calls(void **state)
{
	static const char *const kinds[] = { "main", "worker", "journal", "ledger", "reader",
		"follow", "sink", "publish" };
	const struct place *p = *state;

	skip_without_seccomp(p);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		kind_of_child = kinds[i];
		in_child(try_calls, p);
	}
}

static void
main_may_what_its_sinks_may(void **state)
{
	const struct place *p = *state;

	skip_without_seccomp(p);
	kind_of_child = "main";
	with_network = true;
	in_child(try_calls, p);
	with_network = false;
}

static void
enter_as_unknown(const struct place *p)
{
	struct sandbox s = { .filters = NULL };
	struct buf out = BUF_INIT;
	struct err err;

	if (sandbox_look(&s, p->config, &err) == -1)
		_exit(1);
	if (sandbox_enter(&s, "work", &err) == -1)
		_exit(3);
	if (sandbox_put(&s, p->config, &out) == -1 || s.parts[SANDBOX_SECCOMP].on)
		_exit(2);
}

static void
a_thread_without_a_filter_is_told_of(void **state)
{
	in_child(enter_as_unknown, *state);
}

static void
enter_as_unknown_where_required(const struct place *p)
{
	struct sandbox s = { .filters = NULL };
	struct err err;

	if (sandbox_look(&s, p->config, &err) == -1)
		_exit(1);
	s.required = true;
	if (s.filters != NULL &&
	    (sandbox_enter(&s, "work", &err) == 0 || strstr(err.msg, "\"work\"") == NULL))
		_exit(2);
}

static void
a_thread_without_a_filter_does_not_run_where_it_is_required(void **state)
{
	in_child(enter_as_unknown_where_required, *state);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_but_what_is_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_root_is_never_left_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
		    names_leave_it_no_more_than_their_folder, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_hup_names_has_to_be_within, set_up, tear_down),
		cmocka_unit_test_setup_teardown(each_kind_has_its_calls, set_up, tear_down),
		cmocka_unit_test_setup_teardown(main_may_what_its_sinks_may, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
		    a_thread_without_a_filter_is_told_of, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
		    a_thread_without_a_filter_does_not_run_where_it_is_required, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
