#include "publisher_impl.h"

#include "keytrail/clock.h"
#include "keytrail/thread.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STUCK_NS (3 * CLOCK_NS_PER_S) /* beyond a deadline, for a write that does not return */

const struct config_sink *
publisher_find_config(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->nsinks; i++)
		if (strcmp(config->sinks[i].name, name) == 0)
			return &config->sinks[i];
	return NULL;
}

struct place *
publisher_find_place(struct publisher *p, const char *name)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (p->places[i].used && strcmp(p->places[i].name, name) == 0)
			return &p->places[i];
	return NULL;
}

/* A free place, if possible the one that this sink had before. */
static struct place *
free_place(struct publisher *p, const char *name)
{
	struct place *any = NULL;

	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];

		if (s->used || s->leaving)
			continue;
		if (strcmp(s->name, name) == 0)
			return s;
		if (any == NULL || (any->name[0] != '\0' && s->name[0] == '\0'))
			any = s;
	}
	return any;
}

/* ---- one sink ---- */

/* Where a sink begins that no cursor knows of. */
static int
begin_new(struct place *s, const struct config_sink *cfg, struct err *err)
{
	struct line_id id = { 0 };
	uint64_t durable = atomic_load(&s->p->durable);

	if (!cfg->earliest && durable > 0 &&
	    publisher_look(s->p->dirfd, durable, true, &id, err) == -1)
		return -1;
	id.seq = cfg->earliest ? 0 : durable;
	if (cursor_write(&s->cursor, &id) == -1 || cursor_sync(&s->cursor) == -1)
		return err_set_errno(err, "%s: write", s->cursor_name);
	return 0;
}

static int
begin(struct place *s, const struct config_sink *cfg, struct err *err)
{
	enum cursor_found found;

	snprintf(s->cursor_name, sizeof(s->cursor_name), "cursor.%s", s->name);
	if (cursor_open(s->p->dirfd, s->cursor_name, &s->cursor, &found, err) == -1)
		return -1;
	if (found == CURSOR_DAMAGED)
		log_error(s->p->log, "cursor_damaged",
		    "sink %s: %s is damaged; all that the trail holds is delivered", s->name,
		    s->cursor_name);
	if (found == CURSOR_NEW && begin_new(s, cfg, err) == -1) {
		cursor_close(&s->cursor);
		return -1;
	}
	s->pos = s->cursor.at;
	s->verify = true;
	return 0;
}

static void
reset(struct place *s, const struct config *config, const struct config_sink *cfg)
{
	s->ended = s->reopen = s->stopping = s->replay = s->stuck = false;
	s->next = config_ref(config);
	s->type = s->p->types->ops[cfg->type]->type;
	s->required = cfg->required;
	s->nfigures = 0;
	s->last_error[0] = '\0';
	s->dirty = s->flush_failed = s->unflushed = false;
	s->synced_ns = s->linger_ns = s->missing_ns = 0;
	s->failures = 0;
	s->report = 0;
	s->random = (uint64_t)clock_wall_ns() ^ ((uint64_t)s->index << 32) ^ (uint64_t)getpid();
	atomic_store(&s->keep, s->pos.seq + 1);
	publisher_note_before(s);
	s->counts = (struct publisher_counts){ 0 };
	publisher_begin_at(s, s->pos.seq);
	atomic_store(&s->up, true);
}

/* Of its thread, which has to be another one where that is another. */
static const char *
kind_of(const struct config_sink *cfg)
{
	return config_sink_is_remote(cfg) ? "publish" : "sink";
}

/* ---- its end ---- */

static bool
has_ended(struct place *s, int64_t until_ns)
{
	struct timespec ts = { (time_t)(until_ns / CLOCK_NS_PER_S),
		(long)(until_ns % CLOCK_NS_PER_S) };
	int rc = 0;
	bool ended;

	pthread_mutex_lock(&s->lock);
	while (!s->ended && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	ended = s->ended;
	pthread_mutex_unlock(&s->lock);
	return ended;
}

/* Of a thread that has ended. */
static void
join(struct place *s)
{
	pthread_join(s->thread, NULL);
	atomic_store(&s->running, false);
	if (s->next != NULL)
		config_unref(s->next);
	s->next = NULL;
	if (s->leaving)
		publisher_show(s);
	s->leaving = false;
}

static void
tell_stuck(struct place *s)
{
	if (!s->stuck)
		log_error(s->p->log, "sink_stuck", "sink %s does not return from a write", s->name);
	s->stuck = true;
}

static void
tell_to_stop(struct place *s, int64_t deadline_ns, uint64_t stop_seq)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	s->stop_ns = deadline_ns;
	s->stop_seq = stop_seq;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* No sink any more; nobody waits for its thread. */
static void
let_go(struct place *s)
{
	pthread_mutex_lock(&s->lock);
	s->leaving = true;
	pthread_mutex_unlock(&s->lock);
	tell_to_stop(s, clock_mono_ns(), 0);
	s->used = false;
	publisher_show(s);
}

void
publisher_reap(struct publisher *p)
{
	int64_t now = clock_mono_ns();

	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];

		if (!s->leaving)
			continue;
		if (has_ended(s, now)) {
			join(s);
		} else if (now >= s->stop_ns + STUCK_NS) {
			tell_stuck(s);
			atomic_store(&s->keep, NOTHING_TO_KEEP);
		}
	}
}

/* A cursor is of one thread. */
static int
wait_for_former(struct publisher *p, const char *name, struct err *err)
{
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];

		if (!s->leaving || strcmp(s->name, name) != 0)
			continue;
		if (!has_ended(s, s->stop_ns + STUCK_NS))
			return err_set(err,
			    "sink %s: it was removed, and has not returned from a write since: "
			    "restart, or give it another name",
			    name);
		join(s);
	}
	return 0;
}

/* ---- its start ---- */

static int
start_sink(struct publisher *p, const struct config *config, const struct config_sink *cfg,
    struct err *err)
{
	struct place *s;
	char name[sizeof(s->name) + 16];

	if (wait_for_former(p, cfg->name, err) == -1)
		return -1;
	if ((s = free_place(p, cfg->name)) == NULL)
		return err_set(err,
		    "sink %s: there can be %d sinks, and one that was removed is one until it has "
		    "ended",
		    cfg->name, PLACES);
	snprintf(s->name, sizeof(s->name), "%s", cfg->name);
	s->metric = metrics_sink(p->metrics, cfg->name);
	if (begin(s, cfg, err) == -1)
		return err_prefix(err, "sink %s: %s", cfg->name, p->dir);
	if (s->shard == NULL && (s->shard = metrics_shard_new(p->metrics)) == NULL) {
		cursor_close(&s->cursor);
		return err_set(err, "sink %s: memory is short", cfg->name);
	}
	reset(s, config, cfg);
	snprintf(name, sizeof(name), "%s %s", kind_of(cfg), s->name);
	if (thread_start(&s->thread, name, publisher_run, s, err) == -1) {
		cursor_close(&s->cursor);
		config_unref(s->next);
		atomic_store(&s->keep, NOTHING_TO_KEEP);
		return -1;
	}
	s->used = true;
	s->remote = config_sink_is_remote(cfg);
	atomic_store(&s->running, true);
	return 0;
}

/* ---- all of them ---- */

static void
report_unused_cursor(struct publisher *p, const struct config *config, const char *file)
{
	static const char prefix[] = "cursor.";
	size_t n = sizeof(prefix) - 1;

	if (strncmp(file, prefix, n) == 0 && publisher_find_config(config, file + n) == NULL)
		log_warn(p->log, "cursor_unused", "%s/%s: no sink has this name; it keeps nothing",
		    p->dir, file);
}

static void
report_unused_cursors(struct publisher *p, const struct config *config)
{
	int fd = openat(p->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (dir == NULL) {
		if (fd != -1)
			close(fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL)
		report_unused_cursor(p, config, entry->d_name);
	closedir(dir);
}

uint64_t
publisher_used(int dirfd, const char *log)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct line_id at;
	uint64_t used = 0;

	if (dir == NULL) {
		if (fd != -1)
			close(fd);
		return 0;
	}
	while ((entry = readdir(dir)) != NULL)
		if (strncmp(entry->d_name, "cursor.", 7) == 0 &&
		    cursor_look(dirfd, entry->d_name, &at) && strcmp(at.log, log) == 0 &&
		    at.seq > used)
			used = at.seq;
	closedir(dir);
	return used;
}

static int
read_durable(struct publisher *p, struct err *err)
{
	struct trail_reader *r;

	if (trail_reader_open_at(p->dirfd, 0, &r, err) == -1)
		return -1;
	atomic_store(&p->durable, trail_reader_durable(r));
	trail_reader_close(r);
	return 0;
}

static void
init_places(struct publisher *p)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];

		s->p = p;
		s->index = i;
		s->cursor.fd = -1;
		atomic_store(&s->keep, NOTHING_TO_KEEP);
		pthread_mutex_init(&s->lock, NULL);
		pthread_cond_init(&s->changed, &attr);
	}
	pthread_condattr_destroy(&attr);
}

int
publisher_start(const struct publisher_opts *opts, struct publisher **out, struct err *err)
{
	struct publisher *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return err_set(err, "sinks: memory is short");
	p->metrics = opts->metrics;
	p->shard = opts->shard;
	p->log = opts->log;
	p->dirfd = opts->dirfd;
	p->types = opts->types;
	p->corrupt = opts->corrupt;
	p->rejected = opts->rejected;
	p->recorded = opts->recorded;
	p->arg = opts->arg;
	init_places(p);
	if ((p->dir = strdup(opts->config->audit.trail)) == NULL) {
		err_set(err, "sinks: memory is short");
		goto fail;
	}
	if (read_durable(p, err) == -1)
		goto fail;
	for (size_t i = 0; i < opts->config->nsinks; i++)
		if (start_sink(p, opts->config, &opts->config->sinks[i], err) == -1)
			goto fail;
	report_unused_cursors(p, opts->config);
	*out = p;
	return 0;
fail:
	publisher_stop(p, clock_mono_ns());
	publisher_free(p);
	return -1;
}

void
publisher_wake(struct publisher *p, uint64_t durable_seq)
{
	atomic_store(&p->durable, durable_seq);
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];

		if (!atomic_load(&s->sleeping))
			continue;
		pthread_mutex_lock(&s->lock);
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
	}
}

uint64_t
publisher_keep_seq(struct publisher *p)
{
	uint64_t lowest = NOTHING_TO_KEEP;

	for (unsigned i = 0; i < PLACES; i++) {
		uint64_t keep = atomic_load(&p->places[i].keep);

		if (keep < lowest)
			lowest = keep;
	}
	return lowest;
}

void
publisher_reopen(struct publisher *p)
{
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];

		pthread_mutex_lock(&s->lock);
		s->reopen = s->used;
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
	}
}

/* ---- reload ---- */

static void
change_sink(struct place *s, const struct config *next, const struct config_sink *cfg)
{
	const struct config *unseen;

	pthread_mutex_lock(&s->lock);
	unseen = s->next;
	s->next = config_ref(next);
	s->type = s->p->types->ops[cfg->type]->type;
	s->required = cfg->required;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (unseen != NULL)
		config_unref(unseen);
}

static int
start_added(struct publisher *p, const struct config *next, bool added[PLACES], struct err *err)
{
	for (size_t i = 0; i < next->nsinks; i++) {
		const struct config_sink *cfg = &next->sinks[i];
		const struct place *s;

		if (publisher_find_place(p, cfg->name) != NULL)
			continue;
		if (start_sink(p, next, cfg, err) == -1)
			return -1;
		s = publisher_find_place(p, cfg->name);
		assert(s != NULL);
		added[s->index] = true;
	}
	return 0;
}

static int
check_kinds(struct publisher *p, const struct config *next, struct err *err)
{
	for (size_t i = 0; i < next->nsinks; i++) {
		const struct config_sink *cfg = &next->sinks[i];
		const struct place *s = publisher_find_place(p, cfg->name);

		if (s != NULL && s->remote != config_sink_is_remote(cfg))
			return err_set(err,
			    "sink %s: its thread began %s the network: restart, or give it "
			    "another name",
			    cfg->name, s->remote ? "with" : "without");
	}
	return 0;
}

/* What can fail comes first, and is undone. */
int
publisher_reload(struct publisher *p, const struct config *next, struct err *err)
{
	bool added[PLACES] = { false }, failed;

	if (sink_types_check(p->types, next, err) == -1 || check_kinds(p, next, err) == -1)
		return -1;
	publisher_reap(p);
	failed = start_added(p, next, added, err) == -1;
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];
		const struct config_sink *cfg = publisher_find_config(next, s->name);

		if (!s->used || (failed && !added[i]) || (!failed && added[i]))
			continue;
		if (failed || cfg == NULL)
			let_go(s);
		else
			change_sink(s, next, cfg);
	}
	return failed ? -1 : 0;
}

/* ---- the end ---- */

/* A write to a dead file system may never return: then the thread is left behind, and its memory. */
static void
end(struct place *s)
{
	if (has_ended(s, s->stop_ns + STUCK_NS)) {
		join(s);
		return;
	}
	tell_stuck(s);
	pthread_detach(s->thread);
	atomic_store(&s->running, false);
	pthread_mutex_lock(&s->lock);
	s->leaving = false; /* nobody joins it */
	pthread_mutex_unlock(&s->lock);
	s->p->stuck = true;
}

uint64_t
publisher_stop(struct publisher *p, int64_t deadline_ns)
{
	uint64_t undelivered = 0, durable = atomic_load(&p->durable);
	struct publisher_sink_status st;

	for (unsigned i = 0; i < PLACES; i++)
		if (p->places[i].used)
			tell_to_stop(&p->places[i], deadline_ns, durable);
	for (unsigned i = 0; i < PLACES; i++) {
		struct place *s = &p->places[i];

		if (atomic_load(&s->running))
			end(s);
		if (!s->used)
			continue;
		publisher_fill_status(s, &st);
		undelivered += st.waiting;
	}
	p->stopped = true;
	return undelivered;
}

void
publisher_free(struct publisher *p)
{
	if (p == NULL)
		return;
	assert(p->stopped);
	if (p->stuck)
		return;
	for (unsigned i = 0; i < PLACES; i++) {
		pthread_cond_destroy(&p->places[i].changed);
		pthread_mutex_destroy(&p->places[i].lock);
	}
	free(p->dir);
	free(p);
}
