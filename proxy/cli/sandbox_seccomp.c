/*
 * seccomp(2): which calls each kind of thread may make.
 *
 * Anything else fails with EPERM, and is not killed for: a call that was forgotten here must not be
 * the end of a key service.  What a C library of tomorrow may try first fails with ENOSYS, so that it
 * does what it did before.
 */
#include "cli/sandbox_internal.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#ifdef KEYTRAIL_SECCOMP

#include <asm/ioctls.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAIN	     (1 << 0)
#define WORKER	     (1 << 1)
#define JOURNAL	     (1 << 2)
#define LEDGER	     (1 << 3)
#define READER	     (1 << 4)
#define FOLLOW	     (1 << 5)
#define SINK	     (1 << 6)
#define PUBLISH	     (1 << 7) /* a sink that uses the network */
#define EVERY	     0xff
#define LOOP	     (MAIN | WORKER)
#define FILES	     (MAIN | JOURNAL | LEDGER | READER | SINK) /* that it changes */
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const kinds[] = { "main", "worker", "journal", "ledger", "reader", "follow",
	"sink", "publish" };

struct sandbox_filters {
	struct sock_fprog programs[COUNT(kinds)];
	atomic_bool failed; /* a thread has none */
};

/* Whatever their arguments are.  Main starts sinks at HUP, which inherit what it may: where the
 * network is used it may what these may.  So does the journal after a takeover that failed. */
static const struct {
	unsigned kinds;
	const char *calls; /* one space between */
} allowed[] = {
	{ EVERY, "brk clock_gettime clock_nanosleep close exit exit_group fcntl fstat futex getcpu "
		 "getpid getrandom gettid gettimeofday lseek madvise membarrier mremap munmap "
		 "nanosleep newfstatat poll ppoll pread64 read readv restart_syscall rseq "
		 "rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield "
		 "set_robust_list sigaltstack sysinfo time uname write writev" },
	{ EVERY, "access faccessat faccessat2 getcwd getdents64 lstat open openat readlink "
		 "readlinkat stat statx" },
	{ EVERY & ~WORKER, "fstatfs statfs" },
	{ FILES,
	    "copy_file_range fadvise64 fallocate fchmod fchmodat fchown fdatasync flock fsync "
	    "ftruncate link linkat mkdir mkdirat msync pwrite64 pwritev pwritev2 rename renameat "
	    "renameat2 rmdir sync_file_range unlink unlinkat" },
	{ PUBLISH, "fdatasync fsync ftruncate pwrite64" }, /* its cursor, its quarantine */
	{ MAIN | JOURNAL, "utimensat" },		   /* after a jump of the clock */
	{ LOOP, "accept accept4 epoll_create1 epoll_ctl epoll_pwait epoll_wait timerfd_settime" },
	{ LOOP | PUBLISH,
	    "eventfd2 getpeername getsockname getsockopt recvfrom recvmsg sendmsg sendto "
	    "setsockopt shutdown" },
	{ WORKER | PUBLISH, "connect recvmmsg sendmmsg" },
	{ WORKER | FOLLOW, "fallocate ftruncate" }, /* of what somebody has cut (mapguard.h) */
	{ SINK, "sendto" },			    /* standard output may be a socket */
	{ MAIN, "chmod clock_adjtime adjtimex getegid geteuid getgid getuid signalfd4" },
	{ MAIN | PUBLISH, "pipe2" },
};

/* Where argument `arg`, of which `mask` is looked at, is `value`. */
static const struct {
	unsigned kinds;
	const char *call;
	unsigned arg;
	uint64_t mask, value;
} limited[] = {
	{ EVERY, "mmap", 2, PROT_EXEC, 0 }, { EVERY, "mprotect", 2, PROT_EXEC, 0 },
	{ EVERY, "prctl", 0, UINT32_MAX, PR_SET_NAME },
	{ EVERY, "prlimit64", 2, UINT64_MAX, 0 }, /* to read it */
	{ EVERY, "getrlimit", 0, 0, 0 }, { EVERY, "ioctl", 1, UINT32_MAX, TCGETS },
	{ LOOP, "ioctl", 1, UINT32_MAX, FIONREAD }, { LOOP, "ioctl", 1, UINT32_MAX, FIONBIO },
	{ PUBLISH, "ioctl", 1, UINT32_MAX, FIONREAD }, { PUBLISH, "ioctl", 1, UINT32_MAX, FIONBIO },
	{ PUBLISH, "ioctl", 1, UINT32_MAX, TIOCOUTQ },
	{ WORKER | PUBLISH, "socket", 0, UINT32_MAX, AF_INET },
	{ WORKER | PUBLISH, "socket", 0, UINT32_MAX, AF_INET6 },
	{ PUBLISH, "socketpair", 0, UINT32_MAX, AF_UNIX },
	{ MAIN | PUBLISH, "clone", 0, CLONE_THREAD, CLONE_THREAD }, /* of a library's own */
	{ MAIN, "prctl", 0, UINT32_MAX, PR_SET_SECCOMP },	    /* a sink's own */
};

static const char *const unknown[] = { "clone3", "close_range", "epoll_pwait2", "futex_waitv",
	"openat2" };

/* The first that libseccomp of Debian 12 does not know, and some years more. */
#define NEWER_FIRST 450
#define NEWER_LAST  500

/* ---- making the filters ---- */

/* Some calls are not every machine's. */
static int
add(scmp_filter_ctx ctx, uint32_t action, const char *name, size_t n,
    const struct scmp_arg_cmp *arg)
{
	char call[32];
	int number;

	snprintf(call, sizeof(call), "%.*s", (int)n, name);
	if ((number = seccomp_syscall_resolve_name(call)) < 0)
		return 0;
	return seccomp_rule_add_array(ctx, action, number, arg != NULL ? 1 : 0, arg);
}

static int
add_words(scmp_filter_ctx ctx, const char *words)
{
	size_t n;
	int rc = 0;

	for (; *words != '\0' && rc == 0; words += n + (words[n] == ' ')) {
		n = strcspn(words, " ");
		rc = add(ctx, SCMP_ACT_ALLOW, words, n, NULL);
	}
	return rc;
}

/* abort(3) signals the own process. */
static int
add_abort(scmp_filter_ctx ctx)
{
	const struct scmp_arg_cmp self = {
		.arg = 0, .op = SCMP_CMP_EQ, .datum_a = (scmp_datum_t)getpid()
	};

	return add(ctx, SCMP_ACT_ALLOW, "tgkill", strlen("tgkill"), &self);
}

static int
add_unknown(scmp_filter_ctx ctx)
{
	int rc = 0;

	for (size_t i = 0; i < COUNT(unknown) && rc == 0; i++)
		rc = add(ctx, SCMP_ACT_ERRNO(ENOSYS), unknown[i], strlen(unknown[i]), NULL);
	for (int n = NEWER_FIRST; n <= NEWER_LAST && rc == 0; n++)
		rc = seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(ENOSYS), n, 0, NULL);
	return rc;
}

static int
add_all(scmp_filter_ctx ctx, unsigned of)
{
	int rc = add_unknown(ctx);

	for (size_t i = 0; i < COUNT(allowed) && rc == 0; i++)
		if (allowed[i].kinds & of)
			rc = add_words(ctx, allowed[i].calls);
	for (size_t i = 0; i < COUNT(limited) && rc == 0; i++) {
		const struct scmp_arg_cmp arg = { .arg = limited[i].arg,
			.op = SCMP_CMP_MASKED_EQ,
			.datum_a = limited[i].mask,
			.datum_b = limited[i].value };

		if (limited[i].kinds & of)
			rc = add(
			    ctx, SCMP_ACT_ALLOW, limited[i].call, strlen(limited[i].call), &arg);
	}
	return rc == 0 ? add_abort(ctx) : rc;
}

/* libseccomp writes a program to a file only. */
static int export(scmp_filter_ctx ctx, struct sock_fprog *out)
{
	int fd = memfd_create("seccomp", MFD_CLOEXEC);
	struct stat st;
	int rc = -1;

	if (fd == -1)
		return -1;
	if (seccomp_export_bpf(ctx, fd) == 0 && fstat(fd, &st) == 0 &&
	    (out->filter = malloc((size_t)st.st_size)) != NULL &&
	    pread(fd, out->filter, (size_t)st.st_size, 0) == st.st_size) {
		out->len = (unsigned short)((size_t)st.st_size / sizeof(struct sock_filter));
		rc = 0;
	}
	close(fd);
	return rc;
}

static int
make_program(unsigned of, struct sock_fprog *out)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int rc = -1;

	if (ctx != NULL && seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0 &&
	    add_all(ctx, of) == 0)
		rc = export(ctx, out);
	seccomp_release(ctx);
	return rc;
}

static struct sandbox_filters *
make_filters(bool network)
{
	struct sandbox_filters *f = calloc(1, sizeof(*f));

	for (size_t i = 0; f != NULL && i < COUNT(kinds); i++) {
		unsigned kind = 1U << i;

		if (kind == MAIN && network)
			kind |= PUBLISH;
		if (make_program(kind, &f->programs[i]) == -1) {
			sandbox_free_filters(f);
			return NULL;
		}
	}
	return f;
}

void
sandbox_free_filters(struct sandbox_filters *f)
{
	for (size_t i = 0; f != NULL && i < COUNT(kinds); i++)
		free(f->programs[i].filter);
	free(f);
}

void
sandbox_look_at_seccomp(struct sandbox *s, const struct config *c)
{
	const char *detail = "main worker journal ledger reader follow sink publish";

	if (c->sandbox == CONFIG_SANDBOX_OFF)
		detail = "\"sandbox\" is \"off\"";
	else if (prctl(PR_GET_SECCOMP) == -1)
		detail = "the kernel has none";
	else if ((s->filters = make_filters(s->network)) == NULL)
		detail = "no filter could be made, or memory is short";
	sandbox_set(s, SANDBOX_SECCOMP, s->filters != NULL, detail);
}

/* ---- using them ---- */

bool
sandbox_filters_failed(const struct sandbox_filters *f)
{
	return f != NULL && atomic_load(&f->failed);
}

int
sandbox_enter(void *sandbox, const char *name, struct err *err)
{
	const struct sandbox *s = sandbox;
	struct sandbox_filters *f = s->filters;
	size_t n = strcspn(name, " -"), i = 0;

	if (f == NULL)
		return 0;
	while (i < COUNT(kinds) && (strlen(kinds[i]) != n || memcmp(kinds[i], name, n) != 0))
		i++;
	if (i < COUNT(kinds) &&
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &f->programs[i], 0, 0) == 0)
		return 0;
	atomic_store(&f->failed, true);
	return s->required ? err_set(err, "thread \"%s\" could not take its seccomp filter", name)
			   : 0;
}

#else

void
sandbox_free_filters(struct sandbox_filters *f)
{
	(void)f;
}

void
sandbox_look_at_seccomp(struct sandbox *s, const struct config *c)
{
	(void)c;
	sandbox_set(s, SANDBOX_SECCOMP, false, "it was built without libseccomp");
}

bool
sandbox_filters_failed(const struct sandbox_filters *f)
{
	(void)f;
	return false;
}

int
sandbox_enter(void *sandbox, const char *name, struct err *err)
{
	(void)sandbox;
	(void)name;
	(void)err;
	return 0;
}

#endif
