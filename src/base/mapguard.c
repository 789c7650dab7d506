#include "keytrail/mapguard.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

struct guarded {
	_Atomic uintptr_t base; /* 0: free; stored last */
	size_t n;
	int fd;
	off_t size;
	_Atomic bool cut;
};

/* Mutable globals: a signal handler is given no argument.  The lock is for those who register. */
static struct guarded table[MAPGUARD_MAX];
static _Atomic unsigned handled;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool
is_guarded(uintptr_t at)
{
	for (size_t i = 0; i < MAPGUARD_MAX; i++) {
		uintptr_t base = atomic_load(&table[i].base);

		if (base != 0 && at >= base && at - base < table[i].n)
			return true;
	}
	return false;
}

/* Said before it is mended: who reads zeros can know. */
static bool
mend(struct guarded *g)
{
	struct stat st;
	int rc;

	if (fstat(g->fd, &st) == -1)
		return false;
	if (st.st_size >= g->size)
		return true;
	atomic_store(&g->cut, true);
	while ((rc = fallocate(g->fd, 0, 0, g->size)) == -1 && errno == EINTR)
		;
	if (rc == -1 && (errno == EOPNOTSUPP || errno == ENOSYS))
		rc = ftruncate(g->fd, g->size);
	return rc == 0;
}

static bool
mend_all(void)
{
	for (size_t i = 0; i < MAPGUARD_MAX; i++)
		if (atomic_load(&table[i].base) != 0 && table[i].fd != -1 && !mend(&table[i]))
			return false;
	return true;
}

/* Async-signal-safe: atomics and system calls alone.  With the default action restored, the access
 * is made again and kills. */
static void
on_sigbus(int number, siginfo_t *info, void *context)
{
	static const char why[] = "{\"level\":\"error\",\"event\":\"mapped_file_lost\",\"message\":"
				  "\"a mapped file was cut or cannot be read: SIGBUS\"}\n";
	int before = errno;

	(void)context;
	if (!is_guarded((uintptr_t)info->si_addr) ||
	    atomic_fetch_add(&handled, 1) >= MAPGUARD_TIMES || !mend_all()) {
		ssize_t n = write(STDERR_FILENO, why, sizeof(why) - 1);

		(void)n;
		signal(number, SIG_DFL);
	}
	errno = before;
}

int
mapguard_install(struct err *err)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGBUS, &sa, NULL) == -1)
		return err_set_errno(err, "handle SIGBUS");
	return 0;
}

int
mapguard_add(const void *base, size_t n, int fd, off_t size)
{
	int index = MAPGUARD_NONE;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAPGUARD_MAX && index == MAPGUARD_NONE; i++)
		if (atomic_load(&table[i].base) == 0)
			index = i;
	if (index != MAPGUARD_NONE) {
		struct guarded *g = &table[index];

		g->n = n;
		g->fd = fd;
		g->size = size;
		atomic_store(&g->cut, false);
		atomic_store(&g->base, (uintptr_t)base);
	}
	pthread_mutex_unlock(&lock);
	return index;
}

void
mapguard_remove(int index)
{
	if (index != MAPGUARD_NONE)
		atomic_store(&table[index].base, 0);
}

bool
mapguard_was_cut(int index)
{
	return index != MAPGUARD_NONE && atomic_load(&table[index].cut) &&
	       atomic_exchange(&table[index].cut, false);
}
