/*
 * The files of TLS: those that were replaced are loaded, and their ends are told of in time.
 *
 * They are looked at, not watched: a volume of Kubernetes changes by a link that is swapped
 * (..data), which notifications for the file itself do not tell of.
 */
#include "cli/server_internal.h"

#include "keytrail/clock.h"
#include "keytrail/file.h"

#include <event2/event.h>

#include <time.h>

#define LOOK_S	1
#define RETRY_S 10
#define TELL_S	86400

/* ---- which content they have ---- */

static void
mix_certificate(uint64_t *state, const struct config_certificate *c)
{
	file_stamp(state, c->certificate);
	file_stamp(state, c->key);
	file_stamp(state, c->ocsp);
}

uint64_t
server_files_state(const struct config *c)
{
	uint64_t state = FILE_STAMP_INIT;

	mix_certificate(&state, &c->listen.own);
	for (size_t i = 0; i < c->listen.ncertificates; i++)
		mix_certificate(&state, &c->listen.certificates[i]);
	file_stamp(&state, c->listen.client_ca);
	file_stamp(&state, c->listen.client_crl);
	tlsfile_stamp(&state, &c->upstream.tls);
	for (size_t i = 0; i < c->nsinks; i++)
		tlsfile_stamp(&state, &c->sinks[i].tls);
	return state;
}

/* ---- until when they are good ---- */

size_t
server_validity(const struct server *s, struct tlsfile_validity out[SERVER_VALIDITIES_MAX])
{
	const struct snapshot *snap = s->snapshot;
	const struct tlsfile_validity *of_server;
	size_t n = 0;

	if (snap->server != NULL) {
		of_server = tls_server_validity(snap->server, &n);
		memcpy(out, of_server, n * sizeof(*out));
	}
	memcpy(out + n, snap->validity, snap->nvalidity * sizeof(*out));
	return n + snap->nvalidity;
}

bool
server_ends_soon(const struct tlsfile_validity *v)
{
	return v->near < time(NULL);
}

static void
tell_ends(struct server *s)
{
	struct tlsfile_validity all[SERVER_VALIDITIES_MAX];
	size_t n = server_validity(s, all);
	int64_t now = clock_mono_ns();
	char until[TLSFILE_TIME_SIZE];

	for (size_t i = 0; i < n; i++)
		if (now >= s->files.tell_again[i] && server_ends_soon(&all[i])) {
			s->files.tell_again[i] = now + TELL_S * CLOCK_NS_PER_S;
			tlsfile_time_text(all[i].end, until);
			log_warn(s->log, "certificate_ends", "%s: valid until %s%s%s", all[i].path,
			    until, all[i].whose[0] != '\0' ? ": " : "", all[i].whose);
		}
}

/* ---- the timer ---- */

/* Whoever replaces several files is given the time to: their state has to stay for one look.  What sinks
 * leave behind has no timer of its own. */
static void
on_look(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	struct server_files *f = &s->files;
	uint64_t state = server_files_state(s->config);
	uint64_t before = f->seen;
	bool again = f->failed && clock_mono_ns() - f->tried >= RETRY_S * CLOCK_NS_PER_S;

	(void)fd;
	(void)what;
	f->seen = state;
	if (state == before && (state != f->loaded || again))
		server_reload_files(s);
	tell_ends(s);
	if (s->publisher != NULL)
		publisher_reap(s->publisher);
}

int
server_watch_files(struct server *s, struct err *err)
{
	event_assign(&s->files.timer, s->base, -1, EV_PERSIST, on_look, s);
	if (event_add(&s->files.timer, &(struct timeval){ LOOK_S, 0 }) == -1)
		return err_set(err, "cannot watch files: memory is short");
	return 0;
}
