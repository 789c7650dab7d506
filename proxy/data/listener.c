#include "data/listener.h"

#include "data/descriptors.h"
#include "keytrail/clock.h"

#include <event2/event.h>

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BACKLOG 4096
#define STATM	"/proc/self/statm"

struct listener {
	int fd;
	int spare;
	struct event readable, pause;
	struct worker **workers;
	unsigned nworkers, turn;
	struct worker *home; /* the first: whose thread this is */
	struct mail giving;
	sem_t given;
	bool gives; /* main's: it has been asked to */
	int statm;
	int64_t trim_again; /* monotonic ns */
};

/* proc_pid_statm(5), in pages.  What is shared are files: the rings above all, which are resident
 * whole as soon as they were gone round once, and can be written back. */
static uint64_t
memory_of_its_own(const struct listener *l)
{
	unsigned long resident, shared;
	char text[128], *rest;
	ssize_t n;

	if ((n = pread(l->statm, text, sizeof(text) - 1, 0)) <= 0) {
		log_error(l->home->log, "memory_unknown", "limits.memory: " STATM ": %s",
		    n == 0 ? "it is empty" : strerror(errno));
		return 0;
	}
	text[n] = '\0';
	strtoul(text, &rest, 10);
	resident = strtoul(rest, &rest, 10);
	shared = strtoul(rest, NULL, 10);
	return (uint64_t)(resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What was freed stays the process's until it is trimmed.  That stops whoever allocates, so not too
 * often. */
static bool
memory_is_full(struct listener *l, uint64_t limit)
{
	int64_t now;

	if (limit == 0 || memory_of_its_own(l) < limit)
		return false;
	if ((now = clock_mono_ns()) < l->trim_again)
		return true;
	l->trim_again = now + CLOCK_NS_PER_S;
	malloc_trim(0);
	return memory_of_its_own(l) >= limit;
}

static void
reject(struct listener *l, int fd, const char *limit)
{
	metrics_add(l->home->metrics, METRIC_CONNECTIONS_REJECTED, 0, 1);
	log_warn(l->home->log, "too_many_connections", "%s is reached", limit);
	close(fd);
}

static void
deal(struct listener *l, int fd, const struct sockaddr_storage *peer)
{
	const struct config *config = l->home->lease->snapshot->config;
	const struct config_limits *limits = &config->limits;
	atomic_uint *open_connections = l->home->open_connections;
	struct worker *w = l->workers[l->turn];
	unsigned upstream;

	if (atomic_load_explicit(open_connections, memory_order_relaxed) >= limits->connections) {
		reject(l, fd, "limits.connections");
		return;
	}
	upstream = atomic_load_explicit(l->home->open_upstream, memory_order_relaxed);
	if (!descriptors_suffice_for(fd, upstream, config, l->nworkers)) {
		reject(l, fd, "what RLIMIT_NOFILE leaves to clients");
		return;
	}
	if (memory_is_full(l, limits->memory)) {
		reject(l, fd, "limits.memory");
		return;
	}
	atomic_fetch_add_explicit(open_connections, 1, memory_order_relaxed);
	if (w == l->home)
		w->hooks->accept(w, fd, peer);
	else if (worker_accept(w, fd, peer) == -1)
		worker_starved(l->home, "a connection");
	l->turn = (l->turn + 1) % l->nworkers;
}

static const struct timeval pause_time = { 0, 100000 };

static void
pause_accepting(struct listener *l)
{
	log_error(l->home->log, "accept_failed", "accept: %s", strerror(errno));
	/* Without a timer the pause would have no end. */
	if (evtimer_add(&l->pause, &pause_time) == 0)
		event_del(&l->readable);
}

/* One at a time: what waits behind it is told of again, after all else that is ready. */
static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct sockaddr_storage peer = { 0 };
	socklen_t len = sizeof(peer);
	struct listener *l = arg;
	int c = accept4(fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)what;
	if (c != -1) {
		deal(l, c, &peer);
	} else if (descriptors_are_short(errno)) {
		pause_accepting(l);
		if (descriptors_turn_away(&l->spare, fd))
			metrics_add(l->home->metrics, METRIC_CONNECTIONS_REJECTED, 0, 1);
	} else if (errno == EINVAL) { /* it is stopped */
		event_del(&l->readable);
	}
}

static void
on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	(void)fd;
	(void)what;
	descriptors_take_spare(&l->spare); /* another thread may have been faster */
	if (event_add(&l->readable, NULL) == -1)
		evtimer_add(&l->pause, &pause_time); /* in the place that it has just left */
}

static int
bind_socket(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1, zero = 0, saved;

	if (fd == -1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int
bind_first(const struct config_address *a, const char *what, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *list;
	char port[8];
	int rc, fd;

	snprintf(port, sizeof(port), "%u", a->port);
	if ((rc = getaddrinfo(a->host, port, &hints, &list)) != 0)
		return err_set(err, "%s %s:%u: %s", what, a->host, a->port, gai_strerror(rc));
	if ((fd = bind_socket(list)) == -1)
		err_set_errno(err, "%s %s:%u", what, a->host, a->port);
	freeaddrinfo(list);
	return fd;
}

int
listener_open(const struct config_address *a, const char *what, int given, struct err *err)
{
	int fd;

	if (given == -1)
		return bind_first(a, what, err);
	if ((fd = fcntl(given, F_DUPFD_CLOEXEC, 0)) == -1)
		err_set_errno(err, "%s %s:%u", what, a->host, a->port);
	return fd;
}

static void
deliver_give(struct mail *m)
{
	struct listener *l = (struct listener *)((char *)m - offsetof(struct listener, giving));

	event_del(&l->readable);
	event_del(&l->pause);
	sem_post(&l->given);
}

struct listener *
listener_new(const struct listener_opts *o, struct err *err)
{
	struct listener *l = calloc(1, sizeof(*l));
	int one = 1;

	if (l == NULL) {
		err_set(err, "memory is short");
		return NULL;
	}
	l->workers = o->workers;
	l->nworkers = o->nworkers;
	l->home = o->workers[0];
	l->giving.deliver = deliver_give;
	if ((l->fd = listener_open(o->address, "listen.address", o->given, err)) == -1) {
		free(l);
		return NULL;
	}
	sem_init(&l->given, 0, 0);
	/* What it accepts inherits this. */
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	l->statm = open(STATM, O_RDONLY | O_CLOEXEC);
	l->spare = -1;
	event_assign(&l->readable, l->home->base, l->fd, EV_READ | EV_PERSIST, on_readable, l);
	evtimer_assign(&l->pause, l->home->base, on_pause_over, l);
	if (l->statm == -1 && l->home->lease->snapshot->config->limits.memory != 0) {
		err_set_errno(err, "limits.memory: " STATM);
		listener_free(l);
		return NULL;
	}
	descriptors_take_spare(&l->spare);
	if (event_add(&l->readable, NULL) == -1) {
		err_set(err, "listen.address: memory is short");
		listener_free(l);
		return NULL;
	}
	return l;
}

void
listener_stop(struct listener *l)
{
	/* The descriptor is the worker's: it may be accepting from it at this moment. */
	if (l != NULL && !l->gives)
		shutdown(l->fd, SHUT_RD);
}

void
listener_give(struct listener *l)
{
	if (l->gives)
		return;
	l->gives = true;
	worker_post(l->home, &l->giving);
	while (sem_wait(&l->given) == -1)
		continue;
}

void
listener_free(struct listener *l)
{
	if (l == NULL)
		return;
	event_del(&l->readable);
	event_del(&l->pause);
	close(l->fd);
	if (l->spare != -1)
		close(l->spare);
	if (l->statm != -1)
		close(l->statm);
	sem_destroy(&l->given);
	free(l);
}

int
listener_fd(const struct listener *l)
{
	return l->fd;
}

void
listener_text(int fd, char out[LISTENER_TEXT_SIZE])
{
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);
	char host[NI_MAXHOST], port[8];

	if (getsockname(fd, (struct sockaddr *)&a, &len) == -1 ||
	    getnameinfo((struct sockaddr *)&a, len, host, sizeof(host), port, sizeof(port),
		NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(out, LISTENER_TEXT_SIZE, "unknown");
	else
		snprintf(out, LISTENER_TEXT_SIZE,
		    a.ss_family == AF_INET6 ? "[%.40s]:%s" : "%.40s:%s", host, port);
}
