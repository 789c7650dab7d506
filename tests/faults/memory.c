/*
 * memory: an allocation that fails, for LD_PRELOAD.
 *
 * KEYTRAIL_MEMORY names a file of four numbers of 8 bytes in the machine's order, which the test
 * shares: the first allocation to fail (0: none), how many fail from there on, how many
 * allocations there have been, which is 1 for the first, and how many blocks are held.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct control {
	_Atomic uint64_t first, times, count, held;
};

/* One process, one control file. */
static struct control *_Atomic shared;

/* glibc's own. */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

__attribute__((constructor)) static void
share(void)
{
	const char *file = getenv("KEYTRAIL_MEMORY");
	int fd = file != NULL ? open(file, O_RDWR | O_CLOEXEC) : -1;
	void *p = MAP_FAILED;

	if (fd != -1)
		p = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		fprintf(stderr, "memory: KEYTRAIL_MEMORY names no control file\n");
		abort();
	}
	close(fd);
	atomic_store(&shared, p);
}

static bool
fails(void)
{
	struct control *c = atomic_load(&shared);
	uint64_t n, first;

	if (c == NULL)
		return false;
	n = atomic_fetch_add(&c->count, 1) + 1;
	first = atomic_load(&c->first);
	if (first == 0 || n < first || n - first >= atomic_load(&c->times))
		return false;
	errno = ENOMEM;
	return true;
}

/* Of what was made before the file was shared some is freed later. */
static void *
hold(void *p)
{
	struct control *c = atomic_load(&shared);

	if (c != NULL && p != NULL)
		atomic_fetch_add(&c->held, 1);
	return p;
}

void *
malloc(size_t n)
{
	return fails() ? NULL : hold(__libc_malloc(n));
}

void *
calloc(size_t n, size_t size)
{
	return fails() ? NULL : hold(__libc_calloc(n, size));
}

void
free(void *p)
{
	struct control *c = atomic_load(&shared);

	if (c != NULL && p != NULL)
		atomic_fetch_sub(&c->held, 1);
	__libc_free(p);
}

void *
realloc(void *p, size_t n)
{
	if (p == NULL)
		return malloc(n);
	if (n == 0) {
		free(p);
		return NULL;
	}
	return fails() ? NULL : __libc_realloc(p, n);
}

int
posix_memalign(void **out, size_t align, size_t n)
{
	if (fails() || (*out = hold(__libc_memalign(align, n))) == NULL)
		return ENOMEM;
	return 0;
}

void *
aligned_alloc(size_t align, size_t n)
{
	return fails() ? NULL : hold(__libc_memalign(align, n));
}
