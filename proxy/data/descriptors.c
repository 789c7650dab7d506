#include "data/descriptors.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#define OWN 256 /* files of the trail and of sinks, and all who come to the admin's listeners */

bool
descriptors_are_short(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static uint64_t
kept_from_clients(const struct config *config, unsigned workers)
{
	return (uint64_t)config->upstream.pool_max * workers + OWN;
}

static uint64_t
least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

bool
descriptors_suffice_for(int fd, unsigned upstream, const struct config *config, unsigned workers)
{
	uint64_t kept, own;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return true;
	kept = least(kept_from_clients(config, workers), limit.rlim_cur / 2);
	own = least(OWN, limit.rlim_cur / 2);
	return (uint64_t)fd + (kept > own + upstream ? kept - upstream : own) < limit.rlim_cur;
}

int
descriptors_check(const struct config *config, unsigned workers, struct err *err)
{
	uint64_t needed = config->limits.connections + kept_from_clients(config, workers);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1 || limit.rlim_max >= needed)
		return 0;
	return err_set(err,
	    "RLIMIT_NOFILE is %" PRIu64
	    ": limits.connections, and upstream.pool.max of %u workers, "
	    "may take %" PRIu64,
	    (uint64_t)limit.rlim_max, workers, needed);
}

void
descriptors_take_spare(int *spare)
{
	if (*spare == -1)
		*spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

bool
descriptors_turn_away(int *spare, int listening)
{
	int c;

	if (*spare == -1)
		return false;
	close(*spare);
	*spare = -1;
	if ((c = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1)
		close(c);
	descriptors_take_spare(spare);
	return c != -1;
}
