/* Opening and closing: the directory, its lock, its identity. */
#include "keytrail/fault.h"
#include "keytrail/file.h"
#include "trail_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int
make_id(char out[TRAIL_ID_SIZE], struct err *err)
{
	unsigned char random[(TRAIL_ID_SIZE - 1) / 2];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return err_set_errno(err, "random bytes");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(out + 2 * i, 3, "%02x", random[i]);
	return 0;
}

bool
trail_is_id(const char *s)
{
	return strspn(s, "0123456789abcdef") == TRAIL_ID_SIZE - 1 && s[TRAIL_ID_SIZE - 1] == '\0';
}

/* What has the lock must be what the path leads to. */
static int
share_directory(struct trail *t, int lock, struct err *err)
{
	struct stat locked, st;

	if ((t->dirfd = fcntl(lock, F_DUPFD_CLOEXEC, 0)) == -1 || fstat(lock, &locked) == -1 ||
	    stat(t->path, &st) == -1)
		return err_set_errno(err, "%s: take the trail over", t->path);
	if (locked.st_dev != st.st_dev || locked.st_ino != st.st_ino)
		return err_set(err, "%s: the process to take over from has another trail", t->path);
	return 0;
}

static int
open_directory(struct trail *t, bool create, struct err *err)
{
	if (create && mkdir(t->path, 0750) == -1 && errno != EEXIST)
		return err_set_errno(err, "%s: create the trail's directory", t->path);
	if ((t->dirfd = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1)
		return err_set_errno(err, "%s: open the trail's directory", t->path);
	if (!create && faccessat(t->dirfd, "log", F_OK, 0) == -1 &&
	    faccessat(t->dirfd, "state", F_OK, 0) == -1)
		return err_set(err, "%s: holds no trail, and \"create\" is false", t->path);
	return 0;
}

static int
refuse_second(struct trail *t, struct err *err)
{
	char text[24] = "";
	long pid;

	if (file_read(t->lockfd, text, sizeof(text) - 1, 0) > 0 &&
	    (pid = strtol(text, NULL, 10)) > 0)
		return err_set(err, "%s: locked by process %ld", t->path, pid);
	return err_set(err, "%s: locked by another process", t->path);
}

/* The lock is on the directory, which nobody can remove and make again under its writer; the file
 * holds the owner's pid, for the one who finds it locked. */
static int
lock_directory(struct trail *t, struct err *err)
{
	char text[24];
	int n;

	if ((t->lockfd = openat(t->dirfd, "lock",
		 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600)) == -1)
		return err_set_errno(err, "%s: open lock", t->path);
	if (flock(t->dirfd, LOCK_EX | LOCK_NB) == -1)
		return errno == EWOULDBLOCK ? refuse_second(t, err)
					    : err_set_errno(err, "%s: lock", t->path);
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	/* In this order a full disk has room for it: the old one's. */
	if (file_write(t->lockfd, text, (size_t)n, 0) == -1 || ftruncate(t->lockfd, n) == -1)
		return err_set_errno(err, "%s: write lock", t->path);
	return 0;
}

/* ---- the log's id ---- */

/* "<id> <base>", in decimal, and a newline. */
static bool
read_log_file(int dirfd, struct trail_log *out)
{
	char text[TRAIL_ID_SIZE + 24] = "";
	struct slice base;
	ssize_t n;
	int fd;

	if ((fd = openat(dirfd, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) == -1)
		return false;
	n = file_read(fd, text, sizeof(text), 0);
	close(fd);
	if (n <= TRAIL_ID_SIZE + 1 || text[TRAIL_ID_SIZE - 1] != ' ' || text[n - 1] != '\n')
		return false;
	text[TRAIL_ID_SIZE - 1] = '\0';
	base = (struct slice){ text + TRAIL_ID_SIZE, (size_t)n - TRAIL_ID_SIZE - 1 };
	if (!trail_is_id(text) || slice_to_u64(base, &out->base) == -1)
		return false;
	memcpy(out->id, text, TRAIL_ID_SIZE);
	return true;
}

bool
trail_log_is_there(struct trail *t)
{
	struct trail_log there;

	return read_log_file(t->dirfd, &there) && strcmp(there.id, t->log.id) == 0 &&
	       there.base == t->log.base;
}

int
trail_write_log(struct trail *t, struct err *err)
{
	char text[TRAIL_ID_SIZE + 24];
	int n = snprintf(text, sizeof(text), "%s %" PRIu64 "\n", t->log.id, t->log.base);

	return trail_replace_file(t, "log", (struct slice){ text, (size_t)n }, err);
}

static void
write_member(struct trail *t)
{
	t->nmember = (size_t)snprintf(t->member, sizeof(t->member),
	    "\",\"boot\":\"%s\",\"log\":\"%s\",\"seq\":", t->boot, t->log.id);
}

/* The run before was killed when it had begun a new log in the page, and not yet in the file. */
static bool
was_given_up(const struct trail_state_info *before, const char *log)
{
	return before->valid && before->unrecorded && strcmp(before->found.given_up, log) == 0;
}

/* The id is in the file `log`; the state page remembers it, should the file be gone.  A new log gets
 * the file after its page: a file without a page tells of tampering. */
static int
identify(struct trail *t, const struct trail_opts *opts, const struct trail_state_info *before,
    bool *new_log, struct err *err)
{
	struct trail_log there;

	*new_log = false;
	if (make_id(t->boot, err) == -1)
		return -1;
	if (read_log_file(t->dirfd, &there) && !was_given_up(before, there.id)) {
		t->log = there;
		return 0;
	}
	if (before->valid && trail_is_id(before->log.id)) {
		t->log = before->log;
		return trail_write_log(t, err);
	}
	if (!opts->create)
		return err_set(err, "%s: holds no trail, and \"create\" is false", t->path);
	*new_log = true; /* its id comes last: it is of no line that is there */
	return 0;
}

/* ---- open and close ---- */

static int
find_group(struct trail *t, const char *name, struct err *err)
{
	struct group *g;

	t->gid = (gid_t)-1;
	if (name == NULL)
		return 0;
	errno = 0;
	if ((g = getgrnam(name)) == NULL)
		return err_set(err, "%s: no group \"%s\"", t->path, name);
	t->gid = g->gr_gid;
	return 0;
}

static void
trail_free(struct trail *t)
{
	trail_state_unmap(t->state);
	pthread_mutex_destroy(&t->holds_lock);
	pthread_mutex_destroy(&t->page_lock);
	buf_fini(&t->queue);
	leaves_free(t->leaves);
	trail_seen_fini(&t->seen);
	trail_list_free(&t->foreign);
	for (size_t i = 0; i < 4; i++) {
		int fd = (int[]){ t->open.fd, t->failed.fd, t->lockfd, t->dirfd }[i];

		if (fd != -1)
			close(fd);
	}
	free(t->path);
	free(t);
}

static int
count_segments(struct trail *t, struct err *err)
{
	uint64_t sealed = 0;
	struct trail_list l;
	struct stat st;

	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return err_prefix(err, "%s", t->path);
	for (size_t i = 0; i < l.n; i++)
		if (l.first[i] != t->open.first &&
		    fstatat(t->dirfd, trail_segment_name(l.first[i], "").s, &st, 0) == 0)
			sealed += (uint64_t)st.st_size;
	atomic_store(&t->sealed_bytes, sealed);
	atomic_store(&t->segments, l.n > 0 ? l.n - 1 : 0);
	trail_list_free(&l);
	return 0;
}

struct trail_state_info
trail_info(const struct trail *t)
{
	struct trail_state_info info = {
		.mark = t->mark,
		.log = t->log,
		.unrecorded = !t->recorded,
		.found = t->found,
		.rings = t->rings,
		.gone = t->gone,
		.holds = t->page.holds,
	};

	memcpy(info.boot, t->boot, TRAIL_ID_SIZE);
	return info;
}

int
trail_identify(struct trail *t, bool clean, struct err *err)
{
	int rc;

	pthread_mutex_lock(&t->page_lock);
	t->page = trail_info(t);
	t->page.clean = clean;
	rc = trail_state_identify(t->state, &t->page, err);
	pthread_mutex_unlock(&t->page_lock);
	return rc;
}

/* A start that recorded nothing hands on what it found. */
static void
inherit(struct trail *t, const struct trail_state_info *before, bool new_log)
{
	if (before->valid && before->unrecorded) {
		t->found = before->found;
	} else if (before->valid && strcmp(before->log.id, t->log.id) == 0) {
		t->found.clean = before->clean;
		if (trail_is_id(before->boot))
			memcpy(t->found.previous_boot, before->boot, TRAIL_ID_SIZE);
	}
	t->found.new_log |= new_log;
}

static int
create_state(struct trail *t, struct err *err)
{
	t->page = trail_info(t);
	if (trail_state_create(t->dirfd, &t->page, &t->state, err) == -1)
		return err_prefix(err, "%s", t->path);
	return 0;
}

/* A page that is new does not know what expired: what is before the first segment. */
static int
remember_gone(struct trail *t, const struct trail_state_info *before, struct err *err)
{
	struct trail_list l;

	if (before->valid) {
		t->gone = before->gone;
	} else {
		if (trail_list_segments(t->dirfd, &l, err) == -1)
			return err_prefix(err, "%s", t->path);
		t->gone.expired = l.n > 0 ? l.first[0] - 1 : 0;
		trail_list_free(&l);
	}
	trail_gone_add(&t->gone, t->found.missing_first, t->found.missing_last);
	trail_gone_add(&t->gone, t->found.corrupt_first, t->found.corrupt_last);
	trail_gone_add(&t->gone, t->found.torn_first, t->found.torn_last);
	return 0;
}

static int
replace_log(struct trail *t, struct err *err)
{
	memcpy(t->found.given_up, t->log.id, TRAIL_ID_SIZE);
	t->log.base = t->last_seq;
	if (make_id(t->log.id, err) == -1)
		return -1;
	write_member(t);
	return 0;
}

static void
find_used(struct trail *t, const struct trail_opts *opts)
{
	uint64_t given = opts->used != NULL ? opts->used(t->dirfd, t->log.id) : 0;

	if (opts->signed_log != NULL && strcmp(opts->signed_log, t->log.id) == 0)
		t->used = t->log.base + opts->signed_size;
	if (t->used >= TRAIL_NAME_END)
		t->used = 0;
	if (given > t->used && given < TRAIL_BELIEVED_END)
		t->used = given;
}

/* What was signed has expired only where a line that was signed says so: the page anybody can write. */
static void
judge_expiry(struct trail *t, const struct trail_opts *opts, struct trail_gone *gone)
{
	bool is_signed = opts->signed_log != NULL && strcmp(opts->signed_log, t->log.id) == 0 &&
			 opts->signed_size > 0;

	if (!is_signed || gone->expired <= t->log.base)
		return;
	if (gone->told_by > t->log.base + opts->signed_size || !trail_tells_of_expiry(t, gone))
		gone->expired = t->log.base;
}

static int
open_trail(struct trail *t, const struct trail_opts *opts, struct err *err)
{
	struct trail_state_info before;
	bool fresh, lost;

	if (find_group(t, opts->group, err) == -1 ||
	    (opts->lock != NULL ? share_directory(t, *opts->lock, err)
				: open_directory(t, opts->create, err)) == -1 ||
	    lock_directory(t, err) == -1)
		return -1;
	if (trail_state_load(t->dirfd, &before, err) == -1)
		return err_prefix(err, "%s", t->path);
	if (identify(t, opts, &before, &fresh, err) == -1)
		return -1;
	trail_load_holds(t, before.valid ? &before.holds : NULL);
	inherit(t, &before, fresh);
	t->rings = before.valid && !before.clean ? before.rings : 0;
	/* The state of another log says nothing of this one, nor does an identity that no line has. */
	before.valid = before.valid && strcmp(before.log.id, t->log.id) == 0 && !trail_is_alien(t);
	lost = !before.valid && !fresh;
	if (opts->lock != NULL && (fresh || lost))
		return err_set(err, "%s: this is not the trail that was given up", t->path);
	if (lost && !opts->create)
		return err_set(err,
		    "%s: the file \"state\" is missing or damaged, and \"create\" is false: no new "
		    "log is begun",
		    t->path);
	write_member(t);
	find_used(t, opts);
	judge_expiry(t, opts, &before.gone);
	if (before.valid && trail_finish_expiry(t, &before.gone, err) == -1)
		return -1;
	if (trail_recover(t, &before, opts->lock != NULL, err) == -1)
		return -1;
	t->found.state_lost |= lost || (fresh && t->last_seq > 0);
	/* Nobody knows which numbers were used: those of another log cannot be mistaken for them. */
	if ((fresh || lost) && replace_log(t, err) == -1)
		return -1;
	FAULT_POINT("recover.after_segments");
	if (remember_gone(t, &before, err) == -1)
		return -1;
	if (create_state(t, err) == -1 || ((fresh || lost) && trail_write_log(t, err) == -1))
		return -1;
	if (count_segments(t, err) == -1)
		return -1;
	return trail_recover_rings(t, t->rings, opts->lock != NULL, err);
}

/* Not a number that a worker has, in any version. */
void
trail_given_ring_name(unsigned i, char out[TRAIL_RING_NAME_SIZE])
{
	snprintf(out, TRAIL_RING_NAME_SIZE, "ring.%u", TRAIL_GIVEN_RINGS + i);
}

int
trail_give(struct trail *t, bool whole, struct err *err)
{
	if (!t->recorded || t->mark.seq != t->last_seq)
		return err_set(err, "%s: not all of it is durable", t->path);
	t->rings = 0;
	return trail_identify(t, whole, err);
}

void
trail_need_less(struct trail *t, uint64_t room)
{
	assert(room <= t->room);
	t->room -= room;
}

void
trail_ring_name(unsigned i, unsigned n, char out[TRAIL_RING_NAME_SIZE])
{
	if (i + 1 == n)
		snprintf(out, TRAIL_RING_NAME_SIZE, "ring.main");
	else
		snprintf(out, TRAIL_RING_NAME_SIZE, "ring.%u", i);
}

int
trail_expect_rings(struct trail *t, unsigned n, struct err *err)
{
	t->rings = n;
	return trail_identify(t, false, err);
}

int
trail_open(
    const struct trail_opts *opts, struct trail **out, struct trail_recovery *rec, struct err *err)
{
	struct trail *t;

	assert(opts->segment_size > 0);
	if ((t = calloc(1, sizeof(*t))) == NULL)
		return err_set_errno(err, "%s", opts->dir);
	pthread_mutex_init(&t->holds_lock, NULL);
	pthread_mutex_init(&t->page_lock, NULL);
	t->dirfd = t->lockfd = t->open.fd = t->failed.fd = -1;
	t->io = opts->io != NULL ? *opts->io : trail_disk;
	t->segment_size = opts->segment_size;
	t->room = opts->room;
	if ((t->path = strdup(opts->dir)) == NULL) {
		trail_free(t);
		return err_set_errno(err, "%s", opts->dir);
	}
	if (open_trail(t, opts, err) == -1)
		goto fail;
	if (opts->hashed && (t->leaves = leaves_new(TRAIL_LINE_MAX)) == NULL) {
		err_set_errno(err, "%s", opts->dir);
		goto fail;
	}
	/* Perhaps only a start ended well that was itself cut off before it could record anything. */
	t->found.clean &= t->found.torn_bytes + t->found.from_rings + t->found.from_slots +
			      t->found.intents_closed ==
			  0;
	*rec = t->found;
	*out = t;
	return 0;
fail:
	trail_free(t);
	return -1;
}

/* The page first: it knows the file that is still there when this is cut short. */
int
trail_renew(struct trail *t, struct err *err)
{
	if (trail_write(t, err) == -1 || trail_sync(t, err) == -1 || replace_log(t, err) == -1)
		return -1;
	t->recorded = false;
	FAULT_POINT("renew.before_page");
	if (trail_identify(t, false, err) == -1)
		return -1;
	FAULT_POINT("renew.after_page");
	if (trail_write_log(t, err) == -1)
		return -1;
	FAULT_POINT("renew.after_file");
	return 0;
}

const char *
trail_log_given_up(const struct trail *t)
{
	return t->found.given_up;
}

int
trail_read_log(int dirfd, struct trail_log *out, struct err *err)
{
	struct trail_state_info info;

	if (trail_state_load(dirfd, &info, err) == -1)
		return -1;
	if (!info.valid)
		return err_set(err, "the file \"state\" is missing or damaged");
	*out = info.log;
	return 0;
}

void
trail_close(struct trail *t, bool clean)
{
	struct err err;

	if (clean && t->recorded && t->open.fd != -1 && trail_write(t, &err) == 0 &&
	    trail_sync(t, &err) == 0) {
		/* On a full disk it is kept for what stands in slots. */
		if (trail_reserve(t, &err) == 0)
			t->io.truncate(t->io.arg, t->open.fd, (off_t)t->open.offset);
		trail_identify(t, true, &err);
	}
	trail_free(t);
}

int
trail_recovery_recorded(struct trail *t, struct err *err)
{
	t->recorded = true;
	if (trail_identify(t, false, err) == -1)
		return err_prefix(err, "%s", t->path);
	return 0;
}

const char *
trail_log_id(const struct trail *t)
{
	return t->log.id;
}

uint64_t
trail_log_base(const struct trail *t)
{
	return t->log.base;
}

const char *
trail_boot_id(const struct trail *t)
{
	return t->boot;
}

int
trail_dirfd(const struct trail *t)
{
	return t->dirfd;
}

bool
trail_state_was_cut(struct trail *t)
{
	bool was_cut;

	pthread_mutex_lock(&t->page_lock);
	t->page = trail_info(t);
	was_cut = trail_state_mend(t->state, &t->page);
	pthread_mutex_unlock(&t->page_lock);
	return was_cut;
}

void
trail_stats(const struct trail *t, struct trail_stats *out)
{
	struct statvfs v;

	out->bytes = atomic_load_explicit(&t->sealed_bytes, memory_order_relaxed) +
		     atomic_load_explicit(&t->open_bytes, memory_order_relaxed);
	out->segments = atomic_load_explicit(&t->segments, memory_order_relaxed) + 1;
	out->free_bytes = fstatvfs(t->dirfd, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : 0;
}
