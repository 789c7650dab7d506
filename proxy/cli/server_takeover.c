/*
 * From one process to the next, while calls go on.
 *
 * The one before stops what only one process may have (journal, ledger, sinks, admin) and gives the
 * lock and the listeners.  Its workers go on: what they commit is in rings, which the successor's
 * journal drains.  Once the successor serves too, the one before accepts no more, and ends with its
 * last connection.  A successor that ends before that has changed nothing: the one before resumes.
 */
#include "cli/server_internal.h"

#include "keytrail/clock.h"
#include "keytrail/fault.h"

#include <event2/event.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEAVE_WAIT_MS 1000
#define FOLLOW_UP_MS  1000
/* Sinks may take three seconds to stop; the rest is one sync and a signature, or a disk that hangs. */
#define GIFT_WAIT_MS 30000

_Static_assert((int)HANDOVER_ADMIN == (int)HANDOVER_METRICS + (int)ADMIN_ADDRESS &&
		   (int)HANDOVER_SOCKET == (int)HANDOVER_METRICS + (int)ADMIN_SOCKET,
    "admin's listeners are given in its order");

/* ---- what both must agree on ---- */

static void
put_address(char *out, size_t n, const char *what, bool any, const struct config_address *a)
{
	size_t at = strlen(out);

	if (any)
		snprintf(out + at, n - at, "%s %s:%u, ", what, a->host, a->port);
	else
		snprintf(out + at, n - at, "%s none, ", what);
}

static int
describe(const struct config *c, struct handover_hello *out, struct err *err)
{
	const struct config_admin *admin = &c->admin;
	size_t n = sizeof(out->terms), at;

	*out = (struct handover_hello){ .state_version = trail_state_version(),
		.ring_version = ring_version() };
	put_address(out->terms, n, "listen", true, &c->listen.address);
	put_address(out->terms, n, "metrics", c->metrics_enabled, &c->metrics);
	put_address(
	    out->terms, n, "admin", admin->enabled && admin->address.host != NULL, &admin->address);
	at = strlen(out->terms);
	snprintf(out->terms + at, n - at, "socket %s",
	    admin->enabled && admin->socket != NULL ? admin->socket : "none");
	/* What fills it may have been cut. */
	return strlen(out->terms) < n - 1
		   ? 0
		   : err_set(err, "the addresses that it listens at are too long to be compared");
}

/* ---- as successor ---- */

/* Those that are there must be all. */
static int
map_rings(struct server *s, struct err *err)
{
	struct server_takeover *t = &s->takeover;
	char name[TRAIL_RING_NAME_SIZE];

	for (unsigned i = 0; i < t->from.rings; i++) {
		trail_given_ring_name(i, name);
		if (ring_adopt(t->from.of[HANDOVER_LOCK], name, &t->rings[i], err) == -1)
			return err_prefix(err, "%s", s->config->audit.trail);
		t->room += ring_size(t->rings[i]);
	}
	return 0;
}

int
server_take_over(struct server *s, struct err *err)
{
	struct server_takeover *t = &s->takeover;
	struct handover_wish wish = { .dir = s->config->audit.trail, .patience_ms = GIFT_WAIT_MS };
	int rc;

	rc = describe(s->config, &wish.hello, err);
	if (rc == 0)
		rc = handover_take(&wish, &t->from, &t->before, err);
	if (rc == -1)
		return err_prefix(err, "take over");
	if (rc == 0) {
		log_info(s->log, "nobody_to_take_over", "no process has %s: it starts as usual",
		    s->config->audit.trail);
		return 0;
	}
	t->taken = true;
	t->lock = &t->from.of[HANDOVER_LOCK];
	if (t->from.of[HANDOVER_LOCK] == -1 || t->from.rings > CONFIG_WORKERS_MAX + 1)
		return err_set(err, "take over: what was given is of no use");
	return map_rings(s, err);
}

int
server_adopt_rings(struct server *s, struct err *err)
{
	struct server_takeover *t = &s->takeover;

	FAULT_POINT("takeover.opened");
	for (unsigned i = 0; t->taken && i < t->from.rings; i++) {
		if (journal_adopt_ring(s->journal, t->rings[i], err) == -1)
			return -1;
		t->rings[i] = NULL;
	}
	return 0;
}

static void
on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	char byte;

	(void)what;
	if (read(fd, &byte, 1) == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	event_del(&s->takeover.ended);
	close(fd);
	s->takeover.before = -1;
	journal_orphan(s->journal);
}

/* One that has ended just now is waited for. */
static bool
is_followed_up(struct server *s)
{
	const struct timespec pause = { 0, CLOCK_NS_PER_MS };

	if (journal_adopted(s->journal) == 0)
		return true;
	if (s->takeover.before != -1)
		on_ended(s->takeover.before, 0, s);
	for (int i = 0; i < FOLLOW_UP_MS && s->takeover.before == -1; i++) {
		if (journal_adopted(s->journal) == 0)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

int
server_succeed(struct server *s, struct err *err)
{
	struct server_takeover *t = &s->takeover;
	struct err why;

	if (t->taken) {
		event_assign(&t->ended, s->base, t->before, EV_READ | EV_PERSIST, on_ended, s);
		if (event_add(&t->ended, NULL) == -1)
			return err_set(err, "take over: memory is short");
		FAULT_POINT("takeover.before_ready");
		if (handover_ready(t->before, &why) == -1)
			log_warn(s->log, "predecessor_gone", "%s", why.msg);
		log_info(s->log, "took_over", "from the process before");
	}
	server_close_given(s);
	if (t->handover != NULL && handover_open(t->handover, &why) == -1)
		log_warn(s->log, "no_takeover", "%s", why.msg);
	return 0;
}

static void
close_fds(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (fds[i] != -1)
			close(fds[i]);
		fds[i] = -1;
	}
}

/* What is used of it was copied. */
void
server_close_given(struct server *s)
{
	struct server_takeover *t = &s->takeover;

	if (t->taken)
		close_fds(t->from.of, HANDOVER_ROLES);
	for (unsigned i = 0; i <= CONFIG_WORKERS_MAX; i++) {
		ring_close(t->rings[i]);
		t->rings[i] = NULL;
	}
	t->taken = false;
	t->lock = NULL;
}

/* ---- as the one before: may it be? ---- */

/* What a successor could not know of, and what the trail or a ring has to come to rest for. */
static const char *
why_not_now(struct server *s)
{
	char why[128];

	journal_health(s->journal, why, sizeof(why));
	if (s->stopping)
		return "it is stopping";
	if (!is_followed_up(s))
		return "the process that it has taken over from has not ended";
	if (degrade_left_ns(&s->degrade, clock_mono_ns()) > 0)
		return "it is degraded";
	if (why[0] != '\0')
		return "the trail cannot be written";
	if (s->start_waits || s->hold_lost || !chronicle_flush(&s->chronicle) ||
	    !trail_holds_are_settled(s->trail))
		return "not all of its own events are recorded yet";
	return NULL;
}

static int
check_successor(struct server *s, const struct handover_hello *hello, struct err *err)
{
	const char *why = why_not_now(s);
	struct handover_hello own;

	if (why != NULL)
		return err_set(err, "%s", why);
	if (describe(s->config, &own, err) == -1)
		return -1;
	if (hello->state_version != own.state_version || hello->ring_version != own.ring_version)
		return err_set(err,
		    "the files of the trail have other formats (state %u, rings %u) than the "
		    "successor's (%u, %u)",
		    own.state_version, own.ring_version, hello->state_version, hello->ring_version);
	if (strcmp(hello->terms, own.terms) != 0)
		return err_set(err, "it has \"%s\", the successor \"%s\"", own.terms, hello->terms);
	return 0;
}

/* ---- as the one before: give ---- */

/* The sinks first, who may take a while: calls wait from when the journal ends. */
static int
stop_recording(struct server *s, struct err *err)
{
	bool whole;

	publisher_stop(s->publisher, clock_mono_ns());
	if (journal_give(s->journal, err) == -1)
		return -1;
	whole = s->ledger == NULL || ledger_stop(s->ledger);
	return trail_give(s->trail, whole, err) == 0 ? server_give_rings(s, err) : -1;
}

static void
resume(struct server *s, const char *why)
{
	struct server_takeover *t = &s->takeover;
	struct err err;

	log_error(s->log, "takeover_failed", "%s", why);
	if (server_resume(s, &err) == 0) {
		t->given = false;
		close_fds(t->listeners, ADMIN_LISTENERS);
		return;
	}
	log_error(s->log, "not_resumed", "%s", err.msg);
	t->failed = true;
	event_base_loopbreak(s->base);
}

static int
on_ask(void *arg, const struct handover_hello *hello, struct handover_fds *give, struct err *err)
{
	struct server *s = arg;
	struct server_takeover *t = &s->takeover;

	if (check_successor(s, hello, err) == -1)
		return -1;
	FAULT_POINT("takeover.asked");
	admin_tell_refused(s->admin);
	if (admin_give(s->admin, t->listeners, err) == -1)
		return -1;
	s->admin = NULL;
	t->given = true;
	if (stop_recording(s, err) == -1) {
		resume(s, err->msg);
		return -1;
	}
	FAULT_POINT("takeover.stopped");
	*give = (struct handover_fds){ .rings = s->nworkers + 1 };
	give->of[HANDOVER_LOCK] = trail_dirfd(s->trail);
	give->of[HANDOVER_LISTEN] = listener_fd(s->listener);
	memcpy(&give->of[HANDOVER_METRICS], t->listeners, sizeof(t->listeners));
	return 0;
}

/* Who has begun to leave leaves, once what is in flight is recorded. */
static void
on_gone(void *arg)
{
	struct server *s = arg;

	if (s->takeover.ready) {
		resume(s, "the successor ended: the service has to be started again");
		event_base_loopbreak(s->base);
	} else {
		resume(s, "the successor ended before it was ready: this process goes on");
	}
}

/* ---- as the one before: leave ---- */

static void
on_leave_timer(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;

	(void)fd;
	(void)what;
	if (atomic_load(&s->open_connections) == 0)
		event_base_loopbreak(s->base);
}

static void
on_ready(void *arg)
{
	struct server *s = arg;
	struct server_takeover *t = &s->takeover;
	int64_t deadline = clock_mono_ns() + s->config->timeouts.drain * (int64_t)CLOCK_NS_PER_MS;

	log_info(s->log, "taken_over", "the successor serves: finishing what is in flight");
	t->ready = true;
	close_fds(t->listeners, ADMIN_LISTENERS);
	listener_give(s->listener);
	for (unsigned i = 0; i < s->nstarted; i++)
		worker_drain(s->workers[i], WORKER_LEAVES, deadline);
	if (event_add(&t->leave_timer, &(struct timeval){ 0, 50000 }) == -1)
		event_base_loopbreak(s->base);
}

void
server_await_successor(struct server *s)
{
	struct server_takeover *t = &s->takeover;
	struct handover_opts opts = { .base = s->base,
		.log = s->log,
		.dirfd = trail_dirfd(s->trail),
		.ask = on_ask,
		.ready = on_ready,
		.gone = on_gone,
		.arg = s };
	struct err err;

	event_assign(&t->leave_timer, s->base, -1, EV_PERSIST, on_leave_timer, s);
	if (handover_new(&opts, &t->handover, &err) == -1)
		log_warn(s->log, "no_takeover", "%s", err.msg);
}

void
server_leave(struct server *s)
{
	char boot[TRAIL_ID_SIZE];
	const struct event_detail details[] = {
		{ "boot", EVENT_DETAIL_STRING, boot, 0 },
		{ "takeover", EVENT_DETAIL_BOOL, NULL, true },
	};
	struct chronicle_entry e = { .action = "keytrail.stop",
		.severity = SEVERITY_NORMAL,
		.outcome = EVENT_SUCCESS,
		.message = "keytrail: stopped after a takeover",
		.details = details,
		.ndetails = 2 };
	struct err err;

	snprintf(boot, sizeof(boot), "%s", trail_boot_id(s->trail));
	FAULT_POINT("takeover.drained");
	if (!chronicle_wait(&s->chronicle, server_record(s, &e), LEAVE_WAIT_MS))
		log_warn(s->log, "not_durable_yet",
		    "the last events are in the rings: the successor, or the next start, records "
		    "them");
	(void)journal_stop(s->journal, &err);
	s->drained = true;
}
