/*
 * clock: a wall clock that is put forward and back, for LD_PRELOAD.
 *
 * KEYTRAIL_CLOCK names a file with the seconds to add, looked at whenever the wall clock is read; no
 * file: none.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int (*real)(clockid_t, struct timespec *);
	const char *file = getenv("KEYTRAIL_CLOCK");
	char text[32] = "";
	int fd, rc;

	*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	rc = real(id, ts);
	if (id != CLOCK_REALTIME || file == NULL || (fd = open(file, O_RDONLY | O_CLOEXEC)) == -1)
		return rc;
	if (read(fd, text, sizeof(text) - 1) > 0)
		ts->tv_sec += atol(text);
	close(fd);
	return rc;
}

/* OpenSSL's. */
time_t
time(time_t *out)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (out != NULL)
		*out = ts.tv_sec;
	return ts.tv_sec;
}
